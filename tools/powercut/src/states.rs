//! The states that a power cut could leave, chosen from the shape of a log. Pure.
//!
//! Promise: every prefix of the log, and for each cut random subsets of the writes since the last
//! flush; the same seed chooses the same states of the same log. Must never: drop a write that was
//! followed by a flush.

use crate::disk::{Kept, blocks_of};
use asmt_kit::dice::{Dice, Rng};

/// An entry of the log, without the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A write: its offset and length in bytes.
    Write(u64, usize),
    /// A flush.
    Flush,
    /// A mark.
    Mark(String),
}

/// A state to lay out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Entries before the cut.
    pub cut: usize,
    /// Entries before the last flush before the cut, and that flush.
    pub durable_count: usize,
    /// The writes between the two that are kept.
    pub kept: Vec<Kept>,
    /// Success had been reported.
    pub is_after: bool,
    /// All of these writes are kept.
    pub is_prefix: bool,
}

/// The decisions that a seed makes.
pub fn dice_of(seed: u64) -> Dice {
    Dice::new(Rng::starting_at(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5bd1_e995))
}

/// Every state to try, sorted by cuts. If there are more than `most`, that many of them, spread
/// evenly.
pub fn plan(log: &[Shape], success: &str, subsets: usize, most: usize, dice: &mut Dice) -> Vec<State> {
    let mut states = Vec::new();
    let mut durable_count = 0;
    let mut is_after = false;
    for cut in 0..=log.len() {
        match cut.checked_sub(1).map(|last| &log[last]) {
            Some(Shape::Flush) => durable_count = cut,
            Some(Shape::Mark(text)) => is_after |= text == success,
            _ => {}
        }
        let unflushed: Vec<usize> = (durable_count..cut).filter(|entry| matches!(log[*entry], Shape::Write(..))).collect();
        let whole = |entry: &usize| Kept { entry: *entry, first: 0, count: blocks_at(log, *entry) };
        let state = |kept: Vec<Kept>, is_prefix| State { cut, durable_count, kept, is_after, is_prefix };
        states.push(state(unflushed.iter().map(whole).collect(), true));
        // One write alone is there or not: both are prefixes.
        if unflushed.len() > 1 {
            states.push(state(Vec::new(), false));
            for _ in 0..subsets {
                states.push(state(subset(log, &unflushed, dice), false));
            }
        }
    }
    if states.len() > most {
        let step = states.len() as f64 / most as f64;
        let chosen = (0..most).map(|index| states[(index as f64 * step) as usize].clone());
        let last = states[states.len() - 1].clone();
        return chosen.take(most.saturating_sub(1)).chain([last]).collect();
    }
    states
}

fn blocks_at(log: &[Shape], entry: usize) -> usize {
    match log[entry] {
        Shape::Write(offset, length) => blocks_of(offset, length),
        _ => 0,
    }
}

/// Keeps each write with the same probability, now and then only a part of it; or all writes but
/// one.
fn subset(log: &[Shape], unflushed: &[usize], dice: &mut Dice) -> Vec<Kept> {
    let quarters = dice.below(5);
    let dropped = dice.below(unflushed.len());
    let mut kept = Vec::new();
    for (index, entry) in unflushed.iter().enumerate() {
        let is_kept = if quarters == 4 { index != dropped } else { dice.below(4) <= quarters };
        let count = blocks_at(log, *entry);
        if !is_kept {
            continue;
        }
        if count > 1 && dice.below(4) == 0 {
            let first = dice.below(count);
            kept.push(Kept { entry: *entry, first, count: 1 + dice.below(count - first) });
        } else {
            kept.push(Kept { entry: *entry, first: 0, count });
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> Vec<Shape> {
        let write = |number: u64| Shape::Write(number * 4096, 16_384);
        vec![
            write(0),
            write(9),
            Shape::Flush,
            write(20),
            write(30),
            write(40),
            Shape::Mark("success".to_owned()),
            Shape::Flush,
            write(50),
        ]
    }

    #[test]
    fn every_prefix_is_there_and_nothing_flushed_is_dropped() {
        let states = plan(&log(), "success", 6, usize::MAX, &mut dice_of(3));
        let prefixes: Vec<usize> = states.iter().filter(|state| state.is_prefix).map(|state| state.cut).collect();
        assert_eq!(prefixes, (0..=9).collect::<Vec<_>>());
        let flush_before = [0, 0, 0, 3, 3, 3, 3, 3, 8, 8];
        for state in &states {
            assert_eq!(state.durable_count, flush_before[state.cut]);
            assert_eq!(state.is_after, state.cut >= 7, "{state:?}");
            assert!(state.kept.iter().all(|kept| (state.durable_count..state.cut).contains(&kept.entry)), "{state:?}");
        }
        assert!(states.iter().any(|state| state.cut == 7 && !state.is_prefix && state.kept.len() == 2), "subsets");
        assert!(states.iter().any(|state| state.kept.iter().any(|kept| kept.count < 4)), "torn writes");
        assert_eq!(states, plan(&log(), "success", 6, usize::MAX, &mut dice_of(3)));
        assert_ne!(states, plan(&log(), "success", 6, usize::MAX, &mut dice_of(4)));
    }

    #[test]
    fn a_bounded_plan_keeps_its_order_and_its_end() {
        let some = plan(&log(), "success", 6, 12, &mut dice_of(3));
        assert_eq!((some.len(), some.last().map(|state| state.cut)), (12, Some(9)));
        assert!(some.is_sorted_by_key(|state| state.cut));
    }
}
