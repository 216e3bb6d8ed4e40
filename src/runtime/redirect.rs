//! Steering: a client that came to another node than its account's owner is sent there (`see-other-host`,
//! RFC 6120 §4.9.3.19), once, where `[c2s] redirect` is "owner" and the owner has an address for clients.
//!
//! Nothing depends on it. Some clients do not follow, and some addresses lead to a balancer: who comes back to the wrong
//! node within a moment is served there. Where that is what most do, nobody is sent on for a while.

use crate::base::hash::Map;
use crate::base::instant::Instant;
use crate::cluster::placement::NodeId;
use crate::cluster::view::View;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Who comes back within this has not followed.
const MOMENT: Duration = Duration::from_secs(10);
/// Networks that were sent on and are remembered, at most; above, clients are served where they are.
const REMEMBERED: usize = 4_096;
/// So many are sent on before it is judged whether they follow.
const JUDGED: u32 = 50;
/// How long nobody is sent on where most have not followed.
const PAUSE: Duration = Duration::from_secs(600);

/// One per core.
#[derive(Debug, Default)]
pub(super) struct Redirects {
    /// Where clients reach each node.
    addresses: Map<NodeId, Arc<str>>,
    /// Who was sent where, and when; oldest first.
    sent: VecDeque<(Instant, IpAddr, NodeId)>,
    /// Since it was last judged.
    followed: u32,
    ignored: u32,
    paused_until: Option<Instant>,
}

/// What becomes of a client at the wrong node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Steer {
    /// It is served here.
    Stay,
    /// It was sent to the owner and is here again.
    StayAgain,
    To(Arc<str>),
}

impl Redirects {
    pub(super) fn adopt(&mut self, view: &View) {
        self.addresses = view
            .nodes
            .iter()
            .filter_map(|node| Some((node.run.node, Arc::from(node.clients.first()?.as_str()))))
            .collect();
    }

    /// - takes: where the client comes from, and the node that owns its account
    pub(super) fn steer(&mut self, now: Instant, peer: IpAddr, owner: NodeId) -> Steer {
        self.forget(now);
        let Some(address) = self.addresses.get(&owner).cloned() else { return Steer::Stay };
        if let Some(at) = self.sent.iter().position(|(_, ip, node)| *ip == peer && *node == owner) {
            self.sent.remove(at);
            self.ignored += 1;
            self.judge(now);
            return Steer::StayAgain;
        }
        let paused = self.paused_until.is_some_and(|until| now < until);
        if paused || self.sent.len() >= REMEMBERED {
            return Steer::Stay;
        }
        self.sent.push_back((now, peer, owner));
        Steer::To(address)
    }

    /// Those that were not seen again are where they were sent.
    fn forget(&mut self, now: Instant) {
        while self.sent.pop_front_if(|(at, ..)| now.since(*at) >= MOMENT).is_some() {
            self.followed += 1;
        }
        self.judge(now);
    }

    fn judge(&mut self, now: Instant) {
        let all = self.followed + self.ignored;
        if all < JUDGED {
            return;
        }
        if self.ignored * 2 > all {
            tracing::warn!(
                followed = self.followed,
                ignored = self.ignored,
                "most clients do not go where they are sent; nobody is sent on for ten minutes"
            );
            self.paused_until = Some(now + PAUSE);
        }
        (self.followed, self.ignored) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::view::{NodeFacts, Run};

    fn redirects() -> Redirects {
        let node = |id: u32, clients: &[&str]| NodeFacts {
            name: format!("n{id}"),
            run: Run { node: NodeId(id), incarnation: 1 },
            shards: 1,
            weight: 1,
            link: ([127, 0, 0, 1], 1).into(),
            clients: clients.iter().map(|client| (*client).to_owned()).collect(),
            components: Vec::new(),
            federates: false,
            frames: (1, 1),
            version: String::new(),
        };
        let mut redirects = Redirects::default();
        redirects.adopt(&View::new(1, vec![node(1, &["a:5222", "b:5222"]), node(2, &[])]));
        redirects
    }

    fn at(ms: u64) -> Instant {
        Instant(ms * 1_000_000)
    }

    #[test]
    fn a_client_is_sent_on_once() {
        let mut redirects = redirects();
        let peer = [192, 0, 2, 1].into();
        assert_eq!(redirects.steer(at(0), peer, NodeId(2)), Steer::Stay, "no address is known");
        assert_eq!(redirects.steer(at(0), peer, NodeId(1)), Steer::To("a:5222".into()));
        assert_eq!(redirects.steer(at(100), peer, NodeId(1)), Steer::StayAgain);
        assert_eq!(redirects.steer(at(200), peer, NodeId(1)), Steer::To("a:5222".into()));
        assert_eq!(redirects.steer(at(20_000), peer, NodeId(1)), Steer::To("a:5222".into()));
    }

    #[test]
    fn where_most_do_not_follow_nobody_is_sent_on_for_a_while() {
        let mut redirects = redirects();
        for number in 0..u64::from(JUDGED) {
            let peer = IpAddr::from([192, 0, 2, u8::try_from(number).unwrap_or(0)]);
            assert_ne!(redirects.steer(at(number), peer, NodeId(1)), Steer::Stay);
            assert_eq!(redirects.steer(at(number), peer, NodeId(1)), Steer::StayAgain);
        }
        let peer = [198, 51, 100, 1].into();
        assert_eq!(redirects.steer(at(1_000), peer, NodeId(1)), Steer::Stay);
        let later = at(1_000 + 600_000);
        assert_eq!(redirects.steer(later, peer, NodeId(1)), Steer::To("a:5222".into()));
    }
}
