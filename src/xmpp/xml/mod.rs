//! XML as XMPP restricts it (RFC 6120 §11): cut, check and read, write.

pub mod element;
pub mod framer;
pub mod reader;
pub mod writer;
