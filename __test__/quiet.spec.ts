/** `-q`, `NO_COLOR` and `--progress json`: what is printed, on a pipe and on a terminal. */

import test from 'ava';

import { Machine, MAIN, TERMINAL, show, testTraced, type Run } from './helpers.ts';

const PTY = 'import os,pty,sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))';

/** Runs asmt on a terminal of its own, to which both streams are connected. */
function onTerminal(
  machine: Machine,
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>> = {},
): Promise<Run> {
  return machine.exec('python3', ['-c', PTY, process.execPath, MAIN, ...args], { env: { ...TERMINAL, ...env } });
}

test('-q prints nothing but errors, and the exit status has the result', async (t) => {
  const machine = await Machine.start(t);
  const directory = machine.path('b');
  // A note, a summary and a table each, without -q.
  const steps: [number, string[]][] = [
    [0, ['list']],
    [0, ['backup', '-a']],
    [0, ['backup', directory]],
    [0, ['verify', directory]],
    [0, ['list']],
    [0, ['restore', '-z', directory]],
    [0, ['retire', directory]],
    [0, ['export', '--force-stale', directory, machine.path('out')]],
  ];
  await machine.sim('make');
  for (const [status, args] of steps) {
    if (args[0] === 'restore') await machine.sim('remove');
    const done = await machine.expect(status, [...args, '-q']);
    const left = args[0] === 'export' ? /^(asmt: note: OVERRIDDEN BY --force-stale: .*\n)+$/ : /^$/;
    t.regex(done.stderr, left, show(done));
    t.is(done.stdout, '', show(done));
  }
  await machine.sim('remove');
  const refused = await machine.expect(4, ['restore', '-q', directory]);
  t.is(refused.stdout, '', show(refused));
  t.regex(refused.stderr, /^(asmt: error: .*\n)+HINT: .*\n/, show(refused));
  const none = await machine.expect(7, ['list', '-q', '-n', 'nope']);
  t.deepEqual([none.stdout, none.stderr.startsWith("asmt: error: found no namespace 'nope'")], ['', true], show(none));
  // JSON is asked for by itself.
  t.true((await machine.json(0, ['list', '-q'])).ok);
  const empty = await machine.expect(0, ['list', '-q']);
  t.is(empty.stdout + empty.stderr, '', show(empty));
});

testTraced('-q draws no progress on a terminal', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make');
  const slow = ['pwrite64:delay_enter=100000'];
  const loud = await machine.tracedOnTerminal(slow, ['backup', '-t1', machine.path('a')]);
  t.regex(loud.stdout, /copying/, show(loud));
  const quiet = await machine.tracedOnTerminal(slow, ['backup', '-q', '-t1', machine.path('b')]);
  t.is(quiet.stdout, '', show(quiet));
  t.is(quiet.status, 0, show(quiet));
});

test('NO_COLOR is obeyed on a terminal', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make');
  const escape = '\u001b[';
  const coloured = async (env: Readonly<Record<string, string | undefined>>, ...args: string[]) => {
    const done = await onTerminal(machine, args, env);
    t.regex(done.stdout, /namespace|unknown command/, show(done));
    return done.stdout.includes(escape);
  };
  for (const args of [['list'], ['bakup']]) {
    t.true(await coloured({}, ...args));
    t.true(await coloured({ NO_COLOR: '' }, ...args));
    t.false(await coloured({ NO_COLOR: '1' }, ...args));
    t.false(await coloured({ NO_COLOR: '0' }, ...args));
  }
  // As in Node: what forces counts more.
  t.true(await coloured({ NO_COLOR: '1', FORCE_COLOR: '1' }, 'list'));
  t.false(await coloured({ NO_COLOR: '1', FORCE_COLOR: '0' }, 'list'));
});

interface Line {
  type: string;
  code?: string;
  phase?: string;
  done_bytes?: number;
  total_bytes?: number;
}

/** Standard error of a run, each line of which is JSON. */
const linesOf = (done: Run): Line[] =>
  done.stderr
    .trim()
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Line);

testTraced('--progress json: progress, notes, events and errors are one object a line each', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make', '--stage-size', '32MiB', '--fill', '1');
  const args = ['--progress', 'json', '-t1', machine.path('b')];
  const done = await machine.traced(['pwrite64:delay_enter=200000'], ['backup', '-v', ...args]);
  t.is(done.status, 0, show(done));
  const lines = linesOf(done);
  const copying = lines.filter(({ type, phase }) => type === 'progress' && phase === 'copy');
  t.true(copying.length >= 2, show(done));
  for (const { done_bytes: bytes = -1, total_bytes: total = 0 } of copying) t.true(bytes >= 0 && bytes <= total, show(done));
  t.true(
    lines.some(({ type, code }) => type === 'event' && code === 'wrote'),
    show(done),
  );
  t.regex(done.stdout, /backed up 1 namespace/);
  await machine.sim('remove');
  const restored = await machine.expect(0, ['restore', '-z', '--progress=json', machine.path('b')]);
  t.true(
    linesOf(restored).some(({ type, code }) => type === 'remark' && code === 'compress-ignored'),
    show(restored),
  );
  t.false(
    linesOf(restored).some(({ type }) => type === 'event'),
    show(restored),
  );
  // Errors, with what else is possible.
  await machine.sim('make', '--name', 'bar', '--nsid', '2');
  await machine.sim('poke', '--key', 'ae002000', '--offset', '4', '--hex', '00');
  const refused = await machine.expect(3, ['backup', '--progress', 'json', machine.path('c')]);
  t.deepEqual(
    linesOf(refused).flatMap(({ type, code }) => (['progress', 'remark'].includes(type) ? [] : [code ?? type])),
    ['not-cleanly-shut-down', 'alternative'],
    show(refused),
  );
  for (const args of [
    ['verify', '--progress', 'json'],
    ['verify', '--progress=json', '-i', '16', machine.path('b')],
  ]) {
    const wrong = await machine.expect(2, args);
    t.deepEqual(
      linesOf(wrong).map(({ type, code }) => [type, code]),
      [['error', 'usage']],
      show(wrong),
    );
  }
  const set = await machine.expect(2, ['verify'], { env: { ASMT_PROGRESS: 'json' } });
  t.deepEqual(
    linesOf(set).map(({ type, code }) => [type, code]),
    [['error', 'usage']],
    show(set),
  );
  // -q leaves progress, which was asked for.
  const quiet = await machine.expect(0, ['verify', '-q', '--progress', 'json', machine.path('b')]);
  t.is(quiet.stdout, '');
  for (const { type } of linesOf(quiet)) t.is(type, 'progress', show(quiet));
});
