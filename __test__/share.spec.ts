/**
 * The manual page, the completions and the schemas in `share/`: they agree with the tables, and the
 * programs that read them find nothing wrong. (`reference.spec.ts` checks that they are current.)
 */

import { mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';

import { Ajv } from 'ajv';
import test from 'ava';

import { EXIT_STATUSES } from '../src/errors.ts';
import { OPERANDS, SPECS, VERBS, variablesOf, type OptionSpec } from '../src/options.ts';
import { Machine, ROOT, run, show, testIf } from './helpers.ts';
import { schemaText, violation } from './schema.ts';

const SHARE = join(ROOT, 'share');
const MANUAL = join(SHARE, 'asmt.8');
const BASH = join(SHARE, 'completions', 'asmt.bash');
const ZSH = join(SHARE, 'completions', '_asmt');
const FISH = join(SHARE, 'completions', 'asmt.fish');

/** A text for a regular expression. */
const escaped = (text: string) => text.replaceAll(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`);

const testWith = (program: string) => {
  const isThere = spawnSync('sh', ['-c', `command -v ${program}`]).status === 0;
  return testIf(isThere, `${program} is not installed`);
};

const longNames = (spec: OptionSpec) => [spec.name, ...(spec.aliases ?? [])].map((name) => `--${name}`);
const namesOf = (spec: OptionSpec) => [...(spec.short ? [`-${spec.short}`] : []), ...longNames(spec)];

/** What a command line takes: of no command, of a command, or of ASMT's form. */
const takenBy = (place: string): readonly OptionSpec[] => {
  if (place === '') return SPECS.filter(({ name }) => ['backup', 'restore', 'help', 'version'].includes(name));
  const form: Readonly<Record<string, string>> = { '-b': 'backup', '-r': 'restore' };
  const verb = form[place] ?? place;
  return SPECS.filter(
    ({ name, verbs, selectsVerb }) =>
      (verbs as readonly string[]).includes(verb) && name !== 'version' && selectsVerb === undefined,
  );
};
const PLACES = ['', ...VERBS, '-b', '-r'];

testWith('mandoc')('the manual page has no fault that mandoc finds', async (t) => {
  const done = await run('mandoc', ['-Tlint', '-Wstyle', MANUAL]);
  t.is(done.stdout + done.stderr, '', show(done));
  t.is(done.status, 0);
});

testWith('mandoc')('the manual page has its sections, each command, option, exit status and variable', async (t) => {
  const done = await run('mandoc', ['-Tutf8', '-O', 'width=200', MANUAL]);
  // Bold and italic letters are typed over.
  // oxlint-disable-next-line no-control-regex -- that is how
  const text = done.stdout.replaceAll(/.\u0008/gu, '');
  const sections = [
    'NAME',
    'SYNOPSIS',
    'DESCRIPTION',
    'COMMANDS',
    'OPTIONS',
    'EXIT STATUS',
    'ENVIRONMENT',
    'FILES',
    'EXAMPLES',
    'SEE ALSO',
  ];
  const found = [...text.matchAll(/^[A-Z][A-Z ]+$/gm)].map(([heading]) => heading);
  t.deepEqual(
    found.filter((heading) => sections.includes(heading)),
    sections,
  );
  const part = (name: string) => text.split(`\n${name}\n`)[1]?.split(/^[A-Z][A-Z ]+$/m)[0] ?? '';
  for (const verb of VERBS) {
    t.true(part('SYNOPSIS').includes(`asmt ${[verb, '[options]', ...OPERANDS[verb]].join(' ')}\n`), verb);
    t.regex(part('COMMANDS'), new RegExp(`^ +${escaped([verb, ...OPERANDS[verb]].join(' '))}(\n| {2})`, 'm'));
  }
  for (const spec of SPECS) {
    const usage =
      namesOf(spec).join(', ') + (spec.value === undefined ? '' : spec.isValueOptional ? `[=${spec.value}]` : ` ${spec.value}`);
    t.true(
      part('OPTIONS')
        .split('\n')
        .some((line) => line.trim().startsWith(usage)),
      usage,
    );
    for (const variable of variablesOf(spec)) t.true(part('ENVIRONMENT').includes(variable), variable);
  }
  for (const { status } of EXIT_STATUSES) t.regex(part('EXIT STATUS'), new RegExp(`^ +• ${status}: `, 'm'));
  t.notRegex(text, /[`]|\]\(|\*\*/, 'Markdown is left');
});

testWith('shellcheck')('shellcheck finds nothing in the completion for bash', async (t) => {
  const done = await run('shellcheck', ['--severity=style', BASH]);
  t.is(done.status, 0, show(done));
});

/** What bash offers at the end of a command line. */
async function offeredByBash(...words: string[]): Promise<string[]> {
  const script = '. "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); compopt() { :; }; _asmt; printf "%s\\n" "${COMPREPLY[@]}"';
  const done = await run('bash', ['--norc', '-euc', script, BASH, 'asmt', ...words]);
  if (done.status !== 0 || done.stderr !== '') throw new Error(show(done));
  return done.stdout.split('\n').filter((line) => line !== '');
}

test('bash completes commands, options of each command, values and directories', async (t) => {
  t.deepEqual((await offeredByBash('')).toSorted(), [...VERBS, 'help'].toSorted());
  t.deepEqual(await offeredByBash('re'), ['restore', 'retire']);
  t.deepEqual((await offeredByBash('help', '')).toSorted(), [...VERBS].toSorted());
  for (const place of PLACES) {
    const offered = await offeredByBash(...(place === '' ? [] : [place]), '-');
    t.deepEqual(offered.toSorted(), takenBy(place).flatMap(namesOf).toSorted(), place);
  }
  // A value that is named as a command is none.
  t.deepEqual(await offeredByBash('-n', 'backup', 'verify', '--rest'), ['--restorable']);
  t.deepEqual(await offeredByBash('restore', '--progress', ''), ['text', 'json']);
  t.deepEqual(await offeredByBash('restore', '--progress', '=', 'j'), ['json']);
  t.deepEqual(await offeredByBash('restore', '--progress', '='), ['text', 'json']);
  t.deepEqual(await offeredByBash('list', '-i', '1'), ['1', '10', '11', '12', '13', '14', '15']);
  t.deepEqual(await offeredByBash('list', '-n', ''), []);
  t.deepEqual(await offeredByBash('list', ''), []);
  const machine = await Machine.start(t);
  mkdirSync(machine.path('folder'));
  writeFileSync(machine.path('file'), '');
  for (const words of [['backup'], ['export', '/a'], ['-b', '-p']]) {
    t.deepEqual(await offeredByBash(...words, machine.path('f')), [machine.path('folder')]);
  }
  t.deepEqual((await offeredByBash('backup', '--config', machine.path('f'))).toSorted(), [
    machine.path('file'),
    machine.path('folder'),
  ]);
});

testWith('zsh')('zsh finds no fault in its completion', async (t) => {
  const done = await run('zsh', ['-n', ZSH]);
  t.is(done.status, 0, show(done));
  t.is(done.stderr, '');
});

/** What zsh offers at the end of a line that somebody types, in a shell of its own. */
async function offeredByZsh(place: string, line: string): Promise<string> {
  const script = `zmodload zsh/zpty
zpty -b shell zsh -f -i
send() { zpty -w shell "$1" }
send "PS1=; fpath=($1 \\$fpath); autoload -Uz compinit; compinit -D -u; setopt list_packed; COLUMNS=200; zstyle ':completion:*' list-grouped false"
send 'bindkey -e; bindkey "^G" list-choices; PATH=/nowhere; echo rea""dy'
zpty -r shell out '*ready*'
zpty -w -n shell "$2"$'\\C-g'
zpty -w -n shell $'\\C-u'
send 'echo ALL-""TOLD'
zpty -r shell out '*ALL-TOLD*'
print -r -- "$out"
zpty -d shell`;
  // The end of its terminal ends the inner shell, too.
  const done = await run('timeout', ['60', 'zsh', '-f', '-c', script, 'zsh', place, line], {
    env: { TERM: 'xterm', COLUMNS: '200' },
  });
  return done.stdout;
}

testWith('zsh')('zsh completes commands and options', async (t) => {
  const place = join(SHARE, 'completions');
  const commands = await offeredByZsh(place, 'asmt ');
  for (const verb of [...VERBS, 'help']) t.true(commands.includes(verb), commands);
  for (const verb of VERBS) {
    const text = await offeredByZsh(place, `asmt ${verb} -`);
    for (const spec of takenBy(verb)) for (const name of longNames(spec)) t.true(text.includes(name), `${verb} ${name}\n${text}`);
    t.is(
      text.includes('--force-host'),
      takenBy(verb).some(({ name }) => name === 'force-host'),
      text,
    );
  }
  t.regex(await offeredByZsh(place, 'asmt restore --progress '), /json {2}text/);
});

testWith('fish')('fish finds no fault in its completion', async (t) => {
  const done = await run('fish', ['-n', FISH]);
  t.is(done.status, 0, show(done));
  t.is(done.stderr, '');
});

testWith('fish')('fish completes commands, options of each command, values and directories', async (t) => {
  const machine = await Machine.start(t);
  const env = { HOME: machine.directory, XDG_CONFIG_HOME: machine.path('config'), XDG_DATA_HOME: machine.path('data') };
  const offered = async (line: string): Promise<string[]> => {
    const done = await run('fish', ['--no-config', '-c', `source '${FISH}'; complete -C '${line}'`], { env });
    t.is(done.stderr, '', show(done));
    return done.stdout.split('\n').flatMap((text) => (text === '' ? [] : [text.split('\t')[0] ?? '']));
  };
  t.deepEqual((await offered('asmt ')).toSorted(), [...VERBS, 'help'].toSorted());
  t.deepEqual((await offered('asmt help ')).toSorted(), [...VERBS].toSorted());
  for (const place of PLACES) {
    const names = (await offered(`asmt ${place}${place === '' ? '' : ' '}--`)).toSorted();
    t.deepEqual(names, takenBy(place).flatMap(longNames).toSorted(), place);
  }
  t.deepEqual(await offered('asmt restore --progress '), ['json', 'text']);
  mkdirSync(machine.path('folder'));
  writeFileSync(machine.path('file'), '');
  t.deepEqual(await offered(`asmt backup ${machine.path('f')}`), [`${machine.path('folder')}/`]);
});

for (const shape of ['output', 'progress'] as const) {
  test(`the schema of the ${shape} is one, and takes what a later version adds`, (t) => {
    const ajv = new Ajv({ strict: true, allowUnionTypes: true, validateSchema: true });
    const validate = ajv.compile(JSON.parse(schemaText(shape)) as object);
    const line = { schema_version: 1, type: 'remark', code: 'a', message: 'b' };
    const output = { schema_version: 1, ok: true, exit_status: 0, report: null, error: null };
    const value = shape === 'output' ? output : line;
    t.true(validate({ ...value, later: 1 }), JSON.stringify(validate.errors));
    t.false(validate({ ...value, schema_version: 2 }));
    // The specs take no field that the schema does not have, and miss none.
    t.is(violation(shape, JSON.stringify(value)), null);
    t.regex(violation(shape, JSON.stringify({ ...value, later: 1 })) ?? '', /later/);
    for (const name of Object.keys(value)) {
      const { [name]: _left, ...rest } = value as Record<string, unknown>;
      t.regex(violation(shape, JSON.stringify(rest)) ?? '', new RegExp(name));
    }
    t.regex(violation(shape, 'asmt: text') ?? '', /this is no JSON/);
  });
}

test('a run whose JSON does not fit the schema fails its spec', async (t) => {
  const { MAIN } = await import('./helpers.ts');
  const print = (stdout: string, stderr: string, ...args: string[]) =>
    run('sh', ['-c', 'printf "%s" "$0"; printf "%s" "$1" >&2', stdout, stderr, MAIN, ...args]);
  await t.throwsAsync(() => print('{"ok":true}\n', '', '--json'), { message: /schema_version/ });
  await t.throwsAsync(() => print('text\n', '', '--json'), { message: /no JSON/ });
  await t.throwsAsync(() => print('', 'asmt: note: text\n', '--progress', 'json'), { message: /no JSON/ });
  await t.notThrowsAsync(() => print('text\n', 'asmt: note: text\n'));
});

test('each page, completion and schema is of the list of what is written', (t) => {
  const names = ['', 'completions', 'schema'].flatMap((folder) =>
    readdirSync(join(SHARE, folder), { withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map(({ name }) => name),
  );
  const script =
    readFileSync(join(ROOT, 'scripts', 'reference.mjs'), 'utf8') +
    readFileSync(join(ROOT, 'scripts', 'reference', 'schema.mjs'), 'utf8');
  for (const name of names) t.true(script.includes(`/${name}'`), name);
  t.is(names.length, 6);
});
