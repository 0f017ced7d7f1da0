/**
 * Holds what asmt prints for programs against the JSON Schemas that ship.
 *
 * Promise: stricter than these: a field that no schema has is a violation, too. Must never: let a
 * run pass that printed something else than what `--json` or `--progress json` promise.
 */

import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

import { Ajv, type ValidateFunction } from 'ajv';

const PLACE = resolve(import.meta.dirname, '..', 'share', 'schema');

/** Which schema: that of the object of `--json`, or that of a line of `--progress json`. */
export type Shape = 'output' | 'progress';

/** The text of a schema. */
export function schemaText(shape: Shape): string {
  return readFileSync(join(PLACE, `asmt-${shape}.schema.json`), 'utf8');
}

/** The same schema, in which no object has other fields than its own. */
function strict(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(strict);
  if (typeof value !== 'object' || value === null) return value;
  const copy = Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, strict(inner)]));
  return 'properties' in copy ? { ...copy, additionalProperties: false } : copy;
}

const validators = new Map<Shape, ValidateFunction>();

function validatorOf(shape: Shape): ValidateFunction {
  const known = validators.get(shape);
  if (known !== undefined) return known;
  const schema = strict(JSON.parse(schemaText(shape))) as object;
  const validator = new Ajv({ allowUnionTypes: true, strict: true }).compile(schema);
  validators.set(shape, validator);
  return validator;
}

/** What is wrong with a line that asmt has printed; null if nothing is. */
export function violation(shape: Shape, line: string): string | null {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (error) {
    return `this is no JSON (${String(error)}): ${line}`;
  }
  const validator = validatorOf(shape);
  return validator(value) ? null : `${JSON.stringify(validator.errors)} in ${line}`;
}

/** The same for all that a run has printed, as far as it had to be JSON. */
export function violations(
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
  { stdout, stderr }: { stdout: string; stderr: string },
): string[] {
  const isJson = args.includes('--json') || env['ASMT_JSON'] === '1';
  const isProgress = /--progress[= ]json/.test(args.join(' ')) || env['ASMT_PROGRESS'] === 'json';
  const linesIn = (text: string) => text.split('\n').filter((line) => line !== '');
  // An empty output is that of a run that was killed, or whose output went elsewhere.
  const output = isJson ? linesIn(stdout) : [];
  const found = [
    ...output.map((line) => violation('output', line)),
    ...(isProgress ? linesIn(stderr).map((line) => violation('progress', line)) : []),
  ].filter((text) => text !== null);
  return output.length > 1 ? [...found, `${output.length} lines on standard output, expected one`] : found;
}
