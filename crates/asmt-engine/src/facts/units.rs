//! What systemd says of the units that matter to a reboot, as plain values. `look/units.rs` makes
//! them.

use std::collections::{BTreeMap, BTreeSet};

/// The unit of asmt's packages: it restores when it is started, and backs up when it is stopped.
pub const OWN_UNIT: &str = "asmt.service";
/// The unit of docs/OPERATIONS.md that restores only.
pub const RESTORE_UNIT: &str = "asmt-restore.service";
/// The unit that a reboot starts.
pub const REBOOT_TARGET: &str = "reboot.target";

/// What is known of systemd here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Systemd {
    /// There is none, as in most containers.
    Absent,
    /// It cannot be asked. The reason.
    Unseen(String),
    /// Its units, by their names.
    Seen(BTreeMap<String, Unit>),
}

/// A limit of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// So many milliseconds.
    Ms(u64),
    /// There is none.
    Infinite,
    /// It was not understood.
    Unknown,
}

/// A unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// It is installed, and systemd could read it.
    pub is_loaded: bool,
    /// `enabled`, `disabled`, `static` or the like; empty where systemd says nothing.
    pub file_state: String,
    /// It is active.
    pub is_active: bool,
    /// Units before which it is started, and after which it is stopped.
    pub before: BTreeSet<String>,
    /// Units after which it is started.
    pub after: BTreeSet<String>,
    /// Time that its stop may take.
    pub stop: Limit,
    /// Time that its job may take: a reboot is forced after it.
    pub job: Limit,
    /// The places of `--cold-start` in its command, its environment or its environment files.
    pub cold_start: Vec<String>,
}

impl Unit {
    /// It is started at each boot.
    pub fn is_enabled(&self) -> bool {
        self.is_loaded && matches!(self.file_state.as_str(), "enabled" | "enabled-runtime")
    }
}

/// Reads a time span as `systemctl show` writes it: `1min 30s`, `infinity`.
pub fn limit_of(text: &str) -> Limit {
    if text == "infinity" {
        return Limit::Infinite;
    }
    let part = |word: &str| {
        let digits = word.find(|char: char| !char.is_ascii_digit() && char != '.').unwrap_or(word.len());
        let (number, unit) = word.split_at(digits);
        // In microseconds; only the smallest parts have a fraction.
        let factor: u64 = match unit {
            "us" => 1,
            "ms" => 1000,
            "s" => 1_000_000,
            "min" => 60_000_000,
            "h" => 3_600_000_000,
            "d" => 86_400_000_000,
            "w" => 604_800_000_000,
            "month" => 2_629_800_000_000,
            "y" => 31_557_600_000_000,
            _ => return None,
        };
        let (whole, rest) = number.split_once('.').unwrap_or((number, ""));
        let scale = 10_u64.checked_pow(u32::try_from(rest.len()).ok()?)?;
        let rest = if rest.is_empty() { 0 } else { rest.parse::<u64>().ok()?.checked_mul(factor)? / scale };
        whole.parse::<u64>().ok()?.checked_mul(factor)?.checked_add(rest)
    };
    if text == "0" {
        return Limit::Ms(0);
    }
    let sum = text.split_whitespace().map(part).try_fold(0_u64, |sum, part| sum.checked_add(part?));
    match sum {
        Some(us) if !text.trim().is_empty() => Limit::Ms(us / 1000),
        _ => Limit::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_spans_are_read_as_systemctl_writes_them() {
        for (text, expected) in [
            ("30min", Limit::Ms(1_800_000)),
            ("1min 30s", Limit::Ms(90_000)),
            ("10min", Limit::Ms(600_000)),
            ("1h 2min 3.5s", Limit::Ms(3_723_500)),
            ("500ms", Limit::Ms(500)),
            ("0", Limit::Ms(0)),
            ("infinity", Limit::Infinite),
            ("", Limit::Unknown),
            ("soon", Limit::Unknown),
            ("5", Limit::Unknown),
            ("99999999999999999999y", Limit::Unknown),
        ] {
            assert_eq!(limit_of(text), expected, "{text}");
        }
    }
}
