//! Work: does what a plan says, in parallel, and so that it can be stopped.
//!
//! Invariant: until [`commit`] has them, files have no name that a reader takes for a backup, and
//! no start trusts segments. Dropped before that, they are gone.

pub mod commit;
pub mod copy_in;
pub mod copy_out;
pub mod instance;
pub mod job;
pub mod marking;
pub mod note;
pub mod pages;
pub mod pool;
pub mod read;
pub mod read_all;
mod reserve;
