/**
 * The package that the reboots test: the deb of `out/` if it has the unit, else one that is put
 * together from the clone, with the same layout, and Node's own program instead of the single file.
 *
 * Must never: install anything outside the directory that is named.
 */

import { spawnSync } from 'node:child_process';
import { chmodSync, cpSync, existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { PACKAGE, UNIT_FILES } from '../package/linux.mjs';
import { ROOT } from '../setup.mjs';

const DEB_ARCH = { x64: 'amd64', arm64: 'arm64' }[process.arch];
const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'));

/**
 * Puts a package and a later one of the same files into a directory. Returns where they are, and
 * what they were made of.
 */
export function packages(directory) {
  mkdirSync(directory, { recursive: true });
  const files = join(directory, 'files');
  const shipped = join(ROOT, 'out', 'deb', `${PACKAGE}_${version}-1_${DEB_ARCH}.deb`);
  const isShipped = existsSync(shipped) && run('dpkg-deb', ['--contents', shipped]).includes(UNIT_FILES[0].dst);
  if (isShipped) run('dpkg-deb', ['--raw-extract', shipped, files]);
  else putTogether(files);
  const of = isShipped ? `the deb of out/` : 'a deb put together from dist/, native/ and share/, run by Node';
  const first = isShipped ? shipped : build(files, join(directory, 'first.deb'));
  // A later version: another unit, and other settings beside those that an operator has changed.
  const control = join(files, 'DEBIAN', 'control');
  writeFileSync(control, readFileSync(control, 'utf8').replace(/^Version: .*$/m, `Version: ${version}-2`));
  const unit = join(files, UNIT_FILES[0].dst);
  writeFileSync(unit, readFileSync(unit, 'utf8').replace('[Service]\n', '[Service]\nEnvironment=LATER=1\n'));
  return { of, first, later: build(files, join(directory, 'later.deb')) };
}

/** The files of the package, as `linux.mjs` lays them out. */
function putTogether(files) {
  const put = (from, to) => cpSync(from, join(files, to), { recursive: true });
  put(join(ROOT, 'dist'), 'usr/lib/asmt/dist');
  put(join(ROOT, 'native'), 'usr/lib/asmt/native');
  for (const { src, dst } of UNIT_FILES) put(join(ROOT, src), dst);
  const program = join(files, 'usr', 'bin', 'asmt');
  mkdirSync(join(program, '..'), { recursive: true });
  writeFileSync(program, `#!/bin/sh\nexec '${process.execPath}' /usr/lib/asmt/dist/main.js "$@"\n`);
  chmodSync(program, 0o755);
  mkdirSync(join(files, 'var', 'backups', 'asmt'), { recursive: true });
  chmodSync(join(files, 'var', 'backups', 'asmt'), 0o700);
  mkdirSync(join(files, 'DEBIAN'));
  const fields = { Package: PACKAGE, Version: `${version}-1`, Architecture: DEB_ARCH, Maintainer: 'test', Description: 'test' };
  const lines = Object.entries(fields).map(([name, value]) => `${name}: ${value}\n`);
  writeFileSync(join(files, 'DEBIAN', 'control'), lines.join(''));
  const settings = UNIT_FILES.filter(({ type }) => type?.startsWith('config')).map(({ dst }) => `${dst}\n`);
  writeFileSync(join(files, 'DEBIAN', 'conffiles'), settings.join(''));
}

function build(files, deb) {
  const sums = join(files, 'DEBIAN', 'md5sums');
  if (existsSync(sums)) rmSync(sums);
  const scripts = readdirSync(join(files, 'DEBIAN')).filter((name) => /^(pre|post)(inst|rm)$/.test(name));
  if (scripts.length > 0) throw new Error(`the package has scripts: ${scripts.join(', ')}`);
  run('dpkg-deb', ['--root-owner-group', '-Zgzip', '-z1', '--build', files, deb]);
  return deb;
}

function run(command, args) {
  const done = spawnSync(command, args, { encoding: 'utf8', maxBuffer: 2 ** 26 });
  if (done.status !== 0) throw new Error(`${command} ${args.join(' ')}: ${done.error?.message ?? done.stderr}`);
  return done.stdout;
}
