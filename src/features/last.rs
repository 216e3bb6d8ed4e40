//! XEP-0012: Last Activity. When somebody who may be seen was last here, and how long the server runs. What a client
//! says of its own idle time is that client's; who may not see it does not reach it with the question.

use super::Settings;
use crate::frame::Kind;
use crate::shard::{
    Absence, AccountId, Answers, Feature, Iq, Manifest, Method, Passage, Phase, Received, Scope,
    Spec, Turn, Verdict,
};
use crate::xmpp::ns;
use crate::xmpp::stanza::IqType;
use crate::xmpp::stanza_error::StanzaCondition;
use crate::xmpp::xml::reader::Index;
use crate::xmpp::xml::writer::Writer;

pub(super) static MANIFEST: Manifest = Manifest {
    name: "last",
    specs: &[Spec {
        name: "XEP-0012",
        version: "2.0",
        left_out: "a stranger gets service-unavailable, not forbidden, so that it does not tell who has an account",
    }],
    server_disco: &[ns::LAST],
    account_disco: &[ns::LAST],
    answers: &[Answers {
        method: Method::Get,
        namespace: ns::LAST,
        name: "query",
        scopes: &[Scope::Server, Scope::Own, Scope::Other],
    }],
    phases: &[Phase::Received],
    ..Manifest::EMPTY
};

/// One instance per shard.
pub(super) struct Last;

impl Last {
    pub(super) fn new(_settings: &Settings) -> Self {
        Self
    }
}

impl Feature for Last {
    fn manifest(&self) -> &'static Manifest {
        &MANIFEST
    }

    fn on_iq(&mut self, turn: &mut Turn<'_>, iq: &Iq<'_>) -> Verdict {
        let Some(account) = iq.account else {
            return result(turn.uptime().as_secs(), "");
        };
        if !turn.may_see(account, bare(iq.from)) {
            return Verdict::Error(StanzaCondition::ServiceUnavailable.into());
        }
        if !turn.sessions(account).is_empty() {
            return result(0, "");
        }
        let now = turn.now().wall;
        let data = turn.account(account);
        let last = data.and_then(|data| data.slot_in_use::<Absence>()?.last().cloned());
        // Somebody who never was here has no last time.
        let Some(last) = last else { return Verdict::Error(StanzaCondition::ItemNotFound.into()) };
        let mut index = Index::default();
        let status = turn
            .read(&last.stanza, &mut index)
            .and_then(|stanza| stanza.child(ns::CLIENT, "status").map(|child| child.text().into_owned()));
        let seconds = now.0.saturating_sub(last.at.0) / 1_000_000;
        result(seconds, &status.unwrap_or_default())
    }

    /// §4: a question to a resource, from one who may not see it.
    fn on_received(&mut self, turn: &mut Turn<'_>, received: &Received<'_>) -> Passage {
        let envelope = received.envelope;
        let is_question = envelope.kind == Kind::Iq
            && envelope.subtype == IqType::Get as u8
            && received.to.contains('/')
            && memchr::memmem::find(envelope.stanza, ns::LAST.as_bytes()).is_some();
        if !is_question || may_ask(turn, received.account, received) {
            return Passage::Pass;
        }
        Passage::Refuse(StanzaCondition::ServiceUnavailable.into())
    }
}

fn may_ask(turn: &mut Turn<'_>, account: AccountId, received: &Received<'_>) -> bool {
    let mut index = Index::default();
    let asks = turn
        .read(received.envelope.stanza, &mut index)
        .is_some_and(|stanza| stanza.child(ns::LAST, "query").is_some());
    !asks || turn.may_see(account, bare(received.from))
}

fn result(seconds: u64, status: &str) -> Verdict {
    let mut out = Vec::with_capacity(64 + status.len());
    let mut writer = Writer::new(&mut out);
    writer.start("query").attr("xmlns", ns::LAST).attr("seconds", &seconds.to_string());
    if status.is_empty() {
        writer.close_empty();
    } else {
        writer.text(status).end("query");
    }
    Verdict::Result(out)
}

fn bare(jid: &str) -> &str {
    jid.split_once('/').map_or(jid, |(bare, _)| bare)
}
