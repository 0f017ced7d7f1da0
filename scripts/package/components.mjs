/**
 * The parts of other projects that are inside what ships: their names, versions and licences, from
 * the lock files and the sources that were built.
 *
 * Promise: a part whose licence has no text is an error. Must never: name what is only needed to
 * build or test.
 */

import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';

import { ROOT } from '../setup.mjs';

const read = (...path) => readFileSync(join(...path), 'utf8');
const byName = (a, b) => (a.name < b.name ? -1 : 1);

/** Crates that are linked into the addon for a target. */
export function crates(target) {
  const args = ['metadata', '--locked', '--format-version', '1', '--filter-platform', target];
  const { packages, resolve } = JSON.parse(execFileSync('cargo', args, { cwd: ROOT, encoding: 'utf8', maxBuffer: 2 ** 28 }));
  const byId = new Map(packages.map((found) => [found.id, found]));
  const nodes = new Map(resolve.nodes.map((node) => [node.id, node]));
  const addon = packages.find(({ name }) => name === 'asmt-napi');
  const reached = new Set();
  const visit = (id) => {
    if (reached.has(id)) return;
    reached.add(id);
    for (const { pkg, dep_kinds: kinds } of nodes.get(id).deps) {
      // What runs in the compiler alone is not in what it makes.
      const isLinked = kinds.some(({ kind }) => kind === null);
      const isMacro = byId.get(pkg).targets.some(({ kind }) => kind.includes('proc-macro'));
      if (isLinked && !isMacro) visit(pkg);
    }
  };
  visit(addon.id);
  return [...reached]
    .map((id) => byId.get(id))
    .filter(({ source }) => source !== null)
    .map(({ name, version, license, authors, manifest_path: manifest }) => ({
      type: 'library',
      name,
      version,
      license,
      purl: `pkg:cargo/${name}@${version}`,
      text: licenceTexts(dirname(manifest)) ?? standardText(name, license, authors),
    }))
    .toSorted(byName);
}

/** Crates inside the standard library that its list may leave out; MIT is a licence of each. */
const IN_STD = ['addr2line', 'adler2', 'gimli', 'hashbrown', 'memchr', 'miniz_oxide', 'object', 'rustc-demangle'];

/** Rust's standard library, with the crates that are in it: its own list of their licences. */
export function standardLibrary() {
  const rustc = (...args) => execFileSync('rustc', args, { cwd: ROOT, encoding: 'utf8' }).trim();
  const version = rustc('--version').split(' ')[1];
  const path = join(rustc('--print', 'sysroot'), 'share', 'doc', 'rust', 'COPYRIGHT-library.html');
  const text = existsSync(path) ? textOf(readFileSync(path, 'utf8')) : '';
  if (text === '') throw new Error(`${path} is missing: it has the licences of Rust's standard library`);
  const purl = `pkg:github/rust-lang/rust@${version}`;
  const mit = standardText(IN_STD.join(', '), 'MIT', []);
  return { type: 'library', name: 'rust-std', version, license: 'MIT OR Apache-2.0', purl, text: `${text}\n\n${mit}` };
}

/** The text of a page without its marks. */
function textOf(html) {
  const entities = { lt: '<', gt: '>', quot: '"', amp: '&', nbsp: ' ' };
  const bare = html.replaceAll(/<(style|script)[\s\S]*?<\/\1>/g, '').replaceAll(/<[^>]*>/g, '');
  const text = bare
    .replaceAll(/&(\w+);/g, (whole, name) => entities[name] ?? whole)
    .replaceAll(/&#(\d+);/g, (_, code) => String.fromCodePoint(code));
  return text
    .replaceAll(/[ \t]+$/gm, '')
    .replaceAll(/\n{3,}/g, '\n\n')
    .trim();
}

/** npm packages that are in the bundle: those that its list of licences names. */
export function bundled() {
  const names = [...read(ROOT, 'dist', 'THIRD_PARTY_LICENSES').matchAll(/^(\S+) (\d\S*) \((.*)\)$/gm)];
  return names
    .map(([, name, version, license]) => ({
      type: 'library',
      name,
      version,
      license,
      purl: `pkg:npm/${name.replace('@', '%40')}@${version}`,
      text: licenceTexts(join(ROOT, 'node_modules', name)) ?? standardText(name, license, []),
    }))
    .toSorted(byName);
}

/** Node itself, which is in the single file. */
export function node(directory) {
  const { version } = JSON.parse(read(directory, 'package.json'));
  const purl = `pkg:github/nodejs/node@v${version}`;
  return { type: 'application', name: 'node', version, license: 'MIT', purl, text: licenceTexts(directory) };
}

/**
 * The text of a licence for a crate that ships none: the standard one, with the authors that the
 * crate names.
 */
function standardText(name, license, authors) {
  const isMit = license.split(/ OR |\//).includes('MIT');
  if (!isMit) throw new Error(`${name} has no licence text, and ${license} has none here: expected a file LICENSE in the crate`);
  const holders = authors.length > 0 ? authors.map((author) => author.replace(/ <.*>/, '')).join(', ') : `the authors of ${name}`;
  return `The MIT License (MIT)\n\nCopyright (c) ${holders}\n\n${read(import.meta.dirname, 'MIT.txt').trim()}`;
}

/** The texts of the licences in a directory: all of them, since some parts have two. */
function licenceTexts(directory) {
  const names = readdirSync(directory).filter((name) => /^(license|licence|copying|notice)/i.test(name));
  if (names.length > 0)
    return names
      .toSorted()
      .map((name) => read(directory, name).trim())
      .join('\n\n');
  const readme = readdirSync(directory).find((name) => /^readme/i.test(name));
  const part = /^#+ (?:license|licence).*\n([\s\S]*)/im.exec(readme === undefined ? '' : read(directory, readme))?.[1]?.trim();
  return part === '' ? undefined : part;
}

/** All licences in one text. */
export function licences(components) {
  const texts = components.map(({ name, version, license, text }) => `${name} ${version} (${license})\n\n${text}\n`);
  return `asmt contains code of these projects.\n\n${texts.join(`\n${'-'.repeat(80)}\n\n`)}`;
}

/** A bill of materials: CycloneDX 1.6, without a time, so that it is the same each time. */
export function sbom({ version, commit }, components) {
  const own = {
    type: 'application',
    name: 'asmt',
    version,
    'bom-ref': `pkg:npm/asmt@${version}`,
    purl: `pkg:npm/asmt@${version}`,
  };
  const parts = components.map(({ type, name, version: found, license, purl }) => ({
    type,
    'bom-ref': purl,
    name,
    version: found,
    licenses: [{ expression: license.replaceAll('/', ' OR ') }],
    purl,
  }));
  const properties = [{ name: 'asmt:commit', value: commit }];
  return {
    bomFormat: 'CycloneDX',
    specVersion: '1.6',
    version: 1,
    metadata: { component: { ...own, licenses: [{ expression: 'Apache-2.0' }], properties } },
    components: parts,
    dependencies: [{ ref: own['bom-ref'], dependsOn: parts.map((part) => part['bom-ref']) }],
  };
}
