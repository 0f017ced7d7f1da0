/**
 * A failure that no engine was asked about, shown like one of the engine's; and the JSON of either.
 * Must never: load the engine, which may be what failed.
 */

import { streamColours } from './colours.ts';
import { AsmtError, exitStatus, type Form } from './errors.ts';
import type { Outcome } from './outcome.ts';
import { writeErr, writeOut } from './output.ts';
import * as render from './render.ts';

/** What an operation comes to, as `--json` shows it. */
export function jsonOf(outcome: Outcome, status: number): string {
  return render.json({ ok: outcome.ok, exit_status: status, report: outcome.report, error: outcome.error });
}

/** Shows whatever was thrown. Returns the exit status. */
export async function fail(error: unknown, form: Form, json: boolean): Promise<number> {
  const ours = AsmtError.of(error);
  const text = ours.toText();
  const status = exitStatus(ours.kind, form);
  if (json) writeOut(jsonOf({ ok: false, report: null, error: text }, status));
  const { err } = await streamColours();
  writeErr(render.failure(err, text));
  return status;
}
