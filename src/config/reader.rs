//! Typed reading of the tree of settings: each key is asked for once with its default, and all faults are collected.
//!
//! What was asked for is the list of known keys, so that a key nobody asked for is refused with the nearest known one.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;

use super::Problem;
use super::source::{Node, Place, Table, Value};

/// Of one `Config::load`.
pub(super) struct Reader {
    problems: Vec<Problem>,
    /// Every key that was asked for, dotted.
    known: Vec<String>,
    /// The default of each of them that is no table, as TOML.
    defaults: BTreeMap<String, String>,
    unknown: Vec<Unknown>,
}

/// What reading gave.
pub(super) struct Reading<T> {
    pub(super) value: T,
    /// Every fault, unknown keys last.
    pub(super) problems: Vec<Problem>,
    pub(super) known: Vec<String>,
    pub(super) defaults: BTreeMap<String, String>,
}

struct Unknown {
    place: Place,
    section: String,
    name: String,
    /// The keys of that section.
    known: Vec<String>,
}

/// A table of the tree, `[c2s]`, or the top.
pub(super) struct Section<'r> {
    reader: &'r mut Reader,
    /// Dotted; empty at the top.
    path: String,
    place: Place,
    table: Table,
    asked: Vec<String>,
}

/// Reads the whole tree with `read`.
pub(super) fn read<T>(tree: Table, read: impl FnOnce(&mut Section<'_>) -> T) -> Reading<T> {
    let mut reader = Reader {
        problems: Vec::new(),
        known: Vec::new(),
        defaults: BTreeMap::new(),
        unknown: Vec::new(),
    };
    let mut top = Section {
        reader: &mut reader,
        path: String::new(),
        place: Place::Default,
        table: tree,
        asked: Vec::new(),
    };
    let value = read(&mut top);
    top.close();
    reader.judge_unknown();
    let Reader { problems, known, defaults, .. } = reader;
    Reading { value, problems, known, defaults }
}

impl Section<'_> {
    /// Reads the table `key` with `read`; an absent table reads as an empty one.
    pub(super) fn section<T>(&mut self, key: &str, read: impl FnOnce(&mut Section<'_>) -> T) -> T {
        let path = self.path_of(key);
        self.asked.push(key.to_owned());
        let (place, table) = match self.table.remove(key) {
            None => (Place::Default, Table::new()),
            Some(Node { value: Value::Table(table), place }) => (place, table),
            Some(Node { place, value }) => {
                let message = format!("{value} is not a table; write [{path}] and its keys below");
                self.reader.problem(&place, &path, message);
                (place, Table::new())
            }
        };
        let mut section =
            Section { reader: &mut *self.reader, path, place, table, asked: Vec::new() };
        let value = read(&mut section);
        section.close();
        value
    }

    /// The tables in the table `key`, by their free names: `[tls.hosts."example.org"]`.
    pub(super) fn each<T>(
        &mut self,
        key: &str,
        mut read: impl FnMut(&mut Section<'_>, &str) -> T,
    ) -> BTreeMap<String, T> {
        self.reader.known.push(self.path_of(key));
        self.section(key, |inner| {
            let names: Vec<String> = inner.table.keys().cloned().collect();
            let entry = |name: String| {
                let value = inner.section_of_name(&name, &mut read);
                (name, value)
            };
            names.into_iter().map(entry).collect()
        })
    }

    fn section_of_name<T>(
        &mut self,
        name: &str,
        read: &mut impl FnMut(&mut Section<'_>, &str) -> T,
    ) -> T {
        let known = self.reader.known.len();
        let value = self.section(name, |section| read(section, name));
        // The free name is the operator's own and no key to suggest or to document.
        self.reader.known.truncate(known);
        value
    }

    pub(super) fn boolean(&mut self, key: &str, default: bool) -> bool {
        self.ask(key, default, &default.to_string(), default, |value| match value {
            Value::Boolean(yes) => Ok(*yes),
            other => Err(format!("{other} is neither true nor false")),
        })
    }

    pub(super) fn integer<T>(&mut self, key: &str, default: T, range: RangeInclusive<T>) -> T
    where
        T: Copy + Display + PartialOrd + TryFrom<i64>,
    {
        self.ask(key, default, &default.to_string(), default, |value| match value {
            Value::Integer(number, text) => number
                .and_then(|number| T::try_from(number).ok())
                .filter(|number| range.contains(number))
                .ok_or_else(|| {
                    format!("{text} is not within {} to {}", range.start(), range.end())
                }),
            other => Err(format!("{other} is not a whole number")),
        })
    }

    pub(super) fn text(&mut self, key: &str, default: &str) -> String {
        self.parsed(key, default, default, |text| Ok::<_, String>(text.to_owned()))
    }

    /// A text that `parse` understands, or says in a clause why not ("… is not an address").
    ///
    /// `default` is parsed as well, so it must be one that `parse` takes; `example` is what a message tells to write.
    pub(super) fn parsed<T: Clone, E: Display>(
        &mut self,
        key: &str,
        default: &str,
        example: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> T {
        let standard = parse(default).unwrap_or_else(|fault| panic!("default of {key}: {fault}"));
        self.ask(key, standard, &quoted(default), quoted(example), |value| match value {
            Value::Text(text) => parse(text).map_err(|fault| format!("{value} {fault}")),
            other => Err(format!("{other} is not a text in double quotes")),
        })
    }

    /// As `parsed`, of a text that may hold a secret: it is not shown. `example` is TOML.
    pub(super) fn parsed_unshown<T: Clone, E: Display>(
        &mut self,
        key: &str,
        default: &str,
        example: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> T {
        let standard = parse(default).unwrap_or_else(|fault| panic!("default of {key}: {fault}"));
        self.ask(key, standard, &quoted(default), example, |value| match value {
            Value::Text(text) => parse(text).map_err(|fault| fault.to_string()),
            _ => Err("is not a text in double quotes".to_owned()),
        })
    }

    /// One of a few words; the first is the default.
    pub(super) fn choice<T: Copy>(&mut self, key: &str, words: &[(&str, T)]) -> T {
        let known: Vec<String> = words.iter().map(|(word, _)| quoted(word)).collect();
        self.parsed(key, words[0].0, words[0].0, |text| {
            words
                .iter()
                .find(|(word, _)| *word == text)
                .map(|(_, value)| *value)
                .ok_or_else(|| format!("is not one of {}", known.join(", ")))
        })
    }

    /// A list of texts that `parse` understands. All faulty items are told.
    pub(super) fn list<T: Clone, E: Display>(
        &mut self,
        key: &str,
        default: &[&str],
        example: &[&str],
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Vec<T> {
        let standard = default
            .iter()
            .map(|item| parse(item).unwrap_or_else(|fault| panic!("default of {key}: {fault}")))
            .collect();
        let example = quoted_list(example);
        self.ask(key, standard, &quoted_list(default), &example, |value| {
            let Value::List(items) = value else {
                return Err(format!("{value} is not a list"));
            };
            let item = |node: &Node| match &node.value {
                Value::Text(text) => parse(text).map_err(|fault| format!("{} {fault}", node.value)),
                other => Err(format!("{other} is not a text in double quotes")),
            };
            let mut taken = Vec::with_capacity(items.len());
            let mut faults = Vec::new();
            for node in items {
                match item(node) {
                    Ok(value) => taken.push(value),
                    Err(fault) => faults.push(fault),
                }
            }
            if faults.is_empty() { Ok(taken) } else { Err(faults.join(", ")) }
        })
    }

    /// A key of a part that this version does not have: only the value that means *off* is taken.
    pub(super) fn off_list(&mut self, key: &str) -> Vec<String> {
        let value = self.list(key, &[], &[], |text| Ok::<_, String>(text.to_owned()));
        self.refuse_unbuilt(key, !value.is_empty(), "[]");
        value
    }

    /// A table of free names with a secret text each, which is never shown.
    ///
    /// - `take`: of a name and its secret; a fault is told with the place of the entry
    pub(super) fn secrets<T>(
        &mut self,
        key: &str,
        mut take: impl FnMut(&str, &str) -> Result<T, String>,
    ) -> Vec<T> {
        let path = self.path_of(key);
        self.reader.known.push(path.clone());
        self.section(key, |inner| {
            let table = std::mem::take(&mut inner.table);
            let mut taken = Vec::with_capacity(table.len());
            for (name, node) in table {
                let result = match &node.value {
                    Value::Text(text) => take(&name, text),
                    _ => Err("its secret is not a text in double quotes".to_owned()),
                };
                match result {
                    Ok(value) => taken.push(value),
                    Err(fault) => {
                        inner.reader.problem(&node.place, &format!("{path}.{name:?}"), fault);
                    }
                }
            }
            taken
        })
    }

    /// A table of free names with a text each.
    ///
    /// - `example`: what a message tells to write
    /// - `take`: of a name and its text; a fault is told with the place of the entry
    pub(super) fn texts<K: Ord, T>(
        &mut self,
        key: &str,
        example: &str,
        take: impl Fn(&str, &str) -> Result<(K, T), String>,
    ) -> BTreeMap<K, T> {
        let path = self.path_of(key);
        self.reader.known.push(path.clone());
        self.section(key, |inner| {
            let table = std::mem::take(&mut inner.table);
            let mut taken = BTreeMap::new();
            for (name, node) in table {
                let result = match &node.value {
                    Value::Text(text) => take(&name, text),
                    _ => Err("is not a text in double quotes".to_owned()),
                };
                let fault = match result.map(|(key, value)| taken.insert(key, value)) {
                    Ok(None) => continue,
                    Ok(Some(_)) => "is there twice; write it once".to_owned(),
                    Err(fault) => format!("{fault}; write {name:?} = {}", quoted(example)),
                };
                inner.reader.problem(&node.place, &format!("{path}.{name:?}"), fault);
            }
            taken
        })
    }

    fn refuse_unbuilt(&mut self, key: &str, is_on: bool, off: &str) {
        if is_on && let Some(node) = self.table.get(key) {
            let message =
                format!("{} is not in this version; {}", node.value, self.remedy(key, off));
            self.problem(key, message);
        }
    }

    /// Adds a problem with `key`, where it was written.
    pub(super) fn problem(&mut self, key: &str, message: String) {
        let place = self.table.get(key).map_or(&self.place, |node| &node.place).clone();
        let path = self.path_of(key);
        self.reader.problem(&place, &path, message);
    }

    /// Adds a problem with the whole table.
    pub(super) fn problem_here(&mut self, message: String) {
        self.reader.problem(&self.place, &self.path, message);
    }

    /// "write KEY = VALUE", in the way in which the key was written.
    pub(super) fn remedy(&self, key: &str, value: &str) -> String {
        match self.table.get(key).map(|node| &node.place) {
            Some(Place::Set(_)) => {
                let path = self.path_of(key);
                match value.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
                    Some(word) if !word.is_empty() && !word.contains(['"', ' ', '\\']) => {
                        format!("write --set {path}={word}")
                    }
                    _ if value.contains(['"', '[', ' ']) => format!("write --set '{path}={value}'"),
                    _ => format!("write --set {path}={value}"),
                }
            }
            _ => format!("write {key} = {value}"),
        }
    }

    fn ask<T>(
        &mut self,
        key: &str,
        default: T,
        shown: &str,
        example: impl Display,
        take: impl FnOnce(&Value) -> Result<T, String>,
    ) -> T {
        let path = self.path_of(key);
        self.reader.defaults.insert(path.clone(), shown.to_owned());
        self.reader.known.push(path);
        self.asked.push(key.to_owned());
        match self.table.get(key).map(|node| take(&node.value)) {
            None => default,
            Some(Ok(value)) => value,
            Some(Err(fault)) => {
                let message = format!("{fault}; {}", self.remedy(key, &example.to_string()));
                self.problem(key, message);
                default
            }
        }
    }

    fn path_of(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// Whatever nobody asked for is unknown.
    fn close(self) {
        for (name, node) in self.table {
            if !self.asked.contains(&name) {
                let (section, known) = (self.path.clone(), self.asked.clone());
                self.reader.unknown.push(Unknown { place: node.place, section, name, known });
            }
        }
        if !self.path.is_empty() && !self.reader.known.contains(&self.path) {
            self.reader.known.push(self.path);
        }
    }
}

impl Reader {
    fn problem(&mut self, place: &Place, path: &str, message: String) {
        let place = match place {
            Place::Default => String::new(),
            written => written.to_string(),
        };
        self.problems.push(Problem { place, key: path.to_owned(), message });
    }

    /// Done last, when all keys are known.
    fn judge_unknown(&mut self) {
        for unknown in std::mem::take(&mut self.unknown) {
            let Unknown { place, section, name, known } = &unknown;
            let within = |name: &str| {
                if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") }
            };
            let message = match nearest(known, name) {
                Some(meant) => format!("no such key; write {}", within(meant)),
                None => match self.elsewhere(name) {
                    Some(meant) => format!("no such key; write {meant}"),
                    None => format!("no such key; remove it, or write one of {}", known.join(", ")),
                },
            };
            self.problem(place, &within(name), message);
        }
    }

    /// A key of that name in another section.
    fn elsewhere(&self, name: &str) -> Option<&str> {
        let named = |path: &&String| path.rsplit_once('.').is_some_and(|(_, last)| last == name);
        self.known.iter().find(named).map(String::as_str)
    }
}

/// The dotted key of `name` in the table `path`.
pub(super) fn join(path: &str, name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let name =
        if !name.is_empty() && name.chars().all(plain) { name.to_owned() } else { quoted(name) };
    if path.is_empty() { name } else { format!("{path}.{name}") }
}

/// The known name of which `name` is most likely a slip.
fn nearest<'k>(known: &'k [String], name: &str) -> Option<&'k str> {
    known
        .iter()
        .map(|known| (distance(known, name), known))
        .filter(|(distance, known)| *distance <= 1 + known.len() / 4)
        .min()
        .map(|(_, known)| known.as_str())
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}

fn quoted_list(items: &[&str]) -> String {
    let items: Vec<String> = items.iter().map(|item| quoted(item)).collect();
    format!("[{}]", items.join(", "))
}

/// Letters to insert, remove, change or swap with their neighbour. Bounded by the shortness of names: past 64 letters
/// a name is far from all.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().max(b.len()) > 64 {
        return usize::MAX;
    }
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let changed = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let mut least = changed.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    least = least.min(rows[i - 2][j - 2] + 1);
                }
                least
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swap_is_one_slip() {
        assert_eq!(distance("listen", "lsiten"), 1);
        assert_eq!(distance("listen", "listen"), 0);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("shards", "shard"), 1);
    }
}
