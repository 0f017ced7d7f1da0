//! The weakest file system that POSIX allows: only what an fsync named is durable, and any part of
//! the rest may be there, in any order. Real file systems promise more, and so hide a missing
//! fsync.
//!
//! Promise: a state has every entry and content that was made durable. Of each later change of an
//! entry it has all or nothing, of each later content all, nothing or a part. A rename happens or
//! does not. Must never: need root.
//!
//! It watches the engine's calls from inside: at each call it looks at the directory, and takes the
//! differences from the durable state for changes that may be lost.

use crate::scenario::{DIRECTORY, NEVER_HALF_PUBLISHED, Runner, Scenario, is_half_published, make_another_runs};
use asmt_engine::format::journal::Journal;
use asmt_engine::sys::fsync::switch::{self, Call, DirectIo};
use asmt_kit::dice::Dice;
use asmt_kit::text_of;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::hash::{Hash, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// A directory: whether it exists, names with inodes, contents by inode.
#[derive(Clone, Default)]
pub struct Snapshot {
    is_there: bool,
    names: BTreeMap<String, u64>,
    contents: HashMap<u64, Arc<Vec<u8>>>,
}

impl Snapshot {
    fn take(directory: &Path) -> io::Result<Self> {
        let mut snapshot = Self::default();
        let entries = match std::fs::read_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(snapshot),
            other => other?,
        };
        snapshot.is_there = true;
        for entry in entries {
            let entry = entry?;
            let inode = entry.metadata()?.ino();
            snapshot.names.insert(entry.file_name().to_string_lossy().into_owned(), inode);
            snapshot.contents.insert(inode, Arc::new(std::fs::read(entry.path())?));
        }
        Ok(snapshot)
    }
}

/// The directory at the moment of a call.
struct Moment {
    call: Call,
    snapshot: Snapshot,
}

/// A run that was watched.
pub struct Watched {
    directory_inode: u64,
    at_start: Snapshot,
    moments: Vec<Moment>,
    at_success: Snapshot,
}

/// A state that a power cut may leave.
pub struct State {
    /// Number of the call before which the power was cut.
    pub before_call: usize,
    /// Success had been reported.
    pub is_after: bool,
    /// The directory.
    snapshot: Snapshot,
}

/// A change that may be lost.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    /// The directory was made.
    Directory,
    /// An entry appeared, disappeared, or both (a rename).
    Entry { gone: Option<String>, new: Option<(String, u64)> },
    /// Contents were written.
    Contents(u64),
}

/// Runs the commands of a scenario in a directory below `root`, with one fsync taken out.
pub fn watch(scenario: &Scenario, root: &Path, taken_out: Option<usize>) -> Result<Watched, String> {
    let directory = root.join(DIRECTORY);
    let _ = std::fs::remove_dir_all(&directory);
    scenario.run_before(&Runner::Engine, &directory)?;
    if scenario.is_after_interruption {
        let whole = watch_steps(scenario, &directory, None)?;
        let of_interest = |moment: &&Moment| is_half_published(moment.snapshot.names.keys());
        let moment = whole.moments.iter().find(of_interest).ok_or(NEVER_HALF_PUBLISHED)?;
        State { before_call: 0, is_after: false, snapshot: moment.snapshot.clone() }
            .lay_out(root)
            .and_then(|()| make_another_runs(&directory))
            .map_err(text_of("cannot lay out a state", ""))?;
    }
    let watched = watch_steps(scenario, &directory, taken_out)?;
    std::fs::remove_dir_all(&directory).map_err(text_of("cannot remove the directory", ""))?;
    Ok(watched)
}

fn watch_steps(scenario: &Scenario, directory: &Path, taken_out: Option<usize>) -> Result<Watched, String> {
    let at_start = Snapshot::take(directory).map_err(text_of("cannot look at the directory", ""))?;
    let moments: Arc<Mutex<Vec<io::Result<Moment>>>> = Arc::default();
    let (seen, seen_directory) = (Arc::clone(&moments), directory.to_owned());
    let watcher = move |call: &Call| {
        let moment = Snapshot::take(&seen_directory).map(|snapshot| Moment { call: call.clone(), snapshot });
        seen.lock().unwrap_or_else(PoisonError::into_inner).push(moment);
    };
    switch::set(taken_out, DirectIo::AsIs, Some(Box::new(watcher)));
    let outcome = scenario.steps.iter().try_for_each(|step| step.run(&Runner::Engine, directory));
    switch::set(None, DirectIo::AsIs, None);
    outcome?;
    let moments = std::mem::take(&mut *moments.lock().unwrap_or_else(PoisonError::into_inner));
    let moments = moments.into_iter().collect::<io::Result<_>>().map_err(text_of("cannot look at the directory", ""))?;
    let at_success = Snapshot::take(directory).map_err(text_of("cannot look at the directory", ""))?;
    let directory_inode = std::fs::metadata(directory).map_err(text_of("cannot look at the directory", ""))?.ino();
    Ok(Watched { directory_inode, at_start, moments, at_success })
}

impl Watched {
    /// The purpose of each call.
    pub fn calls(&self) -> Vec<&str> {
        self.moments.iter().map(|moment| moment.call.what.as_str()).collect()
    }

    /// Calls `visit` once for each state that a power cut may leave, before each call and after
    /// success.
    pub fn each_state<E>(&self, subsets: usize, dice: &mut Dice, visit: &mut dyn FnMut(State) -> Result<(), E>) -> Result<(), E> {
        let mut durable = self.at_start.clone();
        let mut known = BTreeSet::new();
        let last = (None, &self.at_success);
        let moments = self.moments.iter().map(|moment| (Some(&moment.call), &moment.snapshot)).chain([last]);
        for (before_call, (call, now)) in moments.enumerate() {
            let changes = changes(&durable, now);
            for kept in parts(changes.len(), subsets, dice) {
                let snapshot = part(&durable, now, &changes, &kept, dice);
                if known.insert((snapshot.number(), call.is_none())) {
                    visit(State { before_call, is_after: call.is_none(), snapshot })?;
                }
            }
            if let Some(call) = call.filter(|call| !call.is_taken_out) {
                durable.make_durable(now, call, self.directory_inode);
            }
        }
        Ok(())
    }
}

impl Snapshot {
    fn make_durable(&mut self, now: &Self, call: &Call, directory_inode: u64) {
        if let Some(contents) = now.contents.get(&call.inode).filter(|_| !call.is_directory) {
            self.contents.insert(call.inode, Arc::clone(contents));
        } else if call.is_directory && call.inode == directory_inode {
            self.names.clone_from(&now.names);
        } else if call.is_directory {
            // The parent was made durable.
            self.is_there = now.is_there;
        }
    }

    fn number(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.is_there.hash(&mut hasher);
        for (name, inode) in self.names.iter().filter(|_| self.is_there) {
            (name, inode, self.contents.get(inode)).hash(&mut hasher);
        }
        hasher.finish()
    }
}

/// The differences between the durable directory and the current one.
fn changes(durable: &Snapshot, now: &Snapshot) -> Vec<Change> {
    let mut changes = Vec::new();
    if now.is_there && !durable.is_there {
        changes.push(Change::Directory);
    }
    let mut gone: Vec<(&String, u64)> = durable
        .names
        .iter()
        .filter(|(name, inode)| now.names.get(*name) != Some(*inode))
        .map(|(name, inode)| (name, *inode))
        .collect();
    for (name, inode) in now.names.iter().filter(|(name, inode)| durable.names.get(*name) != Some(*inode)) {
        let from = gone.iter().position(|(_, other)| other == inode).map(|at| gone.remove(at).0.clone());
        changes.push(Change::Entry { gone: from, new: Some((name.clone(), *inode)) });
    }
    changes.extend(gone.into_iter().map(|(name, _)| Change::Entry { gone: Some(name.clone()), new: None }));
    let inodes: BTreeSet<u64> = now.names.values().copied().collect();
    let is_new = |inode: &u64| durable.contents.get(inode) != now.contents.get(inode);
    changes.extend(inodes.into_iter().filter(is_new).map(Change::Contents));
    changes
}

/// None of the changes, all of them, each alone, all but each, and random ones.
fn parts(count: usize, subsets: usize, dice: &mut Dice) -> Vec<Vec<bool>> {
    let mut chosen: Vec<Vec<bool>> = vec![vec![false; count], vec![true; count]];
    for index in 0..count {
        chosen.push((0..count).map(|other| other == index).collect());
        chosen.push((0..count).map(|other| other != index).collect());
    }
    for _ in 0..if count > 1 { subsets } else { 0 } {
        let quarters = dice.below(4);
        chosen.push((0..count).map(|_| dice.below(4) <= quarters).collect());
    }
    chosen
}

fn part(durable: &Snapshot, now: &Snapshot, changes: &[Change], kept: &[bool], dice: &mut Dice) -> Snapshot {
    let mut state = durable.clone();
    for (change, is_kept) in changes.iter().zip(kept) {
        match change {
            Change::Directory => state.is_there = *is_kept,
            Change::Entry { gone, new } if *is_kept => {
                if let Some(name) = gone {
                    state.names.remove(name);
                }
                state.names.extend(new.clone());
            }
            Change::Entry { .. } => {}
            Change::Contents(inode) => {
                let whole = &now.contents[inode];
                let contents = match (is_kept, dice.below(4)) {
                    (true, _) => Arc::clone(whole),
                    // The old contents; a file that was never durable is empty.
                    (false, 0 | 1) => durable.contents.get(inode).map_or_else(Arc::default, Arc::clone),
                    // The size alone, with zeros; or the first half.
                    (false, 2) => Arc::new(vec![0; whole.len()]),
                    (false, _) => Arc::new(whole[..whole.len() / 2].to_vec()),
                };
                state.contents.insert(*inode, contents);
            }
        }
    }
    state
}

impl State {
    /// Makes it in a directory below `root`, in place of the one that is there.
    pub fn lay_out(&self, root: &Path) -> io::Result<()> {
        let directory = root.join(DIRECTORY);
        match std::fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        if !self.snapshot.is_there {
            return Ok(());
        }
        DirBuilder::new().mode(0o700).create(&directory)?;
        std::fs::set_permissions(&directory, Permissions::from_mode(0o700))?;
        let mut inodes = HashMap::new();
        let mut files = Vec::new();
        for (name, inode) in &self.snapshot.names {
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(directory.join(name))?;
            inodes.insert(*inode, file.metadata()?.ino());
            files.push((file, self.snapshot.contents.get(inode).map_or_else(Arc::default, Arc::clone)));
        }
        for (mut file, contents) in files {
            file.write_all(&with_inodes(&contents, &inodes).unwrap_or_else(|| contents.to_vec()))?;
        }
        Ok(())
    }
}

/// Replaces the inodes in a journal by those that the files have here. `None` if it is no journal.
fn with_inodes(contents: &[u8], inodes: &HashMap<u64, u64>) -> Option<Vec<u8>> {
    let mut journal: Journal = contents.starts_with(b"{\"namespaces\"").then(|| serde_json::from_slice(contents).ok())??;
    for (_, inode) in journal.namespaces.iter_mut().chain(&mut journal.replaced).flat_map(|namespace| &mut namespace.files) {
        *inode = inodes.get(inode).copied().unwrap_or(0);
    }
    serde_json::to_vec(&journal).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::SCENARIOS;
    use crate::states::dice_of;
    use asmt_kit::files::Scratch;
    use asmt_kit::namespaces::on_own_ipc;

    fn snapshot(files: &[(&str, u64, &[u8])]) -> Snapshot {
        Snapshot {
            is_there: true,
            names: files.iter().map(|(name, inode, _)| ((*name).to_owned(), *inode)).collect(),
            contents: files.iter().map(|(_, inode, bytes)| (*inode, Arc::new(bytes.to_vec()))).collect(),
        }
    }

    #[test]
    fn a_rename_is_one_change_and_contents_are_another() {
        let durable = snapshot(&[("tmp", 1, b"old"), ("gone", 2, b"x"), ("same", 3, b"y")]);
        let now = snapshot(&[("final", 1, b"new"), ("same", 3, b"y"), ("made", 4, b"z")]);
        let found = changes(&durable, &now);
        let entry = |gone: Option<&str>, new: Option<(&str, u64)>| Change::Entry {
            gone: gone.map(str::to_owned),
            new: new.map(|(name, inode)| (name.to_owned(), inode)),
        };
        let expected = [
            entry(Some("tmp"), Some(("final", 1))),
            entry(None, Some(("made", 4))),
            entry(Some("gone"), None),
            Change::Contents(1),
            Change::Contents(4),
        ];
        assert_eq!(found, expected);
        let (none, all) = (vec![false; 5], vec![true; 5]);
        let mut dice = dice_of(1);
        assert_eq!(part(&durable, &now, &found, &all, &mut dice).number(), now.number());
        assert_eq!(part(&durable, &now, &found, &none, &mut dice).names, durable.names);
    }

    #[test]
    fn what_is_durable_is_in_every_state() {
        let empty = Snapshot::default();
        let call = |what: &str, inode: u64, is_directory, is_taken_out| Call {
            what: what.to_owned(),
            inode,
            is_directory,
            is_taken_out,
        };
        let states = |taken_out: Option<usize>| {
            let steps = [("parent", 9, true), ("file", 1, false), ("names", 8, true)];
            let now = snapshot(&[("file", 1, b"bytes")]);
            let moments = steps.iter().enumerate().map(|(number, (what, inode, is_directory))| Moment {
                call: call(what, *inode, *is_directory, taken_out == Some(number)),
                snapshot: if number == 0 { snapshot(&[]) } else { now.clone() },
            });
            let watched =
                Watched { directory_inode: 8, at_start: empty.clone(), moments: moments.collect(), at_success: now.clone() };
            let mut states = Vec::new();
            let mut keep = |state| {
                states.push(state);
                Ok::<(), ()>(())
            };
            watched.each_state(8, &mut dice_of(5), &mut keep).expect("states");
            states
        };
        let is_whole = |state: &State| state.snapshot.number() == snapshot(&[("file", 1, b"bytes")]).number();
        let after = |taken_out| states(taken_out).into_iter().filter(|state| state.is_after).collect::<Vec<_>>();
        assert_eq!((after(None).len(), after(None).iter().all(is_whole)), (1, true));
        for taken_out in 0..3 {
            assert!(!after(Some(taken_out)).iter().all(is_whole), "call {taken_out} is needed");
        }
        assert!(states(None).len() > 4);
    }

    #[test]
    fn a_journal_follows_its_files() {
        let text = br#"{"namespaces":[{"namespace":"test","files":[["ae001000.dat",7],["ae001001.dat",8]]}]}"#;
        let moved = with_inodes(text, &HashMap::from([(7, 70)])).expect("a journal");
        assert_eq!(moved, br#"{"namespaces":[{"namespace":"test","files":[["ae001000.dat",70],["ae001001.dat",0]]}]}"#);
        assert_eq!(with_inodes(&text[..20], &HashMap::new()), None);
    }

    /// The number of faults in the states that the model leaves of a scenario, with the fsync for
    /// `what` taken out.
    fn wrongs(name: &'static str, what: Option<&'static str>) -> usize {
        // The process has one switch.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let run = || {
            let scratch = Scratch::new("powercut-model");
            let root = scratch.path();
            let scenario = SCENARIOS.iter().find(|scenario| scenario.name == name).expect(name);
            let truths = scenario.fill_memory().expect("segments");
            let whole = watch(scenario, root, None).expect("a run");
            let number = what.map(|what| whole.calls().iter().position(|call| *call == what).expect(what));
            let watched = if number.is_some() { watch(scenario, root, number).expect("a run") } else { whole };
            let mut count = 0;
            let mut look = |state: State| {
                state.lay_out(root).map_err(|error| error.to_string())?;
                count += crate::judge::look(root, &truths, false)?.wrongs(&truths, state.is_after).len();
                Ok::<(), String>(())
            };
            watched.each_state(2, &mut dice_of(1), &mut look).expect("states");
            count
        };
        on_own_ipc(run).expect("a new IPC namespace needs root")
    }

    /// Found by the power loop: an empty manifest (ext4, btrfs) made asmt refuse a backup that it
    /// had reported as done, and an empty journal left files in the way of the next one.
    #[test]
    fn manifest_and_journal_are_durable_before_they_are_named() {
        assert_eq!(wrongs("beside", None), 0);
        assert!(wrongs("beside", Some("asmt-manifest-0-new.json")) > 0);
        assert!(wrongs("beside", Some("journal")) > 0);
    }

    #[test]
    fn a_directory_that_a_backup_has_made_is_durable_in_its_parent() {
        assert_eq!(wrongs("stripes", None), 0);
        assert!(wrongs("stripes", Some("the directory itself, in its parent")) > 0);
    }

    #[test]
    fn an_older_backup_is_there_until_the_journal_has_decided() {
        assert_eq!((wrongs("replaced", None), wrongs("replaced-z", None), wrongs("outdated", None)), (0, 0, 0));
        assert!(wrongs("replaced", Some("the journal, which decides")) > 0);
    }

    /// Found by the power loop: a dead run's journal could be gone before files that it accounted
    /// for, and those were in the way of every later backup.
    #[test]
    fn a_dead_runs_files_are_accounted_for_until_they_are_gone() {
        assert_eq!((wrongs("again", None), wrongs("superseded", None)), (0, 0));
        assert!(wrongs("again", Some("removals")) > 0);
    }
}
