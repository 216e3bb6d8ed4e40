//! What users get: one file per specification, one entry in this list. Its order is the order in which features are
//! asked. A feature knows the shard's `Turn` and nothing of the other features.

use crate::shard::{Feature, Manifest};

/// Declares the modules and builds the list.
macro_rules! features {
    ($($module:ident::$feature:ident),* $(,)?) => {
        $(mod $module;)*

        /// A fresh set, for one shard.
        pub fn all() -> Vec<Box<dyn Feature>> {
            vec![$(Box::new($module::$feature)),*]
        }
    };
}

features! {
    session::Session,
    roster::Roster,
    disco::Disco,
    ping::Ping,
    time::Time,
    version::Version,
}

/// What a bound stream's features show (RFC 6120 §7, XEP-0198), with what the manifests add.
pub fn stream_features() -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(b"<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><required/></bind>");
    out.extend_from_slice(b"<sm xmlns='urn:xmpp:sm:3'/>");
    for manifest in manifests() {
        out.extend_from_slice(manifest.stream.as_bytes());
    }
    out
}

/// In the order of the list.
pub fn manifests() -> Vec<&'static Manifest> {
    all().iter().map(|feature| feature.manifest()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_two_features_answer_the_same_request() {
        let mut seen = BTreeSet::new();
        for manifest in manifests() {
            for answer in manifest.answers {
                for scope in answer.scopes {
                    let request = format!(
                        "{:?} {}{} {scope:?}",
                        answer.method, answer.namespace, answer.name
                    );
                    assert!(
                        seen.insert(request.clone()),
                        "{} answers {request} too",
                        manifest.name
                    );
                }
            }
        }
    }
}
