/**
 * Other processes at work during a restore: another asmt in any other namespace, or a process that
 * cannot be seen. A restore at work is neither swept nor named for removal, and a writer in another
 * PID namespace is noticed.
 */

import { readFileSync } from 'node:fs';

import test from 'ava';

import { MAIN, Machine, show, testAsRoot, testTraced, until, type Run } from './helpers.ts';

/** A PID namespace of its own, with its own `/proc`: processes outside of it cannot be seen. */
const UNSEEN = ['unshare', '--pid', '--fork', '--mount-proc'];
/** A time namespace of its own, in which the machine seems to have been up for a day longer. */
const ANOTHER_TIME = ['unshare', '--time', '--boottime', '100000', '--fork'];

/**
 * A file system without locks: then only names tell a live run from a dead one. The first lock is
 * asmt's own.
 */
const NO_LOCKS = 'flock:error=ENOLCK:when=2+';

async function backedUp(t: Parameters<typeof Machine.start>[0], ...shape: string[]): Promise<Machine> {
  const machine = await Machine.start(t);
  await machine.sim('make', ...shape);
  await machine.expect(0, ['backup', machine.path('b')]);
  return machine;
}

/** Key and id of each segment, without attaching it. */
async function ids(machine: Machine): Promise<string> {
  const { stdout } = await machine.exec('cat', ['/proc/sysvipc/shm']);
  const rows = stdout.trim().split('\n').slice(1);
  return rows.map((row) => row.trim().split(/\s+/, 2).join(' ')).join('\n');
}

/** The number of segments. */
async function count(machine: Machine): Promise<number> {
  return (await ids(machine)).split('\n').filter(Boolean).length;
}

/**
 * Runs asmt, started by `starter`, and stops it at a system call by `injections`
 * (`shmget:signal=STOP:when=3`). It continues after `during`.
 */
async function stopped(
  machine: Machine,
  starter: readonly string[],
  injections: readonly string[],
  args: readonly string[],
  during: () => Promise<void>,
): Promise<Run> {
  return machine.tracedThrough(starter, injections, args, {
    during: async (child) => {
      try {
        await during();
      } finally {
        // If the starter forks, asmt is its child.
        const pid = child.pid ?? 0;
        const children = starter.length > 0 ? readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim() : '';
        const own = children === '' ? pid : Number(children.split(' ')[0]);
        // More than once, because it may be just about to stop.
        await until('its end', () => {
          if (child.exitCode !== null || child.signalCode !== null) return true;
          try {
            process.kill(own, 'SIGCONT');
          } catch {
            // It has just ended.
          }
          return false;
        });
      }
    },
  });
}

testTraced('a restore at work under another runtime directory is waited for, and not named for removal', async (t) => {
  const machine = await backedUp(t);
  const before = await machine.memory();
  await machine.sim('remove');
  const env = { ASMT_RUNTIME_DIR: machine.path('b2') };
  const first = await stopped(machine, [], ['shmget:signal=STOP:when=3'], ['restore', '-t1', machine.path('b')], async () => {
    await until('three segments', async () => (await count(machine)) === 3);
    for (const args of [
      ['restore', machine.path('b')],
      ['backup', machine.path('b3')],
    ]) {
      const second = await machine.expect(3, args, { env });
      t.regex(
        second.stderr,
        /error: .*: 3 of its segments are in memory, .* is still running: pid \d+ \(.*\), apparently another asmt/,
      );
      t.regex(second.stderr, /HINT: wait until it has finished/, show(second));
      t.notRegex(second.stderr, /ipcrm|start the server and stop it/, show(second));
    }
  });
  t.is(first.status, 0, show(first));
  t.is(await machine.memory(), before);
});

test('segments whose maker has ended are named for removal, and what the hint says can be done', async (t) => {
  const machine = await backedUp(t);
  const before = await machine.memory();
  // A start that failed early has removed base.
  await machine.sim('remove', '--key', 'ae001000');
  const refused = await machine.expect(3, ['restore', machine.path('b')]);
  t.regex(
    refused.stderr,
    /HINT: .*a start discards them: start the server without a restore only if it has served since .*; only if it has not/,
    show(refused),
  );
  const [, named = ''] = /then try again: ipcrm((?: -m \d+)+)\n/.exec(refused.stderr) ?? [];
  const removed = await machine.exec('ipcrm', named.trim().split(' '));
  t.is(removed.status, 0, show(removed));
  await machine.expect(0, ['restore', machine.path('b')]);
  t.is(await machine.memory(), before);
});

testAsRoot('segments whose maker cannot be seen are not named for removal', async (t) => {
  const machine = await backedUp(t);
  // A whole namespace is backed up there.
  const backup = await machine.exec('unshare', [...UNSEEN.slice(1), process.execPath, MAIN, 'backup', machine.path('b2')]);
  t.is(backup.status, 0, show(backup));
  await machine.sim('remove', '--key', 'ae001000');
  const words = [MAIN, 'restore', '--allow-private-ipc', machine.path('b')];
  const done = await machine.exec('unshare', [...UNSEEN.slice(1), process.execPath, ...words]);
  t.is(done.status, 3, show(done));
  t.regex(
    done.stderr,
    /of its segments are in memory, .*; the process that created them cannot be seen from here\nHINT: /,
    show(done),
  );
  t.regex(done.stderr, /make sure first that no asmt or server that cannot be seen from here/, show(done));
  t.notRegex(done.stderr, /ipcrm/, show(done));
});

testAsRoot('a live backup is not swept by a run in another time namespace, nor by one that cannot see its process', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make');
  await machine.sim('make', '--instance', '1');
  const directory = machine.path('b');
  const isStaged = () => machine.names(directory).length >= 4;
  const live = await stopped(
    machine,
    [],
    [NO_LOCKS, 'ftruncate:signal=STOP:when=1'],
    ['backup', '-t1', '-i1', directory],
    async () => {
      await until('all staged', isStaged);
      const staged = machine.names(directory);
      for (const starter of [[], ANOTHER_TIME, UNSEEN]) {
        const second = await machine.tracedThrough(starter, [NO_LOCKS], ['backup', directory]);
        t.is(second.status, 3, show(second));
        t.regex(second.stderr, /error: another asmt \(pid \d+\) is using the directory\nHINT: wait/, show(second));
        t.deepEqual(machine.names(directory), staged);
      }
    },
  );
  t.is(live.status, 0, show(live));
  await machine.expect(0, ['verify', '-i1', directory]);
});

testAsRoot('a live backup is not swept where /proc shows the processes of another PID namespace', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make');
  await machine.sim('make', '--instance', '1');
  const directory = machine.path('b');
  const strace = 'strace -D -f -qq -o /dev/null -e trace=flock,ftruncate -e inject=flock:error=ENOLCK:when=2+';
  const script = `
    ${strace} -e inject=ftruncate:signal=STOP:when=1 "$1" "$2" backup -t1 -i1 "$3" & live=$!
    until [ "$(ls -A "$3" 2>/dev/null | wc -l)" -ge 4 ]; do sleep 0.05; done
    ${strace} "$1" "$2" backup "$3"; echo "second: $?"
    while kill -CONT $live 2>/dev/null; do sleep 0.05; done
    wait $live; echo "live: $?"`;
  const words = ['--pid', '--fork', 'bash', '-c', script, 'bash', process.execPath, MAIN, directory];
  const done = await machine.exec('unshare', words);
  t.regex(done.stdout, /second: 3\n[^]*live: 0\n/, show(done));
  t.regex(done.stderr, /error: another asmt \(pid \d+\) is using the directory\nHINT: wait/, show(done));
  await machine.expect(0, ['verify', '-i1', directory]);
});

testAsRoot("a live restore's journal and segments stay, whatever time namespace the next run is in", async (t) => {
  const machine = await backedUp(t);
  const before = await machine.memory();
  await machine.sim('remove');
  const live = await stopped(machine, [], ['shmget:signal=STOP:when=3'], ['restore', '-t1', machine.path('b')], async () => {
    await until('three segments', async () => (await count(machine)) === 3);
    const made = await ids(machine);
    for (const starter of [[], ANOTHER_TIME]) {
      // The second run seems to get the lock, as on a file system where locks mean nothing.
      const second = await machine.tracedThrough(starter, ['flock:retval=0'], ['restore', machine.path('b')]);
      t.is(second.status, 3, show(second));
      t.regex(second.stderr, /error: another asmt \(pid \d+\) is restoring instance 0\nHINT: wait/, show(second));
      t.is(await ids(machine), made);
    }
  });
  t.is(live.status, 0, show(live));
  t.is(await machine.memory(), before);
});

testAsRoot('a writer in another PID namespace is noticed while a segment is restored', async (t) => {
  const machine = await backedUp(t);
  await machine.sim('remove');
  // The first stage is filled, and the restore does not have it attached: it makes base, the last
  // segment.
  const args = ['restore', '-t1', machine.path('b')];
  const done = await stopped(machine, UNSEEN, ['shmget:signal=STOP:when=4'], args, async () => {
    await until('all segments', async () => (await count(machine)) === 4);
    await machine.sim('poke', '--key', 'ae001100', '--offset', '4096', '--hex', '77');
  });
  t.is(done.status, 3, show(done));
  const expected =
    /segment ae001100 changed while it was restored: a process that cannot be seen from here .* had it attached\nHINT: /;
  t.regex(done.stderr, expected, show(done));
  t.is(await machine.memory(), '');
});

testAsRoot('a writer in another PID namespace is noticed while a segment is backed up', async (t) => {
  const machine = await Machine.start(t);
  await machine.sim('make');
  const directory = machine.path('b');
  const args = ['backup', '-t1', directory];
  const done = await stopped(machine, UNSEEN, ['ftruncate:signal=STOP:when=1'], args, async () => {
    await until('all staged', () => machine.names(directory).length >= 4);
    await machine.sim('poke', '--key', 'ae001100', '--offset', '4096', '--hex', '77');
  });
  t.is(done.status, 3, show(done));
  const expected =
    /segment ae001100 changed while it was copied: a process that cannot be seen from here .* had it attached\nHINT: /;
  t.regex(done.stderr, expected, show(done));
  t.deepEqual(machine.names(directory), []);
});

test('where base and all stripes cannot be attached at once, nothing is trusted and nothing is left', async (t) => {
  const machine = await Machine.start(t);
  // Each of them fits into the limit on address space, but all of them do not.
  await machine.sim('make', '--no-index', '--stripes', '8', '--stripe-size', '1GiB', '--stripe-fill', '0');
  await machine.expect(0, ['backup', machine.path('b')]);
  await machine.sim('remove');
  const limited = ['-c', 'ulimit -v 6000000 && exec "$@"', 'sh', process.execPath, MAIN, 'restore', '-t1', machine.path('b')];
  const done = await machine.exec('bash', limited);
  t.is(done.status, 6, show(done));
  t.regex(
    done.stderr,
    /error: shmat ad00100\d: .*\nHINT: base and all stripes are attached at once when a restore ends/,
    show(done),
  );
  t.is(await machine.memory(), '');
  await machine.expect(0, ['restore', machine.path('b')]);
});
