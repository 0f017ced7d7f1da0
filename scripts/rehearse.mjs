/**
 * `npm run release:rehearse`: publishes the packages of `out/` to a registry of this machine by the
 * script that the release workflow uses, installs from there, and shows that whatever is wrong
 * stops it before anything is public.
 *
 * Promise: nothing leaves this machine; nothing is left behind. The last line counts the cases.
 */

import { spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';

import { check, counts, sha256 } from './package/checks.mjs';
import { startRegistry } from './package/registry.mjs';
import { ROOT, temporaries } from './setup.mjs';

const OUT = join(ROOT, 'out');
const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'));
if (!existsSync(join(OUT, 'SHA256SUMS'))) {
  process.stderr.write('error: there is nothing to release\nHINT: run npm run package first\n');
  process.exit(2);
}
const scratch = mkdtempSync(join(temporaries(), 'asmt-rehearsal-'));
process.on('exit', () => rmSync(scratch, { recursive: true, force: true }));
const registry = await startRegistry(join(scratch, 'registry'));
const npmrc = join(scratch, 'npmrc');
writeFileSync(npmrc, registry.npmrc);
const env = { ...process.env, npm_config_userconfig: npmrc, npm_config_cache: join(scratch, 'cache') };

refused('a wrong tag', 'v9.9.9', () => {}, /the tag is v9\.9\.9, expected v/);
refused('no tag', undefined, () => {}, /the tag is missing/);
refused(
  'a platform that is missing',
  `v${version}`,
  (out) => remove(out, `npm/asmt-linux-arm64-musl-${version}.tgz`),
  /arm64-musl.* is missing/,
);
refused('a deb that is missing', `v${version}`, (out) => unlinkSync(join(out, first(out, 'deb'))), /deb\/.* is missing/);
refused(
  'a file that was changed',
  `v${version}`,
  (out) => writeFileSync(join(out, first(out, 'bin')), 'x', { flag: 'a' }),
  /its checksum differs/,
);
refused(
  'a platform with the addon of another one',
  `v${version}`,
  (out) => swapAddons(out),
  /the addon in .* is not for (x64|arm64)/,
);
refused(
  'a file that has no checksum',
  `v${version}`,
  (out) => writeFileSync(join(out, 'deb', 'x.deb'), 'x'),
  /x\.deb has no checksum/,
);
refused('a pre-release', 'v9.9.9-rc1', () => {}, /the tag is v9/);
refused('no checksums', `v${version}`, (out) => unlinkSync(join(out, 'SHA256SUMS')), /SHA256SUMS is missing/);
check('everything is published, the root package last', () => {
  const done = release(OUT, `v${version}`);
  if (done.status !== 0) throw new Error(done.stderr);
  const names = [...done.stdout.matchAll(/^published (\S+) /gm)].map(([, name]) => name);
  if (names.length !== 5 || names.at(-1) !== 'asmt') throw new Error(`published ${names.join()}`);
});
check('what was published is installed by its name', () => {
  const prefix = join(scratch, 'prefix');
  const done = spawnSync('npm', ['install', '-g', 'asmt', '--prefix', prefix], { env, encoding: 'utf8' });
  if (done.status !== 0) throw new Error(done.stderr);
  const shown = spawnSync(join(prefix, 'bin', 'asmt'), ['--version'], { encoding: 'utf8' }).stdout;
  if (!shown.startsWith(`asmt ${version}\n`) || !/^engine \S+-linux-gnu/m.test(shown)) throw new Error(shown);
});
check('a run that is repeated leaves out what is public', () => {
  const done = release(OUT, `v${version}`);
  if (done.status !== 0 || /^published /m.test(done.stdout) || !/^asmt \S+ is public already$/m.test(done.stdout)) {
    throw new Error(done.stdout + done.stderr);
  }
});
check('a version that exists already, and is another file, stops it', () => {
  const out = mkdtempSync(join(scratch, 'out-'));
  cpSync(OUT, out, { recursive: true });
  repacked(out);
  const done = release(out, `v${version}`);
  if (done.status !== 1 || !/asmt \S+ was published already, and is another file/.test(done.stderr)) throw new Error(done.stderr);
});
registry.stop();
process.stdout.write(`release rehearsal: ${counts.passed} passed, ${counts.failed} failed\n`);
process.exit(counts.failed > 0 ? 1 : 0);

/** Whatever `spoil` does to a copy must stop the release, and the registry must stay empty. */
function refused(name, tag, spoil, expected) {
  check(`${name} stops it before anything is public`, () => {
    const out = mkdtempSync(join(scratch, 'out-'));
    cpSync(OUT, out, { recursive: true });
    spoil(out);
    const done = release(out, tag);
    if (done.status !== 1 || !expected.test(done.stderr)) throw new Error(`status ${done.status}: ${done.stdout}${done.stderr}`);
    const storage = join(scratch, 'registry', 'storage');
    const there = existsSync(storage) ? readdirSync(storage).filter((found) => found.startsWith('asmt')) : [];
    if (there.length > 0) throw new Error(`published: ${there.join()}`);
    rmSync(out, { recursive: true });
  });
}

function release(out, tag) {
  const args = [join(ROOT, 'scripts', 'release.mjs'), '--out', out, ...(tag === undefined ? [] : ['--tag', tag])];
  return spawnSync(process.execPath, args, { env, encoding: 'utf8' });
}

function first(out, folder) {
  return join(folder, readdirSync(join(out, folder)).toSorted()[0]);
}

/** Removes a file, and its checksum: as if it had never been made. */
function remove(out, name) {
  unlinkSync(join(out, name));
  const sums = join(out, 'SHA256SUMS');
  writeFileSync(
    sums,
    readFileSync(sums, 'utf8')
      .split('\n')
      .filter((line) => !line.endsWith(`  ${name}`))
      .join('\n'),
  );
}

/** Puts the x64 addon into the package for arm64, with checksums that fit. */
function swapAddons(out) {
  const unpacked = mkdtempSync(join(scratch, 'swap-'));
  const of = (platform) => join(out, 'npm', `asmt-${platform}-${version}.tgz`);
  for (const platform of ['linux-x64-gnu', 'linux-arm64-gnu']) {
    mkdirSync(join(unpacked, platform));
    spawnSync('tar', ['-xzf', of(platform), '-C', join(unpacked, platform)]);
  }
  const addon = (platform, inside) => join(unpacked, platform, 'package', `asmt.${inside}.node`);
  cpSync(addon('linux-x64-gnu', 'linux-x64-gnu'), addon('linux-arm64-gnu', 'linux-arm64-gnu'));
  spawnSync('tar', ['-czf', of('linux-arm64-gnu'), '-C', join(unpacked, 'linux-arm64-gnu'), 'package']);
  sumAgain(out, `npm/asmt-linux-arm64-gnu-${version}.tgz`);
}

/** Makes the root package anew, with another README, and a checksum that fits. */
function repacked(out) {
  const file = join(out, 'npm', `asmt-${version}.tgz`);
  const directory = mkdtempSync(join(scratch, 'root-'));
  spawnSync('tar', ['-xzf', file, '-C', directory]);
  writeFileSync(join(directory, 'package', 'README.md'), 'another');
  spawnSync('tar', ['-czf', file, '-C', directory, 'package']);
  sumAgain(out, `npm/asmt-${version}.tgz`);
}

function sumAgain(out, name) {
  const sums = join(out, 'SHA256SUMS');
  const sum = sha256(join(out, name));
  writeFileSync(sums, readFileSync(sums, 'utf8').replace(new RegExp(`^.*  ${name}$`, 'm'), `${sum}  ${name}`));
}
