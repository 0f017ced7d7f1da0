//! The events in which asmt runs: the request, the outcome, and the oracle's judgement.

use crate::asmt::{Call, Naming, Outcome};
use crate::disk::Head;
use crate::events::Ask;
use crate::memory::{self, Sums};
use crate::oracle::{Judgement, Restore, id_of, known_disks, knows_log};
use crate::server::{Memory, Namespace};
use crate::world::{Attempt, Backup, World};
use asmt_engine::format::Form;
use asmt_engine::operations::report::Verb;
use std::collections::BTreeMap;

/// Problems with memory as it is now, which a verification does not look at.
const OF_MEMORY: [&str; 8] = [
    "made-since",
    "segments-exist",
    "already-in-memory",
    "segment-attached",
    "segments-not-kept",
    "not-enough-memory",
    "system-limit",
    "another-asmt",
];

impl World<'_> {
    fn run(&mut self, call: &Call) -> Outcome {
        let outcome = call.run(self.host, &self.machine);
        self.counts.run(call.verb, call.is_analysis, outcome.exit);
        if outcome.exit == Some(70) {
            self.wrong.push(format!("bug: {}", outcome.words()));
        }
        outcome
    }

    fn shown(&self, ask: &Ask) -> String {
        let server = &self.servers[ask.server];
        let namespace = ask.namespace.map_or("all".to_owned(), |at| server.namespaces[at].place.name.clone());
        let way = ask.way.map_or("mistyped".to_owned(), |way| format!("{way:?}"));
        let proof = if ask.require_proof { ", --require-proof" } else { "" };
        format!("{namespace} of instance {}, directory {}, configuration: {way}{proof}", server.instance, ask.vault)
    }

    /// The namespaces of a request, by number and name.
    fn asked(&self, ask: &Ask) -> Vec<(usize, String)> {
        let all = self.servers[ask.server].namespaces.iter().enumerate();
        let asked = all.filter(|(at, _)| ask.namespace.is_none_or(|own| own == *at));
        asked.map(|(at, namespace)| (at, namespace.place.name.clone())).collect()
    }

    /// Returns true if the directory has a backup of a namespace with something in memory, which
    /// would be in the way.
    fn is_taken(&self, ask: &Ask) -> bool {
        let server = &self.servers[ask.server];
        let has_memory = |backup: &&Backup| server.namespaces[backup.namespace].memory != Memory::None;
        self.vaults[ask.vault].of(server.instance, ask.namespace).iter().any(has_memory)
    }

    /// Makes a backup. Backups that are in its way are mostly moved away first.
    pub fn back_up(&mut self, ask: &Ask) -> String {
        let asked = self.asked(ask);
        let instance = self.servers[ask.server].instance;
        let mut told = format!("backup of {}", self.shown(ask));
        if !self.vaults[ask.vault].of(instance, ask.namespace).is_empty() && self.dice.chance(85) {
            let keeps_marks = self.dice.chance(30);
            self.vaults[ask.vault].clear(instance, &asked, keeps_marks);
            told = format!("{told}; the old one is moved away{}", if keeps_marks { ", its marks are not" } else { "" });
        }
        let mut call = self.call(Verb::Backup, ask);
        call.form = match self.dice.below(10) {
            0..=2 => Form::Gzip,
            3..=5 => Form::Columns,
            _ => Form::Plain,
        };
        let outcome = self.run(&call);
        self.judge_backup(ask, &call.naming, &outcome);
        // The notes about older backups are judged by a later restore.
        let (event, here) = (self.event, self.machine.here);
        self.vaults[ask.vault].look_for_marks(event, here);
        if outcome.is_done() {
            // Without its manifest, a backup in columns is none.
            let is_asmts = self.dice.chance(8) && call.form != Form::Columns;
            for (at, name) in asked {
                self.note_backup(ask, at, &call.naming);
                if is_asmts {
                    self.make_asmts(ask, at, &name);
                }
            }
            if is_asmts {
                told.push_str(", as ASMT makes it");
            }
        }
        self.check_memory_unchanged(&outcome);
        format!("{told}: {}", outcome.words())
    }

    fn judge_backup(&mut self, ask: &Ask, naming: &Naming, outcome: &Outcome) {
        let server = &self.servers[ask.server];
        let asked = self.asked(ask);
        let asked = || asked.iter().map(|(at, _)| &server.namespaces[*at]);
        // A namespace without anything in memory is not backed up.
        let complete = asked().filter(|namespace| matches!(namespace.memory, Memory::Complete(_))).count();
        let has_partial = asked().any(|namespace| !matches!(namespace.memory, Memory::Complete(_) | Memory::None));
        // A server that runs without a namespace leaves its segments alone.
        let is_used = asked().any(|namespace| namespace.is_configured && namespace.memory != Memory::None);
        let is_in_use = server.is_running() && is_used;
        let may_be = complete > 0 && !has_partial && !is_in_use && !self.is_taken(ask);
        let must_be = may_be && !server.is_running() && complete == asked().count() && self.is_backup_plain(ask, naming);
        if outcome.is_done() && !may_be {
            self.wrong.push("backup: it is done of what is not all there, or over what was there".to_owned());
        } else if !outcome.is_done() && must_be {
            self.wrong.push(format!("backup: refused where all is in order: {}", outcome.words()));
        }
    }

    /// Returns true if there is no reason at all to refuse a backup.
    fn is_backup_plain(&self, ask: &Ask, naming: &Naming) -> bool {
        let server = &self.servers[ask.server];
        let heads: Vec<Option<Head>> = known_disks(server, naming).iter().map(|disk| server.disks[*disk].head()).collect();
        let is_trusted = heads.iter().all(|head| head.is_some_and(|head| head.is_trusted));
        let all_complete = server.namespaces.iter().all(|of| of.is_configured && matches!(of.memory, Memory::Complete(_)));
        let is_readable = !server.is_config_bad && *naming != Naming::Mistyped;
        // Nobody can know whether a backup from another container of this boot belongs to this
        // server.
        let here = self.machine.here;
        let mut others = self.vaults[ask.vault].of(server.instance, None).into_iter();
        let is_of_container = |backup: &Backup| !backup.is_asmts && backup.here.boot == here.boot && backup.here != here;
        let is_alone = !others.any(is_of_container);
        all_complete && is_trusted && is_readable && is_alone && !server.has_away() && self.machine.jumps.is_empty()
    }

    fn note_backup(&mut self, ask: &Ask, at: usize, naming: &Naming) {
        let server = &self.servers[ask.server];
        let namespace = &server.namespaces[at];
        let Memory::Complete(sums) = namespace.memory.clone() else { return };
        let own: Vec<usize> = namespace.slots().map(|slot| slot.disk).collect();
        let heads = known_disks(server, naming).into_iter().filter_map(|disk| Some((disk, server.disks[disk].head()?)));
        let noted = heads.filter(|(disk, head)| own.contains(disk) || head.is_trusted).collect();
        let is_config_known = matches!(naming, Naming::Option(_) | Naming::Variable(_)) && !server.is_config_bad;
        let stripes = memory::stripe_heads(&namespace.place).into_iter().flatten().map(|head| head.random).next();
        let backup = Backup {
            instance: server.instance,
            namespace: at,
            event: self.event,
            epoch: namespace.epoch,
            sums,
            here: self.machine.here,
            host: self.machine.name.clone(),
            noted,
            sees_log: knows_log(server, naming),
            sees_metadata: is_config_known,
            metadata_version: server.metadata_version,
            stripes,
            made_s: self.machine.now_s(),
            is_asmts: false,
            is_retired: false,
        };
        self.vaults[ask.vault].backups.push(backup);
    }

    /// Makes a backup like one of ASMT's, without a manifest: only its files and their times are
    /// known.
    fn make_asmts(&mut self, ask: &Ask, at: usize, name: &str) {
        let vault = &mut self.vaults[ask.vault];
        let instance = self.servers[ask.server].instance;
        let Some(backup) = vault.backups.iter_mut().find(|backup| backup.instance == instance && backup.namespace == at) else {
            return;
        };
        (backup.is_asmts, backup.sees_log, backup.sees_metadata) = (true, false, false);
        backup.noted.clear();
        // ASMT takes a segment's mode from that of its file; these files are closed to others.
        backup.sums.values_mut().for_each(|sum| *sum = sum.with_mode(0o600));
        std::fs::remove_file(vault.path.join(format!("asmt-manifest-{instance}-{name}.json"))).expect("a manifest");
        let keys: Vec<String> = backup.sums.keys().map(|key| format!("{key:08x}")).collect();
        let made_s = backup.made_s;
        for entry in std::fs::read_dir(&vault.path).into_iter().flatten().flatten() {
            if keys.iter().any(|key| entry.file_name().to_string_lossy().starts_with(key)) {
                crate::log::set_time(&entry.path(), made_s);
            }
        }
    }

    fn before(&self) -> BTreeMap<String, (Sums, Memory)> {
        let all = self.servers.iter().flat_map(|server| &server.namespaces);
        all.map(|namespace| (id_of(namespace), (memory::sums(&namespace.place), namespace.memory.clone()))).collect()
    }

    /// A backup or verification must change nothing in memory.
    fn check_memory_unchanged(&mut self, outcome: &Outcome) {
        for server in &self.servers {
            for namespace in &server.namespaces {
                if let Memory::Complete(sums) = &namespace.memory
                    && memory::sums(&namespace.place) != *sums
                {
                    self.wrong.push(format!("changed: segments of {}: {}", namespace.place.name, outcome.words()));
                }
            }
        }
    }

    fn judge(&self, ask: &Ask, call: &Call, outcome: &Outcome, before: &BTreeMap<String, (Sums, Memory)>) -> Judgement {
        let (server, vault, namespace) = (ask.server, ask.vault, ask.namespace);
        Restore { world: self, server, vault, namespace, call, outcome, before }.judge()
    }

    /// Restores a backup.
    pub fn restore(&mut self, ask: &Ask, kill_at: Option<usize>) -> String {
        // The tracer waits for every child of this process, which includes a server's.
        let kill_at = kill_at.filter(|_| !self.servers.iter().any(crate::server::Server::is_running));
        let mut call = self.call(Verb::Restore, ask);
        call.kill_at = kill_at;
        let before = self.before();
        let outcome = self.run(&call);
        let judgement = self.judge(ask, &call, &outcome, &before);
        self.counts.case(&judgement.case, outcome.exit);
        if let Some(witness) = judgement.only_witness {
            self.counts.add(format!("told by nothing else: {witness}"));
        }
        self.wrong.extend(judgement.wrong);
        self.not_told = judgement.not_told;
        self.note_restore(ask, &outcome, &before);
        self.hinted =
            outcome.problems.iter().filter(|told| told.code == "segments-exist").flat_map(|told| ids_in(&told.hint)).collect();
        let kill = kill_at.map_or(String::new(), |at| format!(", killed at call {at}"));
        format!("restore of {}{kill}: {}", self.shown(ask), outcome.words())
    }

    fn note_restore(&mut self, ask: &Ask, outcome: &Outcome, before: &BTreeMap<String, (Sums, Memory)>) {
        let (event, here) = (self.event, self.machine.here);
        let server = &self.servers[ask.server];
        let instance = server.instance;
        let asked = self.vaults[ask.vault].of(instance, ask.namespace);
        let has_memory = |backup: &Backup| !before[&id_of(&server.namespaces[backup.namespace])].0.is_empty();
        let is_stale = |backup: &Backup| server.namespaces[backup.namespace].epoch != backup.epoch;
        let saw_memory = asked.iter().any(|backup| has_memory(backup));
        let saw_run = asked.iter().any(|backup| has_memory(backup) && is_stale(backup));
        let expected: Vec<(usize, Sums)> = asked.iter().map(|backup| (backup.namespace, backup.sums.clone())).collect();
        let vault = &mut self.vaults[ask.vault];
        let is_marked = vault.look_for_marks(event, here);
        let is_killed = outcome.exit.is_none();
        if !expected.is_empty() && !outcome.is_done() {
            vault.attempts.push(Attempt { event, instance, here, saw_memory, saw_run, is_marked, is_killed });
        }
        let mut is_unmarked = false;
        for (at, sums) in expected {
            let namespace = &mut self.servers[ask.server].namespaces[at];
            let found = memory::sums(&namespace.place);
            let had = &before[&id_of(namespace)].0;
            if (outcome.is_done() || is_killed) && found == sums {
                is_unmarked |= found != *had && !is_marked;
                namespace.memory = Memory::Complete(sums);
            } else if is_killed && found != *had && !found.is_empty() {
                self.check_untrusted(ask.server, at);
                self.servers[ask.server].namespaces[at].memory = Memory::Leftover;
            } else if found.is_empty() {
                namespace.memory = Memory::None;
            }
        }
        if is_unmarked {
            self.wrong.push("mark: what a restore has made may be trusted, and its directory does not say so".to_owned());
        }
    }

    /// A start must not trust the leftovers of a killed restore.
    fn check_untrusted(&mut self, server: usize, at: usize) {
        let place = &self.servers[server].namespaces[at].place;
        let has_trusted = memory::is_index_trusted(place);
        if has_trusted {
            self.wrong.push(format!("killed: a start would trust what is left of {}", place.name));
        }
    }

    /// Verifies a backup. The result must be that of the analysis of a restore, apart from memory.
    pub fn verify(&mut self, ask: &Ask) -> String {
        let mut call = self.call(Verb::Verify, ask);
        call.is_restorable = true;
        let verified = self.run(&call);
        let mut call = self.call(Verb::Restore, ask);
        call.is_analysis = true;
        let before = self.before();
        let analysed = self.run(&call);
        let judgement = self.judge(ask, &call, &analysed, &before);
        self.wrong.extend(judgement.wrong);
        let others: Vec<&String> =
            analysed.problems.iter().map(|told| &told.code).filter(|code| !OF_MEMORY.contains(&code.as_str())).collect();
        let nothing = self.vaults[ask.vault].of(self.servers[ask.server].instance, ask.namespace).is_empty();
        // If there is nothing to restore, any of several reasons may be named.
        let is_in_memory = analysed.problems.iter().any(|told| told.code == "already-in-memory");
        let is_agreed = is_in_memory
            || nothing && !verified.is_done() && !analysed.is_done()
            || verified.is_done() == others.is_empty()
                && (others.len() < analysed.problems.len() || verified.exit == analysed.exit);
        if !is_agreed {
            self.wrong.push(format!("verify: says {}, and restore -a {}", verified.words(), analysed.words()));
        }
        self.check_memory_unchanged(&verified);
        let (event, here) = (self.event, self.machine.here);
        if self.vaults[ask.vault].look_for_marks(event, here) {
            self.wrong.push("mark: verify or restore -a leaves a mark".to_owned());
        }
        format!("verify --restorable of {}: {}; restore -a: {}", self.shown(ask), verified.words(), analysed.words())
    }

    /// Retires a backup.
    pub fn retire(&mut self, ask: &Ask) -> String {
        let outcome = self.run(&self.call(Verb::Retire, ask));
        let instance = self.servers[ask.server].instance;
        let event = self.event;
        let vault = &mut self.vaults[ask.vault];
        if outcome.is_done() {
            let is_meant =
                |backup: &&mut Backup| backup.instance == instance && ask.namespace.is_none_or(|at| at == backup.namespace);
            vault.backups.iter_mut().filter(is_meant).for_each(|backup| backup.is_retired = true);
            vault.retirements.push(event);
        }
        format!("retire {}: {}", self.shown(ask), outcome.words())
    }

    /// Returns true if segments are in the way of the last restore, and must be removed first.
    pub fn has_segments_of(&self, server: usize) -> bool {
        self.servers[server].namespaces.iter().any(|namespace: &Namespace| namespace.memory != Memory::None)
    }
}

/// Ids in the `ipcrm` command of a hint.
fn ids_in(hint: &str) -> Vec<i32> {
    let mut words = hint.split_whitespace();
    let mut ids = Vec::new();
    while let Some(word) = words.next() {
        if word == "-m" {
            ids.extend(words.next().and_then(|id| id.parse::<i32>().ok()));
        }
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_followed_to_the_letter() {
        assert_eq!(ids_in("remove exactly these: ipcrm -m 5 -m 32769"), [5, 32769]);
        assert_eq!(ids_in("start the server without a restore"), [0; 0]);
    }
}
