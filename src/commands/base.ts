/**
 * What all commands share: options of the one table, and the run of a job with progress, signals and output.
 *
 * Promise: results go to standard output, everything else to standard error; the exit status is decided by `exitStatus`
 * alone. A reader that goes away (EPIPE) neither stops nor undoes the work.
 */

import { Chalk, type ChalkInstance, supportsColor, supportsColorStderr } from 'chalk';
import { Command, Option } from 'clipanion';

import { AsmtError, exitStatus, type ErrorText, type Form } from '../errors.ts';
import { runJob, type Outcome, type Remark, type Report } from '../native.ts';
import { OPTIONS, optionUsage, type OptionName, type OptionSpec, type Verb } from '../options.ts';
import { meaning, type Meant, type Values } from '../policy.ts';
import { ProgressDisplay } from '../progress.ts';
import * as render from '../render.ts';
import { watchSignals } from '../signals.ts';
import { systemNames } from '../users.ts';

function specOf(name: OptionName): OptionSpec {
  const specs: readonly OptionSpec[] = OPTIONS;
  const spec = specs.find((candidate) => candidate.name === name);
  if (spec === undefined) throw new Error(`no option ${name}`);
  return spec;
}

/** A flag of the table, as clipanion wants it. What was typed is long already: see `argv.ts`. */
export function flag(name: OptionName): boolean {
  return Option.Boolean(`--${name}`, false, { description: specOf(name).help });
}

/** An option with a value of the table. */
export function value(name: OptionName): string | undefined {
  return Option.String(`--${name}`, { description: optionUsage(specOf(name)) });
}

/** Colours of a stream; both decided once. */
export const chalks = {
  out: new Chalk({ level: supportsColor ? supportsColor.level : 0 }),
  err: new Chalk({ level: supportsColorStderr ? supportsColorStderr.level : 0 }),
} satisfies Record<string, ChalkInstance>;

/** A command: its options, and which verb they are for. */
export abstract class AsmtCommand extends Command {
  readonly form: Form = 'commands';
  operands = Option.Rest({ name: 'DIR' });

  namespace = value('namespace');
  instance = value('instance');
  // `path` is clipanion's own: the command word.
  directory = value('path');
  threads = value('threads');
  compress = flag('compress');
  crc = flag('crc');
  analyze = flag('analyze');
  requireManifest = flag('require-manifest');
  requireProof = flag('require-proof');
  restorable = flag('restorable');
  config = value('config');
  device = value('device');
  forceStale = flag('force-stale');
  forceHost = flag('force-host');
  allowVolatile = flag('allow-volatile');
  allowPrivateIpc = flag('allow-private-ipc');
  verbose = flag('verbose');
  json = flag('json');

  protected abstract verb(): Verb;

  values(): Values {
    const { namespace, instance, threads, compress, crc, analyze, config, device, restorable, verbose, json } = this;
    const renamed = {
      path: this.directory,
      'require-manifest': this.requireManifest,
      'require-proof': this.requireProof,
      'force-stale': this.forceStale,
      'force-host': this.forceHost,
      'allow-volatile': this.allowVolatile,
      'allow-private-ipc': this.allowPrivateIpc,
    };
    return { namespace, instance, threads, compress, crc, analyze, config, device, restorable, verbose, json, ...renamed };
  }

  /** The command that does what `--analyze` shows. */
  #commandToRun({ request }: Meant): string {
    const words = ['asmt', this.form === 'asmt' ? (request.verb === 'backup' ? '-b' : '-r') : request.verb];
    if (request.compress) words.push('-z');
    if (request.check) words.push('-c');
    if (request.require_manifest) words.push('--require-manifest');
    if (request.require_proof) words.push('--require-proof');
    if (request.restorable) words.push('--restorable');
    if (request.config !== null) words.push('--config', quoted(request.config));
    if (request.devices.length > 0) words.push('--device', quoted(request.devices.join(',')));
    if (request.force_stale) words.push('--force-stale');
    if (request.force_host) words.push('--force-host');
    if (request.allow_volatile) words.push('--allow-volatile');
    if (request.allow_private_ipc) words.push('--allow-private-ipc');
    if (request.instance !== null && request.instance !== 0) words.push('-i', String(request.instance));
    if (request.threads !== null) words.push('-t', String(request.threads));
    if (request.namespaces !== null) words.push('-n', quoted(request.namespaces.join(',')));
    words.push(...(this.form === 'asmt' ? ['-p'] : []), quoted(request.directory ?? ''));
    return render.visible(words.join(' '));
  }

  async execute(): Promise<number> {
    const meant = meaning(this.verb(), this.values(), this.operands);
    const { outcome, signal, shown } = await run(meant);
    const remarks = [...meant.remarks, ...(outcome.report?.remarks ?? [])];
    const status = exitStatus(outcome.ok ? null : (outcome.error?.kind ?? 'bug'), this.form, signal);
    if (outcome.report !== null) outcome.report.remarks = remarks;
    const unsaid = remarks.filter((remark) => !shown.has(remark.message));
    for (const remark of unsaid) process.stderr.write(render.remark(chalks.err, remark));
    if (meant.json) {
      writeJson(outcome, status);
    } else if (outcome.report !== null) {
      process.stdout.write(this.#text(meant, outcome.report, outcome.ok));
    }
    if (outcome.error !== null) process.stderr.write(render.failure(chalks.err, outcome.error));
    const possible = outcome.report?.possible ?? [];
    if (possible.length > 0) {
      const alone = { ...meant, request: { ...meant.request, namespaces: possible } };
      process.stderr.write(render.alternative(chalks.err, meant.request.verb, possible, this.#commandToRun(alone)));
    }
    return status;
  }

  #text(meant: Meant, report: Report, isDone: boolean): string {
    // A plan that must not be executed is still worth seeing, where seeing it is what was asked for.
    if (!isDone && !report.analyze && report.verb !== 'verify') return '';
    const segments = meant.verbose ? render.segmentTable(chalks.out, report.segments, systemNames()) : '';
    if (report.verb === 'list') {
      if (report.namespaces.length === 0) process.stderr.write('asmt: no Aerospike segments in this IPC namespace\n');
      return report.namespaces.length === 0 ? '' : render.namespaceTable(chalks.out, report) + (segments && `\n${segments}`);
    }
    const plan = report.analyze && report.segments.length > 0 ? render.planTable(chalks.out, report) : '';
    const summary = isDone ? render.summary(chalks.out, report, meant.verbose ? this.#commandToRun(meant) : null) : '';
    const verdicts = report.restorability.map(({ instance, ...verdict }) => {
      const place = report.restorability.length > 1 ? `instance ${instance}: ` : '';
      return render.restorability(chalks.out, place, verdict, exitStatus(verdict.reasons[0]?.kind ?? null, 'commands'));
    });
    return [segments, plan, summary, verdicts.join('')].filter((part) => part !== '').join('\n');
  }
}

/** For a shell, if it needs that. */
function quoted(word: string): string {
  return /^[\w./,:@%+=-]+$/.test(word) ? word : `'${word.replaceAll("'", String.raw`'\''`)}'`;
}

/** Code of the one remark that must be read before anything is copied. */
const NOT_PROVEN = 'not-proven';

/** Runs the job; `shown` are the remarks that were printed on the way. */
async function run(meant: Meant): Promise<{ outcome: Outcome; signal: NodeJS.Signals | null; shown: Set<string> }> {
  const shown = new Set<string>();
  const display = new ProgressDisplay(process.stderr);
  const say = (text: string) => {
    display.clear();
    process.stderr.write(text);
  };
  let stop: (() => void) | null = null;
  const signals = watchSignals(
    (signal) => {
      say(render.event({ code: 'stopping', message: `${signal}: stopping and cleaning up` }));
      stop?.();
    },
    (signal) => say(render.event({ code: 'stopping', message: `${signal} again: still cleaning up` })),
  );
  try {
    const outcome = await runJob(
      meant.request,
      (progress) => {
        for (const remark of progress.events.filter(({ code }) => code === NOT_PROVEN)) {
          shown.add(remark.message);
          say(render.remark(chalks.err, remark));
        }
        const events: Remark[] = meant.verbose ? progress.events.filter(({ code }) => code !== NOT_PROVEN) : [];
        if (events.length > 0) say(events.map(render.event).join(''));
        if (meant.request.verb !== 'list' && !meant.request.analyze) display.show(progress);
      },
      (stopJob) => {
        stop = stopJob;
        // It may have come before there was something to stop.
        if (signals.received() !== null) stopJob();
      },
    );
    return { outcome, signal: signals.received(), shown };
  } finally {
    display.clear();
  }
}

function writeJson(outcome: Outcome, status: number): void {
  process.stdout.write(
    `${JSON.stringify({ ok: outcome.ok, exit_status: status, report: outcome.report, error: outcome.error })}\n`,
  );
}

/** A failure that no engine was asked about, shown like one. Returns the exit status. */
export function fail(error: unknown, form: Form, json: boolean): number {
  const ours = AsmtError.of(error);
  const text: ErrorText = ours.toText();
  const status = exitStatus(ours.kind, form);
  if (json) writeJson({ ok: false, report: null, error: text }, status);
  process.stderr.write(render.failure(chalks.err, text));
  return status;
}
