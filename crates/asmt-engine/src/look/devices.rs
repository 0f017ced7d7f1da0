//! Reads the headers of storage devices and files, past the page cache.
//!
//! Promise: only the first 4096 bytes are read, and only block devices and regular files are
//! opened; a device that does not answer is a fact, not a failure. Must never: write, or wait for a
//! FIFO.

use crate::error::without_number;
use crate::facts::server::{Device, DeviceState, Medium};
use crate::store::Buffer;
use crate::sys::dir::names_of;
use asmt_shm::HEADER_BYTES;
use rustix::fd::OwnedFd;
use rustix::fs::{self, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::path::Path;

/// Directories whose links name a disk or a partition, whatever its path is after the next boot.
const STABLE_NAMES: [&str; 2] = ["/dev/disk/by-id", "/dev/disk/by-partuuid"];
/// Files of a block device in `/sys` that identify the disk. The path of a loop device's file is
/// not one of them: it is a path in the mount namespace of the process that attached the file, so
/// the disks of two containers can have the same one.
const SERIALS: [&str; 4] = ["wwid", "device/wwid", "device/serial", "dm/uuid"];

/// Reads the state of the device or file at a path.
pub fn ask(path: &str) -> Device {
    let mut device = Device {
        path: path.to_owned(),
        medium: None,
        unique: None,
        ids: Vec::new(),
        state: DeviceState::Unreadable("was not checked".to_owned()),
    };
    device.state = match open(Path::new(path), &[FileType::BlockDevice, FileType::RegularFile]) {
        Ok((file, stat)) => {
            let is_device = FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice;
            let medium = if is_device { Medium::Device } else { Medium::File };
            device.medium = Some(medium);
            device.unique = Some(if is_device { (0, stat.st_rdev) } else { (stat.st_dev, stat.st_ino) });
            if is_device {
                device.ids = stable_names(stat.st_rdev);
            }
            header_of(&file, medium).unwrap_or_else(DeviceState::Unreadable)
        }
        Err(why) => DeviceState::Unreadable(why),
    };
    device
}

/// Opens a file for reading if its kind is one of `kinds`: opening another kind could wait, or have
/// an effect.
pub fn open(path: &Path, kinds: &[FileType]) -> Result<(OwnedFd, fs::Stat), String> {
    let why = |error: Errno| match error {
        Errno::NOENT => "does not exist".to_owned(),
        error => format!("cannot be opened: {}", without_number(&error.into())),
    };
    // Links are followed, because devices are named by links.
    let is_of_kind = |stat: &fs::Stat| kinds.contains(&FileType::from_raw_mode(stat.st_mode));
    let wrong = || match kinds.contains(&FileType::BlockDevice) {
        true => "is neither a block device nor a regular file".to_owned(),
        false => "is not a regular file".to_owned(),
    };
    if !is_of_kind(&fs::stat(path).map_err(why)?) {
        return Err(wrong());
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = fs::open(path, flags, Mode::empty()).map_err(why)?;
    // The path may lead to another file by now.
    let stat = fs::fstat(&file).map_err(why)?;
    if is_of_kind(&stat) { Ok((file, stat)) } else { Err(wrong()) }
}

/// Reads the header. There can be two block devices for one disk (multipath, device mapper), each
/// with its own page cache: the cache of one can be older than what the server wrote through the
/// other.
fn header_of(file: &OwnedFd, medium: Medium) -> Result<DeviceState, String> {
    let why = |error: Errno| format!("cannot be read: {}", without_number(&error.into()));
    let mut buffer = Buffer::default();
    let bytes = buffer.aligned(HEADER_BYTES);
    if medium == Medium::Device {
        let flags = fs::fcntl_getfl(file).map_err(why)?;
        fs::fcntl_setfl(file, flags | OFlags::DIRECT).map_err(why)?;
    }
    let mut length = 0;
    while length < bytes.len() {
        match rustix::io::pread(file, &mut bytes[length..], length as u64) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(why(error)),
        }
    }
    if length < bytes.len() && medium == Medium::Device {
        return Err(format!("has {length} bytes, expected a header of {HEADER_BYTES}"));
    }
    Ok(DeviceState::of(&bytes[..length]))
}

/// Returns what identifies the block device at a path; empty if there is none.
pub fn ids_at(path: &str) -> Vec<String> {
    let is_device = |stat: &fs::Stat| FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice;
    fs::stat(path).ok().filter(is_device).map_or_else(Vec::new, |stat| stable_names(stat.st_rdev))
}

/// Returns what identifies a block device, whatever its path is: links that lead to it, and its
/// serial number.
fn stable_names(number: u64) -> Vec<String> {
    let mut found = Vec::new();
    for directory in STABLE_NAMES {
        for name in names_of(Path::new(directory)).unwrap_or_default() {
            let path = format!("{directory}/{name}");
            if fs::stat(path.as_str()).is_ok_and(|stat| stat.st_rdev == number) {
                found.push(path);
            }
        }
    }
    let place = format!("/sys/dev/block/{}:{}", fs::major(number), fs::minor(number));
    // A partition has its number beside its name; the disk to which it belongs has the serial
    // number.
    let partition = read_short(&format!("{place}/partition"));
    let disk = if partition.is_some() { format!("{place}/..") } else { place };
    for file in SERIALS {
        if let Some(serial) = read_short(&format!("{disk}/{file}")) {
            let part = partition.as_ref().map_or(String::new(), |number| format!(" partition {number}"));
            found.push(format!("{file}:{serial}{part}"));
        }
    }
    found
}

/// Reads a short text of `/sys`; `None` if it is missing, empty or unreadable.
fn read_short(path: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let text: String = text.trim().chars().filter(|character| !character.is_control()).take(200).collect();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use asmt_shm::{NamespaceName, STRIPE_TRUSTED};

    #[test]
    fn a_header_is_read_where_there_is_one_and_nothing_else_is_taken_for_it() {
        let scratch = asmt_kit::files::Scratch::new("devices");
        let path = scratch.path().join("device");
        let shown = path.display().to_string();
        // The header that a server left at a clean stop, in a set of two.
        let server = include_bytes!("../../../../__test__/fixtures/server/file-2-clean-stop/test-a.dat.head");
        for (change, length, is_header) in
            [(None, 4096, true), (None, 60, true), (None, 59, false), (None, 0, false), (Some((0, 0)), 4096, false)]
        {
            let mut bytes = server.to_vec();
            if let Some((at, byte)) = change {
                bytes[at] = byte;
            }
            std::fs::write(&path, &bytes[..length]).expect("written");
            let device = ask(&shown);
            assert_eq!(device.header().is_some(), is_header, "{change:?} {length}");
            assert_eq!(device.medium, Some(Medium::File));
            if let Some(header) = device.header() {
                assert_eq!(header.name, NamespaceName::new("test"));
                assert_eq!(header.flags & STRIPE_TRUSTED, STRIPE_TRUSTED);
            }
        }
        std::fs::write(&path, [0; 8192]).expect("written");
        assert_eq!(ask(&shown).state, DeviceState::Blank);
        std::fs::write(&path, "text").expect("written");
        assert_eq!(ask(&shown).state, DeviceState::Unknown);
        for path in [scratch.path().join("none"), scratch.path().to_owned(), "/dev/null".into(), "".into()] {
            let device = ask(&path.display().to_string());
            assert!(matches!(device.state, DeviceState::Unreadable(_)), "{}", path.display());
        }
    }
}
