//! The simulator's command line; the work is in the library, which the engine's tests use too.

use asmt_kit::args;
use std::process::ExitCode;

fn main() -> ExitCode {
    let done = asmt_sim::run(&args::words(), &mut std::io::stdout());
    done.map_or_else(|text| args::failure("asmt-sim", text), |()| ExitCode::SUCCESS)
}
