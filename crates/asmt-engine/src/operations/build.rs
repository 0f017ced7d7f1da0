//! What this engine was built for, and what it uses on this CPU: for `asmt --version`.

use asmt_codec::simd::SimdLevel;
use serde::Serialize;

/// What the engine is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Build {
    /// The target that it was built for, as Rust names it: with the libc.
    pub target: String,
    /// The SIMD level that the codecs use here.
    pub simd: &'static str,
}

/// Returns what this engine is.
pub fn build() -> Build {
    let libc = if cfg!(target_env = "musl") { "musl" } else { "gnu" };
    Build { target: format!("{}-unknown-linux-{libc}", std::env::consts::ARCH), simd: SimdLevel::best().name() }
}
