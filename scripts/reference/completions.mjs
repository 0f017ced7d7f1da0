/**
 * Completion for bash, zsh and fish, made of the table of options: commands, the options of each
 * command and of ASMT's form, their values where these are known, files and directories.
 *
 * Promise: an option is offered where asmt takes it, and nowhere else. Must never: run asmt, which
 * would look into shared memory at each press of a key.
 */

import { OPERANDS, SPECS, VERBS, VERB_HELP } from '../../src/options.ts';

const NOTE = 'Written by npm run reference, from the table of options: do not edit.';
/** Widest range of whole numbers that are offered one by one. */
const MOST_NUMBERS = 16;

/** What each verb takes, without what belongs to ASMT's form, or to no command. */
const optionsOf = (verb) => SPECS.filter((spec) => spec.verbs.includes(verb) && !spec.selectsVerb && spec.name !== 'version');
/** What makes sense without a command. */
const FIRST = SPECS.filter((spec) => spec.selectsVerb !== undefined || ['help', 'version'].includes(spec.name));
const WITH_DIRECTORIES = VERBS.filter((verb) => OPERANDS[verb].length > 0);
/** Whether the next word is its value. A value that may be left out is joined to its option. */
const takesWord = (spec) => spec.value !== undefined && !spec.isValueOptional;
const WITH_VALUE = SPECS.filter(takesWord);

/** Each way to write an option. */
function namesOf({ short, name, aliases }) {
  return [...(short ? [`-${short}`] : []), ...[name, ...(aliases ?? [])].map((long) => `--${long}`)];
}

/** What completes the value of an option: words, files, directories, or nothing. */
function valueOf({ value, choices, range }) {
  if (choices !== undefined) return { words: choices };
  if (value === 'DIR') return { kind: 'directories' };
  if (value === 'FILE' || value?.startsWith('PATH')) return { kind: 'files' };
  const count = range === undefined ? Number.POSITIVE_INFINITY : range[1] - range[0] + 1;
  if (count <= MOST_NUMBERS) return { words: Array.from({ length: count }, (_, index) => String(range[0] + index)) };
  return {};
}

/** Completion for bash 4.4 and later. */
export function bash() {
  const value = WITH_VALUE.map((spec) => {
    const { words, kind } = valueOf(spec);
    const action = words ? `_asmt_words '${words.join(' ')}'` : kind ? `_asmt_${kind}` : ':';
    return `    ${namesOf(spec).join(' | ')})\n      ${action}\n      return\n      ;;\n`;
  });
  const options = (pattern, specs) => `      ${pattern}) _asmt_words '${specs.flatMap(namesOf).join(' ')}' ;;\n`;
  return `# shellcheck shell=bash
# Completion of asmt for bash. ${NOTE}

# Offers the words of $1 that begin as the current one.
_asmt_words() {
  mapfile -t COMPREPLY < <(compgen -W "$1" -- "$current")
}

_asmt_directories() {
  compopt -o filenames
  mapfile -t COMPREPLY < <(compgen -d -- "$current")
}

_asmt_files() {
  compopt -o filenames
  mapfile -t COMPREPLY < <(compgen -f -- "$current")
}

_asmt() {
  local current=\${COMP_WORDS[COMP_CWORD]} before=\${COMP_WORDS[COMP_CWORD - 1]} verb='' index
  COMPREPLY=()
  # What was typed as --option=value comes in three words.
  if [[ $current == = ]]; then
    current=''
  elif [[ $before == = ]] && ((COMP_CWORD > 2)); then
    before=\${COMP_WORDS[COMP_CWORD - 2]}
  fi
  for ((index = 1; index < COMP_CWORD; index++)); do
    case \${COMP_WORDS[index]} in
      ${WITH_VALUE.flatMap(namesOf).join(' | ')})
        [[ \${COMP_WORDS[index + 1]} == = ]] && ((index++))
        ((index++))
        ;;
      help | ${VERBS.join(' | ')})
        verb=\${COMP_WORDS[index]}
        break
        ;;
      -b* | --backup) verb=-b ;;
      -r* | --restore) verb=-r ;;
    esac
  done
  case $before in
${value.join('')}  esac
  if [[ $current == -* ]]; then
    case $verb in
${options("''", FIRST)}${VERBS.map((verb) => options(verb, optionsOf(verb))).join('')}${options('-b', optionsOf('backup'))}${options('-r', optionsOf('restore'))}    esac
    return
  fi
  case $verb in
    '') _asmt_words 'help ${VERBS.join(' ')}' ;;
    help) _asmt_words '${VERBS.join(' ')}' ;;
    preflight) _asmt_words 'backup restore'; _asmt_directories ;;
    ${WITH_DIRECTORIES.filter((verb) => verb !== 'preflight').join(' | ')}) _asmt_directories ;;
  esac
}

complete -F _asmt asmt
`;
}

/** A text between single quotes, for zsh and fish. */
const quoted = (text, quote) => `'${text.replaceAll("'", quote)}'`;

/** Completion for zsh. */
export function zsh() {
  const text = (value) => value.replaceAll(/[\\[\]:]/g, String.raw`\$&`);
  const argument = (spec) => {
    const { words, kind } = valueOf(spec);
    const action = words ? `(${words.join(' ')})` : kind === 'directories' ? '_files -/' : kind === 'files' ? '_files' : ' ';
    return !takesWord(spec) ? '' : `:${text(spec.value)}:${action}`;
  };
  const lines = (spec) => {
    const names = namesOf(spec);
    // Values are taken from the same word or from the next one.
    const typed = names.map((name) => name + (!takesWord(spec) ? '' : name.startsWith('--') ? '=' : '+'));
    const others = spec.repeats ? '*' : names.length > 1 ? `(${names.join(' ')})` : '';
    return typed.map((name) => quoted(`${others}${name}[${text(spec.help)}]${argument(spec)}`, String.raw`'\''`));
  };
  const call = (pattern, specs, operands) => {
    const words = [...specs.flatMap(lines), ...operands.map((operand) => `'${operand}'`)];
    return `    ${pattern})\n      _arguments -s -S : \\\n${words.map((word) => `        ${word}`).join(' \\\n')}\n      ;;\n`;
  };
  // zsh reads -bavn, and has to know each letter.
  const ofForm = (verb) => SPECS.filter((spec) => spec.verbs.includes(verb) && spec.name !== 'version');
  const command = '1:command:_asmt_commands';
  const operand = (name, place) => {
    const bare = name.replaceAll(/[[\]]/g, '');
    if (bare.startsWith('-- ')) return '*::command:_normal';
    return `${place}:${bare}:${bare.includes('|') ? `(${bare.replaceAll('|', ' ')})` : '_files -/'}`;
  };
  const calls = VERBS.map((verb) => {
    const operands = OPERANDS[verb].map((name, index) => operand(name, index + 2));
    return call(verb, optionsOf(verb), [command, ...operands]);
  });
  const described = VERBS.map((verb) => `    ${quoted(`${verb}:${VERB_HELP[verb]}`, String.raw`'\''`)}\n`).join('');
  return `#compdef asmt
# Completion of asmt for zsh. ${NOTE}

_asmt_commands() {
  local -a commands
  commands=(
${described}    'help:show the help of a command'
  )
  _describe 'command' commands
}

_asmt() {
  local verb=''
  local -i index
  for ((index = 2; index < CURRENT; index++)); do
    case $words[index] in
      ${WITH_VALUE.flatMap(namesOf).join('|')}) ((index++)) ;;
      help|${VERBS.join('|')})
        verb=$words[index]
        break
        ;;
      -b*|--backup) verb=-b ;;
      -r*|--restore) verb=-r ;;
    esac
  done
  case $verb in
${calls.join('')}${call('-b', ofForm('backup'), [])}${call('-r', ofForm('restore'), [])}${call('help', [], [command, '2:command:_asmt_commands'])}${call('*', FIRST, [command])}  esac
}

_asmt "$@"
`;
}

/** Completion for fish. */
export function fish() {
  const text = (value) => quoted(value, String.raw`\'`);
  const complete = (condition, ...words) => `complete -c asmt -n ${text(condition)} ${words.join(' ')}\n`;
  const option = (spec) => {
    const { words, kind } = valueOf(spec);
    const names = [spec.name, ...(spec.aliases ?? [])].map((name) => `-l ${name}`);
    const form = { backup: '__fish_contains_opt -s b backup', restore: '__fish_contains_opt -s r restore' };
    const inForm = spec.verbs.flatMap((verb) => (form[verb] ? [`; or ${form[verb]}`] : [])).join('');
    const isFirst = FIRST.includes(spec) ? '; or __fish_asmt_first' : '';
    const verbs = spec.selectsVerb || spec.name === 'version' ? [] : spec.verbs;
    const condition =
      verbs.length === 0 ? '__fish_asmt_first' : `__fish_seen_subcommand_from ${verbs.join(' ')}${inForm}${isFirst}`;
    const isFile = kind === 'files' ? '-r -F' : '-x';
    const offered = words
      ? ` -a ${text(words.join(' '))}`
      : kind === 'directories'
        ? ` -a ${text('(__fish_complete_directories)')}`
        : '';
    const value = !takesWord(spec) ? [] : [`${isFile}${offered}`];
    return complete(condition, ...(spec.short ? [`-s ${spec.short}`] : []), ...names, ...value, `-d ${text(spec.help)}`);
  };
  const verbs = VERBS.map((verb) => complete('__fish_asmt_first', `-a ${verb}`, `-d ${text(VERB_HELP[verb])}`));
  return `# Completion of asmt for fish. ${NOTE}

function __fish_asmt_first --description 'Neither a command nor the form of ASMT'
    __fish_use_subcommand
    and not __fish_contains_opt -s b backup
    and not __fish_contains_opt -s r restore
end

complete -c asmt -f
${verbs.join('')}${complete('__fish_asmt_first', '-a help', "-d 'show the help of a command'")}${complete('__fish_seen_subcommand_from help', `-a ${text(VERBS.join(' '))}`)}${complete(`__fish_seen_subcommand_from ${WITH_DIRECTORIES.join(' ')}`, `-a ${text('(__fish_complete_directories)')}`)}${SPECS.map(option).join('')}`;
}
