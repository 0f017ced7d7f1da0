/**
 * The version of asmt, as `package.json` has it: the bundler puts it in, so that no run reads that
 * file, and an installation is what it says that it is.
 */

declare const ASMT_VERSION: string;
declare const ASMT_COMMIT: string;

/** The version of the command line, and of the engine that belongs to it. */
export function version(): string {
  return ASMT_VERSION;
}

/** The commit that it was built from, or "unknown". */
export function commit(): string {
  return ASMT_COMMIT;
}
