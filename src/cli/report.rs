//! `corefire status` and `corefire whereis`.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::backend::Running;
use super::{Refusal, cluster, print};
use crate::config::Config;
use crate::runtime::control::accounts::place;
use crate::runtime::control::{
    ControlRequest, ControlResponse, Place, PlaceKind, PlaceSession, Status,
};

/// Talkers of each kind that are shown.
const TALKERS: usize = 5;

/// Shows the node that runs on the data directory; refused where none does.
pub(super) fn status(config: &Config, json: bool) -> Result<(), Refusal> {
    let path = config.node.data_dir.display();
    let Some(node) = Running::find(config).map_err(Refusal::Plain)? else {
        if json {
            let data_dir = config.node.data_dir.to_string_lossy();
            print(serde_json::json!({ "running": false, "data_dir": data_dir }))?;
        }
        return Err(Refusal::Plain(format!(
            "no node runs on the data directory {path}; start one with corefire serve, or give its --data-dir"
        )));
    };
    let ControlResponse::Status(status) =
        node.call(&ControlRequest::Status).map_err(Refusal::Plain)?
    else {
        return Err(odd_answer());
    };
    if !json {
        return print(status_text(&status).trim_end());
    }
    let mut value = serde_json::to_value(&status).map_err(|error| Refusal::Output(error.into()))?;
    value["running"] = true.into();
    print(value)
}

/// Asks the running node, or computes it from the configuration where none runs.
pub(super) fn whereis(config: &Config, jid: &str, json: bool) -> Result<(), Refusal> {
    let place = match Running::find(config).map_err(Refusal::Plain)? {
        Some(node) => {
            let request = ControlRequest::Whereis { jid: jid.to_owned() };
            match node.call(&request).map_err(Refusal::Plain)? {
                ControlResponse::Place(place) => place,
                _ => return Err(odd_answer()),
            }
        }
        None => place(jid, &cluster::map_of(config)?).map_err(Refusal::Plain)?,
    };
    if json {
        return print(object(&place)?);
    }
    print(whereis_text(&place))
}

fn whereis_text(place: &Place) -> String {
    let Place { jid, hash64, partition, node, node_id, shard, epoch, clients, .. } = place;
    let mut text =
        format!("{jid}: node {node}, shard {shard} (partition {partition}, hash {hash64})");
    if *epoch > 0 {
        // Writing to a String cannot fail.
        let _ = write!(text, ", node id {node_id}, epoch {epoch}");
    }
    if !clients.is_empty() {
        let _ = write!(text, ", clients: {}", clients.join(" "));
    }
    let mut line = |what: &dyn std::fmt::Display| {
        let _ = write!(text, "\n  {what}");
    };
    match place.kind {
        Some(PlaceKind::Account) if place.sessions.is_empty() && place.silent.is_empty() => {
            line(&"nobody is connected for it");
        }
        Some(PlaceKind::Domain) => line(&"a domain of this server: every node serves it"),
        Some(PlaceKind::Component) if place.connections.is_empty() && place.silent.is_empty() => {
            line(&"a component's, which is not connected");
        }
        Some(PlaceKind::Elsewhere) => match &place.talks_to {
            Some(domain) => line(&format_args!(
                "another server's: {node} talks with {domain} for the whole cluster"
            )),
            None => line(&"no address of this server"),
        },
        Some(PlaceKind::Account | PlaceKind::Component) | None => {}
    }
    for session in &place.sessions {
        let PlaceSession { resource, socket, address, since } = session;
        let at = socket.as_ref().map(|socket| format!("at {socket} ")).unwrap_or_default();
        match address {
            Some(address) => line(&format_args!("/{resource}: {at}from {address}, since {since}")),
            None => line(&format_args!("/{resource}: waits to be resumed, since {since}")),
        }
    }
    for (node, count) in &place.connections {
        let plural = if *count == 1 { "" } else { "s" };
        line(&format_args!("a component's: {count} connection{plural} at {node}"));
    }
    for node in &place.silent {
        line(&format_args!("{node} gave no answer in time: what it has is missing here"));
    }
    text
}

/// One line.
pub(super) fn object(value: &impl serde::Serialize) -> Result<String, Refusal> {
    serde_json::to_string(value).map_err(|error| Refusal::Output(error.into()))
}

pub(super) fn odd_answer() -> Refusal {
    let message = "the node answered another question; use the program that it was started with";
    Refusal::Plain(message.to_owned())
}

fn status_text(status: &Status) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: &dyn std::fmt::Display| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:<11}{value}");
    };
    row("node", &status.node);
    row("program", &format_args!("corefire {}, process {}", status.version, status.pid));
    row("up", &format_args!("{} (start {})", span(status.uptime_s), status.incarnation));
    row("domains", &status.domains.join(", "));
    for listener in &status.listeners {
        row("listener", &format_args!("{} ({})", listener.address, listener.key));
    }
    row("data", &status.data_dir);
    row("store", &format_args!("{}, ack = {:?}", status.store, status.ack));
    let sum = |count: fn(&crate::runtime::control::ShardStatus) -> u64| {
        status.shards.iter().map(count).sum::<u64>()
    };
    row(
        "shards",
        &format_args!(
            "{}: {} connections, {} sessions, {} accounts in memory",
            status.shards.len(),
            sum(|shard| shard.connections),
            sum(|shard| shard.sessions),
            sum(|shard| shard.accounts),
        ),
    );
    let mut components = BTreeMap::<&str, u64>::new();
    for (domain, count) in status.shards.iter().flat_map(|shard| &shard.components) {
        *components.entry(domain).or_default() += count;
    }
    for (domain, count) in components {
        match count {
            0 => row("component", &format_args!("{domain}: not connected")),
            1 => row("component", &format_args!("{domain}: 1 connection")),
            _ => row("component", &format_args!("{domain}: {count} connections")),
        }
    }
    for shard in &status.shards {
        row(
            "",
            &format_args!(
                "shard {}: {} connections, {} sessions, {} accounts",
                shard.shard, shard.connections, shard.sessions, shard.accounts
            ),
        );
        if let Some(stall) = &shard.last_stall {
            row("", &format_args!("  {}", super::latency::last_stall(stall, shard.stalls)));
        }
        match shard.late {
            0 => {}
            1 => row("", &"  once over 10 ms late to its timers"),
            times => row("", &format_args!("  {times} times over 10 ms late to its timers")),
        }
    }
    for (number, talker) in status.talkers.by_stanzas.iter().take(TALKERS).enumerate() {
        let name = if number == 0 { "talkers" } else { "" };
        row(name, &format_args!("{}: {:.1} stanzas/s", visible(&talker.jid), talker.per_s));
    }
    for (number, talker) in status.talkers.by_bytes.iter().take(TALKERS).enumerate() {
        let name = if number == 0 { "by bytes" } else { "" };
        row(name, &format_args!("{}: {:.0} B/s", visible(&talker.jid), talker.per_s));
    }
    text
}

/// Resources may hold what moves a terminal's text about: right-to-left marks and the like.
pub(super) fn visible(jid: &str) -> String {
    let shown = |c: char| match c {
        '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}' => '\u{fffd}',
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    jid.chars().map(shown).collect()
}

/// The two largest units of a number of seconds.
pub(super) fn span(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::control::{Listener, ShardStatus};

    #[test]
    fn a_span_has_two_units() {
        assert_eq!(span(7), "7 s");
        assert_eq!(span(67), "1 min 7 s");
        assert_eq!(span(3_700), "1 h 1 min");
        assert_eq!(span(90_000), "1 d 1 h");
    }

    #[test]
    fn an_owner_in_a_cluster_is_shown_with_its_addresses() {
        let place = Place {
            jid: "room@conference.localhost".into(),
            hash64: "00ff".into(),
            partition: 255,
            node: "n2".into(),
            node_id: 2,
            shard: 1,
            epoch: 9,
            clients: vec!["a:5222".into(), "b:5222".into()],
            ..Place::default()
        };
        assert_eq!(
            whereis_text(&place),
            "room@conference.localhost: node n2, shard 1 (partition 255, hash 00ff), node id 2, epoch 9, \
             clients: a:5222 b:5222"
        );
    }

    #[test]
    fn who_is_connected_for_an_address_is_shown_below_its_owner() {
        let since = "2026-11-23T12:00:00.000Z";
        let session = |resource: &str, address: Option<&str>| PlaceSession {
            resource: resource.to_owned(),
            socket: address.map(|_| "n1".to_owned()),
            address: address.map(str::to_owned),
            since: since.to_owned(),
        };
        let below = |place: &Place| {
            let text = whereis_text(place);
            text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>()
        };
        let account = Place { kind: Some(PlaceKind::Account), ..Place::default() };
        assert_eq!(below(&account), ["  nobody is connected for it"]);
        let sessions = vec![session("phone", Some("192.0.2.1")), session("desk", None)];
        assert_eq!(
            below(&Place { sessions, ..account.clone() }),
            [
                format!("  /phone: at n1 from 192.0.2.1, since {since}"),
                format!("  /desk: waits to be resumed, since {since}"),
            ]
        );
        assert_eq!(
            below(&Place { silent: vec!["n3".into()], ..account }),
            ["  n3 gave no answer in time: what it has is missing here"]
        );
        let component = Place { kind: Some(PlaceKind::Component), ..Place::default() };
        assert_eq!(below(&component), ["  a component's, which is not connected"]);
        let connections = [("n1".to_owned(), 1), ("n2".to_owned(), 2)].into();
        assert_eq!(
            below(&Place { connections, ..component }),
            ["  a component's: 1 connection at n1", "  a component's: 2 connections at n2"]
        );
        let domain = Place { kind: Some(PlaceKind::Domain), ..Place::default() };
        assert_eq!(below(&domain), ["  a domain of this server: every node serves it"]);
    }

    #[test]
    fn a_status_shows_its_parts_and_their_sums() {
        let shard = |shard| ShardStatus {
            shard,
            connections: 3,
            sessions: 2,
            accounts: 1,
            components: [("bot.a".to_owned(), u64::from(shard)), ("b.a".to_owned(), 0)].into(),
            ..ShardStatus::default()
        };
        let listener = Listener { address: "127.0.0.1:5222".into(), key: "c2s.listen".into() };
        let status = Status {
            node: "node-1".into(),
            shards: vec![shard(0), shard(1)],
            listeners: vec![listener],
            ..Status::default()
        };
        let text = status_text(&status);
        assert!(text.contains("shards     2: 6 connections, 4 sessions, 2 accounts"), "{text}");
        assert!(text.contains("component  bot.a: 1 connection\n"), "{text}");
        assert!(text.contains("component  b.a: not connected\n"), "{text}");
        assert!(text.contains("listener   127.0.0.1:5222 (c2s.listen)"), "{text}");
    }
}
