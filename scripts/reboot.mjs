/**
 * `npm run test:reboot`: machines with a real systemd and the package's unit are rebooted, and lose
 * power, in all the ways that docs/REBOOTS.md lists (`-- --only TEXT`: the cases whose name has
 * it; `--list`: their names; `--short`: those that `npm test` runs; `--built`: without a build).
 *
 * Promise: does the missing set-up by itself; prints a line of TAP for each case, and the counts at
 * the end; exit status 1 if a case fails, or if something is left on this machine.
 */

import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

import { CASES } from './reboot/cases.mjs';
import { Image, Machine, traces, whyNot } from './reboot/machine.mjs';
import { MAIN, SIM, build, install, temporaries } from './setup.mjs';

const { values } = parseArgs({
  options: { short: { type: 'boolean' }, built: { type: 'boolean' }, list: { type: 'boolean' }, only: { type: 'string' } },
});
const has = ({ name, isShort }) => (values.short ? isShort === true : values.only === undefined || name.includes(values.only));
const chosen = CASES.filter(has);
if (values.list) {
  for (const { name } of chosen) process.stdout.write(`${name}\n`);
  process.exit(0);
}
if (chosen.length === 0) {
  process.stderr.write(`error: no case has '${values.only}' in its name\nHINT: npm run test:reboot -- --list\n`);
  process.exit(2);
}

const counts = { passed: 0, failed: 0, skipped: 0 };
const why = whyNot();
if (why !== null) {
  for (const { name } of chosen) tap(name, null, why);
  end();
}
// `npm test` has built everything.
if (!values.built && !(values.short && [MAIN, SIM].every(existsSync))) {
  install();
  build();
}

const scratch = mkdtempSync(join(temporaries(), 'asmt-reboot-'));
process.on('exit', () => rmSync(scratch, { recursive: true, force: true }));
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => process.exit(1));
const before = traces(scratch);
const image = new Image(scratch);
process.stdout.write(`# package: ${image.packages.of}\n`);
if (!image.can.replace) process.stdout.write('# asmt has no --replace yet: older backups are moved away first\n');
for (const each of chosen) await attempt(each);
const left = traces(scratch).filter((trace) => !before.includes(trace));
tap('nothing is left on this machine', left.length > 0 ? left.join('\n') : null);
end();

async function attempt({ name, needs, run }) {
  if (needs !== undefined && !image.can[needs]) {
    tap(name, null, needs === 'notify' ? 'asmt does not report to systemd yet' : `asmt backup has no --${needs} yet`);
    return;
  }
  const since = performance.now();
  const machine = new Machine(image);
  let failure = null;
  try {
    await run(machine);
  } catch (error) {
    failure = `${error.stack}\n${machine.journal()}`;
  }
  try {
    await machine.end();
  } catch (error) {
    failure = `${failure ?? ''}${error.stack}`;
  }
  tap(name, failure, undefined, ` (${((performance.now() - since) / 1000).toFixed(0)} s)`);
}

/** Prints a line for a case, and counts it. */
function tap(name, failure, skipped, note = '') {
  const number = counts.passed + counts.failed + counts.skipped + 1;
  counts[skipped !== undefined ? 'skipped' : failure === null ? 'passed' : 'failed'] += 1;
  const directive = skipped === undefined ? '' : ` # SKIP ${skipped}`;
  process.stdout.write(`${failure === null ? '' : 'not '}ok ${number} - reboot: ${name}${note}${directive}\n`);
  if (failure !== null) process.stdout.write(`${failure.trimEnd().replaceAll(/^/gm, '# ')}\n`);
}

function end() {
  const { passed, failed, skipped } = counts;
  process.stdout.write(`1..${passed + failed + skipped}\n`);
  process.stdout.write(`# reboots: ${passed} passed, ${failed} failed, ${skipped} skipped, ${Machine.boots} boots\n`);
  process.exit(failed === 0 ? 0 : 1);
}
