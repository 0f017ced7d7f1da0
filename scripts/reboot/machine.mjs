/**
 * Machines that can be rebooted: a real systemd in namespaces of its own, over an overlay of this
 * machine's files, with the package installed and a stand-in for the server.
 *
 * Promise: a machine's disk, its storage device and the file system of its backups outlive a
 * reboot; its shared memory does not. When this process ends, however it ends, nothing runs on.
 * Must never: run a command of a guest on this machine.
 */

import { spawn, spawnSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  rmdirSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { SIM } from '../setup.mjs';
import { packages } from './package.mjs';

const HERE = import.meta.dirname;
/** The control groups that systemd can use here. */
const CGROUPS = /^\S+ (\S+) cgroup2 /m.exec(readFileSync('/proc/self/mounts', 'utf8'))?.[1];
/** Units of a distribution that would touch what machines share, or that only cost time. */
const MASKED = [
  'systemd-sysctl.service',
  'systemd-firstboot.service',
  'systemd-journald-audit.socket',
  'systemd-logind.service',
  'systemd-random-seed.service',
  'systemd-timesyncd.service',
  'systemd-networkd.service',
  'systemd-resolved.service',
  'getty.target',
  'dbus.service',
  'dbus.socket',
  'timers.target',
];
/** The longest that anything takes here, on any machine. */
const PATIENCE_MS = 120_000;
export const DIRECTORY = '/var/backups/asmt';
const CONFIGURATION = `service {
  cluster-name test
}
namespace test {
  storage-engine device {
    device /dev/asd0
  }
}
`;

/** Stands in for `--replace`. */
const MOVE_AWAY = `#!/bin/sh -e
[ -d "$1" ] || exit 0
rm -rf "$1.old"
mkdir -m 700 "$1.old"
find "$1" -mindepth 1 -maxdepth 1 -exec mv -t "$1.old" {} +
`;

/** Why no machine can be booted here; null if it can. */
export function whyNot() {
  if (process.getuid() !== 0) return 'only root of the machine may boot another one';
  const [, , count] = readFileSync('/proc/self/uid_map', 'utf8').trim().split(/\s+/);
  if (count !== '4294967295') return 'only root of the machine may boot another one';
  if (CGROUPS === undefined) return 'there are no control groups of version 2';
  const missing = ['/lib/systemd/systemd', '/lib/systemd/systemd-journald'].find((path) => !existsSync(path));
  if (missing !== undefined) return `${missing} is missing`;
  const programs = ['unshare', 'nsenter', 'losetup', 'mkfs.ext4', 'dpkg', 'dpkg-deb', 'setpriv', 'strace'];
  const absent = programs.find((name) => spawnSync('sh', ['-c', `command -v ${name}`]).status !== 0);
  return absent === undefined ? null : `${absent} is missing`;
}

/** Waits until `condition` returns something that counts, and returns it. */
export async function until(what, condition, pauseMs = 20) {
  const end = Date.now() + PATIENCE_MS;
  for (;;) {
    const found = await condition();
    if (found) return found;
    if (Date.now() > end) throw new Error(`never came: ${what}`);
    await sleep(pauseMs);
  }
}

function must(command, args, options = {}) {
  const done = spawnSync(command, args, { encoding: 'utf8', maxBuffer: 2 ** 26, ...options });
  if (done.status === 0) return done.stdout;
  const how = done.error?.message ?? `ended with ${done.status ?? done.signal}`;
  throw new Error(`${command} ${args.join(' ')} ${how}\n${done.stdout}${done.stderr}`);
}

/** Returns true if a process has ended. */
const hasEnded = ({ exitCode, signalCode }) => exitCode !== null || signalCode !== null;

/** Starts a process that ends with its input, so with this one. Returns it and its first line. */
async function held(command, args) {
  const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  const gone = new Promise((done) => {
    child.once('close', done);
  });
  const line = await new Promise((done, fail) => {
    child.stdout.once('data', (data) => done(String(data).trim()));
    child.once('close', () => fail(new Error(`${command} ${args.join(' ')} has ended`)));
  });
  const end = () => {
    child.stdin.end();
    return gone;
  };
  return [{ pid: child.pid, end }, line];
}

/** What all machines are made of: a root file system with the package installed. */
export class Image {
  /** A directory for everything. */
  directory;
  /** The packages: the one that is installed, and a later one. */
  packages;
  /** What asmt can do: options of a backup, and whether it reports to systemd. */
  can;

  constructor(directory) {
    this.directory = directory;
    this.packages = packages(join(directory, 'packages'));
    for (const name of ['installed', 'installed-work', 'installed-root']) mkdirSync(join(directory, name));
    const upper = join(directory, 'installed');
    const put = (path, text, mode = 0o644) => {
      mkdirSync(dirname(join(upper, path)), { recursive: true });
      writeFileSync(join(upper, path), text, { mode });
    };
    put('etc/machine-id', `${randomUUID().replaceAll('-', '')}\n`);
    // Late, and beside the rest of the boot: only RequiresMountsFor= waits for it.
    put('etc/fstab', '/disk /var/backups none bind,nofail 0 0\n');
    put('etc/systemd/journald.conf', '[Journal]\nStorage=persistent\nReadKMsg=no\nAudit=no\nSyncIntervalSec=1s\n');
    put('etc/aerospike/aerospike.conf', CONFIGURATION);
    for (const name of ['opt/asd', 'var/lib/asd', 'var/log/journal', 'disk', 'old']) {
      mkdirSync(join(upper, name), { recursive: true });
    }
    mkdirSync(join(upper, 'usr', 'bin'), { recursive: true });
    copyFileSync(SIM, join(upper, 'opt', 'asd', 'asmt-sim'));
    cpSync(join(HERE, 'asd'), join(upper, 'usr', 'bin', 'asd'));
    put('usr/lib/systemd/system/aerospike.service', readFileSync(join(HERE, 'aerospike.service'), 'utf8'));
    // The unit's sandbox has a /proc of its own, which shows the boot of this machine.
    const bootId = '[Service]\nBindReadOnlyPaths=/run/boot_id:/proc/sys/kernel/random/boot_id\n';
    put('etc/systemd/system/asmt.service.d/00-boot-id.conf', bootId);
    // No unit that this machine has enabled.
    const script = `mount --bind "$1" "$1"; cd "$1"
      mount -t overlay overlay -o lowerdir=/,upperdir=installed,workdir=installed-work installed-root
      cd installed-root; mount -t proc proc proc; mount --rbind /dev dev
      find etc/systemd/system -mindepth 1 -maxdepth 1 ! -name asmt.service.d -exec rm -rf {} +
      for unit in ${MASKED.join(' ')}; do ln -s /dev/null etc/systemd/system/$unit; done
      cat > tmp/first.deb; chroot . dpkg --install --force-unsafe-io --force-depends /tmp/first.deb; rm tmp/first.deb
      chroot . systemctl --no-reload enable aerospike.service asmt.service
      chroot . sh -c 'asmt backup --help; cat /usr/lib/asmt/native/*.node /usr/lib/asmt/asmt.node 2>/dev/null | grep -ac EXTEND_TIMEOUT_USEC || true'`;
    const input = readFileSync(this.packages.first);
    const words = ['--mount', '--propagation', 'private', 'bash', '-euc', script, 'bash', directory];
    const text = must('unshare', words, { input });
    const has = (option) => text.includes(`--${option}`);
    this.can = {
      replace: has('replace'),
      wait: has('wait'),
      deadline: has('deadline'),
      notify: !text.trimEnd().endsWith('\n0'),
    };
    if (this.can.replace) return;
    // Until it can: the unit's command without the option, and older backups are moved away first.
    put('opt/asd/move-away', MOVE_AWAY, 0o755);
    put('etc/systemd/system/asmt.service.d/00-no-replace.conf', `[Service]\nExecStop=\n${this.backup()}\n`);
  }

  /** The unit's backup with other words before and behind it, as lines of a unit. */
  backup({ before = '', options = '' } = {}) {
    const command = `ExecStop=${before}/usr/bin/asmt backup ${this.can.replace ? '--replace ' : ''}${options} \${ASMT_DIR}`;
    return this.can.replace ? command : `ExecStop=/opt/asd/move-away \${ASMT_DIR}\n${command}`;
  }
}

/** A control group with everything in it; false if there is a process in it. */
function removeGroup(group) {
  const groups = spawnSync('find', [group, '-depth', '-type', 'd'], { encoding: 'utf8' }).stdout.trim().split('\n');
  try {
    for (const path of groups) rmdirSync(path);
    return true;
  } catch {
    return false;
  }
}

let machines = 0;

/** A machine. */
export class Machine {
  /** Boots so far, of all machines. */
  static boots = 0;
  /** Everything of it that stays from boot to boot. */
  directory;
  #image;
  #group;
  /** Its storage device, and the process that keeps it. */
  #device = null;
  isPluggedIn = true;
  /** The ids of its boots. */
  bootIds = [];
  /** The process that keeps its shared memory, as the kernel does. */
  #kernel = null;
  /** The process that has started systemd. */
  #boot = null;
  /** systemd, as this machine knows it. */
  #init = 0;

  constructor(image) {
    this.#image = image;
    machines += 1;
    this.directory = join(image.directory, `machine-${machines}`);
    this.#group = join(CGROUPS, `asmt-reboot-${process.pid}-${machines}`);
    for (const name of ['work', 'root', 'run']) mkdirSync(this.path(name), { recursive: true });
    must('cp', ['--archive', join(image.directory, 'installed'), this.path('upper')]);
    writeFileSync(this.path('backups.img'), '');
    truncateSync(this.path('backups.img'), 96 << 20);
    // The package has made the directory.
    mkdirSync(this.path('backups', 'asmt'), { recursive: true, mode: 0o700 });
    must('mkfs.ext4', ['-q', '-m', '0', '-d', this.path('backups'), this.path('backups.img')]);
    writeFileSync(this.path('device.img'), '');
    truncateSync(this.path('device.img'), 8 << 20);
  }

  path(...names) {
    return join(this.directory, ...names);
  }

  get image() {
    return this.#image;
  }

  /** Puts the storage device in; a boot does that by itself. Returns its minor number. */
  async plugIn() {
    this.isPluggedIn = true;
    // A device that is detached while it is open is there until it is closed.
    const script = 'd=$(losetup --find --show "$1"); exec 9< "$d"; losetup --detach "$d"; echo "$d"; exec cat';
    const [process, device] = await held('sh', ['-ec', script, 'sh', this.path('device.img')]);
    this.#device = process;
    rmSync(this.path('device'), { force: true });
    symlinkSync(device, this.path('device'));
    return Number(/\d+$/.exec(device)[0]);
  }

  /** Writes a file of its disk while it is off; null removes it. */
  write(path, text, mode = 0o644) {
    const file = this.path('upper', path);
    if (text === null) {
      rmSync(file, { force: true });
      return;
    }
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, text, { mode });
  }

  /** A drop-in of a unit, written while it is off. */
  dropIn(unit, text, name = 'test') {
    this.write(`etc/systemd/system/${unit}.d/${name}.conf`, text);
  }

  /** A file of the server's stand-in. */
  read(name) {
    const file = this.path('upper', 'var', 'lib', 'asd', name);
    return existsSync(file) ? readFileSync(file, 'utf8') : '';
  }

  /** What the server has logged. */
  get log() {
    return this.read('log').trim().split('\n');
  }

  get isOn() {
    return this.#boot !== null;
  }

  /** Switches it on: its memory is empty. Waits until systemd has started all. */
  async boot(options = {}) {
    rmSync(this.path('run'), { recursive: true, force: true });
    mkdirSync(this.path('run'));
    this.bootIds.push(randomUUID());
    writeFileSync(this.path('boot_id'), `${this.bootIds.at(-1)}\n`);
    [this.#kernel] = await held('unshare', ['--ipc', 'sh', '-c', 'echo ready; exec cat']);
    rmSync(this.path('device'), { force: true });
    if (this.isPluggedIn) await this.plugIn();
    await this.#start(options);
  }

  /** Starts systemd on the kernel that runs. */
  async #start({ isWaiting = true } = {}) {
    Machine.boots += 1;
    mkdirSync(this.#group);
    // Should this process end, it takes everything with it.
    const script = `echo $$ > ${this.#group}/cgroup.procs
      exec setpriv --pdeathsig KILL unshare --pid --fork --kill-child=KILL --mount --uts --cgroup --propagation private \
        ${join(HERE, 'init.sh')} ${this.directory}`;
    const words = [`--ipc=/proc/${this.#kernel.pid}/ns/ipc`, 'sh', '-c', script];
    const boot = spawn('nsenter', words, { stdio: ['ignore', 'pipe', 'pipe'] });
    let text = '';
    for (const stream of [boot.stdout, boot.stderr]) stream.on('data', (data) => (text += data));
    const gone = new Promise((done) => {
      boot.once('close', done);
    });
    this.#boot = { child: boot, gone };
    this.#init = await until(
      'systemd',
      () => {
        if (hasEnded(boot)) throw new Error(`systemd did not start\n${text}`);
        const children = readFileSync(`/proc/${boot.pid}/task/${boot.pid}/children`, 'utf8').trim();
        const isSystemd = /^\d+$/.test(children) && readFileSync(`/proc/${children}/comm`, 'utf8') === 'systemd\n';
        return isSystemd && Number(children);
      },
      5,
    );
    if (!isWaiting) return;
    await until('multi-user.target', () => {
      if (hasEnded(boot)) throw new Error(`systemd has ended\n${text}`);
      return this.try('systemctl', 'is-active', 'multi-user.target').status === 0;
    });
    await until('an end of all jobs', () => this.try('systemctl', 'list-jobs').stdout.includes('No jobs running'));
  }

  /** Runs a command on it, and returns how it ended. */
  try(command, ...args) {
    const words = ['--target', String(this.#init), '--mount', '--uts', '--ipc', '--pid', '--root', '--wd', '--', command];
    const env = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C.UTF-8', NO_COLOR: '1' };
    return spawnSync('nsenter', [...words, ...args], { encoding: 'utf8', env, maxBuffer: 2 ** 26 });
  }

  /** Runs a command on it, which must succeed. Returns its output. */
  run(command, ...args) {
    const done = this.try(command, ...args);
    if (done.status === 0) return done.stdout;
    throw new Error(`${command} ${args.join(' ')} ended with ${done.status ?? done.signal}\n${done.stdout}${done.stderr}`);
  }

  /** A property of a unit. */
  show(property, unit = 'asmt.service') {
    return this.run('systemctl', 'show', unit, '--property', property, '--value').trim();
  }

  /** A path of it, as this machine sees it while it runs. */
  seen(path) {
    return `/proc/${this.#init}/root${path}`;
  }

  /** The ids of its processes, as this machine knows them, whose command line matches. */
  processes(pattern) {
    const text = spawnSync('find', [this.#group, '-name', 'cgroup.procs', '-exec', 'cat', '{}', '+'], {
      encoding: 'utf8',
    }).stdout;
    const has = (pid) => {
      try {
        return pattern.test(readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' '));
      } catch {
        return false;
      }
    };
    return text
      .split('\n')
      .filter((pid) => pid !== '' && pid !== '0' && has(pid))
      .map(Number);
  }

  /** Waits until the server serves, and returns how it has started. */
  async serving(count = 1) {
    const pattern = /^(?:serving (\w+)|failed: .*)$/;
    const starts = () => this.log.filter((line) => pattern.test(line));
    const line = await until(`start ${count} of the server`, () => starts().at(count - 1));
    return pattern.exec(line)[1] ?? line;
  }

  /** How often the server has started to serve or failed to. */
  get starts() {
    return this.log.filter((line) => /^(serving|failed)/.test(line)).length;
  }

  /** The number of its segments, without looking into them. */
  get segments() {
    const words = [`--ipc=/proc/${this.#kernel.pid}/ns/ipc`, 'cat', '/proc/sysvipc/shm'];
    return must('nsenter', words).trim().split('\n').length - 1;
  }

  /** The sums of its segments, also while it is off but has not lost them yet. */
  memory() {
    return must('nsenter', [`--ipc=/proc/${this.#kernel.pid}/ns/ipc`, SIM, 'sum', '--all']);
  }

  /** Begins to shut it down, which may end the command that asks for it. */
  goDown(verb = 'reboot') {
    const done = this.try('systemctl', '--no-block', verb);
    if (done.status !== 0 && done.signal === null) throw new Error(done.stderr);
  }

  /** Shuts it down. Its memory stays until `loseMemory`, and is returned. */
  async shutDown(verb = 'reboot') {
    this.goDown(verb);
    await this.off();
    return this.memory();
  }

  /** Waits until it is off. */
  async off() {
    const { child } = this.#boot;
    await until('the end of the machine', () => hasEnded(child));
    await this.#boot.gone;
    await until('an empty control group', () => removeGroup(this.#group));
    this.#boot = null;
  }

  /** What a reboot does to memory. */
  async loseMemory() {
    for (const process of [this.#kernel, this.#device]) await process?.end();
    [this.#kernel, this.#device] = [null, null];
  }

  /** Reboots it. Returns what was in memory when it went down. */
  async reboot(options) {
    const memory = await this.shutDown();
    await this.loseMemory();
    await this.boot(options);
    return memory;
  }

  /** Starts systemd again, and everything with it, on the kernel that runs. */
  async softReboot() {
    const memory = await this.shutDown();
    await this.#start();
    return memory;
  }

  /** Cuts its power. */
  async cut() {
    // It may be off by itself already.
    if (!hasEnded(this.#boot.child)) process.kill(this.#init, 'SIGKILL');
    await this.off();
    await this.loseMemory();
  }

  /** Mounts its file system of backups while it is off, and calls a function with the place. */
  whileOff(work) {
    const place = this.path('mnt');
    mkdirSync(place, { recursive: true });
    must('mount', ['-o', 'loop', this.path('backups.img'), place]);
    try {
      return work(place);
    } finally {
      must('umount', [place]);
    }
  }

  /** Switches it off at the plug, and removes what it was made of. */
  async end() {
    if (this.#boot !== null) await this.cut();
    await this.loseMemory();
    // A directory that asmt has made is closed to others, not to root.
    rmSync(this.directory, { recursive: true, force: true });
  }

  /** What is said about it in its journal, for a failure. */
  journal() {
    if (this.#boot === null) return '';
    const done = this.try('journalctl', '--no-pager', '--output', 'short-monotonic', '--lines', '60', '--unit', 'asmt.service');
    return `${done.stdout}${this.log.join('\n')}\n`;
  }
}

/** What a machine must not leave behind on this one. */
export function traces(directory) {
  const lines = (text) => text.split('\n').filter((line) => line.includes(directory) || line.includes('asmt-reboot-'));
  const loops = spawnSync('losetup', ['--list', '--noheadings', '--output', 'NAME,BACK-FILE'], { encoding: 'utf8' }).stdout;
  const groups = readdirSync(CGROUPS).filter((name) => name.startsWith(`asmt-reboot-${process.pid}-`));
  const segments = readFileSync('/proc/sysvipc/shm', 'utf8').trim().split('\n').slice(1);
  return [...lines(readFileSync('/proc/self/mounts', 'utf8')), ...lines(loops), ...groups, ...segments];
}
