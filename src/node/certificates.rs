//! The certificates that the configuration names, or the one that the node makes for itself.

use super::{Error, told};
use crate::config::tls::CertificateError;
use crate::config::{self, Config};
use crate::runtime::tls::{self, Certificates, TlsServer};
use rustls::sign::CertifiedKey;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

pub(super) fn tls_server(config: &Config, data_dir: &Path) -> Result<TlsServer, Error> {
    TlsServer::new(certificates(config, data_dir)?).map_err(|error| told("TLS", &error))
}

/// The server that a reload goes on with: `running`, unless a certificate is another one now.
pub(super) fn renewed(
    running: &TlsServer,
    config: &Config,
    data_dir: &Path,
) -> Result<Option<TlsServer>, Error> {
    let certificates = certificates(config, data_dir)?;
    if running.has(&certificates) {
        return Ok(None);
    }
    TlsServer::new(certificates).map(Some).map_err(|error| told("TLS", &error))
}

fn certificates(config: &Config, data_dir: &Path) -> Result<Arc<Certificates>, Error> {
    let fault =
        |error: CertificateError| Error::Other(format!("tls.{}: {error}", error.setting.name()));
    let load = |certificate: &Path, key: &Path| {
        config::tls::load_certified(certificate, key).map_err(fault)
    };
    let fallback = match (&config.tls.certificate, &config.tls.key) {
        (Some(certificate), Some(key)) => load(certificate, key)?,
        _ => self_signed(config, data_dir)?,
    };
    let mut hosts = BTreeMap::new();
    for (domain, host) in &config.tls.hosts {
        hosts.insert(domain.clone(), load(&host.certificate, &host.key)?);
    }
    let client_ca = config.tls.client_ca.as_deref().map(config::tls::load_client_ca);
    Ok(Certificates::new(fallback, hosts, client_ca.transpose().map_err(fault)?))
}

/// The certificate of the first start, made anew when the domains change.
fn self_signed(config: &Config, data_dir: &Path) -> Result<CertifiedKey, Error> {
    let directory = data_dir.join("tls");
    let (certificate, key) = (directory.join("certificate.pem"), directory.join("key.pem"));
    if let Ok(found) = config::tls::load_certified(&certificate, &key)
        && config.domains.iter().all(|domain| config::tls::is_valid_for(&found, domain))
    {
        return Ok(found);
    }
    let fault = |error: &dyn Display| told("a self-signed certificate cannot be made", error);
    let (chain, private) = tls::self_signed(&config.domains).map_err(|error| fault(&error))?;
    std::fs::create_dir_all(&directory).map_err(|error| fault(&error))?;
    tls::write_private(&key, private.as_bytes()).map_err(|error| fault(&error))?;
    tls::write_private(&certificate, chain.as_bytes()).map_err(|error| fault(&error))?;
    tracing::info!(path = %certificate.display(), "made a self-signed certificate");
    config::tls::load_certified(&certificate, &key).map_err(|error| fault(&error))
}
