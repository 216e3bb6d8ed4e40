//! XEP-0160: Best Practices for Handling Offline Messages, with XEP-0203 (Delayed Delivery) and XEP-0334 (Message Processing
//! Hints), which say when a message was sent and whether it is kept. `shard::offline` does it; this is what is said of it.

use super::Settings;
use crate::shard::{Feature, Manifest, Spec};
use crate::xmpp::ns;

pub(super) static MANIFEST: Manifest = Manifest {
    name: "offline",
    specs: &[
        Spec { name: "XEP-0160", version: "1.0.1", left_out: "" },
        Spec { name: "XEP-0203", version: "2.0", left_out: "" },
        Spec { name: "XEP-0334", version: "1.0.0", left_out: "" },
    ],
    server_disco: &[ns::OFFLINE],
    ..Manifest::EMPTY
};

/// One instance per shard.
pub(super) struct Offline;

impl Offline {
    pub(super) fn new(_settings: &Settings) -> Self {
        Self
    }
}

impl Feature for Offline {
    fn manifest(&self) -> &'static Manifest {
        &MANIFEST
    }
}
