//! The keys, their defaults and their rules: the tree of settings to a `Config`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::cluster::cluster;
use super::reader::Section;
use super::*;
use crate::store::{Place, postgres};
use crate::stream::component::Secret;
use crate::xmpp::jid::BareJid;

/// More shards than this are a slip of the pen on any machine of today.
pub(super) const SHARDS_MAX: u16 = 1024;

pub(super) fn config(top: &mut Section<'_>, check: Check) -> Config {
    let domains = domains(top);
    let storage = top.section("storage", |s| storage(s, check));
    let node = top.section("node", node);
    let c2s = top.section("c2s", c2s);
    let cluster = top.section("cluster", |s| cluster(s, &storage.place));
    let components = top.section("components", |s| components(s, &domains));
    let federation = {
        let of_components = components.secrets.iter().map(|one| one.domain.to_string());
        let ours: Vec<String> = domains.iter().cloned().chain(of_components).collect();
        top.section("federation", |s| {
            let federation = super::federation::federation(s, &ours, check);
            if federation.enabled {
                federation_fits(s, &federation, &c2s);
            }
            federation
        })
    };
    Config {
        admins: top.list("admins", &[], &["admin@example.org"], administrator),
        node,
        c2s,
        tls: top.section("tls", |s| tls(s, &domains, check)),
        auth: top.section("auth", |s| Auth {
            // RFC 7677 §4 has 4096 as the least.
            scram_iterations: s.integer("scram_iterations", 10_000, 4096..=1_000_000),
            scram_sha512: s.choice(
                "scram_sha512",
                &[("auto", Sha512::Auto), ("on", Sha512::On), ("off", Sha512::Off)],
            ),
        }),
        access: top.section("access", |s| access(s, &domains)),
        registration: top.section("registration", |s| Registration {
            in_band: s.boolean("in_band", false),
            per_network_per_h: s.integer("per_network_per_h", 5, 1..=1_000_000),
            per_node_per_h: s.integer("per_node_per_h", 100, 1..=1_000_000),
            quarantine_s: s.integer("quarantine_s", 0, 0..=31_536_000),
            quarantine_strangers_per_h: s.integer("quarantine_strangers_per_h", 10, 0..=1_000),
        }),
        archive: top.section("archive", |s| archive(s, &domains)),
        cluster,
        storage,
        components,
        federation,
        http: top.section("http", |s| Http {
            listen: s.off_list("listen"),
            tls_listen: s.off_list("tls_listen"),
        }),
        admin: top.section("admin", admin),
        features: super::features::settings(top),
        limits: top.section("limits", Limits::read),
        log: top.section("log", log),
        latency: top.section("latency", |s| Latency {
            enabled: s.boolean("enabled", true),
            log: s.text("log", "latency.hlog"),
            interval_s: s.integer("interval_s", 10, 1..=3_600),
        }),
        domains,
        values: Values::default(),
    }
}

fn domains(top: &mut Section<'_>) -> Vec<String> {
    let domains = top.list("domains", &["localhost"], &["example.org"], domain);
    let mut seen = BTreeSet::new();
    if let Some(twice) = domains.iter().find(|domain| !seen.insert(domain.as_str())) {
        top.problem("domains", format!("{twice:?} is there twice; write it once"));
    } else if domains.is_empty() {
        let remedy = top.remedy("domains", "[\"example.org\"]");
        top.problem("domains", format!("a server without a domain serves nobody; {remedy}"));
    }
    domains
}

pub(super) fn domain(text: &str) -> Result<String, String> {
    match BareJid::from_parts(None, text) {
        Ok(jid) => Ok(jid.as_str().to_owned()),
        Err(fault) => Err(format!("is not a domain ({fault})")),
    }
}

fn administrator(text: &str) -> Result<BareJid, String> {
    match BareJid::parse(text) {
        Ok(jid) if jid.local().is_some() => Ok(jid),
        Ok(_) => Err("has no name before the domain".to_owned()),
        Err(fault) => Err(format!("is no address of an account ({fault})")),
    }
}

fn node(s: &mut Section<'_>) -> Node {
    Node {
        name: s.parsed("name", "", "node-1", |name| {
            // It is shown in metrics, logs and beacons.
            match name.len() <= 63 && !name.chars().any(|c| c.is_control() || c.is_whitespace()) {
                true => Ok(name.to_owned()),
                false => Err("is longer than 63 bytes or has blanks"),
            }
        }),
        shards: s.integer("shards", 0, 0..=SHARDS_MAX),
        data_dir: s.parsed("data_dir", "corefire-data", "corefire-data", path),
    }
}

pub(super) fn path(text: &str) -> Result<PathBuf, &'static str> {
    match text.is_empty() || text.contains('\0') {
        true => Err("is not a path"),
        false => Ok(PathBuf::from(text)),
    }
}

pub(super) fn optional_path(text: &str) -> Result<Option<PathBuf>, &'static str> {
    match text {
        "" => Ok(None),
        text => path(text).map(Some),
    }
}

fn c2s(s: &mut Section<'_>) -> C2s {
    let listen = s.list("listen", &["127.0.0.1:5222"], &["127.0.0.1:5222"], address);
    let direct = s.list("direct_tls_listen", &["127.0.0.1:5223"], &["127.0.0.1:5223"], address);
    let mut seen = BTreeSet::new();
    for (key, addresses) in [("listen", &listen), ("direct_tls_listen", &direct)] {
        for address in addresses.iter().filter(|address| address.port() != 0) {
            if !seen.insert(*address) {
                let message = format!("{address} is listened on twice; write another port");
                s.problem(key, message);
            }
        }
    }
    let redirect = s.parsed("redirect", "off", "off", |text| match text {
        "off" => Ok(Redirect::Off),
        "owner" => Ok(Redirect::Owner),
        _ => Err("is not one of \"off\", \"owner\""),
    });
    let proxy_protocol = s.boolean("proxy_protocol", false);
    let proxy_from = s.list("proxy_from", &[], &["10.0.0.0/8"], str::parse::<Network>);
    if proxy_protocol && proxy_from.is_empty() {
        let remedy = s.remedy("proxy_from", "[\"10.0.0.0/8\"]");
        s.problem(
            "proxy_protocol",
            format!("no balancer may connect: proxy_from is empty; {remedy}"),
        );
    }
    C2s {
        listen,
        direct_tls_listen: direct,
        tls: s
            .choice("tls", &[("required", TlsPolicy::Required), ("optional", TlsPolicy::Optional)]),
        proxy_protocol,
        proxy_from,
        redirect,
    }
}

pub(super) fn address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| "is not an IP address with a port")
}

fn admin(s: &mut Section<'_>) -> Admin {
    Admin {
        listen: s.parsed("listen", "127.0.0.1:5290", "127.0.0.1:5290", |text| match text {
            "" => Ok(None),
            text => address(text).map(Some),
        }),
        hosts: s.list("hosts", &[], &["xmpp-1.example.org"], |text| {
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
            match !text.is_empty() && text.chars().all(is_name) {
                true => Ok(text.to_ascii_lowercase()),
                false => Err("is not a host's name"),
            }
        }),
    }
}

fn archive(s: &mut Section<'_>, domains: &[String]) -> Archive {
    let retention = |s: &mut Section<'_>, otherwise: Retention| Retention {
        days: s.integer("retention_days", otherwise.days, 0..=36_500),
        messages_per_account: s.integer(
            "messages_per_account",
            otherwise.messages_per_account,
            0..=u32::MAX,
        ),
    };
    let enabled = s.boolean("enabled", true);
    let usual = retention(s, Retention { days: 0, messages_per_account: 0 });
    let own = s.each("domains", |s, name| {
        let rules = retention(s, usual);
        let domain = served(s, name, |domain| domains.iter().any(|ours| ours == domain));
        domain.map(|domain| (domain, rules))
    });
    Archive { enabled, retention: usual, domains: own.into_values().flatten().collect() }
}

/// The domain that a table is named after, where it is one of ours.
fn served(s: &mut Section<'_>, name: &str, is_ours: impl Fn(&str) -> bool) -> Option<String> {
    match domain(name) {
        Ok(domain) if is_ours(&domain) => return Some(domain),
        Ok(_) => s.problem_here(format!("{name:?} is not served; add it to domains")),
        Err(fault) => s.problem_here(format!("{name:?} {fault}; write one of domains")),
    }
    None
}

fn tls(s: &mut Section<'_>, domains: &[String], check: Check) -> Tls {
    let (certificate, key) = certificate_pair(s, check);
    let client_ca = s.parsed("client_ca", "", "/etc/corefire/client-ca.pem", optional_path);
    if let Some(path) = &client_ca
        && check == Check::ValuesAndCertificates
        && let Err(fault) = super::tls::load_client_ca(path)
    {
        s.problem(fault.setting.name(), fault.to_string());
    }
    let hosts = s.each("hosts", |s, name| {
        let pair = certificate_pair(s, check);
        let host = match pair {
            (Some(certificate), Some(key)) => Some(HostCertificate { certificate, key }),
            (None, None) => {
                let message = format!(
                    "has neither certificate nor key; write both, or remove [tls.hosts.{name:?}]"
                );
                s.problem_here(message);
                None
            }
            // Told already.
            _ => None,
        };
        let is_below = |ours: &String, domain: &str| {
            domain.strip_suffix(ours.as_str()).is_some_and(|below| below.ends_with('.'))
        };
        let domain = served(s, name, |domain| {
            domains.iter().any(|ours| domain == ours || is_below(ours, domain))
        });
        domain.zip(host)
    });
    Tls { certificate, key, client_ca, hosts: hosts.into_values().flatten().collect() }
}

/// Both or neither; where both are, they must fit.
fn certificate_pair(s: &mut Section<'_>, check: Check) -> (Option<PathBuf>, Option<PathBuf>) {
    let certificate = s.parsed("certificate", "", "/etc/corefire/certificate.pem", optional_path);
    let key = s.parsed("key", "", "/etc/corefire/key.pem", optional_path);
    match (&certificate, &key) {
        (Some(certificate), Some(key)) if check == Check::ValuesAndCertificates => {
            if let Err(fault) = super::tls::load_certified(certificate, key) {
                s.problem(fault.setting.name(), fault.to_string());
            }
        }
        (Some(certificate), None) => {
            let message = lonely(certificate, "key", "\"/path/to/key.pem\"");
            s.problem("certificate", message);
        }
        (None, Some(key)) => {
            let message = lonely(key, "certificate", "\"/path/to/certificate.pem\"");
            s.problem("key", message);
        }
        _ => {}
    }
    (certificate, key)
}

fn lonely(file: &Path, missing: &str, example: &str) -> String {
    format!("{file:?} stands without its {missing}; write {missing} = {example} beside it")
}

fn access(s: &mut Section<'_>, domains: &[String]) -> AccessRules {
    let example = format!("eve@{}", domains.first().map_or("example.org", String::as_str));
    let banned = s.list("banned", &[], &[&example], |text| {
        let ban: Ban = text.parse()?;
        let domain = match &ban {
            Ban::Account(jid) => jid.domain(),
            Ban::Domain(domain) => domain,
            Ban::Network(_) => return Ok(ban),
        };
        match domains.iter().any(|ours| ours == domain) {
            true => Ok(ban),
            false => Err("is of no domain that is served here"),
        }
    });
    AccessRules { banned }
}

fn storage(s: &mut Section<'_>, check: Check) -> Storage {
    const EXAMPLES: &str =
        "\"sqlite:corefire.db\" or \"postgres://corefire@db.example.org/corefire\"";
    let place = s.parsed_unshown("url", "sqlite:corefire.db", EXAMPLES, storage_place);
    let password_file = s.parsed("password_file", "", "/etc/corefire/password", optional_path);
    let connections = s.integer("connections", 2, 1..=8);
    match &place {
        Place::Postgres(settings) if check == Check::ValuesAndCertificates => {
            if let Err(fault) = settings.check_certificates() {
                s.problem("url", fault);
            }
            if let Some(path) = &password_file
                && let Err(fault) = postgres::check_password_file(path)
            {
                s.problem("password_file", fault);
            }
        }
        Place::Sqlite(_) if password_file.is_some() => {
            let remedy = s.remedy("url", "\"postgres://corefire@db.example.org/corefire\"");
            s.problem("password_file", format!("there is no database that asks for it; {remedy}"));
        }
        _ => {}
    }
    Storage {
        place,
        password_file,
        connections,
        ack: s.choice("ack", &[("stored", AckLevel::Stored), ("received", AckLevel::Received)]),
    }
}

pub(super) fn storage_place(text: &str) -> Result<Place, String> {
    if text.starts_with("postgres:") || text.starts_with("postgresql:") {
        return postgres::Settings::parse(text).map(Box::new).map(Place::Postgres);
    }
    let Some(file) = text.strip_prefix("sqlite:") else {
        // Of another program's, it may hold a password.
        let shown = text.split_once("//").map_or(text, |(scheme, _)| scheme);
        return Err(format!("{shown:?} does not start with \"sqlite:\" or \"postgres:\""));
    };
    // sqlite:///var/lib/x.db, as other programs write it.
    let file = file.strip_prefix("//").unwrap_or(file);
    let fault = match file {
        "" => "names no file",
        // It would forget all accounts at each stop.
        ":memory:" => "keeps nothing",
        file if file.contains('\0') => "is not a path",
        file => return Ok(Place::Sqlite(PathBuf::from(file))),
    };
    Err(format!("{text:?} {fault}"))
}

fn components(s: &mut Section<'_>, domains: &[String]) -> Components {
    let listen = s.list("listen", &[], &["127.0.0.1:5347"], address);
    let mut seen = BTreeSet::new();
    let secrets = s.secrets("secrets", |name, secret| {
        let domain = match domain(name) {
            Ok(domain) => domain,
            Err(fault) => {
                return Err(format!("{fault}; write \"bot.example.org\" = \"its secret\""));
            }
        };
        if domains.contains(&domain) {
            return Err(
                "is a domain of the server itself; give the component a domain of its own".into()
            );
        }
        if secret.is_empty() {
            return Err("has an empty secret; write one that nobody guesses".into());
        }
        if !seen.insert(domain.clone()) {
            return Err("is there twice; write it once".into());
        }
        Ok(ComponentAccess { domain: domain.into(), secret: Secret::new(secret) })
    });
    let mut addresses = BTreeSet::new();
    let twice = listen.iter().find(|at| at.port() != 0 && !addresses.insert(**at));
    if let Some(address) = twice {
        let message = format!("{address} is listened on twice; write another port");
        s.problem("listen", message);
    }
    if !listen.is_empty() && secrets.is_empty() {
        let message = "no component may connect; write its secret below [components.secrets], \
                       as in \"bot.example.org\" = \"its secret\"";
        s.problem("listen", message.into());
    }
    Components { listen, secrets }
}

/// What federation and other sections can not have at once.
fn federation_fits(s: &mut Section<'_>, federation: &Federation, c2s: &C2s) {
    let clients: Vec<SocketAddr> =
        [&c2s.listen, &c2s.direct_tls_listen].into_iter().flatten().copied().collect();
    for (key, addresses) in
        [("listen", &federation.listen), ("direct_tls_listen", &federation.direct_tls_listen)]
    {
        let taken = |at: &&SocketAddr| at.port() != 0 && clients.contains(at);
        if let Some(address) = addresses.iter().find(taken) {
            s.problem(
                key,
                format!("{address} is where clients connect ([c2s]); write another port"),
            );
        }
    }
}

fn log(s: &mut Section<'_>) -> Log {
    let levels =
        [LogLevel::Info, LogLevel::Error, LogLevel::Warn, LogLevel::Debug, LogLevel::Trace];
    Log {
        level: s.choice("level", &levels.map(|level| (level.as_str(), level))),
        format: s.choice("format", &[("text", LogFormat::Text), ("json", LogFormat::Json)]),
    }
}
