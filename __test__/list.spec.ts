/** `asmt list`: the namespaces in memory, and whether they can be backed up. */

import { readFileSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';

import test from 'ava';

import { MAIN, Machine, show, testTraced, until } from './helpers.ts';

test('nothing there is a success, said on standard error', async (t) => {
  const machine = await Machine.start(t);
  const done = await machine.expect(0, ['list']);
  t.is(done.stdout, '');
  t.regex(done.stderr, /no Aerospike segments/);
  const { report } = await machine.json(0, ['list']);
  t.deepEqual([report?.namespaces, report?.segments], [[], []]);
});

test('namespaces of all instances, by name, with what is resident', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make', '--name', 'test', '--stages', '3');
  await machine.sim(
    'make',
    '--name',
    'bar',
    '--nsid',
    '2',
    '--instance',
    '3',
    '--si-stages',
    '2',
    '--stripes',
    '8',
    '--data-nsid',
    '5',
  );
  await machine.sim('make', '--name', 'cache', '--nsid', '7', '--no-index', '--stripes', '2');
  await machine.sim('foreign', '--key', '12345678');
  const { report } = await machine.json(0, ['list']);
  const shown = report?.namespaces.map((n) => [n.instance, n.name, n.nsid, n.data_nsid, n.state, n.segment_count]);
  t.deepEqual(shown, [
    [0, 'cache', null, 7, 'data-only', 2],
    [0, 'test', 1, null, 'clean', 5],
    [3, 'bar', 2, 5, 'clean', 15],
  ]);
  for (const namespace of report?.namespaces ?? []) {
    t.true(
      (namespace.resident_bytes ?? 0) > 0 && (namespace.resident_bytes ?? 0) < namespace.size_bytes,
      JSON.stringify(namespace),
    );
  }
  t.is(report?.segments.length, 22);
  t.false(report?.segments.some(({ key }) => key === '12345678'));
  const text = await machine.expect(0, ['list', '-v', '-i', '3']);
  t.regex(text.stdout, /^inst +namespace +nsid/, show(text));
  t.regex(text.stdout, /\n +3 +bar +2 +15 /, show(text));
  t.regex(text.stdout, /\n0xad305007 +\d+ +root +root +0666 +0 +1048576 +3 +5 +bar +data-stage +7 +-\n/, show(text));
  t.notRegex(text.stdout, /cache/, show(text));
  t.regex((await machine.expect(0, ['list', '-n', 'cache'])).stdout, /cache/);
});

test('what was asked for and is not there: a status of its own, and what there is', async (t) => {
  const machine = await Machine.start(t);
  await machine.expect(7, ['list', '-i', '0']);
  await machine.sim('make', '--instance', '3');
  await machine.sim('make', '--name', 'bar', '--nsid', '2', '--instance', '3');
  const holds = /this IPC namespace contains 'test' of instance 3, 'bar' of instance 3\nHINT: asmt list shows everything/;
  for (const [args, found] of [
    [['-n', 'nope'], /error: found no namespace 'nope' in shared memory; /],
    [['-i', '0'], /error: found no Aerospike segments of instance 0 in shared memory; /],
    [['-i', '0', '-n', 'test'], /error: found no namespace 'test' of instance 0 in shared memory; /],
  ] as const) {
    const done = await machine.expect(7, ['list', ...args]);
    t.is(done.stdout, '');
    t.regex(done.stderr, found, show(done));
    t.regex(done.stderr, holds, show(done));
  }
  // The namespaces that are there are shown all the same.
  const part = await machine.expect(7, ['list', '-n', 'nope,bar']);
  t.regex(part.stdout, /\n +3 +bar /, show(part));
  t.regex(part.stderr, /found no namespace 'nope' in/, show(part));
  const { ok, error, report } = await machine.json(7, ['list', '-n', 'nope,bar']);
  t.deepEqual([ok, error?.kind, error?.code, report?.namespaces.length], [false, 'nothing-to-do', 'nothing-found', 1]);
  await machine.expect(0, ['list', '-i', '3', '-n', 'bar']);
});

testTraced('what another asmt is at work on is not called running', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make', '--stage-size', '32MiB', '--fill', '1');
  const directory = machine.path('b');
  const states = async (): Promise<unknown> => (await machine.json(0, ['list'])).report?.namespaces.map(({ state }) => state);
  /** Stops a run in the middle, and lists. */
  const during = async (call: string, word: string, args: string[], expected: string[], look = states) => {
    const done = await machine.traced([`${call}:delay_enter=300000`], [...args, '-v', '-t1', directory], {
      during: async (child, output) => {
        await until(word, () => output().includes(word));
        // Between two segments it has none attached.
        let seen: unknown = null;
        for (let left = 5; left > 0 && !isDeepStrictEqual(seen, expected); left -= 1) {
          child.kill('SIGSTOP');
          seen = await look().finally(() => child.kill('SIGCONT'));
          await setTimeout(50);
        }
        t.deepEqual(seen, expected);
      },
    });
    t.is(done.status, 0, show(done));
  };
  await during('pwrite64', 'asmt: wrote', ['backup'], ['asmt-at-work']);
  await machine.sim('remove');
  await during('pread64', 'asmt: filled', ['restore'], ['asmt-at-work']);
  await machine.sim('remove');
  await during('pread64', 'asmt: filled', ['restore'], ['busy'], async () => {
    const { stdout } = await machine.expect(0, ['list']);
    return /busy: another asmt at work/.test(stdout) ? ['busy'] : [stdout];
  });
  t.deepEqual(await states(), ['clean']);
  // A server beside it counts more.
  const holder = await machine.hold();
  t.deepEqual(await states(), ['running']);
  await holder.end();
});

test('states: running, torn, not cleanly shut down, incomplete, unknown version', async (t) => {
  const machine = await Machine.start(t);
  const state = async () => (await machine.json(0, ['list'])).report?.namespaces.map((namespace) => namespace.state);
  await machine.sim('make', '--stripes', '2');
  t.deepEqual(await state(), ['clean']);
  const holder = await machine.hold();
  t.deepEqual(await state(), ['running']);
  await holder.end();
  await machine.sim('poke', '--key', 'ad001001', '--offset', '56', '--hex', '00');
  t.deepEqual(await state(), ['torn']);
  await machine.sim('poke', '--key', 'ad001001', '--offset', '56', '--hex', '01');
  await machine.sim('poke', '--key', 'ae001000', '--offset', '4', '--hex', '00');
  t.deepEqual(await state(), ['unclean']);
  await machine.sim('poke', '--key', 'ae001000', '--offset', '4', '--hex', '01');
  await machine.sim('poke', '--key', 'ae001000', '--offset', '0', '--hex', '09');
  t.deepEqual(await state(), ['unknown-version']);
  await machine.sim('poke', '--key', 'ae001000', '--offset', '0', '--hex', '0c');
  await machine.sim('remove', '--key', 'ae001101');
  t.deepEqual(await state(), ['incomplete']);
  // Without base, the rest still belongs to that namespace, and is not a whole one that has only
  // data.
  await machine.sim('remove', '--key', 'ae001000');
  const { report } = await machine.json(0, ['list']);
  t.deepEqual(
    report?.namespaces.map(({ name, state: found }) => [name, found]),
    [['test', 'incomplete']],
  );
});

test('a list fits 80 columns, whatever the names and the states are', async (t) => {
  const machine = await Machine.start(t);
  const longest = 'a-name-of-thirty-one-bytes-long';
  await machine.sim('make', '--name', 'users', '--stripes', '2');
  await machine.sim('make', '--name', longest, '--nsid', '2');
  const lines = async () => (await machine.expect(0, ['list'])).stdout.trimEnd().split('\n');
  const [, ...rows] = await lines();
  t.regex(rows[0] ?? '', /^   0  users +1 +6 .* clean: can be backed up$/);
  t.regex(rows[1] ?? '', new RegExp(`^   0  ${longest}$`));
  t.regex(rows[2] ?? '', /^ {10,}2 .* clean: can be backed up$/);
  await machine.sim('poke', '--key', 'ad001001', '--offset', '56', '--hex', '00');
  for (const line of await lines()) t.true(line.length <= 80, line);
});

test('foreign segments are not touched: no attach, no change of times', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make');
  for (const key of [
    '12345678',
    'ae000000',
    'ae001002',
    'ae0010ff',
    'ae001900',
    'ae021000',
    'a2001001',
    'ad001900',
    'af001000',
  ]) {
    await machine.sim('foreign', '--key', key);
  }
  const look = async () =>
    (await machine.exec('cat', ['/proc/sysvipc/shm'])).stdout.split('\n').filter((line) => !/ -?\d{10} .* 666 /.test(line));
  const before = await look();
  await machine.expect(0, ['list', '-v']);
  await machine.expect(0, ['backup', machine.path('b')]);
  const foreign = (lines: string[]) => lines.filter((line) => / 600 +1048576 /.test(line));
  t.is(foreign(before).length, 9);
  t.deepEqual(foreign(await look()), foreign(before));
});

testTraced('a list makes the same system calls for each segment, and looks once at who holds them', async (t) => {
  const calls: number[] = [];
  for (const count of [8, 16, 32]) {
    // One for each: the kernel goes on to new places, and a list looks at freed ones, too.
    const machine = await Machine.start(t);
    const log = machine.path('strace');
    await machine.sim('make', '--stages', '4', '--stripes', String(count), '--data-nsid', '2');
    await machine.sim('foreign', '--key', '12345000', '--count', String(count), '--size', '4KiB');
    const holder = await machine.hold();
    const tracer = ['-f', '-qq', '-o', log, '-e', 'trace=shmctl,shmat,shmdt,openat,readlink,lseek'];
    const done = await machine.exec('strace', [...tracer, process.execPath, MAIN, 'list']);
    t.is(done.status, 0, show(done));
    await holder.end();
    const traced = readFileSync(log, 'utf8').split('\n');
    t.is(traced.filter((line) => line.includes(`"/proc/${holder.pid}/comm"`)).length, 1);
    t.is(traced.filter((line) => line.includes(`"/proc/${holder.pid}/maps"`)).length, 1);
    calls.push(traced.filter((line) => /\bshm\w+\(|map_files/.test(line)).length);
  }
  const [few = 0, more = 0, most = 0] = calls;
  t.true(more > few, calls.join());
  t.is(most - more, 2 * (more - few), calls.join());
});
