/**
 * Backups made by ASMT 2.2.1, and by each release of asmt, come back exactly; with the real tool at
 * hand (`ASMT_REFERENCE`), in both directions.
 */

import { chmodSync, cpSync, readFileSync, readdirSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import test, { type ExecutionContext } from 'ava';

import { GOLDEN, GOLDEN_OWN, Machine, show, testAsRoot, testIf } from './helpers.ts';

const INSTANCES: Readonly<Record<string, string>> = {
  'gz-crc-all': '3',
  'gz-index': '0',
  'raw-all': '1',
  'raw-data-only': '0',
  'raw-index': '0',
};

test('every golden folder is known here', (t) => {
  t.deepEqual(
    readdirSync(GOLDEN)
      .filter((name) => name !== 'README.md')
      .toSorted(),
    Object.keys(INSTANCES).toSorted(),
  );
});

for (const form of ['plain', 'gzip', 'columns']) {
  test(`a backup of 0.1.0 is verified and restored exactly: ${form}`, async (t) => {
    const machine = await Machine.start(t);
    const directory = machine.path(form);
    cpSync(join(GOLDEN_OWN, form), directory, { recursive: true });
    chmodSync(directory, 0o700);
    for (const name of readdirSync(directory)) chmodSync(join(directory, name), 0o600);
    await machine.expect(0, ['verify', directory]);
    t.is((await machine.json(4, ['restore', directory])).error?.problems[0]?.kind, 'stale', 'another host, another boot');
    await machine.expect(0, ['restore', '-c', '--force-stale', '--force-host', directory]);
    t.is(await machine.memory(), readFileSync(join(GOLDEN_OWN, 'segments.txt'), 'utf8'));
  });
}

for (const [name, instance] of Object.entries(INSTANCES)) {
  // Its owner is another user.
  const testThis: (title: string, body: (t: ExecutionContext) => unknown) => void = name === 'raw-all' ? testAsRoot : test;
  testThis(`${name} is restored exactly`, async (t) => {
    const machine = await Machine.start(t);
    const { directory, segments } = machine.golden(name);
    const form = ['-r', '-i', instance, '-p', directory];
    for (const args of [['restore', '-i', instance, directory], ['restore', '-c', '-i', instance, directory], form]) {
      const done = await machine.expect(0, args);
      t.regex(done.stderr, /without a manifest: \d+ of \d+ files are uncompressed and cannot be checked/, show(done));
      t.is(await machine.memory(), segments, show(done));
      await machine.sim('remove');
    }
    await machine.expect(0, ['verify', directory]);
    // A backup of the restored segments comes back, too.
    await machine.expect(0, ['restore', '-i', instance, directory]);
    await machine.expect(0, ['backup', '-zc', '-i', instance, machine.path('ours')]);
    await machine.sim('remove');
    await machine.expect(0, ['restore', '--require-manifest', '-i', instance, machine.path('ours')]);
    t.is(await machine.memory(), segments);
  });
}

const spoils: Record<string, (file: Buffer) => Buffer> = {
  'its last byte missing': (file) => file.subarray(0, -1),
  'its tail missing': (file) => file.subarray(0, -8),
  'cut short': (file) => file.subarray(0, 200),
  'a byte behind it': (file) => Buffer.concat([file, Buffer.of(0)]),
  'a second member behind it': (file) => Buffer.concat([file, file.subarray(24)]),
  'another length in its tail': (file) => Buffer.concat([file.subarray(0, -4), Buffer.of(0, 0, 32, 0)]),
  'another CRC in its header': (file) => Buffer.concat([file.subarray(0, 16), Buffer.of(1), file.subarray(17)]),
  'a size in its header that is not that of the data': (file) =>
    Buffer.concat([file.subarray(0, 8), Buffer.of(0, 0, 8), file.subarray(11)]),
  'a size in its header near 2^63': (file) =>
    Buffer.concat([file.subarray(0, 8), Buffer.alloc(7, 255), Buffer.of(127), file.subarray(16)]),
  'data that is no deflate': (file) => Buffer.concat([file.subarray(0, 40), Buffer.alloc(64, 255), file.subarray(104)]),
};

for (const [what, spoil] of Object.entries(spoils)) {
  test(`a gzip file of ASMT is read to its last byte: ${what}`, async (t) => {
    const machine = await Machine.start(t);
    const { directory } = machine.golden('gz-index');
    const file = join(directory, 'ae001101.dat.gz');
    writeFileSync(file, spoil(readFileSync(file)));
    for (const verb of ['verify', 'restore']) {
      const done = await machine.expect(5, [verb, directory]);
      t.regex(done.stderr, /ae001101\.dat\.gz/, show(done));
      t.is(await machine.memory(), '');
    }
  });
}

test('a gzip file with its magic in the reversed order is accepted', async (t) => {
  const machine = await Machine.start(t);
  const { directory, segments } = machine.golden('gz-index');
  const file = join(directory, 'ae001101.dat.gz');
  writeFileSync(file, Buffer.concat([Buffer.from('TMSA'), readFileSync(file).subarray(4)]));
  await machine.expect(0, ['restore', directory]);
  t.is(await machine.memory(), segments);
});

const tears: Readonly<Record<string, { readonly tear: (path: (name: string) => string) => void; readonly message: RegExp }>> = {
  'a stripe is missing': {
    tear: (path) => unlinkSync(path('ad007002.dat')),
    message: /namespace 'cache': data stripe ad007000 counts 3 data stripes, found 2/,
  },
  'the first stripe is missing': {
    tear: (path) => unlinkSync(path('ad007000.dat')),
    message: /namespace 'cache': missing data stripes: 0\n/,
  },
  'stripes belong to two sets': {
    tear: (path) => overwrite(path('ad007001.dat'), 48, Buffer.of(1)),
    message: /two sets: ad007000 has random 1122334455667788, ad007001 has random 1122334455667701/,
  },
  'a stripe is not trusted': {
    tear: (path) => overwrite(path('ad007001.dat'), 56, Buffer.of(0)),
    message: /data stripe ad007001 is not marked as trusted/,
  },
};

function overwrite(file: string, offset: number, bytes: Buffer) {
  const contents = readFileSync(file);
  bytes.copy(contents, offset);
  writeFileSync(file, contents);
}

for (const [what, { tear, message }] of Object.entries(tears)) {
  test(`a backup of ASMT's that a server would not start with is refused, whatever is forced: ${what}`, async (t) => {
    const machine = await Machine.start(t);
    const { directory } = machine.golden('raw-data-only');
    tear((name) => join(directory, name));
    for (const args of [['verify'], ['restore'], ['restore', '--force-stale', '--force-host']]) {
      const done = await machine.expect(5, [...args, directory]);
      t.regex(done.stderr, message, show(done));
      t.is(await machine.memory(), '');
    }
    const { error } = await machine.json(5, ['restore', directory]);
    t.true(
      error?.problems.every((problem) => problem.code === 'backup-set-torn'),
      JSON.stringify(error),
    );
  });
}

const reference = process.env['ASMT_REFERENCE'] ?? '';

testIf(reference !== '', 'ASMT_REFERENCE names no ASMT binary')('ASMT restores ours, and we restore its', async (t) => {
  for (const z of [[], ['-z']]) {
    const machine = await Machine.start(t);
    await machine.sim('make', '--si-stages', '1');
    const before = await machine.memory();
    await machine.expect(0, ['backup', ...z, machine.path('ours')]);
    const made = await machine.exec(reference, ['-b', ...z, '-n', 'test', '-p', machine.path('theirs')]);
    t.is(made.status, 0, show(made));
    await machine.sim('remove');
    const restored = await machine.exec(reference, ['-r', '-n', 'test', '-p', machine.path('ours')]);
    t.is(restored.status, 0, show(restored));
    // ASMT gives a segment the mode of its file, and our files have mode 0600.
    t.is(await machine.memory(), before.replaceAll(' 666 ', ' 600 '));
    await machine.sim('remove');
    await machine.expect(0, ['restore', machine.path('theirs')]);
    t.is(await machine.memory(), before);
  }
});
