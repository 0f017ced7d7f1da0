/**
 * The parts of docs/REFERENCE.md and docs/JSON.md that follow from the sources. Each stands between
 * two comments; the text around it is written by hand.
 *
 * Promise: every part has its place, exactly once. Must never: change a line outside the parts.
 */

import { EXIT_STATUSES } from '../../src/errors.ts';
import { OPERANDS, SPECS, VERBS, VERB_HELP, hasEffect, optionUsage, variablesOf } from '../../src/options.ts';

/** Longest line of a usage. */
const WIDTH = 100;

/** Options that are commands or that answer by themselves: no usage line has them. */
const APART = new Set(['backup', 'restore', 'help', 'version']);

/** The parts of docs/REFERENCE.md, by name. */
export function referenceParts() {
  return new Map([
    ['commands', table(['command', 'purpose'], commandRows())],
    ...VERBS.map((verb) => [verb, ofVerb(verb)]),
    ['asmt', ofAsmtForm()],
    ['exit-status', table(['status', 'kind', 'meaning'], statusRows())],
    ['variables', table(['variable', 'option', 'commands'], variableRows())],
  ]);
}

/** The parts of docs/JSON.md: the types of a schema each, with their fields. */
export function jsonParts([output, line]) {
  return new Map([
    ['output', typesOf(output, 'Output')],
    // What both have is described once.
    ['lines', typesOf(line, 'Line', new Set(Object.keys(output.definitions)))],
  ]);
}

/**
 * Returns the text with each part in its place. Throws if a part is missing, unknown or there
 * twice.
 */
export function withParts(file, text, parts) {
  const missing = new Set(parts.keys());
  const done = text.replace(/^(<!-- begin: ([a-z-]+) .*-->\n)[\s\S]*?^(<!-- end -->)$/gm, (_, begin, name, end) => {
    if (!missing.delete(name)) throw new Error(`${file}: the part "${name}" is unknown, or is there twice`);
    return `${begin}\n${parts.get(name)}\n${end}`;
  });
  if (missing.size > 0) throw new Error(`${file}: these parts are missing: ${[...missing].join(', ')}`);
  return done;
}

/** The root of a schema, and what it refers to. */
function typesOf({ definitions, ...root }, name, known = new Set()) {
  const types = [
    ...(root.properties === undefined ? [] : [[name, root]]),
    ...Object.entries(definitions).filter(([title]) => !known.has(title)),
  ];
  return types.map(([title, type]) => `### ${title}\n\n${typeText(type)}`).join('\n');
}

function typeText(type) {
  const about = type.description === undefined ? '' : `${wrapped(oneLine(type.description))}\n\n`;
  if (type.properties === undefined) return `${about}${wrapped(`One of ${typeName(type)}.`)}\n`;
  const rows = Object.entries(type.properties).map(([name, field]) => [
    `\`${name}\``,
    typeName(field),
    oneLine(field.description ?? type.description ?? ''),
  ]);
  return `${about}${table(['field', 'type', 'meaning'], rows)}`;
}

/** What a field can hold: `list of [Report](#report)`, `number or null`. */
function typeName(type) {
  if (type.$ref !== undefined) {
    const name = type.$ref.split('/').at(-1);
    return `[${name}](#${name.toLowerCase()})`;
  }
  if (type.const !== undefined) return `\`${JSON.stringify(type.const)}\``;
  if (type.enum !== undefined) return type.enum.map((word) => `\`${word}\``).join(', ');
  if (type.anyOf !== undefined) return type.anyOf.map(typeName).join(' or ');
  if (type.type === 'array') return `list of ${typeName(type.items)}`;
  return [type.type].flat().join(' or ');
}

/** A comment of the sources in one line. */
function oneLine(text) {
  return text.replaceAll(/\[(`[^`]*`)\]/g, '$1').replaceAll(/\s*\n\s*/g, ' ');
}

/** A text in lines of limited length. */
function wrapped(text) {
  const lines = [''];
  for (const word of text.split(' ')) {
    if (`${lines.at(-1)} ${word}`.length > WIDTH) lines.push(word);
    else lines[lines.length - 1] = `${lines.at(-1)} ${word}`.trim();
  }
  return lines.join('\n');
}

/** A row for each variable. */
function variableRows() {
  return SPECS.flatMap((spec) =>
    variablesOf(spec).map((variable) => [`\`${variable}\``, `\`${optionUsage(spec)}\``, takenBy(spec).join(', ')]),
  );
}

/** The commands in which an option has an effect. */
function takenBy(spec) {
  return spec.verbs.filter((verb) => hasEffect(spec, verb));
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
