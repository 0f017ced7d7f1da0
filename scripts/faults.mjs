/**
 * `npm run test:faults`: the loops of docs/RELIABILITY.md, whole, or as far as its options select
 * them (`npm run test:faults -- --only kills --short`; `--help` lists them).
 *
 * Promise: does the missing set-up by itself; tries the states in as many parallel parts as there
 * are CPUs; prints a line per loop, with the number of states that were tried and of those that
 * were wrong; exit status 1 if one is wrong. Without root it runs in a user namespace, and skips
 * what only root of the machine may do. `npm test`, which has built everything, sets
 * `ASMT_TEST_TMP`.
 */

import { spawn } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { createInterface } from 'node:readline';

import { FAULTS, build, install, ipcNamespace, temporaries } from './setup.mjs';

const args = process.argv.slice(2);
const isOne = ['--help', '--state', '--part'].some((word) => args.includes(word));
const parts = isOne ? 1 : availableParallelism();
if (!process.env.ASMT_TEST_TMP) {
  install();
  build();
}
const env = { ...process.env, TMPDIR: temporaries() };
const [program, ...words] = process.getuid() === 0 ? [] : [...(ipcNamespace() ?? []), FAULTS];

/** The results of the parts, by loop. */
const loops = new Map();
const totals = { lines: 0, states: 0, failed: 0, skipped: 0 };
const children = [];
// The loops that have ended by then are still reported.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.on(signal, () => {
    for (const child of children) child.kill(signal);
  });
}
const statuses = await Promise.all(Array.from({ length: parts }, (_, part) => run(part)));
if (!isOne) end();
process.exit(Math.max(...statuses, totals.failed > 0 ? 1 : 0));

/** Runs a part, and shows wrong states at once. Returns its exit status. */
async function run(part) {
  const chosen = isOne ? args : [...args, '--part', `${part}/${parts}`];
  const child = spawn(program ?? FAULTS, [...words, ...chosen], { stdio: ['ignore', 'pipe', 'inherit'], env });
  children.push(child);
  const ended = new Promise((done) => {
    child.on('error', (error) => {
      process.stderr.write(`error: the loops cannot be started: ${error.message}\n`);
      done(1);
    });
    child.on('close', (status) => done(status ?? 1));
  });
  for await (const line of createInterface({ input: child.stdout })) {
    if (isOne) process.stdout.write(`${line}\n`);
    else collect(line);
  }
  return ended;
}

/**
 * Reads a line of a part: the line of a loop, which is printed when all parts have ended that loop,
 * or a wrong state.
 */
function collect(line) {
  const counts = /^(?:not )?ok \d+ - (\S+): (\d+) states, (\d+) wrong \((.*?)\)(.*)$/.exec(line);
  const skipped = /^ok \d+ - (\S+) # (SKIP .*)$/.exec(line);
  const name = (counts ?? skipped)?.[1];
  if (name === undefined) {
    if (line.startsWith('# ') && !/^# \d+ states tried$/.test(line)) process.stdout.write(`${line}\n`);
    return;
  }
  const loop = loops.get(name) ?? { ended: 0, states: 0, wrong: 0, outcomes: new Map(), note: '', skipped: '' };
  loops.set(name, loop);
  loop.ended += 1;
  if (counts) {
    const [, , states, wrong, outcomes, note] = counts;
    loop.states += Number(states);
    loop.wrong += Number(wrong);
    loop.note ||= note;
    for (const [, outcome, count] of outcomes.matchAll(/([^,]+?) (\d+)(?:, |$)/g)) {
      loop.outcomes.set(outcome, (loop.outcomes.get(outcome) ?? 0) + Number(count));
    }
  } else loop.skipped = skipped[2];
  if (loop.ended === parts) print(name, loop);
}

/** Prints the line of a loop, in the form of a single part. */
function print(name, loop) {
  totals.lines += 1;
  totals.states += loop.states;
  if (loop.skipped) {
    totals.skipped += 1;
    process.stdout.write(`ok ${totals.lines} - ${name} # ${loop.skipped}\n`);
    return;
  }
  const isRight = loop.wrong === 0 && loop.states > 0 && loop.ended === parts;
  if (!isRight) totals.failed += 1;
  const outcomes = [...loop.outcomes].map(([outcome, count]) => `${outcome} ${count}`).join(', ');
  const note = loop.ended === parts ? loop.note : `, ended in ${loop.ended} of ${parts} parts`;
  const title = `${name}: ${loop.states} states, ${loop.wrong} wrong (${outcomes})${note}`;
  process.stdout.write(`${isRight ? '' : 'not '}ok ${totals.lines} - ${title}\n`);
}

/** Prints the loops that have not ended in all parts, and the sum. */
function end() {
  for (const [name, loop] of loops) if (loop.ended < parts) print(name, loop);
  const { lines, states, failed, skipped } = totals;
  process.stdout.write(`1..${lines}\n# ${states} states tried\n`);
  process.stdout.write(`loops: ${lines - failed - skipped} passed, ${failed} failed, ${skipped} skipped\n`);
}
