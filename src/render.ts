/**
 * What a user sees, as text: tables, sizes, plans, errors, the progress line. Pure; the only file
 * that colours.
 *
 * Promise: nothing that came from outside (names, messages) reaches a terminal with control
 * characters in it. Must never: write, read a clock, or decide what happens.
 */

import type { Answer, NamespaceReport, Preflight, Request, SegmentReport, Snapshot, Topic } from './generated/engine.ts';
import type { ErrorText, Outcome, Problem, Remark, Report, Restorability } from './outcome.ts';
import type { Names } from './users.ts';

/** Colours of a stream: chalk's, or none. */
export interface Colours {
  bold(text: string): string;
  green(text: string): string;
  red(text: string): string;
  yellow(text: string): string;
}

const PAST: Readonly<Record<Report['verb'], string>> = {
  list: 'listed',
  backup: 'backed up',
  restore: 'restored',
  verify: 'verified',
  retire: 'retired',
  export: 'exported',
  preflight: 'checked',
};

const PHASES: Readonly<Record<Snapshot['phase'], string>> = {
  plan: 'looking',
  wait: 'waiting for the server to stop',
  count: 'reading',
  reserve: 'reserving',
  copy: 'copying',
  check: 'comparing',
  publish: 'publishing',
  verify: 'reading',
};

/**
 * Characters that must not reach a terminal or a log as they are: controls, those that turn the
 * direction of the writing round, line ends, and those that cannot be seen.
 */
const INVISIBLE =
  // oxlint-disable-next-line no-control-regex -- they are what this is about
  /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\u{e0000}-\u{e007f}]/gu;

/** Makes such characters visible. */
export function visible(text: string): string {
  return text.replace(INVISIBLE, (character) => `\\u{${character.codePointAt(0)?.toString(16)}}`);
}

/** One line of JSON with such characters escaped: the same value, and safe to look at. */
export function json(value: unknown): string {
  const escaped = (unit: string) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`;
  return `${JSON.stringify(value).replace(INVISIBLE, (character) => character.split('').map(escaped).join(''))}\n`;
}

/** `1.5 GiB`; three digits, units of 1,024. */
export function size(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return `${value.toFixed(digits)} ${units[unit]}`;
}

/** `850 MiB/s`; a dash where nothing can be said. */
export function rate(bytes: number, elapsedMs: number): string {
  return elapsedMs > 0 ? `${size((bytes * 1000) / elapsedMs)}/s` : '-';
}

/** `0.42 s`, `12 s`, `3 min 20 s`, `2 h 5 min`. */
export function duration(ms: number): string {
  const seconds = ms / 1000;
  if (seconds < 10) return `${seconds.toFixed(2)} s`;
  if (seconds < 60) return `${seconds.toFixed(0)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.floor(seconds % 60)} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

type Align = 'left' | 'right';

/** Rows under a head, columns aligned, two spaces between; no line ends in a space. */
export function table(colours: Colours, head: readonly [string, Align][], rows: readonly (readonly string[])[]): string {
  return linesOf(colours, head, rows)
    .map((text) => `${text}\n`)
    .join('');
}

function linesOf(colours: Colours, head: readonly [string, Align][], rows: readonly (readonly string[])[]): string[] {
  const widths = head.map(([name], column) => Math.max(name.length, ...rows.map((row) => row[column]?.length ?? 0)));
  const line = (cells: readonly string[]) =>
    cells
      .map((cell, column) =>
        head[column]?.[1] === 'right' ? cell.padStart(widths[column] ?? 0) : cell.padEnd(widths[column] ?? 0),
      )
      .join('  ')
      .trimEnd();
  return [colours.bold(line(head.map(([name]) => name))), ...rows.map(line)];
}

function orDash(value: string | number | null): string {
  return value === null ? '-' : visible(String(value));
}

function sizeOrDash(bytes: number | null): string {
  return bytes === null ? '-' : size(bytes);
}

/** `test`, or what there is to say without a name. */
function nameOf(namespace: NamespaceReport): string {
  return namespace.name === null ? `(nsid ${namespace.nsid ?? namespace.data_nsid ?? '?'}, no name)` : visible(namespace.name);
}

/** At most 27 characters each: see `LIST_COLUMNS`. */
const STATES: Readonly<Record<NonNullable<NamespaceReport['state']>, string>> = {
  clean: 'clean: can be backed up',
  running: 'running: held by a process',
  'asmt-at-work': 'busy: another asmt at work',
  unclean: 'not cleanly shut down',
  incomplete: 'incomplete',
  torn: 'torn: incomplete stripe set',
  unreadable: 'cannot be read: other owner',
  'unknown-version': 'unknown version',
  'data-only': 'data only: can be backed up',
};

/** What the state of a namespace is called. */
function stateOf({ state, base_version: version }: NamespaceReport): string {
  const text = state === null ? '-' : STATES[state];
  return state === 'unknown-version' && version !== null ? `${text} ${version}` : text;
}

/** Most columns of a list: those of a console, and of a mail. */
const LIST_COLUMNS = 80;

/**
 * The namespaces of a list, in 80 columns. A name that is too long for that has a line of its own,
 * above the rest of its row. What is swapped out, which hardly ever is any, follows the table.
 */
export function namespaceTable(colours: Colours, report: Report): string {
  const head: [string, Align][] = [
    ['inst', 'right'],
    ['namespace', 'left'],
    ['nsid', 'right'],
    ['segments', 'right'],
    ['size', 'right'],
    ['resident', 'right'],
    ['state', 'left'],
  ];
  const NAME = 1;
  const rows = report.namespaces.map((namespace) => [
    String(namespace.instance),
    namespace.name === null ? '(no name)' : nameOf(namespace),
    orDash(namespace.nsid ?? namespace.data_nsid),
    String(namespace.segment_count),
    size(namespace.size_bytes),
    sizeOrDash(namespace.resident_bytes),
    stateOf(namespace),
  ]);
  const widths = head.map(([name], column) => Math.max(name.length, ...rows.map((row) => row[column]?.length ?? 0)));
  const others = widths.reduce((sum, width) => sum + width + 2, -2) - (widths[NAME] ?? 0);
  const most = Math.max('namespace'.length, LIST_COLUMNS - others);
  const isLong = (row: readonly string[]) => (row[NAME]?.length ?? 0) > most;
  const shortened = rows.map((row) => (isLong(row) ? ['', '', ...row.slice(NAME + 1)] : row));
  const [first = '', ...lines] = linesOf(colours, head, shortened);
  const text = lines.flatMap((line, index) => {
    const row = rows[index] ?? [];
    return isLong(row) ? [`${(row[0] ?? '').padStart(widths[0] ?? 0)}  ${row[NAME]}`, line] : [line];
  });
  const swapped = report.namespaces
    .filter(({ swapped_bytes: bytes }) => bytes > 0)
    .map((namespace) => {
      return `namespace ${nameOf(namespace)} of instance ${namespace.instance}: ${size(namespace.swapped_bytes)} are swapped out`;
    });
  return [first, ...text, ...swapped].map((line) => `${line}\n`).join('');
}

/** ASMT's table of segments. */
export function segmentTable(colours: Colours, segments: readonly SegmentReport[], names: Names): string {
  const head: [string, Align][] = [
    ['key', 'left'],
    ['shmid', 'right'],
    ['user', 'left'],
    ['group', 'left'],
    ['mode', 'left'],
    ['natt', 'right'],
    ['segsz', 'right'],
    ['inst', 'right'],
    ['nsid', 'right'],
    ['name', 'left'],
    ['type', 'left'],
    ['stage', 'right'],
    ['crc32', 'left'],
  ];
  const rows = segments.map((segment) => [
    `0x${segment.key}`,
    orDash(segment.shmid),
    visible(names.user(segment.uid)),
    visible(names.group(segment.gid)),
    segment.mode,
    orDash(segment.attached_count),
    String(segment.size_bytes),
    String(segment.instance),
    String(segment.nsid),
    orDash(segment.namespace),
    segment.type,
    orDash(segment.stage),
    orDash(segment.crc32),
  ]);
  return table(colours, head, rows);
}

/** What would be copied where: the plan of `--analyze`. */
export function planTable(colours: Colours, report: Report): string {
  const [from, to]: [string, string] = report.verb === 'backup' ? ['segment', 'file'] : ['file', 'segment'];
  const head: [string, Align][] = [
    [from, 'left'],
    [to, 'left'],
    ['size', 'right'],
    ['name', 'left'],
    ['type', 'left'],
    ['stage', 'right'],
  ];
  const rows = report.segments.map((segment) => {
    const ends = [`0x${segment.key}`, orDash(segment.file)];
    return [
      ...(report.verb === 'backup' ? ends : ends.toReversed()),
      size(segment.size_bytes),
      orDash(segment.namespace),
      segment.type,
      orDash(segment.stage),
    ];
  });
  return table(colours, head, rows);
}

function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}

/** Latest time that a `Date` can hold, milliseconds since 1970; a manifest may claim any. */
const LATEST_DATE_MS = 8.64e15;

function date(ms: number): string {
  return ms > LATEST_DATE_MS ? 'at an impossible time' : new Date(ms).toISOString().replace(/\.\d+Z$/, 'Z');
}

/** The last sentence of a verification: what a restore here would come to. */
export function restorability(
  colours: Colours,
  place: string,
  { accepted, proven, reasons }: Omit<Restorability, 'instance'>,
  status: number,
): string {
  if (accepted) {
    const proof = proven
      ? 'the storage devices prove that the server has not run since the backup'
      : 'but nothing proves that the server has not run since the backup';
    return `${place}a restore here would be ${colours.green('accepted')}: ${proof}\n`;
  }
  const [first, ...more] = reasons;
  const rest = more.length > 0 ? ` (and ${plural(more.length, 'more reason')})` : '';
  const why = visible(first?.message ?? 'of an unknown reason');
  return `${place}a restore here would be ${colours.red('refused')} (exit status ${status}) because ${why}${rest}\n`;
}

/** Where something was done, or would be. */
function placeOf({ verb, directory, output }: Report): string {
  const path = visible(directory ?? '');
  switch (verb) {
    case 'backup':
      return `to ${path}`;
    case 'restore':
      return `from ${path}`;
    case 'export':
      return `from ${path} to ${visible(output ?? '')}`;
    default:
      return `in ${path}`;
  }
}

/** What was done, or would be: a line a namespace and one in all. */
export function summary(colours: Colours, report: Report, command: string | null): string {
  const directory = visible(report.directory ?? '');
  const lines = report.namespaces.map((namespace) => {
    const what = `namespace ${nameOf(namespace)} of instance ${namespace.instance}: ${plural(namespace.segment_count, 'segment')}, ${size(namespace.size_bytes)}`;
    const files = namespace.allocated_bytes === null ? '' : `, ${size(namespace.allocated_bytes)} in files`;
    const made = namespace.created_ms === null ? '' : `, backed up ${date(namespace.created_ms)}`;
    return what + files + (report.verb === 'backup' ? '' : made);
  });
  const count = plural(report.namespaces.length, 'namespace');
  if (report.current.length > 0 && report.namespaces.length === 0) {
    const nothing = `nothing to do: the backup of ${plural(report.current.length, 'namespace')} in ${directory} is current`;
    return `${colours.green(nothing)}\n`;
  }
  if (report.analyze) {
    const free = report.free_bytes === null ? '' : ` of ${size(report.free_bytes)} free`;
    const reserve = report.reserve_bytes === null ? '' : `; needs at least ${size(report.reserve_bytes)}${free}`;
    const unread = report.verb === 'backup' ? '' : '; the contents of the files were not read (asmt verify reads them)';
    const verb = `${report.verb} would be possible: ${count}, ${plural(report.segments.length, 'segment')}, ${size(report.total_bytes)}`;
    const from = report.verb === 'verify' ? `from ${directory}` : placeOf(report);
    const place = report.directory === null ? '' : `, ${from}`;
    lines.push(`${verb}${place}${reserve}${unread}; nothing was done`);
    if (command !== null) lines.push(`to run it: ${command}`);
  } else if (report.verb === 'retire') {
    lines.push(`${colours.green(PAST.retire)} ${count} in ${directory}: no restore takes this backup again`);
  } else {
    const data = report.data_bytes ?? report.total_bytes;
    const holes = data < report.total_bytes ? ` (${size(data)} of it data)` : '';
    const speed = `${duration(report.elapsed_ms)}, ${rate(data, report.elapsed_ms)}`;
    const place = placeOf(report);
    lines.push(`${colours.green(PAST[report.verb])} ${count} ${place}: ${size(report.total_bytes)}${holes} in ${speed}`);
  }
  return lines.map((line) => `${line}\n`).join('');
}

/** What was done, in one sentence that cannot fail: where the report is lost or cannot be shown. */
export function plainly(report: Report): string {
  if (report.current.length > 0 && report.namespaces.length === 0)
    return `the backup in ${visible(report.directory ?? '')} is current`;
  const names = report.namespaces.map(({ name, instance }) => `'${name}' of instance ${instance}`).join(', ');
  return `${visible(`${PAST[report.verb]} namespace ${names}`)} ${placeOf(report)}`;
}

/**
 * What a service manager is told at the end (sd_notify(3)): the result in a line, and whether the
 * server may start.
 */
export function serviceState(request: Request, { ok, report, error }: Outcome): string {
  const text = ok && report !== null ? plainly(report) : visible(error?.message ?? '');
  const isReady = request.verb === 'restore' && !request.analyze && (ok || error?.kind === 'nothing-to-do');
  return `STATUS=${text}${isReady ? '\nREADY=1' : ''}`;
}

/** A remark, on standard error. */
export function remark(colours: Colours, { message }: Remark): string {
  return `${colours.yellow('asmt: note:')} ${visible(message)}\n`;
}

/** Something that happened, with `-v`. */
export function event({ message }: Remark): string {
  return `asmt: ${visible(message)}\n`;
}

/** A failure: every problem, and after those that share it, the next step. */
export function failure(colours: Colours, error: ErrorText): string {
  const groups = new Map<string, Problem[]>();
  for (const problem of error.problems) groups.set(problem.hint, [...(groups.get(problem.hint) ?? []), problem]);
  const label = colours.red('asmt: error:');
  return [...groups]
    .map(([hint, problems]) => {
      const lines = problems.map((problem) => `${label} ${visible(problem.message)}\n`);
      return lines.join('') + (hint === '' ? '' : `${colours.bold('HINT:')} ${visible(hint)}\n`);
    })
    .join('');
}

/** What could be done without the namespaces that were refused, and how. */
export function alternative(colours: Colours, verb: Report['verb'], names: readonly string[], command: string): string {
  const what =
    verb === 'restore'
      ? 'can be restored without the others, which the server would then cold-start'
      : `can be ${PAST[verb]} without the others, whose data in memory is lost at the reboot`;
  return `${colours.bold('HINT:')} ${visible(names.join(', '))} ${what}: ${command}\n`;
}

const WIDTH = 80;
const ANSWERS: Readonly<Record<Answer, string>> = { ready: 'yes', 'not-ready': 'NO', unknown: 'unknown', note: 'note' };
const TOPICS: Readonly<Record<Topic, string>> = {
  applies: 'applies',
  server: 'server',
  backup: 'backup',
  restore: 'restore',
  room: 'room',
  memory: 'memory',
  rights: 'rights',
  time: 'time',
  unit: 'unit',
  reboot: 'reboot',
  'cold-start': 'cold start',
  'stripe-size': 'stripes',
  changed: 'changed',
};
/** Columns before the text of a line: its answer and its topic. */
const BEFORE_TEXT = 21;
/** Columns of a name; its bytes are at most as many. */
const NAME_COLUMNS = 31;

/** A word in the colour of an answer. */
function coloured(colours: Colours, answer: Answer, word: string): string {
  switch (answer) {
    case 'ready':
      return colours.green(word);
    case 'not-ready':
      return colours.red(word);
    case 'unknown':
      return colours.yellow(word);
    default:
      return word;
  }
}

/** The columns that a text takes on a terminal: many letters of Asia take two. */
function columnsOf(text: string): number {
  const wide =
    /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe4f\uff00-\uff60\uffe0-\uffe6\u{1f000}-\u{3fffd}]/u;
  let columns = 0;
  for (const letter of text) columns += wide.test(letter) ? 2 : 1;
  return columns;
}

/** As much of a text as fits into so many columns, and the rest. */
function cut(text: string, columns: number): [string, string] {
  let begin = '';
  for (const letter of text) {
    if (columnsOf(begin + letter) > columns) break;
    begin += letter;
  }
  return [begin, text.slice(begin.length)];
}

/** A text in lines of at most so many columns; a word that is longer, like a path, is cut. */
function wrapped(text: string, columns: number): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    const longer = line === '' ? word : `${line} ${word}`;
    if (columnsOf(longer) <= columns) {
      line = longer;
      continue;
    }
    if (line !== '') lines.push(line);
    line = word;
    while (columnsOf(line) > columns) {
      const [begin, rest] = cut(line, columns);
      lines.push(begin);
      line = rest;
    }
  }
  return [...lines, line];
}

/** A name that fits into its column. */
function shortName(name: string): string {
  const shown = visible(name);
  const [begin] = cut(shown, NAME_COLUMNS);
  const text = begin === shown ? shown : `${cut(shown, NAME_COLUMNS - 3)[0]}...`;
  return text + ' '.repeat(NAME_COLUMNS - columnsOf(text));
}

/** The page of a preflight: what it is about, each namespace, each answer, and the verdict. */
export function preflight(colours: Colours, report: Report, found: Preflight): string {
  const yesOrNo = (answer: boolean | null) => (answer === null ? '-' : answer ? 'yes' : 'NO');
  const legs = [...(found.backup ? ['backup'] : []), ...(found.restore ? ['restore'] : [])].join(' and ');
  const place = report.directory === null ? '' : `, ${visible(report.directory)}`;
  const head = wrapped(`preflight of a ${legs}${place}; nothing was changed`, WIDTH);
  const columns = ['applies', 'backup ', 'restore', 'allocated', 'resident'];
  const widths = [7, 7, 7, 9, 8];
  const row = (cells: readonly string[]) =>
    cells.map((cell, index) => (index < 3 ? cell.padEnd(widths[index] ?? 0) : cell.padStart(widths[index] ?? 0))).join('  ');
  const names = found.namespaces.map((namespace) => {
    const { applies, backup, restore, allocated_bytes: allocated, resident_bytes: resident } = namespace;
    const cells = [applies ? 'yes' : 'no', yesOrNo(backup), yesOrNo(restore), sizeOrDash(allocated), sizeOrDash(resident)];
    return `${shortName(namespace.name)}  ${row(cells)}`.trimEnd();
  });
  const title = colours.bold(`${'namespace'.padEnd(NAME_COLUMNS)}  ${row(columns)}`);
  const namespaces = names.length === 0 ? [] : ['', title, ...names];
  const indent = ' '.repeat(BEFORE_TEXT);
  const checks = found.checks.flatMap(({ topic, answer, text, hint }, index) => {
    const after = found.checks[index + 1];
    const [first = '', ...rest] = wrapped(visible(text), WIDTH - BEFORE_TEXT);
    const start = coloured(colours, answer, ANSWERS[answer].padEnd(9)) + TOPICS[topic].padEnd(BEFORE_TEXT - 9);
    // What several lines share is said after the last of them.
    const isShared = after?.topic === topic && after.hint === hint;
    const next = hint === '' || isShared ? [] : wrapped(`next: ${visible(hint)}`, WIDTH - BEFORE_TEXT);
    return [start + first, ...[...rest, ...next].map((line) => indent + line)];
  });
  const once = found.server_runs && found.backup ? ' once the server has been stopped cleanly' : '';
  const later = found.after_reboot ? ' after the reboot' : '';
  const verdict = found.ready
    ? `${colours.green('ready')} for a ${legs}${once}${later}`
    : `${colours.red('NOT READY')} for a ${legs}`;
  return [...head, ...namespaces, '', ...checks, '', verdict].map((line) => `${line}\n`).join('');
}

/**
 * How far it is, over all passes, what matters most first, so that a narrow terminal cuts the
 * least: `30 %, 2 min 5 s left, copying (1 of 2) 1.20 GiB of 4.00 GiB, 1.1 GiB/s`.
 */
export function progressLine(progress: Snapshot): string {
  const { phase, done_bytes: done, total_bytes: total, elapsed_ms: elapsed, pass, passes } = progress;
  if (total === 0) return phase === 'wait' ? `${PHASES[phase]}, for ${duration(elapsed)}` : PHASES[phase];
  // Room is reserved in no time, however many bytes it is.
  const isOfPass = pass > 0;
  const [earlier, later] = isOfPass ? [progress.earlier_bytes, progress.later_bytes] : [0, 0];
  const all = earlier + total + later;
  const parts = [`${Math.floor((100 * (earlier + done)) / all)} %`];
  const left = total - done + later;
  // The passes to come are taken to be as fast as this one.
  if (done > 0 && elapsed >= 500 && left > 0 && (isOfPass || passes === 0))
    parts.push(`${duration((left * elapsed) / done)} left`);
  const which = passes > 1 && isOfPass ? ` (${pass} of ${passes})` : '';
  parts.push(`${PHASES[phase]}${which} ${size(done)} of ${size(total)}`, rate(done, elapsed));
  return parts.join(', ');
}
