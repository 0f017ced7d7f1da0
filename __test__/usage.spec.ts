/** What is typed wrong, asked for help, or goes nowhere: both streams and the exit status. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import test from 'ava';

import { Machine, MAIN, ROOT, run, show, type Run } from './helpers.ts';

const asmt = (...args: string[]): Promise<Run> => run(process.execPath, [MAIN, ...args]);

test('help goes to standard output and is a success', async (t) => {
  for (const args of [['--help'], ['-h'], ['help'], ['-b', '-h'], ['backup', '--help'], ['help', 'restore']]) {
    const done = await asmt(...args);
    t.is(done.status, 0, show(done));
    t.regex(done.stdout, /^(Usage: asmt|asmt copies)/, show(done));
    t.is(done.stderr, '', show(done));
  }
});

test('--version names tool and engine', async (t) => {
  const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string };
  const done = await asmt('--version');
  t.is(done.stdout, `asmt ${version} (engine ${version})\n`, show(done));
  t.is(done.status, 0);
});

test('nothing typed: usage on standard error', async (t) => {
  const done = await asmt();
  t.is(done.status, 2, show(done));
  t.is(done.stdout, '');
  t.regex(done.stderr, /^Usage: asmt list/);
});

const wrong: [string[], number, RegExp][] = [
  [['backup'], 2, /error: backup needs a directory\nHINT: /],
  [['bakup', '/x'], 2, /error: there is no command "bakup"\nHINT: did you mean asmt backup\?/],
  [['list', '--jsn'], 2, /error: there is no option --jsn\nHINT: did you mean --json\?/],
  [['list', '-i', '16'], 2, /error: --instance is "16", but must be a whole number from 0 to 15\nHINT: /],
  [['backup', '/a', '-p', '/b'], 2, /error: two directories are given/],
  [['verify', '-z', '/a'], 2, /error: verify takes no --compress\nHINT: /],
  [['-b'], 1, /error: backup needs a directory\nHINT: /],
  [['-br', '-p', '/a'], 1, /error: both -b and -r are given\nHINT: /],
  [['-b', '-x', '-p', '/a'], 1, /error: there is no option -x\nHINT: /],
  [['-b', '-t', '0', '-p', '/a'], 1, /error: --threads is "0"/],
];

for (const [args, status, message] of wrong) {
  test(`asmt ${args.join(' ')} exits by ${status} and says why on standard error`, async (t) => {
    const done = await asmt(...args);
    t.is(done.status, status, show(done));
    t.is(done.stdout, '', show(done));
    t.regex(done.stderr, message, show(done));
  });
}

test('--json: one object on standard output, also for what was typed wrong', async (t) => {
  const done = await asmt('backup', '--json');
  const outcome = JSON.parse(done.stdout) as { ok: boolean; exit_status: number; error: { kind: string } };
  t.is(done.status, 2, show(done));
  t.deepEqual([outcome.ok, outcome.exit_status, outcome.error.kind], [false, 2, 'usage']);
  t.regex(done.stderr, /error: backup needs a directory/);
});

test('no directory, no parent, no directory at all: each its own message', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make');
  const file = join(machine.directory, 'file');
  await run('touch', [file]);
  for (const verb of ['restore', 'verify']) {
    const missing = await machine.expect(2, [verb, machine.path('none')]);
    t.regex(missing.stderr, /no such directory: .*none\nHINT: /);
    const other = await machine.expect(2, [verb, file]);
    t.regex(other.stderr, /not a directory: .*file\nHINT: /);
  }
  t.regex((await machine.expect(2, ['backup', file])).stderr, /not a directory/);
  t.regex(
    (await machine.expect(2, ['backup', machine.path('no', 'parent')])).stderr,
    /the directory above it is not there\nHINT: /,
  );
  t.regex((await machine.expect(1, ['-r', '-p', machine.path('none')])).stderr, /no such directory/);
});

test('without the engine it says so, and what to do', async (t) => {
  const machine = await Machine.start(t);
  await run('cp', ['-r', join(ROOT, 'dist'), join(ROOT, 'package.json'), machine.directory]);
  await run('ln', ['-s', join(ROOT, 'node_modules'), machine.path('node_modules')]);
  const done = await run(process.execPath, [machine.path('dist', 'main.js'), 'list']);
  t.is(done.status, 1, show(done));
  t.regex(done.stderr, /error: the engine for linux-\w+ cannot be loaded: .*\nHINT: .*npm run build/, show(done));
});

test('a reader that goes away stops nothing', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make', '--stripes', '8');
  const done = await machine.exec('sh', ['-c', `"${process.execPath}" "${MAIN}" backup -v "${machine.path('b')}" 2>&1 | true`]);
  t.is(done.status, 0, show(done));
  // The pipe's status is that of its end; the backup is what counts.
  t.true(machine.names(machine.path('b')).includes('ae001000.dat'));
  t.regex((await machine.expect(0, ['verify', machine.path('b')])).stdout, /verified 1 namespace/);
});

test('a result that cannot be written is a failure that is said', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make');
  const done = await machine.exec('sh', ['-c', `"${process.execPath}" "${MAIN}" list > /dev/full`]);
  t.is(done.status, 1, show(done));
  t.regex(done.stderr, /could not be written to standard output/, show(done));
});
