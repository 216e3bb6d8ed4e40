//! What a message of the DNS says to a question. Whoever answers may lie, so only records count that stand where the question
//! and the aliases behind it lead, and each once.

use crate::federation::discovery::{
    Answer, Failure, Kind, Question, RECORDS_MAX, Record, Srv, Tlsa,
};
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::dnssec::Proof;
use hickory_resolver::proto::op::{DnsResponse, ResponseCode};
use hickory_resolver::proto::rr::{self, Name, RData, RecordType};
use std::sync::Arc;

/// Aliases that are followed for one question.
pub(super) const ALIASES_MAX: usize = 8;
/// Seconds for which an absence is good whose zone does not say.
const NEGATIVE_TTL_S: u32 = 60;

const BOGUS: Answer = Answer::Failed(Failure::Bogus);

/// One question and its aliases, from message to message.
#[derive(Debug)]
pub(super) struct Chase {
    kind: Kind,
    /// Who is asked for next, last, and all before.
    names: Vec<Name>,
    ttl_s: u32,
    secure: bool,
    anchors: Anchors,
}

/// Zones whose keys are known, so that what is said of them and all below must be proven, be it that they are not signed.
/// Elsewhere nothing is, and nothing is checked.
pub(super) type Anchors = Arc<[Name]>;

impl Chase {
    /// `None` where the DNS has no room for the name.
    pub(super) fn new(question: &Question, anchors: Anchors) -> Option<Chase> {
        let (kind, names) = (question.kind, vec![fqdn(&question.name)?]);
        Some(Chase { kind, names, ttl_s: u32::MAX, secure: true, anchors })
    }

    /// Whether the answer to `next` is to be checked.
    pub(super) fn is_checked(&self) -> bool {
        self.names.last().is_some_and(|name| self.is_anchored(name))
    }

    fn is_anchored(&self, name: &Name) -> bool {
        self.anchors.iter().any(|anchor| anchor.zone_of(name))
    }

    /// What to ask for now.
    pub(super) fn next(&self) -> (Name, RecordType) {
        let kind = match self.kind {
            Kind::Srv => RecordType::SRV,
            Kind::A => RecordType::A,
            Kind::Aaaa => RecordType::AAAA,
            Kind::Tlsa => RecordType::TLSA,
        };
        (self.names.last().cloned().unwrap_or_default(), kind)
    }

    /// - gives: `None` where an alias leads on, and `next` is to be asked
    pub(super) fn heard(&mut self, outcome: Result<DnsResponse, NetError>) -> Option<Answer> {
        let response = match outcome.and_then(|it| DnsError::from_response(it).map_err(Into::into))
        {
            Ok(response) => response,
            Err(error) => return Some(self.without(&error)),
        };
        let (_, kind) = self.next();
        let is_checked = self.is_checked();
        let mut followed = false;
        // What was not checked as it must be is asked for anew.
        while self.is_checked() == is_checked {
            let name = self.names.last().cloned().unwrap_or_default();
            let here = || response.answers.iter().filter(|record| record.name == name);
            let wanted: Vec<&rr::Record> = here().filter(|it| it.record_type() == kind).collect();
            if !wanted.is_empty() {
                let is_sound = wanted.iter().all(|record| self.take(record));
                return Some(if is_sound { self.found(&wanted) } else { BOGUS });
            }
            let Some((record, target)) = here().find_map(|record| match &record.data {
                RData::CNAME(alias) => Some((record, alias.0.clone())),
                _ => None,
            }) else {
                break;
            };
            if !self.take(record) {
                return Some(BOGUS);
            }
            if self.names.contains(&target) || self.names.len() > ALIASES_MAX {
                return Some(Answer::Failed(Failure::Aliases));
            }
            self.names.push(target);
            followed = true;
        }
        if self.is_checked() != is_checked {
            return None;
        }
        let ttl_s = self.ttl_s.min(response.negative_ttl().unwrap_or(NEGATIVE_TTL_S));
        if response.response_code == ResponseCode::NXDomain {
            return Some(Answer::NoSuchName { ttl_s });
        }
        match (followed, response.soa().is_some()) {
            // It says that there is nothing behind the alias, or nothing to what was asked.
            (_, true) => Some(Answer::Nothing { ttl_s }),
            (true, false) => None,
            // Records of other names: no answer.
            (false, false) => Some(Answer::Failed(Failure::Broken)),
        }
    }

    /// There is a message that has no records, or there is none.
    fn without(&self, error: &NetError) -> Answer {
        match error {
            NetError::Timeout => Answer::Failed(Failure::Timeout),
            NetError::Dns(DnsError::DnssecBogus) => BOGUS,
            NetError::Dns(DnsError::ResponseCode(_)) => Answer::Failed(Failure::Refused),
            NetError::Dns(DnsError::NoRecordsFound(none)) => {
                let ttl_s = self.ttl_s.min(none.negative_ttl.unwrap_or(NEGATIVE_TTL_S));
                match none.response_code {
                    ResponseCode::NXDomain => Answer::NoSuchName { ttl_s },
                    // It names other servers and knows nothing itself.
                    _ if none.soa.is_none() && none.ns.is_some() => {
                        Answer::Failed(Failure::Refused)
                    }
                    _ => Answer::Nothing { ttl_s },
                }
            }
            // A denial that comes with its proof.
            NetError::Dns(DnsError::Nsec { response, proof, .. }) => {
                if !matches!(proof, Proof::Secure | Proof::Insecure) {
                    return BOGUS;
                }
                let ttl_s = self.ttl_s.min(response.negative_ttl().unwrap_or(NEGATIVE_TTL_S));
                match response.response_code {
                    ResponseCode::NXDomain => Answer::NoSuchName { ttl_s },
                    _ => Answer::Nothing { ttl_s },
                }
            }
            _ => Answer::Failed(Failure::Broken),
        }
    }

    /// Counts a record for how long the answer is good, and how much it is worth; `false`: it should have a proof and has none.
    fn take(&mut self, record: &rr::Record) -> bool {
        // RFC 2181 §8: what has the uppermost bit is 0.
        let ttl_s = if record.ttl > i32::MAX.unsigned_abs() { 0 } else { record.ttl };
        self.ttl_s = self.ttl_s.min(ttl_s);
        let is_anchored = self.is_anchored(&record.name);
        self.secure &= is_anchored && record.proof == Proof::Secure;
        !is_anchored || matches!(record.proof, Proof::Secure | Proof::Insecure)
    }

    fn found(&self, records: &[&rr::Record]) -> Answer {
        let mut records: Vec<Record> = records.iter().filter_map(|it| value(&it.data)).collect();
        records.sort_by_key(|record| match record {
            Record::Srv(srv) => srv.priority,
            Record::Address(_) | Record::Tlsa(_) => 0,
        });
        records.truncate(RECORDS_MAX);
        Answer::Found { records, ttl_s: self.ttl_s, secure: self.secure }
    }
}

/// With the final dot.
pub(super) fn fqdn(name: &str) -> Option<Name> {
    Name::from_ascii(format!("{name}.")).ok()
}

fn value(data: &RData) -> Option<Record> {
    Some(match data {
        RData::A(address) => Record::Address(address.0.into()),
        RData::AAAA(address) => Record::Address(address.0.into()),
        RData::SRV(srv) => Record::Srv(Srv {
            priority: srv.priority,
            weight: srv.weight,
            port: srv.port,
            target: host(&srv.target),
        }),
        RData::TLSA(tlsa) => Record::Tlsa(Tlsa {
            usage: tlsa.cert_usage.into(),
            selector: tlsa.selector.into(),
            matching: tlsa.matching.into(),
            data: tlsa.cert_data.clone(),
        }),
        _ => return None,
    })
}

/// In lower case without the final dot. Empty for `.`, and for what no host is called: it leads nowhere either.
fn host(name: &Name) -> String {
    let text = name.to_ascii().to_ascii_lowercase();
    let text = text.strip_suffix('.').unwrap_or(&text);
    let is_usual = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if text.bytes().all(is_usual) { text.to_owned() } else { String::new() }
}

/// What one message says to a question, as if a server had sent it. `None` where an alias leads out of it.
///
/// This is how bytes of strangers reach `discovery`; for tests that have no server.
pub fn read(question: &Question, message: &[u8]) -> Option<Answer> {
    let mut chase = Chase::new(question, Anchors::default())?;
    let response = DnsResponse::from_buffer(message.to_vec());
    chase.heard(response.map_err(NetError::from))
}
