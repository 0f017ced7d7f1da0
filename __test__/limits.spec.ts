/**
 * Large numbers and extremes: segments past 4 GiB, more files than the limit allows, names and
 * numbers at their ends.
 */

import { lstatSync } from 'node:fs';

import test from 'ava';

import { Machine, show } from './helpers.ts';

test('a segment over 4 GiB, sparse, goes through -z -c and back (row 1)', async (t) => {
  const machine = await Machine.start(t);
  // There is data in front, enough to be compressed, and behind the first 4 GiB: nothing else is
  // resident.
  await machine.sim('make', '--stages', '1', '--si-stages', '1', '--si-stage-size', '4608MiB', '--si-fill', '0.03');
  await machine.sim('poke', '--key', 'a2001100', '--offset', String(4 * 2 ** 30 + 12_345), '--hex', 'c0ffee');
  const before = await machine.sim('sum', '--sparse', '--resident');
  t.regex(before, /a2001100 4831838208 /);
  for (const z of [['-z'], []]) {
    const directory = machine.path(`b${z.join('')}`);
    const made = await machine.expect(0, ['backup', '-c', ...z, directory]);
    t.regex(made.stdout, /4\.5\d GiB/, show(made));
    await machine.sim('remove');
    await machine.expect(0, ['restore', '-c', directory]);
    t.is((await machine.sim('sum', '--sparse')).replaceAll(/ 0\n/g, ' 0\n'), before.replaceAll(/ \d+\n/g, '\n'));
    t.is(await machine.sim('peek', '--key', 'a2001100', '--offset', String(4 * 2 ** 30 + 12_345), '--length', '3'), 'c0ffee\n');
    const file = lstatSync(machine.path(`b${z.join('')}`, `a2001100.dat${z.length > 0 ? '.gz' : ''}`));
    t.true(file.blocks * 512 < 192 * 2 ** 20, String(file.blocks));
  }
});

for (const [count, limit] of [
  [300, 256],
  [1100, 1024],
] as const) {
  test(`${count} segments go through with at most ${limit} open files`, async (t) => {
    t.timeout(300_000);
    const machine = await Machine.start(t);
    const stages = String(count - 2);
    await machine.sim('make', '--stages', stages, '--stage-size', '64KiB', '--mode', '600');
    const before = await machine.memory();
    t.is(before.trim().split('\n').length, count);
    const limited = (args: string[]) =>
      machine.exec('sh', [
        '-c',
        `ulimit -n ${limit} && exec "$@"`,
        'sh',
        process.execPath,
        `${import.meta.dirname}/../dist/main.js`,
        ...args,
      ]);
    for (const args of [
      ['backup', '-zc', machine.path('b')],
      ['verify', machine.path('b')],
    ]) {
      const done = await limited(args);
      t.is(done.status, 0, show(done));
    }
    await machine.sim('remove');
    const restored = await limited(['restore', '-c', '-t1024', machine.path('b')]);
    t.is(restored.status, 0, show(restored));
    t.is(await machine.memory(), before);
  });
}

test('a name of 31 characters, nsid 32, instance 15, stripes under another nsid', async (t) => {
  const machine = await Machine.start(t);
  const name = 'n23456789-123456789-123456789-1';
  await machine.sim(
    'make',
    '--name',
    name,
    '--nsid',
    '32',
    '--instance',
    '15',
    '--stages',
    '1',
    '--si-stages',
    '1',
    '--stripes',
    '2',
    '--data-nsid',
    '31',
  );
  const before = await machine.memory();
  t.regex(before, /^a2f20000 .*\na2f20100 .*\nadf1f000 .*\nadf1f001 .*\naef20000 /);
  await machine.expect(0, ['backup', '-i15', `-n${name}`, machine.path('b')]);
  t.true(machine.names(machine.path('b')).includes(`asmt-manifest-15-${name}.json`));
  await machine.sim('remove');
  await machine.expect(0, ['restore', '-i15', machine.path('b')]);
  t.is(await machine.memory(), before);
});

test('one stage, one stripe; a name with characters that a file name may not have', async (t) => {
  const machine = await Machine.start(t);
  for (const name of ['x', 'a/b', '..', 'a b', 'ä%', '-n']) {
    await machine.sim('make', '--name', name, '--stages', '1', '--stripes', '1');
    const before = await machine.memory();
    const directory = machine.path(`b${Buffer.from(name).toString('hex')}`);
    await machine.expect(0, ['backup', directory]);
    t.is(machine.names(directory).length, 5, name);
    await machine.sim('remove');
    await machine.expect(0, ['restore', `--namespace=${name}`, directory]);
    t.is(await machine.memory(), before, name);
    await machine.sim('remove');
  }
});

test('more threads than there is work for', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make', '--no-index', '--stripes', '1');
  const before = await machine.memory();
  await machine.expect(0, ['backup', '-t', '1024', machine.path('b')]);
  await machine.sim('remove');
  await machine.expect(0, ['restore', '-t', '1024', machine.path('b')]);
  t.is(await machine.memory(), before);
});
