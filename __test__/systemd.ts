/**
 * A host's records of its past, for specs: a real systemd with its journal, journals of earlier
 * boots, and login records.
 */

import { spawn, spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  rmdirSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';

import type { ExecutionContext } from 'ava';

import { IS_REAL_ROOT, show, testIf, until, type Machine } from './helpers.ts';

const SYSTEMD = '/lib/systemd/systemd';
const JOURNAL_REMOTE = '/lib/systemd/systemd-journal-remote';
/** The control groups that systemd can use in a container. */
const CGROUPS = /^\S+ (\S+) cgroup2 /m.exec(readFileSync('/proc/self/mounts', 'utf8'))?.[1];

/** For tests that need a host with systemd, which only root of the machine may start. */
export const testWithSystemd = testIf(
  IS_REAL_ROOT && existsSync(SYSTEMD) && existsSync('/lib/systemd/systemd-journald') && CGROUPS !== undefined,
  'only root of the machine may start systemd, where it is installed and there are control groups of version 2',
);

/** For tests that need a journal with earlier boots. */
export const testWithJournal = testIf(
  IS_REAL_ROOT && existsSync(JOURNAL_REMOTE),
  'only root of the machine may mount a journal, which systemd-journal-remote makes',
);

/** The machine id of the host, in the form of the journal. */
function machineId(machine: Machine): string {
  return readFileSync(machine.path('etc', 'machine-id'), 'utf8').trim();
}

/** A boot id in the form of the journal. */
const hex = (bootId: string): string => bootId.replaceAll('-', '');

/** One entry of a journal. */
export interface Entry {
  readonly bootId: string;
  /** Time since the boot, milliseconds. */
  readonly monotonicMs: number;
  /** The fields of the entry; an entry without fields shows that there was this boot. */
  readonly fields?: Readonly<Record<string, string>>;
}

/** systemd's message that the server's unit has started. Source: an entry of systemd 252. */
export const SERVER_STARTED: Readonly<Record<string, string>> = {
  MESSAGE: 'Started aerospike.service - Aerospike Server.',
  MESSAGE_ID: '39f53479d3a045ac8e11786248231fbf',
  JOB_TYPE: 'start',
  JOB_RESULT: 'done',
  UNIT: 'aerospike.service',
  _SYSTEMD_UNIT: 'init.scope',
  _PID: '1',
};

/** Gives a host a journal with these entries, oldest first, in the form of journald. */
export async function writeJournal(machine: Machine, entries: readonly Entry[]): Promise<void> {
  const directory = machine.path('var_log', 'journal', machineId(machine));
  rmSync(directory, { recursive: true, force: true });
  mkdirSync(directory, { recursive: true });
  const firstUs = (Date.now() - 3_600_000) * 1000;
  const texts = entries.map(({ bootId, monotonicMs, fields }, index) => {
    const all = {
      __REALTIME_TIMESTAMP: String(firstUs + index * 1_000_000),
      __MONOTONIC_TIMESTAMP: String(Math.round(monotonicMs * 1000)),
      _BOOT_ID: hex(bootId),
      _MACHINE_ID: machineId(machine),
      ...(fields ?? { MESSAGE: 'something else' }),
    };
    return `${Object.entries(all)
      .map(([name, value]) => `${name}=${value}\n`)
      .join('')}\n`;
  });
  const source = machine.path('journal.export');
  writeFileSync(source, texts.join(''));
  const done = await machine.exec(JOURNAL_REMOTE, ['--output', join(directory, 'system.journal'), source]);
  if (done.status !== 0) throw new Error(show(done));
}

/** Gives a host login records with boots at these times, milliseconds since 1970. */
export async function writeLoginRecords(machine: Machine, bootsMs: readonly number[]): Promise<void> {
  const line = (atMs: number) => {
    const time = new Date(atMs).toISOString().replace(/\.\d+Z/, ',000000+00:00');
    return `[2] [00000] [~~  ] [reboot  ] [~           ] [6.1                 ] [0.0.0.0        ] [${time}]\n`;
  };
  const source = machine.path('wtmp.txt');
  writeFileSync(source, bootsMs.map(line).join(''));
  const done = await machine.exec('sh', ['-c', `utmpdump --reverse < ${source} > /var/log/wtmp`]);
  if (done.status !== 0) throw new Error(show(done));
}

/** A host's systemd and journald, as the first processes of a boot of its own. */
export class Systemd {
  readonly #machine: Machine;
  readonly #end: () => Promise<void>;

  private constructor(machine: Machine, end: () => Promise<void>) {
    this.#machine = machine;
    this.#end = end;
  }

  /** Boots the host: it must not run yet. Units are those of its `/etc/systemd/system`. */
  static async boot(t: ExecutionContext, machine: Machine): Promise<Systemd> {
    prepare(machine);
    const group = join(CGROUPS ?? '', `asmt-test-${process.pid}-${statSync(machine.directory).ino}`);
    mkdirSync(group);
    // It runs in a PID namespace of its own, with everything that belongs to it; all of it ends
    // with `unshare`.
    const init = `mount -t proc proc /proc
mount --bind ${machine.path('boot_id')} /proc/sys/kernel/random/boot_id
mount -t cgroup2 cgroup2 /sys/fs/cgroup
exec env -i PATH="$PATH" container=asmt LC_ALL=C ${SYSTEMD} --system --unit=asmt-test.target --log-target=journal --show-status=0`;
    const script = `echo $$ > ${group}/cgroup.procs
exec unshare --pid --fork --kill-child --mount --cgroup --propagation private sh -ec '${init}'`;
    const [program, words] = machine.within('sh', ['-ec', script]);
    const child = spawn(program, words, { stdio: ['ignore', 'ignore', 'inherit'] });
    const gone = new Promise((done) => child.once('exit', done));
    let hasEnded = false;
    const end = async () => {
      if (hasEnded) return;
      hasEnded = true;
      machine.init = null;
      child.kill('SIGKILL');
      await gone;
      await until('an empty control group', () => removeGroup(group));
    };
    t.teardown(end);
    const systemd = new Systemd(machine, end);
    await until('the first process', () => {
      const children = readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8').trim();
      if (/^\d+$/.test(children)) machine.init = Number(children);
      return machine.init !== null && readFileSync(`/proc/${machine.init}/comm`, 'utf8') === 'systemd\n';
    });
    await until('systemd', async () => (await machine.exec('systemctl', ['is-active', 'asmt-test.target'])).status === 0);
    return systemd;
  }

  async run(command: string, ...args: string[]): Promise<string> {
    const done = await this.#machine.exec(command, args);
    if (done.status !== 0) throw new Error(show(done));
    return done.stdout;
  }

  /** Ends it like a machine that goes down: everything that journald got is on the disk. */
  async end(): Promise<void> {
    await this.run('journalctl', '--sync');
    await this.#end();
    // The directory is in memory.
    for (const name of readdirSync(this.#machine.path('host_run'))) {
      rmSync(this.#machine.path('host_run', name), { recursive: true });
    }
  }
}

/** Removes a control group with everything in it; false if there is a process in it. */
function removeGroup(group: string): boolean {
  const groups = spawnSync('find', [group, '-depth', '-type', 'd'], { encoding: 'utf8' }).stdout.trim().split('\n');
  try {
    for (const path of groups) rmdirSync(path);
    return true;
  } catch {
    return false;
  }
}

/** Units and settings of a host that is about to boot. */
function prepare(machine: Machine): void {
  const units = machine.path('etc', 'systemd', 'system');
  mkdirSync(units, { recursive: true });
  mkdirSync(machine.path('var_log', 'journal'), { recursive: true });
  const target = '[Unit]\nDefaultDependencies=no\nRequires=systemd-journald.service\nAfter=systemd-journald.service\n';
  writeFileSync(join(units, 'asmt-test.target'), target);
  // They would put something into /dev, which all machines share, or read the messages of other
  // kernels.
  for (const name of ['systemd-journald-dev-log.socket', 'systemd-journald-audit.socket']) {
    if (!existsSync(join(units, name))) symlinkSync('/dev/null', join(units, name));
  }
  // As if the file systems had been there before journald: it keeps its journal there from the
  // first entry on.
  mkdirSync(machine.path('host_run', 'systemd', 'journal'), { recursive: true });
  writeFileSync(machine.path('host_run', 'systemd', 'journal', 'flushed'), '');
  writeFileSync(machine.path('etc', 'systemd', 'journald.conf'), '[Journal]\nStorage=persistent\nReadKMsg=no\nAudit=no\n');
}

/**
 * Gives a host a unit for its server, which runs `command`, and a target that wants it: systemd
 * forgets when a unit ran that has stopped and that nothing wants.
 */
export function writeServerUnit(machine: Machine, command: string): void {
  const units = machine.path('etc', 'systemd', 'system');
  mkdirSync(units, { recursive: true });
  const text = `[Unit]\nDescription=Aerospike Server\nDefaultDependencies=no\n[Service]\nExecStart=${command}\n`;
  writeFileSync(join(units, 'aerospike.service'), text);
  writeFileSync(join(units, 'with-server.target'), '[Unit]\nDefaultDependencies=no\nWants=aerospike.service\n');
}
