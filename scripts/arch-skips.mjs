/**
 * Rust tests that `npm run test:arch` leaves out, each with its reason, or runs alone. All of them
 * run natively in `npm test`.
 *
 * Promise: a test is left out by its whole name, and a name that no test has is a failure. Must
 * never: leave out a test because it fails for a reason of ours.
 */

/** What qemu-user lacks or shows wrongly. */
const ADVICE = 'qemu-user accepts every advice on memory and does nothing';
const OPEN_FILES = "qemu-user shows the flags of its own open files, in this machine's numbers";
const ROOT = 'qemu-user looks up / below the directory of the emulated libraries (-L)';
const CACHE = 'qemu-user has no preadv2, which tells what the page cache holds';
const ITSELF = 'runs its own program, which only binfmt_misc can do for another processor';
const THREADS = 'starts so many threads that what qemu-user keeps of each makes more than 5 GiB';
const LONG = 'tries each length of each file: takes more than 15 minutes in an emulator';

/**
 * Tests that run in a process of their own, by name of the test program. qemu-user keeps some
 * memory of each thread that has ended: these start many, and some check the peak of their process.
 */
export const ALONE_IN_EMULATOR = {
  engine: [
    'hostile::a_bomb_stops_at_the_segments_size',
    'hostile::a_forged_manifest_is_refused_or_means_the_same',
    'hostile::any_set_of_odd_files_is_refused_or_comes_back_as_it_is',
    'hostile::sizes_that_files_claim_decide_neither_time_nor_memory',
  ],
};

/** By name of the test program, then of the test. */
export const SKIPPED_IN_EMULATOR = {
  asmt_shm: {
    'sysv::tests::bytes_are_held_by_one_holder_at_a_time': ADVICE,
    'sysv::tests::attaching_a_segment_of_one_page_leaves_the_memory_behind_it_alone': ADVICE,
  },
  engine: {
    'hostile::every_flipped_bit_is_refused_or_means_the_same': THREADS,
    'hostile::every_truncation_of_every_file_is_refused': LONG,
    'hostile::every_truncation_of_a_compressed_file_without_a_manifest_is_refused': LONG,
  },
  store: {
    a_direct_write_that_ends_within_a_sector_has_failed: ITSELF,
    bytes_are_read_wherever_they_stand_and_past_the_page_cache: OPEN_FILES,
    what_is_written_past_the_page_cache_is_what_was_given_and_stays_past_it: OPEN_FILES,
    what_was_read_does_not_stay_in_the_nodes_memory: CACHE,
    who_can_exchange_a_directory_on_the_path_is_found_as_the_kernel_resolves_it: ROOT,
  },
};
