/**
 * `npm run package`: everything that ships, into `out/`: the npm packages, a single file for each
 * architecture that needs no Node, deb and rpm, a list of what is inside (SBOM) and checksums.
 *
 * `-- --targets x86_64-unknown-linux-gnu,…` makes a part of it: the packages of those targets.
 * `-- --addons DIR` takes the addons from there instead of building them (`asmt.<platform>.node`).
 *
 * Promise: what is made from one commit is the same each time, byte for byte; no time, user or path
 * of the machine is in it. A file is in `out/` only if all of them were made. Must never: publish,
 * or change a file of the clone outside `out/`, `target/`, `dist/`, `native/` and `node_modules/`.
 */

import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { basename, join, relative } from 'node:path';
import { parseArgs } from 'node:util';

import { TARGETS, addon, prepare } from './cross.mjs';
import { checkSymbolVersions } from './elf.mjs';
import { sha256 } from './package/checks.mjs';
import { bundled, crates, licences, node, sbom, standardLibrary } from './package/components.mjs';
import { debAndRpm } from './package/linux.mjs';
import { NFPM, TOOLS, installTools } from './package/tools.mjs';
import { ROOT, install, step } from './setup.mjs';

const OUT = join(ROOT, 'out');
const WORK = join(ROOT, 'target', 'package');
/** Node's mark in its own binary, behind which the single file's contents are found. */
const FUSE = 'NODE_SEA_FUSE_fce680ab2cc467b6e072b8b5df1996b2';

const { values: options } = parseArgs({ options: { targets: { type: 'string' }, addons: { type: 'string' } } });
const targets = TARGETS.filter(({ target }) => options.targets === undefined || options.targets.split(',').includes(target));
if (targets.length === 0) fail(`no such target: ${options.targets}`, TARGETS.map(({ target }) => target).join(', '));

const manifest = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'));
const { version } = manifest;
install();
step('building the command line (tsc, esbuild)', 'npm', ['run', '--silent', 'build:ts']);
const commit = git('rev-parse', 'HEAD') ?? 'unknown';
/** The time of all files: that of the commit. */
const seconds = Number(process.env.SOURCE_DATE_EPOCH ?? git('log', '-1', '--format=%ct') ?? 0);
installTools();

const addons = new Map();
if (options.addons === undefined) prepare(targets.map(({ target }) => target));
for (const { target, platform } of targets) {
  const file = options.addons === undefined ? addon(target) : join(options.addons, `asmt.${platform}.node`);
  if (!existsSync(file)) fail(`${file} is missing`, 'name a directory that has the addons of all targets');
  checkSymbolVersions(file);
  addons.set(platform, file);
}
const stage = fresh(join(WORK, 'out'));
npmPackages();
const singles = targets.filter(({ libc }) => libc === 'gnu').map(singleFile);
for (const single of singles) debAndRpm(single, { version, seconds, work: WORK, stage, nfpm: NFPM });
describe();
rmSync(OUT, { recursive: true, force: true });
renameSync(stage, OUT);
report();

/** The root package, and one for each target, put together by napi's own tool. */
function npmPackages() {
  const root = fresh(join(WORK, 'npm'));
  const files = ['package.json', 'README.md', 'LICENSE', 'dist', 'native/index.cjs', 'native/index.d.ts', 'share'];
  if (!existsSync(join(ROOT, 'native', 'index.cjs'))) {
    step('making the loader of the addon (napi)', 'npm', ['run', '--silent', 'build:native']);
  }
  for (const file of files) cpSync(join(ROOT, file), join(root, file), { recursive: true });
  rmSync(join(root, 'dist', 'main.js.map'), { force: true });
  // Scripts and tools of the clone mean nothing in a package.
  const { scripts: _scripts, devDependencies: _tools, ava: _ava, ...shipped } = manifest;
  shipped.napi = { ...manifest.napi, targets: targets.map(({ target }) => target) };
  // npm publishes by trust only what names the repository that publishes it.
  const { GITHUB_SERVER_URL: server, GITHUB_REPOSITORY: repository } = process.env;
  if (server && repository) shipped.repository = { type: 'git', url: `git+${server}/${repository}.git` };
  write(join(root, 'package.json'), `${JSON.stringify(shipped, null, 2)}\n`);
  mkdirSync(join(root, 'addons'));
  for (const [platform, file] of addons) copyFileSync(file, join(root, 'addons', `asmt.${platform}.node`));
  const napi = (...args) =>
    step(`npm packages (napi ${args[0]})`, join(ROOT, 'node_modules', '.bin', 'napi'), [...args, '--cwd', root]);
  napi('create-npm-dirs', '--npm-dir', 'npm');
  napi('artifacts', '--output-dir', 'addons', '--npm-dir', 'npm');
  napi('pre-publish', '--npm-dir', 'npm', '--tag-style', 'npm', '--no-gh-release', '--skip-optional-publish');
  mkdirSync(join(stage, 'npm'));
  const platforms = readdirSync(join(root, 'npm')).map((platform) => join(root, 'npm', platform));
  for (const directory of platforms) {
    const { target } = targets.find(({ platform }) => platform === basename(directory));
    const linked = [...crates(target), standardLibrary()];
    write(join(directory, 'THIRD_PARTY_LICENSES'), licences(linked));
    copyFileSync(join(ROOT, 'LICENSE'), join(directory, 'LICENSE'));
    const own = JSON.parse(readFileSync(join(directory, 'package.json'), 'utf8'));
    write(
      join(directory, 'package.json'),
      `${JSON.stringify({ ...own, files: [...own.files, 'THIRD_PARTY_LICENSES'] }, null, 2)}\n`,
    );
  }
  for (const directory of [root, ...platforms]) {
    const pack = ['pack', '--ignore-scripts', '--pack-destination', join(stage, 'npm')];
    step(`npm pack ${relative(root, directory) || '.'}`, 'npm', ['--prefix', directory, ...pack, directory]);
  }
}

/** Node with the command line and the addon inside: one file, which needs nothing but glibc. */
function singleFile({ target, platform, arch }) {
  const work = fresh(join(WORK, `single-${arch}`));
  const runtime = join(TOOLS, 'node_modules', `node-linux-${arch}`);
  // The program that makes the blob must be of the version that reads it; the blob fits any CPU.
  const maker = join(TOOLS, 'node_modules', `node-linux-${process.arch}`, 'bin', 'node');
  copyFileSync(addons.get(platform), join(work, 'asmt.node'));
  copyFileSync(join(ROOT, 'dist', 'main.js'), join(work, 'main.js'));
  // Relative, because the name of the main file is kept inside.
  const config = {
    main: 'main.js',
    output: 'asmt.blob',
    disableExperimentalSEAWarning: true,
    useCodeCache: false,
    useSnapshot: false,
    // NODE_OPTIONS is about other programs, and so is the system's configuration of OpenSSL, an
    // error in which would end this one.
    execArgvExtension: 'none',
    execArgv: ['--openssl-config=/dev/null'],
    assets: { 'asmt.node': 'asmt.node' },
  };
  write(join(work, 'sea.json'), JSON.stringify(config));
  step(`single file for ${arch}: contents (node)`, maker, ['--experimental-sea-config', 'sea.json'], {}, work);
  const file = join(work, 'asmt');
  copyFileSync(join(runtime, 'bin', 'node'), file);
  // Symbols are a fifth of Node. They must go before anything is put in.
  if (arch === process.arch) step(`single file for ${arch}: symbols (strip)`, 'strip', [file]);
  const inject = [file, 'NODE_SEA_BLOB', join(work, config.output), '--sentinel-fuse', FUSE];
  step(`single file for ${arch}: injection (postject)`, join(TOOLS, 'node_modules', '.bin', 'postject'), inject);
  chmodSync(file, 0o755);
  checkSymbolVersions(file);
  mkdirSync(join(stage, 'bin'), { recursive: true });
  copyFileSync(file, join(stage, 'bin', `asmt-${version}-linux-${arch}`));
  const components = [node(runtime), ...crates(target), standardLibrary(), ...bundled()];
  const notices = join(work, 'THIRD_PARTY_LICENSES');
  write(notices, licences(components));
  copyFileSync(notices, join(stage, 'bin', `asmt-${version}-linux-${arch}.licenses`));
  return { arch, file, addon: addons.get(platform), notices, components };
}

/** The SBOM of everything, and the checksums. */
function describe() {
  const linked = [...targets.flatMap(({ target }) => crates(target)), standardLibrary()];
  const all = new Map(linked.map((part) => [part.purl, part]));
  for (const { components } of singles) for (const part of components) all.set(part.purl, part);
  for (const part of bundled()) all.set(part.purl, part);
  const parts = [...all.values()].toSorted((a, b) => (a.purl < b.purl ? -1 : 1));
  write(join(stage, `asmt-${version}.cdx.json`), `${JSON.stringify(sbom({ version, commit }, parts), null, 2)}\n`);
  const sums = files(stage).map((path) => `${sha256(path)}  ${relative(stage, path)}\n`);
  write(join(stage, 'SHA256SUMS'), sums.join(''));
}

function report() {
  for (const path of files(OUT)) {
    process.stdout.write(`${(statSync(path).size / 2 ** 20).toFixed(2).padStart(8)} MiB  ${relative(ROOT, path)}\n`);
  }
}

function files(directory) {
  const entries = readdirSync(directory, { withFileTypes: true, recursive: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .toSorted();
}

function write(path, text) {
  writeFileSync(path, text);
}

function fresh(directory) {
  rmSync(directory, { recursive: true, force: true });
  mkdirSync(directory, { recursive: true });
  return directory;
}

function git(...args) {
  const done = spawnSync('git', args, { cwd: ROOT, encoding: 'utf8' });
  return done.status === 0 ? done.stdout.trim() : null;
}

function fail(message, hint) {
  process.stderr.write(`error: ${message}\nHINT: ${hint}\n`);
  process.exit(1);
}
