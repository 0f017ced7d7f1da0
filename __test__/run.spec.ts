/**
 * `asmt run` with real processes: a stand-in server that makes, takes and leaves segments as a
 * server does, signals at every stage, and what becomes of the backup.
 */

import type { ChildProcess } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync, rmSync, statSync } from 'node:fs';

import test, { type ExecutionContext } from 'ava';

import { Machine, MAIN, manifestLines, show, SIM, testAsRoot, testTraced, type Run, until } from './helpers.ts';

/**
 * A server in a shell: it starts warm or cold, and stops cleanly on SIGTERM and SIGINT, with the
 * exit status that it is given. SIGHUP and SIGUSR1 make it say so.
 */
const SERVER = `#!/bin/bash
"$SIM" start --devices "$DEVICE" $SIZES || exit 9
sleep 1000 & sleeping=$!
stop() { "$SIM" stop --devices "$DEVICE"; kill $sleeping; echo "stopped by $1"; exit "\${STATUS:-0}"; }
trap 'stop TERM' TERM
trap 'stop INT' INT
trap 'echo rolled' HUP
trap 'echo dumped' USR1
echo serving
while :; do wait $sleeping; done
`;

interface Node {
  readonly machine: Machine;
  readonly directory: string;
  readonly server: string;
  readonly env: Record<string, string>;
}

/** A machine with a server that has a device. */
async function node(t: ExecutionContext, sizes = '--stage-size 64KiB'): Promise<Node> {
  const machine = await Machine.start(t);
  const [device, server] = [machine.path('dev0'), machine.path('server')];
  await machine.sim('device', '--path', device, '--name', 'test', '--random', '7');
  writeFileSync(machine.config, `namespace test {\nstorage-engine device {\nfile ${device}\n}\n}\n`);
  writeFileSync(server, SERVER, { mode: 0o755 });
  return { machine, directory: machine.path('b'), server, env: { SIM, DEVICE: device, SIZES: sizes } };
}

/** Sends each of the signals when the word is in the output. */
function sending(...signals: [string, NodeJS.Signals][]) {
  return async (child: ChildProcess, output: () => string): Promise<void> => {
    for (const [word, signal] of signals) {
      await until(word, () => output().includes(word));
      child.kill(signal);
    }
  };
}

/** Serves once, is stopped by SIGTERM, and must be backed up. */
async function served({ machine, directory, server, env }: Node, t: ExecutionContext): Promise<Run> {
  const done = await machine.asmt(['run', directory, '--', server], { env, during: sending(['serving', 'SIGTERM']) });
  t.is(done.status, 0, show(done));
  t.true(machine.names(directory).includes('ae001000.dat'), show(done));
  return done;
}

test('a container is stopped and started again: the server is warm', async (t) => {
  const all = await node(t);
  const { machine, directory, server, env } = all;
  const first = await served(all, t);
  t.regex(first.stdout, /^namespace 'test' .* started cold[^]*\nserving\n[^]*stopped by TERM\n$/, show(first));
  t.regex(
    first.stderr,
    /^asmt: note: no backup found: .*\n[^]*server exited with status 0: backing up[^]*\nbacked up 1 namespace to /,
  );
  const older = manifestLines(directory);
  await machine.sim('remove');
  const second = await machine.asmt(['run', directory, '--', server], { env, during: sending(['serving', 'SIGTERM']) });
  t.regex(second.stdout, /started warm/, show(second));
  t.regex(second.stderr, /restored 1 namespace from /, show(second));
  t.is(second.status, 0, show(second));
  t.notDeepEqual(manifestLines(directory), older, show(second));
  const after = await machine.memory();
  await machine.sim('remove');
  // The devices say that it is the backup of the second stop.
  await machine.expect(0, ['restore', directory]);
  t.is(await machine.memory(), after);
});

test('standard output and the words behind -- are the command alone', async (t) => {
  const machine = await Machine.start(t);
  const done = await machine.asmt(['run', machine.path('b'), '--', 'printf', '%s|', '-b', '--json', '--', '--help', 'a b']);
  t.is(done.status, 0, show(done));
  t.is(done.stdout, '-b|--json|--|--help|a b|');
});

test('a command that fails but stopped cleanly is backed up, and its status is kept', async (t) => {
  const { machine, directory, server, env } = await node(t);
  const done = await machine.asmt(['run', directory, '--', server], {
    env: { ...env, STATUS: '5' },
    during: sending(['serving', 'SIGINT']),
  });
  t.is(done.status, 5, show(done));
  t.regex(done.stdout, /stopped by INT/);
  await machine.expect(0, ['verify', directory]);
});

test('a backup that fails after a clean stop decides about the exit status', async (t) => {
  const all = await node(t);
  const { machine, directory, server, env } = all;
  writeFileSync(machine.path('file'), '');
  const done = await machine.asmt(
    [
      'run',
      directory,
      '--',
      'sh',
      '-c',
      `"$0"; status=$?; rm -rf "${directory}"; mkdir -m 777 "${directory}"; exit $status`,
      server,
    ],
    {
      env,
      during: async (child, output) => {
        await until('serving', () => output().includes('serving'));
        // The shell waits for its child, and is not what is to be stopped.
        const pid = Number((await machine.exec('pgrep', ['-f', '-x', `/bin/bash ${server}`])).stdout.trim());
        t.true(pid > 0);
        process.kill(pid, 'SIGTERM');
        t.is(child.exitCode, null);
      },
    },
  );
  t.is(done.status, 3, show(done));
  t.regex(done.stderr, /error: .* users other than its owner may write to it/, show(done));
});

test('a killed server is not backed up, and what was there is untouched', async (t) => {
  const { machine, directory, server, env } = await node(t);
  const done = await machine.asmt(
    ['run', directory, '--', 'sh', '-c', '"$0" & until [ -e "$1" ]; do sleep 0.1; done; kill -9 0', server, machine.path('go')],
    {
      env,
      during: async (_, output) => {
        await until('serving', () => output().includes('serving'));
        writeFileSync(machine.path('go'), '');
      },
    },
  );
  t.is(done.status, 137, show(done));
  t.regex(
    done.stderr,
    /sh was killed by SIGKILL: backing up, if its segments are clean\n[^]*error: nsid 1 \(no name\): base .* is missing/,
    show(done),
  );
  t.deepEqual(machine.names(directory), []);
});

test('a command that never touched what was restored loses nothing', async (t) => {
  const all = await node(t);
  const { machine, directory } = all;
  await served(all, t);
  const before = await machine.memory();
  await machine.sim('remove');
  const broken = machine.path('broken');
  writeFileSync(broken, '#!/no/such/interpreter\n', { mode: 0o755 });
  const done = await machine.asmt(['run', directory, '--', broken]);
  t.is(done.status, 127, show(done));
  t.regex(done.stderr, /restored 1 namespace[^]*error: command not found: /, show(done));
  t.is(await machine.memory(), before);
  await machine.expect(0, ['verify', directory]);
});

for (const [name, status, code] of [
  ['nosuch', 127, /error: command not found: nosuch\nHINT: /],
  ['/no/such', 127, /error: command not found: \/no\/such\nHINT: /],
  ['/etc/passwd', 126, /error: command cannot be executed: \/etc\/passwd: .*\nHINT: /],
] as const) {
  test(`run ${name} restores nothing and exits by ${status}`, async (t) => {
    const all = await node(t);
    await served(all, t);
    await all.machine.sim('remove');
    const done = await all.machine.expect(status, ['run', all.directory, '--', name]);
    t.regex(done.stderr, code, show(done));
    t.is(await all.machine.memory(), '');
  });
}

test('a refused restore: the server starts cold, or with --hold not at all', async (t) => {
  const all = await node(t);
  const { machine, directory, server, env } = all;
  await served(all, t);
  await machine.sim('remove');
  await machine.sim('open', '--path', env['DEVICE'] ?? '');
  const held = await machine.asmt(['run', '--hold', directory, '--', server], { env });
  t.is(held.status, 4, show(held));
  t.is(held.stdout, '');
  t.is(await machine.memory(), '');
  const cold = await machine.asmt(['run', directory, '--', server], { env, during: sending(['serving', 'SIGTERM']) });
  t.regex(cold.stderr, /error: .*has run since[^]*note: going on without the restore \(exit status 4\)/, show(cold));
  t.regex(cold.stdout, /started cold/);
  t.is(cold.status, 0, show(cold));
});

test('a directory that is not there with its parent starts nothing', async (t) => {
  const { machine, server, env } = await node(t);
  const done = await machine.asmt(['run', machine.path('away', 'b'), '--', server], { env });
  t.is(done.status, 2, show(done));
  t.is(done.stdout, '');
});

testTraced('a signal during the restore: cleaned up, and nothing is started', async (t) => {
  const all = await node(t, '--stage-size 16MiB');
  const { machine, directory, server, env } = all;
  await served(all, t);
  await machine.sim('remove');
  const ready = machine.path('ready');
  // Reading is slow.
  const done = await machine.traced(
    ['pread64,preadv,preadv2:delay_enter=300000'],
    ['run', '-v', '-t1', '--ready', ready, directory, '--', server],
    {
      env,
      during: async (child, output) => {
        // Without attaching one, which would keep it.
        const table = async () => (await machine.exec('cat', ['/proc/sysvipc/shm'])).stdout;
        await until('the first segment', async () => (await table()).includes(' 600 '));
        child.kill('SIGTERM');
        await until('an answer', () => output().includes('SIGTERM: stopping'));
        child.kill('SIGTERM');
      },
    },
  );
  t.is(done.status, 143, show(done));
  t.is(done.stdout, '');
  t.is(await machine.memory(), '', show(done));
  t.false(existsSync(ready));
});

test('signals are passed on, each once', async (t) => {
  const { machine, directory, server, env } = await node(t);
  const during = sending(['serving', 'SIGHUP'], ['rolled', 'SIGUSR1'], ['dumped', 'SIGTERM']);
  const done = await machine.asmt(['run', directory, '--', server], { env, during });
  t.is(done.status, 0, show(done));
  t.regex(done.stdout, /serving\nrolled\ndumped\n[^]*stopped by TERM\n$/, show(done));
});

test('a shell that does not pass the signal on: its server is stopped and waited for', async (t) => {
  const { machine, directory, server, env } = await node(t);
  const during = sending(['serving', 'SIGTERM']);
  const done = await machine.asmt(['run', directory, '--', 'bash', '-c', '"$0"; true', server], { env, during });
  t.is(done.status, 143, show(done));
  t.regex(
    done.stderr,
    /bash has ended: waiting for the processes that it started\n[^]*asmt: bash was killed by SIGTERM: backing up/,
    show(done),
  );
  t.regex(done.stdout, /stopped by TERM/);
  await machine.expect(0, ['verify', directory]);
});

test('a process that has the segments attached when the command has ended: refused', async (t) => {
  const { machine, directory } = await node(t);
  await machine.sim('make');
  const other = await machine.hold();
  const done = await machine.expect(3, ['run', directory, '--', 'true']);
  t.regex(done.stderr, /true exited with status 0[^]*error: .*attached/, show(done));
  t.deepEqual(machine.names(directory), []);
  await other.end();
});

test('what a command that ended by itself has left is not waited for', async (t) => {
  const { machine, directory } = await node(t);
  await machine.sim('make');
  const done = await machine.asmt(['run', directory, '--', 'sh', '-c', 'exec sleep 1000 < /dev/null > /dev/null 2>&1 & echo $!']);
  process.kill(Number(done.stdout));
  t.is(done.status, 0, show(done));
  await machine.expect(0, ['verify', directory]);
});

test('without a command: ready, then SIGTERM, then the backup', async (t) => {
  const { machine, directory } = await node(t);
  const ready = machine.path('ready');
  writeFileSync(ready, 'of an earlier run\n');
  const options = ['run', '--ready', ready, directory];
  const said: string[] = [];
  const left: string[] = [];
  const during = async (child: ChildProcess, output: () => string) => {
    await until('ready', () => output().includes('waiting for SIGTERM'));
    said.push(readFileSync(ready, 'utf8'));
    await machine.sim('make', '--stage-size', '64KiB');
    child.kill('SIGTERM');
    await until('an answer', () => output().includes('SIGTERM: backing up'));
  };
  const first = await machine.asmt(options, { during });
  t.is(first.status, 0, show(first));
  t.is(first.stdout, '');
  t.false(existsSync(ready));
  const before = await machine.memory();
  await machine.sim('remove');
  const second = await machine.asmt(options, {
    during: async (child, output) => {
      await until('ready', () => output().includes('waiting for SIGTERM'));
      said.push(readFileSync(ready, 'utf8'));
      left.push(await machine.memory());
      await machine.sim('remove');
      child.kill('SIGINT');
    },
  });
  t.deepEqual(said, ['no-backup\n', 'done\n']);
  t.deepEqual(left, [before]);
  // There is nothing in memory: nothing to do.
  t.is(second.status, 0, show(second));
  t.regex(second.stderr, /SIGINT: backing up\n/, show(second));
});

test('without a command: a server that runs is left alone, also with --hold, and no backup is made of it', async (t) => {
  const { machine, directory } = await node(t);
  await machine.sim('make');
  await machine.expect(0, ['backup', directory]);
  const old = machine.names(directory);
  const server = await machine.hold();
  const done = await machine.asmt(['run', '--hold', directory], { during: sending(['waiting for SIGTERM', 'SIGTERM']) });
  t.is(done.status, 3, show(done));
  t.regex(done.stderr, /leave it running[^]*SIGTERM: backing up[^]*error: .*attached/, show(done));
  // The restore has seen that a server runs.
  t.deepEqual(
    machine.names(directory).filter((name) => !name.startsWith('asmt-used')),
    old,
  );
  await server.end();
});

testTraced('a second SIGTERM does not cost the backup, and SIGINT stops it', async (t) => {
  const { machine, directory } = await node(t);
  await machine.sim('make', '--stage-size', '32MiB', '--fill', '1');
  const traced = (last: NodeJS.Signals) =>
    machine.traced(['pwrite64:delay_enter=400000'], ['run', '-v', '-t1', directory], {
      during: async (child, output) => {
        await until('ready', () => output().includes('waiting for SIGTERM'));
        child.kill('SIGTERM');
        await until('something reserved', () => output().includes('asmt: reserved'));
        child.kill('SIGTERM');
        await until('an answer', () => output().includes('SIGTERM: still at work (SIGINT, SIGQUIT: stop it)'));
        child.kill(last);
      },
    });
  const stopped = await traced('SIGINT');
  t.is(stopped.status, 130, show(stopped));
  t.deepEqual(machine.names(directory), []);
  const done = await traced('SIGHUP');
  t.is(done.status, 0, show(done));
  await machine.expect(0, ['verify', directory]);
});

testAsRoot('as process 1 it works, and asks for an init', async (t) => {
  const { machine, directory, server, env } = await node(t);
  const container = ['--pid', '--fork', '--kill-child', '--mount-proc', process.execPath, MAIN, 'run', directory, '--'];
  // `unshare` passes no signal on: the server is stopped from within.
  const command = ['sh', '-c', '"$0" & until [ -e "$1" ]; do sleep 0.1; done; kill $!; wait $!', server, machine.path('go')];
  const done = await machine.exec('unshare', [...container, ...command], {
    env,
    during: async (_, output) => {
      await until('serving', () => output().includes('serving'));
      writeFileSync(machine.path('go'), '');
    },
  });
  t.is(done.status, 0, show(done));
  t.regex(done.stderr, /note: asmt is process 1.*--init/, show(done));
  t.true(machine.names(directory).includes('ae001000.dat'), show(done));
});

test('a ready file that goes wrong while the server runs costs no backup', async (t) => {
  const { machine, directory, server, env } = await node(t);
  const ready = machine.path('ready');
  const done = await machine.asmt(['run', '--ready', ready, directory, '--', server], {
    env,
    during: async (child, output) => {
      await until('serving', () => output().includes('serving'));
      rmSync(ready);
      mkdirSync(ready);
      child.kill('SIGTERM');
    },
  });
  t.is(done.status, 0, show(done));
  t.regex(done.stderr, /note: the file that says that asmt is ready cannot be removed: .* is no regular file\n/, show(done));
  await machine.expect(0, ['verify', directory]);
  t.true(statSync(ready).isDirectory());
});

test('--progress json: everything that asmt says is one object a line', async (t) => {
  const { machine, directory, server, env } = await node(t);
  const words = ['run', '--progress', 'json', directory, '--', server];
  const done = await machine.asmt(words, { env, during: sending(['serving', 'SIGTERM']) });
  const lines = done.stderr.trimEnd().split('\n');
  const said = lines.map((line) => JSON.parse(line) as { type: string; code?: string; message?: string });
  const coded = (type: string, code: string) => said.filter((line) => line.type === type && line.code === code);
  t.is(coded('remark', 'no-backup').length, 1, show(done));
  t.is(coded('event', 'run').length, 1, show(done));
  t.true(
    coded('event', 'result').some(({ message = '' }) => message.startsWith('backed up 1 namespace to ')),
    show(done),
  );
});

test('a ready file that cannot be made: nothing is done', async (t) => {
  const { machine, directory, server, env } = await node(t);
  mkdirSync(machine.path('place'));
  for (const ready of [machine.path('place'), machine.path('no', 'place')]) {
    const done = await machine.asmt(['run', '--ready', ready, directory, '--', server], { env });
    t.is(done.status, 1, show(done));
    t.is(done.stdout, '');
    t.regex(done.stderr, /error: the file that says that asmt is ready cannot be made: .*\nHINT: /, show(done));
  }
});
