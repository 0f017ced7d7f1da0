//! The loops, one file each, and the parts that they share: file systems of their own, and acts at
//! a given call.

mod kills;
pub mod races;
mod server;
mod space;
mod starts;
mod syscalls;

use crate::calls::Call;
use crate::tally::Tally;
use crate::tracer::{Action, Shown};
use crate::world::{Outcome, Program, World};
use asmt_kit::{files, mounts};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A loop: it runs with a scratch directory, and counts states.
type Loop = fn(&Path, &mut Tally<'_>);

/// Name and loop.
pub const ALL: &[(&str, Loop)] =
    &[("syscalls", syscalls::run), ("kills", kills::run), ("space", space::run), ("races", all_races)];

/// Runs the races beside a run, and those in which a server starts.
fn all_races(scratch: &Path, tally: &mut Tally<'_>) {
    let place = disk(scratch, "races", 64);
    races::run(scratch, &place, tally);
    starts::run(scratch, &place, tally);
}

/// Makes a file system of this many MiB for backups, or a plain directory where none can be
/// mounted.
fn disk(scratch: &Path, name: &str, mib: u64) -> PathBuf {
    disk_of(scratch, name, "any", mib).unwrap_or_else(|why| panic!("{why}"))
}

/// Makes a file system of a kind. It lies in memory, so that a state takes milliseconds, and
/// behaves like one on a disk. The kind `any` is ext4 or, where none can be mounted, a plain
/// directory.
///
/// Errors: the reason why there can be none.
fn disk_of(scratch: &Path, name: &str, kind: &str, mib: u64) -> Result<PathBuf, String> {
    let path = scratch.join(name);
    std::fs::create_dir_all(&path).expect("a directory");
    if !crate::is_real_root() {
        return if kind == "any" { Ok(path) } else { Err("only root of the machine may mount file systems".to_owned()) };
    }
    let program = format!("mkfs.{}", kind.split('-').next().filter(|kind| *kind != "any").unwrap_or("ext4"));
    if Command::new(&program).arg("-V").output().is_err() {
        return Err(format!("{program} is not installed"));
    }
    format_again(&path, kind, mib);
    mount_again(&path, kind, mib);
    Ok(path)
}

/// The image of a file system: it lies in memory, and is gone with this process.
fn image_of(mount: &Path, kind: &str, mib: u64) -> PathBuf {
    let memory = mount.with_file_name("memory");
    if !memory.exists() {
        std::fs::create_dir_all(&memory).expect("a directory");
        mounts::tmpfs(&memory, c"").expect("a file system in memory");
    }
    let name = mount.file_name().unwrap_or_default().display();
    memory.join(format!("{name}-{kind}-{mib}.img"))
}

/// Makes the file system anew. It must not be mounted.
fn format_again(mount: &Path, kind: &str, mib: u64) {
    let image = image_of(mount, kind, mib);
    let _ = std::fs::remove_file(&image);
    must(Command::new("truncate").arg(format!("-s{mib}M")).arg(&image));
    let words: &[&str] = match kind {
        "xfs" => &["mkfs.xfs", "-q"],
        "btrfs" => &["mkfs.btrfs", "-q"],
        "ext4-few-inodes" => &["mkfs.ext4", "-q", "-F", "-m0", "-N64"],
        _ => &["mkfs.ext4", "-q", "-F", "-m0", "-b4096"],
    };
    must(Command::new(words[0]).args(&words[1..]).arg(&image));
}

fn mount_again(mount: &Path, kind: &str, mib: u64) {
    must(Command::new("mount").args(["-o", "loop"]).arg(image_of(mount, kind, mib)).arg(mount));
}

/// Runs a command that must succeed.
fn must(command: &mut Command) {
    files::run(command).unwrap_or_else(|error| panic!("{error}"));
}

/// A call of the engine in a run without faults, and the way to find it in other runs.
#[derive(Clone, Debug)]
struct Point {
    /// Its name.
    name: String,
    /// The calls that a run has to show.
    shown: Shown,
    /// Number of those calls before it.
    before: usize,
}

impl Point {
    /// The call with this index among all calls of a run, whatever it is.
    fn nth(index: usize) -> Self {
        Self { name: String::new(), shown: Shown::All, before: index }
    }
}

/// The engine's calls in a run without faults.
fn clean_calls(world: &World, program: Program) -> Vec<Point> {
    calls_seen_by(world, program, &mut |_| {})
}

/// The engine's calls in a run without faults, each of which is shown to `see`.
fn calls_seen_by(world: &World, program: Program, see: &mut dyn FnMut(&Call)) -> Vec<Point> {
    world.reset();
    let (mut points, mut counts) = (Vec::new(), HashMap::new());
    // A single worker makes its calls in the same order each time, and so those of one name: then
    // a run has to stop at these alone.
    let is_ordered = world.scenario().threads == 1 && program == Program::Driver;
    let outcome = world.run(program, Shown::All, &mut |call| {
        let count: &mut usize = counts.entry(call.number).or_default();
        let (shown, before) = if is_ordered { (Shown::Only(call.number), *count) } else { (Shown::All, points.len()) };
        *count += 1;
        points.push(Point { name: call.name(), shown, before });
        see(call);
        Action::Go
    });
    assert!(outcome.is_done && !points.is_empty(), "a run in which nothing fails: {outcome:?}");
    points
}

/// Runs, and does something to the world when the engine is about to make this call.
fn act_at(world: &World, point: &Point, act: &mut dyn FnMut()) -> Outcome {
    let mut seen = 0;
    world.run(Program::Driver, point.shown, &mut |_| {
        seen += 1;
        if seen <= point.before {
            return Action::Go;
        }
        act();
        Action::Last(Box::new(Action::Go))
    })
}
