//! The process of a running server: it makes the segments, has them attached, and ends with the
//! server.
//!
//! It is a process of its own with a server's name, because asmt looks at the process that made a
//! segment. Must never: outlive the sequences: it ends with its input.

use crate::disk::Head;
use crate::memory::{self, Place};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};

/// The argument that starts it, and its name.
pub const WORD: &str = "asd";

/// The orders that it gets, each a line of JSON.
#[derive(Serialize, Deserialize)]
enum Order {
    /// Makes a namespace's first stage, and stripes.
    Make { place: Place, stripe_count: u32, head: Head, seed: u64 },
    /// Attaches all segments of a namespace.
    Attach(Place),
    /// Makes treex and base.
    Close { place: Place, seed: u64 },
}

/// A running process.
pub struct Asd {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Asd {
    /// Starts it, in this IPC namespace.
    pub fn start() -> Self {
        let mut command = Command::new("/proc/self/exe");
        command.arg(WORD).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("to start a server's process");
        let (input, output) = (child.stdin.take().expect("its input"), child.stdout.take().expect("its output"));
        Self { child, input, output: BufReader::new(output) }
    }

    fn order(&mut self, order: &Order) {
        writeln!(self.input, "{}", serde_json::to_string(order).expect("plain")).expect("to be heard");
        let mut answer = String::new();
        self.output.read_line(&mut answer).expect("an answer");
        assert_eq!(answer, "done\n", "a server's process has failed");
    }

    /// Makes a namespace's first stage, and stripes.
    pub fn make(&mut self, place: &Place, stripe_count: u32, head: Head, seed: u64) {
        self.order(&Order::Make { place: place.clone(), stripe_count, head, seed });
    }

    /// Attaches all segments of a namespace.
    pub fn attach(&mut self, place: &Place) {
        self.order(&Order::Attach(place.clone()));
    }

    /// Makes treex and base: the end of a clean stop.
    pub fn close(&mut self, place: &Place, seed: u64) {
        self.order(&Order::Close { place: place.clone(), seed });
    }
}

impl Drop for Asd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs as that process.
pub fn serve() -> ExitCode {
    std::fs::write("/proc/self/comm", WORD).expect("a name");
    let mut attached = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let order: Order = serde_json::from_str(&line.expect("a line")).expect("an order");
        match order {
            Order::Make { place, stripe_count, head, seed } => memory::make_anew(&place, stripe_count, head, seed),
            Order::Attach(place) => attached.extend(memory::attach_all(&place)),
            Order::Close { place, seed } => memory::make_base(&place, seed),
        }
        println!("done");
    }
    ExitCode::SUCCESS
}
