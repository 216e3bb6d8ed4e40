//! A member as SWIM knows it, and SWIM's messages as bytes.
//!
//! Facts of a node are not in here: a message names up to three members and carries news of many, so they are small.

use super::super::facts::{self, NAME_BYTES_MAX, Reader};
use super::super::view::Run;
use bytes::{Buf, BufMut};
use foca::{Codec, Header, Identity, Member, Message, State};
use std::net::SocketAddr;
use std::sync::Arc;

/// Known to SWIM by its address, so that a node that was started again replaces its last run, while two nodes of one name
/// are two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) name: Arc<str>,
    pub(super) run: Run,
    /// Rises each time that others declared this run dead although it lives.
    pub(super) life: u32,
    pub(super) link: SocketAddr,
}

impl Peer {
    /// Whoever is at this address: what is asked before anything is known of them.
    pub(super) fn at(link: SocketAddr) -> Peer {
        Peer { name: Arc::from(""), run: Run::default(), life: 0, link }
    }

    fn rank(&self) -> (u64, u32, u32) {
        (self.run.incarnation, self.run.node.0, self.life)
    }
}

impl Identity for Peer {
    type Addr = SocketAddr;

    fn renew(&self) -> Option<Peer> {
        Some(Peer { life: self.life.checked_add(1)?, ..self.clone() })
    }

    fn addr(&self) -> SocketAddr {
        self.link
    }

    fn win_addr_conflict(&self, adversary: &Peer) -> bool {
        self.rank() > adversary.rank()
    }
}

/// What cannot be written into the room that is left, or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no room, or no message of SWIM")]
pub(super) struct CodecFault;

#[derive(Clone, Copy, Debug)]
pub(super) struct PeerCodec;

impl Codec<Peer> for PeerCodec {
    type Error = CodecFault;

    fn encode_header(&mut self, header: &Header<Peer>, buf: impl BufMut) -> Result<(), CodecFault> {
        let mut bytes = Vec::with_capacity(128);
        put_peer(&mut bytes, &header.src);
        bytes.put_u16(header.src_incarnation);
        put_peer(&mut bytes, &header.dst);
        let (kind, number, third) = match &header.message {
            Message::Ping(number) => (0, Some(*number), None),
            Message::Ack(number) => (1, Some(*number), None),
            Message::PingReq { target, probe_number } => (2, Some(*probe_number), Some(target)),
            Message::IndirectPing { origin, probe_number } => {
                (3, Some(*probe_number), Some(origin))
            }
            Message::IndirectAck { target, probe_number } => (4, Some(*probe_number), Some(target)),
            Message::ForwardedAck { origin, probe_number } => {
                (5, Some(*probe_number), Some(origin))
            }
            Message::Announce => (6, None, None),
            Message::Feed => (7, None, None),
            Message::Gossip => (8, None, None),
            Message::Broadcast => (9, None, None),
            Message::TurnUndead => (10, None, None),
        };
        bytes.put_u8(kind);
        bytes.extend(number);
        if let Some(third) = third {
            put_peer(&mut bytes, third);
        }
        put_all(&bytes, buf)
    }

    fn decode_header(&mut self, mut buf: impl Buf) -> Result<Header<Peer>, CodecFault> {
        let mut reader = Reader::new(buf.chunk());
        let header = header(&mut reader).ok_or(CodecFault)?;
        let read = buf.chunk().len() - reader.rest().len();
        buf.advance(read);
        Ok(header)
    }

    fn encode_member(&mut self, member: &Member<Peer>, buf: impl BufMut) -> Result<(), CodecFault> {
        let mut bytes = Vec::with_capacity(64);
        put_peer(&mut bytes, member.id());
        bytes.put_u16(member.incarnation());
        bytes.put_u8(match member.state() {
            State::Alive => 0,
            State::Suspect => 1,
            State::Down => 2,
        });
        put_all(&bytes, buf)
    }

    fn decode_member(&mut self, mut buf: impl Buf) -> Result<Member<Peer>, CodecFault> {
        let mut reader = Reader::new(buf.chunk());
        let member = member(&mut reader).ok_or(CodecFault)?;
        let read = buf.chunk().len() - reader.rest().len();
        buf.advance(read);
        Ok(member)
    }
}

/// Reads a whole message ahead of SWIM, so that what is not wholly sound changes nothing: who sent it, and every member
/// that it speaks of.
pub(super) fn survey(bytes: &[u8]) -> Option<(Peer, Vec<Peer>)> {
    let mut reader = Reader::new(bytes);
    let header = header(&mut reader)?;
    let mut peers = vec![header.src.clone()];
    if !reader.is_at_end() {
        for _ in 0..reader.u16()? {
            peers.push(member(&mut reader)?.id().clone());
        }
    }
    // Only who is not known yet may be without a name, and nobody tells news of them.
    if peers.iter().any(|peer| peer.name.is_empty()) {
        return None;
    }
    reader.is_at_end().then_some((header.src, peers))
}

fn put_all(bytes: &[u8], mut buf: impl BufMut) -> Result<(), CodecFault> {
    if buf.remaining_mut() < bytes.len() {
        return Err(CodecFault);
    }
    buf.put_slice(bytes);
    Ok(())
}

pub(super) fn put_peer(out: &mut Vec<u8>, peer: &Peer) {
    facts::put_text(out, &peer.name);
    facts::put_run(out, peer.run);
    out.put_u32(peer.life);
    facts::put_address(out, peer.link);
}

pub(super) fn peer(reader: &mut Reader<'_>) -> Option<Peer> {
    let name = reader.text().filter(|name| name.len() <= NAME_BYTES_MAX)?;
    let (run, life) = (reader.run()?, reader.u32()?);
    let link = reader.address().filter(|link| facts::is_reachable(*link))?;
    Some(Peer { name: Arc::from(name), run, life, link })
}

fn header(reader: &mut Reader<'_>) -> Option<Header<Peer>> {
    let (src, src_incarnation) = (peer(reader)?, reader.u16()?);
    let dst = peer(reader)?;
    let message = match reader.u8()? {
        0 => Message::Ping(reader.u8()?),
        1 => Message::Ack(reader.u8()?),
        2 => Message::PingReq { probe_number: reader.u8()?, target: peer(reader)? },
        3 => Message::IndirectPing { probe_number: reader.u8()?, origin: peer(reader)? },
        4 => Message::IndirectAck { probe_number: reader.u8()?, target: peer(reader)? },
        5 => Message::ForwardedAck { probe_number: reader.u8()?, origin: peer(reader)? },
        6 => Message::Announce,
        7 => Message::Feed,
        8 => Message::Gossip,
        // No node of ours sends `Broadcast` (9).
        10 => Message::TurnUndead,
        _ => return None,
    };
    Some(Header { src, src_incarnation, dst, message })
}

fn member(reader: &mut Reader<'_>) -> Option<Member<Peer>> {
    let (peer, incarnation) = (peer(reader)?, reader.u16()?);
    let state = match reader.u8()? {
        0 => State::Alive,
        1 => State::Suspect,
        2 => State::Down,
        _ => return None,
    };
    Some(Member::new(peer, incarnation, state))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::placement::NodeId;

    fn peer(node: u32, link: &str) -> Peer {
        Peer {
            name: Arc::from(format!("n{node}")),
            run: Run { node: NodeId(node), incarnation: 3 },
            life: 1,
            link: link.parse().expect("an address"),
        }
    }

    #[test]
    fn messages_come_back_as_they_went_and_no_part_of_one_does() {
        let (one, two, three) =
            (peer(1, "10.0.0.1:1"), peer(2, "[2001:db8::2]:2"), peer(3, "10.0.0.3:3"));
        let messages = [
            Message::Ping(1),
            Message::Ack(2),
            Message::PingReq { target: three.clone(), probe_number: 3 },
            Message::IndirectPing { origin: three.clone(), probe_number: 4 },
            Message::IndirectAck { target: three.clone(), probe_number: 5 },
            Message::ForwardedAck { origin: three.clone(), probe_number: 255 },
            Message::Announce,
            Message::Feed,
            Message::Gossip,
            Message::TurnUndead,
        ];
        for message in messages {
            let header = Header { src: one.clone(), src_incarnation: 9, dst: two.clone(), message };
            let mut bytes = Vec::new();
            PeerCodec.encode_header(&header, &mut bytes).expect("room");
            let mut rest = &bytes[..];
            assert_eq!(PeerCodec.decode_header(&mut rest), Ok(header));
            assert!(rest.is_empty());
            for cut in 0..bytes.len() {
                assert_eq!(PeerCodec.decode_header(&bytes[..cut]), Err(CodecFault));
            }
        }
        for state in [State::Alive, State::Suspect, State::Down] {
            let member = Member::new(three.clone(), 7, state);
            let mut bytes = Vec::new();
            PeerCodec.encode_member(&member, &mut bytes).expect("room");
            assert_eq!(PeerCodec.decode_member(&bytes[..]), Ok(member.clone()));
            let mut small = [0; 8];
            assert_eq!(PeerCodec.encode_member(&member, &mut small[..]), Err(CodecFault));
            assert_eq!(small, [0; 8]);
        }
    }

    #[test]
    fn the_later_run_and_life_keep_an_address() {
        let old = peer(1, "10.0.0.1:1");
        let renewed = old.renew().expect("another life");
        assert!(renewed.win_addr_conflict(&old) && !old.win_addr_conflict(&renewed));
        let next = Peer { run: Run { incarnation: 4, ..old.run }, life: 0, ..old };
        assert!(next.win_addr_conflict(&renewed));
    }
}
