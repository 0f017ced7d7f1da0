//! asmt's engine: backs up and restores Aerospike's System V shared memory. It knows neither Node
//! nor a terminal.
//!
//! Data flows one way: [`inventory`], [`store::Listing`] and [`look`] → [`plan`] and
//! [`plan::staleness`] (pure, printable, refusable) → [`transfer`] or [`fill`] (temporaries only;
//! parallel; stoppable) → [`commit`] (few, ordered, durable steps) → [`report`].
//!
//! Promise: after [`perform`] there is either the whole old state or the whole new one, whatever
//! failed. Must never: print, end the process, or panic for what a file, a segment or the system
//! says.

#![forbid(unsafe_code)]

pub mod error;
pub mod facts;
pub mod format;
pub mod hints;
pub mod layout;
pub mod look;
pub mod operations;
pub mod plan;
pub mod progress;
#[cfg(test)]
mod scratch;
pub mod store;
pub mod sys;
pub mod work;

pub use operations::{
    BackupRequest, ErrorText, Failure, ListRequest, Outcome, Request, RestoreRequest, RetireRequest, VerifyRequest, perform,
};
