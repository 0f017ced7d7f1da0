//! One file for each verb: what `perform` does, step by step.

use crate::error::{self, Code, Error, Result};
use crate::facts::directory::Listing;
use crate::facts::server::{Evidence, Host};
use crate::format;
use crate::format::mark::UseRecord;
use crate::hints::STARTED_MEANWHILE;
use crate::look::server::Places;
use crate::look::{self, segments};
use crate::operations::report::{Report, Verb};
use crate::plan::staleness::{self, Overrides, Verdict};
use crate::plan::{self, NamespaceRestore, Plan};
use crate::progress::{Control, Phase};
use crate::store::Store;
use crate::work::job::Options;
use crate::work::marking::MarkTarget;
use crate::work::pool;
use asmt_shm::{MAX_INSTANCE, NamespaceName};
use std::cell::Cell;
use std::path::PathBuf;
use std::time::{Duration, Instant};

mod backup;
mod build;
mod export;
mod judged;
mod list;
mod outcome;
mod preflight;
mod replacing;
pub mod report;
mod request;
mod restore;
mod retire;
mod verify;
mod waiting;

pub use build::{Build, build};
pub use outcome::{ErrorText, Outcome};
pub use request::{
    Asked, BackupRequest, ExportRequest, Leg, ListRequest, PreflightRequest, Request, RestoreRequest, RetireRequest,
    VerifyRequest,
};

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
/// Errors: everything in [`error::Code`]; whatever it was, nothing half-done is left that anyone
/// would trust.
pub fn perform(request: &Request, tool: &str, control: &Control) -> std::result::Result<Report, Failure> {
    let since = Instant::now();
    let asked = Asked::from(request.clone());
    let operation = Operation::new(&asked, tool, control)?;
    let mut outcome = match asked.verb {
        Verb::List => operation.list(),
        Verb::Backup => operation.backup(),
        Verb::Restore => operation.restore(),
        Verb::Verify => operation.verify(),
        Verb::Retire => operation.retire(),
        Verb::Export => operation.export(),
        Verb::Preflight => operation.preflight(),
    };
    // Waiting for the server is no part of the work.
    let elapsed = since.elapsed().saturating_sub(operation.waited.get());
    let with_time = |report: &mut Report| report.elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    match &mut outcome {
        Ok(report) => with_time(report),
        Err(failure) => failure.report.iter_mut().for_each(|report| with_time(report)),
    }
    outcome
}

/// A request whose values were checked.
pub(super) struct Operation<'r> {
    request: &'r Asked,
    names: Option<Vec<NamespaceName>>,
    options: Options,
    /// This host, as it was when the operation began.
    host: Host,
    tool: &'r str,
    control: &'r Control,
    /// How long it has waited for the server.
    waited: Cell<Duration>,
}

impl<'r> Operation<'r> {
    fn new(request: &'r Asked, tool: &'r str, control: &'r Control) -> Result<Self> {
        // The command line checks these too, with better words; the engine does not rely on it.
        if request.instance.is_some_and(|instance| instance > MAX_INSTANCE) {
            return Err(Error::new(Code::Bug, format!("instance {:?} is out of range", request.instance), ""));
        }
        let name = |name: &String| {
            NamespaceName::new(name).ok_or_else(|| Error::new(Code::Bug, format!("{name:?} is not a valid namespace name"), ""))
        };
        let names = request.namespaces.as_ref().map(|names| names.iter().map(name).collect::<Result<Vec<_>>>()).transpose()?;
        let options = Options { threads: pool::thread_count(request.threads.map(usize::from)), check: request.check };
        Ok(Self { request, names, options, host: look::server::host()?, tool, control, waited: Cell::default() })
    }

    fn plan_request(&self) -> plan::Request {
        plan::Request {
            instance: self.request.instance.unwrap_or(0),
            namespaces: self.names.clone(),
            form: self.request.form(),
            require_manifest: self.request.require_manifest,
            replace: self.request.replace.then(plan::Fates::new),
            allow_volatile: self.request.allow_volatile,
            allow_private_ipc: self.request.allow_private_ipc,
            caller: crate::sys::process::own_caller(),
            host: self.host.clone(),
            page_bytes: asmt_shm::sysv::page_bytes(),
        }
    }

    fn directory(&self) -> Result<PathBuf> {
        self.request.directory.clone().ok_or_else(|| Error::new(Code::Bug, "no directory was given", ""))
    }

    /// Tells whoever watches which passes over this many bytes are to come: `first`, the copy, and
    /// the comparison.
    fn expect_passes(&self, first: Option<Phase>, bytes: u64) {
        let check = self.options.check.then_some(Phase::Check);
        let passes: Vec<_> = first.into_iter().chain([Phase::Copy]).chain(check).map(|phase| (phase, bytes)).collect();
        self.control.expect_passes(&passes);
    }

    fn new_report(&self) -> Report {
        let directory = self.request.directory.as_ref().map(|path| path.display().to_string());
        Report::new(self.request.verb, directory, self.request.analyze)
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
        let mut names = names.unwrap_or_default().remove(&request.instance).unwrap_or_default();
        // What was found while it was read does not show in a plan.
        for problem in failure.error.problems() {
            problem.namespace.as_ref().map(|name| names.remove(name));
        }
        let possible = plan::possible_alone(&names, &request, |request| is_possible(request).unwrap_or(false));
        report.possible = possible.iter().map(ToString::to_string).collect();
        failure
    }

    /// What tells whether the server of an instance has run. `manifests` are those of the instance
    /// in the directory.
    fn evidence(&self, instance: u8, manifests: &[&format::Manifest], store: Option<&Store>) -> Result<Evidence> {
        self.evidence_of(instance, manifests, store, false)
    }

    /// The same; `skips_volatile` leaves out what a reboot takes away.
    fn evidence_of(
        &self,
        instance: u8,
        manifests: &[&format::Manifest],
        store: Option<&Store>,
        skips_volatile: bool,
    ) -> Result<Evidence> {
        let (configuration, devices) = (self.request.config.clone(), self.request.devices.clone());
        look::server::gather(&Places { instance, configuration, devices, skips_volatile }, manifests, store)
    }

    fn overrides(&self) -> Overrides {
        let Asked { force_stale: stale, force_host: host, require_proof, .. } = *self.request;
        Overrides { stale, host, require_proof }
    }

    /// Whether a restore of these namespaces of one instance would be accepted, and by what
    /// evidence.
    fn verdict(
        &self,
        namespaces: &[NamespaceRestore],
        instance: u8,
        store: Option<&Store>,
        listing: &Listing,
    ) -> Result<(Verdict, Evidence)> {
        let mut evidence = self.evidence(instance, &listing.manifests_of(instance), store)?;
        let verdict = staleness::judge_restore(namespaces, listing, &evidence, self.overrides());
        // Where devices decide, or something speaks against it already, systemd and its journal
        // need not be asked.
        if verdict.is_proven || !verdict.refusals.is_empty() || namespaces.is_empty() {
            return Ok((verdict, evidence));
        }
        look::server::add_history(&mut evidence);
        Ok((staleness::judge_restore(namespaces, listing, &evidence, self.overrides()), evidence))
    }
}

/// Fails if a device or the configuration says something else than before.
pub(super) fn check_unchanged(before: &Evidence, now: &Evidence, verb: Verb) -> Result<()> {
    let Some(what) = look::server::first_difference(before, now) else { return Ok(()) };
    let (doing, hint) = match verb {
        Verb::Restore => ("the node was restored", STARTED_MEANWHILE),
        Verb::Export => ("the backup was exported", "make sure that the server stays stopped, then try again"),
        _ => ("the node was backed up", "make sure that the server stays stopped, then try again"),
    };
    Err(Error::new(Code::BackupStale, format!("{what} changed while {doing}"), hint))
}

/// A use of a backup by this run.
pub(super) fn use_of(host: &Host) -> Result<UseRecord> {
    Ok(UseRecord {
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
pub(super) fn targets(plan: &Plan<NamespaceRestore>, listing: &Listing) -> Vec<MarkTarget> {
    let target = |namespace: &NamespaceRestore| MarkTarget {
        instance: namespace.instance,
        name: namespace.name.clone(),
        identity: staleness::identity_of(namespace, listing),
    };
    plan.namespaces.iter().map(target).collect()
}

/// The report, with the plan's remarks; a failure if the plan must not be executed.
pub(super) fn checked<T>(plan: &Plan<T>, mut report: Report) -> std::result::Result<Report, Failure> {
    report.remarks.clone_from(&plan.remarks);
    match plan.check() {
        Ok(()) => Ok(report),
        Err(error) => Err(Failure { error, report: Some(Box::new(report)) }),
    }
}
