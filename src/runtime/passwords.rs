//! PBKDF2 on side threads, for PLAIN logins: milliseconds each, so SCRAM and messages never wait behind it. The queue
//! is bounded, and fair per subnet, so that a flood from one place delays nobody else.

use super::mailbox::{Letter, Mailbox};
use super::process;
use crate::base::hash::Map;
use crate::base::subnet::Subnet;
use crate::shard::PasswordCheck;
use crate::stream::sasl::verify_plain;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

/// Takes checks from the shards. Cloned to every core.
#[derive(Clone)]
pub struct Passwords {
    threads: Vec<Sender<(u16, PasswordCheck)>>,
    queued: Arc<AtomicUsize>,
    limit: Arc<AtomicUsize>,
}

impl Passwords {
    /// - `threads`: how many check at a time
    /// - `limit`: checks that may wait; more are refused at once
    pub fn start(threads: usize, limit: usize, mailboxes: &[Mailbox]) -> std::io::Result<Self> {
        let queued = Arc::new(AtomicUsize::new(0));
        let mut senders = Vec::new();
        for _ in 0..threads.max(1) {
            let (sender, checks) = channel();
            let (mailboxes, queued) = (mailboxes.to_vec(), queued.clone());
            std::thread::Builder::new().name("passwords".into()).spawn(move || {
                process::step_back();
                work(&checks, &mailboxes, &queued);
            })?;
            senders.push(sender);
        }
        Ok(Self { threads: senders, queued, limit: Arc::new(AtomicUsize::new(limit)) })
    }

    /// See `start`; those that wait stay.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Gives the check back where the queue is full.
    #[expect(clippy::result_large_err, reason = "what was given is given back, and rarely")]
    pub fn check(&self, shard: u16, check: PasswordCheck) -> Result<(), PasswordCheck> {
        if self.queued.fetch_add(1, Ordering::Relaxed) >= self.limit.load(Ordering::Relaxed) {
            self.queued.fetch_sub(1, Ordering::Relaxed);
            return Err(check);
        }
        let thread = Subnet::of(check.peer).number() % self.threads.len();
        self.threads[thread].send((shard, check)).map_err(|unsent| unsent.0.1)
    }
}

fn work(checks: &Receiver<(u16, PasswordCheck)>, mailboxes: &[Mailbox], queued: &AtomicUsize) {
    let mut waiting: Map<Subnet, VecDeque<(u16, PasswordCheck)>> = Map::default();
    let mut turns: VecDeque<Subnet> = VecDeque::new();
    loop {
        if turns.is_empty() {
            let Ok(check) = checks.recv() else { return };
            enqueue(&mut waiting, &mut turns, check);
        }
        while let Ok(check) = checks.try_recv() {
            enqueue(&mut waiting, &mut turns, check);
        }
        let Some(subnet) = turns.pop_front() else { continue };
        let Some(queue) = waiting.get_mut(&subnet) else { continue };
        let next = queue.pop_front();
        if queue.is_empty() {
            waiting.remove(&subnet);
        } else {
            turns.push_back(subnet);
        }
        let Some((shard, check)) = next else { continue };
        queued.fetch_sub(1, Ordering::Relaxed);
        let verdict = verify_plain(&check.password, &check.keys) & check.known;
        if let Some(mailbox) = mailboxes.get(usize::from(shard)) {
            mailbox.send(Letter::PasswordChecked(check.conn, Some(verdict)));
        }
    }
}

fn enqueue(
    waiting: &mut Map<Subnet, VecDeque<(u16, PasswordCheck)>>,
    turns: &mut VecDeque<Subnet>,
    check: (u16, PasswordCheck),
) {
    let subnet = Subnet::of(check.1.peer);
    let queue = waiting.entry(subnet).or_default();
    if queue.is_empty() {
        turns.push_back(subnet);
    }
    queue.push_back(check);
}
