/**
 * Requests to the engine, for scripts that ask it without the command line: those that the command
 * line itself would make. So they have every field, whatever options there are.
 *
 * It reads TypeScript: import it when the packages are installed.
 */

await import('@oxc-node/core/register');
const { normalise } = await import('../src/argv.ts');
const { resolve } = await import('../src/policy.ts');

/** What `asmt` with these words asks of the engine, as JSON. */
export function requestOf(...words) {
  const { verb, values, operands } = normalise(words);
  return JSON.stringify(resolve(verb, values, operands).request);
}
