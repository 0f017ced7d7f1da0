//! Work that is cut into pieces and done by several threads.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The number of CPUs that this process may use.
pub fn cpu_count() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Does the pieces `0..count` on `threads` threads (at least one). Each thread makes a state with
/// `state` and hands it to every piece that it does.
///
/// Errors: the first error of each thread ends that thread; one of these errors is returned.
pub fn in_parallel<S>(
    threads: usize,
    count: usize,
    state: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, usize) -> Result<(), String> + Sync,
) -> Result<(), String> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut own = state();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return Ok(());
            }
            work(&mut own, index)?;
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| "a worker panicked".to_owned())?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn every_piece_is_done_once() {
        let done = Mutex::new(Vec::new());
        let outcome = in_parallel(
            3,
            100,
            || 0,
            |count, index| {
                *count += 1;
                done.lock().expect("no panic").push(index);
                if *count > 100 { Err("too many".to_owned()) } else { Ok(()) }
            },
        );
        let mut done = done.into_inner().expect("no panic");
        done.sort_unstable();
        assert_eq!((outcome, done), (Ok(()), (0..100).collect()));
    }

    #[test]
    fn an_error_is_returned() {
        let outcome = in_parallel(2, 5, || (), |(), index| if index == 3 { Err("three".to_owned()) } else { Ok(()) });
        assert_eq!(outcome, Err("three".to_owned()));
    }
}
