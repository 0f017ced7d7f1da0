/**
 * What a night needs of time: `--wait` for the server, `--deadline`, and what a service manager is
 * told meanwhile.
 */

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';

import test from 'ava';

import { Machine, SIM, run, show, testTraced, until, type Holder, type Run } from './helpers.ts';

/** A server: a copy of the simulator with its name, which holds the segments until it is ended. */
async function server(machine: Machine): Promise<Holder> {
  await run('cp', [SIM, machine.path('asd')]);
  return machine.start(machine.path('asd'), ['hold'], 'ready');
}

/** Runs a backup until it says that it waits, then does something, and lets it end. */
async function waiting(machine: Machine, args: readonly string[], then: () => Promise<void>): Promise<Run> {
  return machine.asmt(args, {
    during: async (_, output) => {
      await until('the backup waits', () => output().includes('waiting'));
      await then();
    },
  });
}

test('--wait: a backup begins when the server has let its segments go', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make');
  const asd = await server(machine);
  const done = await waiting(machine, ['backup', '--wait', machine.path('b')], async () => {
    t.false(existsSync(machine.path('b')));
    await asd.end();
  });
  t.is(done.status, 0, show(done));
  t.regex(
    done.stderr,
    new RegExp(
      `^asmt: note: waiting for the server to stop: namespace 'test': 4 of 4 segments attached .* by pid ${asd.pid} \\(asd\\)\n`,
    ),
    show(done),
  );
  await machine.expect(0, ['verify', machine.path('b')]);
});

test('--wait: the time that was waited is no time of the backup', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make');
  const asd = await server(machine);
  const metrics = machine.path('asmt.prom');
  const began = Date.now();
  const done = await waiting(machine, ['backup', '--wait', '--json', '--metrics', metrics, machine.path('b')], async () => {
    await setTimeout(1500);
    await asd.end();
  });
  const { report } = JSON.parse(done.stdout) as { report: { elapsed_ms: number } };
  t.true(report.elapsed_ms <= Date.now() - began - 1500, show(done));
  const seconds = /^asmt_last_success_duration_seconds\{.*\} (.*)$/m.exec(readFileSync(metrics, 'utf8'))?.[1];
  t.is(Number(seconds), report.elapsed_ms / 1000);
});

/** Lets its segment go when its input ends, and exits later: then the file `exited` is there. */
const SLOW_SERVER = `#!/usr/bin/env python3
import ctypes, sys, time
libc = ctypes.CDLL(None)
libc.shmat.restype = ctypes.c_void_p
libc.shmdt.argtypes = [ctypes.c_void_p]
address = libc.shmat(libc.shmget(ctypes.c_int(0xae001000 - (1 << 32)), 0, 0), None, 0)
print("ready", flush=True)
sys.stdin.read()
libc.shmdt(address)
time.sleep(2)
open(sys.argv[1], "w").close()
`;

test('--wait: a server that has let its segments go has not ended yet', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make');
  writeFileSync(machine.path('asd'), SLOW_SERVER, { mode: 0o755 });
  const asd = await machine.start(machine.path('asd'), [machine.path('exited')], 'ready');
  const done = await waiting(machine, ['backup', '--wait', machine.path('b')], () => asd.end());
  t.is(done.status, 0, show(done));
  t.true(existsSync(machine.path('exited')), show(done));
});

test('--wait=TIME: refused when the time is over, and nothing is left', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make');
  await server(machine);
  const done = await machine.expect(3, ['backup', '--wait=1s', machine.path('b')]);
  t.regex(done.stderr, /note: waiting at most 1 s for the server to stop: /, show(done));
  t.regex(done.stderr, /note: waited 1 s for the server to stop\n/, show(done));
  t.regex(done.stderr, /error: namespace 'test': 4 of 4 segments attached .*\nHINT: the server is running: stop it/, show(done));
  t.false(existsSync(machine.path('b')));
});

test('--wait: what no wait mends is refused at once', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make', '--shutdown', '0');
  const crashed = await machine.expect(3, ['backup', '--wait', machine.path('b')]);
  t.notRegex(crashed.stderr, /waiting/, show(crashed));
  t.regex(crashed.stderr, /error: namespace 'test': .*clean/, show(crashed));
  await machine.sim('remove');
  await machine.sim('make');
  await machine.expect(0, ['backup', machine.path('b')]);
  await server(machine);
  const inTheWay = await machine.expect(3, ['backup', '--wait', machine.path('b')]);
  t.notRegex(inTheWay.stderr, /waiting/, show(inTheWay));
  const nothing = await machine.expect(7, ['backup', '--wait', '-i', '3', machine.path('c')]);
  t.notRegex(nothing.stderr, /waiting/, show(nothing));
});

test('--wait: a signal ends it, and the analysis does not wait', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make');
  await server(machine);
  const stopped = await machine.asmt(['backup', '--wait', machine.path('b')], {
    during: async (child, output) => {
      await until('the backup waits', () => output().includes('waiting'));
      child.kill('SIGTERM');
    },
  });
  t.is(stopped.status, 143, show(stopped));
  t.false(existsSync(machine.path('b')));
  const analysis = await machine.expect(3, ['backup', '--wait', '-a', machine.path('b')]);
  t.notRegex(analysis.stderr, /waiting/, show(analysis));
});

test('--deadline ends a wait with a status of its own', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make');
  await server(machine);
  const done = await machine.expect(8, ['backup', '--wait', '--deadline', '1s', machine.path('b')]);
  t.regex(done.stderr, /asmt: the time is over \(--deadline\): stopping and cleaning up\n/, show(done));
  t.regex(
    done.stderr,
    /error: not done within 1s \(--deadline\): stopped before it was done; everything was cleaned up\nHINT: /,
    show(done),
  );
  t.false(existsSync(machine.path('b')));
  const { error, exit_status: status } = await machine.json(8, ['backup', '--wait', '--deadline=1s', machine.path('b')]);
  t.like(error, { kind: 'timed-out', code: 'deadline' });
  t.is(status, 8);
});

testTraced('--deadline in the middle of the work leaves nothing behind', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make');
  await machine.expect(0, ['backup', machine.path('whole')]);
  const slow = ['pwrite64:delay_enter=3000000'];
  const backup = await machine.traced(slow, ['backup', '--deadline', '2s', machine.path('b')]);
  t.is(backup.status, 8, show(backup));
  t.deepEqual(
    machine.names(machine.path('b')).filter((name) => !name.startsWith('.asmt-lock')),
    [],
  );
  await machine.sim('remove');
  const restore = await machine.traced(['pread64:delay_enter=3000000'], ['restore', '--deadline', '2s', machine.path('whole')]);
  t.is(restore.status, 8, show(restore));
  t.is(await machine.memory(), '');
  await machine.expect(0, ['restore', '--deadline', '10min', machine.path('whole')]);
});

/** Prints what is sent to the socket, a line for each message, until its input ends. */
const LISTENER = `
import os, select, socket, sys
place = sys.argv[1]
listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
listener.bind("\\0" + place[1:] if place.startswith("@") else place)
log = open(sys.argv[2], "a")
print("ready", flush=True)
while True:
    ready, _, _ = select.select([listener, sys.stdin], [], [])
    if listener in ready:
        log.write(listener.recv(65536).decode().replace("\\n", " ") + "\\n")
        log.flush()
    elif sys.stdin in ready:
        break
`;

testTraced('a service manager is told how far it is, and is asked for time only while something goes on', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make');
  for (const place of [machine.path('socket'), `@asmt-test-${process.pid}`]) {
    const log = machine.path(place.startsWith('@') ? 'log-abstract' : 'log');
    const listener = await machine.start('python3', ['-c', LISTENER, place, log], 'ready');
    const options = { env: { NOTIFY_SOCKET: place } };
    const directory = machine.path(place.startsWith('@') ? 'b-abstract' : 'b');
    const asked = () => readFileSync(log, 'utf8').trim().split('\n');
    // All workers stand still for five seconds: four messages more would be asked for in vain.
    const done = await machine.traced(['pwrite64:delay_enter=5000000:when=1'], ['backup', '-t', '1', directory], options);
    t.is(done.status, 0, show(done));
    await until('the result is told', () => asked().some((line) => line.startsWith('STATUS=backed up')));
    const extensions = asked().filter((line) => line.includes('EXTEND_TIMEOUT_USEC='));
    t.true(extensions.length >= 1 && extensions.length <= 3, asked().join('\n'));
    t.regex(extensions[0] ?? '', /^STATUS=\S.* EXTEND_TIMEOUT_USEC=120000000$/);
    t.false(
      asked().some((line) => line.includes('READY=1')),
      asked().join('\n'),
    );
    const refused = await machine.asmt(['restore', '-a', machine.path('nothing')], options);
    t.not(refused.status, 0);
    await machine.sim('remove');
    await machine.expect(0, ['restore', directory], options);
    await until('the result is told', () => asked().some((line) => line.startsWith('STATUS=restored')));
    t.is(asked().filter((line) => line.endsWith('READY=1')).length, 1, asked().join('\n'));
    await listener.end();
    const deaf = await machine.expect(7, ['restore', directory], options);
    t.is(deaf.stderr.includes('NOTIFY'), false, show(deaf));
  }
});
