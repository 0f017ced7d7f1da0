//! The engine without Node: performs a request, which is its only argument as JSON.
//!
//! `npm run test:arch` runs it where there is no Node for a C library or a processor. Exit status 1
//! if the request fails; its problems are printed.

use asmt_engine::{Control, Request, perform};
use std::process::ExitCode;

fn main() -> ExitCode {
    let text = std::env::args().nth(1).expect("a request");
    let request: Request = serde_json::from_str(&text).expect("a request");
    match perform(&request, "asmt drive", &Control::default()) {
        Ok(_) => ExitCode::SUCCESS,
        Err(failure) => {
            for problem in failure.error.problems() {
                eprintln!("{}", problem.message);
            }
            ExitCode::FAILURE
        }
    }
}
