//! Gathers the evidence of one instance: its configuration, devices, traces and history, and this
//! machine.
//!
//! Promise: every device that a backup noted is read, whether a configuration names it or not; a
//! configuration that was named is read, or is an error. Must never: write, or decide what the
//! evidence means (`plan::staleness` does).

use crate::error::{Code, Error, Result, without_number};
use crate::facts::server::{Configuration, Device, Evidence, Host, ServiceHistory};
use crate::format::{HeaderStamp, Manifest};
use crate::layout::server_config::{self, Refused, ServerConfig};
use crate::look::{devices, service, traces};
use crate::store::Store;
use crate::sys::dir::names_of;
use crate::sys::process;
use crate::sys::procfs::{self, Process};
use asmt_shm::sysv;
use rustix::fs::FileType;
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The path of the packages' configuration.
const DEFAULT_CONFIGURATION: &str = "/etc/aerospike/aerospike.conf";
/// The environment file of the unit, which may name another configuration.
const UNIT_ENVIRONMENT: &str = "/etc/sysconfig/aerospike";
/// The variable of the unit that names the configuration.
const SERVER_VARIABLE: &str = "ASD_CONFIG_FILE";
/// asmt's own variable, for units that cannot pass an option. If the file that it names is missing,
/// there is no configuration.
const OWN_VARIABLE: &str = "ASMT_CONFIG";
/// The host name of uname(2), in a file: a call that failed there would return an empty name.
const HOST_NAME: &str = "/proc/sys/kernel/hostname";
/// Largest configuration that is read.
const MAX_CONFIGURATION_BYTES: u64 = 4 << 20;
/// The places to look at, as requested.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// The server's instance. Only instance 0 has its configuration where the packages put it.
    pub instance: u8,
    /// `--config`.
    pub configuration: Option<PathBuf>,
    /// `--device`.
    pub devices: Vec<PathBuf>,
    /// Leave out logs on a file system that is in memory.
    pub skips_volatile: bool,
}

/// This machine, boot and IPC namespace, now.
///
/// Errors: failed calls.
pub fn host() -> Result<Host> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let monotonic = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let monotonic_ms = monotonic.tv_sec.cast_unsigned() * 1000 + monotonic.tv_nsec.cast_unsigned() / 1_000_000;
    Ok(Host {
        name: procfs::text(HOST_NAME)?.trim().to_owned(),
        machine_id: service::machine_id()?,
        boot_id: process::boot_id()?,
        ipc_namespace: ipc_namespace()?,
        now_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
        monotonic_ms,
    })
}

/// An identity of this IPC namespace that no other one of this boot has. The inode number alone is
/// reused as soon as it is free, so a container that replaces another one may get the same. If the
/// kernel has nothing better (before 6.18), the start of the first process of the PID namespace is
/// added, which differs for most containers.
pub fn ipc_namespace() -> Result<String> {
    const OWN: &str = "/proc/thread-self/ns/ipc";
    if let Some(handle) = sysv::namespace_handle(OWN).map_err(|error| Error::io("name_to_handle_at", OWN, error))? {
        return Ok(format!("id:{}", handle.iter().map(|byte| format!("{byte:02x}")).collect::<String>()));
    }
    let inode = procfs::namespace("ipc")?;
    let first = match procfs::process(1)? {
        Process::Seen(stat) => procfs::host_ticks(&stat)?.to_string(),
        Process::Gone | Process::Hidden => "unseen".to_owned(),
    };
    Ok(format!("inode:{inode}-first:{first}"))
}

/// Returns true if a text of [`ipc_namespace`] stands for only one namespace in a boot.
pub fn is_unique(ipc_namespace: &str) -> bool {
    ipc_namespace.starts_with("id:")
}

/// Gathers the evidence. `manifests` are those of the instance in the directory; `store` is the
/// directory that a restore would mark.
///
/// Errors: `config-unreadable` if a configuration was named, or is there, and cannot be read or
/// understood; failed calls.
pub fn gather(places: &Places, manifests: &[&Manifest], store: Option<&Store>) -> Result<Evidence> {
    let host = host()?;
    let configuration = read_configuration(places)?;
    let named: Vec<String> = places.devices.iter().map(|path| absolute(path)).collect();
    let mut asked = BTreeMap::new();
    let configured = configuration.config().into_iter().flat_map(device_paths);
    let noted: Vec<&HeaderStamp> = manifests.iter().flat_map(|manifest| &manifest.noted.devices).collect();
    for path in configured.chain(named.iter().cloned()).chain(noted.iter().map(|noted| noted.what.clone())) {
        asked.entry(path.clone()).or_insert_with(|| devices::ask(&absolute(Path::new(&path))));
    }
    find_moved(&noted, &mut asked);
    // The usual places of another server on this host show nothing about a server whose
    // configuration is unknown.
    let has_known_places = configuration.config().is_some() || places.instance == 0;
    let (found, mut unseen) =
        if has_known_places { traces::find(configuration.config(), places.skips_volatile)? } else { Default::default() };
    let mut compared = BTreeMap::new();
    for manifest in manifests {
        let changes = traces::compare(&manifest.noted.traces, &mut unseen)?;
        compared.insert(manifest.namespace.clone(), changes);
    }
    unseen.sort_unstable();
    unseen.dedup();
    let is_markable = store.map_or(Ok(true), Store::is_writable)?;
    let (instance, service) = (places.instance, ServiceHistory::default());
    Ok(Evidence { host, instance, configuration, named, devices: asked, traces: found, compared, unseen, service, is_markable })
}

/// Adds the records of systemd and its journal. They are only needed if devices do not decide. The
/// unit is that of instance 0.
pub fn add_history(evidence: &mut Evidence) {
    if evidence.instance == 0 {
        evidence.service = service::history(&evidence.host.boot_id, evidence.host.machine_id.as_deref());
    }
}

/// Every path that a configuration names for storage.
fn device_paths(config: &ServerConfig) -> impl Iterator<Item = String> {
    let lines = config.namespaces.values().flat_map(|namespace| &namespace.devices);
    lines.flat_map(|line| line.paths().map(str::to_owned))
}

/// Finds disks that have another path than when they were noted, by their ids.
fn find_moved(noted: &[&HeaderStamp], asked: &mut BTreeMap<String, Device>) {
    // A copy of a disk has the same header. So if a disk has an id, the id decides.
    let is_there = |noted: &HeaderStamp, device: &Device| {
        let says_same = device.header().is_some_and(|header| header.random == noted.random);
        device.ids.iter().any(|id| noted.ids.contains(id)) || device.ids.is_empty() && says_same
    };
    let lost: Vec<&HeaderStamp> = noted
        .iter()
        .copied()
        .filter(|noted| !noted.ids.is_empty() && !asked.get(&noted.what).is_some_and(|device| is_there(noted, device)))
        .collect();
    if lost.is_empty() {
        return;
    }
    for name in names_of(Path::new("/sys/class/block")).unwrap_or_default() {
        let path = format!("/dev/{}", name.replace('!', "/"));
        if asked.contains_key(&path) || matches!(name.as_str(), "." | "..") {
            continue;
        }
        let ids = devices::ids_at(&path);
        if lost.iter().any(|noted| ids.iter().any(|id| noted.ids.contains(id))) {
            asked.insert(path.clone(), devices::ask(&path));
        }
    }
}

/// Makes a path absolute. Links are kept, because devices are named by links.
fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}

/// The configuration that was named to the tool, or the usual place of one.
enum Told {
    /// It must be there, because `by` names it.
    Must { by: String, path: PathBuf },
    /// It may be missing; `by` tells why asmt looks there.
    May { by: String, path: PathBuf },
    /// There is no usual place.
    Nothing,
}

fn where_to_look(places: &Places) -> Result<Told> {
    let variable = |name: &str| std::env::var_os(name).filter(|text| !text.is_empty()).map(PathBuf::from);
    if let Some(path) = places.configuration.clone() {
        return Ok(Told::Must { by: "--config".to_owned(), path });
    }
    if let Some(path) = variable(OWN_VARIABLE) {
        return Ok(Told::May { by: OWN_VARIABLE.to_owned(), path });
    }
    if let Some(path) = variable(SERVER_VARIABLE) {
        return Ok(Told::Must { by: SERVER_VARIABLE.to_owned(), path });
    }
    if places.instance != 0 {
        return Ok(Told::Nothing);
    }
    let unit = procfs::text_if_there(UNIT_ENVIRONMENT)?.unwrap_or_default();
    if let Some(path) = server_config::environment_file(&unit).get(SERVER_VARIABLE).filter(|path| !path.is_empty()) {
        return Ok(Told::Must { by: format!("{SERVER_VARIABLE} in {UNIT_ENVIRONMENT}"), path: path.into() });
    }
    Ok(Told::May { by: "the server's packages".to_owned(), path: DEFAULT_CONFIGURATION.into() })
}

fn read_configuration(places: &Places) -> Result<Configuration> {
    let (by, path, must) = match where_to_look(places)? {
        Told::Must { by, path } => (by, path, true),
        Told::May { by, path } => (by, path, false),
        Told::Nothing => {
            return Ok(Configuration::NotThere(format!(
                "no configuration was given for instance {} (--config)",
                places.instance
            )));
        }
    };
    let shown = path.display();
    let unreadable = |what: String| {
        Error::new(
            Code::ConfigUnreadable,
            format!("{shown} (named by {by}) {what}"),
            "name the configuration file that the server starts with (--config FILE), or fix that file; nothing was done",
        )
    };
    match std::fs::metadata(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound && !must => {
            return Ok(Configuration::NotThere(format!("{shown} (named by {by}) does not exist")));
        }
        // The file is not at fault, and may be there the next time.
        Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Err(Error::io("stat", shown, error));
        }
        _ => {}
    }
    let bytes = bytes_of(&path).map_err(unreadable)?;
    let refuse = |refused: Refused| unreadable(format!("cannot be parsed: {refused}"));
    let mut config = server_config::parse(&bytes).map_err(refuse)?;
    check_templates(&mut config).map_err(refuse)?;
    Ok(Configuration::Read { path: shown.to_string(), config })
}

/// Refuses a path that looks like part of a template, unless it exists: the server takes it
/// literally.
fn check_templates(config: &mut ServerConfig) -> std::result::Result<(), Refused> {
    for (line, path) in &config.templates {
        // A path that cannot be looked at is not known to be missing; where that matters, it is
        // refused below.
        if std::fs::metadata(absolute(Path::new(path))).is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            return Err(Refused { line: Some(*line), text: server_config::template(path) });
        }
        config
            .remarks
            .push(format!("line {line}: '{path}' looks like part of a template, but a file of exactly this name exists"));
    }
    Ok(())
}

/// Returns the bytes of a configuration, or the reason why it cannot be read.
fn bytes_of(path: &Path) -> std::result::Result<Vec<u8>, String> {
    let (file, _) = devices::open(path, &[FileType::RegularFile])?;
    let mut bytes = Vec::new();
    let read = std::fs::File::from(file).take(MAX_CONFIGURATION_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|error| format!("cannot be read: {}", without_number(&error)))?;
    if bytes.len() as u64 > MAX_CONFIGURATION_BYTES {
        return Err(format!("has more than {MAX_CONFIGURATION_BYTES} bytes"));
    }
    Ok(bytes)
}

/// Returns the first difference between the earlier and the current state of devices and
/// configuration.
pub fn first_difference(before: &Evidence, now: &Evidence) -> Option<String> {
    if before.configuration != now.configuration {
        return Some("the configuration".to_owned());
    }
    let state = |evidence: &Evidence, path: &String| evidence.devices.get(path).map(|device| device.state.clone());
    before.devices.keys().find(|path| state(before, path) != state(now, path)).cloned()
}
