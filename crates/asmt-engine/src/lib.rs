//! asmt's engine: backs up and restores Aerospike's System V shared memory. It knows neither Node nor a terminal.
pub mod segment;
pub mod sysv;
