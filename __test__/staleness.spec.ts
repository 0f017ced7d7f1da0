/**
 * Sequences after which a backup is fresh, stale, or in a state that nobody can know: each row of
 * docs/STALENESS.md, with real block devices, namespaces, boot ids and journals. The last restore
 * must end as the row says.
 */

import {
  appendFileSync,
  closeSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';

import test, { type ExecutionContext } from 'ava';

import {
  MAIN,
  Machine,
  SIM,
  manifestLines,
  sealManifest,
  show,
  testAsRoot,
  testAsRootWith,
  until,
  type Holder,
  type Run,
  type RunOptions,
} from './helpers.ts';
import { Disk, configuration, header, write, type Change, type State } from './server.ts';
import {
  SERVER_STARTED,
  Systemd,
  testWithJournal,
  testWithSystemd,
  writeJournal,
  writeLoginRecords,
  writeServerUnit,
  type Entry,
} from './systemd.ts';

/** A node that was stopped cleanly: segments, disks and configuration of its namespaces. */
class Node {
  readonly t: ExecutionContext;
  readonly machine: Machine;
  readonly disks: Disk[] = [];
  /** The segments in memory. */
  before = '';

  constructor(t: ExecutionContext, machine: Machine) {
    this.t = t;
    this.machine = machine;
  }

  /** A node with namespace 'test' on this number of disks; without disks, it has only an index. */
  static async start(t: ExecutionContext, diskCount: number): Promise<Node> {
    const node = new Node(t, await Machine.startHost(t));
    for (let number = 0; number < diskCount; number += 1) await node.addDisk(`disk${number}`, { devices: diskCount });
    node.configure({ test: node.disks.map((disk) => `device ${disk.path}`) });
    await node.make();
    return node;
  }

  /** Adds a disk, as a clean stop leaves it. */
  async addDisk(name: string, set: Change): Promise<Disk> {
    const disk = await Disk.make(this.t, this.machine, name, set);
    this.disks.push(disk);
    return disk;
  }

  configure(...args: Parameters<typeof configuration>): void {
    writeFileSync(this.machine.config, configuration(...args));
  }

  async make(...options: string[]): Promise<void> {
    await this.machine.sim('make', '--stage-size', '64KiB', ...options);
    this.before = await this.machine.memory();
  }

  get directory(): string {
    return this.machine.path('b');
  }

  /** The mark of a namespace, as text; null if there is none. */
  mark(name = 'test'): string | null {
    const path = `${this.directory}/asmt-used-0-${name}.json`;
    return existsSync(path) ? readFileSync(path, 'utf8') : null;
  }

  async backup(...args: string[]): Promise<void> {
    await this.machine.expect(0, ['backup', ...args, this.directory]);
  }

  /** A backup that is refused: it leaves no directory. */
  async backupRefused(code: string, ...args: string[]): Promise<void> {
    const { error } = await this.machine.json(3, ['backup', ...args, this.directory]);
    this.t.is(error?.code, code, JSON.stringify(error));
    this.t.false(existsSync(this.directory));
  }

  /** Runs a restore that is accepted: everything is back. Returns its remarks. */
  async restored(args: readonly string[] = [], options: RunOptions = {}, on = this.machine): Promise<string[]> {
    const { report } = await on.json(0, ['restore', ...args, this.directory], options);
    this.t.is(await on.memory(), this.before);
    return report?.remarks.map(({ code, message }) => `${code}: ${message}`) ?? [];
  }

  /** Runs a restore that is refused: nothing in memory changes. Returns its message and hint. */
  async refused(
    status: number,
    code: string,
    args: readonly string[] = [],
    options: RunOptions = {},
    on = this.machine,
  ): Promise<string> {
    const memory = await on.memory();
    const { error } = await on.json(status, ['restore', ...args, this.directory], options);
    this.t.is(error?.code, code, JSON.stringify(error));
    this.t.is(await on.memory(), memory);
    return `${error?.message}\n${error?.hint}`;
  }

  write(state: State): void {
    for (const disk of this.disks) disk.write(state);
  }
}

/** A node without disks, backed up and rebooted. */
async function rebooted(t: ExecutionContext): Promise<Node> {
  const node = await Node.start(t, 0);
  await node.backup();
  await node.machine.reboot();
  return node;
}

const USED = 'backup-used';
const STALE = 'backup-stale';

/** Starts a server on the segments in memory. Returns false if it does not start. */
async function startServer(machine: Machine): Promise<boolean> {
  return (await machine.exec(SIM, ['start', '--stage-size', '64KiB'])).status === 0;
}

/**
 * Runs a restore that stops for `meanwhile` at its `when`th call of `call`, if it does not end
 * before.
 */
async function stoppedAt(
  node: Node,
  call: string,
  when: number,
  meanwhile: () => Promise<void>,
): Promise<{ hasStopped: boolean; run: Run }> {
  const log = node.machine.path('strace');
  rmSync(log, { force: true });
  const tracer = ['-D', '-f', '-qq', '-o', log, '-e', `trace=${call}`, '-e', `inject=${call}:signal=STOP:when=${when}`];
  const words = [...tracer, process.execPath, MAIN, 'restore', '-t1', node.directory];
  let hasStopped = false;
  const done = await node.machine.exec('strace', words, {
    during: async (child) => {
      const hasEnded = () => child.exitCode !== null || child.signalCode !== null;
      await until('a stop or an end', () => {
        hasStopped = existsSync(log) && readFileSync(log, 'utf8').includes('--- stopped by SIGSTOP ---');
        return hasStopped || hasEnded();
      });
      if (!hasStopped) return;
      await meanwhile();
      child.kill('SIGCONT');
    },
  });
  return { hasStopped, run: done };
}

const ROW_1: Record<string, (node: Node) => { args: string[]; options: RunOptions }> = {
  'no configuration': ({ machine }) => {
    rmSync(machine.config);
    return { args: [], options: {} };
  },
  'a mistyped one': ({ machine }) => ({ args: [], options: { env: { ASMT_CONFIG: machine.path('aerospkie.conf') } } }),
  'one that names no such namespace': ({ machine }) => {
    writeFileSync(machine.config, configuration({ other: [] }));
    return { args: [], options: {} };
  },
  'another default path': ({ machine }) => {
    mkdirSync(machine.path('etc', 'aerospike'), { recursive: true });
    writeFileSync(machine.path('etc', 'aerospike', 'aerospike.conf'), configuration({ test: [] }));
    return { args: [], options: { env: { ASMT_CONFIG: '' } } };
  },
  'another path in the unit’s environment': ({ machine }) => {
    mkdirSync(machine.path('etc', 'sysconfig'), { recursive: true });
    writeFileSync(machine.path('etc', 'sysconfig', 'aerospike'), `ASD_CONFIG_FILE=${machine.path('of-unit.conf')}\n`);
    writeFileSync(machine.path('of-unit.conf'), configuration({ test: [] }));
    return { args: [], options: { env: { ASMT_CONFIG: '' } } };
  },
};

for (const [how, change] of Object.entries(ROW_1)) {
  testAsRoot(`row 1: devices that were noted are asked without being named again: ${how}`, async (t) => {
    const node = await Node.start(t, 2);
    await node.backup();
    await node.machine.reboot();
    const { args, options } = change(node);
    await node.disks[1]?.takeOut();
    await node.refused(3, 'device-unreadable', args, options);
    await node.disks[1]?.putIn();
    const remarks = await node.restored(args, options);
    t.deepEqual(
      remarks.filter((remark) => !remark.startsWith('namespace-left-out')),
      [],
    );
    await node.machine.reboot();
    for (const state of ['running', 'stopped again'] as const) {
      node.write(state);
      await node.refused(4, STALE, args, options);
    }
  });
}

testAsRoot("row 1: devices that were noted are asked without being named again: ASMT's form", async (t) => {
  const node = await Node.start(t, 2);
  const { machine, directory } = node;
  await machine.expect(0, ['-b', '-p', directory, '--config', machine.config]);
  await machine.reboot();
  rmSync(machine.config);
  await node.disks[1]?.takeOut();
  t.regex((await machine.expect(1, ['-r', '-p', directory])).stderr, /disk1 cannot be checked/);
  await node.disks[1]?.putIn();
  await machine.expect(0, ['-r', '-p', directory]);
  t.is(await machine.memory(), node.before);
  await machine.reboot();
  node.write('stopped again');
  t.regex((await machine.expect(1, ['-r', '-p', directory])).stderr, /disk0 has random .*: the server has run since/);
});

testAsRoot('row 1: a configuration that was named must be there', async (t) => {
  const node = await Node.start(t, 2);
  await node.backup();
  await node.machine.reboot();
  await node.refused(3, 'config-unreadable', ['--config', node.machine.path('aerospkie.conf')]);
  await node.refused(3, 'config-unreadable', [], {
    env: { ASMT_CONFIG: '', ASD_CONFIG_FILE: node.machine.path('aerospkie.conf') },
  });
  await node.restored();
});

testAsRoot('row 2: restored, and restored again after another reboot', async (t) => {
  const node = await rebooted(t);
  await node.restored();
  await node.machine.reboot();
  await node.refused(4, USED);
});

testAsRoot('row 3: restored in a container, and again in the one that took its place', async (t) => {
  const node = await Node.start(t, 0);
  await node.backup();
  await node.machine.end();
  const second = await node.machine.container();
  await node.restored([], {}, second);
  await second.end();
  const third = await node.machine.container();
  t.regex(await node.refused(4, USED, [], {}, third), /in another IPC namespace \(container\)/);
});

testAsRoot('row 3: restored in a container, and again in one beside it', async (t) => {
  const node = await Node.start(t, 0);
  await node.backup();
  await node.machine.sim('remove');
  await node.restored();
  await node.refused(4, USED, [], {}, await node.machine.container());
});

for (const diskCount of [2, 0]) {
  const devices = diskCount > 0 ? 'devices that it did not touch' : 'no devices';
  testAsRoot(`row 4: the server discards base and fails early, with ${devices}: restored again`, async (t) => {
    const node = await Node.start(t, diskCount);
    const { machine } = node;
    await node.backup();
    await machine.reboot();
    await node.restored();
    await machine.sim('remove', '--key', 'ae001000');
    await machine.sim('remove', '--key', 'ae001001');
    const hint = await node.refused(3, 'segments-exist');
    const command = /remove exactly these[^:]*: (ipcrm(?: -m \d+)+)/.exec(hint)?.[1] ?? '';
    const [program = '', ...words] = command.split(' ');
    t.is((await machine.exec(program, words)).status, 0, hint);
    t.is(await machine.memory(), '');
    await node.restored();
  });
}

testAsRoot('row 5: one namespace is restored and the server runs: the other is used, too', async (t) => {
  const node = await Node.start(t, 0);
  const { machine } = node;
  node.configure({ test: [], other: [] });
  await node.make('--name', 'other', '--nsid', '2');
  await node.backup();
  await machine.reboot();
  await machine.expect(0, ['restore', '-n', 'test', node.directory]);
  await machine.reboot();
  t.regex(await node.refused(4, USED, ['-n', 'other']), /asmt-used-0-test/);
});

testAsRoot('row 6: the device of one namespace speaks for another that has none', async (t) => {
  const node = await Node.start(t, 0);
  const { machine } = node;
  const disk = await node.addDisk('a', { name: 'a', devices: 1 });
  node.configure({ test: [], a: [`device ${disk.path}`] });
  await node.make('--name', 'a', '--nsid', '2');
  await node.backup();
  await machine.reboot();
  // The same holds if the configuration no longer names it.
  for (const namespaces of [{ test: [], a: [`device ${disk.path}`] }, { test: [] }]) {
    node.configure(namespaces);
    disk.write('stopped again');
    t.regex(await node.refused(4, STALE, ['-n', 'test']), /namespace 'a': .*\/a has random/);
  }
  disk.write('stopped');
  await machine.expect(0, ['restore', '-n', 'test', node.directory]);
});

/** Calls of a restore, from its locks to its end: those of the mark, and those of segments. */
const CALLS_OF_RESTORE = ['flock', 'fsync', 'rename,renameat,renameat2', 'shmget', 'shmat', 'shmctl', 'unlink'];

for (const how of ['signal=KILL', 'error=EIO'] as const) {
  testAsRootWith('strace')(`row 7: two restores at once in two containers, one of them with ${how} at a call`, async (t) => {
    t.timeout(600_000);
    const node = await Node.start(t, 0);
    const { machine, directory } = node;
    await node.backup();
    const other = await machine.container();
    const begin = async () => {
      await machine.reboot();
      await other.sim('remove');
      rmSync(`${directory}/asmt-used-0-test.json`, { force: true });
    };
    let states = 0;
    for (const call of CALLS_OF_RESTORE) {
      for (const when of [1, 2, 4]) {
        const interfered = async () => {
          const done = await other.traced([`${call}:${how}:when=${when}`], ['restore', '-t1', directory]);
          states += done.status === 0 ? 0 : 1;
          return done.status === 0;
        };
        // One has looked at the directory, and waits; it continues when the other has ended.
        await begin();
        let isMarked = false;
        const late = await stoppedAt(node, 'flock', 2, async () => {
          await interfered();
          isMarked = node.mark() !== null;
        });
        t.true(late.hasStopped);
        t.is(late.run.status, isMarked ? 4 : 0, show(late.run));
        await machine.reboot();
        await node.refused(4, USED);
        // One is filling segments, while the other comes and goes.
        await begin();
        const early = await stoppedAt(node, 'shmget', 2, async () => {
          t.false(await interfered(), `${call} ${when}`);
        });
        t.true(early.hasStopped);
        t.is(early.run.status, 0, show(early.run));
        await machine.reboot();
        await node.refused(4, USED);
      }
    }
    t.log(`${states} interferences`);
    t.true(states > CALLS_OF_RESTORE.length, String(states));
  });
}

/** The last calls of a restore, by the number of times that it has made them. */
async function lastCalls(node: Node, calls: readonly string[], count: number): Promise<[call: string, when: number][]> {
  const log = node.machine.path('calls');
  const words = [
    '-f',
    '-qq',
    '-o',
    log,
    '-e',
    `trace=${calls.join(',')}`,
    process.execPath,
    MAIN,
    'restore',
    '-t1',
    node.directory,
  ];
  const done = await node.machine.exec('strace', words);
  node.t.is(done.status, 0, show(done));
  const made = readFileSync(log, 'utf8')
    .split('\n')
    .map((line) => /^\d+ +(\w+)\(/.exec(line)?.[1])
    .filter((call) => call !== undefined);
  const numbered = made.map((call, at): [string, number] => [call, made.slice(0, at + 1).filter((name) => name === call).length]);
  return numbered.slice(-count);
}

for (const dies of [false, true]) {
  const title = dies ? 'and dies at once' : 'and runs';
  testAsRootWith('strace')(
    `row 8: a server starts while a restore commits ${title}: its segments stay, and so does the mark`,
    async (t) => {
      t.timeout(600_000);
      const node = await rebooted(t);
      const { machine, directory } = node;
      const calls = await lastCalls(node, ['shmctl', 'shmat', 'shmdt', 'unlink'], 24);
      let starts = 0;
      for (const [call, when] of calls) {
        await machine.reboot();
        rmSync(`${directory}/asmt-used-0-test.json`);
        let server: Holder | null = null;
        let segments: string | null = null;
        const { run } = await stoppedAt(node, call, when, async () => {
          // While the restore has a segment attached, no server starts.
          if (!(await startServer(machine))) return;
          if (!dies) server = await machine.hold();
          segments = await machine.memory();
        });
        if (segments === null) continue;
        starts += 1;
        const text = `${call} ${when}\n${show(run)}`;
        t.is(await machine.memory(), segments, text);
        t.not(node.mark(), null, text);
        await node.refused(3, dies ? 'segments-exist' : 'segment-attached');
        await (server as Holder | null)?.end();
        await machine.reboot();
        await node.refused(4, USED);
      }
      t.log(`${starts} starts at ${calls.length} calls`);
      t.true(starts > 0);
    },
  );
}

/** Runs asmt with the clock ahead. */
async function ahead(node: Node, offset: string, ...args: string[]): Promise<void> {
  const env = { FAKETIME_DONT_FAKE_MONOTONIC: '1' };
  const done = await node.machine.exec('faketime', ['-f', offset, process.execPath, MAIN, ...args], { env });
  node.t.is(done.status, 0, show(done));
}

testAsRootWith('faketime')('row 9: backed up while the clock was ahead; put right, the server runs and logs', async (t) => {
  const node = await Node.start(t, 0);
  const { machine, directory } = node;
  const [log, smd] = [machine.path('aerospike.log'), machine.path('work', 'smd')];
  mkdirSync(smd, { recursive: true });
  node.configure({ test: [] }, { logs: [log], workDirectory: machine.path('work') });
  const hour = new Date(Date.now() + 3_600_000);
  writeFileSync(log, 'the last line of a clean stop\n');
  writeFileSync(`${smd}/sindex.smd`, '[]');
  for (const path of [log, `${smd}/sindex.smd`]) utimesSync(path, hour, hour);
  await ahead(node, '+1h', 'backup', directory);
  const head = JSON.parse(manifestLines(directory)[0] ?? '') as { created_ms: number };
  t.true(head.created_ms > Date.now() + 1_800_000);
  await machine.reboot();
  const remarks = await node.restored();
  t.regex(remarks.join('\n'), /not-proven: .*the backup is dated in the future/);
  // In this boot it may be repeated, so that only the log is a sign.
  await machine.sim('remove');
  appendFileSync(log, 'a start\n');
  t.regex(await node.refused(4, STALE), /aerospike\.log has changed since/);
  rmSync(`${directory}/asmt-used-0-test.json`);
  await machine.reboot();
  await node.refused(4, STALE);
});

testAsRootWith('faketime')('row 9: the same, and only its metadata is changed', async (t) => {
  const node = await Node.start(t, 0);
  const { machine, directory } = node;
  const smd = machine.path('work', 'smd');
  mkdirSync(smd, { recursive: true });
  writeFileSync(`${smd}/sindex.smd`, '[]');
  node.configure({ test: [] }, { workDirectory: machine.path('work') });
  await ahead(node, '+1h', 'backup', directory);
  await machine.reboot();
  writeFileSync(`${smd}/sindex.smd`, '[{}]');
  t.regex(await node.refused(4, STALE), /smd has changed since/);
});

for (const dated of ['in the future', 'in the past'] as const) {
  for (const used of ['restored', 'retired'] as const) {
    testAsRoot(`row 10: files of ASMT's that are dated ${dated}: ${used}, then restored`, async (t) => {
      const node = new Node(t, await Machine.startHost(t));
      const { machine } = node;
      const { directory, segments } = machine.golden('raw-index');
      node.configure({ test: [] });
      const at = new Date(Date.now() + (dated === 'in the future' ? 1000 : -1000) * 86_400_000);
      for (const name of machine.names(directory)) utimesSync(`${directory}/${name}`, at, at);
      if (used === 'restored') await machine.expect(0, ['-r', '-p', directory]);
      else await machine.expect(0, ['retire', directory]);
      t.is(await machine.memory(), used === 'restored' ? segments : '');
      await machine.reboot();
      for (const [status, args] of [
        [4, ['restore', directory]],
        [1, ['-r', '-p', directory]],
      ] as const) {
        const refused = await machine.expect(status, args);
        t.regex(refused.stderr, used === 'restored' ? /was started on .*, in another boot/ : /the backup was retired on /);
        t.is(await machine.memory(), '');
      }
    });
  }
}

/** logrotate's methods, and the lines that configure them. */
const ROTATIONS = { renamed: 'create', truncated: 'copytruncate', compressed: 'create\n  compress' } as const;

const LAST_WORDS = 'Nov 30 2026 01:00:00 GMT: INFO (as): (as.c:500) finished clean shutdown - exiting\n';
const FIRST_WORDS = 'Nov 30 2026 02:00:00 GMT: INFO (as): (as.c:300) <><><><><>  Aerospike  <><><><><>\n';

/** Rotates a log, as a real logrotate does. */
async function rotate({ t, machine }: Node, log: string, how: keyof typeof ROTATIONS): Promise<void> {
  const conf = machine.path('logrotate.conf');
  writeFileSync(conf, `${log} {\n  rotate 4\n  ${ROTATIONS[how]}\n}\n`, { mode: 0o600 });
  const rotated = await machine.exec('logrotate', ['--force', '--state', machine.path('logrotate.state'), conf]);
  t.is(rotated.status, 0, show(rotated));
  t.is(readFileSync(log, 'utf8'), '');
  t.true(existsSync(`${log}.1${how === 'compressed' ? '.gz' : ''}`));
}

for (const how of ['renamed', 'truncated', 'compressed'] as const) {
  /** A node that was backed up with this in its log, and rebooted. */
  const logged = async (t: ExecutionContext, text: string): Promise<{ node: Node; log: string }> => {
    const node = await Node.start(t, 0);
    const log = node.machine.path('aerospike.log');
    writeFileSync(log, text);
    node.configure({ test: [] }, { logs: [log] });
    await node.backup();
    await node.machine.reboot();
    return { node, log };
  };
  const withLogrotate = testAsRootWith('logrotate');

  withLogrotate(`row 11: the log is ${how} after the server has run`, async (t) => {
    const { node, log } = await logged(t, LAST_WORDS);
    appendFileSync(log, FIRST_WORDS);
    await rotate(node, log, how);
    t.regex(await node.refused(4, STALE), /aerospike\.log has changed since/);
  });

  withLogrotate(`row 11: the log is ${how}, and the server runs and stops`, async (t) => {
    // The last line of the stop was written after the backup.
    const { node, log } = await logged(t, 'Nov 30 2026 00:59:59 GMT: INFO (as): (as.c:480) initiating clean shutdown ...\n');
    appendFileSync(log, LAST_WORDS);
    await rotate(node, log, how);
    appendFileSync(log, FIRST_WORDS + LAST_WORDS);
    t.regex(await node.refused(4, STALE), /aerospike\.log has changed since/);
  });

  withLogrotate(`row 11: the log is ${how}, and nothing else: that is no sign of a start`, async (t) => {
    const { node, log } = await logged(t, LAST_WORDS);
    await rotate(node, log, how);
    await node.restored();
  });

  withLogrotate(`row 11: the log is ${how} twice, and the server runs between`, async (t) => {
    const { node, log } = await logged(t, LAST_WORDS);
    await rotate(node, log, how);
    appendFileSync(log, FIRST_WORDS);
    await rotate(node, log, how);
    t.regex(await node.refused(4, STALE), /aerospike\.log has changed since/);
  });
}

testAsRootWith('mkfs.ext4')('row 12: storage files whose old header a power cut brings back', async (t) => {
  const node = await Node.start(t, 0);
  const { machine } = node;
  const [image, after] = [machine.path('fs.img'), machine.path('fs-after.img')];
  const place = machine.path('fs');
  mkdirSync(place);
  // The file system belongs to the machine, so everything is done from within.
  const shell = async (script: string) => {
    const done = await machine.exec('sh', ['-ec', script]);
    t.is(done.status, 0, show(done));
    return done.stdout;
  };
  for (const state of ['stopped', 'running'] as const) writeFileSync(machine.path(`${state}.head`), header(state));
  const put = (state: State) =>
    `for n in 0 1; do dd status=none conv=notrunc if=${machine.path(`${state}.head`)} of=${place}/$n.dat; done`;
  await shell(`truncate -s 32M ${image}; mkfs.ext4 -q ${image}`);
  await machine.mount(image, place, '-o', 'loop');
  await shell(`truncate -s 1M ${place}/0.dat ${place}/1.dat; ${put('stopped')}; sync -f ${place}`);
  node.configure({ test: [`file ${place}/0.dat`, `file ${place}/1.dat`] });
  await node.backup();
  await machine.reboot();
  t.regex((await node.restored()).join('\n'), /not-proven: .*its storage is a file, whose header a power failure can set back/);
  // The server runs, and writes its headers as it does, without a sync. Then the power is cut.
  await shell(`${put('running')}; cp ${image} ${after}`);
  await shell(`umount ${place}`);
  await machine.mount(after, place, '-o', 'loop');
  t.deepEqual(
    await machine.exec('cmp', ['-n', '4096', machine.path('stopped.head'), `${place}/0.dat`]).then(({ status }) => status),
    0,
  );
  await machine.reboot();
  await node.refused(4, USED);
  await shell(`umount ${place}`);
});

testAsRoot('row 13: one disk under two block devices, and an old header in the cache of one', async (t) => {
  const node = await Node.start(t, 0);
  const { machine } = node;
  const image = machine.path('disk.img');
  writeFileSync(image, Buffer.concat([header('stopped', { devices: 1 }), Buffer.alloc(1 << 20)]));
  const attach = async () => {
    const done = await machine.exec('losetup', ['--find', '--show', '--direct-io=on', image]);
    t.is(done.status, 0, show(done));
    const path = done.stdout.trim();
    t.teardown(() => machine.exec('losetup', ['--detach', path]));
    return path;
  };
  const [servers, ours] = [await attach(), await attach()];
  node.configure({ test: [`device ${ours}`] });
  // Another process has it open, as multipath does, and mapped, so that its cache stays.
  const map = 'import mmap,sys; f = open(sys.argv[1], "rb"); m = mmap.mmap(f.fileno(), 4096, prot=mmap.PROT_READ); m[0]';
  await machine.start('python3', ['-c', `${map}; print("ready", flush=True); sys.stdin.read()`, ours], 'ready');
  await node.backup();
  const cached = () => {
    const file = openSync(ours, 'r');
    const bytes = Buffer.alloc(4096);
    readSync(file, bytes, 0, bytes.length, 0);
    closeSync(file);
    return bytes;
  };
  t.deepEqual(cached(), header('stopped', { devices: 1 }));
  await machine.reboot();
  await node.restored();
  await machine.reboot();
  write(servers, header('stopped again', { devices: 1 }));
  t.deepEqual(cached(), header('stopped', { devices: 1 }), 'its cache is as old as it must be for this test');
  await node.refused(4, STALE);
});

/** The faults of a set of disks, and the message of a backup about each. */
const TORN_SETS: Record<string, { change: (node: Node) => void; code: string }> = {
  'one device of a set of two': { change: (node) => node.disks.pop(), code: 'device-set-torn' },
  'devices of two sets': {
    change: ({ disks }) => disks[1]?.write('stopped again'),
    code: 'device-set-torn',
  },
  'a device of another namespace': {
    change: ({ disks }) => disks[1]?.write('stopped', { name: 'other' }),
    code: 'device-set-torn',
  },
  'a device that is not blank and has no known header': {
    change: ({ disks }) => write(disks[1]?.device ?? '', Buffer.from('not a server of Aerospike’s')),
    code: 'device-set-torn',
  },
  'a device of version 5': { change: ({ disks }) => disks[1]?.write('stopped', { version: 5 }), code: 'device-set-torn' },
  'a device that is not trusted': { change: ({ disks }) => disks[1]?.write('running'), code: 'device-not-trusted' },
};

for (const [what, { change, code }] of Object.entries(TORN_SETS)) {
  testAsRoot(`row 14: a backup is refused: ${what}`, async (t) => {
    const node = await Node.start(t, 2);
    const all = [...node.disks];
    change(node);
    const paths = node.disks.map((disk) => disk.path);
    node.configure({ test: paths.map((path) => `device ${path}`) });
    for (const args of [[], ['-a'], ['--config', node.machine.config]]) await node.backupRefused(code, ...args);
    rmSync(node.machine.config);
    await node.backupRefused(code, '--device', paths.join(','));
    // With the right headers, it is accepted.
    for (const disk of all) disk.write('stopped');
    await node.backup('--device', all.map((disk) => disk.path).join(','));
  });
}

/**
 * The faults of the stripes of a namespace, as changes to the bytes of the third one; null removes
 * it.
 */
const TORN_STRIPES: Record<string, ((stripe: Buffer) => void) | null> = {
  'a stripe is missing': null,
  'stripes of two sets': (stripe) => stripe.fill(0x5a, 48, 56),
  'a stripe is not trusted': (stripe) => stripe.fill(0, 56, 57),
};

for (const [what, change] of Object.entries(TORN_STRIPES)) {
  for (const index of [[], ['--no-index']]) {
    const title = `${what}${index.length > 0 ? ', with no index' : ''}`;
    test(`row 15: in memory: ${title}`, async (t) => {
      const node = new Node(t, await Machine.start(t));
      node.configure({ test: [] });
      await node.make('--stripes', '3', ...index);
      if (change === null) {
        await node.machine.sim('remove', '--key', 'ad001002');
      } else {
        const bytes = header('stopped', { devices: 3 });
        const hex = await node.machine.sim('peek', '--key', 'ad001002', '--offset', '0', '--length', '60');
        Buffer.from(hex.trim(), 'hex').copy(bytes);
        change(bytes);
        await node.machine.sim('poke', '--key', 'ad001002', '--offset', '0', '--hex', bytes.toString('hex', 0, 60));
      }
      const done = await node.machine.expect(3, ['backup', node.directory]);
      t.true(done.stderr.includes('stripe'), show(done));
      t.false(existsSync(node.directory));
    });
  }

  for (const place of ['our backup', "a backup of ASMT's"] as const) {
    test(`row 15: in ${place}: ${what}`, async (t) => {
      const node = new Node(t, await Machine.start(t));
      const { machine } = node;
      const isOurs = place === 'our backup';
      let { directory } = node;
      let file = 'ad001002.dat';
      if (isOurs) {
        await node.make('--stripes', '3');
        await node.backup();
        await machine.sim('remove');
      } else {
        [directory, file] = [machine.golden('raw-data-only').directory, 'ad007002.dat'];
      }
      const path = `${directory}/${file}`;
      if (change === null) {
        rmSync(path);
      } else {
        const bytes = readFileSync(path);
        change(bytes);
        writeFileSync(path, bytes);
      }
      const done = await machine.asmt(['restore', directory]);
      t.true(done.status === 3 || done.status === 5, show(done));
      t.is(await machine.memory(), '');
      await machine.expect(done.status ?? 0, ['verify', directory]);
    });
  }
}

test('row 15: in our backup, with checksums that are right: stripes of two sets', async (t) => {
  const node = new Node(t, await Machine.start(t));
  const { machine, directory } = node;
  // Two backups of one node, of two sets of stripes; one of them gets a stripe of the other, and
  // its line of the manifest.
  const lines: string[][] = [];
  for (const [seed, place] of [
    ['1', directory],
    ['2', machine.path('other')],
  ] as const) {
    await node.make('--stripes', '3', '--seed', seed);
    await machine.expect(0, ['backup', place]);
    await machine.sim('remove');
    lines.push(manifestLines(place));
  }
  const isThird = (line: string) => line.includes('"ad001002"') && !line.includes('"segment_count"');
  const [ours = [], others = []] = lines;
  const third = others.find(isThird);
  t.not(third, undefined);
  sealManifest(
    directory,
    ours.map((line) => (isThird(line) ? (third ?? '') : line)),
  );
  copyFileSync(machine.path('other', 'ad001002.dat'), `${directory}/ad001002.dat`);
  const done = await machine.asmt(['restore', directory]);
  t.true(done.status === 3 || done.status === 5, show(done));
  t.regex(done.stderr, /stripe/);
  t.is(await machine.memory(), '');
});

testAsRoot('row 16: the names of two disks of a set are swapped by the reboot', async (t) => {
  const node = await Node.start(t, 2);
  await node.backup();
  await node.machine.reboot();
  const [first, second] = node.disks.map((disk) => disk.path);
  for (const disk of node.disks) await disk.takeOut();
  await node.disks[0]?.putIn(second);
  await node.disks[1]?.putIn(first);
  t.deepEqual(await node.restored(), []);
});

testAsRoot('row 16: the reboot gives a disk a name that is new', async (t) => {
  const node = await Node.start(t, 2);
  const { machine } = node;
  for (const { device } of node.disks) await machine.serial(device, `serial of ${device}`);
  await node.backup();
  await machine.reboot();
  const [first = '', second = ''] = node.disks.map((disk) => disk.path);
  rmSync(first);
  symlinkSync(node.disks[0]?.device ?? '', machine.path('new-name'));
  for (const paths of [
    [machine.path('new-name'), second],
    // The disk itself shows it, if the configuration is still the old one.
    [first, second],
  ]) {
    node.configure({ test: paths.map((path) => `device ${path}`) });
    t.deepEqual(await node.restored(), []);
    await machine.sim('remove');
  }
});

testAsRoot('row 16: the names of disks of two namespaces are swapped, and the configuration follows', async (t) => {
  const node = await Node.start(t, 1);
  const { machine } = node;
  const other = await node.addDisk('other0', { name: 'other', devices: 1, random: '0123456789abcdef' });
  const [own = ''] = node.disks.map((disk) => disk.path);
  node.configure({ test: [`device ${own}`], other: [`device ${other.path}`] });
  await node.make('--name', 'other', '--nsid', '2');
  await node.backup();
  await machine.reboot();
  for (const disk of node.disks) await disk.takeOut();
  await node.disks[0]?.putIn(other.path);
  await other.putIn(own);
  node.configure({ other: [`device ${own}`], test: [`device ${other.path}`] });
  t.deepEqual(await node.restored(), []);
  await machine.reboot();
  other.write('running');
  await node.refused(4, STALE);
});

testAsRoot('row 17: a disk is replaced by a blank one', async (t) => {
  const node = await Node.start(t, 2);
  const { machine } = node;
  await node.backup();
  await machine.reboot();
  const path = node.disks[1]?.path ?? '';
  await node.disks[1]?.takeOut();
  const spare = await Disk.make(t, machine, 'spare');
  spare.write('blank');
  symlinkSync(spare.device, path);
  const message = await node.refused(4, STALE);
  t.regex(message, /disk1 is blank: it was replaced or wiped since the backup of/);
  t.notRegex(message, /has run since/);
});

testAsRoot('row 18: the backup of one node on another one with the same machine id', async (t) => {
  const node = await Node.start(t, 0);
  const { machine } = node;
  await machine.exec('hostname', ['node-a']);
  await node.backup();
  await machine.reboot();
  await machine.exec('hostname', ['node-b']);
  t.regex(await node.refused(4, 'backup-foreign-host'), /the backup was made on host 'node-a'.*; this host is 'node-b'/);
});

const NEW_NAMES = { 'another host name': [true, false], 'another machine id': [false, true], both: [true, true] } as const;

for (const [what, [hasNewName, hasNewId]] of Object.entries(NEW_NAMES)) {
  const row = what === 'another host name' ? 'rows 18 and 19' : 'row 19';
  testAsRoot(`${row}: ${what}, and the same disks: restored, with a remark`, async (t) => {
    const node = await Node.start(t, 2);
    const { machine } = node;
    await machine.exec('hostname', ['node-a']);
    await node.backup();
    await machine.reboot();
    if (hasNewName) await machine.exec('hostname', ['node-b']);
    if (hasNewId) writeFileSync(machine.path('etc', 'machine-id'), `${'0123456789abcdef'.repeat(2)}\n`);
    const remarks = await node.restored();
    t.is(remarks.length, 1);
    t.regex(remarks[0] ?? '', /^other-host: the backup was made on host 'node-a'/);
    await machine.reboot();
    node.write('running');
    await node.refused(4, STALE);
  });
}

/** Logs that a configuration can name and that not only the server writes to. */
const NO_LOGS: Record<string, (machine: Machine) => Promise<string> | string> = {
  '/dev/stdout': () => '/dev/stdout',
  '/dev/null': () => '/dev/null',
  'a link to /dev/stdout': (machine) => {
    symlinkSync('/dev/stdout', machine.path('log'));
    return machine.path('log');
  },
  'a pipe': async (machine) => {
    await machine.exec('mkfifo', [machine.path('log')]);
    return machine.path('log');
  },
};

for (const [what, make] of Object.entries(NO_LOGS)) {
  testAsRoot(`row 20: a log that is ${what} is no witness`, async (t) => {
    const node = await Node.start(t, 0);
    const { machine, directory } = node;
    node.configure({ test: [] }, { logs: [await make(machine)] });
    await node.backup();
    await machine.reboot();
    const out = machine.path('out');
    writeFileSync(out, 'restoring\n');
    const asmt = [process.execPath, MAIN, 'restore', directory];
    const onTerminal = 'import os,pty,sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))';
    for (const [program, ...words] of [
      ['sh', '-c', `exec "$@" >> ${out} 2>&1`, 'sh', ...asmt],
      ['sh', '-c', `"$@" | cat`, 'sh', ...asmt],
      ['python3', '-c', onTerminal, ...asmt],
    ]) {
      const done = await machine.exec(program ?? '', words);
      t.is(done.status, 0, show(done));
      t.is(await machine.memory(), node.before);
      await machine.sim('remove');
    }
  });
}

testAsRoot("row 20: a log that is this program's own output is no witness", async (t) => {
  const node = await Node.start(t, 0);
  const { machine, directory } = node;
  const log = machine.path('aerospike.log');
  writeFileSync(log, 'the last line of a clean stop\n');
  node.configure({ test: [] }, { logs: [log] });
  const append = (...args: string[]) =>
    machine.exec('sh', ['-c', `echo beginning; exec "$@" >> ${log} 2>&1`, 'sh', process.execPath, MAIN, ...args]);
  const backup = await append('backup', '-v', directory);
  t.is(backup.status, 0, show(backup));
  await machine.reboot();
  for (let time = 0; time < 2; time += 1) {
    const done = await append('restore', '-v', directory);
    t.is(done.status, 0, show(done));
    t.is(await machine.memory(), node.before);
    await machine.sim('remove');
  }
});

/** Milliseconds since the boot of the machine that runs the tests. */
const monotonicMs = (): number => Number(process.hrtime.bigint() / 1_000_000n);

/** The time of the server's start in the journal, and whether it is a sign. */
const STARTS: Record<string, { at: (boots: Boots) => Omit<Entry, 'fields'>; isSign: boolean }> = {
  'in the boot of the backup, before it': { at: ({ first }) => ({ bootId: first, monotonicMs: 1000 }), isSign: false },
  'in the boot of the backup, after it': {
    at: ({ first }) => ({ bootId: first, monotonicMs: monotonicMs() + 60_000 }),
    isSign: true,
  },
  'in this boot': { at: ({ now }) => ({ bootId: now, monotonicMs: 1000 }), isSign: true },
};

interface Boots {
  readonly first: string;
  readonly now: string;
}

for (const [when, { at, isSign }] of Object.entries(STARTS)) {
  testWithJournal(`row 21: the journal knows of a start ${when}: ${isSign ? 'stale' : 'no sign'}`, async (t) => {
    const node = await Node.start(t, 0);
    const { machine } = node;
    const first = await machine.reboot();
    await node.make();
    await node.backup();
    const now = await machine.reboot();
    const boots = { first, now };
    const start = { ...at(boots), fields: SERVER_STARTED };
    const plain = [
      { bootId: first, monotonicMs: 1 },
      { bootId: now, monotonicMs: 1 },
    ];
    await writeJournal(
      machine,
      plain.flatMap((entry) => (entry.bootId === start.bootId ? [entry, start] : [entry])),
    );
    if (isSign) t.regex(await node.refused(4, STALE), /the journal shows a start of aerospike\.service/);
    else await node.restored();
  });
}

testWithJournal('row 21: the journal knows of a start in a boot between', async (t) => {
  const node = await Node.start(t, 0);
  const { machine } = node;
  const first = await machine.reboot();
  await node.make();
  await node.backup();
  const between = await machine.reboot();
  const now = await machine.reboot();
  // It may begin later than the backup.
  for (const oldest of [[{ bootId: first, monotonicMs: 1 }], []]) {
    await writeJournal(machine, [
      ...oldest,
      { bootId: between, monotonicMs: 1 },
      { bootId: between, monotonicMs: 2000, fields: SERVER_STARTED },
      { bootId: now, monotonicMs: 1 },
    ]);
    t.regex(await node.refused(4, STALE), /the journal shows a start of aerospike\.service in an earlier boot/);
  }
});

testWithSystemd('row 21: systemd knows of a start in this boot, and its journal of one in an earlier boot', async (t) => {
  t.timeout(300_000);
  const node = await Node.start(t, 0);
  const { machine, directory } = node;
  writeServerUnit(machine, '/bin/sleep infinity');
  let systemd = await Systemd.boot(t, machine);
  const serve = async () => {
    await systemd.run('systemctl', 'start', 'with-server.target');
    await systemd.run('systemctl', 'stop', 'aerospike.service');
  };
  // The server that was backed up ran in this boot, too.
  await serve();
  await node.backup();
  const reboot = async () => {
    await systemd.end();
    await machine.reboot();
    systemd = await Systemd.boot(t, machine);
  };
  await reboot();
  await node.restored();
  await serve();
  await machine.sim('remove');
  t.regex(await node.refused(4, STALE), /systemd shows a start of aerospike\.service in this boot/);
  // Without the marks, only the journal knows.
  await reboot();
  rmSync(`${directory}/asmt-used-0-test.json`);
  t.regex(await node.refused(4, STALE), /the journal shows a start of aerospike\.service in an earlier boot/);
});

testWithSystemd('row 4: systemd knows that the server failed as soon as it was started: restored again', async (t) => {
  t.timeout(300_000);
  const node = await Node.start(t, 0);
  const { machine } = node;
  await node.backup();
  await machine.reboot();
  writeServerUnit(machine, '/bin/false');
  const systemd = await Systemd.boot(t, machine);
  await node.restored();
  await systemd.run('systemctl', 'start', 'aerospike.service');
  await until('a failed unit', async () => (await machine.exec('systemctl', ['is-failed', 'aerospike.service'])).status === 0);
  await machine.sim('remove');
  await node.restored();
});

testWithJournal('row 22: nothing knows of a start, and the journal knows of two boots', async (t) => {
  const node = await Node.start(t, 0);
  const { machine } = node;
  const first = await machine.reboot();
  await node.make();
  await node.backup();
  const ids = [first, await machine.reboot()];
  const written = () =>
    writeJournal(
      machine,
      ids.map((bootId) => ({ bootId, monotonicMs: 1 })),
    );
  await written();
  await node.restored();
  rmSync(`${node.directory}/asmt-used-0-test.json`);
  ids.push(await machine.reboot());
  await written();
  t.regex(await node.refused(4, 'cannot-be-told'), /booted 2 times since the backup of .* \(the journal\).* cannot determine/);
});

testAsRootWith('utmpdump')('row 22: nothing knows of a start, and the login records know of two boots', async (t) => {
  const node = await Node.start(t, 0);
  const { machine } = node;
  await node.backup();
  const now = Date.now();
  // Those before the backup do not count.
  const boots = [now - 7_200_000, now - 3_600_000, now + 2000];
  await machine.reboot();
  await writeLoginRecords(machine, boots);
  await node.restored();
  rmSync(`${node.directory}/asmt-used-0-test.json`);
  await machine.reboot();
  await writeLoginRecords(machine, [...boots, now + 4000]);
  t.regex(await node.refused(4, 'cannot-be-told'), /booted 2 times since .* \(the login records\).* cannot determine/);
});

const BAD_CONFIGURATIONS: Record<string, string | Buffer> = {
  YAML: 'namespaces:\n  - name: test\n    storage-engine:\n      type: memory\n',
  'a template': 'namespace ${NAMESPACE} {\n  storage-engine memory {\n  }\n}\n',
  'another template': 'namespace {{ name }} {\n  storage-engine memory {\n  }\n}\n',
  empty: '',
  'nothing but comments': '# namespace test {\n# }\n',
  binary: Buffer.from([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, 0, 0, 0, 0, 0, 10, 0, 255]),
  'not closed': 'namespace test {\n  storage-engine memory {\n  }\n',
  'closed too often': 'namespace test {\n  storage-engine memory {\n  }\n}\n}\n',
  'one whose brace is no word of its own': 'namespace test {\n  storage-engine device{\n    device /dev/sda\n  }\n}\n',
  'one with a brace on a line of its own': 'namespace test\n{\n  storage-engine memory {\n  }\n}\n',
  'one with a closing brace behind a value': 'namespace test {\n  storage-engine memory {\n    data-size 1G }\n}\n',
  'one with three values on a device line':
    'namespace test {\n  storage-engine device {\n    device /dev/sda /dev/sdb /dev/sdc\n  }\n}\n',
};

for (const [what, text] of Object.entries(BAD_CONFIGURATIONS)) {
  test(`row 23: a configuration that is ${what} is refused`, async (t) => {
    const node = new Node(t, await Machine.start(t));
    const { machine } = node;
    await node.make();
    writeFileSync(machine.config, text);
    const bad = 'config-unreadable';
    await node.backupRefused(bad);
    await node.backupRefused(bad, '--config', machine.config);
    rmSync(machine.config);
    await node.backup();
    await machine.sim('remove');
    writeFileSync(machine.config, text);
    t.regex(await node.refused(3, bad), /cannot be (parsed|read)/);
    await node.refused(3, bad, ['--config', machine.config]);
    t.is((await machine.expect(1, ['-r', '-p', node.directory])).stdout, '');
    rmSync(machine.config);
    await node.restored();
  });
}

testAsRoot('row 24: a namespace in memory alone is stale: the hint says what is lost either way', async (t) => {
  const node = await Node.start(t, 0);
  const { machine } = node;
  await machine.sim('remove');
  const log = machine.path('aerospike.log');
  node.configure({ test: [] }, { logs: [log] });
  await node.make('--stripes', '8');
  await node.backup();
  await machine.reboot();
  writeFileSync(log, 'a start\n');
  const hint = /'test' is in memory only: without a restore, the server starts empty.*--force-stale \S+ brings back .* is lost/s;
  t.regex(await node.refused(4, STALE), hint);
  // The same by its mark, and if no configuration names it.
  rmSync(log);
  await node.restored();
  await machine.reboot();
  t.regex(await node.refused(4, USED), hint);
  rmSync(machine.config);
  t.regex(await node.refused(4, USED), hint);
});

testAsRoot('row 25: two instances with a namespace of one name: each is judged by its own', async (t) => {
  const node = await Node.start(t, 1);
  const { machine, directory } = node;
  const second = await Disk.make(t, machine, 'second', { devices: 1, random: '0123456789abcdef' });
  const config = machine.path('second.conf');
  writeFileSync(config, configuration({ test: [`device ${second.path}`] }));
  const of3 = ['-i', '3', '--config', config];
  await machine.sim('make', '--instance', '3', '--stage-size', '64KiB', '--seed', '3');
  await machine.expect(0, ['backup', directory]);
  await machine.expect(0, ['backup', ...of3, directory]);
  await machine.reboot();
  node.disks[0]?.write('running');
  await node.refused(4, STALE);
  await machine.expect(0, ['restore', ...of3, directory]);
  t.true((await machine.memory()).startsWith('ae301000'));
  await machine.reboot();
  node.disks[0]?.write('stopped');
  second.write('running');
  await node.refused(4, STALE, of3);
  await machine.expect(0, ['restore', directory]);
  await machine.reboot();
  // And by its own mark.
  await machine.expect(0, ['retire', '-i', '3', directory]);
  second.write('stopped');
  await node.refused(4, 'backup-retired', of3);
  await machine.expect(0, ['restore', directory]);
});
