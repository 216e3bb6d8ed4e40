//! `corefire trace` in the node: all shards tell the hops of whom an operator watches, which go on to the operator until
//! the time is over or nobody listens.

use super::watch::ask_all;
use super::{Clerk, Desk, PATIENCE};
use crate::base::hash::Map;
use crate::base::instant::{Instant, Wall};
use crate::config::Config;
use crate::runtime::control::accounts::Accounts;
use crate::runtime::control::trace::{TRACE_S_MAX, TraceEvent, TraceHop, TraceRequest};
use crate::runtime::control::{ControlResponse, Tell};
use crate::runtime::mailbox::Letter;
use crate::shard::{HOPS_PER_S, Hop, WATCHES_MAX, Watch, WatchId, Whom};
use crate::store::{Answer, Query};
use crate::xmpp::datetime;
use crate::xmpp::jid::Jid;
use std::sync::mpsc::{RecvTimeoutError, channel, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Hops that wait to be written to the operator.
const HOPS_WAITING: usize = 1_024;
/// Stanzas whose first hop is remembered, and as many before them.
const STANZAS: usize = 2_048;
/// Bytes of a stanza id: no client writes a longer one.
const ID_MAX: usize = 1_024;
/// After so long without a hop the operator is told so, by which it is noticed when nobody listens.
const PAUSE: Duration = Duration::from_millis(500);
/// How long shards may take to tell what they left out. The trace is over by then.
const END_PATIENCE: Duration = Duration::from_millis(500);

/// The traces that run.
#[derive(Debug, Default)]
pub(super) struct Traces(Mutex<Slots>);

#[derive(Debug, Default)]
struct Slots {
    taken: [bool; WATCHES_MAX],
    count: u64,
}

/// A running trace: shards watch no more when it is dropped, however its thread ends.
struct Running<'a> {
    desk: &'a Desk,
    id: WatchId,
}

impl Traces {
    fn enter(&self) -> Option<WatchId> {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = slots.taken.iter().position(|taken| !taken)?;
        slots.taken[slot] = true;
        slots.count += 1;
        Some(WatchId::new(slot, slots.count))
    }

    fn leave(&self, id: WatchId) {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slots.taken[id.slot()] = false;
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let (answer, _) = channel();
        for mailbox in &self.desk.mailboxes {
            mailbox.send(Letter::EndWatch(self.id, answer.clone()));
        }
        self.desk.traces.leave(self.id);
    }
}

/// - errors: a line of cause and remedy
pub(super) fn run(
    desk: &Desk,
    config: &Config,
    request: &TraceRequest,
    tell: &mut Tell<'_>,
) -> Result<ControlResponse, String> {
    let served = config.domains.iter().map(String::as_str);
    let components = config.components.secrets.iter().map(|access| &*access.domain);
    let whom = whom(request, &served.chain(components).collect::<Vec<_>>())?;
    let id = desk.traces.enter().ok_or_else(|| {
        format!("{WATCHES_MAX} traces run already, which is all that a node runs at once; end one of them")
    })?;
    let running = Running { desk, id };
    let (hops, seen) = sync_channel(HOPS_WAITING);
    let watch = Watch { id, whom: whom.clone() };
    let letter = |answer| Letter::Watch(watch.clone(), hops.clone(), answer);
    let shards = ask_all(&desk.mailboxes, PATIENCE, letter).len();
    drop(hops);
    if shards < desk.mailboxes.len() {
        let silent = desk.mailboxes.len() - shards;
        return Err(format!("{silent} shards gave no answer in time; try again, or see the log"));
    }
    tracing::info!(seconds = request.seconds, "an operator traces stanzas");
    let mut lines = Lines::default();
    let began = TraceEvent::Began {
        whom: match &whom {
            Whom::Address(jid) => jid.to_string(),
            Whom::Id(id) => id.to_string(),
        },
        seconds: request.seconds,
        shards: shards as u64,
        note: note(desk, config, &whom),
    };
    let mut listens = tell(ControlResponse::Trace(began));
    let until = desk.clock.mono() + Duration::from_secs(request.seconds.into());
    while listens {
        let left = until.since(desk.clock.mono());
        if left.is_zero() {
            break;
        }
        let events = match seen.recv_timeout(PAUSE.min(left)) {
            Ok(hop) => lines.events(hop),
            Err(RecvTimeoutError::Timeout) => vec![TraceEvent::Quiet],
            Err(RecvTimeoutError::Disconnected) => {
                return Err("the node stops, and the trace with it".to_owned());
            }
        };
        listens = events.into_iter().all(|event| tell(ControlResponse::Trace(event)));
    }
    let letter = |answer| Letter::EndWatch(id, answer);
    let unseen: u64 = ask_all(&desk.mailboxes, END_PATIENCE, letter).into_iter().sum();
    // What came while the last lines were written.
    for event in seen.try_iter().flat_map(|hop| lines.events(hop)) {
        listens = listens && tell(ControlResponse::Trace(event));
    }
    drop(running);
    Ok(ControlResponse::Trace(lines.ended(unseen)))
}

/// - `domains`: all that this node serves
/// - errors: a line of cause and remedy
fn whom(request: &TraceRequest, domains: &[&str]) -> Result<Whom, String> {
    let seconds = request.seconds;
    if !(1..=TRACE_S_MAX).contains(&seconds) {
        return Err(format!("a trace takes 1 to {TRACE_S_MAX} seconds, not {seconds}"));
    }
    match (&request.jid, &request.id) {
        (Some(text), None) => {
            let jid = Jid::parse(text).map_err(|fault| {
                format!(
                    "{text:?} is no address: {fault}; write NAME@DOMAIN or NAME@DOMAIN/RESOURCE"
                )
            })?;
            if !domains.contains(&jid.domain()) {
                return Err(format!(
                    "{jid}: this node serves {}, not {}; trace the local address that it talks with",
                    domains.join(", "),
                    jid.domain()
                ));
            }
            Ok(Whom::Address(jid))
        }
        (None, Some(id)) if (1..=ID_MAX).contains(&id.len()) => Ok(Whom::Id(id.as_str().into())),
        (None, Some(_)) => Err(format!("a stanza id to trace has 1 to {ID_MAX} bytes")),
        _ => Err("a trace is of an address or of a stanza id; give one of them".to_owned()),
    }
}

/// Most likely the address is not what was meant.
fn note(desk: &Desk, config: &Config, whom: &Whom) -> Option<String> {
    let Whom::Address(jid) = whom else { return None };
    let is_account = jid.local().is_some() && config.domains.iter().any(|own| own == jid.domain());
    let owner = jid.bare().clone();
    let mut clerk = Clerk { desk, config };
    let is_missing =
        is_account && matches!(clerk.read(Query::Account { owner }), Ok(Answer::Account(None)));
    is_missing.then(|| format!("there is no account {}", jid.bare()))
}

/// What is told, and not too much of it.
#[derive(Default)]
struct Lines {
    /// When stanzas were first seen: those of late, and those before them.
    young: Map<(u16, u32), Instant>,
    old: Map<(u16, u32), Instant>,
    second: Instant,
    told_now: u32,
    /// Since the last one that was told.
    left_out_now: u64,
    hops: u64,
    stanzas: u64,
    left_out: u64,
}

impl Lines {
    /// One hop, told or left out.
    fn events(&mut self, hop: Hop) -> Vec<TraceEvent> {
        if hop.at.since(self.second) >= Duration::from_secs(1) {
            self.second = hop.at;
            self.told_now = 0;
        }
        self.left_out_now += hop.left_out;
        let first = self.first(hop.stanza, hop.at);
        if self.told_now >= HOPS_PER_S {
            self.left_out_now += 1;
            return Vec::new();
        }
        self.told_now += 1;
        self.hops += 1;
        let mut events = Vec::with_capacity(2);
        let left_out = std::mem::take(&mut self.left_out_now);
        if left_out > 0 {
            self.left_out += left_out;
            events.push(TraceEvent::LeftOut { hops: left_out });
        }
        events.push(TraceEvent::Hop(Box::new(told(hop, first))));
        events
    }

    fn first(&mut self, stanza: (u16, u32), at: Instant) -> Instant {
        if let Some(first) = self.young.get(&stanza) {
            return *first;
        }
        if self.young.len() >= STANZAS {
            self.old = std::mem::take(&mut self.young);
        }
        let known = self.old.get(&stanza).copied();
        self.stanzas += u64::from(known.is_none());
        let first = known.unwrap_or(at);
        self.young.insert(stanza, first);
        first
    }

    /// - `unseen`: hops that shards left out at the end
    fn ended(&self, unseen: u64) -> TraceEvent {
        let left_out = self.left_out + self.left_out_now + unseen;
        TraceEvent::Ended { hops: self.hops, stanzas: self.stanzas, left_out }
    }
}

fn told(hop: Hop, first: Instant) -> TraceHop {
    let Hop { stanza: (seen_by, number), at, wall, shard, step, detail, about, .. } = hop;
    TraceHop {
        at: to_the_microsecond(wall),
        stanza: format!("{seen_by}-{number}"),
        since_us: u64::try_from(at.since(first).as_micros()).unwrap_or(u64::MAX),
        shard,
        step: step.name().to_owned(),
        detail,
        kind: about.kind.map_or("stanza", |kind| kind.name()).to_owned(),
        type_: about.type_.map(str::to_owned),
        condition: about.condition.map(|condition| condition.name().to_owned()),
        from: about.from,
        to: about.to,
        id: about.id,
        bytes: about.bytes as u64,
        children: about.children,
    }
}

fn to_the_microsecond(wall: Wall) -> String {
    let text = datetime::format(wall);
    let (millis, zone) = text.split_at(text.len().saturating_sub(1));
    format!("{millis}{:03}{zone}", wall.0 % 1_000)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::shard::{About, Step};

    fn hop(micros: u64, number: u32) -> Hop {
        Hop {
            watch: WatchId::new(0, 0),
            stanza: (1, number),
            at: Instant(micros * 1_000),
            wall: Wall(1_790_000_000_000_000 + micros),
            shard: 0,
            step: Step::Received,
            detail: String::new(),
            about: About::default(),
            left_out: 0,
        }
    }

    fn only(mut events: Vec<TraceEvent>) -> TraceHop {
        assert_eq!(events.len(), 1, "{events:?}");
        match events.pop() {
            Some(TraceEvent::Hop(hop)) => *hop,
            event => panic!("{event:?}"),
        }
    }

    #[test]
    fn hops_count_from_the_first_one_of_their_stanza() {
        let mut lines = Lines::default();
        let mut since = |micros, number| only(lines.events(hop(micros, number))).since_us;
        assert_eq!([since(10, 1), since(15, 2), since(40, 1), since(41, 2)], [0, 0, 30, 26]);
        let told = only(lines.events(hop(999_999, 1)));
        assert_eq!(
            (told.stanza.as_str(), told.at.as_str()),
            ("1-1", "2026-09-21T14:13:20.999999Z")
        );
        assert_eq!(lines.ended(3), TraceEvent::Ended { hops: 5, stanzas: 2, left_out: 3 });
    }

    #[test]
    fn a_stanza_is_known_while_some_thousand_others_pass() {
        let mut lines = Lines::default();
        let mut at = 0;
        for number in 0..10_000 {
            at += 10_000;
            lines.events(hop(at, number));
            lines.events(hop(at + 1, 0));
        }
        assert!(lines.young.len() + lines.old.len() <= 2 * STANZAS);
        assert_eq!(only(lines.events(hop(at + 2_000_000, 0))).since_us, at + 1_990_000);
        assert_eq!(lines.stanzas, 10_000);
    }

    #[test]
    fn too_many_hops_of_all_shards_are_counted_and_not_told() {
        let mut lines = Lines::default();
        let shown: usize = (0..1_000).map(|number| lines.events(hop(number, 1)).len()).sum();
        assert_eq!(shown, HOPS_PER_S as usize);
        let left_out = 1_000 - u64::from(HOPS_PER_S);
        let late = Hop { left_out: 7, ..hop(1_500_000, 1) };
        let events = lines.events(late);
        assert_eq!(events[0], TraceEvent::LeftOut { hops: left_out + 7 });
        assert!(matches!(&events[1], TraceEvent::Hop(_)));
        let TraceEvent::Ended { left_out: all, .. } = lines.ended(0) else { panic!() };
        assert_eq!(all, left_out + 7);
    }

    #[test]
    fn requests_are_checked() {
        let ask = |jid: Option<&str>, id: Option<&str>, seconds| {
            let (jid, id) = (jid.map(str::to_owned), id.map(str::to_owned));
            whom(&TraceRequest { jid, id, seconds }, &["localhost", "bot.localhost"])
        };
        let address = |text| Ok(Whom::Address(Jid::parse(text).unwrap()));
        assert_eq!(ask(Some("Alice@localhost/A"), None, 60), address("alice@localhost/A"));
        assert_eq!(ask(Some("bot.localhost"), None, 600), address("bot.localhost"));
        assert_eq!(ask(None, Some("m1"), 1), Ok(Whom::Id("m1".into())));
        let refused = [
            (ask(Some("@"), None, 60), "NAME@DOMAIN/RESOURCE"),
            (
                ask(Some("a@else.org"), None, 60),
                "this node serves localhost, bot.localhost, not else.org",
            ),
            (ask(None, Some(""), 60), "1 to 1024 bytes"),
            (ask(None, None, 60), "an address or of a stanza id"),
            (ask(Some("a@localhost"), Some("m1"), 60), "an address or of a stanza id"),
            (ask(Some("a@localhost"), None, 0), "1 to 600 seconds, not 0"),
            (ask(Some("a@localhost"), None, 601), "1 to 600 seconds, not 601"),
        ];
        for (told, why) in refused {
            let line = told.unwrap_err();
            assert!(line.contains(why), "{line}");
        }
    }

    #[test]
    fn so_many_traces_run_at_once() {
        let traces = Traces::default();
        let ids: Vec<WatchId> = (0..WATCHES_MAX).map(|_| traces.enter().unwrap()).collect();
        assert_eq!(traces.enter(), None);
        traces.leave(ids[2]);
        let again = traces.enter().unwrap();
        assert!(again.slot() == ids[2].slot() && again != ids[2]);
    }
}
