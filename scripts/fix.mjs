/**
 * `npm run fix`: repairs the format and whatever the linters can repair, by the table of `npm run
 * lint`.
 */

import { CHECKS } from './lint.mjs';
import { install, step } from './setup.mjs';

install();
for (const { title, fix } of CHECKS.filter((entry) => entry.fix).toReversed()) {
  step(title, fix[0], fix.slice(1));
}
