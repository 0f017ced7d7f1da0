/**
 * The second half of `npm run build:ts`, after the types were checked: makes `dist/` anew, with the
 * command line in one file.
 *
 * docs/ARCHITECTURE.md ("One file") says why it is one, and CommonJS. Names and lines stay as they
 * are, so that a stack trace says something; the source map is for coverage, and does not ship.
 *
 * Promise: whatever was bundled has its licence in `dist/THIRD_PARTY_LICENSES`, or the build fails.
 */

import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

import { build } from 'esbuild';

import { MAIN, ROOT } from './setup.mjs';

const DIST = dirname(MAIN);
const packageOf = (directory) => JSON.parse(readFileSync(join(directory, 'package.json'), 'utf8'));

/**
 * clipanion hands the three standard streams to commands, which asmt's do not use, and takes them
 * when it is loaded. Node needs milliseconds to make each. (`output.ts` has its own way to standard
 * error.)
 */
const NO_STREAMS = { 'process.stdin': 'undefined', 'process.stdout': 'undefined', 'process.stderr': 'undefined' };

const { metafile, outputFiles } = await build({
  absWorkingDir: ROOT,
  entryPoints: ['src/main.ts'],
  outfile: MAIN,
  bundle: true,
  platform: 'node',
  format: 'cjs',
  target: 'node20.19',
  // The forms of clipanion from which what is not used can be left out, and that does not ask the
  // terminal for its colours.
  resolveExtensions: ['.mjs', '.js', '.ts'],
  mainFields: ['browser', 'module', 'main'],
  // clipanion would check values of options with it, of which it gets none.
  external: ['typanion'],
  define: {
    ...NO_STREAMS,
    ASMT_VERSION: JSON.stringify(packageOf(ROOT).version),
    ASMT_COMMIT: JSON.stringify(commit()),
    'import.meta.filename': '__filename',
  },
  legalComments: 'none',
  sourcemap: 'linked',
  metafile: true,
  write: false,
  logLevel: 'warning',
});

// What an earlier build has left there would ship, too.
rmSync(DIST, { recursive: true, force: true });
mkdirSync(DIST);
for (const { path, contents } of outputFiles) writeFileSync(path, contents);
chmodSync(MAIN, 0o755);
// Here, and not in the sources, modules are CommonJS.
writeFileSync(join(DIST, 'package.json'), '{ "type": "commonjs" }\n');
writeFileSync(join(DIST, 'THIRD_PARTY_LICENSES'), licences(bundledPackages()));

/** The commit of the sources, with a plus sign if they differ; "unknown" outside a clone. */
function commit() {
  const git = (...args) => spawnSync('git', args, { cwd: ROOT, encoding: 'utf8' });
  const head = git('rev-parse', 'HEAD');
  if (head.status !== 0 || !existsSync(join(ROOT, '.git'))) return 'unknown';
  return head.stdout.trim() + (git('status', '--porcelain', '--untracked-files=no').stdout === '' ? '' : '+');
}

/** Directories of the packages of which something is in the bundle. */
function bundledPackages() {
  const inputs = Object.values(metafile.outputs).flatMap(({ inputs: found }) => Object.keys(found));
  const names = inputs.flatMap((path) => /^node_modules\/(?:@[^/]+\/)?[^/]+/.exec(path)?.[0] ?? []);
  return [...new Set(names)].toSorted().map((name) => join(ROOT, name));
}

function licences(directories) {
  const texts = directories.map((directory) => {
    const { name, version, license } = packageOf(directory);
    return `${name} ${version} (${license})\n\n${licenceOf(directory)}\n`;
  });
  return `asmt's command line contains code of these packages.\n\n${texts.join(`\n${'-'.repeat(80)}\n\n`)}`;
}

/** A package's licence: its file of that name, or the last part of its README. */
function licenceOf(directory) {
  const names = readdirSync(directory);
  const file = names.find((name) => /^(license|licence)(\.\w+)?$/i.test(name));
  if (file !== undefined) return readFileSync(join(directory, file), 'utf8').trim();
  const readme = names.find((name) => /^readme(\.\w+)?$/i.test(name));
  const text = readme === undefined ? '' : readFileSync(join(directory, readme), 'utf8');
  const part = /^## (?:license|licence).*\n([\s\S]*)/im
    .exec(text)?.[1]
    .replaceAll(/^>[ ]?/gm, '')
    .trim();
  if (!part) throw new Error(`${directory} has no licence to ship with the bundle, expected a file or a part of its README`);
  return part;
}
