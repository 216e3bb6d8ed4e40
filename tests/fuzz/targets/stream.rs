//! A whole client stream against one shard with a store in memory. The first byte chooses a scripted start (nothing, a
//! login, XEP-0198 as well) and the second how the rest is cut; the rest is what the client says.
//!
//! Promised: nothing panics, contained or not; what the shard writes and asks for is bounded by what it was told; when
//! the connection is gone and its session may no longer be resumed, nothing is left.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use corefire::base::instant::{Instant, Now, Wall};
use corefire::base::rng::Rng;
use corefire::cluster::placement::{Placement, ShardId};
use corefire::features;
use corefire::shard::errand::Outcome;
use corefire::shard::{Action, ConnId, Effects, Input, Limits, Shard, ShardConfig, StoreOutcome};
use corefire::store::memory::{MemoryReader, MemoryStore, MemoryWriter};
use corefire::store::{Reader as _, Write, Writer as _};
use corefire::stream::TlsFacts;
use corefire::stream::c2s::C2sPolicy;
use corefire::stream::sasl::{ITERATIONS_MIN, ScramHash, derive};
use corefire::xmpp::credentials::Credentials;
use corefire::xmpp::jid::BareJid;
use corefire::xmpp::xml::framer::XmlLimits;

const START: &str = "<stream:stream to='fuzz.example' version='1.0' xmlns='jabber:client' \
                     xmlns:stream='http://etherx.jabber.org/streams'>";
const AUTH: &str =
    "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AGEAcGVuY2ls</auth>";
const BIND: &str = "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>r</resource></bind></iq>";
const ENABLE: &str = "<enable xmlns='urn:xmpp:sm:3' resume='true'/>";

/// What one byte of a client may cost at most in output: an empty IQ of six bytes gets an error of some 200.
const OUTPUT_PER_BYTE: usize = 100;
const OUTPUT: usize = 16 << 10;

static CREDENTIALS: LazyLock<Credentials> = LazyLock::new(|| {
    let keys = |hash| derive("pencil", b"salt of the fuzz", ITERATIONS_MIN, hash);
    let sound = "bounds are kept";
    Credentials {
        sha1: keys(ScramHash::Sha1).expect(sound),
        sha256: keys(ScramHash::Sha256).expect(sound),
        sha512: Some(keys(ScramHash::Sha512).expect(sound).into()),
    }
});

struct Node {
    shard: Shard,
    fx: Effects,
    writer: MemoryWriter,
    reader: MemoryReader,
    now: u64,
    /// Bytes written, and things asked of the store.
    output: usize,
    asked: usize,
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
            limits_before: XmlLimits { stanza_bytes_max: 10_000, ..XmlLimits::default() },
            limits: XmlLimits { stanza_bytes_max: 20_000, ..XmlLimits::default() },
            ..C2sPolicy::new(
                "fuzz.example",
                features::stream_features(&features::Settings::default()),
            )
        };
        let limits = Limits {
            login_timeout: Duration::from_secs(10),
            silence: Duration::from_secs(30),
            login_attempts: 3,
            output_bytes: 1 << 20,
            resources_per_account: 3,
            roster_items: 5,
            roster_groups: 3,
            directed_presence: 5,
            offline_messages: 10,
            resume: Duration::from_secs(10),
            resume_queue: 50,
            pending_stanzas: 5,
            accounts: 10,
            open_iqs: 5,
            ..Limits::default()
        };
        let config = ShardConfig {
            scram_iterations: ITERATIONS_MIN,
            incarnation,
            ..ShardConfig::new(policy, limits)
        };
        let placement = Arc::new(Placement::single(1));
        let (rng, now) = (Rng::from_u64(1), Now::default());
        let shard = Shard::new(ShardId(0), Arc::new(config), placement, features::all(), rng, now);
        let fx = Effects::new(1);
        Self { shard, fx, writer, reader: disk.reader(), now: 0, output: 0, asked: 0 }
    }

    fn clock(&self) -> Now {
        Now { mono: Instant(self.now * 1_000_000), wall: Wall(self.now * 1000) }
    }

    /// Hands over one input and does all that follows from it.
    fn take(&mut self, input: Input<'_>) {
        let now = self.clock();
        self.shard.handle(now, input, &mut self.fx);
        loop {
            self.shard.end_turn(now, &mut self.fx);
            if self.fx.is_empty() {
                return;
            }
            for conn in std::mem::take(&mut self.fx.dirty) {
                let length = self.shard.output(conn).map_or(0, |output| output.bytes.len());
                self.shard.output_left(conn, length);
                self.output += length;
            }
            for action in std::mem::take(&mut self.fx.actions) {
                self.act(now, action);
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

    fn act(&mut self, now: Now, action: Action) {
        match action {
            Action::StartTls(conn) => {
                let facts = TlsFacts::default();
                self.shard.handle(now, Input::Secured { conn, facts }, &mut self.fx);
            }
            Action::Close(conn) | Action::Abort(conn) => {
                let length = self.shard.output(conn).map_or(0, |output| output.bytes.len());
                self.output += length;
                self.shard.handle(now, Input::Closed { conn }, &mut self.fx);
            }
            Action::CheckPassword(check) => {
                let verdict = Some(check.known && check.password == "pencil");
                let input = Input::PasswordChecked { conn: check.conn, verdict };
                self.shard.handle(now, input, &mut self.fx);
            }
            Action::Administer { ticket, .. } => {
                let input = Input::Administered { ticket, outcome: Outcome::Busy };
                self.shard.handle(now, input, &mut self.fx);
            }
            Action::Move { .. } => panic!("there is one shard"),
            // There are no fronts.
            Action::GiveLeave { .. } | Action::TakeLeaveBack(_) | Action::FrontGoesOn(_) => {}
            Action::ReadAgain(_) => {}
        }
    }

    fn say(&mut self, conn: ConnId, bytes: &[u8]) {
        self.take(Input::Bytes { conn, bytes });
    }

    fn pass(&mut self, milliseconds: u64) {
        self.now += milliseconds;
        self.take(Input::Tick);
    }
}

pub fn stream(data: &[u8]) {
    let [script, cuts, said @ ..] = data else { return };
    let mut node = Node::new();
    let address = std::net::IpAddr::from([127, 0, 0, 1]);
    let conn = node.shard.accept(node.clock(), address, None);
    let enable = if script % 3 == 2 { ENABLE } else { "" };
    if script % 3 > 0 {
        node.say(conn, format!("{START}{AUTH}{START}{BIND}{enable}<presence/>").as_bytes());
        assert_eq!(node.shard.sessions(), 1, "the script logs in");
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
    assert!(node.asked <= 100 + said.len(), "{} requests for {}", node.asked, said.len());
    node.take(Input::Closed { conn });
    for _ in 0..30 {
        node.pass(1000);
    }
    assert_eq!(node.shard.probe().faults, 0, "a fault was contained");
    assert_eq!((node.shard.sessions(), node.shard.probe().connections), (0, 0), "left over");
}
