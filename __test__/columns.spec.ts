/**
 * Backups in columns: they come back exactly, anybody can read their files, ASMT takes none of
 * them, and an export makes one that ASMT takes.
 */

import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';

import test, { type ExecutionContext } from 'ava';

import { Machine, ROOT, show, testAsRoot, testIf, testTraced, until, type Run } from './helpers.ts';

const NAMES_OF_ASMT = /^[0-9a-f]{8}\.dat(\.gz)?$/i;
const MANIFEST = 'asmt-manifest-0-test.json';

/** A namespace that has everything, backed up in columns, and lost. */
async function backedUp(t: ExecutionContext, on?: Machine, ...options: string[]) {
  const machine = on ?? (await Machine.start(t));
  await machine.sim('make', '--stage-size', '6MiB', '--si-stages', '1', '--stripes', '3', '--data-nsid', '31', '--mode', '600');
  const before = await machine.memory();
  const directory = machine.path('columns');
  await machine.expect(0, ['backup', '-Z', ...options, directory]);
  await machine.sim('remove');
  return { machine, before, directory };
}

function segmentFiles(directory: string): string[] {
  return readdirSync(directory).filter((name) => /^[0-9a-f]{8}\.dat/i.test(name));
}

for (const options of [[], ['-c'], ['-t', '1'], ['-c', '-t', '1']]) {
  test(`a backup in columns comes back exactly: ${['-Z', ...options].join(' ')}`, async (t) => {
    const { machine, before, directory } = await backedUp(t, undefined, ...options);
    t.deepEqual(
      segmentFiles(directory).filter((name) => NAMES_OF_ASMT.test(name)),
      [],
      'ASMT takes none of its files',
    );
    await machine.expect(0, ['verify', directory]);
    await machine.expect(0, ['verify', '-c', directory]);
    t.is(await machine.memory(), '');
    await machine.expect(0, ['restore', '-c', directory]);
    t.is(await machine.memory(), before);
  });
}

test('the reader in docs/FORMAT.md makes each segment of its file', async (t) => {
  const { machine, directory } = await backedUp(t);
  const page = readFileSync(join(ROOT, 'docs', 'FORMAT.md'), 'utf8');
  const reader = /```python\n(.*?)```/s.exec(page)?.[1] ?? '';
  t.true(reader.trimEnd().split('\n').length <= 20, reader);
  writeFileSync(machine.path('reader.py'), reader);
  const plain = machine.path('plain');
  await machine.expect(0, ['export', directory, plain]);
  const inColumns = segmentFiles(directory).filter((name) => name.endsWith('.col'));
  t.true(inColumns.length >= 6, inColumns.join());
  for (const name of inColumns) {
    const file = join(directory, name);
    const out = machine.path('segment');
    const done = await machine.exec('sh', ['-c', `python3 "${machine.path('reader.py')}" "${file}" > "${out}"`]);
    t.is(done.status, 0, show(done));
    t.true(readFileSync(out).equals(readFileSync(join(plain, name.replace(/\.col$/, '')))), name);
    const tested = await machine.exec('sh', ['-c', `gzip -t < "${file}"`]);
    t.is(tested.status, 0, show(tested));
  }
});

test('damage to a file in columns is located, and nothing is restored', async (t) => {
  const { machine, directory } = await backedUp(t);
  const file = join(directory, 'ae001100.dat.col');
  const whole = readFileSync(file);
  const manifest = readFileSync(join(directory, MANIFEST), 'utf8');
  const line = manifest.split('\n').find((text) => text.includes('ae001100')) ?? '';
  const { chunks } = JSON.parse(line) as { chunks: [number, number, number][] };
  const [offset = 0, length = 0] = chunks[1] ?? [];
  const damaged = Buffer.from(whole);
  const at = offset + Math.floor(length / 3);
  damaged.writeUInt8(damaged.readUInt8(at) ^ 0x10, at);
  writeFileSync(file, damaged);
  for (const verb of ['verify', 'restore']) {
    const { error } = await machine.json(5, [verb, directory]);
    t.deepEqual([error?.code, error?.file, error?.offset], ['content-damaged', 'ae001100.dat.col', offset]);
    t.is(await machine.memory(), '');
  }
  const out = machine.path('out');
  t.is((await machine.json(5, ['export', directory, out])).error?.code, 'content-damaged');
  t.deepEqual(segmentFiles(out), []);
});

test('without its manifest, or beside another form, a file in columns is not taken', async (t) => {
  const { machine, before, directory } = await backedUp(t);
  const plain = machine.path('plain');
  await machine.expect(0, ['export', directory, plain]);
  const manifest = readFileSync(join(directory, MANIFEST));
  unlinkSync(join(directory, MANIFEST));
  for (const verb of ['verify', 'restore']) {
    t.is((await machine.json(5, [verb, directory])).error?.code, 'backup-incomplete');
  }
  writeFileSync(join(directory, MANIFEST), manifest);
  chmodSync(join(directory, MANIFEST), 0o600);
  copyFileSync(join(plain, 'ae001100.dat'), join(directory, 'ae001100.dat'));
  t.is((await machine.json(5, ['restore', directory])).error?.code, 'extra-file');
  unlinkSync(join(directory, 'ae001100.dat.col'));
  t.is((await machine.json(5, ['restore', directory])).error?.code, 'extra-file');
  t.is(await machine.memory(), '');
  await machine.expect(0, ['restore', plain]);
  t.is(await machine.memory(), before);
});

for (const z of [[], ['-z'], ['-z', '-c', '-t', '1']]) {
  test(`an export is a backup of ASMT's form: ${z.join(' ') || 'plain'}`, async (t) => {
    const { machine, before, directory } = await backedUp(t);
    const out = machine.path('out');
    const { report } = await machine.json(0, ['export', ...z, directory, out]);
    t.deepEqual([report?.verb, report?.directory, report?.output], ['export', directory, out]);
    const names = segmentFiles(out);
    t.deepEqual(
      names.filter((name) => !NAMES_OF_ASMT.test(name)),
      [],
    );
    t.is(names.filter((name) => name.endsWith('.gz')).length > 0, z.length > 0);
    t.is(names.length, segmentFiles(directory).length);
    await machine.expect(0, ['verify', out]);
    await machine.expect(0, ['restore', out]);
    t.is(await machine.memory(), before);
    await machine.sim('remove');
    // As ASMT sees it, without our manifest.
    unlinkSync(join(out, MANIFEST));
    await machine.expect(0, ['restore', out]);
    t.is(await machine.memory(), before);
  });
}

test('any form of a backup is exported, and holes stay holes', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make', '--stages', '3', '--stage-size', '16MiB', '--fill', '0.1', '--mode', '600');
  const before = await machine.sim('sum', '--resident');
  for (const [form, ...options] of [['plain'], ['gzip', '-z'], ['columns', '-Z']]) {
    const directory = machine.path(form ?? '');
    await machine.expect(0, ['backup', ...options, directory]);
    for (const z of [[], ['-z']]) {
      const out = machine.path(`${form}-out${z.join('')}`);
      await machine.expect(0, ['export', ...z, directory, out]);
      const blocks = segmentFiles(out).reduce((sum, name) => sum + statSync(join(out, name)).blocks * 512, 0);
      t.true(blocks < 12 << 20, `${out} ${blocks}`);
      await machine.sim('remove');
      await machine.expect(0, ['restore', out]);
      t.is(await machine.sim('sum', '--resident'), before, out);
    }
  }
});

test('an export goes to a directory of its own, and leaves nothing where it is refused', async (t) => {
  const { machine, directory } = await backedUp(t);
  const out = machine.path('out');
  await machine.expect(2, ['export', directory]);
  await machine.expect(2, ['export']);
  await machine.expect(2, ['export', directory, out, machine.path('third')]);
  await machine.expect(2, ['export', '-Z', directory, out]);
  t.is((await machine.json(3, ['export', directory, directory])).error?.code, 'backup-exists');
  const names = readdirSync(directory);
  await machine.expect(0, ['export', '-a', directory, out]);
  t.throws(() => readdirSync(out));
  await machine.expect(0, ['export', directory, out]);
  t.is((await machine.json(3, ['export', directory, out])).error?.code, 'backup-exists');
  t.deepEqual(readdirSync(directory), names, 'the backup itself is as it was');
  t.is((await machine.json(7, ['export', '-i', '3', directory, machine.path('other')])).error?.code, 'nothing-found');
  t.throws(() => readdirSync(machine.path('other')));
});

test('what a restore would refuse as outdated is not exported, and a mark of use goes with it', async (t) => {
  const { machine, directory } = await backedUp(t);
  await machine.expect(0, ['retire', directory]);
  const out = machine.path('out');
  t.is((await machine.json(4, ['export', directory, out])).error?.code, 'backup-retired');
  t.throws(() => readdirSync(out));
  await machine.expect(0, ['export', '--force-stale', directory, out]);
  t.is((await machine.json(4, ['restore', out])).error?.code, 'backup-retired');
});

test('a mark of any namespace of the instance goes with an export of another one', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make', '--name', 'test', '--nsid', '1', '--stripes', '3', '--mode', '600');
  await machine.sim('make', '--name', 'bar', '--nsid', '2', '--stages', '1', '--mode', '600');
  const [directory, out] = [machine.path('b'), machine.path('bar only')];
  await machine.expect(0, ['backup', '-Z', directory]);
  await machine.sim('remove');
  await machine.expect(0, ['restore', '-n', 'test', directory]);
  await machine.expect(0, ['export', '-n', 'bar', directory, out]);
  t.true(readdirSync(out).includes('asmt-used-0-test.json'), readdirSync(out).join());
  const elsewhere = await machine.container();
  const codes = [];
  for (const from of [directory, out]) codes.push((await elsewhere.json(4, ['restore', '-n', 'bar', from])).error?.code);
  t.deepEqual(codes, ['backup-used', 'backup-used']);
});

test('what a server in memory shows speaks against an export, too', async (t) => {
  const machine = await Machine.start(t);
  const node = ['--name', 'test', '--nsid', '1'] as const;
  await machine.sim('start', '--stage-size', '64KiB', ...node);
  await machine.sim('stop', ...node);
  const directory = machine.path('b');
  await machine.expect(0, ['backup', '-Z', directory]);
  await machine.sim('start', '--stage-size', '64KiB', ...node);
  for (const name of ['running', 'stopped']) {
    t.is((await machine.json(4, ['export', directory, machine.path(name)])).error?.code, 'made-since', name);
    t.throws(() => readdirSync(machine.path(name)));
    if (name === 'running') await machine.sim('stop', ...node);
  }
});

/** An export that is stopped once it has begun to write, and continues after `meanwhile`. */
async function exportedWhile(machine: Machine, from: string, to: string, meanwhile: () => Promise<unknown>): Promise<Run> {
  return machine.traced(['pwrite64:delay_enter=100000'], ['export', '-t2', from, to], {
    during: async (child) => {
      await until('something written', () => existsSync(to) && readdirSync(to).length > 0);
      child.kill('SIGSTOP');
      try {
        await meanwhile();
      } finally {
        child.kill('SIGCONT');
      }
    },
  });
}

testTraced('a restore during an export marks what is exported, too', async (t) => {
  const { machine, directory } = await backedUp(t);
  await machine.sim('remove');
  const out = machine.path('out');
  const done = await exportedWhile(machine, directory, out, () => machine.expect(0, ['restore', directory]));
  t.is(done.status, 0, show(done));
  t.true(readdirSync(out).includes('asmt-used-0-test.json'), readdirSync(out).join());
  const elsewhere = await machine.container();
  t.is((await elsewhere.json(4, ['restore', out])).error?.code, 'backup-used');
});

testTraced('a start during an export makes it fail, and nothing is left', async (t) => {
  const machine = await Machine.start(t);
  const device = machine.path('device');
  const node = ['--name', 'test', '--nsid', '1', '--devices', device] as const;
  await machine.sim('device', '--path', device, '--name', 'test');
  await machine.sim('start', '--stage-size', '4MiB', ...node);
  await machine.sim('stop', ...node);
  const [directory, out] = [machine.path('b'), machine.path('out')];
  await machine.expect(0, ['backup', '-Z', '--device', device, directory]);
  await machine.sim('remove');
  const done = await exportedWhile(machine, directory, out, () => machine.sim('open', '--path', device));
  t.is(done.status, 4, show(done));
  t.deepEqual(readdirSync(out), []);
  await machine.expect(0, ['verify', directory]);
});

testAsRoot('a backup that cannot be marked is exported all the same', async (t) => {
  const { machine, before, directory } = await backedUp(t, await Machine.startHost(t));
  await machine.mount(directory, directory, '--bind');
  await machine.mount('none', directory, '-o', 'remount,ro,bind');
  await machine.expect(0, ['export', directory, machine.path('out')]);
  await machine.expect(0, ['restore', machine.path('out')]);
  t.is(await machine.memory(), before);
});

testAsRoot('a failed export leaves no mark that is in the way of the next one', async (t) => {
  const { machine, directory } = await backedUp(t, await Machine.startHost(t));
  await machine.expect(0, ['restore', directory]);
  const disk = machine.path('disk');
  mkdirSync(disk);
  for (const inodes of [11, 12, 13, 14, 15]) {
    await machine.mount('tmpfs', disk, '-t', 'tmpfs', '-o', `size=64m,mode=0700,nr_inodes=${inodes}`);
    const done = await machine.asmt(['export', '--allow-volatile', directory, join(disk, 'out')]);
    if (done.status !== 0) {
      t.is(done.status, 6, show(done));
      const left = await machine.exec('find', [disk, '-type', 'f']);
      t.is(left.stdout, '', `${inodes}: ${show(left)}`);
      await machine.mount('none', disk, '-o', 'remount,nr_inodes=1000');
      await machine.expect(0, ['export', '--allow-volatile', directory, join(disk, 'out')]);
    }
    await machine.exec('umount', [disk]);
  }
});

test('options stand before the two directories, and two instances share one of them', async (t) => {
  const machine = await Machine.start(t);
  const [directory, out] = [machine.path('b'), machine.path('out')];
  for (const instance of ['0', '2']) {
    await machine.sim('make', '--instance', instance, '--mode', '600');
    await machine.expect(0, ['backup', '-Z', '-i', instance, directory]);
  }
  const before = await machine.memory();
  await machine.sim('remove');
  await machine.expect(0, ['export', '-n', 'test', directory, out]);
  await machine.expect(0, ['export', '-i2', '-n', 'test', directory, out]);
  t.is((await machine.json(3, ['export', '-i', '2', directory, out])).error?.code, 'backup-exists');
  for (const instance of ['0', '2']) await machine.expect(0, ['restore', '-i', instance, out]);
  t.is(await machine.memory(), before);
});

test('a backup without a manifest is none that needs an export', async (t) => {
  const machine = await Machine.start(t);
  const { directory } = machine.golden('raw-index');
  const { error } = await machine.json(4, ['export', '--force-stale', directory, machine.path('out')]);
  t.is(error?.code, 'manifest-required');
});

testAsRoot('an export to a full disk leaves nothing', async (t) => {
  const { machine, directory } = await backedUp(t, await Machine.startHost(t));
  const disk = machine.path('disk');
  mkdirSync(disk);
  await machine.mount('tmpfs', disk, '-t', 'tmpfs', '-o', 'size=3m,mode=0700');
  for (const z of [[], ['-z']]) {
    const { error } = await machine.json(6, ['export', '--allow-volatile', ...z, directory, join(disk, 'out')]);
    t.is(error?.code, 'disk-full');
  }
  const left = await machine.exec('find', [disk, '-type', 'f']);
  t.is(left.stdout, '', show(left));
});

test('-Z is an option of a backup alone, and goes with no -z', async (t) => {
  const machine = await Machine.start(t);
  const done = await machine.expect(2, ['backup', '-z', '-Z', machine.path('b')]);
  t.regex(done.stderr, /-z and -Z cannot be used together/);
  await machine.expect(2, ['verify', '-Z', machine.path('b')]);
});

const reference = process.env['ASMT_REFERENCE'] ?? '';

testIf(reference !== '', 'ASMT_REFERENCE names no ASMT binary')(
  'ASMT finds nothing in a backup in columns, and restores what is exported',
  async (t) => {
    const { machine, before, directory } = await backedUp(t);
    const nothing = await machine.exec(reference, ['-r', '-n', 'test', '-p', directory]);
    t.is(await machine.memory(), '', show(nothing));
    for (const z of [[], ['-z']]) {
      const out = machine.path(`out${z.join('')}`);
      await machine.expect(0, ['export', ...z, directory, out]);
      const restored = await machine.exec(reference, ['-r', '-n', 'test', '-p', out]);
      t.is(restored.status, 0, show(restored));
      t.is(await machine.memory(), before);
      await machine.sim('remove');
    }
  },
);
