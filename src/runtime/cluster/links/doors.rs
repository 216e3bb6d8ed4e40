//! How connections come about: dialled to peers with a higher node id, accepted from those with a lower one.

use super::super::tls;
use super::carry::{Greeted, carry};
use super::ended::Ended;
use super::hub::Hub;
use crate::base::limit::Bucket;
use crate::cluster::link::{Event, Link, Refusal};
use crate::cluster::view::{NodeFacts, Run};
use rustls::pki_types::CertificateDer;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::{sleep, timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

/// Handshakes that others have begun, at a time.
const HANDSHAKES_MAX: usize = 64;
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);
/// Connections a second from addresses of no peer, and at once.
const STRANGERS_PER_S: u32 = 100;
/// How long a dialler may wait to become known as a member: the news may come a moment later than it does. Below
/// `HANDSHAKE_WITHIN`, so that it is told why it waited in vain.
const UNKNOWN_WAITS: Duration = Duration::from_secs(3);
/// Pause before a peer is dialled again: doubled each time, with jitter.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// A link that held this long was sound: the next pause is the shortest again.
const SOUND_AFTER: Duration = Duration::from_secs(5);
/// After a failed accept (no descriptors left), so that the thread does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const READ_BYTES: usize = 4 << 10;
/// A Bye to who is refused must be quick.
const REFUSE_WITHIN: Duration = Duration::from_millis(500);

/// There should be links to these runs and no others.
pub(super) fn set_peers(hub: &Rc<Hub>, peers: Vec<NodeFacts>) {
    if hub.is_leaving() {
        return;
    }
    for peer in hub.keep(peers) {
        let node = peer.run.node;
        if hub.ours.facts.run.node < node {
            let task = spawn_local(dial(hub.clone(), peer));
            hub.set_dialler(node, task.abort_handle());
        }
    }
}

/// Dials a run of a node over and over, until it is aborted.
async fn dial(hub: Rc<Hub>, peer: NodeFacts) {
    let mut pause = PAUSE_MIN;
    while !hub.is_leaving() {
        let open = hub.open();
        let began = hub.now().mono;
        match timeout(HANDSHAKE_WITHIN, connect(&hub, &peer)).await {
            Ok(Ok(greeted)) => {
                carry(&hub, greeted).await;
                if hub.now().mono.since(began) >= SOUND_AFTER {
                    pause = PAUSE_MIN;
                }
            }
            Ok(Err(ended)) => hub.refused(Some(&peer), Some(peer.link.to_string()), &ended),
            Err(_) => hub.refused(Some(&peer), Some(peer.link.to_string()), &Ended::Timeout),
        }
        drop(open);
        sleep(hub.jittered(pause)).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn connect(hub: &Hub, peer: &NodeFacts) -> Result<Greeted, Ended> {
    let stream = reach(hub.ours.facts.link, peer.link).await.map_err(Ended::Unreachable)?;
    let name = tls::expected_name(&peer.name).ok_or(Refusal::Name(peer.name.clone()))?;
    let stream = TlsConnector::from(hub.tls.client.clone()).connect(name, stream).await?;
    let mut stream = TlsStream::from(stream);
    let mut link = Link::dial(hub.ours.clone(), peer.clone(), hub.epoch());
    write_out(&mut stream, &mut link).await?;
    let mut events = Vec::new();
    let met = converse(hub, &mut stream, &mut link, &mut events).await;
    hear(hub, peer.run, &events);
    if let Err(ended) = met {
        part(&mut stream, &mut link).await;
        return Err(ended);
    }
    Ok(Greeted { stream, link, events })
}

/// From the configured address, so that the peer sees the one that it knows, and no other network carries it.
async fn reach(ours: SocketAddr, theirs: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = if theirs.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if !ours.ip().is_unspecified() && ours.is_ipv4() == theirs.is_ipv4() {
        socket.bind(SocketAddr::new(ours.ip(), 0))?;
    }
    socket.set_nodelay(true)?;
    socket.connect(theirs).await
}

/// Reads until the link tells something of the handshake.
async fn converse(
    hub: &Hub,
    stream: &mut TlsStream<TcpStream>,
    link: &mut Link,
    events: &mut Vec<Event>,
) -> Result<(), Ended> {
    let mut buffer = [0; READ_BYTES];
    while !events.iter().any(|event| matches!(event, Event::Hello(_) | Event::Up { .. })) {
        let taken = stream.read(&mut buffer).await?;
        if taken == 0 {
            return Err(Ended::Closed);
        }
        link.receive(hub.now(), &buffer[..taken], events)?;
        if link.is_over() {
            return Err(Ended::Left);
        }
    }
    Ok(())
}

/// What a peer said of epochs in its handshake is told whether it is admitted or not: who is not known here may come with
/// a newer list of members.
fn hear(hub: &Hub, run: Run, events: &[Event]) {
    for event in events {
        if let Event::Epoch(epoch) = event {
            hub.heard(run, *epoch);
        }
    }
}

async fn write_out(stream: &mut TlsStream<TcpStream>, link: &mut Link) -> Result<(), Ended> {
    let mut bytes = Vec::new();
    link.output(&mut bytes);
    link.written(bytes.len());
    stream.write_all(&bytes).await?;
    stream.flush().await?;
    Ok(())
}

/// Sends the Bye of a refusal, if there is one.
async fn part(stream: &mut TlsStream<TcpStream>, link: &mut Link) {
    let last = async {
        write_out(stream, link).await?;
        stream.shutdown().await?;
        Ok::<(), Ended>(())
    };
    let _ = timeout(REFUSE_WITHIN, last).await;
}

/// Handshakes that others have begun, the oldest first.
#[derive(Default)]
struct Waiting(RefCell<VecDeque<(u64, AbortHandle)>>);

impl Waiting {
    fn leave(&self, hub: &Hub, number: u64) {
        let mut waiting = self.0.borrow_mut();
        waiting.retain(|(other, _)| *other != number);
        hub.board.handshakes(waiting.len());
    }

    fn enter(&self, hub: &Hub, number: u64, task: AbortHandle) {
        let mut waiting = self.0.borrow_mut();
        if waiting.len() >= HANDSHAKES_MAX
            && let Some((_, oldest)) = waiting.pop_front()
        {
            oldest.abort();
            hub.refused(None, None, &Ended::Crowded);
        }
        waiting.push_back((number, task));
        hub.board.handshakes(waiting.len());
    }
}

/// Takes connections for as long as the node runs.
pub(super) async fn accept(hub: Rc<Hub>, listener: TcpListener) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "links of other nodes cannot be taken"),
    };
    let waiting = Rc::new(Waiting::default());
    let mut strangers = Bucket::new(STRANGERS_PER_S, STRANGERS_PER_S, hub.now().mono);
    let mut next = 0;
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "a connection of another node cannot be accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if !hub.is_peer_address(address.ip()) && !strangers.take(1, hub.now().mono) {
            hub.refused(None, Some(address.to_string()), &Ended::Crowded);
            continue;
        }
        let number = next;
        next += 1;
        let task = spawn_local(admit(hub.clone(), waiting.clone(), number, stream, address));
        waiting.enter(&hub, number, task.abort_handle());
    }
}

async fn admit(
    hub: Rc<Hub>,
    waiting: Rc<Waiting>,
    number: u64,
    stream: TcpStream,
    address: SocketAddr,
) {
    let _open = hub.open();
    let mut peer = None;
    let greeted = timeout(HANDSHAKE_WITHIN, greet(&hub, stream, &mut peer)).await;
    waiting.leave(&hub, number);
    match greeted {
        Ok(Ok(greeted)) => carry(&hub, greeted).await,
        Ok(Err(ended)) => hub.refused(peer.as_ref(), Some(address.to_string()), &ended),
        Err(_) => hub.refused(peer.as_ref(), Some(address.to_string()), &Ended::Timeout),
    }
}

/// - gives: in `peer`, who it is by the members' list, as soon as that is known
async fn greet(
    hub: &Hub,
    stream: TcpStream,
    peer: &mut Option<NodeFacts>,
) -> Result<Greeted, Ended> {
    let _ = stream.set_nodelay(true);
    let stream = TlsAcceptor::from(hub.tls.server.clone()).accept(stream).await?;
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let certificate = certificates.first().map(|first| first.clone().into_owned());
    let mut stream = TlsStream::from(stream);
    let mut link = Link::accept(hub.ours.clone());
    let judged = judge(hub, &mut stream, &mut link, certificate, peer).await;
    match judged {
        Ok(events) => {
            write_out(&mut stream, &mut link).await?;
            Ok(Greeted { stream, link, events })
        }
        Err(ended) => {
            part(&mut stream, &mut link).await;
            Err(ended)
        }
    }
}

/// Admits the dialler, or has the link say why not.
async fn judge(
    hub: &Hub,
    stream: &mut TlsStream<TcpStream>,
    link: &mut Link,
    certificate: Option<CertificateDer<'static>>,
    peer: &mut Option<NodeFacts>,
) -> Result<Vec<Event>, Ended> {
    let mut events = Vec::new();
    converse(hub, stream, link, &mut events).await?;
    let hello = events.iter().find_map(|event| match event {
        Event::Hello(facts) => Some((**facts).clone()),
        _ => None,
    });
    let Some(theirs) = hello else { return Err(Refusal::Order.into()) };
    let judged = if certificate.is_some_and(|certificate| tls::names(&certificate, &theirs.name)) {
        hear(hub, theirs.run, &events);
        known(hub, theirs.run).await
    } else {
        Err(Refusal::Name(theirs.name))
    };
    match judged {
        Ok(expected) => {
            events.clear();
            let admitted = link.admit(&expected, hub.epoch(), &mut events);
            *peer = Some(expected);
            admitted?;
            Ok(events)
        }
        Err(refusal) => {
            link.refuse(&refusal);
            Err(refusal.into())
        }
    }
}

/// What the members' list says of a run, which may become known in a moment.
async fn known(hub: &Hub, run: Run) -> Result<NodeFacts, Refusal> {
    let search = async {
        loop {
            let changed = hub.changed.notified();
            match hub.peer(run.node) {
                Some(peer) if peer.run == run => return Ok(peer),
                // It is over.
                Some(peer) if peer.run.incarnation > run.incarnation => {
                    return Err(Refusal::Run { expected: peer.run, theirs: run });
                }
                _ if hub.is_leaving() => return Err(Refusal::Unknown(run)),
                _ => changed.await,
            }
        }
    };
    timeout(UNKNOWN_WAITS, search).await.unwrap_or(Err(Refusal::Unknown(run)))
}
