/**
 * The compilers for the four targets that ship: x64 and arm64, glibc and musl. It installs them
 * below `target/cross/`, builds the addon and the tools with them, and reads from a file which
 * versions of glibc it needs.
 *
 * zig links everything: it has the start-up files and libraries of both libcs, and those of glibc
 * 2.28. Where the Rust in use has the standard library of a target (`rustup target add`), it
 * compiles for it; otherwise Debian's `rustc-web` does, with the standard library that Debian has
 * for arm64 and with one that is built from Debian's sources for musl.
 *
 * Promise: nothing outside `target/cross/` and cargo's own caches changes; what is there is not
 * installed again; packages come from PyPI, crates.io and Debian alone, checked by pip, cargo and
 * apt. No path of the machine is in a file that ships, and no symbol version newer than glibc 2.28,
 * or there is no file. Must never: install anything on the machine.
 */

import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { homedir } from 'node:os';
import { basename, join } from 'node:path';

import { MOST_GLIBC, checkSymbolVersions } from './elf.mjs';
import { ROOT, attempt } from './setup.mjs';

export { checkSymbolVersions, symbolVersions } from './elf.mjs';

export const TARGETS = [
  { target: 'x86_64-unknown-linux-gnu', platform: 'linux-x64-gnu', arch: 'x64', libc: 'gnu' },
  { target: 'aarch64-unknown-linux-gnu', platform: 'linux-arm64-gnu', arch: 'arm64', libc: 'gnu' },
  { target: 'x86_64-unknown-linux-musl', platform: 'linux-x64-musl', arch: 'x64', libc: 'musl' },
  { target: 'aarch64-unknown-linux-musl', platform: 'linux-arm64-musl', arch: 'arm64', libc: 'musl' },
];

/** PyPI's package of zig, the compiler of C and linker. */
const ZIG = 'ziglang==0.14.1';
/** The release of Debian whose packages are known to fit together. */
const DEBIAN = { id: 'debian', codename: 'bookworm' };
/** Debian's Rust, with the libraries that it needs and that few machines have. */
const RUST_PACKAGES = [
  'rustc-web',
  'cargo-web',
  'libstd-rust-web-dev',
  'libgit2-1.5',
  'libhttp-parser2.9',
  'libmbedcrypto7',
  'libmbedx509-1',
  'libmbedtls14',
];
/** The libraries of Rust and LLVM: their packages have the version in their names. */
const RUST_LIBRARIES = /^(?:libstd-rust-web-|libllvm)\d[\d.]*$/;
const STD_ARM64 = 'libstd-rust-web-dev:arm64';
const STD_SOURCES = 'rust-web-src';
const EMULATOR = 'qemu-user-static';
/** What a program for arm64 and glibc wants to find, Node included. */
const LIBRARIES_ARM64 = ['libc6:arm64', 'libgcc-s1:arm64', 'libstdc++6:arm64'];
/** Where Debian and Ubuntu put those (`libc6-arm64-cross`), where they are installed. */
const INSTALLED_LIBRARIES_ARM64 = '/usr/aarch64-linux-gnu';

const CROSS = join(ROOT, 'target', 'cross');
const DEBIAN_HOST = join(CROSS, 'debian');
const DEBIAN_ARM64 = join(CROSS, 'debian-arm64');
const ZIG_PROGRAM = join(CROSS, 'zig', 'ziglang', 'zig');
const BUILD = join(CROSS, 'build');
const HOST_ARCH = process.arch;
const DEBIAN_ARCH = { x64: 'amd64', arm64: 'arm64' };
const HOST_LIBRARIES = join(DEBIAN_HOST, 'usr', 'lib', HOST_ARCH === 'x64' ? 'x86_64-linux-gnu' : 'aarch64-linux-gnu');

/** An error with a next step. */
export class CrossError extends Error {
  constructor(message, hint) {
    super(`${message}\nHINT: ${hint}`);
  }
}

function known(target) {
  const found = TARGETS.find((other) => other.target === target);
  if (found === undefined)
    throw new CrossError(`there is no target '${target}'`, TARGETS.map((other) => other.target).join(', '));
  return found;
}

/** Runs a step of the installation, quietly. */
function step(title, hint, command, args, env = {}) {
  if (!attempt(title, command, args, env)) throw new CrossError(`${title} failed`, hint);
}

/** What a program prints; null if it fails or is missing. */
function printed(command, args, env = {}) {
  const done = spawnSync(command, args, { encoding: 'utf8', env: { ...process.env, ...env }, maxBuffer: 2 ** 26 });
  return done.status === 0 ? done.stdout : null;
}

/** Returns true if the Rust in use has the standard library of the target. */
function hasStd(target) {
  const directory = printed('rustc', ['--print', 'target-libdir', '--target', target])?.trim();
  return (
    directory !== undefined && existsSync(directory) && readdirSync(directory).some((name) => /^libstd-.*\.rlib$/.test(name))
  );
}

/** Installs what the targets need and is missing: names of {@link TARGETS}, or its entries. */
export function prepare(targets) {
  const entries = targets.map((target) => known(target.target ?? target));
  mkdirSync(CROSS, { recursive: true });
  installZig();
  const others = entries.filter(({ target }) => !hasStd(target));
  if (others.length > 0) {
    const foreign = others.some(({ arch, libc }) => libc === 'gnu' && arch !== HOST_ARCH);
    const sources = others.some(({ libc }) => libc === 'musl');
    const hint = `rustup target add ${others.map(({ target }) => target).join(' ')}`;
    installDebian([
      { what: 'rust', root: DEBIAN_HOST, packages: RUST_PACKAGES, libraries: RUST_LIBRARIES, hint },
      ...(foreign ? [{ what: 'std-arm64', root: DEBIAN_HOST, packages: [STD_ARM64], hint }] : []),
      ...(sources ? [{ what: 'std-sources', root: DEBIAN_HOST, packages: [STD_SOURCES], hint }] : []),
    ]);
  }
  for (const entry of entries) writeLinker(entry);
}

/**
 * Returns the words before a program for arm64, empty on a machine that runs it itself. Installs
 * the emulator, and libraries that such programs want, if they are missing.
 */
export function emulator() {
  if (HOST_ARCH === 'arm64') return [];
  const installed = ['qemu-aarch64-static', 'qemu-aarch64'].find((name) => printed(name, ['--version']) !== null);
  if (installed !== undefined && existsSync(INSTALLED_LIBRARIES_ARM64)) return [installed, '-L', INSTALLED_LIBRARIES_ARM64];
  const hint = 'apt-get install qemu-user-static libc6-arm64-cross libgcc-s1-arm64-cross libstdc++6-arm64-cross';
  mkdirSync(CROSS, { recursive: true });
  installDebian([
    { what: 'emulator', root: DEBIAN_HOST, packages: [EMULATOR], hint },
    { what: 'libraries-arm64', root: DEBIAN_ARM64, packages: LIBRARIES_ARM64, hint },
  ]);
  return [join(DEBIAN_HOST, 'usr', 'bin', 'qemu-aarch64-static'), '-L', DEBIAN_ARM64];
}

function installZig() {
  const stamp = join(CROSS, 'zig', ZIG);
  if (existsSync(stamp)) return;
  const python = ['python3', 'python'].find((name) => printed(name, ['-m', 'pip', '--version']) !== null);
  const hint = 'install Python with pip (Debian: apt-get install python3-pip), and see whether PyPI can be reached';
  if (python === undefined) throw new CrossError('there is no Python with pip, by which zig is installed', hint);
  rmSync(join(CROSS, 'zig'), { recursive: true, force: true });
  const quiet = ['--quiet', '--no-deps', '--no-compile', '--disable-pip-version-check', '--root-user-action', 'ignore'];
  step(`installing zig (pip, ${ZIG})`, hint, python, ['-m', 'pip', 'install', ...quiet, '--target', join(CROSS, 'zig'), ZIG]);
  writeFileSync(stamp, '');
}

/** Unpacks the packages of each part that is missing, by an apt with directories of its own. */
function installDebian(parts) {
  const stampOf = ({ what, root }) => join(root, `.${what}`);
  const missing = parts.filter((part) => !existsSync(stampOf(part)));
  if (missing.length === 0) return;
  const { hint } = missing[0];
  const release = existsSync('/etc/os-release') ? readFileSync('/etc/os-release', 'utf8') : '';
  const value = (name) => new RegExp(`^${name}="?([^"\n]*)`, 'm').exec(release)?.[1];
  if (value('ID') !== DEBIAN.id || value('VERSION_CODENAME') !== DEBIAN.codename) {
    const what = missing.map((part) => part.what).join(', ');
    throw new CrossError(`${what}: can be installed by this script on Debian ${DEBIAN.codename} only`, hint);
  }
  const env = { APT_CONFIG: aptConfiguration() };
  step('looking up packages (apt-get)', hint, 'apt-get', ['--quiet=2', 'update'], env);
  for (const part of missing) {
    const { what, root, packages, libraries } = part;
    const all = libraries ? withLibraries(packages, libraries, env) : packages;
    const names = all.map((name) => (name.includes(':') ? name : `${name}:${DEBIAN_ARCH[HOST_ARCH]}`));
    const downloads = join(CROSS, 'apt', what);
    rmSync(downloads, { recursive: true, force: true });
    mkdirSync(downloads, { recursive: true });
    const fetch = ['-c', 'cd "$1" && shift && exec apt-get --quiet=2 download "$@"', 'sh', downloads, ...names];
    step(`downloading ${what} (apt-get)`, hint, 'sh', fetch, env);
    const unpack = ['-ec', 'root=$1; shift; for file do dpkg -x "$file" "$root"; done', 'sh', root];
    step(`unpacking ${what} (dpkg)`, hint, 'sh', [...unpack, ...readdirSync(downloads).map((file) => join(downloads, file))]);
    prune(root);
    writeFileSync(stampOf(part), `${readdirSync(downloads).join('\n')}\n`);
    rmSync(downloads, { recursive: true, force: true });
  }
}

/** Adds those packages that the others depend on, directly or not, and whose names match. */
function withLibraries(packages, libraries, env) {
  const all = new Set(packages);
  // What is added on the way is looked at, too.
  for (const name of all) {
    const text = printed('apt-cache', ['depends', name], env) ?? '';
    for (const [, other] of text.matchAll(/^\s*Depends: (\S+)$/gm)) if (libraries.test(other)) all.add(other);
  }
  return [...all];
}

/** Removes what nobody uses of the packages: emulators of other processors, and documents. */
function prune(root) {
  rmSync(join(root, 'usr', 'share'), { recursive: true, force: true });
  const programs = join(root, 'usr', 'bin');
  for (const name of existsSync(programs) ? readdirSync(programs) : []) {
    if (name.startsWith('qemu-') && name !== 'qemu-aarch64-static') rmSync(join(programs, name));
  }
}

/**
 * Writes the configuration of an apt that has its own lists and caches, knows both architectures,
 * and takes packages from those sources of the machine that are Debian's. Returns its path.
 */
function aptConfiguration() {
  const directory = join(CROSS, 'apt');
  const sources = join(directory, 'sources');
  for (const path of [sources, join(directory, 'lists', 'partial'), join(directory, 'cache', 'archives', 'partial')]) {
    mkdirSync(path, { recursive: true });
  }
  const parts = '/etc/apt/sources.list.d';
  const files = ['/etc/apt/sources.list', ...(existsSync(parts) ? readdirSync(parts).map((name) => join(parts, name)) : [])];
  for (const file of files) {
    const isDebian =
      existsSync(file) && /\.(?:list|sources)$/.test(file) && /\/debian(?:-security)?\b/.test(readFileSync(file, 'utf8'));
    if (isDebian) copyFileSync(file, join(sources, basename(file)));
  }
  const path = join(directory, 'apt.conf');
  const text = `APT::Architectures {"${DEBIAN_ARCH[HOST_ARCH]}";"arm64";};
APT::Sandbox::User "root";
Acquire::Languages "none";
Dir::State::lists "${join(directory, 'lists')}";
Dir::Cache "${join(directory, 'cache')}";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "${sources}";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
`;
  writeFileSync(path, text);
  return path;
}

const zigTarget = ({ arch, libc }) =>
  `${arch === 'x64' ? 'x86_64' : 'aarch64'}-linux-${libc === 'gnu' ? `gnu.${MOST_GLIBC.join('.')}` : 'musl'}`;
const linkerOf = (target) => join(CROSS, 'bin', `cc-${target}`);
const ARCHIVER = join(CROSS, 'bin', 'ar');

/**
 * Writes the program that cargo calls as linker and compiler of C. The crate `cc` names the target
 * as LLVM does, which zig does not know.
 */
function writeLinker(entry) {
  const script = (command) => `#!/bin/sh\nexport ZIG_GLOBAL_CACHE_DIR='${join(CROSS, 'zig-cache')}'\n${command}\n`;
  const drop = 'for word do\n  shift\n  case $word in --target=*) ;; *) set -- "$@" "$word" ;; esac\ndone';
  const compile = script(`${drop}\nexec '${ZIG_PROGRAM}' cc -target ${zigTarget(entry)} "$@"`);
  const archive = script(`exec '${ZIG_PROGRAM}' ar "$@"`);
  mkdirSync(join(CROSS, 'bin'), { recursive: true });
  for (const [path, text] of [
    [linkerOf(entry.target), compile],
    [ARCHIVER, archive],
  ]) {
    if (existsSync(path) && readFileSync(path, 'utf8') === text) continue;
    writeFileSync(`${path}.new`, text);
    chmodSync(`${path}.new`, 0o755);
    renameSync(`${path}.new`, path);
  }
}

/** Where cargo keeps the sources of crates. */
const cargoHome = () => process.env.CARGO_HOME ?? join(homedir(), '.cargo');

/**
 * Returns how cargo is run for a target: the command, the words before its verb, and what its
 * environment has beyond this one's. The target is chosen by the environment.
 */
export function cargo(target) {
  const { libc } = known(target);
  const name = target.replaceAll('-', '_');
  const isInstalled = hasStd(target);
  const isBuilt = !isInstalled && libc === 'musl';
  const paths = [
    [cargoHome(), '/cargo'],
    [ROOT, '/asmt'],
    [BUILD, '/build'],
    [join(DEBIAN_HOST, 'usr', 'src'), '/rust'],
  ];
  const flags = [
    ...paths.map(([from, to]) => `--remap-path-prefix=${from}=${to}`),
    // musl's start-up files and libraries are zig's, too.
    ...(libc === 'musl' ? ['-Clink-self-contained=no', '-Ctarget-feature=-crt-static'] : []),
  ];
  const env = {
    CARGO_BUILD_TARGET: target,
    CARGO_TARGET_DIR: BUILD,
    CARGO_ENCODED_RUSTFLAGS: flags.join('\u001f'),
    CARGO_PROFILE_RELEASE_STRIP: 'symbols',
    [`CARGO_TARGET_${name.toUpperCase()}_LINKER`]: linkerOf(target),
    [`CC_${name}`]: linkerOf(target),
    [`AR_${name}`]: ARCHIVER,
  };
  if (isInstalled) return { command: 'cargo', args: [], env };
  const programs = join(DEBIAN_HOST, 'usr', 'bin');
  return {
    command: join(programs, 'cargo'),
    args: isBuilt ? ['-Zbuild-std=std,panic_unwind,test'] : [],
    env: {
      ...env,
      ...(isBuilt && { RUSTC_BOOTSTRAP: '1' }),
      RUSTC: join(programs, 'rustc'),
      PATH: `${programs}:${process.env.PATH}`,
      LD_LIBRARY_PATH: HOST_LIBRARIES,
    },
  };
}

/** Builds a package for the target in release. */
function build(target, name) {
  const { command, args, env } = cargo(target);
  const hint = 'npm run lint says whether it compiles for this machine; remove target/cross to install the compilers again';
  const words = [...args, 'build', '--release', '--locked', '--package', name];
  step(`building ${name} for ${target} (cargo, release)`, hint, command, words, env);
  return join(BUILD, target, 'release');
}

/** Returns a file that can ship: put where it is kept, and checked. */
function kept(source, ...place) {
  const path = join(CROSS, ...place);
  mkdirSync(join(path, '..'), { recursive: true });
  const bytes = readFileSync(source);
  const hint = 'see the flags and the linker in scripts/cross.mjs';
  for (const prefix of [ROOT, cargoHome()]) {
    if (bytes.includes(`${prefix}/`)) throw new CrossError(`${source} has a path of this machine in it: ${prefix}`, hint);
  }
  checkSymbolVersions(source);
  copyFileSync(source, `${path}.new`);
  renameSync(`${path}.new`, path);
  return path;
}

/** Builds the addon for the target, stripped. Returns its path: a file `asmt.<platform>.node`. */
export function addon(target) {
  const { platform } = known(target);
  return kept(join(build(target, 'asmt-napi'), 'libasmt_napi.so'), 'addons', `asmt.${platform}.node`);
}

/** Builds a tool for the target, stripped. Returns its path. */
export function tool(target, name) {
  return kept(join(build(target, name), name), 'tools', target, name);
}
