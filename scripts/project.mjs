/**
 * `npm run project -- FILE`: what a run of the benchmark (its --json) lets expect of larger
 * machines, as Markdown. docs/PERFORMANCE.md explains the model.
 *
 * Promise: every rate is the run's, or was given on the command line, and is shown. Must never:
 * measure anything.
 */

import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';

import { projectionTable, ratesOf, ratesTable } from './projection.ts';

const USAGE = `npm run project -- FILE [--columns ENCODE,DECODE,PART] [--write MIB_S] [--read MIB_S]

  FILE       what npm run bench -- --json FILE has written
  --columns  rates of an encoding by columns on one core in MiB/s, and its size as a part of the index: 1500,2000,0.52
  --write    what one drive can write, in MiB/s, instead of what the run's could
  --read     what one drive can read, likewise
`;

const SIZES = [
  { name: '100 GiB', indexMib: 100 * 1024 },
  { name: '500 GiB', indexMib: 500 * 1024 },
  { name: '2 TiB', indexMib: 2 * 1024 * 1024 },
];
const CORES = [8, 32, 96];
const DRIVES = [1, 2, 4, 8];

/** A number above 0. */
function positive(text, what) {
  const number = Number(text);
  if (!(number > 0 && Number.isFinite(number))) throw new Error(`${what} is ${text}, expected a number above 0`);
  return number;
}

function columnsOf(text) {
  const numbers = text.split(',').map((number) => positive(number, '--columns'));
  if (numbers.length !== 3) throw new Error(`--columns has ${numbers.length} numbers, expected 3`);
  const [encode, decode, part] = numbers;
  return { encode, decode, part };
}

try {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      columns: { type: 'string' },
      write: { type: 'string' },
      read: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    process.stdout.write(USAGE);
  } else {
    const [file, ...others] = positionals;
    if (file === undefined || others.length > 0) throw new Error(`one file is needed\n\n${USAGE}`);
    const drive = {
      ...(values.write && { write: positive(values.write, '--write') }),
      ...(values.read && { read: positive(values.read, '--read') }),
    };
    const rates = ratesOf(JSON.parse(readFileSync(file, 'utf8')), values.columns && columnsOf(values.columns), drive);
    process.stdout.write(`${ratesTable(rates)}\n${projectionTable(rates, SIZES, CORES, DRIVES)}`);
  }
} catch (error) {
  process.stderr.write(`error: ${error.message}\n`);
  process.exitCode = 1;
}
