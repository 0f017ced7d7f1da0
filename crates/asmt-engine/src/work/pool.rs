//! Worker threads with one queue of units, and the state that they share while a segment is in
//! work.
//!
//! Promise: the first error, panic or stop ends all workers after their current unit; the work is
//! done with fewer threads if some cannot be started. Must never: lose an error, or wait for a
//! worker that has ended.

use crate::error::{Code, Error, NoteCode, Result};
use crate::progress::Control;
use crate::sync::{Condvar, Mutex};
use crate::sys::procfs;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Descriptors that are left for everything but the workers.
const SPARE_DESCRIPTORS: u64 = 64;
/// Most descriptors of a worker: a segment's file in `map_files`, and a file of the backup.
const DESCRIPTORS_A_WORKER: u64 = 2;

/// Threads for each CPU, unless a number is requested: one computes while the other waits for the
/// disk.
const THREADS_A_CPU: usize = 2;
/// Least number of threads: a disk with one request at a time is slow, however few CPUs there are.
const LEAST_THREADS: usize = 12;

/// Number of threads: the requested one, or two for each CPU that the process may use and enough to
/// keep a disk busy; fewer if the limit on open files is low.
pub fn thread_count(asked: Option<usize>) -> usize {
    let all = || LEAST_THREADS.max(std::thread::available_parallelism().map_or(1, std::num::NonZero::get) * THREADS_A_CPU);
    let wanted = asked.unwrap_or_else(all);
    wanted.clamp(1, most_by_descriptors())
}

fn most_by_descriptors() -> usize {
    use rustix::process::{Resource, Rlimit, setrlimit};
    // Not by getrlimit(2): rustix takes it for a call that cannot fail. Where it does fail, the
    // limit is what happens to be in memory.
    let limit = procfs::open_file_limits();
    // The soft limit is a default for programs that use select(); raising it needs no right.
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // `None` means no limit. A limit that could not be read is 0, and must not become the limit.
    let may_raise = limit.maximum != Some(0);
    let current = if may_raise && setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    let workers = current.map_or(u64::MAX, |current| current.saturating_sub(SPARE_DESCRIPTORS) / DESCRIPTORS_A_WORKER);
    usize::try_from(workers).unwrap_or(usize::MAX).max(1)
}

/// The state that the workers of one pool share.
pub struct Pool<'c> {
    control: &'c Control,
    next: AtomicU64,
    has_failed: AtomicBool,
    first_error: Mutex<Option<Error>>,
}

impl<'c> Pool<'c> {
    /// Does the units `0..unit_count`, in the order of the queue, on up to `threads` threads.
    /// `state` makes the private state of a worker. Returns the first error.
    pub fn run<S>(
        control: &'c Control,
        threads: usize,
        unit_count: u64,
        state: impl Fn() -> S + Sync,
        work: impl Fn(&Self, &mut S, u64) -> Result<()> + Sync,
    ) -> Result<()> {
        let pool = Self { control, next: AtomicU64::new(0), has_failed: AtomicBool::new(false), first_error: Mutex::new(None) };
        let worker = || {
            let mut own = state();
            while let Some(unit) = pool.take(unit_count) {
                let outcome = catch_unwind(AssertUnwindSafe(|| control.check_stop().and_then(|()| work(&pool, &mut own, unit))));
                if let Err(error) = outcome.unwrap_or_else(|panic| Err(panicked(panic.as_ref()))) {
                    pool.fail(error);
                }
            }
        };
        let others = threads.min(usize::try_from(unit_count).unwrap_or(usize::MAX)).saturating_sub(1);
        std::thread::scope(|scope| {
            for number in 0..others {
                // This thread works as well, so there is always one worker.
                if std::thread::Builder::new().name(format!("asmt-{number}")).spawn_scoped(scope, worker).is_err() {
                    control.note(NoteCode::FewerThreads, format!("only {} of {threads} threads could be started", number + 1));
                    break;
                }
            }
            worker();
        });
        pool.first_error.into_inner().map_or(Ok(()), Err)
    }

    fn take(&self, unit_count: u64) -> Option<u64> {
        if self.is_ending() {
            return None;
        }
        let unit = self.next.fetch_add(1, Ordering::Relaxed);
        (unit < unit_count).then_some(unit)
    }

    fn fail(&self, error: Error) {
        // It is noted before the other workers see it, because their own errors, which follow from
        // this one, must not come first.
        self.first_error.lock().get_or_insert(error);
        self.has_failed.store(true, Ordering::Relaxed);
    }

    /// Returns true if a worker has failed: a worker that waits for another one must give up.
    fn is_ending(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    /// Fails if another worker has failed, or if a stop was requested.
    pub fn check(&self) -> Result<()> {
        self.control.check_stop()?;
        if self.is_ending() { Err(Error::new(Code::Bug, "another worker has failed", "")) } else { Ok(()) }
    }
}

fn panicked(panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    Error::new(
        Code::Bug,
        format!("asmt has a bug: {}", text.unwrap_or("a panic without a message")),
        "please report it, with the command that was run",
    )
}

/// A value that the first worker opens and the last one closes: a segment in work.
pub struct InWork<T> {
    slot: Mutex<Option<Arc<T>>>,
    units_left: AtomicU64,
}

impl<T> InWork<T> {
    /// For this number of units.
    pub fn new(units: u64) -> Self {
        Self { slot: Mutex::new(None), units_left: AtomicU64::new(units) }
    }

    /// Returns the value, and opens it if no worker has.
    pub fn enter(&self, open: impl FnOnce() -> Result<T>) -> Result<Arc<T>> {
        let mut slot = self.slot.lock();
        match &*slot {
            Some(thing) => Ok(Arc::clone(thing)),
            None => Ok(Arc::clone(slot.insert(Arc::new(open()?)))),
        }
    }

    /// Ends one unit. The worker of the last unit gets the value, to finish and close it.
    pub fn leave(&self, thing: Arc<T>) -> Option<T> {
        // It is dropped before the unit is counted: the worker that counts the last unit finds no
        // other holder.
        drop(thing);
        if self.units_left.fetch_sub(1, Ordering::AcqRel) != 1 {
            return None;
        }
        let last = self.slot.lock().take();
        last.and_then(Arc::into_inner)
    }
}

/// The unit to which the next piece belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Another piece of the same unit comes next.
    Kept,
    /// A piece of the next unit comes next.
    Passed,
}

/// Places for pieces whose length is known only when they are made: each begins at the end of the
/// one before it.
pub struct Places {
    next: Mutex<(u64, u64)>,
    moved: Condvar,
}

impl Places {
    /// The first piece begins at `offset`.
    pub fn new(offset: u64) -> Self {
        Self { next: Mutex::new((0, offset)), moved: Condvar::default() }
    }

    /// Returns the place for a piece of unit `index`, after waiting for the units before it. Units
    /// are taken from the queue in order, so another worker is always at work on the unit that is
    /// waited for.
    pub fn place(&self, pool: &Pool<'_>, index: u64, length: u64, turn: Turn) -> Result<u64> {
        let mut next = self.next.lock();
        while next.0 != index {
            pool.check()?;
            // The wait is limited, because a worker that failed notifies nobody.
            next = self.moved.wait_timeout(next, Duration::from_millis(50));
        }
        let offset = next.1;
        *next = (index + u64::from(turn == Turn::Passed), offset + length);
        self.moved.notify_all();
        Ok(offset)
    }

    /// The end of the last piece.
    pub fn end(&self) -> u64 {
        self.next.lock().1
    }
}

/// Numbers units over several segments: finds the segment of a unit, and its number in it.
pub struct Units {
    ends: Vec<u64>,
}

impl Units {
    /// From the number of units of each segment.
    pub fn new(counts: impl Iterator<Item = u64>) -> Self {
        let ends = counts.scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        });
        Self { ends: ends.collect() }
    }

    /// Number of all units.
    pub fn count(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Index of the segment, and number of the unit in it.
    pub fn locate(&self, unit: u64) -> (usize, u64) {
        let index = self.ends.partition_point(|end| *end <= unit);
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        (index, unit - start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_done_once() {
        let control = Control::default();
        let done: Vec<AtomicU64> = (0..1000).map(|_| AtomicU64::new(0)).collect();
        let outcome = Pool::run(
            &control,
            8,
            1000,
            || (),
            |_, (), unit| {
                done[unit as usize].fetch_add(1, Ordering::Relaxed);
                Ok(())
            },
        );
        outcome.expect("no error");
        assert!(done.iter().all(|count| count.load(Ordering::Relaxed) == 1));
    }

    #[test]
    fn an_error_a_panic_and_a_stop_end_all_workers() {
        let control = Control::default();
        let places = Places::new(0);
        let failing = |at: u64, panics: bool| {
            Pool::run(
                &control,
                4,
                1000,
                || (),
                |pool, (), unit| {
                    assert!(!(panics && unit == at), "unit {unit}");
                    if unit == at {
                        return Err(Error::new(Code::SystemCall, "the first error", ""));
                    }
                    places.place(pool, unit, 1, Turn::Passed).map(|_| ())
                },
            )
        };
        assert_eq!(failing(0, false).expect_err("an error").first().message, "the first error");
        assert_eq!(failing(0, true).expect_err("an error").first().code, Code::Bug);
        control.stop();
        assert_eq!(failing(2000, false).expect_err("an error").first().code, Code::Interrupted);
    }

    #[test]
    fn pieces_stand_one_behind_the_other_whoever_makes_them() {
        let control = Control::default();
        let (places, found) = (Places::new(34), Mutex::new(Vec::new()));
        let outcome = Pool::run(
            &control,
            8,
            100,
            || (),
            |pool, (), unit| {
                // Some units have two pieces.
                let rest = if unit % 3 == 0 { 0 } else { places.place(pool, unit, 1, Turn::Kept)? };
                let offset = places.place(pool, unit, if rest > 0 { unit } else { unit + 1 }, Turn::Passed)?;
                found.lock().push((unit, if rest > 0 { rest } else { offset }));
                Ok(())
            },
        );
        outcome.expect("no error");
        let mut found = found.into_inner();
        found.sort_unstable();
        let expected: Vec<(u64, u64)> = (0..100).map(|unit| (unit, 34 + unit * (unit + 1) / 2)).collect();
        assert_eq!(found, expected);
        assert_eq!(places.end(), 34 + 5050);
    }

    #[test]
    fn the_last_one_out_closes() {
        let in_work = InWork::new(3);
        let opened = AtomicU64::new(0);
        let enter = || in_work.enter(|| Ok(opened.fetch_add(1, Ordering::Relaxed))).expect("it opens");
        let (first, second) = (enter(), enter());
        assert_eq!(in_work.leave(first), None);
        assert_eq!(in_work.leave(second), None);
        assert_eq!(in_work.leave(enter()), Some(0));
        assert_eq!(opened.into_inner(), 1);
    }

    #[test]
    fn units_are_counted_over_segments() {
        let units = Units::new([2, 0, 3].into_iter());
        assert_eq!(units.count(), 5);
        let located: Vec<(usize, u64)> = (0..5).map(|unit| units.locate(unit)).collect();
        assert_eq!(located, [(0, 0), (0, 1), (2, 0), (2, 1), (2, 2)]);
    }
}
