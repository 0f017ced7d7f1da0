//! Binds the engine to Node: a request in, progress out, a result out, all as JSON text. No logic.
//!
//! Promise: the work runs on a thread of its own, so that Node's event loop (and with it signals)
//! stays free; a panic of the engine becomes an outcome of kind `bug`. Must never: reject the
//! promise, block the event loop, or decide anything.
//!
//! Not an `AsyncTask`: those run on the four threads of libuv, cannot be stopped once they run, and
//! do not catch panics. The shapes of the JSON are those of `Request`, `Outcome` and `Snapshot` in
//! the engine; `src/generated/engine.ts` has them for TypeScript, made of the Rust types.

use asmt_engine::{Code, Control, Error, Outcome, Request, perform};
use napi::bindgen_prelude::Object;
use napi::{Env, Status};
use napi_derive::napi;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// The tool that manifests name.
const TOOL: &str = concat!("asmt ", env!("CARGO_PKG_VERSION"));

fn outcome_of(request: &Request, control: &Control) -> Outcome {
    catch_unwind(AssertUnwindSafe(|| perform(request, TOOL, control))).map_or_else(
        |panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
            let message = format!("asmt has a bug: {}", text.unwrap_or("a panic without a message"));
            Outcome::from(&Error::new(Code::Bug, message, "please report it, with the command that was run"))
        },
        Outcome::from,
    )
}

/// One operation: made from a request, run once, watched and stopped meanwhile.
#[napi]
pub struct Job {
    request: Option<Request>,
    control: Arc<Control>,
}

#[napi]
impl Job {
    /// Reads a request. Throws if it is not of the shape that `src/generated/engine.ts` describes.
    #[napi(constructor)]
    pub fn new(request: String) -> napi::Result<Self> {
        let request = serde_json::from_str(&request)
            .map_err(|error| napi::Error::new(Status::InvalidArg, format!("not a request: {error}")))?;
        Ok(Self { request: Some(request), control: Arc::default() })
    }

    /// Does what the request asks for, on a thread of its own. Resolves with the outcome; call it
    /// once.
    #[napi(ts_return_type = "Promise<string>")]
    pub fn run<'env>(&mut self, env: &'env Env) -> napi::Result<Object<'env>> {
        let request = self.request.take().ok_or_else(|| napi::Error::new(Status::GenericFailure, "a job runs once"))?;
        let control = Arc::clone(&self.control);
        let (deferred, promise) = env.create_deferred()?;
        let work = move || {
            let outcome = outcome_of(&request, &control);
            let text = serde_json::to_string(&outcome).expect("plain structures always serialise");
            deferred.resolve(move |_| Ok(text));
        };
        let thread = std::thread::Builder::new().name("asmt".to_owned()).spawn(work);
        thread.map_err(|error| napi::Error::new(Status::GenericFailure, format!("cannot start a thread: {error}")))?;
        Ok(promise)
    }

    /// How far it is, and what happened since the last call.
    #[napi]
    pub fn poll(&self) -> String {
        serde_json::to_string(&self.control.snapshot()).expect("plain structures always serialise")
    }

    /// Asks it to stop and clean up. Once it has begun to commit, it completes instead.
    #[napi]
    pub fn stop(&self) {
        self.control.stop();
    }

    /// Gives it up if it has changed nothing yet: then it never will, and the process may end
    /// without it. Returns whether.
    #[napi]
    pub fn abandon(&self) -> bool {
        self.control.abandon()
    }
}

/// Version of the engine.
#[napi]
pub fn engine_version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}
