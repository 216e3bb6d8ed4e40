//! For whom a server's certificate speaks: the names in it, and whether a domain is among them (RFC 6120 §13.7, RFC 6125,
//! RFC 4985). The subject's common name is never one.
//!
//! Whether the chain holds is found by `runtime`, which checks signatures and knows the time; here it is a value, and its
//! words for the operator.

use super::discovery::{dns_name, literal};
use crate::base::instant::Wall;
use crate::xmpp::datetime;
use crate::xmpp::jid::BareJid;
use std::fmt;
use std::net::IpAddr;
use x509_parser::asn1_rs::{
    Error as Asn1Error, FromDer, Ia5String, Oid, TaggedExplicit, Utf8String, oid,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

/// id-on-xmppAddr (RFC 6120 §13.7.1.4)
const XMPP_ADDRESS: Oid<'static> = oid!(1.3.6.1.5.5.7.8.5);
/// id-on-dnsSRV (RFC 4985 §2)
const SERVICE_NAME: Oid<'static> = oid!(1.3.6.1.5.5.7.8.7);
/// RFC 6120 §13.7.1.2.1
const SERVICE: &str = "_xmpp-server.";
/// Names that a problem tells, for people, and the bytes of one.
const TOLD_MAX: usize = 8;
const TOLD_BYTES_MAX: usize = 100;

/// Names that are read of one certificate. Those behind are as if they were not there.
pub const NAMES_MAX: usize = 512;

/// A certificate whose key the peer has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// Whether somebody whom we trust vouches for it, now.
    pub chain: Result<(), ChainProblem>,
    pub names: Names,
    pub dane: Dane,
    /// SHA-256 of the certificate.
    pub digest: [u8; 32],
    /// SHA-512 of it.
    pub digest_512: [u8; 64],
    /// SHA-256 of its SubjectPublicKeyInfo.
    pub key_digest: [u8; 32],
    /// Seconds since the Unix epoch when it expires.
    pub expires_s: i64,
}

/// What the target's TLSA records say of its certificate (RFC 7673). They stand above authorities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dane {
    /// There are none, or the peer came to us.
    #[default]
    Silent,
    /// It is the one of that target; names and dates in it do not count (DANE-EE, RFC 7671 §5.1).
    Certificate,
    /// An authority that they name signed it (DANE-TA); `for_target`: the name of the target is in it, which stands for the
    /// domain's (RFC 7673 §4).
    Authority { for_target: bool },
    /// It is not one that they allow: somebody stands between us and the target, or its operator forgot to change them.
    Contradicts,
}

/// Why nobody whom we trust vouches for a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChainProblem {
    /// When, in seconds since the Unix epoch; an intermediate one where so said.
    Expired {
        at_s: i64,
        intermediate: bool,
    },
    NotYetValid {
        from_s: i64,
        intermediate: bool,
    },
    SelfSigned,
    /// With the name of who signed it.
    UnknownIssuer {
        issuer: String,
    },
    /// Signed by a digest or scheme that is no longer safe, as SHA-1.
    WeakSignature,
    /// RSA of so many bits.
    WeakKey {
        bits: u32,
    },
    /// A signature in the chain is wrong.
    BadSignature,
    /// It is made for other things than TLS (extended key usage).
    Purpose,
    /// A certificate of an authority stands where a server's should.
    Authority,
    /// An authority signed for names that it may not sign for.
    Constraints,
    /// It is no certificate, or has parts that must be understood and are not.
    Malformed,
    /// More certificates than are looked at.
    TooLong,
    /// In the words of the library.
    Other(String),
}

/// The names in a certificate that may stand for a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// DNS-IDs in lower case, the wildcard kept.
    dns: Vec<String>,
    /// SRV-IDs of `_xmpp-server`, without that label.
    services: Vec<String>,
    /// XMPP addresses that are domains, as JIDs are prepared.
    xmpp: Vec<String>,
    ips: Vec<IpAddr>,
    /// There were more than `NAMES_MAX`.
    is_cut: bool,
}

/// By which kind of name a certificate speaks for a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Dns,
    Wildcard,
    Service,
    XmppAddress,
    Ip,
    Dane,
    Posh,
}

/// Why a peer is not trusted by its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Distrust {
    Chain(ChainProblem),
    /// `Dane::Contradicts`
    Dane,
    /// The chain holds; with the names that are in it, cut to a length for people.
    OtherNames {
        names: String,
    },
}

impl PeerCertificate {
    /// Whether it proves that the peer is the server of `domain`.
    ///
    /// - takes: the domain as JIDs are prepared
    /// - source: RFC 6120 §13.7.2, RFC 6125 §6
    pub fn speaks_for(&self, domain: &str) -> Result<By, Distrust> {
        match self.dane {
            Dane::Silent => self.chain.clone().map_err(Distrust::Chain)?,
            Dane::Certificate | Dane::Authority { for_target: true } => return Ok(By::Dane),
            Dane::Authority { for_target: false } => {}
            Dane::Contradicts => return Err(Distrust::Dane),
        }
        let found = self.names.speak_for(domain);
        found.ok_or_else(|| Distrust::OtherNames { names: self.names.to_string() })
    }
}

impl Distrust {
    /// Whether the domain could still name the certificate itself (RFC 7711). Then it does not matter who signed it, and for
    /// whom; that it is out of date, or not made for TLS, does.
    pub fn leaves_posh(&self) -> bool {
        match self {
            Distrust::OtherNames { .. } => true,
            Distrust::Dane => false,
            Distrust::Chain(problem) => matches!(
                problem,
                ChainProblem::SelfSigned
                    | ChainProblem::UnknownIssuer { .. }
                    | ChainProblem::Expired { intermediate: true, .. }
                    | ChainProblem::NotYetValid { intermediate: true, .. }
            ),
        }
    }
}

impl Names {
    /// Reads the subject's alternative names. None where they cannot be read.
    pub fn of(certificate: &X509Certificate<'_>) -> Names {
        let mut names = Names::default();
        let Ok(Some(found)) = certificate.subject_alternative_name() else { return names };
        for name in &found.value.general_names {
            if names.len() == NAMES_MAX {
                names.is_cut = true;
                break;
            }
            match name {
                GeneralName::DNSName(name) => names.dns.push(name.to_ascii_lowercase()),
                GeneralName::OtherName(kind, value) if *kind == SERVICE_NAME => {
                    names.services.extend(service(value));
                }
                GeneralName::OtherName(kind, value) if *kind == XMPP_ADDRESS => {
                    names.xmpp.extend(xmpp_domain(value));
                }
                GeneralName::IPAddress(bytes) => names.ips.extend(ip(bytes)),
                _ => {}
            }
        }
        names
    }

    /// Forgets all but DNS-IDs and addresses: an authority that may sign only for some names is bound in those two, and in no
    /// other kind.
    #[must_use]
    pub fn only_constrained_kinds(mut self) -> Names {
        self.services.clear();
        self.xmpp.clear();
        self
    }

    /// - takes: the domain as JIDs are prepared
    pub fn speak_for(&self, domain: &str) -> Option<By> {
        if let Some(address) = literal(domain) {
            return self.ips.contains(&address).then_some(By::Ip);
        }
        let ascii = dns_name(domain)?;
        if self.dns.contains(&ascii) {
            return Some(By::Dns);
        }
        if self.services.contains(&ascii) {
            return Some(By::Service);
        }
        if self.xmpp.iter().any(|name| name == domain) {
            return Some(By::XmppAddress);
        }
        // RFC 6125 §6.4.3: the whole left-most label, and nothing but one label.
        let (label, parent) = ascii.split_once('.')?;
        let covers = |name: &String| name.strip_prefix("*.") == Some(parent);
        let is_wide = !parent.contains('.');
        (!label.is_empty() && !is_wide && self.dns.iter().any(covers)).then_some(By::Wildcard)
    }

    fn len(&self) -> usize {
        self.dns.len() + self.services.len() + self.xmpp.len() + self.ips.len()
    }
}

/// The domain of an SRV-ID of our service, as A-labels in lower case.
fn service(value: &[u8]) -> Option<String> {
    let (rest, text) = TaggedExplicit::<Ia5String<'_>, Asn1Error, 0>::from_der(value).ok()?;
    let text = text.into_inner().string().to_ascii_lowercase();
    let domain = text.strip_prefix(SERVICE).filter(|_| rest.is_empty())?;
    Some(domain.to_owned())
}

/// The domain that an XMPP address is; none for that of an account.
fn xmpp_domain(value: &[u8]) -> Option<String> {
    let (rest, text) = TaggedExplicit::<Utf8String<'_>, Asn1Error, 0>::from_der(value).ok()?;
    let jid = BareJid::parse(&text.into_inner().string()).ok().filter(|_| rest.is_empty())?;
    jid.local().is_none().then(|| jid.as_str().to_owned())
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

impl fmt::Display for Names {
    /// A line for people: the first few, cut, with nothing in it that a terminal would obey.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = self.dns.iter().chain(&self.xmpp).map(|name| cut(name));
        let services = self.services.iter().map(|name| cut(&format!("{SERVICE}{name}")));
        let ips = self.ips.iter().map(ToString::to_string);
        let told: Vec<String> = plain.chain(services).chain(ips).take(TOLD_MAX).collect();
        if told.is_empty() {
            return f.write_str("no names of servers");
        }
        f.write_str(&told.join(", "))?;
        match self.len() - told.len() {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// What a stranger wrote, for a line of text: cut, and with control characters escaped.
fn cut(text: &str) -> String {
    let mut line: String = text.escape_debug().take(TOLD_BYTES_MAX).collect();
    if line.len() < text.len() {
        line.push('\u{2026}');
    }
    line
}

/// To the second.
fn date(at_s: i64) -> String {
    match u64::try_from(at_s) {
        // Beyond the year 9999 no certificate can say.
        Ok(at_s) => {
            let at = datetime::format(Wall(at_s.min(253_402_300_799) * 1_000_000));
            at.replace(".000Z", "Z")
        }
        Err(_) => "a time before 1970".to_owned(),
    }
}

impl fmt::Display for Distrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Distrust::Chain(problem) => problem.fmt(f),
            Distrust::Dane => f.write_str(
                "the certificate is none of those that the TLSA records of the server (DANE) allow; its operator must publish it",
            ),
            Distrust::OtherNames { names } => {
                write!(f, "the certificate is for other names: {names}; its operator must have one made for the domain")
            }
        }
    }
}

impl fmt::Display for ChainProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let which = |intermediate: &bool| match intermediate {
            true => "an intermediate certificate",
            false => "the certificate",
        };
        match self {
            ChainProblem::Expired { at_s, intermediate } => write!(
                f,
                "{} expired at {}; its operator must renew it",
                which(intermediate),
                date(*at_s)
            ),
            ChainProblem::NotYetValid { from_s, intermediate } => write!(
                f,
                "{} is good only from {} on; if that is past, the clock of this machine is wrong",
                which(intermediate),
                date(*from_s)
            ),
            ChainProblem::SelfSigned => f.write_str(
                "the certificate is self-signed, nobody vouches for it; federation.ca_file may name it",
            ),
            ChainProblem::UnknownIssuer { issuer } => write!(
                f,
                "the certificate is signed by an authority that is not known here ({}), or the server leaves out the intermediate \
                 certificates; federation.ca_file may name the authority",
                cut(issuer)
            ),
            ChainProblem::WeakSignature => f.write_str(
                "the chain has a signature of a kind that is not accepted, as SHA-1 is not; its operator must renew it",
            ),
            ChainProblem::WeakKey { bits } => write!(
                f,
                "the certificate has an RSA key of {bits} bits, and less than 2048 is not safe; its operator must renew it"
            ),
            ChainProblem::BadSignature => {
                f.write_str("a signature in the chain is wrong: it is forged or damaged")
            }
            ChainProblem::Purpose => {
                f.write_str("the certificate is made for other uses than TLS (extended key usage)")
            }
            ChainProblem::Authority => f.write_str(
                "the certificate is that of an authority and not of a server; federation.ca_file may name it",
            ),
            ChainProblem::Constraints => {
                f.write_str("an authority in the chain signed for names that it may not sign for")
            }
            ChainProblem::Malformed => {
                f.write_str("the certificate cannot be read, or has critical parts that are not known")
            }
            ChainProblem::TooLong => f.write_str("the chain has too many certificates"),
            ChainProblem::Other(why) => write!(f, "the certificate does not verify: {}", cut(why)),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests;
