/**
 * What ships: one file without the packages it is made of, their licences, and the engine only
 * where it is used.
 */

import { cpSync, mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';

import test from 'ava';

import { Machine, MAIN, ROOT, run, show, TERMINAL, type Run } from './helpers.ts';

const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string };

const RED = '\u001b[31m';

/** Runs a copy of the command line that has this text for its engine, or none, and no packages. */
async function alone(machine: Machine, engine: string | null, ...args: string[]): Promise<Run> {
  cpSync(join(ROOT, 'dist'), machine.path('dist'), { recursive: true });
  mkdirSync(machine.path('native'), { recursive: true });
  if (engine !== null) writeFileSync(machine.path('native', 'index.cjs'), engine);
  return run(process.execPath, [machine.path('dist', 'main.js'), ...args]);
}

test('the package holds the command line, the loader of the engine, and the licences', async (t) => {
  const done = await run('npm', ['pack', '--dry-run', '--json', '--ignore-scripts']);
  t.is(done.status, 0, show(done));
  const [{ files } = { files: [] }] = JSON.parse(done.stdout) as { files: { path: string }[] }[];
  const paths = files.map(({ path }) => path).toSorted();
  const expected = [
    'LICENSE',
    'README.md',
    'dist/THIRD_PARTY_LICENSES',
    'dist/main.js',
    'dist/package.json',
    'native/index.cjs',
    'native/index.d.ts',
    'package.json',
    ...readdirSync(join(ROOT, 'share'), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join('share', relative(join(ROOT, 'share'), entry.parentPath), entry.name)),
  ];
  for (const name of ['asmt.8', 'completions/_asmt', 'schema/asmt-output.schema.json']) {
    t.true(paths.includes(`share/${name}`), name);
  }
  t.deepEqual(paths, expected.toSorted(), show(done));
  t.is(statSync(MAIN).mode & 0o111, 0o111);
  t.regex(readFileSync(MAIN, 'utf8'), /^#!\/usr\/bin\/env node\n/);
  const licences = readFileSync(join(ROOT, 'dist', 'THIRD_PARTY_LICENSES'), 'utf8');
  for (const name of ['chalk', 'clipanion']) {
    t.regex(licences, new RegExp(`^${name} [0-9.]+ \\(MIT\\)\n\n[\\s\\S]*?Copyright[\\s\\S]*?Permission is hereby granted`, 'm'));
  }
});

test('help and wrong usage need neither the engine nor a package', async (t) => {
  const machine = await Machine.start(t);
  for (const [args, status] of [
    [['--help'], 0],
    [['backup', '--help'], 0],
    [[], 2],
    [['bakup'], 2],
    [['backup'], 2],
    [['list', '--json', '-i', '16'], 2],
    [['-b', '-t', '0', '-p', '/a'], 1],
  ] as const) {
    const done = await alone(machine, 'throw new Error("loaded");', ...args);
    t.is(done.status, status, show(done));
    t.notRegex(done.stdout + done.stderr, /cannot be loaded|has a bug/, show(done));
  }
});

test('without the engine it says so, and what to do', async (t) => {
  const machine = await Machine.start(t);
  const done = await alone(machine, null, 'list');
  t.is(done.status, 1, show(done));
  const expected =
    /error: the engine for linux-\w+ cannot be loaded: its package asmt-linux-\w+-(gnu|musl) is not installed\nHINT: .*npm run build/;
  t.regex(done.stderr, expected, show(done));
  const versions = await alone(machine, null, '--version');
  t.is(versions.status, 0, show(versions));
  t.regex(versions.stdout, /^asmt .*\ncommit .*\nthe engine for linux-\w+ cannot be loaded: /, show(versions));
});

test('an engine that cannot be loaded says why', async (t) => {
  const machine = await Machine.start(t);
  // As napi's loader fails, which has tried several.
  const loader = `const other = Object.assign(new Error("Cannot find module 'asmt-linux-x64-gnu'"), { code: 'MODULE_NOT_FOUND' });
    other.cause = new Error('/lib/libc.so.6: version GLIBC_2.28 not found\\nand so on');
    throw new Error('Cannot find native binding. npm has a bug', { cause: other });`;
  const done = await alone(machine, loader, 'list');
  t.is(done.status, 1, show(done));
  t.regex(done.stderr, /cannot be loaded: \/lib\/libc\.so\.6: version GLIBC_2\.28 not found\nHINT: reinstall/, show(done));
});

test('an engine of another version is not used', async (t) => {
  const machine = await Machine.start(t);
  const done = await alone(machine, "module.exports = { engineVersion: () => '9.9.9' };", 'list');
  t.is(done.status, 1, show(done));
  t.true(done.stderr.includes(`cannot be loaded: its version is 9.9.9, expected ${version}\nHINT: `), show(done));
});

test('a bug names the functions it came from, and the lines of the file that ships', async (t) => {
  const machine = await Machine.start(t);
  const broken = `module.exports = { engineVersion: () => '${version}', Job: class { run() { return undefined.broken; } poll() {} } };`;
  const done = await alone(machine, broken, 'list');
  t.is(done.status, 70, show(done));
  t.regex(done.stderr, /error: asmt has a bug: TypeError: .*'broken'.* at runJob \(\S*dist\/main\.js:\d+:\d+\)/, show(done));
});

test('colours go to a terminal, and where they are asked for', async (t) => {
  const machine = await Machine.start(t);
  const wrong = [process.execPath, MAIN, 'bakup'];
  const [command = '', ...words] = wrong;
  const piped = await run(command, words, { env: TERMINAL });
  t.true(piped.stderr.startsWith('asmt: error: '), show(piped));
  const forced = await run(command, words, { env: { ...TERMINAL, FORCE_COLOR: '1' } });
  t.true(forced.stderr.startsWith(`${RED}asmt: error:`), show(forced));
  const spawn = 'import os,pty,sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))';
  const shown = await machine.exec('python3', ['-c', spawn, ...wrong], { env: TERMINAL });
  t.true(shown.stdout.startsWith(`${RED}asmt: error:`), show(shown));
});
