//! What bounds a peer is for the operator to move: each bound of a shard and of a stream comes from `[limits]`.

use crate::{none, root};

/// Bounds that are not a key, with the reason.
const FIXED: &[(&str, &str)] = &[
    ("rates", "a group, whose fields are looked at themselves"),
    ("session", "a group likewise"),
    ("account", "a group likewise"),
    ("network", "a group likewise"),
    ("quarantine", "from [registration], with its kin"),
    ("quarantine_strangers", "from [registration] likewise"),
];

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// The text from `start` to the first line that is `}`.
fn part<'a>(text: &'a str, start: &str) -> &'a str {
    let from = text.find(start).unwrap_or_else(|| panic!("{start} is there"));
    let rest = &text[from..];
    &rest[..rest.find("\n}\n").unwrap()]
}

fn fields(text: &str, of: &str) -> Vec<String> {
    let lines = part(text, &format!("pub struct {of} {{")).lines();
    let names = lines.filter_map(|line| line.trim().strip_prefix("pub ")?.split_once(':'));
    let names: Vec<_> = names.map(|(name, _)| name.to_owned()).collect();
    assert!(!names.is_empty(), "{of} has fields");
    names
}

#[test]
fn each_bound_comes_from_the_configuration() {
    let node = read("src/node.rs");
    let wiring: String =
        ["fn policy(", "fn limits(", "fn rates("].map(|it| part(&node, it)).concat();
    let groups = [
        ("src/shard/config.rs", "Limits"),
        ("src/shard/rate.rs", "Rates"),
        ("src/shard/rate.rs", "TrafficRate"),
        ("src/xmpp/xml/framer.rs", "XmlLimits"),
    ];
    let mut faults = Vec::new();
    for (file, group) in groups {
        for field in fields(&read(file), group) {
            if FIXED.iter().any(|(fixed, _)| *fixed == field) {
                continue;
            }
            let set = wiring.lines().any(|line| {
                line.trim().strip_prefix(&format!("{field}: ")).is_some_and(|value| {
                    value.contains("limits.") || value == "rates(config, shards),"
                })
            });
            if !set {
                faults.push(format!(
                    "{file}: {group}::{field} is not set from [limits] in src/node.rs; add a key, or name it here with \
                     the reason"
                ));
            }
        }
    }
    none(&faults);
}

#[test]
fn each_key_says_what_happens_beyond_it() {
    let file = read("config/corefire.toml");
    let start = file.find("\n[limits]\n").unwrap();
    let section = &file[start + 1..];
    let section = &section[..section.find("\n[log]").unwrap()];
    let mut faults = Vec::new();
    for paragraph in section.split("\n\n").skip(1) {
        let (comment, keys): (Vec<&str>, Vec<&str>) =
            paragraph.lines().partition(|line| line.starts_with('#'));
        let comment = comment.join(" ");
        let Some(key) = keys.first().and_then(|line| line.split_once(" = ")) else { continue };
        if key.0 != "exempt" && !comment.contains(" to ") {
            faults.push(format!("[limits] {}: no range", key.0));
        }
    }
    none(&faults);
}
