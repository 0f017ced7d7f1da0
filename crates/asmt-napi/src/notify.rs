//! What a service manager is told while a job runs (sd_notify(3)): how far it is, and that it needs
//! more time as long as it makes progress. It is here because Node has no datagram sockets in the
//! file system.
//!
//! Promise: more time is asked for only after something has gone on, so that a job that hangs is
//! ended when its time is over. Must never: block the work, or fail it.

use asmt_engine::{Control, Phase, Snapshot};
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often it is told how far the job is.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// The time that is asked for after each progress. The slowest step that shows none is an fsync of
/// files in a page cache.
const EXTENSION: Duration = Duration::from_secs(120);

/// Where the service manager listens; `None` without one.
fn address() -> Option<io::Result<SocketAddr>> {
    let place = std::env::var_os("NOTIFY_SOCKET").filter(|place| !place.is_empty())?;
    Some(address_of(&place))
}

/// The address in `NOTIFY_SOCKET`: a path, or a name without a file, which begins with `@`.
fn address_of(place: &OsStr) -> io::Result<SocketAddr> {
    match place.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(place),
        _ => Err(io::Error::new(io::ErrorKind::Unsupported, "NOTIFY_SOCKET is neither a path nor an abstract name")),
    }
}

/// Tells a state. Does nothing where nobody listens.
pub fn tell(state: &str) -> io::Result<()> {
    address().map_or(Ok(()), |address| send(&address?, state))
}

fn send(address: &SocketAddr, state: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    // A manager that does not read must not stop the work.
    socket.set_nonblocking(true)?;
    socket.send_to_addr(state.as_bytes(), address).map(|_| ())
}

/// Tells how far a job is, until it is dropped.
pub struct Watch(Option<(Sender<()>, JoinHandle<()>)>);

impl Watch {
    /// Begins, if a service manager listens.
    pub fn begin(control: Arc<Control>) -> Self {
        let Some(Ok(address)) = address() else { return Self(None) };
        let (end, ended) = channel();
        let watch = move || {
            let mut steps = None;
            loop {
                let now = control.steps();
                // What cannot be told now is told the next time.
                if steps != Some(now) && send(&address, &state(&control.look())).is_ok() {
                    steps = Some(now);
                }
                if ended.recv_timeout(TELL_EVERY) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        };
        // Without it, the job only has no more time than it is given.
        Self(std::thread::Builder::new().name("asmt-notify".to_owned()).spawn(watch).ok().map(|thread| (end, thread)))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let Some((end, thread)) = self.0.take() else { return };
        drop(end);
        let _ = thread.join();
    }
}

/// The state to tell.
fn state(progress: &Snapshot) -> String {
    format!("STATUS={}\nEXTEND_TIMEOUT_USEC={}", status(progress), EXTENSION.as_micros())
}

/// How far it is, in a line: `42 %, copying (1 of 2)`.
fn status(progress: &Snapshot) -> String {
    let phase = match progress.phase {
        Phase::Plan => "looking",
        Phase::Wait => "waiting for the server to stop",
        Phase::Count | Phase::Verify => "reading",
        Phase::Reserve => "reserving",
        Phase::Copy => "copying",
        Phase::Check => "comparing",
        Phase::Publish => "publishing",
    };
    let all = progress.earlier_bytes.saturating_add(progress.total_bytes).saturating_add(progress.later_bytes);
    let done = progress.earlier_bytes.saturating_add(progress.done_bytes);
    let percent = u128::from(done) * 100 / u128::from(all.max(1));
    match (progress.total_bytes, progress.pass, progress.passes) {
        (0, ..) => phase.to_owned(),
        (_, pass @ 1.., passes @ 2..) => format!("{percent} %, {phase} ({pass} of {passes})"),
        _ => format!("{percent} %, {phase}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_and_a_name_without_a_file_are_addresses_and_nothing_else_is() {
        assert_eq!(address_of(OsStr::new("/run/s")).expect("a path").as_pathname(), Some("/run/s".as_ref()));
        assert_eq!(address_of(OsStr::new("@s/1")).expect("a name").as_abstract_name(), Some(b"s/1".as_slice()));
        assert!(address_of(OsStr::new("s")).is_err());
        assert!(address_of(OsStr::new("vsock:2:1")).is_err());
    }

    #[test]
    fn the_status_is_of_all_passes() {
        let control = Control::default();
        assert_eq!(state(&control.look()), "STATUS=looking\nEXTEND_TIMEOUT_USEC=120000000");
        control.expect_passes(&[(Phase::Copy, 100), (Phase::Check, 100)]);
        control.begin(Phase::Copy, 100);
        control.add_done(50);
        assert_eq!(status(&control.look()), "25 %, copying (1 of 2)");
        control.begin(Phase::Check, 100);
        control.add_done(100);
        assert_eq!(status(&control.look()), "100 %, comparing (2 of 2)");
        control.begin(Phase::Publish, 0);
        assert_eq!(status(&control.look()), "publishing");
    }
}
