//! Judges a state: what asmt and ASMT would restore from it, and whether that is right.
//!
//! Promise: asmt's verdict is a restore into real shared memory, summed segment by segment; the
//! truth is the memory that was backed up. Must never: believe a file or a manifest.

use crate::asmt;
use crate::scenario::{DIRECTORY, Truth, make_another_runs, request, sums};
use asmt_engine::error::Code;
use asmt_engine::format::mark::{UsageMark, used_name};
use asmt_engine::operations::Asked;
use asmt_engine::operations::report::Verb;
use asmt_engine::perform;
use asmt_engine::progress::Control;
use asmt_kit::namespaces::on_own_ipc;
use asmt_kit::text_of;
use asmt_shm::{Key, NamespaceName};
use asmt_sim::output_of;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The part of a namespace that would be restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing: the backup is refused, or not there.
    Nothing,
    /// Some of its stripes, each of them whole, and no index: ASMT restores stripes alone.
    SomeStripes,
    /// All of it, to the last byte.
    Whole,
    /// All of the older backup that is replaced.
    Older,
    /// Something else.
    Wrong(String),
}

/// The findings in a state.
#[derive(Clone, Debug)]
pub struct Facts {
    /// For each namespace, the part that asmt and the part that ASMT would restore.
    pub namespaces: Vec<(Seen, Seen)>,
    /// The usage mark of each backup, if it has one.
    pub marks: Vec<Option<Result<UsageMark, String>>>,
    /// Names in the directory that are not part of a backup.
    pub leftovers: Vec<String>,
    /// Faults that are wrong in any state.
    pub faults: Vec<String>,
    /// The next backup was made.
    pub has_run_next: bool,
}

/// The conditions that must hold.
impl Facts {
    /// Returns every way in which the state is wrong. After success was reported, all must be whole
    /// and tidy; before that, each namespace must be whole or nothing.
    pub fn wrongs(&self, truths: &[Truth], is_after: bool) -> Vec<String> {
        let mut wrongs = self.faults.clone();
        for (truth, (ours, asmts)) in truths.iter().zip(&self.namespaces) {
            for (tool, seen) in [("asmt", ours), ("ASMT", asmts)] {
                match seen {
                    Seen::Nothing if tool == "ASMT" && !truth.is_for_asmt => {}
                    _ if tool == "ASMT" && !truth.is_for_asmt => {
                        wrongs.push(format!("ASMT would restore {seen:?} of '{}', expected nothing", truth.name));
                    }
                    Seen::Wrong(text) => wrongs.push(format!("{tool} would restore a wrong '{}': {text}", truth.name)),
                    Seen::Whole => {}
                    Seen::Older if is_after => {
                        wrongs.push(format!("success was reported, and {tool} would restore the older '{}'", truth.name));
                    }
                    Seen::Older => {}
                    // Only asmt finds a backup that was decided and has not all of its names.
                    Seen::Nothing | Seen::SomeStripes if tool == "ASMT" && truth.older.is_some() && !is_after => {}
                    Seen::Nothing | Seen::SomeStripes if is_after || truth.is_standing => {
                        let since = if truth.is_standing { "backed up before" } else { "success was reported" };
                        wrongs.push(format!("{since}, and {tool} would restore {seen:?} of '{}'", truth.name));
                    }
                    Seen::Nothing | Seen::SomeStripes => {}
                }
            }
        }
        for (truth, mark) in truths.iter().zip(&self.marks) {
            let is_marked = match mark {
                Some(Ok(used)) => match truth.mark {
                    Some(Verb::Retire) => used.retired.is_some(),
                    _ => used.restores.len() == 1,
                },
                Some(Err(text)) => {
                    wrongs.push(format!("the mark of '{}' cannot be read: {text}", truth.name));
                    continue;
                }
                None => false,
            };
            if is_after && truth.mark.is_some() && !is_marked {
                wrongs.push(format!("success was reported, and '{}' is not marked as used", truth.name));
            }
        }
        if is_after && !self.leftovers.is_empty() {
            wrongs.push(format!("success was reported, and {} is left", self.leftovers.join(", ")));
        }
        wrongs
    }
}

/// Examines a mounted state. With `runs_next` it also makes the next backup, instead of only
/// planning it.
pub fn look(root: &Path, truths: &[Truth], runs_next: bool) -> Result<Facts, String> {
    let directory = root.join(DIRECTORY);
    let mut facts =
        Facts { namespaces: Vec::new(), marks: Vec::new(), leftovers: Vec::new(), faults: Vec::new(), has_run_next: false };
    let files = read_all(&directory, &mut facts)?;
    for truth in truths {
        let asmts = asmt::acceptable(&files, 0, truth.name).map_or(Seen::Nothing, |accepted| compare(&accepted, truth));
        facts.namespaces.push((Seen::Nothing, asmts));
        let mark = NamespaceName::new(truth.name).and_then(|name| files.get(&used_name(0, &name)));
        facts.marks.push(mark.map(|bytes| UsageMark::parse(&String::from_utf8_lossy(bytes))));
    }
    if directory.exists() {
        let restored = on_own_memory(|| truths.iter().map(|truth| restore(&directory, truth)).collect::<Result<Vec<_>, _>>())?;
        for (namespace, seen) in facts.namespaces.iter_mut().zip(restored) {
            namespace.0 = seen;
        }
    }
    // Only a whole backup may be in the way of the next backup of the same namespace.
    let open: Vec<&Truth> =
        truths.iter().zip(&facts.namespaces).filter(|(_, seen)| !is_backup(&seen.0)).map(|(truth, _)| truth).collect();
    if !open.is_empty() {
        facts.has_run_next = runs_next;
        facts.faults.extend(next_backup(&directory, &open, runs_next)?);
    }
    Ok(facts)
}

fn is_backup(seen: &Seen) -> bool {
    matches!(seen, Seen::Whole | Seen::Older)
}

/// Reads the files of the directory by name; notes files that do not belong there, or that others
/// may read.
fn read_all(directory: &Path, facts: &mut Facts) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let mut files = BTreeMap::new();
    let Ok(entries) = std::fs::read_dir(directory) else { return Ok(files) };
    let fail = |error: std::io::Error| format!("{}: {error}", directory.display());
    let mode = std::fs::metadata(directory).map_err(fail)?.mode() & 0o7777;
    if mode != 0o700 {
        facts.faults.push(format!("the directory has mode {mode:o}, expected 700"));
    }
    for entry in entries {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let mode = entry.metadata().map_err(fail)?.mode() & 0o7777;
        if mode != 0o600 {
            facts.faults.push(format!("{name} has mode {mode:o}, expected 600"));
        }
        if name.starts_with('.') {
            facts.leftovers.push(name);
        } else {
            files.insert(name, std::fs::read(entry.path()).map_err(fail)?);
        }
    }
    facts.leftovers.sort_unstable();
    Ok(files)
}

fn compare(accepted: &asmt::Accepted, truth: &Truth) -> Seen {
    let seen = compare_with(accepted, truth, &truth.segments);
    match truth.older.as_ref().filter(|_| matches!(seen, Seen::Wrong(_))).map(|older| compare_with(accepted, truth, older)) {
        Some(Seen::Whole) => Seen::Older,
        Some(Seen::SomeStripes) => Seen::SomeStripes,
        _ => seen,
    }
}

fn compare_with(accepted: &asmt::Accepted, truth: &Truth, segments: &BTreeMap<Key, String>) -> Seen {
    for (key, bytes) in &accepted.segments {
        // ASMT restores key, size and contents; it takes owner and mode from the file.
        let expected = segments.get(key).map(|line| line.split(' ').take(3).collect::<Vec<_>>().join(" "));
        let found = format!("{key} {} {:08x}", bytes.len(), crc32fast::hash(bytes));
        if expected.as_ref() != Some(&found) {
            return Seen::Wrong(format!("{found}, expected {}", expected.as_deref().unwrap_or("no such segment")));
        }
    }
    match accepted.segments.len() {
        count if count == segments.len() => Seen::Whole,
        // With index files of the same nsid beside them, it would have refused.
        _ if !accepted.has_base && !truth.has_index_at_nsid_of_stripes() => Seen::SomeStripes,
        count => Seen::Wrong(format!("{count} segments, expected {}", segments.len())),
    }
}

/// Does some work with an empty IPC namespace, which is gone afterwards.
fn on_own_memory<T: Send>(work: impl FnOnce() -> Result<T, String> + Send) -> Result<T, String> {
    on_own_ipc(work).map_err(text_of("no namespace of shared memory", ""))?
}

/// Restores a namespace, and compares the segments.
fn restore(directory: &Path, truth: &Truth) -> Result<Seen, String> {
    // A backup that was retired, or restored on another machine, is still whole. Its mark is
    // checked elsewhere.
    let force_stale = truth.mark == Some(Verb::Retire) || truth.older.is_some();
    let request = Asked { force_stale, ..request(Verb::Restore, directory, &[truth.name]) };
    let outcome = perform(&request.into(), "asmt powercut", &Control::default());
    let found = sums()?;
    let seen = match outcome {
        Err(failure) if failure.error.first().code == Code::Bug => Seen::Wrong(failure.error.to_string()),
        Err(_) if found.is_empty() => Seen::Nothing,
        Err(failure) => Seen::Wrong(format!("{} segments are left after: {}", found.len(), failure.error)),
        // The checksums are in the manifest: without it nothing has been checked.
        Ok(report) if report.namespaces.iter().any(|namespace| namespace.has_manifest != Some(true)) => {
            Seen::Wrong("it was taken without its manifest".to_owned())
        }
        Ok(_) if truth.older.as_ref() == Some(&found) => Seen::Older,
        Ok(_) => first_difference(&found, &truth.segments).map_or(Seen::Whole, Seen::Wrong),
    };
    output_of("remove")?;
    Ok(seen)
}

fn first_difference(found: &BTreeMap<Key, String>, expected: &BTreeMap<Key, String>) -> Option<String> {
    let keys = found.keys().chain(expected.keys());
    let different = keys.into_iter().find(|key| found.get(key) != expected.get(key))?;
    Some(format!("{:?}, expected {:?}", found.get(different), expected.get(different)))
}

/// Returns an error if the next backup would need manual cleanup.
fn next_backup(directory: &Path, truths: &[&Truth], runs_it: bool) -> Result<Option<String>, String> {
    let names: Vec<&str> = truths.iter().map(|truth| truth.name).collect();
    let backup = Asked { analyze: !runs_it, ..request(Verb::Backup, directory, &names) };
    if directory.exists() {
        make_another_runs(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    }
    if let Err(failure) = perform(&backup.into(), "asmt powercut", &Control::default()) {
        return Ok(Some(format!("{} cannot be restored, and the next backup fails: {}", names.join(", "), failure.error)));
    }
    if !runs_it {
        return Ok(None);
    }
    // On one machine: a backup that was restored on one machine counts as used on all others.
    let all = on_own_memory(|| truths.iter().map(|truth| restore(directory, truth)).collect::<Result<Vec<_>, _>>())?;
    for (truth, seen) in truths.iter().zip(all) {
        if seen != Seen::Whole {
            return Ok(Some(format!("the next backup reported success, and {seen:?} of '{}' is restored", truth.name)));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use asmt_engine::format::mark::Identity;

    fn truth(is_standing: bool) -> Truth {
        let mark = None;
        let key = Key(0xad00_1000);
        Truth {
            name: "test",
            segments: BTreeMap::from([(key, format!("{key} 2 {:08x} 0 0 600", crc32fast::hash(b"ab")))]),
            older: None,
            is_standing,
            mark,
            is_for_asmt: true,
        }
    }

    fn facts(ours: Seen, asmts: Seen) -> Facts {
        Facts {
            namespaces: vec![(ours, asmts)],
            marks: vec![None],
            leftovers: Vec::new(),
            faults: Vec::new(),
            has_run_next: false,
        }
    }

    #[test]
    fn nothing_or_all_before_and_all_after() {
        let new = [truth(false)];
        for (seen, before, after) in
            [(Seen::Nothing, 0, 2), (Seen::SomeStripes, 0, 2), (Seen::Whole, 0, 0), (Seen::Wrong("torn".to_owned()), 2, 2)]
        {
            let facts = facts(seen.clone(), seen.clone());
            assert_eq!((facts.wrongs(&new, false).len(), facts.wrongs(&new, true).len()), (before, after), "{seen:?}");
        }
        // A backup that was there before must be there all the time. Leftovers are allowed until
        // success.
        assert_eq!(facts(Seen::Nothing, Seen::Whole).wrongs(&[truth(true)], false).len(), 1);
        // An older backup is as good until success, and only asmt must find either.
        let older = [Truth { older: Some(BTreeMap::new()), ..truth(true) }];
        for (ours, asmts, before, after) in [
            (Seen::Older, Seen::Older, 0, 2),
            (Seen::Whole, Seen::Nothing, 0, 1),
            (Seen::Nothing, Seen::Older, 1, 2),
            (Seen::Whole, Seen::Whole, 0, 0),
        ] {
            let facts = facts(ours, asmts);
            assert_eq!((facts.wrongs(&older, false).len(), facts.wrongs(&older, true).len()), (before, after), "{facts:?}");
        }
        let used = UsageMark::new(&Identity { made_ms: 1, boot_id: None, files: None });
        let mark = |mark| Facts { marks: vec![Some(mark)], ..facts(Seen::Whole, Seen::Whole) };
        let retired = [Truth { mark: Some(Verb::Retire), ..truth(true) }];
        assert_eq!((mark(Ok(used.clone())).wrongs(&retired, false).len(), mark(Ok(used)).wrongs(&retired, true).len()), (0, 1));
        assert_eq!(mark(Err("torn".to_owned())).wrongs(&retired, false).len(), 1);
        let untidy = Facts { leftovers: vec![".asmt-run.x".to_owned()], ..facts(Seen::Whole, Seen::Whole) };
        assert_eq!((untidy.wrongs(&new, false).len(), untidy.wrongs(&new, true).len()), (0, 1));
    }

    #[test]
    fn a_byte_less_a_byte_else_or_a_segment_more_is_wrong() {
        let seen = |segments: &[(u32, &[u8])], has_base| {
            let segments = segments.iter().map(|(key, bytes)| (Key(*key), bytes.to_vec())).collect();
            compare(&asmt::Accepted { segments, has_base }, &truth(false))
        };
        assert_eq!(seen(&[(0xad00_1000, b"ab")], true), Seen::Whole);
        for wrong in [&[(0xad00_1000, &b"a"[..])][..], &[(0xad00_1000, b"ac")], &[(0xad00_1000, b"ab"), (0xad00_1001, b"")]] {
            assert!(matches!(seen(wrong, true), Seen::Wrong(_)), "{wrong:?}");
        }
        assert_eq!((seen(&[], false), matches!(seen(&[], true), Seen::Wrong(_))), (Seen::SomeStripes, true));
    }
}
