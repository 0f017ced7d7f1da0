/** The unit of docs/OPERATIONS.md, under a real systemd. */

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { MAIN, Machine, ROOT, run, until } from './helpers.ts';
import { Systemd, testWithSystemd, writeServerUnit } from './systemd.ts';

/** The unit in the document, with the paths of this machine. */
function unit(replacements: Readonly<Record<string, string>>): string {
  const document = readFileSync(join(ROOT, 'docs', 'OPERATIONS.md'), 'utf8');
  const [, text = ''] = /```ini\n# \/etc\/systemd\/system\/asmt-restore\.service\n([^`]+)```/.exec(document) ?? [];
  return Object.entries(replacements).reduce((changed, [from, to]) => {
    if (!changed.includes(from)) throw new Error(`the unit has no ${from}: ${changed}`);
    return changed.replaceAll(from, to);
  }, text);
}

testWithSystemd(
  'the unit of docs/OPERATIONS.md restores before the server starts, and holds it back if that fails',
  async (t) => {
    t.timeout(300_000);
    const machine = await Machine.startHost(t);
    const directory = machine.path('b');
    await machine.sim('make', '--stage-size', '64KiB');
    const before = await machine.memory();
    const asmt = machine.path('asmt');
    const environment = `ASMT_CONFIG='${machine.config}' ASMT_RUNTIME_DIR='${machine.path('run')}'`;
    writeFileSync(asmt, `#!/bin/sh\n${environment} exec '${process.execPath}' '${MAIN}' "$@"\n`, { mode: 0o755 });
    const units = machine.path('etc', 'systemd', 'system');
    mkdirSync(units, { recursive: true });
    // Nothing else of a whole system is started here.
    const here = { '/usr/local/bin/asmt': asmt, '/var/backups/asmt': directory, '[Unit]\n': '[Unit]\nDefaultDependencies=no\n' };
    writeFileSync(join(units, 'asmt-restore.service'), unit(here));
    writeServerUnit(machine, '/bin/sleep infinity');
    const verified = await run('systemd-analyze', ['verify', join(units, 'asmt-restore.service')]);
    t.notRegex(verified.stderr, /asmt-restore\.service:/, verified.stderr);

    let systemd = await Systemd.boot(t, machine);
    const isActive = async (name: string) => (await machine.exec('systemctl', ['is-active', name])).stdout.trim();
    await systemd.run('systemctl', 'enable', 'asmt-restore.service');
    // No backup yet: the server starts.
    await systemd.run('systemctl', 'start', 'aerospike.service');
    t.is(await isActive('aerospike.service'), 'active');
    await systemd.run('systemctl', 'stop', 'aerospike.service');
    await machine.expect(0, ['backup', directory]);

    const reboot = async () => {
      await systemd.end();
      await machine.reboot();
      systemd = await Systemd.boot(t, machine);
    };
    await reboot();
    await systemd.run('systemctl', 'start', 'aerospike.service');
    t.is(await machine.memory(), before);
    // Once per boot: a restart of the server causes no other restore.
    await systemd.run('systemctl', 'restart', 'aerospike.service');
    t.is(await isActive('aerospike.service'), 'active');

    // The backup is used now: the server waits for a decision, and starts without the unit.
    await reboot();
    t.not((await machine.exec('systemctl', ['start', 'aerospike.service'])).status, 0);
    t.is(await isActive('asmt-restore.service'), 'failed');
    t.not(await isActive('aerospike.service'), 'active');
    await systemd.run('systemctl', 'disable', 'asmt-restore.service');
    await systemd.run('systemctl', 'start', 'aerospike.service');
    await until('the server', async () => (await isActive('aerospike.service')) === 'active');
    t.is(await machine.memory(), '');
  },
);
