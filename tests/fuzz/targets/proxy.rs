//! Body of the fuzz target `proxy`: the first bytes of a connection that comes through a balancer.
//!
//! Promised: nothing panics; a header is found in its own bytes, whatever follows, and in none of its beginnings; what
//! is refused is refused whatever follows.

use corefire::stream::proxy::{HEADER_BYTES_MAX, read};

pub(crate) fn proxy(data: &[u8]) {
    match read(data) {
        Ok(Some(header)) => {
            assert!((1..=HEADER_BYTES_MAX).contains(&header.length) && header.length <= data.len());
            assert_eq!(read(&data[..header.length]), Ok(Some(header)));
            for cut in [0, 1, header.length / 2, header.length - 1] {
                assert_eq!(read(&data[..cut]), Ok(None));
            }
        }
        // Whoever waits for more must not wait for ever.
        Ok(None) => assert!(data.len() < HEADER_BYTES_MAX),
        Err(fault) => {
            let followed = [data, b"x"].concat();
            assert_eq!(read(&followed), Err(fault));
        }
    }
}
