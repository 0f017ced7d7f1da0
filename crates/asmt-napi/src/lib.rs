//! Binds the engine to Node: a request in, progress and a result out, all as JSON text. No logic.
//!
//! Promise: the work runs on its own thread, so that Node's event loop, and with it signals, stays
//! free; a panic of the engine becomes an outcome of kind `bug`. Must never: reject the promise,
//! block the event loop, or decide anything.
//!
//! It is no `AsyncTask`: those run on the four threads of libuv, cannot be stopped once they run,
//! and do not catch panics. The JSON has the shapes of `Request`, `Outcome` and `Snapshot` in the
//! engine; `src/generated/engine.ts` has the same for TypeScript, generated from the Rust types.

mod notify;

use asmt_engine::{Code, Control, Error, Outcome, Request, perform};
use napi::bindgen_prelude::Object;
use napi::{Env, Status};
use napi_derive::napi;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// The tool's name and version in manifests.
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

/// One operation: made from a request, run once, watched and stopped while it runs.
#[napi]
pub struct Job {
    request: Option<Request>,
    control: Arc<Control>,
}

#[napi]
impl Job {
    /// Reads a request. Throws if its shape differs from the one in `src/generated/engine.ts`.
    #[napi(constructor)]
    pub fn new(request: String) -> napi::Result<Self> {
        let request = serde_json::from_str(&request)
            .map_err(|error| napi::Error::new(Status::InvalidArg, format!("not a request: {error}")))?;
        Ok(Self { request: Some(request), control: Arc::default() })
    }

    /// Does the work of the request on its own thread. Resolves with the outcome. Call it once.
    #[napi(ts_return_type = "Promise<string>")]
    pub fn run<'env>(&mut self, env: &'env Env) -> napi::Result<Object<'env>> {
        let request = self.request.take().ok_or_else(|| napi::Error::new(Status::GenericFailure, "a job runs once"))?;
        let control = Arc::clone(&self.control);
        let (deferred, promise) = env.create_deferred()?;
        let work = move || {
            let watch = notify::Watch::begin(Arc::clone(&control));
            let outcome = outcome_of(&request, &control);
            drop(watch);
            let text = serde_json::to_string(&outcome).expect("plain structures always serialise");
            deferred.resolve(move |_| Ok(text));
        };
        let thread = std::thread::Builder::new().name("asmt".to_owned()).spawn(work);
        thread.map_err(|error| napi::Error::new(Status::GenericFailure, format!("cannot start a thread: {error}")))?;
        Ok(promise)
    }

    /// The progress, and the events since the last call.
    #[napi]
    pub fn poll(&self) -> String {
        serde_json::to_string(&self.control.snapshot()).expect("plain structures always serialise")
    }

    /// Asks the operation to stop and clean up. Once it has begun to commit, it completes instead.
    #[napi]
    pub fn stop(&self) {
        self.control.stop();
    }

    /// Gives up the operation if it has changed nothing yet: then it never will, and the process
    /// may end without it. Returns true if it did so.
    #[napi]
    pub fn abandon(&self) -> bool {
        self.control.abandon()
    }
}

/// Tells the service manager a state, such as `READY=1` (sd_notify(3)); does nothing where none
/// listens. Throws if it cannot be told.
#[napi]
pub fn notify_service(state: String) -> napi::Result<()> {
    notify::tell(&state).map_err(|error| napi::Error::new(Status::GenericFailure, error.to_string()))
}

/// Version of the engine.
#[napi]
pub fn engine_version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}

/// What the engine was built for, and what it uses here, as JSON: `target`, with the libc in it,
/// and `simd`.
#[napi]
pub fn engine_build() -> String {
    serde_json::to_string(&asmt_engine::build()).expect("plain structures always serialise")
}
