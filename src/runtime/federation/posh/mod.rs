//! Fetches documents of POSH (RFC 7711) over HTTPS, on the thread that asks the DNS. What to ask and what an answer means is
//! said by `crate::federation::posh`.
//!
//! Its bounds: domains that wait (`WAITING_MAX`) and what waits for one of them (`ASKERS_MAX`), beyond which the answer is
//! `PoshProblem::Busy` at once; documents under way (`FETCHES_MAX`), seconds for one with all that it leads to
//! (`FETCH_TIMEOUT`), and what is remembered (`DOMAINS_MAX`). A domain that several ask for is fetched once.

mod fetch;

use super::certificates::Trust;
use super::dns::cache::Cache;
use super::dns::turns::Turns;
use crate::base::hash::Map;
use crate::federation::posh::{Fingerprints, PoshProblem};
pub(super) use fetch::Fetcher;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Few, so that who waits for the last of them still has time for the rest of a negotiation, though all were silent.
const WAITING_MAX: usize = 64;
const ASKERS_MAX: usize = 256;
const FETCHES_MAX: usize = 32;
/// Domains whose documents are kept: of 3 KiB each, if they are as long as may be.
const DOMAINS_MAX: usize = 2_048;
/// For the whole way of one domain.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// What the operator decides.
#[derive(Clone)]
pub struct PoshSettings {
    /// By whom servers of HTTPS prove their names.
    pub trust: Trust,
    /// By host, as the DNS has it: where they are, instead of asking the DNS.
    pub routes: Map<String, SocketAddr>,
}

impl fmt::Debug for PoshSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoshSettings").field("routes", &self.routes).finish_non_exhaustive()
    }
}

pub(super) type Known = Result<Arc<Fingerprints>, PoshProblem>;

/// Takes an answer and how long it took. Runs on the thread.
pub(super) type Reply = Box<dyn FnOnce(Known, Duration) + Send>;

/// Who waits for a document.
pub(super) struct Asker {
    since: Instant,
    reply: Reply,
}

impl Asker {
    pub(super) fn new(reply: Reply) -> Asker {
        Asker { since: Instant::now(), reply }
    }

    pub(super) fn tell(self, known: Known) {
        (self.reply)(known, self.since.elapsed());
    }
}

/// Who waits for which domain.
pub(super) struct Fetches {
    cache: Cache<Known>,
    turns: Turns<Asker>,
}

impl Default for Fetches {
    fn default() -> Self {
        Fetches { cache: Cache::new(DOMAINS_MAX), turns: Turns::new(FETCHES_MAX) }
    }
}

impl Fetches {
    /// Answers, or has the domain wait for its turn.
    pub(super) fn ask(&mut self, domain: Arc<str>, asker: Asker) {
        if let Some(known) = self.cache.get(&domain, Instant::now()) {
            return asker.tell(known);
        }
        let has_room = match self.turns.askers(&domain) {
            Some(askers) => askers < ASKERS_MAX,
            None => self.turns.waiting() < WAITING_MAX,
        };
        match has_room {
            true => self.turns.add(domain, asker),
            false => asker.tell(Err(PoshProblem::Busy)),
        }
    }

    /// A domain whose turn it is; `fetched` follows.
    pub(super) fn next(&mut self) -> Option<Arc<str>> {
        self.turns.next()
    }

    /// - `keeps`: it was found by the settings that hold
    pub(super) fn fetched(&mut self, domain: &Arc<str>, known: Known, keeps: bool) {
        let askers = self.turns.done(domain);
        let good_s = match &known {
            Ok(document) => Some(document.good_s),
            Err(problem) => problem.good_s(),
        };
        if let Some(good_s) = good_s.filter(|_| keeps) {
            let until = Instant::now() + Duration::from_secs(good_s.into());
            self.cache.insert_until(domain.clone(), known.clone(), until);
        }
        for asker in askers {
            asker.tell(known.clone());
        }
    }

    /// What is remembered may not be so by other settings.
    pub(super) fn forget(&mut self) {
        self.cache.clear();
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, channel};

    fn ask(fetches: &mut Fetches, domain: &str) -> Receiver<Known> {
        let (sender, receiver) = channel();
        let reply = move |known, _| {
            let _ = sender.send(known);
        };
        fetches.ask(domain.into(), Asker::new(Box::new(reply)));
        receiver
    }

    #[test]
    fn a_domain_is_fetched_once_and_remembered() {
        let mut fetches = Fetches::default();
        let (one, other) = (ask(&mut fetches, "a.example"), ask(&mut fetches, "a.example"));
        let domain = fetches.next().unwrap();
        assert!(fetches.next().is_none());
        fetches.fetched(&domain, Err(PoshProblem::Absent), true);
        assert_eq!((one.recv().unwrap(), other.recv().unwrap()).0, Err(PoshProblem::Absent));
        assert_eq!(ask(&mut fetches, "a.example").recv().unwrap(), Err(PoshProblem::Absent));
        assert!(fetches.next().is_none());
        fetches.forget();
        let _waits = ask(&mut fetches, "a.example");
        let domain = fetches.next().unwrap();
        // By settings that hold no more.
        fetches.fetched(&domain, Err(PoshProblem::Absent), false);
        let _waits = ask(&mut fetches, "a.example");
        assert!(fetches.next().is_some());
    }

    #[test]
    fn what_would_be_too_much_is_answered_at_once() {
        let mut fetches = Fetches::default();
        let mut waiting = Vec::new();
        for number in 0..WAITING_MAX {
            waiting.push(ask(&mut fetches, &format!("{number}.example")));
        }
        assert_eq!(ask(&mut fetches, "more.example").recv().unwrap(), Err(PoshProblem::Busy));
        assert!(waiting.iter().all(|one| one.try_recv().is_err()));
        let under_way: Vec<_> = std::iter::from_fn(|| fetches.next()).collect();
        assert_eq!(under_way.len(), FETCHES_MAX);
        for _ in 1..ASKERS_MAX {
            waiting.push(ask(&mut fetches, "0.example"));
        }
        assert_eq!(ask(&mut fetches, "0.example").recv().unwrap(), Err(PoshProblem::Busy));
        fetches.fetched(&under_way[0], Err(PoshProblem::Timeout), true);
        assert!(fetches.next().is_some(), "the next one's turn");
    }
}
