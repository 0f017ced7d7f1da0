/**
 * What each signal does.
 *
 * SIGINT, SIGTERM, SIGHUP and SIGQUIT ask the engine to stop and clean up; they never end the
 * process half-way (and SIGQUIT must not: its core file would hold the node's data). A second one
 * is answered, not obeyed: what is left to do is short, and leaving it undone is what this tool is
 * there to prevent. The handlers stay to the end of the process: a signal that comes when the work
 * is done must not take away the report of it.
 *
 * SIGUSR1 and SIGUSR2 do nothing. Without a handler, the first makes Node open its debugger to
 * everybody on this host, in a process of root's, and the second ends the process. A write past the
 * limit on file sizes (SIGXFSZ) is an error like any other, told and cleaned up after.
 *
 * `run` has phases, and a signal means something else in each of them: it goes to whoever has asked
 * for signals last.
 */

export const STOPPING: readonly NodeJS.Signals[] = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'];
const WITHOUT_EFFECT: readonly NodeJS.Signals[] = ['SIGUSR1', 'SIGUSR2', 'SIGXFSZ'];
/** What a command may wait for, too. */
const PASSED_ON: readonly NodeJS.Signals[] = [...STOPPING, 'SIGUSR1', 'SIGUSR2'];

export interface SignalWatch {
  /** The first that came. */
  received(): NodeJS.Signals | null;
}

/**
 * Takes the signals that must do nothing; first of all, for until then they do what Node and the
 * kernel do.
 */
export function takeHarmlessSignals(): void {
  for (const signal of WITHOUT_EFFECT) process.on(signal, () => {});
}

/**
 * Calls `stop` at the first of the signals `stopping`, and `again` at each one after it and at all
 * others that ask for a stop.
 */
export function watchSignals(
  stop: (signal: NodeJS.Signals) => void,
  again: (signal: NodeJS.Signals) => void,
  stopping: readonly NodeJS.Signals[] = STOPPING,
): SignalWatch {
  let first: NodeJS.Signals | null = null;
  take(STOPPING, (signal) => {
    if (first !== null || !stopping.includes(signal)) return again(signal);
    first = signal;
    stop(signal);
  });
  return { received: () => first };
}

/** Gives all signals to `next` that a command gets to see. */
export function passSignals(next: (signal: NodeJS.Signals) => void): void {
  take(PASSED_ON, next);
}

let taker: (signal: NodeJS.Signals) => void = () => {};
const taken = new Set<NodeJS.Signals>();

/** From now on, signals go to `next` alone. */
function take(signals: readonly NodeJS.Signals[], next: (signal: NodeJS.Signals) => void): void {
  taker = (signal) => {
    if (signals.includes(signal)) next(signal);
  };
  for (const signal of signals) {
    if (!taken.has(signal)) process.on(signal, (received) => taker(received));
    taken.add(signal);
  }
}
