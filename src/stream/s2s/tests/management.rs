//! XEP-0198 between servers, the numbers, for the core of the tests: `resume::Counters` for what comes, counts alone for what
//! goes. Outlives the stream, which may be resumed. A federation core counts in `federation/managed.rs`.

use crate::base::instant::Instant;
use crate::stream::resume::Counters;
use crate::stream::s2s::Pair;
use crate::xmpp::ns;
use crate::xmpp::stream_error::{StreamCondition, StreamError};
use crate::xmpp::xml::writer::Writer;

/// One stream's counting, both ways.
#[derive(Debug)]
pub(super) struct Management {
    /// Whose stream it is: no other pair resumes it.
    pair: Pair,
    /// Its name for `<resume/>`, and for how long after a break, in seconds.
    resumable: Option<(Box<str>, u32)>,
    incoming: Counters,
    sent: u32,
    acknowledged: u32,
    /// `sent` when the peer was last asked, while its answer is out.
    requested: Option<u32>,
}

impl Management {
    /// Begins where XEP-0198 does: when initiating with `<enable/>`, when receiving with `<enabled/>`.
    pub(super) fn new(pair: Pair, resumable: Option<(Box<str>, u32)>) -> Management {
        Management {
            pair,
            resumable,
            incoming: Counters::default(),
            sent: 0,
            acknowledged: 0,
            requested: None,
        }
    }

    /// The peer granted it: what it said in `<enabled/>`.
    pub(super) fn granted(&mut self, id: Option<Box<str>>, max_s: Option<u32>, default_s: u32) {
        self.resumable = id.map(|id| (id, max_s.unwrap_or(default_s)));
    }

    pub(super) fn pair(&self) -> &Pair {
        &self.pair
    }

    /// Its name for `<resume/>`, and for how long after a break, in seconds.
    pub(super) fn resumable(&self) -> Option<(&str, u32)> {
        self.resumable.as_ref().map(|(id, window_s)| (&**id, *window_s))
    }

    /// Counts a stanza of the peer and gives its number; it is open until `handled`.
    pub(super) fn receive(&mut self) -> u32 {
        self.incoming.receive()
    }

    /// One thing that the stanza `number` waited for has come. True if more may be acknowledged.
    pub(super) fn handled(&mut self, number: u32) -> bool {
        self.incoming.complete(number)
    }

    /// Stanzas of the peer that are not handled.
    pub(super) fn open_count(&self) -> usize {
        self.incoming.open_count()
    }

    /// The peer asked how far we are (`<r/>`).
    pub(super) fn ask(&mut self, now: Instant) {
        self.incoming.ask(now);
    }

    /// Appends `<a/>` where one is owed: all before the peer's request is handled, or the answer is `due`.
    pub(super) fn answer(&mut self, due: bool, out: &mut Vec<u8>) -> bool {
        let Some(h) = self.incoming.answer(due) else { return false };
        Writer::new(out).start("a").attr("xmlns", ns::SM3).attr("h", &h.to_string()).close_empty();
        true
    }

    /// What is handled, for `<resume/>` and `<resumed/>`. What is open then is forgotten: the peer sends it again, so a
    /// peer that resumes is best answered when `open_count` is 0.
    pub(super) fn tell(&mut self) -> u32 {
        self.incoming.forget_open();
        self.incoming.tell()
    }

    /// Counts a stanza to the peer.
    pub(super) fn send(&mut self) {
        self.sent = self.sent.wrapping_add(1);
    }

    /// Stanzas that the peer has not acknowledged.
    pub(super) fn out_count(&self) -> u32 {
        self.sent.wrapping_sub(self.acknowledged)
    }

    /// Appends `<r/>` where something is out and no request waits. Called once per turn, so one request covers what a turn
    /// sends.
    pub(super) fn request(&mut self, out: &mut Vec<u8>) -> bool {
        if self.out_count() == 0 || self.requested.is_some() {
            return false;
        }
        self.requested = Some(self.sent);
        Writer::new(out).start("r").attr("xmlns", ns::SM3).close_empty();
        true
    }

    /// The peer handled `h` stanzas of ours; gives how many more than it said before.
    ///
    /// - errors: `undefined-condition` with `handled-count-too-high` (XEP-0198 §4); nothing is settled then
    pub(super) fn acknowledge(&mut self, h: u32) -> Result<u32, StreamError> {
        let newly = h.wrapping_sub(self.acknowledged);
        if newly > self.out_count() {
            // An old number again is no fault: acknowledgements may repeat.
            if self.acknowledged.wrapping_sub(h) < u32::MAX / 2 {
                return Ok(0);
            }
            let detail = format!(
                "<handled-count-too-high xmlns='{}' h='{h}' send-count='{}'/>",
                ns::SM3,
                self.sent
            );
            return Err(StreamError::new(StreamCondition::UndefinedCondition)
                .with_text("acknowledged more stanzas than were sent")
                .with_detail(detail));
        }
        self.acknowledged = h;
        if self.requested.is_some_and(|at| h.wrapping_sub(at) < u32::MAX / 2) {
            self.requested = None;
        }
        Ok(newly)
    }

    /// The stream goes on over another connection. Gives as `acknowledge`; what is out after that is to be sent again,
    /// without `send`, and is asked for afresh.
    pub(super) fn resumed(&mut self, h: u32) -> Result<u32, StreamError> {
        self.requested = None;
        self.acknowledge(h)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::xmpp::jid::BareJid;

    fn management() -> Management {
        let jid = |text| BareJid::parse(text).unwrap();
        let pair = Pair { local: jid("here.example"), remote: jid("there.example") };
        Management::new(pair, None)
    }

    #[test]
    fn peer_acknowledges_what_was_sent_and_no_more() {
        let mut management = management();
        let mut out = Vec::new();
        assert!(!management.request(&mut out), "nothing is out");
        (0..3).for_each(|_| management.send());
        assert!(management.request(&mut out));
        assert!(!management.request(&mut out), "asked already");
        assert_eq!(out, b"<r xmlns='urn:xmpp:sm:3'/>");
        assert_eq!(management.acknowledge(2), Ok(2));
        assert!(!management.request(&mut out), "the answer to the first is still out");
        assert_eq!(management.acknowledge(2), Ok(0));
        assert_eq!(management.acknowledge(1), Ok(0), "an old number");
        let error = management.acknowledge(4).unwrap_err();
        assert_eq!(error.condition, StreamCondition::UndefinedCondition);
        assert!(error.detail.unwrap().contains("send-count='3'"));
        assert_eq!(management.acknowledge(3), Ok(1));
        management.send();
        assert!(management.request(&mut out));
    }

    #[test]
    fn numbers_wrap() {
        let mut management = management();
        (management.sent, management.acknowledged) = (u32::MAX, u32::MAX - 1);
        management.send();
        management.send();
        assert_eq!(management.out_count(), 3);
        assert_eq!(management.acknowledge(0), Ok(2));
        assert_eq!(management.acknowledge(1), Ok(1));
    }

    #[test]
    fn peer_is_told_what_is_handled_only() {
        let mut management = management();
        let mut out = Vec::new();
        let (first, second) = (management.receive(), management.receive());
        management.ask(Instant(1));
        assert!(!management.handled(second), "the first is open");
        assert!(!management.answer(false, &mut out));
        assert!(management.handled(first));
        assert!(management.answer(false, &mut out));
        assert_eq!(out, b"<a xmlns='urn:xmpp:sm:3' h='2'/>");
        assert!(!management.answer(true, &mut out), "nobody asked");
    }

    #[test]
    fn resumed_stream_sends_again_what_the_peer_lacks() {
        let mut management = management();
        management.granted(Some("x".into()), None, 60);
        assert_eq!(management.resumable(), Some(("x", 60)));
        (0..5).for_each(|_| management.send());
        let mut out = Vec::new();
        management.request(&mut out);
        let third = management.receive();
        assert_eq!(management.resumed(3), Ok(3));
        assert_eq!(management.out_count(), 2);
        assert!(management.request(&mut out), "the old request is lost");
        assert_eq!(management.tell(), 0, "the peer sends it again");
        management.handled(third);
        assert_eq!((management.open_count(), management.tell()), (0, 0));
        assert_eq!(management.receive(), 1);
    }
}
