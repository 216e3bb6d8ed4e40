//! What goes between a session's owner and the shard that keeps its copy: records, any number of them in one frame.
//!
//! A record begins with its kind and the session's number at its owner. Numbers are big endian.

use crate::base::instant::Wall;
use crate::frame::Origin;
use crate::stream::resume::{Tally, Unacknowledged};

const WHOLE: u8 = 1;
const FRAME: u8 = 2;
const DELTA: u8 = 3;
const END: u8 = 4;
const REFUSED: u8 = 5;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record<'a> {
    /// All of it: a session's image.
    Whole { session: u64, image: &'a [u8] },
    /// What changes seldom, as an image without the queue.
    Frame { session: u64, image: &'a [u8] },
    /// Where it is now, and what was sent since the last record.
    Delta { session: u64, tally: Tally, stanzas: Vec<Unacknowledged> },
    /// It is no more, or elsewhere.
    End { session: u64 },
    /// The other way: there is no copy.
    Refused { session: u64 },
}

pub(super) fn write_whole(out: &mut Vec<u8>, session: u64, image: &[u8]) {
    write_image(out, WHOLE, session, image);
}

pub(super) fn write_frame(out: &mut Vec<u8>, session: u64, image: &[u8]) {
    write_image(out, FRAME, session, image);
}

fn write_image(out: &mut Vec<u8>, kind: u8, session: u64, image: &[u8]) {
    write_head(out, kind, session);
    write_bytes(out, image);
}

pub(super) fn write_delta<'a>(
    out: &mut Vec<u8>,
    session: u64,
    tally: &Tally,
    stanzas: impl ExactSizeIterator<Item = &'a Unacknowledged>,
) {
    write_head(out, DELTA, session);
    for number in [tally.handled, tally.sent, tally.acknowledged] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    write_optional(out, tally.known.map(u64::from));
    let count = u32::try_from(stanzas.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&count.to_be_bytes());
    for stanza in stanzas {
        out.extend_from_slice(&stanza.at.0.to_be_bytes());
        write_optional(out, stanza.log_id);
        write_origin(out, stanza.origin);
        write_bytes(out, &stanza.bytes);
    }
}

pub(super) fn write_end(out: &mut Vec<u8>, session: u64) {
    write_head(out, END, session);
}

pub(super) fn write_refused(out: &mut Vec<u8>, session: u64) {
    write_head(out, REFUSED, session);
}

fn write_head(out: &mut Vec<u8>, kind: u8, session: u64) {
    out.push(kind);
    out.extend_from_slice(&session.to_be_bytes());
}

fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
}

fn write_optional(out: &mut Vec<u8>, number: Option<u64>) {
    out.push(u8::from(number.is_some()));
    if let Some(number) = number {
        out.extend_from_slice(&number.to_be_bytes());
    }
}

fn write_origin(out: &mut Vec<u8>, origin: Option<Origin>) {
    out.push(u8::from(origin.is_some()));
    if let Some(origin) = origin {
        origin.write(out);
    }
}

/// The records of a frame, up to the first that is none: another node may be newer.
pub(super) struct Records<'a>(pub &'a [u8]);

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        let mut rest = self.0;
        let record = read(&mut rest);
        self.0 = if record.is_some() { rest } else { &[] };
        record
    }
}

fn read<'a>(rest: &mut &'a [u8]) -> Option<Record<'a>> {
    let kind = rest.split_off_first()?;
    let session = read_u64(rest)?;
    Some(match *kind {
        WHOLE => Record::Whole { session, image: read_bytes(rest)? },
        FRAME => Record::Frame { session, image: read_bytes(rest)? },
        DELTA => {
            let (handled, sent) = (read_u32(rest)?, read_u32(rest)?);
            let acknowledged = read_u32(rest)?;
            let known = read_optional(rest)?.map(u32::try_from).transpose().ok()?;
            let tally = Tally { handled, sent, acknowledged, known };
            let count = read_u32(rest)?;
            // The smallest stanza takes more than this, so a count that lies reserves nothing.
            let mut stanzas = Vec::with_capacity((count as usize).min(rest.len() / 14));
            for _ in 0..count {
                let at = Wall(read_u64(rest)?);
                let log_id = read_optional(rest)?;
                let origin = read_origin(rest)?;
                let bytes = read_bytes(rest)?.into();
                stanzas.push(Unacknowledged { bytes, log_id, origin, at, sent: None });
            }
            Record::Delta { session, tally, stanzas }
        }
        END => Record::End { session },
        REFUSED => Record::Refused { session },
        _ => return None,
    })
}

fn read_u64(rest: &mut &[u8]) -> Option<u64> {
    let (number, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(u64::from_be_bytes(*number))
}

fn read_u32(rest: &mut &[u8]) -> Option<u32> {
    let (number, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(u32::from_be_bytes(*number))
}

fn read_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = read_u32(rest)?;
    rest.split_off(..length as usize)
}

/// The outer one is for what is none at all.
fn read_optional(rest: &mut &[u8]) -> Option<Option<u64>> {
    match *rest.split_off_first()? {
        0 => Some(None),
        _ => read_u64(rest).map(Some),
    }
}

/// The outer one is for what is none at all.
fn read_origin(rest: &mut &[u8]) -> Option<Option<Origin>> {
    match *rest.split_off_first()? {
        0 => Some(None),
        _ => {
            let (origin, behind) = Origin::read(rest)?;
            *rest = behind;
            Some(Some(origin))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stanza(bytes: &[u8], log_id: Option<u64>) -> Unacknowledged {
        let origin = log_id.map(|number| Origin { incarnation: 2, link: 1, number });
        Unacknowledged { bytes: bytes.into(), log_id, origin, at: Wall(5), sent: None }
    }

    fn all() -> (Vec<u8>, Vec<Record<'static>>) {
        let stanzas = vec![stanza(b"<message/>", Some(1 << 40)), stanza(b"", None)];
        let tally = Tally { handled: 1, sent: u32::MAX, acknowledged: 3, known: Some(7) };
        let mut out = Vec::new();
        write_whole(&mut out, 1, b"image");
        write_frame(&mut out, 2, b"");
        write_delta(&mut out, 3, &tally, stanzas.iter());
        write_end(&mut out, 4);
        write_refused(&mut out, u64::MAX);
        let records = vec![
            Record::Whole { session: 1, image: b"image" },
            Record::Frame { session: 2, image: b"" },
            Record::Delta { session: 3, tally, stanzas },
            Record::End { session: 4 },
            Record::Refused { session: u64::MAX },
        ];
        (out, records)
    }

    #[test]
    fn what_is_written_is_read() {
        let (bytes, records) = all();
        assert_eq!(Records(&bytes).collect::<Vec<_>>(), records);
    }

    #[test]
    fn what_is_cut_gives_whole_records_and_no_more() {
        let (bytes, records) = all();
        for length in 0..bytes.len() {
            let read: Vec<_> = Records(&bytes[..length]).collect();
            assert!(read.len() < records.len() && records.starts_with(&read), "{length}");
        }
        assert_eq!(Records(&[99; 40]).count(), 0);
        let mut lying = vec![DELTA];
        lying.extend_from_slice(&[255; 60]);
        assert_eq!(Records(&lying).count(), 0);
    }
}
