/**
 * What was typed, made regular: every form that getopt allows (`-ba`, `-zcv`, `-i2`, `-ntest`, `-bavn test`) becomes long
 * options with values, and it is decided which form it is: a command, or ASMT's own (`-b`, `-r`).
 *
 * clipanion alone would refuse `-i2` and would take `-bavn test` for something else without a word. Pure: no I/O.
 */

import { parseArgs } from 'node:util';

import { AsmtError, type Form } from './errors.ts';
import { OPTIONS, VERBS, optionNamed, type OptionSpec, type Verb } from './options.ts';

/** What to do with a command line. */
export type Typed =
  | { kind: 'help'; verb: Verb | null }
  | { kind: 'version' }
  /** `argv` is what clipanion reads: the command word (none in ASMT's form), long options, `--`, operands. */
  | { kind: 'run'; form: Form; argv: string[] };

const SPECS: readonly OptionSpec[] = OPTIONS;

/** Reads a command line without the program's name. Throws a usage error. */
export function normalise(args: readonly string[]): Typed {
  const { options, operands } = read(args);
  const has = (name: string) => options.some((option) => option.spec.name === name);
  const [word, ...rest] = operands;
  const verb = VERBS.find((candidate) => candidate === word) ?? null;
  if (has('help') || word === 'help') {
    return { kind: 'help', verb: word === 'help' ? (VERBS.find((candidate) => candidate === rest[0]) ?? null) : verb };
  }
  if (has('version')) return { kind: 'version' };
  if (has('backup') || has('restore')) {
    if (verb !== null) {
      throw AsmtError.usage(`${word} and ${has('backup') ? '-b' : '-r'} are two forms of saying what to do`, 'use one of them');
    }
    if (word !== undefined) {
      throw AsmtError.usage(`what is "${word}" for?`, 'give the directory by -p DIR, and namespaces by -n a,b');
    }
    return { kind: 'run', form: 'asmt', argv: options.map(canonical) };
  }
  if (verb === null) {
    const commands = `${VERBS.slice(0, -1).join(', ')} or ${VERBS.at(-1)}`;
    if (word === undefined)
      throw AsmtError.usage('no command is given', `say ${commands}, or use ASMT's form with -b or -r; see asmt --help`);
    const near = nearest(word, VERBS);
    throw AsmtError.usage(`there is no command "${word}"`, near ? `did you mean asmt ${near}?` : `the commands are ${commands}`);
  }
  return { kind: 'run', form: 'commands', argv: [verb, ...options.map(canonical), ...(rest.length > 0 ? ['--', ...rest] : [])] };
}

/** Whether JSON was asked for, even if the rest makes no sense. */
export function wantsJson(args: readonly string[]): boolean {
  const end = args.indexOf('--');
  return (end < 0 ? args : args.slice(0, end)).includes('--json');
}

/** Whether it looks like ASMT's own form, even if the rest makes no sense: decides the exit status of a usage error. */
export function looksLikeAsmt(args: readonly string[]): boolean {
  return args.some((arg) => /^-[acvz]*[br]/.test(arg) || arg === '--backup' || arg === '--restore');
}

interface Option {
  spec: OptionSpec;
  value: string | undefined;
}

function read(args: readonly string[]): { options: Option[]; operands: string[] } {
  const config = Object.fromEntries(
    SPECS.flatMap((spec) =>
      [spec.name, ...(spec.aliases ?? [])].map((name) => [
        name,
        {
          type: spec.value ? ('string' as const) : ('boolean' as const),
          ...(spec.short && name === spec.name ? { short: spec.short } : {}),
        },
      ]),
    ),
  );
  const { tokens } = parseArgs({ args: [...args], options: config, strict: false, allowPositionals: true, tokens: true });
  const options: Option[] = [];
  const operands: string[] = [];
  for (const token of tokens) {
    if (token.kind === 'positional') operands.push(token.value);
    if (token.kind !== 'option') continue;
    const letter = token.rawName.startsWith('--') ? undefined : token.rawName[1];
    const spec = letter === undefined ? optionNamed(token.name) : SPECS.find((candidate) => candidate.short === letter);
    if (spec === undefined) throw unknownOption(token.rawName);
    add(options, spec, token.rawName, token.value, token.inlineValue === true);
  }
  return { options, operands };
}

function add(options: Option[], spec: OptionSpec, typed: string, value: string | undefined, isAttached: boolean): void {
  if (spec.value === undefined) {
    if (value !== undefined) throw AsmtError.usage(`${typed} takes no value, but "${value}" is given`, `write ${typed} alone`);
  } else if (value === undefined || value === '') {
    throw AsmtError.usage(`${typed} needs a value`, `write ${typed} ${spec.value}`);
  } else if (!isAttached && value.startsWith('-')) {
    // getopt would take what follows, whatever it is: a forgotten value would swallow an option in silence.
    throw AsmtError.usage(`${typed} needs a value, but "${value}" follows`, `write ${typed} ${spec.value}`);
  }
  const twin = options.find((option) => option.spec === spec);
  if (twin === undefined) {
    options.push({ spec, value });
  } else if (spec.repeats) {
    twin.value = `${twin.value},${value}`;
  } else if (twin.value !== value) {
    const hint = spec.name === 'namespace' ? 'give all names at once, separated by commas' : 'give it once';
    throw AsmtError.usage(`--${spec.name} is given twice, as "${twin.value}" and as "${value}"`, hint);
  }
}

function canonical({ spec, value }: Option): string {
  return value === undefined ? `--${spec.name}` : `--${spec.name}=${value}`;
}

function unknownOption(typed: string): AsmtError {
  const near = typed.startsWith('--')
    ? nearest(
        typed.slice(2),
        SPECS.flatMap((spec) => [spec.name, ...(spec.aliases ?? [])]),
      )
    : undefined;
  return AsmtError.usage(`there is no option ${typed}`, near ? `did you mean --${near}?` : 'see asmt --help');
}

/** The candidate that is at most two letters away, or begins with the word. */
function nearest(word: string, candidates: readonly string[]): string | undefined {
  const ranked = candidates.map((candidate) => ({ candidate, distance: distance(word, candidate) }));
  const best = ranked.toSorted((a, b) => a.distance - b.distance)[0];
  if (best !== undefined && best.distance <= Math.min(2, word.length - 1)) return best.candidate;
  return word.length > 1 ? candidates.find((candidate) => candidate.startsWith(word)) : undefined;
}

/** Levenshtein's. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (const [i, letter] of Array.from(a).entries()) {
    const next = [i + 1];
    for (const [j, other] of Array.from(b).entries()) {
      next.push(Math.min((row[j] ?? 0) + (letter === other ? 0 : 1), (row[j + 1] ?? 0) + 1, (next[j] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}
