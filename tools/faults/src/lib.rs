//! The parts of this tool that other loops use, too: the engine without Node, and stopping a
//! process at its system calls.
//!
//! Must never: be shipped, or judge.

pub mod calls;
pub mod driver;
pub mod sys;
pub mod tracer;
