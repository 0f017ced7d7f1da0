/**
 * What was typed becomes what is meant: defaults, limits and what goes with what. Pure: no I/O, no
 * addon, no clock.
 *
 * Promise: a request that comes out of here is complete and in range; everything else is a usage
 * error with a next step.
 */

import { quoted } from './argv.ts';
import { AsmtError } from './errors.ts';
import type { Leg, NamespaceReport, Request } from './generated/engine.ts';
import {
  EXCLUSIVE,
  SPECS,
  optionNamed,
  type Field,
  type OptionName,
  type OptionSpec,
  type Values,
  type Verb,
} from './options.ts';
import type { ErrorText, Remark } from './outcome.ts';
import { FOREVER_MS, timeMs, typedTime } from './times.ts';

/** Longest name of a namespace, in bytes. */
export const MAX_NAME_BYTES = 31;

/** What is meant. */
export interface Invocation {
  request: Request;
  remarks: Remark[];
  verbose: boolean;
  quiet: boolean;
  json: boolean;
  progress: 'text' | 'json';
  /** How long it may take, in milliseconds; null without a limit. */
  deadlineMs: number | null;
  /** File for the metrics of this run. */
  metrics: string | null;
}

/** What is meant by `run`. */
export interface RunInvocation {
  restore: Invocation;
  backup: Invocation;
  /** Program and arguments; empty where asmt only waits for a signal. */
  command: readonly string[];
  /** Do not go on without the restore. */
  hold: boolean;
  /** File that is there while the server may run. */
  ready: string | null;
}

/** A verb that the engine knows. */
export type EngineVerb = Exclude<Verb, 'run'>;

/** The variables that gave options which were not typed. */
export type Sources = ReadonlyMap<string, string>;

/** The verb of ASMT's own form. */
export function verbOfAsmtForm(values: Values): EngineVerb {
  if (values.backup && values.restore)
    throw AsmtError.usage('both -b and -r are given', 'use one of them: -b backs up, -r restores');
  return values.restore ? 'restore' : 'backup';
}

/**
 * What is meant by `verb` with these values and, behind the command, `operands`. An error names the
 * variable of an option that comes from one.
 */
export function resolve(
  verb: EngineVerb,
  values: Values,
  operands: readonly string[],
  sources: Sources = new Map<string, string>(),
): Invocation {
  refuseForeignOptions(verb, values);
  refuseExclusive(values, sources);
  refuseOtherChoices(values, sources);
  const remarks: Remark[] = [];
  const { leg, words } = legOf(verb, operands);
  const { rest, output } = outputOf(verb, words, values.path !== undefined);
  // What is in memory can be checked without a directory, as in the documentation of ASMT: asmt -a
  // -b -n test.
  const isOptional = verb === 'backup' ? values.analyze === true : verb === 'preflight' && leg !== 'restore';
  const directory = directoryOf(
    verb,
    leg === null ? verb : `${verb} ${leg}`,
    text(values.path),
    rest,
    isOptional,
    sources.get('path'),
  );
  if (verb === 'backup' && directory === null) {
    const message = 'no directory given: free space and write permission are not checked';
    remarks.push({ code: 'no-directory', message });
  }
  if (verb === 'restore' && (values.compress ?? values.columns)) {
    remarks.push({
      code: 'compress-ignored',
      message: `${values.columns ? '-Z' : '-z'} has no effect on restore: compressed files are detected automatically`,
    });
  }
  const isOfVerb = ({ field, verbs }: OptionSpec) => field !== undefined && (field.verbs ?? verbs).includes(verb);
  const fields = SPECS.filter(isOfVerb).map(fieldOf(verb, values, sources));
  const places = verb === 'list' ? {} : verb === 'export' ? { directory, output } : { directory };
  const about = verb === 'preflight' ? { leg } : {};
  const request = { verb, ...about, ...places, ...Object.fromEntries(fields) } as Request;
  const deadlineMs = time('--deadline', values.deadline);
  const metrics = pathOf('--metrics', text(values.metrics));
  const { verbose, quiet, json, progress } = values;
  return {
    request,
    remarks,
    verbose: verbose === true,
    quiet: quiet === true,
    json: json === true,
    progress: progress === 'json' ? 'json' : 'text',
    deadlineMs,
    metrics,
  };
}

/** What is meant by `run`, and by each of its two halves. */
export function resolveRun(
  values: Values,
  operands: readonly string[],
  command: readonly string[],
  sources: Sources = new Map<string, string>(),
): RunInvocation {
  refuseForeignOptions('run', values);
  const isNamed = values.path !== undefined && operands[0] !== values.path;
  const words = operands.slice(isNamed ? 0 : 1);
  if (words.length > 0 && command.length === 0) {
    const line = ['asmt', 'run', ...(isNamed ? ['-p', text(values.path) ?? ''] : operands.slice(0, 1)), '--', ...words];
    const hint = `a command stands behind two dashes: ${line.map(quoted).join(' ')}`;
    throw AsmtError.usage(`unexpected argument "${words[0]}"`, hint);
  }
  directoryOf('run', 'run', text(values.path), operands, false, sources.get('path'));
  if (command[0] === '') throw AsmtError.usage('the command is empty', 'is a variable in the script unset?');
  const half = (verb: 'backup' | 'restore', added: Record<string, true>): Invocation =>
    resolve(verb, { ...halfOf(verb, values), ...added }, operands, sources);
  // The server lives in the namespace in which asmt waits for it: the restored segments outlast
  // the restore. Of another container than its own, asmt knows nothing.
  const lasting = command.length > 0 ? { 'allow-private-ipc': true as const } : {};
  return {
    restore: half('restore', lasting),
    // The backup that was restored is in the way of the next one.
    backup: half('backup', { replace: true }),
    command,
    hold: values.hold === true,
    ready: pathOf('--ready', text(values.ready)),
  };
}

/** Those of the options of `run` that one of its halves does something with. */
function halfOf(verb: 'backup' | 'restore', values: Values): Values {
  const isOfHalf = ([name]: [string, unknown]) => {
    const spec = optionNamed(name);
    return (spec?.field?.verbs ?? spec?.verbs ?? []).includes(verb);
  };
  return Object.fromEntries(Object.entries(values).filter(isOfHalf));
}

/**
 * What `run` does after its restore: `go` where nothing is missing, `cold` where it goes on without
 * what was to be restored, `leave` where it does not go on.
 */
export function afterRestore(error: ErrorText | null, hold: boolean, isAlone: boolean): 'go' | 'cold' | 'leave' {
  if (error === null || error.kind === 'nothing-to-do') return 'go';
  // Without a command, a server that runs already cannot be held: asmt was started again beside
  // it, and must be there for the backup.
  if (isAlone && error.problems.some(({ code }) => code === 'segment-attached')) return 'go';
  // A directory that is mistyped or not mounted would cost the restore now and the backup later.
  if (error.kind === 'usage' || error.kind === 'interrupted' || hold) return 'leave';
  return 'cold';
}

/** Name and value of the field that an option fills. */
function fieldOf(verb: Verb, values: Values, sources: Sources): (spec: OptionSpec) => [string, unknown] {
  return (spec) => {
    const { name, field } = spec;
    const value = text(values[name as OptionName]);
    const given = sources.get(name) ?? `--${name}`;
    switch (field?.kind) {
      case 'integer': {
        const number = integer(spec, given, value);
        // A restore, and with it the mark that one was used, is of one server.
        const isOfOne = name === 'instance' && verb !== 'list' && verb !== 'verify';
        return [field.name, number ?? (isOfOne ? 0 : null)];
      }
      case 'names':
        return [field.name, namesOf(given, value)];
      case 'path':
        return [field.name, pathOf(given, value)];
      case 'paths':
        return [field.name, pathsOf(given, value)];
      case 'time':
        return [field.name, time(given, values[name as OptionName])];
      case 'flag':
      case undefined:
        return [field?.name ?? name, values[name as OptionName] === true];
      default:
        // A kind that has no case above does not compile here.
        throw new TypeError(`unknown kind of field: ${String(field?.kind satisfies undefined)}`);
    }
  };
}

/** The directory that a request is for; null where it has none. */
export function directoryIn(request: Request): string | null {
  return 'directory' in request ? request.directory : null;
}

/** What a field of a request holds. */
type Value = string | number | boolean | readonly string[] | null;

/** Where the words of an option stand in a command: flags and paths first, names last. */
const PLACES: Readonly<Record<Field['kind'], 0 | 1 | 2>> = {
  flag: 0,
  path: 0,
  paths: 0,
  time: 0,
  integer: 1,
  names: 2,
};

/** The words of a command that asks for the same, without the word before them. */
export function wordsOf({ request, deadlineMs }: Pick<Invocation, 'request' | 'deadlineMs'>): string[] {
  const given = new Map<string, Value>(Object.entries(request));
  const placeOf = ({ field }: OptionSpec) => (field === undefined ? null : PLACES[field.kind]);
  const wordsAt = (place: number) => SPECS.filter((spec) => placeOf(spec) === place).flatMap((spec) => wordsFor(spec, given));
  const deadline = deadlineMs === null ? [] : ['--deadline', typedTime(deadlineMs)];
  return [...wordsAt(0), ...deadline, ...wordsAt(1), ...wordsAt(2)];
}

function wordsFor({ name, short, field }: OptionSpec, given: ReadonlyMap<string, Value>): string[] {
  const value = given.get(field?.name ?? '');
  const option = short === undefined ? `--${name}` : `-${short}`;
  // Instance 0 is the usual one, but where every one is meant without it.
  const isUsualInstance = name === 'instance' && value === 0 && given.get('verb') !== 'verify';
  const isNothing = value === undefined || value === null || value === false || (Array.isArray(value) && value.length === 0);
  // What is run is not what was analyzed.
  if (isNothing || name === 'analyze' || isUsualInstance) return [];
  if (field?.kind === 'time') return [value === FOREVER_MS ? option : `${option}=${typedTime(Number(value))}`];
  return value === true ? [option] : [option, quoted(Array.isArray(value) ? value.join(',') : String(value))];
}

function refuseForeignOptions(verb: Verb, values: Values): void {
  for (const spec of SPECS) {
    const isGiven = values[spec.name as OptionName] !== undefined;
    if (isGiven && !spec.verbs.includes(verb)) {
      throw AsmtError.usage(
        `${verb} takes no --${spec.name}`,
        `it is an option of ${spec.verbs.join(', ')}; see asmt ${verb} --help`,
      );
    }
  }
}

/** An option as an error names it: its variable if it comes from one, else its shortest name. */
function namedIn(sources: Sources, name: OptionName): string {
  const short = optionNamed(name)?.short;
  return sources.get(name) ?? (short === undefined ? `--${name}` : `-${short}`);
}

function refuseExclusive(values: Values, sources: Sources): void {
  for (const [first, second, why] of EXCLUSIVE) {
    if (values[first] === undefined || values[second] === undefined) continue;
    const names = [first, second].map((name) => namedIn(sources, name));
    throw AsmtError.usage(`${names.join(' and ')} cannot be used together`, `use one of them: ${why}`);
  }
}

function refuseOtherChoices(values: Values, sources: Sources): void {
  for (const { name, choices } of SPECS) {
    const value = values[name as OptionName];
    if (choices === undefined || typeof value !== 'string' || choices.includes(value)) continue;
    const given = sources.get(name) ?? `--${name}`;
    throw AsmtError.usage(`${given} is "${value}", but must be ${choices.join(' or ')}`, `write --${name} ${choices[0]}`);
  }
}

function text(value: string | true | undefined): string | undefined {
  return typeof value === 'string' ? value : undefined;
}

/** A time in milliseconds: forever where it is not said; null where the option is not given. */
function time(option: string, typed: string | true | undefined): number | null {
  if (typed === undefined) return null;
  if (typed === true) return FOREVER_MS;
  const ms = timeMs(typed);
  if (ms === null) {
    const hint = `write a time such as ${option}=90s, ${option}=10min or ${option}=1h30min`;
    throw AsmtError.usage(`${option} is "${typed}", which is not a time of at most a year`, hint);
  }
  return ms;
}

/** The directory that an export writes to, which is the last word, and the words before it. */
function outputOf(verb: Verb, operands: readonly string[], hasPath: boolean): { rest: readonly string[]; output: string | null } {
  if (verb !== 'export') return { rest: operands, output: null };
  const output = operands.at(-1);
  if (output === undefined || operands.length + (hasPath ? 1 : 0) !== 2) {
    throw AsmtError.usage('export needs two directories', 'write asmt export DIR OUT: the backup, and a new directory');
  }
  refuseOddPath('the directory to write to', output);
  return { rest: operands.slice(0, -1), output };
}

/** What a preflight is about, which is the first word, and the words after it. */
function legOf(verb: Verb, operands: readonly string[]): { leg: Leg | null; words: readonly string[] } {
  const [first, ...words] = operands;
  const isLeg = verb === 'preflight' && (first === 'backup' || first === 'restore');
  return isLeg ? { leg: first, words } : { leg: null, words: operands };
}

function directoryOf(
  verb: Verb,
  command: string,
  path: string | undefined,
  operands: readonly string[],
  isOptional: boolean,
  variable = 'the directory',
): string | null {
  const [operand, ...more] = operands;
  if (verb === 'list') {
    if (operand !== undefined)
      throw AsmtError.usage(`unexpected argument "${operand}"`, 'list takes no directory; asmt verify DIR checks a backup');
    return null;
  }
  if (more.length > 0) {
    const words = operands.map((word) => `"${word}"`).join(', ');
    const message = `${command} takes one directory, but ${operands.length} are given: ${words}`;
    throw AsmtError.usage(message, 'give one of them; put a path with a space in it in quotes');
  }
  if (path !== undefined && operand !== undefined && path !== operand) {
    throw AsmtError.usage(`two directories are given, "${operand}" and "${path}"`, 'give one of them');
  }
  const directory = path ?? operand;
  if (directory === undefined && isOptional) return null;
  if (directory === undefined) throw AsmtError.usage(`${command} needs a directory`, `write asmt ${command} DIR, or -p DIR`);
  refuseOddPath(variable, directory);
  return directory;
}

function refuseOddPath(what: string, path: string): void {
  if (path === '') throw AsmtError.usage(`${what} is empty`, 'is a variable in the script unset?');
  // Node puts this in the place of bytes that are no UTF-8: it would be another path than the one
  // that is meant.
  if (path.includes('\uFFFD') || path.includes('\0')) {
    throw AsmtError.usage(`${what} is not valid UTF-8: "${path}"`, 'choose a plain name');
  }
}

function pathOf(option: string, typed: string | undefined): string | null {
  if (typed === undefined) return null;
  refuseOddPath(option, typed);
  return typed;
}

function pathsOf(option: string, typed: string | undefined): string[] {
  if (typed === undefined) return [];
  const paths = typed.split(',');
  for (const path of paths) refuseOddPath(`a path of ${option}`, path);
  return [...new Set(paths)];
}

function namesOf(option: string, typed: string | undefined): string[] | null {
  if (typed === undefined) return null;
  const names = typed.split(',');
  for (const name of names) {
    if (name === '') throw AsmtError.usage(`a name in ${option} "${typed}" is empty`, 'separate names with one comma: -n a,b');
    // oxlint-disable-next-line no-control-regex -- they are what this is about
    if (/[\u0000-\u001f\u007f-\u009f\ufffd]/.test(name)) {
      throw AsmtError.usage(
        `namespace "${name}" contains a character that is not allowed in a name`,
        'asmt list shows the names',
      );
    }
    const bytes = Buffer.byteLength(name);
    if (bytes > MAX_NAME_BYTES) {
      throw AsmtError.usage(
        `namespace "${name}" has ${bytes} bytes; at most ${MAX_NAME_BYTES} are allowed`,
        'asmt list shows the names',
      );
    }
  }
  return [...new Set(names)];
}

function integer({ name, short, range }: OptionSpec, option: string, typed: string | undefined): number | null {
  if (typed === undefined) return null;
  const value = Number(typed);
  const [least, most] = range ?? [0, Number.MAX_SAFE_INTEGER];
  if (!/^[0-9]{1,9}$/.test(typed) || value < least || value > most) {
    throw AsmtError.usage(
      `${option} is "${typed}", but must be a whole number from ${least} to ${most}`,
      `write ${option === `--${name}` ? `${short === undefined ? option : `-${short}`} ` : `${option}=`}${least}, for example`,
    );
  }
  return value;
}

/**
 * What a list was asked for and did not find, as a failure; null if it found everything. `all` is
 * what there is, whatever was asked for.
 */
export function notFound(
  { namespaces, instance }: Pick<Request, 'namespaces' | 'instance'>,
  found: readonly NamespaceReport[],
  all: readonly NamespaceReport[],
): AsmtError | null {
  const missing = (namespaces ?? []).filter((name) => !found.some((namespace) => namespace.name === name));
  if (missing.length === 0 && (found.length > 0 || (namespaces === null && instance === null))) return null;
  const names = missing.map((name) => `'${name}'`).join(', ');
  const what = missing.length > 0 ? `namespace ${names}` : 'Aerospike segments';
  const place = instance === null ? '' : ` of instance ${instance}`;
  const others = all.map(({ name, nsid, data_nsid: dataNsid, instance: other }) => {
    return `${name === null ? `nsid ${nsid ?? dataNsid} (no name)` : `'${name}'`} of instance ${other}`;
  });
  const there = others.length > 0 ? others.join(', ') : 'no Aerospike segments';
  return new AsmtError(
    'nothing-to-do',
    'nothing-found',
    `found no ${what}${place} in shared memory; this IPC namespace contains ${there}`,
    'asmt list shows everything that exists; if the server runs in a container, run asmt in that container',
  );
}
