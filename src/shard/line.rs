//! The line of an account, or of another domain, that moves here: what waits until all others have let go of it comes by
//! several ways, and is brought into the order in which it was sent (R6).

use super::account::Queued;
use super::heard::has_origin;
use super::retry::order_of_origins;
use crate::frame::Flags;
use std::cmp::Ordering;
use std::collections::VecDeque;

/// Where in the line of an account that moves here a stanza waits: what was sent to an old owner, and came on from there or
/// was sent again, may come behind what the same sender sent later and directly.
pub(super) fn place_of(line: &VecDeque<Queued>, queued: &Queued) -> usize {
    let is_again = |one: &Queued| one.post.flags.contains(Flags::RETRY);
    let way = |one: &Queued| (one.at.ring, is_again(one), one.is_left());
    // Nodes between a client and its session are no part of the way.
    let crossed =
        |one: &Queued| one.hops.saturating_sub(u8::from(one.post.flags.contains(Flags::RELAYED)));
    // A sender is served by one owner at a time, and by each with a later epoch; the clocks of two may be far apart. What
    // has no origin does not keep its epoch when it is passed on.
    let is_kept = |one: &Queued| has_origin(one.post.kind);
    let age = |one: &Queued| match is_kept(one) && !one.is_left() {
        true => (true, one.epoch, one.ingress),
        false => (!one.is_left(), 0, one.ingress),
    };
    // What a session left has the number of where it was left.
    let number = |one: &'_ Queued| one.retry.filter(|_| !one.is_left());
    let origins = |one: &Queued| order_of_origins(&number(one)?, &number(queued)?);
    let waiting = || {
        let line = line.iter().enumerate();
        let is_kept = |other: &Queued| is_kept(other) == is_kept(queued);
        line.filter(move |(_, other)| other.post.from == queued.post.from && is_kept(other))
    };
    // What came one way stays in order whatever the clock of its sender's node was set to meanwhile; and who sends again
    // keeps the order of what one owner had, which is that of an epoch: the owner before may be known to be dead later.
    let is_like = |other: &Queued| match is_again(queued) {
        true => other.epoch == queued.epoch,
        false => crossed(other) == crossed(queued),
    };
    let is_one_way = |other: &Queued| way(other) == way(queued) && is_like(other);
    let is_before = |other: &Queued| match origins(other) {
        Some(order) => order != Ordering::Greater,
        None => is_one_way(other),
    };
    let is_after = |other: &Queued| match origins(other) {
        Some(order) => order == Ordering::Greater,
        None => !is_one_way(other) && age(other) > age(queued),
    };
    // What is later for certain stays so, whatever came behind that on the same way.
    let is_later = |other: &Queued| origins(other) == Some(Ordering::Greater);
    let end = waiting().find(|(_, other)| is_later(other));
    let end = end.map_or(line.len(), |(place, _)| place);
    let mut before = waiting().filter(|(place, other)| *place < end && is_before(other));
    let first = before.next_back().map_or(0, |(place, _)| place + 1);
    let mut after = waiting().filter(|(place, other)| *place >= first && is_after(other));
    after.next().map_or(end, |(place, _)| place.min(end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::instant::Wall;
    use crate::frame::Kind;
    use crate::shard::post::Post;
    use crate::shard::ring::FrameRef;
    use crate::store::Origin;

    fn message(ring: u16, number: u64, epoch: u64, ingress: u64) -> Queued {
        let stanza = b"<message></message>".to_vec();
        let post = Post::whole("alice@here/phone", "bob@here", Kind::Message, 0, stanza);
        let (at, ingress) = (FrameRef { ring, number }, Wall(ingress));
        Queued { at, ingress, post, retry: None, since: None, is_new: false, hops: 1, epoch }
    }

    /// It came by the node before this one, which had it from another.
    fn passed(mut queued: Queued) -> Queued {
        let (link, number) = (queued.epoch as u32, queued.at.number);
        queued.retry = Some(Origin { incarnation: 3, link, number });
        queued.hops += 1;
        queued
    }

    /// The places at which these come to stand, one after the other.
    fn places<const N: usize>(queued: [Queued; N]) -> [usize; N] {
        let mut line = VecDeque::new();
        queued.map(|queued| {
            let place = place_of(&line, &queued);
            line.insert(place, queued);
            place
        })
    }

    #[test]
    fn what_came_straight_over_one_ring_stays_in_order_whatever_names_and_clocks_say() {
        let label = |queued: Queued, token: u64| {
            let origin = Origin { incarnation: 1 << 62 | token, link: 1, number: 2 };
            Queued { retry: Some(origin), is_new: true, ..queued }
        };
        let relayed = |mut queued: Queued| {
            queued.post.flags = queued.post.flags.with(Flags::RELAYED);
            Queued { hops: queued.hops + 1, ..queued }
        };
        // Two sessions of one address, the first by way of another node; then one that cannot be resumed.
        let (one, two) = (label(message(4, 1, 7, 50), 8), label(message(4, 2, 7, 40), 9));
        assert_eq!(places([relayed(one), two, message(4, 3, 7, 30)]), [0, 1, 2]);
        // What was passed on may have had a longer way, and came behind what is newer.
        let [two, one] = [(8, 30), (7, 20)].map(|(token, at)| label(message(4, 1, 7, at), token));
        assert_eq!(places([two, passed(one)]), [0, 0]);
    }

    #[test]
    fn what_one_owner_of_the_sender_sent_is_older_than_what_the_next_one_sends() {
        // The clock of the next one is behind.
        assert_eq!(places([message(4, 1, 8, 30), passed(message(5, 9, 7, 40))]), [0, 0]);
        assert_eq!(places([passed(message(5, 9, 7, 40)), message(4, 1, 8, 30)]), [0, 1]);
        let (two, one) = (passed(message(5, 9, 8, 30)), passed(message(5, 9, 7, 40)));
        assert_eq!(places([two, Queued { hops: 3, ..one }]), [0, 0]);
        // In an epoch only clocks can tell.
        assert_eq!(places([message(4, 1, 7, 30), passed(message(5, 9, 7, 40))]), [0, 1]);
    }

    #[test]
    fn what_is_sent_again_as_owners_die_is_in_the_order_of_their_epochs() {
        let again = |number: u64, epoch: u64, ingress: u64| {
            let mut queued = passed(message(4, number, epoch, ingress));
            queued.post.flags = queued.post.flags.with(Flags::RETRY);
            queued
        };
        // The owner before the last one stood still, and was taken over after that. The clock was set back meanwhile.
        assert_eq!(places([again(1, 8, 30), again(2, 7, 40)]), [0, 0]);
        assert_eq!(places([again(1, 8, 40), again(2, 8, 30)]), [0, 1]);
    }

    #[test]
    fn presence_that_was_passed_on_says_nothing_of_messages() {
        let mut presence = message(5, 9, 8, 20);
        presence.post.kind = Kind::Presence;
        assert_eq!(places([message(5, 8, 6, 10), presence, message(4, 1, 7, 30)]), [0, 1, 2]);
    }

    #[test]
    fn what_a_session_left_is_older_whatever_epoch_it_left_in() {
        let mut left = message(5, 9, 9, 80);
        left.post.flags = Flags::LEFT;
        assert_eq!(places([message(4, 1, 7, 30), left]), [0, 0]);
    }
}
