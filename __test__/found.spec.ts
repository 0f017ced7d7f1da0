/** What the loops have found (docs/RELIABILITY.md), a test each by its own means. */

import { existsSync, renameSync } from 'node:fs';

import test from 'ava';

import { MAIN, Machine, show, testTraced, until } from './helpers.ts';

testTraced('a segment that cannot be listed is not left out', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make', '--no-index', '--stripes', '3', '--stripe-size', '128KiB');
  // How many there are, and each of them.
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
  const done = await machine.traced(['fallocate:error=EIO:when=2', 'unlinkat:error=EACCES'], ['backup', '-t1', directory]);
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
