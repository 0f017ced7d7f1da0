//! Look: from the machine to facts. It reads, and it decides nothing.
//!
//! Invariant: nothing here writes, waits for a FIFO, or takes a failed read for an answer.

pub mod devices;
pub mod in_use;
pub mod keeper;
pub mod memory;
pub mod segments;
pub mod server;
pub mod service;
pub mod traces;
pub mod units;
