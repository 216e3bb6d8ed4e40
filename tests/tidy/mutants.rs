//! The bugs that `tools/mutants` plants still can be planted.

use std::process::Command;

use crate::{none, root};

/// Fewer prove little.
const FEWEST: usize = 20;

#[test]
fn every_planted_bug_applies_and_says_what_it_is() {
    let folder = root().join("tests/sim/mutants");
    let mut count = 0;
    let mut faults = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let (what, _) = text.split_once('\n').unwrap_or_default();
        if !name.ends_with(".patch") || !what.ends_with(").") {
            faults.push(format!(
                "{name}: its first line is no sentence with the promise that it breaks"
            ));
        }
        let changes = text.lines().filter_map(|line| line.strip_prefix("+++ b/"));
        if changes.clone().any(|path| !path.starts_with("src/")) || changes.count() == 0 {
            faults.push(format!("{name}: a planted bug is in src/"));
        }
        let mut check = Command::new("git");
        check.args(["apply", "--check"]).arg(&path).current_dir(root());
        let output = check.output().unwrap();
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            faults.push(format!("{name}: {why}"));
        }
        count += 1;
    }
    none(&faults);
    assert!(count >= FEWEST, "{count} planted bugs");
}
