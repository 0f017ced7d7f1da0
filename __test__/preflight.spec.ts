/**
 * `asmt preflight`: it says what `--analyze` would refuse, judges a running server as after its
 * stop, and changes nothing.
 */

import {
  appendFileSync,
  chmodSync,
  copyFileSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';

import test, { type ExecutionContext } from 'ava';
import { Chalk } from 'chalk';

import type { Check, Preflight } from '../src/generated/engine.ts';
import type { Report } from '../src/outcome.ts';
import * as render from '../src/render.ts';
import { MAIN, Machine, SIM, run, show, testAsRoot, testTraced, type Holder, type Run } from './helpers.ts';
import { Systemd, testWithSystemd, writeServerUnit } from './systemd.ts';

const LONGEST = 'abcdefghijklmnopqrstuvwxyz01234';
const MEMORY = '  storage-engine memory {\n    data-size 8M\n  }\n';
const TEST = ['--name', 'test', '--nsid', '1'];
const CACHE = ['--name', 'cache', '--nsid', '2'];

/** A configuration: each namespace with its lines. */
const configuration = (namespaces: Readonly<Record<string, string>>): string =>
  Object.entries(namespaces)
    .map(([name, lines]) => `namespace ${name} {\n${lines}}\n`)
    .join('');

/** A node with an index in 'test', and data in 'cache'. */
async function node(t: ExecutionContext, machine: Machine): Promise<string> {
  writeFileSync(machine.config, configuration({ test: '', cache: MEMORY }));
  await machine.sim('make', ...TEST);
  await machine.sim('make', ...CACHE, '--stripes', '8');
  t.false(machine.names(machine.directory).includes('b'));
  return machine.path('b');
}

/** Runs a preflight, which must end with `status`. Returns what it found. */
async function found(machine: Machine, status: number, ...args: string[]): Promise<Preflight> {
  const { report, error } = await machine.json(status, ['preflight', ...args]);
  if (report?.preflight === undefined || report.preflight === null) throw new Error(JSON.stringify(error));
  if ((error?.code ?? null) !== (status === 0 ? null : 'not-ready')) throw new Error(JSON.stringify(error));
  return report.preflight;
}

const of = (judged: Preflight, topic: Check['topic']): Check[] => judged.checks.filter((check) => check.topic === topic);
const answers = (judged: Preflight, topic: Check['topic']): string[] => of(judged, topic).map(({ answer }) => answer);
const texts = (judged: Preflight, topic: Check['topic']): string =>
  of(judged, topic)
    .map(({ text }) => text)
    .join('\n');
/** The refusals, as a set. */
const refusals = (judged: Preflight): string[] =>
  judged.checks
    .filter(({ code }) => code !== null)
    .map(({ code, text }) => `${code}: ${text}`)
    .toSorted();

/** What `--analyze` refuses, as a set. */
async function analysed(machine: Machine, ...args: string[]): Promise<string[]> {
  const done = await machine.asmt([...args, '-a', '--json']);
  const { error } = JSON.parse(done.stdout) as { error: { problems: { code: string; message: string }[] } | null };
  return (error?.problems ?? []).map(({ code, message }) => `${code}: ${message}`).toSorted();
}

/** A process with the name of the server's that has every segment attached. */
async function server(machine: Machine): Promise<Holder> {
  copyFileSync(SIM, machine.path('asd'));
  chmodSync(machine.path('asd'), 0o755);
  return machine.start(machine.path('asd'), ['hold'], 'ready');
}

/** Nothing of a page is wider than 80 columns, or ends in a space. */
function fits(t: ExecutionContext, done: Run): void {
  for (const line of done.stdout.split('\n')) t.true(line.length <= 80 && !line.endsWith(' '), `${line.length}: ${line}`);
}

test('before a backup: ready, and nothing is changed', async (t) => {
  const machine = await Machine.start(t);
  const directory = await node(t, machine);
  const before = await machine.memory();
  const judged = await found(machine, 0, directory);
  t.true(judged.ready && judged.backup && !judged.restore && !judged.server_runs);
  t.deepEqual(
    judged.namespaces.map(({ name, applies, backup, restore }) => [name, applies, backup, restore]),
    [
      ['cache', true, true, null],
      ['test', true, true, null],
    ],
  );
  const { report } = await machine.json(0, ['backup', '-a', directory]);
  const allocated = judged.namespaces.reduce((sum, { allocated_bytes: bytes }) => sum + (bytes ?? 0), 0);
  t.is(allocated, report?.total_bytes ?? 0);
  // Between the two looks the kernel may have taken back pages that were only read.
  t.true(Math.abs((judged.data_bytes ?? 0) - (report?.reserve_bytes ?? 0)) <= 64 << 10, `${judged.data_bytes}`);
  for (const topic of ['server', 'backup', 'room', 'rights', 'time', 'stripe-size'] as const) {
    t.deepEqual(answers(judged, topic), ['ready'], topic);
  }
  t.true((judged.backup_ms ?? 0) > 0);
  t.regex(texts(judged, 'time'), /a short try has written/);
  t.is(await machine.memory(), before);
  t.false(machine.names(machine.directory).includes('b'));
  // In a directory that is there, nothing is left, either.
  mkdirSync(directory, { mode: 0o700 });
  const modified = statSync(directory).mtimeMs;
  await found(machine, 0, 'backup', directory);
  t.deepEqual(machine.names(directory), []);
  t.is(statSync(directory).mtimeMs, modified);
  const page = await machine.expect(0, ['preflight', directory]);
  t.regex(page.stdout, /\nready for a backup\n$/);
  fits(t, page);
});

test('a backup of some of the namespaces is not all that is needed', async (t) => {
  const machine = await Machine.start(t);
  const directory = await node(t, machine);
  await machine.expect(0, ['backup', '-n', 'test', directory]);
  const without = await found(machine, 3, directory);
  t.true(without.backup && without.restore);
  const judged = await found(machine, 0, '--replace', directory);
  t.true(judged.backup && !judged.restore);
  t.regex(texts(judged, 'backup'), /segments of 1 namespace would be backed up/);
  t.true((await found(machine, 0, '-n', 'test', directory)).restore);
});

test('a variable with which the backup would not begin', async (t) => {
  const machine = await Machine.start(t);
  const directory = await node(t, machine);
  const wrong = { ASMT_WAIT: 'soon', ASMT_THREADS: 'abc', ASMT_CRC: 'ye' };
  for (const [name, value] of Object.entries(wrong)) {
    const done = await machine.asmt(['preflight', directory], { env: { [name]: value } });
    t.is(done.status, 2, show(done));
    t.regex(done.stderr, new RegExp(`error: ${name} `), show(done));
  }
});

test('--replace: an older backup is in the way without it, and the unit has it', async (t) => {
  const machine = await Machine.start(t);
  const directory = await node(t, machine);
  await machine.expect(0, ['backup', directory]);
  for (const name of [TEST, CACHE]) await machine.sim('start', ...name);
  const holder = await server(machine);
  const without = await found(machine, 3, directory);
  t.true(refusals(without).some((text) => text.startsWith('backup-exists')));
  const names = machine.names(directory);
  // Nobody restores what is replaced before the reboot.
  const judged = await found(machine, 0, '--replace', directory);
  t.true(judged.ready && judged.backup && !judged.restore);
  t.regex(texts(judged, 'backup'), /the backup of \S+ (stays until the new one is complete|is outdated: it is removed)/);
  fits(t, await machine.expect(0, ['preflight', '--replace', directory]));
  t.deepEqual(machine.names(directory), names);
  // What it says comes true.
  await holder.end();
  for (const name of [TEST, CACHE]) await machine.sim('stop', ...name);
  const stopped = await found(machine, 0, '--replace', directory);
  t.true(stopped.backup && !stopped.restore);
  await machine.expect(0, ['backup', '--replace', directory]);
  // Then the one that is there is that of these segments.
  await found(machine, 0, '--replace', directory);
  t.true((await found(machine, 0, 'restore', directory)).restore);
});

test('while the server runs: what will be after its stop, and then it is', async (t) => {
  const machine = await Machine.start(t);
  const directory = await node(t, machine);
  // A running server has thrown base and treex away, and its stripes are not trusted.
  for (const name of [TEST, CACHE]) await machine.sim('start', ...name);
  const holder = await server(machine);
  const before = await machine.memory();
  const judged = await found(machine, 0, directory);
  t.true(judged.ready && judged.server_runs);
  t.deepEqual(answers(judged, 'server'), ['note']);
  t.regex(texts(judged, 'server'), new RegExp(`it runs \\(pid ${holder.pid}\\): it must be stopped first`));
  t.deepEqual(
    judged.namespaces.map(({ name, backup }) => [name, backup]),
    [
      ['cache', true],
      ['test', true],
    ],
  );
  const page = await machine.expect(0, ['preflight', directory]);
  t.regex(page.stdout, /\nready for a backup once the server has been stopped cleanly\n$/);
  t.is(await machine.memory(), before);
  await holder.end();
  // Killed, it is not ready.
  const crashed = await found(machine, 3, directory);
  t.deepEqual(refusals(crashed), await analysed(machine, 'backup', directory));
  t.true(refusals(crashed).some((text) => text.startsWith('segments-incomplete')));
  t.true(crashed.namespaces.some(({ name, backup }) => name === '(nsid 1, no name)' && backup === false));
  for (const name of [TEST, CACHE]) await machine.sim('stop', ...name);
  await found(machine, 0, directory);
  await machine.expect(0, ['backup', directory]);
});

test('names that stand in memory only after the stop are not guessed', async (t) => {
  const machine = await Machine.start(t);
  writeFileSync(machine.config, configuration({ a: '', b: '' }));
  for (const [index, name] of ['a', 'b'].entries()) {
    const words = ['--name', name, '--nsid', `${index + 1}`];
    await machine.sim('make', ...words);
    await machine.sim('start', ...words);
  }
  await server(machine);
  const judged = await found(machine, 0, machine.path('b'));
  t.regex(texts(judged, 'server'), /the names of nsid 1, 2 stand in memory only after the stop/);
  t.deepEqual(
    judged.namespaces.map(({ name, allocated_bytes: bytes }) => [name, bytes]),
    [
      ['a', null],
      ['b', null],
    ],
  );
  // A third name that could be either's: what was asked for cannot be told.
  writeFileSync(machine.config, configuration({ a: '', b: '', c: '' }));
  const asked = await found(machine, 3, '-n', 'a', machine.path('b'));
  t.true(
    asked.checks.some(({ code, answer }) => code === 'nothing-found' && answer === 'unknown'),
    JSON.stringify(asked),
  );
});

test('another process than the server has segments attached: it is said as a backup says it', async (t) => {
  const machine = await Machine.start(t);
  const directory = await node(t, machine);
  const holder = await machine.hold();
  const judged = await found(machine, 3, directory);
  t.deepEqual(refusals(judged), await analysed(machine, 'backup', directory));
  t.true(refusals(judged).every((text) => text.startsWith('segment-attached')));
  t.false(judged.server_runs);
  await holder.end();
  await found(machine, 0, directory);
});

test('after the backup: the restore, as it will be after the reboot, and as it is then', async (t) => {
  const machine = await Machine.start(t);
  const directory = await node(t, machine);
  const before = await machine.memory();
  await machine.expect(0, ['backup', directory]);
  const names = machine.names(directory);
  const still = await found(machine, 0, 'restore', '--allow-private-ipc', directory);
  t.true(still.ready && still.after_reboot && still.restore && !still.backup);
  t.regex(texts(still, 'restore'), /16 segments of 2 namespaces would be restored after a reboot/);
  // Without a word, no second backup is judged: a hint to move the first one away would cost it.
  for (const words of [[directory], ['--replace', directory]]) {
    const left = await found(machine, 0, ...words);
    t.true(left.restore && left.after_reboot && !left.backup);
    t.deepEqual(refusals(left), []);
  }
  const second = await found(machine, 3, 'backup', directory);
  t.deepEqual(refusals(second), await analysed(machine, 'backup', directory));
  t.true(refusals(second).every((text) => text.startsWith('backup-exists')));
  const kept = await found(machine, 0, 'backup', '--replace', '-z', directory);
  t.regex(texts(kept, 'backup'), /the backup that is there is current: no other one would be made/);
  t.false(/uncompressed|would be backed up/.test(texts(kept, 'backup')));
  t.deepEqual([...answers(kept, 'room'), ...answers(kept, 'time')], []);
  await machine.sim('remove');
  const after = await found(machine, 0, directory);
  t.true(after.restore && !after.backup && !after.after_reboot);
  t.deepEqual(answers(after, 'memory'), ['ready']);
  t.true((after.restore_ms ?? 0) > 0);
  t.deepEqual(machine.names(directory), names);
  t.is(await machine.memory(), '');
  const page = await machine.expect(0, ['preflight', directory]);
  t.regex(page.stdout, /\nready for a restore\n$/);
  fits(t, page);
  await machine.expect(0, ['restore', directory]);
  t.is((await machine.memory()).replaceAll(' 600 ', ' 666 '), before.replaceAll(' 600 ', ' 666 '));
});

test('each refusal of a restore is a line with its next step', async (t) => {
  const machine = await Machine.start(t);
  const directory = await node(t, machine);
  await machine.expect(0, ['backup', directory]);
  await machine.sim('remove');
  const agrees = async (code: string) => {
    const judged = await found(machine, 3, 'restore', directory);
    t.deepEqual(refusals(judged), await analysed(machine, 'restore', directory), code);
    t.true(
      refusals(judged).some((text) => text.startsWith(`${code}:`)),
      `${code} ${refusals(judged).join(', ')}`,
    );
    for (const check of judged.checks.filter(({ answer }) => answer === 'not-ready')) t.not(check.hint, '', check.text);
    return judged;
  };
  truncateSync(join(directory, 'ae001100.dat'), 4096);
  const damaged = await agrees('wrong-size');
  t.deepEqual(
    damaged.namespaces.map(({ name, restore }) => [name, restore]),
    [
      ['cache', true],
      ['test', false],
    ],
  );
  rmSync(join(directory, 'ae001100.dat'));
  await agrees('backup-incomplete');
  await machine.expect(0, ['retire', directory]);
  await agrees('backup-retired');
  chmodSync(directory, 0o777);
  const open = await agrees('writable-by-others');
  t.true(of(open, 'rights').some(({ answer }) => answer === 'not-ready'));
  rmSync(directory, { recursive: true });
  await agrees('no-backup');
  writeFileSync(directory, '');
  await agrees('not-a-directory');
  await found(machine, 3, directory);
});

test('a server that runs since the backup: the restore is not ready, whatever else is', async (t) => {
  const machine = await Machine.start(t);
  const directory = await node(t, machine);
  await machine.expect(0, ['backup', directory]);
  for (const name of [TEST, CACHE]) await machine.sim('start', ...name);
  await server(machine);
  const judged = await found(machine, 3, 'restore', directory);
  t.deepEqual(refusals(judged), await analysed(machine, 'restore', directory));
  t.false(judged.after_reboot);
  const page = await machine.expect(3, ['preflight', 'restore', directory]);
  t.regex(page.stdout, /\nNOT READY for a restore\n$/);
  t.regex(page.stderr, /^asmt: error: not ready: \d+ of \d+ checks failed/);
  fits(t, page);
});

test('whether asmt applies to a namespace, and why not', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make', ...TEST);
  const device = '  storage-engine device {\n    file /nowhere\n  }\n';
  writeFileSync(
    machine.config,
    configuration({
      test: '',
      flash: `  index-type flash {\n    mount /mnt\n  }\n${device}`,
      pmem: '  index-type pmem {\n    mount /mnt\n  }\n  storage-engine device {\n    file /nowhere2\n  }\n',
      disk: '  storage-engine device {\n    file /nowhere3\n  }\n',
      saved: '  index-checkpoint-path /mnt\n',
    }),
  );
  const judged = await found(machine, 0, machine.path('b'));
  const why = Object.fromEntries(judged.namespaces.map(({ name, applies, why: text }) => [name, [applies, text]]));
  t.deepEqual(why, {
    test: [true, ''],
    flash: [false, 'its index is on flash and persists by itself'],
    pmem: [false, 'its index is on pmem and persists by itself'],
    disk: [false, 'its data is on devices, and nothing with its name is in shared memory'],
    saved: [false, 'the server is configured to keep its own checkpoint of the index: use that, or asmt, and not both'],
  });
  t.is(of(judged, 'applies').length, 4);
  // Nothing at all is in memory.
  await machine.sim('remove');
  const nothing = await found(machine, 3, machine.path('b'));
  t.true(refusals(nothing).some((text) => text.startsWith('nothing-found')));
});

test('what has changed since the backup and decides about a warm restart', async (t) => {
  const machine = await Machine.start(t);
  const lines = '  index-stage-size 1G\n  partition-tree-sprigs 256\n';
  writeFileSync(machine.config, configuration({ test: lines, cache: MEMORY }));
  await machine.sim('make', ...TEST);
  await machine.sim('make', ...CACHE, '--stripes', '8');
  const directory = machine.path('b');
  await machine.expect(0, ['backup', directory]);
  await machine.sim('remove');
  const same = await found(machine, 0, directory);
  t.regex(texts(same, 'changed'), /data-size, partition-tree-sprigs and index-stage-size are as they were noted/);
  // The same value, written in another way.
  writeFileSync(machine.config, configuration({ test: lines.replace('1G', '1024M'), cache: MEMORY }));
  await found(machine, 0, directory);
  writeFileSync(machine.config, configuration({ test: lines.replace('1G', '2G'), cache: MEMORY }));
  const stages = await found(machine, 3, directory);
  t.deepEqual(answers(stages, 'changed').toSorted(), ['note', 'unknown']);
  t.regex(texts(stages, 'changed'), /'test': index-stage-size is 2G in .*, and was 1G when the backup was made/);
  t.regex((await machine.asmt(['preflight', directory])).stderr, /^asmt: error: not known to be ready: 1 of/);
  writeFileSync(machine.config, configuration({ test: '  partition-tree-sprigs 256\n', cache: MEMORY }));
  t.regex(texts(await found(machine, 3, directory), 'changed'), /index-stage-size is not set in/);
  writeFileSync(machine.config, configuration({ test: lines.replace('256', '4096'), cache: MEMORY }));
  const sprigs = await found(machine, 3, directory);
  t.deepEqual(refusals(sprigs), await analysed(machine, 'restore', directory));
  t.is(of(sprigs, 'changed').filter(({ code }) => code === 'setting-changed').length, 1);
  writeFileSync(machine.config, configuration({ test: lines, cache: MEMORY.replace('8M', '1G') }));
  t.deepEqual(answers(await found(machine, 3, directory), 'stripe-size'), ['not-ready']);
  writeFileSync(machine.config, configuration({ test: lines, cache: MEMORY.replace('8M', '9M') }));
  t.deepEqual(answers(await found(machine, 3, directory), 'stripe-size'), ['unknown']);
  writeFileSync(machine.config, configuration({ test: lines, more: '' }));
  const other = texts(await found(machine, 0, directory), 'changed');
  t.regex(other, /has no namespace 'cache'/);
  t.regex(other, /not in the backup, and that the server cold-starts: more/);
});

testAsRoot("the server's program is noted in a backup, and compared", async (t) => {
  const machine = await Machine.startHost(t);
  const directory = await node(t, machine);
  writeServerUnit(machine, `${machine.path('asd')} --fgdaemon`);
  writeFileSync(machine.path('asd'), 'one');
  await machine.expect(0, ['backup', directory]);
  await machine.sim('remove');
  t.regex(texts(await found(machine, 0, directory), 'changed'), /the server's program is the same: \S+asd \(3 bytes\)/);
  appendFileSync(machine.path('asd'), ' more');
  const changed = await found(machine, 3, directory);
  t.regex(texts(changed, 'changed'), /has changed: \S+asd \(8 bytes\) was \S+asd \(3 bytes\) when the backup was made/);
  t.true(answers(changed, 'changed').includes('unknown'));
  rmSync(machine.path('asd'));
  t.regex(texts(await found(machine, 3, directory), 'changed'), /is not found here: a change of it is unknown/);
});

testAsRoot('a target that is small, read-only or in memory: it is never filled, and not written to without rights', async (t) => {
  const machine = await Machine.startHost(t);
  await node(t, machine);
  const [image, place] = [machine.path('disk'), machine.path('mnt')];
  truncateSync(writeNew(image), 48 << 20);
  const made = await run('mkfs.ext4', ['-q', '-O', '^has_journal', '-m', '0', image]);
  t.is(made.status, 0, show(made));
  mkdirSync(place);
  await machine.mount(image, place, '-o', 'loop');
  // A sixteenth of what is free is less than a piece: nothing is written.
  const small = await found(machine, 0, join(place, 'b'));
  t.deepEqual(answers(small, 'time'), ['note']);
  t.regex(texts(small, 'time'), /unknown: not tried: too little room/);
  t.is((await machine.exec('ls', ['-A', place])).stdout, 'lost+found\n');
  // Too small for the backup.
  const free = Number((await machine.exec('sh', ['-c', `df --output=avail -B1 ${place} | tail -1`])).stdout);
  await machine.exec('fallocate', ['-l', String(free - (2 << 20)), join(place, 'filler')]);
  const full = await found(machine, 3, join(place, 'b'));
  t.deepEqual(refusals(full), await analysed(machine, 'backup', join(place, 'b')));
  t.deepEqual(answers(full, 'room'), ['not-ready']);
  const packed = await found(machine, 3, '-z', join(place, 'b'));
  t.deepEqual(answers(packed, 'room'), ['unknown']);
  await machine.exec('mount', ['-o', 'remount,ro', place]);
  const readOnly = await found(machine, 3, join(place, 'b'));
  t.deepEqual(answers(readOnly, 'rights'), ['not-ready']);
  t.regex(texts(readOnly, 'time'), /unknown: not tried: its file system is mounted read-only/);
  await machine.exec('umount', [place]);
  await machine.mount('tmpfs', place, '-t', 'tmpfs');
  const volatile = await found(machine, 3, join(place, 'b'));
  t.true(refusals(volatile).some((text) => text.startsWith('volatile-directory')));
  t.regex(texts(volatile, 'time'), /nothing was written to a directory in which no backup is made/);
  await found(machine, 0, '--allow-volatile', join(place, 'b'));
  await machine.exec('umount', [place]);
});

/** Makes an empty file. Returns its path. */
function writeNew(path: string): string {
  writeFileSync(path, '');
  return path;
}

testTraced('killed while it writes, or where files need a name, it leaves nothing', async (t) => {
  const machine = await Machine.start(t);
  const directory = await node(t, machine);
  mkdirSync(directory, { mode: 0o700 });
  const killed = await machine.traced(['pwrite64:signal=KILL:when=1'], ['preflight', directory]);
  t.is(killed.signal, 'SIGKILL', show(killed));
  t.deepEqual(machine.names(directory), []);
  // A file system that has no files without a name: the name is gone before the first byte. The
  // calls of each thread on the directory are counted.
  const trace = machine.path('trace');
  const words = ['-f', '-qq', '-P', directory, '-e', 'trace=openat', '-o', trace, process.execPath, MAIN];
  await machine.exec('strace', [...words, 'preflight', directory]);
  const calls = readFileSync(trace, 'utf8').split('\n');
  const [thread = ''] = calls.find((line) => line.includes('O_TMPFILE'))?.split(' ') ?? [];
  const when = calls.filter((line) => line.startsWith(`${thread} `)).findIndex((line) => line.includes('O_TMPFILE')) + 1;
  t.true(thread !== '' && when > 0, calls.join('\n'));
  const refusal = `openat:error=EOPNOTSUPP:when=${when}`;
  const named = await machine.tracedOn(directory, [refusal], ['preflight', '--json', directory]);
  t.is(named.status, 0, show(named));
  t.regex(named.stdout, /a short try has written/);
  t.deepEqual(machine.names(directory), []);
});

testWithSystemd('what systemd says: the unit, its order, the time of a reboot, a cold start', async (t) => {
  t.timeout(300_000);
  const machine = await Machine.startHost(t);
  const directory = await node(t, machine);
  const units = machine.path('etc', 'systemd', 'system');
  mkdirSync(join(units, 'aerospike.service.d'), { recursive: true });
  const serverUnit = (lines: string) =>
    writeFileSync(
      join(units, 'aerospike.service'),
      `[Unit]\nDefaultDependencies=no\n[Service]\nExecStart=/bin/sleep infinity\n${lines}[Install]\nWantedBy=asmt-test.target\n`,
    );
  const ownUnit = (lines: string) =>
    writeFileSync(
      join(units, 'asmt.service'),
      `[Unit]\nDefaultDependencies=no\n${lines}[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n[Install]\nWantedBy=asmt-test.target\n`,
    );
  serverUnit('TimeoutStopSec=10min\n');
  const systemd = await Systemd.boot(t, machine);
  const change = async (...commands: string[][]) => {
    for (const [command = '', ...args] of commands) await systemd.run(command, ...args);
    await systemd.run('systemctl', 'daemon-reload');
  };
  const unitOf = async (status: number) => {
    const judged = await found(machine, status, directory);
    return { judged, unit: of(judged, 'unit')[0], reboot: of(judged, 'reboot')[0], cold: of(judged, 'cold-start')[0] };
  };
  // By hand: the server must not start before the restore.
  const byHand = await unitOf(0);
  t.is(byHand.unit?.answer, 'note');
  t.regex(byHand.unit?.text ?? '', /asmt\.service is not installed, and aerospike\.service does not start by itself/);
  t.is(byHand.reboot?.answer, 'note');
  t.is(byHand.cold?.answer, 'ready');
  await change(['systemctl', 'enable', 'aerospike.service']);
  const early = await unitOf(3);
  t.is(early.unit?.answer, 'not-ready');
  t.regex(early.unit?.text ?? '', /the server starts before anything is restored/);
  t.regex(early.unit?.hint ?? '', /systemctl disable aerospike/);
  // Our unit, in the wrong order and in the right one.
  ownUnit('');
  await change(['systemctl', 'enable', 'asmt.service']);
  t.regex((await unitOf(3)).unit?.text ?? '', /asmt\.service is enabled, but not ordered before aerospike\.service/);
  ownUnit('Before=aerospike.service\n');
  await change();
  const ordered = await unitOf(0);
  t.is(ordered.unit?.text, 'asmt.service is enabled, and ordered before aerospike.service');
  t.is(ordered.reboot?.answer, 'ready');
  t.deepEqual([ordered.judged.stop_ms, ordered.judged.reboot_ms], [600_000, 1_800_000]);
  t.regex(ordered.reboot?.text ?? '', /stop \(at most 10 min\) and backup \(about \d+ s\) fit into the 30 min of reboot\.target/);
  // The server's stop alone may take all of it; or as long as it likes.
  serverUnit('TimeoutStopSec=30min\n');
  await change();
  const late = await unitOf(3);
  t.is(late.reboot?.answer, 'not-ready');
  t.regex(late.reboot?.hint ?? '', /stop the server \(systemctl stop aerospike\), then back up/);
  serverUnit('TimeoutStopSec=infinity\n');
  await change();
  t.is((await unitOf(3)).reboot?.answer, 'unknown');
  // The drop-in of asd-coldstart, and the unit's environment.
  serverUnit('TimeoutStopSec=10min\n');
  const dropIn = join(units, 'aerospike.service.d', 'coldstart.conf');
  writeFileSync(dropIn, '[Service]\nExecStart=\nExecStart=/bin/sleep infinity --cold-start\n');
  await change();
  const cold = await unitOf(3);
  t.is(cold.cold?.answer, 'not-ready');
  t.regex(cold.cold?.text ?? '', /configured with --cold-start \(ExecStart=\)/);
  const environment = machine.path('environment');
  writeFileSync(environment, 'ASD_OPTIONS="--cold-start"\n');
  writeFileSync(dropIn, `[Service]\nEnvironmentFile=-${environment}\n`);
  await change();
  t.regex((await unitOf(3)).cold?.text ?? '', /--cold-start \(\/\S+environment\)/);
  // Another instance has no unit that is known.
  await machine.sim('make', '--instance', '3', '--name', 'third');
  const third = await found(machine, 0, '-i', '3', machine.path('third'));
  t.regex(texts(third, 'unit'), /the unit of instance 3 has no usual name/);
});

test('wrong usage', async (t) => {
  const machine = await Machine.start(t);
  for (const [args, message] of [
    [['restore'], /preflight restore needs a directory\nHINT: write asmt preflight restore DIR/],
    [['backup', 'a', 'b'], /preflight backup takes one directory, but 2 are given/],
    [['a', 'restore'], /preflight takes one directory, but 2 are given/],
    [['-c', 'a'], /preflight takes no --crc/],
    [['-zZ', 'a'], /-z and -Z cannot be used together/],
  ] as const) {
    const done = await machine.expect(2, ['preflight', ...args]);
    t.regex(done.stderr, message, show(done));
  }
  // Without a directory, only memory is judged, and that is said.
  await machine.sim('make');
  const judged = await found(machine, 3, '-n', 'test');
  t.true(answers(judged, 'backup').includes('unknown'));
  t.deepEqual(refusals(judged), []);
});

const check = (topic: Check['topic'], answer: Check['answer'], text: string, hint = ''): Check => {
  return { topic, answer, text, hint, code: null };
};

/** A page with what is longest in each of its places. */
function longest(): [Report, Preflight] {
  const path = `/${'0123456789012/'.repeat(12)}${'0'.repeat(90)}`;
  const bytes = { allocated_bytes: 1023 * 2 ** 40 + 2 ** 39, resident_bytes: 1023 * 2 ** 30 };
  const row = (name: string) => ({ name, applies: true, why: '', backup: false, restore: true, ...bytes });
  const judged: Preflight = {
    ready: false,
    backup: true,
    restore: true,
    server_runs: true,
    after_reboot: false,
    namespaces: [
      row(LONGEST),
      row('名前空間名前空間名前'),
      row('a\u001b\u202eb'.repeat(5)),
      { ...row('x'), applies: false, ...NOWHERE },
    ],
    checks: [
      check('applies', 'note', `namespace '${LONGEST}': its index is on flash and persists by itself`),
      check('server', 'note', 'it runs (pid 4194304): it must be stopped first'),
      check('backup', 'not-ready', `${path} is a system directory, with other files in it`, `use another one than ${path}`),
      check('backup', 'not-ready', 'first of two with one next step', 'do this'),
      check('backup', 'not-ready', 'second of two with one next step', 'do this'),
      check('cold-start', 'unknown', 'systemd does not answer: \u001b[1;31m!'),
      check('stripe-size', 'ready', `namespace '${'名前空間'.repeat(8)}'`),
    ],
    data_bytes: null,
    free_bytes: null,
    memory_bytes: null,
    available_bytes: null,
    backup_ms: null,
    restore_ms: null,
    stop_ms: null,
    reboot_ms: null,
  };
  return [{ directory: path } as Report, judged];
}

const NOWHERE = { backup: null, restore: null, allocated_bytes: null, resident_bytes: null };

test('the page fits into 80 columns, whatever the names are, and is as it was agreed on', (t) => {
  const text = render.preflight(new Chalk({ level: 0 }), ...longest());
  // Letters of Asia are two columns wide.
  const columns = (line: string) => line.length + (line.match(/[\u2e80-\u9fff]/g) ?? []).length;
  for (const line of text.split('\n')) t.true(columns(line) <= 80 && !line.endsWith(' '), `${columns(line)}: ${line}`);
  // oxlint-disable-next-line no-control-regex -- they are what this is about
  t.notRegex(text, /[\u0000-\u0009\u000b-\u001f\u202e]/);
  t.true(text.includes(LONGEST));
  t.is(text.split('next: do this').length, 2);
  t.snapshot(text, 'a preflight');
  t.true(render.preflight(new Chalk({ level: 1 }), ...longest()).includes('\u001b[31mNO '));
});
