/**
 * The manual page asmt(8). Commands, options, exit statuses, environment and files are those of
 * docs/REFERENCE.md, so that each is described once.
 *
 * Promise: a form of Markdown that has no counterpart here is an error, and no text is lost. Must
 * never: need more of roff than man(7).
 */

import { EXAMPLES } from '../../src/help.ts';
import { OPERANDS, SPECS, VERBS, VERB_HELP, optionUsage, variablesOf } from '../../src/options.ts';

/** Longest line of text in the source of the page. */
const WIDTH = 78;

/** When the texts of this file were last revised. */
const DATE = '2026-11-30';

const DESCRIPTION = `An Aerospike node keeps its indexes, and data that is in memory, in System V shared memory, which a
reboot loses. \`asmt\` copies the segments to files before the reboot, and back to memory after it, so that the server
warm-restarts in seconds instead of reading every device for hours.

There are two forms of the command line: commands, and the form of Aerospike's own tool of that name, with \`-b\` or
\`-r\`. Both do the same work.`;

const DOCUMENTS = `The documents of asmt, which deb and rpm install below \`/usr/share/doc\`: OPERATIONS (how to run it),
HINTS (every error), STALENESS (what proves a backup current), JSON, FORMAT.`;

/** A planned reboot, for the examples. */
const REBOOT = `systemctl disable --now aerospike
asmt backup --replace /var/backups/asmt
asmt verify --restorable /var/backups/asmt
reboot
asmt restore /var/backups/asmt
systemctl enable --now aerospike`;

/** Returns the page. `reference` is the text of docs/REFERENCE.md. */
export function manual(reference, version) {
  const section = (heading) => sectionOf(reference, heading);
  const named = (name, text) => `.SH ${name}\n${text}`;
  return [
    `.\\" Written by npm run reference: do not edit.\n.TH ASMT 8 ${DATE} "asmt ${version}" "System Manager's Manual"\n`,
    named('NAME', "asmt \\- back up and restore an Aerospike node's shared memory\n"),
    named('SYNOPSIS', synopsis()),
    named('DESCRIPTION', blocks(DESCRIPTION)),
    named('COMMANDS', VERBS.map((verb) => commandText(verb, section(`### asmt ${verb}`))).join('')),
    `.SS The form of ASMT\n${blocks(withoutParts(section('### The ASMT form')))}`,
    named('OPTIONS', options(section('## Options'))),
    named('EXIT STATUS', blocks(withoutParts(section('## Exit status')).replace(/^.*:\n+/, ''))),
    named('OUTPUT', blocks(section('## Output'))),
    named('SIGNALS', blocks(section('## Signals'))),
    named('ENVIRONMENT', blocks(section('## Environment'))),
    named('FILES', blocks(section('## Files'))),
    named('EXAMPLES', examples()),
    named('SEE ALSO', `.BR ipcs (1),\n.BR sysvipc (7),\n.BR systemd.service (5)\n.PP\n${paragraph(DOCUMENTS)}`),
  ].join('');
}

/** The text under a heading, up to the next one of any level. */
function sectionOf(reference, heading) {
  const [, after] = reference.split(`\n${heading}\n`);
  if (after === undefined) throw new Error(`docs/REFERENCE.md has no section "${heading}"`);
  return after.split(/^#{1,6} /m)[0].trim();
}

/** The parts that `npm run reference` writes are in the page by themselves. */
function withoutParts(text) {
  return text.replace(/^<!-- begin: [\s\S]*?^<!-- end -->$/gm, '').trim();
}

function synopsis() {
  const usages = VERBS.map((verb) => [
    '.B asmt',
    verb,
    String.raw`\fR[options]`,
    ...OPERANDS[verb].map((name) => String.raw`\fI${name}`),
  ]);
  const lines = [
    ...usages.map((words) => `${words.join(' ')}\n`),
    `.B asmt ${bold('-b')}|${bold('-r')} [options] ${bold('-p')} ${italic('DIR')}\n`,
  ];
  return lines.join('.br\n');
}

function commandText(verb, text) {
  const names = SPECS.filter((spec) => spec.verbs.includes(verb) && !spec.selectsVerb && spec.name !== 'version');
  const list = names.map(({ short, name }) => bold(short ? `-${short}` : `--${name}`)).join(', ');
  const more = withoutParts(text);
  const operands = OPERANDS[verb].map((name) => ` \\fI${name}\\fR`).join('');
  const head = `.TP\n\\fB${verb}\\fR${operands}\n${paragraph(sentence(VERB_HELP[verb]))}`;
  const about = more === '' ? '' : `.RS\n.PP\n${blocks(more)}.RE\n`;
  return `${head}${about}.IP\n${filled([`Options: ${list}.`])}`;
}

/** Each option with the text of its entry, its commands and its variable. */
function options(text) {
  const entries = new Map(
    text
      .split(/^- /m)
      .slice(1)
      .map((entry) => {
        const [, usage, rest] = /^`([^`]+)`: ([\s\S]*)$/.exec(entry) ?? [];
        if (usage === undefined) throw new Error(`docs/REFERENCE.md: this is no entry of an option: ${entry}`);
        return [usage, rest];
      }),
  );
  return SPECS.map((spec) => {
    const usage = optionUsage(spec);
    const entry = entries.get(usage);
    if (entry === undefined) throw new Error(`docs/REFERENCE.md has no entry for ${usage}`);
    const variables = variablesOf(spec).map(bold);
    const where = spec.selectsVerb || spec.name === 'version' ? '' : ` Commands: ${spec.verbs.join(', ')}.`;
    const variable = variables.length === 0 ? '' : ` Variable: ${variables.join(', ')}.`;
    return `.TP\n${tag(spec)}\n${paragraph(sentence(entry))}${where === '' ? '' : `.br\n${filled([where.trim() + variable])}`}`;
  }).join('');
}

function tag({ short, name, aliases, value, isValueOptional }) {
  const names = [...(short ? [`-${short}`] : []), ...[name, ...(aliases ?? [])].map((long) => `--${long}`)];
  return (
    names.map(bold).join(', ') +
    (value === undefined ? '' : isValueOptional ? `[=\\fI${escaped(value)}\\fR]` : ` \\fI${escaped(value)}\\fR`)
  );
}

function examples() {
  const each = VERBS.flatMap((verb) => EXAMPLES[verb]);
  return `A planned reboot:\n${code(REBOOT)}.PP\nOther commands:\n${code(each.join('\n'))}`;
}

/** Markdown in blocks: paragraphs, lists, tables and code. */
function blocks(text) {
  return withoutComments(text)
    .split(/\n{2,}/)
    .filter((block) => block.trim() !== '')
    .map((block) => {
      if (block.startsWith('```')) return code(block.replace(/^```.*\n|\n```$/g, ''));
      if (block.startsWith('|')) return table(block);
      if (block.startsWith('- ')) return list(block);
      if (block.startsWith('1. ')) return steps(block);
      if (/^(#|>|\d+\.|<)/.test(block)) throw new Error(`no form for this in a manual page: ${block}`);
      return `.PP\n${paragraph(block)}`;
    })
    .join('')
    .replace(/^\.PP\n/, '');
}

const withoutComments = (text) => text.replaceAll(/^<!-- .* -->$/gm, '');

function code(text) {
  return `.PP\n.RS 4\n.nf\n${text
    .split('\n')
    .map((line) => guarded(escaped(line)))
    .join('\n')}\n.fi\n.RE\n`;
}

function list(block) {
  const items = block.split(/^- /m).slice(1);
  return items.map((item) => `.IP \\(bu 2\n${paragraph(item)}`).join('');
}

function steps(block) {
  const items = block.split(/^\d+\. /m).slice(1);
  return items.map((item, index) => `.IP ${index + 1}. 3\n${paragraph(item)}`).join('');
}

/** A row for each line: the first cell is the tag. */
function table(block) {
  const cells = (line) =>
    line
      .replaceAll(String.raw`\|`, '\u0001')
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim().replaceAll('\u0001', '|'));
  const [, , ...rows] = block.trim().split('\n');
  return rows
    .map((row) => {
      const [first = '', ...rest] = cells(row);
      const text = sentence(rest.filter((cell) => cell !== '').join(': '));
      return `.TP\n${inline(first) || '\\&'}\n${paragraph(text)}`;
    })
    .join('');
}

/** A sentence begins on a line of its own, as roff wants it; lines are short. */
function paragraph(text) {
  const sentences = inline(text.trim().replaceAll(/\s*\n\s*/g, ' ')).split(/(?<=[.:;]) (?=\S)/);
  return filled(sentences);
}

function filled(sentences) {
  const lines = [];
  for (const sentence of sentences) {
    lines.push('');
    for (const word of sentence.split(' ')) {
      const longer = `${lines.at(-1)} ${word}`.trim();
      if (longer.length > WIDTH) lines.push(word);
      else lines[lines.length - 1] = longer;
    }
  }
  return lines.map((line) => `${guarded(line)}\n`).join('');
}

/** A text with a capital letter and a full stop. */
function sentence(text) {
  const trimmed = text.trim();
  const first = /^[a-z]/.test(trimmed) ? trimmed[0].toUpperCase() + trimmed.slice(1) : trimmed;
  return /[.:]\)?$/.test(first) ? first : `${first}.`;
}

/** Code and emphasis in a line; links are their text. */
function inline(text) {
  return text
    .replaceAll(/\[([^\]]*)\]\([^)]*\)/g, '$1')
    .split(/(`[^`]*`|\*\*[^*]+\*\*)/)
    .map((part) => {
      if (part.startsWith('`')) return bold(part.slice(1, -1));
      if (part.startsWith('**')) return bold(part.slice(2, -2));
      return part.replaceAll('\\', String.raw`\e`);
    })
    .join('');
}

const italic = (text) => `\\fI${escaped(text)}\\fR`;
const bold = (text) => `\\fB${escaped(text)}\\fR`;

/** Literal text: a hyphen that can be copied, and no escapes. */
function escaped(text) {
  return text.replaceAll('\\', String.raw`\e`).replaceAll('-', String.raw`\-`);
}

/** A line that begins like a request of roff is none. */
const guarded = (line) => (/^[.']/.test(line) ? `\\&${line}` : line);
