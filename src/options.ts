/**
 * Every option of asmt, once: the normaliser of what was typed, the commands, the help and the
 * tests walk this table.
 *
 * Must never: know how an option is carried out.
 */

import type { Verb as EngineVerb } from './generated/engine.ts';

/** What can be asked of the engine, and `run`, which asks it for a restore and for a backup. */
export type Verb = EngineVerb | 'run';
export const VERBS = [
  'list',
  'preflight',
  'backup',
  'restore',
  'verify',
  'retire',
  'export',
  'run',
] as const satisfies readonly Verb[];

/** What a command is for, in a line of the help. */
export const VERB_HELP: Readonly<Record<Verb, string>> = {
  list: 'show the Aerospike segments in shared memory',
  preflight: 'say what would stand in the way of a backup or a restore, and do nothing',
  backup: 'copy the segments to files in DIR before a reboot',
  restore: 'copy the files in DIR back to shared memory before the server starts',
  verify: 'read the backup in DIR and compare it with its manifest',
  retire: 'mark the backup in DIR as used, so that it is not restored again',
  export: 'write the backup in DIR to OUT, in the form of ASMT',
  run: 'restore, run the server (or wait for SIGTERM), back up',
};

/** What stands behind the options of a command; in brackets what may be left out. */
export const OPERANDS: Readonly<Record<Verb, readonly string[]>> = {
  list: [],
  preflight: ['[backup|restore]', '[DIR]'],
  backup: ['DIR'],
  restore: ['DIR'],
  verify: ['DIR'],
  retire: ['DIR'],
  export: ['DIR', 'OUT'],
  run: ['DIR', '[-- COMMAND ...]'],
};

export interface OptionSpec {
  /** Long name, without dashes. */
  readonly name: string;
  /** Other long names. */
  readonly aliases?: readonly string[];
  /** One letter. */
  readonly short?: string;
  /** What stands for the value in the help; a flag has none. */
  readonly value?: string;
  /** It may stand without its value, which is joined to it by `=`. */
  readonly isValueOptional?: true;
  /** May be given several times: the values are joined by commas. */
  readonly repeats?: true;
  /**
   * Which commands take it; ASMT's own form takes what backup or restore takes, and so does `run`
   * (see `SPECS`).
   */
  readonly verbs: readonly Verb[];
  /**
   * Field of the engine's request that it fills, and what its value is; none where it is about the
   * form of the command or of its output.
   */
  readonly field?: Field;
  /** Least and largest value of a whole number. */
  readonly range?: readonly [number, number];
  /** Values that it can have, if these are words. */
  readonly choices?: readonly string[];
  /** Only in ASMT's own form, where it says what to do. */
  readonly selectsVerb?: Verb;
  /** Its variable, if that is not `ASMT_` and its name; null for none (see `variablesOf`). */
  readonly variable?: string | null;
  /**
   * It turns a protection off, or the work: where a variable asks for it, every run says so.
   */
  readonly isRemarked?: true;
  readonly help: string;
}

/** A field of a request: its name in the engine, and how its value is read. */
export interface Field {
  readonly name: string;
  readonly kind: 'flag' | 'integer' | 'names' | 'path' | 'paths' | 'time';
  /** Whose requests have it, if not those of all commands that take the option. */
  readonly verbs?: readonly Verb[];
}

const ALL = VERBS;
const WITH_DIRECTORY = ['preflight', 'backup', 'restore', 'verify', 'retire', 'export'] as const;
const WITH_DATA = ['backup', 'restore', 'verify', 'export'] as const;
const WITH_SERVER = ['preflight', ...WITH_DATA] as const;

export const OPTIONS = [
  {
    name: 'namespace',
    short: 'n',
    value: 'NAME,...',
    verbs: ALL,
    help: 'only these namespaces (default: all of the instance)',
    field: { name: 'namespaces', kind: 'names' },
  },
  {
    name: 'instance',
    short: 'i',
    value: 'N',
    verbs: ALL,
    help: 'instance 0 to 15 (default: 0; list and verify: all)',
    field: { name: 'instance', kind: 'integer' },
    range: [0, 15],
  },
  {
    name: 'path',
    short: 'p',
    value: 'DIR',
    verbs: WITH_DIRECTORY,
    help: 'backup directory (same as the DIR argument)',
    variable: 'ASMT_DIR',
  },
  {
    name: 'compress',
    short: 'z',
    verbs: ['preflight', 'backup', 'restore', 'export'],
    help: 'compress with gzip, as ASMT does; restore detects it automatically',
    field: { name: 'compress', kind: 'flag', verbs: ['preflight', 'backup', 'export'] },
  },
  {
    name: 'columns',
    short: 'Z',
    verbs: ['preflight', 'backup', 'restore'],
    help: 'compress by columns: smaller and faster; ASMT cannot read it',
    field: { name: 'columns', kind: 'flag', verbs: ['preflight', 'backup'] },
  },
  {
    name: 'crc',
    short: 'c',
    verbs: WITH_DATA,
    help: 'read everything back and compare; verify: read from the disk',
    field: { name: 'check', kind: 'flag' },
  },
  {
    name: 'threads',
    short: 't',
    value: 'N',
    verbs: WITH_DATA,
    help: 'worker threads, 1 to 1024 (default: 2 per CPU, at least 12)',
    field: { name: 'threads', kind: 'integer' },
    range: [1, 1024],
  },
  {
    name: 'analyze',
    aliases: ['dry-run'],
    short: 'a',
    verbs: WITH_DATA,
    help: 'check only, and show what would be done',
    field: { name: 'analyze', kind: 'flag' },
    isRemarked: true,
  },
  {
    name: 'require-manifest',
    verbs: ['preflight', 'restore', 'verify'],
    help: 'refuse a backup that has no manifest (checksums)',
    field: { name: 'require_manifest', kind: 'flag' },
  },
  {
    name: 'config',
    value: 'FILE',
    verbs: WITH_SERVER,
    help: "server configuration file (default: $ASMT_CONFIG or the unit's)",
    field: { name: 'config', kind: 'path' },
    // The engine reads $ASMT_CONFIG, which may name a file that is missing.
    variable: null,
  },
  {
    name: 'device',
    value: 'PATH,...',
    repeats: true,
    verbs: WITH_SERVER,
    help: 'server storage devices and files, if not as configured',
    field: { name: 'devices', kind: 'paths' },
  },
  {
    name: 'require-proof',
    verbs: ['preflight', 'restore', 'verify'],
    help: 'refuse if no storage device proves that the backup is current',
    field: { name: 'require_proof', kind: 'flag' },
  },
  {
    name: 'restorable',
    verbs: ['verify'],
    help: 'fail if a restore here would be refused (existing segments are ignored)',
    field: { name: 'restorable', kind: 'flag' },
  },
  {
    name: 'replace',
    verbs: ['preflight', 'backup'],
    help: 'replace older backups of the same namespaces in DIR, if any',
    field: { name: 'replace', kind: 'flag' },
  },
  {
    name: 'force-stale',
    verbs: ['preflight', 'backup', 'restore', 'export'],
    help: 'go on even if it is stale, used or retired, or if that is unknown',
    field: { name: 'force_stale', kind: 'flag' },
    isRemarked: true,
  },
  {
    name: 'force-host',
    verbs: ['preflight', 'restore', 'export'],
    help: 'go on even if the backup was made on another host',
    field: { name: 'force_host', kind: 'flag' },
    isRemarked: true,
  },
  {
    name: 'allow-volatile',
    verbs: ['preflight', 'backup', 'export'],
    help: 'allow a target that is lost on reboot (tmpfs, ramfs, tmpfiles.d)',
    field: { name: 'allow_volatile', kind: 'flag' },
    isRemarked: true,
  },
  {
    name: 'allow-private-ipc',
    verbs: ['preflight', 'restore'],
    help: 'restore into an IPC namespace that seems to end with asmt',
    field: { name: 'allow_private_ipc', kind: 'flag' },
    isRemarked: true,
  },
  {
    name: 'wait',
    value: 'TIME',
    isValueOptional: true,
    verbs: ['backup'],
    help: 'wait until the server has exited, at most TIME (default: forever)',
    field: { name: 'wait_ms', kind: 'time' },
  },
  { name: 'deadline', value: 'TIME', verbs: ALL, help: 'give up after TIME, such as 90s or 10min, and clean up' },
  {
    name: 'metrics',
    value: 'FILE',
    verbs: ['backup', 'restore', 'verify'],
    help: 'write the result to FILE, for the textfile collector of node_exporter',
  },
  { name: 'hold', verbs: ['run'], help: 'if the restore is refused, exit instead of going on without it' },
  { name: 'ready', value: 'FILE', verbs: ['run'], help: 'make FILE when the restore is over; remove it at the end' },
  { name: 'verbose', short: 'v', verbs: ALL, help: 'show a table of the segments, and report each step' },
  { name: 'quiet', short: 'q', verbs: ALL, help: 'print nothing but errors; the exit status has the result' },
  { name: 'json', verbs: ALL, help: 'print one JSON object on standard output' },
  {
    name: 'progress',
    value: 'FORM',
    verbs: WITH_DIRECTORY,
    help: 'form of what goes to standard error: text, or json (a line each)',
    choices: ['text', 'json'],
  },
  { name: 'backup', short: 'b', verbs: ['backup'], selectsVerb: 'backup', help: 'back up (ASMT form)' },
  { name: 'restore', short: 'r', verbs: ['restore'], selectsVerb: 'restore', help: 'restore (ASMT form)' },
  { name: 'help', short: 'h', verbs: ALL, help: 'show this help', variable: null },
  { name: 'version', verbs: ALL, help: 'show the version', variable: null },
] as const satisfies readonly OptionSpec[];

/**
 * Options of backup or restore that `run` does not take: it does not only look, its output is that
 * of the command, and what overrides a refusal once must not do so at each start.
 */
const NOT_OF_RUN: ReadonlySet<string> = new Set(['analyze', 'json', 'replace', 'force-stale', 'backup', 'restore']);

/** The table, for whoever walks it: `run` takes what backup or restore takes. */
export const SPECS: readonly OptionSpec[] = OPTIONS.map((spec: OptionSpec) => {
  const others = spec.verbs.filter((verb) => verb !== 'run');
  const isOfRun = spec.verbs.some((verb) => verb === 'run' || verb === 'backup' || verb === 'restore');
  return { ...spec, verbs: isOfRun && !NOT_OF_RUN.has(spec.name) ? [...others, 'run'] : others };
});

export type OptionName = (typeof OPTIONS)[number]['name'];

/** Values of options as typed; flags that are not given are missing. */
export type Values = { readonly [name in OptionName]?: string | true };

/** Options that exclude each other, and why. */
export const EXCLUSIVE: readonly (readonly [OptionName, OptionName, string])[] = [
  ['compress', 'columns', '-Z is smaller and faster, and only asmt reads it; ASMT, too, reads what -z makes'],
  ['require-proof', 'force-stale', 'the first refuses if nothing proves that the backup is current, the second restores anyway'],
  ['quiet', 'verbose', 'the first prints nothing but errors, the second reports each step'],
];

/** The variables of the environment that give an option: one for each of its long names. */
export function variablesOf({ name, aliases, selectsVerb, variable }: OptionSpec): readonly string[] {
  if (variable === null || selectsVerb !== undefined) return [];
  const other = (aliases ?? []).map(variableNamed);
  return [variable ?? variableNamed(name), ...other];
}

function variableNamed(name: string): string {
  return `ASMT_${name.toUpperCase().replaceAll('-', '_')}`;
}

/** Whether a command takes an option and does something with it; `run` is restore and backup. */
export function hasEffect({ verbs, field }: OptionSpec, verb: Verb): boolean {
  const parts: readonly Verb[] = verb === 'run' ? ['backup', 'restore'] : [verb];
  return verbs.includes(verb) && (field?.verbs?.some((other) => parts.includes(other)) ?? true);
}

/** The option of a long name or an alias. */
export function optionNamed(name: string): OptionSpec | undefined {
  return SPECS.find((spec) => spec.name === name || spec.aliases?.includes(name));
}

/** An option as it is typed: `-n, --namespace NAME,...`. */
export function optionUsage(spec: OptionSpec): string {
  const names = [
    ...(spec.short ? [`-${spec.short}`] : []),
    `--${spec.name}`,
    ...(spec.aliases ?? []).map((alias) => `--${alias}`),
  ];
  const value = spec.isValueOptional ? `[=${spec.value}]` : ` ${spec.value}`;
  return names.join(', ') + (spec.value ? value : '');
}
