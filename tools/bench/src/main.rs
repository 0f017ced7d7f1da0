//! Measures what this machine can do with the segments in this IPC namespace: the plainest writer
//! and reader past the page cache, copying in memory, CRC-32, and codecs alone. `npm run bench`
//! compares asmt with these figures.
//!
//! Promise: each command prints one line of JSON with bytes and seconds, does only the work that it
//! is named for while the clock runs, and leaves nothing behind but files that were asked for. Must
//! never: use the engine's way of doing I/O, which these figures are compared with, or be shipped
//! to users.

#![forbid(unsafe_code)]

mod codec;
mod disk;
mod memory;
mod scan;

use asmt_kit::args::{self, Args};
use asmt_kit::text_of;
use asmt_shm::sysv::{self, Access, Attachment};
use serde_json::{Value, json};
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

const USAGE: &str = "\
asmt-bench: what this machine can do with the segments in this IPC namespace

  write   --dir D [--threads 4] [--keep]   every byte that is no hole, by plain direct writes of 4 MiB, and fsync
  read    --dir D [--threads 4]            what write kept, by plain direct reads of 4 MiB into fresh segments
  scan    --dir D [--threads 4]            what write kept, by plain direct reads of 4 MiB into ordinary memory
  fresh   [--threads 1] [--mib 1024]       memory of a fresh segment, 4 MiB at a time
  memcpy  [--threads 1] [--mib 1024]       from one warm buffer to another
  crc32   [--threads 1]                    CRC-32 of every byte that is no hole
  codec   --name index|columns|other|zlib-1 [--threads 1] [--mib 256]    encodes, and decodes again
  engine  --request JSON                   an operation of the engine, without Node around it
";

/// Bytes of a piece.
pub const PIECE_BYTES: u64 = 4 << 20;

/// The outcome of a command: its figures, or a text for people.
pub type Figures = Result<Value, String>;

fn main() -> ExitCode {
    match run(&args::words()) {
        Ok(figures) => {
            println!("{figures}");
            ExitCode::SUCCESS
        }
        Err(text) => args::failure("asmt-bench", text),
    }
}

fn run(words: &[String]) -> Figures {
    let Some((command, rest)) = words.split_first() else { return Err(format!("a command is needed\n\n{USAGE}")) };
    let mut args = Args::parse(rest, &["keep"])?;
    let most_bytes = args.number("mib", 1024u64)? << 20;
    match command.as_str() {
        "write" | "read" | "scan" => {
            let directory = args.text("dir").map(PathBuf::from).ok_or("--dir is needed")?;
            let threads = args.number("threads", 4)?;
            let keep = args.flag("keep");
            args.end()?;
            match command.as_str() {
                "write" => disk::write(&directory, threads, keep),
                "read" => disk::read(&directory, threads),
                _ => scan::scan(&directory, threads),
            }
        }
        "memcpy" | "crc32" | "fresh" => {
            let threads = args.number("threads", 1)?;
            args.end()?;
            match command.as_str() {
                "memcpy" => memory::copy(threads, most_bytes),
                "crc32" => memory::crc32(threads),
                _ => scan::fresh(threads, most_bytes),
            }
        }
        "codec" => {
            let name = args.text("name").ok_or("--name is needed")?;
            let threads = args.number("threads", 1)?;
            args.end()?;
            codec::measure(&name, threads, most_bytes)
        }
        "engine" => {
            let request = args.text("request").ok_or("--request is needed")?;
            args.end()?;
            engine(&request)
        }
        other => Err(format!("no command {other:?}\n\n{USAGE}")),
    }
}

fn engine(request: &str) -> Figures {
    let request = serde_json::from_str(request).map_err(text_of("not a request", ""))?;
    let since = Instant::now();
    let report = asmt_engine::perform(&request, "asmt-bench", &asmt_engine::progress::Control::default());
    let seconds = since.elapsed().as_secs_f64();
    match report {
        Ok(report) => Ok(json!({ "seconds": seconds, "bytes": report.data_bytes })),
        Err(failure) => Err(failure.error.to_string()),
    }
}

/// The bytes and seconds of a command.
pub fn figures(bytes: u64, since: Instant) -> Value {
    json!({ "bytes": bytes, "seconds": since.elapsed().as_secs_f64() })
}

/// One of Aerospike's segments, attached for reading.
pub struct Attached {
    /// Its name in a directory.
    pub name: String,
    /// The segment.
    pub attachment: Attachment,
}

/// Attaches each of Aerospike's segments in this IPC namespace, sorted by key.
pub fn attach_all() -> Result<Vec<Attached>, String> {
    let mut stats = sysv::all_segments().map_err(text_of("cannot list", "segments"))?;
    stats.retain(|stat| stat.key.address().is_some());
    stats.sort_by_key(|stat| stat.key);
    let attach = |stat: &sysv::SegmentStat| {
        let attachment = Attachment::new(stat.shmid, Access::ReadOnly, 0).map_err(text_of("cannot attach", stat.key))?;
        Ok(Attached { name: stat.key.to_string(), attachment })
    };
    stats.iter().map(attach).collect()
}

/// The pieces of work: the number of a segment, and a range of data in it, at most [`PIECE_BYTES`]
/// long.
pub fn pieces(segments: &[Attached]) -> Result<Vec<(usize, Range<u64>)>, String> {
    let mut pieces = Vec::new();
    for (number, segment) in segments.iter().enumerate() {
        let size_bytes = segment.attachment.size_bytes();
        let ranges = data_ranges(|position| segment.attachment.next_data(position, size_bytes));
        pieces.extend(ranges.map_err(text_of("cannot find data of", &segment.name))?.into_iter().map(|range| (number, range)));
    }
    Ok(pieces)
}

/// Ranges of bytes with data in them, each at most [`PIECE_BYTES`] long. `next_data` returns the
/// first range of data that ends after a position.
pub fn data_ranges(next_data: impl Fn(u64) -> io::Result<Option<Range<u64>>>) -> io::Result<Vec<Range<u64>>> {
    let (mut ranges, mut position) = (Vec::new(), 0);
    while let Some(data) = next_data(position)? {
        position = data.end;
        let starts = data.clone().step_by(PIECE_BYTES as usize);
        ranges.extend(starts.map(|start| start..data.end.min(start + PIECE_BYTES)));
    }
    Ok(ranges)
}
