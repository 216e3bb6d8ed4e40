//! POSH (RFC 7711), as the prooftype of RFC 7712 §5: a domain whose server shows the certificate of somebody else, its host's
//! say, names that certificate in a document that it keeps at its own name over HTTPS.
//!
//! Asked for where nothing else proves the domain and it could: of connections that we make, when the handshake is done; of
//! those that come, when the stream's header says who it is. Nothing that the peer says is read meanwhile.

mod document;

pub use document::{
    DOCUMENT_BYTES_MAX, FINGERPRINTS_MAX, Fingerprints, Lookup, LookupStep, PoshProblem, Url,
};

use super::conn::{Hold, Side};
use super::control::Step;
use super::effect::{Action, ConnId, Effects};
use super::input::Untrusted;
use super::{Core, Federation};
use std::sync::Arc;
use std::time::Duration;

/// What the document of a domain says of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posh {
    pub domain: Arc<str>,
    pub outcome: Result<(), PoshProblem>,
}

impl Core {
    /// Asks for the document of a domain, where it could prove what the certificate does not, and stops reading until it is
    /// there. Once for each connection.
    ///
    /// - gives: whether it is asked for; then `Federation::posh` follows
    pub(super) fn ask_posh(&mut self, id: ConnId, domain: &str, fx: &mut Effects) -> bool {
        let Some(conn) = self.conns.get_mut(id.0) else { return false };
        let Some(tls) = &conn.tls else { return false };
        let helps = match tls.speaks_for(domain) {
            Err(Untrusted::Certificate(distrust)) => distrust.leaves_posh(),
            _ => false,
        };
        if !self.config.posh || !helps || tls.posh.is_some() || conn.hold != Hold::No {
            return false;
        }
        conn.hold = Hold::Posh;
        fx.actions.push(Action::AskPosh { conn: id, domain: domain.into() });
        true
    }
}

impl Federation {
    /// The document is there, or is not.
    pub(super) fn posh(
        &mut self,
        id: ConnId,
        domain: Arc<str>,
        outcome: Result<Arc<Fingerprints>, PoshProblem>,
        took: Duration,
        fx: &mut Effects,
    ) {
        let core = &mut self.core;
        let now = core.now.mono;
        let Some(conn) = core.conns.get_mut(id.0) else { return };
        if conn.hold != Hold::Posh {
            return;
        }
        let Some(tls) = &mut conn.tls else { return };
        let Some(certificate) = &tls.certificate else { return };
        let outcome = match outcome {
            Ok(document) if document.name(&certificate.digest, &certificate.digest_512) => Ok(()),
            Ok(_) => Err(PoshProblem::OtherCertificate),
            Err(problem) => Err(problem),
        };
        *match &outcome {
            Ok(()) => &mut core.probe.posh_proved,
            Err(PoshProblem::Absent) => &mut core.probe.posh_absent,
            Err(PoshProblem::OtherCertificate) => &mut core.probe.posh_refused,
            Err(_) => &mut core.probe.posh_failed,
        } += 1;
        let (sound, text) = match &outcome {
            Ok(()) => (true, format!("the document that {domain} keeps over HTTPS names it")),
            Err(problem) => (false, problem.to_string()),
        };
        tls.posh = Some(Posh { domain, outcome });
        match &mut conn.side {
            Side::Out(out) => {
                out.step(Step::Posh, sound, &text, took);
                // The peer has not been asked for anything meanwhile.
                let patience = out.negotiation(core.config.limits.negotiation);
                conn.began = now;
                core.wheel.insert(now + patience, super::Timer::Negotiation(id));
            }
            Side::In(side) => {
                if let Some(opened) = side.opened.take() {
                    core.opened(id, &opened, fx);
                }
            }
        }
        self.go_on(id, fx);
    }
}
