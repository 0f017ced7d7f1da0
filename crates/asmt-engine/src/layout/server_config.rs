//! `aerospike.conf`, read as the server reads it.
//!
//! Pure: bytes in, a value or a refusal out. Promise: a file that the server would refuse, or that
//! cannot be understood for certain, is refused with the number of the line; time and memory are
//! linear in the file. Must never: panic, call the system, or skip a line that may name a storage
//! device.
//!
//! The grammar, as observed on a server of version 8.1.2:
//! - A line is split at white space. `#` begins a comment, also within a word. LF and CRLF end a
//!   line.
//! - The first word is a name, and names open sections. Braces are ignored, except for a first word
//!   `}`, which closes a section. `namespace test` opens a section without `{`; `namespace test{`
//!   opens one for a namespace that is called `test{`.
//! - `storage-engine device{`, a `{` on a line of its own, and a `}` behind a value make the
//!   start fail.
//! - A `device` or `file` line has at most two values, the main device and its shadow. In
//!   `storage-engine memory` it has one: there, the memory is the main device, and the line names
//!   its shadow. Paths may contain braces.
//!
//! The server knows every name that opens a section; this reader knows a few. It goes by the name
//! at the top level and for `namespace` and `storage-engine`. Elsewhere, a line opens a section if
//! its last word is `{`. Where the two ways differ, the closing braces do not add up, or a line
//! that decides is in the wrong section; both are refused.

use super::server_words::{check_name, check_value, is_template, number_of, one_value, set_once, shown, too_many, words_of};
use asmt_shm::NamespaceName;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

pub use super::environment::environment_file;
pub use super::server_words::template;

/// Most nested sections; those of a server are at most four deep.
const MAX_DEPTH: usize = 64;
/// Most namespaces that a server has (public facts: namespace ids are 1 to 32).
const MAX_NAMESPACES: usize = 32;
/// Most devices of a namespace (public headers: `AS_STORAGE_MAX_DEVICES`; an index element has
/// seven bits for the device).
const MAX_DEVICES: usize = 128;
/// Most remarks that are kept; further ones would add nothing new.
const MAX_REMARKS: usize = 8;

/// The parts of a server's configuration that decide what a backup must contain, and whether it is
/// stale.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerConfig {
    /// Its namespaces; at least one, at most 32.
    pub namespaces: BTreeMap<NamespaceName, NamespaceConfig>,
    /// `work-directory` of the service.
    pub work_directory: Option<String>,
    /// Files that the server logs to, in the file's order.
    pub logs: Vec<String>,
    /// The server keeps an index checkpoint that is configured outside of a namespace.
    pub has_index_checkpoint: bool,
    /// Lines that are accepted and look like a mistake, each with its number.
    pub remarks: Vec<String>,
    /// Paths that look like part of a template, with the numbers of their lines. The server takes
    /// them literally, so such a path may exist: whoever can look must check.
    pub templates: Vec<(usize, String)>,
}

/// A value that a start compares with the segments in memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// As it is written.
    pub text: String,
    /// The number that it stands for; `None` if that is not certain.
    pub value: Option<u64>,
}

/// The size of all data stripes of a namespace in memory; the server crashes on stripes of another
/// size.
pub const DATA_SIZE: &str = "data-size";
/// Number of sprigs in each partition of the index; a start does not take over an index with
/// another number.
pub const TREE_SPRIGS: &str = "partition-tree-sprigs";
/// The size of a stage of the index. Whether a start takes over stages of another size is not
/// known.
pub const INDEX_STAGE_SIZE: &str = "index-stage-size";

/// The configuration of a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceConfig {
    /// `storage-engine`.
    pub storage: Storage,
    /// Lines `device` and `file` of the storage engine, in the file's order; at most 128.
    pub devices: Vec<DeviceLine>,
    /// `index-type`.
    pub index_type: Option<String>,
    /// `sindex-type`.
    pub sindex_type: Option<String>,
    /// The server keeps a checkpoint of this index (a preview of 8.2).
    pub has_index_checkpoint: bool,
    /// [`DATA_SIZE`] (of `storage-engine memory`), [`TREE_SPRIGS`] and [`INDEX_STAGE_SIZE`], if
    /// they are there.
    pub settings: BTreeMap<String, Setting>,
}

/// A storage engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Storage {
    /// There is no such line.
    #[default]
    Unspecified,
    /// `storage-engine device`: the data is on devices or in files.
    Device,
    /// `storage-engine memory`: the data is in memory, with or without devices or files behind it.
    Memory,
    /// An unknown engine, by its name.
    Other(String),
}

/// The keyword of a storage line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineKind {
    /// `device`.
    Device,
    /// `file`.
    File,
}

/// A storage line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceLine {
    /// Its keyword.
    pub kind: LineKind,
    /// The path of the main device. In `storage-engine memory`, it is the shadow of the memory.
    pub main: String,
    /// The path of its shadow device.
    pub shadow: Option<String>,
}

impl DeviceLine {
    /// The paths on the line, the main device first.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.main.as_str()).chain(self.shadow.as_deref())
    }
}

/// A file that the server would refuse, or that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Number of the line, from 1; `None` for the whole file.
    pub line: Option<usize>,
    /// The state that was found, and the one that was expected.
    pub text: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// Reads a configuration. The caller limits its size.
///
/// Errors: the file is empty, not text, not in the server's form, or one that the server would
/// refuse.
pub fn parse(bytes: &[u8]) -> Result<ServerConfig, Refused> {
    if bytes.starts_with(b"\xef\xbb\xbf") {
        let text = "a UTF-8 byte order mark at the start of the file; expected none: how the server would read it is unknown";
        return Err(Refused { line: Some(1), text: text.to_owned() });
    }
    // To the server, `storage-engine memory` opens a section even without `{`. People also write it
    // as a line without a section. No file can be read in both ways, because the closing braces add
    // up in only one of them. (Within a namespace, where the line would open no section, no name is
    // accepted that opens a section without `{` at the top level.)
    let as_section = match Reader::read(bytes, BareMemory::OpensSection) {
        Ok(found) => return Ok(found),
        Err(stop) => stop,
    };
    if !as_section.has_bare_memory {
        return Err(as_section.refused);
    }
    match Reader::read(bytes, BareMemory::IsOneLine) {
        Ok(found) => Ok(found),
        // The reading that fits better fails later, and for the real reason.
        Err(as_line) if as_line.last_line > as_section.last_line => Err(as_line.refused),
        Err(_) => Err(as_section.refused),
    }
}

/// The two ways to read `storage-engine memory` without `{`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BareMemory {
    OpensSection,
    IsOneLine,
}

/// The effect of a line on the sections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opens {
    Section,
    Nothing,
}

/// The kind of a section, which decides what its lines mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Section {
    Service,
    Logging,
    Namespace,
    Storage,
    /// Another section within a namespace.
    WithinNamespace,
    /// `xdr`, or an unknown section: `namespace` may stand in it, and means something else.
    Foreign,
    /// Any other.
    Plain,
}

/// An open section.
struct Open<'t> {
    section: Section,
    name: &'t str,
    /// The number of the line that opens it.
    line: usize,
}

/// The reason and the place where a reading ended.
struct Stop {
    refused: Refused,
    last_line: usize,
    has_bare_memory: bool,
}

struct Reader<'t> {
    found: ServerConfig,
    open: Vec<Open<'t>>,
    /// The namespace that is open.
    name: Option<NamespaceName>,
    namespace: NamespaceConfig,
    /// Every storage path so far.
    paths: BTreeSet<&'t str>,
    bare_memory: BareMemory,
    has_bare_memory: bool,
    /// The number of the line that is being read.
    line: usize,
}

impl<'t> Reader<'t> {
    fn read(bytes: &'t [u8], bare_memory: BareMemory) -> Result<ServerConfig, Stop> {
        let mut reader = Self {
            found: ServerConfig::default(),
            open: Vec::new(),
            name: None,
            namespace: NamespaceConfig::default(),
            paths: BTreeSet::new(),
            bare_memory,
            has_bare_memory: false,
            line: 0,
        };
        match reader.read_lines(bytes) {
            Ok(()) => Ok(reader.found),
            Err(refused) => Err(Stop { refused, last_line: reader.line, has_bare_memory: reader.has_bare_memory }),
        }
    }

    fn read_lines(&mut self, bytes: &'t [u8]) -> Result<(), Refused> {
        let mut is_empty = true;
        for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
            self.line = index + 1;
            let refused = |text| Refused { line: Some(index + 1), text };
            let words = words_of(line).map_err(refused)?;
            is_empty &= words.is_empty();
            self.read_words(&words).map_err(refused)?;
        }
        self.line += 1;
        if is_empty {
            let text = "the file is empty or has only comments; expected a line 'namespace NAME {'";
            return Err(Refused { line: None, text: text.to_owned() });
        }
        if let Some(open) = self.open.last() {
            let count = self.open.len();
            let text = format!("'{}' opens a section that is not closed; expected {count} more '}}' in the file", open.name);
            return Err(Refused { line: Some(open.line), text });
        }
        if self.found.namespaces.is_empty() {
            let text = "the file has no namespace; expected a line 'namespace NAME {'";
            return Err(Refused { line: None, text: text.to_owned() });
        }
        Ok(())
    }

    fn read_words(&mut self, words: &[&'t str]) -> Result<(), String> {
        let [name, values @ ..] = words else { return Ok(()) };
        if *name == "}" {
            return self.close(values);
        }
        check_name(name)?;
        let (values, opens) = match values {
            [values @ .., "{"] => (values, Opens::Section),
            _ => (values, Opens::Nothing),
        };
        for value in values {
            check_value(value)?;
        }
        match self.open.last().map(|open| open.section) {
            None => self.read_top_level(name, values, opens),
            Some(section) => self.read_in_section(section, name, values, opens),
        }
    }

    fn read_top_level(&mut self, name: &'t str, values: &[&'t str], opens: Opens) -> Result<(), String> {
        let section = match name {
            "namespace" => return self.open_namespace(values),
            "service" => Section::Service,
            "logging" => Section::Logging,
            "network" | "security" | "mod-lua" => Section::Plain,
            "xdr" => Section::Foreign,
            // Either the section before it ended too early, or its line does not show that it opens
            // one.
            "storage-engine" | "index-type" | "sindex-type" | "device" | "file" | "work-directory" => {
                return Err(self.misplaced(name));
            }
            _ if opens == Opens::Section => {
                self.remark(format!("{} is not a known section; it was skipped", shown(name)));
                return self.open_section(Section::Foreign, name);
            }
            _ => {
                return Err(format!(
                    "{} is not a known section; expected service, logging, network, namespace, security, xdr or mod-lua",
                    shown(name)
                ));
            }
        };
        if !values.is_empty() {
            return Err(too_many(name, values, &format!("'{name} {{'")));
        }
        self.open_section(section, name)
    }

    fn open_namespace(&mut self, values: &[&'t str]) -> Result<(), String> {
        let name = match values {
            [] => return Err("a namespace without a name; expected 'namespace NAME {'".to_owned()),
            [name] => name,
            _ => return Err(too_many("namespace", values, "'namespace NAME {'")),
        };
        if is_template(name) {
            return Err(template(name));
        }
        let Some(parsed) = NamespaceName::new(name) else {
            return Err(format!("namespace name {} has {} bytes; expected 1 to 31", shown(name), name.len()));
        };
        if self.found.namespaces.contains_key(&parsed) {
            return Err(format!("a second namespace {}; expected one of each name", shown(name)));
        }
        if self.found.namespaces.len() == MAX_NAMESPACES {
            return Err(format!("more than {MAX_NAMESPACES} namespaces; expected at most {MAX_NAMESPACES}"));
        }
        if name.contains(['{', '}']) {
            self.remark(format!("the name of this namespace is {}, including its brace", shown(name)));
        }
        self.name = Some(parsed);
        self.open_section(Section::Namespace, "namespace")
    }

    fn read_in_section(&mut self, section: Section, name: &'t str, values: &[&'t str], opens: Opens) -> Result<(), String> {
        let mut inner = match section {
            Section::Foreign => Section::Foreign,
            Section::Namespace | Section::Storage | Section::WithinNamespace => Section::WithinNamespace,
            Section::Service | Section::Logging | Section::Plain => Section::Plain,
        };
        let mut opens = opens;
        // It is not known where these may stand. They only lead to a remark.
        if matches!(name, "index-checkpoint-path" | "checkpoint-save") && values.first() != Some(&"false") {
            match inner {
                Section::WithinNamespace => self.namespace.has_index_checkpoint = true,
                _ => self.found.has_index_checkpoint = true,
            }
        }
        match (section, name) {
            (Section::Foreign, "namespace") => {}
            (Section::Service, "work-directory") => {
                let path = self.path(name, values, opens)?;
                set_once(&mut self.found.work_directory, name, path)?;
            }
            (Section::Logging, "file") => {
                let path = self.path(name, values, Opens::Nothing)?;
                self.found.logs.push(path.to_owned());
            }
            (Section::Namespace, "storage-engine") => {
                inner = Section::Storage;
                opens = self.read_storage_engine(values, opens)?;
            }
            (Section::Namespace, "index-type" | "sindex-type") => self.read_index_type(name, values, opens)?,
            (Section::Storage, "device") => self.read_device(LineKind::Device, name, values, opens)?,
            (Section::Storage, "file") => self.read_device(LineKind::File, name, values, opens)?,
            (Section::Storage, DATA_SIZE) if self.namespace.storage == Storage::Memory => self.read_setting(name, values)?,
            (Section::Namespace, TREE_SPRIGS | INDEX_STAGE_SIZE) => self.read_setting(name, values)?,
            // Sections begin or end in other places than it seems.
            (_, "namespace" | "storage-engine" | "device") => return Err(self.misplaced(name)),
            (
                Section::Namespace | Section::Storage | Section::WithinNamespace,
                "index-type" | "sindex-type" | "file" | "work-directory",
            ) => return Err(self.misplaced(name)),
            (
                Section::Service | Section::Logging | Section::Namespace | Section::Storage | Section::WithinNamespace,
                "service" | "logging" | "network" | "security" | "xdr" | "mod-lua",
            ) => return Err(self.misplaced(name)),
            _ => {}
        }
        match opens {
            Opens::Section => self.open_section(inner, name),
            Opens::Nothing => Ok(()),
        }
    }

    /// Reads a storage engine. `opens` is a section if the line ends in `{`. Returns what the line
    /// opens for the server.
    fn read_storage_engine(&mut self, values: &[&'t str], opens: Opens) -> Result<Opens, String> {
        let expected = "'storage-engine device {' or 'storage-engine memory {'";
        let engine = one_value("storage-engine", values, expected)?;
        if self.namespace.storage != Storage::Unspecified {
            return Err("a second 'storage-engine' in a namespace; expected one".to_owned());
        }
        let (storage, opens) = match engine {
            // The server could not start with an empty engine, so the line opens a section in any
            // case.
            "device" => (Storage::Device, Opens::Section),
            "memory" => {
                let is_bare = opens == Opens::Nothing;
                self.has_bare_memory |= is_bare;
                let is_line = is_bare && self.bare_memory == BareMemory::IsOneLine;
                (Storage::Memory, if is_line { Opens::Nothing } else { Opens::Section })
            }
            _ if is_template(engine) => return Err(template(engine)),
            _ if opens == Opens::Nothing || engine.contains(['{', '}']) => {
                return Err(format!("{} is not a known storage engine; expected {expected}", shown(engine)));
            }
            _ => {
                // Its devices may have the known header.
                self.remark(format!("{} is not a known storage engine; it was treated like 'device'", shown(engine)));
                (Storage::Other(engine.to_owned()), Opens::Section)
            }
        };
        self.namespace.storage = storage;
        Ok(opens)
    }

    fn read_index_type(&mut self, name: &str, values: &[&'t str], opens: Opens) -> Result<(), String> {
        let value = one_value(name, values, "shmem, pmem or flash")?;
        if is_template(value) {
            return Err(template(value));
        }
        // The other types have mounts. It is not known whether they open a section without `{`.
        if value != "shmem" && opens == Opens::Nothing {
            return Err(format!("'{name}' is {}; expected shmem, or a '{{' after another type", shown(value)));
        }
        if !matches!(value, "shmem" | "pmem" | "flash") {
            self.remark(format!("'{name}' is {}, which is not a known type", shown(value)));
        }
        let slot = if name == "index-type" { &mut self.namespace.index_type } else { &mut self.namespace.sindex_type };
        set_once(slot, name, value)
    }

    fn read_device(&mut self, kind: LineKind, name: &str, values: &[&'t str], opens: Opens) -> Result<(), String> {
        let (most, expected) = match self.namespace.storage {
            Storage::Memory => (1, "one path, the shadow of the memory"),
            _ => (2, "one or two paths, the device and its shadow"),
        };
        if opens == Opens::Section {
            return Err(format!("a '{{' after '{name}'; expected {expected}"));
        }
        if values.len() > most {
            return Err(too_many(name, values, expected));
        }
        let [main, shadow @ ..] = values else {
            return Err(format!("'{name}' has no value; expected {expected}"));
        };
        // To the server, an engine with `file` lines is not an engine with `device` lines. It is
        // not known what it does with both in one engine.
        if self.namespace.devices.first().is_some_and(|first| first.kind != kind) {
            return Err("'device' and 'file' lines in one storage engine; expected lines of one kind".to_owned());
        }
        if self.namespace.devices.len() == MAX_DEVICES {
            return Err(format!("more than {MAX_DEVICES} '{name}' lines in a namespace; expected at most {MAX_DEVICES}"));
        }
        for path in values {
            if !self.paths.insert(path) {
                return Err(format!(
                    "the path {} is on a second 'device' or 'file' line, or twice on one; expected it once",
                    shown(path)
                ));
            }
            self.note_template(path);
        }
        let shadow = shadow.first().map(|&shadow| shadow.to_owned());
        self.namespace.devices.push(DeviceLine { kind, main: (*main).to_owned(), shadow });
        Ok(())
    }

    /// Notes a value that only decides whether a restore would fit. The server itself reports what
    /// is wrong with it.
    fn read_setting(&mut self, name: &str, values: &[&'t str]) -> Result<(), String> {
        if let Some(value) = values.iter().find(|value| is_template(value)) {
            return Err(template(value));
        }
        let text = values.join(" ");
        let value = if let [value] = values { number_of(value) } else { None };
        // It is not known which of two lines counts.
        let second = self.namespace.settings.get(name).map(|first| format!("{}, {text}", first.text));
        let setting = second.map_or(Setting { text, value }, |text| Setting { text, value: None });
        self.namespace.settings.insert(name.to_owned(), setting);
        Ok(())
    }

    fn path(&mut self, name: &str, values: &[&'t str], opens: Opens) -> Result<&'t str, String> {
        if opens == Opens::Section {
            return Err(format!("a '{{' after '{name}'; expected one path"));
        }
        let path = one_value(name, values, "one path")?;
        self.note_template(path);
        Ok(path)
    }

    fn open_section(&mut self, section: Section, name: &'t str) -> Result<(), String> {
        if self.open.len() == MAX_DEPTH {
            return Err(format!("more than {MAX_DEPTH} nested sections; expected at most {MAX_DEPTH}"));
        }
        self.open.push(Open { section, name, line: self.line });
        Ok(())
    }

    fn close(&mut self, values: &[&str]) -> Result<(), String> {
        if let Some(value) = values.first() {
            return Err(format!("{} after a '}}'; expected the '}}' on a line of its own", shown(value)));
        }
        let Some(open) = self.open.pop() else {
            return Err("a '}' with no section open; expected a ' {' at the end of a line before it".to_owned());
        };
        if open.section == Section::Namespace
            && let Some(name) = self.name.take()
        {
            self.found.namespaces.insert(name, std::mem::take(&mut self.namespace));
        }
        Ok(())
    }

    fn misplaced(&self, name: &str) -> String {
        let place = match name {
            "device" | "file" => "in a storage-engine of a namespace",
            "storage-engine" | "index-type" | "sindex-type" => "in a namespace",
            "work-directory" => "in service",
            _ => "at the top level",
        };
        match self.open.last() {
            Some(open) => format!(
                "'{name}' in the section '{}' of line {}; expected it {place}: a '}}' may be missing before it",
                open.name, open.line
            ),
            None => format!("'{name}' at the top level; expected it {place}: a ' {{' may be missing before it"),
        }
    }

    fn note_template(&mut self, path: &str) {
        if is_template(path) {
            self.found.templates.push((self.line, path.to_owned()));
        }
    }

    fn remark(&mut self, text: String) {
        if self.found.remarks.len() < MAX_REMARKS {
            self.found.remarks.push(format!("line {}: {text}", self.line));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::server_words::MAX_SHOWN_CHARS;
    use proptest::prelude::*;

    /// The usual form of the packaged configuration, with devices.
    const PACKAGED: &str = "\
# Aerospike database configuration file for use with systemd.

service {
\tproto-fd-max 15000
\tcluster-name c # not { this }
}

logging {
\tconsole {
\t\tcontext any info
\t}
}

network {
\tservice {
\t\taddress any
\t\tport 3000
\t}

\theartbeat {
\t\tmode multicast
\t\tmulticast-group 239.1.99.222
\t\tport 9918

\t\t# To use unicast-mesh heartbeats, remove the 3 lines above:
\t\t# mode mesh

\t\tinterval 150
\t\ttimeout 10
\t}

\tfabric {
\t\tport 3001
\t}
}

namespace test {
\treplication-factor 2

\tstorage-engine memory {
\t\tdata-size 4G
\t}
}

namespace bar {
\treplication-factor 2
\tdefault-ttl 30d

\tstorage-engine device {
\t\tfile /opt/aerospike/data/bar.dat
\t\tfilesize 16G
\t}
}
";

    /// One line of each kind that matters.
    const WHOLE: &str = "\
# aerospike.conf
service {
\tcluster-name c # not { this }
\twork-directory /srv/aerospike
}
logging {
    console {
        context any info
    }
    file /var/log/aerospike/aerospike.log {
        context any info
    }
}
network {
    service {
        port 3000
        work-directory /not/this
    }
    fabric {
        port 3001
    }
}
namespace test {
    replication-factor 2
    partition-tree-sprigs 512
    index-stage-size 4G
    index-type shmem
    sindex-type flash {
        mount /mnt/sindex
    }
    storage-engine device {
        device /dev/nvme0n1p1 /dev/sdb1
        device /dev/nvme1n1p1
        device /not/#this
        compression lz4
    }
    set users {
        disable-eviction true
    }
}
namespace cache {
    storage-engine memory {
        data-size 4G
        file /srv/cache.dat
    }
    index-type pmem {
        mount /mnt/pmem
    }
}
namespace only {
    storage-engine memory {
        data-size 1G
    }
    index-checkpoint-path /srv/checkpoint
}
";

    fn name(text: &str) -> NamespaceName {
        NamespaceName::new(text).expect("a name")
    }

    /// A namespace `a` with lines in it; the first of them is line 2.
    fn in_namespace(lines: &str) -> String {
        format!("namespace a {{\n{lines}\n}}\n")
    }

    /// A namespace `a` with lines in its storage engine; the first of them is line 3.
    fn in_engine(engine: &str, lines: &str) -> String {
        format!("namespace a {{\nstorage-engine {engine} {{\n{lines}\n}}\n}}\n")
    }

    fn with_crlf(text: &str) -> String {
        text.replace('\n', "\r\n")
    }

    /// Returns every field of a configuration, without those that have their default.
    fn summary(found: &ServerConfig) -> String {
        let ServerConfig { namespaces, work_directory, logs, has_index_checkpoint, remarks, templates } = found;
        let mut parts = Vec::new();
        for (name, namespace) in namespaces {
            let NamespaceConfig { storage, devices, index_type, sindex_type, has_index_checkpoint, settings } = namespace;
            let mut lines = vec![format!("{storage:?}")];
            lines.extend(devices.iter().map(|DeviceLine { kind, main, shadow }| match shadow {
                Some(shadow) => format!("{kind:?} {main} > {shadow}"),
                None => format!("{kind:?} {main}"),
            }));
            lines.extend(index_type.iter().map(|value| format!("index {value}")));
            lines.extend(sindex_type.iter().map(|value| format!("sindex {value}")));
            lines.extend(has_index_checkpoint.then(|| "checkpoint".to_owned()));
            lines.extend(settings.iter().map(|(name, Setting { text, value })| match value {
                Some(value) => format!("{name} {text} = {value}"),
                None => format!("{name} {text}"),
            }));
            parts.push(format!("{name} [{}]", lines.join(", ")));
        }
        parts.extend(work_directory.iter().map(|path| format!("work {path}")));
        parts.extend(logs.iter().map(|path| format!("log {path}")));
        parts.extend(has_index_checkpoint.then(|| "checkpoint".to_owned()));
        parts.extend(remarks.iter().map(|text| format!("({text})")));
        parts.extend(templates.iter().map(|(line, path)| format!("(template in line {line}: {path})")));
        parts.join(" ")
    }

    fn setting(name: &str, text: &str, value: Option<u64>) -> (String, Setting) {
        (name.to_owned(), Setting { text: text.to_owned(), value })
    }

    fn whole() -> ServerConfig {
        let device = |main: &str, shadow: Option<&str>| DeviceLine {
            kind: LineKind::Device,
            main: main.to_owned(),
            shadow: shadow.map(str::to_owned),
        };
        let file = |main: &str| DeviceLine { kind: LineKind::File, main: main.to_owned(), shadow: None };
        let test = NamespaceConfig {
            storage: Storage::Device,
            devices: vec![device("/dev/nvme0n1p1", Some("/dev/sdb1")), device("/dev/nvme1n1p1", None), device("/not/", None)],
            index_type: Some("shmem".to_owned()),
            sindex_type: Some("flash".to_owned()),
            has_index_checkpoint: false,
            settings: [setting(TREE_SPRIGS, "512", Some(512)), setting(INDEX_STAGE_SIZE, "4G", Some(4 << 30))].into(),
        };
        let cache = NamespaceConfig {
            storage: Storage::Memory,
            devices: vec![file("/srv/cache.dat")],
            index_type: Some("pmem".to_owned()),
            settings: [setting(DATA_SIZE, "4G", Some(4 << 30))].into(),
            ..NamespaceConfig::default()
        };
        let only = NamespaceConfig {
            storage: Storage::Memory,
            has_index_checkpoint: true,
            settings: [setting(DATA_SIZE, "1G", Some(1 << 30))].into(),
            ..NamespaceConfig::default()
        };
        ServerConfig {
            namespaces: [(name("test"), test), (name("cache"), cache), (name("only"), only)].into(),
            work_directory: Some("/srv/aerospike".to_owned()),
            logs: vec!["/var/log/aerospike/aerospike.log".to_owned()],
            ..ServerConfig::default()
        }
    }

    #[test]
    fn one_of_everything_is_read_with_exact_values() {
        assert_eq!(parse(WHOLE.as_bytes()), Ok(whole()));
        assert_eq!(
            summary(&whole()),
            "cache [Memory, File /srv/cache.dat, index pmem, data-size 4G = 4294967296] \
             only [Memory, checkpoint, data-size 1G = 1073741824] \
             test [Device, Device /dev/nvme0n1p1 > /dev/sdb1, Device /dev/nvme1n1p1, Device /not/, index shmem, sindex flash, \
             index-stage-size 4G = 4294967296, partition-tree-sprigs 512 = 512] \
             work /srv/aerospike log /var/log/aerospike/aerospike.log"
        );
    }

    fn check_accepted(text: &str, expected: &str) {
        for text in [text.to_owned(), with_crlf(text)] {
            match parse(text.as_bytes()) {
                Ok(found) => assert_eq!(summary(&found), expected, "{text}"),
                Err(refused) => panic!("{text}: {refused}"),
            }
        }
    }

    #[test]
    fn what_the_server_accepts_is_accepted() {
        let long = "x".repeat(31);
        for (text, expected) in [
            (PACKAGED, "bar [Device, File /opt/aerospike/data/bar.dat] test [Memory, data-size 4G = 4294967296]"),
            // Blanks and comments.
            ("namespace a {\n}\n", "a [Unspecified]"),
            ("namespace a {\n}", "a [Unspecified]"),
            ("\n\n \tnamespace \t a  \t{\t\n\t } \n\n", "a [Unspecified]"),
            ("namespace a {# x\n}# y } z {\n#", "a [Unspecified]"),
            ("# {{ é }}\u{a0}\nnamespace a#b {\n}\n", "a [Unspecified]"),
            // Braces are ignored where a name opens a section.
            ("namespace a\n}\n", "a [Unspecified]"),
            ("namespace a{\n}\n", "a{ [Unspecified] (line 1: the name of this namespace is 'a{', including its brace)"),
            ("namespace a{ {\n}\n", "a{ [Unspecified] (line 1: the name of this namespace is 'a{', including its brace)"),
            ("namespace a\nstorage-engine device\ndevice /d\n}\n}\n", "a [Device, Device /d]"),
            ("service\nwork-directory /w\n}\nlogging\nfile /l\n}\nnamespace a\n}\n", "a [Unspecified] work /w log /l"),
            ("network\n}\nsecurity\n}\nxdr\n}\nmod-lua\n}\nnamespace a\n}\n", "a [Unspecified]"),
            (&format!("namespace {long} {{\n}}\n"), &format!("{long} [Unspecified]")),
            // `storage-engine memory` without a brace, as a line.
            ("namespace a {\n storage-engine memory\n}\n", "a [Memory]"),
            ("namespace a {\nstorage-engine memory\ndata-size 1G\nindex-type shmem\n}\n", "a [Memory, index shmem]"),
            (
                "namespace a {\nstorage-engine memory\n}\nnamespace b {\nstorage-engine device {\ndevice /d\n}\n}\nservice {\n}\n",
                "a [Memory] b [Device, Device /d]",
            ),
            ("namespace a {\nstorage-engine memory\n}\nservice\nwork-directory /w\n}\n", "a [Memory] work /w"),
            // The same as a section.
            ("namespace a {\nstorage-engine memory\nfile /f\n}\nindex-type shmem\n}\n", "a [Memory, File /f, index shmem]"),
            (
                "namespace a {\nstorage-engine memory\n}\n}\nnamespace b {\nstorage-engine memory\ndevice /d\n}\n}\n",
                "a [Memory] b [Memory, Device /d]",
            ),
            // An index type in shared memory may have a section, another one must.
            (
                "namespace a {\nindex-type shmem {\nmount /m\n}\nsindex-type pmem {\n}\n}\n",
                "a [Unspecified, index shmem, sindex pmem]",
            ),
            (
                "namespace a {\nindex-type new {\n}\n}\n",
                "a [Unspecified, index new] (line 2: 'index-type' is 'new', which is not a known type)",
            ),
            // A name counts only in its own section.
            ("service {\nfile /x\nx {\nwork-directory /x\n}\n}\nnamespace a {\n}\n", "a [Unspecified]"),
            ("network {\nservice {\nwork-directory /x\n}\n}\nnamespace a {\n}\n", "a [Unspecified]"),
            ("xdr {\ndc d {\nnamespace b {\nindex-type pmem {\n}\n}\nnamespace c\n}\n}\nnamespace a {\n}\n", "a [Unspecified]"),
            ("logging {\nconsole {\nfile /x\n}\nsyslog {\n}\n}\nnamespace a {\n}\n", "a [Unspecified]"),
            (
                "logging {\nfile /dev/stdout {\ncontext any info\n}\nfile /l\n}\nnamespace a {\n}\n",
                "a [Unspecified] log /dev/stdout log /l",
            ),
            ("logging {\nfile /l\n}\nlogging {\nfile /m{ {\n}\n}\nnamespace a {\n}\n", "a [Unspecified] log /l log /m{"),
            (
                "new x {\nwork-directory /x\nnamespace b {\n}\n}\nnamespace a {\n}\n",
                "a [Unspecified] (line 1: 'new' is not a known section; it was skipped)",
            ),
            // Paths that look like a template are paths to the server.
            (
                "service {\nwork-directory /${w}\n}\nlogging {\nfile {{l}}\n}\nnamespace a {\n}\n",
                "a [Unspecified] work /${w} log {{l}} (template in line 2: /${w}) (template in line 5: {{l}})",
            ),
            // The server's own checkpoints.
            ("service {\nindex-checkpoint-path /x\n}\nnamespace a {\n}\n", "a [Unspecified] checkpoint"),
            (
                "new {\nx {\ncheckpoint-save\n}\n}\nnamespace a {\n}\n",
                "a [Unspecified] checkpoint (line 1: 'new' is not a known section; it was skipped)",
            ),
            ("namespace a {\ncheckpoint-save true\n}\nnamespace b {\n}\n", "a [Unspecified, checkpoint] b [Unspecified]"),
            ("namespace a {\nx {\nindex-checkpoint-path /x\n}\n}\n", "a [Unspecified, checkpoint]"),
            ("namespace a {\ncheckpoint-save false\n}\n", "a [Unspecified]"),
        ] {
            check_accepted(text, expected);
        }
        // A comment may be in another character set.
        let found = parse(b"# caf\xe9\nnamespace a { #\xff\n}\n");
        assert_eq!(found.map(|found| summary(&found)), Ok("a [Unspecified]".to_owned()));
    }

    #[test]
    fn storage_lines_are_read_with_their_shadows() {
        for (engine, lines, expected) in [
            ("device", "device /a /b\ndevice /c", "a [Device, Device /a > /b, Device /c]"),
            ("device", "file /a /b\nfilesize 4G\nfile /c # d", "a [Device, File /a > /b, File /c]"),
            ("device", "device /a#b /c", "a [Device, Device /a]"),
            ("device", "device /d{0} /s}\ndevice {x\ndevice x{", "a [Device, Device /d{0} > /s}, Device {x, Device x{]"),
            ("device", "device /dev/ä\u{202e}", "a [Device, Device /dev/ä\u{202e}]"),
            ("device", "x {\ny\n}\ndevice relative", "a [Device, Device relative]"),
            ("device", "device /${x}", "a [Device, Device /${x}] (template in line 3: /${x})"),
            ("memory", "data-size 1G", "a [Memory, data-size 1G = 1073741824]"),
            ("device", "data-size 1G", "a [Device]"),
            // A value that asmt does not understand is left to the server.
            ("memory", "data-size 0x10", "a [Memory, data-size 0x10]"),
            ("memory", "data-size 1 G", "a [Memory, data-size 1 G]"),
            ("memory", "data-size", "a [Memory, data-size ]"),
            ("memory", "data-size 1G\ndata-size 2G", "a [Memory, data-size 1G, 2G]"),
            ("memory", "x {\ndata-size 1G\n}", "a [Memory]"),
            ("memory", "device /a\ndevice /b", "a [Memory, Device /a, Device /b]"),
            ("memory", "file /a", "a [Memory, File /a]"),
            (
                "pmem",
                "file /a /b",
                "a [Other(\"pmem\"), File /a > /b] (line 2: 'pmem' is not a known storage engine; it was treated like 'device')",
            ),
        ] {
            check_accepted(&in_engine(engine, lines), expected);
        }
    }

    #[test]
    fn no_brace_is_looked_at_where_a_name_opens_a_section() {
        let bare: String = WHOLE
            .lines()
            .map(|line| {
                let is_opener = line.trim_start().starts_with("storage-engine") || !line.starts_with([' ', '\t']);
                let line = if is_opener { line.trim_end_matches('{') } else { line };
                format!("{line}\n")
            })
            .collect();
        assert_eq!(bare.matches('{').count() + 9, WHOLE.matches('{').count(), "{bare}");
        assert_eq!(parse(bare.as_bytes()), Ok(whole()));
    }

    fn check_refused(bytes: &[u8], line: Option<usize>, expected: &str) {
        let shown = String::from_utf8_lossy(bytes);
        let refused = parse(bytes).expect_err(&shown);
        assert_eq!(refused.line, line, "{shown}: {refused}");
        assert!(refused.text.contains(expected), "{shown}: {refused}");
        if let Ok(text) = std::str::from_utf8(bytes)
            && !text.contains('\r')
        {
            assert_eq!(parse(with_crlf(text).as_bytes()), Err(refused), "{shown}, with the other line ends");
        }
    }

    #[test]
    fn what_is_no_configuration_is_refused() {
        for (bytes, line, expected) in [
            (&b""[..], None, "the file is empty"),
            (b"\n# namespace a {\n\t\n", None, "has only comments; expected a line 'namespace NAME {'"),
            (b"service {\n}\n", None, "the file has no namespace; expected a line 'namespace NAME {'"),
            (b"xdr {\nnamespace a {\n}\n}\n", None, "the file has no namespace"),
            // Binary.
            (b"namespace a {\n}\n\0{{{", Some(3), "a control byte 0x00; expected a text file"),
            (b"\x7fELF\x02\x01", Some(1), "a control byte 0x7f"),
            (b"namespace a {\n# \x1b[2J\n}\n", Some(2), "a control byte 0x1b"),
            (b"namespace a {\n}\x0c\n", Some(2), "a control byte 0x0c"),
            (b"n\0a\0m\0e\0", Some(1), "a control byte 0x00"),
            (b"namespace a\xff {\n}\n", Some(1), "bytes that are not UTF-8; expected a text file"),
            (b"namespace a {\rreplication-factor 2\r}\r", Some(1), "a carriage return within a line"),
            (b"namespace a {\r\r\n}\n", Some(1), "a carriage return within a line"),
            (b"namespace a {\n# x\rdevice /a\n}\n", Some(2), "a carriage return within a line"),
            (b"namespace\xc2\xa0a {\n}\n", Some(1), "a character U+00A0; expected only spaces and tabs between words"),
            (b"namespace a {\nx \xc2\x9b\n}\n", Some(2), "a character U+009B"),
            // Byte order marks.
            (b"\xef\xbb\xbfnamespace a {\n}\n", Some(1), "a UTF-8 byte order mark at the start of the file; expected none"),
            (b"\xef\xbb\xbf# c\nnamespace a {\n}\n", Some(1), "a UTF-8 byte order mark"),
            (b"\xff\xfen\0a\0", Some(1), "a control byte 0x00"),
            // YAML.
            (b"---\nservice:\n", Some(1), "'---' is YAML; expected the classic configuration format"),
            (b"# c\nnamespaces:\n  - name: a\n", Some(2), "'namespaces:' is YAML"),
            (b"- name: a\n", Some(1), "'-' is YAML"),
            (b"%YAML 1.2\n", Some(1), "'%YAML' is YAML"),
            (b"namespace a {\nreplication-factor: 2\n}\n", Some(2), "'replication-factor:' is YAML"),
            (b"namespace a {\n- x\n}\n", Some(2), "'-' is YAML"),
            // Templates.
            (b"{{ range .Namespaces }}\n", Some(1), "'{{' is part of a template; expected the file that the server reads"),
            (b"{% if x %}\n", Some(1), "'{%' is part of a template"),
            (b"<% namespaces %>\n", Some(1), "'<%' is part of a template"),
            (b"${NAMESPACES}\n", Some(1), "'${NAMESPACES}' is part of a template"),
            (b"namespace {{ name }} {\n}\n", Some(1), "'{{' is part of a template"),
            (b"namespace {{name}} {\n}\n", Some(1), "'{{name}}' is part of a template"),
            (b"namespace ${NAME} {\n}\n", Some(1), "'${NAME}' is part of a template"),
            (b"namespace <%=name%> {\n}\n", Some(1), "'<%=name%>' is part of a template"),
            (b"namespace a ${X} {\n}\n", Some(1), "'${X}' is part of a template"),
            // Words at the top level.
            (
                b"hello world\n",
                Some(1),
                "'hello' is not a known section; expected service, logging, network, namespace, security,",
            ),
            (b"replication-factor 2\n", Some(1), "'replication-factor' is not a known section"),
            (b"Namespace a {\n}\n", Some(1), "'Namespace' is not a setting name; expected lower-case letters"),
            (b"{\"namespaces\": [] }\n", Some(1), "'{\"namespaces\":' is YAML"),
            (b"{\"namespaces\":[]}\n", Some(1), "'{\"namespaces\":[]}' has a brace in it"),
            (b"service x {\n}\n", Some(1), "'service' has 1 values; expected 'service {'"),
        ] {
            check_refused(bytes, line, expected);
        }
    }

    #[test]
    fn sections_that_do_not_open_and_close_as_the_server_wants_are_refused() {
        for (text, line, expected) in [
            ("namespace a\n{\n}\n", 2, "a '{' on a line of its own; expected it at the end of the line that opens the section"),
            ("service{\n}\n", 1, "'service{' has a brace in it; expected a name, and a space before '{'"),
            ("namespace a {\nx {\n} }\n", 3, "'}' after a '}'"),
            ("namespace a {\n} x\n", 2, "'x' after a '}'; expected the '}' on a line of its own"),
            ("namespace a {\n}}\n", 2, "'}}' is part of a template"),
            ("namespace a {\n}x\n", 2, "'}x' has a brace in it"),
            ("namespace a {}\n", 1, "'namespace' has 2 values; expected 'namespace NAME {'"),
            // One-line blocks.
            ("namespace x { device /d }\n", 1, "a '{' within a line; expected it at the end, and the section's lines below"),
            ("namespace x { }\n", 1, "a '{' within a line"),
            ("service { work-directory /w }\nnamespace a {\n}\n", 1, "a '{' within a line"),
            ("logging {\nconsole { context any info }\n}\n", 2, "a '{' within a line"),
            ("network { service { port 3000\n } fabric { port 3001 } }\n", 1, "a '{' within a line"),
            // The numbers of braces do not add up.
            ("}\n", 1, "a '}' with no section open; expected a ' {' at the end of a line before it"),
            ("namespace a {\n}\n}\n", 3, "a '}' with no section open"),
            ("namespace a {\nset users\nx 1\n}\n}\n", 5, "a '}' with no section open"),
            ("namespace a {\n", 1, "'namespace' opens a section that is not closed; expected 1 more '}' in the file"),
            ("namespace a {\n}\nservice {\nx {\n", 4, "'x' opens a section that is not closed; expected 2 more '}'"),
            ("namespace a {\nstorage-engine memory\n", 2, "'storage-engine' opens a section that is not closed"),
            // They add up, but a line that matters is in the wrong section.
            (
                "namespace a {\nset x {\n}\nnamespace b {\n}\n}\n",
                4,
                "'namespace' in the section 'namespace' of line 1; expected it at the top level: a '}' may be missing before it",
            ),
            ("service {\nnamespace b {\n}\n}\n", 2, "'namespace' in the section 'service' of line 1"),
            ("network {\nx {\nnamespace b {\n}\n}\n}\n", 3, "'namespace' in the section 'x' of line 2"),
            ("network {\nx {\nstorage-engine device {\n}\n}\n}\n", 3, "'storage-engine' in the section 'x' of line 2"),
            ("new {\ndevice /a\n}\nnamespace a {\n}\n", 2, "'device' in the section 'new' of line 1; expected it in a storage-"),
            ("xdr {\nx {\ndevice /a\n}\n}\nnamespace a {\n}\n", 3, "'device' in the section 'x' of line 2"),
            (
                "namespace a {\n}\nstorage-engine device {\ndevice /a\n}\n",
                3,
                "'storage-engine' at the top level; expected it in a",
            ),
            ("namespace a {\n}\nindex-type pmem {\n}\n", 3, "'index-type' at the top level"),
            ("namespace a {\n}\nsindex-type shmem\n", 3, "'sindex-type' at the top level"),
            ("namespace a {\n}\ndevice /a\n", 3, "'device' at the top level; expected it in a storage-engine of a namespace"),
            ("file /a\nnamespace a {\n}\n", 1, "'file' at the top level"),
            ("work-directory /a\nnamespace a {\n}\n", 1, "'work-directory' at the top level; expected it in service"),
            ("service {\nlogging {\nfile /l\n}\n}\n", 2, "'logging' in the section 'service' of line 1; expected it at the top"),
            ("logging {\nservice {\n}\n}\n", 2, "'service' in the section 'logging' of line 1"),
            // `storage-engine memory` without a brace is either a section or a line, in the whole
            // file.
            (
                "namespace a {\nstorage-engine memory\n}\nnamespace b {\nstorage-engine memory\n}\n}\n",
                7,
                "a '}' with no section open",
            ),
            ("namespace a {\nstorage-engine memory\nfile /a\n}\n", 1, "'namespace' opens a section that is not closed"),
            ("namespace a {\nstorage-engine memory\nindex-type shmem\n}\n}\n", 5, "a '}' with no section open"),
            ("namespace a {\nstorage-engine memory\n}\nnamespace b {\nindex-type\n}\n", 5, "'index-type' has no value"),
            ("namespace a {\nstorage-engine memory\n}\nnamespace b {", 4, "'namespace' opens a section that is not closed"),
            // Namespaces.
            ("namespace\n}\n", 1, "a namespace without a name; expected 'namespace NAME {'"),
            ("namespace {\n}\n", 1, "a namespace without a name"),
            ("namespace a b {\n}\n", 1, "'namespace' has 2 values; expected 'namespace NAME {'"),
            ("namespace a {\n}\nnamespace a {\n}\n", 3, "a second namespace 'a'; expected one of each name"),
            ("namespace abcdefghijklmnopqrstuvwxyzabcdef {\n}\n", 1, "has 32 bytes; expected 1 to 31"),
            ("namespace ääääääääääääääää {\n}\n", 1, "has 32 bytes; expected 1 to 31"),
            // Values that matter.
            ("service {\nwork-directory\n}\n", 2, "'work-directory' has no value; expected one path"),
            ("service {\nwork-directory /a /b\n}\n", 2, "'work-directory' has 2 values; expected one path"),
            ("service {\nwork-directory /a {\n}\n}\n", 2, "a '{' after 'work-directory'; expected one path"),
            ("service {\nwork-directory /a\nwork-directory /a\n}\n", 3, "a second 'work-directory'; expected one"),
            ("logging {\nfile {\n}\n}\n", 2, "'file' has no value; expected one path"),
            ("logging {\nfile /a /b\n}\n", 2, "'file' has 2 values; expected one path"),
        ] {
            check_refused(text.as_bytes(), Some(line), expected);
        }
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table of cases")]
    fn lines_of_a_namespace_that_the_server_would_refuse_are_refused() {
        for (lines, line, expected) in [
            ("replication-factor 2 }", 2, "a '}' after other words; expected it on a line of its own"),
            ("replication-factor {{ x }}", 2, "'{{' is part of a template"),
            ("device /a", 2, "'device' in the section 'namespace' of line 1; expected it in a storage-engine of a namespace"),
            ("file /a", 2, "'file' in the section 'namespace' of line 1"),
            ("work-directory /a", 2, "'work-directory' in the section 'namespace' of line 1; expected it in service"),
            ("service\n}\nx {", 2, "'service' in the section 'namespace' of line 1; expected it at the top level"),
            ("x {\nmod-lua {\n}\n}", 3, "'mod-lua' in the section 'x' of line 2"),
            ("set x {\nfile /a\n}", 3, "'file' in the section 'set' of line 2"),
            (
                "set x {\nstorage-engine device {\n}\n}",
                3,
                "'storage-engine' in the section 'set' of line 2; expected it in a namesp",
            ),
            (
                "storage-engine device{\ndevice /a\n}",
                2,
                "'device{' is not a known storage engine; expected 'storage-engine device {'",
            ),
            ("storage-engine memory{\n}", 2, "'memory{' is not a known storage engine"),
            ("storage-engine device{ {\n}", 2, "'device{' is not a known storage engine"),
            ("storage-engine{\n}", 2, "'storage-engine{' has a brace in it"),
            ("storage-engine\n}", 2, "'storage-engine' has no value; expected 'storage-engine device {'"),
            ("storage-engine {\n}", 2, "'storage-engine' has no value"),
            ("storage-engine device x {\n}", 2, "'storage-engine' has 2 values"),
            ("storage-engine pmem", 2, "'pmem' is not a known storage engine"),
            ("storage-engine ${ENGINE} {\n}", 2, "'${ENGINE}' is part of a template"),
            ("storage-engine memory {\ndata-size ${SIZE}\n}", 3, "'${SIZE}' is part of a template"),
            ("partition-tree-sprigs ${SPRIGS}", 2, "'${SPRIGS}' is part of a template"),
            (
                "storage-engine memory {\n}\nstorage-engine device {\n}",
                4,
                "a second 'storage-engine' in a namespace; expected one",
            ),
            (
                "storage-engine memory\nstorage-engine device {\n}",
                3,
                "'storage-engine' in the section 'storage-engine' of line 2",
            ),
            ("index-type", 2, "'index-type' has no value; expected shmem, pmem or flash"),
            ("index-type {\n}", 2, "'index-type' has no value"),
            ("index-type shmem x", 2, "'index-type' has 2 values"),
            ("index-type {{type}}", 2, "'{{type}}' is part of a template"),
            ("index-type {{ type }}", 2, "'{{' is part of a template"),
            ("index-type pmem", 2, "'index-type' is 'pmem'; expected shmem, or a '{' after another type"),
            ("sindex-type flash", 2, "'sindex-type' is 'flash'; expected shmem, or a '{' after another type"),
            ("index-type shmem\nindex-type shmem", 3, "a second 'index-type'; expected one"),
            ("sindex-type shmem\nsindex-type shmem", 3, "a second 'sindex-type'; expected one"),
        ] {
            check_refused(in_namespace(lines).as_bytes(), Some(line), expected);
        }
        for (engine, lines, line, expected) in [
            ("device", "device /a /b /c", 3, "'device' has 3 values; expected one or two paths, the device and its shadow"),
            ("device", "file /a /b /c", 3, "'file' has 3 values; expected one or two paths"),
            ("pmem", "file /a /b /c", 3, "'file' has 3 values; expected one or two paths"),
            ("memory", "device /a /b", 3, "'device' has 2 values; expected one path"),
            ("memory", "file /a /b", 3, "'file' has 2 values; expected one path"),
            ("device", "device", 3, "'device' has no value; expected one or two paths"),
            ("device", "device {\n}", 3, "a '{' after 'device'; expected one or two paths"),
            ("device", "device /a {\n}", 3, "a '{' after 'device'"),
            ("device", "device /a }", 3, "a '}' after other words"),
            ("device", "device {{ a }}", 3, "'{{' is part of a template"),
            ("device", "device {{a}} {{b}} {{c}}", 3, "'{{a}}' is part of a template"),
            ("device", "{{each}}", 3, "'{{each}}' is part of a template"),
            ("device", "<%= devices %>", 3, "'<%=' is part of a template"),
            ("device", "@DEVICES@", 3, "'@DEVICES@' is not a setting name"),
            ("device", "Device /a", 3, "'Device' is not a setting name"),
            ("device", "device /a\nfile /b", 4, "'device' and 'file' lines in one storage engine; expected lines of one kind"),
            ("memory", "file /a\ndevice /b", 4, "'device' and 'file' lines in one storage engine"),
            ("device", "device /a\ndevice /a", 4, "the path '/a' is on a second 'device' or 'file' line, or twice on one"),
            ("device", "device /a /a", 3, "the path '/a' is on a second 'device' or 'file' line, or twice on one"),
            ("device", "x {\nfile /a\n}", 4, "'file' in the section 'x' of line 3"),
            (
                "device",
                "index-type pmem {\n}",
                3,
                "'index-type' in the section 'storage-engine' of line 2; expected it in a namesp",
            ),
            ("device", "sindex-type shmem", 3, "'sindex-type' in the section 'storage-engine' of line 2"),
        ] {
            check_refused(in_engine(engine, lines).as_bytes(), Some(line), expected);
        }
        let shared =
            in_engine("device", "device /a") + &in_engine("device", "device /b /a").replace("namespace a", "namespace b");
        check_refused(shared.as_bytes(), Some(8), "the path '/a' is on a second");
    }

    #[test]
    fn bounds_hold_and_what_is_at_them_is_accepted() {
        let deep = |count: usize| "a {\n".repeat(count) + &"}\n".repeat(count) + "namespace a {\n}\n";
        let names = |count: usize| (0..count).map(|n| format!("namespace n{n} {{\n}}\n")).collect::<String>();
        let devices =
            |count: usize| in_engine("device", &(0..count).map(|n| format!("device /d{n} /s{n}\n")).collect::<String>());
        assert_eq!(parse(deep(64).as_bytes()).map(|found| found.namespaces.len()), Ok(1));
        check_refused(deep(65).as_bytes(), Some(65), "more than 64 nested sections; expected at most 64");
        check_refused("a {\n".repeat(1 << 20).as_bytes(), Some(65), "more than 64 nested sections");
        assert_eq!(parse(names(32).as_bytes()).map(|found| found.namespaces.len()), Ok(32));
        check_refused(names(33).as_bytes(), Some(65), "more than 32 namespaces; expected at most 32");
        assert_eq!(parse(devices(128).as_bytes()).map(|found| found.namespaces[&name("a")].devices.len()), Ok(128));
        check_refused(devices(129).as_bytes(), Some(131), "more than 128 'device' lines in a namespace; expected at most 128");
    }

    #[test]
    fn messages_are_short_and_remarks_few_whatever_the_file_has() {
        let refused = parse("é".repeat(1 << 20).as_bytes()).expect_err("no name");
        let word = "é".repeat(64);
        assert_eq!(refused.text, format!("'{word}...' is not a setting name; expected lower-case letters, digits and '-'"));
        assert_eq!(refused.to_string(), format!("line 1: {}", refused.text));
        let empty = parse(b"").expect_err("empty");
        assert_eq!(empty.to_string(), empty.text);
        let odd = "new {\n}\n".repeat(1 << 16) + "namespace a {\n}\n";
        assert_eq!(parse(odd.as_bytes()).map(|found| found.remarks.len()), Ok(MAX_REMARKS));
    }

    /// Lines that mean something here, and some that do not.
    fn any_line() -> impl Strategy<Value = String> {
        let known = [
            "namespace a {",
            "namespace b",
            "namespace c{",
            "storage-engine device {",
            "storage-engine device",
            "storage-engine memory {",
            "storage-engine memory",
            "index-type shmem",
            "index-type flash {",
            "set users {",
            "set users",
            "service {",
            "logging {",
            "network {",
            "xdr {",
            "new {",
            "work-directory /w",
            "console {",
            "service",
            "network",
            "file /l {",
            "} # x",
        ];
        prop_oneof![
            6 => proptest::sample::select(known.to_vec()).prop_map(str::to_owned),
            4 => Just("}".to_owned()),
            2 => "device /[a-z]{1,3}",
            1 => "device /[a-z{}]{1,3} /[a-z]{1,3}",
            1 => "file /[a-z]{1,3}",
            1 => "[ -~]{0,40}",
            1 => "\\PC{0,8}",
        ]
    }

    fn any_lines() -> impl Strategy<Value = String> {
        proptest::collection::vec(any_line(), 0..4).prop_map(|lines| lines.join("\n"))
    }

    /// A namespace with storage lines, and sometimes with other lines, or with a brace missing.
    fn any_namespace() -> impl Strategy<Value = String> {
        let engine = proptest::sample::select(vec!["device {", "device", "memory {", "memory"]);
        let device = prop_oneof![4 => "device /[a-z]{4}", 1 => "device /[a-z]{4} /[a-z]{4}", 1 => "file /[a-z]{4}"];
        let devices = proptest::collection::vec(device, 0..3).prop_map(|lines| lines.join("\n"));
        let others = prop_oneof![3 => Just(String::new()), 1 => any_lines()];
        let end = prop_oneof![4 => Just("}"), 1 => Just("")];
        ("[a-z]{1,4}", engine, devices, end, others).prop_map(|(name, engine, devices, end, others)| {
            format!("namespace {name} {{\nstorage-engine {engine}\n{devices}\n{end}\n{others}\n}}")
        })
    }

    fn any_file() -> impl Strategy<Value = String> {
        let section = prop_oneof![6 => any_namespace(), 1 => any_lines()];
        proptest::collection::vec(section, 0..4).prop_map(|sections| sections.join("\n"))
    }

    fn device_lines(found: &ServerConfig) -> impl Iterator<Item = &DeviceLine> {
        found.namespaces.values().flat_map(|namespace| &namespace.devices)
    }

    /// Returns a result without the numbers of lines.
    fn unnumbered(result: Result<ServerConfig, Refused>) -> Result<ServerConfig, String> {
        let without = |text: &str| text.split_once(": ").map_or_else(String::new, |(_, rest)| rest.to_owned());
        let found = result.map_err(|refused| refused.text.split(" of line ").next().unwrap_or_default().to_owned())?;
        let remarks = found.remarks.iter().map(|text| without(text)).collect();
        let templates = found.templates.iter().map(|(_, path)| (0, path.clone())).collect();
        Ok(ServerConfig { remarks, templates, ..found })
    }

    #[test]
    fn numbers_are_read_with_their_suffixes() {
        for (text, expected) in [
            ("0", Some(0)),
            ("512", Some(512)),
            ("4k", Some(4 << 10)),
            ("3M", Some(3 << 20)),
            ("4G", Some(4 << 30)),
            ("4096M", Some(4 << 30)),
            ("256t", Some(256 << 40)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("16777216T", None),
            ("", None),
            ("G", None),
            ("+1", None),
            ("1GB", None),
            ("1P", None),
            ("1.5G", None),
            ("é", None),
        ] {
            assert_eq!(number_of(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_value_no_larger_than_themselves_or_a_short_refusal(
            bytes in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..400),
                "\\PC*|(?s:.){0,400}".prop_map(String::into_bytes),
                any_file().prop_map(String::into_bytes),
            ],
        ) {
            match parse(&bytes) {
                Ok(found) => {
                    let size: usize = device_lines(&found).flat_map(DeviceLine::paths).map(str::len).sum();
                    prop_assert!(size <= bytes.len() && found.remarks.len() <= MAX_REMARKS);
                }
                Err(refused) => {
                    prop_assert!(refused.text.chars().count() < 4 * MAX_SHOWN_CHARS, "{refused}");
                    let lines = bytes.iter().filter(|&&byte| byte == b'\n').count() + 1;
                    prop_assert!(refused.line.is_none_or(|line| (1..=lines).contains(&line)), "{refused}");
                }
            }
        }

        #[test]
        fn what_is_accepted_has_lost_no_device_and_names_nothing_that_is_not_in_the_file(text in any_file()) {
            if let Ok(found) = parse(text.as_bytes()) {
                let words = |line: &str| {
                    let line = line.split('#').next().unwrap_or_default();
                    line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
                };
                let lines = text.lines().map(words).filter(|words| words.first().is_some_and(|name| name == "device"));
                let expected: BTreeSet<String> = lines.flat_map(|words| words.into_iter().skip(1)).collect();
                let devices = device_lines(&found).filter(|line| line.kind == LineKind::Device);
                let paths: BTreeSet<String> = devices.flat_map(DeviceLine::paths).map(str::to_owned).collect();
                prop_assert_eq!(paths, expected);
                for path in device_lines(&found).flat_map(DeviceLine::paths).chain(found.logs.iter().map(String::as_str)) {
                    prop_assert!(text.contains(path));
                }
                for namespace in found.namespaces.values().filter(|namespace| namespace.storage == Storage::Memory) {
                    prop_assert!(namespace.devices.iter().all(|line| line.shadow.is_none()));
                }
            }
        }

        #[test]
        fn memory_without_a_brace_never_has_two_readings(text in any_file()) {
            let is_read = |bare| Reader::read(text.as_bytes(), bare).map_err(|stop| stop.has_bare_memory);
            match (is_read(BareMemory::OpensSection), is_read(BareMemory::IsOneLine)) {
                (Ok(section), Ok(line)) => prop_assert!(section == line && !text.contains("storage-engine memory\n")),
                (Err(false), Ok(_)) => prop_assert!(false, "a reading that does not differ was accepted"),
                _ => {}
            }
        }

        #[test]
        fn line_ends_comments_blank_lines_and_indents_change_nothing(
            text in any_file(),
            indent in "[ \t]{0,5}",
            comment in "[ -~]{0,20}",
        ) {
            prop_assert_eq!(parse(with_crlf(&text).as_bytes()), parse(text.as_bytes()));
            for text in [&text, WHOLE, PACKAGED] {
                let spread: String = text.lines().map(|line| format!("{indent}{line} #{comment}\n\n")).collect();
                prop_assert_eq!(unnumbered(parse(spread.as_bytes())), unnumbered(parse(text.as_bytes())));
            }
        }

        #[test]
        fn a_cut_configuration_never_names_a_device_that_the_whole_one_does_not(at in 0..WHOLE.len(), text in any_file()) {
            for text in [WHOLE, &text] {
                let Some(cut) = text.get(..at) else { continue };
                let (Ok(found), Ok(whole)) = (parse(cut.as_bytes()), parse(text.as_bytes())) else { continue };
                for (name, namespace) in found.namespaces {
                    let known = whole.namespaces.get(&name).map_or(&[][..], |known| &known.devices);
                    prop_assert_eq!(namespace.devices, known);
                }
            }
        }
    }
}
