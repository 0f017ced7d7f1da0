/**
 * The files that an Aerospike server leaves on a machine, for specs: its configuration, and storage
 * devices with the first bytes that a real server wrote.
 *
 * Must never: make up a header: each one was written by a server (`fixtures/server`), with another
 * name, count or random if a test needs one.
 */

import {
  closeSync,
  fsyncSync,
  openSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';

import type { ExecutionContext } from 'ava';

import { ROOT, show, type Machine } from './helpers.ts';

/** The states in which a set of two was seen, in this order, and the file of each header. */
const SEEN = {
  /** No server has opened it. */
  blank: 'blank/fresh.head',
  /** Stopped cleanly after the first start. */
  stopped: 'file-2-clean-stop/test-a.dat.head',
  /** Started again: another random, and not trusted. */
  running: 'file-3-second-start-running/test-a.dat.head',
  /** Started once more and stopped cleanly: yet another random, and trusted. */
  'stopped again': 'dev-2-clean-stop/loop0.head',
} as const;
export type State = keyof typeof SEEN;

/** The fields that differ from those that the server wrote. */
export interface Change {
  readonly name?: string;
  /** Main devices of the set; 2 by default. */
  readonly devices?: number;
  /** 16 hex digits. */
  readonly random?: string;
  readonly version?: number;
}

/** The first 4096 bytes of a device. Offsets: `fixtures/server/layout.txt`. */
export function header(state: State, change: Change = {}): Buffer {
  const bytes = readFileSync(join(ROOT, '__test__', 'fixtures', 'server', SEEN[state]));
  if (state === 'blank') return bytes;
  if (change.name !== undefined) bytes.fill(0, 12, 44).write(change.name, 12);
  if (change.devices !== undefined) bytes.writeUInt32LE(change.devices, 44);
  if (change.random !== undefined) bytes.writeBigUInt64LE(BigInt(`0x${change.random}`), 48);
  if (change.version !== undefined) bytes.writeUInt32LE(change.version, 8);
  return bytes;
}

/** Writes the start of a device or file as a server does, straight to the disk. */
export function write(path: string, bytes: Buffer): void {
  const file = openSync(path, 'r+');
  writeSync(file, bytes, 0, bytes.length, 0);
  fsyncSync(file);
  closeSync(file);
}

/**
 * A disk that can be taken out and put back: a block device over a file, under a name of its own.
 */
export class Disk {
  readonly #machine: Machine;
  readonly #image: string;
  readonly #set: Change;
  #device: string | null = null;
  /** Its name, a link to the block device, as a configuration has it. */
  readonly path: string;

  private constructor(machine: Machine, name: string, set: Change) {
    this.#machine = machine;
    this.#image = machine.path(`${name}.img`);
    this.#set = set;
    this.path = machine.path(name);
  }

  /** Makes one disk of a set, as a clean stop leaves it. */
  static async make(t: ExecutionContext, machine: Machine, name: string, set: Change = {}): Promise<Disk> {
    const disk = new Disk(machine, name, set);
    t.teardown(() => disk.takeOut());
    writeFileSync(disk.#image, header('stopped', set));
    truncateSync(disk.#image, 1 << 20);
    await disk.putIn();
    return disk;
  }

  /** The block device: another one each time the disk is put in. */
  get device(): string {
    if (this.#device === null) throw new Error(`${this.path} is not in`);
    return this.#device;
  }

  async putIn(path = this.path): Promise<void> {
    const done = await this.#machine.exec('losetup', ['--find', '--show', this.#image]);
    if (done.status !== 0) throw new Error(show(done));
    this.#device = done.stdout.trim();
    rmSync(path, { force: true });
    symlinkSync(this.#device, path);
  }

  async takeOut(): Promise<void> {
    if (this.#device === null) return;
    const done = await this.#machine.exec('losetup', ['--detach', this.#device]);
    if (done.status !== 0) throw new Error(show(done));
    this.#device = null;
    rmSync(this.path, { force: true });
  }

  write(state: State, change: Change = {}): void {
    write(this.device, header(state, { ...this.#set, ...change }));
  }
}

/** The lines of a configuration beside its namespaces. */
export interface Service {
  /** Lines of `logging`; none if it logs to the console. */
  readonly logs?: readonly string[];
  readonly workDirectory?: string;
}

/**
 * A configuration: each namespace with the lines of its storage (`device /dev/sda`, `file
 * /srv/test.dat`), or without any if it is in memory alone.
 */
export function configuration(namespaces: Readonly<Record<string, readonly string[]>>, service: Service = {}): string {
  const logs = (service.logs ?? []).map((path) => `  file ${path} {\n    context any info\n  }\n`);
  const logging = logs.length > 0 ? logs.join('') : '  console {\n    context any info\n  }\n';
  const storage = (lines: readonly string[]) =>
    lines.length > 0
      ? `  storage-engine device {\n${lines.map((line) => `    ${line}\n`).join('')}  }\n`
      : '  storage-engine memory {\n    data-size 1G\n  }\n';
  const texts = Object.entries(namespaces).map(([name, lines]) => `namespace ${name} {\n${storage(lines)}}\n`);
  const work = service.workDirectory ?? '/nonexistent';
  return `service {\n  work-directory ${work}\n}\nlogging {\n${logging}}\n${texts.join('')}`;
}
