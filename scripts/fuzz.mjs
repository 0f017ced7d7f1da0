/**
 * `npm run fuzz`: runs each target of fuzz/ for a minute; with `-- --target NAME` only one of them,
 * with `--seconds N` for another time.
 *
 * Promise: installs cargo-fuzz if it is missing; prints a line per target with the number of
 * executions. An input that fails is kept in fuzz/artifacts, its whole output is shown, and the
 * script ends with status 1. It needs a C++ compiler, but no nightly toolchain. Must never: report
 * success if nothing ran.
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
 * Sanitizers need clang's runtime, and would find little, because `unsafe` is in two files:
 * overflows and bounds are checked anyway.
 */
const HOW = ['--fuzz-dir', FUZZ, '--sanitizer', 'none'];
/** The flags for coverage are not stable; with this variable, a stable compiler accepts them. */
const ENVIRONMENT = { RUSTC_BOOTSTRAP: '1' };
const MOST_BYTES = 4096;
/** For one input. The slowest known input takes a hundredth of it. */
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
