/**
 * The border to the engine: the only file that calls it, and the only one that believes its JSON.
 *
 * The shapes are in `generated/engine.ts`, made of the engine's own types. Must never: decide,
 * print, or be imported for types only at a cost (the addon is loaded when a job begins, so that
 * `--help` stays quick).
 */

import { loadAddon } from './addon.ts';
import type { Request, Snapshot } from './generated/engine.ts';
import type { Outcome } from './outcome.ts';
import { version } from './version.ts';

/** How often progress is looked at. */
const POLL_MS = 125;
/** How long a stop waits for an engine that has changed nothing yet. */
const GRACE_MS = 2_000;

/**
 * Runs one operation to its end. Rejects only if the engine cannot be loaded.
 *
 * The result is null where the engine was asked to stop, did not come back (a device or a file
 * system does not answer), and had changed nothing: it never will. Its thread may still be there,
 * so that the process ends by {@link endProcess} only.
 */
export async function runJob(
  request: Request,
  onProgress: (progress: Snapshot) => void,
  onStoppable: (stop: () => void) => void,
): Promise<Outcome | null> {
  const job = new (loadAddon(version()).Job)(JSON.stringify(request));
  let grace: NodeJS.Timeout | undefined;
  const abandoned = new Promise<null>((resolve) => {
    onStoppable(() => {
      job.stop();
      grace ??= setTimeout(() => {
        if (job.abandon()) resolve(null);
      }, GRACE_MS);
    });
  });
  let isShown = true;
  const look = () => {
    if (!isShown) return;
    try {
      onProgress(JSON.parse(job.poll()) as Snapshot);
    } catch {
      // Whatever is wrong with showing how far it is, it must not end the work.
      isShown = false;
    }
  };
  const timer = setInterval(look, POLL_MS);
  try {
    const text = await Promise.race([job.run(), abandoned]);
    if (text === null) return null;
    look();
    return JSON.parse(text) as Outcome;
  } finally {
    clearInterval(timer);
    clearTimeout(grace);
  }
}

/** Tells the service manager a state (sd_notify(3)), if one listens and can be told. */
export function tellService(state: string): void {
  if (!process.env['NOTIFY_SOCKET']) return;
  try {
    loadAddon(version()).notifyService(state);
  } catch {
    // The work is done, whether or not anybody hears of it.
  }
}

/** Ends the process although the engine's thread waits for the system. */
export function endProcess(status: number): never {
  process.exit(status);
}

/** The target that the engine was built for, and the SIMD level that it uses on this CPU. */
export function engineBuild(): { target: string; simd: string } {
  return JSON.parse(loadAddon(version()).engineBuild()) as { target: string; simd: string };
}
