/**
 * What the tests of packages and the rehearsal of a release share: cases that are counted, and sums
 * of files.
 *
 * Promise: a case that throws is printed with its reason and counted, and the others go on.
 */

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';

/** Cases so far. */
export const counts = { passed: 0, failed: 0, skipped: 0 };

/** Runs a case: it has failed if it throws. */
export function check(name, body) {
  try {
    body();
    counts.passed += 1;
    process.stdout.write(`ok ${name}\n`);
  } catch (error) {
    counts.failed += 1;
    process.stdout.write(`not ok ${name}\n${String(error.message).replaceAll(/^/gm, '  ')}\n`);
  }
}

/** The sum of a file, as `sha256sum` prints it. */
export function sha256(path) {
  return createHash('sha256').update(readFileSync(path)).digest('hex');
}
