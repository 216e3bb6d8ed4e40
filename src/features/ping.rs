//! XEP-0199: XMPP Ping. Answers a ping to the server or to an account.

use super::Settings;
use crate::shard::{Answers, Feature, Iq, Manifest, Method, Scope, Spec, Turn, Verdict};
use crate::xmpp::ns;

pub(super) static MANIFEST: Manifest = Manifest {
    name: "ping",
    specs: &[Spec { name: "XEP-0199", version: "2.0.1", left_out: "" }],
    server_disco: &[ns::PING],
    answers: &[Answers {
        method: Method::Get,
        namespace: ns::PING,
        name: "ping",
        scopes: &[Scope::Server, Scope::Own],
    }],    ..Manifest::EMPTY
};

/// One instance per shard.
pub(super) struct Ping;

impl Ping {
    pub(super) fn new(_settings: &Settings) -> Self {
        Self
    }
}

impl Feature for Ping {
    fn manifest(&self) -> &'static Manifest {
        &MANIFEST
    }

    fn on_iq(&mut self, _turn: &mut Turn<'_>, _iq: &Iq<'_>) -> Verdict {
        Verdict::Result(Vec::new())
    }
}
