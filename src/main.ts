#!/usr/bin/env node
/**
 * Entry of the command line: makes what was typed regular, finds the command, and turns whatever happens into an exit
 * status.
 *
 * clipanion's own `run` would write errors to standard output and always exit by 1; it only finds and fills the command
 * here. Heavy modules are imported where they are used, so that `--help` stays quick.
 */

import { createRequire } from 'node:module';

import { looksLikeAsmt, normalise, wantsJson } from './argv.ts';
import type { AsmtCommand } from './commands/base.ts';
import { AsmtError, exitStatus, type Form } from './errors.ts';

const args = process.argv.slice(2);

/** A reader that went away must neither stop nor undo the work; anything else means that the result is lost. */
function onOutputError(error: NodeJS.ErrnoException): void {
  if (error.code === 'EPIPE') return;
  process.exitCode ||= 1;
  process.stderr.write(`asmt: error: the result could not be written to standard output: ${error.message}\n`);
}

process.stdout.on('error', onOutputError);
// There is no other place to say it.
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
    process.stdout.write(help(typed.verb));
    return 0;
  }
  if (typed.kind === 'version') {
    const { engineVersion } = await import('./native.ts');
    const { version } = createRequire(import.meta.url)('../package.json') as { version: string };
    process.stdout.write(`asmt ${version} (engine ${engineVersion()})\n`);
    return 0;
  }
  form = typed.form;
  const command = await commandOf(typed.argv);
  return command.execute();
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
