//! `corefire trace`: each step of the stanzas of an address, or with an id, as it happens in the running node.

use std::io::{self, ErrorKind, Write};

use super::backend::Running;
use super::report::{object, odd_answer, visible};
use super::{Refusal, tell};
use crate::config::Config;
use crate::runtime::control::trace::{TRACE_S_MAX, TraceEvent, TraceHop, TraceRequest};
use crate::runtime::control::{ControlRequest, ControlResponse};
use crate::xmpp::jid::Jid;

/// - `span`: how long, as the operator wrote it
pub(super) fn run(
    config: &Config,
    jid: Option<&str>,
    id: Option<&str>,
    span: &str,
    json: bool,
) -> Result<(), Refusal> {
    let seconds = seconds(span).filter(|seconds| (1..=TRACE_S_MAX).contains(seconds));
    let seconds = seconds.ok_or_else(|| {
        Refusal::Plain(format!(
            "--for {span:?} is no time from 1s to {}m; write --for 60s",
            TRACE_S_MAX / 60
        ))
    })?;
    if let Some(jid) = jid
        && let Err(fault) = Jid::parse(jid)
    {
        return Err(Refusal::Plain(format!(
            "{jid:?} is no address: {fault}; write NAME@DOMAIN or NAME@DOMAIN/RESOURCE"
        )));
    }
    let Some(node) = Running::find(config).map_err(Refusal::Plain)? else {
        return Err(Refusal::Plain(format!(
            "no node runs on the data directory {}; what passes through a running node can be traced",
            config.node.data_dir.display()
        )));
    };
    let request = TraceRequest { jid: jid.map(str::to_owned), id: id.map(str::to_owned), seconds };
    let mut shown = Ok(());
    let streamed = node.stream(&ControlRequest::Trace(request), |response| {
        let goes_on = match response {
            ControlResponse::Trace(event) => show(&event, json),
            _ => Err(odd_answer()),
        };
        let is_on = matches!(goes_on, Ok(true));
        shown = goes_on.map(drop);
        is_on
    });
    shown.and(streamed.map_err(Refusal::Plain))
}

/// Gives false after the last event, or where nobody reads any more.
fn show(event: &TraceEvent, json: bool) -> Result<bool, Refusal> {
    let goes_on = !matches!(event, TraceEvent::Ended { .. });
    match event {
        TraceEvent::Quiet => Ok(true),
        event if json => Ok(write(&object(event)?)? && goes_on),
        TraceEvent::Hop(hop) => write(&line(hop)),
        TraceEvent::LeftOut { hops } => {
            write(&format!("... {} left out: too many a second", counted(*hops, "hop")))
        }
        // Not among the hops, so that those can be sorted and searched.
        TraceEvent::Began { whom, seconds, shards, note } => {
            if let Some(note) = note {
                tell(format_args!("corefire: warning: {}", visible(note)));
            }
            let (whom, shards) = (visible(whom), counted(*shards, "shard"));
            tell(format_args!("corefire: tracing {whom} for {seconds} s on {shards}; ^C ends it"));
            Ok(true)
        }
        TraceEvent::Ended { hops, stanzas, left_out } => {
            let [hops, left_out] = [hops, left_out].map(|number| counted(*number, "hop"));
            let stanzas = counted(*stanzas, "stanza");
            tell(format_args!("corefire: {hops} of {stanzas}; {left_out} left out"));
            Ok(false)
        }
    }
}

/// `1 hop`, `2 hops`
fn counted(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn line(hop: &TraceHop) -> String {
    let TraceHop { at, stanza, since_us, shard, step, detail, .. } = hop;
    let mut text =
        format!("{at} {stanza:>6} {since_us:>+8} us  shard {shard}  {step:<12} {}", hop.kind);
    for word in [&hop.type_, &hop.condition].into_iter().flatten() {
        text.push(' ');
        text.push_str(word);
    }
    let address = |address: &Option<String>| address.clone().unwrap_or_else(|| "-".to_owned());
    text.push_str(&format!(" {} -> {}", address(&hop.from), address(&hop.to)));
    if let Some(id) = &hop.id {
        text.push_str(&format!(" id={id:?}"));
    }
    text.push_str(&format!(" {} B", hop.bytes));
    for child in &hop.children {
        text.push_str(&format!(" <{child}>"));
    }
    if !detail.is_empty() {
        text.push_str(&format!("; {detail}"));
    }
    // What clients wrote must not move a terminal's text about.
    visible(&text)
}

/// Gives false where the reader has gone (`| head`): it has seen enough.
fn write(line: &str) -> Result<bool, Refusal> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Refusal::Output(error)),
    }
}

/// `90`, `60s`, `5m`.
fn seconds(text: &str) -> Option<u32> {
    let (number, unit) = match text.strip_suffix('m') {
        Some(number) => (number, 60),
        None => (text.strip_suffix('s').unwrap_or(text), 1),
    };
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
    number.parse::<u32>().ok().filter(|_| is_number)?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::{HOPS_PER_S, WATCHES_MAX};
    use clap::CommandFactory;

    #[test]
    fn a_time_is_seconds_or_minutes() {
        let told = ["60s", "90", "5m", "1h", "", "m", "-1s", "+1s", "99999999m"].map(seconds);
        let sixty = [Some(60), Some(90), Some(300)];
        assert_eq!((&told[..3], &told[3..]), (&sixty[..], &[None; 6][..]));
    }

    #[test]
    fn the_bounds_that_are_told_are_those_that_hold() {
        let mut command = crate::cli::Arguments::command();
        let trace = command.find_subcommand_mut("trace").map(|trace| trace.render_long_help());
        let help = trace.map_or_else(String::new, |help| help.to_string());
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let (help, readme) = (words(&help), words(include_str!("../../README.md")));
        let minutes = TRACE_S_MAX / 60;
        for bound in [
            format!("runs {WATCHES_MAX} traces at once, and tells each of them {HOPS_PER_S} steps"),
            format!("{minutes}m at most"),
        ] {
            assert!(help.contains(&bound), "{bound}: {help}");
        }
        for bound in [
            format!(
                "runs {WATCHES_MAX} at once and tells each of them {HOPS_PER_S} steps a second"
            ),
            format!("{minutes} minutes at most"),
        ] {
            assert!(readme.contains(&bound), "{bound}");
        }
    }

    #[test]
    fn a_hop_is_one_line() {
        let hop = TraceHop {
            at: "2026-11-23T12:00:00.123456Z".into(),
            stanza: "1-7".into(),
            since_us: 42,
            shard: 1,
            step: "delivered".into(),
            detail: "to bob@b/x".into(),
            kind: "message".into(),
            type_: Some("chat".into()),
            from: Some("alice@b/\u{202e}a".into()),
            to: Some("bob@b".into()),
            id: Some("m\n1".into()),
            bytes: 210,
            children: vec!["body".into(), "active".into()],
            ..TraceHop::default()
        };
        assert_eq!(
            line(&hop),
            "2026-11-23T12:00:00.123456Z    1-7      +42 us  shard 1  delivered    message chat \
             alice@b/\u{fffd}a -> bob@b id=\"m\\n1\" 210 B <body> <active>; to bob@b/x"
        );
        let refused = TraceHop {
            type_: Some("error".into()),
            condition: Some("service-unavailable".into()),
            from: None,
            id: None,
            children: Vec::new(),
            detail: String::new(),
            ..hop
        };
        let line = line(&refused);
        assert!(line.ends_with("message error service-unavailable - -> bob@b 210 B"), "{line}");
    }
}
