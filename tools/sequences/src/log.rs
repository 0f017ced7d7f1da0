//! The files that a server writes beside its devices: a log file that others rotate, and its
//! metadata directory.
//!
//! Promise: the times of the files are those of the machine's clock in the sequence, not of this
//! computer's.

use asmt_kit::dice::Dice;
use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

/// The last line of a clean stop.
pub const LAST_WORDS: &str = "finished clean shutdown - exiting";

/// The way in which a log is rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// Renamed; an empty file takes its name, or none does.
    Renamed,
    /// Copied, and truncated in place.
    Truncated,
    /// Renamed and compressed.
    Compressed,
}

struct Line {
    event: usize,
    text: String,
    at_s: i64,
    is_settled: bool,
}

/// A log file, and the files to which it was rotated.
pub struct ServerLog {
    path: PathBuf,
    /// Suffix and lines of each file, the current file first and then the later ones before the
    /// older ones.
    files: Vec<(String, Vec<Line>)>,
    /// Event of the last rotation, and of the last loss of lines.
    pub rotated: usize,
    pub lost: usize,
}

impl ServerLog {
    /// A log that does not exist yet.
    pub fn new(path: PathBuf) -> Self {
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        Self { path, files: vec![(String::new(), Vec::new())], rotated: 0, lost: 0 }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn place(&self, suffix: &str) -> PathBuf {
        PathBuf::from(format!("{}{suffix}", self.path.display()))
    }

    /// Adds a line.
    pub fn write(&mut self, event: usize, at_s: i64, text: &str) {
        let text = format!("{} GMT: INFO (as): (as.c:{event}) {text}\n", shown(at_s));
        let file = OpenOptions::new().append(true).create(true).open(&self.path);
        let mut file = file.unwrap_or_else(|error| panic!("{}: {error}", self.path.display()));
        file.write_all(text.as_bytes()).expect("written");
        drop(file);
        set_time(&self.path, at_s);
        self.files[0].1.push(Line { event, text, at_s, is_settled: false });
    }

    /// Returns true if any file of the log has a line of a later event.
    pub fn has_lines_after(&self, event: usize) -> bool {
        self.files.iter().flat_map(|(_, lines)| lines).any(|line| line.event > event)
    }

    /// Returns true if the current file was last written after this time.
    pub fn was_written_after(&self, at_s: i64) -> bool {
        self.files[0].1.last().is_some_and(|line| line.at_s > at_s)
    }

    /// Rotates it.
    pub fn rotate(&mut self, how: Rotation, event: usize, at_s: i64, dice: &mut Dice) {
        self.rotated = event;
        if !self.path.exists() {
            return;
        }
        let gz = if how == Rotation::Compressed { ".gz" } else { "" };
        for number in (1..self.files.len()).rev() {
            let is_gz = self.files[number].0.ends_with(".gz");
            let suffix = format!(".{}{}", number + 1, if is_gz { ".gz" } else { "" });
            fs::rename(self.place(&self.files[number].0), self.place(&suffix)).expect("renamed");
            self.files[number].0 = suffix;
        }
        let first = self.place(".1");
        if how == Rotation::Truncated {
            fs::copy(&self.path, &first).expect("copied");
            set_time(&first, at_s);
            File::create(&self.path).expect("truncated");
            set_time(&self.path, at_s);
        } else {
            fs::rename(&self.path, &first).expect("renamed");
            if how == Rotation::Compressed {
                let status = Command::new("gzip").arg(&first).status().expect("gzip");
                assert!(status.success(), "gzip {}", first.display());
            }
            if dice.chance(50) {
                File::create(&self.path).expect("made");
                set_time(&self.path, at_s);
            }
        }
        self.files[0].0 = format!(".1{gz}");
        self.files.insert(0, (String::new(), Vec::new()));
        // A rotation calls no fsync, but a power cut in a sequence does not lose the copies.
        self.files.iter_mut().flat_map(|(_, lines)| lines).for_each(|line| line.is_settled = true);
    }

    /// Everything reaches the disk.
    pub fn settle(&mut self) {
        self.files[0].1.iter_mut().for_each(|line| line.is_settled = true);
    }

    /// The power is cut: the last lines may be lost.
    pub fn lose_power(&mut self, event: usize, dice: &mut Dice) {
        let lines = &mut self.files[0].1;
        let settled = lines.iter().take_while(|line| line.is_settled).count();
        let kept = settled + dice.below(lines.len() - settled + 1);
        if kept < lines.len() {
            lines.truncate(kept);
            self.lost = event;
            let length: usize = lines.iter().map(|line| line.text.len()).sum();
            let file = OpenOptions::new().write(true).open(&self.path).expect("a log");
            file.set_len(length as u64).expect("cut");
            if let Some(last) = self.files[0].1.last() {
                set_time(&self.path, last.at_s);
            }
        }
        self.settle();
    }
}

/// Sets the modification time of a file.
pub fn set_time(path: &Path, at_s: i64) {
    let at = UNIX_EPOCH + Duration::from_secs(at_s.unsigned_abs());
    let set = File::options().write(true).open(path).and_then(|file| file.set_times(FileTimes::new().set_modified(at)));
    set.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// A time in the form `2026-11-30 01:00:00`, in UTC.
pub fn shown(at_s: i64) -> String {
    let at = jiff::Timestamp::from_second(at_s).expect("a time").to_string();
    at.replace('T', " ").trim_end_matches('Z').to_owned()
}
