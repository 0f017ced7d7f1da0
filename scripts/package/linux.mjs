/**
 * The deb and the rpm of an architecture, made by nfpm: the single file, the addon beside it (so
 * that nothing is unpacked at a start), the unit with its settings, the manual page, completions,
 * the schemas of the JSON, an empty directory for backups, and the licences.
 *
 * Their name is not `asmt`: Aerospike's deb has that name with version 2.x, of which 0.x would be a
 * downgrade. The command has the same name, so the packages exclude each other.
 *
 * Promise: no script of a package starts, stops or restarts anything: there are none. Must never:
 * own a file that a backup consists of.
 */

import { mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';

import { ROOT, step } from '../setup.mjs';

/** The name of deb and rpm. */
export const PACKAGE = 'asmt-rs';
const SUMMARY = "Back up and restore an Aerospike node's shared memory";
const DESCRIPTION = `${SUMMARY}
Aerospike nodes keep their indexes, and data that is in memory, in System V
shared memory, which a reboot loses. asmt copies the segments to disk before
the reboot, and back after it, so that the node starts warm. It understands
the options and files of Aerospike's own tool of that name.`;
/** The project has no address; `.invalid` is the domain of names that are none (RFC 2606). */
const MAINTAINER = 'The asmt project <noreply@asmt.invalid>';
const DEB_ARCH = { x64: 'amd64', arm64: 'arm64' };

/**
 * The unit, its settings, and the drop-in of the other policy. A package replaces settings only if
 * nobody has changed them.
 */
export const UNIT_FILES = [
  { src: 'share/systemd/asmt.service', dst: '/usr/lib/systemd/system/asmt.service' },
  { src: 'share/systemd/hold.conf', dst: '/usr/share/asmt/hold.conf' },
  { src: 'share/default/asmt', dst: '/etc/default/asmt', type: 'config|noreplace' },
];

/** Makes both for a single file. `stage` gets them; `work` has what they are made of. */
export function debAndRpm({ arch, file, addon, notices }, { version, seconds, work, stage, nfpm }) {
  const mtime = new Date(seconds * 1000).toISOString().replace('.000Z', 'Z');
  const doc = `/usr/share/doc/${PACKAGE}`;
  const licences = `/usr/share/licenses/${PACKAGE}`;
  const changes = join(work, 'changelog.yaml');
  const note = `Release ${version}: see ${doc}/CHANGELOG.md`;
  const entry = { semver: `${version}-1`, date: mtime, packager: MAINTAINER, changes: [{ note }] };
  writeFileSync(changes, JSON.stringify([entry]));
  const changelog = zipped(join(work, 'changelog.gz'), readFileSync(join(ROOT, 'CHANGELOG.md')));
  const debian = zipped(join(work, 'changelog.Debian.gz'), debianChanges(version, seconds));
  const copyright = join(work, 'copyright');
  writeFileSync(copyright, copyrightText());
  const page = zipped(join(work, 'asmt.8.gz'), readFileSync(join(ROOT, 'share', 'asmt.8')));
  const schemas = readdirSync(join(ROOT, 'share', 'schema')).toSorted();
  const of = (src, dst, more = {}) => ({ src, dst, file_info: { mode: 0o644, mtime }, ...more });
  const pages = readdirSync(join(ROOT, 'docs'))
    .filter((name) => name.endsWith('.md'))
    .toSorted();
  const directory = (dst, mode = 0o755, more = {}) => ({ dst, type: 'dir', file_info: { mode, mtime }, ...more });
  const config = {
    name: PACKAGE,
    arch: DEB_ARCH[arch],
    platform: 'linux',
    version,
    release: '1',
    section: 'admin',
    priority: 'optional',
    maintainer: MAINTAINER,
    description: DESCRIPTION,
    license: 'Apache-2.0',
    mtime,
    contents: [
      { src: file, dst: '/usr/bin/asmt', file_info: { mode: 0o755, mtime } },
      of(addon, '/usr/lib/asmt/asmt.node'),
      directory('/usr/lib/asmt'),
      ...UNIT_FILES.map(({ src, dst, ...more }) => of(join(ROOT, src), dst, more)),
      directory('/usr/share/asmt'),
      directory('/var/backups/asmt', 0o700),
      of(page, '/usr/share/man/man8/asmt.8.gz', { packager: 'deb' }),
      of(page, '/usr/share/man/man8/asmt.8.gz', { packager: 'rpm', type: 'doc' }),
      of(completion('asmt.bash'), '/usr/share/bash-completion/completions/asmt'),
      of(completion('asmt.fish'), '/usr/share/fish/vendor_completions.d/asmt.fish'),
      of(completion('_asmt'), '/usr/share/zsh/vendor-completions/_asmt', { packager: 'deb' }),
      of(completion('_asmt'), '/usr/share/zsh/site-functions/_asmt', { packager: 'rpm' }),
      ...schemas.map((name) => of(join(ROOT, 'share', 'schema', name), `/usr/share/asmt/${name}`)),
      directory(doc, 0o755, { packager: 'rpm' }),
      directory(licences, 0o755, { packager: 'rpm' }),
      ...pages.map((name) => of(join(ROOT, 'docs', name), `${doc}/docs/${name}`, { packager: 'deb' })),
      ...pages.map((name) => of(join(ROOT, 'docs', name), `${doc}/docs/${name}`, { packager: 'rpm', type: 'doc' })),
      directory(`${doc}/docs`, 0o755, { packager: 'rpm' }),
      of(join(ROOT, 'README.md'), `${doc}/README.md`, { packager: 'deb' }),
      of(changelog, `${doc}/changelog.gz`, { packager: 'deb' }),
      of(debian, `${doc}/changelog.Debian.gz`, { packager: 'deb' }),
      of(join(ROOT, 'README.md'), `${doc}/README.md`, { packager: 'rpm', type: 'doc' }),
      of(join(ROOT, 'CHANGELOG.md'), `${doc}/CHANGELOG.md`, { packager: 'rpm', type: 'doc' }),
      of(notices, `${doc}/THIRD_PARTY_LICENSES`, { packager: 'deb' }),
      of(copyright, `${doc}/copyright`, { packager: 'deb' }),
      of(join(ROOT, 'scripts', 'package', 'lintian-overrides'), `/usr/share/lintian/overrides/${PACKAGE}`, { packager: 'deb' }),
      of(notices, `${licences}/THIRD_PARTY_LICENSES`, { packager: 'rpm', type: 'license' }),
      of(join(ROOT, 'LICENSE'), `${licences}/LICENSE`, { packager: 'rpm', type: 'license' }),
    ],
    overrides: {
      deb: {
        depends: ['libc6 (>= 2.28)', 'libgcc-s1 | libgcc1', 'libstdc++6'],
        conflicts: ['asmt'],
        replaces: ['asmt'],
      },
      rpm: { depends: ['glibc >= 2.28', 'libgcc', 'libstdc++'], conflicts: ['asmt-tools'] },
    },
    // Older dpkg has no zstd.
    deb: { compression: 'xz' },
    rpm: { compression: 'zstd', summary: SUMMARY, group: 'System Environment/Base', buildhost: 'localhost' },
  };
  for (const packager of ['deb', 'rpm']) {
    const path = join(work, `nfpm-${arch}-${packager}.yaml`);
    // JSON is YAML, too. Debian's list of changes is a file of the package.
    writeFileSync(path, JSON.stringify(packager === 'rpm' ? { ...config, changelog: changes } : config, null, 2));
    const target = join(stage, packager);
    mkdirSync(target, { recursive: true });
    const args = ['package', '--config', path, '--packager', packager, '--target', target];
    step(`${packager} for ${arch} (nfpm)`, nfpm, args, { SOURCE_DATE_EPOCH: String(seconds) });
  }
}

/** A completion of the repository. */
const completion = (name) => join(ROOT, 'share', 'completions', name);

/** Writes a text compressed, without a time. Returns the path. */
function zipped(path, text) {
  writeFileSync(path, gzipSync(text, { level: 9 }));
  return path;
}

/** Debian's own list of changes: of the packaging. */
function debianChanges(version, seconds) {
  const date = new Date(seconds * 1000).toUTCString().replace('GMT', '+0000');
  return `${PACKAGE} (${version}-1) unstable; urgency=medium\n\n  * Release ${version}.\n\n -- ${MAINTAINER}  ${date}\n`;
}

/** As Debian's copyright format 1.0 has it. */
function copyrightText() {
  return `Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: asmt

Files: *
Copyright: 2026 the authors of asmt
License: Apache-2.0
 On Debian systems, the text of this license is in
 /usr/share/common-licenses/Apache-2.0.
Comment: The program contains Node and other projects; their licenses are in
 /usr/share/doc/${PACKAGE}/THIRD_PARTY_LICENSES.
`;
}
