//! `preflight`: what would stand in the way of a backup or a restore, before the night.
//!
//! Promise: it plans as `--analyze` does, and lists each refusal. It changes nothing: what it
//! writes to the target for a moment has no name. Where the server runs, a backup is judged as
//! after its clean stop; where the segments of a backup are still in memory, a restore is judged as
//! after a reboot.

use crate::error::{Code, Error, Kind, NoteCode, Problem, Remark, Result};
use crate::facts::directory::{Listing, Writable};
use crate::facts::memory::Inventory;
use crate::facts::server::{Configuration, Evidence};
use crate::format::Manifest;
use crate::look::{self, segments};
use crate::operations::backup::Planned;
use crate::operations::report::Report;
use crate::operations::request::Leg;
use crate::operations::{Failure, Operation};
use crate::plan::preflight::{self, Answer, Facts, Preflight, Speed, Stopped};
use crate::plan::{self, NamespaceBackup, NamespaceRestore, Plan};
use crate::progress::Phase;
use crate::store::{Lock, Rate, Store};
use crate::work::instance::InstanceLock;
use asmt_shm::NamespaceName;
use std::collections::HashSet;
use std::path::Path;

/// A backup as it would be.
struct BackupLeg {
    plan: Plan<NamespaceBackup>,
    listing: Listing,
    stopped: Option<Stopped>,
    configuration: Option<Configuration>,
    writing: Speed,
}

/// A restore as it would be.
struct RestoreLeg {
    plan: Plan<NamespaceRestore>,
    listing: Listing,
    inventory: Option<Inventory>,
    is_after_reboot: bool,
    configuration: Option<Configuration>,
    reading: Speed,
}

/// A plan of nothing, with the reasons.
fn refused<T>(error: Error) -> Result<Plan<T>> {
    if matches!(error.first().kind, Kind::Bug | Kind::Interrupted) {
        return Err(error);
    }
    Ok(Plan { namespaces: Vec::new(), refusals: error.problems().to_vec(), remarks: Vec::new() })
}

fn untold(why: impl Into<String>) -> Speed {
    Speed::Untold(why.into())
}

fn speed_of(rate: Result<Option<Rate>>, why_not: &str) -> Result<Speed> {
    match rate {
        Ok(Some(Rate { bytes, elapsed_us })) => Ok(Speed::Tried { bytes, elapsed_us }),
        Ok(None) => Ok(untold(why_not)),
        Err(error) if error.first().kind == Kind::Interrupted => Err(error),
        Err(error) => Ok(untold(error.first().message.clone())),
    }
}

impl Operation<'_> {
    pub(super) fn preflight(&self) -> std::result::Result<Report, Failure> {
        self.control.begin(Phase::Plan, 0);
        let request = self.plan_request();
        // As for a backup: another asmt's attachments would be taken for a server's.
        let runtime = InstanceLock::lock(request.instance);
        let inventory = segments::take()?;
        let (does_backup, does_restore) = self.legs(&inventory, request.instance);
        let (mut backup, mut restore) = (None, None);
        if let Ok(runtime) = &runtime {
            restore = does_restore.then(|| self.restore_leg(runtime, &request)).transpose()?;
            // If the backup of all these segments is there, what is left is the restore.
            let is_made = restore.as_ref().is_some_and(|leg| leg.is_after_reboot && self.has_all(leg, &inventory));
            if does_backup && !is_made {
                backup = Some(self.backup_leg(&request)?);
                // Otherwise, the restore will be that of the backup that replaces the one there.
                restore = restore.filter(|_| !self.request.replace);
            }
        }
        if let Err(error) = runtime {
            // Both are refused for the same reason.
            if does_backup {
                backup = Some(BackupLeg::refused(error)?);
            } else {
                restore = Some(RestoreLeg::refused(error)?);
            }
        }
        let mut report = self.new_report().with_inventory(&inventory, Some(request.instance), self.names.as_deref());
        let judged = self.judge_preflight(&inventory, backup.as_ref(), restore.as_ref());
        let problem = (!judged.ready).then(|| not_ready(&judged));
        report.preflight = Some(judged);
        match problem {
            None => Ok(report),
            Some(problem) => Err(Failure { error: problem.into(), report: Some(Box::new(report)) }),
        }
    }

    /// Whether a backup has every namespace that is asked for and in memory.
    fn has_all(&self, leg: &RestoreLeg, inventory: &Inventory) -> bool {
        let instance = self.request.instance.unwrap_or(0);
        let is_asked = |name: &NamespaceName| self.names.as_ref().is_none_or(|names| names.contains(name));
        let has = |name: &NamespaceName| leg.plan.namespaces.iter().any(|namespace| namespace.name == *name);
        let groups = inventory.groups().into_iter().filter(|group| group.instance == instance);
        groups.filter(|group| group.name.as_ref().is_none_or(is_asked)).all(|group| group.name.as_ref().is_some_and(has))
    }

    /// What is judged: what was asked for, or else what there is.
    fn legs(&self, inventory: &Inventory, instance: u8) -> (bool, bool) {
        if let Some(leg) = self.request.leg {
            return (leg == Leg::Backup, leg == Leg::Restore);
        }
        let is_in_memory = inventory.segments.values().any(|segment| segment.address.instance == instance);
        let listing = self.request.directory.as_ref().and_then(|path| Store::open(path).ok()?.list().ok());
        let has_backup = listing.is_some_and(|listing| {
            let has_files = listing.files.iter().any(|file| file.address.instance == instance);
            has_files || !listing.manifests.is_empty() || !listing.leftovers.sweep.is_empty()
        });
        (is_in_memory || !has_backup, has_backup)
    }

    fn backup_leg(&self, request: &plan::Request) -> Result<BackupLeg> {
        let listing = match self.listing_to_analyze() {
            Ok(listing) => listing,
            Err(error) => return BackupLeg::refused(error),
        };
        let planned =
            self.request_beside(None, &listing, request).and_then(|request| Ok((self.plan_backup(&listing, &request)?, request)));
        let (Planned { plan, evidence, inventory }, request) = match planned {
            Ok(planned) => planned,
            Err(error) => return Ok(BackupLeg { listing, ..BackupLeg::refused(error)? }),
        };
        let manifests = listing.manifests_of(request.instance);
        let stopped = preflight::stopped(&inventory, request.instance, &evidence.configuration, &manifests);
        let (plan, evidence) = match &stopped {
            None => (plan, evidence),
            Some(stopped) => {
                let mut evidence = evidence;
                preflight::trust_devices(&mut evidence);
                let request = preflight::after_stop(request);
                let planned = self.plan_backup_of(stopped.inventory.clone(), evidence, &listing, &request);
                (planned.plan, planned.evidence)
            }
        };
        let writing = self.try_writing(&plan, &listing)?;
        let Evidence { configuration, .. } = evidence;
        Ok(BackupLeg { plan, listing, stopped, configuration: Some(configuration), writing })
    }

    /// Writes to the target for a moment, unless nothing may be written there.
    fn try_writing(&self, plan: &Plan<NamespaceBackup>, listing: &Listing) -> Result<Speed> {
        let Some(path) = &self.request.directory else { return Ok(untold("no directory was named")) };
        let is_out_of_bounds = |problem: &Problem| matches!(problem.code, Code::SystemDirectory | Code::VolatileDirectory);
        if plan.refusals.iter().any(is_out_of_bounds) {
            return Ok(untold("nothing was written to a directory in which no backup is made"));
        }
        match listing.target.as_ref().map(|target| target.writable) {
            Some(Writable::Yes) => {}
            Some(Writable::Denied) => return Ok(untold("not tried: no permission to write to the directory")),
            Some(Writable::ReadOnlyFileSystem) => return Ok(untold("not tried: its file system is mounted read-only")),
            None => return Ok(untold("the directory was not looked at")),
        }
        let tried = Store::open_or_above(path).and_then(|(store, is_itself)| store.probe_write(is_itself, self.control));
        speed_of(tried, "not tried: too little room, or the file system has no files without a name")
    }

    fn restore_leg(&self, runtime: &InstanceLock, request: &plan::Request) -> Result<RestoreLeg> {
        let opened = self.directory().and_then(|path| Store::open_backup(&path));
        let (store, listing) = match opened.and_then(|store| {
            store.lock(Lock::Shared)?;
            let listing = store.list()?;
            Ok((store, listing))
        }) {
            Ok(found) => found,
            Err(error) => return RestoreLeg::refused(error),
        };
        let leftovers = runtime.leftovers()?;
        let mut judged = match self.judge_restore_without(&leftovers, &store, &listing, request) {
            Ok(judged) => judged,
            Err(error) => return Ok(RestoreLeg { listing, ..RestoreLeg::refused(error)? }),
        };
        let is_after_reboot = judged.already_in_memory(&listing).is_some();
        if is_after_reboot {
            let of_instance = judged.inventory.segments.values().filter(|segment| segment.address.instance == request.instance);
            let gone: HashSet<i32> = of_instance.map(|segment| segment.stat.shmid).chain(leftovers.iter().copied()).collect();
            judged = self.judge_restore_without(&gone, &store, &listing, request)?;
        }
        let mut plan = judged.combined();
        if !leftovers.is_empty() {
            let text = format!("a killed restore left {} segments, which the next restore removes first", leftovers.len());
            plan.remarks.push(Remark::new(NoteCode::Recovered, text));
        }
        let reading = self.try_reading(&store, &plan)?;
        let (inventory, configuration) = (Some(judged.inventory), Some(judged.evidence.configuration));
        Ok(RestoreLeg { plan, listing, inventory, is_after_reboot, configuration, reading })
    }

    /// Reads the largest file for a moment.
    fn try_reading(&self, store: &Store, plan: &Plan<NamespaceRestore>) -> Result<Speed> {
        let sources = plan.namespaces.iter().flat_map(|namespace| &namespace.sources);
        let Some(largest) = sources.max_by_key(|source| source.allocated_bytes) else { return Ok(untold("no file can be read")) };
        let tried = store.probe_read(&largest.file, largest.file_bytes, self.control);
        speed_of(tried, "the file system has no direct I/O, and what is read from memory tells nothing")
    }

    fn judge_preflight(&self, inventory: &Inventory, backup: Option<&BackupLeg>, restore: Option<&RestoreLeg>) -> Preflight {
        let request = self.plan_request();
        let instance = request.instance;
        let unread = Configuration::NotThere("no configuration was read".to_owned());
        let configurations = backup.map(|leg| &leg.configuration).into_iter().chain(restore.map(|leg| &leg.configuration));
        let configuration = configurations.flatten().next().unwrap_or(&unread);
        let listing = restore.map(|leg| &leg.listing).or(backup.map(|leg| &leg.listing));
        let manifests: Vec<&Manifest> = listing.map(|listing| listing.manifests_of(instance)).unwrap_or_default();
        let none = untold("it was not tried");
        let directory = self.request.directory.as_deref().map(Path::to_string_lossy);
        // A restore alone is not judged as after a stop: what runs has the segments that it needs.
        let held = backup.is_none().then(|| preflight::stopped(inventory, instance, configuration, &manifests)).flatten();
        preflight::judge(&Facts {
            instance,
            names: self.names.as_deref(),
            directory: directory.as_deref(),
            form: request.form,
            caller: &request.caller,
            configuration,
            inventory,
            stopped: backup.and_then(|leg| leg.stopped.as_ref()).or(held.as_ref()),
            backup: backup.map(|leg| &leg.plan),
            restore: restore.map(|leg| &leg.plan),
            restore_inventory: restore.and_then(|leg| leg.inventory.as_ref()),
            is_after_reboot: restore.is_some_and(|leg| leg.is_after_reboot),
            manifests: &manifests,
            target: backup.and_then(|leg| leg.listing.target.as_ref()),
            has_leftovers: backup.is_some_and(|leg| !leg.listing.leftovers.sweep.is_empty()),
            writing: backup.map_or(&none, |leg| &leg.writing),
            reading: restore.map_or(&none, |leg| &leg.reading),
            systemd: &look::units::systemd(),
            binary: look::units::server_binary().as_ref(),
        })
    }
}

impl BackupLeg {
    fn refused(error: Error) -> Result<Self> {
        let (plan, listing, writing) = (refused(error)?, Listing::default(), untold("the backup could not be planned"));
        Ok(Self { plan, listing, stopped: None, configuration: None, writing })
    }
}

impl RestoreLeg {
    fn refused(error: Error) -> Result<Self> {
        let (plan, listing, reading) = (refused(error)?, Listing::default(), untold("the restore could not be planned"));
        Ok(Self { plan, listing, inventory: None, is_after_reboot: false, configuration: None, reading })
    }
}

/// Why a preflight fails: its lines have the reasons.
fn not_ready(judged: &Preflight) -> Problem {
    let count = |answer: Answer| judged.checks.iter().filter(|check| check.answer == answer).count();
    let message = match (count(Answer::NotReady), count(Answer::Unknown)) {
        (no, 0) => format!("not ready: {no} of {} checks failed", judged.checks.len()),
        (0, unknown) => format!("not known to be ready: {unknown} of {} checks could not be made", judged.checks.len()),
        (no, unknown) => format!("not ready: {no} of {} checks failed, and {unknown} could not be made", judged.checks.len()),
    };
    Problem::new(Code::NotReady, message, "each line that is not ready has its next step; then run preflight again")
}
