/**
 * SIGKILL at each system call that changes something, one after the other until a run passes: afterwards there is
 * everything or nothing that a start would trust, and the next run succeeds with no hand laid on.
 */

import { closeSync, openSync, readSync } from 'node:fs';

import test, { type ExecutionContext } from 'ava';

import { IS_REAL_ROOT, Machine, show, testTraced } from './helpers.ts';

/** Calls of the engine alone: Node makes none of these at start. */
const BACKUP_CALLS = [
  'mkdirat',
  'flock',
  'fallocate',
  'ftruncate',
  'fsync',
  'renameat2',
  'unlinkat',
  ...(IS_REAL_ROOT ? ['fchown'] : []),
];
const RESTORE_CALLS = ['shmget', 'shmat', 'shmctl', 'shmdt', 'unlink'];
/** Another owner, so that there is something to give away. */
const MAKE = [
  'make',
  '--si-stages',
  '1',
  '--stripes',
  '2',
  '--stage-size',
  '512KiB',
  ...(IS_REAL_ROOT ? ['--uid', '12345'] : []),
];
const MOST_KILLS = 200;

function baseIsThere(machine: Machine, directory: string): boolean {
  return machine.names(directory).includes('ae001000.dat');
}

/** Shutdown word of base, as a server would find it. */
async function isTrusted(machine: Machine): Promise<boolean> {
  const memory = await machine.memory();
  return (
    memory.includes('ae001000') &&
    (await machine.sim('peek', '--key', 'ae001000', '--offset', '4', '--length', '4')) === '01000000\n'
  );
}

async function killBackup(t: ExecutionContext, call: string, z: readonly string[]): Promise<number> {
  for (let when = 1; when <= MOST_KILLS; when += 1) {
    const machine = await Machine.start(t);
    await machine.sim(...MAKE);
    const before = await machine.memory();
    const directory = machine.path('b');
    const killed = await machine.traced([`${call}:signal=KILL:when=${when}`], ['backup', '-t1', ...z, directory]);
    if (killed.signal === null) {
      t.is(killed.status, 0, show(killed));
      return when - 1;
    }
    t.is(killed.signal, 'SIGKILL', show(killed));
    t.is(await machine.memory(), before);
    await machine.sim('remove');
    // Our restore takes what is committed and nothing else; ASMT takes what has base.
    const isCommitted = baseIsThere(machine, directory);
    const restored = await machine.asmt(['restore', directory]);
    t.is(restored.status === 0, isCommitted, `${call} ${when}\n${machine.names(directory).join('\n')}\n${show(restored)}`);
    t.is(await machine.memory(), isCommitted ? before : '', `${call} ${when}\n${show(restored)}`);
    t.true(isCommitted || [2, 5, 7].includes(restored.status ?? -1), show(restored));
    // The next backup needs no hand laid on; if the killed one had committed, it is in the way like any other.
    await machine.sim('remove');
    await machine.sim(...MAKE);
    const again = await machine.asmt(['backup', ...z, directory]);
    t.is(again.status, isCommitted ? 3 : 0, `${call} ${when}\n${show(again)}`);
    await machine.sim('remove');
    const back = await machine.expect(0, ['restore', directory]);
    t.is(await machine.memory(), before, show(back));
    t.deepEqual(
      machine.names(directory).filter((name) => name.startsWith('.') && !isCommitted),
      [],
      `${call} ${when}`,
    );
  }
  t.fail(`${call} never passed`);
  return 0;
}

for (const call of BACKUP_CALLS) {
  testTraced(`a backup killed at each ${call} leaves all or nothing, and the next one succeeds`, async (t) => {
    t.timeout(300_000);
    const states = await killBackup(t, call, call === 'fsync' ? ['-z'] : []);
    t.log(`${states} states tried`);
    t.true(states > 0);
  });
}

for (const call of RESTORE_CALLS) {
  testTraced(`a restore killed at each ${call} leaves nothing that is trusted, and the next one succeeds`, async (t) => {
    t.timeout(300_000);
    const machine = await Machine.start(t);
    await machine.sim(...MAKE);
    const before = await machine.memory();
    await machine.expect(0, ['backup', machine.path('b')]);
    let when = 1;
    for (; when <= MOST_KILLS; when += 1) {
      await machine.sim('remove');
      const killed = await machine.traced([`${call}:signal=KILL:when=${when}`], ['restore', '-c', '-t1', machine.path('b')]);
      if (killed.signal === null) {
        t.is(killed.status, 0, show(killed));
        t.is(await machine.memory(), before);
        break;
      }
      if (await isTrusted(machine)) {
        t.is(await machine.memory(), before, `${call} ${when}`);
        // It had committed: the next one says that it is all there.
        await machine.expect(3, ['restore', machine.path('b')]);
      } else {
        const again = await machine.asmt(['restore', machine.path('b')]);
        t.is(again.status, 0, `${call} ${when}\n${show(again)}`);
      }
      t.is(await machine.memory(), before, `${call} ${when}`);
      t.deepEqual(
        machine.names(machine.path('run')).filter((name) => !name.endsWith('.lock')),
        [],
        `${call} ${when}`,
      );
    }
    t.log(`${when - 1} states tried`);
    t.true(when > 1 && when <= MOST_KILLS);
  });
}

testTraced('what a killed restore made is removed by the next one, and nothing else is', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make', '--stripes', '2');
  const before = await machine.memory();
  await machine.expect(0, ['backup', machine.path('b')]);
  await machine.sim('remove');
  await machine.sim('make', '--name', 'other', '--nsid', '2', '--seed', '5');
  await machine.sim('foreign', '--key', '4711');
  const others = await machine.sim('sum', '--all');
  const killed = await machine.traced(['shmget:signal=KILL:when=4'], ['restore', machine.path('b')]);
  t.is(killed.signal, 'SIGKILL', show(killed));
  t.not(await machine.sim('sum', '--all'), others);
  const again = await machine.expect(0, ['restore', '-v', machine.path('b')]);
  t.regex(again.stderr, /removed \d+ segments/, show(again));
  for (const line of [...before.trim().split('\n'), ...others.trim().split('\n')])
    t.true((await machine.sim('sum', '--all')).includes(line), line);
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
