/**
 * Failures, and what exit status each kind of them gives: the one table of it.
 *
 * The engine's problems come as data (see `native.ts`); the front end's own become the same shape
 * here, so that there is one way to show them. Must never: print, or end the process.
 */

import type { ErrorText, FailureKind as Kind, Problem } from './outcome.ts';

/** Exit status of the commands, and what the help says to it. */
export const EXIT_STATUSES: readonly { readonly kind: Kind | 'done'; readonly status: number; readonly help: string }[] = [
  { kind: 'done', status: 0, help: 'done' },
  { kind: 'failed', status: 1, help: 'failed, and cleaned up' },
  { kind: 'usage', status: 2, help: 'wrong usage' },
  { kind: 'refused', status: 3, help: 'refused, not safe now: server running, unclean shutdown, or something in the way' },
  { kind: 'stale', status: 4, help: 'refused: the backup is stale, used, from another host, or in an unknown format' },
  { kind: 'damaged', status: 5, help: 'the backup is damaged or incomplete' },
  { kind: 'no-room', status: 6, help: 'no room: disk, memory or a system limit' },
  { kind: 'nothing-to-do', status: 7, help: 'nothing to do, or no backup found; list: nothing matched' },
  { kind: 'timed-out', status: 8, help: 'gave up at the --deadline, and cleaned up' },
  { kind: 'not-reported', status: 9, help: 'done, but the report could not be written to standard output' },
  { kind: 'bug', status: 70, help: 'a bug in asmt' },
  { kind: 'not-executable', status: 126, help: 'run: the command cannot be executed' },
  { kind: 'not-found', status: 127, help: 'run: the command was not found' },
  { kind: 'interrupted', status: 130, help: 'interrupted, and cleaned up (143 by SIGTERM, 129 by SIGHUP, 131 by SIGQUIT)' },
];

/** Status of an interruption, by the signal that asked for it. */
const STATUS_OF_SIGNAL: Readonly<Record<string, number>> = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129, SIGQUIT: 131 };

/** How it was called: by a command, or in ASMT's own form, whose exit status is 0 or 1. */
export type Form = 'commands' | 'asmt';

/** The exit status; `kind` null means done. */
export function exitStatus(kind: Kind | null, form: Form, signal: NodeJS.Signals | null = null): number {
  const wanted = kind ?? 'done';
  const status = EXIT_STATUSES.find((entry) => entry.kind === wanted)?.status ?? 70;
  // Whoever calls ASMT takes 1 for a failure, and starts the server without its index or throws the
  // backup away.
  if (form === 'asmt') return wanted === 'not-reported' ? 0 : Math.min(status, 1);
  return kind === 'interrupted' && signal !== null ? (STATUS_OF_SIGNAL[signal] ?? status) : status;
}

/** A failure of the front end itself. */
export class AsmtError extends Error {
  readonly kind: Kind;
  readonly code: string;
  readonly hint: string;

  constructor(kind: Kind, code: string, message: string, hint: string) {
    super(message);
    this.name = 'AsmtError';
    this.kind = kind;
    this.code = code;
    this.hint = hint;
  }

  /** What was typed makes no sense. */
  static usage(message: string, hint: string): AsmtError {
    return new AsmtError('usage', 'usage', message, hint);
  }

  /** Anything thrown, as a failure: what is not ours is a bug. */
  static of(error: unknown): AsmtError {
    if (error instanceof AsmtError) return error;
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
    return new AsmtError('bug', 'bug', `asmt has a bug: ${text}`, 'please report it, with the command that was run');
  }

  toText(): ErrorText {
    const place = { file: null, offset: null, segment: null };
    const problem: Problem = { kind: this.kind, code: this.code, message: this.message, hint: this.hint, ...place };
    return { ...problem, problems: [problem] };
  }
}
