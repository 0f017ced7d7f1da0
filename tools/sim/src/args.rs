//! Options of the form `--name value` and `--name`, and sizes as people write them.
//!
//! Promise: an option that no command asked for is an error. Must never: guess.

use std::collections::BTreeMap;

/// What was typed behind the command word.
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

    /// Whether a flag was given.
    pub fn flag(&mut self, name: &str) -> bool {
        self.values.remove(name).is_some()
    }

    /// The text of an option.
    pub fn text(&mut self, name: &str) -> Option<String> {
        self.values.remove(name).flatten()
    }

    /// An option read by `read`, or its default.
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

    /// Fails if something is left that nobody asked for.
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
}
