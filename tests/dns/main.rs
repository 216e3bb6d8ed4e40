//! Look-ups against a real DNS server, knot from Debian, with zones that the test writes: on loopback, in a folder of its own.
//! Where it is not installed the tests say so and are over; in CI they fail.

#![expect(clippy::unwrap_used, reason = "tests")]

mod knot;

use corefire::federation::discovery::{Failure, Plan, Problem, Routes, Tlsa};
use corefire::runtime::federation::dns::{Dns, DnsSettings, Dnssec};
use knot::Knot;
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

const TLSA: &str = "3 1 1 07070707070707070707070707070707070707070707070707070707070707ff";

fn dns(knot: &Knot, anchor: Option<PathBuf>) -> Dns {
    Dns::start(DnsSettings {
        servers: vec![knot.address],
        routes: Arc::new(Routes::default()),
        local_addresses: true,
        dnssec: anchor.map(Dnssec::File),
        ..DnsSettings::default()
    })
    .unwrap()
}

fn find(dns: &Dns, domain: &str) -> Result<Arc<Plan>, Problem> {
    let (sender, receiver) = channel();
    dns.resolve(domain.into(), move |outcome, _| sender.send(outcome).unwrap());
    receiver.recv_timeout(Duration::from_secs(30)).expect("an answer, always")
}

fn targets(plan: &Plan) -> Vec<String> {
    plan.targets.iter().map(ToString::to_string).collect()
}

#[test]
fn services_are_found_through_priorities_aliases_and_both_families() {
    let Some(knot) = Knot::start(&[(
        "a.example",
        "_xmpps-server._tcp SRV 20 0 5270 x\n\
         _xmpp-server._tcp SRV 10 0 5269 y\n\
         _xmpp-server._tcp SRV 30 0 5269 gone\n\
         x A 127.0.0.2\nx AAAA ::1\ny CNAME z\nz A 127.0.0.3\n\
         _xmpp-server._tcp.hosted CNAME _xmpp-server._tcp\n\
         plain A 127.0.0.4\n\
         none A 127.0.0.5\n_xmpp-server._tcp.none SRV 0 0 0 .\n\
         xn--mnchen-3ya A 127.0.0.6\n\
         one CNAME two\ntwo CNAME one\n_xmpp-server._tcp.loop SRV 0 0 5269 one\n",
    )]) else {
        return;
    };
    let dns = dns(&knot, None);
    let plan = find(&dns, "a.example").unwrap();
    let expected = ["y.a.example:5269 (STARTTLS)", "x.a.example:5270 (direct TLS)"];
    assert_eq!(targets(&plan), expected);
    assert_eq!(plan.targets[1].addresses.len(), 2);
    assert!(plan.targets[1].addresses[0].is_ipv6());
    let hosted = find(&dns, "hosted.a.example").unwrap();
    assert_eq!(targets(&hosted), ["y.a.example:5269 (STARTTLS)"]);
    let plain = find(&dns, "plain.a.example").unwrap();
    assert_eq!(targets(&plain), ["plain.a.example:5269 (STARTTLS)"]);
    let munich = find(&dns, "m\u{fc}nchen.a.example").unwrap();
    assert_eq!(munich.server_name.as_deref(), Some("xn--mnchen-3ya.a.example"));
    assert!(matches!(find(&dns, "none.a.example"), Err(Problem::NotOffered { ttl_s: 60 })));
    assert!(matches!(find(&dns, "nobody.a.example"), Err(Problem::NoSuchDomain { ttl_s: 60 })));
    let circle = find(&dns, "loop.a.example").unwrap_err();
    assert!(matches!(circle, Problem::Unanswered { why: Failure::Aliases, .. }), "{circle}");
    // A zone that it does not have.
    let refused = find(&dns, "b.example").unwrap_err();
    assert!(matches!(refused, Problem::Unanswered { why: Failure::Refused, .. }), "{refused}");
}

#[test]
fn a_thousand_targets_come_over_tcp_and_are_cut() {
    let mut zone = String::from("x A 127.0.0.2\n");
    for number in 0..1_000 {
        writeln!(zone, "_xmpp-server._tcp SRV {number} 0 {} x", 1_000 + number).unwrap();
    }
    let Some(knot) = Knot::start(&[("a.example", &zone)]) else { return };
    let plan = find(&dns(&knot, None), "a.example").unwrap();
    let ports: Vec<u16> = plan.targets.iter().map(|target| target.port).collect();
    assert_eq!(ports, (1_000..1_016).collect::<Vec<u16>>());
}

fn signed() -> String {
    format!(
        "_xmpp-server._tcp SRV 10 0 5269 x\n\
         _xmpp-server._tcp SRV 20 0 5269 y\n\
         x A 127.0.0.2\n_5269._tcp.x TLSA {TLSA}\n\
         y A 127.0.0.3\n\
         plain A 127.0.0.4\n"
    )
}

fn tlsa() -> Tlsa {
    let mut data = vec![7; 32];
    data[31] = 0xff;
    Tlsa { usage: 3, selector: 1, matching: 1, data }
}

/// RFC 7673: TLSA records count where DNSSEC proves the SRV record, the address and themselves.
#[test]
fn tlsa_records_of_a_signed_zone_count() {
    let zone = signed();
    let Some(knot) = Knot::start(&[("+a.example", &zone), ("b.example", &zone)]) else { return };
    let checked = dns(&knot, Some(knot.anchor("a.example")));
    let plan = find(&checked, "a.example").unwrap();
    assert_eq!(targets(&plan), ["x.a.example:5269 (STARTTLS)", "y.a.example:5269 (STARTTLS)"]);
    assert_eq!((&plan.targets[0].tlsa, &plan.targets[1].tlsa), (&vec![tlsa()], &Vec::new()));
    // Names that are not there have a proof as well.
    let plain = find(&checked, "plain.a.example").unwrap();
    assert_eq!(targets(&plain), ["plain.a.example:5269 (STARTTLS)"]);
    assert!(matches!(find(&checked, "nobody.a.example"), Err(Problem::NoSuchDomain { .. })));
    // Unchecked they say nothing.
    let plan = find(&dns(&knot, None), "a.example").unwrap();
    assert!(plan.targets.iter().all(|target| target.tlsa.is_empty()));
}

/// Zones that no anchor is above are as they are without DNSSEC, also behind an alias from a signed one.
#[test]
fn zones_without_an_anchor_are_found_and_prove_nothing() {
    let zone = signed();
    let alias = "_xmpp-server._tcp CNAME _xmpp-server._tcp.b.example.\n";
    let zones = [("+a.example", alias), ("b.example", &zone), ("+c.example", &zone)];
    let Some(knot) = Knot::start(&zones) else { return };
    let checked = dns(&knot, Some(knot.anchor("a.example")));
    for (domain, host) in [("a.example", "b"), ("b.example", "b"), ("c.example", "c")] {
        let plan = find(&checked, domain).unwrap();
        assert_eq!(targets(&plan)[0], format!("x.{host}.example:5269 (STARTTLS)"));
        assert!(plan.targets.iter().all(|target| target.tlsa.is_empty()), "{domain}");
    }
}

#[track_caller]
fn is_bogus(outcome: Result<Arc<Plan>, Problem>) {
    let problem = outcome.unwrap_err();
    assert!(matches!(problem, Problem::Unanswered { why: Failure::Bogus, .. }), "{problem}");
    assert!(!problem.is_lasting());
}

/// A key that is not the zone's: as if somebody else had signed it.
#[test]
fn answers_that_the_anchor_does_not_vouch_for_are_no_answers() {
    let zone = signed();
    let Some(knot) = Knot::start(&[("+a.example", &zone), ("+b.example", &zone)]) else { return };
    let text = std::fs::read_to_string(knot.anchor("b.example")).unwrap();
    let forged = knot.folder().join("forged");
    std::fs::write(&forged, text.replace("b.example.", "a.example.")).unwrap();
    let checked = dns(&knot, Some(forged));
    is_bogus(find(&checked, "a.example"));
    is_bogus(find(&checked, "nobody.a.example"));
}

/// Who stands between us and the servers may leave the signatures out, and change what they were for.
#[test]
fn answers_without_their_signatures_are_no_answers() {
    let zone = signed();
    let Some(knot) = Knot::start(&[("+a.example", &zone)]) else { return };
    let Some(liar) = Knot::start(&[("a.example", "x A 127.0.0.2\n")]) else { return };
    let checked = dns(&liar, Some(knot.anchor("a.example")));
    is_bogus(find(&checked, "a.example"));
    is_bogus(find(&checked, "x.a.example"));
}
