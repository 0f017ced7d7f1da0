/**
 * Names of users and groups for tables. Reads /etc/passwd and /etc/group only: a lookup over the
 * network could hang where a table is all that is wanted. Without a name there, it is the number.
 */

import { readFileSync } from 'node:fs';

export interface Names {
  user(uid: number): string;
  group(gid: number): string;
}

export function systemNames(): Names {
  const users = parse(read('/etc/passwd'));
  const groups = parse(read('/etc/group'));
  return { user: (uid) => users.get(uid) ?? String(uid), group: (gid) => groups.get(gid) ?? String(gid) };
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

/** Of lines `name:password:id:…`, the first name of each id. */
export function parse(text: string): Map<number, string> {
  const names = new Map<number, string>();
  for (const line of text.split('\n')) {
    const [name, , id] = line.split(':');
    if (name && id && /^\d+$/.test(id) && !names.has(Number(id))) names.set(Number(id), name);
  }
  return names;
}
