//! Paths in Rust text: enough of the grammar for `use` trees and for paths in expressions.

/// The text without comments and without what is compiled for tests only.
pub(crate) fn shipped(text: &str) -> String {
    let mut kept = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim_start().starts_with("#[cfg(test)]") {
            skip_item(line, &mut lines);
            continue;
        }
        // A string with `//` in it loses its end; no path that matters here is in a string.
        kept.push_str(line.split("//").next().unwrap_or_default());
        kept.push('\n');
    }
    kept
}

/// Skips the item behind an attribute: to its semicolon, or to the brace that closes it at the attribute's depth.
fn skip_item<'a>(attribute: &str, lines: &mut impl Iterator<Item = &'a str>) {
    let indent = attribute.len() - attribute.trim_start().len();
    let end = format!("{}}}", " ".repeat(indent));
    let mut line = attribute.trim_start().trim_start_matches("#[cfg(test)]");
    loop {
        let trimmed = line.trim();
        if !trimmed.starts_with("#[") && !trimmed.is_empty() {
            if trimmed.ends_with(';') || trimmed.ends_with('}') {
                return;
            }
            if trimmed.ends_with('{') {
                break;
            }
        }
        let Some(next) = lines.next() else { return };
        line = next;
    }
    for line in lines {
        if line.starts_with(&end) {
            return;
        }
    }
}

/// Every path in `text` that begins with `root`, its trees in braces spread out: `crate::a::{b, c}` gives
/// `["a", "b"]` and `["a", "c"]`.
pub(crate) fn paths(text: &str, root: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let start = format!("{root}::");
    for (at, _) in text.match_indices(&start) {
        let before = text[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        tree(&text[at + start.len()..], &mut Vec::new(), &mut found);
    }
    found
}

/// Reads one tree; gives what is behind it.
fn tree<'a>(text: &'a str, above: &mut Vec<String>, found: &mut Vec<Vec<String>>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = rest.trim_start_matches([',', ' ', '\n', '\t']);
            if let Some(behind) = rest.strip_prefix('}') {
                return behind;
            }
            let before = rest.len();
            rest = tree(rest, above, found);
            if rest.len() == before {
                return rest;
            }
        }
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let (name, mut rest) = text.split_at(end);
    above.push(name.to_owned());
    if let Some(below) = rest.strip_prefix("::") {
        rest = tree(below, above, found);
    } else {
        found.push(above.clone());
        if let Some(renamed) = rest.strip_prefix(" as ") {
            let end = renamed.find(|c: char| !c.is_alphanumeric() && c != '_');
            rest = &renamed[end.unwrap_or(renamed.len())..];
        }
    }
    above.pop();
    rest
}

#[test]
fn trees_are_spread_out() {
    let text = "use crate::a::{b, c::{D, E as F}, G};\nlet x = crate::h::i(my_crate::z::Y);";
    let found: Vec<String> = paths(text, "crate").iter().map(|path| path.join(".")).collect();
    assert_eq!(found, ["a.b", "a.c.D", "a.c.E", "a.G", "h.i"]);
}

#[test]
fn what_is_for_tests_is_left_out() {
    let text = "a // b\n#[cfg(test)]\nuse x::y;\nc\n#[cfg(test)]\n#[expect(z)]\nmod tests {\n    fn f() {\n    }\n}\nd\n";
    assert_eq!(shipped(text), "a \nc\nd\n");
}
