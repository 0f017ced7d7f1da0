/**
 * What the parts of `npm run bench` share: running and timing programs, and looking at what they
 * leave.
 *
 * Promise: a program that fails ends the benchmark, with what it said. Must never: know a shape.
 */

import { spawn, spawnSync } from 'node:child_process';
import { readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { BENCH, MAIN, SIM } from './setup.mjs';

export const MIB = 2 ** 20;
export const GIB = 2 ** 30;
/** Ticks of the clock by which the kernel counts a process's time. */
const TICKS_A_SECOND = 100;

/**
 * Runs a command to its end; gives its seconds, its output, the most memory of its own that was
 * seen, and the last that was seen of the seconds of CPU that it used.
 */
export async function timed(command, args, env = {}) {
  const since = performance.now();
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, NO_COLOR: '1', ...env } });
  let [stdout, stderr, ownBytes, cpuSeconds] = ['', '', 0, 0];
  child.stdout.on('data', (data) => (stdout += data));
  child.stderr.on('data', (data) => (stderr += data));
  // Shared memory that it has attached is the node's, not its own.
  const watch = setInterval(() => {
    try {
      const status = readFileSync(`/proc/${child.pid}/status`, 'utf8');
      const kib = [...status.matchAll(/^Rss(?:Anon|File):\s+(\d+)/gm)].reduce((sum, [, count]) => sum + Number(count), 0);
      ownBytes = Math.max(ownBytes, kib * 1024);
      // Behind the name in parentheses: the 12th and 13th field are its time as a user, and the
      // kernel's for it.
      const fields = readFileSync(`/proc/${child.pid}/stat`, 'utf8')
        .replace(/^.*\) /s, '')
        .split(' ');
      cpuSeconds = (Number(fields[11]) + Number(fields[12])) / TICKS_A_SECOND;
    } catch {
      // It has ended.
    }
  }, 20);
  const status = await new Promise((done, fail) => {
    child.on('error', fail);
    child.on('close', (code, signal) => done(code ?? signal));
  });
  clearInterval(watch);
  const seconds = (performance.now() - since) / 1000;
  if (status !== 0) throw new Error(`${[command, ...args].join(' ')}: exit ${status}\n${stdout}${stderr}`);
  return { seconds, stdout, ownBytes, cpuSeconds };
}

/** Runs the simulator; gives what it says. */
export function sim(...args) {
  const done = spawnSync(SIM, args, { encoding: 'utf8' });
  if (done.status !== 0) throw new Error(`asmt-sim ${args.join(' ')}: ${done.stderr}`);
  return done.stdout;
}

/** One of the limits, as JSON. */
export const limit = async (...args) => JSON.parse((await timed(BENCH, args)).stdout);
/** The program as users get it. */
export const asmt = (...args) => timed(process.execPath, [MAIN, ...args, '--json']);

/** Pages of Aerospike's segments that are in memory, in bytes. */
export function residentBytes() {
  return readFileSync('/proc/sysvipc/shm', 'utf8')
    .trim()
    .split('\n')
    .slice(1)
    .map((line) => line.trim().split(/\s+/))
    .filter(([key]) => [0xae, 0xa2, 0xad].includes((Number(key) >>> 24) & 0xff))
    .reduce((sum, fields) => sum + Number(fields[14]), 0);
}

/** Bytes of all segments, of the lines of `asmt-sim sum`. */
export const allocatedBytes = (sums) =>
  sums
    .trim()
    .split('\n')
    .reduce((sum, line) => sum + Number(line.split(' ')[1]), 0);

export const diskBytes = (directory) =>
  readdirSync(directory).reduce((sum, name) => sum + statSync(join(directory, name)).blocks * 512, 0);

/** Forgets files and what was deferred, so that no run pays for the one before it. */
export function settle(directory) {
  if (directory) rmSync(directory, { recursive: true, force: true });
  spawnSync('sync');
}

export function dropCaches() {
  spawnSync('sync');
  try {
    writeFileSync('/proc/sys/vm/drop_caches', '3');
  } catch {
    // Not root: direct I/O does not look there anyway.
  }
}
