/**
 * The JSON Schemas of what asmt prints for programs, made of the types in `src/json.ts`.
 *
 * Promise: a schema lets fields through that it does not know, as docs/VERSIONING.md asks of
 * programs. Must never: describe a field that the types do not have.
 */

import { createGenerator } from 'ts-json-schema-generator';

import { SCHEMA_VERSION } from '../../src/json.ts';

/** File of each schema, its type, and what it is about. */
export const SCHEMAS = [
  { file: 'share/schema/asmt-output.schema.json', type: 'Output', title: 'Output of asmt --json' },
  { file: 'share/schema/asmt-progress.schema.json', type: 'Line', title: 'A line of asmt --progress json' },
];

/** Returns the schema of a type. */
export function schemaOf({ file, type, title }) {
  const generator = createGenerator({
    path: 'src/json.ts',
    tsconfig: 'tsconfig.json',
    type,
    expose: 'export',
    topRef: false,
    jsDoc: 'extended',
    additionalProperties: true,
    // The check "types (tsc)" has done that, with the compiler of the project.
    skipTypeCheck: true,
  });
  const { $schema, definitions, ...root } = generator.createSchema(type);
  const name = file.split('/').at(-1)?.replace('.schema.json', '');
  return { $schema, $id: `urn:asmt:schema:${name}:${SCHEMA_VERSION}`, title, ...root, definitions };
}
