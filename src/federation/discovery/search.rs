//! One look-up, without asking anybody itself.

use super::order::{Reach, Weighted, interleave, order, reach};
use super::route::{Place, Route, dns_name, literal};
use super::{
    ADDRESSES_MAX, Answer, Failure, Kind, PORT, Plan, Problem, Question, RECORDS_MAX, Record,
    Routes, Security, Source, Srv, TARGETS_MAX, TLSA_MAX, Target, Tlsa,
};
use crate::base::rng::Rng;
use std::net::IpAddr;

/// In this order they are asked for, and answered.
const SERVICES: [(&str, Security); 2] =
    [("_xmpps-server._tcp.", Security::DirectTls), ("_xmpp-server._tcp.", Security::StartTls)];
/// Names that a problem tells, for people.
const HOSTS_TOLD: usize = 4;
/// Seconds for which facts are good that lack an answer.
const TTL_PARTIAL_S: u32 = 60;

/// The look-up of a domain's server.
#[derive(Debug)]
pub struct Search {
    server_name: Option<String>,
    source: Source,
    options: Options,
    stage: Stage,
    candidates: Vec<Candidate>,
    ttl_s: u32,
}

/// What the operator decides of look-ups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// A name may lead to this machine or a private network. Routes may in any case.
    pub local_addresses: bool,
    /// Ask for TLSA records where DNSSEC proves the way there.
    pub dane: bool,
}

#[derive(Debug)]
enum Stage {
    Services,
    Addresses,
}

/// A target without its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Candidate {
    priority: u16,
    weight: u16,
    place: Place,
    port: u16,
    security: Security,
    /// DNSSEC proves that the domain says so.
    secure: bool,
}

/// What to do next.
#[derive(Debug)]
pub enum Step {
    /// Ask these, all at once, and give the answers to `Search::answered` in this order. At most `3 * TARGETS_MAX`.
    Ask(Vec<Question>),
    Done(Result<Facts, Problem>),
}

/// What is known of a domain: targets and their addresses. Bounded, so that it can be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    server_name: Option<String>,
    source: Source,
    /// At most `TARGETS_MAX`, each with an address.
    targets: Vec<Known>,
    ttl_s: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    candidate: Candidate,
    addresses: Vec<IpAddr>,
    tlsa: Vec<Tlsa>,
}

/// What was found out of a name.
#[derive(Default)]
struct Host {
    name: String,
    addresses: Vec<IpAddr>,
    /// All of what was said of its addresses is proven.
    secure: bool,
}

impl Search {
    /// Begins the look-up of a domain.
    ///
    /// - takes: the domain as JIDs are prepared
    pub fn begin(domain: &str, routes: &Routes, options: Options) -> (Search, Step) {
        let address = literal(domain);
        let server_name = if address.is_some() { None } else { dns_name(domain) };
        let (source, stage) = (Source::Srv, Stage::Services);
        let (candidates, ttl_s) = (Vec::new(), u32::MAX);
        let mut search = Search { server_name, source, options, stage, candidates, ttl_s };
        let step = search.first(address, routes.of(domain));
        (search, step)
    }

    fn first(&mut self, address: Option<IpAddr>, route: Option<&[Route]>) -> Step {
        if let Some(route) = route {
            self.source = Source::Route;
            // The operator knows where that is.
            self.options = Options { local_addresses: true, dane: false };
            let candidates = (0..).zip(route).map(|(priority, place)| Candidate {
                priority,
                ..Candidate::only(place.place.clone(), place.port, place.security)
            });
            return self.ask_addresses(candidates.collect());
        }
        if let Some(address) = address {
            self.source = Source::Literal;
            if !self.may_reach(address.to_canonical()) {
                return Step::Done(Err(Problem::LocalAddress { address, ttl_s: self.ttl_s }));
            }
            let place = Place::Address(address);
            return self.ask_addresses(vec![Candidate::only(place, PORT, Security::StartTls)]);
        }
        // Names behind the labels of a service are no longer than other names.
        let Some(name) = self.server_name.as_ref().filter(|name| name.len() <= 253 - 19) else {
            return Step::Done(Err(Problem::BadName));
        };
        let question =
            |(service, _)| Question { name: format!("{service}{name}"), kind: Kind::Srv };
        Step::Ask(SERVICES.map(question).into())
    }

    /// Goes on.
    ///
    /// - takes: the answers to what was asked, in that order; one that is missing counts as none
    pub fn answered(&mut self, answers: &[(Question, Answer)], rng: &mut Rng) -> Step {
        match self.stage {
            Stage::Services => self.services(answers, rng),
            Stage::Addresses => Step::Done(self.addresses(answers)),
        }
    }

    fn services(&mut self, answers: &[(Question, Answer)], rng: &mut Rng) -> Step {
        let mut found = Vec::new();
        let mut failed = None;
        // By service: whether it is said not to be there.
        let mut refused = [false; SERVICES.len()];
        for (place, (_, security)) in SERVICES.into_iter().enumerate() {
            match answers.get(place) {
                Some((_, Answer::Found { records, ttl_s, secure })) => {
                    self.ttl_s = self.ttl_s.min(*ttl_s);
                    let services = records.iter().take(RECORDS_MAX).filter_map(|it| match it {
                        Record::Srv(srv) => Some(srv),
                        Record::Address(_) | Record::Tlsa(_) => None,
                    });
                    let before = found.len();
                    found.extend(services.filter_map(|srv| candidate(srv, security, *secure)));
                    // A record that leads nowhere beside others is a slip; alone it is a statement.
                    refused[place] = found.len() == before;
                }
                Some((_, Answer::Nothing { ttl_s } | Answer::NoSuchName { ttl_s })) => {
                    self.ttl_s = self.ttl_s.min(*ttl_s);
                }
                Some((question, Answer::Failed(why))) => failed = Some((question.clone(), *why)),
                None => {}
            }
        }
        if !found.is_empty() {
            if failed.is_some() {
                self.ttl_s = self.ttl_s.min(TTL_PARTIAL_S);
            }
            let mut targets = order(found, rng);
            let mut seen: Vec<Candidate> = Vec::new();
            targets.retain(|target| {
                let is_new = seen.len() < TARGETS_MAX && !seen.iter().any(|it| it.is_same(target));
                if is_new {
                    seen.push(target.clone());
                }
                is_new
            });
            return self.ask_addresses(targets);
        }
        // Who keeps an answer from us must not choose where we connect to: the domain itself only where we know that there
        // are no records (RFC 6120 §3.2.1).
        if let Some((question, why)) = failed {
            return Step::Done(Err(Problem::Unanswered { question, why }));
        }
        // RFC 6120 §3.2.1 knows of `_xmpp-server` alone; that there is no direct TLS says nothing of it (XEP-0368 §2).
        let [_, no_server] = refused;
        if no_server {
            return Step::Done(Err(Problem::NotOffered { ttl_s: self.ttl_s }));
        }
        let Some(host) = self.server_name.clone().map(Place::Name) else {
            return Step::Done(Err(Problem::BadName));
        };
        self.source = Source::Fallback;
        self.ask_addresses(vec![Candidate::only(host, PORT, Security::StartTls)])
    }

    fn ask_addresses(&mut self, candidates: Vec<Candidate>) -> Step {
        self.stage = Stage::Addresses;
        self.candidates = candidates;
        let mut questions: Vec<_> = self.names().into_iter().flat_map(questions_of).collect();
        for candidate in &self.candidates {
            if self.options.dane
                && let Some(question) = candidate.tlsa_question()
                && !questions.contains(&question)
            {
                questions.push(question);
            }
        }
        if questions.is_empty() { Step::Done(self.addresses(&[])) } else { Step::Ask(questions) }
    }

    /// Names of the candidates, each once.
    fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for candidate in &self.candidates {
            if let Place::Name(name) = &candidate.place
                && !names.contains(&name.as_str())
            {
                names.push(name);
            }
        }
        names
    }

    fn addresses(&mut self, answers: &[(Question, Answer)]) -> Result<Facts, Problem> {
        let mut failed: Option<(Question, Failure)> = None;
        let mut local = None;
        let names: Vec<String> = self.names().into_iter().map(str::to_owned).collect();
        let mut hosts = Vec::new();
        for name in names {
            let about = answers.iter().filter(|(question, _)| question.name == name);
            hosts.push(self.host(name.clone(), about, &mut failed, &mut local));
        }
        let mut targets = Vec::new();
        for candidate in self.candidates.clone() {
            let name = match &candidate.place {
                Place::Name(name) => name,
                Place::Address(address) => {
                    let (addresses, tlsa) = (vec![address.to_canonical()], Vec::new());
                    targets.push(Known { candidate, addresses, tlsa });
                    continue;
                }
            };
            let Some(host) = hosts.iter().find(|host| host.name == *name) else { continue };
            if host.addresses.is_empty() {
                continue;
            }
            let tlsa = match self.tlsa(&candidate, host, answers) {
                Ok(tlsa) => tlsa,
                // Who keeps the records from us must not have their way (RFC 7672 §2.1).
                Err(unanswered) => {
                    failed = Some(unanswered);
                    continue;
                }
            };
            targets.push(Known { candidate, addresses: host.addresses.clone(), tlsa });
        }
        if failed.is_some() {
            self.ttl_s = self.ttl_s.min(TTL_PARTIAL_S);
        }
        if !targets.is_empty() {
            return Ok(self.facts(targets));
        }
        let ttl_s = self.ttl_s;
        if let Some((question, why)) = failed {
            return Err(Problem::Unanswered { question, why });
        }
        if let Some(address) = local {
            return Err(Problem::LocalAddress { address, ttl_s });
        }
        if self.source == Source::Fallback {
            return Err(Problem::NoSuchDomain { ttl_s });
        }
        let hosts = hosts.into_iter().map(|host| host.name).take(HOSTS_TOLD).collect();
        Err(Problem::NoAddress { hosts, ttl_s })
    }

    /// What the answers say of a name; `failed` and `local` are told what was wrong.
    fn host<'a>(
        &mut self,
        name: String,
        answers: impl Iterator<Item = &'a (Question, Answer)>,
        failed: &mut Option<(Question, Failure)>,
        local: &mut Option<IpAddr>,
    ) -> Host {
        let mut addresses = Vec::new();
        let mut all_secure = true;
        for (question, answer) in answers {
            match answer {
                Answer::Found { records, ttl_s, secure } => {
                    self.ttl_s = self.ttl_s.min(*ttl_s);
                    all_secure &= secure;
                    for record in records.iter().take(RECORDS_MAX) {
                        let Record::Address(address) = record else { continue };
                        let address = address.to_canonical();
                        if self.may_reach(address) {
                            addresses.push(address);
                        } else {
                            *local = Some(address);
                        }
                    }
                }
                Answer::Nothing { ttl_s } | Answer::NoSuchName { ttl_s } => {
                    self.ttl_s = self.ttl_s.min(*ttl_s);
                }
                Answer::Failed(why) => *failed = Some((question.clone(), *why)),
            }
        }
        Host { name, addresses: interleave(&addresses, ADDRESSES_MAX), secure: all_secure }
    }

    fn may_reach(&self, address: IpAddr) -> bool {
        match reach(address) {
            Reach::Public => true,
            Reach::Local => self.options.local_addresses,
            Reach::Never => false,
        }
    }

    /// What DANE says of a target. It counts only where all is proven that led to the target's addresses (RFC 7673 §3.3).
    fn tlsa(
        &mut self,
        candidate: &Candidate,
        host: &Host,
        answers: &[(Question, Answer)],
    ) -> Result<Vec<Tlsa>, (Question, Failure)> {
        let asked = candidate.tlsa_question().filter(|_| self.options.dane && host.secure);
        let Some(asked) = asked else { return Ok(Vec::new()) };
        match answers.iter().find(|(question, _)| *question == asked) {
            Some((_, Answer::Found { records, ttl_s, secure: true })) => {
                self.ttl_s = self.ttl_s.min(*ttl_s);
                let usable = records.iter().filter_map(|record| match record {
                    Record::Tlsa(tlsa) if tlsa.is_usable() => Some(tlsa.clone()),
                    _ => None,
                });
                Ok(usable.take(TLSA_MAX).collect())
            }
            Some((question, Answer::Failed(why))) => Err((question.clone(), *why)),
            _ => Ok(Vec::new()),
        }
    }

    fn facts(&self, targets: Vec<Known>) -> Facts {
        let (server_name, source) = (self.server_name.clone(), self.source);
        Facts { server_name, source, targets, ttl_s: self.ttl_s }
    }
}

impl Facts {
    /// Seconds for which these are good.
    pub fn ttl_s(&self) -> u32 {
        self.ttl_s
    }

    /// The targets in an order that is drawn by their weights.
    pub fn plan(&self, rng: &mut Rng) -> Plan {
        let targets = order(self.targets.iter().collect(), rng).into_iter();
        let targets = targets.map(|known| Target {
            host: match &known.candidate.place {
                Place::Name(name) => name.clone(),
                Place::Address(address) => address.to_string(),
            },
            port: known.candidate.port,
            security: known.candidate.security,
            addresses: known.addresses.clone(),
            tlsa: known.tlsa.clone(),
        });
        Plan {
            server_name: self.server_name.clone(),
            source: self.source,
            targets: targets.collect(),
            ttl_s: self.ttl_s,
        }
    }
}

impl Candidate {
    /// The one that there is.
    fn only(place: Place, port: u16, security: Security) -> Candidate {
        Candidate { priority: 0, weight: 0, place, port, security, secure: false }
    }

    /// Only where it is proven that the domain means this target (RFC 7673 §3.2).
    fn tlsa_question(&self) -> Option<Question> {
        match &self.place {
            Place::Name(name) if self.secure => {
                Some(Question { name: format!("_{}._tcp.{name}", self.port), kind: Kind::Tlsa })
            }
            _ => None,
        }
    }

    /// The same place, whatever its odds.
    fn is_same(&self, other: &Candidate) -> bool {
        (&self.place, self.port, self.security) == (&other.place, other.port, other.security)
    }
}

impl Weighted for Candidate {
    fn priority(&self) -> u16 {
        self.priority
    }

    fn weight(&self) -> u16 {
        self.weight
    }
}

impl Weighted for &Known {
    fn priority(&self) -> u16 {
        self.candidate.priority
    }

    fn weight(&self) -> u16 {
        self.candidate.weight
    }
}

/// `None` for the target `.`, and for a port on which nobody can be.
fn candidate(srv: &Srv, security: Security, secure: bool) -> Option<Candidate> {
    let (priority, weight, port) = (srv.priority, srv.weight, srv.port);
    let name = srv.target.clone();
    let is_place = !name.is_empty() && name.len() <= 253 && port != 0;
    let place = Place::Name(name);
    is_place.then_some(Candidate { priority, weight, place, port, security, secure })
}

fn questions_of(host: &str) -> [Question; 2] {
    [Kind::Aaaa, Kind::A].map(|kind| Question { name: host.to_owned(), kind })
}

#[cfg(test)]
mod tests;
