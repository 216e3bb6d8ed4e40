//! How connections end, and what becomes of what they carried.

use super::conn::{Conn, Hold, Side};
use super::domain::{LaneId, Link};
use super::effect::{Action, ConnId, Effects};
use super::input::Lost;
use super::outbound::Progress;
use super::{Core, Failure, Timer};
use crate::xmpp::stanza_error::StanzaCondition;
use crate::xmpp::stream_error::{StreamCondition, StreamError};
use std::time::Duration;

impl Core {
    /// Gives a connection up: what it was for is dealt with, then it is told goodbye, with an error where there is one.
    pub(super) fn give_up(
        &mut self,
        id: ConnId,
        failure: Failure,
        text: &str,
        error: Option<StreamError>,
        fx: &mut Effects,
    ) {
        self.let_go(id, failure, text, fx);
        self.say_goodbye(id, error.as_ref(), fx);
    }

    /// As `give_up`, at once and without a word.
    pub(super) fn cut(&mut self, id: ConnId, failure: Failure, text: &str, fx: &mut Effects) {
        if self.conns.get(id.0).is_none() {
            return;
        }
        self.let_go(id, failure, text, fx);
        self.forget(id);
        fx.actions.push(Action::Abort(id));
    }

    /// The connection is gone.
    pub(super) fn connection_lost(&mut self, id: ConnId, why: &Lost, fx: &mut Effects) {
        let (failure, text) = match why {
            Lost::Closed => (Failure::Lost, "it closed the connection".to_owned()),
            Lost::Aborted => (Failure::Lost, "the connection was dropped".to_owned()),
            Lost::Reset => (Failure::Lost, "the connection broke".to_owned()),
            Lost::Tls(problem) => (Failure::Tls, problem.describe()),
        };
        self.let_go(id, failure, &text, fx);
        self.forget(id);
    }

    /// The peer ended its stream with an error.
    pub(super) fn peer_failed(&mut self, id: ConnId, error: &StreamError, fx: &mut Effects) {
        self.probe.stream_errors_in += 1;
        let text = format!("it closed the stream: {error}");
        self.give_up(id, Failure::Stream, &text, None, fx);
    }

    /// The peer closed its stream in order.
    pub(super) fn peer_closed(&mut self, id: ConnId, fx: &mut Effects) {
        self.finished(id);
        self.give_up(id, Failure::Lost, "it closed the stream", None, fx);
    }

    /// Takes from a connection all that leans on it. Once is enough.
    fn let_go(&mut self, id: ConnId, failure: Failure, text: &str, fx: &mut Effects) {
        let Some(conn) = self.conns.get_mut(id.0) else { return };
        let (received, carries) = (conn.managed.received.take(), conn.carries.take());
        let to_resume = conn.managed.to_resume(self.now.mono);
        let proved = conn.managed.proved;
        if let Some(received) = received {
            self.received_lost(received);
        }
        self.unregister(id);
        if let Some(lane) = carries {
            if let Some(slot) = self.lanes.get_mut(lane.0) {
                slot.resumable = to_resume;
            }
            self.lane_lost(lane, id, proved, failure, text, fx);
        }
        self.let_go_out(id, failure, text, fx);
    }

    /// An outgoing connection is over: its attempt has failed, or what it asked is asked again.
    fn let_go_out(&mut self, id: ConnId, failure: Failure, text: &str, fx: &mut Effects) {
        let Some(out) = self.conns.get_mut(id.0).and_then(Conn::out_mut) else { return };
        let before = std::mem::replace(&mut out.progress, Progress::Over);
        let (lane, check) = (out.lane, out.check.is_some());
        let is_wanted = check || lane.is_some_and(|lane| self.lane_wants_stream(lane));
        let may_go_on = matches!(
            before,
            Progress::Negotiating | Progress::Ready | Progress::Asking | Progress::Enabling
        ) && failure != Failure::Policy
            && is_wanted
            && !self.stopping;
        if may_go_on && self.try_next(id, text, fx) {
            return;
        }
        let Some(out) = self.conns.get_mut(id.0).and_then(Conn::out_mut) else { return };
        let lane = out.lane.take();
        let lasting = out.lasting;
        let words = match before {
            Progress::Resolving | Progress::Dialling => format!("{}{text}", out.tried),
            _ => format!("{}{}: {text}", out.tried, out.target_name()),
        };
        if before != Progress::Over && out.check.is_some() {
            self.check_done(id, Some((failure, words.clone())), fx);
        }
        if let Some(lane) = lane {
            self.take_back_asked(lane, id);
            let slot = self.lanes.get(lane.0);
            let was_its = slot.is_some_and(|slot| slot.link == Link::Dialling(id));
            let idle = before == Progress::Ready && !is_wanted;
            if was_its && idle {
                if let Some(slot) = self.lanes.get_mut(lane.0) {
                    slot.link = Link::Idle;
                }
            } else if was_its {
                self.attempt_failed(lane, failure, &words, lasting, fx);
            }
        }
        self.slot_done(id, fx);
    }

    /// The stream that carried a lane is lost.
    fn lane_lost(
        &mut self,
        id: LaneId,
        conn: ConnId,
        proved: bool,
        failure: Failure,
        text: &str,
        fx: &mut Effects,
    ) {
        let Some(lane) = self.lanes.get_mut(id.0) else { return };
        if lane.link != Link::Up(conn) {
            return;
        }
        lane.link = Link::Idle;
        let resumes = lane.resumable.is_some();
        self.take_back_asked(id, conn);
        if !resumes {
            self.give_up_lost(id, fx);
        }
        let wants = self.lanes.get(id.0).is_some_and(|lane| lane.wants_stream());
        if wants && !proved && !self.stopping {
            // It was of no use: what follows must not be a circle without a pause.
            return self.attempt_failed(id, failure, text, None, fx);
        }
        if wants {
            let spread = u64::try_from(self.config.limits.retry_first.as_nanos()).unwrap_or(0);
            let pause = Duration::from_nanos(self.rng.below(spread.max(1)));
            let retry_at = self.now.mono + pause;
            if let Some(lane) = self.lanes.get_mut(id.0) {
                lane.attempts.retry_at = retry_at;
                lane.attempts.text = text.into();
            }
        }
        let wall = self.now.wall;
        if let Some(domain) = self.domain_of_lane(id).filter(|_| wants) {
            domain.failure = Some((wall, failure, text.into()));
        }
        self.touch(id);
    }

    /// Nobody will ever know what the peer had of what went out on the stream that was lost.
    pub(super) fn give_up_lost(&mut self, id: LaneId, fx: &mut Effects) {
        let Some(lane) = self.lanes.get_mut(id.0) else { return };
        lane.resumable = None;
        let before = lane.queue.bytes();
        let over = lane.queue.lost();
        self.queued_bytes -= before - lane.queue.bytes();
        for item in over {
            let text = "the connection was lost before the other server confirmed it";
            self.refuse_in(id, item, StanzaCondition::RemoteServerTimeout, text.into(), fx);
        }
    }

    /// A stream that can no longer be taken up is given up.
    pub(super) fn give_up_resumable(&mut self, id: LaneId, fx: &mut Effects) {
        let now = self.now.mono;
        let over = |lane: &super::domain::Lane| {
            lane.resumable.as_ref().is_some_and(|resumable| resumable.until <= now)
        };
        if self.lanes.get(id.0).is_some_and(over) {
            self.give_up_lost(id, fx);
        }
    }

    /// A connection may not have come far enough by now.
    pub(super) fn negotiation_due(&mut self, id: ConnId, fx: &mut Effects) {
        let whole = self.config.limits.negotiation;
        let Some(conn) = self.conns.get(id.0) else { return };
        let limit = conn.out().map_or(whole, |out| out.negotiation(whole));
        if conn.began + limit > self.now.mono || conn.hold == Hold::Closing {
            return;
        }
        if conn.hold == Hold::Posh {
            // That is not for the peer to hurry up.
            let due = conn.began + whole;
            if due > self.now.mono {
                return self.wheel.insert(due, Timer::Negotiation(id));
            }
            let text = "the document of its domain (POSH) took too long";
            return self.give_up(id, Failure::Timeout, text, None, fx);
        }
        match &conn.side {
            Side::Out(out) => {
                let text = match out.progress {
                    Progress::Resolving => "the look-up took too long",
                    Progress::Dialling => "the connection took too long",
                    Progress::Negotiating => {
                        "it accepted the connection and then said too little: it may be no XMPP server, or stuck"
                    }
                    Progress::Asking => {
                        "it did not answer in time who we are: with dialback it has to reach this server first"
                    }
                    Progress::Enabling => "it does not answer whether it acknowledges (XEP-0198)",
                    Progress::Ready | Progress::Up | Progress::Over => return,
                };
                let waits = matches!(out.progress, Progress::Resolving | Progress::Dialling);
                if waits && conn.began + super::dial::DIAL_MAX > self.now.mono {
                    return;
                }
                self.cut(id, Failure::Timeout, text, fx);
            }
            Side::In(_) => {
                let established =
                    conn.stream.as_ref().is_some_and(|stream| stream.is_established());
                if conn.stream.is_none() || conn.hold == Hold::Tls {
                    self.cut(id, Failure::Timeout, "it does not shake hands", fx);
                } else if !established && self.serves_verifications(id) {
                    let due = self.now.mono + self.config.limits.idle;
                    self.wheel.insert(due, Timer::Idle(id));
                } else if !established {
                    let error = StreamError::new(StreamCondition::ConnectionTimeout);
                    self.give_up(id, Failure::Timeout, "it says too little", Some(error), fx);
                }
            }
        }
    }

    /// A stream on which nothing goes is closed.
    pub(super) fn idle_due(&mut self, id: ConnId, fx: &mut Effects) {
        let limits = &self.config.limits;
        let now = self.now.mono;
        let Some(conn) = self.conns.get(id.0) else { return };
        if conn.hold == Hold::Closing {
            return;
        }
        let (unused, lane) = match &conn.side {
            Side::Out(out) if out.progress == Progress::Ready => (limits.negotiation, out.lane),
            Side::Out(_) => (limits.idle, conn.carries),
            // The peer closes what it opened; what it forgets is closed here.
            Side::In(_) => (limits.idle + limits.silence, conn.carries),
        };
        let busy = lane.and_then(|lane| self.lane(lane)).is_some_and(|lane| lane.wants_stream());
        let due = conn.used_at + unused;
        if busy || due > now {
            let next = if due > now { due } else { now + unused };
            return self.wheel.insert(next, Timer::Idle(id));
        }
        self.probe.streams_idle_closed += 1;
        self.give_up(id, Failure::Lost, "nothing went on it for long", None, fx);
    }

    /// A blank now and then shows whether the peer is still there (RFC 6120 §4.6.1).
    pub(super) fn silence_due(&mut self, id: ConnId, fx: &mut Effects) {
        let silence = self.config.limits.silence;
        let Some(conn) = self.conns.get(id.0) else { return };
        let established = conn.stream.as_ref().is_some_and(|stream| stream.is_established());
        let due = conn.heard_at + silence;
        if due <= self.now.mono && established && conn.hold == Hold::No {
            self.write(id, b" ", fx);
        }
        let next = if due > self.now.mono { due } else { self.now.mono + silence };
        self.wheel.insert(next, Timer::Silence(id));
    }
}
