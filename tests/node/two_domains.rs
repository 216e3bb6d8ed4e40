//! The walk of README's "Other domains", as a newcomer runs it. Where Python or OpenSSL is not installed the tests say so
//! and do nothing; in CI they must be there.

use std::path::Path;
use std::process::{Command, Stdio};

/// What it prints of the first message, in this order.
const WAY: [&str; 5] = [
    "== alice@north.example writes to bob@south.example",
    "alice > | <message to='bob@south.example'",
    "DNS | SRV  _xmpps-server._tcp.south.example?",
    "DNS | A    xmpp.south.example?",
    "bob < | <message",
];

fn runs(program: &str, argument: &str) -> bool {
    let mut command = Command::new(program);
    command.arg(argument).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn walk(arguments: &[&str]) -> Option<String> {
    if !runs("python3", "--version") || !runs("openssl", "version") {
        assert!(std::env::var_os("CI").is_none(), "python3 and openssl must be installed in CI");
        eprintln!("python3 or openssl is not installed: skipped");
        return None;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/two-domains");
    let mut command = Command::new("python3");
    command.arg(script).args(["--binary", env!("CARGO_BIN_EXE_corefire")]).args(arguments);
    let done = command.stdin(Stdio::null()).output().unwrap();
    let printed = String::from_utf8_lossy(&done.stdout).into_owned();
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{}\n{printed}{errors}", done.status);
    assert!(printed.ends_with("ok two domains\n"), "{printed}{errors}");
    Some(printed)
}

/// The places of these in the text, each looked for behind the one before.
fn places(printed: &str, marks: &[&str]) -> Vec<usize> {
    let mut from = 0;
    let find = |mark: &&str| {
        let at = printed[from..].find(mark);
        from += at.unwrap_or_else(|| panic!("{mark:?} is missing, or too early, in\n{printed}"));
        from
    };
    marks.iter().map(find).collect()
}

#[test]
fn message_walks_from_domain_to_domain() {
    let Some(printed) = walk(&[]) else { return };
    let way = places(&printed, &WAY);
    assert!(printed[way[4]..].contains("Is it warm?"), "bob reads it: {printed}");
    let asked = "_tcp.north.example?";
    assert!(!printed[way[0]..way[4]].contains(asked), "certificates need no call back: {printed}");
    places(&printed, &["bob > | <message to='alice@north.example/here'", "alice < | <message"]);
    places(&printed, &["== What does not work comes back", "remote-server-not-found"]);
}

#[test]
fn servers_without_an_authority_call_back() {
    let Some(printed) = walk(&["--dialback"]) else { return };
    let way = places(&printed, &WAY);
    let asked = "DNS | SRV  _xmpps-server._tcp.north.example?";
    assert!(printed[way[0]..way[4]].contains(asked), "server B dials back: {printed}");
}
