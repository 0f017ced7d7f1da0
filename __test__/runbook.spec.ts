// The outputs in docs/RUNBOOK.md are those of the commands as they are now.

import { join } from 'node:path';

import { ROOT, run, show, testAsRootWith } from './helpers.ts';

testAsRootWith('losetup')('docs/RUNBOOK.md is what npm run runbook writes, but for numbers', async (t) => {
  const script = join(ROOT, 'scripts', 'runbook.mjs');
  const done = await run(process.execPath, ['--import=@oxc-node/core/register', script, '--check']);
  t.is(done.status, 0, show(done));
});
