//! RFC 6120: XMPP Core, and what else streams themselves speak. `src/stream` and `src/shard` do it; this is what is said
//! of it.

use super::Settings;
use crate::shard::{Feature, Manifest, Spec};

pub(super) static MANIFEST: Manifest = Manifest {
    name: "streams",
    specs: &[
        Spec { name: "RFC 6120", version: "2011", left_out: "" },
        Spec { name: "RFC 6121 §4, §5, §8", version: "2011", left_out: "" },
        Spec { name: "RFC 7622", version: "2015", left_out: "" },
        Spec {
            name: "XEP-0178",
            version: "1.2",
            left_out: "certificates without an address",
        },
        Spec {
            name: "XEP-0198",
            version: "1.6.3",
            left_out: "",
        },
        Spec { name: "XEP-0368", version: "1.1.0", left_out: "" },
        Spec {
            name: "XEP-0386",
            version: "1.1.0",
            left_out: "offline messages are sent, not left to the archive, whose end `<bound/>` does not tell",
        },
        Spec { name: "XEP-0388", version: "1.0.4", left_out: "tasks: no login needs any" },
        Spec { name: "XEP-0440", version: "1.0.0", left_out: "" },
        Spec { name: "XEP-0474", version: "0.5.0", left_out: "" },
        Spec {
            name: "XEP-0484",
            version: "0.2.0",
            left_out: "early data of TLS; HT-SHA-256-UNIQ, which TLS 1.3 has no binding for",
        },
    ],
    ..Manifest::EMPTY
};

/// One instance per shard.
pub(super) struct Streams;

impl Streams {
    pub(super) fn new(_settings: &Settings) -> Self {
        Self
    }
}

impl Feature for Streams {
    fn manifest(&self) -> &'static Manifest {
        &MANIFEST
    }
}
