//! Reads all files of a backup: to verify it, to compare what was written, and to count what it
//! would fill.

use crate::error::{Code, Error, NoteCode, Problem, Result};
use crate::format::journal::published_name;
use crate::format::{Spans, combined_crc32};
use crate::plan::Source;
use crate::progress::{Control, Phase};
use crate::store::{InputFile, Store};
use crate::work::job::lock;
use crate::work::pool::{InWork, Pool, Units};
use crate::work::read::{
    Delivery, Depth, Nowhere, Reading, Scratch, Sink, Tally, bytes_of, done_bytes, open, put_sums, spans_of,
};
use asmt_shm::Key;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Reads staged files back from the disk and compares them with what was copied. Of those whose
/// chunks were `read_back` as they were written, only what is around the chunks is left to compare.
pub fn compare_with_disk(
    store: &Store,
    sources: &[Source],
    read_back: &BTreeSet<Key>,
    threads: usize,
    control: &Control,
) -> Result<()> {
    control.begin(Phase::Check, sources.iter().map(|source| source.size_bytes).sum());
    let found = read_all(store, sources, &Purpose::Compare { read_back }, threads, control)?;
    if !found.is_from_disk {
        control.note(
            NoteCode::PageCache,
            "this file system has no direct I/O: files were read back after asking the kernel to drop them from memory",
        );
    }
    Error::from_problems(found.damages.into_iter().map(not_as_written).collect()).map_or(Ok(()), Err)
}

/// What was found in a file that was just written, as a fault of the disk.
pub fn not_as_written(problem: Problem) -> Problem {
    Problem {
        kind: Code::CompareFailed.kind(),
        code: Code::CompareFailed,
        message: format!("reading back: {}", problem.message),
        hint: "do not trust this disk: check the kernel log, and choose another directory".to_owned(),
        ..problem
    }
}

/// What files are read for.
pub enum Purpose<'p> {
    /// To verify a backup: everything is decoded.
    Verify,
    /// The same, from the disk as far as that can be had.
    VerifyFromDisk,
    /// To compare what was just written with what was to be: of compressed files it is known what
    /// bytes they must have, so they are not decoded.
    Compare {
        /// Files whose chunks were compared when they were written.
        read_back: &'p BTreeSet<Key>,
    },
}

impl Purpose<'_> {
    fn is_from_disk(&self) -> bool {
        !matches!(self, Self::Verify)
    }

    fn depth(&self, source: &Source) -> Depth {
        match self {
            Self::Verify | Self::VerifyFromDisk => Depth::Decoded,
            Self::Compare { read_back } if read_back.contains(&source.key) => Depth::Around,
            Self::Compare { .. } => Depth::AsWritten,
        }
    }
}

/// What reading everything brought.
pub struct Findings {
    /// All that is damaged or cannot be read, by file and offset; of more than can be listed, how
    /// many more.
    pub damages: Vec<Problem>,
    /// CRC-32 of each segment that was read whole.
    pub sums: HashMap<Key, u32>,
    /// Bytes of data in all segments, whatever form they have in their files: holes and pages of
    /// zeros left out.
    pub data_bytes: u64,
    /// Whether all reads went past the page cache, as far as asked.
    pub is_from_disk: bool,
}

/// Most damages listed; a disk that has lost everything would fill the memory.
pub const MAX_DAMAGES: usize = 1000;

/// Damage as it is found, by workers in any order.
#[derive(Default)]
pub struct Damages {
    listed: Vec<Problem>,
    /// Keys of segments that were not read whole.
    keys: HashSet<Key>,
    unlisted_count: u64,
}

impl Damages {
    fn add(&mut self, source: &Source, error: Error) {
        self.keys.insert(source.key);
        for problem in error.in_file(published_name(&source.file)).problems() {
            if self.listed.len() < MAX_DAMAGES {
                self.listed.push(problem.clone());
            } else {
                self.unlisted_count += 1;
            }
        }
    }

    /// As people read it: in the order of files and offsets.
    fn sorted(mut self) -> Vec<Problem> {
        self.listed.sort_by(|a, b| (&a.file, a.offset).cmp(&(&b.file, b.offset)));
        if self.unlisted_count > 0 {
            let message = format!("and {} more damaged places are not listed", self.unlisted_count);
            self.listed.push(Problem::new(Code::ContentDamaged, message, ""));
        }
        self.listed
    }
}

/// Reads every chunk of every source and checks it. What is wrong with one file is collected, and
/// the rest is still read.
pub fn read_all(store: &Store, sources: &[Source], purpose: &Purpose<'_>, threads: usize, control: &Control) -> Result<Findings> {
    let spans: Vec<Spans> = sources.iter().map(spans_of).collect();
    let units = Units::new(spans.iter().map(Spans::count));
    let in_work: Vec<InWork<Option<InputFile>>> = spans.iter().map(|spans| InWork::new(spans.count())).collect();
    let damages = Mutex::new(Damages::default());
    let is_from_disk = AtomicBool::new(true);
    let sums: Vec<Mutex<Vec<u32>>> = sources.iter().map(|_| Mutex::new(Vec::new())).collect();
    let tallies: Vec<Tally> = sources.iter().map(|_| Tally::default()).collect();
    let add = |source: &Source, error| lock(&damages).add(source, error);
    Pool::run(control, threads, units.count(), Scratch::default, |_, scratch, unit| {
        let (index, unit) = units.locate(unit);
        let (source, span) = (&sources[index], spans[index].get(unit));
        // A file that cannot be opened is reported once, by the worker that tried; its other chunks
        // are passed over.
        let file = in_work[index].enter(|| match open(store, source, purpose.is_from_disk()) {
            Err(error) if error.is_of_one_file() => {
                add(source, error);
                Ok(None)
            }
            other => other.map(Some),
        })?;
        if let Some(file) = file.as_ref() {
            let mut reading = Reading { file, source, scratch, control, sink: &mut Nowhere };
            let read = reading.read_span_to(purpose.depth(source), &span).and_then(|found| {
                put_sums(&sums[index], source, &span, &found.sums);
                tallies[index].add(file, source, bytes_of(source, &span).start, found.data_bytes)
            });
            match read {
                Err(error) if error.is_of_one_file() => add(source, error),
                other => other?,
            }
        }
        control.add_done(done_bytes(source, &span));
        if let Some(Some(file)) = in_work[index].leave(file) {
            is_from_disk.fetch_and(file.is_from_disk(), Ordering::Relaxed);
            control.note(NoteCode::Read, format!("read {}", published_name(&source.file)));
        }
        Ok(())
    })?;
    let damages = damages.into_inner().unwrap_or_else(PoisonError::into_inner);
    let whole = sources.iter().zip(sums).filter(|(source, _)| !damages.keys.contains(&source.key));
    let sums = whole.map(|(source, sums)| {
        let sums = sums.into_inner().unwrap_or_else(PoisonError::into_inner);
        (source.key, combined_crc32(source.size_bytes, source.chunk_bytes(), sums.into_iter()))
    });
    Ok(Findings {
        sums: sums.collect(),
        data_bytes: tallies.iter().map(Tally::bytes).sum(),
        damages: damages.sorted(),
        is_from_disk: is_from_disk.into_inner(),
    })
}

/// Adds up what files would fill, for those of which only reading tells: with what is in pages of
/// zeros left out. Ends as soon as it is more than `most_bytes` in all. What cannot be read counts
/// as far as it could be: filling says so.
pub fn count_data(
    store: &Store,
    sources: &[Source],
    most_bytes: u64,
    threads: usize,
    control: &Control,
) -> Result<BTreeMap<Key, u64>> {
    /// Counts, and fails where it is enough.
    struct Counter<'c> {
        own: &'c AtomicU64,
        all: &'c AtomicU64,
        most_bytes: u64,
    }
    impl Sink for Counter<'_> {
        fn take(&mut self, offset: u64, bytes: &[u8]) -> Result<u64> {
            let data = Nowhere.take(offset, bytes)?;
            self.own.fetch_add(data, Ordering::Relaxed);
            if self.all.fetch_add(data, Ordering::Relaxed) + data > self.most_bytes {
                return Err(Error::new(Code::NotEnoughMemory, "enough was counted", ""));
            }
            Ok(data)
        }

        fn way(&self, _: &Range<u64>) -> Delivery<'_> {
            Delivery::Unchecked
        }
    }
    let spans: Vec<Spans> = sources.iter().map(spans_of).collect();
    let units = Units::new(spans.iter().map(Spans::count));
    let in_work: Vec<InWork<Option<InputFile>>> = spans.iter().map(|spans| InWork::new(spans.count())).collect();
    let counts: Vec<AtomicU64> = sources.iter().map(|_| AtomicU64::new(0)).collect();
    let all = AtomicU64::new(0);
    control.begin(Phase::Count, sources.iter().map(|source| source.size_bytes).sum());
    Pool::run(control, threads, units.count(), Scratch::default, |_, scratch, unit| {
        let (index, unit) = units.locate(unit);
        let (source, span) = (&sources[index], spans[index].get(unit));
        let file = in_work[index].enter(|| match open(store, source, false) {
            Err(error) if error.is_of_one_file() => Ok(None),
            other => other.map(Some),
        })?;
        if let Some(file) = file.as_ref().as_ref().filter(|_| all.load(Ordering::Relaxed) <= most_bytes) {
            let mut counter = Counter { own: &counts[index], all: &all, most_bytes };
            match (Reading { file, source, scratch, control, sink: &mut counter }).read_span(&span) {
                Err(error) if error.first().code != Code::NotEnoughMemory && !error.is_of_one_file() => return Err(error),
                _ => {}
            }
        }
        control.add_done(done_bytes(source, &span));
        in_work[index].leave(file);
        Ok(())
    })?;
    Ok(sources.iter().map(|source| source.key).zip(counts.into_iter().map(AtomicU64::into_inner)).collect())
}
