//! Facts: what was found, as plain values. Pure: no I/O, no clock, and no opinion.
//!
//! `look` makes these values, `plan` judges them, and tests write them down by hand.

pub mod server;
