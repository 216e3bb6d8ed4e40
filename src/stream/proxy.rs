//! The header that a balancer puts before a client's bytes, to say where they come from: PROXY protocol, versions 1
//! (a line of text) and 2 (binary). Source: haproxy.org, proxy-protocol.txt, sections 2.1 and 2.2.
//!
//! Who may send one is the runtime's to say: whoever can, chooses the address that limits and logs see.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A longer header is refused: 16 bytes, two addresses, and some certificates' names in its extensions.
pub const HEADER_BYTES_MAX: usize = 4_096;

/// A line of version 1 with its CR LF.
const LINE_BYTES_MAX: usize = 107;
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and protocol, length.
const FIXED_BYTES: usize = 16;
const TYPE_CRC32C: u8 = 3;

/// A whole header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Where the client is; `None` where the balancer speaks for itself (LOCAL), or does not know (UNKNOWN, UNSPEC, a
    /// socket of the file system).
    pub source: Option<IpAddr>,
    /// Bytes of the header; the client's own come behind them.
    pub length: usize,
}

/// What is no header of either version. The connection is worth nothing: whose bytes come behind it is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("it begins like neither version")]
    Signature,
    #[error("a line that is longer than 107 bytes, or not as section 2.1 has it")]
    Line,
    #[error("a version other than 2")]
    Version,
    #[error("a command other than LOCAL and PROXY")]
    Command,
    #[error("an unknown address family, or no stream")]
    Family,
    #[error("too short for its addresses")]
    Short,
    #[error("longer than 4096 bytes")]
    Long,
    #[error("an extension that ends behind the header")]
    Extension,
    #[error("a checksum that does not fit")]
    Checksum,
}

/// Reads a header from the start of `bytes`.
///
/// - gives: `None` while it is not whole
/// - errors: as soon as no continuation could be a header
/// - cost: one pass; no allocation
pub fn read(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    match bytes.first() {
        None => Ok(None),
        Some(b'P') => read_line(bytes),
        Some(_) => read_binary(bytes),
    }
}

/// Version 1: `PROXY TCP4 192.0.2.1 198.51.100.1 50000 5222` and CR LF.
fn read_line(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    const START: &[u8] = b"PROXY ";
    let common = bytes.len().min(START.len());
    if bytes[..common] != START[..common] {
        return Err(Malformed::Signature);
    }
    let within = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    let Some(end) = memchr::memchr(b'\n', within) else {
        return if within.len() == LINE_BYTES_MAX { Err(Malformed::Line) } else { Ok(None) };
    };
    let line = bytes[START.len().min(end)..end].strip_suffix(b"\r").ok_or(Malformed::Line)?;
    let line = std::str::from_utf8(line).map_err(|_| Malformed::Line)?;
    let mut words = line.split(' ');
    let source = match words.next() {
        // What follows is to be ignored.
        Some("UNKNOWN") => None,
        Some("TCP4") => Some(IpAddr::V4(addresses(words)?)),
        Some("TCP6") => Some(IpAddr::V6(addresses(words)?)),
        _ => return Err(Malformed::Line),
    };
    Ok(Some(Header { source, length: end + 1 }))
}

/// Source and destination, and their ports; gives the source.
fn addresses<'a, A: std::str::FromStr>(
    mut words: impl Iterator<Item = &'a str>,
) -> Result<A, Malformed> {
    let mut next = || words.next().ok_or(Malformed::Line);
    let (source, destination, ports) = (next()?, next()?, [next()?, next()?]);
    let is_port = |word: &str| {
        let plain = word.bytes().all(|byte| byte.is_ascii_digit());
        plain && (word == "0" || !word.starts_with('0')) && word.parse::<u16>().is_ok()
    };
    if words.next().is_some() || !ports.into_iter().all(is_port) {
        return Err(Malformed::Line);
    }
    destination.parse::<A>().map_err(|_| Malformed::Line)?;
    source.parse().map_err(|_| Malformed::Line)
}

/// Version 2.
fn read_binary(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let common = bytes.len().min(SIGNATURE.len());
    if bytes[..common] != SIGNATURE[..common] {
        return Err(Malformed::Signature);
    }
    let Some(fixed) = bytes.first_chunk::<FIXED_BYTES>() else { return Ok(None) };
    let [.., version, family, high, low] = *fixed;
    if version >> 4 != 2 {
        return Err(Malformed::Version);
    }
    let is_local = match version & 15 {
        0 => true,
        1 => false,
        _ => return Err(Malformed::Command),
    };
    // Unknown ones are an error even where they do not matter. A stream is what we listen on.
    let address_bytes = match (family >> 4, family & 15) {
        (0, 0..=2) | (0..=3, 0) => 0,
        (1, 1) => 12,
        (2, 1) => 36,
        (3, 1) => 216,
        // Health checks come as they like.
        (1..=3, 2) if is_local => 0,
        _ => return Err(Malformed::Family),
    };
    let length = FIXED_BYTES + usize::from(u16::from_be_bytes([high, low]));
    if length > HEADER_BYTES_MAX {
        return Err(Malformed::Long);
    }
    if is_local {
        // Addresses and extensions are to be skipped unread.
        return Ok((bytes.len() >= length).then_some(Header { source: None, length }));
    }
    if length < FIXED_BYTES + address_bytes {
        return Err(Malformed::Short);
    }
    let Some(header) = bytes.get(..length) else { return Ok(None) };
    let block = &header[FIXED_BYTES..];
    let source = match family >> 4 {
        1 => block.first_chunk::<4>().map(|octets| IpAddr::V4(Ipv4Addr::from(*octets))),
        2 => block.first_chunk::<16>().map(|octets| IpAddr::V6(Ipv6Addr::from(*octets))),
        _ => None,
    };
    // Without a protocol the addresses are not defined.
    let source = source.filter(|_| address_bytes > 0);
    // Without a known family it is not known either where the extensions begin.
    if address_bytes > 0 || family == 0 {
        extensions(header, FIXED_BYTES + address_bytes)?;
    }
    Ok(Some(Header { source, length }))
}

/// Extensions: a type, a length, a value. Only the checksum over the whole header is looked into.
fn extensions(header: &[u8], mut at: usize) -> Result<(), Malformed> {
    while at < header.len() {
        let Some(&[kind, high, low]) = header[at..].first_chunk::<3>() else {
            return Err(Malformed::Extension);
        };
        let start = at + 3;
        let end = start + usize::from(u16::from_be_bytes([high, low]));
        let value = header.get(start..end).ok_or(Malformed::Extension)?;
        if kind == TYPE_CRC32C {
            let told = <[u8; 4]>::try_from(value).map_err(|_| Malformed::Extension)?;
            // Reckoned with the checksum's own bytes as zero.
            let parts = [&header[..start], &[0; 4], &header[end..]];
            if crc32c(parts) != u32::from_be_bytes(told) {
                return Err(Malformed::Checksum);
            }
        }
        at = end;
    }
    Ok(())
}

/// CRC-32C (Castagnoli), bit by bit: it is asked for once per connection, over some hundred bytes.
fn crc32c(parts: [&[u8]; 3]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 };
    let crc = parts
        .into_iter()
        .flatten()
        .fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)));
    !crc
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn binary(version: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let mut header = SIGNATURE.to_vec();
        header.extend([version, family]);
        header.extend(u16::try_from(block.len()).unwrap().to_be_bytes());
        header.extend(block);
        header
    }

    fn ipv4(extensions: &[u8]) -> Vec<u8> {
        let block = [&[192, 0, 2, 7, 198, 51, 100, 1, 0xC3, 0x50, 0x14, 0x66], extensions].concat();
        binary(0x21, 0x11, &block)
    }

    /// With client bytes behind it, and in every cut.
    #[track_caller]
    fn reads(header: &[u8], source: Option<&str>) {
        let source = source.map(|text| text.parse().unwrap());
        let whole = Header { source, length: header.len() };
        let followed = [header, b"<stream:stream"].concat();
        assert_eq!(read(&followed), Ok(Some(whole)));
        for cut in 0..header.len() {
            assert_eq!(read(&header[..cut]), Ok(None), "{cut} bytes of it");
        }
        assert_eq!(read(header), Ok(Some(whole)));
    }

    #[test]
    fn lines_of_version_1_name_the_client() {
        reads(b"PROXY TCP4 192.0.2.7 198.51.100.1 50000 5222\r\n", Some("192.0.2.7"));
        reads(b"PROXY TCP6 2001:db8::7 2001:db8::1 0 65535\r\n", Some("2001:db8::7"));
        reads(b"PROXY UNKNOWN\r\n", None);
        reads(b"PROXY UNKNOWN ffff:f...f:ffff whatever 1 2\r\n", None);
        let longest = format!(
            "PROXY TCP6 {0} {0} 65535 65535\r\n",
            "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255"
        );
        assert!(longest.len() > LINE_BYTES_MAX);
        assert_eq!(read(longest.as_bytes()), Err(Malformed::Line));
    }

    #[test]
    fn every_line_that_is_not_as_specified_is_refused() {
        for line in [
            "PROXY \r\n",
            "PROXY\r\n",
            "PROXY TCP4\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 50000\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 50000 5222 x\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 50000 5222 \r\n",
            "PROXY TCP4  192.0.2.7 198.51.100.1 50000 5222\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 50000 5222\n",
            "PROXY TCP4 192.0.2.256 198.51.100.1 50000 5222\r\n",
            "PROXY TCP4 192.0.2.07 198.51.100.1 50000 5222\r\n",
            "PROXY TCP4 2001:db8::7 2001:db8::1 50000 5222\r\n",
            "PROXY TCP6 192.0.2.7 198.51.100.1 50000 5222\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 65536 5222\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 050 5222\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 +50 5222\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1  5222\r\n",
            "PROXY UDP4 192.0.2.7 198.51.100.1 50000 5222\r\n",
            "PROXY tcp4 192.0.2.7 198.51.100.1 50000 5222\r\n",
        ] {
            let fault = read(line.as_bytes());
            assert!(matches!(fault, Err(Malformed::Line | Malformed::Signature)), "{line:?}");
        }
        assert_eq!(read(b"PROXY TCP4 \xFF\r\n"), Err(Malformed::Line));
        assert_eq!(read(&[b"PROXY ".as_slice(), &[b'x'; 101]].concat()), Err(Malformed::Line));
        assert_eq!(read(&[b"PROXY ".as_slice(), &[b'x'; 100]].concat()), Ok(None));
    }

    #[test]
    fn what_is_no_header_is_refused_at_its_first_wrong_byte() {
        for start in ["<", "PROXX", "\u{16}\u{3}", "\r\n\r\r", "\n", "PRI * HTTP/2.0"] {
            assert_eq!(read(start.as_bytes()), Err(Malformed::Signature), "{start:?}");
        }
    }

    #[test]
    fn headers_of_version_2_name_the_client() {
        reads(&ipv4(&[]), Some("192.0.2.7"));
        let mut v6 = [0; 36];
        v6[..16].copy_from_slice(&"2001:db8::7".parse::<Ipv6Addr>().unwrap().octets());
        reads(&binary(0x21, 0x21, &v6), Some("2001:db8::7"));
        // A socket of the file system has an address that means nothing here.
        reads(&binary(0x21, 0x31, &[b'x'; 216]), None);
    }

    #[test]
    fn a_balancer_may_speak_for_itself_or_not_know() {
        reads(&binary(0x20, 0x00, &[]), None);
        reads(&binary(0x20, 0x11, &[1, 2, 3]), None);
        reads(&binary(0x20, 0x12, &[0; 12]), None);
        reads(&binary(0x21, 0x00, &[]), None);
        // Addresses without a protocol are not defined.
        reads(&binary(0x21, 0x10, &[9; 12]), None);
        reads(&binary(0x21, 0x01, &[]), None);
    }

    #[test]
    fn extensions_are_skipped() {
        // ALPN, an empty one, and one of a type that nobody knows.
        reads(&ipv4(b"\x01\x00\x02h2\x04\x00\x00\xEE\x00\x01x"), Some("192.0.2.7"));
    }

    #[test]
    fn every_fault_of_version_2_is_told_apart() {
        let fault = |header: &[u8]| read(header).unwrap_err();
        assert_eq!(fault(&binary(0x11, 0x11, &[0; 12])), Malformed::Version);
        assert_eq!(fault(&binary(0x31, 0x11, &[0; 12])), Malformed::Version);
        assert_eq!(fault(&binary(0x22, 0x11, &[0; 12])), Malformed::Command);
        for family in [0x41, 0x13, 0x12, 0x22, 0x32, 0x03, 0xF0, 0x14] {
            assert_eq!(fault(&binary(0x21, family, &[0; 216])), Malformed::Family, "{family:#x}");
        }
        assert_eq!(fault(&binary(0x21, 0x11, &[0; 11])), Malformed::Short);
        assert_eq!(fault(&binary(0x21, 0x21, &[0; 35])), Malformed::Short);
        assert_eq!(fault(&binary(0x21, 0x31, &[0; 215])), Malformed::Short);
        assert_eq!(fault(&ipv4(&[0; HEADER_BYTES_MAX])), Malformed::Long);
        assert_eq!(fault(&binary(0x20, 0x00, &[0; HEADER_BYTES_MAX])), Malformed::Long);
        for extension in [&b"\x01"[..], b"\x01\x00", b"\x01\x00\x02x", b"\x03\x00\x02xx"] {
            assert_eq!(fault(&ipv4(extension)), Malformed::Extension, "{extension:?}");
        }
    }

    #[test]
    fn a_checksum_must_fit() {
        assert_eq!(crc32c([b"123", b"456", b"789"]), 0xE306_9283);
        let mut header = ipv4(b"\x01\x00\x02h2\x03\x00\x04\x00\x00\x00\x00\x04\x00\x01x");
        let at = header.len() - 8;
        let sum = crc32c([&header, &[], &[]]);
        header[at..at + 4].copy_from_slice(&sum.to_be_bytes());
        reads(&header, Some("192.0.2.7"));
        for place in [16, 31, at, header.len() - 1] {
            let mut broken = header.clone();
            broken[place] ^= 1;
            assert_eq!(read(&broken), Err(Malformed::Checksum), "{place}");
        }
    }
}
