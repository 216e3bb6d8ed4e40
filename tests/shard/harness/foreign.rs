//! Federation cores, played by the test: what shards send to other domains is kept for it to look at, and what it has other
//! domains say comes in as a federation core brings it.

use super::{Input, Node, Place, Write};
use corefire::base::hash::hash64;
use corefire::cluster::placement::federation_core;
use corefire::frame::{Batch, Class, Encoder, Envelope, FRAME_BYTES_MAX, Flags, Kind, Recipients};
use corefire::shard::{Effects, Peer};
use corefire::store::Writer as _;
use corefire::xmpp::jid::Jid;
use corefire::xmpp::stanza::{Stanza, write_stamped};
use corefire::xmpp::xml::framer::XmlLimits;
use corefire::xmpp::xml::reader::{self, Index, StreamContext};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// A frame that went to another domain.
#[derive(Clone, Debug)]
pub(crate) struct GoneOut {
    /// The node and the federation core that got it.
    pub node: u32,
    pub core: u16,
    pub from: String,
    pub to: Vec<String>,
    pub flags: Flags,
    pub stanza: String,
}

/// Between a shard and a federation core.
#[derive(Default)]
struct Lane {
    /// Of the shard's frames.
    received: u64,
    open: BTreeSet<u64>,
    told_handled: u64,
    /// Of ours.
    sent: u64,
    handled: u64,
}

pub(super) struct Foreign {
    cores: u16,
    lanes: BTreeMap<(usize, u16), Lane>,
    gone_out: Vec<GoneOut>,
    /// Epochs that shards go by, and those that all have settled: from which shard, to which core.
    pub marked: Vec<(usize, u16, String)>,
    pub settled: Vec<(usize, u16, String)>,
    /// What was lost is not let go of.
    pub keeps: bool,
    /// Frames that want it are not handled.
    holds: bool,
    /// The rings to them take nothing.
    pub is_full: bool,
}

impl Foreign {
    pub(super) fn new(cores: u16) -> Self {
        let (lanes, gone_out) = (BTreeMap::new(), Vec::new());
        let (marked, settled) = (Vec::new(), Vec::new());
        let (keeps, holds, is_full) = (false, false, false);
        Self { cores, lanes, gone_out, marked, settled, keeps, holds, is_full }
    }

    pub(super) fn cores(&self) -> u16 {
        self.cores
    }

    pub(super) fn told(&mut self, shard: usize, core: u16, received: u64, handled: u64) {
        let lane = self.lanes.entry((shard, core)).or_default();
        assert!(handled <= received && received <= lane.sent, "of frames that there were");
        lane.handled = handled;
    }
}

/// The federation cores of a shard.
pub(super) fn rings(fx: &Effects, shards: u16) -> Range<Peer> {
    // Tests of clusters have other nodes' shards behind them, which are left out by `foreign_core`.
    Peer(shards)..Peer(u16::try_from(fx.outbox.len()).unwrap())
}

/// Nothing is to be carried out but frames for these rings.
pub(super) fn is_all(fx: &Effects, rings: &Range<Peer>) -> bool {
    let mut others = (0..).map(Peer).zip(&fx.outbox).filter(|(peer, _)| !rings.contains(peer));
    fx.actions.is_empty()
        && fx.dirty.is_empty()
        && fx.withheld.is_empty()
        && fx.writes.is_empty()
        && fx.queries.is_empty()
        && others.all(|(_, batch)| batch.is_empty())
}

impl Node {
    /// What has gone to other domains since the test last looked.
    pub(crate) fn gone_out(&mut self) -> Vec<GoneOut> {
        std::mem::take(&mut self.foreign.gone_out)
    }

    /// As `gone_out`, the stanzas alone.
    pub(crate) fn said_outside(&mut self) -> Vec<String> {
        self.gone_out().into_iter().map(|frame| frame.stanza).collect()
    }

    /// From now on what wants to be acknowledged is not handled by federation cores.
    pub(crate) fn hold_foreign(&mut self) {
        self.foreign.holds = true;
    }

    /// All of it is handled, and whatever comes next.
    pub(crate) fn free_foreign(&mut self) {
        self.foreign.holds = false;
        self.foreign.lanes.values_mut().for_each(|lane| lane.open.clear());
        self.tell_foreign_news();
        self.run();
    }

    /// The rings to federation cores are full, or have room again.
    pub(crate) fn fill_foreign_rings(&mut self, is_full: bool) {
        self.foreign.is_full = is_full;
        self.run();
    }

    /// A stanza of another domain comes in, addressed as it says itself. Gives the shard that gets it.
    pub(crate) fn come_in(&mut self, xml: &str) -> usize {
        self.come_in_as(xml, Flags::WANTS_ACK)
    }

    /// As `come_in`, at that node, whoever its recipient is.
    pub(crate) fn come_in_at(&mut self, node: u32, xml: &str) {
        let is_it = |it: &super::Core| it.lives && it.place.run.node.0 == node;
        let at = self.cores.iter().position(is_it).unwrap();
        self.bring_in_at(Some(at), xml, Flags::WANTS_ACK);
    }

    /// With these flags beside its own.
    pub(crate) fn come_in_as(&mut self, xml: &str, flags: Flags) -> usize {
        self.bring_in_at(None, xml, flags)
    }

    fn bring_in_at(&mut self, shard: Option<usize>, xml: &str, flags: Flags) -> usize {
        let mut index = Index::default();
        let (client, limits) = (StreamContext::client(), XmlLimits::default());
        reader::read(xml.as_bytes(), &client, &limits, &mut index).unwrap();
        let stanza = Stanza { bytes: xml.as_bytes(), index: &index };
        let class = Class::of(stanza.kind().unwrap(), &stanza).unwrap();
        let from = Jid::parse(&stanza.from().unwrap()).unwrap();
        let to = Jid::parse(&stanza.to().unwrap()).unwrap();
        let (from_text, to_text) = (from.to_string(), to.to_string());
        let mut bytes = Vec::new();
        let (open_end, close_start) =
            write_stamped(&mut bytes, &stanza, Some(&from_text), Some(&to_text));
        let owner = || self.core_of(self.placement.owner(to.bare().hash64()));
        let shard = shard.unwrap_or_else(owner);
        let core = federation_core(hash64(from.domain().as_bytes()), self.foreign.cores).unwrap();
        let frame = Envelope {
            epoch: 0,
            number: 0,
            hops: 0,
            ingress: self.now.wall,
            trace: None,
            flags: class.flags.with(flags),
            from: &from_text,
            to: &to_text,
            also_to: Recipients::NONE,
            kind: class.kind,
            subtype: class.subtype,
            open_end,
            close_start,
            stanza: &bytes,
        };
        self.bring_in_frame(shard, core, &frame);
        shard
    }

    /// A frame of a federation core.
    pub(crate) fn bring_in_frame(&mut self, shard: usize, core: u16, frame: &Envelope<'_>) {
        self.give_frame(shard, core, frame);
        self.run();
    }

    fn give_frame(&mut self, shard: usize, core: u16, frame: &Envelope<'_>) {
        let lane = self.foreign.lanes.entry((shard, core)).or_default();
        lane.sent += 1;
        let mut batch = Batch::default();
        let frame = Envelope { number: lane.sent, ..*frame };
        Encoder::new(FRAME_BYTES_MAX).append(&mut batch, &frame).unwrap();
        let from = Peer(self.cores[shard].shards + core);
        self.input(shard, Input::Frames { from, sent: self.now.mono, batch: &batch });
    }

    /// How many frames of federation cores that shard has not handled.
    pub(crate) fn unhandled_from_outside(&self, shard: usize) -> u64 {
        let lanes = self.foreign.lanes.iter().filter(|((at, _), _)| *at == shard);
        lanes.map(|(_, lane)| lane.sent - lane.handled).sum()
    }

    /// The federation core of the shard's node that has this place.
    pub(super) fn foreign_core(&self, at: usize, place: Place) -> Option<u16> {
        let core = &self.cores[at];
        let core = place.shard.0.checked_sub(core.shards).filter(|_| core.place.run == place.run);
        core.filter(|core| *core < self.foreign.cores)
    }

    pub(super) fn went_to_foreign(&mut self, at: usize, core: u16, batch: &Batch) {
        let node = self.cores[at].place.run.node.0;
        let Self { foreign: Foreign { lanes, gone_out, marked, settled, holds, .. }, .. } = self;
        let lane = lanes.entry((at, core)).or_default();
        for frame in batch.iter() {
            assert_eq!(frame.number, lane.received + 1, "each frame, in order");
            lane.received = frame.number;
            if frame.kind == Kind::Control {
                let text = std::str::from_utf8(frame.stanza).unwrap().to_owned();
                match frame.subtype {
                    corefire::frame::MARKER => marked.push((at, core, text)),
                    corefire::frame::SEALED => settled.push((at, core, text)),
                    other => panic!("federation cores are told nothing of {other}"),
                }
                continue;
            }
            if *holds && frame.flags.contains(Flags::WANTS_ACK) {
                lane.open.insert(frame.number);
            }
            gone_out.push(GoneOut {
                node,
                core,
                from: frame.from.to_owned(),
                to: std::iter::once(frame.to).chain(frame.also_to).map(str::to_owned).collect(),
                flags: frame.flags,
                stanza: String::from_utf8(frame.stanza.to_vec()).unwrap(),
            });
        }
        self.tell_foreign_news();
        if !self.foreign.keeps {
            self.let_go();
        }
    }

    /// Federation cores have let go of what they lost, as they go by the epochs that their shards told.
    pub(crate) fn let_go(&mut self) {
        self.foreign.keeps = false;
        for (shard, core, epoch) in std::mem::take(&mut self.foreign.marked) {
            let frame = Envelope {
                epoch: 0,
                number: 0,
                hops: 0,
                ingress: self.now.wall,
                trace: None,
                flags: Flags::default(),
                from: "",
                to: "",
                also_to: Recipients::NONE,
                kind: Kind::Control,
                subtype: corefire::frame::SEALED,
                open_end: 0,
                close_start: 0,
                stanza: epoch.as_bytes(),
            };
            self.give_frame(shard, core, &frame);
        }
    }

    /// Federation cores keep what they lost until `let_go`.
    pub(crate) fn keep_domains(&mut self) {
        self.foreign.keeps = true;
    }

    /// Epochs that all have settled, as shards told federation cores since the test last looked: by whom, to which.
    pub(crate) fn settled_out(&mut self) -> Vec<(usize, u16, String)> {
        std::mem::take(&mut self.foreign.settled)
    }

    /// The node that owns a remote domain.
    pub(crate) fn domain_node(&self, domain: &str) -> u32 {
        self.placement.domain_owner(hash64(domain.as_bytes())).unwrap().node.0
    }

    /// A domain, of those that begin with `stem`, that this node owns.
    pub(crate) fn domain_at(&self, stem: &str, node: u32) -> String {
        let mut names = (0..10_000).map(|number| format!("{stem}{number}.example"));
        names.find(|name| self.domain_node(name) == node).expect("each node owns some")
    }

    /// Tells shards what is handled of their frames.
    fn tell_foreign_news(&mut self) {
        let mut news = Vec::new();
        for ((at, core), lane) in &mut self.foreign.lanes {
            let handled = lane.open.first().map_or(lane.received, |open| open - 1);
            if handled != lane.told_handled {
                lane.told_handled = handled;
                news.push((*at, *core, lane.received, handled));
            }
        }
        for (at, core, received, handled) in news {
            let by = Peer(self.cores[at].shards + core);
            self.input(at, Input::Handled { by, received, handled });
        }
    }

    /// A node has so many federation cores, in tests of clusters.
    pub(super) fn federate(&mut self, cores: u16) {
        self.foreign.cores = self.foreign.cores.max(cores);
    }

    /// The node that owns a hash.
    pub(crate) fn owner_node(&self, hash64: u64) -> u32 {
        self.placement.owner(hash64).node.0
    }

    /// Tells the owner of `name@here` that an operator has deleted it, and who its contacts were.
    pub(crate) fn delete_account(&mut self, name: &str, contacts: &[&str]) {
        let contacts = contacts.iter().map(|jid| Jid::parse(jid).unwrap()).collect();
        let (jid, owner) = (super::bare(name), self.owner(name));
        self.writer.commit(&[Write::DeleteAccount { owner: jid.clone() }]).unwrap();
        self.input(owner, Input::AccountDeleted { jid, contacts });
        self.run();
    }
}
