/** Faults that the loops have found (docs/FINDINGS.md), one test each, by other means. */

import { existsSync, renameSync } from 'node:fs';

import test from 'ava';

import { MAIN, Machine, show, testTraced, until } from './helpers.ts';

testTraced('a segment that cannot be listed is not left out', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make', '--no-index', '--stripes', '3', '--stripe-size', '128KiB');
  // Their number, and each of them.
  for (let when = 1; when <= 4; when += 1) {
    const done = await machine.traced([`shmctl:error=EACCES:when=${when}`], ['backup', machine.path('b')]);
    t.is(done.status, 1, show(done));
    t.regex(done.stderr, /shmctl|shmat|may not read/, show(done));
    t.deepEqual(machine.names(machine.path('b')), []);
  }
});

testTraced('what could not be removed is not called clean', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make');
  const directory = machine.path('b');
  // One worker: strace counts the calls of each thread by itself.
  const done = await machine.traced(
    ['fallocate:error=EIO:when=2', 'unlinkat:error=EACCES:when=2+'],
    ['backup', '-t1', directory],
  );
  t.is(done.status, 1, show(done));
  t.regex(done.stderr, /and while cleaning up: unlink .*\.asmt-tmp\..*: permission denied/, show(done));
  t.regex(done.stderr, /HINT: something was left behind/, show(done));
  t.notRegex(done.stderr, /nothing was left behind|everything was cleaned up/, show(done));
  t.not(machine.names(directory).length, 0);
  await machine.expect(0, ['backup', directory]);
  await machine.expect(0, ['verify', directory]);
});

testTraced('a directory that was renamed meanwhile: not done, and nothing is left', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make');
  const [directory, aside] = [machine.path('b'), machine.path('aside')];
  const done = await machine.traced(['pwrite64:delay_enter=100000'], ['backup', '-v', directory], {
    during: async (_, output) => {
      await until('something reserved', () => output().includes('asmt: reserved'));
      renameSync(directory, aside);
    },
  });
  t.is(done.status, 3, show(done));
  t.regex(done.stderr, /b was removed, renamed or replaced while the backup was made\nHINT: /, show(done));
  t.false(existsSync(directory));
  t.deepEqual(machine.names(aside), []);
});

test('a limit on file sizes is an error, not a death', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make');
  // The limit is in KiB.
  const limited = ['-c', 'ulimit -f 64 && exec "$@"', 'sh', process.execPath, MAIN, 'backup', machine.path('b')];
  const done = await machine.exec('bash', limited);
  t.is(done.status, 6, show(done));
  t.regex(done.stderr, /error: fallocate .*: file too large\nHINT: raise the limit on file sizes/, show(done));
  t.deepEqual(machine.names(machine.path('b')), []);
});

testTraced('what a killed restore made is not forgotten where the boot cannot be told', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make');
  const before = await machine.memory();
  await machine.expect(0, ['backup', machine.path('b')]);
  await machine.sim('remove');
  await machine.killedRestore(machine.path('b'));
  const bootId = '/proc/sys/kernel/random/boot_id';
  const failed = await machine.tracedOn(bootId, ['read:error=EIO'], ['restore', machine.path('b')]);
  t.is(failed.status, 1, show(failed));
  t.regex(failed.stderr, /error: read \/proc\/sys\/kernel\/random\/boot_id: input\/output error\nHINT: /, show(failed));
  await machine.expect(0, ['restore', machine.path('b')]);
  t.is(await machine.memory(), before);
});

testTraced('where it cannot be told whether the kernel keeps segments, none is attached', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make');
  const before = await machine.memory();
  const forced = '/proc/sys/kernel/shm_rmid_forced';
  const failed = await machine.tracedOn(forced, ['openat:error=EMFILE'], ['backup', machine.path('b')]);
  t.is(failed.status, 6, show(failed));
  t.regex(failed.stderr, /error: read \/proc\/sys\/kernel\/shm_rmid_forced: too many open files\nHINT: /, show(failed));
  t.is(await machine.memory(), before);
  t.deepEqual(machine.names(machine.path('b')), []);
});

testTraced('what another process writes into a segment that is being filled is no damage of the backup', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make');
  await machine.expect(0, ['backup', machine.path('b')]);
  await machine.sim('remove');
  const isFilled = async () => {
    const { report } = await machine.json(0, ['list', '-v']);
    return report?.segments.some(({ key, resident_bytes: bytes }) => key === 'ae001100' && Boolean(bytes)) ?? false;
  };
  // Its bytes were written, but not summed yet.
  const file = machine.path('b', 'ae001100.dat');
  const done = await machine.tracedOn(file, ['pread64:delay_exit=3000000'], ['restore', '-t1', machine.path('b')], {
    during: async () => {
      await until('a segment filled', isFilled);
      await machine.sim('poke', '--key', 'ae001100', '--offset', '4096', '--hex', '77');
    },
  });
  t.is(done.status, 3, show(done));
  t.regex(done.stderr, /segment ae001100 changed while it was restored: another process \(pid \d+\) had it attached\nHINT: /);
  t.is(await machine.memory(), '');
});
