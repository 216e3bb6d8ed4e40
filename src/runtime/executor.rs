//! A core: one glommio executor that runs one shard, its sockets and its ends of the rings.
//!
//! A turn is what the executor's tasks do between two looks at the kernel: reads feed the shard, and one long-lived
//! task at the end carries out what all of them wanted, writing once for each connection and once for each ring.

use super::clock::Clock;
use super::cluster::lease::{Gate, Membership};
use super::cluster::port::{Carrier, Incoming, Outgoing};
use super::connection::{self, Socket};
use super::errands::Errands;
use super::handshakes::{self, Handshakes};
use super::listener::Transport;
use super::mailbox::{Letter, Mailbox, Reconfiguration};
use super::mesh::{Ends, Inlet, Outlet};
use super::passwords::Passwords;
use super::process;
use super::relay::{self, Relays};
use super::socket;
use super::sockets::Sockets;
use super::storage::{Storage, StoreClient};
use super::tls::TlsServer;
use super::trace::Watchers;
use super::turns::Turns;
use super::withheld::{self, Withheld};
use crate::admin::figures::{CoreProbe, ShardFigures};
use crate::admin::latency::{CorePart, TurnPart};
use crate::base::network::Networks;
use crate::base::rng::Rng;
use crate::cluster::link::Departure;
use crate::cluster::placement::{NodeId, Owner, Placement, ShardId};
use crate::cluster::relay::Leave;
use crate::shard::errand::Outcome;
use crate::shard::{Action, ConnId, Effects, Feature, Features, Input, Peer, Shard, ShardConfig};
use futures_lite::future::or;
use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement as Binding};
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::task::{Poll, Waker};
use std::time::Duration;

/// Memory that glommio registers for storage I/O, of which we do none.
pub(super) const IO_MEMORY: usize = 64 << 10;
pub(super) const RING_DEPTH: usize = 128;
/// Never: nothing here keeps a core from looking at the kernel, see `next_look`.
///
/// COMPAT(glommio, 0.9): an executor whose preemption timer fires before it has run the first of its tasks parks as if
/// it had none, and only the kernel or a timer that has not fired wakes it again.
pub(super) const PREEMPT: Duration = Duration::from_secs(86_400);
/// Bytes of one read, and of one TLS record opened.
pub(super) const READ_BYTES: usize = 64 << 10;
pub(super) const PLAIN_BYTES: usize = 16 << 10;
/// A time that is over when the core has run its tasks, and is noticed only then; longer than it takes to wait for it.
pub(super) const LOOK: Duration = Duration::from_micros(20);
/// The resolution of timers, and of waiting for room among connections.
pub(super) const TICK: Duration = Duration::from_millis(100);
/// Connections that are accepted before those who are in get their turn.
pub(super) const ACCEPTS_PER_LOOK: u32 = 8;
/// How long accepting pauses after so many were refused: some thousand a second are.
pub(super) const REFUSAL_PAUSE: Duration = Duration::from_millis(1);
/// How long accepting pauses when the system has no descriptor left.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What all cores of a node need to start.
pub struct Setup {
    pub shards: u16,
    pub config: Arc<ShardConfig>,
    pub placement: Arc<Placement>,
    pub features: MakeFeatures,
    pub settings: CoreSettings,
    pub passwords: Passwords,
    pub errands: Errands,
    pub clock: Clock,
    pub beats: Beats,
    /// Latencies are measured.
    pub measures: bool,
    /// What leads to other nodes; `None` without a cluster.
    pub links: Option<MakeCarrier>,
    /// The node's part in its cluster; `None` without one.
    pub membership: Option<Membership>,
}

/// Makes a core's own end of the links; called once for each.
pub type MakeCarrier = Arc<dyn Fn() -> Box<dyn Carrier> + Send + Sync>;

/// When each core last came round its loop: a core that hangs is noticed without being asked. Cloned to every core and
/// to whoever looks.
#[derive(Clone, Debug)]
pub struct Beats {
    at_ms: Arc<[AtomicU64]>,
    clock: Clock,
}

impl Beats {
    /// - `cores`: of one kind, the shards or those of federation
    pub fn new(cores: u16, clock: Clock) -> Beats {
        let now = clock.mono().0 / 1_000_000;
        Beats { at_ms: (0..cores).map(|_| AtomicU64::new(now)).collect(), clock }
    }

    pub(super) fn beat(&self, core: u16) {
        if let Some(at) = self.at_ms.get(usize::from(core)) {
            at.store(self.clock.mono().0 / 1_000_000, Ordering::Relaxed);
        }
    }

    /// Milliseconds since each core's last beat.
    pub fn silence_ms(&self) -> Vec<u64> {
        let now = self.clock.mono().0 / 1_000_000;
        self.at_ms.iter().map(|at| now.saturating_sub(at.load(Ordering::Relaxed))).collect()
    }
}

/// Makes a fresh set of features with their settings; called once for each shard.
pub type MakeFeatures = Arc<dyn Fn() -> Vec<Box<dyn Feature>> + Send + Sync>;

/// How the shards of a node are reached, each by its number.
pub struct Ways {
    pub mailboxes: Vec<Mailbox>,
    pub letters: Vec<Receiver<Letter>>,
    /// To all cores of the node, those of federation behind the shards.
    pub rings: Vec<Ends>,
    /// Of all cores of the node.
    pub done: Done,
}

/// What a reload may change of a core, beside what its shard is told.
#[derive(Clone)]
pub struct CoreSettings {
    pub tls: TlsServer,
    /// Where connections come from, each with a header that names the client; `None`: from the clients themselves.
    pub balancers: Option<Networks>,
    pub connections_max: usize,
    pub handshakes_max: usize,
    pub handshake_timeout: Duration,
    pub shutdown_timeout: Duration,
    /// Clients are sent to the nodes that own their accounts.
    pub redirects: bool,
}

/// How far the cores of a stopping node are: those who are done serve the others until all are. Shared by them.
#[derive(Clone, Debug)]
pub struct Done {
    cores: usize,
    done: Arc<AtomicUsize>,
}

impl Done {
    pub fn new(cores: usize) -> Done {
        Done { cores, done: Arc::default() }
    }

    /// A core is done. Once for each.
    pub(super) fn tell(&self) {
        self.done.fetch_add(1, Ordering::AcqRel);
    }

    /// Cores that are.
    pub(super) fn count(&self) -> usize {
        self.done.load(Ordering::Acquire)
    }

    pub(super) fn is_all(&self) -> bool {
        self.count() >= self.cores
    }
}

/// The running cores.
pub struct Cores {
    threads: Vec<ExecutorJoinHandle<()>>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("core {shard} cannot be started: {cause}")]
    Start { shard: u16, cause: String },
}

/// Starts one core for each shard, and returns when all accept connections.
///
/// - `listeners`: for each address, its transport and a socket for each shard
/// - `ended`: called with its number when a core has ended, whatever the reason
pub fn start(
    setup: Setup,
    listeners: Vec<(Transport, Vec<TcpListener>)>,
    ways: Ways,
    storage: &Storage,
    ended: impl Fn(u16) + Send + Clone + 'static,
) -> Result<Cores, Error> {
    let Ways { mailboxes, letters, rings, done } = ways;
    let setup = Arc::new(setup);
    let connections = Arc::new(AtomicUsize::new(0));
    let mut by_shard: Vec<Vec<(Transport, TcpListener)>> =
        (0..setup.shards).map(|_| Vec::new()).collect();
    for (transport, sockets) in listeners {
        for (list, socket) in by_shard.iter_mut().zip(sockets) {
            list.push((transport, socket));
        }
    }
    let pinned = std::thread::available_parallelism()
        .is_ok_and(|cores| cores.get() >= usize::from(setup.shards));
    let cpus = allowed_cpus();
    let (started, starting) = std::sync::mpsc::channel();
    let mut threads = Vec::new();
    let parts = rings.into_iter().zip(letters).zip(by_shard).enumerate();
    for (number, (((outlets, inlets), letters), listeners)) in parts {
        let shard = u16::try_from(number).unwrap_or(u16::MAX);
        let binding = match cpus.get(number) {
            Some(cpu) if pinned => Binding::Fixed(*cpu),
            _ => Binding::Unbound,
        };
        let mut part = Part {
            shard: ShardId(shard),
            setup: setup.clone(),
            outlets,
            inlets,
            letters,
            listeners,
            store: storage.client(shard),
            mailbox: mailboxes[number].clone(),
            connections: connections.clone(),
            done: done.clone(),
        };
        let (started, ended) = (started.clone(), Ended(shard, ended.clone()));
        let thread = LocalExecutorBuilder::new(binding)
            .name("shard")
            .io_memory(IO_MEMORY)
            .ring_depth(RING_DEPTH)
            .preempt_timer(PREEMPT)
            .spawn(move || async move {
                let _ended = ended;
                let listeners = std::mem::take(&mut part.listeners);
                let done = part.done.clone();
                let (core, inlets, letters) = Core::new(part);
                core.run(inlets, letters, listeners, &done, || {
                    let _ = started.send(shard);
                })
                .await;
            })
            .map_err(|error| Error::Start { shard, cause: error.to_string() })?;
        threads.push(thread);
    }
    drop(started);
    for _ in 0..threads.len() {
        // A core that could not start has dropped its end of the channel; its thread says why.
        if starting.recv().is_err() {
            let failed = threads
                .into_iter()
                .enumerate()
                .find_map(|(shard, thread)| Some((shard, thread.join().err()?.to_string())));
            let (shard, cause) = failed.unwrap_or((0, "it ended at once".into()));
            return Err(Error::Start { shard: u16::try_from(shard).unwrap_or(0), cause });
        }
    }
    Ok(Cores { threads })
}

impl Cores {
    /// Waits until all cores have ended.
    pub fn join(self) {
        for thread in self.threads {
            if let Err(error) = thread.join() {
                tracing::error!(%error, "a core has ended badly");
            }
        }
    }
}

/// Tells that a core has ended when it is dropped, by a panic as well.
pub(super) struct Ended<F: Fn(u16)>(pub(super) u16, pub(super) F);

impl<F: Fn(u16)> Drop for Ended<F> {
    fn drop(&mut self) {
        (self.1)(self.0);
    }
}

/// Processors that this process may use, in order.
#[expect(unsafe_code, reason = "the standard library only counts them")]
pub(super) fn allowed_cpus() -> Vec<usize> {
    // SAFETY: a set of bits, for which all zeroes is a value; the kernel fills in as many bytes as it is told.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) != 0 {
            return Vec::new();
        }
        let limit = usize::try_from(libc::CPU_SETSIZE).unwrap_or(0);
        (0..limit).filter(|cpu| libc::CPU_ISSET(*cpu, &set)).collect()
    }
}

/// The thread runs on these processors alone; on any that the process may use where there are none, or the system refuses.
#[expect(unsafe_code, reason = "the standard library has no call for it")]
pub(super) fn stay_on(cpus: &[usize]) {
    if cpus.is_empty() {
        return;
    }
    // SAFETY: a set of bits, for which all zeroes is a value; numbers beyond its end set nothing, and the kernel reads it.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        cpus.iter().for_each(|cpu| libc::CPU_SET(*cpu, &mut set));
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
    }
}

/// One core's share of what `start` made.
struct Part {
    shard: ShardId,
    setup: Arc<Setup>,
    outlets: Vec<Option<Outlet>>,
    inlets: Vec<Option<Inlet>>,
    letters: Receiver<Letter>,
    listeners: Vec<(Transport, TcpListener)>,
    store: StoreClient,
    mailbox: Mailbox,
    connections: Arc<AtomicUsize>,
    done: Done,
}

/// What the tasks of one core share. No borrow lives across an await.
pub(super) struct Core {
    pub shard: RefCell<Shard>,
    pub fx: RefCell<Effects>,
    pub clock: Clock,
    pub settings: RefCell<CoreSettings>,
    pub scratch: RefCell<Box<[u8]>>,
    pub plain: RefCell<Box<[u8]>>,
    pub flush: Flush,
    pub withheld: Withheld,
    pub connections: Connections,
    pub handshakes: Handshakes,
    pub counts: RefCell<CoreProbe>,
    pub turns: Turns,
    /// `None` without a cluster.
    pub relays: Option<Box<Relays>>,
    gate: Gate,
    node: NodeId,
    beats: Beats,
    id: ShardId,
    sockets: Sockets<Socket>,
    outlets: RefCell<Vec<Option<Outlet>>>,
    store: RefCell<StoreClient>,
    passwords: Passwords,
    errands: Errands,
    mailbox: Mailbox,
    watchers: RefCell<Watchers>,
    stopping: Cell<bool>,
    /// Cores of this node; behind them are those of others.
    cores: usize,
}

/// Wakes the task that carries effects out, once per turn.
#[derive(Default)]
pub(super) struct Flush {
    due: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Flush {
    /// Whether there is something to carry out, now and once; `waker` is woken when there is.
    pub(super) fn is_due(&self, waker: &Waker) -> bool {
        let mut slot = self.waker.borrow_mut();
        if slot.as_ref().is_none_or(|known| !known.will_wake(waker)) {
            *slot = Some(waker.clone());
        }
        self.due.replace(false)
    }

    pub(super) fn notify(&self) {
        if !self.due.replace(true)
            && let Some(waker) = self.waker.borrow().as_ref()
        {
            waker.wake_by_ref();
        }
    }
}

/// Connections of the node, counted against its limit.
pub(super) struct Connections {
    count: Arc<AtomicUsize>,
    limit: Cell<usize>,
}

impl Connections {
    pub(super) fn has_room(&self) -> bool {
        self.count.load(Ordering::Relaxed) < self.limit.get()
    }

    pub(super) fn enter(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn leave(&self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }

    /// A socket moves: its old task will leave, though the connection stays.
    pub(super) fn keep(&self) {
        self.enter();
    }
}

impl Core {
    fn new(part: Part) -> (Rc<Self>, Vec<Option<Inlet>>, Receiver<Letter>) {
        let setup = part.setup;
        let cores = part.outlets.len();
        let mut shard = Shard::new(
            part.shard,
            setup.config.clone(),
            setup.placement.clone(),
            (setup.features)(),
            Rng::from_seed(seed()),
            setup.clock.now(),
        );
        if setup.measures {
            let clock = setup.clock;
            shard.measure(Box::new(move || clock.mono()));
        }
        let core = Self {
            shard: RefCell::new(shard),
            fx: RefCell::new(Effects::new(u16::try_from(cores).unwrap_or(u16::MAX))),
            clock: setup.clock,
            settings: RefCell::new(setup.settings.clone()),
            scratch: RefCell::new(vec![0; READ_BYTES].into()),
            plain: RefCell::new(vec![0; PLAIN_BYTES].into()),
            flush: Flush::default(),
            withheld: Withheld::default(),
            connections: Connections {
                count: part.connections,
                limit: Cell::new(setup.settings.connections_max),
            },
            handshakes: Handshakes::default(),
            counts: RefCell::default(),
            turns: Turns::new(setup.measures),
            relays: setup.links.as_ref().map(|links| Box::new(Relays::new(links()))),
            gate: Gate::new(setup.membership.clone()),
            node: setup.config.node,
            beats: setup.beats.clone(),
            id: part.shard,
            sockets: Sockets::default(),
            outlets: RefCell::new(part.outlets),
            store: RefCell::new(part.store),
            passwords: setup.passwords.clone(),
            errands: setup.errands.clone(),
            mailbox: part.mailbox,
            watchers: RefCell::default(),
            stopping: Cell::new(false),
            cores,
        };
        core.handshakes.set_limit(setup.settings.handshakes_max);
        (Rc::new(core), part.inlets, part.letters)
    }

    async fn run(
        self: Rc<Self>,
        inlets: Vec<Option<Inlet>>,
        letters: Receiver<Letter>,
        listeners: Vec<(Transport, TcpListener)>,
        done: &Done,
        started: impl FnOnce(),
    ) {
        let core = self.clone();
        glommio::spawn_local(async move {
            poll_fn(|cx| core.guarded(|| core.turn_ends(cx.waker()))).await;
        })
        .detach();
        let core = self.clone();
        let (mut inlets, letters) = (inlets, letters);
        glommio::spawn_local(async move {
            poll_fn(|cx| {
                core.guarded(|| {
                    core.mailbox.bell().listen(cx.waker());
                    core.look(&mut inlets, &letters);
                    Poll::<()>::Pending
                })
            })
            .await;
        })
        .detach();
        glommio::spawn_local(withheld::release(self.clone())).detach();
        let core = self.clone();
        glommio::spawn_local(async move { handshakes::turns(&core.handshakes).await }).detach();
        let mut accepting: Vec<_> = listeners
            .into_iter()
            .map(|(transport, listener)| {
                glommio::spawn_local(accept(self.clone(), transport, listener))
            })
            .collect();
        started();
        let mut ends_at = None;
        let mut told = false;
        loop {
            let span = if self.stopping.get() { TICK / 10 } else { TICK };
            let due = self.clock.mono() + span;
            pause(span).await;
            self.guarded(|| self.tick(self.clock.mono().since(due)));
            while self.shard.borrow().is_behind() {
                next_look().await;
                self.guarded(|| self.run_timers());
            }
            if !self.stopping.get() {
                continue;
            }
            // Dropped tasks end, and their listeners close.
            accepting.clear();
            let now = self.clock.mono();
            let patience = self.settings.borrow().shutdown_timeout;
            let ends_at = *ends_at.get_or_insert(now + patience);
            let idle = self.sockets.is_empty()
                && self.relays.as_ref().is_none_or(|relays| relays.is_idle())
                && self.shard.borrow().waiting_for_store() == 0
                && self.fx.borrow().is_empty();
            if (idle || now >= ends_at) && !told {
                told = true;
                done.tell();
            }
            // The others may still send here what their clients said last.
            if told && (done.is_all() || now >= ends_at) {
                return;
            }
        }
    }

    /// Runs a piece of a task. A panic that reaches this far is outside of any account: the state of the core cannot be
    /// trusted, so the node ends.
    pub(super) fn guarded<T>(&self, work: impl FnOnce() -> T) -> T {
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)) {
            Ok(value) => value,
            Err(_) => {
                tracing::error!(shard = self.id.0, "a fault outside of any account: the node ends");
                std::process::exit(70)
            }
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    pub(super) fn shard_id(&self) -> ShardId {
        self.id
    }

    fn turn_ends(self: &Rc<Self>, waker: &Waker) -> Poll<()> {
        if self.flush.is_due(waker) {
            self.carry_out();
        }
        Poll::Pending
    }

    /// Carries out what the turn wanted.
    fn carry_out(self: &Rc<Self>) {
        let now = self.clock.now();
        self.turns.carry_out(now.mono);
        let (mut actions, mut dirty) = {
            let mut fx = self.fx.borrow_mut();
            self.shard.borrow_mut().end_turn(now, &mut fx);
            for (conn, at) in fx.withheld.drain(..) {
                self.withheld.add(conn, at);
            }
            (std::mem::take(&mut fx.actions), std::mem::take(&mut fx.dirty))
        };
        for action in actions.drain(..) {
            self.act(action);
        }
        for conn in dirty.drain(..) {
            connection::flush(self, conn);
        }
        if self.relays.is_some() {
            relay::turn_ends(self);
        }
        let flushed = self.clock.mono();
        self.shard.borrow_mut().flushed(flushed);
        self.tell_watchers();
        let mut fx = self.fx.borrow_mut();
        // The emptied lists keep their memory, unless something was added meanwhile.
        if fx.actions.is_empty() {
            fx.actions = actions;
        }
        if fx.dirty.is_empty() {
            fx.dirty = dirty;
        }
        let mut store = self.store.borrow_mut();
        store.write(&mut fx.writes);
        store.query(&mut fx.queries);
        let mut shard = self.shard.borrow_mut();
        let mut outlets = self.outlets.borrow_mut();
        let mut elsewhere = Vec::new();
        for (to, received, handled) in shard.ring_news() {
            match outlets.get_mut(usize::from(to.0)) {
                Some(Some(outlet)) => outlet.set_news(received, handled),
                Some(None) => {}
                None => elsewhere.push((to, (received, handled))),
            }
        }
        for (outlet, batch) in outlets.iter_mut().zip(&mut fx.outbox) {
            if let Some(outlet) = outlet {
                outlet.send(batch, now.mono);
            }
        }
        if let Some(relays) = &self.relays {
            self.send_to_nodes(relays, &shard, &mut fx, elsewhere);
        }
        if shard.has_stalled() {
            shard.handle(now, Input::Relieved, &mut fx);
        }
        if !fx.actions.is_empty() || !fx.dirty.is_empty() || !fx.writes.is_empty() {
            self.flush.notify();
        }
        drop((fx, store, shard, outlets));
        self.turns.end(self.id.0, flushed, || self.clock.now().wall);
    }

    /// Before frames leave: what happens to them on other cores is told later.
    fn tell_watchers(&self) {
        let mut watchers = self.watchers.borrow_mut();
        if !watchers.is_empty() {
            watchers.tell(self.shard.borrow_mut().take_hops());
        }
    }

    fn act(self: &Rc<Self>, action: Action) {
        match action {
            Action::StartTls(conn) => connection::start_tls(self, conn),
            Action::Close(conn) => connection::close(self, conn),
            Action::Abort(conn) => connection::abort(self, conn),
            Action::ReadAgain(conn) => connection::read_again(self, conn),
            Action::GiveLeave { conn, token, label, root, number, jid } => {
                relay::give_leave(self, conn, &Leave { token, label, root, number, jid: &jid });
            }
            Action::TakeLeaveBack(conn) => relay::take_leave_back(self, conn),
            Action::FrontGoesOn(token) => relay::goes_on(self, token),
            Action::Move { conn, to } if to.node != self.node => relay::open(self, conn, to),
            Action::Move { conn, to: Owner { shard: to, .. } } => {
                if self.socket(conn).is_none() {
                    return relay::open(self, conn, Owner { node: self.node, shard: to });
                }
                if let Some(socket) = connection::extract(self, conn)
                    && let Some(Some(outlet)) = self.outlets.borrow_mut().get_mut(usize::from(to.0))
                {
                    outlet.add_socket(socket);
                }
            }
            Action::CheckPassword(check) => {
                if let Err(check) = self.passwords.check(self.id.0, check) {
                    let mut fx = self.fx.borrow_mut();
                    let input = Input::PasswordChecked { conn: check.conn, verdict: None };
                    self.shard.borrow_mut().handle(self.clock.now(), input, &mut fx);
                    self.flush.notify();
                }
            }
            Action::Administer { ticket, errand } => {
                if !self.errands.give(self.id.0, ticket, errand) {
                    let mut fx = self.fx.borrow_mut();
                    let input = Input::Administered { ticket, outcome: Outcome::Busy };
                    self.shard.borrow_mut().handle(self.clock.now(), input, &mut fx);
                    self.flush.notify();
                }
            }
        }
    }

    /// Reads letters and rings until both are empty.
    fn look(self: &Rc<Self>, inlets: &mut [Option<Inlet>], letters: &Receiver<Letter>) {
        let now = self.clock.now();
        let mut any = false;
        while let Ok(letter) = letters.try_recv() {
            if !any {
                self.turns.enter(TurnPart::Letters, now.mono);
            }
            any = true;
            self.read_letter(now, letter);
        }
        let inlets = if self.is_suspended() { &mut [] } else { inlets };
        for (from, inlet) in inlets.iter_mut().enumerate() {
            let Some(inlet) = inlet else { continue };
            let from = Peer(u16::try_from(from).unwrap_or(u16::MAX));
            while let Some(parcel) = inlet.receive() {
                self.turns.enter(TurnPart::Frames, now.mono);
                any = true;
                {
                    let mut fx = self.fx.borrow_mut();
                    let mut shard = self.shard.borrow_mut();
                    if !parcel.frames.is_empty() {
                        self.handshakes.served(None, now.mono);
                        let input =
                            Input::Frames { from, sent: parcel.sent, batch: &parcel.frames };
                        shard.handle(now, input, &mut fx);
                    }
                    if let Some((received, handled)) = parcel.news {
                        shard.handle(now, Input::Handled { by: from, received, handled }, &mut fx);
                    }
                }
                for socket in parcel.sockets {
                    connection::adopt(self, socket);
                }
                inlet.give_back(parcel.frames);
            }
        }
        // A ring of ours may have room again, too.
        if any || self.fx.borrow().outbox.iter().any(|batch| !batch.is_empty()) {
            self.flush.notify();
        }
    }

    fn read_letter(self: &Rc<Self>, now: crate::base::instant::Now, letter: Letter) {
        let mut fx = self.fx.borrow_mut();
        let mut shard = self.shard.borrow_mut();
        match letter {
            Letter::Stored(answers) => {
                let mut store = self.store.borrow_mut();
                for (ticket, outcome) in answers {
                    store.answered(ticket);
                    shard.handle(now, Input::Stored { ticket, outcome }, &mut fx);
                }
            }
            Letter::PasswordChecked(conn, verdict) => {
                shard.handle(now, Input::PasswordChecked { conn, verdict }, &mut fx);
            }
            Letter::IdsGiven(partition, next) => {
                shard.handle(now, Input::IdsGiven { partition, next }, &mut fx);
            }
            Letter::AccountChanged(jid) => shard.handle(now, Input::AccountChanged(jid), &mut fx),
            Letter::Reconfigured(news) => {
                let Reconfiguration { shard: config, features, core } = *news;
                self.connections.limit.set(core.connections_max);
                self.handshakes.set_limit(core.handshakes_max);
                *self.settings.borrow_mut() = core;
                let features = Features(features());
                shard.handle(now, Input::Reconfigured { config, features }, &mut fx);
            }
            Letter::AccountDeleted(jid, contacts) => {
                shard.handle(now, Input::AccountDeleted { jid, contacts }, &mut fx);
            }
            Letter::Administered(ticket, outcome) => {
                shard.handle(now, Input::Administered { ticket, outcome }, &mut fx);
            }
            // Whoever asked may have lost patience: then nobody takes the answer.
            Letter::Sessions(whose, after, limit, answer) => {
                let mut page = shard.session_facts(now, &whose, after, limit);
                relay::find_sockets(self, &mut page.found);
                let _ = answer.send(page);
            }
            Letter::Users(query, answer) => {
                let _ = answer.send(shard.users(now, &query));
            }
            Letter::EndSessions(jid, answer) => {
                let before = shard.sessions();
                shard.handle(now, Input::EndSessions(jid), &mut fx);
                let _ = answer.send(before.saturating_sub(shard.sessions()) as u64);
            }
            Letter::Announce(announcement, after, answer) => {
                shard.handle(now, Input::Announce { announcement, after }, &mut fx);
                let _ = answer.send(shard.next_page(after));
            }
            Letter::Status(answer) => {
                let _ = answer.send(ShardFigures {
                    shard: self.id.0,
                    connections: shard.probe().connections,
                    sessions: shard.sessions() as u64,
                    fronts: relay::fronts(self) as u64,
                    accounts: shard.accounts() as u64,
                    waiting_for_store: shard.waiting_for_store() as u64,
                    ring_bytes: fx.outbox.iter().map(|batch| batch.len_bytes() as u64).sum(),
                    clients_held: shard.clients_held() as u64,
                    at_us: now.mono.0 / 1_000,
                    cpu_us: process::thread_cpu_us(),
                    probe: shard.probe().clone(),
                    core: *self.counts.borrow(),
                    components: shard
                        .components()
                        .map(|(domain, count)| (domain.to_owned(), count as u64))
                        .collect(),
                });
            }
            Letter::Talkers(answer) => {
                let _ = answer.send(shard.top_talkers(now));
            }
            Letter::Latencies(spare, answer) => {
                let CorePart { stanzas, core, .. } = spare;
                let part = CorePart {
                    shard: self.id.0,
                    stanzas: shard.take_latencies(stanzas),
                    core: self.turns.take(core),
                };
                let _ = answer.send(part);
            }
            Letter::Watch(watch, hops, answer) => {
                self.watchers.borrow_mut().add(watch.id, hops);
                let clock = self.clock;
                shard.watch(watch, Box::new(move || clock.mono()));
                let _ = answer.send(());
            }
            Letter::EndWatch(id, answer) => {
                let left_out = shard.end_watch(id) + self.watchers.borrow_mut().remove(id);
                let _ = answer.send(left_out);
            }
            Letter::Link(incoming) => {
                drop((fx, shard));
                if let Some(incoming) = self.gate.admit(self.clock.mono(), incoming) {
                    self.from_node(incoming);
                }
            }
            Letter::View(view) => {
                relay::placed(self, &view);
                shard.handle(now, Input::Placed(view), &mut fx);
            }
            Letter::Depart(departing) => relay::depart(self, departing),
            Letter::Shutdown => {
                self.stopping.set(true);
                shard.handle(now, Input::Shutdown, &mut fx);
                relay::stop(self);
            }
        }
    }

    /// Whether the node may not act as the owner of anything: its lease is over, and the next one is not there. Nobody is
    /// read until then; what is under way ends as far as the store lets it.
    pub(super) fn is_suspended(&self) -> bool {
        self.gate.is_closed(self.clock.mono())
    }

    /// The lease is there again: what was kept back is dealt with, and everybody is read.
    fn resume_if_leased(self: &Rc<Self>) {
        let Some(kept_back) = self.gate.reopen(self.clock.mono()) else { return };
        for incoming in kept_back.incoming {
            self.from_node(incoming);
        }
        for run in kept_back.torn {
            if let Some(relays) = &self.relays {
                relays.renew(run);
            }
        }
        self.sockets.all().iter().for_each(|socket| connection::wake(socket));
        relay::all_go_on(self);
        self.mailbox.bell().ring();
    }

    /// What came over a link.
    fn from_node(self: &Rc<Self>, incoming: Incoming) {
        let now = self.clock.now();
        match incoming {
            Incoming::Piece { from, sent, frames, news, relay } => {
                {
                    let (mut fx, mut shard) = (self.fx.borrow_mut(), self.shard.borrow_mut());
                    if let Some(peer) = shard.peer(from, &mut fx) {
                        if !frames.is_empty() {
                            self.turns.enter(TurnPart::Frames, now.mono);
                            if let Some(Departure { at, clock_ahead_us }) = sent {
                                let took = now.wall.0.saturating_sub(at.0);
                                let took = Duration::from_micros(took);
                                shard.came_from_afar(peer, took, clock_ahead_us);
                            }
                            let input =
                                Input::Frames { from: peer, sent: now.mono, batch: &frames };
                            shard.handle(now, input, &mut fx);
                        }
                        if let Some((received, handled)) = news {
                            let input = Input::Handled { by: peer, received, handled };
                            shard.handle(now, input, &mut fx);
                        }
                    }
                }
                if !relay.is_empty() {
                    relay::received(self, from, &relay);
                }
            }
            Incoming::Up(run) => {
                relay::linked(self, run);
                let (mut fx, mut shard) = (self.fx.borrow_mut(), self.shard.borrow_mut());
                shard.handle(now, Input::Linked(run), &mut fx);
            }
            Incoming::Down(run) => relay::lost(self, run),
        }
        self.flush.notify();
    }

    /// The turn's frames for other nodes, and how far theirs are handled.
    fn send_to_nodes(
        &self,
        relays: &Relays,
        shard: &Shard,
        fx: &mut Effects,
        mut news: Vec<(Peer, (u64, u64))>,
    ) {
        self.gate.settle(self.id, shard.settled_epoch());
        for (peer, batch) in (0..).map(Peer).zip(&mut fx.outbox).skip(self.cores) {
            let told = news.iter().position(|(of, _)| *of == peer);
            if batch.is_empty() && told.is_none() {
                continue;
            }
            let news = told.map(|at| news.swap_remove(at).1);
            let (from, to) = (self.id, shard.place(peer));
            let frames = std::mem::take(batch);
            relays.send(Outgoing { from, to, frames, news, relay: Vec::new() });
        }
    }

    /// - `late`: how late the timer was
    fn tick(self: &Rc<Self>, late: Duration) {
        self.beats.beat(self.id.0);
        withheld::let_go(self);
        relay::tick(self);
        self.resume_if_leased();
        let now = self.clock.now();
        self.turns.ticked(self.id.0, now, late);
        while let Some(socket) = self.sockets.next_due(now.mono) {
            connection::time_is_up(&socket, self);
        }
        self.run_timers();
    }

    fn run_timers(&self) {
        let (now, mut shard) = (self.clock.now(), self.shard.borrow_mut());
        if shard.next_due().is_some_and(|due| due <= now.mono) {
            self.turns.enter(TurnPart::Timers, now.mono);
            shard.handle(now, Input::Tick, &mut self.fx.borrow_mut());
            self.flush.notify();
        }
    }

    /// Looks at a socket again after `span`, at the latest.
    pub(super) fn end_by(&self, socket: &Rc<Socket>, span: Duration) {
        self.sockets.look_at(self.clock.mono() + span, socket);
    }

    pub(super) fn register(&self, conn: ConnId, socket: &Rc<Socket>) {
        self.sockets.register(conn.0, socket);
    }

    pub(super) fn forget(&self, conn: ConnId) {
        self.sockets.forget(conn.0);
    }

    pub(super) fn socket(&self, conn: ConnId) -> Option<Rc<Socket>> {
        self.sockets.get(conn.0)
    }
}

/// Returns when the core has run what was due, and looked at the kernel: what asks for this does not hold others up.
pub(super) async fn next_look() {
    glommio::timer::sleep(LOOK).await;
}

/// Waits for `span`, with later timers behind it that never end as long as all goes well.
///
/// COMPAT(glommio, 0.9): as for `PREEMPT`, when a notice from another thread comes in that very moment. A core whose
/// tick is among the tasks that were not run would sleep until a client says something. Several timers, since the same
/// delay that brings this about may let more than one fire.
pub(super) async fn pause(span: Duration) {
    let after = |more| glommio::timer::sleep(span + Duration::from_millis(more));
    or(or(after(0), after(5)), or(after(100), after(5_000))).await;
}

/// Accepts connections for as long as the task lives. Without room they wait in the kernel.
async fn accept(core: Rc<Core>, transport: Transport, listener: TcpListener) {
    let listener = socket::listener(listener);
    let (mut accepted, mut refused) = (0u32, 0u32);
    loop {
        if !core.connections.has_room() {
            glommio::timer::sleep(TICK).await;
            continue;
        }
        match listener.accept().await {
            Ok(stream) => {
                accepted = accepted.wrapping_add(1);
                if accepted.is_multiple_of(ACCEPTS_PER_LOOK) {
                    // While connections wait, `accept` returns at once and nothing else would run.
                    next_look().await;
                }
                // Gone already where it has no address.
                let Ok(peer) = stream.peer_addr() else { continue };
                let peer = peer.ip().to_canonical();
                let from_balancer = {
                    let settings = core.settings.borrow();
                    // Components come by themselves.
                    let balancers =
                        settings.balancers.as_ref().filter(|_| transport != Transport::Component);
                    balancers.map(|balancers| balancers.contains(peer))
                };
                let admitted = match from_balancer {
                    None => core.shard.borrow_mut().admits(core.clock.now(), peer),
                    // The client is asked about when it is known.
                    Some(known) => {
                        core.counts.borrow_mut().unproxied_refused += u64::from(!known);
                        known
                    }
                };
                if !admitted {
                    socket::reset(&stream);
                    drop(stream);
                    refused = refused.wrapping_add(1);
                    if refused.is_multiple_of(ACCEPTS_PER_LOOK) {
                        // A flood of those waits in the kernel, and costs no more than a part of the core.
                        glommio::timer::sleep(REFUSAL_PAUSE).await;
                    }
                    continue;
                }
                core.connections.enter();
                connection::open(&core, stream, peer, transport, from_balancer.is_some());
            }
            Err(error) => {
                core.counts.borrow_mut().accepts_failed += 1;
                tracing::warn!(%error, "a connection cannot be accepted");
                glommio::timer::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Randomness of the operating system.
pub fn seed() -> [u8; 32] {
    use ring::rand::{SecureRandom, SystemRandom};
    let mut seed = [0; 32];
    assert!(SystemRandom::new().fill(&mut seed).is_ok(), "the system gives random bytes");
    seed
}
