//! What a loop runs on: mounts and shared memory of its own, a disk that can be cut off, and file
//! systems on it.
//!
//! Promise: mounts are in a namespace that goes with the process, a loop device goes with its last
//! user, and a process that waits for the end of this one removes the directory: nothing is left,
//! not even by a SIGKILL. Must never: touch a mount or a segment of the namespaces it was started
//! in.

use crate::disk::Kept;
use crate::states::{Shape, State};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A file system that a backup is put on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// ext4 as its mkfs makes it.
    Ext4,
    /// XFS.
    Xfs,
    /// btrfs.
    Btrfs,
}

impl FileSystem {
    /// Its name, for the kernel too.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    /// The smallest sane one: MiB, and the command that makes it. What would be written in the
    /// background after the first mount is written at once, so that it is not in the log.
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

    /// Why it cannot be had here, if so.
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

/// Namespaces of mounts and of shared memory for this process, and a place for what is temporary.
/// Call it before there is a second thread.
///
/// Errors: why a loop cannot run here.
pub fn enter() -> Result<Place, String> {
    // SAFETY: moves this process to other namespaces; there is one thread, and no segment is
    // attached.
    if unsafe { libc::unshare(libc::CLONE_NEWNS | libc::CLONE_NEWIPC) } != 0 {
        return Err(format!("namespaces cannot be made: {}", io::Error::last_os_error()));
    }
    let place = || -> io::Result<Place> {
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        let root = std::env::temp_dir().join(format!("asmt-powercut-{}", std::process::id()));
        std::fs::create_dir(&root)?;
        let place = Place { sweeper: Helper::start("sweep", &[&root])?, root, count: Cell::new(0) };
        mount("asmt-powercut", &place.root, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"mode=0700,size=1g")?;
        std::fs::create_dir(place.root.join("run"))?;
        // SAFETY: there is one thread: nobody reads the environment meanwhile.
        unsafe { std::env::set_var("ASMT_RUNTIME_DIR", place.root.join("run")) };
        Ok(place)
    };
    place().map_err(|error| format!("a mount cannot be made: {error}"))
}

/// The directory of everything temporary: a file system of its own, in memory.
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

/// Waits until standard input ends, as it does when the process at its other end does; then
/// detaches the place and removes its directory.
pub fn sweep(root: &Path) -> io::Result<()> {
    io::copy(&mut io::stdin(), &mut io::sink())?;
    let _ = unmount(root, UnmountFlags::DETACH);
    std::fs::remove_dir(root)
}

/// A process of this program that helps, until its input ends. In a process group of its own: what
/// interrupts a loop is not for it.
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
    // Dropped in this order: the device's last user goes before the disk does.
    device: LoopDevice,
    disk: DiskProcess,
}

impl Machine {
    /// Makes the file system, and mounts it once so that what only a first mount does is done.
    pub fn start(place: &Place, file_system: FileSystem) -> io::Result<Self> {
        let directory = place.directory()?;
        let (image, mount_point) = (directory.join("image"), directory.join("mnt"));
        std::fs::create_dir(&mount_point)?;
        let (mebibytes, command) = file_system.recipe();
        File::create(&image)?.set_len(mebibytes << 20)?;
        let made = Command::new(command[0]).args(&command[1..]).arg(&image).stdout(Stdio::null()).output()?;
        if !made.status.success() {
            return Err(io::Error::other(format!("{}: {}", command[0], String::from_utf8_lossy(&made.stderr))));
        }
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

    /// Mounts what is on the disk, until the guard is dropped.
    pub fn mount(&self) -> io::Result<Mounted> {
        // Nothing of another state may stay in memory.
        self.device.forget()?;
        let (name, options) = (self.file_system.name(), self.file_system.mount_options());
        mount(&self.device.path, &self.mount_point, name, MountFlags::NOATIME, options)?;
        Ok(Mounted { path: self.mount_point.clone() })
    }

    /// Makes what is on the disk now what a recording, or a state, starts from.
    pub fn keep(&mut self) -> io::Result<()> {
        self.device.forget()?;
        self.disk.ask("keep").map(drop)
    }

    /// Begins to log, from what was kept last.
    pub fn record(&mut self) -> io::Result<()> {
        self.disk.ask("record").map(drop)
    }

    /// Notes a word in the log.
    pub fn mark(&mut self, word: &str) -> io::Result<()> {
        self.disk.ask(&format!("mark {word}")).map(drop)
    }

    /// Ends the recording; gives the shape of the log.
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

    /// Lays out a state; gives its number.
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
    /// Where.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // What still has it open is gone in a moment (a process that has just ended); then it must
        // work.
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

/// A loop device that goes with its last user.
struct LoopDevice {
    path: PathBuf,
    device: File,
}

const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
const BLKFLSBUF: libc::c_ulong = 0x1261;
/// `LO_FLAGS_AUTOCLEAR`.
const AUTOCLEAR: u32 = 4;
/// `struct loop_config`: descriptor, block size, `struct loop_info64` (flags at 52 of it), eight
/// reserved words.
const CONFIG_BYTES: usize = 4 + 4 + 232 + 64;
const FLAGS_AT: usize = 8 + 52;

impl LoopDevice {
    fn new(backing: &Path) -> io::Result<Self> {
        let backing: OwnedFd = rustix::fs::open(backing, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        let control = File::options().read(true).write(true).open("/dev/loop-control")?;
        loop {
            // SAFETY: takes no argument, gives a number.
            let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) };
            if number < 0 {
                return Err(io::Error::last_os_error());
            }
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let device = File::options().read(true).write(true).open(&path)?;
            let mut config = [0u8; CONFIG_BYTES];
            config[..4].copy_from_slice(&backing.as_raw_fd().to_ne_bytes());
            config[FLAGS_AT..FLAGS_AT + 4].copy_from_slice(&AUTOCLEAR.to_ne_bytes());
            // SAFETY: reads as many bytes as the structure has.
            if unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE as _, config.as_ptr()) } == 0 {
                return Ok(Self { path, device });
            }
            let error = io::Error::last_os_error();
            // Somebody else was quicker.
            if error.raw_os_error() != Some(libc::EBUSY) {
                return Err(error);
            }
        }
    }

    /// Writes out and drops what the kernel keeps of the device.
    fn forget(&self) -> io::Result<()> {
        // SAFETY: takes no argument.
        match unsafe { libc::ioctl(self.device.as_raw_fd(), BLKFLSBUF as _, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}
