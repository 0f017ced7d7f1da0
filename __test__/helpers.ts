/**
 * The parts that the specs of the command line share: a machine with its own IPC namespace and
 * directory, and runs of asmt and of the simulator in it.
 *
 * Promise: a failed expectation shows the whole run; nothing is left over when a test ends, however
 * it ends (the holder's standard input closes with this process, the namespace goes with the
 * holder, and the segments go with the namespace). Must never: touch the segments of the namespace
 * in which the tests were started.
 */

import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import {
  chmodSync,
  chownSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join, resolve } from 'node:path';
import { crc32 } from 'node:zlib';

import test, { type ExecutionContext } from 'ava';

import type { Outcome } from '../src/outcome.ts';
import { violations } from './schema.ts';

export const ROOT = resolve(import.meta.dirname, '..');
export const MAIN = join(ROOT, 'dist', 'main.js');
export const SIM = join(ROOT, 'target', 'release', 'asmt-sim');
export const GOLDEN = join(ROOT, '__test__', 'fixtures', 'golden');
/** Backups that asmt 0.1.0 made. */
export const GOLDEN_OWN = join(ROOT, '__test__', 'fixtures', 'golden-0.1.0');

/**
 * True if files and segments can be given to others, and file systems mounted, which a user
 * namespace does not allow.
 */
export const IS_REAL_ROOT =
  process.getuid?.() === 0 && readFileSync('/proc/self/uid_map', 'utf8').trim().split(/\s+/)[2] === '4294967295';

/** One run of a command. */
export interface Run {
  readonly command: string;
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** The whole run, for a failure. */
export function show(run: Run): string {
  const end = run.signal ?? String(run.status);
  return `$ ${run.command}\nexit: ${end}\n--- stdout\n${run.stdout}\n--- stderr\n${run.stderr}`;
}

/** The environment of an operator's terminal. In a CI's own, chalk colours nothing. */
export const TERMINAL: Readonly<Record<string, string | undefined>> = {
  NO_COLOR: undefined,
  FORCE_COLOR: undefined,
  TF_BUILD: undefined,
  CI: undefined,
  TEAMCITY_VERSION: undefined,
  TERM: 'xterm',
};

export interface RunOptions {
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly cwd?: string;
  /** Called while the command runs. */
  readonly during?: (child: ChildProcess, output: () => string) => Promise<void>;
}

function collect(child: ChildProcess): { stdout: () => string; stderr: () => string } {
  const [out, err]: [Buffer[], Buffer[]] = [[], []];
  child.stdout?.on('data', (data: Buffer) => out.push(data));
  child.stderr?.on('data', (data: Buffer) => err.push(data));
  return { stdout: () => Buffer.concat(out).toString(), stderr: () => Buffer.concat(err).toString() };
}

/** Runs a command to its end. What asmt prints for programs must fit its schema. */
export async function run(command: string, args: readonly string[], options: RunOptions = {}): Promise<Run> {
  // A process without rights, or within limits, could not write its coverage, and would say so.
  const isConfined = [command, ...args].some((word) => word === 'setpriv' || word.includes('ulimit'));
  const coverage = isConfined ? { NODE_V8_COVERAGE: undefined } : {};
  const child = spawn(command, args, {
    cwd: options.cwd ?? ROOT,
    env: { ...process.env, NO_COLOR: '1', FORCE_COLOR: '0', ...coverage, ...options.env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const { stdout, stderr } = collect(child);
  const ended = new Promise<[number | null, NodeJS.Signals | null]>((done, fail) => {
    child.on('error', fail);
    child.on('close', (status, signal) => done([status, signal]));
  });
  await options.during?.(child, () => stdout() + stderr());
  const [status, signal] = await ended;
  const done = { command: [command, ...args].join(' '), status, signal, stdout: stdout(), stderr: stderr() };
  // What stands behind two dashes is another command's.
  const end = args.indexOf('--', args.indexOf(MAIN));
  const own = end < 0 ? args : args.slice(0, end);
  const wrong = own.includes(MAIN) ? violations(own, options.env ?? {}, done) : [];
  if (wrong.length > 0) throw new Error(`${wrong.join('\n')}\n${show(done)}`);
  return done;
}

/** Waits until `condition` holds; fails after more time than any machine needs. */
export async function until(what: string, condition: () => boolean | Promise<boolean>): Promise<void> {
  const end = Date.now() + 60_000;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`never came: ${what}`);
    await new Promise((wake) => {
      setTimeout(wake, 2);
    });
  }
}

/** A process that was started in a machine and holds something until it gets the order to end. */
export interface Holder {
  readonly pid: number;
  end(): Promise<void>;
}

/** Namespaces that live until they are ended. */
class Namespaces {
  readonly #holder: ChildProcess;
  readonly #gone: Promise<unknown>;
  readonly #kinds: readonly string[];

  private constructor(holder: ChildProcess, kinds: readonly string[]) {
    this.#holder = holder;
    this.#gone = new Promise((done) => holder.once('exit', done));
    this.#kinds = kinds;
  }

  static async start(kinds: readonly string[], options: readonly string[] = []): Promise<Namespaces> {
    // The process ends when its input does, so also when this process is killed.
    const words = [...kinds.map((kind) => `--${kind}`), ...options, 'sh', '-c', 'echo ready; exec cat'];
    const holder = spawn('unshare', words, { stdio: ['pipe', 'pipe', 'inherit'] });
    const { stdout } = collect(holder);
    const namespaces = new Namespaces(holder, kinds);
    await until('namespaces', () => stdout().includes('ready'));
    return namespaces;
  }

  /** Options of `nsenter`. */
  get entered(): string[] {
    const file: Readonly<Record<string, string>> = { mount: 'mnt' };
    return this.#kinds.map((kind) => `--${kind}=/proc/${this.#holder.pid}/ns/${file[kind] ?? kind}`);
  }

  async end(): Promise<void> {
    this.#holder.stdin?.end();
    await this.#gone;
  }
}

/** The directories of a host, by their names in the machine's directory. */
const OF_HOST = { etc: '/etc', var_log: '/var/log', host_run: '/run', boot_id: '/proc/sys/kernel/random/boot_id' } as const;

/** A directory that is removed when the test ends. */
function directoryOf(t: ExecutionContext): string {
  const directory = mkdtempSync(join(process.env['ASMT_TEST_TMP'] ?? tmpdir(), 'asmt-test-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  mkdirSync(join(directory, 'run'), { mode: 0o700 });
  return directory;
}

/** An IPC namespace and a directory, like those of a machine of its own. */
export class Machine {
  readonly #t: ExecutionContext;
  readonly #ipc: Namespaces;
  /** Mounts and host name, if it has its own. */
  readonly #host: Namespaces | null;
  /** A directory of its own, removed when the test ends. */
  readonly directory: string;
  /** Its first process, if it has one: all others run beside it. */
  init: number | null = null;

  private constructor(t: ExecutionContext, ipc: Namespaces, host: Namespaces | null, directory: string) {
    this.#t = t;
    this.#ipc = ipc;
    this.#host = host;
    this.directory = directory;
    t.teardown(() => ipc.end());
  }

  static async start(t: ExecutionContext): Promise<Machine> {
    const directory = directoryOf(t);
    return new Machine(t, await Namespaces.start(['ipc']), null, directory);
  }

  /**
   * A machine that also has its own boot id, host name, `/etc`, `/var/log` and `/run` (`etc`,
   * `var_log` and `host_run` in its directory): it can be rebooted, and no record of this machine
   * is seen. For root of the machine.
   */
  static async startHost(t: ExecutionContext): Promise<Machine> {
    const directory = directoryOf(t);
    const host = await Namespaces.start(['mount', 'uts'], ['--propagation', 'private']);
    t.teardown(() => host.end());
    const machine = new Machine(t, await Namespaces.start(['ipc']), host, directory);
    cpSync('/etc', machine.path('etc'), { recursive: true, verbatimSymlinks: true });
    writeFileSync(machine.path('etc', 'machine-id'), `${randomUUID().replaceAll('-', '')}\n`);
    for (const name of ['var_log', 'host_run']) mkdirSync(machine.path(name));
    machine.#boot();
    for (const [name, place] of Object.entries(OF_HOST)) await machine.mount(machine.path(name), place);
    return machine;
  }

  /** Starts another container on this machine: everything but shared memory is the same. */
  async container(): Promise<Machine> {
    return new Machine(this.#t, await Namespaces.start(['ipc']), this.#host, this.directory);
  }

  /**
   * Ends its IPC namespace, as the end of a container does: its segments are gone, and the boot
   * continues.
   */
  async end(): Promise<void> {
    await this.#ipc.end();
  }

  /** Reboots it: another boot id, and no segments. Returns the new boot id; only for a host. */
  async reboot(): Promise<string> {
    await this.sim('remove');
    return this.#boot();
  }

  /** Gives a loop device a serial number, as a disk has one; only for a host. */
  async serial(device: string, text: string): Promise<void> {
    const place = mkdtempSync(this.path('serial-'));
    writeFileSync(join(place, 'wwid'), `${text}\n`);
    await this.mount(place, `/sys/devices/virtual/block/${basename(device)}`);
  }

  /** Its boot id is in the file that is mounted. */
  #boot(): string {
    const id = randomUUID();
    writeFileSync(this.path('boot_id'), `${id}\n`);
    return id;
  }

  /**
   * Mounts something that nobody else sees, as a bind mount if there are no options; only for a
   * host.
   */
  async mount(what: string, place: string, ...options: string[]): Promise<void> {
    const done = await this.exec('mount', [...(options.length > 0 ? options : ['--bind']), what, place]);
    if (done.status !== 0) throw new Error(show(done));
  }

  /** A path in its directory. */
  path(...names: string[]): string {
    return join(this.directory, ...names);
  }

  /** The command line that runs `command` in its namespaces. */
  within(command: string, args: readonly string[]): [string, string[]] {
    const host = this.#host === null ? [] : [...this.#host.entered, `--wdns=${ROOT}`];
    const init = this.init === null ? [] : [`--pid=/proc/${this.init}/ns/pid`, `--mount=/proc/${this.init}/ns/mnt`];
    return ['nsenter', [...this.#ipc.entered, ...host, ...init, '--', command, ...args]];
  }

  /**
   * Its configuration, which exists only if a test writes it, and never is that of the machine that
   * runs the tests.
   */
  get config(): string {
    return this.path('aerospike.conf');
  }

  get env(): Record<string, string> {
    return { ASMT_RUNTIME_DIR: this.path('run'), ASMT_CONFIG: this.config };
  }

  async exec(command: string, args: readonly string[], options: RunOptions = {}): Promise<Run> {
    const [program, words] = this.within(command, args);
    return run(program, words, { ...options, env: { ...this.env, ...options.env } });
  }

  /** Runs asmt. */
  async asmt(args: readonly string[], options: RunOptions = {}): Promise<Run> {
    return this.exec(process.execPath, [MAIN, ...args], options);
  }

  /** Runs asmt, which must end with `status`. */
  async expect(status: number, args: readonly string[], options: RunOptions = {}): Promise<Run> {
    const done = await this.asmt(args, options);
    this.#t.is(done.status, status, show(done));
    return done;
  }

  /** Runs asmt with `--json`, which must end with `status`. Returns the parsed output. */
  async json(status: number, args: readonly string[], options: RunOptions = {}): Promise<Outcome & { exit_status: number }> {
    const done = await this.expect(status, [...args, '--json'], options);
    const outcome = JSON.parse(done.stdout) as Outcome & { exit_status: number };
    this.#t.is(outcome.exit_status, status, show(done));
    return outcome;
  }

  /**
   * Runs asmt under strace, which changes its system calls by `injections`
   * (`fsync:signal=KILL:when=3`). `during` gets asmt's own process: the tracer is detached.
   */
  async traced(injections: readonly string[], args: readonly string[], options: RunOptions = {}): Promise<Run> {
    return this.tracedThrough([], injections, args, options);
  }

  /**
   * The same, started by a command such as `unshare` (its words, without the command that it
   * starts).
   */
  async tracedThrough(
    starter: readonly string[],
    injections: readonly string[],
    args: readonly string[],
    options: RunOptions = {},
  ): Promise<Run> {
    const [command = '', ...words] = [...starter, 'strace', ...this.#tracer(injections), process.execPath, MAIN, ...args];
    return this.exec(command, words, options);
  }

  /** The same, for calls on this path only. */
  async tracedOn(path: string, injections: readonly string[], args: readonly string[], options: RunOptions = {}): Promise<Run> {
    const words = ['-P', path, ...this.#tracer(injections), process.execPath, MAIN, ...args];
    return this.exec('strace', words, options);
  }

  /** Runs a restore that is killed when it is about to make its fourth segment. */
  async killedRestore(directory: string): Promise<void> {
    const killed = await this.traced(['shmget:signal=KILL:when=4'], ['restore', directory]);
    this.#t.is(killed.signal, 'SIGKILL', show(killed));
  }

  /** The same on a terminal of its own, to which both streams are connected. */
  async tracedOnTerminal(injections: readonly string[], args: readonly string[]): Promise<Run> {
    const spawn = 'import os,pty,sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))';
    const command = ['strace', ...this.#tracer(injections), process.execPath, MAIN, ...args];
    return this.exec('python3', ['-c', spawn, ...command], {
      env: TERMINAL,
    });
  }

  #tracer(injections: readonly string[]): string[] {
    const calls = [...new Set(injections.map((injection) => injection.split(':')[0]))].join(',');
    const words = ['-D', '-f', '-qq', '-o', '/dev/null', '-e', `trace=${calls}`];
    for (const injection of injections) words.push('-e', `inject=${injection}`);
    return words;
  }

  /** Runs the simulator, which must succeed. Returns its output. */
  async sim(...args: string[]): Promise<string> {
    const done = await this.exec(SIM, args);
    if (done.status !== 0) throw new Error(show(done));
    return done.stdout;
  }

  /**
   * The segments in memory, one line per segment: key, size, CRC-32, owner, group, mode and attach
   * count.
   */
  async memory(): Promise<string> {
    return this.sim('sum');
  }

  /** Attaches a segment (or all of them), as a running server does, until it is ended. */
  async hold(key?: string): Promise<Holder> {
    return this.start(SIM, ['hold', ...(key ? ['--key', key] : [])], 'ready');
  }

  /** Starts a command that prints `word` when it is ready, and ends when its input does. */
  async start(command: string, args: readonly string[], word: string): Promise<Holder> {
    const [program, words] = this.within(command, args);
    const child = spawn(program, words, { stdio: ['pipe', 'pipe', 'inherit'], env: { ...process.env, ...this.env } });
    const { stdout } = collect(child);
    const gone = new Promise<void>((done) => {
      child.once('exit', () => done());
    });
    await until(`${command} ready`, () => stdout().includes(word));
    const end = async () => {
      child.stdin?.end();
      await gone;
    };
    this.#t.teardown(end);
    if (child.pid === undefined) throw new Error(`${command} has no pid`);
    return { pid: child.pid, end };
  }

  /**
   * Puts a backup made by ASMT 2.2.1 here as the tool left it: git does not keep owners, groups and
   * modes.
   */
  golden(name: string): { directory: string; segments: string } {
    const directory = this.path(name);
    cpSync(join(GOLDEN, name, 'backup'), directory, { recursive: true });
    chmodSync(directory, 0o700);
    const segments = readFileSync(join(GOLDEN, name, 'segments.txt'), 'utf8');
    for (const line of segments.trim().split('\n')) {
      const [key, , , uid, gid, mode] = line.split(' ');
      const file = ['.dat', '.dat.gz'].map((suffix) => join(directory, key + suffix)).find((path) => existsSync(path));
      if (file === undefined || mode === undefined) throw new Error(`${name} has no file for "${line}"`);
      chmodSync(file, Number.parseInt(mode, 8));
      if (IS_REAL_ROOT) chownSync(file, Number(uid), Number(gid));
    }
    return { directory, segments };
  }

  /** Names in a directory, sorted; none if it is not there. */
  names(directory: string): string[] {
    return existsSync(directory) ? readdirSync(directory).toSorted() : [];
  }
}

export const MANIFEST = 'asmt-manifest-0-test.json';

/**
 * The manifest of namespace 'test' in a backup: its lines without the last one, which holds their
 * checksum.
 */
export function manifestLines(directory: string): string[] {
  return readFileSync(join(directory, MANIFEST), 'utf8').trimEnd().split('\n').slice(0, -1);
}

/** Writes such a manifest with a valid checksum. */
export function sealManifest(directory: string, lines: readonly string[]): void {
  const body = lines.map((line) => `${line}\n`).join('');
  const seal = `{"end":true,"crc32":"${crc32(body).toString(16).padStart(8, '0')}"}\n`;
  writeFileSync(join(directory, MANIFEST), body + seal);
}

/** A test if `condition` holds; otherwise one that is skipped and prints the reason. */
export function testIf(condition: boolean, why: string): (title: string, body: (t: ExecutionContext) => unknown) => void {
  return (title, body) => (condition ? test(title, body) : test.skip(`${title} (skipped: ${why})`, body));
}

const has = (program: string): boolean => spawnSync('sh', ['-c', `command -v ${program}`]).status === 0;

/** For tests that interfere with single system calls. */
export const testTraced = testIf(has('strace'), 'strace is not installed');

/** For tests that need what only root of the machine has: other owners, other users, mounts. */
export const testAsRoot = testIf(IS_REAL_ROOT, 'only root of the machine may give files to others and mount');

/** The same, for tests that use a program that not every machine has. */
export function testAsRootWith(program: string): ReturnType<typeof testIf> {
  return testIf(IS_REAL_ROOT && has(program), `only root of the machine may mount, and ${program} may not be installed`);
}
