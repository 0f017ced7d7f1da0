//! Witnesses that are not storage devices: the host, usage marks, files that a server writes,
//! systemd, boots.

use super::{Claim, Judge, Proof, SLACK_MS, is_of_host};
use crate::error::{Code, NoteCode, Problem, Remark};
use crate::facts::server::{SERVER_UNIT, ServiceStart, TraceChange, hex_of};
use crate::format::mark::{Identity, UseRecord, is_used_name_of, used_name};
use crate::format::{Manifest, Trace, rfc3339};
use crate::hints;

impl Judge<'_> {
    /// Checks that the backup is not another host's, by machine id and host name: clones of one
    /// image have one machine id.
    pub(super) fn check_host(&self, claim: &Claim<'_>, proof: Proof, found: &mut Vec<Problem>, remarks: &mut Vec<Remark>) {
        let Some(manifest) = claim.manifest else { return };
        let here = &self.evidence.host;
        if is_of_host(manifest, here) {
            return;
        }
        let id = |id: &Option<String>| id.as_ref().map_or(String::new(), |id| format!(", machine id {id}"));
        let text = format!(
            "the backup was made on host '{}'{}; this host is '{}'{}",
            manifest.host,
            id(&manifest.noted.machine_id),
            here.name,
            id(&here.machine_id)
        );
        if proof == Proof::Given {
            let remark = Remark::new(
                NoteCode::OtherHost,
                format!("{text}: treated as this node's, because its storage devices are the same"),
            );
            if !remarks.contains(&remark) {
                remarks.push(remark);
            }
            return;
        }
        found.push(Problem::new(
            Code::BackupForeignHost,
            text,
            "use the backup of this host; use --force-host only if this is the same host under another name, or if it has taken \
             over the other host's devices",
        ));
    }

    /// Checks the marks of all namespaces of the instance. A retired backup is never used. A used
    /// one may be used again in the same boot and IPC namespace, because a start may fail;
    /// elsewhere the server may have run on it, which devices show.
    pub(super) fn check_marks(&self, claim: &Claim<'_>, proof: Proof, found: &mut Vec<Problem>) {
        let is_proven = proof == Proof::Given;
        let own_name = used_name(self.instance, claim.name);
        for (mark_name, mark) in self.listing.marks.iter().filter(|(name, _)| is_used_name_of(self.instance, name)) {
            let is_own = *mark_name == own_name;
            let title = if is_own { self.title(claim.name) } else { format!("{mark_name} (of this server)") };
            let mark = match mark {
                Ok(mark) => mark,
                Err(_) if !is_own && is_proven => continue,
                Err(why) => {
                    let text = format!("{title}: cannot determine whether the backup was used: {mark_name}: {why}");
                    found.push(Problem::new(Code::BackupUsed, text, hints::MARK_UNREADABLE));
                    continue;
                }
            };
            if is_own && !mark.is_of(&claim.identity) {
                continue;
            }
            let speaks = |used: &&UseRecord| is_own || self.is_later(claim, used);
            if let Some(retired) = mark.retired.iter().find(speaks).filter(|_| is_own || !is_proven) {
                let text = format!("{title}: the backup was retired on {} at {}", retired.host, rfc3339(retired.at_ms));
                found.push(Problem::new(Code::BackupRetired, text, self.used_hint()));
            }
            if is_proven {
                continue;
            }
            let here = &self.evidence.host;
            // If a restore made nothing, in the place from which this backup comes, only its
            // sightings of a server count.
            let is_of_place = |used: &UseRecord| {
                let manifest = claim.manifest.filter(|_| !is_own && !used.has_made);
                manifest.is_some_and(|manifest| {
                    let noted = manifest.noted.ipc_namespace.as_deref();
                    noted.is_some_and(|ipc_namespace| used.is_in(&manifest.boot_id, ipc_namespace))
                })
            };
            let is_elsewhere = |used: &&UseRecord| {
                if is_of_place(used) {
                    return used.has_served && used.served_ms.is_none_or(|at_ms| at_ms > claim.identity.made_ms);
                }
                used.has_served || !used.is_in(&here.boot_id, &here.ipc_namespace)
            };
            if let Some(earlier) = mark.restores.iter().filter(speaks).find(is_elsewhere) {
                let place = match (earlier.has_served, earlier.boot_id == here.boot_id) {
                    (true, _) => "and segments that a server had created or used were in memory then: it seems to have run since",
                    (false, true) => "in another IPC namespace (container): the server may have run since",
                    (false, false) => "in another boot: the server may have run since",
                };
                let at = rfc3339(earlier.at_ms);
                let what = if earlier.has_served { "the backup was looked at" } else { "a restore of the backup was started" };
                let text = format!("{title}: {what} on {} at {at}, {place}", earlier.host);
                found.push(Problem::new(Code::BackupUsed, text, self.used_hint()));
            }
        }
    }

    /// Returns true if a use in another namespace's mark came after this backup was made.
    fn is_later(&self, claim: &Claim<'_>, used: &UseRecord) -> bool {
        match claim.manifest {
            Some(manifest) if manifest.noted.ipc_namespace.is_some() => !manifest.noted.earlier_uses.contains(&used.id()),
            _ => used.at_ms >= claim.identity.made_ms || claim.identity.made_ms > self.evidence.host.now_ms,
        }
    }

    /// Checks for another namespace's backup from a later boot in the same directory: its segments
    /// came from a server, or from a restore.
    pub(super) fn check_manifests(&self, claim: &Claim<'_>, found: &mut Vec<Problem>) {
        let is_of_later_boot = |other: &&&Manifest| match claim.manifest {
            Some(own) => {
                other.boot_id != own.boot_id && other.created_ms > own.created_ms && !self.was_outlived_before(other, own)
            }
            // The files were there before the boot in which the other backup was made.
            None => other.noted.monotonic_ms.is_some_and(|since_boot_ms| {
                let booted_ms = other.created_ms.saturating_sub(since_boot_ms);
                claim.identity.made_ms.saturating_add(SLACK_MS) < booted_ms
            }),
        };
        if let Some(later) = self.listing.manifests_of(self.instance).iter().find(is_of_later_boot) {
            let text = format!(
                "{}: the directory has a backup of namespace '{}' from a later boot ({}): the server has run since, or its \
                 segments were restored",
                self.title(claim.name),
                later.namespace,
                rfc3339(later.created_ms)
            );
            found.push(Problem::new(Code::BackupStale, text, self.stale_hint()));
        }
    }

    /// Returns true if a backup was known to be outlived when another one was made. Then it is the
    /// older one, whatever clocks show.
    fn was_outlived_before(&self, older: &Manifest, newer: &Manifest) -> bool {
        let own_name = used_name(self.instance, &older.namespace);
        let marks = self.listing.marks.iter().filter(|(name, _)| *name == own_name).filter_map(|(_, mark)| mark.as_ref().ok());
        let identity = Identity { made_ms: older.created_ms, boot_id: Some(older.boot_id.clone()), files: None };
        let mut uses = marks.filter(|mark| mark.is_of(&identity)).flat_map(|mark| &mark.restores);
        uses.any(|used| used.has_served && newer.noted.earlier_uses.contains(&used.id()))
    }

    /// Checks the files that the server writes: compares them with the notes, or by their times if
    /// there are none.
    pub(super) fn check_traces(&self, claim: &Claim<'_>, found: &mut Vec<Problem>) {
        let made = rfc3339(claim.identity.made_ms);
        if claim.manifest.is_some_and(|manifest| !manifest.noted.traces.is_empty()) {
            let compared = || self.evidence.compared.get(claim.name).into_iter().flatten();
            for trace in compared().filter(|trace| trace.change == TraceChange::Gone) {
                let text = format!("{} is missing, but existed when the backup was made: it cannot be checked", trace.path);
                found.push(Problem::new(Code::LogMissing, text, hints::LOG_MISSING));
            }
            for trace in compared().filter(|trace| trace.change == TraceChange::Changed) {
                let text = format!("{} has changed since the backup of {made}: the server seems to have run", trace.path);
                found.push(Problem::new(Code::BackupStale, text, self.stale_hint()));
            }
        }
        // A log that is configured now, and was not then, can be judged only by its times.
        let noted = || claim.manifest.into_iter().flat_map(|manifest| &manifest.noted.traces);
        let is_new = |trace: &&Trace| !noted().any(|noted| noted.path == trace.path);
        let written = self.evidence.traces.iter().filter(is_new).filter_map(|trace| {
            let state = trace.state.as_ref().filter(|state| state.size > 0)?;
            Some((&trace.path, state.modified_ns / 1_000_000))
        });
        if let Some((path, at_ms)) = written.max_by_key(|(_, at_ms)| *at_ms)
            && at_ms > claim.identity.made_ms.saturating_add(SLACK_MS)
        {
            let text =
                format!("{path} was written at {}, after the backup of {made}: the server seems to have run", rfc3339(at_ms));
            found.push(Problem::new(Code::BackupStale, text, self.stale_hint()));
        }
    }

    /// Checks for starts of the server's unit after the backup.
    pub(super) fn check_service(&self, claim: &Claim<'_>, found: &mut Vec<Problem>) {
        let history = &self.evidence.service;
        let here = hex_of(&self.evidence.host.boot_id);
        let is_used_here = self.is_used_here();
        let forgiven: Vec<u64> = history
            .starts
            .iter()
            .filter(|start| is_used_here && start.boot_id == here && start.has_failed_early)
            .map(|start| start.monotonic_ms)
            .collect();
        let is_forgiven =
            |start: &ServiceStart| start.boot_id == here && forgiven.iter().any(|at| at.abs_diff(start.monotonic_ms) < 2000);
        let counts = |start: &&ServiceStart| self.is_after_backup(claim, start) && !is_forgiven(start);
        if let Some(start) = history.starts.iter().find(counts) {
            let boot = if start.boot_id == here { "in this boot" } else { "in an earlier boot" };
            let text = format!(
                "{} shows a start of {} {boot}, after the backup of {}: the server has run",
                start.source,
                SERVER_UNIT,
                rfc3339(claim.identity.made_ms)
            );
            found.push(Problem::new(Code::BackupStale, text, self.stale_hint()));
        }
    }

    fn is_after_backup(&self, claim: &Claim<'_>, start: &ServiceStart) -> bool {
        let Some(manifest) = claim.manifest else {
            // The boot in which the backup was made is unknown. A start in this boot came after the
            // reboot for which the backup was made.
            return start.boot_id == hex_of(&self.evidence.host.boot_id);
        };
        let made_in = hex_of(&manifest.boot_id);
        if start.boot_id == made_in {
            return manifest.noted.monotonic_ms.is_some_and(|at| start.monotonic_ms > at);
        }
        let place = |boot: &str| self.evidence.service.journal_boots.iter().position(|found| found == boot);
        match (place(&made_in), place(&start.boot_id)) {
            (Some(made_in), Some(started_in)) => started_in > made_in,
            // The journal begins after the boot of the backup, or has this boot alone.
            _ => true,
        }
    }

    /// Returns true if a restore was begun in this boot and IPC namespace.
    pub(super) fn is_used_here(&self) -> bool {
        let here = &self.evidence.host;
        let marks = self.listing.marks.iter().filter(|(name, _)| is_used_name_of(self.instance, name));
        let mut uses = marks.filter_map(|(_, mark)| mark.as_ref().ok()).flat_map(|mark| &mark.restores);
        uses.any(|used| used.is_in(&here.boot_id, &here.ipc_namespace))
    }

    /// Checks for more than one boot since the backup: in one of them the server may have run
    /// without a witness.
    pub(super) fn check_boots(&self, claim: &Claim<'_>, found: &mut Vec<Problem>) {
        let history = &self.evidence.service;
        let here = hex_of(&self.evidence.host.boot_id);
        let made_in = claim.manifest.map(|manifest| hex_of(&manifest.boot_id));
        if made_in.as_ref() == Some(&here) {
            return;
        }
        let place = |boot: &str| history.journal_boots.iter().position(|found| found == boot);
        let by_journal = made_in.as_deref().and_then(place).zip(place(&here)).map(|(from, to)| to.saturating_sub(from));
        let made_ms = claim.identity.made_ms;
        let by_logins = history.login_boots_ms.iter().filter(|at_ms| **at_ms > made_ms).count();
        let (count, source) = match by_journal {
            Some(count) if count >= by_logins => (count, "the journal"),
            _ => (by_logins, "the login records"),
        };
        if count > 1 {
            let text = format!(
                "the machine was booted {count} times since the backup of {} ({source}), expected once: cannot determine \
                 whether the server has run in between",
                rfc3339(made_ms)
            );
            found.push(Problem::new(Code::CannotBeTold, text, self.used_hint()));
        }
    }
}
