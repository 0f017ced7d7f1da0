import test from 'ava';

import { looksLikeAsmt, normalise, wantsJson } from '../src/argv.ts';
import { AsmtError } from '../src/errors.ts';
import { OPTIONS, VERBS, type OptionSpec } from '../src/options.ts';

const run = (...args: string[]) => normalise(args);
const asmt = (...argv: string[]) => ({ kind: 'run', form: 'asmt', argv });
const command = (...argv: string[]) => ({ kind: 'run', form: 'commands', argv });

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
    const form = spec.selectsVerb ? [] : ['-b'];
    const expected = [...form.map(() => '--backup'), spec.value ? `--${spec.name}=1` : `--${spec.name}`];
    for (const name of [spec.name, ...(spec.aliases ?? [])]) {
      t.deepEqual(run(...form, spec.value ? `--${name}=1` : `--${name}`), asmt(...expected), name);
      if (spec.value) t.deepEqual(run(...form, `--${name}`, '1'), asmt(...expected), name);
    }
    if (spec.short) t.deepEqual(run(...form, `-${spec.short}${spec.value ? '1' : ''}`), asmt(...expected), spec.short);
  }
  t.is(new Set(specs.map(({ short }) => short).filter(Boolean)).size, specs.filter(({ short }) => short).length);
});

test('--device may be given several times', (t) => {
  t.deepEqual(run('backup', '--device', '/a', '--device=/b,/c', 'd'), command('backup', '--device=/a,/b,/c', '--', 'd'));
});

test('help and version', (t) => {
  t.deepEqual(run('--help'), { kind: 'help', verb: null });
  t.deepEqual(run('-h'), { kind: 'help', verb: null });
  t.deepEqual(run('help'), { kind: 'help', verb: null });
  t.deepEqual(run('-b', '-h'), { kind: 'help', verb: null });
  for (const verb of VERBS) {
    t.deepEqual(run(verb, '--help'), { kind: 'help', verb });
    t.deepEqual(run('help', verb), { kind: 'help', verb });
  }
  t.deepEqual(run('--version'), { kind: 'version' });
});

const refused: [string[], RegExp, RegExp][] = [
  [['-x', '-b'], /no option -x/, /asmt --help/],
  [['-bxz', '-p', 'd'], /no option -x/, /asmt --help/],
  [['backup', '--compres', 'd'], /no option --compres/, /--compress/],
  [['backup', '--n', 'd'], /no option --n/, /asmt --help/],
  [['bakup', 'd'], /no command "bakup"/, /asmt backup/],
  [['frobnicate'], /no command "frobnicate"/, /list, backup, restore, verify or retire/],
  [['-p', 'd'], /no command is given/, /-b or -r/],
  [['-b', '-p', 'd', '-n'], /-n needs a value/, /-n NAME/],
  [['-b', '-p', 'd', '-n', '-v'], /-n needs a value, but "-v" follows/, /-n NAME/],
  [['-b', '-p', 'd', '-n', ''], /-n needs a value/, /-n NAME/],
  [['-b', '-p', 'd', '--verbose=yes'], /--verbose takes no value/, /--verbose alone/],
  [['-b', '-p', 'd', '-i1', '-i2'], /--instance is given twice, as "1" and as "2"/, /once/],
  [['-b', '-p', 'd', '-na', '-nb'], /--namespace is given twice/, /commas/],
  [['-b', '-p', 'd', 'extra'], /what is "extra" for/, /-p DIR/],
  [['backup', '-b', 'd'], /two forms/, /one of them/],
];

for (const [args, message, hint] of refused) {
  test(`${JSON.stringify(args)} is refused with a hint`, (t) => {
    const error = t.throws(() => normalise(args), { instanceOf: AsmtError });
    t.is(error.kind, 'usage');
    t.regex(error.message, message);
    t.regex(error.hint, hint);
  });
}

test('the same value twice is no contradiction', (t) => {
  t.deepEqual(run('-b', '-v', '-v', '-i2', '-i', '2', '-pd'), asmt('--backup', '--verbose', '--instance=2', '--path=d'));
});

test('what cannot be read still tells its form and whether JSON is wanted', (t) => {
  t.true(looksLikeAsmt(['-bx']));
  t.true(looksLikeAsmt(['-zcr', '-p']));
  t.false(looksLikeAsmt(['backup', '-p', '/r']));
  t.false(looksLikeAsmt(['-nbar']));
  t.true(wantsJson(['list', '--json', '--bad']));
  t.false(wantsJson(['list', '--', '--json']));
});
