/**
 * The checks of a restore before it makes the first segment: memory, this cgroup's limits, and the
 * kernel's settings.
 */

import { spawnSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, rmdirSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { crc32, gzipSync } from 'node:zlib';

import test, { type ExecutionContext } from 'ava';

import { MAIN, MANIFEST, Machine, run, show, testAsRoot, testIf } from './helpers.ts';

/** A segment in ASMT's compressed form: its header, and one gzip member. */
function stream(bytes: Buffer): Buffer {
  const header = Buffer.alloc(24);
  header.write('ASMT');
  header.writeUInt32LE(1, 4);
  header.writeBigUInt64LE(BigInt(bytes.length), 8);
  header.writeBigUInt64LE(BigInt(crc32(bytes)), 16);
  return Buffer.concat([header, gzipSync(bytes, { level: 1 })]);
}

/** The place where a cgroup with its own memory limit can be made; null if there is none. */
function cgroupParent(): { directory: string; limit: string } | null {
  const own = readFileSync('/proc/self/cgroup', 'utf8');
  const v1 = /^\d+:(?:.*,)?memory(?:,.*)?:(.*)$/m.exec(own);
  // In v2 only the root may have both processes and limits below it.
  const [directory, limit] = v1
    ? [join('/sys/fs/cgroup/memory', v1[1] ?? ''), 'memory.limit_in_bytes']
    : ['/sys/fs/cgroup', 'memory.max'];
  const child = join(directory, `asmt-test-probe-${process.pid}`);
  try {
    mkdirSync(child);
    const hasLimit = existsSync(join(child, limit));
    rmdirSync(child);
    return hasLimit ? { directory, limit } : null;
  } catch {
    return null;
  }
}

const parent = cgroupParent();

/** A cgroup within another one, and functions that run a command in it and set their limits. */
function cgroups(t: ExecutionContext, machine: Machine) {
  const { directory, limit } = parent ?? { directory: '', limit: '' };
  const outer = join(directory, `asmt-test-${process.pid}-${randomUUID()}`);
  const inner = join(outer, 'inner');
  mkdirSync(outer);
  t.teardown(() => rmdirSync(outer));
  if (limit === 'memory.max') writeFileSync(join(outer, 'cgroup.subtree_control'), '+memory');
  mkdirSync(inner);
  t.teardown(() => rmdirSync(inner));
  const inside = (args: readonly string[]) =>
    machine.exec('sh', ['-c', `echo $$ > ${inner}/cgroup.procs && exec "$@"`, 'sh', process.execPath, MAIN, ...args]);
  const set = (level: string, bytes: number | string) => writeFileSync(join(level, limit), String(bytes));
  return { outer, inner, limit, inside, set };
}

const testCgroup = testIf(parent !== null, 'no cgroup with a memory limit can be made here');

testCgroup('the limit of the cgroup is known before the first segment is made', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make', '--stages', '1', '--stage-size', '160MiB', '--fill', '1');
  const before = await machine.memory();
  await machine.expect(0, ['backup', machine.path('b')]);
  await machine.sim('remove');
  const { outer, inner, limit, inside, set } = cgroups(t, machine);
  // The limit of the own cgroup, and that of a cgroup above it.
  for (const level of [inner, outer]) {
    set(level, 160 * 2 ** 20);
    for (const args of [['restore'], ['restore', '-a']]) {
      const done = await inside([...args, machine.path('b')]);
      t.is(done.status, 6, show(done));
      t.true(done.stderr.includes(`${join(level, limit)} is 167772160, of which `), show(done));
      t.regex(
        done.stderr,
        /are left; expected at least \d+: segments count against the limit of the process that fills them\nHINT: raise that limit/,
      );
      t.is(await machine.memory(), '');
    }
    set(level, limit === 'memory.max' ? 'max' : -1);
  }
  set(inner, 800 * 2 ** 20);
  const done = await inside(['restore', machine.path('b')]);
  t.is(done.status, 0, show(done));
  t.is(await machine.memory(), before);
  // Memory that is charged to a cgroup keeps the cgroup from being removed.
  await machine.sim('remove');
});

testCgroup('where memory is short, files that may hold zeros are read to see what they fill', async (t) => {
  const machine = await Machine.start(t);
  const { inner, inside, set } = cgroups(t, machine);
  // 8 MiB of data in 256 MiB; and 256 MiB of data that cannot be compressed.
  for (const [name, fill] of [
    ['sparse', '0.03'],
    ['full', '1'],
  ] as const) {
    await machine.sim('make', '--stages', '2', '--stage-size', '128MiB', '--fill', fill);
    const before = await machine.sim('sum', '--sparse', '--resident');
    await machine.expect(0, ['backup', machine.path(name)]);
    await machine.sim('remove');
    // Like a backup of ASMT's: no manifest, and no hole.
    const foreign = machine.path(`${name}-foreign`);
    const copied = await run('cp', ['-a', '--sparse=never', machine.path(name), foreign]);
    t.is(copied.status, 0, show(copied));
    unlinkSync(join(foreign, MANIFEST));
    // The same files as one stream each, which are small where they hold zeros.
    const streams = machine.path(`${name}-streams`);
    mkdirSync(streams, { mode: 0o700 });
    for (const file of machine.names(foreign)) {
      const bytes = readFileSync(join(foreign, file));
      // Only stages: files with a header are plain.
      if (file.startsWith('ae00110')) writeFileSync(join(streams, `${file}.gz`), stream(bytes), { mode: 0o600 });
      else writeFileSync(join(streams, file), bytes, { mode: 0o600 });
    }
    set(inner, 160 * 2 ** 20);
    const isFull = name === 'full';
    for (const directory of [foreign, streams]) {
      for (const args of [['restore', '-a'], ['restore']]) {
        const done = await inside([...args, '--force-stale', directory]);
        t.is(done.status, isFull ? 6 : 0, show(done));
        if (isFull)
          t.regex(done.stderr, /is 167772160, of which \d+ are left; expected at least \d+: segments count/, show(done));
      }
      const after = await machine.sim('sum', '--sparse', '--resident');
      t.is(after, isFull ? '' : before.replaceAll(/ 666 0 /g, ' 600 0 '));
      await machine.sim('remove');
    }
  }
});

const setForced = (machine: Machine, value: string) =>
  machine.exec('sh', ['-c', `echo ${value} > /proc/sys/kernel/shm_rmid_forced`]);

const CAN_FORCE = spawnSync('unshare', ['--ipc', 'sh', '-c', 'echo 0 > /proc/sys/kernel/shm_rmid_forced']).status === 0;
const testForced = testIf(CAN_FORCE, 'kernel.shm_rmid_forced cannot be set here');

testForced(
  'kernel.shm_rmid_forced: nothing is restored, and what is there is not looked at, for that would destroy it',
  async (t) => {
    const machine = await Machine.start(t);
    await machine.sim('make', '--stripes', '1');
    const before = await machine.memory();
    await machine.expect(0, ['backup', machine.path('b')]);
    await machine.sim('remove');
    await setForced(machine, '1');
    for (const args of [['restore'], ['restore', '-a']]) {
      const { error } = await machine.json(3, [...args, machine.path('b')]);
      t.is(error?.code, 'segments-not-kept');
      t.regex(error?.message ?? '', /kernel\.shm_rmid_forced is 1, expected 0: the kernel destroys each segment/);
      t.regex(error?.hint ?? '', /sysctl -w kernel\.shm_rmid_forced=0/);
    }
    await setForced(machine, '0');
    await machine.expect(0, ['restore', machine.path('b')]);
    // A process that made a segment and is alive keeps it, unattached, when the setting changes:
    // only attaching it would destroy it.
    const maker = await machine.start(
      'python3',
      [
        '-c',
        `import ctypes,sys
libc = ctypes.CDLL(None, use_errno=True)
libc.shmget.argtypes = [ctypes.c_int, ctypes.c_size_t, ctypes.c_int]
assert libc.shmget(ctypes.c_int(0xae002000).value, 65536, 0o1666) >= 0
print("ready", flush=True)
sys.stdin.read()`,
      ],
      'ready',
    );
    const segments = async () => (await machine.exec('cat', ['/proc/sysvipc/shm'])).stdout.trim().split('\n').length - 1;
    await setForced(machine, '1');
    const left = await segments();
    t.true(left >= 1);
    const listed = await machine.expect(0, ['list', '-v']);
    t.regex(listed.stderr, /note: kernel\.shm_rmid_forced is 1/, show(listed));
    for (const args of [
      ['backup', machine.path('c')],
      ['backup', '-a', machine.path('c')],
    ]) {
      t.is((await machine.json(3, args)).error?.code, 'segments-not-kept');
      t.deepEqual(machine.names(machine.path('c')), []);
    }
    t.is(await segments(), left);
    await maker.end();
    await setForced(machine, '0');
    await machine.sim('remove');
    await machine.expect(0, ['restore', machine.path('b')]);
    t.is(await machine.memory(), before);
  },
);

const IS_HEURISTIC = readFileSync('/proc/sys/vm/overcommit_memory', 'utf8').trim() === '0';
const testHeuristic = testIf(IS_HEURISTIC, 'vm.overcommit_memory is not 0');

testHeuristic('a segment larger than memory and swap is refused before it is made, where the kernel would', async (t) => {
  const machine = await Machine.start(t);
  const { directory } = machine.golden('raw-index');
  // A file of holes: it has the size of its segment, and needs no room.
  const huge = await machine.exec('truncate', ['-s', '8T', `${directory}/ae001101.dat`]);
  t.is(huge.status, 0, show(huge));
  const { error } = await machine.json(6, ['restore', directory]);
  const problem = error?.problems.find(({ message }) => message.includes('ae001101'));
  t.is(problem?.code, 'not-enough-memory', JSON.stringify(error));
  t.regex(problem?.message ?? '', /segment ae001101 has 8796093022208 bytes, more than the \d+ of memory and swap/);
  t.is(await machine.memory(), '');
});

test('a file of holes alone is read in no time, however large it says it is', async (t) => {
  const machine = await Machine.start(t);
  const { directory } = machine.golden('raw-index');
  const huge = await machine.exec('truncate', ['-s', '15T', `${directory}/ae001101.dat`]);
  t.is(huge.status, 0, show(huge));
  const done = await machine.expect(0, ['verify', directory]);
  t.regex(done.stderr, /ae001101\.dat has 16492674416640 bytes, but base says 1048576/);
});

testAsRoot('a journal that can no longer be written: what was made meanwhile is removed', async (t) => {
  const machine = await Machine.start(t);
  // The list of segments to be made fills most of a page of the journal, and the ids of those that
  // are made fill the rest.
  await machine.sim('make', '--stages', '300', '--stage-size', '4096');
  const before = await machine.memory();
  await machine.expect(0, ['backup', machine.path('b')]);
  await machine.sim('remove');
  const mount = machine.path('run');
  const mounted = await run('mount', ['-t', 'tmpfs', '-o', 'size=4k,mode=0700', 'tmpfs', mount]);
  t.is(mounted.status, 0, show(mounted));
  const done = await machine.asmt(['restore', '-v', machine.path('b')]);
  // The record of a restore that has ended stays.
  const left = machine.names(mount).filter((name) => !name.startsWith('restored-'));
  const unmounted = await run('umount', [mount]);
  t.is(unmounted.status, 0, show(unmounted));
  t.is(done.status, 6, show(done));
  t.regex(done.stderr, /error: write \S+\/run\/restore-\S+: no space left on device\nHINT: /, show(done));
  t.is(await machine.memory(), '');
  t.deepEqual(
    left.filter((name) => !name.endsWith('.lock')),
    [],
  );
  await machine.expect(0, ['restore', machine.path('b')]);
  t.is(await machine.memory(), before);
});
