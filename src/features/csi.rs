//! XEP-0352: Client State Indication. `stream::c2s` hears it and `shard::inactive` holds back what may wait; this is what
//! is said of it.

use super::Settings;
use crate::shard::{Feature, Manifest, SessionId, Spec, Turn};
use crate::xmpp::ns;
use crate::xmpp::xml::element::Element;

pub(super) static MANIFEST: Manifest = Manifest {
    name: "csi",
    specs: &[Spec { name: "XEP-0352", version: "1.0.0", left_out: "" }],
    stream: "<csi xmlns='urn:xmpp:csi:0'/>",
    bind_inline: &[ns::CSI],
    ..Manifest::EMPTY
};

/// One instance per shard.
pub(super) struct Csi;

impl Csi {
    pub(super) fn new(_settings: &Settings) -> Self {
        Self
    }
}

impl Feature for Csi {
    fn manifest(&self) -> &'static Manifest {
        &MANIFEST
    }

    /// XEP-0386: `<inactive/>` (or `<active/>`) inside of `<bind/>`.
    fn on_bind(&mut self, turn: &mut Turn<'_>, session: SessionId, request: &Element) -> Vec<u8> {
        turn.set_active(session, request.name != "inactive");
        Vec::new()
    }
}
