//! The configuration: file, `--set` and defaults to one checked `Config`, or every fault with its place and remedy.
//!
//! `config/corefire.toml` documents each key; a test holds it to what `read` knows. Certificates are read here as well
//! (`tls`), since a wrong one is refused as a wrong value is.

mod changes;
mod cluster;
mod features;
mod federation;
mod limits;
mod read;
mod reader;
mod source;
pub mod tls;

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub use crate::base::network::Network;
pub use crate::shard::Ban;
pub use changes::{Change, Values};
pub use cluster::{Cluster, Multicast};
pub use federation::{Dnssec, Federation, FederationLimits, LocalAddresses, MinTls, PeerPolicy};
pub use limits::Limits;

use crate::features::Settings;
use crate::store::Place;
use crate::stream::component::ComponentAccess;
use crate::xmpp::jid::BareJid;

/// A configuration file larger than this is none.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What an operator decides. `Config::default()` is a working server for `localhost`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Prepared (RFC 7622 §3.2), no two alike, at least one.
    pub domains: Vec<String>,
    /// Who may administer the server over XMPP (XEP-0133).
    pub admins: Vec<BareJid>,
    pub node: Node,
    pub c2s: C2s,
    pub tls: Tls,
    pub auth: Auth,
    pub access: AccessRules,
    pub registration: Registration,
    pub storage: Storage,
    pub archive: Archive,
    pub cluster: Cluster,
    pub components: Components,
    pub federation: Federation,
    pub http: Http,
    pub admin: Admin,
    pub features: Settings,
    pub limits: Limits,
    pub log: Log,
    pub latency: Latency,
    /// All of the above as it was written.
    pub values: Values,
}

/// Where a configuration is read from: as often as the node is told to.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    pub file: Option<PathBuf>,
    /// `KEY=VALUE`, laid over the file in their order; the value is TOML or a bare word.
    pub sets: Vec<String>,
    /// Instead of `node.data_dir`.
    pub data_dir: Option<PathBuf>,
}

impl Origin {
    /// See `Config::load`.
    pub fn load(&self) -> Result<Config, ConfigError> {
        Config::load(self.file.as_deref(), &self.sets, self.data_dir.as_deref())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// As written; empty for the host's name, see `Config::node_name`.
    pub name: String,
    /// As written; 0 for one per core, see `Config::shard_count`.
    pub shards: u16,
    /// Relative to the working directory.
    pub data_dir: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct C2s {
    pub listen: Vec<SocketAddr>,
    pub direct_tls_listen: Vec<SocketAddr>,
    pub tls: TlsPolicy,
    /// Connections begin with the header of a balancer.
    pub proxy_protocol: bool,
    /// Balancers; at least one where `proxy_protocol` is set.
    pub proxy_from: Vec<Network>,
    /// Clients are sent to the node that owns their account.
    pub redirect: Redirect,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsPolicy {
    /// No login without TLS.
    Required,
    /// Plain streams may log in, with PLAIN as well.
    Optional,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redirect {
    Off,
    Owner,
}

/// `certificate` and `key` are both given or both absent (self-signed).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    /// Who may certify clients (SASL EXTERNAL).
    pub client_ca: Option<PathBuf>,
    /// By prepared domain, one of `Config::domains` or below one.
    pub hosts: BTreeMap<String, HostCertificate>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostCertificate {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// Of new passwords; those kept already stay as they are.
    pub scram_iterations: u32,
    pub scram_sha512: Sha512,
}

/// Whether SCRAM-SHA-512 is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sha512 {
    /// Where all accounts have keys for it when the node starts.
    Auto,
    On,
    Off,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessRules {
    /// Accounts and domains are of this server.
    pub banned: Vec<Ban>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Anyone may make an account with a client (XEP-0077), and its user cancel it.
    pub in_band: bool,
    /// Accounts that may be tried for in an hour from one network (/24, /64), and in all.
    pub per_network_per_h: u32,
    pub per_node_per_h: u32,
    /// 0: none.
    pub quarantine_s: u32,
    pub quarantine_strangers_per_h: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// A file is relative to the data directory, see `Config::store_place`.
    pub place: Place,
    /// Of the user of a PostgreSQL database.
    pub password_file: Option<PathBuf>,
    /// That write to PostgreSQL.
    pub connections: u16,
    pub ack: AckLevel,
}

/// What a server's acknowledgement (XEP-0198) promises of a message that must be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckLevel {
    Stored,
    Received,
}

/// Not in this version: false.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archive {
    pub enabled: bool,
    pub retention: Retention,
    /// Of domains that have rules of their own.
    pub domains: BTreeMap<String, Retention>,
}

/// What an archive keeps; 0 for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    pub days: u32,
    pub messages_per_account: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Components {
    pub listen: Vec<SocketAddr>,
    /// Who may connect: prepared domains, none of them in `Config::domains`, and their secrets, none empty.
    pub secrets: Vec<ComponentAccess>,
}

/// Not in this version: empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    pub listen: Vec<String>,
    pub tls_listen: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    pub listen: Option<SocketAddr>,
    /// Names by which it may be asked for, in lower case.
    pub hosts: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    pub level: LogLevel,
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    pub fn as_str(self) -> &'static str {
        match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latency {
    /// How long stanzas, logins, turns and commits take is measured.
    pub enabled: bool,
    /// Relative to the data directory; empty for none.
    pub log: String,
    pub interval_s: u32,
}

/// One fault of the configuration; `Display` is one line, `PLACE: KEY: cause; remedy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `FILE:LINE`, `--set KEY=VALUE`, or the file alone. Empty where the fault is in no written value.
    pub place: String,
    /// Dotted; empty where no key can be named.
    pub key: String,
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [&self.place, &self.key] {
            if !part.is_empty() {
                write!(f, "{part}: ")?;
            }
        }
        f.write_str(&self.message)
    }
}

/// Everything that is wrong with a configuration; `Display` has a line for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.problems.iter().enumerate() {
            write!(f, "{}{problem}", if at > 0 { "\n" } else { "" })?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// What of the outside is looked at besides the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    Values,
    ValuesAndCertificates,
}

impl Config {
    /// Reads and checks the whole configuration, certificates included.
    ///
    /// - takes: a file or none (defaults); `KEY=VALUE` settings laid over it in their order, the value TOML or a bare
    ///   word; a data directory that replaces `node.data_dir`
    /// - errors: all faults that could be found, each with file and line or argument
    pub fn load(
        file: Option<&Path>,
        sets: &[String],
        data_dir: Option<&Path>,
    ) -> Result<Config, ConfigError> {
        Config::load_checked(file, sets, data_dir, Check::ValuesAndCertificates)
    }

    /// As `load`, without a look at certificates: for tools that serve nobody and may not read the keys.
    pub fn load_values(
        file: Option<&Path>,
        sets: &[String],
        data_dir: Option<&Path>,
    ) -> Result<Config, ConfigError> {
        Config::load_checked(file, sets, data_dir, Check::Values)
    }

    fn load_checked(
        file: Option<&Path>,
        sets: &[String],
        data_dir: Option<&Path>,
        check: Check,
    ) -> Result<Config, ConfigError> {
        let mut problems = Vec::new();
        let mut tree = source::Table::new();
        if let Some(file) = file {
            match read_file(file)
                .and_then(|text| source::parse_file(&file.to_string_lossy(), &text))
            {
                Ok(table) => tree = table,
                Err(faults) => problems.extend(faults),
            }
        }
        for argument in sets {
            match source::parse_set(argument) {
                Ok(table) => source::overlay(&mut tree, table),
                Err(problem) => problems.push(problem),
            }
        }
        // Half of a tree would only be misunderstood.
        if !problems.is_empty() {
            return Err(ConfigError { problems });
        }
        let mut values = Values::of(&tree);
        let reading = reader::read(tree, |top| read::config(top, check));
        let (mut config, problems) = (reading.value, reading.problems);
        values.set_defaults(reading.defaults);
        config.values = values;
        if let Some(data_dir) = data_dir {
            config.node.data_dir = data_dir.to_owned();
        }
        if problems.is_empty() { Ok(config) } else { Err(ConfigError { problems }) }
    }

    /// Every key that a configuration may have, dotted, tables among them.
    pub fn keys() -> Vec<String> {
        reader::read(source::Table::new(), |top| read::config(top, Check::Values)).known
    }

    /// The node's name: as configured, or the host's.
    pub fn node_name(&self) -> String {
        if !self.node.name.is_empty() {
            return self.node.name.clone();
        }
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        match host.trim() {
            "" => "localhost".to_owned(),
            name => name.to_owned(),
        }
    }

    /// The number of shards: as configured, or one for each core that this process may use.
    pub fn shard_count(&self) -> u16 {
        if self.node.shards != 0 {
            return self.node.shards;
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        u16::try_from(cores).unwrap_or(u16::MAX).min(read::SHARDS_MAX)
    }

    /// Where the store is.
    pub fn store_place(&self) -> Place {
        self.completed(&self.storage.place)
    }

    /// The place that an URL names, as it would be if that were `storage.url`.
    ///
    /// - errors: what is wrong with it
    pub fn place_at(&self, url: &str) -> Result<Place, String> {
        read::storage_place(url).map(|place| self.completed(&place))
    }

    fn completed(&self, place: &Place) -> Place {
        match place {
            Place::Sqlite(path) => Place::Sqlite(self.node.data_dir.join(path)),
            Place::Postgres(settings) => {
                let mut settings = settings.clone();
                settings.password_file.clone_from(&self.storage.password_file);
                settings.writers = self.storage.connections;
                Place::Postgres(settings)
            }
        }
    }

    /// Certificates that clients will not take for the domain they are shown for, a clause for each: legal, and worth a
    /// warning.
    ///
    /// - blocking: reads the certificates
    pub fn certificate_warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let mut check = |domain: &str, certificate: &Path, key: &Path| {
            if let Ok(certified) = tls::load_certified(certificate, key)
                && !tls::is_valid_for(&certified, domain)
            {
                warnings.push(format!(
                    "{}: does not name {domain}; clients of that domain will refuse it",
                    certificate.display()
                ));
            }
        };
        if let (Some(certificate), Some(key)) = (&self.tls.certificate, &self.tls.key) {
            for domain in self.domains.iter().filter(|domain| !self.tls.hosts.contains_key(*domain))
            {
                check(domain, certificate, key);
            }
        }
        for (domain, host) in &self.tls.hosts {
            check(domain, &host.certificate, &host.key);
        }
        warnings
    }
}

impl Default for Config {
    fn default() -> Config {
        let reading = reader::read(source::Table::new(), |top| read::config(top, Check::Values));
        let mut config = reading.value;
        config.values.set_defaults(reading.defaults);
        config
    }
}

fn read_file(file: &Path) -> Result<String, Vec<Problem>> {
    let problem = |message: String| {
        vec![Problem { place: file.to_string_lossy().into_owned(), key: String::new(), message }]
    };
    let mut bytes = Vec::new();
    std::fs::File::open(file)
        .and_then(|opened| opened.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| {
            problem(format!(
                "cannot be read: {error}; give the configuration file as --config FILE"
            ))
        })?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(problem("larger than 1 MiB; give a configuration file".into()));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + memchr::memchr_iter(b'\n', valid).count();
        vec![Problem {
            place: format!("{}:{line}", file.display()),
            key: String::new(),
            message: "not UTF-8; save the file as UTF-8".into(),
        }]
    })
}
