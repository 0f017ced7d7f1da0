//! Runs asmt, and stops it at each system call of its engine: to let it go on, to make the call
//! fail, or to change the world first.
//!
//! Promise: it shows only calls of the engine's own threads, not the loader's or Node's. (Their
//! names begin with `asmt`, in the binding as in the driver.) It shows each call before it is made,
//! in order. As long as there is one worker, nothing of the engine runs meanwhile. A run that does
//! not end is killed, and reported as endless. Must never: hold a thread for ever.

use crate::calls::{self, Call};
use crate::sys::{self, Go, Limit, Stop};
use std::collections::HashMap;
use std::io;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Seconds after which a run counts as endless.
const PATIENCE_S: u32 = 60;

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
    /// Any other thread.
    Other,
}

/// Runs a command to its end, and shows `hook` each call of the engine.
pub fn run<'a>(command: &mut Command, limits: Vec<Limit>, hook: &mut dyn FnMut(&Call) -> Action<'a>) -> io::Result<Ended> {
    sys::prepare(command, true, limits);
    command.stdin(Stdio::null());
    let child = command.spawn()?;
    let mut tracing = Tracing {
        pid: child.id().cast_signed(),
        threads: HashMap::new(),
        results: HashMap::new(),
        held: Vec::new(),
        is_over: false,
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
            sys::go(tid, Go::ToCall, 0);
        }
    }

    fn step(&mut self, tid: i32, stop: Stop, hook: &mut dyn FnMut(&Call) -> Action<'a>) -> io::Result<()> {
        let is_first = !self.threads.contains_key(&tid);
        let thread = *self.threads.entry(tid).or_insert(if tid == self.pid { Thread::Other } else { Thread::New });
        let how = if thread == Thread::Other || self.is_over { Go::Free } else { Go::ToCall };
        match stop {
            Stop::Ended(status, signal) => {
                self.threads.remove(&tid);
                self.held.retain(|(held, _)| *held != tid);
                if tid == self.pid {
                    (self.ended.status, self.ended.signal) = (status, signal);
                }
            }
            // The first stop of the process is that of its exec, and the first stop of a thread
            // that of its start.
            Stop::Signal(_) if is_first => {
                if tid == self.pid {
                    sys::set_options(tid)?;
                }
                sys::go(tid, how, 0);
            }
            Stop::Signal(libc::SIGTRAP) if self.is_stepping(tid) => self.step_on(tid)?,
            Stop::Signal(signal) => sys::go(tid, how, signal),
            Stop::Event => sys::go(tid, how, 0),
            Stop::Exit => {
                if let Some(result) = self.results.remove(&tid) {
                    sys::set_result(tid, result)?;
                }
                if self.is_stepping(tid) {
                    return self.step_on(tid);
                }
                sys::go(tid, how, 0);
            }
            Stop::Entry(number, arguments) => self.enter(tid, number, arguments, hook)?,
        }
        Ok(())
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
            sys::go(tid, Go::ToCall, 0);
        } else if sys::is_at_call(tid)? {
            self.stepping = None;
            sys::go(tid, Go::ToCall, 0);
        } else {
            sys::go(tid, Go::Step, 0);
        }
        Ok(())
    }

    fn enter(&mut self, tid: i32, number: i64, arguments: [u64; 6], hook: &mut dyn FnMut(&Call) -> Action<'a>) -> io::Result<()> {
        if self.threads.get(&tid) == Some(&Thread::New) {
            if number == libc::SYS_prctl && arguments[0] == libc::PR_SET_NAME as u64 {
                let is_engine = calls::text_at(tid, arguments[1]).is_some_and(|name| name.starts_with("asmt"));
                let thread = if is_engine { Thread::Engine } else { Thread::Other };
                self.threads.insert(tid, thread);
                sys::go(tid, if is_engine { Go::ToCall } else { Go::Free }, 0);
            } else {
                sys::go(tid, Go::ToCall, 0);
            }
            return Ok(());
        }
        // One that was on its way to a call when the last one was shown.
        if self.is_over {
            sys::go(tid, Go::Free, 0);
            return Ok(());
        }
        if calls::is_housekeeping(number) {
            sys::go(tid, Go::ToCall, 0);
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
            Action::Fail(errno) => {
                sys::skip_call(tid)?;
                self.results.insert(tid, -i64::from(errno));
            }
            Action::FailAfter(errno) => {
                self.results.insert(tid, -i64::from(errno));
            }
            Action::Shorten(bytes) => sys::set_third_argument(tid, bytes)?,
            Action::Signal(signal) => sys::signal(self.pid, signal),
            Action::SignalAndHold(signal, condition) => {
                sys::signal(self.pid, signal);
                self.held.push((tid, condition));
                return Ok(());
            }
            Action::Step(then) => self.stepping = Some((tid, then)),
        }
        sys::go(tid, Go::ToCall, 0);
        Ok(())
    }
}
