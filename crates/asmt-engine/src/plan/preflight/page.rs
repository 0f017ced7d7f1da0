//! What a preflight says, as data: one answer for each question.

use crate::error::{Code, Problem};
use serde::Serialize;

/// What a line of a preflight answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(test, derive(ts_rs::TS))]
pub enum Answer {
    /// Nothing speaks against it.
    Ready,
    /// It would fail, or the server would not use it.
    NotReady,
    /// It cannot be told, which counts as not ready.
    Unknown,
    /// To be known; it does not count.
    Note,
}

/// What a line of a preflight is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(test, derive(ts_rs::TS))]
pub enum Topic {
    /// Whether asmt applies to a namespace.
    Applies,
    /// Whether the server runs.
    Server,
    /// Whether a backup would be made.
    Backup,
    /// Whether a restore would be accepted.
    Restore,
    /// Room at the target of a backup.
    Room,
    /// Memory and limits for a restore.
    Memory,
    /// Permissions and owners.
    Rights,
    /// How long it takes.
    Time,
    /// The unit that restores before the server starts.
    Unit,
    /// Whether stop and backup fit into the time of a reboot.
    Reboot,
    /// Whether the next start of the server is a cold one.
    ColdStart,
    /// The size of the data stripes.
    StripeSize,
    /// What has changed since the backup.
    Changed,
}

/// A line of a preflight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Check {
    /// What it is about.
    pub topic: Topic,
    /// The answer.
    pub answer: Answer,
    /// What was found.
    pub text: String,
    /// The next step; empty where there is none.
    pub hint: String,
    /// Code of the refusal that `--analyze` has for it; null where it has none.
    pub code: Option<Code>,
}

impl Check {
    fn new(topic: Topic, answer: Answer, text: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { topic, answer, text: text.into(), hint: hint.into(), code: None }
    }

    /// Nothing speaks against it.
    pub fn ready(topic: Topic, text: impl Into<String>) -> Self {
        Self::new(topic, Answer::Ready, text, "")
    }

    /// It would fail.
    pub fn not_ready(topic: Topic, text: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(topic, Answer::NotReady, text, hint)
    }

    /// It cannot be told.
    pub fn unknown(topic: Topic, text: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(topic, Answer::Unknown, text, hint)
    }

    /// To be known.
    pub fn note(topic: Topic, text: impl Into<String>) -> Self {
        Self::new(topic, Answer::Note, text, "")
    }

    /// A refusal of a plan.
    pub fn of(topic: Topic, problem: &Problem) -> Self {
        Self { code: Some(problem.code), ..Self::not_ready(topic, &problem.message, &problem.hint) }
    }
}

/// Whether asmt applies to a namespace, and whether it is ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct NamespaceReadiness {
    /// Name, or what there is to say without one.
    pub name: String,
    /// Part of it is in shared memory, or in the backup, and is lost by a reboot otherwise.
    pub applies: bool,
    /// Why it does not apply, or what limits it; empty where there is nothing to say.
    pub why: String,
    /// It would be backed up; null where no backup was asked for, or none of it is in memory.
    pub backup: Option<bool>,
    /// It would be restored; null where no restore was asked for, or it is in no backup.
    pub restore: Option<bool>,
    /// Size of its segments in memory; of those in the backup where it is not in memory. Null where
    /// it is neither there nor there, or where it is not certain which segments are its own.
    pub allocated_bytes: Option<u64>,
    /// Of these resident; null where that is not known.
    pub resident_bytes: Option<u64>,
}

/// What would stand in the way of a backup or a restore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Preflight {
    /// No line is not ready or unknown.
    pub ready: bool,
    /// A backup was judged.
    pub backup: bool,
    /// A restore was judged.
    pub restore: bool,
    /// The server runs, as far as can be seen: a backup was judged as after its clean stop.
    pub server_runs: bool,
    /// The segments of the backup are still in memory: a restore was judged as after a reboot.
    pub after_reboot: bool,
    /// Namespaces, by name.
    pub namespaces: Vec<NamespaceReadiness>,
    /// All lines, by topic.
    pub checks: Vec<Check>,
    /// Bytes of data that a backup would copy.
    pub data_bytes: Option<u64>,
    /// Bytes that are free at the target.
    pub free_bytes: Option<u64>,
    /// Memory that a restore needs at most.
    pub memory_bytes: Option<u64>,
    /// Memory that is available for it.
    pub available_bytes: Option<u64>,
    /// Expected time of a backup.
    pub backup_ms: Option<u64>,
    /// Expected time of a restore.
    pub restore_ms: Option<u64>,
    /// Most time of the server's stop, by its unit.
    pub stop_ms: Option<u64>,
    /// Time after which a reboot is forced.
    pub reboot_ms: Option<u64>,
}
