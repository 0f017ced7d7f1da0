//! Which run of asmt this is: boot, process and its start, so that a later run can tell a dead one's leftovers from a
//! live one's work.
//!
//! Promise: two runs never have the same id, not even after a reboot or when a process id is used again.
//! Must never: call a run dead that it cannot judge wrongly at a cost (the directory's lock guards too).

use std::fmt;
use std::fs;

/// Identity of a run.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RunId {
    /// The kernel's boot id, 32 hex digits.
    boot: String,
    /// Process id.
    pub pid: u32,
    /// Start of the process in clock ticks since boot.
    start_ticks: u64,
}

impl RunId {
    /// This process's.
    pub fn own() -> Self {
        let pid = std::process::id();
        Self { boot: compact(&boot_id()), pid, start_ticks: start_ticks("self").unwrap_or(0) }
    }

    /// Reads what [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (boot, pid, start) = (parts.next()?, parts.next()?, parts.next()?);
        let is_boot = boot.len() == 32 && boot.bytes().all(|byte| byte.is_ascii_hexdigit());
        (is_boot && parts.next().is_none()).then_some(())?;
        Some(Self { boot: boot.to_owned(), pid: pid.parse().ok()?, start_ticks: start.parse().ok()? })
    }

    /// Whether it is of the boot this machine is in now.
    pub fn is_of_this_boot(&self) -> bool {
        self.boot == Self::own().boot
    }

    /// Whether it is another run than this one and its process still lives.
    pub fn is_other_and_alive(&self) -> bool {
        let own = Self::own();
        *self != own && self.boot == own.boot && start_ticks(&self.pid.to_string()) == Some(self.start_ticks)
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.boot, self.pid, self.start_ticks)
    }
}

/// The kernel's boot id, as it writes it; another one after each boot.
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

fn compact(boot_id: &str) -> String {
    let digits: String = boot_id.chars().filter(char::is_ascii_hexdigit).collect();
    // A /proc without it: still a well-formed id, that no boot has.
    if digits.len() == 32 { digits } else { "0".repeat(32) }
}

/// Field 22 of `/proc/PID/stat`. The command before it is in parentheses and may hold anything.
fn start_ticks(pid: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_back_and_its_own_run_is_no_other() {
        let own = RunId::own();
        assert_eq!(RunId::parse(&own.to_string()), Some(own.clone()));
        assert!(own.start_ticks > 0);
        assert!(!own.is_other_and_alive());
        for text in ["", "x-1-2", "00112233445566778899aabbccddeeff-1", "00112233445566778899aabbccddeeff-1-2-3"] {
            assert_eq!(RunId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_process_id_used_again_or_of_another_boot_is_dead() {
        let parent = rustix::process::getppid().expect("a parent").as_raw_nonzero().get().cast_unsigned();
        let alive = RunId { pid: parent, start_ticks: start_ticks(&parent.to_string()).expect("its start"), ..RunId::own() };
        assert!(alive.is_other_and_alive());
        assert!(!RunId { start_ticks: alive.start_ticks + 1, ..alive.clone() }.is_other_and_alive());
        assert!(!RunId { boot: "0".repeat(32), ..alive }.is_other_and_alive());
    }
}
