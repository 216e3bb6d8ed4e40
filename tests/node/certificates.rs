//! Authorities made on the spot, and clients that show certificates of theirs (XEP-0178).

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::client::trusting;

pub(crate) type Authority = CertifiedIssuer<'static, KeyPair>;

const XMPP_ADDRESS: [u64; 9] = [1, 3, 6, 1, 5, 5, 7, 8, 5];

pub(crate) fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A client that shows a certificate for `address` by `authority` to the node whose own is at `trusted`.
pub(crate) fn showing(
    trusted: &Path,
    authority: &Authority,
    address: &str,
    alpn: &[&[u8]],
) -> ClientConfig {
    let mut params = CertificateParams::default();
    let name = address.to_owned().into();
    params.subject_alt_names = vec![SanType::OtherName((XMPP_ADDRESS.to_vec(), name))];
    let key = KeyPair::generate().unwrap();
    let certificate: CertificateDer<'static> =
        params.signed_by(&key, authority).unwrap().der().clone();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let mut config = trusting(trusted).with_client_auth_cert(vec![certificate], key).unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config
}
