/**
 * The shape `vast` of `npm run bench`: a tebibyte allocated, and next to nothing in it (13 MiB in
 * each 256 GiB), which is what a server's stripes are after a start.
 *
 * Promise: nothing is touched that was not; what came back is compared. Where the machine cannot
 * have such segments, that is said, and the shape left out.
 */

import { asmt, allocatedBytes, diskBytes, dropCaches, GIB, MIB, residentBytes, settle, sim } from './bench-tools.mjs';

/** As large as the kernel grants a segment on a machine with 16 GiB of memory. */
const STRIPE_BYTES = 16 * GIB;
const STRIPES = 64;
const DATA_PART = (13 * MIB) / (256 * GIB);

/** Measures it. `isSmall`: a 64th of it, in smaller stripes. */
export async function vast({ figures, path, rounds, isSmall, say }) {
  const stripeBytes = STRIPE_BYTES / (isSmall ? 64 : 1);
  const stripes = ['--stripes', String(STRIPES), '--stripe-size', String(stripeBytes), '--stripe-fill', String(DATA_PART)];
  const make = ['--stages', '1', '--stage-size', '1MiB', '--data-nsid', '2', ...stripes];
  say(`\nvast: ${make.join(' ')}`);
  try {
    sim('make', ...make);
  } catch (error) {
    say(`  left out: ${error.message.trim()}`);
    return;
  }
  const before = sim('sum', '--sparse');
  const [allocated, resident] = [allocatedBytes(before), residentBytes()];
  for (let round = 0; round < rounds; round += 1) {
    say(`  round ${round + 1} of ${rounds}`);
    for (const flags of [[], ['-z']]) {
      const form = flags.map((flag) => ` ${flag}`).join('');
      const add = (what, done, more = {}) =>
        figures.add('vast', `${what}${form}`, done.seconds, allocated, { own_bytes: done.ownBytes, ...more });
      add('backup', await asmt('backup', ...flags, path('b')), { file_bytes: diskBytes(path('b')) });
      const gained = residentBytes() / resident;
      figures.add('vast', `backup${form}: resident afterwards, of before`, 1, residentBytes(), { part: gained });
      dropCaches();
      add('verify', await asmt('verify', path('b')));
      sim('remove');
      dropCaches();
      add('restore', await asmt('restore', path('b')));
      figures.add('vast', `restore${form}: resident afterwards, of before`, 1, residentBytes(), {
        part: residentBytes() / resident,
      });
      if (round === 0 && sim('sum', '--sparse') !== before) throw new Error(`restore${form} of vast gave other segments back`);
      settle(path('b'));
    }
  }
  sim('remove');
  for (const what of ['backup', 'backup -z', 'restore', 'restore -z']) {
    const found = figures.get('vast', `${what}: resident afterwards, of before`).part;
    figures.verdict(`vast: resident after ${what}, of before`, found, 1.01, true);
  }
}
