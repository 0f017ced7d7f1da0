/**
 * What was typed becomes what is meant: defaults, limits and what goes with what. Pure: no I/O, no
 * addon, no clock.
 *
 * Promise: a request that comes out of here is complete and in range; everything else is a usage
 * error with a next step.
 */

import { AsmtError } from './errors.ts';
import type { NamespaceReport, Remark, Request } from './native.ts';
import { OPTIONS, optionNamed, type OptionName, type OptionSpec, type Verb } from './options.ts';

/** Longest name of a namespace, in bytes. */
export const MAX_NAME_BYTES = 31;
export const MAX_INSTANCE = 15;
export const MAX_THREADS = 1024;

/** Values of options as typed; flags that are not given are missing. */
export type Values = { readonly [name in OptionName]?: string | boolean | undefined };

/** What is meant. */
export interface Meant {
  request: Request;
  remarks: Remark[];
  verbose: boolean;
  json: boolean;
}

/** The verb of ASMT's own form. */
export function verbOfAsmtForm(values: Values): Verb {
  if (values.backup && values.restore)
    throw AsmtError.usage('both -b and -r are given', 'give one of them: -b backs up, -r restores');
  return values.restore ? 'restore' : 'backup';
}

/** What is meant by `verb` with these values and, behind the command, `operands`. */
export function meaning(verb: Verb, values: Values, operands: readonly string[]): Meant {
  refuseForeignOptions(verb, values);
  const remarks: Remark[] = [];
  const directory = directoryOf(verb, text(values.path), operands, values.analyze === true);
  if (verb === 'backup' && directory === null) {
    const message = 'no directory is given: whether the backup fits there, and may be written there, is not checked';
    remarks.push({ code: 'no-directory', message });
  }
  if (verb === 'restore' && values.compress) {
    remarks.push({
      code: 'compress-ignored',
      message: '-z says nothing to a restore: compressed files are recognised by themselves',
    });
  }
  if (values['require-proof'] && values['force-stale']) {
    throw AsmtError.usage(
      '--require-proof and --force-stale are both given',
      'give one of them: the first refuses where nothing proves that the backup is current, the second restores all the same',
    );
  }
  const request: Request = {
    verb,
    directory,
    // A restore, and with it the mark that one was used, is of one server.
    instance: integer('--instance', text(values.instance), 0, MAX_INSTANCE) ?? (verb === 'list' || verb === 'verify' ? null : 0),
    namespaces: namesOf(text(values.namespace)),
    compress: verb === 'backup' && values.compress === true,
    check: values.crc === true,
    threads: integer('--threads', text(values.threads), 1, MAX_THREADS),
    analyze: values.analyze === true,
    require_manifest: values['require-manifest'] === true,
    config: pathOf('--config', text(values.config)),
    devices: pathsOf('--device', text(values.device)),
    force_stale: values['force-stale'] === true,
    force_host: values['force-host'] === true,
    allow_volatile: values['allow-volatile'] === true,
    allow_private_ipc: values['allow-private-ipc'] === true,
    require_proof: values['require-proof'] === true,
    restorable: values.restorable === true,
  };
  return { request, remarks, verbose: values.verbose === true, json: values.json === true };
}

function refuseForeignOptions(verb: Verb, values: Values): void {
  const specs: readonly OptionSpec[] = OPTIONS;
  for (const spec of specs) {
    const isGiven = values[spec.name as OptionName] !== undefined && values[spec.name as OptionName] !== false;
    if (isGiven && !spec.verbs.includes(verb)) {
      throw AsmtError.usage(
        `${verb} takes no --${spec.name}`,
        `it is an option of ${spec.verbs.join(', ')}; see asmt ${verb} --help`,
      );
    }
  }
}

function text(value: string | boolean | undefined): string | undefined {
  return typeof value === 'string' ? value : undefined;
}

function directoryOf(verb: Verb, path: string | undefined, operands: readonly string[], isAnalysis: boolean): string | null {
  const [operand, ...more] = operands;
  if (verb === 'list') {
    if (operand !== undefined)
      throw AsmtError.usage(`what is "${operand}" for?`, 'list takes no directory; asmt verify DIR looks at a backup');
    return null;
  }
  if (more.length > 0) {
    const words = operands.map((word) => `"${word}"`).join(', ');
    const message = `${verb} takes one directory, but ${operands.length} are given: ${words}`;
    throw AsmtError.usage(message, 'give one of them; put a path with a space in it in quotes');
  }
  if (path !== undefined && operand !== undefined && path !== operand) {
    throw AsmtError.usage(`two directories are given, "${operand}" and "${path}"`, 'give one of them');
  }
  const directory = path ?? operand;
  // As in the documentation of ASMT: asmt -a -b -n test. What is in memory can be checked without a
  // directory.
  if (directory === undefined && verb === 'backup' && isAnalysis) return null;
  if (directory === undefined) throw AsmtError.usage(`${verb} needs a directory`, `write asmt ${verb} DIR, or -p DIR`);
  refuseOddPath('the directory', directory);
  return directory;
}

function refuseOddPath(what: string, path: string): void {
  if (path === '') throw AsmtError.usage(`${what} is empty text`, 'is a variable in the script not set?');
  // Node puts this in the place of bytes that are no UTF-8: it would be another path than the one
  // that is meant.
  if (path.includes('\uFFFD') || path.includes('\0')) {
    throw AsmtError.usage(`${what} is not valid UTF-8: "${path}"`, 'choose a plain name');
  }
}

function pathOf(option: string, typed: string | undefined): string | null {
  if (typed === undefined) return null;
  refuseOddPath(option, typed);
  return typed;
}

function pathsOf(option: string, typed: string | undefined): string[] {
  if (typed === undefined) return [];
  const paths = typed.split(',');
  for (const path of paths) refuseOddPath(`a path of ${option}`, path);
  return [...new Set(paths)];
}

function namesOf(typed: string | undefined): string[] | null {
  if (typed === undefined) return null;
  const names = typed.split(',');
  for (const name of names) {
    if (name === '') throw AsmtError.usage(`a name in --namespace "${typed}" is empty`, 'separate names by one comma: -n a,b');
    // oxlint-disable-next-line no-control-regex -- they are what this is about
    if (/[\u0000-\u001f\u007f-\u009f\ufffd]/.test(name)) {
      throw AsmtError.usage(`namespace "${name}" holds a character that no name has`, 'asmt list shows the names');
    }
    const bytes = Buffer.byteLength(name);
    if (bytes > MAX_NAME_BYTES) {
      throw AsmtError.usage(
        `namespace "${name}" has ${bytes} bytes, and at most ${MAX_NAME_BYTES} are possible`,
        'asmt list shows the names',
      );
    }
  }
  return [...new Set(names)];
}

function integer(option: string, typed: string | undefined, least: number, most: number): number | null {
  if (typed === undefined) return null;
  const value = Number(typed);
  if (!/^[0-9]{1,9}$/.test(typed) || value < least || value > most) {
    const spec = optionNamed(option.slice(2));
    throw AsmtError.usage(
      `${option} is "${typed}", but must be a whole number from ${least} to ${most}`,
      `write -${spec?.short} ${least}, for example`,
    );
  }
  return value;
}

/**
 * What a list was asked for and did not find, as a failure; null if it found everything. `all` is
 * what there is, whatever was asked for.
 */
export function notFound(
  { namespaces, instance }: Pick<Request, 'namespaces' | 'instance'>,
  found: readonly NamespaceReport[],
  all: readonly NamespaceReport[],
): AsmtError | null {
  const missing = (namespaces ?? []).filter((name) => !found.some((namespace) => namespace.name === name));
  if (missing.length === 0 && (found.length > 0 || (namespaces === null && instance === null))) return null;
  const names = missing.map((name) => `'${name}'`).join(', ');
  const what = missing.length > 0 ? `namespace ${names}` : 'Aerospike segments';
  const place = instance === null ? '' : ` of instance ${instance}`;
  const others = all.map(({ name, nsid, data_nsid: dataNsid, instance: other }) => {
    return `${name === null ? `nsid ${nsid ?? dataNsid} (no name)` : `'${name}'`} of instance ${other}`;
  });
  const there = others.length > 0 ? others.join(', ') : 'none of any instance';
  return new AsmtError(
    'nothing-to-do',
    'nothing-found',
    `found no ${what}${place} in shared memory; this IPC namespace holds ${there}`,
    'asmt list shows everything that is there; if the server is in a container, run asmt in it',
  );
}
