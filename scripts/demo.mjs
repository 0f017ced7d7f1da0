/**
 * `npm run demo`: makes a namespace, lists it, backs it up (plain and compressed), removes it as a
 * reboot does, verifies, restores, and compares every byte, owner and mode. Then the server runs,
 * and the stale backup is refused.
 *
 * Promise: real segments, in an IPC namespace of its own, with the program as users get it; nothing
 * is left behind, however it ends; exit status 1 if anything differs. Needs no root where user
 * namespaces are allowed.
 */

import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { MAIN, SIM, build, install, ipcNamespace, temporaries } from './setup.mjs';

const DIRECTORY = process.env.ASMT_DEMO_DIRECTORY;
if (DIRECTORY === undefined) {
  await outside();
} else {
  inside(DIRECTORY);
}

/** Does the set-up, and starts this script again in a namespace of its own. */
async function outside() {
  install();
  build();
  const namespace = ipcNamespace();
  if (namespace === null) {
    process.stderr.write('error: no IPC namespace of its own can be had here\nHINT: run it as root, or allow user namespaces\n');
    process.exit(1);
  }
  const directory = mkdtempSync(join(temporaries(), 'asmt-demo-'));
  const [program, ...args] = namespace;
  const child = spawn(program, [...args, process.execPath, import.meta.filename], {
    stdio: 'inherit',
    env: {
      ...process.env,
      ASMT_DEMO_DIRECTORY: directory,
      ASMT_RUNTIME_DIR: directory,
      ASMT_CONFIG: join(directory, 'aerospike.conf'),
    },
  });
  // Ctrl-C reaches the child as well. The work that is left here comes after it.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal));
  const status = await new Promise((done) => {
    child.on('close', (code) => done(code ?? 1));
  });
  rmSync(directory, { recursive: true, force: true });
  process.exit(status);
}

function inside(directory) {
  const isRoot = spawnSync('chown', ['12345:12346', directory]).status === 0;
  if (isRoot) spawnSync('chown', ['0:0', directory]);
  const verdicts = [];

  const say = (text) => process.stdout.write(`${text}\n`);
  const chapter = (text) => say(`\n── ${text}`);
  const run = (name, args, command, prefix = [], expected = 0) => {
    say(`$ ${name} ${args.join(' ')}`);
    const done = spawnSync(command, [...prefix, ...args], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });
    process.stdout.write(done.stdout ?? '');
    if (done.status !== expected) {
      say(`exit status ${done.status ?? done.signal}: the demo ends here`);
      process.exit(1);
    }
    if (expected !== 0) say(`exit status ${expected}`);
  };
  const refused = (...args) => run('asmt', args, process.execPath, [MAIN], 4);
  const asmt = (...args) => run('asmt', args, process.execPath, [MAIN]);
  const sim = (...args) => run('asmt-sim', args, SIM);
  const memory = (...how) => spawnSync(SIM, ['sum', ...how], { encoding: 'utf8' }).stdout;
  const bytes = (path) => readdirSync(path).reduce((sum, name) => sum + statSync(join(path, name)).size, 0);
  const mib = (count) => `${(count / 2 ** 20).toFixed(1)} MiB`;

  const [plain, compressed] = [join(directory, 'plain'), join(directory, 'compressed')];

  chapter('a server has stopped cleanly, and has left its shared memory');
  const owner = isRoot ? ['--uid', '12345', '--gid', '12346'] : [];
  sim(
    'make',
    '--name',
    'test',
    '--stages',
    '2',
    '--stage-size',
    '128MiB',
    '--si-stages',
    '1',
    '--si-stage-size',
    '16MiB',
    '--stripes',
    '8',
    '--data-nsid',
    '3',
    ...owner,
    '--mode',
    '640',
  );
  // A server writes the same random number to the stripes in memory and to the storage behind them.
  const random = spawnSync(SIM, ['peek', '--key', 'ad003000', '--offset', '48', '--length', '8'], { encoding: 'utf8' }).stdout;
  const device = join(directory, 'device');
  sim('device', '--path', device, '--random', String(Buffer.from(random.trim(), 'hex').readBigUInt64LE()));
  writeFileSync(process.env.ASMT_CONFIG, `namespace test {\n  storage-engine memory {\n    file ${device}\n  }\n}\n`);
  // The first sum does not touch bytes that the server never touched; the second reads every byte.
  const before = memory('--sparse');
  asmt('list');

  chapter('before the reboot: back up');
  asmt('backup', plain);
  asmt('backup', '-z', compressed);

  chapter('the reboot');
  sim('remove');
  asmt('list');

  chapter('the backups at rest');
  asmt('verify', plain);
  asmt('verify', compressed);

  for (const path of [plain, compressed]) {
    chapter(`after the reboot: restore from ${path}`);
    asmt('restore', path);
    const isSame = memory() === before && before !== '';
    verdicts.push([path, isSame]);
    say(
      isSame
        ? 'identical: every byte, owner, group and mode of every segment'
        : `DIFFERENT\nbefore:\n${before}\nafter:\n${memory()}`,
    );
    sim('remove');
  }

  chapter('the server starts, and with that the backups are stale');
  sim('open', '--path', device);
  refused('restore', plain);

  chapter('in short');
  const total = before
    .trim()
    .split('\n')
    .reduce((sum, line) => sum + Number(line.split(' ')[1]), 0);
  say(`segments: ${before.trim().split('\n').length}, ${mib(total)}`);
  for (const [path, isSame] of verdicts)
    say(
      `${path.split('/').at(-1).padEnd(10)}  files ${mib(bytes(path)).padStart(10)}  ${isSame ? 'restored identically' : 'DIFFERENT'}`,
    );
  process.exit(verdicts.every(([, isSame]) => isSame) ? 0 : 1);
}
