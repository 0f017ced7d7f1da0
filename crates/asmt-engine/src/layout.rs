//! Layout: what Aerospike's bytes and texts mean. Pure: no I/O.

pub mod sets;
