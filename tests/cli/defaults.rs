//! `config/corefire.toml` documents every key with the default that holds.

use std::path::Path;

use corefire::config::Config;
use toml::{Table, Value};

const DOCUMENTED: &str = include_str!("../../config/corefire.toml");

#[test]
fn the_documented_file_is_the_default() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/corefire.toml");
    let documented = Config::load(Some(&file), &[], None).unwrap();
    // They differ in that one is written down.
    let values = documented.values.clone();
    assert_eq!(documented, Config { values, ..Config::default() });
    assert_eq!(Config::load(None, &[], None).unwrap(), Config::default());
}

/// With the test above: a key that is there, is known, and changes nothing has its default.
#[test]
fn every_key_is_documented() {
    let table: Table = DOCUMENTED.parse().unwrap();
    for key in Config::keys() {
        let mut parts = key.split('.');
        let top = table.get(parts.next().unwrap());
        let found = parts.try_fold(top, |value, part| Some(value?.as_table()?.get(part)));
        assert!(found.flatten().is_some(), "{key} is not in config/corefire.toml");
    }
}

#[test]
fn every_key_has_a_comment() {
    let mut is_commented = false;
    for line in DOCUMENTED.lines() {
        if line.starts_with('#') {
            is_commented = true;
        } else if line.is_empty() {
            is_commented = false;
        } else if !line.starts_with('[') {
            assert!(is_commented, "no comment above: {line}");
        }
    }
}

/// Any other value of any key is either taken and changes the configuration, or refused; none is passed over.
#[test]
fn no_key_is_read_and_dropped() {
    fn other(value: &Value) -> Option<String> {
        Some(match value {
            Value::Boolean(yes) => (!yes).to_string(),
            Value::Integer(number) => (number + 1).to_string(),
            Value::String(text) => format!("{:?}", format!("{text}x")),
            Value::Array(_) => "[\"192.0.2.1:7\"]".to_owned(),
            _ => return None,
        })
    }
    fn walk(table: &Table, path: &str, seen: &mut usize) {
        for (key, value) in table {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            match (value, other(value)) {
                (Value::Table(inner), _) => walk(inner, &path, seen),
                (_, Some(other)) => {
                    *seen += 1;
                    let set = format!("{path}={other}");
                    match Config::load(None, std::slice::from_ref(&set), None) {
                        Ok(config) => assert_ne!(config, Config::default(), "{set}"),
                        Err(error) => assert!(error.to_string().contains(&path), "{set}: {error}"),
                    }
                }
                _ => panic!("{path} has a type that no key has"),
            }
        }
    }
    let mut seen = 0;
    walk(&DOCUMENTED.parse().unwrap(), "", &mut seen);
    assert!(seen > 50, "{seen}");
}
