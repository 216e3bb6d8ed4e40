//! XEP-0198: Stream Management. Counts stanzas both ways and keeps what the other side has not acknowledged.
//!
//! Lives in a session, on the shard that holds its socket. It decides nothing about durability: the shard tells it
//! which stanzas are handled, and it answers with the number that may be acknowledged.

use crate::base::instant::{Instant, Wall};
use crate::xmpp::ns;
use crate::xmpp::stream_error::{StreamCondition, StreamError};
use crate::xmpp::xml::writer::Writer;
use smallvec::SmallVec;
use std::collections::VecDeque;

/// Stanzas that an empty queue keeps room for.
const IDLE_CAPACITY: usize = 8;

/// One stanza that the client has not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unacknowledged {
    pub bytes: Box<[u8]>,
    /// Its row in the owner's log, to be confirmed when the client acknowledges.
    pub log_id: Option<u64>,
    /// When it went out for the first time: what it is stamped with where it goes elsewhere (XEP-0198 §4).
    pub at: Wall,
    /// When it went out, and as what in a code of the shard's; `None` where nobody measures how long it is out.
    pub sent: Option<(Instant, u8)>,
}

/// What the client's `<a/>` or `<resume/>` settled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    pub log_ids: Vec<u64>,
    /// `Unacknowledged::sent` of each that had it.
    pub sent: SmallVec<[(Instant, u8); 8]>,
}

/// How a session is taken up again after its connection broke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resumable {
    /// Names it to `<resume/>`.
    pub id: Box<str>,
    /// For how long after the break, in seconds: what `<enabled max=''/>` promised.
    pub window_s: u32,
}

/// What `Counters` are: how a session goes to another node.
#[derive(Debug, Clone, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct CountersImage {
    pub id: String,
    pub window_s: u32,
    handled: u32,
    /// As in `Counters`.
    open: Vec<u8>,
    sent: u32,
    /// Stanza, row in the owner's log, when it went out.
    queue: Vec<(Vec<u8>, Option<u64>, u64)>,
}

impl CountersImage {
    /// Stanzas of the client that wait for something: number, and how many things.
    pub fn open_stanzas(&self) -> impl Iterator<Item = (u32, u8)> + '_ {
        let numbers = (1..).map(|place| self.handled.wrapping_add(place));
        numbers.zip(self.open.iter().copied()).filter(|(_, things)| *things > 0)
    }
}

/// Both directions of one stream's counting.
#[derive(Debug, Default)]
pub struct Counters {
    /// `None` where the client did not ask for resumption, or there is none.
    pub resumable: Option<Resumable>,
    received: u32,
    handled: u32,
    /// One entry per stanza behind `handled`: how many things it waits for.
    open: VecDeque<u8>,
    /// The number last told to the client.
    told: u32,
    /// The client asked: when, and the stanza before its request, for which the answer waits.
    asked: Option<(Instant, u32)>,
    /// The stanza before its newest request.
    asked_newest: u32,
    /// The last answer did not cover that: one more follows when the number advances.
    owed: bool,
    sent: u32,
    acknowledged: u32,
    queue: VecDeque<Unacknowledged>,
    queue_bytes: usize,
    /// `sent` when the client was last asked, while its answer is out.
    requested: Option<u32>,
}

impl Counters {
    pub fn new(resumable: Option<Resumable>) -> Self {
        Self { resumable, ..Self::default() }
    }

    /// Counts a stanza from the client and gives its number; it stays open until `complete`.
    pub fn receive(&mut self) -> u32 {
        self.received = self.received.wrapping_add(1);
        self.open.push_back(1);
        self.received
    }

    /// The stanza `number`, which is open, waits for one thing more: one more `complete`.
    pub fn hold(&mut self, number: u32) {
        if let Some(things) = self.open.get_mut(self.place(number)) {
            *things = things.saturating_add(1);
        }
    }

    /// One thing that the stanza `number` waited for has come; with the last one it is handled. Gives true if the number
    /// that may be acknowledged advanced.
    pub fn complete(&mut self, number: u32) -> bool {
        let place = self.place(number);
        if let Some(things) = self.open.get_mut(place) {
            *things = things.saturating_sub(1);
        }
        self.advance()
    }

    /// The stanza `number` waits for so many things, or fewer if that is known already. Gives as `complete`.
    pub fn settle(&mut self, number: u32, things: u8) -> bool {
        let place = self.place(number);
        if let Some(known) = self.open.get_mut(place) {
            *known = things.min(*known);
        }
        self.advance()
    }

    /// As `complete`, for the stanza received last, whatever it waits for.
    pub fn complete_newest(&mut self) -> bool {
        if let Some(things) = self.open.back_mut() {
            *things = 0;
        }
        self.advance()
    }

    fn place(&self, number: u32) -> usize {
        number.wrapping_sub(self.handled).wrapping_sub(1) as usize
    }

    fn advance(&mut self) -> bool {
        let before = self.handled;
        while self.open.front() == Some(&0) {
            self.open.pop_front();
            self.handled = self.handled.wrapping_add(1);
        }
        if self.open.is_empty() {
            self.open.shrink_to(8 * IDLE_CAPACITY);
        }
        self.handled != before
    }

    /// Stanzas of the client that are handled, whether or not it was told.
    pub fn handled(&self) -> u32 {
        self.handled
    }

    /// Nobody can tell any more what becomes of the stanzas that are not handled: the client sends them again.
    pub fn forget_open(&mut self) {
        self.received = self.handled;
        self.open.clear();
    }

    /// Stanzas received and not yet handled.
    pub fn open_count(&self) -> usize {
        self.open.len()
    }

    /// The client asked for an acknowledgement (`<r/>`).
    pub fn ask(&mut self, now: Instant) {
        self.asked.get_or_insert((now, self.received));
        self.asked_newest = self.received;
    }

    pub fn asked_at(&self) -> Option<Instant> {
        self.asked.map(|(at, _)| at)
    }

    /// Whether everything up to the stanza `number` is handled.
    fn has_handled(&self, number: u32) -> bool {
        self.handled.wrapping_sub(number) < u32::MAX / 2
    }

    /// The number to tell now, if there is one to tell: everything before a request is done, or the request is `due`,
    /// or a number told too early has been passed. What comes after a request does not hold its answer up.
    pub fn answer(&mut self, due: bool) -> Option<u32> {
        let tell = match self.asked {
            Some((_, before)) => due || self.has_handled(before),
            None => self.owed && self.handled != self.told,
        };
        if !tell {
            return None;
        }
        self.asked = None;
        self.owed = !self.has_handled(self.asked_newest);
        self.told = self.handled;
        Some(self.handled)
    }

    /// The number for `<resumed h=''/>`, which is told without being asked.
    pub fn tell(&mut self) -> u32 {
        self.asked = None;
        self.owed = false;
        self.told = self.handled;
        self.handled
    }

    /// Counts a stanza to the client and keeps it.
    pub fn send(&mut self, stanza: Unacknowledged) {
        self.sent = self.sent.wrapping_add(1);
        self.queue_bytes += stanza.bytes.len();
        self.queue.push_back(stanza);
    }

    /// Takes back the newest `count` stanzas: their effects were cut back before they left.
    pub fn unsend(&mut self, count: usize) {
        for _ in 0..count {
            if let Some(last) = self.queue.pop_back() {
                self.queue_bytes -= last.bytes.len();
                self.sent = self.sent.wrapping_sub(1);
            }
        }
    }

    /// The number of the stanza that was sent last.
    pub fn sent(&self) -> u32 {
        self.sent
    }

    pub fn queue_len(&self) -> usize {
        self.queue.len()
    }

    pub fn queue_bytes(&self) -> usize {
        self.queue_bytes
    }

    /// The client handled `h` stanzas of ours.
    ///
    /// - errors: `undefined-condition` with `handled-count-too-high` (XEP-0198 §4); nothing is settled then
    pub fn acknowledge(&mut self, h: u32) -> Result<Settled, StreamError> {
        let newly = h.wrapping_sub(self.acknowledged);
        if newly as usize > self.queue.len() {
            // An old number again is no fault: acknowledgements may repeat.
            if self.acknowledged.wrapping_sub(h) < u32::MAX / 2 {
                return Ok(Settled::default());
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
        let mut settled = Settled::default();
        for _ in 0..newly {
            if let Some(stanza) = self.queue.pop_front() {
                self.queue_bytes -= stanza.bytes.len();
                settled.log_ids.extend(stanza.log_id);
                settled.sent.extend(stanza.sent);
            }
        }
        if self.queue.is_empty() {
            // Many sessions are idle, and each had a busy moment.
            self.queue.shrink_to(IDLE_CAPACITY);
        }
        self.acknowledged = h;
        if self.requested.is_some_and(|at| h.wrapping_sub(at) < u32::MAX / 2) {
            self.requested = None;
        }
        Ok(settled)
    }

    /// Whether to ask the client now: something is out, and no request waits for its answer. Asked once per turn, so
    /// one request covers what a turn sends.
    pub fn request(&mut self) -> bool {
        let out = self.sent.wrapping_sub(self.acknowledged);
        if out == 0 || self.requested.is_some() {
            return false;
        }
        self.requested = Some(self.sent);
        true
    }

    /// Everything the client has not acknowledged, oldest first, to be sent again after a resumption.
    pub fn unacknowledged(&self) -> impl Iterator<Item = &Unacknowledged> {
        self.queue.iter()
    }

    pub fn unacknowledged_mut(&mut self) -> impl Iterator<Item = &mut Unacknowledged> {
        self.queue.iter_mut()
    }

    /// A resumed stream asks afresh: the answer to the old request went down with the old connection.
    pub fn resumed(&mut self) {
        self.requested = None;
        // They go out again: how long the client was away says nothing about how fast it acknowledges.
        self.queue.iter_mut().for_each(|stanza| stanza.sent = None);
    }

    pub fn image(&self) -> CountersImage {
        let resumable = self.resumable.as_ref();
        CountersImage {
            id: resumable.map(|it| it.id.to_string()).unwrap_or_default(),
            window_s: resumable.map_or(0, |it| it.window_s),
            handled: self.handled,
            open: self.open.iter().copied().collect(),
            sent: self.sent,
            queue: self
                .queue
                .iter()
                .map(|stanza| (stanza.bytes.to_vec(), stanza.log_id, stanza.at.0))
                .collect(),
        }
    }

    /// `None` for what no counters ever were.
    pub fn from_image(image: CountersImage) -> Option<Self> {
        let out = u32::try_from(image.queue.len()).ok()?;
        let received = image.handled.wrapping_add(u32::try_from(image.open.len()).ok()?);
        let queue: VecDeque<Unacknowledged> = image
            .queue
            .into_iter()
            .map(|(bytes, log_id, at)| Unacknowledged {
                bytes: bytes.into(),
                log_id,
                at: Wall(at),
                sent: None,
            })
            .collect();
        Some(Self {
            resumable: Some(Resumable { id: image.id.into(), window_s: image.window_s }),
            received,
            handled: image.handled,
            open: image.open.into(),
            told: image.handled,
            sent: image.sent,
            acknowledged: image.sent.wrapping_sub(out),
            queue_bytes: queue.iter().map(|stanza| stanza.bytes.len()).sum(),
            queue,
            ..Self::default()
        })
    }

    /// Ends the counting and gives what was never acknowledged, oldest first.
    pub fn into_unacknowledged(self) -> VecDeque<Unacknowledged> {
        self.queue
    }
}

/// `<failed/>` with a stanza error's condition (XEP-0198 §3, §5).
///
/// - takes: `h`, what was handled of a session that was there once
pub fn failed(condition: &str, h: Option<u32>) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    let mut writer = Writer::new(&mut out);
    writer.start("failed").attr("xmlns", ns::SM3);
    if let Some(h) = h {
        writer.attr("h", &h.to_string());
    }
    writer.start(condition).attr("xmlns", ns::STANZA_ERRORS).close_empty().end("failed");
    out
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn stanza(id: u64) -> Unacknowledged {
        Unacknowledged {
            bytes: vec![b'x'; 10].into(),
            log_id: Some(id),
            at: Wall(0),
            sent: Some((Instant(id), 0)),
        }
    }

    #[test]
    fn a_stanza_that_waits_for_two_things_is_handled_with_the_second() {
        let mut counters = Counters::new(None);
        let (first, second) = (counters.receive(), counters.receive());
        counters.hold(first);
        assert!(!counters.complete(first));
        assert!(!counters.complete(second));
        assert!(counters.complete(first));
        assert_eq!(counters.tell(), 2);
        let third = counters.receive();
        counters.hold(third);
        assert!(counters.complete_newest(), "a fault leaves nothing to wait for");
        assert!(!counters.complete(third));
        assert_eq!(counters.tell(), 3);
    }

    #[test]
    fn handled_number_is_the_oldest_open_stanza() {
        let mut counters = Counters::new(None);
        for expected in 1..=3 {
            assert_eq!(counters.receive(), expected);
        }
        assert!(!counters.complete(2));
        counters.ask(Instant(0));
        assert_eq!(counters.answer(false), None);
        assert!(counters.complete(1));
        assert_eq!(counters.answer(true), Some(2));
        assert_eq!(counters.answer(false), None);
        assert!(counters.complete(3));
        assert_eq!(counters.answer(false), Some(3));
    }

    #[test]
    fn acknowledgement_settles_in_order_and_refuses_too_many() {
        let mut counters = Counters::new(None);
        (0..5).for_each(|id| counters.send(stanza(id)));
        let settled = counters.acknowledge(2).unwrap();
        assert_eq!(settled.log_ids, [0, 1]);
        assert_eq!(settled.sent.to_vec(), [(Instant(0), 0), (Instant(1), 0)]);
        assert_eq!(counters.acknowledge(1).unwrap().log_ids, [0u64; 0]);
        assert_eq!(counters.queue_len(), 3);
        let error = counters.acknowledge(6).unwrap_err();
        let wanted = "<handled-count-too-high xmlns='urn:xmpp:sm:3' h='6' send-count='5'/>";
        assert_eq!(error.detail.as_deref(), Some(wanted));
        assert_eq!(counters.acknowledge(5).unwrap().log_ids, [2, 3, 4]);
        assert_eq!(counters.queue_bytes(), 0);
    }

    #[test]
    fn an_image_goes_on_where_the_counters_were() {
        let resumable = Resumable { id: "x".into(), window_s: 60 };
        let mut counters = Counters::new(Some(resumable));
        let (first, second) = (counters.receive(), counters.receive());
        counters.complete(first);
        (0..3).for_each(|id| counters.send(stanza(id)));
        counters.acknowledge(1).unwrap();
        let mut other = Counters::from_image(counters.image()).unwrap();
        assert_eq!(other.image(), counters.image());
        assert_eq!((other.tell(), other.sent(), other.queue_bytes()), (1, 3, 20));
        assert_eq!(other.open_count(), 1);
        assert!(other.complete(second));
        assert_eq!(other.receive(), 3);
        other.forget_open();
        assert_eq!((other.open_count(), other.receive()), (0, 3));
        assert_eq!(other.acknowledge(2).unwrap().log_ids, [1]);
        assert!(other.acknowledge(4).is_err());
        assert_eq!(other.resumable, counters.resumable);
    }

    #[test]
    fn numbers_wrap_at_32_bits() {
        let mut counters =
            Counters { received: u32::MAX, handled: u32::MAX, ..Counters::default() };
        assert_eq!(counters.receive(), 0);
        assert!(counters.complete(0));
        counters.sent = u32::MAX;
        counters.acknowledged = u32::MAX;
        counters.send(stanza(1));
        assert_eq!(counters.acknowledge(0).unwrap().log_ids, [1]);
    }

    #[test]
    fn one_request_is_out_at_a_time() {
        let mut counters = Counters::new(None);
        assert!(!counters.request());
        counters.send(stanza(1));
        assert!(counters.request());
        counters.send(stanza(2));
        assert!(!counters.request());
        counters.acknowledge(1).unwrap();
        assert!(counters.request());
    }
}
