//! The directories that a boot empties: lines of type `D` and `R` in `tmpfiles.d(5)`.
//!
//! Promise: a directory that systemd-tmpfiles would empty or remove at boot is reported with the
//! configuration file, as far as these files can be read. Must never: expand specifiers (`%h`): a
//! line with one is skipped.

use crate::error::Result;
use crate::sys::{dir, procfs};
use glob::{MatchOptions, Pattern};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Directories of configuration. A file hides those of the same name in the later directories.
const DIRECTORIES: [&str; 4] = ["/etc/tmpfiles.d", "/run/tmpfiles.d", "/usr/local/lib/tmpfiles.d", "/usr/lib/tmpfiles.d"];

/// A name that each backup has, or a similar one: a line may be about the files in a directory.
const A_FILE: &str = "ae001000.dat";

/// The configuration file by which `directory` (absolute, without links) is emptied or removed at
/// boot, if there is one.
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

/// Returns true if a line of a configuration lets `directory`, one above it, or the files in it be
/// removed at boot.
fn empties(text: &str, directory: &Path) -> bool {
    text.lines().filter_map(line_of).any(|(kind, path)| match kind {
        // Its contents are removed.
        'D' => directory.starts_with(Path::new(path)),
        'R' => directory.ancestors().any(|above| matches(path, above)) || matches(path, &directory.join(A_FILE)),
        'r' => matches(path, &directory.join(A_FILE)),
        _ => false,
    })
}

/// Returns type and path of a line: `D! /tmp 1777 root root -`. Modifiers decide when and how, but
/// not whether.
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

/// Returns true if a pattern of glob(7) matches a path.
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
        // The file in Debian.
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
