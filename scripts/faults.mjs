/**
 * `npm run test:faults`: the loops of docs/RELIABILITY.md whole, or as far as the words behind it say
 * (`npm run test:faults -- --only kills --short`; `--help` lists them).
 *
 * Promise: does the set-up that is missing by itself; prints a line a loop with the number of states tried and found wrong;
 * exit status 1 if one is wrong. Without root it runs in a user namespace, and skips what only root of the machine may do.
 */

import { spawnSync } from 'node:child_process';

import { FAULTS, build, install, ipcNamespace } from './setup.mjs';

install();
build();
const isRoot = process.getuid() === 0;
const [program, ...words] = isRoot ? [] : [...(ipcNamespace() ?? []), FAULTS];
const args = process.argv.slice(2);
const done = spawnSync(program ?? FAULTS, [...words, ...args], { stdio: 'inherit' });
if (done.error) process.stderr.write(`error: the loops cannot be started: ${done.error.message}\n`);
process.exit(done.status ?? 1);
