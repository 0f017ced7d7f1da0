//! Looks at the files that a running server writes: its log files and its metadata directory.
//!
//! Silence proves nothing, because packaged servers log to the journal; but a change is a sign. So
//! a backup notes the state of these files, and a restore checks that it is the *same*, not that it
//! is *older*: clocks jump.

use crate::error::{Error, Result};
use crate::facts::server::{ComparedTrace, TraceChange};
use crate::format::{Trace, TraceState};
use crate::layout::server_config::ServerConfig;
use crate::sys::dir::{is_in_memory, names_of};
use rustix::fs::{self, FileType, Mode, OFlags};
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The server's default, if its configuration does not name one.
const DEFAULT_WORK_DIRECTORY: &str = "/opt/aerospike";
/// The log of a server that was configured to write one in the usual place. It is looked at if
/// there is no configuration.
const DEFAULT_LOG: &str = "/var/log/aerospike/aerospike.log";
/// Part of the last line of a clean stop. Source: observed on a server, see docs/STALENESS.md.
const LAST_WORDS: &[u8] = b"finished clean shutdown";
/// Most bytes that are read at the end of a log.
const TAIL_BYTES: u64 = 64 << 10;
/// Most files of the metadata directory that are looked at. A server has a handful.
const MAX_SMD_FILES: usize = 10_000;

/// Traces, and the places that this user may not look at.
pub type Found = (Vec<Trace>, Vec<String>);

/// Looks at the log files and the metadata directory that a configuration names, or at the usual
/// places.
///
/// Errors: failed calls. A place that does not exist, or that this user may not see, is a finding.
pub fn find(config: Option<&ServerConfig>, skips_volatile: bool) -> Result<Found> {
    let (mut traces, mut unseen) = (Vec::new(), Vec::new());
    let logs = config.map_or_else(|| vec![DEFAULT_LOG.to_owned()], |config| config.logs.clone());
    for path in logs {
        match log(&path) {
            // A reboot removes it, and it would be reported as missing then.
            Ok(Log::Witness(state)) if skips_volatile && is_volatile(&path) => unseen.extend(state.map(|_| path)),
            Ok(Log::Witness(state)) => traces.push(Trace { path, state }),
            Ok(Log::NoWitness) => {}
            // It is not known how the server resolves such a path.
            Ok(Log::Relative) => unseen.push(path),
            Err(error) => hidden(&path, error, &mut unseen)?,
        }
    }
    let work = config.and_then(|config| config.work_directory.as_deref()).unwrap_or(DEFAULT_WORK_DIRECTORY);
    let path = format!("{work}/smd");
    match metadata(Path::new(&path)) {
        Ok(state) => traces.push(Trace { path, state }),
        Err(error) => hidden(&path, error, &mut unseen)?,
    }
    Ok((traces, unseen))
}

/// Returns true if a log is on a file system in memory.
fn is_volatile(path: &str) -> bool {
    fs::statfs(path).is_ok_and(|stat| is_in_memory(stat.f_type as u64).is_some())
}

/// Compares noted traces with their current state.
///
/// Errors: failed calls.
pub fn compare(noted: &[Trace], unseen: &mut Vec<String>) -> Result<Vec<ComparedTrace>> {
    let mut compared = Vec::new();
    for trace in noted {
        match change(trace) {
            Ok(None) => unseen.push(trace.path.clone()),
            Ok(Some(change)) => compared.push(ComparedTrace { path: trace.path.clone(), change }),
            // A manifest may claim anything. A text that cannot be a path cannot be compared.
            Err(error) if is_no_path(&error) => {
                compared.push(ComparedTrace { path: trace.path.clone(), change: TraceChange::Changed });
            }
            Err(error) => hidden(&trace.path, error, unseen)?,
        }
    }
    Ok(compared)
}

/// Returns the change of a trace; `None` if its current state cannot be compared.
fn change(noted: &Trace) -> Result<Option<TraceChange>> {
    let path = Path::new(&noted.path);
    if noted.path.ends_with("/smd") {
        let now = metadata(path)?;
        return Ok(Some(match now {
            now if now == noted.state => TraceChange::None,
            // No server removes it.
            None => TraceChange::Gone,
            Some(_) => TraceChange::Changed,
        }));
    }
    match log(&noted.path)? {
        Log::Witness(now) => change_of_log(&real_path(path), noted, now).map(Some),
        Log::NoWitness | Log::Relative => Ok(None),
    }
}

fn change_of_log(path: &Path, noted: &Trace, now: Option<TraceState>) -> Result<TraceChange> {
    let Some(before) = noted.state.as_ref().filter(|before| before.size > 0) else {
        // There was no log, or an empty one. If there is something in it now, or was before it was
        // rotated away, it was written since.
        let rotated = |state: Option<&TraceState>| state.map_or(0, |state| state.digest);
        return match now {
            Some(now) if now.size > 0 => appended(path, None),
            now if rotated(now.as_ref()) == rotated(noted.state.as_ref()) => Ok(TraceChange::None),
            _ => Ok(TraceChange::Changed),
        };
    };
    match now {
        Some(now) if now.inode == before.inode && now.size == before.size => {
            Ok(if now.modified_ns == before.modified_ns { TraceChange::None } else { TraceChange::Changed })
        }
        Some(now) if now.inode == before.inode && now.size > before.size => appended(path, Some(before)),
        // It was truncated in place, renamed or removed. A rotation does that without the server,
        // if nothing was added.
        Some(now) if now.size > 0 => Ok(TraceChange::Changed),
        // If there is an empty log, nothing is missing.
        Some(_) => rotated(path, before).map(|change| if change == TraceChange::Gone { TraceChange::Changed } else { change }),
        None => rotated(path, before),
    }
}

/// Finds out what was added to a log since `before`, or since it was empty: the last line of the
/// stop that preceded the backup, or those of another start, which writes more than one line.
fn appended(path: &Path, before: Option<&TraceState>) -> Result<TraceChange> {
    let (from, was_finished) = before.map_or((0, false), |before| (before.size, before.is_finished));
    let file = open_log(path)?;
    let size = file.metadata().map_err(|error| Error::io("stat", path.display(), error))?.len();
    if was_finished || size - from.min(size) > TAIL_BYTES {
        return Ok(TraceChange::Changed);
    }
    let added = read(&file, from, size, path)?;
    let is_rest = added.iter().filter(|byte| **byte == b'\n').count() == 1 && ends_with_last_words(&added);
    Ok(if is_rest { TraceChange::EndOfStop } else { TraceChange::Changed })
}

/// Looks for a log that is no longer at its path: it may be in a file beside it, with nothing
/// added.
fn rotated(path: &Path, before: &TraceState) -> Result<TraceChange> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Ok(TraceChange::Changed);
    };
    let names = match names_of(directory) {
        Ok(names) => names,
        Err(error) if is_missing(&error) => return Ok(TraceChange::Gone),
        Err(error) => return Err(error),
    };
    // The noted file itself, or its compressed form; copies of it; and files that were written
    // later.
    let (mut has_itself, mut copy_count, mut newer_count, mut is_rest) = (false, 0, 0, false);
    for sibling in names.iter().filter(|sibling| is_rotation_of(name, sibling)) {
        let sibling = directory.join(sibling);
        let Ok(stat) = fs::stat(&sibling) else { continue };
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            continue;
        }
        let size = stat.st_size.cast_unsigned();
        // The last line of the stop was written after the backup, and then the log was rotated.
        let is_plain = !matches!(sibling.extension().and_then(|extension| extension.to_str()), Some("gz" | "xz" | "zst" | "bz2"));
        let has_rest = is_plain && size > before.size && appended(&sibling, Some(before))? == TraceChange::EndOfStop;
        let is_itself = match sibling.extension().and_then(|extension| extension.to_str()) {
            // gzip keeps the time of the file, and its size modulo 2^32 in the last four bytes.
            Some("gz") => seconds(&stat) == before.modified_ns / NS && original_size(&sibling)? == before.size as u32,
            Some("xz" | "zst" | "bz2") => seconds(&stat) == before.modified_ns / NS,
            _ if has_rest => stat.st_ino == before.inode,
            _ => size == before.size && stat.st_ino == before.inode && modified_ns(&stat) == before.modified_ns,
        };
        is_rest |= has_rest;
        has_itself |= is_itself;
        if !is_itself && size > 0 && modified_ns(&stat) >= before.modified_ns {
            newer_count += 1;
            copy_count += u32::from(size == before.size || has_rest);
        }
    }
    // Another log may have been begun after it, written to, and rotated away, too.
    let is_same = if has_itself { newer_count == 0 } else { newer_count == 1 && copy_count == 1 };
    // With nothing beside it at all, the log cannot be checked: its file system may not be mounted.
    let is_gone = !has_itself && newer_count == 0;
    Ok(match (is_same, is_rest, is_gone) {
        (true, false, _) => TraceChange::None,
        (true, true, _) => TraceChange::EndOfStop,
        (false, _, true) => TraceChange::Gone,
        (false, _, false) => TraceChange::Changed,
    })
}

const NS: u64 = 1_000_000_000;

fn seconds(stat: &fs::Stat) -> u64 {
    u64::try_from(stat.st_mtime).unwrap_or(0)
}

fn modified_ns(stat: &fs::Stat) -> u64 {
    seconds(stat).saturating_mul(NS).saturating_add(stat.st_mtime_nsec)
}

/// The last four bytes of a gzip file: the size of the uncompressed data.
fn original_size(path: &Path) -> Result<u32> {
    let file = open_log(path)?;
    let size = file.metadata().map_err(|error| Error::io("stat", path.display(), error))?.len();
    let bytes = read(&file, size.saturating_sub(4), size, path)?;
    Ok(bytes.try_into().map_or(0, u32::from_le_bytes))
}

/// The kind of a log.
enum Log {
    /// A file that only the server writes; `None` if there is nothing at the path.
    Witness(Option<TraceState>),
    /// A terminal, a pipe, `/dev/stdout`, or a file that this program itself writes.
    NoWitness,
    /// A path that depends on the working directory.
    Relative,
}

/// Most links from a log's path to the log.
const MAX_LINKS: usize = 16;

/// The real path of a log: a rotation moves the log in that directory, and not beside a link to it.
/// A link to nothing leads to the path that the log will have.
fn real_path(path: &Path) -> PathBuf {
    let mut real = path.to_owned();
    for _ in 0..MAX_LINKS {
        match std::fs::read_link(&real) {
            Ok(target) => real = real.parent().unwrap_or(Path::new("/")).join(target),
            Err(_) => break,
        }
    }
    real
}

/// Returns true if a file beside a log has a name that a rotation gives: `a.log.1`,
/// `a.log-20261130.gz`, or with logrotate's `extension .log`, `a-20261130.log`.
fn is_rotation_of(name: &str, sibling: &str) -> bool {
    if sibling.len() <= name.len() {
        return false;
    }
    let is_compressed = |extension: &str| matches!(extension, "gz" | "xz" | "zst" | "bz2");
    let plain = sibling.rsplit_once('.').filter(|(_, extension)| is_compressed(extension)).map_or(sibling, |(plain, _)| plain);
    let between =
        name.rsplit_once('.').and_then(|(stem, extension)| plain.strip_prefix(stem)?.strip_suffix(extension)?.strip_suffix('.'));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || b"-._T".contains(&byte));
    sibling.starts_with(name) || between.is_some_and(is_number)
}

fn log(path: &str) -> Result<Log> {
    if !path.starts_with('/') {
        return Ok(Log::Relative);
    }
    if ["/dev/", "/proc/"].iter().any(|root| path.starts_with(root)) {
        return Ok(Log::NoWitness);
    }
    let stat = match fs::stat(path) {
        Ok(stat) => stat,
        // The links form a circle: no server writes there.
        Err(rustix::io::Errno::LOOP) => return Ok(Log::NoWitness),
        Err(error) => {
            let error = Error::io("stat", path, error);
            return if is_missing(&error) { Ok(Log::Witness(missing(path)?)) } else { Err(error) };
        }
    };
    let is_own = |descriptor: BorrowedFd<'_>| {
        fs::fstat(descriptor).is_ok_and(|own| (own.st_dev, own.st_ino) == (stat.st_dev, stat.st_ino))
    };
    let is_ours = is_own(std::io::stdout().as_fd()) || is_own(std::io::stderr().as_fd());
    if is_ours || FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(Log::NoWitness);
    }
    let size = stat.st_size.cast_unsigned();
    let is_finished = match open_log(Path::new(path)) {
        Ok(file) => ends_with_last_words(&read(&file, size.saturating_sub(TAIL_BYTES), size, Path::new(path))?),
        // It can be seen, but not read: then any growth counts.
        Err(error) if error.io_kind() == Some(ErrorKind::PermissionDenied) => true,
        Err(error) if is_missing(&error) => return Ok(Log::Witness(missing(path)?)),
        Err(error) => return Err(error),
    };
    let digest = if size == 0 { siblings_digest(&real_path(Path::new(path)))? } else { 0 };
    let state = TraceState { inode: stat.st_ino, size, modified_ns: modified_ns(&stat), digest, is_finished };
    Ok(Log::Witness(Some(state)))
}

/// The state of a missing log; `None` if none was rotated away either.
fn missing(path: &str) -> Result<Option<TraceState>> {
    let digest = siblings_digest(&real_path(Path::new(path)))?;
    Ok((digest != 0).then_some(TraceState { inode: 0, size: 0, modified_ns: 0, digest, is_finished: false }))
}

/// A checksum of the logs beside a path that were rotated away and are not empty, whatever their
/// names; 0 if there are none. For an empty log it shows whether something was written and rotated
/// away.
fn siblings_digest(path: &Path) -> Result<u32> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Ok(0);
    };
    let names = match names_of(directory) {
        Ok(names) => names,
        Err(error) if is_missing(&error) => return Ok(0),
        Err(error) => return Err(error),
    };
    let siblings = names.iter().filter(|sibling| is_rotation_of(name, sibling));
    let mut found: Vec<[u64; 3]> = siblings
        .filter_map(|sibling| fs::stat(directory.join(sibling)).ok())
        .filter(|stat| stat.st_size > 0)
        .map(|stat| [stat.st_ino, stat.st_size.cast_unsigned(), modified_ns(&stat)])
        .collect();
    found.sort_unstable();
    let mut hasher = crc32fast::Hasher::new();
    for number in found.iter().flatten() {
        hasher.update(&number.to_le_bytes());
    }
    Ok(hasher.finalize())
}

fn open_log(path: &Path) -> Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = fs::open(path, flags, Mode::empty()).map_err(|error| Error::io("open", path.display(), error))?;
    Ok(File::from(file))
}

/// Reads the bytes of a file from one offset to another; fewer if it ends earlier.
fn read(file: &File, from: u64, to: u64, path: &Path) -> Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(to - from).unwrap_or(0)];
    let mut done = 0;
    while done < bytes.len() {
        match file.read_at(&mut bytes[done..], from + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io("read", path.display(), error)),
        }
    }
    bytes.truncate(done);
    Ok(bytes)
}

fn count(text: &[u8]) -> usize {
    text.windows(LAST_WORDS.len()).filter(|words| *words == LAST_WORDS).count()
}

/// Returns true if the last line is complete, and holds the last words.
fn ends_with_last_words(text: &[u8]) -> bool {
    let Some(body) = text.strip_suffix(b"\n") else { return false };
    let last = body.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    count(last) == 1
}

/// The state of the metadata directory; `None` if there is none.
fn metadata(path: &Path) -> Result<Option<TraceState>> {
    let names = match names_of(path) {
        Ok(names) => names,
        Err(error) if is_missing(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut hasher = crc32fast::Hasher::new();
    let (mut size, mut latest) = (0, 0);
    for name in names.iter().filter(|name| !matches!(name.as_str(), "." | "..")).take(MAX_SMD_FILES) {
        let file = path.join(name);
        let stat = match fs::stat(&file) {
            Ok(stat) => stat,
            Err(rustix::io::Errno::NOENT) => continue,
            Err(error) => return Err(Error::io("stat", file.display(), error)),
        };
        size += 1;
        latest = latest.max(modified_ns(&stat));
        for bytes in [stat.st_ino, stat.st_size.cast_unsigned(), modified_ns(&stat)] {
            hasher.update(&bytes.to_le_bytes());
        }
        hasher.update(name.as_bytes());
        hasher.update(&[0]);
    }
    Ok(Some(TraceState { inode: 0, size, modified_ns: latest, digest: hasher.finalize(), is_finished: false }))
}

fn is_no_path(error: &Error) -> bool {
    matches!(error.io_kind(), Some(ErrorKind::InvalidInput | ErrorKind::InvalidFilename))
}

fn is_missing(error: &Error) -> bool {
    matches!(error.io_kind(), Some(ErrorKind::NotFound | ErrorKind::NotADirectory))
}

/// Notes a place that this user may not look at; any other failure is returned.
fn hidden(path: &str, error: Error, unseen: &mut Vec<String>) -> Result<()> {
    if error.io_kind() != Some(ErrorKind::PermissionDenied) {
        return Err(error);
    }
    unseen.push(path.to_owned());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{OpenOptions, rename, write};
    use std::io::Write;

    fn append(path: &Path, text: &str) {
        OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .expect("appended");
    }

    /// The change of a log that was noted with `text` in it, after `what` was done to it.
    fn after(text: &str, what: impl Fn(&Path)) -> TraceChange {
        let scratch = asmt_kit::files::Scratch::new("traces");
        let path = scratch.path().join("aerospike.log");
        if !text.is_empty() {
            write(&path, text).expect("written");
        }
        let shown = path.display().to_string();
        let Log::Witness(state) = log(&shown).expect("a look") else { panic!("no witness") };
        what(&path);
        change(&Trace { path: shown, state }).expect("a look").expect("a witness")
    }

    #[test]
    fn a_log_is_compared_for_another_not_for_later() {
        let sibling = |path: &Path, tail: &str| path.with_file_name(format!("aerospike.log{tail}"));
        let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(7);
        assert_eq!(after("a\n", |_| {}), TraceChange::None);
        assert_eq!(after("a\n", |path| append(path, "b\n")), TraceChange::Changed);
        assert_eq!(after("", |path| append(path, "b\n")), TraceChange::Changed, "a first log");
        assert_eq!(after("", |path| write(path, "").expect("made")), TraceChange::None, "an empty one");
        assert_eq!(after("a\n", |path| rename(path, sibling(path, ".1")).expect("renamed")), TraceChange::None);
        let truncate = |path: &Path| {
            std::fs::copy(path, sibling(path, "-20261130")).expect("copied");
            write(path, "").expect("truncated");
        };
        assert_eq!(after("a\n", truncate), TraceChange::None, "copied and truncated");
        for rotation in [
            |path: &Path| rename(path, path.with_extension("log.1")).expect("renamed"),
            |path: &Path| {
                std::fs::copy(path, path.with_extension("log.1")).expect("copied");
                write(path, "").expect("truncated");
            },
        ] {
            let written_first = |path: &Path| {
                append(path, "the server ran\n");
                rotation(path);
            };
            assert_eq!(after("a\n", written_first), TraceChange::Changed, "written to, then rotated");
        }
        assert_eq!(after("a\n", |path| std::fs::remove_file(path).expect("removed")), TraceChange::Gone);
        // The last line of the stop was written after the backup, and then the log was rotated.
        for rotation in [
            |path: &Path| rename(path, path.with_extension("log.1")).expect("renamed"),
            |path: &Path| {
                std::fs::copy(path, path.with_extension("log.1")).expect("copied");
                write(path, "").expect("truncated");
            },
        ] {
            let finished_first = |path: &Path| {
                append(path, "Nov 30 INFO (as): finished clean shutdown - exiting\n");
                rotation(path);
            };
            assert_eq!(after("a\n", finished_first), TraceChange::EndOfStop);
        }
        let earlier = |path: &Path| {
            append(path, "b\n");
            File::open(path).and_then(|file| file.set_modified(old)).expect("dated back");
        };
        assert_eq!(after("a\n", earlier), TraceChange::Changed, "written to under a clock that was set back");
    }

    #[test]
    fn a_rotation_is_known_by_its_name() {
        for sibling in ["a.log.1", "a.log-20261130", "a.log.2.gz", "a-20261130.log", "a-20261130.log.xz", "a.1.log", "a.logs"] {
            assert!(is_rotation_of("a.log", sibling), "{sibling}");
        }
        for sibling in ["a.log", "a", "a-audit.log", "b-20261130.log", "a.txt", "a-20261130"] {
            assert!(!is_rotation_of("a.log", sibling), "{sibling}");
        }
    }

    #[test]
    fn a_log_behind_a_link_is_rotated_where_it_is() {
        for text in ["", "a\n"] {
            let scratch = asmt_kit::files::Scratch::new("traces-link");
            let (link, there) = (scratch.path().join("aerospike.log"), scratch.path().join("there"));
            std::fs::create_dir(&there).expect("a directory");
            std::os::unix::fs::symlink(there.join("real.log"), &link).expect("a link");
            write(there.join("real.log"), text).expect("written");
            let shown = link.display().to_string();
            let Log::Witness(state) = log(&shown).expect("a look") else { panic!("no witness") };
            let noted = Trace { path: shown, state };
            let rotate = || rename(there.join("real.log"), there.join("real-20261130.log")).expect("renamed");
            if !text.is_empty() {
                rotate();
                assert_eq!(change(&noted).expect("a look"), Some(TraceChange::None));
                continue;
            }
            append(&there.join("real.log"), "the server ran\n");
            rotate();
            assert_eq!(change(&noted).expect("a look"), Some(TraceChange::Changed));
        }
    }

    #[test]
    fn what_cannot_be_compared_is_not_taken_for_the_same() {
        let scratch = asmt_kit::files::Scratch::new("traces-fifo");
        let path = scratch.path().join("aerospike.log");
        write(&path, "a\n").expect("written");
        let shown = path.display().to_string();
        let Log::Witness(state) = log(&shown).expect("a look") else { panic!("no witness") };
        std::fs::remove_file(&path).expect("removed");
        std::os::unix::fs::symlink(&path, &path).expect("a link to itself");
        let mut unseen = Vec::new();
        let relative = Trace { path: "aerospike.log".to_owned(), state: None };
        assert_eq!(compare(&[Trace { path: shown.clone(), state }, relative], &mut unseen).expect("a look"), []);
        assert_eq!(unseen, [shown, "aerospike.log".to_owned()]);
    }

    #[test]
    fn what_was_written_to_an_empty_log_and_rotated_away_is_seen() {
        for create in [false, true] {
            let rotate = |path: &Path| {
                rename(path, path.with_extension("log.1")).expect("renamed");
                if create {
                    write(path, "").expect("made");
                }
            };
            let ran = |path: &Path| {
                append(path, "the server ran\n");
                rotate(path);
            };
            assert_eq!(after("", ran), TraceChange::Changed, "create {create}");
            // When the backup was made, there was only an older log beside it.
            let scratch = asmt_kit::files::Scratch::new("rotated");
            let path = scratch.path().join("aerospike.log");
            append(&path, "old\n");
            rotate(&path);
            let shown = path.display().to_string();
            let Log::Witness(state) = log(&shown).expect("a look") else { panic!("no witness") };
            let noted = Trace { path: shown, state };
            assert_eq!(change(&noted).expect("a look"), Some(TraceChange::None));
            rename(path.with_extension("log.1"), path.with_extension("log.2")).expect("renamed");
            assert_eq!(change(&noted).expect("a look"), Some(TraceChange::None), "only moved on");
            ran(&path);
            assert_eq!(change(&noted).expect("a look"), Some(TraceChange::Changed));
        }
    }

    #[test]
    fn a_second_log_that_was_rotated_away_after_the_noted_one_is_seen() {
        let twice = |path: &Path| {
            rename(path, path.with_extension("log.2")).expect("renamed");
            append(path, "the server ran\n");
            File::open(path)
                .and_then(|file| file.set_modified(std::time::SystemTime::now() + std::time::Duration::from_secs(1)))
                .expect("dated");
            rename(path, path.with_extension("log.1")).expect("renamed");
        };
        assert_eq!(after("a\n", twice), TraceChange::Changed);
    }

    #[test]
    fn a_compressed_log_is_known_by_its_size_and_time() {
        let gzip = |path: &Path, text: &str| {
            append(path, text);
            let status = std::process::Command::new("gzip").arg(path).status().expect("gzip");
            assert!(status.success());
        };
        assert_eq!(after("a\n", |path| gzip(path, "")), TraceChange::None);
        assert_eq!(after("a\n", |path| gzip(path, "the server ran\n")), TraceChange::Changed);
    }

    #[test]
    fn the_rest_of_the_stop_is_no_sign_of_another_start() {
        let last = "Nov 30 2026 01:00:00 GMT: INFO (as): (as.c:500) finished clean shutdown - exiting\n";
        let add = |text: String| move |path: &Path| append(path, &text);
        assert_eq!(after("a\n", add(last.to_owned())), TraceChange::EndOfStop);
        assert_eq!(after("", add(last.to_owned())), TraceChange::EndOfStop, "of a log that was rotated in the middle");
        assert_eq!(after("a\n", add(format!("started\n{last}"))), TraceChange::Changed, "another start, and its stop");
        assert_eq!(after("", add(format!("started\n{last}"))), TraceChange::Changed);
        assert_eq!(after("a\n", add(format!("{last}start\n"))), TraceChange::Changed);
        assert_eq!(after("a\n", add(format!("{last}{last}"))), TraceChange::Changed);
        assert_eq!(after(&format!("a\n{last}"), add(last.to_owned())), TraceChange::Changed, "it had been finished");
    }

    #[test]
    fn what_is_no_file_of_the_server_alone_is_no_witness() {
        for path in ["/dev/stdout", "/dev/null", "/proc/self/fd/2"] {
            assert!(matches!(log(path).expect("a look"), Log::NoWitness), "{path}");
        }
        let scratch = asmt_kit::files::Scratch::new("fifo");
        let fifo = scratch.path().join("log");
        fs::mkfifoat(fs::CWD, &fifo, Mode::RUSR).expect("a FIFO");
        assert!(matches!(log(&fifo.display().to_string()).expect("a look"), Log::NoWitness));
    }

    #[test]
    fn the_metadata_directory_is_compared_as_a_whole() {
        let scratch = asmt_kit::files::Scratch::new("smd");
        let path = scratch.path().join("smd");
        let noted = |state| Trace { path: path.display().to_string(), state };
        assert_eq!(metadata(&path).expect("a look"), None);
        assert_eq!(change(&noted(None)).expect("a look"), Some(TraceChange::None));
        std::fs::create_dir(&path).expect("a directory");
        write(path.join("sindex.smd"), "x").expect("written");
        assert_eq!(change(&noted(None)).expect("a look"), Some(TraceChange::Changed));
        let state = metadata(&path).expect("a look");
        assert_eq!(change(&noted(state.clone())).expect("a look"), Some(TraceChange::None));
        let file = File::open(path.join("sindex.smd")).expect("opened");
        file.set_modified(std::time::UNIX_EPOCH).expect("dated back");
        assert_eq!(change(&noted(state)).expect("a look"), Some(TraceChange::Changed), "another time, though an earlier one");
    }
}
