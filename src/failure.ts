/**
 * A failure that no engine was asked about, shown like one of the engine's. Must never: load the
 * engine, which may be what failed.
 */

import { streamColours } from './colours.ts';
import { AsmtError, exitStatus, type Form } from './errors.ts';
import { outputOf } from './json.ts';
import { writeErr, writeOut } from './output.ts';
import { voiceOf } from './voice.ts';

/** Shows whatever was thrown. Returns the exit status. */
export async function fail(error: unknown, form: Form, json: boolean, progress: 'text' | 'json'): Promise<number> {
  const ours = AsmtError.of(error);
  const text = ours.toText();
  const status = exitStatus(ours.kind, form);
  if (json) writeOut(outputOf({ ok: false, report: null, error: text }, status));
  const { err } = await streamColours();
  writeErr(voiceOf({ quiet: false, progress }, err).failure(text));
  return status;
}
