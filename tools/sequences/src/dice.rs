//! Everything that is drawn: the same seed gives the same sequence.

use asmt_sim::rng::Rng;

/// A source of decisions.
pub struct Dice(Rng);

impl Dice {
    /// That of a sequence.
    pub fn new(seed: u64) -> Self {
        Self(Rng::new(seed, 0x5e9))
    }

    /// 64 random bits, never 0.
    pub fn bits(&mut self) -> u64 {
        self.0.next().max(1)
    }

    /// A number below `bound`; 0 if `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.0.below(bound as u64)).unwrap_or(0)
    }

    /// Returns true in so many of a hundred cases.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of several, by their weights; none if all weights are 0.
    pub fn pick<T>(&mut self, choices: Vec<(usize, T)>) -> Option<T> {
        let sum = choices.iter().map(|(weight, _)| weight).sum();
        let mut at = self.below(sum);
        for (weight, choice) in choices {
            if at < weight {
                return Some(choice);
            }
            at -= weight;
        }
        None
    }

    /// A time span, seconds: from one second to about a month, short ones as often as long ones.
    pub fn seconds(&mut self) -> i64 {
        let most = 1_usize << self.below(22);
        1 + i64::try_from(self.below(most)).unwrap_or(0)
    }
}
