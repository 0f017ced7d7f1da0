/**
 * Who may import whom, checked on the sources: the rules of docs/ARCHITECTURE.md, one entry each.
 *
 * Promise: gives every violation, not just the first. Must never: depend on anything but Node and cargo.
 */

import { execFileSync } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import { join, relative } from 'node:path';

import { ROOT } from './setup.mjs';

function files(directory, extension) {
  return readdirSync(join(ROOT, directory), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith(extension))
    .map((entry) => relative(ROOT, join(entry.parentPath, entry.name)))
    .toSorted();
}

const read = (file) => readFileSync(join(ROOT, file), 'utf8');

/** Rust without comments and without its unit tests: what counts is what runs. */
function code(file) {
  return read(file)
    .split('#[cfg(test)]')[0]
    .split('\n')
    .filter((line) => !line.trim().startsWith('//'))
    .join('\n');
}

/** TypeScript without its comments. */
const withoutComments = (file) => read(file).replace(/\/\*[\s\S]*?\*\/|^\s*\/\/.*$/gm, '');

/** Gives a list of texts, empty if all rules hold. */
export function violations() {
  const found = [];
  const rule = (holds, text) => holds || found.push(text);
  const typescript = files('src', '.ts');
  const engine = files('crates/asmt-engine/src', '.rs');

  for (const file of ['src/policy.ts', 'src/argv.ts', 'src/options.ts', 'src/errors.ts', 'src/render.ts', 'src/help.ts']) {
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
  only(/native\/index\.cjs/, ['src/native.ts'], 'load the addon');
  only(/JSON\.parse/, ['src/native.ts'], 'believe JSON');
  // `base.ts` makes the two instances, by stream; what is coloured, and how, is decided in `render.ts`.
  only(/from 'chalk'/, ['src/render.ts', 'src/commands/base.ts'], 'use chalk');
  only(
    /from 'clipanion'|import\('clipanion'\)/,
    ['src/main.ts', ...typescript.filter((file) => file.startsWith('src/commands/'))],
    'use clipanion',
  );
  // Where the engine's thread waits for a system that does not answer.
  only(/process\.exit\b/, ['src/native.ts'], 'end the process');
  only(/console\./, [], 'print by console');

  for (const file of engine) {
    const text = code(file);
    rule(
      !/\bprintln!|\beprintln!|\bprocess::exit\b|\bdbg!/.test(text),
      `${file}: the engine must not print, nor end the process`,
    );
    rule(
      file.endsWith('/durable.rs') || !/\bfs::(fsync|fdatasync|syncfs)|\bsync_(all|data)\b/.test(text),
      `${file}: only durable.rs makes things durable`,
    );
    rule(read(file).startsWith('//!'), `${file} does not open with what it is for`);
  }
  for (const file of ['shm', 'codec'].flatMap((name) => files(`crates/asmt-${name}/src`, '.rs'))) {
    rule(
      /\/(sysv|simd)\.rs$/.test(file) || !/\bunsafe\s*(\{|fn\b|impl\b|extern\b)/.test(code(file)),
      `${file}: unsafe belongs in sysv.rs and simd.rs`,
    );
    rule(read(file).startsWith('//!'), `${file} does not open with what it is for`);
  }
  for (const file of ['faults', 'sequences'].flatMap((name) => files(`tools/${name}/src`, '.rs'))) {
    rule(
      file.endsWith('/sys.rs') || !/\bunsafe\s*(\{|fn\b|impl\b|extern\b)/.test(code(file)),
      `${file}: unsafe belongs in sys.rs`,
    );
    rule(read(file).startsWith('//!'), `${file} does not open with what it is for`);
  }
  const isPure = /\/src\/((plan|segment|format|facts|layout)\.rs|(plan|facts|layout)\/)/;
  for (const file of engine.filter((name) => isPure.test(name))) {
    const impure = /std::fs|rustix|sysv::|SystemTime|std::env|crate::look|Instant/;
    rule(!impure.test(code(file)), `${file} is pure and must not call the system, nor know who looks`);
  }
  for (const file of [...typescript, ...files('scripts', '.mjs'), ...files('__test__', '.ts')]) {
    rule(/^(#!.*\n)?\/\*\*/.test(read(file)) || file.endsWith('.spec.ts'), `${file} does not open with what it is for`);
  }
  const tree = execFileSync('cargo', ['tree', '--locked', '--package', 'asmt-engine', '--edges', 'normal'], {
    cwd: ROOT,
    encoding: 'utf8',
  });
  rule(!/napi/.test(tree), 'asmt-engine must not know napi');
  return found;
}
