//! Side threads that run the errands of shards. Strangers, users and administrators have a thread and a bounded queue
//! each, so that none of them waits behind a crowd of another kind.

use super::mailbox::{Letter, Mailbox};
use crate::shard::Ticket;
use crate::shard::errand::{Errand, Outcome};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Runs one errand; called from several threads at a time, may block.
pub trait Runner: Send + Sync {
    /// Answers once at most; whoever does not answer has failed.
    fn run(&self, errand: Errand, answer: &mut dyn FnMut(Outcome));
}

type Job = (u16, Ticket, Errand);

/// Takes errands from the shards. Cloned to every core.
#[derive(Clone)]
pub struct Errands {
    strangers: SyncSender<Job>,
    users: SyncSender<Job>,
    admins: SyncSender<Job>,
}

impl Errands {
    /// - `limit`: errands of a kind that may wait; more are refused at once
    /// - errors: a thread cannot be started
    pub fn start(
        runner: &Arc<dyn Runner>,
        limit: usize,
        mailboxes: &[Mailbox],
    ) -> std::io::Result<Self> {
        let lane = || -> std::io::Result<SyncSender<Job>> {
            let (sender, jobs) = sync_channel(limit.max(1));
            let (runner, mailboxes) = (runner.clone(), mailboxes.to_vec());
            std::thread::Builder::new()
                .name("errands".into())
                .spawn(move || work(&jobs, &*runner, &mailboxes))?;
            Ok(sender)
        };
        Ok(Self { strangers: lane()?, users: lane()?, admins: lane()? })
    }

    /// False where its queue is full.
    pub fn give(&self, shard: u16, ticket: Ticket, errand: Errand) -> bool {
        let lane = match errand {
            Errand::Register { .. } => &self.strangers,
            Errand::Unregister { .. } | Errand::ChangePassword { .. } => &self.users,
            _ => &self.admins,
        };
        lane.try_send((shard, ticket, errand)).is_ok()
    }
}

fn work(jobs: &Receiver<Job>, runner: &dyn Runner, mailboxes: &[Mailbox]) {
    while let Ok((shard, ticket, errand)) = jobs.recv() {
        let Some(mailbox) = mailboxes.get(usize::from(shard)) else { continue };
        let mut answered = false;
        let mut answer = |outcome| {
            if !std::mem::replace(&mut answered, true) {
                mailbox.send(Letter::Administered(ticket, outcome));
            }
        };
        // A fault costs this errand and not the thread; the panic hook has logged it.
        let run = std::panic::AssertUnwindSafe(|| runner.run(errand, &mut answer));
        let _ = std::panic::catch_unwind(run);
        if !answered {
            mailbox.send(Letter::Administered(ticket, Outcome::Failed));
        }
    }
}
