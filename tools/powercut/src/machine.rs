//! The machine of a loop: mounts and shared memory of its own, a disk that can be cut off, and file
//! systems on it.
//!
//! Promise: mounts are in a namespace that goes with the process, a loop device goes with its last
//! user, and another process waits for the end of this one and removes the directory. Nothing is
//! left, not even after a SIGKILL. Must never: touch a mount or a segment of the namespaces in
//! which it was started.

use crate::disk::Kept;
use crate::states::{Shape, State};
use asmt_kit::files;
use asmt_kit::mounts::{self, LoopDevice};
use asmt_kit::namespaces::{unshare_ipc, unshare_mounts};
use asmt_kit::sys::set_variable;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A file system for the backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// ext4 with the defaults of its mkfs.
    Ext4,
    /// XFS.
    Xfs,
    /// btrfs.
    Btrfs,
}

impl FileSystem {
    /// Its name, as the kernel has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    /// The smallest reasonable size in MiB, and the command that makes the file system. The writes
    /// that would happen in the background after the first mount are done at once, so that they are
    /// not in the log.
    fn recipe(self) -> (u64, &'static [&'static str]) {
        match self {
            Self::Ext4 => (64, &["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard"]),
            Self::Xfs => (320, &["mkfs.xfs", "-q", "-f", "-K"]),
            Self::Btrfs => (160, &["mkfs.btrfs", "-q", "-f", "-K"]),
        }
    }

    fn mount_options(self) -> &'static std::ffi::CStr {
        match self {
            Self::Xfs => c"nouuid",
            Self::Ext4 | Self::Btrfs => c"",
        }
    }

    /// The reason why it cannot be used here, if there is one.
    pub fn missing(self) -> Option<String> {
        for path in ["/dev/fuse", "/dev/loop-control"] {
            if let Err(error) = File::options().read(true).write(true).open(path) {
                return Some(format!("{path} cannot be opened: {error}"));
            }
        }
        let program = self.recipe().1[0];
        let is_known = || {
            let text = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
            text.lines().any(|line| line.split_whitespace().last() == Some(self.name()))
        };
        if !is_known() {
            let _ = Command::new("modprobe").arg(self.name()).stderr(Stdio::null()).status();
        }
        if !is_known() {
            return Some(format!("this kernel has no {}", self.name()));
        }
        let has_program = Command::new(program).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
        (!has_program).then(|| format!("{program} is not installed"))
    }
}

/// Moves this process to new mount and IPC namespaces, and makes a place for temporary files. Call
/// it before there is a second thread.
///
/// Errors: the reason why a loop cannot run here.
pub fn enter() -> Result<Place, String> {
    unshare_ipc().and_then(|()| unshare_mounts()).map_err(|error| format!("namespaces cannot be made: {error}"))?;
    let place = || -> io::Result<Place> {
        let root = std::env::temp_dir().join(format!("asmt-powercut-{}", std::process::id()));
        std::fs::create_dir(&root)?;
        let place = Place { sweeper: Helper::start("sweep", &[&root])?, root, count: Cell::new(0) };
        mounts::tmpfs(&place.root, c"mode=0700,size=1g")?;
        std::fs::create_dir(place.root.join("run"))?;
        set_variable("ASMT_RUNTIME_DIR", &place.root.join("run"));
        Ok(place)
    };
    place().map_err(|error| format!("a mount cannot be made: {error}"))
}

/// The directory for all temporary files: a file system of its own, in memory.
pub struct Place {
    root: PathBuf,
    count: Cell<u32>,
    sweeper: Helper,
}

impl Place {
    /// A new directory in it.
    pub fn directory(&self) -> io::Result<PathBuf> {
        let number = self.count.replace(self.count.get() + 1);
        let directory = self.root.join(number.to_string());
        std::fs::create_dir(&directory).map(|()| directory)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.sweeper.end();
    }
}

/// Waits for the end of standard input, which comes when the process at its other end ends. Then it
/// detaches the place and removes its directory.
pub fn sweep(root: &Path) -> io::Result<()> {
    io::copy(&mut io::stdin(), &mut io::sink())?;
    let _ = unmount(root, UnmountFlags::DETACH);
    std::fs::remove_dir(root)
}

/// A second process of this program, which ends when its input does. It has its own process group,
/// so that a signal from the terminal does not reach it.
struct Helper {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Helper {
    fn start(command: &str, paths: &[&Path]) -> io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(command)
            .args(paths)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let output = output.ok_or_else(|| io::Error::other("no output of a process"))?;
        Ok(Self { child, input, output: BufReader::new(output) })
    }

    fn end(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

/// A disk with a file system on it.
pub struct Machine {
    file_system: FileSystem,
    mount_point: PathBuf,
    // Dropped in this order: the device's last user must go before the disk.
    device: LoopDevice,
    disk: DiskProcess,
}

impl Machine {
    /// Makes the file system, and mounts it once, so that the work of a first mount is done.
    pub fn start(place: &Place, file_system: FileSystem) -> io::Result<Self> {
        let directory = place.directory()?;
        let (image, mount_point) = (directory.join("image"), directory.join("mnt"));
        std::fs::create_dir(&mount_point)?;
        let (mebibytes, command) = file_system.recipe();
        File::create(&image)?.set_len(mebibytes << 20)?;
        files::run(Command::new(command[0]).args(&command[1..]).arg(&image))?;
        let disk = DiskProcess::start(&image, &directory.join("disk"))?;
        let device = LoopDevice::new(&directory.join("disk"))?;
        let mut machine = Self { file_system, mount_point, device, disk };
        drop(machine.mount()?);
        machine.disk.ask("keep")?;
        Ok(machine)
    }

    /// Its file system.
    pub fn file_system(&self) -> FileSystem {
        self.file_system
    }

    /// Mounts the disk until the guard is dropped.
    pub fn mount(&self) -> io::Result<Mounted> {
        // The kernel must not cache anything of another state.
        self.device.forget()?;
        let (name, options) = (self.file_system.name(), self.file_system.mount_options());
        mount(self.device.path(), &self.mount_point, name, MountFlags::NOATIME, options)?;
        Ok(Mounted { path: self.mount_point.clone() })
    }

    /// Makes the current contents of the disk the base of recordings and states.
    pub fn keep(&mut self) -> io::Result<()> {
        self.device.forget()?;
        self.disk.ask("keep").map(drop)
    }

    /// Begins to log, from the base.
    pub fn record(&mut self) -> io::Result<()> {
        self.disk.ask("record").map(drop)
    }

    /// Notes a word in the log.
    pub fn mark(&mut self, word: &str) -> io::Result<()> {
        self.disk.ask(&format!("mark {word}")).map(drop)
    }

    /// Ends the recording, and returns the shape of the log.
    pub fn end_recording(&mut self) -> io::Result<Vec<Shape>> {
        self.device.forget()?;
        let lines = self.disk.ask("end")?;
        let shape = |line: &String| {
            let words: Vec<&str> = line.splitn(3, ' ').collect();
            match words[..] {
                ["write", offset, length] => Some(Shape::Write(offset.parse().ok()?, length.parse().ok()?)),
                ["flush"] => Some(Shape::Flush),
                ["mark", ..] => Some(Shape::Mark(words[1..].join(" "))),
                _ => None,
            }
        };
        let unreadable = || io::Error::other("the log of the disk cannot be read");
        lines[..lines.len() - 1].iter().map(shape).collect::<Option<_>>().ok_or_else(unreadable)
    }

    /// Lays out a state, and returns its number.
    pub fn lay_out(&mut self, state: &State) -> io::Result<u64> {
        let kept = state.kept.iter().map(|Kept { entry, first, count }| format!(" {entry}:{first}:{count}"));
        let line = format!("state {}{}", state.durable_count, kept.collect::<String>());
        let lines = self.disk.ask(&line)?;
        let number = lines.last().and_then(|line| line.strip_prefix("ok ")).and_then(|number| number.parse().ok());
        number.ok_or_else(|| io::Error::other("the disk gave no number for a state"))
    }
}

/// A mounted file system.
pub struct Mounted {
    path: PathBuf,
}

impl Mounted {
    /// The mount point.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A process that has just ended may still have it open for a moment. After that, unmounting
        // must work.
        for _ in 0..1000 {
            match unmount(&self.path, UnmountFlags::empty()) {
                Err(rustix::io::Errno::BUSY) => std::thread::yield_now(),
                _ => return,
            }
        }
        let _ = unmount(&self.path, UnmountFlags::DETACH);
    }
}

/// The process that serves the disk.
struct DiskProcess(Helper);

impl DiskProcess {
    fn start(image: &Path, target: &Path) -> io::Result<Self> {
        let mut disk = Self(Helper::start("disk", &[image, target])?);
        disk.answer()?;
        Ok(disk)
    }

    fn ask(&mut self, line: &str) -> io::Result<Vec<String>> {
        let input = self.0.input.as_mut().ok_or_else(|| io::Error::other("the disk is gone"))?;
        writeln!(input, "{line}")?;
        input.flush()?;
        self.answer()
    }

    fn answer(&mut self) -> io::Result<Vec<String>> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if self.0.output.read_line(&mut line)? == 0 {
                return Err(io::Error::other("the disk's process has ended"));
            }
            let line = line.trim_end().to_owned();
            if let Some(error) = line.strip_prefix("error ") {
                return Err(io::Error::other(error.to_owned()));
            }
            let is_last = line == "ok" || line.starts_with("ok ");
            lines.push(line);
            if is_last {
                return Ok(lines);
            }
        }
    }
}

impl Drop for DiskProcess {
    fn drop(&mut self) {
        self.0.end();
    }
}
