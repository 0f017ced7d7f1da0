/**
 * The file that says that the server may start: there from the end of the restore until the backup
 * begins. Its one line is what the restore came to: `done`, or the code of its error.
 *
 * Promise: it is whole as soon as it is there, and one of an earlier run is not taken for it.
 */

import { accessSync, constants, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';

import { AsmtError } from './errors.ts';

export class ReadyFile {
  readonly #path: string | null;

  private constructor(path: string | null) {
    this.#path = path;
  }

  /** Fails before anything else is done if the file could not be made. No path: no file. */
  static at(path: string | null): ReadyFile {
    attempt(path, (file) => {
      rmSync(file, { force: true });
      accessSync(dirname(file), constants.W_OK);
    });
    return new ReadyFile(path);
  }

  write(text: string): void {
    attempt(this.#path, (file) => {
      const temporary = `${file}.${process.pid}.tmp`;
      writeFileSync(temporary, `${text}\n`, { mode: 0o644 });
      renameSync(temporary, file);
    });
  }

  remove(): void {
    if (this.#path !== null) rmSync(this.#path, { force: true });
  }
}

function attempt(path: string | null, act: (path: string) => void): void {
  if (path === null) return;
  try {
    act(path);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    const hint = 'name a file in a directory that exists and can be written to';
    throw new AsmtError('failed', 'ready-file', `the file that says that asmt is ready cannot be made: ${reason}`, hint);
  }
}
