/** The demo of the README runs to its end, so that it keeps working. */

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';

import test from 'ava';

import { Machine, ROOT, show } from './helpers.ts';

test('the demo backs up, restores and compares, and refuses what is stale', async (t) => {
  t.timeout(120_000);
  const machine = await Machine.start(t);
  const directory = machine.path('demo');
  mkdirSync(directory, { mode: 0o700 });
  const done = await machine.exec(process.execPath, [join(ROOT, 'scripts', 'demo.mjs')], {
    env: { ASMT_DEMO_DIRECTORY: directory },
  });
  t.is(done.status, 0, show(done));
  t.is(done.stdout.match(/restored identically/g)?.length, 2, show(done));
  t.regex(done.stdout, /exit status 4/, show(done));
});
