/**
 * Rust tests that `npm run test:arch` leaves out, each with its reason. All of them run natively in
 * `npm test`.
 *
 * Promise: a test is left out by its whole name, and a name that no test has is a failure. Must
 * never: leave out a test because it fails for a reason of ours.
 */

/** What qemu-user lacks or shows wrongly, by the words that are printed. */
const MADVISE = 'qemu-user accepts every advice on memory and does nothing';
const FDINFO = "qemu-user shows the emulator's own open files in /proc";
const PREADV2 = 'qemu-user has no preadv2 and no cachestat';
const ITSELF = 'a program for another processor can execute itself only with binfmt_misc';
const PEAK = "the peak of memory is the emulator's";
const LONG = 'takes more than 15 minutes in an emulator';

/** By name of the test program, then of the test. */
export const SKIPPED_IN_EMULATOR = {
  engine: {
    'hostile::every_truncation_of_every_file_is_refused': LONG,
    'hostile::every_truncation_of_a_compressed_file_without_a_manifest_is_refused': LONG,
  },
};
void [MADVISE, FDINFO, PREADV2, ITSELF, PEAK];
