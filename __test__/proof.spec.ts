/**
 * Proof as a requirement, and the answer of a verification about a restore: its last sentence,
 * `--restorable`, and JSON.
 */

import { existsSync, rmSync, truncateSync, writeFileSync } from 'node:fs';

import test, { type ExecutionContext } from 'ava';

import { Machine, manifestLines, sealManifest, show, testAsRoot, type Run } from './helpers.ts';
import { Disk, configuration, header } from './server.ts';

const PROOF = 'the storage devices prove that the server has not run since the backup';
const NO_PROOF = 'but nothing proves that the server has not run since the backup';

interface Node {
  readonly machine: Machine;
  readonly before: string;
  readonly directory: string;
  readonly disk: Disk;
}

/** A node with one disk, backed up and rebooted. */
async function rebooted(t: ExecutionContext): Promise<Node> {
  const machine = await Machine.startHost(t);
  const directory = machine.path('b');
  const disk = await Disk.make(t, machine, 'disk', { devices: 1 });
  writeFileSync(machine.config, configuration({ test: [`device ${disk.path}`] }));
  await machine.sim('make', '--stage-size', '64KiB');
  const before = await machine.memory();
  await machine.expect(0, ['backup', directory]);
  await machine.reboot();
  return { machine, before, directory, disk };
}

/**
 * The same without a device, on a machine that any user may have; its segments are gone, and the
 * boot continues.
 */
async function unproven(t: ExecutionContext, lines: readonly string[] = []): Promise<Omit<Node, 'disk'>> {
  const machine = await Machine.start(t);
  const directory = machine.path('b');
  writeFileSync(machine.config, configuration({ test: lines.map((line) => line.replace('DIR', machine.directory)) }));
  writeFileSync(machine.path('test.dat'), header('stopped', { devices: 1 }));
  await machine.sim('make', '--stage-size', '64KiB');
  const before = await machine.memory();
  await machine.expect(0, ['backup', directory]);
  await machine.sim('remove');
  return { machine, before, directory };
}

const last = (done: Run): string => done.stdout.trimEnd().split('\n').at(-1) ?? '';

testAsRoot('--require-proof: accepted where a block device of each namespace proves it', async (t) => {
  const { machine, before, directory } = await rebooted(t);
  t.is((await machine.expect(0, ['restore', '-a', '--require-proof', directory])).stderr, '');
  const verified = await machine.expect(0, ['verify', '--require-proof', '--restorable', directory]);
  t.is(last(verified), `a restore here would be accepted: ${PROOF}`, show(verified));
  t.is((await machine.expect(0, ['restore', '--require-proof', directory])).stderr, '');
  t.is(await machine.memory(), before);
});

testAsRoot('--require-proof: refused where one of two namespaces has no proof, which is named', async (t) => {
  const { machine, directory } = await rebooted(t);
  rmSync(directory, { recursive: true });
  await machine.sim('make', '--stage-size', '64KiB');
  await machine.sim('make', '--name', 'bare', '--nsid', '2', '--stage-size', '64KiB');
  writeFileSync(machine.config, configuration({ bare: [], test: [`device ${machine.path('disk')}`] }));
  await machine.expect(0, ['backup', directory]);
  await machine.reboot();
  const { error } = await machine.json(4, ['restore', '--require-proof', directory]);
  t.is(error?.code, 'not-proven');
  t.regex(error?.message ?? '', /^namespace 'bare': there is no proof .*\(it has no storage device\)/);
  t.is(await machine.memory(), '');
  await machine.expect(0, ['restore', '--require-proof', '-n', 'test', directory]);
});

for (const [what, lines] of [
  ['no storage device', []],
  ['a storage file', ['file DIR/test.dat']],
] as const) {
  test(`--require-proof: refused where there is ${what}`, async (t) => {
    const { machine, before, directory } = await unproven(t, lines);
    for (const args of [[], ['-a']]) {
      const { error } = await machine.json(4, ['restore', '--require-proof', ...args, directory]);
      t.deepEqual([error?.kind, error?.code, error?.problems.length], ['stale', 'not-proven', 1]);
      t.not(error?.hint, '');
      t.is(await machine.memory(), '');
    }
    await machine.expect(1, ['-r', '--require-proof', '-p', directory]);
    const verified = await machine.expect(0, ['verify', '--require-proof', directory]);
    t.regex(last(verified), /^a restore here would be refused \(exit status 4\) because namespace 'test': there is no proof/);
    await machine.expect(4, ['verify', '--require-proof', '--restorable', directory]);
    // Without the option, it is reported before anything is copied, and the restore is done.
    const done = await machine.expect(0, ['restore', '-v', directory]);
    t.regex(done.stderr, /^asmt: note: namespace 'test': there is no proof [^\n]*\n(.*\n)*asmt: .*/, show(done));
    t.is(done.stderr.split('there is no proof').length, 2, show(done));
    t.is(await machine.memory(), before);
  });
}

test("--require-proof: refused for a backup of ASMT's", async (t) => {
  const machine = await Machine.start(t);
  const { directory } = machine.golden('raw-index');
  const { error } = await machine.json(4, ['restore', '--require-proof', directory]);
  t.is(error?.code, 'not-proven');
  t.is(await machine.memory(), '');
});

test('--require-proof and --force-stale go against each other', async (t) => {
  const { machine, directory } = await unproven(t);
  const done = await machine.expect(2, ['restore', '--require-proof', '--force-stale', directory]);
  t.regex(done.stderr, /error: --require-proof and --force-stale cannot be used together\nHINT: /, show(done));
  await machine.expect(2, ['backup', '--require-proof', directory]);
  await machine.expect(2, ['restore', '--restorable', directory]);
  t.is(await machine.memory(), '');
});

interface State {
  readonly what: string;
  readonly change: (node: Node) => unknown;
  /** The exit status of a restore, and its code. */
  readonly status: number;
  readonly code?: string;
  /** Its disk shows that the server has not run since. */
  readonly proven: boolean;
  /** A verification fails as well if it is not asked about a restore. */
  readonly isDamage?: true;
}

const STATES: State[] = [
  { what: 'fresh', change: () => undefined, status: 0, proven: true },
  { what: 'stale', change: ({ disk }) => disk.write('running'), status: 4, code: 'backup-stale', proven: false },
  {
    what: 'retired',
    change: ({ machine, directory }) => machine.expect(0, ['retire', directory]),
    status: 4,
    code: 'backup-retired',
    proven: true,
  },
  {
    what: 'of a disk that is gone',
    change: ({ disk }) => disk.takeOut(),
    status: 3,
    code: 'device-unreadable',
    proven: false,
  },
  {
    what: 'used',
    change: async (node) => {
      forgetDevices(node);
      await node.machine.expect(0, ['restore', node.directory]);
      await node.machine.reboot();
    },
    status: 4,
    code: 'backup-used',
    proven: false,
  },
  {
    what: "another host's",
    change: async (node) => {
      forgetDevices(node);
      await node.machine.exec('hostname', ['elsewhere']);
    },
    status: 4,
    code: 'backup-foreign-host',
    proven: false,
  },
  {
    what: 'damaged',
    change: ({ directory }) => truncateSync(`${directory}/ae001100.dat`, 5),
    status: 5,
    code: 'wrong-size',
    proven: true,
    isDamage: true,
  },
  {
    what: 'damaged, and stale',
    change: ({ directory, disk }) => {
      truncateSync(`${directory}/ae001100.dat`, 5);
      disk.write('running');
    },
    status: 5,
    code: 'wrong-size',
    proven: false,
    isDamage: true,
  },
  {
    what: 'incomplete',
    change: ({ directory }) => rmSync(`${directory}/ae001101.dat`),
    status: 5,
    code: 'backup-incomplete',
    proven: true,
    isDamage: true,
  },
];

/** Makes the node look as if it had no disk: neither its backup nor its configuration names one. */
function forgetDevices({ machine, directory }: Node): void {
  writeFileSync(machine.config, configuration({ test: [] }));
  const [first = '', ...rest] = manifestLines(directory);
  sealManifest(directory, [JSON.stringify({ ...(JSON.parse(first) as object), devices: [] }), ...rest]);
}

for (const { what, change, status, code, proven, isDamage } of STATES) {
  testAsRoot(`--restorable: a verification of a backup that is ${what} ends as its restore does`, async (t) => {
    const node = await rebooted(t);
    const { machine, directory } = node;
    await change(node);
    const names = machine.names(directory);
    const plain = await machine.expect(isDamage ? status : 0, ['verify', directory]);
    const asked = await machine.expect(status, ['verify', '--restorable', directory]);
    const sentence =
      status === 0
        ? `a restore here would be accepted: ${PROOF}`
        : `a restore here would be refused (exit status ${status}) because `;
    for (const done of [plain, asked]) t.true(last(done).startsWith(sentence), show(done));
    for (const args of [['verify'], ['verify', '-a']]) {
      const { report, error } = await machine.json(status, [...args, '--restorable', directory]);
      const [restorability, ...more] = report?.restorability ?? [];
      t.deepEqual(more, []);
      t.like(restorability, { instance: 0, accepted: status === 0, proven });
      t.is<string | undefined, string | undefined>(restorability?.reasons[0]?.code, code);
      t.is(error?.code, code);
    }
    // None of this uses the backup.
    t.deepEqual(machine.names(directory), names);
    const { error } = await machine.json(status, ['restore', directory]);
    t.is(error?.code, code);
  });
}

test('--restorable: accepted without proof says so', async (t) => {
  const { machine, directory } = await unproven(t);
  const done = await machine.expect(0, ['verify', '--restorable', directory]);
  t.is(last(done), `a restore here would be accepted: ${NO_PROOF}`, show(done));
  t.is(done.stderr, '');
  const { report } = await machine.json(0, ['verify', directory]);
  t.deepEqual(report?.restorability, [{ instance: 0, accepted: true, proven: false, reasons: [] }]);
  t.false(existsSync(`${directory}/asmt-used-0-test.json`));
});

test('--restorable: what is in memory now is not considered', async (t) => {
  const { machine, directory } = await unproven(t);
  await machine.expect(0, ['restore', directory]);
  await machine.expect(7, ['restore', directory]);
  t.is(last(await machine.expect(0, ['verify', '--restorable', directory])), `a restore here would be accepted: ${NO_PROOF}`);
});

testAsRoot('two instances: a sentence and an entry each, and the weightier one decides', async (t) => {
  const { machine, directory, disk } = await rebooted(t);
  await machine.sim('make', '--instance', '3', '--stage-size', '64KiB');
  await machine.expect(0, ['backup', '-i', '3', '--config', machine.config, directory]);
  disk.write('running');
  rmSync(machine.config);
  await machine.sim('remove');
  const done = await machine.expect(4, ['verify', '--restorable', directory]);
  t.regex(
    done.stdout,
    /^instance 0: a restore here would be refused \(exit status 4\) because .*\ninstance 3: a restore here would be refused \(exit status 4\) because .*\n$/,
    show(done),
  );
  const { report } = await machine.json(4, ['verify', '--restorable', directory]);
  t.deepEqual(
    report?.restorability.map(({ instance, accepted }) => [instance, accepted]),
    [
      [0, false],
      [3, false],
    ],
  );
  disk.write('stopped');
  await machine.expect(0, ['retire', '-i', '3', directory]);
  t.regex(
    (await machine.expect(4, ['verify', '--restorable', directory])).stdout,
    /^instance 0: a restore here would be accepted/,
  );
  await machine.expect(0, ['verify', '--restorable', '-i', '0', directory]);
});
