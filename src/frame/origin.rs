//! Where a stanza came from, by which one that comes again is known.

/// What names a stanza: of which run, over which ring, with which number; or its sender's session, the number in it, and a
/// hash of the words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Origin {
    pub incarnation: u64,
    /// Which ring or link of that incarnation.
    pub link: u32,
    pub number: u64,
}

impl Origin {
    /// Bytes of an origin as it is written.
    pub const BYTES: usize = 8 + 4 + 8;

    /// Incarnation, ring and number, big endian.
    pub fn write(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.incarnation.to_be_bytes());
        to.extend_from_slice(&self.link.to_be_bytes());
        to.extend_from_slice(&self.number.to_be_bytes());
    }

    /// The other way; gives what follows, too.
    pub fn read(bytes: &[u8]) -> Option<(Origin, &[u8])> {
        let (incarnation, rest) = bytes.split_first_chunk::<8>()?;
        let (link, rest) = rest.split_first_chunk::<4>()?;
        let (number, rest) = rest.split_first_chunk::<8>()?;
        let origin = Origin {
            incarnation: u64::from_be_bytes(*incarnation),
            link: u32::from_be_bytes(*link),
            number: u64::from_be_bytes(*number),
        };
        Some((origin, rest))
    }
}
