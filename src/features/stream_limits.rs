//! XEP-0478: Stream Limits Advertisement. The numbers themselves are written with the features of each stage, in
//! `stream::c2s`: they differ before and after login.

use super::Settings;
use crate::shard::{Feature, Manifest, Spec};

pub(super) static MANIFEST: Manifest = Manifest {
    name: "stream_limits",
    specs: &[Spec { name: "XEP-0478", version: "0.2.0", left_out: "" }],
    ..Manifest::EMPTY
};

/// One instance per shard.
pub(super) struct StreamLimits;

impl StreamLimits {
    pub(super) fn new(_settings: &Settings) -> Self {
        Self
    }
}

impl Feature for StreamLimits {
    fn manifest(&self) -> &'static Manifest {
        &MANIFEST
    }
}
