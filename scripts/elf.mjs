/**
 * Reads from an ELF file of 64 bits which libraries and which of their symbol versions it needs.
 *
 * Promise: what the dynamic linker would ask for, weak symbols included, also of stripped files and
 * of other processors. A file that is no such ELF file is an error. Must never: run anything.
 */

import { readFileSync } from 'node:fs';

/** The newest glibc that a file may need: that of RHEL 8, Debian 10 and Node 20 itself. */
export const MOST_GLIBC = [2, 28];

/** Types of program headers. */
const LOAD = 1;
const DYNAMIC = 2;
/** Tags of the dynamic section. */
const TAG = { end: 0n, needed: 1n, strings: 5n, versions: 0x6ffffffen, versionsCount: 0x6fffffffn };

/** What a file needs: names of libraries, and versions of symbols such as `GLIBC_2.17`. */
export function needs(file) {
  const bytes = readFileSync(file);
  // 64 bits, little-endian.
  if (bytes.length < 64 || bytes.readUInt32BE(0) !== 0x7f454c46 || bytes[4] !== 2 || bytes[5] !== 1) {
    throw new Error(`${file} is no ELF file of 64 bits`);
  }
  const [at, size, count] = [Number(bytes.readBigUInt64LE(32)), bytes.readUInt16LE(54), bytes.readUInt16LE(56)];
  const headers = Array.from({ length: count }, (_, index) => {
    const header = bytes.subarray(at + index * size);
    const number = (offset) => Number(header.readBigUInt64LE(offset));
    return { type: header.readUInt32LE(0), offset: number(8), address: number(16), bytes: number(32) };
  });
  const offsetOf = (address) => {
    const part = headers.find(
      (header) => header.type === LOAD && address >= header.address && address < header.address + header.bytes,
    );
    if (part === undefined) throw new Error(`${file} is damaged: nothing is loaded to address ${address}`);
    return address - part.address + part.offset;
  };
  const dynamic = headers.find((header) => header.type === DYNAMIC);
  // It is linked statically.
  if (dynamic === undefined) return { libraries: [], versions: [] };
  const entries = [];
  for (let offset = dynamic.offset; offset < dynamic.offset + dynamic.bytes; offset += 16) {
    const tag = bytes.readBigInt64LE(offset);
    if (tag === TAG.end) break;
    entries.push({ tag, value: Number(bytes.readBigUInt64LE(offset + 8)) });
  }
  const value = (tag) => entries.find((entry) => entry.tag === tag)?.value;
  const strings = value(TAG.strings) === undefined ? 0 : offsetOf(value(TAG.strings));
  const text = (offset) => bytes.toString('latin1', strings + offset, bytes.indexOf(0, strings + offset));
  const versions = [];
  let library = value(TAG.versions) === undefined ? 0 : offsetOf(value(TAG.versions));
  for (let left = value(TAG.versionsCount) ?? 0; left > 0; left -= 1) {
    let version = library + bytes.readUInt32LE(library + 8);
    for (let more = bytes.readUInt16LE(library + 2); more > 0; more -= 1) {
      versions.push(text(bytes.readUInt32LE(version + 8)));
      version += bytes.readUInt32LE(version + 12);
    }
    library += bytes.readUInt32LE(library + 12);
  }
  return { libraries: entries.filter((entry) => entry.tag === TAG.needed).map((entry) => text(entry.value)), versions };
}

/**
 * The numbers of a version. Those that have none, such as `GLIBC_ABI_DT_RELR`, are markers that
 * only a new glibc knows.
 */
function numbersOf(version) {
  const numbers = /^GLIBC_(\d+(?:\.\d+)*)$/.exec(version)?.[1].split('.').map(Number);
  return numbers ?? [Number.POSITIVE_INFINITY];
}

/** Orders lists of numbers as versions are ordered. */
function compare(a, b) {
  const places = [...Array(Math.max(a.length, b.length)).keys()];
  const place = places.find((index) => (a[index] ?? 0) !== (b[index] ?? 0));
  return place === undefined ? 0 : (a[place] ?? 0) < (b[place] ?? 0) ? -1 : 1;
}

/** Returns the versions of glibc that a file needs, the oldest first: `GLIBC_2.17`. */
export function symbolVersions(file) {
  const versions = needs(file).versions.filter((version) => version.startsWith('GLIBC_'));
  return [...new Set(versions)].toSorted((a, b) => compare(numbersOf(a), numbersOf(b)));
}

/** Returns those of the versions that are newer than `most`. */
export function newerThan(versions, most) {
  return versions.filter((version) => compare(numbersOf(version), most) > 0);
}

/** Returns the versions of glibc that a file needs; throws if one is newer than 2.28. */
export function checkSymbolVersions(file) {
  const versions = symbolVersions(file);
  const newer = newerThan(versions, MOST_GLIBC);
  if (newer.length > 0) throw new Error(`${file} needs ${newer.join(', ')}, expected at most GLIBC_${MOST_GLIBC.join('.')}`);
  return versions;
}
