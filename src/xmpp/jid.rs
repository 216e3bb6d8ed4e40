//! Addresses (RFC 7622): prepared once, then compared as bytes.
//!
//! A part is prepared by its profile until it no longer changes (RFC 8264 §7), so preparing twice gives the same as
//! preparing once, and two equal addresses have equal text and so one owner. Resolving a domain and asking whether it
//! is served here are left to others.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::Ipv6Addr;
use std::str::FromStr;
use std::sync::Arc;

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
use precis_profiles::precis_core::profile::PrecisFastInvocation;
use precis_profiles::{OpaqueString, UsernameCaseMapped};

use crate::base::hash::{Map, hash64};

/// Bytes of one prepared part at most (RFC 7622 §3.2, §3.3, §3.4).
pub const PART_BYTES_MAX: usize = 1023;

/// Bytes of a whole address at most: three parts and two separators. Longer text is refused unread.
pub const JID_BYTES_MAX: usize = 3 * PART_BYTES_MAX + 2;

/// Why a text is no address; to a peer each is `jid-malformed` (RFC 6120 §8.3.3.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JidError {
    #[error("the address is longer than {JID_BYTES_MAX} bytes")]
    TooLong,
    #[error("nothing stands before the @")]
    LocalEmpty,
    #[error("the local part is longer than {PART_BYTES_MAX} bytes")]
    LocalTooLong,
    #[error("the local part has a character that is not allowed there")]
    LocalInvalid,
    #[error("the address has no domain")]
    DomainEmpty,
    #[error("the domain, or a label of it, is longer than the DNS allows")]
    DomainTooLong,
    #[error("the domain is neither a host name nor an IP address")]
    DomainInvalid,
    #[error("nothing stands after the /")]
    ResourceEmpty,
    #[error("the resource is longer than {PART_BYTES_MAX} bytes")]
    ResourceTooLong,
    #[error("the resource has a character that is not allowed there")]
    ResourceInvalid,
    #[error("a resource stands where none may")]
    ResourceUnexpected,
}

/// `local@domain` or `domain`: what owns state. Cheap to clone; knows the hash that places it.
#[derive(Clone)]
pub struct BareJid {
    text: Arc<str>,
    hash64: u64,
    /// Bytes before the `@`; 0 without a local part.
    at: u16,
}

impl BareJid {
    /// Prepares `text`.
    ///
    /// - errors: by part and cause; `ResourceUnexpected` where there is one
    /// - cost: one allocation for lower-case ASCII, and one SHA-256
    /// - source: RFC 7622 §3
    pub fn parse(text: &str) -> Result<BareJid, JidError> {
        let (local, domain, resource) = split(text)?;
        match resource {
            Some(_) => Err(JidError::ResourceUnexpected),
            None => BareJid::from_parts(local, domain),
        }
    }

    /// Prepares the parts and joins them. No part is searched for separators: one in it is an error.
    pub fn from_parts(local: Option<&str>, domain: &str) -> Result<BareJid, JidError> {
        let domain = prepare_domain(domain)?;
        let Some(local) = local else {
            return Ok(BareJid::from_prepared(&domain, 0));
        };
        let local = prepare_local(local)?;
        let at = u16::try_from(local.len()).map_err(|_| JidError::LocalTooLong)?;
        // Nearly all addresses fit: then the only allocation is the result.
        let mut short = [0u8; 128];
        let len = local.len() + 1 + domain.len();
        if let Some(room) = short.get_mut(..len) {
            let (head, tail) = room.split_at_mut(local.len());
            head.copy_from_slice(local.as_bytes());
            tail[0] = b'@';
            tail[1..].copy_from_slice(domain.as_bytes());
            if let Ok(text) = std::str::from_utf8(room) {
                return Ok(BareJid::from_prepared(text, at));
            }
        }
        Ok(BareJid::from_prepared(&format!("{local}@{domain}"), at))
    }

    fn from_prepared(text: &str, at: u16) -> BareJid {
        BareJid { text: Arc::from(text), hash64: hash64(text.as_bytes()), at }
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn local(&self) -> Option<&str> {
        match self.at {
            0 => None,
            at => self.text.get(..usize::from(at)),
        }
    }

    pub fn domain(&self) -> &str {
        match self.at {
            0 => &self.text,
            at => &self.text[usize::from(at) + 1..],
        }
    }

    /// `base::hash::hash64` of the text, computed when it was parsed: chooses the owner.
    pub fn hash64(&self) -> u64 {
        self.hash64
    }

    /// The full JID with this `resource`, which is prepared.
    pub fn with_resource(&self, resource: &str) -> Result<Jid, JidError> {
        let resource = prepare_resource(resource)?;
        Ok(Jid { bare: self.clone(), resource: Some(Arc::from(&*resource)) })
    }

    /// The bare JID of the domain alone.
    pub fn to_domain(&self) -> BareJid {
        match self.at {
            0 => self.clone(),
            _ => BareJid::from_prepared(self.domain(), 0),
        }
    }
}

/// An address with or without a resource.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Jid {
    bare: BareJid,
    resource: Option<Arc<str>>,
}

impl Jid {
    /// Prepares `text`.
    ///
    /// - errors: by part and cause
    /// - cost: for lower-case ASCII an allocation for the bare JID and one for the resource, and one SHA-256;
    ///   `JidCache` saves these for addresses seen before
    /// - source: RFC 7622 §3; the first `/` ends the bare JID, then the first `@` ends the local part (§3.2)
    pub fn parse(text: &str) -> Result<Jid, JidError> {
        let (local, domain, resource) = split(text)?;
        let bare = BareJid::from_parts(local, domain)?;
        match resource {
            Some(resource) => bare.with_resource(resource),
            None => Ok(Jid::from_bare(bare)),
        }
    }

    /// From the text of a JID that was parsed before, and the hash that it had.
    pub(crate) fn from_prepared(text: &str, hash64: u64) -> Jid {
        let (bare, resource) = match text.split_once('/') {
            Some((bare, resource)) => (bare, Some(resource)),
            None => (text, None),
        };
        let at = bare.find('@').and_then(|at| u16::try_from(at).ok()).unwrap_or(0);
        let bare = BareJid { text: Arc::from(bare), hash64, at };
        Jid { bare, resource: resource.map(Arc::from) }
    }

    pub fn from_bare(bare: BareJid) -> Jid {
        Jid { bare, resource: None }
    }

    pub fn bare(&self) -> &BareJid {
        &self.bare
    }

    pub fn into_bare(self) -> BareJid {
        self.bare
    }

    pub fn resource(&self) -> Option<&str> {
        self.resource.as_deref()
    }

    pub fn is_bare(&self) -> bool {
        self.resource.is_none()
    }

    pub fn local(&self) -> Option<&str> {
        self.bare.local()
    }

    pub fn domain(&self) -> &str {
        self.bare.domain()
    }

    /// Whether the text is that of this address: saves parsing the text.
    pub fn is(&self, text: &str) -> bool {
        match (&self.resource, text.strip_prefix(self.bare.as_str())) {
            (None, Some("")) => true,
            (Some(resource), Some(rest)) => rest.strip_prefix('/') == Some(&**resource),
            _ => false,
        }
    }

    /// Appends the text as it is: the caller escapes it where that is needed (a resource may hold `<` and quotes).
    pub fn write_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.bare.text.as_bytes());
        if let Some(resource) = &self.resource {
            out.push(b'/');
            out.extend_from_slice(resource.as_bytes());
        }
    }

    /// Bytes of the text.
    pub fn text_len(&self) -> usize {
        self.bare.text.len() + self.resource.as_ref().map_or(0, |resource| 1 + resource.len())
    }
}

/// Addresses by the text that peers wrote, so that one seen before costs neither PRECIS nor SHA-256. One per core.
///
/// Two generations: what is used moves to the young one, and when that is full it becomes the old one, whose entries
/// go. So a flood of new addresses costs constant time each and never more than `capacity` entries of memory.
pub struct JidCache {
    young: Map<Box<str>, Jid>,
    old: Map<Box<str>, Jid>,
    generation_max: usize,
}

impl JidCache {
    /// A cache of at most `capacity` addresses (at least 2); at `JID_BYTES_MAX` each, but 100 bytes is usual.
    pub fn new(capacity: usize) -> JidCache {
        JidCache {
            young: Map::default(),
            old: Map::default(),
            generation_max: (capacity / 2).max(1),
        }
    }

    /// As [`Jid::parse`]; errors are not kept.
    pub fn parse(&mut self, text: &str) -> Result<Jid, JidError> {
        if let Some(jid) = self.young.get(text) {
            return Ok(jid.clone());
        }
        let (raw, jid) = match self.old.remove_entry(text) {
            Some(entry) => entry,
            None => {
                let jid = Jid::parse(text)?;
                (Box::from(text), jid)
            }
        };
        if self.young.len() >= self.generation_max {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.young.insert(raw, jid.clone());
        Ok(jid)
    }

    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Local part, domain and resource, not yet prepared (RFC 7622 §3.1, §3.2).
type Parts<'a> = (Option<&'a str>, &'a str, Option<&'a str>);

fn split(text: &str) -> Result<Parts<'_>, JidError> {
    if text.len() > JID_BYTES_MAX {
        return Err(JidError::TooLong);
    }
    // Separators are searched before anything is mapped to them (RFC 7622 §3.2).
    let (bare, resource) = match text.split_once('/') {
        Some((bare, resource)) => (bare, Some(resource)),
        None => (text, None),
    };
    Ok(match bare.split_once('@') {
        Some((local, domain)) => (Some(local), domain, resource),
        None => (None, bare, resource),
    })
}

/// RFC 7622 §3.3: the profile UsernameCaseMapped without eight more characters.
fn prepare_local(raw: &str) -> Result<Cow<'_, str>, JidError> {
    if raw.is_empty() {
        return Err(JidError::LocalEmpty);
    }
    if raw.len() > JID_BYTES_MAX {
        return Err(JidError::LocalTooLong);
    }
    let local = if raw.bytes().all(|byte| byte.is_ascii_graphic()) {
        lower_case(raw)
    } else {
        until_stable(raw, enforce_local).ok_or(JidError::LocalInvalid)?
    };
    if local
        .bytes()
        .any(|byte| matches!(byte, b'"' | b'&' | b'\'' | b'/' | b':' | b'<' | b'>' | b'@'))
    {
        return Err(JidError::LocalInvalid);
    }
    if local.len() > PART_BYTES_MAX {
        return Err(JidError::LocalTooLong);
    }
    Ok(local)
}

fn enforce_local(text: &str) -> Option<String> {
    let text = UsernameCaseMapped::enforce(text).ok()?;
    // The profile leaves title case (as in ǅ) as it is where no capital stands before it; RFC 8265 §3.3.2 wants
    // toLowerCase() of all.
    Some(text.chars().flat_map(char::to_lowercase).collect())
}

/// Host names may hold no ASCII but letters, digits, hyphens and underscores.
///
/// The underscore is not in the host names of RFC 5890, but container networks name hosts with it.
const DOMAIN_DENIED: AsciiDenyList = AsciiDenyList::new(true, "!\"#$%&'()*+,/:;<=>?@[\\]^`{|}~");

/// RFC 7622 §3.2: an IPv6 address in brackets, or a name or IPv4 address as U-labels, without the final dot.
fn prepare_domain(raw: &str) -> Result<Cow<'_, str>, JidError> {
    if raw.is_empty() {
        return Err(JidError::DomainEmpty);
    }
    if raw.len() > JID_BYTES_MAX {
        return Err(JidError::DomainTooLong);
    }
    if let Some(literal) = raw.strip_prefix('[') {
        let literal = literal.strip_suffix(']').ok_or(JidError::DomainInvalid)?;
        let address = Ipv6Addr::from_str(literal).map_err(|_| JidError::DomainInvalid)?;
        return Ok(Cow::Owned(format!("[{address}]")));
    }
    let stripped = raw.strip_suffix('.').unwrap_or(raw);
    if let Some(domain) = ascii_domain(stripped) {
        return domain.map(lower_case);
    }
    let domain = until_stable(raw, enforce_domain).ok_or(JidError::DomainInvalid)?;
    if domain.is_empty() {
        return Err(JidError::DomainEmpty);
    }
    // "The length limits of RFC 1034 apply" (RFC 7622 §3.2), and they count A-labels.
    Uts46::new()
        .to_ascii(domain.as_bytes(), DOMAIN_DENIED, Hyphens::CheckFirstLast, DnsLength::Verify)
        .map_err(|_| JidError::DomainTooLong)?;
    if domain.len() > PART_BYTES_MAX {
        return Err(JidError::DomainTooLong);
    }
    Ok(domain)
}

/// Checks a name that is plain ASCII without punycode; `None` where the full rules are needed.
fn ascii_domain(name: &str) -> Option<Result<&str, JidError>> {
    for label in name.as_bytes().split(|byte| *byte == b'.') {
        if !label.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
            return None;
        }
        if label.get(2..4) == Some(b"--") {
            return None;
        }
        if label.first().is_none_or(|byte| *byte == b'-') || label.last() == Some(&b'-') {
            return Some(Err(JidError::DomainInvalid));
        }
        if label.len() > 63 {
            return Some(Err(JidError::DomainTooLong));
        }
    }
    Some(if name.len() > 253 { Err(JidError::DomainTooLong) } else { Ok(name) })
}

fn enforce_domain(text: &str) -> Option<String> {
    let (domain, checked) =
        Uts46::new().to_unicode(text.as_bytes(), DOMAIN_DENIED, Hyphens::CheckFirstLast);
    checked.ok()?;
    // Other full stops (as in Chinese text) are dots only now.
    let domain = domain.strip_suffix('.').unwrap_or(&domain);
    if domain.split('.').any(str::is_empty) {
        return None;
    }
    Some(domain.to_owned())
}

/// RFC 7622 §3.4: the profile OpaqueString.
fn prepare_resource(raw: &str) -> Result<Cow<'_, str>, JidError> {
    if raw.is_empty() {
        return Err(JidError::ResourceEmpty);
    }
    if raw.len() > JID_BYTES_MAX {
        return Err(JidError::ResourceTooLong);
    }
    let resource = if raw.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        Cow::Borrowed(raw)
    } else {
        let enforce = |text: &str| OpaqueString::enforce(text).ok().map(Cow::into_owned);
        until_stable(raw, enforce).ok_or(JidError::ResourceInvalid)?
    };
    if resource.len() > PART_BYTES_MAX {
        return Err(JidError::ResourceTooLong);
    }
    Ok(resource)
}

/// Applies `rules` until they change nothing; gives up after the three repetitions of RFC 8264 §7.
fn until_stable(raw: &str, rules: impl Fn(&str) -> Option<String>) -> Option<Cow<'_, str>> {
    let mut text = rules(raw)?;
    if text == raw {
        return Some(Cow::Borrowed(raw));
    }
    for _ in 0..3 {
        let again = rules(&text)?;
        if again == text {
            return Some(Cow::Owned(text));
        }
        text = again;
    }
    None
}

fn lower_case(ascii: &str) -> Cow<'_, str> {
    if ascii.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(ascii.to_ascii_lowercase())
    } else {
        Cow::Borrowed(ascii)
    }
}

impl PartialEq for BareJid {
    fn eq(&self, other: &BareJid) -> bool {
        self.hash64 == other.hash64 && self.text == other.text
    }
}

impl Eq for BareJid {}

impl PartialOrd for BareJid {
    fn partial_cmp(&self, other: &BareJid) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for BareJid {
    fn cmp(&self, other: &BareJid) -> std::cmp::Ordering {
        self.text.cmp(&other.text)
    }
}

impl Hash for BareJid {
    /// As the text does, so that maps can be asked by text.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl Borrow<str> for BareJid {
    fn borrow(&self) -> &str {
        &self.text
    }
}

impl From<BareJid> for Jid {
    fn from(bare: BareJid) -> Jid {
        Jid::from_bare(bare)
    }
}

impl FromStr for BareJid {
    type Err = JidError;

    fn from_str(text: &str) -> Result<BareJid, JidError> {
        BareJid::parse(text)
    }
}

impl FromStr for Jid {
    type Err = JidError;

    fn from_str(text: &str) -> Result<Jid, JidError> {
        Jid::parse(text)
    }
}

impl fmt::Display for BareJid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for BareJid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for Jid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.bare.text)?;
        match &self.resource {
            Some(resource) => write!(f, "/{resource}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Jid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn prepared(text: &str) -> Result<String, JidError> {
        Jid::parse(text).map(|jid| jid.to_string())
    }

    /// RFC 7622 §3.5, table 1.
    #[test]
    fn addresses_of_the_specification_are_accepted() {
        for (raw, expected) in [
            ("juliet@example.com", "juliet@example.com"),
            ("juliet@example.com/foo", "juliet@example.com/foo"),
            ("juliet@example.com/foo bar", "juliet@example.com/foo bar"),
            ("juliet@example.com/foo@bar", "juliet@example.com/foo@bar"),
            ("foo\\20bar@example.com", "foo\\20bar@example.com"),
            ("fussball@example.com", "fussball@example.com"),
            ("fu\u{df}ball@example.com", "fu\u{df}ball@example.com"),
            ("\u{3c0}@example.com", "\u{3c0}@example.com"),
            ("\u{3a3}@example.com/foo", "\u{3c3}@example.com/foo"),
            ("\u{3c3}@example.com/foo", "\u{3c3}@example.com/foo"),
            ("\u{3c2}@example.com/foo", "\u{3c2}@example.com/foo"),
            ("king@example.com/\u{265a}", "king@example.com/\u{265a}"),
            ("example.com", "example.com"),
            ("example.com/foobar", "example.com/foobar"),
            ("a.example.com/b@example.net", "a.example.com/b@example.net"),
        ] {
            assert_eq!(prepared(raw).as_deref(), Ok(expected), "{raw}");
        }
    }

    /// RFC 7622 §3.5, table 2.
    #[test]
    fn addresses_that_the_specification_refuses_are_refused() {
        for (raw, error) in [
            ("\"juliet\"@example.com", JidError::LocalInvalid),
            ("foo bar@example.com", JidError::LocalInvalid),
            ("juliet@example.com/", JidError::ResourceEmpty),
            ("@example.com/", JidError::LocalEmpty),
            ("henry\u{2163}@example.com", JidError::LocalInvalid),
            ("\u{265a}@example.com", JidError::LocalInvalid),
            ("juliet@", JidError::DomainEmpty),
            ("/foobar", JidError::DomainEmpty),
            ("", JidError::DomainEmpty),
            (".", JidError::DomainInvalid),
            ("a@b@c", JidError::DomainInvalid),
            ("a@b..c", JidError::DomainInvalid),
            ("a@b c", JidError::DomainInvalid),
            ("a@-b.c", JidError::DomainInvalid),
            ("a@b/\u{7}", JidError::ResourceInvalid),
            ("a@b/\u{9}", JidError::ResourceInvalid),
            ("a\u{0}@b", JidError::LocalInvalid),
            ("\u{ff20}@b", JidError::LocalInvalid),
        ] {
            assert_eq!(prepared(raw), Err(error), "{raw:?}");
        }
        assert_eq!(BareJid::parse("a@b/c"), Err(JidError::ResourceUnexpected));
    }

    #[test]
    fn case_and_width_are_mapped_in_the_parts_that_ignore_them() {
        assert_eq!(prepared("Juliet@Example.COM/Balcony").unwrap(), "juliet@example.com/Balcony");
        assert_eq!(prepared("\u{ff2a}uliet@example.com").unwrap(), "juliet@example.com");
        assert_eq!(prepared("A\u{30a}@example.com").unwrap(), "\u{e5}@example.com");
        assert_eq!(prepared("\u{1c8}a@example.com").unwrap_err(), JidError::LocalInvalid);
        assert_eq!(prepared("a@b/x\u{a0}y").unwrap(), "a@b/x y");
    }

    #[test]
    fn domains_are_kept_as_u_labels_without_the_final_dot() {
        for (raw, expected) in [
            ("xn--mnchen-3ya.example", "m\u{fc}nchen.example"),
            ("M\u{dc}NCHEN.example.", "m\u{fc}nchen.example"),
            ("\u{4f8b}\u{3002}example\u{3002}", "\u{4f8b}.example"),
            ("example.com.", "example.com"),
            ("192.0.2.7", "192.0.2.7"),
            ("[2001:DB8::0:1]", "[2001:db8::1]"),
            ("xmpp_1", "xmpp_1"),
            ("r3---sn.example", "r3---sn.example"),
        ] {
            assert_eq!(prepared(raw).as_deref(), Ok(expected), "{raw}");
        }
        for raw in
            ["[::1", "[::1]x", "[fe80::1%eth0]", "[192.0.2.7]", "::1", "xn--a", "a@[::1]:5222"]
        {
            assert_eq!(prepared(raw), Err(JidError::DomainInvalid), "{raw}");
        }
    }

    /// RFC 7622 §3.2, §3.3, §3.4: 1023 bytes a part; RFC 1034 §3.1: 63 a label, 253 a name.
    #[test]
    fn lengths_are_limited_by_part() {
        let part = |len: usize| "x".repeat(len);
        assert!(prepared(&format!("{}@b/{}", part(1023), part(1023))).is_ok());
        assert_eq!(prepared(&format!("{}@b", part(1024))), Err(JidError::LocalTooLong));
        assert_eq!(prepared(&format!("a@b/{}", part(1024))), Err(JidError::ResourceTooLong));
        assert!(prepared(&part(63)).is_ok());
        assert_eq!(prepared(&part(64)), Err(JidError::DomainTooLong));
        assert_eq!(prepared(&"abc.".repeat(64)), Err(JidError::DomainTooLong));
        assert_eq!(prepared(&"\u{fc}".repeat(64)), Err(JidError::DomainTooLong));
        assert_eq!(prepared(&part(3072)), Err(JidError::TooLong));
    }

    #[test]
    fn parts_and_text_agree() {
        let jid = Jid::parse("a@b.c/d@e/f").unwrap();
        assert_eq!(jid.bare().as_str(), "a@b.c");
        assert_eq!((jid.local(), jid.domain(), jid.resource()), (Some("a"), "b.c", Some("d@e/f")));
        assert_eq!(jid.bare().hash64(), hash64(b"a@b.c"));
        let mut text = Vec::new();
        jid.write_to(&mut text);
        assert_eq!((text.len(), text.as_slice()), (jid.text_len(), b"a@b.c/d@e/f".as_slice()));
        assert!(jid.is("a@b.c/d@e/f") && !jid.is("a@b.c") && !jid.is("a@b.c/d@e/"));
        let domain = jid.bare().to_domain();
        assert_eq!(
            (domain.local(), domain.domain(), domain.hash64()),
            (None, "b.c", hash64(b"b.c"))
        );
        let long = format!("{}@b.c", "x".repeat(500));
        assert_eq!(BareJid::parse(&long).unwrap().as_str(), long);
    }

    #[test]
    fn maps_can_be_asked_by_text() {
        let mut map = Map::default();
        map.insert(BareJid::parse("a@b").unwrap(), 1);
        assert_eq!(map.get("a@b"), Some(&1));
    }

    #[test]
    fn cache_stays_within_its_capacity_and_keeps_what_is_used() {
        let mut cache = JidCache::new(64);
        let first = cache.parse("Romeo@Example.net/Orchard").unwrap();
        for n in 0..10_000 {
            assert_eq!(cache.parse(&format!("u{n}@b")).unwrap().to_string(), format!("u{n}@b"));
            if n % 16 == 0 {
                let again = cache.parse("Romeo@Example.net/Orchard").unwrap();
                assert!(Arc::ptr_eq(&again.bare.text, &first.bare.text));
            }
            assert!(cache.len() <= 64);
        }
        assert_eq!(cache.parse(&"x".repeat(5000)), Err(JidError::TooLong));
        assert_eq!(cache.parse("@"), Err(JidError::DomainEmpty));
        assert!(cache.len() <= 64);
    }
}
