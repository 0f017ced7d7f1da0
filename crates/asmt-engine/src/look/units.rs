//! Asks systemd for the units that matter to a reboot, and looks for the server's program.
//!
//! Promise: what cannot be read is unseen, and not taken for absent. Must never: start, stop or
//! change a unit.

use crate::facts::server::SERVER_UNIT;
use crate::facts::units::{OWN_UNIT, REBOOT_TARGET, RESTORE_UNIT, Systemd, Unit, limit_of};
use crate::format::ServerBinary;
use crate::layout::server_config::environment_file;
use crate::look::service::answer;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// An option of the server with which it throws away what is in shared memory.
const COLD_START: &str = "--cold-start";
/// The server's program, where no unit names another one.
const USUAL_BINARY: &str = "/usr/bin/asd";
/// The places of units, the first of which counts.
const UNIT_PLACES: [&str; 4] = ["/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];
/// dpkg's records of packages.
const DPKG_STATUS: &str = "/var/lib/dpkg/status";
const PACKAGE_PREFIX: &str = "aerospike-server";
/// Most bytes of a file that are read here.
const MAX_FILE_BYTES: u64 = 32 << 20;

/// Asks systemd.
pub fn systemd() -> Systemd {
    if !Path::new("/run/systemd/system").is_dir() {
        return Systemd::Absent;
    }
    let properties = "Id,LoadState,UnitFileState,ActiveState,Before,After,TimeoutStopUSec,JobTimeoutUSec,ExecStart,Environment,\
                      EnvironmentFiles";
    let names = [SERVER_UNIT, OWN_UNIT, RESTORE_UNIT, REBOOT_TARGET];
    let words = [&["show", "--property", properties][..], &names[..]].concat();
    match answer("systemctl", &words) {
        Ok(text) => Systemd::Seen(units_of(&text, |path| text_of(path))),
        Err(why) => Systemd::Unseen(why),
    }
}

/// The units of the answer, one after the other with an empty line between.
fn units_of(text: &str, read: impl Fn(&str) -> Option<String>) -> BTreeMap<String, Unit> {
    let unit = |block: &str| {
        let values = |name: &str| -> Vec<String> {
            let lines = block.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            lines.map(str::to_owned).collect()
        };
        let value = |name: &str| values(name).pop().unwrap_or_default();
        let set = |name: &str| -> BTreeSet<String> { value(name).split_whitespace().map(str::to_owned).collect() };
        let mut cold_start = Vec::new();
        for name in ["ExecStart", "Environment"] {
            cold_start.extend(values(name).iter().any(|line| has_cold_start(line)).then(|| format!("{name}=")));
        }
        for line in values("EnvironmentFiles") {
            let path = line.split(" (ignore_errors=").next().unwrap_or_default().to_owned();
            let assigned = read(&path).map(|text| environment_file(&text)).unwrap_or_default();
            cold_start.extend(assigned.values().any(|value| has_cold_start(value)).then_some(path));
        }
        let unit = Unit {
            is_loaded: value("LoadState") == "loaded",
            file_state: value("UnitFileState"),
            is_active: value("ActiveState") == "active",
            before: set("Before"),
            after: set("After"),
            stop: limit_of(&value("TimeoutStopUSec")),
            job: limit_of(&value("JobTimeoutUSec")),
            cold_start,
        };
        (value("Id"), unit)
    };
    text.split("\n\n").filter(|block| !block.trim().is_empty()).map(unit).collect()
}

fn has_cold_start(text: &str) -> bool {
    text.split(|char: char| char.is_whitespace() || matches!(char, '"' | '\'' | '=' | ';')).any(|word| word == COLD_START)
}

fn text_of(path: impl AsRef<Path>) -> Option<String> {
    let path = path.as_ref();
    let is_small = fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() <= MAX_FILE_BYTES);
    is_small.then(|| fs::read(path).ok()).flatten().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// The server's program, as it is now: that of its unit, or else of its packages. `None` if it is
/// not there, or may not be looked at.
pub fn server_binary() -> Option<ServerBinary> {
    let unit = UNIT_PLACES.iter().find_map(|place| text_of(Path::new(place).join(SERVER_UNIT)));
    let path = unit.as_deref().and_then(program_of).unwrap_or_else(|| USUAL_BINARY.to_owned());
    let metadata = fs::metadata(&path).ok().filter(fs::Metadata::is_file)?;
    let seconds = u64::try_from(metadata.mtime()).unwrap_or(0);
    let modified_ns = seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(metadata.mtime_nsec()).unwrap_or(0));
    // The package's program, and no other one, is of the package's version.
    let package = (path == USUAL_BINARY).then(|| text_of(DPKG_STATUS)).flatten().and_then(|text| package_of(&text));
    Some(ServerBinary { path, size: metadata.len(), modified_ns, package })
}

/// The program of a unit's `ExecStart=`.
fn program_of(unit: &str) -> Option<String> {
    let lines = unit.lines().filter_map(|line| line.trim().strip_prefix("ExecStart")?.trim_start().strip_prefix('='));
    let mut words = lines.filter_map(|line| line.split_whitespace().next());
    let path = words.next_back()?.trim_start_matches(['-', '@', ':', '+', '!']);
    path.starts_with('/').then(|| path.to_owned())
}

/// Name and version of the server's package that is installed.
fn package_of(status: &str) -> Option<String> {
    status.split("\n\n").find_map(|block| {
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let name = field("Package").filter(|name| name.starts_with(PACKAGE_PREFIX))?;
        let is_installed = field("Status").is_some_and(|status| status.ends_with(" installed"));
        is_installed.then(|| Some(format!("{name} {}", field("Version")?))).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::units::Limit;

    #[test]
    fn units_are_read_from_one_answer() {
        let text = "Id=aerospike.service\nLoadState=loaded\nUnitFileState=enabled\nActiveState=active\nBefore=shutdown.target\n\
                    After=asmt.service sysinit.target\nTimeoutStopUSec=10min\nJobTimeoutUSec=infinity\n\
                    ExecStart={ path=/usr/bin/asd ; argv[]=/usr/bin/asd --config-file /etc/a.conf --fgdaemon ; ignore_errors=no }\n\
                    Environment=A=b\nEnvironmentFiles=/etc/sysconfig/aerospike (ignore_errors=yes)\n\n\
                    Id=asmt.service\nLoadState=not-found\nActiveState=inactive\nTimeoutStopUSec=1min 30s\n";
        let cold = |path: &str| (path == "/etc/sysconfig/aerospike").then(|| "ASD_OPTIONS=\"--cold-start -x\"\n".to_owned());
        let units = units_of(text, cold);
        let server = &units[SERVER_UNIT];
        assert!(server.is_enabled() && server.is_active && server.after.contains(OWN_UNIT));
        assert_eq!((server.stop, server.job), (Limit::Ms(600_000), Limit::Infinite));
        assert_eq!(server.cold_start, ["/etc/sysconfig/aerospike"]);
        assert!(!units[OWN_UNIT].is_loaded);
        let units = units_of(&text.replace("--fgdaemon", "--cold-start"), |_| None);
        assert_eq!(units[SERVER_UNIT].cold_start, ["ExecStart="]);
        let units = units_of(&text.replace("A=b", "ASD_OPTIONS=--cold-start"), |_| None);
        assert_eq!(units[SERVER_UNIT].cold_start, ["Environment="]);
        assert!(units_of(&text.replace("--fgdaemon", "--no-cold-start"), |_| None)[SERVER_UNIT].cold_start.is_empty());
    }

    #[test]
    fn the_program_of_a_unit_and_the_version_of_a_package() {
        let unit = "[Service]\nExecStart=\n ExecStart = -/opt/asd --x\n";
        assert_eq!(program_of(unit).as_deref(), Some("/opt/asd"));
        assert_eq!(program_of("[Service]\nExecStart=asd\n"), None);
        let status = "Package: bash\nStatus: install ok installed\nVersion: 5\n\n\
                      Package: aerospike-server-enterprise\nStatus: install ok installed\nVersion: 8.1.2.0-1\n";
        assert_eq!(package_of(status).as_deref(), Some("aerospike-server-enterprise 8.1.2.0-1"));
        assert_eq!(package_of(&status.replace("ok installed", "ok config-files")), None);
    }
}
