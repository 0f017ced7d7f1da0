//! Looks for what tells whether the server has run: its configuration, the headers of its devices, files that it writes
//! to, and which machine and boot this is.
//!
//! Promise: devices and files are only read, no more than their first bytes, and nothing that is neither a block device nor
//! a regular file is opened; a device that does not answer is a fact, not a failure. Must never: write, wait for a
//! FIFO, or decide what it means ([`crate::freshness`] does).

use crate::configuration::{self, Configuration};
use crate::error::{Code, Error, Result, without_number};
use crate::freshness::{Device, DeviceState, Facts, Host, NamespaceFacts, Sign};
use crate::kernel;
use crate::run;
use crate::segment::{HEADER_BYTES, NamespaceName, STRIPE_MAGIC, STRIPE_TRUSTED, StripeHeader};
use crate::store::{Store, modified_ms};
use rustix::fs::{self, FileType, Mode, OFlags};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// Where the configuration is if nothing else is said.
const DEFAULT_CONFIGURATION: &str = "/etc/aerospike/aerospike.conf";
/// Names another one: for tests, and for units that cannot give an option.
const CONFIGURATION_VARIABLE: &str = "ASMT_CONFIG";
/// The server's, if its configuration does not say.
const DEFAULT_WORK_DIRECTORY: &str = "/opt/aerospike";
/// The log of a server as its packages configure it: looked at where no configuration can be read.
const DEFAULT_LOG: &str = "/var/log/aerospike/aerospike.log";
/// Largest configuration that is read.
const MAX_CONFIGURATION_BYTES: u64 = 4 << 20;
/// Most files of the work directory that are looked at.
const MAX_SMD_FILES: usize = 10_000;

/// Where to look, as it was asked for.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// Of which server: only that of instance 0 has its configuration where the packages put it.
    pub instance: u8,
    /// `--config`.
    pub configuration: Option<PathBuf>,
    /// `--device`.
    pub devices: Vec<PathBuf>,
}

/// Looks for everything that tells of these namespaces. `store` is the directory that a restore would mark.
///
/// Errors: `config-unreadable` if a configuration was named and cannot be read; failed calls.
pub fn gather(places: &Places, names: &[NamespaceName], store: Option<&Store>) -> Result<Facts> {
    let (configuration, found) = read_configuration(places)?;
    let found = found.unwrap_or_else(|| Configuration { logs: vec![DEFAULT_LOG.to_owned()], ..Configuration::default() });
    // Where another server of this host writes to says nothing of one whose configuration is not known.
    let has_known_places = configuration.is_ok() || places.instance == 0;
    let mut namespaces: BTreeMap<NamespaceName, NamespaceFacts> =
        names.iter().map(|name| (name.clone(), NamespaceFacts::default())).collect();
    let mut strays = Vec::new();
    for path in &places.devices {
        let device = look(&path.display().to_string(), path);
        match &device.state {
            DeviceState::Header { namespace: Some(name), .. } => {
                // One of a namespace that is not asked for says nothing here.
                if let Some(facts) = namespaces.get_mut(name) {
                    facts.devices.push(device);
                }
            }
            _ => strays.push(device),
        }
    }
    for (name, facts) in &mut namespaces {
        facts.configured = found.namespaces.get(name).cloned();
        // What is named on the command line is meant in the place of what is configured.
        if facts.devices.is_empty() {
            let paths = facts.configured.iter().flat_map(|configured| &configured.devices);
            facts.devices = paths.map(|path| look(path, Path::new(path))).collect();
        }
    }
    let (signs, unseen) = if has_known_places { signs(&found)? } else { Default::default() };
    Ok(Facts {
        host: host()?,
        configuration,
        namespaces,
        strays,
        oddities: found.oddities,
        signs,
        unseen,
        has_index_checkpoint: found.has_index_checkpoint,
        is_markable: store.map_or(Ok(true), Store::is_writable)?,
    })
}

/// This machine.
///
/// Errors: failed calls.
pub fn host() -> Result<Host> {
    let machine_id = kernel::text_if_there("/etc/machine-id")?.map(|text| text.trim().to_owned());
    Ok(Host {
        name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        // An image that was not yet started has another text there.
        machine_id: machine_id.filter(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())),
        boot_id: run::boot_id()?,
    })
}

/// The configuration, and its path; else why there is none.
type Found = (std::result::Result<String, String>, Option<Configuration>);

fn read_configuration(places: &Places) -> Result<Found> {
    let named = places.configuration.as_ref();
    let variable = std::env::var_os(CONFIGURATION_VARIABLE).filter(|text| !text.is_empty()).map(PathBuf::from);
    let default = Some(PathBuf::from(DEFAULT_CONFIGURATION)).filter(|_| places.instance == 0);
    let Some(path) = named.cloned().or(variable).or(default) else {
        return Ok((Err(format!("the configuration of instance {} was not named", places.instance)), None));
    };
    match text_of(&path) {
        Ok(text) => Ok((Ok(path.display().to_string()), Some(configuration::parse(&text)))),
        Err(why) if named.is_some() => Err(Error::new(
            Code::ConfigUnreadable,
            format!("{} {why}", path.display()),
            "check what --config names; without it, the backup is judged by less",
        )),
        Err(why) => Ok((Err(format!("{} {why}", path.display())), None)),
    }
}

fn text_of(path: &Path) -> std::result::Result<String, String> {
    let file = open(path, &[FileType::RegularFile])?;
    let mut bytes = Vec::new();
    let read = std::fs::File::from(file).take(MAX_CONFIGURATION_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|error| format!("cannot be read: {}", without_number(&error)))?;
    if bytes.len() as u64 > MAX_CONFIGURATION_BYTES {
        return Err(format!("has more than {MAX_CONFIGURATION_BYTES} bytes"));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Opens a file for reading if it is of a kind that may be opened: others could wait, or do something.
fn open(path: &Path, kinds: &[FileType]) -> std::result::Result<rustix::fd::OwnedFd, String> {
    let why = |error: rustix::io::Errno| match error {
        rustix::io::Errno::NOENT => "is not there".to_owned(),
        error => format!("cannot be opened: {}", without_number(&error.into())),
    };
    // Links are followed: devices are named by them.
    let is_of_kind = |stat: &fs::Stat| kinds.contains(&FileType::from_raw_mode(stat.st_mode));
    let wrong = || "is neither a regular file nor, for storage, a block device".to_owned();
    if !is_of_kind(&fs::stat(path).map_err(why)?) {
        return Err(wrong());
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = fs::open(path, flags, Mode::empty()).map_err(why)?;
    // It may be another one by now.
    if is_of_kind(&fs::fstat(&file).map_err(why)?) { Ok(file) } else { Err(wrong()) }
}

/// Reads the header of a device or file.
fn look(shown: &str, path: &Path) -> Device {
    let state = header_of(path).unwrap_or_else(DeviceState::Unreadable);
    Device { path: shown.to_owned(), state }
}

fn header_of(path: &Path) -> std::result::Result<DeviceState, String> {
    let file = open(path, &[FileType::BlockDevice, FileType::RegularFile])?;
    let mut bytes = [0; HEADER_BYTES];
    let mut length = 0;
    while length < bytes.len() {
        match rustix::io::pread(&file, &mut bytes[length..], length as u64) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(format!("cannot be read: {}", without_number(&error.into()))),
        }
    }
    // The layout is that of a stripe.
    Ok(match StripeHeader::parse(&bytes[..length]) {
        Some(header) if header.magic == STRIPE_MAGIC => {
            DeviceState::Header { namespace: header.name, random: header.random, is_trusted: header.flags & STRIPE_TRUSTED != 0 }
        }
        _ => DeviceState::NoHeader,
    })
}

/// The latest sign of the server's life of each kind, and what this user may not look at.
///
/// Errors: failed calls.
fn signs(configuration: &Configuration) -> Result<(Vec<Sign>, Vec<String>)> {
    let smd = Path::new(configuration.work_directory.as_deref().unwrap_or(DEFAULT_WORK_DIRECTORY)).join("smd");
    let (mut latest, mut unseen) = (Vec::new(), Vec::new());
    let names = if_visible(&smd, crate::store::names_of(&smd), &mut unseen)?.unwrap_or_default();
    let of_server = names.into_iter().take(MAX_SMD_FILES).map(|name| smd.join(name)).collect::<Vec<_>>();
    let logs = configuration.logs.iter().map(PathBuf::from).collect::<Vec<_>>();
    for paths in [of_server, logs] {
        let mut found = Vec::new();
        for path in paths {
            found.extend(if_visible(&path, sign_of(&path), &mut unseen)?.flatten());
        }
        latest.extend(found.into_iter().max_by_key(|sign| sign.at_ms));
    }
    Ok((latest, unseen))
}

/// When a file was last written, if there is something in it: an empty one is left by who rotates logs.
fn sign_of(path: &Path) -> Result<Option<Sign>> {
    let stat = fs::stat(path).map_err(|error| Error::io("stat", path.display(), error))?;
    let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_size > 0;
    Ok(is_file.then(|| Sign { path: path.display().to_string(), at_ms: modified_ms(&stat) }))
}

/// What was found at a path; `None` where there is nothing, or nothing that this user may look at, which is noted.
fn if_visible<T>(path: &Path, found: Result<T>, unseen: &mut Vec<String>) -> Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) => match error.io_kind() {
            Some(ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Some(ErrorKind::PermissionDenied) => {
                unseen.push(path.display().to_string());
                Ok(None)
            }
            _ => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of its own, gone with its test.
    struct Scratch(PathBuf);

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn scratch(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("asmt-devices-{}-{name}", std::process::id()));
        std::fs::create_dir(&path).expect("a directory");
        Scratch(path)
    }

    #[test]
    fn a_header_is_read_where_there_is_one_and_nothing_else_is_taken_for_it() {
        let scratch = scratch("header");
        let path = scratch.0.join("device");
        let mut header = vec![0; 4096];
        header[..8].copy_from_slice(&STRIPE_MAGIC.to_le_bytes());
        header[12..16].copy_from_slice(b"test");
        header[48..56].copy_from_slice(&u64::MAX.to_le_bytes());
        header[56] = 1;
        let known = |is_trusted| DeviceState::Header { namespace: NamespaceName::new("test"), random: u64::MAX, is_trusted };
        for (change, length, expected) in [
            (None, 4096, known(true)),
            (None, 60, known(true)),
            (Some((56, 0xfe)), 4096, known(false)),
            (None, 59, DeviceState::NoHeader),
            (None, 0, DeviceState::NoHeader),
            (Some((0, 0)), 4096, DeviceState::NoHeader),
        ] {
            let mut bytes = header.clone();
            if let Some((at, byte)) = change {
                bytes[at] = byte;
            }
            std::fs::write(&path, &bytes[..length]).expect("written");
            assert_eq!(look("x", &path).state, expected, "{change:?} {length}");
        }
        for path in [scratch.0.join("none"), scratch.0.clone(), PathBuf::from("/dev/null"), PathBuf::new()] {
            assert!(matches!(look("x", &path).state, DeviceState::Unreadable(_)), "{}", path.display());
        }
    }

    #[test]
    fn signs_are_the_latest_of_each_kind_and_what_may_not_be_seen_is_noted() {
        let scratch = scratch("signs");
        let (smd, log) = (scratch.0.join("smd"), scratch.0.join("log"));
        let work_directory = Some(scratch.0.display().to_string());
        let logs = vec![log.display().to_string(), log.join("below a file").display().to_string()];
        let configuration = Configuration { work_directory, logs, ..Configuration::default() };
        assert_eq!(signs(&configuration).expect("nothing is there"), (vec![], vec![]));
        std::fs::create_dir(&smd).expect("a directory");
        for (path, text) in [(smd.join("old"), "x"), (smd.join("new"), "x"), (log.clone(), "")] {
            std::fs::write(path, text).expect("written");
        }
        let old = std::fs::File::open(smd.join("old")).expect("opened");
        old.set_modified(std::time::UNIX_EPOCH).expect("older");
        let paths = |found: Vec<Sign>| found.into_iter().map(|sign| sign.path).collect::<Vec<_>>();
        let (found, unseen) = signs(&configuration).expect("a look");
        assert_eq!((paths(found), unseen), (vec![smd.join("new").display().to_string()], vec![]), "an empty log is none");

        let denied = || Err::<(), _>(Error::io("open", smd.display(), std::io::Error::from(ErrorKind::PermissionDenied)));
        let mut unseen = Vec::new();
        assert_eq!(if_visible(&smd, denied(), &mut unseen).expect("not an error"), None);
        assert_eq!(unseen, [smd.display().to_string()]);
        let failed = Err::<(), _>(Error::io("open", smd.display(), std::io::Error::from_raw_os_error(libc::EIO)));
        assert!(if_visible(&smd, failed, &mut unseen).is_err());
    }

    #[test]
    fn a_configuration_is_read_up_to_its_limit_whatever_bytes_it_has() {
        let scratch = scratch("configuration");
        let path = scratch.0.join("aerospike.conf");
        std::fs::write(&path, b"namespace a {\n}\n\xff\xfe").expect("written");
        let named = Places { configuration: Some(path.clone()), ..Places::default() };
        let (shown, found) = read_configuration(&named).expect("readable");
        assert_eq!(shown, Ok(path.display().to_string()));
        assert_eq!(found.expect("one").namespaces.len(), 1);
        let file = std::fs::OpenOptions::new().write(true).open(&path).expect("opened");
        file.set_len(MAX_CONFIGURATION_BYTES).expect("grown");
        assert!(read_configuration(&named).is_ok());
        file.set_len(MAX_CONFIGURATION_BYTES + 1).expect("grown");
        let error = read_configuration(&named).expect_err("too long");
        assert_eq!(error.first().code, Code::ConfigUnreadable);
    }
}
