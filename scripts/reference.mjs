/**
 * `npm run reference`: writes the parts of docs/REFERENCE.md that follow from the sources: the
 * usage and the options of each command, and the exit statuses. Each part stands between two
 * comments; the text around it is written by hand. With `--check` it writes nothing, and fails if
 * the file is not current.
 *
 * Promise: every command has its part, exactly once. Must never: change a line outside the parts.
 */

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { EXIT_STATUSES } from '../src/errors.ts';
import { OPERANDS, SPECS, VERBS, VERB_HELP, optionUsage } from '../src/options.ts';
import { ROOT } from './setup.mjs';

const FILE = 'docs/REFERENCE.md';
/** Longest line of a usage. */
const WIDTH = 100;

/** Options that are commands or that answer by themselves: no usage line has them. */
const APART = new Set(['backup', 'restore', 'help', 'version']);

const PARTS = new Map([
  ['commands', table(['command', 'purpose'], commandRows())],
  ...VERBS.map((verb) => [verb, ofVerb(verb)]),
  ['asmt', ofAsmtForm()],
  ['exit-status', table(['status', 'kind', 'meaning'], statusRows())],
]);

const path = join(ROOT, FILE);
const before = readFileSync(path, 'utf8');
const after = withParts(before);
if (before === after) {
  process.stderr.write(`${FILE} is current\n`);
} else if (process.argv.includes('--check')) {
  process.stderr.write(`error: ${FILE} is not current\nHINT: run npm run reference\n`);
  process.exitCode = 1;
} else {
  writeFileSync(path, after);
  process.stderr.write(`wrote ${FILE}\n`);
}

/**
 * Returns the text with each part in its place. Throws if a part is missing, unknown or there
 * twice.
 */
function withParts(text) {
  const missing = new Set(PARTS.keys());
  const done = text.replace(/^(<!-- begin: ([a-z-]+) .*-->\n)[\s\S]*?^(<!-- end -->)$/gm, (_, begin, name, end) => {
    if (!missing.delete(name)) throw new Error(`${FILE}: the part "${name}" is unknown, or is there twice`);
    return `${begin}\n${PARTS.get(name)}\n${end}`;
  });
  if (missing.size > 0) throw new Error(`${FILE}: these parts are missing: ${[...missing].join(', ')}`);
  return done;
}

function table(head, rows) {
  const line = (cells) => `| ${cells.map((cell) => cell.replaceAll('|', String.raw`\|`)).join(' | ')} |\n`;
  return `${line(head)}|${'---|'.repeat(head.length)}\n${rows.map(line).join('')}`;
}

function commandRows() {
  return VERBS.map((verb) => [`[\`asmt ${verb}\`](#asmt-${verb})`, VERB_HELP[verb]]);
}

function statusRows() {
  return EXIT_STATUSES.map(({ status, kind, help }) => [String(status), kind.replaceAll('-', ' '), help]);
}

function optionsOf(verb) {
  return SPECS.filter((spec) => spec.verbs.includes(verb) && spec.selectsVerb === undefined && spec.name !== 'version');
}

function ofVerb(verb) {
  const usage = usageBlock(`asmt ${verb}`, optionsOf(verb), OPERANDS[verb]);
  const rows = optionsOf(verb).map((spec) => [`\`${optionUsage(spec)}\``, spec.help]);
  return `${usage}\n${table(['option', 'meaning'], rows)}`;
}

function ofAsmtForm() {
  const specs = SPECS.filter((spec) => spec.verbs.some((verb) => verb === 'backup' || verb === 'restore'));
  const usage = usageBlock(
    'asmt -b|-r',
    specs.filter((spec) => spec.name !== 'path'),
    ['-p', 'DIR'],
  );
  const takenWith = ({ verbs }) =>
    [...(verbs.includes('backup') ? ['`-b`'] : []), ...(verbs.includes('restore') ? ['`-r`'] : [])].join(', ');
  const rows = specs
    .filter((spec) => !APART.has(spec.name))
    .map((spec) => [`\`${optionUsage(spec)}\``, takenWith(spec), spec.help]);
  return `${usage}\n${table(['option', 'with', 'meaning'], rows)}`;
}

/** Returns the usage, `asmt backup [-n NAME,...] ... DIR`, in lines of limited length. */
function usageBlock(command, specs, operands) {
  const words = specs
    .filter((spec) => !APART.has(spec.name))
    .map((spec) => {
      const name = spec.short === undefined ? `--${spec.name}` : `-${spec.short}`;
      return `[${name}${spec.value === undefined ? '' : spec.isValueOptional ? `[=${spec.value}]` : ` ${spec.value}`}]${spec.repeats === true ? '...' : ''}`;
    });
  const lines = [command];
  for (const word of [...words, operands.join(' ')].filter((text) => text !== '')) {
    const longer = `${lines.at(-1)} ${word}`;
    if (longer.length > WIDTH) lines.push(' '.repeat(command.length + 1) + word);
    else lines[lines.length - 1] = longer;
  }
  return `\`\`\`\n${lines.join('\n')}\n\`\`\`\n`;
}
