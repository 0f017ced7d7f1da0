/**
 * `npm run test:sequences`: random sequences of events on a node (10,000, or as the options select
 * them: `-- --count N --seed S --seconds T`; `--only SEED` prints one of them whole; `--help` lists
 * them); with `--short` the ones that `npm test` runs.
 *
 * Promise: does the missing set-up by itself; tries as many sequences at once as there are CPUs;
 * prints one line of TAP with the number of sequences, of events, of wrong ones, and of those in
 * which no witness shows that the server has run, and one on whether wrong ones are found at all;
 * exit status 1 if one is wrong. Without root it runs in a user namespace, with files instead of
 * block devices.
 */

import { spawn, spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

import { ROOT, install, step } from './setup.mjs';

const SEQUENCES = join(ROOT, 'target', 'release', 'asmt-sequences');
const SHORT = ['--count', '2000', '--seconds', '25'];
const SKIPPED = 77;

const given = process.argv.slice(2);
const isShort = given.includes('--short');
const args = isShort ? SHORT : given;
const isOne = ['--help', '--only', '--part'].some((word) => args.includes(word));
const parts = isOne ? 1 : availableParallelism();
if (!isShort) {
  install();
  installClock();
}
step('building the sequences (cargo, release)', 'cargo', ['build', '--release', '--locked', '--package', 'asmt-sequences']);
const [program, ...words] = process.getuid() === 0 ? [SEQUENCES] : ['unshare', '--user', '--map-root-user', SEQUENCES];

/** The counts of the parts, by name, and those of sequences. */
const counts = new Map();
const notes = new Set();
const totals = { ended: 0, sequences: 0, events: 0, wrong: 0, notTold: 0 };
const statuses = await Promise.all(Array.from({ length: parts }, (_, part) => run(part)));
if (!isOne) end();

/**
 * Installs the library that shows another time to a process. Without it, events of the clock are
 * left out, which is reported.
 */
function installClock() {
  const isThere = readdirSync('/usr/lib').some((name) => existsSync(join('/usr/lib', name, 'faketime')));
  if (isThere || process.getuid() !== 0 || spawnSync('apt-get', ['--version']).status !== 0) return;
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  spawnSync('apt-get', ['install', '-y', '-qq', '--no-install-recommends', 'faketime'], { stdio: 'ignore', env });
}

/** Runs a part, and shows the sequences that it prints at once. Returns its exit status. */
async function run(part) {
  const chosen = isOne ? args : [...args, '--part', `${part}/${parts}`];
  const child = spawn(program, [...words, ...chosen], { cwd: ROOT, stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = new Promise((done) => {
    child.on('error', (error) => {
      process.stderr.write(`error: the sequences cannot be started: ${error.message}\n`);
      done(1);
    });
    child.on('close', (status) => done(status ?? 1));
  });
  for await (const line of createInterface({ input: child.stdout })) {
    if (isOne) process.stdout.write(`${line}\n`);
    else collect(line);
  }
  const status = await ended;
  if (isOne) process.exitCode = status;
  return status;
}

/** Reads a line of a part: a count, its last line, a note, or a line of a sequence. */
function collect(line) {
  const last = /^(?:not )?ok 1 - sequences: (\d+) sequences, (\d+) events, (\d+) wrong, (\d+) not told apart$/.exec(line);
  const count = /^# {1,7}(\d+) (.*)$/.exec(line);
  if (last) {
    const [sequences, events, wrong, notTold] = last.slice(1).map(Number);
    totals.ended += 1;
    totals.sequences += sequences;
    totals.events += events;
    totals.wrong += wrong;
    totals.notTold += notTold;
  } else if (count) counts.set(count[2], (counts.get(count[2]) ?? 0) + Number(count[1]));
  else if (line.startsWith('# note: ')) notes.add(line);
  else if (line.startsWith('# ') && !(isShort && line.startsWith('# not told apart: '))) process.stdout.write(`${line}\n`);
}

/**
 * Returns true if the oracle finds wrong sequences: if every restore is forced, it must find stale
 * ones.
 */
function findsForced() {
  const done = spawnSync(program, [...words, '--count', '60', '--forced'], { cwd: ROOT, encoding: 'utf8' });
  return done.status === 1 && /^#   WRONG stale: /m.test(done.stdout);
}

/** Prints the counts and the line of all parts, in the form of a single part. */
function end() {
  if (statuses.every((status) => status === SKIPPED)) {
    process.stdout.write('ok 1 - sequences # SKIP namespaces or mounts cannot be had here\n1..1\n');
    return;
  }
  for (const note of notes) process.stdout.write(`${note}\n`);
  if (!isShort) {
    const names = [...counts.keys()].toSorted((one, other) => one.localeCompare(other));
    for (const name of names) process.stdout.write(`# ${String(counts.get(name)).padStart(7)} ${name}\n`);
  }
  const { ended, sequences, events, wrong, notTold } = totals;
  const isRight = wrong === 0 && sequences > 0 && ended === parts && statuses.every((status) => status === 0);
  const note = ended === parts ? '' : `, ended in ${ended} of ${parts} parts`;
  const title = `sequences: ${sequences} sequences, ${events} events, ${wrong} wrong, ${notTold} not told apart${note}`;
  process.stdout.write(`${isRight ? '' : 'not '}ok 1 - ${title}\n`);
  const isSeen = findsForced();
  process.stdout.write(`${isSeen ? '' : 'not '}ok 2 - sequences: stale backups that are restored by force are found\n1..2\n`);
  process.exitCode = isRight && isSeen ? 0 : 1;
}
