//! What differs between two configurations, key by key, and which of it a running node applies.
//!
//! A new key is taken as applied by a reload. One that the node looks at only when it starts belongs in `AT_START`, and
//! its value into `Config::reloaded`.

use std::collections::BTreeMap;
use std::fmt;

use super::Config;
use super::source::{Table, Value};

/// Keys, or sections, that a node looks at only when it starts.
const AT_START: &[&str] = &[
    "domains",
    "node",
    "c2s.listen",
    "c2s.direct_tls_listen",
    "c2s.redirect",
    "storage.url",
    "storage.password_file",
    "storage.connections",
    "cluster",
    "components.listen",
    "federation.enabled",
    "federation.listen",
    "federation.direct_tls_listen",
    "federation.executors",
    "http",
    "admin",
    "log.format",
    "latency",
];

/// Items of a list that a message names.
const ITEMS: usize = 3;

/// The values as they were written, and the defaults of those that were not; by dotted key.
#[derive(Clone, Default)]
pub struct Values {
    written: BTreeMap<String, Text>,
    defaults: BTreeMap<String, String>,
}

/// A value: whole, to be compared, and in short, to be shown.
#[derive(Clone, PartialEq, Eq)]
struct Text {
    whole: String,
    /// Of a list.
    items: Option<Vec<String>>,
    shown: String,
}

/// A key whose value differs; `Display` is `KEY: OLD -> NEW`, with secrets left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub key: String,
    pub what: String,
    /// A reload applies it; otherwise it waits for a restart.
    pub applied: bool,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.what)
    }
}

/// Configurations are alike by what they say, not by how it is written.
impl PartialEq for Values {
    fn eq(&self, _: &Values) -> bool {
        true
    }
}

impl Eq for Values {}

impl fmt::Debug for Values {
    /// Secrets are among the values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Values({} written)", self.written.len())
    }
}

impl Values {
    pub(super) fn of(tree: &Table) -> Values {
        let mut values = Values::default();
        values.flatten("", tree);
        values
    }

    pub(super) fn set_defaults(&mut self, defaults: BTreeMap<String, String>) {
        self.defaults = defaults;
    }

    fn flatten(&mut self, path: &str, table: &Table) {
        for (name, node) in table {
            let key = super::reader::join(path, name);
            match &node.value {
                Value::Table(inner) => self.flatten(&key, inner),
                value => {
                    self.written.insert(key, Text::of(value));
                }
            }
        }
    }

    /// The whole text of a value, as it stands or by default.
    fn whole(&self, key: &str) -> Option<&str> {
        let written = self.written.get(key).map(|text| text.whole.as_str());
        written.or_else(|| self.defaults.get(key).map(String::as_str))
    }

    fn shown(&self, key: &str) -> &str {
        match self.written.get(key) {
            Some(text) => &text.shown,
            None => self.defaults.get(key).map_or("(nothing)", String::as_str),
        }
    }

    /// A URL may hold a password.
    fn has_secret(&self, key: &str) -> bool {
        key == "storage.url" && self.whole(key).is_some_and(|url| url.contains("//"))
    }

    fn items(&self, key: &str) -> &[String] {
        self.written.get(key).and_then(|text| text.items.as_deref()).unwrap_or_default()
    }
}

impl Text {
    fn of(value: &Value) -> Text {
        let items = match value {
            Value::List(items) => Some(items.iter().map(|item| whole(&item.value)).collect()),
            _ => None,
        };
        Text { whole: whole(value), items, shown: value.to_string() }
    }
}

/// As TOML, uncut.
fn whole(value: &Value) -> String {
    match value {
        Value::Text(text) => format!("{text:?}"),
        Value::List(items) => {
            let items: Vec<String> = items.iter().map(|item| whole(&item.value)).collect();
            format!("[{}]", items.join(", "))
        }
        other => other.to_string(),
    }
}

impl Config {
    /// What `new` has otherwise, in the order of the keys.
    pub fn changes(&self, new: &Config) -> Vec<Change> {
        let (old, new) = (&self.values, &new.values);
        let mut keys: Vec<&String> = old.written.keys().chain(new.written.keys()).collect();
        keys.sort();
        keys.dedup();
        keys.into_iter()
            .filter(|key| old.whole(key) != new.whole(key))
            .map(|key| Change {
                key: key.clone(),
                what: match is_secret(key) || old.has_secret(key) || new.has_secret(key) {
                    true => masked(key, old, new),
                    false => told(key, old, new),
                },
                applied: !is_at_start(key),
            })
            .collect()
    }

    /// What a node runs with after it has reloaded `new`: all of it, but for what it looks at only when it starts.
    pub fn reloaded(&self, new: Config) -> Config {
        let mut values = new.values;
        values.written.retain(|key, _| !is_at_start(key));
        for (key, text) in self.values.written.iter().filter(|(key, _)| is_at_start(key)) {
            values.written.insert(key.clone(), text.clone());
        }
        Config {
            domains: self.domains.clone(),
            node: self.node.clone(),
            c2s: super::C2s {
                listen: self.c2s.listen.clone(),
                direct_tls_listen: self.c2s.direct_tls_listen.clone(),
                redirect: self.c2s.redirect,
                ..new.c2s
            },
            storage: super::Storage { ack: new.storage.ack, ..self.storage.clone() },
            cluster: self.cluster.clone(),
            components: super::Components {
                listen: self.components.listen.clone(),
                ..new.components
            },
            federation: super::Federation {
                enabled: self.federation.enabled,
                listen: self.federation.listen.clone(),
                direct_tls_listen: self.federation.direct_tls_listen.clone(),
                executors: self.federation.executors,
                ..new.federation
            },
            http: self.http.clone(),
            admin: self.admin.clone(),
            log: super::Log { format: self.log.format, ..new.log },
            latency: self.latency.clone(),
            values,
            ..new
        }
    }
}

fn is_at_start(key: &str) -> bool {
    AT_START.iter().any(|start| {
        key.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

/// Values that a message must not show.
fn is_secret(key: &str) -> bool {
    ["secret", "password", "token"].iter().any(|word| {
        key.split('.').any(|part| {
            // "secret_file" names a file.
            part.contains(word) && !part.ends_with("_file") && !part.ends_with("_iterations")
        })
    })
}

fn masked(key: &str, old: &Values, new: &Values) -> String {
    match (old.written.contains_key(key), new.written.contains_key(key)) {
        (false, _) => "set".into(),
        (_, false) => "removed".into(),
        _ => "changed".into(),
    }
}

fn told(key: &str, old: &Values, new: &Values) -> String {
    let (before, after) = (old.items(key), new.items(key));
    if before.len().max(after.len()) <= ITEMS {
        return format!("{} -> {}", old.shown(key), new.shown(key));
    }
    let news = |sign: char, some: &[String], others: &[String]| {
        let differing: Vec<&String> = some.iter().filter(|item| !others.contains(item)).collect();
        let mut told: Vec<String> =
            differing.iter().take(ITEMS).map(|item| format!("{sign}{item}")).collect();
        if differing.len() > ITEMS {
            told.push(format!("{sign}{} more", differing.len() - ITEMS));
        }
        told
    };
    let told = [news('-', before, after), news('+', after, before)].concat();
    if told.is_empty() { "in another order".into() } else { told.join(" ") }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn config(sets: &[&str]) -> Config {
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        Config::load(None, &sets, None).unwrap()
    }

    fn told(old: &[&str], new: &[&str]) -> Vec<String> {
        config(old).changes(&config(new)).iter().map(Change::to_string).collect()
    }

    #[test]
    fn a_change_tells_the_old_value_and_the_new() {
        assert_eq!(told(&[], &["limits.depth=32"]), ["limits.depth: 64 -> 32"]);
        assert_eq!(told(&["log.level=debug"], &[]), ["log.level: \"debug\" -> \"info\""]);
        assert_eq!(
            told(&[], &["c2s.listen=[\"[::1]:0\"]"]),
            ["c2s.listen: [\"127.0.0.1:5222\"] -> [\"[::1]:0\"]"]
        );
    }

    #[test]
    fn the_default_written_out_is_no_change() {
        assert_eq!(told(&[], &["limits.depth=64", "log.level=info"]), [""; 0]);
    }

    #[test]
    fn of_long_lists_only_the_differences_are_told() {
        let old = ["limits.exempt=[\"10.0.0.1\", \"10.0.0.2\", \"10.0.0.3\", \"10.0.0.4\"]"];
        let new = ["limits.exempt=[\"10.0.0.1\", \"10.0.0.3\", \"10.0.0.4\", \"10.0.0.5\"]"];
        assert_eq!(told(&old, &new), ["limits.exempt: -\"10.0.0.2\" +\"10.0.0.5\""]);
    }

    #[test]
    fn secrets_are_not_told() {
        let tree = |text: &str| Values::of(&super::super::source::parse_file("x", text).unwrap());
        let old = tree("[components.secrets]\n\"a.here\" = \"one\"");
        let new = tree("[components.secrets]\n\"a.here\" = \"two\"");
        let config = |values: Values| Config { values, ..Config::default() };
        let changes = config(old.clone()).changes(&config(new));
        assert_eq!(changes[0].to_string(), "components.secrets.\"a.here\": changed");
        assert!(changes[0].applied);
        assert!(!format!("{old:?}").contains("one"));
    }

    #[test]
    fn a_url_of_a_database_is_not_told() {
        let url = ["storage.url=postgres://u:hunter2@localhost/x"];
        assert_eq!(told(&[], &url), ["storage.url: set"]);
        assert_eq!(
            told(&[], &["storage.url=sqlite:x.db"]),
            ["storage.url: \"sqlite:corefire.db\" -> \"sqlite:x.db\""]
        );
    }

    #[test]
    fn what_needs_a_restart_stays_as_it_runs() {
        let old = config(&["node.shards=2"]);
        let new = config(&["node.shards=4", "limits.depth=32"]);
        let applied: Vec<bool> = old.changes(&new).iter().map(|change| change.applied).collect();
        assert_eq!(applied, [true, false]);
        let runs = old.reloaded(new.clone());
        assert_eq!((runs.node.shards, runs.limits.depth), (2, 32));
        // It is told again until the node was restarted.
        let again = runs.changes(&new);
        assert_eq!(again.len(), 1);
        assert_eq!(again[0].key, "node.shards");
    }

    #[test]
    fn each_key_that_waits_for_a_restart_is_one() {
        let keys = Config::keys();
        for start in AT_START {
            assert!(keys.iter().any(|key| key == start), "{start}");
        }
    }
}
