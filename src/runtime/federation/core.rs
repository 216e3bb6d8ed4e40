//! One federation core: a glommio executor that runs the actor of other servers, its sockets and its ends of the rings.
//!
//! Turns are as a shard's (`executor`): reads, rings and letters feed the actor, and one long-lived task at the end carries
//! out what all of them wanted.

use super::connection::{self, Socket};
use super::dial::{self, Cancel};
use super::dns::Dns;
use super::{FederationLetter, FederationSettings, notes};
use crate::admin::figures::{FederationCoreProbe, FederationFigures};
use crate::admin::latency::{FederationPart, TurnPart};
use crate::base::hash::{Map, Set};
use crate::base::instant::{Instant, Now};
use crate::federation::control::Answered;
use crate::federation::{Action, ConnId, Effects, Federation, Input};
use crate::runtime::clock::Clock;
use crate::runtime::cluster::lease::{Gate, Membership};
use crate::runtime::executor::{
    ACCEPT_PAUSE, ACCEPTS_PER_LOOK, Beats, Done, Flush, PLAIN_BYTES, READ_BYTES, REFUSAL_PAUSE,
    TICK, next_look, pause,
};
use crate::runtime::handshakes::{self, Handshakes};
use crate::runtime::mailbox::Mailbox;
use crate::runtime::mesh::{Inlet, Outlet};
use crate::runtime::process;
use crate::runtime::socket;
use crate::runtime::sockets::Sockets;
use crate::runtime::storage::StoreClient;
use crate::runtime::turns::Turns;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender};
use std::task::{Poll, Waker};
use std::time::Duration;

/// How long connections take to end when the node does: for what was said last to leave, and for peers to close their sides.
const GOODBYE: Duration = Duration::from_millis(1_500);

/// One core's share of what `start` made.
pub(super) struct Part {
    /// Among the federation cores.
    pub(super) index: u16,
    pub(super) shards: u16,
    pub(super) actor: Federation,
    pub(super) settings: FederationSettings,
    pub(super) dns: Dns,
    pub(super) outlets: Vec<Option<Outlet>>,
    pub(super) inlets: Vec<Option<Inlet>>,
    pub(super) letters: Receiver<FederationLetter>,
    pub(super) mailbox: Mailbox<FederationLetter>,
    pub(super) store: StoreClient,
    pub(super) clock: Clock,
    pub(super) beats: Beats,
    pub(super) done: Done,
    pub(super) measures: bool,
    pub(super) membership: Option<Membership>,
}

/// What the tasks of one core share. No borrow lives across an await.
pub(super) struct Core {
    pub(super) actor: RefCell<Federation>,
    pub(super) fx: RefCell<Effects>,
    pub(super) clock: Clock,
    pub(super) settings: RefCell<FederationSettings>,
    pub(super) scratch: RefCell<Box<[u8]>>,
    pub(super) plain: RefCell<Box<[u8]>>,
    pub(super) flush: Flush,
    pub(super) handshakes: Handshakes,
    pub(super) counts: RefCell<FederationCoreProbe>,
    pub(super) turns: Turns,
    index: u16,
    shards: u16,
    dns: Dns,
    sockets: Sockets<Socket>,
    /// Connections whose targets are looked for.
    resolving: RefCell<Set<ConnId>>,
    dialling: RefCell<Map<ConnId, Rc<Cancel>>>,
    /// Who asked what the actor has not answered.
    asked: RefCell<Map<u64, Sender<Answered>>>,
    next_question: Cell<u64>,
    outlets: RefCell<Vec<Option<Outlet>>>,
    store: RefCell<StoreClient>,
    mailbox: Mailbox<FederationLetter>,
    beats: Beats,
    done: Done,
    gate: Gate,
    /// Since the node ends; the actor is told when the shards have nothing more to say.
    stopping: Cell<Option<Instant>>,
    is_actor_told: Cell<bool>,
}

impl Core {
    pub(super) fn new(part: Part) -> (Rc<Core>, Vec<Option<Inlet>>, Receiver<FederationLetter>) {
        let core = Core {
            actor: RefCell::new(part.actor),
            fx: RefCell::new(Effects::new(u16::try_from(part.outlets.len()).unwrap_or(u16::MAX))),
            clock: part.clock,
            settings: RefCell::new(part.settings),
            scratch: RefCell::new(vec![0; READ_BYTES].into()),
            plain: RefCell::new(vec![0; PLAIN_BYTES].into()),
            flush: Flush::default(),
            handshakes: Handshakes::default(),
            counts: RefCell::default(),
            turns: Turns::of_federation(part.measures),
            index: part.index,
            shards: part.shards,
            dns: part.dns,
            sockets: Sockets::default(),
            resolving: RefCell::default(),
            dialling: RefCell::default(),
            asked: RefCell::default(),
            next_question: Cell::new(0),
            outlets: RefCell::new(part.outlets),
            store: RefCell::new(part.store),
            mailbox: part.mailbox,
            beats: part.beats,
            done: part.done,
            gate: Gate::new(part.membership),
            stopping: Cell::new(None),
            is_actor_told: Cell::new(false),
        };
        (Rc::new(core), part.inlets, part.letters)
    }

    pub(super) async fn run(
        self: Rc<Self>,
        mut inlets: Vec<Option<Inlet>>,
        letters: Receiver<FederationLetter>,
        listeners: Vec<(bool, TcpListener)>,
        started: impl FnOnce(),
    ) {
        let core = self.clone();
        glommio::spawn_local(async move {
            poll_fn(|cx| core.guarded(|| core.turn_ends(cx.waker()))).await;
        })
        .detach();
        let core = self.clone();
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
        let core = self.clone();
        glommio::spawn_local(async move { handshakes::turns(&core.handshakes).await }).detach();
        let mut accepting: Vec<_> = listeners
            .into_iter()
            .map(|(direct_tls, listener)| {
                glommio::spawn_local(accept(self.clone(), direct_tls, listener))
            })
            .collect();
        started();
        // The actor has something to do before anything comes in.
        self.flush.notify();
        let mut told = false;
        loop {
            let span = if self.stopping.get().is_some() { TICK / 10 } else { TICK };
            let due = self.clock.mono() + span;
            pause(span).await;
            self.guarded(|| self.tick(self.clock.mono().since(due)));
            while self.actor.borrow().is_behind() {
                next_look().await;
                self.guarded(|| self.run_timers());
            }
            let Some(since) = self.stopping.get() else { continue };
            // Dropped tasks end, and their listeners close.
            accepting.clear();
            let patience = self.settings.borrow().shutdown_timeout;
            let now = self.clock.mono();
            let shards_done = self.done.count() >= usize::from(self.shards);
            if !self.is_actor_told.get() && (shards_done || now >= since + patience / 2) {
                self.is_actor_told.set(true);
                self.guarded(|| self.give(Input::Shutdown));
                // One whose peer reads no more, or was about to end before, is not waited for as long as at other times.
                self.sockets.all().iter().for_each(|socket| self.end_by(socket, GOODBYE));
            }
            let is_over = now >= since + patience;
            if (self.is_idle() || is_over) && !told {
                told = true;
                self.done.tell();
            }
            // Shards may still send here what their clients said last.
            if told && (self.done.is_all() || is_over) {
                self.dialling.borrow().values().for_each(|dial| dial.cancel());
                return;
            }
        }
    }

    /// Nothing is under way, and nothing more will be.
    fn is_idle(&self) -> bool {
        self.is_actor_told.get()
            && self.sockets.is_empty()
            && self.actor.borrow().waiting_for_store() == 0
            && self.fx.borrow().is_empty()
    }

    /// Runs a piece of a task. A panic that reaches this far was not contained by the actor: its state cannot be trusted, so
    /// the node ends.
    pub(super) fn guarded<T>(&self, work: impl FnOnce() -> T) -> T {
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)) {
            Ok(value) => value,
            Err(_) => {
                tracing::error!(core = self.index, "a fault of federation: the node ends");
                std::process::exit(70)
            }
        }
    }

    fn give(&self, input: Input<'_>) {
        self.actor.borrow_mut().handle(self.clock.now(), input, &mut self.fx.borrow_mut());
        self.flush.notify();
    }

    fn turn_ends(self: &Rc<Self>, waker: &Waker) -> Poll<()> {
        if self.flush.is_due(waker) {
            self.carry_out();
        }
        Poll::Pending
    }

    /// Carries out what the turn wanted.
    fn carry_out(self: &Rc<Self>) {
        if self.is_suspended() {
            return;
        }
        let now = self.clock.now();
        self.turns.carry_out(now.mono);
        let (mut actions, mut dirty) = {
            let mut fx = self.fx.borrow_mut();
            self.actor.borrow_mut().end_turn(now, &mut fx);
            (std::mem::take(&mut fx.actions), std::mem::take(&mut fx.dirty))
        };
        for action in actions.drain(..) {
            self.act(action);
        }
        for conn in dirty.drain(..) {
            connection::flush(self, conn);
        }
        let flushed = self.clock.mono();
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
        let mut actor = self.actor.borrow_mut();
        let mut outlets = self.outlets.borrow_mut();
        for (to, received, handled) in actor.ring_news() {
            if let Some(Some(outlet)) = outlets.get_mut(usize::from(to)) {
                outlet.set_news(received, handled);
            }
        }
        for (outlet, batch) in outlets.iter_mut().zip(&mut fx.outbox) {
            if let Some(outlet) = outlet {
                outlet.send(batch, now.mono);
            }
        }
        if actor.peers_held() > 0 {
            actor.handle(now, Input::Relieved, &mut fx);
        }
        if !fx.actions.is_empty() || !fx.dirty.is_empty() || !fx.writes.is_empty() {
            self.flush.notify();
        }
        drop((fx, store, actor, outlets));
        self.turns.end(self.index, flushed, || self.clock.now().wall);
    }

    /// Whether the node may not act as the owner of anything, as its lease is over (see `executor`): nothing is sent until the
    /// next one is there, as another node may be sending by now.
    pub(super) fn is_suspended(&self) -> bool {
        self.gate.is_closed(self.clock.mono())
    }

    /// The lease is there again.
    fn resume_if_leased(&self) {
        // Links end at the shards: nothing was kept back here.
        if self.gate.reopen(self.clock.mono()).is_some() {
            self.sockets.all().iter().for_each(|socket| connection::wake(socket));
            self.mailbox.bell().ring();
            self.flush.notify();
        }
    }

    fn act(self: &Rc<Self>, action: Action) {
        match action {
            Action::Resolve { conn, domain } => {
                self.resolving.borrow_mut().insert(conn);
                let mailbox = self.mailbox.clone();
                self.dns.resolve(domain, move |outcome, took| {
                    mailbox.send(FederationLetter::Resolved { conn, outcome, took });
                });
            }
            Action::AskPosh { conn, domain } => {
                let (mailbox, of) = (self.mailbox.clone(), domain.clone());
                self.dns.posh(domain, move |outcome, took| {
                    mailbox.send(FederationLetter::Posh { conn, domain: of, outcome, took });
                });
            }
            Action::Dial { conn, plan, first, share, tls } => {
                dial::dial(self, conn, plan, (first, share), tls);
            }
            Action::StartTls { conn, role } => connection::start_tls(self, conn, &role),
            Action::Close(conn) => connection::close(self, conn),
            Action::Abort(conn) => {
                self.resolving.borrow_mut().remove(&conn);
                if let Some(dial) = self.dialling.borrow_mut().remove(&conn) {
                    dial.cancel();
                }
                connection::abort(self, conn);
            }
            Action::ReadAgain(conn) => connection::read_again(self, conn),
            Action::Answer { number, answered } => {
                if let Some(asker) = self.asked.borrow_mut().remove(&number) {
                    // Whoever asked may have lost patience: then nobody takes the answer.
                    let _ = asker.send(*answered);
                }
            }
            Action::Note(note) => notes::log(&note),
        }
    }

    /// Reads letters and rings until both are empty.
    fn look(self: &Rc<Self>, inlets: &mut [Option<Inlet>], letters: &Receiver<FederationLetter>) {
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
        for (from, inlet) in (0..).zip(inlets) {
            let Some(inlet) = inlet else { continue };
            while let Some(parcel) = inlet.receive() {
                self.turns.enter(TurnPart::Frames, now.mono);
                any = true;
                let mut fx = self.fx.borrow_mut();
                let mut actor = self.actor.borrow_mut();
                if !parcel.frames.is_empty() {
                    self.handshakes.served(None, now.mono);
                    let input = Input::Frames { from, sent: parcel.sent, batch: &parcel.frames };
                    actor.handle(now, input, &mut fx);
                }
                if let Some((received, handled)) = parcel.news {
                    actor.handle(now, Input::Handled { by: from, received, handled }, &mut fx);
                }
                debug_assert!(parcel.sockets.is_empty(), "clients belong to shards");
                inlet.give_back(parcel.frames);
            }
        }
        // A ring of ours may have room again, too.
        if any || self.fx.borrow().outbox.iter().any(|batch| !batch.is_empty()) {
            self.flush.notify();
        }
    }

    fn read_letter(&self, now: Now, letter: FederationLetter) {
        match letter {
            FederationLetter::Stored(answers) => {
                for (ticket, outcome) in answers {
                    self.store.borrow_mut().answered(ticket);
                    self.give(Input::Stored { ticket, outcome });
                }
            }
            FederationLetter::Resolved { conn, outcome, took } => {
                // Nobody waits for it where it was aborted.
                let is_wanted = self.resolving.borrow_mut().remove(&conn);
                if is_wanted {
                    self.give(Input::Resolved { conn, outcome, took });
                }
            }
            FederationLetter::Posh { conn, domain, outcome, took } => {
                self.give(Input::Posh { conn, domain, outcome, took });
            }
            FederationLetter::View(view) => self.give(Input::Placed(view.placement.clone())),
            FederationLetter::Reconfigured(news) => {
                if let Some(settings) = news.settings {
                    *self.settings.borrow_mut() = settings;
                }
                self.give(Input::Reconfigured(news.actor));
            }
            FederationLetter::Asked(request, asker) => {
                let number = self.next_question.get();
                self.next_question.set(number + 1);
                self.asked.borrow_mut().insert(number, asker);
                self.give(Input::Asked { number, request });
            }
            // Whoever asked may have lost patience: then nobody takes the answer.
            FederationLetter::Status(answer) => {
                let _ = answer.send(self.figures());
            }
            FederationLetter::Latencies(spare, answer) => {
                let FederationPart { stages, turns, .. } = spare;
                let part = FederationPart {
                    core: self.index,
                    stages: self.actor.borrow_mut().take_latencies(stages),
                    turns: self.turns.take(turns),
                };
                let _ = answer.send(part);
            }
            FederationLetter::Shutdown => {
                if self.stopping.get().is_none() {
                    self.stopping.set(Some(now.mono));
                }
            }
        }
    }

    fn figures(&self) -> FederationFigures {
        let mut actor = self.actor.borrow_mut();
        let outbox = &self.fx.borrow().outbox;
        FederationFigures {
            core: self.index,
            cpu_us: process::thread_cpu_us(),
            ring_bytes: outbox.iter().map(|batch| batch.len_bytes() as u64).sum(),
            peers_held: actor.peers_held() as u64,
            probe: actor.probe().clone(),
            counts: *self.counts.borrow(),
        }
    }

    /// - `late`: how late the timer was
    fn tick(self: &Rc<Self>, late: Duration) {
        self.beats.beat(self.index);
        self.resume_if_leased();
        let now = self.clock.now();
        self.turns.ticked(self.index, now, late);
        while let Some(socket) = self.sockets.next_due(now.mono) {
            connection::time_is_up(self, &socket);
        }
        self.run_timers();
    }

    fn run_timers(&self) {
        let now = self.clock.now();
        let due = self.actor.borrow().next_due();
        if due.is_some_and(|due| due <= now.mono) {
            self.turns.enter(TurnPart::Timers, now.mono);
            self.give(Input::Tick);
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

    pub(super) fn dial_begins(&self, conn: ConnId) -> Rc<Cancel> {
        let cancel = Rc::new(Cancel::default());
        if let Some(before) = self.dialling.borrow_mut().insert(conn, cancel.clone()) {
            before.cancel();
        }
        cancel
    }

    pub(super) fn dial_ends(&self, conn: ConnId, dial: &Rc<Cancel>) {
        let mut dialling = self.dialling.borrow_mut();
        if dialling.get(&conn).is_some_and(|known| Rc::ptr_eq(known, dial)) {
            dialling.remove(&conn);
        }
    }
}

/// Accepts connections for as long as the task lives.
async fn accept(core: Rc<Core>, direct_tls: bool, listener: TcpListener) {
    let listener = socket::listener(listener);
    let (mut accepted, mut refused) = (0u32, 0u32);
    loop {
        match listener.accept().await {
            Ok(stream) => {
                accepted = accepted.wrapping_add(1);
                if accepted.is_multiple_of(ACCEPTS_PER_LOOK) {
                    // While connections wait, `accept` returns at once and nothing else would run.
                    next_look().await;
                }
                // Gone already where it has no address.
                let Ok(peer) = stream.peer_addr() else { continue };
                let peer = std::net::SocketAddr::new(peer.ip().to_canonical(), peer.port());
                if !core.guarded(|| connection::accepted(&core, stream, peer, direct_tls)) {
                    refused = refused.wrapping_add(1);
                    if refused.is_multiple_of(ACCEPTS_PER_LOOK) {
                        // A flood of those waits in the kernel, and costs no more than a part of the core.
                        glommio::timer::sleep(REFUSAL_PAUSE).await;
                    }
                }
            }
            Err(error) => {
                core.counts.borrow_mut().accepts_failed += 1;
                tracing::warn!(%error, "a connection of another server cannot be accepted");
                glommio::timer::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
