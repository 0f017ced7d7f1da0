import test from 'ava';
import { Chalk } from 'chalk';

import { EXIT_STATUSES, exitStatus } from '../src/errors.ts';
import { help, shortUsage } from '../src/help.ts';
import type { Snapshot } from '../src/generated/engine.ts';
import type { Report } from '../src/outcome.ts';
import { SPECS, VERBS, optionUsage } from '../src/options.ts';
import { JsonProgress, ProgressDisplay } from '../src/progress.ts';
import * as render from '../src/render.ts';
import { parse } from '../src/users.ts';

const plain = new Chalk({ level: 0 });
const colour = new Chalk({ level: 1 });

test('sizes, rates and durations', (t) => {
  t.is(render.size(0), '0 B');
  t.is(render.size(1023), '1023 B');
  t.is(render.size(1024), '1.00 KiB');
  t.is(render.size(1536 * 1024), '1.50 MiB');
  t.is(render.size(20 * 2 ** 30), '20.0 GiB');
  t.is(render.size(300 * 2 ** 40), '300 TiB');
  t.is(render.rate(2 ** 30, 500), '2.00 GiB/s');
  t.is(render.rate(2 ** 30, 0), '-');
  t.is(render.duration(420), '0.42 s');
  t.is(render.duration(12_300), '12 s');
  t.is(render.duration(200_000), '3 min 20 s');
  t.is(render.duration(7_500_000), '2 h 5 min');
});

test('control characters never reach a terminal', (t) => {
  t.is(render.visible('a\u001b[31mb\nc\u202ed'), String.raw`a\u{1b}[31mb\u{a}c\u{202e}d`);
  t.is(render.visible('müßig ☺'), 'müßig ☺');
  // C1, soft hyphen, bidirectional, zero width, line ends, byte order mark, tags.
  const hidden = ['\u009b', '\u00ad', '\u061c', '\u200b', '\u200f', '\u2028', '\u2066', '\ufeff', '\u{e0041}'];
  for (const character of hidden) {
    const code = character.codePointAt(0)?.toString(16) ?? '';
    t.is(render.visible(`a${character}b`), `a\\u{${code}}b`);
    const text = render.json({ [character]: [`a${character}b`] });
    t.regex(text, /^[ -~]+\n$/, code);
    t.deepEqual(JSON.parse(text), { [character]: [`a${character}b`] });
  }
  t.is(render.json('\u001b\u007f'), '"\\u001b\\u007f"\n');
});

test('a table is aligned, and no line ends in a space', (t) => {
  const text = render.table(
    plain,
    [
      ['key', 'left'],
      ['size', 'right'],
      ['name', 'left'],
    ],
    [
      ['1', '10', 'a'],
      ['222222', '5', ''],
    ],
  );
  t.is(text, 'key     size  name\n1         10  a\n222222     5\n');
});

const problem = (message: string, hint: string) => ({
  kind: 'refused' as const,
  code: 'set-torn' as const,
  message,
  hint,
  file: null,
  offset: null,
  segment: null,
});

test('a failure shows every problem, and each next step once', (t) => {
  const problems = [
    problem('first', 'do this'),
    problem('second', 'do that'),
    problem('third', 'do this'),
    problem('fourth', ''),
  ];
  const text = render.failure(plain, { ...problem('first', 'do this'), problems });
  t.is(text, 'asmt: error: first\nasmt: error: third\nHINT: do this\nasmt: error: second\nHINT: do that\nasmt: error: fourth\n');
  t.true(render.failure(colour, { ...problem('first', ''), problems }).includes('\u001b['));
});

const NO_PROGRESS: Snapshot = {
  phase: 'plan',
  done_bytes: 0,
  total_bytes: 0,
  elapsed_ms: 0,
  pass: 0,
  passes: 0,
  earlier_bytes: 0,
  later_bytes: 0,
  events: [],
};

test('progress: bytes, share, rate and time left', (t) => {
  const of = { done_bytes: 2 ** 30, total_bytes: 4 * 2 ** 30, elapsed_ms: 1000 };
  const progress: Snapshot = { ...NO_PROGRESS, phase: 'copy', ...of, pass: 1, passes: 1 };
  t.is(render.progressLine(progress), '25 %, 3.00 s left, copying 1.00 GiB of 4.00 GiB, 1.00 GiB/s');
  t.is(render.progressLine({ ...progress, done_bytes: 0, elapsed_ms: 0 }), '0 %, copying 0 B of 4.00 GiB, -');
  t.is(render.progressLine({ ...progress, phase: 'publish', total_bytes: 0 }), 'publishing');
  t.is(
    render.progressLine({ ...progress, phase: 'wait', total_bytes: 0, elapsed_ms: 75_000 }),
    'waiting for the server to stop, for 1 min 15 s',
  );
});

test('progress: the share and the time left are those of all passes', (t) => {
  const of = { done_bytes: 2 ** 30, total_bytes: 4 * 2 ** 30, elapsed_ms: 1000, passes: 2 };
  const first: Snapshot = { ...NO_PROGRESS, phase: 'copy', ...of, pass: 1, later_bytes: 4 * 2 ** 30 };
  t.is(render.progressLine(first), '12 %, 7.00 s left, copying (1 of 2) 1.00 GiB of 4.00 GiB, 1.00 GiB/s');
  const second: Snapshot = { ...first, phase: 'check', pass: 2, earlier_bytes: 4 * 2 ** 30, later_bytes: 0 };
  t.is(render.progressLine(second), '62 %, 3.00 s left, comparing (2 of 2) 1.00 GiB of 4.00 GiB, 1.00 GiB/s');
  const between: Snapshot = { ...first, phase: 'reserve', pass: 0 };
  t.is(render.progressLine(between), '25 %, reserving 1.00 GiB of 4.00 GiB, 1.00 GiB/s');
});

test('progress: one line drawn again on a terminal, else a line every five seconds', (t) => {
  const progress: Snapshot = { ...NO_PROGRESS, phase: 'copy', done_bytes: 1, total_bytes: 4, elapsed_ms: 1 };
  let nowMs = 0;
  const written: string[] = [];
  const write = (text: string) => written.push(text);
  const terminal = new ProgressDisplay({ isTTY: true, columns: 14, write }, () => nowMs);
  terminal.show(progress);
  terminal.clear();
  terminal.clear();
  t.deepEqual(written, ['\r\u001b[K25 %, copying', '\r\u001b[K']);
  written.length = 0;
  const pipe = new ProgressDisplay({ write }, () => nowMs);
  for (nowMs = 0; nowMs <= 11_000; nowMs += 125) pipe.show(progress);
  pipe.clear();
  t.is(written.length, 2);
  t.regex(written[0] ?? '', /^asmt: 25 %, copying 1 B of 4 B.*\n$/);
});

test('progress as JSON: a line when the phase changes, one a second, and the last state', (t) => {
  const snapshot: Snapshot = { ...NO_PROGRESS, phase: 'copy', total_bytes: 100 };
  let nowMs = 0;
  const written: string[] = [];
  const progress = new JsonProgress({ write: (text) => written.push(text) }, () => nowMs);
  for (nowMs = 0; nowMs <= 2_000; nowMs += 125) progress.show({ ...snapshot, done_bytes: nowMs / 20 });
  progress.show({ ...snapshot, phase: 'check', done_bytes: 1 });
  progress.show({ ...snapshot, phase: 'check', done_bytes: 2 });
  progress.end();
  progress.end();
  const lines = written.map((text) => JSON.parse(text) as Snapshot & { type: string });
  t.deepEqual(
    lines.map(({ phase, done_bytes: done }) => [phase, done]),
    [
      ['copy', 0],
      ['copy', 50],
      ['copy', 100],
      ['check', 1],
      ['check', 2],
    ],
  );
  t.deepEqual(Object.keys(lines[0] ?? {}), [
    'schema_version',
    'type',
    'phase',
    'done_bytes',
    'total_bytes',
    'elapsed_ms',
    'pass',
    'passes',
    'earlier_bytes',
    'later_bytes',
  ]);
});

const report: Report = {
  verb: 'restore',
  directory: '/d\u001b',
  output: null,
  analyze: false,
  namespaces: [
    {
      instance: 2,
      name: 'te\u0007st',
      nsid: 1,
      data_nsid: null,
      base_version: 12,
      state: null,
      segment_count: 1,
      size_bytes: 2 ** 20,
      resident_bytes: null,
      swapped_bytes: 0,
      file_bytes: 2 ** 20,
      allocated_bytes: 512,
      has_manifest: true,
      created_ms: 0,
    },
  ],
  segments: [
    {
      key: 'ae201000',
      shmid: 7,
      uid: 0,
      gid: 99,
      mode: '0600',
      attached_count: null,
      size_bytes: 2 ** 20,
      resident_bytes: null,
      instance: 2,
      nsid: 1,
      namespace: 'te\u0007st',
      type: 'pi-base',
      stage: null,
      file: 'ae201000.dat',
      encoding: 'raw',
      file_bytes: 2 ** 20,
      allocated_bytes: 512,
      crc32: 'deadbeef',
    },
  ],
  current: [],
  remarks: [],
  total_bytes: 2 ** 20,
  data_bytes: 2 ** 19,
  reserve_bytes: null,
  free_bytes: null,
  possible: [],
  restorability: [],
  preflight: null,
  elapsed_ms: 1000,
};

test('a backup that is there already is all that is told', (t) => {
  const current = report.namespaces.map((namespace) => ({ ...namespace, has_manifest: true }));
  const same: Report = { ...report, verb: 'backup', directory: '/b', namespaces: [], segments: [], current };
  t.is(render.summary(plain, same, null), 'nothing to do: the backup of 1 namespace in /b is current\n');
  t.is(render.plainly(same), 'the backup in /b is current');
});

test('a summary says what, from where, how much and how fast', (t) => {
  const text = render.summary(plain, report, null);
  t.true(
    text.includes(
      String.raw`namespace te\u{7}st of instance 2: 1 segment, 1.00 MiB, 512 B in files, backed up 1970-01-01T00:00:00Z`,
    ),
    text,
  );
  t.true(text.includes(String.raw`restored 1 namespace from /d\u{1b}: 1.00 MiB (512 KiB of it data) in 1.00 s, 512 KiB/s`), text);
});

test('the last sentence of a verification: what a restore would come to, and why', (t) => {
  const sentence = (accepted: boolean, proven: boolean, messages: string[]) => {
    const reasons = messages.map((message) => problem(message, ''));
    return render.restorability(plain, 'instance 3: ', { accepted, proven, reasons }, 4);
  };
  const start = 'instance 3: a restore here would be';
  t.is(sentence(true, true, []), `${start} accepted: the storage devices prove that the server has not run since the backup\n`);
  t.is(sentence(true, false, []), `${start} accepted: but nothing proves that the server has not run since the backup\n`);
  t.is(sentence(false, false, ['a\u001bb']), String.raw`${start} refused (exit status 4) because a\u{1b}b` + '\n');
  t.regex(sentence(false, false, ['a', 'b']), /because a \(and 1 more reason\)\n$/);
  t.regex(sentence(false, false, ['a', 'b', 'c']), /because a \(and 2 more reasons\)\n$/);
});

test('the plan of an analysis says what goes where, and how to do it', (t) => {
  const analysis: Report = { ...report, analyze: true };
  const [head, row] = render.planTable(plain, analysis).split('\n');
  t.regex(head ?? '', /^file +segment +size +name +type +stage$/);
  t.regex(row ?? '', /^ae201000\.dat +0xae201000 +1\.00 MiB/);
  t.regex(render.summary(plain, analysis, 'asmt restore /d'), /nothing was done\nto run it: asmt restore \/d\n/);
  t.regex(render.planTable(plain, { ...analysis, verb: 'backup' }), /\n0xae201000 +ae201000\.dat/);
});

/** The list of these namespaces; where nothing else is said, each is clean. */
function listed(...namespaces: Partial<Report['namespaces'][number]>[]): string {
  const usual = { name: 'test', state: 'clean' as const, instance: 0, resident_bytes: 2 ** 20 };
  const all = namespaces.map((namespace) => ({ ...report.namespaces[0]!, ...usual, ...namespace }));
  return render.namespaceTable(plain, { ...report, verb: 'list', namespaces: all });
}

const STATES = [
  'clean',
  'running',
  'asmt-at-work',
  'unclean',
  'incomplete',
  'torn',
  'unreadable',
  'unknown-version',
  'data-only',
] as const;

test('a list fits 80 columns in every state, with the widest numbers', (t) => {
  const widest = { nsid: 1023, segment_count: 12_345_678, size_bytes: 1023 * 2 ** 40, resident_bytes: 1023 * 2 ** 40 };
  for (const state of STATES) {
    for (const length of [1, 9, 10, 20, 31]) {
      const name = 'n'.repeat(length);
      const text = listed({ ...widest, state, instance: 15, name, base_version: 4_294_967 });
      t.true(text.includes(` ${name}`), text);
      for (const line of text.split('\n')) t.true(line.length <= 80, line);
    }
  }
});

test('lists are as they were agreed on', (t) => {
  t.snapshot(listed({ name: 'test' }, { name: 'users', nsid: 2, size_bytes: 2 ** 38, segment_count: 260 }), 'usual names');
  t.snapshot(listed(...STATES.map((state, index) => ({ state, name: `ns${index}` }))), 'every state');
  t.snapshot(listed({ name: 'n'.repeat(31) }, { name: 'bar' }, { name: null, state: 'incomplete' }), 'a long name, and none');
  t.snapshot(listed({ name: 'bar', swapped_bytes: 5 * 2 ** 20 }, { name: 'test' }), 'something is swapped out');
});

test("ASMT's table has its columns, and names from the system's files", (t) => {
  const names = parse('root:x:0:0::/:/bin/sh\nsecond:x:0:0::/:\nbroken\n');
  const text = render.segmentTable(plain, report.segments, { user: (uid) => names.get(uid) ?? '?', group: String });
  t.regex(text, /^key +shmid +user +group +mode +natt +segsz +inst +nsid +name +type +stage +crc32\n/);
  t.regex(text, /\n0xae201000 +7 +root +99 +0600 +- +1048576 +2 +1 +te\\u\{7\}st +pi-base +- +deadbeef\n$/);
});

test('one table of exit statuses', (t) => {
  t.is(exitStatus(null, 'commands'), 0);
  t.deepEqual(
    EXIT_STATUSES.map(({ kind, status }) => [kind, status]),
    [
      ['done', 0],
      ['failed', 1],
      ['usage', 2],
      ['refused', 3],
      ['stale', 4],
      ['damaged', 5],
      ['no-room', 6],
      ['nothing-to-do', 7],
      ['timed-out', 8],
      ['not-reported', 9],
      ['bug', 70],
      ['not-executable', 126],
      ['not-found', 127],
      ['interrupted', 130],
    ],
  );
  t.is(exitStatus('interrupted', 'commands', 'SIGINT'), 130);
  t.is(exitStatus('interrupted', 'commands', 'SIGTERM'), 143);
  t.is(exitStatus('interrupted', 'commands', 'SIGHUP'), 129);
  t.is(exitStatus('interrupted', 'commands', 'SIGQUIT'), 131);
  // A signal that came too late to stop anything does not change another result.
  t.is(exitStatus(null, 'commands', 'SIGTERM'), 0);
  // An operation that is done is no failure, least of all for callers who know only ASMT's two
  // statuses.
  const isDone = (kind: string) => kind === 'done' || kind === 'not-reported';
  for (const { kind } of EXIT_STATUSES) t.is(exitStatus(kind === 'done' ? null : kind, 'asmt'), isDone(kind) ? 0 : 1);
});

test('help names every option, every command and every exit status', (t) => {
  const all = help(null);
  for (const spec of SPECS) t.true(all.includes(optionUsage(spec)), spec.name);
  for (const { status, help: text } of EXIT_STATUSES) t.true(all.includes(`${status}  ${text}`), text);
  for (const verb of VERBS) {
    t.true(all.includes(`asmt ${verb}`));
    t.true(shortUsage().includes(`asmt ${verb}`));
    for (const spec of SPECS) {
      const isThere = help(verb).includes(`--${spec.name}`);
      t.is(isThere, spec.verbs.includes(verb) && !spec.selectsVerb && spec.name !== 'version', `${verb} --${spec.name}`);
    }
  }
  for (const line of [...all.split('\n'), ...VERBS.flatMap((verb) => help(verb).split('\n'))]) t.true(line.length <= 100, line);
});

test('long texts are as they were agreed on', (t) => {
  t.snapshot(help(null), 'asmt --help');
  for (const verb of VERBS) t.snapshot(help(verb), `asmt ${verb} --help`);
  t.snapshot(shortUsage(), 'asmt without words');
  const names = { user: (uid: number) => `user${uid}`, group: (gid: number) => `group${gid}` };
  const planned = { ...report, analyze: true, reserve_bytes: 2 ** 21, free_bytes: 2 ** 30 };
  t.snapshot(render.planTable(plain, planned), 'the plan of an analysis');
  t.snapshot(render.namespaceTable(plain, report), 'a list of namespaces');
  t.snapshot(render.segmentTable(plain, report.segments, names), 'a list of segments');
  const problems = [problem('first', 'do this'), problem('second', 'do that'), problem('third', 'do that')];
  t.snapshot(render.failure(plain, { ...problems[0]!, problems }), 'a failure');
});
