//! What other loops share with these: the engine run without Node, namespaces, and stopping a
//! process at its system calls.
//!
//! Must never: be shipped, or judge.

pub mod calls;
pub mod driver;
pub mod sys;
pub mod tracer;
