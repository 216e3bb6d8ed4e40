//! The bytes of a peer, cut for its stream: a bounded buffer and a framer that begins anew when the stream does.

use super::{Event, S2sPolicy, S2sStream};
use crate::xmpp::stanza::Stanza;
use crate::xmpp::stream_error::{StreamCondition, StreamError};
use crate::xmpp::xml::framer::{Framer, Step};
use crate::xmpp::xml::reader::{Index, read, read_header};
use std::ops::Range;

/// Bytes that may wait beyond one element: what one read of a socket brings at most.
pub const READ_BYTES_MAX: usize = 256 << 10;

/// Room that an empty buffer keeps.
const IDLE_BYTES: usize = 4 << 10;

/// What came of one peer and is not read. Lives beside its stream.
#[derive(Debug, Default)]
pub struct Reader {
    framer: Framer,
    bytes: Vec<u8>,
    /// Where what is not read begins.
    at: usize,
    /// The element read last.
    element: Range<usize>,
    /// Beginnings of the stream that were seen.
    restarts: u32,
}

impl Reader {
    pub fn new() -> Reader {
        Reader::default()
    }

    /// Bytes came.
    ///
    /// - errors: `policy-violation` for bytes where only a handshake may come, and for more than one element and a read
    ///   that wait, which only a caller that does not call `next` meets
    pub fn receive(
        &mut self,
        bytes: &[u8],
        stream: &S2sStream,
        policy: &S2sPolicy,
    ) -> Result<(), StreamError> {
        if stream.is_starting_tls() {
            return Err(StreamError::new(StreamCondition::PolicyViolation)
                .with_text("plain text in place of the handshake"));
        }
        self.compact();
        let most = stream.limits(policy).stanza_bytes_max as usize + READ_BYTES_MAX;
        if self.bytes.len() + bytes.len() > most {
            return Err(
                StreamError::new(StreamCondition::PolicyViolation).with_text("too much at once")
            );
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// Bytes that came and are not read.
    pub fn unread(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Reads on, up to the next event. `None`: more bytes are needed, or an answer to the last event
    /// (`S2sStream::is_waiting`).
    ///
    /// - takes: `index`, overwritten
    /// - errors: the peer broke the stream: `close` with it is due, and nothing more is read. While TLS is being started
    ///   (text behind `<starttls/>` or `<proceed/>`) nothing can be said to it, and the connection is to be cut
    pub fn next(
        &mut self,
        stream: &mut S2sStream,
        policy: &S2sPolicy,
        index: &mut Index,
        out: &mut Vec<u8>,
    ) -> Result<Option<Event>, StreamError> {
        loop {
            if self.restarts != stream.restarts() {
                self.restarts = stream.restarts();
                self.framer.restart();
            }
            if stream.is_waiting() {
                return Ok(None);
            }
            let unread = self.bytes.get(self.at..).unwrap_or_default();
            let limits = stream.limits(policy);
            let event = match self.framer.next(unread, limits)? {
                Step::More(skip) => {
                    self.at += skip;
                    return Ok(None);
                }
                Step::Open(range) => {
                    let header = unread.get(range.clone()).unwrap_or_default();
                    self.at += range.end;
                    stream.header(read_header(header, limits)?, policy)?
                }
                Step::Close(end) => {
                    self.at += end;
                    Some(stream.ended())
                }
                Step::Stanza(range) => {
                    self.element = self.at + range.start..self.at + range.end;
                    self.at += range.end;
                    let bytes = unread.get(range).unwrap_or_default();
                    read(bytes, stream.context(), limits, index)?;
                    stream.element(&Stanza { bytes, index }, policy, out)?
                }
            };
            // What stands behind was sent without TLS, and must not be taken for what comes with it.
            if event == Some(Event::StartTls) && self.unread() > 0 {
                return Err(StreamError::new(StreamCondition::PolicyViolation)
                    .with_text("plain text in place of the handshake"));
            }
            if event.is_some() {
                return Ok(event);
            }
        }
    }

    /// The element that the last event is about, read by `index`; until more is received.
    pub fn stanza<'a>(&'a self, index: &'a Index) -> Stanza<'a> {
        Stanza { bytes: self.bytes.get(self.element.clone()).unwrap_or_default(), index }
    }

    fn compact(&mut self) {
        self.bytes.drain(..self.at);
        (self.at, self.element) = (0, 0..0);
        if self.bytes.is_empty() {
            self.bytes.shrink_to(IDLE_BYTES);
        }
    }
}
