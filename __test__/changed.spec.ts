/**
 * A backup while something happens to the segments: after any change it fails and leaves nothing; a
 * mere attach and detach is accepted.
 */

import type { ExecutionContext } from 'ava';

import { IS_REAL_ROOT, Machine, show, testIf, testTraced, until, type Run } from './helpers.ts';

/** Runs a backup that is stopped once it has begun to copy, and continues after `disturb`. */
async function disturbed(machine: Machine, disturb: (machine: Machine) => Promise<unknown>): Promise<Run> {
  return machine.traced(['pwrite64:delay_enter=100000'], ['backup', '-v', '-t2', machine.path('b')], {
    during: async (child, output) => {
      await until('something reserved', () => output().includes('asmt: reserved'));
      child.kill('SIGSTOP');
      try {
        await disturb(machine);
      } finally {
        child.kill('SIGCONT');
      }
    },
  });
}

async function started(t: ExecutionContext): Promise<Machine> {
  const machine = await Machine.start(t);
  // Many chunks, so that the last ones are not copied yet when it is stopped.
  await machine.sim('make', '--stage-size', '32MiB', '--fill', '1', '--stripes', '2');
  return machine;
}

/** The id of a segment. */
async function idOf(machine: Machine, key: string): Promise<string> {
  const { report } = await machine.json(0, ['list', '-v']);
  const id = report?.segments.find((segment) => segment.key === key)?.shmid;
  if (id === undefined || id === null) throw new Error(`no segment ${key}`);
  return String(id);
}

const disturbances: Readonly<
  Record<string, { readonly disturb: (machine: Machine) => Promise<unknown>; readonly message: RegExp }>
> = {
  'a stage was attached and detached again': {
    disturb: (machine) => machine.sim('peek', '--key', 'ae001101', '--offset', '0'),
    message: /segment ae001101 changed while it was copied: another process \(pid \d+\) had it attached\nHINT: /,
  },
  'treex, copied long since, was written to': {
    disturb: (machine) => machine.sim('poke', '--key', 'ae001001', '--offset', '4096', '--hex', '77'),
    message: /segment ae001001 changed while it was copied: another process \(pid \d+\) had it attached\n/,
  },
  "a stripe has another set's random": {
    disturb: (machine) => machine.sim('poke', '--key', 'ad001001', '--offset', '48', '--hex', '77'),
    message: /segment ad001001 changed while it was copied: its header is different\n/,
  },
  'base is no longer marked as clean': {
    disturb: (machine) => machine.sim('poke', '--key', 'ae001000', '--offset', '4', '--hex', '00'),
    message: /segment ae001000 changed while it was copied: its header is different\n/,
  },
  'a stage was removed': {
    disturb: (machine) => machine.sim('remove', '--key', 'ae001101'),
    message: /segment ae001101 changed while it was copied: it (is gone|cannot be looked at any more)/,
  },
  'a stage was removed and made anew': {
    disturb: async (machine) => {
      await machine.sim('remove', '--key', 'ae001101');
      await machine.sim('foreign', '--key', 'ae001101', '--size', '32MiB', '--mode', '666');
    },
    message: /segment ae001101 changed while it was copied: it (is gone|cannot be looked at any more)/,
  },
};

for (const [what, { disturb, message }] of Object.entries(disturbances)) {
  testTraced(`a backup fails, and leaves nothing: ${what}`, async (t) => {
    const machine = await started(t);
    const done = await disturbed(machine, disturb);
    t.is(done.status, 3, show(done));
    t.regex(done.stderr, message, show(done));
    t.deepEqual(machine.names(machine.path('b')), []);
  });
}

const testChosenId = IS_REAL_ROOT ? testTraced : testIf(false, 'only root of the machine may choose the next id');

testChosenId('a backup fails, and leaves nothing: the id of a stage was given to another segment of the same key', async (t) => {
  const machine = await started(t);
  const id = await idOf(machine, 'ae001101');
  const done = await disturbed(machine, async () => {
    await machine.sim('remove', '--key', 'ae001101');
    const chosen = await machine.exec('sh', ['-c', `echo ${id} > /proc/sys/kernel/shm_next_id`]);
    t.is(chosen.status, 0, show(chosen));
    await machine.sim('foreign', '--key', 'ae001101', '--size', '32MiB', '--mode', '666');
    t.is(await idOf(machine, 'ae001101'), id);
  });
  t.is(done.status, 3, show(done));
  t.regex(done.stderr, /segment ae001101 changed while it was copied: another process/, show(done));
  t.deepEqual(machine.names(machine.path('b')), []);
});

testTraced('a backup goes on while somebody lists what there is', async (t) => {
  const machine = await started(t);
  const before = await machine.memory();
  const done = await disturbed(machine, () => machine.expect(0, ['list', '-v']));
  t.is(done.status, 0, show(done));
  await machine.sim('remove');
  await machine.expect(0, ['restore', machine.path('b')]);
  t.is(await machine.memory(), before);
});
