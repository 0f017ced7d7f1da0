#!/usr/bin/env node
/**
 * Entry of the command line: makes what was typed regular, finds the command, and turns whatever
 * happens into an exit status.
 *
 * clipanion's own `run` would write errors to standard output and always exit by 1; it only finds
 * the command here. Heavy modules are imported where they are used, so that `--help` stays quick.
 */

import { createRequire } from 'node:module';

import { looksLikeAsmt, normalise, wantsJson } from './argv.ts';
import type { AsmtCommand } from './commands/base.ts';
import { AsmtError, exitStatus, type Form } from './errors.ts';
import type { Verb } from './options.ts';
import { writeOut } from './output.ts';
import { takeHarmlessSignals } from './signals.ts';

takeHarmlessSignals();
const args = process.argv.slice(2);

// There is no other place to say that it cannot be written.
process.stderr.on('error', () => {});

let form: Form = looksLikeAsmt(args) ? 'asmt' : 'commands';
try {
  process.exitCode = await main();
} catch (error) {
  const { fail } = await import('./commands/base.ts');
  process.exitCode = fail(error, form, wantsJson(args));
}

async function main(): Promise<number> {
  if (args.length === 0) {
    const { shortUsage } = await import('./help.ts');
    process.stderr.write(shortUsage());
    return exitStatus('usage', form);
  }
  const typed = normalise(args);
  if (typed.kind === 'help') {
    const { help } = await import('./help.ts');
    return printed(help(typed.verb));
  }
  if (typed.kind === 'version') {
    const { engineVersion } = await import('./native.ts');
    const { version } = createRequire(import.meta.url)('../package.json') as { version: string };
    return printed(`asmt ${version} (engine ${engineVersion()})\n`);
  }
  form = typed.form;
  const command = await commandOf(typed.verb);
  return command.given(typed.values, typed.operands).execute();
}

/** Writes what was asked for, and gives the exit status. */
function printed(text: string): number {
  const lost = writeOut(text);
  if (lost === null) return 0;
  const hint = 'free space where standard output goes, then try again';
  throw new AsmtError('failed', 'result-lost', `the result could not be written to standard output: ${lost}`, hint);
}

/** The command of this name; that of ASMT's form without one. */
async function commandOf(verb: Verb | null): Promise<AsmtCommand> {
  const [{ Cli }, { COMMANDS }] = await Promise.all([import('clipanion'), import('./commands/all.ts')]);
  const cli = new Cli({ binaryName: 'asmt' });
  for (const command of COMMANDS) cli.register(command);
  return cli.process(verb === null ? [] : [verb]) as AsmtCommand;
}
