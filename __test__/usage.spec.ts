/**
 * Mistyped commands, requests for help, and outputs that go nowhere: both streams and the exit
 * status.
 */

import { chmodSync, mkdirSync, readFileSync, statSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';

import test from 'ava';

import { Machine, MAIN, ROOT, manifestLines, run, sealManifest, show, type Run } from './helpers.ts';

const asmt = (...args: string[]): Promise<Run> => run(process.execPath, [MAIN, ...args]);

test('help goes to standard output and is a success', async (t) => {
  for (const args of [['--help'], ['-h'], ['help'], ['-b', '-h'], ['backup', '--help'], ['help', 'restore']]) {
    const done = await asmt(...args);
    t.is(done.status, 0, show(done));
    t.regex(done.stdout, /^(Usage: asmt|asmt copies)/, show(done));
    t.is(done.stderr, '', show(done));
  }
});

test('--version names the version, the commit, the target and the SIMD level', async (t) => {
  const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string };
  const done = await asmt('--version');
  const [first, ...others] = done.stdout.trimEnd().split('\n');
  t.is(first, `asmt ${version}`, show(done));
  t.regex(
    others.join('\n'),
    /^commit ([0-9a-f]{40}\+?|unknown)\nengine (x86_64|aarch64)-unknown-linux-(gnu|musl), SIMD level [\w-]+$/,
  );
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
  [['bakup', '/x'], 2, /error: unknown command "bakup"\nHINT: did you mean asmt backup\?/],
  [['list', '--jsn'], 2, /error: unknown option --jsn\nHINT: did you mean --json\?/],
  [['list', '-i', '16'], 2, /error: --instance is "16", but must be a whole number from 0 to 15\nHINT: /],
  [['backup', '/a', '-p', '/b'], 2, /error: two directories are given/],
  [['verify', '-z', '/a'], 2, /error: verify takes no --compress\nHINT: /],
  [['-b'], 1, /error: backup needs a directory\nHINT: /],
  [['-br', '-p', '/a'], 1, /error: both -b and -r are given\nHINT: /],
  [['-b', '-x', '-p', '/a'], 1, /error: unknown option -x\nHINT: /],
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
  mkdirSync(machine.path('empty'), { mode: 0o700 });
  symlinkSync(machine.path('away', 'b'), machine.path('dangling'));
  for (const verb of ['restore', 'verify', 'retire']) {
    // No backup was made there: a unit may go on.
    for (const none of ['none', 'none/', 'empty']) {
      const nothing = await machine.expect(7, [verb, `${machine.directory}/${none}`]);
      t.regex(nothing.stderr, none === 'empty' ? /nothing of instance 0 is in/ : /no backup found: .*none.*\nHINT: /);
    }
    t.is((await machine.json(7, [verb, machine.path('none')])).error?.code, 'no-backup');
    // Its file system may not be mounted, or the path was mistyped.
    for (const unmounted of ['away/b', 'dangling']) {
      const missing = await machine.expect(2, [verb, machine.path(unmounted)]);
      t.regex(missing.stderr, /error: no such directory: .*\nHINT: /);
    }
    const other = await machine.expect(2, [verb, file]);
    t.regex(other.stderr, /not a directory: .*file\nHINT: /);
  }
  t.regex((await machine.expect(2, ['backup', file])).stderr, /not a directory/);
  t.regex(
    (await machine.expect(2, ['backup', machine.path('no', 'parent')])).stderr,
    /its parent directory does not exist\nHINT: /,
  );
  t.regex((await machine.expect(1, ['-r', '-p', machine.path('none')])).stderr, /no such directory/);
  // A directory that others may write to is not safe, whatever is in it.
  chmodSync(machine.path('empty'), 0o777);
  t.is((await machine.json(3, ['restore', machine.path('empty')])).error?.code, 'writable-by-others');
});

test('a reader that goes away stops nothing', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make', '--stripes', '8');
  const done = await machine.exec('sh', ['-c', `"${process.execPath}" "${MAIN}" backup -v "${machine.path('b')}" 2>&1 | true`]);
  t.is(done.status, 0, show(done));
  // The status is that of the end of the pipe; the backup is what counts.
  t.true(machine.names(machine.path('b')).includes('ae001000.dat'));
  t.regex((await machine.expect(0, ['verify', machine.path('b')])).stdout, /verified 1 namespace/);
});

/** Runs asmt from a shell, with its output redirected. */
function led(machine: Machine, where: string, ...args: string[]): Promise<Run> {
  return machine.exec('bash', ['-c', where, process.execPath, MAIN, ...args]);
}

const TO_FULL = '"$0" "$@" > /dev/full';

test('a report that was the result, and cannot be written, is a failure that is said', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make');
  const directory = machine.path('b');
  await machine.expect(0, ['backup', directory]);
  for (const args of [['list'], ['verify', directory], ['backup', '-a', machine.path('c')], ['--help'], ['--version']]) {
    const done = await led(machine, TO_FULL, ...args);
    t.is(done.status, 1, show(done));
    t.regex(done.stderr, /error: the result could not be written to standard output: ENOSPC.*\nHINT: free space/, show(done));
  }
  // The failure before that is what counts.
  const refused = await led(machine, TO_FULL, 'backup', '--json', directory);
  t.is(refused.status, 3, show(refused));
});

test('work that is done and cannot be reported is said to be done, by a status of its own', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make', '--instance', '2');
  const before = await machine.memory();
  const directory = machine.path('b');
  const done = await led(machine, TO_FULL, 'backup', '-i2', directory);
  t.is(done.status, 9, show(done));
  t.regex(
    done.stderr,
    /error: the backup is done \(backed up namespace 'test' of instance 2 to \S+\), but its report could not be written .*ENOSPC/,
    show(done),
  );
  t.regex(done.stderr, /\nHINT: do not run it again: nothing is missing; asmt verify \S+ shows it\n$/, show(done));
  t.regex((await machine.expect(0, ['verify', directory])).stdout, /\ninstance 2: a restore here would be /);
  // Closed streams mean that nobody wants to read them.
  t.is((await led(machine, '"$0" "$@" >&- 2>&-', 'verify', directory)).status, 0);
  await machine.sim('remove');
  // If standard error is full, too, there is only the status.
  const restored = await led(machine, '"$0" "$@" > /dev/full 2> /dev/full', 'restore', '--json', '-i2', directory);
  t.is(restored.status, 9, show(restored));
  t.is(await machine.memory(), before);
  const retired = await led(machine, TO_FULL, 'retire', '-i2', directory);
  t.is(retired.status, 9, show(retired));
  t.regex(retired.stderr, /the retire is done \(retired namespace 'test' of instance 2 in \S+\)/, show(retired));
});

test("ASMT's form calls work that is done a success, also where it cannot be reported", async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make');
  const done = await led(machine, TO_FULL, '-b', '-p', machine.path('b'));
  t.is(done.status, 0, show(done));
  t.regex(done.stderr, /error: the backup is done /, show(done));
  t.is((await led(machine, TO_FULL, '-b', '-a', '-p', machine.path('c'))).status, 1);
});

test('a report that was written in part is lost, too', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make', '--stripes', '8');
  const file = machine.path('out');
  const done = await led(machine, `ulimit -f 1; "$0" "$@" > '${file}'`, 'list', '--json');
  t.is(statSync(file).size, 1024);
  t.is(done.status, 1, show(done));
  t.regex(done.stderr, /could not be written to standard output: EFBIG/, show(done));
});

test('a pipe that does not block, and is full, is waited for', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make', '--stages', '400', '--stage-size', '1MiB', '--fill', '0');
  const reader = `import json,os,subprocess,sys,time
r,w=os.pipe(); os.set_blocking(w,False)
child=subprocess.Popen(sys.argv[1:],stdout=w); os.close(w); time.sleep(1)
text=open(r).read(); sys.exit(child.wait() or len(json.loads(text)["report"]["segments"])!=402)`;
  const done = await machine.exec('python3', ['-c', reader, process.execPath, MAIN, 'list', '--json']);
  t.is(done.status, 0, show(done));
});

test('a report that cannot be shown does not make failed what is done', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make', '--instance', '1');
  const before = await machine.memory();
  const directory = machine.path('b');
  await machine.expect(0, ['backup', '-i1', directory]);
  await machine.sim('remove');
  // Whatever the error in rendering is.
  const broken = `--import=data:text/javascript,${encodeURIComponent('Date.prototype.toISOString = () => { throw new RangeError("no date") };')}`;
  const done = await machine.expect(0, ['restore', '-i1', directory], { env: { NODE_OPTIONS: broken } });
  t.is(await machine.memory(), before);
  t.is(done.stdout, `restored namespace 'test' of instance 1 from ${directory}\n`);
  t.regex(done.stderr, /note: its report cannot be shown in full, which is a bug in asmt: RangeError: no date\n/, show(done));
  // A request for information has no other result than its answer.
  await machine.expect(70, ['verify', directory], { env: { NODE_OPTIONS: broken } });
});

test('progress that cannot be shown does not end the work', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make');
  const broken = `--import=data:text/javascript,${encodeURIComponent('Math.floor = () => { throw new RangeError("no number") };')}`;
  const done = await machine.expect(0, ['backup', '-v', machine.path('b')], { env: { NODE_OPTIONS: broken } });
  t.regex(done.stdout, /backed up 1 namespace/, show(done));
});

/** A time, in milliseconds, that a manifest or a mark may claim. */
const TIMES = ['8640000000000001', '9007199254740993', '9223372036854775807', '18446744073709551615'];

for (const time of TIMES) {
  test(`a backup of the time ${time} is restored, verified and shown`, async (t) => {
    const machine = await Machine.start(t);
    await machine.sim('make');
    const before = await machine.memory();
    const directory = machine.path('b');
    await machine.expect(0, ['backup', directory]);
    const lines = manifestLines(directory);
    const head = (lines[0] ?? '').replace(/"created_ms":\d+/, `"created_ms":${time}`);
    t.not(head, lines[0]);
    sealManifest(directory, [head, ...lines.slice(1)]);
    await machine.sim('remove');
    for (const words of [[], ['-v'], ['--json']]) {
      const verified = await machine.expect(0, ['verify', ...words, directory]);
      t.notRegex(verified.stderr, /bug/, show(verified));
      const restored = await machine.asmt(['restore', ...words, directory]);
      t.is(restored.status, 0, show(restored));
      t.is(await machine.memory(), before);
      await machine.sim('remove');
    }
  });
}

test('nothing that hides or turns text round reaches standard output, in text or in JSON', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make');
  // C0, C1, bidirectional, zero width, soft hyphen, byte order mark.
  const hidden = '\u001b[2J\u009b31m\u202e\u2066\u061c\u200b\u00ad\ufeff';
  const directory = machine.path(`b${hidden}`);
  await machine.expect(0, ['backup', directory]);
  mkdirSync(machine.path(`c${hidden}`));
  for (const [status, args] of [
    [0, ['verify', directory]],
    [0, ['verify', '-v', directory]],
    [7, ['verify', `${directory}no`]],
    [7, ['verify', machine.path(`c${hidden}`)]],
    [2, ['backup', `--x${hidden}`, directory]],
    [2, ['backup', '-n', `a${hidden}`, directory]],
    [7, ['backup', '-n', 'a\u202e\u061cb', directory]],
    [7, ['list', '-n', 'a\u202e\u061cb']],
    [2, [`help${hidden}`]],
  ] as const) {
    for (const more of [[], ['--json']]) {
      const done = await machine.asmt([...args, ...more]);
      t.is(done.status, status, show(done));
      t.regex(done.stdout + done.stderr, /^[ -~\n]*$/, show(done));
    }
  }
  const { report } = await machine.json(0, ['verify', directory]);
  t.is(report?.directory, directory);
});

test('what is asked for without a directory: as in the documentation of ASMT', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make');
  for (const args of [
    ['-a', '-b', '-n', 'test'],
    ['-abvn', 'test'],
    ['backup', '-a'],
  ]) {
    const done = await machine.expect(0, args);
    t.regex(done.stdout, /backup would be possible: 1 namespace, \d+ segments, [^,]+; needs|nothing was done/, show(done));
    t.regex(done.stderr, /note: no directory given: /, show(done));
  }
  t.regex((await machine.expect(0, ['-abvn', 'test'])).stdout, /\nto run it: asmt -b -n test -p DIR\n/);
  t.regex((await machine.expect(1, ['-b', '-n', 'test'])).stderr, /backup needs a directory/);
  t.regex((await machine.expect(1, ['-a', '-r', '-n', 'test'])).stderr, /restore needs a directory/);
  await machine.sim('poke', '--key', 'ae001000', '--offset', '4', '--hex', '00');
  await machine.expect(1, ['-a', '-b', '-n', 'test']);
});

test('a note is printed once, and before the work', async (t) => {
  const machine = await Machine.start(t);
  const { directory } = machine.golden('raw-index');
  for (const args of [
    ['verify', directory],
    ['restore', '-a', directory],
    ['restore', '-vz', directory],
  ]) {
    const done = await machine.expect(0, args);
    const notes = done.stderr.split('\n').filter((line) => line.startsWith('asmt: note: '));
    t.true(notes.length > 0, show(done));
    t.is(new Set(notes).size, notes.length, show(done));
    const work = done.stderr.search(/^asmt: (filled|read) /m);
    if (work >= 0) t.true(done.stderr.lastIndexOf('asmt: note: ') < work, show(done));
  }
});
