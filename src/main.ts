#!/usr/bin/env node
/**
 * Entry of the command line: makes what was typed regular, finds the command, and turns whatever
 * happens into an exit status.
 *
 * clipanion's own `run` would write errors to standard output and always exit by 1; it only finds
 * and fills the command here. Heavy modules are imported where they are used, so that `--help`
 * stays quick.
 */

import { createRequire } from 'node:module';

import { looksLikeAsmt, normalise, wantsJson } from './argv.ts';
import type { AsmtCommand } from './commands/base.ts';
import { AsmtError, exitStatus, type Form } from './errors.ts';
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
  const command = await commandOf(typed.argv);
  return command.execute();
}

/** Writes what was asked for, and gives the exit status. */
function printed(text: string): number {
  const lost = writeOut(text);
  if (lost === null) return 0;
  const hint = 'make room where standard output goes, then run it again';
  throw new AsmtError('failed', 'result-lost', `the result could not be written to standard output: ${lost}`, hint);
}

async function commandOf(argv: string[]): Promise<AsmtCommand> {
  const [
    { Cli, UsageError },
    { ListCommand },
    { BackupCommand },
    { RestoreCommand },
    { VerifyCommand },
    { RetireCommand },
    { AsmtFormCommand },
  ] = await Promise.all([
    import('clipanion'),
    import('./commands/list.ts'),
    import('./commands/backup.ts'),
    import('./commands/restore.ts'),
    import('./commands/verify.ts'),
    import('./commands/retire.ts'),
    import('./commands/asmt-form.ts'),
  ]);
  const cli = new Cli({ binaryName: 'asmt' });
  const commands = [ListCommand, BackupCommand, RestoreCommand, VerifyCommand, RetireCommand, AsmtFormCommand];
  for (const command of commands) cli.register(command);
  try {
    return cli.process(argv) as AsmtCommand;
  } catch (error) {
    const isSyntax = error instanceof UsageError || (error instanceof Error && 'clipanion' in error);
    if (isSyntax) throw AsmtError.usage((error as Error).message.split('\n')[0] ?? '', 'see asmt --help');
    throw error;
  }
}
