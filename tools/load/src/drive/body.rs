//! What a message says: its place in the ledger and a checksum, as visible text that any server passes on.
//!
//! `9a5e.1f.2a.8c3d01e2 the café …`: run, conversation, number and CRC-32 in hexadecimal, then text up to the wanted
//! length. The run is there because a server may still hold messages of an earlier one for the same accounts.

use super::ledger::MessageId;
use crate::scan::Element;

/// With a letter of two bytes, as text has.
const TEXT: &str = " the café is open and there is coffee for all who come in out of the rain";

/// Writes bodies of one length.
pub(super) struct Bodies {
    filler: Vec<u8>,
    length: usize,
    run: u32,
}

impl Bodies {
    /// - takes: the length of a body in bytes; marks that are longer make it longer
    pub(super) fn new(run: u32, length: usize) -> Self {
        Self { filler: TEXT.bytes().cycle().take(length + TEXT.len()).collect(), length, run }
    }

    /// Appends the `id` of a message's stanza, by which an error finds it.
    fn write_id(&self, message: MessageId, out: &mut Vec<u8>) {
        hexadecimal(u64::from(self.run), out);
        out.push(b'.');
        hexadecimal(u64::from(message.conversation), out);
        out.push(b'.');
        hexadecimal(message.number, out);
    }

    /// Appends all of a message's stanza behind the text of its last other attribute, whose quote is still open.
    pub(super) fn write_end(&self, message: MessageId, out: &mut Vec<u8>) {
        out.extend_from_slice(b"' id='");
        self.write_id(message, out);
        out.extend_from_slice(b"'><body>");
        self.write(message, out);
        out.extend_from_slice(b"</body></message>");
    }

    /// Appends the body of a message. It holds nothing that XML escapes.
    pub(super) fn write(&self, message: MessageId, out: &mut Vec<u8>) {
        let begin = out.len();
        self.write_id(message, out);
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(&out[begin..]);
        // A dot and 8 digits follow.
        let mut rest = self.length.saturating_sub(out.len() - begin + 9);
        while rest < self.filler.len() && self.filler[rest] & 0xc0 == 0x80 {
            rest += 1;
        }
        let filler = &self.filler[..rest];
        checksum.update(filler);
        let checksum = checksum.finalize();
        out.push(b'.');
        for digit in (0..8).rev() {
            out.push(DIGITS[(checksum >> (digit * 4)) as usize & 15]);
        }
        out.extend_from_slice(filler);
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Appends a number without leading zeros.
pub(super) fn hexadecimal(number: u64, out: &mut Vec<u8>) {
    let digits = (u64::BITS - (number | 1).leading_zeros()).div_ceil(4);
    for digit in (0..digits).rev() {
        out.push(DIGITS[(number >> (digit * 4)) as usize & 15]);
    }
}

/// Reads hexadecimal digits up to the first other byte; gives the rest behind that byte.
pub(super) fn read_hexadecimal(text: &[u8]) -> Option<(u64, &[u8])> {
    let end = text.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(text.len());
    if end == 0 || end > 16 {
        return None;
    }
    let value = text[..end].iter().fold(0u64, |value, digit| {
        value << 4 | u64::from((*digit as char).to_digit(16).unwrap_or(0))
    });
    Some((value, text.get(end + 1..).unwrap_or_default()))
}

/// Reads what [`Bodies::write_id`] wrote, and gives what follows behind one more byte. `None`: not one of this run.
pub(super) fn read_id(run: u32, text: &[u8]) -> Option<(MessageId, &[u8])> {
    let (found, rest) = read_hexadecimal(text)?;
    let (conversation, rest) = read_hexadecimal(rest)?;
    let (number, rest) = read_hexadecimal(rest)?;
    let conversation = u32::try_from(conversation).ok()?;
    (found == u64::from(run)).then_some((MessageId { conversation, number }, rest))
}

/// Reads a body: the message and whether it is as it was written. `None`: not one of this run.
pub(super) fn read(run: u32, body: &[u8]) -> Option<(MessageId, bool)> {
    let (message, rest) = read_id(run, body)?;
    let marks = (body.len() - rest.len()).checked_sub(1)?;
    let told = rest
        .get(..8)
        .and_then(|digits| u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(body.get(..marks)?);
    checksum.update(rest.get(8..).unwrap_or_default());
    Some((message, body[marks] == b'.' && told == Some(checksum.finalize())))
}

/// The same of a message's stanza.
pub(super) fn of(run: u32, stanza: &Element<'_>) -> Option<(MessageId, bool)> {
    let text = stanza.child("body")?;
    let content = text.content();
    if content.contains(&b'&') { read(run, text.text().as_bytes()) } else { read(run, content) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: u32 = 0x1234_5678;

    fn body(length: usize, message: MessageId) -> Vec<u8> {
        let mut out = Vec::new();
        Bodies::new(RUN, length).write(message, &mut out);
        out
    }

    #[test]
    fn bodies_have_their_length_and_read_back() {
        for (conversation, number) in [(0, 0), (31, 42), (u32::MAX, u64::MAX)] {
            let message = MessageId { conversation, number };
            for length in [1, 35, 64, 77, 78, 79, 1000] {
                let body = body(length, message);
                let text = String::from_utf8(body.clone());
                assert!(text.is_ok_and(|text| !text.contains(['<', '&', '>'])));
                assert!(body.len() <= length.max(44) + 1, "{} for {length}", body.len());
                assert!(length < 44 || body.len() >= length);
                assert_eq!(read(RUN, &body), Some((message, true)));
            }
        }
    }

    #[test]
    fn any_changed_byte_is_seen() {
        let message = MessageId { conversation: 7, number: 300 };
        let whole = body(64, message);
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert_ne!(read(RUN, &changed), Some((message, true)), "byte {at}");
        }
        assert_ne!(read(RUN, &whole[..whole.len() - 1]), Some((message, true)));
        assert_eq!(read(RUN, b"hello"), None);
    }
}
