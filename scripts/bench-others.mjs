/**
 * Other programs for gzip files on the benchmark's own data, where they are installed: how small
 * each makes it, how fast, and how fast it decodes what asmt has written.
 *
 * Promise: one thread, from the page cache to nowhere; what a program decodes is compared first; a
 * program that is missing is named with its package and left out. Must never: need one.
 */

import { spawn, spawnSync } from 'node:child_process';
import { closeSync, openSync, readSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { MIB } from './bench-tools.mjs';

/** The programs: how they encode at level 1 and decode, and the Debian package that has them. */
export const OTHERS = [
  { name: 'igzip', encode: ['igzip', '-1', '-c'], decode: ['igzip', '-d', '-c'], package: 'isal' },
  {
    name: 'libdeflate-gzip',
    encode: ['libdeflate-gzip', '-1', '-c'],
    decode: ['libdeflate-gunzip', '-c'],
    package: 'libdeflate-tools',
  },
  { name: 'pigz', encode: ['pigz', '-p', '1', '-1', '-c'], decode: ['pigz', '-p', '1', '-d', '-c'], package: 'pigz' },
  { name: 'gzip', encode: ['gzip', '-1', '-c'], decode: ['gzip', '-d', '-c'], package: 'gzip' },
];
/** Bytes of ASMT's header, before a file's gzip member. */
const HEADER_BYTES = 24;
/** What they encode of the largest file, at most. */
const SAMPLE_BYTES = 256 * MIB;

/** Runs a program with its output going to a file descriptor; gives the seconds that it took. */
async function run([program, ...args], output) {
  const since = performance.now();
  const child = spawn(program, args, { stdio: ['ignore', output, 'pipe'] });
  let stderr = '';
  child.stderr.on('data', (data) => (stderr += data));
  const status = await new Promise((done, fail) => {
    child.on('error', fail);
    child.on('close', (code, signal) => done(code ?? signal));
  });
  if (status !== 0) throw new Error(`${[program, ...args].join(' ')}: exit ${status}\n${stderr}`);
  return (performance.now() - since) / 1000;
}

async function intoFile(command, path) {
  const output = openSync(path, 'w', 0o600);
  try {
    await run(command, output);
  } finally {
    closeSync(output);
  }
}

/** The largest file of a plain backup of index stages, and its beginning as a file of its own. */
function sampleOf(plain, path) {
  const sizes = readdirSync(plain).map((name) => ({ name, bytes: statSync(join(plain, name)).size }));
  const { name, bytes } = sizes.toSorted((a, b) => b.bytes - a.bytes || a.name.localeCompare(b.name))[0];
  const sample = Buffer.alloc(Math.min(bytes, SAMPLE_BYTES));
  const file = openSync(join(plain, name), 'r');
  const read = readSync(file, sample);
  closeSync(file);
  if (read !== sample.length) throw new Error(`${name}: ${read} of ${sample.length} bytes could be read`);
  writeFileSync(path, sample, { mode: 0o600 });
  return { name, bytes, sampleBytes: sample.length };
}

/**
 * Measures each program on what is in two backups of the same segments, one plain and one
 * compressed. `path` gives places for files, `add` takes a row.
 */
export async function otherPrograms({ plain, compressed, path, rounds, add, say }) {
  const sample = path('sample');
  const output = path('other');
  const { name, bytes, sampleBytes } = sampleOf(plain, sample);
  const ours = path('member');
  await intoFile(['tail', '-c', `+${HEADER_BYTES + 1}`, join(compressed, `${name}.gz`)], ours);
  const nowhere = openSync('/dev/null', 'w');
  try {
    for (const other of OTHERS) {
      if (spawnSync(other.encode[0], ['-h']).error) {
        say(`  ${other.name} is not installed (Debian's package ${other.package}): left out`);
        continue;
      }
      // Once for the size, and to have the page cache filled.
      await intoFile([...other.encode, sample], output);
      const encoded = { encoded_part: statSync(output).size / sampleBytes };
      await intoFile([...other.decode, ours], output);
      if (spawnSync('cmp', [output, join(plain, name)]).status !== 0)
        throw new Error(`${other.name} decodes ${ours} to something else`);
      rmSync(output);
      for (let round = 0; round < rounds; round += 1) {
        add(`other: ${other.encode.join(' ')}`, await run([...other.encode, sample], nowhere), sampleBytes, encoded);
        add(`other: ${other.decode.join(' ')} of asmt's file`, await run([...other.decode, ours], nowhere), bytes);
      }
    }
  } finally {
    closeSync(nowhere);
    for (const file of [sample, ours, output]) rmSync(file, { force: true });
  }
}
