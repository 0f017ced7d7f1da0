/**
 * Only trusted owners: who may write a backup, what may stand under its names, and where it may be.
 */

import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';

import test, { type ExecutionContext } from 'ava';

import { Machine, run, show, testAsRoot } from './helpers.ts';

async function rebooted(t: ExecutionContext) {
  const machine = await Machine.start(t);
  await machine.sim('make', '--stripes', '1', '--mode', '640');
  const before = await machine.memory();
  await machine.expect(0, ['backup', machine.path('b')]);
  await machine.sim('remove');
  return { machine, before, directory: machine.path('b') };
}

const READERS = ['restore', 'verify'] as const;

test('a directory that many write to is never to be closed to them', async (t) => {
  const { machine, directory } = await rebooted(t);
  chmodSync(directory, 0o1777);
  writeFileSync(machine.path('else'), '');
  for (const args of [
    ['restore', directory],
    ['verify', directory],
    ['retire', directory],
  ]) {
    const { error } = await machine.json(3, args);
    t.is(error?.code, 'writable-by-others');
    t.regex(error?.hint ?? '', /copy the files of the backup, and no others, into a new directory owned by root/);
    t.notRegex(error?.hint ?? '', /chmod|chown/);
  }
  // The command in the hint is the next step.
  const [, command = ''] =
    /use that directory: (.*)$/.exec((await machine.json(3, ['restore', directory])).error?.hint ?? '') ?? [];
  execFileSync('sh', ['-c', command.replaceAll('NEW', machine.path('new'))]);
  await machine.expect(0, ['restore', machine.path('new')]);
});

for (const mode of [0o770, 0o720, 0o702, 0o777]) {
  test(`a directory of mode ${mode.toString(8)} is refused, by whomever it is read or written`, async (t) => {
    const { machine, before, directory } = await rebooted(t);
    chmodSync(directory, mode);
    for (const verb of READERS) {
      const { error } = await machine.json(3, [verb, directory]);
      t.is(error?.code, 'writable-by-others');
      t.regex(error?.message ?? '', /\/b has mode 0\d{3}: users other than its owner may write to it; expected 0700/);
      t.regex(error?.hint ?? '', /chmod go-w .*\/b$/);
      t.is(await machine.memory(), '');
    }
    mkdirSync(machine.path('new'));
    chmodSync(machine.path('new'), mode);
    await machine.sim('make', '--stripes', '1', '--mode', '640');
    for (const args of [
      ['backup', machine.path('new')],
      ['backup', '-a', machine.path('new')],
    ]) {
      const { error } = await machine.json(3, args);
      t.is(error?.code, 'writable-by-others');
      t.is(error?.hint, 'choose another directory: asmt creates it with mode 0700');
      t.deepEqual(machine.names(machine.path('new')), []);
    }
    await machine.sim('remove');
    // The command in the hint is the next step.
    execFileSync('chmod', ['go-w', directory]);
    await machine.expect(0, ['restore', directory]);
    t.is(await machine.memory(), before);
  });
}

testAsRoot('a directory that belongs to somebody else is refused', async (t) => {
  const { machine, directory } = await rebooted(t);
  chownSync(directory, 12345, 12345);
  await machine.sim('make', '--instance', '1');
  for (const args of [
    ['restore', directory],
    ['verify', directory],
    ['backup', '-i', '1', directory],
  ]) {
    const { error } = await machine.json(3, args);
    t.is(error?.code, 'writable-by-others');
    t.regex(error?.message ?? '', /\/b is owned by uid 12345, .*; expected root$/);
  }
});

test("ASMT's files of 0666 are taken where nobody else may enter, and refused where others may", async (t) => {
  const machine = await Machine.start(t);
  const { directory, segments } = machine.golden('raw-index');
  for (const name of readdirSync(directory)) chmodSync(`${directory}/${name}`, 0o666);
  for (const mode of [0o701, 0o710, 0o755]) {
    chmodSync(directory, mode);
    for (const verb of READERS) {
      const { error } = await machine.json(3, [verb, directory]);
      t.is(error?.code, 'writable-by-others');
      t.regex(
        error?.message ?? '',
        /namespace 'test': others may have written to 4 of its files, the first is ae001000\.dat \(uid \d+, mode 0666\)/,
      );
      t.is(error?.file, 'ae001000.dat');
      t.is(await machine.memory(), '');
    }
  }
  chmodSync(directory, 0o700);
  await machine.expect(0, ['restore', directory]);
  t.is((await machine.memory()).replaceAll(' 666 ', ' 600 '), segments.replaceAll(' 666 ', ' 600 '));
});

testAsRoot(
  "a file or manifest of somebody else is refused where he may enter, and the segments' owner is none such",
  async (t) => {
    const machine = await Machine.start(t);
    await machine.sim('make', '--uid', '12345', '--gid', '12345');
    const before = await machine.memory();
    const directory = machine.path('b');
    await machine.expect(0, ['backup', directory]);
    await machine.sim('remove');
    chmodSync(directory, 0o755);
    await machine.expect(0, ['restore', directory]);
    t.is(await machine.memory(), before);
    await machine.sim('remove');
    for (const name of ['ae001100.dat', 'asmt-manifest-0-test.json']) {
      const { uid, gid } = lstatSync(`${directory}/${name}`);
      chownSync(`${directory}/${name}`, 54321, 54321);
      const { error } = await machine.json(3, ['restore', directory]);
      t.deepEqual([error?.code, error?.file], ['writable-by-others', name]);
      t.is(await machine.memory(), '');
      chownSync(`${directory}/${name}`, uid, gid);
    }
    await machine.expect(0, ['restore', directory]);
  },
);

test('verify goes on to read what others may have written, and lists its damage, too', async (t) => {
  const { machine, directory } = await rebooted(t);
  chmodSync(directory, 0o777);
  const bytes = readFileSync(`${directory}/ae001100.dat`);
  bytes[5] = (bytes[5] ?? 0) ^ 1;
  writeFileSync(`${directory}/ae001100.dat`, bytes);
  const { error } = await machine.json(5, ['verify', directory]);
  t.deepEqual(error?.problems.map(({ code }) => code).toSorted(), ['content-damaged', 'writable-by-others']);
});

/** Things that may be planted under a name. */
const plants: Readonly<Record<string, (path: string) => void>> = {
  'a symbolic link to a good file': (path) => {
    renameSync(path, `${path}.real`);
    symlinkSync(`${path}.real`, path);
  },
  'a symbolic link that leads nowhere': (path) => {
    unlinkSync(path);
    symlinkSync('/nowhere/at/all', path);
  },
  'a symbolic link to a device that never ends': (path) => {
    unlinkSync(path);
    symlinkSync('/dev/zero', path);
  },
  'a FIFO': (path) => {
    unlinkSync(path);
    execFileSync('mkfifo', [path]);
  },
  'a directory': (path) => {
    unlinkSync(path);
    mkdirSync(path);
  },
};

for (const [what, plant] of Object.entries(plants)) {
  for (const name of ['ae001000.dat', 'ae001100.dat', 'ad001000.dat', 'asmt-manifest-0-test.json']) {
    test(`planted as ${name}, ${what} is refused and never waited for`, async (t) => {
      const { machine, directory } = await rebooted(t);
      plant(`${directory}/${name}`);
      for (const verb of READERS) {
        const { error } = await machine.json(5, [verb, directory]);
        const found = error?.problems.filter(({ file }) => file === name) ?? [];
        t.deepEqual(
          found.map(({ code }) => code),
          ['unsafe-file'],
          JSON.stringify(error),
        );
        t.is(await machine.memory(), '');
      }
      // They are in the way of the next backup, which does not remove them.
      await machine.sim('make', '--stripes', '1', '--mode', '640');
      await machine.expect(3, ['backup', directory]);
      t.true(lstatSync(`${directory}/${name}`) !== undefined);
    });
  }
}

testAsRoot('planted devices and sockets are refused and never waited for', async (t) => {
  const { machine, directory } = await rebooted(t);
  renameSync(`${directory}/ae001100.dat`, machine.path('kept'));
  for (const make of [
    ['mknod', `${directory}/ae001100.dat`, 'c', '1', '5'],
    ['mknod', `${directory}/ae001100.dat`, 'b', '240', '7'],
    [
      'python3',
      '-c',
      'import socket,sys,os; os.chdir(sys.argv[1]); socket.socket(socket.AF_UNIX).bind("ae001100.dat")',
      directory,
    ],
  ]) {
    const [program = '', ...args] = make;
    execFileSync(program, args);
    for (const verb of READERS) {
      const { error } = await machine.json(5, [verb, directory]);
      t.deepEqual([error?.code, error?.file, error?.segment], ['unsafe-file', 'ae001100.dat', 'ae001100']);
      t.is(await machine.memory(), '');
    }
    unlinkSync(`${directory}/ae001100.dat`);
  }
});

/** The name of a temporary, and of a journal, of a run that ended before this boot. */
const DEAD = `${'0'.repeat(32)}-4026531836-7-11`;

for (const name of [`.asmt-tmp.${DEAD}.ae001100.dat`, `.asmt-run.${DEAD}`]) {
  test(`planted as ${name.slice(0, 9)}…, nothing but a file is swept, and nothing else waited for`, async (t) => {
    const machine = await Machine.start(t);
    await machine.sim('make');
    const directory = machine.path('b');
    mkdirSync(directory, 0o700);
    for (const [what, plant] of [
      ['link', (path: string) => symlinkSync('/dev/zero', path)],
      ['fifo', (path: string) => void execFileSync('mkfifo', [path])],
      ['directory', (path: string) => mkdirSync(path)],
    ] as const) {
      plant(`${directory}/${name}`);
      const { error } = await machine.json(5, ['backup', directory]);
      t.deepEqual([error?.code, error?.file], ['unsafe-file', name], what);
      t.deepEqual(machine.names(directory), [name], what);
      await machine.expect(7, ['verify', directory]);
      await run('rm', ['-r', `${directory}/${name}`]);
    }
    // A killed run leaves such a file.
    writeFileSync(`${directory}/${name}`, '{"namespaces":[]}', { mode: 0o600 });
    await machine.expect(0, ['backup', directory]);
    t.false(machine.names(directory).includes(name));
  });
}

test('a FIFO in the place of the lock or of a journal is refused and never waited for', async (t) => {
  const { machine, before, directory } = await rebooted(t);
  const lock = machine.names(machine.path('run')).find((name) => name.endsWith('-instance-0.lock')) ?? '';
  unlinkSync(machine.path('run', lock));
  const journal = `restore-${lock.slice(0, -'.lock'.length)}-${DEAD}`;
  for (const name of [lock, journal]) {
    execFileSync('mkfifo', [machine.path('run', name)]);
    const { error } = await machine.json(1, ['restore', directory]);
    t.true(['unsafe-runtime', 'system-call'].includes(error?.code ?? ''), JSON.stringify(error));
    t.true(error?.message.includes(name), JSON.stringify(error));
    t.is(await machine.memory(), '');
    unlinkSync(machine.path('run', name));
  }
  await machine.expect(0, ['restore', directory]);
  t.is(await machine.memory(), before);
});

test('the directory may be named by a symbolic link', async (t) => {
  const { machine, before, directory } = await rebooted(t);
  symlinkSync(directory, machine.path('link'));
  await machine.expect(0, ['restore', machine.path('link')]);
  t.is(await machine.memory(), before);
});

testAsRoot('a directory that a boot empties is refused for a backup, and taken with --allow-volatile', async (t) => {
  const machine = await Machine.startHost(t);
  await machine.sim('make');
  const emptied = machine.path('emptied');
  mkdirSync(emptied, 0o700);
  mkdirSync(machine.path('etc', 'tmpfiles.d'), { recursive: true });
  writeFileSync(machine.path('etc', 'tmpfiles.d', 'own.conf'), `D ${emptied} 0700 root root -\n`);
  symlinkSync(emptied, machine.path('link'));
  for (const directory of [emptied, `${emptied}/b`, `${machine.path('link')}/b`]) {
    for (const words of [['backup'], ['backup', '-a']]) {
      const { error } = await machine.json(3, [...words, directory]);
      t.is(error?.code, 'volatile-directory');
      t.regex(error?.message ?? '', /is emptied at boot, as configured in \/etc\/tmpfiles.d\/own.conf/);
    }
  }
  await machine.expect(0, ['backup', machine.path('b')]);
  const done = await machine.expect(0, ['backup', '--allow-volatile', `${emptied}/b`]);
  t.regex(done.stderr, /note: .* is emptied at boot/, show(done));
});

testAsRoot('a file system in memory is refused for a backup, and taken with --allow-volatile', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make', '--stripes', '1');
  const before = await machine.memory();
  for (const kind of ['tmpfs', 'ramfs']) {
    const mount = machine.path(kind);
    mkdirSync(mount, 0o700);
    const mounted = await run('mount', ['-t', kind, '-o', 'mode=0700', kind, mount]);
    t.is(mounted.status, 0, show(mounted));
    t.teardown(() => run('umount', [mount]));
    for (const args of [
      ['backup', mount],
      ['backup', `${mount}/b`],
      ['backup', '-a', `${mount}/b`],
    ]) {
      const { error } = await machine.json(3, args);
      t.is(error?.code, 'volatile-directory');
      t.regex(error?.message ?? '', new RegExp(`is on a ${kind}, which is in memory and is empty after a reboot`));
      t.regex(error?.hint ?? '', /--allow-volatile/);
      t.deepEqual(machine.names(mount), []);
    }
    t.is((await machine.asmt(['-b', '-p', `${mount}/b`])).status, 1);
    const done = await machine.expect(0, ['backup', '--allow-volatile', `${mount}/b`]);
    t.regex(done.stderr, new RegExp(`note: .* is on a ${kind}`), show(done));
    // The backup there is as good as any other.
    await machine.sim('remove');
    await machine.expect(0, ['restore', '--require-manifest', `${mount}/b`]);
    t.is(await machine.memory(), before);
  }
});

test('temporaries of a live run are left alone, those of a dead one swept', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make');
  const directory = machine.path('b');
  mkdirSync(directory, 0o700);
  const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').replaceAll(/[^0-9a-f]/g, '');
  const ticks = (pid: number) => readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ')[19] ?? '';
  const pidNamespace = statSync('/proc/self/ns/pid').ino;
  const temporary = (words: readonly (string | number)[]) => `.asmt-tmp.${words.join('-')}.ae001100.dat`;
  const live = temporary([boot, pidNamespace, process.pid, ticks(process.pid)]);
  writeFileSync(`${directory}/${live}`, 'x', { mode: 0o600 });
  for (const args of [
    ['backup', directory],
    ['backup', '-a', directory],
    ['restore', directory],
  ]) {
    const { error } = await machine.json(3, args);
    t.is(error?.code, 'another-asmt');
    t.regex(error?.message ?? '', new RegExp(`another asmt \\(pid ${process.pid}\\) is using the directory`));
    t.deepEqual(machine.names(directory), [live]);
  }
  unlinkSync(`${directory}/${live}`);
  const dead = [
    // Readers in other time namespaces may see a start that is one tick earlier or later, but not
    // two.
    [boot, pidNamespace, process.pid, Number(ticks(process.pid)) + 2],
    ['0'.repeat(32), pidNamespace, process.pid, ticks(process.pid)],
    // A run of another container on this machine: the holder of the directory's lock knows that it
    // has ended.
    [boot, '17', process.pid, ticks(process.pid)],
  ].map(temporary);
  for (const name of dead) writeFileSync(`${directory}/${name}`, 'x', { mode: 0o600 });
  // A name that is no run's is left alone.
  writeFileSync(`${directory}/.asmt-tmp.notes`, 'x', { mode: 0o600 });
  // It takes the lock, too: a run that cannot be seen has ended.
  await machine.expect(0, ['backup', '-a', directory]);
  const done = await machine.expect(0, ['backup', '-v', directory]);
  t.regex(done.stderr, /removed 3 files left by an interrupted backup/, show(done));
  t.deepEqual(
    machine.names(directory).filter((name) => name.startsWith('.')),
    ['.asmt-tmp.notes'],
  );
  t.true(existsSync(`${directory}/ae001000.dat`));
});

test('namespaces that could be dealt with without those that are refused are named, with the command', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make', '--name', 'bad', '--nsid', '1', '--shutdown', '0');
  await machine.sim('make', '--name', 'good', '--nsid', '2');
  await machine.sim('make', '--name', 'fine', '--nsid', '3');
  await machine.sim('make', '--name', 'other', '--instance', '1');
  const directory = machine.path('b');
  const refused = await machine.expect(3, ['backup', '-z', directory]);
  const command = `asmt backup -z -n fine,good ${directory}`;
  t.true(
    refused.stderr.endsWith(
      `HINT: fine, good can be backed up without the others, whose data in memory is lost at the reboot: ${command}\n`,
    ),
    show(refused),
  );
  t.deepEqual((await machine.json(3, ['backup', '-a', directory])).report?.possible, ['fine', 'good']);
  const done = await machine.expect(0, ['backup', '-n', 'fine,good', directory]);
  t.notRegex(done.stderr, /left out/, 'what was asked for by name leaves nothing out');
  writeFileSync(machine.config, 'namespace good {\n}\nnamespace fine {\n}\nnamespace gone {\n}\n');
  await machine.sim('remove');
  const damaged = `${directory}/ae002100.dat`;
  writeFileSync(damaged, readFileSync(damaged).subarray(4096));
  const damage = await machine.expect(5, ['restore', directory]);
  const without = 'can be restored without the others, which the server would then cold-start';
  t.true(damage.stderr.endsWith(`HINT: fine ${without}: asmt restore -n fine ${directory}\n`), show(damage));
  t.regex(
    damage.stderr,
    /note: configured but not in the directory, and therefore left out: gone \(instance 0\)\n/,
    show(damage),
  );
  await machine.expect(0, ['restore', '-n', 'fine', directory]);
  // A single namespace leaves no choice.
  const alone = await machine.expect(5, ['restore', '-n', 'good', directory]);
  t.notRegex(alone.stderr, /without the others/, show(alone));
});

testAsRoot('an IPC namespace that ends with asmt is noticed, and uses no backup up', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make');
  const before = await machine.memory();
  const directory = machine.path('b');
  await machine.expect(0, ['backup', directory]);
  await machine.sim('remove');
  const alone = (words: string[]) => machine.exec('unshare', ['--ipc', '--', process.execPath, 'dist/main.js', ...words]);
  const nothing = await alone(['backup', machine.path('c')]);
  t.is(nothing.status, 7, show(nothing));
  t.regex(nothing.stderr, /asmt is alone in its IPC namespace.*\nHINT: run asmt in the server's IPC namespace/, show(nothing));
  const refused = await alone(['restore', directory]);
  t.is(refused.status, 3, show(refused));
  t.regex(refused.stderr, /asmt is alone in its IPC namespace, which ends when asmt exits/, show(refused));
  t.is((await alone(['restore', '-a', directory])).status, 3);
  t.false(existsSync(`${directory}/asmt-used-0-test.json`));
  const meant = await alone(['restore', '--allow-private-ipc', '-a', directory]);
  t.is(meant.status, 0, show(meant));
  t.regex(meant.stderr, /note: asmt is alone/, show(meant));
  // A namespace that is mounted, or that has another process in it, stays.
  await machine.expect(0, ['restore', directory]);
  t.is(await machine.memory(), before);
});
