/**
 * The cases of `npm run test:reboot`: what happens to a machine, and what its node must do then.
 *
 * Promise: each case ends with a plain reboot that is warm again: nothing that happens costs more
 * than one restore.
 */

import { copyFileSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { DIRECTORY, until } from './machine.mjs';

/** Exit statuses of asmt. */
const [DONE, REFUSED, STALE, DAMAGED, NOTHING] = ['0', '3', '4', '5', '7'];
/** Where the last backup has failed: an older one is stale, or gone. */
const OUTDATED = [STALE, NOTHING];
/** Where the last backup was ended in its middle: the same, or there is nothing but its files. */
const INTERRUPTED = [DAMAGED, ...OUTDATED];
/** Each write of a file, or each read, takes this long: there is a middle of the work. */
const slow = (call, ms = 500) =>
  `/usr/bin/strace -D -f -qq -o /dev/null -e trace=${call} -e inject=${call}:delay_exit=${ms * 1000} `;

function same(what, found, expected) {
  const allowed = [expected].flat();
  if (!allowed.includes(found)) throw new Error(`${what}: found ${show(found)}, expected ${allowed.map(show).join(' or ')}`);
}

const show = (value) => JSON.stringify(value) ?? String(value);

/**
 * Checks what a boot has come to: what was in memory when the server started, how it started, and
 * how the unit's restore ended.
 */
async function booted(machine, { restore, server, memory = '' }, unit = 'active') {
  const starts = machine.expected + 1;
  const how = await machine.serving(starts);
  same('starts of the server', machine.starts, starts);
  machine.expected = starts;
  same('memory at the start of the server', machine.read('at-start'), memory);
  same('start of the server', how, server);
  same('state of the unit', machine.show('ActiveState'), unit);
  same('exit status of the restore', machine.show('ExecMainStatus'), restore);
  const left = machine.try('find', DIRECTORY, '-name', '.asmt-*').stdout;
  same('files that a run has left', left, '');
}

/** The first boot of a node: there is no backup, and the server makes its index. */
async function first(machine) {
  machine.expected = 0;
  await machine.boot();
  await booted(machine, { restore: NOTHING, server: 'cold' });
}

/** A reboot after which the node has what it had. */
async function warmReboot(machine) {
  const memory = await machine.reboot();
  if (!/^ae001000 /m.test(memory)) throw new Error(`the server has not stopped cleanly: ${memory}`);
  await booted(machine, { restore: DONE, server: 'warm', memory });
  return memory;
}

/** A reboot after which nothing can be restored. */
async function coldReboot(machine, restore = OUTDATED) {
  await machine.reboot();
  await booted(machine, { restore, server: 'cold' });
}

/** Stops the machine while it backs up, as `stop` does. */
async function inBackup(machine, stop) {
  machine.goDown();
  await until('a backup in its middle', () => {
    try {
      return readdirSync(machine.seen(DIRECTORY)).some((name) => name.startsWith('.asmt-'));
    } catch {
      return false;
    }
  });
  await sleep(600);
  await stop();
}

/** Each write of the unit's backup takes its time. */
function slowBackup(machine, more = '', ms) {
  const command = machine.image.backup({ before: slow('pwrite64', ms), options: '-t 1' });
  machine.dropIn('asmt.service', `[Service]\nSystemCallFilter=\n${more}ExecStop=\n${command}\n`, 'slow');
}

function removeDropIn(machine, unit, name) {
  machine.run('rm', `/etc/systemd/system/${unit}.d/${name}.conf`);
  machine.run('systemctl', 'daemon-reload');
}

/** Puts the backup of before the last reboot in the place of the last one. */
async function withOldBackup(machine) {
  machine.run('cp', '-a', DIRECTORY, `${DIRECTORY}.saved`);
  await warmReboot(machine);
  await machine.shutDown();
  await machine.loseMemory();
  machine.whileOff((place) => {
    rmSync(join(place, 'asmt'), { recursive: true });
    renameSync(join(place, 'asmt.saved'), join(place, 'asmt'));
  });
}

/** Starts the server as an operator may who does not use its unit. */
async function serverByHand(machine) {
  const command = 'setsid asd --config-file /etc/aerospike/aerospike.conf > /dev/null 2>&1 < /dev/null &';
  machine.run('sh', '-c', command);
  machine.expected += 1;
  return machine.serving(machine.expected);
}

export const CASES = [
  {
    name: 'plain reboot',
    isShort: true,
    async run(machine) {
      await first(machine);
      await warmReboot(machine);
      // Each boot has its own id, also for the unit.
      const manifest = machine.run('cat', `${DIRECTORY}/asmt-manifest-0-test.json`);
      const [, bootId] = /"boot_id": ?"([^"]+)"/.exec(manifest) ?? [];
      same('boot of the backup', bootId, machine.bootIds[0]);
    },
  },
  {
    name: 'ten reboots in a row',
    async run(machine) {
      await first(machine);
      for (let count = 0; count < 10; count += 1) await warmReboot(machine);
    },
  },
  {
    name: 'the disk of the backup is mounted late, and the network comes later still',
    async run(machine) {
      const service = (seconds) => `[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sleep ${seconds}\n`;
      machine.write('etc/systemd/system/disk.service', `[Unit]\nDefaultDependencies=no\n${service(1)}`);
      machine.write('etc/systemd/system/network.service', `[Unit]\nBefore=network-online.target\n${service(3)}`);
      machine.dropIn('network-online.target', '[Unit]\nRequires=network.service\nAfter=network.service\n');
      machine.write('etc/fstab', '/disk /var/backups none bind,nofail,x-systemd.requires=disk.service 0 0\n');
      await first(machine);
      await warmReboot(machine);
      const at = (property, unit) => Number(machine.show(`${property}TimestampMonotonic`, unit));
      const order = [
        at('ActiveEnter', 'var-backups.mount'),
        at('ExecMainStart', 'asmt.service'),
        at('ExecMainExit', 'asmt.service'),
        at('ActiveEnter', 'network-online.target'),
        at('ExecMainStart', 'aerospike.service'),
      ];
      same('order of mount, restore, network and server', order.join(), order.toSorted((a, b) => a - b).join());
    },
  },
  {
    name: 'the server crashes before the reboot',
    isShort: true,
    async run(machine) {
      await first(machine);
      await warmReboot(machine);
      machine.run('systemctl', 'kill', '--signal', 'KILL', 'aerospike.service');
      await until('the end of the server', () => machine.show('ActiveState', 'aerospike.service') === 'failed');
      await coldReboot(machine);
      await warmReboot(machine);
    },
  },
  {
    name: 'the server is killed at its time limit',
    async run(machine) {
      machine.dropIn('aerospike.service', '[Service]\nTimeoutStopSec=1\n');
      machine.write('etc/asd', 'SECONDS_TO_STOP=60\n');
      await first(machine);
      await coldReboot(machine);
      machine.run('rm', '/etc/asd');
      machine.run('systemctl', 'restart', 'aerospike.service');
      machine.expected += 1;
      await machine.serving(machine.expected);
      await warmReboot(machine);
    },
  },
  {
    name: 'the power goes while the server runs',
    async run(machine) {
      await first(machine);
      await warmReboot(machine);
      await machine.cut();
      await machine.boot();
      await booted(machine, { restore: STALE, server: 'cold' });
      await warmReboot(machine);
    },
  },
  {
    name: 'the power goes during a backup',
    async run(machine) {
      await first(machine);
      await warmReboot(machine);
      slowBackup(machine);
      machine.run('systemctl', 'daemon-reload');
      await inBackup(machine, () => machine.cut());
      const left = machine.whileOff((place) => readdirSync(join(place, 'asmt')));
      if (!left.some((name) => name.startsWith('.asmt-'))) throw new Error(`not in its middle: ${left.join(' ')}`);
      machine.dropIn('asmt.service', '', 'slow');
      await machine.boot();
      same('starts of the server', await machine.serving(machine.expected + 1), 'cold');
      machine.expected += 1;
      same('exit status of the restore', machine.show('ExecMainStatus'), INTERRUPTED);
      await warmReboot(machine);
    },
  },
  {
    name: 'the power goes during a restore',
    isShort: true,
    async run(machine) {
      await first(machine);
      const memory = await machine.shutDown();
      await machine.loseMemory();
      const command = `ExecStart=\nExecStart=-${slow('pread64')}/usr/bin/asmt restore -t 1 \${ASMT_DIR}`;
      machine.dropIn('asmt.service', `[Service]\nSystemCallFilter=\n${command}\n`, 'slow');
      for (let count = 0; count < 2; count += 1) {
        await machine.boot({ isWaiting: false });
        await until('a restore in its middle', () => machine.segments > 0);
        await sleep(600);
        same('starts of the server', machine.starts, 1);
        await machine.cut();
      }
      machine.dropIn('asmt.service', '', 'slow');
      await machine.boot();
      await booted(machine, { restore: DONE, server: 'warm', memory });
      await warmReboot(machine);
    },
  },
  {
    name: 'the backup is stale',
    async run(machine) {
      await first(machine);
      await warmReboot(machine);
      await withOldBackup(machine);
      await machine.boot();
      await booted(machine, { restore: STALE, server: 'cold' });
      await warmReboot(machine);
    },
  },
  {
    name: 'the disk is full',
    async run(machine) {
      await first(machine);
      machine.try('dd', 'if=/dev/zero', 'of=/var/backups/filler', 'bs=1M');
      await coldReboot(machine);
      machine.run('rm', '/var/backups/filler');
      await warmReboot(machine);
    },
  },
  {
    name: 'the directory is missing, at a stop and at a start',
    async run(machine) {
      await first(machine);
      machine.run('rm', '-r', DIRECTORY);
      await warmReboot(machine);
      machine.run('rm', '-r', DIRECTORY);
      await machine.cut();
      await machine.boot();
      await booted(machine, { restore: NOTHING, server: 'cold' });
      await warmReboot(machine);
    },
  },
  {
    name: 'the file system of the backup cannot be mounted',
    async run(machine) {
      await first(machine);
      await machine.shutDown();
      await machine.loseMemory();
      machine.write('etc/fstab', 'tmpfs /var/backups tmpfs nofail,size=wrong 0 0\n');
      await machine.boot();
      await booted(machine, { restore: '0', server: 'cold' }, 'inactive');
      machine.run('mount', '--bind', '/disk', '/var/backups');
      machine.run('sh', '-c', "echo '/disk /var/backups none bind,nofail 0 0' > /etc/fstab");
      machine.run('systemctl', 'daemon-reload');
      // The server has run, so the backup is stale; the unit is there for the next one.
      machine.run('systemctl', 'start', 'asmt.service');
      same('exit status of the restore', machine.show('ExecMainStatus'), STALE);
      await warmReboot(machine);
    },
  },
  {
    name: 'the unit is stopped, and the server is started by hand',
    async run(machine) {
      await first(machine);
      machine.run('systemctl', 'stop', 'aerospike.service', 'asmt.service');
      same('files of the backup', machine.run('ls', DIRECTORY).includes('asmt-manifest-0-test.json'), true);
      same('start by hand', await serverByHand(machine), 'warm');
      await coldReboot(machine, STALE);
      await warmReboot(machine);
    },
  },
  {
    name: 'the server is started by hand beside the unit',
    async run(machine) {
      await first(machine);
      machine.run('systemctl', 'stop', 'aerospike.service');
      same('start by hand', await serverByHand(machine), 'warm');
      // Its processes end last of all: there is nothing to back up before.
      await coldReboot(machine);
      await warmReboot(machine);
    },
  },
  {
    name: 'the unit is stopped, and the server is started through its own',
    async run(machine) {
      await first(machine);
      machine.run('systemctl', 'stop', 'aerospike.service', 'asmt.service');
      machine.run('systemctl', 'start', 'aerospike.service');
      machine.expected += 1;
      same('start of the server', await machine.serving(machine.expected), 'warm');
      same('state of the unit', machine.show('ActiveState'), 'active');
      same('exit status of the restore', machine.show('ExecMainStatus'), NOTHING);
      await warmReboot(machine);
    },
  },
  {
    name: 'the unit is stopped while the server runs',
    async run(machine) {
      await first(machine);
      machine.run('systemctl', 'stop', 'asmt.service');
      same('state of the unit', machine.try('systemctl', 'is-failed', 'asmt.service').stdout.trim(), 'failed');
      same('state of the server', machine.show('ActiveState', 'aerospike.service'), 'active');
      machine.run('systemctl', 'start', 'asmt.service');
      same('state of the unit', machine.show('ActiveState'), 'active');
      await warmReboot(machine);
    },
  },
  {
    name: 'the server alone is restarted',
    async run(machine) {
      await first(machine);
      const invocation = machine.show('InvocationID');
      for (let count = 0; count < 2; count += 1) {
        machine.run('systemctl', 'restart', 'aerospike.service');
        machine.expected += 1;
        same('start of the server', await machine.serving(machine.expected), 'warm');
      }
      same('invocation of the unit', machine.show('InvocationID'), invocation);
      await warmReboot(machine);
    },
  },
  {
    name: 'asmt is killed during a backup',
    async run(machine) {
      slowBackup(machine);
      await first(machine);
      await inBackup(machine, async () => {
        for (const pid of machine.processes(/asmt.* backup/)) process.kill(pid, 'SIGKILL');
        await machine.off();
        await machine.loseMemory();
      });
      machine.dropIn('asmt.service', '', 'slow');
      await machine.boot();
      same('start of the server', await machine.serving(machine.expected + 1), 'cold');
      machine.expected += 1;
      same('exit status of the restore', machine.show('ExecMainStatus'), INTERRUPTED);
      await warmReboot(machine);
    },
  },
  {
    name: 'a restore is refused because a device is missing, and made by hand later',
    async run(machine) {
      await first(machine);
      const memory = await machine.shutDown();
      await machine.loseMemory();
      machine.isPluggedIn = false;
      await machine.boot();
      same('start of the server', /cannot open/.test(await machine.serving(2)), true);
      same('state of the unit', machine.show('ActiveState'), 'active');
      same('exit status of the restore', machine.show('ExecMainStatus'), REFUSED);
      machine.run('mknod', '/dev/asd0', 'b', '7', String(await machine.plugIn()));
      machine.run('asmt', 'restore', DIRECTORY);
      machine.run('systemctl', 'restart', 'aerospike.service');
      machine.expected = 3;
      same('start of the server', await machine.serving(3), 'warm');
      same('memory at the start of the server', machine.read('at-start'), memory);
      await warmReboot(machine);
    },
  },
  {
    name: "the unit's time limit is shorter than the backup",
    async run(machine) {
      slowBackup(machine, 'TimeoutStopSec=1\n');
      await first(machine);
      if (machine.image.can.notify) return;
      await coldReboot(machine);
      removeDropIn(machine, 'asmt.service', 'slow');
      await warmReboot(machine);
    },
  },
  {
    name: 'a backup that makes progress gets more time',
    needs: 'notify',
    async run(machine) {
      slowBackup(machine, 'TimeoutStopSec=2\n');
      await first(machine);
      await warmReboot(machine);
    },
  },
  {
    name: "a backup's own deadline is shorter than the work",
    needs: 'deadline',
    async run(machine) {
      slowBackup(machine, 'Environment=ASMT_DEADLINE=2s\n');
      await first(machine);
      await coldReboot(machine);
      removeDropIn(machine, 'asmt.service', 'slow');
      await warmReboot(machine);
    },
  },
  {
    name: 'a backup waits for a server that was started by hand, and is stopped meanwhile',
    needs: 'wait',
    async run(machine) {
      await first(machine);
      machine.run('systemctl', 'stop', 'aerospike.service');
      same('start by hand', await serverByHand(machine), 'warm');
      machine.dropIn('asmt.service', '[Service]\nEnvironment=ASMT_WAIT=60s\n', 'wait');
      machine.run('systemctl', 'daemon-reload');
      machine.run('systemctl', '--no-block', 'stop', 'asmt.service');
      await until('a wait', () => machine.show('ActiveState') === 'deactivating');
      await sleep(1000);
      machine.run('pkill', '-TERM', '-o', '-x', 'asd');
      await until('the end of the backup', () => machine.show('ActiveState') === 'inactive');
      const memory = await machine.reboot();
      await booted(machine, { restore: DONE, server: 'warm', memory });
      await warmReboot(machine);
    },
  },
  {
    name: "the reboot's time limit is shorter than the backup",
    async run(machine) {
      // Well above the limit, and well below it before the backup begins, on a busy machine, too.
      slowBackup(machine, '', 1500);
      machine.dropIn('reboot.target', '[Unit]\nJobTimeoutSec=3\nJobTimeoutAction=reboot-force\n');
      await first(machine);
      await machine.reboot();
      same('start of the server', await machine.serving(2), 'cold');
      machine.expected = 2;
      same('exit status of the restore', machine.show('ExecMainStatus'), INTERRUPTED);
      removeDropIn(machine, 'asmt.service', 'slow');
      removeDropIn(machine, 'reboot.target', 'test');
      await warmReboot(machine);
    },
  },
  {
    name: 'soft reboot: segments stay',
    async run(machine) {
      await first(machine);
      const memory = await machine.softReboot();
      await booted(machine, { restore: NOTHING, server: 'warm', memory });
      await warmReboot(machine);
    },
  },
  {
    name: 'the package is upgraded between two reboots',
    async run(machine) {
      copyFileSync(machine.image.packages.later, machine.path('upper', 'opt', 'asd', 'later.deb'));
      await first(machine);
      await warmReboot(machine);
      machine.run('sh', '-c', 'echo ASMT_THREADS=2 >> /etc/default/asmt');
      const invocation = machine.show('InvocationID');
      machine.run('dpkg', '--force-unsafe-io', '--force-confold', '--install', '/opt/asd/later.deb');
      same('state of the unit', machine.show('ActiveState'), 'active');
      same('invocation of the unit', machine.show('InvocationID'), invocation);
      same('starts of the server', machine.starts, machine.expected);
      await warmReboot(machine);
      same('environment of the unit', /LATER=1/.test(machine.show('Environment')), true);
      same('settings', /^ASMT_THREADS=2$/m.test(machine.run('cat', '/etc/default/asmt')), true);
      await warmReboot(machine);
    },
  },
  {
    name: 'the unit is disabled and ASMT used instead, and back (its files are made by asmt export)',
    async run(machine) {
      const files = '/var/backups/files';
      await first(machine);
      machine.run('systemctl', 'stop', 'aerospike.service');
      machine.run('systemctl', 'disable', '--now', 'asmt.service');
      machine.run('systemctl', 'disable', 'aerospike.service');
      machine.run('asmt', 'export', DIRECTORY, files);
      const memory = await machine.reboot();
      same('segments', machine.segments, 0);
      same('state of the unit', machine.show('ActiveState'), 'inactive');
      machine.run('asmt', '-r', '-p', files);
      same('memory', machine.memory(), memory);
      machine.run('systemctl', 'start', 'aerospike.service');
      same('start of the server', await machine.serving(2), 'warm');
      same('state of the unit', machine.show('ActiveState'), 'inactive');
      // And back, while the server runs.
      machine.run('systemctl', 'enable', '--now', 'asmt.service');
      machine.run('systemctl', 'enable', 'aerospike.service');
      machine.expected = 2;
      await warmReboot(machine);
      // A backup that ASMT has made is restored by the unit.
      machine.run('systemctl', 'stop', 'aerospike.service', 'asmt.service');
      machine.run('rm', '-r', files);
      machine.run('asmt', 'export', DIRECTORY, files);
      const last = await machine.shutDown();
      await machine.loseMemory();
      machine.whileOff((place) => {
        rmSync(join(place, 'asmt'), { recursive: true });
        renameSync(join(place, 'files'), join(place, 'asmt'));
      });
      await machine.boot();
      await booted(machine, { restore: DONE, server: 'warm', memory: last });
      await warmReboot(machine);
    },
  },
  {
    name: 'policy hold: a refused restore holds the server, nothing to do does not',
    async run(machine) {
      const drop = '/etc/systemd/system/asmt.service.d/hold.conf';
      await first(machine);
      machine.run('install', '-D', '-m', '644', '/usr/share/asmt/hold.conf', drop);
      machine.run('systemctl', 'daemon-reload');
      machine.run('systemctl', 'reenable', 'asmt.service');
      await warmReboot(machine);
      // Everything is in memory.
      const memory = await machine.softReboot();
      await booted(machine, { restore: NOTHING, server: 'warm', memory });
      await warmReboot(machine);
      await withOldBackup(machine);
      await machine.boot();
      same('state of the unit', machine.show('ActiveState'), 'failed');
      same('exit status of the restore', machine.show('ExecMainStatus'), STALE);
      same('state of the server', machine.show('ActiveState', 'aerospike.service'), 'inactive');
      same('starts of the server', machine.starts, machine.expected);
      // As the drop-in says.
      machine.run('mv', DIRECTORY, `${DIRECTORY}-refused`);
      machine.run('systemctl', 'start', 'asmt.service', 'aerospike.service');
      await booted(machine, { restore: NOTHING, server: 'cold' });
      await warmReboot(machine);
      machine.run('rm', drop);
      machine.run('systemctl', 'daemon-reload');
      machine.run('systemctl', 'reenable', 'asmt.service');
      same('needed by the server', machine.show('Requires', 'aerospike.service').includes('asmt'), false);
      await warmReboot(machine);
    },
  },
];
