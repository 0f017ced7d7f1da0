//! What a state is worth: what asmt and what ASMT would restore of it, and whether that is right.
//!
//! Promise: asmt's verdict is a restore into real shared memory, summed segment by segment; what is
//! true is known from the memory that was backed up. Must never: take a file's or a manifest's word
//! for it.

use crate::asmt;
use crate::scenario::{DIRECTORY, Truth, make_another_runs, request, sums};
use asmt_engine::error::Code;
use asmt_engine::format::mark::{UsageMark, used_name};
use asmt_engine::operations::Asked;
use asmt_engine::operations::report::Verb;
use asmt_engine::perform;
use asmt_engine::progress::Control;
use asmt_shm::{Key, NamespaceName};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What somebody would restore of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing: refused, or not there.
    Nothing,
    /// Some of its stripes, each of them whole, and no index: ASMT takes stripes as they are.
    SomeStripes,
    /// All of it, to the last byte.
    Whole,
    /// Something else.
    Wrong(String),
}

/// What was found in a state.
#[derive(Clone, Debug)]
pub struct Facts {
    /// What asmt, and what ASMT, would restore of each namespace.
    pub namespaces: Vec<(Seen, Seen)>,
    /// How the backup of each is marked, if it is.
    pub marks: Vec<Option<Result<UsageMark, String>>>,
    /// Names in the directory that are no part of a backup.
    pub leftovers: Vec<String>,
    /// What is wrong whatever had happened before.
    pub faults: Vec<String>,
    /// Whether the next backup was done.
    pub has_run_next: bool,
}

/// What must hold.
impl Facts {
    /// What is wrong with the state: with success reported all must be whole and tidy, before that
    /// each namespace must be whole or nothing.
    pub fn wrongs(&self, truths: &[Truth], is_after: bool) -> Vec<String> {
        let mut wrongs = self.faults.clone();
        for (truth, (ours, asmts)) in truths.iter().zip(&self.namespaces) {
            for (tool, seen) in [("asmt", ours), ("ASMT", asmts)] {
                match seen {
                    Seen::Wrong(text) => wrongs.push(format!("{tool} would restore a wrong '{}': {text}", truth.name)),
                    Seen::Whole => {}
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

/// Looks at a mounted state. `runs_next` asks to do the next backup, too, and not only to see that
/// it could be done.
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
    // What is whole is in the way of a backup of the same namespace, and rightly so; nothing else
    // is.
    let open: Vec<&Truth> =
        truths.iter().zip(&facts.namespaces).filter(|(_, seen)| seen.0 != Seen::Whole).map(|(truth, _)| truth).collect();
    if !open.is_empty() {
        facts.has_run_next = runs_next;
        facts.faults.extend(next_backup(&directory, &open, runs_next)?);
    }
    Ok(facts)
}

/// Files of the directory by name; notes what has no business there, or may be read by others.
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
    for (key, bytes) in &accepted.segments {
        // Key, size and sum are what ASMT restores; owner and mode are the file's for it.
        let expected = truth.segments.get(key).map(|line| line.split(' ').take(3).collect::<Vec<_>>().join(" "));
        let found = format!("{key} {} {:08x}", bytes.len(), crc32fast::hash(bytes));
        if expected.as_ref() != Some(&found) {
            return Seen::Wrong(format!("{found}, expected {}", expected.as_deref().unwrap_or("no such segment")));
        }
    }
    match accepted.segments.len() {
        count if count == truth.segments.len() => Seen::Whole,
        // Index files of the same nsid beside them would have made it refuse.
        _ if !accepted.has_base && !truth.has_index_at_nsid_of_stripes() => Seen::SomeStripes,
        count => Seen::Wrong(format!("{count} segments, expected {}", truth.segments.len())),
    }
}

/// Does something with shared memory in which there is nothing, and which is gone afterwards.
fn on_own_memory<T: Send>(work: impl FnOnce() -> Result<T, String> + Send) -> Result<T, String> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: moves this thread, and those it starts, to another IPC namespace; no segment
            // is attached yet.
            if unsafe { libc::unshare(libc::CLONE_NEWIPC) } != 0 {
                return Err(format!("no namespace of shared memory: {}", std::io::Error::last_os_error()));
            }
            work()
        });
        thread.join().unwrap_or_else(|_| Err("a thread panicked".to_owned()))
    })
}

/// Restores a namespace, and compares what came of it.
fn restore(directory: &Path, truth: &Truth) -> Result<Seen, String> {
    // One that is retired is still whole; that it is marked is looked at elsewhere.
    let force_stale = truth.mark == Some(Verb::Retire);
    let request = Asked { force_stale, ..request(Verb::Restore, directory, &[truth.name]) };
    let outcome = perform(&request.into(), "asmt powercut", &Control::default());
    let found = sums()?;
    let seen = match outcome {
        Err(failure) if failure.error.first().code == Code::Bug => Seen::Wrong(failure.error.to_string()),
        Err(_) if found.is_empty() => Seen::Nothing,
        Err(failure) => Seen::Wrong(format!("{} segments are left after: {}", found.len(), failure.error)),
        // Its checksums are part of it: without them nothing had been checked.
        Ok(report) if report.namespaces.iter().any(|namespace| namespace.has_manifest != Some(true)) => {
            Seen::Wrong("it was taken without its manifest".to_owned())
        }
        Ok(_) => first_difference(&found, &truth.segments).map_or(Seen::Whole, Seen::Wrong),
    };
    crate::scenario::sim("remove")?;
    Ok(seen)
}

fn first_difference(found: &BTreeMap<Key, String>, expected: &BTreeMap<Key, String>) -> Option<String> {
    let keys = found.keys().chain(expected.keys());
    let different = keys.into_iter().find(|key| found.get(key) != expected.get(key))?;
    Some(format!("{:?}, expected {:?}", found.get(different), expected.get(different)))
}

/// Whether the next backup needs no hand laid on.
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
    // On one machine: what is restored on one counts as used for all others.
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
            is_standing,
            mark,
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
        // What was there before must be there all the time; what is left over may be so until
        // success.
        assert_eq!(facts(Seen::Nothing, Seen::Whole).wrongs(&[truth(true)], false).len(), 1);
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
