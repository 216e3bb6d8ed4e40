//! XEP-0202: Entity Time. Tells the server's clock, in UTC.

use super::Settings;
use crate::shard::{Answers, Feature, Iq, Manifest, Method, Scope, Spec, Turn, Verdict};
use crate::xmpp::datetime;
use crate::xmpp::ns;
use crate::xmpp::xml::writer::Writer;

pub(super) static MANIFEST: Manifest = Manifest {
    name: "time",
    specs: &[Spec { name: "XEP-0202", version: "2.0", left_out: "" }],
    server_disco: &[ns::TIME],
    answers: &[Answers {
        method: Method::Get,
        namespace: ns::TIME,
        name: "time",
        scopes: &[Scope::Server],
    }],    ..Manifest::EMPTY
};

/// One instance per shard.
pub(super) struct Time;

impl Time {
    pub(super) fn new(_settings: &Settings) -> Self {
        Self
    }
}

impl Feature for Time {
    fn manifest(&self) -> &'static Manifest {
        &MANIFEST
    }

    fn on_iq(&mut self, turn: &mut Turn<'_>, _iq: &Iq<'_>) -> Verdict {
        let mut out = Vec::with_capacity(128);
        Writer::new(&mut out)
            .start("time")
            .attr("xmlns", ns::TIME)
            .open()
            .start("tzo")
            .open()
            .text("+00:00")
            .end("tzo")
            .start("utc")
            .open()
            .text(&datetime::format(turn.now().wall))
            .end("utc")
            .end("time");
        Verdict::Result(out)
    }
}
