//! Pseudo-random numbers and decisions: fast, and the same for the same seed on every machine.

/// SplitMix64: a counter whose bits are mixed by shifts and multiplications.
#[derive(Clone)]
pub struct Rng(u64);

impl Rng {
    /// The sequence of a pair of numbers. Each pair has another one.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut mixed = Self(seed ^ stream.wrapping_mul(0xd6e8_feb8_6659_fd93));
        mixed.0 = mixed.next();
        mixed
    }

    /// The sequence that begins at this state of the counter.
    pub fn starting_at(counter: u64) -> Self {
        Self(counter)
    }

    /// 64 random bits.
    #[expect(clippy::should_implement_trait, reason = "they never end")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound` (which is far below 2^64, so that the bias does not matter).
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next() % bound }
    }
}

/// A source of decisions.
pub struct Dice(Rng);

impl Dice {
    /// Decisions that are made with the numbers of this sequence.
    pub fn new(rng: Rng) -> Self {
        Self(rng)
    }

    /// 64 random bits, never 0.
    pub fn bits(&mut self) -> u64 {
        self.0.next().max(1)
    }

    /// A number below `bound`; 0 if `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.0.below(bound as u64)).unwrap_or(0)
    }

    /// Returns true in `percent` of a hundred cases.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of several choices, by their weights; `None` if all weights are 0.
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

    /// A time span in seconds, from one second to about a month: short ones are as likely as long
    /// ones.
    pub fn seconds(&mut self) -> i64 {
        let most = 1_usize << self.below(22);
        1 + i64::try_from(self.below(most)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first numbers of SplitMix64, as its authors' program prints them for the seed 0.
    #[test]
    fn the_numbers_are_those_of_splitmix64() {
        let mut rng = Rng::starting_at(0);
        let numbers = [rng.next(), rng.next(), rng.next()];
        assert_eq!(numbers, [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4, 0x06c4_5d18_8009_454f]);
    }

    #[test]
    fn a_choice_without_weight_is_never_made() {
        let mut dice = Dice::new(Rng::new(1, 2));
        assert!((0..100).all(|_| dice.pick(vec![(0, "never"), (1, "always")]) == Some("always")));
        assert_eq!((dice.pick(vec![(0, "never")]), dice.below(0)), (None, 0));
    }
}
