//! What a stream header puts in force for the stanzas behind it: the content namespace and the bound prefixes
//! (RFC 6120 §4.8).

use crate::xmpp::ns;

/// Most prefixes that a header may bind beside `stream`.
pub const HEADER_PREFIXES_MAX: usize = 16;

/// Namespaces in force from the stream header. One per stream; in the usual form it owns no heap memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamContext {
    /// Namespace of messages, presences and IQs on this stream.
    content: &'static str,
    /// Default namespace, where it is not the content namespace; empty for none.
    default: Option<Box<str>>,
    /// Whether the prefix `stream` is bound to the streams namespace.
    has_stream_prefix: bool,
    /// Other prefixes, with their namespaces.
    prefixes: Box<[(Box<str>, Box<str>)]>,
}

impl Default for StreamContext {
    fn default() -> StreamContext {
        StreamContext::client()
    }
}

impl StreamContext {
    /// Default namespace `jabber:client`, prefix `stream`.
    pub fn client() -> StreamContext {
        StreamContext::usual(ns::CLIENT)
    }

    /// Default namespace `jabber:server`, prefix `stream`.
    pub fn server() -> StreamContext {
        StreamContext::usual(ns::SERVER)
    }

    /// Default namespace `jabber:component:accept`, prefix `stream` (XEP-0114).
    pub fn component() -> StreamContext {
        StreamContext::usual(ns::COMPONENT_ACCEPT)
    }

    /// Content namespace `jabber:client` and nothing bound: each element stands for itself, as in a WebSocket message
    /// (RFC 7395 §3.3.3).
    pub fn standalone() -> StreamContext {
        StreamContext {
            default: Some("".into()),
            has_stream_prefix: false,
            ..StreamContext::client()
        }
    }

    fn usual(content: &'static str) -> StreamContext {
        StreamContext { content, default: None, has_stream_prefix: true, prefixes: Box::default() }
    }

    /// What the header bound; `None` where neither the default namespace nor a prefix is a content namespace that the
    /// server knows.
    pub(super) fn from_bindings(
        default: &str,
        bindings: Vec<(&str, &str)>,
    ) -> Option<StreamContext> {
        let content = content_namespace(default)
            .or_else(|| bindings.iter().find_map(|(_, namespace)| content_namespace(namespace)))?;
        let has_stream_prefix = bindings.contains(&("stream", ns::STREAMS));
        let others = bindings.into_iter().filter(|binding| *binding != ("stream", ns::STREAMS));
        Some(StreamContext {
            content,
            default: (default != content).then(|| default.into()),
            has_stream_prefix,
            prefixes: others.map(|(prefix, namespace)| (prefix.into(), namespace.into())).collect(),
        })
    }

    /// This context with the declarations of an element inside of it added.
    pub(super) fn extended(&self, default: &str, bindings: &[(&str, &str)]) -> StreamContext {
        let mut prefixes: Vec<(Box<str>, Box<str>)> = self.prefixes.to_vec();
        prefixes
            .extend(bindings.iter().map(|&(prefix, namespace)| (prefix.into(), namespace.into())));
        StreamContext {
            content: self.content,
            default: (default != self.content).then(|| default.into()),
            has_stream_prefix: self.has_stream_prefix
                && !bindings.iter().any(|(prefix, _)| *prefix == "stream"),
            prefixes: prefixes.into(),
        }
    }

    /// Only the content namespace: what is left of a context for stanzas that need nothing else of it.
    pub(in crate::xmpp) fn of_content(content: &'static str) -> StreamContext {
        StreamContext::usual(content)
    }

    /// Namespace of messages, presences and IQs on this stream: [`ns::CLIENT`], [`ns::SERVER`] or
    /// [`ns::COMPONENT_ACCEPT`].
    pub fn content(&self) -> &'static str {
        self.content
    }

    /// Namespace of elements without prefix.
    pub fn default_namespace(&self) -> &str {
        self.default.as_deref().unwrap_or(self.content)
    }

    /// Whether elements without prefix are in the content namespace, as RFC 6120 §4.8.3 wants it.
    pub fn is_content_default(&self) -> bool {
        self.default.is_none()
    }

    /// All that is in force: prefix and namespace, a later one of the same prefix hiding the earlier. The default
    /// namespace has the empty prefix.
    pub fn bindings(&self) -> impl Iterator<Item = (&str, &str)> {
        let stream = self.has_stream_prefix.then_some(("stream", ns::STREAMS));
        let others = self.prefixes.iter().map(|(prefix, namespace)| (&**prefix, &**namespace));
        std::iter::once(("", self.default_namespace())).chain(stream).chain(others)
    }

    pub(super) fn binds_stream_prefix(&self) -> bool {
        self.has_stream_prefix
    }

    /// Where `prefix` is bound, the last binding winning.
    pub(super) fn prefix_at(&self, prefix: &str) -> Option<usize> {
        self.prefixes.iter().rposition(|(bound, _)| **bound == *prefix)
    }

    pub(super) fn namespace_at(&self, at: usize) -> &str {
        self.prefixes.get(at).map_or("", |(_, namespace)| namespace)
    }
}

/// The content namespace of that name.
fn content_namespace(name: &str) -> Option<&'static str> {
    [ns::CLIENT, ns::SERVER, ns::COMPONENT_ACCEPT].into_iter().find(|known| *known == name)
}
