/**
 * Publishes the npm packages of `out/`: `node scripts/release.mjs --tag v1.2.3`. The release
 * workflow runs it, and `npm run release:rehearse` with a registry of this machine.
 *
 * Promise: everything is checked before anything is public: the tag, the checksums, that each
 * platform is there and holds an addon for it, and that the registry has no other file of these
 * versions. What it has already is left out, so that a run that failed can be repeated.
 * The root package comes last, so that whoever installs it finds the others. Must never: build or
 * change what it publishes.
 */

import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative, resolve } from 'node:path';
import { isDeepStrictEqual, parseArgs } from 'node:util';

import { TARGETS } from './cross.mjs';
import { sha256 } from './package/checks.mjs';
import { ROOT } from './setup.mjs';

const { values: options } = parseArgs({
  options: {
    tag: { type: 'string' },
    out: { type: 'string' },
    'check-only': { type: 'boolean' },
    provenance: { type: 'boolean' },
  },
});
const out = resolve(options.out ?? join(ROOT, 'out'));
const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'));
/** ELF's numbers for the machines. */
const MACHINES = { x64: 62, arm64: 183 };

const platforms = TARGETS.map((target) => ({ ...target, name: `asmt-${target.platform}` }));
const packages = [...platforms, { name: 'asmt' }].map((found) => ({
  ...found,
  file: join(out, 'npm', `${found.name}-${version}.tgz`),
}));
const problems = [
  ...checkTag(),
  ...checkPublic(),
  ...checkSums(),
  ...packages.flatMap(checkPackage),
  ...packages.flatMap(checkUnpublished),
];
if (problems.length > 0) {
  for (const problem of problems) process.stderr.write(`error: ${problem}\n`);
  process.stderr.write('nothing was published\n');
  process.exit(1);
}
process.stdout.write(`checked: ${packages.length} packages of version ${version}\n`);
if (!options['check-only']) for (const found of packages) publish(found);

function checkTag() {
  if (!/^v\d+\.\d+\.\d+$/.test(options.tag ?? '')) return [`the tag is ${options.tag ?? 'missing'}, expected v${version}`];
  return options.tag === `v${version}` ? [] : [`the tag is ${options.tag}, expected v${version}`];
}

/** What is to be public says so, and names the repository that publishes it: npm wants to know. */
function checkPublic() {
  if (!options.provenance) return [];
  const changes = readFileSync(join(ROOT, 'CHANGELOG.md'), 'utf8');
  const isDescribed = changes.split('\n').includes(`## ${version}`);
  const { GITHUB_SERVER_URL: server, GITHUB_REPOSITORY: repository } = process.env;
  const isNamed = Boolean(server && repository);
  return [
    ...(isDescribed ? [] : [`CHANGELOG.md has no heading "## ${version}"`]),
    ...(isNamed ? [] : ['GITHUB_REPOSITORY is not set: only the release workflow publishes with provenance']),
  ];
}

/** Every file that ships is as it was when it was made and tested, and there is no other. */
function checkSums() {
  const path = join(out, 'SHA256SUMS');
  if (!existsSync(path)) return [`${path} is missing`];
  const lines = readFileSync(path, 'utf8')
    .split('\n')
    .filter((line) => line !== '');
  const sums = new Map(lines.map((line) => [line.slice(66), line.slice(0, 64)]));
  const entries = readdirSync(out, { withFileTypes: true, recursive: true }).filter((entry) => entry.isFile());
  const there = entries.map((entry) => relative(out, join(entry.parentPath, entry.name))).filter((name) => name !== 'SHA256SUMS');
  const expected = ['x64', 'arm64'].flatMap((arch) => [
    `bin/asmt-${version}-linux-${arch}`,
    `bin/asmt-${version}-linux-${arch}.licenses`,
  ]);
  expected.push(`asmt-${version}.cdx.json`);
  for (const arch of ['amd64', 'arm64']) expected.push(`deb/asmt-rs_${version}-1_${arch}.deb`);
  for (const arch of ['x86_64', 'aarch64']) expected.push(`rpm/asmt-rs-${version}-1.${arch}.rpm`);
  return [
    ...there.filter((name) => !sums.has(name)).map((name) => `${name} has no checksum`),
    ...expected.filter((name) => !sums.has(name)).map((name) => `${name} is missing in SHA256SUMS`),
    ...[...sums].flatMap(([name, sum]) => {
      if (!existsSync(join(out, name))) return [`${name} is missing`];
      const found = sha256(join(out, name));
      return found === sum ? [] : [`${name} is not the file that was made: its checksum differs`];
    }),
  ];
}

/** It is there, of this version, and holds an addon for its platform. */
function checkPackage({ name, file, platform, arch, libc }) {
  if (!existsSync(file)) return [`${file} is missing`];
  const directory = mkdtempSync(join(tmpdir(), 'asmt-release-'));
  try {
    if (spawnSync('tar', ['-xzf', file, '-C', directory]).status !== 0) return [`${file} cannot be unpacked`];
    const manifest = JSON.parse(readFileSync(join(directory, 'package', 'package.json'), 'utf8'));
    if (manifest.name !== name || manifest.version !== version) {
      return [`${file} is ${manifest.name} ${manifest.version}, expected ${name} ${version}`];
    }
    if (platform === undefined) {
      const expected = Object.fromEntries(platforms.map((other) => [other.name, version]));
      const found = manifest.optionalDependencies ?? {};
      const isSame = isDeepStrictEqual(found, expected);
      return isSame ? [] : [`${file} depends on ${JSON.stringify(found)}, expected ${JSON.stringify(expected)}`];
    }
    const addon = join(directory, 'package', `asmt.${platform}.node`);
    if (!existsSync(addon)) return [`${file} has no addon`];
    const bytes = readFileSync(addon);
    const isElf = bytes.length > 64 && bytes.readUInt32BE(0) === 0x7f454c46;
    if (!isElf || bytes.readUInt16LE(18) !== MACHINES[arch]) return [`the addon in ${file} is not for ${arch}`];
    // glibc's name of itself: the other libc has no versions of symbols.
    return bytes.includes('GLIBC_2.') === (libc === 'gnu') ? [] : [`the addon in ${file} is not for ${libc}`];
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** The registry has no such version yet, which can never be replaced, or exactly this one. */
function checkUnpublished({ name, file }) {
  const published = integrityOf(name);
  if (published instanceof Error) return [published.message];
  if (published === null || !existsSync(file)) return [];
  const isSame = published === `sha512-${createHash('sha512').update(readFileSync(file)).digest('base64')}`;
  return isSame ? [] : [`${name} ${version} was published already, and is another file`];
}

/** What the registry says of a package: the sum of its file, null if it has none, or an error. */
function integrityOf(name) {
  const done = spawnSync('npm', ['view', `${name}@${version}`, 'dist.integrity', '--json'], { encoding: 'utf8' });
  if (done.status === 0) return done.stdout.trim() === '' ? null : JSON.parse(done.stdout);
  if (/E404|404 Not Found/.test(done.stderr + done.stdout)) return null;
  return new Error(`the registry cannot be asked for ${name}: ${(done.stderr || done.stdout).trim().split('\n')[0]}`);
}

function publish({ name, file }) {
  // As it is after a run that failed in its middle: the same file, as was checked.
  if (integrityOf(name) !== null) {
    process.stdout.write(`${name} ${version} is public already\n`);
    return;
  }
  // A path, because `npm/x` would be a repository of that name to npm.
  const args = ['publish', '--ignore-scripts', '--access', 'public', ...(options.provenance ? ['--provenance'] : []), file];
  const done = spawnSync('npm', args, { encoding: 'utf8' });
  if (done.status === 0) {
    process.stdout.write(`published ${name} ${version}\n`);
    return;
  }
  const hint = 'what was published stays; when the cause is gone, run it again: it publishes what is missing';
  process.stderr.write(`${done.stderr}error: ${name} ${version} could not be published\nHINT: ${hint}\n`);
  process.exit(1);
}
