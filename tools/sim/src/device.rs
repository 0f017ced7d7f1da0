//! Headers of storage devices and files.
//!
//! Must never: change a device beyond the first 64 bytes of its header.

use crate::Outcome;
use crate::layout::{DeviceHeader, HEADER_BYTES, HEADER_VERSION, NAME_BYTES};
use asmt_kit::args::{Args, bytes_of};
use asmt_kit::dice::Rng;
use asmt_kit::text_of;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

fn named_path(args: &mut Args) -> Result<PathBuf, String> {
    args.text("path").map(PathBuf::from).ok_or_else(|| "--path is needed".to_owned())
}

/// The first bytes of a device.
pub enum Start {
    /// A header.
    Header(DeviceHeader),
    /// Zeros: no server has opened it.
    Blank,
    /// Neither.
    Unknown,
}

/// Reads the start of a device. A device that is shorter than a header is read as if zeros
/// followed.
pub fn read(path: &Path) -> Result<Start, String> {
    let mut bytes = [0; 4096];
    let file = File::open(path).map_err(text_of("cannot open", path.display()))?;
    let mut length = 0;
    while length < bytes.len() {
        match file.read_at(&mut bytes[length..], length as u64).map_err(text_of("cannot read", path.display()))? {
            0 => break,
            count => length += count,
        }
    }
    Ok(match bytes.first_chunk().and_then(DeviceHeader::parse) {
        Some(header) => Start::Header(header),
        None if bytes.iter().all(|byte| *byte == 0) => Start::Blank,
        None => Start::Unknown,
    })
}

/// Stores a header, durably.
pub fn write(path: &Path, header: &DeviceHeader) -> Outcome {
    let file = OpenOptions::new().write(true).open(path).map_err(text_of("cannot open", path.display()))?;
    let written = file.write_all_at(&header.to_bytes(), 0).and_then(|()| file.sync_all());
    written.map_err(text_of("cannot write", path.display()))
}

/// Makes a storage file, or the start of a device.
pub fn device(mut args: Args) -> Outcome {
    let path = named_path(&mut args)?;
    let size_bytes = args.size("size", 64 << 10)?;
    let name = args.text("name").unwrap_or_else(|| "test".to_owned()).into_bytes();
    let raw_name = args.get("raw-name", None, |text| bytes_of(text).filter(|raw| raw.len() <= NAME_BYTES).map(Some))?;
    let is_trusted = !args.flag("untrusted");
    let (device_count, random) = (args.number("devices", 1)?, args.number("random", 1)?);
    let header = DeviceHeader {
        version: args.number("version", HEADER_VERSION)?,
        ..DeviceHeader::new(raw_name.as_ref().unwrap_or(&name), device_count, random, is_trusted)
    };
    args.end()?;
    if !path.exists() {
        let made = File::create(&path).and_then(|file| file.set_len(size_bytes.max(HEADER_BYTES as u64)));
        made.map_err(text_of("cannot make", path.display()))?;
    }
    write(&path, &header)
}

/// Changes the header of a device, which it must have.
fn change(mut args: Args, change: impl Fn(&mut DeviceHeader)) -> Outcome {
    let path = named_path(&mut args)?;
    args.end()?;
    let Start::Header(mut header) = read(&path)? else { return Err(format!("{} has no header", path.display())) };
    change(&mut header);
    write(&path, &header)
}

/// Does what a server does that opens this device, and this one alone.
pub fn open(args: Args) -> Outcome {
    change(args, |header| {
        header.random = Rng::new(header.random, 0x0be).next();
        header.set_trusted(false);
    })
}

/// Does what a server does that is shut down cleanly.
pub fn close(args: Args) -> Outcome {
    change(args, |header| header.set_trusted(true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use asmt_kit::files::Scratch;

    fn sim(line: &str) -> Outcome {
        crate::output_of(line).map(drop)
    }

    fn header(path: &Path) -> DeviceHeader {
        match read(path) {
            Ok(Start::Header(header)) => header,
            _ => panic!("no header"),
        }
    }

    /// The first 4096 bytes of a device that the simulator makes are those that a server wrote.
    #[test]
    fn a_device_is_that_of_a_server() {
        let scratch = Scratch::new("sim-device");
        let path = scratch.path().join("device");
        let shown = path.display();
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../__test__/fixtures/server");
        let random = 0x396d_4308_dcc6_16a6u64;
        sim(&format!("device --path {shown} --devices 2 --random {random} --untrusted")).expect("made");
        let compare = |case: &str| {
            let server = std::fs::read(fixture.join(case).join("test-a.dat.head")).expect("a server's");
            assert_eq!(std::fs::read(&path).expect("ours")[..4096], server, "{case}");
        };
        compare("file-1-first-start-running");
        sim(&format!("close --path {shown}")).expect("closed");
        compare("file-2-clean-stop");
        // All other bytes stay as they are.
        sim(&format!("device --path {shown} --version 5 --devices 3 --raw-name 61ff")).expect("made");
        sim(&format!("open --path {shown}")).expect("opened");
        let opened = header(&path);
        assert_eq!((opened.version, opened.device_count, &opened.name[..3]), (5, 3, &[0x61, 0xff, 0][..]));
        assert!(opened.random != 1 && !opened.is_trusted());
        std::fs::write(&path, [7; 100]).expect("written");
        assert!(matches!(read(&path), Ok(Start::Unknown)) && sim(&format!("open --path {shown}")).is_err());
        std::fs::write(&path, [0; 100]).expect("written");
        assert!(matches!(read(&path), Ok(Start::Blank)));
        std::fs::remove_file(&path).expect("removed");
        assert!(read(&path).is_err());
        let too_long = "61".repeat(33);
        assert!(sim(&format!("device --path {shown} --raw-name {too_long}")).is_err() && !path.exists());
    }
}
