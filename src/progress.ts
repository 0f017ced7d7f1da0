/**
 * Shows progress on standard error: one line drawn again on a terminal, else a line every few
 * seconds; or a line of JSON every second.
 *
 * Must never: write to standard output, or leave a half line behind when it ends.
 */

import type { Snapshot } from './generated/engine.ts';
import { progressLineOf } from './json.ts';
import { progressLine } from './render.ts';

/** How often there is a line where there is no terminal. */
const LINE_EVERY_MS = 5_000;
/** How often there is a line of JSON while the phase is the same. */
const JSON_EVERY_MS = 1_000;
const CLEAR_LINE = '\r\u001b[K';

/** `performance` would do, but Node takes a millisecond to load it. */
const uptimeMs = (): number => Number(process.hrtime.bigint() / 1_000_000n);

export interface Stream {
  readonly isTTY?: boolean;
  readonly columns?: number;
  write(text: string): unknown;
}

/** Where progress is shown. */
export interface Display {
  show(progress: Snapshot): void;
  /** Makes room for other text. */
  clear(): void;
  /** The last that was to be shown was shown. */
  end(): void;
}

/** Shows nothing. */
export const NO_DISPLAY: Display = { show: () => {}, clear: () => {}, end: () => {} };

/** Lines of JSON: the first and the last state of each phase, and one every second. */
export class JsonProgress implements Display {
  readonly #stream: Stream;
  readonly #now: () => number;
  #last: Snapshot | null = null;
  #isShown = true;
  #shownMs = 0;

  constructor(stream: Stream, now: () => number = uptimeMs) {
    this.#stream = stream;
    this.#now = now;
  }

  show(progress: Snapshot): void {
    const isNew = this.#last?.phase !== progress.phase;
    if (isNew) this.end();
    this.#last = progress;
    this.#isShown = false;
    if (isNew || this.#now() - this.#shownMs >= JSON_EVERY_MS) this.end();
  }

  clear(): void {}

  end(): void {
    if (this.#last === null || this.#isShown) return;
    this.#stream.write(progressLineOf(this.#last));
    this.#isShown = true;
    this.#shownMs = this.#now();
  }
}

export class ProgressDisplay implements Display {
  readonly #stream: Stream;
  readonly #now: () => number;
  #isDrawn = false;
  #lastLineMs: number;

  constructor(stream: Stream, now: () => number = uptimeMs) {
    this.#stream = stream;
    this.#now = now;
    this.#lastLineMs = now();
  }

  show(progress: Snapshot): void {
    const line = progressLine(progress);
    if (this.#stream.isTTY) {
      // A line that wraps could not be drawn again. A serial console says that it has 0 columns.
      this.#stream.write(CLEAR_LINE + line.slice(0, (this.#stream.columns || 80) - 1));
      this.#isDrawn = true;
    } else if (this.#now() - this.#lastLineMs >= LINE_EVERY_MS) {
      this.#lastLineMs = this.#now();
      this.#stream.write(`asmt: ${line}\n`);
    }
  }

  clear(): void {
    if (this.#isDrawn) this.#stream.write(CLEAR_LINE);
    this.#isDrawn = false;
  }

  end(): void {
    this.clear();
  }
}
