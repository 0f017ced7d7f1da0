//! What an operation comes to, as one value for whoever called it from another language.
//!
//! Must never: decide anything; an outcome repeats what the operation returned.

use crate::error::{Error, Problem};
use crate::operations::Failure;
use crate::operations::report::Report;
use serde::Serialize;

/// What an operation comes to: its report, or why it failed, or both.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Outcome {
    /// It did what was asked for.
    pub ok: bool,
    /// What was found or done; null where nothing was found out.
    pub report: Option<Box<Report>>,
    /// Why it failed; null if it did not.
    pub error: Option<ErrorText>,
}

/// Why an operation failed: the weightiest problem, and all of them (at least one).
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct ErrorText {
    /// The weightiest problem.
    #[serde(flatten)]
    pub first: Problem,
    /// All of them.
    pub problems: Vec<Problem>,
}

impl From<std::result::Result<Report, Failure>> for Outcome {
    fn from(result: std::result::Result<Report, Failure>) -> Self {
        match result {
            Ok(report) => Self { ok: true, report: Some(Box::new(report)), error: None },
            Err(Failure { error, report }) => Self { report, ..Self::from(&error) },
        }
    }
}

impl From<&Error> for Outcome {
    fn from(error: &Error) -> Self {
        let error = ErrorText { first: error.first().clone(), problems: error.problems().to_vec() };
        Self { ok: false, report: None, error: Some(error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Code, Kind, NoteCode, Remark};
    use crate::facts::memory::State;
    use crate::operations::report::{NamespaceReport, Restorability, SegmentReport, Verb};
    use crate::operations::request::{
        BackupRequest, ExportRequest, Leg, ListRequest, PreflightRequest, Request, RestoreRequest, RetireRequest, VerifyRequest,
    };
    use crate::plan::preflight::{Answer, Check, NamespaceReadiness, Preflight, Topic};
    use crate::progress::{Event, Phase, Snapshot};
    use ts_rs::{Config, TS};

    const HEAD: &str = "/**
 * The shapes that cross the border to the engine. Made of the Rust types by `npm run types`: do not
 * edit. Sizes are bytes, times milliseconds. A number beyond 2^53, as only a lie in a manifest is,
 * comes rounded.
 */
";

    fn declaration<T: TS>(config: &Config) -> String {
        let docs = T::docs().unwrap_or_default();
        format!("\n{docs}export {}\n", T::decl(config))
    }

    /// The command line's types are those of the engine. `ASMT_WRITE_TYPES=1` writes them anew.
    #[test]
    fn the_types_of_the_command_line_are_these() {
        let config = &Config::new().with_large_int("number");
        let text = [
            HEAD.to_owned(),
            declaration::<Verb>(config),
            declaration::<Request>(config),
            declaration::<ListRequest>(config),
            declaration::<BackupRequest>(config),
            declaration::<RestoreRequest>(config),
            declaration::<VerifyRequest>(config),
            declaration::<RetireRequest>(config),
            declaration::<ExportRequest>(config),
            declaration::<PreflightRequest>(config),
            declaration::<Leg>(config),
            declaration::<Outcome>(config),
            declaration::<Report>(config),
            declaration::<NamespaceReport>(config),
            declaration::<State>(config),
            declaration::<SegmentReport>(config),
            declaration::<Restorability>(config),
            declaration::<Preflight>(config),
            declaration::<NamespaceReadiness>(config),
            declaration::<Check>(config),
            declaration::<Topic>(config),
            declaration::<Answer>(config),
            declaration::<ErrorText>(config),
            declaration::<Problem>(config),
            declaration::<Kind>(config),
            declaration::<Code>(config),
            declaration::<Remark>(config),
            declaration::<NoteCode>(config),
            declaration::<Snapshot>(config),
            declaration::<Phase>(config),
            declaration::<Event>(config),
        ]
        .concat();
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../src/generated/engine.ts");
        if std::env::var_os("ASMT_WRITE_TYPES").is_some() {
            std::fs::write(path, &text).expect("written");
        }
        // The formatter has its own mind about quotes, commas and lines.
        let words = |text: &str| text.replace(|c: char| !(c.is_alphanumeric() || "-_{}[]&".contains(c)), " ");
        let words = |text: &str| words(text).split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let there = std::fs::read_to_string(path).unwrap_or_default();
        assert!(words(&there) == words(&text), "src/generated/engine.ts is not of these types: run npm run types");
    }
}
