//! The oracle: decides whether an outcome is right, by what has really happened.
//!
//! Pure: it only reads the world. A restore of a stale backup is wrong if a witness that asmt can
//! see shows that it is stale. If no witness does, asmt must at least report that nothing is
//! proven. A refusal is wrong if there is no reason at all for one.

use crate::asmt::{Call, Naming, Outcome};
use crate::disk::{Head, Medium};
use crate::memory::{self, Sums};
use crate::server::{Logging, Memory, Namespace, Server};
use crate::world::{Backup, DEFAULT_LOG, Vault, World};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Code of the note that nothing proves that the server has not run.
const NOT_PROVEN: &str = "not-proven";
/// Seconds by which a sign must be later than a backup, where only times can be compared.
const SLACK_S: i64 = 10;
/// Exit statuses that no restore or verification of a whole backup may have here: a failed call,
/// damage, no room, a bug.
const ODD: [i32; 4] = [1, 5, 6, 70];

/// A restore, and the facts about it.
pub struct Restore<'w> {
    /// The world after it.
    pub world: &'w World<'w>,
    /// Number of the server.
    pub server: usize,
    /// Number of the directory.
    pub vault: usize,
    /// Index of the namespace; `None` for all.
    pub namespace: Option<usize>,
    /// The run of asmt.
    pub call: &'w Call,
    /// Its outcome.
    pub outcome: &'w Outcome,
    /// Segments of each namespace before the restore, and their state.
    pub before: &'w BTreeMap<String, (Sums, Memory)>,
}

/// Not stale, block devices prove it, and nothing is in the way.
const PROVEN: &str = "fresh and proven";
/// Not stale, and there is no reason to refuse it.
const QUIET: &str = "fresh, and nothing speaks against it";
/// Not stale, but something is in the way, or makes it look stale.
const SPOKEN_AGAINST: &str = "fresh, and something speaks against it";

/// The judgement of a restore.
#[derive(Debug, Default)]
pub struct Judgement {
    /// Every way in which it is wrong.
    pub wrong: Vec<String>,
    /// The reason why asmt could not know that the server has run.
    pub not_told: Option<String>,
    /// The case, for counting.
    pub case: String,
    /// The only witness that shows that the server has run.
    pub only_witness: Option<&'static str>,
}

impl<'w> Restore<'w> {
    fn server(&self) -> &'w Server {
        &self.world.servers[self.server]
    }

    fn vault(&self) -> &'w Vault {
        &self.world.vaults[self.vault]
    }

    fn asked(&self) -> Vec<&'w Backup> {
        self.vault().of(self.server().instance, self.namespace)
    }

    fn namespace_of(&self, backup: &Backup) -> &'w Namespace {
        &self.server().namespaces[backup.namespace]
    }

    /// Returns true if its namespace was opened since.
    fn is_stale(&self, backup: &Backup) -> bool {
        self.namespace_of(backup).epoch != backup.epoch
    }

    fn head(&self, disk: usize) -> Option<Head> {
        self.server().disks[disk].head()
    }

    /// Returns true if a block device of the namespace itself shows that it was not opened since.
    fn is_proven(&self, backup: &Backup) -> bool {
        let own: BTreeSet<usize> = self.namespace_of(backup).slots().map(|slot| slot.disk).collect();
        let is_block = |disk: usize| self.server().disks[disk].medium == Medium::Block;
        let mut noted = backup.noted.iter().filter(|(disk, _)| own.contains(disk));
        noted.any(|(disk, head)| is_block(*disk) && self.head(*disk) == Some(*head) && head.is_trusted)
    }

    /// Backups whose notes count for these.
    fn speaking(&self) -> Vec<&'w Backup> {
        let earliest = self.asked().iter().map(|backup| backup.event).min().unwrap_or(0);
        let all = self.vault().of(self.server().instance, None);
        let asked = self.asked();
        let is_asked = |backup: &Backup| asked.iter().any(|other| other.namespace == backup.namespace);
        all.into_iter().filter(|backup| is_asked(backup) || backup.event >= earliest).collect()
    }

    /// Disks that are named to asmt now.
    fn named_now(&self) -> Vec<usize> {
        known_disks(self.server(), &self.call.naming)
    }

    /// Judges a restore, or the analysis of one.
    pub fn judge(&self) -> Judgement {
        let mut judgement = Judgement::default();
        let stale: Vec<&Backup> = self.asked().into_iter().filter(|backup| self.is_stale(backup)).collect();
        let (told, seen) = self.witnesses(&stale);
        let case = match (stale.is_empty(), told.is_empty()) {
            (true, _) => self.how_fresh(),
            (false, false) => "stale, and told",
            (false, true) => "stale, and not told",
        };
        case.clone_into(&mut judgement.case);
        judgement.only_witness = told.first().copied().filter(|_| told.len() == 1);
        match self.outcome.exit {
            Some(0) => self.judge_done(&stale, &told, &seen, &mut judgement),
            Some(status) => self.judge_refused(status, &stale, &mut judgement),
            None => {}
        }
        if !self.outcome.is_done() && self.outcome.exit.is_some() {
            self.check_nothing_left(&mut judgement.wrong);
        }
        judgement
    }

    fn judge_done(&self, stale: &[&Backup], told: &BTreeSet<&str>, seen: &BTreeSet<&str>, judgement: &mut Judgement) {
        let asked = self.asked();
        let wrong = &mut judgement.wrong;
        let is_noted = self.outcome.notes.iter().any(|note| note == NOT_PROVEN);
        let is_proven = asked.iter().all(|backup| self.is_proven(backup));
        if asked.is_empty() {
            wrong.push("nothing: there is no backup, and it is done".to_owned());
        }
        if asked.iter().any(|backup| backup.is_retired) {
            wrong.push("retired: a retired backup is restored".to_owned());
        }
        if self.call.require_proof && !(is_proven && stale.is_empty()) {
            wrong.push(format!("proof: --require-proof, and no block device proves it (stale: {})", !stale.is_empty()));
        }
        if !is_proven && !is_noted && stale.is_empty() {
            wrong.push("warning: nothing is proven, and it is not said".to_owned());
        }
        if !stale.is_empty() {
            let names: Vec<&str> = stale.iter().map(|backup| self.namespace_of(backup).place.name.as_str()).collect();
            let names = names.join(", ");
            if !told.is_empty() {
                let told: Vec<&str> = told.iter().copied().collect();
                wrong.push(format!("stale: {names} is accepted, and this tells that the server has run: {}", told.join(", ")));
            } else if !is_noted {
                wrong.push(format!("stale: {names} is accepted without a warning"));
            } else {
                judgement.not_told = Some(self.why_not_told(stale, seen));
            }
        }
        if !self.call.is_analysis {
            self.check_contents(&mut judgement.wrong);
        }
    }

    fn judge_refused(&self, status: i32, stale: &[&Backup], judgement: &mut Judgement) {
        if ODD.contains(&status) {
            judgement.wrong.push(format!("odd: exit {status} where nothing is damaged and nothing fails"));
        }
        let asked = self.asked();
        let missing = if asked.is_empty() { vec![2, 7] } else { Vec::new() };
        if asked.is_empty() && !missing.contains(&status) && self.server_has_readable_config() && !self.is_partly_there() {
            judgement.wrong.push(format!("odd: exit {status} where there is no backup"));
        }
        if asked.is_empty() || !stale.is_empty() {
            return;
        }
        match self.how_fresh() {
            PROVEN => judgement.wrong.push(format!("fresh: exit {status}, and block devices prove that it is current")),
            QUIET => judgement.wrong.push(format!("quiet: exit {status}, and nothing at all speaks against it")),
            _ => {}
        }
    }

    /// The reasons to accept or refuse a restore that is not stale.
    fn how_fresh(&self) -> &'static str {
        let asked = self.asked();
        let is_proven = asked.iter().all(|backup| self.is_proven(backup));
        let is_quiet = || self.soft_signs().is_empty() && !self.call.require_proof;
        match asked.is_empty() {
            true => "no backup",
            false if !self.hard_signs().is_empty() => SPOKEN_AGAINST,
            false if is_proven => PROVEN,
            false if is_quiet() => QUIET,
            false => SPOKEN_AGAINST,
        }
    }

    fn server_has_readable_config(&self) -> bool {
        let uses_config = matches!(self.call.naming, Naming::Option(_) | Naming::Variable(_));
        self.call.naming != Naming::Mistyped && !(uses_config && self.server().is_config_bad)
    }

    /// Returns true if the directory has a backup of another namespace of the instance.
    fn is_partly_there(&self) -> bool {
        !self.vault().of(self.server().instance, None).is_empty()
    }

    /// A failed restore must leave memory as it was, except for the leftovers of an earlier one.
    fn check_nothing_left(&self, wrong: &mut Vec<String>) {
        for namespace in self.world.servers.iter().flat_map(|server| &server.namespaces) {
            let found = memory::sums(&namespace.place);
            let (sums, was) = &self.before[&id_of(namespace)];
            let is_swept = *was == Memory::Leftover && found.is_empty();
            if found != *sums && !is_swept {
                let keys: Vec<String> =
                    found.keys().filter(|key| !sums.contains_key(key)).map(|key| format!("{key:08x}")).collect();
                wrong.push(format!("left: it failed, and segments of {} have changed: new {keys:?}", namespace.place.name));
            }
        }
    }

    fn check_contents(&self, wrong: &mut Vec<String>) {
        let asked = self.asked();
        for (at, namespace) in self.server().namespaces.iter().enumerate() {
            let found = memory::sums(&namespace.place);
            let (had, was) = &self.before[&id_of(namespace)];
            let saved = asked.iter().find(|backup| backup.namespace == at).map(|backup| &backup.sums);
            let is_swept = saved.is_none() && *was == Memory::Leftover && found.is_empty();
            if found != *saved.unwrap_or(had) && !is_swept {
                wrong.push(format!(
                    "contents: segments of {} are not those that were saved: {} of them",
                    namespace.place.name,
                    found.len()
                ));
            }
        }
    }

    /// The witnesses that asmt can see of a run of the servers since these backups, and those that
    /// it has seen and may not remember.
    fn witnesses(&self, stale: &[&Backup]) -> (BTreeSet<&'static str>, BTreeSet<&'static str>) {
        let (mut told, mut seen) = (BTreeSet::new(), BTreeSet::new());
        if stale.is_empty() {
            return (told, seen);
        }
        let server = self.server();
        for (disk, head) in self.speaking().iter().flat_map(|backup| &backup.noted) {
            if self.head(*disk) != Some(*head) {
                told.insert(if server.disks[*disk].medium == Medium::Block { "block device" } else { "file header" });
            }
        }
        for backup in stale {
            self.witnesses_of(backup, &mut told, &mut seen);
        }
        (told, seen)
    }

    fn witnesses_of(&self, backup: &Backup, told: &mut BTreeSet<&'static str>, seen: &mut BTreeSet<&'static str>) {
        let (server, vault, machine) = (self.server(), self.vault(), &self.world.machine);
        let namespace = self.namespace_of(backup);
        let is_noted = |disk: usize| backup.noted.iter().any(|(noted, _)| *noted == disk);
        let named = self.named_now();
        for disk in namespace.slots().map(|slot| slot.disk).filter(|disk| named.contains(disk) && !is_noted(*disk)) {
            match self.head(disk) {
                Some(head) if !head.is_trusted => told.insert("device that is not trusted"),
                Some(head) if backup.stripes.is_some_and(|random| random != head.random) => {
                    seen.insert("random of its own stripes")
                }
                _ => false,
            };
        }
        let is_since = |event: usize| event > backup.event;
        let uses = vault.uses.iter().filter(|used| used.instance == backup.instance && is_since(used.event));
        if uses.clone().any(|used| used.here != machine.here) {
            told.insert("mark");
        }
        if backup.sees_log && server.log.has_lines_after(backup.event) {
            told.insert("log");
        }
        // Without a manifest nothing was noted, so only times can be compared.
        let late_s = backup.made_s + SLACK_S;
        if backup.is_asmts && knows_log(server, &self.call.naming) && server.log.was_written_after(late_s) {
            if machine.jumps.is_empty() {
                told.insert("log, by its time")
            } else {
                seen.insert("log, clock set")
            };
        }
        if backup.sees_metadata && server.metadata_version != backup.metadata_version {
            told.insert("metadata");
        }
        if machine.is_recording && machine.boots_since(backup.event) > 1 {
            let is_plain = backup.instance == 0 && !machine.has_jumped_since(0);
            if is_plain {
                told.insert("two boots")
            } else {
                seen.insert("two boots, clock set or instance not 0")
            };
        }
        let attempts = vault.attempts.iter().filter(|attempt| attempt.instance == backup.instance && is_since(attempt.event));
        for attempt in attempts {
            if attempt.here != machine.here && !attempt.is_marked && !attempt.saw_memory && !attempt.is_killed {
                seen.insert("attempt elsewhere that left no mark");
            }
            if attempt.here == machine.here && attempt.saw_run {
                seen.insert("segments in memory at an earlier attempt");
            }
        }
    }

    fn why_not_told(&self, stale: &[&Backup], seen: &BTreeSet<&str>) -> String {
        if !seen.is_empty() {
            return format!("could be: {}", seen.iter().copied().collect::<Vec<_>>().join(", "));
        }
        let here = self.world.machine.here;
        let places: BTreeSet<&str> = stale
            .iter()
            .map(|backup| {
                match (backup.here == here, backup.here.boot == here.boot, self.world.machine.boots_since(backup.event)) {
                    (true, ..) => "same boot and container",
                    (_, true, _) => "same boot, another container",
                    (_, _, 1) => "one boot",
                    _ => "several boots, not recorded",
                }
            })
            .collect();
        places.into_iter().collect::<Vec<_>>().join(", ")
    }

    /// The reasons to refuse a restore even if block devices prove that it is current.
    fn hard_signs(&self) -> Vec<&'static str> {
        let server = self.server();
        let asked = self.asked();
        let earliest = self.speaking().iter().map(|backup| backup.event).min().unwrap_or(0);
        let mut signs = Vec::new();
        let mut sign = |holds: bool, what| {
            if holds {
                signs.push(what);
            }
        };
        sign(server.is_running(), "it runs");
        sign(server.opened > earliest, "a namespace of the instance was opened");
        sign(asked.iter().any(|backup| backup.is_retired), "retired");
        sign(!self.server_has_readable_config(), "no readable configuration");
        let memory = |backup: &&Backup| &self.before[&id_of(self.namespace_of(backup))].1;
        // The next restore removes the leftovers of a killed one; an analysis removes nothing.
        let is_free = |memory: &Memory| *memory == Memory::None || *memory == Memory::Leftover && !self.call.is_analysis;
        sign(!asked.iter().all(|backup| is_free(memory(backup))), "segments in memory");
        let noted = self.speaking();
        let is_other = |(disk, head): &(usize, Head)| self.head(*disk) != Some(*head);
        sign(noted.iter().flat_map(|backup| &backup.noted).any(is_other), "a noted device says something else");
        sign(server.has_away(), "a device is not at its path");
        let is_named_wrong = |disk: usize| self.head(disk).is_none_or(|head| !head.is_trusted);
        sign(self.named_now().into_iter().any(is_named_wrong), "a named device is blank or not trusted");
        signs
    }

    /// The reasons to refuse a restore where no block device proves anything.
    fn soft_signs(&self) -> Vec<&'static str> {
        let (server, vault, machine) = (self.server(), self.vault(), &self.world.machine);
        let mut signs = Vec::new();
        for backup in self.speaking() {
            let is_since = |event: usize| event > backup.event;
            let mut sign = |holds: bool, what| {
                if holds {
                    signs.push(what);
                }
            };
            sign(server.log.has_lines_after(backup.event), "log");
            sign(is_since(server.log.rotated) || is_since(server.log.lost), "log rotated or cut");
            sign(server.metadata_version != backup.metadata_version, "metadata");
            sign(machine.boots_since(backup.event) > 1, "boots");
            sign(machine.has_jumped_since(0), "clock");
            sign(machine.name != backup.host, "host");
            sign(vault.uses.iter().any(|used| is_since(used.event) && used.here != machine.here), "mark");
            let is_here = |here| here == machine.here;
            sign(
                vault.attempts.iter().any(|attempt| is_since(attempt.event) && attempt.saw_memory && is_here(attempt.here)),
                "seen",
            );
            sign(vault.retirements.iter().any(|event| is_since(*event)), "retired");
            let own = self.namespace_of(backup);
            let has_new = own.slots().any(|slot| !backup.noted.iter().any(|(disk, _)| *disk == slot.disk));
            sign(has_new, "a device that was not noted");
        }
        signs
    }
}

/// A name for a namespace that is unique over all servers.
pub fn id_of(namespace: &Namespace) -> String {
    format!("{}-{}", namespace.place.instance, namespace.place.name)
}

/// Returns true if asmt knows where the server logs to.
pub fn knows_log(server: &Server, naming: &Naming) -> bool {
    let has_config = matches!(naming, Naming::Option(_) | Naming::Variable(_)) && !server.is_config_bad;
    let is_default = server.instance == 0 && server.log.path() == Path::new(DEFAULT_LOG);
    server.logging == Logging::File && (has_config || is_default && *naming != Naming::Mistyped)
}

/// The disks that asmt knows.
pub fn known_disks(server: &Server, naming: &Naming) -> Vec<usize> {
    let slots = server.configured().flat_map(Namespace::slots).filter(|slot| !slot.is_away);
    match naming {
        Naming::Option(_) | Naming::Variable(_) if !server.is_config_bad => slots.map(|slot| slot.disk).collect(),
        Naming::Devices(paths) => slots.filter(|slot| paths.contains(&slot.path)).map(|slot| slot.disk).collect(),
        _ => Vec::new(),
    }
}
