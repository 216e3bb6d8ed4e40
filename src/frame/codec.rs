//! Frames as bytes: written into batches, read in place, checked where they come from another process.

#![expect(unsafe_code, reason = "frames of our own are read in place without checking them again")]

use std::fmt;

use rkyv::rancor::Failure;
use rkyv::ser::Serializer;
use rkyv::ser::allocator::Arena;
use rkyv::util::AlignedVec;

use super::frame::{Envelope, Flags, FrameError, Kind};
use super::v1;

/// No limit of a frame may be above this.
pub const FRAME_BYTES_MAX: usize = 256 << 20;

/// A batch takes no more frames from here on: places in it are numbers of 32 bits.
pub const BATCH_BYTES_MAX: usize = 1 << 30;

/// The oldest and newest version that are read and written here.
pub const VERSIONS: (u16, u16) = (v1::VERSION, v1::VERSION);

const HEADER: usize = 16;
const ALIGN: usize = 16;
/// Bytes that a body needs beside its texts, generously; and for each further recipient.
const BODY_BYTES: usize = 192;
const RECIPIENT_BYTES: usize = 16;

/// Writes frames. One per core: it owns the scratch memory that long lists of recipients need.
pub struct Encoder {
    arena: Arena,
    frame_bytes_max: usize,
}

impl Encoder {
    /// - takes: the limit that the receivers apply; above `FRAME_BYTES_MAX` it counts as that
    pub fn new(frame_bytes_max: usize) -> Encoder {
        Encoder { arena: Arena::new(), frame_bytes_max: frame_bytes_max.min(FRAME_BYTES_MAX) }
    }

    /// Writes one frame behind those in `batch`; on an error `batch` is as before.
    ///
    /// - errors: `TooLarge`, `BatchFull`, `Offsets`
    /// - cost: one copy of the stanza, one pass for the checksum; memory only where the batch grows
    pub fn append(&mut self, batch: &mut Batch, envelope: &Envelope<'_>) -> Result<(), FrameError> {
        if !envelope.has_sound_offsets() {
            return Err(FrameError::Offsets);
        }
        let texts = envelope.from.len() + envelope.to.len() + envelope.stanza.len();
        let also_to = envelope.also_to.iter().map(|to| to.len() + RECIPIENT_BYTES).sum::<usize>();
        if texts + also_to > self.frame_bytes_max {
            return Err(FrameError::TooLarge);
        }
        if batch.complete > BATCH_BYTES_MAX {
            return Err(FrameError::BatchFull);
        }
        // A writer that panicked may have left a torn frame.
        batch.cut();
        batch.bytes.reserve(HEADER + BODY_BYTES + texts + also_to);
        let written = self.write(&mut batch.bytes, envelope);
        match written {
            Ok(()) => {
                batch.complete = batch.bytes.len();
                batch.count += 1;
            }
            Err(_) => batch.cut(),
        }
        written
    }

    fn write(
        &mut self,
        bytes: &mut AlignedVec<ALIGN>,
        envelope: &Envelope<'_>,
    ) -> Result<(), FrameError> {
        let start = bytes.len();
        bytes.extend_from_slice(&[0; HEADER]);
        let mut serializer = Serializer::new(&mut *bytes, self.arena.acquire(), ());
        rkyv::api::serialize_using::<_, Failure>(&v1::Body::of(envelope), &mut serializer)
            .map_err(|_| FrameError::Unwritable)?;
        let padding = bytes.len().next_multiple_of(ALIGN) - bytes.len();
        bytes.extend_from_slice(&[0; ALIGN][..padding]);
        let length = bytes.len() - start;
        if length > self.frame_bytes_max {
            return Err(FrameError::TooLarge);
        }
        let header = Header {
            length: u32::try_from(length).map_err(|_| FrameError::TooLarge)?,
            crc: 0,
            version: v1::VERSION,
            kind: envelope.kind as u8,
            flags: envelope.flags,
            padding: padding as u8,
            reserved: [0; 2],
        };
        let frame = &mut bytes.as_mut_slice()[start..];
        frame[..HEADER].copy_from_slice(&header.to_bytes());
        let crc = checksum(header.length, frame);
        frame[4..8].copy_from_slice(&crc.to_le_bytes());
        Ok(())
    }
}

/// Frames in a row, in memory of their own: what moves between cores and is written to links.
///
/// Its content is trusted: only [`Encoder::append`] writes it, or [`Batch::checked`] has judged every frame of it, and
/// cutting keeps to the ends of frames.
#[derive(Default)]
pub struct Batch {
    bytes: AlignedVec<ALIGN>,
    /// Bytes of complete frames.
    complete: usize,
    count: usize,
}

/// How many frames a batch held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(usize);

impl Batch {
    pub fn new() -> Batch {
        Batch::default()
    }

    pub fn with_capacity(bytes: usize) -> Batch {
        Batch { bytes: AlignedVec::with_capacity(bytes), complete: 0, count: 0 }
    }

    /// Takes over the frames in `bytes`, which another process wrote: nothing but whole frames, one after the other.
    ///
    /// - takes: `frame_bytes_max`, the bytes of a frame at most; `bytes` at any place in memory
    /// - errors: those of [`check`] for the first frame that fails; `Incomplete` where the last one is cut
    /// - cost: one copy, and two passes (checksum, UTF-8)
    pub fn checked(bytes: &[u8], frame_bytes_max: usize) -> Result<Batch, FrameError> {
        let mut copy = AlignedVec::<ALIGN>::with_capacity(bytes.len());
        copy.extend_from_slice(bytes);
        let mut batch = Batch { bytes: copy, complete: 0, count: 0 };
        while batch.complete < batch.bytes.len() {
            let (_, length) = check(&batch.bytes.as_slice()[batch.complete..], frame_bytes_max)?;
            batch.complete += length;
            batch.count += 1;
        }
        Ok(batch)
    }

    /// Its frames as bytes, in parts of whole frames: each has at most `bytes_max`, or is one larger frame.
    ///
    /// - cost: nothing where one part is enough, else a step per frame
    pub fn parts(&self, bytes_max: usize) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.as_bytes();
        std::iter::from_fn(move || {
            let mut end = if rest.len() <= bytes_max { rest.len() } else { 0 };
            while let Some(header) = Header::read(&rest[end..]) {
                let next = end + header.length as usize;
                if end > 0 && next > bytes_max {
                    break;
                }
                end = next;
            }
            let (part, tail) = rest.split_at_checked(end)?;
            rest = tail;
            (!part.is_empty()).then_some(part)
        })
    }

    /// How many frames it holds.
    pub fn frames(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn len_bytes(&self) -> usize {
        self.complete
    }

    /// Bytes of memory that it keeps.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Empties it and keeps its memory.
    pub fn clear(&mut self) {
        self.complete = 0;
        self.count = 0;
        self.cut();
    }

    /// Adds a frame that was in a batch before.
    ///
    /// - takes: one whole frame
    pub fn push_frame(&mut self, frame: &[u8]) {
        self.bytes.extend_from_slice(frame);
        self.complete += frame.len();
        self.count += 1;
    }

    pub fn mark(&self) -> Mark {
        Mark(self.count)
    }

    /// Drops all frames after the first `mark`. A mark beyond the end drops nothing.
    ///
    /// - cost: walks the frames that stay; meant for when something went wrong
    pub fn truncate_to(&mut self, mark: Mark) {
        if mark.0 >= self.count {
            return;
        }
        let mut frames = self.iter();
        frames.by_ref().take(mark.0).for_each(drop);
        let dropped = frames.rest.len();
        self.complete -= dropped;
        self.count = mark.0;
        self.cut();
    }

    /// The frames in order, read in place and not checked again.
    pub fn iter(&self) -> Frames<'_> {
        Frames { rest: self.as_bytes() }
    }

    /// The frames as they are written to a link.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes.as_slice()[..self.complete]
    }

    fn cut(&mut self) {
        if self.bytes.len() != self.complete {
            self.bytes.resize(self.complete, 0);
        }
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({} frames, {} bytes)", self.count, self.complete)
    }
}

impl<'a> IntoIterator for &'a Batch {
    type Item = Envelope<'a>;
    type IntoIter = Frames<'a>;

    fn into_iter(self) -> Frames<'a> {
        self.iter()
    }
}

/// Walks the frames of a [`Batch`].
#[derive(Clone)]
pub struct Frames<'a> {
    /// Complete frames of our own `Encoder`, from the start of one, aligned as in the batch.
    rest: &'a [u8],
}

impl<'a> Iterator for Frames<'a> {
    type Item = Envelope<'a>;

    fn next(&mut self) -> Option<Envelope<'a>> {
        let header = Header::read(self.rest)?;
        let (frame, rest) = self.rest.split_at_checked(header.length as usize)?;
        let kind = Kind::from_u8(header.kind)?;
        let archive = header.archive(frame)?;
        self.rest = rest;
        // SAFETY: `rest` is private to this file and only ever a tail of `Batch::bytes` that starts with a frame. These
        // bytes are written by `Encoder::append`, which counts a frame as complete only when `rkyv` has written a whole
        // `v1::Body` behind its header, whose root ends where the padding starts; or `Batch::checked` has had `check`
        // validate the same archive at the same place. The vector is aligned to 16 and each frame is a multiple of 16
        // long, so the archive is aligned as it was when it was written or checked. The borrow of the batch keeps the
        // bytes unchanged for 'a.
        let body = unsafe { rkyv::access_unchecked::<v1::Archived>(archive) };
        Some(body.envelope(kind, header.flags))
    }
}

/// Reads the first frame of `bytes` that come from another process.
///
/// - takes: memory aligned to 16; `limit`, the bytes of a frame at most
/// - gives: the frame, and the bytes that it takes: a multiple of 16
/// - errors: `Incomplete` if more bytes are needed; else the first of these that fails: length, checksum, version,
///   kind, archive, offsets, UTF-8 (of stanzas: what nodes tell each other need not be text)
/// - cost: two passes (checksum, UTF-8); no allocation
pub fn check(bytes: &[u8], limit: usize) -> Result<(Envelope<'_>, usize), FrameError> {
    if !bytes.as_ptr().addr().is_multiple_of(ALIGN) {
        return Err(FrameError::Misaligned);
    }
    let header = Header::read(bytes).ok_or(FrameError::Incomplete)?;
    let length = header.length as usize;
    if length > limit.min(FRAME_BYTES_MAX) {
        return Err(FrameError::TooLarge);
    }
    if length < HEADER || !length.is_multiple_of(ALIGN) {
        return Err(FrameError::Header);
    }
    let frame = bytes.get(..length).ok_or(FrameError::Incomplete)?;
    if checksum(header.length, frame) != header.crc {
        return Err(FrameError::Checksum);
    }
    if header.version != v1::VERSION {
        return Err(FrameError::Version(header.version));
    }
    if header.reserved != [0; 2] || usize::from(header.padding) >= ALIGN {
        return Err(FrameError::Header);
    }
    let kind = Kind::from_u8(header.kind).ok_or(FrameError::Kind(header.kind))?;
    let archive = header.archive(frame).ok_or(FrameError::Header)?;
    let body = rkyv::api::low::access::<v1::Archived, Failure>(archive)
        .map_err(|_| FrameError::Archive)?;
    let envelope = body.envelope(kind, header.flags);
    if !envelope.has_sound_offsets() {
        return Err(FrameError::Offsets);
    }
    if kind != Kind::Control {
        std::str::from_utf8(envelope.stanza).map_err(|_| FrameError::Utf8)?;
    }
    Ok((envelope, length))
}

/// Gathers the bytes of a link and cuts them into checked frames. One per link.
///
/// It holds at most one frame that is not complete and what was pushed last: push only when `next` has given `None`.
pub struct Incoming {
    bytes: AlignedVec<ALIGN>,
    /// Bytes that have been read: a multiple of 16, as all frames are.
    start: usize,
    frame_bytes_max: usize,
}

impl Incoming {
    /// - takes: the bytes of a frame at most; above `FRAME_BYTES_MAX` it counts as that
    pub fn new(frame_bytes_max: usize) -> Incoming {
        Incoming { bytes: AlignedVec::new(), start: 0, frame_bytes_max }
    }

    /// Adds what the link brought, cut anywhere.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            let unread = self.bytes.len() - self.start;
            self.bytes.as_mut_slice().copy_within(self.start.., 0);
            self.bytes.resize(unread, 0);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next frame; `None` if more bytes are needed.
    ///
    /// - errors: as in [`check`]; the same again at each call from then on
    #[expect(clippy::should_implement_trait, reason = "the frames borrow from this buffer")]
    pub fn next(&mut self) -> Option<Result<Envelope<'_>, FrameError>> {
        let unread = &self.bytes.as_slice()[self.start..];
        match check(unread, self.frame_bytes_max) {
            Ok((envelope, length)) => {
                self.start += length;
                Some(Ok(envelope))
            }
            Err(FrameError::Incomplete) => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// Bytes that have come in and are not read yet.
    pub fn len_bytes(&self) -> usize {
        self.bytes.len() - self.start
    }
}

#[derive(Clone, Copy)]
struct Header {
    length: u32,
    crc: u32,
    version: u16,
    kind: u8,
    flags: Flags,
    padding: u8,
    reserved: [u8; 2],
}

impl Header {
    fn read(bytes: &[u8]) -> Option<Header> {
        let [l0, l1, l2, l3, c0, c1, c2, c3, v0, v1, kind, flags, padding, more, reserved @ ..] =
            *bytes.first_chunk::<HEADER>()?;
        Some(Header {
            length: u32::from_le_bytes([l0, l1, l2, l3]),
            crc: u32::from_le_bytes([c0, c1, c2, c3]),
            version: u16::from_le_bytes([v0, v1]),
            kind,
            flags: Flags(u16::from_le_bytes([flags, more])),
            padding,
            reserved,
        })
    }

    fn to_bytes(self) -> [u8; HEADER] {
        let [l0, l1, l2, l3] = self.length.to_le_bytes();
        let [c0, c1, c2, c3] = self.crc.to_le_bytes();
        let [v0, v1] = self.version.to_le_bytes();
        let [f0, f1] = self.flags.0.to_le_bytes();
        let [r0, r1] = self.reserved;
        [l0, l1, l2, l3, c0, c1, c2, c3, v0, v1, self.kind, f0, self.padding, f1, r0, r1]
    }

    /// The body of `frame` without its padding.
    fn archive<'a>(&self, frame: &'a [u8]) -> Option<&'a [u8]> {
        frame.get(HEADER..frame.len().checked_sub(usize::from(self.padding))?)
    }
}

/// Of a whole frame, whose own checksum is left out.
fn checksum(length: u32, frame: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(length);
    hasher.update(frame.get(8..).unwrap_or_default());
    hasher.finalize()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::base::instant::Wall;
    use crate::frame::Recipients;

    fn envelope(number: u64) -> Envelope<'static> {
        Envelope {
            epoch: 3,
            number,
            hops: 1,
            ingress: Wall(1_700_000_000_000_000),
            trace: Some(9),
            flags: Flags::WANTS_ACK,
            from: "romeo@example.net/orchard",
            to: "juliet@example.com",
            also_to: Recipients::NONE,
            kind: Kind::Message,
            subtype: 2,
            open_end: 3,
            close_start: 5,
            stanza: b"<a>hi</a>",
        }
    }

    fn batch_of(count: u64) -> Batch {
        let (mut encoder, mut batch) = (Encoder::new(4096), Batch::new());
        for number in 0..count {
            encoder.append(&mut batch, &envelope(number)).unwrap();
        }
        batch
    }

    fn aligned(bytes: &[u8]) -> AlignedVec<ALIGN> {
        let mut copy = AlignedVec::new();
        copy.extend_from_slice(bytes);
        copy
    }

    /// Makes the checksum of the one frame in `bytes` right again, as a hostile peer would.
    fn sign(bytes: &mut [u8]) {
        let crc = checksum(Header::read(bytes).unwrap().length, bytes);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    }

    #[test]
    fn what_is_written_is_read() {
        let (mut encoder, mut batch) = (Encoder::new(4096), Batch::new());
        let also_to = ["a@b/c", "", "d@e"];
        let sent = Envelope { also_to: Recipients::from(also_to.as_slice()), ..envelope(7) };
        encoder.append(&mut batch, &sent).unwrap();
        encoder.append(&mut batch, &envelope(8)).unwrap();
        assert_eq!(batch.iter().collect::<Vec<_>>(), [sent, envelope(8)]);
        assert_eq!(batch.len_bytes() % 16, 0);
        let read = batch.iter().next().unwrap();
        assert_eq!(read.also_to.iter().collect::<Vec<_>>(), also_to);
        // Sent on from the frame itself.
        let mut onward = Batch::new();
        encoder.append(&mut onward, &Envelope { hops: 2, ..read }).unwrap();
        assert_eq!(onward.iter().next(), Some(Envelope { hops: 2, ..sent }));
    }

    #[test]
    fn a_batch_is_cut_back_to_a_mark() {
        let mut batch = batch_of(2);
        let mark = batch.mark();
        let bytes = batch.as_bytes().to_vec();
        let mut encoder = Encoder::new(4096);
        encoder.append(&mut batch, &envelope(2)).unwrap();
        encoder.append(&mut batch, &envelope(3)).unwrap();
        batch.truncate_to(mark);
        assert_eq!((batch.frames(), batch.as_bytes()), (2, bytes.as_slice()));
        batch.truncate_to(batch_of(5).mark());
        assert_eq!(batch.frames(), 2);
        encoder.append(&mut batch, &envelope(4)).unwrap();
        assert_eq!(batch.iter().map(|frame| frame.number).collect::<Vec<_>>(), [0, 1, 4]);
        batch.clear();
        assert!(batch.is_empty() && batch.iter().next().is_none() && batch.as_bytes().is_empty());
    }

    #[test]
    fn a_torn_frame_is_cut_off_before_the_next_is_written() {
        let mut batch = batch_of(1);
        batch.bytes.extend_from_slice(b"torn");
        assert_eq!(batch.iter().count(), 1);
        Encoder::new(4096).append(&mut batch, &envelope(1)).unwrap();
        assert_eq!(batch.iter().collect::<Vec<_>>(), [envelope(0), envelope(1)]);
    }

    #[test]
    fn frames_above_the_limit_are_not_written() {
        let (mut encoder, mut batch) = (Encoder::new(1024), batch_of(1));
        let before = batch.as_bytes().to_vec();
        for len in [900, 1_000, 5_000] {
            let stanza = vec![b'x'; len];
            let large = Envelope { stanza: &stanza, ..envelope(1) };
            assert_eq!(encoder.append(&mut batch, &large), Err(FrameError::TooLarge), "{len}");
        }
        let crossed = Envelope { open_end: 6, ..envelope(1) };
        assert_eq!(encoder.append(&mut batch, &crossed), Err(FrameError::Offsets));
        let beyond = Envelope { close_start: 10, ..envelope(1) };
        assert_eq!(encoder.append(&mut batch, &beyond), Err(FrameError::Offsets));
        assert_eq!(batch.as_bytes(), before);
    }

    #[test]
    fn a_hostile_frame_with_the_right_checksum_is_refused_by_field() {
        let refused = |change: &dyn Fn(&mut [u8])| {
            let mut bytes = aligned(batch_of(1).as_bytes());
            change(&mut bytes);
            sign(&mut bytes);
            check(&bytes, 4096).map(drop)
        };
        assert_eq!(refused(&|_| ()), Ok(()));
        assert_eq!(refused(&|bytes| bytes[8] = 2), Err(FrameError::Version(2)));
        assert_eq!(refused(&|bytes| bytes[10] = 0), Err(FrameError::Kind(0)));
        assert_eq!(refused(&|bytes| bytes[12] = 16), Err(FrameError::Header));
        assert_eq!(refused(&|bytes| bytes[14] = 1), Err(FrameError::Header));
        let text = |bytes: &mut [u8], text: &[u8], byte: u8| {
            let at = bytes.windows(text.len()).position(|window| window == text).unwrap();
            bytes[at] = byte;
        };
        assert_eq!(refused(&|bytes| text(bytes, b"<a>hi", 0xff)), Err(FrameError::Utf8));
        assert_eq!(refused(&|bytes| text(bytes, b"romeo", 0xff)), Err(FrameError::Archive));
        let offsets = [3, 0, 0, 0, 5, 0, 0, 0];
        assert_eq!(refused(&|bytes| text(bytes, &offsets, 6)), Err(FrameError::Offsets));
        // Whatever a byte is set to, nothing panics and what is accepted is sound.
        let len = batch_of(1).len_bytes();
        for at in 8..len {
            for byte in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bytes = aligned(batch_of(1).as_bytes());
                bytes[at] = byte;
                sign(&mut bytes);
                if let Ok((envelope, _)) = check(&bytes, 4096) {
                    assert!(envelope.has_sound_offsets());
                    assert!(envelope.also_to.iter().map(str::len).sum::<usize>() <= len);
                }
            }
        }
    }

    #[test]
    fn what_nodes_tell_each_other_need_not_be_text() {
        let stanza = &[0xff, 0, 0x80][..];
        for (kind, expected) in [(Kind::Control, None), (Kind::Iq, Some(FrameError::Utf8))] {
            let told = Envelope { kind, stanza, open_end: 0, close_start: 0, ..envelope(1) };
            let mut batch = Batch::new();
            Encoder::new(4096).append(&mut batch, &told).unwrap();
            let checked = Batch::checked(batch.as_bytes(), 4096);
            assert_eq!(checked.as_ref().err(), expected.as_ref());
            if let Ok(checked) = checked {
                assert_eq!(checked.iter().next().unwrap().stanza, stanza);
            }
        }
    }

    #[test]
    fn lengths_are_judged_before_the_frame_is_awaited() {
        let mut bytes = aligned(batch_of(1).as_bytes());
        bytes[..4].copy_from_slice(&0xffff_fff0u32.to_le_bytes());
        assert_eq!(check(&bytes[..16], 4096).map(drop), Err(FrameError::TooLarge));
        assert_eq!(check(&bytes[..16], usize::MAX).map(drop), Err(FrameError::TooLarge));
        assert_eq!(check(&bytes[..15], 4096).map(drop), Err(FrameError::Incomplete));
        bytes[..4].copy_from_slice(&0u32.to_le_bytes());
        assert_eq!(check(&bytes, 4096).map(drop), Err(FrameError::Header));
        bytes[..4].copy_from_slice(&40u32.to_le_bytes());
        assert_eq!(check(&bytes, 4096).map(drop), Err(FrameError::Header));
        assert_eq!(check(&bytes[1..], 4096).map(drop), Err(FrameError::Misaligned));
    }

    #[test]
    fn a_batch_of_another_process_is_the_same_one_or_none() {
        let batch = batch_of(3);
        // At odd places in memory, too.
        let shifted = [&[0; 3], batch.as_bytes()].concat();
        let mut taken = Batch::checked(&shifted[3..], 4096).unwrap();
        assert_eq!(taken.iter().collect::<Vec<_>>(), batch.iter().collect::<Vec<_>>());
        assert_eq!((taken.frames(), taken.len_bytes()), (3, batch.len_bytes()));
        Encoder::new(4096).append(&mut taken, &envelope(3)).unwrap();
        assert_eq!(taken.as_bytes(), batch_of(4).as_bytes());
        assert!(Batch::checked(&[], 4096).unwrap().is_empty());
        let refused = |bytes: &[u8], limit| Batch::checked(bytes, limit).map(drop);
        for cut in 1..batch.len_bytes() / 3 {
            let bytes = &batch.as_bytes()[..batch.len_bytes() - cut];
            assert_eq!(refused(bytes, 4096), Err(FrameError::Incomplete), "{cut}");
        }
        assert_eq!(refused(batch.as_bytes(), 64), Err(FrameError::TooLarge));
        let mut flipped = batch.as_bytes().to_vec();
        *flipped.last_mut().unwrap() ^= 1;
        assert_eq!(refused(&flipped, 4096), Err(FrameError::Checksum));
    }

    #[test]
    fn parts_are_whole_frames_and_all_of_them() {
        let batch = batch_of(7);
        let one = batch.len_bytes() / 7;
        for (bytes_max, parts) in [(0, 7), (one, 7), (one * 2, 4), (one * 7 - 1, 2), (one * 7, 1)] {
            let all: Vec<&[u8]> = batch.parts(bytes_max).collect();
            assert_eq!(all.len(), parts, "{bytes_max}");
            assert_eq!(all.concat(), batch.as_bytes());
            let frames = |part: &&[u8]| Batch::checked(part, 4096).unwrap().frames();
            assert_eq!(all.iter().map(frames).sum::<usize>(), 7);
        }
        assert_eq!(Batch::new().parts(10).count(), 0);
    }

    #[test]
    fn a_link_gives_the_same_frames_however_it_is_cut() {
        let batch = batch_of(5);
        for piece in [1, 7, 16, 100, 250, 10_000] {
            let mut incoming = Incoming::new(4096);
            let mut numbers = Vec::new();
            for bytes in batch.as_bytes().chunks(piece) {
                incoming.push(bytes);
                while let Some(frame) = incoming.next() {
                    numbers.push(frame.unwrap().number);
                }
            }
            assert_eq!(numbers, [0, 1, 2, 3, 4]);
            assert_eq!(incoming.len_bytes(), 0);
        }
        let mut incoming = Incoming::new(64);
        incoming.push(batch.as_bytes());
        for _ in 0..2 {
            assert_eq!(incoming.next(), Some(Err(FrameError::TooLarge)));
        }
    }
}
