import test from 'ava';

import { AsmtError } from '../src/errors.ts';
import type { NamespaceReport } from '../src/generated/engine.ts';
import { OPERANDS, VERBS, optionNamed, type Values } from '../src/options.ts';
import type { ErrorText } from '../src/outcome.ts';
import { afterRestore, notFound, resolve, resolveRun, verbOfAsmtForm, wordsOf, type EngineVerb } from '../src/policy.ts';

/** The resulting request, of any verb. */
const requestOf = (...typed: Parameters<typeof resolve>): Record<string, unknown> => ({ ...resolve(...typed).request });

test('defaults', (t) => {
  const names = { namespaces: null };
  const data = { ...names, check: false, threads: null, analyze: false, config: null, devices: [] };
  const proof = { require_manifest: false, require_proof: false };
  t.deepEqual(requestOf('backup', {}, ['d']), {
    verb: 'backup',
    directory: 'd',
    instance: 0,
    ...data,
    compress: false,
    columns: false,
    replace: false,
    force_stale: false,
    allow_volatile: false,
    wait_ms: null,
  });
  t.deepEqual(requestOf('export', {}, ['d', 'o']), {
    verb: 'export',
    directory: 'd',
    output: 'o',
    instance: 0,
    ...data,
    compress: false,
    force_stale: false,
    force_host: false,
    allow_volatile: false,
  });
  t.deepEqual(requestOf('restore', {}, ['d']), {
    verb: 'restore',
    directory: 'd',
    instance: 0,
    ...data,
    ...proof,
    force_stale: false,
    force_host: false,
    allow_private_ipc: false,
  });
  t.deepEqual(requestOf('verify', {}, ['d']), {
    verb: 'verify',
    directory: 'd',
    instance: null,
    ...data,
    ...proof,
    restorable: false,
  });
  const ofPreflight = {
    verb: 'preflight',
    instance: 0,
    ...names,
    compress: false,
    columns: false,
    config: null,
    devices: [],
    ...proof,
    replace: false,
    force_stale: false,
    force_host: false,
    allow_volatile: false,
    allow_private_ipc: false,
  };
  t.deepEqual(requestOf('preflight', {}, ['d']), { ...ofPreflight, leg: null, directory: 'd' });
  t.deepEqual(requestOf('preflight', {}, ['backup']), { ...ofPreflight, leg: 'backup', directory: null });
  t.deepEqual(requestOf('preflight', {}, ['restore', 'd']), { ...ofPreflight, leg: 'restore', directory: 'd' });
  t.deepEqual(requestOf('preflight', {}, ['./backup']), { ...ofPreflight, leg: null, directory: './backup' });
  t.deepEqual(requestOf('retire', {}, ['d']), { verb: 'retire', directory: 'd', instance: 0, ...names });
  t.deepEqual(requestOf('list', {}, []), { verb: 'list', instance: null, ...names });
  t.false(resolve('list', {}, []).verbose);
});

test('everything at once', (t) => {
  const values: Values = {
    namespace: 'a,b,a',
    instance: '15',
    path: '/d',
    threads: '1024',
    compress: true,
    crc: true,
    analyze: true,
    config: '/c',
    device: '/dev/a,/dev/b,/dev/a',
    'force-stale': true,
    wait: '1min 30s',
    deadline: '2h',
  };
  const meant = resolve('backup', { ...values, verbose: true, json: true }, ['/d']);
  t.deepEqual(meant.request, {
    verb: 'backup',
    directory: '/d',
    instance: 15,
    namespaces: ['a', 'b'],
    compress: true,
    columns: false,
    check: true,
    threads: 1024,
    analyze: true,
    config: '/c',
    devices: ['/dev/a', '/dev/b'],
    replace: false,
    force_stale: true,
    allow_volatile: false,
    wait_ms: 90_000,
  });
  t.true(meant.verbose && meant.json);
  t.is(meant.deadlineMs, 7_200_000);
  t.deepEqual(meant.remarks, []);
});

test('times are read as systemd reads them', (t) => {
  const waits = (wait: string | true) => requestOf('backup', { wait }, ['d']);
  for (const [typed, ms] of [
    ['90', 90_000],
    ['90s', 90_000],
    ['1.5min', 90_000],
    ['1h30min', 5_400_000],
    ['1h 30min', 5_400_000],
    ['2d', 172_800_000],
    ['250ms', 250],
    ['infinity', Number.MAX_SAFE_INTEGER],
    [true, Number.MAX_SAFE_INTEGER],
  ] as const) {
    t.like(waits(typed), { wait_ms: ms }, String(typed));
  }
  for (const typed of ['0', '-1', '1x', 's', '1h30', '9999d', '1e3', '0x10', '١٠s', '10 minutes later']) {
    t.throws(() => waits(typed), { message: `--wait is "${typed}", which is not a time of at most a year` });
  }
});

test('a backup may replace an older one', (t) => {
  t.like(requestOf('backup', { replace: true }, ['d']), { replace: true });
  const error = t.throws(() => requestOf('restore', { replace: true }, ['d']));
  t.regex(error?.message ?? '', /restore takes no --replace/);
});

test('what is asked of proof', (t) => {
  t.like(requestOf('restore', { 'require-proof': true }, ['d']), { require_proof: true });
  const request = requestOf('verify', { 'require-proof': true, restorable: true }, ['d']);
  t.like(request, { require_proof: true, restorable: true });
});

test('-z with a restore is remarked on, not refused', (t) => {
  const { request, remarks } = resolve('restore', { compress: true }, ['d']);
  t.false('compress' in request);
  t.is(remarks[0]?.code, 'compress-ignored');
});

test("ASMT's form: exactly one of -b and -r", (t) => {
  t.is(verbOfAsmtForm({ backup: true }), 'backup');
  t.is(verbOfAsmtForm({ restore: true }), 'restore');
  t.throws(() => verbOfAsmtForm({ backup: true, restore: true }), { message: /both -b and -r/ });
});

test('values at and past their limits', (t) => {
  for (const value of ['0', '15', '07']) t.is(resolve('list', { instance: value }, []).request.instance, Number(value));
  for (const value of ['16', '-1', '1.5', '0x1', 'two', ' 1', '99999999999']) {
    t.throws(() => resolve('list', { instance: value }, []), { message: /whole number from 0 to 15/ }, value);
  }
  for (const value of ['1', '1024']) t.like(requestOf('backup', { threads: value }, ['d']), { threads: Number(value) });
  for (const value of ['0', '1025', '']) {
    t.throws(() => resolve('backup', { threads: value }, ['d']), { message: /whole number from 1 to 1024/ }, value);
  }
  const longest = 'n'.repeat(31);
  t.deepEqual(resolve('list', { namespace: longest }, []).request.namespaces, [longest]);
  t.throws(() => resolve('list', { namespace: `${longest}n` }, []), { message: /32 bytes; at most 31/ });
  t.throws(() => resolve('list', { namespace: 'ü'.repeat(16) }, []), { message: /32 bytes/ });
  for (const value of ['a\n', 'a\u007f', 'a,\u009bb', 'bad\uFFFDname']) {
    t.throws(
      () => resolve('list', { namespace: value }, []),
      { message: /contains a character that is not allowed in a name/ },
      value,
    );
  }
  t.deepEqual(resolve('list', { namespace: 'a\u202eb' }, []).request.namespaces, ['a\u202eb']);
  for (const value of ['a,,b', ',a', 'a,', ''])
    t.throws(() => resolve('list', { namespace: value }, []), { message: /empty/ }, value);
});

const refused: [EngineVerb, Values, string[], RegExp][] = [
  ['backup', {}, [], /backup needs a directory/],
  ['verify', {}, [''], /is empty/],
  ['restore', {}, ['a', 'b'], /one directory, but 2/],
  ['restore', { path: '/a' }, ['/b'], /two directories/],
  ['backup', {}, ['bad\uFFFDname'], /not valid UTF-8/],
  ['list', {}, ['d'], /unexpected argument "d"/],
  ['backup', { 'require-manifest': true }, ['d'], /backup takes no --require-manifest/],
  ['restore', { 'allow-volatile': true }, ['d'], /restore takes no --allow-volatile/],
  ['verify', { compress: true }, ['d'], /verify takes no --compress/],
  ['list', { threads: '2' }, [], /list takes no --threads/],
  ['list', { path: 'd' }, [], /list takes no --path/],
  ['list', { analyze: true }, [], /list takes no --analyze/],
  ['backup', { 'force-host': true }, ['d'], /backup takes no --force-host/],
  ['verify', { 'force-stale': true }, ['d'], /verify takes no --force-stale/],
  ['retire', { config: '/c' }, ['d'], /retire takes no --config/],
  ['backup', { 'require-proof': true }, ['d'], /backup takes no --require-proof/],
  ['restore', { restorable: true }, ['d'], /restore takes no --restorable/],
  ['restore', { 'require-proof': true, 'force-stale': true }, ['d'], /--require-proof and --force-stale cannot be used together/],
  ['preflight', {}, ['restore'], /preflight restore needs a directory/],
  ['preflight', { analyze: true }, ['d'], /preflight takes no --analyze/],
  ['retire', {}, [], /retire needs a directory/],
  ['backup', { compress: true, columns: true }, ['d'], /-z and -Z cannot be used together/],
  ['export', { columns: true }, ['d', 'o'], /export takes no --columns/],
  ['export', {}, [], /export needs two directories/],
  ['export', { instance: '1' }, ['d'], /export needs two directories/],
  ['export', { instance: '2' }, ['d', ''], /the directory to write to is empty/],
  ['export', { path: '/p' }, ['a', 'o'], /export needs two directories/],
  ['export', {}, ['d', 'o', 'p'], /export needs two directories/],
  ['restore', { config: '' }, ['d'], /--config is empty/],
  ['restore', { device: '/dev/a,,/dev/b' }, ['d'], /a path of --device is empty/],
  ['restore', { device: 'bad\uFFFDname' }, ['d'], /not valid UTF-8/],
];

for (const [verb, values, operands, message] of refused) {
  test(`${verb} ${JSON.stringify(values)} ${operands.join(' ')} is refused`, (t) => {
    const error = t.throws(() => resolve(verb, values, operands), { instanceOf: AsmtError, message });
    t.is(error.kind, 'usage');
    t.not(error.hint, '');
  });
}

test('an analysis of a backup needs no directory, and says what it did not check', (t) => {
  const { request, remarks } = resolve('backup', { analyze: true, namespace: 'test' }, []);
  t.like(request, { directory: null, analyze: true });
  t.regex(remarks[0]?.message ?? '', /no directory given: .* are not checked/);
  t.deepEqual(resolve('backup', { analyze: true }, ['d']).remarks, []);
  t.throws(() => resolve('restore', { analyze: true }, []), { message: /restore needs a directory/ });
});

test('a list that was asked for something says what it did not find, and what there is', (t) => {
  const namespace = (name: string | null, instance: number) => ({ name, instance, nsid: 7, data_nsid: null }) as NamespaceReport;
  const [test0, bar3, nameless] = [namespace('test', 0), namespace('bar', 3), namespace(null, 1)];
  const all = [test0, nameless, bar3];
  const said = (namespaces: string[] | null, instance: number | null, found: NamespaceReport[], there = all) =>
    notFound({ namespaces, instance }, found, there)?.message ?? null;
  const holds =
    "in shared memory; this IPC namespace contains 'test' of instance 0, nsid 7 (no name) of instance 1, 'bar' of instance 3";
  t.is(said(null, null, []), null);
  t.is(said(null, 3, [bar3]), null);
  t.is(said(['test'], null, [test0]), null);
  t.is(said(['nope'], null, []), `found no namespace 'nope' ${holds}`);
  t.is(said(['test', 'nope'], 0, [test0]), `found no namespace 'nope' of instance 0 ${holds}`);
  t.is(said(null, 2, []), `found no Aerospike segments of instance 2 ${holds}`);
  t.regex(said(null, 2, [], []) ?? '', /contains no Aerospike segments$/);
});

test('options that every command takes', (t) => {
  for (const verb of VERBS) {
    if (verb === 'run') continue;
    const words = verb === 'preflight' ? ['restore', 'd'] : OPERANDS[verb];
    const { request } = resolve(verb, { namespace: 'x', instance: '3', verbose: true, json: true }, words);
    t.deepEqual([request.namespaces, request.instance], [['x'], 3]);
  }
});

test('the words of a command ask for the same again', (t) => {
  const words = (...typed: Parameters<typeof resolve>) => wordsOf(resolve(...typed));
  t.deepEqual(words('backup', { analyze: true, instance: '0', compress: true, namespace: 'a,b' }, ['d']), ['-z', '-n', 'a,b']);
  t.deepEqual(words('restore', { instance: '2', device: '/dev/a b' }, ['d']), ['--device', "'/dev/a b'", '-i', '2']);
  // Without -i, a verification covers every instance.
  t.deepEqual(words('verify', { instance: '0' }, ['d']), ['-i', '0']);
  t.deepEqual(words('verify', {}, ['d']), []);
  t.deepEqual(words('backup', { wait: true, deadline: '90' }, ['d']), ['--wait', '--deadline', '90s']);
  t.deepEqual(words('backup', { wait: '90min', deadline: 'infinity' }, ['d']), ['--wait=90min', '--deadline', 'infinity']);
});

test('run is a restore and a backup, and each gets the options that it takes', (t) => {
  const values: Values = {
    compress: true,
    crc: true,
    instance: '2',
    'require-proof': true,
    'allow-volatile': true,
    metrics: '/m',
  };
  const meant = resolveRun({ ...values, hold: true, ready: '/r' }, ['/d'], ['asd', '--instance', '2']);
  const shared = { directory: '/d', instance: 2, check: true, analyze: false, force_stale: false };
  t.like(meant.restore.request, { verb: 'restore', ...shared, require_proof: true, allow_private_ipc: true });
  t.like(meant.backup.request, { verb: 'backup', ...shared, compress: true, allow_volatile: true });
  t.deepEqual(meant.restore.remarks, []);
  t.deepEqual(meant.command, ['asd', '--instance', '2']);
  t.deepEqual([meant.hold, meant.ready, meant.restore.metrics, meant.backup.metrics], [true, '/r', '/m', '/m']);
  const alone = resolveRun({}, ['/d'], []);
  t.like(alone.restore.request, { allow_private_ipc: false });
  t.deepEqual([alone.command, alone.hold, alone.ready], [[], false, null]);
  t.is((alone.backup.request as { replace?: boolean }).replace, optionNamed('replace') === undefined ? undefined : true);
});

const refusedRuns: [Values, string[], string[], RegExp, RegExp][] = [
  [{}, [], ['asd'], /run needs a directory/, /asmt run DIR/],
  [{}, ['/d', 'asd', '-x'], [], /unexpected argument "asd"/, /: asmt run \/d -- asd -x$/],
  [{ path: '/d' }, ['asd'], [], /unexpected argument "asd"/, /: asmt run -p \/d -- asd$/],
  [{}, ['/d'], [''], /the command is empty/, /variable/],
  [{ analyze: true }, ['/d'], [], /run takes no --analyze/, /backup, restore/],
  [{ json: true }, ['/d'], [], /run takes no --json/, /backup, restore/],
  [{ 'force-stale': true }, ['/d'], [], /run takes no --force-stale/, /backup, restore/],
  [{ ready: '' }, ['/d'], [], /--ready is empty/, /variable/],
  [{ compress: true, columns: true }, ['/d'], [], /-z and -Z/, /use one of them/],
];

for (const [values, operands, command, message, hint] of refusedRuns) {
  test(`run ${JSON.stringify(values)} ${[...operands, '--', ...command].join(' ')} is refused`, (t) => {
    const error = t.throws(() => resolveRun(values, operands, command), { instanceOf: AsmtError, message });
    t.is(error.kind, 'usage');
    t.regex(error.hint, hint);
  });
}

test('what run does after its restore', (t) => {
  const failed = (kind: ErrorText['kind'], ...codes: string[]) =>
    ({ kind, code: codes[0], problems: codes.map((code) => ({ code })) }) as unknown as ErrorText;
  const all = (error: ErrorText | null) =>
    [true, false].flatMap((hold) => [true, false].map((alone) => afterRestore(error, hold, alone)));
  // Held with a sidecar and a command, not held with each.
  t.deepEqual(all(null), ['go', 'go', 'go', 'go']);
  t.deepEqual(all(failed('nothing-to-do', 'no-backup')), ['go', 'go', 'go', 'go']);
  t.deepEqual(all(failed('stale', 'backup-stale')), ['leave', 'leave', 'cold', 'cold']);
  t.deepEqual(all(failed('bug', 'bug')), ['leave', 'leave', 'cold', 'cold']);
  t.deepEqual(all(failed('usage', 'directory-missing')), ['leave', 'leave', 'leave', 'leave']);
  t.deepEqual(all(failed('interrupted', 'interrupted')), ['leave', 'leave', 'leave', 'leave']);
  t.deepEqual(all(failed('stale', 'backup-stale', 'segment-attached')), ['go', 'leave', 'go', 'cold']);
});
