//! What asmt keeps under `/run` while it works: a lock an instance, and the journal of a restore.
//!
//! Promise: one asmt at a time works on an instance of an IPC namespace; what a killed restore has made is found by
//! the next run and removed: by id, only segments that the dead process itself made since its journal began, attached
//! by nobody, and only where nothing a start would trust was completed. Must never: remove any other segment.
//!
//! The directory: `ASMT_RUNTIME_DIR` if set, else the first of `/run/asmt`, `$XDG_RUNTIME_DIR/asmt` and
//! `/tmp/asmt-<uid>-<user namespace>` that belongs to this user alone.

use crate::error::{Code, Error, Result};
use crate::inventory::Inventory;
use crate::plan::NamespaceRestore;
use crate::progress::Control;
use crate::run::RunId;
use crate::segment::{Header, Key, SHUTDOWN_CLEAN, SegmentType};
use crate::sysv;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The directory, and the lock of one instance in it; released when dropped.
pub struct Runtime {
    directory: PathBuf,
    ipc_namespace: u64,
    instance: u8,
    _lock: File,
}

/// What a restore is about to make.
#[derive(Serialize, Deserialize)]
struct JournalText {
    /// The restoring process's view of when it began, seconds since 1970: segments made earlier are not its own.
    began_s: i64,
    /// A namespace each: the keys of its segments.
    namespaces: Vec<Vec<u32>>,
}

/// The journal of a restore at work.
pub struct RestoreJournal {
    path: PathBuf,
}

impl Runtime {
    /// Opens the directory and locks the instance for this process.
    ///
    /// Errors: `another-asmt`; failed calls if no directory can be had.
    pub fn lock(instance: u8) -> Result<Self> {
        let directory = runtime_directory()?;
        let ipc_namespace = fs::metadata("/proc/self/ns/ipc").map_or(0, |metadata| metadata.ino());
        let path = directory.join(format!("ipc-{ipc_namespace}-instance-{instance}.lock"));
        let file =
            OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(&path);
        let file = file.map_err(|error| Error::io("open", path.display(), error))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { directory, ipc_namespace, instance, _lock: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::new(
                Code::AnotherAsmt,
                format!("another asmt is at work on instance {instance}"),
                "wait for it to end, then run it again",
            )),
            Err(error) => Err(Error::io("flock", path.display(), error)),
        }
    }

    fn journal_prefix(&self) -> String {
        format!("restore-ipc-{}-instance-{}-", self.ipc_namespace, self.instance)
    }

    /// Writes down what is about to be made, before any of it is.
    pub fn begin_restore(&self, namespaces: &[NamespaceRestore]) -> Result<RestoreJournal> {
        let path = self.directory.join(self.journal_prefix() + &RunId::own().to_string());
        let keys = |namespace: &NamespaceRestore| namespace.sources.iter().map(|source| source.key.0).collect();
        let text = JournalText { began_s: now_s(), namespaces: namespaces.iter().map(keys).collect() };
        let text =
            serde_json::to_vec(&text).map_err(|error| Error::io("serialise", "the journal", std::io::Error::from(error)))?;
        let journal = RestoreJournal { path };
        let fail = |error| Error::io("write", journal.path.display(), error);
        // Not fsynced: a journal need only outlive the process. After a reboot there are no segments.
        let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&journal.path).map_err(fail)?;
        file.write_all(&text).map_err(|error| {
            let _ = fs::remove_file(&journal.path);
            fail(error)
        })?;
        Ok(journal)
    }

    /// Removes what restores that were killed have left, and their journals.
    pub fn recover(&self, control: &Control) -> Result<()> {
        let prefix = self.journal_prefix();
        let entries =
            fs::read_dir(&self.directory).map_err(|error| Error::io("read directory", self.directory.display(), error))?;
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(run) = name.to_str().and_then(|name| name.strip_prefix(&prefix)).and_then(RunId::parse) else { continue };
            if run.is_other_and_alive() {
                return Err(Error::new(
                    Code::AnotherAsmt,
                    format!("another asmt (pid {}) is restoring instance {}", run.pid, self.instance),
                    "wait for it to end, then run it again",
                ));
            }
            // Cut short while it was written: then nothing had been made yet.
            let text = fs::read(entry.path()).ok().and_then(|text| serde_json::from_slice::<JournalText>(&text).ok());
            if let Some(text) = text.filter(|_| run.is_of_this_boot()) {
                recover_one(&run, &text, control)?;
            }
            fs::remove_file(entry.path()).map_err(|error| Error::io("unlink", entry.path().display(), error))?;
        }
        Ok(())
    }
}

/// Removes the segments of one dead restore, namespace by namespace, unless it had completed them.
fn recover_one(run: &RunId, text: &JournalText, control: &Control) -> Result<()> {
    let inventory = crate::inventory::take()?;
    for keys in &text.namespaces {
        let is_own = |stat: &sysv::SegmentStat| {
            stat.creator_pid.cast_unsigned() == run.pid && stat.changed_at_s >= text.began_s && stat.attached_count == 0
        };
        let own: Vec<Key> = keys
            .iter()
            .map(|key| Key(*key))
            .filter(|key| inventory.segments.get(key).is_some_and(|segment| is_own(&segment.stat)))
            .collect();
        if own.len() == keys.len() && is_complete(&inventory, &own) {
            control.note(
                "recovered",
                format!("a restore (pid {}) had completed {} segments before it was killed: they stay", run.pid, own.len()),
            );
            continue;
        }
        for key in &own {
            let before = &inventory.segments[key].stat;
            // Looked at again right before: it must still be that very segment.
            match sysv::stat(before.shmid) {
                Ok(now) if now == *before => {
                    sysv::remove(before.shmid).map_err(|error| Error::io("shmctl(IPC_RMID)", key, error))?
                }
                _ => {}
            }
        }
        if !own.is_empty() {
            control.note("recovered", format!("removed {} segments that a killed restore (pid {}) had left", own.len(), run.pid));
        }
    }
    Ok(())
}

/// Whether the words held back until the commit are stored: base's shutdown status, or without base the stripes' flags.
fn is_complete(inventory: &Inventory, keys: &[Key]) -> bool {
    let headers = || keys.iter().filter_map(|key| inventory.segments.get(key)).map(|segment| (&segment.address, &segment.header));
    let base = headers().find(|(address, _)| address.segment_type == SegmentType::PiBase);
    match base {
        Some((_, header)) => matches!(header, Header::Base(base) if base.shutdown == SHUTDOWN_CLEAN),
        None => headers().all(|(_, header)| matches!(header, Header::Stripe(stripe) if stripe.flags != 0)),
    }
}

impl RestoreJournal {
    /// The restore has ended: its segments stay or are gone.
    pub fn end(&mut self) -> Result<()> {
        fs::remove_file(&self.path).map_err(|error| Error::io("unlink", self.path.display(), error))
    }
}

fn now_s() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

/// Finds or makes the directory: this user's, and closed to others.
fn runtime_directory() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("ASMT_RUNTIME_DIR").filter(|named| !named.is_empty()) {
        let path = PathBuf::from(named);
        return usable(&path).map(|()| path);
    }
    let user_namespace = fs::metadata("/proc/self/ns/user").map_or(0, |metadata| metadata.ino());
    let user = rustix::process::geteuid().as_raw();
    let of_session = std::env::var_os("XDG_RUNTIME_DIR").map(|path| PathBuf::from(path).join("asmt"));
    let candidates =
        [Some(PathBuf::from("/run/asmt")), of_session, Some(PathBuf::from(format!("/tmp/asmt-{user}-{user_namespace}")))];
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
            format!("{} is not a directory of this user's, closed to others", path.display()),
            "set ASMT_RUNTIME_DIR to a directory that only this user may write to",
        ));
    }
    rustix::fs::access(path, rustix::fs::Access::WRITE_OK).map_err(|error| Error::io("access", path.display(), error))
}
