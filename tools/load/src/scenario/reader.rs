//! Typed reading of a scenario's tables: each key is asked for once, all faults are collected with their line, and a key
//! that nobody asked for is refused with those that are known.

use std::cell::RefCell;
use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One thing that is wrong with a scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// From 1.
    pub line: usize,
    /// Dotted, as `population.message.rate`; empty where no key is at fault.
    pub key: String,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// Where faults go; one per file.
pub(super) struct Faults<'t> {
    text: &'t str,
    list: RefCell<Vec<Fault>>,
}

impl<'t> Faults<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, list: RefCell::default() }
    }

    pub(super) fn add(&self, at: usize, key: &str, message: impl Into<String>) {
        let before = &self.text.as_bytes()[..at.min(self.text.len())];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        self.list.borrow_mut().push(Fault { line, key: key.to_owned(), message: message.into() });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.borrow().is_empty()
    }

    /// By line.
    pub(super) fn into_list(self) -> Vec<Fault> {
        let mut list = self.list.into_inner();
        list.sort_by_key(|fault| fault.line);
        list
    }
}

/// A table of the file.
pub(super) struct Section<'f, 't> {
    faults: &'f Faults<'t>,
    table: &'f DeTable<'t>,
    /// Dotted; empty at the top.
    path: String,
    /// Where the table begins.
    at: usize,
    asked: RefCell<Vec<&'static str>>,
}

/// A value with the place for faults about it.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) at: usize,
}

impl<'f, 't> Section<'f, 't> {
    pub(super) fn top(table: &'f Spanned<DeTable<'t>>, faults: &'f Faults<'t>) -> Self {
        let asked = RefCell::default();
        Self { faults, table: table.get_ref(), path: String::new(), at: 0, asked }
    }

    fn inner(&self, key: &str, table: &'f DeTable<'t>, span: Range<usize>) -> Self {
        let path = self.path_of(key);
        Self { faults: self.faults, table, path, at: span.start, asked: RefCell::default() }
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Reports a fault of a key of this table, at its value if it is there.
    pub(super) fn fault(&self, key: &str, message: impl Into<String>) {
        let at = self.table.get(key).map_or(self.at, |value| value.span().start);
        self.faults.add(at, &self.path_of(key), message);
    }

    fn ask(&self, key: &'static str) -> Option<&'f Spanned<DeValue<'t>>> {
        self.asked.borrow_mut().push(key);
        self.table.get(key)
    }

    /// Reads one key with `read`, which says in words what the value is not.
    pub(super) fn value<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&DeValue<'t>) -> Result<T, String>,
    ) -> Option<At<T>> {
        let value = self.ask(key)?;
        match read(value.get_ref()) {
            Ok(read) => Some(At { value: read, at: value.span().start }),
            Err(message) => {
                self.fault(key, message);
                None
            }
        }
    }

    pub(super) fn text(&self, key: &'static str) -> Option<String> {
        self.value(key, |value| text(value).map(str::to_owned)).map(|at| at.value)
    }

    /// One of several words.
    pub(super) fn choice<T: Copy>(&self, key: &'static str, default: T, words: &[(&str, T)]) -> T {
        let read = |value: &DeValue<'t>| {
            let word = text(value)?;
            let found = words.iter().find(|(name, _)| *name == word);
            found.map(|(_, value)| *value).ok_or_else(|| {
                let known: Vec<_> = words.iter().map(|(name, _)| format!("\"{name}\"")).collect();
                format!("\"{word}\" is none of {}", known.join(", "))
            })
        };
        self.value(key, read).map_or(default, |at| at.value)
    }

    pub(super) fn boolean(&self, key: &'static str, default: bool) -> bool {
        let read = |value: &DeValue<'t>| match value {
            DeValue::Boolean(yes) => Ok(*yes),
            _ => Err("is neither true nor false".to_owned()),
        };
        self.value(key, read).map_or(default, |at| at.value)
    }

    pub(super) fn integer(
        &self,
        key: &'static str,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> u64 {
        let read = |value: &DeValue<'t>| {
            let number = match value {
                DeValue::Integer(digits) if digits.radix() == 10 => {
                    digits.as_str().replace('_', "").parse().ok()
                }
                _ => None,
            };
            number.filter(|number| range.contains(number)).ok_or_else(|| {
                format!("is not a whole number from {} to {}", range.start(), range.end())
            })
        };
        self.value(key, read).map_or(default, |at| at.value)
    }

    /// A number, whole or not.
    pub(super) fn number(&self, key: &'static str, range: RangeInclusive<f64>) -> Option<f64> {
        self.value(key, |value| number(value, &range)).map(|at| at.value)
    }

    /// A duration as `"500ms"`.
    pub(super) fn duration(
        &self,
        key: &'static str,
        range: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let read = |value: &DeValue<'t>| {
            let length = text(value).and_then(duration).map_err(
                |_| "is not a duration; write a number and its unit, as \"500ms\", \"10s\", \"5m\"",
            )?;
            if range.contains(&length) {
                Ok(length)
            } else {
                Err(format!("is not within {:?} to {:?}", range.start(), range.end()))
            }
        };
        self.value(key, read).map(|at| at.value)
    }

    /// A list of texts, each with its place.
    pub(super) fn texts(&self, key: &'static str) -> Vec<At<String>> {
        let read = |value: &DeValue<'t>| match value {
            DeValue::Array(list) => list
                .iter()
                .map(|item| {
                    let value = text(item.get_ref())?.to_owned();
                    Ok(At { value, at: item.span().start })
                })
                .collect(),
            _ => Err("is not a list; write [\"...\"]".to_owned()),
        };
        self.value(key, read).map(|at| at.value).unwrap_or_default()
    }

    /// The table `[key]`, if it is there.
    pub(super) fn table(&self, key: &'static str) -> Option<Section<'f, 't>> {
        let value = self.ask(key)?;
        match value.get_ref() {
            DeValue::Table(table) => Some(self.inner(key, table, value.span())),
            _ => {
                self.fault(key, format!("is not a table; write [{}]", self.path_of(key)));
                None
            }
        }
    }

    /// The tables `[[key]]`.
    pub(super) fn tables(&self, key: &'static str) -> Vec<Section<'f, 't>> {
        let Some(value) = self.ask(key) else {
            return Vec::new();
        };
        let DeValue::Array(list) = value.get_ref() else {
            self.fault(key, format!("is not a list of tables; write [[{}]]", self.path_of(key)));
            return Vec::new();
        };
        let table = |item: &'f Spanned<DeValue<'t>>| match item.get_ref() {
            DeValue::Table(table) => Some(self.inner(key, table, item.span())),
            _ => {
                self.fault(key, format!("is not a table; write [[{}]]", self.path_of(key)));
                None
            }
        };
        list.iter().filter_map(table).collect()
    }

    /// Refuses what nobody asked for. Called when the table has been read.
    pub(super) fn close(&self) {
        let asked = self.asked.borrow();
        for key in self.table.keys() {
            let name: &str = key.get_ref();
            if !asked.contains(&name) {
                let mut known = asked.clone();
                known.sort_unstable();
                let message = format!("is not known here; known are {}", known.join(", "));
                self.faults.add(key.span().start, &self.path_of(name), message);
            }
        }
    }
}

fn text<'v>(value: &'v DeValue<'_>) -> Result<&'v str, String> {
    match value {
        DeValue::String(text) => Ok(text),
        _ => Err("is not a text in quotes".to_owned()),
    }
}

/// Reads a number, whole or not, within a range.
pub(super) fn number(value: &DeValue<'_>, range: &RangeInclusive<f64>) -> Result<f64, String> {
    let digits = match value {
        DeValue::Integer(digits) if digits.radix() == 10 => Some(digits.as_str()),
        DeValue::Float(digits) => Some(digits.as_str()),
        _ => None,
    };
    let number = digits.and_then(|digits| digits.replace('_', "").parse::<f64>().ok());
    number
        .filter(|number| range.contains(number))
        .ok_or_else(|| format!("is not a number from {} to {}", range.start(), range.end()))
}

/// Reads `10s`, `1.5s`, `500ms`, `250us`, `5m`, `2h`.
///
/// - errors: another unit, no number, negative, more than 366 days
pub fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let unit = match unit.trim() {
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("\"{text}\" has no unit of us, ms, s, m, h")),
    };
    let seconds = digits.parse::<f64>().map_err(|_| format!("\"{text}\" has no number"))? * unit;
    if seconds > 366.0 * 86400.0 {
        return Err(format!("\"{text}\" is more than a year"));
    }
    Duration::try_from_secs_f64(seconds).map_err(|error| format!("\"{text}\": {error}"))
}
