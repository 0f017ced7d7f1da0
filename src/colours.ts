/**
 * The colours of standard output and standard error, decided once.
 *
 * Promise: they are those that chalk decides on. Loading chalk takes as long as all of asmt's own
 * code, so that it is not asked where the answer is known: neither stream is a terminal, and
 * nothing in the environment makes chalk colour what is none; or NO_COLOR is set, which chalk does
 * not know. As in Node itself, FORCE_COLOR counts more than that.
 */

import { fstatSync, statSync } from 'node:fs';

import type { Colours } from './render.ts';

/** Colours, by stream. */
export interface StreamColours {
  readonly out: Colours;
  readonly err: Colours;
}

const plain = (text: string): string => text;
const NONE: Colours = { bold: plain, green: plain, red: plain, yellow: plain };

/** No colours. */
export const NO_COLOURS: StreamColours = { out: NONE, err: NONE };

/** Variables by which chalk colours what is no terminal. */
const FORCING = ['FORCE_COLOR', 'TF_BUILD'];

/** The colours of both streams. */
export async function streamColours(): Promise<StreamColours> {
  // An empty one counts as none: https://no-color.org.
  if (process.env['NO_COLOR'] && !('FORCE_COLOR' in process.env)) return NO_COLOURS;
  const isForced = FORCING.some((name) => name in process.env);
  if (!isForced && !mayBeTerminal(1) && !mayBeTerminal(2)) return NO_COLOURS;
  const { Chalk, supportsColor, supportsColorStderr } = await import('chalk');
  return {
    out: new Chalk({ level: supportsColor ? supportsColor.level : 0 }),
    err: new Chalk({ level: supportsColorStderr ? supportsColorStderr.level : 0 }),
  };
}

/** Whether this may be a terminal: `node:tty` knows for certain, and takes longer to load. */
function mayBeTerminal(descriptor: number): boolean {
  try {
    const stats = fstatSync(descriptor);
    return stats.isCharacterDevice() && stats.rdev !== statSync('/dev/null').rdev;
  } catch {
    return true;
  }
}
