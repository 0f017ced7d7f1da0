/** A backup that the server has run since is refused: by what its devices say, and where none can be asked by less. */

import {
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  statSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { crc32 } from 'node:zlib';

import test, { type ExecutionContext } from 'ava';

import { MAIN, Machine, show, testAsRoot, testTraced } from './helpers.ts';

const MARK = 'asmt-used-0-test.json';
const MANIFEST = 'asmt-manifest-0-test.json';

function configuration(machine: Machine, devices: readonly string[], more = ''): string {
  const lines = devices.map((path) => `    device ${path}\n`).join('');
  const engine = devices.length > 0 ? `  storage-engine device {\n${lines}  }\n` : '  storage-engine memory\n';
  const logging = `logging {\n  file ${machine.path('aerospike.log')} {\n    context any info\n  }\n}\n`;
  return `service {\n  work-directory ${machine.path('work')}\n}\n${logging}namespace test {\n${engine}${more}}\n`;
}

interface Node {
  readonly machine: Machine;
  readonly before: string;
  readonly directory: string;
  readonly devices: readonly string[];
}

/** A node that was stopped cleanly, with two storage files; or with none, so that nothing can be asked. */
async function stopped(t: ExecutionContext, deviceCount = 2, make: readonly string[] = []): Promise<Node> {
  const machine = await Machine.start(t);
  await machine.sim('make', '--stage-size', '64KiB', '--stripes', '1', ...make);
  const devices = Array.from({ length: deviceCount }, (_, index) => machine.path(`device${index}`));
  // More than JavaScript's numbers can hold.
  for (const path of devices) await machine.sim('device', '--path', path, '--random', '18446744073709551557');
  writeFileSync(machine.config, configuration(machine, devices));
  return { machine, before: await machine.memory(), directory: machine.path('b'), devices };
}

/** The same, backed up, and lost as by a reboot. */
async function rebooted(t: ExecutionContext, deviceCount = 2, make: readonly string[] = []): Promise<Node> {
  const node = await stopped(t, deviceCount, make);
  await node.machine.expect(0, ['backup', node.directory]);
  await node.machine.sim('remove');
  return node;
}

/** What a server that starts, and one that stops cleanly, does to its devices. */
async function serve({ machine, devices }: Node, stop: boolean): Promise<void> {
  for (const path of devices) await machine.sim('open', '--path', path);
  if (stop) for (const path of devices) await machine.sim('close', '--path', path);
}

/** Changes a manifest, and makes its checksum fit again. */
function forge(directory: string, change: (head: Record<string, unknown>) => void): void {
  const file = `${directory}/${MANIFEST}`;
  const lines = readFileSync(file, 'utf8').trimEnd().split('\n').slice(0, -1);
  const head = JSON.parse(lines[0] ?? '') as Record<string, unknown>;
  change(head);
  const body = [JSON.stringify(head), ...lines.slice(1)].map((line) => `${line}\n`).join('');
  writeFileSync(file, `${body}{"end":true,"crc32":"${crc32(body).toString(16).padStart(8, '0')}"}\n`);
}

interface Use {
  at_ms: number;
  boot_id: string;
  host: string;
}

interface Mark {
  retired: Use | null;
  restores: Use[];
}

function markOf(directory: string): Mark {
  return JSON.parse(readFileSync(`${directory}/${MARK}`, 'utf8')) as Mark;
}

/** As if what was done in this boot had been done in an earlier one. */
function anotherBoot(directory: string): void {
  const file = `${directory}/${MARK}`;
  const mark = markOf(directory);
  const uses = [...mark.restores, ...(mark.retired ? [mark.retired] : [])];
  for (const use of uses) use.boot_id = use.boot_id.replace(/^.{8}/, '00000000');
  writeFileSync(file, JSON.stringify(mark));
}

const later = (seconds: number): Date => new Date(Date.now() + 1000 * seconds);

test('devices that are as they were noted: the restore says nothing, and can be repeated', async (t) => {
  const node = await rebooted(t);
  const { machine, before, directory } = node;
  const head = JSON.parse(readFileSync(`${directory}/${MANIFEST}`, 'utf8').split('\n')[0] ?? '') as Record<string, unknown>;
  t.deepEqual(
    head['devices'],
    node.devices.map((of) => ({ of, random: 'ffffffffffffffc5', trusted: true })),
  );
  t.like((head['stripes'] as unknown[])[0], { of: 'ad001000', trusted: true });
  for (let time = 0; time < 2; time += 1) {
    const done = await machine.expect(0, ['restore', directory]);
    t.is(done.stderr, '', show(done));
    t.is(await machine.memory(), before);
    await machine.sim('remove');
  }
  // What only they can tell: it was restored in another boot, and the server's files are newer.
  anotherBoot(directory);
  mkdirSync(machine.path('work', 'smd'), { recursive: true });
  writeFileSync(machine.path('work', 'smd', 'x.smd'), 'x');
  utimesSync(machine.path('work', 'smd', 'x.smd'), later(1000), later(1000));
  t.is((await machine.expect(0, ['restore', directory])).stderr, '');
  t.deepEqual(
    markOf(directory).restores.map(({ boot_id: boot }) => boot.startsWith('00000000')),
    [true, false],
  );
});

for (const stop of [false, true]) {
  test(`the server has run since${stop ? ', and stopped cleanly' : ''}: refused, naming the device`, async (t) => {
    const node = await rebooted(t);
    const { machine, before, directory } = node;
    await serve(node, stop);
    const text =
      /error: namespace 'test': .*\/device0 has random [0-9a-f]{16}, expected ffffffffffffffc5: the server has run since the backup; restoring would roll back to 20\d\d-\d\d-\d\dT[\d:]+Z\n/;
    for (const args of [['restore'], ['restore', '-a'], ['restore', '--force-host']]) {
      const done = await machine.expect(4, [...args, directory]);
      t.regex(done.stderr, text, show(done));
      t.regex(done.stderr, /\nHINT: do not restore it: start the server as it is/, show(done));
    }
    t.regex((await machine.expect(1, ['-r', '-p', directory])).stderr, text);
    const { error } = await machine.json(4, ['restore', directory]);
    t.deepEqual([error?.kind, error?.code, error?.problems.length], ['stale', 'backup-stale', 2]);
    t.is(await machine.memory(), '');
    t.false(existsSync(`${directory}/${MARK}`));
    // A verification says so, and is one of the backup.
    const verified = await machine.expect(0, ['verify', directory]);
    t.regex(verified.stderr, /note: a restore here would be refused: namespace 'test': .*\/device0 has random/, show(verified));
    const forced = await machine.json(0, ['restore', '--force-stale', directory]);
    t.regex(forced.report?.remarks[0]?.message ?? '', /^OVERRIDDEN BY --force-stale: namespace 'test': .*device0 has random/);
    t.is(forced.report?.remarks.filter(({ code }) => code === 'overridden').length, 2);
    t.is(await machine.memory(), before);
    await machine.sim('remove');
    t.regex((await machine.expect(0, ['-r', '--force-stale', '-p', directory])).stderr, /note: OVERRIDDEN BY --force-stale: /);
  });
}

interface Case {
  readonly what: string;
  readonly change: (node: Node) => void | Promise<void>;
  readonly status: number;
  readonly code: string;
  readonly message: RegExp;
}

const cases: Case[] = [
  {
    what: 'a device was opened and is not trusted',
    change: ({ machine, devices }) =>
      machine.sim('device', '--path', devices[1] ?? '', '--random', '18446744073709551557', '--untrusted').then(() => undefined),
    status: 4,
    code: 'backup-stale',
    message: /device1 is not marked as trusted: the server has run since/,
  },
  {
    what: 'a device was wiped',
    change: ({ devices }) => {
      truncateSync(devices[0] ?? '', 0);
      truncateSync(devices[0] ?? '', 65_536);
    },
    status: 4,
    code: 'backup-stale',
    message: /device0 has no header any more/,
  },
  {
    what: 'a device is another namespace’s',
    change: ({ machine, devices }) =>
      machine
        .sim('device', '--path', devices[0] ?? '', '--random', '18446744073709551557', '--name', 'other')
        .then(() => undefined),
    status: 4,
    code: 'backup-stale',
    message: /device0 is of namespace 'other'/,
  },
  {
    what: 'a device is no longer configured',
    change: ({ machine, devices }) => writeFileSync(machine.config, configuration(machine, devices.slice(0, 1))),
    status: 4,
    code: 'backup-stale',
    message: /2 devices were noted in the backup, and 1 are there now: .*device1 is not among them/,
  },
  {
    what: 'a device is gone',
    change: ({ devices }) => unlinkSync(devices[1] ?? ''),
    status: 3,
    code: 'device-unreadable',
    message: /device1 cannot be asked whether the server has run since the backup: is not there/,
  },
  {
    what: 'a device is a FIFO',
    change: async ({ machine, devices }) => {
      unlinkSync(devices[1] ?? '');
      await machine.exec('mkfifo', [devices[1] ?? '']);
    },
    status: 3,
    code: 'device-unreadable',
    message: /device1 cannot be asked .*: is neither a regular file nor, for storage, a block device/,
  },
];

for (const { what, change, status, code, message } of cases) {
  test(`refused: ${what}`, async (t) => {
    const node = await rebooted(t);
    const { machine, before, directory } = node;
    await change(node);
    const { error } = await machine.json(status, ['restore', directory]);
    t.is(error?.code, code);
    t.regex(error?.message ?? '', message);
    t.not(error?.hint, '');
    t.is(await machine.memory(), '');
    const forced = await machine.expect(0, ['restore', '--force-stale', directory]);
    t.regex(forced.stderr, message, show(forced));
    t.is(await machine.memory(), before);
  });
}

test('a device that has another name after the reboot, and one that is new and empty, are no reason to refuse', async (t) => {
  const { machine, before, directory, devices } = await rebooted(t);
  symlinkSync(devices[1] ?? '', machine.path('by-id'));
  writeFileSync(machine.path('new'), Buffer.alloc(65_536));
  writeFileSync(machine.config, configuration(machine, [devices[0] ?? '', machine.path('by-id'), machine.path('new')]));
  await machine.expect(0, ['restore', directory]);
  t.is(await machine.memory(), before);
});

testAsRoot('block devices, and a shadow device beside one', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make', '--stage-size', '64KiB');
  const loops: string[] = [];
  t.teardown(async () => {
    for (const loop of loops) await machine.exec('losetup', ['-d', loop]);
  });
  for (const name of ['image0', 'image1']) {
    writeFileSync(machine.path(name), Buffer.alloc(1 << 20));
    const loop = await machine.exec('losetup', ['-f', '--show', machine.path(name)]);
    t.is(loop.status, 0, show(loop));
    loops.push(loop.stdout.trim());
    await machine.sim('device', '--path', loop.stdout.trim(), '--random', '77');
  }
  // Named as administrators do, by a link.
  symlinkSync(loops[0] ?? '', machine.path('by-id'));
  writeFileSync(machine.config, configuration(machine, [`${machine.path('by-id')} ${loops[1]}`]));
  const before = await machine.memory();
  await machine.expect(0, ['backup', machine.path('b')]);
  await machine.sim('remove');
  t.is((await machine.expect(0, ['restore', machine.path('b')])).stderr, '');
  t.is(await machine.memory(), before);
  await machine.sim('remove');
  await machine.sim('open', '--path', loops[1] ?? '');
  const done = await machine.expect(4, ['restore', machine.path('b')]);
  t.true(done.stderr.includes(`${loops[1]} has random `), show(done));
  t.is(await machine.memory(), '');
});

test('--device: in the place of what is configured, assigned by the name in the header', async (t) => {
  const node = await stopped(t);
  const { machine, before, directory } = node;
  await machine.sim('make', '--name', 'other', '--nsid', '2', '--stage-size', '64KiB');
  await machine.sim('device', '--path', machine.path('other0'), '--name', 'other', '--random', '3');
  unlinkSync(machine.config);
  const named = ['--device', `${machine.path('device0')},${machine.path('other0')}`, '--device', machine.path('device1')];
  t.is((await machine.expect(0, ['backup', ...named, directory])).stderr, '');
  await machine.sim('remove');
  const shown = await machine.expect(0, ['restore', '-av', ...named, directory]);
  t.regex(shown.stdout, /to do it: asmt restore --device .*device0,.*other0,.*device1 /, show(shown));
  // One of a namespace that is not asked for says nothing here.
  await machine.sim('open', '--path', machine.path('other0'));
  const done = await machine.expect(0, ['restore', '-n', 'test', ...named, directory]);
  t.is(done.stderr, '', show(done));
  t.is(await machine.memory(), before);
  const refused = await machine.expect(4, ['restore', '-n', 'other', ...named, directory]);
  t.regex(refused.stderr, /namespace 'other': .*other0 has random/, show(refused));
  for (const [path, why] of [
    [machine.path('none'), /none: is not there\nHINT: check what --device names/],
    [machine.directory, /: is neither a regular file nor, for storage, a block device\n/],
    [MAIN, /main\.js: it has no header that is known/],
    ['/dev/null', /\/dev\/null: is neither a regular file/],
  ] as const) {
    const mistaken = await machine.expect(3, ['restore', '-a', '-n', 'other', '--device', path, directory]);
    t.regex(mistaken.stderr, why, show(mistaken));
  }
});

test('a backup of devices that are not trusted is refused when it is made', async (t) => {
  const node = await stopped(t);
  const { machine, directory } = node;
  await machine.sim('open', '--path', machine.path('device1'));
  for (const args of [['backup'], ['backup', '-a']]) {
    const done = await machine.expect(3, [...args, directory]);
    t.regex(done.stderr, /device1 is not marked as trusted: the server was not cleanly shut down for it\nHINT: /, show(done));
    t.false(existsSync(directory));
  }
  const forced = await machine.expect(0, ['backup', '--force-stale', directory]);
  t.regex(forced.stderr, /note: OVERRIDDEN BY --force-stale: .*device1 is not marked as trusted/, show(forced));
  await machine.sim('remove');
  await machine.expect(4, ['restore', directory]);
});

test('a backup says which devices it could not note, and a restore that it could not ask', async (t) => {
  const node = await stopped(t);
  const { machine, before, directory } = node;
  writeFileSync(machine.path('empty'), Buffer.alloc(65_536));
  await machine.sim('device', '--path', machine.path('others'), '--name', 'others');
  const paths = ['empty', 'others', 'none'].map((name) => machine.path(name));
  writeFileSync(machine.config, configuration(machine, paths, '  index-type flash {\n'));
  const done = await machine.expect(0, ['backup', directory]);
  for (const text of [
    /empty is not noted: it has no header that is known\n/,
    /others is not noted: it is of namespace 'others'/,
    /none is not noted: is not there\n/,
    /namespace 'test': index-type is flash: that index persists by itself/,
    /aerospike\.conf: 1 blocks are not closed\n/,
  ])
    t.regex(done.stderr, text, show(done));
  await machine.sim('remove');
  const restored = await machine.expect(0, ['restore', directory]);
  t.regex(
    restored.stderr,
    /devices could not be asked whether the server has run since the backup: the backup does not note any; went by/,
    show(restored),
  );
  t.is(await machine.memory(), before);
});

test('no configuration: said by backup and restore; one that was named must be there', async (t) => {
  const { machine, before, directory } = await stopped(t, 0);
  unlinkSync(machine.config);
  const done = await machine.expect(0, ['backup', directory]);
  t.regex(done.stderr, /note: namespace 'test': its devices are not noted: .*aerospike\.conf is not there; /, show(done));
  await machine.sim('remove');
  const restored = await machine.expect(0, ['restore', directory]);
  t.regex(restored.stderr, /devices could not be asked .*: .*aerospike\.conf is not there; went by/, show(restored));
  t.is(await machine.memory(), before);
  await machine.sim('remove');
  await machine.exec('mkfifo', [machine.path('fifo')]);
  for (const path of [machine.path('none'), machine.directory, machine.path('fifo'), '/dev/zero']) {
    for (const verb of ['restore', 'verify']) {
      const refused = await machine.expect(2, [verb, '--config', path, directory]);
      t.regex(refused.stderr, /(is not there|is neither a regular file .*)\nHINT: check what --config names/, show(refused));
    }
  }
  // Anything that can be read is a configuration, if one that says little.
  writeFileSync(machine.path('other.conf'), 'namespace other {\n}\n}\n\u0000{{{');
  const odd = await machine.expect(0, ['restore', '--config', machine.path('other.conf'), directory]);
  t.regex(odd.stderr, /other\.conf names no such namespace; went by/, show(odd));
  t.regex(odd.stderr, /other\.conf: a block is closed that was not opened\n/, show(odd));
});

test("the packages' configuration is that of instance 0: another instance's is named, or not known", async (t) => {
  const { machine, directory } = await stopped(t);
  await machine.sim('make', '--instance', '3', '--stage-size', '64KiB');
  const env = { ASMT_CONFIG: '' };
  const done = await machine.expect(0, ['backup', '-i3', directory], { env });
  t.regex(done.stderr, /its devices are not noted: the configuration of instance 3 was not named; /, show(done));
  await machine.sim('remove');
  t.regex((await machine.expect(0, ['restore', '-i3', directory], { env })).stderr, /of instance 3 was not named; went by/);
  await machine.sim('remove');
  // The devices that are named are another set than at the backup; what was noted of none is told by less.
  t.regex((await machine.expect(0, ['restore', '-i3', directory])).stderr, /the backup does not note any; went by/);
});

test('without devices: a restore can be repeated in the same boot, and not in another', async (t) => {
  const { machine, before, directory } = await rebooted(t, 0);
  for (let time = 0; time < 2; time += 1) {
    const done = await machine.expect(0, ['restore', directory]);
    t.regex(done.stderr, /^asmt: note: namespace 'test': devices could not be asked .*: it has no storage device; went by .*\n$/);
    t.is(await machine.memory(), before);
    t.is(markOf(directory).restores.length, 1);
    await machine.sim('remove');
  }
  t.is(statSync(`${directory}/${MARK}`).mode & 0o7777, 0o600);
  anotherBoot(directory);
  for (const args of [['restore'], ['restore', '-a']]) {
    const done = await machine.expect(4, [...args, directory]);
    t.regex(
      done.stderr,
      /the backup was restored on .* at 20.*Z, in another boot: the server may have run since\nHINT: /,
      show(done),
    );
  }
  t.is(await machine.memory(), '');
  t.regex(
    (await machine.expect(0, ['restore', '--force-stale', directory])).stderr,
    /OVERRIDDEN BY --force-stale: .*another boot/,
  );
  t.is(await machine.memory(), before);
  // And it stays refused: the first boot's mark is not lost.
  await machine.sim('remove');
  await machine.expect(4, ['restore', directory]);
  for (const text of ['', '{}', 'x', '{"format":"asmt-used","version":9}']) {
    writeFileSync(`${directory}/${MARK}`, text);
    t.regex((await machine.expect(4, ['restore', directory])).stderr, /whether the backup was used cannot be told: asmt-used/);
  }
  t.is(await machine.memory(), '');
});

test('without devices: a backup that is older than what the server writes is refused', async (t) => {
  const { machine, before, directory } = await rebooted(t, 0);
  const log = machine.path('aerospike.log');
  const smd = machine.path('work', 'smd');
  mkdirSync(smd, { recursive: true });
  writeFileSync(log, 'x\n');
  for (const [path, at, status] of [
    [log, later(3600), 4],
    [log, later(-3600), 0],
    [`${smd}/evict.smd`, later(3600), 4],
    [`${smd}/evict.smd`, later(-3600), 0],
  ] as const) {
    writeFileSync(path, 'x\n');
    utimesSync(path, at, at);
    const done = await machine.expect(status, ['restore', directory]);
    t.is(
      / was written at 20.*Z, after the backup of 20.*Z: the server seems to have run since\nHINT: /.test(done.stderr),
      status === 4,
    );
    t.is(done.stderr.includes(path), status === 4, show(done));
    t.is(await machine.memory(), status === 4 ? '' : before);
    await machine.sim('remove');
  }
  // A log that was rotated away tells nothing.
  writeFileSync(log, '');
  utimesSync(log, later(3600), later(3600));
  await machine.expect(0, ['restore', directory]);
});

test("another host's backup needs --force-host", async (t) => {
  const { machine, before, directory } = await rebooted(t);
  const text = readFileSync(`${directory}/${MANIFEST}`, 'utf8');
  const hostname = readFileSync('/proc/sys/kernel/hostname', 'utf8').trim();
  const machineId = (JSON.parse(text.split('\n')[0] ?? '') as { machine_id: string | null }).machine_id;
  for (const [host, id, isSame] of [
    ['elsewhere', '0123456789abcdef0123456789abcdef', false],
    ['elsewhere', null, false],
    [hostname, null, true],
    ['elsewhere', machineId, machineId !== null],
  ] as const) {
    forge(directory, (head) => Object.assign(head, { host, machine_id: id }));
    const done = await machine.expect(isSame ? 0 : 4, ['restore', directory]);
    if (!isSame) {
      t.regex(
        done.stderr,
        /namespace 'test': the backup is of host 'elsewhere'.*; expected '.*'.*\nHINT: .*--force-host/,
        show(done),
      );
      t.is(await machine.memory(), '');
      await machine.expect(4, ['restore', '--force-stale', directory]);
      const forced = await machine.expect(0, ['restore', '--force-host', directory]);
      t.regex(forced.stderr, /note: OVERRIDDEN BY --force-host: /, show(forced));
    }
    t.is(await machine.memory(), before);
    await machine.sim('remove');
  }
});

test('a manifest of before devices were noted is restored, and told by less', async (t) => {
  const { machine, before, directory, devices } = await rebooted(t);
  forge(directory, (head) => {
    for (const field of ['machine_id', 'devices', 'stripes']) delete head[field];
  });
  t.regex((await machine.expect(0, ['restore', directory])).stderr, /the backup does not note any; went by/);
  t.is(await machine.memory(), before);
  await machine.sim('remove');
  // A clean stop leaves them trusted: that much is known of any backup.
  await machine.sim('open', '--path', devices[1] ?? '');
  t.regex((await machine.expect(4, ['restore', directory])).stderr, /device1 is not marked as trusted: the server has run since/);
});

test('retire: a backup is used up, and nothing of it is changed', async (t) => {
  const { machine, before, directory } = await rebooted(t, 2, ['--name', 'test']);
  await machine.sim('make', '--name', 'other', '--nsid', '2', '--stage-size', '64KiB');
  await machine.expect(0, ['backup', '-n', 'other', directory]);
  await machine.sim('remove');
  const look = () =>
    readdirSync(directory)
      .filter((name) => name !== MARK)
      .map((name) => `${name} ${statSync(`${directory}/${name}`).mtimeMs} ${statSync(`${directory}/${name}`).size}`);
  const files = look();
  const done = await machine.expect(0, ['retire', '-n', 'test', directory]);
  t.regex(done.stdout, /retired 1 namespace in .*\/b: no restore takes it again\n$/, show(done));
  t.is(done.stderr, '', show(done));
  const mark = readFileSync(`${directory}/${MARK}`, 'utf8');
  await machine.expect(0, ['retire', '-n', 'test', directory]);
  t.is(readFileSync(`${directory}/${MARK}`, 'utf8'), mark);
  t.deepEqual(look(), files);
  const refused = await machine.expect(4, ['restore', '-n', 'test', directory]);
  t.regex(refused.stderr, /namespace 'test': the backup was retired on .* at 20.*Z\nHINT: do not restore it/, show(refused));
  await machine.expect(4, ['restore', directory]);
  t.is(await machine.memory(), '');
  await machine.expect(0, ['restore', '-n', 'other', directory]);
  await machine.sim('remove');
  const verified = await machine.expect(0, ['verify', directory]);
  t.regex(verified.stderr, /a restore here would be refused: namespace 'test': the backup was retired/, show(verified));
  t.regex(verified.stdout, /verified 2 namespaces/);
  t.regex((await machine.expect(0, ['restore', '-n', 'test', '--force-stale', directory])).stderr, /OVERRIDDEN .* was retired/);
  t.is(await machine.memory(), before);
  t.not(markOf(directory).retired, null);
});

test('retire: what it does not take', async (t) => {
  const { machine, directory } = await rebooted(t);
  mkdirSync(machine.path('empty'));
  await machine.expect(7, ['retire', machine.path('empty')]);
  await machine.expect(7, ['retire', '-i', '3', directory]);
  await machine.expect(7, ['retire', '-n', 'nope', directory]);
  await machine.expect(3, ['retire', '-n', 'test,nope', directory]);
  await machine.expect(2, ['retire', machine.path('none')]);
  await machine.expect(2, ['retire', '-z', directory]);
  t.deepEqual(machine.names(machine.path('empty')), []);
  const reader = await machine.start('flock', ['-s', directory, 'sh', '-c', 'echo ready; exec cat'], 'ready');
  t.regex((await machine.expect(3, ['retire', directory])).stderr, /another asmt is at work in/);
  await reader.end();
  t.false(existsSync(`${directory}/${MARK}`));
  // What is damaged can be retired like anything else.
  truncateSync(`${directory}/ae001100.dat`, 5);
  truncateSync(`${directory}/${MANIFEST}`, 5);
  await machine.expect(0, ['retire', directory]);
  t.not(markOf(directory).retired, null);
});

test('a mark is of one backup: a later one in the same directory is not used', async (t) => {
  const { machine, before, directory } = await rebooted(t, 0);
  await machine.expect(0, ['retire', directory]);
  await machine.expect(4, ['restore', directory]);
  for (const name of machine.names(directory).filter((name) => name !== MARK)) unlinkSync(`${directory}/${name}`);
  await machine.sim('make', '--stage-size', '64KiB', '--stripes', '1');
  await machine.expect(0, ['backup', directory]);
  await machine.sim('remove');
  await machine.expect(0, ['restore', directory]);
  t.is(await machine.memory(), before);
  t.is(markOf(directory).retired, null);
});

test("ASMT's backup: told by its files, restored when nothing speaks against it, and marked", async (t) => {
  const machine = await Machine.start(t);
  const { directory, segments } = machine.golden('raw-index');
  writeFileSync(machine.config, configuration(machine, []));
  for (let time = 0; time < 2; time += 1) {
    const done = await machine.expect(0, ['-r', '-p', directory]);
    t.regex(done.stderr, /devices could not be asked/, show(done));
    t.is(await machine.memory(), segments);
    await machine.sim('remove');
  }
  anotherBoot(directory);
  t.regex((await machine.expect(1, ['-r', '-p', directory])).stderr, /in another boot: the server may have run since/);
  // Files that are newer than the mark are another backup.
  for (const name of machine.names(directory)) utimesSync(`${directory}/${name}`, later(60), later(60));
  await machine.expect(0, ['-r', '-p', directory]);
  await machine.sim('remove');
  unlinkSync(`${directory}/${MARK}`);
  writeFileSync(machine.path('aerospike.log'), 'x\n');
  utimesSync(machine.path('aerospike.log'), later(100), later(100));
  t.regex((await machine.expect(1, ['-r', '-p', directory])).stderr, /aerospike\.log was written at .*, after the backup of/);
  t.is(await machine.memory(), '');
});

testAsRoot('a directory that cannot be written to: enough where devices tell, else refused', async (t) => {
  const { machine, before, directory, devices } = await rebooted(t);
  const readOnly = (...args: string[]) =>
    machine.exec('unshare', [
      '--mount',
      'sh',
      '-c',
      `mount --bind ${directory} ${directory} && mount -o remount,ro,bind ${directory} && exec "$@"`,
      'sh',
      process.execPath,
      MAIN,
      ...args,
    ]);
  const told = await readOnly('restore', directory);
  t.is(told.status, 0, show(told));
  t.regex(told.stderr, /note: namespace 'test': the backup is not marked as used: .*read-only file system\n/, show(told));
  t.is(await machine.memory(), before);
  await machine.sim('remove');
  unlinkSync(machine.config);
  for (const args of [['restore'], ['restore', '-a']]) {
    const refused = await readOnly(...args, directory);
    t.is(refused.status, 3, show(refused));
    t.regex(
      refused.stderr,
      /cannot be marked as used: its directory cannot be written to, and no device tells\nHINT: /,
      show(refused),
    );
    t.is(await machine.memory(), '');
  }
  const named = await readOnly('restore', '--device', devices.join(','), directory);
  t.is(named.status, 0, show(named));
  await machine.sim('remove');
  const forced = await readOnly('restore', '--force-stale', directory);
  t.is(forced.status, 0, show(forced));
  t.is((await readOnly('retire', directory)).status, 1);
  t.false(existsSync(`${directory}/${MARK}`));
});

/** Shutdown word of base, as a server would find it. */
async function isTrusted(machine: Machine): Promise<boolean> {
  const memory = await machine.memory();
  return (
    memory.includes('ae001000') &&
    (await machine.sim('peek', '--key', 'ae001000', '--offset', '4', '--length', '4')) === '01000000\n'
  );
}

for (const call of ['pwrite64', 'fsync', 'rename,renameat,renameat2', 'shmctl', 'shmat']) {
  for (const how of ['signal=KILL', 'error=EIO']) {
    testTraced(`the mark is there before anything is trusted: ${how} at each ${call}`, async (t) => {
      t.timeout(300_000);
      const { machine, before, directory } = await rebooted(t, 0);
      let states = 0;
      for (let when = 1; when <= 400; when += 1) {
        await machine.sim('remove');
        if (existsSync(`${directory}/${MARK}`)) unlinkSync(`${directory}/${MARK}`);
        const done = await machine.traced([`${call}:${how}:when=${when}`], ['restore', '-t1', directory]);
        if (done.status === 0) {
          t.is(await machine.memory(), before);
          break;
        }
        states += 1;
        const isMarked = existsSync(`${directory}/${MARK}`);
        if (await isTrusted(machine)) t.true(isMarked, `${when}\n${show(done)}`);
        // In the same boot it goes on by itself, whatever is left.
        await machine.sim('remove');
        const again = await machine.expect(0, ['restore', directory]);
        t.is(await machine.memory(), before, show(again));
        t.deepEqual(
          machine.names(directory).filter((name) => name.startsWith('.')),
          [],
        );
      }
      t.log(`${states} states tried`);
      t.true(states > 0 && states < 400, String(states));
    });
  }
}

testTraced('a server that starts while it is restored is noticed before anything is trusted', async (t) => {
  const node = await rebooted(t);
  const { machine, directory } = node;
  // Held at the first segment for longer than any machine needs to see it there.
  const done = await machine.traced(['shmget:delay_exit=5000000:when=1'], ['restore', directory], {
    during: async (child) => {
      // Looked at from outside: who attaches a segment that is restored is noticed by that.
      const isEmpty = async () => (await machine.exec('cat', ['/proc/sysvipc/shm'])).stdout.trim().split('\n').length < 2;
      while (await isEmpty());
      child.kill('SIGSTOP');
      await serve(node, false);
      child.kill('SIGCONT');
    },
  });
  t.is(done.status, 4, show(done));
  t.regex(done.stderr, /a storage device or the configuration changed while it was restored\nHINT: /, show(done));
  t.is(await machine.memory(), '');
  t.false(existsSync(`${directory}/${MARK}`));
});
