//! XEP-0157: Contact Addresses for XMPP Services. Whom to write to when something is wrong with this server.

use super::Settings;
use crate::shard::{Feature, Form, Manifest, Spec};

pub(super) static MANIFEST: Manifest = Manifest {
    name: "contact",
    specs: &[Spec { name: "XEP-0157", version: "1.1.1", left_out: "" }],
    ..Manifest::EMPTY
};

/// URIs (`mailto:`, `xmpp:`, `https:`) by purpose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Each of `PURPOSES` at most once; none has an empty list.
    pub of: Vec<(&'static str, Vec<String>)>,
}

/// The purposes that XEP-0157 registers; `abuse` is the field `abuse-addresses` of the form.
pub const PURPOSES: [&str; 7] =
    ["abuse", "admin", "feedback", "sales", "security", "status", "support"];

impl Addresses {
    /// The form in the server's `disco#info`; `None` where there is nobody to write to.
    pub(super) fn form(&self) -> Option<Form> {
        let field = |(purpose, uris): &(&str, Vec<String>)| {
            (format!("{purpose}-addresses"), uris.clone())
        };
        let fields: Vec<_> = self.of.iter().map(field).collect();
        (!fields.is_empty())
            .then_some(Form { form_type: "http://jabber.org/network/serverinfo", fields })
    }
}

/// One instance per shard. What it has to say does not change: it is in the server's capabilities (`super::disco`).
pub(super) struct Contact;

impl Contact {
    pub(super) fn new(_settings: &Settings) -> Self {
        Self
    }
}

impl Feature for Contact {
    fn manifest(&self) -> &'static Manifest {
        &MANIFEST
    }
}
