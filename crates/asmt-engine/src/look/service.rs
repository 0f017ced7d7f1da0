//! Asks systemd, its journal and the login records whether the server was started, and how often
//! the machine was booted.
//!
//! Promise: a source that cannot be read, or does not answer in time, is noted as unseen, and not
//! taken for silence; a source that does not exist (in a container, on a machine without systemd)
//! is not asked. Must never: start or stop anything.

use crate::facts::server::{SERVER_UNIT, ServiceHistory, ServiceStart, hex_of};
use crate::sys::procfs;
use serde_json::Value;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// `SD_MESSAGE_UNIT_STARTED`. Source: `sd-messages.h` of systemd, and its catalog. (The message
/// that a unit is *starting* is in the journal already while its own `ExecStartPre=` restores.)
const STARTED_MESSAGE: &str = "39f53479d3a045ac8e11786248231fbf";
/// `SD_MESSAGE_UNIT_FAILURE_RESULT`. Source: as above.
const FAILED_MESSAGE: &str = "d9b373ed55a64feb8242e02dbe79a49c";
/// Time in which a program must answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Most bytes of an answer that are read.
const MAX_ANSWER_BYTES: u64 = 4 << 20;
/// A unit that failed after less than this time did not serve: a warm restart alone takes longer.
const EARLY_FAILURE_US: u64 = 5_000_000;
/// A record of `wtmp`, and the offsets of its type and time. Source: `utmp.h` of glibc on x86-64,
/// tested against records that `utmpdump` writes. On other machines the form is unknown here.
const LOGIN_RECORD_BYTES: usize = 384;
const LOGIN_SECONDS_OFFSET: usize = 340;
const LOGIN_BOOT: u16 = 2;
const LOGIN_RECORDS: &str = "/var/log/wtmp";
const MAX_LOGIN_BYTES: u64 = 64 << 20;

/// The records about the unit of the first instance, and about the machine's boots.
pub fn history(boot_id: &str, machine_id: Option<&str>) -> ServiceHistory {
    let mut history = ServiceHistory::default();
    if Path::new("/run/systemd/system").is_dir() {
        match of_systemd(boot_id) {
            Ok(start) => history.starts.extend(start),
            Err(why) => history.unseen.push(format!("systemd ({why})")),
        }
    }
    let has_journal = |root: &str| machine_id.is_some_and(|id| Path::new(root).join(id).is_dir());
    if has_journal("/var/log/journal") || has_journal("/run/log/journal") {
        match of_journal() {
            Ok((boots, starts)) => {
                history.journal_boots = boots;
                history.starts.extend(starts);
            }
            Err(why) => history.unseen.push(format!("the journal ({why})")),
        }
    }
    match login_boots(Path::new(LOGIN_RECORDS)) {
        Ok(boots) => history.login_boots_ms = boots,
        Err(why) => history.unseen.push(format!("{LOGIN_RECORDS} ({why})")),
    }
    history
}

/// The time at which the unit was last active in this boot.
fn of_systemd(boot_id: &str) -> Result<Option<ServiceStart>, String> {
    let properties = "ActiveState,Result,ActiveEnterTimestampMonotonic,ActiveExitTimestampMonotonic";
    let text = answer("systemctl", &["show", SERVER_UNIT, "--property", properties])?;
    Ok(start_of_properties(&text, boot_id))
}

fn start_of_properties(text: &str, boot_id: &str) -> Option<ServiceStart> {
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    let number = |name: &str| value(name).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let entered = number("ActiveEnterTimestampMonotonic");
    let exited = number("ActiveExitTimestampMonotonic");
    let has_failed = value("ActiveState") == Some("failed") && value("Result") != Some("success");
    let was_short = exited >= entered && exited - entered < EARLY_FAILURE_US;
    (entered > 0).then(|| ServiceStart {
        boot_id: hex_of(boot_id),
        monotonic_ms: entered / 1000,
        source: "systemd",
        has_failed_early: has_failed && was_short,
    })
}

/// The boots and the starts of the unit in the journal.
fn of_journal() -> Result<(Vec<String>, Vec<ServiceStart>), String> {
    let boots = boots_of(&answer("journalctl", &["--list-boots", "--no-pager", "--quiet"])?);
    let unit = format!("UNIT={SERVER_UNIT}");
    // Two matches of one field mean either of them.
    let messages = [STARTED_MESSAGE, FAILED_MESSAGE].map(|id| format!("MESSAGE_ID={id}"));
    let words = ["--no-pager", "--quiet", "--output=json", "--lines=400", &unit, &messages[0], &messages[1]];
    Ok((boots, starts_of_entries(&answer("journalctl", &words)?)))
}

/// The starts among entries of the journal, oldest first, with those marked that failed within
/// seconds.
fn starts_of_entries(text: &str) -> Vec<ServiceStart> {
    let mut starts: Vec<ServiceStart> = Vec::new();
    for (id, start) in text.lines().filter_map(start_of_entry) {
        if id != FAILED_MESSAGE {
            starts.push(start);
        } else if let Some(last) = starts.last_mut().filter(|last| last.boot_id == start.boot_id) {
            last.has_failed_early |= start.monotonic_ms.saturating_sub(last.monotonic_ms) < EARLY_FAILURE_US / 1000;
        }
    }
    starts
}

/// The boot ids of `--list-boots`, in its order: the form of a line differs between versions, that
/// of an id does not.
fn boots_of(text: &str) -> Vec<String> {
    let is_id = |word: &&str| word.len() == 32 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    text.lines().filter_map(|line| line.split_whitespace().find(is_id)).map(str::to_owned).collect()
}

/// The message and the time of an entry.
fn start_of_entry(line: &str) -> Option<(String, ServiceStart)> {
    let entry: Value = serde_json::from_str(line).ok()?;
    let text = |name: &str| entry.get(name)?.as_str().map(str::to_owned);
    let monotonic_us: u64 = text("__MONOTONIC_TIMESTAMP")?.parse().ok()?;
    let id = text("MESSAGE_ID").unwrap_or_default();
    let (boot_id, monotonic_ms) = (text("_BOOT_ID")?, monotonic_us / 1000);
    Some((id, ServiceStart { boot_id, monotonic_ms, source: "the journal", has_failed_early: false }))
}

/// The times of boots, oldest first. Empty if no such records are kept, or if their form is unknown
/// here.
fn login_boots(path: &Path) -> Result<Vec<u64>, String> {
    if !cfg!(target_arch = "x86_64") {
        return Ok(Vec::new());
    }
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() && metadata.len() <= MAX_LOGIN_BYTES => {}
        Ok(_) => return Err("it is not a file of known size".to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(crate::error::without_number(&error)),
    }
    let bytes = std::fs::read(path).map_err(|error| crate::error::without_number(&error))?;
    let seconds = |record: &[u8]| {
        let kind = u16::from_le_bytes([record[0], record[1]]);
        let at = &record[LOGIN_SECONDS_OFFSET..LOGIN_SECONDS_OFFSET + 4];
        (kind == LOGIN_BOOT).then(|| u64::from(u32::from_le_bytes([at[0], at[1], at[2], at[3]])) * 1000)
    };
    Ok(bytes.chunks_exact(LOGIN_RECORD_BYTES).filter_map(seconds).collect())
}

/// Runs a program, and returns its output, or the reason why it did not answer.
pub(super) fn answer(program: &str, words: &[&str]) -> Result<String, String> {
    let path = ["/usr/bin", "/bin"].map(|place| format!("{place}/{program}")).into_iter().find(|path| Path::new(path).exists());
    let Some(path) = path else { return Err(format!("{program} was not found")) };
    let mut command = Command::new(path);
    command.args(words).env("LC_ALL", "C").env("SYSTEMD_COLORS", "0").env("SYSTEMD_PAGER", "");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| format!("{program}: {}", crate::error::without_number(&error)))?;
    let output = child.stdout.take();
    let reader = std::thread::Builder::new().name("asmt-answer".to_owned()).spawn(move || {
        let mut bytes = Vec::new();
        let read = output.map(|output| output.take(MAX_ANSWER_BYTES).read_to_end(&mut bytes));
        read.is_some_and(|read| read.is_ok()).then_some(bytes)
    });
    let since = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Ok(status),
            Ok(None) if since.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(10)),
            Ok(None) => break Err(format!("{program} did not answer in {} s", PATIENCE.as_secs())),
            Err(error) => break Err(format!("{program}: {}", crate::error::without_number(&error))),
        }
    };
    if status.is_err() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let bytes = reader.ok().and_then(|reader| reader.join().ok()).flatten();
    match (status?, bytes) {
        (status, Some(bytes)) if status.success() => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        (status, _) => Err(format!("{program} ended with {status}")),
    }
}

/// The machine's `machine-id`, if it is an id: an image that was never started has another text
/// there.
///
/// Errors: failed calls.
pub fn machine_id() -> crate::error::Result<Option<String>> {
    let text = procfs::text_if_there("/etc/machine-id")?.map(|text| text.trim().to_owned());
    Ok(text.filter(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_systemd_says_of_a_unit_is_read() {
        let of = |state: &str, result: &str, entered: u64, exited: u64| {
            let text = format!(
                "ActiveState={state}\nResult={result}\nActiveEnterTimestampMonotonic={entered}\nActiveExitTimestampMonotonic={exited}\n"
            );
            start_of_properties(&text, "01234567-89ab-cdef-0123-456789abcdef")
        };
        assert_eq!(of("inactive", "success", 0, 0), None, "never active in this boot");
        let start = of("inactive", "success", 7_000_000, 9_000_000).expect("a start");
        assert_eq!((start.boot_id.as_str(), start.monotonic_ms), ("0123456789abcdef0123456789abcdef", 7000));
        assert!(!start.has_failed_early);
        for (state, result, exited, early) in [
            ("active", "success", 0, false),
            ("failed", "exit-code", 7_100_000, true),
            ("failed", "exit-code", 30_000_000, false),
            ("failed", "exit-code", 0, false),
        ] {
            let start = of(state, result, 7_000_000, exited).expect("a start");
            assert_eq!(start.has_failed_early, early, "{state} {exited}");
        }
        assert_eq!(start_of_properties("", "x"), None);
    }

    #[test]
    fn boots_are_read_whatever_the_columns_are() {
        let old = "-1 00112233445566778899aabbccddeeff Mon 2026-11-30 01:00:00 UTC—Mon 2026-11-30 02:00:00 UTC\n";
        let new = "IDX BOOT ID                          FIRST ENTRY                 LAST ENTRY\n  0 ffeeddccbbaa99887766554433221100 Mon 2026-11-30 03:00:00 UTC Mon 2026-11-30 04:00:00 UTC\n";
        assert_eq!(boots_of(old), ["00112233445566778899aabbccddeeff"]);
        assert_eq!(boots_of(new), ["ffeeddccbbaa99887766554433221100"]);
        assert_eq!(boots_of("no boots"), [""; 0]);
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn login_records_that_another_program_wrote_are_read() {
        let scratch = asmt_kit::files::Scratch::new("wtmp");
        let path = scratch.path().join("wtmp");
        assert_eq!(login_boots(&path), Ok(Vec::new()));
        let line = |kind: u8, time: &str| {
            format!("[{kind}] [00000] [~~  ] [reboot  ] [~           ] [6.1                 ] [0.0.0.0        ] [{time}]\n")
        };
        let text = [
            line(2, "2026-11-30T01:00:00,000000+00:00"),
            line(7, "2026-11-30T01:05:00,000000+00:00"),
            line(2, "2026-11-30T02:00:00,000000+00:00"),
        ]
        .concat();
        let file = std::fs::File::create(&path).expect("made");
        let mut dump = Command::new("utmpdump")
            .arg("-r")
            .stdin(Stdio::piped())
            .stdout(file)
            .stderr(Stdio::null())
            .spawn()
            .expect("utmpdump");
        std::io::Write::write_all(&mut dump.stdin.take().expect("its input"), text.as_bytes()).expect("written");
        assert!(dump.wait().expect("its end").success());
        assert_eq!(login_boots(&path), Ok(vec![1_796_000_400_000, 1_796_004_000_000]));
    }

    #[test]
    fn a_program_that_fails_has_not_answered() {
        assert!(answer("no-such-program", &[]).expect_err("none").contains("no-such-program was not found"));
        assert!(answer("false", &[]).expect_err("a failure").contains("ended with"));
        assert_eq!(answer("echo", &["x"]), Ok("x\n".to_owned()));
    }
}
