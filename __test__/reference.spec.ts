/** docs/REFERENCE.md agrees with the tables of options and exit statuses. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import test from 'ava';

import { EXIT_STATUSES } from '../src/errors.ts';
import { SPECS, VERBS, optionUsage } from '../src/options.ts';
import { ROOT, run, show } from './helpers.ts';

const TEXT = readFileSync(join(ROOT, 'docs', 'REFERENCE.md'), 'utf8');

/** The text of a section, by its heading. */
function section(heading: string): string {
  const [, after = ''] = TEXT.split(`\n${heading}\n`);
  return after.split(/^#{1,3} /m)[0] ?? '';
}

test('docs/REFERENCE.md is what npm run reference writes', async (t) => {
  const script = join(ROOT, 'scripts', 'reference.mjs');
  const done = await run(process.execPath, ['--import=@oxc-node/core/register', script, '--check']);
  t.is(done.status, 0, show(done));
});

test('each command has a section with each of its options', (t) => {
  for (const verb of VERBS) {
    const text = section(`### asmt ${verb}`);
    const rows = [...text.matchAll(/^\| `([^`]+)` \| /gm)].map(([, usage]) => usage);
    const expected = SPECS.filter(
      (spec) => spec.verbs.includes(verb) && spec.selectsVerb === undefined && spec.name !== 'version',
    );
    t.deepEqual(rows, expected.map(optionUsage));
  }
});

test('each option has an entry of its own', (t) => {
  const entries = [...section('## Options').matchAll(/^- `([^`]+)`: /gm)].map(([, usage]) => usage);
  t.deepEqual(entries, SPECS.map(optionUsage));
});

test('each exit status is explained', (t) => {
  const entries = [...section('## Exit status').matchAll(/^- \*\*(\d+)\*\*: /gm)].map(([, status]) => Number(status));
  const statuses = EXIT_STATUSES.map(({ status }) => status);
  t.deepEqual(entries, statuses);
});
