//! asmt's engine: backs up and restores Aerospike's System V shared memory. It knows neither Node
//! nor a terminal.
//!
//! Data flows one way:
//!
//! ```text
//!                 operations      one file for each verb: a table of contents of its steps
//!                     │
//!     look ──┐        │           the machine → facts: memory, server, who asks
//!     store ─┴→ facts → plan      pure: what would be done, or every reason to refuse it
//!                     │
//!              work::copy_out     segments → files without their final name
//!              work::copy_in      files → segments that no start trusts yet
//!                     │
//!               work::commit      few, ordered, durable steps; base last
//! ```
//!
//! `layout` (the meaning of Aerospike's bytes), `format` (every byte of a backup), `facts` and
//! `plan` make no system call. `scripts/architecture.mjs` checks which file imports which.
//!
//! Promise: after [`perform`] there is either the whole old state or the whole new one, after any
//! failure. Must never: print, end the process, or panic because of the contents of a file or
//! segment, or because of an answer of the system.
//!
//! ```
//! use asmt_engine::{Control, ListRequest, Request, perform};
//!
//! let request = Request::List(ListRequest::default());
//! let report = perform(&request, "example 1.0", &Control::default())?;
//! for namespace in &report.namespaces {
//!     println!("{:?}: {} bytes", namespace.name, namespace.size_bytes);
//! }
//! # Ok::<(), asmt_engine::Failure>(())
//! ```

#![forbid(unsafe_code)]
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::exit, clippy::dbg_macro)]

pub use error::{Code, Error, Kind, NoteCode, Problem, Remark};
pub use facts::memory::State;
pub use operations::report::{NamespaceReport, Report, Restorability, SegmentReport, Verb};
pub use operations::{
    BackupRequest, Build, ErrorText, ExportRequest, Failure, Leg, ListRequest, Outcome, PreflightRequest, Request,
    RestoreRequest, RetireRequest, VerifyRequest, build, perform,
};
pub use plan::preflight::{Answer, Check, NamespaceReadiness, Preflight, Topic};
pub use progress::{Control, Event, Phase, Snapshot};

// The modules are private, but public to tests and tools, for which the feature `testing` exists.
mod errno;
#[cfg(not(feature = "testing"))]
mod error;
#[cfg(feature = "testing")]
pub mod error;
#[cfg(not(feature = "testing"))]
mod facts;
#[cfg(feature = "testing")]
pub mod facts;
#[cfg(not(feature = "testing"))]
mod format;
#[cfg(feature = "testing")]
pub mod format;
#[cfg(not(feature = "testing"))]
mod hints;
#[cfg(feature = "testing")]
pub mod hints;
#[cfg(not(feature = "testing"))]
mod layout;
#[cfg(feature = "testing")]
pub mod layout;
#[cfg(not(feature = "testing"))]
mod look;
#[cfg(feature = "testing")]
pub mod look;
#[cfg(not(feature = "testing"))]
mod operations;
#[cfg(feature = "testing")]
pub mod operations;
#[cfg(not(feature = "testing"))]
mod plan;
#[cfg(feature = "testing")]
pub mod plan;
#[cfg(not(feature = "testing"))]
mod progress;
#[cfg(feature = "testing")]
pub mod progress;
#[cfg(not(feature = "testing"))]
mod store;
#[cfg(feature = "testing")]
pub mod store;
mod sync;
#[cfg(not(feature = "testing"))]
mod sys;
#[cfg(feature = "testing")]
pub mod sys;
#[cfg(not(feature = "testing"))]
mod work;
#[cfg(feature = "testing")]
pub mod work;
