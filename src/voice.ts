/**
 * What goes to standard error, in the form that was asked for: text for people, or lines of JSON
 * (`--progress json`); and what `-q` leaves of it. Pure.
 *
 * Promise: an error is never left out, and neither is a remark that a protection was off. Must
 * never: write, or know when something is said.
 */

import { errorLinesOf, eventLineOf, lineOf, remarkLineOf } from './json.ts';
import type { ErrorText, Remark, Report } from './outcome.ts';
import * as render from './render.ts';

/** Makes the texts; an empty one means that nothing is to be said. */
export interface Voice {
  remark(remark: Remark): string;
  /** Something that happened: only with `-v`, or where the user has to know why it goes on. */
  event(event: Remark): string;
  failure(error: ErrorText): string;
  alternative(verb: Report['verb'], names: readonly string[], command: string): string;
}

/**
 * Remarks that `-q` leaves: a check that would have refused was overridden, or may be by a variable
 * that somebody forgot. Nobody who wants to hear of errors only wants these to be silent.
 */
const NEVER_QUIET = new Set(['overridden', 'set-by-variable']);

/** The voice of a run. */
export function voiceOf({ quiet, progress }: { quiet: boolean; progress: 'text' | 'json' }, colours: render.Colours): Voice {
  const loud = progress === 'json' ? JSON_LINES : textIn(colours);
  if (!quiet) return loud;
  return { ...loud, remark: (remark) => (NEVER_QUIET.has(remark.code) ? loud.remark(remark) : ''), event: () => '' };
}

function textIn(colours: render.Colours): Voice {
  return {
    remark: (remark) => render.remark(colours, remark),
    event: render.event,
    failure: (error) => render.failure(colours, error),
    alternative: (verb, names, command) => render.alternative(colours, verb, names, command),
  };
}

const JSON_LINES: Voice = {
  remark: remarkLineOf,
  event: eventLineOf,
  failure: ({ problems }) => errorLinesOf(problems),
  alternative: (_verb, names, command) => lineOf({ type: 'alternative', namespaces: [...names], command }),
};
