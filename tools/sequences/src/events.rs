//! The events: most are drawn because they make sense at that point, and some because they do not.

use crate::asmt::Call;
use crate::log::{Rotation, shown};
use crate::memory;
use crate::server::{Logging, Memory, Started, Way};
use crate::world::World;
use asmt_engine::format::Form;
use asmt_engine::operations::report::Verb;

/// An event. Numbers are those of servers, directories and namespaces.
#[derive(Clone, Debug)]
pub enum Event {
    /// The server is started.
    Start(usize),
    /// It is started with a bad line in the configuration. True if the line stays.
    FailEarly(usize, bool),
    /// It is started while a device of the last namespace is missing.
    FailLate(usize),
    /// It is stopped. True if its last line comes later.
    Stop(usize, bool),
    /// It is killed.
    Crash(usize),
    /// asmt makes a backup.
    Backup(Ask),
    /// asmt restores a backup, and is killed at a system call if there is one.
    Restore(Ask, Option<usize>),
    /// asmt verifies a backup, and analyses its restore.
    Verify(Ask),
    /// asmt retires a backup.
    Retire(Ask),
    /// The machine is booted, which empties its memory. True if its container is a new one, too.
    Boot(bool),
    /// The power is cut.
    PowerCut,
    /// The container is replaced.
    Container,
    /// The clock is set.
    Clock(i64),
    /// The log is rotated.
    Rotate(usize, Rotation),
    /// Two devices exchange names.
    Swap(usize, usize),
    /// A device is replaced by a blank one.
    Wipe(usize, usize),
    /// A device is taken away, or brought back.
    Away(usize, usize, bool),
    /// A namespace is taken out of the configuration, or put back.
    Configure(usize, usize),
    /// The host gets another name.
    Rename,
    /// The operator removes the segments that asmt's hint names.
    FollowHint,
    /// The operator removes all segments.
    RemoveAll,
}

/// The backup on which asmt is asked to work.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Server.
    pub server: usize,
    /// Directory.
    pub vault: usize,
    /// Namespace; `None` for all.
    pub namespace: Option<usize>,
    /// The way in which asmt gets to know the configuration; `None` for a path that does not exist.
    pub way: Option<Way>,
    /// `--require-proof`.
    pub require_proof: bool,
}

impl World<'_> {
    fn ask(&mut self, server: usize) -> Ask {
        let count = self.servers[server].namespaces.len();
        let namespace = (count > 1 && self.dice.chance(38)).then(|| self.dice.below(count));
        let own = self.servers[server].way;
        let choices =
            vec![(72, Some(own)), (12, Some(Way::Nothing)), (12, Some(Way::Option)), (2, Some(Way::Devices)), (2, None)];
        let way = self.dice.pick(choices).expect("one");
        Ask { server, vault: self.dice.below(self.vaults.len()), namespace, way, require_proof: self.dice.chance(12) }
    }

    fn ask_for_backup(&mut self, server: usize) -> Ask {
        let ask = self.ask(server);
        let way = if self.dice.chance(85) { Some(self.servers[server].way) } else { ask.way };
        Ask { way, ..ask }
    }

    /// Draws the next event.
    pub fn draw(&mut self) -> Event {
        let server = self.dice.below(self.servers.len());
        if self.servers[server].is_running() {
            return self.draw_while_running(server);
        }
        let of = &self.servers[server];
        let is_complete = of.configured().all(|namespace| matches!(namespace.memory, Memory::Complete(_)));
        let is_empty = of.configured().all(|namespace| namespace.memory == Memory::None);
        let has_backup = self.vaults.iter().any(|vault| !vault.of(of.instance, None).is_empty());
        let is_saved = self.vaults.iter().any(|vault| vault.of(of.instance, None).iter().any(|backup| backup.event > of.opened));
        let (ask, backup) = (self.ask(server), self.ask_for_backup(server));
        let kill = 1 + self.dice.below(400);
        let if_backup = |weight: usize| if has_backup { weight } else { 0 };
        let mut choices = match (is_complete, is_empty) {
            (true, _) => vec![
                (if is_saved { 6 } else { 60 }, Event::Backup(backup)),
                (if is_saved { 34 } else { 4 }, Event::Boot(false)),
                (10, Event::Start(server)),
                (if_backup(4), Event::Restore(ask.clone(), None)),
                (4, Event::PowerCut),
                (6, Event::Container),
                (3, Event::RemoveAll),
                (3, Event::FailEarly(server, false)),
            ],
            (_, true) => vec![
                (if_backup(40), Event::Restore(ask.clone(), None)),
                (if_backup(10), Event::Restore(ask.clone(), Some(kill))),
                (if has_backup { 20 } else { 60 }, Event::Start(server)),
                (4, Event::Backup(backup)),
                (5, Event::FailEarly(server, self.dice.chance(25))),
                (3, Event::FailLate(server)),
                (8, Event::Boot(false)),
                (3, Event::PowerCut),
                (5, Event::Container),
            ],
            _ => vec![
                (if_backup(14), Event::Restore(ask.clone(), None)),
                (20, Event::Start(server)),
                (4, Event::FailEarly(server, false)),
                (3, Event::Backup(backup)),
                (12, Event::Boot(false)),
                (5, Event::PowerCut),
                (5, Event::Container),
                (4, Event::RemoveAll),
            ],
        };
        choices.push((if_backup(7), Event::Verify(ask.clone())));
        choices.push((if_backup(1), Event::Retire(ask)));
        choices.push((if self.hinted.is_empty() { 0 } else { 40 }, Event::FollowHint));
        choices.extend(self.oddities(server));
        let event = self.dice.pick(choices).expect("one");
        if matches!(event, Event::Boot(_)) { Event::Boot(self.dice.chance(25)) } else { event }
    }

    fn draw_while_running(&mut self, server: usize) -> Event {
        let (ask, backup) = (self.ask(server), self.ask_for_backup(server));
        let is_late = self.dice.chance(20);
        let mut choices = vec![
            (60, Event::Stop(server, is_late)),
            (9, Event::Crash(server)),
            (8, Event::PowerCut),
            (5, Event::Boot(false)),
            (4, Event::Container),
            (2, Event::Restore(ask, None)),
            (2, Event::Backup(backup)),
        ];
        choices.extend(self.oddities(server));
        self.dice.pick(choices).expect("one")
    }

    /// Events that may come at any time.
    fn oddities(&mut self, server: usize) -> Vec<(usize, Event)> {
        let namespace = self.dice.below(self.servers[server].namespaces.len());
        let seconds = self.dice.seconds() * if self.dice.chance(50) { 1 } else { -1 };
        let rotations = vec![(3, Rotation::Renamed), (3, Rotation::Truncated), (3, Rotation::Compressed)];
        let rotation = self.dice.pick(rotations).expect("one");
        let of = &self.servers[server];
        let (is_away, is_running) = (of.has_away(), of.is_running());
        vec![
            (if of.logging == Logging::File { 8 } else { 0 }, Event::Rotate(server, rotation)),
            (if self.host.clock_library.is_some() { 3 } else { 0 }, Event::Clock(seconds)),
            (if of.namespaces[namespace].mains.len() > 1 { 4 } else { 0 }, Event::Swap(server, namespace)),
            (usize::from(!is_running), Event::Wipe(server, namespace)),
            (if is_away { 30 } else { 1 }, Event::Away(server, namespace, !is_away)),
            (if of.namespaces.len() > 1 && !is_running { 2 } else { 0 }, Event::Configure(server, namespace)),
            (1, Event::Rename),
        ]
    }

    /// Lets an event happen.
    pub fn happen(&mut self, event: &Event) {
        self.event += 1;
        let owing: Vec<usize> = (0..self.servers.len()).filter(|server| self.servers[*server].owes_last_words).collect();
        let pause = self.dice.seconds();
        // Nobody waits for the end of a stop that is still going on.
        if owing.is_empty() {
            self.machine.pass(pause);
        }
        let told = self.tell(event);
        self.story.push(format!("{:>3} {} {told}", self.event, shown(self.machine.now_s())));
        let moment = self.moment();
        for server in owing {
            self.servers[server].finish_stop(moment, self.stopped[server]);
        }
        if self.dice.chance(25) {
            self.servers.iter_mut().for_each(crate::server::Server::settle);
        }
    }

    fn tell(&mut self, event: &Event) -> String {
        let moment = self.moment();
        match event {
            Event::Start(server) => self.start(*server),
            Event::FailEarly(server, stays) => {
                self.servers[*server].fail_early(moment);
                self.set_config_bad(*server, *stays);
                format!("server {server} fails at a bad line{}", if *stays { ", which stays" } else { "" })
            }
            Event::FailLate(server) => self.fail_late(*server),
            Event::Stop(server, is_late) => {
                let dice = &mut self.dice;
                self.servers[*server].stop(moment, *is_late, dice);
                self.stopped[*server] = self.event;
                format!("server {server} stops{}", if *is_late { ", its last line is still to come" } else { "" })
            }
            Event::Crash(server) => {
                self.servers[*server].crash();
                format!("server {server} is killed")
            }
            Event::Backup(ask) => self.back_up(ask),
            Event::Restore(ask, kill_at) => self.restore(ask, *kill_at),
            Event::Verify(ask) => self.verify(ask),
            Event::Retire(ask) => self.retire(ask),
            Event::Boot(has_new_container) => {
                // A kernel that goes down in order writes out everything that a server has written.
                self.servers.iter_mut().for_each(crate::server::Server::settle);
                self.forget_memory();
                self.machine.boot(moment.event, *has_new_container);
                format!("the machine is booted{}", if *has_new_container { ", in a new container" } else { "" })
            }
            Event::PowerCut => {
                let mut is_back = false;
                for server in &mut self.servers {
                    is_back |= server.lose_power(moment.event, &mut self.dice);
                }
                self.forget_memory();
                self.machine.boot(moment.event, false);
                format!("power goes and comes back{}", if is_back { ", and a file has its old header" } else { "" })
            }
            Event::Container => {
                self.forget_memory();
                self.machine.replace_container();
                "the container is replaced".to_owned()
            }
            other => self.tell_of_oddity(other),
        }
    }

    fn tell_of_oddity(&mut self, event: &Event) -> String {
        let moment = self.moment();
        match event {
            Event::Clock(seconds) => {
                self.machine.jump(*seconds, moment.event);
                format!("the clock is set by {seconds} s, to {}", shown(self.machine.now_s()))
            }
            Event::Rotate(server, how) => {
                let of = &mut self.servers[*server];
                of.log.rotate(*how, moment.event, moment.now_s, &mut self.dice);
                format!("the log of server {server} is rotated: {how:?}")
            }
            Event::Swap(server, namespace) => {
                let other = 1 + self.dice.below(self.servers[*server].namespaces[*namespace].mains.len() - 1);
                self.servers[*server].swap(*namespace, other);
                format!("devices 0 and {other} of namespace {namespace} of server {server} exchange names")
            }
            Event::Wipe(server, namespace) => {
                let of = &mut self.servers[*server];
                let disk = of.namespaces[*namespace].mains.first().map(|slot| slot.disk);
                disk.into_iter().for_each(|disk| of.disks[disk].wipe());
                format!("device {disk:?} of server {server} is blank now")
            }
            Event::Away(server, namespace, is_away) => {
                let of = &mut self.servers[*server];
                let all = 0..of.namespaces.len();
                // All devices that are away come back.
                let chosen: Vec<usize> = if *is_away { vec![*namespace] } else { all.collect() };
                let changed: Vec<usize> = chosen.into_iter().filter(|at| of.set_away(*at, *is_away)).collect();
                format!(
                    "the first device of namespaces {changed:?} of server {server} is {}",
                    if *is_away { "away" } else { "back" }
                )
            }
            Event::Configure(server, namespace) => {
                let of = &mut self.servers[*server];
                let is_only = of.configured().count() == 1;
                let configured = &mut of.namespaces[*namespace].is_configured;
                *configured = !*configured || is_only;
                let now = *configured;
                of.write_config();
                format!("namespace {namespace} of server {server} is {} the configuration", if now { "in" } else { "not in" })
            }
            Event::Rename => {
                let name = if self.machine.name == "node1" { "node2" } else { "node1" };
                self.machine.rename(name);
                format!("the host is called {name}")
            }
            Event::FollowHint => {
                let ids = std::mem::take(&mut self.hinted);
                ids.iter().for_each(|shmid| memory::remove_id(*shmid));
                self.look();
                format!("the operator removes segments {ids:?}, as the hint says")
            }
            Event::RemoveAll => {
                memory::remove_all();
                self.servers.iter_mut().for_each(crate::server::Server::crash);
                self.look();
                "the operator removes all segments".to_owned()
            }
            other => format!("{other:?}"),
        }
    }

    fn set_config_bad(&mut self, server: usize, is_bad: bool) {
        self.servers[server].is_config_bad = is_bad;
        self.servers[server].write_config();
    }

    fn start(&mut self, server: usize) -> String {
        let moment = self.moment();
        if self.servers[server].is_config_bad {
            self.servers[server].fail_early(moment);
            self.set_config_bad(server, false);
            return format!("server {server} fails at the bad line again, which is mended then");
        }
        match self.servers[server].start(moment, &mut self.dice) {
            Started::Runs => format!("server {server} starts"),
            Started::FailedAt(at) => format!("server {server} fails to start at namespace {at}"),
        }
    }

    fn fail_late(&mut self, server: usize) -> String {
        let last = self.servers[server].namespaces.len() - 1;
        let was_away = !self.servers[server].set_away(last, true);
        let told = self.start(server);
        if !was_away {
            self.servers[server].set_away(last, false);
        }
        format!("{told}, while a device of namespace {last} was {}", if was_away { "as before" } else { "away" })
    }

    /// The run of asmt that does this.
    pub fn call(&self, verb: Verb, ask: &Ask) -> Call {
        let server = &self.servers[ask.server];
        Call {
            verb,
            directory: self.vaults[ask.vault].path.clone(),
            instance: server.instance,
            namespace: ask.namespace.map(|at| server.namespaces[at].place.name.clone()),
            naming: ask.way.map_or(crate::asmt::Naming::Mistyped, |way| self.naming(ask.server, way)),
            is_analysis: false,
            require_proof: ask.require_proof && verb != Verb::Backup,
            is_restorable: false,
            form: Form::Plain,
            kill_at: None,
        }
    }
}
