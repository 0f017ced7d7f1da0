/**
 * What a kill leaves, beyond what the loops show (`npm run test:faults -- --only kills` kills at every system call): other
 * segments are let be when it is cleaned up, and a name appears when its file is whole.
 */

import { closeSync, openSync, readSync } from 'node:fs';

import test from 'ava';

import { Machine, show, testTraced } from './helpers.ts';

testTraced('what a killed restore made is removed by the next one, and nothing else is', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make', '--stripes', '2');
  const before = await machine.memory();
  await machine.expect(0, ['backup', machine.path('b')]);
  await machine.sim('remove');
  await machine.sim('make', '--name', 'other', '--nsid', '2', '--seed', '5');
  await machine.sim('foreign', '--key', '4711');
  const others = await machine.sim('sum', '--all');
  await machine.killedRestore(machine.path('b'));
  t.not(await machine.sim('sum', '--all'), others);
  const again = await machine.expect(0, ['restore', '-v', machine.path('b')]);
  t.regex(again.stderr, /removed \d+ segments/, show(again));
  for (const line of [...before.trim().split('\n'), ...others.trim().split('\n')])
    t.true((await machine.sim('sum', '--all')).includes(line), line);
});

testTraced("what a killed restore had completed, and a server has used since, is the server's", async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make');
  await machine.expect(0, ['backup', machine.path('b')]);
  await machine.sim('remove');
  // All of it is trusted; the journal is about to go.
  const killed = await machine.traced(['unlink:signal=KILL'], ['restore', machine.path('b')]);
  t.is(killed.signal, 'SIGKILL', show(killed));
  t.true(machine.names(machine.path('run')).some((name) => name.startsWith('restore-')));
  // As a server from its start to its stop: base and treex are made anew, the stages stay.
  for (const [key, size] of [
    ['ae001000', '64KiB'],
    ['ae001001', '192KiB'],
  ] as const) {
    await machine.sim('remove', '--key', key);
    await machine.sim('foreign', '--key', key, '--size', size);
  }
  const before = await machine.memory();
  const done = await machine.expect(3, ['restore', '-v', machine.path('b')]);
  t.regex(done.stderr, /segments of it are in memory/, show(done));
  t.is(await machine.memory(), before);
  t.deepEqual(
    machine.names(machine.path('run')).filter((name) => name.startsWith('restore-')),
    [],
  );
});

testTraced('what a killed restore made stays while somebody has it attached, and is removed by the run after that', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make');
  const before = await machine.memory();
  await machine.expect(0, ['backup', machine.path('b')]);
  await machine.sim('remove');
  await machine.killedRestore(machine.path('b'));
  const left = (await machine.memory()).replaceAll(/ 0$/gm, '');
  const holder = await machine.hold(left.split(' ')[0]);
  const refused = await machine.expect(3, ['restore', '-v', machine.path('b')]);
  t.regex(refused.stderr, /its \d+ segments stay: somebody has one of them attached/, show(refused));
  await holder.end();
  t.is((await machine.memory()).replaceAll(/ 0$/gm, ''), left);
  await machine.expect(0, ['restore', machine.path('b')]);
  t.is(await machine.memory(), before);
});

test('base is written under its final name in one step, and last', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make', '--stage-size', '16MiB', '--fill', '1');
  let isBaseWhole = true;
  const done = await machine.asmt(['backup', machine.path('b')], {
    during: async (child) => {
      while (child.exitCode === null && child.signalCode === null) {
        const names = machine.names(machine.path('b'));
        if (names.includes('ae001000.dat')) {
          const file = openSync(machine.path('b', 'ae001000.dat'), 'r');
          const bytes = Buffer.alloc(8);
          readSync(file, bytes, 0, 8, 0);
          closeSync(file);
          isBaseWhole &&=
            bytes.readUInt32LE(0) === 12 &&
            ['ae001001.dat', 'ae001100.dat', 'ae001101.dat'].every((name) => names.includes(name));
        }
        await new Promise((wake) => {
          setTimeout(wake, 1);
        });
      }
    },
  });
  t.is(done.status, 0, show(done));
  t.true(isBaseWhole);
});
