//! The machine of a sequence: its boots, containers, clock, host name and login records.
//!
//! Promise: everything is in namespaces that belong to this process and go with it: IPC, mounts,
//! host name. The files of the machine that asmt reads are mounted over the real ones. Must never:
//! change those of the real machine.

use crate::log::{set_time, shown};
use crate::memory;
use asmt_kit::dice::Dice;
use asmt_kit::mounts;
use asmt_kit::namespaces::{unshare_host_name, unshare_ipc, unshare_mounts};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const MACHINE_ID: &str = "/etc/machine-id";
const LOGIN_RECORDS: &str = "/var/log/wtmp";
/// The time at which sequences begin; any time would do.
const BEGIN_S: i64 = 1_772_323_200;
const LOGIN_BOOT: u16 = 2;
/// Bytes of a login record on x86-64: `utmp(5)`.
const LOGIN_RECORD_BYTES: usize = 384;

/// The set-up of this process, for all its sequences.
pub struct Host {
    /// A file system of its own, in memory, where fsync costs nothing. It goes with the process.
    pub root: PathBuf,
    /// The library that shows another time to a process; without it there is only the real clock.
    pub clock_library: Option<PathBuf>,
    /// asmt is expected to read login records here.
    pub has_login_records: bool,
    /// Restores are forced, to see that the oracle finds the wrong ones.
    pub is_forced: bool,
}

/// Mounts an empty file system over a directory, if there is one.
fn mount_empty(target: &str) -> io::Result<()> {
    if Path::new(target).is_dir() { mounts::tmpfs(Path::new(target), c"") } else { Ok(()) }
}

impl Host {
    /// Moves this process to namespaces of its own, and mounts the files that sequences change over
    /// the real machine's.
    pub fn set_up(root: &Path, clock_library: Option<PathBuf>) -> io::Result<Self> {
        unshare_mounts()?;
        unshare_host_name()?;
        unshare_ipc()?;
        mounts::tmpfs(root, c"mode=0755")?;
        fs::write(root.join("boot-id"), "\n")?;
        mounts::bind(&root.join("boot-id"), Path::new(BOOT_ID))?;
        if Path::new(MACHINE_ID).exists() {
            fs::write(root.join("machine-id"), "0123456789abcdef0123456789abcdef\n")?;
            mounts::bind(&root.join("machine-id"), Path::new(MACHINE_ID))?;
        }
        // asmt must not see a log, journal or service of the real machine. Nor must the times be
        // left that the clock's library keeps in /dev/shm.
        for place in ["/var/log", "/opt", "/run/systemd", "/dev/shm"] {
            mount_empty(place)?;
        }
        let (has_login_records, is_forced) = (cfg!(target_arch = "x86_64"), false);
        Ok(Self { root: root.to_owned(), clock_library, has_login_records, is_forced })
    }
}

/// A boot and an IPC namespace: the place where segments live, and where a restore is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Where {
    /// Number of the boot.
    pub boot: usize,
    /// Number of the IPC namespace.
    pub container: usize,
}

/// The machine in one sequence.
pub struct Machine {
    /// The current place.
    pub here: Where,
    /// Host name.
    pub name: String,
    /// Boots are recorded.
    pub is_recording: bool,
    /// Events at which the clock was set.
    pub jumps: Vec<usize>,
    /// Events at which the machine was booted.
    pub boots: Vec<usize>,
    seed: u64,
    now_s: Option<i64>,
    records: Vec<u8>,
    root: PathBuf,
}

impl Machine {
    /// A machine that was just booted.
    pub fn new(host: &Host, seed: u64, dice: &mut Dice) -> Self {
        unshare_ipc().expect("an IPC namespace");
        let now_s = host.clock_library.as_ref().map(|_| BEGIN_S + dice.seconds());
        let mut machine = Self {
            here: Where { boot: 0, container: 0 },
            name: "node1".to_owned(),
            is_recording: host.has_login_records && dice.chance(70),
            jumps: Vec::new(),
            boots: Vec::new(),
            seed,
            now_s,
            records: Vec::new(),
            root: host.root.clone(),
        };
        let _ = fs::remove_file(LOGIN_RECORDS);
        machine.rename("node1");
        machine.begin_boot();
        machine
    }

    /// Time of day, seconds since 1970.
    pub fn now_s(&self) -> i64 {
        self.now_s.unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
        })
    }

    /// The time, in the form that the clock's library reads; `None` with the real clock.
    pub fn set_clock(&self) -> Option<String> {
        self.now_s.map(|now_s| format!("@{}", shown(now_s)))
    }

    /// Time passes.
    pub fn pass(&mut self, seconds: i64) {
        self.now_s = self.now_s.map(|now_s| now_s + seconds);
    }

    /// An operator sets the clock.
    pub fn jump(&mut self, seconds: i64, event: usize) {
        self.pass(seconds);
        self.jumps.push(event);
    }

    /// The host gets another name.
    pub fn rename(&mut self, name: &str) {
        rustix::system::sethostname(name.as_bytes()).expect("a host name");
        name.clone_into(&mut self.name);
    }

    fn begin_boot(&mut self) {
        let (seed, boot) = (self.seed as u32, self.here.boot);
        fs::write(self.root.join("boot-id"), format!("{seed:08x}-{boot:04x}-4000-8000-000000000000\n")).expect("a boot id");
        // The directory is in memory.
        let run = self.root.join("run");
        let _ = fs::remove_dir_all(&run);
        DirBuilder::new().mode(0o700).create(&run).expect("a directory");
        if self.is_recording {
            self.records.extend(boot_record(self.now_s()));
            fs::write(LOGIN_RECORDS, &self.records).expect("login records");
            set_time(Path::new(LOGIN_RECORDS), self.now_s());
        }
    }

    /// The machine is booted, which empties its memory.
    pub fn boot(&mut self, event: usize, has_new_container: bool) {
        memory::remove_all();
        if has_new_container {
            unshare_ipc().expect("an IPC namespace");
            self.here.container += 1;
        }
        self.here.boot += 1;
        self.boots.push(event);
        self.begin_boot();
    }

    /// The container is replaced: another IPC namespace in the same boot.
    pub fn replace_container(&mut self) {
        unshare_ipc().expect("an IPC namespace");
        self.here.container += 1;
    }

    /// Number of boots since an event.
    pub fn boots_since(&self, event: usize) -> usize {
        self.boots.iter().filter(|boot| **boot > event).count()
    }

    /// Returns true if the clock was set since an event.
    pub fn has_jumped_since(&self, event: usize) -> bool {
        self.jumps.iter().any(|jump| *jump > event)
    }
}

/// The login record of a boot.
fn boot_record(at_s: i64) -> [u8; LOGIN_RECORD_BYTES] {
    let mut record = [0; LOGIN_RECORD_BYTES];
    record[..2].copy_from_slice(&LOGIN_BOOT.to_le_bytes());
    record[8] = b'~';
    record[40..42].copy_from_slice(b"~~");
    record[44..50].copy_from_slice(b"reboot");
    record[340..344].copy_from_slice(&(at_s as u32).to_le_bytes());
    record
}

#[cfg(test)]
mod tests {
    use super::*;
    use asmt_kit::files::Scratch;
    use std::process::Command;

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn a_boot_is_recorded_as_other_programs_read_it() {
        let scratch = Scratch::new("sequences");
        let path = scratch.path().join("wtmp");
        fs::write(&path, boot_record(BEGIN_S)).expect("written");
        let done = Command::new("utmpdump").arg(&path).output().expect("utmpdump");
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(text.starts_with("[2] ") && text.contains("[reboot ") && text.contains("[2026-03-01T00:00:00"), "{text}");
    }

    #[test]
    fn a_time_is_shown_as_the_clock_takes_it() {
        assert_eq!(shown(BEGIN_S), "2026-03-01 00:00:00");
    }
}
