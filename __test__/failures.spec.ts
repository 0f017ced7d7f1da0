/**
 * The faults that were measured in ASMT 2.2.1, row by row: none of them can happen here. (Rows 1
 * and 7 at full size are in `limits.spec.ts`, row 2 at every system call in `npm run test:faults --
 * --only kills`.)
 */

import { lstatSync, mkdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';

import test from 'ava';

import { Machine, run, show, testAsRoot, testTraced } from './helpers.ts';

testTraced('row 2: a backup killed in its middle is no backup', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make');
  for (const when of ['1', '2', '4']) {
    const killed = await machine.traced([`fsync:signal=KILL:when=${when}`], ['backup', '-t1', machine.path('b')]);
    t.is(killed.signal, 'SIGKILL', show(killed));
    t.false(
      machine.names(machine.path('b')).some((name) => /^[0-9a-f]{8}\.dat/.test(name)),
      'no file has its final name',
    );
  }
  await machine.sim('remove');
  const done = await machine.expect(5, ['restore', '-c', machine.path('b')]);
  t.regex(done.stderr, /interrupted before it was committed/, show(done));
  t.is(await machine.memory(), '');
});

test('row 3: one changed byte of a file is found', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make');
  await machine.expect(0, ['backup', machine.path('b')]);
  await machine.sim('remove');
  const bytes = readFileSync(machine.path('b', 'ae001101.dat'));
  bytes[777_777] = (bytes[777_777] ?? 0) ^ 0x10;
  writeFileSync(machine.path('b', 'ae001101.dat'), bytes);
  const done = await machine.expect(1, ['-r', '-c', '-p', machine.path('b')]);
  t.regex(done.stderr, /ae001101\.dat at 0 \(segment ae001101\): CRC-32 \w{8}, expected \w{8}/, show(done));
  t.is(await machine.memory(), '');
});

test('row 4: a file cut short is found', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make');
  await machine.expect(0, ['backup', machine.path('b')]);
  await machine.sim('remove');
  truncateSync(machine.path('b', 'ae001101.dat'), 1_048_575);
  const done = await machine.expect(1, ['-r', '-c', '-p', machine.path('b')]);
  t.regex(done.stderr, /ae001101\.dat has 1048575 bytes, expected 1048576/, show(done));
  t.is(await machine.memory(), '');
});

test('row 4, in a backup without a manifest: a stage cut short is remarked on', async (t) => {
  const machine = await Machine.start(t);
  const { directory } = machine.golden('raw-index');
  truncateSync(`${directory}/ae001101.dat`, 1_000_000);
  const done = await machine.expect(0, ['verify', directory]);
  t.regex(done.stderr, /note: .*ae001101\.dat has 1000000 bytes, but base says 1048576: is it truncated\?/, show(done));
});

testAsRoot('row 5: a file system that is too small leaves no file behind', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make', '--stripes', '8', '--stripe-size', '2MiB', '--stripe-fill', '1');
  const mount = machine.path('mount');
  mkdirSync(mount);
  const mounted = await run('mount', ['-t', 'tmpfs', '-o', 'size=6m,mode=0700', 'tmpfs', mount]);
  t.is(mounted.status, 0, show(mounted));
  t.teardown(() => run('umount', [mount]));
  const done = await machine.expect(1, ['-b', '--allow-volatile', '-p', mount]);
  t.regex(done.stderr, /no room in .*: the files need at least \d+ bytes/, show(done));
  t.deepEqual(machine.names(mount), []);
});

for (const stripes of ['2', '3', '8']) {
  test(`row 6: all of ${stripes} data stripes come back, stripe 1 too`, async (t) => {
    const machine = await Machine.start(t);
    await machine.sim('make', '--no-index', '--stripes', stripes);
    const before = await machine.memory();
    t.regex(before, /\nad001001 /);
    await machine.expect(0, ['-b', '-p', machine.path('b')]);
    await machine.sim('remove');
    await machine.expect(0, ['-r', '-p', machine.path('b')]);
    t.is(await machine.memory(), before);
  });
}

test("row 7: a backup does not make the node's memory grow, nor write what is not there", async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make', '--stage-size', '64MiB', '--fill', '0.05');
  const before = await machine.sim('sum', '--resident');
  await machine.expect(0, ['-b', '-p', machine.path('b')]);
  t.is(await machine.sim('sum', '--resident'), before);
  const written = machine
    .names(machine.path('b'))
    .reduce((sum, name) => sum + lstatSync(machine.path('b', name)).blocks * 512, 0);
  const resident = before
    .trim()
    .split('\n')
    .reduce((sum, line) => sum + Number(line.split(' ')[7]), 0);
  t.true(written < 1.1 * resident && resident < 16 * 2 ** 20, `${written} ${resident}`);
});

test('row 8: no backup file is open to others', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make', '--mode', '666');
  // With any umask.
  const done = await machine.exec('sh', [
    '-c',
    `umask 0; exec "$@"`,
    'sh',
    process.execPath,
    `${import.meta.dirname}/../dist/main.js`,
    '-b',
    '-p',
    machine.path('b'),
  ]);
  t.is(done.status, 0, show(done));
  for (const name of machine.names(machine.path('b'))) t.is(lstatSync(machine.path('b', name)).mode & 0o777, 0o600, name);
  t.is(lstatSync(machine.path('b')).mode & 0o777, 0o700);
});

test('row 9: no failure is silent, with or without -v', async (t) => {
  const machine = await Machine.start(t);
  for (const args of [
    ['-b', '-p', machine.path('b')],
    ['-bv', '-p', machine.path('b')],
    ['-r', '-p', machine.path('none')],
    ['-b'],
    ['-q'],
  ]) {
    const done = await machine.asmt(args);
    t.not(done.status, 0);
    t.regex(done.stderr, /^asmt: error: .+\nHINT: .+\n$/, show(done));
  }
});

test("row 10: -c reads what was asked for, and not other namespaces' stages", async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make', '--name', 'mine');
  await machine.sim('make', '--name', 'other', '--nsid', '2');
  await machine.sim('make', '--name', 'third', '--instance', '2');
  // Columns: key shmid perms size cpid lpid nattch uid gid cuid cgid atime dtime ctime rss swap
  const others = async () =>
    (await machine.exec('cat', ['/proc/sysvipc/shm'])).stdout
      .split('\n')
      .map((line) => line.trim().split(/\s+/))
      .filter(([key]) => /^(ae0021|ae2011)/.test((Number(key) >>> 0).toString(16)))
      .map(([key, , , , , lpid, , , , , , atime]) => [key, lpid, atime]);
  const before = await others();
  t.is(before.length, 4);
  await machine.expect(0, ['-b', '-c', '-n', 'mine', '-p', machine.path('b')]);
  t.deepEqual(await others(), before);
});
