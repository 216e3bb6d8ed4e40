//! XML as XMPP restricts it (RFC 6120 §11): cut, check and read, write.
//!
//! - `framer` finds where a stanza ends, however it arrives.
//! - `scan` checks one whole stanza strictly in one walk; `reader` indexes it through that walk. Every stanza and stream
//!   header goes this way; a stanza that is only routed goes no other, unless it [`reader::Index::needs_rewrite`].
//! - `tree` builds an [`element::Element`] with quick-xml, for what is looked into or changed. It is given only what
//!   passed the walk.
//!
//! quick-xml neither cuts nor checks. It does not go on from where the bytes of a stanza stopped arriving, and it lets
//! through what would break the stream of a recipient: `<` in values, attributes without space between them,
//! characters and references outside XML, `]]>` in text, undeclared prefixes, two attributes of one expanded name. To
//! check all of that again costs a walk over the same bytes, and the walk can then as well note where things are.
//! For a chat message of 264 bytes (that of `benches/xml.rs`; ns, best of many rounds):
//!
//! | | |
//! |---|---|
//! | check and index (`reader`), allocates nothing | 370 |
//! | quick-xml: events alone / with attributes / with namespaces resolved | 290 / 480 / 950 |
//! | tree: check, then quick-xml (`Element::parse`) | 1 900 |
//!
//! That the check accepts nothing that quick-xml refuses, and that a third parser reads the same tree, is held by
//! `tests/props/xml.rs`.

pub(in crate::xmpp) mod chars;
mod names;
pub(in crate::xmpp) mod parts;
pub(in crate::xmpp) mod scan;
mod tree;

pub mod context;
pub mod element;
pub mod file;
pub mod framer;
pub mod reader;
pub mod writer;
