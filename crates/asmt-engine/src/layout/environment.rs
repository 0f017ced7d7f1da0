//! The environment file of the server's unit, read as systemd reads it. It may name the server's
//! configuration.
//!
//! Pure: text in, assignments out. Promise: any text gives a value, in time and memory linear in
//! it; each name has the value that systemd gives to the unit's process. Must never: panic, or
//! expand a variable, which systemd does not do in such a file either.

use std::collections::BTreeMap;

/// Reads the assignments of a file as systemd does for `EnvironmentFile=`. The last assignment to a
/// name wins.
///
/// Lines that begin with `#` or `;`, that have no `=`, or that have no valid name before it, are
/// ignored. Parts of a value may be quoted, over several lines. A backslash keeps the next
/// character, or continues a line. A comment ends with its line; systemd before version 254
/// continued it if it ended in a backslash.
pub fn environment_file(text: &str) -> BTreeMap<String, String> {
    let mut reader = EnvironmentReader::default();
    let mut place = Place::BeforeName;
    for char in text.chars() {
        place = reader.read(place, char);
    }
    // The end of the file also ends a line, a quoted value and a continued line.
    if !matches!(place, Place::BeforeName | Place::Name | Place::Comment | Place::CommentEscape) {
        reader.assign();
    }
    reader.found
}

/// The place of a character in an assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    BeforeName,
    Name,
    /// Before a value, or behind a quoted part of it.
    BeforeValue,
    Unquoted,
    UnquotedEscape,
    SingleQuoted,
    DoubleQuoted,
    DoubleQuotedEscape,
    Comment,
    CommentEscape,
}

#[derive(Default)]
struct EnvironmentReader {
    found: BTreeMap<String, String>,
    name: String,
    value: String,
    /// Length of the value in bytes without white space at its end that is neither quoted nor
    /// escaped.
    kept: usize,
}

impl EnvironmentReader {
    fn read(&mut self, place: Place, char: char) -> Place {
        // A carriage return ends a line, too.
        let is_end = matches!(char, '\n' | '\r');
        let is_white = is_end || matches!(char, ' ' | '\t');
        match (place, char) {
            (Place::BeforeName, '#' | ';') => Place::Comment,
            (Place::BeforeName, _) if is_white => Place::BeforeName,
            (Place::BeforeName, _) => self.push_name(char),
            (Place::Name, '=') => Place::BeforeValue,
            (Place::Name, _) if is_end => {
                self.name.clear();
                Place::BeforeName
            }
            (Place::Name, _) => self.push_name(char),
            (Place::BeforeValue | Place::Unquoted, _) if is_end => self.assign(),
            (Place::BeforeValue, '\'') => Place::SingleQuoted,
            (Place::BeforeValue, '"') => Place::DoubleQuoted,
            (Place::BeforeValue, _) if is_white => Place::BeforeValue,
            (Place::BeforeValue | Place::Unquoted, '\\') => {
                // White space before it is not at the end.
                self.kept = self.value.len();
                Place::UnquotedEscape
            }
            (Place::Unquoted, _) if is_white => {
                self.value.push(char);
                Place::Unquoted
            }
            (Place::UnquotedEscape, _) if is_end => Place::Unquoted,
            (Place::BeforeValue | Place::Unquoted | Place::UnquotedEscape, _) => self.keep(char, Place::Unquoted),
            (Place::SingleQuoted, '\'') | (Place::DoubleQuoted, '"') => Place::BeforeValue,
            (Place::DoubleQuoted, '\\') => Place::DoubleQuotedEscape,
            (Place::DoubleQuotedEscape, '\n') => Place::DoubleQuoted,
            (Place::DoubleQuotedEscape, '"' | '\\' | '`' | '$') => self.keep(char, Place::DoubleQuoted),
            (Place::DoubleQuotedEscape, _) => {
                self.keep('\\', Place::DoubleQuoted);
                self.keep(char, Place::DoubleQuoted)
            }
            (Place::SingleQuoted | Place::DoubleQuoted, _) => self.keep(char, place),
            (Place::Comment | Place::CommentEscape, _) if is_end => Place::BeforeName,
            (Place::Comment, '\\') => Place::CommentEscape,
            (Place::Comment | Place::CommentEscape, _) => Place::Comment,
        }
    }

    fn push_name(&mut self, char: char) -> Place {
        self.name.push(char);
        Place::Name
    }

    fn keep(&mut self, char: char, next: Place) -> Place {
        self.value.push(char);
        self.kept = self.value.len();
        next
    }

    fn assign(&mut self) -> Place {
        let name = std::mem::take(&mut self.name);
        let mut value = std::mem::take(&mut self.value);
        value.truncate(std::mem::take(&mut self.kept));
        let name = name.trim_end_matches([' ', '\t']);
        let is_first = |first: char| first.is_ascii_alphabetic() || first == '_';
        if name.starts_with(is_first) && name.chars().all(|char| char.is_ascii_alphanumeric() || char == '_') {
            self.found.insert(name.to_owned(), value);
        }
        Place::BeforeName
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_environment_file_is_read_as_systemd_reads_it() {
        // systemd 252 was seen to read each of these in this way, except for the comment that ends
        // in a backslash.
        for (text, expected) in [
            ("", &[][..]),
            ("A=b", &[("A", "b")]),
            ("# c\n; C=c\n  # B=c\n\nA=b\n", &[("A", "b")]),
            ("A\nB=c\n", &[("B", "c")]),
            ("# c\\\nA=b\n", &[("A", "b")]),
            ("# c\\\\\nA=b\n# c\\x\nB=c\n", &[("A", "b"), ("B", "c")]),
            ("A=b\nB=c\nA=d\n", &[("A", "d"), ("B", "c")]),
            ("A=b\r\nB=c\r\n", &[("A", "b"), ("B", "c")]),
            ("A=b\rB=c", &[("A", "b"), ("B", "c")]),
            ("  A \t=  b  # c  \n", &[("A", "b  # c")]),
            ("A=\nB=   \n", &[("A", ""), ("B", "")]),
            ("export A=b\n1A=b\nA B=b\nA-B=b\n=b\nA\nÄ=b\n_a1=b\n", &[("_a1", "b")]),
            ("A\n=b\nB=c\n", &[("B", "c")]),
            ("A\\=b\nB=c", &[("B", "c")]),
            ("\u{feff}A=b\nB=c", &[("B", "c")]),
            ("A=b=c\n", &[("A", "b=c")]),
            // Quotes count at the beginning, and behind another quoted part.
            ("A='x y' z 'q'\n", &[("A", "x yz 'q'")]),
            ("A=\"x\"\"y\"'z'\n", &[("A", "xyz")]),
            ("A=x\"y\"\n", &[("A", "x\"y\"")]),
            ("A=\"x \" \n", &[("A", "x ")]),
            ("A='x\\n\ny'\nB=c", &[("A", "x\\n\ny"), ("B", "c")]),
            ("A=\"a\\\"b\\c\\$d\\\\\\`\\\ne\" \n", &[("A", "a\"b\\c$d\\`e")]),
            ("A=\"x\\\r\ny\"\n", &[("A", "x\\\r\ny")]),
            ("A='x\nB=c", &[("A", "x\nB=c")]),
            ("A=\"x\\", &[("A", "x")]),
            // A backslash keeps a character, or continues a line.
            ("A=a \\b\n", &[("A", "a b")]),
            ("A=a\\\nb\n", &[("A", "ab")]),
            ("A=a \\\n b\n", &[("A", "a  b")]),
            ("A=a \\\n\nB=c\n", &[("A", "a "), ("B", "c")]),
            ("A=x\\ \n", &[("A", "x ")]),
            ("A= \\ x \n", &[("A", " x")]),
            ("A=x\\\r\nB=c\n", &[("A", "x"), ("B", "c")]),
            ("A=x\\\nB=c\n", &[("A", "xB=c")]),
            ("A=x \\", &[("A", "x ")]),
            (
                "# asd\nASD_CONFIG_FILE=/etc/aerospike/other.conf\nASD_OPTIONS=\"--instance 3 --cold-start\"\n",
                &[("ASD_CONFIG_FILE", "/etc/aerospike/other.conf"), ("ASD_OPTIONS", "--instance 3 --cold-start")],
            ),
        ] {
            let expected = expected.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
            assert_eq!(environment_file(text), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_environment_file_gives_valid_names_and_no_more_than_its_text(text in "\\PC*|[AB= \\\\\"'#;\n\r]{0,60}") {
            let found = environment_file(&text);
            prop_assert!(found.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() <= text.len());
            prop_assert!(found.keys().all(|name| text.contains(name.as_str()) && !name.is_empty() && !name.contains(['=', ' '])));
        }
    }
}
