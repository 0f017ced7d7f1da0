//! Making segments and filling them from files.
//!
//! Promise: segments are made 0600, exclusively, and hold nothing that a start would trust until
//! [`crate::work::commit::trust`]: base is made last, and its shutdown word (and the stripes'
//! flags) are held back. Dropped before that, every segment made is removed; [`Trusted`] ones have
//! no way to be. Untouched memory stays untouched: pages of zeros are not stored. Must never:
//! attach a segment that this run has not made, or remove one that it has not made or that somebody
//! else has attached.

use crate::error::{Code, Error, NoteCode, Result, without_number};
use crate::format::{Spans, chunk_range, combined_crc32};
use crate::hints;
use crate::plan::{NamespaceRestore, Source, publishing_rank};
use crate::progress::{Control, Phase};
use crate::store::{InputFile, Store};
use crate::work::instance::RestoreJournal;
use crate::work::job::{Options, data_ranges, lock};
use crate::work::pages;
use crate::work::pool::{InWork, Pool, Units};
use crate::work::read::{self, Delivery, Reading, Scratch, Tally};
use asmt_codec::crc::RangeSum;
use asmt_shm::sysv::{self, Access, Attachment, LastHand};
use asmt_shm::{SHUTDOWN_OFFSET, STRIPE_FLAGS_OFFSET, SegmentType};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How often a segment that somebody has attached is looked at again before it is left where it is:
/// a list that another asmt makes has one attached for a moment.
const REMOVAL_ATTEMPTS: usize = 6;
const REMOVAL_PAUSE: Duration = Duration::from_millis(10);

/// A segment that this run has made.
pub struct NewSegment {
    source: Source,
    shmid: i32,
    /// The word held back, as the backup has it.
    withheld_word: AtomicU32,
    sums: Mutex<Vec<u32>>,
}

/// Stores bytes, but not the pages that are all zeros: untouched memory stays untouched. Returns
/// how many were stored.
fn store_pages(attachment: &Attachment, offset: u64, bytes: &[u8]) -> std::io::Result<u64> {
    let mut stored = 0;
    for part in pages::data_in(offset, bytes) {
        stored += part.len() as u64;
        attachment.store(offset + part.start as u64, &bytes[part])?;
    }
    Ok(stored)
}

/// Where the word is that is held back until everything else is in place.
fn withheld_offset(segment_type: SegmentType) -> Option<usize> {
    match segment_type {
        SegmentType::PiBase => Some(SHUTDOWN_OFFSET),
        SegmentType::DataStage => Some(STRIPE_FLAGS_OFFSET),
        SegmentType::PiTreex | SegmentType::PiStage | SegmentType::SiMeta | SegmentType::SiStage => None,
    }
}

impl NewSegment {
    /// Attaches the segment. As in [`crate::work::copy_out`], the last hand it was in is checked
    /// before each attach and detach.
    fn attach(&self, access: Access) -> Result<Attachment> {
        self.check_untouched()?;
        Attachment::new(self.shmid, access, 0).map_err(|error| self.gone_or_failed("shmat", error))
    }

    /// Stores bytes where there is something in them, page by page, and keeps back the withheld
    /// word. Returns how many are data.
    fn store(&self, attachment: &Attachment, offset: u64, bytes: &[u8]) -> Result<u64> {
        let stored = if let Some(at) =
            withheld_offset(self.source.address.segment_type).filter(|at| offset == 0 && bytes.len() >= at + 4)
        {
            let (before, rest) = bytes.split_at(at);
            let (word, after) = rest.split_at(4);
            self.withheld_word.store(u32::from_le_bytes([word[0], word[1], word[2], word[3]]), Ordering::Relaxed);
            // The word, which comes later, is data, too.
            let data_bytes = pages::data_in(0, bytes).map(|part| part.len() as u64).sum();
            let stored = store_pages(attachment, 0, before).and_then(|_| store_pages(attachment, at as u64 + 4, after));
            stored.map(|_| data_bytes)
        } else {
            store_pages(attachment, offset, bytes)
        };
        stored.map_err(|error| Error::io("write", format!("segment {}", self.source.key), error))
    }

    /// Sets owner, group and mode to those of the backup.
    ///
    /// Errors: `segment-changed` if it is gone; `permission-denied`; failed calls.
    pub fn give_to_owner(&self) -> Result<()> {
        let source = &self.source;
        sysv::set_owner(self.shmid, source.uid, source.gid, source.mode).map_err(|error| {
            // A segment that is gone and an id that is not mapped give the same error.
            if sysv::is_gone(&error) && sysv::stat(self.shmid).is_ok() {
                return Error::new(
                    Code::PermissionDenied,
                    format!(
                        "segment {} cannot be given to uid {} and gid {}: these ids are not mapped here",
                        source.key, source.uid, source.gid
                    ),
                    "run asmt outside the user namespace (container), or map these ids into it",
                );
            }
            self.gone_or_failed("shmctl(IPC_SET)", error)
        })
    }

    /// Attaches the segment if a word of it is held back, for [`Untrusted::trust`] to store that.
    ///
    /// Errors: `segment-changed` if it is gone; `not-enough-memory`; failed calls.
    pub fn attach_withheld(&self) -> Result<Option<Withheld>> {
        let Some((offset, word)) = self.withheld() else { return Ok(None) };
        match Attachment::without_holes(self.shmid, Access::ReadWrite) {
            Ok(attachment) => Ok(Some(Withheld { attachment, offset, word })),
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => Err(Error::new(
                Code::NotEnoughMemory,
                format!("shmat {}: {}", self.source.key, without_number(&error)),
                "base and all stripes are attached at once when a restore ends: raise the limit on address space (ulimit -v) \
                 or vm.max_map_count, or name fewer namespaces with -n",
            )),
            Err(error) => Err(self.gone_or_failed("shmat", error)),
        }
    }

    /// Offset and value of the word that is held back, if the segment has one.
    fn withheld(&self) -> Option<(usize, u32)> {
        let offset = withheld_offset(self.source.address.segment_type)?;
        let word = self.withheld_word.load(Ordering::Relaxed);
        (word != 0).then_some((offset, word))
    }

    /// Fails if another process had the segment attached since it was made: it may have written to
    /// it. Segments with a header are skipped: another asmt's list may attach them.
    fn check_untouched(&self) -> Result<()> {
        if self.source.address.segment_type.has_header() {
            return Ok(());
        }
        self.check_in_no_others_hands()
    }

    fn check_in_no_others_hands(&self) -> Result<()> {
        match sysv::last_hand(self.shmid) {
            Ok(LastHand::Process(pid)) if pid == std::process::id() => Ok(()),
            // Only before the first attach of ours: afterwards it was in a hand.
            Ok(LastHand::Nobody) => Ok(()),
            Ok(other) => Err(self.changed(&other.to_string())),
            Err(error) => Err(self.gone_or_failed("shmctl(IPC_STAT)", error)),
        }
    }

    /// What is wrong where the bytes in the segment are not those that came out of the file: if
    /// another process had it in hand, neither the backup is damaged nor the machine's memory.
    fn or_changed(&self, error: Error) -> Error {
        let is_of_content = matches!(error.first().code, Code::ContentDamaged | Code::CompareFailed);
        if is_of_content { self.check_in_no_others_hands().err().unwrap_or(error) } else { error }
    }

    fn changed(&self, what: &str) -> Error {
        Error::new(
            Code::SegmentChanged,
            format!("segment {} changed while it was restored: {what}", self.source.key),
            hints::STARTED_MEANWHILE,
        )
    }

    fn gone_or_failed(&self, call: &str, error: std::io::Error) -> Error {
        if sysv::is_gone(&error) { self.changed("it is gone") } else { Error::io(call, self.source.key, error) }
    }

    /// Fails if the segment is not there any more, somebody else has it attached or had it in hand,
    /// or the word that is held back is there already.
    ///
    /// Errors: `segment-changed`; failed calls.
    pub fn check_alone(&self, withheld: Option<&Withheld>) -> Result<()> {
        match self.presence()? {
            Presence::There { attached_count } => {
                let own_count = u64::from(withheld.is_some());
                if attached_count != own_count {
                    return Err(self.changed(&format!("it is attached {attached_count} times, expected {own_count}")));
                }
            }
            Presence::Gone => return Err(self.changed("it was removed")),
        }
        if withheld.is_some_and(|word| !word.is_held_back()) {
            return Err(self.changed("another process changed its shutdown status or flags"));
        }
        self.check_untouched()
    }

    /// Looks whether the segment is still there: by its id, and its key and maker, for an id may be
    /// used again.
    ///
    /// Errors: failed calls.
    fn presence(&self) -> Result<Presence> {
        match sysv::stat(self.shmid) {
            Ok(stat) => {
                let is_own = stat.creator_pid.cast_unsigned() == std::process::id() && stat.key == self.source.key;
                let is_there = is_own && !stat.is_removed;
                Ok(if is_there { Presence::There { attached_count: stat.attached_count } } else { Presence::Gone })
            }
            Err(error) if sysv::is_gone(&error) => Ok(Presence::Gone),
            Err(error) => Err(Error::io("shmctl(IPC_STAT)", self.source.key, error)),
        }
    }

    /// Removes the segment, unless somebody has it attached: then it may be in use. Returns whether
    /// it is gone.
    ///
    /// Errors: failed calls.
    fn remove(&self) -> Result<bool> {
        match self.presence()? {
            Presence::Gone => Ok(true),
            Presence::There { attached_count: 0 } => match sysv::remove(self.shmid) {
                Err(error) if !sysv::is_gone(&error) => Err(Error::io("shmctl(IPC_RMID)", self.source.key, error)),
                _ => Ok(true),
            },
            Presence::There { .. } => Ok(false),
        }
    }
}

/// Whether a segment that this run has made is still there.
enum Presence {
    There { attached_count: u64 },
    Gone,
}

/// A word that is held back, in a segment that is attached to store it.
pub struct Withheld {
    attachment: Attachment,
    offset: usize,
    /// As the backup has it.
    word: u32,
}

impl Withheld {
    /// Whether the segment does not have it yet. Its page is mapped for writing afterwards, so that
    /// storing it cannot fail.
    fn is_held_back(&self) -> bool {
        self.attachment.is_word(self.offset, 0)
    }
}

/// A segment as the place where its bytes go.
struct Filling<'f> {
    made: &'f NewSegment,
    attachment: &'f Attachment,
    keeps_holes: bool,
}

impl read::Sink for Filling<'_> {
    fn take(&mut self, offset: u64, bytes: &[u8]) -> Result<u64> {
        self.made.store(self.attachment, offset, bytes)
    }

    fn way(&self, chunk: &std::ops::Range<u64>) -> Delivery<'_> {
        // What is held back is in the first chunk, and must not come into memory with it.
        let has_withheld = chunk.start == 0 && withheld_offset(self.made.source.address.segment_type).is_some();
        match (has_withheld, self.keeps_holes) {
            (true, _) => Delivery::Checked,
            (false, true) => Delivery::InPlace(self.attachment),
            (false, false) => Delivery::Unchecked,
        }
    }
}

/// Segments that are being made, or are complete, and that nobody would trust yet. Dropped, they
/// are gone.
pub struct Untrusted<'j> {
    made: Vec<NewSegment>,
    journal: Option<&'j mut RestoreJournal>,
    /// Bytes of data that came in; holes and pages of zeros that were not stored are not counted.
    pub data_bytes: u64,
}

impl<'j> Untrusted<'j> {
    /// All segments.
    pub fn segments(&self) -> impl Iterator<Item = &NewSegment> {
        self.made.iter()
    }

    /// All segments, base last.
    pub fn segments_by_rank(&self) -> impl Iterator<Item = &NewSegment> {
        let mut all: Vec<&NewSegment> = self.made.iter().collect();
        all.sort_by_key(|made| publishing_rank(made.source.address));
        all.into_iter()
    }

    /// Size, id and CRC-32 of each segment.
    pub fn sums(&self) -> impl Iterator<Item = (asmt_shm::Key, i32, u32)> {
        self.made.iter().map(|made| {
            let sums = lock(&made.sums);
            let crc32 = combined_crc32(made.source.size_bytes, made.source.chunk_bytes(), sums.iter().copied());
            (made.source.key, made.shmid, crc32)
        })
    }

    /// Notes in the journal that the words are about to be stored: no run removes these segments
    /// from here on.
    ///
    /// Errors: failed calls.
    pub fn note_commit(&mut self) -> Result<()> {
        self.journal.as_mut().map_or(Ok(()), |journal| journal.commits())
    }

    /// Stores the words that are held back, in their order: from here on a start may trust the
    /// segments and use them, so nothing can remove them any more. It makes no system call, and
    /// cannot fail.
    pub fn trust(mut self, words: Vec<Withheld>) -> Trusted<'j> {
        for withheld in &words {
            withheld.attachment.store_word(withheld.offset, withheld.word);
        }
        Trusted { made: std::mem::take(&mut self.made), words, journal: self.journal.take() }
    }

    /// Removes all that was made because of an error, and adds to it what went wrong with that.
    pub fn clean_up_after(mut self, error: Error) -> Error {
        match self.remove() {
            Ok(()) => error,
            Err(other) => error.and_while_cleaning_up(other),
        }
    }

    fn remove(&mut self) -> Result<()> {
        let mut failed = None;
        let mut left = std::mem::take(&mut self.made);
        // Base first: what it vouches for must not go before it.
        left.sort_by_key(|made| std::cmp::Reverse(publishing_rank(made.source.address)));
        for _ in 0..REMOVAL_ATTEMPTS {
            left.retain(|made| match made.remove() {
                Ok(is_gone) => !is_gone,
                Err(error) => {
                    failed.get_or_insert(error);
                    false
                }
            });
            if left.is_empty() {
                break;
            }
            std::thread::sleep(REMOVAL_PAUSE);
        }
        if let Some(attached) = left.first() {
            let text = format!("segment {} was not removed: another process has it attached", attached.source.key);
            failed.get_or_insert_with(|| Error::new(Code::SegmentAttached, text, ""));
        }
        match (failed, self.journal.take()) {
            // The journal stays as long as a segment does: the next run removes that, and puts the
            // journal away.
            (Some(error), _) => Err(error),
            (None, Some(journal)) => journal.end(),
            (None, None) => Ok(()),
        }
    }
}

impl Drop for Untrusted<'_> {
    fn drop(&mut self) {
        // Only on the way out of a panic is there something left; the next run removes what stays.
        let _ = self.remove();
    }
}

/// Segments that a start may trust, and a server may be using already. There is no way to remove
/// them.
pub struct Trusted<'j> {
    made: Vec<NewSegment>,
    words: Vec<Withheld>,
    journal: Option<&'j mut RestoreJournal>,
}

impl Trusted<'_> {
    /// Detaches the segments, ends the journal, and looks whether all of them are still there.
    ///
    /// Errors: `segment-changed` if one is not. Nothing is removed.
    pub fn let_go(self, control: &Control) -> Result<()> {
        drop(self.words);
        // A journal that stays does no harm: it says that its segments are not to be removed.
        if let Some(Err(error)) = self.journal.map(RestoreJournal::end) {
            control.note(NoteCode::JournalLeft, format!("the journal could not be removed: {error}"));
        }
        let mut gone = Vec::new();
        for made in &self.made {
            match made.presence() {
                Ok(Presence::There { .. }) => {}
                Ok(Presence::Gone) => gone.push(made.source.key),
                // A look that fails is no sign that it is gone: it was there when the words were
                // stored.
                Err(error) => control.note(NoteCode::NotLookedAt, error.to_string()),
            }
        }
        let Some(first) = gone.first() else { return Ok(()) };
        Err(Error::new(
            Code::SegmentChanged,
            format!(
                "{} of {} segments were removed while the restore was committing, the first is {first}: a server seems to have \
                 started",
                gone.len(),
                self.made.len()
            ),
            "asmt removed nothing: if the server is running, leave it running; if it is not running and has not served since, \
             run the restore again: it reports what is in the way",
        ))
    }
}

/// Makes the segments of namespaces and fills them; with `check`, reads each again and compares.
///
/// Errors: `segments-exist`, `system-limit`, `not-enough-memory`, `content-damaged`, failed calls.
/// Nothing is left.
pub fn fill<'j>(
    store: &Store,
    namespaces: &[NamespaceRestore],
    journal: &'j mut RestoreJournal,
    options: Options,
    control: &Control,
) -> Result<Untrusted<'j>> {
    let mut filled = Untrusted { made: Vec::new(), journal: Some(journal), data_bytes: 0 };
    match fill_all(store, namespaces, &mut filled, options, control) {
        Ok(()) => Ok(filled),
        Err(error) => Err(filled.clean_up_after(error)),
    }
}

fn fill_all(
    store: &Store,
    namespaces: &[NamespaceRestore],
    filled: &mut Untrusted<'_>,
    options: Options,
    control: &Control,
) -> Result<()> {
    let sources: Vec<&Source> = namespaces.iter().flat_map(|namespace| &namespace.sources).collect();
    let is_base = |source: &&&Source| source.address.segment_type == SegmentType::PiBase;
    control.begin(Phase::Copy, sources.iter().map(|source| source.size_bytes).sum());
    let others = make(filled, sources.iter().filter(|source| !is_base(source)), control)?;
    fill_made(store, filled, others, options, control)?;
    let bases = make(filled, sources.iter().filter(is_base), control)?;
    fill_made(store, filled, bases, options, control)?;
    if options.check {
        compare(filled, options, control)?;
    }
    Ok(())
}

/// Makes segments; gives their range among those made.
fn make<'s>(
    filled: &mut Untrusted<'_>,
    sources: impl Iterator<Item = &'s &'s Source>,
    control: &Control,
) -> Result<std::ops::Range<usize>> {
    let first = filled.made.len();
    for source in sources {
        control.check_stop()?;
        let shmid = sysv::create(source.key, source.size_bytes).map_err(|error| cannot_make(source, error))?;
        filled.made.push(NewSegment {
            source: (*source).clone(),
            shmid,
            withheld_word: AtomicU32::new(0),
            sums: Mutex::new(Vec::new()),
        });
        if let Some(journal) = &mut filled.journal {
            journal.made(shmid)?;
        }
    }
    Ok(first..filled.made.len())
}

fn cannot_make(source: &Source, error: std::io::Error) -> Error {
    let what = format!("cannot create segment {} of {} bytes", source.key, source.size_bytes);
    match error.raw_os_error() {
        Some(libc::EEXIST) => {
            Error::new(Code::SegmentsExist, format!("{what}: it was created in the meantime"), hints::STARTED_MEANWHILE)
        }
        Some(libc::ENOSPC) => Error::new(
            Code::SystemLimit,
            format!("{what}: the limit kernel.shmmni or kernel.shmall is reached"),
            "raise it with sysctl -w kernel.shmmni=… or kernel.shmall=…",
        ),
        Some(libc::EINVAL) => Error::new(
            Code::SystemLimit,
            format!("{what}: it is larger than kernel.shmmax"),
            "raise it with sysctl -w kernel.shmmax=…",
        ),
        Some(libc::ENOMEM) => Error::new(
            Code::NotEnoughMemory,
            format!("{what}: the kernel has no memory for it"),
            "free memory, or raise vm.overcommit_memory's limits",
        ),
        _ => Error::io("shmget", source.key, error),
    }
}

struct Open {
    pub(super) file: InputFile,
    pub(super) attachment: Attachment,
    /// What the file has as data is what the segment had: it may be read straight into its place.
    keeps_holes: bool,
}

fn fill_made(
    store: &Store,
    filled: &mut Untrusted<'_>,
    range: std::ops::Range<usize>,
    options: Options,
    control: &Control,
) -> Result<()> {
    let made = &filled.made[range];
    let sources: Vec<Source> = made.iter().map(|made| made.source.clone()).collect();
    let spans: Vec<Spans> = sources.iter().map(read::spans_of).collect();
    let units = Units::new(spans.iter().map(Spans::count));
    let in_work: Vec<InWork<Open>> = spans.iter().map(|spans| InWork::new(spans.count())).collect();
    let tallies: Vec<Tally> = sources.iter().map(|_| Tally::default()).collect();
    Pool::run(control, options.threads, units.count(), Scratch::default, |_, scratch, unit| {
        let (index, unit) = units.locate(unit);
        let (source, span, target) = (&sources[index], spans[index].get(unit), &made[index]);
        let open = in_work[index].enter(|| {
            let file = read::open(store, source, false)?;
            let keeps_holes = read::keeps_holes(&file, source)?;
            Ok(Open { file, attachment: target.attach(Access::ReadWrite)?, keeps_holes })
        })?;
        let mut sink = Filling { made: target, attachment: &open.attachment, keeps_holes: open.keeps_holes };
        Reading { file: &open.file, source, scratch, control, sink: &mut sink }
            .read_span(&span)
            .and_then(|found| {
                read::put_sums(&target.sums, source, &span, &found.sums);
                tallies[index].add(&open.file, source, read::bytes_of(source, &span).start, found.data_bytes)
            })
            .map_err(|error| target.or_changed(error))?;
        control.add_done(read::done_bytes(source, &span));
        if let Some(open) = in_work[index].leave(open) {
            target.check_untouched()?;
            drop(open);
            control.note(NoteCode::Filled, format!("filled {} from {}: {} bytes", source.key, source.file, source.size_bytes));
        }
        Ok(())
    })?;
    filled.data_bytes += tallies.iter().map(Tally::bytes).sum::<u64>();
    Ok(())
}

/// Reads every segment again and compares it with what came out of the files.
fn compare(filled: &Untrusted<'_>, options: Options, control: &Control) -> Result<()> {
    let made = &filled.made;
    let count = |made: &NewSegment| crate::format::chunk_count(made.source.size_bytes, made.source.chunk_bytes());
    let units = Units::new(made.iter().map(count));
    let in_work: Vec<InWork<Attachment>> = made.iter().map(|made| InWork::new(count(made))).collect();
    control.begin(Phase::Check, made.iter().map(|made| made.source.size_bytes).sum());
    Pool::run(
        control,
        options.threads,
        units.count(),
        || (),
        |_, (), unit| {
            let (index, chunk_index) = units.locate(unit);
            let target = &made[index];
            let attachment = in_work[index].enter(|| target.attach(Access::ReadOnly))?;
            let range = chunk_range(target.source.size_bytes, target.source.chunk_bytes(), chunk_index);
            let found = sum_of(target, &attachment, &range).map_err(|error| Error::io("lseek", target.source.key, error))?;
            let expected = lock(&target.sums)[usize::try_from(chunk_index).unwrap_or(usize::MAX)];
            if found != expected {
                return Err(target.or_changed(Error::new(
                    Code::CompareFailed,
                    format!("segment {} at {}: CRC-32 {found:08x}, expected {expected:08x}", target.source.key, range.start),
                    "do not trust this machine's memory: check the kernel log",
                )));
            }
            control.add_done(range.end - range.start);
            let _ = in_work[index].leave(attachment);
            Ok(())
        },
    )
}

/// CRC-32 of a chunk of a segment, with the withheld word as the backup has it.
fn sum_of(target: &NewSegment, attachment: &Attachment, range: &std::ops::Range<u64>) -> std::io::Result<u32> {
    let mut sum = RangeSum::new(range);
    for part in data_ranges(attachment, range)? {
        match withheld_offset(target.source.address.segment_type) {
            Some(at) if part.start == 0 && part.end >= at as u64 + 4 => {
                let at = at as u64;
                sum.add(0, attachment.bytes(0..at));
                sum.add(at, &target.withheld_word.load(Ordering::Relaxed).to_le_bytes());
                sum.add(at + 4, attachment.bytes(at + 4..part.end));
            }
            _ => sum.add(part.start, attachment.bytes(part)),
        }
    }
    Ok(sum.finish())
}
