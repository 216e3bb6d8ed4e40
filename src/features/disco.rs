//! XEP-0030: Service Discovery, with the forms of XEP-0128, and XEP-0115: Entity Capabilities of the server. What the
//! server and its accounts can do, taken from the manifests and from what features add.

use super::Settings;
use crate::shard::{
    AccountId, Answers, Discovery, Feature, Form, Identity, Iq, Item, Manifest, Method, Scope,
    Spec, Turn, Verdict,
};
use crate::xmpp::ns;
use crate::xmpp::stanza_error::{StanzaCondition, StanzaError};
use crate::xmpp::xml::writer::Writer;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

pub(super) static MANIFEST: Manifest = Manifest {
    name: "disco",
    specs: &[
        Spec { name: "XEP-0030", version: "2.5.0", left_out: "publishing of items" },
        Spec { name: "XEP-0115", version: "1.6.0", left_out: "the old format without a hash" },
        Spec { name: "XEP-0128", version: "1.0.1", left_out: "" },
    ],
    server_disco: &[ns::DISCO_INFO, ns::DISCO_ITEMS],
    account_disco: &[ns::DISCO_INFO, ns::DISCO_ITEMS],
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
    gathers: true,
    ..Manifest::EMPTY
};

/// Names the software in entity capabilities (XEP-0115 §4).
const CAPS_NODE: &str = "urn:corefire:server";

/// One instance per shard.
pub(super) struct Disco {
    /// What the server says of itself to everybody.
    server: Info,
    /// `CAPS_NODE#ver`, by which that may be asked for.
    caps_node: String,
}

impl Disco {
    pub(super) fn new(settings: &Settings) -> Self {
        let server = of_server(settings);
        Self { caps_node: format!("{CAPS_NODE}#{}", server.verification()), server }
    }
}

impl Feature for Disco {
    fn manifest(&self) -> &'static Manifest {
        &MANIFEST
    }

    fn on_iq(&mut self, turn: &mut Turn<'_>, iq: &Iq<'_>) -> Verdict {
        // §8: strangers learn no more of an account than that there may be one.
        if let (Scope::Other, Some(account)) = (iq.scope, iq.account)
            && !is_contact(turn, account, iq.from)
        {
            return Verdict::Error(StanzaError::new(StanzaCondition::ServiceUnavailable));
        }
        let found = turn.take_discovery();
        let node = iq.payload.attr("node").filter(|node| !node.is_empty());
        let node = node.as_deref();
        let is_items = iq.payload.namespace == ns::DISCO_ITEMS;
        let is_caps =
            iq.scope == Scope::Server && !is_items && node == Some(self.caps_node.as_str());
        if node.is_some() && !found.is_known_node && !is_caps {
            return Verdict::Error(StanzaError::new(StanzaCondition::ItemNotFound));
        }
        if is_items {
            let mut items = found.items;
            if let (None, Some(account)) = (node, iq.account) {
                let resource = |jid| Item { jid, node: None, name: None };
                items.extend(turn.available_resources(account).into_iter().map(resource));
            }
            return Verdict::Result(write_items(node, &items));
        }
        let info = match (node, iq.scope) {
            _ if is_caps => self.server.clone(),
            (None, Scope::Server) => self.server.clone().with(found),
            (None, scope) => Info::of(scope).with(found),
            (Some(_), _) => Info::default().with(found),
        };
        Verdict::Result(info.write(node))
    }
}

/// What `disco#info` says of an entity.
#[derive(Clone, Debug, Default)]
struct Info {
    identities: Vec<Identity>,
    features: Vec<&'static str>,
    forms: Vec<Form>,
}

impl Info {
    /// What the manifests say.
    fn of(scope: Scope) -> Self {
        let (category, kind) = match scope {
            Scope::Server => ("server", "im"),
            Scope::Own | Scope::Other => ("account", "registered"),
        };
        let of_manifest = |manifest: &&'static Manifest| match scope {
            Scope::Server => manifest.server_disco,
            Scope::Own | Scope::Other => manifest.account_disco,
        };
        Self {
            identities: vec![Identity { category, kind, name: "Corefire".to_owned() }],
            features: super::manifests().iter().flat_map(of_manifest).copied().collect(),
            forms: Vec::new(),
        }
    }

    fn with(mut self, found: Discovery) -> Self {
        self.identities.extend(found.identities);
        self.features.extend(found.features);
        self.features.sort_unstable();
        self.features.dedup();
        self.forms.extend(found.forms);
        self
    }

    fn write(&self, node: Option<&str>) -> Vec<u8> {
        let mut out = Vec::with_capacity(1024);
        let mut writer = Writer::new(&mut out);
        writer.start("query").attr("xmlns", ns::DISCO_INFO).attr_opt("node", node);
        for Identity { category, kind, name } in &self.identities {
            writer.start("identity").attr("category", category).attr("type", kind);
            writer.attr("name", name).close_empty();
        }
        for feature in &self.features {
            writer.start("feature").attr("var", feature).close_empty();
        }
        for form in &self.forms {
            form.write(&mut writer);
        }
        writer.end("query");
        out
    }

    /// The verification string, hashed with SHA-1 (XEP-0115 §5.1).
    fn verification(&self) -> String {
        let mut text = String::new();
        let mut add = |part: &str| {
            text.push_str(part);
            text.push('<');
        };
        let mut identities: Vec<String> = self
            .identities
            .iter()
            .map(|Identity { category, kind, name }| format!("{category}/{kind}//{name}"))
            .collect();
        identities.sort();
        identities.iter().for_each(|identity| add(identity));
        let mut features = self.features.clone();
        features.sort_unstable();
        features.dedup();
        features.iter().for_each(|feature| add(feature));
        let mut forms: Vec<&Form> = self.forms.iter().collect();
        forms.sort_by_key(|form| form.form_type);
        for form in forms {
            add(form.form_type);
            let mut fields: Vec<_> = form.fields.iter().collect();
            fields.sort();
            for (var, values) in fields {
                add(var);
                let mut values = values.clone();
                values.sort();
                values.iter().for_each(|value| add(value));
            }
        }
        let digest =
            ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
        STANDARD.encode(digest)
    }
}

/// What the server says of itself to everybody.
fn of_server(settings: &Settings) -> Info {
    let forms = settings.contact.form().into_iter().collect();
    Info::of(Scope::Server).with(Discovery { forms, ..Discovery::default() })
}

/// Appends `<c/>` for the features of a stream (XEP-0115 §6.3).
pub(super) fn write_capabilities(settings: &Settings, out: &mut Vec<u8>) {
    Writer::new(out)
        .start("c")
        .attr("xmlns", ns::CAPS)
        .attr("hash", "sha-1")
        .attr("node", CAPS_NODE)
        .attr("ver", &of_server(settings).verification())
        .close_empty();
}

fn write_items(node: Option<&str>, items: &[Item]) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    let mut writer = Writer::new(&mut out);
    writer.start("query").attr("xmlns", ns::DISCO_ITEMS).attr_opt("node", node);
    for Item { jid, node, name } in items {
        writer.start("item").attr("jid", jid).attr_opt("node", node.as_deref());
        writer.attr_opt("name", name.as_deref()).close_empty();
    }
    writer.end("query");
    out
}

fn is_contact(turn: &mut Turn<'_>, account: AccountId, from: &str) -> bool {
    let bare = from.split_once('/').map_or(from, |(bare, _)| bare);
    turn.may_see(account, bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of XEP-0115 §5.3.
    #[test]
    fn verification_string_is_that_of_the_specification() {
        let identity = |name: &str| Identity {
            category: "client",
            kind: "pc",
            name: name.to_owned(),
        };
        let field = |var: &str, values: &[&str]| {
            (var.to_owned(), values.iter().map(|value| (*value).to_owned()).collect())
        };
        let info = Info {
            // The language of the example's two identities stands where ours have none.
            identities: vec![identity("Exodus 0.9.1")],
            features: vec![
                "http://jabber.org/protocol/disco#info",
                "http://jabber.org/protocol/muc",
                "http://jabber.org/protocol/caps",
                "http://jabber.org/protocol/disco#items",
            ],
            forms: Vec::new(),
        };
        assert_eq!(info.verification(), "QgayPKawpkPSDYmwT/WM94uAlu0=");
        let form = Form {
            form_type: "urn:xmpp:dataforms:softwareinfo",
            fields: vec![field("os", &["Mac"]), field("ip_version", &["ipv6", "ipv4"])],
        };
        let more = Info { forms: vec![form], ..info.clone() };
        assert_ne!(more.verification(), info.verification());
    }
}
