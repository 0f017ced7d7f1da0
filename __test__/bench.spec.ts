/**
 * The benchmark runs in its small form, so that it keeps working. It judges no speed: see
 * docs/PERFORMANCE.md.
 */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import test from 'ava';

import { Machine, ROOT, run, show } from './helpers.ts';

interface Row {
  readonly shape: string;
  readonly what: string;
  readonly seconds: number;
  readonly bytes: number;
}

test('the small form measures every shape beside its limits, and compares what came back', async (t) => {
  t.timeout(300_000);
  const machine = await Machine.start(t);
  const json = machine.path('bench.json');
  const args = [join(ROOT, 'scripts', 'bench.mjs'), '--small', '--dir', machine.directory, '--json', json];
  const done = await run(process.execPath, args);
  t.is(done.status, 0, show(done));
  const { rows, verdicts } = JSON.parse(readFileSync(json, 'utf8')) as { rows: Row[]; verdicts: unknown[] };
  const named = new Map(rows.map((row) => [`${row.shape}: ${row.what}`, row]));
  for (const shape of ['dense', 'real', 'mixed', 'sparse']) {
    for (const what of [
      'limit: write',
      'limit: write, and read into memory',
      'limit: read into memory',
      'limit: read',
      'backup',
      'backup -c',
      'backup -z',
      'backup -z -c',
      'verify',
      'restore',
      'restore -z',
    ]) {
      const row = named.get(`${shape}: ${what}`);
      t.true(row !== undefined && row.seconds > 0 && row.bytes > 0, `${shape}: ${what}\n${show(done)}`);
    }
  }
  for (const what of [
    'many: backup',
    'few: restore -z',
    'start-up: asmt list',
    'list of 40 segments: engine alone',
    'real: limit: encode zlib-1, 1 threads',
  ])
    t.true(named.has(what), `${what}\n${show(done)}`);
  // Not every machine can have so large segments.
  t.true(named.has('vast: restore -z') || /^vast: .*\n {2}left out: /m.test(done.stderr), show(done));
  // gzip is there wherever tests run; the others may be.
  t.true(named.has("real: other: gzip -d -c of asmt's file"), show(done));
  t.true(verdicts.length > 15, show(done));
  t.regex(done.stdout, /\nfigure +found +wanted/);
});
