//! The one message that crosses cores and nodes.
//!
//! A frame is a header of 16 bytes and an `rkyv` archive that is read in place. All numbers are little endian.
//!
//! | bytes | what |
//! |---|---|
//! | 0–3 | length of the whole frame, header and padding included; a multiple of 16 |
//! | 4–7 | CRC-32 (ISO-HDLC, as in zlib) of bytes 8 to the end, with the length as its initial value |
//! | 8–9 | version: 1 |
//! | 10 | kind: 1 message, 2 presence, 3 iq, 4 control |
//! | 11 | flags: 1 wants an acknowledgement, 2 retry, 4 storable, 8 content, 16 stamped, 32 probed, 64 archivable, 128 retracts |
//! | 12 | padding: zero bytes behind the archive, 0 to 15 |
//! | 13 | more flags: 1 refusal |
//! | 14–15 | zero |
//! | 16– | the archive, its root at its end, then the padding |
//!
//! In Python the checksum is `zlib.crc32(frame[8:], length)`. It finds corruption and hinders nobody: links between
//! nodes are authenticated, and what a peer sends is checked field by field all the same.
//!
//! Each version of the body is a type of its own (`v1`), frozen once released; frames of it in `tests/corpus` must
//! always read. Within a process frames are trusted, as only [`Encoder`] can fill a [`Batch`], or another process whose
//! frames were checked.

mod class;
mod codec;
#[expect(clippy::module_inception, reason = "the folder is named after what it is about")]
mod frame;
mod origin;
pub mod ring;
mod v1;

pub use class::{Class, message_flags};
pub use codec::{
    BATCH_BYTES_MAX, Batch, Encoder, FRAME_BYTES_MAX, Frames, Incoming, Mark, VERSIONS, check,
};
pub use frame::{Envelope, Flags, FrameError, Kind, Recipients, RecipientsIter};
pub use origin::Origin;

/// Of a control frame, as its subtype: all that follows was sent by the epoch in its text, or a later one.
pub const MARKER: u8 = 4;
/// As `MARKER`: the sender has let go of all that it lost by that epoch; to a federation core, all have.
pub const SEALED: u8 = 5;
