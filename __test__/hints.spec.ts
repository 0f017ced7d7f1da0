// docs/HINTS.md goes through every code of the command line.

import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

import test from 'ava';

import { EXIT_STATUSES } from '../src/errors.ts';
import { ROOT } from './helpers.ts';

/** The sources of the front end, each with the codes that it makes: kind and code. */
function codes(): Map<string, string> {
  const directories = ['src', 'src/commands'].map((name) => join(ROOT, name));
  const files = directories.flatMap((path) => readdirSync(path).map((name) => join(path, name)));
  const made = /new AsmtError\(\s*'([a-z-]+)',\s*'([a-z-]+)'/g;
  const found = files
    .filter((path) => path.endsWith('.ts'))
    .flatMap((path) => [...readFileSync(path, 'utf8').matchAll(made)]);
  return new Map(found.map(([, kind = '', code = '']) => [code, kind]));
}

test('every code of the command line has a row in docs/HINTS.md, with its kind and exit status', (t) => {
  const text = readFileSync(join(ROOT, 'docs/HINTS.md'), 'utf8');
  const [, section = ''] = text.split('\n## Codes of the command line\n');
  const rows = new Map([...section.matchAll(/^\| `([a-z-]+)` \| ([^|]+) \|/gm)].map(([, code = '', kind = '']) => [code, kind]));
  const found = codes();
  t.true(found.size >= 7, [...found.keys()].join(', '));
  const status = (kind: string) => EXIT_STATUSES.find((entry) => entry.kind === kind)?.status;
  const expected = new Map([...found].map(([code, kind]) => [code, `${kind.replaceAll('-', ' ')}, ${status(kind)}`]));
  t.deepEqual(new Map([...rows].toSorted()), new Map([...expected].toSorted()));
});
