//! How a node that is drained lets its clients go: not all at once, since who is told to go comes again elsewhere within
//! moments. Its accounts leave by shares, as its weight falls step by step; sockets whose accounts are elsewhere are told
//! one by one. Every moment is drawn within a slot of its own, so that neither is a wave nor a beat.
//!
//! Only the order and the moments are decided here. Who is in the cluster, and the sockets, are the runtime's.

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::instant::Instant;
use crate::base::rng::Rng;

/// A step is an epoch, which all members agree on, and takes about a second.
const STEP: Duration = Duration::from_millis(1_500);
/// Epochs that a drain makes at most: each costs every shard some frames to every other one.
const STEPS_MAX: u64 = 40;

/// How long it takes to let so many clients go.
///
/// - takes: `per_s`, clients a second; more where it would take longer than `longest`
pub fn span(clients: u64, per_s: u32, longest: Duration) -> Duration {
    let millis = clients.saturating_mul(1_000) / u64::from(per_s.max(1));
    Duration::from_millis(millis).min(longest)
}

/// The weights of a node until it has none. One per drain.
#[derive(Debug)]
pub struct Ebb {
    steps: VecDeque<(Instant, u32)>,
    /// The one that was given last.
    asked: Option<u32>,
}

impl Ebb {
    /// - takes: `weight`, what it has now; `others`, what all others have together: where it is 0, nobody can take anything,
    ///   and nothing is given
    pub fn new(now: Instant, weight: u32, others: u64, span: Duration, rng: &mut Rng) -> Ebb {
        let steps = span.as_millis() / STEP.as_millis();
        let steps = u64::try_from(steps).unwrap_or(STEPS_MAX).clamp(1, STEPS_MAX);
        let weights = weights(weight, others, steps);
        let moments = moments(now, weights.len(), span, rng);
        Ebb { steps: moments.zip(weights).collect(), asked: None }
    }

    /// The weight that is to be told to the cluster now. Each waits for the one before it, however long that takes.
    ///
    /// - takes: `in_force`, the weight by which the accounts lie now; `None` while they move
    pub fn due(&mut self, now: Instant, in_force: Option<u32>) -> Option<u32> {
        if self.waits(in_force) {
            return None;
        }
        let (_, weight) = self.steps.pop_front_if(|(at, _)| *at <= now)?;
        self.asked = Some(weight);
        self.asked
    }

    /// Nobody has a weight any more who could take what is left: it is kept.
    pub fn keep_the_rest(&mut self) {
        *self = Ebb { steps: VecDeque::new(), asked: None };
    }

    /// Whether all has been given away that can be.
    pub fn is_done(&self, in_force: Option<u32>) -> bool {
        self.steps.is_empty() && !self.waits(in_force)
    }

    fn waits(&self, in_force: Option<u32>) -> bool {
        self.asked.is_some_and(|asked| in_force != Some(asked))
    }
}

/// Weights that fall to 0 so that the node's share of the accounts, weight / (weight + others), falls by equal parts, as far
/// as whole numbers allow.
fn weights(weight: u32, others: u64, steps: u64) -> Vec<u32> {
    if weight == 0 || others == 0 {
        return Vec::new();
    }
    let own = u64::from(weight);
    let mut weights = Vec::new();
    let mut last = own;
    for left in (1..steps).rev() {
        let (part, whole) = (others * own * left, steps * (own + others) - own * left);
        let next = (part + whole / 2) / whole;
        if next > 0 && next < last {
            last = next;
            weights.push(u32::try_from(next).unwrap_or(weight));
        }
    }
    weights.push(0);
    weights
}

/// As many moments as asked for, in order: the span has a slot for each, and each lies anywhere within its slot.
fn moments(
    now: Instant,
    count: usize,
    span: Duration,
    rng: &mut Rng,
) -> impl Iterator<Item = Instant> {
    let slot = span / u32::try_from(count.max(1)).unwrap_or(u32::MAX);
    let nanos = u64::try_from(slot.as_nanos()).unwrap_or(u64::MAX);
    (0u32..).take(count).map(move |place| {
        now + slot.saturating_mul(place) + Duration::from_nanos(rng.below(nanos.saturating_add(1)))
    })
}

/// Those of one core that are to be told to go, and when. `T` is the runtime's handle of a socket.
#[derive(Debug)]
pub struct Departures<T> {
    queue: VecDeque<(Instant, T)>,
}

impl<T> Departures<T> {
    /// In no order that anybody could foresee: neighbours came together, and would go together.
    pub fn new(now: Instant, mut who: Vec<T>, span: Duration, rng: &mut Rng) -> Departures<T> {
        for last in (1..who.len()).rev() {
            let other = usize::try_from(rng.below(last as u64 + 1)).unwrap_or(last);
            who.swap(last, other);
        }
        let moments = moments(now, who.len(), span, rng);
        Departures { queue: moments.zip(who).collect() }
    }

    /// One whose moment has come.
    pub fn due(&mut self, now: Instant) -> Option<T> {
        self.queue.pop_front_if(|(at, _)| *at <= now).map(|(_, who)| who)
    }

    pub fn left(&self) -> usize {
        self.queue.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::placement::{Member, NodeId, PARTITIONS, Placement};

    const START: Instant = Instant(7_000_000_000);

    fn after(ms: u64) -> Instant {
        START + Duration::from_millis(ms)
    }

    #[test]
    fn the_pace_holds_until_it_would_take_too_long() {
        let longest = Duration::from_secs(120);
        assert_eq!(span(0, 100, longest), Duration::ZERO);
        assert_eq!(span(250, 100, longest), Duration::from_millis(2_500));
        assert_eq!(span(50_000, 100, longest), longest);
        assert_eq!(span(u64::MAX, 1, longest), longest);
        assert_eq!(span(10, 0, longest), Duration::from_secs(10));
    }

    #[test]
    fn each_step_gives_away_as_much_as_the_others() {
        let weights = weights(100, 200, 20);
        assert_eq!((weights.len(), weights.last()), (20, Some(&0)));
        let owned = |weight: u32| {
            let member = |node, weight| Member {
                node: NodeId(node),
                name: format!("n{node}"),
                weight,
                shards: 1,
                federates: false,
            };
            let placement = Placement::new(1, &[member(1, weight), member(2, 100), member(3, 100)]);
            (0..PARTITIONS).filter(|it| placement.node(*it) == NodeId(1)).count()
        };
        let shares: Vec<usize> = [100].into_iter().chain(weights).map(owned).collect();
        let given: Vec<usize> = shares.windows(2).map(|pair| pair[0] - pair[1]).collect();
        assert_eq!(given.iter().sum::<usize>(), shares[0]);
        let mean = shares[0] / given.len();
        assert!(given.iter().all(|step| *step <= mean * 7 / 4), "{given:?}");
    }

    #[test]
    fn weights_fall_whatever_there_is() {
        assert_eq!(weights(1, 2, 20), [0]);
        assert_eq!(weights(1_000, 1, 1), [0]);
        assert_eq!(weights(0, 100, 5), [] as [u32; 0]);
        assert_eq!(weights(100, 0, 5), [] as [u32; 0]);
        for (weight, others) in [(2, 1_000), (3, 4), (1_000, 1), (7, u64::from(u32::MAX))] {
            let weights = weights(weight, others, STEPS_MAX);
            assert!(weights.is_sorted_by(|one, next| one > next), "{weights:?}");
            assert!(weights[0] < weight && weights.last() == Some(&0), "{weights:?}");
        }
    }

    #[test]
    fn a_step_waits_for_its_moment_and_for_the_step_before_it() {
        let mut ebb = Ebb::new(START, 100, 200, Duration::from_secs(6), &mut Rng::from_u64(1));
        let wanted = weights(100, 200, 4);
        assert_eq!(ebb.due(START, None).or(ebb.due(after(1_500), Some(100))), Some(wanted[0]));
        assert_eq!(ebb.due(after(9_000), Some(100)), None, "it is not in force");
        assert_eq!(ebb.due(after(9_000), None), None, "accounts move");
        assert_eq!(ebb.due(after(9_000), Some(wanted[0])), Some(wanted[1]));
        assert!(!ebb.is_done(Some(wanted[1])));
        assert_eq!(ebb.due(after(9_000), Some(wanted[1])), Some(wanted[2]));
        assert_eq!(ebb.due(after(9_000), Some(wanted[2])), Some(0));
        assert!(!ebb.is_done(Some(wanted[2])) && !ebb.is_done(None));
        assert!(ebb.is_done(Some(0)));
    }

    #[test]
    fn where_nobody_can_take_anything_nothing_is_given() {
        let mut ebb = Ebb::new(START, 100, 0, Duration::from_secs(6), &mut Rng::from_u64(1));
        assert_eq!(ebb.due(after(9_000), Some(100)), None);
        assert!(ebb.is_done(Some(100)));
        // Nor is the rest, where others could when it began.
        let mut ebb = Ebb::new(START, 100, 200, Duration::from_secs(3), &mut Rng::from_u64(1));
        assert!(ebb.due(after(9_000), Some(100)).is_some() && !ebb.is_done(Some(100)));
        ebb.keep_the_rest();
        assert_eq!(ebb.due(after(9_000), Some(100)), None);
        assert!(ebb.is_done(Some(100)));
    }

    #[test]
    fn everybody_goes_once_in_no_order_and_spread_over_the_span() {
        let span = Duration::from_secs(10);
        let mut departures =
            Departures::new(START, (0..1_000u32).collect(), span, &mut Rng::from_u64(2));
        assert_eq!(departures.left(), 1_000);
        let mut went = Vec::new();
        for second in 1..=10 {
            let before = went.len();
            while let Some(who) = departures.due(after(second * 1_000)) {
                went.push(who);
            }
            assert!((99..=101).contains(&(went.len() - before)), "{second}: {}", went.len());
        }
        assert_eq!(departures.left(), 0);
        assert!(!went.is_sorted());
        went.sort_unstable();
        assert_eq!(went, (0..1_000).collect::<Vec<_>>());
    }

    #[test]
    fn moments_are_no_beat() {
        let moments: Vec<Instant> =
            moments(START, 100, Duration::from_secs(10), &mut Rng::from_u64(3)).collect();
        assert!(moments.is_sorted());
        let gaps: Vec<u128> =
            moments.windows(2).map(|pair| pair[1].since(pair[0]).as_millis()).collect();
        assert!(gaps.iter().any(|gap| *gap < 50) && gaps.iter().any(|gap| *gap > 150), "{gaps:?}");
    }

    #[test]
    fn without_time_all_go_at_once() {
        let mut departures =
            Departures::new(START, vec![1, 2, 3], Duration::ZERO, &mut Rng::from_u64(4));
        while departures.due(START).is_some() {}
        assert_eq!(departures.left(), 0);
    }
}
