/**
 * `npm run test:power`: the power loops of docs/RELIABILITY.md, whole; with `--short` the ones that
 * `npm test` runs.
 *
 * Promise: a line of TAP for each loop, with the command that runs it alone, below the states that
 * it tried; exit status 1 if one failed. Must never: pass off a build for tests, in which an fsync
 * can be taken out, as a release.
 */

import { spawnSync } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

import { ROOT, build, install, step } from './setup.mjs';

const POWERCUT = join(ROOT, 'target', 'release', 'asmt-powercut');
/** The beginning of `MARKER` in crates/asmt-engine/src/sys/fsync.rs. */
const MARKER = 'asmt-fault-switches';
const SKIPPED = 77;

const REAL = 'ext4,xfs,btrfs';
const LOOPS = {
  whole: [
    ['--main', 'dist/main.js', '--on', REAL, '--subsets', '6'],
    ['--on', `posix,${REAL}`, '--subsets', '6', '--seed', '2'],
    ['--no-direct-io', '--on', REAL, '--subsets', '4', '--seed', '3'],
    ['--without-fsync', '--on', 'posix', '--scenario', 'several,stripes,beside,again,superseded,restored,retired'],
    ['--without-fsync', '--on', `posix,${REAL}`, '--scenario', 'stripes', '--most', '100'],
  ],
  short: [
    ['--main', 'dist/main.js', '--on', 'ext4', '--scenario', 'plain,stripes', '--subsets', '1', '--most', '60'],
    ['--on', 'posix', '--scenario', 'plain,several', '--subsets', '1'],
    ['--without-fsync', '--on', 'posix', '--scenario', 'stripes', '--subsets', '0'],
  ],
};

const isShort = process.argv.includes('--short');
if (!isShort) {
  install();
  build();
}
step('building the power loop (cargo, release)', 'cargo', ['build', '--release', '--locked', '--package', 'asmt-powercut']);
let count = 0;
tap(releaseHasNoSwitch(), 'power: in a release no fsync can be taken out');
for (const args of isShort ? LOOPS.short : LOOPS.whole) {
  const { status } = spawnSync(POWERCUT, args, { cwd: ROOT, stdio: ['ignore', 'inherit', 'inherit'] });
  tap(
    status === 0 || status === SKIPPED,
    `power: asmt-powercut ${args.join(' ')}`,
    status === SKIPPED && 'nothing of it can be had here',
  );
}

function tap(isRight, title, skipped) {
  count += 1;
  process.stdout.write(`${isRight ? '' : 'not '}ok ${count} - ${title}${skipped ? ` # SKIP ${skipped}` : ''}\n`);
  if (!isRight) process.exitCode = 1;
}

/**
 * Returns true if the marker is in the build for tests (otherwise the search would prove nothing),
 * and not in the addon.
 */
function releaseHasNoSwitch() {
  const has = (path) => readFileSync(path).includes(MARKER);
  const addons = readdirSync(join(ROOT, 'native')).filter((name) => name.endsWith('.node'));
  const isClean = addons.length > 0 && !addons.some((name) => has(join(ROOT, 'native', name)));
  return isClean && has(POWERCUT);
}
