#!/usr/bin/env node
/**
 * Entry of the command line: makes what was typed regular, finds the command, and turns whatever
 * happens into an exit status.
 *
 * clipanion's own `run` would write errors to standard output and always exit by 1; it only finds
 * the command here. Must never: load what only some runs need, the addon and chalk, for `--help` is
 * to be as quick as Node alone.
 */

import { looksLikeAsmt, normalise, progressForm, wantsJson } from './argv.ts';
import { commandOf } from './commands/all.ts';
import { hasDirectory, isOn, set } from './environment.ts';
import { AsmtError, exitStatus, type Form } from './errors.ts';
import { fail } from './failure.ts';
import { help, shortUsage } from './help.ts';
import { writeErr, writeOut } from './output.ts';
import { takeHarmlessSignals } from './signals.ts';
import { commit, version } from './version.ts';

takeHarmlessSignals();
const args = process.argv.slice(2);

let form: Form = looksLikeAsmt(args) ? 'asmt' : 'commands';
void start();

async function start(): Promise<void> {
  try {
    process.exitCode = await main();
  } catch (error) {
    // Variables count in the commands only.
    const env = form === 'commands' ? process.env : {};
    const json = wantsJson(args) || isOn(env, 'json');
    const progress = (progressForm(args) ?? set(env, 'progress')) === 'json' ? 'json' : 'text';
    process.exitCode = await fail(error, form, json, progress);
  }
}

async function main(): Promise<number> {
  if (args.length === 0) {
    writeErr(shortUsage());
    return exitStatus('usage', form);
  }
  const typed = normalise(args, hasDirectory(process.env));
  if (typed.kind === 'help') return printed(help(typed.verb));
  if (typed.kind === 'version') return printed(await versionText());
  form = typed.form;
  const command = commandOf(typed.verb);
  return command.given(typed.values, typed.operands, typed.command).execute();
}

/** Version, commit, and the engine: its target (with the libc), and the SIMD level in use. */
async function versionText(): Promise<string> {
  const { engineBuild } = await import('./native.ts');
  const lines = [`asmt ${version()}`, `commit ${commit()}`];
  try {
    const { target, simd } = engineBuild();
    lines.push(`engine ${target}, SIMD level ${simd}`);
  } catch (error) {
    lines.push(error instanceof Error ? error.message : String(error));
  }
  return `${lines.join('\n')}\n`;
}

/** Writes what was asked for, and gives the exit status. */
function printed(text: string): number {
  const lost = writeOut(text);
  if (lost === null) return 0;
  const hint = 'free space where standard output goes, then try again';
  throw new AsmtError('failed', 'result-lost', `the result could not be written to standard output: ${lost}`, hint);
}
