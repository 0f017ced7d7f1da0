/**
 * `asmt restore` and `asmt verify`: the segments that come back, and the refusals before a segment
 * is made.
 */

import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';

import test, { type ExecutionContext } from 'ava';

import type { Outcome } from '../src/outcome.ts';
import { IS_REAL_ROOT, Machine, run, show, testTraced } from './helpers.ts';

/** A machine whose namespace was backed up, and then lost, as after a reboot. */
async function rebooted(t: ExecutionContext, make: readonly string[] = [], backup: readonly string[] = []) {
  const machine = await Machine.start(t);
  const owner = IS_REAL_ROOT ? ['--uid', '12345', '--gid', '12346', '--mode', '640'] : [];
  await machine.sim('make', '--si-stages', '1', '--stripes', '3', ...owner, ...make);
  const before = await machine.memory();
  await machine.expect(0, ['backup', ...backup, machine.path('b')]);
  await machine.sim('remove');
  return { machine, before, directory: machine.path('b') };
}

for (const backup of [[], ['-z'], ['-c'], ['-zc']]) {
  test(`what was backed up with ${backup.join('') || 'nothing more'} comes back to the last byte, with owner, group and mode`, async (t) => {
    const { machine, before, directory } = await rebooted(t, ['--data-nsid', '5'], backup);
    for (const args of [
      ['restore', directory],
      ['restore', '-c', directory],
      ['restore', '-t1', '-n', 'test', directory],
      ['-rvp', directory],
      ['-rzc', '-n', 'test', '-p', directory],
    ]) {
      const done = await machine.expect(0, args);
      t.regex(done.stdout, /restored 1 namespace from .*\/b: /, show(done));
      t.is(await machine.memory(), before, show(done));
      await machine.sim('remove');
    }
    const verified = await machine.expect(0, ['verify', '-c', directory]);
    t.regex(verified.stdout, /verified 1 namespace in .*\/b: /, show(verified));
    t.is(await machine.memory(), '');
  });
}

test('untouched memory stays untouched', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make', '--stage-size', '16MiB', '--fill', '0.1', '--stripes', '2');
  const before = await machine.sim('sum', '--resident');
  for (const args of [['backup'], ['backup', '-z']]) {
    const directory = machine.path(args.join(''));
    await machine.expect(0, [...args, directory]);
    t.is(await machine.sim('sum', '--resident'), before);
    await machine.sim('remove');
    await machine.expect(0, ['restore', directory]);
    const after = await machine.sim('sum', '--resident');
    const columns = (text: string, from: number, to?: number) =>
      text
        .trim()
        .split('\n')
        .map((line) => line.split(' ').slice(from, to).join(' '));
    t.deepEqual(columns(after, 0, 7), columns(before, 0, 7));
    const resident = (text: string) => columns(text, 7).reduce((sum, bytes) => sum + Number(bytes), 0);
    // Pages that hold only zeros need not come back as pages.
    t.true(resident(after) <= resident(before), `${resident(after)} ${resident(before)}`);
  }
});

test('-z with a restore is remarked on; nothing else but that there is no proof goes to standard error', async (t) => {
  const { machine, directory } = await rebooted(t);
  const done = await machine.expect(0, ['-rzp', directory]);
  t.regex(
    done.stderr,
    /^asmt: note: -z has no effect on restore: compressed files are detected automatically\nasmt: note: .*there is no proof that the server has not run .*\n$/,
    show(done),
  );
});

test('-a shows the plan and makes nothing', async (t) => {
  const { machine, directory } = await rebooted(t);
  const done = await machine.expect(0, ['restore', '-av', directory]);
  t.regex(done.stdout, /\nad001002\.dat +0xad001002 +1\.00 MiB +test +data-stage +2\n/, show(done));
  t.regex(done.stdout, /nothing was done\nto run it: asmt restore .*\/b\n/, show(done));
  t.is(await machine.memory(), '');
  t.regex((await machine.expect(0, ['verify', '-a', directory])).stdout, /nothing was done/);
});

test('refused: segments of the namespace are in memory', async (t) => {
  const { machine, directory } = await rebooted(t);
  await machine.sim('make', '--no-index', '--name', 'test', '--nsid', '9', '--stripes', '1');
  const before = await machine.memory();
  const done = await machine.expect(3, ['restore', directory]);
  t.regex(
    done.stderr,
    /1 of its segments are in memory, the first is ad009000 .*; expected none\nHINT: the server has run since .*: do not restore it; .* leave the segments as they are, and ask Aerospike support/,
    show(done),
  );
  t.is(await machine.memory(), before);
  const holder = await machine.hold();
  // The directory has noted that there were segments of the namespace that another process had
  // made: probably a server.
  const { stderr } = await machine.expect(4, ['restore', directory]);
  t.regex(stderr, new RegExp(`attached .* by pid ${holder.pid}`));
  t.regex(stderr, /segments that a server had created or used were in memory then: it seems to have run since/);
  await holder.end();
  await machine.sim('remove');
  await machine.expect(4, ['restore', directory]);
  unlinkSync(`${directory}/asmt-used-0-test.json`);
  // Another instance's segments are not in the way.
  await machine.sim('make', '--name', 'test', '--instance', '4');
  await machine.expect(0, ['restore', directory]);
});

interface Damage {
  readonly what: string;
  readonly spoil: (path: (name: string) => string) => void;
  readonly code: string;
  readonly message: RegExp;
  readonly backup?: readonly string[];
}

const flip = (file: string, offset: number) => {
  const bytes = readFileSync(file);
  const at = offset < 0 ? bytes.length + offset : offset;
  bytes[at] = (bytes[at] ?? 0) ^ 1;
  writeFileSync(file, bytes);
};

const damages: Damage[] = [
  {
    what: 'a byte of a plain file',
    spoil: (path) => flip(path('ae001100.dat'), 4321),
    code: 'content-damaged',
    message: /ae001100\.dat at 0 \(segment ae001100\): CRC-32/,
  },
  {
    what: 'a byte of base',
    spoil: (path) => flip(path('ae001000.dat'), 60_000),
    code: 'content-damaged',
    message: /ae001000\.dat at 0/,
  },
  {
    what: 'a file cut short',
    spoil: (path) => truncateSync(path('ae001101.dat'), 1_000_000),
    code: 'wrong-size',
    message: /ae001101\.dat has 1000000 bytes, expected 1048576/,
  },
  {
    what: 'a file grown',
    spoil: (path) => truncateSync(path('ae001101.dat'), 2_000_000),
    code: 'wrong-size',
    message: /ae001101\.dat has 2000000 bytes, expected 1048576/,
  },
  {
    what: 'a stage missing',
    spoil: (path) => unlinkSync(path('ae001101.dat')),
    code: 'backup-incomplete',
    message: /ae001101\.dat is missing/,
  },
  {
    what: 'a stripe missing',
    spoil: (path) => unlinkSync(path('ad001001.dat')),
    code: 'backup-incomplete',
    message: /ad001001\.dat is missing/,
  },
  {
    what: 'stripes of two sets',
    spoil: (path) => flip(path('ad001001.dat'), 48),
    code: 'backup-set-torn',
    message: /data stripes belong to two sets: ad001000 has random/,
  },
  {
    what: 'a stripe that is not trusted',
    spoil: (path) => flip(path('ad001001.dat'), 56),
    code: 'backup-set-torn',
    message: /ad001001 is not marked as trusted: the server did not stop cleanly/,
  },
  {
    what: 'base missing',
    spoil: (path) => unlinkSync(path('ae001000.dat')),
    code: 'backup-incomplete',
    message: /ae001000\.dat is missing/,
  },
  {
    what: 'a file too many',
    spoil: (path) => copyFileSync(path('ad001001.dat'), path('ad001003.dat')),
    code: 'extra-file',
    message: /ad001003\.dat is not in its manifest/,
  },
  {
    what: 'the same segment twice',
    spoil: (path) => copyFileSync(path('ad001001.dat'), path('AD001001.dat')),
    code: 'extra-file',
    message: /both files of segment ad001001/,
  },
  {
    what: 'a symbolic link',
    spoil: (path) => {
      renameSync(path('ae001100.dat'), path('x'));
      symlinkSync('x', path('ae001100.dat'));
    },
    code: 'unsafe-file',
    message: /symbolic link, expected a regular file/,
  },
  {
    what: 'two files swapped',
    spoil: (path) => {
      renameSync(path('ae001100.dat'), path('x'));
      renameSync(path('ae001101.dat'), path('ae001100.dat'));
      renameSync(path('x'), path('ae001101.dat'));
    },
    code: 'content-damaged',
    message: /ae00110[01]\.dat at 0/,
  },
  {
    what: 'a byte of the manifest',
    spoil: (path) => flip(path('asmt-manifest-0-test.json'), 40),
    code: 'manifest-damaged',
    message: /asmt-manifest-0-test\.json is damaged/,
  },
  {
    what: 'the end of the manifest',
    spoil: (path) => truncateSync(path('asmt-manifest-0-test.json'), 300),
    code: 'manifest-damaged',
    message: /asmt-manifest-0-test\.json is damaged/,
  },
  {
    what: 'an empty manifest',
    spoil: (path) => truncateSync(path('asmt-manifest-0-test.json'), 0),
    code: 'manifest-damaged',
    message: /asmt-manifest-0-test\.json is damaged/,
  },
  {
    what: 'the manifest renamed',
    spoil: (path) => renameSync(path('asmt-manifest-0-test.json'), path('asmt-manifest-0-other.json')),
    code: 'manifest-damaged',
    message: /it belongs to asmt-manifest-0-test\.json/,
  },
  {
    what: 'the 24 bytes of a compressed file',
    backup: ['-z'],
    spoil: (path) => flip(path('ae001100.dat.gz'), 17),
    code: 'content-damaged',
    message: /header of ae001100\.dat\.gz/,
  },
  {
    what: 'the gzip header',
    backup: ['-z'],
    spoil: (path) => flip(path('ae001100.dat.gz'), 30),
    code: 'content-damaged',
    message: /ae001100\.dat\.gz at 0/,
  },
  {
    what: 'the compressed data',
    backup: ['-z'],
    spoil: (path) => flip(path('ae001100.dat.gz'), 5000),
    code: 'content-damaged',
    message: /ae001100\.dat\.gz at \d+ \(segment ae001100/,
  },
  {
    what: "the member's length",
    backup: ['-z'],
    spoil: (path) => flip(path('ae001100.dat.gz'), -1),
    code: 'content-damaged',
    message: /ae001100\.dat\.gz at \d+ \(segment ae001100\): its end/,
  },
  {
    what: 'a compressed file cut short',
    backup: ['-z'],
    spoil: (path) => truncateSync(path('ae001100.dat.gz'), 50_000),
    code: 'wrong-size',
    message: /ae001100\.dat\.gz has 50000 bytes/,
  },
];

for (const { what, spoil, code, message, backup = [] } of damages) {
  test(`damaged, found and located, and no segment is made: ${what}`, async (t) => {
    const { machine, directory } = await rebooted(t, [], backup);
    spoil((name) => `${directory}/${name}`);
    for (const verb of ['verify', 'restore']) {
      const { error } = await machine.json(5, [verb, directory]);
      t.is(error?.kind, 'damaged');
      t.true(
        error?.problems.some((problem) => problem.code === code && message.test(problem.message)),
        JSON.stringify(error),
      );
      t.true(error?.problems.every((problem) => problem.hint !== ''));
      t.is(await machine.memory(), '', verb);
    }
    const done = await machine.expect(1, ['-r', '-p', directory]);
    t.regex(done.stderr, message, show(done));
    t.is(await machine.memory(), '');
  });
}

test('verify lists all damage, not just the first', async (t) => {
  const { machine, directory } = await rebooted(t);
  flip(`${directory}/ae001100.dat`, 1);
  flip(`${directory}/ad001002.dat`, 1);
  unlinkSync(`${directory}/ad001000.dat`);
  truncateSync(`${directory}/ae001101.dat`, 5);
  const { error } = await machine.json(5, ['verify', directory]);
  const text = JSON.stringify(error?.problems);
  const said = [
    'ae001100.dat at 0',
    'ad001002.dat at 0',
    // Its second byte belongs to the header.
    'data stripe ad001002 starts with ',
    'ad001000.dat is missing',
    'ae001101.dat has 5 bytes',
  ];
  for (const name of said) t.true(text.includes(name), text);
  t.is(error?.problems.length, said.length);
});

test('restore lists all that can be known before data is read: file, offset and segment, in text and JSON', async (t) => {
  const { machine, directory } = await rebooted(t, [], ['-z']);
  copyFileSync(`${directory}/ad001001.dat.gz`, `${directory}/ad001007.dat.gz`);
  copyFileSync(`${directory}/ad001001.dat.gz`, `${directory}/ad001008.dat.gz`);
  unlinkSync(`${directory}/ad001000.dat.gz`);
  unlinkSync(`${directory}/a2001000.dat`);
  truncateSync(`${directory}/ae001101.dat.gz`, 5000);
  flip(`${directory}/ae001001.dat.gz`, 17);
  renameSync(`${directory}/ad001002.dat.gz`, machine.path('x'));
  symlinkSync(machine.path('x'), `${directory}/ad001002.dat.gz`);
  flip(`${directory}/ae001100.dat.gz`, 0);
  for (const verb of ['restore', 'verify']) {
    const { error } = await machine.json(5, [verb, directory]);
    const found = error?.problems.map(({ code, file, offset, segment }) => [file, code, offset, segment]) ?? [];
    t.deepEqual(
      found.toSorted((a, b) => String(a[0]).localeCompare(String(b[0]))),
      [
        ['a2001000.dat', 'backup-incomplete', null, 'a2001000'],
        ['ad001000.dat.gz', 'backup-incomplete', null, 'ad001000'],
        ['ad001002.dat.gz', 'unsafe-file', null, 'ad001002'],
        ['ad001007.dat.gz', 'extra-file', null, 'ad001007'],
        ['ad001008.dat.gz', 'extra-file', null, 'ad001008'],
        ['ae001001.dat.gz', 'content-damaged', 0, 'ae001001'],
        ['ae001100.dat.gz', 'content-damaged', 0, 'ae001100'],
        ['ae001101.dat.gz', 'wrong-size', 5000, 'ae001101'],
      ],
      JSON.stringify(error),
    );
    const text = await machine.expect(5, [verb, directory]);
    for (const [file] of found) t.true(text.stderr.includes(String(file)), show(text));
    t.is(await machine.memory(), '');
  }
});

test('without a manifest every missing stage is named', async (t) => {
  const { machine, directory } = await rebooted(t, ['--stages', '7']);
  for (const name of ['asmt-manifest-0-test.json', 'ae001101.dat', 'ae001103.dat', 'ae001104.dat', 'ae001105.dat'])
    unlinkSync(`${directory}/${name}`);
  const done = await machine.expect(5, ['restore', directory]);
  t.regex(done.stderr, /4 of 7 primary stages .* first is stage 1 \(low 101\); all are 1, 3 to 5\n/, show(done));
});

testTraced('verify goes on after what cannot be read, and lists it with the damage', async (t) => {
  const { machine, directory } = await rebooted(t);
  flip(`${directory}/ae001101.dat`, -1);
  let count = 0;
  for (let when = 1; when < 200; when += 1) {
    const done = await machine.traced([`pread64:error=EIO:when=${when}`], ['verify', '-t1', '--json', directory]);
    // The first calls are those of loading the program.
    if (done.stdout === '' || done.stdout.includes('"engine-missing"')) continue;
    const { error } = JSON.parse(done.stdout) as Outcome;
    t.notRegex(done.stderr, /made by ASMT/, show(done));
    const unread = error?.problems.filter(({ code }) => code === 'system-call') ?? [];
    if (unread.length === 0) {
      t.is(done.status, 5, show(done));
      break;
    }
    count += 1;
    t.regex(unread[0]?.message ?? '', /^(namespace 'test': )?read \S+\/b\/\S+( at \d+)?: input\/output error$/);
    t.regex(unread[0]?.file ?? '', /^[\w-]+\.(dat|json)$/);
    // Damage in another file than the unreadable one is found all the same.
    const isFound = error?.problems.some(({ code, file }) => code === 'content-damaged' && file === 'ae001101.dat');
    t.true(isFound || unread.some(({ file }) => file === 'ae001101.dat' || file?.endsWith('.json')), JSON.stringify(error));
    t.is(done.status, isFound ? 5 : 1, show(done));
  }
  t.log(`${count} states tried`);
  t.true(count > 8);
});

test('a backup that was not made of a clean, known server is not used', async (t) => {
  for (const [offset, byte, message] of [
    [4, 0, /shutdown status 0/],
    [0, 99, /version 99/],
  ] as const) {
    const machine = await Machine.start(t);
    const { directory } = machine.golden('raw-index');
    const bytes = readFileSync(`${directory}/ae001000.dat`);
    bytes[offset] = byte;
    writeFileSync(`${directory}/ae001000.dat`, bytes);
    const done = await machine.expect(4, ['restore', directory]);
    t.regex(done.stderr, message, show(done));
    t.is(await machine.memory(), '');
  }
});

test('a manifest of a newer format is refused, naming it', async (t) => {
  const { machine, directory } = await rebooted(t);
  const file = `${directory}/asmt-manifest-0-test.json`;
  const text = readFileSync(file, 'utf8');
  t.regex(text, /"version":1/);
  writeFileSync(file, text.replace('"version":1', '"version":3'));
  const done = await machine.expect(4, ['restore', directory]);
  t.regex(done.stderr, /asmt-manifest-0-test\.json has format version 3, expected at most 2\nHINT: /, show(done));
  t.is(await machine.memory(), '');
});

test('--require-manifest refuses what has no checksums; without it there is a remark', async (t) => {
  const { machine, before, directory } = await rebooted(t);
  unlinkSync(`${directory}/asmt-manifest-0-test.json`);
  for (const verb of ['restore', 'verify']) {
    const refused = await machine.expect(4, [verb, '--require-manifest', directory]);
    t.regex(refused.stderr, /there is no manifest, but --require-manifest was given\nHINT: /, show(refused));
    t.is(await machine.memory(), '');
  }
  const done = await machine.expect(0, ['restore', directory]);
  t.regex(done.stderr, /note: .* without a manifest: 9 of 9 files are uncompressed and cannot be checked/, show(done));
  // The mode is in the manifest; the file has the mode that ASMT would give the segment.
  t.is((await machine.memory()).replaceAll(' 600 ', ' 640 '), IS_REAL_ROOT ? before : before.replaceAll(' 666 ', ' 640 '));
});

test('nothing to do: an empty directory, another instance, another name', async (t) => {
  const { machine, directory } = await rebooted(t);
  mkdirSync(machine.path('empty'), 0o700);
  for (const verb of ['restore', 'verify']) {
    t.regex(
      (await machine.expect(7, [verb, machine.path('empty')])).stderr,
      /nothing of instance 0 is in the directory; found: nothing\nHINT: /,
    );
    t.regex(
      (await machine.expect(7, [verb, '-i7', directory])).stderr,
      /nothing of instance 7 is in the directory; found: test \(instance 0\)\nHINT: /,
    );
    t.regex(
      (await machine.expect(7, [verb, '-n', 'nope', directory])).stderr,
      /namespace 'nope' .*; found: test \(instance 0\)\nHINT: /,
    );
  }
  t.regex((await machine.expect(3, ['restore', '-n', 'test,nope', directory])).stderr, /namespace 'nope'/);
  t.is(await machine.memory(), '');
});

test('several namespaces and instances in one directory are told apart', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make', '--name', 'a', '--nsid', '1', '--seed', '1');
  await machine.sim('make', '--name', 'b', '--nsid', '32', '--seed', '2');
  await machine.sim('make', '--name', 'a', '--nsid', '1', '--seed', '3', '--instance', '15');
  const before = await machine.memory();
  await machine.expect(0, ['backup', machine.path('b')]);
  await machine.expect(0, ['backup', '-i15', machine.path('b')]);
  await machine.sim('remove');
  t.regex((await machine.expect(0, ['verify', machine.path('b')])).stdout, /verified 3 namespaces/);
  t.regex((await machine.expect(0, ['verify', '-n', 'b', machine.path('b')])).stdout, /verified 1 namespace /);
  await machine.expect(0, ['restore', '-n', 'b', machine.path('b')]);
  t.is((await machine.memory()).split('\n').filter((line) => line.startsWith('ae020')).length, 4);
  await machine.expect(0, ['restore', '-n', 'a', machine.path('b')]);
  await machine.expect(0, ['restore', '-i', '15', machine.path('b')]);
  t.is(await machine.memory(), before);
});

test('limits of the IPC namespace are checked before the first segment', async (t) => {
  const { machine, before, directory } = await rebooted(t);
  for (const [name, value, least] of [
    ['shmmni', '8', 9],
    ['shmmax', '1048575', 1_048_576],
    ['shmall', '1', 1856],
  ] as const) {
    const old = (await machine.exec('cat', [`/proc/sys/kernel/${name}`])).stdout.trim();
    const set = (text: string) => machine.exec('sh', ['-c', `echo ${text} > /proc/sys/kernel/${name}`]);
    await set(value);
    const done = await machine.expect(6, ['restore', directory]);
    t.regex(
      done.stderr,
      new RegExp(
        `kernel\\.${name} is ${value}, expected at least ${least}\nHINT: raise it, .*: sysctl -w kernel\\.${name}=${old}; and`,
      ),
      show(done),
    );
    t.is(await machine.memory(), '');
    await set(old);
  }
  await machine.expect(0, ['restore', directory]);
  t.is(await machine.memory(), before);
});

test('a backup survives being restored, and a copy of it elsewhere is one, too', async (t) => {
  const { machine, before, directory } = await rebooted(t);
  await run('cp', ['-a', directory, machine.path('copy')]);
  await machine.expect(0, ['restore', directory]);
  await machine.sim('remove');
  await machine.expect(0, ['restore', '-c', machine.path('copy')]);
  t.is(await machine.memory(), before);
  t.true(existsSync(`${directory}/ae001000.dat`));
});
