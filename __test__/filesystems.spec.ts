/**
 * File systems with missing abilities: this is found out before anything is copied, and nothing is
 * left.
 */

import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';

import type { ExecutionContext } from 'ava';

import { Machine, run, show, testAsRootWith } from './helpers.ts';

async function mounted(t: ExecutionContext, machine: Machine, command: string, args: readonly string[]): Promise<string> {
  const mount = machine.path('mount');
  const done = await run(command, [...args, mount]);
  t.is(done.status, 0, show(done));
  t.teardown(() => run('umount', [mount]));
  return mount;
}

async function withDirectories(t: ExecutionContext): Promise<Machine> {
  const machine = await Machine.start(t);
  for (const name of ['back', 'mount']) mkdirSync(machine.path(name));
  return machine;
}

testAsRootWith('bindfs')('a file system that shows files to others is refused before anything is copied', async (t) => {
  const machine = await withDirectories(t);
  await machine.sim('make', '--uid', '12345', '--gid', '12345');
  const options = ['--perms=a+rX,u+w', '--create-for-user=root', machine.path('back')];
  const mount = await mounted(t, machine, 'bindfs', options);
  const { error } = await machine.json(3, ['backup', join(mount, 'b')]);
  t.deepEqual([error?.code, error?.kind], ['modes-not-kept', 'refused']);
  t.regex(error?.message ?? '', /gives a file of mode 0600 the mode 0644, so others may read it/);
  t.deepEqual(readdirSync(join(mount, 'b')), []);
});

testAsRootWith('bindfs')('where nobody else may enter, the mode of files does not matter', async (t) => {
  const machine = await withDirectories(t);
  await machine.sim('make', '--stripes', '1');
  const before = await machine.memory();
  const mount = await mounted(t, machine, 'bindfs', ['--perms=go-rwx:fgo+r', machine.path('back')]);
  t.is(statSync(mount).mode & 0o777, 0o700);
  await machine.expect(0, ['backup', '-c', join(mount, 'b')]);
  t.is(statSync(join(mount, 'b', 'ae001100.dat')).mode & 0o777, 0o644);
  await machine.sim('remove');
  await machine.expect(0, ['restore', '--require-manifest', join(mount, 'b')]);
  t.is(await machine.memory(), before);
});

testAsRootWith('bindfs')('a file system that gives files to others, or to nobody, is refused', async (t) => {
  const machine = await withDirectories(t);
  await machine.sim('make', '--uid', '12345', '--gid', '12345');
  const mount = await mounted(t, machine, 'bindfs', ['--chown-deny', machine.path('back')]);
  const { error } = await machine.json(3, ['backup', join(mount, 'b')]);
  t.is(error?.code, 'modes-not-kept');
  t.regex(error?.message ?? '', /does not allow a file to be given to uid 12345 and gid 12345/);
  t.deepEqual(readdirSync(join(mount, 'b')), []);
});

testAsRootWith('bindfs')('without a rename that replaces nothing, a fresh backup is whole at once', async (t) => {
  const machine = await withDirectories(t);
  await machine.sim('make', '--stripes', '1');
  const before = await machine.memory();
  // Removed links are counted for as long as attributes are cached.
  const mount = await mounted(t, machine, 'bindfs', ['-o', 'attr_timeout=60', machine.path('back')]);
  const directory = join(mount, 'b');
  await machine.expect(0, ['backup', directory]);
  await machine.expect(0, ['verify', '--require-manifest', directory]);
  t.true(machine.names(directory).every((name) => !name.startsWith('.')));
  const { error } = await machine.json(3, ['backup', directory]);
  t.is(error?.code, 'backup-exists');
  await machine.sim('remove');
  await machine.expect(0, ['restore', directory]);
  t.is(await machine.memory(), before);
});

testAsRootWith('mount.exfat-fuse')('exFAT, which has no modes and no links, is taken where nobody else may enter', async (t) => {
  const machine = await withDirectories(t);
  await machine.sim('make', '--stripes', '1');
  const before = await machine.memory();
  execFileSync('truncate', ['-s', '64M', machine.path('disk')]);
  execFileSync('mkfs.exfat', [machine.path('disk')]);
  const loop = execFileSync('losetup', ['-f', '--show', machine.path('disk')], { encoding: 'utf8' }).trim();
  t.teardown(() => run('losetup', ['-d', loop]));
  const closed = machine.path('mount');
  const mount = async (umask: string) => {
    const done = await run('mount.exfat-fuse', ['-o', `rw,umask=${umask}`, loop, closed]);
    t.is(done.status, 0, show(done));
    t.teardown(() => run('umount', [closed]));
  };
  const directory = join(closed, 'b');
  await mount('0022');
  t.is((await machine.json(3, ['backup', directory])).error?.code, 'modes-not-kept');
  t.deepEqual(machine.names(directory), []);
  execFileSync('umount', [closed]);
  await mount('0077');
  await machine.expect(0, ['backup', '-c', directory]);
  await machine.expect(0, ['verify', directory]);
  await machine.sim('remove');
  await machine.expect(0, ['restore', '--require-manifest', directory]);
  t.is(await machine.memory(), before);
});
