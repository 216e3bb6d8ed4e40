//! Runs the errands of a node's shards, as side threads do.

use super::{ITERATIONS, Node};
use corefire::runtime::control::accounts::{Accounts, News};
use corefire::runtime::control::office::{self, Found, Office};
use corefire::shard::errand::{Announcement, Counts, Errand, Outcome, Shares, UsersQuery, Which};
use corefire::shard::{Input, Ticket};
use corefire::store::{self, Answer, Query, Reader as _, Write, Writer as _, Written};
use corefire::xmpp::jid::{BareJid, Jid};
use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Runs an errand of the shard `at`, and tells the shards what a running node tells them, in its order.
pub(super) fn run(node: &mut Node, at: usize, ticket: Ticket, errand: Errand) {
    let told = RefCell::default();
    let mut desk = Desk { node, told: &told };
    office::run(&mut desk, errand, &mut |outcome| {
        told.borrow_mut().push(Told::Answer(outcome));
    });
    let answers = |told: &&Told| matches!(told, Told::Answer(_));
    assert_eq!(told.borrow().iter().filter(answers).count(), 1, "one answer");
    for told in told.into_inner() {
        match told {
            Told::Answer(outcome) => {
                node.input(at, Input::Administered { ticket, outcome });
            }
            Told::News(News::Changed(jid)) => {
                let owner = node.owner_of(&jid);
                node.input(owner, Input::AccountChanged(jid));
            }
            Told::News(News::IdsGiven { owner: jid, partition, next }) => {
                let owner = node.owner_of(&jid);
                node.input(owner, Input::IdsGiven { partition, next });
            }
            Told::News(News::Deleted { owner: jid, contacts }) => {
                let owner = node.owner_of(&jid);
                node.input(owner, Input::AccountDeleted { jid, contacts });
            }
        }
    }
}

/// The office.
struct Desk<'a> {
    node: &'a mut Node,
    told: &'a RefCell<Vec<Told>>,
}

/// What shards are told by a running errand, in order.
enum Told {
    News(News),
    Answer(Outcome),
}

impl Accounts for Desk<'_> {
    fn domains(&self) -> &[String] {
        &[]
    }

    fn scram_iterations(&self) -> u32 {
        ITERATIONS
    }

    fn write(&mut self, batch: Vec<Write>) -> Result<Vec<Written>, store::Error> {
        if self.node.store_fails {
            return Err(store::Error::Full);
        }
        self.node.writer.commit(&batch)
    }

    fn read(&mut self, query: Query) -> Result<Answer, store::Error> {
        self.node.reader.read(&query)
    }

    fn tell(&mut self, news: Vec<News>) {
        self.told.borrow_mut().extend(news.into_iter().map(Told::News));
    }
}

impl Office for Desk<'_> {
    fn admit(&mut self, peer: IpAddr) -> bool {
        let shares = Shares { per_subnet: 2, in_all: 5 };
        self.node.registrations.admit(peer, shares, self.node.now.mono)
    }

    fn resources(&mut self, of: &BareJid) -> Result<Vec<String>, String> {
        let sessions = self.node.session_facts(of.local().unwrap());
        Ok(sessions.iter().map(|session| session.jid.resource().unwrap().to_owned()).collect())
    }

    fn users(&mut self, domain: &str, which: Which, limit: usize) -> Found {
        let (mut jids, mut all) = (Vec::new(), Counts::default());
        for core in &self.node.cores {
            let query = UsersQuery { domain: domain.into(), which, after: 0, limit };
            let (page, counts) = core.shard.users(self.node.now, &query);
            assert_eq!(page.next, None);
            jids.extend(page.found);
            all.online += counts.online;
            all.active += counts.active;
        }
        jids.truncate(limit);
        Found { jids, counts: all, silent: self.node.silent.clone() }
    }

    fn end_sessions(&mut self, jid: &Jid) -> Result<u64, String> {
        let before = self.node.sessions();
        let owner = self.node.owner_of(jid.bare());
        self.node.input(owner, Input::EndSessions(jid.clone()));
        Ok((before - self.node.sessions()) as u64)
    }

    fn announce(&mut self, announcement: &Announcement) -> Vec<String> {
        for shard in 0..self.node.cores.len() {
            let announcement = Arc::new(announcement.clone());
            self.node.input(shard, Input::Announce { announcement, after: 0 });
            assert_eq!(self.node.cores[shard].shard.next_page(0), None);
        }
        self.node.silent.clone()
    }

    fn stop(&mut self, delay: Duration) -> bool {
        self.node.stops_in.replace(delay).is_none()
    }
}
