//! What every file keeps to.

use crate::{all_sources, none};

/// Files that may lift the ban on unsafe code. Each says at each place why.
const UNSAFE: &[&str] = &[
    "src/frame/codec.rs",
    "src/main.rs",
    "src/runtime/clock.rs",
    "src/runtime/executor.rs",
    "src/runtime/notify.rs",
    "src/runtime/preflight.rs",
    "src/runtime/process.rs",
    "src/runtime/socket.rs",
    "src/store/sqlite/mod.rs",
    "tests/node/restrict.rs",
    "tools/load/src/sys.rs",
];

/// Put together here, so that this file does not hold them.
const UNFINISHED: &[&str] = &[
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
    concat!("FIX", "ME"),
    concat!("XX", "X:"),
    concat!("#[ig", "nore"),
    concat!("#[al", "low("),
    concat!("#![al", "low("),
];

#[test]
fn every_file_says_what_it_is() {
    let faults: Vec<String> = all_sources()
        .into_iter()
        .filter(|source| !source.text.starts_with("//! "))
        .map(|source| format!("{}: does not begin with //!", source.path))
        .collect();
    none(&faults);
}

#[test]
fn unsafe_code_is_where_it_is_known_to_be() {
    let lifted = concat!("unsafe", "_code");
    let found: Vec<String> = all_sources()
        .into_iter()
        .filter(|source| source.text.contains(&format!("expect({lifted}")))
        .map(|source| source.path)
        .collect();
    assert_eq!(found, sorted(UNSAFE), "the list in tests/tidy/sources.rs names the files");
}

fn sorted(list: &[&str]) -> Vec<String> {
    // As the folders are read: src, tests, benches, tools.
    let rank =
        |path: &str| ["src", "tests", "benches", "tools"].iter().position(|f| path.starts_with(f));
    let mut list: Vec<String> = list.iter().map(|path| (*path).to_owned()).collect();
    list.sort_by_key(|path| (rank(path), path.clone()));
    list
}

#[test]
fn nothing_is_left_unfinished_or_switched_off() {
    let mut faults = Vec::new();
    for source in all_sources() {
        for (number, line) in source.text.lines().enumerate() {
            for word in UNFINISHED {
                // Fuzz targets and their replay share modules of which each takes another part: nothing can be expected.
                let is_shared =
                    *word == concat!("#[al", "low(") && source.path.starts_with("tests/fuzz/");
                if line.contains(word) && !is_shared {
                    faults.push(format!("{}:{}: {word}", source.path, number + 1));
                }
            }
        }
    }
    none(&faults);
}
