//! Streams between servers (RFC 6120, XEP-0178, XEP-0220, XEP-0288, XEP-0478, XEP-0198) as a machine, in either role. It is
//! fed headers and first-level elements, writes what the protocol says, and yields events. Whom a certificate speaks for,
//! which keys of dialback hold and what becomes of stanzas is decided by the federation core.
//!
//! Of each stream the machine knows which pairs of domains are authenticated, in which direction. A stanza of another pair
//! is never an event, whoever asks the machine in whatever order: it is an error of the stream.
//!
//! The order of things, ours on the left where we initiate:
//!
//! ```text
//! initiate                      Event::Opened, offer          (without TLS: STARTTLS alone is offered)
//! Event::StartTls, secured      Event::StartTls, secured
//!                               Event::Opened, offer
//! Event::Features, bidi         Event::Bidi
//! authenticate                  Event::External, authenticated
//! Event::Authenticated          Event::Opened, offer
//! Event::Features               Event::Stanza …
//!
//! or, in place of the three lines before the last, on the same stream and also later for more pairs:
//! ask                           Event::Dialback(Ask), answer
//! Event::Dialback(Answer)
//! ```
//!
//! `reader` keeps the bytes that come and cuts them for the machine; `rewrite` takes stanzas from one content namespace to the
//! other. Counting for XEP-0198 is its caller's.

mod elements;
pub mod event;
mod header;
mod initiating;
mod managing;
pub mod policy;
pub mod reader;
mod receiving;
pub mod rewrite;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests;

pub use event::{Event, Features, NoTls, Opened, Pair, PeerLimits, Role};
pub use policy::{Offer, S2sPolicy};
pub use reader::Reader;

use super::dialback::{Dialback, Verdict};
use crate::xmpp::jid::BareJid;
use crate::xmpp::stream_error::StreamError;
use crate::xmpp::xml::framer::XmlLimits;
use crate::xmpp::xml::reader::StreamContext;
use smallvec::SmallVec;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A header of the peer is due.
    Opening,
    /// Receiving: `Event::Opened` is out.
    Offering,
    /// Receiving: the features are out.
    Open,
    /// Receiving: EXTERNAL was chosen without a message, which is due.
    Initial,
    /// Receiving: `Event::External` is out.
    Judging,
    /// Initiating: the features are due.
    Features,
    /// Initiating: `<starttls/>` is out.
    AskingTls,
    /// Initiating: the features are known.
    Negotiating,
    /// Initiating: `<auth/>` is out.
    Authenticating,
    /// Initiating: `<abort/>` is out.
    Aborting,
    /// Nothing may come before the handshake.
    StartingTls,
    /// There is no TLS, or the peer ended the stream: only `close` is left.
    Ended,
    /// Our end tag is out.
    Closed,
}

/// How far XEP-0198 is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Managing {
    Off,
    /// Ours is asked, the peer's answer is due.
    Enabling,
    Resuming,
    /// The peer asked, our answer is due.
    Deciding,
    On,
}

/// One stream between servers. Lives on the federation core that holds the connection.
#[derive(Debug)]
pub struct S2sStream {
    role: Role,
    phase: Phase,
    secure: bool,
    /// SASL is over.
    authenticated: bool,
    /// Whose stream it is. Initiating: from the start. Receiving: by the peer's last header.
    local: Option<BareJid>,
    remote: Option<BareJid>,
    context: StreamContext,
    /// Ids of our headers, when receiving, begin with it.
    seed: Box<str>,
    headers: u32,
    /// The stream's id, made by the receiving side.
    id: Box<str>,
    header_sent: bool,
    /// Our end tag is out, and the peer's is waited for.
    finished: bool,
    /// Initiating: what is wrong with the peer's header.
    flaw: Option<StreamError>,
    restarts: u32,
    /// What was offered, when receiving; what the peer offered, when initiating.
    offer: Offer,
    dialback_errors: bool,
    bidi: bool,
    peer_limits: PeerLimits,
    sasl_failures: u8,
    managing: Managing,
    /// Pairs whose stanzas are taken.
    inbound: SmallVec<[Pair; 1]>,
    /// Pairs whose stanzas may be sent.
    outbound: SmallVec<[Pair; 1]>,
    /// Pairs that the peer asked for by dialback.
    pending: SmallVec<[Pair; 1]>,
    /// Pairs that were asked for by dialback.
    asked: SmallVec<[Pair; 1]>,
    /// Keys that the peer was asked to verify: for which pair, of which stream.
    verifying: Vec<(Pair, Box<str>)>,
}

impl S2sStream {
    /// A stream that we open; writes the header.
    ///
    /// - takes: `secure`, whether the connection began with a handshake (XEP-0368)
    pub fn initiate(pair: Pair, secure: bool, out: &mut Vec<u8>) -> S2sStream {
        let mut stream = S2sStream::new(Role::Initiating, secure, "");
        (stream.local, stream.remote) = (Some(pair.local), Some(pair.remote));
        stream.write_header(None, out);
        stream
    }

    /// A stream on a connection that a peer made.
    ///
    /// - takes: `secure`, as above; `seed`, which nobody can guess and which needs no escape: the ids of its headers begin
    ///   with it
    pub fn accept(secure: bool, seed: &str) -> S2sStream {
        S2sStream::new(Role::Receiving, secure, seed)
    }

    fn new(role: Role, secure: bool, seed: &str) -> S2sStream {
        S2sStream {
            role,
            phase: Phase::Opening,
            secure,
            authenticated: false,
            local: None,
            remote: None,
            context: StreamContext::server(),
            seed: seed.into(),
            headers: 0,
            id: "".into(),
            header_sent: false,
            finished: false,
            flaw: None,
            restarts: 0,
            offer: Offer::default(),
            dialback_errors: false,
            bidi: false,
            peer_limits: PeerLimits::default(),
            sasl_failures: 0,
            managing: Managing::Off,
            inbound: SmallVec::new(),
            outbound: SmallVec::new(),
            pending: SmallVec::new(),
            asked: SmallVec::new(),
            verifying: Vec::new(),
        }
    }

    pub fn role(&self) -> Role {
        self.role
    }

    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// The pair of the headers; of a receiving stream nothing is proved by it.
    pub fn pair(&self) -> Option<Pair> {
        Some(Pair { local: self.local.clone()?, remote: self.remote.clone()? })
    }

    /// The stream's id, with which keys of dialback are made: the receiving side's, of its last header.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether stanzas go both ways (XEP-0288).
    pub fn is_bidi(&self) -> bool {
        self.bidi
    }

    /// What the peer takes (XEP-0478), so far as it said.
    pub fn peer_limits(&self) -> PeerLimits {
        self.peer_limits
    }

    /// Whether the peer takes a stanza of so many bytes, so far as it said. For one that it does not, the sender is told
    /// `policy-violation` (XEP-0478 §4).
    pub fn fits(&self, bytes: usize) -> bool {
        self.peer_limits.bytes_max.is_none_or(|most| bytes <= most as usize)
    }

    /// Whether EXTERNAL went through, in either role.
    pub fn is_authenticated(&self) -> bool {
        self.authenticated
    }

    /// Whether some pair is authenticated.
    pub fn is_established(&self) -> bool {
        !self.inbound.is_empty() || !self.outbound.is_empty()
    }

    /// Whether XEP-0198 is in force.
    pub fn is_managed(&self) -> bool {
        self.managing == Managing::On
    }

    /// Waiting for the handshake; bytes now are a violation.
    pub fn is_starting_tls(&self) -> bool {
        self.phase == Phase::StartingTls
    }

    /// Our end tag is out.
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// Nothing is to be read from the peer now: an answer of ours is due, or all is over.
    pub fn is_waiting(&self) -> bool {
        self.managing == Managing::Deciding
            || matches!(
                self.phase,
                Phase::Offering
                    | Phase::Judging
                    | Phase::StartingTls
                    | Phase::Ended
                    | Phase::Closed
            )
    }

    /// Pairs whose stanzas are taken from the peer.
    pub fn inbound(&self) -> &[Pair] {
        &self.inbound
    }

    /// Pairs whose stanzas may be sent to the peer.
    pub fn outbound(&self) -> &[Pair] {
        &self.outbound
    }

    /// Whether the features are known to both. Not while one stream ends and the next has not begun: between `<success/>` and
    /// the features behind it.
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Negotiating) && !self.finished
    }

    /// Whether stanzas from the pair's local domain may be sent to its remote one.
    pub fn may_send(&self, pair: &Pair) -> bool {
        self.is_open() && self.outbound.contains(pair)
    }

    /// Whether one more pair may be asked for on this stream (XEP-0220 §2.6).
    pub fn may_ask(&self, pair: &Pair) -> bool {
        let is_open = match self.role {
            Role::Initiating => self.phase == Phase::Negotiating && self.offer.dialback,
            // XEP-0288 §2.2: only towards domains that the peer has proved.
            Role::Receiving => {
                self.bidi
                    && self.phase == Phase::Open
                    && self.inbound.iter().any(|known| known.remote == pair.remote)
            }
        };
        let is_first_target = self.remote.as_ref() == Some(&pair.remote);
        is_open
            && self.is_open()
            && self.secure
            && (self.role == Role::Receiving || is_first_target || self.dialback_errors)
    }

    /// Limits of what the peer sends now.
    pub fn limits<'a>(&self, policy: &'a S2sPolicy) -> &'a XmlLimits {
        if self.is_established() { &policy.limits } else { &policy.limits_before }
    }

    /// Namespaces to read the peer's elements with.
    pub fn context(&self) -> &StreamContext {
        &self.context
    }

    /// TLS is there: the stream begins anew. What is half read was sent without TLS and has to be dropped.
    pub fn secured(&mut self, out: &mut Vec<u8>) {
        if self.phase == Phase::StartingTls {
            self.secure = true;
            self.begin_anew(out);
        }
    }

    /// The peer's end tag came: `close` is due.
    pub fn ended(&mut self) -> Event {
        if self.phase != Phase::Closed {
            self.phase = Phase::Ended;
        }
        Event::Closed
    }

    /// How often the stream began anew: a framer goes along.
    fn restarts(&self) -> u32 {
        self.restarts
    }

    /// The next header is due, and where we initiate, ours is written.
    fn begin_anew(&mut self, out: &mut Vec<u8>) {
        self.phase = Phase::Opening;
        self.restarts += 1;
        self.header_sent = false;
        // What the peer asked for on the stream before is void: an answer would come between the two.
        self.pending.clear();
        if self.role == Role::Initiating {
            self.write_header(None, out);
        }
    }

    /// Asks by dialback for a pair: to send from the local domain to the remote one. False, and nothing is written, where
    /// it may not be asked for (`may_ask`), is asked for already, or where too many are.
    ///
    /// - takes: `key`, made for `id()`
    pub fn ask(&mut self, pair: &Pair, key: &str, policy: &S2sPolicy, out: &mut Vec<u8>) -> bool {
        let is_full = self.asked.len() + self.outbound.len() >= policy.pairs_max;
        if !self.may_ask(pair) || is_full || self.asked.contains(pair) {
            return false;
        }
        self.asked.push(pair.clone());
        let (from, to) = (pair.local.clone(), pair.remote.clone());
        Dialback::Ask { from, to, key: key.into() }.write(out);
        true
    }

    /// Answers the peer's `Dialback::Ask` for that pair. False, and nothing is written, where it asked for no such thing on
    /// this stream, or before the stream began anew. After `Verdict::Invalid` the stream is to be closed unless other pairs use it (XEP-0220 §2.2.1).
    pub fn answer(&mut self, pair: &Pair, verdict: Verdict, out: &mut Vec<u8>) -> bool {
        let Some(place) = self.pending.iter().position(|pending| pending == pair) else {
            return false;
        };
        self.pending.remove(place);
        if verdict == Verdict::Valid {
            self.take_from(pair.clone());
        }
        let (from, to) = (pair.local.clone(), pair.remote.clone());
        Dialback::Answer { from, to, verdict }.write(out);
        true
    }

    /// Asks the peer, which is to answer for the pair's remote domain, whether it made this key for our stream `id`. False,
    /// and nothing is written, where the stream is not that far, this is asked already, or too much is.
    pub fn verify(
        &mut self,
        pair: &Pair,
        id: &str,
        key: &str,
        policy: &S2sPolicy,
        out: &mut Vec<u8>,
    ) -> bool {
        let is_known = self.verifying.iter().any(|(known, of)| known == pair && **of == *id);
        let is_full = self.verifying.len() >= policy.verifications_max;
        let is_open = self.phase == Phase::Negotiating && self.is_open() && self.secure;
        if is_known || is_full || !is_open {
            return false;
        }
        self.verifying.push((pair.clone(), id.into()));
        let (from, to) = (pair.local.clone(), pair.remote.clone());
        Dialback::Verify { from, to, id: id.into(), key: key.into() }.write(out);
        true
    }

    /// Initiating, with XEP-0288: the peer has proved the remote domain of a pair that may be sent, so its stanzas back to
    /// us are taken. False where the stream is not that far.
    pub fn trust(&mut self, pair: &Pair) -> bool {
        let may = self.role == Role::Initiating && self.bidi && self.outbound.contains(pair);
        if may && !self.inbound.contains(pair) {
            self.inbound.push(pair.clone());
        }
        may
    }

    /// The pair is authenticated by the peer: its stanzas are taken, and with XEP-0288 may be sent.
    fn take_from(&mut self, pair: Pair) {
        if self.bidi && !self.outbound.contains(&pair) {
            self.outbound.push(pair.clone());
        }
        if !self.inbound.contains(&pair) {
            self.inbound.push(pair);
        }
    }

    /// Says that nothing more comes, and reads on until the peer says so, too (`Event::Closed`): it has read all that was sent
    /// by then (RFC 6120 §4.4). False, and nothing is written, where the stream is not open.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> bool {
        let may = self.is_open();
        if may {
            out.extend_from_slice(b"</stream:stream>");
            self.finished = true;
        }
        may
    }

    /// Ends the stream, with `error` first where there is one. A header goes before it if none was sent
    /// (RFC 6120 §4.9.1.2); while TLS is being started nothing may be said.
    pub fn close(&mut self, error: Option<&StreamError>, policy: &S2sPolicy, out: &mut Vec<u8>) {
        if self.phase == Phase::Closed {
            return;
        }
        if self.phase != Phase::StartingTls && !self.finished {
            if !self.header_sent {
                self.write_header(policy.domains.first().map(|domain| &**domain), out);
            }
            if let Some(error) = error {
                error.write(out);
            }
            out.extend_from_slice(b"</stream:stream>");
        }
        self.phase = Phase::Closed;
    }
}
