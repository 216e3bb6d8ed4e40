//! The fuzz targets on stable: each body runs over the inputs in `tests/corpus` and over small changes of them. `xml` is
//! replayed beside its properties, `stream` beside the simulation.

use std::path::PathBuf;

#[path = "../fuzz/targets/beacon.rs"]
mod beacon;
#[path = "../fuzz/targets/component.rs"]
mod component;
#[path = "../fuzz/targets/dialback.rs"]
mod dialback;
#[path = "../fuzz/targets/dns.rs"]
mod dns;
#[path = "../fuzz/targets/frame.rs"]
mod frame;
#[path = "../fuzz/targets/gossip.rs"]
mod gossip;
#[path = "../fuzz/targets/link.rs"]
mod link;
#[path = "../fuzz/targets/proxy.rs"]
mod proxy;
#[path = "../fuzz/targets/s2s.rs"]
mod s2s;
#[path = "../fuzz/targets/sasl.rs"]
mod sasl;
#[path = "../fuzz/targets/sasl2.rs"]
mod sasl2;
#[path = "../fuzz/targets/session.rs"]
mod session;

/// Runs `body` over each file of a folder, as it is and with other first bytes, which choose how the rest is used.
fn replay(folder: &str, first: &[u8], body: fn(&[u8])) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(folder);
    let mut count = 0;
    for entry in std::fs::read_dir(&path).expect("the corpus") {
        let path = entry.expect("an entry").path();
        let data = std::fs::read(&path).expect("a file");
        eprintln!("{}", path.display());
        body(&data);
        for &choice in first {
            let mut changed = data.clone();
            if let Some(first) = changed.first_mut() {
                *first = choice;
            }
            body(&changed);
        }
        count += 1;
    }
    assert!(count > 0, "{folder} has inputs");
}

#[test]
fn frame_inputs_replay() {
    replay("frame", &[0, 1, 3, 4, 64, 255], frame::frame);
}

#[test]
fn dns_inputs_replay() {
    replay("dns", &[0, 1, 2, 3, 4, 8, 12], dns::dns);
}

#[test]
fn link_inputs_replay() {
    replay("link", &[0, 1, 2, 6, 2 + 8, 6 + 8 * 17, 255], link::link);
}

#[test]
fn beacon_inputs_replay() {
    replay("beacon", &[0, 1], beacon::beacon);
}

#[test]
fn gossip_inputs_replay() {
    replay("gossip", &[0, 0x80, 0x81, 255], gossip::gossip);
}

#[test]
fn proxy_inputs_replay() {
    replay("proxy", &[0, b'P', b'\r', 255], proxy::proxy);
}

#[test]
fn sasl_inputs_replay() {
    replay("sasl", &[], sasl::sasl);
}

#[test]
fn component_inputs_replay() {
    replay("component", &[0, 1, 2], component::component);
}

#[test]
fn sasl2_inputs_replay() {
    replay("sasl2", &[1, 2, 3, 4], sasl2::sasl2);
}

#[test]
fn session_inputs_replay() {
    replay("session", &[0, 1], session::session);
}

#[test]
fn s2s_inputs_replay() {
    replay("s2s", &[0, 1, 2, 3, 4, 5, 6, 7], s2s::s2s);
}

#[test]
fn dialback_inputs_replay() {
    replay("dialback", &[], dialback::dialback);
}
