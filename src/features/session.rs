//! RFC 3921 §3: session establishment, which RFC 6121 made a formality. Old clients still ask for it.

use super::Settings;
use crate::shard::{Answers, Feature, Iq, Manifest, Method, Scope, Spec, Turn, Verdict};
use crate::xmpp::ns;

pub(super) static MANIFEST: Manifest = Manifest {
    name: "session",
    specs: &[Spec { name: "RFC 3921 §3", version: "2004", left_out: "" }],
    stream: "<session xmlns='urn:ietf:params:xml:ns:xmpp-session'><optional/></session>",
    answers: &[Answers {
        method: Method::Set,
        namespace: ns::SESSION,
        name: "session",
        scopes: &[Scope::Server, Scope::Own],
    }],    ..Manifest::EMPTY
};

/// One instance per shard.
pub(super) struct Session;

impl Session {
    pub(super) fn new(_settings: &Settings) -> Self {
        Self
    }
}

impl Feature for Session {
    fn manifest(&self) -> &'static Manifest {
        &MANIFEST
    }

    fn on_iq(&mut self, _turn: &mut Turn<'_>, _iq: &Iq<'_>) -> Verdict {
        Verdict::Result(Vec::new())
    }
}
