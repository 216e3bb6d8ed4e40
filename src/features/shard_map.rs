//! The shard map in an IQ, so that a service or client that is logged in can compute who owns an address, and connect
//! there: `<shard-map xmlns='urn:corefire:shard-map:1'/>` to the domain is answered with the element that `cluster::map`
//! describes. For accounts and components of this server; it tells others how the cluster is built.

use super::Settings;
use crate::shard::{Answers, Feature, Iq, Manifest, Method, Scope, Spec, Turn, Verdict};
use crate::xmpp::ns;
use crate::xmpp::stanza_error::StanzaCondition;

pub(super) static MANIFEST: Manifest = Manifest {
    name: "shard_map",
    specs: &[Spec { name: ns::SHARD_MAP, version: "1", left_out: "" }],
    server_disco: &[ns::SHARD_MAP],
    answers: &[Answers {
        method: Method::Get,
        namespace: ns::SHARD_MAP,
        name: "shard-map",
        scopes: &[Scope::Server],
    }],
    ..Manifest::EMPTY
};

/// One instance per shard.
pub(super) struct ShardMap;

impl ShardMap {
    pub(super) fn new(_settings: &Settings) -> Self {
        Self
    }
}

impl Feature for ShardMap {
    fn manifest(&self) -> &'static Manifest {
        &MANIFEST
    }

    fn on_iq(&mut self, turn: &mut Turn<'_>, iq: &Iq<'_>) -> Verdict {
        if !turn.is_local(iq.from) {
            return Verdict::Error(StanzaCondition::Forbidden.into());
        }
        Verdict::Result(turn.shard_map().to_xml())
    }
}
