//! Loops that prove, by trying each possible state, that after any failure at any time there is
//! either the whole old state or the whole new one. For tests alone; `npm run test:faults` builds
//! and starts it.
//!
//! Promise: it prints a line per loop, with the number of states that were tried and of those that
//! were wrong, in the form that other tests have (TAP). It prints each wrong state with the command
//! that tries it again, and ends with exit status 1 if there is one. It leaves nothing behind:
//! mounts and IPC namespaces are its own, and go with it. Must never: touch the segments of the
//! namespace in which it was started.

mod judge;
mod loops;
mod tally;
mod world;

use asmt_faults::{calls, driver, sys, tracer};
use asmt_kit::args::{self, Tool};
use asmt_kit::files::Scratch;
use asmt_kit::namespaces::unshare_mounts;
use asmt_kit::sys::set_variable;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tally::{Options, Tally};

const USAGE: &str = "\
asmt-faults: whatever fails, whenever it fails, the whole old state or the whole new one is there

  --only syscalls|kills|space|races   one loop (default: all), or a scenario of it, as in --only kills:backup-twice
  --verb VERB                         only what works on this
  --short                             fewer states, spread over all of them
  --part I/N                          the I-th of N parts of the states
  --seconds N                         each loop ends after so long
  --state LABEL                       this state alone, as a loop has printed it
";

/// Returns true if file systems can be mounted and files given to others, which a user namespace
/// does not allow.
pub fn is_real_root() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let owner = std::fs::metadata("/proc/self").map_or(1, |metadata| std::os::unix::fs::MetadataExt::uid(&metadata));
    owner == 0 && map.split_whitespace().nth(2) == Some("4294967295")
}

/// The built command line.
pub fn main_js() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dist/main.js")
}

fn main() -> ExitCode {
    let words = args::words();
    if let [command, request] = &words[..]
        && command == "drive"
    {
        return driver::drive(request);
    }
    if let [command, how] = &words[..]
        && command == "recreate"
    {
        return loops::races::recreate(how);
    }
    let tool = Tool { program: "asmt-faults", usage: USAGE, flags: &["short"] };
    tool.run(&words, Options::parse, all_loops)
}

fn all_loops(options: &Options) -> ExitCode {
    let scratch = Scratch::new("faults");
    let scratch = scratch.path();
    std::fs::create_dir(scratch.join("run")).expect("a directory");
    set_variable("ASMT_RUNTIME_DIR", &scratch.join("run"));
    // The limit on file sizes must be an error, not a signal.
    sys::ignore(libc::SIGXFSZ);
    sys::run_on_one(options.part_number());
    if is_real_root() {
        unshare_mounts().expect("a mount namespace of its own");
    }
    let mut tally = Tally::new(options);
    for (name, run) in loops::ALL {
        if options.wants(name) {
            run(scratch, &mut tally);
        }
    }
    let is_right = tally.end();
    ExitCode::from(u8::from(!is_right))
}
