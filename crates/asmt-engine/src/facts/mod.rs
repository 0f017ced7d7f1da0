//! Facts: the state that was found, as plain values. Pure: no I/O, no clock, and no opinion.
//!
//! `look` and `store` make these values, `plan` judges them, and tests write them by hand.

pub mod caller;
pub mod directory;
pub mod memory;
pub mod server;
pub mod units;
