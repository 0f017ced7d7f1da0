/**
 * `asmt backup --replace`: an older backup that is outdated goes first, one that is current stays,
 * and one of which nobody can tell stays until the new one has taken its place. Wherever a run is
 * killed, there is a backup that can be restored.
 */

import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';

import test, { type ExecutionContext } from 'ava';

import { MANIFEST, Machine, manifestLines, run, sealManifest, show, testAsRoot, testTraced } from './helpers.ts';
import { Disk, configuration } from './server.ts';

const STAGE = ['--stage-size', '64KiB'] as const;
const SMALL = ['--treex-size', '64KiB', '--base-size', '64KiB'] as const;
const TEST = ['--name', 'test', '--nsid', '1'] as const;
const BAR = ['--name', 'bar', '--nsid', '2'] as const;

/** The codes of what a run has remarked of older backups. */
const OLD = new Set<string>(['already-backed-up', 'old-first', 'old-last']);

/** Backs up with `--replace`. Returns what became of older backups. */
async function replace(machine: Machine, directory: string, ...args: string[]): Promise<string[]> {
  const { report } = await machine.json(0, ['backup', '--replace', ...args, directory]);
  return report?.remarks.map(({ code }) => code).filter((code) => OLD.has(code)) ?? [];
}

/** The names in a backup directory that belong to no backup. */
function strays(machine: Machine, directory: string): string[] {
  return machine.names(directory).filter((name) => name.startsWith('.'));
}

/** The server starts, and is stopped cleanly. */
async function serve(
  machine: Machine,
  of: readonly string[] = TEST,
  start: readonly string[] = [],
  devices?: string,
): Promise<void> {
  const on = devices === undefined ? [] : ['--devices', devices];
  await machine.sim('start', ...STAGE, ...of, ...start, ...on);
  await machine.sim('stop', ...SMALL, ...of, ...on);
}

/** Restores a backup to exactly what was in memory. */
async function restoredIs(t: ExecutionContext, machine: Machine, directory: string, before: string): Promise<void> {
  await machine.sim('remove');
  await machine.expect(0, ['restore', directory]);
  t.is(await machine.memory(), before);
}

const inodes = (machine: Machine, directory: string) =>
  machine.names(directory).map((name) => `${name} ${statSync(join(directory, name)).ino}`);

testAsRoot('a backup that is current stays, and that is success with a code of its own', async (t) => {
  const machine = await Machine.startHost(t);
  const directory = machine.path('b');
  await serve(machine);
  t.deepEqual(await replace(machine, directory), [], 'where there is none, one is made');
  const before = inodes(machine, directory);
  for (const args of [[], ['-a'], ['-z'], ['-c'], ['-n', 'test']]) {
    const { report } = await machine.json(0, ['backup', '--replace', ...args, directory]);
    t.deepEqual(
      report?.remarks.map(({ code }) => code).filter((code) => OLD.has(code)),
      ['already-backed-up'],
      args.join(' '),
    );
    t.deepEqual([report?.namespaces, report?.segments], [[], []]);
    t.deepEqual(
      report?.current.map(({ name, has_manifest: has }) => [name, has]),
      [['test', true]],
    );
    t.deepEqual(inodes(machine, directory), before);
  }
  const text = await machine.expect(0, ['backup', '--replace', directory]);
  t.is(text.stdout, `nothing to do: the backup of 1 namespace in ${directory} is current\n`);
  // In ASMT's own form as well.
  const asmt = await machine.expect(0, ['-b', '--replace', '-p', directory]);
  t.is(asmt.stdout, text.stdout);
  // What is current by its segments must be undamaged, where it is read.
  const file = machine.names(directory).find((name) => name.startsWith('ae0011')) ?? '';
  const bytes = readFileSync(join(directory, file));
  bytes[5] = (bytes[5] ?? 0) ^ 1;
  writeFileSync(join(directory, file), bytes);
  t.deepEqual(await replace(machine, directory, '-c'), ['old-last']);
  const memory = await machine.memory();
  await restoredIs(t, machine, directory, memory);
});

testAsRoot('a backup that lacks a file, or was restored here since, is not called current', async (t) => {
  const machine = await Machine.startHost(t);
  const directory = machine.path('b');
  await serve(machine);
  const before = await machine.memory();
  await replace(machine, directory);
  rmSync(join(directory, 'ae001100.dat'));
  t.deepEqual(await replace(machine, directory), ['old-last']);
  // What was restored from it may be used up: a restore of the next boot would refuse it.
  await restoredIs(t, machine, directory, before);
  t.deepEqual(await replace(machine, directory), ['old-last']);
  await machine.reboot();
  await machine.expect(0, ['restore', directory]);
  t.is(await machine.memory(), before);
});

testAsRoot('where devices prove that the server has not run, a backup of an earlier boot is current', async (t) => {
  const machine = await Machine.startHost(t);
  const directory = machine.path('b');
  const disk = await Disk.make(t, machine, 'disk', { devices: 1 });
  writeFileSync(machine.config, configuration({ test: [`device ${disk.path}`] }));
  await serve(machine, TEST, [], disk.device);
  await replace(machine, directory);
  await machine.reboot();
  await machine.expect(0, ['restore', directory]);
  t.deepEqual(await replace(machine, directory), ['already-backed-up']);
  await serve(machine, TEST, [], disk.device);
  t.deepEqual(await replace(machine, directory), ['old-first']);
});

testAsRoot('segments are not backed up where the server has run on its devices without them', async (t) => {
  const machine = await Machine.startHost(t);
  const directory = machine.path('b');
  const disk = await Disk.make(t, machine, 'disk', { devices: 1 });
  writeFileSync(machine.config, configuration({ test: [`device ${disk.path}`] }));
  await serve(machine, TEST, [], disk.device);
  await replace(machine, directory);
  const before = inodes(machine, directory);
  // In another container, say.
  disk.write('stopped again');
  const { error } = await machine.json(3, ['backup', '--replace', directory]);
  t.is(error?.code, 'device-set-torn');
  t.regex(error?.message ?? '', /the segments in memory are those of the backup of .*, and .* has run since, without them/);
  t.deepEqual(
    inodes(machine, directory).filter((name) => !name.includes('used')),
    before,
  );
});

for (const form of ['', '-z', '-Z']) {
  testAsRoot(`a backup at every stop, night after night, in one directory ${form}`, async (t) => {
    const machine = await Machine.startHost(t);
    const directory = machine.path('b');
    const stripes = ['--stripes', '2', '--stripe-size', '64KiB'];
    const disk = await Disk.make(t, machine, 'disk', { name: 'bar', devices: 1 });
    writeFileSync(machine.config, configuration({ test: [], bar: [`device ${disk.path}`] }));
    for (let night = 0; night < 5; night += 1) {
      await serve(machine, TEST, stripes);
      await serve(machine, BAR, [], disk.device);
      const before = await machine.memory();
      t.deepEqual(
        await replace(machine, directory, ...(form === '' ? [] : [form])),
        night === 0 ? [] : ['old-first', 'old-first'],
      );
      t.deepEqual(strays(machine, directory), []);
      t.deepEqual(await replace(machine, directory), ['already-backed-up', 'already-backed-up']);
      await machine.expect(0, ['verify', directory]);
      await machine.reboot();
      await machine.expect(0, ['restore', directory]);
      t.is(await machine.memory(), before, `night ${night}`);
    }
  });
}

/** A file system with room for one backup of 4 MiB, and not for two. */
async function smallDisk(machine: Machine): Promise<string> {
  const [image, place] = [machine.path('image'), machine.path('mnt')];
  writeFileSync(image, '');
  truncateSync(image, 8 * 2 ** 20);
  const made = await run('mkfs.ext4', ['-q', '-O', '^has_journal', '-m', '0', image]);
  if (made.status !== 0) throw new Error(show(made));
  mkdirSync(place);
  await machine.mount(image, place, '-o', 'loop');
  return join(place, 'b');
}

testAsRoot('an outdated backup makes room for the new one, and any other does not', async (t) => {
  const machine = await Machine.startHost(t);
  const directory = await smallDisk(machine);
  const large = ['--stages', '1', '--stage-size', '4MiB', '--fill', '1', ...SMALL, ...TEST];
  await machine.sim('make', ...large);
  const before = await machine.memory();
  await machine.expect(0, ['backup', directory]);
  // Nothing tells what this backup is of: it would have to stay, and there is no room for both. The
  // mount is seen in the machine alone.
  const within = async (...words: string[]) => (await machine.exec('env', words)).stdout;
  await within('mv', join(directory, MANIFEST), machine.path('manifest'));
  const names = await within('ls', '-i', directory);
  const { error } = await machine.json(6, ['backup', '--replace', directory]);
  t.is(error?.code, 'disk-full');
  t.regex(error?.message ?? '', /are free while the older backup is there, which stays until the new one is complete/);
  t.is(await within('ls', '-i', directory), names);
  await within('cp', '-p', machine.path('manifest'), join(directory, MANIFEST));
  await machine.reboot();
  await machine.expect(0, ['restore', directory]);
  t.is(await machine.memory(), before);
  await machine.sim('start', ...TEST, '--stage-size', '4MiB');
  await machine.sim('stop', ...SMALL, ...TEST);
  const analysis = await machine.expect(0, ['backup', '-a', '--replace', directory]);
  t.regex(analysis.stderr, /note: .*the backup of .* is outdated: it is removed before the new one is made/, show(analysis));
  const after = await machine.memory();
  t.deepEqual(await replace(machine, directory), ['old-first']);
  await machine.reboot();
  await machine.expect(0, ['restore', directory]);
  t.is(await machine.memory(), after);
});

testAsRoot('what was retired goes first, and what has no manifest stays until the end', async (t) => {
  const machine = await Machine.startHost(t);
  const directory = machine.path('b');
  await machine.sim('make', ...STAGE, ...SMALL, ...TEST);
  const before = await machine.memory();
  await machine.expect(0, ['backup', '-z', directory]);
  await machine.expect(0, ['retire', directory]);
  t.deepEqual(await replace(machine, directory), ['old-first']);
  t.true(existsSync(join(directory, 'ae001100.dat')));
  t.false(existsSync(join(directory, 'ae001100.dat.gz')), 'files of another form go, too');
  await machine.expect(0, ['verify', '--restorable', directory]);
  // Any form takes the place of any other.
  for (const form of ['-Z', '-z', '']) {
    rmSync(join(directory, MANIFEST));
    t.deepEqual(await replace(machine, directory, ...(form === '' ? [] : [form])), ['old-last'], form);
    t.deepEqual(strays(machine, directory), []);
    t.deepEqual(machine.names(directory).filter((name) => !name.startsWith('asmt-')).length, before.trim().split('\n').length);
    await machine.expect(0, ['verify', directory]);
    if (form === '-Z') break;
  }
  await machine.reboot();
  await machine.expect(0, ['restore', directory]);
  t.is(await machine.memory(), before);
});

testAsRoot('other namespaces and other instances stay as they are', async (t) => {
  const machine = await Machine.startHost(t);
  const directory = machine.path('b');
  for (const name of [TEST, BAR]) await serve(machine, name);
  await serve(machine, [...TEST, '--instance', '3']);
  await machine.expect(0, ['backup', directory]);
  await machine.expect(0, ['backup', '-i', '3', directory]);
  const others = () => inodes(machine, directory).filter((name) => !/^..001|test/.test(name) || /^..301|-3-/.test(name));
  const before = others();
  for (const name of [TEST, BAR]) await serve(machine, name);
  t.deepEqual(await replace(machine, directory, '-n', 'test'), ['old-first']);
  t.deepEqual(
    others().filter((name) => !name.includes('used')),
    before,
  );
  // A backup of another name under the same nsid is in the way.
  await machine.sim('remove', '--instance', '0');
  await serve(machine, ['--name', 'new', '--nsid', '1']);
  const refused = await machine.expect(3, ['backup', '--replace', '-n', 'new', directory]);
  t.regex(refused.stderr, /--replace does not apply: it is that of another namespace/, show(refused));
});

test('what is not known is refused, with the reason', async (t) => {
  const machine = await Machine.start(t);
  const directory = machine.path('b');
  await machine.sim('make', ...STAGE, ...SMALL, ...TEST);
  await machine.expect(0, ['backup', directory]);
  const refused = async (why: RegExp) => {
    const done = await machine.expect(3, ['backup', '--replace', directory]);
    t.regex(done.stderr, /--replace does not apply: /, show(done));
    t.regex(done.stderr, why, show(done));
    await machine.expect(3, ['backup', '-a', '--replace', directory]);
  };
  // A file of a segment that is there twice; and one that nobody can read.
  const stray = join(directory, 'ae001100.dat.gz');
  await machine.expect(0, ['backup', '-z', machine.path('z')]);
  renameSync(machine.path('z', 'ae001100.dat.gz'), stray);
  await refused(/ae001100\.dat and ae001100\.dat\.gz are both files of segment ae001100/);
  writeFileSync(stray, gzipSync(readFileSync(join(directory, 'ae001100.dat'))), { mode: 0o600 });
  const unreadable = await machine.expect(3, ['backup', '--replace', directory]);
  t.regex(
    unreadable.stderr,
    /contains 1 files of instance 0 .*\(the first is ae001100\.dat\.gz\); expected none/,
    show(unreadable),
  );
  renameSync(stray, machine.path('stray'));
  const lines = manifestLines(directory);
  const head = JSON.parse(lines[0] ?? '') as Record<string, unknown>;
  const changed = (change: object) => sealManifest(directory, [JSON.stringify({ ...head, ...change }), ...lines.slice(1)]);
  changed({ host: 'elsewhere', machine_id: '0123456789abcdef0123456789abcdef' });
  await refused(/it belongs to another server/);
  changed({ version: 99 });
  await refused(/a newer asmt made it/);
  // A damaged manifest is that of no good backup.
  writeFileSync(join(directory, MANIFEST), '{"damaged":', { mode: 0o600 });
  t.deepEqual(await replace(machine, directory), ['old-last']);
  await machine.expect(0, ['verify', directory]);
});

testAsRoot('a container that was restored from a backup replaces it, and another one does not', async (t) => {
  const first = await Machine.startHost(t);
  const directory = first.path('b');
  await serve(first);
  await first.expect(0, ['backup', directory]);
  const stranger = await first.container();
  await serve(stranger);
  const refused = await stranger.expect(3, ['backup', '--replace', directory]);
  t.regex(refused.stderr, /--replace does not apply: it belongs to another server/, show(refused));
  rmSync(join(directory, 'asmt-used-0-test.json'), { force: true });
  const heir = await first.container();
  await first.sim('remove');
  await heir.expect(0, ['restore', directory]);
  await serve(heir);
  t.deepEqual(await replace(heir, directory), ['old-first']);
  await stranger.sim('remove');
  await heir.sim('remove');
});

testAsRoot('a container replaces what it was restored from and has not touched', async (t) => {
  const first = await Machine.startHost(t);
  const directory = first.path('b');
  await serve(first);
  const before = await first.memory();
  await first.expect(0, ['backup', directory]);
  await first.sim('remove');
  const second = await first.container();
  await second.expect(0, ['restore', directory]);
  t.deepEqual(await replace(second, directory), ['old-last']);
  await second.sim('remove');
  const third = await first.container();
  await third.expect(0, ['restore', directory]);
  t.is(await third.memory(), before);
  await third.sim('remove');
});

testAsRoot('after a killed server, the next container starts cold, and is backed up', async (t) => {
  const first = await Machine.startHost(t);
  const directory = first.path('b');
  const disk = await Disk.make(t, first, 'disk', { devices: 1 });
  writeFileSync(first.config, configuration({ test: [`device ${disk.path}`] }));
  await serve(first, TEST, [], disk.device);
  await replace(first, directory);
  await first.sim('remove');
  const killed = await first.container();
  await killed.expect(0, ['restore', directory]);
  await killed.sim('start', ...TEST, '--devices', disk.device);
  await killed.sim('crash', ...TEST, '--devices', disk.device);
  await killed.sim('remove');
  const next = await first.container();
  await next.expect(4, ['restore', directory]);
  await serve(next, TEST, [], disk.device);
  t.deepEqual(await replace(next, directory), ['old-first']);
  await next.sim('remove');
});

testTraced('wherever a run is killed, a backup can be restored, and the next one needs no help', async (t) => {
  const machine = await Machine.start(t);
  const [directory, saved] = [machine.path('b'), machine.path('saved')];
  await machine.sim('make', ...STAGE, ...SMALL, ...TEST, '--stripes', '2', '--stripe-size', '64KiB', '--data-nsid', '1');
  const before = await machine.memory();
  await machine.expect(0, ['backup', '-z', saved]);
  rmSync(join(saved, MANIFEST));
  let kills = 0;
  for (const call of ['renameat2', 'unlinkat']) {
    for (let when = 1; when < 100; when += 1) {
      rmSync(directory, { recursive: true, force: true });
      await run('cp', ['-a', saved, directory]);
      const done = await machine.traced([`${call}:signal=KILL:when=${when}`], ['backup', '--replace', directory]);
      if (done.status === 0) break;
      t.is(done.signal, 'SIGKILL', show(done));
      kills += 1;
      const title = `${call} ${when}`;
      await machine.expect(0, ['verify', directory]);
      // In another IPC namespace, nothing but the directory tells.
      const other = await Machine.start(t);
      if (when % 3 === 0) {
        await other.expect(0, ['restore', '--force-stale', directory]);
        t.is(await other.memory(), before, title);
        await other.sim('remove');
        rmSync(join(directory, 'asmt-used-0-test.json'), { force: true });
      }
      await other.end();
      // The next one does not need the option.
      const next = await machine.expect(3, ['backup', directory]);
      t.regex(next.stderr, /already contains a backup of namespace 'test'/, show(next));
      // Whatever it was that was there, base has its name now.
      t.true(existsSync(join(directory, 'ae001000.dat')), title);
      await machine.expect(0, ['backup', '--replace', directory]);
      t.deepEqual(strays(machine, directory), [], title);
      await machine.expect(0, ['verify', directory]);
    }
  }
  t.true(kills > 10, `${kills} kills`);
});
