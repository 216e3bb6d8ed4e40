//! A connection between two nodes: its socket stays where it is, and all else that it is goes as bytes to the shard that
//! owns its account. What it has used of its rates stays behind. Images come from another process and are checked.

use super::Shard;
use super::conn::{Conn, Hold, MovedConn};
use super::effect::{ConnId, Effects};
use crate::base::instant::{Instant, Now};
use crate::cluster::relay::IMAGE_BYTES_MAX;
use crate::stream::c2s::{self, C2s};
use crate::xmpp::stream_error::{StreamCondition, StreamError};
use crate::xmpp::xml::framer::Framer;
use rkyv::rancor::Failure;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

/// The first byte of an image. Another archive is another version.
const VERSION: u8 = 1;

#[derive(Archive, Serialize, Deserialize)]
struct Image {
    peer: [u8; 16],
    stream: c2s::Image,
    /// See `Framer::between_stanzas`.
    root: u32,
    attempts: u8,
    /// How long ago, in nanoseconds: the clocks of two nodes have nothing in common.
    heard: u64,
    began: u64,
    withheld: bool,
    unread: Vec<u8>,
    output: Vec<u8>,
}

/// Why an image is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    #[error("it has more than {IMAGE_BYTES_MAX} bytes")]
    TooLarge,
    #[error("its version is not known here")]
    Version,
    #[error("it is no image")]
    Archive,
    #[error(transparent)]
    Stream(#[from] c2s::ImageError),
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

impl Shard {
    /// Takes out a connection whose `Action::Move` names another node, to be given to `adopt_image` of the shard there.
    ///
    /// `None`, and the connection stays, where it does not wait to be moved: it was closed meanwhile.
    pub fn extract_image(&mut self, now: Now, id: ConnId) -> Option<Vec<u8>> {
        let conn = self.core.conns.get(id.0)?;
        if conn.hold != Hold::Move || conn.component.is_some() {
            return None;
        }
        let image = conn.image(now.mono, &self.core.usual)?;
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&rkyv::to_bytes::<Failure>(&image).ok()?);
        self.extract(id)?;
        Some(bytes)
    }

    /// Takes over a connection that a shard of another node extracted, and goes on where that one stopped.
    ///
    /// - takes: bytes of another process
    /// - errors: nothing has changed then
    pub fn adopt_image(
        &mut self,
        now: Now,
        bytes: &[u8],
        fx: &mut Effects,
    ) -> Result<ConnId, ImageError> {
        let (version, archive) = bytes.split_first().ok_or(ImageError::Archive)?;
        if bytes.len() > IMAGE_BYTES_MAX as usize {
            return Err(ImageError::TooLarge);
        }
        if *version != VERSION {
            return Err(ImageError::Version);
        }
        // An archive is read where memory is aligned for it.
        let mut aligned = AlignedVec::<16>::with_capacity(archive.len());
        aligned.extend_from_slice(archive);
        let image: Image =
            rkyv::from_bytes::<_, Failure>(&aligned).map_err(|_| ImageError::Archive)?;
        let stream = C2s::from_image(image.stream, &self.core.config.policy, &self.core.usual)?;
        let ago = |span: u64| Instant(now.mono.0.saturating_sub(span));
        let peer = IpAddr::V6(Ipv6Addr::from(image.peer)).to_canonical();
        let mut conn = Conn::new(stream, peer, ago(image.began));
        conn.heard_at = ago(image.heard);
        conn.attempts = image.attempts;
        conn.goes_on(Framer::between_stanzas(image.root), image.unread, image.output);
        conn.set_withheld(image.withheld);
        conn.is_relayed = true;
        Ok(self.adopt(now, MovedConn::of(conn), fx))
    }

    /// Ends a stream for a reason that lies with the runtime: its connection cannot go where its account is, or the node
    /// of its socket stops. A session of it may be resumed.
    pub fn end_stream(
        &mut self,
        now: Now,
        conn: ConnId,
        condition: StreamCondition,
        fx: &mut Effects,
    ) {
        self.core.now = now;
        self.close(conn, Some(StreamError::new(condition)), fx);
    }

    /// Sends a client to another node (RFC 6120 §4.9.3.19).
    pub fn redirect(&mut self, now: Now, conn: ConnId, host: &str, fx: &mut Effects) {
        self.core.now = now;
        self.close(conn, Some(StreamError::see_other_host(host)), fx);
    }

    /// Where clients are sent whose account is here, if they are.
    pub fn own_address(&self) -> Option<Arc<str>> {
        self.core.config.location.clone().filter(|_| self.core.config.redirects)
    }

    /// Where a connection comes from.
    pub fn peer_address(&self, conn: ConnId) -> Option<IpAddr> {
        self.core.conns.get(conn.0).map(|conn| conn.peer)
    }

    /// Whether an error and a close tag may follow what the connection was given to say, once that has left.
    pub fn may_end(&self, conn: ConnId) -> bool {
        self.core.conns.get(conn.0).is_some_and(|conn| conn.stream.may_end())
    }
}

impl Conn {
    fn image(
        &self,
        now: Instant,
        usual: &crate::xmpp::xml::reader::StreamContext,
    ) -> Option<Image> {
        let peer = match self.peer {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        Some(Image {
            peer: peer.octets(),
            stream: self.stream.image(usual)?,
            root: self.root()?,
            attempts: self.attempts,
            heard: nanos(now.since(self.heard_at)),
            began: nanos(now.since(self.began)),
            withheld: self.is_withheld(),
            unread: self.unread().to_vec(),
            output: self.unsent().to_vec(),
        })
    }
}
