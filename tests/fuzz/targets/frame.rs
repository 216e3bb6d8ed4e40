//! Body of the fuzz target `frame`: what another node may send as frames. The first byte chooses how much of a header is
//! put right, as a hostile node would, and how the bytes are cut; the rest are the bytes.
//!
//! Promised: nothing panics; the cuts change nothing; what is accepted can be read to its last field, and is the same
//! once more when it is written again.

use corefire::frame::{Batch, Encoder, Envelope, FRAME_BYTES_MAX, FrameError, Incoming, Kind};

const LIMIT: usize = 1 << 16;

pub(crate) fn frame(data: &[u8]) {
    let Some((&choice, bytes)) = data.split_first() else { return };
    let mut bytes = bytes.to_vec();
    if choice & 1 != 0 {
        seal(&mut bytes, choice & 2 != 0);
    }
    let (whole, whole_end) = read(&bytes, bytes.len());
    let (cut, cut_end) = read(&bytes, usize::from(choice >> 2));
    assert!(whole.as_bytes() == cut.as_bytes(), "cuts change what is read");
    assert_eq!(whole_end, cut_end);
}

/// Makes one frame of all bytes, whose length and checksum are right; and what is fixed in a header, too.
fn seal(bytes: &mut Vec<u8>, header: bool) {
    if bytes.len() < 16 {
        return;
    }
    bytes.truncate(bytes.len() / 16 * 16);
    let Ok(length) = u32::try_from(bytes.len()) else { return };
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    if header {
        bytes[8..10].copy_from_slice(&[1, 0]);
        bytes[10] = 1 + bytes[10] % 4;
        bytes[12] %= 16;
        bytes[13..16].fill(0);
    }
    let mut hasher = crc32fast::Hasher::new_with_initial(length);
    hasher.update(&bytes[8..]);
    bytes[4..8].copy_from_slice(&hasher.finalize().to_le_bytes());
}

/// What a link that brings pieces of `piece` bytes has said up to its end, written again; and its error, if any.
fn read(bytes: &[u8], piece: usize) -> (Batch, Option<FrameError>) {
    let (mut incoming, mut written) = (Incoming::new(LIMIT), Batch::new());
    let mut encoder = Encoder::new(FRAME_BYTES_MAX);
    for piece in bytes.chunks(piece.max(1)) {
        incoming.push(piece);
        while let Some(frame) = incoming.next() {
            match frame {
                Ok(envelope) => write(&mut encoder, &mut written, &envelope),
                Err(error) => return (written, Some(error)),
            }
        }
    }
    (written, None)
}

fn write(encoder: &mut Encoder, written: &mut Batch, envelope: &Envelope<'_>) {
    assert!(envelope.kind == Kind::Control || std::str::from_utf8(envelope.stanza).is_ok());
    assert!(envelope.open_end <= envelope.close_start);
    encoder.append(written, envelope).expect("what was read can be written");
    assert_eq!(written.iter().last(), Some(*envelope), "the same when it is read again");
}
