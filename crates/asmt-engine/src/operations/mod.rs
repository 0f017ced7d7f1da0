//! One file for each verb: what `perform` does, step by step.

use crate::error::{self, Code, Error, Problem, Remark, Result};
use crate::facts;
use crate::facts::directory::Listing;
use crate::facts::memory::{Inventory, Segment};
use crate::facts::server::{Evidence, Host};
use crate::format;
use crate::format::mark::{self, Use};
use crate::hints::STARTED_MEANWHILE;
use crate::look::server::Places;
use crate::look::{self, segments};
use crate::operations::report::{Report, Restorability, Verb};
use crate::plan::staleness::{self, Overrides, Verdict};
use crate::plan::{self, NamespaceBackup, NamespaceRestore, Plan, Source};
use crate::progress::{Control, Phase};
use crate::store::{Lock, Store};
use crate::work::copy_out::{self, Options, Origin};
use crate::work::instance::{self, Runtime};
use crate::work::marking::Target;
use crate::work::{commit, copy_in, pool, read};
use asmt_shm::{Header, MAX_INSTANCE, NamespaceName, SHUTDOWN_CLEAN};
use serde::Deserialize;
use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::time::Instant;

pub mod report;

/// What a caller asks for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Which operation.
    pub verb: Verb,
    /// Directory; not for a list, and none may be named where a backup is only analyzed.
    pub directory: Option<PathBuf>,
    /// Instance; none means every one for a list, and 0 else.
    pub instance: Option<u8>,
    /// Namespaces; none means every one.
    pub namespaces: Option<Vec<String>>,
    /// Backup: compress.
    pub compress: bool,
    /// Read back and compare.
    pub check: bool,
    /// Worker threads; none means as many as suit the machine: see [`pool::thread_count`].
    pub threads: Option<u16>,
    /// Only look what would be done.
    pub analyze: bool,
    /// Restore and verify: refuse what has no manifest.
    pub require_manifest: bool,
    /// The server's configuration; none means that of its packages, if it is there.
    pub config: Option<PathBuf>,
    /// Storage devices and files, in the place of those that the configuration names.
    pub devices: Vec<PathBuf>,
    /// Restore (and backup, where devices say that it will be stale): override.
    pub force_stale: bool,
    /// Restore: take another host's backup.
    pub force_host: bool,
    /// Backup: go to a directory that a reboot empties, too.
    pub allow_volatile: bool,
    /// Restore: make segments where they seem to end with this process, too.
    pub allow_private_ipc: bool,
    /// Restore and verify: refuse where no storage device proves that the server has not run since the backup.
    pub require_proof: bool,
    /// Verify: fail as a restore here would, apart from what is in memory now.
    pub restorable: bool,
}

/// A failure, with what was planned as far as that was possible.
#[derive(Debug)]
pub struct Failure {
    /// What went wrong.
    pub error: Error,
    /// What would have been done.
    pub report: Option<Box<Report>>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, report: None }
    }
}

/// Does what is asked for. `tool` is the name and version that the manifest gives.
///
/// Errors: everything in [`error::Code`]; whatever it was, nothing half-done is left that anyone would trust.
pub fn perform(request: &Request, tool: &str, control: &Control) -> std::result::Result<Report, Failure> {
    let since = Instant::now();
    let with_time = |report: &mut Report| report.elapsed_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
    let operation = Operation::new(request, tool, control)?;
    let mut outcome = match request.verb {
        Verb::List => operation.list(),
        Verb::Backup => operation.backup(),
        Verb::Restore => operation.restore(),
        Verb::Verify => operation.verify(),
        Verb::Retire => operation.retire(),
    };
    match &mut outcome {
        Ok(report) => with_time(report),
        Err(failure) => failure.report.iter_mut().for_each(|report| with_time(report)),
    }
    outcome
}

/// A request whose values were checked.
struct Operation<'r> {
    request: &'r Request,
    names: Option<Vec<NamespaceName>>,
    options: Options,
    tool: &'r str,
    control: &'r Control,
}

impl<'r> Operation<'r> {
    fn new(request: &'r Request, tool: &'r str, control: &'r Control) -> Result<Self> {
        // The command line checks these too, with better words; the engine does not rely on it.
        if request.instance.is_some_and(|instance| instance > MAX_INSTANCE) {
            return Err(Error::new(Code::Bug, format!("instance {:?} is out of range", request.instance), ""));
        }
        let name = |name: &String| {
            NamespaceName::new(name).ok_or_else(|| Error::new(Code::Bug, format!("{name:?} is no namespace name"), ""))
        };
        let names = request.namespaces.as_ref().map(|names| names.iter().map(name).collect::<Result<Vec<_>>>()).transpose()?;
        let options = Options { threads: pool::thread_count(request.threads.map(usize::from)), check: request.check };
        Ok(Self { request, names, options, tool, control })
    }

    fn plan_request(&self) -> plan::Request {
        plan::Request {
            instance: self.request.instance.unwrap_or(0),
            namespaces: self.names.clone(),
            compress: self.request.compress,
            require_manifest: self.request.require_manifest,
            allow_volatile: self.request.allow_volatile,
            allow_private_ipc: self.request.allow_private_ipc,
            caller: crate::sys::process::own_caller(),
            page_bytes: asmt_shm::sysv::page_bytes(),
        }
    }

    fn directory(&self) -> Result<PathBuf> {
        self.request.directory.clone().ok_or_else(|| Error::new(Code::Bug, "no directory was given", ""))
    }

    fn new_report(&self) -> Report {
        let directory = self.request.directory.as_ref().map(|path| path.display().to_string());
        Report::new(self.request.verb, directory, self.request.analyze)
    }

    fn list(&self) -> std::result::Result<Report, Failure> {
        let inventory = segments::take()?;
        let mut report = self.new_report().with_inventory(&inventory, self.request.instance, self.names.as_deref());
        report.remarks = plan::list_remarks(&inventory);
        Ok(report)
    }

    fn backup(&self) -> std::result::Result<Report, Failure> {
        let outcome = self.backup_all();
        outcome.map_err(|failure| self.with_possible(failure, |request| self.is_backup_possible(request)))
    }

    /// Adds to a refusal which of the namespaces could be dealt with if the others were left out.
    fn with_possible(&self, mut failure: Failure, is_possible: impl Fn(&plan::Request) -> Result<bool>) -> Failure {
        let is_of_namespaces = matches!(
            failure.error.first().kind,
            error::Kind::Refused | error::Kind::Stale | error::Kind::Damaged | error::Kind::NothingToDo
        );
        let Some(report) = failure.report.as_mut().filter(|_| is_of_namespaces) else { return failure };
        let request = self.plan_request();
        // It is an error's second line: what fails here is left out.
        let names = match self.request.verb {
            Verb::Backup => segments::take().map(|inventory| plan::names_in_memory(&inventory)),
            _ => self
                .directory()
                .and_then(|path| Store::open(&path))
                .and_then(|store| store.list())
                .map(|listing| plan::names_in_backup(&listing)),
        };
        let names = names.unwrap_or_default().remove(&request.instance).unwrap_or_default();
        let possible = plan::possible_alone(&names, &request, |request| is_possible(request).unwrap_or(false));
        report.possible = possible.iter().map(ToString::to_string).collect();
        failure
    }

    fn is_backup_possible(&self, request: &plan::Request) -> Result<bool> {
        self.plan_backup(&self.listing_to_analyze()?, request).map(|(plan, _)| plan.check().is_ok())
    }

    fn is_restore_possible(&self, request: &plan::Request) -> Result<bool> {
        let store = Store::open(&self.directory()?)?;
        let listing = store.list()?;
        self.judge_restore(&store, &listing, request).map(|judged| judged.combined().check().is_ok())
    }

    fn backup_all(&self) -> std::result::Result<Report, Failure> {
        self.control.begin(Phase::Plan, 0);
        let request = self.plan_request();
        // First, or another asmt's attachments would be taken for a server's.
        let _runtime = Runtime::lock(request.instance)?;
        if self.request.analyze {
            let listing = self.listing_to_analyze()?;
            let (plan, _) = self.plan_backup(&listing, &request)?;
            let mut report = self.new_report().with_backup_plan(&plan.namespaces);
            report.reserve_bytes = Some(plan::least_file_bytes(&plan.namespaces));
            report.free_bytes = listing.target.and_then(|target| target.free_bytes);
            return checked(&plan, report);
        }
        let path = self.directory()?;
        // Looked at before the directory is made: what must not be backed up, or not there, leaves no trace.
        let (before, _) = self.plan_backup(&Store::look(&path)?, &request)?;
        checked(&before, self.new_report().with_backup_plan(&before.namespaces))?;
        let store = Store::open_or_create(&path, self.control)?;
        store.lock(Lock::Exclusive)?;
        let listing = store.list()?;
        let (plan, evidence) = self.plan_backup(&listing, &request)?;
        let report = checked(&plan, self.new_report().with_backup_plan(&plan.namespaces))?;
        plan::check_same(&before.namespaces, &plan.namespaces)?;
        self.control.remark(&plan.remarks);
        self.control.begin_changes()?;
        let takes_places = plan.namespaces.iter().any(|namespace| !namespace.superseded.is_empty());
        let old_journals = store.sweep(&listing.leftovers, takes_places)?;
        if !listing.leftovers.sweep.is_empty() {
            self.control
                .note("swept", format!("removed {} files that an interrupted backup had left", listing.leftovers.sweep.len()));
        }
        let run = crate::sys::process::own_run()?;
        let origin = self.origin(&plan, &evidence, &listing);
        let mut staged = copy_out::stage(&store, &run, &plan.namespaces, &origin, self.options, self.control)?;
        let now = self.evidence_for_backup(&listing, request.instance)?;
        check_unchanged(&evidence, &now, Verb::Backup)?;
        // As late as can be: a server writes its last lines when its segments are complete already.
        staged.note_traces(&now.traces);
        let mut report = report.with_staged(&staged.namespaces);
        report.data_bytes = Some(staged.data_bytes);
        report.reserve_bytes = Some(staged.reserved_bytes);
        commit::publish(staged, &old_journals, self.control)?;
        Ok(report)
    }

    /// What a backup would find in its directory; nothing where none is named.
    fn listing_to_analyze(&self) -> Result<Listing> {
        let Some(path) = &self.request.directory else { return Ok(Listing::default()) };
        match Store::open(path) {
            Ok(store) => {
                store.lock(Lock::Shared)?;
                Ok(Listing { target: Some(store.target()?), ..store.list()? })
            }
            // A backup would make it.
            Err(error) if error.first().code == Code::DirectoryMissing => Store::look(path),
            Err(error) => Err(error),
        }
    }

    fn plan_backup(&self, listing: &Listing, request: &plan::Request) -> Result<(Plan<NamespaceBackup>, Evidence)> {
        let mut inventory = segments::take()?;
        if inventory.segments.is_empty() {
            inventory.outlives_caller = Some(look::keeper::outlives_caller()?);
        }
        let mut plan = plan::backup(&inventory, listing, request);
        let evidence = self.evidence_for_backup(listing, request.instance)?;
        staleness::judge_backup(&mut plan, &evidence, self.overrides());
        if inventory.outlives_caller != Some(false) {
            plan::left_out::explain_nothing(&mut plan.refusals, request.namespaces.as_deref(), &evidence.configuration);
        }
        if request.namespaces.is_none() {
            let names = plan::names_in_memory(&inventory);
            plan.remarks.extend(plan::left_out::remarks(&names, request.instance, &evidence.configuration, "in shared memory"));
        }
        Ok((plan, evidence))
    }

    /// What a backup can note. Devices that earlier backups of this server in the directory have noted count, too: this one
    /// may be made without the configuration that names them.
    fn evidence_for_backup(&self, listing: &Listing, instance: u8) -> Result<Evidence> {
        let here = look::server::host()?;
        let mut earlier = staleness::manifests_of(listing, instance);
        earlier.retain(|manifest| manifest.host == here.name && manifest.noted.machine_id == here.machine_id);
        self.evidence(instance, &earlier, None)
    }

    /// What tells whether the server of an instance has run. `manifests` are those of the instance in the directory.
    fn evidence(&self, instance: u8, manifests: &[&format::Manifest], store: Option<&Store>) -> Result<Evidence> {
        let (configuration, devices) = (self.request.config.clone(), self.request.devices.clone());
        look::server::gather(&Places { instance, configuration, devices }, manifests, store)
    }

    fn overrides(&self) -> Overrides {
        let Request { force_stale: stale, force_host: host, require_proof, .. } = *self.request;
        Overrides { stale, host, require_proof }
    }

    fn origin(&self, plan: &Plan<NamespaceBackup>, evidence: &Evidence, listing: &Listing) -> Origin {
        let names = plan.namespaces.iter().map(|namespace| &namespace.name);
        let devices = names.map(|name| (name.clone(), staleness::noted_devices(evidence, name))).collect();
        Origin {
            tool: self.tool.to_owned(),
            created_ms: evidence.host.now_ms,
            host: evidence.host.clone(),
            devices,
            configuration: match &evidence.configuration {
                facts::server::Configuration::Read { path, .. } => Some(path.clone()),
                facts::server::Configuration::NotThere(_) => None,
            },
            settings: plan::settings::configured(&evidence.configuration),
            earlier_uses: staleness::uses_in(listing, evidence.instance),
        }
    }

    fn restore(&self) -> std::result::Result<Report, Failure> {
        let outcome = self.restore_all();
        outcome.map_err(|failure| self.with_possible(failure, |request| self.is_restore_possible(request)))
    }

    fn restore_all(&self) -> std::result::Result<Report, Failure> {
        self.control.begin(Phase::Plan, 0);
        let store = Store::open_backup(&self.directory()?)?;
        store.lock(Lock::Shared)?;
        let request = self.plan_request();
        let mut listing = store.list()?;
        let runtime = Runtime::lock(request.instance)?;
        if self.request.analyze {
            let leftovers = runtime.leftovers()?;
            let mut judged = self.judge_restore_without(&leftovers, &store, &listing, &request)?;
            if !leftovers.is_empty() {
                let text =
                    format!("a killed restore has left {} segments, which the restore would remove first", leftovers.len());
                judged.plan.remarks.push(Remark::new("recovered", text));
            }
            self.check_needed(&judged, &listing)?;
            let plan = judged.combined();
            return checked(&plan, self.new_report().with_restore_plan(&plan.namespaces));
        }
        runtime.recover(self.control)?;
        let mut judged = match self.judge_restore(&store, &listing, &request) {
            Err(error) if error.first().code == Code::ConfigUnreadable => {
                return Err(self.mark_unjudged(&store, &listing, &request, error).into());
            }
            other => other?,
        };
        self.check_needed(&judged, &listing)?;
        self.mark_beginning(&store, &mut listing, &mut judged)?;
        let plan = judged.combined();
        let report = checked(&plan, self.new_report().with_restore_plan(&plan.namespaces))?;
        self.control.remark(&plan.remarks);
        self.control.begin_changes()?;
        let mut journal = runtime.begin_restore(&plan.namespaces)?;
        let threads = plan::threads_within(&judged.inventory, &plan.namespaces, self.options.threads);
        let options = Options { threads, ..self.options };
        let filled = copy_in::fill(&store, &plan.namespaces, &mut journal, options, self.control)?;
        let mut report = report.with_sums(filled.sums().map(|(key, shmid, crc32)| (key, Some(shmid), crc32)));
        report.data_bytes = Some(filled.data_bytes);
        let manifests = staleness::manifests_of(&listing, request.instance);
        // Once more, right before anything is trusted: filling takes its time.
        let now = self.evidence(request.instance, &manifests, None).and_then(|now| {
            check_unchanged(&judged.evidence, &now, Verb::Restore)?;
            if judged.verdict.is_proven { Ok(()) } else { check_silent(&judged.evidence, &now) }
        });
        match now {
            Ok(()) => commit::trust(filled, self.control)?,
            Err(error) => return Err(filled.clean_up_after(error).into()),
        }
        Ok(report)
    }

    /// Fails where there is nothing to restore.
    fn check_needed(&self, judged: &Judged, listing: &Listing) -> std::result::Result<(), Failure> {
        let Some(error) = judged.already_in_memory(listing) else { return Ok(()) };
        let report = self.new_report().with_restore_plan(&judged.plan.namespaces);
        Err(Failure { error, report: Some(Box::new(report)) })
    }

    fn judge_restore(&self, store: &Store, listing: &Listing, request: &plan::Request) -> Result<Judged> {
        self.judge_restore_without(&HashSet::new(), store, listing, request)
    }

    /// Judges a restore as if the segments with some ids were not there.
    fn judge_restore_without(
        &self,
        leftovers: &HashSet<i32>,
        store: &Store,
        listing: &Listing,
        request: &plan::Request,
    ) -> Result<Judged> {
        let mut inventory = segments::take()?;
        inventory.segments.retain(|_, segment| !leftovers.contains(&segment.stat.shmid));
        inventory.outlives_caller = Some(look::keeper::outlives_caller()?);
        let mut plan = plan::restore(listing, &inventory, request);
        // Nobody's segments but the server's and asmt's own tell anything of the server.
        inventory.segments.retain(|_, segment| !plan::is_strangers(segment, &plan.namespaces, &request.caller));
        let (verdict, evidence) = self.verdict(&plan.namespaces, request.instance, store, listing)?;
        if request.namespaces.is_none() {
            let names = plan::names_in_backup(listing);
            plan.remarks.extend(plan::left_out::remarks(&names, request.instance, &evidence.configuration, "in the directory"));
        }
        if verdict.refusals.is_empty() {
            self.count_what_fills(store, &inventory, &mut plan)?;
        }
        let restored = instance::restored_ids(request.instance)?;
        let mut judged = Judged { plan, inventory, evidence, verdict, restored };
        judged.judge_memory(listing, self.overrides());
        Ok(judged)
    }

    /// Reads files where nothing less tells whether there is memory for what they fill.
    fn count_what_fills(&self, store: &Store, inventory: &Inventory, plan: &mut Plan<NamespaceRestore>) -> Result<()> {
        let Some(room) = plan::undecided_room(inventory, plan) else { return Ok(()) };
        let message = format!(
            "memory may not suffice for all {} bytes of {} files: they are read to see what of that is data",
            room.sources.iter().map(|source| source.size_bytes).sum::<u64>(),
            room.sources.len()
        );
        self.control.note("counting", message);
        let threads = plan::threads_within(inventory, &plan.namespaces, self.options.threads);
        let counted = read::count_data(store, &room.sources, room.most_bytes, threads, self.control)?;
        plan::decide_room(inventory, plan, &counted);
        self.control.begin(Phase::Plan, 0);
        Ok(())
    }

    /// Whether a restore of these namespaces of one instance would be accepted, and by what evidence.
    fn verdict(
        &self,
        namespaces: &[NamespaceRestore],
        instance: u8,
        store: &Store,
        listing: &Listing,
    ) -> Result<(Verdict, Evidence)> {
        let mut evidence = self.evidence(instance, &staleness::manifests_of(listing, instance), Some(store))?;
        let verdict = staleness::judge_restore(namespaces, listing, &evidence, self.overrides());
        // Where devices decide, or something speaks against it already, systemd and its journal need not be asked.
        if verdict.is_proven || !verdict.refusals.is_empty() || namespaces.is_empty() {
            return Ok((verdict, evidence));
        }
        look::server::add_history(&mut evidence);
        Ok((staleness::judge_restore(namespaces, listing, &evidence, self.overrides()), evidence))
    }

    /// Notes in the directory that a restore was begun whose configuration cannot be understood: the server may be started
    /// with another one. Gives the error of the configuration, with what more went wrong.
    fn mark_unjudged(&self, store: &Store, listing: &Listing, request: &plan::Request, error: Error) -> Error {
        let marked = look::server::host().and_then(|host| {
            let plan = plan::restore(listing, &segments::take()?, request);
            let manifests = staleness::manifests_of(listing, request.instance);
            let is_here = |namespace: &NamespaceRestore| {
                let manifest = manifests.iter().find(|manifest| manifest.namespace == namespace.name);
                manifest.is_some_and(|manifest| staleness::is_same_place(manifest, &host))
            };
            if finds_segments(&plan) && plan.namespaces.iter().all(is_here) {
                // Nothing has been lost yet: see [`Judged::is_kept`].
                return Ok(());
            }
            let now = use_of(&host)?;
            self.control.begin_changes()?;
            let _lock = store.lock_marks()?;
            let marks = store.marks()?;
            targets(&plan, listing).iter().try_for_each(|target| target.begin_restore(store, &marks, &now))
        });
        match marked {
            Ok(()) => error,
            Err(other) => error.and_while_cleaning_up(other),
        }
    }

    /// Notes in the directory, before anything else is done, that the server may run from now on, whatever comes of this
    /// restore: it may be refused or killed, and the server started. Where a storage device tells, that is not needed.
    ///
    /// Marks are read again under their lock, and judged again: another restore may have noted itself meanwhile.
    fn mark_beginning(&self, store: &Store, listing: &mut Listing, judged: &mut Judged) -> Result<()> {
        let targets = targets(&judged.plan, listing);
        // In an IPC namespace that ends with asmt no server starts.
        let is_private = judged.plan.refusals.iter().any(|problem| problem.code == Code::PrivateIpcNamespace);
        if targets.is_empty() || is_private {
            return Ok(());
        }
        let _lock = store.lock_marks()?;
        listing.marks = store.marks()?;
        judged.verdict = staleness::judge_restore(&judged.plan.namespaces, listing, &judged.evidence, self.overrides());
        judged.judge_memory(listing, self.overrides());
        let is_refused = judged.combined().check().is_err();
        if is_refused && !judged.verdict.must_mark && !judged.verdict.has_run {
            return Ok(());
        }
        let now = use_of(&judged.evidence.host)?;
        let has_run = judged.verdict.has_run;
        self.control.begin_changes()?;
        for (target, namespace) in targets.iter().zip(judged.plan.namespaces.clone()) {
            if judged.is_kept(&namespace, listing) {
                continue;
            }
            let made_since = judged.made_since(&namespace, listing);
            let has_served = has_run || made_since.is_some() || judged.stripes_differ(&namespace, listing);
            let served_ms = made_since.filter(|_| !has_run).and_then(|segment| segment.stat.changed_ms());
            let now = Use { has_served, served_ms, has_made: !is_refused, ..now.clone() };
            let Err(error) = target.begin_restore(store, &listing.marks, &now) else { continue };
            if judged.verdict.must_mark && !is_refused && !self.request.force_stale {
                return Err(error);
            }
            let title = plan::title(&target.name, target.instance);
            let text = format!("{title}: the directory does not note this restore: {}", error.first().message);
            judged.plan.remarks.push(Remark::new("not-marked", text));
        }
        Ok(())
    }

    /// Marks a backup as used, whatever its state: nothing of it is changed or removed.
    fn retire(&self) -> std::result::Result<Report, Failure> {
        let store = Store::open_backup(&self.directory()?)?;
        store.lock(Lock::Exclusive)?;
        let listing = store.list()?;
        let mut plan = plan::verify(&listing, &self.plan_request());
        // What is damaged may be retired, too, as long as it is known what it is of.
        if !plan.namespaces.is_empty() {
            plan.refusals.retain(|problem| problem.kind != error::Kind::Damaged);
        }
        plan.remarks.clear();
        let report = checked(&plan, self.new_report().with_restore_plan(&plan.namespaces))?;
        let now = use_of(&look::server::host()?)?;
        let _lock = store.lock_marks()?;
        let marks = store.marks()?;
        self.control.begin_changes()?;
        for target in targets(&plan, &listing) {
            target.retire(&store, &marks, &now)?;
        }
        Ok(report)
    }

    fn verify(&self) -> std::result::Result<Report, Failure> {
        self.control.begin(Phase::Plan, 0);
        let store = Store::open_backup(&self.directory()?)?;
        store.lock(Lock::Shared)?;
        let listing = store.list()?;
        let mut plan = self.verify_plan(&listing);
        let instances: BTreeSet<u8> = plan.namespaces.iter().map(|namespace| namespace.instance).collect();
        let mut verdicts = Vec::new();
        for instance in instances {
            let of_instance: Vec<NamespaceRestore> =
                plan.namespaces.iter().filter(|namespace| namespace.instance == instance).cloned().collect();
            let verdict = match self.verdict(&of_instance, instance, &store, &listing) {
                Ok((verdict, _)) => verdict,
                // It keeps a restore from being made, and not the backup from being read; but a path that was typed is meant.
                Err(error) if error.first().code == Code::ConfigUnreadable && self.request.config.is_none() => {
                    Verdict { refusals: error.problems().to_vec(), ..Verdict::default() }
                }
                Err(error) => return Err(error.into()),
            };
            plan.remarks.extend(verdict.remarks.iter().filter(|remark| remark.code != NOT_PROVEN).cloned());
            verdicts.push((instance, verdict));
        }
        let mut report = self.new_report().with_restore_plan(&plan.namespaces);
        let of_backup = plan.refusals.clone();
        report.restorability = Restorability::of(&verdicts, &of_backup);
        if self.request.restorable {
            plan.refusals.extend(verdicts.iter().flat_map(|(_, verdict)| verdict.refusals.iter().cloned()));
        }
        if self.request.analyze {
            return checked(&plan, report);
        }
        // What the plan found wrong does not keep the rest from being read: all of it is listed.
        let is_fatal = |problem: &Problem| match problem.kind {
            error::Kind::Damaged | error::Kind::Stale | error::Kind::Failed => false,
            _ => !problem.code.is_about_restoring(),
        };
        if plan.refusals.iter().any(is_fatal) {
            return checked(&plan, report);
        }
        self.control.remark(&plan.remarks);
        // Files that the plan refuses are not among these.
        let sources: Vec<Source> = plan.namespaces.iter().flat_map(|namespace| &namespace.sources).cloned().collect();
        self.control.begin(Phase::Verify, sources.iter().map(|source| source.size_bytes).sum());
        let findings = read::read_all(&store, &sources, self.options.threads, self.control, self.request.check)?;
        let mut report = report.with_sums(findings.sums.iter().map(|(key, crc32)| (*key, None, *crc32)));
        report.remarks.clone_from(&plan.remarks);
        report.data_bytes = Some(findings.data_bytes);
        let with_damages =
            |refusals: Vec<Problem>| refusals.into_iter().chain(findings.damages.iter().cloned()).collect::<Vec<_>>();
        report.restorability = Restorability::of(&verdicts, &with_damages(of_backup));
        let problems = with_damages(plan.refusals);
        match Error::from_problems(problems) {
            Some(error) => Err(Failure { error, report: Some(Box::new(report)) }),
            None => Ok(report),
        }
    }

    /// What there is to verify: of the instance asked for, or of every one in the directory.
    fn verify_plan(&self, listing: &Listing) -> Plan<NamespaceRestore> {
        let request = self.plan_request();
        if self.request.instance.is_some() {
            return plan::verify(listing, &request);
        }
        let of_files = listing.files.iter().map(|file| file.address.instance);
        let of_manifests = listing.manifests.iter().filter_map(|record| format::instance_of_manifest_name(&record.name));
        let instances: BTreeSet<u8> = of_files.chain(of_manifests).collect();
        let has_name = |instance: u8, name: &NamespaceName| {
            plan::verify(listing, &plan::Request { instance, namespaces: Some(vec![name.clone()]), ..request.clone() }).is_found()
        };
        // A name that another instance has is not missing; one that none has is, and the first of them says so.
        let is_nowhere = |name: &NamespaceName| !instances.iter().any(|instance| has_name(*instance, name));
        let mut all: Option<Plan<NamespaceRestore>> = None;
        for &instance in &instances {
            let of_instance = |name: &&NamespaceName| has_name(instance, name) || all.is_none() && is_nowhere(name);
            let is_there = request.namespaces.as_ref().is_none_or(|names| names.iter().any(|name| has_name(instance, name)));
            let namespaces =
                request.namespaces.as_ref().map(|names| names.iter().filter(of_instance).cloned().collect::<Vec<_>>());
            if !is_there {
                continue;
            }
            let plan = plan::verify(listing, &plan::Request { instance, namespaces, ..request.clone() });
            match &mut all {
                Some(all) => all.extend(plan),
                None => all = Some(plan),
            }
        }
        all.unwrap_or_else(|| plan::verify(listing, &request))
    }
}

/// Code of the remark that nothing proves that the server has not run.
const NOT_PROVEN: &str = "not-proven";

/// A restore as it was planned, with the evidence and what it comes to.
struct Judged {
    plan: Plan<NamespaceRestore>,
    inventory: Inventory,
    evidence: Evidence,
    verdict: Verdict,
    /// Ids of segments that restores have made here; `None` where no restore is known.
    restored: Option<HashSet<i32>>,
}

impl Judged {
    /// The plan with the verdict in it.
    fn combined(&self) -> Plan<NamespaceRestore> {
        let mut plan = self.plan.clone();
        plan.refusals.extend(self.verdict.refusals.iter().cloned());
        plan.remarks.extend(self.verdict.remarks.iter().cloned());
        plan
    }

    /// Why there is nothing to restore: all of it is in memory, as it was backed up or as it was restored, and a start would
    /// take it.
    fn already_in_memory(&self, listing: &Listing) -> Option<Error> {
        let is_there = |namespace: &NamespaceRestore| self.is_kept(namespace, listing) || self.is_restored(namespace, listing);
        if self.plan.namespaces.is_empty() || !self.plan.namespaces.iter().all(is_there) {
            return None;
        }
        let names: Vec<&NamespaceName> = self.plan.namespaces.iter().map(|namespace| &namespace.name).collect();
        Some(Error::new(
            Code::AlreadyInMemory,
            format!("{} is in memory already, and clean: nothing needs restoring", plan::titles(&names, self.evidence.instance)),
            "start the server as it is",
        ))
    }

    /// Whether what is in memory of a namespace is what a restore has made here, and no server has touched since.
    fn is_restored(&self, namespace: &NamespaceRestore, listing: &Listing) -> bool {
        let Some(ids) = &self.restored else { return false };
        let is_made_here = |source: &Source, segment: &Segment| {
            let is_trusted = match &segment.header {
                Header::Stripe(stripe) => stripe.is_trusted(),
                _ => true,
            };
            is_trusted && ids.contains(&segment.stat.shmid) && segment.stat.size_bytes == source.size_bytes
        };
        self.holds_all(namespace, is_made_here) && !self.stripes_differ(namespace, listing)
    }

    /// Whether the segments of a namespace that were backed up are still in memory as they were, as far as can be seen: not
    /// made anew since. A restore that was begun by mistake must not make the backup look used.
    fn is_kept(&self, namespace: &NamespaceRestore, listing: &Listing) -> bool {
        let manifests = staleness::manifests_of(listing, self.evidence.instance);
        let is_same_place = |manifest: &&&format::Manifest| staleness::is_same_place(manifest, &self.evidence.host);
        let manifest = manifests.iter().find(|manifest| manifest.namespace == namespace.name).filter(is_same_place);
        let Some(manifest) = manifest else { return false };
        let is_it = |source: &Source, segment: &Segment| {
            let is_older = || segment.stat.changed_ms().is_some_and(|at_ms| at_ms <= manifest.created_ms);
            // Manifests of before ids were noted have the time alone.
            manifest.shmid_of(source.key).map_or_else(is_older, |shmid| shmid == segment.stat.shmid)
        };
        self.holds_all(namespace, is_it) && !self.stripes_differ(namespace, listing)
    }

    /// Whether every segment of a namespace is in memory, is the one that is meant, and is attached by nobody, with a base
    /// that a start would trust. A server that has run has made base anew.
    fn holds_all(&self, namespace: &NamespaceRestore, is_it: impl Fn(&Source, &Segment) -> bool) -> bool {
        namespace.sources.iter().all(|source| {
            self.inventory.segments.get(&source.key).is_some_and(|segment| {
                let is_clean = match &segment.header {
                    Header::Base(base) => base.shutdown == SHUTDOWN_CLEAN,
                    _ => true,
                };
                is_clean && segment.stat.attached_count == 0 && is_it(source, segment)
            })
        })
    }

    /// A segment in memory that shows that a server has run since a namespace was backed up: of any namespace of the
    /// instance, for one server makes them all. What restores have made here shows nothing, nor what was there already when
    /// the backup was made.
    fn made_since(&self, namespace: &NamespaceRestore, listing: &Listing) -> Option<&Segment> {
        let host = &self.evidence.host;
        let manifests = staleness::manifests_of(listing, self.evidence.instance);
        let is_same_place = |manifest: &&&format::Manifest| staleness::is_same_place(manifest, host);
        // What another asmt is at work on is no server's.
        if self.plan.refusals.iter().any(|problem| problem.code == Code::AnotherAsmt) {
            return None;
        }
        let made_ms = manifests.iter().find(|manifest| manifest.namespace == namespace.name).filter(is_same_place);
        let made_ms = made_ms.map(|manifest| manifest.created_ms);
        let was_there = |segment: &&Segment, name: Option<&NamespaceName>| {
            let of_name = |manifest: &&&format::Manifest| Some(&manifest.namespace) == name && !manifest.noted.shmids.is_empty();
            // Where its ids were noted, they tell; times are those of clocks, to the second.
            if let Some(manifest) = manifests.iter().filter(is_same_place).find(of_name) {
                return manifest.shmid_of(segment.key()) == Some(segment.stat.shmid);
            }
            made_ms.zip(segment.stat.changed_ms()).is_some_and(|(made_ms, at_ms)| at_ms <= made_ms)
        };
        let is_restored = |segment: &&Segment, name: Option<&NamespaceName>| match &self.restored {
            Some(ids) => ids.contains(&segment.stat.shmid),
            // Another runtime directory may know; here the marks are all that is known.
            None => name.is_some_and(|name| self.has_made_here(name, listing)),
        };
        let of_instance = self.inventory.groups().into_iter().filter(|group| group.instance == self.evidence.instance);
        of_instance
            .flat_map(|group| {
                // Without its base, an index is known by its nsid.
                let is_its = |manifest: &&&format::Manifest| group.nsid.is_some() && manifest.nsid == group.nsid;
                let by_nsid = || manifests.iter().find(is_its).map(|manifest| manifest.namespace.clone());
                let name = group.name.clone().or_else(by_nsid);
                group.keys.into_iter().map(move |key| (key, name.clone()))
            })
            .filter_map(|(key, name)| Some((self.inventory.segments.get(&key)?, name)))
            .find(|(segment, name)| !was_there(segment, name.as_ref()) && !is_restored(segment, name.as_ref()))
            .map(|(segment, _)| segment)
    }

    /// Whether a restore of a namespace that was begun in this boot and IPC namespace went on to make segments.
    fn has_made_here(&self, name: &NamespaceName, listing: &Listing) -> bool {
        let (host, own_name) = (&self.evidence.host, mark::used_name(self.evidence.instance, name));
        let marks = listing.marks.iter().filter(|(name, _)| *name == own_name).filter_map(|(_, mark)| mark.as_ref().ok());
        marks.flat_map(|mark| &mark.restores).any(|used| used.has_made && used.is_in(&host.boot_id, &host.ipc_namespace))
    }

    /// Adds to the verdict what is in memory: a server's segments refuse a restore beside them, and where they are in its
    /// way they are not named for removal.
    fn judge_memory(&mut self, listing: &Listing, overrides: Overrides) {
        if self.verdict.is_proven {
            return;
        }
        for namespace in &self.plan.namespaces.clone() {
            let made_since = self.made_since(namespace, listing).cloned();
            if made_since.is_none() && !self.stripes_differ(namespace, listing) {
                continue;
            }
            let mut is_in_the_way = false;
            for refusal in &mut self.plan.refusals {
                let is_its = refusal.namespace.as_ref() == Some(&namespace.name);
                is_in_the_way |= refusal.code == Code::SegmentAttached && is_its;
                if refusal.code == Code::SegmentsExist && is_its {
                    is_in_the_way = true;
                    refusal.hint = plan::SERVED_HINT.to_owned();
                }
            }
            if let Some(segment) = made_since.filter(|_| !is_in_the_way) {
                let problem = staleness::made_since_problem(&namespace.name, &segment);
                if overrides.stale {
                    let text = format!("OVERRIDDEN BY --force-stale: {}", problem.message);
                    self.verdict.remarks.push(Remark::new("overridden", text));
                } else {
                    self.verdict.refusals.push(problem);
                }
            }
        }
    }

    /// Whether stripes of a namespace are in memory, and of another set than those of the backup.
    fn stripes_differ(&self, namespace: &NamespaceRestore, listing: &Listing) -> bool {
        let keys: BTreeSet<_> = namespace.sources.iter().map(|source| source.key).collect();
        let random_of = |header: &Header| match header {
            Header::Stripe(stripe) => Some(stripe.random),
            _ => None,
        };
        listing.files.iter().filter(|file| keys.contains(&file.key)).any(|file| {
            let in_memory = self.inventory.segments.get(&file.key).and_then(|segment| random_of(&segment.header));
            in_memory.zip(random_of(&file.header)).is_some_and(|(now, backed_up)| now != backed_up)
        })
    }
}

/// Whether segments of what is to be restored are in memory.
fn finds_segments(plan: &Plan<NamespaceRestore>) -> bool {
    let is_of_segments = |code| matches!(code, Code::SegmentsExist | Code::SegmentAttached | Code::AnotherAsmt);
    plan.refusals.iter().any(|problem| is_of_segments(problem.code))
}

/// Fails if a device or the configuration says something else than before.
fn check_unchanged(before: &Evidence, now: &Evidence, verb: Verb) -> Result<()> {
    let Some(what) = look::server::first_difference(before, now) else { return Ok(()) };
    let (doing, hint) = match verb {
        Verb::Restore => ("restored", STARTED_MEANWHILE),
        _ => ("backed up", "make sure that the server stays stopped, then run it again"),
    };
    Err(Error::new(Code::BackupStale, format!("{what} changed while the node was {doing}"), hint))
}

/// Fails if the server has written to something since the first look: it has been started.
fn check_silent(before: &Evidence, now: &Evidence) -> Result<()> {
    for trace in &before.traces {
        if now.unseen.contains(&trace.path) {
            return Err(Error::io("stat or open", &trace.path, std::io::Error::from_raw_os_error(libc::EACCES)));
        }
        let is_same = now.traces.iter().any(|other| other == trace);
        let is_there = now.traces.iter().any(|other| other.path == trace.path);
        if is_there && !is_same {
            return Err(Error::new(
                Code::BackupStale,
                format!("{} was written to while the node was restored", trace.path),
                STARTED_MEANWHILE,
            ));
        }
    }
    Ok(())
}

/// A use of a backup by this run.
fn use_of(host: &Host) -> Result<Use> {
    Ok(Use {
        at_ms: host.now_ms,
        host: host.name.clone(),
        boot_id: host.boot_id.clone(),
        ipc_namespace: Some(host.ipc_namespace.clone()),
        id: Some(format!("{}-{}", crate::sys::process::own_run()?, host.now_ms)),
        has_served: false,
        served_ms: None,
        has_made: false,
    })
}

/// The backups of a plan as what is to be marked.
fn targets(plan: &Plan<NamespaceRestore>, listing: &Listing) -> Vec<Target> {
    let target = |namespace: &NamespaceRestore| Target {
        instance: namespace.instance,
        name: namespace.name.clone(),
        identity: staleness::identity_of(namespace, listing),
    };
    plan.namespaces.iter().map(target).collect()
}

/// The report, with the plan's remarks; a failure if the plan must not be executed.
fn checked<T>(plan: &Plan<T>, mut report: Report) -> std::result::Result<Report, Failure> {
    report.remarks.clone_from(&plan.remarks);
    match plan.check() {
        Ok(()) => Ok(report),
        Err(error) => Err(Failure { error, report: Some(Box::new(report)) }),
    }
}
