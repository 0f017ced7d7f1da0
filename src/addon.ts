/**
 * Finds the engine's addon and loads it: through napi's loader, from the clone or from npm's
 * package for this platform; in the single file, from where the Linux packages install it, or out
 * of the file itself.
 *
 * Promise: what is taken has the version that was asked for. The single file leaves nothing behind,
 * and loads nothing but the bytes that are inside it, from a file that nobody else could change.
 * Must never: decide what an operation does.
 */

import { closeSync, constants, fstatSync, mkdirSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

import { AsmtError } from './errors.ts';

export interface Addon {
  Job: new (request: string) => { run(): Promise<string>; poll(): string; stop(): void; abandon(): boolean };
  engineVersion(): string;
  /** The target that it was built for, and the SIMD level in use. */
  engineBuild(): string;
  notifyService(state: string): void;
}

/** Where deb and rpm install the addon, so that the single file unpacks nothing. */
const INSTALLED = '/usr/lib/asmt/asmt.node';
/** Where the engine keeps its locks and journals: root's alone. */
const RUNTIME = '/run/asmt';
/** The name of the addon inside the single file. */
const ASSET = 'asmt.node';
/** Linux's flag for a file without a name: `asm-generic/fcntl.h`. */
const O_TMPFILE = 0o20000000 | constants.O_DIRECTORY;
const REINSTALL = 'reinstall asmt with its optional dependencies, or run npm run build in a clone';

/** Loads the addon of this version. */
export function loadAddon(version: string): Addon {
  const require = createRequire(import.meta.filename);
  const sea = require('node:sea') as typeof import('node:sea');
  const addon = sea.isSea() ? fromSingleFile(() => sea.getRawAsset(ASSET) as ArrayBuffer) : fromPackage(require);
  const found = addon.engineVersion();
  if (found === version) return addon;
  throw unloadable(`its version is ${found}, expected ${version}`, REINSTALL);
}

function fromPackage(require: NodeJS.Require): Addon {
  try {
    return require('../native/index.cjs') as Addon;
  } catch (error) {
    const reasons = [...causes(error)].filter((reason) => !isMissing(reason));
    const [reason] = reasons.map(({ message }) => message.split('\n')[0] ?? '');
    throw reason === undefined ? missing() : unloadable(reason, REINSTALL);
  }
}

/** What napi's loader has tried, from its error: the last one first. Its own text is no reason. */
function* causes(error: unknown): Generator<Error> {
  const isLoaders = (reason: Error) => reason.message.startsWith('Cannot find native binding');
  for (let reason = error; reason instanceof Error; reason = reason.cause) if (!isLoaders(reason)) yield reason;
}

/** A module that is not there: napi's loader hands on the text of some errors alone. */
const isMissing = (reason: Error) => reason.message.startsWith('Cannot find module ');

function missing(): AsmtError {
  const { platform, arch } = process;
  if (platform !== 'linux' || !['x64', 'arm64'].includes(arch)) {
    return unloadable('there is none for this platform', 'use Linux on x64 or arm64');
  }
  const { header } = process.report.getReport() as unknown as { header: { glibcVersionRuntime?: string } };
  const name = `asmt-linux-${arch}-${header.glibcVersionRuntime === undefined ? 'musl' : 'gnu'}`;
  return unloadable(
    `its package ${name} is not installed`,
    `run npm install -g asmt --include=optional (npm leaves it out with --omit=optional, or where node_modules was copied from another platform); in a clone, run npm run build`,
  );
}

/** From where the packages install it, or from the first place that it can be unpacked to. */
function fromSingleFile(asset: () => ArrayBuffer): Addon {
  const bytes = new Uint8Array(asset());
  try {
    return installed(bytes);
  } catch {
    // It is not installed by a package, or by one of another version, or it is damaged.
  }
  const reasons: string[] = [];
  for (const place of [dirname(process.execPath), process.env['ASMT_UNPACK_DIR'], RUNTIME, '/tmp']) {
    if (place === undefined || place === '') continue;
    try {
      if (place === RUNTIME) makeRuntime();
      return unpacked(place, bytes);
    } catch (error) {
      reasons.push(`${place}: ${error instanceof Error ? (error.message.split('\n')[0] ?? '') : String(error)}`);
    }
  }
  throw unloadable(
    `it cannot be unpacked: ${reasons.join('; ')}`,
    `install the deb or rpm, which has it as ${INSTALLED}; or set ASMT_UNPACK_DIR to a directory that asmt can write to, on a file system that is not mounted noexec`,
  );
}

/** Loads the installed file if it is root's alone, and the very bytes that are inside this file. */
function installed(expected: Uint8Array): Addon {
  // A FIFO or a link there must neither hold it up nor lead elsewhere.
  const file = openSync(INSTALLED, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  try {
    const stat = fstatSync(file);
    const isSafe = stat.isFile() && stat.uid === 0 && (stat.mode & 0o022) === 0;
    if (!isSafe || stat.size !== expected.length) throw new Error('it is another file');
    const found = new Uint8Array(expected.length);
    for (let done = 0, count = 1; count > 0; done += count) count = readSync(file, found, done, found.length - done, done);
    if (Buffer.compare(found, expected) !== 0) throw new Error('it is another version');
    return opened(`/proc/self/fd/${file}`);
  } finally {
    closeSync(file);
  }
}

/** The engine's own directory, which a boot removes. Best effort: what follows tells why. */
function makeRuntime(): void {
  try {
    mkdirSync(RUNTIME, { mode: 0o700 });
  } catch {
    // It is there already, or this user may not make it.
  }
}

/** Loads the addon from a file that has no name, and is gone when this process ends. */
function unpacked(place: string, bytes: Uint8Array): Addon {
  const file = unnamed(place);
  try {
    for (let done = 0; done < bytes.length;) done += writeSync(file, bytes, done);
    return opened(`/proc/self/fd/${file}`);
  } finally {
    closeSync(file);
  }
}

/** Opens a file without a name in a directory. */
function unnamed(place: string): number {
  try {
    return openSync(place, constants.O_RDWR | O_TMPFILE, 0o700);
  } catch (error) {
    // Network file systems and older overlays have none: there it has a name for a moment, in a
    // directory that nobody else can enter.
    if (!['ENOTSUP', 'EOPNOTSUPP', 'EISDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
  }
  const directory = mkdtempSync(join(place, '.asmt-'));
  const path = join(directory, ASSET);
  try {
    return openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW, 0o700);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

function opened(path: string): Addon {
  const module = { exports: {} };
  process.dlopen(module, path);
  return module.exports as Addon;
}

function unloadable(reason: string, hint: string): AsmtError {
  return new AsmtError(
    'failed',
    'engine-missing',
    `the engine for ${process.platform}-${process.arch} cannot be loaded: ${reason}`,
    hint,
  );
}
