/**
 * `npm run counts -- FILE...`: puts the results of whole runs, of which each file has the output,
 * into docs/runs/counts.json and into the table of docs/RELIABILITY.md. The date of a run is that
 * of the last change of its file, or `--date YYYY-MM-DD`.
 *
 * Promise: nothing is written if a file has no result, or that of a run which has not ended.
 */

import { spawnSync } from 'node:child_process';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

import { resultsOf, withResults } from './reference/counts.ts';
import { ROOT } from './setup.mjs';

const COUNTS = join(ROOT, 'docs', 'runs', 'counts.json');
const { values, positionals } = parseArgs({ options: { date: { type: 'string' } }, allowPositionals: true });
if (positionals.length === 0) {
  process.stderr.write('error: no file was given\nHINT: npm run test:faults > FILE; npm run counts -- FILE\n');
  process.exit(2);
}
let rows = JSON.parse(readFileSync(COUNTS, 'utf8'));
for (const file of positionals) {
  const date = values.date ?? statSync(file).mtime.toISOString().slice(0, 10);
  try {
    rows = withResults(rows, resultsOf(readFileSync(file, 'utf8')), date);
  } catch (error) {
    process.stderr.write(`error: ${file}: ${error.message}\n`);
    process.exit(1);
  }
}
writeFileSync(COUNTS, `${JSON.stringify(rows, null, 2)}\n`);
const words = ['--import=@oxc-node/core/register', join(ROOT, 'scripts', 'reference.mjs')];
process.exitCode = spawnSync(process.execPath, words, { stdio: 'inherit' }).status ?? 1;
