/**
 * The second half of `npm run test:mutants -- --file segment`: cargo-mutants changes functions and
 * leaves numbers as they are. Here each number in the layout code is increased and decreased by
 * one, one at a time, and a test that uses bytes of other programs must notice.
 *
 * Promise: works on a copy; a number whose change is not noticed must stand in UNWITNESSED with its
 * reason, and in docs/FORMAT.md; an entry that explains nothing any more is a failure, too. Must
 * never: count a change that does not compile as noticed.
 */

import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { ROOT } from './setup.mjs';

/**
 * Numbers that no bytes of another program show: the line and the reason. "Table" is "Facts with no
 * outside witness" in docs/FORMAT.md.
 */
const UNWITNESSED = [
  ['pub const MAX_INSTANCE: u8 = 15;', 'table: the field of a key has four bits'],
  ['const LAST_LOW: u32 = 0x8ff;', 'table: how many stages and stripes there can be'],
  ['pub const MAX_STAGES: u32 = 2048;', 'table: how many stages and stripes there can be'],
  ['pub const MAX_SEGMENT_BYTES: u64 = 16 << 40;', 'a limit of asmt: eight times the largest stripe'],
];

/** A number, with its type if it has one; not a part of a word, nor an index of a tuple. */
const NUMBER = /(?<![\w"])(?<![\w)\]]\.)(0x[0-9a-f_]+?|\d[\d_]*?)(?:_?[ui](?:8|16|32|64|size))?(?![\w"])/g;

/** Returns the numbers of a source before its tests, without those in comments and texts. */
export function numbersOf(source) {
  const found = [];
  const end = source.indexOf('#[cfg(test)]');
  let offset = 0;
  for (const line of source.slice(0, end === -1 ? undefined : end).split('\n')) {
    const blank = (text) => ' '.repeat(text.length);
    const code = line.replace(/"(?:[^"\\]|\\.)*"/g, blank).replace(/\/\/.*$/, blank);
    for (const match of code.matchAll(NUMBER)) {
      const text = match[1];
      found.push({ at: offset + match.index, text, value: BigInt(text.replaceAll('_', '')), line: line.trim() });
    }
    offset += line.length + 1;
  }
  return found;
}

/**
 * Changes each number of these files and runs these tests. Returns true if every unexplained change
 * was noticed.
 */
export function judgeNumbers({ files, tests, scratch, shard, env, prefix }) {
  const tree = join(scratch, 'numbers');
  mkdirSync(tree, { recursive: true });
  for (const name of ['Cargo.toml', 'Cargo.lock', 'crates', 'tools', '__test__/fixtures']) {
    cpSync(join(ROOT, name), join(tree, name), { recursive: true });
  }
  const cargo = (...words) => {
    const [program, ...before] = [...prefix, 'cargo'];
    const args = [...before, 'test', '--quiet', '--package', 'asmt-engine', '--locked', '--target-dir', join(scratch, 'target')];
    return spawnSync(program, [...args, ...words, ...tests], { cwd: tree, encoding: 'utf8', env, timeout: 300_000 });
  };
  const unchanged = cargo();
  if (unchanged.status !== 0) {
    process.stdout.write(`${unchanged.stdout}${unchanged.stderr}not ok - numbers: the tests fail with no change\n`);
    return false;
  }
  const counts = { noticed: 0, uncompiled: 0, explained: 0, missed: 0 };
  const explaining = new Set();
  const [part, parts] = (shard ?? '0/1').split('/').map(Number);
  const sources = files.map((file) => ({ file, source: readFileSync(join(tree, file), 'utf8') }));
  const numbers = sources.flatMap(({ file, source }) => numbersOf(source).map((number) => ({ ...number, file, source })));
  for (const number of numbers.filter((_, index) => index % parts === part)) {
    const { file, source, line, value } = number;
    for (const other of value === 0n ? [1n] : [value + 1n, value - 1n]) {
      const outcome = tried(join(tree, file), number, other, cargo);
      const isExplained = outcome === 'missed' && UNWITNESSED.some(([known]) => known === line);
      counts[isExplained ? 'explained' : outcome] += 1;
      if (isExplained) explaining.add(line);
      else if (outcome === 'missed') {
        const place = `${file}:${source.slice(0, number.at).split('\n').length}`;
        process.stdout.write(`MISSED   ${place}: ${number.text} as ${other}: ${line}\n`);
      }
    }
  }
  const idle = parts === 1 ? UNWITNESSED.filter(([line]) => !explaining.has(line)) : [];
  for (const [line] of idle) process.stdout.write(`IDLE     scripts/numbers.mjs explains what is noticed: ${line}\n`);
  const isRight = counts.missed === 0 && counts.noticed > 0 && idle.length === 0;
  const shown = `${counts.noticed} noticed, ${counts.uncompiled} that do not compile, ${counts.explained} explained, ${counts.missed} not noticed`;
  process.stdout.write(`${isRight ? 'ok' : 'not ok'} - numbers: ${numbers.length} numbers, ${shown}\n`);
  return isRight;
}

/** Replaces one number and returns the outcome. Afterwards the file is as before. */
function tried(path, { at, text, source }, other, cargo) {
  writeFileSync(path, source.slice(0, at) + other.toString() + source.slice(at + text.length));
  const outcome = cargo('--no-run').status !== 0 ? 'uncompiled' : cargo().status !== 0 ? 'noticed' : 'missed';
  writeFileSync(path, source);
  return outcome;
}
