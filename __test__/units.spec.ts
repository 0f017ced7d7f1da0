/**
 * What the packages ship for systemd, as systemd reads it. What the unit does at a reboot is tested
 * by `npm run test:reboot`.
 */

import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

import test, { type ExecutionContext } from 'ava';

import { OPTIONS } from '../src/options.ts';
import { Machine, ROOT, run, show, testIf } from './helpers.ts';

/** A file that the packages have. */
interface Shipped {
  readonly src: string;
  readonly dst: string;
  readonly type?: string;
}

// A script, which has no types.
const { UNIT_FILES } = (await import(join(ROOT, 'scripts', 'package', 'linux.mjs'))) as { UNIT_FILES: readonly Shipped[] };
const UNIT = readFileSync(join(ROOT, 'share', 'systemd', 'asmt.service'), 'utf8');
const HOLD = readFileSync(join(ROOT, 'share', 'systemd', 'hold.conf'), 'utf8');
const SETTINGS = readFileSync(join(ROOT, 'share', 'default', 'asmt'), 'utf8');
/** The most exposed that the unit may be, as `systemd-analyze security` has it. */
const MOST_EXPOSED = 2.5;

const testWithAnalyze = testIf(
  /--offline/.test(spawnSync('systemd-analyze', ['--help'], { encoding: 'utf8' }).stdout ?? ''),
  'systemd-analyze is missing, or cannot judge a unit that is not loaded',
);

/** All values of a setting. */
function values(unit: string, name: string): string[] {
  return [...unit.matchAll(new RegExp(`^${name}=(.*)$`, 'gm'))].map(([, value = '']) => value);
}

/** A root directory with what the packages ship, and a program that is executable. */
async function installed(t: ExecutionContext): Promise<string> {
  const machine = await Machine.start(t);
  const put = (path: string, text: string, mode = 0o644) => {
    mkdirSync(dirname(machine.path('root', path)), { recursive: true });
    writeFileSync(machine.path('root', path), text, { mode });
  };
  for (const { src, dst } of UNIT_FILES) put(dst, readFileSync(join(ROOT, src), 'utf8'));
  put('/usr/bin/asmt', '#!/bin/sh\n', 0o755);
  return machine.path('root');
}

testWithAnalyze('the unit is no more exposed than it has to be', async (t) => {
  const words = ['security', '--offline=true', '--no-pager', `--threshold=${MOST_EXPOSED * 10}`];
  const done = await run('systemd-analyze', [...words, join(ROOT, 'share', 'systemd', 'asmt.service')]);
  t.is(done.status, 0, show(done));
  const [, exposed] = /Overall exposure level for asmt\.service: ([0-9.]+)/.exec(done.stdout) ?? [];
  t.true(Number(exposed) > 0 && Number(exposed) <= MOST_EXPOSED, show(done));
});

testWithAnalyze('systemd finds nothing wrong with the unit and with its drop-in', async (t) => {
  const root = await installed(t);
  const unit = join(root, 'usr', 'lib', 'systemd', 'system', 'asmt.service');
  const check = async () => {
    const done = await run('systemd-analyze', [`--root=${root}`, 'verify', '--man=no', '--recursive-errors=no', unit]);
    const about = done.stderr.split('\n').filter((line) => line.includes('asmt') && !line.includes('is not executable'));
    t.deepEqual(about, [], show(done));
  };
  await check();
  const directory = join(root, 'etc', 'systemd', 'system', 'asmt.service.d');
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, 'hold.conf'), HOLD);
  await check();
  writeFileSync(join(directory, 'wrong.conf'), '[Service]\nType=asmt\n');
  const wrong = await run('systemd-analyze', [`--root=${root}`, 'verify', '--man=no', '--recursive-errors=no', unit]);
  t.regex(wrong.stderr, /wrong\.conf/, show(wrong));
});

test('the unit comes before the server, after the file system of the backup, and not after the network', (t) => {
  t.deepEqual(values(UNIT, 'Before'), ['aerospike.service']);
  t.deepEqual(values(UNIT, 'RequiresMountsFor'), ['/var/backups/asmt']);
  for (const name of ['After', 'Requires', 'Wants', 'BindsTo', 'PrivateIPC', 'ProcSubset', 'PrivateTmp']) {
    t.deepEqual(values(UNIT, name), [], name);
  }
});

test('in the policy cold no restore costs the next backup, and no limit of systemd ends a backup', (t) => {
  t.deepEqual(values(UNIT, 'ExecStart'), ['-/usr/bin/asmt restore ${ASMT_DIR}']);
  t.deepEqual(values(UNIT, 'RemainAfterExit'), ['yes']);
  t.deepEqual(values(UNIT, 'TimeoutStartSec'), ['15min']);
  t.deepEqual(values(UNIT, 'TimeoutStopSec'), ['infinity']);
  t.deepEqual(values(UNIT, 'EnvironmentFile'), ['-/etc/default/asmt']);
  t.deepEqual(values(UNIT, 'Environment'), ['ASMT_DIR=/var/backups/asmt']);
});

test('the policy hold differs in nothing but what becomes of a refused restore', (t) => {
  const [start = ''] = values(UNIT, 'ExecStart');
  t.deepEqual(values(HOLD, 'ExecStart'), ['', start.slice(1)]);
  const settings = HOLD.split('\n').filter((line) => /^[A-Z]\w+=/.test(line));
  t.deepEqual(
    settings.map((line) => line.split('=')[0]),
    ['ExecStart', 'ExecStart', 'RequiredBy'],
  );
});

test('the settings name variables of options, and set none', (t) => {
  const names = new Set(OPTIONS.map(({ name }) => `ASMT_${name.toUpperCase().replaceAll('-', '_')}`));
  const lines = SETTINGS.split('\n').filter((line) => line !== '');
  t.deepEqual(
    lines.filter((line) => !line.startsWith('#')),
    [],
  );
  const named = lines.map((line) => /^#(ASMT_\w+)=/.exec(line)?.[1]).filter((name) => name !== undefined);
  t.true(named.length > 3);
  // The directory's option has another name.
  t.deepEqual(
    named.filter((name) => name !== 'ASMT_DIR' && !names.has(name)),
    [],
  );
});

test('the packages put them where systemd looks, and the settings are a file of the configuration', (t) => {
  const places = Object.fromEntries(UNIT_FILES.map(({ src, dst, type }) => [src, [dst, type ?? '']]));
  t.deepEqual(places, {
    'share/systemd/asmt.service': ['/usr/lib/systemd/system/asmt.service', ''],
    'share/systemd/hold.conf': ['/usr/share/asmt/hold.conf', ''],
    'share/default/asmt': ['/etc/default/asmt', 'config|noreplace'],
  });
});
