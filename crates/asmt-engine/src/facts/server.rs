//! The evidence on whether the server has run since a backup, as plain values.
//!
//! Pure. Each witness of docs/STALENESS.md is one type here. Must never: call the system, or judge
//! (`plan::staleness` does).

use crate::format::Trace;
use crate::layout::server_config::ServerConfig;
use asmt_shm::{NamespaceName, STRIPE_MAGIC, StripeHeader};
use std::collections::BTreeMap;

/// The unit that the server's packages install.
pub const SERVER_UNIT: &str = "aerospike.service";

/// Returns a boot id in the form that the journal writes: without hyphens.
pub fn hex_of(boot_id: &str) -> String {
    boot_id.chars().filter(char::is_ascii_hexdigit).collect()
}

/// The identity of this machine, boot and IPC namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Host name.
    pub name: String,
    /// `/etc/machine-id`; `None` if there is none yet.
    pub machine_id: Option<String>,
    /// Boot id of the kernel.
    pub boot_id: String,
    /// Identity of the IPC namespace, as far as the kernel shows it. Each container has another
    /// one.
    pub ipc_namespace: String,
    /// Time of day, milliseconds since 1970.
    pub now_ms: u64,
    /// Time since boot without suspend (`CLOCK_MONOTONIC`), milliseconds.
    pub monotonic_ms: u64,
}

/// The medium of a storage header, which decides what a power cut can do to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// A block device: the server opens it O_DIRECT | O_DSYNC, so a header that it has written
    /// stays.
    Device,
    /// A regular file: the server does not fsync it, so a power cut can bring back an old header.
    File,
}

/// The state of a storage device or file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceState {
    /// It starts with a header of a server.
    Header(StripeHeader),
    /// Its first bytes are zeros: no server has used it.
    Blank,
    /// It starts with something else.
    Unknown,
    /// It cannot be read. The reason.
    Unreadable(String),
}

impl DeviceState {
    /// The state that these first bytes show.
    pub fn of(bytes: &[u8]) -> Self {
        match StripeHeader::parse(bytes) {
            Some(header) if header.magic == STRIPE_MAGIC => Self::Header(header),
            _ if bytes.iter().all(|byte| *byte == 0) => Self::Blank,
            _ => Self::Unknown,
        }
    }
}

/// A storage device or file, as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The path under which it was opened.
    pub path: String,
    /// Its medium; `None` if it could not be opened.
    pub medium: Option<Medium>,
    /// Device number, or file system and inode: two paths with the same value lead to the same
    /// thing.
    pub unique: Option<(u64, u64)>,
    /// Names that stay with the disk if its path changes: by-id links, partition UUID, serial
    /// number.
    pub ids: Vec<String>,
    /// The state that its first bytes show.
    pub state: DeviceState,
}

impl Device {
    /// Its header, if it has one.
    pub fn header(&self) -> Option<&StripeHeader> {
        match &self.state {
            DeviceState::Header(header) => Some(header),
            DeviceState::Blank | DeviceState::Unknown | DeviceState::Unreadable(_) => None,
        }
    }

    /// Returns true if it is marked as trusted: the server was stopped cleanly.
    pub fn is_trusted(&self) -> bool {
        self.header().is_some_and(StripeHeader::is_trusted)
    }
}

/// The server's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Configuration {
    /// It was read.
    Read {
        /// Its path.
        path: String,
        /// Its contents.
        config: ServerConfig,
    },
    /// None was named, and there is none where the packages put it. The text says where asmt
    /// looked.
    NotThere(String),
}

impl Configuration {
    /// Its contents, if it was read.
    pub fn config(&self) -> Option<&ServerConfig> {
        match self {
            Self::Read { config, .. } => Some(config),
            Self::NotThere(_) => None,
        }
    }
}

/// The change of a log or metadata directory since it was noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceChange {
    /// The contents are the same, or a rotation has renamed and compressed them and nothing was
    /// added.
    None,
    /// Only the rest of the stop that preceded the backup was added.
    EndOfStop,
    /// Something was written, or the change is unknown.
    Changed,
    /// It is gone, and there is nothing beside it either: no server does that.
    Gone,
}

/// A trace that a backup noted, compared with its current state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComparedTrace {
    /// Path, as noted.
    pub path: String,
    /// The change.
    pub change: TraceChange,
}

/// A recorded start of the server's unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceStart {
    /// Boot id, 32 hex digits.
    pub boot_id: String,
    /// Time since that boot (`CLOCK_MONOTONIC`), milliseconds.
    pub monotonic_ms: u64,
    /// The source, for messages: `systemd`, `the journal`.
    pub source: &'static str,
    /// The unit failed within seconds of this start.
    pub has_failed_early: bool,
}

/// The records of systemd, its journal and the login records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceHistory {
    /// Starts of the server's unit, in no particular order.
    pub starts: Vec<ServiceStart>,
    /// Boot ids in the journal, oldest first; empty if there is no journal.
    pub journal_boots: Vec<String>,
    /// Times of boots in the login records, milliseconds since 1970, oldest first.
    pub login_boots_ms: Vec<u64>,
    /// Sources that could not be read, each with the reason.
    pub unseen: Vec<String>,
}

/// All evidence on this machine, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// This machine.
    pub host: Host,
    /// The instance of the server.
    pub instance: u8,
    /// Its configuration.
    pub configuration: Configuration,
    /// Paths of `--device`, in order.
    pub named: Vec<String>,
    /// Every device that was opened, by its path.
    pub devices: BTreeMap<String, Device>,
    /// The files that the server writes, in their current state.
    pub traces: Vec<Trace>,
    /// The traces that a backup noted, compared with their current state; by the namespace of the
    /// backup.
    pub compared: BTreeMap<NamespaceName, Vec<ComparedTrace>>,
    /// Places that this user may not look at.
    pub unseen: Vec<String>,
    /// The records of systemd and its journal; empty if they were not read.
    pub service: ServiceHistory,
    /// A mark can be written to the backup's directory.
    pub is_markable: bool,
}
