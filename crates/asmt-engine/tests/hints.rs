//! docs/HINTS.md explains every code of the engine.

use asmt_engine::error::{Code, Kind};
use std::collections::BTreeSet;

const TEXT: &str = include_str!("../../../docs/HINTS.md");

/// The cells of the first table that begin with a code: the code, and its kind with the exit
/// status.
fn rows() -> Vec<(&'static str, &'static str)> {
    let of_engine = TEXT.split("\n## ").find(|part| part.starts_with("Codes of the engine")).expect("a section");
    let cells = |line: &'static str| -> Option<(&str, &str)> {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        Some((cells.next()?.strip_suffix('`')?, cells.next()?))
    };
    of_engine.lines().filter_map(cells).collect()
}

#[test]
fn every_code_has_a_row_with_its_kind_and_exit_status() {
    let shown = |kind: Kind| match kind {
        Kind::Bug => "bug, 70",
        Kind::Interrupted => "interrupted, 130",
        Kind::Usage => "usage, 2",
        Kind::Damaged => "damaged, 5",
        Kind::Stale => "stale, 4",
        Kind::Refused => "refused, 3",
        Kind::NoRoom => "no room, 6",
        Kind::Failed => "failed, 1",
        Kind::NothingToDo => "nothing to do, 7",
    };
    let rows = rows();
    for code in Code::ALL {
        let row = rows.iter().find(|(found, _)| *found == code.as_str());
        assert_eq!(row.map(|(_, kind)| *kind), Some(shown(code.kind())), "{} in docs/HINTS.md", code.as_str());
    }
    let known: BTreeSet<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    assert!(rows.iter().all(|(found, _)| known.contains(found)), "a row of no code: {rows:?}");
    assert_eq!(rows.len(), known.len(), "a code with two rows");
}

/// A row has the states that lead to its code, the hint, and its effect.
#[test]
fn no_row_has_an_empty_cell() {
    for line in TEXT.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        // There is nothing outside of the first and the last bar.
        assert_eq!(cells.len(), 7, "{line}");
        assert!(cells[3..6].iter().all(|cell| !cell.is_empty()), "{line}");
    }
}
