//! What the load tool is asked for in each row, as scenarios of its own kind, and what a run of them showed.

use std::time::Duration;

use super::options::Options;
use crate::record::{Interval, Operation, Outcome};
use crate::scenario::Address;

pub(super) const BODY_BYTES: usize = 64;
/// Measured stretches of one run, whose median is taken.
pub(super) const REPEATS: usize = 3;

/// Pairs that chat, with so many messages under way in each direction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chat {
    pub(super) users: usize,
    pub(super) window: u32,
    pub(super) tls: bool,
    pub(super) sm: bool,
}

impl Default for Chat {
    fn default() -> Self {
        Self { users: 200, window: 8, tls: false, sm: false }
    }
}

/// How connections are made: the word of the scenario's `tls`.
pub(super) fn security(options: &Options, tls: bool) -> &'static str {
    match (tls, options.direct_tls()) {
        (false, _) => "none",
        (true, true) => "direct",
        (true, false) => "starttls",
    }
}

/// Accounts, connection and phases, which all rows have.
fn frame(
    options: &Options,
    security: &str,
    first: usize,
    phases: &[(&str, Duration, bool)],
) -> String {
    let mut text = format!(
        "seed = 1\n[accounts]\npattern = {:?}\npassword = {:?}\nfirst = {first}\n\
         [connection]\ntls = \"{security}\"\nmechanism = \"{}\"\nlogins_in_flight = 32\n\
         [[phase]]\nname = \"log in\"\nkind = \"ramp\"\nlength = \"1s\"\n",
        options.users,
        options.password,
        options.mechanism.name(),
    );
    for (name, length, measured) in phases {
        text.push_str(&format!(
            "[[phase]]\nname = \"{name}\"\nkind = \"hold\"\nlength = \"{}ms\"\nmeasured = {measured}\n",
            length.as_millis()
        ));
    }
    text
}

fn to(address: Address) -> &'static str {
    match address {
        Address::Full => "session",
        Address::Bare => "account",
    }
}

/// Warm-up, then [`REPEATS`] stretches that are measured.
fn stretches(options: &Options) -> Vec<(&'static str, Duration, bool)> {
    let each = options.whole_seconds(3);
    let names = ["first", "second", "third"];
    let measured = names.into_iter().take(REPEATS).map(|name| (name, each, true));
    std::iter::once(("warm up", options.whole_seconds(1), false)).chain(measured).collect()
}

pub(super) fn chat(options: &Options, chat: &Chat) -> String {
    let mut text = frame(options, security(options, chat.tls), 0, &stretches(options));
    text.push_str(&format!(
        "[[population]]\nname = \"pairs\"\nusers = {}\nsm = \"{}\"\n\
         [population.message]\nrate = 1\nbody = {BODY_BYTES}\nto = \"{}\"\n",
        chat.users,
        if chat.sm { "on" } else { "off" },
        to(options.address),
    ));
    text
}

/// One component writes to `users`.
pub(super) fn service(options: &Options, domain: &str, secret: &str, users: usize) -> String {
    let mut text = frame(options, security(options, false), 0, &stretches(options));
    text.push_str(&format!(
        "[component]\naddress = \"{domain}\"\nsecret = \"{secret}\"\n\
         [[population]]\nname = \"users\"\nusers = {users}\n\
         [population.component-message]\nrate = 1\nbody = {BODY_BYTES}\nto = \"session\"\n"
    ));
    text
}

/// Open loop, at so many messages a second.
pub(super) fn rate(options: &Options, users: usize, per_second: u32) -> String {
    let phases =
        [("warm up", options.whole_seconds(2), false), ("rate", options.whole_seconds(10), true)];
    let mut text = frame(options, security(options, false), 0, &phases);
    text.push_str(&format!(
        "[[population]]\nname = \"pairs\"\nusers = {users}\n\
         [population.message]\nrate = {per_second}\nbody = {BODY_BYTES}\nto = \"{}\"\n",
        to(options.address),
    ));
    text
}

/// Users who log in at once, and then are silent.
pub(super) fn logins(options: &Options, tls: bool, first: usize, users: usize) -> String {
    let mut text =
        frame(options, security(options, tls), first, &[("idle", Duration::from_secs(4), true)]);
    // All want to be in at once, and 32 are on their way at a time.
    text = text.replacen("length = \"1s\"", "length = \"1ms\"", 1);
    text.push_str(&format!("[[population]]\nname = \"users\"\nusers = {users}\n"));
    text
}

/// One measured stretch of messages.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Stretch {
    pub(super) messages: u64,
    pub(super) per_second: f64,
    /// CPU µs per message, of the server and of the tool.
    pub(super) server_us: f64,
    pub(super) own_us: f64,
}

/// The measured phases of a run, in order.
pub(super) fn measured(outcome: &Outcome) -> Vec<Stretch> {
    let phases = outcome.phases.iter().enumerate();
    let measured = phases.filter(|(_, phase)| phase.measured && phase.kind != "drain");
    measured.map(|(at, _)| stretch(outcome.intervals.iter().filter(|it| it.phase == at))).collect()
}

fn stretch<'a>(intervals: impl Iterator<Item = &'a Interval>) -> Stretch {
    let (mut messages, mut seconds) = (0, 0);
    let (mut server, mut own) = (Duration::ZERO, Duration::ZERO);
    for interval in intervals {
        let is_message = |operation: &Operation| {
            matches!(operation, Operation::Message | Operation::ComponentMessage)
        };
        let tallies = interval.tallies.iter().filter(|(operation, _)| is_message(operation));
        messages += tallies.map(|(_, tally)| tally.done).sum::<u64>();
        seconds += 1;
        server += interval.server.unwrap_or_default().cpu;
        own += interval.own.cpu;
    }
    let each = |cpu: Duration| cpu.as_secs_f64() * 1e6 / messages.max(1) as f64;
    Stretch {
        messages,
        per_second: messages as f64 / f64::from(seconds.max(1)),
        server_us: each(server),
        own_us: each(own),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::plan::{Plan, Request, Target};
    use crate::record::{ServerLoad, Tally};

    fn options() -> Options {
        let line = "--server-pid 1 --address 127.0.0.1:1";
        Options::parse(None, &[], line.split(' ').map(str::to_owned)).unwrap()
    }

    #[test]
    fn every_row_is_a_scenario_that_the_tool_takes() {
        let target = Target { address: ([127, 0, 0, 1], 1).into(), domain: "d".to_owned() };
        let options = options();
        let tls = Chat { tls: true, sm: true, ..Chat::default() };
        for (text, closed, users) in [
            (chat(&options, &tls), Some(8), 200),
            (service(&options, "s.d", "secret", 20), Some(8), 20),
            (rate(&options, 200, 2000), None, 200),
            (logins(&options, false, 16, 100), None, 100),
        ] {
            let request = Request { closed, ..Request::new("row", &text, vec![target.clone()]) };
            let plan = Plan::new(&request).unwrap();
            assert_eq!(plan.scenario.users(), users, "{text}");
            let cut: Vec<_> = plan.phases.iter().map(|phase| phase.begin.subsec_nanos()).collect();
            assert!(
                closed.is_none() || cut.iter().all(|part| *part == 0),
                "whole seconds: {cut:?}"
            );
        }
    }

    #[test]
    fn a_stretch_is_what_its_seconds_hold_together() {
        let second = |done: u64, server: u64| Interval {
            tallies: [(Operation::Message, Tally { done, ..Tally::default() })].into(),
            server: Some(ServerLoad { cpu: Duration::from_micros(server), memory: 0 }),
            ..Interval::default()
        };
        let stretch = stretch([second(100, 300), second(300, 500)].iter());
        assert_eq!((stretch.messages, stretch.per_second, stretch.server_us), (400, 200.0, 2.0));
    }
}
