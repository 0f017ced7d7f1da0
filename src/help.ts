/**
 * The text of `--help`, made of the one table of options and the one table of exit statuses. Pure.
 */

import { EXIT_STATUSES } from './errors.ts';
import { OPERANDS, SPECS, VERBS, VERB_HELP, optionUsage, type OptionSpec, type Verb } from './options.ts';

/** Commands that show what is usual. */
export const EXAMPLES: Readonly<Record<Verb, readonly string[]>> = {
  list: ['asmt list', 'asmt list -v -i 0 -n test'],
  preflight: [
    'asmt preflight /var/backups/asmt',
    'asmt preflight backup -Z /var/backups/asmt',
    'asmt preflight restore --json /var/backups/asmt',
  ],
  backup: [
    'asmt backup /var/backups/asmt',
    'asmt backup -Z /var/backups/asmt',
    'asmt backup --replace /var/backups/asmt',
    'asmt backup -z -n test,bar -i 2 /var/backups/asmt',
    'asmt backup -a /var/backups/asmt',
  ],
  restore: ['asmt restore /var/backups/asmt', 'asmt restore -c -n test /var/backups/asmt'],
  verify: ['asmt verify /var/backups/asmt'],
  export: ['asmt export /var/backups/asmt /mnt/for-asmt', 'asmt export -z -i 2 /var/backups/asmt /mnt/for-asmt'],
  retire: ['asmt retire /var/backups/asmt', 'asmt retire -n test -i 2 /var/backups/asmt'],
  run: ['asmt run -z /var/backups/asmt -- asd --foreground', 'asmt run -z --ready /run/asmt/ready /var/backups/asmt'],
};

function columns(rows: readonly (readonly [string, string])[]): string {
  const width = Math.max(...rows.map(([left]) => left.length));
  return rows.map(([left, right]) => `  ${left.padEnd(width)}  ${right}\n`).join('');
}

function optionRows(specs: readonly OptionSpec[]): string {
  return columns(specs.map((spec) => [(spec.short ? '' : '    ') + optionUsage(spec), spec.help]));
}

function usageOf(verb: Verb): string {
  return ['asmt', verb, '[options]', ...OPERANDS[verb]].join(' ');
}

/** Help of one command, or of all. */
export function help(verb: Verb | null): string {
  if (verb !== null) {
    const specs = SPECS.filter((spec) => spec.verbs.includes(verb) && spec.selectsVerb === undefined && spec.name !== 'version');
    const examples = EXAMPLES[verb].map((line) => `  ${line}\n`).join('');
    return `Usage: ${usageOf(verb)}\n\n${VERB_HELP[verb]}\n\nOptions:\n${optionRows(specs)}\nExamples:\n${examples}`;
  }
  const statuses = EXIT_STATUSES.map(({ status, help: text }): [string, string] => [String(status).padStart(3), text]);
  return [
    "asmt copies an Aerospike node's shared memory to files before a reboot, and back after it.\n\n",
    'Usage:\n',
    VERBS.map((name) => `  ${usageOf(name)}\n`).join(''),
    '  asmt -b|-r [-a] [-c] [-z|-Z] [-v] [-i N] [-t N] [-n NAME,...] -p DIR\n\n',
    `Commands:\n${columns(VERBS.map((name): [string, string] => [name, VERB_HELP[name]]))}\n`,
    `Options:\n${optionRows(SPECS)}\n`,
    `Exit status of the commands:\n${columns(statuses)}`,
    'The ASMT form (-b or -r) exits with 0 or 1.\n\n',
    'Each option also has a variable, such as ASMT_NAMESPACE=test or ASMT_VERBOSE=1, and ASMT_DIR is DIR.\n',
    'What is typed counts more. Variables have no effect in the ASMT form.\n',
  ].join('');
}

/** Said where nothing is typed. */
export function shortUsage(): string {
  return `Usage: ${VERBS.map(usageOf).join('\n       ')}\n       asmt -b|-r [options] -p DIR\nSee asmt --help for more.\n`;
}
