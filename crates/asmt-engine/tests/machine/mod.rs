//! A machine of a test's own: an IPC namespace and a directory, and the requests that are made of
//! it.
//!
//! Promise: both go with the test, however it ends. Must never: touch the segments of the namespace
//! that the tests were started in.

use asmt_engine::operations::Asked;
use asmt_engine::operations::report::Verb;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A machine.
pub struct Machine {
    /// Its directory.
    pub directory: PathBuf,
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Runs a test on a thread with a new IPC namespace. Needs root, or to be root of a user namespace.
pub fn on_own_machine(test: impl FnOnce(&Machine) + Send + 'static) {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let thread = std::thread::spawn(|| {
        // SAFETY: moves this thread, and those it starts, to another IPC namespace; no segment is
        // attached yet.
        let outcome = unsafe { libc::unshare(libc::CLONE_NEWIPC) };
        assert_eq!(outcome, 0, "a new IPC namespace needs root: {}", std::io::Error::last_os_error());
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("asmt-engine-{}-{number}", std::process::id()));
        std::fs::create_dir(&directory).expect("a directory");
        test(&Machine { directory });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs the simulator on this thread's machine; gives what it printed.
pub fn sim(line: &str) -> String {
    let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    let mut out = Vec::new();
    asmt_sim::run(&words, &mut out).unwrap_or_else(|error| panic!("{line}: {error}"));
    String::from_utf8(out).expect("text")
}

/// What is asked for if nothing is said beyond the operation.
pub fn request(verb: Verb, directory: &Path) -> Asked {
    Asked {
        verb,
        directory: Some(directory.to_owned()),
        instance: Some(0),
        namespaces: None,
        compress: false,
        check: false,
        threads: Some(2),
        analyze: false,
        require_manifest: false,
        config: None,
        devices: Vec::new(),
        force_stale: false,
        force_host: false,
        require_proof: false,
        restorable: false,
        // The tests' directory may be on a tmpfs, which is what TMPDIR says.
        allow_volatile: true,
        allow_private_ipc: true,
    }
}
