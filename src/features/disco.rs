//! XEP-0030: Service Discovery. What the server and its accounts can do, taken from the manifests.

use crate::shard::{AccountId, Answers, Feature, Iq, Manifest, Method, Scope, Spec, Turn, Verdict};
use crate::xmpp::ns;
use crate::xmpp::stanza_error::{StanzaCondition, StanzaError};
use crate::xmpp::xml::writer::Writer;

static MANIFEST: Manifest = Manifest {
    name: "disco",
    specs: &[Spec { name: "XEP-0030", version: "2.5rc3", left_out: "publishing of items" }],
    server_disco: &[ns::DISCO_INFO, ns::DISCO_ITEMS],
    account_disco: &[ns::DISCO_INFO, ns::DISCO_ITEMS],
    stream: "",
    answers: &[
        Answers {
            method: Method::Get,
            namespace: ns::DISCO_INFO,
            name: "query",
            scopes: &[Scope::Server, Scope::Own, Scope::Other],
        },
        Answers {
            method: Method::Get,
            namespace: ns::DISCO_ITEMS,
            name: "query",
            scopes: &[Scope::Server, Scope::Own, Scope::Other],
        },
    ],
};

/// One instance per shard.
pub(super) struct Disco;

impl Feature for Disco {
    fn manifest(&self) -> &'static Manifest {
        &MANIFEST
    }

    fn on_iq(&mut self, turn: &mut Turn<'_>, iq: &Iq<'_>) -> Verdict {
        // §3.1: strangers learn no more of an account than that there may be one.
        if let (Scope::Other, Some(account)) = (iq.scope, iq.account)
            && !is_contact(turn, account, iq.from)
        {
            return Verdict::Error(StanzaError::new(StanzaCondition::ServiceUnavailable));
        }
        if iq.payload.attr("node").is_some_and(|node| !node.is_empty()) {
            return Verdict::Error(StanzaError::new(StanzaCondition::ItemNotFound));
        }
        let mut out = Vec::with_capacity(512);
        let mut writer = Writer::new(&mut out);
        writer.start("query").attr("xmlns", iq.payload.namespace);
        if iq.payload.namespace == ns::DISCO_ITEMS {
            writer.close_empty();
            return Verdict::Result(out);
        }
        let (category, kind) = match iq.scope {
            Scope::Server => ("server", "im"),
            Scope::Own | Scope::Other => ("account", "registered"),
        };
        writer.start("identity").attr("category", category).attr("type", kind);
        writer.attr("name", "Corefire").close_empty();
        for manifest in turn.manifests() {
            let features = match iq.scope {
                Scope::Server => manifest.server_disco,
                Scope::Own | Scope::Other => manifest.account_disco,
            };
            for feature in features {
                writer.start("feature").attr("var", feature).close_empty();
            }
        }
        writer.end("query");
        Verdict::Result(out)
    }
}

fn is_contact(turn: &mut Turn<'_>, account: AccountId, from: &str) -> bool {
    let bare = from.split_once('/').map_or(from, |(bare, _)| bare);
    turn.may_see(account, bare)
}
