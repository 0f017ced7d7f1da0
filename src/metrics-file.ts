/**
 * Writes the metrics of a run into their file.
 *
 * Promise: whoever reads the file finds all of the old text or all of the new one; a failure is
 * returned, leaves the old file, and changes nothing else. Must never: throw, wait for a file that
 * is none (a FIFO), or follow what was put in the place of the temporary file.
 */

import { randomBytes } from 'node:crypto';
import {
  closeSync,
  constants,
  fchmodSync,
  fstatSync,
  fsyncSync,
  openSync,
  readFileSync,
  realpathSync,
  renameSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';

import type { Request } from './generated/engine.ts';
import { withResults } from './metrics.ts';
import type { Outcome } from './outcome.ts';

/** A file of this size is not one of ours. */
const MOST_BYTES = 1 << 20;

/** Notes what a run has come to. Returns why that failed, or null. */
export function recordMetrics(file: string, request: Request, outcome: Outcome, status: number): string | null {
  if (!('directory' in request) || request.directory === null || ('analyze' in request && request.analyze)) return null;
  const found = new Set(outcome.report?.namespaces.map(({ instance }) => instance));
  const instances = request.instance !== null ? [request.instance] : found.size > 0 ? [...found] : [0];
  try {
    const text = withResults(present(file), {
      command: request.verb,
      directory: resolve(request.directory),
      instances,
      isWhole: request.namespaces === null,
      isReadBack: request.verb === 'backup' && request.check,
      outcome,
      status,
      endMs: Date.now(),
    });
    replace(file, text);
    return null;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

/** What is there; nothing if that is no plain file of a usual size. */
function present(file: string): string {
  let descriptor: number;
  try {
    descriptor = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch {
    return '';
  }
  try {
    const stats = fstatSync(descriptor);
    return stats.isFile() && stats.size <= MOST_BYTES ? readFileSync(descriptor, 'utf8') : '';
  } catch {
    return '';
  } finally {
    closeSync(descriptor);
  }
}

/** The file itself: what a link leads to. Throws where something is there that is no file. */
function fileOf(named: string): string {
  const stats = statSync(named, { throwIfNoEntry: false });
  if (stats === undefined) return named;
  if (!stats.isFile()) throw new Error('it is no regular file');
  return realpathSync(named);
}

function replace(named: string, text: string): void {
  const file = fileOf(named);
  // node_exporter reads names that end in .prom only.
  const temporary = join(dirname(file), `.${basename(file)}.${randomBytes(6).toString('hex')}.tmp`);
  const descriptor = openSync(temporary, 'wx', 0o644);
  try {
    try {
      writeFileSync(descriptor, text);
      // Whatever the umask says: node_exporter is another user.
      fchmodSync(descriptor, 0o644);
      fsyncSync(descriptor);
    } finally {
      closeSync(descriptor);
    }
    renameSync(temporary, file);
  } catch (error) {
    unlinkSync(temporary);
    throw error;
  }
}
