//! What can go wrong, as data: a kind, a stable code, what was found and expected, and the next
//! step.
//!
//! Promise: every failure of the engine is an [`Error`] of one or more [`Problem`]s; codes never
//! change their meaning. Must never: end the process, print, or know an exit status (the command
//! line decides that, in one place).

use crate::errno;
use crate::format::{instance_of_manifest_name, parse_file_name};
use asmt_shm::{Key, NamespaceName};
use serde::Serialize;
use std::fmt;

/// What kind of failure it is. The command line makes its exit status of this and of nothing else.
///
/// Ordered by weight: where there are several problems, the first of these kinds speaks for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(test, derive(ts_rs::TS))]
pub enum Kind {
    /// A bug of asmt's.
    Bug,
    /// Stopped by request, and cleaned up.
    Interrupted,
    /// What was asked makes no sense here.
    Usage,
    /// A backup is damaged or incomplete.
    Damaged,
    /// A backup that must not be used here: stale, used, foreign, or of a form that is not known.
    Stale,
    /// Not safe now: server running, not cleanly shut down, something in the way, another asmt at
    /// work.
    Refused,
    /// No room: disk, memory, a system limit.
    NoRoom,
    /// Failed and cleaned up.
    Failed,
    /// There is nothing to do.
    NothingToDo,
}

/// An enum of stable texts, which is a string in JSON.
macro_rules! texts {
    ($(#[$about:meta])* $enum:ident: $($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[cfg_attr(test, derive(ts_rs::TS))]
        pub enum $enum {
            $($(#[$doc])* #[cfg_attr(test, ts(rename = $text))] $name,)*
        }

        impl $enum {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The code as it stands in JSON.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }

        impl Serialize for $enum {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    };
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $kind:ident;)*) => {
        texts! {
            /// A stable name for what went wrong; scripts may compare it.
            Code: $($(#[$doc])* $name = $text;)*
        }

        impl Code {
            /// What kind of failure it is.
            pub fn kind(self) -> Kind {
                match self { $(Self::$name => Kind::$kind,)* }
            }
        }
    };
}

codes! {
    /// The engine contradicted itself.
    Bug = "bug", Bug;
    /// A stop was asked for before the commit.
    Interrupted = "interrupted", Interrupted;
    /// A preflight has found something that is not ready, or that cannot be told.
    NotReady = "not-ready", Refused;
    /// The directory to read from is not there.
    DirectoryMissing = "directory-missing", Usage;
    /// The path is not a directory.
    NotADirectory = "not-a-directory", Usage;
    /// The directory to read from is not there, and the one above it is: no backup was made there.
    NoBackup = "no-backup", NothingToDo;
    /// None of the namespaces asked for is there.
    NothingFound = "nothing-found", NothingToDo;
    /// What would be restored is in memory already, as a start wants it.
    AlreadyInMemory = "already-in-memory", NothingToDo;
    /// Some of the namespaces asked for are there, and some are not.
    NamespaceMissing = "namespace-missing", Refused;
    /// Somebody has a segment attached.
    SegmentAttached = "segment-attached", Refused;
    /// Base does not say that the server shut down cleanly.
    NotCleanlyShutDown = "not-cleanly-shut-down", Refused;
    /// A namespace in memory lacks a segment, or has one too many.
    SegmentsIncomplete = "segments-incomplete", Refused;
    /// A segment in memory does not hold what its key says.
    SegmentInvalid = "segment-invalid", Refused;
    /// The data stripes in memory are no set that a server would start with.
    SetTorn = "set-torn", Refused;
    /// Base in memory is of a layout version that is not known.
    UnknownVersion = "unknown-version", Refused;
    /// A segment changed, went or was attached while it was copied.
    SegmentChanged = "segment-changed", Refused;
    /// A segment was swapped out while its holes were told by what is resident.
    SegmentSwapped = "segment-swapped", Refused;
    /// Files of the same instance and nsid are in the directory.
    BackupExists = "backup-exists", Refused;
    /// Segments of the namespace are in memory.
    SegmentsExist = "segments-exist", Refused;
    /// The path of the directory leads elsewhere since it was opened.
    DirectoryMoved = "directory-moved", Refused;
    /// Another asmt works on the directory or the instance.
    AnotherAsmt = "another-asmt", Refused;
    /// A storage device is not marked as trusted: the server was not cleanly shut down for it.
    DeviceNotTrusted = "device-not-trusted", Refused;
    /// A storage device cannot be asked.
    DeviceUnreadable = "device-unreadable", Refused;
    /// What the server writes to is not there, and cannot be compared with how it was.
    LogMissing = "log-missing", Refused;
    /// The backup cannot be marked as used, and nothing else would tell the next boot.
    CannotMarkUsed = "cannot-mark-used", Refused;
    /// The configuration cannot be read or understood, or the server would refuse it.
    ConfigUnreadable = "config-unreadable", Refused;
    /// A setting that a start compares with the segments is not the one that they were made with.
    SettingChanged = "setting-changed", Refused;
    /// The storage devices of a namespace are not a set that a server starts with.
    DeviceSetTorn = "device-set-torn", Refused;
    /// The directory, or a file in it, may be written by others than root and the caller.
    WritableByOthers = "writable-by-others", Refused;
    /// Somebody else may exchange a directory or link by which the directory is reached.
    PathWritableByOthers = "path-writable-by-others", Refused;
    /// Segments of another user stand where a namespace's are, or are to be.
    ForeignSegments = "foreign-segments", Refused;
    /// The file system does not keep the mode or owner of a file, so that others could read it.
    ModesNotKept = "modes-not-kept", Refused;
    /// The file system has no way to name a file without replacing another.
    NamesNotSafe = "names-not-safe", Refused;
    /// The directory is one of the system's, with other things in it.
    SystemDirectory = "system-directory", Refused;
    /// The directory is on a file system that a reboot empties.
    VolatileDirectory = "volatile-directory", Refused;
    /// The IPC namespace, and all segments in it, end with this process.
    PrivateIpcNamespace = "private-ipc-namespace", Refused;
    /// The kernel destroys segments as soon as nobody has them attached.
    SegmentsNotKept = "segments-not-kept", Refused;
    /// `--require-manifest`, and there is none.
    ManifestRequired = "manifest-required", Stale;
    /// The manifest's format is newer than this program.
    ManifestTooNew = "manifest-too-new", Stale;
    /// Base in a backup is of a layout version that is not known.
    BackupUnknownVersion = "backup-unknown-version", Stale;
    /// Base in a backup does not say that the server shut down cleanly.
    BackupNotClean = "backup-not-clean", Stale;
    /// The server has run since the backup, or seems to.
    BackupStale = "backup-stale", Stale;
    /// A segment in memory was made by a server after the backup.
    MadeSince = "made-since", Stale;
    /// The backup was restored in another boot.
    BackupUsed = "backup-used", Stale;
    /// The backup was retired.
    BackupRetired = "backup-retired", Stale;
    /// Whether the server has run since the backup cannot be told.
    CannotBeTold = "cannot-be-told", Stale;
    /// `--require-proof`, and no storage device proves that the server has not run since.
    NotProven = "not-proven", Stale;
    /// The backup is of another host.
    BackupForeignHost = "backup-foreign-host", Stale;
    /// The manifest cannot be read as one, or its checksum does not match.
    ManifestDamaged = "manifest-damaged", Damaged;
    /// A backup lacks a file, or was never committed.
    BackupIncomplete = "backup-incomplete", Damaged;
    /// The data stripes in a backup are no set that a server would start with.
    BackupSetTorn = "backup-set-torn", Damaged;
    /// A file that does not belong there, or there twice.
    ExtraFile = "extra-file", Damaged;
    /// A file's size is not what it must be.
    WrongSize = "wrong-size", Damaged;
    /// A file's contents do not match their checksum, or cannot be decoded.
    ContentDamaged = "content-damaged", Damaged;
    /// A file of a backup is no regular file.
    UnsafeFile = "unsafe-file", Damaged;
    /// The file system has no room.
    DiskFull = "disk-full", NoRoom;
    /// There is not enough memory.
    NotEnoughMemory = "not-enough-memory", NoRoom;
    /// A system limit stands in the way.
    SystemLimit = "system-limit", NoRoom;
    /// A permission is missing.
    PermissionDenied = "permission-denied", Failed;
    /// A lock or journal of asmt's own is no regular file.
    UnsafeRuntime = "unsafe-runtime", Failed;
    /// `/proc` is not mounted, or lacks what is of no process.
    ProcIncomplete = "proc-incomplete", Failed;
    /// A system call failed.
    SystemCall = "system-call", Failed;
    /// What was read back differs from what was written.
    CompareFailed = "compare-failed", Failed;
}

impl Code {
    /// Whether it keeps a backup from being restored, and not from being read: whoever verifies it
    /// is told, and goes on.
    pub fn is_about_restoring(self) -> bool {
        self.is_about_access()
            || matches!(
                self,
                Self::DeviceUnreadable
                    | Self::LogMissing
                    | Self::DeviceNotTrusted
                    | Self::CannotMarkUsed
                    | Self::ConfigUnreadable
                    | Self::SettingChanged
            )
    }
}

impl Code {
    /// Whether it says who may change a backup, and nothing of what is in it.
    pub fn is_about_access(self) -> bool {
        matches!(self, Self::WritableByOthers | Self::PathWritableByOthers)
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Problem {
    /// Kind, as [`Code::kind`] says.
    pub kind: Kind,
    /// Stable code.
    pub code: Code,
    /// What was found and what was expected; lower case, no full stop.
    pub message: String,
    /// The next step; empty where there is none.
    pub hint: String,
    /// Name of the file that it is in; null where it is in none.
    pub file: Option<String>,
    /// Where in that file, bytes; null where it is not in one place.
    pub offset: Option<u64>,
    /// Key of the segment that it is about, eight hex digits.
    pub segment: Option<String>,
    /// The namespace that was not found, or that segments in memory are in the way of; `None` for
    /// every other problem.
    #[serde(skip)]
    pub namespace: Option<NamespaceName>,
}

impl Problem {
    /// A problem with its next step.
    pub fn new(code: Code, message: impl Into<String>, hint: impl Into<String>) -> Self {
        let (message, hint) = (message.into(), hint.into());
        Self { kind: code.kind(), code, message, hint, file: None, offset: None, segment: None, namespace: None }
    }

    /// Says in which file it is; the segment follows from the file's name, where it has one.
    pub fn in_file(mut self, name: &str) -> Self {
        self.segment = parse_file_name(name).map(|(key, ..)| key.to_string());
        self.file = Some(name.to_owned());
        self
    }

    /// Instance of the segment or manifest that it is about; `None` where it is about neither.
    pub fn instance(&self) -> Option<u8> {
        let of_segment = self.segment.as_deref().and_then(Key::from_hex).and_then(Key::address);
        let of_manifest = || self.file.as_deref().and_then(instance_of_manifest_name);
        of_segment.map(|address| address.instance).or_else(of_manifest)
    }

    /// Says of which namespace it is, for whoever looks for it again.
    pub fn of(mut self, namespace: &NamespaceName) -> Self {
        self.namespace = Some(namespace.clone());
        self
    }

    /// Says of which namespace it is, if it is in a file: `owner_of` knows its name and its title
    /// for messages.
    pub fn name_namespace(&mut self, owner_of: impl Fn(&str) -> Option<(NamespaceName, String)>) {
        let owner = self.file.as_deref().filter(|_| self.namespace.is_none()).and_then(owner_of);
        if let Some((name, title)) = owner {
            self.message = format!("{title}: {}", self.message);
            self.namespace = Some(name);
        }
    }

    /// Says where in its file it is.
    pub fn at(mut self, offset: u64) -> Self {
        self.offset = Some(offset);
        self
    }
}

const INTERRUPTED: &str = "stopped before it was done; everything was cleaned up";
const NOTHING_LEFT: &str = "nothing was left behind; you can try again";
const SOMETHING_LEFT: &str = "something was left behind, which no restore and no server start uses: the next run removes it";

/// Why an operation failed: one or more problems, the weightiest first.
#[derive(Debug, thiserror::Error)]
pub struct Error {
    problems: Vec<Problem>,
    #[source]
    source: Option<std::io::Error>,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.first();
        write!(f, "{}", first.message)?;
        if !first.hint.is_empty() {
            write!(f, " (hint: {})", first.hint)?;
        }
        Ok(())
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self { problems: vec![problem], source: None }
    }
}

impl Error {
    /// An error of one problem.
    pub fn new(code: Code, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Problem::new(code, message, hint).into()
    }

    /// An error of several problems; `None` if there are none. Sorts them by weight.
    pub fn from_problems(mut problems: Vec<Problem>) -> Option<Self> {
        problems.sort_by_key(|problem| problem.kind);
        (!problems.is_empty()).then_some(Self { problems, source: None })
    }

    /// What kind of failed call it is; `None` where it is none.
    pub fn io_kind(&self) -> Option<std::io::ErrorKind> {
        self.source.as_ref().map(std::io::Error::kind)
    }

    /// The error of a failed call; `None` where none has failed.
    pub fn io_error(&self) -> Option<&std::io::Error> {
        self.source.as_ref()
    }

    /// A failed system call: what was being done, to what, and what the system said. The code
    /// follows from the error.
    pub fn io(call: &str, object: impl fmt::Display, source: impl Into<std::io::Error>) -> Self {
        let source = source.into();
        let (code, hint) = match source.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => (
                Code::DiskFull,
                "free space (inodes, blocks or quota), then try again; a backup can also go to another directory",
            ),
            // Room would not help.
            Some(libc::EFBIG) => (
                Code::SystemLimit,
                "raise the limit on file sizes (ulimit -f), or choose a file system that supports larger files, then try again",
            ),
            Some(libc::ENOMEM) => {
                (Code::NotEnoughMemory, "free memory, or raise the limit on memory or address space, then try again")
            }
            Some(libc::EMFILE | libc::ENFILE | libc::EAGAIN) => {
                (Code::SystemLimit, "raise the limit on open files or processes, or use fewer threads (-t)")
            }
            Some(libc::EACCES | libc::EPERM) => (Code::PermissionDenied, missing_right(call)),
            Some(libc::EROFS) => (
                Code::SystemCall,
                "the file system is read-only: remount it read-write; a backup can also go to another directory",
            ),
            Some(libc::EIO) => (
                Code::SystemCall,
                "a device has failed: check the kernel log; a backup can go to another directory, a restore needs another copy \
                 of this same backup",
            ),
            _ => (Code::SystemCall, NOTHING_LEFT),
        };
        let problem = Problem::new(code, format!("{call} {object}: {}", without_number(&source)), hint);
        Self { problems: vec![problem], source: Some(source) }
    }

    /// The error of a stop that came before the commit.
    pub fn interrupted() -> Self {
        Self::new(Code::Interrupted, INTERRUPTED, "try again")
    }

    /// Says in which file it is, where that is not said yet.
    pub fn in_file(mut self, name: &str) -> Self {
        for problem in self.problems.iter_mut().filter(|problem| problem.file.is_none()) {
            *problem = problem.clone().in_file(name);
        }
        self
    }

    /// Says of which namespaces its problems are: `owner_of` knows by the name of a file.
    pub fn of_namespaces(mut self, owner_of: impl Fn(&str) -> Option<(NamespaceName, String)>) -> Self {
        for problem in &mut self.problems {
            problem.name_namespace(&owner_of);
        }
        self
    }

    /// Whether it is of one file alone: then the others can still be looked at, and all that is
    /// wrong be listed.
    pub fn is_of_one_file(&self) -> bool {
        let errno = self.source.as_ref().and_then(std::io::Error::raw_os_error);
        self.first().kind == Kind::Damaged || matches!(errno, Some(libc::EIO | libc::EACCES | libc::EPERM))
    }

    /// The weightiest problem.
    pub fn first(&self) -> &Problem {
        &self.problems[0]
    }

    /// All problems, the weightiest first; at least one.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Says that what failed was a removal, so that something is left.
    pub fn leaving_something(mut self) -> Self {
        for problem in &mut self.problems {
            problem.message = format!("while cleaning up: {}", problem.message);
            SOMETHING_LEFT.clone_into(&mut problem.hint);
        }
        self
    }

    /// Says of the weightiest problem what is to be done next, in place of its own hint.
    pub fn with_hint(mut self, hint: &str) -> Self {
        if let Some(first) = self.problems.first_mut() {
            hint.clone_into(&mut first.hint);
        }
        self
    }

    /// Adds what went wrong while cleaning up after this error.
    pub fn and_while_cleaning_up(mut self, other: Error) -> Self {
        for problem in &mut self.problems {
            // What was promised has not come true.
            if problem.message == INTERRUPTED {
                "stopped before it was done".clone_into(&mut problem.message);
            }
            if problem.hint == NOTHING_LEFT {
                SOMETHING_LEFT.clone_into(&mut problem.hint);
            }
        }
        self.problems.extend(other.problems.into_iter().map(|mut problem| {
            problem.message = format!("and while cleaning up: {}", problem.message);
            SOMETHING_LEFT.clone_into(&mut problem.hint);
            problem
        }));
        self
    }
}

/// What would have let a call through that was refused.
fn missing_right(call: &str) -> &'static str {
    match call {
        "shmat" => "run asmt as the segment's owner, or with CAP_IPC_OWNER (root has it unless it was dropped)",
        "chown" => "run asmt as the segments' owner and in their group, or with CAP_CHOWN (root has it unless it was dropped)",
        call if call.starts_with("shmctl") => {
            "run asmt as the segment's owner, or with CAP_SYS_ADMIN (root has it unless it was dropped)"
        }
        "open" | "read" => "run asmt as the file's owner, or with CAP_DAC_READ_SEARCH (root has it unless it was dropped)",
        _ => "run asmt as root, or as the owner of the segments and of the directory",
    }
}

/// The text for a failed call, without "(os error N)" behind it. The system's own only where we
/// have none.
pub fn without_number(error: &std::io::Error) -> String {
    if let Some(text) = error.raw_os_error().and_then(errno::text) {
        return text.to_owned();
    }
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

/// Result of the engine's operations.
pub type Result<T> = std::result::Result<T, Error>;

texts! {
    /// A stable name for what a remark or an event is about; scripts may compare it.
    NoteCode:
    /// The backup that is there is current: no other one was made.
    AlreadyBackedUp = "already-backed-up";
    /// A killed backup had decided to take the place of an older one: that was completed.
    Completed = "completed";
    /// The configuration has something odd in it that does not keep it from being understood.
    Configuration = "configuration";
    /// Files are read to see how much of them is data.
    Counting = "counting";
    /// No storage device could be noted: a restore will have less to go by.
    DevicesNotNoted = "devices-not-noted";
    /// Fewer threads than wanted could be started.
    FewerThreads = "fewer-threads";
    /// A segment was filled.
    Filled = "filled";
    /// Segments of another user are left out.
    ForeignSegments = "foreign-segments";
    /// Holes cannot be told from what is swapped out: all is read as data.
    HolesUnseen = "holes-unseen";
    /// The server keeps a checkpoint of its index by itself.
    IndexCheckpoint = "index-checkpoint";
    /// An index is on flash or in persistent memory, and not in shared memory.
    IndexPersists = "index-persists";
    /// Another instance is there, too, and needs a run of its own.
    InstanceLeftOut = "instance-left-out";
    /// The journal of a run could not be removed; the next run removes it.
    JournalLeft = "journal-left";
    /// A configured namespace is not there.
    NamespaceLeftOut = "namespace-left-out";
    /// A backup made by ASMT: its plain files cannot be checked.
    NoManifest = "no-manifest";
    /// How much room there was when it did not suffice.
    NoRoom = "no-room";
    /// Something was not looked at, and why.
    NotLookedAt = "not-looked-at";
    /// The directory does not note what was done.
    NotMarked = "not-marked";
    /// No storage device proves that the server has not run since the backup.
    NotProven = "not-proven";
    /// Room could not be reserved.
    NotReserved = "not-reserved";
    /// An outdated backup is removed before the new one is made.
    OldFirst = "old-first";
    /// An older backup stays until the new one takes its place.
    OldLast = "old-last";
    /// A backup of another host.
    OtherHost = "other-host";
    /// The server has run since an older backup in the directory was made.
    Outlived = "outlived";
    /// A check that was overridden, and what it found.
    Overridden = "overridden";
    /// There is no direct I/O: files were read through the page cache.
    PageCache = "page-cache";
    /// The IPC namespace ends with asmt, or with what runs it.
    PrivateIpcNamespace = "private-ipc-namespace";
    /// Files got their names.
    Published = "published";
    /// A file was read and checked.
    Read = "read";
    /// What a killed restore had left was removed.
    Recovered = "recovered";
    /// Room was reserved.
    Reserved = "reserved";
    /// Whether compressed files fit shows when they are written.
    RoomUncertain = "room-uncertain";
    /// The kernel destroys segments that nobody has attached.
    SegmentsNotKept = "segments-not-kept";
    /// A plain file has another size than base says a stage has.
    StageSize = "stage-size";
    /// What an interrupted backup had left was removed.
    Swept = "swept";
    /// Restored segments may be used by a start from now on.
    Trusted = "trusted";
    /// The directory is empty after a reboot.
    VolatileDirectory = "volatile-directory";
    /// A backup waits for the server, or has waited in vain.
    Waiting = "waiting";
    /// Segments that were hardly used are not compressed.
    WrittenPlain = "written-plain";
    /// A file was written.
    Wrote = "wrote";
}

/// A remark: nothing is wrong, but the user should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Remark {
    /// Stable code.
    pub code: NoteCode,
    /// What is remarkable.
    pub message: String,
}

impl Remark {
    /// A remark.
    pub fn new(code: NoteCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weightiest_problem_speaks_for_all() {
        let problems = vec![
            Problem::new(Code::NothingFound, "nothing", ""),
            Problem::new(Code::SegmentAttached, "attached", ""),
            Problem::new(Code::ContentDamaged, "damaged", ""),
        ];
        let error = Error::from_problems(problems).expect("an error");
        assert_eq!(error.first().code, Code::ContentDamaged);
        assert_eq!(error.problems().len(), 3);
        assert!(Error::from_problems(Vec::new()).is_none());
    }

    #[test]
    fn a_failed_call_names_call_object_and_reason() {
        let error = Error::io("fallocate", "ae001000.dat", std::io::Error::from_raw_os_error(libc::ENOSPC));
        assert_eq!(error.first().message, "fallocate ae001000.dat: no space left on device");
        assert_eq!(error.first().kind, Kind::NoRoom);
        assert!(!error.first().hint.is_empty());
    }

    #[test]
    fn what_could_not_be_cleaned_up_is_not_called_clean() {
        let failed = Error::io("unlink", "x", std::io::Error::from_raw_os_error(libc::EACCES));
        let error = Error::interrupted().and_while_cleaning_up(failed);
        assert_eq!(error.problems()[0].message, "stopped before it was done");
        assert_eq!(error.problems()[1].message, "and while cleaning up: unlink x: permission denied");
        assert!(error.problems()[1].hint.contains("left behind"));
    }
}
