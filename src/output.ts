/**
 * Standard output and standard error.
 *
 * Standard output: everything is written before the exit status is decided, so that a report that
 * got lost is known. Node's own stream reports a failed write later, and takes a short write to a
 * file for a whole one.
 *
 * Standard error: by Node's stream while a job runs, since a reader that is slow must not hold up
 * the stop of a job; else at once, since Node takes milliseconds to make that stream.
 *
 * Must never: throw.
 */

import { writeSync } from 'node:fs';

/** Not the global name, of which the bundle has no streams: see scripts/bundle.mjs. */
const { process } = globalThis;
const STDOUT = 1;
const STDERR = 2;
/** How long to wait where a pipe that does not block is full. */
const WAIT_MS = 5;

/**
 * Writes the whole text. Returns why it could not be written, or null. A reader that went away (`|
 * head`) is no failure: it has what it wanted.
 */
export function writeOut(text: string): string | null {
  let { rest, error } = written(STDOUT, Buffer.from(text));
  while (error?.code === 'EAGAIN') {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, WAIT_MS);
    ({ rest, error } = written(STDOUT, rest));
  }
  return error === null || error.code === 'EPIPE' ? null : error.message;
}

/** Writes to standard error, while no job runs. What cannot be written has no other place. */
export function writeErr(text: string): void {
  if (isStreamMade) return standardError.write(text);
  const { rest, error } = written(STDERR, Buffer.from(text));
  if (error?.code === 'EAGAIN') errorStream().write(rest);
}

/** Standard error while a job runs: whoever reads it is not waited for. */
export const standardError = {
  get isTTY(): boolean {
    return errorStream().isTTY;
  },
  get columns(): number {
    return errorStream().columns;
  },
  write(text: string): void {
    errorStream().write(text);
  },
};

/** Writes until all is written, or a write fails. Returns what is left then, and why. */
function written(descriptor: number, bytes: Buffer): { rest: Buffer; error: NodeJS.ErrnoException | null } {
  let rest = bytes;
  try {
    while (rest.length > 0) rest = rest.subarray(writeSync(descriptor, rest));
    return { rest, error: null };
  } catch (error) {
    return { rest, error: error as NodeJS.ErrnoException };
  }
}

let isStreamMade = false;

function errorStream(): NodeJS.WriteStream {
  if (!isStreamMade) process.stderr.on('error', () => {});
  isStreamMade = true;
  return process.stderr;
}
