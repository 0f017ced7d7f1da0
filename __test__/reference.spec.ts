/** docs/REFERENCE.md agrees with the tables of options and exit statuses. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import test from 'ava';

import { resultsOf, withResults } from '../scripts/reference/counts.ts';
import { EXIT_STATUSES } from '../src/errors.ts';
import { SPECS, VERBS, optionUsage } from '../src/options.ts';
import { ROOT, run, show } from './helpers.ts';

const TEXT = readFileSync(join(ROOT, 'docs', 'REFERENCE.md'), 'utf8');

/** The text of a section, by its heading. */
function section(heading: string): string {
  const [, after = ''] = TEXT.split(`\n${heading}\n`);
  return after.split(/^#{1,3} /m)[0] ?? '';
}

test('docs/REFERENCE.md is what npm run reference writes', async (t) => {
  const script = join(ROOT, 'scripts', 'reference.mjs');
  const done = await run(process.execPath, ['--import=@oxc-node/core/register', script, '--check']);
  t.is(done.status, 0, show(done));
});

test('each command has a section with each of its options', (t) => {
  for (const verb of VERBS) {
    const text = section(`### asmt ${verb}`);
    const rows = [...text.matchAll(/^\| `([^`]+)` \| /gm)].map(([, usage]) => usage);
    const expected = SPECS.filter(
      (spec) => spec.verbs.includes(verb) && spec.selectsVerb === undefined && spec.name !== 'version',
    );
    t.deepEqual(rows, expected.map(optionUsage));
  }
});

test('each option has an entry of its own', (t) => {
  const entries = [...section('## Options').matchAll(/^- `([^`]+)`: /gm)].map(([, usage]) => usage);
  t.deepEqual(entries, SPECS.map(optionUsage));
});

test('each exit status is explained', (t) => {
  const entries = [...section('## Exit status').matchAll(/^- \*\*(\d+)\*\*: /gm)].map(([, status]) => Number(status));
  const statuses = EXIT_STATUSES.map(({ status }) => status);
  t.deepEqual(entries, statuses);
});

test('the counts of a run are read from what it prints, and a run that has not ended has none', (t) => {
  const faults = [
    'ok 1 - syscalls:backup: 22560 states, 0 wrong (done 8697, failed 6415, killed by 6 24, no-room 7424)',
    'ok 2 - syscalls:restore-two: 17014 states, 0 wrong (done 5681, failed 5227)',
    'not ok 3 - kills:restore-KILL: 10 states, 2 wrong (done 10)',
    'ok 4 - space:room-xfs-backup # SKIP mkfs.xfs is not installed',
  ].join('\n');
  t.deepEqual(resultsOf(faults), [
    { loop: 'faults: `syscalls`', tried: '39,574 states in 2 loops', wrong: '0' },
    { loop: 'faults: `kills`', tried: '10 states in 1 loops', wrong: '2' },
  ]);
  t.throws(() => resultsOf('ok 1 - kills:backup-KILL: 5 states, 0 wrong (done 5), ended in 1 of 2 parts'), {
    message: /kills:backup-KILL has not ended/,
  });
  t.throws(() => resultsOf('Segmentation fault'), { message: /no result/ });
  const power = [
    'ext4   plain      files of 12 segments: 90 states tried, 1 wrong (nothing there in 40, all whole in 50)',
    'ext4   all        1127 states tried, 1 wrong (nothing there in 500, all whole in 627; stripes alone for ASMT in 0)',
    'xfs    all        1773 states tried, 0 wrong (nothing there in 700, all whole in 1073; stripes alone for ASMT in 0)',
    'not ok 2 - power: asmt-powercut --main dist/main.js --on ext4,xfs,btrfs --subsets 6',
    'ok 5 - power: asmt-powercut --without-fsync --on posix --scenario stripes --subsets 0',
  ].join('\n');
  t.deepEqual(resultsOf(power), [{ loop: 'power: the command line', tried: '2,900 states (ext4 1,127, xfs 1,773)', wrong: '1' }]);
  t.deepEqual(resultsOf('# reboots: 27 passed, 1 failed, 0 skipped, 100 boots\n'), [
    { loop: 'reboots', tried: '28 cases, 100 boots', wrong: '1' },
  ]);
  const rows = [
    { loop: 'reboots', run: '2026-01-01', tried: '1 cases, 1 boots', wrong: '0' },
    { loop: 'fuzz `names`', run: '2026-01-01', tried: '5 executions', wrong: '0' },
  ];
  const fuzz = resultsOf('names: 613097 executions, 278 edges, nothing found\nheader: 1 executions, 2 edges, FAILED\n');
  t.deepEqual(withResults(rows, fuzz, '2026-02-02'), [
    { loop: 'reboots', run: '2026-01-01', tried: '1 cases, 1 boots', wrong: '0' },
    { loop: 'fuzz `names`', run: '2026-02-02', tried: '613,097 executions, 278 edges', wrong: '0' },
    { loop: 'fuzz `header`', run: '2026-02-02', tried: '1 executions, 2 edges', wrong: 'found' },
  ]);
});
