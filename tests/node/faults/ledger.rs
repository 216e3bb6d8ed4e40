//! What clients were told, to hold it against what the archives have.

use std::thread::JoinHandle;

use crate::client::Client;
use crate::node::Place;

/// Messages of one burst, at most.
const BURST: u32 = 8;

/// Messages of a page of an archive.
const PAGE: usize = 50;

/// One message of an archive.
#[derive(Debug, PartialEq)]
pub(super) struct Row {
    pub(super) id: String,
    pub(super) body: String,
}

/// With `users`, whose password is `secret`.
pub(super) fn place(users: &[&str]) -> Place {
    let place = Place::new();
    for user in users {
        place.add_user(user, "secret");
    }
    place
}

pub(super) fn message(to: &str, body: &str) -> String {
    format!("<message to='{to}@localhost' type='chat'><body>{body}</body></message>")
}

/// Asks how many stanzas are handled.
///
/// - gives: `None` where the stream ends first
pub(super) fn acknowledged(client: &mut Client) -> Option<u32> {
    client.try_expect("<a xmlns='urn:xmpp:sm:3' h='")?;
    client.try_expect("'/>")?.trim_end_matches("'/>").parse().ok()
}

/// Sends `text`, and waits until so many stanzas of the stream are acknowledged.
#[track_caller]
pub(super) fn say(client: &mut Client, text: &str, handled: u32) {
    client.send(text);
    client.send("<r xmlns='urn:xmpp:sm:3'/>");
    while acknowledged(client).unwrap() < handled {}
}

/// Sends bursts until the stream breaks: messages "LABEL 0", "LABEL 1" and so on.
///
/// - gives: how many were acknowledged, and how many were sent
pub(super) fn talk(mut client: Client, to: &'static str, label: String) -> JoinHandle<(u32, u32)> {
    std::thread::spawn(move || {
        let (mut sent, mut acked) = (0, 0);
        loop {
            let burst = 1 + sent % BURST;
            let mut text: String = (sent..sent + burst)
                .map(|number| message(to, &format!("{label} {number}")))
                .collect();
            text.push_str("<r xmlns='urn:xmpp:sm:3'/>");
            sent += burst;
            if client.try_send(&text).is_err() {
                return (acked, sent);
            }
            match acknowledged(&mut client) {
                Some(handled) => acked = acked.max(handled),
                None => return (acked, sent),
            }
        }
    })
}

/// What the archive of a client's account has, behind the row with the id `after`.
#[track_caller]
pub(super) fn archive(client: &mut Client, after: Option<&str>) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut after = after.map(str::to_owned);
    for page in 0.. {
        let position = after.as_ref().map(|id| format!("<after>{id}</after>")).unwrap_or_default();
        client.send(&format!(
            "<iq type='set' id='page{page}'><query xmlns='urn:xmpp:mam:2'>\
             <set xmlns='http://jabber.org/protocol/rsm'><max>{PAGE}</max>{position}</set></query></iq>"
        ));
        let text = client.expect("</iq>");
        assert!(text.contains("</fin></iq>"), "{text}");
        for result in text.split("<result ").skip(1) {
            let row =
                Row { id: between(result, " id='", "'"), body: between(result, "<body>", "<") };
            after = Some(row.id.clone());
            rows.push(row);
        }
        if text.contains("complete='true'") {
            break;
        }
    }
    rows
}

fn between(text: &str, before: &str, behind: &str) -> String {
    let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("no {before} in {text}"));
    rest.split(behind).next().unwrap_or_default().to_owned()
}

/// What was kept of a talk.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Kept {
    pub(super) lost: usize,
    pub(super) duplicates: usize,
    pub(super) reordered: usize,
}

/// Holds the bodies "LABEL n" among `bodies` against what was acknowledged.
pub(super) fn check<'a>(
    bodies: impl Iterator<Item = &'a str>,
    label: &str,
    acknowledged: u32,
) -> Kept {
    let prefix = format!("{label} ");
    let numbers: Vec<u32> =
        bodies.filter_map(|body| body.strip_prefix(&prefix)).map(|n| n.parse().unwrap()).collect();
    let mut sorted = numbers.clone();
    sorted.sort_unstable();
    sorted.dedup();
    let there = sorted.iter().filter(|number| **number < acknowledged).count();
    Kept {
        lost: acknowledged as usize - there,
        duplicates: numbers.len() - sorted.len(),
        reordered: numbers.windows(2).filter(|pair| pair[0] > pair[1]).count(),
    }
}
