//! Finds stalls: times in which the server did nothing for anybody although operations were planned.
//!
//! A run records whole seconds, and a stall of half a second leaves each of them with work that was done. It is told by
//! whom it made wait: of all that was planned between its begin and its end, each waits for the end, the first for all
//! of it. So a second ends a stall of N ms if its longest response took N ms, at least half as many responses took more
//! than N/2 ms as were planned for N/2 ms, and the time before and after is quicker by far; a server that is overloaded
//! stays slow, and a single slow answer makes nobody else wait. Seconds in which nothing at all was done belong to the
//! stall that ends after them, or are one of their own if nothing was done any more.
//!
//! In a closed loop next to nothing is sent during a stall, so next to nobody waits and most stalls stay hidden: this is
//! what open loops are for.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::record::{Interval, Latency, Operation, Outcome, UnreadableHistogram};

/// Shorter waits are not called stalls.
const SHORTEST: Duration = Duration::from_millis(50);
/// A stall is so many times longer than the median response of its operation.
const TIMES_MEDIAN: u32 = 10;
/// So much quicker than the stall is the median of the seconds around it.
const RECOVERED: u32 = 4;
/// Fewer that waited show nothing.
const WAITED_MIN: u64 = 4;
/// Seconds that planned fewer operations are quiet by themselves.
const PLANNED_MIN: u64 = 4;

/// A time in which nothing was done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stall {
    /// Seconds of the run in which it lies; where in them is not known.
    pub from_s: u64,
    pub to_s: u64,
    /// About so long it took: the longest wait of those who waited for its end.
    pub length_ms: u64,
    /// How many operations waited for more than half of it, or failed or stayed open in it.
    pub waited: u64,
    /// How late the tool itself was in these seconds, at most: about as late as the stall is long means that the tool
    /// stood still, or could not write because nobody read.
    pub lag_ms: u64,
    /// Whose operations showed it.
    pub operations: Vec<Operation>,
}

/// What one operation did in one second.
struct Second {
    response: Latency,
    planned: u64,
    done: u64,
}

/// All stalls of the run in the order of time.
///
/// - errors: a histogram that cannot be read
pub fn find(outcome: &Outcome) -> Result<Vec<Stall>, UnreadableHistogram> {
    let mut found = Vec::new();
    for operation in Operation::ALL {
        let seconds: Vec<Second> = outcome
            .intervals
            .iter()
            .map(|interval| second(interval, operation))
            .collect::<Result<_, _>>()?;
        let first = outcome.intervals.first().map_or(0, |interval| interval.number);
        found.extend(of_operation(operation, first, &seconds));
    }
    found.sort_by_key(|stall| (stall.from_s, stall.to_s));
    let mut stalls = joined(found);
    for stall in &mut stalls {
        for interval in &outcome.intervals {
            if (stall.from_s..stall.to_s).contains(&interval.number) {
                let lag = interval.own.lag.unpack()?.max().as_millis();
                stall.lag_ms = stall.lag_ms.max(u64::try_from(lag).unwrap_or(u64::MAX));
            }
        }
    }
    Ok(stalls)
}

fn second(interval: &Interval, operation: Operation) -> Result<Second, UnreadableHistogram> {
    let Some(tally) = interval.tallies.get(&operation) else {
        return Ok(Second { response: Latency::default(), planned: 0, done: 0 });
    };
    Ok(Second { response: tally.response.unpack()?, planned: tally.planned, done: tally.done })
}

fn of_operation(operation: Operation, first: u64, seconds: &[Second]) -> Vec<Stall> {
    let mut all = Latency::default();
    for second in seconds {
        all.merge(&second.response);
    }
    // A message to a room is done once per occupant, so more answers wait than were planned.
    let planned: u64 = seconds.iter().map(|second| second.planned).sum();
    let fan_out = (all.count() as f64 / planned.max(1) as f64).max(1.0);
    let floor = SHORTEST.max(all.quantile(0.5) * TIMES_MEDIAN);
    let mut stalls = Vec::new();
    let mut quiet = None;
    // The second that ended the last stall, how many waited for it, and how long it was.
    let mut ended = None;
    for (at, second) in seconds.iter().enumerate() {
        if second.done == 0 {
            if second.planned >= PLANNED_MIN && quiet.is_none() {
                quiet = Some(at);
            }
            continue;
        }
        let length = second.response.max();
        let waited = slower(&second.response, length / 2);
        // Those who waited for an end that lay close to a border are answered on both of its sides.
        let next = seconds.get(at + 1).map_or(0, |second| slower(&second.response, length / 2));
        let expected = expected(seconds, at, length, fan_out);
        // Those behind the border waited for hardly more than those before it.
        let is_rest = ended.is_some_and(|(end, before, longest): (usize, u64, Duration)| {
            end + 1 == at && length <= longest * 5 / 4 && (before + waited) as f64 <= expected * 1.5
        });
        let is_end = !is_rest
            && length >= floor
            && waited >= WAITED_MIN
            && (waited + next) as f64 >= expected / 2.0
            && recovers(seconds, at, length);
        if is_end {
            ended = Some((at, waited, length));
        }
        let stall = |from: usize, length: Duration| Stall {
            from_s: first + from as u64,
            to_s: first + at as u64 + 1,
            length_ms: u64::try_from(length.as_millis()).unwrap_or(u64::MAX),
            waited,
            lag_ms: 0,
            operations: vec![operation],
        };
        match (quiet.take(), is_end) {
            (Some(from), true) => stalls.push(stall(from.min(begin(at, length)), length)),
            (None, true) => stalls.push(stall(begin(at, length), length)),
            // Whoever waited was given up: what is known is that whole seconds passed.
            (Some(from), false) => stalls.push(silence(operation, first, seconds, from, at)),
            (None, false) => {}
        }
    }
    if let Some(from) = quiet {
        stalls.push(silence(operation, first, seconds, from, seconds.len()));
    }
    stalls
}

/// The second in which a wait of that length began that ended in second `at`.
fn begin(at: usize, length: Duration) -> usize {
    at.saturating_sub(usize::try_from(length.as_secs()).unwrap_or(usize::MAX))
}

fn silence(operation: Operation, first: u64, seconds: &[Second], from: usize, to: usize) -> Stall {
    Stall {
        from_s: first + from as u64,
        to_s: first + to as u64,
        length_ms: (to - from) as u64 * 1000,
        waited: seconds[from..to].iter().map(|second| second.planned).sum(),
        lag_ms: 0,
        operations: vec![operation],
    }
}

fn slower(latency: &Latency, than: Duration) -> u64 {
    let us = u64::try_from(than.as_micros()).unwrap_or(u64::MAX);
    let counts = latency.counts();
    if counts.max() < us { 0 } else { counts.count_between(us, counts.max()) }
}

/// How many a stall of that length, which ends in second `at`, makes wait for more than half of it.
fn expected(seconds: &[Second], at: usize, length: Duration, fan_out: f64) -> f64 {
    let span = &seconds[begin(at, length)..=at];
    let planned: u64 = span.iter().map(|second| second.planned).sum();
    planned as f64 / span.len() as f64 * fan_out * length.as_secs_f64() / 2.0
}

/// Whether the seconds before and after were quick.
fn recovers(seconds: &[Second], at: usize, length: Duration) -> bool {
    let is_quick =
        |second: &Second| second.done == 0 || second.response.quantile(0.5) < length / RECOVERED;
    let before = begin(at, length).checked_sub(1).map(|before| &seconds[before]);
    // The second after may still take its turn at what had piled up.
    let after = &seconds[(at + 1).min(seconds.len())..(at + 3).min(seconds.len())];
    before.is_none_or(is_quick) && (after.is_empty() || after.iter().any(is_quick))
}

/// Stalls that overlap are one, seen by several operations.
fn joined(stalls: Vec<Stall>) -> Vec<Stall> {
    let mut joined = Vec::<Stall>::new();
    for stall in stalls {
        let last = joined.last_mut().filter(|last| stall.from_s < last.to_s);
        match last {
            Some(last) => {
                last.to_s = last.to_s.max(stall.to_s);
                last.length_ms = last.length_ms.max(stall.length_ms);
                last.waited += stall.waited;
                for operation in stall.operations {
                    if !last.operations.contains(&operation) {
                        last.operations.push(operation);
                    }
                }
            }
            None => joined.push(stall),
        }
    }
    joined
}
