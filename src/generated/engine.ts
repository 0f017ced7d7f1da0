/**
 * The shapes that cross the border to the engine. Made of the Rust types by `npm run types`: do not
 * edit. Sizes are bytes, times milliseconds. A number beyond 2^53, as only a lie in a manifest is,
 * comes rounded.
 */

/**
 * Which operation.
 */
export type Verb = 'list' | 'backup' | 'restore' | 'verify' | 'retire' | 'export' | 'preflight';

/**
 * A request.
 */
export type Request =
  | ({ verb: 'list' } & ListRequest)
  | ({ verb: 'backup' } & BackupRequest)
  | ({ verb: 'restore' } & RestoreRequest)
  | ({ verb: 'verify' } & VerifyRequest)
  | ({ verb: 'retire' } & RetireRequest)
  | ({ verb: 'export' } & ExportRequest)
  | ({ verb: 'preflight' } & PreflightRequest);

/**
 * Request for a list.
 */
export type ListRequest = {
  /**
   * Instance; null means every one.
   */
  instance: number | null;
  /**
   * Namespaces; null means every one.
   */
  namespaces: Array<string> | null;
};

/**
 * Request for a backup.
 */
export type BackupRequest = {
  /**
   * Directory; null only where the backup is analyzed.
   */
  directory: string | null;
  /**
   * Instance; null means 0.
   */
  instance: number | null;
  /**
   * Namespaces; null means every one.
   */
  namespaces: Array<string> | null;
  /**
   * Compress as ASMT does it.
   */
  compress: boolean;
  /**
   * Compress by columns, in a form that only asmt reads; not together with `compress`.
   */
  columns: boolean;
  /**
   * Read everything back and compare.
   */
  check: boolean;
  /**
   * Worker threads; null means as many as suit the machine.
   */
  threads: number | null;
  /**
   * Only look what would be done.
   */
  analyze: boolean;
  /**
   * The server's configuration; null means that of its packages, if it is there.
   */
  config: string | null;
  /**
   * Storage devices and files, instead of those that the configuration names.
   */
  devices: Array<string>;
  /**
   * Take the place of older backups of the same namespaces.
   */
  replace: boolean;
  /**
   * Go on where devices say that the backup will be stale.
   */
  force_stale: boolean;
  /**
   * Allow a directory that a reboot empties.
   */
  allow_volatile: boolean;
  /**
   * Wait at most this long, in milliseconds, until the server has gone; null means not at all.
   */
  wait_ms: number | null;
};

/**
 * Request for a restore.
 */
export type RestoreRequest = {
  /**
   * Directory.
   */
  directory: string;
  /**
   * Instance; null means 0.
   */
  instance: number | null;
  /**
   * Namespaces; null means every one.
   */
  namespaces: Array<string> | null;
  /**
   * Read every segment again and compare.
   */
  check: boolean;
  /**
   * Worker threads; null means as many as suit the machine.
   */
  threads: number | null;
  /**
   * Only look what would be done.
   */
  analyze: boolean;
  /**
   * Refuse what has no manifest.
   */
  require_manifest: boolean;
  /**
   * The server's configuration; null means that of its packages, if it is there.
   */
  config: string | null;
  /**
   * Storage devices and files, instead of those that the configuration names.
   */
  devices: Array<string>;
  /**
   * Restore even if the backup is stale, used or retired, or if that cannot be checked.
   */
  force_stale: boolean;
  /**
   * Restore another host's backup.
   */
  force_host: boolean;
  /**
   * Restore into an IPC namespace that seems to end with this process.
   */
  allow_private_ipc: boolean;
  /**
   * Refuse where no storage device proves that the server has not run since the backup.
   */
  require_proof: boolean;
};

/**
 * Request to verify a backup.
 */
export type VerifyRequest = {
  /**
   * Directory.
   */
  directory: string;
  /**
   * Instance; null means every one.
   */
  instance: number | null;
  /**
   * Namespaces; null means every one.
   */
  namespaces: Array<string> | null;
  /**
   * Read past the page cache, as far as that can be had.
   */
  check: boolean;
  /**
   * Worker threads; null means as many as suit the machine.
   */
  threads: number | null;
  /**
   * Only look at names, headers and manifests.
   */
  analyze: boolean;
  /**
   * Refuse what has no manifest.
   */
  require_manifest: boolean;
  /**
   * The server's configuration; null means that of its packages, if it is there.
   */
  config: string | null;
  /**
   * Storage devices and files, instead of those that the configuration names.
   */
  devices: Array<string>;
  /**
   * Report a backup of which no storage device proves that it is current as one that a restore
   * refuses.
   */
  require_proof: boolean;
  /**
   * Fail as a restore here would, apart from what is in memory now.
   */
  restorable: boolean;
};

/**
 * Request to retire a backup.
 */
export type RetireRequest = {
  /**
   * Directory.
   */
  directory: string;
  /**
   * Instance; null means 0.
   */
  instance: number | null;
  /**
   * Namespaces; null means every one.
   */
  namespaces: Array<string> | null;
};

/**
 * Request for an export.
 */
export type ExportRequest = {
  /**
   * Directory of the backup.
   */
  directory: string;
  /**
   * Directory that is written to.
   */
  output: string;
  /**
   * Instance; null means 0.
   */
  instance: number | null;
  /**
   * Namespaces; null means every one.
   */
  namespaces: Array<string> | null;
  /**
   * Compress as ASMT does it.
   */
  compress: boolean;
  /**
   * Read everything back and compare.
   */
  check: boolean;
  /**
   * Worker threads; null means as many as suit the machine.
   */
  threads: number | null;
  /**
   * Only look what would be done.
   */
  analyze: boolean;
  /**
   * The server's configuration; null means that of its packages, if it is there.
   */
  config: string | null;
  /**
   * Storage devices and files, instead of those that the configuration names.
   */
  devices: Array<string>;
  /**
   * Export a backup that a restore would refuse as outdated.
   */
  force_stale: boolean;
  /**
   * Export a backup of another host.
   */
  force_host: boolean;
  /**
   * Write to a file system in memory, too.
   */
  allow_volatile: boolean;
};

/**
 * Request for a preflight. The options are those of the backup and the restore that it is about.
 */
export type PreflightRequest = {
  /**
   * What it is about; null means both, as far as they apply.
   */
  leg: Leg | null;
  /**
   * Directory; null for a backup of which nothing is known but what is in memory.
   */
  directory: string | null;
  /**
   * Instance; null means 0.
   */
  instance: number | null;
  /**
   * Namespaces; null means every one.
   */
  namespaces: Array<string> | null;
  /**
   * As in [`BackupRequest`].
   */
  compress: boolean;
  /**
   * As in [`BackupRequest`].
   */
  columns: boolean;
  /**
   * As in [`RestoreRequest`].
   */
  require_manifest: boolean;
  /**
   * The server's configuration; null means that of its packages, if it is there.
   */
  config: string | null;
  /**
   * Storage devices and files, instead of those that the configuration names.
   */
  devices: Array<string>;
  /**
   * As in [`RestoreRequest`].
   */
  require_proof: boolean;
  /**
   * As in [`BackupRequest`].
   */
  replace: boolean;
  /**
   * As in [`BackupRequest`] and [`RestoreRequest`].
   */
  force_stale: boolean;
  /**
   * As in [`RestoreRequest`].
   */
  force_host: boolean;
  /**
   * As in [`BackupRequest`].
   */
  allow_volatile: boolean;
  /**
   * As in [`RestoreRequest`].
   */
  allow_private_ipc: boolean;
};

/**
 * What a preflight is about.
 */
export type Leg = 'backup' | 'restore';

/**
 * What an operation comes to: its report, or why it failed, or both.
 */
export type Outcome = {
  /**
   * It did what was asked for.
   */
  ok: boolean;
  /**
   * What was found or done; null where nothing was found out.
   */
  report: Report | null;
  /**
   * Why it failed; null if it did not.
   */
  error: ErrorText | null;
};

/**
 * What was found or done.
 */
export type Report = {
  /**
   * Which operation.
   */
  verb: Verb;
  /**
   * Directory; null for a list.
   */
  directory: string | null;
  /**
   * Directory that is written to; exports only.
   */
  output: string | null;
  /**
   * Nothing was done: it was only looked what would be.
   */
  analyze: boolean;
  /**
   * Namespaces.
   */
  namespaces: Array<NamespaceReport>;
  /**
   * Namespaces whose backup in the directory is current, so that no other one was made; backups
   * that replace older ones only.
   */
  current: Array<NamespaceReport>;
  /**
   * Segments, by key.
   */
  segments: Array<SegmentReport>;
  /**
   * What the user should know.
   */
  remarks: Array<Remark>;
  /**
   * Size of all segments.
   */
  total_bytes: number;
  /**
   * Of this data, whatever form it has in files; holes, and pages of zeros that a restore leaves
   * untouched, are left out. Null where nothing was read or written.
   */
  data_bytes: number | null;
  /**
   * Disk space reserved, at worst needed; of an analysis what is needed at least. Backups only.
   */
  reserve_bytes: number | null;
  /**
   * Disk space that is free in the directory; analysed backups only.
   */
  free_bytes: number | null;
  /**
   * Where others are refused: names of the namespaces that this could be done with, all of them
   * at once.
   */
  possible: Array<string>;
  /**
   * Whether a restore here would be accepted, one entry for each instance; verifications only.
   */
  restorability: Array<Restorability>;
  /**
   * What would stand in the way; preflights only.
   */
  preflight: Preflight | null;
  /**
   * How long it took.
   */
  elapsed_ms: number;
};

/**
 * A namespace.
 */
export type NamespaceReport = {
  /**
   * Instance.
   */
  instance: number;
  /**
   * Name; null for index segments without a readable base.
   */
  name: string | null;
  /**
   * nsid of the index; null if there are only stripes.
   */
  nsid: number | null;
  /**
   * nsid of the stripes, if there are any.
   */
  data_nsid: number | null;
  /**
   * Layout version of base.
   */
  base_version: number | null;
  /**
   * How the server left it: listings only.
   */
  state: State | null;
  /**
   * Number of segments.
   */
  segment_count: number;
  /**
   * Size of all of them.
   */
  size_bytes: number;
  /**
   * Of these in memory; null where only files are known.
   */
  resident_bytes: number | null;
  /**
   * Of these swapped out.
   */
  swapped_bytes: number;
  /**
   * Size of all files: what they hold, holes included.
   */
  file_bytes: number | null;
  /**
   * What all files occupy on the disk: their allocated blocks. Null where it is not known.
   */
  allocated_bytes: number | null;
  /**
   * Whether the backup has a manifest; null where there is no backup yet.
   */
  has_manifest: boolean | null;
  /**
   * When the backup was made, milliseconds since 1970.
   */
  created_ms: number | null;
};

/**
 * How a server left a namespace in memory, for a listing.
 */
export type State =
  | 'clean'
  | 'running'
  | 'asmt-at-work'
  | 'unclean'
  | 'incomplete'
  | 'torn'
  | 'unreadable'
  | 'unknown-version'
  | 'data-only';

/**
 * A segment.
 */
export type SegmentReport = {
  /**
   * Key, eight hex digits.
   */
  key: string;
  /**
   * Id; null where it is only in a file.
   */
  shmid: number | null;
  /**
   * Owner.
   */
  uid: number;
  /**
   * Group.
   */
  gid: number;
  /**
   * Mode, four octal digits.
   */
  mode: string;
  /**
   * Times attached; null where it is only in a file.
   */
  attached_count: number | null;
  /**
   * Size.
   */
  size_bytes: number;
  /**
   * Of this in memory.
   */
  resident_bytes: number | null;
  /**
   * Instance.
   */
  instance: number;
  /**
   * nsid.
   */
  nsid: number;
  /**
   * Namespace.
   */
  namespace: string | null;
  /**
   * What it holds, as ASMT names it.
   */
  type: string;
  /**
   * Stage or stripe number, where the type has one.
   */
  stage: number | null;
  /**
   * File name.
   */
  file: string | null;
  /**
   * `raw` or `gzip`.
   */
  encoding: string | null;
  /**
   * Size of the file, holes included.
   */
  file_bytes: number | null;
  /**
   * What the file occupies on the disk: its allocated blocks. Null where it is not known.
   */
  allocated_bytes: number | null;
  /**
   * CRC-32, eight hex digits, where it was computed.
   */
  crc32: string | null;
};

/**
 * Whether a restore of an instance would be accepted, apart from what is in memory now.
 */
export type Restorability = {
  /**
   * Instance.
   */
  instance: number;
  /**
   * It would be accepted.
   */
  accepted: boolean;
  /**
   * A storage device of each namespace proves that the server has not run since the backup.
   */
  proven: boolean;
  /**
   * Why it would be refused, the weightiest reason first; empty if it would be accepted.
   */
  reasons: Array<Problem>;
};

/**
 * What would stand in the way of a backup or a restore.
 */
export type Preflight = {
  /**
   * No line is not ready or unknown.
   */
  ready: boolean;
  /**
   * A backup was judged.
   */
  backup: boolean;
  /**
   * A restore was judged.
   */
  restore: boolean;
  /**
   * The server runs, as far as can be seen: a backup was judged as after its clean stop.
   */
  server_runs: boolean;
  /**
   * The segments of the backup are still in memory: a restore was judged as after a reboot.
   */
  after_reboot: boolean;
  /**
   * Namespaces, by name.
   */
  namespaces: Array<NamespaceReadiness>;
  /**
   * All lines, by topic.
   */
  checks: Array<Check>;
  /**
   * Bytes of data that a backup would copy.
   */
  data_bytes: number | null;
  /**
   * Bytes that are free at the target.
   */
  free_bytes: number | null;
  /**
   * Memory that a restore needs at most.
   */
  memory_bytes: number | null;
  /**
   * Memory that is available for it.
   */
  available_bytes: number | null;
  /**
   * Expected time of a backup.
   */
  backup_ms: number | null;
  /**
   * Expected time of a restore.
   */
  restore_ms: number | null;
  /**
   * Most time of the server's stop, by its unit.
   */
  stop_ms: number | null;
  /**
   * Time after which a reboot is forced.
   */
  reboot_ms: number | null;
};

/**
 * Whether asmt applies to a namespace, and whether it is ready.
 */
export type NamespaceReadiness = {
  /**
   * Name, or what there is to say without one.
   */
  name: string;
  /**
   * Part of it is in shared memory, or in the backup, and is lost by a reboot otherwise.
   */
  applies: boolean;
  /**
   * Why it does not apply, or what limits it; empty where there is nothing to say.
   */
  why: string;
  /**
   * It would be backed up; null where no backup was asked for, or none of it is in memory.
   */
  backup: boolean | null;
  /**
   * It would be restored; null where no restore was asked for, or it is in no backup.
   */
  restore: boolean | null;
  /**
   * Size of its segments in memory; of those in the backup where it is not in memory. Null where
   * it is neither there nor there, or where it is not certain which segments are its own.
   */
  allocated_bytes: number | null;
  /**
   * Of these resident; null where that is not known.
   */
  resident_bytes: number | null;
};

/**
 * A line of a preflight.
 */
export type Check = {
  /**
   * What it is about.
   */
  topic: Topic;
  /**
   * The answer.
   */
  answer: Answer;
  /**
   * What was found.
   */
  text: string;
  /**
   * The next step; empty where there is none.
   */
  hint: string;
  /**
   * Code of the refusal that `--analyze` has for it; null where it has none.
   */
  code: Code | null;
};

/**
 * What a line of a preflight is about.
 */
export type Topic =
  | 'applies'
  | 'server'
  | 'backup'
  | 'restore'
  | 'room'
  | 'memory'
  | 'rights'
  | 'time'
  | 'unit'
  | 'reboot'
  | 'cold-start'
  | 'stripe-size'
  | 'changed';

/**
 * What a line of a preflight answers.
 */
export type Answer = 'ready' | 'not-ready' | 'unknown' | 'note';

/**
 * Why an operation failed: the weightiest problem, and all of them (at least one).
 */
export type ErrorText = {
  /**
   * All of them.
   */
  problems: Array<Problem>;
  /**
   * Kind, as [`Code::kind`] says.
   */
  kind: Kind;
  /**
   * Stable code.
   */
  code: Code;
  /**
   * What was found and what was expected; lower case, no full stop.
   */
  message: string;
  /**
   * The next step; empty where there is none.
   */
  hint: string;
  /**
   * Name of the file that it is in; null where it is in none.
   */
  file: string | null;
  /**
   * Where in that file, bytes; null where it is not in one place.
   */
  offset: number | null;
  /**
   * Key of the segment that it is about, eight hex digits.
   */
  segment: string | null;
};

/**
 * One thing that is wrong.
 */
export type Problem = {
  /**
   * Kind, as [`Code::kind`] says.
   */
  kind: Kind;
  /**
   * Stable code.
   */
  code: Code;
  /**
   * What was found and what was expected; lower case, no full stop.
   */
  message: string;
  /**
   * The next step; empty where there is none.
   */
  hint: string;
  /**
   * Name of the file that it is in; null where it is in none.
   */
  file: string | null;
  /**
   * Where in that file, bytes; null where it is not in one place.
   */
  offset: number | null;
  /**
   * Key of the segment that it is about, eight hex digits.
   */
  segment: string | null;
};

/**
 * What kind of failure it is. The command line makes its exit status of this and of nothing else.
 *
 * Ordered by weight: where there are several problems, the first of these kinds speaks for all.
 */
export type Kind = 'bug' | 'interrupted' | 'usage' | 'damaged' | 'stale' | 'refused' | 'no-room' | 'failed' | 'nothing-to-do';

/**
 * A stable name for what went wrong; scripts may compare it.
 */
export type Code =
  | 'bug'
  | 'interrupted'
  | 'not-ready'
  | 'directory-missing'
  | 'not-a-directory'
  | 'no-backup'
  | 'nothing-found'
  | 'already-in-memory'
  | 'namespace-missing'
  | 'segment-attached'
  | 'not-cleanly-shut-down'
  | 'segments-incomplete'
  | 'segment-invalid'
  | 'set-torn'
  | 'unknown-version'
  | 'segment-changed'
  | 'segment-swapped'
  | 'backup-exists'
  | 'segments-exist'
  | 'directory-moved'
  | 'another-asmt'
  | 'device-not-trusted'
  | 'device-unreadable'
  | 'log-missing'
  | 'cannot-mark-used'
  | 'config-unreadable'
  | 'setting-changed'
  | 'device-set-torn'
  | 'writable-by-others'
  | 'path-writable-by-others'
  | 'foreign-segments'
  | 'modes-not-kept'
  | 'names-not-safe'
  | 'system-directory'
  | 'volatile-directory'
  | 'private-ipc-namespace'
  | 'segments-not-kept'
  | 'manifest-required'
  | 'manifest-too-new'
  | 'backup-unknown-version'
  | 'backup-not-clean'
  | 'backup-stale'
  | 'made-since'
  | 'backup-used'
  | 'backup-retired'
  | 'cannot-be-told'
  | 'not-proven'
  | 'backup-foreign-host'
  | 'manifest-damaged'
  | 'backup-incomplete'
  | 'backup-set-torn'
  | 'extra-file'
  | 'wrong-size'
  | 'content-damaged'
  | 'unsafe-file'
  | 'disk-full'
  | 'not-enough-memory'
  | 'system-limit'
  | 'permission-denied'
  | 'unsafe-runtime'
  | 'proc-incomplete'
  | 'system-call'
  | 'compare-failed';

/**
 * A remark: nothing is wrong, but the user should know.
 */
export type Remark = {
  /**
   * Stable code.
   */
  code: NoteCode;
  /**
   * What is remarkable.
   */
  message: string;
};

/**
 * A stable name for what a remark or an event is about; scripts may compare it.
 */
export type NoteCode =
  | 'already-backed-up'
  | 'completed'
  | 'configuration'
  | 'counting'
  | 'devices-not-noted'
  | 'fewer-threads'
  | 'filled'
  | 'foreign-segments'
  | 'holes-unseen'
  | 'index-checkpoint'
  | 'index-persists'
  | 'instance-left-out'
  | 'journal-left'
  | 'namespace-left-out'
  | 'no-manifest'
  | 'no-room'
  | 'not-looked-at'
  | 'not-marked'
  | 'not-proven'
  | 'not-reserved'
  | 'old-first'
  | 'old-last'
  | 'other-host'
  | 'outlived'
  | 'overridden'
  | 'page-cache'
  | 'private-ipc-namespace'
  | 'published'
  | 'read'
  | 'recovered'
  | 'reserved'
  | 'room-uncertain'
  | 'segments-not-kept'
  | 'stage-size'
  | 'swept'
  | 'trusted'
  | 'volatile-directory'
  | 'waiting'
  | 'written-plain'
  | 'wrote';

/**
 * State of an operation at one moment.
 */
export type Snapshot = {
  /**
   * What is being done.
   */
  phase: Phase;
  /**
   * Bytes of segments done in this phase.
   */
  done_bytes: number;
  /**
   * Bytes of segments in this phase; 0 while it is not known.
   */
  total_bytes: number;
  /**
   * Time since the phase began.
   */
  elapsed_ms: number;
  /**
   * Which of the passes over the data this is, from 1; 0 where it is none of them.
   */
  pass: number;
  /**
   * How many passes over the data there are; 0 while it is not known.
   */
  passes: number;
  /**
   * Bytes of the passes before this one.
   */
  earlier_bytes: number;
  /**
   * Bytes of the passes after this one.
   */
  later_bytes: number;
  /**
   * What happened since the last snapshot.
   */
  events: Array<Event>;
};

/**
 * What is being done.
 */
export type Phase = 'plan' | 'wait' | 'count' | 'reserve' | 'copy' | 'check' | 'publish' | 'verify';

/**
 * Something that happened.
 */
export type Event = {
  /**
   * Stable code.
   */
  code: NoteCode;
  /**
   * What happened.
   */
  message: string;
  /**
   * A remark of the plan: it is for everybody who runs asmt, and not only with `-v`.
   */
  is_remark: boolean;
};
