/**
 * The checks of the sources that need no run of the programs: format, lint, spelling, architecture,
 * prose, types and documentation, one entry each. `npm run lint` checks them, `npm run fix` repairs
 * what a program can repair.
 *
 * Promise: each check reads only the sources and needs no build.
 */

import { join } from 'node:path';

import { violations } from './architecture.mjs';
import { violations as proseViolations } from './prose.mjs';
import { ROOT } from './setup.mjs';

const bin = (name) => join(ROOT, 'node_modules', '.bin', name);
const CLIPPY = ['clippy', '--workspace', '--all-targets', '--locked'];
/** The fuzz targets are in a workspace of their own. */
const FUZZ = ['--manifest-path', 'fuzz/Cargo.toml'];

/**
 * Each has a command, or a function that returns the violations, and perhaps a command that
 * repairs.
 */
export const CHECKS = [
  { title: 'format (oxfmt)', check: [bin('oxfmt'), '--check', '.'], fix: [bin('oxfmt'), '.'] },
  { title: 'format (rustfmt)', check: ['cargo', 'fmt', '--all', '--check'], fix: ['cargo', 'fmt', '--all'] },
  { title: 'format (rustfmt, fuzz)', check: ['cargo', 'fmt', ...FUZZ, '--check'], fix: ['cargo', 'fmt', ...FUZZ] },
  {
    title: 'lint (oxlint)',
    check: [bin('oxlint'), '--type-aware', '--deny-warnings'],
    fix: [bin('oxlint'), '--type-aware', '--fix'],
  },
  {
    title: 'lint (clippy)',
    check: ['cargo', ...CLIPPY, '--', '-D', 'warnings'],
    fix: ['cargo', ...CLIPPY, '--fix', '--allow-dirty', '--allow-staged'],
  },
  // The code that ships is built without the feature that opens the engine to tests: this shows
  // dead code.
  {
    title: 'lint (clippy, as shipped)',
    check: ['cargo', 'clippy', '--package', 'asmt-napi', '--locked', '--', '-D', 'warnings'],
  },
  { title: 'spelling (cspell)', check: [bin('cspell'), '--no-progress', '--no-summary', '.'] },
  { title: 'architecture', check: violations },
  { title: 'prose', check: proseViolations },
  { title: 'types (tsc)', check: [bin('tsc'), '-p', 'tsconfig.json'] },
  {
    title: 'documentation (cargo doc)',
    check: ['cargo', 'doc', '--workspace', '--no-deps', '--locked'],
    env: { RUSTDOCFLAGS: '-D warnings' },
  },
];
