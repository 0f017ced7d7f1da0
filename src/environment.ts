/**
 * The variables `ASMT_*`, which give options that are not typed: every option has one, by the
 * table. Pure: the environment is handed in.
 *
 * Promise: what is typed wins, also over a variable of an option that it excludes. In ASMT's own
 * form no variable counts: a script that was written for ASMT does the same whatever is set, where
 * a forgotten ASMT_ANALYZE or ASMT_COLUMNS would leave it without the backup that it counts on.
 */

import { similar } from './argv.ts';
import { AsmtError, type Form } from './errors.ts';
import {
  EXCLUSIVE,
  OPERANDS,
  SPECS,
  hasEffect,
  variablesOf,
  type OptionName,
  type OptionSpec,
  type Values,
  type Verb,
} from './options.ts';
import type { Remark } from './outcome.ts';
import type { Sources } from './policy.ts';

/** The environment of a process. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** What was typed, with what the environment adds. */
export interface Given {
  values: Values;
  sources: Sources;
  remarks: Remark[];
}

/** Variables that are no options: see docs/REFERENCE.md. */
const OTHERS = ['ASMT_CONFIG', 'ASMT_RUNTIME_DIR', 'ASMT_UNPACK_DIR'];
/**
 * Those of the tests, the demo and the benchmark, which run asmt; and what Kubernetes sets in every
 * pod beside a service of this name.
 */
const NOT_OURS =
  /^ASMT_((TEST|DEMO|BENCH|ARCH)_.*|REFERENCE|(\w+_)?SERVICE_(HOST|PORT)(_\w+)?|(\w+_)?PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)$/;

const ON = ['1', 'yes', 'true', 'on'];
const OFF = ['', '0', 'no', 'false', 'off'];

/** Whether a directory is set, for a command without one. */
export function hasDirectory(env: Environment): boolean {
  return set(env, 'path') !== '';
}

/** Whether the variable of a flag turns it on, even if the rest makes no sense. */
export function isOn(env: Environment, name: OptionName): boolean {
  return ON.includes(set(env, name).toLowerCase());
}

/** The value of an option's variable; empty without one. */
export function set(env: Environment, name: OptionName): string {
  const variables = SPECS.filter((spec) => spec.name === name).flatMap(variablesOf);
  return variables.map((variable) => env[variable] ?? '').find((value) => value !== '') ?? '';
}

/** Adds what the environment gives, or says that it does not count. Throws a usage error. */
export function withEnvironment(verb: Verb, form: Form, values: Values, operands: readonly string[], env: Environment): Given {
  const wanted = SPECS.filter((spec) => isWanted(spec, verb, values, operands)).flatMap((spec) =>
    variablesOf(spec).flatMap((variable) => {
      const value = env[variable] ?? '';
      return value === '' ? [] : [{ spec, variable, value }];
    }),
  );
  if (form === 'asmt') return { values, sources: new Map<string, string>(), remarks: withoutEffect(wanted) };
  const added = new Map<string, string | true>();
  const sources = new Map<string, string>();
  const remarks = unknown(env);
  for (const { spec, variable, value } of wanted) {
    const meant = meantBy(spec, variable, value);
    if (added.has(spec.name) || meant === null) continue;
    added.set(spec.name, meant);
    sources.set(spec.name, variable);
    if (spec.isRemarked) {
      const message = `${variable} is set in the environment, as if --${spec.name} were typed: ${spec.help}`;
      remarks.push({ code: 'set-by-variable', message });
    }
  }
  return { values: { ...Object.fromEntries(added), ...values }, sources, remarks };
}

interface Variable {
  spec: OptionSpec;
  variable: string;
  value: string;
}

/** Whether the command takes the option, and nothing that was typed decides about it. */
function isWanted(spec: OptionSpec, verb: Verb, values: Values, operands: readonly string[]): boolean {
  const isTyped = (name: OptionName) => values[name] !== undefined;
  const name = spec.name as OptionName;
  const isExcluded = EXCLUSIVE.some(
    ([first, second]) => (first === name && isTyped(second)) || (second === name && isTyped(first)),
  );
  const isOperand = name === 'path' && isDirectoryTyped(verb, operands);
  return hasEffect(spec, verb) && !isTyped(name) && !isExcluded && !isOperand;
}

/** Whether the directory stands among the operands. */
function isDirectoryTyped(verb: Verb, operands: readonly string[]): boolean {
  // The other operands of these are no directory.
  if (verb === 'run') return operands.length > 0;
  if (verb === 'preflight') return operands.some((word) => word !== 'backup' && word !== 'restore');
  return operands.length >= OPERANDS[verb].length;
}

/** The value that a variable gives to its option; null where it says that the option is off. */
function meantBy(spec: OptionSpec, variable: string, value: string): string | true | null {
  if (spec.value === undefined) return flag(spec, variable, value) ? true : null;
  if (!spec.isValueOptional) return value;
  // A number is a time.
  const isWord = /^[a-z]+$/i.test(value);
  if (isWord && OFF.includes(value.toLowerCase())) return null;
  return isWord && ON.includes(value.toLowerCase()) ? true : value;
}

/** Whether a flag is on. */
function flag(spec: OptionSpec, variable: string, value: string): boolean {
  const word = value.toLowerCase();
  if (!ON.includes(word) && !OFF.includes(word)) {
    throw AsmtError.usage(
      `${variable} is "${value}", but must be one of ${ON.join(', ')}, or ${OFF.slice(1).join(', ')}`,
      `write ${variable}=1 for --${spec.name}, or leave it out`,
    );
  }
  return ON.includes(word);
}

function withoutEffect(wanted: readonly Variable[]): Remark[] {
  const names = wanted.filter(({ value }) => !OFF.includes(value.toLowerCase())).map(({ variable }) => variable);
  if (names.length === 0) return [];
  const message = `variables have no effect in the form of ASMT (-b, -r), and these are set: ${names.join(', ')}`;
  return [{ code: 'variable-without-effect', message }];
}

/** Remarks on variables that nobody reads: a name may be mistyped. */
function unknown(env: Environment): Remark[] {
  const options = SPECS.flatMap(variablesOf);
  const known = new Set([...options, ...OTHERS]);
  return Object.keys(env)
    .filter((name) => name.startsWith('ASMT_') && !known.has(name) && !NOT_OURS.test(name))
    .toSorted()
    .map((name) => {
      const bare = (text: string) => text.slice('ASMT_'.length).toLowerCase();
      const near = similar(bare(name), [...options, ...OTHERS].map(bare)).map((text) => `ASMT_${text.toUpperCase()}`);
      const guess = near.length > 0 ? `; did you mean ${near.join(' or ')}?` : '';
      return { code: 'unknown-variable', message: `the variable ${name} is unknown and has no effect${guess}` };
    });
}
