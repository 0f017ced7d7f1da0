/**
 * SIGINT, SIGTERM and SIGHUP ask the engine to stop and clean up; they never end the process half-way.
 *
 * A second one is answered, not obeyed: what is left to do is short, and leaving it undone is what this tool is there
 * to prevent. The handlers stay to the end of the process: a signal that comes when the work is done must not take away the
 * report of it. A write past the limit on file sizes (SIGXFSZ) is an error like any other, told and cleaned up after.
 */

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

export interface SignalWatch {
  /** The first that came. */
  received(): NodeJS.Signals | null;
}

/** Calls `stop` at the first signal and `again` at each one after it. */
export function watchSignals(stop: (signal: NodeJS.Signals) => void, again: (signal: NodeJS.Signals) => void): SignalWatch {
  let first: NodeJS.Signals | null = null;
  const onSignal = (signal: NodeJS.Signals) => {
    if (first !== null) return again(signal);
    first = signal;
    stop(signal);
  };
  for (const signal of SIGNALS) process.on(signal, onSignal);
  process.on('SIGXFSZ', () => {});
  return { received: () => first };
}
