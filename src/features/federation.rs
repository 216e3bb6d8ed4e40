//! What servers speak with one another beside RFC 6120. `src/federation` and `src/stream/s2s` do it; this is what is said
//! of it.

use super::Settings;
use crate::shard::{Feature, Manifest, Spec};

pub(super) static MANIFEST: Manifest = Manifest {
    name: "federation",
    specs: &[
        Spec { name: "XEP-0185", version: "1.0", left_out: "" },
        Spec { name: "XEP-0220", version: "1.1.1", left_out: "" },
        Spec { name: "XEP-0288", version: "1.0.1", left_out: "" },
    ],
    ..Manifest::EMPTY
};

/// One instance per shard.
pub(super) struct Federation;

impl Federation {
    pub(super) fn new(_settings: &Settings) -> Self {
        Self
    }
}

impl Feature for Federation {
    fn manifest(&self) -> &'static Manifest {
        &MANIFEST
    }
}
