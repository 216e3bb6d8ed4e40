//! Two nodes that talk with each other: each on a loopback address of its own, found by routes.

mod certified;
mod dialback;
mod operator;
mod posh;
mod trouble;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::client::{Client, STARTTLS};
use crate::node::{Node, Place};

/// Longer than anything here takes, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server: its domain, its address, and where its files are.
struct Side {
    place: Place,
    domain: &'static str,
    address: Ipv4Addr,
}

/// Addresses for the servers of one test, which nobody else uses: a port there is free.
fn addresses<const N: usize>() -> [Ipv4Addr; N] {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let pid = std::process::id();
    let block = TAKEN.fetch_add(1, Ordering::Relaxed);
    let octet = |number: u32| u8::try_from(number & 0xff).unwrap();
    let (high, low) = (octet(64 + pid % 64), octet((pid / 64) % 64 * 4 + block / 16 % 4));
    std::array::from_fn(|at| {
        Ipv4Addr::new(127, high, low, octet(block % 16 * 15 + 1 + u32::try_from(at).unwrap()))
    })
}

impl Side {
    fn new(domain: &'static str, address: Ipv4Addr) -> Side {
        let place = Place::new()
            .set(&format!("domains=[\"{domain}\"]"))
            .set("federation.enabled=true")
            .set(&format!("federation.listen=[\"{address}:5269\"]"))
            .set(&format!("federation.direct_tls_listen=[\"{address}:5270\"]"))
            .set("federation.limits.retry_last_s=1");
        Side { place, domain, address }
    }

    fn set(mut self, setting: &str) -> Side {
        self.place.add(setting);
        self
    }

    /// Where the others find it.
    fn route(&self) -> String {
        format!("{}:5269", self.address)
    }

    fn knows(mut self, domain: &str, route: &str) -> Side {
        self.place.add(&format!("federation.routes.\"{domain}\"={route}"));
        self
    }

    fn add_user(&self, name: &str) {
        let jid = format!("{name}@{}", self.domain);
        self.place.run(&["user", "add", &jid, "--password", "secret"]);
    }

    fn start(&self) -> Node {
        self.place.start()
    }

    /// A session at the resource `r` that is available, with acknowledgements (XEP-0198).
    #[track_caller]
    fn log_in(&self, node: &Node, user: &str) -> Client {
        let mut client = Client::connect(node.plain);
        client.open_at(self.domain);
        client.send(STARTTLS);
        client.expect("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
        // Who the node is for its clients is no matter here.
        client.try_shake_hands(self.domain, trusting_anybody()).unwrap();
        client.open_at(self.domain);
        client.authenticate(user, "secret");
        client.expect("<success");
        client.open_at(self.domain);
        client.send(
            "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>r</resource></bind></iq>",
        );
        client.expect("</jid>");
        client.expect("</iq>");
        client.send("<enable xmlns='urn:xmpp:sm:3'/>");
        client.expect("<enabled ");
        client.send("<presence/>");
        client.expect(&format!("<presence from='{user}@{}/r'", self.domain));
        client
    }

    /// The line of `corefire federation list` about a domain.
    #[track_caller]
    fn listed(&self, domain: &str) -> serde_json::Value {
        let text = self.place.run(&["federation", "list", "--json"]);
        let mut lines =
            text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines.find(|line| line["domain"] == domain).unwrap_or_else(|| panic!("{domain}: {text}"))
    }
}

/// A client of ours that takes any certificate.
fn trusting_anybody() -> rustls::ClientConfig {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let any = corefire::runtime::federation::certificates::AnyPeer::new(&provider);
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(any)
        .with_no_client_auth()
}

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

impl Side {
    /// Has the node show a certificate for `name`, signed by `by` or by itself.
    fn certified(
        mut self,
        name: &str,
        by: Option<&Authority>,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Side {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        change(&mut params);
        let made = match by {
            Some(by) => params.signed_by(&key, by).unwrap(),
            None => params.self_signed(&key).unwrap(),
        };
        std::fs::write(self.place.path("own.pem"), made.pem()).unwrap();
        std::fs::write(self.place.path("own.key"), key.serialize_pem()).unwrap();
        self.place.add("tls.certificate=own.pem");
        self.place.add("tls.key=own.key");
        self
    }

    /// Takes what that authority has signed.
    fn trusting(mut self, authority: &Authority) -> Side {
        std::fs::write(self.place.path("peers.pem"), authority.pem()).unwrap();
        self.place.add("federation.ca_file=peers.pem");
        self
    }
}

/// Two servers that know each other, `alpha.test` and `beta.test`, before they start.
fn pair(change: impl Fn(Side) -> Side) -> [Side; 2] {
    let [one, other] = addresses();
    let (alpha, beta) = (Side::new("alpha.test", one), Side::new("beta.test", other));
    let (to_alpha, to_beta) = (alpha.route(), beta.route());
    [change(alpha.knows("beta.test", &to_beta)), change(beta.knows("alpha.test", &to_alpha))]
}

/// As `pair`, started, with alice online at the first and bob at the second.
#[track_caller]
fn met(change: impl Fn(Side) -> Side) -> ([Side; 2], [Node; 2], [Client; 2]) {
    let [alpha, beta] = pair(change);
    alpha.add_user("alice");
    beta.add_user("bob");
    let (one, other) = (alpha.start(), beta.start());
    let alice = alpha.log_in(&one, "alice");
    let bob = beta.log_in(&other, "bob");
    ([alpha, beta], [one, other], [alice, bob])
}

/// The one writes to the other and is answered.
#[track_caller]
fn they_chat(one: (&mut Client, &str), other: (&mut Client, &str), text: &str) {
    let ((one, one_is), (other, other_is)) = (one, other);
    one.send(&format!(
        "<message to='{other_is}' type='chat' id='{text}'><body>{text}</body></message>"
    ));
    let message = other.expect(&format!("<body>{text}</body>"));
    assert!(message.contains(&format!("from='{one_is}/r'")), "{message}");
    assert!(!message.contains("jabber:server"), "{message}");
    other.expect("</message>");
    other.send(&format!("<message to='{one_is}/r' type='chat'><body>re: {text}</body></message>"));
    let message = one.expect(&format!("<body>re: {text}</body>"));
    assert!(message.contains(&format!("from='{other_is}/r'")), "{message}");
    one.expect("</message>");
}

/// Calls `look` until it is content.
#[track_caller]
fn wait_until(what: &str, mut look: impl FnMut() -> bool) {
    let began = Instant::now();
    while !look() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
