//! Runs asmt, and stops it at each system call of its engine: to let it go on, to make the call
//! fail, or to change the world first.
//!
//! Promise: it shows only calls of the engine's own threads, not the loader's or Node's. (Their
//! names begin with `asmt`, in the binding as in the driver.) It shows each call before it is made,
//! in order. As long as there is one worker, nothing of the engine runs meanwhile. A run that does
//! not end is killed, and reported as endless. Must never: hold a thread for ever.
//!
//! A stop takes longer than most calls. So a seccomp filter stops the driver, once a call, and only
//! at calls that may be shown. Node's own threads must not stop: there, the engine's threads stop
//! by ptrace alone, before and after each call.

use crate::calls::{self, Call};
use crate::sys::{self, Filter, Filtering, Go, Limit, Stop};
use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Seconds after which a run counts as endless.
const PATIENCE_S: u32 = 60;

/// The engine's calls that are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// All.
    All,
    /// Those with this number.
    Only(i64),
    /// None.
    Nothing,
}

/// How a run is set up.
#[derive(Debug)]
pub struct Setup {
    /// Limits of the process.
    pub limits: Vec<Limit>,
    /// The calls that are shown.
    pub shown: Shown,
    /// A filter stops it: it is the driver, and not Node.
    pub is_filtered: bool,
}

/// What happens to a call.
pub enum Action<'a> {
    /// The call is made.
    Go,
    /// The call is not made, and returns this error.
    Fail(i32),
    /// The call is made, and returns this error.
    FailAfter(i32),
    /// The call is made for this number of bytes only.
    Shorten(u64),
    /// The process gets this signal before the call is made.
    Signal(i32),
    /// The process gets this signal, and the call is made when the condition holds.
    SignalAndHold(i32, Box<dyn FnMut() -> bool + 'a>),
    /// What the other action says, and no later call is shown: the run goes on without stops.
    Last(Box<Action<'a>>),
    /// It is made, and the thread stops after it at each instruction up to its next call, when the
    /// function says what becomes of it.
    Step(Box<dyn FnMut() -> Stepped + 'a>),
}

/// What happens to a thread that has stopped between two instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stepped {
    /// It goes on to the next one.
    Go,
    /// The process is killed.
    Kill,
}

/// The end of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Exit status.
    pub status: Option<i32>,
    /// Signal that ended it.
    pub signal: Option<i32>,
    /// It did not end by itself, and was killed.
    pub is_endless: bool,
}

/// The kinds of threads that the tracer knows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Thread {
    /// A thread without a name yet.
    New,
    /// One of the engine's threads.
    Engine,
    /// Any other thread, also of a process that the engine has started.
    Other,
}

/// Runs a command to its end, and shows `hook` calls of the engine.
pub fn run<'a>(command: &mut Command, setup: Setup, hook: &mut dyn FnMut(&Call) -> Action<'a>) -> io::Result<Ended> {
    let Setup { limits, shown, is_filtered } = setup;
    let filter = match shown {
        Shown::All if is_filtered => Some(Filter::all_but(&calls::unwatched())),
        // Threads become known by the call that names them.
        Shown::Only(number) if is_filtered => Some(Filter::only(&[number, libc::SYS_prctl])),
        _ => None,
    };
    let filtering = if filter.is_some() { Filtering::Suspended } else { Filtering::None };
    sys::prepare(command, limits, filter);
    command.stdin(Stdio::null());
    let child = command.spawn()?;
    let mut tracing = Tracing {
        pid: child.id().cast_signed(),
        shown,
        filtering,
        threads: HashMap::new(),
        results: HashMap::new(),
        held: Vec::new(),
        is_over: shown == Shown::Nothing,
        stepping: None,
        ended: Ended { status: None, signal: None, is_endless: false },
    };
    sys::alarm(PATIENCE_S);
    let outcome = tracing.follow(hook);
    sys::alarm(0);
    if outcome.is_err() {
        sys::signal(tracing.pid, libc::SIGKILL);
    }
    outcome.map(|()| tracing.ended)
}

struct Tracing<'a> {
    pid: i32,
    shown: Shown,
    /// The filtering of threads that need not stop.
    filtering: Filtering,
    threads: HashMap<i32, Thread>,
    /// Results that replace those of the calls in which threads are.
    results: HashMap<i32, i64>,
    held: Vec<(i32, Box<dyn FnMut() -> bool + 'a>)>,
    /// No call is shown any more.
    is_over: bool,
    /// The thread that stops at each instruction.
    stepping: Option<(i32, Box<dyn FnMut() -> Stepped + 'a>)>,
    ended: Ended,
}

impl<'a> Tracing<'a> {
    fn follow(&mut self, hook: &mut dyn FnMut(&Call) -> Action<'a>) -> io::Result<()> {
        let end = Instant::now() + Duration::from_secs(u64::from(PATIENCE_S));
        loop {
            let next = match sys::wait(self.held.is_empty()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    self.give_up();
                    continue;
                }
                other => other?,
            };
            match next {
                Some((tid, stop)) => self.step(tid, stop, hook)?,
                None if self.held.is_empty() => return Ok(()),
                None => {
                    std::thread::sleep(Duration::from_micros(200));
                    if Instant::now() > end {
                        self.give_up();
                    }
                    self.release();
                }
            }
        }
    }

    fn give_up(&mut self) {
        self.ended.is_endless = true;
        self.held.clear();
        sys::signal(self.pid, libc::SIGKILL);
    }

    /// Lets the held threads go on whose condition holds.
    fn release(&mut self) {
        let (ready, held) = std::mem::take(&mut self.held)
            .into_iter()
            .map(|(tid, mut is_ready)| (is_ready(), tid, is_ready))
            .fold((Vec::new(), Vec::new()), |(mut ready, mut held), (is_ready, tid, condition)| {
                if is_ready {
                    ready.push(tid)
                } else {
                    held.push((tid, condition))
                }
                (ready, held)
            });
        self.held = held;
        for tid in ready {
            self.go_on(tid, 0);
        }
    }

    /// Lets a stopped thread go on to its next call, with a signal or with none (0).
    fn go_on(&self, tid: i32, signal: i32) {
        sys::go(tid, if self.filtering == Filtering::None { Go::ToCall } else { Go::Free }, signal);
    }

    /// Lets a stopped thread go on without stops, as far as that is possible.
    fn set_free(&self, tid: i32, signal: i32) {
        if self.filtering == Filtering::Suspended {
            // If it was killed in the meantime, its end comes next.
            let _ = sys::set_options(tid, Filtering::Suspended);
        }
        sys::go(tid, Go::Free, signal);
    }

    /// Gets to know a thread at its first stop, which is that of its start, or of the process's
    /// exec.
    fn meet(&mut self, tid: i32) -> io::Result<()> {
        let thread = if tid == self.pid {
            if sys::set_options(tid, self.filtering).is_err() {
                self.filtering = Filtering::Watched;
                sys::set_options(tid, self.filtering)?;
            }
            Thread::Other
        } else if self.filtering != Filtering::None && !Path::new(&format!("/proc/{}/task/{tid}", self.pid)).exists() {
            Thread::Other
        } else {
            if self.filtering == Filtering::Suspended {
                // If it was killed in the meantime, its end comes next.
                let _ = sys::set_options(tid, Filtering::Watched);
            }
            Thread::New
        };
        self.threads.insert(tid, thread);
        Ok(())
    }

    fn step(&mut self, tid: i32, stop: Stop, hook: &mut dyn FnMut(&Call) -> Action<'a>) -> io::Result<()> {
        let is_first = !self.threads.contains_key(&tid);
        if is_first && !matches!(stop, Stop::Ended(..)) {
            self.meet(tid)?;
        }
        match stop {
            Stop::Ended(status, signal) => {
                self.threads.remove(&tid);
                self.held.retain(|(held, _)| *held != tid);
                if tid == self.pid {
                    (self.ended.status, self.ended.signal) = (status, signal);
                    // Processes that it has started, and for which nobody waits any more.
                    self.threads.keys().for_each(|tid| sys::signal(*tid, libc::SIGKILL));
                }
            }
            Stop::Signal(_) if is_first => self.pass(tid, 0),
            Stop::Signal(libc::SIGTRAP) if self.is_stepping(tid) => self.step_on(tid)?,
            Stop::Signal(signal) => self.pass(tid, signal),
            Stop::Event => self.pass(tid, 0),
            Stop::Exit => {
                if let Some(result) = self.results.remove(&tid) {
                    sys::set_result(tid, result)?;
                }
                if self.is_stepping(tid) {
                    return self.step_on(tid);
                }
                self.pass(tid, 0);
            }
            Stop::Entry(number, arguments) => self.enter(tid, number, arguments, hook)?,
        }
        Ok(())
    }

    /// Lets a stopped thread go on: to its next call if that may be shown.
    fn pass(&self, tid: i32, signal: i32) {
        if self.is_over || self.threads.get(&tid) == Some(&Thread::Other) {
            self.set_free(tid, signal);
        } else {
            self.go_on(tid, signal);
        }
    }

    fn is_stepping(&self, tid: i32) -> bool {
        self.stepping.as_ref().is_some_and(|(stepping, _)| *stepping == tid)
    }

    /// Asks what happens to a thread that has stopped between two instructions, and lets it go on
    /// by one instruction, or to its next call.
    fn step_on(&mut self, tid: i32) -> io::Result<()> {
        let Some((_, then)) = &mut self.stepping else { return Ok(()) };
        let stepped = then();
        if stepped == Stepped::Kill {
            self.stepping = None;
            sys::signal(self.pid, libc::SIGKILL);
            self.go_on(tid, 0);
        } else if sys::is_at_call(tid)? {
            self.stepping = None;
            self.go_on(tid, 0);
        } else {
            sys::go(tid, Go::Step, 0);
        }
        Ok(())
    }

    fn enter(&mut self, tid: i32, number: i64, arguments: [u64; 6], hook: &mut dyn FnMut(&Call) -> Action<'a>) -> io::Result<()> {
        let thread = self.threads.get(&tid).copied();
        if thread == Some(Thread::New) && number == libc::SYS_prctl && arguments[0] == libc::PR_SET_NAME as u64 {
            let is_engine = calls::text_at(tid, arguments[1]).is_some_and(|name| name.starts_with("asmt"));
            self.threads.insert(tid, if is_engine { Thread::Engine } else { Thread::Other });
        }
        let is_shown = self.shown == Shown::All || self.shown == Shown::Only(number);
        // If the last call was shown, this thread was on its way to a call at that time.
        if self.is_over || thread != Some(Thread::Engine) || !is_shown || calls::is_housekeeping(number) {
            self.pass(tid, 0);
            return Ok(());
        }
        let mut action = hook(&Call { pid: self.pid, tid, number, arguments });
        if let Action::Last(inner) = action {
            self.is_over = true;
            action = *inner;
        }
        match action {
            Action::Last(_) => unreachable!("one of these is enough"),
            Action::Go => {}
            Action::Fail(errno) => sys::skip_call(tid, -i64::from(errno))?,
            Action::FailAfter(errno) => {
                self.results.insert(tid, -i64::from(errno));
                sys::go(tid, Go::ToCall, 0);
                return Ok(());
            }
            Action::Shorten(bytes) => sys::set_third_argument(tid, bytes)?,
            Action::Signal(signal) => sys::signal(self.pid, signal),
            Action::SignalAndHold(signal, condition) => {
                sys::signal(self.pid, signal);
                self.held.push((tid, condition));
                return Ok(());
            }
            Action::Step(then) => {
                self.stepping = Some((tid, then));
                sys::go(tid, Go::ToCall, 0);
                return Ok(());
            }
        }
        self.pass(tid, 0);
        Ok(())
    }
}
