/**
 * `npm run test:packages`: installs each artifact of `out/` the way its user would, and does real
 * work with it: npm's packages from a local registry, deb and rpm with dpkg and rpm, the single
 * file alone. What `npm run package` has not made is an error.
 *
 * A deb or an rpm is installed on this machine as it is, seen through an overlay that is thrown
 * away, with no Node in it. `-- --only npm|single|deb|rpm|lint|files` runs a part.
 *
 * Promise: the very files in `out/` are tested; nothing is left behind; the last line counts the
 * tests. Must never: install anything on the machine but Debian's rpm, lintian and rpmlint, where
 * apt is there and they are missing.
 */

import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

import { MOST_GLIBC, newerThan, symbolVersions } from './elf.mjs';
import { check, counts, sha256 } from './package/checks.mjs';
import { PACKAGE, UNIT_FILES } from './package/linux.mjs';
import { startRegistry } from './package/registry.mjs';
import { NFPM, installTools } from './package/tools.mjs';
import { ROOT, SIM, step, temporaries } from './setup.mjs';

const OUT = join(ROOT, 'out');
const WORK = join(ROOT, 'scripts', 'package', 'work.sh');
const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'));
const arch = process.arch;
const DEB_ARCH = { x64: 'amd64', arm64: 'arm64' }[arch];
const RPM_ARCH = { x64: 'x86_64', arm64: 'aarch64' }[arch];
const SINGLE = join(OUT, 'bin', `asmt-${version}-linux-${arch}`);
const DEB = join(OUT, 'deb', `${PACKAGE}_${version}-1_${DEB_ARCH}.deb`);
const RPM = join(OUT, 'rpm', `${PACKAGE}-${version}-1.${RPM_ARCH}.rpm`);
const [UNIT, , SETTINGS] = UNIT_FILES.map(({ dst }) => dst);

const { values: options } = parseArgs({ options: { only: { type: 'string' } } });
const scratch = mkdtempSync(join(temporaries(), 'asmt-packages-'));
process.on('exit', () => rmSync(scratch, { recursive: true, force: true }));

if (process.getuid() !== 0) fail('the tests of packages need root: they mount, and install with dpkg and rpm');
for (const path of [SINGLE, DEB, RPM]) if (!existsSync(path)) fail(`${path} is missing: run npm run package first`);
step('building the simulator (cargo, release)', 'cargo', ['build', '--release', '--locked', '--package', 'asmt-sim']);
installTools();
const parts = { files, npm: npmPackages, single, deb, rpm, lint };
for (const [name, part] of Object.entries(parts)) if (options.only === undefined || options.only === name) await part();
process.stdout.write(`packages: ${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped\n`);
process.exit(counts.failed > 0 ? 1 : 0);

/** Checksums, and what the linker of an old distribution must find. */
function files() {
  const sums = readFileSync(join(OUT, 'SHA256SUMS'), 'utf8').trim().split('\n');
  check('SHA256SUMS names every file, with its sum', () => {
    const listed = sums.map((line) => line.slice(66)).toSorted();
    const entries = readdirSync(OUT, { withFileTypes: true, recursive: true }).filter((entry) => entry.isFile());
    const there = entries
      .map((entry) => join(entry.parentPath, entry.name).slice(OUT.length + 1))
      .filter((name) => name !== 'SHA256SUMS');
    same(listed, there.toSorted());
    for (const line of sums) {
      same(sha256(join(OUT, line.slice(66))), line.slice(0, 64));
    }
  });
  check('the SBOM names Node, the crates and the packages', () => {
    const { components } = JSON.parse(readFileSync(join(OUT, `asmt-${version}.cdx.json`), 'utf8'));
    const names = new Set(components.map(({ name }) => name));
    for (const name of ['node', 'rustix', 'zlib-rs', 'clipanion', 'chalk'])
      if (!names.has(name)) throw new Error(`${name} is missing`);
    for (const name of ['ava', 'proptest', 'esbuild']) if (names.has(name)) throw new Error(`${name} does not ship`);
  });
  const unpacked = join(scratch, 'npm');
  for (const name of readdirSync(join(OUT, 'npm'))) {
    const directory = join(unpacked, name);
    mkdirSync(directory, { recursive: true });
    run('tar', ['-xzf', join(OUT, 'npm', name), '-C', directory]);
  }
  const debs = join(scratch, 'debs');
  mkdirSync(debs);
  for (const name of readdirSync(join(OUT, 'deb'))) run('dpkg-deb', ['-x', join(OUT, 'deb', name), join(debs, name)]);
  const singles = readdirSync(join(OUT, 'bin'))
    .filter((name) => !name.endsWith('.licenses'))
    .map((name) => join(OUT, 'bin', name));
  const binaries = [...singles, ...within(unpacked), ...within(debs)].filter(isElf);
  const notices = readFileSync(`${SINGLE}.licenses`, 'utf8');
  for (const path of binaries) {
    check(`${nameOf(path)} names no path of the machine that made it`, () => {
      const bytes = readFileSync(path);
      const places = [ROOT, join(homedir(), '.cargo'), join(homedir(), '.rustup')];
      for (const found of places) if (bytes.includes(`${found}/`)) throw new Error(found);
    });
    check(`${nameOf(path)} names its parts of Rust's standard library in the licences`, () => {
      const found = readFileSync(path, 'latin1').matchAll(/\/rust\/deps\/([a-z0-9_-]+?)-\d/g);
      for (const [, name] of found) if (!notices.includes(name)) throw new Error(`${name} has no licence text`);
    });
    check(`${nameOf(path)} needs no glibc newer than 2.28`, () => {
      same(newerThan(symbolVersions(path), MOST_GLIBC), []);
    });
  }
}

/** Its path without that of the place where it is. */
function nameOf(path) {
  return path.split(/(?:out|asmt-packages-[^/]*)\//).at(-1);
}

function isElf(path) {
  return readFileSync(path)
    .subarray(0, 4)
    .equals(Buffer.from([0x7f, 0x45, 0x4c, 0x46]));
}

function within(directory) {
  const entries = readdirSync(directory, { withFileTypes: true, recursive: true });
  return entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
}

/** `npm install -g` from a registry of this machine, with neither Rust nor the sources. */
async function npmPackages() {
  const registry = await startRegistry(join(scratch, 'registry'));
  try {
    const npmrc = join(scratch, 'npmrc');
    writeFileSync(npmrc, registry.npmrc);
    const env = {
      PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
      HOME: scratch,
      npm_config_userconfig: npmrc,
      npm_config_cache: join(scratch, 'cache'),
    };
    const paths = readdirSync(join(OUT, 'npm')).map((name) => join(OUT, 'npm', name));
    const root = join(OUT, 'npm', `asmt-${version}.tgz`);
    for (const path of [...paths.filter((other) => other !== root), root]) {
      check(`npm publish ${path.slice(OUT.length + 1)}`, () => run('npm', ['publish', '--ignore-scripts', path], { env }));
    }
    const prefix = join(scratch, 'prefix');
    check('npm install -g asmt: list, backups, verify and restores', () => {
      run('npm', ['install', '-g', 'asmt', '--prefix', prefix], { env });
      same(run('sh', ['-c', 'command -v cargo || true'], { env }).trim(), '');
      inNamespace(`. ${WORK}; work ${join(scratch, 'npm-work')} ${prefix}/bin/asmt`, { ...env, SIM });
    });
    check('without its optional package it says so, and what to do', () => {
      const bare = join(scratch, 'bare');
      run('npm', ['install', '-g', 'asmt', '--prefix', bare], { env });
      // As after --omit=optional, or a copy from another platform.
      rmSync(join(bare, 'lib', 'node_modules', 'asmt', 'node_modules'), { recursive: true });
      const done = spawnSync(`${bare}/bin/asmt`, ['list'], { env, encoding: 'utf8' });
      same(done.status, 1);
      match(
        done.stderr,
        new RegExp(`its package asmt-linux-${arch}-gnu is not installed\nHINT: run npm install -g asmt --include=optional`),
      );
    });
  } finally {
    registry.stop();
  }
}

/** The single file with an empty environment, and where nothing may be executed. */
function single() {
  const file = join(scratch, 'asmt');
  copyFileSync(SINGLE, file);
  chmodSync(file, 0o755);
  check('the single file with env -i and no Node on PATH: list, backups, verify and restores', () => {
    overlay(`. ${WORK}; work ${join(scratch, 'single-work')} env -i ${file}`);
  });
  check('the single file leaves no file behind', () =>
    same(
      readdirSync(scratch).filter((name) => name.endsWith('node')),
      [],
    ),
  );
  check('the single file runs where /tmp may not execute', () => {
    overlay(`mount -t tmpfs -o noexec tmpfs /tmp; env -i ${file} list`);
  });
  check('an error in the configuration of OpenSSL does not matter', () => {
    overlay(`echo garbage > /etc/ssl/openssl.cnf; ${file} list; OPENSSL_CONF=/etc/ssl/openssl.cnf ${file} list`);
  });
  const damages = {
    'cut off': 'truncate -s 3000000 $f',
    'zeros in its middle': 'dd if=/dev/zero of=$f bs=1024 seek=1000 count=400 conv=notrunc',
    'a FIFO': 'rm $f; mkfifo $f',
    "another user's": 'chown 65534 $f',
    'writable by others': 'chmod 666 $f',
  };
  for (const [what, damage] of Object.entries(damages)) {
    check(`an installed addon that is ${what} is not taken, and the one inside is`, () => {
      const text = overlay(`dpkg -i ${DEB} > /dev/null; f=/usr/lib/asmt/asmt.node; ${damage}; timeout -s KILL 60 asmt --version
        mount -t tmpfs -o noexec tmpfs /tmp; mount -t tmpfs -o noexec tmpfs /run; mount --bind /usr/bin /usr/bin; mount -o remount,bind,ro /usr/bin
        timeout -s KILL 60 asmt --version`);
      match(text, /^asmt .*\ncommit .*\nengine .*\nasmt .*\ncommit .*\nthe engine .* cannot be loaded: it cannot be unpacked/);
    });
  }
  check('where a file cannot be without a name, it has one for a moment', () => {
    const strace = 'strace -f -qq -o /dev/null -e trace=openat,open -e inject=openat,open:error=EOPNOTSUPP';
    overlay(`mkdir /tmp/place; ${strace} -P /tmp/place -P ${scratch} -P /run/asmt env ASMT_UNPACK_DIR=/tmp/place ${file} list
      test -z "$(ls -A /tmp/place)"`);
  });
  const nowhere = `mkdir -p /run/asmt; for d in /tmp /run/asmt; do mount -t tmpfs -o noexec tmpfs $d; done
    mount --bind ${scratch} ${scratch}; mount -o remount,bind,ro ${scratch}`;
  check('where it can be unpacked nowhere, it names the places and the way out', () => {
    const text = overlay(`${nowhere}; env -i ${file} list 2>&1 && exit 9; test $? = 1`);
    match(text, /it cannot be unpacked: .*failed to map segment from shared object\nHINT: install the deb or rpm/);
  });
  check('help and version do not depend on it', () => {
    match(overlay(`${nowhere}; env -i ${file} --version`), new RegExp(`^asmt ${version}\ncommit [0-9a-f]+\\+?\n`));
    match(overlay(`${nowhere}; env -i ${file} --help`), /^asmt copies/);
  });
}

function deb() {
  const older = stub('deb', PACKAGE, '0.0.9', 'ours 0.0.9');
  const theirs = stub('deb', 'asmt', '2.2.1', 'theirs');
  check('deb: installed over an older one, verified, used, removed: a backup stays', () => {
    overlay(`dpkg -i ${older} && asmt | grep -q 'ours 0.0.9' && dpkg -i ${DEB} && test -z "$(dpkg --verify ${PACKAGE})"
      test "$(stat -c '%a %U' /var/backups/asmt)" = '700 root'
      test -z "$(ls -A /var/backups/asmt)"
      ${texts('vendor-completions')}
      mount -t tmpfs -o noexec tmpfs /tmp
      . ${WORK}; work /var/backups/asmt asmt
      before=$(find /var/backups/asmt -type f -exec sha256sum {} +)
      dpkg -r ${PACKAGE}; dpkg -P ${PACKAGE}
      test ! -e /usr/bin/asmt; test ! -e /usr/lib/asmt; test ! -e /usr/share/doc/${PACKAGE}
      test "$(find /var/backups/asmt -type f -exec sha256sum {} +)" = "$before"`);
  });
  check('deb: an empty directory of backups goes with the package', () => {
    overlay(`dpkg -i ${DEB}; dpkg -P ${PACKAGE}; test ! -e /var/backups/asmt`);
  });
  check('deb: installed over that of Aerospike it takes its place', () => {
    overlay(`dpkg -i ${theirs} && asmt | grep -q theirs && dpkg -i --auto-deconfigure ${DEB} && asmt --version | grep -q 'asmt ${version}'
      if dpkg -s asmt 2> /dev/null | grep -q '^Status: .* installed'; then exit 9; fi; asmt list`);
  });
  check("deb: Aerospike's over ours is refused, and the command stays; after a removal it is theirs", () => {
    overlay(`dpkg -i ${DEB}; dpkg -i ${theirs} && exit 9; asmt --version | grep -q 'asmt ${version}'
      dpkg -r ${PACKAGE}; dpkg -i ${theirs}; asmt | grep -q theirs`);
  });
  check('deb: the unit is not enabled, changed settings stay until the package is purged', () => {
    overlay(`dpkg -i ${DEB}; test -e ${UNIT}; test -z "$(find /etc/systemd/system -name asmt.service)"
      echo ASMT_COMPRESS=1 >> ${SETTINGS}; dpkg -i ${DEB}; grep -q ^ASMT_COMPRESS ${SETTINGS}
      dpkg -r ${PACKAGE}; test ! -e ${UNIT}; test -e ${SETTINGS}; dpkg -P ${PACKAGE}; test ! -e ${SETTINGS}`);
  });
  check('deb: no script of a maintainer', () => {
    same(run('dpkg-deb', ['--ctrl-tarfile', DEB], { encoding: 'latin1' }).match(/\.\/(?:pre|post)(?:inst|rm)/g), null);
  });
}

function rpm() {
  if (!has('rpm')) return;
  const older = stub('rpm', PACKAGE, '0.0.9', 'ours 0.0.9');
  const theirs = stub('rpm', 'asmt-tools', '2.2.1', 'theirs');
  const system = stub('rpm', 'system', '1', 'system', { provides: ['glibc = 2.28', 'libgcc', 'libstdc++'], contents: [] });
  const begin = `rpm() { command rpm --dbpath /var/lib/rpm "$@"; }; rpm --initdb; rpm -i ${system}`;
  check('rpm: installed over an older one, verified, used, removed: a backup stays', () => {
    overlay(`${begin}; rpm -i ${older} && asmt | grep -q 'ours 0.0.9' && rpm -U ${RPM} && rpm -V ${PACKAGE}
      test "$(stat -c '%a %U' /var/backups/asmt)" = '700 root'
      ${texts('site-functions')}
      mount -t tmpfs -o noexec tmpfs /tmp
      . ${WORK}; work /var/backups/asmt asmt
      before=$(find /var/backups/asmt -type f -exec sha256sum {} +)
      rpm -e ${PACKAGE}
      test ! -e /usr/bin/asmt; test ! -e /usr/lib/asmt; test ! -e /usr/share/doc/${PACKAGE}
      test "$(find /var/backups/asmt -type f -exec sha256sum {} +)" = "$before"`);
  });
  check('rpm: an empty directory of backups goes with the package', () => {
    overlay(`${begin}; rpm -i ${RPM}; rpm -e ${PACKAGE}; test ! -e /var/backups/asmt`);
  });
  check('rpm: over that of Aerospike it is refused, and the command stays; after a removal it is ours', () => {
    overlay(`${begin}; rpm -i ${theirs} && asmt | grep -q theirs; rpm -U ${RPM} && exit 9; asmt | grep -q theirs
      rpm -e asmt-tools; rpm -i ${RPM}; asmt --version | grep -q 'asmt ${version}'`);
  });
  check("rpm: Aerospike's over ours is refused, and the command stays; after a removal it is theirs", () => {
    overlay(`${begin}; rpm -i ${RPM}; rpm -U ${theirs} && exit 9; asmt --version | grep -q 'asmt ${version}'
      rpm -e ${PACKAGE}; rpm -i ${theirs}; asmt | grep -q theirs`);
  });
  check('rpm: the unit is not enabled, changed settings stay', () => {
    same(run('rpm', ['-qp', '--queryformat', '[%{FILENAMES} %{FILEFLAGS:fflags}\n]', RPM]).includes(`${SETTINGS} cn\n`), true);
    overlay(`${begin}; rpm -i ${RPM}; test -e ${UNIT}; test -z "$(find /etc/systemd/system -name asmt.service)"
      echo ASMT_COMPRESS=1 >> ${SETTINGS}; rpm -U --replacepkgs ${RPM}; grep -q ^ASMT_COMPRESS ${SETTINGS}
      rpm -e ${PACKAGE}; test ! -e ${UNIT}; grep -q ^ASMT_COMPRESS ${SETTINGS}.rpmsave`);
  });
  check('rpm: no script of a package', () => same(run('rpm', ['-qp', '--scripts', '--triggers', RPM]).trim(), ''));
}

/** Checks the manual page, the completions and the schemas of an installed package. */
function texts(zsh) {
  return `zcat /usr/share/man/man8/asmt.8.gz | grep -q '^.TH ASMT 8 .*"asmt ${version}"'
      bash -c '. /usr/share/bash-completion/completions/asmt; complete -p asmt' | grep -q _asmt
      head -n 1 /usr/share/zsh/${zsh}/_asmt | grep -qx '#compdef asmt'
      grep -q '^complete -c asmt ' /usr/share/fish/vendor_completions.d/asmt.fish
      test -s /usr/share/asmt/asmt-output.schema.json; test -s /usr/share/asmt/asmt-progress.schema.json`;
}

/** What lintian and rpmlint find, without what `scripts/package/` explains. */
function lint() {
  if (has('lintian')) {
    check('lintian finds nothing that is not explained', () => {
      const done = spawnSync('lintian', ['--allow-root', '--fail-on', 'error,warning', '--tag-display-limit', '0', DEB], {
        encoding: 'utf8',
      });
      if (done.status !== 0) throw new Error(`${done.stdout}${done.stderr}`);
    });
  }
  if (has('rpmlint')) {
    check('rpmlint finds nothing that is not explained', () => {
      const config = join(ROOT, 'scripts', 'package', 'rpmlint.toml');
      const done = spawnSync('rpmlint', ['--config', config, RPM], { encoding: 'utf8' });
      if (done.status !== 0 || / [EW]: /.test(done.stdout)) throw new Error(`${done.stdout}${done.stderr}`);
    });
  }
}

/** A small package that stands for another one: its command prints a text. */
function stub(packager, name, found, text, more = {}) {
  const directory = join(scratch, `${packager}-${name}-${found}`);
  mkdirSync(directory);
  const program = join(directory, 'asmt');
  writeFileSync(program, `#!/bin/sh\necho '${text}'\n`);
  // Aerospike's removes its program by hand.
  const removal = join(directory, 'remove.sh');
  writeFileSync(removal, '#!/bin/sh\nrm -f /opt/aerospike/bin/asmt\n');
  const isOurs = name === PACKAGE;
  const contents = isOurs
    ? [
        { src: program, dst: '/usr/bin/asmt', file_info: { mode: 0o755 } },
        { dst: '/var/backups/asmt', type: 'dir', file_info: { mode: 0o700 } },
      ]
    : [
        { src: program, dst: '/opt/aerospike/bin/asmt', file_info: { mode: 0o755 } },
        { src: '/opt/aerospike/bin/asmt', dst: '/usr/bin/asmt', type: 'symlink' },
      ];
  const config = { name, version: found, arch: 'all', maintainer: 'test', description: text, contents, ...more };
  if (!isOurs && config.contents.length > 0) config.scripts = { preremove: removal };
  writeFileSync(join(directory, 'nfpm.yaml'), JSON.stringify(config));
  run(NFPM, ['package', '--config', join(directory, 'nfpm.yaml'), '--packager', packager, '--target', directory]);
  return join(
    directory,
    readdirSync(directory).find((file) => file.endsWith(`.${packager}`)),
  );
}

/** Runs a shell script in an IPC namespace of its own. Returns its output. */
function inNamespace(script, env) {
  return run('unshare', ['--ipc', 'bash', '--norc', '-euc', script], { env });
}

/**
 * Runs a shell script on this machine as it is, without Node: what it changes is thrown away, but
 * for what it backs up, which is on a disk.
 */
function overlay(script, env = {}) {
  const place = mkdtempSync(join(scratch, 'root-'));
  const backups = mkdtempSync(join(scratch, 'backups-'));
  const prepare = `mount -t tmpfs tmpfs ${place}; mkdir ${place}/up ${place}/work ${place}/root
    mount -t overlay overlay -o lowerdir=/,upperdir=${place}/up,workdir=${place}/work ${place}/root
    for d in proc sys dev ${scratch.slice(1)} ${ROOT.slice(1)}; do mkdir -p ${place}/root/$d; mount --rbind /$d ${place}/root/$d; done
    mkdir -p ${place}/root/var/backups; mount --bind ${backups} ${place}/root/var/backups
    for p in $(type -ap node asmt || true); do rm -f ${place}/root$p; done
    exec chroot ${place}/root bash --norc -euc "$SCRIPT"`;
  const path = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', SIM, LC_ALL: 'C.UTF-8', DEBIAN_FRONTEND: 'noninteractive' };
  return run('unshare', ['--ipc', '--mount', 'bash', '--norc', '-euc', prepare], {
    env: { ...path, ...env, SCRIPT: `${script}\n` },
  });
}

/** Whether a program is there; Debian's is installed if it is missing. */
function has(program) {
  const isThere = () => spawnSync('sh', ['-c', `command -v ${program}`]).status === 0;
  if (isThere()) return true;
  if (spawnSync('apt-get', ['--version']).status === 0) {
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
    spawnSync('apt-get', ['update', '-qq'], { env });
    spawnSync('apt-get', ['install', '-y', '-qq', '--no-install-recommends', program], { env });
  }
  if (isThere()) return true;
  counts.skipped += 1;
  process.stdout.write(`skip ${program} is not there, and cannot be installed\n`);
  return false;
}

function run(command, args, settings = {}) {
  const done = spawnSync(command, args, { encoding: 'utf8', maxBuffer: 2 ** 28, ...settings });
  if (done.status === 0) return done.stdout;
  throw new Error(
    `${[command, ...args].join(' ').slice(0, 300)} ended with ${done.status ?? done.signal}\n${done.stdout}${done.stderr}`,
  );
}

function same(found, expected) {
  const [a, b] = [JSON.stringify(found), JSON.stringify(expected)];
  if (a !== b) throw new Error(`found ${a}, expected ${b}`);
}

function match(text, pattern) {
  if (!pattern.test(text)) throw new Error(`${JSON.stringify(text)} does not match ${pattern}`);
}

function fail(message) {
  process.stderr.write(`error: ${message}\n`);
  process.exit(2);
}
