//! asmt's engine: backs up and restores Aerospike's System V shared memory. It knows neither Node nor a terminal.
//!
//! Data flows one way: [`inventory`], [`store::Listing`] and [`devices`] → [`plan`] and [`freshness`] (pure, printable,
//! refusable) → [`transfer`] or [`fill`] (temporaries only; parallel; stoppable) → [`commit`] (few, ordered, durable
//! steps) → [`report`].
//!
//! Promise: after [`perform`] there is either the whole old state or the whole new one, whatever failed. Must never:
//! print, end the process, or panic for what a file, a segment or the system says.

pub mod checksum;
pub mod codec;
pub mod commit;
pub mod configuration;
pub mod devices;
pub mod durable;
pub mod error;
pub mod fill;
pub mod format;
pub mod freshness;
pub mod huffman;
pub mod inflate;
pub mod inventory;
pub mod kernel;
pub mod lanes;
pub mod layout;
pub mod memory;
pub mod plan;
pub mod pool;
pub mod progress;
pub mod reading;
#[cfg(test)]
mod reference;
pub mod report;
pub mod run;
pub mod runtime;
pub mod segment;
pub mod store;
pub mod stride;
pub mod sysv;
pub mod transfer;
pub mod used;

use error::{Code, Error, Problem, Result};
use freshness::{Facts, Host, Overrides};
use plan::{NamespaceBackup, NamespaceRestore, Plan, Source};
use progress::{Control, Phase};
use report::{Report, Verb};
use runtime::Runtime;
use segment::{MAX_INSTANCE, NamespaceName};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use store::{Lock, Store};
use transfer::{Options, Origin};
use used::{Marked, Target, Use};

/// What a caller asks for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Which operation.
    pub verb: Verb,
    /// Directory; not for a list.
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
    /// Backup: go to a file system in memory, too.
    pub allow_volatile: bool,
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
            caller: run::Caller::own(),
            page_bytes: sysv::page_bytes(),
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
        let inventory = inventory::take()?;
        let mut report = self.new_report().with_inventory(&inventory, self.request.instance, self.names.as_deref());
        report.remarks = plan::list_remarks(&inventory);
        Ok(report)
    }

    fn backup(&self) -> std::result::Result<Report, Failure> {
        let path = self.directory()?;
        self.control.begin(Phase::Plan, 0);
        let request = self.plan_request();
        if self.request.analyze {
            let listing = match Store::open(&path) {
                Ok(store) => store.list()?,
                // A backup would make it.
                Err(error) if error.first().code == Code::DirectoryMissing => Store::look(&path)?,
                Err(error) => return Err(error.into()),
            };
            let (plan, _) = self.plan_backup(&listing, &request)?;
            let report = self.new_report().with_backup_plan(&plan.namespaces);
            return checked(&plan, report);
        }
        // First, or another asmt's attachments would be taken for a server's.
        let _runtime = Runtime::lock(request.instance)?;
        // Looked at before the directory is made: what must not be backed up, or not there, leaves no trace.
        let (before, _) = self.plan_backup(&Store::look(&path)?, &request)?;
        checked(&before, self.new_report().with_backup_plan(&before.namespaces))?;
        let store = Store::open_or_create(&path)?;
        store.lock(Lock::Exclusive)?;
        let listing = store.list()?;
        let (plan, facts) = self.plan_backup(&listing, &request)?;
        let report = checked(&plan, self.new_report().with_backup_plan(&plan.namespaces))?;
        plan::check_same(&before.namespaces, &plan.namespaces)?;
        let takes_places = plan.namespaces.iter().any(|namespace| !namespace.superseded.is_empty());
        let old_journals = store.sweep(&listing.leftovers, takes_places)?;
        if !listing.leftovers.sweep.is_empty() {
            self.control
                .note("swept", format!("removed {} files that an interrupted backup had left", listing.leftovers.sweep.len()));
        }
        let run = run::RunId::own()?;
        let staged = transfer::stage(&store, &run, &plan.namespaces, &self.origin(&plan, facts), self.options, self.control)?;
        let manifests: Vec<format::Manifest> = staged.namespaces.iter().map(|namespace| namespace.manifest.clone()).collect();
        let mut report = report.with_manifests(&manifests);
        report.data_bytes = Some(staged.data_bytes);
        report.reserve_bytes = Some(staged.reserved_bytes);
        commit::publish(staged, &old_journals, self.control)?;
        Ok(report)
    }

    fn plan_backup(&self, listing: &store::Listing, request: &plan::Request) -> Result<(Plan<NamespaceBackup>, Facts)> {
        let mut plan = plan::backup(&inventory::take()?, listing, request);
        let facts = self.facts(request.instance, plan.namespaces.iter().map(|namespace| &namespace.name), None)?;
        freshness::judge_backup(&mut plan, &facts, self.overrides());
        Ok((plan, facts))
    }

    /// What tells whether the server of an instance has run.
    fn facts<'n>(&self, instance: u8, names: impl Iterator<Item = &'n NamespaceName>, store: Option<&Store>) -> Result<Facts> {
        let (configuration, devices) = (self.request.config.clone(), self.request.devices.clone());
        let places = devices::Places { instance, configuration, devices };
        devices::gather(&places, &names.cloned().collect::<Vec<_>>(), store)
    }

    fn overrides(&self) -> Overrides {
        Overrides { stale: self.request.force_stale, host: self.request.force_host }
    }

    fn origin(&self, plan: &Plan<NamespaceBackup>, facts: Facts) -> Origin {
        let names = plan.namespaces.iter().map(|namespace| &namespace.name);
        let devices = names.map(|name| (name.clone(), freshness::noted_devices(&facts, name))).collect();
        Origin { tool: self.tool.to_owned(), created_ms: now_ms(), host: facts.host, devices }
    }

    fn restore(&self) -> std::result::Result<Report, Failure> {
        self.control.begin(Phase::Plan, 0);
        let store = Store::open(&self.directory()?)?;
        store.lock(Lock::Shared)?;
        let request = self.plan_request();
        let listing = store.list()?;
        if self.request.analyze {
            let (plan, ..) = self.plan_restore(&store, &listing, &request)?;
            return checked(&plan, self.new_report().with_restore_plan(&plan.namespaces));
        }
        let runtime = Runtime::lock(request.instance)?;
        runtime.recover(self.control)?;
        let (plan, facts, must_mark) = self.plan_restore(&store, &listing, &request)?;
        let report = checked(&plan, self.new_report().with_restore_plan(&plan.namespaces))?;
        let mut journal = runtime.begin_restore(&plan.namespaces)?;
        let filled = fill::fill(&store, &plan.namespaces, &mut journal, self.options, self.control)?;
        let mut report = report.with_sums(filled.sums().map(|(key, shmid, crc32)| (key, Some(shmid), crc32)));
        report.data_bytes = Some(filled.data_bytes);
        self.look_again(request.instance, &facts)?;
        let marked = Marked::restored(&store, targets(&plan, &listing), &must_mark, &use_of(&facts.host), &mut report.remarks)?;
        match commit::trust(filled, self.control) {
            Ok(()) => Ok(report),
            Err(error) => Err(marked.take_back(error).into()),
        }
    }

    fn plan_restore(
        &self,
        store: &Store,
        listing: &store::Listing,
        request: &plan::Request,
    ) -> Result<(Plan<NamespaceRestore>, Facts, BTreeSet<NamespaceName>)> {
        let mut plan = plan::restore(listing, &inventory::take()?, request);
        let facts = self.facts(request.instance, plan.namespaces.iter().map(|namespace| &namespace.name), Some(store))?;
        let must_mark = freshness::judge_restore(&mut plan, listing, &facts, self.overrides());
        Ok((plan, facts, must_mark))
    }

    /// Asks the devices once more, right before anything is trusted: filling takes its time.
    fn look_again(&self, instance: u8, before: &Facts) -> Result<()> {
        let now = self.facts(instance, before.namespaces.keys(), None)?;
        let differs = |name: &&NamespaceName| now.namespaces.get(*name) != before.namespaces.get(*name);
        match before.namespaces.keys().find(differs) {
            None => Ok(()),
            Some(name) => Err(Error::new(
                Code::BackupStale,
                format!("namespace '{name}': a storage device or the configuration changed while it was restored"),
                "make sure that the server stays stopped during a restore, then run it again",
            )),
        }
    }

    /// Marks a backup as used, whatever its state: nothing of it is changed or removed.
    fn retire(&self) -> std::result::Result<Report, Failure> {
        let store = Store::open(&self.directory()?)?;
        store.lock(Lock::Exclusive)?;
        let listing = store.list()?;
        let mut plan = plan::verify(&listing, &self.plan_request());
        // What is damaged may be retired, too, as long as it is known what it is of.
        if !plan.namespaces.is_empty() {
            plan.refusals.retain(|problem| problem.kind != error::Kind::Damaged);
        }
        plan.remarks.clear();
        let report = checked(&plan, self.new_report().with_restore_plan(&plan.namespaces))?;
        let now = use_of(&devices::host()?);
        for target in targets(&plan, &listing) {
            target.retire(&store, &now)?;
        }
        Ok(report)
    }

    fn verify(&self) -> std::result::Result<Report, Failure> {
        self.control.begin(Phase::Plan, 0);
        let store = Store::open(&self.directory()?)?;
        store.lock(Lock::Shared)?;
        let listing = store.list()?;
        let mut plan = self.verify_plan(&listing);
        let instances: BTreeSet<u8> = plan.namespaces.iter().map(|namespace| namespace.instance).collect();
        for instance in instances {
            let of_instance = plan.namespaces.iter().filter(|namespace| namespace.instance == instance);
            let facts = self.facts(instance, of_instance.map(|namespace| &namespace.name), Some(&store))?;
            freshness::judge_verify(&mut plan, instance, &listing, &facts);
        }
        let report = self.new_report().with_restore_plan(&plan.namespaces);
        if self.request.analyze {
            return checked(&plan, report);
        }
        // What the plan found wrong does not keep the rest from being read: all of it is listed.
        let is_fatal = |problem: &Problem| match problem.kind {
            error::Kind::Damaged | error::Kind::Stale | error::Kind::Failed => false,
            _ => problem.code != Code::WritableByOthers,
        };
        if plan.refusals.iter().any(is_fatal) {
            return checked(&plan, report);
        }
        // Files that the plan refuses are not among these.
        let sources: Vec<Source> = plan.namespaces.iter().flat_map(|namespace| &namespace.sources).cloned().collect();
        self.control.begin(Phase::Verify, sources.iter().map(|source| source.size_bytes).sum());
        let findings = reading::read_all(&store, &sources, self.options.threads, self.control, self.request.check)?;
        let mut report = report.with_sums(findings.sums.iter().map(|(key, crc32)| (*key, None, *crc32)));
        report.remarks.clone_from(&plan.remarks);
        report.data_bytes = Some(sources.iter().map(|source| source.file_bytes).sum());
        let problems = plan.refusals.iter().cloned().chain(findings.damages).collect();
        match Error::from_problems(problems) {
            Some(error) => Err(Failure { error, report: Some(Box::new(report)) }),
            None => Ok(report),
        }
    }

    /// What there is to verify: of the instance asked for, or of every one in the directory.
    fn verify_plan(&self, listing: &store::Listing) -> Plan<NamespaceRestore> {
        let request = self.plan_request();
        if self.request.instance.is_some() {
            return plan::verify(listing, &request);
        }
        let of_files = listing.files.iter().map(|file| file.address.instance);
        let of_manifests = listing.manifests.iter().filter_map(|record| format::instance_of_manifest_name(&record.name));
        let instances: BTreeSet<u8> = of_files.chain(of_manifests).collect();
        let mut all: Option<Plan<NamespaceRestore>> = None;
        for instance in instances {
            // A name that another instance has is not missing.
            let has_name = |name: &&NamespaceName| {
                plan::verify(listing, &plan::Request { instance, namespaces: Some(vec![(*name).clone()]), ..request.clone() })
                    .is_found()
            };
            let namespaces = request.namespaces.as_ref().map(|names| names.iter().filter(has_name).cloned().collect::<Vec<_>>());
            if namespaces.as_ref().is_some_and(Vec::is_empty) {
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

/// Now, in milliseconds since 1970.
fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

fn use_of(host: &Host) -> Use {
    Use { at_ms: now_ms(), host: host.name.clone(), boot_id: host.boot_id.clone() }
}

/// The backups of a plan as what is to be marked.
fn targets(plan: &Plan<NamespaceRestore>, listing: &store::Listing) -> Vec<Target> {
    let target = |namespace: &NamespaceRestore| {
        let (backup_ms, backup_boot_id) = freshness::identity_of(namespace, listing);
        let name = used::used_name(namespace.instance, &namespace.name);
        let earlier = listing.marks.iter().find(|(found, _)| *found == name).map(|(_, mark)| mark.clone());
        Target { instance: namespace.instance, name: namespace.name.clone(), backup_ms, backup_boot_id, earlier }
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
