/**
 * The figures of a run of `npm run bench`: times by shape and by what was done, what is to be
 * reached, and both as tables.
 *
 * Promise: medians with the least and the most; a figure that is missed is shown as missed. Must
 * never: measure anything.
 */

import { MIB } from './bench-tools.mjs';

/** All times measured, by shape and by what was done. */
export class Figures {
  #rows = new Map();
  #facts = [];

  /** A time; of `more`, the largest value of each name is kept. */
  add(shape, what, seconds, bytes, more = {}) {
    const key = `${shape}/${what}`;
    const row = this.#rows.get(key) ?? { shape, what, times: [], bytes, ...more };
    row.times.push(seconds);
    for (const [name, value] of Object.entries(more)) row[name] = Math.max(row[name] ?? 0, value);
    this.#rows.set(key, row);
  }

  get(shape, what) {
    const row = this.#rows.get(`${shape}/${what}`);
    return row && { ...row, seconds: median(row.times) };
  }

  rows() {
    return [...this.#rows.values()].map(({ times, ...row }) => {
      const [seconds, least, most] = [median(times), Math.min(...times), Math.max(...times)];
      return { ...row, seconds, least_seconds: least, most_seconds: most, bytes_per_second: row.bytes / seconds };
    });
  }

  /** A figure to reach: what it is, what was found, and what it must be at least (or at most). */
  verdict(what, found, wanted, isAtMost, note = '') {
    if (Number.isFinite(found))
      this.#facts.push({ what, found, wanted, isAtMost, note, reached: isAtMost ? found <= wanted : found >= wanted });
  }

  verdicts() {
    return this.#facts;
  }
}

function median(values) {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Columns of text; numbers to the right. */
function columns(rows) {
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  const cell = (text, column) => (column === 0 ? text.padEnd(widths[column]) : text.padStart(widths[column]));
  return `${rows.map((row) => row.map(cell).join('  ').trimEnd()).join('\n')}\n`;
}

export function table(rows) {
  const shown = (row) => {
    const more = [
      row.file_bytes === undefined ? '' : `files ${(row.file_bytes / MIB).toFixed(0)} MiB`,
      row.encoded_part === undefined ? '' : `to ${(100 * row.encoded_part).toFixed(2)} %`,
      row.own_bytes === undefined ? '' : `memory ${(row.own_bytes / MIB).toFixed(0)} MiB`,
      row.cpu_seconds === undefined ? '' : `CPU ${row.cpu_seconds.toFixed(2)} s`,
      row.part === undefined ? '' : `${row.part.toFixed(3)}`,
    ];
    const rate = row.bytes > 0 && row.part === undefined ? (row.bytes_per_second / MIB).toFixed(0) : '';
    const times =
      row.part === undefined ? [row.seconds, row.least_seconds, row.most_seconds].map((time) => time.toFixed(3)) : ['', '', ''];
    return [`${row.shape}: ${row.what}`, ...times, rate, more.filter(Boolean).join(', ')];
  };
  return `\n${columns([['', 'median s', 'least', 'most', 'MiB/s', ''], ...rows.map(shown)])}`;
}

/** What was to be reached; `isMeasured`: whether the times mean anything. */
export function verdictTable(verdicts, isMeasured) {
  const shown = ({ what, found, wanted, isAtMost, note, reached }) => {
    const digits = found >= 100 ? 0 : found >= 20 ? 1 : 3;
    return [
      what,
      found.toFixed(digits),
      `${isAtMost ? '≤' : '≥'} ${wanted}`,
      isMeasured ? (reached ? 'reached' : 'MISSED') : 'not measured',
      note,
    ];
  };
  return `\n${columns([['figure', 'found', 'wanted', '', ''], ...verdicts.map(shown)])}`;
}
