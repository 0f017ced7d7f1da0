//! Next steps that several refusals name, each once.
//!
//! Pure. Promise: an operator who does exactly what a hint says loses nothing that could still be
//! had, whatever state led to it; docs/HINTS.md goes through them state by state. Must never: tell
//! to remove what may be good.

/// What is left where a backup cannot be used. An older backup is no way out: the server has run
/// since it was made.
macro_rules! instead {
    () => {
        "restore a copy of this same backup, if there is one (an older backup is stale); else let the namespace cold-start, \
         which empties one that is in memory only"
    };
}

/// A backup whose files are damaged.
pub const DAMAGED: &str = concat!("the backup is damaged: ", instead!());
/// A compressed file that is gzip's own, and has no header of ASMT's.
pub const GZIPPED: &str = concat!(
    "if somebody has compressed the files since the backup was made, undo that (gunzip), then run it again; else the backup is \
     damaged: ",
    instead!()
);
/// A backup that lacks files.
pub const INCOMPLETE: &str = concat!("the backup is incomplete: ", instead!());
/// A backup whose manifest is damaged.
pub const UNCHECKED: &str = concat!("the backup cannot be checked: ", instead!());
/// A backup without base.
pub const WITHOUT_BASE: &str =
    concat!("without base it was never committed, or base was removed: it cannot be used like this; ", instead!());
/// A backup of stripes that are no set.
pub const BACKUP_TORN: &str =
    concat!("a server would not start with these stripes, or would discard them: do not restore them; ", instead!());
/// A backup of a server that was not shut down cleanly.
pub const BACKUP_NOT_CLEAN: &str = "this backup was not made of a cleanly shut down server: do not use it; let the namespace \
    cold-start, which empties one that is in memory only";
/// A backup that was interrupted before its commit.
pub const INTERRUPTED: &str = "it cannot be used: if its segments are still in memory (asmt list), back up again; else let the \
    namespace cold-start, which empties one that is in memory only";
/// A file in the place of another one of the manifest.
pub const OTHER_ENCODING: &str = concat!(
    "the file is not that of the manifest: if the expected one is elsewhere, put it back, and move the other one out of the \
     directory; else ",
    instead!()
);
/// A file more than a manifest names.
pub const NOT_IN_MANIFEST: &str = "it is of another backup: move it out of the directory, and keep it until it is known what it \
    is of";
/// Two files of one segment.
pub const TWICE: &str = concat!(
    "the manifest (asmt-manifest-….json) names the one that is of this backup: move the other one out of the directory, and keep \
     it; where no manifest names either, use neither of them: ",
    instead!()
);
/// Something else than a file under a name of a backup.
pub const NOT_REGULAR: &str = "only regular files are read: if it is a link to a file of this backup, put that file in its place \
    (cp -a); else move it out of the directory; remove nothing that may be needed";
/// Something else than a file under a name that only asmt gives.
pub const NOT_OURS: &str = "asmt has not made it: move it away, then run it again";
/// Something happened during a restore that a server does when it starts.
pub const STARTED_MEANWHILE: &str = "if the server was started meanwhile, leave it as it is: nothing can be restored beside it; if \
    not, see that it stays stopped, then run it again";
/// A backup that does not fit.
pub const NO_ROOM: &str = "make room, or choose another directory; with -n some of the namespaces may fit, and the others are lost \
    at the reboot";
/// A device that does not answer.
pub const DEVICE_UNREADABLE: &str = "make sure that the device is there and readable, then run it again; --force-stale goes \
    without asking: only if you know that the server has not run since the backup";
/// A log or metadata directory that is not there.
pub const LOG_MISSING: &str = "see that its file system is mounted, then run it again; if it was removed, --force-stale goes without \
    it: only if you know that the server has not run since the backup";
/// A device that is not the one that was noted.
pub const DEVICE_REPLACED: &str = "make sure that it is the device that the server had, for names of devices can change \
    (--config, --device, /dev/disk/by-id), and start no server on a wrong one; if it was replaced or wiped on purpose, do not \
    restore: start the server as it is, and what was on the old device comes back from other nodes only";
/// A stale backup of a namespace on devices.
pub const STALE: &str = "do not restore it: start the server as it is, it cold-starts and reads its devices (--force-stale only \
    if you know that the server has not run since)";
/// A mark of use that cannot be read.
pub const MARK_UNREADABLE: &str = "look at the file: move it out of the directory only if you know that no restore of this backup was \
    begun, and that it was not retired; else start the server as it is";
/// A used backup of a namespace on devices.
pub const USED: &str = "do not restore it: start the server as it is; --force-stale only if you know that it has not run since";

/// A word as a shell wants it.
pub fn shell_word(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_./,:@%+=-".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_for_a_shell_is_one_word() {
        for (word, expected) in [
            ("/var/lib/asmt", "/var/lib/asmt"),
            ("", "''"),
            ("/a b", "'/a b'"),
            ("/it's", r"'/it'\''s'"),
            ("/a;rm *", "'/a;rm *'"),
            ("/a\nb", "'/a\nb'"),
            ("/ä", "'/ä'"),
        ] {
            assert_eq!(shell_word(word), expected);
        }
    }
}
