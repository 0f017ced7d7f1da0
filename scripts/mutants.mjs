/**
 * `npm run test:mutants`: changes the parts of the engine that plan, commit, format and store a
 * backup and that read Aerospike's segments and sets in every way that cargo-mutants knows, one at
 * a time, and shows the changes that no test notices; with `-- --file NAME` only one part, with
 * `--shard I/N` a share of it. In the part "segment", which is all layout, each number is changed,
 * too, and only tests that use bytes of other programs count.
 *
 * Promise: installs cargo-mutants if it is missing; works on a copy, in an IPC namespace of its
 * own; judges each file only by its own tests, which takes seconds; ends with status 1 if there is
 * an unnoticed change that `.cargo/mutants.toml` does not explain. Must never: report success if
 * nothing was tried.
 */

import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

import { judgeNumbers } from './numbers.mjs';
import { ROOT, ipcNamespace, step, temporaries } from './setup.mjs';

const ENGINE = 'crates/asmt-engine/src';
const filesIn = (folder, names) => names.map((name) => `${folder}/${name}.rs`);
/**
 * The files of each part, and the arguments of cargo test: the quickest tests that cover all of it.
 * They are the engine's tests, also for files of other crates.
 */
const PARTS = {
  plan: {
    files: filesIn(`${ENGINE}/plan`, ['at_work', 'backup', 'checks', 'group', 'mod', 'restore', 'room', 'titles', 'verify']),
    tests: ['--test', 'plan'],
  },
  commit: { files: filesIn(`${ENGINE}/work`, ['commit']), tests: ['--test', 'commit'] },
  format: {
    files: filesIn(`${ENGINE}/format`, ['chunks', 'frame', 'journal', 'manifest', 'mark', 'names', 'run_id', 'time']),
    tests: ['--lib', 'format::'],
  },
  store: {
    files: filesIn(`${ENGINE}/store`, ['direct', 'entries', 'input', 'leftovers', 'listing', 'mod', 'output', 'place']),
    tests: ['--test', 'store'],
  },
  segment: { files: filesIn('crates/asmt-shm/src', ['key', 'header']), tests: ['--test', 'witness'] },
  sets: { files: filesIn(`${ENGINE}/layout`, ['sets']), tests: ['--lib', 'layout::sets'] },
};
/** The exit statuses of cargo-mutants if all was noticed, and if a test did not end. */
const [DONE, ENDLESS] = [0, 3];
/** Building takes most of the time, so it is done without optimisation and debug information. */
const QUICK = { CARGO_PROFILE_TEST_OPT_LEVEL: '0', CARGO_PROFILE_TEST_DEBUG: '0', CARGO_PROFILE_DEV_DEBUG: '0' };

/** Parts whose numbers are facts about Aerospike. */
const LAYOUT = new Set(['segment']);

const { values } = parseArgs({ options: { file: { type: 'string' }, shard: { type: 'string' } } });
if (values.file !== undefined && !Object.hasOwn(PARTS, values.file)) {
  process.stderr.write(`error: --file is '${values.file}', expected one of ${Object.keys(PARTS).join(', ')}\n`);
  process.stderr.write('HINT: npm run test:mutants -- --file plan\n');
  process.exit(1);
}
if (spawnSync('cargo', ['mutants', '--version']).status !== 0) {
  step('installing cargo-mutants (cargo)', 'cargo', ['install', 'cargo-mutants', '--locked']);
}
const scratch = mkdtempSync(join(temporaries(), 'asmt-mutants-'));
process.on('exit', () => rmSync(scratch, { recursive: true, force: true }));
const env = { ...process.env, ...QUICK, TMPDIR: scratch, ASMT_RUNTIME_DIR: scratch, ASMT_CONFIG: join(scratch, 'none.conf') };
const prefix = ipcNamespace() ?? [];
for (const part of values.file === undefined ? Object.keys(PARTS) : [values.file]) {
  judge(part, PARTS[part]);
  if (!LAYOUT.has(part)) continue;
  const { files, tests } = PARTS[part];
  if (!judgeNumbers({ files, tests, scratch, shard: values.shard, env, prefix })) process.exitCode = 1;
}

function judge(part, { files, tests }) {
  const output = join(scratch, part);
  const sources = files.flatMap((file) => ['--file', file]);
  const words = ['mutants', '--test-package', 'asmt-engine', ...sources, '--output', output];
  words.push('--no-times', '--timeout', '120', '--build-timeout', '300', ...(values.shard ? ['--shard', values.shard] : []));
  const [program, ...before] = [...prefix, 'cargo'];
  const { status } = spawnSync(program, [...before, ...words, '--', ...tests], {
    cwd: ROOT,
    stdio: 'inherit',
    env,
  });
  const count = (outcome) => {
    try {
      return readFileSync(join(output, 'mutants.out', `${outcome}.txt`), 'utf8')
        .trim()
        .split('\n')
        .filter(Boolean).length;
    } catch {
      return 0;
    }
  };
  const [caught, missed, endless, unviable] = ['caught', 'missed', 'timeout', 'unviable'].map(count);
  // A test that does not end has noticed the change, too.
  const isRight = [DONE, ENDLESS].includes(status) && missed === 0 && caught > 0;
  if (!isRight) process.exitCode = 1;
  const counts = `${caught} noticed, ${endless} without end, ${unviable} that do not compile, ${missed} not noticed`;
  process.stdout.write(`${isRight ? 'ok' : 'not ok'} - mutants: ${part}: ${counts}\n`);
}
