//! The text of the settings: a tree of values that remember where they were written.
//!
//! A file and any number of `--set KEY=VALUE` become one tree, the later over the earlier. What the values mean is
//! `reader`'s matter.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::Problem;

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// `FILE:LINE`.
    File { name: Arc<str>, line: usize },
    /// The argument as it was given.
    Set(Arc<str>),
    /// Not written: the default stands.
    Default,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File { name, line } => write!(f, "{name}:{line}"),
            Place::Set(argument) => write!(f, "--set {argument}"),
            Place::Default => write!(f, "defaults"),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(String),
    /// `None`: outside of 64 bits.
    Integer(Option<i64>, String),
    Boolean(bool),
    /// A fraction or a date: no key takes one.
    Other(String),
    List(Vec<Node>),
    Table(Table),
}

pub(super) type Table = BTreeMap<String, Node>;

impl fmt::Display for Value {
    /// As TOML, cut so that a message stays one readable line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Text(text) if text.chars().count() > 60 => {
                write!(f, "{:?}", text.chars().take(60).chain("…".chars()).collect::<String>())
            }
            Value::Text(text) => write!(f, "{text:?}"),
            Value::Integer(_, text) | Value::Other(text) => f.write_str(text),
            Value::Boolean(yes) => write!(f, "{yes}"),
            Value::List(items) => {
                f.write_str("[")?;
                for (at, item) in items.iter().take(3).enumerate() {
                    write!(f, "{}{}", if at > 0 { ", " } else { "" }, item.value)?;
                }
                f.write_str(if items.len() > 3 { ", …]" } else { "]" })
            }
            Value::Table(_) => f.write_str("a table"),
        }
    }
}

/// Reads a file's text.
///
/// - errors: one problem per line that is not TOML
pub(super) fn parse_file(name: &str, text: &str) -> Result<Table, Vec<Problem>> {
    let lines = Lines::of(text);
    let name: Arc<str> = name.into();
    let place = |at: usize| Place::File { name: name.clone(), line: lines.at(at) };
    let (table, mut errors) = DeTable::parse_recoverable(text);
    let start = |error: &toml::de::Error| error.span().map_or(0, |span| span.start);
    errors.sort_by_key(start);
    let mut problems: Vec<Problem> = Vec::new();
    for error in errors {
        let place = place(start(&error)).to_string();
        // One fault makes the parser stumble more than once; the first on a line is the cause.
        if problems.last().is_none_or(|last| last.place != place) {
            let fault = error.message().replace('\n', ", ");
            let message =
                format!("not TOML: {fault}; write KEY = VALUE, with texts in double quotes");
            problems.push(Problem { place, key: String::new(), message });
        }
    }
    if problems.is_empty() { Ok(convert_table(table.into_inner(), &place)) } else { Err(problems) }
}

/// Reads one `KEY=VALUE`: the value is TOML; what is not and does not look like it is taken as a text.
pub(super) fn parse_set(argument: &str) -> Result<Table, Problem> {
    // Shown in messages, which are one line each, and without secrets.
    let source: Arc<str> = match argument.split_once('=') {
        Some((key, _)) if key.trim().starts_with("components") && argument.contains("secrets") => {
            format!("{}=…", key.trim()).into()
        }
        _ => argument.replace(['\n', '\r'], " ").into(),
    };
    let problem = |message: String| Problem {
        place: Place::Set(source.clone()).to_string(),
        key: String::new(),
        message,
    };
    let Some((key, value)) = argument.split_once('=') else {
        return Err(problem("no \"=\"; write --set c2s.tls=optional".into()));
    };
    let (key, value) = (key.trim(), value.trim());
    if argument.contains(['\n', '\r']) {
        return Err(problem("more than one line; give each key its own --set".into()));
    }
    let place = |_: usize| Place::Set(source.clone());
    if let Ok(table) = DeTable::parse(&format!("{key} = {value}")) {
        return Ok(convert_table(table.into_inner(), &place));
    }
    let bare_key = format!("{key} = 0");
    let Ok(table) = DeTable::parse(&bare_key) else {
        return Err(problem(format!(
            "{key:?} is not a key; write it as SECTION.KEY, as in c2s.tls"
        )));
    };
    if value.starts_with(['[', '{', '"', '\'']) {
        return Err(problem(format!(
            "the value is not TOML; quote the argument for the shell, as in --set '{key}={}'",
            if value.starts_with('[') { "[\"127.0.0.1:5222\"]" } else { "\"text\"" }
        )));
    }
    let mut table = convert_table(table.into_inner(), &place);
    put_text(&mut table, value);
    Ok(table)
}

/// Puts `value` where the only leaf of `table` is.
fn put_text(table: &mut Table, value: &str) {
    for node in table.values_mut() {
        match &mut node.value {
            Value::Table(inner) => put_text(inner, value),
            leaf => *leaf = Value::Text(value.to_owned()),
        }
    }
}

/// Lays `upper` over `lower`: tables are joined, anything else replaces what was there.
pub(super) fn overlay(lower: &mut Table, upper: Table) {
    for (key, node) in upper {
        match (lower.get_mut(&key), node) {
            (
                Some(Node { value: Value::Table(below), .. }),
                Node { value: Value::Table(above), .. },
            ) => overlay(below, above),
            (_, node) => {
                lower.insert(key, node);
            }
        }
    }
}

fn convert_table(table: DeTable<'_>, place: &dyn Fn(usize) -> Place) -> Table {
    table
        .into_iter()
        .map(|(key, value)| {
            let at = key.span().start;
            let node = Node { place: place(at), value: convert(value.into_inner(), place) };
            (key.into_inner().into_owned(), node)
        })
        .collect()
}

fn convert(value: DeValue<'_>, place: &dyn Fn(usize) -> Place) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Integer(number) => Value::Integer(
            i64::from_str_radix(number.as_str(), number.radix()).ok(),
            number.to_string(),
        ),
        DeValue::Float(number) => Value::Other(number.to_string()),
        DeValue::Boolean(yes) => Value::Boolean(yes),
        DeValue::Datetime(date) => Value::Other(date.to_string()),
        DeValue::Array(items) => Value::List(
            items
                .into_iter()
                .map(|item| Node {
                    place: place(item.span().start),
                    value: convert(item.into_inner(), place),
                })
                .collect(),
        ),
        DeValue::Table(table) => Value::Table(convert_table(table, place)),
    }
}

/// Where the lines of a text start.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Lines {
        let ends = text.bytes().enumerate().filter(|&(_, byte)| byte == b'\n');
        Lines(std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect())
    }

    /// The line, from 1, of a byte offset.
    fn at(&self, offset: usize) -> usize {
        self.0.partition_point(|&start| start <= offset)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_set_takes_toml_and_bare_words() {
        let text = |argument: &str| match &parse_set(argument).unwrap()["a"].value {
            Value::Table(table) => table["b"].value.to_string(),
            other => other.to_string(),
        };
        assert_eq!(text("a.b=optional"), "\"optional\"");
        assert_eq!(text("a.b=sqlite:x y.db"), "\"sqlite:x y.db\"");
        assert_eq!(text("a.b = [\"x\"]"), "[\"x\"]");
        assert_eq!(text("a=64"), "64");
        assert_eq!(text("a=true"), "true");
        assert_eq!(text("a="), "\"\"");
    }

    #[test]
    fn a_set_that_the_shell_spoilt_says_so() {
        let message = parse_set("c2s.listen=[127.0.0.1:0]").unwrap_err().to_string();
        assert!(message.contains("quote the argument for the shell"), "{message}");
        assert!(parse_set("c2s.tls").unwrap_err().message.contains("no \"=\""));
        assert!(parse_set("c2s tls=1").unwrap_err().message.contains("is not a key"));
        assert!(parse_set("a=1\nb=2").unwrap_err().message.contains("more than one line"));
    }

    #[test]
    fn values_know_their_line() {
        let table = parse_file("x.toml", "# one\na = 1\n[b]\nc = [\n 1,\n]\n").unwrap();
        assert_eq!(table["a"].place.to_string(), "x.toml:2");
        let Value::Table(b) = &table["b"].value else { panic!("not a table") };
        assert_eq!(b["c"].place.to_string(), "x.toml:4");
    }

    #[test]
    fn each_line_that_is_not_toml_is_one_problem() {
        let problems = parse_file("x.toml", "a = \nb = 2\nc = = 3\n").unwrap_err();
        let places: Vec<_> = problems.iter().map(|problem| problem.place.as_str()).collect();
        assert_eq!(places, ["x.toml:1", "x.toml:3"]);
    }

    #[test]
    fn overlays_join_tables_and_replace_values() {
        let mut lower = parse_file("x.toml", "[a]\nb = 1\nc = [1]\n").unwrap();
        overlay(&mut lower, parse_set("a.c=[2]").unwrap());
        overlay(&mut lower, parse_set("d.e=3").unwrap());
        let Value::Table(a) = &lower["a"].value else { panic!("not a table") };
        assert_eq!(a["b"].value.to_string(), "1");
        assert_eq!(a["c"].value.to_string(), "[2]");
        assert!(lower.contains_key("d"));
    }
}
