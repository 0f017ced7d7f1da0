//! Locks that no panic poisons.
//!
//! A panic while a lock is held ends the operation as a bug (`work/pool.rs`), and what the engine's
//! locks guard is whole between any two statements. So a thread that takes the lock after the panic
//! needs no warning.
//!
//! Must never: guard a value that is invalid at any time while its lock is held.

use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

/// A lock around a value.
#[derive(Debug, Default)]
pub struct Mutex<T>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    /// A lock around this value, held by nobody.
    pub const fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    /// Waits for the lock, and holds it until the guard is dropped.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value: whoever can change the lock is its only user.
    pub fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value, without the lock.
    pub fn into_inner(self) -> T {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets threads wait for a change of the value that a lock guards.
#[derive(Debug, Default)]
pub struct Condvar(std::sync::Condvar);

impl Condvar {
    /// Gives up the lock, and takes it again after a notification, after this time, or for no
    /// reason.
    pub fn wait_timeout<'m, T>(&self, guard: MutexGuard<'m, T>, most: Duration) -> MutexGuard<'m, T> {
        self.0.wait_timeout(guard, most).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Wakes every thread that waits.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_does_not_poison_a_lock() {
        let mut mutex = Mutex::new(1);
        let panicked = std::thread::scope(|scope| {
            let panicking = scope.spawn(|| {
                let mut guard = mutex.lock();
                *guard = 2;
                panic!("with the lock held");
            });
            panicking.join().is_err()
        });
        assert!(panicked);
        assert_eq!(*mutex.lock(), 2);
        assert_eq!(*mutex.get_mut(), 2);
        assert_eq!(mutex.into_inner(), 2);
    }
}
