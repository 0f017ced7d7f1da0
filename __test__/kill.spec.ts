/**
 * The state after a kill, beyond the loops (`npm run test:faults -- --only kills` kills at every
 * system call): the clean-up leaves other segments alone, and a name appears when its file is
 * complete.
 */

import { chmodSync, closeSync, copyFileSync, openSync, readFileSync, readSync, writeFileSync } from 'node:fs';

import test, { type ExecutionContext } from 'ava';

import { IS_REAL_ROOT, Machine, show, testTraced } from './helpers.ts';

testTraced('what a killed restore made is removed by the next one, and nothing else is', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make', '--stripes', '2');
  const before = await machine.memory();
  await machine.expect(0, ['backup', machine.path('b')]);
  await machine.sim('remove');
  await machine.sim('make', '--name', 'other', '--instance', '1', '--seed', '5');
  await machine.sim('foreign', '--key', '4711');
  const others = await machine.sim('sum', '--all');
  await machine.killedRestore(machine.path('b'));
  t.not(await machine.sim('sum', '--all'), others);
  const again = await machine.expect(0, ['restore', '-v', machine.path('b')]);
  t.regex(again.stderr, /removed \d+ segments/, show(again));
  for (const line of [...before.trim().split('\n'), ...others.trim().split('\n')])
    t.true((await machine.sim('sum', '--all')).includes(line), line);
});

/** Calls at which a restore of six segments, two of them stripes, is killed. It makes base last. */
const KILLS: readonly (readonly [call: string, state: string])[] = [
  ['shmget:signal=KILL:when=2', 'incomplete'],
  ['shmget:signal=KILL:when=6', 'incomplete'],
  ['shmat:signal=KILL:when=6', 'unknown version'],
  ['shmat:signal=KILL:when=7', 'not cleanly shut down'],
  ['shmat:signal=KILL:when=9', 'not cleanly shut down'],
];

testTraced('a backup of what a killed restore has left is refused, and each hint says to run that restore again', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make', '--stripes', '2');
  const before = await machine.memory();
  await machine.expect(0, ['backup', machine.path('b')]);
  const codes = new Set<string>();
  for (const [call, state] of KILLS) {
    await machine.sim('remove');
    const killed = await machine.traced([call], ['restore', '-t', '1', machine.path('b')]);
    t.is(killed.signal, 'SIGKILL', show(killed));
    t.true((await machine.expect(0, ['list'])).stdout.includes(state), call);
    const { error } = await machine.json(3, ['backup', machine.path('new')]);
    for (const { code, hint } of error?.problems ?? []) {
      codes.add(code);
      t.regex(hint, /if a restore was started and the server has not served since, run that restore again; otherwise/, call);
    }
    await machine.expect(0, ['restore', machine.path('b')]);
    t.is(await machine.memory(), before, call);
  }
  const expected = ['not-cleanly-shut-down', 'segment-invalid', 'segments-incomplete', 'set-torn', 'unknown-version'];
  t.deepEqual([...codes].toSorted(), expected);
});

testTraced("what a killed restore had completed, and a server has used since, is the server's", async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make');
  await machine.expect(0, ['backup', machine.path('b')]);
  await machine.sim('remove');
  // All segments are trusted; the journal is about to be removed.
  const killed = await machine.traced(['rename:signal=KILL'], ['restore', machine.path('b')]);
  t.is(killed.signal, 'SIGKILL', show(killed));
  t.true(machine.names(machine.path('run')).some((name) => name.startsWith('restore-')));
  // Does what a server does from its start to its stop: base and treex are made anew, the stages
  // stay.
  for (const [key, size] of [
    ['ae001000', '64KiB'],
    ['ae001001', '192KiB'],
  ] as const) {
    await machine.sim('remove', '--key', key);
    await machine.sim('foreign', '--key', key, '--size', size);
  }
  const before = await machine.memory();
  const done = await machine.expect(3, ['restore', '-v', machine.path('b')]);
  t.regex(done.stderr, /of its segments are in memory/, show(done));
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
  t.regex(refused.stderr, /its \d+ segments were not removed: another process has one of them attached/, show(refused));
  await holder.end();
  t.is((await machine.memory()).replaceAll(/ 0$/gm, ''), left);
  await machine.expect(0, ['restore', machine.path('b')]);
  t.is(await machine.memory(), before);
});

/**
 * Starts asmt in another place than the killed run, after a change to the killed run's journal.
 */
type Elsewhere = [where: string, starter: readonly string[], change: (journal: string) => void];

const ELSEWHERE: readonly Elsewhere[] = [
  ['in another PID namespace', ['unshare', '--pid', '--fork', '--mount-proc', '--'], () => {}],
  [
    'after the clock was set back',
    ['env'],
    (journal) => {
      const later = (_: string, began: string) => `"began_s":${Number(began) + 1000}`;
      writeFileSync(journal, readFileSync(journal, 'utf8').replace(/"began_s":(\d+)/, later));
    },
  ],
];

async function recoveredElsewhere(t: ExecutionContext, [, starter, change]: Elsewhere): Promise<void> {
  const machine = await Machine.start(t);
  await machine.sim('make', '--stripes', '2');
  const before = await machine.memory();
  await machine.expect(0, ['backup', machine.path('b')]);
  const [head = ''] = readFileSync(machine.path('b', 'asmt-manifest-0-test.json'), 'utf8').split('\n');
  const { ipc_namespace } = JSON.parse(head) as { ipc_namespace: string };
  // Before Linux 6.18 another PID namespace looks like another machine.
  if (!ipc_namespace.startsWith('id:')) {
    t.pass();
    return;
  }
  // After its id was written down, and before that.
  for (const call of ['shmget:signal=KILL:when=4', 'shmat:signal=KILL:when=1']) {
    await machine.sim('remove');
    const killed = await machine.traced([call], ['restore', machine.path('b')]);
    t.is(killed.signal, 'SIGKILL', show(killed));
    t.not(await machine.memory(), '');
    const journal = machine.names(machine.path('run')).find((name) => name.startsWith('restore-')) ?? '';
    change(machine.path('run', journal));
    const [command, ...words] = [...starter, process.execPath, 'dist/main.js', 'restore', '-v'];
    const again = await machine.exec(command, [...words, '--allow-private-ipc', machine.path('b')]);
    t.is(again.status, 0, show(again));
    t.regex(again.stderr, /removed \d+ segments left by a killed restore/, show(again));
    t.is(await machine.memory(), before);
  }
}

for (const elsewhere of ELSEWHERE) {
  testTraced(`what a killed restore made is removed by the next one, ${elsewhere[0]}`, async (t) => {
    if (IS_REAL_ROOT) await recoveredElsewhere(t, elsewhere);
    else t.pass('a PID namespace needs a mount of its own');
  });
}

testTraced('a killed backup of another instance is none of this one’s business', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make');
  await machine.sim('make', '--instance', '1', '--name', 'other');
  await machine.expect(0, ['backup', machine.path('b')]);
  const killed = await machine.traced(['renameat2:signal=KILL:when=3'], ['backup', '-i', '1', machine.path('b')]);
  t.is(killed.signal, 'SIGKILL', show(killed));
  await machine.expect(0, ['verify', '-i', '0', machine.path('b')]);
  t.regex((await machine.expect(5, ['verify', '-i', '1', machine.path('b')])).stderr, /'other' of instance 1 was interrupted/);
  await machine.sim('remove');
  await machine.expect(0, ['restore', machine.path('b')]);
});

for (const [whose, hasManifest] of [
  ['asmt', true],
  ['ASMT', false],
] as const) {
  testTraced(`a good backup of ${whose}’s where a killed one has left its journal is restored`, async (t) => {
    const machine = await Machine.start(t);
    await machine.sim('make', '--stage-size', '64KiB', '--mode', '600');
    const before = await machine.memory();
    await machine.expect(0, ['backup', machine.path('good')]);
    const good = machine.names(machine.path('good')).filter((name) => hasManifest || name.endsWith('.dat'));
    for (const when of [2, 3, 4, 5]) {
      const directory = machine.path(`b${when}`);
      const killed = await machine.traced([`renameat2:signal=KILL:when=${when}`], ['backup', directory]);
      t.is(killed.signal, 'SIGKILL', show(killed));
      // Over the existing files: the names keep their inodes.
      for (const name of good) {
        copyFileSync(machine.path('good', name), `${directory}/${name}`);
        chmodSync(`${directory}/${name}`, 0o600);
      }
      await machine.sim('remove');
      await machine.expect(0, ['verify', directory]);
      await machine.expect(0, ['restore', directory]);
      t.is(await machine.memory(), before);
      t.regex((await machine.expect(3, ['backup', directory])).stderr, /b\d( already)? (holds|contains)|the directory contains/);
    }
  });
}

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
