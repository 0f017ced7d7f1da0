import test from 'ava';

import { looksLikeAsmt, normalise, quoted, wantsJson } from '../src/argv.ts';
import { AsmtError } from '../src/errors.ts';
import { OPTIONS, VERBS, type OptionSpec } from '../src/options.ts';

/** The result in one form: options by their long names, in the order of the table. */
const run = (...args: string[]) => {
  const typed = normalise(args);
  if (typed.kind !== 'run') return typed;
  const given = OPTIONS.flatMap(({ name }) => {
    const value = typed.values[name];
    return value === undefined ? [] : [value === true ? `--${name}` : `--${name}=${value}`];
  });
  const operands = typed.operands.length > 0 ? ['--', ...typed.operands] : [];
  return { kind: typed.kind, form: typed.form, argv: [...(typed.verb === null ? [] : [typed.verb]), ...given, ...operands] };
};

/** The same options, in the order of the table. */
const sorted = (argv: string[]) => {
  const end = argv.indexOf('--');
  const words = end < 0 ? argv : argv.slice(0, end);
  const place = (word: string) => OPTIONS.findIndex(({ name }) => word === `--${name}` || word.startsWith(`--${name}=`));
  return [...words.toSorted((a, b) => place(a) - place(b)), ...argv.slice(words.length)];
};
const asmt = (...argv: string[]) => ({ kind: 'run', form: 'asmt', argv: sorted(argv) });
const command = (...argv: string[]) => ({ kind: 'run', form: 'commands', argv: sorted(argv) });

test('every form that getopt allows is read', (t) => {
  t.deepEqual(run('-ba', '-p', '/x'), asmt('--backup', '--analyze', '--path=/x'));
  t.deepEqual(run('-b', '-zcv', '-p/x'), asmt('--backup', '--compress', '--crc', '--verbose', '--path=/x'));
  t.deepEqual(
    run('-bi2', '-t8', '-ntest', '-p', 'd'),
    asmt('--backup', '--instance=2', '--threads=8', '--namespace=test', '--path=d'),
  );
  t.deepEqual(run('-bai2', '-pd'), asmt('--backup', '--analyze', '--instance=2', '--path=d'));
  t.deepEqual(run('-bavn', 'test', '-pd'), asmt('--backup', '--analyze', '--verbose', '--namespace=test', '--path=d'));
  t.deepEqual(run('-rcvn', 'a,b', '-p', 'd'), asmt('--restore', '--crc', '--verbose', '--namespace=a,b', '--path=d'));
  t.deepEqual(run('-p', 'd', '-n', 'x', '-r'), asmt('--path=d', '--namespace=x', '--restore'));
});

test('commands take the same options, before and after the directory', (t) => {
  t.deepEqual(
    run('backup', '-zt8', '/d', '--namespace=a'),
    command('backup', '--compress', '--threads=8', '--namespace=a', '--', '/d'),
  );
  t.deepEqual(run('-v', 'list', '-i2'), command('list', '--verbose', '--instance=2'));
  t.deepEqual(run('restore', '--dry-run', '--', '-odd'), command('restore', '--analyze', '--', '-odd'));
  t.deepEqual(run('verify', 'backup'), command('verify', '--', 'backup'));
});

test('every option of the table is understood by all its names', (t) => {
  const specs: readonly OptionSpec[] = OPTIONS;
  for (const spec of specs.filter(({ name }) => name !== 'help' && name !== 'version')) {
    // With a directory, because a word at the end could be one that an option took.
    const form = spec.selectsVerb ? [] : spec.name === 'path' ? ['-b'] : ['-b', '-pd'];
    const before = ['--backup', '--path=d'].slice(0, form.length);
    const expected = [...before, spec.value ? `--${spec.name}=1` : `--${spec.name}`];
    for (const name of [spec.name, ...(spec.aliases ?? [])]) {
      t.deepEqual(run(...form, spec.value ? `--${name}=1` : `--${name}`), asmt(...expected), name);
      if (spec.value && !spec.isValueOptional) t.deepEqual(run(...form, `--${name}`, '1'), asmt(...expected), name);
    }
    if (spec.short) t.deepEqual(run(...form, `-${spec.short}${spec.value ? '1' : ''}`), asmt(...expected), spec.short);
  }
  t.deepEqual(run('backup', '--wait', '/d'), command('backup', '--wait', '--', '/d'));
  t.is(new Set(specs.map(({ short }) => short).filter(Boolean)).size, specs.filter(({ short }) => short).length);
});

test('--device may be given several times', (t) => {
  t.deepEqual(run('backup', '--device', '/a', '--device=/b,/c', 'd'), command('backup', '--device=/a,/b,/c', '--', 'd'));
});

test('help and version', (t) => {
  t.deepEqual(run('--help'), { kind: 'help', verb: null });
  t.deepEqual(run('-h'), { kind: 'help', verb: null });
  t.deepEqual(run('help'), { kind: 'help', verb: null });
  t.deepEqual(run('help', 'help'), { kind: 'help', verb: null });
  t.deepEqual(run('-b', '-h'), { kind: 'help', verb: null });
  for (const verb of VERBS) {
    t.deepEqual(run(verb, '--help'), { kind: 'help', verb });
    t.deepEqual(run('help', verb), { kind: 'help', verb });
  }
  t.deepEqual(run('--version'), { kind: 'version' });
});

const refused: [string[], RegExp, RegExp][] = [
  [['-x', '-b'], /unknown option -x/, /asmt --help/],
  [['-bxz', '-p', 'd'], /unknown option -x/, /asmt --help/],
  [['backup', '--compres', 'd'], /unknown option --compres/, /--compress/],
  [['backup', '--n', 'd'], /unknown option --n/, /asmt --help/],
  [['backup', '--ver', 'd'], /unknown option --ver/, /^did you mean --verbose or --version\?$/],
  [['bakup', 'd'], /unknown command "bakup"/, /asmt backup/],
  [['rest', 'd'], /unknown command "rest"/, /^did you mean asmt restore\?$/],
  [['re', 'd'], /unknown command "re"/, /^did you mean asmt restore or asmt retire\?$/],
  [['lsit'], /unknown command "lsit"/, /^did you mean asmt list\?$/],
  [['Verify', 'd'], /unknown command "Verify"/, /^did you mean asmt verify\?$/],
  [['test'], /unknown command "test"/, /the commands are/],
  [['help', 'nosuch'], /unknown command "nosuch"/, /the commands are list, /],
  [['help', 'rest'], /unknown command "rest"/, /^did you mean asmt restore\?$/],
  [['nosuch', '--help'], /unknown command "nosuch"/, /the commands are list, /],
  [['frobnicate'], /unknown command "frobnicate"/, /list, preflight, backup, restore, verify, retire, export or run/],
  [['-p', 'd'], /no command given/, /-b or -r/],
  [['-b', '-p', 'd', '-n'], /-n needs a value/, /-n NAME/],
  [['-b', '-p', 'd', '-n', '-v'], /-n needs a value, but "-v" follows/, /-n NAME/],
  [['-b', '-p', 'd', '-n', ''], /-n needs a value/, /-n NAME/],
  [['-b', '-p', 'd', '--verbose=yes'], /--verbose takes no value/, /--verbose without a value/],
  [['-b', '-p', 'd', '-i1', '-i2'], /--instance is given twice, as "1" and as "2"/, /once/],
  [['-b', '-p', 'd', '-na', '-nb'], /--namespace is given twice/, /commas/],
  [['-b', '-p', 'd', 'extra'], /unexpected argument "extra"/, /-p DIR/],
  [['backup', '-b', 'd'], /cannot be used together/, /one of them/],
  [['-b', '-n', 'test', '/d'], /unexpected argument "\/d"/, /: asmt -b -n test -p \/d$/],
  // Several values after an option that takes a list: none of them is a directory.
  [['backup', '-n', 'a', 'b', '/d'], /-n takes one word, but "a" is followed by "b"/, /: asmt backup -n a,b \/d$/],
  [['backup', '/d', '-n', 'a', 'b'], /"a" is followed by "b"$/, /: asmt backup \/d -n a,b$/],
  [['backup', '-zna', 'b', 'c', '/d', '-v'], /followed by "b" and "c"/, /: asmt backup -zna,b,c \/d -v$/],
  [['backup', '-zn', 'a', 'b', '-p', '/d'], /followed by "b"/, /: asmt backup -zn a,b -p \/d$/],
  [['list', '--namespace', 'a', 'b'], /--namespace takes one word/, /: asmt list --namespace a,b$/],
  [
    ['restore', '--device', '/dev/a', '/dev/b', "/it's"],
    /--device takes one word/,
    /: asmt restore --device \/dev\/a,\/dev\/b '/,
  ],
  [['verify', '--device=/a', '/b', '/d'], /--device takes one word/, /: asmt verify --device=\/a,\/b \/d$/],
  [['-b', '-n', 'a', 'b', '-p', '/d'], /followed by "b"/, /: asmt -b -n a,b -p \/d$/],
  [['-b', '-n', 'a', 'b', '/d'], /followed by "b"/, /: asmt -b -n a,b -p \/d$/],
  // A time that may be left out is joined to its option.
  [
    ['backup', '--wait', '90s', '/d'],
    /^the TIME of --wait is joined to it by "=", but "90s" follows$/,
    /^write asmt backup --wait=90s \/d$/,
  ],
  [['-b', '--wait', '10min', '-p', '/d'], /^the TIME of --wait is joined/, /^write asmt -b --wait=10min -p \/d$/],
  [['backup', '--wait=', '/d'], /^--wait needs a value$/, /^write --wait=TIME$/],
  [['backup', '--deadline', '/d'], /"\/d" was read as the value of --deadline/, /^write asmt backup --deadline TIME \/d$/],
  // The value of an option was forgotten, and the option took the directory.
  [['backup', '-n', '/d'], /needs a directory: "\/d" was read as the value of -n/, /^write asmt backup -n NAME,\.\.\. \/d$/],
  [['backup', '-a', '-n', '/d'], /"\/d" was read as the value of -n/, /^write asmt backup -a -n NAME,\.\.\. \/d$/],
  [['backup', '-n/d'], /"\/d" was read as the value of -n/, /^write asmt backup -nNAME,\.\.\. \/d$/],
  [['backup', '-t', '/d'], /"\/d" was read as the value of -t/, /^write asmt backup -t N \/d$/],
  [['-bn', '/d'], /"\/d" was read as the value of -n/, /^write asmt -bn NAME,\.\.\. -p \/d$/],
  [['-rn', 'd'], /"d" was read as the value of -n/, /^write asmt -rn d -p DIR, or .*: asmt -rn NAME,\.\.\. -p d$/],
  [['restore', '--config', '/d'], /"\/d" was read as the value of --config/, /^write asmt restore --config \/d DIR, or/],
];

for (const [args, message, hint] of refused) {
  test(`${JSON.stringify(args)} is refused with a hint`, (t) => {
    const error = t.throws(() => normalise(args), { instanceOf: AsmtError });
    t.is(error.kind, 'usage');
    t.regex(error.message, message);
    t.regex(error.hint, hint);
  });
}

test('what only looks like several values is read as it stands', (t) => {
  t.deepEqual(run('backup', '-n', 'a', '/d'), command('backup', '--namespace=a', '--', '/d'));
  t.deepEqual(run('-n', 'a', 'backup', '/d'), command('backup', '--namespace=a', '--', '/d'));
  t.deepEqual(run('backup', '-n', 'a', '-v', '/d'), command('backup', '--namespace=a', '--verbose', '--', '/d'));
  t.deepEqual(run('-a', '-b', '-n', 'test'), asmt('--analyze', '--backup', '--namespace=test'));
  t.deepEqual(run('-b', '-a', '-n', 'test'), asmt('--backup', '--analyze', '--namespace=test'));
  // Two directories stay two directories; `policy.ts` refuses them.
  t.deepEqual(run('backup', '-n', 'a', '/d', '/e'), command('backup', '--namespace=a', '--', '/d', '/e'));
});

test('a word is quoted for a shell where it needs that', (t) => {
  t.is(quoted('/a/b,c'), '/a/b,c');
  t.is(quoted("it's $x"), String.raw`'it'\''s $x'`);
});

test('the same value twice is no contradiction', (t) => {
  t.deepEqual(run('-b', '-v', '-v', '-i2', '-i', '2', '-pd'), asmt('--backup', '--verbose', '--instance=2', '--path=d'));
});

test('what cannot be read still tells its form and whether JSON is wanted', (t) => {
  t.true(looksLikeAsmt(['-bx']));
  t.true(looksLikeAsmt(['-zcr', '-p']));
  t.true(looksLikeAsmt(['-Zbx']));
  t.false(looksLikeAsmt(['backup', '-p', '/r']));
  t.false(looksLikeAsmt(['-nbar']));
  t.true(wantsJson(['list', '--json', '--bad']));
  t.false(wantsJson(['list', '--', '--json']));
});

test('behind two dashes stands a command, for run alone', (t) => {
  const typed = (...args: string[]) => {
    const read = normalise(args);
    return read.kind === 'run' ? [read.verb, read.values, read.operands, read.command] : read;
  };
  t.deepEqual(typed('run', '-z', '/d', '--', 'asd', '-h', '--', '--json'), [
    'run',
    { compress: true },
    ['/d'],
    ['asd', '-h', '--', '--json'],
  ]);
  t.deepEqual(typed('run', '/d', '--'), ['run', {}, ['/d'], []]);
  t.deepEqual(typed('run', '--', 'asd'), ['run', {}, [], ['asd']]);
  t.deepEqual(typed('restore', '--', 'run', '-x'), ['restore', {}, ['run', '-x'], []]);
  t.deepEqual(typed('run', '/d', '--', 'asd', '--help'), ['run', {}, ['/d'], ['asd', '--help']]);
  // What the command is given says nothing about the form or the output of asmt.
  t.false(looksLikeAsmt(['run', '/d', '--', 'sh', '-r']));
  t.false(wantsJson(['run', '/d', '--', 'sh', '--json']));
  t.throws(() => normalise(['run', '-n', 'a', 'b', '/d', '--', 'asd']), { message: /-n takes one word/ });
});
