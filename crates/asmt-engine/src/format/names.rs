//! The names of files in a backup: segments by their keys, manifests and marks by instance and
//! namespace.
//!
//! Promise: no name leads out of the directory, and none is read as a segment's that does not stand
//! for a key of Aerospike's.

use asmt_shm::{Address, Key, NamespaceName};

/// How the name of a directory begins into which a hint moves an older backup.
pub const SET_ASIDE_PREFIX: &str = "old-";

/// How a segment stands in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Encoding {
    /// `<key>.dat`: byte for byte.
    Raw,
    /// `<key>.dat.gz`: ASMT's 24-byte header, then one gzip member.
    Gzip,
    /// `<key>.dat.raw`: byte for byte, in a backup whose other segments are in columns. ASMT takes
    /// no file of this name: it would restore what it knows of such a backup, and report success.
    OwnRaw,
    /// `<key>.dat.col`: one gzip member of chunks whose bytes are in columns.
    Columns,
}

impl Encoding {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Raw, Self::Gzip, Self::OwnRaw, Self::Columns];

    /// The word the manifest and listings use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Gzip => "gzip",
            Self::OwnRaw => "own-raw",
            Self::Columns => "columns",
        }
    }

    /// The encoding with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|encoding| encoding.name() == name)
    }

    /// The end of the names of its files.
    fn suffix(self) -> &'static str {
        match self {
            Self::Raw => ".dat",
            Self::Gzip => ".dat.gz",
            Self::OwnRaw => ".dat.raw",
            Self::Columns => ".dat.col",
        }
    }

    /// Whether the file has the bytes of the segment as they are.
    pub fn is_plain(self) -> bool {
        matches!(self, Self::Raw | Self::OwnRaw)
    }

    /// Whether ASMT takes the file for a segment's.
    pub fn is_asmts(self) -> bool {
        matches!(self, Self::Raw | Self::Gzip)
    }
}

/// The form of a backup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// Every segment byte for byte, as ASMT does it.
    #[default]
    Plain,
    /// Compressed as ASMT does it.
    Gzip,
    /// Compressed by columns, under names that ASMT does not take.
    Columns,
}

impl Form {
    /// How a segment stands in its file: compressed, if the form is and this segment can be.
    pub fn encoding(self, is_compressible: bool) -> Encoding {
        match (self, is_compressible) {
            (Self::Plain, _) | (Self::Gzip, false) => Encoding::Raw,
            (Self::Gzip, true) => Encoding::Gzip,
            (Self::Columns, false) => Encoding::OwnRaw,
            (Self::Columns, true) => Encoding::Columns,
        }
    }
}

/// The name of the file that keeps a segment: the key in eight lower-case hex digits, and what
/// stands for the encoding.
pub fn file_name(key: Key, encoding: Encoding) -> String {
    format!("{key}{}", encoding.suffix())
}

/// Reads a file name of a backup. `None` if it does not name a segment of Aerospike's: such a file
/// is left alone. Hex digits of either case are taken.
pub fn parse_file_name(name: &str) -> Option<(Key, Address, Encoding)> {
    let with_digits = |encoding: Encoding| Some((name.strip_suffix(encoding.suffix())?, encoding));
    let (digits, encoding) = Encoding::ALL.into_iter().find_map(with_digits)?;
    let key = Key::from_hex(digits)?;
    Some((key, key.address()?, encoding))
}

/// What the names of manifests begin with.
pub const MANIFEST_PREFIX: &str = "asmt-manifest-";

/// The file name of a namespace's manifest. ASMT ignores it: it is not `<8 hex>.dat[.gz]`.
///
/// Letters, digits, `_`, `-` and dots inside stand for themselves; every other byte is `%XX`, so
/// that no name can lead out of the directory.
pub fn manifest_name(instance: u8, namespace: &NamespaceName) -> String {
    namespace_file_name(MANIFEST_PREFIX, instance, namespace)
}

/// The name of a file that belongs to a namespace's backup and is no segment:
/// `<prefix><instance>-<namespace>.json`.
pub fn namespace_file_name(prefix: &str, instance: u8, namespace: &NamespaceName) -> String {
    let mut name = format!("{prefix}{instance}-");
    for byte in namespace.as_str().bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.') {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("%{byte:02X}"));
        }
    }
    name + ".json"
}

/// Whether a file name is that of some namespace's manifest.
pub fn is_manifest_name(name: &str) -> bool {
    is_namespace_file(MANIFEST_PREFIX, name)
}

/// Whether a file name is one that only a backup has: a segment's, or a manifest's.
pub fn is_backup_name(name: &str) -> bool {
    parse_file_name(name).is_some() || is_manifest_name(name)
}

/// Whether a file name is of the form that [`namespace_file_name`] gives.
pub fn is_namespace_file(prefix: &str, name: &str) -> bool {
    name.starts_with(prefix) && name.ends_with(".json")
}

/// The instance that a manifest's name says it is of.
pub fn instance_of_manifest_name(name: &str) -> Option<u8> {
    name.strip_prefix(MANIFEST_PREFIX)?.split_once('-')?.0.parse().ok().filter(|instance| *instance <= asmt_shm::MAX_INSTANCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_keys_and_nothing_else() {
        let (key, address, encoding) = parse_file_name("AE30210a.dat.gz").expect("a segment's file");
        assert_eq!((key, encoding), (Key(0xae30_210a), Encoding::Gzip));
        assert_eq!((address.instance, address.nsid, address.index), (3, 2, 10));
        assert_eq!(file_name(key, encoding), "ae30210a.dat.gz");
        for encoding in Encoding::ALL {
            assert_eq!(parse_file_name(&file_name(key, encoding)), Some((key, address, encoding)));
            assert_eq!(Encoding::named(encoding.name()), Some(encoding));
        }
        // ASMT 2.2.1 takes `<8 hex>.dat` and `<8 hex>.dat.gz` (observed).
        let of_asmt = |name: &str| name.get(8..).is_some_and(|end| matches!(end, ".dat" | ".dat.gz"));
        assert!(Encoding::ALL.into_iter().all(|encoding| of_asmt(&file_name(key, encoding)) == encoding.is_asmts()));
        for name in [
            "ae001000",
            "ae001000.dat.gz.tmp",
            "+e001000.dat",
            " ae001000.dat",
            "ae00100.dat",
            "ae0010000.dat",
            "ff001000.dat",
            "ae001000.DAT",
            ".dat",
        ] {
            assert_eq!(parse_file_name(name), None, "{name}");
        }
    }

    #[test]
    fn a_manifests_name_stays_in_the_directory_and_is_no_segments() {
        let name = |text: &str| manifest_name(3, &NamespaceName::new(text).expect("a name"));
        assert_eq!(name("test"), "asmt-manifest-3-test.json");
        assert_eq!(name("../x"), "asmt-manifest-3-..%2Fx.json");
        assert!(is_manifest_name(&name("test")));
        for other in ["asmt-manifest-3-test", "x-3-test.json", "asmt-manifest-3-test.json.dat", ""] {
            assert!(!is_manifest_name(other), "{other}");
        }
        assert_eq!(parse_file_name(&name("test")), None);
    }

    #[test]
    fn a_manifests_name_says_of_which_instance_it_is() {
        for (name, instance) in [
            ("asmt-manifest-3-test.json", Some(3)),
            ("asmt-manifest-0-a-b.json", Some(0)),
            ("asmt-manifest-15-test.json", Some(asmt_shm::MAX_INSTANCE)),
            ("asmt-manifest-16-test.json", None),
            ("asmt-manifest--1-test.json", None),
            ("asmt-manifest-3", None),
            ("asmt-used-3-test.json", None),
        ] {
            assert_eq!(instance_of_manifest_name(name), instance, "{name}");
        }
    }
}
