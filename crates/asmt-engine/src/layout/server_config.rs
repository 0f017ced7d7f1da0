//! `aerospike.conf`, read as the server reads it, and the environment file of the server's unit.
//!
//! Pure: bytes in, a value or a refusal out. Promise: a file that the server would refuse, or that cannot be understood
//! for certain, is refused with its line; time and memory are linear in the file. Must never: panic, call the system,
//! or pass over a line that may name a storage device.
//!
//! The grammar, as a server 8.1.2 was seen to read it:
//! - A line is split at white space. `#` begins a comment, also within a word. Both kinds of line ends are accepted.
//! - The first word is a name. Names open sections; braces are not looked at, but for a first word `}`, which closes
//!   one. `namespace test` opens a section without `{`, and `namespace test{` one that is called `test{`.
//! - `storage-engine device{`, a `{` on a line of its own, and a `}` behind a value stop the start.
//! - A `device` or `file` line has at most two values, the main device and its shadow; in `storage-engine memory` at
//!   most one, for the data in memory is the main and the device its shadow. Paths may contain braces.
//!
//! The server knows all names that open a section; this reader knows few. At the top level, and for `namespace` and
//! `storage-engine`, it goes by the name, too. Elsewhere a line opens a section if its last word is `{`. Where the two
//! ways differ, the closing braces do not add up, and the file is refused.

use crate::segment::NamespaceName;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Most sections within one another; those of a server are at most four deep.
const MAX_DEPTH: usize = 64;
/// Most namespaces that a server has (public facts: namespace ids are 1 to 32).
const MAX_NAMESPACES: usize = 32;
/// Most devices of a namespace (public headers: `AS_STORAGE_MAX_DEVICES`; an index element has seven bits for them).
const MAX_DEVICES: usize = 128;
/// Most remarks that are kept; further ones say nothing new.
const MAX_REMARKS: usize = 8;
/// Most characters of a word that a message repeats.
const MAX_SHOWN_CHARS: usize = 64;
/// Character strings of common template languages; none is part of a name in a configuration.
const TEMPLATE_MARKS: [&str; 7] = ["{{", "}}", "{%", "%}", "${", "<%", "%>"];

/// The parts of a server's configuration that decide what a backup must contain, and whether it is stale.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerConfig {
    /// Its namespaces; at least one, at most 32.
    pub namespaces: BTreeMap<NamespaceName, NamespaceConfig>,
    /// `work-directory` of the service.
    pub work_directory: Option<String>,
    /// Files that the server logs to, in the file's order.
    pub logs: Vec<String>,
    /// Whether the server keeps an index checkpoint, configured outside of a namespace.
    pub has_index_checkpoint: bool,
    /// Lines that are accepted and look like a mistake, each with its number.
    pub remarks: Vec<String>,
}

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
    /// Whether the server keeps a checkpoint of this index (a preview of 8.2).
    pub has_index_checkpoint: bool,
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
    /// An engine that is not known, by its name.
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
    /// The path of the device; in `storage-engine memory` of the one behind the memory.
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

/// The server would refuse the file, or it cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Number of the line, from 1; `None` for the whole file.
    pub line: Option<usize>,
    /// What was found, and what was expected.
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

/// Reads a configuration.
///
/// Errors: the file is empty, not text, not in the server's form, or one that the server would refuse.
pub fn parse(bytes: &[u8]) -> Result<ServerConfig, Refused> {
    if bytes.starts_with(b"\xef\xbb\xbf") {
        let text = "a UTF-8 byte order mark at the start of the file; expected none: it is not known how the server reads it";
        return Err(Refused { line: Some(1), text: text.to_owned() });
    }
    // The server opens a section at `storage-engine memory` in any case. People write it as a line of its own, too.
    // Both readings return the same values where they accept a file: a name that decides is refused outside of its
    // section, so that none is lost by taking the section's end for the namespace's.
    let as_section = match Reader::read(bytes, BareMemory::OpensSection) {
        Ok(found) => return Ok(found),
        Err(stop) => stop,
    };
    if !as_section.has_bare_memory {
        return Err(as_section.refused);
    }
    match Reader::read(bytes, BareMemory::IsOneLine) {
        Ok(found) => Ok(found),
        // The reading that fits better fails later, for the real reason.
        Err(as_line) if as_line.last_line > as_section.last_line => Err(as_line.refused),
        Err(_) => Err(as_section.refused),
    }
}

/// How `storage-engine memory` without `{` is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BareMemory {
    OpensSection,
    IsOneLine,
}

/// A section, as far as it decides what its lines mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Section {
    Service,
    Logging,
    Namespace,
    Storage,
    /// Another section within a namespace.
    WithinNamespace,
    /// `xdr`, or a section that is not known: `namespace` may stand in it, and means another thing.
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

/// Why and where a reading ended.
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
            let text = "the file is empty, or has nothing but comments; expected a line 'namespace NAME {'";
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
            [values @ .., "{"] => (values, true),
            _ => (values, false),
        };
        for value in values {
            check_value(value)?;
        }
        match self.open.last().map(|open| open.section) {
            None => self.read_top_level(name, values, opens),
            Some(section) => self.read_in_section(section, name, values, opens),
        }
    }

    fn read_top_level(&mut self, name: &'t str, values: &[&'t str], opens: bool) -> Result<(), String> {
        let section = match name {
            "namespace" => return self.open_namespace(values),
            "service" => Section::Service,
            "logging" => Section::Logging,
            "network" | "security" | "mod-lua" => Section::Plain,
            "xdr" => Section::Foreign,
            // A section before it was closed too early, or its name opens one that is not known here.
            "storage-engine" | "index-type" | "sindex-type" | "device" | "file" => return Err(self.misplaced(name)),
            _ if opens => {
                self.remark(format!("{} is no known section; it was skipped", shown(name)));
                return self.open_section(Section::Foreign, name);
            }
            _ => {
                return Err(format!(
                    "{} is no known section; expected service, logging, network, namespace, security, xdr or mod-lua",
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
            return Err(format!("namespace {} is there twice; expected it once", shown(name)));
        }
        if self.found.namespaces.len() == MAX_NAMESPACES {
            return Err(format!("there are more than {MAX_NAMESPACES} namespaces; expected at most as many"));
        }
        if name.contains(['{', '}']) {
            let text = format!("the server takes {} as the name of the namespace, with its brace", shown(name));
            self.remark(text);
        }
        self.name = Some(parsed);
        self.open_section(Section::Namespace, "namespace")
    }

    fn read_in_section(&mut self, section: Section, name: &'t str, values: &[&'t str], opens: bool) -> Result<(), String> {
        let mut inner = match section {
            Section::Foreign => Section::Foreign,
            Section::Namespace | Section::Storage | Section::WithinNamespace => Section::WithinNamespace,
            Section::Service | Section::Logging | Section::Plain => Section::Plain,
        };
        let mut opens = opens;
        // It is not known in which sections these may stand, and they give rise to a remark alone.
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
                let path = self.path(name, values, false)?;
                self.found.logs.push(path.to_owned());
            }
            (Section::Namespace, "storage-engine") => {
                inner = Section::Storage;
                opens = self.read_storage_engine(values, opens)?;
            }
            (Section::Namespace, "index-type" | "sindex-type") => self.read_index_type(name, values, opens)?,
            (Section::Storage, "device") => self.read_device(LineKind::Device, name, values, opens)?,
            (Section::Storage, "file") => self.read_device(LineKind::File, name, values, opens)?,
            // Sections begin or end elsewhere than it seems: the line may be one that decides.
            (_, "namespace" | "storage-engine" | "device") => return Err(self.misplaced(name)),
            (Section::Namespace | Section::Storage | Section::WithinNamespace, "index-type" | "sindex-type" | "file") => {
                return Err(self.misplaced(name));
            }
            _ => {}
        }
        if opens { self.open_section(inner, name) } else { Ok(()) }
    }

    /// Returns whether the line opens a section.
    fn read_storage_engine(&mut self, values: &[&'t str], opens: bool) -> Result<bool, String> {
        let expected = "'storage-engine device {' or 'storage-engine memory {'";
        let engine = one_value("storage-engine", values, expected)?;
        if self.namespace.storage != Storage::Unspecified {
            return Err("'storage-engine' is there twice in a namespace; expected it once".to_owned());
        }
        let (storage, opens) = match engine {
            // Without a device it could not start.
            "device" => (Storage::Device, true),
            "memory" => {
                self.has_bare_memory |= !opens;
                (Storage::Memory, opens || self.bare_memory == BareMemory::OpensSection)
            }
            _ if is_template(engine) => return Err(template(engine)),
            _ if !opens || engine.contains(['{', '}']) => {
                return Err(format!("{} is no known storage engine; expected {expected}", shown(engine)));
            }
            _ => {
                // Its devices are witnesses, too, if they have the header that is known.
                self.remark(format!("{} is no known storage engine; it was read like 'device'", shown(engine)));
                (Storage::Other(engine.to_owned()), true)
            }
        };
        self.namespace.storage = storage;
        Ok(opens)
    }

    fn read_index_type(&mut self, name: &str, values: &[&'t str], opens: bool) -> Result<(), String> {
        let value = one_value(name, values, "shmem, pmem or flash")?;
        if is_template(value) {
            return Err(template(value));
        }
        // The other types have mounts, and it is not known whether the server takes a line without `{` as a section.
        if value != "shmem" && !opens {
            return Err(format!("'{name}' is {}; expected shmem, or a '{{' behind another type", shown(value)));
        }
        if !matches!(value, "shmem" | "pmem" | "flash") {
            self.remark(format!("'{name}' is {}, which is no known type", shown(value)));
        }
        let slot = if name == "index-type" { &mut self.namespace.index_type } else { &mut self.namespace.sindex_type };
        set_once(slot, name, value)
    }

    fn read_device(&mut self, kind: LineKind, name: &str, values: &[&'t str], opens: bool) -> Result<(), String> {
        let (most, expected) = match self.namespace.storage {
            Storage::Memory => (1, "one path: a storage-engine memory has no shadow devices"),
            _ => (2, "one or two paths, the device and its shadow"),
        };
        if opens {
            return Err(format!("a '{{' behind '{name}'; expected {expected}"));
        }
        if values.len() > most {
            return Err(too_many(name, values, expected));
        }
        let [main, shadow @ ..] = values else {
            return Err(format!("'{name}' has no value; expected {expected}"));
        };
        // The server takes `file` lines as another engine than `device` lines; what it does with both is not known.
        if self.namespace.devices.first().is_some_and(|first| first.kind != kind) {
            return Err("'device' and 'file' lines in one storage engine; expected lines of one kind".to_owned());
        }
        if self.namespace.devices.len() == MAX_DEVICES {
            return Err(format!("there are more than {MAX_DEVICES} '{name}' lines in a namespace; expected at most as many"));
        }
        for path in values {
            if !self.paths.insert(path) {
                return Err(format!("{} is named twice as a device; expected each once", shown(path)));
            }
            self.remark_template(path);
        }
        let shadow = shadow.first().map(|&shadow| shadow.to_owned());
        self.namespace.devices.push(DeviceLine { kind, main: (*main).to_owned(), shadow });
        Ok(())
    }

    fn path(&mut self, name: &str, values: &[&'t str], opens: bool) -> Result<&'t str, String> {
        if opens {
            return Err(format!("a '{{' behind '{name}'; expected one path"));
        }
        let path = one_value(name, values, "one path")?;
        self.remark_template(path);
        Ok(path)
    }

    fn open_section(&mut self, section: Section, name: &'t str) -> Result<(), String> {
        if self.open.len() == MAX_DEPTH {
            return Err(format!("there are more than {MAX_DEPTH} sections within one another; expected at most as many"));
        }
        self.open.push(Open { section, name, line: self.line });
        Ok(())
    }

    fn close(&mut self, values: &[&str]) -> Result<(), String> {
        if let Some(value) = values.first() {
            return Err(format!("{} behind a '}}'; expected the '}}' on a line of its own", shown(value)));
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
            "namespace" => "at the top level",
            "device" | "file" => "in a storage-engine of a namespace",
            _ => "in a namespace",
        };
        match self.open.last() {
            Some(open) => format!(
                "'{name}' stands in the section '{}' of line {}; expected it {place}: a '}}' may be missing before it",
                open.name, open.line
            ),
            None => format!("'{name}' stands in no section; expected it {place}: a ' {{' may be missing before it"),
        }
    }

    fn remark_template(&mut self, path: &str) {
        if is_template(path) {
            self.remark(format!("{} looks like a template; the server takes it as a path as it stands", shown(path)));
        }
    }

    fn remark(&mut self, text: String) {
        if self.found.remarks.len() < MAX_REMARKS {
            self.found.remarks.push(format!("line {}: {text}", self.line));
        }
    }
}

/// The words of a line without its line end.
///
/// Errors: the line is not text. The bytes of a comment may be of another character set, for nobody reads them.
fn words_of(line: &[u8]) -> Result<Vec<&str>, String> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match line.iter().find(|&&byte| byte.is_ascii_control() && byte != b'\t') {
        Some(b'\r') => return Err("a carriage return within a line; expected it at line ends alone".to_owned()),
        Some(byte) => return Err(format!("a control byte 0x{byte:02x}; expected a text file")),
        None => {}
    }
    let end = line.iter().position(|&byte| byte == b'#').unwrap_or(line.len());
    let text = std::str::from_utf8(&line[..end]).map_err(|_| "bytes that are not UTF-8; expected a text file".to_owned())?;
    // It is not known what the server makes of them: part of a word, or the end of one.
    let is_odd = |char: &char| char.is_control() && *char != '\t' || char.is_whitespace() && !char.is_ascii();
    if let Some(char) = text.chars().find(is_odd) {
        return Err(format!("a character U+{:04X}; expected spaces and tabs alone between words", u32::from(char)));
    }
    Ok(text.split_ascii_whitespace().collect())
}

/// Checks the first word of a line: all names of the server are in lower case, with digits and hyphens.
fn check_name(name: &str) -> Result<(), String> {
    let is_name_byte = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    if name.starts_with(|first: char| first.is_ascii_lowercase()) && name.bytes().all(is_name_byte) {
        return Ok(());
    }
    let found = shown(name);
    Err(if name == "{" {
        "a '{' on a line of its own; expected it at the end of the line that opens the section".to_owned()
    } else if is_template(name) {
        template(name)
    } else if matches!(name, "---" | "-" | "%YAML") || name.ends_with(':') {
        format!("{found} is YAML; expected the other form of the configuration, such as 'namespace NAME {{'")
    } else if name.contains(['{', '}']) {
        format!("{found} has a brace in it; expected a name, and a space before '{{'")
    } else {
        format!("{found} is no name of a setting; expected lower-case letters, digits and '-'")
    })
}

/// Checks a word behind the first, of which none is a brace, but for a `{` at the end.
fn check_value(value: &str) -> Result<(), String> {
    match value {
        "{" => Err("a '{' within a line; expected it at the end, and the section's lines below".to_owned()),
        "}" => Err("a '}' behind other words; expected it on a line of its own".to_owned()),
        _ if TEMPLATE_MARKS.contains(&value) => Err(template(value)),
        _ => Ok(()),
    }
}

fn is_template(word: &str) -> bool {
    TEMPLATE_MARKS.iter().any(|mark| word.contains(mark))
}

fn template(word: &str) -> String {
    format!("{} is part of a template; expected the file that the server reads", shown(word))
}

fn one_value<'t>(name: &str, values: &[&'t str], expected: &str) -> Result<&'t str, String> {
    match values {
        [value] => Ok(value),
        [] => Err(format!("'{name}' has no value; expected {expected}")),
        _ => Err(too_many(name, values, expected)),
    }
}

fn too_many(name: &str, values: &[&str], expected: &str) -> String {
    match values.iter().find(|value| is_template(value)) {
        Some(value) => template(value),
        None => format!("'{name}' has {} values; expected {expected}", values.len()),
    }
}

fn set_once(slot: &mut Option<String>, name: &str, value: &str) -> Result<(), String> {
    if slot.is_some() {
        return Err(format!("'{name}' is there twice; expected it once: it is not known which of them the server takes"));
    }
    *slot = Some(value.to_owned());
    Ok(())
}

/// A word in quotes, cut if it is long.
fn shown(word: &str) -> String {
    match word.char_indices().nth(MAX_SHOWN_CHARS) {
        Some((end, _)) => format!("'{}...'", &word[..end]),
        None => format!("'{word}'"),
    }
}

/// Reads the assignments of an environment file as systemd does for `EnvironmentFile=`; the last one of a name wins.
///
/// Lines that begin with `#` or `;`, have no `=`, or have no valid name before it, are passed over. A value may be
/// quoted, in parts, over several lines; a backslash keeps the next character, or continues a line. A comment ends with
/// its line: systemd before 254 continued it, too, where a backslash ended it.
pub fn environment_file(text: &str) -> BTreeMap<String, String> {
    let mut reader = EnvironmentReader::default();
    let mut place = Place::BeforeName;
    for char in text.chars() {
        place = reader.read(place, char);
    }
    // The end of the file ends a line, a quoted value and a continued line alike.
    if !matches!(place, Place::BeforeName | Place::Name | Place::Comment | Place::CommentEscape) {
        reader.assign();
    }
    reader.found
}

/// Where in an assignment a character stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    BeforeName,
    Name,
    /// Before a value, or behind a quoted part of it.
    BeforeValue,
    Unquoted,
    UnquotedEscape,
    SingleQuoted,
    DoubleQuoted,
    DoubleQuotedEscape,
    Comment,
    CommentEscape,
}

#[derive(Default)]
struct EnvironmentReader {
    found: BTreeMap<String, String>,
    name: String,
    value: String,
    /// Length of the value in bytes without white space at its end that is neither quoted nor escaped.
    kept: usize,
}

impl EnvironmentReader {
    fn read(&mut self, place: Place, char: char) -> Place {
        // A carriage return ends a line, too.
        let is_end = matches!(char, '\n' | '\r');
        let is_white = is_end || matches!(char, ' ' | '\t');
        match (place, char) {
            (Place::BeforeName, '#' | ';') => Place::Comment,
            (Place::BeforeName, _) if is_white => Place::BeforeName,
            (Place::BeforeName, _) => self.push_name(char),
            (Place::Name, '=') => Place::BeforeValue,
            (Place::Name, _) if is_end => {
                self.name.clear();
                Place::BeforeName
            }
            (Place::Name, _) => self.push_name(char),
            (Place::BeforeValue | Place::Unquoted, _) if is_end => self.assign(),
            (Place::BeforeValue, '\'') => Place::SingleQuoted,
            (Place::BeforeValue, '"') => Place::DoubleQuoted,
            (Place::BeforeValue, _) if is_white => Place::BeforeValue,
            (Place::BeforeValue | Place::Unquoted, '\\') => {
                // What stands before it is not at the end.
                self.kept = self.value.len();
                Place::UnquotedEscape
            }
            (Place::Unquoted, _) if is_white => {
                self.value.push(char);
                Place::Unquoted
            }
            (Place::UnquotedEscape, _) if is_end => Place::Unquoted,
            (Place::BeforeValue | Place::Unquoted | Place::UnquotedEscape, _) => self.keep(char, Place::Unquoted),
            (Place::SingleQuoted, '\'') | (Place::DoubleQuoted, '"') => Place::BeforeValue,
            (Place::DoubleQuoted, '\\') => Place::DoubleQuotedEscape,
            (Place::DoubleQuotedEscape, '\n') => Place::DoubleQuoted,
            (Place::DoubleQuotedEscape, '"' | '\\' | '`' | '$') => self.keep(char, Place::DoubleQuoted),
            (Place::DoubleQuotedEscape, _) => {
                self.keep('\\', Place::DoubleQuoted);
                self.keep(char, Place::DoubleQuoted)
            }
            (Place::SingleQuoted | Place::DoubleQuoted, _) => self.keep(char, place),
            (Place::Comment | Place::CommentEscape, _) if is_end => Place::BeforeName,
            (Place::Comment, '\\') => Place::CommentEscape,
            (Place::Comment | Place::CommentEscape, _) => Place::Comment,
        }
    }

    fn push_name(&mut self, char: char) -> Place {
        self.name.push(char);
        Place::Name
    }

    fn keep(&mut self, char: char, next: Place) -> Place {
        self.value.push(char);
        self.kept = self.value.len();
        next
    }

    fn assign(&mut self) -> Place {
        let name = std::mem::take(&mut self.name);
        let mut value = std::mem::take(&mut self.value);
        value.truncate(std::mem::take(&mut self.kept));
        let name = name.trim_end_matches([' ', '\t']);
        let is_first = |first: char| first.is_ascii_alphabetic() || first == '_';
        if name.starts_with(is_first) && name.chars().all(|char| char.is_ascii_alphanumeric() || char == '_') {
            self.found.insert(name.to_owned(), value);
        }
        Place::BeforeName
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The packaged configuration's usual shape, with devices.
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

    /// One of everything that decides.
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

    fn text(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    fn line(kind: LineKind, main: &str, shadow: Option<&str>) -> DeviceLine {
        DeviceLine { kind, main: main.to_owned(), shadow: shadow.map(str::to_owned) }
    }

    fn device(main: &str) -> DeviceLine {
        line(LineKind::Device, main, None)
    }

    fn file(main: &str) -> DeviceLine {
        line(LineKind::File, main, None)
    }

    fn stored(storage: Storage, devices: impl Into<Vec<DeviceLine>>) -> NamespaceConfig {
        NamespaceConfig { storage, devices: devices.into(), ..NamespaceConfig::default() }
    }

    fn config<const N: usize>(namespaces: [(&str, NamespaceConfig); N]) -> ServerConfig {
        let namespaces = namespaces.into_iter().map(|(text, namespace)| (name(text), namespace)).collect();
        ServerConfig { namespaces, ..ServerConfig::default() }
    }

    /// The configuration of namespace `a` with lines in its storage engine.
    fn in_engine(engine: &str, lines: &str) -> String {
        format!("namespace a {{\n storage-engine {engine} {{\n{lines}\n }}\n}}\n")
    }

    fn with_crlf(text: &str) -> String {
        text.replace('\n', "\r\n")
    }

    fn whole() -> ServerConfig {
        let test = NamespaceConfig {
            index_type: text("shmem"),
            sindex_type: text("flash"),
            ..stored(
                Storage::Device,
                [line(LineKind::Device, "/dev/nvme0n1p1", Some("/dev/sdb1")), device("/dev/nvme1n1p1"), device("/not/")],
            )
        };
        let cache = NamespaceConfig { index_type: text("pmem"), ..stored(Storage::Memory, [file("/srv/cache.dat")]) };
        let only = NamespaceConfig { has_index_checkpoint: true, ..stored(Storage::Memory, []) };
        ServerConfig {
            work_directory: text("/srv/aerospike"),
            logs: vec!["/var/log/aerospike/aerospike.log".to_owned()],
            ..config([("test", test), ("cache", cache), ("only", only)])
        }
    }

    #[test]
    fn what_the_server_accepts_is_read_with_exact_values() {
        let none = NamespaceConfig::default;
        let memory = || stored(Storage::Memory, []);
        let remarked = |remark: &str, config: ServerConfig| ServerConfig { remarks: vec![remark.to_owned()], ..config };
        let on_device = |devices: Vec<DeviceLine>| config([("a", stored(Storage::Device, devices))]);
        let bar = stored(Storage::Device, [file("/opt/aerospike/data/bar.dat")]);
        let rows: Vec<(&str, String, ServerConfig)> = vec![
            ("the packaged one", PACKAGED.into(), config([("test", memory()), ("bar", bar)])),
            ("one of everything", WHOLE.into(), whole()),
            ("a namespace alone", "namespace test {\n}\n".into(), config([("test", none())])),
            ("no line end at the end", "namespace test {\n}".into(), config([("test", none())])),
            ("blanks and tabs", "\n\n \tnamespace \t test  \t{\t\n\t } \n\n".into(), config([("test", none())])),
            ("a comment behind every word", "namespace test {# x\n}# y } z {\n#".into(), config([("test", none())])),
            ("a comment in another character set", "# caf".to_owned() + "\nnamespace a {\n}\n", config([("a", none())])),
            // Braces are not looked at where a name opens a section.
            ("namespace without a brace", "namespace test\n}\n".into(), config([("test", none())])),
            (
                "top-level sections without a brace",
                "service\nwork-directory /w\n}\nlogging\nfile /l\n}\nnetwork\n}\nsecurity\n}\nxdr\n}\nmod-lua\n}\nnamespace a\n}".into(),
                ServerConfig { work_directory: text("/w"), logs: vec!["/l".to_owned()], ..config([("a", none())]) },
            ),
            (
                "device engine without a brace",
                "namespace a\nstorage-engine device\ndevice /d\n}\n}\n".into(),
                on_device(vec![device("/d")]),
            ),
            (
                "a brace that is part of a namespace's name",
                "namespace test{\n}\n".into(),
                remarked("line 1: the server takes 'test{' as the name of the namespace, with its brace", config([("test{", none())])),
            ),
            ("a name of 31 bytes", format!("namespace {} {{\n}}\n", "x".repeat(31)), config([("x".repeat(31).as_str(), none())])),
            // `storage-engine memory` without a brace, as a line and as a section.
            ("memory on a line", "namespace a {\n storage-engine memory\n data-size 1G\n}\n".into(), config([("a", memory())])),
            (
                "memory on a line in two namespaces",
                "namespace a {\nstorage-engine memory\nindex-type shmem\n}\nnamespace b {\nstorage-engine memory\n}\n".into(),
                config([("a", NamespaceConfig { index_type: text("shmem"), ..memory() }), ("b", memory())]),
            ),
            (
                "memory on a line before a device engine",
                "namespace a {\nstorage-engine memory\n}\nnamespace b {\nstorage-engine device {\ndevice /d\n}\n}\n".into(),
                config([("a", memory()), ("b", stored(Storage::Device, [device("/d")]))]),
            ),
            (
                "memory as a section without a brace",
                "namespace a {\nstorage-engine memory\nfile /f\n}\nindex-type shmem\n}\nnamespace b {\nstorage-engine memory\n}\n}\n".into(),
                config([
                    ("a", NamespaceConfig { index_type: text("shmem"), ..stored(Storage::Memory, [file("/f")]) }),
                    ("b", memory()),
                ]),
            ),
            // Storage lines.
            (
                "devices with shadows",
                in_engine("device", "device /a /b\ndevice /c\n"),
                on_device(vec![line(LineKind::Device, "/a", Some("/b")), device("/c")]),
            ),
            ("files with shadows", in_engine("device", "file /a /b"), on_device(vec![line(LineKind::File, "/a", Some("/b"))])),
            ("a device behind memory", in_engine("memory", "device /a"), config([("a", stored(Storage::Memory, [device("/a")]))])),
            (
                "braces in paths",
                in_engine("device", "device /d{0} /s}\ndevice {x\ndevice /a}}{"),
                remarked(
                    "line 5: '/a}}{' looks like a template; the server takes it as a path as it stands",
                    on_device(vec![line(LineKind::Device, "/d{0}", Some("/s}")), device("{x"), device("/a}}{")]),
                ),
            ),
            ("a path that is not ASCII", in_engine("device", "device /dev/ä\u{202e}"), on_device(vec![device("/dev/ä\u{202e}")])),
            (
                "an engine that is not known",
                in_engine("pmem", "file /mnt/pmem/a"),
                remarked(
                    "line 2: 'pmem' is no known storage engine; it was read like 'device'",
                    config([("a", stored(Storage::Other("pmem".to_owned()), [file("/mnt/pmem/a")]))]),
                ),
            ),
            // Index types.
            (
                "index types with mounts",
                "namespace a {\nindex-type shmem {\nmount /m\n}\nsindex-type pmem {\n}\n}\n".into(),
                config([("a", NamespaceConfig { index_type: text("shmem"), sindex_type: text("pmem"), ..none() })]),
            ),
            (
                "an index type that is not known",
                "namespace a {\nindex-type new {\n}\n}\n".into(),
                remarked(
                    "line 2: 'index-type' is 'new', which is no known type",
                    config([("a", NamespaceConfig { index_type: text("new"), ..none() })]),
                ),
            ),
            // Names count only where they stand.
            (
                "the same names elsewhere",
                "service {\nwork-directory /w\nfile /x\nx {\nwork-directory /x\n}\n}\nnetwork {\nservice {\nwork-directory /x\n}\n}\n\
                 logging {\nconsole {\nfile /x\n}\nsyslog {\n}\n}\n\
                 xdr {\ndc d {\nnamespace b {\nindex-type pmem {\n}\n}\nnamespace c\n}\n}\nnamespace a {\nwork-directory /x\n}\n"
                    .into(),
                ServerConfig { work_directory: text("/w"), ..config([("a", none())]) },
            ),
            (
                "logs, with and without a section",
                "logging {\nfile /dev/stdout {\ncontext any info\n}\nfile /l\n}\nlogging {\nfile /m{ {\n}\n}\nnamespace a {\n}\n".into(),
                ServerConfig {
                    logs: ["/dev/stdout", "/l", "/m{"].map(str::to_owned).to_vec(),
                    ..config([("a", none())])
                },
            ),
            (
                "a section that is not known",
                "new {\nwork-directory /x\nnamespace b {\n}\n}\nnamespace a {\n}\n".into(),
                remarked("line 1: 'new' is no known section; it was skipped", config([("a", none())])),
            ),
            (
                "values that are templates, which the server takes as they stand",
                "service {\nwork-directory /${w}\n}\nlogging {\nfile {{l}}\n}\nnamespace a {\n}\n".into(),
                ServerConfig {
                    work_directory: text("/${w}"),
                    logs: vec!["{{l}}".to_owned()],
                    remarks: vec![
                        "line 2: '/${w}' looks like a template; the server takes it as a path as it stands".to_owned(),
                        "line 5: '{{l}}' looks like a template; the server takes it as a path as it stands".to_owned(),
                    ],
                    ..config([("a", none())])
                },
            ),
            // Checkpoints of the server's own.
            (
                "a checkpoint outside of a namespace",
                "service {\nindex-checkpoint-path /x\n}\nnamespace a {\n}\n".into(),
                ServerConfig { has_index_checkpoint: true, ..config([("a", none())]) },
            ),
            (
                "a checkpoint of a namespace",
                "namespace a {\ncheckpoint-save true\n}\nnamespace b {\nx {\nindex-checkpoint-path /x\n}\n}\n".into(),
                config([
                    ("a", NamespaceConfig { has_index_checkpoint: true, ..none() }),
                    ("b", NamespaceConfig { has_index_checkpoint: true, ..none() }),
                ]),
            ),
            ("a checkpoint that is off", "namespace a {\ncheckpoint-save false\n}\n".into(), config([("a", none())])),
        ];
        for (title, text, expected) in rows {
            assert_eq!(parse(text.as_bytes()), Ok(expected.clone()), "{title}");
            assert_eq!(parse(with_crlf(&text).as_bytes()), Ok(expected), "{title}, with the other line ends");
        }
        assert_eq!(parse(b"# caf\xe9\nnamespace a { #\xff\n}\n"), Ok(config([("a", none())])), "a comment of other bytes");
    }

    #[test]
    fn braces_are_not_looked_at_where_a_name_opens_a_section() {
        let bare = WHOLE.lines().map(|line| {
            let name = line.split_whitespace().next().unwrap_or_default();
            let is_opener = matches!(name, "namespace" | "storage-engine") || !line.starts_with([' ', '\t']);
            let line = if is_opener { line.trim_end_matches('{') } else { line };
            format!("{line}\n")
        });
        let bare = bare.collect::<String>();
        assert_eq!(bare.matches('{').count() + 10, WHOLE.matches('{').count(), "{bare}");
        assert_eq!(parse(bare.as_bytes()), Ok(whole()));
    }

    #[test]
    fn what_the_server_refuses_or_nobody_understands_is_refused_with_its_line() {
        let deep = "a {\n".repeat(MAX_DEPTH + 1);
        let many_names = |count: usize| (0..count).map(|n| format!("namespace n{n} {{\n}}\n")).collect::<String>();
        let many_devices = |count: usize| (0..count).map(|n| format!("device /d{n} /s{n}\n")).collect::<String>();
        let long = "x".repeat(32);
        let in_namespace = |lines: &str| format!("namespace a {{\n{lines}\n}}\n");
        let rows: Vec<(Vec<u8>, Option<usize>, &str)> = vec![
            // Nothing that could be a configuration.
            (b"".to_vec(), None, "the file is empty"),
            (b"\n# namespace a {\n\r\n".to_vec(), None, "nothing but comments; expected a line 'namespace NAME {'"),
            (b"service {\n}\n".to_vec(), None, "the file has no namespace; expected a line 'namespace NAME {'"),
            (b"xdr {\nnamespace a {\n}\n}\n".to_vec(), None, "the file has no namespace"),
            // Binary.
            (b"namespace a {\n}\n\0{{{".to_vec(), Some(3), "a control byte 0x00; expected a text file"),
            (b"\x7fELF\x02\x01".to_vec(), Some(1), "a control byte 0x7f"),
            (b"namespace a {\n# \x1b[2J\n}\n".to_vec(), Some(2), "a control byte 0x1b"),
            (b"namespace a {\n}\x0c\n".to_vec(), Some(2), "a control byte 0x0c"),
            (b"n\0a\0m\0e\0".to_vec(), Some(1), "a control byte 0x00"),
            (b"namespace a\xff {\n}\n".to_vec(), Some(1), "bytes that are not UTF-8; expected a text file"),
            (b"namespace a {\rreplication-factor 2\r}\r".to_vec(), Some(1), "a carriage return within a line"),
            (b"namespace a {\r\r\n}\n".to_vec(), Some(1), "a carriage return within a line"),
            ("namespace\u{a0}a {\n}\n".into(), Some(1), "a character U+00A0; expected spaces and tabs alone"),
            ("namespace a {\nx \u{9b}\n}\n".into(), Some(2), "a character U+009B"),
            // A byte order mark, which only a file of namespaces would show to be more than its first word.
            (b"\xef\xbb\xbfnamespace a {\n}\n".to_vec(), Some(1), "a UTF-8 byte order mark"),
            (b"\xef\xbb\xbf# c\nnamespace a {\n}\n".to_vec(), Some(1), "a UTF-8 byte order mark"),
            (b"\xff\xfen\0a\0".to_vec(), Some(1), "a control byte 0x00"),
            // YAML.
            (b"---\nservice:\n".to_vec(), Some(1), "'---' is YAML; expected the other form of the configuration"),
            (b"# c\nnamespaces:\n  - name: a\n".to_vec(), Some(2), "'namespaces:' is YAML"),
            (b"- name: a\n".to_vec(), Some(1), "'-' is YAML"),
            (b"%YAML 1.2\n".to_vec(), Some(1), "'%YAML' is YAML"),
            (in_namespace("replication-factor: 2").into(), Some(2), "'replication-factor:' is YAML"),
            // Templates.
            (b"{{ range .Namespaces }}\n".to_vec(), Some(1), "'{{' is part of a template; expected the file that the server"),
            (b"{% if x %}\n".to_vec(), Some(1), "'{%' is part of a template"),
            (b"<% namespaces %>\n".to_vec(), Some(1), "'<%' is part of a template"),
            (b"${NAMESPACES}\n".to_vec(), Some(1), "'${NAMESPACES}' is part of a template"),
            (b"namespace {{ name }} {\n}\n".to_vec(), Some(1), "'{{' is part of a template"),
            (b"namespace {{name}} {\n}\n".to_vec(), Some(1), "'{{name}}' is part of a template"),
            (b"namespace ${NAME} {\n}\n".to_vec(), Some(1), "'${NAME}' is part of a template"),
            (b"namespace <%=name%> {\n}\n".to_vec(), Some(1), "'<%=name%>' is part of a template"),
            (in_namespace("replication-factor {{ x }}").into(), Some(2), "'{{' is part of a template"),
            (in_namespace("storage-engine ${ENGINE} {\n}").into(), Some(2), "'${ENGINE}' is part of a template"),
            (in_namespace("index-type {{type}}").into(), Some(2), "'{{type}}' is part of a template"),
            (
                in_engine("device", "{{#each devices}}").into(),
                Some(3),
                "'{{#each' is part of a template".split('#').next().unwrap_or(""),
            ),
            (in_engine("device", "device {{ device }}").into(), Some(3), "'{{' is part of a template"),
            (in_engine("device", "device {{a}} {{b}} {{c}}").into(), Some(3), "'{{a}}' is part of a template"),
            // Words at the top level.
            (b"hello world\n".to_vec(), Some(1), "'hello' is no known section; expected service, logging, network, namespace,"),
            (b"namespaces a\n".to_vec(), Some(1), "'namespaces' is no known section"),
            (
                b"device /a\nnamespace a {\n}\n".to_vec(),
                Some(1),
                "'device' stands in no section; expected it in a storage-engine",
            ),
            (b"Namespace a {\n}\n".to_vec(), Some(1), "'Namespace' is no name of a setting; expected lower-case letters"),
            (b"{\"namespaces\": [] }\n".to_vec(), Some(1), "has a brace in it"),
            (b"service x {\n}\n".to_vec(), Some(1), "'service' has 1 values; expected 'service {'"),
            // Braces.
            (
                b"namespace a\n{\n}\n".to_vec(),
                Some(2),
                "a '{' on a line of its own; expected it at the end of the line that opens",
            ),
            (b"service{\n}\n".to_vec(), Some(1), "'service{' has a brace in it; expected a name, and a space before '{'"),
            (in_namespace("storage-engine device{\ndevice /a\n}").into(), Some(2), "'device{' is no known storage engine"),
            (in_namespace("storage-engine memory{\n}").into(), Some(2), "'memory{' is no known storage engine"),
            (in_namespace("storage-engine device{ {\n}").into(), Some(2), "'device{' is no known storage engine"),
            (in_namespace("storage-engine{\n}").into(), Some(2), "'storage-engine{' has a brace in it"),
            (
                in_namespace("replication-factor 2 }").into(),
                Some(2),
                "a '}' behind other words; expected it on a line of its own",
            ),
            (in_engine("device", "device /a }").into(), Some(3), "a '}' behind other words"),
            (b"namespace x { device /d }\n".to_vec(), Some(1), "a '{' within a line; expected it at the end"),
            (b"service { work-directory /w }\nnamespace a {\n}\n".to_vec(), Some(1), "a '{' within a line"),
            (b"logging {\nconsole { context any info }\n}\n".to_vec(), Some(2), "a '{' within a line"),
            (b"network { service { port 3000\n } fabric { port 3001 } }\n".to_vec(), Some(1), "a '{' within a line"),
            (b"namespace a {}\n".to_vec(), Some(1), "'namespace' has 2 values; expected 'namespace NAME {'"),
            (b"namespace a {\n} x\n".to_vec(), Some(2), "'x' behind a '}'; expected the '}' on a line of its own"),
            (b"namespace a {\nx {\n} }\n".to_vec(), Some(3), "'}' behind a '}'"),
            (b"namespace a {\n}}\n".to_vec(), Some(2), "'}}' is part of a template"),
            (b"namespace a {\n}x\n".to_vec(), Some(2), "'}x' has a brace in it"),
            (b"}\n".to_vec(), Some(1), "a '}' with no section open"),
            (
                b"namespace a {\n}\n}\n".to_vec(),
                Some(3),
                "a '}' with no section open; expected a ' {' at the end of a line before",
            ),
            (b"namespace a {\nset users\nx 1\n}\n}\n".to_vec(), Some(5), "a '}' with no section open"),
            (b"namespace a {\n".to_vec(), Some(1), "'namespace' opens a section that is not closed; expected 1 more '}'"),
            (
                b"namespace a {\n}\nservice {\nx {\n".to_vec(),
                Some(4),
                "'x' opens a section that is not closed; expected 2 more '}'",
            ),
            (b"namespace a {\nstorage-engine memory\n".to_vec(), Some(2), "opens a section that is not closed; expected 2 more"),
            (deep.into(), Some(MAX_DEPTH + 1), "there are more than 64 sections within one another"),
            // A closing brace that is missing, or one too much, where the numbers add up.
            (
                b"namespace a {\nset x {\n}\nnamespace b {\n}\n}\n".to_vec(),
                Some(4),
                "'namespace' stands in the section 'namespace' of line 1; expected it at the top level: a '}' may be missing",
            ),
            (b"service {\nnamespace b {\n}\n}\n".to_vec(), Some(2), "'namespace' stands in the section 'service' of line 1"),
            (
                b"network {\nx {\nstorage-engine device {\n}\n}\n}\n".to_vec(),
                Some(3),
                "'storage-engine' stands in the section 'x'",
            ),
            (b"new {\ndevice /a\n}\nnamespace a {\n}\n".to_vec(), Some(2), "'device' stands in the section 'new' of line 1"),
            (
                in_namespace("}\nstorage-engine device {\ndevice /a\n}\nnew {").into(),
                Some(3),
                "'storage-engine' stands in no section",
            ),
            (in_namespace("}\nindex-type pmem {\n}\nnew {").into(), Some(3), "'index-type' stands in no section"),
            (in_namespace("}\nfile /f\nnew {").into(), Some(3), "'file' stands in no section"),
            (in_namespace("device /a").into(), Some(2), "'device' stands in the section 'namespace' of line 1"),
            (in_namespace("file /a").into(), Some(2), "'file' stands in the section 'namespace'"),
            (in_namespace("set x {\nfile /a\n}").into(), Some(3), "'file' stands in the section 'set' of line 2"),
            (in_engine("device", "x {\nfile /a\n}").into(), Some(4), "'file' stands in the section 'x' of line 3"),
            (in_engine("device", "index-type pmem {\n}").into(), Some(3), "'index-type' stands in the section 'storage-engine'"),
            (in_engine("device", "sindex-type shmem").into(), Some(3), "'sindex-type' stands in the section 'storage-engine'"),
            // Namespaces.
            (b"namespace\n}\n".to_vec(), Some(1), "a namespace without a name; expected 'namespace NAME {'"),
            (b"namespace {\n}\n".to_vec(), Some(1), "a namespace without a name"),
            (b"namespace a b {\n}\n".to_vec(), Some(1), "'namespace' has 2 values"),
            (format!("namespace {long} {{\n}}\n").into(), Some(1), "has 32 bytes; expected 1 to 31"),
            (b"namespace a {\n}\nnamespace a {\n}\n".to_vec(), Some(3), "namespace 'a' is there twice; expected it once"),
            (many_names(MAX_NAMESPACES + 1).into(), Some(2 * MAX_NAMESPACES + 1), "there are more than 32 namespaces"),
            // Storage.
            (
                in_engine("device", "device /a /b /c").into(),
                Some(3),
                "'device' has 3 values; expected one or two paths, the device and",
            ),
            (in_engine("device", "file /a /b /c").into(), Some(3), "'file' has 3 values; expected one or two paths"),
            (in_engine("memory", "device /a /b").into(), Some(3), "'device' has 2 values; expected one path"),
            (in_engine("memory", "file /a /b").into(), Some(3), "'file' has 2 values; expected one path"),
            (in_engine("device", "device").into(), Some(3), "'device' has no value; expected one or two paths"),
            (in_engine("device", "device {\n}").into(), Some(3), "a '{' behind 'device'"),
            (in_engine("device", "device /a {\n}").into(), Some(3), "a '{' behind 'device'"),
            (in_engine("device", "device /a\nfile /b").into(), Some(4), "'device' and 'file' lines in one storage engine"),
            (in_engine("memory", "file /a\ndevice /b").into(), Some(4), "'device' and 'file' lines in one storage engine"),
            (in_engine("device", "device /a\ndevice /a").into(), Some(4), "'/a' is named twice as a device; expected each once"),
            (in_engine("device", "device /a /a").into(), Some(3), "'/a' is named twice as a device"),
            (
                in_engine("device", &many_devices(MAX_DEVICES + 1)).into(),
                Some(MAX_DEVICES + 3),
                "there are more than 128 'device' lines",
            ),
            (
                in_namespace("storage-engine {\n}").into(),
                Some(2),
                "'storage-engine' has no value; expected 'storage-engine device {'",
            ),
            (in_namespace("storage-engine device x {\n}").into(), Some(2), "'storage-engine' has 2 values"),
            (in_namespace("storage-engine pmem").into(), Some(2), "'pmem' is no known storage engine"),
            (
                in_namespace("storage-engine memory {\n}\nstorage-engine device {\n}").into(),
                Some(4),
                "'storage-engine' is there twice in a namespace",
            ),
            // What `storage-engine memory` without a brace is, must be the same in the whole file.
            (
                b"namespace a {\nstorage-engine memory\n}\nnamespace b {\nstorage-engine memory\n}\n}\n".to_vec(),
                Some(7),
                "a '}' with no section open",
            ),
            (b"namespace a {\nstorage-engine memory\nfile /a\n}\n".to_vec(), Some(1), "opens a section that is not closed"),
            (b"namespace a {\nstorage-engine memory\nindex-type shmem\n}\n}\n".to_vec(), Some(5), "a '}' with no section open"),
            // Values that decide.
            (in_namespace("index-type").into(), Some(2), "'index-type' has no value; expected shmem, pmem or flash"),
            (in_namespace("index-type {\n}").into(), Some(2), "'index-type' has no value"),
            (in_namespace("index-type shmem x").into(), Some(2), "'index-type' has 2 values"),
            (
                in_namespace("sindex-type flash").into(),
                Some(2),
                "'sindex-type' is 'flash'; expected shmem, or a '{' behind another",
            ),
            (in_namespace("index-type shmem\nindex-type shmem").into(), Some(3), "'index-type' is there twice"),
            (b"service {\nwork-directory\n}\n".to_vec(), Some(2), "'work-directory' has no value; expected one path"),
            (b"service {\nwork-directory /a /b\n}\n".to_vec(), Some(2), "'work-directory' has 2 values; expected one path"),
            (b"service {\nwork-directory /a {\n}\n}\n".to_vec(), Some(2), "a '{' behind 'work-directory'"),
            (b"service {\nwork-directory /a\nwork-directory /a\n}\n".to_vec(), Some(3), "'work-directory' is there twice"),
            (b"logging {\nfile {\n}\n}\n".to_vec(), Some(2), "'file' has no value; expected one path"),
            (b"logging {\nfile /a /b\n}\n".to_vec(), Some(2), "'file' has 2 values; expected one path"),
        ];
        for (bytes, line, expected) in rows {
            let shown = String::from_utf8_lossy(&bytes).into_owned();
            let refused = parse(&bytes).expect_err(&shown);
            assert_eq!(refused.line, line, "{shown}: {refused}");
            assert!(refused.text.contains(expected), "{shown}: {refused}");
            // A file that is already in the other form is refused for the same reason.
            if !shown.contains('\r') && !shown.contains(char::REPLACEMENT_CHARACTER) {
                assert_eq!(parse(with_crlf(&shown).as_bytes()), Err(refused), "{shown}, with the other line ends");
            }
        }
        // At the bound, it is accepted.
        let depth = "a {\n".repeat(MAX_DEPTH) + &"}\n".repeat(MAX_DEPTH) + "namespace a {\n}\n";
        assert_eq!(parse(depth.as_bytes()).map(|found| found.namespaces.len()), Ok(1));
        assert_eq!(parse(many_names(MAX_NAMESPACES).as_bytes()).map(|found| found.namespaces.len()), Ok(MAX_NAMESPACES));
        let devices = parse(in_engine("device", &many_devices(MAX_DEVICES)).as_bytes());
        assert_eq!(devices.map(|found| found.namespaces[&name("a")].devices.len()), Ok(MAX_DEVICES));
    }

    #[test]
    fn messages_are_short_and_remarks_few_whatever_the_file_has() {
        let long = "é".repeat(1 << 20);
        let refused = parse(long.as_bytes()).expect_err("no name");
        assert_eq!(
            refused.text,
            format!("'{}...' is no name of a setting; expected lower-case letters, digits and '-'", "é".repeat(64))
        );
        assert_eq!(refused.to_string(), format!("line 1: {}", refused.text));
        assert_eq!(parse(b"").expect_err("empty").to_string(), parse(b"").expect_err("empty").text);
        let odd = "new {\n}\n".repeat(1 << 16) + "namespace a {\n}\n";
        assert_eq!(parse(odd.as_bytes()).map(|found| found.remarks.len()), Ok(MAX_REMARKS));
    }

    #[test]
    fn paths_of_a_line_are_the_main_device_and_its_shadow() {
        assert_eq!(device("/a").paths().collect::<Vec<_>>(), ["/a"]);
        assert_eq!(line(LineKind::Device, "/a", Some("/b")).paths().collect::<Vec<_>>(), ["/a", "/b"]);
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

    /// Sections that are closed, for the most part, with such lines in them.
    fn any_section() -> impl Strategy<Value = String> {
        let lines = proptest::collection::vec(any_line(), 0..4).prop_map(|lines| lines.join("\n"));
        let devices = proptest::collection::vec("(device|file) /[a-z]{4}( /[a-z]{4})?", 0..3).prop_map(|lines| lines.join("\n"));
        let engine =
            proptest::sample::select(vec!["storage-engine device {", "storage-engine memory {", "storage-engine memory"]);
        let namespace = (0..40_u8, engine, devices, any::<bool>(), lines.clone(), any::<bool>()).prop_map(
            |(name, engine, devices, is_closed, lines, is_plain)| {
                let end = if is_closed { "}" } else { "" };
                let lines = if is_plain { "" } else { &lines };
                format!("namespace n{name} {{\n{engine}\n{devices}\n{end}\n{lines}\n}}")
            },
        );
        prop_oneof![4 => namespace, 1 => lines]
    }

    fn any_file() -> impl Strategy<Value = String> {
        proptest::collection::vec(any_section(), 0..4).prop_map(|sections| sections.join("\n"))
    }

    fn paths(found: &ServerConfig) -> impl Iterator<Item = &str> {
        found.namespaces.values().flat_map(|namespace| &namespace.devices).flat_map(DeviceLine::paths)
    }

    /// A result without the numbers of lines.
    fn unnumbered(result: Result<ServerConfig, Refused>) -> Result<ServerConfig, String> {
        let unnumbered = |text: &String| text.split_once(": ").map_or_else(String::new, |(_, rest)| rest.to_owned());
        let found = result.map_err(|refused| refused.text.split(" of line ").next().unwrap_or_default().to_owned())?;
        Ok(ServerConfig { remarks: found.remarks.iter().map(unnumbered).collect(), ..found })
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
                    let size: usize = paths(&found).map(str::len).sum();
                    prop_assert!(size <= bytes.len() && found.remarks.len() <= MAX_REMARKS);
                }
                Err(refused) => {
                    prop_assert!(!refused.text.is_empty() && refused.text.chars().count() < 4 * MAX_SHOWN_CHARS, "{refused}");
                    let lines = bytes.iter().filter(|&&byte| byte == b'\n').count() + 1;
                    prop_assert!(refused.line.is_none_or(|line| (1..=lines).contains(&line)), "{refused}");
                }
            }
        }

        #[test]
        fn what_is_accepted_has_lost_no_device_line_and_names_no_path_that_is_not_in_the_file(text in any_file()) {
            if let Ok(found) = parse(text.as_bytes()) {
                let words = |line: &str| line.split('#').next().unwrap_or_default().split_whitespace().map(str::to_owned).collect::<Vec<_>>();
                let lines = text.lines().map(words).filter(|words| words.first().is_some_and(|name| name == "device"));
                let expected: BTreeSet<String> = lines.flat_map(|words| words.into_iter().skip(1)).collect();
                let devices = found.namespaces.values().flat_map(|namespace| &namespace.devices);
                let of_devices = devices.clone().filter(|line| line.kind == LineKind::Device).flat_map(DeviceLine::paths);
                prop_assert_eq!(of_devices.map(str::to_owned).collect::<BTreeSet<_>>(), expected);
                for path in paths(&found).chain(found.logs.iter().map(String::as_str)) {
                    prop_assert!(text.contains(path));
                }
                for line in devices {
                    prop_assert!(line.shadow.is_none() || !path_is_of_memory(&found, &line.main));
                }
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

    fn path_is_of_memory(found: &ServerConfig, main: &str) -> bool {
        let of_memory = found.namespaces.values().filter(|namespace| namespace.storage == Storage::Memory);
        of_memory.flat_map(|namespace| &namespace.devices).any(|line| line.main == main)
    }

    #[test]
    fn an_environment_file_is_read_as_systemd_reads_it() {
        // Each as systemd 252 was seen to read it, but for the comment that ends in a backslash.
        for (text, expected) in [
            ("", &[][..]),
            ("A=b", &[("A", "b")]),
            ("# c\n; c\n  # A=c\n\nA=b\n", &[("A", "b")]),
            ("# c\\\nA=b\n", &[("A", "b")]),
            ("# c\\\\\nA=b\n# c\\x\nB=c\n", &[("A", "b"), ("B", "c")]),
            ("A=b\nB=c\nA=d\n", &[("A", "d"), ("B", "c")]),
            ("A=b\r\nB=c\r\n", &[("A", "b"), ("B", "c")]),
            ("A=b\rB=c", &[("A", "b"), ("B", "c")]),
            ("  A \t=  b  # c  \n", &[("A", "b  # c")]),
            ("A=\nB=   \n", &[("A", ""), ("B", "")]),
            ("export A=b\n1A=b\nA B=b\nA-B=b\n=b\nA\nÄ=b\n_a1=b\n", &[("_a1", "b")]),
            ("A\n=b\nB=c\n", &[("B", "c")]),
            ("A\\=b\nB=c", &[("B", "c")]),
            ("\u{feff}A=b\nB=c", &[("B", "c")]),
            ("A=b=c\n", &[("A", "b=c")]),
            // Quotes count at the beginning, and behind another quoted part.
            ("A='x y' z 'q'\n", &[("A", "x yz 'q'")]),
            ("A=\"x\"\"y\"'z'\n", &[("A", "xyz")]),
            ("A=x\"y\"\n", &[("A", "x\"y\"")]),
            ("A=\"x \" \n", &[("A", "x ")]),
            ("A='x\\n\ny'\nB=c", &[("A", "x\\n\ny"), ("B", "c")]),
            ("A=\"a\\\"b\\c\\$d\\\\\\`\\\ne\" \n", &[("A", "a\"b\\c$d\\`e")]),
            ("A=\"x\\\r\ny\"\n", &[("A", "x\\\r\ny")]),
            ("A='x\nB=c", &[("A", "x\nB=c")]),
            ("A=\"x\\", &[("A", "x")]),
            // A backslash keeps a character, or continues a line.
            ("A=a \\b\n", &[("A", "a b")]),
            ("A=a\\\nb\n", &[("A", "ab")]),
            ("A=a \\\n b\n", &[("A", "a  b")]),
            ("A=a \\\n\nB=c\n", &[("A", "a "), ("B", "c")]),
            ("A=x\\ \n", &[("A", "x ")]),
            ("A= \\ x \n", &[("A", " x")]),
            ("A=x\\\r\nB=c\n", &[("A", "x"), ("B", "c")]),
            ("A=x\\\nB=c\n", &[("A", "xB=c")]),
            ("A=x \\", &[("A", "x ")]),
            (
                "# asd\nASD_CONFIG_FILE=/etc/aerospike/other.conf\nASD_OPTIONS=\"--instance 3 --cold-start\"\n",
                &[("ASD_CONFIG_FILE", "/etc/aerospike/other.conf"), ("ASD_OPTIONS", "--instance 3 --cold-start")],
            ),
        ] {
            let expected = expected.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
            assert_eq!(environment_file(text), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_environment_file_gives_valid_names_and_no_more_than_its_text(text in "\\PC*|[AB= \\\\\"'#;\n\r]{0,60}") {
            let found = environment_file(&text);
            prop_assert!(found.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() <= text.len());
            prop_assert!(found.keys().all(|name| text.contains(name.as_str()) && !name.is_empty() && !name.contains(['=', ' '])));
        }
    }
}
