/**
 * Publishes the npm packages of `out/`: `node scripts/release.mjs --tag v1.2.3`. The release
 * workflow runs it, and `npm run release:rehearse` with a registry of this machine.
 *
 * Promise: everything is checked before anything is public: the tag, the checksums, that each
 * platform is there and holds an addon for it, and that the registry has none of these versions.
 * The root package comes last, so that whoever installs it finds the others. Must never: build or
 * change what it publishes.
 */

import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { isDeepStrictEqual, parseArgs } from 'node:util';

import { TARGETS } from './cross.mjs';
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
const problems = [...checkTag(), ...checkSums(), ...packages.flatMap(checkPackage), ...packages.flatMap(checkUnpublished)];
if (problems.length > 0) {
  for (const problem of problems) process.stderr.write(`error: ${problem}\n`);
  process.stderr.write('nothing was published\n');
  process.exit(1);
}
process.stdout.write(`checked: ${packages.length} packages of version ${version}\n`);
if (!options['check-only']) for (const found of packages) publish(found);

function checkTag() {
  return options.tag === `v${version}` ? [] : [`the tag is ${options.tag ?? 'missing'}, expected v${version}`];
}

/** Every file that ships is as it was when it was made and tested. */
function checkSums() {
  const path = join(out, 'SHA256SUMS');
  if (!existsSync(path)) return [`${path} is missing`];
  const lines = readFileSync(path, 'utf8').trim().split('\n');
  return lines.flatMap((line) => {
    const [sum, name] = [line.slice(0, 64), line.slice(66)];
    if (!existsSync(join(out, name))) return [`${name} is missing`];
    const found = createHash('sha256')
      .update(readFileSync(join(out, name)))
      .digest('hex');
    return found === sum ? [] : [`${name} is not the file that was made: its checksum differs`];
  });
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

/** The registry has no such version yet: it can never be replaced. */
function checkUnpublished({ name }) {
  const done = spawnSync('npm', ['view', `${name}@${version}`, 'version', '--json'], { encoding: 'utf8' });
  if (done.status === 0 && done.stdout.trim() !== '') return [`${name} ${version} was published already`];
  if (done.status !== 0 && !/E404|404 Not Found/.test(done.stderr + done.stdout)) {
    return [`the registry cannot be asked for ${name}: ${(done.stderr || done.stdout).trim().split('\n')[0]}`];
  }
  return [];
}

function publish({ name, file }) {
  // A path, because `npm/x` would be a repository of that name to npm.
  const args = ['publish', '--ignore-scripts', '--access', 'public', ...(options.provenance ? ['--provenance'] : []), file];
  const done = spawnSync('npm', args, { encoding: 'utf8' });
  if (done.status === 0) {
    process.stdout.write(`published ${name} ${version}\n`);
    return;
  }
  const hint = 'what was published stays; when the cause is gone, publish the packages that are missing, asmt last';
  process.stderr.write(`${done.stderr}error: ${name} ${version} could not be published\nHINT: ${hint}\n`);
  process.exit(1);
}
