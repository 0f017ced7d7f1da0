//! The words of a line of `aerospike.conf`, and the checks of a word.
//!
//! Pure. Promise: a word is refused if the server would refuse it, or if it is not certain how the
//! server reads it. Must never: panic, or repeat a long word in full.

/// Most characters of a word that a message repeats.
pub(super) const MAX_SHOWN_CHARS: usize = 64;
/// Character strings of common template languages; none is part of a name in a configuration.
const TEMPLATE_MARKS: [&str; 7] = ["{{", "}}", "{%", "%}", "${", "<%", "%>"];

/// The words of a line without its line end.
///
/// Errors: the line is not text. A comment may be in any character set: the server does not read
/// it.
pub(super) fn words_of(line: &[u8]) -> Result<Vec<&str>, String> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match line.iter().find(|&&byte| byte.is_ascii_control() && byte != b'\t') {
        Some(b'\r') => return Err("a carriage return within a line; expected it only at the end of a line".to_owned()),
        Some(byte) => return Err(format!("a control byte 0x{byte:02x}; expected a text file")),
        None => {}
    }
    let end = line.iter().position(|&byte| byte == b'#').unwrap_or(line.len());
    let text = std::str::from_utf8(&line[..end]).map_err(|_| "bytes that are not UTF-8; expected a text file".to_owned())?;
    // It is not known whether the server takes them for part of a word or for white space.
    let is_odd = |char: &char| char.is_control() && *char != '\t' || char.is_whitespace() && !char.is_ascii();
    if let Some(char) = text.chars().find(is_odd) {
        return Err(format!("a character U+{:04X}; expected only spaces and tabs between words", u32::from(char)));
    }
    Ok(text.split_ascii_whitespace().collect())
}

/// Checks the first word of a line: all names of the server are lower case.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let is_name_byte = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    if name.starts_with(|first: char| first.is_ascii_lowercase()) && name.bytes().all(is_name_byte) {
        return Ok(());
    }
    let found = shown(name);
    Err(if name == "{" {
        "a '{' on a line of its own; expected it at the end of the line that opens the section".to_owned()
    } else if is_template(name) {
        template(name)
    } else if matches!(name, "---" | "-" | "%YAML") || name.ends_with(':') {
        format!("{found} is YAML; expected the classic configuration format, such as 'namespace NAME {{'")
    } else if name.contains(['{', '}']) {
        format!("{found} has a brace in it; expected a name, and a space before '{{'")
    } else {
        format!("{found} is not a setting name; expected lower-case letters, digits and '-'")
    })
}

/// Checks a later word: none of them may be a brace, except for a `{` at the end.
pub(super) fn check_value(value: &str) -> Result<(), String> {
    match value {
        "{" => Err("a '{' within a line; expected it at the end, and the section's lines below".to_owned()),
        "}" => Err("a '}' after other words; expected it on a line of its own".to_owned()),
        _ if TEMPLATE_MARKS.contains(&value) => Err(template(value)),
        _ => Ok(()),
    }
}

pub(super) fn is_template(word: &str) -> bool {
    TEMPLATE_MARKS.iter().any(|mark| word.contains(mark))
}

/// Returns the refusal of a word that is part of a template.
pub fn template(word: &str) -> String {
    format!("{} is part of a template; expected the file that the server reads", shown(word))
}

/// Returns the number that a value stands for: digits, and `K`, `M`, `G` or `T` for powers of 1024.
pub(super) fn number_of(text: &str) -> Option<u64> {
    let shift = match text.bytes().last()?.to_ascii_uppercase() {
        b'K' => 10,
        b'M' => 20,
        b'G' => 30,
        b'T' => 40,
        _ => 0,
    };
    let digits = if shift == 0 { text } else { &text[..text.len() - 1] };
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse::<u64>().ok().filter(|_| is_number)?.checked_mul(1 << shift)
}

pub(super) fn one_value<'t>(name: &str, values: &[&'t str], expected: &str) -> Result<&'t str, String> {
    match values {
        [value] => Ok(value),
        [] => Err(format!("'{name}' has no value; expected {expected}")),
        _ => Err(too_many(name, values, expected)),
    }
}

pub(super) fn too_many(name: &str, values: &[&str], expected: &str) -> String {
    match values.iter().find(|value| is_template(value)) {
        Some(value) => template(value),
        None => format!("'{name}' has {} values; expected {expected}", values.len()),
    }
}

pub(super) fn set_once(slot: &mut Option<String>, name: &str, value: &str) -> Result<(), String> {
    if slot.is_some() {
        return Err(format!("a second '{name}'; expected one: which of them the server uses is unknown"));
    }
    *slot = Some(value.to_owned());
    Ok(())
}

/// Quotes a word, and cuts it if it is long.
pub(super) fn shown(word: &str) -> String {
    match word.char_indices().nth(MAX_SHOWN_CHARS) {
        Some((end, _)) => format!("'{}...'", &word[..end]),
        None => format!("'{word}'"),
    }
}
