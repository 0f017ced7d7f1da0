/** `asmt backup`: the files that it writes, and the refusals before it writes any. */

import { createHash } from 'node:crypto';
import {
  chmodSync,
  chownSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  rmSync,
  readdirSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { gunzipSync } from 'node:zlib';

import test from 'ava';

import { IS_REAL_ROOT, MAIN, Machine, run, show, SIM, testAsRoot } from './helpers.ts';

/** The files of a backup, by name: size, mode and owner. */
function look(directory: string): Record<string, string> {
  return Object.fromEntries(
    readdirSync(directory).map((name) => {
      const stat = lstatSync(`${directory}/${name}`);
      return [name, `${stat.size} ${(stat.mode & 0o7777).toString(8)} ${stat.uid}:${stat.gid}`];
    }),
  );
}

test('plain: a file a segment, 0600 with its owner, a manifest, in a directory of 0700', async (t) => {
  const machine = await Machine.start(t);
  const owner = IS_REAL_ROOT ? ['--uid', '12345', '--gid', '12346'] : [];
  const [uid, gid] = IS_REAL_ROOT ? [12345, 12346] : [0, 0];
  await machine.sim('make', '--name', 'test', ...owner, '--mode', '666');
  const before = await machine.memory();
  const directory = machine.path('b');
  writeFileSync(machine.config, 'namespace test {\n}\n');
  const done = await machine.expect(0, ['backup', directory]);
  t.regex(done.stdout, /namespace test of instance 0: 4 segments, 2\.25 MiB/, show(done));
  t.regex(done.stdout, /backed up 1 namespace to .*\/b: 2\.25 MiB.* in .* s, .*\/s\n$/, show(done));
  t.is(done.stderr, '', show(done));
  t.is(statSync(directory).mode & 0o7777, 0o700);
  const { 'asmt-manifest-0-test.json': manifest, ...files } = look(directory);
  t.deepEqual(files, {
    'ae001000.dat': `65536 600 ${uid}:${gid}`,
    'ae001001.dat': `196608 600 ${uid}:${gid}`,
    'ae001100.dat': `1048576 600 ${uid}:${gid}`,
    'ae001101.dat': `1048576 600 ${uid}:${gid}`,
  });
  t.regex(manifest ?? '', / 600 /);
  t.is(await machine.memory(), before);
});

test('-z: base and si-meta plain, the rest one gzip member behind 24 bytes', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make', '--si-stages', '1', '--stripes', '2');
  await machine.expect(0, ['backup', machine.path('plain')]);
  await machine.expect(0, ['backup', '-z', machine.path('z')]);
  const names = machine.names(machine.path('z'));
  t.deepEqual(
    names.filter((name) => !name.startsWith('asmt-manifest')),
    [
      'a2001000.dat',
      'a2001100.dat.gz',
      'ad001000.dat.gz',
      'ad001001.dat.gz',
      'ae001000.dat',
      'ae001001.dat.gz',
      'ae001100.dat.gz',
      'ae001101.dat.gz',
    ],
  );
  for (const name of names.filter((candidate) => candidate.endsWith('.gz'))) {
    const file = readFileSync(machine.path('z', name));
    const plain = readFileSync(machine.path('plain', name.slice(0, -3)));
    t.is(file.toString('latin1', 0, 4), 'ASMT');
    t.is(file.readUInt32LE(4), 1);
    t.is(file.readBigUInt64LE(8), BigInt(plain.length));
    const crc = await run('python3', [
      '-c',
      'import sys,zlib;print(zlib.crc32(open(sys.argv[1],"rb").read()))',
      machine.path('plain', name.slice(0, -3)),
    ]);
    t.is(file.readBigUInt64LE(16), BigInt(crc.stdout.trim()));
    // Node's gunzip continues with further members: its output must be the whole segment, and there
    // must be only one member.
    t.true(gunzipSync(file.subarray(24)).equals(plain), name);
    const members = await run('python3', [
      '-c',
      'import sys,zlib;d=zlib.decompressobj(31);d.decompress(open(sys.argv[1],"rb").read()[24:]);print(d.eof,len(d.unused_data))',
      machine.path('z', name),
    ]);
    t.is(members.stdout, 'True 0\n', name);
  }
});

test('-t: the files do not depend on the number of threads', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make', '--stage-size', '8MiB', '--si-stages', '2', '--si-fill', '0.9');
  writeFileSync(machine.config, 'namespace test {\n}\n');
  const hash = (directory: string) =>
    machine
      .names(directory)
      .filter((name) => /\.dat(\.gz)?$/.test(name))
      .map((name) => [
        name,
        createHash('sha256')
          .update(readFileSync(`${directory}/${name}`))
          .digest('hex'),
      ]);
  for (const threads of ['1', '2', '7', '1024']) {
    const done = await machine.expect(0, ['backup', '-z', `-t${threads}`, machine.path(`z${threads}`)]);
    t.is(done.stderr, '', show(done));
  }
  for (const threads of ['2', '7', '1024']) t.deepEqual(hash(machine.path(`z${threads}`)), hash(machine.path('z1')));
});

test('-c reads every file back from the disk', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make');
  const done = await machine.expect(0, ['backup', '-c', '-v', machine.path('b')]);
  for (const key of ['ae001000', 'ae001001', 'ae001100', 'ae001101']) {
    t.regex(done.stderr, new RegExp(`asmt: wrote ${key}\\.dat`), show(done));
    t.regex(done.stderr, new RegExp(`asmt: read ${key}\\.dat`), show(done));
  }
});

test('-v: the table with checksums on standard output, events on standard error', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make');
  const done = await machine.expect(0, ['backup', '-v', machine.path('b')]);
  const crcs = (await machine.memory())
    .trim()
    .split('\n')
    .map((line) => line.split(' ')[2]);
  for (const crc of crcs) t.regex(done.stdout, new RegExp(` ${crc}\n`), show(done));
  t.regex(done.stderr, /asmt: reserved \d+ bytes for 4 files\n/, show(done));
  t.regex(done.stderr, /asmt: published base, which commits: 1\n/, show(done));
});

test('-a shows the plan and does nothing: not even the directory is made', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make');
  for (const args of [
    ['backup', '-a'],
    ['backup', '--dry-run'],
    ['-ba', '-p'],
  ]) {
    const done = await machine.expect(0, [...args, machine.path('b')]);
    t.regex(done.stdout, /\n0xae001101 +ae001101\.dat +1\.00 MiB +test +pi-stage +1\n/, show(done));
    t.regex(done.stdout, /backup would be possible: 1 namespace, 4 segments, 2\.25 MiB, to .*nothing was done\n/, show(done));
  }
  const verbose = await machine.expect(0, ['-bavzi0', '-ntest', '-t2', '-p', machine.path('b')]);
  t.regex(verbose.stdout, /to run it: asmt -b -z -t 2 -n test -p .*\/b\n/, show(verbose));
  t.deepEqual(machine.names(machine.directory), ['run']);
  // If there is a reason to refuse, the plan is shown all the same, and the exit status is that of
  // the refusal.
  await machine.sim('poke', '--key', 'ae001000', '--offset', '4', '--hex', '00');
  const refused = await machine.expect(3, ['backup', '-a', machine.path('b')]);
  t.regex(refused.stdout, /ae001101\.dat/, show(refused));
  t.regex(refused.stderr, /base has shutdown status 0, expected 1/, show(refused));
});

test('-n and -i choose; every namespace of the instance is the default', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make', '--name', 'a', '--nsid', '1');
  await machine.sim('make', '--name', 'b', '--nsid', '2');
  await machine.sim('make', '--name', 'c', '--nsid', '1', '--instance', '15');
  await machine.expect(0, ['backup', '-n', 'b', machine.path('b')]);
  t.is(machine.names(machine.path('b')).filter((name) => name.startsWith('ae002')).length, 4);
  await machine.expect(0, ['backup', machine.path('all')]);
  t.is(machine.names(machine.path('all')).filter((name) => name.endsWith('.dat')).length, 8);
  await machine.expect(0, ['backup', '-i15', machine.path('all')]);
  t.deepEqual(
    machine.names(machine.path('all')).filter((name) => name.endsWith('.json')),
    ['asmt-manifest-0-a.json', 'asmt-manifest-0-b.json', 'asmt-manifest-15-c.json'],
  );
  t.regex(
    (await machine.expect(7, ['backup', '-n', 'x', machine.path('x')])).stderr,
    /namespace 'x' .* found: a, b \(instance 0\), c \(instance 15\)\nHINT: /,
  );
  t.regex((await machine.expect(3, ['backup', '-n', 'a,x', machine.path('x')])).stderr, /namespace 'x'/);
  t.regex((await machine.expect(7, ['backup', '-i2', machine.path('x')])).stderr, /nothing of instance 2/);
  t.deepEqual(machine.names(machine.path('x')), []);
});

interface Refusal {
  readonly what: string;
  readonly make?: readonly string[];
  readonly spoil: readonly (readonly string[])[];
  readonly code: string;
  readonly message: RegExp;
}

const key = (name: string) => ['--key', name];
const refusals: Refusal[] = [
  {
    what: 'not cleanly shut down',
    spoil: [['poke', ...key('ae001000'), '--offset', '4', '--hex', '00000000']],
    code: 'not-cleanly-shut-down',
    message: /shutdown status 0, expected 1/,
  },
  {
    what: 'any other shutdown status',
    spoil: [['poke', ...key('ae001000'), '--offset', '4', '--hex', '02']],
    code: 'not-cleanly-shut-down',
    message: /shutdown status 2, expected 1/,
  },
  { what: 'version 9', make: ['--version', '9'], spoil: [], code: 'unknown-version', message: /version 9, expected 10 to 12/ },
  { what: 'version 13', make: ['--version', '13'], spoil: [], code: 'unknown-version', message: /version 13, expected 10 to 12/ },
  { what: 'no base', spoil: [['remove', ...key('ae001000')]], code: 'segments-incomplete', message: /base .* is missing/ },
  {
    what: 'no base, but stripes',
    make: ['--stripes', '2'],
    spoil: [['remove', ...key('ae001000')]],
    code: 'segments-incomplete',
    message: /namespace 'test': base .* is missing/,
  },
  { what: 'no treex', spoil: [['remove', ...key('ae001001')]], code: 'segments-incomplete', message: /treex .* is missing/ },
  {
    what: 'no first stage',
    spoil: [['remove', ...key('ae001100')]],
    code: 'segments-incomplete',
    message: /1 of 2 primary stages .* first is stage 0/,
  },
  { what: 'no last stage', spoil: [['remove', ...key('ae001101')]], code: 'segments-incomplete', message: /first is stage 1/ },
  {
    what: 'a stage too many',
    spoil: [['poke', ...key('ae001000'), '--offset', '2152', '--hex', '01']],
    code: 'segments-incomplete',
    message: /1 primary stages more than the 1 counted/,
  },
  {
    what: 'no si-meta',
    make: ['--si-stages', '2'],
    spoil: [['remove', ...key('a2001000')]],
    code: 'segments-incomplete',
    message: /si-meta .* is missing/,
  },
  {
    what: 'no secondary stage',
    make: ['--si-stages', '2'],
    spoil: [['remove', ...key('a2001100')]],
    code: 'segments-incomplete',
    message: /1 of 2 secondary stages/,
  },
  {
    what: 'si-meta that counts none',
    make: ['--si-stages', '1'],
    spoil: [
      ['poke', ...key('a2001000'), '--offset', '20', '--hex', '00'],
      ['remove', ...key('a2001100')],
    ],
    code: 'segments-incomplete',
    message: /counts 0 secondary stages/,
  },
  {
    what: 'no second stripe',
    make: ['--stripes', '2'],
    spoil: [['remove', ...key('ad001001')]],
    code: 'set-torn',
    message: /data stripe ad001000 counts 2 data stripes, found 1/,
  },
  {
    what: 'stripes of two sets',
    make: ['--stripes', '2'],
    spoil: [['poke', ...key('ad001001'), '--offset', '48', '--hex', '00']],
    code: 'set-torn',
    message: /data stripes belong to two sets: ad001000 has random [0-9a-f]{16}, ad001001 has/,
  },
  {
    what: 'stripes that are not trusted',
    make: ['--stripes', '2', '--no-index', '--untrusted'],
    spoil: [],
    code: 'set-torn',
    message: /ad001000 is not marked as trusted: the server did not stop cleanly \(2 of 2 data stripes\)/,
  },
];

for (const { what, make = [], spoil, code, message } of refusals) {
  test(`refused, and nothing is written: ${what}`, async (t) => {
    const machine = await Machine.start(t);
    await machine.sim('make', ...make);
    // A whole namespace is not backed up without the other one.
    await machine.sim('make', '--name', 'whole', '--nsid', '2');
    for (const words of spoil) await machine.sim(...words);
    const before = await machine.memory();
    const outcome = await machine.json(3, ['backup', machine.path('b')]);
    t.is(outcome.error?.kind, 'refused');
    t.true(
      outcome.error?.problems.some((problem) => problem.code === code && message.test(problem.message)),
      JSON.stringify(outcome.error),
    );
    t.true(outcome.error?.problems.every((problem) => problem.hint !== ''));
    const asmtForm = await machine.expect(1, ['-b', '-p', machine.path('b')]);
    t.regex(asmtForm.stderr, message, show(asmtForm));
    t.regex(asmtForm.stderr, /HINT: /);
    t.deepEqual(machine.names(machine.directory), ['run']);
    t.is(await machine.memory(), before);
    await machine.expect(0, ['backup', '-n', 'whole', machine.path('b')]);
  });
}

test('refused: attached segments, naming the process', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make');
  const holder = await machine.hold('ae001100');
  const done = await machine.expect(3, ['backup', machine.path('b')]);
  t.regex(
    done.stderr,
    new RegExp(
      `1 of 4 segments attached \\(the first is ae001100\\), expected none; attached by pid ${holder.pid} \\(asmt-sim\\)\nHINT: `,
    ),
    show(done),
  );
  t.deepEqual(machine.names(machine.directory), ['run']);
  await holder.end();
  await machine.expect(0, ['backup', machine.path('b')]);
});

test('refused: a running server, which is told from another process', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make');
  await run('cp', [SIM, machine.path('asd')]);
  const server = await machine.start(machine.path('asd'), ['hold'], 'ready');
  const done = await machine.expect(3, ['backup', machine.path('b')]);
  t.regex(done.stderr, new RegExp(`by pid ${server.pid} \\(asd\\)\nHINT: the server is running: stop it`), show(done));
});

test('refused: files of the same instance and nsid, whoever made them', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make');
  await machine.expect(0, ['backup', machine.path('b')]);
  const before = look(machine.path('b'));
  const done = await machine.expect(3, ['backup', machine.path('b')]);
  t.regex(
    done.stderr,
    /error: \S+\/b already contains a backup of namespace 'test' \(20\d\d-\d\d-\d\d, not restored yet\): 5 files, the first is ae001000\.dat\nHINT: .*do not remove it\n/,
    show(done),
  );
  t.deepEqual(look(machine.path('b')), before);
  mkdirSync(machine.path('other'), 0o700);
  for (const name of ['AE001101.dat.gz', 'ad001007.dat', 'a2001000.dat']) {
    writeFileSync(machine.path('other', name), 'x', { mode: 0o600 });
    await machine.expect(3, ['backup', machine.path('other')]);
    await run('rm', [machine.path('other', name)]);
  }
  symlinkSync('/nowhere', machine.path('other', 'ae001100.dat'));
  await machine.expect(3, ['backup', machine.path('other')]);
  await run('rm', [machine.path('other', 'ae001100.dat')]);
  // Files of other instances, nsids and names do not matter.
  for (const name of ['ae101000.dat', 'ae002000.dat', 'ae001000.bak', 'ae001002.dat', 'notes.txt'])
    writeFileSync(machine.path('other', name), 'x', { mode: 0o600 });
  await machine.expect(0, ['backup', machine.path('other')]);
});

testAsRoot('no room: found while reserving, before a byte is copied, and nothing is left', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make', '--stage-size', '8MiB', '--fill', '1', '--stripes', '4');
  const [image, mount] = [machine.path('image'), machine.path('mount')];
  mkdirSync(mount);
  await run('truncate', ['-s', '12M', image]);
  await run('mkfs.ext4', ['-q', image]);
  const mounted = await run('mount', ['-o', 'loop', image, mount]);
  t.is(mounted.status, 0, show(mounted));
  t.teardown(() => run('umount', [mount]));
  const before = machine.names(mount);
  for (const args of [['backup'], ['-b', '-p']]) {
    const done = await machine.expect(args.includes('-b') ? 1 : 6, [...args, `${mount}/b`]);
    t.regex(done.stderr, /error: no room in .*: the files need at least \d+ bytes, and \d+ are free\nHINT: free space/);
    t.notRegex((await machine.expect(args.includes('-b') ? 1 : 6, ['-a', ...args, `${mount}/b`])).stdout, /possible/);
  }
  // Compressed files may fit: that is only known when they are written, and then nothing is left
  // either.
  const free = Number((await run('df', ['--output=avail', '-B1', mount])).stdout.trim().split('\n')[1]);
  await run('fallocate', ['-l', String(free - 5 * 2 ** 20), `${mount}/filler`]);
  const compressed = await machine.expect(6, ['backup', '-z', `${mount}/b`]);
  t.regex(compressed.stderr, /note: .*whether they fit is known only once they are written/, show(compressed));
  t.regex(compressed.stderr, /error: write .*: no space left on device\nHINT: free space/, show(compressed));
  t.deepEqual(machine.names(`${mount}/b`), []);
  rmSync(`${mount}/b`, { recursive: true });
  rmSync(`${mount}/filler`);
  t.deepEqual(machine.names(mount), before);
  // A backup that fits goes there afterwards.
  await machine.expect(0, ['backup', '-n', 'test', machine.path('elsewhere')]);
});

testAsRoot('without rights: each missing permission has its message', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make', '--mode', '600');
  chmodSync(machine.directory, 0o1777);
  mkdirSync(machine.path('own-run'), 0o700);
  chownSync(machine.path('own-run'), 65534, 65534);
  const env = { ASMT_RUNTIME_DIR: machine.path('own-run') };
  const as = (uid: number, args: string[]) =>
    machine.exec('setpriv', [`--reuid=${uid}`, `--regid=${uid}`, '--clear-groups', process.execPath, MAIN, ...args], { env });
  const denied = await as(65534, ['backup', machine.path('b')]);
  t.is(denied.status, 1, show(denied));
  t.regex(
    denied.stderr,
    /segment ae001000 is owned by uid 0 with mode 0600, and uid 65534 may not read it\nHINT: run asmt as root, or as the owner/,
    show(denied),
  );
  const listed = await as(65534, ['list']);
  t.is(listed.status, 0, show(listed));
  t.regex(listed.stdout, /cannot be read/, show(listed));
  // The owner does not need root.
  await machine.sim('remove');
  await machine.sim('make', '--uid', '65534', '--gid', '65534', '--mode', '600');
  const own = await as(65534, ['backup', machine.path('own')]);
  t.is(own.status, 0, show(own));
  mkdirSync(machine.path('shut'), 0o755);
  const shut = await as(65534, ['backup', machine.path('shut')]);
  t.is(shut.status, 1, show(shut));
  t.regex(shut.stderr, /no permission to write to directory .*shut\nHINT: run asmt as root/, show(shut));
  await machine.sim('remove');
  const back = await as(65534, ['restore', machine.path('own')]);
  t.is(back.status, 0, show(back));
  t.regex(await machine.memory(), /ae001000 65536 \w+ 65534 65534 600 0\n/);
});
