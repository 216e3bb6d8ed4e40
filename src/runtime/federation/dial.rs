//! Making connections: the targets of a plan one after the other, the addresses of each by Happy Eyeballs (RFC 8305), and
//! the handshake where TLS begins at once.

use super::certificates::explain;
use super::connection::{self, Reached};
use super::core::Core;
use crate::federation::discovery::{Plan, Security, Target};
use crate::federation::{
    Attempt, ClientTls, ConnId, Connected, DialProblem, Input, PeerTls, TlsProblem,
};
use crate::runtime::tls::Tls;
use futures_lite::future::{or, pending};
use futures_lite::io::{AsyncReadExt, AsyncWriteExt};
use glommio::GlommioError;
use glommio::net::TcpStream;
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

/// Between the beginnings of two attempts, where the first is not over (RFC 8305 §5).
const STAGGER: Duration = Duration::from_millis(250);
/// Bytes of one read during a handshake.
const READ_BYTES: usize = 16 << 10;

/// Ends a dial that is not wanted any more. A detached task lives on by itself.
#[derive(Default)]
pub(super) struct Cancel {
    is_cancelled: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Cancel {
    pub(super) fn cancel(&self) {
        self.is_cancelled.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    async fn cancelled(&self) {
        poll_fn(|cx| {
            if self.is_cancelled.get() {
                return Poll::Ready(());
            }
            *self.waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// A connection that was made.
struct Made {
    stream: TcpStream,
    target: Target,
    secured: Option<Secured>,
    connected: Connected,
}

/// What a handshake has left.
struct Secured {
    tls: Tls,
    /// Came behind it and is not opened.
    unread: Vec<u8>,
}

/// Connects to one of the targets from `first` on, and tells the actor. All but the last one get a part of the time each.
pub(super) fn dial(
    core: &Rc<Core>,
    conn: ConnId,
    plan: Arc<Plan>,
    (first, share): (usize, u32),
    client: Arc<ClientTls>,
) {
    let cancel = core.dial_begins(conn);
    let core = core.clone();
    glommio::spawn_local(async move {
        let walk = async { Some(walk(&core, &plan, (first, share), &client).await) };
        let cancelled = async {
            cancel.cancelled().await;
            None
        };
        let outcome = or(walk, cancelled).await;
        core.dial_ends(conn, &cancel);
        let Some(outcome) = outcome.filter(|_| !cancel.is_cancelled.get()) else { return };
        core.guarded(|| tell(&core, conn, outcome));
    })
    .detach();
}

fn tell(core: &Rc<Core>, conn: ConnId, outcome: Result<Made, Vec<Attempt>>) {
    let handle = |input: Input<'_>| {
        core.actor.borrow_mut().handle(core.clock.now(), input, &mut core.fx.borrow_mut());
        core.flush.notify();
    };
    match outcome {
        Ok(Made { stream, target, secured, connected }) => {
            handle(Input::Connected { conn, connected: Box::new(connected) });
            let mut reached = Reached { target: Some(target), ..Reached::default() };
            if let Some(Secured { tls, unread }) = secured {
                (reached.tls, reached.unread) = (Some(tls), unread);
            }
            connection::dialled(core, stream, conn, reached);
        }
        Err(attempts) => handle(Input::DialFailed { conn, attempts }),
    }
}

async fn walk(
    core: &Rc<Core>,
    plan: &Plan,
    (first, share): (usize, u32),
    client: &ClientTls,
) -> Result<Made, Vec<Attempt>> {
    let mut attempts = Vec::new();
    let whole = core.settings.borrow().connect_timeout;
    for (number, target) in plan.targets.iter().enumerate().skip(first) {
        let is_last = number + 1 == plan.targets.len();
        let patience = if is_last { whole } else { whole / share.max(1) };
        let addresses =
            target.addresses.iter().map(|ip| SocketAddr::new(*ip, target.port)).collect();
        let connect = |address| connect(address, patience);
        let (reached, failed) = race(addresses, STAGGER, connect, || core.clock.mono()).await;
        attempts.extend(failed.into_iter().map(|(address, why, took)| {
            let address = Some(address);
            Attempt { target: target.clone(), address, why, took }
        }));
        let Some(First { address, found: mut stream, took }) = reached else { continue };
        let mut connected =
            Connected { target: number, address, took, tls: None, attempts: Vec::new() };
        let mut secured = None;
        if target.security == Security::DirectTls {
            let began = core.clock.mono();
            match secure(core, &mut stream, client, patience).await {
                Ok(done) => {
                    let facts: PeerTls = core.settings.borrow().tls.peer(&done.tls, Some(target));
                    let took = core.clock.mono().since(began);
                    core.counts.borrow_mut().handshakes += 1;
                    connected.tls = Some((Box::new(facts), took));
                    secured = Some(done);
                }
                Err(problem) => {
                    core.counts.borrow_mut().handshakes_failed += 1;
                    let took = core.clock.mono().since(began);
                    attempts.push(failed_handshake(target, address, problem, took));
                    continue;
                }
            }
        }
        connected.attempts = attempts;
        return Ok(Made { stream, target: target.clone(), secured, connected });
    }
    Err(attempts)
}

fn failed_handshake(
    target: &Target,
    address: SocketAddr,
    problem: TlsProblem,
    took: Duration,
) -> Attempt {
    let (target, why) = (target.clone(), DialProblem::Tls(problem));
    Attempt { target, address: Some(address), why, took }
}

async fn connect(address: SocketAddr, patience: Duration) -> Result<TcpStream, DialProblem> {
    TcpStream::connect_timeout(address, patience).await.map_err(|error| match error {
        GlommioError::IoError(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused => DialProblem::Refused,
            io::ErrorKind::TimedOut => DialProblem::TimedOut,
            _ => DialProblem::Other(error.to_string()),
        },
        other => DialProblem::Other(other.to_string()),
    })
}

/// Who answered first.
struct First<T> {
    address: SocketAddr,
    found: T,
    took: Duration,
}

type Running<T> = Pin<Box<dyn Future<Output = Result<T, DialProblem>>>>;

/// Attempts at all of `addresses`, each begun when the one before has failed, or `stagger` after it. The first that succeeds
/// ends the others.
///
/// - gives: it, and those that failed until then
async fn race<T, F>(
    addresses: Vec<SocketAddr>,
    stagger: Duration,
    connect: impl Fn(SocketAddr) -> F,
    now: impl Fn() -> crate::base::instant::Instant,
) -> (Option<First<T>>, Vec<(SocketAddr, DialProblem, Duration)>)
where
    F: Future<Output = Result<T, DialProblem>> + 'static,
{
    let mut waiting = addresses.into_iter();
    let mut running: Vec<(SocketAddr, crate::base::instant::Instant, Running<T>)> = Vec::new();
    let mut failed = Vec::new();
    loop {
        match waiting.next() {
            Some(address) => running.push((address, now(), Box::pin(connect(address)))),
            None if running.is_empty() => return (None, failed),
            None => {}
        }
        loop {
            let next = async {
                match waiting.len() {
                    0 => pending().await,
                    _ => glommio::timer::sleep(stagger).await,
                }
                None
            };
            let ended = poll_fn(|cx| {
                for (place, (_, _, attempt)) in running.iter_mut().enumerate() {
                    if let Poll::Ready(outcome) = attempt.as_mut().poll(cx) {
                        return Poll::Ready(Some((place, outcome)));
                    }
                }
                Poll::Pending
            });
            let Some((place, outcome)) = or(ended, next).await else { break };
            let (address, began, _) = running.swap_remove(place);
            let took = now().since(began);
            match outcome {
                Ok(found) => return (Some(First { address, found, took }), failed),
                Err(why) => failed.push((address, why, took)),
            }
            if waiting.len() > 0 || running.is_empty() {
                break;
            }
        }
    }
}

/// Shakes hands on a new connection, as its client.
async fn secure(
    core: &Rc<Core>,
    stream: &mut TcpStream,
    client: &ClientTls,
    patience: Duration,
) -> Result<Secured, TlsProblem> {
    let made = core.settings.borrow().tls.connect(client, true);
    let tls = made.map_err(|error| TlsProblem::Failed(explain(&error)))?;
    let timed_out = async {
        glommio::timer::sleep(patience).await;
        Err(TlsProblem::TimedOut)
    };
    or(shake_hands(core, stream, tls), timed_out).await
}

async fn shake_hands(
    core: &Rc<Core>,
    stream: &mut TcpStream,
    mut tls: Tls,
) -> Result<Secured, TlsProblem> {
    let mut buffer = vec![0; READ_BYTES];
    let mut unread = Vec::new();
    let mut failure = None;
    loop {
        let mut sealed = Vec::new();
        tls.take_sealed(&mut sealed);
        let written = stream.write_all(&sealed).await;
        if let Some(failure) = failure {
            return Err(TlsProblem::Failed(failure));
        }
        written.map_err(|_| TlsProblem::Cut)?;
        if !tls.is_handshaking() {
            return Ok(Secured { tls, unread });
        }
        let length = stream.read(&mut buffer).await.unwrap_or(0);
        if length == 0 {
            return Err(TlsProblem::Cut);
        }
        let mut rest = &buffer[..length];
        while !rest.is_empty() && tls.is_handshaking() && failure.is_none() {
            if !tls.has_exchanged_keys() {
                poll_fn(|cx| match core.handshakes.may_go_on(core.clock.mono(), cx.waker()) {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                })
                .await;
            }
            let began = core.clock.mono();
            match core.guarded(|| tls.receive(rest)) {
                // The peer still gets to hear why.
                Err(broken) => failure = Some(explain(&broken.0)),
                Ok(0) => failure = Some("it sends more than a handshake has".to_owned()),
                Ok(taken) => rest = &rest[taken..],
            }
            core.handshakes.took(core.clock.mono().since(began));
        }
        unread = rest.to_vec();
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::base::instant::Instant;
    use glommio::LocalExecutor;
    use std::time::Instant as Clock;

    /// What an address does, by its last number.
    #[derive(Clone, Copy)]
    enum Does {
        AnswersAfter(u64),
        RefusesAfter(u64),
        Nothing,
    }

    fn address(number: usize) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, u8::try_from(number).unwrap()], 5269))
    }

    /// The place that was reached, those that failed before, and when each was begun in milliseconds.
    fn run(does: &[Does]) -> (Option<usize>, Vec<usize>, Vec<u128>) {
        let place = |address: SocketAddr| match address.ip() {
            std::net::IpAddr::V4(ip) => usize::from(ip.octets()[3]),
            std::net::IpAddr::V6(_) => unreachable!("there is none"),
        };
        let (began, starts) = (Clock::now(), Rc::new(RefCell::new(Vec::new())));
        let noted = starts.clone();
        let connect = |address: SocketAddr| {
            noted.borrow_mut().push(began.elapsed().as_millis());
            let does = does[place(address)];
            async move {
                let after = |millis| glommio::timer::sleep(Duration::from_millis(millis));
                match does {
                    Does::AnswersAfter(millis) => {
                        after(millis).await;
                        Ok(())
                    }
                    Does::RefusesAfter(millis) => {
                        after(millis).await;
                        Err(DialProblem::Refused)
                    }
                    Does::Nothing => pending().await,
                }
            }
        };
        let addresses = (0..does.len()).map(address).collect();
        let now = || Instant(u64::try_from(began.elapsed().as_nanos()).unwrap());
        let (reached, failed) = LocalExecutor::default().run(async {
            // The first timer of an executor is late.
            glommio::timer::sleep(Duration::from_millis(20)).await;
            race(addresses, STAGGER, connect, now).await
        });
        let failed = failed.into_iter().map(|(address, _, _)| place(address)).collect();
        let starts = starts.borrow().clone();
        (reached.map(|reached| place(reached.address)), failed, starts)
    }

    #[test]
    fn an_address_that_is_silent_holds_up_the_next_for_a_moment_only() {
        let (reached, failed, starts) = run(&[Does::Nothing, Does::AnswersAfter(1)]);
        assert_eq!((reached, failed.len()), (Some(1), 0));
        assert!(starts[1] - starts[0] >= 240, "{starts:?}");
    }

    #[test]
    fn an_address_that_refuses_holds_up_nobody() {
        let (reached, failed, starts) = run(&[Does::RefusesAfter(1), Does::AnswersAfter(1)]);
        assert_eq!((reached, failed), (Some(1), vec![0]));
        assert!(starts[1] - starts[0] < 200, "{starts:?}");
    }

    #[test]
    fn the_first_that_answers_wins_though_it_was_not_asked_first() {
        let (reached, ..) = run(&[Does::AnswersAfter(2_000), Does::AnswersAfter(100)]);
        assert_eq!(reached, Some(1));
        let (reached, ..) = run(&[Does::AnswersAfter(300), Does::AnswersAfter(2_000)]);
        assert_eq!(reached, Some(0));
    }

    #[test]
    fn all_that_fail_are_told() {
        let does = [Does::RefusesAfter(1), Does::RefusesAfter(400), Does::RefusesAfter(1)];
        let (reached, mut failed, _) = run(&does);
        failed.sort_unstable();
        assert_eq!((reached, failed), (None, vec![0, 1, 2]));
        assert_eq!(run(&[]).0, None);
    }
}
