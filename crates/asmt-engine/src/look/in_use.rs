//! Whether a server still uses its segments, asked again and again.
//!
//! Promise: a look costs a list of segments and a few files of `/proc`. Must never: attach a
//! segment, or take a process that cannot be seen for one that has ended.

use crate::error::{Error, Result};
use crate::facts::memory::Inventory;
use crate::plan::SERVER_COMMAND;
use crate::sys::procfs::{self, Process};
use asmt_shm::sysv;
use std::collections::{BTreeMap, BTreeSet};

/// The segments of an instance by their ids, each with the number of its attachments.
type Attachments = BTreeMap<i32, u64>;

/// The use of an instance's segments at one moment.
#[derive(Debug, PartialEq, Eq)]
pub struct InUse(Attachments);

impl InUse {
    /// Looks.
    ///
    /// Errors: failed calls.
    pub fn now(instance: u8) -> Result<Self> {
        let stats = sysv::all_segments().map_err(|error| Error::io("shmctl", "(listing segments)", error))?;
        let of_instance = stats.into_iter().filter(|stat| stat.key.address().is_some_and(|address| address.instance == instance));
        Ok(Self(of_instance.map(|stat| (stat.shmid, stat.attached_count)).collect()))
    }

    /// Whether somebody has one of them attached.
    pub fn is_attached(&self) -> bool {
        self.0.values().any(|count| *count > 0)
    }
}

/// The servers that were seen with segments of an instance attached.
#[derive(Debug, Default)]
pub struct Servers(BTreeSet<(u32, u64)>);

impl Servers {
    /// Adds those of an inventory.
    ///
    /// Errors: failed calls.
    pub fn add(&mut self, inventory: &Inventory, instance: u8) -> Result<()> {
        let of_instance = inventory.segments.values().filter(|segment| segment.address.instance == instance);
        let attachers = of_instance.filter_map(|segment| inventory.attachers.get(&segment.stat.shmid)).flatten();
        let pids: BTreeSet<u32> = attachers.filter(|found| found.command == SERVER_COMMAND).map(|found| found.pid).collect();
        for pid in pids {
            if let Process::Seen(stat) = procfs::process(pid)? {
                self.0.insert((pid, procfs::host_ticks(&stat)?));
            }
        }
        Ok(())
    }

    /// One of them that has not ended: a server lets its segments go before it has written
    /// everything.
    ///
    /// Errors: failed calls.
    pub fn running(&self) -> Result<Option<u32>> {
        for &(pid, since) in &self.0 {
            match procfs::process(pid)? {
                Process::Seen(stat) if procfs::host_ticks(&stat)? == since => return Ok(Some(pid)),
                Process::Hidden => return Ok(Some(pid)),
                Process::Seen(_) | Process::Gone => {}
            }
        }
        Ok(None)
    }
}
