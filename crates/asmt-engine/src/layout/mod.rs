//! Layout: the meaning of Aerospike's bytes and texts: sets of headers, the server's configuration,
//! its unit's environment.
//!
//! Invariant: this folder is pure. It turns bytes into values: it opens no file, asks no clock and
//! reads no environment variable.

pub mod environment;
pub mod namespace;
pub mod server_config;
mod server_words;
pub mod sets;
