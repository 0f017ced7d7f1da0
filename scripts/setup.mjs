/**
 * The set-up that the other scripts share: installs and builds what is missing or out of date, by
 * npm and cargo, which decide that themselves. It imports nothing but Node, because it runs before
 * anything is installed.
 *
 * Promise: quiet if it succeeds (a line per step). If a step fails, its whole output is shown, and
 * the script ends with status 1.
 */

import { spawnSync } from 'node:child_process';
import { existsSync, statSync, statfsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

export const ROOT = resolve(import.meta.dirname, '..');
export const SIM = join(ROOT, 'target', 'release', 'asmt-sim');
export const FAULTS = join(ROOT, 'target', 'release', 'asmt-faults');
export const BENCH = join(ROOT, 'target', 'release', 'asmt-bench');
export const MAIN = join(ROOT, 'dist', 'main.js');

const LEAST_NODE = [20, 19];

/** The types of tmpfs and ramfs in `statfs`. */
const IN_MEMORY = new Set([0x01021994, 0x858458f6]);

/**
 * Returns the place for temporary directories: on a disk, because a backup in memory is refused.
 * `ASMT_TEST_TMP` names another place.
 */
export function temporaries() {
  const named = process.env.ASMT_TEST_TMP;
  const isOnDisk = (path) => existsSync(path) && !IN_MEMORY.has(statfsSync(path).type);
  // A boot empties /tmp on Debian, and asmt refuses to back up to such a place.
  return named ?? ['/var/tmp', join(ROOT, 'target'), tmpdir()].find(isOnDisk) ?? tmpdir();
}

/** What tests that use this scratch directory have in their environment, beside this process's. */
export function testEnvironment(scratch) {
  return {
    ASMT_TEST_TMP: scratch,
    // The Rust tests lock instances, too. Each namespace has its own lock there.
    ASMT_RUNTIME_DIR: scratch,
    // The server that is configured on this machine must not matter either.
    ASMT_CONFIG: join(scratch, 'aerospike.conf'),
    TMPDIR: scratch,
    NO_COLOR: '1',
  };
}

/**
 * Runs a command, and shows its output if it fails. Returns true if it succeeds.
 */
export function attempt(title, command, args, env = {}, cwd = ROOT) {
  const since = performance.now();
  process.stderr.write(`${title} … `);
  const done = spawnSync(command, args, { cwd, encoding: 'utf8', maxBuffer: 2 ** 28, env: { ...process.env, ...env } });
  const seconds = ((performance.now() - since) / 1000).toFixed(1);
  if (done.status === 0) {
    process.stderr.write(`${seconds} s\n`);
    return true;
  }
  process.stderr.write(`failed after ${seconds} s\n$ ${[command, ...args].join(' ')}\n`);
  process.stderr.write(done.error ? `${done.error.message}\n` : `${done.stdout}${done.stderr}`);
  return false;
}

/** Runs a command that everything else needs: ends this process if it fails. */
export function step(title, command, args, env = {}, cwd = ROOT) {
  if (!attempt(title, command, args, env, cwd)) process.exit(1);
}

/** Ends with the name of a program if it is missing. */
function need(program, args, hint) {
  if (spawnSync(program, args).status !== 0) {
    process.stderr.write(`error: ${program} is needed and was not found\nHINT: ${hint}\n`);
    process.exit(1);
  }
}

/** Installs npm's packages, exactly those of the lock file. */
export function install() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major < LEAST_NODE[0] || (major === LEAST_NODE[0] && minor < LEAST_NODE[1])) {
    process.stderr.write(`error: Node ${process.versions.node} is too old, expected at least ${LEAST_NODE.join('.')}\n`);
    process.exit(1);
  }
  need('cargo', ['--version'], 'install Rust with cargo, 1.89 or later: your distribution has it, or see https://rustup.rs');
  const [lock, installed] = [join(ROOT, 'package-lock.json'), join(ROOT, 'node_modules', '.package-lock.json')];
  const isNew = existsSync(installed) && statSync(installed).mtimeMs >= statSync(lock).mtimeMs;
  if (!isNew) step('installing packages (npm ci)', 'npm', ['ci', '--no-audit', '--no-fund']);
}

/** Builds the addon, the command line, and the tools that tests, demo and benchmark use. */
export function build() {
  step('building the engine (cargo, release)', 'npm', ['run', '--silent', 'build:native']);
  step('building the command line (tsc, esbuild)', 'npm', ['run', '--silent', 'build:ts']);
  const tools = ['asmt-sim', 'asmt-bench', 'asmt-faults'].flatMap((name) => ['--package', name]);
  step('building simulator, benchmark and loops (cargo, release)', 'cargo', ['build', '--release', '--locked', ...tools]);
}

/**
 * Returns the words before a command that run it in an IPC namespace of its own; null if the system
 * does not allow it.
 */
export function ipcNamespace() {
  const candidates = [
    ['unshare', '--ipc'],
    ['unshare', '--user', '--map-root-user', '--ipc'],
  ];
  return candidates.find(([program, ...args]) => spawnSync(program, [...args, 'true']).status === 0) ?? null;
}
