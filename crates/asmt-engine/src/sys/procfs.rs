//! The files by which the kernel describes itself, processes, and control groups.
//!
//! Promise: a file that cannot be read is a failed call that names it. Must never: return a default
//! instead of an answer: an unread limit would be ignored, and an unread id would look like our
//! own.

use crate::error::{Code, Error, Result};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The text of a file. Bytes that are not UTF-8, as a path may have, are replaced.
///
/// Errors: failed calls, also if there is no such file.
pub fn text(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    let bytes = fs::read(path).map_err(|error| failed("read", path, error))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The text of a file; `None` if there is no such file: the kernel is another one, or a container
/// does not show it.
///
/// Errors: failed calls.
pub fn text_if_there(path: impl AsRef<Path>) -> Result<Option<String>> {
    text_unless(path.as_ref(), &[ErrorKind::NotFound])
}

/// The text of a file; `None` also if this user may not see it. Only for things that are useful,
/// but not needed.
///
/// Errors: failed calls.
pub fn text_if_visible(path: impl AsRef<Path>) -> Result<Option<String>> {
    text_unless(path.as_ref(), &[ErrorKind::NotFound, ErrorKind::PermissionDenied])
}

fn text_unless(path: &Path, allowed: &[ErrorKind]) -> Result<Option<String>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        // A restricted /proc may hide a file that is there.
        Err(error) if allowed.contains(&error.kind()) && proc_lacks(path).is_none() => Ok(None),
        Err(error) => Err(failed("read", path, error)),
    }
}

/// The error of a call on a file that may be one of `/proc`.
pub fn failed(call: &str, path: &Path, error: std::io::Error) -> Error {
    let lacks = if error.kind() == ErrorKind::NotFound { proc_lacks(path) } else { None };
    let Some(found) = lacks else { return Error::io(call, path.display(), error) };
    let hint = "give asmt access to all of /proc: in its unit, set ProcSubset=all; in a container or chroot, mount proc at \
        /proc without subset=pid";
    Error::new(Code::ProcIncomplete, format!("{} does not exist: {found}; expected a complete /proc", path.display()), hint)
}

/// The reason why a file of `/proc` may be missing although the kernel has it: nothing is mounted
/// there, or only processes are shown (`subset=pid`). `None` if that is not the case.
fn proc_lacks(path: &Path) -> Option<&'static str> {
    let of_processes = ["/proc/self", "/proc/thread-self"].iter().any(|of| path.starts_with(of));
    let is_there = |path: &str| Path::new(path).symlink_metadata().is_ok();
    match (path.starts_with("/proc"), is_there("/proc/self"), is_there("/proc/sys")) {
        (true, false, _) => Some("/proc is not mounted"),
        (true, true, false) if !of_processes => Some("/proc shows only processes (it is mounted with subset=pid)"),
        _ => None,
    }
}

/// The namespace of a kind (`ipc`, `pid`, `user`) in which this process is: the inode that stands
/// for it.
///
/// Errors: failed calls.
pub fn namespace(kind: &str) -> Result<u64> {
    let path = format!("/proc/thread-self/ns/{kind}");
    fs::metadata(&path).map(|metadata| metadata.ino()).map_err(|error| failed("stat", Path::new(&path), error))
}

/// The knowledge about a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Process {
    /// There is none with this id, or it has ended and waits only for its parent.
    Gone,
    /// `/proc` shows it.
    Seen(ProcessStat),
    /// There is one, but `/proc` does not show it: it is hidden from this user (`hidepid`), or
    /// `/proc` belongs to another PID namespace.
    Hidden,
}

/// The fields of `/proc/PID/stat`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessStat {
    /// Its command, at most 15 bytes.
    pub command: String,
    /// Its start in clock ticks since boot, as this time namespace shows it: see [`host_ticks`].
    start_ticks: u64,
    /// One letter; `Z` and `X` mean that it has ended.
    state: char,
    /// Process id of its parent; 0 if that is in another PID namespace.
    parent: u32,
}

const OWN_STAT: &str = "/proc/self/stat";
const TIME_OFFSETS: &str = "/proc/self/timens_offsets";
const NS_PER_S: i128 = 1_000_000_000;

/// Reads the state of a process of this PID namespace.
///
/// Errors: failed calls.
pub fn process(pid: u32) -> Result<Process> {
    if !exists(pid) {
        return Ok(Process::Gone);
    }
    // The ids in the /proc of another namespace are those of other processes.
    let shown = fs::read_link("/proc/self").map_err(|error| Error::io("readlink", "/proc/self", error))?;
    if shown.as_os_str() != std::process::id().to_string().as_str() {
        return Ok(Process::Hidden);
    }
    let path = format!("/proc/{pid}/stat");
    let text = match fs::read(&path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if is_unseen(&error) => return Ok(if exists(pid) { Process::Hidden } else { Process::Gone }),
        Err(error) => return Err(Error::io("read", path, error)),
    };
    match parse_stat(&text) {
        Some(stat) if matches!(stat.state, 'Z' | 'X') => Ok(Process::Gone),
        Some(stat) => Ok(Process::Seen(stat)),
        None => Err(unreadable(&path)),
    }
}

/// Returns true if a file of a process cannot be read because the process is gone, or hidden from
/// this user.
pub fn is_unseen(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) || error.raw_os_error() == Some(libc::ESRCH)
}

/// Returns true if there is a process with this id, also if `/proc` does not show it.
fn exists(pid: u32) -> bool {
    use rustix::process::{Pid, test_kill_process};
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

/// Reads fields 2, 3, 4 and 22 of `/proc/PID/stat` (proc(5)). The command is in parentheses and may
/// contain anything.
fn parse_stat(text: &str) -> Option<ProcessStat> {
    let (before, after) = text.rsplit_once(')')?;
    let mut fields = after.split_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let start_ticks = fields.nth(17)?.parse().ok()?;
    Some(ProcessStat { command: before.split_once('(')?.1.to_owned(), start_ticks, state, parent })
}

/// The limits on open files of this process, soft and hard; `None` in them means no limit. A limit
/// that cannot be read is 0.
pub fn open_file_limits() -> rustix::process::Rlimit {
    let text = text("/proc/self/limits").unwrap_or_default();
    let row = text.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap_or_default();
    let mut limits = row.split_whitespace().map(|word| if word == "unlimited" { None } else { Some(word.parse().unwrap_or(0)) });
    let mut next = || limits.next().unwrap_or(Some(0));
    rustix::process::Rlimit { current: next(), maximum: next() }
}

/// The parent of a process; `None` if it cannot be seen.
///
/// Errors: failed calls.
pub fn parent_of(pid: u32) -> Result<Option<u32>> {
    Ok(match process(pid)? {
        Process::Seen(stat) => Some(stat.parent).filter(|parent| *parent > 0),
        Process::Gone | Process::Hidden => None,
    })
}

/// The start of this process in clock ticks since the machine's boot: see [`host_ticks`].
///
/// Errors: failed calls.
pub fn own_start() -> Result<u64> {
    host_ticks(&parse_stat(&text(OWN_STAT)?).ok_or_else(|| unreadable(OWN_STAT))?)
}

/// The start of a process in clock ticks since the machine's boot. `/proc` shows it by the clock of
/// the reader's time namespace (time_namespaces(7)), which is ahead by an offset that is subtracted
/// here. Two readers in different namespaces may get numbers that are one tick apart.
///
/// Errors: failed calls.
pub fn host_ticks(stat: &ProcessStat) -> Result<u64> {
    let Some(text) = text_if_there(TIME_OFFSETS)? else { return Ok(stat.start_ticks) };
    let offset_ns = boottime_offset_ns(&text).ok_or_else(|| unreadable(TIME_OFFSETS))?;
    // The file has the offsets of the namespace in which children will be. That is this process's
    // own one, unless the program that became asmt had asked for another: before Linux 6.3, an exec
    // did not enter it.
    if namespace("time")? != namespace("time_for_children")? {
        return Err(Error::new(
            Code::SystemCall,
            "/proc/self/ns/time and time_for_children differ, expected the same: cannot determine when processes started",
            "start asmt as a child of the program that created the time namespace (unshare --fork)",
        ));
    }
    Ok(without_offset(stat.start_ticks, offset_ns, rustix::param::clock_ticks_per_second()))
}

/// The offset of the clock that runs since boot, read from the text of `/proc/self/timens_offsets`:
/// seconds and nanoseconds.
fn boottime_offset_ns(text: &str) -> Option<i128> {
    let mut fields = text.lines().find_map(|line| line.trim_start().strip_prefix("boottime"))?.split_whitespace();
    let (seconds, nanoseconds): (i64, i64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(i128::from(seconds) * NS_PER_S + i128::from(nanoseconds))
}

fn without_offset(ticks: u64, offset_ns: i128, ticks_per_s: u64) -> u64 {
    let ns_per_tick = NS_PER_S / i128::from(ticks_per_s.max(1));
    let host = (i128::from(ticks) * ns_per_tick - offset_ns).div_euclid(ns_per_tick);
    u64::try_from(host.max(0)).unwrap_or(u64::MAX)
}

fn unreadable(path: &str) -> Error {
    Error::io("read", path, std::io::Error::from(ErrorKind::InvalidData))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_an_error_that_names_it_or_nothing_where_that_is_allowed() {
        assert!(text("/proc/self/stat").expect("a file").contains(&std::process::id().to_string()));
        let error = text("/proc/self/no-such-file").expect_err("no file");
        assert!(error.first().message.contains("/proc/self/no-such-file"), "{error}");
        assert_eq!(text_if_there("/proc/self/no-such-file").expect("no error"), None);
        // A directory exists, but cannot be read.
        assert!(text_if_there("/proc/self/ns").expect_err("a directory").first().message.contains("/proc/self/ns"));
        assert!(namespace("ipc").expect("one") > 0);
        assert!(namespace("none").expect_err("no such kind").first().message.contains("/ns/none"));
    }

    #[test]
    fn a_process_that_is_not_there_does_not_exist() {
        assert!(exists(std::process::id()) && !exists(0) && !exists(u32::MAX) && !exists(i32::MAX.cast_unsigned()));
        assert_eq!(process(0).expect("an answer"), Process::Gone);
    }

    #[test]
    fn a_process_is_seen_until_it_has_ended_also_before_its_parent_knows() {
        let mut child = std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().expect("to start");
        let Process::Seen(stat) = process(child.id()).expect("an answer") else { panic!("not seen") };
        assert!(host_ticks(&stat).expect("a start") >= own_start().expect("a start"));
        drop(child.stdin.take());
        while process(child.id()).expect("an answer") != Process::Gone {
            std::thread::yield_now();
        }
        assert!(exists(child.id()), "not waited for yet");
        child.wait().expect("its end");
    }

    #[test]
    fn a_command_may_hold_anything() {
        let text = "7 (a) R b)) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        let stat = ProcessStat { command: "a) R b)".to_owned(), start_ticks: 4711, state: 'S', parent: 1 };
        assert_eq!(parse_stat(text), Some(stat));
        for text in ["", "7 a S 1", "7 (a)", "7 (a) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18"] {
            assert_eq!(parse_stat(text), None, "{text}");
        }
    }

    #[test]
    fn a_start_is_the_same_whatever_the_clock_of_the_reader() {
        // As Linux 6.18 writes it.
        let text = "monotonic           0         0\nboottime       100000 500000000\n";
        assert_eq!(boottime_offset_ns(text), Some(100_000_500_000_000));
        assert_eq!(boottime_offset_ns("boottime   -5         1\n"), Some(-4_999_999_999));
        for text in ["", "monotonic 0 0\n", "boottime\n", "boottime 1\n", "boottime x 0\n"] {
            assert_eq!(boottime_offset_ns(text), None, "{text}");
        }
        assert_eq!(without_offset(4711, 0, 100), 4711);
        assert_eq!(without_offset(4711 + 10_000_000, 100_000 * NS_PER_S, 100), 4711);
        assert_eq!(without_offset(4711 - 500, -5 * NS_PER_S, 100), 4711);
        // Within a tick: 10,004,711.5 ticks are shown as 10,004,711.
        assert_eq!(without_offset(10_004_711, 100_000 * NS_PER_S + 5_000_000, 100), 4710);
        assert_eq!(without_offset(0, 1, 100), 0);
    }
}
