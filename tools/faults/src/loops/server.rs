//! A server that starts, step by step, in the way that was observed.
//!
//! Where it trusts the segments, it attaches all of them, discards base and treex, gives the
//! stripes another random, clears their trusted bit, and keeps the rest attached. Where it does
//! not, it removes all segments of the namespace, and makes its own under the same keys.
//!
//! Promise: the segments that it uses are known by id and by a hash of their bytes, so that any
//! change shows.

use super::races::{segments, without_count};
use crate::world::{Outcome, World, perform_here, sums};
use asmt_engine::format::Form;
use asmt_engine::operations::report::Verb;
use asmt_kit::files::names;
use asmt_shm::sysv::{self, Access, Attachment, SegmentStat};
use asmt_shm::{Address, Key, SHUTDOWN_CLEAN, SHUTDOWN_OFFSET, SegmentType};
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hasher};

// The fields of a stripe's header that a start changes, written down here a second time.
const STRIPE_RANDOM_OFFSET: u64 = 48;
/// Offset of the flags, one of which is set in a stripe that a start trusts.
pub const STRIPE_FLAGS_OFFSET: u64 = 56;
const STRIPE_TRUSTED: u8 = 1;

/// The state of a namespace, which decides how the server starts.
enum Finding {
    /// The server trusts these segments, and has attached them.
    Trusted(Vec<Used>),
    /// The server trusts nothing, and makes everything anew.
    Nothing,
    /// The server could not attach a segment that it trusts: it has not started.
    Failed,
}

/// A segment that a server uses.
struct Used {
    stat: SegmentStat,
    attachment: Attachment,
}

/// A segment that a server uses, as it must be found later.
struct Live {
    stat: SegmentStat,
    hash: u64,
}

/// A server that is starting, or running.
pub struct Server {
    /// Number of steps that are done.
    steps: usize,
    /// Its findings, by nsid.
    findings: Vec<(u8, Finding)>,
    used: Vec<Used>,
    live: Vec<Live>,
    /// The segments that were backed up, without attach counts.
    before: BTreeSet<String>,
    /// The restore had ended when the server discarded segments.
    pub was_over: bool,
    /// Everything was trusted when the server discarded the segments that it had not trusted.
    was_trusted: bool,
}

/// The type of one of Aerospike's segments.
pub fn kind_of(stat: &SegmentStat) -> SegmentType {
    stat.key.address().expect("an address").segment_type
}

fn in_namespace(nsid: u8) -> Vec<SegmentStat> {
    segments().into_iter().filter(|stat| stat.key.address().is_some_and(|address| address.nsid == nsid)).collect()
}

/// Returns true if a base says that the server was shut down cleanly.
fn is_marked_clean(base: &Attachment) -> bool {
    let offset = SHUTDOWN_OFFSET as u64;
    base.bytes(offset..offset + 4) == SHUTDOWN_CLEAN.to_le_bytes()
}

/// Returns true if a start trusts these segments: by base, or without a base by all of the stripes.
fn is_trusted(stats: &[SegmentStat]) -> bool {
    let is_base = |stat: &&SegmentStat| kind_of(stat) == SegmentType::PiBase;
    let has_index = stats.iter().any(|stat| kind_of(stat) != SegmentType::DataStage);
    let bytes_at = |stat: &SegmentStat, offset: u64| {
        let attachment = Attachment::new(stat.shmid, Access::ReadOnly, 0).ok()?;
        attachment.bytes(offset..offset + 4).try_into().ok().map(u32::from_le_bytes)
    };
    match stats.iter().find(is_base) {
        Some(base) => bytes_at(base, SHUTDOWN_OFFSET as u64) == Some(SHUTDOWN_CLEAN),
        None if has_index || stats.is_empty() => false,
        None => stats
            .iter()
            .all(|stat| bytes_at(stat, STRIPE_FLAGS_OFFSET).is_some_and(|flags| flags & u32::from(STRIPE_TRUSTED) != 0)),
    }
}

/// A hash of all of a segment's bytes.
fn hash_of(attachment: &Attachment) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(attachment.bytes(0..attachment.size_bytes()));
    hasher.finish()
}

impl Server {
    /// A server that is about to start. The world is in the state in which a run begins.
    pub fn new(world: &World) -> Self {
        world.reset();
        Self {
            steps: 0,
            findings: Vec::new(),
            used: Vec::new(),
            live: Vec::new(),
            before: world.server_sums().iter().map(|line| without_count(line)).collect(),
            was_over: false,
            was_trusted: false,
        }
    }

    /// Returns true if it runs, or has failed to start.
    pub fn is_up(&self) -> bool {
        self.steps == 3
    }

    /// Does its next step.
    pub fn step(&mut self) {
        match self.steps {
            0 => self.look(),
            1 => self.discard(),
            2 => self.take_over(),
            _ => return,
        }
        self.steps += 1;
    }

    /// Looks at each namespace, and attaches what it trusts.
    fn look(&mut self) {
        for nsid in [1, 2] {
            let stats = in_namespace(nsid);
            let finding = if is_trusted(&stats) {
                let attach = |stat: &SegmentStat| {
                    Some(Used { stat: stat.clone(), attachment: Attachment::new(stat.shmid, Access::ReadWrite, 0).ok()? })
                };
                stats.iter().map(attach).collect::<Option<Vec<_>>>().map_or(Finding::Failed, Finding::Trusted)
            } else {
                Finding::Nothing
            };
            self.findings.push((nsid, finding));
        }
    }

    /// Discards base and treex where it trusts them, and everything where it does not.
    fn discard(&mut self) {
        for (nsid, finding) in &mut self.findings {
            match finding {
                Finding::Trusted(used) => {
                    let is_discarded = |used: &Used| matches!(kind_of(&used.stat), SegmentType::PiBase | SegmentType::PiTreex);
                    for gone in used.extract_if(.., |used| is_discarded(used)) {
                        let _ = sysv::remove(gone.stat.shmid);
                    }
                }
                // Until there are none: a restore may make one, and trust all, between a look at
                // them and their removal. What was trusted by then is seen in what was removed.
                Finding::Nothing => loop {
                    let stats = in_namespace(*nsid);
                    if stats.is_empty() {
                        break;
                    }
                    let base = stats.iter().find(|stat| kind_of(stat) == SegmentType::PiBase);
                    let base = base.and_then(|stat| Attachment::new(stat.shmid, Access::ReadOnly, 0).ok());
                    self.was_trusted |= is_trusted(&stats);
                    stats.iter().for_each(|stat| drop(sysv::remove(stat.shmid)));
                    self.was_trusted |= base.is_some_and(|base| is_marked_clean(&base));
                },
                Finding::Failed => {}
            }
        }
    }

    /// Marks the stripes as in use, or makes segments of its own. From then on it runs.
    fn take_over(&mut self) {
        for (nsid, finding) in std::mem::take(&mut self.findings) {
            match finding {
                Finding::Trusted(used) => {
                    for stripe in used.iter().filter(|used| kind_of(&used.stat) == SegmentType::DataStage) {
                        store_header(&stripe.attachment);
                    }
                    self.used.extend(used);
                }
                // One server serves all namespaces: where there was none, it makes none.
                Finding::Nothing if self.before.iter().any(|line| is_of_nsid(line, nsid)) => {
                    let keys: Vec<Key> = [
                        (SegmentType::PiStage, 0),
                        (SegmentType::SiStage, 0),
                        (SegmentType::DataStage, 0),
                        (SegmentType::DataStage, 1),
                    ]
                    .into_iter()
                    .filter_map(|(segment_type, index)| Address { instance: 0, nsid, segment_type, index }.key())
                    .collect();
                    self.used.extend(keys.into_iter().map(make));
                }
                Finding::Nothing | Finding::Failed => {}
            }
        }
        self.live = self.used.iter().map(|used| Live { stat: used.stat.clone(), hash: hash_of(&used.attachment) }).collect();
    }

    /// The changes that asmt has made to segments that the server uses, or used until it crashed.
    fn harm(&self, when: &str) -> Vec<String> {
        let mut wrong = Vec::new();
        for Live { stat, hash } in &self.live {
            let is_there = sysv::stat(stat.shmid).is_ok_and(|now| !now.is_removed && now.key == stat.key);
            let now = Attachment::new(stat.shmid, Access::ReadOnly, 0).map(|attachment| hash_of(&attachment));
            if !is_there {
                wrong.push(format!("{when}: segment {} that the server uses was removed", stat.key));
            } else if now.ok() != Some(*hash) {
                wrong.push(format!("{when}: segment {} that the server uses has changed", stat.key));
            }
        }
        wrong
    }

    /// Judges the segments that are there after a restore. Returns every way in which they are
    /// wrong.
    pub fn judge(&mut self, world: &World, outcome: &Outcome) -> Vec<String> {
        world.enter_spare();
        let mut wrong = self.harm("after the restore");
        let all = sums().iter().map(|line| without_count(line)).collect::<BTreeSet<_>>();
        let others: BTreeSet<String> = world.others().iter().map(|line| without_count(line)).collect();
        if !others.is_subset(&all) {
            wrong.push("segments that are neither's have changed".to_owned());
        }
        if outcome.ended.is_endless || !["done", "refused"].contains(&outcome.word().as_str()) && !outcome.is_killed() {
            wrong.push(format!("it ended by {:?}: {}", outcome.ended, outcome.text));
        }
        let is_live = |stat: &SegmentStat| self.live.iter().any(|live| live.stat.shmid == stat.shmid);
        let left: Vec<String> = segments().iter().filter(|stat| !is_live(stat)).map(|stat| stat.key.to_string()).collect();
        let is_server_cold = self.live.iter().any(|live| live.stat.creator_pid.cast_unsigned() == std::process::id());
        if outcome.is_done && is_server_cold && !self.was_trusted && !self.was_over {
            wrong.push("it is done, and the server has removed it before it was".to_owned());
        }
        if !outcome.is_killed() && !left.is_empty() {
            wrong.push(format!("beside what the server uses there are {left:?}"));
        }
        let is_marked = names(&world.directory()).iter().any(|name| asmt_engine::format::mark::is_used_name(name));
        if !self.live.is_empty() && !is_server_cold && !is_marked {
            wrong.push("the server uses what was restored, and the backup is not marked as used".to_owned());
        }
        // No restore may be done while the server runs, or after it has crashed: it has served
        // since.
        for when in ["the next restore beside the server", "the next restore after the server's crash"] {
            if !self.live.is_empty() {
                match perform_here(Verb::Restore, &world.directory(), Form::Plain) {
                    Ok(()) => wrong.push(format!("{when} is done")),
                    Err(failure) => {
                        let codes = ["segments-exist", "segment-attached", "backup-used"];
                        if !codes.contains(&failure.error.first().code.as_str()) {
                            wrong.push(format!("{when} fails by {}", failure.error));
                        }
                    }
                }
                wrong.extend(self.harm(when));
            }
            self.used.clear();
        }
        world.reset();
        if let Err(failure) = perform_here(Verb::Restore, &world.directory(), Form::Plain) {
            wrong.push(format!("the next restore on an empty machine fails: {}", failure.error));
        }
        wrong
    }
}

/// Stores a stripe's header as a start does: with another random, not trusted.
fn store_header(stripe: &Attachment) {
    stripe.exclusive(STRIPE_RANDOM_OFFSET..STRIPE_RANDOM_OFFSET + 8).copy_from_slice(b"at start");
    stripe.exclusive(STRIPE_FLAGS_OFFSET..STRIPE_FLAGS_OFFSET + 4).fill(0);
}

/// Makes one of the server's own segments. A segment that a restore has made since the server
/// looked is removed.
fn make(key: Key) -> Used {
    const SIZE_BYTES: u64 = 128 << 10;
    let shmid = loop {
        match sysv::create(key, SIZE_BYTES) {
            Ok(shmid) => break shmid,
            Err(_) => {
                segments().iter().filter(|stat| stat.key == key).for_each(|stat| drop(sysv::remove(stat.shmid)));
            }
        }
    };
    let attachment = Attachment::new(shmid, Access::ReadWrite, 0).expect("an attachment");
    attachment.exclusive(SIZE_BYTES - 8..SIZE_BYTES).copy_from_slice(b"its own!");
    Used { stat: sysv::stat(shmid).expect("a segment"), attachment }
}

fn is_of_nsid(line: &str, nsid: u8) -> bool {
    let key = line.split(' ').next().and_then(|text| u32::from_str_radix(text, 16).ok()).map(Key);
    key.and_then(Key::address).is_some_and(|address| address.nsid == nsid)
}
