/**
 * The command of `run`: found, started, given every signal, and waited for.
 *
 * It gets a session of its own, so that a signal of the terminal reaches it once, through asmt, and
 * so that what it leaves behind can be told: where a stop was asked for, it has ended when no
 * process of its group is left.
 *
 * Promise: nothing is changed on the way to it; its streams, environment and directory are asmt's.
 * Must never: kill what was not asked to stop.
 */

import type { SpawnOptions } from 'node:child_process';
import { accessSync, constants, readFileSync, readdirSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

import { AsmtError } from './errors.ts';
import { STOPPING, passSignals } from './signals.ts';

/** How often it is looked whether its group is empty. */
const LOOK_MS = 100;
/** Where programs are, if the environment does not say it. */
const USUAL_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** How a command ended. */
export interface CommandEnd {
  /** As a shell has it: 128 and the number of a signal that killed it. */
  readonly status: number;
  /** How it ended, for a message. */
  readonly how: string;
}

/** Fails if there is no such program, so that nothing is done for its sake before. */
export function findProgram(name: string): void {
  const directories = name.includes('/') ? [''] : (process.env['PATH'] ?? USUAL_PATH).split(':');
  const paths = directories.map((directory) => (name.includes('/') ? name : join(directory === '' ? '.' : directory, name)));
  const files = paths.filter((path) => isFile(path));
  if (files.length === 0) throw notFound(name);
  if (!files.some((path) => isExecutable(path))) throw notExecutable(files[0] ?? name, 'it has no right to be executed');
}

function notFound(name: string): AsmtError {
  const hint = 'check its name and the PATH; nothing was started';
  return new AsmtError('not-found', 'command-not-found', `command not found: ${name}`, hint);
}

function notExecutable(name: string, reason: string): AsmtError {
  const hint = 'check its mode, and that it is a program for this machine; nothing was started';
  return new AsmtError('not-executable', 'command-not-executable', `command cannot be executed: ${name}: ${reason}`, hint);
}

function isFile(path: string): boolean {
  try {
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/**
 * Runs a command to its end; after a signal that asks for a stop, to that of its group. `waiting`
 * is called when it has ended and others of its group have not. Rejects if it could not be
 * started.
 */
export async function runToEnd(words: readonly string[], waiting: () => void): Promise<CommandEnd> {
  const [name = '', ...rest] = words;
  // At once, so that no signal comes before there is somebody to give it to.
  const { spawn } = createRequire(import.meta.filename)('node:child_process') as typeof import('node:child_process');
  const options: SpawnOptions = { stdio: 'inherit', detached: true };
  const child = spawn(name, rest, options);
  const { pid } = child;
  /** The last signal that asked for a stop. */
  let stop: NodeJS.Signals | null = null;
  let isLeaderThere = true;
  passSignals((signal) => {
    // SIGHUP makes a server open its logs again.
    if (STOPPING.includes(signal) && signal !== 'SIGHUP') stop = signal;
    if (pid !== undefined) send(isLeaderThere ? pid : -pid, signal);
  });
  const end = await new Promise<CommandEnd>((done, fail) => {
    child.once('error', (error: NodeJS.ErrnoException) => {
      fail(error.code === 'ENOENT' ? notFound(name) : notExecutable(name, error.message));
    });
    child.once('exit', (status, signal) => done(endOf(status, signal)));
  });
  isLeaderThere = false;
  // What a command that ended by itself has left is not waited for: nobody has asked it to stop.
  if (pid === undefined || stop === null || !isGroupThere(pid)) return end;
  waiting();
  // A shell that was stopped may not have passed that on.
  send(-pid, stop);
  while (isGroupThere(pid)) {
    await new Promise((wake) => {
      setTimeout(wake, LOOK_MS);
    });
  }
  return end;
}

function endOf(status: number | null, signal: NodeJS.Signals | null): CommandEnd {
  if (signal === null) return { status: status ?? 0, how: `exited with status ${status ?? 0}` };
  return { status: 128 + numberOf(signal), how: `was killed by ${signal}` };
}

function numberOf(signal: NodeJS.Signals): number {
  const { constants: numbers } = createRequire(import.meta.filename)('node:os') as typeof import('node:os');
  return numbers.signals[signal];
}

function send(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It has ended.
  }
}

/** Whether a process of the group lives. Those that nobody has waited for do not. */
function isGroupThere(group: number): boolean {
  try {
    process.kill(-group, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
  return readdirSync('/proc').some((name) => /^\d+$/.test(name) && isLiveMember(name, group));
}

function isLiveMember(pid: string, group: number): boolean {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const [state, , itsGroup] = text.slice(text.lastIndexOf(')') + 2).split(' ');
    return Number(itsGroup) === group && state !== 'Z' && state !== 'X';
  } catch {
    return false;
  }
}
