/** Variables: every option has one, what is typed wins, and ASMT's form has none. */

import test from 'ava';

import { normalise } from '../src/argv.ts';
import { withEnvironment, type Environment } from '../src/environment.ts';
import { AsmtError, type Form } from '../src/errors.ts';
import { OPTIONS, VERBS, variablesOf, type OptionSpec, type Values, type Verb } from '../src/options.ts';
import { resolve, type EngineVerb } from '../src/policy.ts';
import { Machine, show } from './helpers.ts';

const SPECS: readonly OptionSpec[] = OPTIONS;

const given = (verb: Verb, env: Environment, values: Values = {}, operands = ['/d'], form: Form = 'commands') =>
  withEnvironment(verb, form, values, operands, env);

test('every option has a variable, but for those that have a meaning of their own', (t) => {
  const without = SPECS.filter((spec) => variablesOf(spec).length === 0).map(({ name }) => name);
  t.deepEqual(without, ['config', 'backup', 'restore', 'help', 'version']);
  const all = SPECS.flatMap(variablesOf);
  t.is(new Set(all).size, all.length);
  t.false(all.includes('ASMT_CONFIG'));
  for (const variable of all) t.regex(variable, /^ASMT_[A-Z]+(_[A-Z]+)*$/);
  t.deepEqual(variablesOf(SPECS.find(({ name }) => name === 'analyze')!), ['ASMT_ANALYZE', 'ASMT_DRY_RUN']);
  t.deepEqual(variablesOf(SPECS.find(({ name }) => name === 'path')!), ['ASMT_DIR']);
});

test('each variable gives its option to each command that takes it, and to no other', (t) => {
  for (const spec of SPECS) {
    for (const variable of variablesOf(spec)) {
      const value = spec.choices?.[0] ?? (spec.value === undefined ? 'yes' : '1');
      for (const verb of VERBS.filter((name) => name !== 'run')) {
        const operands = spec.name === 'path' ? [] : ['/d', '/o'];
        const { values, sources, remarks } = given(verb, { [variable]: value }, {}, operands);
        const takes = spec.verbs.includes(verb) && (spec.field?.verbs?.includes(verb) ?? true);
        const expected = takes ? { [spec.name]: spec.value === undefined ? true : value } : {};
        t.deepEqual(values, expected, `${verb} ${variable}`);
        t.deepEqual([...sources], takes ? [[spec.name, variable]] : []);
        t.is(remarks.length, takes && spec.isRemarked ? 1 : 0);
      }
    }
  }
});

test('flags: on, off, and a mistake that names the variable', (t) => {
  for (const on of ['1', 'yes', 'true', 'on', 'YES', 'True']) {
    t.deepEqual(given('backup', { ASMT_VERBOSE: on }).values, { verbose: true }, on);
  }
  for (const off of ['0', 'no', 'false', 'off', '', 'OFF']) t.deepEqual(given('backup', { ASMT_VERBOSE: off }).values, {}, off);
  for (const odd of ['2', 'y', ' 1', 'enabled']) {
    const error = t.throws(() => given('backup', { ASMT_FORCE_STALE: odd }), { instanceOf: AsmtError });
    t.is(error.kind, 'usage');
    t.true(error.message.startsWith(`ASMT_FORCE_STALE is "${odd}", but must be one of 1, yes, `), error.message);
    t.regex(error.hint, /ASMT_FORCE_STALE=1/);
    // A settings file serves all commands: list has no such option.
    t.deepEqual(given('list', { ASMT_FORCE_STALE: odd }).values, {});
  }
});

test('what is typed wins, and an empty variable is none', (t) => {
  const env = { ASMT_NAMESPACE: 'a', ASMT_INSTANCE: '3', ASMT_THREADS: '', ASMT_PROGRESS: 'json' };
  const { values, sources } = given('backup', env, { namespace: 'b', progress: 'text' });
  t.deepEqual(values, { namespace: 'b', instance: '3', progress: 'text' });
  t.deepEqual([...sources.keys()], ['instance']);
  // An option that was typed also wins over one that it excludes.
  t.deepEqual(given('backup', { ASMT_COMPRESS: '1' }, { columns: true }).values, { columns: true });
  t.deepEqual(given('restore', { ASMT_FORCE_STALE: '1' }, { 'require-proof': true }).values, { 'require-proof': true });
  t.deepEqual(given('restore', { ASMT_REQUIRE_PROOF: '1' }, { 'force-stale': true }).values, { 'force-stale': true });
  t.deepEqual(given('list', { ASMT_QUIET: '1' }, { verbose: true }).values, { verbose: true });
});

test('ASMT_DIR is the directory where none is typed', (t) => {
  const env = { ASMT_DIR: '/env' };
  t.deepEqual(given('backup', env, {}, []).values, { path: '/env' });
  t.deepEqual(given('backup', env, {}, ['/d']).values, {});
  t.deepEqual(given('backup', env, { path: '/p' }, []).values, { path: '/p' });
  t.deepEqual(given('export', env, {}, ['/out']).values, { path: '/env' });
  t.deepEqual(given('export', env, {}, ['/d', '/out']).values, {});
  t.deepEqual(given('list', env, {}, []).values, {});
  // With a directory, the last word may be the value of an option.
  t.like(normalise(['backup', '-n', 'test'], true), { values: { namespace: 'test' }, operands: [] });
  t.throws(() => normalise(['backup', '-n', 'test']), { message: /needs a directory/ });
  t.throws(() => normalise(['backup', '-n', '/d'], true), { message: /"\/d" was read as the value of -n/ });
  t.throws(() => normalise(['-b', '-n', 'test'], true), { message: /needs a directory/ });
});

test('an error about a value names the variable that it comes from', (t) => {
  const wrong: [EngineVerb, Environment, RegExp][] = [
    ['backup', { ASMT_THREADS: 'many' }, /^ASMT_THREADS is "many", but must be a whole number from 1 to 1024$/],
    ['backup', { ASMT_NAMESPACE: 'a,,b' }, /^a name in ASMT_NAMESPACE "a,,b" is empty$/],
    ['restore', { ASMT_DEVICE: '/a,,/b' }, /^a path of ASMT_DEVICE is empty$/],
    ['backup', { ASMT_PROGRESS: 'xml' }, /^ASMT_PROGRESS is "xml", but must be text or json$/],
    ['backup', { ASMT_COMPRESS: '1', ASMT_COLUMNS: '1' }, /^ASMT_COMPRESS and ASMT_COLUMNS cannot be used together$/],
    ['restore', { ASMT_REQUIRE_PROOF: '1', ASMT_FORCE_STALE: 'on' }, /^ASMT_REQUIRE_PROOF and ASMT_FORCE_STALE cannot/],
  ];
  for (const [verb, env, message] of wrong) {
    const { values, sources } = given(verb, env);
    t.throws(() => resolve(verb, values, ['/d'], sources), { instanceOf: AsmtError, message });
  }
  t.throws(() => resolve('list', { quiet: true, verbose: true }, []), { message: '-q and -v cannot be used together' });
  t.throws(() => resolve('verify', { progress: 'xml' }, ['/d']), { message: '--progress is "xml", but must be text or json' });
});

test('a directory that is typed counts more than its variable', (t) => {
  const path = (verb: Verb, operands: string[]) => given(verb, { ASMT_DIR: '/a' }, {}, operands).values.path;
  for (const verb of ['backup', 'restore', 'verify', 'run', 'preflight'] as const) {
    t.is(path(verb, ['/b']), undefined, verb);
    t.is(path(verb, []), '/a', verb);
  }
  t.is(path('preflight', ['backup']), '/a');
  t.is(path('preflight', ['backup', '/b']), undefined);
});

test('a variable that turns a protection off, or the work, is remarked on', (t) => {
  const remarked = SPECS.filter(({ isRemarked }) => isRemarked).map(({ name }) => name);
  t.deepEqual(remarked, ['analyze', 'force-stale', 'force-host', 'allow-volatile', 'allow-private-ipc']);
  const { remarks } = given('restore', { ASMT_FORCE_STALE: '1' });
  t.deepEqual(
    remarks.map(({ code }) => code),
    ['set-by-variable'],
  );
  t.regex(remarks[0]?.message ?? '', /^ASMT_FORCE_STALE is set in the environment, as if --force-stale were typed: go on/);
  t.deepEqual(given('restore', { ASMT_FORCE_STALE: '0' }).remarks, []);
  t.deepEqual(given('restore', { ASMT_FORCE_STALE: '1' }, { 'force-stale': true }).remarks, []);
});

test("in ASMT's form no variable counts, and those that are set are named", (t) => {
  const env = { ASMT_FORCE_STALE: '1', ASMT_ANALYZE: 'nonsense', ASMT_VERBOSE: '0', ASMT_RESTORABLE: '1', ASMT_FORCESTALE: '1' };
  const { values, sources, remarks } = given('restore', env, { restore: true, path: '/d' }, [], 'asmt');
  t.deepEqual([values, sources.size], [{ restore: true, path: '/d' }, 0]);
  const message = 'variables have no effect in the form of ASMT (-b, -r), and these are set: ASMT_ANALYZE, ASMT_FORCE_STALE';
  t.deepEqual(remarks, [{ code: 'variable-without-effect', message }]);
});

test('a variable that nobody reads is named, with the one that may be meant', (t) => {
  const texts = (env: Environment) => given('backup', env).remarks.map(({ message }) => message);
  t.deepEqual(texts({ ASMT_FORCESTALE: '1', ASMT_NAMESPACES: 'a', ASMT_ZZZZZZ: '', HOME: '/' }), [
    'the variable ASMT_FORCESTALE is unknown and has no effect; did you mean ASMT_FORCE_STALE?',
    'the variable ASMT_NAMESPACES is unknown and has no effect; did you mean ASMT_NAMESPACE?',
    'the variable ASMT_ZZZZZZ is unknown and has no effect',
  ]);
  // Others of asmt, of its tests, of other programs; and those of a Kubernetes service.
  const known = ['ASMT_CONFIG', 'ASMT_RUNTIME_DIR', 'ASMT_UNPACK_DIR', 'ASMT_TEST_TMP', 'ASD_CONFIG_FILE', 'MY_ASMT_X'];
  const service = ['ASMT_SERVICE_HOST', 'ASMT_SERVICE_PORT', 'ASMT_PORT', 'ASMT_PORT_80_TCP', 'ASMT_PORT_80_TCP_ADDR'];
  const scripts = ['ASMT_DEMO_DIRECTORY', 'ASMT_BENCH_INSIDE', 'ASMT_ARCH_IN_NAMESPACE', 'ASMT_REFERENCE'];
  for (const name of [
    ...known,
    ...service,
    ...scripts,
    'ASMT_SERVICE_PORT_METRICS',
    'ASMT_BACKUP_SERVICE_HOST',
    'ASMT_BACKUP_PORT',
  ]) {
    t.deepEqual(texts({ [name]: 'x' }), [], name);
  }
});

test('a night that is set up by variables alone', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make');
  await machine.sim('make', '--name', 'bar', '--nsid', '2');
  const env = { ASMT_DIR: machine.path('b'), ASMT_NAMESPACE: 'bar', ASMT_CRC: 'yes', ASMT_RESTORABLE: '1' };
  await machine.expect(0, ['backup'], { env });
  t.deepEqual(
    machine.names(machine.path('b')).filter((name) => name.startsWith('asmt-manifest')),
    ['asmt-manifest-0-bar.json'],
  );
  const before = await machine.memory();
  await machine.sim('remove');
  await machine.expect(0, ['verify'], { env });
  const restored = await machine.expect(0, ['restore'], { env });
  t.regex(restored.stdout, /restored 1 namespace/, show(restored));
  t.true(before.includes((await machine.memory()).trim().split('\n').at(-1) ?? '-'), show(restored));
  const wrong = await machine.expect(2, ['backup'], { env: { ...env, ASMT_CRC: 'maybe', ASMT_JSON: '1' } });
  t.regex(wrong.stderr, /error: ASMT_CRC is "maybe", but must be one of /, show(wrong));
  t.is((JSON.parse(wrong.stdout) as { exit_status: number }).exit_status, 2);
});

test('a forgotten override is named in each run, and does not count in the form of ASMT', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make');
  const directory = machine.path('b');
  await machine.expect(0, ['backup', directory]);
  await machine.sim('remove');
  await machine.expect(0, ['retire', directory]);
  const env = { ASMT_FORCE_STALE: '1', ASMT_QUIT: '1' };
  const asmts = await machine.expect(1, ['-r', '-p', directory], { env });
  t.regex(asmts.stderr, /note: variables have no effect in the form of ASMT .*: ASMT_FORCE_STALE\n/, show(asmts));
  const forced = await machine.expect(0, ['restore', directory], { env });
  t.regex(forced.stderr, /note: ASMT_FORCE_STALE is set in the environment/, show(forced));
  t.regex(forced.stderr, /note: OVERRIDDEN BY --force-stale: /, show(forced));
  t.regex(forced.stderr, /note: the variable ASMT_QUIT is unknown .* ASMT_QUIET\?\n/, show(forced));
  // Not even -q hides that a protection was off.
  await machine.sim('remove');
  const quiet = await machine.expect(0, ['restore', '-q', directory], { env });
  t.is(quiet.stdout, '');
  t.deepEqual(quiet.stderr.match(/^asmt: note: \w+/gm), ['asmt: note: ASMT_FORCE_STALE', 'asmt: note: OVERRIDDEN'], show(quiet));
});
