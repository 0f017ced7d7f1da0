//! What `aerospike.conf` says that decides here: storage devices and files, index types, work directory, logs.
//!
//! Pure: text in, a value out. Promise: any text gives a value, in time and memory bounded by the text; what is odd about
//! it is said and does not keep the rest from being read. Must never: panic, call the system, or take a line for more
//! than it says: what is not known is passed over.
//!
//! The form, from public configuration files: a line is a name and its values, `{` behind it opens a block that `}`
//! closes, and `#` begins a comment.

use crate::segment::NamespaceName;
use std::collections::BTreeMap;

/// Blocks in blocks that are looked into; a server's are at most four deep.
const MAX_DEPTH: usize = 64;
/// Oddities that are kept; more say nothing new.
const MAX_ODDITIES: usize = 8;

/// What a configuration says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// Its namespaces.
    pub namespaces: BTreeMap<NamespaceName, Namespace>,
    /// `work-directory` of the service.
    pub work_directory: Option<String>,
    /// Files that are logged to.
    pub logs: Vec<String>,
    /// Whether the server keeps a checkpoint of the index by itself, said outside of a namespace.
    pub has_index_checkpoint: bool,
    /// What is odd: the server would read it differently, or not at all.
    pub oddities: Vec<String>,
}

/// What it says of a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Paths of `device` and `file` in the storage engine, shadow devices among them.
    pub devices: Vec<String>,
    /// `index-type`.
    pub index_type: Option<String>,
    /// `sindex-type`.
    pub sindex_type: Option<String>,
    /// Whether the server keeps a checkpoint of this index by itself (a preview of 8.2).
    pub has_index_checkpoint: bool,
}

/// A block that is open.
#[derive(Clone, Debug)]
enum Block {
    Service,
    Logging,
    Namespace(NamespaceName),
    Storage(NamespaceName),
    Other,
}

#[derive(Default)]
struct Parser {
    found: Configuration,
    open: Vec<Block>,
    /// Blocks deeper than [`MAX_DEPTH`].
    too_deep: usize,
    /// The last line's words, for a `{` on a line of its own.
    last: Vec<String>,
}

/// Reads a configuration.
pub fn parse(text: &str) -> Configuration {
    let mut parser = Parser::default();
    for line in text.lines() {
        parser.line(line.split('#').next().unwrap_or_default());
    }
    if !parser.open.is_empty() {
        let count = parser.open.len() + parser.too_deep;
        parser.odd(format!("{count} blocks are not closed"));
    }
    parser.found
}

impl Parser {
    fn odd(&mut self, text: String) {
        if self.found.oddities.len() < MAX_ODDITIES {
            self.found.oddities.push(text);
        }
    }

    fn line(&mut self, line: &str) {
        let mut rest = line;
        while let Some(at) = rest.find(['{', '}']) {
            let words: Vec<&str> = rest[..at].split_whitespace().collect();
            self.say(&words);
            if rest[at..].starts_with('{') {
                self.open();
            } else {
                self.close();
            }
            rest = &rest[at + 1..];
        }
        let words: Vec<&str> = rest.split_whitespace().collect();
        self.say(&words);
    }

    /// A line's words, whether or not a block follows.
    fn say(&mut self, words: &[&str]) {
        let [name, values @ ..] = words else { return };
        self.last = words.iter().map(|&word| word.to_owned()).collect();
        let first = || values.first().map(|&value| value.to_owned());
        let is_checkpoint = matches!(*name, "index-checkpoint-path" | "checkpoint-save") && values.first() != Some(&"false");
        match (self.open.last(), *name) {
            (None, "namespace") => match values.first().and_then(|name| NamespaceName::new(name)) {
                Some(name) if self.found.namespaces.contains_key(&name) => self.odd(format!("namespace '{name}' is there twice")),
                Some(name) => {
                    self.found.namespaces.insert(name, Namespace::default());
                }
                None => self.odd("a namespace has no name of 1 to 31 bytes".to_owned()),
            },
            (Some(Block::Service), "work-directory") => self.found.work_directory = first(),
            (Some(Block::Logging), "file") => self.found.logs.extend(first()),
            (Some(Block::Storage(namespace)), "device" | "file") => {
                let namespace = self.found.namespaces.entry(namespace.clone()).or_default();
                namespace.devices.extend(values.iter().map(|&path| path.to_owned()));
            }
            (Some(Block::Namespace(namespace)), _) => {
                let namespace = self.found.namespaces.entry(namespace.clone()).or_default();
                match *name {
                    "index-type" => namespace.index_type = first(),
                    "sindex-type" => namespace.sindex_type = first(),
                    _ => namespace.has_index_checkpoint |= is_checkpoint,
                }
            }
            _ => self.found.has_index_checkpoint |= is_checkpoint,
        }
    }

    fn open(&mut self) {
        let words = std::mem::take(&mut self.last);
        if self.open.len() >= MAX_DEPTH {
            self.too_deep += 1;
            return;
        }
        let value = words.get(1).map(String::as_str);
        let block = match (self.open.last(), words.first().map(String::as_str)) {
            (None, Some("service")) => Block::Service,
            (None, Some("logging")) => Block::Logging,
            (None, Some("namespace")) => value.and_then(NamespaceName::new).map_or(Block::Other, Block::Namespace),
            (Some(Block::Namespace(name)), Some("storage-engine")) => Block::Storage(name.clone()),
            _ => Block::Other,
        };
        self.open.push(block);
    }

    fn close(&mut self) {
        self.last.clear();
        if self.too_deep > 0 {
            self.too_deep -= 1;
        } else if self.open.pop().is_none() {
            self.odd("a block is closed that was not opened".to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> NamespaceName {
        NamespaceName::new(text).expect("a name")
    }

    const WHOLE: &str = "\
# aerospike.conf
service {
\tcluster-name c # not { this }
\twork-directory /srv/aerospike
}
logging {
    console { context any info }
    file /var/log/aerospike/aerospike.log {
        context any info
    }
}
network { service { port 3000
  } fabric { port 3001 } }
namespace test {
    replication-factor 2
    index-type shmem
    sindex-type flash {
        mount /mnt/sindex
    }
    storage-engine device {
        device /dev/nvme0n1p1 /dev/sdb1
        device /dev/nvme1n1p1
        file /not/#this
        file /srv/test.dat
        filesize 4G
        compression lz4
    }
    set users { disable-eviction true }
}
namespace cache {
    storage-engine memory {
        data-size 4G
        file /srv/cache.dat
    }
    index-type pmem
}
namespace only
{
    storage-engine memory
    data-size 1G
    index-checkpoint-path /srv/checkpoint
}
";

    #[test]
    fn a_whole_configuration_is_read() {
        let found = parse(WHOLE);
        assert_eq!(found.work_directory.as_deref(), Some("/srv/aerospike"));
        assert_eq!(found.logs, ["/var/log/aerospike/aerospike.log"]);
        assert_eq!(found.oddities, Vec::<String>::new());
        assert!(!found.has_index_checkpoint);
        let test = &found.namespaces[&name("test")];
        assert_eq!(test.devices, ["/dev/nvme0n1p1", "/dev/sdb1", "/dev/nvme1n1p1", "/not/", "/srv/test.dat"]);
        assert_eq!((test.index_type.as_deref(), test.sindex_type.as_deref()), (Some("shmem"), Some("flash")));
        let cache = &found.namespaces[&name("cache")];
        assert_eq!((cache.devices.as_slice(), cache.index_type.as_deref()), (&["/srv/cache.dat".to_owned()][..], Some("pmem")));
        let only = &found.namespaces[&name("only")];
        assert!(only.devices.is_empty() && only.has_index_checkpoint);
        assert_eq!(found.namespaces.len(), 3);
        // The same with the line ends of another system.
        assert_eq!(parse(&WHOLE.replace('\n', "\r\n")), found);
    }

    #[test]
    fn names_count_only_where_they_stand() {
        let found = parse(
            "device /a\nfile /b\nwork-directory /c\nnamespace x { device /d\n service { work-directory /e }\n\
             storage-engine memory\n storage-engine device { nested { device /f\n} device /g } }\n\
             network { namespace y { storage-engine device { device /h } } }",
        );
        assert_eq!(found.namespaces.keys().collect::<Vec<_>>(), [&name("x")]);
        assert_eq!(found.namespaces[&name("x")].devices, ["/g"]);
        assert_eq!((found.work_directory, found.logs), (None, vec![]));
    }

    #[test]
    fn checkpoints_of_the_servers_own_are_seen_unless_they_are_off() {
        assert!(parse("service { index-checkpoint-path /x\n}").has_index_checkpoint);
        assert!(parse("namespace a { checkpoint-save true\n}").namespaces[&name("a")].has_index_checkpoint);
        assert!(!parse("namespace a { checkpoint-save false\n}").namespaces[&name("a")].has_index_checkpoint);
    }

    #[test]
    fn what_is_odd_is_said() {
        for (text, odd) in [
            ("namespace a {", "1 blocks are not closed"),
            ("}", "a block is closed that was not opened"),
            ("namespace {\n}", "a namespace has no name"),
            ("namespace abcdefghijklmnopqrstuvwxyzabcdefgh {\n}", "a namespace has no name"),
            ("namespace a {\n}\nnamespace a {\n}", "namespace 'a' is there twice"),
        ] {
            let found = parse(text);
            assert!(found.oddities.iter().any(|text| text.contains(odd)), "{text}: {:?}", found.oddities);
        }
        let deep = "a {\n".repeat(100_000) + "namespace x {\n}" + &"}\n".repeat(100_000);
        assert_eq!(parse(&deep), Configuration::default());
        assert_eq!(parse(&"}\n".repeat(100_000)).oddities.len(), MAX_ODDITIES);
    }

    /// Words that mean something here, and some that do not.
    fn word() -> impl Strategy<Value = String> {
        let known =
            ["namespace", "storage-engine", "device", "file", "service", "logging", "work-directory", "memory", "index-type"];
        prop_oneof![
            3 => proptest::sample::select(known.to_vec()).prop_map(str::to_owned),
            2 => Just("{".to_owned()),
            2 => Just("}".to_owned()),
            2 => Just("\n".to_owned()),
            1 => "[ -~]{0,40}",
            1 => "\\PC{0,8}",
        ]
    }

    proptest! {
        #[test]
        fn any_text_gives_a_value_no_larger_than_itself(text in "\\PC*|(?s:.){0,400}") {
            let found = parse(&text);
            let bytes: usize = found.namespaces.values().flat_map(|namespace| &namespace.devices).map(String::len).sum();
            prop_assert!(bytes <= text.len() && found.oddities.len() <= MAX_ODDITIES);
        }

        #[test]
        fn any_words_give_a_value_and_only_paths_that_stand_in_the_text(words in proptest::collection::vec(word(), 0..200)) {
            let text = words.join(" ");
            let found = parse(&text);
            for path in found.namespaces.values().flat_map(|namespace| &namespace.devices).chain(&found.logs) {
                prop_assert!(text.contains(path.as_str()));
            }
        }

        #[test]
        fn a_cut_configuration_never_names_a_device_that_the_whole_one_does_not(at in 0..WHOLE.len()) {
            let Some(cut) = WHOLE.get(..at) else { return Ok(()) };
            let whole = parse(WHOLE);
            for (name, namespace) in parse(cut).namespaces {
                let Some(known) = whole.namespaces.get(&name) else { continue };
                for (path, whole_path) in namespace.devices.iter().zip(&known.devices) {
                    prop_assert!(whole_path.starts_with(path.as_str()));
                }
            }
        }

        #[test]
        fn comments_blank_lines_and_indents_change_nothing(indent in "[ \t]{0,5}", comment in "[ -~]{0,20}") {
            let text: String = WHOLE.lines().map(|line| format!("{indent}{line} #{comment}\n\n")).collect();
            prop_assert_eq!(parse(&text), parse(WHOLE));
        }
    }
}
