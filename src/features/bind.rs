//! RFC 6120 §7: resource binding, once a resource is bound. The bind itself belongs to the login (`shard/login.rs`);
//! here is what a second one gets.

use super::Settings;
use crate::shard::{Answers, Feature, Iq, Manifest, Method, Scope, Turn, Verdict};
use crate::xmpp::ns;
use crate::xmpp::stanza_error::StanzaCondition;

pub(super) static MANIFEST: Manifest = Manifest {
    name: "bind",
    answers: &[Answers {
        method: Method::Set,
        namespace: ns::BIND,
        name: "bind",
        scopes: &[Scope::Server, Scope::Own],
    }],
    ..Manifest::EMPTY
};

/// One instance per shard.
pub(super) struct Bind;

impl Bind {
    pub(super) fn new(_settings: &Settings) -> Self {
        Self
    }
}

impl Feature for Bind {
    fn manifest(&self) -> &'static Manifest {
        &MANIFEST
    }

    /// A stream has one resource (RFC 6120 §7.6.2.2).
    fn on_iq(&mut self, _turn: &mut Turn<'_>, _iq: &Iq<'_>) -> Verdict {
        Verdict::Error(StanzaCondition::NotAllowed.into())
    }
}
