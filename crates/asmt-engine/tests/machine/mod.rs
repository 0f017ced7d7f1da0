//! A machine for one test: an IPC namespace and a directory, and requests to it.
//!
//! Promise: both go with the test, however it ends. Must never: touch the segments of the namespace
//! in which the tests were started.

use asmt_engine::operations::Asked;
use asmt_engine::operations::report::Verb;
use asmt_kit::files::Scratch;
use asmt_kit::namespaces::on_own_ipc;
use std::path::{Path, PathBuf};

/// A machine.
pub struct Machine {
    /// Its directory.
    pub directory: PathBuf,
}

/// Runs a test on a thread with a new IPC namespace. Needs root, or to be root of a user namespace.
pub fn on_own_machine(test: impl FnOnce(&Machine) + Send) {
    let run = || {
        let scratch = Scratch::new("engine");
        test(&Machine { directory: scratch.path().to_owned() });
    };
    on_own_ipc(run).expect("a new IPC namespace needs root");
}

/// Runs the simulator on this thread's machine, and returns its output.
pub fn sim(line: &str) -> String {
    asmt_sim::output_of(line).unwrap_or_else(|error| panic!("{line}: {error}"))
}

/// A request with nothing but the operation.
pub fn request(verb: Verb, directory: &Path) -> Asked {
    Asked {
        directory: Some(directory.to_owned()),
        instance: Some(0),
        threads: Some(2),
        // TMPDIR may name a tmpfs for the tests' directory.
        allow_volatile: true,
        allow_private_ipc: true,
        ..Asked::new(verb)
    }
}
