/**
 * `npm run fuzz`: each target of fuzz/ for a minute; `-- --target NAME` one of them, `--seconds N`
 * for another time.
 *
 * Promise: installs cargo-fuzz if it is missing; prints a line a target with the number of
 * executions; what was found lies in fuzz/artifacts, its whole output is shown, and the script ends
 * by 1. Needs a C++ compiler, and no nightly toolchain. Must never: say that nothing was found when
 * nothing ran.
 */

import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { parseArgs } from 'node:util';

import { ROOT, step } from './setup.mjs';

const FUZZ = join(ROOT, 'fuzz');
const TARGETS = readdirSync(join(FUZZ, 'fuzz_targets'))
  .map((name) => basename(name, '.rs'))
  .toSorted();
/**
 * Sanitizers need clang's runtime, and find little where `unsafe` is in two files: overflows and
 * bounds are checked anyway.
 */
const HOW = ['--fuzz-dir', FUZZ, '--sanitizer', 'none'];
/** The flags for coverage are not stable; this is what lets a stable compiler take them. */
const ENVIRONMENT = { RUSTC_BOOTSTRAP: '1' };
const MOST_BYTES = 4096;
/** For one input; the slowest known takes a hundredth of it. */
const TIMEOUT_SECONDS = 20;

const { values } = parseArgs({ options: { target: { type: 'string' }, seconds: { type: 'string', default: '60' } } });
const { target } = values;
const seconds = Number(values.seconds);
if (!Number.isInteger(seconds) || seconds < 1) {
  fail(`--seconds is '${values.seconds}', expected a whole number from 1`, 'npm run fuzz -- --seconds 60');
}
if (target !== undefined && !TARGETS.includes(target)) {
  fail(`--target is '${target}', expected one of ${TARGETS.join(', ')}`, `npm run fuzz -- --target ${TARGETS[0]}`);
}
if (spawnSync('cargo', ['fuzz', '--version']).status !== 0) {
  step('installing cargo-fuzz (cargo)', 'cargo', ['install', 'cargo-fuzz', '--locked']);
}
step('building the targets (cargo, release)', 'cargo', ['fuzz', 'build', ...HOW], ENVIRONMENT);
for (const name of target === undefined ? TARGETS : [target]) run(name);

function run(name) {
  const directories = [join(FUZZ, 'corpus', name), join(FUZZ, 'seeds', name)];
  mkdirSync(directories[0], { recursive: true });
  const flags = [`-max_total_time=${seconds}`, `-max_len=${MOST_BYTES}`, `-timeout=${TIMEOUT_SECONDS}`, '-print_final_stats=1'];
  const done = spawnSync('cargo', ['fuzz', 'run', ...HOW, name, ...directories.filter(existsSync), '--', ...flags], {
    cwd: ROOT,
    encoding: 'utf8',
    maxBuffer: 2 ** 28,
    env: { ...process.env, ...ENVIRONMENT },
  });
  const output = `${done.stdout}${done.stderr}`;
  const executions = Number(/number_of_executed_units: (\d+)/.exec(output)?.[1] ?? 0);
  const coverage = [...output.matchAll(/ cov: (\d+)/g)].at(-1)?.[1] ?? 0;
  const isRight = done.status === 0 && executions > 0;
  if (!isRight) {
    process.stderr.write(output);
    process.exitCode = 1;
  }
  process.stdout.write(`${name}: ${executions} executions, ${coverage} edges, ${isRight ? 'nothing found' : 'FAILED'}\n`);
}

function fail(what, hint) {
  process.stderr.write(`error: ${what}\nHINT: ${hint}\n`);
  process.exit(1);
}
