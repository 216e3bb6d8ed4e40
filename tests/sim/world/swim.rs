//! Gossip by the real machine of membership, over a network that loses, repeats, delays and reorders datagrams. In worlds
//! without it a script in `authority` tells who is there.

use super::cluster::Happening;
use super::*;
use corefire::cluster::authority::{Input as Ask, Told};
use corefire::cluster::membership::{MemberEvent, Membership, Outputs};

const KEY: [u8; 32] = [7; 32];
/// How often a node that knows nobody asks for others, in µs: its beacons are heard.
const ALONE: u64 = SECOND;

/// A run's part in gossip.
pub(super) struct Ear {
    machine: Membership,
    tick_at: u64,
    asked_at: u64,
}

impl World {
    pub(super) fn lend_ear(&mut self, run: usize) {
        let mut rng = Rng::from_u64(self.seed ^ (run as u64) << 20);
        let now = self.clock_of(run);
        let machine = Membership::new(self.facts(run, 1), &KEY, now, &mut rng);
        let machine = machine.expect("facts that can be told");
        self.runs[run].ear = Some(Ear { machine, tick_at: u64::MAX, asked_at: 0 });
        self.hear(run, None);
    }

    /// A datagram came, or something is due.
    pub(super) fn hear(&mut self, run: usize, datagram: Option<Vec<u8>>) {
        let (now, stalled) = (self.now, self.runs[run].stalled_until);
        if stalled > now {
            let again = Happening::Hear(run, datagram);
            return self.at_cluster(stalled + 1, again);
        }
        let mono = self.clock().mono;
        let others: Vec<u32> = self.plan.cluster.iter().flat_map(|plan| 1..=plan.nodes).collect();
        let Some(ear) = &mut self.runs[run].ear else { return };
        let mut out = Outputs::default();
        match &datagram {
            Some(bytes) => ear.machine.datagram(mono, bytes, &mut out),
            None if ear.tick_at > now && ear.tick_at < u64::MAX => return,
            None => {
                ear.machine.tick(mono, &mut out);
                if ear.machine.company().is_empty() && now >= ear.asked_at {
                    ear.asked_at = now + ALONE;
                    for node in others {
                        ear.machine.join(mono, address_of(node), &mut out);
                    }
                }
            }
        }
        let due =
            ear.machine.next_tick().map_or(u64::MAX, |due| due.0.div_ceil(1000) - 1_000_000_000);
        let due = due.max(now + 1);
        if due < ear.tick_at || ear.tick_at <= now {
            ear.tick_at = due;
            self.at_cluster(due, Happening::Hear(run, None));
        }
        self.say(run, out);
    }

    /// It ends on purpose, and says so.
    pub(super) fn say_goodbye(&mut self, run: usize) {
        let mono = self.clock().mono;
        let Some(mut ear) = self.runs[run].ear.take() else { return };
        let mut out = Outputs::default();
        ear.machine.leave(mono, &mut out);
        self.say(run, out);
    }

    fn say(&mut self, run: usize, out: Outputs) {
        let own = self.runs[run].id.node.0;
        let (loss, far) = self.plan.cluster.as_ref().map_or((0, 0), |plan| (plan.loss, plan.far));
        for (to, bytes) in out.datagrams {
            let node = u32::from(to.port()) - 7000;
            let Some(to) = self.run_of(node).filter(|_| self.reaches(own, node)) else { continue };
            if !self.quiet && self.chance.percent(loss) {
                continue;
            }
            let copies = if !self.quiet && self.chance.percent(loss / 2) { 2 } else { 1 };
            for _ in 0..copies {
                let delay = 1 + self.chance.delay(far.min(50_000));
                self.at_cluster(self.now + delay, Happening::Hear(to, Some(bytes.clone())));
            }
        }
        for event in out.events {
            if self.log {
                eprintln!("{} run {run} hears {event:?}", self.now);
            }
            let told = match event {
                MemberEvent::Up(facts) => Told::Alive(facts.run),
                MemberEvent::Trusted(run) => Told::Alive(run),
                MemberEvent::Dead(run) => Told::Dead(run),
                MemberEvent::Left(run) => Told::Left(run),
                _ => continue,
            };
            self.tell(run, Ask::Told(told));
        }
    }
}

fn address_of(node: u32) -> std::net::SocketAddr {
    ([127, 0, 0, 1], 7000 + node as u16).into()
}
