//! The vocabulary of XMPP: addresses, namespaces, stanzas, errors, XML. No state, no I/O.

pub mod credentials;
pub mod data_form;
pub mod datetime;
pub mod jid;
pub mod ns;
pub mod stanza;
pub mod stanza_error;
pub mod stream_error;
pub mod xml;
