/**
 * Times as systemd reads them (systemd.time(7)): `90s`, `10min`, `1h 30min`, `infinity`; a number
 * alone means seconds. Pure.
 */

const UNITS: Readonly<Record<string, number>> = {
  ms: 1,
  msec: 1,
  s: 1_000,
  sec: 1_000,
  second: 1_000,
  seconds: 1_000,
  m: 60_000,
  min: 60_000,
  minute: 60_000,
  minutes: 60_000,
  h: 3_600_000,
  hr: 3_600_000,
  hour: 3_600_000,
  hours: 3_600_000,
  d: 86_400_000,
  day: 86_400_000,
  days: 86_400_000,
};

/** `infinity`, in milliseconds: the engine takes it for a time that nobody has typed. */
export const FOREVER_MS = Number.MAX_SAFE_INTEGER;
/** Longest time that can be typed, in milliseconds: a year. */
const MOST_MS = 366 * 86_400_000;

/** A time in milliseconds, at least 1; null if it is none, or is longer than a year. */
export function timeMs(typed: string): number | null {
  const text = typed.trim().toLowerCase();
  if (text === 'infinity') return FOREVER_MS;
  const parts = [...text.matchAll(/(\d{1,12}(?:\.\d{1,6})?)\s*([a-z]*)\s*/gy)];
  if (parts.length === 0 || parts.map(([part]) => part).join('') !== text) return null;
  const values = parts.map(([, number, unit]) => {
    // `1h 30` is unclear.
    const scale = unit === '' ? (parts.length === 1 ? 1_000 : undefined) : UNITS[unit ?? ''];
    return scale === undefined ? Number.NaN : Number(number) * scale;
  });
  const sum = Math.round(values.reduce((all, value) => all + value, 0));
  return sum >= 1 && sum <= MOST_MS ? sum : null;
}

/** A time as it is typed: the largest unit that holds it in whole numbers. */
export function typedTime(ms: number): string {
  if (ms === FOREVER_MS) return 'infinity';
  for (const unit of ['d', 'h', 'min', 's']) {
    const scale = UNITS[unit] ?? 1;
    if (ms % scale === 0) return `${ms / scale}${unit}`;
  }
  return `${ms}ms`;
}
