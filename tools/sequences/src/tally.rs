//! Counts of events and outcomes over all sequences.
//!
//! Must never: call a run right that tried nothing.

use asmt_engine::operations::report::Verb;
use std::collections::BTreeMap;

/// Counts over all sequences.
#[derive(Default)]
pub struct Counts {
    /// Sequences.
    pub sequences: u64,
    /// Events.
    pub events: u64,
    /// Sequences with something wrong.
    pub wrong: u64,
    /// Sequences in which asmt could not know that the server had run.
    pub not_told: u64,
    /// Further counts, by name.
    pub others: BTreeMap<String, u64>,
}

impl Counts {
    /// Counts something under a name.
    pub fn add(&mut self, name: impl Into<String>) {
        *self.others.entry(name.into()).or_default() += 1;
    }

    /// Counts a run of asmt.
    pub fn run(&mut self, verb: Verb, is_analysis: bool, exit: Option<i32>) {
        let exit = exit.map_or("killed".to_owned(), |exit| exit.to_string());
        self.add(format!("run: {verb:?}{} {exit}", if is_analysis { " -a" } else { "" }));
    }

    /// Counts a restore by its case.
    pub fn case(&mut self, case: &str, exit: Option<i32>) {
        let exit = exit.map_or("killed".to_owned(), |exit| exit.to_string());
        self.add(format!("restore: {case}, exit {exit}"));
    }
}
