//! The identity of this run of asmt: boot, PID namespace, process and its start, by which a later
//! run tells a dead run's leftovers from a live run's work. And the user who runs it.
//!
//! Promise: two runs never have the same id, not even after a reboot, in two containers, or when a
//! process id is used again. Must never: call a run dead whose process cannot be seen from here,
//! unless a lock shows that it has ended.

use crate::error::{Error, Result};
use crate::facts::caller::Caller;
use crate::format::run_id::RunId;
use crate::sys::procfs::{self, Process};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// The name of this process's run.
///
/// Errors: failed calls.
pub fn own_run() -> Result<RunId> {
    let boot = boot_id()?.chars().filter(char::is_ascii_hexdigit).collect();
    let pid_namespace = procfs::namespace("pid")?;
    Ok(RunId { boot, pid_namespace, pid: std::process::id(), start_ticks: procfs::own_start()? })
}

/// The meaning of a process that cannot be seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unseen {
    /// It has ended: this run holds the lock that every live run would hold.
    HasEnded,
    /// It may be alive.
    MayLive,
}

/// Returns true if `run` is not `own`, which is this process's, and its process is, or may be,
/// alive.
///
/// Errors: failed calls.
pub fn is_other_and_may_live(run: &RunId, own: &RunId, unseen: Unseen) -> Result<bool> {
    if run == own || !run.is_of_boot_of(own) {
        return Ok(false);
    }
    if run.pid_namespace != own.pid_namespace {
        return Ok(unseen == Unseen::MayLive);
    }
    match procfs::process(run.pid)? {
        Process::Gone => Ok(false),
        Process::Seen(stat) => Ok(procfs::host_ticks(&stat)?.abs_diff(run.start_ticks) <= TOLERANCE_TICKS),
        Process::Hidden => Ok(unseen == Unseen::MayLive),
    }
}

/// The difference that two readers may find in the start of one process: see
/// [`procfs::host_ticks`].
pub(crate) const TOLERANCE_TICKS: u64 = 1;
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The kernel's boot id, in its own form. Each boot has another one.
///
/// Errors: failed calls. Without the id, an earlier restore would look like one of another boot,
/// and a live run like a dead one.
pub fn boot_id() -> Result<String> {
    let id = procfs::text(BOOT_ID)?.trim().to_owned();
    let is_id = id.chars().filter(char::is_ascii_hexdigit).count() == 32;
    if is_id { Ok(id) } else { Err(unreadable(BOOT_ID)) }
}

fn unreadable(path: &str) -> Error {
    Error::io("read", path, std::io::Error::from(ErrorKind::InvalidData))
}

/// The name of an instance's lock, in any directory.
pub fn lock_name(ipc_namespace: u64, instance: u8) -> String {
    format!("ipc-{ipc_namespace}-instance-{instance}.lock")
}

/// Returns true if a process of this IPC namespace is an asmt at work on an instance, as far as
/// this user can see: it has the lock of that instance open, or is about to find that another asmt
/// has it.
///
/// Errors: failed calls.
pub fn is_at_work(pid: u32, instance: u8) -> Result<bool> {
    let name = lock_name(procfs::namespace("ipc")?, instance);
    let directory = format!("/proc/{pid}/fd");
    let files = match crate::sys::dir::names_of(Path::new(&directory)) {
        Ok(files) => files,
        // A process that has ended, or that this user may not look into, holds nothing that can be
        // seen.
        Err(error) if error.io_error().is_some_and(procfs::is_unseen) => return Ok(false),
        Err(error) => return Err(error),
    };
    let mut open = files.iter().filter_map(|file| fs::read_link(format!("{directory}/{file}")).ok());
    Ok(open.any(|path| path.file_name().is_some_and(|found| found == name.as_str())))
}

/// The user who runs this process, and the rights of that user.
pub fn own_caller() -> Caller {
    let uid = rustix::process::geteuid().as_raw();
    let mut groups = vec![rustix::process::getegid().as_raw()];
    groups.extend(rustix::process::getgroups().unwrap_or_default().iter().map(|group| group.as_raw()));
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let bits = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok());
    // Without /proc: the usual rights of a user.
    Caller { uid, groups, capabilities: bits.unwrap_or(if uid == 0 { u64::MAX } else { 0 }), unmapped_uid: unmapped_uid() }
}

/// See [`Caller::unmapped_uid`].
pub(crate) fn unmapped_uid() -> Option<u32> {
    let map = fs::read_to_string("/proc/thread-self/uid_map").ok()?;
    let overflow = fs::read_to_string("/proc/sys/kernel/overflowuid").ok()?.trim().parse().ok()?;
    (!is_mapped(overflow, &map)?).then_some(overflow)
}

/// Returns true if a user id is in a map of a user namespace. Each line has the first id inside,
/// the first one outside, and their number.
fn is_mapped(uid: u32, map: &str) -> Option<bool> {
    for line in map.lines() {
        let mut fields = line.split_whitespace().map(str::parse::<u64>);
        let (first, _, count) = (fields.next()?.ok()?, fields.next()?.ok()?, fields.next()?.ok()?);
        if (first..first.saturating_add(count)).contains(&u64::from(uid)) {
            return Some(true);
        }
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_back_and_its_own_run_is_no_other() {
        let own = own_run().expect("an id");
        assert_eq!(RunId::parse(&own.to_string()), Some(own.clone()));
        assert!(own.start_ticks > 0 && own.pid_namespace > 0);
        assert!(!is_other_and_may_live(&own, &own, Unseen::MayLive).expect("an answer"));
        for text in ["", "x-1-2-3", "00112233445566778899aabbccddeeff-1-2", "00112233445566778899aabbccddeeff-1-2-3-4"] {
            assert_eq!(RunId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_process_id_used_again_or_of_another_boot_is_dead() {
        let parent = rustix::process::getppid().expect("a parent").as_raw_nonzero().get().cast_unsigned();
        let own = own_run().expect("an id");
        let Process::Seen(stat) = procfs::process(parent).expect("an answer") else { panic!("not seen") };
        let alive = RunId { pid: parent, start_ticks: procfs::host_ticks(&stat).expect("its start"), ..own.clone() };
        for unseen in [Unseen::MayLive, Unseen::HasEnded] {
            let may_live = |run: RunId| is_other_and_may_live(&run, &own, unseen).expect("an answer");
            // A reader in another time namespace may see it a tick earlier or later.
            for (start_ticks, is_same) in [
                (alive.start_ticks, true),
                (alive.start_ticks + 1, true),
                (alive.start_ticks - 1, true),
                (alive.start_ticks + 2, false),
                (alive.start_ticks - 2, false),
            ] {
                assert_eq!(may_live(RunId { start_ticks, ..alive.clone() }), is_same, "{start_ticks}");
            }
            assert!(!may_live(RunId { boot: "0".repeat(32), ..alive.clone() }));
        }
    }

    #[test]
    fn a_run_of_another_container_lives_unless_a_lock_shows_that_it_has_ended() {
        let own = own_run().expect("an id");
        let elsewhere = RunId { pid_namespace: 1, ..own.clone() };
        assert!(is_other_and_may_live(&elsewhere, &own, Unseen::MayLive).expect("an answer"));
        assert!(!is_other_and_may_live(&elsewhere, &own, Unseen::HasEnded).expect("an answer"));
    }

    #[test]
    fn the_caller_has_a_group() {
        assert!(own_caller().groups.contains(&rustix::process::getegid().as_raw()));
    }

    #[test]
    fn who_is_not_in_a_user_namespace_is_told_from_who_is() {
        let whole = "         0          0 4294967295\n";
        let own = "         0       1000          1\n";
        let with_range = "0 1000 1\n1 100000 65536\n";
        for (uid, map, expected) in [
            (65534, whole, Some(true)),
            (65534, own, Some(false)),
            (0, own, Some(true)),
            (65534, with_range, Some(true)),
            (65537, with_range, Some(false)),
            (65534, "", Some(false)),
            (65534, "no map", None),
        ] {
            assert_eq!(is_mapped(uid, map), expected, "{uid} {map}");
        }
    }
}
