//! Certificates: PEM files to what TLS needs, with a remedy for each way in which they can be wrong.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;

/// A PEM file larger than this is no certificate.
const PEM_BYTES_MAX: u64 = 1 << 20;

/// A certificate or a key that cannot be used. `Display` is one clause of cause and one of remedy.
#[derive(Debug, PartialEq, Eq)]
pub struct CertificateError {
    /// Which of the settings is at fault.
    pub setting: Setting,
    pub path: PathBuf,
    cause: String,
    remedy: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    Certificate,
    Key,
    ClientCa,
    ServerCa,
}

impl Setting {
    /// As the key is named in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Setting::Certificate => "certificate",
            Setting::Key => "key",
            Setting::ClientCa => "client_ca",
            Setting::ServerCa => "ca_file",
        }
    }
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.path.display(), self.cause, self.remedy)
    }
}

impl std::error::Error for CertificateError {}

/// Reads a certificate chain and its private key, and checks that they belong together.
///
/// - takes: PEM; the chain starts with the server's own certificate; the key is PKCS #8, PKCS #1 or SEC 1, in clear
/// - errors: a file that is missing, unreadable or not PEM; a kind of key that is not known; a key of another certificate
/// - blocking: reads two files
pub fn load_certified(certificate: &Path, key: &Path) -> Result<CertifiedKey, CertificateError> {
    let fault = |setting, cause: String, remedy| {
        let path = if setting == Setting::Certificate { certificate } else { key };
        CertificateError { setting, path: path.to_owned(), cause, remedy }
    };
    let bytes = |setting, path: &Path| {
        read_bounded(path).map_err(|error| {
            let remedy = "name a PEM file that this process may read";
            fault(setting, format!("cannot be read: {error}"), remedy)
        })
    };

    const CHAIN: &str =
        "give the PEM chain, the server's own certificate first (\"BEGIN CERTIFICATE\")";
    let text = bytes(Setting::Certificate, certificate)?;
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| fault(Setting::Certificate, format!("is not PEM: {error}"), CHAIN))?;
    let Some(first) = chain.first() else {
        return Err(fault(Setting::Certificate, "holds no PEM certificate".into(), CHAIN));
    };
    if let Err(error) = ParsedCertificate::try_from(first) {
        let cause = format!("its first certificate cannot be read: {error}");
        return Err(fault(Setting::Certificate, cause, CHAIN));
    }

    const KEY: &str = "give the private key of the certificate, without a passphrase";
    let text = bytes(Setting::Key, key)?;
    let private = PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
        let cause = match error {
            _ if has(&text, b"BEGIN ENCRYPTED PRIVATE KEY") || has(&text, b"Proc-Type: 4,ENC") => {
                "is encrypted".to_owned()
            }
            rustls::pki_types::pem::Error::NoItemsFound => "holds no PEM private key".to_owned(),
            error => format!("is not PEM: {error}"),
        };
        fault(Setting::Key, cause, KEY)
    })?;
    let signer = rustls::crypto::ring::sign::any_supported_type(&private).map_err(|_| {
        let remedy = "use an ECDSA key (P-256, P-384), Ed25519, or RSA of 2048 bits or more";
        fault(Setting::Key, "is of a kind that cannot be used".into(), remedy)
    })?;

    let certified = CertifiedKey::new(chain, signer);
    certified.keys_match().map_err(|_| {
        let cause = format!("does not belong to the certificate {}", certificate.display());
        fault(Setting::Key, cause, "give the key that the certificate was made for")
    })?;
    Ok(certified)
}

/// Reads the certificates of those who may certify clients.
///
/// - takes: PEM, one certificate or more
/// - errors: a file that is missing, unreadable or not PEM, that holds no certificate, or one that cannot be read
/// - blocking: reads one file
pub fn load_client_ca(path: &Path) -> Result<RootCertStore, CertificateError> {
    const CA: &str = "give the PEM certificates of the CAs that issue those of clients";
    load_authorities(path, Setting::ClientCa, CA)
}

/// As `load_client_ca`, of those who may certify other servers.
pub fn load_trust_anchors(path: &Path) -> Result<RootCertStore, CertificateError> {
    const CA: &str = "give the PEM certificates of the CAs that issue those of other servers";
    load_authorities(path, Setting::ServerCa, CA)
}

/// - takes: `remedy`, told where the file holds something else
fn load_authorities(
    path: &Path,
    setting: Setting,
    remedy: &'static str,
) -> Result<RootCertStore, CertificateError> {
    let fault =
        |cause: String, remedy| CertificateError { setting, path: path.to_owned(), cause, remedy };
    let text = read_bounded(path).map_err(|error| {
        fault(format!("cannot be read: {error}"), "name a PEM file that this process may read")
    })?;
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate =
            certificate.map_err(|error| fault(format!("is not PEM: {error}"), remedy))?;
        let place = store.len() + 1;
        store.add(certificate).map_err(|error| {
            fault(format!("its certificate number {place} cannot be read: {error}"), remedy)
        })?;
    }
    if store.is_empty() {
        return Err(fault("holds no PEM certificate".into(), remedy));
    }
    Ok(store)
}

/// Whether clients that check certificates take this one for `domain` (RFC 6125, by the subject's alternative names).
pub fn is_valid_for(certified: &CertifiedKey, domain: &str) -> bool {
    let Ok(name) = ServerName::try_from(domain) else { return false };
    certified
        .end_entity_cert()
        .and_then(|certificate| {
            let parsed = ParsedCertificate::try_from(certificate)?;
            rustls::client::verify_server_name(&parsed, &name)
        })
        .is_ok()
}

fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(PEM_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > PEM_BYTES_MAX {
        return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, "larger than 1 MiB"));
    }
    Ok(bytes)
}

fn has(text: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(text, part).is_some()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn files(dir: &Path, name: &str, domain: &str) -> (PathBuf, PathBuf) {
        let made = rcgen::generate_simple_self_signed([domain.to_owned()]).unwrap();
        let (certificate, key) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        (certificate, key)
    }

    #[test]
    fn a_certificate_with_its_key_loads_and_names_its_domain() {
        let dir = tempfile::tempdir().unwrap();
        let (certificate, key) = files(dir.path(), "a", "example.org");
        let certified = load_certified(&certificate, &key).unwrap();
        assert!(is_valid_for(&certified, "example.org"));
        assert!(!is_valid_for(&certified, "example.net"));
    }

    #[test]
    fn each_fault_names_the_file_and_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let (certificate, key) = files(dir.path(), "a", "example.org");
        let (_, other_key) = files(dir.path(), "b", "example.org");
        let missing = dir.path().join("missing.pem");
        let junk = dir.path().join("junk.pem");
        std::fs::write(&junk, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
            .unwrap();
        let encrypted = dir.path().join("encrypted.pem");
        let text =
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        std::fs::write(&encrypted, text).unwrap();

        let cases = [
            (&missing, &key, Setting::Certificate, "cannot be read: No such file"),
            (&key, &key, Setting::Certificate, "holds no PEM certificate"),
            (&junk, &key, Setting::Certificate, "cannot be read"),
            (&certificate, &missing, Setting::Key, "cannot be read: No such file"),
            (&certificate, &certificate, Setting::Key, "holds no PEM private key"),
            (&certificate, &encrypted, Setting::Key, "is encrypted"),
            (&certificate, &other_key, Setting::Key, "does not belong to the certificate"),
        ];
        for (certificate, key, setting, cause) in cases {
            let error = load_certified(certificate, key).unwrap_err();
            assert_eq!(error.setting, setting, "{error}");
            assert!(error.to_string().contains(cause), "{error} / {cause}");
            assert!(error.to_string().contains("; "), "{error}");
        }
        for (path, cause) in [
            (&missing, "cannot be read: No such file"),
            (&key, "holds no PEM certificate"),
            (&junk, "its certificate number 1 cannot be read"),
        ] {
            let error = load_client_ca(path).unwrap_err();
            assert_eq!(error.setting, Setting::ClientCa);
            assert!(error.to_string().contains(cause), "{error} / {cause}");
        }
        assert_eq!(load_client_ca(&certificate).unwrap().len(), 1);
    }
}
