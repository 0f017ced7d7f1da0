/**
 * The metrics of a node in the text form of Prometheus, as node_exporter's textfile collector reads
 * it: those of a run, put into those that are there already. Pure.
 *
 * Promise: what comes out has the right form, whatever came in; of what is there already, only that
 * is kept which could have come from here, and is about the same directory. Must never: read a
 * clock or a file.
 */

import type { NamespaceReport } from './generated/engine.ts';
import type { Outcome } from './outcome.ts';

/** What a run comes to. */
export interface Measured {
  readonly command: string;
  /** Absolute path of the backup directory. */
  readonly directory: string;
  /** The instances that it is about: at least one. */
  readonly instances: readonly number[];
  /** It is about every namespace of them. */
  readonly isWhole: boolean;
  /** A backup that read all of it back. */
  readonly isReadBack: boolean;
  readonly outcome: Outcome;
  readonly status: number;
  /** When it ended, milliseconds since 1970. */
  readonly endMs: number;
}

const OF_COMMAND = ['command', 'directory', 'aerospike_instance'] as const;
const OF_DIRECTORY = ['directory', 'aerospike_instance'] as const;

/** Name, labels and help of each metric. All are gauges. */
const FAMILIES = [
  { name: 'asmt_last_run_timestamp_seconds', labels: OF_COMMAND, help: 'When the command ended last.' },
  { name: 'asmt_last_run_exit_status', labels: OF_COMMAND, help: 'Exit status of the last run.' },
  {
    name: 'asmt_last_run_result',
    labels: [...OF_COMMAND, 'code'],
    help: 'Always 1: the label code says what the last run came to, done or the code of its error.',
  },
  { name: 'asmt_last_success_timestamp_seconds', labels: OF_COMMAND, help: 'When the command succeeded last.' },
  { name: 'asmt_last_success_duration_seconds', labels: OF_COMMAND, help: 'How long the last successful run took.' },
  { name: 'asmt_last_success_bytes', labels: OF_COMMAND, help: 'Size of the segments of the last successful run.' },
  { name: 'asmt_last_success_file_bytes', labels: OF_COMMAND, help: 'Disk space of the files of the last successful run.' },
  {
    name: 'asmt_backup_created_timestamp_seconds',
    labels: [...OF_DIRECTORY, 'namespace'],
    help: 'When the backup in the directory was made.',
  },
  {
    name: 'asmt_backup_verified',
    labels: OF_DIRECTORY,
    help: 'Whether every byte of the backup was read again since it was made, and is as it was.',
  },
] as const;

type Name = (typeof FAMILIES)[number]['name'];

/** One line. */
interface Sample {
  readonly name: Name;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** The text with the results of a run in it. */
export function withResults(before: string, measured: Measured): string {
  const directory = measured.directory;
  let samples = parse(before).filter(({ labels }) => labels['directory'] === directory);
  for (const instance of measured.instances) {
    const added = samplesOf(measured, instance);
    const isReplaced = replacedBy(measured, instance);
    samples = [...samples.filter((sample) => !isReplaced(sample)), ...added];
  }
  return format(samples);
}

/** Whether a sample is about what a run has found out anew. */
function replacedBy(measured: Measured, instance: number): (sample: Sample) => boolean {
  const { command, isWhole, outcome } = measured;
  const found = [...namespacesOf(outcome, instance), ...currentOf(outcome, instance)];
  const names = new Set(found.map(({ name }) => name));
  const isVerified = isVerifiedNow(measured, instance);
  return ({ name, labels }) => {
    if (labels['aerospike_instance'] !== String(instance)) return false;
    if (name.startsWith('asmt_last_run_')) return labels['command'] === command;
    if (name === 'asmt_backup_verified') return isVerified !== null;
    if (!outcome.ok) return false;
    if (name === 'asmt_last_success_timestamp_seconds') return labels['command'] === command;
    if (name.startsWith('asmt_last_success_')) return labels['command'] === command && hasWorked(outcome, instance);
    return isWhole || names.has(labels['namespace'] ?? '');
  };
}

function samplesOf(measured: Measured, instance: number): Sample[] {
  const { command, directory, outcome, status, endMs } = measured;
  const place = { directory, aerospike_instance: String(instance) };
  const labels = { command, ...place };
  const namespaces = namespacesOf(outcome, instance);
  const samples: Sample[] = [
    { name: 'asmt_last_run_timestamp_seconds', labels, value: endMs / 1000 },
    { name: 'asmt_last_run_exit_status', labels, value: status },
    { name: 'asmt_last_run_result', labels: { ...labels, code: outcome.error?.code ?? 'done' }, value: 1 },
  ];
  const verified = isVerifiedNow(measured, instance);
  if (verified !== null) samples.push({ name: 'asmt_backup_verified', labels: place, value: verified ? 1 : 0 });
  if (!outcome.ok) return samples;
  const sum = (size: (namespace: NamespaceReport) => number | null) =>
    namespaces.reduce<number | null>((total, namespace) => addOrNull(total, size(namespace)), 0);
  const bytes = sum(({ size_bytes: size }) => size) ?? 0;
  samples.push({ name: 'asmt_last_success_timestamp_seconds', labels, value: endMs / 1000 });
  if (hasWorked(outcome, instance)) {
    samples.push(
      { name: 'asmt_last_success_duration_seconds', labels, value: (outcome.report?.elapsed_ms ?? 0) / 1000 },
      { name: 'asmt_last_success_bytes', labels, value: bytes },
    );
    const files = sum(({ allocated_bytes: allocated }) => allocated);
    if (files !== null) samples.push({ name: 'asmt_last_success_file_bytes', labels, value: files });
  }
  const current = currentOf(outcome, instance);
  for (const namespace of [...namespaces, ...current]) {
    const { name, created_ms: created } = namespace;
    const made = command === 'backup' && !current.includes(namespace) ? endMs : created;
    if (name === null || made === null) continue;
    const value = made / 1000;
    samples.push({ name: 'asmt_backup_created_timestamp_seconds', labels: { ...place, namespace: name }, value });
  }
  return samples;
}

/** What is known of the contents of the backup after a run; null where it has found out nothing. */
function isVerifiedNow({ command, outcome, isReadBack }: Measured, instance: number): boolean | null {
  if (outcome.error?.problems.some(({ kind }) => kind === 'damaged')) return false;
  if (!outcome.ok || outcome.report === null) return null;
  // A backup that stays is read, too, where a new one would be read back.
  if (command === 'backup') return isReadBack || (hasWorked(outcome, instance) ? false : null);
  // A restore compares every byte that it reads, too. Without a manifest, there is nothing to
  // compare with.
  const isCompared = outcome.report.namespaces.every(({ has_manifest: has }) => has === true);
  return command === 'verify' || command === 'restore' ? isCompared : null;
}

/** Whether a run has done something: not so a backup where those that are there are current. */
function hasWorked(outcome: Outcome, instance: number): boolean {
  return namespacesOf(outcome, instance).length > 0 || currentOf(outcome, instance).length === 0;
}

function namespacesOf({ report }: Outcome, instance: number): readonly NamespaceReport[] {
  return (report?.namespaces ?? []).filter((namespace) => namespace.instance === instance);
}

/** The namespaces whose backup stays, because it is current. */
function currentOf({ report }: Outcome, instance: number): readonly NamespaceReport[] {
  return (report?.current ?? []).filter((namespace) => namespace.instance === instance);
}

function addOrNull(total: number | null, added: number | null): number | null {
  return total === null || added === null ? null : total + added;
}

/** A line of a sample: name, labels, value. */
const SAMPLE = /^([a-z_]+)\{((?:[a-z_]+="(?:[^"\\]|\\["\\n])*",)*(?:[a-z_]+="(?:[^"\\]|\\["\\n])*"))\} ([0-9]+(?:\.[0-9]+)?)$/;
const LABEL = /([a-z_]+)="((?:[^"\\]|\\["\\n])*)"/g;

/** The samples that could have come from here. */
function parse(text: string): Sample[] {
  return text.split('\n').flatMap((line) => {
    const [, name, typed = '', value] = SAMPLE.exec(line) ?? [];
    const family = FAMILIES.find((candidate) => candidate.name === name);
    if (family === undefined) return [];
    const labels = Object.fromEntries([...typed.matchAll(LABEL)].map(([, label = '', text = '']) => [label, unescaped(text)]));
    const isWhole = Object.keys(labels).join() === family.labels.join() && Number.isFinite(Number(value));
    return isWhole ? [{ name: family.name, labels, value: Number(value) }] : [];
  });
}

function format(samples: readonly Sample[]): string {
  const blocks = FAMILIES.map(({ name, labels, help }) => {
    const lines = new Set(
      samples
        .filter((sample) => sample.name === name)
        .map((sample) => {
          const pairs = labels.map((label) => `${label}="${escaped(sample.labels[label] ?? '')}"`);
          return `${name}{${pairs.join(',')}} ${number(sample.value)}\n`;
        }),
    );
    return lines.size === 0 ? '' : `# HELP ${name} ${help}\n# TYPE ${name} gauge\n${[...lines].toSorted().join('')}`;
  });
  return blocks.join('');
}

/** Without an exponent; at most three digits behind the point. */
function number(value: number): string {
  return Number.isInteger(value) ? BigInt(value).toString() : value.toFixed(3);
}

function escaped(text: string): string {
  return text
    .replaceAll('\\', String.raw`\\`)
    .replaceAll('"', String.raw`\"`)
    .replaceAll('\n', String.raw`\n`);
}

function unescaped(text: string): string {
  return text.replaceAll(/\\(["\\n])/g, (_, character: string) => (character === 'n' ? '\n' : character));
}
