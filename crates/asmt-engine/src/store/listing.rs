//! What is in the directory: files, manifests and marks, with what they say of themselves. Reads no
//! data.

use crate::error::{Code, Error, Problem, Result};
use crate::facts::directory::{FileRecord, Listing, ManifestRecord, MarkRecord};
use crate::format::mark::{UsageMark, is_used_name};
use crate::format::{
    ASMT_HEADER_BYTES, AsmtHeader, COLUMNS_HEADER_BYTES, ColumnsHeader, Encoding, Manifest, ManifestError, SET_ASIDE_PREFIX,
    is_backup_name, is_manifest_name, manifest_name, parse_file_name,
};
use crate::hints;
use crate::store::Store;
use crate::store::direct::read_at_most;
use crate::store::entries::{Text, is_own_name, link_count, modified_ms};
use crate::sys::dir::names_at;
use asmt_codec::GZIP_HEADER;
use asmt_codec::columns;
use asmt_codec::decode::MemberDecoder;
use asmt_shm::{Address, HEADER_BYTES, Header, Key};

use rustix::fs::{self, AtFlags, FileType};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;
use std::path::Path;

/// Largest manifest that is read: a chunk table for about 50 TiB.
pub const MAX_MANIFEST_BYTES: u64 = 512 << 20;

/// Largest mark of use that is read.
pub const MAX_MARK_BYTES: u64 = 64 << 10;

/// What is wrong with one file is a finding, so that the others are looked at, too; anything else
/// is a failure.
pub fn listed<T>(name: &str, outcome: Result<std::result::Result<T, Problem>>) -> Result<std::result::Result<T, Problem>> {
    match outcome {
        Err(error) if error.is_of_one_file() => Ok(Err(error.first().clone().in_file(name))),
        other => other,
    }
}

/// The first bytes of a segment, as far as the first bytes of its compressed file tell.
fn segment_start(encoding: Encoding, file: &[u8], size_bytes: u64) -> Vec<u8> {
    let wanted = HEADER_BYTES.min(usize::try_from(size_bytes).unwrap_or(HEADER_BYTES));
    match encoding {
        Encoding::Columns => {
            let stream = &file[COLUMNS_HEADER_BYTES..];
            let mut start = inflate_start(&GZIP_HEADER, stream, wanted + columns::MAX_HEAD_BYTES);
            // The first chunk of a segment with a header is in rows: its bytes follow its head.
            let head_bytes = columns::head_bytes_in(&start).map_or(start.len(), |bytes| bytes.min(start.len()));
            start.drain(..head_bytes);
            start.truncate(wanted);
            start
        }
        _ => {
            let (_, member) = file.split_at(ASMT_HEADER_BYTES);
            inflate_start(member, member.get(GZIP_HEADER.len()..).unwrap_or_default(), wanted)
        }
    }
}

/// Inflates at most so many bytes of the beginning of a gzip member: nothing without its header.
pub fn inflate_start(header: &[u8], stream: &[u8], most_bytes: usize) -> Vec<u8> {
    let mut output = vec![0; most_bytes];
    // One step goes as far as what is there of either: a failure in it makes nothing of what came
    // before trustworthy.
    let made = MemberDecoder::new(header).and_then(|mut decoder| decoder.step(stream, &mut output));
    output.truncate(made.map_or(0, |step| step.made));
    output
}

impl Store {
    /// Looks at what is in the directory: names, owners, sizes, headers, manifests. Reads no data.
    ///
    /// Errors: failed system calls. What is wrong with single files is in [`Listing::problems`].
    pub fn list(&self) -> Result<Listing> {
        let names = self.names()?;
        let mut listing = Listing { directory: Some(self.record()?), ..Listing::default() };
        listing.leftovers = self.leftovers(&names, &mut listing.problems)?;
        let decided = &listing.leftovers.decided;
        let hidden = listing.leftovers.sweep.iter().chain(decided.iter().flat_map(|decided| &decided.replaced));
        let hidden: BTreeSet<&str> = hidden.map(String::as_str).collect();
        let staged: BTreeMap<String, String> = decided.iter().flat_map(|decided| decided.staged.clone()).collect();
        let seen = names.iter().filter(|name| !hidden.contains(name.as_str())).cloned();
        let seen: BTreeSet<String> = seen.chain(staged.keys().cloned()).collect();
        *self.staged.lock() = staged;
        let mut files: BTreeMap<Key, FileRecord> = BTreeMap::new();
        for name in &seen {
            if let Some((key, address, encoding)) = parse_file_name(name) {
                match listed(name, self.file_record(name, key, address, encoding))? {
                    Ok(record) => {
                        if let Some(other) = files.get(&key) {
                            let message =
                                format!("{} and {name} are both files of segment {key}, expected one", self.shown(&other.name));
                            let problem = Problem::new(Code::ExtraFile, message, hints::TWICE);
                            listing.problems.push((name.clone(), problem.in_file(name)));
                        }
                        files.insert(key, record);
                    }
                    Err(problem) => listing.problems.push((name.clone(), problem)),
                }
            } else if is_manifest_name(name) {
                match listed(name, self.read_manifest(name))? {
                    Ok(manifest) => listing.manifests.push(manifest),
                    Err(problem) => listing.problems.push((name.clone(), problem)),
                }
            } else if !is_own_name(name) {
                listing.has_other_names = true;
            }
        }
        listing.marks = self.marks_among(&names)?;
        listing.files = files.into_values().collect();
        if listing.files.is_empty() && listing.manifests.is_empty() {
            listing.set_aside = names.into_iter().filter(|name| self.is_set_aside(name)).collect();
        }
        Ok(listing)
    }

    /// Returns true if a name is that of a directory into which a backup was moved. One that cannot
    /// be read is none: it is only named to the operator.
    fn is_set_aside(&self, name: &str) -> bool {
        // Not where a link leads to: that may be a file system that does not answer.
        let stat = || fs::statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW);
        let names = || names_at(&self.directory, Path::new(name), &self.path);
        name.starts_with(SET_ASIDE_PREFIX)
            && stat().is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
            && names().is_ok_and(|names| names.iter().any(|name| is_backup_name(name)))
    }

    /// Reads every mark of use again. Only under [`Self::lock_marks`] do they stay as they are
    /// read.
    ///
    /// Errors: failed calls.
    pub fn marks(&self) -> Result<Vec<MarkRecord>> {
        self.marks_among(&self.names()?)
    }

    pub(super) fn marks_among(&self, names: &[String]) -> Result<Vec<MarkRecord>> {
        let mut marks = Vec::new();
        for name in names.iter().filter(|name| is_used_name(name)) {
            let mark = match self.read_text(name, MAX_MARK_BYTES) {
                Ok(Ok(found)) if found.is_open_elsewhere() => Err(found.why_open()),
                Ok(Ok(found)) => found.text.ok_or_else(|| "it is not text".to_owned()).and_then(|text| UsageMark::parse(&text)),
                Ok(Err(problem)) => Err(problem.message),
                // It was listed, and is gone: what it said is not known.
                Err(error) if error.io_kind() == Some(std::io::ErrorKind::NotFound) => Err("it was removed".to_owned()),
                Err(error) => return Err(error),
            };
            marks.push((name.clone(), mark));
        }
        Ok(marks)
    }

    pub(super) fn file_record(
        &self,
        name: &str,
        key: Key,
        address: Address,
        encoding: Encoding,
    ) -> Result<std::result::Result<FileRecord, Problem>> {
        let file = match self.open_file(name)? {
            Ok(file) => file,
            Err(problem) => return Ok(Err(problem)),
        };
        let stat = fs::fstat(&file).map_err(|error| Error::io("fstat", self.shown(name), error))?;
        let file_bytes = stat.st_size.cast_unsigned();
        let needs_header = address.segment_type.has_header();
        let mut record = FileRecord {
            name: name.to_owned(),
            key,
            address,
            encoding,
            file_bytes,
            allocated_bytes: stat.st_blocks.cast_unsigned().saturating_mul(512),
            size_bytes: file_bytes,
            crc32: None,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mode: stat.st_mode & 0o777,
            link_count: link_count(&stat),
            modified_ms: modified_ms(&stat),
            header: Header::None,
        };
        let wanted = match (encoding, needs_header) {
            (Encoding::Raw | Encoding::OwnRaw, false) => 0,
            (Encoding::Raw | Encoding::OwnRaw, true) => HEADER_BYTES,
            (Encoding::Gzip, false) => ASMT_HEADER_BYTES,
            (Encoding::Columns, false) => COLUMNS_HEADER_BYTES,
            // Enough compressed bytes for the first few decoded ones, whoever compressed them.
            (Encoding::Gzip | Encoding::Columns, true) => 256 << 10,
        };
        let mut bytes = vec![0; wanted.min(usize::try_from(file_bytes).unwrap_or(wanted))];
        let read =
            read_at_most(file.as_fd(), 0, &mut bytes, false).map_err(|error| Error::io("read", self.shown(name), error))?;
        bytes.truncate(read);
        let claims = match encoding {
            Encoding::Raw | Encoding::OwnRaw => {
                record.header = Header::parse(address.segment_type, &bytes);
                return Ok(Ok(record));
            }
            Encoding::Gzip => AsmtHeader::parse(&bytes).map(|header| (header.size_bytes, header.crc32)),
            Encoding::Columns => ColumnsHeader::parse(&bytes).map(|header| (header.size_bytes, header.crc32)),
        };
        match claims {
            Ok((size_bytes, crc32)) => {
                record.size_bytes = size_bytes;
                record.crc32 = Some(crc32);
            }
            Err(text) => {
                let message = format!("{} at 0 (segment {key}): {text}", self.shown(name));
                let is_gzipped = encoding == Encoding::Gzip && bytes.starts_with(&GZIP_HEADER[..2]);
                let hint = if is_gzipped { hints::GZIPPED } else { hints::DAMAGED };
                return Ok(Err(Problem::new(Code::ContentDamaged, message, hint).in_file(name).at(0)));
            }
        }
        if needs_header {
            record.header = Header::parse(address.segment_type, &segment_start(encoding, &bytes, record.size_bytes));
        }
        Ok(Ok(record))
    }

    /// The inner error says why a file that bears a manifest's name must not be read.
    pub(super) fn read_manifest(&self, name: &str) -> Result<std::result::Result<ManifestRecord, Problem>> {
        let Text { text, owner, link_count } = match self.read_text(name, MAX_MANIFEST_BYTES)? {
            Ok(found) => found,
            Err(problem) => return Ok(Err(problem)),
        };
        let manifest = match text {
            Some(text) => Manifest::parse(&text),
            None => Err(ManifestError::Damaged(format!("it is not JSON of at most {MAX_MANIFEST_BYTES} bytes"))),
        };
        // A manifest renamed to another namespace's is not that namespace's.
        let manifest = manifest.and_then(|manifest| {
            let own_name = manifest_name(manifest.instance, &manifest.namespace);
            if own_name == name { Ok(manifest) } else { Err(ManifestError::Damaged(format!("it belongs to {own_name}"))) }
        });
        Ok(Ok(ManifestRecord { name: name.to_owned(), owner, link_count, manifest }))
    }
}
