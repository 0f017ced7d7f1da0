/**
 * Nodes with a configuration or confinement that a backup must know: settings that were changed
 * with the reboot, templates, `/proc` in a sandbox, indexes that persist, huge pages.
 */

import { chmodSync, chownSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';

import test from 'ava';

import { MAIN, Machine, manifestLines, show, testAsRoot, testIf, IS_REAL_ROOT, type Run } from './helpers.ts';

const SMALL = ['--stage-size', '64KiB', '--treex-size', '64KiB', '--base-size', '64KiB'] as const;
const STRIPES = ['--stripes', '2', '--stripe-size', '64KiB'] as const;

/** A configuration of namespace 'test' in memory. */
const configured = (dataSize: string, sprigs: string): string =>
  `namespace test {\n${sprigs}\nstorage-engine memory {\n${dataSize}\n}\n}\n`;

test('a restore under another data-size or number of sprigs is refused, and verify says so', async (t) => {
  const machine = await Machine.start(t);
  const directory = machine.path('b');
  await machine.sim('make', ...SMALL, ...STRIPES);
  const before = await machine.memory();
  writeFileSync(machine.config, configured('data-size 4G', 'partition-tree-sprigs 256'));
  await machine.expect(0, ['backup', directory]);
  const head = JSON.parse(manifestLines(directory)[0] ?? '') as { settings: unknown };
  t.deepEqual(head.settings, {
    'data-size': { text: '4G', value: 4 * 2 ** 30 },
    'partition-tree-sprigs': { text: '256', value: 256 },
  });
  await machine.sim('remove');
  writeFileSync(machine.config, configured('data-size 8G', 'partition-tree-sprigs 512'));
  const refused = await machine.json(3, ['restore', directory]);
  t.deepEqual(
    refused.error?.problems.map((problem) => problem.code),
    ['setting-changed', 'setting-changed'],
  );
  const said = await machine.expect(3, ['restore', directory]);
  t.regex(said.stderr, /data-size is 8G in \S+, but was 4G when the backup was made/);
  t.regex(said.stderr, /partition-tree-sprigs is 512 in \S+, but was 256 when the backup was made/);
  t.regex(said.stderr, /HINT: set data-size back to 4G in \S+, then try again; or start the server without a restore/);
  t.is(await machine.memory(), '');
  const verified = await machine.expect(0, ['verify', directory]);
  t.regex(verified.stdout, /a restore here would be refused \(exit status 3\) because .*data-size is 8G/);
  await machine.expect(3, ['verify', '--restorable', directory]);
  // If it is set back, in other words, the backup is restored.
  writeFileSync(machine.config, configured('data-size 4096M', 'partition-tree-sprigs 256'));
  await machine.expect(0, ['restore', directory]);
  t.is(await machine.memory(), before);
});

test('a path that is part of a template is refused, unless it is there', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make', ...SMALL);
  const work = machine.path('${work}');
  const namespace = 'namespace test {\nstorage-engine device {\n}\n}\n';
  for (const [text, line, word] of [
    [`service {\nwork-directory ${work}\n}\n${namespace}`, 2, work],
    ['logging {\nfile ${LOGS}/a.log {\n}\n}\n' + namespace, 2, '${LOGS}/a.log'],
    ['namespace test {\nstorage-engine device {\ndevice /dev/a /dev/{{ disk }}\n}\n}\n', 3, '}}'],
    ['namespace test {\nstorage-engine device {\ndevice /dev/${DISK}\n}\n}\n', 3, '/dev/${DISK}'],
    ['namespace test {\nstorage-engine device {\nfile /srv/<%=name%>.dat\n}\n}\n', 3, '/srv/<%=name%>.dat'],
  ] as const) {
    writeFileSync(machine.config, text);
    const { error } = await machine.json(3, ['backup', machine.path('b')]);
    t.is(error?.code, 'config-unreadable', text);
    t.true(error?.message.includes(`line ${line}: '${word}' is part of a template`), error?.message);
  }
  t.deepEqual(machine.names(machine.path('b')), []);
  mkdirSync(work);
  writeFileSync(machine.config, `service {\nwork-directory ${work}\n}\n${namespace}`);
  const done = await machine.expect(0, ['backup', machine.path('b')]);
  t.regex(done.stderr, /line 2: '\S+' looks like part of a template, but a file of exactly this name exists/);
});

test('where all indexes persist by themselves, there is nothing to back up', async (t) => {
  const machine = await Machine.start(t);
  const flash = (name: string) =>
    `namespace ${name} {\nindex-type flash {\nmount /mnt\n}\nstorage-engine device {\ndevice /dev/${name}\n}\n}\n`;
  writeFileSync(machine.config, flash('a') + flash('b'));
  // Something else is in this IPC namespace, so that it is not asmt's own.
  const other = await machine.start('sh', ['-c', 'echo ready; exec cat'], 'ready');
  const nothing = await machine.expect(7, ['backup', machine.path('d')]);
  t.regex(nothing.stderr, /nothing of instance 0 is in shared memory; .* configures a, b with a persistent index/);
  t.regex(nothing.stderr, /HINT: there is nothing to back up: just reboot/);
  t.deepEqual(machine.names(machine.path('d')), []);
  await machine.sim('make', ...SMALL);
  const named = await machine.expect(7, ['backup', '-n', 'a', machine.path('d')]);
  t.regex(
    named.stderr,
    /namespace 'a' of instance 0 is not in shared memory; found: test \(instance 0\); .* with a persistent index/,
  );
  t.regex(named.stderr, /HINT: there is nothing to back up: leave it out of -n/);
  const both = await machine.expect(3, ['backup', '-n', 'test,a', machine.path('d')]);
  t.regex(both.stderr, /HINT: there is nothing to back up: leave it out of -n/);
  await other.end();
});

test('a list of names with one that is unknown: the message says which are there', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make', ...SMALL, '--name', 'test');
  await machine.sim('make', ...SMALL, '--name', 'bar', '--nsid', '2');
  const refused = await machine.expect(3, ['backup', '-n', 'test,tset', machine.path('b')]);
  t.regex(refused.stderr, /namespace 'tset' of instance 0 is not in shared memory; found: test, bar \(instance 0\)\nHINT: /);
  t.deepEqual(machine.names(machine.path('b')), []);
  await machine.expect(0, ['backup', machine.path('b')]);
  await machine.sim('remove');
  for (const verb of ['restore', 'verify', 'retire']) {
    const done = await machine.expect(3, [verb, '-n', 'test,tset', machine.path('b')]);
    t.regex(done.stderr, /namespace 'tset' of instance 0 is not in the directory; found: \w+, \w+ \(instance 0\)\nHINT: /);
  }
  t.is(await machine.memory(), '');
});

/**
 * Runs a command under a `/proc` that is mounted with these options, in a PID namespace of its own
 * or the machine's.
 */
function underProc(machine: Machine, options: string, namespaces: string[], command: readonly string[]): Promise<Run> {
  const script = `mount -t proc -o ${options} proc /proc && exec "$@"`;
  return machine.exec('unshare', ['--mount', ...namespaces, 'sh', '-c', script, 'sh', ...command]);
}

testAsRoot('a /proc that shows processes alone (ProcSubset=pid) is named, with what to do', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make', ...SMALL);
  const directory = machine.path('b');
  await machine.expect(0, ['backup', directory]);
  const before = machine.names(directory);
  for (const args of [
    ['list'],
    ['backup', machine.path('c')],
    ['verify', directory],
    ['restore', directory],
    ['retire', directory],
  ]) {
    const done = await underProc(machine, 'subset=pid', ['--pid', '--fork'], [process.execPath, MAIN, ...args]);
    t.is(done.status, 1, show(done));
    t.regex(done.stderr, /error: \/proc\/\S+ does not exist: \/proc shows only processes .*\nHINT: .*ProcSubset=all/, show(done));
  }
  t.deepEqual(machine.names(directory), before);
  t.deepEqual(machine.names(machine.path('c')), []);
});

testAsRoot('where /proc hides the processes of others (ProtectProc=invisible), root sees them, and a user is told', async (t) => {
  const machine = await Machine.start(t);
  const UID = 23456;
  writeFileSync(machine.config, 'namespace test {\n}\n', { mode: 0o644 });
  chmodSync(machine.directory, 0o711);
  mkdirSync(machine.path('own'), { mode: 0o700 });
  chownSync(machine.path('own'), UID, UID);
  const hidden = (command: readonly string[]): Promise<Run> => underProc(machine, 'hidepid=invisible', [], command);
  const asmt = (...args: string[]): Promise<Run> => hidden([process.execPath, MAIN, ...args]);
  const user = [
    'setpriv',
    `--reuid=${UID}`,
    `--regid=${UID}`,
    '--clear-groups',
    'env',
    `ASMT_RUNTIME_DIR=${machine.path('own')}`,
  ];
  await machine.sim('make', ...SMALL);
  const before = await machine.memory();
  const server = await machine.hold();
  const held = await asmt('backup', machine.path('b'));
  t.is(held.status, 3, show(held));
  t.regex(held.stderr, new RegExp(`attached .* by pid ${server.pid} \\(asmt-sim\\)`), show(held));
  const byUser = await hidden([...user, process.execPath, MAIN, 'backup', machine.path('own', 'b')]);
  t.is(byUser.status, 3, show(byUser));
  t.regex(byUser.stderr, /by a process that cannot be seen from here\nHINT: /, show(byUser));
  const listed = await hidden([...user, process.execPath, MAIN, 'list']);
  t.is(listed.status, 0, show(listed));
  t.regex(listed.stdout, /running: held by a process/, show(listed));
  await server.end();
  for (const args of [
    ['backup', machine.path('b')],
    ['verify', machine.path('b')],
  ]) {
    const done = await asmt(...args);
    t.is(done.status, 0, show(done));
  }
  await machine.sim('remove');
  const restored = await asmt('restore', machine.path('b'));
  t.is(restored.status, 0, show(restored));
  t.is(await machine.memory(), before);
});

const HUGE_PAGES = '/proc/sys/vm/nr_hugepages';
/**
 * True if two huge pages are available. The number belongs to the machine, so it is set for one
 * test, and set back.
 */
function canHaveHugePages(): boolean {
  try {
    return (
      IS_REAL_ROOT && readFileSync(HUGE_PAGES, 'utf8').trim() === '0' && readFileSync('/proc/meminfo', 'utf8').includes('2048 kB')
    );
  } catch {
    return false;
  }
}

/**
 * Makes a segment in huge pages in place of another one: 2 MiB that begin like the other one.
 */
const MAKE_HUGE = `
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
libc.shmget.argtypes = [ctypes.c_int, ctypes.c_size_t, ctypes.c_int]
key = ctypes.c_int(int(sys.argv[1], 16))
def attach(number):
    at = libc.shmat(number, None, 0)
    if at in (None, ctypes.c_void_p(-1).value): sys.exit("shmat")
    return at
old = libc.shmget(key, 0, 0)
start = ctypes.string_at(attach(old), 65536)
libc.shmctl(old, 0, None)
new = libc.shmget(key, 2 << 20, 0o1000 | 0o2000 | 0o600 | 0o4000)
if new < 0: sys.exit("shmget: %d" % ctypes.get_errno())
ctypes.memmove(attach(new), start, 65536)
`;

testIf(canHaveHugePages(), 'only root of the machine may reserve huge pages, where nobody else has')(
  'a segment in huge pages is refused by name, and nothing is left behind',
  async (t) => {
    t.teardown(() => writeFileSync(HUGE_PAGES, '0'));
    writeFileSync(HUGE_PAGES, '2');
    if (readFileSync(HUGE_PAGES, 'utf8').trim() !== '2') {
      t.log('not tried: this machine has no two huge pages in a row');
      t.pass();
      return;
    }
    for (const [key, size] of [
      ['ae001000', '65536'],
      ['ae001101', '65536'],
    ] as const) {
      const machine = await Machine.start(t);
      await machine.sim('make', ...SMALL, '--stages', '2');
      const made = await machine.exec('python3', ['-c', MAKE_HUGE, key]);
      t.is(made.status, 0, show(made) + size);
      for (const form of [[], ['-z']]) {
        const refused = await machine.expect(3, ['backup', ...form, machine.path('b')]);
        t.regex(refused.stderr, new RegExp(`error: .*segment ${key} .*in huge pages \\(SHM_HUGETLB\\)\\nHINT: `), show(refused));
        t.deepEqual(machine.names(machine.path('b')), []);
      }
      const listed = await machine.expect(0, ['list', '-v']);
      t.true(listed.stdout.includes(key), show(listed));
      await machine.sim('remove');
      await machine.end();
    }
  },
);
