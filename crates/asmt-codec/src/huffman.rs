//! Huffman codes as deflate wants them: canonical, of bounded length, most significant bit first in
//! the stream.
//!
//! Promise: lengths that make a complete code (RFC 1951, 3.2.2) for any frequencies. Must never:
//! exceed the bound asked for.

/// Bits of deflate's longest code.
pub const MAX_BITS: usize = 15;
/// Bits that any symbol's number has.
const SYMBOL_BITS: u32 = 16;
/// In this order the lengths of the code for lengths stand in a block's header (RFC 1951, 3.2.7).
pub const LENGTH_ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// A symbol's code: bits as they go into the stream, lowest first, and how many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Code {
    /// The bits.
    pub bits: u16,
    /// How many; 0 for a symbol that has no code.
    pub length: u8,
}

/// Code lengths for symbols of these frequencies, none longer than `max_bits`; 0 for those that do
/// not occur.
///
/// `max_bits` is at most [`MAX_BITS`], and 2^`max_bits` at least the number of symbols that occur.
pub fn lengths(frequencies: &[u32], max_bits: usize) -> Vec<u8> {
    let mut lengths = vec![0; frequencies.len()];
    // Frequency and symbol in a word: sorted faster than by a key of two.
    let words = frequencies.iter().zip(0u64..).filter(|(frequency, _)| **frequency > 0);
    let mut sorted: Vec<u64> = words.map(|(frequency, symbol)| u64::from(*frequency) << SYMBOL_BITS | symbol).collect();
    sorted.sort_unstable();
    let symbol_of = |word: &u64| (word & ((1 << SYMBOL_BITS) - 1)) as usize;
    if sorted.len() < 2 {
        // A code of one symbol still needs a bit.
        sorted.iter().for_each(|word| lengths[symbol_of(word)] = 1);
        return lengths;
    }
    let weights = sorted.iter().map(|word| word >> SYMBOL_BITS).collect();
    let counts = bounded(&depth_counts(weights), max_bits);
    // The most frequent get the shortest.
    let mut rarest_last = sorted.iter().rev();
    for (length, count) in (0u8..).zip(counts) {
        rarest_last.by_ref().take(count).for_each(|word| lengths[symbol_of(word)] = length);
    }
    lengths
}

/// How many leaves an optimal tree has at each depth; frequencies ascend (Moffat and Katajainen, in
/// place).
fn depth_counts(mut weights: Vec<u64>) -> Vec<usize> {
    let count = weights.len();
    // First the weight of each inner node, then in its place the index of its parent.
    let (mut leaf, mut root) = (0, 0);
    for next in 0..count - 1 {
        let mut take = |weights: &mut Vec<u64>| {
            if leaf >= count || (root < next && weights[root] < weights[leaf]) {
                let weight = weights[root];
                weights[root] = next as u64;
                root += 1;
                weight
            } else {
                leaf += 1;
                weights[leaf - 1]
            }
        };
        let pair = take(&mut weights) + take(&mut weights);
        weights[next] = pair;
    }
    // Then the depth of each inner node.
    weights[count - 2] = 0;
    for node in (0..count - 2).rev() {
        weights[node] = weights[usize::try_from(weights[node]).unwrap_or(0)] + 1;
    }
    // At each depth there is room for twice the inner nodes above it; what is not inner there is a
    // leaf.
    let mut inner = vec![0; count];
    weights[..count - 1].iter().for_each(|depth| inner[usize::try_from(*depth).unwrap_or(0)] += 1);
    let deepest = inner.iter().rposition(|count| *count > 0).unwrap_or(0) + 1;
    let mut counts = vec![0; deepest + 1];
    let mut room = 1;
    for (depth, leaves) in counts.iter_mut().enumerate() {
        let here = inner.get(depth).copied().unwrap_or(0);
        *leaves = room - here;
        room = 2 * here;
    }
    counts
}

/// Moves leaves that are too deep up, and others down to make room for them.
fn bounded(counts: &[usize], max_bits: usize) -> Vec<usize> {
    let mut bounded: Vec<usize> = (0..=max_bits).map(|depth| counts.get(depth).copied().unwrap_or(0)).collect();
    bounded[max_bits] += counts.iter().skip(max_bits + 1).sum::<usize>();
    let mut used: usize = bounded.iter().enumerate().map(|(depth, count)| count << (max_bits - depth)).sum();
    while used > 1 << max_bits {
        bounded[max_bits] -= 1;
        let depth = (1..max_bits).rev().find(|depth| bounded[*depth] > 0).expect("there is room for all symbols");
        bounded[depth] -= 1;
        bounded[depth + 1] += 2;
        used -= 1;
    }
    bounded
}

/// The canonical codes of these lengths.
pub fn codes(lengths: &[u8]) -> Vec<Code> {
    each_code(lengths).collect()
}

/// The same, one after the other, with nothing allocated. The lengths must not ask for more codes
/// than there are.
pub fn each_code(lengths: &[u8]) -> impl Iterator<Item = Code> {
    let mut next = [0u16; MAX_BITS + 2];
    for length in lengths.iter().filter(|length| **length > 0) {
        next[usize::from(*length) + 1] += 1;
    }
    for length in 1..next.len() {
        next[length] = (next[length] + next[length - 1]) << 1;
    }
    let mut code_of = move |length: u8| {
        let code = &mut next[usize::from(length)];
        *code += 1;
        Code { bits: (*code - 1).reverse_bits() >> (16 - u32::from(length)), length }
    };
    lengths.iter().map(move |length| if *length == 0 { Code::default() } else { code_of(*length) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kraft(lengths: &[u8]) -> u64 {
        lengths.iter().filter(|length| **length > 0).map(|length| 1 << (MAX_BITS - usize::from(*length))).sum()
    }

    #[test]
    fn codes_are_complete_bounded_and_short_where_it_counts() {
        let fibonacci: Vec<u32> =
            (0..40).scan((1, 1), |(a, b), _| Some(std::mem::replace(a, std::mem::replace(b, *a + *b)))).collect();
        for frequencies in [vec![1; 286], vec![5, 9], vec![0, 3, 0, 1, 1000, 7], fibonacci, (1..=286).map(|n| n * n).collect()] {
            for max_bits in [9, 12, MAX_BITS] {
                let lengths = lengths(&frequencies, max_bits);
                assert_eq!(kraft(&lengths), 1 << MAX_BITS, "{frequencies:?}");
                assert!(lengths.iter().all(|length| usize::from(*length) <= max_bits));
                for (a, b) in (0..frequencies.len()).flat_map(|a| (0..frequencies.len()).map(move |b| (a, b))) {
                    if frequencies[a] > frequencies[b] && frequencies[b] > 0 {
                        assert!(lengths[a] <= lengths[b]);
                    }
                }
            }
        }
        assert_eq!(lengths(&[0, 4, 0], 9), [0, 1, 0]);
        assert_eq!(lengths(&[0, 0], 9), [0, 0]);
        assert_eq!(lengths(&[1, 1, 2, 4], 15), [3, 3, 2, 1]);
    }

    #[test]
    fn codes_are_those_of_the_standard() {
        // RFC 1951, 3.2.2: lengths 3,3,3,3,3,2,4,4 give 010 011 100 101 110 00 1110 1111.
        let codes = codes(&[3, 3, 3, 3, 3, 2, 4, 4]);
        let shown: Vec<String> = codes
            .iter()
            .map(|code| format!("{:0width$b}", code.bits.reverse_bits() >> (16 - code.length), width = usize::from(code.length)))
            .collect();
        assert_eq!(shown, ["010", "011", "100", "101", "110", "00", "1110", "1111"]);
    }
}
