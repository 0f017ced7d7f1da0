/**
 * `npm test`: checks of the sources (scripts/lint.mjs), build, Rust tests, short loops and specs;
 * it also checks that every spec ran and that nothing is left. `-- --only lint`, `rust`, `loops` or
 * `specs` runs one of these parts alone.
 *
 * Promise: does the missing set-up by itself; its last line has the number of checks and tests that
 * passed, failed and were skipped. Without root it runs in a user namespace, and skips what only
 * root of the machine may do.
 */

import { spawn, spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

import { CHECKS } from './lint.mjs';
import { ROOT, attempt, build, install, temporaries, testEnvironment } from './setup.mjs';

const BIN = join(ROOT, 'node_modules', '.bin');
const IN_USER_NAMESPACE = 'ASMT_TEST_IN_USER_NAMESPACE';
/** Each part of the tests, in the order in which they run. */
const PARTS = {
  lint,
  rust: rustTests,
  loops: async () => {
    for (const script of ['power.mjs', 'faults.mjs', 'sequences.mjs', 'reboot.mjs']) await loop(script);
  },
  specs,
};
/** Parts that run what `build` makes. */
const BUILT = new Set(['loops', 'specs']);

const { values } = parseArgs({ options: { only: { type: 'string' } } });
if (values.only !== undefined && !Object.hasOwn(PARTS, values.only)) {
  process.stderr.write(`error: --only is '${values.only}', expected one of ${Object.keys(PARTS).join(', ')}\n`);
  process.stderr.write('HINT: npm test -- --only lint\n');
  process.exit(1);
}
const chosen = values.only === undefined ? Object.keys(PARTS) : [values.only];

install();
const needsRoot = chosen.some((part) => part !== 'lint');
if (needsRoot && process.getuid() !== 0 && !process.env[IN_USER_NAMESPACE]) {
  const own = [process.execPath, import.meta.filename, ...process.argv.slice(2)];
  const args = ['--user', '--map-root-user', '--ipc', ...own];
  const done = spawnSync('unshare', args, { stdio: 'inherit', env: { ...process.env, [IN_USER_NAMESPACE]: '1' } });
  if (done.error) process.stderr.write(`error: the tests need root, or user namespaces: ${done.error.message}\n`);
  process.exit(done.status ?? 1);
}

const totals = { passed: 0, failed: 0, skipped: 0 };
const scratch = mkdtempSync(join(temporaries(), 'asmt-tests-'));
// Tests run as other users, who must be able to pass.
chmodSync(scratch, 0o711);
process.on('exit', () => rmSync(scratch, { recursive: true, force: true }));
const env = { ...process.env, ...testEnvironment(scratch), FORCE_COLOR: '0' };
const before = leftovers();

let isBuilt = false;
for (const part of chosen) {
  if (BUILT.has(part) && !isBuilt) {
    build();
    isBuilt = true;
  }
  await PARTS[part]();
}
finding('nothing left over', difference(leftovers(), before));
end();

/** Runs all checks, so that one run shows every violation, and ends if there is one. */
function lint() {
  for (const { title, check, env: added } of CHECKS) {
    const isRight = typeof check === 'function' ? holds(title, check()) : attempt(title, check[0], check.slice(1), added);
    totals[isRight ? 'passed' : 'failed'] += 1;
  }
  if (totals.failed > 0) end();
}

/** Prints the violations, and returns true if there are none. */
function holds(title, texts) {
  process.stderr.write(`${title} … ${texts.length === 0 ? 'ok' : 'failed'}\n`);
  for (const text of texts) process.stderr.write(`  ${text}\n`);
  return texts.length === 0;
}

/** Ends with all findings, if there are any. */
function finding(title, texts) {
  if (holds(title, texts)) return;
  totals.failed += texts.length;
  end();
}

function end() {
  process.stdout.write(`${totals.passed} passed, ${totals.failed} failed, ${totals.skipped} skipped\n`);
  process.exit(totals.failed === 0 && totals.passed > 0 ? 0 : 1);
}

/** Runs a command and prints its output. Returns the output and the exit status. */
async function shown(command, args) {
  const child = spawn(command, args, { cwd: ROOT, env, stdio: ['ignore', 'pipe', 'inherit'] });
  let text = '';
  child.stdout.setEncoding('utf8');
  child.stdout.on('data', (data) => {
    text += data;
    process.stdout.write(data);
  });
  const status = await new Promise((done) => {
    child.on('close', done);
  });
  return { text, status };
}

async function rustTests() {
  const { text, status } = await shown('cargo', ['test', '--workspace', '--locked', '--quiet']);
  for (const [, passed, failed, ignored] of text.matchAll(/^test result: .*? (\d+) passed; (\d+) failed; (\d+) ignored/gm)) {
    totals.passed += Number(passed);
    totals.failed += Number(failed);
    totals.skipped += Number(ignored);
  }
  if (status !== 0) {
    totals.failed ||= 1;
    end();
  }
}

/** Counts the results of a run that prints TAP. Returns the titles. */
function counted(text) {
  const lines = [...text.matchAll(/^(not )?ok \d+ - (.*?)(?: # (SKIP|TODO).*)?$/gm)];
  for (const [, not, , directive] of lines) totals[directive ? 'skipped' : not ? 'failed' : 'passed'] += 1;
  return lines.map(([, , title]) => title);
}

/** Runs one of the loops of docs/RELIABILITY.md in its short form. Each of its lines is a test. */
async function loop(script) {
  const { text, status } = await shown(process.execPath, [join(ROOT, 'scripts', script), '--short']);
  const titles = counted(text);
  if (status === 0 && titles.length > 0) return;
  totals.failed ||= 1;
  end();
}

/**
 * Runs the specs with ava, and checks that each file ran: ava silently skips files that its glob
 * misses.
 */
async function specs() {
  const { text, status } = await shown(join(BIN, 'ava'), ['--tap']);
  const ran = new Map();
  for (const title of counted(text)) {
    const file = title.split(' › ')[0];
    ran.set(file, (ran.get(file) ?? 0) + 1);
  }
  if (status !== 0) {
    totals.failed ||= 1;
    end();
  }
  const files = readdirSync(join(ROOT, '__test__'), { recursive: true }).filter((name) => name.endsWith('.spec.ts'));
  finding(
    `every spec file ran (${files.length})`,
    files.filter((name) => !ran.has(name.replace(/\.spec\.ts$/, '').replaceAll('/', ' › '))).map((name) => `${name} did not run`),
  );
}

/**
 * Returns what tests have left behind: segments, mounts, loop devices, processes, and files of the
 * scratch directory.
 */
function leftovers() {
  const lines = (text, pattern) => text.split('\n').filter((line) => line.includes(pattern));
  const run = (command, args) => spawnSync(command, args, { encoding: 'utf8' }).stdout ?? '';
  const holds = (pid) => {
    try {
      return pid !== String(process.pid) && readFileSync(`/proc/${pid}/environ`, 'utf8').includes(scratch);
    } catch {
      return false;
    }
  };
  return [
    ...readFileSync('/proc/sysvipc/shm', 'utf8')
      .trim()
      .split('\n')
      .slice(1)
      .map((line) => `segment ${line.trim().split(/\s+/).slice(0, 4).join(' ')}`),
    ...lines(readFileSync('/proc/mounts', 'utf8'), scratch).map((line) => `mount ${line}`),
    ...lines(run('losetup', ['-a']), scratch).map((line) => `loop device ${line}`),
    ...readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name) && holds(name))
      .map((pid) => `process ${pid}`),
    ...readdirSync(scratch)
      .filter((name) => name.startsWith('asmt-test-'))
      .map((name) => `file ${name}`),
  ];
}

function difference(after, earlier) {
  return after.filter((text) => !earlier.includes(text)).map((text) => `left over: ${text}`);
}
