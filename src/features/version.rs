//! XEP-0092: Software Version. Names the server and its version; not the system below it.

use super::Settings;
use crate::shard::{Answers, Feature, Iq, Manifest, Method, Scope, Spec, Turn, Verdict};
use crate::xmpp::ns;
use crate::xmpp::xml::writer::Writer;

pub(super) static MANIFEST: Manifest = Manifest {
    name: "version",
    specs: &[Spec { name: "XEP-0092", version: "1.1", left_out: "<os/>, which is nobody's business" }],
    server_disco: &[ns::VERSION],
    answers: &[Answers {
        method: Method::Get,
        namespace: ns::VERSION,
        name: "query",
        scopes: &[Scope::Server],
    }],    ..Manifest::EMPTY
};

/// One instance per shard.
pub(super) struct Version;

impl Version {
    pub(super) fn new(_settings: &Settings) -> Self {
        Self
    }
}

impl Feature for Version {
    fn manifest(&self) -> &'static Manifest {
        &MANIFEST
    }

    fn on_iq(&mut self, _turn: &mut Turn<'_>, _iq: &Iq<'_>) -> Verdict {
        let mut out = Vec::with_capacity(128);
        Writer::new(&mut out)
            .start("query")
            .attr("xmlns", ns::VERSION)
            .open()
            .start("name")
            .open()
            .text("Corefire")
            .end("name")
            .start("version")
            .open()
            .text(env!("CARGO_PKG_VERSION"))
            .end("version")
            .end("query");
        Verdict::Result(out)
    }
}
