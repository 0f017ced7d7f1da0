//! Chooses the states that are tried, and counts them and the wrong ones.
//!
//! Promise: each state has one label, by which it can be tried again alone. Must never: call a loop
//! right that tried nothing.

use asmt_engine::operations::report::Verb;
use asmt_kit::args::Args;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The options of the command line.
#[derive(Debug, Default)]
pub struct Options {
    only: Option<String>,
    verb: Option<String>,
    /// Fewer states.
    pub is_short: bool,
    part: Option<(u64, u64)>,
    limit: Option<Duration>,
    state: Option<String>,
}

impl Options {
    /// Reads the options of a command line.
    pub fn parse(args: &mut Args) -> Result<Self, String> {
        Ok(Self {
            only: args.text("only"),
            verb: args.text("verb"),
            is_short: args.flag("short"),
            part: args.part("part")?,
            limit: args.seconds("seconds")?,
            state: args.text("state"),
        })
    }

    /// Returns true if a loop, or one of its scenarios, is asked for.
    pub fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only == name || only.starts_with(&format!("{name}:")))
            && self.state.as_ref().is_none_or(|state| state.starts_with(&format!("{name}:")))
    }

    /// Number of the part of the states that is tried; 0 if all are.
    pub fn part_number(&self) -> usize {
        self.part.map_or(0, |(part, _)| usize::try_from(part).unwrap_or(0))
    }

    /// Returns true if all states are tried, by this part or by another one.
    pub fn is_whole(&self) -> bool {
        !self.is_short && self.limit.is_none() && self.state.is_none()
    }

    /// Returns true if an operation is asked for.
    pub fn wants_verb(&self, verb: Verb) -> bool {
        let name = serde_json::to_string(&verb).unwrap_or_default();
        self.verb.as_ref().is_none_or(|wanted| format!("\"{wanted}\"") == name)
    }
}

/// Counts the states of all loops.
pub struct Tally<'o> {
    /// The options.
    pub options: &'o Options,
    lines: u64,
    failed: u64,
    skipped: u64,
    states: u64,
}

/// Counts the states of one loop.
pub struct Count {
    name: String,
    since: Instant,
    states: u64,
    wrong: u64,
    words: BTreeMap<String, u64>,
    is_cut: bool,
}

/// Most wrong states per loop that are printed.
const MOST_PRINTED: u64 = 1000;

impl<'o> Tally<'o> {
    /// A count of nothing.
    pub fn new(options: &'o Options) -> Self {
        Self { options, lines: 0, failed: 0, skipped: 0, states: 0 }
    }

    /// Begins a loop. The name is the first part of its states' labels.
    pub fn begin(&self, name: impl Into<String>) -> Count {
        Count { name: name.into(), since: Instant::now(), states: 0, wrong: 0, words: BTreeMap::new(), is_cut: false }
    }

    /// Returns true if a scenario of a loop has states that are asked for.
    pub fn wants(&self, name: &str) -> bool {
        let is_only = |only: &String| only == name || name.starts_with(&format!("{only}:"));
        self.options.only.as_ref().is_none_or(is_only)
            && self.options.state.as_ref().is_none_or(|state| state.starts_with(&format!("{name}:")))
    }

    /// Returns true if the state is to be tried.
    pub fn tries(&self, count: &mut Count, label: &str) -> bool {
        if let Some(state) = &self.options.state {
            return *state == format!("{}:{label}", count.name);
        }
        if self.options.limit.is_some_and(|limit| count.since.elapsed() > limit) {
            count.is_cut = true;
            return false;
        }
        // By its name: how many states a part has seen depends on those that it tries.
        let share = |parts: u64| u64::from(crc32fast::hash(label.as_bytes())) % parts;
        self.options.part.is_none_or(|(part, parts)| share(parts) == part)
    }

    /// Counts a state that was tried.
    pub fn tried(&self, count: &mut Count, label: &str, word: &str, wrong: &[String]) {
        count.states += 1;
        *count.words.entry(word.to_owned()).or_default() += 1;
        if !wrong.is_empty() {
            count.wrong += 1;
            if count.wrong <= MOST_PRINTED {
                println!("# wrong: --state '{}:{label}'", count.name);
                wrong.iter().for_each(|text| println!("#   {text}"));
            }
        }
    }

    /// Ends a loop, and prints its line.
    pub fn finish(&mut self, count: Count) {
        self.lines += 1;
        self.states += count.states;
        let is_right = count.wrong == 0 && (count.states > 0 || self.options.part.is_some());
        self.failed += u64::from(!is_right);
        let words: Vec<String> = count.words.iter().map(|(word, states)| format!("{word} {states}")).collect();
        let cut = if count.is_cut { ", cut short by --seconds" } else { "" };
        println!(
            "{}ok {} - {}: {} states, {} wrong ({}){cut}",
            if is_right { "" } else { "not " },
            self.lines,
            count.name,
            count.states,
            count.wrong,
            words.join(", ")
        );
        eprintln!("  {} took {:.1} s", count.name, count.since.elapsed().as_secs_f64());
    }

    /// Prints the line of a loop that cannot run here.
    pub fn skip(&mut self, name: &str, why: &str) {
        if self.wants(name) {
            self.lines += 1;
            self.skipped += 1;
            println!("ok {} - {name} # SKIP {why}", self.lines);
        }
    }

    /// Prints the last line. Returns true if all states were right.
    pub fn end(self) -> bool {
        println!("1..{}", self.lines);
        println!("# {} states tried", self.states);
        let passed = self.lines - self.failed - self.skipped;
        println!("loops: {passed} passed, {} failed, {} skipped", self.failed, self.skipped);
        self.failed == 0 && self.lines > 0
    }
}
