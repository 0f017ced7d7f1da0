//! System V shared memory as Aerospike uses it: keys, headers, and the calls of the kernel.
//!
//! The first of two fences around `unsafe` (the other one is `asmt-codec`): no `unsafe` code stands
//! outside of them. Invariant: [`key`] and [`header`] are pure, [`sysv`] and [`holes`] call the
//! kernel, and none of them knows about backups.

pub mod header;
pub mod holes;
pub mod key;
mod segment_stat;
mod sync;
pub mod sysv;

pub use header::{
    BASE_MIN_BYTES, BaseHeader, HEADER_BYTES, Header, KNOWN_BASE_VERSIONS, NamespaceName, SHUTDOWN_CLEAN, SHUTDOWN_OFFSET,
    SI_META_MIN_BYTES, STRIPE_FLAGS_OFFSET, STRIPE_MAGIC, STRIPE_MIN_BYTES, STRIPE_TRUSTED, STRIPE_VERSION, SiMetaHeader,
    StripeHeader,
};
pub use holes::DataFinder;
pub use key::{Address, FIRST_STAGE, Key, MAX_INSTANCE, MAX_SEGMENT_BYTES, MAX_STAGES, NSID_RANGE, SegmentType};
