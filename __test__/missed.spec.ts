/**
 * Witnesses that were once missed: a server has run, something on the machine shows it, and a
 * restore was done all the same; and backups that are exactly current and were refused.
 */

import { appendFileSync, copyFileSync, renameSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';

import type { ExecutionContext } from 'ava';

import { Machine, show, testAsRoot } from './helpers.ts';
import { Disk, header } from './server.ts';

const SMALL = ['--treex-size', '64KiB', '--base-size', '64KiB'] as const;
const STAGE = ['--stage-size', '64KiB'] as const;
const STRIPES = ['--stripes', '2', '--stripe-size', '64KiB'] as const;
const ON_DISK = ['storage-engine device {'] as const;
const IN_MEMORY = ['storage-engine memory {', 'data-size 1G'] as const;

class Host {
  readonly machine: Machine;
  readonly t: ExecutionContext;

  constructor(t: ExecutionContext, machine: Machine) {
    this.t = t;
    this.machine = machine;
  }

  static async start(t: ExecutionContext): Promise<Host> {
    return new Host(t, await Machine.startHost(t));
  }

  get directory(): string {
    return this.machine.path('b');
  }

  /** Writes the configuration: lines of storage for each namespace. */
  configure(namespaces: Readonly<Record<string, readonly string[]>>, log?: string, path = this.machine.config): void {
    const logging = log === undefined ? 'console {' : `file ${log} {`;
    const texts = Object.entries(namespaces).map(([name, lines]) => `namespace ${name} {\n${lines.join('\n')}\n}\n}\n`);
    const service = `service {\nwork-directory ${this.machine.path('work')}\n}\n`;
    writeFileSync(path, `${service}logging {\n${logging}\ncontext any info\n}\n}\n${texts.join('')}`);
  }

  make(...options: string[]): Promise<string> {
    return this.machine.sim('make', ...STAGE, ...SMALL, ...options);
  }

  /** The server of a node starts, makes missing segments with stripes, and is stopped cleanly. */
  async serve(...options: string[]): Promise<void> {
    await this.machine.sim('start', ...STAGE, ...STRIPES, ...options);
    await this.machine.sim('stop', ...SMALL, ...options);
  }

  disk(name: string, namespace: string, devices = 1): Promise<Disk> {
    return Disk.make(this.t, this.machine, name, { name: namespace, devices });
  }

  /** Runs a restore, which must end with `status` and print a matching text. */
  async restore(status: number, says: RegExp, ...args: string[]): Promise<void> {
    const done = await this.machine.expect(status, ['restore', ...args, this.directory]);
    this.t.regex(done.stderr, says, show(done));
  }

  async backup(...args: string[]): Promise<void> {
    await this.machine.expect(0, ['backup', ...args, this.directory]);
  }
}

testAsRoot('stripes in memory and the device behind them are of two runs: neither backed up nor restored', async (t) => {
  const host = await Host.start(t);
  const disk = await host.disk('shadow', 'test', 2);
  host.configure({ test: [...IN_MEMORY, `device ${disk.path}`] });
  await host.serve('--shadows', disk.device);
  const container = await host.machine.container();
  await container.sim('start', ...STAGE, ...STRIPES, '--shadows', disk.device);
  await container.sim('stop', ...SMALL, '--shadows', disk.device);
  const { error } = await host.machine.json(3, ['backup', host.directory]);
  t.is(error?.code, 'device-set-torn');
  t.regex(error?.message ?? '', /the server has run on that device without these segments/);
});

testAsRoot('a device that is configured at the restore alone tells by the random of the stripes', async (t) => {
  const host = await Host.start(t);
  const disk = await host.disk('shadow', 'test', 2);
  await host.serve('--shadows', disk.device);
  await host.backup();
  host.configure({ test: [...IN_MEMORY, `device ${disk.path}`] });
  await host.machine.reboot();
  await host.restore(0, /no proof/);
  await host.machine.sim('remove');
  disk.write('stopped again');
  await host.restore(4, /which belongs to another set: the server has run since/);
});

testAsRoot('a copy of the noted disk does not make up for the disk itself', async (t) => {
  const host = await Host.start(t);
  const [disk, copy] = [await host.disk('disk', 'test'), await host.disk('copy', 'test')];
  host.configure({ test: [...ON_DISK, `device ${disk.path}`] });
  await host.make();
  await host.backup();
  await host.machine.reboot();
  disk.write('stopped again');
  await host.restore(4, /the server has run since/);
  await host.restore(4, /the server has run since/, '--require-proof', '--device', copy.path);
  host.configure({ test: [...ON_DISK, `device ${disk.path}`], zz: [...ON_DISK, `device ${copy.path}`] });
  await host.restore(4, /the server has run since/);
});

testAsRoot('two disks that share an id do not count for one another', async (t) => {
  const host = await Host.start(t);
  const { machine } = host;
  const image = machine.path('image');
  writeFileSync(image, '');
  truncateSync(image, 4 << 20);
  const loops: string[] = [];
  for (const offset of ['0', '2097152']) {
    const words = ['--find', '--show', '--offset', offset, '--sizelimit', '1048576', image];
    const done = await machine.exec('losetup', words);
    t.is(done.status, 0, show(done));
    const loop = done.stdout.trim();
    t.teardown(() => machine.exec('losetup', ['--detach', loop]));
    loops.push(loop);
  }
  const [first = '', second = ''] = loops;
  for (const loop of loops) await machine.serial(loop, 'the same for both');
  const put = async (device: string, bytes: Buffer) => {
    writeFileSync(machine.path('head'), bytes);
    const done = await machine.exec('dd', [
      `if=${machine.path('head')}`,
      `of=${device}`,
      'bs=4096',
      'oflag=direct',
      'conv=notrunc',
    ]);
    t.is(done.status, 0, show(done));
  };
  const whole = header('stopped', { name: 'test', devices: 2 });
  for (const loop of loops) await put(loop, whole);
  const [one, two] = [machine.path('n1'), machine.path('n2')];
  symlinkSync(first, one);
  symlinkSync(second, two);
  host.configure({ test: [...ON_DISK, `device ${one}`, `device ${two}`] });
  await host.make();
  await host.backup();
  await machine.reboot();
  await put(second, Buffer.alloc(4096));
  await host.restore(4, /n2 is blank: it was replaced or wiped/);
  await put(second, header('stopped again', { name: 'test', devices: 2 }));
  await host.restore(4, /n2 has random .*: the server has run since/);
  rmSync(two);
  await host.restore(3, /n2 cannot be checked/);
  symlinkSync(second, two);
  await put(second, whole);
  await machine.expect(0, ['restore', '--require-proof', host.directory]);
});

testAsRoot('a loop device of another container whose file has the same path is another disk', async (t) => {
  const image = '/var/log/disk.img';
  const attach = async (machine: Machine, state: 'stopped' | 'stopped again') => {
    const bytes = Buffer.concat([header(state, { name: 'test', devices: 1 }), Buffer.alloc(1 << 20)]);
    writeFileSync(machine.path('var_log', 'disk.img'), bytes);
    const done = await machine.exec('losetup', ['--find', '--show', image]);
    t.is(done.status, 0, show(done));
    const loop = done.stdout.trim();
    t.teardown(() => machine.exec('losetup', ['--detach', loop]));
    return loop;
  };
  const host = await Host.start(t);
  const { machine } = host;
  const own = await attach(machine, 'stopped');
  const [name, other] = [machine.path('sdb'), machine.path('sdc')];
  symlinkSync(own, name);
  host.configure({ test: [...ON_DISK, `device ${name}`] });
  await host.make();
  await host.backup();
  await machine.reboot();
  const container = await Machine.startHost(t);
  const theirs = await attach(container, 'stopped again');
  t.not(theirs, own);
  const shown = await container.exec('cat', [`/sys/class/block/${basename(theirs)}/loop/backing_file`]);
  t.is(shown.stdout, `${image}\n`);
  renameSync(name, other);
  await host.restore(3, /sdb cannot be checked .*: it does not exist/);
  host.configure({ test: [...ON_DISK, `device ${other}`] });
  await machine.expect(0, ['restore', '--require-proof', host.directory]);
});

testAsRoot('a storage file that has moved on is remembered, for a power cut can bring its old header back', async (t) => {
  const host = await Host.start(t);
  const file = host.machine.path('test.dat');
  writeFileSync(file, header('stopped', { name: 'test', devices: 1 }));
  host.configure({ test: [...ON_DISK, `file ${file}`, 'filesize 1G'] });
  await host.make();
  await host.backup();
  copyFileSync(file, host.machine.path('old'));
  await host.machine.reboot();
  writeFileSync(file, header('stopped again', { name: 'test', devices: 1 }));
  await host.restore(4, /the server has run since/);
  copyFileSync(host.machine.path('old'), file);
  await host.restore(4, /it seems to have run since/);
});

testAsRoot('a backup of another namespace of a later boot speaks against an earlier one beside it', async (t) => {
  const host = await Host.start(t);
  host.configure({ a: IN_MEMORY, b: IN_MEMORY });
  const make = async (seed: string) => {
    await host.make('--name', 'a', ...STRIPES, '--seed', seed);
    await host.make('--name', 'b', '--nsid', '2', ...STRIPES, '--seed', `${seed}1`);
  };
  await make('1');
  await host.backup('-n', 'b');
  await host.machine.reboot();
  await make('5');
  await host.backup('-n', 'a');
  await host.machine.reboot();
  await host.restore(4, /'b': the directory has a backup of namespace 'a' from a later boot/);
  await host.machine.expect(0, ['restore', '-n', 'a', host.directory]);
});

testAsRoot("a server's segments of one namespace refuse the restore of another one beside them", async (t) => {
  const host = await Host.start(t);
  host.configure({ a: IN_MEMORY, b: IN_MEMORY });
  await host.make('--name', 'a');
  await host.make('--name', 'b', '--nsid', '2');
  await host.backup();
  await host.machine.reboot();
  await host.make('--name', 'a', '--seed', '8');
  // Segments that are in the way are not named for removal.
  const { stderr } = await host.machine.expect(3, ['restore', '-n', 'a', '-a', host.directory]);
  t.regex(stderr, /HINT: the server has created or used them since/);
  t.notRegex(stderr, /ipcrm/);
  await host.restore(4, /'b': segment .* in memory was created after the backup, but not by a known restore/, '-n', 'b');
});

testAsRoot('a restore of another instance or namespace, or one that made nothing, made no segments here', async (t) => {
  for (const before of ['another instance', 'another namespace', 'refused', 'killed in its stop']) {
    const host = await Host.start(t);
    host.configure({ test: IN_MEMORY, other: IN_MEMORY });
    await host.make();
    await host.make('--name', 'other', '--nsid', '2');
    await host.make('--instance', '1');
    await host.backup();
    await host.backup('-i', '1');
    await host.machine.reboot();
    const words = ['restore', '-n', 'test', host.directory];
    if (before === 'another instance') await host.machine.expect(0, ['restore', '-i', '1', host.directory]);
    if (before === 'another namespace') await host.machine.expect(0, ['restore', '-n', 'other', host.directory]);
    if (before === 'refused') {
      renameSync(`${host.directory}/ae001100.dat`, host.machine.path('away'));
      await host.machine.expect(5, words);
      renameSync(host.machine.path('away'), `${host.directory}/ae001100.dat`);
    }
    await host.machine.sim('start', ...STAGE);
    await host.machine.sim('stop', ...SMALL);
    if (before === 'killed in its stop') await host.machine.sim('remove', '--key', 'ae001000');
    await host.machine.expect(3, words);
    await host.machine.sim('remove', '--instance', '0');
    const done = await host.machine.expect(4, words);
    t.regex(done.stderr, /it seems to have run since/, `${before}: ${show(done)}`);
  }
});

testAsRoot('disks of other namespaces that were blank or not trusted are witnesses, too', async (t) => {
  for (const state of ['blank', 'running'] as const) {
    const host = await Host.start(t);
    const disk = await host.disk('disk', 'c');
    disk.write(state);
    host.configure({ b: IN_MEMORY, c: [...ON_DISK, `device ${disk.path}`] });
    await host.make('--name', 'b');
    await host.backup();
    await host.machine.reboot();
    disk.write('stopped again');
    await host.restore(4, /'c': .* the server has run since/);
  }
});

testAsRoot('devices that an earlier backup in the directory has noted are noted by one without a configuration', async (t) => {
  const host = await Host.start(t);
  const disk = await host.disk('disk', 'a');
  host.configure({ a: [...ON_DISK, `device ${disk.path}`], b: IN_MEMORY });
  await host.make('--name', 'a');
  await host.make('--name', 'b', '--nsid', '2');
  await host.backup('-n', 'a');
  rmSync(host.machine.config);
  await host.backup('-n', 'b');
  await host.machine.reboot();
  disk.write('stopped again');
  await host.restore(4, /'a': .* the server has run since/, '-n', 'b');
});

testAsRoot('a log that is configured at the restore alone tells by its times', async (t) => {
  const host = await Host.start(t);
  const log = host.machine.path('aerospike.log');
  writeFileSync(log, 'a\nfinished clean shutdown\n');
  await host.make();
  await host.backup();
  await host.machine.reboot();
  host.configure({ test: IN_MEMORY }, log);
  await host.machine.expect(0, ['restore', '-a', host.directory]);
  // As if it was written later, because a test does not wait.
  appendFileSync(log, 'starting\n');
  const later = await host.machine.exec('touch', ['-d', '+1 minute', log]);
  t.is(later.status, 0, show(later));
  await host.restore(4, /was written at .*, after the backup/);
});

testAsRoot('segments of which a start has burnt base and treex may be removed and restored', async (t) => {
  const host = await Host.start(t);
  host.configure({ test: IN_MEMORY });
  await host.make(...STRIPES);
  const before = await host.machine.memory();
  await host.backup();
  for (const key of ['ae001000', 'ae001001']) await host.machine.sim('remove', '--key', key);
  const refused = await host.machine.expect(3, ['restore', host.directory]);
  const ids = /ipcrm((?: -m \d+)+)/.exec(refused.stderr)?.[1]?.trim().split(' ') ?? [];
  t.true(ids.length > 0, show(refused));
  const removed = await host.machine.exec('ipcrm', ids);
  t.is(removed.status, 0, show(removed));
  await host.restore(0, /no proof/);
  t.is(await host.machine.memory(), before);
});

testAsRoot('a second copy of a backup that was tried by mistake stays good', async (t) => {
  const host = await Host.start(t);
  host.configure({ test: IN_MEMORY });
  await host.make(...STRIPES);
  await host.backup();
  const copied = await host.machine.exec('cp', ['-a', host.directory, host.machine.path('copy')]);
  t.is(copied.status, 0, show(copied));
  await host.machine.reboot();
  await host.restore(0, /no proof/);
  await host.machine.expect(7, ['restore', host.machine.path('copy')]);
  // A start that failed early has removed base.
  await host.machine.sim('remove', '--key', 'ae001000');
  await host.machine.expect(3, ['restore', host.machine.path('copy')]);
  await host.machine.sim('remove');
  await host.machine.expect(0, ['restore', host.machine.path('copy')]);
});

testAsRoot('a fresh backup beside an old one stays good when both are tried', async (t) => {
  const host = await Host.start(t);
  host.configure({ a: IN_MEMORY, b: IN_MEMORY });
  await host.make('--name', 'a', ...STRIPES);
  await host.backup('-n', 'a');
  await host.machine.reboot();
  await host.machine.expect(0, ['restore', host.directory]);
  await host.serve('--name', 'a');
  await host.serve('--name', 'b', '--nsid', '2');
  await host.backup('-n', 'b');
  await host.restore(4, /'a': the directory has a backup of namespace 'b' from a later boot/);
  await host.machine.reboot();
  await host.machine.expect(4, ['restore', host.directory]);
  await host.machine.expect(0, ['restore', '-n', 'b', host.directory]);
});

testAsRoot('what no restore would accept is refused when it is backed up: a broken mark, one disk twice', async (t) => {
  const host = await Host.start(t);
  const disk = await host.disk('disk', 'test', 2);
  symlinkSync(disk.device, host.machine.path('again'));
  host.configure({ test: [...ON_DISK, `device ${disk.path}`, `device ${host.machine.path('again')}`] });
  await host.make();
  const { error } = await host.machine.json(3, ['backup', host.directory]);
  t.is(error?.code, 'device-set-torn');
  t.regex(error?.message ?? '', /are the same device/);
  rmSync(host.machine.config);
  await host.backup();
  writeFileSync(`${host.directory}/asmt-used-0-test.json`, '{');
  for (const name of host.machine.names(host.directory).filter((found) => !found.startsWith('asmt-used')))
    rmSync(`${host.directory}/${name}`);
  const done = await host.machine.expect(3, ['backup', host.directory]);
  t.regex(done.stderr, /asmt-used-0-test.json cannot be read as a usage mark/, show(done));
});
