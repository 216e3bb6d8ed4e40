//! What a handshake says of a peer, made by the test: the names of real certificates, and a chain as it is wanted.

use corefire::federation::trust::{ChainProblem, Dane, Names, PeerCertificate};
use corefire::federation::{PeerTls, TlsVersion};
use rcgen::{CertificateParams, KeyPair, SanType};
use std::cell::RefCell;
use std::collections::BTreeMap;
use x509_parser::prelude::{FromDer, X509Certificate};

thread_local! {
    static MADE: RefCell<BTreeMap<String, Names>> = RefCell::default();
}

/// The names in a certificate for these domains, separated by blanks.
fn names(domains: &str) -> Names {
    MADE.with_borrow_mut(|made| {
        let make = || {
            let mut params = CertificateParams::default();
            params.subject_alt_names =
                domains.split(' ').map(|name| SanType::DnsName(name.try_into().unwrap())).collect();
            let der = params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
            Names::of(&X509Certificate::from_der(&der).unwrap().1)
        };
        made.entry(domains.to_owned()).or_insert_with(make).clone()
    })
}

/// A peer with a certificate for these domains, with that chain.
pub(crate) fn tls(domains: &str, chain: Result<(), ChainProblem>) -> PeerTls {
    let certificate = PeerCertificate {
        chain,
        names: names(domains),
        dane: Dane::Silent,
        digest: [1; 32],
        digest_512: [3; 64],
        key_digest: [2; 32],
        expires_s: i64::MAX,
    };
    PeerTls {
        version: TlsVersion::Tls13,
        alpn: false,
        server_name: None,
        certificate: Some(certificate),
        posh: None,
    }
}

/// A valid one.
pub(crate) fn valid(domains: &str) -> PeerTls {
    tls(domains, Ok(()))
}

/// One that nobody vouches for.
pub(crate) fn self_signed(domains: &str) -> PeerTls {
    tls(domains, Err(ChainProblem::SelfSigned))
}
