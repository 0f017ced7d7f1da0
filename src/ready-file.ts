/**
 * The file that says that the server may start: there from the end of the restore until the backup
 * begins. Its one line is what the restore came to: `done`, or the code of its error.
 *
 * Promise: it is whole as soon as it is there, and one of an earlier run is not taken for it. What
 * goes wrong with it once something was restored is returned, and costs no backup. Must never: take
 * the place of something that is no file.
 */

import { accessSync, constants, lstatSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';

import { AsmtError } from './errors.ts';

export class ReadyFile {
  readonly #path: string | null;

  private constructor(path: string | null) {
    this.#path = path;
  }

  /** Fails before anything else is done if the file could not be made. No path: no file. */
  static at(path: string | null): ReadyFile {
    const why = attempt(path, (file) => {
      removeFile(file);
      accessSync(dirname(file), constants.W_OK);
    });
    if (why === null) return new ReadyFile(path);
    const hint = 'name a file in a directory that exists and can be written to';
    throw new AsmtError('failed', 'ready-file', `the file that says that asmt is ready cannot be made: ${why}`, hint);
  }

  /** Makes the file. Returns why it could not be made, or null. */
  write(text: string): string | null {
    return attempt(this.#path, (file) => {
      const temporary = `${file}.${process.pid}.tmp`;
      try {
        writeFileSync(temporary, `${text}\n`, { mode: 0o644 });
        renameSync(temporary, file);
      } catch (error) {
        rmSync(temporary, { force: true });
        throw error;
      }
    });
  }

  /** Removes the file. Returns why it could not be removed, or null. */
  remove(): string | null {
    return attempt(this.#path, removeFile);
  }
}

function removeFile(file: string): void {
  const stats = lstatSync(file, { throwIfNoEntry: false });
  if (stats === undefined) return;
  if (!stats.isFile()) throw new Error(`${file} is there, and is no regular file`);
  rmSync(file, { force: true });
}

function attempt(path: string | null, act: (path: string) => void): string | null {
  if (path === null) return null;
  try {
    act(path);
    return null;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}
