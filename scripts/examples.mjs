/**
 * `npm run test:examples`: checks what is in `share/`: Compose and Kubernetes files against their
 * schemas, the playbook with ansible-lint and in check mode, alert rules with promtool. It
 * installs the checkers from PyPI, of locked versions, and promtool from Debian's package, below
 * `target/examples`. Where there is no apt, promtool must be on the PATH, or its tests are skipped.
 * `-- --install` does only that: `npm test` then checks the examples, too.
 *
 * Promise: what is installed already is not installed again. Must never: install anything on the
 * machine, or ask a host.
 */

import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

import { ROOT, attempt, build, install, step } from './setup.mjs';

const VENV = join(ROOT, 'target', 'examples');
const REQUIREMENTS = join(import.meta.dirname, 'examples', 'requirements.txt');
const SPECS = ['__test__/examples.spec.ts', '__test__/metrics.spec.ts'];

const { values } = parseArgs({ options: { install: { type: 'boolean' } } });
installCheckers();
if (!values.install) {
  install();
  build();
  const done = spawnSync(join(ROOT, 'node_modules', '.bin', 'ava'), SPECS, { cwd: ROOT, stdio: 'inherit' });
  process.exit(done.status ?? 1);
}

function installCheckers() {
  const wanted = readFileSync(REQUIREMENTS, 'utf8');
  const mark = join(VENV, 'installed');
  if (existsSync(mark) && readFileSync(mark, 'utf8') === wanted) return;
  rmSync(VENV, { recursive: true, force: true });
  step('making a place for the checkers (venv)', 'python3', ['-m', 'venv', VENV]);
  const pip = ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '--no-deps', '--requirement', REQUIREMENTS];
  step('installing ansible-lint and checkers of schemas (pip)', join(VENV, 'bin', 'python'), pip);
  installPromtool();
  writeFileSync(mark, wanted);
}

/** Takes promtool out of its package: installed, that would start a service. */
function installPromtool() {
  const works = (command, ...args) => spawnSync(command, args).status === 0;
  if (works('promtool', '--version') || !works('apt-get', '--version')) return;
  const place = join(VENV, 'prometheus');
  mkdirSync(place);
  const download = (title) => attempt(title, 'apt-get', ['download', '-qq', 'prometheus'], {}, place);
  const isThere =
    download('downloading promtool (apt)') || (works('apt-get', 'update', '-qq') && download('downloading it again'));
  const [file] = readdirSync(place);
  if (!isThere || file === undefined || !attempt('unpacking promtool (dpkg)', 'dpkg', ['-x', file, '.'], {}, place)) return;
  rmSync(join(place, file));
  rmSync(join(place, 'usr', 'bin', 'prometheus'));
  symlinkSync(join(place, 'usr', 'bin', 'promtool'), join(VENV, 'bin', 'promtool'));
}
