/**
 * `npm run bench`: measures asmt and the limits of this machine, in one run and in turn.
 * docs/PERFORMANCE.md explains each figure.
 *
 * Promise: real segments in an IPC namespace of its own, the program as users get it, medians with
 * the least and the most; a figure that is missed is shown as missed; nothing is left behind. With
 * ASMT_REFERENCE set to ASMT's binary, ASMT is measured in the same run; without it, its times are
 * estimated from the limits, and called estimates. Must never: print a time without its neighbour,
 * or fail because a machine is slow.
 *
 * It needs about twice the size of the shape on the disk and in memory: 8 GiB for the default, 16
 * GiB with --scale.
 */

import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';

import { Figures, table, verdictTable } from './bench-figures.mjs';
import { OTHERS, otherPrograms } from './bench-others.mjs';
import {
  allocatedBytes,
  asmt,
  diskBytes,
  dropCaches,
  GIB,
  limit,
  MIB,
  residentBytes,
  settle,
  sim,
  timed,
} from './bench-tools.mjs';
import { vast } from './bench-vast.mjs';
import { BENCH, MAIN, ROOT, build, install, ipcNamespace, step, temporaries } from './setup.mjs';

const USAGE = `npm run bench -- [--shape dense,real,mixed,sparse,vast,many,start,list] [--gib 4] [--rounds 5] [--dir DIR] [--json FILE] [--scale] [--small]

  --shape   dense: a primary index in 4 stages; real: the same, of elements that a real server wrote; mixed: index, secondary
            index and stripes; sparse: 5 GiB with 250 MiB in them; vast: 1 TiB with 52 MiB in it; many: 2,000 segments of 1 MiB
            against 2 of 1,000 MiB; start: commands that do little, beside Node alone; list: a list of 500 to 4,000
            segments. Default: all
  --gib     size of the shapes dense and real (4)
  --rounds  how often each thing is measured (5)
  --dir     where backups go: a directory on the disk that is meant (a temporary one)
  --json    write all figures to a file, too
  --scale   cost as the work grows: 1, 2, 4, 8 GiB; 1 to all CPUs; 10 to 2,000 segments
  --small   a few MiB, once: shows that it runs, and measures nothing

Other programs are measured on the same index where they are installed: ${OTHERS.map(({ name }) => name).join(', ')}
(Debian's packages ${OTHERS.map((other) => other.package).join(', ')}).
`;

/** 1 MiB of a real server's full stage. */
const PIECE = join(ROOT, '__test__', 'fixtures', 'server', 'arena-ce', 'full-stage-1MiB.bin');
/** Shapes that are a primary index and nothing else. */
const INDEXES = new Set(['dense', 'real']);
/**
 * ASMT 2.2.1's measured times, each divided by the limit that was measured beside it (4 GiB dense,
 * 2 CPUs).
 */
const ASMT = {
  backup: 3.8 / 1.55,
  backupCrc: 7.2 / 1.55,
  /** Divided by the time that zlib at level 1 takes on all CPUs. */
  backupZ: 29.8 / (4096 / 64 / 2),
  restore: 1.9 / 2.3,
  restoreZ: 9.9 / 2.3,
  /** 5 GiB allocated, divided by the time for writing all 5 GiB. */
  sparse: 17.3 / (1.55 * (5 / 4)),
};

const { values: options } = parseArgs({
  options: {
    shape: { type: 'string', default: 'dense,real,mixed,sparse,vast,many,start,list' },
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
/** What is measured in a way of its own. */
const APART = new Set(['vast', 'many', 'start', 'list']);
const WITHOUT_CHECKSUMS = join(ROOT, 'target', 'without-checksums', 'release', 'asmt-bench');
const REFERENCE = process.env.ASMT_REFERENCE;

/** Does the set-up, and starts this script again in a namespace of its own. */
async function outside() {
  install();
  // The small form runs in the tests, which have built everything.
  if (!SMALL || !existsSync(BENCH)) build();
  if (!SMALL && SHAPES.some((shape) => !APART.has(shape))) {
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
  // This machine's own server, if it has one, must not have an effect.
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

async function inside(directory) {
  const figures = new Figures();
  const path = (name) => join(directory, name);
  const say = (text) => process.stderr.write(`${text}\n`);
  try {
    say(`${availableParallelism()} CPUs, ${ROUNDS} rounds, files in ${directory}${REFERENCE ? `, and ${REFERENCE}` : ''}`);
    for (const shape of SHAPES.filter((name) => !APART.has(name))) await oneShape(shape, shapeOf(shape), figures, path, say);
    if (SHAPES.includes('vast')) await vast({ figures, path, rounds: ROUNDS, isSmall: SMALL, say });
    if (SHAPES.includes('many')) await manySegments(figures, path, say);
    if (SHAPES.includes('start')) await startUp(figures, say);
    if (SHAPES.includes('list')) await lists(figures, say);
    if (options.scale) await scale(figures, path, say);
  } finally {
    sim('remove');
  }
  const rows = figures.rows();
  process.stdout.write(table(rows) + verdictTable(figures.verdicts(), !SMALL));
  if (options.json) {
    const machine = { cpus: availableParallelism(), node: process.version, kernel: readFileSync('/proc/version', 'utf8').trim() };
    writeFileSync(options.json, `${JSON.stringify({ machine, rounds: ROUNDS, rows, verdicts: figures.verdicts() }, null, 2)}\n`);
  }
}

/** Returns the simulator's options for a shape. */
function shapeOf(name) {
  const size = (gib) => String(Math.max(MIB, Math.round(gib * GIB)));
  const part = SMALL ? 1 / 512 : 1;
  const elements = name === 'real' ? ['--elements', PIECE] : [];
  if (INDEXES.has(name)) return ['--stages', '4', '--stage-size', size(GIBS / 4), '--fill', '1', ...elements];
  if (name === 'sparse') return ['--stages', '5', '--stage-size', size(part), '--fill', '0.0476'];
  const index = ['--stages', '2', '--stage-size', size(part / 2), '--fill', '0.9'];
  const secondary = ['--si-stages', '1', '--si-stage-size', size(part / 2), '--si-fill', '0.9'];
  return [...index, ...secondary, '--stripes', '8', '--stripe-size', size(part / 16), '--stripe-fill', '0.9', '--data-nsid', '3'];
}

/** What the machine can do with the segments that are there, with no disk. */
async function limits(shape, figures) {
  for (const threads of ['1', String(availableParallelism())]) {
    for (const what of ['memcpy', 'crc32', 'fresh']) {
      const mib = what === 'fresh' && SMALL ? ['--mib', '16'] : [];
      const found = await limit(what, '--threads', threads, ...mib);
      figures.add(shape, `limit: ${what}, ${threads} threads`, found.seconds, found.bytes);
    }
    for (const name of ['index', 'other', 'columns', 'zlib-1']) {
      const found = await limit('codec', '--name', name, '--threads', threads, '--mib', name === 'zlib-1' ? '128' : '256');
      // Only holes and small pieces: there is nothing to encode.
      if (found.bytes === 0) continue;
      const ratio = { encoded_part: found.encoded_bytes / found.bytes };
      figures.add(shape, `limit: encode ${name}, ${threads} threads`, found.encode_seconds, found.bytes, ratio);
      figures.add(shape, `limit: decode ${name}, ${threads} threads`, found.decode_seconds, found.bytes);
    }
  }
}

/** What a run used beside its time. */
const used = ({ ownBytes, cpuSeconds }) => ({ own_bytes: ownBytes, cpu_seconds: cpuSeconds });

/** A round of backups, each beside its limit. */
async function backups(shape, figures, path, { round, allocated }) {
  mkdirSync(path('limit'));
  const written = await limit('write', '--dir', path('limit'), '--keep');
  figures.add(shape, 'limit: write', written.seconds, written.bytes);
  const read = await limit('scan', '--dir', path('limit'));
  figures.add(shape, 'limit: write, and read into memory', written.seconds + read.seconds, written.bytes);
  settle(path('limit'));
  for (const flags of [[], ['-c'], ['-z'], ['-z', '-c'], ['-Z'], ['-Z', '-c']]) {
    const what = ['backup', ...flags].join(' ');
    const done = await asmt('backup', ...flags, path('b'));
    figures.add(shape, what, done.seconds, allocated, { file_bytes: diskBytes(path('b')), ...used(done) });
    settle(path('b'));
    if (REFERENCE && !flags.includes('-Z')) {
      const theirs = await timed(REFERENCE, ['-b', ...flags, '-n', 'test', '-p', path('b')]);
      figures.add(shape, `ASMT ${what}`, theirs.seconds, allocated, { file_bytes: diskBytes(path('b')) });
      settle(path('b'));
    }
  }
  const { requestOf } = await import('./requests.mjs');
  const engines = [
    ['engine alone', BENCH],
    ['engine alone, without CRC-32', WITHOUT_CHECKSUMS],
  ];
  // In either order: what comes first must not always pay for what was before.
  for (const [what, program] of round % 2 === 0 ? engines : engines.toReversed()) {
    // The small form builds nothing: what is there may be older than this.
    if (SMALL && program !== BENCH) continue;
    const request = requestOf('backup', '--allow-volatile', path('b'));
    const done = JSON.parse((await timed(program, ['engine', '--request', request])).stdout);
    figures.add(shape, what, done.seconds, done.bytes);
    settle(path('b'));
  }
}

/** The backups that are verified and restored. */
const KEPT = [
  { form: '', name: 'plain' },
  { form: ' -z', name: 'compressed' },
  { form: ' -Z', name: 'columns' },
];

/** A round of verifications and restores, each beside its limit. */
async function readings(shape, figures, path, { round, allocated, resident, before }) {
  dropCaches();
  const scanned = await limit('scan', '--dir', path('limit'));
  figures.add(shape, 'limit: read into memory', scanned.seconds, scanned.bytes);
  for (const { form, name } of KEPT) {
    dropCaches();
    const done = await asmt('verify', path(name));
    figures.add(shape, `verify${form}`, done.seconds, allocated, used(done));
  }
  sim('remove');
  dropCaches();
  const read = await limit('read', '--dir', path('limit'));
  figures.add(shape, 'limit: read', read.seconds, read.bytes);
  for (const { form, name } of KEPT) {
    const what = `restore${form}`;
    dropCaches();
    const done = await asmt('restore', path(name));
    figures.add(shape, what, done.seconds, allocated, used(done));
    const after = residentBytes();
    if (shape === 'sparse') figures.add(shape, `${what}: resident afterwards, of before`, 1, after, { part: after / resident });
    if (round === 0 && sim('sum', '--sparse') !== before) throw new Error(`${what} of ${shape} gave other segments back`);
    sim('remove');
  }
  if (REFERENCE) {
    for (const { form, name } of KEPT.filter((kept) => kept.name !== 'columns')) {
      dropCaches();
      const theirs = await timed(REFERENCE, ['-r', '-n', 'test', '-p', path(name)]);
      figures.add(shape, `ASMT restore${form}`, theirs.seconds, allocated);
      sim('remove');
    }
  }
}

async function oneShape(shape, make, figures, path, say) {
  say(`\n${shape}: ${make.join(' ')}`);
  // Twice: memory that the machine hands out for the first time is many times slower.
  sim('make', ...make);
  sim('remove');
  sim('make', ...make);
  const before = sim('sum', '--sparse');
  const [allocated, resident] = [allocatedBytes(before), residentBytes()];
  await limits(shape, figures);
  for (let round = 0; round < ROUNDS; round += 1) {
    say(`  round ${round + 1} of ${ROUNDS}: backups`);
    await backups(shape, figures, path, { round, allocated });
  }
  const gained = residentBytes() - resident;
  mkdirSync(path('limit'));
  await limit('write', '--dir', path('limit'), '--keep');
  await asmt('backup', path('plain'));
  await asmt('backup', '-z', path('compressed'));
  await asmt('backup', '-Z', path('columns'));
  if (INDEXES.has(shape)) {
    const add = (...row) => figures.add(shape, ...row);
    const rounds = Math.min(ROUNDS, 3);
    await otherPrograms({ plain: path('plain'), compressed: path('compressed'), path, rounds, add, say });
  }
  for (let round = 0; round < ROUNDS; round += 1) {
    say(`  round ${round + 1} of ${ROUNDS}: verify and restore`);
    await readings(shape, figures, path, { round, allocated, resident, before });
  }
  for (const name of ['limit', 'plain', 'compressed', 'columns']) settle(path(name));
  judge(shape, figures, { allocated, resident, gained });
}

/** How many times as fast as ASMT: measured, or by the estimate; and which of them. */
function timesAsmt(shape, figures, what, estimate) {
  const measured = figures.get(shape, `ASMT ${what}`)?.seconds;
  return [(measured ?? estimate) / figures.get(shape, what).seconds, measured ? 'ASMT measured' : 'ASMT estimated'];
}

/** Compares the figures of an index with what is to be reached. */
function judgeIndex(shape, figures, allocated) {
  const seconds = (what) => figures.get(shape, what)?.seconds ?? Number.NaN;
  const verdict = (what, ...more) => figures.verdict(`${shape}: ${what}`, ...more);
  const against = (what, estimate) => timesAsmt(shape, figures, what, estimate);
  const [write, read] = [seconds('limit: write'), seconds('limit: read')];
  verdict('backup, of the direct writer’s rate', write / seconds('backup'), 0.9, false);
  const [plain, how] = against('backup', write * ASMT.backup);
  verdict('backup, times ASMT', plain, 2.2, false, how);
  const without = seconds('engine alone, without CRC-32');
  verdict('backup with CRC-32, of the same without', without / seconds('engine alone'), 0.97, false);
  const crcTheirs = figures.get(shape, 'ASMT backup -c')?.seconds ?? write * ASMT.backupCrc;
  verdict('backup with CRC-32, times ASMT -c', crcTheirs / seconds('backup'), 4, false, how);
  const both = seconds('limit: write, and read into memory');
  verdict('backup -c, of the direct writer’s and reader’s rate', both / seconds('backup -c'), 0.9, false);
  const zlib = figures.get(shape, `limit: encode zlib-1, ${availableParallelism()} threads`);
  const zlibAlone = figures.get(shape, 'limit: encode zlib-1, 1 threads');
  const [z, howZ] = against('backup -z', ((zlib.seconds * allocated) / zlib.bytes) * ASMT.backupZ);
  verdict('backup -z, times ASMT -z', z, 10, false, howZ);
  const size = figures.get(shape, 'ASMT backup -z')?.file_bytes ?? zlibAlone.encoded_part * allocated;
  verdict('backup -z, size of ASMT’s', figures.get(shape, 'backup -z').file_bytes / size, 1, true, howZ);
  verdict('verify, of the rate of direct reads into memory', seconds('limit: read into memory') / seconds('verify'), 0.9, false);
  verdict('restore, of the direct reader’s rate', read / seconds('restore'), 0.9, false);
  verdict('backup -z -c, of backup -z', seconds('backup -z -c') / seconds('backup -z'), 1.15, true);
  verdict('backup -Z, of backup', seconds('backup -Z') / seconds('backup'), 0.9, true);
  verdict('restore -Z, of restore', seconds('restore -Z') / seconds('restore'), 1, true);
  verdict('backup -Z, size of the segments', figures.get(shape, 'backup -Z').file_bytes / allocated, 0.49, true);
  const alone = (what, name) => {
    const { seconds: time, bytes } = figures.get(shape, `limit: ${what} ${name}, 1 threads`) ?? {};
    return bytes / time;
  };
  verdict('encode columns, of the rate of -z, 1 thread', alone('encode', 'columns') / alone('encode', 'index'), 1.8, false);
  verdict('decode columns, of the rate of -z, 1 thread', alone('decode', 'columns') / alone('decode', 'index'), 3, false);
  const [rz, howRz] = against('restore -z', read * ASMT.restoreZ);
  verdict('restore -z, times ASMT', rz, 2.5, false, howRz);
}

/** Compares a shape's figures with what is to be reached. */
function judge(shape, figures, { allocated, resident, gained }) {
  if (INDEXES.has(shape)) judgeIndex(shape, figures, allocated);
  if (shape === 'sparse') {
    const rate = figures.get('dense', 'limit: write') ?? figures.get(shape, 'limit: write');
    const [sparse, how] = timesAsmt(shape, figures, 'backup', (allocated / (rate.bytes / rate.seconds)) * ASMT.sparse);
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

/**
 * Commands that do little, beside Node with nothing to do: as often as medians of milliseconds
 * need, and in either order. On a busy machine, CPU time says more than the clock; of one run it is
 * known to 10 ms, so that the row has the mean of all.
 */
async function startUp(figures, say) {
  say('\nstart-up');
  const node = 'limit: node with nothing to do';
  const commands = [
    { what: node, args: ['-e', '0'] },
    { what: 'asmt --help', args: [MAIN, '--help'] },
    { what: 'asmt --version', args: [MAIN, '--version'] },
    { what: 'asmt list', args: [MAIN, 'list'] },
  ];
  const rounds = SMALL ? 1 : Math.max(ROUNDS, 30);
  const cpuSeconds = new Map();
  sim('make', '--stages', '2');
  for (let round = 0; round < rounds; round += 1) {
    for (const { what, args } of round % 2 === 0 ? commands : commands.toReversed()) {
      const before = cpuSecondsOfChildren();
      figures.add('start-up', what, (await timed(process.execPath, args)).seconds, 0);
      cpuSeconds.set(what, (cpuSeconds.get(what) ?? 0) + cpuSecondsOfChildren() - before);
    }
  }
  sim('remove');
  for (const { what } of commands) figures.add('start-up', `${what}, CPU time`, cpuSeconds.get(what) / rounds, 0);
  for (const { what } of commands.slice(1)) {
    for (const of of ['', ', CPU time']) {
      const seconds = (name) => figures.get('start-up', name + of).seconds;
      figures.verdict(`${what}, of Node with nothing to do${of}`, seconds(what) / seconds(node), 1.25, true);
    }
  }
}

/** CPU time of the children of this process that have ended: fields 16 and 17 (proc(5)). */
function cpuSecondsOfChildren() {
  const [, after] = readFileSync('/proc/self/stat', 'utf8').split(') ');
  const fields = after.split(' ');
  return (Number(fields[13]) + Number(fields[14])) / 100;
}

/** A list as segments become more: of two namespaces, and of others than Aerospike. */
async function lists(figures, say) {
  say('\nlist');
  const counts = SMALL ? [20, 40] : [500, 1000, 2000, 4000];
  const { requestOf } = await import('./requests.mjs');
  const request = requestOf('list');
  const measure = async (shape) => {
    for (let round = 0; round < (SMALL ? 1 : Math.max(ROUNDS, 15)); round += 1) {
      const { seconds } = JSON.parse((await timed(BENCH, ['engine', '--request', request])).stdout);
      figures.add(shape, 'engine alone', seconds, 0);
    }
    for (let round = 0; round < ROUNDS; round += 1) {
      for (const args of [[], ['-v'], ['--json']]) {
        const done = await timed(process.execPath, [MAIN, 'list', ...args]);
        figures.add(shape, ['asmt list', ...args].join(' '), done.seconds, 0);
      }
    }
  };
  await measure('list of 0 segments');
  for (const count of counts) {
    // Each has its base and its treex.
    for (const [nsid, name] of ['one', 'two'].entries())
      sim('make', '--nsid', `${nsid + 1}`, '--name', name, '--stages', `${count / 2 - 2}`, '--stage-size', '4KiB');
    await measure(`list of ${count} segments`);
    sim('remove');
  }
  let foreign = 0;
  for (const count of SMALL ? counts : [500, 2000]) {
    // They stay: this IPC namespace ends with the benchmark.
    sim('foreign', '--key', (0x10000000 + foreign).toString(16), '--count', `${count - foreign}`, '--size', '4KiB');
    foreign = count;
    await measure(`list of ${count} foreign segments`);
  }
  // The least times: what else runs on the machine only adds to them, and they are milliseconds.
  const least = (shape) => Math.min(...figures.get(shape, 'engine alone').times);
  const cost = (kind, count) => (least(`list of ${count} ${kind}`) - least('list of 0 segments')) / count;
  for (const [kind, most] of [
    ['segments', counts.at(-1)],
    ['foreign segments', foreign],
  ]) {
    const what = `list of ${most} ${kind}, time of each of that in a list of ${counts[0]} (engine alone)`;
    figures.verdict(what, cost(kind, most) / cost(kind, counts[0]), 1.5, true);
  }
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

if (process.env.ASMT_BENCH_INSIDE === undefined) await outside();
else await inside(process.env.ASMT_BENCH_INSIDE);
