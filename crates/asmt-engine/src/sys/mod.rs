//! Sys: calls of the kernel that several folders share.
//!
//! Invariant: only [`fsync`] makes things durable. Something that cannot be read is a failed call,
//! never a default.

pub mod dir;
pub mod fsync;
pub mod process;
pub mod procfs;
pub mod tmpfiles;
