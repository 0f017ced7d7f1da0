//! Makes, sums and removes segments like Aerospike's: the substitute for a server in tests, demo
//! and benchmark.
//!
//! Promise: a command that fails removes what it made, except where a server that fails leaves
//! something, too. Must never: be shipped to users, or remove a segment that is not Aerospike's
//! unless its key was named.

#![forbid(unsafe_code)]

mod device;
mod fill;
mod layout;
mod make;
mod memory;
mod node;
mod tiles;
#[cfg(test)]
mod witness;

use asmt_kit::args::Args;
use std::io::Write;

const USAGE: &str = "\
asmt-sim: makes, sums and removes segments like Aerospike's

  make     [--instance 0] [--nsid 1] [--name test] [--version 12] [--shutdown 1] [--no-index]
           [--stages 2] [--stage-size 1MiB] [--fill 0.6] [--treex-size 192KiB] [--base-size 64KiB]
           [--elements FILE]   (a piece of a server's full stage, which is repeated with other digests, times and places)
           [--si-stages 0] [--si-stage-size 1MiB] [--si-fill 0.4]
           [--stripes 0] [--stripe-size 1MiB] [--stripe-fill 0.2] [--data-nsid NSID] [--untrusted]
           [--uid U] [--gid G] [--mode 666] [--seed 1] [--threads N]
  foreign  --key K [--count 1] [--size 1MiB] [--mode 600] [--seed 1]   (count: with the keys that follow, too)
  sum      [--instance N] [--all] [--sparse] [--resident]   key, size, crc32, uid, gid, mode, attach count
           (sparse: does not touch holes; resident: nor does it, and says how many bytes are data)
  remove   [--instance N] [--nsid N] [--key K]      as by a reboot; without options every one of Aerospike's
  hold     [--key K] [--read-only]                  attaches it (or all) until its input ends
  poke     --key K --offset N --hex 00ff
  peek     --key K --offset N --length N

A storage file, or the start of a device:

  device   --path P [--name test | --raw-name HEX] [--devices 1] [--version 4] [--random 1] [--untrusted] [--size 64KiB]
           (devices: how many main devices its set has)
  open     --path P                                 as a starting server does: another random, no longer trusted
  close    --path P                                 as a clean stop does: trusted

One namespace of a node, in memory and on its devices:

  start    [--instance 0] [--name test] [--nsid 1] [--devices P,P] [--shadows P,P] [--random N]
           [--no-index] [--stage-size 1MiB] [--stripes 0] [--stripe-size 1MiB] [--data-nsid NSID]
           as a starting server: warm if it finds a trusted base, else cold; the sizes are for what it makes anew
  stop     the same, and [--version 12] [--treex-size 192KiB] [--base-size 64KiB] [--seed 1]
           as a server that is shut down cleanly
  crash    the same as for start: as a server that is killed, which leaves everything as it is
";

/// The outcome of a command.
pub type Outcome = Result<(), String>;

/// Options that take no value.
const FLAGS: [&str; 6] = ["no-index", "untrusted", "resident", "sparse", "all", "read-only"];

/// Runs one command line (without the program's name), and prints to `out`. Errors are texts for
/// people.
pub fn run(words: &[String], out: &mut dyn Write) -> Outcome {
    let Some((command, rest)) = words.split_first() else {
        return Err(format!("a command is needed\n\n{USAGE}"));
    };
    if ["help", "--help"].contains(&command.as_str()) {
        return say(out, USAGE.trim_end());
    }
    let args = Args::parse(rest, &FLAGS)?;
    match command.as_str() {
        "make" => make::make(args, out),
        "foreign" => make::foreign(args, out),
        "sum" => memory::sum(args, out),
        "remove" => memory::remove(args, out),
        "hold" => memory::hold(args, out),
        "poke" => memory::poke(args),
        "peek" => memory::peek(args, out),
        "device" => device::device(args),
        "open" => device::open(args),
        "close" => device::close(args),
        "start" => node::start(args, out),
        "stop" => node::stop(args, out),
        "crash" => node::crash(args, out),
        other => Err(format!("no command {other:?}: try --help")),
    }
}

/// Runs one command line, whose words stand between blanks, and returns its output.
pub fn output_of(line: &str) -> Result<String, String> {
    let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    let mut out = Vec::new();
    run(&words, &mut out)?;
    String::from_utf8(out).map_err(|error| error.to_string())
}

fn say(out: &mut dyn Write, text: impl std::fmt::Display) -> Outcome {
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|error| format!("cannot write: {error}"))
}
