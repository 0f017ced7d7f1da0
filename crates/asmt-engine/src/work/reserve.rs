//! Finds the holes of segments, makes their files, and reserves room for what will be in them.

use crate::error::{Code, Error, NoteCode, Result};
use crate::format::{Spans, chunk_bytes_for, chunk_count, max_file_bytes, zero_bytes};
use crate::plan::Copy;
use crate::progress::{Control, Phase};
use crate::store::Store;
use crate::work::job::{Job, Options, Temporaries, attach, lock};
use crate::work::pool::{InWork, Pool};
use crate::work::written::Written;
use asmt_shm::Key;
use asmt_shm::sysv::Attachment;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Holes smaller than this are reserved with the data around them: the number of calls stays
/// bounded.
pub const MERGED_GAP_BYTES: u64 = 256 << 10;

/// Finds holes, makes the files and reserves their space: for compressed ones as much as they can
/// need at worst. Gives the jobs in the order of `copies`, and how many bytes were reserved.
pub fn reserve<'p>(
    temporaries: &Temporaries<'_>,
    copies: &[&'p Copy],
    options: Options,
    control: &Control,
) -> Result<(Vec<Job<'p>>, u64)> {
    control.begin(Phase::Reserve, copies.iter().map(|copy| copy.segment.stat.size_bytes).sum());
    let jobs: Vec<Mutex<Option<Job<'p>>>> = copies.iter().map(|_| Mutex::new(None)).collect();
    let (reserved_bytes, reserved_compressed) = (AtomicU64::new(0), AtomicU64::new(0));
    let is_too_much = AtomicBool::new(false);
    // What is copied as it is needs its room; what is compressed gets of the rest what it may need
    // at worst, or nothing.
    for (is_plain, total) in [(true, &reserved_bytes), (false, &reserved_compressed)] {
        let indices: Vec<usize> = (0..copies.len()).filter(|index| copies[*index].encoding.is_plain() == is_plain).collect();
        Pool::run(
            control,
            options.threads,
            indices.len() as u64,
            || (),
            |_, (), unit| {
                let index = indices[usize::try_from(unit).unwrap_or(usize::MAX)];
                let (job, reserved) = reserve_one(temporaries, copies[index], &is_too_much, control)
                    .map_err(|error| no_room(error, temporaries.store(), copies, control))?;
                total.fetch_add(reserved, Ordering::Relaxed);
                *lock(&jobs[index]) = Some(job);
                Ok(())
            },
        )?;
    }
    let jobs = jobs.into_iter().filter_map(|job| job.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner));
    let (jobs, mut reserved_bytes) = (jobs.collect::<Vec<_>>(), reserved_bytes.into_inner());
    if is_too_much.into_inner() {
        // What some files have too much of, others would lack.
        for job in jobs.iter().filter(|job| !job.copy.encoding.is_plain()) {
            temporaries.store().reopen(&job.temporary, &job.copy.file_name())?.finish(0, None)?;
        }
        control.note(NoteCode::NotReserved, "there may not be room for all compressed files: no space was reserved");
    } else {
        reserved_bytes += reserved_compressed.into_inner();
    }
    control.note(NoteCode::Reserved, format!("reserved {reserved_bytes} bytes for {} files", jobs.len()));
    Ok((jobs, reserved_bytes))
}

/// Gives the job, and how many bytes were reserved for it. Where there is no room for what a
/// compressed file may need at worst, that sets `is_too_much`, and is no error.
pub fn reserve_one<'p>(
    temporaries: &Temporaries<'_>,
    copy: &'p Copy,
    is_too_much: &AtomicBool,
    control: &Control,
) -> Result<(Job<'p>, u64)> {
    let size_bytes = copy.segment.stat.size_bytes;
    let chunk_bytes = chunk_bytes_for(size_bytes);
    let attachment = attach(copy)?;
    let file = temporaries.create(&copy.file_name())?;
    let (mut is_reserved, mut reserved_bytes) = (true, 0);
    let mut reserve = |range: std::ops::Range<u64>| {
        if is_reserved {
            let length = range.end - range.start;
            is_reserved = file.reserve(range.start, length)?;
            reserved_bytes += if is_reserved { length } else { 0 };
        }
        Ok(())
    };
    let zero_chunks = match copy.encoding.is_plain() {
        true => survey(copy.segment.key(), &attachment, chunk_bytes, &mut reserve)?,
        false => {
            let zero_chunks = survey(copy.segment.key(), &attachment, chunk_bytes, &mut |_| Ok(()))?;
            let worst = worst_compressed_bytes(size_bytes, chunk_bytes, &zero_chunks);
            if !is_too_much.load(Ordering::Relaxed) {
                match reserve(0..worst) {
                    Err(error) if error.first().code == Code::DiskFull => is_too_much.store(true, Ordering::Relaxed),
                    other => other?,
                }
            }
            zero_chunks
        }
    };
    if !is_reserved {
        control.note(NoteCode::NotReserved, format!("{}: the file system cannot reserve space", file.name()));
    }
    control.add_done(size_bytes);
    let count = chunk_count(size_bytes, chunk_bytes);
    let spans = Spans::new(count, chunk_bytes, &zero_chunks);
    let job = Job {
        copy,
        temporary: file.temporary().to_owned(),
        chunk_bytes,
        zero_chunks,
        data_bytes: AtomicU64::new(0),
        is_by_residency: AtomicBool::new(attachment.tells_holes_by_residency()),
        data_found: attachment.data_found(),
        in_work: InWork::new(spans.count()),
        spans,
        chunks: Mutex::new(vec![Written::NOTHING; usize::try_from(count).unwrap_or(usize::MAX)]),
        is_read_back: AtomicBool::new(!copy.encoding.is_plain()),
        finished: Mutex::new(None),
    };
    Ok((job, reserved_bytes))
}

/// Says how much room there is and how much is needed, where that is what was wrong.
pub fn no_room(error: Error, store: &Store, copies: &[&Copy], control: &Control) -> Error {
    if error.first().code != Code::DiskFull {
        return error;
    }
    let needed: u64 = copies
        .iter()
        .map(|copy| copy.segment.resident_bytes.unwrap_or(copy.segment.stat.size_bytes) + copy.segment.swapped_bytes)
        .sum();
    let free = store.free_bytes().ok().flatten().map_or_else(|| "an unknown number of".to_owned(), |bytes| bytes.to_string());
    control.note(NoteCode::NoRoom, format!("{needed} bytes needed, {free} free, including what was reserved so far"));
    Error::new(
        Code::DiskFull,
        format!(
            "no room in {}: the files need about {needed} bytes, and {free} were free when the reservation failed; {}",
            store.path().display(),
            error.first().message
        ),
        format!("{}; nothing was copied", crate::hints::NO_ROOM),
    )
}

/// Walks over the data of a segment without touching its holes. Calls `on_data` for each range of
/// data, those that lie close together as one, and gives the runs of chunks with no data in them:
/// first, count.
pub fn survey(
    key: Key,
    attachment: &Attachment,
    chunk_bytes: u32,
    on_data: &mut dyn FnMut(std::ops::Range<u64>) -> Result<()>,
) -> Result<Vec<(u64, u64)>> {
    let size_bytes = attachment.size_bytes();
    let mut zero_runs = Vec::new();
    let (mut position, mut next_chunk) = (0, 0);
    let mut pending: Option<std::ops::Range<u64>> = None;
    loop {
        let data = attachment.next_data(position, size_bytes).map_err(|error| Error::io("lseek", key, error))?;
        let data_chunk = data.as_ref().map_or(chunk_count(size_bytes, chunk_bytes), |data| data.start / u64::from(chunk_bytes));
        if data_chunk > next_chunk {
            zero_runs.push((next_chunk, data_chunk - next_chunk));
        }
        let Some(data) = data else { break };
        next_chunk = next_chunk.max(data.end.div_ceil(u64::from(chunk_bytes)));
        position = data.end;
        pending = match pending {
            Some(last) if data.start - last.end < MERGED_GAP_BYTES => Some(last.start..data.end),
            Some(last) => {
                on_data(last)?;
                Some(data)
            }
            None => Some(data),
        };
    }
    pending.map_or(Ok(()), on_data)?;
    Ok(zero_runs)
}

/// How much a compressed file needs at worst; a chunk of zeros deflates to about a thousandth, and
/// is counted with a hundredth.
pub fn worst_compressed_bytes(size_bytes: u64, chunk_bytes: u32, zero_chunks: &[(u64, u64)]) -> u64 {
    let zero_bytes = zero_bytes(size_bytes, chunk_bytes, zero_chunks);
    max_file_bytes(size_bytes, chunk_bytes) - zero_bytes + zero_bytes / 100
}
