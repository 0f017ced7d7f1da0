//! The processes that may be at work on segments: the server, another asmt, or a process that
//! cannot be seen from here.

use crate::error::{Code, Problem};
use crate::facts::memory::{Creator, Inventory, Makers, Segment};

/// The process that may be at work on segments that are not attached.
pub enum AtWork<'s> {
    /// None: the processes that made them have ended.
    Nobody,
    /// The server made some of them, and runs.
    Server { pid: u32 },
    /// Another process made some of them, and runs: most likely another asmt.
    Process { pid: u32, command: &'s str },
    /// The processes that made them cannot be seen from here.
    Unseen,
}

/// The name of the server's processes.
pub const SERVER_COMMAND: &str = "asd";

/// Finds the process that may be at work on segments, by their creators.
pub fn at_work<'s>(segments: &[&'s Segment]) -> AtWork<'s> {
    let mut found = AtWork::Nobody;
    for segment in segments {
        match (&segment.creator, &found) {
            (Creator::Alive { pid, command }, _) if command != SERVER_COMMAND => return AtWork::Process { pid: *pid, command },
            (Creator::Alive { pid, .. }, _) => found = AtWork::Server { pid: *pid },
            (Creator::Unseen, AtWork::Nobody) => found = AtWork::Unseen,
            _ => {}
        }
    }
    found
}

pub const NOBODY_UNSEEN: &str = "no asmt or server that cannot be seen from here (in another container) is using it";

pub fn at_work_problem(title: &str, count: usize, pid: u32, command: &str) -> Problem {
    Problem::new(
        Code::AnotherAsmt,
        format!(
            "{title}: {count} of its segments are in memory, and the process that created them is still running: pid {pid} \
             ({command}), apparently another asmt"
        ),
        "wait until it has finished, then try again; if it is neither asmt nor the server, its process id was reused: find out \
         what created the segments (ipcs -m -p)",
    )
}

/// The reason why it matters that segments are attached. A hint that is right for a backup would
/// roll back a node that runs already.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Attached {
    /// They are to be backed up.
    ToBackUp,
    /// Other segments are to be restored in their place.
    InTheWay,
}

pub fn attached_problem(
    inventory: &Inventory,
    title: &str,
    segments: &[&Segment],
    first: &Segment,
    attached: Attached,
) -> Problem {
    let count = segments.iter().filter(|segment| segment.stat.attached_count > 0).count();
    let mut holders: Vec<String> = segments
        .iter()
        .filter_map(|segment| inventory.attachers.get(&segment.stat.shmid))
        .flatten()
        .map(|attacher| format!("pid {} ({})", attacher.pid, attacher.command))
        .collect();
    holders.sort_unstable();
    holders.dedup();
    let is_server = segments
        .iter()
        .filter_map(|segment| inventory.attachers.get(&segment.stat.shmid))
        .flatten()
        .any(|attacher| attacher.command == SERVER_COMMAND);
    let by = if holders.is_empty() { "a process that cannot be seen from here".to_owned() } else { holders.join(", ") };
    let find = format!(
        "find the process that has it attached (as root, also in other containers: grep -l SYSV{} /proc/[0-9]*/maps)",
        first.key()
    );
    let hint = match (attached, is_server, holders.is_empty()) {
        (Attached::ToBackUp, true, _) => stop_the_server(first.address.instance),
        (Attached::ToBackUp, false, true) => {
            format!("{find}; if it is a server, stop it cleanly, otherwise wait until it has exited; then try again")
        }
        (Attached::ToBackUp, false, false) => "wait until that process has exited, then try again; if it is the server under \
            another name, stop it cleanly, and do not kill it"
            .to_owned(),
        (Attached::InTheWay, true, _) => {
            "the server is running with these segments: nothing needs restoring, leave it running (a restore would roll it back)"
                .to_owned()
        }
        (Attached::InTheWay, false, true) => format!(
            "{find}; if it is a server, leave it running: nothing needs restoring; otherwise wait until it has exited, then try \
             again"
        ),
        (Attached::InTheWay, false, false) => {
            "if that process is the server under another name, leave it running: nothing needs restoring; otherwise wait until \
             it has exited, then try again"
                .to_owned()
        }
    };
    Problem::new(
        Code::SegmentAttached,
        format!(
            "{title}: {count} of {} segments attached (the first is {}), expected none; attached by {by}",
            segments.len(),
            first.key()
        ),
        hint,
    )
}

/// A server that has segments of the instance attached: its process id, and the first of these
/// segments. One server makes the segments of all namespaces of an instance, so none of them is at
/// rest, whichever process has it attached. Segments that were made by others than `own` do not
/// count.
fn serving<'i>(inventory: &'i Inventory, instance: u8, own: &Makers) -> Option<(u32, &'i Segment)> {
    let of_instance = inventory.segments.values().filter(|segment| segment.address.instance == instance);
    of_instance.filter(|segment| segment.makers() == *own).find_map(|segment| {
        let attachers = inventory.attachers.get(&segment.stat.shmid)?;
        attachers.iter().find(|attacher| attacher.command == SERVER_COMMAND).map(|attacher| (attacher.pid, segment))
    })
}

/// The refusal for a namespace that no process has attached, while its server runs with others.
pub fn serving_problem(inventory: &Inventory, title: &str, instance: u8, own: &Makers, attached: Attached) -> Option<Problem> {
    let (pid, segment) = serving(inventory, instance, own)?;
    let hint = match attached {
        Attached::ToBackUp => stop_the_server(instance),
        Attached::InTheWay => {
            "the server is running: leave it running, nothing needs restoring (a restore would roll it back); if it is still \
             starting, it may come to this namespace next"
                .to_owned()
        }
    };
    Some(Problem::new(
        Code::SegmentAttached,
        format!(
            "{title}: its server is running: pid {pid} ({SERVER_COMMAND}) has segment {} of another namespace attached",
            segment.key()
        ),
        hint,
    ))
}

/// The command that stops the server. The unit is that of instance 0: for another instance it would
/// stop the wrong server.
pub fn stop_the_server(instance: u8) -> String {
    if instance == 0 {
        return "the server is running: stop it (systemctl stop aerospike), wait until asd has exited, then try again".to_owned();
    }
    format!(
        "the server of instance {instance} is running: stop that server and no other, wait until its asd has exited, then try \
         again"
    )
}
