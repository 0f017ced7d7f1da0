/**
 * Without root: the segments' owner can do everything, needs no capability, and learns which one is
 * missing.
 */

import { chmodSync, chownSync, copyFileSync, mkdirSync, writeFileSync } from 'node:fs';

import type { ExecutionContext } from 'ava';

import { MAIN, Machine, SIM, show, testAsRoot, type Run } from './helpers.ts';

const UID = 23456;

/**
 * A machine with a directory that another user may enter and lock, and runs by that user.
 */
async function shared(t: ExecutionContext) {
  const machine = await Machine.start(t);
  chmodSync(machine.directory, 0o711);
  for (const name of ['own', 'own-run']) {
    mkdirSync(machine.path(name), 0o700);
    chownSync(machine.path(name), UID, UID);
  }
  // Without storage devices in the configuration, there is no remark on them.
  writeFileSync(machine.config, 'namespace test {\n}\n', { mode: 0o644 });
  const as = (words: readonly string[], args: readonly string[]): Promise<Run> =>
    machine.exec('setpriv', [...words, process.execPath, MAIN, ...args], {
      // Root uses its own directory, also without the capability to use another user's.
      env: words.includes(`--reuid=${UID}`) ? { ASMT_RUNTIME_DIR: machine.path('own-run') } : {},
    });
  const user = [`--reuid=${UID}`, `--regid=${UID}`, '--clear-groups', '--inh-caps=-all', '--bounding-set=-all'];
  return { machine, as, user };
}

testAsRoot("the segments' owner lists, backs up, verifies and restores with no capability at all", async (t) => {
  const { machine, as, user } = await shared(t);
  await machine.sim('make', '--stripes', '2', '--si-stages', '1', '--uid', `${UID}`, '--gid', `${UID}`, '--mode', '600');
  const before = await machine.memory();
  const resident = await machine.sim('sum', '--resident');
  const directory = machine.path('own', 'b');
  for (const args of [
    ['list', '-v'],
    ['backup', '-zc', directory],
    ['verify', directory],
  ]) {
    const done = await as(user, args);
    t.is(done.status, 0, show(done));
    t.is(done.stderr, '', show(done));
  }
  // Holes are found without the segments' own files, too, and stay holes. There is no page more;
  // the kernel may have swapped some out in the meantime.
  const bytes = (sums: string) =>
    sums
      .trim()
      .split('\n')
      .map((line) => Number(line.split(' ').at(-1)));
  const now = bytes(await machine.sim('sum', '--resident'));
  t.true(
    bytes(resident).every((before, index) => (now[index] ?? Infinity) <= before),
    `${resident}\n${now.join(' ')}`,
  );
  await machine.sim('remove');
  const restored = await as(user, ['restore', '-c', directory]);
  t.is(restored.status, 0, show(restored));
  t.is(await machine.memory(), before);
  t.is((await as(user, ['list', '--json'])).status, 0);
});

testAsRoot("another's segments: what is missing is named", async (t) => {
  const { machine, as, user } = await shared(t);
  const directory = machine.path('own', 'b');
  await machine.sim('make', '--mode', '600');
  const unreadable = await as(user, ['backup', directory]);
  t.is(unreadable.status, 1, show(unreadable));
  t.regex(unreadable.stderr, new RegExp(`is owned by uid 0 with mode 0600, and uid ${UID} may not read it\n`));
  t.regex(unreadable.stderr, /HINT: .*CAP_IPC_OWNER/, show(unreadable));
  await machine.sim('remove');
  await machine.sim('make', '--mode', '666');
  const foreign = await as(user, ['backup', directory]);
  t.is(foreign.status, 1, show(foreign));
  t.regex(
    foreign.stderr,
    new RegExp(`is owned by uid 0 and gid 0, and uid ${UID} may not give its file to them: CAP_CHOWN is missing\nHINT: `),
    show(foreign),
  );
  t.deepEqual(machine.names(directory), []);
  // Its own segment, in a group that the user is not in.
  await machine.sim('remove');
  await machine.sim('make', '--uid', `${UID}`, '--gid', '54321');
  t.regex((await as(user, ['backup', directory])).stderr, /gid 54321, .* CAP_CHOWN is missing/);
  const inGroup = await as([...user.filter((word) => word !== '--clear-groups'), '--groups=54321'], ['backup', directory]);
  t.is(inGroup.status, 0, show(inGroup));
});

testAsRoot('a user with CAP_CHOWN alone backs up what he may read; root without it is told so before it copies', async (t) => {
  const { machine, as, user } = await shared(t);
  await machine.sim('make', '--uid', '34567', '--gid', '34567', '--mode', '666');
  const before = await machine.memory();
  const chown = user.map((word) => word.replace('-all', '-all,+chown'));
  const done = await as([...chown, '--ambient-caps=+chown'], ['backup', machine.path('own', 'b')]);
  t.is(done.status, 0, show(done));
  const asRoot = await as(['--bounding-set=-chown', '--inh-caps=-chown'], ['backup', machine.path('root')]);
  t.is(asRoot.status, 1, show(asRoot));
  t.regex(asRoot.stderr, /uid 34567 and gid 34567, and uid 0 may not give its file to them: CAP_CHOWN is missing/, show(asRoot));
  t.deepEqual(machine.names(machine.directory), ['aerospike.conf', 'own', 'own-run', 'run']);
  t.is(await machine.memory(), before);
});

testAsRoot('root without CAP_IPC_OWNER is told that it is missing', async (t) => {
  const { machine, as } = await shared(t);
  // The other user makes it: the creator of a segment may always read it.
  copyFileSync(SIM, machine.path('sim'));
  const other = ['--reuid=34567', '--regid=34567', '--clear-groups', machine.path('sim')];
  const made = await machine.exec('setpriv', [...other, 'make', '--mode', '600']);
  t.is(made.status, 0, show(made));
  const done = await as(['--bounding-set=-ipc_owner', '--inh-caps=-ipc_owner'], ['backup', machine.path('root')]);
  t.is(done.status, 1, show(done));
  t.regex(done.stderr, /is owned by uid 34567 with mode 0600, and uid 0 may not read it\nHINT: .*CAP_IPC_OWNER/, show(done));
});

testAsRoot('who may only read a segment finds its holes, too, and leaves them what they are', async (t) => {
  const { machine, as, user } = await shared(t);
  await machine.sim('make', '--stage-size', '8MiB', '--fill', '0.1', '--uid', '34567', '--gid', '34567', '--mode', '644');
  const resident = await machine.sim('sum', '--resident');
  const chown = user.map((word) => word.replace('-all', '-all,+chown'));
  const done = await as([...chown, '--ambient-caps=+chown'], ['backup', machine.path('own', 'b')]);
  t.is(done.status, 0, show(done));
  t.is(done.stderr, '', show(done));
  t.is(await machine.sim('sum', '--resident'), resident);
});
