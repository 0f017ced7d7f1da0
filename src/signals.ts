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
 */

const STOPPING = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const;
const WITHOUT_EFFECT = ['SIGUSR1', 'SIGUSR2', 'SIGXFSZ'] as const;

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

/** Calls `stop` at the first signal and `again` at each one after it. */
export function watchSignals(stop: (signal: NodeJS.Signals) => void, again: (signal: NodeJS.Signals) => void): SignalWatch {
  let first: NodeJS.Signals | null = null;
  const onSignal = (signal: NodeJS.Signals) => {
    if (first !== null) return again(signal);
    first = signal;
    stop(signal);
  };
  for (const signal of STOPPING) process.on(signal, onSignal);
  return { received: () => first };
}
