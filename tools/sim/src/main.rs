//! The simulator's command line; the work is in the library, which the engine's tests use too.

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match asmt_sim::run(&words, &mut std::io::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("asmt-sim: {text}");
            ExitCode::FAILURE
        }
    }
}
