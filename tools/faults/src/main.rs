//! Loops that prove, by trying each state there is, that whatever fails, whenever it fails, there
//! is afterwards either the whole old state or the whole new one. For tests alone; `npm run
//! test:faults` builds and starts it.
//!
//! Promise: prints a line a loop with the number of states tried and found wrong, in the form that
//! other tests have (TAP); a wrong state is printed with the command that tries it again; exit
//! status 1 if there is one. Leaves nothing behind: mounts and IPC namespaces are its own, and go
//! with it. Must never: touch the segments of the namespace it was started in.

mod loops;
mod tally;
mod world;

use asmt_faults::{calls, driver, sys, tracer};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tally::{Options, Tally};

const USAGE: &str = "\
asmt-faults: whatever fails, whenever it fails, the whole old state or the whole new one is there

  --only syscalls|kills|space|races   one loop (default: all), or a scenario of it, as in --only kills:backup-twice
  --verb backup|restore|verify|list   only what works on this
  --short                             fewer states, spread over all of them
  --part I/N                          the I-th of N parts of the states
  --seconds N                         each loop ends after so long
  --state LABEL                       this state alone, as a loop has printed it
";

/// Whether file systems can be mounted and files given to others: not so in a user namespace.
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
    let words: Vec<String> = std::env::args().skip(1).collect();
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
    if words.iter().any(|word| word == "--help") {
        println!("{}", USAGE.trim_end());
        return ExitCode::SUCCESS;
    }
    match Options::parse(&words) {
        Ok(options) => all_loops(&options),
        Err(text) => {
            eprintln!("asmt-faults: {text}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// A directory that goes with this value.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn all_loops(options: &Options) -> ExitCode {
    let scratch = Scratch(std::env::temp_dir().join(format!("asmt-faults-{}", std::process::id())));
    std::fs::create_dir_all(scratch.0.join("run")).expect("a directory");
    sys::set_variable("ASMT_RUNTIME_DIR", &scratch.0.join("run"));
    // A limit on file sizes is to be an error, not a signal.
    sys::ignore(libc::SIGXFSZ);
    sys::run_on_one(options.part_number());
    if is_real_root() {
        sys::unshare_mounts().expect("a mount namespace of its own");
    }
    let mut tally = Tally::new(options);
    for (name, run) in loops::ALL {
        if options.wants(name) {
            run(&scratch.0, &mut tally);
        }
    }
    let is_right = tally.end();
    ExitCode::from(u8::from(!is_right))
}
