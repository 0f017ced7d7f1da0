/**
 * The border to the engine: the only file that loads the addon, and the only one that believes its
 * JSON.
 *
 * The shapes are those of `Request`, `Report`, `Problem` and `Snapshot` in `crates/asmt-engine`;
 * sizes are bytes, times milliseconds. A number beyond 2^53, as only a lie in a manifest is, comes
 * rounded. Must never: decide, print, or be imported for types only at a cost (the addon is loaded
 * when a job begins, so that `--help` stays quick).
 */

import { createRequire } from 'node:module';

import { AsmtError, type ErrorText, type Problem } from './errors.ts';
import type { Verb } from './options.ts';

export interface Request {
  verb: Verb;
  directory: string | null;
  /** Null: every instance (list and verify), else 0. */
  instance: number | null;
  /** Null: every namespace. */
  namespaces: string[] | null;
  compress: boolean;
  check: boolean;
  /** Null: as many as suit the machine. */
  threads: number | null;
  analyze: boolean;
  require_manifest: boolean;
  /** Null: that of the server's packages, if it is there. */
  config: string | null;
  /** Storage devices and files, in the place of those that are configured. */
  devices: string[];
  force_stale: boolean;
  force_host: boolean;
  /** Backup: go to a file system in memory, too. */
  allow_volatile: boolean;
  /** Restore: make segments where they seem to end with this process, too. */
  allow_private_ipc: boolean;
  /**
   * Restore and verify: refuse where no storage device proves that the server has not run since the
   * backup.
   */
  require_proof: boolean;
  /** Verify: fail as a restore here would. */
  restorable: boolean;
}

export interface NamespaceReport {
  instance: number;
  /** Null: not known, index segments without a base. */
  name: string | null;
  /** Null: no index, only data. */
  nsid: number | null;
  /** Nsid of the stripes, where it differs. */
  data_nsid: number | null;
  base_version: number | null;
  /** List only. */
  state:
    | 'clean'
    | 'running'
    | 'asmt-at-work'
    | 'unclean'
    | 'incomplete'
    | 'torn'
    | 'unreadable'
    | 'unknown-version'
    | 'data-only'
    | null;
  segment_count: number;
  size_bytes: number;
  resident_bytes: number | null;
  swapped_bytes: number | null;
  /** Size of all files, holes included. */
  file_bytes: number | null;
  /** What all files occupy on the disk: their allocated blocks. */
  allocated_bytes: number | null;
  has_manifest: boolean | null;
  created_ms: number | null;
}

export interface SegmentReport {
  /** Eight hex digits. */
  key: string;
  shmid: number | null;
  uid: number;
  gid: number;
  /** Octal. */
  mode: string;
  attached_count: number | null;
  size_bytes: number;
  resident_bytes: number | null;
  instance: number;
  nsid: number;
  namespace: string | null;
  type: string;
  stage: number | null;
  file: string | null;
  encoding: 'raw' | 'gzip' | null;
  /** Size of the file, holes included. */
  file_bytes: number | null;
  /** What the file occupies on the disk: its allocated blocks. */
  allocated_bytes: number | null;
  crc32: string | null;
}

export interface Remark {
  code: string;
  message: string;
}

export interface Report {
  verb: Verb;
  directory: string | null;
  analyze: boolean;
  namespaces: NamespaceReport[];
  segments: SegmentReport[];
  remarks: Remark[];
  /** Size of all segments. */
  total_bytes: number;
  /**
   * Of this data, whatever form it has in files: holes, and pages of zeros that a restore leaves
   * untouched, left out.
   */
  data_bytes: number | null;
  /** Room asked for on the disk; backup only. */
  reserve_bytes: number | null;
  free_bytes: number | null;
  /** Namespaces that could be dealt with if the refused ones were left out. */
  possible: string[];
  /** Verify only: one entry for each instance. */
  restorability: Restorability[];
  elapsed_ms: number;
}

/** Whether a restore of an instance would be accepted, apart from what is in memory now. */
export interface Restorability {
  instance: number;
  accepted: boolean;
  /** A storage device of each namespace proves that the server has not run since the backup. */
  proven: boolean;
  /** Why it would be refused, the weightiest reason first. */
  reasons: Problem[];
}

export interface Outcome {
  ok: boolean;
  report: Report | null;
  error: ErrorText | null;
}

/** Something that happened. */
export interface Event extends Remark {
  /** It is for everybody, and not only with `-v`. */
  is_remark: boolean;
}

export interface Progress {
  phase: 'plan' | 'count' | 'reserve' | 'copy' | 'check' | 'publish' | 'verify';
  done_bytes: number;
  /** 0 where a phase has no measure. */
  total_bytes: number;
  /** Since the phase began. */
  elapsed_ms: number;
  /** What happened since the last look. */
  events: Event[];
}

interface Addon {
  Job: new (request: string) => { run(): Promise<string>; poll(): string; stop(): void; abandon(): boolean };
  engineVersion(): string;
}

/** How often progress is looked at. */
const POLL_MS = 125;
/** How long a stop waits for an engine that has changed nothing yet. */
const GRACE_MS = 2_000;

/** The engine's version. */
export function engineVersion(): string {
  return load().engineVersion();
}

/**
 * Runs one operation to its end. Rejects only if the engine cannot be loaded.
 *
 * The result is null where the engine was asked to stop, did not come back (a device or a file
 * system does not answer), and had changed nothing: it never will. Its thread may still be there,
 * so that the process ends by {@link endProcess} only.
 */
export async function runJob(
  request: Request,
  onProgress: (progress: Progress) => void,
  onStoppable: (stop: () => void) => void,
): Promise<Outcome | null> {
  const job = new (load().Job)(JSON.stringify(request));
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
      onProgress(JSON.parse(job.poll()) as Progress);
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

/** Ends the process although the engine's thread waits for the system. */
export function endProcess(status: number): never {
  process.exit(status);
}

function load(): Addon {
  const path = '../native/index.cjs';
  try {
    return createRequire(import.meta.url)(path) as Addon;
  } catch (error) {
    const reason = error instanceof Error ? error.message.split('\n')[0] : String(error);
    throw new AsmtError(
      'failed',
      'engine-missing',
      `the engine for ${process.platform}-${process.arch} cannot be loaded: ${reason}`,
      'install asmt again with its optional dependencies, or run npm run build in a clone',
    );
  }
}
