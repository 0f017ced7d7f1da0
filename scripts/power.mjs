/**
 * `npm run test:power`: the power loops of docs/RELIABILITY.md, whole; with `--short` those that `npm test` runs.
 *
 * Promise: its last line is the number of loops that passed, failed and were skipped (with the reason above it), and it
 * ends by 1 if one failed. Each loop is a command that can be run by itself: it is shown. Must never: pass a build for
 * tests, in which an fsync can be taken out, off as a release.
 */

import { spawnSync } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

import { MAIN, ROOT, build, install, step } from './setup.mjs';

const POWERCUT = join(ROOT, 'target', 'release', 'asmt-powercut');
/** Begins `MARKER` in crates/asmt-engine/src/durable.rs. */
const MARKER = 'asmt-fault-switches';
const SKIPPED = 77;

const REAL = 'ext4,xfs,btrfs';
const LOOPS = {
  whole: [
    ['--main', MAIN, '--on', REAL, '--subsets', '6'],
    ['--on', `posix,${REAL}`, '--subsets', '6', '--seed', '2'],
    ['--no-direct-io', '--on', REAL, '--subsets', '4', '--seed', '3'],
    ['--without-fsync', '--on', 'posix', '--scenario', 'several,stripes,beside'],
    ['--without-fsync', '--on', `posix,${REAL}`, '--scenario', 'stripes', '--most', '100'],
  ],
  short: [
    ['--main', MAIN, '--on', 'ext4', '--scenario', 'plain,stripes', '--subsets', '1', '--most', '60'],
    ['--on', 'posix', '--scenario', 'plain,several', '--subsets', '1'],
    ['--without-fsync', '--on', 'posix', '--scenario', 'stripes', '--subsets', '0'],
  ],
};

const totals = { passed: 0, failed: 0, skipped: 0 };
const isShort = process.argv.includes('--short');
if (!isShort) {
  install();
  build();
}
step('building the power loop (cargo, release)', 'cargo', ['build', '--release', '--locked', '--package', 'asmt-powercut']);
count('a release cannot leave an fsync out', releaseHasNoSwitch());
for (const args of isShort ? LOOPS.short : LOOPS.whole) {
  process.stdout.write(`$ target/release/asmt-powercut ${args.join(' ').replace(`${ROOT}/`, '')}\n`);
  const { status } = spawnSync(POWERCUT, args, { cwd: ROOT, stdio: ['ignore', 'inherit', 'inherit'] });
  count('', status === SKIPPED ? 'skipped' : status === 0 ? 'passed' : 'failed');
}
process.stdout.write(`power loops: ${totals.passed} passed, ${totals.failed} failed, ${totals.skipped} skipped\n`);
process.exitCode = totals.failed === 0 ? 0 : 1;

function count(title, outcome) {
  totals[outcome] += 1;
  if (title) process.stdout.write(`${title} … ${outcome}\n`);
}

/** The marker stands in the build for tests (or looking for it would show nothing), and not in the addon. */
function releaseHasNoSwitch() {
  const has = (path) => readFileSync(path).includes(MARKER);
  const addons = readdirSync(join(ROOT, 'native')).filter((name) => name.endsWith('.node'));
  const isClean = addons.length > 0 && !addons.some((name) => has(join(ROOT, 'native', name)));
  return isClean && has(POWERCUT) ? 'passed' : 'failed';
}
