/**
 * Directories as ASMT 2.2.1 and 2.3.0 leave them (2.3.0 writes the same files), and as people
 * rearrange them.
 */

import { chmodSync, copyFileSync, readFileSync, readdirSync, renameSync, unlinkSync, writeFileSync } from 'node:fs';

import test, { type ExecutionContext } from 'ava';

import { Machine, show } from './helpers.ts';

/** A namespace backed up twice, plain and compressed, and then lost. */
async function both(t: ExecutionContext) {
  const machine = await Machine.start(t);
  await machine.sim('make', '--si-stages', '1', '--stripes', '3', '--data-nsid', '31', '--mode', '600');
  const before = await machine.memory();
  const [plain, compressed] = [machine.path('plain'), machine.path('z')];
  await machine.expect(0, ['backup', plain]);
  await machine.expect(0, ['backup', '-z', compressed]);
  await machine.sim('remove');
  return { machine, before, plain, compressed };
}

const MANIFEST = 'asmt-manifest-0-test.json';

for (const name of ['raw-index', 'gz-index', 'raw-data-only']) {
  test(`hex digits of either case: ${name}`, async (t) => {
    const machine = await Machine.start(t);
    const { directory, segments } = machine.golden(name);
    for (const [index, file] of readdirSync(directory).entries()) {
      const [digits = '', ...suffix] = file.split('.');
      const other = index % 2 === 0 ? digits.toUpperCase() : digits.slice(0, 1) + digits.slice(1).toUpperCase();
      renameSync(`${directory}/${file}`, `${directory}/${[other, ...suffix].join('.')}`);
    }
    await machine.expect(0, ['restore', directory]);
    t.is(await machine.memory(), segments);
    // They are in the way of a backup, too.
    await machine.expect(3, ['backup', directory]);
  });
}

test('plain and compressed files mixed come back, where no manifest says otherwise', async (t) => {
  const { machine, before, plain, compressed } = await both(t);
  for (const name of ['ae001100.dat', 'ad01f001.dat', 'a2001100.dat']) {
    unlinkSync(`${compressed}/${name}.gz`);
    copyFileSync(`${plain}/${name}`, `${compressed}/${name}`);
    chmodSync(`${compressed}/${name}`, 0o600);
  }
  for (const verb of ['restore', 'verify']) {
    const { error } = await machine.json(5, [verb, compressed]);
    t.deepEqual(
      error?.problems.map(({ code, message }) => [code, /found \S+, expected \S+$/.exec(message)?.[0]]),
      [
        ['extra-file', 'found a2001100.dat, expected a2001100.dat.gz'],
        ['extra-file', 'found ad01f001.dat, expected ad01f001.dat.gz'],
        ['extra-file', 'found ae001100.dat, expected ae001100.dat.gz'],
      ],
    );
    t.is(await machine.memory(), '');
  }
  unlinkSync(`${compressed}/${MANIFEST}`);
  const done = await machine.expect(0, ['restore', compressed]);
  t.regex(done.stderr, /without a manifest: 5 of 9 files are uncompressed/, show(done));
  t.is(await machine.memory(), before);
});

for (const hasManifest of [true, false]) {
  test(`a segment in a plain and in a compressed file is refused, with ${hasManifest ? 'a' : 'no'} manifest`, async (t) => {
    const { machine, plain, compressed } = await both(t);
    copyFileSync(`${plain}/ae001100.dat`, `${compressed}/ae001100.dat`);
    if (!hasManifest) unlinkSync(`${compressed}/${MANIFEST}`);
    for (const verb of ['restore', 'verify']) {
      const { error } = await machine.json(5, [verb, compressed]);
      t.deepEqual([error?.code, error?.file], ['extra-file', 'ae001100.dat.gz']);
      t.regex(error?.message ?? '', /ae001100\.dat and ae001100\.dat\.gz are both files of segment ae001100, expected one/);
      t.is(await machine.memory(), '');
    }
  });
}

test('a manifest of a newer format is refused by name, whatever else it says; a field more is not', async (t) => {
  const { machine, before, plain } = await both(t);
  const text = readFileSync(`${plain}/${MANIFEST}`, 'utf8');
  writeFileSync(`${plain}/${MANIFEST}`, '{"format":"asmt-manifest","version":7,"segments":"elsewhere"}\n\u0001\n');
  for (const verb of ['restore', 'verify']) {
    const { error } = await machine.json(4, [verb, plain]);
    t.deepEqual([error?.code, error?.file], ['manifest-too-new', MANIFEST]);
    t.regex(error?.message ?? '', /has format version 7, expected at most 2/);
    t.is(await machine.memory(), '');
  }
  writeFileSync(`${plain}/${MANIFEST}`, text);
  await machine.expect(0, ['restore', plain]);
  t.is(await machine.memory(), before);
});

test('stripes without any index, as an unclean end leaves them, and stripe 1 among them', async (t) => {
  const machine = await Machine.start(t);
  const { directory, segments } = machine.golden('raw-data-only');
  t.true(
    readdirSync(directory).some((name) => /^ad.....1\.dat$/.test(name)),
    readdirSync(directory).join(),
  );
  await machine.expect(0, ['restore', directory]);
  t.is(await machine.memory(), segments);
});
