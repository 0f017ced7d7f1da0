//! A lock that another thread's panic does not poison.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Waits for a lock. A panic of another thread that held it does not matter: the values that this
/// crate's locks guard are whole between any two statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
