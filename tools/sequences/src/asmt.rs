//! Runs of asmt's engine, each in a process of its own, with the sequence's clock, configuration
//! and directories.
//!
//! Must never: use anything from the real machine's set-up: a variable, a configuration, the lock
//! of another asmt.

use crate::machine::{Host, Machine};
use asmt_engine::Request;
use asmt_engine::format::Form;
use asmt_engine::operations::Asked;
use asmt_engine::operations::report::Verb;
use asmt_faults::driver::{Said, Told};
use asmt_faults::tracer::{self, Action, Setup, Shown};
use std::fmt::Write;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The way in which asmt gets to know the server's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Naming {
    /// `--config`.
    Option(PathBuf),
    /// `ASMT_CONFIG`.
    Variable(PathBuf),
    /// Not at all.
    Nothing,
    /// By `--device` alone.
    Devices(Vec<PathBuf>),
    /// `--config` with a path that is not there.
    Mistyped,
}

/// A run of asmt.
#[derive(Clone, Debug)]
pub struct Call {
    /// Operation.
    pub verb: Verb,
    /// Directory.
    pub directory: PathBuf,
    /// Instance.
    pub instance: u8,
    /// Namespace; `None` for all.
    pub namespace: Option<String>,
    /// The configuration.
    pub naming: Naming,
    /// `-a`.
    pub is_analysis: bool,
    /// `--require-proof`.
    pub require_proof: bool,
    /// `--restorable`.
    pub is_restorable: bool,
    /// The form of a backup.
    pub form: Form,
    /// It is killed at this system call.
    pub kill_at: Option<usize>,
}

/// The outcome of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Exit status, as the command line has it; `None` if it was killed.
    pub exit: Option<i32>,
    /// Problems.
    pub problems: Vec<Told>,
    /// Codes of remarks and events.
    pub notes: Vec<String>,
    /// Its output, if no report can be read from it.
    pub text: String,
}

impl Outcome {
    /// Returns true if it is done.
    pub fn is_done(&self) -> bool {
        self.exit == Some(0)
    }

    /// The outcome in words, for a story.
    pub fn words(&self) -> String {
        let mut words = self.exit.map_or_else(|| "killed".to_owned(), |exit| format!("exit {exit}"));
        for told in &self.problems {
            let _ = write!(words, "; {}: {} (hint: {})", told.code, told.message, told.hint);
        }
        if !self.notes.is_empty() {
            let _ = write!(words, "; notes {}", self.notes.join(", "));
        }
        if !self.text.is_empty() {
            let _ = write!(words, "; said {:?}", self.text);
        }
        words
    }
}

/// The exit status of a kind; source: `EXIT_STATUSES` in src/errors.ts.
fn exit_of(kind: &str) -> i32 {
    match kind {
        "failed" => 1,
        "usage" => 2,
        "refused" => 3,
        "stale" => 4,
        "damaged" => 5,
        "no-room" => 6,
        "nothing-to-do" => 7,
        "interrupted" => 130,
        _ => 70,
    }
}

impl Call {
    fn request(&self, host: &Host) -> String {
        let config = match &self.naming {
            Naming::Option(path) => Some(path.clone()),
            Naming::Mistyped => Some("/no/such/aerospike.conf".into()),
            Naming::Variable(_) | Naming::Nothing | Naming::Devices(_) => None,
        };
        let devices = if let Naming::Devices(paths) = &self.naming { paths.clone() } else { Vec::new() };
        let asked = Asked {
            directory: Some(self.directory.clone()),
            instance: Some(self.instance),
            namespaces: self.namespace.clone().map(|name| vec![name]),
            compress: self.form == Form::Gzip,
            columns: self.form == Form::Columns,
            threads: Some(1),
            analyze: self.is_analysis,
            allow_volatile: true,
            allow_private_ipc: true,
            config,
            devices,
            force_stale: host.is_forced && self.verb == Verb::Restore,
            require_proof: self.require_proof,
            restorable: self.is_restorable,
            ..Asked::new(self.verb)
        };
        serde_json::to_string(&Request::from(asked)).expect("plain structures always serialise")
    }

    fn command(&self, host: &Host, machine: &Machine) -> Command {
        let mut command = Command::new("/proc/self/exe");
        command.arg("drive").arg(self.request(host)).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("RUST_BACKTRACE", "0").env("TZ", "UTC");
        command.env("ASMT_RUNTIME_DIR", host.root.join("run"));
        let config = if let Naming::Variable(path) = &self.naming { path.clone() } else { host.root.join("no.conf") };
        command.env("ASMT_CONFIG", config);
        if let (Some(library), Some(now)) = (&host.clock_library, machine.set_clock()) {
            command.env("LD_PRELOAD", library).env("FAKETIME", now).env("NO_FAKE_STAT", "1");
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        command
    }

    /// Runs it.
    pub fn run(&self, host: &Host, machine: &Machine) -> Outcome {
        let mut command = self.command(host, machine);
        let (status, signal, text) = match self.kill_at {
            None => {
                let done = command.stdin(Stdio::null()).output().expect("to start");
                let text = [done.stdout, done.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
                (done.status.code(), done.status.signal(), text)
            }
            Some(at) => {
                let (mut reader, writer) = std::io::pipe().expect("a pipe");
                command.stdout(writer.try_clone().expect("a pipe")).stderr(writer);
                let mut count = 0;
                let setup = Setup { limits: Vec::new(), shown: Shown::All, is_filtered: true };
                let ended = tracer::run(&mut command, setup, &mut |_| {
                    count += 1;
                    if count == at { Action::Signal(libc::SIGKILL) } else { Action::Go }
                });
                drop(command);
                let mut text = String::new();
                reader.read_to_string(&mut text).expect("text");
                let ended = ended.expect("to trace");
                assert!(!ended.is_endless, "a run does not end: {}", self.request(host));
                (ended.status, ended.signal, text)
            }
        };
        outcome_of(status, signal, text)
    }
}

fn outcome_of(status: Option<i32>, signal: Option<i32>, text: String) -> Outcome {
    let Some(said) = text.lines().find_map(Said::read) else {
        // It was killed on purpose. Any other end without a report is a bug.
        let exit = if signal == Some(libc::SIGKILL) && text.is_empty() { None } else { Some(70) };
        return Outcome { exit, problems: Vec::new(), notes: Vec::new(), text: format!("{text}{status:?} {signal:?}") };
    };
    let (is_done, notes, problems) = (said.ok, said.notes(), said.problems());
    let exit = if is_done { 0 } else { problems.first().map_or(70, |told| exit_of(&told.kind)) };
    Outcome { exit: Some(exit), problems, notes, text: String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_statuses_are_those_of_the_command_line() {
        let table = include_str!("../../../src/errors.ts");
        for kind in ["failed", "usage", "refused", "stale", "damaged", "no-room", "nothing-to-do", "bug", "interrupted"] {
            let entry = format!("kind: '{kind}', status: {},", exit_of(kind));
            assert!(table.contains(&entry), "no {entry}");
        }
    }
}
