/**
 * The rules of docs/ARCHITECTURE.md on imports and contents of files, checked on the sources, one
 * entry each.
 *
 * Promise: returns every violation, not just the first. Must never: depend on anything but Node and
 * cargo.
 */

import { execFileSync } from 'node:child_process';

import { circles, code, files, read, rustImports, typescriptImports } from './imports.mjs';
import { ROOT } from './setup.mjs';

/**
 * The engine's folders, and its files beside them, in the order of the layers: each imports only
 * from itself and from those before it.
 */
const LAYERS = [
  'layout',
  'format',
  'errno',
  'error',
  'hints',
  'sync',
  'progress',
  'facts',
  'plan',
  'sys',
  'store',
  'look',
  'work',
  'operations',
  'lib',
];
/** Layers that make no system call: bytes and values in, values out. */
const PURE = new Set(['layout', 'format', 'errno', 'error', 'hints', 'facts', 'plan']);
const ENGINE = 'crates/asmt-engine/src';
/** Sources of crates that are checked for circles. */
const CRATES = ['shm', 'codec', 'engine'].map((name) => `crates/asmt-${name}/src`);
const TOOLS = ['bench', 'faults', 'kit', 'powercut', 'sequences', 'sim'].map((name) => `tools/${name}/src`);

/** Sources whose files are kept short. (A codec is one idea, however long.) */
const SHORT = [ENGINE, 'crates/asmt-shm/src', 'crates/asmt-napi/src', ...TOOLS];
/** Lines of code of a file, without comments and tests: what a reader can keep in mind. */
const MOST_LINES = 510;

const layerOf = (file) => file.slice(ENGINE.length + 1).split(/[/.]/)[0];

/** TypeScript without its comments. */
const withoutComments = (file) => read(file).replace(/\/\*[\s\S]*?\*\/|^\s*\/\/.*$/gm, '');

/** Returns a list of texts, empty if all rules hold. */
export function violations() {
  const found = [];
  const rule = (holds, text) => holds || found.push(text);
  const typescript = files('src', '.ts');
  const engine = files('crates/asmt-engine/src', '.rs');

  for (const name of [
    'policy',
    'argv',
    'environment',
    'options',
    'errors',
    'render',
    'json',
    'voice',
    'help',
    'metrics',
    'times',
  ]) {
    const file = `src/${name}.ts`;
    const values = [...read(file).matchAll(/^import (?!type\b).*?from '([^']+)'/gms)].map((match) => match[1]);
    const impure = values.filter((name) => /^node:(?!util$)|native|^clipanion$|^chalk$/.test(name));
    rule(impure.length === 0, `${file} is pure and must not import ${impure.join(', ')}`);
    rule(
      !/\bprocess\.\w|\bDate\.now|performance\.now/.test(withoutComments(file)),
      `${file} is pure and must not ask process or a clock`,
    );
  }
  const using = (pattern) => typescript.filter((file) => pattern.test(read(file)));
  const only = (pattern, allowed, what) => {
    const others = using(pattern).filter((file) => !allowed.includes(file));
    rule(others.length === 0, `only ${allowed.join(' and ')} may ${what}, but so does ${others.join(', ')}`);
  };
  only(/native\/index\.cjs|dlopen/, ['src/addon.ts'], 'load the addon');
  only(/JSON\.parse/, ['src/native.ts'], 'believe JSON');
  // What is coloured, and how, is decided in `render.ts`.
  only(/'chalk'/, ['src/colours.ts'], 'use chalk');
  only(
    /'clipanion'/,
    typescript.filter((file) => file.startsWith('src/commands/')),
    'use clipanion',
  );
  // In the bundle there are no others: see scripts/bundle.mjs.
  only(/process\.std(?:in|out|err)\b/, ['src/output.ts'], 'use the standard streams');
  // Where the engine's thread waits for a system that does not answer.
  only(/process\.exit\b/, ['src/native.ts'], 'end the process');
  only(/console\./, [], 'print by console');

  for (const [file, targets] of rustImports(ENGINE)) {
    if (!LAYERS.includes(layerOf(file))) continue;
    for (const target of targets) {
      const isBefore = LAYERS.indexOf(layerOf(target)) <= LAYERS.indexOf(layerOf(file));
      rule(isBefore, `${file} must not import ${target}: ${layerOf(target)} comes after ${layerOf(file)}`);
    }
  }
  for (const imports of [...[...CRATES, ...TOOLS].map(rustImports), typescriptImports('src')]) {
    for (const circle of circles(imports)) found.push(`these import each other in a circle: ${circle.join(', ')}`);
  }
  for (const file of engine) {
    const text = code(file);
    const isPure = PURE.has(layerOf(file));
    const impure =
      /std::fs|std::env|std::process|rustix|libc::(?!E)|asmt_shm::sysv::(?!\{?(SegmentStat|Limits))|SystemTime|Instant/;
    rule(!isPure || !impure.test(text), `${file} is pure and must not call the system`);
    rule(
      layerOf(file) === 'sys' || layerOf(file) === 'store' || !/\bfsync::/.test(text),
      `${file}: only store/ asks sys/fsync.rs to make things durable`,
    );
  }
  // Calls, methods of std, and flags with which each write is durable. Our own `sync` is a method.
  const durable =
    /\b(fsync|fdatasync|syncfs|sync_file_range|msync)\(|(?<!\.|fn )\bsync\(|\bsync_(all|data)\b|\bO_D?SYNC\b|\bOFlags::[DR]?SYNC\b/;
  for (const file of [...CRATES, 'crates/asmt-napi/src'].flatMap((source) => files(source, '.rs'))) {
    rule(file === `${ENGINE}/sys/fsync.rs` || !durable.test(code(file)), `${file}: only sys/fsync.rs makes things durable`);
  }
  for (const file of SHORT.flatMap((source) => files(source, '.rs'))) {
    const isShort = code(file).split('\n').length <= MOST_LINES;
    rule(isShort, `${file} has more than ${MOST_LINES} lines without tests and comments`);
  }
  for (const file of [...CRATES, ...TOOLS].flatMap((source) => files(source, '.rs'))) {
    rule(read(file).startsWith('//!'), `${file} does not open with what it is for`);
    rule(
      /\/(sysv|simd|sys)\.rs$/.test(file) || !/\bunsafe\s*(\{|fn\b|impl\b|extern\b)/.test(code(file)),
      `${file}: unsafe belongs behind a fence (sysv.rs, simd.rs, sys.rs)`,
    );
  }
  for (const file of [...typescript, ...files('scripts', '.mjs'), ...files('__test__', '.ts')]) {
    rule(/^(#!.*\n)?\/\*\*/.test(read(file)) || file.endsWith('.spec.ts'), `${file} does not open with what it is for`);
  }
  const tree = (...words) =>
    execFileSync('cargo', ['tree', '--locked', '--edges', 'normal', ...words], { cwd: ROOT, encoding: 'utf8' });
  rule(!/napi/.test(tree('--package', 'asmt-engine')), 'asmt-engine must not know napi');
  // All features of our crates are for tests and the benchmark: calls taken out, no checksums.
  const features = (...words) => tree(...words, '--format', '{p} [{f}]').match(/asmt-.*\[[^\]]+\]/g) ?? [];
  const shown = features('--package', 'asmt-bench', '--features', 'without-checksums').join('\n');
  // Otherwise the search would prove nothing.
  rule(/asmt-codec .*without-checksums/.test(shown), 'cargo tree does not show which features are built');
  for (const crate of features('--package', 'asmt-napi')) found.push(`what ships must not be built with features: ${crate}`);
  return found;
}
