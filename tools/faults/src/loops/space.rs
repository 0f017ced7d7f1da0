//! Space and limits: too little room, block by block; no inodes; limits on file size, open files
//! and address space; a file system that fails or turns read-only at each system call; a directory
//! that is taken away at each; little memory; few segments.
//!
//! A run that does not fit is refused, or fails with `no-room`, and leaves nothing. A restore is
//! refused before the first segment where that can be known.

use super::{act_at, clean_calls, disk_of, must};
use crate::calls::Call;
use crate::driver::NOT_STARTED;
use crate::judge::Allowance;
use crate::sys::{self, Limit};
use crate::tally::{Count, Tally};
use crate::tracer::{Action, Shown};
use crate::world::{BACKUP, Old, Outcome, Program, Scenario, World};
use asmt_engine::format::Form;
use asmt_engine::operations::report::Verb;
use asmt_kit::files::names;
use asmt_kit::mounts::is_mounted;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const BACKUP_ZC: Scenario = Scenario { name: "backup-zc", form: Form::Gzip, check: true, ..BACKUP };
const REPLACE: Scenario = Scenario { name: "replace", old: Old::Unsure, ..BACKUP };
const REPLACE_RETIRED: Scenario = Scenario { name: "replace-retired", old: Old::Retired, ..BACKUP };
const RESTORE: Scenario = Scenario { name: "restore", verb: Verb::Restore, ..BACKUP };
const RESTORE_Z: Scenario = Scenario { name: "restore-columns", form: Form::Columns, ..RESTORE };
const VERIFY: Scenario = Scenario { name: "verify", verb: Verb::Verify, ..BACKUP };
/// Larger than the memory of the control group.
const LARGE: Scenario =
    Scenario { name: "large", shape: &["--stages 1 --stage-size 48MiB --fill 1 --treex-size 8192 --base-size 4096"], ..RESTORE };
const BLOCK_BYTES: u64 = 4096;

/// Runs the loop.
pub fn run(scratch: &Path, tally: &mut Tally<'_>) {
    for scenario in [BACKUP, BACKUP_ZC] {
        for (system, mib, step) in [("ext4", 32, 1), ("xfs", 300, 3), ("btrfs", 128, 4)] {
            with_disk(
                &format!("space:room-{system}-{}", scenario.name),
                scratch,
                tally,
                scenario,
                system,
                mib,
                &mut |world, count, tally| {
                    little_room(world, step, count, tally);
                },
            );
        }
    }
    for scenario in [REPLACE, REPLACE_RETIRED] {
        let name = format!("space:room-ext4-{}", scenario.name);
        with_disk(&name, scratch, tally, scenario, "ext4", 32, &mut |world, count, tally| little_room(world, 1, count, tally));
    }
    with_disk("space:inodes", scratch, tally, BACKUP, "ext4-few-inodes", 32, &mut few_inodes);
    for scenario in [BACKUP, BACKUP_ZC, RESTORE, VERIFY] {
        let verb = scenario.name;
        with_disk(&format!("space:file-size-{verb}"), scratch, tally, scenario, "any", 32, &mut limited_file_size);
        with_disk(&format!("space:open-files-{verb}"), scratch, tally, scenario, "any", 32, &mut few_descriptors);
        with_disk(&format!("space:address-space-{verb}"), scratch, tally, scenario, "any", 32, &mut little_address_space);
    }
    for scenario in [BACKUP, RESTORE_Z] {
        let verb = scenario.name;
        for (system, mib) in [("ext4", 16), ("xfs", 300)] {
            with_disk(
                &format!("space:disk-dies-{system}-{verb}"),
                scratch,
                tally,
                scenario,
                system,
                mib,
                &mut |world, count, tally| {
                    disk_fails(
                        world,
                        system,
                        mib,
                        &mut |mount| sys::shut_down(&File::open(mount).expect("the mount")).is_ok(),
                        count,
                        tally,
                    );
                },
            );
        }
        // ext4's own switch for trying its behaviour after an error.
        with_disk(&format!("space:aborted-{verb}"), scratch, tally, scenario, "ext4", 16, &mut |world, count, tally| {
            disk_fails(world, "ext4", 16, &mut |mount| remount(mount, "abort"), count, tally);
        });
        with_disk(&format!("space:read-only-{verb}"), scratch, tally, scenario, "ext4", 16, &mut |world, count, tally| {
            disk_fails(world, "ext4", 16, &mut |mount| remount(mount, "ro"), count, tally);
        });
    }
    with_disk("space:directory", scratch, tally, BACKUP, "any", 32, &mut directory_goes);
    with_disk("space:segment-limits", scratch, tally, RESTORE, "any", 32, &mut few_segments);
    little_memory(scratch, tally);
}

/// Runs one loop on a file system of its own, which is gone afterwards.
fn with_disk(
    name: &str,
    scratch: &Path,
    tally: &mut Tally<'_>,
    scenario: Scenario,
    system: &str,
    mib: u64,
    body: &mut dyn FnMut(&World, &mut Count, &mut Tally<'_>),
) {
    if !tally.wants(name) || !tally.options.wants_verb(scenario.verb) {
        return;
    }
    let disk = match disk_of(scratch, "space", system, mib) {
        Ok(disk) => disk,
        Err(why) => return tally.skip(name, &why),
    };
    let mut count = tally.begin(name);
    {
        let world = World::new(scratch, &disk, scenario);
        body(&world, &mut count, tally);
        world.empty();
    }
    if is_mounted(&disk) {
        must(Command::new("umount").arg(&disk));
    }
    tally.finish(count);
}

/// Checks the kind of a failure for which the room or a limit was missing.
fn no_room(outcome: &Outcome) -> Vec<String> {
    let is_right = outcome.is_done || outcome.problems.first().is_some_and(|told| told.kind == "no-room");
    if is_right { Vec::new() } else { vec![format!("it failed as '{}', expected 'no-room': {}", outcome.word(), outcome.text)] }
}

fn free_blocks(disk: &Path) -> u64 {
    let text = Command::new("stat").args(["-f", "-c", "%a %S"]).arg(disk).output().expect("stat").stdout;
    let text = String::from_utf8_lossy(&text).into_owned();
    let numbers: Vec<u64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    numbers[0] * numbers[1] / BLOCK_BYTES
}

/// Tries each number of free blocks, from none to more than enough.
fn little_room(world: &World, step: usize, count: &mut Count, tally: &mut Tally<'_>) {
    let ballast = world.disk.join("ballast");
    let sync = || must(Command::new("sync").arg("-f").arg(&world.disk));
    world.reset();
    let before = settled_free_blocks(&world.disk);
    clean_calls(world, Program::Driver);
    let needed = before.saturating_sub(settled_free_blocks(&world.disk));
    let step = if tally.options.is_short { 23 } else { step };
    // During the run, more blocks may be taken than are kept in the end. So it goes on until the
    // run fits.
    let mut fits = false;
    let mut next = 0;
    while next < needed + 40 || !fits && next < 8 * needed + 1000 && tally.options.is_whole() {
        let free = next;
        next += if free < needed + 40 { step as u64 } else { 16 };
        let label = format!("{free}-of-{needed}-blocks");
        if !tally.tries(count, &label) {
            continue;
        }
        world.reset();
        let bytes = before.saturating_sub(free) * BLOCK_BYTES;
        // The blocks that a file system keeps for itself make the last ones unsteady: take as many
        // as there are.
        let mut taken = bytes;
        while !Command::new("fallocate")
            .arg("-l")
            .arg(taken.to_string())
            .arg(&ballast)
            .output()
            .expect("fallocate")
            .status
            .success()
        {
            taken = taken.saturating_sub(BLOCK_BYTES).max(1);
        }
        sync();
        let outcome = world.run(Program::Driver, Shown::Nothing, &mut |_| Action::Go);
        fs::remove_file(&ballast).expect("to remove the ballast");
        // Nearly all of it must be there again before the next run is judged.
        let since = Instant::now();
        while settled_free_blocks(&world.disk) + needed + 64 < before && since.elapsed() < Duration::from_secs(10) {}
        fits = outcome.is_done;
        let mut wrong = world.judge(&outcome, Allowance::default());
        wrong.extend(no_room(&outcome));
        tally.tried(count, &label, &outcome.word(), &wrong);
    }
    if !fits && tally.options.is_whole() {
        tally.tried(count, "none", "none", &["no state had enough room".to_owned()]);
    }
}

/// Number of free blocks once it no longer changes: xfs frees the blocks of a removed file a while
/// after it was removed.
fn settled_free_blocks(disk: &Path) -> u64 {
    const PAUSE: Duration = Duration::from_millis(20);
    const SAME: usize = 3;
    let mut seen = Vec::new();
    loop {
        must(Command::new("sync").arg("-f").arg(disk));
        let free = free_blocks(disk);
        seen.push(free);
        if seen.len() >= SAME && seen.iter().rev().take(SAME).all(|other| *other == free) {
            return free;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Tries each number of free inodes.
fn few_inodes(world: &World, count: &mut Count, tally: &mut Tally<'_>) {
    let ballast = world.disk.join("ballast");
    for free in 0..14 {
        let label = format!("{free}-inodes");
        if !tally.tries(count, &label) {
            continue;
        }
        world.reset();
        fs::create_dir(&ballast).expect("a directory");
        let file = |number: u32| ballast.join(number.to_string());
        let made = (0..10_000).take_while(|number| File::create(file(*number)).is_ok()).count();
        (0..free).for_each(|number| fs::remove_file(file(number)).expect("to remove"));
        let outcome = world.run(Program::Driver, Shown::Nothing, &mut |_| Action::Go);
        fs::remove_dir_all(&ballast).expect("to remove");
        assert!(made > 14, "the file system has {made} inodes");
        let mut wrong = world.judge(&outcome, Allowance::default());
        wrong.extend(no_room(&outcome));
        tally.tried(count, &label, &outcome.word(), &wrong);
    }
}

fn limited(world: &World, label: &str, limit: Limit, count: &mut Count, tally: &mut Tally<'_>) {
    if !tally.tries(count, label) {
        return;
    }
    world.reset();
    let outcome = world.run_limited(limit);
    if outcome.ended.status == Some(i32::from(NOT_STARTED)) || outcome.ended.status == Some(127) {
        return tally.tried(count, label, "not started", &[]);
    }
    let mut wrong = world.judge(&outcome, Allowance::default());
    // Without memory, the loader and the runtime end the process in the same way as a kill.
    if !outcome.is_killed() {
        wrong.extend(no_room(&outcome));
    }
    tally.tried(count, label, &outcome.word(), &wrong);
}

/// Tries each block as the limit on file sizes, and the ends of all files to the byte.
fn limited_file_size(world: &World, count: &mut Count, tally: &mut Tally<'_>) {
    clean_calls(world, Program::Driver);
    let sizes: Vec<u64> = names(&world.directory())
        .iter()
        .filter_map(|name| fs::metadata(world.directory().join(name)).ok())
        .map(|metadata| metadata.size())
        .collect();
    let ends = sizes.iter().flat_map(|size| [size - 1, *size, size + 1]);
    let most = sizes.iter().copied().max().unwrap_or(0).min(300 << 10);
    let mut limits: Vec<u64> = ends.chain((0..most).step_by(4096)).chain([0, 1, 100]).collect();
    limits.sort_unstable();
    limits.dedup();
    let step = if tally.options.is_short { 11 } else { 1 };
    for value in limits.into_iter().step_by(step) {
        limited(world, &format!("{value}-bytes"), Limit { resource: libc::RLIMIT_FSIZE, value }, count, tally);
    }
}

/// Tries each limit on open files. The loader needs some files, too.
fn few_descriptors(world: &World, count: &mut Count, tally: &mut Tally<'_>) {
    for value in (4..40).step_by(if tally.options.is_short { 5 } else { 1 }) {
        limited(world, &format!("{value}-files"), Limit { resource: libc::RLIMIT_NOFILE, value }, count, tally);
    }
}

/// Tries limits on the address space, from too little for a start to enough.
fn little_address_space(world: &World, count: &mut Count, tally: &mut Tally<'_>) {
    let step = if tally.options.is_short { 8192 << 10 } else { 128 << 10 };
    for value in (4 << 20..44 << 20).step_by(step) {
        limited(world, &format!("{}-KiB", value >> 10), Limit { resource: libc::RLIMIT_AS, value }, count, tally);
    }
}

fn remount(mount: &Path, how: &str) -> bool {
    Command::new("mount").arg("-o").arg(format!("remount,{how}")).arg(mount).output().is_ok_and(|done| done.status.success())
}

/// The file system fails at each call. What was reported as done must be there when it is mounted
/// again.
fn disk_fails(
    world: &World,
    system: &str,
    mib: u64,
    fail: &mut dyn FnMut(&Path) -> bool,
    count: &mut Count,
    tally: &mut Tally<'_>,
) {
    // Each state begins on a new disk, and so does the run that shows the calls: a backup that was
    // restored has a mark.
    world.empty();
    let calls = clean_calls(world, Program::Driver);
    world.empty();
    let step = if tally.options.is_short { 61 } else { 1 };
    for (index, point) in calls.iter().enumerate().skip(step / 2).step_by(step) {
        let label = format!("{index}-{}", point.name);
        if !tally.tries(count, &label) {
            continue;
        }
        world.reset();
        // The backup of a restore was made long ago, so it must be on the disk before the disk
        // fails.
        must(Command::new("sync").arg("-f").arg(&world.disk));
        let mut has_failed = false;
        let outcome = act_at(world, point, &mut || has_failed = fail(&world.disk));
        must(Command::new("umount").arg(&world.disk));
        super::mount_again(&world.disk, system, mib);
        // While a file is open for writing, the file system cannot be made read-only: there is no
        // such state.
        if !has_failed {
            continue;
        }
        let wrong = world.judge(&outcome, Allowance { removal_failed: true, ..Allowance::default() });
        tally.tried(count, &label, &outcome.word(), &wrong);
        world.empty();
        must(Command::new("umount").arg(&world.disk));
        super::format_again(&world.disk, system, mib);
        super::mount_again(&world.disk, system, mib);
    }
}

/// The directory is removed, renamed, or replaced by a symbolic link at each call.
fn directory_goes(world: &World, count: &mut Count, tally: &mut Tally<'_>) {
    let calls = clean_calls(world, Program::Driver);
    let (directory, aside, trap) = (world.directory(), world.disk.join("aside"), world.disk.join("trap"));
    let step = if tally.options.is_short { 97 } else { 1 };
    for way in ["removed", "renamed", "symlink"] {
        for (index, point) in calls.iter().enumerate().step_by(step) {
            let label = format!("{index}-{}:{way}", point.name);
            if !tally.tries(count, &label) {
                continue;
            }
            world.reset();
            fs::create_dir(&trap).expect("a directory");
            let (mut was_there, mut had_begun) = (false, false);
            let outcome = act_at(world, point, &mut || {
                let there = names(&directory);
                was_there = directory.exists();
                // The path is checked before base gets its name, and the manifest gets its name
                // before that check.
                had_begun = there.iter().any(|name| name.starts_with("asmt-manifest"));
                match way {
                    "removed" => drop(fs::remove_dir_all(&directory)),
                    _ => drop(fs::rename(&directory, &aside)),
                }
                if way == "symlink" {
                    std::os::unix::fs::symlink(&trap, &directory).expect("a link");
                }
            });
            let mut wrong = Vec::new();
            let caught = names(&trap);
            if was_there && !caught.is_empty() {
                wrong.push(format!("it followed the link, and wrote {caught:?}"));
            }
            if outcome.is_done && was_there && !had_begun {
                wrong.push("it is done, and its directory had gone before its commit".to_owned());
            }
            // It is put back, to see its contents.
            if directory.is_symlink() && was_there {
                fs::remove_file(&directory).expect("to remove the link");
            }
            if aside.exists() {
                fs::rename(&aside, &directory).expect("to put it back");
            }
            if directory.is_symlink() {
                // The link was there before the run, so its target is where the backup goes.
                fs::remove_file(&directory).expect("to remove the link");
                fs::rename(&trap, &directory).expect("to move it there");
            } else {
                fs::remove_dir_all(&trap).expect("to remove it");
            }
            wrong.extend(
                world.judge(&outcome, Allowance { directory_taken: way == "removed" && had_begun, ..Allowance::default() }),
            );
            tally.tried(count, &label, &outcome.word(), &wrong);
        }
    }
}

const SHARED_MEMORY_LIMITS: [&str; 3] = ["shmmni", "shmall", "shmmax"];

fn limit_of(name: &str) -> String {
    fs::read_to_string(format!("/proc/sys/kernel/{name}")).expect("a limit").trim().to_owned()
}

fn set_limit_of(name: &str, value: &str) {
    fs::write(format!("/proc/sys/kernel/{name}"), value).expect("to set a limit");
}

/// Lowers the limits of the IPC namespace: before the run begins, which must then be refused before
/// the first segment; or at each call.
fn few_segments(world: &World, count: &mut Count, tally: &mut Tally<'_>) {
    let calls = clean_calls(world, Program::Driver);
    world.reset();
    let before: Vec<String> = SHARED_MEMORY_LIMITS.iter().map(|name| limit_of(name)).collect();
    let put_back = || SHARED_MEMORY_LIMITS.iter().zip(&before).for_each(|(name, value)| set_limit_of(name, value));
    let most = [16, 512, 1_100_000];
    for ((name, most), step) in SHARED_MEMORY_LIMITS.iter().zip(most).zip([1, 5, 65_536]) {
        for value in (1..most).step_by(step * if tally.options.is_short { 5 } else { 1 }) {
            let label = format!("{name}-{value}");
            if !tally.tries(count, &label) {
                continue;
            }
            world.reset();
            set_limit_of(name, &value.to_string());
            let mut made = 0;
            let outcome = world.run(Program::Driver, Shown::Only(libc::SYS_shmget), &mut |call| {
                made += u32::from(call.name() == "shmget");
                Action::Go
            });
            put_back();
            let mut wrong = world.judge(&outcome, Allowance::default());
            wrong.extend(no_room(&outcome));
            if !outcome.is_done && made > 0 {
                wrong.push(format!("it made {made} segments before it was refused"));
            }
            tally.tried(count, &label, &outcome.word(), &wrong);
        }
    }
    let lowest = ["1", "1", "1"];
    for (index, point) in calls.iter().enumerate().filter(|(_, point)| !tally.options.is_short || point.name == "shmget") {
        for (name, value) in SHARED_MEMORY_LIMITS.iter().zip(lowest) {
            let label = format!("{index}-{}:{name}", point.name);
            if !tally.tries(count, &label) {
                continue;
            }
            world.reset();
            let outcome = act_at(world, point, &mut || set_limit_of(name, value));
            put_back();
            let mut wrong = world.judge(&outcome, Allowance::default());
            wrong.extend(no_room(&outcome));
            tally.tried(count, &label, &outcome.word(), &wrong);
        }
    }
}

/// A control group for memory, of version 1 or 2: its directory, and the file that limits it.
fn memory_group(scratch: &Path) -> Option<(std::path::PathBuf, &'static str)> {
    let name = format!("asmt-{}", scratch.file_name()?.to_str()?);
    let candidates = [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
    candidates.into_iter().find_map(|(root, file)| {
        let path = Path::new(root).join(&name);
        fs::create_dir(&path).ok()?;
        if path.join(file).exists() {
            return Some((path, file));
        }
        let _ = fs::remove_dir(&path);
        None
    })
}

/// Runs in a control group with less memory than the segments need: it must be refused before the
/// first segment.
fn little_memory(scratch: &Path, tally: &mut Tally<'_>) {
    let name = "space:memory-group";
    if !tally.wants(name) || !tally.options.wants_verb(Verb::Restore) {
        return;
    }
    let Some((group, limit)) = memory_group(scratch) else {
        return tally.skip(name, "no control group for memory can be made here");
    };
    with_disk(name, scratch, tally, LARGE, "any", 96, &mut |world, count, tally| {
        for mib in [24, 40] {
            let label = format!("{mib}-MiB");
            if !tally.tries(count, &label) {
                continue;
            }
            world.reset();
            fs::write(group.join(limit), (mib << 20).to_string()).expect("to set the limit");
            let (mut made, mut is_in) = (0, false);
            let outcome = world.run(Program::Driver, Shown::All, &mut |call: &Call| {
                if !is_in {
                    fs::write(group.join("cgroup.procs"), call.pid.to_string()).expect("to move it to the group");
                    is_in = true;
                }
                made += u32::from(call.name() == "shmget");
                Action::Go
            });
            let mut wrong = world.judge(&outcome, Allowance::default());
            if made > 0 {
                wrong.push(format!("it made {made} segments, and then {}", outcome.word()));
            }
            wrong.extend(no_room(&outcome));
            tally.tried(count, &label, &outcome.word(), &wrong);
        }
    });
    let _ = fs::remove_dir(&group);
}
