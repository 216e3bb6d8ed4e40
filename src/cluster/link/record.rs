//! The records of a link. All numbers are little endian.
//!
//! | bytes | what |
//! |---|---|
//! | 0–3 | bytes that follow the header |
//! | 4–7 | CRC-32 (ISO-HDLC) of bytes 8 to 15 and of what follows but its open end, with the length as its initial value |
//! | 8 | kind: 1 Hello, 2 Piece, 3 Ping, 4 Pong, 5 Epoch, 6 Bye, 7 Ask, 8 Answer |
//! | 9–11 | zero |
//! | 12–15 | bytes of the open end: frames, which have checksums of their own; 0 but for a Piece |
//!
//! TLS keeps strangers from changing anything; the checksum finds what our own memory and faults do.

use super::refusal::Refusal;

pub(super) const HEADER: usize = 16;
/// Memory that a quiet link keeps.
const KEPT_BYTES: usize = 256 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Hello = 1,
    Piece = 2,
    Ping = 3,
    Pong = 4,
    Epoch = 5,
    Bye = 6,
    Ask = 7,
    Answer = 8,
}

impl Kind {
    fn from_u8(code: u8) -> Option<Kind> {
        const ALL: [Kind; 8] = [
            Kind::Hello,
            Kind::Piece,
            Kind::Ping,
            Kind::Pong,
            Kind::Epoch,
            Kind::Bye,
            Kind::Ask,
            Kind::Answer,
        ];
        ALL.into_iter().find(|kind| *kind as u8 == code)
    }
}

/// A whole record, whose checksum is right.
#[derive(Debug)]
pub(super) struct Record<'a> {
    pub(super) kind: Kind,
    /// What the checksum covers.
    pub(super) sealed: &'a [u8],
    /// Not checked yet.
    pub(super) open: &'a [u8],
}

/// Writes a record behind what is in `out`.
///
/// - takes: parts that are under 4 GiB together
pub(super) fn write(out: &mut Vec<u8>, kind: Kind, sealed: [&[u8]; 2], open: &[u8]) {
    let number = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    let length = number(sealed[0].len() + sealed[1].len() + open.len());
    let mut header = [0; HEADER];
    header[..4].copy_from_slice(&length.to_le_bytes());
    header[8] = kind as u8;
    header[12..].copy_from_slice(&number(open.len()).to_le_bytes());
    let crc = checksum(length, &header[8..], sealed);
    header[4..8].copy_from_slice(&crc.to_le_bytes());
    out.reserve(HEADER + length as usize);
    for part in [&header, sealed[0], sealed[1], open] {
        out.extend_from_slice(part);
    }
}

fn checksum(length: u32, header: &[u8], sealed: [&[u8]; 2]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(length);
    hasher.update(header);
    sealed.iter().for_each(|part| hasher.update(part));
    hasher.finalize()
}

/// Gathers bytes and cuts them into records. It holds at most one record that is not complete and what was pushed last.
#[derive(Debug, Default)]
pub(super) struct Records {
    bytes: Vec<u8>,
    start: usize,
}

impl Records {
    /// Push only when `next` has given `None`.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.start);
        self.start = 0;
        if self.bytes.is_empty() && self.bytes.capacity() > KEPT_BYTES {
            self.bytes = Vec::new();
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next record; `None` if more bytes are needed. After an error what follows cannot be told apart.
    ///
    /// - takes: `limit`, the bytes behind a header at most: judged before they are awaited
    pub(super) fn next(&mut self, limit: usize) -> Result<Option<Record<'_>>, Refusal> {
        let unread = &self.bytes[self.start..];
        let Some((header, rest)) = unread.split_first_chunk::<HEADER>() else { return Ok(None) };
        let [l0, l1, l2, l3, c0, c1, c2, c3, kind, zeros @ .., o0, o1, o2, o3] = *header;
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        let (bytes, open) = (length as usize, u32::from_le_bytes([o0, o1, o2, o3]) as usize);
        if bytes > limit {
            return Err(Refusal::TooLarge { bytes, limit });
        }
        let kind = Kind::from_u8(kind).ok_or(Refusal::Kind(kind))?;
        if zeros != [0; 3] || open > bytes || (open > 0 && kind != Kind::Piece) {
            return Err(Refusal::Header);
        }
        let Some(body) = rest.get(..bytes) else { return Ok(None) };
        let (sealed, open) = body.split_at(bytes - open);
        if checksum(length, &header[8..], [sealed, &[]]) != u32::from_le_bytes([c0, c1, c2, c3]) {
            return Err(Refusal::Checksum);
        }
        self.start += HEADER + bytes;
        Ok(Some(Record { kind, sealed, open }))
    }

    /// Whether something came behind the last record.
    pub(super) fn has_more(&self) -> bool {
        self.start < self.bytes.len()
    }
}

/// Reads numbers and texts off the front of bytes. Each gives `Malformed` where they end too early.
#[derive(Debug)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        let (first, rest) = self.0.split_first_chunk().ok_or(Refusal::Malformed)?;
        self.0 = rest;
        Ok(*first)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Refusal> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Refusal> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Refusal> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Refusal> {
        self.array().map(u64::from_le_bytes)
    }

    /// Up to 255 bytes of UTF-8 behind their number. It ends up in logs, so there are no control characters in it.
    pub(super) fn text(&mut self) -> Result<&'a str, Refusal> {
        let bytes = usize::from(self.u8()?);
        let (text, rest) = self.0.split_at_checked(bytes).ok_or(Refusal::Malformed)?;
        self.0 = rest;
        let text = std::str::from_utf8(text).map_err(|_| Refusal::Malformed)?;
        if text.chars().any(char::is_control) { Err(Refusal::Malformed) } else { Ok(text) }
    }

    /// There must be no more.
    pub(super) fn end(self) -> Result<(), Refusal> {
        if self.0.is_empty() { Ok(()) } else { Err(Refusal::Malformed) }
    }
}

/// Longer texts are cut at the end of a character.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    let text = &text[..text.floor_char_boundary(usize::from(u8::MAX))];
    out.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(text.as_bytes());
}
