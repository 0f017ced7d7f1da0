//! Next steps that several refusals have in common.
//!
//! Pure. Promise: an operator who does exactly what a hint says loses nothing that could still be
//! saved, whatever state led to it; docs/HINTS.md examines them state by state. Must never: advise
//! to remove something that may be good.

/// The way out if a backup cannot be used. An older backup is none: the server has run since it was
/// made.
macro_rules! instead {
    () => {
        "while the segments that were backed up are still in memory (asmt list), make a new backup with --replace -c; else \
         restore another copy of this same backup, if there is one (an older backup is stale); otherwise let the namespace \
         cold-start, which empties a namespace that is in memory only"
    };
}

/// The way out if a restore was killed: a server that is started instead starts cold.
pub const RESTORE_AGAIN: &str = "if a restore was started and the server has not served since, run that restore again; otherwise";
/// A backup whose files are damaged.
pub const DAMAGED: &str = concat!("the backup is damaged: ", instead!());
/// A compressed file that gzip itself made, without a header of ASMT's.
pub const GZIPPED: &str = concat!(
    "if somebody has compressed the files since the backup was made, decompress them (gunzip), then try again; otherwise the \
     backup is damaged: ",
    instead!()
);
/// A backup that lacks files.
pub const INCOMPLETE: &str = concat!("the backup is incomplete: ", instead!());
/// A backup whose manifest is damaged.
pub const UNCHECKED: &str = concat!("the backup cannot be checked: ", instead!());
/// A backup without base.
pub const WITHOUT_BASE: &str = concat!(
    "without base, either the backup was never committed or base was removed: it cannot be used in this state; ",
    instead!()
);
/// A backup of stripes that are not a set.
pub const BACKUP_TORN: &str =
    concat!("a server would not start with these stripes, or would discard them: do not restore them; ", instead!());
/// A backup of a server that was not shut down cleanly.
pub const BACKUP_NOT_CLEAN: &str = "this backup was made from a server that was not cleanly shut down: do not use it; let the \
    namespace cold-start, which empties a namespace that is in memory only";
/// A backup or an export that was interrupted before its commit.
pub const INTERRUPTED: &str = "these files cannot be used: if asmt export was writing them, restore the backup that it was \
    reading, or export it again; if the segments are still in memory (asmt list), back up again; otherwise let the namespace \
    cold-start, which empties a namespace that is in memory only";
/// A file that stands in for another one of the manifest.
pub const OTHER_ENCODING: &str = concat!(
    "the file is not the one in the manifest: if the expected file is elsewhere, put it back, and move the other one out of the \
     directory; otherwise ",
    instead!()
);
/// A file that no manifest names.
pub const NOT_IN_MANIFEST: &str = "the file belongs to another backup: move it out of the directory, and keep it until you know \
    which backup it belongs to";
/// Two files of one segment.
pub const TWICE: &str = concat!(
    "the manifest (asmt-manifest-….json) names the file that belongs to this backup: move the other one out of the directory, \
     and keep it; if no manifest names either, use neither of them: ",
    instead!()
);
/// Something other than a file, under a name of a backup.
pub const NOT_REGULAR: &str = "only regular files are read: if it is a link to a file of this backup, replace the link with \
    that file (cp -a); otherwise move it out of the directory; do not remove anything that may be needed";
/// Something other than a file, under a name that only asmt uses.
pub const NOT_OURS: &str = "asmt did not create it: move it away, then try again";
/// An event during a restore that a starting server causes.
pub const STARTED_MEANWHILE: &str = "if the server was started in the meantime, leave it running, and do not stop it for a restore (a restore \
    would roll it back); if not, make sure that it stays stopped, then try again";
/// A backup that does not fit.
pub const NO_ROOM: &str = "free space, or choose another directory; with -n, some of the namespaces may fit, but the others are \
    lost at the reboot";
/// A device that does not answer.
pub const DEVICE_UNREADABLE: &str = "make sure that the device exists and is readable, then try again; --force-stale overrides this and every \
    other check of staleness: use it only if you know that the server has not run since the backup";
/// A log or metadata directory that is not there.
pub const LOG_MISSING: &str = "make sure that its file system is mounted, then try again; if it was removed, --force-stale overrides this \
    and every other check of staleness: use it only if you know that the server has not run since the backup";
/// A device that is not the noted one.
pub const DEVICE_REPLACED: &str = "make sure that it is the device that the server used, because device names can change \
    (--config, --device, /dev/disk/by-id), and do not start a server on the wrong device; if it was replaced or wiped on \
    purpose, do not restore this backup: start the server without a restore; the data on the old device then comes back only from \
    other nodes";
/// A stale backup of a namespace on devices.
pub const STALE: &str = "do not restore it: start the server without a restore, so that it cold-starts and reads its devices (use \
    --force-stale only if you know that the server has not run since)";
/// A usage mark that cannot be read.
pub const MARK_UNREADABLE: &str = "look at the file: move it out of the directory only if you know that no restore of this \
    backup was started, and that it was not retired; otherwise start the server without a restore";
/// A used backup of a namespace on devices.
pub const USED: &str = "do not restore it: start the server without a restore; use --force-stale only if you know that the server has \
    not run since";

/// Quotes a word for a shell, if it needs that.
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
