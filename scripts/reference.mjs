/**
 * `npm run reference`: writes everything that follows from the sources: the tables of
 * docs/REFERENCE.md, docs/JSON.md and docs/RELIABILITY.md, the JSON Schemas, the manual page and
 * the completions in `share/`. With `--check` it writes nothing, and fails if one is not current.
 *
 * Promise: what is written depends on the sources alone.
 */

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

import { bash, fish, zsh } from './reference/completions.mjs';
import { countsTable } from './reference/counts.ts';
import { manual } from './reference/manual.mjs';
import { jsonParts, referenceParts, withParts } from './reference/markdown.mjs';
import { SCHEMAS, schemaOf } from './reference/schema.mjs';
import { ROOT } from './setup.mjs';

const { version } = JSON.parse(read('package.json'));
const counts = JSON.parse(read('docs/runs/counts.json'));
const schemas = SCHEMAS.map(schemaOf);
const reference = withParts('docs/REFERENCE.md', read('docs/REFERENCE.md'), referenceParts());

const FILES = new Map([
  ['docs/REFERENCE.md', reference],
  ['docs/JSON.md', withParts('docs/JSON.md', read('docs/JSON.md'), jsonParts(schemas))],
  [
    'docs/RELIABILITY.md',
    withParts('docs/RELIABILITY.md', read('docs/RELIABILITY.md'), new Map([['counts', countsTable(counts)]])),
  ],
  ...SCHEMAS.map(({ file }, index) => [file, `${JSON.stringify(schemas[index], null, 2)}\n`]),
  ['share/asmt.8', manual(reference, version)],
  ['share/completions/asmt.bash', bash()],
  ['share/completions/_asmt', zsh()],
  ['share/completions/asmt.fish', fish()],
]);

const changed = [...FILES].filter(([file, text]) => read(file) !== text);
if (changed.length === 0) process.stderr.write('everything is current\n');
for (const [file, text] of changed) {
  if (process.argv.includes('--check')) {
    process.stderr.write(`error: ${file} is not current\nHINT: run npm run reference\n`);
    process.exitCode = 1;
  } else {
    mkdirSync(dirname(join(ROOT, file)), { recursive: true });
    writeFileSync(join(ROOT, file), text);
    process.stderr.write(`wrote ${file}\n`);
  }
}

/** The text of a file; empty if it is not there. */
function read(file) {
  try {
    return readFileSync(join(ROOT, file), 'utf8');
  } catch (error) {
    if (error.code === 'ENOENT') return '';
    throw error;
  }
}
