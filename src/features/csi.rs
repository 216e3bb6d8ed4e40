//! XEP-0352: Client State Indication. `stream::c2s` hears it and `shard::inactive` holds back what may wait; this is what
//! is said of it.

use super::Settings;
use crate::shard::{Feature, Manifest, Spec};

pub(super) static MANIFEST: Manifest = Manifest {
    name: "csi",
    specs: &[Spec { name: "XEP-0352", version: "1.0.0", left_out: "" }],
    stream: "<csi xmlns='urn:xmpp:csi:0'/>",
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
}
