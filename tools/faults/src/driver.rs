//! The engine without Node: an operation from a JSON request, on a thread named as the binding
//! names it, its outcome as JSON.
//!
//! Promise: what the engine does is what it does under the command line. Must never: make a call on
//! the engine's thread that the engine did not make, until it is done.

use asmt_engine::error::Kind;
use asmt_engine::progress::Control;
use asmt_engine::{Request, perform};
use serde_json::json;
use std::process::ExitCode;

/// Exit status of a driver that could not start the engine's thread.
pub const NOT_STARTED: u8 = 100;

/// Does what the request says.
pub fn drive(request: &str) -> ExitCode {
    let request: Request = serde_json::from_str(request).expect("a request");
    let control = Control::default();
    let outcome = std::thread::scope(|scope| {
        let work = || perform(&request, "asmt faults", &control);
        let thread = std::thread::Builder::new().name("asmt".to_owned()).spawn_scoped(scope, work);
        thread.map(std::thread::ScopedJoinHandle::join)
    });
    // The binding's own failure: nothing has begun.
    let Ok(outcome) = outcome else { return ExitCode::from(NOT_STARTED) };
    let events = control.snapshot().events;
    let (text, status) = match outcome {
        Ok(Ok(report)) => (json!({ "ok": true, "error": null, "remarks": report.remarks, "events": events }), 0),
        Ok(Err(failure)) => {
            let is_bug = failure.error.first().kind == Kind::Bug;
            let error = json!({ "problems": failure.error.problems() });
            let remarks = failure.report.map(|report| report.remarks).unwrap_or_default();
            (json!({ "ok": false, "error": error, "remarks": remarks, "events": events }), if is_bug { 70 } else { 1 })
        }
        Err(_) => (
            json!({ "ok": false, "error": { "problems": [{ "kind": "bug", "code": "bug", "message": "a panic", "hint": "" }] } }),
            70,
        ),
    };
    println!("{text}");
    ExitCode::from(status)
}
