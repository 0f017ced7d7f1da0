//! What a caller asks for: a request for each verb, with the options that mean something to it.
//!
//! Promise: a request that names an option of another verb cannot be built, nor read from JSON.
//! [`Asked`] has the options of all verbs, as the operations share most of them.

use crate::format::Form;
use crate::operations::report::Verb;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case")]
#[cfg_attr(test, derive(ts_rs::TS))]
pub enum Request {
    /// List what is in shared memory.
    List(ListRequest),
    /// Copy segments to a directory.
    Backup(BackupRequest),
    /// Bring segments back from a directory.
    Restore(RestoreRequest),
    /// Check a backup at rest.
    Verify(VerifyRequest),
    /// Mark a backup as used.
    Retire(RetireRequest),
    /// Write a backup anew, in a form that ASMT restores.
    Export(ExportRequest),
    /// Say what would stand in the way of a backup or a restore.
    Preflight(PreflightRequest),
}

/// What a preflight is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(test, derive(ts_rs::TS))]
pub enum Leg {
    /// A backup.
    Backup,
    /// A restore.
    Restore,
}

/// Request for a preflight. The options are those of the backup and the restore that it is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct PreflightRequest {
    /// What it is about; null means both, as far as they apply.
    pub leg: Option<Leg>,
    /// Directory; null for a backup of which nothing is known but what is in memory.
    pub directory: Option<PathBuf>,
    /// Instance; null means 0.
    pub instance: Option<u8>,
    /// Namespaces; null means every one.
    pub namespaces: Option<Vec<String>>,
    /// As in [`BackupRequest`].
    pub compress: bool,
    /// As in [`BackupRequest`].
    pub columns: bool,
    /// As in [`RestoreRequest`].
    pub require_manifest: bool,
    /// The server's configuration; null means that of its packages, if it is there.
    pub config: Option<PathBuf>,
    /// Storage devices and files, instead of those that the configuration names.
    pub devices: Vec<PathBuf>,
    /// As in [`RestoreRequest`].
    pub require_proof: bool,
    /// As in [`BackupRequest`].
    pub replace: bool,
    /// As in [`BackupRequest`] and [`RestoreRequest`].
    pub force_stale: bool,
    /// As in [`RestoreRequest`].
    pub force_host: bool,
    /// As in [`BackupRequest`].
    pub allow_volatile: bool,
    /// As in [`RestoreRequest`].
    pub allow_private_ipc: bool,
}

/// Request for an export.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct ExportRequest {
    /// Directory of the backup.
    pub directory: PathBuf,
    /// Directory that is written to.
    pub output: PathBuf,
    /// Instance; null means 0.
    pub instance: Option<u8>,
    /// Namespaces; null means every one.
    pub namespaces: Option<Vec<String>>,
    /// Compress as ASMT does it.
    pub compress: bool,
    /// Read everything back and compare.
    pub check: bool,
    /// Worker threads; null means as many as suit the machine.
    pub threads: Option<u16>,
    /// Only look what would be done.
    pub analyze: bool,
    /// The server's configuration; null means that of its packages, if it is there.
    pub config: Option<PathBuf>,
    /// Storage devices and files, instead of those that the configuration names.
    pub devices: Vec<PathBuf>,
    /// Export a backup that a restore would refuse as outdated.
    pub force_stale: bool,
    /// Export a backup of another host.
    pub force_host: bool,
    /// Write to a file system in memory, too.
    pub allow_volatile: bool,
}

/// Request for a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct ListRequest {
    /// Instance; null means every one.
    pub instance: Option<u8>,
    /// Namespaces; null means every one.
    pub namespaces: Option<Vec<String>>,
}

/// Request for a backup.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct BackupRequest {
    /// Directory; null only where the backup is analyzed.
    pub directory: Option<PathBuf>,
    /// Instance; null means 0.
    pub instance: Option<u8>,
    /// Namespaces; null means every one.
    pub namespaces: Option<Vec<String>>,
    /// Compress as ASMT does it.
    pub compress: bool,
    /// Compress by columns, in a form that only asmt reads; not together with `compress`.
    pub columns: bool,
    /// Read everything back and compare.
    pub check: bool,
    /// Worker threads; null means as many as suit the machine.
    pub threads: Option<u16>,
    /// Only look what would be done.
    pub analyze: bool,
    /// The server's configuration; null means that of its packages, if it is there.
    pub config: Option<PathBuf>,
    /// Storage devices and files, instead of those that the configuration names.
    pub devices: Vec<PathBuf>,
    /// Take the place of older backups of the same namespaces.
    pub replace: bool,
    /// Go on where devices say that the backup will be stale.
    pub force_stale: bool,
    /// Allow a directory that a reboot empties.
    pub allow_volatile: bool,
    /// Wait at most this long, in milliseconds, until the server has gone; null means not at all.
    pub wait_ms: Option<u64>,
}

/// Request for a restore.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct RestoreRequest {
    /// Directory.
    pub directory: PathBuf,
    /// Instance; null means 0.
    pub instance: Option<u8>,
    /// Namespaces; null means every one.
    pub namespaces: Option<Vec<String>>,
    /// Read every segment again and compare.
    pub check: bool,
    /// Worker threads; null means as many as suit the machine.
    pub threads: Option<u16>,
    /// Only look what would be done.
    pub analyze: bool,
    /// Refuse what has no manifest.
    pub require_manifest: bool,
    /// The server's configuration; null means that of its packages, if it is there.
    pub config: Option<PathBuf>,
    /// Storage devices and files, instead of those that the configuration names.
    pub devices: Vec<PathBuf>,
    /// Restore even if the backup is stale, used or retired, or if that cannot be checked.
    pub force_stale: bool,
    /// Restore another host's backup.
    pub force_host: bool,
    /// Restore into an IPC namespace that seems to end with this process.
    pub allow_private_ipc: bool,
    /// Refuse where no storage device proves that the server has not run since the backup.
    pub require_proof: bool,
}

/// Request to verify a backup.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct VerifyRequest {
    /// Directory.
    pub directory: PathBuf,
    /// Instance; null means every one.
    pub instance: Option<u8>,
    /// Namespaces; null means every one.
    pub namespaces: Option<Vec<String>>,
    /// Read past the page cache, as far as that can be had.
    pub check: bool,
    /// Worker threads; null means as many as suit the machine.
    pub threads: Option<u16>,
    /// Only look at names, headers and manifests.
    pub analyze: bool,
    /// Refuse what has no manifest.
    pub require_manifest: bool,
    /// The server's configuration; null means that of its packages, if it is there.
    pub config: Option<PathBuf>,
    /// Storage devices and files, instead of those that the configuration names.
    pub devices: Vec<PathBuf>,
    /// Report a backup of which no storage device proves that it is current as one that a restore
    /// refuses.
    pub require_proof: bool,
    /// Fail as a restore here would, apart from what is in memory now.
    pub restorable: bool,
}

/// Request to retire a backup.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct RetireRequest {
    /// Directory.
    pub directory: PathBuf,
    /// Instance; null means 0.
    pub instance: Option<u8>,
    /// Namespaces; null means every one.
    pub namespaces: Option<Vec<String>>,
}

/// The options of all verbs: what a verb has no option for is not asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Which operation.
    pub verb: Verb,
    /// As in the requests.
    pub directory: Option<PathBuf>,
    /// As in [`ExportRequest`].
    pub output: Option<PathBuf>,
    /// As in the requests.
    pub instance: Option<u8>,
    /// As in the requests.
    pub namespaces: Option<Vec<String>>,
    /// As in [`BackupRequest`].
    pub compress: bool,
    /// As in [`BackupRequest`].
    pub columns: bool,
    /// As in the requests.
    pub check: bool,
    /// As in the requests.
    pub threads: Option<u16>,
    /// As in the requests.
    pub analyze: bool,
    /// As in [`RestoreRequest`].
    pub require_manifest: bool,
    /// As in the requests.
    pub config: Option<PathBuf>,
    /// As in the requests.
    pub devices: Vec<PathBuf>,
    /// As in [`BackupRequest`].
    pub replace: bool,
    /// As in [`BackupRequest`] and [`RestoreRequest`].
    pub force_stale: bool,
    /// As in [`RestoreRequest`].
    pub force_host: bool,
    /// As in [`BackupRequest`].
    pub allow_volatile: bool,
    /// As in [`BackupRequest`].
    pub wait_ms: Option<u64>,
    /// As in [`RestoreRequest`].
    pub allow_private_ipc: bool,
    /// As in [`RestoreRequest`] and [`VerifyRequest`].
    pub require_proof: bool,
    /// As in [`VerifyRequest`].
    pub restorable: bool,
    /// As in [`PreflightRequest`].
    pub leg: Option<Leg>,
}

impl Asked {
    /// Nothing beyond the operation.
    pub fn new(verb: Verb) -> Self {
        Self {
            verb,
            directory: None,
            output: None,
            instance: None,
            namespaces: None,
            compress: false,
            columns: false,
            check: false,
            threads: None,
            analyze: false,
            require_manifest: false,
            config: None,
            devices: Vec::new(),
            replace: false,
            force_stale: false,
            force_host: false,
            allow_volatile: false,
            wait_ms: None,
            allow_private_ipc: false,
            require_proof: false,
            restorable: false,
            leg: None,
        }
    }
}

impl Asked {
    /// The form of the files of a backup.
    pub fn form(&self) -> Form {
        match (self.columns, self.compress) {
            (true, _) => Form::Columns,
            (false, true) => Form::Gzip,
            (false, false) => Form::Plain,
        }
    }
}

impl From<Request> for Asked {
    fn from(request: Request) -> Self {
        match request {
            Request::List(list) => list.into(),
            Request::Backup(backup) => backup.into(),
            Request::Restore(restore) => restore.into(),
            Request::Verify(verify) => verify.into(),
            Request::Export(export) => export.into(),
            Request::Retire(retire) => retire.into(),
            Request::Preflight(preflight) => preflight.into(),
        }
    }
}

// Each names every field of the request, so that one that is forgotten does not compile.

impl From<ListRequest> for Asked {
    fn from(request: ListRequest) -> Self {
        let ListRequest { instance, namespaces } = request;
        Self { instance, namespaces, ..Self::new(Verb::List) }
    }
}

impl From<BackupRequest> for Asked {
    fn from(request: BackupRequest) -> Self {
        let BackupRequest {
            directory,
            instance,
            namespaces,
            compress,
            columns,
            check,
            threads,
            analyze,
            config,
            devices,
            replace,
            force_stale,
            allow_volatile,
            wait_ms,
        } = request;
        Self {
            directory,
            instance,
            namespaces,
            compress,
            columns,
            check,
            threads,
            analyze,
            config,
            devices,
            replace,
            force_stale,
            allow_volatile,
            wait_ms,
            ..Self::new(Verb::Backup)
        }
    }
}

impl From<RestoreRequest> for Asked {
    fn from(request: RestoreRequest) -> Self {
        let RestoreRequest {
            directory,
            instance,
            namespaces,
            check,
            threads,
            analyze,
            require_manifest,
            config,
            devices,
            force_stale,
            force_host,
            allow_private_ipc,
            require_proof,
        } = request;
        Self {
            directory: Some(directory),
            instance,
            namespaces,
            check,
            threads,
            analyze,
            require_manifest,
            config,
            devices,
            force_stale,
            force_host,
            allow_private_ipc,
            require_proof,
            ..Self::new(Verb::Restore)
        }
    }
}

impl From<VerifyRequest> for Asked {
    fn from(request: VerifyRequest) -> Self {
        let VerifyRequest {
            directory,
            instance,
            namespaces,
            check,
            threads,
            analyze,
            require_manifest,
            config,
            devices,
            require_proof,
            restorable,
        } = request;
        Self {
            directory: Some(directory),
            instance,
            namespaces,
            check,
            threads,
            analyze,
            require_manifest,
            config,
            devices,
            require_proof,
            restorable,
            ..Self::new(Verb::Verify)
        }
    }
}

impl From<ExportRequest> for Asked {
    fn from(request: ExportRequest) -> Self {
        let ExportRequest {
            directory,
            output,
            instance,
            namespaces,
            compress,
            check,
            threads,
            analyze,
            config,
            devices,
            force_stale,
            force_host,
            allow_volatile,
        } = request;
        Self {
            directory: Some(directory),
            output: Some(output),
            instance,
            namespaces,
            compress,
            check,
            threads,
            analyze,
            config,
            devices,
            force_stale,
            force_host,
            allow_volatile,
            ..Self::new(Verb::Export)
        }
    }
}

impl From<PreflightRequest> for Asked {
    fn from(request: PreflightRequest) -> Self {
        let PreflightRequest {
            leg,
            directory,
            instance,
            namespaces,
            compress,
            columns,
            require_manifest,
            config,
            devices,
            require_proof,
            replace,
            force_stale,
            force_host,
            allow_volatile,
            allow_private_ipc,
        } = request;
        // Nothing is done.
        Self {
            leg,
            directory,
            instance,
            namespaces,
            compress,
            columns,
            require_manifest,
            config,
            devices,
            require_proof,
            replace,
            force_stale,
            force_host,
            allow_volatile,
            allow_private_ipc,
            analyze: true,
            ..Self::new(Verb::Preflight)
        }
    }
}

impl From<RetireRequest> for Asked {
    fn from(request: RetireRequest) -> Self {
        let RetireRequest { directory, instance, namespaces } = request;
        Self { directory: Some(directory), instance, namespaces, ..Self::new(Verb::Retire) }
    }
}

/// Leaves out what the verb has no option for. For the engine's own tests and tools, which ask for
/// one verb after the other.
#[cfg(feature = "testing")]
impl From<Asked> for Request {
    #[expect(clippy::too_many_lines, reason = "one arm for each verb, with all of its fields")]
    fn from(asked: Asked) -> Self {
        let Asked { directory, instance, namespaces, .. } = asked.clone();
        let needed = directory.clone().unwrap_or_default();
        match asked.verb {
            Verb::List => Self::List(ListRequest { instance, namespaces }),
            Verb::Backup => Self::Backup(BackupRequest {
                directory,
                instance,
                namespaces,
                compress: asked.compress,
                columns: asked.columns,
                check: asked.check,
                threads: asked.threads,
                analyze: asked.analyze,
                config: asked.config,
                devices: asked.devices,
                replace: asked.replace,
                force_stale: asked.force_stale,
                allow_volatile: asked.allow_volatile,
                wait_ms: asked.wait_ms,
            }),
            Verb::Restore => Self::Restore(RestoreRequest {
                directory: needed,
                instance,
                namespaces,
                check: asked.check,
                threads: asked.threads,
                analyze: asked.analyze,
                require_manifest: asked.require_manifest,
                config: asked.config,
                devices: asked.devices,
                force_stale: asked.force_stale,
                force_host: asked.force_host,
                allow_private_ipc: asked.allow_private_ipc,
                require_proof: asked.require_proof,
            }),
            Verb::Verify => Self::Verify(VerifyRequest {
                directory: needed,
                instance,
                namespaces,
                check: asked.check,
                threads: asked.threads,
                analyze: asked.analyze,
                require_manifest: asked.require_manifest,
                config: asked.config,
                devices: asked.devices,
                require_proof: asked.require_proof,
                restorable: asked.restorable,
            }),
            Verb::Export => Self::Export(ExportRequest {
                directory: needed,
                output: asked.output.unwrap_or_default(),
                instance,
                namespaces,
                compress: asked.compress,
                check: asked.check,
                threads: asked.threads,
                analyze: asked.analyze,
                config: asked.config,
                devices: asked.devices,
                force_stale: asked.force_stale,
                force_host: asked.force_host,
                allow_volatile: asked.allow_volatile,
            }),
            Verb::Retire => Self::Retire(RetireRequest { directory: needed, instance, namespaces }),
            Verb::Preflight => Self::Preflight(PreflightRequest {
                leg: asked.leg,
                directory,
                instance,
                namespaces,
                compress: asked.compress,
                columns: asked.columns,
                require_manifest: asked.require_manifest,
                config: asked.config,
                devices: asked.devices,
                require_proof: asked.require_proof,
                replace: asked.replace,
                force_stale: asked.force_stale,
                force_host: asked.force_host,
                allow_volatile: asked.allow_volatile,
                allow_private_ipc: asked.allow_private_ipc,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_of_another_verb_is_no_request() {
        let read = |text: &str| serde_json::from_str::<Request>(text);
        assert!(read(r#"{"verb":"list","instance":null,"namespaces":null}"#).is_ok());
        assert!(read(r#"{"verb":"list","instance":null,"namespaces":null,"compress":true}"#).is_err());
        assert!(read(r#"{"verb":"retire","directory":"/d","instance":1,"namespaces":["a"]}"#).is_ok());
        assert!(read(r#"{"verb":"retire","directory":"/d","instance":1,"namespaces":["a"],"force_stale":true}"#).is_err());
        assert!(read(r#"{"verb":"restore","instance":1}"#).is_err(), "no directory");
        assert!(read(r#"{"verb":"erase"}"#).is_err());
    }

    #[test]
    fn what_is_asked_for_is_what_a_request_says() {
        for verb in [Verb::List, Verb::Backup, Verb::Restore, Verb::Verify, Verb::Retire, Verb::Export, Verb::Preflight] {
            let directory = (verb != Verb::List).then(|| PathBuf::from("/d"));
            let output = (verb == Verb::Export).then(|| PathBuf::from("/o"));
            let analyze = verb == Verb::Preflight;
            let asked = Asked { directory, output, analyze, instance: Some(3), ..Asked::new(verb) };
            let request = Request::from(asked.clone());
            assert_eq!(Asked::from(request.clone()), asked);
            let text = serde_json::to_string(&request).expect("plain structures always serialise");
            assert_eq!(serde_json::from_str::<Request>(&text).expect("a request"), request);
        }
    }
}
