/** The projection to larger machines: the model against a simulated queue, and its tables. */

import test from 'ava';

import {
  CHUNK_MIB,
  duration,
  project,
  projectionTable,
  ratesOf,
  ratesTable,
  threadsOf,
  type Machine,
  type Run,
  type Step,
} from '../scripts/projection.ts';

const STEP: Step = { name: 'backup -z', coreRate: 600, driveRate: 2000, part: 0.6, threadMib: 4 };
const IDLE = { startSeconds: 0, ownMib: 60 };

/** Numbers from 0 to 1 that are the same each time. */
function dice(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

/**
 * The seconds that threads need which take chunks off a queue: each computes its chunk, all that
 * compute sharing the cores as a kernel shares them out, and then waits for the drive that has its
 * chunk's place, which does one thing at a time. A chunk needs half as much or half as much again
 * of either, at random.
 */
function simulated(step: Step, { indexMib, cores, drives }: Machine): number {
  const roll = dice(7);
  const varied = (seconds: number) => seconds * (0.5 + roll());
  const chunks = Math.ceil(indexMib / CHUNK_MIB);
  const driveFree = Array<number>(drives).fill(0);
  // Seconds of a core that each chunk in work needs yet, and when each one on the drives is done.
  let computing: number[] = [];
  let moving: number[] = [];
  let [now, next] = [0, 0];
  const take = () => {
    if (next < chunks) computing.push(varied(CHUNK_MIB / step.coreRate));
    next += 1;
  };
  for (let thread = 0; thread < threadsOf(cores); thread += 1) take();
  while (computing.length + moving.length > 0) {
    const rate = Math.min(1, cores / computing.length);
    const computed = now + Math.min(...computing) / rate;
    const moved = Math.min(...moving);
    const end = Math.min(computed, moved);
    computing = computing.map((left) => left - (end - now) * rate);
    now = end;
    if (moved <= computed) {
      moving = moving.filter((time) => time !== moved);
      take();
    } else {
      computing.splice(computing.indexOf(Math.min(...computing)), 1);
      const drive = Math.floor(roll() * drives);
      const from = Math.max(now, driveFree[drive] ?? 0);
      driveFree[drive] = from + varied((CHUNK_MIB * step.part) / step.driveRate);
      moving.push(driveFree[drive]);
    }
  }
  return now;
}

test('the model is that of a queue of chunks, cores and drives', (t) => {
  for (const cores of [2, 8, 32]) {
    for (const drives of [1, 2, 4]) {
      const balanced = (STEP.coreRate * cores * STEP.part) / drives;
      // From drives that are far too slow, to cores that are.
      for (const factor of [0.1, 0.5, 0.9, 1, 1.1, 2, 10]) {
        const step = { ...STEP, driveRate: factor * balanced };
        const machine = { indexMib: 200 * cores * CHUNK_MIB, cores, drives };
        const [found, expected] = [simulated(step, machine), project(step, IDLE, machine)];
        const off = found / expected.seconds - 1;
        const text = `${cores} cores, ${drives} drives, ${factor}: ${found} s, and ${JSON.stringify(expected)}`;
        // Chunks meet on one of several drives while another has nothing to do.
        const byChance = expected.otherPart > 0.7 ? 0.25 : 0.15;
        t.true(Math.abs(off) < (drives === 1 ? 0.05 : byChance), text);
      }
    }
  }
});

test('the bottleneck is what more of makes it faster', (t) => {
  for (const cores of [2, 8, 96]) {
    for (const drives of [1, 8]) {
      const machine = { indexMib: 100 * 1024, cores, drives };
      const { seconds, bottleneck } = project(STEP, IDLE, machine);
      const other = bottleneck === 'cores' ? 'drives' : 'cores';
      const half = { [bottleneck]: machine[bottleneck] / 2 };
      t.true(project(STEP, IDLE, { ...machine, ...half }).seconds > 1.9 * seconds);
      t.true(project(STEP, IDLE, { ...machine, [other]: 2 * machine[other] }).seconds > 0.99 * seconds);
    }
  }
});

/** A run with round numbers: 1 GiB, 2 CPUs. */
function run(cpuSeconds?: Record<string, number>): Run {
  const row = (shape: string, what: string, mib: number, rate: number, more = {}) => {
    const used = cpuSeconds?.[what];
    const bytes = mib * 2 ** 20;
    const times = { seconds: mib / rate, bytes_per_second: rate * 2 ** 20 };
    return { shape, what, bytes, ...times, ...(used !== undefined && { cpu_seconds: used }), ...more };
  };
  const own = (mib: number) => ({ own_bytes: mib * 2 ** 20 });
  return {
    machine: { cpus: 2 },
    rows: [
      row('dense', 'limit: crc32, 1 threads', 1024, 10_000),
      row('dense', 'limit: fresh, 1 threads', 1024, 2000),
      row('dense', 'limit: encode index, 1 threads', 256, 1000),
      row('dense', 'limit: decode index, 1 threads', 256, 500),
      row('dense', 'limit: write', 1024, 2000),
      row('dense', 'limit: read into memory', 1024, 3000),
      row('dense', 'backup', 1024, 1800, own(60)),
      row('dense', 'backup -z', 1024, 1000, { file_bytes: 512 * 2 ** 20, ...own(84) }),
      row('dense', 'restore', 1024, 1500, own(60)),
      row('dense', 'restore -z', 1024, 800, own(132)),
      row('start-up', 'asmt list', 0, 1),
    ],
  };
}

test("a step's work is the CPU time that the run used, or the sum of its parts", (t) => {
  const rates = (of: Run) => new Map(ratesOf(of).steps.map((step) => [step.name, step]));
  const parts = rates(run());
  t.is(Math.round(parts.get('backup')?.coreRate ?? 0), 10_000);
  t.is(Math.round(parts.get('backup -z')?.coreRate ?? 0), Math.round(1 / (1 / 1000 + 1 / 10_000)));
  t.is(Math.round(parts.get('restore -z')?.coreRate ?? 0), Math.round(1 / (1 / 500 + 1 / 10_000 + 1 / 2000)));
  t.is(parts.get('backup -z')?.part, 0.5);
  t.is(parts.get('backup -z')?.threadMib, 2);
  t.is(parts.get('restore -z')?.threadMib, 6);
  t.is(rates(run({ backup: 0.5 })).get('backup')?.coreRate, 2048);
  // What every command takes to start is no work on the index.
  t.is(rates(run({ backup: 0.75, 'asmt list': 0.25 })).get('backup')?.coreRate, 2048);
});

test('columns take the place of the codec; drives can be given', (t) => {
  const { steps } = ratesOf(run({ 'backup -z': 2.048 }), { encode: 2000, decode: 1000, part: 0.5 }, { write: 7000 });
  t.deepEqual(
    steps.map((step) => step.name),
    ['backup', 'backup -z', 'backup --columns', 'restore', 'restore -z', 'restore --columns'],
  );
  t.is(Math.round(steps[2]?.coreRate ?? 0), Math.round(1 / (1 / 500 - 1 / 1000 + 1 / 2000)));
  t.deepEqual([steps[0]?.driveRate, steps[3]?.driveRate], [7000, 3000]);
});

test('a run that lacks a row is refused, and named', (t) => {
  const { machine, rows } = run();
  const without = { machine, rows: rows.filter((row) => row.what !== 'limit: write') };
  t.throws(() => ratesOf(without), { message: 'the run has no row "dense: limit: write"' });
});

test('tables are Markdown, with a row for each machine', (t) => {
  const rates = ratesOf(run());
  const text = projectionTable(rates, [{ name: '100 GiB', indexMib: 102_400 }], [8, 96], [1, 8]);
  t.regex(text, /^\*\*100 GiB\*\*\n\n\| cores \| drives \| backup \| backup -z \|/);
  // 102,400 MiB at 2,000 MiB/s.
  t.true(text.includes('| 8 | 1 | 51 s, drives |'), text);
  t.true(text.includes('| 96 | 192 | 60 | 444 | 60 | 1212 |'), text);
  t.is(text.split('\n').filter((line) => /^\| \d/.test(line)).length, 6);
  t.true(ratesTable(rates).includes('| backup -z | 909 | 2000 | 50.0 | 2.0 |'), ratesTable(rates));
  t.deepEqual([0.04, 9.94, 9.96, 119.4, 125, 640, 7100, 7200].map(duration), [
    '0.0 s',
    '9.9 s',
    '10 s',
    '119 s',
    '2 min 5 s',
    '11 min',
    '118 min',
    '2 h 0 min',
  ]);
});
