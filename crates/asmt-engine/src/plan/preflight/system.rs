//! What systemd's units mean for a reboot: who restores before the server starts, whether a backup
//! at the stop has time enough, and whether the next start is a cold one.
//!
//! Pure.

use crate::facts::server::SERVER_UNIT;
use crate::facts::units::{Limit, OWN_UNIT, REBOOT_TARGET, RESTORE_UNIT, Systemd, Unit};
use crate::plan::preflight::page::{Check, Topic};
use crate::plan::preflight::words::span;
use std::collections::BTreeMap;

/// Time, in milliseconds, that the reboot allows and that the server's stop may need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Most time of the server's stop.
    pub stop_ms: Option<u64>,
    /// Time after which a reboot is forced.
    pub reboot_ms: Option<u64>,
}

/// What systemd says; `backup_ms` is how long a backup is expected to take, `is_backup` whether one
/// is to be made.
pub fn checks(instance: u8, systemd: &Systemd, is_backup: bool, backup_ms: Option<u64>) -> (Vec<Check>, Times) {
    if instance != 0 {
        let text = format!("the unit of instance {instance} has no usual name: start, stop and --cold-start were not checked");
        return (vec![Check::note(Topic::Unit, text)], Times::default());
    }
    let units = match systemd {
        Systemd::Absent => {
            let text = "no systemd here: how the server is started, how long its stop may take and --cold-start were not checked";
            return (vec![Check::note(Topic::Unit, text)], Times::default());
        }
        Systemd::Unseen(why) => {
            let text = format!("systemd does not answer ({why}): units, time limits and --cold-start are unknown");
            let check = Check::unknown(Topic::Unit, text, "find out why (systemctl status), then try again");
            return (vec![check], Times::default());
        }
        Systemd::Seen(units) => units,
    };
    let Some(server) = units.get(SERVER_UNIT).filter(|unit| unit.is_loaded) else {
        let text = format!("{SERVER_UNIT} is not installed here: start, stop and --cold-start were not checked");
        return (vec![Check::note(Topic::Unit, text)], Times::default());
    };
    let mut checks = vec![unit(units, server)];
    let times = Times { stop_ms: ms_of(server.stop), reboot_ms: units.get(REBOOT_TARGET).and_then(|unit| ms_of(unit.job)) };
    if is_backup {
        checks.push(reboot(units, server, backup_ms));
    }
    checks.push(cold_start(server));
    (checks, times)
}

fn ms_of(limit: Limit) -> Option<u64> {
    if let Limit::Ms(ms) = limit { Some(ms) } else { None }
}

/// Whether a unit restores at the next boot, before the server starts.
fn unit(units: &BTreeMap<String, Unit>, server: &Unit) -> Check {
    let candidates = [OWN_UNIT, RESTORE_UNIT].map(|name| (name, units.get(name).filter(|unit| unit.is_loaded)));
    let there = |wanted: fn(&Unit) -> bool| {
        candidates.iter().find_map(|(name, unit)| unit.filter(|unit| wanted(unit)).map(|unit| (*name, unit)))
    };
    if let Some((name, unit)) = there(Unit::is_enabled) {
        if server.after.contains(name) || unit.before.contains(SERVER_UNIT) {
            return Check::ready(Topic::Unit, format!("{name} is enabled, and ordered before {SERVER_UNIT}"));
        }
        let text = format!("{name} is enabled, but not ordered before {SERVER_UNIT}: the server may start before the restore");
        return Check::not_ready(
            Topic::Unit,
            text,
            format!("add Before={SERVER_UNIT} to [Unit] of {name} (systemctl edit {name})"),
        );
    }
    let found = match there(|_| true) {
        Some((name, _)) => format!("{name} is installed, but not enabled"),
        None => format!("{OWN_UNIT} is not installed"),
    };
    if server.is_enabled() {
        let text = format!("{found}, and {SERVER_UNIT} is enabled: at the boot, the server starts before anything is restored");
        let enable = there(|_| true).map(|(name, _)| format!("systemctl enable {name}; or, ")).unwrap_or_default();
        let hint = format!("{enable}to restore by hand before the server starts, systemctl disable aerospike (without --now)");
        return Check::not_ready(Topic::Unit, text, hint);
    }
    let text = format!("{found}, and {SERVER_UNIT} does not start by itself: restore by hand, then start the server");
    Check::note(Topic::Unit, text)
}

/// Whether the server's stop and the backup fit into the time after which a reboot is forced.
fn reboot(units: &BTreeMap<String, Unit>, server: &Unit, backup_ms: Option<u64>) -> Check {
    let own = units.get(OWN_UNIT).filter(|unit| unit.is_enabled() || unit.is_active);
    if own.is_none() {
        let text = "the backup is made by hand, before the reboot: no limit of time of the reboot counts";
        return Check::note(Topic::Reboot, text);
    }
    let limit = units.get(REBOOT_TARGET).filter(|unit| unit.is_loaded).map_or(Limit::Infinite, |unit| unit.job);
    let before = "before the reboot, stop the server (systemctl stop aerospike), then back up (systemctl stop asmt)";
    let hint = format!("{before}; or raise JobTimeoutSec= of {REBOOT_TARGET} in a drop-in");
    match (limit, server.stop, backup_ms) {
        (Limit::Infinite, ..) => Check::ready(Topic::Reboot, format!("{REBOOT_TARGET} has no limit of time")),
        (Limit::Unknown, ..) => {
            Check::unknown(Topic::Reboot, format!("the limit of time of {REBOOT_TARGET} is unknown"), before.to_owned())
        }
        (Limit::Ms(_), Limit::Infinite | Limit::Unknown, _) => {
            let text =
                format!("the stop of {SERVER_UNIT} has no known limit of time: whether a backup after it has time is unknown");
            Check::unknown(Topic::Reboot, text, hint)
        }
        (Limit::Ms(limit), Limit::Ms(stop), None) => {
            let text = format!(
                "how long the backup takes is unknown; the reboot is forced after {}, of which the server's stop may take {}",
                span(limit),
                span(stop)
            );
            Check::unknown(Topic::Reboot, text, hint)
        }
        (Limit::Ms(limit), Limit::Ms(stop), Some(backup)) => {
            let sum = format!("stop (at most {}) and backup (about {})", span(stop), span(backup));
            if stop.saturating_add(backup) <= limit {
                return Check::ready(Topic::Reboot, format!("{sum} fit into the {} of {REBOOT_TARGET}", span(limit)));
            }
            let text = format!("{sum} may take more than the {} after which {REBOOT_TARGET} forces the reboot", span(limit));
            Check::not_ready(Topic::Reboot, text, hint)
        }
    }
}

fn cold_start(server: &Unit) -> Check {
    if server.cold_start.is_empty() {
        return Check::ready(Topic::ColdStart, format!("{SERVER_UNIT} is not configured with --cold-start"));
    }
    let text = format!(
        "{SERVER_UNIT} is configured with --cold-start ({}): the server would discard what is restored",
        server.cold_start.join(", ")
    );
    let hint =
        "remove it: asd-coldstart sets it by a drop-in (systemctl cat aerospike shows where), then systemctl daemon-reload";
    Check::not_ready(Topic::ColdStart, text, hint)
}
