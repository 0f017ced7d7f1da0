/**
 * What a run of the benchmark lets expect of another machine: time, memory and bottleneck of each
 * step, for so much index, so many cores and drives.
 *
 * The model: chunks go through two stations, cores and drives, and there are more threads than
 * cores, so that the slower station is never idle. A step takes as long as that station needs for
 * all chunks. The other one adds its time for one chunk of each thread: all threads begin at once,
 * and end at once.
 *
 * Promise: pure; the same figures give the same table. Must never: guess a rate that the run does
 * not have.
 */

const MIB = 2 ** 20;
/** MiB of a chunk, in segments up to 64 GiB. */
export const CHUNK_MIB = 4;

/** A row of the benchmark's JSON, as far as it is used here. */
export interface Row {
  readonly shape: string;
  readonly what: string;
  readonly seconds: number;
  readonly bytes: number;
  readonly bytes_per_second: number;
  readonly cpu_seconds?: number;
  readonly own_bytes?: number;
  readonly file_bytes?: number;
}

/** A run of the benchmark: its JSON. */
export interface Run {
  readonly machine: { readonly cpus: number };
  readonly rows: readonly Row[];
}

/** What an encoding by columns does, which the run has not measured: MiB/s on one core. */
export interface Columns {
  readonly encode: number;
  readonly decode: number;
  /** Encoded size, of the index's. */
  readonly part: number;
}

/** A step, and what it costs. */
export interface Step {
  readonly name: string;
  /** MiB of index that one core does in a second, the kernel's work for it included. */
  readonly coreRate: number;
  /** MiB that one drive takes or gives in a second. */
  readonly driveRate: number;
  /** MiB that pass the drives, of one MiB of index. */
  readonly part: number;
  /** MiB of memory that each thread has for itself. */
  readonly threadMib: number;
}

/** All of a run that a projection needs. */
export interface Rates {
  readonly steps: readonly Step[];
  /** Seconds that a command takes with nothing to do. */
  readonly startSeconds: number;
  /** MiB of memory of the process, its threads' buffers apart. */
  readonly ownMib: number;
}

/** Another machine, and what is on it. */
export interface Machine {
  readonly indexMib: number;
  readonly cores: number;
  readonly drives: number;
}

export interface Projection {
  readonly seconds: number;
  readonly bottleneck: 'cores' | 'drives';
  /** Of the time that the bottleneck is busy, what the other station is. */
  readonly otherPart: number;
  readonly memoryMib: number;
}

/** Threads that asmt has on so many cores. */
export const threadsOf = (cores: number): number => Math.max(12, 2 * cores);

/** A step's time, memory and bottleneck on another machine. */
export function project(step: Step, rates: Pick<Rates, 'startSeconds' | 'ownMib'>, machine: Machine): Projection {
  const coresSeconds = machine.indexMib / (step.coreRate * machine.cores);
  const drivesSeconds = (machine.indexMib * step.part) / (step.driveRate * machine.drives);
  const isCores = coresSeconds >= drivesSeconds;
  const [most, least] = isCores ? [coresSeconds, drivesSeconds] : [drivesSeconds, coresSeconds];
  const aRoundMib = threadsOf(machine.cores) * CHUNK_MIB;
  const roundSeconds = (least * aRoundMib) / Math.max(machine.indexMib, aRoundMib);
  return {
    seconds: rates.startSeconds + most + roundSeconds,
    bottleneck: isCores ? 'cores' : 'drives',
    otherPart: least / most,
    memoryMib: rates.ownMib + threadsOf(machine.cores) * step.threadMib,
  };
}

/** What several pieces of work take, one after the other, as a rate. */
const together = (...rates: number[]): number => 1 / rates.reduce((sum, rate) => sum + 1 / rate, 0);

/**
 * The rates of a run, of its index of a real server's elements if it has one. A step's work is what
 * the run's processes used of the CPUs, their start apart; where the run has not noted that, it is
 * put together from the parts that were measured alone. Throws if a row is missing.
 */
export function ratesOf(run: Run, columns?: Columns, drive: { write?: number; read?: number } = {}): Rates {
  const shape = run.rows.some((row) => row.shape === 'real') ? 'real' : 'dense';
  const row = (what: string, of = shape): Row => {
    const found = run.rows.find((row) => row.shape === of && row.what === what);
    if (found === undefined) throw new Error(`the run has no row "${of}: ${what}"`);
    return found;
  };
  const rate = (what: string) => row(what).bytes_per_second / MIB;
  const start = row('asmt list', 'start-up');
  const core = (what: string, ...parts: string[]) => {
    const { cpu_seconds: used = 0, bytes } = row(what);
    const seconds = used - (start.cpu_seconds ?? 0);
    return seconds > 0 ? bytes / MIB / seconds : together(...parts.map((part) => rate(`limit: ${part}, 1 threads`)));
  };
  const [write, read] = [drive.write ?? rate('limit: write'), drive.read ?? rate('limit: read into memory')];
  const part = (what: string) => (row(what).file_bytes ?? 0) / row(what).bytes;
  const ownMib = (what: string) => (row(what).own_bytes ?? 0) / MIB;
  const threadMib = (what: string, plain: string) => Math.max(0, ownMib(what) - ownMib(plain)) / threadsOf(run.machine.cpus);

  const backup: Step = { name: 'backup', coreRate: core('backup', 'crc32'), driveRate: write, part: 1, threadMib: 0 };
  const backupZ: Step = {
    name: 'backup -z',
    coreRate: core('backup -z', 'encode index', 'crc32'),
    driveRate: write,
    part: part('backup -z'),
    threadMib: threadMib('backup -z', 'backup'),
  };
  const restore: Step = { ...backup, name: 'restore', coreRate: core('restore', 'crc32', 'fresh'), driveRate: read };
  const restoreZ: Step = {
    name: 'restore -z',
    coreRate: core('restore -z', 'decode index', 'crc32', 'fresh'),
    driveRate: read,
    part: part('backup -z'),
    threadMib: threadMib('restore -z', 'restore'),
  };
  const steps = [backup, backupZ, restore, restoreZ];
  if (columns) {
    // The same work as with -z, but for the codec's; and a chunk more of memory, for the columns.
    const instead = (step: Step, codec: string, own: number) =>
      1 / Math.max(1 / step.coreRate - 1 / rate(`limit: ${codec} index, 1 threads`) + 1 / own, 1 / own);
    const more = { part: columns.part, threadMib: backupZ.threadMib + CHUNK_MIB };
    steps.splice(2, 0, { ...backupZ, ...more, name: 'backup --columns', coreRate: instead(backupZ, 'encode', columns.encode) });
    more.threadMib = restoreZ.threadMib + CHUNK_MIB;
    steps.push({ ...restoreZ, ...more, name: 'restore --columns', coreRate: instead(restoreZ, 'decode', columns.decode) });
  }
  return { steps, startSeconds: start.seconds, ownMib: ownMib('backup') };
}

/** Seconds as people say them. */
export function duration(seconds: number): string {
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 120) return `${whole} s`;
  if (whole < 600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 120 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |\n`;
const heading = (cells: readonly string[]) => line(cells) + line(cells.map(() => '---'));

/** The rates that a table rests on, as Markdown. */
export function ratesTable({ steps, startSeconds, ownMib }: Rates): string {
  const shown = (step: Step) => [
    step.name,
    step.coreRate.toFixed(0),
    step.driveRate.toFixed(0),
    (100 * step.part).toFixed(1),
    step.threadMib.toFixed(1),
  ];
  return (
    heading(['step', 'MiB/s of index per core', 'MiB/s per drive', 'size, %', 'MiB per thread']) +
    steps.map((step) => line(shown(step))).join('') +
    `\nStart: ${startSeconds.toFixed(2)} s. Memory of the process without its threads' buffers: ${ownMib.toFixed(0)} MiB.\n`
  );
}

/** Time and bottleneck for each size, number of cores and of drives, and memory, as Markdown. */
export function projectionTable(
  rates: Rates,
  sizes: ReadonlyArray<{ name: string; indexMib: number }>,
  cores: readonly number[],
  drives: readonly number[],
): string {
  const cell = (step: Step, machine: Machine) => {
    const { seconds, bottleneck } = project(step, rates, machine);
    return `${duration(seconds)}, ${bottleneck}`;
  };
  const tables = sizes.map(({ name, indexMib }) => {
    const rows = cores.flatMap((cores) =>
      drives.map((drives) =>
        line([String(cores), String(drives), ...rates.steps.map((step) => cell(step, { indexMib, cores, drives }))]),
      ),
    );
    return `**${name}**\n\n${heading(['cores', 'drives', ...rates.steps.map((step) => step.name)])}${rows.join('')}\n`;
  });
  const memory = cores.map((cores) => {
    const mib = rates.steps.map((step) => project(step, rates, { indexMib: 0, cores, drives: 1 }).memoryMib.toFixed(0));
    return line([String(cores), String(threadsOf(cores)), ...mib]);
  });
  const head = heading(['cores', 'threads', ...rates.steps.map((step) => step.name)]);
  return `${tables.join('')}**Memory of the process, MiB** (of any size)\n\n${head}${memory.join('')}`;
}
