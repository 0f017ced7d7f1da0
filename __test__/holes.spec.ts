/**
 * Memory that was never used takes no memory after a restore, almost no room on the disk, and
 * almost no time, in any form of backup, and however it was copied.
 */

import { spawnSync } from 'node:child_process';
import { lstatSync, readFileSync, unlinkSync } from 'node:fs';

import test from 'ava';

import { MAIN, MANIFEST, Machine, manifestLines, sealManifest, show, testTraced } from './helpers.ts';

/** Copies a backup like a program that knows no holes: tar, scp, an object store. */
function copyWithoutHoles(machine: Machine, from: string, to: string): string {
  const target = machine.path(to);
  const done = spawnSync('cp', ['-a', '--sparse=never', machine.path(from), target]);
  if (done.status !== 0) throw new Error(String(done.stderr));
  return target;
}

/** The bytes that the files of segments in a directory occupy. */
function occupied(machine: Machine, directory: string): number {
  const names = machine.names(directory).filter((name) => /\.dat(\.gz)?$/.test(name));
  return names.reduce((sum, name) => sum + lstatSync(`${directory}/${name}`).blocks * 512, 0);
}

/** Segments of 'test' with their lines of the manifest. */
interface Line {
  key: string;
  size: number;
  data_size?: number;
  zero_chunks: [number, number][];
}

/** Changes the line of a segment in the manifest of a backup. */
function change(directory: string, key: string, by: (line: Line) => object): void {
  const [head = '', ...lines] = manifestLines(directory);
  const changed = lines.map((text) => {
    const line = JSON.parse(text) as Line;
    return line.key === key ? JSON.stringify(by(line)) : text;
  });
  sealManifest(directory, [head, ...changed]);
}

test('a plain backup whose files have lost their holes comes back with no more in memory than before', async (t) => {
  const machine = await Machine.start(t);
  // One stage with data in front, and pages far apart from each other; and one without data.
  await machine.sim(
    'make',
    '--stages',
    '2',
    '--stage-size',
    '64MiB',
    '--fill',
    '0.02',
    '--stripes',
    '1',
    '--stripe-size',
    '16MiB',
  );
  for (let offset = 8; offset < 64; offset += 3) {
    await machine.sim('poke', '--key', 'ae001100', '--offset', String(offset * 2 ** 20 + 5), '--hex', 'c0ffee');
  }
  const before = await machine.sim('sum', '--sparse', '--resident');
  const resident = before
    .trim()
    .split('\n')
    .reduce((sum, line) => sum + Number(line.split(' ')[7]), 0);
  await machine.expect(0, ['backup', machine.path('b')]);
  await machine.sim('remove');
  const dense = copyWithoutHoles(machine, 'b', 'dense');
  t.true(occupied(machine, dense) > 144 * 2 ** 20 && occupied(machine, machine.path('b')) < 1.5 * resident);
  const restored = async (directory: string, ...args: string[]) => {
    const { report } = await machine.json(0, ['restore', '-c', ...args, directory]);
    const after = await machine.sim('sum', '--sparse', '--resident');
    await machine.sim('remove');
    return { after, report };
  };
  for (const directory of [machine.path('b'), dense]) {
    const { after, report } = await restored(directory);
    t.is(after, before, directory);
    t.is(report?.data_bytes, resident, directory);
    // The copy's blocks may still change, because it is not on the disk yet.
    if (directory !== dense) t.is(report?.namespaces[0]?.allocated_bytes, occupied(machine, directory));
  }
  // A backup from before data was noted: the zero chunks in the manifest show that the holes are
  // lost.
  for (const key of ['ae001100', 'ae001101', 'ad001000']) change(dense, key, (line) => ({ ...line, data_size: undefined }));
  t.is((await restored(dense)).after, before);
  // Another tool's backup, in which nothing shows what was a hole.
  unlinkSync(`${dense}/${MANIFEST}`);
  unlinkSync(`${dense}/asmt-used-0-test.json`);
  const foreign = (await restored(dense, '--force-stale')).after;
  t.deepEqual(foreign.replaceAll(/ 600 0 /g, ' 666 0 '), before);
});

test('data that a manifest lies about is refused by name', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make', '--stages', '1', '--stage-size', '32MiB', '--fill', '0.5');
  for (const z of [[], ['-z']]) {
    const directory = machine.path(`b${z.join('')}`);
    await machine.expect(0, ['backup', ...z, directory]);
    const honest = manifestLines(directory);
    const line = honest.map((text) => JSON.parse(text) as Line).find(({ key }) => key === 'ae001100');
    t.true((line?.data_size ?? 0) > 15 * 2 ** 20 && (line?.zero_chunks.length ?? 0) > 0, JSON.stringify(line));
    const first = line?.zero_chunks[0]?.[0] ?? 0;
    // It is not known before the file is read.
    change(directory, 'ae001100', (own) => ({ ...own, data_size: 4096 }));
    const found = (await machine.json(5, ['verify', directory])).error;
    t.is(found?.code, 'content-damaged');
    t.regex(found?.message ?? '', /ae001100.* bytes of data so far, expected 4096 in all/);
    for (const lie of [{ data_size: 33 * 2 ** 20 }, { data_size: 32 * 2 ** 20 }, { zero_chunks: [[first - 1, 2]] }]) {
      sealManifest(directory, honest);
      change(directory, 'ae001100', (own) => ({ ...own, ...lie }));
      const { error } = await machine.json(5, ['verify', directory]);
      t.is(error?.code, 'manifest-damaged', JSON.stringify(lie));
      t.regex(error?.message ?? '', /ae001100: (chunk \d+ is listed as zeros but has CRC-32|it lists \d+ bytes of data)/);
    }
    sealManifest(directory, honest);
    await machine.expect(0, ['verify', directory]);
  }
  await machine.sim('remove');
  // A restore finds it, too, even where it otherwise reads straight into memory.
  for (const directory of [machine.path('b'), machine.path('b-z')]) {
    change(directory, 'ae001100', (own) => ({ ...own, data_size: 4096 }));
    const { error } = await machine.json(5, ['restore', directory]);
    t.regex(error?.message ?? '', /ae001100.* bytes of data so far, expected 4096 in all/);
    t.is(await machine.memory(), '');
  }
});

test('a zero chunk whose bytes are something else is damage', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make', '--stages', '1', '--stage-size', '64MiB', '--fill', '0.2');
  await machine.expect(0, ['backup', '-z', machine.path('b')]);
  await machine.sim('remove');
  const file = machine.path('b', 'ae001100.dat.gz');
  const whole = readFileSync(file);
  // In the last chunk, which is one of zeros, after the first of them.
  const damaged = await machine.exec('sh', [
    '-c',
    `printf '\\377' | dd of=${file} bs=1 seek=${whole.length - 10 - 4096 - 2000} conv=notrunc status=none`,
  ]);
  t.is(damaged.status, 0, show(damaged));
  for (const verb of ['verify', 'restore']) {
    const { error } = await machine.json(5, [verb, machine.path('b')]);
    t.is(error?.code, 'content-damaged');
    t.is(error?.file, 'ae001100.dat.gz');
  }
  t.is(await machine.memory(), '');
});

test('with -z, what was hardly used is written plain, and takes no more room than without', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make', '--stages', '3', '--stage-size', '512MiB', '--fill', '0.001');
  const before = await machine.sim('sum', '--sparse', '--resident');
  await machine.expect(0, ['backup', machine.path('plain')]);
  const note =
    /note: namespace 'test': 3 of 5 segments \(the first is ae001100\) are written uncompressed: almost all of each was never used/;
  const planned = await machine.expect(0, ['backup', '-azv', machine.path('z')]);
  t.regex(planned.stderr, note, show(planned));
  t.regex(planned.stdout, /0xae001100 +ae001100\.dat +512 MiB/, show(planned));
  const done = await machine.expect(0, ['backup', '-zc', machine.path('z')]);
  t.regex(done.stderr, note, show(done));
  t.deepEqual(
    machine.names(machine.path('z')).filter((name) => name.endsWith('.gz')),
    ['ae001001.dat.gz'],
  );
  t.true(occupied(machine, machine.path('z')) <= 1.05 * occupied(machine, machine.path('plain')));
  await machine.sim('remove');
  await machine.expect(0, ['verify', machine.path('z')]);
  await machine.expect(0, ['restore', '-c', machine.path('z')]);
  t.is(await machine.sim('sum', '--sparse', '--resident'), before);
});

testTraced('runs of zeros in a compressed file are written and read many at a time', async (t) => {
  const machine = await Machine.start(t);
  // 250 chunks of zeros, one sector each.
  await machine.sim('make', '--stages', '1', '--stage-size', '1GiB', '--fill', '0.03');
  const before = await machine.sim('sum', '--sparse', '--resident');
  const calls = async (call: string, args: readonly string[]) => {
    const log = machine.path('log');
    const words = ['-f', '-qq', '-y', '-o', log, '-e', `trace=${call}`, process.execPath, MAIN, ...args];
    const done = await machine.exec('strace', words);
    t.is(done.status, 0, show(done));
    return readFileSync(log, 'utf8').match(new RegExp(`${call}\\(\\d+<[^>]*ae001100\\.dat\\.gz`, 'g'))?.length ?? 0;
  };
  const counts = [
    await calls('pwrite64', ['backup', '-z', machine.path('b')]),
    await calls('pread64', ['verify', machine.path('b')]),
  ];
  const { report } = await machine.json(0, ['verify', machine.path('b')]);
  const stage = before.split('\n').find((line) => line.startsWith('ae001100')) ?? '';
  await machine.sim('remove');
  counts.push(await calls('pread64', ['restore', machine.path('b')]));
  // 8 chunks of data, a run of zeros, and the calls around them.
  for (const count of counts) t.true(count >= 9 && count < 20, String(counts));
  t.is(await machine.sim('sum', '--sparse', '--resident'), before, stage);
  // Data counts as data, compressed or not.
  t.true((report?.data_bytes ?? 0) < 0.035 * 2 ** 30 && (report?.data_bytes ?? 0) > 0.03 * 2 ** 30, String(report?.data_bytes));
  t.true((report?.total_bytes ?? 0) > 2 ** 30);
});
