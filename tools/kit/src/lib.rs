//! The code that the tools share: options, random numbers, threads, namespaces, mounts, and
//! temporary files.
//!
//! Must never: be shipped, or know anything about asmt or Aerospike.

pub mod args;
pub mod dice;
pub mod files;
pub mod mounts;
pub mod namespaces;
pub mod sys;
pub mod threads;

use std::fmt::Display;

/// Exit status of a tool that cannot run on this system.
pub const SKIPPED: u8 = 77;

/// Returns a function for `map_err` that puts the failed action, and the object of it if there is
/// one, in front of an error.
pub fn text_of<E: Display>(action: &str, object: impl Display) -> impl FnOnce(E) -> String {
    let text = format!("{action} {object}");
    move |error| format!("{}: {error}", text.trim_end())
}
