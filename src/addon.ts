/**
 * Finds the engine's addon and loads it: through napi's loader, from the clone or from npm's
 * package for this platform; in the single file, from where the Linux packages install it, or out
 * of the file itself.
 *
 * Promise: what is taken has the version that was asked for. The single file leaves nothing behind,
 * and loads no file that another user could have put there: what it unpacks never has a name. Must
 * never: decide what an operation does.
 */

import { closeSync, constants, openSync, writeSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname } from 'node:path';

import { AsmtError } from './errors.ts';

export interface Addon {
  Job: new (request: string) => { run(): Promise<string>; poll(): string; stop(): void; abandon(): boolean };
  engineVersion(): string;
  /** The target that it was built for, and the SIMD level in use. */
  engineBuild(): string;
}

/** Where deb and rpm install the addon, so that the single file unpacks nothing. */
const INSTALLED = '/usr/lib/asmt/asmt.node';
/** The name of the addon inside the single file. */
const ASSET = 'asmt.node';
/** Linux's flag for a file without a name: `asm-generic/fcntl.h`. */
const O_TMPFILE = 0o20000000 | constants.O_DIRECTORY;
const REINSTALL = 'reinstall asmt with its optional dependencies, or run npm run build in a clone';

/** Loads the addon of this version. */
export function loadAddon(version: string): Addon {
  const require = createRequire(import.meta.filename);
  const sea = require('node:sea') as typeof import('node:sea');
  const addon = sea.isSea() ? fromSingleFile(version, () => sea.getRawAsset(ASSET) as ArrayBuffer) : fromPackage(require);
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

/** From the first place that has it in this version, or that it can be unpacked to. */
function fromSingleFile(version: string, asset: () => ArrayBuffer): Addon {
  try {
    const installed = opened(INSTALLED);
    if (installed.engineVersion() === version) return installed;
  } catch {
    // It is not installed by a package, or by one of another version.
  }
  const places = [dirname(process.execPath), process.env['ASMT_RUNTIME_DIR'], '/run/asmt', '/tmp'];
  const reasons: string[] = [];
  for (const place of places) {
    if (place === undefined || place === '') continue;
    try {
      return unpacked(place, asset());
    } catch (error) {
      reasons.push(`${place}: ${error instanceof Error ? (error.message.split('\n')[0] ?? '') : String(error)}`);
    }
  }
  throw unloadable(
    `it cannot be unpacked: ${reasons.join('; ')}`,
    `install the deb or rpm, which has it as ${INSTALLED}; or set ASMT_RUNTIME_DIR to a directory that asmt can write to, on a file system that is not mounted noexec`,
  );
}

/** Loads the addon from a file that has no name, and is gone when this process ends. */
function unpacked(place: string, asset: ArrayBuffer): Addon {
  const file = openSync(place, constants.O_RDWR | O_TMPFILE, 0o700);
  try {
    const bytes = new Uint8Array(asset);
    for (let done = 0; done < bytes.length;) done += writeSync(file, bytes, done);
    return opened(`/proc/self/fd/${file}`);
  } finally {
    closeSync(file);
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
