//! Frames: what is written is read, and nothing else is.

use std::path::PathBuf;

use corefire::base::instant::Wall;
use corefire::frame::{
    Batch, Encoder, Envelope, Flags, FrameError, Incoming, Kind, Recipients, check,
};
use proptest::prelude::*;
use rkyv::util::AlignedVec;

const LIMIT: usize = 1 << 20;

/// What an envelope borrows from.
#[derive(Clone, Debug)]
struct Content {
    numbers: (u64, u64, u64, Option<u64>),
    small: (u8, u8, u8, u8),
    from: String,
    to: String,
    also_to: Vec<String>,
    stanza: String,
    cuts: (prop::sample::Index, prop::sample::Index),
}

impl Content {
    fn append(&self, encoder: &mut Encoder, batch: &mut Batch) -> Result<(), FrameError> {
        let also_to: Vec<&str> = self.also_to.iter().map(String::as_str).collect();
        encoder.append(batch, &self.envelope(&also_to))
    }

    fn envelope<'a>(&'a self, also_to: &'a [&'a str]) -> Envelope<'a> {
        let cut = |index: &prop::sample::Index| index.index(self.stanza.len() + 1) as u32;
        let (one, two) = (cut(&self.cuts.0), cut(&self.cuts.1));
        Envelope {
            epoch: self.numbers.0,
            number: self.numbers.1,
            hops: self.small.0,
            ingress: Wall(self.numbers.2),
            trace: self.numbers.3,
            flags: Flags(u16::from(self.small.1) << 4),
            from: &self.from,
            to: &self.to,
            also_to: Recipients::from(also_to),
            kind: Kind::from_u8(self.small.2).unwrap_or(Kind::Message),
            subtype: self.small.3,
            open_end: one.min(two),
            close_start: one.max(two),
            stanza: self.stanza.as_bytes(),
        }
    }
}

fn content() -> impl Strategy<Value = Content> {
    (
        any::<(u64, u64, u64, Option<u64>)>(),
        (any::<u8>(), any::<u8>(), 1u8..=4, any::<u8>()),
        ("\\PC{0,40}", "\\PC{0,40}"),
        prop::collection::vec("\\PC{0,20}", 0..6),
        "\\PC{0,300}",
        any::<(prop::sample::Index, prop::sample::Index)>(),
    )
        .prop_map(|(numbers, small, (from, to), also_to, stanza, cuts)| Content {
            numbers,
            small,
            from,
            to,
            also_to,
            stanza,
            cuts,
        })
}

/// Bytes in memory that is aligned as that of a link.
fn aligned(bytes: &[u8]) -> AlignedVec<16> {
    let mut aligned = AlignedVec::new();
    aligned.extend_from_slice(bytes);
    aligned
}

fn written(content: &Content) -> Batch {
    let mut batch = Batch::new();
    content.append(&mut Encoder::new(LIMIT), &mut batch).expect("the content is below the limit");
    batch
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read(contents in prop::collection::vec(content(), 1..6)) {
        let (mut encoder, mut batch) = (Encoder::new(LIMIT), Batch::new());
        for content in &contents {
            content.append(&mut encoder, &mut batch)?;
        }
        prop_assert_eq!(batch.frames(), contents.len());
        let bytes = aligned(batch.as_bytes());
        let (mut rest, mut trusted) = (bytes.as_slice(), batch.iter());
        for content in &contents {
            let also_to: Vec<&str> = content.also_to.iter().map(String::as_str).collect();
            let expected = content.envelope(&also_to);
            prop_assert_eq!(trusted.next(), Some(expected));
            let (checked, consumed) = check(rest, LIMIT)?;
            prop_assert_eq!(checked, expected);
            rest = &rest[consumed..];
        }
        prop_assert!(rest.is_empty() && trusted.next().is_none());
    }

    #[test]
    fn any_flipped_bit_is_refused(content in content()) {
        let batch = written(&content);
        let mut bytes = aligned(batch.as_bytes());
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(check(&bytes, LIMIT).is_err(), "bit {}", bit);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        prop_assert!(check(&bytes, LIMIT).is_ok());
    }

    #[test]
    fn any_truncation_is_refused(content in content()) {
        let bytes = aligned(written(&content).as_bytes());
        for len in 0..bytes.len() {
            prop_assert_eq!(check(&bytes[..len], LIMIT), Err(FrameError::Incomplete));
        }
    }

    #[test]
    fn any_bytes_are_answered_without_a_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..400), signed: bool) {
        if signed && bytes.len() >= 16 {
            // Past the checksum, as a hostile peer gets.
            let len = bytes.len() / 16 * 16;
            bytes.truncate(len);
            bytes[..4].copy_from_slice(&u32::try_from(len)?.to_le_bytes());
            bytes[8..16].copy_from_slice(&[1, 0, 1, 0, 0, 0, 0, 0]);
            let mut hasher = crc32fast::Hasher::new_with_initial(u32::try_from(len)?);
            hasher.update(&bytes[8..]);
            bytes[4..8].copy_from_slice(&hasher.finalize().to_le_bytes());
        }
        if let Ok((envelope, consumed)) = check(&aligned(&bytes), LIMIT) {
            prop_assert!(consumed <= bytes.len() && envelope.stanza.len() <= bytes.len());
        }
    }

    #[test]
    fn a_link_gives_the_same_frames_however_it_is_cut(
        contents in prop::collection::vec(content(), 1..5),
        pieces in prop::collection::vec(1usize..200, 1..40),
    ) {
        let (mut encoder, mut batch) = (Encoder::new(LIMIT), Batch::new());
        for content in &contents {
            content.append(&mut encoder, &mut batch)?;
        }
        let (mut rest, mut incoming, mut trusted) = (batch.as_bytes(), Incoming::new(LIMIT), batch.iter());
        let mut pieces = pieces.iter().cycle();
        while !rest.is_empty() {
            let piece = pieces.next().map_or(1, |piece| (*piece).min(rest.len()));
            incoming.push(&rest[..piece]);
            rest = &rest[piece..];
            while let Some(frame) = incoming.next() {
                prop_assert_eq!(Some(frame?), trusted.next());
            }
        }
        prop_assert!(trusted.next().is_none() && incoming.len_bytes() == 0);
    }

    #[test]
    fn cutting_to_a_mark_restores_the_batch(contents in prop::collection::vec(content(), 1..6), keep in any::<prop::sample::Index>()) {
        let keep = keep.index(contents.len());
        let (mut encoder, mut batch) = (Encoder::new(LIMIT), Batch::new());
        let mut before = (batch.mark(), Vec::new());
        for (at, content) in contents.iter().enumerate() {
            if at == keep {
                before = (batch.mark(), batch.as_bytes().to_vec());
            }
            content.append(&mut encoder, &mut batch)?;
        }
        batch.truncate_to(before.0);
        prop_assert_eq!(batch.as_bytes(), before.1.as_slice());
        prop_assert_eq!(batch.iter().count(), keep);
    }
}

const FANOUT: [&str; 3] = ["a@example.net", "m\u{fc}ller@example.net/\u{1f600}", "example.org"];

/// The frames in `tests/corpus/frame_v1`, by the name of their file.
fn frozen() -> Vec<(&'static str, Envelope<'static>)> {
    let message = Envelope {
        epoch: 1,
        number: 0x0102_0304_0506_0708,
        hops: 0,
        ingress: Wall(1_767_225_600_123_456),
        trace: None,
        flags: Flags::default(),
        from: "romeo@example.net/orchard",
        to: "juliet@example.com",
        also_to: Recipients::NONE,
        kind: Kind::Message,
        subtype: 1,
        open_end: 28,
        close_start: 46,
        stanza: b"<message id='1' type='chat'><body>hello</body></message>",
    };
    let fanout: &'static [&'static str] = &FANOUT;
    vec![
        ("message", message),
        (
            "fanout",
            Envelope {
                hops: 2,
                trace: Some(u64::MAX),
                flags: Flags::WANTS_ACK.with(Flags::RETRY),
                also_to: Recipients::from(fanout),
                ..message
            },
        ),
        (
            "presence",
            Envelope {
                kind: Kind::Presence,
                open_end: 11,
                close_start: 11,
                stanza: b"<presence/>",
                ..message
            },
        ),
        (
            "control",
            Envelope {
                kind: Kind::Control,
                subtype: 255,
                from: "",
                to: "",
                open_end: 0,
                close_start: 0,
                stanza: b"",
                ..message
            },
        ),
    ]
}

fn corpus(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/corpus/frame_v1/{name}.bin"))
}

/// `UPDATE=1 cargo test --test props frozen` writes what the list names and the corpus lacks.
#[test]
fn frames_frozen_in_version_1_still_read() {
    for (name, expected) in frozen() {
        if std::env::var_os("UPDATE").is_some() && !corpus(name).exists() {
            let mut batch = Batch::new();
            Encoder::new(LIMIT).append(&mut batch, &expected).expect("a small frame");
            std::fs::write(corpus(name), batch.as_bytes()).expect("the corpus can be written");
        }
        let bytes = aligned(&std::fs::read(corpus(name)).expect("the corpus has the frame"));
        assert_eq!(check(&bytes, LIMIT), Ok((expected, bytes.len())), "{name}");
        // And are still written so: a change of layout needs a new version.
        let mut batch = Batch::new();
        assert_eq!(Encoder::new(LIMIT).append(&mut batch, &expected), Ok(()));
        assert_eq!(batch.as_bytes(), bytes.as_slice(), "{name}");
    }
}
