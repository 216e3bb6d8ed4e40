//! XEP-0114: Jabber Component Protocol. Components are listed among the server's items while they are connected; their
//! streams and stanzas are the shard's (`shard/component`).

use super::Settings;
use crate::shard::{DiscoRequest, Discovery, Feature, Item, Manifest, Scope, Spec, Turn};

pub(super) static MANIFEST: Manifest = Manifest {
    name: "components",
    specs: &[Spec {
        name: "XEP-0114",
        version: "1.6",
        left_out: "`jabber:component:connect`, in which the server dials",
    }],
    ..Manifest::EMPTY
};

/// One instance per shard.
pub(super) struct Components;

impl Components {
    pub(super) fn new(_settings: &Settings) -> Self {
        Self
    }
}

impl Feature for Components {
    fn manifest(&self) -> &'static Manifest {
        &MANIFEST
    }

    fn discover(
        &mut self,
        turn: &mut Turn<'_>,
        request: &DiscoRequest<'_>,
        found: &mut Discovery,
    ) {
        if !request.is_items || request.scope != Scope::Server || request.node.is_some() {
            return;
        }
        let items = turn.connected_components(request.subject).map(|domain| Item {
            jid: domain.to_owned(),
            node: None,
            name: None,
        });
        found.items.extend(items);
    }
}
