//! Which directories a boot empties: lines of type `D` and `R` in `tmpfiles.d(5)`.
//!
//! Promise: a directory that systemd-tmpfiles would empty or remove at boot is named with the file
//! that says so, as far as these files can be read. Must never: expand specifiers (`%h`): a line
//! with one is passed over.

use crate::error::Result;
use crate::sys::{dir, procfs};
use glob::{MatchOptions, Pattern};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Directories of configuration; a file hides one of the same name in a directory further down.
const DIRECTORIES: [&str; 4] = ["/etc/tmpfiles.d", "/run/tmpfiles.d", "/usr/local/lib/tmpfiles.d", "/usr/lib/tmpfiles.d"];

/// A name that each backup has, or one like it: a line may be about the files in a directory.
const A_FILE: &str = "ae001000.dat";

/// The configuration that has `directory` (absolute, without links) emptied or removed at boot, if
/// one does.
///
/// Errors: failed calls.
pub fn emptied_by(directory: &Path) -> Result<Option<PathBuf>> {
    let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
    for place in DIRECTORIES.iter().map(Path::new).filter(|place| place.is_dir()) {
        for name in dir::names_of(place)?.into_iter().filter(|name| name.ends_with(".conf")) {
            files.entry(name.clone()).or_insert_with(|| place.join(name));
        }
    }
    for path in files.into_values() {
        // A link to nowhere, or to /dev/null, hides a file.
        let Some(text) = procfs::text_if_visible(&path)? else { continue };
        if empties(&text, directory) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Whether a line of a configuration has `directory`, one above it, or the files in it removed at
/// boot.
fn empties(text: &str, directory: &Path) -> bool {
    text.lines().filter_map(line_of).any(|(kind, path)| match kind {
        // What is in it is removed.
        'D' => directory.starts_with(Path::new(path)),
        'R' => directory.ancestors().any(|above| matches(path, above)) || matches(path, &directory.join(A_FILE)),
        'r' => matches(path, &directory.join(A_FILE)),
        _ => false,
    })
}

/// Type and path of a line: `D! /tmp 1777 root root -`. Modifiers say when and how, and not
/// whether.
fn line_of(line: &str) -> Option<(char, &str)> {
    let line = line.trim();
    let (kind, rest) = line.split_once(char::is_whitespace).filter(|_| !line.starts_with('#'))?;
    let rest = rest.trim_start();
    let path = match rest.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next()?,
        None => rest.split_whitespace().next()?,
    };
    (path.starts_with('/') && !path.contains('%')).then_some((kind.chars().next()?, path))
}

/// Whether a pattern as of glob(7) matches a path.
fn matches(pattern: &str, path: &Path) -> bool {
    let options = MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };
    let pattern = pattern.trim_end_matches('/');
    Pattern::new(pattern).is_ok_and(|pattern| pattern.matches_path_with(path, options))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_empty_a_directory_at_boot() {
        let empties = |line: &str, directory: &str| empties(line, Path::new(directory));
        // As Debian has it.
        let debian = "# comment\nD /tmp 1777 root root -\n#q /var/tmp 1777 root root 30d\n";
        assert!(empties(debian, "/tmp") && empties(debian, "/tmp/b/c"));
        assert!(!empties(debian, "/tmpfs") && !empties(debian, "/var/tmp/b") && !empties(debian, "/"));
        for line in ["D! /srv", "R! /srv/b", "R /srv/*", "R /s?v", "r /srv/b/*.dat", "R \"/srv/b\"", "R /srv/b/", "R /srv/b/*"] {
            assert!(empties(line, "/srv/b"), "{line}");
        }
        for line in
            ["d /srv", "R /srv/*/c/d", "r /srv/b", "R /srv/.*", "D %h", "D srv", "D", "q /srv - - - 1d", "#D /srv", "R /srv/["]
        {
            assert!(!empties(line, "/srv/b"), "{line}");
        }
    }
}
