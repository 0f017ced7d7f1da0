/**
 * What a file needs of glibc, read from the file itself: `readelf` sees the same, and a file that
 * needs too much is found.
 */

import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import test from 'ava';

import { Machine, ROOT } from './helpers.ts';

interface Elf {
  needs(file: string): { libraries: string[]; versions: string[] };
  symbolVersions(file: string): string[];
  newerThan(versions: readonly string[], most: readonly number[]): string[];
  checkSymbolVersions(file: string): string[];
}

const elf = (await import(join(ROOT, 'scripts', 'elf.mjs'))) as Elf;

/** The sections of `readelf --version-info` that say what is needed, not what is defined. */
function byReadelf(file: string): string[] {
  const text = execFileSync('readelf', ['--version-info', '--wide', file], { encoding: 'utf8', maxBuffer: 2 ** 28 });
  const needed = text.slice(text.indexOf('Version needs section'));
  return [...needed.matchAll(/Name: (\S+) +Flags:/g)].map(([, name]) => name ?? '').toSorted();
}

test('libraries and versions are those that readelf shows', (t) => {
  const found = elf.needs(process.execPath);
  const libraries = execFileSync('readelf', ['--dynamic', '--wide', process.execPath], { encoding: 'utf8', maxBuffer: 2 ** 28 });
  t.deepEqual(
    found.libraries,
    [...libraries.matchAll(/Shared library: \[(.*?)\]/g)].map(([, name]) => name ?? ''),
  );
  t.true(found.versions.length > 10);
  t.deepEqual(found.versions.toSorted(), byReadelf(process.execPath));
});

test('a version is compared by its numbers, and a mark that only a new glibc knows is new', (t) => {
  const versions = ['GLIBC_2.2.5', 'GLIBC_2.4', 'GLIBC_2.28', 'GLIBC_2.28.1', 'GLIBC_2.29', 'GLIBC_3.0', 'GLIBC_ABI_DT_RELR'];
  t.deepEqual(elf.newerThan(versions, [2, 28]), versions.slice(3));
});

test('a file that needs a newer glibc is refused', async (t) => {
  const machine = await Machine.start(t);
  const newest = elf.symbolVersions(process.execPath).at(-1) ?? '';
  t.regex(newest, /^GLIBC_2\.\d+$/);
  const bytes = readFileSync(process.execPath);
  const file = machine.path('node');
  const at = bytes.indexOf(`${newest}\0`, 0, 'latin1');
  bytes.write(newest.replace('_2.', '_9.'), at, 'latin1');
  writeFileSync(file, bytes);
  t.throws(() => elf.checkSymbolVersions(file), { message: /needs GLIBC_9\.\d+, expected at most GLIBC_2\.28/ });
});

test('what is no ELF file is an error, and no file without needs', (t) => {
  t.throws(() => elf.symbolVersions(join(ROOT, 'package.json')), { message: /is no ELF file of 64 bits/ });
});
