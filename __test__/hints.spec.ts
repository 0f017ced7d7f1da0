// docs/HINTS.md explains every code of the command line.

import { readFileSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import test from 'ava';

import { EXIT_STATUSES } from '../src/errors.ts';
import { Machine, ROOT, SIM, run, show, testAsRoot } from './helpers.ts';

/** The codes in the sources of the front end: kind and code. */
function codes(): Map<string, string> {
  const directories = ['src', 'src/commands'].map((name) => join(ROOT, name));
  const files = directories.flatMap((path) => readdirSync(path).map((name) => join(path, name)));
  const made = /new AsmtError\(\s*'([a-z-]+)',\s*'([a-z-]+)'/g;
  const found = files.filter((path) => path.endsWith('.ts')).flatMap((path) => [...readFileSync(path, 'utf8').matchAll(made)]);
  return new Map(found.map(([, kind = '', code = '']) => [code, kind]));
}

test('every code of the command line has a row in docs/HINTS.md, with its kind and exit status', (t) => {
  const text = readFileSync(join(ROOT, 'docs/HINTS.md'), 'utf8');
  const [, section = ''] = text.split('\n## Codes of the command line\n');
  const rows = new Map([...section.matchAll(/^\| `([a-z-]+)` \| ([^|]+) \|/gm)].map(([, code = '', kind = '']) => [code, kind]));
  const found = codes();
  t.true(found.size >= 7, [...found.keys()].join(', '));
  const status = (kind: string) => EXIT_STATUSES.find((entry) => entry.kind === kind)?.status;
  const expected = new Map([...found].map(([code, kind]) => [code, `${kind.replaceAll('-', ' ')}, ${status(kind)}`]));
  t.deepEqual(Object.fromEntries(rows), Object.fromEntries(expected));
});

/** The commands that a hint names, without the words around them. */
function commandIn(hint: string, pattern: RegExp): string {
  const [, command = ''] = pattern.exec(hint) ?? [];
  return command;
}

test('a backup in the way is moved and removed exactly as the hint says, and each is whole afterwards', async (t) => {
  const machine = await Machine.start(t);
  // A path that must be quoted for a shell, and other files beside the backup.
  const directory = machine.path("b's own");
  await machine.sim('make');
  const before = await machine.memory();
  await machine.expect(0, ['backup', directory]);
  const own = machine.path("b's own", 'README');
  writeFileSync(own, 'do not touch');
  const hint = async () => (await machine.json(3, ['backup', directory])).error?.hint ?? '';
  const move = commandIn(await hint(), /(mkdir -p -m 0700 .* && mv [^;]*);/);
  t.is((await machine.exec('sh', ['-c', move])).status, 0, move);
  const place = readdirSync(directory).find((name) => name.startsWith('old-')) ?? '';
  t.deepEqual(readdirSync(directory).toSorted(), ['README', place]);
  // The old backup is whole, and so is the new one.
  await machine.expect(0, ['verify', `${directory}/${place}`]);
  await machine.expect(0, ['backup', directory]);
  await machine.expect(0, ['retire', directory]);
  const retired = await machine.expect(3, ['backup', directory]);
  t.regex(
    retired.stderr,
    /already contains a backup of namespace 'test' \(20.*, retired on 20\d\d-\d\d-\d\d\): 6 files/,
    show(retired),
  );
  const remove = commandIn(await hint(), /remove exactly its files: (rm .*)$/);
  t.is((await machine.exec('sh', ['-c', remove])).status, 0, remove);
  t.deepEqual(readdirSync(directory).toSorted(), ['README', place]);
  await machine.expect(0, ['backup', directory]);
  await machine.sim('remove');
  await machine.expect(0, ['restore', `${directory}/${place}`]);
  t.is(await machine.memory(), before);
});

test('a restore while the server runs says to leave it, and stops nothing', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make');
  await machine.expect(0, ['backup', machine.path('b')]);
  await run('cp', [SIM, machine.path('asd')]);
  const server = await machine.start(machine.path('asd'), ['hold'], 'ready');
  const done = await machine.expect(3, ['restore', machine.path('b')]);
  t.regex(
    done.stderr,
    new RegExp(`by pid ${server.pid} \\(asd\\)\nHINT: .*nothing needs restoring, leave it running`),
    show(done),
  );
  t.notRegex(done.stderr, /systemctl|stop/, show(done));
});

testAsRoot('a backup goes into no directory of the system itself, and into one that is a disk of its own', async (t) => {
  const machine = await Machine.startHost(t);
  await machine.sim('make');
  for (const directory of ['/', '/etc', '/usr', '/var', '/usr/../etc/.']) {
    for (const options of [[], ['-a']]) {
      const { error } = await machine.json(3, ['backup', ...options, directory]);
      const codes = error?.problems.map(({ code }) => code) ?? [];
      t.true(codes.includes('system-directory'), `${directory} ${codes.join(', ')}`);
    }
  }
  // A link does not help; a subdirectory is allowed.
  symlinkSync('/etc', machine.path('link'));
  t.regex((await machine.expect(3, ['backup', machine.path('link')])).stderr, /is a system directory/);
  // A restore may read a backup beside anything else.
  await machine.expect(0, ['backup', machine.path('b')]);
  for (const name of ['README', 'restore.sh', 'lost+found']) writeFileSync(machine.path('b', name), '');
  await machine.sim('remove');
  await machine.expect(0, ['restore', machine.path('b')]);
  // A mounted disk with nothing on it but the files of its file system.
  const image = machine.path('disk');
  await machine.exec('truncate', ['-s', '64M', image]);
  t.is((await machine.exec('mkfs.ext4', ['-q', image])).status, 0);
  t.is((await machine.exec('mount', ['-o', 'loop', image, '/home'])).status, 0);
  await machine.exec('chmod', ['0700', '/home']);
  await machine.expect(0, ['backup', '/home']);
  await machine.exec('umount', ['/home']);
});
