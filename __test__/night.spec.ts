/**
 * A night of an operator with two namespaces: backups that are offered without the other namespace,
 * and old backups, stray files and small disks in the way.
 */

import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync, gzipSync } from 'node:zlib';

import test from 'ava';

import { Machine, SIM, run, show, testAsRoot } from './helpers.ts';

const STAGE = ['--stage-size', '64KiB'] as const;
const SMALL = ['--treex-size', '64KiB', '--base-size', '64KiB'] as const;
const STRIPES = ['--stripes', '2', '--stripe-size', '64KiB'] as const;
const TEST = ['--name', 'test', '--nsid', '1'] as const;
const BAR = ['--name', 'bar', '--nsid', '2'] as const;
const IN_MEMORY = ['test', 'bar'].map((name) => `namespace ${name} {\nstorage-engine memory {\ndata-size 1G\n}\n}\n`).join('');

/** Changes a byte of a file. */
function change(path: string, at: number): void {
  const bytes = readFileSync(path);
  bytes[at] = (bytes[at] ?? 0) ^ 0xff;
  writeFileSync(path, bytes);
}

/** The server of both namespaces starts, and is stopped cleanly. */
async function serve(machine: Machine): Promise<void> {
  for (const name of [TEST, BAR]) await machine.sim('start', ...STAGE, ...STRIPES, ...name);
  for (const name of [TEST, BAR]) await machine.sim('stop', ...SMALL, ...name);
}

testAsRoot('a backup of one namespace beside an older one of another marks that as used', async (t) => {
  const machine = await Machine.startHost(t);
  writeFileSync(machine.config, `service {\nwork-directory ${machine.path('work')}\n}\nlogging {\nconsole {\n}\n}\n${IN_MEMORY}`);
  const directory = machine.path('b');
  await serve(machine);
  await machine.expect(0, ['backup', directory]);
  await serve(machine);
  const refused = await machine.expect(3, ['backup', '-v', directory]);
  t.regex(
    refused.stderr,
    /the server has run since its backup in this directory was made; that backup was marked as used/,
    show(refused),
  );
  // Each hint is followed to the letter; the second one does not fail because of the first one's
  // directory.
  const moves = [...refused.stderr.matchAll(/move it away: (mkdir .*?); /g)].map(([, command]) => command ?? '');
  t.is(moves.length, 2, show(refused));
  const [first] = moves;
  const moved = await machine.exec('bash', ['-c', first ?? 'false']);
  t.is(moved.status, 0, show(moved));
  // The backup that was not moved, of 'test' or 'bar', stays beside the new one of the other
  // namespace.
  const other = /asmt-manifest-0-test/.test(first ?? '') ? 'bar' : 'test';
  const own = other === 'bar' ? 'test' : 'bar';
  const offered = await machine.expect(3, ['backup', directory]);
  t.regex(
    offered.stderr,
    new RegExp(`HINT: ${own} can be backed up without the others, whose data in memory is lost`),
    show(offered),
  );
  await machine.expect(0, ['backup', '-n', own, directory]);
  await machine.reboot();
  const { error, report } = await machine.json(4, ['restore', directory]);
  t.is(error?.code, 'backup-used');
  t.deepEqual(report?.possible, [own]);
  await machine.expect(0, ['restore', '-n', own, directory]);
});

testAsRoot('backups of one stop, namespace by namespace, do not mark each other', async (t) => {
  const machine = await Machine.startHost(t);
  const directory = machine.path('b');
  await serve(machine);
  const before = await machine.memory();
  await machine.expect(0, ['backup', '-n', 'bar', directory]);
  await machine.expect(0, ['backup', '-n', 'test', directory]);
  await machine.reboot();
  await machine.expect(0, ['restore', directory]);
  t.is(await machine.memory(), before);
});

test('while a server has one namespace of an instance attached, none of it is at rest', async (t) => {
  const machine = await Machine.start(t);
  await serve(machine);
  const [directory, other] = [machine.path('b'), machine.path('other')];
  await machine.expect(0, ['backup', directory]);
  await run('cp', [SIM, machine.path('asd')]);
  const server = await machine.start(machine.path('asd'), ['hold', '--key', '0xae001000'], 'ready');
  t.teardown(() => server.end());
  const refused = await machine.expect(3, ['backup', other]);
  t.notRegex(refused.stderr, /without the others/, show(refused));
  const alone = await machine.expect(3, ['backup', '-n', 'bar', other]);
  t.regex(alone.stderr, /'bar': its server is running: pid \d+ \(asd\) has segment ae001000 of another namespace attached/);
  t.regex(alone.stderr, /HINT: the server is running: stop it/);
  // A server that is still starting may come to this namespace next.
  await machine.sim('remove', '--nsid', '2');
  const restore = await machine.expect(3, ['restore', '-n', 'bar', directory]);
  t.regex(restore.stderr, /HINT: the server is running: leave it running, nothing needs restoring/, show(restore));
});

test('files that somebody has compressed or put beside a backup are named, with what to do', async (t) => {
  const machine = await Machine.start(t);
  const directory = machine.path('b');
  for (const name of [TEST, BAR]) await machine.sim('make', ...STAGE, ...SMALL, ...name);
  const before = await machine.memory();
  await machine.expect(0, ['backup', directory]);
  await machine.sim('remove');
  const [file, stray] = [join(directory, 'ae002100.dat'), join(directory, 'ae002100.dat.gz')];
  writeFileSync(stray, gzipSync(readFileSync(file)), { mode: 0o600 });
  const refused = await machine.expect(5, ['restore', directory]);
  t.regex(refused.stderr, /ae002100\.dat\.gz and ae002100\.dat are both files of segment ae002100, expected only the second/);
  t.regex(refused.stderr, /HINT: move ae002100\.dat\.gz out of the directory, and keep it: the manifest names ae002100\.dat\n/);
  t.regex(refused.stderr, /HINT: test can be restored without the others/, show(refused));
  await machine.expect(0, ['restore', '-n', 'test', directory]);
  await machine.sim('remove');
  renameSync(stray, machine.path('kept.gz'));
  // If it stands in for the file, it must be unpacked.
  writeFileSync(stray, gzipSync(readFileSync(file)), { mode: 0o600 });
  renameSync(file, machine.path('own.dat'));
  const packed = await machine.expect(5, ['restore', directory]);
  t.regex(
    packed.stderr,
    /HINT: if somebody has compressed the files since the backup was made, decompress them \(gunzip\)/,
    show(packed),
  );
  writeFileSync(file, gunzipSync(readFileSync(stray)), { mode: 0o600 });
  renameSync(stray, machine.path('again.gz'));
  // All backups have the same use here: the boot is the same, and nothing has run.
  await machine.expect(0, ['restore', directory]);
  t.is(await machine.memory(), before);
});

test('damaged contents name their namespace, and what can be restored without it', async (t) => {
  const machine = await Machine.start(t);
  const directory = machine.path('b');
  for (const name of [TEST, BAR]) await machine.sim('make', ...STAGE, ...SMALL, ...name);
  await machine.expect(0, ['backup', directory]);
  await machine.sim('remove');
  change(join(directory, 'ae002100.dat'), 100);
  const refused = await machine.expect(5, ['restore', directory]);
  t.regex(refused.stderr, /error: namespace 'bar': \S+ae002100\.dat at 0 \(segment ae002100\): CRC-32/);
  const [, command] = /HINT: test can be restored without the others.*: (asmt restore .*)\n/.exec(refused.stderr) ?? [];
  t.is(command, `asmt restore -n test ${directory}`, show(refused));
  t.is(await machine.memory(), '');
  await machine.expect(0, ['restore', '-n', 'test', directory]);
  const verified = await machine.expect(5, ['verify', directory]);
  t.regex(verified.stderr, /error: namespace 'bar': \S+ae002100\.dat at 0/, show(verified));
});

testAsRoot('a compressed backup goes to a disk that is too small for a plain one', async (t) => {
  const machine = await Machine.startHost(t);
  await machine.sim('make', '--stage-size', '4MiB', '--fill', '1', ...SMALL, ...TEST);
  const before = await machine.memory();
  const [image, place] = [machine.path('disk'), machine.path('mnt')];
  await run('truncate', ['-s', '10M', image]);
  const made = await run('mkfs.ext4', ['-q', '-O', '^has_journal', '-m', '0', image]);
  t.is(made.status, 0, show(made));
  mkdirSync(place);
  await machine.mount(image, place, '-o', 'loop');
  // There is room for half of it only.
  const filler = await machine.exec('bash', ['-c', `df --output=avail -B1 ${place} | tail -1`]);
  const free = Number(filler.stdout);
  await machine.exec('fallocate', ['-l', String(free - 6.5 * 2 ** 20), join(place, 'filler')]);
  const directory = join(place, 'b');
  t.is((await machine.json(6, ['backup', directory])).error?.code, 'disk-full');
  const analysis = await machine.expect(0, ['backup', '-a', '-z', directory]);
  t.regex(analysis.stderr, /whether they fit is known only once they are written/, show(analysis));
  await machine.expect(0, ['backup', '-z', directory]);
  await machine.sim('remove');
  await machine.expect(0, ['restore', directory]);
  t.is(await machine.memory(), before);
});

test('what overrides a refusal names the instance and the directory, too', async (t) => {
  const machine = await Machine.start(t);
  const directory = machine.path('b');
  await machine.sim('make', ...STAGE, ...SMALL, ...STRIPES, '--data-nsid', '1', '--instance', '2', ...TEST);
  await machine.expect(0, ['backup', '-i', '2', directory]);
  await machine.sim('remove');
  await machine.expect(0, ['retire', '-i', '2', directory]);
  const refused = await machine.expect(4, ['restore', '-i', '2', directory]);
  t.true(refused.stderr.includes(`asmt restore -i 2 --force-stale ${directory} brings back`), show(refused));
});
