/**
 * Other users of the machine: the things that they lock, plant and exchange stop nothing of root's,
 * and are reported.
 */

import { execFileSync } from 'node:child_process';
import { chmodSync, chownSync, cpSync, lchownSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';

import type { ExecutionContext } from 'ava';

import { MAIN, Machine, show, testAsRoot, type Holder } from './helpers.ts';

const STRANGER = 65_534;
const SERVER = 12_345;

const as = (uid: number): string[] => [`--reuid=${uid}`, `--regid=${uid}`, '--clear-groups'];

/**
 * Becomes a user for good, after the interpreter is loaded: it may be in a place that this user
 * cannot read.
 */
const BECOME = `
import os, sys
uid = int(sys.argv.pop(1))
os.setgroups([])
os.setresgid(uid, uid, uid)
os.setresuid(uid, uid, uid)
`;

/** Opens the readable files, and holds a lock on each until it is ended. */
const LOCK = `import fcntl${BECOME}
held = []
for path in sys.argv[2:]:
    try:
        held.append(os.open(path, os.O_RDONLY))
        fcntl.flock(held[-1], fcntl.LOCK_EX if sys.argv[1] == 'exclusive' else fcntl.LOCK_SH)
    except PermissionError:
        pass
print('ready', len(held), flush=True)
sys.stdin.read()
`;

/** Makes segments: key, size and owner of each. */
const PLANT = `import ctypes, struct${BECOME}
libc = ctypes.CDLL(None, use_errno=True)
for text in sys.argv[1:]:
    key, size, uid = text.split(':')
    shmid = libc.shmget(ctypes.c_int(ctypes.c_uint32(int(key, 16)).value), ctypes.c_size_t(int(size)), 0o3600)
    assert shmid >= 0, ctypes.get_errno()
    if uid:
        buffer = ctypes.create_string_buffer(256)
        assert libc.shmctl(shmid, 2, buffer) == 0
        struct.pack_into('I', buffer, 4, int(uid))
        assert libc.shmctl(shmid, 1, buffer) == 0
    print(shmid)
`;

/** A machine whose directory others may enter. */
async function open(t: ExecutionContext): Promise<Machine> {
  const machine = await Machine.start(t);
  chmodSync(machine.directory, 0o755);
  return machine;
}

async function plant(t: ExecutionContext, machine: Machine, ...segments: string[]): Promise<string[]> {
  const done = await machine.exec('python3', ['-c', PLANT, `${STRANGER}`, ...segments]);
  t.is(done.status, 0, show(done));
  return done.stdout.trim().split('\n');
}

async function hold(machine: Machine, uid: number, how: 'exclusive' | 'shared', ...paths: string[]): Promise<Holder> {
  return machine.start('python3', ['-c', LOCK, `${uid}`, how, ...paths], 'ready');
}

for (const how of ['exclusive', 'shared'] as const) {
  testAsRoot(`a stranger's ${how} lock on a directory that he may read stops nobody`, async (t) => {
    const machine = await open(t);
    await machine.sim('make', '--uid', `${SERVER}`, '--gid', `${SERVER}`);
    const before = await machine.memory();
    const directory = machine.path('b');
    mkdirSync(directory, 0o755);
    chmodSync(directory, 0o755);
    const first = await hold(machine, STRANGER, how, directory);
    await machine.expect(0, ['backup', directory]);
    // The server's user may read its own files, and lock them.
    const files = machine.names(directory).map((name) => join(directory, name));
    const second = await hold(machine, SERVER, how, ...files);
    await machine.sim('remove');
    for (const args of [
      ['verify', directory],
      ['restore', directory],
    ]) {
      await machine.expect(0, args);
    }
    t.is(await machine.memory(), before);
    await machine.expect(0, ['retire', directory]);
    t.true(
      machine.names(directory).every((name) => !name.startsWith('.')),
      'no lock is left behind',
    );
    await first.end();
    await second.end();
  });
}

testAsRoot('a stranger who verifies what he may read does not stop the next backup', async (t) => {
  const machine = await open(t);
  await machine.sim('make');
  const directory = machine.path('b');
  mkdirSync(directory);
  chmodSync(directory, 0o755);
  await machine.expect(0, ['backup', directory]);
  for (const name of machine.names(directory)) chmodSync(join(directory, name), 0o644);
  mkdirSync(machine.path('own-run'), 0o700);
  chownSync(machine.path('own-run'), STRANGER, STRANGER);
  const verified = await machine.exec('setpriv', [...as(STRANGER), process.execPath, MAIN, 'verify', directory], {
    env: { ASMT_RUNTIME_DIR: machine.path('own-run') },
  });
  t.is(verified.status, 0, show(verified));
  await machine.sim('make', '--name', 'other', '--nsid', '2');
  const lock = await hold(machine, STRANGER, 'shared', directory);
  await machine.expect(0, ['backup', '-n', 'other', directory]);
  await lock.end();
});

testAsRoot('planted segments are named, left out of a backup, and do not come back', async (t) => {
  const machine = await open(t);
  await machine.sim('make', '--stripes', '1', '--uid', `${SERVER}`, '--gid', `${SERVER}`);
  const before = await machine.memory();
  const planted = await plant(
    t,
    machine,
    // A segment of the index, given to the server's user; one of an nsid that nobody has; a stripe
    // of zeros.
    'a2001107:4096:',
    `a2001108:4096:${SERVER}`,
    'a2001000:4096:0',
    'ae00f100:4096:',
    'ad009000:1048576:',
  );
  const directory = machine.path('b');
  const done = await machine.json(0, ['backup', directory]);
  const remarks = done.report?.remarks.filter(({ code }) => code === 'foreign-segments') ?? [];
  t.is(remarks.length, 4, JSON.stringify(done.report?.remarks));
  for (const shmid of planted)
    t.true(
      remarks.some(({ message }) => message.includes(`(shmid ${shmid})`)),
      shmid,
    );
  t.true(remarks.every(({ message }) => message.includes(`uid ${STRANGER}`)));
  await machine.expect(0, ['backup', '-n', 'test', machine.path('named')]);
  for (const directoryOf of [directory, machine.path('named')]) {
    await machine.sim('remove');
    await machine.expect(0, ['restore', directoryOf]);
    t.is(await machine.memory(), before);
  }
});

testAsRoot('a planted segment costs no backup: it passes for no server that has run', async (t) => {
  const machine = await open(t);
  await machine.sim('make', '--stripes', '1', '--uid', `${SERVER}`, '--gid', `${SERVER}`);
  const before = await machine.memory();
  const directory = machine.path('b');
  await machine.expect(0, ['backup', directory]);
  const planted = await plant(t, machine, 'ae00f100:4096:', 'ad001002:4096:');
  await machine.expect(3, ['backup', directory]);
  t.false(machine.names(directory).includes('asmt-used-0-test.json'));
  const { report } = await machine.json(0, ['backup', '--replace', directory]);
  t.true(report?.remarks.some(({ code }) => code === 'already-backed-up'));
  await machine.exec(
    'ipcrm',
    planted.flatMap((id) => ['-m', id]),
  );
  await machine.sim('remove');
  await machine.expect(0, ['restore', directory]);
  t.is(await machine.memory(), before);
});

testAsRoot('a planted segment in the way of a restore is named, with the step that removes it', async (t) => {
  const machine = await open(t);
  await machine.sim('make', '--stripes', '1', '--uid', `${SERVER}`, '--gid', `${SERVER}`);
  const before = await machine.memory();
  const directory = machine.path('b');
  await machine.expect(0, ['backup', directory]);
  await machine.sim('remove');
  const [first = '', second = ''] = await plant(t, machine, 'ae001100:4096:0', `ad001000:1048576:${SERVER}`);
  for (let attempt = 0; attempt < 2; attempt += 1) {
    const { error } = await machine.json(3, ['restore', directory]);
    t.is(error?.code, 'foreign-segments', JSON.stringify(error));
    t.regex(error?.message ?? '', new RegExp(`2 segments in its way were created by uid ${STRANGER}, the first is ad001000`));
    const hint = `if the server does not run as uid ${STRANGER} now, remove exactly these segments, then try again: ipcrm -m ${second} -m ${first}`;
    t.is(error?.hint, hint);
  }
  const removed = await machine.exec('ipcrm', ['-m', second, '-m', first]);
  t.is(removed.status, 0, show(removed));
  // It does not pass for a server that has served on the backup.
  await machine.expect(0, ['restore', directory]);
  t.is(await machine.memory(), before);
});

testAsRoot('a directory that can be exchanged for an older one is refused, and no hint touches the one above', async (t) => {
  const machine = await open(t);
  await machine.sim('make');
  const inside = (above: string) => join(machine.path(above), 'b');
  const make = (above: string, mode: number, uid: number) => {
    mkdirSync(machine.path(above));
    chmodSync(machine.path(above), mode);
    chownSync(machine.path(above), uid, uid);
  };
  make('sound', 0o755, 0);
  make('sticky', 0o1777, 0);
  make('group', 0o775, 0);
  make('others', 0o757, 0);
  make('foreign', 0o700, STRANGER);
  for (const above of ['sound', 'sticky']) await machine.expect(0, ['backup', inside(above)]);
  await machine.sim('remove');
  for (const above of ['group', 'others', 'foreign']) {
    cpSync(inside('sound'), inside(above), { recursive: true, preserveTimestamps: true });
    chmodSync(inside(above), 0o700);
    for (const verb of ['restore', 'verify', 'retire']) {
      const { error } = await machine.json(3, [verb, inside(above)]);
      t.is(error?.code, 'path-writable-by-others', `${above} ${verb}`);
      t.true(error?.message.includes(`directory ${machine.path(above)}, which `), error?.message);
      t.notRegex(error?.hint ?? '', /chmod|chown/);
    }
  }
  // Links are followed as the kernel follows them.
  symlinkSync(inside('sound'), join(machine.path('sticky'), 'own'));
  symlinkSync(inside('sound'), join(machine.path('sticky'), 'strangers'));
  lchownSync(join(machine.path('sticky'), 'strangers'), STRANGER, STRANGER);
  symlinkSync(inside('sound'), join(machine.path('group'), 'link'));
  for (const [link, message] of [
    [join(machine.path('sticky'), 'strangers'), 'the link '],
    [join(machine.path('group'), 'link'), `directory ${machine.path('group')}, which `],
  ] as const) {
    const { error } = await machine.json(3, ['restore', link]);
    t.deepEqual([error?.code, error?.message.includes(message)], ['path-writable-by-others', true], error?.message);
  }
  t.is(await machine.memory(), '');
  await machine.expect(0, ['restore', join(machine.path('sticky'), 'own')]);
  for (const above of ['group', 'others', 'foreign']) {
    for (const args of [
      ['backup', `${inside(above)}-new`],
      ['backup', '-a', `${inside(above)}-new`],
    ]) {
      const { error } = await machine.json(3, args);
      t.is(error?.code, 'path-writable-by-others');
      t.regex(error?.hint ?? '', /choose a directory whose parent directories are owned by root/);
      t.deepEqual(machine.names(`${inside(above)}-new`), []);
    }
  }
});

testAsRoot('below /tmp and /var/tmp, which are sticky, a directory of the own user will do', async (t) => {
  const machine = await open(t);
  await machine.sim('make');
  for (const above of ['/tmp', '/var/tmp']) {
    const directory = mkdtempSync(join(above, 'asmt-test-'));
    t.teardown(() => rmSync(directory, { recursive: true, force: true }));
    await machine.expect(0, ['backup', '--allow-volatile', join(directory, 'b')]);
  }
  const { error } = await machine.json(3, ['backup', '--allow-volatile', '/tmp']);
  t.is(error?.code, 'writable-by-others');
  t.notRegex(error?.hint ?? '', /chmod|chown/);
});

testAsRoot('hard-linked generations are restored, each by itself, and a mark is of one of them', async (t) => {
  const machine = await open(t);
  await machine.sim('make', '--stripes', '1', '--uid', `${SERVER}`, '--gid', `${SERVER}`);
  const before = await machine.memory();
  const [directory, daily] = [machine.path('b'), machine.path('b.daily')];
  await machine.expect(0, ['backup', directory]);
  execFileSync('cp', ['-al', directory, daily]);
  await machine.expect(0, ['verify', '--require-manifest', daily]);
  for (const generation of [daily, directory]) {
    await machine.sim('remove');
    await machine.expect(0, ['restore', '--require-manifest', generation]);
    t.is(await machine.memory(), before);
  }
  await machine.expect(0, ['retire', daily]);
  await machine.sim('remove');
  t.is((await machine.json(4, ['restore', daily])).error?.code, 'backup-retired');
  // The mark is a separate file in each directory.
  await machine.expect(0, ['restore', directory]);
});

testAsRoot('a file that others may write by another name of it is refused, with a step that keeps the backup', async (t) => {
  const machine = await open(t);
  const { directory } = machine.golden('raw-index');
  chmodSync(join(directory, 'ae001100.dat'), 0o666);
  await machine.expect(0, ['verify', directory]);
  execFileSync('cp', ['-al', directory, machine.path('daily')]);
  for (const verb of ['restore', 'verify']) {
    const { error } = await machine.json(3, [verb, directory]);
    t.deepEqual([error?.code, error?.kind], ['writable-by-others', 'refused']);
    t.regex(error?.message ?? '', /through another name of it: it has 2 links/);
    t.regex(error?.hint ?? '', /cp -a --no-preserve=links/);
  }
  execFileSync('cp', ['-a', '--no-preserve=links', directory, machine.path('copy')]);
  await machine.expect(0, ['restore', machine.path('copy')]);
});
