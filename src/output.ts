/**
 * Standard output: everything is written before the exit status is decided, so that a report that
 * got lost is known.
 *
 * Node's own stream reports a failed write later, and takes a short write to a file for a whole
 * one. Must never: throw, or write to standard error.
 */

import { writeSync } from 'node:fs';

const STDOUT = 1;
/** How long to wait where a pipe that does not block is full. */
const WAIT_MS = 5;

/**
 * Writes the whole text. Returns why it could not be written, or null. A reader that went away (`|
 * head`) is no failure: it has what it wanted.
 */
export function writeOut(text: string): string | null {
  let rest = Buffer.from(text);
  while (rest.length > 0) {
    try {
      rest = rest.subarray(writeSync(STDOUT, rest));
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      if (code === 'EPIPE') return null;
      if (code !== 'EAGAIN') return message;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, WAIT_MS);
    }
  }
  return null;
}
