/**
 * `-a` is a rehearsal: it finds everything that the run would find before it writes, and reports
 * what it cannot find.
 */

import { mkdirSync } from 'node:fs';

import test from 'ava';

import { Machine, run, show, testAsRoot, testTraced } from './helpers.ts';

testAsRoot('a backup to a full, read-only or missing place is refused by -a as by the run', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make', '--stage-size', '8MiB', '--fill', '1');
  const [image, mount] = [machine.path('image'), machine.path('mount')];
  mkdirSync(mount);
  await run('truncate', ['-s', '12M', image]);
  await run('mkfs.ext4', ['-q', image]);
  t.is((await run('mount', ['-o', 'loop', image, mount])).status, 0);
  t.teardown(() => run('umount', [mount]));
  const all = [['backup'], ['backup', '-a'], ['backup', '-z'], ['backup', '-a', '-z']];
  const refused = async (status: number, directory: string, says: RegExp, forms = all) => {
    for (const words of forms) {
      const done = await machine.expect(status, [...words, directory]);
      t.regex(done.stderr, says, show(done));
    }
  };
  await refused(6, `${mount}/b`, /no room in .*: the files need at least 1[67]\d{6} bytes, and \d+ are free/, all.slice(0, 2));
  await refused(2, `${mount}/not/there`, /its parent directory does not exist/);
  t.is((await run('mount', ['-o', 'remount,ro', mount])).status, 0);
  for (const [status, forms] of [
    [6, all.slice(0, 2)],
    [1, all.slice(2)],
  ] as const) {
    await refused(status, mount, /is on a file system that is mounted read-only\nHINT: choose another directory/, forms);
    await refused(status, `${mount}/b`, /is on a file system that is mounted read-only/, forms);
  }
  const fits = await machine.expect(0, ['backup', '-a', machine.path('b')]);
  t.regex(fits.stdout, /; needs at least 16\.\d MiB of [\d.]+ [KMGT]iB free; nothing was done\n/, show(fits));
});

test('another asmt at work is found by -a', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make', '--stage-size', '64MiB', '--stages', '4', '--fill', '1');
  const directory = machine.path('b');
  await machine.asmt(['backup', '-z', '-t', '1', directory], {
    during: async (child) => {
      while (!machine.names(machine.directory).includes('b') && child.exitCode === null) {
        await new Promise((wake) => {
          setTimeout(wake, 5);
        });
      }
      t.is((await machine.asmt(['backup', '-a', machine.path('c')])).status, 3);
    },
  });
});

testTraced('what a killed restore has left does not keep -a from saying that a restore is possible', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make', '--stripes', '2');
  const before = await machine.memory();
  await machine.expect(0, ['backup', machine.path('b')]);
  await machine.sim('remove');
  await machine.killedRestore(machine.path('b'));
  const left = await machine.memory();
  t.not(left, '');
  const rehearsed = await machine.expect(0, ['restore', '-a', machine.path('b')]);
  t.regex(rehearsed.stderr, /note: a killed restore left \d+ segments, which this restore would remove first\n/);
  t.regex(rehearsed.stdout, /the contents of the files were not read \(asmt verify reads them\); nothing was done\n/);
  t.is(await machine.memory(), left);
  await machine.expect(0, ['restore', machine.path('b')]);
  t.is(await machine.memory(), before);
});

test('what is in memory already, and clean, needs no restore: exit status 7', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make', '--stripes', '2');
  const directory = machine.path('b');
  await machine.expect(0, ['backup', directory]);
  const nothing = async () => {
    for (const words of [['restore'], ['restore', '-a']]) {
      const done = await machine.expect(7, [...words, directory]);
      t.regex(
        done.stderr,
        /namespace 'test' is already in memory and clean: nothing needs restoring\nHINT: start the server without a restore/,
      );
    }
    t.is((await machine.asmt(['-r', '-p', directory])).status, 1);
  };
  await nothing();
  await machine.sim('remove');
  await machine.expect(0, ['restore', directory]);
  await nothing();
  // If a segment is missing, or is not as a start needs it, the restore is refused.
  await machine.sim('remove', '--key', 'ae001101');
  await machine.expect(3, ['restore', directory]);
});
