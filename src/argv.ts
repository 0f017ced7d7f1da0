/**
 * Reads the command line, once: every form that getopt allows (`-ba`, `-zcv`, `-i2`, `-ntest`,
 * `-bavn test`) becomes values by the names of options, and it is decided which form it is: a
 * command, or ASMT's own (`-b`, `-r`).
 *
 * clipanion, which finds the command, would refuse `-i2` and would read `-bavn test` wrongly
 * without a word: it gets the command word alone. Pure: no I/O.
 */

import { parseArgs } from 'node:util';

import { AsmtError, type Form } from './errors.ts';
import { OPERANDS, SPECS, VERBS, optionNamed, type OptionSpec, type Values, type Verb } from './options.ts';
import { timeMs } from './times.ts';

/** What to do with a command line. */
export type Typed =
  | { kind: 'help'; verb: Verb | null }
  | { kind: 'version' }
  /**
   * `verb` is null in ASMT's form, where an option says what to do. `command` is what stands behind
   * `--`, and only `run` has it apart from its operands.
   */
  | { kind: 'run'; form: Form; verb: Verb | null; values: Values; operands: string[]; command: string[] };

/**
 * Reads a command line without the program's name. Throws a usage error. `hasDirectory` says that a
 * command without a directory has one all the same, from the environment.
 */
export function normalise(args: readonly string[], hasDirectory = false): Typed {
  const { options, operands: words } = read(args);
  const isRun = words[0]?.text === 'run' && !words[0].isBehind;
  const operands = isRun ? words.filter(({ isBehind }) => !isBehind) : words;
  const command = isRun ? words.filter(({ isBehind }) => isBehind).map(({ text }) => text) : [];
  const has = (name: string) => options.some((option) => option.spec.name === name);
  const [word, ...rest] = operands.map(({ text }) => text);
  const verb = VERBS.find((candidate) => candidate === word) ?? null;
  if (word === 'help') return { kind: 'help', verb: rest[0] === undefined || rest[0] === 'help' ? null : verbNamed(rest[0]) };
  if (has('help')) return { kind: 'help', verb: word === undefined ? null : verbNamed(word) };
  if (has('version')) return { kind: 'version' };
  if (has('backup') || has('restore')) {
    const typed = has('backup') ? '-b' : '-r';
    if (verb !== null) throw AsmtError.usage(`${word} and ${typed} cannot be used together`, 'use one of them');
    refuseLooseTime(args, options, operands);
    refuseSeveralValues(args, options, operands, 'asmt');
    if (word !== undefined) {
      const hint =
        operands.length === 1 && !has('path')
          ? `give the directory with -p: ${corrected(args, new Map([[operands[0]?.index ?? 0, ['-p', word]]]))}`
          : 'give the directory with -p DIR, and namespaces with -n a,b';
      throw AsmtError.usage(`unexpected argument "${word}"`, hint);
    }
    refuseSwallowed(args, options, has('restore') ? 'restore' : 'backup', false, ['-p']);
    return { kind: 'run', form: 'asmt', verb: null, values: valuesOf(options), operands: [], command };
  }
  if (verb === null) {
    if (word === undefined)
      throw AsmtError.usage('no command given', `use ${COMMANDS}, or the ASMT form with -b or -r; see asmt --help`);
    return { kind: 'run', form: 'commands', verb: verbNamed(word), values: {}, operands: [], command };
  }
  if (rest[0] === 'help' && rest.length === 1 && !has('path')) {
    throw AsmtError.usage(
      '"help" is not taken as a directory',
      `for help: asmt ${verb} --help; for a directory of that name: ./help`,
    );
  }
  refuseLooseTime(args, options, operands);
  refuseSeveralValues(args, options, operands.slice(1), verb);
  if (rest.length === 0) refuseSwallowed(args, options, verb, hasDirectory, []);
  return { kind: 'run', form: 'commands', verb, values: valuesOf(options), operands: rest, command };
}

const COMMANDS = `${VERBS.slice(0, -1).join(', ')} or ${VERBS.at(-1)}`;

/** What is meant by words that look like commands, and are options. */
const INSTEAD: Readonly<Record<string, readonly string[]>> = {
  analyze: ['asmt backup -a DIR', 'asmt restore -a DIR'],
  check: ['asmt verify DIR', 'asmt backup -a DIR'],
  version: ['asmt --version'],
};

/** The command of that name. Throws a usage error that names those that look like it. */
function verbNamed(word: string): Verb {
  const verb = VERBS.find((candidate) => candidate === word);
  if (verb !== undefined) return verb;
  const near = INSTEAD[word] ?? similar(word, VERBS).map((candidate) => `asmt ${candidate}`);
  const hint = near.length > 0 ? `did you mean ${near.join(' or ')}?` : `the commands are ${COMMANDS}`;
  throw AsmtError.usage(`unknown command "${word}"`, hint);
}

/** The command line with words in the place of others (by their index); for a shell. */
function corrected(args: readonly string[], changes: ReadonlyMap<number, readonly string[]>): string {
  return ['asmt', ...args.flatMap((arg, index) => changes.get(index) ?? [arg])].map(quoted).join(' ');
}

/** A word as a shell wants it. */
export function quoted(word: string): string {
  return /^[\w./,:@%+=-]+$/.test(word) ? word : `'${word.replaceAll("'", String.raw`'\''`)}'`;
}

/**
 * Refuses `-n a b DIR` and `--device d1 d2 DIR`: of what follows such an option, only the first
 * word is its value, and the rest must not pass for a directory. `operands` are without the command
 * word.
 */
function refuseSeveralValues(
  args: readonly string[],
  options: readonly Option[],
  operands: readonly Operand[],
  place: Verb | 'asmt',
): void {
  const hasPath = options.some(({ spec }) => spec.name === 'path');
  const needed = place === 'asmt' ? 1 : OPERANDS[place].filter((operand) => !operand.startsWith('[')).length;
  const wanted = needed - (hasPath ? 1 : 0);
  for (const { spec, typed, words } of options.filter((option) => option.spec.value?.endsWith(',...'))) {
    for (const { value, index, isAttached } of words) {
      const behind = index + (isAttached ? 1 : 2);
      const run = operandsFrom(operands, behind);
      const missing = wanted - (operands.length - run.length);
      const values = missing > 0 ? run.slice(0, -missing) : run;
      const isPath = spec.name === 'namespace' && values.some(({ text }) => text.includes('/'));
      if (values.length === 0 || isPath) continue;
      const changes = new Map<number, string[]>(values.map((operand) => [operand.index, []]));
      const all = [value, ...values.map(({ text }) => text)].join(',');
      const last = isAttached ? index : index + 1;
      const word = args[last] ?? '';
      changes.set(last, [isAttached ? word.slice(0, word.length - value.length) + all : all]);
      const directory = run.at(-1);
      if (place === 'asmt' && !hasPath && directory !== undefined && !values.includes(directory)) {
        changes.set(directory.index, ['-p', directory.text]);
      }
      const found = values.map(({ text }) => `"${text}"`).join(' and ');
      throw AsmtError.usage(
        `${typed} takes one word, but "${value}" is followed by ${found}`,
        `separate the values with commas: ${corrected(args, changes)}`,
      );
    }
  }
}

/** Refuses `--wait 90s`: the time would pass for a directory. */
function refuseLooseTime(args: readonly string[], options: readonly Option[], operands: readonly Operand[]): void {
  for (const { spec, typed, value } of options.filter((option) => option.spec.isValueOptional)) {
    const loose = operands.find(({ text, index }) => args[index - 1] === typed && timeMs(text) !== null);
    if (value !== undefined || loose === undefined) continue;
    const changes = new Map<number, string[]>([
      [loose.index - 1, [`${typed}=${loose.text}`]],
      [loose.index, []],
    ]);
    throw AsmtError.usage(
      `the ${spec.value} of ${typed} is joined to it by "=", but "${loose.text}" follows`,
      `write ${corrected(args, changes)}`,
    );
  }
}

/** Operands that stand one after the other from a place on. */
function operandsFrom(operands: readonly Operand[], index: number): Operand[] {
  const run: Operand[] = [];
  for (const operand of operands) {
    if (operand.index === index + run.length) run.push(operand);
  }
  return run;
}

/**
 * Refuses an option that took the directory for its value, as in `backup -n /srv/b`: the directory
 * is what is missing then.
 */
function refuseSwallowed(
  args: readonly string[],
  options: readonly Option[],
  verb: Verb,
  hasDirectory: boolean,
  before: readonly string[],
): void {
  const has = (name: string) => options.some(({ spec }) => spec.name === name);
  if (verb === 'list' || has('path')) return;
  const isOptional = hasDirectory || verb === 'preflight' || (verb === 'backup' && has('analyze'));
  for (const { spec, typed, words } of options) {
    for (const { value, index, isAttached } of words) {
      const isLast = !isAttached && index + 2 === args.length;
      const isOddPath = ['namespace', 'instance', 'threads', 'deadline'].includes(spec.name) && value.includes('/');
      if (!isOddPath && (!isLast || isOptional)) continue;
      const isDirectory = new Map<number, string[]>();
      const at = isAttached ? index : index + 1;
      const word = args[at] ?? '';
      const replaced = isAttached ? word.slice(0, word.length - value.length) + spec.value : spec.value;
      isDirectory.set(at, [replaced ?? '', ...before, value]);
      const isValue = `write ${corrected([...args, ...before, 'DIR'], new Map())}, or if "${value}" is the directory: `;
      throw AsmtError.usage(
        `${verb} needs a directory: "${value}" was read as the value of ${typed}`,
        `${isOddPath ? 'write ' : isValue}${corrected(args, isDirectory)}`,
      );
    }
  }
}

/** Whether JSON was asked for, even if the rest makes no sense. */
export function wantsJson(args: readonly string[]): boolean {
  return beforeOperands(args).includes('--json');
}

/** The form of progress that was asked for, even if the rest makes no sense. */
export function progressForm(args: readonly string[]): string | undefined {
  const words = beforeOperands(args);
  const attached = words.findLast((word) => word.startsWith('--progress='))?.slice('--progress='.length);
  const at = words.lastIndexOf('--progress');
  return attached ?? (at < 0 ? undefined : words[at + 1]);
}

/** The words up to `--`. */
function beforeOperands(args: readonly string[]): readonly string[] {
  const end = args.indexOf('--');
  return end < 0 ? args : args.slice(0, end);
}

/**
 * Whether it looks like ASMT's own form, even if the rest makes no sense: decides the exit status
 * of a usage error.
 */
export function looksLikeAsmt(args: readonly string[]): boolean {
  const flags = SPECS.filter((spec) => !spec.value).map((spec) => spec.short ?? '');
  const form = new RegExp(`^-[${flags.join('')}]*[br]`);
  return beforeOperands(args).some((arg) => form.test(arg) || arg === '--backup' || arg === '--restore');
}

interface Option {
  spec: OptionSpec;
  /** As it was typed, `-n` or `--namespace`. */
  typed: string;
  value: string | undefined;
  /** Each value that was typed, where its option's word is, and whether it is in that word. */
  words: { value: string; index: number; isAttached: boolean }[];
}

interface Operand {
  text: string;
  index: number;
  /** It stands behind `--`. */
  isBehind: boolean;
}

function read(args: readonly string[]): { options: Option[]; operands: Operand[] } {
  const config = Object.fromEntries(
    SPECS.flatMap((spec) =>
      [spec.name, ...(spec.aliases ?? [])].map((name) => [
        name,
        {
          type: spec.value && !spec.isValueOptional ? ('string' as const) : ('boolean' as const),
          ...(spec.short && name === spec.name ? { short: spec.short } : {}),
        },
      ]),
    ),
  );
  const { tokens } = parseArgs({ args: [...args], options: config, strict: false, allowPositionals: true, tokens: true });
  const options: Option[] = [];
  const operands: Operand[] = [];
  let isBehind = false;
  for (const token of tokens) {
    if (token.kind === 'option-terminator') isBehind = true;
    if (token.kind === 'positional') operands.push({ text: token.value, index: token.index, isBehind });
    if (token.kind !== 'option') continue;
    const letter = token.rawName.startsWith('--') ? undefined : token.rawName[1];
    const spec = letter === undefined ? optionNamed(token.name) : SPECS.find((candidate) => candidate.short === letter);
    if (spec === undefined) throw unknownOption(token.rawName);
    add(options, spec, token.rawName, token.value, token.inlineValue === true, token.index);
  }
  return { options, operands };
}

function add(
  options: Option[],
  spec: OptionSpec,
  typed: string,
  value: string | undefined,
  isAttached: boolean,
  index: number,
): void {
  if (spec.value === undefined) {
    if (value !== undefined)
      throw AsmtError.usage(`${typed} takes no value, but "${value}" is given`, `write ${typed} without a value`);
  } else if (value === undefined && spec.isValueOptional) {
    // It stands alone.
  } else if (value === undefined || value === '') {
    throw AsmtError.usage(`${typed} needs a value`, `write ${typed}${spec.isValueOptional ? '=' : ' '}${spec.value}`);
  } else if (!isAttached && value.startsWith('-')) {
    // getopt would take what follows, whatever it is: a forgotten value would swallow an option in
    // silence.
    throw AsmtError.usage(`${typed} needs a value, but "${value}" follows`, `write ${typed} ${spec.value}`);
  }
  const words = value === undefined ? [] : [{ value, index, isAttached }];
  const twin = options.find((option) => option.spec === spec);
  if (twin === undefined) {
    options.push({ spec, typed, value, words });
  } else if (spec.repeats) {
    twin.value = `${twin.value},${value}`;
    twin.words.push(...words);
  } else if (twin.value !== value) {
    const hint = spec.name === 'namespace' ? 'give all names at once, separated by commas' : 'give it once';
    throw AsmtError.usage(`--${spec.name} is given twice, as "${twin.value}" and as "${value}"`, hint);
  } else {
    twin.words.push(...words);
  }
}

function valuesOf(options: readonly Option[]): Values {
  return Object.fromEntries(options.map(({ spec, value }) => [spec.name, value ?? true])) as Values;
}

function unknownOption(typed: string): AsmtError {
  const names = SPECS.flatMap((spec) => [spec.name, ...(spec.aliases ?? [])]);
  const near = typed.startsWith('--') ? similar(typed.slice(2), names).map((name) => `--${name}`) : [];
  return AsmtError.usage(`unknown option ${typed}`, near.length > 0 ? `did you mean ${near.join(' or ')}?` : 'see asmt --help');
}

/**
 * The candidates that begin with the word; without such, those that are fewest letters away, and
 * not too many.
 */
export function similar(typed: string, candidates: readonly string[]): string[] {
  const word = typed.toLowerCase();
  const begun = word.length > 1 ? candidates.filter((candidate) => candidate.startsWith(word)) : [];
  if (begun.length > 0) return begun;
  // "test" is no "list": of a short word, one letter may be wrong.
  const most = word.length < 3 ? 0 : word.length < 6 ? 1 : 2;
  const distances = candidates.map((candidate) => distance(word, candidate));
  const least = Math.min(...distances);
  return least > most ? [] : candidates.filter((_, index) => distances[index] === least);
}

/**
 * How many letters are missing, too many, wrong, or swapped with the next one (Levenshtein,
 * Damerau).
 */
function distance(a: string, b: string): number {
  let before: number[] = [];
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 0; i < a.length; i += 1) {
    const next = [i + 1];
    for (let j = 0; j < b.length; j += 1) {
      const changed = (row[j] ?? 0) + (a[i] === b[j] ? 0 : 1);
      const isSwapped = i > 0 && j > 0 && a[i] === b[j - 1] && a[i - 1] === b[j];
      const swapped = isSwapped ? (before[j - 1] ?? 0) + 1 : Number.POSITIVE_INFINITY;
      next.push(Math.min(changed, swapped, (row[j + 1] ?? 0) + 1, (next[j] ?? 0) + 1));
    }
    [before, row] = [row, next];
  }
  return row[b.length] ?? 0;
}
