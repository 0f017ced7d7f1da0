/**
 * What is in `share/`: it has the form that its readers want, and asmt understands the commands in
 * it. The checkers are those that `npm run test:examples` installs.
 */

import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import test, { type ExecutionContext } from 'ava';

import { normalise } from '../src/argv.ts';
import { resolveRun, type RunInvocation } from '../src/policy.ts';
import { Machine, ROOT, run, show, testIf, type Run } from './helpers.ts';
import { Systemd, testWithSystemd, writeServerUnit } from './systemd.ts';

const BIN = join(ROOT, 'target', 'examples', 'bin');
const EXAMPLES = join(ROOT, 'share', 'examples');
const ANSIBLE = join(ROOT, 'share', 'ansible');
const COMPOSE = readdirSync(EXAMPLES).filter((name) => name.startsWith('compose-'));
const IS_INSTALLED = existsSync(join(BIN, 'ansible-playbook'));

const testChecked = testIf(IS_INSTALLED, 'npm run test:examples installs the checkers');

/** Runs one of the checkers, which find each other and nothing of the user's. */
async function checker(t: ExecutionContext, name: string, ...args: string[]): Promise<Run> {
  const machine = await Machine.start(t);
  const env = { PATH: `${BIN}:${process.env['PATH']}`, HOME: machine.path(), ANSIBLE_HOME: machine.path('ansible') };
  return run(join(BIN, name), args, { env });
}

/** The documents of a YAML file. */
function documents(path: string): unknown[] {
  const script = 'import json,sys,yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))';
  return JSON.parse(execFileSync(join(BIN, 'python'), ['-c', script, path], { encoding: 'utf8' })) as unknown[];
}

interface Container {
  readonly words: readonly string[];
  /** Paths at which something is mounted. */
  readonly mounts: readonly string[];
  /** The command by which it is asked whether it is ready. */
  readonly probe: readonly string[];
}

/** What a container with asmt in it is told. */
function understood(t: ExecutionContext, { words, mounts, probe }: Container): RunInvocation {
  t.is(words[0], 'asmt');
  const typed = normalise(words.slice(1));
  if (typed.kind !== 'run' || typed.verb !== 'run') throw new Error(`no asmt run: ${words.join(' ')}`);
  const meant = resolveRun(typed.values, typed.operands, typed.command);
  const { directory } = meant.backup.request as { directory: string };
  // In a directory of its own below a volume: the volume itself belongs to somebody else.
  t.true(
    mounts.some((mount) => directory.startsWith(`${mount}/`)),
    directory,
  );
  if (meant.ready === null) t.deepEqual(probe, []);
  else t.deepEqual(probe, ['test', '-f', meant.ready]);
  return meant;
}

test('there are examples of each kind', (t) => {
  t.true(COMPOSE.length >= 3);
  t.true(existsSync(join(EXAMPLES, 'kubernetes.yml')));
});

for (const name of COMPOSE) {
  testChecked(`${name} has the form of Compose`, async (t) => {
    const done = await checker(t, 'check-jsonschema', '--builtin-schema', 'vendor.compose-spec', join(EXAMPLES, name));
    t.is(done.status, 0, show(done));
  });
}

testChecked('a file with a mistake is refused by the same check', async (t) => {
  const machine = await Machine.start(t);
  const path = machine.path('compose.yml');
  writeFileSync(
    path,
    readFileSync(join(EXAMPLES, 'compose-command.yml'), 'utf8').replace('stop_grace_period', 'stop_grace_time'),
  );
  const done = await checker(t, 'check-jsonschema', '--builtin-schema', 'vendor.compose-spec', path);
  t.not(done.status, 0, show(done));
});

testChecked('kubernetes.yml has the form of Kubernetes, and no field too many', async (t) => {
  const done = await checker(t, 'kubernetes-validate', '--strict', join(EXAMPLES, 'kubernetes.yml'));
  t.is(done.status, 0, show(done));
  t.regex(done.stdout + done.stderr, /statefulset\/aerospike/i, show(done));
});

interface Service {
  entrypoint?: string[];
  volumes?: string[];
  init?: boolean;
  stop_grace_period?: string;
  healthcheck?: { test: string[] };
}

testChecked('asmt understands its commands in the files of Compose', (t) => {
  let found = 0;
  for (const name of COMPOSE) {
    const [{ services }] = documents(join(EXAMPLES, name)) as [{ services: Record<string, Service> }];
    for (const service of Object.values(services)) {
      if (service.entrypoint?.[0] !== 'asmt') continue;
      const mounts = (service.volumes ?? []).map((volume) => volume.split(':')[1] ?? '');
      const meant = understood(t, { words: service.entrypoint, mounts, probe: service.healthcheck?.test.slice(1) ?? [] });
      t.is(service.init, true);
      t.regex(service.stop_grace_period ?? '', /^\d+m$/);
      t.is(meant.command.length > 0, meant.ready === null);
      found += 1;
    }
  }
  t.is(found, 2);
});

interface PodContainer {
  name: string;
  command: string[];
  restartPolicy?: string;
  volumeMounts: { name: string; mountPath: string }[];
  startupProbe?: { exec: { command: string[] } };
}

testChecked('asmt understands its command in the file of Kubernetes', (t) => {
  const all = documents(join(EXAMPLES, 'kubernetes.yml')) as { kind: string; spec: Record<string, unknown> }[];
  const set = all.find(({ kind }) => kind === 'StatefulSet');
  if (set === undefined) throw new Error('no StatefulSet');
  const { template } = set.spec as {
    template: { spec: { initContainers: PodContainer[]; terminationGracePeriodSeconds: number } };
  };
  const [sidecar] = template.spec.initContainers;
  if (sidecar === undefined) throw new Error('no sidecar');
  t.is(sidecar.restartPolicy, 'Always');
  const mounts = sidecar.volumeMounts.map(({ mountPath }) => mountPath);
  const meant = understood(t, { words: sidecar.command, mounts, probe: sidecar.startupProbe?.exec.command ?? [] });
  t.deepEqual(meant.command, []);
  t.like(meant.restore.request, { allow_private_ipc: true });
  t.true(template.spec.terminationGracePeriodSeconds > 600);
});

testChecked('the playbook passes ansible-lint', async (t) => {
  const done = await checker(t, 'ansible-lint', '--offline', '--profile', 'production', ANSIBLE);
  t.is(done.status, 0, show(done));
});

testChecked('the playbook has racks in its inventory, and the words of asmt in its tasks', async (t) => {
  const done = await checker(t, 'ansible-inventory', '-i', join(ANSIBLE, 'hosts.yml'), '--list');
  t.is(done.status, 0, show(done));
  t.true(done.stdout.includes('"rack_a"'), show(done));
  const verbs = [...readFileSync(join(ANSIBLE, 'reboot.yml'), 'utf8').matchAll(/\[asmt, (\w+)|'asmt', '(\w+)'/g)];
  t.deepEqual(
    verbs.map(([, a, b]) => a ?? b),
    ['preflight', 'backup', 'verify'],
  );
});

(IS_INSTALLED ? testWithSystemd : testChecked)(
  'the playbook runs to its end in check mode, on a host with systemd',
  async (t) => {
    const machine = await Machine.startHost(t);
    writeServerUnit(machine, '/bin/sleep 1000');
    const units = machine.path('etc', 'systemd', 'system');
    mkdirSync(units, { recursive: true });
    writeFileSync(join(units, 'asmt.service'), '[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n');
    const host = { ansible_connection: 'local', ansible_python_interpreter: join(BIN, 'python') };
    const inventory = { aerospike: { children: { rack_a: { hosts: { localhost: host } } } } };
    writeFileSync(machine.path('hosts.json'), JSON.stringify(inventory));
    const systemd = await Systemd.boot(t, machine);
    await systemd.run('systemctl', 'start', 'aerospike.service');
    const args = [
      '-i',
      machine.path('hosts.json'),
      '--check',
      '-l',
      'rack_a',
      '-e',
      '{"asmt_quiesce_seconds": 1, "asmt_reboot": false}',
      join(ANSIBLE, 'reboot.yml'),
    ];
    const env = { PATH: `${BIN}:${process.env['PATH']}`, HOME: machine.path(), ANSIBLE_HOME: machine.path('ansible') };
    const done = await machine.exec(join(BIN, 'ansible-playbook'), args, { env });
    t.is(done.status, 0, show(done));
    const all = [...readFileSync(join(ANSIBLE, 'reboot.yml'), 'utf8').matchAll(/^ {4}- name: (.*)$/gm)].map(([, name]) => name);
    t.true(all.length >= 14);
    for (const name of all) t.true(done.stdout.includes(`TASK [${name}]`), `${name}\n${show(done)}`);
    // Nothing was done.
    t.is((await systemd.run('systemctl', 'is-active', 'aerospike.service')).trim(), 'active');
  },
);
