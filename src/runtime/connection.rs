//! Client sockets: one task per connection reads; writing needs no task, as the turn's end writes once for each
//! connection that has output (`executor`). A connection that waits holds no buffer.

use super::executor::{self, Core};
use super::listener::Transport;
use super::relay::{self, Front};
use super::socket::{duplicate, send, send_records, shut, stream};
use super::tls::{Tls, TlsBroken};
use crate::admin::latency::TurnPart;
use crate::base::instant::Instant;
use crate::shard::{ConnId, Input, MovedConn};
use crate::stream::proxy;
use futures_lite::io::{AsyncRead, AsyncWrite};
use glommio::net::TcpStream;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Reads of one connection before others get their turn.
const READS_PER_POLL: u32 = 4;
/// How long a closed stream's peer may take to close its side.
const LINGER: Duration = Duration::from_secs(2);
/// How long the last output may take to leave.
pub(super) const LAST_OUTPUT: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The balancer's header is not whole.
    Header,
    /// Direct TLS: waits for a place among the handshakes.
    Queued,
    /// Shaking hands; no stream yet, or one that waits for STARTTLS.
    Handshake,
    Open,
    /// All has left and our side is shut; waits for the peer's.
    Lingering,
    /// The task drops the socket.
    Gone,
}

struct State {
    fd: RawFd,
    peer: IpAddr,
    /// When it was accepted.
    since: Instant,
    conn: Option<ConnId>,
    /// There where the connection is on another node; then `conn` is not.
    front: Option<Box<Front>>,
    tls: Option<Tls>,
    sealed: Vec<u8>,
    sealed_left: usize,
    waker: Option<Waker>,
    phase: Phase,
    /// The kernel's buffer is full: the task writes on when there is room.
    blocked: bool,
    has_slot: bool,
    /// What a balancer sent, until the client's own bytes can be taken.
    proxied: Option<Box<Proxied>>,
}

/// The start of a connection that comes through a balancer.
struct Proxied {
    /// The header, then what came behind it.
    bytes: Vec<u8>,
    transport: Transport,
}

/// One socket. Lives on the core that reads it.
pub(super) struct Socket {
    state: RefCell<State>,
}

/// A socket on its way to another core.
pub struct MovedSocket {
    conn: MovedConn,
    fd: OwnedFd,
    peer: IpAddr,
    tls: Option<Tls>,
    sealed: Vec<u8>,
}

impl State {
    fn new(fd: RawFd, peer: IpAddr, since: Instant) -> Self {
        Self {
            fd,
            peer,
            since,
            conn: None,
            front: None,
            tls: None,
            sealed: Vec::new(),
            sealed_left: 0,
            waker: None,
            phase: Phase::Open,
            blocked: false,
            has_slot: false,
            proxied: None,
        }
    }

    /// The costly part of a handshake is over.
    fn has_exchanged_keys(&self) -> bool {
        self.tls.as_ref().is_some_and(Tls::has_exchanged_keys)
    }

    fn wake(&mut self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    fn drop_soon(&mut self) {
        self.phase = Phase::Gone;
        self.wake();
    }
}

/// Begins serving an accepted connection.
///
/// - `proxied`: a header comes first and names the client; `peer` is a balancer
pub(super) fn open(
    core: &Rc<Core>,
    stream: TcpStream,
    peer: IpAddr,
    transport: Transport,
    proxied: bool,
) {
    let mut state = State::new(stream.as_raw_fd(), peer, core.clock.mono());
    if proxied {
        state.phase = Phase::Header;
        state.proxied = Some(Box::new(Proxied { bytes: Vec::new(), transport }));
    }
    let socket = Rc::new(Socket { state: RefCell::new(state) });
    if proxied || transport == Transport::DirectTls {
        let patience = core.settings.borrow().handshake_timeout;
        core.end_by(&socket, patience);
    }
    if !proxied && !begin(core, &socket, transport) {
        core.connections.leave();
        return;
    }
    serve(core, stream, socket);
}

/// The client is known: its stream begins, or its handshake waits for a place. False where it cannot.
fn begin(core: &Rc<Core>, socket: &Rc<Socket>, transport: Transport) -> bool {
    let mut state = socket.state.borrow_mut();
    if transport != Transport::DirectTls {
        let (mut shard, now) = (core.shard.borrow_mut(), core.clock.now());
        let conn = match transport {
            Transport::Component => shard.accept_component(now, state.peer),
            Transport::Plain | Transport::DirectTls => shard.accept(now, state.peer, None),
        };
        drop(shard);
        state.conn = Some(conn);
        state.phase = Phase::Open;
        core.register(conn, socket);
        return true;
    }
    match core.settings.borrow().tls.accept(true) {
        Ok(tls) => {
            state.tls = Some(tls);
            state.phase = Phase::Queued;
            true
        }
        Err(error) => {
            tracing::error!(%error, "TLS cannot be started");
            false
        }
    }
}

/// Reads on in a balancer's header; where it is whole, the connection is the client's.
fn read_header(core: &Rc<Core>, socket: &Rc<Socket>, bytes: &[u8]) -> Result<(), End> {
    let transport = {
        let mut state = socket.state.borrow_mut();
        let state = &mut *state;
        let Some(proxied) = state.proxied.as_mut() else { return Err(End::Ours) };
        proxied.bytes.extend_from_slice(bytes);
        let header = match proxy::read(&proxied.bytes) {
            Ok(None) => return Ok(()),
            Ok(Some(header)) => header,
            Err(fault) => {
                core.counts.borrow_mut().proxy_headers_malformed += 1;
                return Err(End::Header(fault));
            }
        };
        proxied.bytes.drain(..header.length);
        if let Some(client) = header.source {
            state.peer = client.to_canonical();
            if !core.shard.borrow_mut().admits(core.clock.now(), state.peer) {
                return Err(End::Refused);
            }
        }
        proxied.transport
    };
    if begin(core, socket, transport) { Ok(()) } else { Err(End::Ours) }
}

/// What came together with the header, as soon as it can be taken.
fn first_bytes(core: &Rc<Core>, socket: &Rc<Socket>) -> Result<(), TlsBroken> {
    let proxied = {
        let mut state = socket.state.borrow_mut();
        match state.phase {
            Phase::Handshake | Phase::Open => state.proxied.take(),
            _ => None,
        }
    };
    match proxied {
        Some(proxied) if !proxied.bytes.is_empty() => feed(core, socket, &proxied.bytes),
        _ => Ok(()),
    }
}

/// Goes on with a socket that another core gave away.
pub(super) fn adopt(core: &Rc<Core>, moved: MovedSocket) {
    let mut state = State::new(moved.fd.as_raw_fd(), moved.peer, core.clock.mono());
    state.tls = moved.tls;
    state.blocked = !moved.sealed.is_empty();
    state.sealed = moved.sealed;
    let socket = Rc::new(Socket { state: RefCell::new(state) });
    let conn = {
        let mut fx = core.fx.borrow_mut();
        core.shard.borrow_mut().adopt(core.clock.now(), moved.conn, &mut fx)
    };
    socket.state.borrow_mut().conn = Some(conn);
    core.register(conn, &socket);
    core.flush.notify();
    serve(core, stream(moved.fd), socket);
}

fn serve(core: &Rc<Core>, mut stream: TcpStream, socket: Rc<Socket>) {
    // Output is batched already: waiting for more would only add delay. A socket that is gone says so when read.
    let _ = stream.set_nodelay(true);
    let core = core.clone();
    glommio::spawn_local(async move {
        let end = loop {
            match poll_fn(|cx| core.guarded(|| step(&core, &socket, &mut stream, cx))).await {
                Step::Over(end) => break end,
                Step::More => executor::next_look().await,
            }
        };
        tracing::debug!(peer = %socket.state.borrow().peer, %end, "a connection ends");
        ended(&core, &socket);
    })
    .detach();
}

/// What became of a connection's poll.
enum Step {
    Over(End),
    /// There may be more to read, after others had their turn.
    More,
}

impl From<End> for Poll<Step> {
    fn from(end: End) -> Self {
        Poll::Ready(Step::Over(end))
    }
}

/// Why a connection's task is over; for the log.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("the peer closed its side")]
    Peer,
    #[error("dropped here, or moved to another core")]
    Ours,
    #[error("reading failed: {0}")]
    Read(io::Error),
    #[error("writing failed: {0}")]
    Write(io::Error),
    #[error("the peer broke TLS")]
    Tls,
    #[error("the balancer's header is none: {0}")]
    Header(proxy::Malformed),
    #[error("its address is not served, or connects too often")]
    Refused,
}

/// One poll of a connection's task: writes what waited for room, reads what is there.
fn step(
    core: &Rc<Core>,
    socket: &Rc<Socket>,
    stream: &mut TcpStream,
    cx: &mut Context<'_>,
) -> Poll<Step> {
    {
        let mut state = socket.state.borrow_mut();
        if state.waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
    }
    for _ in 0..READS_PER_POLL {
        let blocked = socket.state.borrow().blocked;
        if blocked && let Err(error) = write_on(core, socket, stream, cx) {
            return End::Write(error).into();
        }
        let phase = {
            let mut state = socket.state.borrow_mut();
            if state.phase == Phase::Queued && core.handshakes.enter(cx.waker()) {
                state.phase = Phase::Handshake;
                state.has_slot = true;
            }
            state.phase
        };
        if phase == Phase::Handshake && !socket.state.borrow().has_exchanged_keys() {
            let now = core.clock.mono();
            if !core.handshakes.may_go_on(now, cx.waker()) {
                return Poll::Pending;
            }
        }
        if socket.state.borrow().proxied.is_some() && first_bytes(core, socket).is_err() {
            return End::Tls.into();
        }
        let conn = socket.state.borrow().conn;
        let reading = match phase {
            Phase::Gone => return End::Ours.into(),
            Phase::Queued => false,
            Phase::Header | Phase::Handshake | Phase::Lingering => true,
            Phase::Open => match conn {
                Some(conn) => !core.is_suspended() && core.shard.borrow().is_reading(conn),
                // What its owner may do is for the owner's lease to say.
                None => with_front(socket, |front| relay::is_reading(core, front)) == Some(true),
            },
        };
        if !reading {
            return Poll::Pending;
        }
        let mut scratch = core.scratch.borrow_mut();
        let most = match phase {
            Phase::Header => header_room(socket).min(scratch.len()),
            _ => scratch.len(),
        };
        let length = match Pin::new(&mut *stream).poll_read(cx, &mut scratch[..most]) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(0)) => return End::Peer.into(),
            Poll::Ready(Err(error)) => return End::Read(error).into(),
            Poll::Ready(Ok(length)) => length,
        };
        if phase == Phase::Header {
            if let Err(end) = read_header(core, socket, &scratch[..length]) {
                return end.into();
            }
            continue;
        }
        if phase != Phase::Lingering && feed(core, socket, &scratch[..length]).is_err() {
            return End::Tls.into();
        }
    }
    Poll::Ready(Step::More)
}

/// Bytes that a header which is not whole may still have.
fn header_room(socket: &Socket) -> usize {
    let state = socket.state.borrow();
    let have = state.proxied.as_ref().map_or(0, |proxied| proxied.bytes.len());
    (proxy::HEADER_BYTES_MAX - have.min(proxy::HEADER_BYTES_MAX)).max(1)
}

/// Gives received bytes to the shard, through TLS where there is one.
fn feed(core: &Rc<Core>, socket: &Rc<Socket>, bytes: &[u8]) -> Result<(), TlsBroken> {
    let now = core.clock.now();
    core.turns.enter(TurnPart::Read, now.mono);
    let mut state = socket.state.borrow_mut();
    let state = &mut *state;
    if state.phase == Phase::Open {
        core.handshakes.served(Some(state.since), now.mono);
    }
    let Some(tls) = state.tls.as_mut() else {
        if let Some(conn) = state.conn {
            let mut fx = core.fx.borrow_mut();
            core.shard.borrow_mut().handle(now, Input::Bytes { conn, bytes }, &mut fx);
            core.flush.notify();
        } else if let Some(front) = &state.front {
            relay::input(core, front, bytes);
        }
        return Ok(());
    };
    let mut plain = core.plain.borrow_mut();
    let mut rest = bytes;
    let mut result = Ok(());
    while !rest.is_empty() {
        let handshaking = tls.is_handshaking().then(|| core.clock.mono());
        let taken = match tls.receive(rest) {
            Ok(taken) => taken,
            Err(broken) => {
                result = Err(broken);
                break;
            }
        };
        rest = &rest[taken..];
        if let Some(began) = handshaking {
            core.handshakes.took(core.clock.mono().since(began));
        }
        if handshaking.is_some() && !tls.is_handshaking() {
            let facts = tls.facts();
            core.counts.borrow_mut().handshakes += 1;
            state.phase = Phase::Open;
            if std::mem::take(&mut state.has_slot) {
                core.handshakes.leave();
            }
            match state.conn {
                Some(conn) => {
                    let mut fx = core.fx.borrow_mut();
                    let input = Input::Secured { conn, facts };
                    core.shard.borrow_mut().handle(now, input, &mut fx);
                }
                None => {
                    let mut shard = core.shard.borrow_mut();
                    let conn = shard.accept(now, state.peer, Some(facts));
                    shard.accepted_at(conn, state.since);
                    drop(shard);
                    state.conn = Some(conn);
                    core.register(conn, socket);
                }
            }
        }
        let mut progress = taken > 0;
        while let Some(length) = tls.read(&mut plain[..]) {
            if length == 0 {
                break;
            }
            progress = true;
            if let Some(conn) = state.conn {
                let mut fx = core.fx.borrow_mut();
                let input = Input::Bytes { conn, bytes: &plain[..length] };
                core.shard.borrow_mut().handle(now, input, &mut fx);
            } else if let Some(front) = &state.front {
                relay::input(core, front, &plain[..length]);
            }
        }
        if !progress {
            result = Err(TlsBroken::because("there is no progress"));
            break;
        }
    }
    // Answers of the handshake, tickets, alerts: at once, there is nothing to batch them with.
    tls.take_sealed(&mut state.sealed);
    if !state.blocked && send_sealed(state).is_err() {
        return Err(TlsBroken::because("its records cannot be sent"));
    }
    core.flush.notify();
    result
}

/// The turn's end: writes what a connection has.
pub(super) fn flush(core: &Rc<Core>, conn: ConnId) {
    let Some(socket) = core.socket(conn) else { return relay::flush(core, conn) };
    let mut state = socket.state.borrow_mut();
    core.shard.borrow_mut().flushing(conn);
    if state.blocked || state.phase == Phase::Gone {
        return;
    }
    match write_out(core, &mut state) {
        Ok(Written::All) => {}
        Ok(Written::Blocked) => {
            core.shard.borrow_mut().blocked(conn);
            state.blocked = true;
            state.wake();
        }
        Ok(Written::Finished) => finish(core, &socket, &mut state),
        Err(_) => state.drop_soon(),
    }
}

enum Written {
    All,
    Blocked,
    /// All, and nothing comes after it.
    Finished,
}

/// Writes until all has left or the kernel takes no more.
fn write_out(core: &Rc<Core>, state: &mut State) -> io::Result<Written> {
    loop {
        if !send_sealed(state)? {
            return Ok(Written::Blocked);
        }
        let Some(conn) = state.conn else { return write_front(core, state) };
        let mut shard = core.shard.borrow_mut();
        let Some(output) = shard.output(conn) else { return Ok(Written::All) };
        if output.bytes.is_empty() {
            return Ok(if output.closing { Written::Finished } else { Written::All });
        }
        // A handshake has begun: what the stream wants said comes after it.
        if state.phase == Phase::Handshake {
            return Ok(Written::All);
        }
        match state.tls.as_mut() {
            Some(tls) => {
                let length = tls.seal(output.bytes);
                shard.output_left(conn, length);
                tls.take_sealed(&mut state.sealed);
                if length == 0 && state.sealed.is_empty() {
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
            }
            None => {
                let wanted = output.bytes.len();
                let Some(length) = send(state.fd, output.bytes)? else {
                    return Ok(Written::Blocked);
                };
                shard.output_left(conn, length);
                if length < wanted {
                    return Ok(Written::Blocked);
                }
            }
        }
    }
}

/// As `write_out`, what came from the connection's own node. Sealed records have left.
fn write_front(core: &Rc<Core>, state: &mut State) -> io::Result<Written> {
    let Some(front) = state.front.as_mut() else { return Ok(Written::All) };
    loop {
        let output = front.output();
        if output.is_empty() {
            return Ok(if front.closing { Written::Finished } else { Written::All });
        }
        match state.tls.as_mut() {
            Some(tls) => {
                let length = tls.seal(output);
                front.output_left(core, length);
                tls.take_sealed(&mut state.sealed);
                if length == 0 && state.sealed.is_empty() {
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
                if !send_records(state.fd, &mut state.sealed, &mut state.sealed_left)? {
                    return Ok(Written::Blocked);
                }
            }
            None => match send(state.fd, output)? {
                Some(length) => front.output_left(core, length),
                None => return Ok(Written::Blocked),
            },
        }
    }
}

/// Sends sealed records; false where the kernel takes no more.
fn send_sealed(state: &mut State) -> io::Result<bool> {
    send_records(state.fd, &mut state.sealed, &mut state.sealed_left)
}

/// The kernel's buffer was full: writes on from the connection's task, which is woken when there is room.
fn write_on(
    core: &Rc<Core>,
    socket: &Rc<Socket>,
    stream: &mut TcpStream,
    cx: &mut Context<'_>,
) -> io::Result<()> {
    let mut state = socket.state.borrow_mut();
    let state = &mut *state;
    loop {
        if state.phase == Phase::Gone {
            return Ok(());
        }
        // One write through the runtime, so that it wakes this task if there is no room.
        if state.sealed_left < state.sealed.len() {
            let bytes = &state.sealed[state.sealed_left..];
            match Pin::new(&mut *stream).poll_write(cx, bytes) {
                Poll::Pending => return Ok(()),
                Poll::Ready(length) => state.sealed_left += length?,
            }
        } else if state.tls.is_none()
            && let Some(conn) = state.conn
        {
            let mut shard = core.shard.borrow_mut();
            if let Some(output) = shard.output(conn)
                && !output.bytes.is_empty()
            {
                match Pin::new(&mut *stream).poll_write(cx, output.bytes) {
                    Poll::Pending => return Ok(()),
                    Poll::Ready(length) => {
                        let length = length?;
                        shard.output_left(conn, length);
                    }
                }
            }
        } else if state.tls.is_none()
            && let Some(front) = state.front.as_mut()
            && !front.output().is_empty()
        {
            match Pin::new(&mut *stream).poll_write(cx, front.output()) {
                Poll::Pending => return Ok(()),
                Poll::Ready(length) => front.output_left(core, length?),
            }
        }
        match write_out(core, state)? {
            Written::Blocked => continue,
            Written::All => unblocked(core, state),
            Written::Finished => {
                unblocked(core, state);
                finish(core, socket, state);
            }
        }
        return Ok(());
    }
}

/// The kernel has taken all at last.
fn unblocked(core: &Rc<Core>, state: &mut State) {
    state.blocked = false;
    if let Some(conn) = state.conn {
        core.shard.borrow_mut().unblocked(conn, core.clock.mono());
    }
}

/// All has left: shuts our side and waits for the peer's, so that what it has not read yet is not lost to a reset.
fn finish(core: &Rc<Core>, socket: &Rc<Socket>, state: &mut State) {
    if state.phase == Phase::Lingering {
        return;
    }
    if let Some(tls) = state.tls.as_mut() {
        tls.close();
        tls.take_sealed(&mut state.sealed);
        // A goodbye that finds no room is not waited for.
        let _ = send_sealed(state);
    }
    shut(state.fd);
    state.phase = Phase::Lingering;
    state.wake();
    core.end_by(socket, LINGER);
}

/// The shard has closed the stream; the output before it still leaves.
pub(super) fn close(core: &Rc<Core>, conn: ConnId) {
    if let Some(socket) = core.socket(conn) {
        if matches!(socket.state.borrow().phase, Phase::Queued | Phase::Handshake) {
            // Between `<proceed/>` and the end of the handshake nothing can be said.
            return socket.state.borrow_mut().drop_soon();
        }
        core.end_by(&socket, LAST_OUTPUT);
        flush(core, conn);
    } else {
        relay::close(core, conn);
    }
}

pub(super) fn abort(core: &Rc<Core>, conn: ConnId) {
    match core.socket(conn) {
        Some(socket) => drop_socket(&socket),
        None => relay::abort(core, conn),
    }
}

pub(super) fn drop_socket(socket: &Socket) {
    socket.state.borrow_mut().drop_soon();
}

/// Reading was stopped and goes on.
pub(super) fn read_again(core: &Rc<Core>, conn: ConnId) {
    match core.socket(conn) {
        Some(socket) => wake(&socket),
        None => relay::read_again(core, conn),
    }
}

pub(super) fn wake(socket: &Socket) {
    socket.state.borrow_mut().wake();
}

/// The connection has gone to another node; its socket stays.
pub(super) fn become_front(socket: &Socket, front: Front) {
    let mut state = socket.state.borrow_mut();
    state.conn = None;
    state.front = Some(Box::new(front));
}

/// `None` for a socket whose connection is here, or that is gone.
pub(super) fn with_front<T>(socket: &Socket, act: impl FnOnce(&mut Front) -> T) -> Option<T> {
    socket.state.borrow_mut().front.as_deref_mut().map(act)
}

/// The turn's end: writes what came for a client whose connection is on another node.
pub(super) fn flush_front(core: &Rc<Core>, socket: &Rc<Socket>) {
    let mut state = socket.state.borrow_mut();
    if state.blocked || state.phase == Phase::Gone {
        return;
    }
    match write_out(core, &mut state) {
        Ok(Written::All) => {}
        Ok(Written::Blocked) => {
            state.blocked = true;
            state.wake();
        }
        Ok(Written::Finished) => finish(core, socket, &mut state),
        Err(_) => state.drop_soon(),
    }
}

/// STARTTLS: what was said in plain text leaves first.
pub(super) fn start_tls(core: &Rc<Core>, conn: ConnId) {
    flush(core, conn);
    let Some(socket) = core.socket(conn) else {
        // The connection is another node's socket: TLS begins before a login there, not after one that failed.
        return relay::abort(core, conn);
    };
    let mut state = socket.state.borrow_mut();
    if state.blocked {
        // A peer that does not even take `<proceed/>` is not worth waiting for.
        return state.drop_soon();
    }
    if state.phase != Phase::Open {
        // What came behind `<starttls/>` has ended the stream.
        return;
    }
    let accepted = core.settings.borrow().tls.accept(false);
    match accepted {
        Ok(tls) => {
            state.tls = Some(tls);
            state.phase = Phase::Queued;
            state.wake();
        }
        Err(error) => {
            tracing::error!(%error, "TLS cannot be started");
            state.drop_soon();
        }
    }
}

/// Takes a socket out of this core.
pub(super) fn extract(core: &Rc<Core>, conn: ConnId) -> Option<MovedSocket> {
    let socket = core.socket(conn)?;
    let moved = core.shard.borrow_mut().extract(conn)?;
    core.forget(conn);
    let mut state = socket.state.borrow_mut();
    state.conn = None;
    let fd = match duplicate(state.fd) {
        Ok(fd) => fd,
        Err(error) => {
            // The connection ends here; its client comes back.
            tracing::warn!(%error, "a connection cannot move to its core");
            state.drop_soon();
            return None;
        }
    };
    let mut sealed = std::mem::take(&mut state.sealed);
    sealed.drain(..state.sealed_left.min(sealed.len()));
    state.sealed_left = 0;
    let tls = state.tls.take();
    state.phase = Phase::Gone;
    state.wake();
    // The connection goes on elsewhere in this node.
    core.connections.keep();
    Some(MovedSocket { conn: moved, fd, peer: state.peer, tls, sealed })
}

/// The task is over: the shard learns of it, and the socket closes as its stream is dropped.
fn ended(core: &Rc<Core>, socket: &Rc<Socket>) {
    let conn = {
        let mut state = socket.state.borrow_mut();
        state.phase = Phase::Gone;
        if let Some(waker) = state.waker.take() {
            core.handshakes.forget(&waker);
        }
        if std::mem::take(&mut state.has_slot) {
            core.counts.borrow_mut().handshakes_failed += 1;
            core.handshakes.leave();
        }
        // A deadline may hold the rest of it for long: whoever connects and leaves must not pile up memory.
        state.tls = None;
        state.sealed = Vec::new();
        if let Some(front) = state.front.take() {
            relay::ended(core, &front);
        }
        state.conn.take()
    };
    if let Some(conn) = conn {
        core.forget(conn);
        let mut fx = core.fx.borrow_mut();
        core.shard.borrow_mut().handle(core.clock.now(), Input::Closed { conn }, &mut fx);
        core.flush.notify();
    }
    core.connections.leave();
}

/// The time of a socket is up. One that has become a stream in time goes on.
pub(super) fn time_is_up(socket: &Rc<Socket>, core: &Core) {
    let mut state = socket.state.borrow_mut();
    let over = match state.phase {
        Phase::Header => true,
        Phase::Queued | Phase::Handshake if state.conn.is_none() => true,
        Phase::Lingering => true,
        Phase::Queued | Phase::Handshake | Phase::Open => {
            let shard = core.shard.borrow();
            let front = state.front.as_ref();
            front.is_some_and(|front| relay::is_overdue(core, front))
                || state
                    .conn
                    .and_then(|conn| shard.output(conn))
                    .is_some_and(|output| output.closing)
        }
        Phase::Gone => false,
    };
    if over {
        state.drop_soon();
    }
}
