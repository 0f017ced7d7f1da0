/**
 * Signals and progress, devices that do not answer, and, beyond the loops (`npm run test:faults --
 * --only kills` sends each signal at every system call): a second signal, ASMT's form, the output
 * on a terminal, and the message with which a second asmt is refused.
 */

import type { ChildProcess } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync, readlinkSync, writeFileSync } from 'node:fs';

import type { ExecutionContext } from 'ava';

import { IS_REAL_ROOT, Machine, show, testIf, testTraced, until, type Holder } from './helpers.ts';

/** A namespace of many chunks, so that there is time to stop. */
const MAKE = ['make', '--stage-size', '32MiB', '--fill', '1', '--stripes', '8'];

async function whole(t: ExecutionContext): Promise<Machine> {
  const machine = await Machine.start(t);
  await machine.sim(...MAKE);
  return machine;
}

testTraced('a second signal is answered, not obeyed', async (t) => {
  const machine = await whole(t);
  const directory = machine.path('b');
  const done = await machine.traced(['pwrite64:delay_enter=100000'], ['backup', '-v', '-t2', directory], {
    during: async (child, output) => {
      await until('something reserved', () => output().includes('asmt: reserved'));
      t.true(machine.names(directory).some((name) => name.startsWith('.asmt-tmp.')));
      child.kill('SIGTERM');
      await until('the first to be answered', () => output().includes('asmt: SIGTERM: stopping and cleaning up\n'));
      child.kill('SIGINT');
    },
  });
  t.is(done.status, 143, show(done));
  t.is(done.stdout, '');
  t.regex(done.stderr, /error: stopped before it was done; everything was cleaned up\nHINT: try again\n/, show(done));
  t.deepEqual(machine.names(directory), []);
});

testTraced("ASMT's form exits by 1 when it is interrupted", async (t) => {
  const machine = await whole(t);
  const done = await machine.traced(['pwrite64:delay_enter=100000'], ['-bvp', machine.path('b')], {
    during: async (child, output) => {
      await until('something reserved', () => output().includes('asmt: reserved'));
      child.kill('SIGTERM');
    },
  });
  t.is(done.status, 1, show(done));
  t.deepEqual(machine.names(machine.path('b')), []);
});

testTraced('SIGUSR1 and SIGUSR2 do nothing: no debugger listens, and the backup goes on', async (t) => {
  const machine = await whole(t);
  const directory = machine.path('b');
  let listening = '';
  const done = await machine.traced(['pwrite64:delay_enter=100000'], ['backup', '-v', '-t2', directory], {
    during: async (child, output) => {
      await until('something reserved', () => output().includes('asmt: reserved'));
      const before = listeners();
      child.kill('SIGUSR1');
      child.kill('SIGUSR2');
      child.kill('SIGUSR1');
      // Node prints this at the moment at which it starts to listen.
      await until('something written', () => output().includes('asmt: wrote'));
      listening = listeners()
        .filter((line) => !before.includes(line))
        .join();
    },
  });
  t.is(done.status, 0, show(done));
  t.notRegex(done.stderr, /[Dd]ebugger/, show(done));
  t.is(listening, '');
  await machine.expect(0, ['verify', directory]);
});

/** Sockets of this host that listen for Node's debugger. */
function listeners(): string[] {
  const port = (9229).toString(16).toUpperCase();
  const lines = readFileSync('/proc/net/tcp', 'utf8').split('\n');
  return lines.filter((line) => line.includes(`:${port} `) && / 0A /.test(line)).map((line) => line.trim().split(/\s+/)[9] ?? '');
}

testTraced('SIGQUIT stops and cleans up, too, and leaves no core file with the data in it', async (t) => {
  const machine = await whole(t);
  const done = await machine.traced(['pwrite64:delay_enter=100000'], ['backup', '-v', '-t2', machine.path('b')], {
    cwd: machine.directory,
    during: async (child, output) => {
      await until('something reserved', () => output().includes('asmt: reserved'));
      child.kill('SIGQUIT');
    },
  });
  t.is(done.status, 131, show(done));
  t.regex(done.stderr, /everything was cleaned up/, show(done));
  t.deepEqual(machine.names(machine.path('b')), []);
});

/** For tests with a file system that does not answer. */
const testHung = testIf(IS_REAL_ROOT && existsSync('/dev/fuse'), 'only root may mount, and FUSE may not be there');

/** Mounts a file system whose server never answers, for as long as it lives. */
const NEVER_ANSWERS = `import ctypes, os, sys
fd = os.open('/dev/fuse', os.O_RDWR)
libc = ctypes.CDLL(None, use_errno=True)
options = f'fd={fd},rootmode=40000,user_id=0,group_id=0'
if libc.mount(b'hung', sys.argv[1].encode(), b'fuse', 0, options.encode()): raise OSError(ctypes.get_errno(), 'mount')
print('ready', flush=True)
sys.stdin.read()`;

/**
 * A host with a namespace, a backup of it in `b`, and a path with a device that answers or hangs.
 */
async function hung(t: ExecutionContext): Promise<{ machine: Machine; device: string; hang: () => Promise<Holder> }> {
  const machine = await Machine.startHost(t);
  await machine.sim('make');
  mkdirSync(machine.path('m'));
  const device = machine.path('m', 'dev0');
  await machine.sim('device', '--path', device, '--name', 'test', '--random', '7');
  await machine.expect(0, ['backup', '--device', device, machine.path('b')]);
  return { machine, device, hang: () => machine.start('python3', ['-c', NEVER_ANSWERS, machine.path('m')], 'ready') };
}

const STATUSES = { SIGTERM: 143, SIGINT: 130, SIGHUP: 129 } as const;

for (const [signal, status] of Object.entries(STATUSES) as [keyof typeof STATUSES, number][]) {
  testHung(`${signal} ends a restore that waits for a device which does not answer`, async (t) => {
    const { machine, device, hang } = await hung(t);
    const directory = machine.path('b');
    await machine.sim('remove');
    const names = machine.names(directory);
    const holder = await hang();
    const done = await machine.asmt(['restore', '--json', '-n', 'test', '--device', device, directory], {
      during: (child, output) => stopped(child, output, machine, signal),
    });
    t.is(done.status, status, show(done));
    t.regex(done.stderr, new RegExp(`error: ${signal}: the system does not respond .*; nothing was changed\nHINT: `), show(done));
    t.regex(done.stderr, /; if the server starts without this restore, run asmt retire -n test \S+\n/, show(done));
    t.is((JSON.parse(done.stdout) as { exit_status: number }).exit_status, status);
    t.deepEqual(machine.names(directory), names);
    t.is(await machine.memory(), '');
    await holder.end();
    await machine.exec('umount', [machine.path('m')]);
    await machine.expect(0, ['restore', '--device', device, directory]);
  });
}

/**
 * Sends a signal to asmt when it has the lock of the instance: then it is about to look at devices.
 */
async function stopped(
  child: ChildProcess,
  output: () => string,
  machine: Machine,
  signal: NodeJS.Signals,
  isLocked = true,
): Promise<void> {
  const links = () => {
    try {
      return readdirSync(`/proc/${child.pid}/fd`).map((fd) => readlinkSync(`/proc/${child.pid}/fd/${fd}`));
    } catch {
      return [];
    }
  };
  await until('asmt at work', () => links().some((path) => path.startsWith(machine.path(isLocked ? 'run/ipc-' : 'b'))));
  child.kill(signal);
  await until('the signal to be answered', () => output().includes(`asmt: ${signal}: stopping`));
  child.kill('SIGINT');
}

testHung('a signal ends a backup, an analysis and a verification that wait for a device, in either form', async (t) => {
  const { machine, device, hang } = await hung(t);
  const before = await machine.memory();
  const holder = await hang();
  for (const [status, args, isLocked] of [
    [143, ['backup', machine.path('new')], true],
    [1, ['-b', '-p', machine.path('new')], true],
    [143, ['verify', machine.path('b')], false],
    [143, ['restore', '-a', machine.path('b')], false],
  ] as const) {
    const done = await machine.asmt([...args, '--device', device], {
      during: (child, output) => stopped(child, output, machine, 'SIGTERM', isLocked),
    });
    t.is(done.status, status, show(done));
    t.regex(done.stderr, /; nothing was changed\nHINT: [^;]*\n$/, show(done));
  }
  t.false(existsSync(machine.path('new')));
  t.is(await machine.memory(), before);
  await holder.end();
  await machine.exec('umount', [machine.path('m')]);
});

testTraced('what has been changed is cleaned up, however long the system takes', async (t) => {
  const machine = await whole(t);
  const directory = machine.path('b');
  const done = await machine.traced(['pwrite64:delay_enter=4000000:when=1'], ['backup', '-v', '-t1', directory], {
    during: async (child, output) => {
      await until('something reserved', () => output().includes('asmt: reserved'));
      child.kill('SIGTERM');
    },
  });
  t.is(done.status, 143, show(done));
  t.regex(done.stderr, /error: stopped before it was done; everything was cleaned up\n/, show(done));
  t.deepEqual(machine.names(directory), []);
});

testTraced('progress: a line every few seconds where there is no terminal', async (t) => {
  const machine = await whole(t);
  const done = await machine.traced(['pwrite64:delay_enter=350000'], ['backup', '-t1', machine.path('b')]);
  t.is(done.status, 0, show(done));
  t.regex(done.stderr, /^asmt: \d+ %, .* left, copying .* of .*iB, .*\/s\n/m, show(done));
});

testTraced('progress: one line drawn again on a terminal, gone at the end', async (t) => {
  const machine = await whole(t);
  // There must be no remark before the result.
  writeFileSync(machine.config, 'namespace test {\n}\n');
  const done = await machine.tracedOnTerminal(['pwrite64:delay_enter=150000'], ['backup', '-t1', machine.path('b')]);
  t.is(done.status, 0, show(done));
  // oxlint-disable-next-line no-control-regex -- they are what this is about
  t.regex(done.stdout, /\r\u001b\[K\d+ %, .* left, copying \S+ \w+ of \S+ \wiB, .*\/s\r\u001b\[K/, show(done));
  // oxlint-disable-next-line no-control-regex -- they are what this is about
  t.regex(done.stdout, /\r\u001b\[Knamespace test of instance 0: 12 segments/, show(done));
});

testTraced('two at once: the second is refused, and harms nothing', async (t) => {
  const machine = await whole(t);
  await machine.sim('make', '--name', 'other', '--nsid', '2');
  await machine.expect(0, ['backup', '-n', 'other', machine.path('other')]);
  await machine.sim('remove', '--nsid', '2');
  const done = await machine.traced(['pwrite64:delay_enter=200000'], ['backup', '-v', machine.path('b')], {
    during: async (child, output) => {
      await until('something reserved', () => output().includes('asmt: reserved'));
      child.kill('SIGSTOP');
      for (const args of [
        ['backup', machine.path('b')],
        ['backup', machine.path('c')],
        ['restore', machine.path('b')],
        ['verify', machine.path('b')],
        ['restore', machine.path('other')],
      ]) {
        const second = await machine.expect(3, args);
        t.regex(second.stderr, /another asmt.*\nHINT: wait/, show(second));
      }
      // Another instance is another server.
      await machine.expect(7, ['backup', '-i4', machine.path('d')]);
      child.kill('SIGCONT');
    },
  });
  t.is(done.status, 0, show(done));
  await machine.expect(0, ['verify', machine.path('b')]);
});
