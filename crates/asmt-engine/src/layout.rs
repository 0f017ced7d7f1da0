//! The form of files that others write: the server's configuration, and the environment file of its
//! unit.
//!
//! Invariant: this folder is pure. It turns bytes into values and does no I/O: it opens no file,
//! asks no clock and reads no environment variable.

pub mod environment;
pub mod server_config;
