//! What fronts and owners of relayed connections tell each other, as bytes: a kind, numbers (little endian), and text with
//! its length before it. The two nodes may be of different versions; a kind that is not known ends the piece.

use super::{INPUT_WINDOW, OUTPUT_WINDOW, Refusal};
use crate::base::instant::Wall;

/// An image may have so many bytes: what a client says in the turn that names its account, and what it has not taken.
pub const IMAGE_BYTES_MAX: u32 = 1 << 20;

/// Three parts and what stands between them (RFC 7622 §3.1).
const JID_BYTES_MAX: u32 = 3 * 1023 + 2;

/// How output leaves the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// Nothing comes after it.
    pub closing: bool,
    /// An error and a close tag may follow it: it ends between two elements of an open stream.
    pub may_end: bool,
}

/// `front` is a number of the socket's core, `conn` one of the connection's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Begins a piece; one more than that of the piece before it.
    Number(u64),
    Open {
        front: u64,
        image: &'a [u8],
    },
    Accepted {
        front: u64,
        conn: u64,
    },
    Refused {
        front: u64,
        why: Refusal,
    },
    Input {
        conn: u64,
        bytes: &'a [u8],
    },
    Output {
        front: u64,
        said: Said,
        bytes: &'a [u8],
    },
    /// So many bytes more may be sent to the connection.
    InputCredit {
        front: u64,
        bytes: u32,
    },
    /// So many bytes more may be sent to the socket.
    OutputCredit {
        conn: u64,
        bytes: u32,
    },
    /// The client is gone.
    Closed {
        conn: u64,
    },
    /// The connection is gone.
    Aborted {
        front: u64,
    },
    /// The node of the socket stops.
    Stop {
        conn: u64,
    },
    /// The front may send messages of the client itself, behind all that it has forwarded so far: so many bytes.
    Leave {
        front: u64,
        behind: u64,
        leave: Leave<'a>,
    },
    /// It may no more.
    NoLeave {
        front: u64,
    },
    /// It does, from that time on by its clock.
    Sends {
        conn: u64,
        at: Wall,
    },
    /// It does not, from here on.
    SendsNot {
        conn: u64,
    },
    /// As `Input`: one stanza, which the front has sent; its number, and when it came.
    Sent {
        conn: u64,
        number: u32,
        at: Wall,
        bytes: &'a [u8],
    },
}

/// What a front must know to read what its client says, and to send it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leave<'a> {
    /// Names the stream.
    pub token: u64,
    /// Names its session in the labels of messages.
    pub label: u64,
    /// What the stream began with: see `Framer::between_stanzas`.
    pub root: u32,
    /// Of the last stanza (XEP-0198).
    pub number: u32,
    /// Full JID of the client.
    pub jid: &'a str,
}

/// A piece that another node did not write, or that of a version which says more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message about a relayed connection cannot be read")]
pub struct Malformed;

const CLOSING: u8 = 1;
const MAY_END: u8 = 2;

pub(super) fn append(message: &Message<'_>, out: &mut Vec<u8>) {
    let mut put = |kind: u8, number: u64| {
        out.push(kind);
        out.extend_from_slice(&number.to_le_bytes());
    };
    match *message {
        Message::Number(number) => put(1, number),
        Message::Open { front, image } => {
            put(2, front);
            put_text(image, out);
        }
        Message::Accepted { front, conn } => {
            put(3, front);
            out.extend_from_slice(&conn.to_le_bytes());
        }
        Message::Refused { front, why } => {
            put(4, front);
            out.push(match why {
                Refusal::Full => 0,
                Refusal::Stopping => 1,
                Refusal::Image => 2,
            });
        }
        Message::Input { conn, bytes } => {
            put(5, conn);
            put_text(bytes, out);
        }
        Message::Output { front, said, bytes } => {
            put(6, front);
            let closing = if said.closing { CLOSING } else { 0 };
            out.push(closing | if said.may_end { MAY_END } else { 0 });
            put_text(bytes, out);
        }
        Message::InputCredit { front, bytes } => {
            put(7, front);
            out.extend_from_slice(&bytes.to_le_bytes());
        }
        Message::OutputCredit { conn, bytes } => {
            put(8, conn);
            out.extend_from_slice(&bytes.to_le_bytes());
        }
        Message::Closed { conn } => put(9, conn),
        Message::Aborted { front } => put(10, front),
        Message::Stop { conn } => put(11, conn),
        Message::Leave { front, behind, leave } => {
            put(12, front);
            out.extend_from_slice(&behind.to_le_bytes());
            out.extend_from_slice(&leave.token.to_le_bytes());
            out.extend_from_slice(&leave.label.to_le_bytes());
            out.extend_from_slice(&leave.root.to_le_bytes());
            out.extend_from_slice(&leave.number.to_le_bytes());
            put_text(leave.jid.as_bytes(), out);
        }
        Message::NoLeave { front } => put(13, front),
        Message::Sends { conn, at } => {
            put(14, conn);
            out.extend_from_slice(&at.0.to_le_bytes());
        }
        Message::SendsNot { conn } => put(15, conn),
        Message::Sent { conn, number, at, bytes } => {
            put(16, conn);
            out.extend_from_slice(&number.to_le_bytes());
            out.extend_from_slice(&at.0.to_le_bytes());
            put_text(bytes, out);
        }
    }
}

fn put_text(text: &[u8], out: &mut Vec<u8>) {
    // Below the bounds that `Messages` applies: windows, and that of an image.
    out.extend_from_slice(&(text.len() as u32).to_le_bytes());
    out.extend_from_slice(text);
}

/// Reads a piece. Nothing comes after an error.
pub fn messages(piece: &[u8]) -> Messages<'_> {
    Messages { rest: piece }
}

#[derive(Clone, Debug)]
pub struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Messages<'a> {
    fn read(&mut self) -> Option<Message<'a>> {
        let kind = self.byte()?;
        let number = self.number()?;
        Some(match kind {
            1 => Message::Number(number),
            2 => Message::Open { front: number, image: self.text(IMAGE_BYTES_MAX)? },
            3 => Message::Accepted { front: number, conn: self.number()? },
            4 => {
                let why = match self.byte()? {
                    0 => Refusal::Full,
                    1 => Refusal::Stopping,
                    2 => Refusal::Image,
                    _ => return None,
                };
                Message::Refused { front: number, why }
            }
            5 => Message::Input { conn: number, bytes: self.text(INPUT_WINDOW)? },
            6 => {
                let flags = self.byte()?;
                if flags & !(CLOSING | MAY_END) != 0 {
                    return None;
                }
                let said = Said { closing: flags & CLOSING != 0, may_end: flags & MAY_END != 0 };
                Message::Output { front: number, said, bytes: self.text(OUTPUT_WINDOW)? }
            }
            7 => Message::InputCredit { front: number, bytes: self.length()? },
            8 => Message::OutputCredit { conn: number, bytes: self.length()? },
            9 => Message::Closed { conn: number },
            10 => Message::Aborted { front: number },
            11 => Message::Stop { conn: number },
            12 => {
                let (behind, token, label) = (self.number()?, self.number()?, self.number()?);
                let (root, count) = (self.length()?, self.length()?);
                let jid = std::str::from_utf8(self.text(JID_BYTES_MAX)?).ok()?;
                let leave = Leave { token, label, root, number: count, jid };
                Message::Leave { front: number, behind, leave }
            }
            13 => Message::NoLeave { front: number },
            14 => Message::Sends { conn: number, at: Wall(self.number()?) },
            15 => Message::SendsNot { conn: number },
            16 => {
                let (count, at) = (self.length()?, Wall(self.number()?));
                Message::Sent { conn: number, number: count, at, bytes: self.text(INPUT_WINDOW)? }
            }
            _ => return None,
        })
    }

    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*byte)
    }

    fn number(&mut self) -> Option<u64> {
        let (bytes, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(u64::from_le_bytes(*bytes))
    }

    fn length(&mut self) -> Option<u32> {
        let (bytes, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(u32::from_le_bytes(*bytes))
    }

    fn text(&mut self, most: u32) -> Option<&'a [u8]> {
        let length = self.length().filter(|length| *length <= most)?;
        let (text, rest) = self.rest.split_at_checked(usize::try_from(length).ok()?)?;
        self.rest = rest;
        Some(text)
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let message = self.read();
        if message.is_none() {
            self.rest = &[];
        }
        Some(message.ok_or(Malformed))
    }
}
