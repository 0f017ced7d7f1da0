/**
 * The metrics of `--metrics FILE`: what Prometheus' own checker says to them, what stays in the
 * file, and what is not believed.
 */

import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';

import test from 'ava';

import { withResults, type Measured } from '../src/metrics.ts';
import type { Outcome } from '../src/outcome.ts';
import { Machine, ROOT, run, show, testIf } from './helpers.ts';

/** Prometheus' own checker: on the PATH, or where `npm run test:examples` has put it. */
const PROMTOOL = [join(ROOT, 'target', 'examples', 'bin', 'promtool'), 'promtool'].find(
  (name) => spawnSync(name, ['--version']).status === 0,
);
const testWithPromtool = testIf(PROMTOOL !== undefined, 'there is no promtool: npm run test:examples installs it');
const promtool = PROMTOOL ?? '';

/** The value of a metric; null if it is not there. */
function value(text: string, name: string, labels: Record<string, string> = {}): number | null {
  const lines = text.split('\n').filter((line) => line.startsWith(`${name}{`));
  const found = lines.filter((line) => Object.entries(labels).every(([label, wanted]) => line.includes(`${label}="${wanted}"`)));
  return found.length === 1 ? Number(found[0]?.split(' ').at(-1)) : null;
}

const namespace = (name: string, instance = 0) =>
  ({
    name,
    instance,
    size_bytes: 100,
    allocated_bytes: 50,
    created_ms: 5000,
    has_manifest: true,
  }) as unknown as Outcome['report'] extends null | (infer R) ? (R extends { namespaces: (infer N)[] } ? N : never) : never;

type Given = Partial<Measured> & { names?: string[]; current?: string[]; code?: string };

function measured(command: string, given: Given = {}): Measured {
  const { names = ['test'], current = [], code, ...others } = given;
  const namespaces = names.map((name) => namespace(name));
  const report = { namespaces, current: current.map((name) => namespace(name)), elapsed_ms: 1500 };
  const problem = { kind: code === 'content-damaged' ? 'damaged' : 'stale', code };
  const outcome = {
    ok: code === undefined,
    report: code === undefined ? report : null,
    error: code === undefined ? null : { ...problem, problems: [problem] },
  } as unknown as Outcome;
  return {
    command,
    directory: '/srv/b',
    instances: [0],
    isWhole: true,
    isReadBack: false,
    outcome,
    status: code === undefined ? 0 : 4,
    endMs: 10_000,
    ...others,
  };
}

test('a run changes what it is about, and nothing else', (t) => {
  const backup = withResults('', measured('backup'));
  t.is(value(backup, 'asmt_last_success_timestamp_seconds', { command: 'backup' }), 10);
  t.is(value(backup, 'asmt_last_success_duration_seconds', { command: 'backup' }), 1.5);
  t.is(value(backup, 'asmt_last_success_bytes', { command: 'backup' }), 100);
  t.is(value(backup, 'asmt_last_success_file_bytes', { command: 'backup' }), 50);
  t.is(value(backup, 'asmt_backup_created_timestamp_seconds', { namespace: 'test' }), 10);
  t.is(value(backup, 'asmt_backup_verified'), 0);
  const verified = withResults(backup, measured('verify', { endMs: 20_000 }));
  t.is(value(verified, 'asmt_last_success_timestamp_seconds', { command: 'backup' }), 10);
  t.is(value(verified, 'asmt_last_success_timestamp_seconds', { command: 'verify' }), 20);
  // The manifest knows best.
  t.is(value(verified, 'asmt_backup_created_timestamp_seconds'), 5);
  t.is(value(verified, 'asmt_backup_verified'), 1);
  const refused = withResults(verified, measured('restore', { code: 'backup-stale', endMs: 30_000 }));
  t.is(value(refused, 'asmt_last_run_result', { command: 'restore', code: 'backup-stale' }), 1);
  t.is(value(refused, 'asmt_last_run_exit_status', { command: 'restore' }), 4);
  t.is(value(refused, 'asmt_last_success_timestamp_seconds', { command: 'restore' }), null);
  t.is(value(refused, 'asmt_backup_verified'), 1);
  const restored = withResults(refused, measured('restore', { endMs: 40_000 }));
  t.is(value(restored, 'asmt_last_run_result', { command: 'restore' }), 1);
  t.true(restored.includes('command="restore",directory="/srv/b",aerospike_instance="0",code="done"} 1'));
  const again = withResults(restored, measured('restore', { code: 'backup-used' }));
  // The last success stays what it was.
  t.is(value(again, 'asmt_last_success_timestamp_seconds', { command: 'restore' }), 40);
  const damaged = withResults(again, measured('verify', { code: 'content-damaged' }));
  t.is(value(damaged, 'asmt_backup_verified'), 0);
  t.is(value(withResults(damaged, measured('backup', { isReadBack: true })), 'asmt_backup_verified'), 1);
  // A backup of ASMT has nothing that it could be compared with.
  const plain = measured('verify');
  for (const entry of plain.outcome.report?.namespaces ?? []) entry.has_manifest = false;
  t.is(value(withResults(restored, plain), 'asmt_backup_verified'), 0);
});

test('a backup that stays because it is current is no other backup', (t) => {
  const verified = withResults(withResults('', measured('backup')), measured('verify', { endMs: 20_000 }));
  const again = (isReadBack: boolean) => measured('backup', { names: [], current: ['test'], endMs: 30_000, isReadBack });
  const kept = withResults(verified, again(false));
  t.is(value(kept, 'asmt_last_success_timestamp_seconds', { command: 'backup' }), 30);
  t.is(value(kept, 'asmt_last_success_bytes', { command: 'backup' }), 100);
  t.is(value(kept, 'asmt_last_success_duration_seconds', { command: 'backup' }), 1.5);
  t.is(value(kept, 'asmt_backup_created_timestamp_seconds', { namespace: 'test' }), 5);
  t.is(value(kept, 'asmt_backup_verified'), 1);
  const plain = withResults('', measured('backup'));
  t.is(value(withResults(plain, again(false)), 'asmt_backup_verified'), 0);
  t.is(value(withResults(plain, again(true)), 'asmt_backup_verified'), 1);
  // One stays beside one that is made, and that nobody has read.
  const mixed = withResults(verified, measured('backup', { names: ['bar'], current: ['test'], endMs: 30_000 }));
  t.is(value(mixed, 'asmt_backup_created_timestamp_seconds', { namespace: 'test' }), 5);
  t.is(value(mixed, 'asmt_backup_created_timestamp_seconds', { namespace: 'bar' }), 30);
  t.is(value(mixed, 'asmt_backup_verified'), 0);
});

test('namespaces and instances that a run is not about stay, and another directory goes', (t) => {
  const name = 'asmt_backup_created_timestamp_seconds';
  const both = withResults('', measured('backup', { names: ['test', 'bar'] }));
  const one = withResults(both, measured('backup', { names: ['bar'], isWhole: false, endMs: 50_000 }));
  t.deepEqual([value(one, name, { namespace: 'test' }), value(one, name, { namespace: 'bar' })], [10, 50]);
  t.is(value(withResults(one, measured('backup', { names: ['bar'] })), name, { namespace: 'test' }), null);
  const other = withResults(one, measured('backup', { instances: [3], names: [] }));
  t.is(value(other, 'asmt_last_run_exit_status', { aerospike_instance: '0' }), 0);
  t.is(value(other, 'asmt_last_run_exit_status', { aerospike_instance: '3' }), 0);
  const moved = withResults(other, measured('backup', { directory: '/srv/c' }));
  t.false(moved.includes('/srv/b'));
});

test('of what is in the file, only what has the right form is believed', (t) => {
  const good = withResults('', measured('verify'));
  const labels = 'command="backup",directory="/srv/b",aerospike_instance="0"';
  const bad = [
    `asmt_last_run_exit_status{${labels}} NaN`,
    `asmt_last_run_exit_status{${labels}} -1`,
    `asmt_last_run_exit_status{${labels}} 1 1700000000`,
    `asmt_last_run_exit_status{directory="/srv/b"} 1`,
    `asmt_last_run_exit_status{${labels},more="x"} 1`,
    `asmt_last_run_exit_status{${labels.replace('backup"', 'back"up"')}} 1`,
    `node_load1{${labels}} 1`,
    `asmt_last_run_exit_status 1`,
    '\u0000\u0001{}',
  ];
  t.is(withResults([good, ...bad].join('\n'), measured('verify')), good);
  t.is(withResults(bad.join('\r\n'), measured('verify')), good);
  // Its own text, in any order, is understood.
  t.is(withResults(good.split('\n').toReversed().join('\n'), measured('verify')), good);
});

test('odd names come out as they must, and come back', (t) => {
  const odd = { directory: '/srv/a "b"\\c\nd', names: ['x"y'] };
  const once = withResults('', measured('backup', odd));
  t.true(once.includes(String.raw`directory="/srv/a \"b\"\\c\nd"`), once);
  const twice = withResults(once, measured('verify', odd));
  t.is(value(twice, 'asmt_last_run_exit_status', { command: 'backup' }), 0, twice);
});

testWithPromtool('promtool finds nothing to say, whatever asmt has done', async (t) => {
  const machine = await Machine.start(t);
  const [directory, file] = [machine.path('b'), machine.path('asmt.prom')];
  const check = async () => {
    const done = await run('sh', ['-c', '"$0" check metrics < "$1"', promtool, file]);
    t.deepEqual([done.status, done.stdout, done.stderr], [0, '', ''], show(done));
  };
  await machine.sim('make');
  const steps: [number, string[]][] = [
    [7, ['restore']],
    [0, ['backup', '-c']],
    [3, ['backup', '-n', 'nosuch']],
    [0, ['verify']],
    [7, ['restore']],
    [0, ['run', directory, '--', 'true']],
  ];
  for (const [status, [verb = '', ...words]] of steps.slice(0, -1)) {
    const done = await machine.asmt([verb, ...words, '--metrics', file, directory]);
    t.true(done.status === status || verb === 'backup', show(done));
    await check();
  }
  await machine.asmt(['run', '--metrics', file, directory, '--', 'true']);
  await check();
  t.is(value(readFileSync(file, 'utf8'), 'asmt_backup_verified'), 1);
});

testWithPromtool('promtool accepts the example of alert rules', async (t) => {
  const rules = join(ROOT, 'share', 'prometheus', 'asmt.rules.yml');
  const done = await run(promtool, ['check', 'rules', rules]);
  t.is(done.status, 0, show(done));
  const tests = await run(promtool, ['test', 'rules', join(ROOT, 'share', 'prometheus', 'asmt.rules.test.yml')]);
  t.is(tests.status, 0, show(tests));
});

test('each metric of the alert rules is one that asmt writes', (t) => {
  const rules = readFileSync(join(ROOT, 'share', 'prometheus', 'asmt.rules.yml'), 'utf8');
  const text = withResults('', measured('backup'));
  const names = new Set([...rules.matchAll(/\basmt_\w+/g)].map(([name]) => name));
  t.true(names.size >= 4);
  for (const name of names) t.true(text.includes(`# TYPE ${name} gauge\n`), name);
});

test('the file is for everybody to read, and nothing is left beside it', async (t) => {
  const machine = await Machine.start(t);
  const [directory, file] = [machine.path('b'), machine.path('m', 'asmt.prom')];
  mkdirSync(machine.path('m'));
  await machine.sim('make');
  const done = await machine.exec('bash', [
    '-c',
    'umask 077; exec "$@"',
    'bash',
    process.execPath,
    join(ROOT, 'dist', 'main.js'),
    'backup',
    '--metrics',
    file,
    directory,
  ]);
  t.is(done.status, 0, show(done));
  t.is(statSync(file).mode & 0o777, 0o644);
  t.deepEqual(readdirSync(machine.path('m')), ['asmt.prom']);
  // An analysis does nothing, and says nothing.
  const before = readFileSync(file, 'utf8');
  await machine.expect(0, ['verify', '-a', '--metrics', file, directory]);
  t.is(readFileSync(file, 'utf8'), before);
});

test('metrics that cannot be written are a note, and change no exit status', async (t) => {
  const machine = await Machine.start(t);
  const directory = machine.path('b');
  await machine.sim('make');
  const done = await machine.expect(0, ['backup', '--metrics', machine.path('no', 'asmt.prom'), directory]);
  t.regex(done.stderr, /note: the metrics could not be written to .*: ENOENT/, show(done));
  const json = await machine.json(0, ['verify', '--metrics', machine.path('no', 'asmt.prom'), directory]);
  t.true(json.ok);
  // A directory in its place stays, and so do other files beside it.
  mkdirSync(machine.path('m', 'asmt.prom'), { recursive: true });
  await machine.expect(0, ['verify', '--metrics', machine.path('m', 'asmt.prom'), directory]);
  t.deepEqual(readdirSync(machine.path('m')), ['asmt.prom']);
  t.true(statSync(machine.path('m', 'asmt.prom')).isDirectory());
});

test('a file that is none is not waited for, and what it holds is not believed', async (t) => {
  const machine = await Machine.start(t);
  const [directory, file] = [machine.path('b'), machine.path('asmt.prom')];
  await machine.sim('make');
  await machine.exec('mkfifo', [file]);
  const refused = await machine.expect(0, ['backup', '--metrics', file, directory]);
  t.regex(refused.stderr, /note: the metrics could not be written to .*: it is no regular file/, show(refused));
  t.true(statSync(file).isFIFO());
  rmSync(file);
  const link = machine.path('link.prom');
  symlinkSync('/dev/zero', link);
  await machine.expect(0, ['verify', '--metrics', link, directory]);
  t.is(readlinkSync(link), '/dev/zero');
  // Where a link leads to a file, that is the file.
  rmSync(link);
  writeFileSync(file, '');
  symlinkSync(file, link);
  await machine.expect(0, ['verify', '--metrics', link, directory]);
  t.is(readlinkSync(link), file);
  t.is(value(readFileSync(file, 'utf8'), 'asmt_last_run_exit_status'), 0);
  writeFileSync(file, 'x'.repeat(2 ** 21));
  chmodSync(file, 0o600);
  await machine.expect(0, ['verify', '--metrics', file, directory]);
  t.true(readFileSync(file, 'utf8').startsWith('# HELP asmt_'));
  t.true(existsSync(file));
});
