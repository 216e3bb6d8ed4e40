//! XEP-0198: Stream Management. Counts stanzas both ways and keeps what the other side has not acknowledged.
//!
//! Lives in a session, on the shard that owns it. It decides nothing about durability: the shard tells it which stanzas
//! are handled, and which of those a copy elsewhere covers, and it answers with the number that may be acknowledged.

use crate::base::instant::{Instant, Wall};
use crate::frame::Origin;
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
    /// Where it came from, if it may come from there again, or be kept twice.
    pub origin: Option<Origin>,
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
    queue: Vec<QueuedImage>,
    /// As in `Counters`.
    known: Option<u32>,
}

/// `Unacknowledged`, without what is measured.
#[derive(Debug, Clone, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct QueuedImage {
    bytes: Vec<u8>,
    log_id: Option<u64>,
    /// Incarnation, link, number.
    origin: Option<(u64, u32, u64)>,
    at: u64,
}

impl From<QueuedImage> for Unacknowledged {
    fn from(image: QueuedImage) -> Self {
        let origin = image.origin;
        Self {
            bytes: image.bytes.into(),
            log_id: image.log_id,
            origin: origin.map(|(incarnation, link, number)| Origin { incarnation, link, number }),
            at: Wall(image.at),
            sent: None,
        }
    }
}

impl From<Unacknowledged> for QueuedImage {
    fn from(stanza: Unacknowledged) -> Self {
        let origin = stanza.origin;
        Self {
            bytes: stanza.bytes.into_vec(),
            log_id: stanza.log_id,
            origin: origin.map(|Origin { incarnation, link, number }| (incarnation, link, number)),
            at: stanza.at.0,
        }
    }
}

impl CountersImage {
    /// Stanzas of the client that wait for something: number, and how many things.
    pub fn open_stanzas(&self) -> impl Iterator<Item = (u32, u8)> + '_ {
        let numbers = (1..).map(|place| self.handled.wrapping_add(place));
        numbers.zip(self.open.iter().copied()).filter(|(_, things)| *things > 0)
    }

    /// Stanzas of the client that are handled.
    pub fn handled(&self) -> u32 {
        self.handled
    }

    /// Whether nobody knows yet how much of what was sent the client received.
    pub fn is_unsure(&self) -> bool {
        self.known.is_some()
    }

    /// What is sent to the client, without what is in the queue.
    pub fn tally(&self) -> Tally {
        let out = u32::try_from(self.queue.len()).unwrap_or(u32::MAX);
        let (sent, handled, known) = (self.sent, self.handled, self.known);
        Tally { handled, sent, acknowledged: sent.wrapping_sub(out), known }
    }

    /// The stanzas that are not acknowledged, which are taken out.
    pub fn take_queue(&mut self) -> VecDeque<Unacknowledged> {
        std::mem::take(&mut self.queue).into_iter().map(Unacknowledged::from).collect()
    }

    /// Where the stanzas that are not acknowledged came from, of those that may come again.
    pub fn origins(&self) -> impl Iterator<Item = Origin> + '_ {
        let origins = self.queue.iter().filter_map(|stanza| stanza.origin);
        origins.map(|(incarnation, link, number)| Origin { incarnation, link, number })
    }

    /// Without stanzas whose handling is still open: nobody tells of them where the counters go.
    pub fn forget_open(&mut self) {
        self.open.clear();
    }

    /// What a copy comes to: its client may have received more than the copy holds.
    pub fn revive(&mut self, tally: Tally, queue: VecDeque<Unacknowledged>) {
        self.open.clear();
        self.handled = tally.handled;
        self.sent = tally.sent;
        self.known = Some(tally.known.unwrap_or(tally.sent));
        self.queue = queue.into_iter().map(QueuedImage::from).collect();
    }
}

/// Where both directions are: what a copy of the counters follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub handled: u32,
    pub sent: u32,
    pub acknowledged: u32,
    pub known: Option<u32>,
}

/// Whether the number `one` comes after `other`; numbers wrap.
pub fn is_after(one: u32, other: u32) -> bool {
    one != other && one.wrapping_sub(other) < u32::MAX / 2
}

/// Both directions of one stream's counting.
#[derive(Debug, Default)]
pub struct Counters {
    /// `None` where the client did not ask for resumption, or there is none.
    pub resumable: Option<Resumable>,
    received: u32,
    handled: u32,
    /// Where there is a copy of the session elsewhere: how much of `handled` that covers.
    covered: Option<u32>,
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
    /// The session came to life from a copy that knew of stanzas up to this number. The client may have received more,
    /// so what follows in the queue has no number before the client says where it is.
    known: Option<u32>,
}

impl Counters {
    pub fn new(resumable: Option<Resumable>) -> Self {
        Self { resumable, ..Self::default() }
    }

    /// Those of a stream that another core had, of which `handled` stanzas of the peer are handled and none is open.
    pub fn going_on(handled: u32) -> Self {
        Self { received: handled, handled, told: handled, ..Self::default() }
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

    /// Stanzas of the client.
    pub fn received(&self) -> u32 {
        self.received
    }

    /// Stanzas of the client that are handled, whether or not it was told.
    pub fn handled(&self) -> u32 {
        self.handled
    }

    /// What the client may be told: what is handled, as far as a copy covers it.
    pub fn tellable(&self) -> u32 {
        self.covered.unwrap_or(self.handled)
    }

    /// Whether all that is handled may be told.
    pub fn is_covered(&self) -> bool {
        self.covered.is_none_or(|covered| covered == self.handled)
    }

    /// From now on no number is told that `cover` has not named, but for those that are handled now.
    pub fn wait_for_copy(&mut self) {
        self.covered.get_or_insert(self.handled);
    }

    /// The copy holds all up to this number.
    pub fn cover(&mut self, number: u32) {
        if self.covered.is_some_and(|covered| is_after(number, covered)) {
            self.covered = Some(number);
        }
    }

    /// There is no copy.
    pub fn uncover(&mut self) {
        self.covered = None;
    }

    /// Whether the client waits to be told a number.
    pub fn owes_answer(&self) -> bool {
        self.asked.is_some() || self.owed
    }

    pub fn tally(&self) -> Tally {
        let Self { handled, sent, acknowledged, known, .. } = *self;
        Tally { handled, sent, acknowledged, known }
    }

    /// The newest `count` stanzas that are not acknowledged, oldest first.
    pub fn newest(&self, count: usize) -> impl ExactSizeIterator<Item = &Unacknowledged> {
        self.queue.range(self.queue.len().saturating_sub(count)..)
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

    /// Whether everything up to the stanza `number` is handled, and may be told.
    fn has_handled(&self, number: u32) -> bool {
        self.tellable().wrapping_sub(number) < u32::MAX / 2
    }

    /// The number to tell now, if there is one to tell: everything before a request is done, or the request is `due`,
    /// or a number told too early has been passed. What comes after a request does not hold its answer up.
    pub fn answer(&mut self, due: bool) -> Option<u32> {
        let tell = match self.asked {
            Some((_, before)) => due || self.has_handled(before),
            None => self.owed && self.tellable() != self.told,
        };
        if !tell {
            return None;
        }
        self.asked = None;
        self.owed = !self.has_handled(self.asked_newest);
        self.told = self.tellable();
        Some(self.told)
    }

    /// The number for `<resumed h=''/>`, which is told without being asked.
    pub fn tell(&mut self) -> u32 {
        self.asked = None;
        self.owed = false;
        self.told = self.tellable();
        self.told
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
        if let Some(known) = self.known.take() {
            return Ok(self.begin_at(h, known));
        }
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
        let settled = self.settle_oldest(newly as usize);
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

    /// The oldest stanzas of the queue are the client's.
    fn settle_oldest(&mut self, count: usize) -> Settled {
        let mut settled = Settled::default();
        for stanza in self.queue.drain(..count.min(self.queue.len())) {
            self.queue_bytes -= stanza.bytes.len();
            settled.log_ids.extend(stanza.log_id);
            settled.sent.extend(stanza.sent);
        }
        settled
    }

    /// The client of a session that came from a copy says what it received: of the queue, no more than the copy `known`
    /// to be sent. All else that it counted went down with the copy's original; numbers go on from there.
    fn begin_at(&mut self, h: u32, known: u32) -> Settled {
        let mut settled = Settled::default();
        if is_after(h, self.acknowledged) {
            let count =
                h.wrapping_sub(self.acknowledged).min(known.wrapping_sub(self.acknowledged));
            settled = self.settle_oldest(count as usize);
            self.acknowledged = h;
        }
        let out = u32::try_from(self.queue.len()).unwrap_or(u32::MAX);
        self.sent = self.acknowledged.wrapping_add(out);
        settled
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
            queue: self.queue.iter().cloned().map(QueuedImage::from).collect(),
            known: self.known,
        }
    }

    /// As `image`, without the queue.
    pub fn image_of_tally(&self) -> CountersImage {
        let resumable = self.resumable.as_ref();
        CountersImage {
            id: resumable.map(|it| it.id.to_string()).unwrap_or_default(),
            window_s: resumable.map_or(0, |it| it.window_s),
            handled: self.handled,
            open: Vec::new(),
            sent: self.sent,
            queue: Vec::new(),
            known: self.known,
        }
    }

    /// `None` for what no counters ever were.
    pub fn from_image(image: CountersImage) -> Option<Self> {
        let out = u32::try_from(image.queue.len()).ok()?;
        let received = image.handled.wrapping_add(u32::try_from(image.open.len()).ok()?);
        let queue: VecDeque<Unacknowledged> =
            image.queue.into_iter().map(Unacknowledged::from).collect();
        Some(Self {
            resumable: Some(Resumable { id: image.id.into(), window_s: image.window_s }),
            received,
            handled: image.handled,
            open: image.open.into(),
            told: image.handled,
            sent: image.sent,
            known: image.known,
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
            origin: Some(Origin { incarnation: 1, link: 2, number: id }),
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
    fn no_number_is_told_that_the_copy_does_not_cover() {
        let mut counters = Counters::new(None);
        counters.wait_for_copy();
        let (first, second) = (counters.receive(), counters.receive());
        counters.ask(Instant(0));
        counters.complete(first);
        counters.complete(second);
        assert_eq!((counters.answer(false), counters.is_covered()), (None, false));
        counters.cover(1);
        assert_eq!(counters.answer(true), Some(1), "it waited long enough");
        counters.cover(0);
        counters.cover(2);
        assert_eq!(counters.answer(false), Some(2), "the rest follows unasked");
        counters.complete(3);
        counters.receive();
        counters.complete(3);
        assert_eq!(counters.tell(), 2);
        counters.uncover();
        assert_eq!(counters.tell(), 3);
    }

    #[test]
    fn a_client_that_received_more_than_the_copy_knows_goes_on_from_there() {
        for (h, left, sent) in [(1, 4, 5), (3, 2, 5), (4, 2, 6), (9, 2, 11), (0, 4, 5)] {
            let resumable = Resumable { id: "x".into(), window_s: 60 };
            let mut original = Counters::new(Some(resumable));
            (0..3).for_each(|id| original.send(stanza(id)));
            original.acknowledge(1).unwrap();
            let mut image = original.image_of_tally();
            let queue = original.newest(2).cloned().collect();
            image.revive(original.tally(), queue);
            assert!(image.is_unsure());
            let mut copy = Counters::from_image(image).unwrap();
            // Came while it waited, and has no number yet.
            (7..9).for_each(|id| copy.send(stanza(id)));
            let again = Counters::from_image(copy.image()).unwrap();
            assert_eq!(again.image(), copy.image());
            copy.acknowledge(h).unwrap();
            assert_eq!((copy.queue_len(), copy.sent()), (left, sent), "{h}");
            assert!(copy.unacknowledged().any(|stanza| stanza.log_id == Some(7)));
            assert!(copy.acknowledge(sent + 1).is_err());
        }
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
