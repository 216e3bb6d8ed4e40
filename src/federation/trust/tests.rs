//! Certificates of others, made by the test.

use super::*;
use rcgen::{CertificateParams, DnType, KeyPair, SanType};
use x509_parser::error::X509Error;

const SRV: [u64; 9] = [1, 3, 6, 1, 5, 5, 7, 8, 7];
const XMPP: [u64; 9] = [1, 3, 6, 1, 5, 5, 7, 8, 5];

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

fn xmpp(address: &str) -> SanType {
    SanType::OtherName((XMPP.to_vec(), address.to_owned().into()))
}

/// rcgen writes UTF8String where an SRV-ID is an IA5String; the tag is changed in the bytes, which are signed by nobody here.
fn srv(name: &str) -> SanType {
    SanType::OtherName((SRV.to_vec(), name.to_owned().into()))
}

fn made(names: Vec<SanType>, common: &str) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.subject_alt_names = names;
    params.distinguished_name.push(DnType::CommonName, common);
    let mut der = params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
    // otherName of id-on-dnsSRV: OID, [0], UTF8String (0x0c) -> IA5String (0x16).
    let oid = [6, 8, 0x2b, 6, 1, 5, 5, 7, 8, 7];
    let places: Vec<usize> =
        (0..der.len() - oid.len()).filter(|at| der[*at..].starts_with(&oid)).collect();
    for at in places {
        let tag = at + oid.len() + 2;
        assert_eq!(der[tag], 0x0c, "a short UTF8String behind a tag and a length");
        der[tag] = 0x16;
    }
    der
}

fn read(der: &[u8]) -> Names {
    let (_, certificate) = <X509Certificate as FromDer<X509Error>>::from_der(der).unwrap();
    Names::of(&certificate)
}

fn names(names: Vec<SanType>) -> Names {
    read(&made(names, "common.example"))
}

/// RFC 6125 §6.4.1
#[test]
fn a_dns_name_speaks_for_itself_in_any_case() {
    let names = names(vec![dns("A.Example"), dns("other.example")]);
    assert_eq!(names.speak_for("a.example"), Some(By::Dns));
    for other in ["b.a.example", "example", "aa.example", "a.example.org", "a.exampl", ""] {
        assert_eq!(names.speak_for(other), None, "{other}");
    }
}

/// RFC 6125 §6.4.3, §7.2
#[test]
fn a_wildcard_stands_for_one_whole_left_most_label() {
    let names = names(vec![
        dns("*.a.example"),
        dns("b*.b.example"),
        dns("x.*.c.example"),
        dns("*.*.d.example"),
        dns("*.example"),
        dns("*"),
        dns("*.192.0.2"),
    ]);
    assert_eq!(names.speak_for("b.a.example"), Some(By::Wildcard));
    assert_eq!(names.speak_for("xn--mnchen-3ya.a.example"), Some(By::Wildcard));
    assert_eq!(names.speak_for("m\u{fc}nchen.a.example"), Some(By::Wildcard));
    for other in [
        "a.example",
        "c.b.a.example",
        "bb.b.example",
        "x.y.c.example",
        "x.y.d.example",
        "other.example",
        "localhost",
        "192.0.2.1",
    ] {
        assert_eq!(names.speak_for(other), None, "{other}");
    }
}

/// RFC 6125 §6.4.4 permits it as a last resort; RFC 9525 §2 no more.
#[test]
fn the_common_name_never_speaks() {
    assert_eq!(read(&made(Vec::new(), "a.example")).speak_for("a.example"), None);
    assert_eq!(read(&made(vec![dns("b.example")], "a.example")).speak_for("a.example"), None);
}

/// RFC 4985, RFC 6120 §13.7.1.2.1
#[test]
fn a_service_name_speaks_for_its_service_only() {
    let names = names(vec![
        srv("_xmpp-server.a.example"),
        srv("_XMPP-Server.B.example"),
        srv("_xmpp-client.c.example"),
        srv("_imap.d.example"),
        srv("xmpp-server.e.example"),
        srv("_xmpp-server.*.f.example"),
        srv("_xmpp-server."),
    ]);
    assert_eq!(names.speak_for("a.example"), Some(By::Service));
    assert_eq!(names.speak_for("b.example"), Some(By::Service));
    for other in ["c.example", "d.example", "e.example", "x.f.example", "_xmpp-server.a.example"] {
        assert_eq!(names.speak_for(other), None, "{other}");
    }
}

/// RFC 6120 §13.7.1.4
#[test]
fn an_xmpp_address_speaks_for_a_domain_if_it_is_one() {
    let names = names(vec![
        xmpp("A.example"),
        xmpp("m\u{fc}nchen.example"),
        xmpp("user@b.example"),
        xmpp("c.example/resource"),
        xmpp("@"),
    ]);
    assert_eq!(names.speak_for("a.example"), Some(By::XmppAddress));
    assert_eq!(names.speak_for("m\u{fc}nchen.example"), Some(By::XmppAddress));
    assert_eq!(names.speak_for("b.example"), None);
    assert_eq!(names.speak_for("c.example"), None);
}

#[test]
fn international_names_are_compared_as_a_labels() {
    let names =
        names(vec![dns("xn--mnchen-3ya.example"), srv("_xmpp-server.xn--bcher-kva.example")]);
    assert_eq!(names.speak_for("m\u{fc}nchen.example"), Some(By::Dns));
    assert_eq!(names.speak_for("b\u{fc}cher.example"), Some(By::Service));
    assert_eq!(names.speak_for("munchen.example"), None);
}

#[test]
fn an_address_speaks_for_a_domain_that_is_this_address_and_names_do_not() {
    let names = names(vec![
        SanType::IpAddress("192.0.2.1".parse().unwrap()),
        SanType::IpAddress("2001:db8::1".parse().unwrap()),
        dns("192.0.2.2"),
    ]);
    assert_eq!(names.speak_for("192.0.2.1"), Some(By::Ip));
    assert_eq!(names.speak_for("[2001:db8::1]"), Some(By::Ip));
    assert_eq!(names.speak_for("192.0.2.2"), None);
    assert_eq!(names.speak_for("[2001:db8::2]"), None);
}

/// A name with a NUL in it was once read up to there by others.
#[test]
fn names_with_odd_bytes_stand_for_nothing_else_and_are_told_escaped() {
    let names = names(vec![
        dns("a.example\0.evil"),
        dns("b.example\n\u{1b}[2J"),
        dns(" c.example"),
        dns("d.example."),
    ]);
    for domain in ["a.example", "b.example", "c.example", "d.example"] {
        assert_eq!(names.speak_for(domain), None, "{domain}");
    }
    let told = names.to_string();
    assert!(told.starts_with("a.example\\0.evil, b.example\\n\\u{1b}[2j"), "{told}");
}

#[test]
fn names_beyond_the_bound_are_not_read() {
    let many = |count: usize| (0..count).map(|n| dns(&format!("n{n}.example"))).collect();
    let names = names(many(NAMES_MAX + 1));
    assert_eq!(names.speak_for(&format!("n{}.example", NAMES_MAX - 1)), Some(By::Dns));
    assert_eq!(names.speak_for(&format!("n{NAMES_MAX}.example")), None);
    assert!(names.to_string().ends_with("and 504 more"), "{names}");
}

/// An authority that may sign only for some DNS names is not bound in the other kinds.
#[test]
fn kinds_in_which_authorities_cannot_be_bound_can_be_left_out() {
    let names = names(vec![dns("a.example"), srv("_xmpp-server.b.example"), xmpp("c.example")])
        .only_constrained_kinds();
    assert_eq!(names.speak_for("a.example"), Some(By::Dns));
    assert_eq!((names.speak_for("b.example"), names.speak_for("c.example")), (None, None));
}

fn certificate(chain: Result<(), ChainProblem>, dane: Dane) -> PeerCertificate {
    let names = names(vec![dns("a.example")]);
    PeerCertificate {
        chain,
        names,
        dane,
        digest: [0; 32],
        digest_512: [0; 64],
        key_digest: [0; 32],
        expires_s: 0,
    }
}

#[test]
fn a_certificate_speaks_where_chain_and_name_hold() {
    let good = certificate(Ok(()), Dane::Silent);
    assert_eq!(good.speaks_for("a.example"), Ok(By::Dns));
    let names = "a.example".to_owned();
    assert_eq!(good.speaks_for("b.example"), Err(Distrust::OtherNames { names }));
    let bad = certificate(Err(ChainProblem::SelfSigned), Dane::Silent);
    assert_eq!(bad.speaks_for("a.example"), Err(Distrust::Chain(ChainProblem::SelfSigned)));
}

/// RFC 7673 §4, RFC 7671 §5.1
#[test]
fn what_dane_says_stands_above_chain_and_name() {
    let unknown = || Err(ChainProblem::SelfSigned);
    let by = |chain, dane, domain| certificate(chain, dane).speaks_for(domain);
    assert_eq!(by(unknown(), Dane::Certificate, "b.example"), Ok(By::Dane));
    let (target, other) =
        (Dane::Authority { for_target: true }, Dane::Authority { for_target: false });
    assert_eq!(by(unknown(), target, "b.example"), Ok(By::Dane));
    assert_eq!(by(unknown(), other, "a.example"), Ok(By::Dns));
    assert!(matches!(by(unknown(), other, "b.example"), Err(Distrust::OtherNames { .. })));
    assert_eq!(by(Ok(()), Dane::Contradicts, "a.example"), Err(Distrust::Dane));
}

#[test]
fn problems_are_told_with_what_to_do() {
    let told = |problem: ChainProblem| problem.to_string();
    let expired = told(ChainProblem::Expired { at_s: 1_700_000_000, intermediate: false });
    assert_eq!(
        expired,
        "the certificate expired at 2023-11-14T22:13:20Z; its operator must renew it"
    );
    let early = told(ChainProblem::NotYetValid { from_s: i64::MAX, intermediate: true });
    assert!(
        early.starts_with("an intermediate certificate is good only from 9999-12-31T23:59:59Z")
    );
    assert!(told(ChainProblem::Expired { at_s: -1, intermediate: false }).contains("before 1970"));
    let issuer = "CN=\u{7}".to_owned() + &"x".repeat(5_000);
    let unknown = told(ChainProblem::UnknownIssuer { issuer });
    assert!(unknown.contains("(CN=\\u{7}xxx") && unknown.len() < 400, "{unknown}");
}
