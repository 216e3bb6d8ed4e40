//! Why a connection ended, or did not come about.

use crate::cluster::link::Refusal;
use rustls::AlertDescription as Alert;
use std::io;

#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("{0}")]
    Refused(#[from] Refusal),
    #[error("it does not speak our TLS: {0}")]
    Tls(String),
    #[error("no certificate of this cluster (is the secret the same?): {0}")]
    Certificate(String),
    #[error("the handshake took too long")]
    Timeout,
    #[error("too many handshakes are under way")]
    Crowded,
    #[error("it cannot be reached: {0}")]
    Unreachable(io::Error),
    #[error("the connection broke: {0}")]
    Broken(io::Error),
    #[error("the connection was closed")]
    Closed,
    #[error("it has made a new connection")]
    Replaced,
    #[error("more came than is kept back without a lease")]
    Overtaxed,
    #[error("it is no longer among the peers")]
    Removed,
    #[error("it left on purpose")]
    Left,
    #[error("this node leaves")]
    WeLeave,
}

impl Ended {
    /// For a counter.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Ended::Refused(refusal) => refusal.word(),
            Ended::Tls(_) => "tls",
            Ended::Certificate(_) => "certificate",
            Ended::Timeout => "timeout",
            Ended::Crowded => "crowded",
            Ended::Unreachable(_) => "unreachable",
            Ended::Broken(_) => "broken",
            Ended::Closed => "closed",
            Ended::Replaced => "replaced",
            Ended::Overtaxed => "overtaxed",
            Ended::Removed => "removed",
            Ended::Left => "left",
            Ended::WeLeave => "we-leave",
        }
    }
}

/// Of a socket under TLS.
impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Ended {
        let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>())
        else {
            return match error.kind() {
                io::ErrorKind::UnexpectedEof => Ended::Closed,
                _ => Ended::Broken(error),
            };
        };
        match tls {
            rustls::Error::InvalidCertificate(_)
            | rustls::Error::NoCertificatesPresented
            | rustls::Error::AlertReceived(
                Alert::UnknownCA
                | Alert::BadCertificate
                | Alert::CertificateUnknown
                | Alert::CertificateExpired
                | Alert::CertificateRequired
                | Alert::AccessDenied
                | Alert::DecryptError,
            ) => Ended::Certificate(tls.to_string()),
            _ => Ended::Tls(tls.to_string()),
        }
    }
}
