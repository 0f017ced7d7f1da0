//! Options of the form `--name value`, `--name=value` and `--name`, and sizes as people write them.
//!
//! Promise: an option that no command asked for is an error. Must never: guess.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::process::ExitCode;
use std::time::Duration;

/// Exit status of a tool whose options cannot be read.
const USAGE_STATUS: u8 = 2;

/// The words behind the program's name.
pub fn words() -> Vec<String> {
    std::env::args().skip(1).collect()
}

/// Reports on standard error why a tool has failed, and returns exit status 1.
pub fn failure(program: &str, error: impl Display) -> ExitCode {
    eprintln!("{program}: {error}");
    ExitCode::FAILURE
}

/// The command line of a tool that has options and no commands.
pub struct Tool<'a> {
    /// Name of the program.
    pub program: &'a str,
    /// What `--help` prints.
    pub usage: &'a str,
    /// Options that take no value.
    pub flags: &'a [&'a str],
}

impl Tool<'_> {
    /// Prints the usage if the words ask for help; else runs the tool with the options that `parse`
    /// reads from them. Words that cannot be read are reported with the usage, and end the tool by
    /// exit status 2.
    pub fn run<O>(
        &self,
        words: &[String],
        parse: impl FnOnce(&mut Args) -> Result<O, String>,
        run: impl FnOnce(&O) -> ExitCode,
    ) -> ExitCode {
        if words.iter().any(|word| word == "--help") {
            println!("{}", self.usage.trim_end());
            return ExitCode::SUCCESS;
        }
        match self.options(words, parse) {
            Ok(options) => run(&options),
            Err(text) => {
                eprintln!("{}: {text}\n\n{}", self.program, self.usage);
                ExitCode::from(USAGE_STATUS)
            }
        }
    }

    fn options<O>(&self, words: &[String], parse: impl FnOnce(&mut Args) -> Result<O, String>) -> Result<O, String> {
        let mut args = Args::parse(words, self.flags)?;
        let options = parse(&mut args)?;
        args.end().map(|()| options)
    }
}

/// The options of a command line. Each can be taken once.
pub struct Args {
    values: BTreeMap<String, Option<String>>,
}

impl Args {
    /// Reads options; those in `flags` take no value.
    pub fn parse(words: &[String], flags: &[&str]) -> Result<Self, String> {
        let mut values = BTreeMap::new();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let name = word.strip_prefix("--").ok_or_else(|| format!("{word:?} is no option"))?;
            let value = match (name.split_once('='), flags.contains(&name)) {
                (Some((_, value)), _) => Some(value.to_owned()),
                (None, true) => None,
                (None, false) => Some(words.next().ok_or_else(|| format!("--{name} takes a value"))?.clone()),
            };
            values.insert(name.split('=').next().unwrap_or(name).to_owned(), value);
        }
        Ok(Self { values })
    }

    /// Returns true if a flag was given.
    pub fn flag(&mut self, name: &str) -> bool {
        self.values.remove(name).is_some()
    }

    /// The text of an option.
    pub fn text(&mut self, name: &str) -> Option<String> {
        self.values.remove(name).flatten()
    }

    /// The value of an option, read by `read`, or its default.
    pub fn get<T>(&mut self, name: &str, default: T, read: impl Fn(&str) -> Option<T>) -> Result<T, String> {
        match self.text(name) {
            Some(text) => read(&text).ok_or_else(|| format!("--{name} {text:?} cannot be read")),
            None => Ok(default),
        }
    }

    /// A number.
    pub fn number<T: std::str::FromStr>(&mut self, name: &str, default: T) -> Result<T, String> {
        self.get(name, default, |text| text.parse().ok())
    }

    /// A size in bytes.
    pub fn size(&mut self, name: &str, default: u64) -> Result<u64, String> {
        self.get(name, default, size_of)
    }

    /// A number of seconds.
    pub fn seconds(&mut self, name: &str) -> Result<Option<Duration>, String> {
        self.get(name, None, |text| text.parse().ok().map(|seconds| Some(Duration::from_secs(seconds))))
    }

    /// A part of the work: `I/N` is part I, counted from 0, of N parts.
    pub fn part(&mut self, name: &str) -> Result<Option<(u64, u64)>, String> {
        let read = |text: &str| {
            let (part, parts) = text.split_once('/')?;
            let (part, parts): (u64, u64) = (part.parse().ok()?, parts.parse().ok()?);
            (part < parts).then_some(Some((part, parts)))
        };
        self.get(name, None, read)
    }

    /// Fails if an option is left that no command asked for.
    pub fn end(self) -> Result<(), String> {
        self.values.into_keys().next().map_or(Ok(()), |name| Err(format!("--{name} is not known here")))
    }
}

/// Reads `65536`, `64KiB`, `1MiB`, `4GiB`, `2TiB`.
pub fn size_of(text: &str) -> Option<u64> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];
    let (digits, shift) =
        units.iter().find_map(|(unit, shift)| text.strip_suffix(unit).map(|digits| (digits, *shift))).unwrap_or((text, 0));
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Reads `ae001000` and `0xae001000`.
pub fn key_of(text: &str) -> Option<u32> {
    u32::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok()
}

/// Reads octal digits.
pub fn mode_of(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777)
}

/// Reads pairs of hex digits.
pub fn bytes_of(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_keys_and_bytes_are_read() {
        assert_eq!(
            (size_of("65536"), size_of("64KiB"), size_of("5GiB"), size_of("1MB")),
            (Some(65_536), Some(65_536), Some(5 << 30), None)
        );
        assert_eq!((key_of("0xae001000"), key_of("ae001000"), key_of("x")), (Some(0xae00_1000), Some(0xae00_1000), None));
        assert_eq!((bytes_of("00ff"), bytes_of("0"), bytes_of("zz")), (Some(vec![0, 255]), None, None));
    }

    #[test]
    fn what_nobody_asked_for_is_an_error() {
        let words: Vec<String> = ["--a", "1", "--f", "--b=2"].map(str::to_owned).to_vec();
        let mut args = Args::parse(&words, &["f"]).expect("options");
        assert!(args.flag("f"));
        assert_eq!((args.number("a", 0), args.number("b", 0), args.number("c", 9)), (Ok(1), Ok(2), Ok(9)));
        assert_eq!(args.end(), Ok(()));
        assert!(Args::parse(&words, &["f"]).expect("options").end().is_err());
    }

    #[test]
    fn a_part_is_one_of_its_number() {
        let part = |text: &str| Args::parse(&["--part".to_owned(), text.to_owned()], &[]).expect("options").part("part");
        assert_eq!((part("0/2"), part("1/2")), (Ok(Some((0, 2))), Ok(Some((1, 2)))));
        assert!(["2/2", "0/0", "1", "a/2", ""].iter().all(|text| part(text).is_err()));
        assert_eq!(Args::parse(&[], &[]).expect("options").part("part"), Ok(None));
    }

    #[test]
    fn a_tool_reads_its_options_or_says_why_not() {
        let tool = Tool { program: "tool", usage: "tool: does nothing", flags: &["f"] };
        let read = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            tool.options(&words, |args| Ok((args.flag("f"), args.seconds("seconds")?)))
        };
        assert_eq!(read(&["--f", "--seconds", "3"]), Ok((true, Some(Duration::from_secs(3)))));
        assert!(read(&["--seconds", "x"]).is_err() && read(&["--g", "1"]).is_err());
    }
}
