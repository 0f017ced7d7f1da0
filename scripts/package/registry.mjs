/**
 * A registry of npm packages on this machine, for tests and for the rehearsal of a release.
 *
 * Promise: it knows no other registry, listens on the loopback interface alone, and ends with the
 * process that started it.
 */

import { spawn } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';

import { ROOT, step } from '../setup.mjs';
import { NODE, installTools } from './tools.mjs';

const PROGRAMS = join(ROOT, 'target', 'package', 'registry');
const USER = { name: 'test', password: 'of-this-run-alone' };
const PATIENCE_MS = 30_000;

/** Starts one whose packages are in `directory`. Gives its URL, lines for an npmrc, and its end. */
export async function startRegistry(directory) {
  installTools();
  mkdirSync(PROGRAMS, { recursive: true });
  for (const name of ['package.json', 'package-lock.json']) {
    copyFileSync(join(ROOT, 'scripts', 'package', 'registry', name), join(PROGRAMS, name));
  }
  if (!existsSync(join(PROGRAMS, 'node_modules', 'verdaccio'))) {
    const npm = ['ci', '--prefix', PROGRAMS, '--ignore-scripts', '--no-audit', '--no-fund'];
    step('installing the registry (npm ci)', 'npm', npm);
  }
  mkdirSync(directory, { recursive: true });
  const config = {
    storage: join(directory, 'storage'),
    auth: { htpasswd: { file: join(directory, 'htpasswd') } },
    packages: { '**': { access: '$all', publish: '$authenticated' } },
    log: { type: 'stdout', format: 'pretty', level: 'warn' },
    max_body_size: '100mb',
  };
  writeFileSync(join(directory, 'config.yaml'), JSON.stringify(config));
  const program = join(PROGRAMS, 'node_modules', 'verdaccio', 'bin', 'verdaccio');
  const address = `127.0.0.1:${await freePort()}`;
  const words = [program, '--config', join(directory, 'config.yaml'), '--listen', address];
  // verdaccio wants a newer Node than asmt does.
  const child = spawn(NODE, words, { stdio: 'ignore' });
  const stop = () => child.kill();
  process.on('exit', stop);
  const url = `http://${address}/`;
  const token = await tokenOf(url);
  return { url, stop, npmrc: `registry=${url}\n//${address}/:_authToken=${token}\nupdate-notifier=false\n` };
}

/** Adds the user, as soon as the registry answers. */
async function tokenOf(url) {
  const since = performance.now();
  for (;;) {
    try {
      const answer = await fetch(`${url}-/user/org.couchdb.user:${USER.name}`, {
        method: 'PUT',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(USER),
      });
      return (await answer.json()).token;
    } catch (error) {
      if (performance.now() - since > PATIENCE_MS) throw error;
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  }
}

function freePort() {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}
