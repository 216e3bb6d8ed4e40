//! What the actor notes, as lines of the log. Domains are those of servers, so they may be named.

use crate::federation::Note;

pub(super) fn log(note: &Note) {
    match note {
        Note::Established { domain, own, by } => {
            tracing::info!(%domain, %own, by, "a stream to another server is up");
        }
        Note::Accepted { domain, own, by } => {
            tracing::info!(%domain, %own, by, "another server is who it says");
        }
        Note::Unreachable { domain, own, failure, text } => tracing::warn!(
            %domain,
            %own,
            failure = failure.name(),
            "another server cannot be reached: {text}"
        ),
        Note::Recovered { domain, own } => {
            tracing::info!(%domain, %own, "another server is reached again");
        }
        Note::Bounced { domain, stanzas, failure } => tracing::warn!(
            %domain,
            stanzas,
            failure = failure.name(),
            "messages to another server went back to their senders"
        ),
        Note::Broken { domain, peer, text } => tracing::warn!(
            domain = domain.as_deref(),
            %peer,
            "a stream of another server was closed: {text}"
        ),
        Note::Fault { text } => tracing::error!("a fault in federation was contained: {text}"),
    }
}
