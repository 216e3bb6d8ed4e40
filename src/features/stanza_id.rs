//! XEP-0359: Unique and Stable Stanza IDs. `shard::stamp` gives them and takes forged ones out; this is what is said of it.

use super::Settings;
use crate::shard::{Feature, Manifest, Spec};
use crate::xmpp::ns;

pub(super) static MANIFEST: Manifest = Manifest {
    name: "stanza_id",
    specs: &[Spec { name: "XEP-0359", version: "0.7.0", left_out: "" }],
    server_disco: &[ns::STANZA_ID],
    account_disco: &[ns::STANZA_ID],
    ..Manifest::EMPTY
};

/// One instance per shard.
pub(super) struct StanzaId;

impl StanzaId {
    pub(super) fn new(_settings: &Settings) -> Self {
        Self
    }
}

impl Feature for StanzaId {
    fn manifest(&self) -> &'static Manifest {
        &MANIFEST
    }
}
