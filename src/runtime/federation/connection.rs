//! Sockets of other servers, whoever made the connection: one task for each reads; writing needs no task, as the turn's end
//! writes once for each connection that has output (`core`). A connection that waits holds no buffer.

use super::certificates::explain;
use super::core::Core;
use crate::admin::latency::TurnPart;
use crate::base::instant::Instant;
use crate::federation::discovery::Target;
use crate::federation::{ConnId, Input, Lost, TlsProblem, TlsRole, TlsVersion};
use crate::runtime::executor;
use crate::runtime::socket::{reset, send, send_records, shut};
use crate::runtime::tls::Tls;
use futures_lite::io::{AsyncRead, AsyncWrite};
use glommio::net::TcpStream;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Reads of one connection before others get their turn.
const READS_PER_POLL: u32 = 4;
/// How long a closed stream's peer may take to close its side.
const LINGER: Duration = Duration::from_secs(1);
/// How long the last output may take to leave.
const LAST_OUTPUT: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Handshake,
    Open,
    /// All has left and our side is shut; waits for the peer's.
    Lingering,
    /// The task drops the socket.
    Gone,
}

struct State {
    fd: RawFd,
    conn: ConnId,
    /// Where it was dialled.
    target: Option<Target>,
    /// When it was accepted or dialled.
    since: Instant,
    tls: Option<Tls>,
    handshake_began: Instant,
    sealed: Vec<u8>,
    sealed_left: usize,
    waker: Option<Waker>,
    phase: Phase,
    /// The kernel's buffer is full: the task writes on when there is room.
    blocked: bool,
    /// Why we drop it.
    why: Lost,
    /// Nothing is to be told of it any more.
    is_aborted: bool,
}

/// One socket. Lives on the core that reads it.
pub(super) struct Socket {
    state: RefCell<State>,
}

impl State {
    fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    fn drop_soon(&mut self, why: Lost) {
        if self.phase != Phase::Gone {
            self.phase = Phase::Gone;
            self.why = why;
        }
        self.wake();
    }
}

/// Begins serving a connection that another server has made. Gives false where the actor does not want it.
pub(super) fn accepted(
    core: &Rc<Core>,
    stream: TcpStream,
    peer: SocketAddr,
    direct_tls: bool,
) -> bool {
    let conn = core.actor.borrow_mut().accept(core.clock.now(), peer, direct_tls);
    let Some(conn) = conn else {
        reset(&stream);
        return false;
    };
    let mut tls = None;
    if direct_tls {
        // Whose it is, and so which policy, is known later: the version is looked at again then.
        match core.settings.borrow().tls.accept(None, TlsVersion::Tls12, true) {
            Ok(made) => tls = Some(made),
            Err(error) => {
                tracing::error!(%error, "TLS for other servers cannot be started");
                closed(core, conn, Lost::Tls(TlsProblem::Failed(explain(&error))));
                return true;
            }
        }
    }
    serve(core, stream, conn, Reached { tls, ..Reached::default() });
    true
}

/// Begins serving a connection that was dialled.
///
pub(super) fn dialled(core: &Rc<Core>, stream: TcpStream, conn: ConnId, reached: Reached) {
    serve(core, stream, conn, reached);
}

/// How a connection begins.
#[derive(Default)]
pub(super) struct Reached {
    /// Where it was dialled.
    pub(super) target: Option<Target>,
    pub(super) tls: Option<Tls>,
    /// What came behind the handshake.
    pub(super) unread: Vec<u8>,
}

fn serve(core: &Rc<Core>, mut stream: TcpStream, conn: ConnId, reached: Reached) {
    let Reached { target, tls, unread } = reached;
    // Output is batched already: waiting for more would only add delay. A socket that is gone says so when read.
    let _ = stream.set_nodelay(true);
    let now = core.clock.mono();
    let phase = match &tls {
        Some(tls) if tls.is_handshaking() => Phase::Handshake,
        _ => Phase::Open,
    };
    let state = State {
        fd: stream.as_raw_fd(),
        conn,
        target,
        since: now,
        tls,
        handshake_began: now,
        sealed: Vec::new(),
        sealed_left: 0,
        waker: None,
        phase,
        blocked: false,
        why: Lost::Closed,
        is_aborted: false,
    };
    let socket = Rc::new(Socket { state: RefCell::new(state) });
    core.register(conn, &socket);
    let core = core.clone();
    glommio::spawn_local(async move {
        // What came with the last record of a handshake is there already.
        let mut lost = match phase {
            Phase::Open => core.guarded(|| feed(&core, &socket, &unread)).err(),
            _ => None,
        };
        drop(unread);
        let lost = loop {
            if let Some(lost) = lost.take() {
                break lost;
            }
            match poll_fn(|cx| core.guarded(|| step(&core, &socket, &mut stream, cx))).await {
                Step::Over(why) => lost = Some(why),
                Step::More => executor::next_look().await,
            }
        };
        ended(&core, &socket, lost);
    })
    .detach();
}

/// What became of a connection's poll.
enum Step {
    Over(Lost),
    /// There may be more to read, after others had their turn.
    More,
}

impl From<Lost> for Poll<Step> {
    fn from(lost: Lost) -> Self {
        Poll::Ready(Step::Over(lost))
    }
}

/// How a connection ends that the peer or the network ends.
fn cut(phase: Phase, otherwise: Lost) -> Lost {
    match phase {
        Phase::Handshake => Lost::Tls(TlsProblem::Cut),
        Phase::Lingering => Lost::Closed,
        Phase::Open | Phase::Gone => otherwise,
    }
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
        let (phase, blocked) = {
            let state = socket.state.borrow();
            (state.phase, state.blocked)
        };
        if blocked && !core.is_suspended() && write_on(core, socket, stream, cx).is_err() {
            return cut(phase, Lost::Reset).into();
        }
        let (phase, conn) = {
            let state = socket.state.borrow();
            let answers = state.tls.as_ref().is_some_and(|tls| !tls.has_exchanged_keys());
            if state.phase == Phase::Handshake
                && answers
                && !core.handshakes.may_go_on(core.clock.mono(), cx.waker())
            {
                return Poll::Pending;
            }
            (state.phase, state.conn)
        };
        match phase {
            Phase::Gone => return socket.state.borrow().why.clone().into(),
            Phase::Open if core.is_suspended() || !core.actor.borrow().is_reading(conn) => {
                return Poll::Pending;
            }
            Phase::Open | Phase::Handshake | Phase::Lingering => {}
        }
        let mut scratch = core.scratch.borrow_mut();
        let length = match Pin::new(&mut *stream).poll_read(cx, &mut scratch) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(0)) => return cut(phase, Lost::Closed).into(),
            Poll::Ready(Err(_)) => return cut(phase, Lost::Reset).into(),
            Poll::Ready(Ok(length)) => length,
        };
        if phase != Phase::Lingering
            && let Err(lost) = feed(core, socket, &scratch[..length])
        {
            return lost.into();
        }
    }
    Poll::Ready(Step::More)
}

/// Gives received bytes to the actor, through TLS where there is one.
fn feed(core: &Rc<Core>, socket: &Rc<Socket>, bytes: &[u8]) -> Result<(), Lost> {
    let now = core.clock.now();
    core.turns.enter(TurnPart::Read, now.mono);
    core.flush.notify();
    let mut state = socket.state.borrow_mut();
    let state = &mut *state;
    let conn = state.conn;
    if state.phase == Phase::Open {
        core.handshakes.served(Some(state.since), now.mono);
    }
    let Some(tls) = state.tls.as_mut() else {
        if !bytes.is_empty() {
            let input = Input::Bytes { conn, bytes };
            core.actor.borrow_mut().handle(now, input, &mut core.fx.borrow_mut());
        }
        return Ok(());
    };
    let mut plain = core.plain.borrow_mut();
    let mut rest = bytes;
    let mut result = Ok(());
    loop {
        let mut progress = false;
        if !rest.is_empty() {
            let handshaking = tls.is_handshaking().then(|| core.clock.mono());
            match tls.receive(rest) {
                Ok(taken) => {
                    rest = &rest[taken..];
                    progress = taken > 0;
                }
                Err(broken) => {
                    result = Err(match handshaking {
                        Some(_) => Lost::Tls(TlsProblem::Failed(explain(&broken.0))),
                        None => Lost::Reset,
                    });
                    break;
                }
            }
            if let Some(began) = handshaking {
                core.handshakes.took(core.clock.mono().since(began));
            }
            if handshaking.is_some() && !tls.is_handshaking() {
                state.phase = Phase::Open;
                core.counts.borrow_mut().handshakes += 1;
                let facts = Box::new(core.settings.borrow().tls.peer(tls, state.target.as_ref()));
                let took = core.clock.mono().since(state.handshake_began);
                let input = Input::Secured { conn, tls: facts, took };
                core.actor.borrow_mut().handle(now, input, &mut core.fx.borrow_mut());
            }
        }
        while let Some(length) = tls.read(&mut plain[..]) {
            if length == 0 {
                break;
            }
            progress = true;
            let input = Input::Bytes { conn, bytes: &plain[..length] };
            core.actor.borrow_mut().handle(now, input, &mut core.fx.borrow_mut());
        }
        if rest.is_empty() {
            break;
        }
        if !progress {
            result = Err(Lost::Reset);
            break;
        }
    }
    // Answers of the handshake and alerts: at once, there is nothing to batch them with.
    tls.take_sealed(&mut state.sealed);
    if !state.blocked {
        match send_records(state.fd, &mut state.sealed, &mut state.sealed_left) {
            Ok(true) => {}
            Ok(false) => {
                state.blocked = true;
                state.wake();
            }
            Err(_) if result.is_ok() => result = Err(cut(state.phase, Lost::Reset)),
            Err(_) => {}
        }
    }
    result
}

/// Its task looks at it again.
pub(super) fn wake(socket: &Socket) {
    socket.state.borrow().wake();
}

/// The turn's end: writes what a connection has.
pub(super) fn flush(core: &Rc<Core>, conn: ConnId) {
    let Some(socket) = core.socket(conn) else { return };
    core.actor.borrow_mut().flushing(conn);
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
        Ok(Written::Finished) => finish(core, &socket, &mut state),
        Err(_) => state.drop_soon(Lost::Reset),
    }
}

enum Written {
    All,
    Blocked,
    /// All, and nothing comes after it.
    Finished,
}

/// Writes until all has left or the kernel takes no more.
fn write_out(core: &Core, state: &mut State) -> io::Result<Written> {
    loop {
        if !send_records(state.fd, &mut state.sealed, &mut state.sealed_left)? {
            return Ok(Written::Blocked);
        }
        // What the stream wants said comes after the handshake.
        if state.phase == Phase::Handshake {
            return Ok(Written::All);
        }
        let mut actor = core.actor.borrow_mut();
        let Some(output) = actor.output(state.conn) else { return Ok(Written::All) };
        if output.bytes.is_empty() {
            return Ok(if output.closing { Written::Finished } else { Written::All });
        }
        let length = match state.tls.as_mut() {
            Some(tls) => {
                let length = tls.seal(output.bytes);
                tls.take_sealed(&mut state.sealed);
                if length == 0 && state.sealed.is_empty() {
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
                length
            }
            None => match send(state.fd, output.bytes)? {
                Some(length) => length,
                None => return Ok(Written::Blocked),
            },
        };
        actor.output_left(state.conn, length, core.clock.mono());
    }
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
        } else if state.tls.is_none() {
            let mut actor = core.actor.borrow_mut();
            if let Some(output) = actor.output(state.conn)
                && !output.bytes.is_empty()
            {
                match Pin::new(&mut *stream).poll_write(cx, output.bytes) {
                    Poll::Pending => return Ok(()),
                    Poll::Ready(length) => {
                        actor.output_left(state.conn, length?, core.clock.mono());
                    }
                }
            }
        }
        match write_out(core, state)? {
            Written::Blocked => continue,
            Written::All => state.blocked = false,
            Written::Finished => {
                state.blocked = false;
                finish(core, socket, state);
            }
        }
        // A queue that waited for room in the output goes on.
        core.flush.notify();
        return Ok(());
    }
}

/// All has left: shuts our side and waits for the peer's, so that what it has not read yet is not lost to a reset.
fn finish(core: &Core, socket: &Rc<Socket>, state: &mut State) {
    if state.phase == Phase::Lingering {
        return;
    }
    if let Some(tls) = state.tls.as_mut() {
        tls.close();
        tls.take_sealed(&mut state.sealed);
        // A goodbye that finds no room is not waited for.
        let _ = send_records(state.fd, &mut state.sealed, &mut state.sealed_left);
    }
    shut(state.fd);
    state.phase = Phase::Lingering;
    state.wake();
    core.end_by(socket, LINGER);
}

/// The actor has closed the stream; the output before it still leaves.
pub(super) fn close(core: &Rc<Core>, conn: ConnId) {
    let Some(socket) = core.socket(conn) else { return };
    if socket.state.borrow().phase == Phase::Handshake {
        // In the middle of it nothing can be said.
        return socket.state.borrow_mut().drop_soon(Lost::Closed);
    }
    core.end_by(&socket, LAST_OUTPUT);
    flush(core, conn);
}

/// Drops a connection of which nothing is to be told any more. Gives whether there was one.
pub(super) fn abort(core: &Core, conn: ConnId) -> bool {
    let Some(socket) = core.socket(conn) else { return false };
    let mut state = socket.state.borrow_mut();
    state.is_aborted = true;
    state.drop_soon(Lost::Aborted);
    core.forget(conn);
    true
}

/// Reading was stopped and goes on.
pub(super) fn read_again(core: &Core, conn: ConnId) {
    if let Some(socket) = core.socket(conn) {
        socket.state.borrow().wake();
    }
}

/// STARTTLS: what was said in plain text leaves first.
pub(super) fn start_tls(core: &Rc<Core>, conn: ConnId, role: &TlsRole) {
    flush(core, conn);
    let Some(socket) = core.socket(conn) else { return };
    let mut state = socket.state.borrow_mut();
    let state = &mut *state;
    if state.phase != Phase::Open || state.tls.is_some() {
        // The stream has ended meanwhile.
        return;
    }
    if state.blocked {
        // A peer that does not even take `<proceed/>` is not worth waiting for.
        return state.drop_soon(Lost::Tls(TlsProblem::Cut));
    }
    let made = {
        let settings = core.settings.borrow();
        match role {
            TlsRole::Client(client) => settings.tls.connect(client, false),
            TlsRole::Server { to, oldest } => settings.tls.accept(to.as_deref(), *oldest, false),
        }
    };
    match made {
        Ok(mut tls) => {
            // Of a client: its hello.
            tls.take_sealed(&mut state.sealed);
            state.tls = Some(tls);
            state.phase = Phase::Handshake;
            state.handshake_began = core.clock.mono();
            match send_records(state.fd, &mut state.sealed, &mut state.sealed_left) {
                Ok(is_all) => state.blocked = !is_all,
                Err(_) => return state.drop_soon(Lost::Tls(TlsProblem::Cut)),
            }
            state.wake();
        }
        Err(error) => state.drop_soon(Lost::Tls(TlsProblem::Failed(explain(&error)))),
    }
}

/// The task is over: the actor learns of it, and the socket closes as its stream is dropped.
fn ended(core: &Rc<Core>, socket: &Rc<Socket>, lost: Lost) {
    let (conn, is_aborted) = {
        let mut state = socket.state.borrow_mut();
        if state.phase == Phase::Handshake || matches!(lost, Lost::Tls(_)) {
            core.counts.borrow_mut().handshakes_failed += 1;
        }
        state.phase = Phase::Gone;
        if let Some(waker) = state.waker.take() {
            core.handshakes.forget(&waker);
        }
        // A deadline may hold the rest of it for long: whoever connects and leaves must not pile up memory.
        state.tls = None;
        state.sealed = Vec::new();
        (state.conn, state.is_aborted)
    };
    if is_aborted {
        return;
    }
    core.forget(conn);
    closed(core, conn, lost);
}

fn closed(core: &Core, conn: ConnId, why: Lost) {
    tracing::debug!(?why, "a connection with another server ends");
    let input = Input::Closed { conn, why };
    core.actor.borrow_mut().handle(core.clock.now(), input, &mut core.fx.borrow_mut());
    core.flush.notify();
}

/// The time of a socket that was to close is up.
pub(super) fn time_is_up(core: &Core, socket: &Socket) {
    let mut state = socket.state.borrow_mut();
    let over = match state.phase {
        Phase::Lingering => true,
        Phase::Handshake | Phase::Open => {
            core.actor.borrow().output(state.conn).is_none_or(|output| output.closing)
        }
        Phase::Gone => false,
    };
    if over {
        state.drop_soon(Lost::Closed);
    }
}
