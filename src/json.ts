/**
 * What programs read: the object of `--json` on standard output, and the lines of `--progress json`
 * on standard error. The schemas in `share/schema/` and the tables of docs/JSON.md are made of
 * these types (`npm run reference`).
 *
 * Promise: every text that is made here fits its type. Must never: write.
 */

import type { Snapshot } from './generated/engine.ts';
import type { ErrorText, FailureKind, Outcome, Problem, Remark, Report } from './outcome.ts';
import { json } from './render.ts';

/**
 * The version of both shapes. It rises where a field is taken away, or changes its type or meaning;
 * not where one is added.
 */
export const SCHEMA_VERSION = 1;

/** The one object that `--json` writes to standard output. */
export interface Output {
  /** Version of this shape. */
  schema_version: typeof SCHEMA_VERSION;
  /** The command did what was asked for. */
  ok: boolean;
  /** Exit status of the process. */
  exit_status: number;
  /** What was found or done; null if there is nothing to report. */
  report: Report | null;
  /** Why it failed; null if it did not. */
  error: ErrorText | null;
}

/** A line that `--progress json` writes to standard error. */
export type Line = ProgressLine | RemarkLine | EventLine | ErrorLine | AlternativeLine;

/** How far the run is: once a second, and whenever the phase changes. */
export type ProgressLine = {
  /** Version of this shape. */
  schema_version: typeof SCHEMA_VERSION;
  /** What the line is about. */
  type: 'progress';
} & Omit<Snapshot, 'events'>;

/** Something that the user should know. */
export interface RemarkLine {
  /** Version of this shape. */
  schema_version: typeof SCHEMA_VERSION;
  /** What the line is about. */
  type: 'remark';
  /** Stable code. */
  code: string;
  /** What is remarkable. */
  message: string;
}

/** Something that happened: a stop, or with `-v` each step. */
export interface EventLine {
  /** Version of this shape. */
  schema_version: typeof SCHEMA_VERSION;
  /** What the line is about. */
  type: 'event';
  /** Stable code. */
  code: string;
  /** What happened. */
  message: string;
}

/** One thing that is wrong. */
export interface ErrorLine {
  /** Version of this shape. */
  schema_version: typeof SCHEMA_VERSION;
  /** What the line is about. */
  type: 'error';
  /** What kind of failure it is. */
  kind: FailureKind;
  /** Stable code: docs/HINTS.md has all of them. */
  code: string;
  /** What was found and what was expected. */
  message: string;
  /** The next step; empty where there is none. */
  hint: string;
  /** Name of the file that it is in; null where it is in none. */
  file: string | null;
  /** Where in that file, bytes; null where it is not in one place. */
  offset: number | null;
  /** Key of the segment that it is about, eight hex digits. */
  segment: string | null;
}

/** What could be done without the namespaces that were refused. */
export interface AlternativeLine {
  /** Version of this shape. */
  schema_version: typeof SCHEMA_VERSION;
  /** What the line is about. */
  type: 'alternative';
  /** The other namespaces. */
  namespaces: string[];
  /** The command for these, as a shell takes it. */
  command: string;
}

/** What an operation comes to, as `--json` shows it. */
export function outputOf({ ok, report, error }: Outcome, status: number): string {
  return json({ schema_version: SCHEMA_VERSION, ok, exit_status: status, report, error } satisfies Output);
}

/** A line of `--progress json`. */
export function lineOf(line: Unversioned<Line>): string {
  return json({ schema_version: SCHEMA_VERSION, ...line });
}

type Unversioned<L> = L extends Line ? Omit<L, 'schema_version'> : never;

/** How far a run is. */
export function progressLineOf({ events: _events, ...progress }: Snapshot): string {
  return lineOf({ type: 'progress', ...progress });
}

/** A remark. */
export function remarkLineOf({ code, message }: Remark): string {
  return lineOf({ type: 'remark', code, message });
}

/** An event. */
export function eventLineOf({ code, message }: Remark): string {
  return lineOf({ type: 'event', code, message });
}

/** Each problem of a failure, a line each. */
export function errorLinesOf(problems: readonly Problem[]): string {
  return problems
    .map(({ kind, code, message, hint, file, offset, segment }) =>
      lineOf({ type: 'error', kind, code, message, hint, file, offset, segment }),
    )
    .join('');
}
