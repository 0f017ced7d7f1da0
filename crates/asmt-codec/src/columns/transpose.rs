//! From rows to columns and back.
//!
//! Promise: the bytes of each element, whatever the width; what is behind the last whole element
//! stays behind all columns. Must never: change a byte.

use crate::simd::{Kernel, LANES, Lanes, SQUARE, SimdLevel};

/// Rows that are done at once, so that both sides stay in the cache.
const ROWS: usize = LANES;

/// Puts the columns of `rows` one behind the other. A column of which `known` has a byte is thought
/// to be nothing but this one: if it is, it may be left out, else the byte is taken away.
pub fn to_columns(rows: &[u8], width: usize, known: &mut [Option<u8>], columns: &mut [u8], way: SimdLevel) {
    let count = rows.len() / width;
    let (table, rest) = rows.split_at(count * width);
    let squares = if width == LANES { count / ROWS } else { 0 };
    if squares > 0 {
        way.run(ToColumns { rows: &table[..squares * SQUARE], count, known, columns });
    }
    let done = squares * ROWS;
    for first in (done..count).step_by(ROWS) {
        let block = &table[first * width..count.min(first + ROWS) * width];
        for column in 0..width {
            let target = &mut columns[column * count + first..][..block.len() / width];
            target.iter_mut().zip(block[column..].iter().step_by(width)).for_each(|(to, from)| *to = *from);
        }
    }
    for (column, known) in columns[..table.len()].chunks_exact_mut(count).zip(known) {
        if let Some(byte) = *known
            && column[done..].iter().any(|other| *other != byte)
        {
            column[..done].fill(byte);
            *known = None;
        }
    }
    columns[table.len()..].copy_from_slice(rest);
}

/// The other way.
pub fn to_rows(columns: &[u8], width: usize, rows: &mut [u8]) {
    let count = rows.len() / width;
    let (table, rest) = rows.split_at_mut(count * width);
    for (number, block) in table.chunks_mut(ROWS * width).enumerate() {
        let first = number * ROWS;
        for column in 0..width {
            let source = &columns[column * count + first..][..block.len() / width];
            block[column..].iter_mut().step_by(width).zip(source).for_each(|(to, from)| *to = *from);
        }
    }
    rest.copy_from_slice(&columns[count * width..]);
}

/// Where a piece of the transposed bytes is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// In the encoded bytes, from here on.
    Encoded(usize),
    /// In the content, where it belongs.
    Content,
    /// It is nothing but this byte, and whole columns.
    Byte(u8),
}

/// A piece of the transposed bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its place in the transposed bytes.
    pub at: usize,
    /// How many there are.
    pub length: usize,
    /// Where they are.
    pub from: From,
}

impl Piece {
    fn bytes<'a>(&self, [encoded, content]: [&'a [u8]; 2]) -> &'a [u8] {
        match self.from {
            From::Encoded(at) => &encoded[at..at + self.length],
            From::Content => &content[self.at..self.at + self.length],
            From::Byte(_) => &[],
        }
    }
}

/// Makes rows of [`LANES`] bytes of pieces, in order, that are all of the transposed bytes: of the
/// encoded bytes and the content. There is one row at least.
pub fn pieces_to_rows(sources: [&[u8]; 2], pieces: &[Piece], rows: &mut [u8], way: SimdLevel) {
    let count = rows.len() / LANES;
    let (table, rest) = rows.split_at_mut(count * LANES);
    let table_bytes = table.len();
    way.run(ToRows { sources, pieces, rows: table });
    Cursor::new(sources, pieces, table_bytes).take(rest);
}

/// Goes through pieces byte by byte. Pieces of one byte it does not know.
#[derive(Clone, Copy)]
struct Cursor<'a> {
    sources: [&'a [u8]; 2],
    /// What is left of a piece.
    bytes: &'a [u8],
    /// Pieces behind it.
    pieces: &'a [Piece],
}

impl<'a> Cursor<'a> {
    /// At a place in the transposed bytes.
    fn new(sources: [&'a [u8]; 2], pieces: &'a [Piece], at: usize) -> Self {
        let index = pieces.partition_point(|piece| piece.at + piece.length <= at);
        let Some(piece) = pieces.get(index) else {
            return Self { sources, bytes: &[], pieces: &[] };
        };
        let bytes = piece.bytes(sources);
        Self { sources, bytes: &bytes[(at - piece.at).min(bytes.len())..], pieces: &pieces[index + 1..] }
    }

    /// Takes the next bytes.
    fn take(&mut self, mut target: &mut [u8]) {
        while !target.is_empty() {
            let count = target.len().min(self.bytes.len());
            let (filled, rest) = target.split_at_mut(count);
            filled.copy_from_slice(&self.bytes[..count]);
            self.bytes = &self.bytes[count..];
            target = rest;
            if self.bytes.is_empty() {
                let Some((piece, pieces)) = self.pieces.split_first() else { return };
                (self.bytes, self.pieces) = (piece.bytes(self.sources), pieces);
            }
        }
    }
}

/// Squares that are done at once: a row of lines is read or written faster than one alone.
const SQUARES: usize = 4;

/// Whole squares of a table whose elements are as wide as one.
struct ToColumns<'a> {
    rows: &'a [u8],
    /// Bytes of a column.
    count: usize,
    known: &'a mut [Option<u8>],
    columns: &'a mut [u8],
}

impl Kernel for ToColumns<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let mut squares = [[0; SQUARE]; SQUARES];
        for (number, rows) in self.rows.as_chunks::<SQUARE>().0.chunks(SQUARES).enumerate() {
            for (rows, square) in rows.iter().zip(&mut squares) {
                lanes.transpose(rows, square);
            }
            let first = number * GROUP;
            for (column, known) in self.known.iter_mut().enumerate() {
                let target = &mut self.columns[column * self.count..];
                let line = |square: &[u8; SQUARE]| square.as_chunks::<LANES>().0[column];
                if let Some(byte) = *known {
                    // Not by a closure: that would not be compiled for the CPU.
                    let mut is_known = true;
                    for square in &squares[..rows.len()] {
                        is_known &= lanes.equal(&line(square), &[byte; LANES]) == u64::MAX;
                    }
                    if is_known {
                        continue;
                    }
                    target[..first].fill(byte);
                    *known = None;
                }
                let lines = target[first..first + rows.len() * ROWS].as_chunks_mut::<LANES>().0;
                for (to, square) in lines.iter_mut().zip(&squares) {
                    *to = line(square);
                }
                let next = target[first + rows.len() * ROWS..].as_chunks::<LANES>().0;
                next.iter().take(SQUARES).for_each(|line| lanes.prefetch(line));
            }
        }
    }
}

/// Rows of pieces.
struct ToRows<'a> {
    sources: [&'a [u8]; 2],
    pieces: &'a [Piece],
    rows: &'a mut [u8],
}

/// Rows that are done at once.
const GROUP: usize = SQUARES * ROWS;

impl Kernel for ToRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let count = self.rows.len() / LANES;
        let mut squares = [[0; SQUARE]; SQUARES];
        // Columns of one byte are there once and for all.
        let mut columns = Vec::with_capacity(LANES);
        for column in 0..LANES {
            let at = column * count;
            let index = self.pieces.partition_point(|piece| piece.at + piece.length <= at);
            match self.pieces.get(index).map(|piece| piece.from) {
                Some(From::Byte(byte)) => {
                    squares.iter_mut().for_each(|square| square.as_chunks_mut::<LANES>().0[column] = [byte; LANES]);
                }
                _ => columns.push((column, Cursor::new(self.sources, self.pieces, at))),
            }
        }
        for rows in self.rows.chunks_mut(GROUP * LANES) {
            let count = rows.len() / LANES;
            for (column, cursor) in &mut columns {
                let mut group = [0; GROUP];
                let bytes = if count == GROUP && cursor.bytes.len() >= GROUP {
                    let (bytes, rest) = cursor.bytes.split_at(GROUP);
                    cursor.bytes = rest;
                    let next = &rest[..rest.len().min(GROUP)];
                    next.as_chunks::<LANES>().0.iter().for_each(|line| lanes.prefetch(line));
                    bytes
                } else {
                    cursor.take(&mut group[..count]);
                    &group
                };
                for (line, square) in bytes.as_chunks::<LANES>().0.iter().zip(&mut squares) {
                    square.as_chunks_mut::<LANES>().0[*column] = *line;
                }
            }
            for (rows, square) in rows.chunks_mut(SQUARE).zip(&squares) {
                if let Ok(rows) = rows.try_into() {
                    lanes.transpose(square, rows);
                } else {
                    let mut whole = [0; SQUARE];
                    lanes.transpose(square, &mut whole);
                    rows.copy_from_slice(&whole[..rows.len()]);
                }
            }
        }
    }
}
