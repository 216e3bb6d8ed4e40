//! Where the database is and how it is spoken to: `postgres://USER@HOST:PORT/DATABASE?…`, as libpq has it, and the
//! places where its password may be.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

use super::super::Error;
use super::{password, tls};
use crate::base::percent;

/// How long a server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long sent bytes may stay unconfirmed before the connection counts as lost.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(15);
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;
/// Where Debian's PostgreSQL has its socket.
const SOCKET_DIRECTORY: &str = "/var/run/postgresql";

/// Parameters of the URL that the driver understands; the other four are ours.
const PARAMETERS: [&str; 16] = [
    "host",
    "hostaddr",
    "port",
    "user",
    "password",
    "dbname",
    "options",
    "connect_timeout",
    "tcp_user_timeout",
    "keepalives_idle",
    "channel_binding",
    "target_session_attrs",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
];

/// What `storage.url` and its neighbours say. Secrets are shown by no `Debug` and no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    config: tokio_postgres::Config,
    pub tls: TlsMode,
    /// Authorities in PEM; else those that the system trusts.
    pub root_certificates: Option<PathBuf>,
    /// A certificate of our own and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Holds the password alone.
    pub password_file: Option<PathBuf>,
    /// How many connections write.
    pub writers: u16,
}

/// `sslmode` of libpq, without the two that fall back to plain text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    Disable,
    /// Encrypted; whoever answers is taken for the server, unless authorities are named.
    Require,
    /// By an authority, whatever name it certifies.
    VerifyCa,
    VerifyFull,
}

impl Settings {
    /// The same, for one who gives a server up after `limit`.
    pub(super) fn with_connect_timeout(&self, limit: Duration) -> Settings {
        let mut settings = self.clone();
        settings.config.connect_timeout(limit);
        settings
    }

    /// - errors: a clause that says what is wrong with the URL, and quotes nothing of it: it may hold a password
    pub fn parse(url: &str) -> Result<Settings, String> {
        const FORM: &str = "is not of the form postgres://USER@HOST:PORT/DATABASE?PARAMETER=VALUE \
                            (what is special in a URL stands in it as %40)";
        let (place, query) = url.split_once('?').unwrap_or((url, ""));
        let mut ours = Ours::default();
        let mut theirs = Vec::new();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').ok_or(FORM)?;
            if !PARAMETERS.contains(&name) {
                return Err(format!("has a parameter that is none of {}", PARAMETERS.join(", ")));
            }
            if !ours.take(name, value)? {
                theirs.push(parameter);
            }
        }
        let url = match theirs.is_empty() {
            true => place.to_owned(),
            false => format!("{place}?{}", theirs.join("&")),
        };
        let config = tokio_postgres::Config::from_str(&url).map_err(|_| FORM.to_owned())?;
        Settings::new(config, ours)
    }

    fn new(mut config: tokio_postgres::Config, ours: Ours) -> Result<Settings, String> {
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            config.host_path(SOCKET_DIRECTORY);
        }
        if config.get_target_session_attrs() == TargetSessionAttrs::ReadOnly {
            return Err("asks for a server that cannot be written to".to_owned());
        }
        // Of several servers the one that takes writes, also for reading: a standby lags.
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(TCP_USER_TIMEOUT);
        }
        if !ours.keepalive_set {
            config.keepalives_idle(KEEPALIVE_IDLE);
        }
        config.keepalives_interval(KEEPALIVE_INTERVAL).keepalives_retries(KEEPALIVE_RETRIES);
        let tls = match ours.tls {
            Some(tls) => tls,
            None if is_near(&config) => TlsMode::Disable,
            None => TlsMode::VerifyFull,
        };
        // As libpq has it: who names authorities wants them asked.
        let tls = match (tls, &ours.root_certificates) {
            (TlsMode::Require, Some(_)) => TlsMode::VerifyCa,
            (tls, _) => tls,
        };
        let is_local = |host: &Host| matches!(host, Host::Unix(_));
        if tls != TlsMode::Disable && config.get_hosts().iter().any(is_local) {
            return Err("asks for TLS on a Unix socket, which has none".to_owned());
        }
        config.ssl_mode(match tls {
            TlsMode::Disable => SslMode::Disable,
            _ => SslMode::Require,
        });
        let certificate = match (ours.certificate, ours.key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return Err("names one of sslcert and sslkey without the other".to_owned()),
        };
        Ok(Settings {
            config,
            tls,
            root_certificates: ours.root_certificates,
            certificate,
            password_file: None,
            writers: 2,
        })
    }

    /// With the password, from the URL or the first of the files that has one.
    ///
    /// - blocking: reads files
    pub(super) fn with_password(&self) -> Result<tokio_postgres::Config, Error> {
        let mut config = self.config.clone();
        if config.get_password().is_some() {
            return Ok(config);
        }
        if let Some(path) = &self.password_file {
            config.password(password::alone_in(path).map_err(|reason| self.no_password(reason))?);
        } else if let Some(password) = password::from_pgpass(&self.key()) {
            config.password(password);
        }
        Ok(config)
    }

    /// Whether the certificates that are named can be used.
    ///
    /// - errors: a line of cause
    /// - blocking: reads them
    pub fn check_certificates(&self) -> Result<(), String> {
        match self.tls {
            TlsMode::Disable => Ok(()),
            _ => tls::connector(self).map(drop),
        }
    }

    fn no_password(&self, reason: String) -> Error {
        Error::Open { path: self.to_string(), reason }
    }

    /// What a line of a password file is compared with.
    fn key(&self) -> password::Key {
        let host = match self.config.get_hosts().first() {
            Some(Host::Tcp(host)) => host.clone(),
            Some(Host::Unix(_)) => "localhost".to_owned(),
            None => self.config.get_hostaddrs().first().map(IpAddr::to_string).unwrap_or_default(),
        };
        let port = self.config.get_ports().first().copied().unwrap_or(5432).to_string();
        let user = self.config.get_user().unwrap_or_default().to_owned();
        let database = self.config.get_dbname().map_or_else(|| user.clone(), str::to_owned);
        password::Key { host, port, database, user }
    }
}

/// No network lies between: a Unix socket, or the machine itself.
fn is_near(config: &tokio_postgres::Config) -> bool {
    let is_near = |host: &Host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        }
    };
    match config.get_hostaddrs() {
        [] => config.get_hosts().iter().all(is_near),
        addresses => addresses.iter().all(IpAddr::is_loopback),
    }
}

/// The parameters that the driver does not know.
#[derive(Default)]
struct Ours {
    tls: Option<TlsMode>,
    root_certificates: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    keepalive_set: bool,
}

impl Ours {
    /// Whether it was ours.
    fn take(&mut self, name: &str, value: &str) -> Result<bool, String> {
        let path = || decoded(value).map(PathBuf::from);
        match name {
            "sslmode" => {
                self.tls = Some(match value {
                    "disable" => TlsMode::Disable,
                    "require" => TlsMode::Require,
                    "verify-ca" => TlsMode::VerifyCa,
                    "verify-full" => TlsMode::VerifyFull,
                    _ => {
                        return Err("has an sslmode that is none of disable, require, verify-ca, \
                                    verify-full"
                            .to_owned());
                    }
                });
            }
            // As in libpq: the authorities of the system.
            "sslrootcert" if value == "system" => {}
            "sslrootcert" => self.root_certificates = Some(path()?),
            "sslcert" => self.certificate = Some(path()?),
            "sslkey" => self.key = Some(path()?),
            "keepalives_idle" => {
                self.keepalive_set = true;
                return Ok(false);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// Undoes %-escapes.
fn decoded(text: &str) -> Result<String, String> {
    percent::decoded(text).ok_or_else(|| "has a % that is no escape".to_owned())
}

impl fmt::Display for Settings {
    /// The URL without its secrets and parameters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("postgres://")?;
        if let Some(user) = self.config.get_user() {
            write!(f, "{user}@")?;
        }
        let addresses = self.config.get_hostaddrs().iter().map(IpAddr::to_string);
        let hosts: Vec<String> = match self.config.get_hosts() {
            [] => addresses.collect(),
            hosts => hosts
                .iter()
                .map(|host| match host {
                    Host::Tcp(name) => name.clone(),
                    Host::Unix(path) => path.display().to_string(),
                })
                .collect(),
        };
        for (number, host) in hosts.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            let ports = self.config.get_ports();
            let port = ports.get(number).or(ports.first()).copied().unwrap_or(5432);
            write!(f, "{comma}{host}:{port}")?;
        }
        match self.config.get_dbname() {
            Some(database) => write!(f, "/{database}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Settings({self}, {:?}, {} writers)", self.tls, self.writers)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn parse(url: &str) -> Settings {
        Settings::parse(url).unwrap()
    }

    #[test]
    fn a_url_is_shown_without_its_secrets() {
        for (url, shown) in [
            (
                "postgres://u:pa%40ss@db.example.org/corefire",
                "postgres://u@db.example.org:5432/corefire",
            ),
            ("postgresql://u@127.0.0.1:5433/x?password=pa%40ss", "postgres://u@127.0.0.1:5433/x"),
            ("postgres://u@a,b:99/x", "postgres://u@a:5432,b:99/x"),
            ("postgres:///x?host=/run/pg&user=u", "postgres://u@/run/pg:5432/x"),
            ("postgres:///x", "postgres:///var/run/postgresql:5432/x"),
        ] {
            let settings = parse(url);
            assert_eq!(settings.to_string(), shown);
            assert!(!format!("{settings:?}").contains("pa@ss"));
        }
    }

    #[test]
    fn what_is_wrong_is_told_and_nothing_is_quoted() {
        for (url, fault) in [
            ("postgres://u:hunter2@h:port/x", "is not of the form"),
            ("postgres://u:hun?ter2@h/x", "is not of the form"),
            ("postgres://u:hun?ter2=@h/x", "has a parameter that is none of"),
            ("postgres://u:hunter2@h/x?sslmode=prefer", "has an sslmode that is none of"),
            ("postgres://u:hunter2@h/x?sslcert=/a", "names one of sslcert and sslkey"),
            ("postgres://u:hunter2@h/x?sslrootcert=%4", "has a % that is no escape"),
            ("postgres:///x?host=/run&sslmode=require", "asks for TLS on a Unix socket"),
            ("postgres://h/x?target_session_attrs=read-only", "asks for a server that cannot"),
        ] {
            let told = Settings::parse(url).unwrap_err();
            assert!(told.starts_with(fault), "{url}: {told}");
            assert!(!told.contains("hun") && !told.contains("ter2"), "{told}");
        }
    }

    #[test]
    fn over_a_network_the_server_must_prove_its_name_unless_told_otherwise() {
        for (url, mode) in [
            ("postgres://db.example.org/x", TlsMode::VerifyFull),
            ("postgres://10.0.0.1/x", TlsMode::VerifyFull),
            ("postgres://localhost,db.example.org/x", TlsMode::VerifyFull),
            ("postgres://db.example.org/x?hostaddr=127.0.0.1", TlsMode::Disable),
            ("postgres://localhost/x", TlsMode::Disable),
            ("postgres://[::1]/x", TlsMode::Disable),
            ("postgres:///x", TlsMode::Disable),
            ("postgres://localhost/x?sslmode=verify-full", TlsMode::VerifyFull),
            ("postgres://h/x?sslmode=require", TlsMode::Require),
            ("postgres://h/x?sslmode=require&sslrootcert=/a%20b.pem", TlsMode::VerifyCa),
            ("postgres://h/x?sslmode=disable", TlsMode::Disable),
        ] {
            assert_eq!(parse(url).tls, mode, "{url}");
        }
        let named = parse("postgres://h/x?sslrootcert=/a%20b.pem");
        assert_eq!(named.root_certificates, Some(PathBuf::from("/a b.pem")));
        assert_eq!(parse("postgres://h/x?sslrootcert=system").root_certificates, None);
    }

    #[test]
    fn no_wait_is_without_end() {
        let settings = parse("postgres://h/x");
        assert_eq!(settings.config.get_connect_timeout(), Some(&CONNECT_TIMEOUT));
        assert_eq!(settings.config.get_tcp_user_timeout(), Some(&TCP_USER_TIMEOUT));
        assert!(settings.config.get_keepalives());
        assert_eq!(settings.config.get_keepalives_idle(), KEEPALIVE_IDLE);
        let settings = parse("postgres://h/x?connect_timeout=3&keepalives_idle=60");
        assert_eq!(settings.config.get_connect_timeout(), Some(&Duration::from_secs(3)));
        assert_eq!(settings.config.get_keepalives_idle(), Duration::from_secs(60));
    }
}
