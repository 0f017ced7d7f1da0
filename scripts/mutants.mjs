/**
 * `npm run test:mutants`: changes the engine's plan, commit, format, store, segment and sets in
 * every way that cargo-mutants knows, one at a time, and shows which changes no test notices; `--
 * --file NAME` one of them, `--shard I/N` a part. In segment, which is all layout, each number is
 * changed, too, and only tests that use bytes of other programs count.
 *
 * Promise: installs cargo-mutants if it is missing; works on a copy, in an IPC namespace of its
 * own; each file is judged by its own tests and no others, for that takes seconds; ends by 1 if a
 * change is not noticed that `.cargo/mutants.toml` does not explain. Must never: say that all was
 * noticed when nothing was tried.
 */

import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

import { judgeNumbers } from './numbers.mjs';
import { ROOT, ipcNamespace, step, temporaries } from './setup.mjs';

/** What cargo test is told for each file: the quickest tests that hold all of it. */
const TESTS = {
  plan: ['--test', 'plan'],
  commit: ['--test', 'commit'],
  format: ['--lib', 'format::'],
  store: ['--test', 'store'],
  segment: ['--test', 'witness'],
  sets: ['--lib', 'layout::sets'],
};
/** Where a file is, if not beside the others. */
const FOLDERS = { sets: 'layout/' };
/** What cargo-mutants ends by if all was noticed, and if a test did not end. */
const [DONE, ENDLESS] = [0, 3];
/** Building takes most of the time: no optimisation, and no debug information. */
const QUICK = { CARGO_PROFILE_TEST_OPT_LEVEL: '0', CARGO_PROFILE_TEST_DEBUG: '0', CARGO_PROFILE_DEV_DEBUG: '0' };

/** Files whose numbers are facts about Aerospike. */
const LAYOUT = new Set(['segment']);

const { values } = parseArgs({ options: { file: { type: 'string' }, shard: { type: 'string' } } });
if (values.file !== undefined && !Object.hasOwn(TESTS, values.file)) {
  process.stderr.write(`error: --file is '${values.file}', expected one of ${Object.keys(TESTS).join(', ')}\n`);
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
for (const file of values.file === undefined ? Object.keys(TESTS) : [values.file]) {
  judge(file);
  const isLayout = LAYOUT.has(file);
  if (isLayout && !judgeNumbers({ file, tests: TESTS[file], scratch, shard: values.shard, env, prefix })) process.exitCode = 1;
}

function judge(file) {
  const output = join(scratch, file);
  const source = `crates/asmt-engine/src/${FOLDERS[file] ?? ''}${file}.rs`;
  const words = ['mutants', '--package', 'asmt-engine', '--file', source, '--output', output];
  words.push('--no-times', '--timeout', '120', '--build-timeout', '300', ...(values.shard ? ['--shard', values.shard] : []));
  const [program, ...before] = [...prefix, 'cargo'];
  const { status } = spawnSync(program, [...before, ...words, '--', ...TESTS[file]], {
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
  // A test that does not end has noticed it, too.
  const isRight = [DONE, ENDLESS].includes(status) && missed === 0 && caught > 0;
  if (!isRight) process.exitCode = 1;
  const counts = `${caught} noticed, ${endless} without end, ${unviable} that do not compile, ${missed} not noticed`;
  process.stdout.write(`${isRight ? 'ok' : 'not ok'} - mutants: ${file}: ${counts}\n`);
}
