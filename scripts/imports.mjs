/**
 * The imports of the sources: between a crate's files, and between those of the command line.
 *
 * A `mod.rs` that only re-exports from its files is a list and not an import: a name that is
 * imported through it comes from the file that defines it. Unit tests do not count.
 */

import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';

import { ROOT } from './setup.mjs';

/**
 * Returns the paths of the files below a directory of the repository that end with the extension.
 */
export function files(directory, extension) {
  return readdirSync(join(ROOT, directory), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith(extension))
    .map((entry) => relative(ROOT, join(entry.parentPath, entry.name)))
    .toSorted();
}

export const read = (file) => readFileSync(join(ROOT, file), 'utf8');

/** Returns Rust code without comments and without unit tests. */
export function code(file) {
  return read(file)
    .split(/^#\[cfg\(test\)\]\nmod tests \{/m)[0]
    .split('\n')
    .filter((line) => !line.trim().startsWith('//'))
    .join('\n');
}

/** Returns the paths of a `use` tree: `a::{b, c::{self, D}}` are `a::b`, `a::c`, `a::c::D`. */
function leaves(tree, prefix = '') {
  const group = /^((?:\w+::)*)\{([\s\S]*)\}$/.exec(tree.trim());
  if (group === null) {
    const path = prefix + tree.trim().replace(/\s+as\s+\w+$/, '');
    return [path.replace(/::self$/, '')];
  }
  const parts = [];
  let depth = 0;
  let part = '';
  for (const letter of group[2]) {
    if (letter === '{') depth += 1;
    if (letter === '}') depth -= 1;
    if (letter === ',' && depth === 0) {
      parts.push(part);
      part = '';
    } else part += letter;
  }
  return [...parts, part].filter((text) => text.trim() !== '').flatMap((text) => leaves(text, prefix + group[1]));
}

const USE = /^[ \t]*(pub(?:\([^)]*\))? )?use ((?:[^;{}]|\{[^;]*\})+);/gm;

/**
 * Returns the modules of a crate by their path, and the origin of each name that a list re-exports.
 */
function modulesOf(source) {
  const modules = new Map();
  for (const file of files(source, '.rs')) {
    const path = relative(source, file)
      .replace(/\.rs$/, '')
      .replace(/\/mod$/, '');
    modules.set(path === 'lib' || path === 'main' ? '' : path.replaceAll('/', '::'), file);
  }
  const exported = new Map();
  for (const [path, file] of modules) {
    if (!/\/(mod|lib)\.rs$/.test(file)) continue;
    for (const [, isPublic, tree] of code(file).matchAll(USE)) {
      if (!isPublic) continue;
      for (const leaf of leaves(tree)) {
        const whole = leaf.startsWith('crate::') ? leaf.slice(7) : [path, leaf].filter((part) => part !== '').join('::');
        exported.set(`${path}#${whole.split('::').at(-1)}`, whole.split('::').slice(0, -1).join('::'));
      }
    }
  }
  return { modules, exported };
}

/** Returns the files of a crate, each with the files of the crate from which it imports. */
export function rustImports(source) {
  const { modules, exported } = modulesOf(source);
  const fileOf = (path) => {
    let found = '';
    for (const part of path.split('::').filter((name) => name !== '')) {
      const next = found === '' ? part : `${found}::${part}`;
      if (modules.has(next)) {
        found = next;
      } else {
        const home = exported.get(`${found}#${part}`);
        return home === undefined || home === found ? modules.get(found) : fileOf(`${home}::${part}`);
      }
    }
    return modules.get(found);
  };
  const imports = new Map();
  for (const [path, file] of modules) {
    const isList = /\/(mod|lib)\.rs$/.test(file);
    const paths = [];
    const rest = code(file).replace(USE, (_, isPublic, tree) => {
      if (!(isPublic && isList)) paths.push(...leaves(tree));
      return '';
    });
    paths.push(...[...rest.matchAll(/\b(?:crate|super)(?:::\w+)+/g)].map(([found]) => found));
    const above = path.split('::').slice(0, -1).join('::');
    const targets = paths
      .map((found) => {
        if (found.startsWith('crate::')) return fileOf(found.slice(7));
        if (found.startsWith('super::')) return fileOf([above, found.slice(7)].filter((part) => part !== '').join('::'));
        const own = [path, found.split('::')[0]].filter((part) => part !== '').join('::');
        return isList && modules.has(own) ? fileOf([path, found].filter((part) => part !== '').join('::')) : undefined;
      })
      .filter((target) => target !== undefined && target !== file);
    imports.set(file, new Set(targets));
  }
  return imports;
}

/** Returns the files of the command line, each with the files from which it imports values. */
export function typescriptImports(source) {
  const imports = new Map();
  for (const file of files(source, '.ts')) {
    const found = [...read(file).matchAll(/^(?:import|export) (?!type\b)[^;]*?from '(\.[^']+)'|import\('(\.[^']+)'\)/gms)];
    const targets = found.map(([, one, other]) => relative(ROOT, resolve(ROOT, dirname(file), one ?? other)));
    imports.set(file, new Set(targets.filter((target) => existsSync(join(ROOT, target)))));
  }
  return imports;
}

/** Returns the circles: lists of files each of which leads to all others of its list (Tarjan). */
export function circles(imports) {
  const [index, low, onStack, stack, found] = [new Map(), new Map(), new Set(), [], []];
  const visit = (file) => {
    index.set(file, index.size);
    low.set(file, index.get(file));
    stack.push(file);
    onStack.add(file);
    for (const target of imports.get(file) ?? []) {
      if (!index.has(target)) {
        visit(target);
        low.set(file, Math.min(low.get(file), low.get(target)));
      } else if (onStack.has(target)) low.set(file, Math.min(low.get(file), index.get(target)));
    }
    if (low.get(file) !== index.get(file)) return;
    const circle = [];
    do {
      circle.push(stack.pop());
      onStack.delete(circle.at(-1));
    } while (circle.at(-1) !== file);
    if (circle.length > 1) found.push(circle.toSorted((a, b) => a.localeCompare(b)));
  };
  for (const file of imports.keys()) if (!index.has(file)) visit(file);
  return found;
}
