//! The order of the folders, and what only some of them may name.

use crate::paths::{paths, shipped};
use crate::{none, sources};

/// From the top. Folders of one row do not know each other.
const ROWS: [&[&str]; 11] = [
    &["main", "lib"],
    &["cli"],
    &["node"],
    &["config"],
    &["portable"],
    &["runtime"],
    &["features", "admin"],
    &["federation", "shard"],
    &["cluster", "store", "stream"],
    &["frame"],
    &["xmpp"],
];
/// Below all rows.
const GROUND: &str = "base";

/// What reaches outside of the process, and `std::os` with what there is of it there.
const WORLD: &[&str] = &["env", "fs", "net", "os", "process", "thread"];
/// Of `std::net`, these are plain values; of `std::time`, these are not.
const ADDRESSES: &[&str] = &["IpAddr", "Ipv4Addr", "Ipv6Addr", "SocketAddr"];
const CLOCKS: &[&str] = &["Instant", "SystemTime", "UNIX_EPOCH"];
/// Who may name them.
const OUTSIDE: &[&str] = &[
    "src/main.rs",
    "src/cli/",
    "src/config/",
    "src/node.rs",
    "src/node/",
    "src/runtime/",
    // Called by the storage threads only.
    "src/store/sqlite/",
    "src/store/postgres/",
];
/// Who may name locks: the runtime's side threads, and the store in memory, whose readers and writer share it.
const LOCKING: &[&str] =
    &["src/cli/", "src/node", "src/runtime/", "src/store/sqlite/", "src/store/memory.rs"];
const LOCKS: &[&str] = &["Barrier", "Condvar", "Mutex", "RwLock", "mpsc"];
/// Packages that only these may name.
const PACKAGES: &[(&str, &[&str])] = &[
    ("glommio", &["src/runtime/"]),
    ("foca", &["src/cluster/membership/"]),
    ("hyper", &["src/runtime/"]),
    ("hyper_util", &["src/runtime/"]),
    ("tokio", &["src/runtime/", "src/store/postgres/"]),
    ("tokio_rustls", &["src/runtime/"]),
    ("tokio_postgres", &["src/store/postgres/"]),
    ("tokio_postgres_rustls", &["src/store/postgres/"]),
    ("rustls_native_certs", &["src/runtime/federation/", "src/store/postgres/"]),
    ("webpki", &["src/runtime/federation/"]),
    ("prometheus_client", &["src/admin/"]),
    ("futures_lite", &["src/runtime/"]),
    ("socket2", &["src/runtime/"]),
    ("libc", &["src/main.rs", "src/runtime/"]),
    ("signal_hook", &["src/runtime/"]),
    ("rustls", &["src/runtime/", "src/config/", "src/node", "src/store/postgres/"]),
    ("rusqlite", &["src/store/sqlite/"]),
    ("clap", &["src/cli/"]),
    ("hickory_resolver", &["src/runtime/federation/dns"]),
    ("x509_parser", &["src/runtime/", "src/federation/trust"]),
];

fn row(folder: &str) -> Option<usize> {
    if folder == GROUND {
        return Some(ROWS.len());
    }
    ROWS.iter().position(|row| row.contains(&folder))
}

/// `src/runtime/tls.rs` is in `runtime`, `src/node.rs` in `node`.
fn folder(path: &str) -> &str {
    let path = path.trim_start_matches("src/");
    path.split('/').next().unwrap_or_default().trim_end_matches(".rs")
}

fn is_test_file(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.ends_with("/contract.rs")
}

fn is_in(path: &str, places: &[&str]) -> bool {
    places.iter().any(|place| path.starts_with(place))
}

#[test]
fn folders_import_from_lower_rows_only() {
    let mut faults = Vec::new();
    for source in sources("src") {
        if is_test_file(&source.path) {
            continue;
        }
        let here = folder(&source.path);
        let Some(own) = row(here) else {
            faults.push(format!("{}: {here} has no row in tests/tidy/layers.rs", source.path));
            continue;
        };
        for path in paths(&shipped(&source.text), "crate") {
            let there = path[0].as_str();
            let is_below = match row(there) {
                Some(other) => other > own || there == here,
                // An item of lib.rs itself.
                None => false,
            };
            if !is_below {
                faults.push(format!(
                    "{}: crate::{}, which does not stand below {here}",
                    source.path,
                    path.join("::")
                ));
            }
        }
    }
    none(&faults);
}

#[test]
fn lib_lists_the_folders_in_their_order() {
    let text = std::fs::read_to_string(crate::root().join("src/lib.rs")).unwrap();
    let listed: Vec<usize> = text
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .map(|folder| row(folder).unwrap_or_else(|| panic!("{folder} has no row")))
        // The command line, the node and its configuration wire everything together, in one block.
        .map(|row| row.max(3))
        .collect();
    assert!(listed.is_sorted(), "src/lib.rs lists the rows from the top");
    assert_eq!(listed.last(), Some(&ROWS.len()));
}

#[test]
fn clocks_sockets_files_and_threads_are_named_by_the_shell_only() {
    let mut faults = Vec::new();
    for source in sources("src") {
        if is_test_file(&source.path) || is_in(&source.path, OUTSIDE) {
            continue;
        }
        for path in paths(&shipped(&source.text), "std") {
            let module = path[0].as_str();
            let item = path.get(1).map_or("", String::as_str);
            let is_plain = match module {
                "net" => ADDRESSES.contains(&item),
                "time" => !CLOCKS.contains(&item),
                _ => !WORLD.contains(&module),
            };
            if !is_plain {
                faults.push(format!("{}: std::{}", source.path, path.join("::")));
            }
        }
    }
    none(&faults);
}

#[test]
fn locks_and_channels_are_named_by_side_threads_only() {
    let mut faults = Vec::new();
    for source in sources("src") {
        if is_test_file(&source.path) || is_in(&source.path, LOCKING) {
            continue;
        }
        for path in paths(&shipped(&source.text), "std") {
            if path[0] == "sync" && path.iter().any(|name| LOCKS.contains(&name.as_str())) {
                faults.push(format!("{}: std::{}", source.path, path.join("::")));
            }
        }
    }
    none(&faults);
}

#[test]
fn maps_are_keyed_against_floods() {
    let mut faults = Vec::new();
    for source in sources("src") {
        if source.path == "src/base/hash.rs" {
            continue;
        }
        for path in paths(&shipped(&source.text), "std") {
            if path[0] == "collections" && matches!(path[1].as_str(), "HashMap" | "HashSet") {
                faults.push(format!("{}: std::{}: use base::hash", source.path, path.join("::")));
            }
        }
    }
    none(&faults);
}

#[test]
fn packages_of_the_shell_are_named_by_it_only() {
    let mut faults = Vec::new();
    for source in sources("src") {
        if is_test_file(&source.path) {
            continue;
        }
        let text = shipped(&source.text);
        for (package, places) in PACKAGES {
            let is_named = !paths(&text, package).is_empty()
                || text.contains(&format!("use {package};"))
                || text.contains(&format!("extern crate {package}"));
            if is_named && !is_in(&source.path, places) {
                faults.push(format!("{}: {package}", source.path));
            }
        }
    }
    none(&faults);
}
