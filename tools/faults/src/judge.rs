//! The conditions that must hold after a run, whatever has happened to it.
//!
//! Promise: there is one judgement for all loops. It looks at memory, directory and runtime
//! directory, restores the backup that is there, and does the next run without manual cleanup. Must
//! never: know beforehand what to find, apart from the end of the run.

use crate::world::{Old, Outcome, World, backup_names, perform_here, remove_all_but, sums};
use asmt_engine::error::Kind;
use asmt_engine::format::Form;
use asmt_engine::format::journal::JOURNAL_PREFIX;
use asmt_engine::operations::report::Verb;
use asmt_kit::files::names;
use asmt_shm::{Header, SHUTDOWN_CLEAN};
use std::collections::BTreeSet;

/// The exceptions that are allowed after a run. Everything else follows from its report.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allowance {
    /// A removal failed: its object may be left, if that was reported.
    pub removal_failed: bool,
    /// Another process took the directory away after the commit had begun: the backup may be gone.
    pub directory_taken: bool,
    /// There was a whole backup before the run.
    pub has_backup: bool,
    /// A killed run came before it: leftovers of that run may still be there.
    pub follows_kill: bool,
}

impl World {
    /// Judges the state after a run. Returns every way in which it is wrong. The world must be
    /// reset afterwards.
    pub fn judge(&self, outcome: &Outcome, allowance: Allowance) -> Vec<String> {
        let mut wrong = Wrong(Vec::new());
        wrong.unless(!outcome.ended.is_endless, || "it did not end".to_owned());
        wrong
            .unless(outcome.word() != "silent", || format!("it ended by {:?} and said nothing: {}", outcome.ended, outcome.text));
        wrong.unless(!outcome.problems.iter().any(|told| told.kind == "bug"), || {
            format!("it called itself a bug: {}", outcome.text)
        });
        match self.scenario().verb {
            Verb::Backup if self.scenario().old != Old::None => self.judge_replacing(outcome, allowance, &mut wrong),
            Verb::Backup => self.judge_writing(outcome, allowance, &mut wrong),
            Verb::Export => {
                wrong.same("names of the exported backup", &names(&self.exported_directory()), self.exported());
                self.judge_writing(outcome, allowance, &mut wrong);
                let read = perform_here(Verb::Verify, &self.exported_directory(), Form::Plain);
                wrong.unless(read.is_ok(), || "the exported backup is no longer whole".to_owned());
            }
            Verb::Restore => self.judge_restore(outcome, allowance, &mut wrong),
            Verb::Verify | Verb::List | Verb::Retire | Verb::Preflight => self.judge_reading(&mut wrong),
        }
        // The record of the segments that a finished restore has made is kept.
        let is_kept = |name: &String| name.ends_with(".lock") || name.starts_with("restored-");
        let journals: Vec<String> = names(&self.runtime()).into_iter().filter(|name| !is_kept(name)).collect();
        wrong.unless(journals.is_empty(), || format!("left in the runtime directory: {journals:?}"));
        wrong.0
    }

    /// Judges a backup, or an export.
    fn judge_writing(&self, outcome: &Outcome, allowance: Allowance, wrong: &mut Wrong) {
        self.enter_server();
        wrong.same("the server's segments", &sums(), &self.server_sums());
        let left = names(&self.directory());
        let is_whole = self.whole().is_subset(&left);
        if outcome.is_done {
            wrong.unless(is_whole || allowance.directory_taken, || format!("it said that it is done, and there is {left:?}"));
        } else if !outcome.is_killed() && !left.is_empty() && !allowance.has_backup && !allowance.follows_kill {
            wrong.unless(allowance.removal_failed, || format!("it failed, and left {left:?}"));
            wrong.unless(is_told(outcome), || format!("it left {left:?}, and did not say so: {}", outcome.text));
        }
        // The backup that our restore accepts, on a machine that knows nothing.
        let (restored, found) = self.restore_elsewhere();
        match &restored {
            Ok(()) => {
                let is_namespaces = self.namespaces().iter().all(|all| all.is_subset(&found) || all.is_disjoint(&found));
                let is_only = found.is_subset(&self.server_sums());
                wrong.unless(is_namespaces && is_only && !found.is_empty(), || {
                    format!("what is there was restored, and is not what was in memory: {found:?}")
                });
                wrong.unless(!outcome.is_done || found == self.server_sums(), || format!("not all came back: {found:?}"));
                let may_be = outcome.is_done || outcome.is_killed() || allowance.removal_failed || allowance.has_backup;
                wrong.unless(may_be, || "it failed, and there is a backup".to_owned());
            }
            Err(failure) => {
                wrong.unless(!outcome.is_done || allowance.directory_taken, || {
                    format!("it is done, and cannot be restored: {}", failure.error)
                });
                wrong.unless(found.is_empty(), || format!("a refused restore left {found:?}"));
                let kinds = [Kind::Damaged, Kind::Usage, Kind::NothingToDo];
                wrong.unless(kinds.contains(&failure.error.first().kind), || format!("restore refuses by {}", failure.error));
                // ASMT accepts a namespace that has base. So if base is there, everything must be
                // there.
                let bases = left.iter().filter(|name| name.starts_with("ae") && name.ends_with("000.dat")).count();
                let is_partial = bases > 0 && bases < self.namespaces().len();
                wrong.unless(bases == 0 || is_partial, || format!("base is there, and restore refuses: {}", failure.error));
            }
        }
        // The next run, without manual cleanup.
        self.enter();
        match self.write_here() {
            Ok(()) => {
                wrong.unless(!is_whole, || "a whole backup was replaced by the next".to_owned());
                wrong.same("names after the next backup", &backup_names(&self.directory()), self.whole());
            }
            Err(failure) => {
                let is_exists = failure.error.problems().iter().all(|problem| problem.code.as_str() == "backup-exists");
                wrong.unless(is_whole && is_exists, || format!("the next run fails: {}", failure.error));
            }
        }
        let (restored, found) = self.restore_elsewhere();
        if let Err(failure) = restored {
            wrong.0.push(format!("the next backup cannot be restored: {}", failure.error));
        }
        wrong.same("what the next backup brings back", &found, &self.server_sums());
        self.enter_server();
        wrong.same("the server's segments after the next backup", &sums(), &self.server_sums());
    }

    /// Judges a backup that replaces an older one.
    fn judge_replacing(&self, outcome: &Outcome, allowance: Allowance, wrong: &mut Wrong) {
        self.enter_server();
        wrong.same("the server's segments", &sums(), &self.server_sums());
        let (left, old) = (backup_names(&self.directory()), backup_names(&self.old_directory()));
        // A run that has failed after its decision says so.
        let is_decided = outcome.problems.iter().any(|told| told.hint.starts_with("the new backup is whole"));
        if outcome.is_done {
            // What is left of a journal that could not be removed is the next run's to remove.
            let is_journal = |name: &&String| allowance.removal_failed && name.starts_with(JOURNAL_PREFIX);
            let of_backup = left.iter().filter(|name| !is_journal(name)).cloned().collect();
            wrong.same("names after a run that said it is done", &of_backup, self.whole());
        } else if !outcome.is_killed() && !allowance.removal_failed && !allowance.follows_kill && !is_decided {
            let is_gone = self.scenario().old == Old::Retired && left.is_empty();
            wrong.unless(is_gone || left == old || is_told(outcome), || format!("it failed, and left {left:?}"));
        }
        // On a machine that knows nothing.
        let (restored, found) = self.restore_elsewhere();
        match restored {
            Ok(()) => wrong.same("what is restored", &found, &self.server_sums()),
            Err(failure) => {
                wrong.unless(found.is_empty(), || format!("a refused restore left {found:?}"));
                let is_fair = self.scenario().old == Old::Retired && !outcome.is_done && !is_decided;
                wrong.unless(is_fair, || format!("there is no good backup: {}", failure.error));
                let kinds = [Kind::Stale, Kind::Damaged, Kind::Usage, Kind::NothingToDo];
                wrong.unless(kinds.contains(&failure.error.first().kind), || format!("restore refuses by {}", failure.error));
            }
        }
        // The next run, without manual cleanup.
        self.enter();
        if let Err(failure) = self.write_here() {
            wrong.0.push(format!("the next run fails: {}", failure.error));
        }
        wrong.same("names after the next backup", &backup_names(&self.directory()), self.whole());
        let (restored, found) = self.restore_elsewhere();
        if let Err(failure) = restored {
            wrong.0.push(format!("the next backup cannot be restored: {}", failure.error));
        }
        wrong.same("what the next backup brings back", &found, &self.server_sums());
        self.enter_server();
        wrong.same("the server's segments after the next backup", &sums(), &self.server_sums());
    }

    fn judge_restore(&self, outcome: &Outcome, allowance: Allowance, wrong: &mut Wrong) {
        self.enter_spare();
        let found = sums();
        wrong.unless(self.others().is_subset(&found), || format!("others' segments have changed: {found:?}"));
        let made: BTreeSet<String> = found.difference(self.others()).cloned().collect();
        let expected = self.server_sums();
        if outcome.is_done {
            wrong.same("what it said it has restored", &made, &expected);
            let is_marked = names(&self.directory()).iter().any(|name| asmt_engine::format::mark::is_used_name(name));
            wrong.unless(is_marked, || "it said that it is done, and the backup is not marked as used".to_owned());
        } else if !outcome.is_killed() && !made.is_empty() && !allowance.follows_kill {
            wrong.unless(allowance.removal_failed, || format!("it failed, and left {made:?}"));
            wrong.unless(is_told(outcome), || format!("it left segments, and did not say so: {}", outcome.text));
        }
        for name in trusted_names() {
            let whole =
                self.namespaces().iter().any(|all| all.is_subset(&made) && all.iter().any(|line| is_base_of(line, &name)));
            wrong.unless(whole, || format!("a start would trust namespace '{name}', and there is {made:?}"));
        }
        if !outcome.is_killed() && !allowance.follows_kill && !allowance.removal_failed {
            wrong.same("names of the backup", &backup_names(&self.directory()), self.whole());
        }
        let is_complete = made == expected;
        match perform_here(Verb::Restore, &self.directory(), Form::Plain) {
            Ok(()) => wrong.unless(!outcome.is_done, || "it was restored once more over what was there".to_owned()),
            Err(failure) => {
                let is_exists = failure
                    .error
                    .problems()
                    .iter()
                    .all(|problem| matches!(problem.code.as_str(), "segments-exist" | "already-in-memory"));
                // Some of several namespaces may be complete. They are in the way like any other
                // segments.
                let is_in_the_way = is_exists && self.namespaces().iter().any(|all| all.is_subset(&made));
                wrong.unless(is_in_the_way || is_complete && is_exists, || format!("the next restore fails: {}", failure.error));
                if is_in_the_way && !is_complete {
                    remove_all_but(self.others());
                    let again = perform_here(Verb::Restore, &self.directory(), Form::Plain);
                    wrong.unless(again.is_ok(), || "the restore after that fails".to_owned());
                }
            }
        }
        let made: BTreeSet<String> = sums().difference(self.others()).cloned().collect();
        wrong.same("what the next restore makes", &made, &expected);
        wrong.same("names of the backup after the next restore", &backup_names(&self.directory()), self.whole());
    }

    fn judge_reading(&self, wrong: &mut Wrong) {
        self.enter_server();
        wrong.same("the server's segments", &sums(), &self.server_sums());
        self.enter_spare();
        wrong.same("others' segments", &sums(), self.others());
        if self.scenario().verb == Verb::Verify {
            wrong.same("names of the backup", &backup_names(&self.directory()), self.whole());
            let again = perform_here(Verb::Verify, &self.directory(), Form::Plain);
            wrong.unless(again.is_ok(), || "the next verify fails".to_owned());
        }
    }
}

fn is_told(outcome: &Outcome) -> bool {
    outcome.problems.iter().any(|told| told.message.contains("while cleaning up"))
}

/// Keys of the bases that a start would trust, without those of others.
fn trusted_names() -> Vec<String> {
    let inventory = asmt_engine::look::segments::take().expect("an inventory");
    let trusted = inventory.segments.values().filter_map(|segment| match &segment.header {
        Header::Base(base) if base.shutdown == SHUTDOWN_CLEAN && segment.address.nsid != 3 => Some(format!("{}", segment.key())),
        _ => None,
    });
    trusted.collect()
}

fn is_base_of(line: &str, key: &str) -> bool {
    line.starts_with(key)
}

struct Wrong(Vec<String>);

impl Wrong {
    fn unless(&mut self, holds: bool, text: impl FnOnce() -> String) {
        if !holds {
            self.0.push(text());
        }
    }

    fn same(&mut self, what: &str, found: &BTreeSet<String>, expected: &BTreeSet<String>) {
        self.unless(found == expected, || {
            let (more, fewer): (Vec<_>, Vec<_>) = (found.difference(expected).collect(), expected.difference(found).collect());
            format!("{what}: unexpected {more:?}, missing {fewer:?}")
        });
    }
}
