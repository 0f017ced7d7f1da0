//! The name of a run of asmt: boot, PID namespace, process and its start, so that a later run can
//! tell a dead one's leftovers from a live one's work.

use std::fmt;

/// Identity of a run.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RunId {
    /// The kernel's boot id, 32 hex digits.
    pub boot: String,
    /// The PID namespace's inode: another container's process ids say nothing here.
    pub pid_namespace: u64,
    /// Process id in that namespace.
    pub pid: u32,
    /// Start of the process in clock ticks since the machine's boot, whatever time namespace it is
    /// in.
    pub start_ticks: u64,
}

impl RunId {
    /// Reads what [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (boot, pid_namespace, pid, start) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_boot = boot.len() == 32 && boot.bytes().all(|byte| byte.is_ascii_hexdigit());
        (is_boot && parts.next().is_none()).then_some(())?;
        let (pid_namespace, pid, start_ticks) = (pid_namespace.parse().ok()?, pid.parse().ok()?, start.parse().ok()?);
        Some(Self { boot: boot.to_owned(), pid_namespace, pid, start_ticks })
    }

    /// Whether it is of the same boot as this process's run, `own`.
    pub fn is_of_boot_of(&self, own: &Self) -> bool {
        self.boot == own.boot
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}-{}", self.boot, self.pid_namespace, self.pid, self.start_ticks)
    }
}
