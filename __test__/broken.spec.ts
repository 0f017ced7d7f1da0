/**
 * Faults that an hour of breaking has found: stale data that was restored, good backups that were
 * always refused, and hints that did harm when they were followed to the letter.
 */

import { mkdirSync, readdirSync, renameSync, rmSync, truncateSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import test from 'ava';

import { MAIN, Machine, run, show, testAsRoot, testAsRootWith, testTraced } from './helpers.ts';
import { Disk, write } from './server.ts';

const SMALL = ['--stage-size', '64KiB', '--treex-size', '64KiB', '--base-size', '64KiB'] as const;
const A = ['--name', 'a', '--nsid', '1', ...SMALL] as const;
const B = ['--name', 'b', '--nsid', '2', ...SMALL] as const;

/**
 * Does what a server does that runs again and is stopped: makes other segments under the same keys.
 */
async function again(machine: Machine, ...of: (readonly string[])[]): Promise<void> {
  await machine.sim('remove');
  for (const options of of) await machine.sim('make', ...options, '--seed', '7');
}

testAsRoot('a backup that is refused notes that the server has run since the one in its way', async (t) => {
  const machine = await Machine.startHost(t);
  const directory = machine.path('b');
  await machine.sim('make', ...A);
  await machine.expect(0, ['backup', directory]);
  await again(machine, A);
  const refused = await machine.expect(3, ['backup', directory]);
  t.regex(refused.stderr, /already contains a backup of namespace 'a' \(\S+, the server has run since\)/, show(refused));
  await machine.reboot();
  t.is((await machine.json(4, ['restore', directory])).error?.code, 'backup-used');
  // Its mark moves with it.
  const [, move = 'false'] = /move it away: (mkdir .*?); /.exec(refused.stderr) ?? [];
  t.is((await machine.exec('bash', ['-c', move])).status, 0, move);
  const place = readdirSync(directory).find((name) => name.startsWith('old-')) ?? '';
  t.is((await machine.json(4, ['restore', join(directory, place)])).error?.code, 'backup-used');
});

testAsRoot('a rehearsal, and a second backup of what is still the same, note nothing', async (t) => {
  const machine = await Machine.startHost(t);
  const directory = machine.path('b');
  await machine.sim('make', ...A);
  const before = await machine.memory();
  await machine.expect(0, ['backup', directory]);
  await machine.expect(3, ['backup', directory]);
  await again(machine, A);
  await machine.expect(3, ['backup', '-a', directory]);
  await machine.reboot();
  await machine.expect(0, ['restore', directory]);
  t.is(await machine.memory(), before);
});

testAsRoot('storage that the configuration does not name any more is no proof', async (t) => {
  const machine = await Machine.startHost(t);
  const directory = machine.path('b');
  const [one, two, blank] = [
    await Disk.make(t, machine, 'one', { name: 'a' }),
    await Disk.make(t, machine, 'two', { name: 'a' }),
    await Disk.make(t, machine, 'blank', { name: 'a' }),
  ];
  write(blank.path, Buffer.alloc(4096));
  const configure = (...lines: string[]) =>
    writeFileSync(
      machine.config,
      `namespace a {\nstorage-engine ${lines[0] === '' ? 'memory' : 'device'} {\n${lines.join('\n')}\n}\n}\n`,
    );
  const device = (disk: Disk) => `device ${disk.path}`;
  configure(device(one), device(two));
  await machine.sim('make', ...A);
  await machine.expect(0, ['backup', directory]);
  await machine.reboot();
  for (const lines of [[device(blank)], [device(one)], [device(one), device(blank)], ['']]) {
    configure(...lines);
    const { error } = await machine.json(3, ['restore', '--require-proof', directory]);
    t.is(error?.code, 'setting-changed', JSON.stringify(lines));
    t.regex(error?.message ?? '', /does not name its storage device \S+, but did when the backup was made/);
  }
  // In another order, or by the names of the block devices, the storage is the same.
  configure(`device ${two.device}`, `device ${one.device}`);
  await machine.expect(0, ['restore', '--require-proof', directory]);
});

testTraced('what a killed restore has made is no server’s, also where its runtime directory is lost', async (t) => {
  const machine = await Machine.start(t);
  const directory = machine.path('b');
  await machine.sim('make', ...A, '--stripes', '4', '--stripe-size', '64KiB', '--data-nsid', '1');
  await machine.expect(0, ['backup', directory]);
  const before = await machine.memory();
  await machine.sim('remove');
  mkdirSync(machine.path('other'), { mode: 0o700 });
  const env = { ASMT_RUNTIME_DIR: machine.path('other') };
  const words = ['-f', '-qq', '-o', machine.path('trace'), '-e', 'trace=shmget', '-e', 'inject=shmget:signal=KILL:when=4'];
  await machine.exec('strace', [...words, process.execPath, MAIN, 'restore', directory], { env });
  t.not(await machine.memory(), '');
  const refused = await machine.expect(3, ['restore', directory]);
  t.notRegex(
    refused.stderr,
    /the server has created or used them|start the server without a restore if it was shut down/,
    show(refused),
  );
  const [, remove = 'false'] = /(ipcrm( -m \d+)+)/.exec(refused.stderr) ?? [];
  t.is((await machine.exec('bash', ['-c', remove])).status, 0, remove);
  await machine.expect(0, ['restore', directory]);
  t.is(await machine.memory(), before);
});

testAsRoot('a backup of another host is left alone, and not used up by a refusal', async (t) => {
  const machine = await Machine.startHost(t);
  const directory = machine.path('b');
  await machine.sim('make', ...A);
  const before = await machine.memory();
  await machine.expect(0, ['backup', directory]);
  await machine.reboot();
  const name = (await machine.exec('hostname', [])).stdout.trim();
  await machine.exec('hostname', ['node2']);
  t.is((await machine.json(4, ['restore', directory])).error?.code, 'backup-foreign-host');
  await machine.sim('make', ...A);
  const refused = await machine.expect(3, ['backup', directory]);
  t.regex(refused.stderr, new RegExp(`contains a backup of namespace 'a' from host '${name}'`), show(refused));
  t.regex(refused.stderr, /HINT: the backup belongs to another server: leave it where it is/, show(refused));
  t.notRegex(refused.stderr, /mkdir|rm /, show(refused));
  await machine.reboot();
  // The same machine, before it has got its name, and with its full name.
  for (const other of ['localhost', `${name.split('.')[0]}.example.com`, name]) {
    await machine.exec('hostname', [other]);
    await machine.expect(0, ['restore', directory]);
    t.is(await machine.memory(), before);
    await machine.sim('remove');
  }
});

testAsRootWith('faketime')(
  'of two backups of two boots, the one that was there first is the older, whatever the clock says',
  async (t) => {
    const machine = await Machine.startHost(t);
    const directory = machine.path('b');
    await machine.sim('make', ...A);
    // In the second boot the clock is behind: the first backup has a later date than the second.
    const ahead = await machine.exec('faketime', ['-f', '+30d', process.execPath, MAIN, 'backup', directory]);
    t.is(ahead.status, 0, show(ahead));
    await machine.reboot();
    await machine.sim('make', ...A, '--seed', '7');
    await machine.sim('make', ...B);
    await machine.expect(0, ['backup', '-n', 'b', directory]);
    await machine.reboot();
    const { report } = await machine.json(4, ['restore', directory]);
    t.deepEqual(report?.possible, ['b']);
    await machine.expect(0, ['restore', '-n', 'b', directory]);
  },
);

testAsRoot('a log or smd directory that is not mounted is waited for', async (t) => {
  const machine = await Machine.startHost(t);
  const [directory, work, log] = [machine.path('b'), machine.path('work'), machine.path('log')];
  for (const path of [join(work, 'smd'), log]) mkdirSync(path, { recursive: true });
  writeFileSync(join(work, 'smd', 'x'), 's');
  writeFileSync(join(log, 'a.log'), 'a line\n');
  const logging = `logging {\nfile ${log}/a.log {\ncontext any info\n}\n}\n`;
  writeFileSync(machine.config, `service {\nwork-directory ${work}\n}\n${logging}namespace a {\nstorage-engine memory {\n}\n}\n`);
  for (const path of [log, join(work, 'smd')]) {
    await machine.sim('make', ...A);
    await machine.expect(0, ['backup', directory]);
    await machine.reboot();
    renameSync(path, machine.path('away'));
    const { error } = await machine.json(3, ['restore', directory]);
    t.is(error?.code, 'log-missing', path);
    renameSync(machine.path('away'), path);
    await machine.expect(0, ['restore', directory]);
    await machine.sim('remove');
    rmSync(directory, { recursive: true });
  }
});

testAsRoot('a device that is slow to appear comes before what marks say', async (t) => {
  const machine = await Machine.startHost(t);
  const directory = machine.path('b');
  const disk = await Disk.make(t, machine, 'disk', { name: 'a', devices: 1 });
  await machine.sim('make', ...A);
  await machine.expect(0, ['backup', '--device', disk.path, directory]);
  await machine.reboot();
  await machine.expect(0, ['restore', '--require-proof', directory]);
  await machine.reboot();
  await disk.takeOut();
  t.is((await machine.json(3, ['restore', directory])).error?.code, 'device-unreadable');
  await disk.putIn();
  await machine.expect(0, ['restore', '--require-proof', directory]);
});

testAsRoot("ASMT's older files beside a new backup are those of an earlier boot", async (t) => {
  const machine = await Machine.startHost(t);
  const directory = machine.path('b');
  await machine.sim('make', ...A);
  await machine.expect(0, ['backup', directory]);
  rmSync(join(directory, 'asmt-manifest-0-a.json'));
  const day = new Date(Date.now() - 30 * 86_400_000);
  for (const name of readdirSync(directory)) utimesSync(join(directory, name), day, day);
  await machine.reboot();
  await machine.sim('make', ...B);
  await machine.expect(0, ['backup', '-n', 'b', directory]);
  await machine.reboot();
  const { report } = await machine.json(4, ['restore', directory]);
  t.deepEqual(report?.possible, ['b']);
});

test('a backup whose manifest is damaged is moved away with it', async (t) => {
  const machine = await Machine.start(t);
  const directory = machine.path('b');
  await machine.sim('make', ...A);
  await machine.expect(0, ['backup', directory]);
  truncateSync(join(directory, 'asmt-manifest-0-a.json'), 100);
  const refused = await machine.expect(3, ['backup', directory]);
  const [, move = 'false'] = /move it away: (mkdir .*?); /.exec(refused.stderr) ?? [];
  t.is((await machine.exec('bash', ['-c', move])).status, 0, move);
  await machine.sim('remove');
  const place = readdirSync(directory).find((name) => name.startsWith('old-')) ?? '';
  t.is((await machine.json(5, ['restore', join(directory, place)])).error?.code, 'manifest-damaged');
});

test('an IPC namespace that nothing but the caller of asmt keeps is remarked on', async (t) => {
  const machine = await Machine.start(t);
  const directory = machine.path('b');
  await machine.sim('make', ...A);
  await machine.expect(0, ['backup', directory]);
  const words = ['--ipc', 'bash', '-c', `${process.execPath} ${MAIN} restore ${directory}; exit $?`];
  const done = await run('unshare', words, { env: machine.env });
  t.is(done.status, 0, show(done));
  t.regex(done.stderr, /only pid \d+ \(bash\), an ancestor of asmt, keeps this IPC namespace alive/, show(done));
});
