//! Finds the pages of a segment's bytes that are not all zeros: pages of zeros need not be stored,
//! and are no data.
//!
//! Promise: the bytes that are left out are zeros, without exception. Must never: take memory of
//! its own.

use std::ops::Range;

/// A page as the kernel makes it: a page that is equal to it need not be stored.
static ZERO_PAGE: [u8; 4096] = [0; 4096];

/// Returns true if all of these bytes are zeros.
pub fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(ZERO_PAGE.len()).all(|part| part == &ZERO_PAGE[..part.len()])
}

/// Returns the ranges of `bytes`, which begin at this offset of a segment, that lie in pages with
/// data.
pub fn data_in(offset: u64, bytes: &[u8]) -> impl Iterator<Item = Range<usize>> {
    // The end of the page in the segment: the bytes need not begin with a page.
    let page_end =
        move |at: usize| bytes.len().min(at + ZERO_PAGE.len() - ((offset + at as u64) % ZERO_PAGE.len() as u64) as usize);
    let has_data = move |at: usize| bytes[at..page_end(at)] != ZERO_PAGE[..page_end(at) - at];
    let mut position = 0;
    std::iter::from_fn(move || {
        while position < bytes.len() && !has_data(position) {
            position = page_end(position);
        }
        let start = position;
        while position < bytes.len() && has_data(position) {
            position = page_end(position);
        }
        (start < position).then_some(start..position)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_with_something_in_them_are_found_wherever_the_bytes_begin() {
        let found = |offset: u64, bytes: &[u8]| data_in(offset, bytes).collect::<Vec<_>>();
        let mut bytes = vec![0; 5 * 4096 + 100];
        assert_eq!((found(0, &bytes), found(7, &[]), is_zero(&bytes)), (vec![], vec![], true));
        bytes[4096] = 1;
        bytes[3 * 4096 - 1] = 1;
        assert_eq!(found(8192, &bytes), vec![4096..3 * 4096]);
        assert_eq!(found(4000, &bytes), [96..96 + 4096, 96 + 2 * 4096..96 + 3 * 4096], "pages of the segment");
        let last = bytes.len() - 1;
        bytes[last] = 1;
        assert_eq!(found(0, &bytes), [4096..3 * 4096, 5 * 4096..last + 1]);
        assert!(!is_zero(&bytes) && !is_zero(&bytes[last..]) && is_zero(&[]));
    }
}
