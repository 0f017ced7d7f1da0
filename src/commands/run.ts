/**
 * `asmt run`: a restore, then the server or a signal, then a backup; for a container. What each of
 * the two halves does is what `asmt restore` and `asmt backup` do.
 *
 * Promise: a server that did not stop cleanly is not backed up: the engine judges its segments, and
 * no exit status does. The backup is asked for however the command ended, for what was restored and
 * not touched is worth as much as before. Standard output is the command's alone. Must never: start
 * the command after a signal, or while a restore is under way.
 */

import { streamColours } from '../colours.ts';
import { findProgram, runToEnd, type CommandEnd } from '../command.ts';
import { withEnvironment } from '../environment.ts';
import { AsmtError, exitStatus } from '../errors.ts';
import { tellService } from '../native.ts';
import type { ErrorText } from '../outcome.ts';
import { writeErr } from '../output.ts';
import { afterRestore, resolveRun, type EngineVerb, type RunInvocation } from '../policy.ts';
import { ReadyFile } from '../ready-file.ts';
import { STOPPING, passSignals } from '../signals.ts';
import { voiceOf, type Voice } from '../voice.ts';
import { AsmtCommand } from './base.ts';

/**
 * What stops the backup at the end. Others were what it is made for, and may come again: whoever
 * stops a container sends them more than once.
 */
const STOPPING_BACKUP: readonly NodeJS.Signals[] = ['SIGINT', 'SIGQUIT'];

export class RunCommand extends AsmtCommand {
  static override paths = [['run']];

  protected override verb(): EngineVerb {
    throw new Error('run is made of two verbs');
  }

  #voice: Voice = voiceOf({ quiet: false, progress: 'text' }, this.colours.err);
  #isJson = false;

  protected override writeResult(text: string): string | null {
    if (this.#isJson) for (const line of text.trimEnd().split('\n').filter(Boolean)) this.#say(line, 'result');
    else writeErr(text);
    return null;
  }

  /** A first start has no backup, and an end without a server nothing to back up: no error. */
  protected override failure(voice: Voice, error: ErrorText): string {
    if (error.kind !== 'nothing-to-do') return super.failure(voice, error);
    return error.problems.map(({ code, message }) => voice.remark({ code, message })).join('');
  }

  override async execute(): Promise<number> {
    const given = withEnvironment('run', this.form, this.values, this.operands, process.env);
    const meant = resolveRun(given.values, this.operands, this.command, given.sources);
    meant.restore.remarks.unshift(...given.remarks);
    const { err } = await streamColours();
    this.colours = { out: err, err };
    this.#voice = voiceOf(meant.restore, err);
    this.#isJson = meant.restore.progress === 'json';
    const [program] = meant.command;
    if (program !== undefined) findProgram(program);
    const ready = ReadyFile.at(meant.ready);
    if (process.pid === 1) {
      this.#note('no-init', 'asmt is process 1, and reaps its own command alone: give it an init (docker run --init)');
    }
    const { outcome, signal, status } = await this.perform(meant.restore);
    // Until somebody else takes the signals, nothing is waited for: none gets lost.
    const next = afterRestore(outcome.error, meant.hold, program === undefined);
    // What a restore has completed in spite of the signal is backed up again: its own backup counts
    // as used.
    if (signal !== null && !outcome.ok) return exitStatus('interrupted', this.form, signal);
    if (next === 'leave') return status;
    if (next === 'cold')
      this.#note('restore-refused', `going on without the restore (exit status ${status}), as --hold is not given`);
    if (signal === null) {
      this.#noteLost(ready.write(outcome.error?.code ?? 'done'), 'made');
      tellService('READY=1');
    }
    const end = await this.#served(meant, signal);
    this.#noteLost(ready.remove(), 'removed');
    const backup = await this.perform(meant.backup, STOPPING_BACKUP);
    if (end.status !== 0) return end.status;
    return backup.outcome.error?.kind === 'nothing-to-do' ? 0 : backup.status;
  }

  /** Waits until the server has ended, or until a signal says so. */
  async #served(meant: RunInvocation, before: NodeJS.Signals | null): Promise<CommandEnd> {
    if (meant.command.length === 0 || before !== null) {
      if (before === null) this.#say('ready, and waiting for SIGTERM to back up');
      const signal = before ?? (await nextStop());
      this.#say(`${signal}: backing up`);
      return { status: 0, how: '' };
    }
    const name = meant.command[0] ?? '';
    try {
      const rest = () => this.#say(`${name} has ended: waiting for the processes that it started`);
      const end = await runToEnd(meant.command, rest);
      this.#say(`${name} ${end.how}: backing up, if its segments are clean`);
      return end;
    } catch (error) {
      const ours = AsmtError.of(error);
      writeErr(this.#voice.failure(ours.toText()));
      return { status: exitStatus(ours.kind, this.form), how: 'was not started' };
    }
  }

  /** The server, and its backup, count for more than the file. */
  #noteLost(why: string | null, what: string): void {
    if (why !== null) this.#note('ready-file', `the file that says that asmt is ready cannot be ${what}: ${why}`);
  }

  #say(message: string, code = 'run'): void {
    writeErr(this.#voice.event({ code, message }));
  }

  #note(code: string, message: string): void {
    writeErr(this.#voice.remark({ code, message }));
  }
}

/** The next signal that asks for a stop. Keeps the process alive. */
function nextStop(): Promise<NodeJS.Signals> {
  return new Promise((done) => {
    const alive = setInterval(() => {}, 1 << 30);
    passSignals((signal) => {
      if (!STOPPING.includes(signal)) return;
      clearInterval(alive);
      done(signal);
    });
  });
}
