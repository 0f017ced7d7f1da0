/**
 * Backups that go from one architecture and C library to another, for `npm run test:arch`.
 *
 * Promise: what is restored is compared to the last byte, by the simulator of this machine; files
 * of data are compared with those that this machine writes. Must never: run outside an IPC
 * namespace that belongs to the caller, because it removes all segments of Aerospike's.
 */

import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmodSync, chownSync, cpSync, existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { ROOT } from './setup.mjs';

const GOLDEN = join(ROOT, '__test__', 'fixtures', 'golden');
const INSTANCES = { 'gz-crc-all': 3, 'gz-index': 0, 'raw-all': 1, 'raw-data-only': 0, 'raw-index': 0 };
/** Only the machine's own root can give files to another user. */
const NEEDS_ROOT = new Set(['raw-all']);

const FORMS = { plain: [], '-z': ['-z'], '-Z': ['-Z'] };
/** A namespace that has everything: primary and secondary index, and data. */
const MAKE = 'make --stages 2 --stage-size 1MiB --si-stages 1 --stripes 2 --seed 7'.split(' ');

const BACKUP = ['backup', '-c', '-t', '2', '--allow-volatile'];
const RESTORE = ['restore', '-c', '-t', '2', '--allow-private-ipc'];

/** Runs a program, and returns its output; an error has all that it printed. */
function outputOf([program, ...args], env) {
  const done = spawnSync(program, args, { encoding: 'utf8', env, maxBuffer: 2 ** 26 });
  if (done.status === 0) return done.stdout;
  throw new Error(
    `${[program, ...args].join(' ')}: exit ${done.status ?? done.signal}\n${done.error ?? ''}${done.stdout}${done.stderr}`,
  );
}

/** Returns names and sums of a backup's files, except asmt's own, which have times in them. */
function dataOf(directory) {
  const names = readdirSync(directory).filter((name) => !name.startsWith('asmt-'));
  const sum = (name) =>
    createHash('sha256')
      .update(readFileSync(join(directory, name)))
      .digest('hex');
  return names.toSorted().map((name) => `${name} ${sum(name)}`);
}

function same(found, expected, what) {
  if (found !== expected) throw new Error(`${what} differ\nfound:\n${found}\nexpected:\n${expected}`);
}

/**
 * Backups between this machine and a target.
 *
 * `drive` is the command of the engine without Node, to which the request is added. `requestOf` is
 * that of `requests.mjs`.
 */
export class Exchange {
  constructor({ drive, sim, scratch, env, requestOf }) {
    Object.assign(this, { drive, sim, scratch, env, requestOf });
    this.made = 0;
  }

  /** A new directory. */
  directory() {
    this.made += 1;
    const path = join(this.scratch, `backup-${this.made}`);
    mkdirSync(path, { mode: 0o700 });
    return path;
  }

  simulate(...words) {
    return outputOf([...this.sim, ...words], this.env);
  }

  perform(drive, ...words) {
    outputOf([...drive, this.requestOf(...words)], this.env);
  }

  /** Makes a node's segments, and returns their sums. */
  node() {
    this.simulate('remove');
    this.simulate(...MAKE);
    return this.simulate('sum');
  }

  backup(drive, form) {
    const directory = this.directory();
    this.perform(drive, ...BACKUP, ...FORMS[form], directory);
    return directory;
  }

  /** Restores to an empty memory, and compares. */
  restore(drive, directory, before, instance = 0) {
    this.simulate('remove');
    this.perform(drive, ...RESTORE, '-i', String(instance), directory);
    same(this.simulate('sum'), before, 'segments');
    this.simulate('remove');
  }

  /** Returns the tests of a target: each has a title, and a function or a reason to skip it. */
  tests(other, isRoot) {
    return [...Object.keys(FORMS).flatMap((form) => this.forms(other, form)), ...this.backupsOfAsmt(other, isRoot)];
  }

  forms(other, form) {
    return [
      {
        title: `a backup (${form}) has the same files of data as one of this machine`,
        run: () => {
          this.node();
          const [here, there] = [this.backup(this.drive, form), this.backup(other, form)];
          same(dataOf(there).join('\n'), dataOf(here).join('\n'), 'files');
        },
      },
      {
        title: `a backup (${form}) of this machine is restored there`,
        run: () => {
          const before = this.node();
          this.restore(other, this.backup(this.drive, form), before);
        },
      },
      {
        title: `a backup (${form}) made there is restored on this machine`,
        run: () => {
          const before = this.node();
          this.restore(this.drive, this.backup(other, form), before);
        },
      },
    ];
  }

  backupsOfAsmt(other, isRoot) {
    const names = readdirSync(GOLDEN).filter((name) => name !== 'README.md');
    return names.map((name) => ({
      title: `a backup of ASMT (${name}) is restored there`,
      skip: !isRoot && NEEDS_ROOT.has(name) ? 'its files belong to another user: needs root' : undefined,
      run: () => {
        const directory = this.directory();
        cpSync(join(GOLDEN, name, 'backup'), directory, { recursive: true });
        const segments = readFileSync(join(GOLDEN, name, 'segments.txt'), 'utf8');
        for (const line of segments.trim().split('\n')) {
          const [key, , , uid, gid, mode] = line.split(' ');
          const file = ['.dat', '.dat.gz'].map((suffix) => join(directory, key + suffix)).find((path) => existsSync(path));
          chmodSync(file, Number.parseInt(mode, 8));
          if (isRoot) chownSync(file, Number(uid), Number(gid));
        }
        this.restore(other, directory, segments, INSTANCES[name]);
      },
    }));
  }

  /** Tests of the command line with the addon of the target, in a Node for it. */
  commandLine(node, addon) {
    const place = join(this.scratch, 'command-line');
    mkdirSync(join(place, 'native'), { recursive: true });
    cpSync(join(ROOT, 'dist'), join(place, 'dist'), { recursive: true });
    cpSync(join(ROOT, 'package.json'), join(place, 'package.json'));
    cpSync(addon, join(place, 'native', 'asmt.node'));
    // Which addon belongs to which platform is for the tests of the packages.
    writeFileSync(join(place, 'native', 'index.cjs'), "module.exports = require('./asmt.node');\n");
    const asmt = (...args) => outputOf([...node, join(place, 'dist', 'main.js'), ...args], this.env);
    return [
      {
        title: 'the command line loads the addon, and lists segments',
        run: () => {
          this.node();
          const text = asmt('list');
          this.simulate('remove');
          if (!/\btest\b/.test(text)) throw new Error(`no namespace 'test' in:\n${text}`);
        },
      },
      {
        title: 'a backup by the command line there is restored on this machine',
        run: () => {
          const before = this.node();
          const directory = this.directory();
          asmt('backup', '-zc', directory);
          this.restore(this.drive, directory, before);
        },
      },
      {
        title: 'a backup of this machine is restored by the command line there',
        run: () => {
          const before = this.node();
          const directory = this.backup(this.drive, '-Z');
          this.simulate('remove');
          asmt('verify', directory);
          asmt('restore', '-c', '--allow-private-ipc', directory);
          same(this.simulate('sum'), before, 'segments');
          this.simulate('remove');
        },
      },
    ];
  }

  end() {
    this.simulate('remove');
    rmSync(this.scratch, { recursive: true, force: true });
  }
}
