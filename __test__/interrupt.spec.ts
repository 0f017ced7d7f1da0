/**
 * Signals and progress, beyond what the loops show (`npm run test:faults -- --only kills` sends each signal at every system call):
 * a second signal, ASMT's form, what is drawn on a terminal, and the words with which a second asmt is refused.
 */

import { writeFileSync } from 'node:fs';

import type { ExecutionContext } from 'ava';

import { Machine, show, testTraced, until } from './helpers.ts';

/** A namespace of many chunks, so that there is something to stop. */
const MAKE = ['make', '--stage-size', '32MiB', '--fill', '1', '--stripes', '8'];

async function whole(t: ExecutionContext): Promise<Machine> {
  const machine = await Machine.start(t);
  await machine.sim(...MAKE);
  return machine;
}

testTraced('a second signal is answered, not obeyed', async (t) => {
  const machine = await whole(t);
  const directory = machine.path('b');
  const done = await machine.traced(['pwrite64:delay_enter=100000'], ['backup', '-v', '-t2', directory], {
    during: async (child, output) => {
      await until('something reserved', () => output().includes('asmt: reserved'));
      t.true(machine.names(directory).some((name) => name.startsWith('.asmt-tmp.')));
      child.kill('SIGTERM');
      await until('the first to be answered', () => output().includes('asmt: SIGTERM: stopping and cleaning up\n'));
      child.kill('SIGINT');
    },
  });
  t.is(done.status, 143, show(done));
  t.is(done.stdout, '');
  t.regex(done.stderr, /error: stopped before it was done; everything was cleaned up\nHINT: run it again\n/, show(done));
  t.deepEqual(machine.names(directory), []);
});

testTraced("ASMT's form exits by 1 when it is interrupted", async (t) => {
  const machine = await whole(t);
  const done = await machine.traced(['pwrite64:delay_enter=100000'], ['-bvp', machine.path('b')], {
    during: async (child, output) => {
      await until('something reserved', () => output().includes('asmt: reserved'));
      child.kill('SIGTERM');
    },
  });
  t.is(done.status, 1, show(done));
  t.deepEqual(machine.names(machine.path('b')), []);
});

testTraced('progress: a line every few seconds where there is no terminal', async (t) => {
  const machine = await whole(t);
  const done = await machine.traced(['pwrite64:delay_enter=350000'], ['backup', '-t1', machine.path('b')]);
  t.is(done.status, 0, show(done));
  t.regex(done.stderr, /^asmt: copying .* of .*iB, \d+ %, .*\/s.*\n/, show(done));
});

testTraced('progress: one line drawn again on a terminal, gone at the end', async (t) => {
  const machine = await whole(t);
  // So that nothing is remarked on before the result.
  writeFileSync(machine.config, 'namespace test {\n}\n');
  const done = await machine.tracedOnTerminal(['pwrite64:delay_enter=150000'], ['backup', '-t1', machine.path('b')]);
  t.is(done.status, 0, show(done));
  // oxlint-disable-next-line no-control-regex -- they are what this is about
  t.regex(done.stdout, /\r\u001b\[Kcopying \S+ \w+ of \S+ \wiB, \d+ %, .*\/s, .* left\r\u001b\[K/, show(done));
  // oxlint-disable-next-line no-control-regex -- they are what this is about
  t.regex(done.stdout, /\r\u001b\[Knamespace test of instance 0: 12 segments/, show(done));
});

testTraced('two at once: the second is refused, and harms nothing', async (t) => {
  const machine = await whole(t);
  await machine.sim('make', '--name', 'other', '--nsid', '2');
  await machine.expect(0, ['backup', '-n', 'other', machine.path('other')]);
  await machine.sim('remove', '--nsid', '2');
  const done = await machine.traced(['pwrite64:delay_enter=200000'], ['backup', '-v', machine.path('b')], {
    during: async (child, output) => {
      await until('something reserved', () => output().includes('asmt: reserved'));
      child.kill('SIGSTOP');
      for (const args of [
        ['backup', machine.path('b')],
        ['backup', machine.path('c')],
        ['restore', machine.path('b')],
        ['verify', machine.path('b')],
        ['restore', machine.path('other')],
      ]) {
        const second = await machine.expect(3, args);
        t.regex(second.stderr, /another asmt.*\nHINT: wait/, show(second));
      }
      // Another instance is another server.
      await machine.expect(7, ['backup', '-i4', machine.path('d')]);
      child.kill('SIGCONT');
    },
  });
  t.is(done.status, 0, show(done));
  await machine.expect(0, ['verify', machine.path('b')]);
});
