//! Gossip and beacons on real sockets: drives `cluster::discovery` and `cluster::membership` in one loop of a tokio runtime
//! on one thread (with time and I/O enabled).
//!
//! It needs nothing of the rest of the node: commands come by `GossipHandle`, events go out by a callback, and the figures
//! are there for whoever asks. What members do is logged here, in a line each.

mod sockets;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_lite::future::or;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use super::super::clock::Clock;
use crate::base::instant::Instant;
use crate::base::rng::Rng;
use crate::cluster::beacon;
use crate::cluster::discovery::{self, Discovery, DiscoveryFigures};
use crate::cluster::membership::{
    DATAGRAM_BYTES_MAX, Health, MemberEvent, MemberFigures, Membership, Outputs,
};
use crate::cluster::view::NodeFacts;
pub use sockets::GossipError;
use sockets::Sockets;

/// Commands that wait; a sender of more is told.
const COMMANDS_MAX: usize = 64;
/// Datagrams of one socket that are read before timers are looked at again.
const BURST: usize = 64;
/// Longer than any datagram of ours, so that one that is too long is seen as such.
const READ_BYTES: usize = 2048;
const _: () = assert!(DATAGRAM_BYTES_MAX < READ_BYTES && beacon::BEACON_BYTES_MAX < READ_BYTES);
/// How long a resolver may take.
const RESOLVE_WITHIN: Duration = Duration::from_secs(8);
/// What goes wrong again and again is told so often.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// What `[cluster]` of the configuration says of it.
#[derive(Clone, Debug)]
pub struct GossipSettings {
    /// `cluster.bind`: UDP of gossip, at the same address and port as links. Port 0: any.
    pub bind: SocketAddr,
    /// `cluster.multicast.group`; `None`: no beacons to a group.
    pub group: Option<SocketAddr>,
    /// `cluster.multicast.interface`; `None`: that of `bind`.
    pub interface: Option<Ipv4Addr>,
    /// `cluster.seeds`, each `HOST:PORT`.
    pub seeds: Vec<String>,
    /// `cluster.dns`: a name, with or without a port; empty: none.
    pub dns: String,
    /// Of beacons, and of gossip: two keys that are derived from the secret.
    pub keys: ([u8; 32], [u8; 32]),
}

/// What is asked of the loop.
#[derive(Clone, Debug)]
pub enum GossipCommand {
    /// The node says this of itself from now on; name, run and address stay.
    Tell(NodeFacts),
    /// There is a node, as the database knows: ask it.
    Join(SocketAddr),
    /// Tell the members that this node ends; `MemberEvent::Gone` follows and the loop ends.
    Leave,
    /// End now, and tell nobody.
    Stop,
}

/// Counts since the start, and the members.
#[derive(Clone, Debug, Default)]
pub struct GossipFigures {
    pub beacons: DiscoveryFigures,
    pub gossip: MemberFigures,
    /// Datagrams that the system did not take, to the group and to nodes.
    pub unsent: u64,
    pub members: Vec<(NodeFacts, Health)>,
}

/// Reaches the loop from any thread.
#[derive(Clone, Debug)]
pub struct GossipHandle {
    commands: mpsc::Sender<GossipCommand>,
    figures: Arc<Mutex<GossipFigures>>,
}

impl GossipHandle {
    /// Gives a command to the loop; never waits.
    ///
    /// - gives: whether it was taken: not once the loop has ended, nor while too many wait
    pub fn command(&self, command: GossipCommand) -> bool {
        self.commands.try_send(command).is_ok()
    }

    /// As of the last time that something happened.
    pub fn figures(&self) -> GossipFigures {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The sockets and machines of one node's gossip, before they run.
pub struct Gossip<T> {
    sockets: Sockets,
    group: Option<SocketAddr>,
    discovery: Discovery,
    membership: Membership,
    clock: Clock,
    commands: mpsc::Receiver<GossipCommand>,
    figures: Arc<Mutex<GossipFigures>>,
    tell: T,
}

impl<T: FnMut(MemberEvent)> Gossip<T> {
    /// Binds the sockets. Nothing is sent before `run`.
    ///
    /// - takes: what the node says of itself, where `link` becomes the address that was bound; a generator of its own;
    ///   `tell`, which is called on the thread of `run` and must not wait
    /// - errors: one line for the operator
    pub fn bind(
        settings: &GossipSettings,
        facts: NodeFacts,
        clock: Clock,
        mut rng: Rng,
        tell: T,
    ) -> Result<(Gossip<T>, GossipHandle), GossipError> {
        let bind = settings.bind;
        let sockets = sockets::open(bind, settings.group, settings.interface)?;
        let bound = |source| GossipError::Bind { address: bind, source };
        let link = sockets.link.local_addr().map_err(bound)?;
        let (seeds, names) = sockets::seeds(&settings.seeds, &settings.dns, link.port())?;
        let facts = NodeFacts { link, ..facts };
        let look = discovery::Settings { has_group: settings.group.is_some(), seeds, names };
        let now = clock.now();
        let membership = Membership::new(facts.clone(), &settings.keys.1, now, &mut rng)?;
        let discovery = Discovery::new(look, facts, &settings.keys.0, now.mono, rng)?;
        let (sender, commands) = mpsc::channel(COMMANDS_MAX);
        let figures = Arc::new(Mutex::new(GossipFigures::default()));
        let handle = GossipHandle { commands: sender, figures: figures.clone() };
        let group = settings.group;
        let gossip =
            Gossip { sockets, group, discovery, membership, clock, commands, figures, tell };
        Ok((gossip, handle))
    }

    /// Where this node takes gossip.
    pub fn link(&self) -> SocketAddr {
        self.membership.facts().link
    }

    /// Runs until `Leave` is done, `Stop`, or all handles are dropped.
    ///
    /// - errors: the sockets cannot be watched
    pub async fn run(self) -> io::Result<()> {
        let link = UdpSocket::from_std(self.sockets.link)?;
        let ears = self.sockets.group.map(UdpSocket::from_std).transpose()?;
        // Until the poll has seen them once, they seem not to take anything.
        link.writable().await?;
        if let Some(ears) = &ears {
            ears.writable().await?;
        }
        let (answers, answered) = mpsc::channel(discovery::SEEDS_MAX);
        let mut running = Running {
            link,
            ears,
            group: self.group,
            discovery: self.discovery,
            membership: self.membership,
            clock: self.clock,
            figures: self.figures,
            tell: self.tell,
            answers,
            out: Outputs::default(),
            unsent: 0,
            foreign: 0,
            told_unsent: None,
            told_foreign: None,
            is_over: false,
        };
        running.go(self.commands, answered).await;
        Ok(())
    }
}

struct Running<T> {
    link: UdpSocket,
    ears: Option<UdpSocket>,
    group: Option<SocketAddr>,
    discovery: Discovery,
    membership: Membership,
    clock: Clock,
    figures: Arc<Mutex<GossipFigures>>,
    tell: T,
    answers: mpsc::Sender<Answer>,
    out: Outputs,
    unsent: u64,
    /// Datagrams with a wrong code when that was told last.
    foreign: u64,
    told_unsent: Option<Instant>,
    told_foreign: Option<Instant>,
    is_over: bool,
}

/// A name, and what it was resolved to.
type Answer = (String, Option<Vec<SocketAddr>>);

/// Why the loop goes on.
enum Wake {
    Readable,
    Command(Option<GossipCommand>),
    Answer(Answer),
    Time,
}

impl<T: FnMut(MemberEvent)> Running<T> {
    async fn go(
        &mut self,
        mut commands: mpsc::Receiver<GossipCommand>,
        mut answered: mpsc::Receiver<Answer>,
    ) {
        let mut buffer = vec![0; READ_BYTES];
        while !self.is_over {
            self.work();
            if self.is_over {
                break;
            }
            match self.wait(&mut commands, &mut answered).await {
                Wake::Readable => self.read(&mut buffer),
                Wake::Command(command) => self.obey(command.unwrap_or(GossipCommand::Stop)),
                Wake::Answer((name, Some(addresses))) => {
                    self.discovery.resolved(&name, &addresses);
                }
                Wake::Answer((name, None)) => {
                    tracing::debug!(%name, "a name of the cluster cannot be resolved");
                    self.discovery.unresolved();
                }
                Wake::Time => {}
            }
        }
        self.publish();
    }

    async fn wait(
        &self,
        commands: &mut mpsc::Receiver<GossipCommand>,
        answered: &mut mpsc::Receiver<Answer>,
    ) -> Wake {
        let due = self.membership.next_tick().map(|due| due.min(self.discovery.next_tick()));
        let span = due.map(|due| due.since(self.clock.mono())).unwrap_or_default();
        // The timers of tokio are a millisecond coarse: without this the loop would spin through the last one.
        let span = span + Duration::from_millis(u64::from(!span.is_zero()));
        let readable = async {
            let own = async {
                let _ = self.link.readable().await;
            };
            match &self.ears {
                Some(ears) => {
                    or(own, async {
                        let _ = ears.readable().await;
                    })
                    .await;
                }
                None => own.await,
            }
            Wake::Readable
        };
        let command = async { Wake::Command(commands.recv().await) };
        let answer = async {
            match answered.recv().await {
                Some(answer) => Wake::Answer(answer),
                // We hold a sender ourselves.
                None => std::future::pending().await,
            }
        };
        let time = async {
            tokio::time::sleep(span).await;
            Wake::Time
        };
        or(command, or(answer, or(readable, time))).await
    }

    /// Takes what came, of each socket so much that timers are not late.
    fn read(&mut self, buffer: &mut [u8]) {
        for _ in 0..BURST {
            let Ok((length, _)) = self.link.try_recv_from(buffer) else { break };
            let bytes = &buffer[..length];
            if beacon::is_beacon(bytes) {
                self.look(bytes);
            } else {
                self.membership.datagram(self.clock.mono(), bytes, &mut self.out);
            }
        }
        for _ in 0..BURST {
            let Some(Ok((length, _))) = self.ears.as_ref().map(|ears| ears.try_recv_from(buffer))
            else {
                break;
            };
            self.look(&buffer[..length]);
        }
    }

    fn look(&mut self, bytes: &[u8]) {
        let mut found = Vec::new();
        let company = self.membership.company();
        self.discovery.datagram(self.clock.now(), bytes, &company, &mut found);
        self.carry_out(found);
    }

    fn obey(&mut self, command: GossipCommand) {
        let now = self.clock.mono();
        match command {
            GossipCommand::Tell(facts) => match self.membership.tell(now, facts, &mut self.out) {
                Ok(()) => self.discovery.tell(self.membership.facts().clone()),
                Err(error) => tracing::error!(%error, "other nodes cannot be told of this one"),
            },
            GossipCommand::Join(link) => self.membership.join(now, link, &mut self.out),
            GossipCommand::Leave => self.membership.leave(now, &mut self.out),
            GossipCommand::Stop => self.is_over = true,
        }
    }

    /// Does what is due, then sends and tells all that there is.
    fn work(&mut self) {
        let now = self.clock.now();
        if self.membership.next_tick().is_some_and(|due| due <= now.mono) {
            self.membership.tick(now.mono, &mut self.out);
        }
        let company = self.membership.company();
        let mut found = Vec::new();
        self.discovery.tick(now, &company, &mut found);
        self.carry_out(found);
        for (to, bytes) in std::mem::take(&mut self.out.datagrams) {
            let sent = self.link.try_send_to(&bytes, to);
            self.note(sent, to, now.mono);
        }
        // Whoever hears of an event finds it in the figures.
        self.publish();
        for event in std::mem::take(&mut self.out.events) {
            tell_operator(&event);
            self.is_over |= event == MemberEvent::Gone;
            (self.tell)(event);
        }
        self.watch_for_foreign(now.mono);
    }

    fn carry_out(&mut self, found: Vec<discovery::Output>) {
        let now = self.clock.mono();
        for output in found {
            match output {
                discovery::Output::ToGroup(bytes) => {
                    let Some(group) = self.group else { continue };
                    let mouth = match &self.ears {
                        Some(ears) if self.membership.facts().link.is_ipv6() => ears,
                        _ => &self.link,
                    };
                    let sent = mouth.try_send_to(&bytes, group);
                    self.note(sent, group, now);
                }
                discovery::Output::ToSeed(to, bytes) => {
                    let sent = self.link.try_send_to(&bytes, to);
                    self.note(sent, to, now);
                }
                discovery::Output::Join(to) => self.membership.join(now, to, &mut self.out),
                discovery::Output::Resolve(name) => {
                    let answers = self.answers.clone();
                    tokio::spawn(async move {
                        let looked_up = tokio::net::lookup_host(&name);
                        let found = tokio::time::timeout(RESOLVE_WITHIN, looked_up).await;
                        let found = found.ok().and_then(Result::ok).map(Iterator::collect);
                        let _ = answers.send((name, found)).await;
                    });
                }
            }
        }
    }

    /// A datagram that cannot be sent is as good as lost on the way, but somebody should know.
    fn note(&mut self, sent: io::Result<usize>, to: SocketAddr, now: Instant) {
        let Err(error) = sent else { return };
        self.unsent += 1;
        // A node that is not there any more.
        if error.kind() == io::ErrorKind::ConnectionRefused {
            return;
        }
        if self.told_unsent.is_none_or(|last| now.since(last) >= TELL_AGAIN) {
            self.told_unsent = Some(now);
            tracing::warn!(%to, %error, "a datagram to other nodes cannot be sent");
        }
    }

    fn watch_for_foreign(&mut self, now: Instant) {
        let wrong = |refused: crate::cluster::refusal::Refusals| {
            refused.of(crate::cluster::refusal::Refusal::BadMac)
        };
        let count =
            wrong(self.membership.figures().refused) + wrong(self.discovery.figures().refused);
        if count > self.foreign
            && self.told_foreign.is_none_or(|last| now.since(last) >= TELL_AGAIN)
        {
            let datagrams = count - self.foreign;
            (self.foreign, self.told_foreign) = (count, Some(now));
            tracing::warn!(
                datagrams,
                "datagrams of another cluster, or with another secret, were refused"
            );
        }
    }

    fn publish(&self) {
        let members = self.membership.members().map(|(facts, health)| (facts.clone(), health));
        let figures = GossipFigures {
            beacons: self.discovery.figures(),
            gossip: self.membership.figures(),
            unsent: self.unsent,
            members: members.collect(),
        };
        *self.figures.lock().unwrap_or_else(PoisonError::into_inner) = figures;
    }
}

fn tell_operator(event: &MemberEvent) {
    match event {
        MemberEvent::Up(facts) => tracing::info!(
            node = %facts.name, incarnation = facts.run.incarnation, link = %facts.link,
            version = %facts.version, "a node of the cluster is up"
        ),
        MemberEvent::Changed(facts) => {
            tracing::info!(node = %facts.name, weight = facts.weight, "a node says something new");
        }
        MemberEvent::Suspect(run) => {
            tracing::debug!(node = run.node.0, "a node does not answer");
        }
        MemberEvent::Trusted(run) => tracing::debug!(node = run.node.0, "it answers again"),
        MemberEvent::Dead(run) => tracing::warn!(
            node = run.node.0,
            incarnation = run.incarnation,
            "a node of the cluster is dead"
        ),
        MemberEvent::Left(run) => tracing::info!(node = run.node.0, "a node left the cluster"),
        MemberEvent::Twins { name, older, newer } => tracing::error!(
            %name, older = older.incarnation, newer = newer.incarnation,
            "two nodes of the cluster have one name: give one of them another (name)"
        ),
        MemberEvent::TakenForDead => tracing::warn!(
            "the others had taken this node for dead: it was stalled, or the network was cut"
        ),
        MemberEvent::Gone => tracing::info!("this node has left the cluster"),
    }
}
