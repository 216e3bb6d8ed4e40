//! What operators ask of all nodes of a cluster at any one of them: sessions, users, connections of components, sessions that
//! are to end, announcements. Each node speaks for what it has itself; here that is asked of the others and put together. Who
//! gives no answer in time is told of.

use super::{Clerk, Desk, PATIENCE, STATUS_PATIENCE};
use crate::base::hash::hash64;
use crate::cluster::placement::{NodeId, partition};
use crate::cluster::view::{NodeFacts, Run, View};
use crate::config::Config;
use crate::runtime::control::accounts::{self, account_jid};
use crate::runtime::control::inquiry::{Finding, Inquiry};
use crate::runtime::control::office::Found;
use crate::runtime::control::{
    ControlResponse, Place, PlaceKind, PlaceSession, SessionCursor, SessionDetail,
};
use crate::runtime::mailbox::Letter;
use crate::shard::errand::{Announcement, Counts, Page, SessionFacts, UsersQuery, Which, Whose};
use crate::xmpp::datetime;
use crate::xmpp::jid::{BareJid, Jid};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

/// Sessions told at a time.
const PAGE: usize = 1_000;
/// The same to another node: an answer has an end, and holds up what else is on its way.
const PAGE_FOR_OTHERS: usize = 250;
/// Users named to another node at most.
const USERS_FOR_OTHERS: usize = 1_000;

/// Another node.
struct Other {
    run: Run,
    name: String,
}

impl From<&NodeFacts> for Other {
    fn from(facts: &NodeFacts) -> Other {
        Other { run: facts.run, name: facts.name.clone() }
    }
}

/// What nodes found, by themselves; and the names of those that gave no answer.
struct Findings {
    found: Vec<(Other, Finding)>,
    silent: Vec<String>,
}

// ---- asking

impl Desk {
    fn others(&self) -> Vec<Other> {
        let view = self.view();
        view.nodes.iter().filter(|node| node.run.node != self.node).map(Other::from).collect()
    }

    /// Who has the sessions of an account, where that is another node.
    fn other_owner(&self, jid: &BareJid) -> Option<Other> {
        let view = self.view();
        let owner = view.placement.owner(jid.hash64()).node;
        view.node(owner).filter(|_| owner != self.node).map(Other::from)
    }

    fn ask_others(&self, others: Vec<Other>, inquiry: &Inquiry) -> Findings {
        let (mut found, mut silent) = (Vec::new(), Vec::new());
        let Some(part) = self.part.as_ref().filter(|_| !others.is_empty()) else {
            return Findings { found, silent };
        };
        let runs: Vec<Run> = others.iter().map(|other| other.run).collect();
        for (other, finding) in others.into_iter().zip(part.ask(&runs, inquiry)) {
            match finding {
                Some(Finding::Failed { message }) => {
                    tracing::warn!(node = %other.name, "asked for all nodes: {message}");
                    silent.push(other.name);
                }
                Some(finding) => found.push((other, finding)),
                None => silent.push(other.name),
            }
        }
        Findings { found, silent }
    }

    /// - errors: the name of the node, which gave no answer in time
    fn ask_other(&self, other: Other, inquiry: &Inquiry) -> Result<Finding, String> {
        let name = other.name.clone();
        let finding = self.ask_others(vec![other], inquiry).found.pop();
        finding.map(|(_, finding)| finding).ok_or(name)
    }

    /// Has a shard answer; `None` where it does not in time.
    fn ask<T>(&self, shard: u16, letter: impl FnOnce(Sender<T>) -> Letter) -> Option<T> {
        let (answer, answered) = channel();
        self.mailboxes.get(usize::from(shard))?.send(letter(answer));
        answered.recv_timeout(PATIENCE).ok()
    }
}

// ---- answering

impl Desk {
    /// What another node asks, for all of them.
    pub(super) fn find(&self, inquiry: Inquiry) -> Finding {
        let failed = |message: String| Finding::Failed { message };
        match inquiry {
            Inquiry::Sessions { jid, after } => {
                let whose = match jid.as_deref().map(|jid| account_jid(jid, &[])) {
                    None => Whose::Anyone,
                    Some(Ok(jid)) => Whose::Account(jid),
                    Some(Err(message)) => return failed(message),
                };
                match self.sessions_here(whose, after.unwrap_or_default(), PAGE_FOR_OTHERS) {
                    Ok((sessions, next)) => Finding::Sessions { sessions, next },
                    Err(message) => failed(message),
                }
            }
            Inquiry::EndSessions { jid } => match Jid::parse(&jid) {
                Ok(jid) => match self.end_sessions_here(&jid) {
                    Some(sessions) => Finding::Ended { sessions },
                    None => failed(format!("{jid}: its shard gave no answer in time")),
                },
                Err(fault) => failed(format!("{jid:?} is no address: {fault}")),
            },
            Inquiry::Users { domain, which, limit } => {
                let limit = limit.min(USERS_FOR_OTHERS);
                let (jids, counts) = self.users_here(&domain.into(), which.into(), limit);
                Finding::Users {
                    jids: jids.iter().map(ToString::to_string).collect(),
                    online: counts.online,
                    active: counts.active,
                }
            }
            Inquiry::Announce { domain, subject, body } => {
                self.announce_here(Announcement { domain: domain.into(), subject, body });
                Finding::Done
            }
            Inquiry::Components => Finding::Components { connections: self.components_here() },
        }
    }

    fn sessions_here(
        &self,
        whose: Whose,
        at: SessionCursor,
        limit: usize,
    ) -> Result<(Vec<SessionDetail>, Option<SessionCursor>), String> {
        let shard = match &whose {
            Whose::Account(jid) => self.owner(jid),
            Whose::Anyone => at.shard,
        };
        let is_last = whose != Whose::Anyone || at.shard.saturating_add(1) >= self.shards;
        let letter = |answer| Letter::Sessions(whose, at.slot, limit, answer);
        let Page { found, next } = self.ask(shard, letter).ok_or_else(|| {
            format!("shard {shard} gave no answer in time; try again, or see the log")
        })?;
        let cursor = |shard, slot| SessionCursor { node: self.node.0, shard, slot };
        let next = next.map(|slot| cursor(shard, slot));
        let next = next.or_else(|| (!is_last).then(|| cursor(shard + 1, 0)));
        let view = self.view();
        let details = found.iter().map(|facts| self.session_detail(&view, facts)).collect();
        Ok((details, next))
    }

    fn session_detail(&self, view: &View, facts: &SessionFacts) -> SessionDetail {
        let name = |node: NodeId| view.node(node).map(|node| node.name.clone());
        let in_cluster = |node: NodeId| self.part.as_ref().and_then(|_| name(node));
        let socket = facts.peer.and_then(|_| in_cluster(facts.front.unwrap_or(self.node)));
        SessionDetail {
            jid: facts.jid.to_string(),
            address: facts.peer.map(|peer| peer.to_canonical().to_string()),
            tls: facts.secure,
            since: datetime::format(facts.since),
            idle_s: facts.idle.map(|idle| idle.as_secs()),
            priority: facts.priority,
            resumable: facts.resumable,
            node: in_cluster(self.node),
            socket,
        }
    }

    /// Gives how many it ended; `None` where their shard did not answer in time.
    fn end_sessions_here(&self, jid: &Jid) -> Option<u64> {
        self.ask(self.owner(jid.bare()), |answer| Letter::EndSessions(jid.clone(), answer))
    }

    fn users_here(&self, domain: &Arc<str>, which: Which, limit: usize) -> (Vec<BareJid>, Counts) {
        let (mut jids, mut counts) = (Vec::new(), Counts::default());
        for shard in 0..self.shards {
            let mut after = Some(0);
            while let Some(slot) = after {
                let limit = limit.saturating_sub(jids.len());
                let query = UsersQuery { domain: domain.clone(), which, after: slot, limit };
                let page = self.ask(shard, |answer| Letter::Users(query, answer));
                let Some((Page { found, next }, counted)) = page else { break };
                jids.extend(found);
                counts.online += counted.online;
                counts.active += counted.active;
                after = next;
            }
        }
        (jids, counts)
    }

    fn announce_here(&self, announcement: Announcement) {
        let announcement = Arc::new(announcement);
        for shard in 0..self.shards {
            let mut after = Some(0);
            while let Some(slot) = after {
                let letter = |answer| Letter::Announce(announcement.clone(), slot, answer);
                after = self.ask(shard, letter).flatten();
            }
        }
    }

    fn components_here(&self) -> BTreeMap<String, u64> {
        let mut connections = BTreeMap::new();
        for shard in super::watch::collect(&self.mailboxes, STATUS_PATIENCE) {
            for (domain, count) in shard.components {
                *connections.entry(domain).or_default() += count;
            }
        }
        connections
    }
}

// ---- putting together

impl Desk {
    /// Sessions of one account, or a page of those of all nodes, one node after the other.
    pub(super) fn session_page(
        &self,
        jid: Option<&str>,
        after: Option<SessionCursor>,
    ) -> Result<ControlResponse, String> {
        if let Some(jid) = jid {
            let sessions = self.sessions_of(&account_jid(jid, &[])?)?;
            return Ok(ControlResponse::Sessions { sessions, next: None, silent: Vec::new() });
        }
        let view = self.view();
        let begin = |node: NodeId| SessionCursor { node: node.0, shard: 0, slot: 0 };
        let nodes = || view.nodes.iter().map(|node| node.run.node);
        let at = after.or_else(|| nodes().next().map(begin)).unwrap_or_default();
        let behind = || nodes().find(|node| node.0 > at.node).map(begin);
        let mut silent = Vec::new();
        let (sessions, next) = match view.node(NodeId(at.node)) {
            // It has gone since the last page.
            None => (Vec::new(), None),
            Some(node) if node.run.node == self.node => {
                self.sessions_here(Whose::Anyone, at, PAGE)?
            }
            Some(node) => {
                let inquiry = Inquiry::Sessions { jid: None, after: Some(at) };
                match self.ask_other(node.into(), &inquiry) {
                    Ok(Finding::Sessions { sessions, next }) => (sessions, next),
                    Ok(_) | Err(_) => {
                        silent.push(node.name.clone());
                        (Vec::new(), None)
                    }
                }
            }
        };
        Ok(ControlResponse::Sessions { sessions, next: next.or_else(behind), silent })
    }

    /// - errors: a line of cause and remedy
    fn sessions_of(&self, jid: &BareJid) -> Result<Vec<SessionDetail>, String> {
        let Some(other) = self.other_owner(jid) else {
            let here = self.sessions_here(Whose::Account(jid.clone()), SessionCursor::default(), 0);
            return here.map(|(sessions, _)| sessions);
        };
        let name = other.name.clone();
        let inquiry = Inquiry::Sessions { jid: Some(jid.to_string()), after: None };
        match self.ask_other(other, &inquiry) {
            Ok(Finding::Sessions { sessions, .. }) => Ok(sessions),
            Ok(_) | Err(_) => Err(silence(jid.as_str(), &name)),
        }
    }

    /// - errors: the node that has them, which gave no answer in time
    fn end_sessions(&self, jid: &Jid) -> Result<u64, String> {
        let Some(other) = self.other_owner(jid.bare()) else {
            return self.end_sessions_here(jid).ok_or_else(|| "this node".to_owned());
        };
        let name = other.name.clone();
        match self.ask_other(other, &Inquiry::EndSessions { jid: jid.to_string() })? {
            Finding::Ended { sessions } => Ok(sessions),
            _ => Err(name),
        }
    }

    pub(super) fn kick(&self, jid: &str) -> Result<ControlResponse, String> {
        let parsed = Jid::parse(jid).map_err(|fault| {
            format!("{jid:?} is no address: {fault}; write NAME@DOMAIN or NAME@DOMAIN/RESOURCE")
        })?;
        match self.end_sessions(&parsed) {
            Ok(0) => Err(format!("{parsed} has no session; see: corefire session list")),
            Ok(sessions) => Ok(ControlResponse::Kicked { sessions }),
            Err(node) => Err(silence(jid, &node)),
        }
    }

    /// Who owns an address, and who is connected for it where.
    ///
    /// - errors: a line of cause and remedy
    pub(super) fn whereis(&self, jid: &str, config: &Config) -> Result<Place, String> {
        let mut place = accounts::place(jid, &self.shard_map())?;
        let bare = BareJid::parse(&place.jid).map_err(|fault| fault.to_string())?;
        let domain = bare.domain();
        let kind = if config.components.secrets.iter().any(|one| &*one.domain == domain) {
            PlaceKind::Component
        } else if !config.domains.iter().any(|one| one == domain) {
            PlaceKind::Elsewhere
        } else if bare.local().is_some() {
            PlaceKind::Account
        } else {
            PlaceKind::Domain
        };
        match kind {
            PlaceKind::Account => match self.sessions_of(&bare) {
                Ok(sessions) => place.sessions = sessions.into_iter().map(place_session).collect(),
                Err(_) => place.silent.push(place.node.clone()),
            },
            PlaceKind::Component => {
                let Findings { found, silent } =
                    self.ask_others(self.others(), &Inquiry::Components);
                let mut all = vec![(config.node_name(), self.components_here())];
                for (other, finding) in found {
                    if let Finding::Components { connections } = finding {
                        all.push((other.name, connections));
                    }
                }
                let of_domain = |(node, mut connections): (String, BTreeMap<String, u64>)| {
                    Some((node, connections.remove(domain).filter(|count| *count > 0)?))
                };
                place.connections = all.into_iter().filter_map(of_domain).collect();
                place.silent = silent;
            }
            PlaceKind::Elsewhere => self.place_of_remote(&mut place, domain),
            PlaceKind::Domain => {}
        }
        place.kind = Some(kind);
        Ok(place)
    }

    /// A domain of others is one node's of a cluster, with all addresses there.
    fn place_of_remote(&self, place: &mut Place, domain: &str) {
        let view = self.view();
        let hash = hash64(domain.as_bytes());
        let Some(owner) = view.placement.domain_owner(hash) else { return };
        let Some(node) = view.node(owner.node) else { return };
        place.hash64 = format!("{hash:016x}");
        place.partition = partition(hash);
        (place.node, place.node_id) = (node.name.clone(), owner.node.0);
        place.shard = owner.shard.0;
        place.clients = Vec::new();
        place.talks_to = Some(domain.to_owned());
    }
}

fn place_session(session: SessionDetail) -> PlaceSession {
    let SessionDetail { jid, address, since, socket, .. } = session;
    let resource = jid.split_once('/').map(|(_, resource)| resource.to_owned());
    PlaceSession { resource: resource.unwrap_or_default(), socket, address, since }
}

fn silence(jid: &str, node: &str) -> String {
    format!("{jid}: its sessions are at {node}, which gave no answer in time; try again")
}

/// The parts of `Office` that concern all nodes.
impl Clerk<'_> {
    pub(super) fn resources_everywhere(&self, of: &BareJid) -> Result<Vec<String>, String> {
        let sessions = self.desk.sessions_of(of).map_err(|_| self.holder(of))?;
        Ok(sessions.into_iter().map(|session| place_session(session).resource).collect())
    }

    fn holder(&self, of: &BareJid) -> String {
        self.desk.other_owner(of).map_or_else(|| self.config.node_name(), |other| other.name)
    }

    pub(super) fn users_everywhere(&self, domain: &str, which: Which, limit: usize) -> Found {
        let (jids, counts) = self.desk.users_here(&domain.into(), which, limit);
        let inquiry = Inquiry::Users { domain: domain.to_owned(), which: which.into(), limit };
        let Findings { found, silent } = self.desk.ask_others(self.desk.others(), &inquiry);
        let mut all = Found { jids, counts, silent };
        for (_, finding) in found {
            if let Finding::Users { jids, online, active } = finding {
                all.counts.online += online;
                all.counts.active += active;
                let room = limit.saturating_sub(all.jids.len());
                let jids = jids.iter().filter_map(|jid| BareJid::parse(jid).ok());
                all.jids.extend(jids.take(room));
            }
        }
        all
    }

    pub(super) fn end_sessions_everywhere(&self, jid: &Jid) -> Result<u64, String> {
        self.desk.end_sessions(jid)
    }

    pub(super) fn announce_everywhere(&self, announcement: &Announcement) -> Vec<String> {
        let Announcement { domain, subject, body } = announcement.clone();
        let inquiry = Inquiry::Announce { domain: domain.to_string(), subject, body };
        let asked = std::thread::scope(|scope| {
            // Both at once: either takes its time where there are many sessions.
            let others = scope.spawn(|| self.desk.ask_others(self.desk.others(), &inquiry));
            self.desk.announce_here(announcement.clone());
            others.join().ok()
        });
        asked.map(|findings| findings.silent).unwrap_or_default()
    }
}
