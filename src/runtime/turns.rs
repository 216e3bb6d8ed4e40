//! What a core does with its time: how long its turns take, which part of a long one took longest, how long what is ready
//! waits to run, and when the core did not run at all.
//!
//! No clock is read for this beside those of the inputs and of the turn's end: an input's time is that until the next.

use crate::admin::latency::{CoreLatency, LastStall, TurnPart};
use crate::base::instant::{Instant, Now, Wall};
use std::cell::RefCell;
use std::time::Duration;

/// A turn that is longer holds up all that the core serves.
const STALL: Duration = Duration::from_millis(10);
/// Between two lines about stalls.
const LOG_PAUSE: Duration = Duration::from_secs(10);
/// That a core ran so late is told in the log: less is usual where others use the processor, too.
const LATE_LOGGED: Duration = Duration::from_millis(100);

/// The instruments of one core. Lives on it.
#[derive(Default)]
pub(super) struct Turns {
    /// Nothing is measured otherwise.
    enabled: bool,
    /// Of a federation core, not of a shard.
    of_federation: bool,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    turn: Option<Turn>,
    counts: Box<CoreLatency>,
    log: LogPause,
}

/// The one that runs.
#[derive(Clone, Copy)]
struct Turn {
    began: Instant,
    /// Inputs by their kind.
    parts: [u32; TurnPart::ALL.len()],
    now: TurnPart,
    since: Instant,
    longest: (Duration, TurnPart),
}

/// Lines are rare, however many there is reason for.
#[derive(Default)]
struct LogPause {
    last: Option<Instant>,
    unsaid: u64,
}

impl LogPause {
    /// How many were not said since the last one that was; `None` where this one is not said either.
    fn may_speak(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.since(last) < LOG_PAUSE) {
            self.unsaid += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

impl Turn {
    fn begin(part: TurnPart, at: Instant) -> Turn {
        Turn {
            began: at,
            parts: [0; TurnPart::ALL.len()],
            now: part,
            since: at,
            longest: (Duration::ZERO, part),
        }
    }

    fn next(&mut self, part: TurnPart, at: Instant) {
        let took = at.since(self.since);
        if took > self.longest.0 {
            self.longest = (took, self.now);
        }
        self.now = part;
        self.since = at;
    }
}

/// A turn that was too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stall {
    took: Duration,
    parts: [u32; TurnPart::ALL.len()],
    longest: (Duration, TurnPart),
}

impl State {
    fn enter(&mut self, part: TurnPart, at: Instant) {
        let turn = match &mut self.turn {
            Some(turn) => {
                turn.next(part, at);
                turn
            }
            None => self.turn.insert(Turn::begin(part, at)),
        };
        turn.parts[part as usize] += 1;
    }

    /// Gives the turn, where it was too long.
    fn end(&mut self, at: Instant) -> Option<Stall> {
        let mut turn = self.turn.take()?;
        turn.next(TurnPart::Effects, at);
        let took = at.since(turn.began);
        self.counts.turns.record(took);
        self.counts.busy_ns += u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        if took <= STALL {
            return None;
        }
        self.counts.stalls.record(took);
        Some(Stall { took, parts: turn.parts, longest: turn.longest })
    }
}

impl Turns {
    pub(super) fn new(enabled: bool) -> Turns {
        Turns { enabled, ..Turns::default() }
    }

    /// As `new`, of a federation core.
    pub(super) fn of_federation(enabled: bool) -> Turns {
        Turns { of_federation: true, ..Turns::new(enabled) }
    }

    /// The number of a core, as one of a shard or of federation; for the log.
    fn told(&self, core: u16) -> (Option<u16>, Option<u16>) {
        if self.of_federation { (None, Some(core)) } else { (Some(core), None) }
    }

    /// Something begins that the turn does.
    pub(super) fn enter(&self, part: TurnPart, at: Instant) {
        if self.enabled {
            self.state.borrow_mut().enter(part, at);
        }
    }

    /// The turn's inputs are in, and its effects are carried out from now on.
    pub(super) fn carry_out(&self, at: Instant) {
        if !self.enabled {
            return;
        }
        let mut state = self.state.borrow_mut();
        if let Some(turn) = &state.turn {
            let waited = at.since(turn.began);
            state.counts.run_queue.record(waited);
        }
        state.enter(TurnPart::Effects, at);
    }

    /// All that the turn wanted is done.
    ///
    /// - `wall`: asked where the turn was too long
    pub(super) fn end(&self, core: u16, at: Instant, wall: impl FnOnce() -> Wall) {
        let mut state = self.state.borrow_mut();
        let Some(stall) = state.end(at) else { return };
        let did = describe(&stall.parts);
        state.counts.last_stall = Some(LastStall {
            at: wall(),
            took: stall.took,
            did: did.clone(),
            longest: stall.longest.1,
            longest_took: stall.longest.0,
        });
        if let Some(unsaid) = state.log.may_speak(at) {
            let (shard, federation_core) = self.told(core);
            tracing::warn!(
                shard,
                federation_core,
                took_ms = stall.took.as_millis(),
                did,
                longest = stall.longest.1.name(),
                longest_ms = stall.longest.0.as_millis(),
                not_logged = unsaid,
                "a turn was long: all that this core serves has waited"
            );
        }
    }

    /// The tick came, `late` by so much: the core was busy, or the system ran something else.
    pub(super) fn ticked(&self, core: u16, now: Now, late: Duration) {
        if late <= STALL || !self.enabled {
            return;
        }
        let mut state = self.state.borrow_mut();
        state.counts.late.record(late);
        if late > LATE_LOGGED
            && let Some(unsaid) = state.log.may_speak(now.mono)
        {
            let (shard, federation_core) = self.told(core);
            tracing::warn!(
                shard,
                federation_core,
                late_ms = late.as_millis(),
                not_logged = unsaid,
                "a core was late: it was busy, or the system did not let it run"
            );
        }
    }

    /// What was counted since the last time; `spare` is empty and counts from here on.
    pub(super) fn take(&self, spare: Box<CoreLatency>) -> Box<CoreLatency> {
        std::mem::replace(&mut self.state.borrow_mut().counts, spare)
    }
}

/// `3 reads, 1 of frames`
fn describe(parts: &[u32]) -> String {
    let counted = TurnPart::ALL.into_iter().zip(parts).filter(|(_, count)| **count > 0);
    counted.map(|(part, count)| format!("{} {count}", part.name())).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Now {
        Now { mono: Instant(millis * 1_000_000), wall: Wall(millis * 1_000) }
    }

    #[test]
    fn a_long_turn_is_counted_with_what_it_did() {
        let turns = Turns::new(true);
        turns.enter(TurnPart::Read, at(0).mono);
        turns.enter(TurnPart::Read, at(1).mono);
        turns.enter(TurnPart::Frames, at(2).mono);
        turns.carry_out(at(27).mono);
        turns.end(0, at(30).mono, || Wall(7));
        let counts = turns.take(Box::default());
        assert_eq!((counts.turns.len(), counts.stalls.len()), (1, 1));
        let stall = counts.last_stall.unwrap_or_default();
        assert_eq!((stall.took, stall.longest), (Duration::from_millis(30), TurnPart::Frames));
        assert_eq!(stall.longest_took, Duration::from_millis(25));
        assert_eq!(stall.did, "read 2, frames 1, effects 1");
        assert_eq!(counts.run_queue.histogram().map(|counts| counts.max() / 1_000_000), Some(27));
    }

    #[test]
    fn a_turn_that_takes_its_time_in_carrying_out_says_so() {
        let turns = Turns::new(true);
        turns.enter(TurnPart::Read, at(0).mono);
        turns.carry_out(at(1).mono);
        turns.end(0, at(40).mono, || Wall(7));
        let stall = turns.take(Box::default()).last_stall.unwrap_or_default();
        assert_eq!(stall.longest, TurnPart::Effects);
    }

    #[test]
    fn short_turns_and_timely_ticks_are_no_stalls() {
        let turns = Turns::new(true);
        for millis in 0..100 {
            turns.enter(TurnPart::Read, at(millis * 10).mono);
            turns.carry_out(at(millis * 10 + 5).mono);
            turns.end(0, at(millis * 10 + 10).mono, || Wall(7));
            turns.ticked(0, at(millis), STALL);
        }
        let counts = turns.take(Box::default());
        assert_eq!(counts.turns.len(), 100);
        assert!(counts.stalls.is_empty() && counts.late.is_empty() && counts.last_stall.is_none());
        assert_eq!(counts.busy_ns, 1_000_000_000);
        turns.ticked(0, at(0), Duration::from_millis(500));
        assert_eq!(turns.take(Box::default()).late.len(), 1);
    }

    #[test]
    fn lines_are_rare_and_tell_how_many_were_left_out() {
        let mut log = LogPause::default();
        let mut said = Vec::new();
        for second in 0..25 {
            said.extend(log.may_speak(at(second * 1_000).mono));
        }
        assert_eq!(said, [0, 9, 9]);
    }
}
