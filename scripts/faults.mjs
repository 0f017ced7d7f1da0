/**
 * `npm run test:faults`: the loops of docs/RELIABILITY.md whole, or as far as the words behind it say
 * (`npm run test:faults -- --only kills --short`; `--help` lists them).
 *
 * Promise: does the set-up that is missing by itself; tries the states in as many parts at once as there are CPUs; prints a
 * line a loop with the number of states tried and found wrong; exit status 1 if one is wrong. Without root it runs in a user
 * namespace, and skips what only root of the machine may do. `npm test`, which has built everything, sets `ASMT_TEST_TMP`.
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

/** What the parts have said of each loop, by its name. */
const loops = new Map();
const statuses = await Promise.all(Array.from({ length: parts }, (_, part) => run(part)));
if (!isOne) printLoops();
process.exit(Math.max(...statuses));

/** Runs a part; shows at once what it says of a wrong state. Gives its exit status. */
async function run(part) {
  const chosen = isOne ? args : [...args, '--part', `${part}/${parts}`];
  const child = spawn(program ?? FAULTS, [...words, ...chosen], { stdio: ['ignore', 'pipe', 'inherit'], env });
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

/** Takes in a line of a part: of a loop that has ended, or of a wrong state. */
function collect(line) {
  const counts = /^(?:not )?ok \d+ - (\S+): (\d+) states, (\d+) wrong \((.*?)\)(.*)$/.exec(line);
  const skipped = /^ok \d+ - (\S+) # (SKIP .*)$/.exec(line);
  if (counts) {
    const [, name, states, wrong, outcomes, note] = counts;
    const loop = loops.get(name) ?? { states: 0, wrong: 0, outcomes: new Map(), note };
    loop.states += Number(states);
    loop.wrong += Number(wrong);
    for (const [, outcome, count] of outcomes.matchAll(/([^,]+?) (\d+)(?:, |$)/g)) {
      loop.outcomes.set(outcome, (loop.outcomes.get(outcome) ?? 0) + Number(count));
    }
    loops.set(name, loop);
  } else if (skipped) {
    loops.set(skipped[1], { skipped: skipped[2] });
  } else if (line.startsWith('# ') && !/^# \d+ states tried$/.test(line)) {
    process.stdout.write(`${line}\n`);
  }
}

/** The lines of all loops, as one part would have printed them. */
function printLoops() {
  let [number, tried, failed, skipped] = [0, 0, 0, 0];
  for (const [name, loop] of loops) {
    number += 1;
    if (loop.skipped) {
      skipped += 1;
      process.stdout.write(`ok ${number} - ${name} # ${loop.skipped}\n`);
      continue;
    }
    const isRight = loop.wrong === 0 && loop.states > 0;
    if (!isRight) [failed, statuses[0]] = [failed + 1, 1];
    tried += loop.states;
    const outcomes = [...loop.outcomes].map(([outcome, count]) => `${outcome} ${count}`).join(', ');
    const title = `${name}: ${loop.states} states, ${loop.wrong} wrong (${outcomes})${loop.note}`;
    process.stdout.write(`${isRight ? '' : 'not '}ok ${number} - ${title}\n`);
  }
  process.stdout.write(`1..${number}\n# ${tried} states tried\n`);
  process.stdout.write(`loops: ${number - failed - skipped} passed, ${failed} failed, ${skipped} skipped\n`);
}
