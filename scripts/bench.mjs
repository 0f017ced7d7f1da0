/**
 * `npm run bench`: what asmt does, beside what this machine can do, in one run and in turn.
 * docs/PERFORMANCE.md explains how each figure comes about.
 *
 * Promise: real segments in an IPC namespace of its own, the program as users get it, medians with
 * the least and the most; a figure that is missed is shown as missed; nothing is left behind. With
 * ASMT_REFERENCE set to ASMT's binary it is measured in the same run; without, what it would take
 * is estimated from the limits, and called an estimate. Must never: give a time without its
 * neighbour, or fail because a machine is slow.
 *
 * Needs about twice the size of the shape on the disk and in memory: 8 GiB for the default, 16 GiB
 * with --scale.
 */

import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';

import { BENCH, MAIN, ROOT, SIM, build, install, ipcNamespace, step, temporaries } from './setup.mjs';

const USAGE = `npm run bench -- [--shape dense,mixed,sparse,many] [--gib 4] [--rounds 5] [--dir DIR] [--json FILE] [--scale] [--small]

  --shape   dense: a primary index in 4 stages; mixed: index, secondary index and stripes; sparse: 5 GiB with 250 MiB in them;
            many: 2,000 segments of 1 MiB against 2 of 1,000 MiB. Default: all
  --gib     size of the dense index (4)
  --rounds  how often each thing is measured (5)
  --dir     where backups go: a directory on the disk that is meant (a temporary one)
  --json    write all figures to a file, too
  --scale   cost as the work grows: 1, 2, 4, 8 GiB; 1 to all CPUs; 10 to 2,000 segments
  --small   a few MiB, once: shows that it runs, and measures nothing
`;

const MIB = 2 ** 20;
const GIB = 2 ** 30;
/**
 * Of ASMT 2.2.1's measured times, what they were of the limits measured beside them (4 GiB dense, 2
 * CPUs).
 */
const ASMT = {
  backup: 3.8 / 1.55,
  backupCrc: 7.2 / 1.55,
  /** Of the time that zlib at level 1 takes on all CPUs. */
  backupZ: 29.8 / (4096 / 64 / 2),
  restore: 1.9 / 2.3,
  restoreZ: 9.9 / 2.3,
  /** 5 GiB allocated, of what writing all 5 GiB takes. */
  sparse: 17.3 / (1.55 * (5 / 4)),
};

const { values: options } = parseArgs({
  options: {
    shape: { type: 'string', default: 'dense,mixed,sparse,many' },
    gib: { type: 'string', default: '4' },
    rounds: { type: 'string' },
    dir: { type: 'string' },
    json: { type: 'string' },
    scale: { type: 'boolean', default: false },
    small: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});
if (options.help) {
  process.stdout.write(USAGE);
  process.exit(0);
}
const SMALL = options.small;
const ROUNDS = Number(options.rounds ?? (SMALL ? 1 : 5));
const GIBS = SMALL ? 1 / 64 : Number(options.gib);
const SHAPES = options.shape.split(',');
const WITHOUT_CHECKSUMS = join(ROOT, 'target', 'without-checksums', 'release', 'asmt-bench');
const REFERENCE = process.env.ASMT_REFERENCE;

/** Sets up, and starts this script again in a namespace of its own. */
async function outside() {
  install();
  // The small form runs in the tests, which have built everything.
  if (!SMALL || !existsSync(BENCH)) build();
  if (!SMALL) {
    const args = ['build', '--release', '--locked', '--package', 'asmt-bench', '--features', 'without-checksums'];
    step('building the engine without CRC-32', 'cargo', [...args, '--target-dir', join(ROOT, 'target', 'without-checksums')]);
  }
  const namespace = ipcNamespace();
  if (namespace === null) {
    process.stderr.write('error: no IPC namespace of its own can be had here\nHINT: run it as root, or allow user namespaces\n');
    process.exit(1);
  }
  const directory = mkdtempSync(join(options.dir ? resolve(options.dir) : temporaries(), 'asmt-bench-'));
  mkdirSync(join(directory, 'run'), { mode: 0o700 });
  // This machine's own server, if it has one, has nothing to do with it.
  const config = join(directory, 'aerospike.conf');
  writeFileSync(config, 'namespace test {\n}\n');
  const [program, ...args] = namespace;
  const child = spawn(program, [...args, process.execPath, import.meta.filename, ...process.argv.slice(2)], {
    stdio: 'inherit',
    env: { ...process.env, ASMT_BENCH_INSIDE: directory, ASMT_RUNTIME_DIR: join(directory, 'run'), ASMT_CONFIG: config },
  });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal));
  const status = await new Promise((done) => {
    child.on('close', (code) => done(code ?? 1));
  });
  rmSync(directory, { recursive: true, force: true });
  process.exit(status);
}

/**
 * Runs a command to its end; gives its seconds, its output, and the most memory of its own that was
 * seen.
 */
async function timed(command, args, env = {}) {
  const since = performance.now();
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, NO_COLOR: '1', ...env } });
  let [stdout, stderr, ownBytes] = ['', '', 0];
  child.stdout.on('data', (data) => (stdout += data));
  child.stderr.on('data', (data) => (stderr += data));
  // Shared memory that it has attached is the node's, not its own.
  const watch = setInterval(() => {
    try {
      const status = readFileSync(`/proc/${child.pid}/status`, 'utf8');
      const kib = [...status.matchAll(/^Rss(?:Anon|File):\s+(\d+)/gm)].reduce((sum, [, count]) => sum + Number(count), 0);
      ownBytes = Math.max(ownBytes, kib * 1024);
    } catch {
      // It has ended.
    }
  }, 20);
  const status = await new Promise((done, fail) => {
    child.on('error', fail);
    child.on('close', (code, signal) => done(code ?? signal));
  });
  clearInterval(watch);
  const seconds = (performance.now() - since) / 1000;
  if (status !== 0) throw new Error(`${[command, ...args].join(' ')}: exit ${status}\n${stdout}${stderr}`);
  return { seconds, stdout, ownBytes };
}

const sim = (...args) => {
  const done = spawnSync(SIM, args, { encoding: 'utf8' });
  if (done.status !== 0) throw new Error(`asmt-sim ${args.join(' ')}: ${done.stderr}`);
  return done.stdout;
};

async function inside(directory) {
  const figures = new Figures();
  const path = (name) => join(directory, name);
  const say = (text) => process.stderr.write(`${text}\n`);
  try {
    say(`${availableParallelism()} CPUs, ${ROUNDS} rounds, files in ${directory}${REFERENCE ? `, and ${REFERENCE}` : ''}`);
    for (const shape of SHAPES.filter((name) => name !== 'many')) await oneShape(shape, shapeOf(shape), figures, path, say);
    if (SHAPES.includes('many')) await manySegments(figures, path, say);
    await startUp(figures, path, say);
    if (options.scale) await scale(figures, path, say);
  } finally {
    sim('remove');
  }
  const rows = figures.rows();
  process.stdout.write(table(rows) + verdictTable(figures.verdicts()));
  if (options.json) {
    const machine = { cpus: availableParallelism(), node: process.version, kernel: readFileSync('/proc/version', 'utf8').trim() };
    writeFileSync(options.json, `${JSON.stringify({ machine, rounds: ROUNDS, rows, verdicts: figures.verdicts() }, null, 2)}\n`);
  }
}

/** What the simulator makes. */
function shapeOf(name) {
  const size = (gib) => String(Math.max(MIB, Math.round(gib * GIB)));
  const part = SMALL ? 1 / 512 : 1;
  if (name === 'dense') return ['--stages', '4', '--stage-size', size(GIBS / 4), '--fill', '1'];
  if (name === 'sparse') return ['--stages', '5', '--stage-size', size(part), '--fill', '0.0476'];
  const index = ['--stages', '2', '--stage-size', size(part / 2), '--fill', '0.9'];
  const secondary = ['--si-stages', '1', '--si-stage-size', size(part / 2), '--si-fill', '0.9'];
  return [...index, ...secondary, '--stripes', '8', '--stripe-size', size(part / 16), '--stripe-fill', '0.9', '--data-nsid', '3'];
}

/** All times measured, by shape and by what was done. */
class Figures {
  #rows = new Map();
  #facts = [];

  add(shape, what, seconds, bytes, more = {}) {
    const key = `${shape}/${what}`;
    const row = this.#rows.get(key) ?? { shape, what, times: [], bytes, ...more };
    row.times.push(seconds);
    for (const [name, value] of Object.entries(more)) row[name] = Math.max(row[name] ?? 0, value);
    this.#rows.set(key, row);
  }

  get(shape, what) {
    const row = this.#rows.get(`${shape}/${what}`);
    return row && { ...row, seconds: median(row.times) };
  }

  rows() {
    return [...this.#rows.values()].map(({ times, ...row }) => {
      const [seconds, least, most] = [median(times), Math.min(...times), Math.max(...times)];
      return { ...row, seconds, least_seconds: least, most_seconds: most, bytes_per_second: row.bytes / seconds };
    });
  }

  /** A figure to reach: what it is, what was found, and what it must be at least (or at most). */
  verdict(what, found, wanted, isAtMost, note = '') {
    if (Number.isFinite(found))
      this.#facts.push({ what, found, wanted, isAtMost, note, reached: isAtMost ? found <= wanted : found >= wanted });
  }

  verdicts() {
    return this.#facts;
  }
}

function median(values) {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Pages of Aerospike's segments that are in memory, in bytes. */
function residentBytes() {
  return readFileSync('/proc/sysvipc/shm', 'utf8')
    .trim()
    .split('\n')
    .slice(1)
    .map((line) => line.trim().split(/\s+/))
    .filter(([key]) => [0xae, 0xa2, 0xad].includes((Number(key) >>> 24) & 0xff))
    .reduce((sum, fields) => sum + Number(fields[14]), 0);
}

const diskBytes = (directory) =>
  readdirSync(directory).reduce((sum, name) => sum + statSync(join(directory, name)).blocks * 512, 0);

/** Forgets files and what was deferred, so that no run pays for the one before it. */
function settle(directory) {
  if (directory) rmSync(directory, { recursive: true, force: true });
  spawnSync('sync');
}

function dropCaches() {
  spawnSync('sync');
  try {
    writeFileSync('/proc/sys/vm/drop_caches', '3');
  } catch {
    // Not root: direct I/O does not look there anyway.
  }
}

const limit = async (...args) => JSON.parse((await timed(BENCH, args)).stdout);
const asmt = (...args) => timed(process.execPath, [MAIN, ...args, '--json']);

async function oneShape(shape, make, figures, path, say) {
  say(`\n${shape}: ${make.join(' ')}`);
  // Twice: memory that the machine hands out for the first time is many times slower.
  sim('make', ...make);
  sim('remove');
  sim('make', ...make);
  const before = sim('sum', '--sparse');
  const resident = residentBytes();
  const allocated = before
    .trim()
    .split('\n')
    .reduce((sum, line) => sum + Number(line.split(' ')[1]), 0);
  for (const threads of ['1', String(availableParallelism())]) {
    for (const what of ['memcpy', 'crc32']) {
      const found = await limit(what, '--threads', threads);
      figures.add(shape, `limit: ${what}, ${threads} threads`, found.seconds, found.bytes);
    }
    for (const name of ['index', 'other', 'zlib-1']) {
      const found = await limit('codec', '--name', name, '--threads', threads, '--mib', name === 'zlib-1' ? '128' : '256');
      // Holes and small pieces alone: there is nothing to encode.
      if (found.bytes === 0) continue;
      const ratio = { encoded_part: found.encoded_bytes / found.bytes };
      figures.add(shape, `limit: encode ${name}, ${threads} threads`, found.encode_seconds, found.bytes, ratio);
      figures.add(shape, `limit: decode ${name}, ${threads} threads`, found.decode_seconds, found.bytes);
    }
  }
  const forms = [
    { what: 'backup', flags: [] },
    { what: 'backup -c', flags: ['-c'] },
    { what: 'backup -z', flags: ['-z'] },
    { what: 'backup -z -c', flags: ['-zc'] },
  ];
  for (let round = 0; round < ROUNDS; round += 1) {
    say(`  round ${round + 1} of ${ROUNDS}: backups`);
    mkdirSync(path('limit'));
    const written = await limit('write', '--dir', path('limit'));
    figures.add(shape, 'limit: write', written.seconds, written.bytes);
    settle(path('limit'));
    for (const { what, flags } of forms) {
      const done = await asmt('backup', ...flags, path('b'));
      figures.add(shape, what, done.seconds, allocated, { file_bytes: diskBytes(path('b')), own_bytes: done.ownBytes });
      settle(path('b'));
      if (REFERENCE) {
        const theirs = await timed(REFERENCE, ['-b', ...flags, '-n', 'test', '-p', path('b')]);
        figures.add(shape, `ASMT ${what}`, theirs.seconds, allocated, { file_bytes: diskBytes(path('b')) });
        settle(path('b'));
      }
    }
    const engines = [
      ['engine alone', BENCH],
      ['engine alone, without CRC-32', WITHOUT_CHECKSUMS],
    ];
    // In either order: what comes first must not always pay for what was before.
    for (const [what, program] of round % 2 === 0 ? engines : engines.toReversed()) {
      // The small form builds nothing: what is there may be older than this.
      if (SMALL && program !== BENCH) continue;
      const request = { verb: 'backup', directory: path('b'), instance: 0, namespaces: null, compress: false, check: false };
      const more = { threads: null, analyze: false, config: null, devices: [], force_stale: false };
      const all = { ...request, ...more, allow_volatile: true };
      const done = JSON.parse((await timed(program, ['engine', '--request', JSON.stringify(all)])).stdout);
      figures.add(shape, what, done.seconds, done.bytes);
      settle(path('b'));
    }
  }
  const gained = residentBytes() - resident;
  mkdirSync(path('limit'));
  await limit('write', '--dir', path('limit'), '--keep');
  await asmt('backup', path('plain'));
  await asmt('backup', '-z', path('compressed'));
  for (let round = 0; round < ROUNDS; round += 1) {
    say(`  round ${round + 1} of ${ROUNDS}: verify and restore`);
    for (const [what, name] of [
      ['verify', 'plain'],
      ['verify -z', 'compressed'],
    ]) {
      dropCaches();
      const done = await asmt('verify', path(name));
      figures.add(shape, what, done.seconds, allocated, { own_bytes: done.ownBytes });
    }
    sim('remove');
    dropCaches();
    const read = await limit('read', '--dir', path('limit'));
    figures.add(shape, 'limit: read', read.seconds, read.bytes);
    for (const [what, name] of [
      ['restore', 'plain'],
      ['restore -z', 'compressed'],
    ]) {
      dropCaches();
      const done = await asmt('restore', path(name));
      figures.add(shape, what, done.seconds, allocated, { own_bytes: done.ownBytes });
      const after = residentBytes();
      if (shape === 'sparse') figures.add(shape, `${what}: resident afterwards, of before`, 1, after, { part: after / resident });
      if (round === 0 && sim('sum', '--sparse') !== before) throw new Error(`${what} of ${shape} gave other segments back`);
      sim('remove');
    }
    if (REFERENCE) {
      for (const [what, name] of [
        ['restore', 'plain'],
        ['restore -z', 'compressed'],
      ]) {
        dropCaches();
        figures.add(shape, `ASMT ${what}`, (await timed(REFERENCE, ['-r', '-n', 'test', '-p', path(name)])).seconds, allocated);
        sim('remove');
      }
    }
  }
  for (const name of ['limit', 'plain', 'compressed']) settle(path(name));
  judge(shape, figures, { allocated, resident, gained });
}

/** Compares a shape's figures with what is to be reached. */
function judge(shape, figures, { allocated, resident, gained }) {
  const seconds = (what) => figures.get(shape, what)?.seconds ?? Number.NaN;
  const [write, read] = [seconds('limit: write'), seconds('limit: read')];
  /** How many times as fast as ASMT: measured, or from the estimate. */
  const against = (what, estimate) => {
    const measured = figures.get(shape, `ASMT ${what}`)?.seconds;
    return [(measured ?? estimate) / seconds(what), measured ? 'ASMT measured' : 'ASMT estimated'];
  };
  if (shape === 'dense') {
    figures.verdict('backup, of the direct writer’s rate', write / seconds('backup'), 0.9, false);
    const [plain, how] = against('backup', write * ASMT.backup);
    figures.verdict('backup, times ASMT', plain, 2.2, false, how);
    const without = seconds('engine alone, without CRC-32');
    figures.verdict('backup with CRC-32, of the same without', without / seconds('engine alone'), 0.97, false);
    const crcTheirs = figures.get(shape, 'ASMT backup -c')?.seconds ?? write * ASMT.backupCrc;
    figures.verdict('backup with CRC-32, times ASMT -c', crcTheirs / seconds('backup'), 4, false, how);
    const zlib = figures.get(shape, `limit: encode zlib-1, ${availableParallelism()} threads`);
    const zlibAlone = figures.get(shape, 'limit: encode zlib-1, 1 threads');
    const [z, howZ] = against('backup -z', ((zlib.seconds * allocated) / zlib.bytes) * ASMT.backupZ);
    figures.verdict('backup -z, times ASMT -z', z, 10, false, howZ);
    const size = figures.get(shape, 'ASMT backup -z')?.file_bytes ?? zlibAlone.encoded_part * allocated;
    figures.verdict('backup -z, size of ASMT’s', figures.get(shape, 'backup -z').file_bytes / size, 1, true, howZ);
    figures.verdict('restore, of the direct reader’s rate', read / seconds('restore'), 0.9, false);
    const [rz, howRz] = against('restore -z', read * ASMT.restoreZ);
    figures.verdict('restore -z, times ASMT', rz, 2.5, false, howRz);
  }
  if (shape === 'sparse') {
    const rate = figures.get('dense', 'limit: write') ?? figures.get(shape, 'limit: write');
    const [sparse, how] = against('backup', (allocated / (rate.bytes / rate.seconds)) * ASMT.sparse);
    figures.verdict('5 GiB with 250 MiB in them: backup, times ASMT', sparse, 40, false, how);
    const part = SMALL ? MIB : 300 * MIB;
    figures.verdict('… MiB of files', figures.get(shape, 'backup').file_bytes / MIB, part / MIB, true);
    figures.verdict('… growth of the node’s memory by all backups, %', (100 * gained) / resident, 1, true);
    for (const what of ['restore', 'restore -z']) {
      const found = figures.get(shape, `${what}: resident afterwards, of before`);
      figures.verdict(`… resident after ${what}, of before`, found.part, 1.01, true);
    }
  }
  const rows = figures.rows().filter((row) => row.shape === shape && row.own_bytes !== undefined);
  const threads = Math.max(12, 2 * availableParallelism());
  const most = Math.max(...rows.map((row) => row.own_bytes));
  figures.verdict(`${shape}: memory of the process, MiB`, most / MIB, 100 + 16 * threads, true, `${threads} threads`);
}

async function manySegments(figures, path, say) {
  const [many, few] = SMALL ? [40, 20] : [2000, 1000];
  say(`\nmany: ${many} segments of 1 MiB against 2 of ${few} MiB`);
  const shapes = [
    { shape: 'many', make: ['--stages', String(many), '--stage-size', '1MiB', '--fill', '1'] },
    { shape: 'few', make: ['--stages', '2', '--stage-size', `${few}MiB`, '--fill', '1'] },
  ];
  for (let round = 0; round < ROUNDS; round += 1) {
    say(`  round ${round + 1} of ${ROUNDS}`);
    for (const { shape, make } of shapes) {
      sim('make', ...make);
      const bytes = residentBytes();
      for (const z of [[], ['-z']]) {
        const form = z.length > 0 ? ' -z' : '';
        figures.add(shape, `backup${form}`, (await asmt('backup', ...z, path('b'))).seconds, bytes);
        sim('remove');
        dropCaches();
        figures.add(shape, `restore${form}`, (await asmt('restore', path('b'))).seconds, bytes);
        settle(path('b'));
      }
      sim('remove');
    }
  }
  for (const what of ['backup', 'backup -z', 'restore', 'restore -z']) {
    const found = figures.get('many', what).seconds / figures.get('few', what).seconds;
    figures.verdict(`${many} segments of 1 MiB, time of 2 of ${few} MiB: ${what}`, found, 1.5, true);
  }
}

async function startUp(figures, path, say) {
  say('\nstart-up');
  sim('make', '--stages', '2');
  for (let round = 0; round < Math.max(ROUNDS, SMALL ? 1 : 9); round += 1) {
    for (const word of ['--help', 'list'])
      figures.add('start-up', `asmt ${word}`, (await timed(process.execPath, [MAIN, word])).seconds, 0);
    figures.add('start-up', 'limit: node with nothing to do', (await timed(process.execPath, ['-e', '0'])).seconds, 0);
  }
  sim('remove');
  for (const what of ['asmt --help', 'asmt list'])
    figures.verdict(`${what}, ms`, figures.get('start-up', what).seconds * 1000, 120, true);
}

async function scale(figures, path, say) {
  const pair = async (shape, prefix = []) => {
    const bytes = residentBytes();
    for (const z of [[], ['-z']]) {
      const [program, ...args] = [...prefix, process.execPath, MAIN, 'backup', ...z, path('b'), '--json'];
      const done = await timed(program, args);
      figures.add(shape, `backup${z.length > 0 ? ' -z' : ''}`, done.seconds, bytes, { own_bytes: done.ownBytes });
      settle(path('b'));
    }
  };
  for (const gib of [1, 2, 4, 8]) {
    say(`scale: ${gib} GiB`);
    sim('make', '--stages', '4', '--stage-size', String((gib * GIB) / 4), '--fill', '1');
    for (let round = 0; round < Math.min(ROUNDS, 3); round += 1) await pair(`scale: ${gib} GiB`);
    sim('remove');
  }
  sim('make', '--stages', '4', '--stage-size', '512MiB', '--fill', '1');
  for (let cpus = 1; cpus <= availableParallelism(); cpus += 1) {
    say(`scale: ${cpus} CPUs`);
    for (let round = 0; round < Math.min(ROUNDS, 3); round += 1)
      await pair(`scale: ${cpus} CPUs, 2 GiB`, ['taskset', '-c', `0-${cpus - 1}`]);
  }
  sim('remove');
  for (const count of [10, 100, 500, 1000, 2000]) {
    say(`scale: ${count} segments`);
    sim('make', '--stages', String(count), '--stage-size', String(MIB * Math.floor(2000 / count)), '--fill', '1');
    for (let round = 0; round < Math.min(ROUNDS, 3); round += 1) await pair(`scale: ${count} segments, 2,000 MiB`);
    sim('remove');
  }
}

/** Columns of text; numbers to the right. */
function columns(rows) {
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  const cell = (text, column) => (column === 0 ? text.padEnd(widths[column]) : text.padStart(widths[column]));
  return `${rows.map((row) => row.map(cell).join('  ').trimEnd()).join('\n')}\n`;
}

function table(rows) {
  const shown = (row) => {
    const more = [
      row.file_bytes === undefined ? '' : `files ${(row.file_bytes / MIB).toFixed(0)} MiB`,
      row.encoded_part === undefined ? '' : `to ${(100 * row.encoded_part).toFixed(2)} %`,
      row.own_bytes === undefined ? '' : `memory ${(row.own_bytes / MIB).toFixed(0)} MiB`,
      row.part === undefined ? '' : `${row.part.toFixed(3)}`,
    ];
    const rate = row.bytes > 0 && row.part === undefined ? (row.bytes_per_second / MIB).toFixed(0) : '';
    const times =
      row.part === undefined ? [row.seconds, row.least_seconds, row.most_seconds].map((time) => time.toFixed(3)) : ['', '', ''];
    return [`${row.shape}: ${row.what}`, ...times, rate, more.filter(Boolean).join(', ')];
  };
  return `\n${columns([['', 'median s', 'least', 'most', 'MiB/s', ''], ...rows.map(shown)])}`;
}

function verdictTable(verdicts) {
  const shown = ({ what, found, wanted, isAtMost, note, reached }) => {
    const digits = found >= 100 ? 0 : found >= 20 ? 1 : 3;
    return [
      what,
      found.toFixed(digits),
      `${isAtMost ? '≤' : '≥'} ${wanted}`,
      SMALL ? 'not measured' : reached ? 'reached' : 'MISSED',
      note,
    ];
  };
  return `\n${columns([['figure', 'found', 'wanted', '', ''], ...verdicts.map(shown)])}`;
}

if (process.env.ASMT_BENCH_INSIDE === undefined) await outside();
else await inside(process.env.ASMT_BENCH_INSIDE);
