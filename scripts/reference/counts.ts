/**
 * The counts of the whole runs: read from what the loops print, kept in docs/runs/counts.json, and
 * written into the table of docs/RELIABILITY.md.
 *
 * Promise: what is not in an output is in no row, and an output of which a part has not ended is an
 * error. Pure. Must never: be given a short form, whose lines are those of a whole run.
 */

/** A result of a loop. */
export interface Result {
  readonly loop: string;
  readonly tried: string;
  readonly wrong: string;
}

/** A row of the table: a result, and when the loop was run. */
export interface Row extends Result {
  readonly run: string;
}

/** Thousands apart, so that large counts can be read. */
const shown = (number: number | string | undefined): string => Number(number).toLocaleString('en-US');

/** The rows of a table with a line for each loop. */
export function countsTable(rows: readonly Row[]): string {
  const lines = rows.map(({ loop, run, tried, wrong }) => `| ${loop} | ${run} | ${tried} | ${wrong} |`);
  return `${['| loop | run | tried | wrong |', '|---|---|---|---|', ...lines].join('\n')}\n`;
}

/**
 * The results that an output has: `{ loop, tried, wrong }`. Throws where a loop of a group has not
 * ended in all parts, or where nothing is found.
 */
export function resultsOf(output: string): Result[] {
  const results = [
    ...faults(output),
    ...power(output),
    ...sequences(output),
    ...reboots(output),
    ...fuzz(output),
    ...mutants(output),
  ];
  if (results.length === 0) throw new Error('the output has no result of a loop');
  return results;
}

/** The rows, with those of the results replaced, or added at the end. */
export function withResults(rows: readonly Row[], results: readonly Result[], date: string): Row[] {
  const merged = rows.map((row) => {
    const result = results.find(({ loop }) => loop === row.loop);
    return result === undefined ? row : { ...row, ...result, run: date };
  });
  const isNew = ({ loop }: Result): boolean => !rows.some((row) => row.loop === loop);
  return [...merged, ...results.filter(isNew).map(({ loop, ...result }) => ({ loop, run: date, ...result }))];
}

/** `npm run test:faults`: a line for each loop, by group. */
function faults(output: string): Result[] {
  const groups = new Map<string, { loops: number; states: number; wrong: number }>();
  for (const [, name = '', states, wrong, rest = ''] of output.matchAll(
    /^(?:not )?ok \d+ - ((?:syscalls|kills|space|races):\S+): (\d+) states, (\d+) wrong \(.*?\)(.*)$/gm,
  )) {
    if (rest.includes('ended in')) throw new Error(`${name} has not ended in all parts`);
    const group = name.split(':', 1).join('');
    const sum = groups.get(group) ?? { loops: 0, states: 0, wrong: 0 };
    groups.set(group, { loops: sum.loops + 1, states: sum.states + Number(states), wrong: sum.wrong + Number(wrong) });
  }
  return [...groups].map(([group, { loops, states, wrong }]) => ({
    loop: `faults: \`${group}\``,
    tried: `${shown(states)} states in ${loops} loops`,
    wrong: shown(wrong),
  }));
}

/** `npm run test:power`: below the states of each file system, the line with the options. */
function power(output: string): Result[] {
  const results: Result[] = [];
  let systems: { system: string; states: number; wrong: number }[] = [];
  for (const line of output.split('\n')) {
    const [, system, states, wrong] = /^(\w+) +all +(\d+) states tried, (\d+) wrong/.exec(line) ?? [];
    if (system !== undefined) systems.push({ system, states: Number(states), wrong: Number(wrong) });
    const options = /^(?:not )?ok \d+ - power: asmt-powercut (.*)$/.exec(line)?.[1];
    if (options === undefined) continue;
    const loop = POWER_LOOPS.find(({ has }) => options.includes(has));
    if (loop !== undefined && systems.length > 0) {
      const sum = (field: 'states' | 'wrong'): number => systems.reduce((total, entry) => total + entry[field], 0);
      const each = systems.map((entry) => `${entry.system} ${shown(entry.states)}`).join(', ');
      results.push({ loop: loop.name, tried: `${shown(sum('states'))} states (${each})`, wrong: shown(sum('wrong')) });
    }
    systems = [];
  }
  return results;
}

const POWER_LOOPS = [
  { has: '--main dist/main.js --on ext4,xfs,btrfs', name: 'power: the command line' },
  { has: '--no-direct-io', name: 'power: without direct I/O' },
  { has: '--on posix,ext4,xfs,btrfs --subsets', name: 'power: the engine' },
];

function sequences(output: string): Result[] {
  const found = /^(?:not )?ok 1 - sequences: (\d+) sequences, (\d+) events, (\d+) wrong, (\d+) not told apart(.*)$/m.exec(output);
  if (found === null) return [];
  const [, count, events, wrong, notTold, rest = ''] = found;
  if (rest.includes('ended in')) throw new Error('the sequences have not ended in all parts');
  const tried = `${shown(count)} sequences, ${shown(events)} events; ${shown(notTold)} not told apart`;
  return [{ loop: 'sequences, seed 1', tried, wrong: shown(wrong) }];
}

function reboots(output: string): Result[] {
  const found = /^# reboots: (\d+) passed, (\d+) failed, (\d+) skipped, (\d+) boots$/m.exec(output);
  if (found === null) return [];
  const [passed = 0, failed = 0, skipped = 0, boots] = found.slice(1).map(Number);
  if (skipped > 0) throw new Error(`${skipped} cases of the reboots were skipped`);
  return [{ loop: 'reboots', tried: `${shown(passed + failed)} cases, ${shown(boots)} boots`, wrong: shown(failed) }];
}

function fuzz(output: string): Result[] {
  const lines = output.matchAll(/^(\w+): (\d+) executions, (\d+) edges, (nothing found|FAILED)$/gm);
  return [...lines].map(([, name, executions, edges, end]) => ({
    loop: `fuzz \`${name}\``,
    tried: `${shown(executions)} executions, ${shown(edges)} edges`,
    wrong: end === 'FAILED' ? 'found' : '0',
  }));
}

function mutants(output: string): Result[] {
  const lines = output.matchAll(
    /^(?:not )?ok - mutants: (\S+): (\d+) noticed, (\d+) without end, (\d+) that do not compile, (\d+) not noticed$/gm,
  );
  return [...lines].map(([, part, noticed, endless, uncompiled, missed]) => {
    const all = [noticed, endless, uncompiled, missed].reduce((sum, count) => sum + Number(count), 0);
    const tests = endless === '0' ? '' : ` (${endless} more because a test does not end)`;
    return {
      loop: `mutation: \`${part}\``,
      tried: `${shown(all)} changes: ${shown(noticed)} noticed${tests}, ${shown(uncompiled)} do not compile`,
      wrong: `${shown(missed)} not noticed`,
    };
  });
}
