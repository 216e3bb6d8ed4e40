//! RFC 3921 §3: session establishment, which RFC 6121 made a formality. Old clients still ask for it.

use crate::shard::{Answers, Feature, Iq, Manifest, Method, Scope, Spec, Turn, Verdict};
use crate::xmpp::ns;

static MANIFEST: Manifest = Manifest {
    name: "session",
    specs: &[Spec { name: "RFC 3921 §3", version: "2004", left_out: "" }],
    server_disco: &[],
    account_disco: &[],
    stream: "<session xmlns='urn:ietf:params:xml:ns:xmpp-session'><optional/></session>",
    answers: &[Answers {
        method: Method::Set,
        namespace: ns::SESSION,
        name: "session",
        scopes: &[Scope::Server, Scope::Own],
    }],
};

/// One instance per shard.
pub(super) struct Session;

impl Feature for Session {
    fn manifest(&self) -> &'static Manifest {
        &MANIFEST
    }

    fn on_iq(&mut self, _turn: &mut Turn<'_>, _iq: &Iq<'_>) -> Verdict {
        Verdict::Result(Vec::new())
    }
}
