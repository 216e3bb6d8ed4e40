//! What certificates of other servers are worth.
//!
//! A handshake takes any certificate whose key the peer proves to have, since dialback may do where nobody vouches for it; only
//! RSA below 2048 bits ends it, as signatures by it prove nothing. What the certificate is worth is found out afterwards, and
//! the actor decides.
//!
//! How it is decided:
//! - Trusted are the authorities of the system, those in `federation.ca_file`, and the certificates in that file themselves: who has
//!   a private federation may name its peers' self-signed ones.
//! - Extended key usage: a certificate for servers is good for either side, as many an authority gives out nothing else, and who may
//!   answer for a domain may ask for it. One for clients only is good for a peer that came to us. One without the extension,
//!   or for any use, is good.
//! - If an authority on the way may sign only for some names, then only DNS names and IP addresses count, as it is bound in no other
//!   kind of name.
//! - Revocation is not looked at: lists and OCSP would have us ask where a stranger's certificate says, and short-lived
//!   certificates have taken their place.

mod any_peer;

pub use any_peer::{AnyPeer, explain};

use crate::federation::discovery::{Target, Tlsa};
use crate::federation::trust::{ChainProblem, Dane, Names, PeerCertificate};
use ring::digest::{SHA256, SHA512, digest};
use rustls::RootCertStore;
use rustls::crypto::{WebPkiSupportedAlgorithms, ring as provider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use webpki::{
    EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeId, KeyPurposeIdIter,
    RequiredEkuNotFoundContext, anchor_from_trusted_cert,
};
use x509_parser::asn1_rs::FromDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::error::X509Error;
use x509_parser::public_key::PublicKey;

/// Certificates of a chain. A longer one is not looked at.
const CHAIN_MAX: usize = 12;
/// Signatures by shorter keys are refused by the library as well.
const RSA_BITS_MIN: u32 = 2048;

/// id-kp-serverAuth, id-kp-clientAuth, anyExtendedKeyUsage (RFC 5280 §4.2.1.12)
const SERVER_AUTH: &[u8] = &[43, 6, 1, 5, 5, 7, 3, 1];
const CLIENT_AUTH: &[u8] = &[43, 6, 1, 5, 5, 7, 3, 2];
const ANY_USE: &[u8] = &[85, 29, 37, 0];

/// Who vouches for other servers. Cloned to every federation core.
#[derive(Clone)]
pub struct Trust {
    anchors: Arc<[TrustAnchor<'static>]>,
    /// Certificates that are trusted as they are.
    pinned: Arc<[CertificateDer<'static>]>,
    algorithms: WebPkiSupportedAlgorithms,
}

/// Authorities that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("the authorities in {} cannot be read: {why}", path.display())]
    File { path: PathBuf, why: String },
}

impl Trust {
    /// The authorities of the system, and those in a file of PEM.
    pub fn load(ca_file: Option<&Path>) -> Result<Trust, TrustError> {
        let system = rustls_native_certs::load_native_certs();
        for error in &system.errors {
            tracing::warn!(%error, "authorities of the system cannot be read");
        }
        let own = ca_file.map_or(Ok(Vec::new()), read)?;
        Ok(Trust::new(&system.certs, &own))
    }

    /// - takes: authorities, and those of the operator, which are trusted as peers' certificates as well
    fn new(system: &[CertificateDer<'static>], own: &[CertificateDer<'static>]) -> Trust {
        // One that cannot be read is one less to trust.
        let anchors = system.iter().chain(own).filter_map(|certificate| {
            anchor_from_trusted_cert(certificate).ok().map(|anchor| anchor.to_owned())
        });
        Trust {
            anchors: anchors.collect(),
            pinned: own.into(),
            algorithms: provider::default_provider().signature_verification_algorithms,
        }
    }

    /// The same authorities, for a server that must prove its name by them.
    pub(super) fn roots(&self) -> RootCertStore {
        RootCertStore { roots: self.anchors.to_vec() }
    }

    /// How many authorities there are.
    pub fn len(&self) -> usize {
        self.anchors.len()
    }

    pub fn is_empty(&self) -> bool {
        self.anchors.is_empty()
    }

    /// What is to be known of a peer's certificate after the handshake.
    ///
    /// - takes: the chain that it showed, its own first; `is_client`: it came to us; the target that we went to, for DANE
    /// - gives: none where it showed none
    pub fn certificate(
        &self,
        chain: &[CertificateDer<'_>],
        is_client: bool,
        target: Option<&Target>,
    ) -> Option<PeerCertificate> {
        self.certificate_at(chain, is_client, target, UnixTime::now())
    }

    fn certificate_at(
        &self,
        chain: &[CertificateDer<'_>],
        is_client: bool,
        target: Option<&Target>,
        now: UnixTime,
    ) -> Option<PeerCertificate> {
        let (leaf, others) = chain.split_first()?;
        let parsed = parse(leaf);
        let mut names = parsed.as_ref().map(Names::of).unwrap_or_default();
        let chain = self.chain(leaf, others, is_client, now);
        if let Ok(Bound { constrained: true }) = chain {
            names = names.only_constrained_kinds();
        }
        let key = parsed.as_ref().map_or(&[][..], |parsed| parsed.public_key().raw);
        let dane = target.map_or(Dane::Silent, |it| self.dane(leaf, others, &names, it, now));
        Some(PeerCertificate {
            chain: chain.map(|_| ()),
            names,
            dane,
            digest: sha256(leaf),
            digest_512: sha512(leaf),
            key_digest: sha256(key),
            expires_s: parsed.as_ref().map_or(0, |it| it.validity().not_after.timestamp()),
        })
    }

    fn chain(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        is_client: bool,
        now: UnixTime,
    ) -> Result<Bound, ChainProblem> {
        let parsed = parse(leaf).ok_or(ChainProblem::Malformed)?;
        if let Some(bits) = weak_key(&parsed) {
            return Err(ChainProblem::WeakKey { bits });
        }
        if others.len() >= CHAIN_MAX {
            return Err(ChainProblem::TooLong);
        }
        // What its operator must do first is said first.
        in_time(&parsed, now, false)?;
        if self.pinned.iter().any(|pinned| pinned == leaf) {
            return Ok(Bound { constrained: false });
        }
        verify(&self.anchors, &self.algorithms, leaf, others, is_client, now)
            .map_err(|error| problem(error, &parsed, others, now))
    }

    /// RFC 7671 §5.1, §5.2, RFC 7673 §4
    fn dane(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        names: &Names,
        target: &Target,
        now: UnixTime,
    ) -> Dane {
        if target.tlsa.is_empty() {
            return Dane::Silent;
        }
        let of_usage = |usage| target.tlsa.iter().filter(move |tlsa| tlsa.usage == usage);
        if of_usage(3).any(|tlsa| matches(tlsa, leaf)) {
            return Dane::Certificate;
        }
        for authority in others.iter().take(CHAIN_MAX) {
            if !of_usage(2).any(|tlsa| matches(tlsa, authority)) {
                continue;
            }
            let Ok(anchor) = anchor_from_trusted_cert(authority) else { continue };
            if verify(&[anchor], &self.algorithms, leaf, others, false, now).is_ok() {
                let for_target = names.speak_for(&target.host).is_some();
                return Dane::Authority { for_target };
            }
        }
        Dane::Contradicts
    }
}

/// Of a chain that holds.
struct Bound {
    /// An authority in it may sign only for some names.
    constrained: bool,
}

fn read(path: &Path) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let refused = |why: String| TrustError::File { path: path.to_owned(), why };
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let found: Vec<_> = found.map_err(|error| refused(error.to_string()))?;
    if found.is_empty() {
        return Err(refused("there is no certificate in it".to_owned()));
    }
    Ok(found)
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    let (rest, parsed) = <X509Certificate as FromDer<X509Error>>::from_der(certificate).ok()?;
    rest.is_empty().then_some(parsed)
}

/// The bits of an RSA key that is too short.
fn weak_key(certificate: &X509Certificate<'_>) -> Option<u32> {
    match certificate.public_key().parsed() {
        Ok(PublicKey::RSA(key)) => {
            u32::try_from(key.key_size()).ok().filter(|it| *it < RSA_BITS_MIN)
        }
        _ => None,
    }
}

fn in_time(
    certificate: &X509Certificate<'_>,
    now: UnixTime,
    intermediate: bool,
) -> Result<(), ChainProblem> {
    let now_s = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let validity = certificate.validity();
    let (from_s, at_s) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    if now_s > at_s {
        return Err(ChainProblem::Expired { at_s, intermediate });
    }
    if now_s < from_s {
        return Err(ChainProblem::NotYetValid { from_s, intermediate });
    }
    Ok(())
}

fn verify(
    anchors: &[TrustAnchor<'_>],
    algorithms: &WebPkiSupportedAlgorithms,
    leaf: &CertificateDer<'_>,
    others: &[CertificateDer<'_>],
    is_client: bool,
    now: UnixTime,
) -> Result<Bound, webpki::Error> {
    let end = EndEntityCert::try_from(leaf)?;
    let usage = Usage { is_client };
    let path = end.verify_for_usage(algorithms.all, anchors, others, now, usage, None, None)?;
    let constrained = path.anchor().name_constraints.is_some()
        || path.intermediate_certificates().any(|it| {
            // One that cannot be read is not trusted to bind nobody.
            parse(&it.der()).is_none_or(|parsed| !matches!(parsed.name_constraints(), Ok(None)))
        });
    Ok(Bound { constrained })
}

/// What the extended key usage must have, where there is one.
struct Usage {
    is_client: bool,
}

impl ExtendedKeyUsageValidator for Usage {
    fn validate(&self, uses: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        let mut present = Vec::new();
        let is = |one: KeyPurposeId<'_>, oid| one == KeyPurposeId::new(oid);
        for one in uses {
            let one = one?;
            if is(one, SERVER_AUTH) || is(one, ANY_USE) || (self.is_client && is(one, CLIENT_AUTH))
            {
                return Ok(());
            }
            present.push(one.to_decoded_oid());
        }
        if present.is_empty() {
            return Ok(());
        }
        let required = webpki::KeyUsage::server_auth();
        let context = RequiredEkuNotFoundContext { required, present };
        Err(webpki::Error::RequiredEkuNotFoundContext(context))
    }
}

/// In our words; `leaf` itself is in time.
fn problem(
    error: webpki::Error,
    leaf: &X509Certificate<'_>,
    others: &[CertificateDer<'_>],
    now: UnixTime,
) -> ChainProblem {
    use webpki::Error;
    // That nobody knows who signed it says more than what else is wrong with it.
    let is_self_signed = leaf.subject().as_raw() == leaf.issuer().as_raw();
    match error {
        Error::UnknownIssuer
        | Error::CaUsedAsEndEntity
        | Error::EmptyEkuExtension
        | Error::RequiredEkuNotFoundContext(_)
            if is_self_signed =>
        {
            ChainProblem::SelfSigned
        }
        Error::UnknownIssuer => {
            // A chain that ends at an intermediate one that is out of date, instead of at an authority.
            let signer = others.iter().filter_map(parse).find(|it| it.subject() == leaf.issuer());
            if let Some(Err(problem)) = signer.as_ref().map(|it| in_time(it, now, true)) {
                return problem;
            }
            let last = signer.as_ref().map_or(leaf.issuer(), |it| it.issuer());
            ChainProblem::UnknownIssuer { issuer: last.to_string() }
        }
        Error::CertExpired { not_after, .. } => ChainProblem::Expired {
            at_s: i64::try_from(not_after.as_secs()).unwrap_or(i64::MAX),
            intermediate: true,
        },
        Error::CertNotValidYet { not_before, .. } => ChainProblem::NotYetValid {
            from_s: i64::try_from(not_before.as_secs()).unwrap_or(i64::MAX),
            intermediate: true,
        },
        Error::UnsupportedSignatureAlgorithmContext(_)
        | Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => ChainProblem::WeakSignature,
        Error::InvalidSignatureForPublicKey => ChainProblem::BadSignature,
        Error::RequiredEkuNotFoundContext(_) | Error::EmptyEkuExtension => ChainProblem::Purpose,
        Error::CaUsedAsEndEntity => ChainProblem::Authority,
        Error::NameConstraintViolation | Error::PathLenConstraintViolated => {
            ChainProblem::Constraints
        }
        Error::MaximumPathDepthExceeded => ChainProblem::TooLong,
        Error::BadDer
        | Error::BadDerTime
        | Error::ExtensionValueInvalid
        | Error::UnsupportedCertVersion
        | Error::UnsupportedCriticalExtension
        | Error::TrailingData(_) => ChainProblem::Malformed,
        other => ChainProblem::Other(format!("{other:?}")),
    }
}

/// RFC 6698 §2.1
fn matches(tlsa: &Tlsa, certificate: &CertificateDer<'_>) -> bool {
    let parsed;
    let selected: &[u8] = match tlsa.selector {
        0 => certificate,
        _ => {
            parsed = parse(certificate);
            match &parsed {
                Some(parsed) => parsed.public_key().raw,
                None => return false,
            }
        }
    };
    match tlsa.matching {
        0 => selected == tlsa.data,
        1 => digest(&SHA256, selected).as_ref() == tlsa.data,
        2 => digest(&SHA512, selected).as_ref() == tlsa.data,
        _ => false,
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut result = [0; 32];
    result.copy_from_slice(digest(&SHA256, bytes).as_ref());
    result
}

fn sha512(bytes: &[u8]) -> [u8; 64] {
    let mut result = [0; 64];
    result.copy_from_slice(digest(&SHA512, bytes).as_ref());
    result
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests;
