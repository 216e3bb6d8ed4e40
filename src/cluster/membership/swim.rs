//! SWIM's settings, and what it wants done.

use super::envelope::BODY_BYTES_MAX;
use super::peer::{Peer, PeerCodec};
use foca::{Config, Foca, NoCustomBroadcast, Notification, PeriodicParams, Runtime, Timer};
use rand::rngs::ChaCha20Rng;
use std::net::SocketAddr;
use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

const PROBE_PERIOD: Duration = Duration::from_millis(200);
/// A round trip in a data centre takes a tenth of it; a busy machine needs the rest.
const PROBE_RTT: Duration = Duration::from_millis(80);
const SUSPICION: Duration = Duration::from_millis(800);
const GOSSIP_PERIOD: Duration = Duration::from_millis(100);
const ANNOUNCE_PERIOD: Duration = Duration::from_secs(2);
const FORGET_DEAD_AFTER: Duration = Duration::from_secs(600);
/// Addresses of the dead are asked so often whether somebody is there again, as after a partition. Who comes back from one
/// says of all others that they are dead: they must have found each other before the authority's doubt is over.
pub(in crate::cluster) const REVIVAL_PERIOD: Duration = Duration::from_secs(1);
/// Members that a message goes to at a time.
pub(super) const FAN_OUT: usize = 3;

/// Foca with our members and without broadcasts of its own.
pub(super) type OurFoca = Foca<Peer, PeerCodec, ChaCha20Rng, NoCustomBroadcast>;

/// What SWIM wants done.
#[derive(Default)]
pub(super) struct Swim {
    pub(super) messages: Vec<(SocketAddr, Vec<u8>)>,
    pub(super) timers: Vec<(Timer<Peer>, Duration)>,
    pub(super) is_rejoining: bool,
}

impl Runtime<Peer> for Swim {
    fn notify(&mut self, notification: Notification<'_, Peer>) {
        self.is_rejoining |= matches!(notification, Notification::Rejoin(_));
    }

    fn send_to(&mut self, to: Peer, data: &[u8]) {
        self.messages.push((to.link, data.to_vec()));
    }

    fn submit_after(&mut self, event: Timer<Peer>, after: Duration) {
        self.timers.push((event, after));
    }
}

pub(super) fn config() -> Config {
    let count = |count: usize| NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN);
    let each = |frequency, members| Some(PeriodicParams { frequency, num_members: count(members) });
    Config {
        probe_period: PROBE_PERIOD,
        probe_rtt: PROBE_RTT,
        num_indirect_probes: count(FAN_OUT),
        // Enough for a hundred nodes at this fan-out; what is newer goes first.
        max_transmissions: NonZeroU8::new(12).unwrap_or(NonZeroU8::MIN),
        suspect_to_down_after: SUSPICION,
        remove_down_after: Some(FORGET_DEAD_AFTER),
        max_packet_size: count(BODY_BYTES_MAX),
        notify_down_members: true,
        periodic_announce: each(ANNOUNCE_PERIOD, 1),
        periodic_announce_to_down_members: each(REVIVAL_PERIOD, 2),
        periodic_gossip: each(GOSSIP_PERIOD, FAN_OUT),
    }
}
