/**
 * A backup is refused if the server has run since: by its devices and files, its marks, the host,
 * and the files that the server writes. The sequences of docs/STALENESS.md are in
 * `staleness.spec.ts`.
 */

import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { hostname } from 'node:os';

import test, { type ExecutionContext } from 'ava';

import { MAIN, MANIFEST, Machine, manifestLines, sealManifest, show, testAsRoot, testTraced } from './helpers.ts';
import { Disk, configuration, header, write, type Service } from './server.ts';

const MARK = 'asmt-used-0-test.json';
/** A number that JavaScript cannot represent. */
// The simulator's stripes have it: a server writes the same random to them and to the devices
// behind them.
const RANDOM = 'd93b700227976a89';

interface Node {
  readonly machine: Machine;
  readonly before: string;
  readonly directory: string;
  readonly files: readonly string[];
}

/** A set of files, as a clean stop leaves them. */
function makeFiles(machine: Machine, count: number): string[] {
  const paths = Array.from({ length: count }, (_, index) => machine.path(`file${index}`));
  for (const path of paths) {
    writeFileSync(path, header('stopped', { devices: count, random: RANDOM }));
    truncateSync(path, 65_536);
  }
  return paths;
}

/** The places of a node's log and metadata. */
function service(machine: Machine): Service {
  return { logs: [machine.path('aerospike.log')], workDirectory: machine.path('work') };
}

function configure(machine: Machine, files: readonly string[]): void {
  const lines = files.map((path) => `file ${path}`);
  writeFileSync(machine.config, configuration({ test: lines }, service(machine)));
}

/**
 * A node that was stopped cleanly, with two storage files; or without any, so that nothing can be
 * checked.
 */
async function stopped(t: ExecutionContext, fileCount = 2, make: readonly string[] = []): Promise<Node> {
  const machine = await Machine.start(t);
  await machine.sim('make', '--stage-size', '64KiB', '--stripes', '1', ...make);
  const files = makeFiles(machine, fileCount);
  configure(machine, files);
  return { machine, before: await machine.memory(), directory: machine.path('b'), files };
}

/** The same, backed up, and lost as after a reboot. */
async function rebooted(t: ExecutionContext, fileCount = 2, make: readonly string[] = []): Promise<Node> {
  const node = await stopped(t, fileCount, make);
  await node.machine.expect(0, ['backup', node.directory]);
  await node.machine.sim('remove');
  return node;
}

/** Changes a server's files as its start, or its clean stop, does. */
async function serve({ machine, files }: Node, stop: boolean): Promise<void> {
  for (const path of files) await machine.sim('open', '--path', path);
  if (stop) for (const path of files) await machine.sim('close', '--path', path);
}

/** Changes the first line of a manifest, and makes its checksum valid again. */
function forge(directory: string, change: (head: Record<string, unknown>) => void): void {
  const [first = '', ...rest] = manifestLines(directory);
  const head = JSON.parse(first) as Record<string, unknown>;
  change(head);
  sealManifest(directory, [JSON.stringify(head), ...rest]);
}

interface Use {
  at_ms: number;
  boot_id: string;
  host: string;
  ipc_namespace?: string;
  id?: string;
}

interface Mark {
  retired: Use | null;
  restores: Use[];
}

function markOf(directory: string): Mark {
  return JSON.parse(readFileSync(`${directory}/${MARK}`, 'utf8')) as Mark;
}

/** Makes everything that was done in this boot look as if it had been done in an earlier one. */
function anotherBoot(directory: string): void {
  const file = `${directory}/${MARK}`;
  const mark = markOf(directory);
  const uses = [...mark.restores, ...(mark.retired ? [mark.retired] : [])];
  for (const use of uses) use.boot_id = use.boot_id.replace(/^.{8}/, '00000000');
  writeFileSync(file, JSON.stringify(mark));
}

const later = (seconds: number): Date => new Date(Date.now() + 1000 * seconds);

test('storage files that are as they were noted: no proof, and enough in this boot', async (t) => {
  const node = await rebooted(t);
  const { machine, before, directory } = node;
  const head = JSON.parse(manifestLines(directory)[0] ?? '') as Record<string, unknown>;
  t.deepEqual(
    head['devices'],
    node.files.map((of) => ({ of, random: RANDOM, trusted: true, file: true, configured: true })),
  );
  t.like((head['stripes'] as unknown[])[0], { of: 'ad001000', trusted: true });
  for (let time = 0; time < 2; time += 1) {
    const done = await machine.expect(0, ['restore', directory]);
    t.regex(
      done.stderr,
      /^asmt: note: namespace 'test': there is no proof .*\(its storage is a file, whose header a power failure can set back\).*\n$/,
      show(done),
    );
    t.is(await machine.memory(), before);
    await machine.sim('remove');
  }
  anotherBoot(directory);
  t.regex((await machine.expect(4, ['restore', directory])).stderr, /in another boot: the server may have run since\nHINT: /);
  t.is(await machine.memory(), '');
  // The mark notes that in this boot, too, the server may run from now on.
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
      /error: namespace 'test': .*\/file0 has random [0-9a-f]{16}, expected d93b700227976a89: the server has run since the backup; restoring would roll back to 20\d\d-\d\d-\d\dT[\d:]+Z\n/;
    for (const args of [['restore'], ['restore', '-a'], ['restore', '--force-host']]) {
      const done = await machine.expect(4, [...args, directory]);
      t.regex(done.stderr, text, show(done));
      t.regex(done.stderr, /\nHINT: do not restore it: start the server without a restore/, show(done));
    }
    t.regex((await machine.expect(1, ['-r', '-p', directory])).stderr, text);
    const { error } = await machine.json(4, ['restore', directory]);
    t.deepEqual(
      [error?.kind, error?.code, error?.problems.filter(({ code }) => code === 'backup-stale').length],
      ['stale', 'backup-stale', 2],
    );
    t.is(await machine.memory(), '');
    // A power cut can bring back the old header of a file, so the finding is noted.
    t.true(existsSync(`${directory}/${MARK}`));
    // A verification reports it, although the backup itself is good.
    const verified = await machine.expect(0, ['verify', directory]);
    const refusal =
      /\na restore here would be refused \(exit status 4\) because namespace 'test': .*\/file0 has random .*\d more reasons?\)\n$/;
    t.regex(verified.stdout, refusal, show(verified));
    t.is(verified.stderr, '', show(verified));
    const forced = await machine.json(0, ['restore', '--force-stale', directory]);
    const overridden = forced.report?.remarks.filter(({ code }) => code === 'overridden').map(({ message }) => message) ?? [];
    t.is(overridden.length, 3);
    t.regex(overridden[0] ?? '', /^OVERRIDDEN BY --force-stale: namespace 'test': .*file0 has random/);
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
    what: 'a file was opened and is not trusted',
    change: ({ files }) => write(files[1] ?? '', header('running', { random: RANDOM })),
    status: 4,
    code: 'backup-stale',
    message: /file1 is not marked as trusted: the server has run since/,
  },
  {
    what: 'a file was wiped',
    change: ({ files }) => write(files[0] ?? '', header('blank')),
    status: 4,
    code: 'backup-stale',
    message: /file0 is blank: it was replaced or wiped since/,
  },
  {
    what: 'a file holds something else',
    change: ({ files }) => write(files[0] ?? '', Buffer.from('something else')),
    status: 4,
    code: 'backup-stale',
    message: /file0 has no known header: it was replaced or wiped since/,
  },
  {
    what: 'a file is another namespace’s',
    change: ({ files }) => write(files[0] ?? '', header('stopped', { random: RANDOM, name: 'other' })),
    status: 4,
    code: 'backup-stale',
    message: /file0 belongs to namespace 'other': it was replaced or wiped since/,
  },
  {
    what: 'a file is gone',
    change: ({ files }) => unlinkSync(files[1] ?? ''),
    status: 3,
    code: 'device-unreadable',
    message: /file1 cannot be checked to see whether the server has run since the backup: it does not exist/,
  },
  {
    what: 'a file is a FIFO',
    change: async ({ machine, files }) => {
      unlinkSync(files[1] ?? '');
      await machine.exec('mkfifo', [files[1] ?? '']);
    },
    status: 3,
    code: 'device-unreadable',
    message: /file1 cannot be checked .*: it is neither a block device nor a regular file/,
  },
  {
    what: 'a file of another set is configured beside them',
    change: ({ machine, files }) => {
      writeFileSync(machine.path('more'), header('stopped again', { devices: 3 }));
      configure(machine, [...files, machine.path('more')]);
    },
    status: 4,
    code: 'backup-stale',
    message: /more is named now, was not recorded in the backup, and has random [0-9a-f]{16}, which belongs to another set/,
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

test('a file under another name and a new and empty one are no reason to refuse, one that is not configured any more is', async (t) => {
  const { machine, before, directory, files } = await rebooted(t);
  const [first = '', second = ''] = files;
  symlinkSync(second, machine.path('by-id'));
  writeFileSync(machine.path('new'), Buffer.alloc(65_536));
  for (const [paths, status] of [
    [[first, machine.path('by-id'), machine.path('new')], 0],
    [[first], 3],
    [[], 3],
  ] as const) {
    configure(machine, [...paths]);
    await machine.expect(status, ['restore', directory]);
    t.is(await machine.memory(), status === 0 ? before : '');
    await machine.sim('remove');
  }
  // It is checked all the same.
  await machine.sim('open', '--path', second);
  t.regex((await machine.expect(4, ['restore', directory])).stderr, /file1 has random/);
});

testAsRoot('a shadow device beside a block device', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make', '--stage-size', '64KiB');
  const main = await Disk.make(t, machine, 'main', { devices: 1 });
  const shadow = await Disk.make(t, machine, 'shadow', { devices: 1 });
  writeFileSync(machine.config, configuration({ test: [`device ${main.path} ${shadow.path}`] }));
  const before = await machine.memory();
  await machine.expect(0, ['backup', machine.path('b')]);
  await machine.sim('remove');
  t.is((await machine.expect(0, ['restore', machine.path('b')])).stderr, '');
  t.is(await machine.memory(), before);
  await machine.sim('remove');
  shadow.write('running');
  const done = await machine.expect(4, ['restore', machine.path('b')]);
  t.true(done.stderr.includes(`${shadow.path} has random `), show(done));
  t.is(await machine.memory(), '');
});

test('--device: in the place of what is configured, assigned by the name in the header', async (t) => {
  const { machine, directory, files } = await stopped(t);
  const other = machine.path('other0');
  await machine.sim('make', '--name', 'other', '--nsid', '2', '--stage-size', '64KiB');
  writeFileSync(other, header('stopped', { name: 'other', devices: 1, random: '0000000000000003' }));
  unlinkSync(machine.config);
  const before = await machine.memory();
  const named = ['--device', `${files[0]},${other}`, '--device', files[1] ?? ''];
  t.is((await machine.expect(0, ['backup', ...named, directory])).stderr, '');
  await machine.sim('remove');
  const shown = await machine.expect(0, ['restore', '-av', ...named, directory]);
  t.regex(shown.stdout, /to run it: asmt restore --device .*file0,.*other0,.*file1 /, show(shown));
  await machine.expect(0, ['restore', ...named, directory]);
  t.is(await machine.memory(), before);
  await machine.sim('remove');
  for (const [path, why] of [
    [machine.path('none'), /none does not exist\nHINT: check the paths given with --device/],
    [machine.directory, / is neither a block device nor a regular file\n/],
    [MAIN, /main\.js has no header that names its namespace\n/],
    ['/dev/null', /\/dev\/null is neither a block device nor a regular file/],
  ] as const) {
    const mistaken = await machine.expect(3, ['restore', '-a', '-n', 'other', '--device', path, directory]);
    t.regex(mistaken.stderr, why, show(mistaken));
  }
  // One server opens the devices of both: each is a witness for both.
  await machine.sim('open', '--path', other);
  for (const name of ['test', 'other']) {
    const refused = await machine.expect(4, ['restore', '-n', name, ...named, directory]);
    t.regex(refused.stderr, /namespace 'other': .*other0 has random/, show(refused));
  }
});

test('a backup of files that are not trusted is refused when it is made', async (t) => {
  const { machine, directory, files } = await stopped(t);
  write(files[1] ?? '', header('running', { random: RANDOM }));
  for (const args of [['backup'], ['backup', '-a']]) {
    const done = await machine.expect(3, [...args, directory]);
    t.regex(done.stderr, /file1 is not marked as trusted: the server did not close it cleanly\nHINT: /, show(done));
    t.false(existsSync(directory));
  }
  const forced = await machine.expect(0, ['backup', '--force-stale', directory]);
  t.regex(forced.stderr, /note: OVERRIDDEN BY --force-stale: .*file1 is not marked as trusted/, show(forced));
  await machine.sim('remove');
  await machine.expect(4, ['restore', directory]);
});

test('a backup is refused where a file that is configured cannot be read, or none has been used', async (t) => {
  const { machine, directory, files } = await stopped(t);
  configure(machine, [...files, machine.path('none')]);
  const done = await machine.expect(3, ['backup', directory]);
  t.regex(done.stderr, /none does not exist: a restore could not determine whether this backup is current\nHINT: /, show(done));
  t.false(existsSync(directory));
  for (const path of files) write(path, header('blank'));
  configure(machine, files);
  const blank = await machine.expect(3, ['backup', directory]);
  t.regex(blank.stderr, /all its other configured devices are blank: no server has used them\nHINT: /, show(blank));
  t.false(existsSync(directory));
});

test('an index that persists by itself is said', async (t) => {
  const { machine, directory } = await stopped(t, 0);
  const lines = '  index-type flash {\n    mount /mnt/index\n  }\n  storage-engine memory {\n    data-size 1G\n  }\n';
  writeFileSync(machine.config, `namespace test {\n${lines}}\n`);
  const text = /note: namespace 'test': index-type is flash: that index is persistent and is not in shared memory\n/;
  t.regex((await machine.expect(0, ['backup', directory])).stderr, text);
  await machine.sim('remove');
  t.regex((await machine.expect(0, ['restore', directory])).stderr, text);
});

test('no configuration: said by backup and restore; one that was named must be there', async (t) => {
  const { machine, before, directory } = await stopped(t, 0);
  unlinkSync(machine.config);
  const done = await machine.expect(0, ['backup', directory]);
  t.regex(
    done.stderr,
    /note: namespace 'test': its storage devices were not recorded \(.*aerospike\.conf \(named by ASMT_CONFIG\) does not exist\); /,
    show(done),
  );
  await machine.sim('remove');
  const restored = await machine.expect(0, ['restore', directory]);
  t.regex(restored.stderr, /no proof .*\(the backup recorded no storage device for it\)/, show(restored));
  t.is(await machine.memory(), before);
  await machine.sim('remove');
  await machine.exec('mkfifo', [machine.path('fifo')]);
  writeFileSync(machine.path('other.conf'), 'namespace other {\n}\n}\n\u0000{{{');
  for (const [path, why] of [
    [machine.path('none'), /none \(named by --config\) does not exist\nHINT: /],
    [machine.directory, /\(named by --config\) is not a regular file\nHINT: /],
    [machine.path('fifo'), /is not a regular file\nHINT: /],
    ['/dev/zero', /is not a regular file\nHINT: /],
    [machine.path('other.conf'), /other\.conf \(named by --config\) cannot be parsed: line 3: .*\nHINT: /],
  ] as const) {
    for (const verb of ['backup', 'restore', 'verify']) {
      t.regex((await machine.expect(3, [verb, '--config', path, directory])).stderr, why, verb);
    }
  }
});

test("the packages' configuration is that of instance 0: another instance's is named, or not known", async (t) => {
  const { machine, directory } = await stopped(t);
  await machine.sim('make', '--instance', '3', '--stage-size', '64KiB');
  const env = { ASMT_CONFIG: '' };
  const done = await machine.expect(0, ['backup', '-i3', directory], { env });
  t.regex(done.stderr, /were not recorded \(no configuration was given for instance 3 \(--config\)\); /, show(done));
  await machine.sim('remove');
  const none = /no proof .*\(the backup recorded no storage device for it\)/;
  t.regex((await machine.expect(0, ['restore', '-i3', directory], { env })).stderr, none);
  await machine.sim('remove');
  // Trusted files that are named now prove nothing for a backup that has noted none.
  t.regex((await machine.expect(0, ['restore', '-i3', directory])).stderr, none);
});

test('without devices: a restore can be repeated in the same boot, and not in another', async (t) => {
  const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  const { machine, before, directory } = await rebooted(t, 0);
  for (let time = 0; time < 2; time += 1) {
    const done = await machine.expect(0, ['restore', directory]);
    t.regex(done.stderr, /^asmt: note: namespace 'test': there is no proof .*\(it has no storage device\).*\n$/, show(done));
    t.is(await machine.memory(), before);
    t.is(markOf(directory).restores.length, 1);
    t.like(markOf(directory).restores[0], { boot_id: boot, host: hostname() });
    t.regex(JSON.stringify(markOf(directory)), /"ipc_namespace":"(id:[0-9a-f]+|inode:\d+-first:\d+)","id":"[^"]+"/);
    await machine.sim('remove');
  }
  t.is(statSync(`${directory}/${MARK}`).mode & 0o7777, 0o600);
  anotherBoot(directory);
  for (const args of [['restore'], ['restore', '-a']]) {
    const done = await machine.expect(4, [...args, directory]);
    t.regex(
      done.stderr,
      /a restore of the backup was started on .* at 20.*Z, in another boot: the server may have run since\nHINT: /,
      show(done),
    );
  }
  t.is(await machine.memory(), '');
  t.regex(
    (await machine.expect(0, ['restore', '--force-stale', directory])).stderr,
    /OVERRIDDEN BY --force-stale: .*another boot/,
  );
  t.is(await machine.memory(), before);
  // It stays refused: the first boot's mark is not lost.
  await machine.sim('remove');
  await machine.expect(4, ['restore', directory]);
  for (const text of ['', '{}', 'x', '{"format":"asmt-used","version":9}']) {
    writeFileSync(`${directory}/${MARK}`, text);
    t.regex((await machine.expect(4, ['restore', directory])).stderr, /cannot determine whether the backup was used: asmt-used/);
  }
  t.is(await machine.memory(), '');
});

test('without devices: what the server writes to must be as it was noted', async (t) => {
  const { machine, directory } = await stopped(t, 0);
  const log = machine.path('aerospike.log');
  const smd = machine.path('work', 'smd');
  mkdirSync(smd, { recursive: true });
  const at = later(-3600);
  const reset = () => {
    for (const path of [log, `${smd}/evict.smd`]) {
      writeFileSync(path, 'x\n');
      utimesSync(path, at, at);
    }
    rmSync(`${smd}/new.smd`, { force: true });
  };
  reset();
  await machine.expect(0, ['backup', directory]);
  await machine.sim('remove');
  for (const [change, what] of [
    [
      () => appendFileSync(log, 'y\n'),
      /aerospike\.log has changed since the backup of 20.*Z: the server seems to have run\nHINT: /,
    ],
    // Whatever the clock shows.
    [() => utimesSync(log, later(-7200), later(-7200)), /aerospike\.log has changed/],
    [() => writeFileSync(`${smd}/new.smd`, ''), /smd has changed since/],
    [() => utimesSync(`${smd}/evict.smd`, later(-7200), later(-7200)), /smd has changed since/],
  ] as const) {
    change();
    t.regex((await machine.expect(4, ['restore', directory])).stderr, what);
    t.is(await machine.memory(), '');
    reset();
  }
  rmSync(log);
  t.regex((await machine.expect(3, ['restore', directory])).stderr, /aerospike\.log is missing, but existed when/);
  reset();
});

test('a backup of before files were noted is refused if it is older than what the server writes', async (t) => {
  const { machine, before, directory } = await rebooted(t, 0);
  forge(directory, (head) => delete head['traces']);
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
      / was written at 20.*Z, after the backup of 20.*Z: the server seems to have run\nHINT: /.test(done.stderr),
      status === 4,
    );
    t.is(done.stderr.includes(path.startsWith(smd) ? smd : path), status === 4, show(done));
    t.is(await machine.memory(), status === 4 ? '' : before);
    await machine.sim('remove');
  }
  // A log that was rotated away is no sign.
  writeFileSync(log, '');
  utimesSync(log, later(3600), later(3600));
  await machine.expect(0, ['restore', directory]);
});

test("another host's backup needs --force-host", async (t) => {
  const { machine, before, directory } = await rebooted(t);
  const { machine_id: machineId } = JSON.parse(manifestLines(directory)[0] ?? '') as { machine_id: string | null };
  for (const [host, id, isSame] of [
    ['elsewhere', '0123456789abcdef0123456789abcdef', false],
    ['elsewhere', null, false],
    [hostname(), null, true],
    [hostname(), '0123456789abcdef0123456789abcdef', machineId === null],
    // Clones of one image have one machine id.
    ['elsewhere', machineId, false],
  ] as const) {
    forge(directory, (head) => Object.assign(head, { host, machine_id: id }));
    const done = await machine.expect(isSame ? 0 : 4, ['restore', directory]);
    if (!isSame) {
      t.regex(done.stderr, /the backup was made on host '.*'.*; this host is '.*'.*\nHINT: .*--force-host/, show(done));
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
  const { machine, before, directory, files } = await rebooted(t);
  const fields = ['machine_id', 'devices', 'stripes', 'traces', 'ipc_namespace', 'monotonic_ms', 'configuration', 'earlier_uses'];
  forge(directory, (head) => {
    for (const field of fields) delete head[field];
  });
  t.regex(
    (await machine.expect(0, ['restore', directory])).stderr,
    /no proof .*\(the backup recorded no storage device for it\)/,
  );
  t.is(await machine.memory(), before);
  await machine.sim('remove');
  // A clean stop leaves them trusted: that is known of any backup.
  await machine.sim('open', '--path', files[1] ?? '');
  t.regex(
    (await machine.expect(4, ['restore', directory])).stderr,
    /file1 is named now, was not recorded in the backup, and is not marked as trusted: the server has run since/,
  );
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
  t.regex(done.stdout, /retired 1 namespace in .*\/b: no restore takes this backup again\n$/, show(done));
  t.is(done.stderr, '', show(done));
  const mark = readFileSync(`${directory}/${MARK}`, 'utf8');
  await machine.expect(0, ['retire', '-n', 'test', directory]);
  t.is(readFileSync(`${directory}/${MARK}`, 'utf8'), mark);
  t.deepEqual(look(), files);
  const refused = await machine.expect(4, ['restore', '-n', 'test', directory]);
  t.regex(
    refused.stderr,
    /namespace 'test': the backup was retired on .* at 20.*Z\n(asmt: .*\n)?HINT: do not restore it/,
    show(refused),
  );
  await machine.expect(4, ['restore', directory]);
  t.is(await machine.memory(), '');
  // Both were one server's: a use of one backup is a use of the other.
  t.regex(
    (await machine.expect(4, ['restore', '-n', 'other', directory])).stderr,
    /asmt-used-0-test\.json \(of this server\): the backup was retired/,
  );
  const verified = await machine.expect(0, ['verify', directory]);
  t.regex(
    verified.stdout,
    /verified 2 namespaces .*\n.*a restore here would be refused \(exit status 4\) because .*: the backup was retired on /s,
    show(verified),
  );
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
  await machine.expect(7, ['retire', machine.path('none')]);
  await machine.expect(2, ['retire', '-z', directory]);
  t.deepEqual(machine.names(machine.path('empty')), []);
  const reader = await machine.start('flock', ['-s', directory, 'sh', '-c', 'echo ready; exec cat'], 'ready');
  t.regex((await machine.expect(3, ['retire', directory])).stderr, /another asmt is using/);
  await reader.end();
  t.false(existsSync(`${directory}/${MARK}`));
  // A damaged backup can be retired, too.
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
  configure(machine, []);
  for (let time = 0; time < 2; time += 1) {
    const done = await machine.expect(0, ['-r', '-p', directory]);
    t.regex(done.stderr, /no proof .*\(ASMT does not record storage devices\)/, show(done));
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

testAsRoot('a directory that cannot be written to: enough where block devices tell, else refused', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make', '--stage-size', '64KiB');
  const before = await machine.memory();
  const disk = await Disk.make(t, machine, 'disk', { devices: 1 });
  writeFileSync(machine.config, configuration({ test: [`device ${disk.path}`] }));
  const [told, untold] = [machine.path('told'), machine.path('untold')];
  await machine.expect(0, ['backup', told]);
  unlinkSync(machine.config);
  await machine.expect(0, ['backup', untold]);
  await machine.sim('remove');
  const readOnly = (...args: string[]) => {
    const mount = `mount --bind ${machine.directory} ${machine.directory} && mount -o remount,ro,bind ${machine.directory}`;
    const writable = `mount -t tmpfs -o mode=0700 tmpfs ${machine.path('run')}`;
    const words = ['--mount', 'sh', '-c', `${mount} && ${writable} && exec "$@"`, 'sh', process.execPath, MAIN, ...args];
    return machine.exec('unshare', words);
  };
  const done = await readOnly('restore', told);
  t.is(done.status, 0, show(done));
  t.regex(
    done.stderr,
    /^asmt: note: namespace 'test': this restore is not recorded in the directory: .*read-only file system\n$/,
    show(done),
  );
  t.is(await machine.memory(), before);
  await machine.sim('remove');
  for (const args of [['restore'], ['restore', '-a'], ['restore', '--device', disk.path]]) {
    const refused = await readOnly(...args, untold);
    t.is(refused.status, 3, show(refused));
    t.regex(
      refused.stderr,
      /cannot be marked as used: its directory is not writable, and no storage device can show that it was used\nHINT: /,
      show(refused),
    );
    t.is(await machine.memory(), '');
  }
  const forced = await readOnly('restore', '--force-stale', untold);
  t.is(forced.status, 0, show(forced));
  t.is((await readOnly('retire', untold)).status, 1);
  for (const directory of [told, untold]) t.false(existsSync(`${directory}/${MARK}`));
});

test('a restore that is refused is noted, too: the server may run from then on', async (t) => {
  const { machine, before, directory } = await rebooted(t, 0);
  const limit = async (count: number) => {
    const done = await machine.exec('sh', ['-c', `echo ${count} > /proc/sys/kernel/shmmni`]);
    t.is(done.status, 0, show(done));
  };
  await limit(1);
  t.regex((await machine.expect(6, ['restore', directory])).stderr, /kernel\.shmmni is 1/);
  t.is(markOf(directory).restores.length, 1);
  await limit(4096);
  await machine.expect(0, ['restore', directory]);
  t.is(await machine.memory(), before);
  await machine.sim('remove');
  anotherBoot(directory);
  await machine.expect(4, ['restore', directory]);
});

testAsRoot('segments that nobody has restored in this boot: the server has run', async (t) => {
  const machine = await Machine.startHost(t);
  const directory = machine.path('b');
  await machine.sim('make', '--stage-size', '64KiB');
  configure(machine, []);
  await machine.expect(0, ['backup', directory]);
  await machine.reboot();
  // A cold start after the reboot, and the server is killed: it leaves arenas, but neither base nor
  // treex.
  await machine.sim('start', '--stage-size', '64KiB');
  await machine.sim('crash');
  await machine.expect(3, ['restore', directory]);
  await machine.sim('remove');
  t.regex(
    (await machine.expect(4, ['restore', directory])).stderr,
    /and segments that a server had created or used were in memory then: it seems to have run since\nHINT: /,
  );
});

test('a device has shown that the server has run: what a crash has left is not named for removal', async (t) => {
  const { machine, directory, files } = await rebooted(t, 1);
  await machine.expect(0, ['restore', directory]);
  await machine.sim('start', '--stage-size', '64KiB', '--stripes', '1', '--devices', ...files);
  await machine.sim('crash', '--devices', ...files);
  const done = await machine.expect(4, ['restore', directory]);
  t.regex(done.stderr, /of its segments are in memory/, show(done));
  t.false(/ipcrm|nothing needs restoring/.test(done.stderr), show(done));
});

test('the device of another server, named by mistake, does not spoil a backup', async (t) => {
  const { machine, before, directory } = await rebooted(t, 0);
  const other = machine.path('other');
  await machine.sim('device', '--path', other, '--name', 'test', '--random', '77');
  t.regex((await machine.expect(4, ['restore', '--device', other, directory])).stderr, /names this server's devices/);
  await machine.expect(0, ['restore', directory]);
  t.is(await machine.memory(), before);
  // The segments are not those of that device; and what is there would be kept.
  const refused = await machine.expect(3, ['backup', '--replace', '-a', '--device', other, directory]);
  t.regex(refused.stderr, /the backup of \S+ stays until the new one is complete/, show(refused));
});

test('a restore by mistake, beside what was backed up, uses nothing up', async (t) => {
  const { machine, before, directory } = await stopped(t, 0);
  await machine.expect(0, ['backup', directory]);
  t.regex((await machine.expect(7, ['restore', directory])).stderr, /is already in memory/);
  t.is(await machine.memory(), before);
  t.false(existsSync(`${directory}/${MARK}`));
});

test('stripes of another set in memory: the server has run on what was restored', async (t) => {
  const { machine, directory } = await rebooted(t, 0);
  await machine.expect(0, ['restore', directory]);
  // A start stores another random in each stripe, and the server is killed.
  await machine.sim('poke', '--key', 'ad001000', '--offset', '48', '--hex', '5a5a5a5a5a5a5a5a00');
  await machine.expect(3, ['restore', directory]);
  await machine.sim('remove');
  const refused = await machine.expect(4, ['restore', directory]);
  t.regex(
    refused.stderr,
    /the backup was looked at on .*, and segments that a server had created or used were in memory then: it seems to have run since\nHINT: /,
    show(refused),
  );
});

for (const call of ['pwrite64', 'fsync', 'rename,renameat,renameat2', 'shmctl', 'shmat']) {
  for (const how of ['signal=KILL', 'error=EIO']) {
    testTraced(`the mark is there before any segment is, and stays: ${how} at each ${call}`, async (t) => {
      t.timeout(300_000);
      const { machine, before, directory } = await rebooted(t, 0);
      let states = 0;
      let wasMarked = false;
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
        if ((await machine.memory()) !== '') t.true(isMarked, `${when}\n${show(done)}`);
        // A mark that was made at an earlier call is not taken back because of a later failure.
        if (wasMarked) t.true(isMarked, `${when}\n${show(done)}`);
        wasMarked = isMarked;
        // In the same boot it continues by itself, whatever is left.
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
  // It is held at the first segment for longer than any machine needs to see that segment.
  const done = await machine.traced(['shmget:delay_exit=5000000:when=1'], ['restore', directory], {
    during: async (child) => {
      // Read from outside, because a restore notices a process that attaches its segments.
      const isEmpty = async () => (await machine.exec('cat', ['/proc/sysvipc/shm'])).stdout.trim().split('\n').length < 2;
      while (await isEmpty());
      child.kill('SIGSTOP');
      await serve(node, false);
      child.kill('SIGCONT');
    },
  });
  t.is(done.status, 4, show(done));
  t.regex(done.stderr, /file0 changed while the node was restored\nHINT: /, show(done));
  t.is(await machine.memory(), '');
  t.is(markOf(directory).restores.length, 1);
});
