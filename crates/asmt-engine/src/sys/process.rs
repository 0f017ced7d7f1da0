//! Which run of asmt this is: boot, PID namespace, process and its start, so that a later run can tell a dead one's
//! leftovers from a live one's work; and who runs it.
//!
//! Promise: two runs never have the same id, not even after a reboot, in two containers, or when a process id is used
//! again. Must never: call a run dead whose process cannot be seen from here, unless a lock shows that it has ended.

use crate::error::{Error, Result};
use crate::sys::procfs::{self, Process};
use std::io::ErrorKind;
use std::path::Path;
use std::{fmt, fs};

/// Identity of a run.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RunId {
    /// The kernel's boot id, 32 hex digits.
    boot: String,
    /// The PID namespace's inode: another container's process ids say nothing here.
    pid_namespace: u64,
    /// Process id in that namespace.
    pub pid: u32,
    /// Start of the process in clock ticks since the machine's boot, whatever time namespace it is in.
    start_ticks: u64,
}

impl RunId {
    /// This process's.
    ///
    /// Errors: failed calls.
    pub fn own() -> Result<Self> {
        let boot = boot_id()?.chars().filter(char::is_ascii_hexdigit).collect();
        let pid_namespace = procfs::namespace("pid")?;
        Ok(Self { boot, pid_namespace, pid: std::process::id(), start_ticks: procfs::own_start()? })
    }

    /// Reads what [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (boot, pid_namespace, pid, start) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_boot = boot.len() == 32 && boot.bytes().all(|byte| byte.is_ascii_hexdigit());
        (is_boot && parts.next().is_none()).then_some(())?;
        let (pid_namespace, pid, start_ticks) = (pid_namespace.parse().ok()?, pid.parse().ok()?, start.parse().ok()?);
        Some(Self { boot: boot.to_owned(), pid_namespace, pid, start_ticks })
    }

    /// Whether it is of the same boot as this process's run, `own`.
    pub fn is_of_boot_of(&self, own: &Self) -> bool {
        self.boot == own.boot
    }

    /// Returns true if this run is not `own`, which is this process's, and its process is, or may be, alive. `is_locked` says
    /// that this run holds the lock that every live one would hold: then what cannot be seen has ended.
    ///
    /// Errors: failed calls.
    pub fn is_other_and_may_live(&self, own: &Self, is_locked: bool) -> Result<bool> {
        if self == own || !self.is_of_boot_of(own) {
            return Ok(false);
        }
        if self.pid_namespace != own.pid_namespace {
            return Ok(!is_locked);
        }
        match procfs::process(self.pid)? {
            Process::Gone => Ok(false),
            Process::Seen(stat) => Ok(procfs::host_ticks(&stat)?.abs_diff(self.start_ticks) <= TOLERANCE_TICKS),
            Process::Hidden => Ok(!is_locked),
        }
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}-{}", self.boot, self.pid_namespace, self.pid, self.start_ticks)
    }
}

/// How far apart the start of one process may be for two readers: see [`procfs::host_ticks`].
const TOLERANCE_TICKS: u64 = 1;
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The kernel's boot id, as it writes it; another one after each boot.
///
/// Errors: failed calls. Without it an earlier restore would pass for one of another boot, and a live run for a dead one.
pub fn boot_id() -> Result<String> {
    let id = procfs::text(BOOT_ID)?.trim().to_owned();
    let is_id = id.chars().filter(char::is_ascii_hexdigit).count() == 32;
    if is_id { Ok(id) } else { Err(unreadable(BOOT_ID)) }
}

fn unreadable(path: &str) -> Error {
    Error::io("read", path, std::io::Error::from(ErrorKind::InvalidData))
}

/// The name of an instance's lock, in whatever directory it is.
pub fn lock_name(ipc_namespace: u64, instance: u8) -> String {
    format!("ipc-{ipc_namespace}-instance-{instance}.lock")
}

/// Whether a process of this IPC namespace is an asmt at work on an instance, as far as this user may see: it has the lock
/// of that instance open, or is about to find that another asmt has it.
///
/// Errors: failed calls.
pub fn is_at_work(pid: u32, instance: u8) -> Result<bool> {
    let name = lock_name(procfs::namespace("ipc")?, instance);
    let directory = format!("/proc/{pid}/fd");
    let files = match crate::sys::dir::names_of(Path::new(&directory)) {
        Ok(files) => files,
        // A process that has ended, or that may not be looked into, holds nothing that can be seen.
        Err(error) if error.io_error().is_some_and(procfs::is_unseen) => return Ok(false),
        Err(error) => return Err(error),
    };
    let mut open = files.iter().filter_map(|file| fs::read_link(format!("{directory}/{file}")).ok());
    Ok(open.any(|path| path.file_name().is_some_and(|found| found == name.as_str())))
}

/// Who runs it, and what he may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Effective user id.
    pub uid: u32,
    /// Effective group id, and the supplementary ones.
    pub groups: Vec<u32>,
    /// Effective capabilities, a bit each.
    pub capabilities: u64,
    /// The user id that stands for all who are not in this user namespace, root of the machine among them; `None` where
    /// it may be that of somebody who is.
    pub unmapped_uid: Option<u32>,
}

/// What lets a process give files away.
const CAP_CHOWN: u32 = 0;

impl Caller {
    /// This process.
    pub fn own() -> Self {
        let uid = rustix::process::geteuid().as_raw();
        let mut groups = vec![rustix::process::getegid().as_raw()];
        groups.extend(rustix::process::getgroups().unwrap_or_default().iter().map(|group| group.as_raw()));
        let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
        let bits = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok());
        // Without /proc: what a user commonly has.
        Self { uid, groups, capabilities: bits.unwrap_or(if uid == 0 { u64::MAX } else { 0 }), unmapped_uid: unmapped_uid() }
    }

    /// Whether a file of his can get this owner and group.
    pub fn can_give_to(&self, uid: u32, gid: u32) -> bool {
        self.capabilities & 1 << CAP_CHOWN != 0 || uid == self.uid && self.groups.contains(&gid)
    }
}

/// See [`Caller::unmapped_uid`].
fn unmapped_uid() -> Option<u32> {
    let map = fs::read_to_string("/proc/thread-self/uid_map").ok()?;
    let overflow = fs::read_to_string("/proc/sys/kernel/overflowuid").ok()?.trim().parse().ok()?;
    (!is_mapped(overflow, &map)?).then_some(overflow)
}

/// Whether a user id is in a map of a user namespace: first id inside, first one outside, how many, on each line.
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
        let own = RunId::own().expect("an id");
        assert_eq!(RunId::parse(&own.to_string()), Some(own.clone()));
        assert!(own.start_ticks > 0 && own.pid_namespace > 0);
        assert!(!own.is_other_and_may_live(&own, false).expect("an answer"));
        for text in ["", "x-1-2-3", "00112233445566778899aabbccddeeff-1-2", "00112233445566778899aabbccddeeff-1-2-3-4"] {
            assert_eq!(RunId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_process_id_used_again_or_of_another_boot_is_dead() {
        let parent = rustix::process::getppid().expect("a parent").as_raw_nonzero().get().cast_unsigned();
        let own = RunId::own().expect("an id");
        let Process::Seen(stat) = procfs::process(parent).expect("an answer") else { panic!("not seen") };
        let alive = RunId { pid: parent, start_ticks: procfs::host_ticks(&stat).expect("its start"), ..own.clone() };
        for is_locked in [false, true] {
            let may_live = |run: RunId| run.is_other_and_may_live(&own, is_locked).expect("an answer");
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
        let own = RunId::own().expect("an id");
        let elsewhere = RunId { pid_namespace: 1, ..own.clone() };
        assert!(elsewhere.is_other_and_may_live(&own, false).expect("an answer"));
        assert!(!elsewhere.is_other_and_may_live(&own, true).expect("an answer"));
    }

    #[test]
    fn who_may_give_files_away() {
        let user = Caller { uid: 7, groups: vec![8, 9], capabilities: 0, unmapped_uid: None };
        assert!(user.can_give_to(7, 9) && !user.can_give_to(7, 10) && !user.can_give_to(0, 8));
        assert!(Caller { capabilities: 1, ..user.clone() }.can_give_to(0, 0));
        assert!(!Caller { uid: 0, groups: vec![0], ..user.clone() }.can_give_to(7, 0), "root, where it was taken away");
        assert!(Caller::own().groups.contains(&rustix::process::getegid().as_raw()));
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
