//! A whole component's stream (XEP-0114) against one shard with a store in memory, beside a client that is online. The
//! first byte chooses a scripted start (nothing, the handshake, a second connection and a message of the client as
//! well) and the second how the rest is cut; the rest is what the component says.
//!
//! Promised: nothing panics, contained or not; what the shard writes and asks for is bounded by what it was told; the
//! client reads only well-formed stanzas, from the component or its server; when all is over, nothing is left.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use corefire::base::instant::{Instant, Now, Wall};
use corefire::base::rng::Rng;
use corefire::cluster::placement::{Placement, ShardId};
use corefire::features;
use corefire::shard::{Action, ConnId, Effects, Input, Limits, Shard, ShardConfig, StoreOutcome};
use corefire::store::memory::{MemoryReader, MemoryStore, MemoryWriter};
use corefire::store::{Reader as _, Write, Writer as _};
use corefire::stream::c2s::C2sPolicy;
use corefire::stream::component::{ComponentAccess, Secret};
use corefire::stream::sasl::{ITERATIONS_MIN, new_credentials};
use corefire::xmpp::credentials::Credentials;
use corefire::xmpp::jid::{BareJid, Jid};
use corefire::xmpp::stanza::Stanza;
use corefire::xmpp::xml::framer::{Framer, Step, XmlLimits};
use corefire::xmpp::xml::reader::{Index, StreamContext, read};

const CLIENT: &str = "<stream:stream to='fuzz.example' version='1.0' xmlns='jabber:client' \
                      xmlns:stream='http://etherx.jabber.org/streams'>";
const AUTH: &str =
    "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AGEAcGVuY2ls</auth>";
const BIND: &str = "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>r</resource></bind></iq>";
const START: &str = "<stream:stream xmlns='jabber:component:accept' to='bot.example' \
                     xmlns:stream='http://etherx.jabber.org/streams'>";

/// What one byte of a component may cost at most in output, both to it and to the client.
const OUTPUT_PER_BYTE: usize = 200;
const OUTPUT: usize = 32 << 10;

static CREDENTIALS: LazyLock<Credentials> = LazyLock::new(|| {
    let salt = &mut |salt: &mut [u8]| salt.fill(7);
    new_credentials("pencil", ITERATIONS_MIN, salt).expect("a sound password")
});

struct Node {
    shard: Shard,
    fx: Effects,
    writer: MemoryWriter,
    reader: MemoryReader,
    now: u64,
    output: usize,
    asked: usize,
    /// What the client has received.
    client: Option<(ConnId, Vec<u8>)>,
    /// What the component has received last, for the handshake.
    last: Vec<u8>,
}

impl Node {
    fn new() -> Self {
        let disk = MemoryStore::new();
        let (mut writer, incarnation) = disk.open();
        for name in ["a@fuzz.example", "b@fuzz.example"] {
            let owner = BareJid::parse(name).expect("a sound address");
            let create = Write::CreateAccount { owner, credentials: CREDENTIALS.clone() };
            writer.commit(&[create]).expect("a store in memory");
        }
        let policy = C2sPolicy {
            tls_required: false,
            limits: XmlLimits { stanza_bytes_max: 20_000, ..XmlLimits::default() },
            ..C2sPolicy::new(
                "fuzz.example",
                features::stream_features(&features::Settings::default()),
            )
        };
        let limits = Limits {
            login_timeout: Duration::from_secs(10),
            silence: Duration::from_secs(30),
            output_bytes: 1 << 20,
            offline_messages: 10,
            pending_stanzas: 5,
            accounts: 10,
            component_connections: 2,
            component_open_iqs: 4,
            ..Limits::default()
        };
        let access =
            |domain: &str| ComponentAccess { domain: domain.into(), secret: Secret::new("s") };
        let config = ShardConfig {
            scram_iterations: ITERATIONS_MIN,
            incarnation,
            components: vec![access("bot.example"), access("other.example")],
            ..ShardConfig::new(policy, limits)
        };
        let placement = Arc::new(Placement::single(1));
        let (rng, now) = (Rng::from_u64(1), Now::default());
        let shard = Shard::new(ShardId(0), Arc::new(config), placement, features::all(), rng, now);
        Self {
            shard,
            fx: Effects::new(1),
            writer,
            reader: disk.reader(),
            now: 0,
            output: 0,
            asked: 0,
            client: None,
            last: Vec::new(),
        }
    }

    fn clock(&self) -> Now {
        Now { mono: Instant(self.now * 1_000_000), wall: Wall(self.now * 1000) }
    }

    fn flush(&mut self, conn: ConnId) {
        let Some(output) = self.shard.output(conn) else { return };
        let length = output.bytes.len();
        match &mut self.client {
            Some((client, received)) if *client == conn => received.extend_from_slice(output.bytes),
            _ => self.last = output.bytes.to_vec(),
        }
        self.shard.output_left(conn, length);
        self.output += length;
    }

    fn take(&mut self, input: Input<'_>) {
        let now = self.clock();
        self.shard.handle(now, input, &mut self.fx);
        loop {
            self.shard.end_turn(now, &mut self.fx);
            if self.fx.is_empty() {
                return;
            }
            for conn in std::mem::take(&mut self.fx.dirty) {
                self.flush(conn);
            }
            for action in std::mem::take(&mut self.fx.actions) {
                match action {
                    Action::Close(conn) | Action::Abort(conn) => {
                        self.flush(conn);
                        self.shard.handle(now, Input::Closed { conn }, &mut self.fx);
                    }
                    Action::CheckPassword(check) => {
                        let input =
                            Input::PasswordChecked { conn: check.conn, verdict: Some(true) };
                        self.shard.handle(now, input, &mut self.fx);
                    }
                    _ => {}
                }
            }
            for (ticket, write) in std::mem::take(&mut self.fx.writes) {
                self.asked += 1;
                let written = self.writer.commit(&[write]).expect("a store in memory");
                let written = written.into_iter().next().expect("an answer for each write");
                let outcome = StoreOutcome::Written(written);
                self.shard.handle(now, Input::Stored { ticket, outcome }, &mut self.fx);
            }
            for (ticket, query) in std::mem::take(&mut self.fx.queries) {
                self.asked += 1;
                let answer = self.reader.read(&query).expect("a store in memory");
                let outcome = StoreOutcome::Answer(answer);
                self.shard.handle(now, Input::Stored { ticket, outcome }, &mut self.fx);
            }
        }
    }

    fn say(&mut self, conn: ConnId, bytes: &[u8]) {
        self.take(Input::Bytes { conn, bytes });
    }

    fn pass(&mut self, milliseconds: u64) {
        self.now += milliseconds;
        self.take(Input::Tick);
    }

    fn component(&mut self, shakes_hands: bool) -> ConnId {
        let conn = self.shard.accept_component(self.clock(), [127, 0, 0, 1].into());
        if shakes_hands {
            self.say(conn, START.as_bytes());
            let header = String::from_utf8(std::mem::take(&mut self.last)).expect("UTF-8");
            let id = header.split(" id='").nth(1).and_then(|rest| rest.split('\'').next());
            let hash = Secret::new("s").handshake(id.expect("a stream id"));
            self.say(conn, format!("<handshake>{hash}</handshake>").as_bytes());
            assert_eq!(self.last, b"<handshake/>");
        }
        conn
    }

    /// Everything that the client got is an element of its stream, from whom it may be.
    fn judge_client(&mut self) {
        let Some((_, received)) = &self.client else { return };
        let (mut framer, mut index) = (Framer::new(), Index::default());
        let limits = XmlLimits { stanza_bytes_max: 1 << 20, ..XmlLimits::default() };
        let mut at = 0;
        while at < received.len() {
            match framer.next(&received[at..], &limits).expect("our own XML") {
                Step::More(_) => break,
                Step::Open(range) => at += range.end,
                Step::Close(end) => at += end,
                Step::Stanza(range) => {
                    let bytes = &received[at + range.start..at + range.end];
                    at += range.end;
                    read(bytes, &StreamContext::client(), &limits, &mut index)
                        .expect("our own XML");
                    let from = Stanza { bytes, index: &index }.from().map(|from| from.into_owned());
                    let domain =
                        from.map(|from| Jid::parse(&from).expect("an address").domain().to_owned());
                    let known = ["bot.example", "fuzz.example"];
                    assert!(
                        domain.is_none_or(|domain| known.contains(&&*domain)),
                        "a forged sender"
                    );
                }
            }
        }
    }
}

pub(crate) fn component(data: &[u8]) {
    let [script, cuts, said @ ..] = data else { return };
    let mut node = Node::new();
    let client = node.shard.accept(node.clock(), [127, 0, 0, 1].into(), None);
    node.client = Some((client, Vec::new()));
    node.say(client, format!("{CLIENT}{AUTH}{CLIENT}{BIND}<presence/>").as_bytes());
    assert_eq!(node.shard.sessions(), 1, "the script logs in");
    if let Some((_, received)) = &mut node.client {
        // Read as a stream of its own.
        *received = CLIENT.as_bytes().to_vec();
    }
    let second = (script % 3 == 2).then(|| node.component(true));
    let conn = node.component(script % 3 > 0);
    if second.is_some() {
        node.say(client, b"<message to='x@bot.example'><body>hi</body></message>");
    }
    let mut chance = u32::from(*cuts);
    let mut rest = said;
    while !rest.is_empty() {
        chance = chance.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let length = match cuts {
            0 => rest.len(),
            255 => 1,
            _ => 1 + (chance >> 16) as usize % rest.len().min(400),
        };
        let (piece, later) = rest.split_at(length);
        node.say(conn, piece);
        rest = later;
        if chance & 0xf00 == 0 {
            node.pass(u64::from(chance >> 20));
        }
    }
    let most = OUTPUT + OUTPUT_PER_BYTE * said.len();
    assert!(node.output <= most, "{} bytes out for {} in", node.output, said.len());
    assert!(node.asked <= 100 + 2 * said.len(), "{} requests for {}", node.asked, said.len());
    node.judge_client();
    for conn in [Some(conn), second, Some(client)].into_iter().flatten() {
        node.take(Input::Closed { conn });
    }
    for _ in 0..30 {
        node.pass(1000);
    }
    let probe = node.shard.probe();
    assert_eq!(probe.faults, 0, "a fault was contained");
    assert_eq!((probe.connections, probe.component_connections), (0, 0), "left over");
    assert_eq!(node.shard.sessions(), 0, "left over");
}
