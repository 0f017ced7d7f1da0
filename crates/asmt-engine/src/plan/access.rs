//! The users who may change a backup: its directory, the path that leads to it, and its files.
//!
//! Promise: a backup is refused if anybody but root, the caller and (for a file) the segment's
//! owner could have written or exchanged it; no hint changes a directory that may hold anything
//! besides the backup. Must never: call the system.

use crate::error::{Code, Problem};
use crate::facts::caller::Caller;
use crate::facts::directory::{DirectoryRecord, FileRecord, Listing, ManifestRecord, Owner, PathStep, StepKind};
use crate::hints::shell_word;

/// The purpose for which a directory is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A backup, for which another directory would do as well.
    Write,
    /// A restore or verification, whose backup is in this directory.
    Read,
}

/// Permission bits of group and others: to write a file or directory, and to enter a directory.
const WRITABLE_BY_OTHERS: u32 = 0o022;
const ENTERABLE_BY_OTHERS: u32 = 0o011;
const STICKY: u32 = 0o1000;

/// A file of a backup, and the users who may write it.
pub(super) struct FileAccess<'f> {
    name: &'f str,
    owner: Owner,
    link_count: u64,
    /// Owner of its segment; `None` for a manifest.
    segment_uid: Option<u32>,
}

impl<'f> FileAccess<'f> {
    pub(super) fn of_file(record: &'f FileRecord, segment_uid: u32) -> Self {
        let owner = Owner { uid: record.uid, mode: record.mode };
        Self { name: &record.name, owner, link_count: record.link_count, segment_uid: Some(segment_uid) }
    }

    pub(super) fn of_manifest(record: &'f ManifestRecord) -> Self {
        Self { name: &record.name, owner: record.owner, link_count: record.link_count, segment_uid: None }
    }

    /// Returns true if a user may write it who must not, provided that the user can reach it.
    fn is_open(&self, caller: &Caller) -> bool {
        let is_segments = self.segment_uid == Some(self.owner.uid);
        self.owner.mode & WRITABLE_BY_OTHERS != 0 || !(is_segments || is_trusted(self.owner.uid, caller))
    }
}

/// Returns true if this user may write a backup: root and the caller.
fn is_trusted(uid: u32, caller: &Caller) -> bool {
    uid == 0 || uid == caller.uid
}

/// Refuses a directory that other users may write to, or exchange for another one.
pub(super) fn check_directory(listing: &Listing, caller: &Caller, purpose: Purpose, refusals: &mut Vec<Problem>) {
    let Some(directory) = &listing.directory else { return };
    check_owner(directory, listing, caller, purpose, refusals);
    let wrong = directory.above.iter().filter_map(|step| wrong_with(step, caller));
    refusals.extend(wrong.map(|wrong| {
        Problem::new(Code::PathWritableByOthers, format!("{} is reached through {wrong}", directory.path), path_hint(purpose))
    }));
}

fn check_owner(directory: &DirectoryRecord, listing: &Listing, caller: &Caller, purpose: Purpose, refusals: &mut Vec<Problem>) {
    let Some(owner) = directory.owner else { return };
    let path = &directory.path;
    if !is_trusted(owner.uid, caller) {
        refusals.push(Problem::new(
            Code::WritableByOthers,
            format!("{path} is owned by uid {}, who could replace its contents; expected {}", owner.uid, trusted(caller.uid)),
            match purpose {
                Purpose::Write => format!("choose another directory (asmt creates it), or run asmt as uid {}", owner.uid),
                Purpose::Read => {
                    format!("run asmt as uid {}; or make sure that its contents are yours, and {}", owner.uid, copy_hint(path))
                }
            },
        ));
    }
    if owner.mode & WRITABLE_BY_OTHERS != 0 {
        refusals.push(Problem::new(
            Code::WritableByOthers,
            format!("{path} has mode {:04o}: users other than its owner may write to it; expected 0700", owner.mode),
            match purpose {
                Purpose::Write => "choose another directory: asmt creates it with mode 0700".to_owned(),
                Purpose::Read if is_of_its_own(directory, listing) => {
                    format!("check its contents and who could have put them there; then: chmod go-w {}", shell_word(path))
                }
                Purpose::Read => format!("check its contents and who could have put them there; then {}", copy_hint(path)),
            },
        ));
    }
}

/// Returns true if a directory holds a backup and nothing else, so that its mode may be changed. A
/// directory to which many users write is sticky.
fn is_of_its_own(directory: &DirectoryRecord, listing: &Listing) -> bool {
    !directory.is_sticky && !listing.has_other_names && !listing.files.is_empty()
}

/// A hint how to copy a backup, with owners and times, into a directory that nobody else can write
/// to.
fn copy_hint(path: &str) -> String {
    let path = shell_word(path);
    format!(
        "copy the files of the backup, and no others, into a new directory owned by root, and use that directory: mkdir -m 0700 \
         NEW; cp -a {path}/a*.dat* {path}/asmt-* NEW"
    )
}

fn path_hint(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Write => {
            "choose a directory whose parent directories are owned by root (or by you) and writable by nobody else, such as one \
             below /var/lib; do not change system directories"
        }
        Purpose::Read => {
            "make sure that the backup is yours and the latest one; then move its directory to a place whose parent directories \
             are owned by root (or by you) and writable by nobody else, such as below /var/lib; do not change system \
             directories"
        }
    }
}

/// The reason why a step of the path cannot be trusted, by the rules of sshd: a user who may rename
/// entries of a directory can replace this backup by an older or a forged one.
fn wrong_with(step: &PathStep, caller: &Caller) -> Option<String> {
    // In a user namespace, a user outside of it may be root of the machine, like the owner of its
    // root directory.
    let is_trusted = is_trusted(step.uid, caller) || Some(step.uid) == caller.unmapped_uid;
    let (path, uid) = (&step.path, step.uid);
    let expected = format!("expected {}", trusted(caller.uid));
    match step.kind {
        StepKind::Directory if !is_trusted => {
            Some(format!("directory {path}, which is owned by uid {uid}, who can replace its contents; {expected}"))
        }
        StepKind::Directory if step.mode & WRITABLE_BY_OTHERS != 0 && step.mode & STICKY == 0 => Some(format!(
            "directory {path}, which has mode {:04o}: users other than its owner can replace its contents; expected 0755, or \
             the sticky bit",
            step.mode
        )),
        StepKind::Link { is_in_shared: true } if !is_trusted => {
            Some(format!("the link {path}, which is owned by uid {uid}, who can replace it; {expected}"))
        }
        _ => None,
    }
}

/// Refuses files that other users can reach and write. In a directory that nobody else may enter, a
/// file without another name may have any mode: ASMT gives its files the mode of the segments.
pub(super) fn check_files<'f>(
    listing: &Listing,
    title: &str,
    caller: &Caller,
    files: impl Iterator<Item = FileAccess<'f>>,
    refusals: &mut Vec<Problem>,
) {
    let Some((directory, owner)) = listing.directory.as_ref().and_then(|found| Some((found, found.owner?))) else { return };
    let is_entered = owner.mode & ENTERABLE_BY_OTHERS != 0;
    let open: Vec<FileAccess<'_>> = files.filter(|file| file.is_open(caller) && (is_entered || file.link_count > 1)).collect();
    let Some(first) = open.first() else { return };
    let path = &directory.path;
    let Owner { uid, mode } = first.owner;
    let (why, hint) = if is_entered {
        let hint = match is_of_its_own(directory, listing) {
            true => format!("if you are sure that nobody has: chmod 0700 {}", shell_word(path)),
            false => format!("if you are sure that nobody has, {}", copy_hint(path)),
        };
        ("because they may enter the directory".to_owned(), hint)
    } else {
        let why = format!("through another name of it: it has {} links", first.link_count);
        (
            why,
            format!(
                "if you are sure that nobody has: copy the backup, so that each file has one name, and use the copy: cp -a \
                 --no-preserve=links {} NEW",
                shell_word(path)
            ),
        )
    };
    let message = format!(
        "{title}: others may have written to {} of its files, the first is {} (uid {uid}, mode {mode:04o}), {why}",
        open.len(),
        first.name
    );
    refusals.push(Problem::new(Code::WritableByOthers, message, hint).in_file(first.name));
}

/// The owners that a caller may trust, in words.
fn trusted(uid: u32) -> String {
    if uid == 0 { "root".to_owned() } else { format!("root or uid {uid}") }
}
