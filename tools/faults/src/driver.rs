//! The engine without Node: it reads an operation as JSON, performs it on a thread with the name
//! that the binding uses, and prints the outcome as JSON.
//!
//! Promise: the engine does what it does under the command line. Must never: make a call on the
//! engine's thread that the engine did not make, until the operation has ended.

use asmt_engine::error::Kind;
use asmt_engine::progress::Control;
use asmt_engine::{Request, perform};
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeSet;
use std::process::ExitCode;

/// Exit status of a driver that could not start the engine's thread.
pub const NOT_STARTED: u8 = 100;

/// Performs a request.
pub fn drive(request: &str) -> ExitCode {
    let request: Request = serde_json::from_str(request).expect("a request");
    let control = Control::default();
    let outcome = std::thread::scope(|scope| {
        let work = || perform(&request, "asmt faults", &control);
        let thread = std::thread::Builder::new().name("asmt".to_owned()).spawn_scoped(scope, work);
        thread.map(std::thread::ScopedJoinHandle::join)
    });
    // A failure that belongs to the binding: nothing has begun.
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

/// A problem in the report of a run.
#[derive(Clone, Debug, Deserialize)]
pub struct Told {
    /// Kind, as it stands in JSON.
    pub kind: String,
    /// Code.
    pub code: String,
    /// The state that was found, and the one that was expected.
    pub message: String,
    /// The next step.
    pub hint: String,
}

#[derive(Deserialize)]
struct Problems {
    problems: Vec<Told>,
}

#[derive(Deserialize)]
struct Noted {
    code: String,
}

/// The line that a run prints: of [`drive`], or of the command line with `--json`.
#[derive(Deserialize)]
pub struct Said {
    /// The operation is done.
    pub ok: bool,
    error: Option<Problems>,
    remarks: Option<Vec<Noted>>,
    events: Option<Vec<Noted>>,
}

impl Said {
    /// Reads a line; `None` if it is no report.
    pub fn read(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok()
    }

    /// The problems that made the run fail.
    pub fn problems(self) -> Vec<Told> {
        self.error.map(|error| error.problems).unwrap_or_default()
    }

    /// Codes of remarks and events, sorted, each of them once.
    pub fn notes(&self) -> Vec<String> {
        let noted = self.remarks.iter().chain(&self.events).flatten();
        let codes: BTreeSet<&str> = noted.map(|noted| noted.code.as_str()).collect();
        codes.into_iter().map(str::to_owned).collect()
    }
}
