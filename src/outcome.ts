/**
 * What is shown: the engine's shapes, made wider by what the command line itself says in them. Its
 * own problems and remarks have codes of their own.
 *
 * Must never: hold anything but types.
 */

import type * as engine from './generated/engine.ts';

/**
 * What kind of failure: the engine's kinds, and those of the command line alone. `not-reported`:
 * the work is done, and its report was lost. `timed-out`: it was stopped at its deadline.
 * `not-executable` and `not-found`: the command of `run`.
 */
export type FailureKind = engine.Kind | 'not-reported' | 'timed-out' | 'not-executable' | 'not-found';

/** One thing that is wrong. */
export type Problem = Omit<engine.Problem, 'kind' | 'code'> & {
  /** What kind of failure it is; it decides the exit status. */
  kind: FailureKind;
  /** Stable code: docs/HINTS.md has all of them. */
  code: string;
};

/** Why an operation failed: the weightiest problem, and all of them (at least one). */
export type ErrorText = Problem & {
  /** All of them. */
  problems: Problem[];
};

/** Something that the user should know. */
export type Remark = Omit<engine.Remark, 'code'> & {
  /** Stable code. */
  code: string;
};

/** Whether a restore of an instance would be accepted, apart from what is in memory now. */
export type Restorability = Omit<engine.Restorability, 'reasons'> & {
  /** Why it would be refused, the weightiest reason first; empty if it would be accepted. */
  reasons: Problem[];
};

/** What was found or done. */
export type Report = Omit<engine.Report, 'remarks' | 'restorability'> & {
  /** What the user should know. */
  remarks: Remark[];
  /** Whether a restore here would be accepted, one entry for each instance; verifications only. */
  restorability: Restorability[];
};

/** What an operation comes to. */
export type Outcome = { ok: boolean; report: Report | null; error: ErrorText | null };
