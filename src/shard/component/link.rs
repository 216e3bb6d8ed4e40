//! A component's side of a connection: its stream, and which stanzas of the output have not left yet.
//!
//! XEP-0114 has no acknowledgements: a stanza counts as delivered once it has been handed to the kernel. What has not
//! been is known stanza by stanza, so that it can be answered when the connection is lost. An IQ is answered then in any
//! case (`asked`).

use crate::stream::component::Component;
use std::collections::VecDeque;
use std::ops::Range;

/// One component's connection. Lives on the core that reads its socket.
#[derive(Debug, Default)]
pub(in crate::shard) struct Link {
    pub stream: Component,
    /// Bugs that its stanzas ran into; repeats end the stream.
    pub faults: u8,
    pub asked: super::asked::Asked,
    /// How many bytes of output were dropped from the front of the connection's buffer since the start.
    base: u64,
    /// Where stanzas that have not left whole start, counted from the start of the stream, and their lengths.
    waiting: VecDeque<(u64, u32)>,
}

impl Link {
    /// The last `length` bytes of an output of `output` bytes are a stanza.
    pub(in crate::shard) fn wrote(&mut self, output: usize, length: usize) {
        let start = self.base + (output - length) as u64;
        self.waiting.push_back((start, u32::try_from(length).unwrap_or(u32::MAX)));
    }

    /// The output was cut back to `output` bytes.
    pub(in crate::shard) fn cut(&mut self, output: usize) {
        let end = self.base + output as u64;
        while self.waiting.back().is_some_and(|&(start, _)| start >= end) {
            self.waiting.pop_back();
        }
    }

    /// The first `left` bytes of the output have left.
    pub(in crate::shard) fn left(&mut self, left: usize) {
        let end = self.base + left as u64;
        while self.waiting.front().is_some_and(|&(start, len)| start + u64::from(len) <= end) {
            self.waiting.pop_front();
        }
    }

    /// How many of the first `left` bytes of the output may be dropped: a stanza that has left in part stays whole.
    pub(in crate::shard) fn droppable(&self, left: usize) -> usize {
        let first = self.waiting.front().map(|&(start, _)| start.saturating_sub(self.base));
        first.and_then(|first| usize::try_from(first).ok()).map_or(left, |first| first.min(left))
    }

    pub(in crate::shard) fn dropped(&mut self, length: usize) {
        self.base += length as u64;
    }

    /// Where in the output the stanzas are that have not left.
    pub(in crate::shard) fn undelivered(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.waiting.iter().filter_map(|&(start, length)| {
            let start = usize::try_from(start.checked_sub(self.base)?).ok()?;
            Some(start..start + length as usize)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_left_in_part_stays_until_it_has_left_whole() {
        let mut link = Link::default();
        link.wrote(110, 10); // behind 100 bytes that are no stanza
        link.wrote(130, 20);
        link.wrote(160, 30);
        let waiting = |link: &Link| link.undelivered().collect::<Vec<_>>();
        link.left(115);
        assert_eq!(waiting(&link), [110..130, 130..160]);
        assert_eq!(link.droppable(115), 110);
        link.dropped(110);
        assert_eq!(waiting(&link), [0..20, 20..50]);
        link.cut(20);
        assert_eq!(waiting(&link), vec![0..20; 1]);
        link.left(20);
        assert!(waiting(&link).is_empty());
        assert_eq!(link.droppable(20), 20);
    }
}
