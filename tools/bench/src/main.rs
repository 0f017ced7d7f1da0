//! Measures what this machine can do, on the segments that are in this IPC namespace: the plainest
//! writer and reader past the page cache, copying in memory, CRC-32, and codecs alone. `npm run
//! bench` puts these beside what asmt does.
//!
//! Promise: each command prints one line of JSON with bytes and seconds, does nothing but what it
//! is named for while the clock runs, and leaves nothing behind but files that were asked for. Must
//! never: use the engine's way of doing I/O (it is what is compared), or be shipped to users.

mod codec;
mod disk;
mod memory;

use asmt_shm::sysv::{self, Access, Attachment};
use asmt_sim::args::Args;
use serde_json::{Value, json};
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

const USAGE: &str = "\
asmt-bench: what this machine can do with the segments in this IPC namespace

  write   --dir D [--threads 4] [--keep]   every byte that is no hole, by plain direct writes of 4 MiB, and fsync
  read    --dir D [--threads 4]            what write kept, by plain direct reads of 4 MiB into fresh segments
  memcpy  [--threads 1] [--mib 1024]       from one warm buffer to another
  crc32   [--threads 1]                    CRC-32 of every byte that is no hole
  codec   --name index|other|zlib-1 [--threads 1] [--mib 256]    encodes, and decodes again
  engine  --request JSON                   an operation of the engine, without Node around it
";

/// Bytes that are handled at once.
pub const PIECE_BYTES: u64 = 4 << 20;

/// What a command comes to: its figures, or a text for people.
pub type Figures = Result<Value, String>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match run(&words) {
        Ok(figures) => {
            println!("{figures}");
            ExitCode::SUCCESS
        }
        Err(text) => {
            eprintln!("asmt-bench: {text}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[String]) -> Figures {
    let Some((command, rest)) = words.split_first() else { return Err(format!("a command is needed\n\n{USAGE}")) };
    let mut args = Args::parse(rest, &["keep"])?;
    let most_bytes = args.number("mib", 1024u64)? << 20;
    match command.as_str() {
        "write" | "read" => {
            let directory = args.text("dir").map(PathBuf::from).ok_or("--dir is needed")?;
            let threads = args.number("threads", 4)?;
            let keep = args.flag("keep");
            args.end()?;
            if command == "write" { disk::write(&directory, threads, keep) } else { disk::read(&directory, threads) }
        }
        "memcpy" | "crc32" => {
            let threads = args.number("threads", 1)?;
            args.end()?;
            if command == "memcpy" { memory::copy(threads, most_bytes) } else { memory::crc32(threads) }
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

/// Puts what was done in front of an error.
pub fn text_of<E: std::fmt::Display>(what: &str, object: impl std::fmt::Display) -> impl FnOnce(E) -> String {
    let what = format!("{what} {object}");
    move |error| format!("{what}: {error}")
}

/// Bytes and seconds, as every command gives them.
pub fn figures(bytes: u64, since: Instant) -> Value {
    json!({ "bytes": bytes, "seconds": since.elapsed().as_secs_f64() })
}

/// A segment of Aerospike's, attached for reading.
pub struct Attached {
    /// Its name in a directory.
    pub name: String,
    /// The segment.
    pub attachment: Attachment,
}

/// Every one in this IPC namespace, by key.
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

/// What is to be done: the number of a segment, and a range of it with data in it, at most
/// [`PIECE_BYTES`] long.
pub fn pieces(segments: &[Attached]) -> Result<Vec<(usize, Range<u64>)>, String> {
    let mut pieces = Vec::new();
    for (number, segment) in segments.iter().enumerate() {
        let (mut position, size_bytes) = (0, segment.attachment.size_bytes());
        while let Some(data) =
            segment.attachment.next_data(position, size_bytes).map_err(text_of("cannot find data of", &segment.name))?
        {
            position = data.end;
            let starts = data.clone().step_by(PIECE_BYTES as usize);
            pieces.extend(starts.map(|start| (number, start..data.end.min(start + PIECE_BYTES))));
        }
    }
    Ok(pieces)
}

/// Does pieces `0..count` on so many threads, each with something of its own. The first error is
/// given back.
pub fn in_parallel<S>(
    threads: usize,
    count: usize,
    state: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, usize) -> Result<(), String> + Sync,
) -> Result<(), String> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut own = state();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return Ok(());
            }
            work(&mut own, index)?;
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| "a worker panicked".to_owned())?)
    })
}
