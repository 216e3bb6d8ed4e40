//! stanza_error
