//! XML as XMPP restricts it (RFC 6120 §11): cut, check and read, write.
//!
//! `framer` finds where a stanza ends, `scan` checks one whole stanza strictly and walks it once, `reader` indexes it
//! through that walk and `element` builds a tree through it. Nothing else here parses.
//!
//! The walk is our own and not quick-xml's: that one copies the names of open elements to the heap for each document,
//! and most of what it lets through (names, spacing, characters, references, namespaces) must be checked again, so it
//! would only find the angle brackets. It reads the same bytes as a second opinion in `tests/props/xml.rs`.

pub(in crate::xmpp) mod chars;
mod names;
pub(in crate::xmpp) mod parts;
pub(in crate::xmpp) mod scan;

pub mod context;
pub mod element;
pub mod framer;
pub mod reader;
pub mod writer;
