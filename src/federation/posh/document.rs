//! The documents of POSH (RFC 7711): where a domain keeps its own, what is asked next, and which certificates they name. They
//! are a stranger's word: all of it is bounded.
//!
//! Fetching is left to `runtime`, with the check that the server of HTTPS is who it says; what follows, to the actor.

use crate::federation::discovery::{dns_name, literal};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::{Map, Number, Value};
use std::fmt;

/// Bytes of a document. A longer one is not read.
pub const DOCUMENT_BYTES_MAX: usize = 64 << 10;
/// Certificates that one document names. Those behind are as if they were not there.
pub const FINGERPRINTS_MAX: usize = 32;
/// Redirects of HTTP that are followed for one domain.
const REDIRECTS_MAX: usize = 3;
/// Bytes of an address that a document or redirect names.
const URL_BYTES_MAX: usize = 2_048;
/// A document is asked for again after so many seconds, though it may say that it is good for longer: a domain that moves
/// should not have to wait for the rest of a month.
const GOOD_S_MAX: u32 = 86_400;
/// Characters of what a problem tells for people.
const WORDS_MAX: usize = 300;
/// The port of HTTPS.
const PORT: u16 = 443;
/// For servers, whichever of the two opens the stream (RFC 7711 §3, RFC 7712 §5).
const PATH: &str = "/.well-known/posh/xmpp-server.json";

/// Where a document is, over HTTPS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// A-labels in lower case; no address.
    pub host: String,
    pub port: u16,
    /// The path with its query, as it stands in a request.
    pub target: String,
}

/// The certificates that a domain names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprints {
    list: Vec<Fingerprint>,
    /// For so many seconds after it was fetched, at least one.
    pub good_s: u32,
}

/// One certificate, by at least one digest of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Fingerprint {
    sha256: Option<[u8; 32]>,
    sha512: Option<[u8; 64]>,
}

/// Why POSH proves nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PoshProblem {
    /// So many documents are asked for that this one is not.
    Busy,
    /// The domain can have none: it is an address, or no name of the DNS.
    NoName,
    /// Its server of HTTPS could not be asked; in words.
    Unreachable(String),
    Timeout,
    /// There is none (404, 410).
    Absent,
    /// Another answer than a document or a redirect.
    Status(u16),
    /// Longer than `DOCUMENT_BYTES_MAX`.
    TooLong,
    /// It cannot be read; in words.
    Malformed(&'static str),
    /// It does not say that it is good for any time: then it is not.
    Expired,
    /// Redirects and references beyond those that are followed.
    TooFar,
    /// It names other certificates.
    OtherCertificate,
}

/// The way to the document of one domain.
#[derive(Debug)]
pub struct Lookup {
    url: Url,
    redirects: usize,
    /// Of the document that referred to this one.
    reference_s: Option<u32>,
}

/// What to do with an answer.
#[derive(Debug, PartialEq, Eq)]
pub enum LookupStep {
    /// Ask for `Lookup::url` once more, which is another one now.
    Ask,
    Done(Result<Fingerprints, PoshProblem>),
}

impl Lookup {
    /// - takes: the domain as JIDs are prepared
    pub fn begin(domain: &str) -> Result<Lookup, PoshProblem> {
        let name = literal(domain).is_none().then(|| dns_name(domain)).flatten();
        let host = name.ok_or(PoshProblem::NoName)?;
        let url = Url { host, port: PORT, target: PATH.to_owned() };
        Ok(Lookup { url, redirects: 0, reference_s: None })
    }

    /// What to ask for.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// - takes: the status of HTTP, the field `Location`, and the body, where the status is 200
    /// - source: RFC 7711 §3
    pub fn answered(&mut self, status: u16, location: Option<&str>, body: &[u8]) -> LookupStep {
        let outcome = match status {
            200 => self.document(body),
            301 | 302 | 303 | 307 | 308 => self.redirect(location).map(|()| None),
            404 | 410 => Err(PoshProblem::Absent),
            other => Err(PoshProblem::Status(other)),
        };
        match outcome {
            Ok(None) => LookupStep::Ask,
            Ok(Some(found)) => LookupStep::Done(Ok(found)),
            Err(problem) => LookupStep::Done(Err(problem)),
        }
    }

    fn redirect(&mut self, location: Option<&str>) -> Result<(), PoshProblem> {
        let location = location.ok_or(PoshProblem::Malformed("a redirect without a place"))?;
        if self.redirects == REDIRECTS_MAX {
            return Err(PoshProblem::TooFar);
        }
        self.redirects += 1;
        self.url = self.url.beside(location)?;
        Ok(())
    }

    fn document(&mut self, body: &[u8]) -> Result<Option<Fingerprints>, PoshProblem> {
        if body.len() > DOCUMENT_BYTES_MAX {
            return Err(PoshProblem::TooLong);
        }
        let document: Document = serde_json::from_slice(body)
            .map_err(|_| PoshProblem::Malformed("it is no document of POSH"))?;
        let mut good_s = document.expires.as_ref().map_or(0, seconds);
        if good_s == 0 {
            return Err(PoshProblem::Expired);
        }
        // The lower of the two counts.
        good_s = good_s.min(self.reference_s.unwrap_or(GOOD_S_MAX)).min(GOOD_S_MAX);
        if let Some(list) = document.fingerprints {
            let list = list.iter().take(FINGERPRINTS_MAX).filter_map(Fingerprint::read).collect();
            return Ok(Some(Fingerprints { list, good_s }));
        }
        let url = document.url.ok_or(PoshProblem::Malformed("it names no certificate"))?;
        if self.reference_s.is_some() {
            return Err(PoshProblem::TooFar);
        }
        self.reference_s = Some(good_s);
        self.url = Url::parse(&url)?;
        Ok(None)
    }
}

/// Both kinds; other members are ignored.
#[derive(Deserialize)]
struct Document {
    fingerprints: Option<Vec<Map<String, Value>>>,
    url: Option<String>,
    expires: Option<Number>,
}

/// Whole seconds; none where it is negative.
fn seconds(number: &Number) -> u32 {
    let whole = number.as_u64().or_else(|| {
        let float = number.as_f64().filter(|it| *it >= 0.0)?;
        // A float that is too large becomes the largest number.
        Some(float as u64)
    });
    whole.map_or(0, |it| u32::try_from(it).unwrap_or(u32::MAX))
}

impl Fingerprint {
    /// `None` where no digest of a kind that is known here can be read, or one of them is none.
    fn read(descriptor: &Map<String, Value>) -> Option<Fingerprint> {
        let mut found = Fingerprint::default();
        for (name, value) in descriptor {
            match name.as_str() {
                "sha-256" => found.sha256 = Some(digest(value)?),
                "sha-512" => found.sha512 = Some(digest(value)?),
                _ => {}
            }
        }
        (found != Fingerprint::default()).then_some(found)
    }
}

fn digest<const BYTES: usize>(value: &Value) -> Option<[u8; BYTES]> {
    BASE64.decode(value.as_str()?).ok()?.try_into().ok()
}

impl Fingerprints {
    /// Whether a certificate is among them: by all digests of it that are given and known here.
    ///
    /// - takes: its SHA-256 and SHA-512
    pub fn name(&self, sha256: &[u8; 32], sha512: &[u8; 64]) -> bool {
        self.list.iter().any(|one| {
            one.sha256.is_none_or(|it| it == *sha256) && one.sha512.is_none_or(|it| it == *sha512)
        })
    }
}

impl Url {
    /// - takes: `https://host[:port][/path][?query]`; a fragment is left out
    pub fn parse(text: &str) -> Result<Url, PoshProblem> {
        const MALFORMED: PoshProblem = PoshProblem::Malformed("it leads to a place that is none");
        if text.len() > URL_BYTES_MAX || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(MALFORMED);
        }
        let (scheme, rest) = text.split_once("://").ok_or(MALFORMED)?;
        if !scheme.eq_ignore_ascii_case("https") {
            return Err(PoshProblem::Malformed("it leads to a place without HTTPS"));
        }
        let rest = rest.split('#').next().unwrap_or(rest);
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host, port.parse().map_err(|_| MALFORMED)?),
            None => (authority, PORT),
        };
        let named = literal(host).is_none() && !host.contains('@') && port != 0;
        let host = named.then(|| dns_name(host)).flatten().ok_or(MALFORMED)?;
        let target = match target.starts_with('/') {
            true => target.to_owned(),
            false => format!("/{target}"),
        };
        Ok(Url { host, port, target })
    }

    /// Where a redirect leads from here: a whole address, or a path on the same server.
    fn beside(&self, location: &str) -> Result<Url, PoshProblem> {
        match location.starts_with('/') && !location.starts_with("//") {
            true => Url::parse(&format!("https://{}:{}{location}", self.host, self.port)),
            false => Url::parse(location),
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}", self.host)?;
        if self.port != PORT {
            write!(f, ":{}", self.port)?;
        }
        f.write_str(&self.target)
    }
}

impl PoshProblem {
    /// - takes: words, of which some may be a stranger's: they are cut, and without what a terminal would obey
    pub fn unreachable(why: &str) -> PoshProblem {
        let plain = why.chars().map(|it| if it.is_control() { '?' } else { it });
        PoshProblem::Unreachable(plain.take(WORDS_MAX).collect())
    }

    /// For how many seconds it is not asked again; `None`: it may be at once.
    pub fn good_s(&self) -> Option<u32> {
        match self {
            PoshProblem::Busy => None,
            // Another time the answer may be another.
            PoshProblem::Unreachable(_) | PoshProblem::Timeout | PoshProblem::Status(_) => Some(10),
            _ => Some(60),
        }
    }
}

impl fmt::Display for PoshProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PoshProblem::Busy => {
                f.write_str("too many documents of other domains are asked for right now")
            }
            PoshProblem::NoName => f.write_str("the domain has no name that HTTPS could prove"),
            PoshProblem::Unreachable(why) => {
                write!(f, "the domain's server of HTTPS cannot be asked: {why}")
            }
            PoshProblem::Timeout => {
                f.write_str("the domain's server of HTTPS gave no document in time")
            }
            PoshProblem::Absent => f.write_str("the domain has no document"),
            PoshProblem::Status(status) => {
                write!(f, "the domain's server of HTTPS answered {status}")
            }
            PoshProblem::TooLong => f.write_str("the document is longer than 64 KiB"),
            PoshProblem::Malformed(why) => write!(f, "the document cannot be used: {why}"),
            PoshProblem::Expired => f.write_str(
                "the document is good for no time (expires); its operator must say how long",
            ),
            PoshProblem::TooFar => {
                f.write_str("redirects or references lead further than they are followed")
            }
            PoshProblem::OtherCertificate => f.write_str(
                "the document names other certificates; its operator must put this one in it",
            ),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const OURS: [u8; 32] = [1; 32];
    const OURS_512: [u8; 64] = [2; 64];

    fn asked(domain: &str) -> Lookup {
        Lookup::begin(domain).unwrap()
    }

    fn of(text: &str) -> Result<Fingerprints, PoshProblem> {
        match asked("a.example").answered(200, None, text.as_bytes()) {
            LookupStep::Done(outcome) => outcome,
            LookupStep::Ask => panic!("{text} leads on"),
        }
    }

    fn document(descriptors: &str, expires: &str) -> String {
        format!(r#"{{"fingerprints":[{descriptors}],"expires":{expires}}}"#)
    }

    fn sha256(digest: [u8; 32]) -> String {
        format!(r#""sha-256":"{}""#, BASE64.encode(digest))
    }

    fn sha512(digest: [u8; 64]) -> String {
        format!(r#""sha-512":"{}""#, BASE64.encode(digest))
    }

    #[test]
    fn a_domain_is_asked_at_its_well_known_place() {
        let told = |domain: &str| Lookup::begin(domain).map(|it| it.url().to_string());
        let place = "/.well-known/posh/xmpp-server.json";
        assert_eq!(told("a.example"), Ok(format!("https://a.example{place}")));
        assert_eq!(
            told("m\u{fc}nchen.example"),
            Ok(format!("https://xn--mnchen-3ya.example{place}"))
        );
        assert_eq!(told("192.0.2.1"), Err(PoshProblem::NoName));
        assert_eq!(told("[2001:db8::1]"), Err(PoshProblem::NoName));
    }

    #[test]
    fn a_certificate_is_named_by_all_of_its_digests_that_are_known_here() {
        let (right, wrong) = (sha256(OURS), sha256([9; 32]));
        let (right_512, wrong_512) = (sha512(OURS_512), sha512([9; 64]));
        for (descriptors, expected) in [
            (format!("{{{right}}}"), true),
            (format!("{{{wrong}}}"), false),
            (format!("{{{right_512}}}"), true),
            (format!("{{{wrong_512}}}"), false),
            (format!("{{{right},{right_512}}}"), true),
            (format!("{{{right},{wrong_512}}}"), false),
            (format!("{{{wrong}}},{{{right}}}"), true),
            (format!("{{{right},\"sha-1\":\"AAAA\"}}"), true),
            ("{\"md5\":\"AAAA\"}".to_owned(), false),
            ("{\"sha-256\":\"AAAA\"}".to_owned(), false),
            ("{\"sha-256\":5}".to_owned(), false),
            ("{}".to_owned(), false),
            (String::new(), false),
        ] {
            let found = of(&document(&descriptors, "60")).unwrap();
            assert_eq!(found.name(&OURS, &OURS_512), expected, "{descriptors}");
        }
    }

    #[test]
    fn what_is_behind_the_bound_is_not_looked_at() {
        let mut list = vec![format!("{{{}}}", sha256([9; 32])); FINGERPRINTS_MAX];
        list.push(format!("{{{}}}", sha256(OURS)));
        let found = of(&document(&list.join(","), "60")).unwrap();
        assert!(!found.name(&OURS, &OURS_512));
    }

    #[test]
    fn a_document_is_good_for_as_long_as_it_says_and_not_for_ever() {
        for (expires, expected) in [
            ("60", Ok(60)),
            ("1.5", Ok(1)),
            ("1e300", Ok(GOOD_S_MAX)),
            ("99999999999", Ok(GOOD_S_MAX)),
            ("0", Err(PoshProblem::Expired)),
            ("0.5", Err(PoshProblem::Expired)),
            ("-1", Err(PoshProblem::Expired)),
            ("null", Err(PoshProblem::Expired)),
        ] {
            assert_eq!(of(&document("", expires)).map(|it| it.good_s), expected, "{expires}");
        }
        assert_eq!(of(r#"{"fingerprints":[]}"#), Err(PoshProblem::Expired));
    }

    #[test]
    fn what_is_no_document_proves_nothing() {
        let long = " ".repeat(DOCUMENT_BYTES_MAX) + "{}";
        assert_eq!(of(&long), Err(PoshProblem::TooLong));
        let deep = "[".repeat(10_000);
        for text in ["", "5", "[]", "{\"fingerprints\":5,\"expires\":1}", "{\"expires\":1}", &deep]
        {
            assert!(matches!(of(text), Err(PoshProblem::Malformed(_))), "{text}");
        }
        assert!(matches!(
            of("{\"fingerprints\":[5],\"expires\":1}"),
            Err(PoshProblem::Malformed(_))
        ));
    }

    #[test]
    fn a_reference_leads_to_one_document_and_the_lower_time_counts() {
        let reference =
            |expires: u32| format!(r#"{{"url":"https://host.example/x","expires":{expires}}}"#);
        for (first, second, expected) in [(60, 120, 60), (120, 60, 60)] {
            let mut lookup = asked("a.example");
            assert_eq!(lookup.answered(200, None, reference(first).as_bytes()), LookupStep::Ask);
            assert_eq!(lookup.url().to_string(), "https://host.example/x");
            let body = document("", &second.to_string());
            let LookupStep::Done(Ok(found)) = lookup.answered(200, None, body.as_bytes()) else {
                panic!("it is a document")
            };
            assert_eq!(found.good_s, expected);
        }
        let mut lookup = asked("a.example");
        lookup.answered(200, None, reference(60).as_bytes());
        let again = lookup.answered(200, None, reference(60).as_bytes());
        assert_eq!(again, LookupStep::Done(Err(PoshProblem::TooFar)));
        let plain = br#"{"url":"http://host.example/x","expires":60}"#;
        let refused = asked("a.example").answered(200, None, plain);
        assert!(matches!(refused, LookupStep::Done(Err(PoshProblem::Malformed(_)))), "{refused:?}");
        let expired = asked("a.example").answered(200, None, reference(0).as_bytes());
        assert_eq!(expired, LookupStep::Done(Err(PoshProblem::Expired)));
    }

    #[test]
    fn redirects_are_followed_a_few_times_and_to_nothing_but_https() {
        let mut lookup = asked("a.example");
        assert_eq!(lookup.answered(302, Some("/x?y"), b""), LookupStep::Ask);
        assert_eq!(lookup.url().to_string(), "https://a.example/x?y");
        assert_eq!(lookup.answered(307, Some("https://b.example:8443#z"), b""), LookupStep::Ask);
        assert_eq!(lookup.url().to_string(), "https://b.example:8443/");
        assert_eq!(lookup.answered(301, Some("/x"), b""), LookupStep::Ask);
        assert_eq!(lookup.url().to_string(), "https://b.example:8443/x");
        let far = lookup.answered(301, Some("/y"), b"");
        assert_eq!(far, LookupStep::Done(Err(PoshProblem::TooFar)));
        for place in [None, Some("http://b.example/"), Some("//b.example/"), Some("x.json")] {
            let step = asked("a.example").answered(302, place, b"");
            assert!(matches!(step, LookupStep::Done(Err(PoshProblem::Malformed(_)))), "{place:?}");
        }
        for (status, problem) in [
            (404, PoshProblem::Absent),
            (410, PoshProblem::Absent),
            (500, PoshProblem::Status(500)),
            (304, PoshProblem::Status(304)),
        ] {
            let step = asked("a.example").answered(status, None, b"");
            assert_eq!(step, LookupStep::Done(Err(problem)));
        }
    }

    #[test]
    fn words_of_strangers_are_cut() {
        let told = PoshProblem::unreachable(&("\u{1b}[31m".to_owned() + &"x".repeat(5_000)));
        let told = told.to_string();
        assert!(told.contains("?[31mxxx") && told.len() < 400, "{told}");
    }

    #[test]
    fn places_that_are_none_are_refused() {
        let long = format!("https://a.example/{}", "x".repeat(URL_BYTES_MAX));
        for text in [
            "https://",
            "https:///x",
            "https://a@b.example/",
            "https://a.example:0/",
            "https://a.example:x/",
            "https://192.0.2.1/",
            "https://[2001:db8::1]/",
            "https://a.example/ x",
            "https://a.example/\r\nX: y",
            "a.example",
            &long,
        ] {
            assert!(matches!(Url::parse(text), Err(PoshProblem::Malformed(_))), "{text}");
        }
        let url = Url::parse("HTTPS://A.Example?q").unwrap();
        assert_eq!((url.host.as_str(), url.target.as_str()), ("a.example", "/?q"));
    }
}
