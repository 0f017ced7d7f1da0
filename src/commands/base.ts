/**
 * What all commands share: options of the one table, and the run of a job with progress, signals
 * and output.
 *
 * Promise: results go to standard output, everything else to standard error; the exit status is
 * decided by `exitStatus` alone. A reader that goes away (EPIPE) neither stops nor undoes the work.
 * Work that is done is never reported as failed, whatever becomes of its report.
 */

import { Command } from 'clipanion';

import { quoted } from '../argv.ts';
import { NO_COLOURS, streamColours } from '../colours.ts';
import { withEnvironment } from '../environment.ts';
import { AsmtError, exitStatus, type Form } from '../errors.ts';
import type { Request } from '../generated/engine.ts';
import { outputOf } from '../json.ts';
import { recordMetrics } from '../metrics-file.ts';
import { endProcess, runJob, tellService } from '../native.ts';
import type { Values } from '../options.ts';
import type { ErrorText, FailureKind as Kind, Outcome, Remark, Report } from '../outcome.ts';
import { standardError, writeErr, writeOut } from '../output.ts';
import { directoryIn, resolve, notFound, wordsOf, type EngineVerb, type Invocation } from '../policy.ts';
import { JsonProgress, NO_DISPLAY, ProgressDisplay, type Display } from '../progress.ts';
import * as render from '../render.ts';
import { STOPPING, watchSignals } from '../signals.ts';
import { typedTime } from '../times.ts';
import { systemNames } from '../users.ts';
import { voiceOf, type Voice } from '../voice.ts';

/** A command: what was typed, and which verb it is for. */
export abstract class AsmtCommand extends Command {
  readonly form: Form = 'commands';
  protected values: Values = {};
  protected operands: readonly string[] = [];
  /** What stands behind `--`; of `run` alone. */
  protected command: readonly string[] = [];
  protected colours = NO_COLOURS;

  protected abstract verb(values: Values): EngineVerb;

  /** Takes what was typed, as `argv.ts` has read it: clipanion only finds the command. */
  given(values: Values, operands: readonly string[], command: readonly string[]): this {
    this.values = values;
    this.operands = operands;
    this.command = command;
    return this;
  }

  /** The command that does what `--analyze` shows. */
  #commandToRun({ request, deadlineMs }: Invocation): string {
    const verb = this.form === 'asmt' ? (request.verb === 'backup' ? '-b' : '-r') : request.verb;
    const directory = directoryIn(request);
    const output = request.verb === 'export' ? [quoted(request.output)] : [];
    const place = [...(this.form === 'asmt' ? ['-p'] : []), directory === null ? 'DIR' : quoted(directory), ...output];
    return render.visible(['asmt', verb, ...wordsOf({ request, deadlineMs }), ...place].join(' '));
  }

  async execute(): Promise<number> {
    const verb = this.verb(this.values);
    const given = withEnvironment(verb, this.form, this.values, this.operands, process.env);
    const meant = resolve(verb, given.values, this.operands, given.sources);
    meant.remarks.unshift(...given.remarks);
    if (verb === 'preflight') checkVariables(this.form);
    this.colours = await streamColours();
    return (await this.perform(meant)).status;
  }

  /**
   * Does what is meant and shows what came of it; only the signals `stopping` stop it. Ends the
   * process where the engine does not come back.
   */
  protected async perform(meant: Invocation, stopping = STOPPING): Promise<Performed> {
    const voice = voiceOf(meant, this.colours.err);
    const {
      outcome: ended,
      why,
      shown,
    } = await run(meant, voice, stopping).catch((error: unknown) => {
      const ours = AsmtError.of(error);
      this.#record(meant, { ok: false, report: null, error: ours.toText() }, exitStatus(ours.kind, this.form), voice);
      throw error;
    });
    const signal = why === DEADLINE ? null : why;
    const finish = (all: Outcome): number => {
      const status = this.#show(meant, voice, all, signal, shown);
      this.#record(meant, all, status, voice);
      return status;
    };
    if (ended === null) endProcess(finish(abandoned(meant, why)));
    const outcome = why === DEADLINE ? late(meant, ended) : ended;
    if (meant.request.verb === 'list' && outcome.ok) {
      const error = await missing(meant, outcome.report);
      if (error !== null) Object.assign(outcome, { ok: false, error: error.toText() });
    }
    const status = finish(outcome);
    tellService(render.serviceState(meant.request, outcome));
    return { outcome, signal, status };
  }

  /** Writes the metrics, if that was asked for. What goes wrong there changes nothing else. */
  #record(meant: Invocation, outcome: Outcome, status: number, voice: Voice): void {
    if (meant.metrics === null) return;
    const lost = recordMetrics(meant.metrics, meant.request, outcome, status);
    if (lost === null) return;
    const message = `the metrics could not be written to ${meant.metrics}: ${lost}`;
    writeErr(voice.remark({ code: 'metrics-not-written', message }));
  }

  /** Writes a result. Returns why it could not be written, or null. */
  protected writeResult(text: string): string | null {
    return writeOut(text);
  }

  /** The text of a failure. */
  protected failure(voice: Voice, error: ErrorText): string {
    return voice.failure(error);
  }

  /** Shows what came of it. Returns the exit status. */
  #show(meant: Invocation, voice: Voice, outcome: Outcome, signal: NodeJS.Signals | null, shown: Set<string>): number {
    const { report, error } = outcome;
    const done = outcome.ok && report !== null && isWork(report) ? report : null;
    const statusOf = (kind: Kind | null) => exitStatus(kind, this.form, signal);
    const kind = outcome.ok ? null : (error?.kind ?? 'bug');
    let text = '';
    try {
      if (report !== null) report.remarks = [...meant.remarks, ...report.remarks];
      for (const remark of report?.remarks ?? meant.remarks) {
        if (!shown.has(remark.message)) writeErr(voice.remark(remark));
        shown.add(remark.message);
      }
      if (meant.json) text = outputOf(outcome, statusOf(kind));
      else if (report !== null && !meant.quiet) text = this.#text(meant, voice, report, outcome.ok);
    } catch (thrown) {
      if (done === null) throw thrown;
      const message = `its report cannot be shown in full, which is a bug in asmt: ${String(thrown)}`;
      writeErr(voice.remark({ code: 'not-shown', message }));
      text = meant.json ? outputOf({ ok: true, report: null, error: null }, 0) : `${render.plainly(done)}\n`;
    }
    const lost = this.writeResult(text);
    if (error !== null) writeErr(this.failure(voice, error));
    const possible = report?.possible ?? [];
    if (possible.length > 0) {
      const alone = { ...meant, request: { ...meant.request, namespaces: possible } };
      writeErr(voice.alternative(meant.request.verb, possible, this.#commandToRun(alone)));
    }
    if (lost === null) return statusOf(kind);
    const unreported = notReported(done, lost);
    writeErr(voice.failure(unreported.toText()));
    return statusOf(kind ?? unreported.kind);
  }

  #text(meant: Invocation, voice: Voice, report: Report, isDone: boolean): string {
    // A plan that must not be executed is still worth seeing, where seeing it is what was asked
    // for.
    if (!isDone && !report.analyze && report.verb !== 'verify' && report.verb !== 'list') return '';
    if (report.preflight !== null) {
      const all = meant.verbose ? `\n${render.segmentTable(this.colours.out, report.segments, systemNames())}` : '';
      return render.preflight(this.colours.out, report, report.preflight) + all;
    }
    const segments = meant.verbose ? render.segmentTable(this.colours.out, report.segments, systemNames()) : '';
    if (report.verb === 'list') {
      if (isDone && report.namespaces.length === 0) writeErr(voice.event(NOTHING_THERE));
      return report.namespaces.length === 0
        ? ''
        : render.namespaceTable(this.colours.out, report) + (segments && `\n${segments}`);
    }
    const plan = report.analyze && report.segments.length > 0 ? render.planTable(this.colours.out, report) : '';
    const summary = isDone ? render.summary(this.colours.out, report, meant.verbose ? this.#commandToRun(meant) : null) : '';
    const verdicts = report.restorability.map(({ instance, ...verdict }) => {
      const place = report.restorability.length > 1 || instance > 0 ? `instance ${instance}: ` : '';
      return render.restorability(this.colours.out, place, verdict, exitStatus(verdict.reasons[0]?.kind ?? null, 'commands'));
    });
    return [segments, plan, summary, verdicts.join('')].filter((part) => part !== '').join('\n');
  }
}

/** A variable with which a backup or a restore would not begin is an error here, too. */
function checkVariables(form: Form): void {
  for (const half of ['backup', 'restore'] as const) {
    const { values, sources } = withEnvironment(half, form, {}, ['DIR'], process.env);
    resolve(half, values, ['DIR'], sources);
  }
}

const NOTHING_THERE: Remark = { code: 'nothing-there', message: 'no Aerospike segments in this IPC namespace' };

/** Whether it changed something: then it is done, and what else goes wrong does not undo it. */
function isWork({ verb, analyze }: Report): boolean {
  return !analyze && verb !== 'list' && verb !== 'verify' && verb !== 'preflight';
}

/** The report is lost: of work that is done, or of a question whose answer it was. */
function notReported(done: Report | null, reason: string): AsmtError {
  const lost = `could not be written to standard output: ${reason}`;
  if (done === null) {
    const hint = 'free space where standard output goes, then try again';
    return new AsmtError('failed', 'result-lost', `the result ${lost}`, hint);
  }
  const look =
    done.verb === 'restore'
      ? 'asmt list shows the segments'
      : `asmt verify ${quoted(done.output ?? done.directory ?? '')} shows it`;
  const message = `the ${done.verb} is done (${render.plainly(done)}), but its report ${lost}`;
  return new AsmtError('not-reported', 'not-reported', message, `do not run it again: nothing is missing; ${look}`);
}

/** The stop that `--deadline` makes. */
const DEADLINE = 'deadline';

/** Why a job was stopped; null where it was not. */
type Why = NodeJS.Signals | typeof DEADLINE | null;

/** What a stop at the deadline comes to: of a job that was done nevertheless, nothing changes. */
function late({ deadlineMs }: Invocation, outcome: Outcome): Outcome {
  const { error } = outcome;
  if (error?.kind !== 'interrupted') return outcome;
  const place = { kind: 'timed-out' as const, code: 'deadline' };
  const message = `not done within ${typedTime(deadlineMs ?? 0)} (--deadline): ${error.message}`;
  const hint = 'try again with more time; asmt backup -a or restore -a shows how much there is to copy';
  const problems = error.problems.map((problem) =>
    problem.kind === 'interrupted' ? { ...problem, ...place, message, hint } : problem,
  );
  return { ...outcome, error: { ...error, ...place, message, hint, problems } };
}

/** What a stop comes to that did not wait for the engine. */
function abandoned({ request, deadlineMs }: Invocation, why: Why): Outcome {
  const stopped = why === DEADLINE ? `not done within ${typedTime(deadlineMs ?? 0)} (--deadline)` : why;
  const message = `${stopped}: the system does not respond (a device or a file system), so asmt exited without waiting for it; nothing was changed`;
  const look = 'find out what does not respond (dmesg, findmnt), then try again';
  // Without these, another instance's or namespace's backup in the directory would be retired.
  const instance = request.instance === null || request.instance === 0 ? '' : `-i ${request.instance} `;
  const names = request.namespaces === null ? '' : `-n ${quoted(request.namespaces.join(','))} `;
  const used = `if the server starts without this restore, run asmt retire ${instance}${names}${quoted(directoryIn(request) ?? '')}`;
  const hint = request.verb === 'restore' && !request.analyze ? `${look}; ${used}` : look;
  const error =
    why === DEADLINE
      ? new AsmtError('timed-out', 'deadline', message, hint)
      : new AsmtError('interrupted', 'interrupted', message, hint);
  return { ok: false, report: null, error: error.toText() };
}

/** What a list was asked for and has not found. */
async function missing({ request }: Invocation, report: Report | null): Promise<AsmtError | null> {
  const found = report?.namespaces ?? [];
  if (notFound(request, found, found) === null) return null;
  const all = await runJob({ verb: 'list', namespaces: null, instance: null }, ignore, ignore);
  return notFound(request, found, all?.report?.namespaces ?? []);
}

function ignore(): void {}

/** Whether it takes so long that its progress is shown: a look does not. */
function showsProgress(request: Request): boolean {
  return request.verb !== 'list' && request.verb !== 'preflight' && !('analyze' in request && request.analyze);
}

/** Longest time that a timer of Node takes. */
const MOST_TIMER_MS = 2 ** 31 - 1;

/** Calls `stop` after this time, if it is one that a process may live to see. */
function atDeadline(deadlineMs: number | null, stop: () => void): NodeJS.Timeout | undefined {
  return deadlineMs === null || deadlineMs > MOST_TIMER_MS ? undefined : setTimeout(stop, deadlineMs);
}

/** What has become of what was meant. */
export interface Performed {
  outcome: Outcome;
  signal: NodeJS.Signals | null;
  status: number;
}

/** A job that has ended, or was given up: then there is no outcome. */
interface Ended {
  outcome: Outcome | null;
  why: Why;
  /** Remarks that were printed on the way. */
  shown: Set<string>;
}

/** Where its progress is shown. `-q` is about what people read. */
function displayOf({ request, progress, quiet }: Invocation): Display {
  if (!showsProgress(request)) return NO_DISPLAY;
  if (progress === 'json') return new JsonProgress(standardError);
  return quiet ? NO_DISPLAY : new ProgressDisplay(standardError);
}

/** Runs the job, with its progress and its remarks on standard error. */
async function run(meant: Invocation, voice: Voice, stopping: readonly NodeJS.Signals[]): Promise<Ended> {
  const shown = new Set<string>();
  const display = displayOf(meant);
  const say = (text: string) => {
    if (text === '') return;
    display.clear();
    standardError.write(text);
  };
  const remark = (remark: Remark) => {
    if (shown.has(remark.message)) return;
    shown.add(remark.message);
    say(voice.remark(remark));
  };
  let stop: (() => void) | null = null;
  let isLate = false;
  const signals = watchSignals(
    (signal) => {
      say(voice.event({ code: 'stopping', message: `${signal}: stopping and cleaning up` }));
      stop?.();
    },
    (signal) => {
      const isStopping = signals.received() !== null;
      const message = isStopping
        ? `${signal} again: still cleaning up`
        : `${signal}: still at work (${stopping.join(', ')}: stop it)`;
      say(voice.event({ code: 'stopping', message }));
    },
    stopping,
  );
  const deadline = atDeadline(meant.deadlineMs, () => {
    if (signals.received() !== null) return;
    isLate = true;
    say(voice.event({ code: 'stopping', message: 'the time is over (--deadline): stopping and cleaning up' }));
    stop?.();
  });
  meant.remarks.forEach(remark);
  try {
    const outcome = await runJob(
      meant.request,
      (progress) => {
        progress.events.filter((event) => event.is_remark).forEach(remark);
        const events = meant.verbose ? progress.events.filter((event) => !event.is_remark) : [];
        if (events.length > 0) say(events.map((event) => voice.event(event)).join(''));
        display.show(progress);
      },
      (stopJob) => {
        stop = stopJob;
        // It may have come before there was something to stop.
        if (isLate || signals.received() !== null) stopJob();
      },
    );
    return { outcome, why: isLate ? DEADLINE : signals.received(), shown };
  } finally {
    clearTimeout(deadline);
    display.end();
  }
}
