//! The lines of a manifest, and why one is not taken.

use serde::{Deserialize, Serialize};

/// Why a manifest was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManifestError {
    /// Its format has this version, and this program reads up to
    /// [`crate::format::MANIFEST_VERSION`].
    TooNew(u32),
    /// Anything else; the text says what was found and expected.
    Damaged(String),
}

/// A manifest that is damaged.
pub fn damaged(text: impl Into<String>) -> ManifestError {
    ManifestError::Damaged(text.into())
}

/// Reads a line. The error says which one it is.
pub fn line_of<'a, T: Deserialize<'a>>(line: &'a str, what: &str) -> Result<T, ManifestError> {
    serde_json::from_str(line).map_err(|error| damaged(format!("{what}: {error}")))
}

/// A line as it stands in the file.
pub fn json_line(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain structures always serialise") + "\n"
}
