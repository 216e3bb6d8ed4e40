//! What an operator who watches an address or an id is told of the stanzas that pass.

use crate::harness::*;
use corefire::shard::Hop;

/// `received here m1 alice@here/a > bob@here`
fn told(hops: &[Hop]) -> Vec<String> {
    let line = |hop: &Hop| {
        let about = &hop.about;
        let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let line = format!(
            "{} {} {} {} > {} {}",
            hop.step.name(),
            about.kind.map_or("none", |kind| kind.name()),
            or_none(&about.id),
            or_none(&about.from),
            or_none(&about.to),
            hop.detail
        );
        line.trim_end().to_owned()
    };
    hops.iter().map(line).collect()
}

#[track_caller]
fn tells(node: &mut Node, lines: &[&str]) {
    let hops = node.hops();
    assert_eq!(told(&hops), lines, "{hops:#?}");
}

fn steps(node: &mut Node) -> Vec<&'static str> {
    node.hops().iter().map(|hop| hop.step.name()).collect()
}

fn message(to: &str, id: &str) -> String {
    format!("<message type='chat' to='{to}' id='{id}'><body>hush</body></message>")
}

/// Two names that live on different shards of two.
fn apart(node: &Node) -> (&'static str, &'static str) {
    let names = ["alice", "bob", "carol", "dave", "erin", "frank"];
    let other = names.iter().find(|name| node.owner(name) != node.owner("alice"));
    ("alice", other.unwrap())
}

#[test]
fn a_message_on_one_shard_is_told_from_its_read_to_its_write() {
    let mut node = Node::new(1);
    node.users(&["alice", "bob", "carol"]);
    let (alice, bob) = (node.online("alice", "a"), node.online("bob", "b"));
    let carol = node.online("carol", "c");
    node.watch(0, "alice@here");
    node.send(alice, &message("bob@here", "m1"));
    tells(
        &mut node,
        &[
            "received message m1 alice@here/a > bob@here",
            "routed message m1 alice@here/a > bob@here to this shard",
            "delivered message m1 alice@here/a > bob@here to bob@here/b",
            "written message m1 alice@here/a > bob@here to bob@here/b",
        ],
    );
    node.send(bob, &message("alice@here/a", "m2"));
    assert_eq!(steps(&mut node), ["received", "routed", "delivered", "written"]);
    node.send(bob, &message("carol@here", "m3"));
    assert_eq!(steps(&mut node), [""; 0], "they are no affair of hers");
    assert!(node.read(carol).contains("hush"));
}

#[test]
fn a_message_between_shards_is_one_stanza_on_both() {
    let mut node = Node::new(2);
    let (one, other) = apart(&node);
    node.users(&[one, other]);
    let (sender, _recipient) = (node.online(one, "a"), node.online(other, "b"));
    let (from, to) = (node.owner(one), node.owner(other));
    // Only the recipient's address: the sender's shard knows it, too.
    node.watch(3, &format!("{other}@here"));
    node.send(sender, &message(&format!("{other}@here"), "m1"));
    let mut hops = node.hops();
    hops.sort_by_key(|hop| usize::from(hop.shard) != from);
    let lines = told(&hops);
    let start = format!("message m1 {one}@here/a > {other}@here");
    let expected = [
        format!("received {start}"),
        format!("crossing {start} to shard {to}"),
        format!("arrived {start} from shard {from}"),
        format!("delivered {start} to {other}@here/b"),
        format!("written {start} to {other}@here/b"),
    ];
    assert_eq!(lines, expected);
    let shards: Vec<usize> = hops.iter().map(|hop| hop.shard.into()).collect();
    assert_eq!(shards, [from, from, to, to, to]);
    assert!(hops.iter().all(|hop| hop.stanza == hops[0].stanza), "{hops:?}");
}

#[test]
fn no_text_of_a_stanza_is_told() {
    let mut node = Node::new(2);
    let (one, other) = apart(&node);
    node.users(&[one, other]);
    let (sender, _recipient) = (node.online(one, "a"), node.online_acked(other, "b"));
    node.watch(0, &format!("{one}@here"));
    let to = format!("{other}@here");
    node.send(
        sender,
        &format!(
            "<message to='{to}' id='m1'><subject>hush</subject><body>hush</body>\
             <x xmlns='urn:hush' mark='hush'><hush/></x></message>\
             <iq type='set' id='q1'><query xmlns='jabber:iq:private'>\
             <notes xmlns='urn:hush'>hush</notes></query></iq>\
             <presence><status>hush</status></presence>"
        ),
    );
    let hops = node.hops();
    assert!(hops.len() > 8, "{hops:?}");
    assert!(!format!("{hops:?}").contains("hush"), "{hops:?}");
    let received = hops.iter().find(|hop| hop.about.id.as_deref() == Some("m1")).unwrap();
    assert_eq!(received.about.children, ["subject", "body", "x"]);
}

#[test]
fn an_offline_message_is_told_until_it_is_durable_and_again_when_it_goes_out() {
    let mut node = Node::new(1);
    node.users(&["alice", "bob"]);
    let (alice, _) = node.online_acked("alice", "a");
    node.watch(0, "bob@here");
    node.hold_store();
    node.send(alice, &message("bob@here", "m1"));
    let start = "message m1 alice@here/a > bob@here";
    let (waiting, routed) = (
        format!("waiting {start} until its account is read"),
        format!("routed {start} to this shard"),
    );
    tells(&mut node, &[&format!("received {start}"), &routed, &waiting]);
    node.free_store();
    let lines = told(&node.hops());
    let last = lines.len() - 2;
    assert_eq!(lines[0], format!("arrived {start} after it waited"));
    assert_eq!(lines[last], format!("offline {start} no session takes it"));
    assert_eq!(lines[last + 1], format!("stored {start} durable"));
    node.online("bob", "b");
    let lines = told(&node.hops());
    let m1: Vec<&String> = lines.iter().filter(|line| line.contains(" m1 ")).collect();
    assert_eq!(m1.len(), 3, "{lines:?}");
    assert_eq!(*m1[0], format!("replayed {start} from the log"));
    assert_eq!(*m1[1], format!("delivered {start} to bob@here/b"));
    assert_eq!(*m1[2], format!("written {start} to bob@here/b"));
}

#[test]
fn a_refusal_is_told_with_its_condition_and_its_way_back() {
    let mut node = Node::new(2);
    let (one, other) = apart(&node);
    node.users(&[one, other]);
    let (sender, _) = (node.online(one, "a"), node.online(other, "b"));
    node.watch(0, &format!("{one}@here"));
    let to = format!("{other}@here/nowhere");
    node.send(
        sender,
        &format!("<message type='normal' to='{to}' id='m1'><body>x</body></message>"),
    );
    let mut hops = node.hops();
    let from = node.owner(one);
    let refused = hops.iter().find(|hop| hop.step.name() == "refused").unwrap();
    assert_eq!(
        (usize::from(refused.shard), refused.detail.as_str()),
        (node.owner(other), "service-unavailable")
    );
    hops.retain(|hop| usize::from(hop.shard) == from);
    let steps: Vec<&str> = hops.iter().map(|hop| hop.step.name()).collect();
    assert_eq!(steps, ["received", "crossing", "arrived", "delivered", "written"]);
    let error = &hops[3].about;
    assert_eq!(error.condition.map(|one| one.name()), Some("service-unavailable"));
    assert_eq!((error.type_, hops[3].stanza), (Some("error"), hops[0].stanza));
    // Refused where it came in.
    node.send(sender, "<message to='a@else.org' id='m2'><body>x</body></message>");
    let lines = told(&node.hops());
    assert_eq!(
        lines[1],
        format!("refused message m2 {one}@here/a > a@else.org remote-server-not-found")
    );
    node.send(sender, "<message to='@' id='m3'><body>x</body></message>");
    let lines = told(&node.hops());
    assert_eq!(lines[1], format!("refused message m3 {one}@here/a > @ jid-malformed"));
}

#[test]
fn an_id_is_watched_whoever_sends_it() {
    let mut node = Node::new(1);
    node.users(&["alice", "bob"]);
    let (alice, bob) = (node.online("alice", "a"), node.online("bob", "b"));
    let id = node.watch_id(0, "m1");
    node.send(alice, &message("bob@here", "m1"));
    node.send(bob, &message("alice@here", "m1"));
    node.send(alice, &message("bob@here", "m2"));
    let hops = node.hops();
    assert_eq!(hops.len(), 8, "{hops:?}");
    assert_ne!(hops[0].stanza, hops[4].stanza);
    assert_eq!(node.end_watch(id), 0);
    node.send(alice, &message("bob@here", "m1"));
    tells(&mut node, &[]);
}

#[test]
fn a_resource_is_watched_alone() {
    let mut node = Node::new(1);
    node.users(&["alice", "bob"]);
    let (alice, phone) = (node.online("alice", "a"), node.online("bob", "phone"));
    let _pc = node.online("bob", "pc");
    node.read(phone);
    node.watch(0, "bob@here/phone");
    node.send(alice, &message("bob@here/pc", "m1"));
    tells(&mut node, &[]);
    node.send(alice, &message("bob@here", "m2"));
    tells(
        &mut node,
        &[
            "delivered message m2 alice@here/a > bob@here to bob@here/phone",
            "written message m2 alice@here/a > bob@here to bob@here/phone",
        ],
    );
}

#[test]
fn two_watches_are_told_of_one_stanza() {
    let mut node = Node::new(1);
    node.users(&["alice", "bob"]);
    let (alice, _bob) = (node.online("alice", "a"), node.online("bob", "b"));
    let (first, second) = (node.watch(0, "alice@here"), node.watch(1, "bob@here"));
    node.send(alice, &message("bob@here", "m1"));
    let hops = node.hops();
    let of = |id| hops.iter().filter(move |hop| hop.watch == id).map(|hop| hop.step.name());
    assert_eq!(of(first).collect::<Vec<_>>(), of(second).collect::<Vec<_>>());
    assert_eq!(hops.len(), 8);
    node.end_watch(first);
    node.send(alice, &message("bob@here", "m2"));
    assert!(node.hops().iter().all(|hop| hop.watch == second));
}

#[test]
fn a_client_that_sleeps_is_told_and_what_it_gets_when_it_resumes() {
    let mut node = Node::new(1);
    node.users(&["alice", "bob"]);
    let alice = node.online("alice", "a");
    let (bob, id) = node.online_acked("bob", "b");
    node.cut(bob);
    node.watch(0, "bob@here");
    node.send(alice, &message("bob@here", "m1"));
    let lines = told(&node.hops());
    let start = "message m1 alice@here/a > bob@here";
    assert!(lines.contains(&format!("queued {start} until bob@here/b resumes")), "{lines:?}");
    let bob = node.authenticate(0, "bob");
    node.send(bob, &format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='1'/>"));
    assert!(node.read(bob).contains("hush"));
    tells(
        &mut node,
        &[
            &format!("delivered {start} to bob@here/b again"),
            &format!("written {start} to bob@here/b"),
        ],
    );
    node.send(bob, "<a xmlns='urn:xmpp:sm:3' h='2'/>");
    tells(&mut node, &[&format!("acknowledged {start} by bob@here/b")]);
}

#[test]
fn what_is_held_for_an_inactive_client_is_told_when_it_is_and_when_it_goes_out() {
    let mut node = Node::new(1);
    node.users(&["alice", "bob"]);
    let (alice, bob) = (node.online("alice", "a"), node.online("bob", "b"));
    node.send(bob, "<inactive xmlns='urn:xmpp:csi:0'/>");
    node.watch(0, "alice@here");
    node.send(
        alice,
        "<message type='chat' to='bob@here' id='m1'>\
         <composing xmlns='http://jabber.org/protocol/chatstates'/></message>",
    );
    let start = "message m1 alice@here/a > bob@here";
    let lines = told(&node.hops());
    assert_eq!(lines[2..], [format!("held {start} while bob@here/b is inactive")]);
    node.send(bob, "<active xmlns='urn:xmpp:csi:0'/>");
    tells(
        &mut node,
        &[&format!("delivered {start} to bob@here/b"), &format!("written {start} to bob@here/b")],
    );
}

#[test]
fn what_a_slow_reader_did_not_take_is_written_later() {
    let mut node = Node::new(1);
    node.users(&["alice", "bob"]);
    let (alice, bob) = (node.online("alice", "a"), node.online("bob", "b"));
    node.stop_reading(bob);
    node.watch(0, "bob@here");
    node.send(alice, &message("bob@here", "m1"));
    assert_eq!(steps(&mut node), ["received", "routed", "delivered"]);
    node.send(alice, "<presence/>");
    assert_eq!(steps(&mut node), [""; 0]);
    node.read_on(bob);
    assert_eq!(steps(&mut node), ["written"]);
}

#[test]
fn presence_for_many_is_told_for_the_one_who_is_watched() {
    let mut node = Node::new(2);
    let (one, other) = apart(&node);
    node.users(&[one, other]);
    let (first, second) = (node.online(one, "a"), node.online(other, "b"));
    crate::iq::befriend(&mut node, first, second, [one, other]);
    node.watch(0, &format!("{other}@here"));
    node.send(first, "<presence><status>hush</status></presence>");
    let lines = told(&node.hops());
    let start = format!("presence - {one}@here/a > {other}@here");
    let from = node.owner(one);
    assert_eq!(
        lines,
        [
            format!("arrived {start} from shard {from}"),
            format!("delivered {start} to {other}@here/b"),
            format!("written {start} to {other}@here/b"),
        ]
    );
}

#[test]
fn a_component_is_watched_by_its_domain() {
    let mut node = Node::with(1, |config| config.components = [access("bot.here")].into());
    node.users(&["alice"]);
    let alice = node.online("alice", "a");
    let bot = node.component(0, "bot.here");
    node.watch(0, "bot.here");
    node.send(alice, &message("bot.here", "m1"));
    let start = "message m1 alice@here/a > bot.here";
    tells(
        &mut node,
        &[
            &format!("received {start}"),
            &format!("routed {start} to this shard"),
            &format!("delivered {start} to the component"),
            &format!("written {start} to the component"),
        ],
    );
    node.send(bot, "<message from='bot.here' to='alice@here' id='m2'><body>x</body></message>");
    assert_eq!(steps(&mut node), ["received", "routed", "delivered", "written"]);
    node.send(bot, "<message from='bot.here' to='@' id='m3'><body>x</body></message>");
    let lines = told(&node.hops());
    assert_eq!(lines[0], "received message m3 bot.here > @", "{lines:?}");
    assert_eq!(lines[1], "refused message m3 bot.here > @ jid-malformed");
}

#[test]
fn what_is_too_much_is_counted() {
    let mut node = Node::new(1);
    node.users(&["alice", "bob"]);
    let (alice, _bob) = (node.online("alice", "a"), node.online("bob", "b"));
    let id = node.watch(0, "alice@here");
    for _ in 0..100 {
        node.send(alice, &message("bob@here", "m1"));
    }
    let hops = node.hops();
    assert_eq!(hops.len() as u32, corefire::shard::HOPS_PER_S);
    assert!(hops.len() as u64 + node.end_watch(id) >= 300, "what was left out is counted");
}
