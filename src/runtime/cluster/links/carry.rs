//! A connection after its handshake: reads, writes and pings until something ends it.

use super::ended::Ended;
use super::hub::{Hub, LiveId};
use crate::cluster::link::{Event, Link};
use futures_lite::future::{or, yield_now};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval_at, sleep, timeout};
use tokio_rustls::TlsStream;

/// What is read at a time; then others on this thread have their turn.
const READ_BYTES: usize = 64 << 10;
/// Memory for output that a quiet link keeps.
const SPARE_BYTES: usize = 256 << 10;
const TICK: Duration = Duration::from_secs(1);
/// How long the last words to a peer may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// A connection on which both sides have introduced themselves.
pub(super) struct Greeted {
    pub(super) stream: TlsStream<TcpStream>,
    pub(super) link: Link,
    /// Begin with `Event::Up`.
    pub(super) events: Vec<Event>,
}

/// Runs the link until it ends. Its peer has been told, and all that are to be told here.
pub(super) async fn carry(hub: &Hub, greeted: Greeted) {
    let Greeted { stream, link, mut events } = greeted;
    let up = events.iter().position(|event| matches!(event, Event::Up { .. }));
    let Some(Event::Up { facts, frames_version }) = up.map(|at| events.remove(at)) else { return };
    let (link, wake) = (Rc::new(RefCell::new(link)), Rc::new(Notify::new()));
    let Some(id) = hub.up(*facts, frames_version, &link, &wake) else { return };
    let (read, mut write) = tokio::io::split(stream);
    let parts = Parts { hub, link: &link, id };
    let ended = match hub.dispatch(id, &mut events) {
        Ok(()) => {
            let writing = parts.write(&mut write, &wake);
            or(parts.read(read, &wake), or(writing, parts.tick(&wake))).await
        }
        Err(ended) => ended,
    };
    hub.down(id, &ended);
    // A Bye, where there is one. After a write that was cut off in its middle it would make no sense to the peer.
    let has_more_to_say = link.borrow().is_over() && !link.borrow().is_torn();
    if has_more_to_say && !matches!(ended, Ended::Broken(_) | Ended::Closed | Ended::Left) {
        let _ = timeout(GOODBYE, parts.finish(&mut write)).await;
    }
}

struct Parts<'a> {
    hub: &'a Hub,
    link: &'a RefCell<Link>,
    id: LiveId,
}

impl Parts<'_> {
    async fn read(&self, mut read: ReadHalf<TlsStream<TcpStream>>, wake: &Notify) -> Ended {
        let mut buffer = vec![0; READ_BYTES];
        let mut events = Vec::new();
        loop {
            let taken = match read.read(&mut buffer).await {
                Ok(0) => return Ended::Closed,
                Ok(taken) => taken,
                Err(error) => return error.into(),
            };
            if !self.hub.is_live(self.id) {
                return self.outlived().await;
            }
            let (received, has_output) = {
                let mut link = self.link.borrow_mut();
                let received = link.receive(self.hub.now(), &buffer[..taken], &mut events);
                (received, link.waiting_bytes() > 0)
            };
            self.hub.board.peer(self.id.run.node, |figures| figures.bytes_in += taken as u64);
            if let Err(ended) = self.hub.dispatch(self.id, &mut events) {
                return ended;
            }
            if let Err(refusal) = received {
                return refusal.into();
            }
            if has_output {
                wake.notify_one();
            }
            // However much comes in, the writer has its turn.
            yield_now().await;
        }
    }

    /// Somebody else has ended the link. What is being written, and a Bye, may have a moment.
    async fn outlived(&self) -> Ended {
        if !self.hub.is_leaving() {
            return Ended::Replaced;
        }
        sleep(GOODBYE).await;
        Ended::WeLeave
    }

    async fn write(&self, write: &mut WriteHalf<TlsStream<TcpStream>>, wake: &Notify) -> Ended {
        let mut bytes = Vec::new();
        loop {
            if let Err(error) = self.write_out(write, &mut bytes).await {
                return error.into();
            }
            if !self.hub.is_live(self.id) || self.link.borrow().is_over() {
                return if self.hub.is_leaving() { Ended::WeLeave } else { Ended::Replaced };
            }
            if bytes.capacity() > SPARE_BYTES {
                bytes = Vec::new();
            }
            wake.notified().await;
        }
    }

    /// Writes until nothing waits.
    async fn write_out(
        &self,
        write: &mut WriteHalf<TlsStream<TcpStream>>,
        bytes: &mut Vec<u8>,
    ) -> std::io::Result<()> {
        loop {
            self.link.borrow_mut().output(bytes);
            if bytes.is_empty() {
                return Ok(());
            }
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let written = write.write(rest).await?;
                rest = rest.split_at(written.min(rest.len())).1;
                self.link.borrow_mut().written(written);
                if written == 0 {
                    return Err(std::io::ErrorKind::WriteZero.into());
                }
            }
            write.flush().await?;
            let waiting = self.link.borrow().waiting_bytes();
            let sent = bytes.len() as u64;
            if self.hub.is_live(self.id) {
                self.hub.board.peer(self.id.run.node, |figures| {
                    figures.bytes_out += sent;
                    figures.queue_bytes = waiting;
                });
            }
        }
    }

    async fn tick(&self, wake: &Notify) -> Ended {
        let mut ticks = interval_at(tokio::time::Instant::now(), TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut events = Vec::new();
        loop {
            ticks.tick().await;
            let (ticked, estimate) = {
                let mut link = self.link.borrow_mut();
                let ticked = link.tick(self.hub.now(), &mut events);
                (ticked, link.estimate())
            };
            if let Err(refusal) = ticked {
                return refusal.into();
            }
            if !self.hub.is_live(self.id) {
                return self.outlived().await;
            }
            self.hub.board.peer(self.id.run.node, |figures| figures.estimate = estimate);
            if let Err(ended) = self.hub.dispatch(self.id, &mut events) {
                return ended;
            }
            wake.notify_one();
        }
    }

    async fn finish(&self, write: &mut WriteHalf<TlsStream<TcpStream>>) -> std::io::Result<()> {
        self.write_out(write, &mut Vec::new()).await?;
        write.shutdown().await
    }
}
