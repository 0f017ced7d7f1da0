/**
 * `npm run runbook`: runs the commands of docs/RUNBOOK.md and writes their output there, each part
 * between two comments. The server is the simulator, with a block device of its own; everything
 * else is real: shared memory, devices, files, asmt. With `--check` it writes nothing, and fails if
 * a part differs in more than numbers.
 *
 * Promise: needs root of the machine (a loop device, mounts); everything happens in namespaces of
 * its own, and nothing is left behind, however it ends. Must never: show a command that was not run
 * without saying so: those of systemd are only shown (they start with `systemctl` or `reboot`).
 */

import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { SPECS } from '../src/options.ts';
import { MAIN, ROOT, SIM, temporaries } from './setup.mjs';

const FILE = join(ROOT, 'docs', 'RUNBOOK.md');
const DIRECTORY = process.env.ASMT_RUNBOOK_DIRECTORY;
/** How far a run is: only a slow machine says it. */
const PROGRESS = /^asmt: \w+( \S+ \w+ of .*)?$/;
/** Longest line of an output. */
const WIDTH = 116;

if (DIRECTORY === undefined) outside();
else inside();

/** Starts this script again in namespaces of its own. */
function outside() {
  const directory = mkdtempSync(join(temporaries(), 'asmt-runbook-'));
  const disk = join(directory, 'disk');
  let loop = '';
  try {
    for (const name of ['backups', 'etc', 'work']) mkdirSync(join(directory, name), { mode: 0o700 });
    writeFileSync(disk, Buffer.alloc(16 * 2 ** 20));
    loop = must('losetup', ['--find', '--show', disk]).trim();
    const own = ['--import=@oxc-node/core/register', import.meta.filename, ...process.argv.slice(2)];
    const env = { ...process.env, ASMT_RUNBOOK_DIRECTORY: directory, ASMT_RUNBOOK_LOOP: loop, NO_COLOR: '1' };
    const script = `
mount -t tmpfs tmpfs /mnt && mkdir -m 700 /mnt/empty
mkdir -p /var/backups && mount --bind "$ASMT_RUNBOOK_DIRECTORY/backups" /var/backups
mount -t tmpfs -o mode=755 tmpfs /run
mount -t overlay -o "lowerdir=/etc,upperdir=$ASMT_RUNBOOK_DIRECTORY/etc,workdir=$ASMT_RUNBOOK_DIRECTORY/work" overlay /etc
mkdir -p /etc/aerospike
exec "$@"`;
    const words = ['--ipc', '--mount', '--uts', '--propagation', 'private', 'sh', '-ec', script, 'sh', process.execPath, ...own];
    process.exitCode = spawnSync('unshare', words, { stdio: 'inherit', env }).status ?? 1;
  } finally {
    if (loop !== '') spawnSync('losetup', ['--detach', loop]);
    rmSync(directory, { recursive: true, force: true });
  }
}

function must(command, args, env = {}) {
  const done = spawnSync(command, args, { encoding: 'utf8', env: { ...process.env, ...env } });
  if (done.status !== 0) throw new Error(`${command} ${args.join(' ')}: ${done.error?.message ?? done.stderr}`);
  return done.stdout;
}

function inside() {
  const loop = process.env.ASMT_RUNBOOK_LOOP;
  // asmt reports variables that it does not know.
  for (const name of Object.keys(process.env).filter((key) => key.startsWith('ASMT_'))) delete process.env[name];
  must('hostname', ['node1']);
  const sizes = ['--stage-size', '64MiB'];
  let running = null;
  const server = (verb, ...more) => {
    running?.kill('SIGKILL');
    awaitAttached(false);
    must(SIM, [verb, '--devices', loop, ...more]);
    running = verb === 'start' ? spawn(SIM, ['hold'], { stdio: ['pipe', 'ignore', 'ignore'] }) : null;
    awaitAttached(running !== null);
  };
  writeFileSync('/etc/aerospike/aerospike.conf', `namespace test {\n  storage-engine device {\n    device ${loop}\n  }\n}\n`);
  const DIR = '/var/backups/asmt';
  /** What the option table has by now. */
  const has = (name) => SPECS.some((spec) => spec.name === name);
  const replacing = has('replace') ? ['--replace'] : [];
  const waiting = has('wait') ? ['--wait=15min'] : [];
  const parts = new Map();
  let lines = [];

  const part = (name, act) => {
    lines = [];
    act();
    parts.set(name, `\`\`\`\n${lines.join('\n')}\n\`\`\`\n`);
  };
  const only = (text) => lines.push(`# ${text}`);
  /** Runs asmt, shows what it prints, and its exit status if that is not 0. */
  const asmt = (...args) => {
    lines.push(`# asmt ${args.join(' ')}`);
    const done = spawnSync(process.execPath, [MAIN, ...args], { encoding: 'utf8' });
    // Both streams, as a terminal shows them.
    const text = `${done.stderr}${done.stdout}`.replaceAll(loop, '/dev/nvme0n1');
    const shown = text
      .trimEnd()
      .split('\n')
      .filter((line) => !PROGRESS.test(line));
    lines.push(...shown.flatMap((line) => (/^(asmt:|HINT:|exported)/.test(line) ? folded(line) : [line])));
    if (done.status !== 0) lines.push('# echo $?', String(done.status));
    return done;
  };

  // Somebody beside asmt lives in the namespace, as on any node.
  const neighbour = spawn('sleep', ['infinity'], { stdio: 'ignore' });
  process.on('exit', () => neighbour.kill());
  // The server as it is found: it has started on empty devices, has served, and holds its segments.
  must(SIM, ['device', '--path', loop, '--name', 'test', '--random', '7']);
  server('start', ...sizes);
  part('running', () => asmt('list'));
  server('stop');
  // An index of some size, in the place of an empty one.
  must(SIM, ['remove']);
  must(SIM, ['make', '--stages', '2', '--stage-size', '64MiB', '--fill', '0.6']);
  part('stopped', () => {
    only('systemctl stop aerospike');
    asmt('list');
  });
  part('backup', () => asmt('backup', ...replacing, ...waiting, '-z', DIR));
  part('verify', () => asmt('verify', '--restorable', DIR));
  must(SIM, ['remove']);
  part('reboot', () => only('systemctl reboot'));
  part('lost', () => asmt('list'));
  part('restore', () => {
    asmt('restore', DIR);
    asmt('list');
  });
  part('again', () => asmt('restore', DIR));
  server('start', ...sizes);
  part('serves', () => asmt('list'));
  server('stop');
  part('stale', () => {
    must(SIM, ['remove']);
    asmt('restore', DIR);
  });
  server('start', ...sizes);
  server('crash');
  part('crashed', () => asmt('backup', '/var/backups/new'));
  server('start', ...sizes);
  server('stop');
  part('missing', () => asmt('restore', '/mnt/empty/asmt'));
  part('export', () => {
    must('rm', ['-rf', DIR]);
    spawnSync(process.execPath, [MAIN, 'backup', '-Z', DIR]);
    asmt('export', DIR, '/var/backups/for-asmt');
  });
  neighbour.kill();
  finish(parts);
}

/** Waits until the server has its segments attached, or has gone. */
function awaitAttached(isWanted) {
  for (;;) {
    const rows = readFileSync('/proc/sysvipc/shm', 'utf8').trim().split('\n').slice(1);
    if (rows.some((row) => Number(row.trim().split(/\s+/)[6]) > 0) === isWanted) return;
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 50);
  }
}

/** A long line in several, as a terminal has them, between words. */
function folded(line) {
  const rows = [];
  let rest = line;
  while (rest.length > WIDTH) {
    const at = rest.lastIndexOf(' ', WIDTH);
    if (at <= 0) break;
    rows.push(rest.slice(0, at));
    rest = rest.slice(at + 1);
  }
  return [...rows, rest];
}

/** What stays the same from run to run. */
function masked(text) {
  return text
    .replaceAll(/[0-9a-f]{16}/g, 'X')
    .replaceAll(/\d+(\.\d+)?( ([KMG]i)?B| min \d+ s| s)?/g, 'N')
    .replaceAll(/\s+/g, ' ');
}

function finish(parts) {
  const before = readFileSync(FILE, 'utf8');
  const missing = new Set(parts.keys());
  const changed = [];
  const after = before.replace(/^(<!-- begin: ([a-z-]+) .*-->\n)([\s\S]*?)^(<!-- end -->)$/gm, (whole, begin, name, old, end) => {
    const text = parts.get(name);
    missing.delete(name);
    // A part of what is not there any more, or not yet.
    if (text === undefined) changed.push(`${name} is unknown`);
    if (text === undefined) return whole;
    if (masked(old) !== masked(`\n${text}\n`)) changed.push(name);
    return `${begin}\n${text}\n${end}`;
  });
  for (const name of missing) changed.push(`${name} has no place`);
  if (process.argv.includes('--check')) {
    for (const name of changed) process.stderr.write(`error: docs/RUNBOOK.md: ${name}\n`);
    if (changed.length > 0) process.stderr.write('HINT: run npm run runbook\n');
    process.exitCode = changed.length > 0 ? 1 : 0;
    return;
  }
  writeFileSync(FILE, after);
  process.stderr.write(`docs/RUNBOOK.md: ${changed.length === 0 ? 'other numbers' : changed.join(', ')}\n`);
}
