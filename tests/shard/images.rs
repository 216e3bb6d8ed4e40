//! A connection on its way to another node: whatever it is at that moment, it goes on as one that moves within a node
//! does, and what another process says is checked.

use crate::harness::*;
use crate::sasl2::{agent, authenticate_by, bind2, text};
use corefire::shard::ImageError;
use corefire::stream::TlsFacts;
use corefire::stream::sasl::client::{ClientBinding, ScramClient, plain as plain_message};
use corefire::stream::sasl::{Mechanism, TLS_EXPORTER, decode_payload, encode_payload};
use corefire::xmpp::jid::BareJid;
use std::time::Duration;

const SASL: &str = "xmlns='urn:ietf:params:xml:ns:xmpp-sasl'";
const SASL2: &str = "xmlns='urn:xmpp:sasl:2'";

fn facts() -> TlsFacts {
    TlsFacts {
        exporter: Some([5; 32]),
        end_point: Some([6; 32].as_slice().into()),
        server_name: Some("here".into()),
        addresses: [BareJid::parse("alice@here").unwrap()].into(),
    }
}

fn node(images: bool) -> Node {
    let mut node = Node::with(4, |config| {
        config.policy.tls_required = false;
        config.answer_after = Duration::from_millis(50);
    });
    node.moves_as_images = images;
    node.users(&["alice"]);
    node
}

/// A core that does not own alice's account.
fn elsewhere(node: &Node) -> usize {
    (node.owner("alice") + 1) % 4
}

/// What a client hears that says this, piece by piece, and whether it is still connected.
fn heard(images: bool, tls: Option<TlsFacts>, script: &[String]) -> (Vec<String>, bool) {
    let mut node = node(images);
    let tls_less = tls.is_none();
    let client = node.connect_as(elsewhere(&node), tls);
    let mut heard = Vec::new();
    for piece in script {
        if node.is_open(client) {
            node.send(client, piece);
        }
        heard.push(node.read(client));
        node.advance(Duration::from_millis(60));
        heard.push(node.read(client));
    }
    node.advance(Duration::from_secs(5));
    heard.push(node.read(client));
    // What is not offered without TLS is refused where it arrives.
    assert!(node.moves(client) == 1 || tls_less, "{heard:?}");
    (heard, node.is_open(client))
}

fn auth(mechanism: &str, message: &[u8]) -> String {
    let text = encode_payload(message);
    format!("<auth {SASL} mechanism='{mechanism}'>{text}</auth>")
}

#[test]
fn connection_goes_on_at_another_node_as_it_does_within_one() {
    let header = HEADER.to_owned();
    let message = plain_message("", "alice", PASSWORD);
    let right = auth("PLAIN", &message);
    let wrong = auth("PLAIN", &plain_message("", "alice", "wrong"));
    let response =
        |profile: &str| format!("<response {profile}>{}</response>", encode_payload(&message));
    let inline = [agent("a"), bind2("Fox", "<enable xmlns='urn:xmpp:sm:3' resume='true'/>")];
    let inline = inline.concat();
    let asked = format!("<authenticate {SASL2} mechanism='PLAIN'>{inline}</authenticate>");
    let ping = "<iq type='get' id='p' to='here'><ping xmlns='urn:xmpp:ping'/></iq>".to_owned();
    let bound = [header.clone(), bind("pc"), ping.clone(), "</stream:stream>".into()];
    let odd = "<s:stream xmlns='jabber:client' xmlns:s='http://etherx.jabber.org/streams' \
               xmlns:p='urn:xmpp:ping' to='here' from='alice@here' version='1.0'>";
    let odd_sasl2 = authenticate_by("PLAIN", &message, &inline);
    let odd_ping = "<iq type='get' id='p' to='here'><p:ping/></iq>".to_owned();
    let more = |start: &[&String]| -> Vec<String> {
        start.iter().map(|piece| (*piece).clone()).chain(bound.iter().cloned()).collect()
    };
    let none = format!("<auth {SASL} mechanism='NONE'/>");
    let ask = format!("<auth {SASL} mechanism='PLAIN'/>");
    let external = auth("EXTERNAL", b"alice@here");
    let scripts = [
        more(&[&header, &right]),
        more(&[&header, &ask, &response(SASL)]),
        more(&[&header, &external]),
        more(&[&header, &wrong, &right]),
        // Two of three attempts are used up before it moves.
        vec![header.clone(), none.clone(), none.clone(), wrong.clone(), right.clone()],
        // All at once: what is behind the login goes with it, and what the server said before it.
        vec![more(&[&header, &right])[..5].concat(), ping.clone()],
        vec![[header.clone(), none, right.clone()].concat(), [header.clone(), bind("x")].concat()],
        vec![header.clone(), authenticate_by("PLAIN", &message, &inline), ping.clone()],
        vec![header.clone(), asked, response(SASL2), ping],
        vec![odd.into(), odd_sasl2, odd_ping, "</s:stream>".into()],
        vec![odd.into(), right.clone(), odd.into(), bind("x"), "</stream:stream>".into()],
        vec![odd.into(), [right, "</stream:stream>".into()].concat()],
    ];
    for script in scripts {
        for tls in [Some(facts()), None] {
            let local = heard(false, tls.clone(), &script);
            if tls.is_some() {
                let all = local.0.concat();
                assert!(all.contains("<success") || all.contains("<failure"), "{all}");
            }
            assert_eq!(heard(true, tls.clone(), &script), local, "{tls:?} {script:#?}");
        }
    }
}

#[test]
fn channel_binding_holds_at_another_node() {
    let mut node = node(true);
    let client = node.connect_as(elsewhere(&node), Some(facts()));
    node.send(client, HEADER);
    node.read(client);
    let binding = ClientBinding::Used { kind: TLS_EXPORTER, data: &[5; 32] };
    let mechanism = Mechanism::ScramSha256Plus;
    let mut scram = ScramClient::new(mechanism, "alice", PASSWORD, "fyko", binding).unwrap();
    node.send(client, &authenticate_by(mechanism.name(), &scram.first(), ""));
    node.advance(Duration::from_millis(60));
    let first = decode_payload(text(&node.read(client), "challenge")).unwrap();
    let last = encode_payload(&scram.server_first(&first).unwrap());
    node.send(client, &format!("<response {SASL2}>{last}</response>"));
    let answer = node.read(client);
    scram.server_final(&decode_payload(text(&answer, "additional-data")).unwrap()).unwrap();
    assert_eq!(node.moves(client), 1);
}

/// The image of a connection that asks for as much as it can.
fn image() -> Vec<u8> {
    let mut node = node(true);
    let client = node.connect_as(elsewhere(&node), Some(facts()));
    let header = HEADER.replace("to=", "xmlns:p='urn:p' from='alice@here' to=");
    node.send(client, &header);
    let more = format!(
        "{}{}<resume xmlns='urn:xmpp:sm:3' previd='x' h='1'/>\
         <request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-NONE'/>",
        agent("a"),
        bind2("Fox", "<enable xmlns='urn:xmpp:sm:3'/>")
    );
    node.send(client, &format!("<authenticate {SASL2} mechanism='PLAIN'>{more}</authenticate>"));
    let message = encode_payload(&plain_message("", "alice", PASSWORD));
    node.send(client, &format!("<response {SASL2}>{message}</response>"));
    node.images.pop().unwrap()
}

#[test]
fn image_of_another_version_or_none_is_refused() {
    let image = image();
    let mut node = node(true);
    let mut refused = |bytes: &[u8]| node.adopt(0, bytes).err();
    assert_eq!(refused(&[]), Some(ImageError::Archive));
    assert_eq!(refused(&[&[9], &image[1..]].concat()), Some(ImageError::Version));
    assert_eq!(refused(&[1]), Some(ImageError::Archive));
    assert_eq!(refused(&vec![1; (1 << 20) + 1]), Some(ImageError::TooLarge));
    for cut in 1..image.len() {
        assert!(refused(&image[..cut]).is_some(), "{cut} of {}", image.len());
    }
    assert_eq!(refused(&image), None);
}

#[test]
fn image_with_any_bit_flipped_is_refused_or_is_a_connection() {
    let image = image();
    let mut node = node(true);
    let mut taken = 0;
    for bit in 0..8 * image.len() {
        let mut bytes = image.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let Ok(client) = node.adopt(node.owner("alice"), &bytes) {
            taken += 1;
            node.advance(Duration::from_millis(60));
            if node.is_open(client) {
                node.cut(client);
            }
        }
    }
    assert!(taken > 0, "payload can be anything");
    assert_eq!(node.probe(node.owner("alice")).faults, 0);
}

#[test]
fn image_for_domains_that_are_not_served_is_refused() {
    let image = image();
    let mut node = Node::with(1, |config| config.policy.domains = vec!["there".into()]);
    assert!(matches!(node.adopt(0, &image), Err(ImageError::Stream(_))));
    assert_eq!(node.probe(0).connections, 0);
}
