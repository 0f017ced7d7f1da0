//! The memory that is available for segments: the kernel's, that of this process's cgroup, and the
//! part that can still be committed.
//!
//! Promise: each number is an upper bound, so that anything larger certainly does not fit; a number
//! that is missing, or not shown to this user, is no bound. Swap does not count, because an index
//! that is swapped out helps no server. Must never: decide (see [`crate::plan`]).

use crate::error::Result;
use crate::facts::memory::{CgroupLimit, Memory};
use crate::sys::procfs;
use std::path::{Component, Path, PathBuf};

/// A limit of cgroup v1 from 2^62 on means that there is none.
const NO_LIMIT_BYTES: u64 = 1 << 62;

/// Reads the memory of this machine and of this process's cgroup.
///
/// Errors: failed calls.
pub fn take() -> Result<Memory> {
    let (info, mode) = (procfs::text("/proc/meminfo")?, procfs::text("/proc/sys/vm/overcommit_memory")?);
    // The kernel may have been built without control groups.
    let own = procfs::text_if_there("/proc/self/cgroup")?.unwrap_or_default();
    let mut limits = Vec::new();
    for hierarchy in hierarchies(&own, &procfs::text("/proc/self/mountinfo")?) {
        limits.extend(hierarchy.limits()?);
    }
    let cgroup = limits.into_iter().min_by_key(|limit| limit.available_bytes);
    Ok(Memory { cgroup, ..of_kernel(&info, &mode) })
}

fn of_kernel(info: &str, overcommit_mode: &str) -> Memory {
    let field = |name: &str| field_bytes(info, name);
    let (mut largest_bytes, mut promisable_bytes) = (None, None);
    match overcommit_mode.trim() {
        "0" => largest_bytes = field("MemTotal").zip(field("SwapTotal")).map(|(memory, swap)| memory.saturating_add(swap)),
        "2" => promisable_bytes = field("CommitLimit").zip(field("Committed_AS")).map(|(most, now)| most.saturating_sub(now)),
        _ => {}
    }
    Memory { available_bytes: field("MemAvailable"), largest_bytes, promisable_bytes, cgroup: None }
}

/// Reads a line of `/proc/meminfo`: `MemAvailable:   123 kB`.
fn field_bytes(info: &str, name: &str) -> Option<u64> {
    let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// A mounted hierarchy of cgroups that counts memory, and the place of this process in it.
#[derive(Debug, PartialEq, Eq)]
struct Hierarchy {
    is_v2: bool,
    mount: PathBuf,
    own: PathBuf,
}

/// Reads `/proc/self/cgroup` (`4:memory:/path`, or `0::/path` for v2) and `/proc/self/mountinfo`.
fn hierarchies(own: &str, mounts: &str) -> Vec<Hierarchy> {
    let mut found = Vec::new();
    for line in own.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(number), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let is_v2 = number == "0" && controllers.is_empty();
        if is_v2 || controllers.split(',').any(|controller| controller == "memory") {
            found.extend(mounts.lines().find_map(|mount| place(mount, is_v2, Path::new(path))));
        }
    }
    found
}

/// Returns the place of the cgroup `path` below a mount, if the mount is of its hierarchy: `36 25
/// 0:31 <root> <mount point> rw - cgroup <source> rw,memory`.
fn place(mount_line: &str, is_v2: bool, path: &Path) -> Option<Hierarchy> {
    let (before, after) = mount_line.split_once(" - ")?;
    let mut before = before.split(' ').skip(3);
    let (root, mount) = (before.next()?, PathBuf::from(before.next()?));
    let mut after = after.split(' ');
    let (kind, options) = (after.next()?, after.nth(1)?);
    let is_its = if is_v2 { kind == "cgroup2" } else { kind == "cgroup" && options.split(',').any(|option| option == "memory") };
    is_its.then_some(())?;
    // A cgroup above the part that is mounted here (in a container) counts as the topmost one of
    // that part.
    let below = path.strip_prefix(root).ok().filter(|below| !below.components().any(|part| part == Component::ParentDir));
    let own = below.map_or_else(|| mount.clone(), |below| mount.join(below));
    Some(Hierarchy { is_v2, mount, own })
}

impl Hierarchy {
    /// Limits of this process's cgroup and of all above it, as far as they are visible.
    fn limits(&self) -> Result<Vec<CgroupLimit>> {
        let names: &[&str] = if self.is_v2 { &["memory.max", "memory.high"] } else { &["memory.limit_in_bytes"] };
        let mut found = Vec::new();
        for level in self.own.ancestors().take_while(|level| level.starts_with(&self.mount)) {
            for name in names {
                found.extend(self.limit(level, name)?);
            }
        }
        Ok(found)
    }

    /// A limit; `None` if there is none: the topmost cgroup has no file for it.
    fn limit(&self, level: &Path, name: &str) -> Result<Option<CgroupLimit>> {
        let text = |name: &str| procfs::text_if_visible(level.join(name));
        let number = |name: &str| text(name).map(|text| text.and_then(|text| text.trim().parse::<u64>().ok()));
        // The text "max" is no number, and means that there is no limit.
        let Some(limit_bytes) = number(name)?.filter(|limit| *limit < NO_LIMIT_BYTES) else { return Ok(None) };
        let (usage, reclaimable): (_, &[&str]) = if self.is_v2 {
            ("memory.current", &["inactive_file", "active_file", "slab_reclaimable"])
        } else {
            ("memory.usage_in_bytes", &["total_inactive_file", "total_active_file"])
        };
        let Some(used) = number(usage)? else { return Ok(None) };
        let used = used.saturating_sub(sum_of(&text("memory.stat")?.unwrap_or_default(), reclaimable));
        Ok(Some(CgroupLimit { file: level.join(name), limit_bytes, available_bytes: limit_bytes.saturating_sub(used) }))
    }
}

/// Adds up some lines of a `memory.stat`: `inactive_file 4096`.
fn sum_of(stat: &str, names: &[&str]) -> u64 {
    let values = stat.lines().filter_map(|line| line.split_once(' ')).filter(|(name, _)| names.contains(name));
    values.filter_map(|(_, value)| value.parse().ok()).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_kernels_numbers_by_its_way_of_promising() {
        let info = "MemTotal: 8 kB\nMemAvailable:    5 kB\nSwapTotal: 2 kB\nCommitLimit: 9 kB\nCommitted_AS: 7 kB\n";
        let found = |mode: &str| {
            let memory = of_kernel(info, mode);
            assert_eq!(memory.available_bytes, Some(5120));
            (memory.largest_bytes, memory.promisable_bytes)
        };
        assert_eq!(found("0\n"), (Some(10_240), None));
        assert_eq!(found("1\n"), (None, None));
        assert_eq!(found("2\n"), (None, Some(2048)));
        assert_eq!(of_kernel(&info.replace("AS: 7", "AS: 70"), "2").promisable_bytes, Some(0));
        assert_eq!(of_kernel("", "2"), Memory::default());
    }

    #[test]
    fn a_cgroup_is_found_under_its_mount() {
        let of = |own: &str, mounts: &str| {
            hierarchies(own, mounts).into_iter().map(|found| (found.is_v2, found.own)).collect::<Vec<_>>()
        };
        let v1 = "31 25 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                  32 25 0:28 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n";
        let v2 = "33 25 0:29 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(of("9:cpu:/x\n4:memory:/a/b\n", v1), [(false, PathBuf::from("/sys/fs/cgroup/memory/a/b"))]);
        assert_eq!(of("0::/a b\n", v2), [(true, PathBuf::from("/sys/fs/cgroup/a b"))]);
        assert_eq!(of("4:memory:/a\n0::/u\n", &(v1.to_owned() + v2)).len(), 2, "both kinds together");
        // A container that sees a part of the hierarchy, with a cgroup namespace and without one.
        let part = "34 25 0:28 /docker/c /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        assert_eq!(of("4:memory:/docker/c/d\n", part), [(false, PathBuf::from("/sys/fs/cgroup/memory/d"))]);
        assert_eq!(of("4:memory:/elsewhere\n", part), [(false, PathBuf::from("/sys/fs/cgroup/memory"))]);
        assert_eq!(of("0::/../x\n", v2), [(true, PathBuf::from("/sys/fs/cgroup"))]);
        assert_eq!(of("4:memory:/a\n", v2), []);
        assert_eq!(of("", v2), []);
    }

    #[test]
    fn limits_are_read_up_to_the_topmost_that_is_visible() {
        let scratch = asmt_kit::files::Scratch::new("memory");
        let mount = scratch.path().to_owned();
        let own = mount.join("a/b");
        fs::create_dir_all(&own).expect("directories");
        let write = |name: &str, text: &str| fs::write(mount.join(name), text).expect("a file");
        write("a/b/memory.max", "max\n");
        write("a/b/memory.high", "9000\n");
        write("a/b/memory.current", "4000\n");
        write("a/b/memory.stat", "anon 3000\ninactive_file 500\nactive_file 400\nslab_reclaimable 100\n");
        write("a/memory.max", "5000\n");
        write("a/memory.current", "6000\n");
        let hierarchy = Hierarchy { is_v2: true, mount: mount.clone(), own };
        let found = |limit: &CgroupLimit| (limit.file.clone(), limit.limit_bytes, limit.available_bytes);
        let expected = [(mount.join("a/b/memory.high"), 9000, 6000), (mount.join("a/memory.max"), 5000, 0)];
        assert_eq!(hierarchy.limits().expect("limits").iter().map(found).collect::<Vec<_>>(), expected);
        write("memory.limit_in_bytes", "9223372036854771712\n");
        write("memory.usage_in_bytes", "1\n");
        let hierarchy = |own: &Path| Hierarchy { is_v2: false, mount: mount.clone(), own: own.to_owned() };
        assert_eq!(hierarchy(&mount).limits().expect("limits"), [], "what v1 writes for none");
        write("memory.limit_in_bytes", "70\n");
        write("memory.usage_in_bytes", "50\n");
        write("memory.stat", "inactive_file 1\ntotal_inactive_file 20\ntotal_active_file 5\n");
        assert_eq!(
            hierarchy(&mount).limits().expect("limits").iter().map(|limit| limit.available_bytes).collect::<Vec<_>>(),
            [45]
        );
    }

    #[test]
    fn this_machine_has_memory() {
        assert!(take().expect("a look").available_bytes.is_some_and(|bytes| bytes > 1 << 20));
    }
}
