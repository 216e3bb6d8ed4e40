//! What stands beside the code: the manifest, the README, the entries of the root.

use std::collections::BTreeSet;
use std::fmt::Write;

use corefire::store::STORE_PARTITIONS;

use crate::{none, root, sources};

/// What the root may hold. Configuration that a tool finds nowhere else, and the folders of the map in README.md.
const ENTRIES: &[&str] = &[
    ".ci",
    ".git",
    ".gitignore",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "benches",
    "config",
    "rustfmt.toml",
    "src",
    "tests",
    "tools",
];

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap()
}

#[test]
fn the_root_holds_what_is_known() {
    // What runs leave there is not under version control.
    let ignored = read(".gitignore");
    let ignored: BTreeSet<&str> =
        ignored.lines().filter_map(|line| line.strip_prefix('/')).collect();
    let faults: Vec<String> = std::fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !ENTRIES.contains(&name.as_str()) && !ignored.contains(name.as_str()))
        .map(|name| format!("{name}: not in the list of tests/tidy/project.rs"))
        .collect();
    none(&faults);
}

#[test]
fn every_package_has_its_reason() {
    let mut faults = Vec::new();
    for manifest in [
        "Cargo.toml",
        "tools/load/Cargo.toml",
        "tools/shard-map/Cargo.toml",
        "tests/fuzz/Cargo.toml",
    ] {
        let mut is_list = false;
        for line in read(manifest).lines() {
            if line.starts_with('[') {
                is_list = line.ends_with("dependencies]");
            } else if is_list && line.contains('=') {
                // The workspace says it once for all its members.
                let is_said = line.contains("# ") || line.contains("workspace = true");
                if !is_said {
                    faults.push(format!("{manifest}: {line}: no # with the reason"));
                }
            }
        }
    }
    none(&faults);
}

/// README tells for each promise which tests hold it.
#[test]
fn every_promise_has_its_tests() {
    let readme = read("README.md");
    let (_, section) = readme.split_once("### What an acknowledgement is worth\n").unwrap();
    let (section, _) = section.split_once("\n### ").unwrap();
    let sources: Vec<_> =
        ["src", "tests"].into_iter().flat_map(sources).map(|source| source.text).collect();
    let mut faults = Vec::new();
    let promises: Vec<&str> = section.split("\n**R").skip(1).collect();
    assert_eq!(promises.len(), 7, "R1 to R7");
    for promise in promises {
        let is_name = |word: &&str| word.matches('_').count() > 2 && !word.contains(' ');
        let named: Vec<&str> = promise.split('`').skip(1).step_by(2).filter(is_name).collect();
        if named.is_empty() && !promise.contains("no rooms in this version") {
            faults.push(format!("R{}: no test", &promise[..1]));
        }
        for name in named {
            let start = format!("fn {name}(");
            if !sources.iter().any(|text| text.contains(&start)) {
                faults.push(format!("R{}: there is no test {name}", &promise[..1]));
            }
        }
    }
    none(&faults);
}

/// `UPDATE=1 cargo test --test tidy` writes the table.
#[test]
fn the_table_of_specifications_is_what_the_features_say() {
    const START: &str = "<!-- specs -->\n";
    const END: &str = "<!-- /specs -->";
    let readme = read("README.md");
    let found = readme
        .split_once(START)
        .and_then(|(before, rest)| Some((before, rest.split_once(END)?)))
        .map(|(before, (table, after))| (before, table, after));
    let Some((before, table, after)) = found else {
        panic!("README.md has no lines {START}and {END} for the table of specifications");
    };
    let wanted = specifications();
    if std::env::var_os("UPDATE").is_some() {
        let text = format!("{before}{START}{wanted}{END}{after}");
        std::fs::write(root().join("README.md"), text).unwrap();
    } else {
        assert_eq!(table, wanted, "run: UPDATE=1 cargo test --test tidy");
    }
}

fn specifications() -> String {
    let mut rows: Vec<(String, String)> = Vec::new();
    for manifest in corefire::features::manifests() {
        for spec in manifest.specs {
            let file = format!("src/features/{}.rs", manifest.name);
            let folder = format!("src/features/{}/", manifest.name);
            let place = if root().join(&file).exists() { file } else { folder };
            assert!(root().join(&place).exists(), "{place}: no such feature");
            let left_out = spec.left_out.replace('|', "\\|").replace('<', "\\<");
            let row = format!("| {} | {} | `{place}` | {left_out} |", spec.name, spec.version);
            rows.push((spec.name.to_owned(), row.replace("|  |", "| |")));
        }
    }
    rows.sort();
    let mut table =
        String::from("| specification | version | in | left out |\n|---|---|---|---|\n");
    for (_, row) in rows {
        writeln!(table, "{row}").unwrap();
    }
    table
}

#[test]
fn store_and_placement_cut_the_accounts_into_the_same_parts() {
    assert_eq!(STORE_PARTITIONS, 64, "rows on disk are found by it: it never changes");
    // The placement has its own, since folders of one row do not know each other.
    let placement = read("src/cluster/placement.rs");
    assert!(placement.contains("const STORE_PARTITIONS: u16 = 64;"));
    let known = corefire::cluster::placement::store_partition(u64::MAX);
    assert_eq!(known, STORE_PARTITIONS - 1);
}
