//! The files that asmt keeps under `/run`: a lock per instance, the journal of a restore while it
//! works, and after it the ids of the segments that it has made, until the next boot.
//!
//! Promise: one asmt at a time works on an instance of an IPC namespace. The next run finds the
//! segments that a killed restore has made, by the ids in its journal, and removes them if no
//! process has them attached, if the restore had not begun to store the words that a start would
//! trust, and if nobody has made other segments beside them since. Must never: remove any other
//! segment; a start may have taken segments that could be trusted, however briefly.
//!
//! The journal: a line of JSON with the segments that are about to be made, then the id of each
//! segment in a line of its own, as soon as it is made. A kill can come between a segment and its
//! line, so one segment may be there without a line. The last line is `commit`, written before the
//! first word is stored that a start would trust.
//!
//! The directory: `ASMT_RUNTIME_DIR` if it is set; otherwise the first of `/run/asmt`,
//! `$XDG_RUNTIME_DIR/asmt` and `/tmp/asmt-<uid>-<user namespace>` that belongs to this user alone.

use crate::error::{Code, Error, NoteCode, Result};
use crate::facts::memory::{Creator, Segment};
use crate::format::run_id::RunId;
use crate::plan::NamespaceRestore;
use crate::progress::Control;
use crate::sys::process::{self, Unseen, is_other_and_may_live};
use crate::sys::procfs;
use crate::{hints, look};
use asmt_shm::sysv::{self, SegmentStat};
use asmt_shm::{Header, Key, SHUTDOWN_CLEAN, SegmentType};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Largest journal that is read: a key and an id for ten times as many segments as an instance can
/// have.
const MAX_JOURNAL_BYTES: u64 = 64 << 20;

/// The line of a journal after which a start may trust the segments.
const COMMIT: &str = "commit";

/// The directory, and the lock of one instance in it; released when dropped.
pub struct InstanceLock {
    directory: PathBuf,
    ipc_namespace: u64,
    instance: u8,
    _lock: File,
}

/// The segments that a restore is about to make: the first line of its journal.
#[derive(Serialize, Deserialize)]
struct JournalHead {
    /// Time of its beginning, seconds since 1970, by the clock that the kernel stamps segments
    /// with.
    began_s: i64,
    /// The IPC namespace: see [`look::server::ipc_namespace`]. Ids of segments mean nothing in
    /// another one.
    #[serde(default)]
    ipc_namespace: Option<String>,
    /// The keys of the segments, one list per namespace.
    namespaces: Vec<Vec<u32>>,
}

/// The journal of a restore.
struct Journal {
    head: JournalHead,
    /// Ids of the segments that it had made.
    shmids: HashSet<i32>,
    /// It had begun to store the words that a start would trust, or was about to.
    has_committed: bool,
}

/// The journal of a restore at work.
pub struct RestoreJournal {
    path: PathBuf,
    file: File,
}

impl InstanceLock {
    /// Opens the directory and locks the instance for this process.
    ///
    /// Errors: `another-asmt`; failed calls if there can be no directory.
    pub fn lock(instance: u8) -> Result<Self> {
        let directory = runtime_directory()?;
        let ipc_namespace = procfs::namespace("ipc")?;
        let path = directory.join(process::lock_name(ipc_namespace, instance));
        // The open must not block: a FIFO in its place would wait for a reader.
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).custom_flags(flags).open(&path);
        let file = file.map_err(|error| Error::io("open", path.display(), error))?;
        check_regular(&file, &path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { directory, ipc_namespace, instance, _lock: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::new(
                Code::AnotherAsmt,
                format!("another asmt is working on instance {instance}"),
                "wait until it has finished, then try again",
            )),
            Err(error) => Err(Error::io("flock", path.display(), error)),
        }
    }

    fn journal_prefix(&self) -> String {
        prefix_of(AT_WORK, self.ipc_namespace, self.instance)
    }

    /// Writes down the segments that are about to be made, before any of them is.
    pub fn begin_restore(&self, namespaces: &[NamespaceRestore]) -> Result<RestoreJournal> {
        let path = self.directory.join(self.journal_prefix() + &crate::sys::process::own_run()?.to_string());
        let keys = |namespace: &NamespaceRestore| namespace.sources.iter().map(|source| source.key.0).collect();
        let ipc_namespace = Some(look::server::ipc_namespace()?);
        let head = JournalHead { began_s: now_s(), ipc_namespace, namespaces: namespaces.iter().map(keys).collect() };
        let mut text =
            serde_json::to_vec(&head).map_err(|error| Error::io("serialise", "the journal", std::io::Error::from(error)))?;
        text.push(b'\n');
        let fail = |error| Error::io("write", path.display(), error);
        // Not fsynced: a journal must only outlive the process. After a reboot there are no
        // segments.
        let mut file = OpenOptions::new().create_new(true).append(true).mode(0o600).open(&path).map_err(fail)?;
        file.write_all(&text).map_err(|error| {
            let _ = fs::remove_file(&path);
            fail(error)
        })?;
        Ok(RestoreJournal { path, file })
    }

    /// Removes the segments that killed restores have left, and puts their journals away.
    pub fn recover(&self, control: &Control) -> Result<()> {
        for (path, found) in self.dead_restores()? {
            for note in found.notes {
                control.note(NoteCode::Recovered, note);
            }
            if !found.leftovers.is_empty() {
                control.begin_changes()?;
                found.leftovers.iter().try_for_each(remove_unchanged)?;
                let (count, pid) = (found.leftovers.len(), found.pid);
                control.note(NoteCode::Recovered, format!("removed {count} segments left by a killed restore (pid {pid})"));
            }
            match found.fate {
                Fate::Needed => {}
                Fate::Kept => {
                    control.begin_changes()?;
                    keep(&path)?;
                }
                Fate::Over => {
                    control.begin_changes()?;
                    fs::remove_file(&path).map_err(|error| Error::io("unlink", path.display(), error))?;
                }
            }
        }
        self.forget_earlier_boots(&crate::sys::process::own_run()?)
    }

    /// Ids of the segments that [`Self::recover`] would remove.
    ///
    /// Errors: those of [`Self::recover`].
    pub fn leftovers(&self) -> Result<HashSet<i32>> {
        let dead = self.dead_restores()?;
        Ok(dead.iter().flat_map(|(_, found)| &found.leftovers).map(|stat| stat.shmid).collect())
    }

    /// Journals of killed restores, and what happens to their segments.
    ///
    /// Errors: `another-asmt` for a restore that is at work; failed calls.
    fn dead_restores(&self) -> Result<Vec<(PathBuf, DeadRestore)>> {
        let own = crate::sys::process::own_run()?;
        let mut found = Vec::new();
        for (path, run) in journals_at(&self.directory, &self.journal_prefix())? {
            if is_other_and_may_live(&run, &own, Unseen::HasEnded)? {
                return Err(Error::new(
                    Code::AnotherAsmt,
                    format!("another asmt (pid {}) is restoring instance {}", run.pid, self.instance),
                    "wait until it has finished, then try again",
                ));
            }
            let text = read_journal(&path)?;
            // The head was cut short while it was written: then nothing had been made yet.
            let judged = match parse_journal(&text).filter(|_| run.is_of_boot_of(&own)) {
                Some(journal) => judge_dead(&run, &journal)?,
                None => DeadRestore { pid: run.pid, fate: Fate::Over, leftovers: Vec::new(), notes: Vec::new() },
            };
            found.push((path, judged));
        }
        Ok(found)
    }

    /// Removes records of restores that no longer count.
    fn forget_earlier_boots(&self, own: &RunId) -> Result<()> {
        let prefix = prefix_of(DONE, self.ipc_namespace, self.instance);
        for (path, run) in journals_at(&self.directory, &prefix)? {
            let is_elsewhere = match parse_journal(&read_journal(&path)?) {
                Some(journal) => place_of(&journal.head)? == Place::Elsewhere,
                None => true,
            };
            if is_elsewhere || !run.is_of_boot_of(own) {
                fs::remove_file(&path).map_err(|error| Error::io("unlink", path.display(), error))?;
            }
        }
        Ok(())
    }
}

/// First part of the name of a journal: for a restore at work, and for one that has ended.
const AT_WORK: &str = "restore";
const DONE: &str = "restored";

fn prefix_of(what: &str, ipc_namespace: u64, instance: u8) -> String {
    format!("{what}-ipc-{ipc_namespace}-instance-{instance}-")
}

/// The journals in a runtime directory whose names begin with a prefix of [`prefix_of`], each with
/// its run.
fn journals_at(directory: &Path, prefix: &str) -> Result<Vec<(PathBuf, RunId)>> {
    let names = crate::sys::dir::names_of(directory)?;
    let of_run = |name: &String| Some((directory.join(name), name.strip_prefix(prefix).and_then(RunId::parse)?));
    Ok(names.iter().filter_map(of_run).collect())
}

/// Puts away the journal of a restore that has ended. It tells the segments of the restore from
/// those of a server.
fn keep(path: &Path) -> Result<()> {
    let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix(AT_WORK));
    let kept = path.with_file_name(format!("{DONE}{}", name.unwrap_or_default()));
    fs::rename(path, &kept).map_err(|error| Error::io("rename", path.display(), error))
}

/// The segments that restores have made in this boot and IPC namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Ids of the segments.
    pub shmids: HashSet<i32>,
    /// The restores.
    pub runs: HashSet<RunId>,
}

/// Ids of the segments that restores have made in this boot and IPC namespace, according to this
/// runtime directory.
///
/// Errors: failed calls.
pub fn restored_segments(instance: u8) -> Result<Restored> {
    let (directory, ipc_namespace, own) = (runtime_directory()?, procfs::namespace("ipc")?, crate::sys::process::own_run()?);
    let journals = |what| journals_at(&directory, &prefix_of(what, ipc_namespace, instance));
    let mut restored = Restored::default();
    for (path, run) in journals(AT_WORK)?.into_iter().chain(journals(DONE)?) {
        if !run.is_of_boot_of(&own) {
            continue;
        }
        let Some(journal) = parse_journal(&read_journal(&path)?) else { continue };
        if place_of(&journal.head)? != Place::Elsewhere {
            restored.shmids.extend(journal.shmids);
            restored.runs.insert(run);
        }
    }
    Ok(restored)
}

/// The text of a journal, if it is a regular file. A killed run may have left it cut short.
fn read_journal(path: &Path) -> Result<String> {
    let fail = |error| Error::io("read", path.display(), error);
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(fail)?;
    check_regular(&file, path)?;
    let mut bytes = Vec::new();
    file.take(MAX_JOURNAL_BYTES).read_to_end(&mut bytes).map_err(fail)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn check_regular(file: &File, path: &Path) -> Result<()> {
    let is_file = file.metadata().map_err(|error| Error::io("stat", path.display(), error))?.is_file();
    let unsafe_file = || Error::new(Code::UnsafeRuntime, format!("{} is not a regular file", path.display()), hints::NOT_OURS);
    if is_file { Ok(()) } else { Err(unsafe_file()) }
}

/// Reads a journal; a last line that was cut short does not count.
fn parse_journal(text: &str) -> Option<Journal> {
    let (head, rest) = text.split_once('\n')?;
    let whole = rest.rfind('\n').map_or("", |end| &rest[..end]);
    Some(Journal {
        head: serde_json::from_str(head).ok()?,
        shmids: whole.lines().filter_map(|line| line.parse().ok()).collect(),
        has_committed: whole.lines().any(|line| line == COMMIT),
    })
}

/// What happens to the segments that a dead restore had made of a namespace.
enum Remains {
    /// The restore had completed them: they stay.
    Complete,
    /// The restore had begun to complete them, so a server may have taken them: they stay.
    Begun,
    /// A process has one of them attached: they stay until a later run.
    Attached,
    /// Another process, a server, has recreated one of them. They are no longer the dead restore's.
    Taken,
    /// No start would trust them, and no process uses them.
    Leftover,
}

/// A restore that was killed.
struct DeadRestore {
    pid: u32,
    fate: Fate,
    /// Its segments that are to be removed.
    leftovers: Vec<SegmentStat>,
    /// What happens to the others.
    notes: Vec<String>,
}

/// Judges the segments of one dead restore, namespace by namespace: they are removed, unless the
/// restore had completed them or another process has them now.
fn judge_dead(run: &RunId, journal: &Journal) -> Result<DeadRestore> {
    let head = &journal.head;
    let inventory = crate::look::segments::take()?;
    if inventory.is_rmid_forced {
        // The segments cannot be attached, and nothing can be restored anyway.
        return Err(crate::plan::not_kept().into());
    }
    let place = place_of(head)?;
    let (mut leftovers, mut notes) = (Vec::new(), Vec::new());
    if place == Place::Elsewhere {
        return Ok(DeadRestore { pid: run.pid, fate: Fate::Over, leftovers, notes });
    }
    let planned = |key: &u32| inventory.segments.get(&Key(*key));
    let unlisted = head.namespaces.iter().flatten().filter_map(planned).filter(|segment| is_unlisted(segment, run, journal));
    let unlisted: Vec<i32> = unlisted.map(|segment| segment.stat.shmid).collect();
    // The kill may have come before the line of one segment, but not of more than one.
    let is_own = |segment: &&Segment| is_listed(segment, run, journal, place) || unlisted == [segment.stat.shmid];
    let mut is_needed = false;
    for keys in &head.namespaces {
        let mut there: Vec<&Segment> = keys.iter().filter_map(planned).collect();
        let own: Vec<&Segment> = there.iter().copied().filter(is_own).collect();
        // A user other than root, this user and the segments' owner does not run their server.
        let caller = rustix::process::geteuid().as_raw();
        there.retain(|segment| {
            let maker = segment.stat.creator_uid;
            maker == 0 || maker == caller || own.iter().any(|own| own.stat.uid == maker)
        });
        let mut note = |what: &str| {
            notes.push(format!(
                "a restore (pid {}) was killed, and its {} segments were not removed: {what}",
                run.pid,
                own.len()
            ));
        };
        match remains(&there, &own, keys.len(), journal) {
            _ if own.is_empty() => {}
            Remains::Complete => note("it had completed them"),
            Remains::Begun => note("it had begun to complete them, and a server may have used them since"),
            Remains::Attached => {
                is_needed = true;
                note("another process has one of them attached");
            }
            Remains::Taken => note("another process has created other segments beside them"),
            Remains::Leftover => leftovers.extend(own.iter().map(|segment| segment.stat.clone())),
        }
    }
    let fate = if is_needed { Fate::Needed } else { Fate::Kept };
    Ok(DeadRestore { pid: run.pid, fate, leftovers, notes })
}

/// What happens to the journal of a dead restore.
enum Fate {
    /// A later run needs it: there are segments to remove.
    Needed,
    /// No run has to act on it. It is kept, because the segments that it lists are not a server's.
    Kept,
    /// It has no meaning here.
    Over,
}

/// The IPC namespace in which the segments of a journal would be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In this IPC namespace.
    Here,
    /// An IPC namespace with the same inode, which this one may have got after the other had ended.
    Likely,
    /// In another IPC namespace.
    Elsewhere,
}

fn place_of(head: &JournalHead) -> Result<Place> {
    let (own, noted) = (look::server::ipc_namespace()?, head.ipc_namespace.as_deref());
    Ok(match noted {
        Some(noted) if noted == own => Place::Here,
        Some(noted) if look::server::is_unique(noted) && look::server::is_unique(&own) => Place::Elsewhere,
        // The inode is the same: it is in the journal's name.
        _ => Place::Likely,
    })
}

/// Returns true if the dead restore had made a segment and written its id down. If the IPC
/// namespace is known to be the same, id and key are enough. Then neither a clock that was set back
/// nor another PID namespace, in which the creator has another id or none, can hide the segment.
fn is_listed(segment: &Segment, run: &RunId, journal: &Journal, place: Place) -> bool {
    let is_of_run = segment.stat.creator_pid.cast_unsigned() == run.pid;
    let is_younger = segment.stat.changed_at_s >= journal.head.began_s;
    journal.shmids.contains(&segment.stat.shmid) && (place == Place::Here || is_of_run && is_younger)
}

/// Returns true if a segment looks like the last one that the dead restore had made, whose id it
/// could not write down: no process has used it yet, and no running process has made it.
fn is_unlisted(segment: &Segment, run: &RunId, journal: &Journal) -> bool {
    let stat = &segment.stat;
    let is_of_run = match segment.creator {
        Creator::Gone => stat.creator_pid.cast_unsigned() == run.pid,
        // The id of a process of another PID namespace is shown as 0.
        Creator::Unseen => stat.creator_pid == 0,
        Creator::Alive { .. } => false,
    };
    let is_unused = stat.attached_count == 0 && segment.resident_bytes == Some(0) && segment.swapped_bytes == 0;
    is_of_run && is_unused && stat.mode == 0o600 && !journal.shmids.contains(&stat.shmid)
}

/// Judges the segments of a namespace. `there` are all, `own` are those that the dead restore has
/// made, and `planned_count` is the number that it was to make. A server makes base anew when it
/// stops: if base is another process's, all segments are the server's.
fn remains(there: &[&Segment], own: &[&Segment], planned_count: usize, journal: &Journal) -> Remains {
    if own.len() == planned_count && is_complete(own) {
        Remains::Complete
    } else if journal.has_committed {
        Remains::Begun
    } else if own.iter().any(|segment| segment.stat.attached_count > 0) {
        Remains::Attached
    } else if there.len() > own.len() {
        Remains::Taken
    } else {
        Remains::Leftover
    }
}

/// Removes a segment if it is still the same one.
fn remove_unchanged(before: &SegmentStat) -> Result<()> {
    let outcome = match sysv::stat(before.shmid) {
        Ok(now) if now == *before => sysv::remove(before.shmid).map_err(|error| ("shmctl(IPC_RMID)", error)),
        Ok(_) => Ok(()),
        Err(error) => Err(("shmctl(IPC_STAT)", error)),
    };
    match outcome {
        Err((call, error)) if !sysv::is_gone(&error) => Err(Error::io(call, before.key, error)),
        _ => Ok(()),
    }
}

/// Returns true if the words that the commit stores are there: base's shutdown status, or without
/// base the stripes' flags.
fn is_complete(segments: &[&Segment]) -> bool {
    let headers = || segments.iter().map(|segment| (&segment.address, &segment.header));
    let base = headers().find(|(address, _)| address.segment_type == SegmentType::PiBase);
    match base {
        Some((_, header)) => matches!(header, Header::Base(base) if base.shutdown == SHUTDOWN_CLEAN),
        None => headers().all(|(_, header)| matches!(header, Header::Stripe(stripe) if stripe.flags != 0)),
    }
}

impl RestoreJournal {
    /// Notes a segment that was made.
    pub fn made(&mut self, shmid: i32) -> Result<()> {
        self.file.write_all(format!("{shmid}\n").as_bytes()).map_err(|error| Error::io("write", self.path.display(), error))
    }

    /// Notes that the words that a start would trust are about to be stored. From here on, no run
    /// removes the segments.
    pub fn commits(&mut self) -> Result<()> {
        self.file.write_all(format!("{COMMIT}\n").as_bytes()).map_err(|error| Error::io("write", self.path.display(), error))
    }

    /// The restore has ended: its segments stay or are gone.
    pub fn end(&mut self) -> Result<()> {
        keep(&self.path)
    }
}

/// Seconds since 1970 by the clock of `shm_ctime`, which lags behind the exact one by up to a tick.
fn now_s() -> i64 {
    rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse).tv_sec
}

/// Finds or makes the directory, which must belong to this user and be closed to others.
fn runtime_directory() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("ASMT_RUNTIME_DIR").filter(|named| !named.is_empty()) {
        let path = PathBuf::from(named);
        return usable(&path).map(|()| path);
    }
    let user_namespace = procfs::namespace("user")?;
    let user = rustix::process::geteuid().as_raw();
    let of_login = std::env::var_os("XDG_RUNTIME_DIR").map(|path| PathBuf::from(path).join("asmt"));
    let candidates =
        [Some(PathBuf::from("/run/asmt")), of_login, Some(PathBuf::from(format!("/tmp/asmt-{user}-{user_namespace}")))];
    let mut last = None;
    for path in candidates.into_iter().flatten() {
        match usable(&path) {
            Ok(()) => return Ok(path),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| Error::new(Code::Bug, "no runtime directory was tried", "")))
}

fn usable(path: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(Error::io("mkdir", path.display(), error)),
    }
    let metadata = fs::symlink_metadata(path).map_err(|error| Error::io("stat", path.display(), error))?;
    let is_own = metadata.is_dir() && metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & 0o022 == 0;
    if !is_own {
        return Err(Error::new(
            Code::PermissionDenied,
            format!("{} is not a directory owned by this user and writable by nobody else", path.display()),
            "set ASMT_RUNTIME_DIR to a directory that only this user may write to, the same one for every run",
        ));
    }
    rustix::fs::access(path, rustix::fs::Access::WRITE_OK).map_err(|error| Error::io("access", path.display(), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_counts_as_far_as_its_lines_are_whole() {
        let head = r#"{"began_s":7,"namespaces":[[1,2]]}"#;
        assert!(parse_journal("").is_none() && parse_journal(&head[..9]).is_none() && parse_journal(head).is_none());
        let ids = |text: &str| {
            let journal = parse_journal(text).expect("a journal");
            let mut ids: Vec<i32> = journal.shmids.into_iter().collect();
            ids.sort_unstable();
            assert_eq!((journal.head.began_s, journal.head.namespaces), (7, vec![vec![1, 2]]));
            ids
        };
        assert!(ids(&format!("{head}\n")).is_empty());
        assert_eq!(ids(&format!("{head}\n12\n32770\n655")), [12, 32770]);
        assert_eq!(ids(&format!("{head}\n12\n32770\n655\n")), [12, 655, 32770]);
        let has_committed = |rest: &str| parse_journal(&format!("{head}\n{rest}")).expect("a journal").has_committed;
        assert!(has_committed("12\ncommit\n") && has_committed("commit\n"));
        assert!(!has_committed("12\ncommit") && !has_committed("12\ncomm\n") && !has_committed("12\n"));
    }
}
