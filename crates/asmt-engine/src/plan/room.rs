//! Checks that a restore fits into memory: limits of the IPC namespace, of the machine and of the
//! cgroup.

use crate::error::{Code, Problem};
use crate::facts::memory::Inventory;
use crate::plan::{NamespaceRestore, Plan, Source};
use asmt_shm::Key;
use std::collections::BTreeMap;

/// The kernel's own values: SHMMNI for kernel.shmmni; SHMMAX and SHMALL for kernel.shmmax and
/// kernel.shmall (linux/shm.h). restore.spec.ts reads them from the kernel.
const USUAL_SEGMENTS: u64 = 4096;
const USUAL_MOST: u64 = u64::MAX - (1 << 24);

/// Refuses a restore that certainly does not fit: limits of the IPC namespace, and memory.
pub fn check_room(inventory: &Inventory, namespaces: &[NamespaceRestore], page_bytes: u64, refusals: &mut Vec<Problem>) {
    let sources = || namespaces.iter().flat_map(|namespace| &namespace.sources);
    let mut limit = |name: &str, found: u64, needed: u64, usual: u64| {
        if needed > found {
            refusals.push(Problem::new(
                Code::SystemLimit,
                format!("kernel.{name} is {found}, expected at least {needed}"),
                format!(
                    "raise it, with room for what the server makes itself: sysctl -w kernel.{name}={}; and set it in \
                     /etc/sysctl.d, or the next boot undoes it",
                    if needed < usual { usual } else { needed.saturating_mul(2) }
                ),
            ));
        }
    };
    if let Some(limits) = inventory.limits {
        let count = sources().count() as u64;
        let largest = sources().map(|source| source.size_bytes).max().unwrap_or(0);
        let pages = sources().map(|source| source.size_bytes.div_ceil(page_bytes)).fold(0, u64::saturating_add);
        limit("shmmax", limits.max_segment_bytes, largest, USUAL_MOST);
        limit("shmmni", limits.max_segment_count, limits.segment_count + count, USUAL_SEGMENTS);
        limit("shmall", limits.max_total_pages, limits.total_pages.saturating_add(pages), USUAL_MOST);
    }
    check_memory(inventory, namespaces, refusals);
    let mut no_memory = |message: String, hint: &str| refusals.push(Problem::new(Code::NotEnoughMemory, message, hint));
    let memory = &inventory.memory;
    let promised = sources().map(|source| source.size_bytes.next_multiple_of(page_bytes)).fold(0, u64::saturating_add);
    if let Some(left) = memory.promisable_bytes.filter(|left| *left < promised) {
        no_memory(
            format!(
                "vm.overcommit_memory is 2, and {left} bytes can still be committed; expected {promised}, the full size of all \
                 segments"
            ),
            "raise vm.overcommit_ratio or vm.overcommit_kbytes, or set vm.overcommit_memory to 0",
        );
    }
    let largest = sources().max_by_key(|source| source.size_bytes);
    if let Some((source, most)) = largest.zip(memory.largest_bytes).filter(|(source, most)| source.size_bytes > *most) {
        no_memory(
            format!(
                "segment {} has {} bytes, more than the {most} of memory and swap, and vm.overcommit_memory is 0",
                source.key, source.size_bytes
            ),
            "set vm.overcommit_memory to 1 during the restore: sysctl -w vm.overcommit_memory=1",
        );
    }
}

/// Refuses if there is not enough memory for the least that the files fill.
pub fn check_memory(inventory: &Inventory, namespaces: &[NamespaceRestore], refusals: &mut Vec<Problem>) {
    let memory = &inventory.memory;
    let needed = memory_needed(namespaces, |source| source.least_memory_bytes);
    let mut no_memory = |message: String, hint: &str| refusals.push(Problem::new(Code::NotEnoughMemory, message, hint));
    if let Some(available) = memory.available_bytes.filter(|available| *available < needed) {
        no_memory(
            format!("{available} bytes of memory are available, expected at least {needed}"),
            "free memory, or name fewer namespaces with -n: the server cold-starts the others",
        );
    }
    if let Some(limit) = memory.cgroup.as_ref().filter(|limit| limit.available_bytes < needed) {
        no_memory(
            format!(
                "{} is {}, of which {} are left; expected at least {needed}: segments count against the limit of the process \
                 that fills them",
                limit.file.display(),
                limit.limit_bytes,
                limit.available_bytes
            ),
            "raise that limit (for a unit: MemoryMax=, MemoryHigh=; for a container: --memory), or run asmt outside it",
        );
    }
}

pub fn memory_needed(namespaces: &[NamespaceRestore], of_source: impl Fn(&Source) -> u64) -> u64 {
    namespaces.iter().flat_map(|namespace| &namespace.sources).map(of_source).fold(0, u64::saturating_add)
}

/// Memory that is available here, as far as it is known.
pub fn memory_left(inventory: &Inventory) -> Option<u64> {
    let memory = &inventory.memory;
    memory.available_bytes.into_iter().chain(memory.cgroup.as_ref().map(|limit| limit.available_bytes)).min()
}

/// Number of threads of a restore, at most as many as requested: fewer if memory is so short that
/// it could be exceeded by their buffers and the contents of the files.
pub fn threads_within(inventory: &Inventory, namespaces: &[NamespaceRestore], threads: usize) -> usize {
    let Some(left) = memory_left(inventory) else { return threads };
    let sources = namespaces.iter().flat_map(|namespace| &namespace.sources);
    // A chunk of the file, and the decoded chunk.
    let buffers = sources.map(|source| 2 * source.size_bytes.min(u64::from(source.chunk_bytes()))).max().unwrap_or(0);
    let left = left.saturating_sub(memory_needed(namespaces, |source| source.least_memory_bytes));
    let most = left.checked_div(buffers).and_then(|most| usize::try_from(most).ok()).unwrap_or(threads);
    threads.min(most.max(1))
}

/// Files that must be read to know whether there is memory for their contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UndecidedRoom {
    /// The files.
    pub sources: Vec<Source>,
    /// The most that they may fill together.
    pub most_bytes: u64,
}

/// Returns the files that must be read because a restore, which is otherwise accepted, fits into
/// memory only if they have little data. Another tool's plain file may have zeros where the segment
/// had holes, and the size of a stream's data is unknown.
pub fn undecided_room(inventory: &Inventory, plan: &Plan<NamespaceRestore>) -> Option<UndecidedRoom> {
    let left = memory_left(inventory)?;
    if !plan.refusals.is_empty() || memory_needed(&plan.namespaces, |source| source.most_memory_bytes) <= left {
        return None;
    }
    let (open, known): (Vec<&Source>, Vec<&Source>) = plan
        .namespaces
        .iter()
        .flat_map(|namespace| &namespace.sources)
        .partition(|source| source.least_memory_bytes < source.most_memory_bytes);
    let known = known.into_iter().map(|source| source.least_memory_bytes).fold(0, u64::saturating_add);
    Some(UndecidedRoom { sources: open.into_iter().cloned().collect(), most_bytes: left.saturating_sub(known) })
}

/// Decides, once it is known how much memory the files fill.
pub fn decide_room(inventory: &Inventory, plan: &mut Plan<NamespaceRestore>, counted: &BTreeMap<Key, u64>) {
    for source in plan.namespaces.iter_mut().flat_map(|namespace| &mut namespace.sources) {
        if let Some(bytes) = counted.get(&source.key) {
            source.least_memory_bytes = *bytes;
            source.most_memory_bytes = *bytes;
        }
    }
    check_memory(inventory, &plan.namespaces, &mut plan.refusals);
}
