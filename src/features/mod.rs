//! What users get: one file per specification, one entry in this list. Its order is the order in which features are
//! asked. A feature knows the shard's `Turn` and nothing of the other features.

mod administration;

use crate::shard::{Feature, Manifest};
use crate::stream::c2s::StreamFeatures;
use crate::xmpp::ns;
use crate::xmpp::xml::writer::Writer;

/// What operators tell the features, composed of each feature's own part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    pub contact: contact::Addresses,
    pub external_services: Vec<external_services::Service>,
}

/// Declares the modules and builds the lists.
macro_rules! features {
    ($($module:ident::$feature:ident),* $(,)?) => {
        $(pub mod $module;)*

        /// A fresh set, for one shard.
        pub fn with(settings: &Settings) -> Vec<Box<dyn Feature>> {
            vec![$(Box::new($module::$feature::new(settings))),*]
        }

        /// In the order of the list.
        pub fn manifests() -> Vec<&'static Manifest> {
            vec![$(&$module::MANIFEST),*]
        }
    };
}

features! {
    streams::Streams,
    federation::Federation,
    bind::Bind,
    session::Session,
    roster::Roster,
    blocking::Blocking,
    quarantine::InQuarantine,
    carbons::Carbons,
    stanza_id::StanzaId,
    offline::Offline,
    archive::Archive,
    csi::Csi,
    disco::Disco,
    contact::Contact,
    components::Components,
    external_services::ExternalServices,
    stream_limits::StreamLimits,
    vcard::Vcard,
    private::Private,
    commands::Commands,
    register::Register,
    ping::Ping,
    last::Last,
    time::Time,
    version::Version,
    shard_map::ShardMap,
}

/// A fresh set, for a shard that was told nothing.
pub fn all() -> Vec<Box<dyn Feature>> {
    with(&Settings::default())
}

/// What a stream's features show once somebody has logged in, and what Bind 2 can enable, beside binding and XEP-0198,
/// which are the stream's own.
pub fn stream_features(settings: &Settings) -> StreamFeatures {
    let mut features = StreamFeatures::default();
    let mut writer = Writer::new(&mut features.bind_inline);
    writer.start("feature").attr("var", ns::SM3).close_empty();
    for manifest in manifests() {
        features.logged_in.extend_from_slice(manifest.stream.as_bytes());
        for namespace in manifest.bind_inline {
            writer.start("feature").attr("var", namespace).close_empty();
        }
    }
    disco::write_capabilities(settings, &mut features.logged_in);
    features
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

    #[test]
    fn each_feature_has_the_manifest_of_its_file() {
        for (feature, manifest) in all().iter().zip(manifests()) {
            assert!(std::ptr::eq(feature.manifest(), manifest), "{}", manifest.name);
        }
    }
}
