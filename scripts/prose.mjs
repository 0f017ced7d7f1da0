/**
 * Checks of texts: the width of lines, and the targets to which documents and comments point.
 *
 * Promise: returns every violation with its file and line, not just the first. Must never: judge
 * the meaning of a text, or depend on anything but Node.
 */

import { existsSync, readdirSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';

import { files, read } from './imports.mjs';
import { ROOT } from './setup.mjs';

const MOST_MARKDOWN = 120;
const MOST_COMMENT = 100;

/** Folders whose comments are checked, with those of the repository's own sources. */
const SOURCES = ['crates', 'tools', 'src', 'scripts', '__test__', 'fuzz'];
const EXTENSIONS = ['.rs', '.ts', '.mjs'];
/** Folders into which builds put files. */
const MADE = /(^|\/)(target|node_modules)\//;

/** A line that is one link and cannot be broken: in a list or not, as a definition or alone. */
const LONE_LINK = /^\s*([-*+]|\d+\.)?\s*(\[[^\]]*\](\([^)]*\)|:\s*\S+)|<?https?:\/\/\S+>?)[.,;]?$/;
const FENCE = /^\s*(```|~~~)/;
const LINK = /\]\(([^()\s]+)\)/g;
/** A path of a file of the repository, whole or from a folder within it, in backticks. */
const PATH_IN_BACKTICKS = /`((?:\.{1,2}\/)*[\w.-]+(?:\/[\w.-]+)+\.(?:rs|ts|mjs|md))`/g;
/** The same without backticks, from the top, as comments name documents and sources. */
const PATH_FROM_TOP = /(?<![\w./`-])((?:crates|tools|src|scripts|docs|__test__|fuzz)(?:\/[\w.-]+)+\.(?:rs|ts|mjs|md))\b/g;
/** The name of a test in a document: the file, and the test's title or function. */
const TEST = /`([\w./-]+\.(?:spec\.ts|rs))`: (?:"([^"]+)"|`(\w+)`)/g;

/** Returns the number of characters that a reader counts, not of UTF-16 units. */
const width = (line) => [...line].length;

function markdownFiles() {
  const atTop = readdirSync(ROOT).filter((name) => name.endsWith('.md'));
  return [...atTop, ...files('docs', '.md'), ...files('.github', '.md')];
}

const sourceFiles = () =>
  SOURCES.flatMap((folder) => EXTENSIONS.flatMap((extension) => files(folder, extension))).filter((file) => !MADE.test(file));

/** Returns the lines with their numbers; those of code fences are empty. */
function linesOf(file) {
  let isCode = false;
  return read(file)
    .split('\n')
    .map((line, index) => {
      const isFence = FENCE.test(line);
      if (isFence) isCode = !isCode;
      return { line: isCode || isFence ? '' : line, place: `${file}:${index + 1}` };
    });
}

/** Returns the lines that have only a comment, with their numbers. */
function commentsOf(file) {
  const isRust = file.endsWith('.rs');
  let isBlock = false;
  const found = [];
  for (const [index, line] of read(file).split('\n').entries()) {
    const text = line.trim();
    const isComment = isBlock || text.startsWith('//') || (text.startsWith('/*') && !isRust);
    if (!isRust && !text.startsWith('//') && (isBlock || text.startsWith('/*'))) isBlock = !text.includes('*/');
    if (isComment) found.push({ line, place: `${file}:${index + 1}` });
  }
  return found;
}

/** Returns the anchors that GitHub gives to the headings of a document. */
function anchorsOf(file) {
  const counts = new Map();
  const anchors = new Set();
  for (const { line } of linesOf(file)) {
    const heading = /^#{1,6}\s+(.*?)\s*#*$/.exec(line);
    if (heading === null) continue;
    const slug = heading[1]
      .replace(/\[([^\]]*)\]\([^)]*\)/g, '$1')
      .toLowerCase()
      .replace(/[^\p{L}\p{N}\s_-]/gu, '')
      .replace(/\s/g, '-');
    const count = counts.get(slug) ?? 0;
    counts.set(slug, count + 1);
    anchors.add(count === 0 ? slug : `${slug}-${count}`);
  }
  return anchors;
}

/** Returns a list of texts, empty if all rules hold. */
export function violations() {
  const found = [];
  const rule = (holds, text) => holds || found.push(text);
  const markdown = markdownFiles();
  const sources = sourceFiles();
  // A path may begin at any folder: `work/commit.rs` is the file in the engine.
  const known = [...markdown, ...sources].map((file) => `/${file}`);
  const isThere = (path, file) =>
    existsSync(join(ROOT, path)) ||
    existsSync(join(ROOT, dirname(file), path)) ||
    known.some((other) => other.endsWith(`/${normalize(path)}`));
  const paths = (pattern, { line, place }, file) => {
    for (const [, path] of line.matchAll(pattern)) rule(isThere(path, file), `${place}: there is no file ${path}`);
  };

  for (const file of markdown) {
    for (const { line, place } of linesOf(file)) {
      const isFree = /^\s*\|/.test(line) || LONE_LINK.test(line);
      rule(isFree || width(line) <= MOST_MARKDOWN, `${place}: ${width(line)} characters, expected at most ${MOST_MARKDOWN}`);
      for (const [, link] of line.matchAll(LINK)) rule(leads(link, file), `${place}: the link ${link} leads nowhere`);
      paths(PATH_IN_BACKTICKS, { line, place }, file);
      for (const [, path, title, name] of line.matchAll(TEST)) {
        const text = title ?? `fn ${name}(`;
        rule(holdsTest(path, text, known), `${place}: ${path} holds no test ${title ?? name}`);
      }
    }
  }
  for (const file of sources) {
    for (const { line, place } of commentsOf(file)) {
      const isFree = !/\S\s+\S/.test(line.trim().replace(/^(\/\/[/!]?|\*)\s*/, ''));
      rule(isFree || width(line) <= MOST_COMMENT, `${place}: ${width(line)} characters, expected at most ${MOST_COMMENT}`);
      paths(PATH_IN_BACKTICKS, { line, place }, file);
      paths(PATH_FROM_TOP, { line, place }, file);
    }
  }
  return found;
}

/** Returns true if a link within the repository has a target, and a heading there. */
function leads(link, file) {
  if (/^[a-z][a-z+.-]*:/i.test(link)) return true;
  const [path, anchor] = link.split('#');
  const target = path === '' ? file : normalize(join(dirname(file), path));
  if (!existsSync(join(ROOT, target))) return false;
  return anchor === undefined || !target.endsWith('.md') || anchorsOf(target).has(anchor);
}

/**
 * Returns true if a file of this name, whole or from a folder within, has a test with this title.
 */
function holdsTest(path, text, known) {
  const named = known.filter((file) => file.endsWith(`/${path}`)).map((file) => file.slice(1));
  // A quote may be escaped in the source.
  return named.some((file) => read(file).replaceAll('\\', '').includes(text));
}
