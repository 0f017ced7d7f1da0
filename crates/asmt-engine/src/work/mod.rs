//! Work: executes a plan, in parallel, and in a way that can be stopped.
//!
//! Invariant: before [`commit`] gets them, files have no name that a reader takes for a backup, and
//! no start trusts segments. If they are dropped before that, they are removed.

pub mod commit;
pub mod copy_in;
pub mod copy_out;
mod encoding;
pub mod export;
pub mod instance;
pub mod job;
pub mod marking;
pub mod note;
pub mod pages;
pub mod pool;
pub mod read;
pub mod read_all;
mod read_stream;
mod reserve;
mod written;
