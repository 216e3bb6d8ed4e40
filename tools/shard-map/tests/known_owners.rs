//! Owners that must never change, by this library and by the program in Python: the same as in `src/cluster/placement.rs`.
#![expect(clippy::unwrap_used, reason = "tests")]

use corefire_shard_map::ShardMap;
use serde_json::Value;
use std::process::Command;

const MEMBERS: &str = r#"{"name":"node-1","node":1,"weight":1,"shards":4,"clients":["n1:5222"]},
    {"name":"node-2","node":2,"weight":2,"shards":4,"clients":["n2:5222","[::1]:5222"],"components":["n2:5347"]},
    {"name":"node-3","node":3,"weight":3,"shards":4,"clients":[]}"#;

/// Address, node and shard.
const KNOWN: [(&str, u32, u16); 6] = [
    ("alice@example.com", 2, 3),
    ("Alice@Example.COM/phone", 2, 3),
    ("bob@example.com", 3, 1),
    ("m\u{fc}nchen.example", 3, 0),
    ("room@conference.example.com/nick", 1, 1),
    ("juliet@capulet.lit", 2, 2),
];

fn json(epoch: u64, members: &str) -> String {
    format!(
        "{{\"format\":1,\"epoch\":{epoch},\"rule\":\"sha256-rendezvous-1\",\"partitions\":4096,\"members\":[{members}]}}"
    )
}

#[test]
fn known_owners_stay() {
    let map = ShardMap::from_json(&json(9, MEMBERS)).unwrap();
    assert_eq!(map.epoch(), 9);
    for (jid, node, shard) in KNOWN {
        let owner = map.owner(jid);
        assert_eq!((owner.member.node, owner.shard), (node, shard), "{jid}");
    }
    let partition = |jid| map.owner(jid).partition;
    assert_eq!((partition("alice@example.com"), partition("juliet@capulet.lit")), (703, 2135));
    assert_eq!(map.owner("juliet@capulet.lit").member.clients, ["n2:5222", "[::1]:5222"]);
    assert_eq!(map.owner("juliet@capulet.lit").member.components, ["n2:5347"]);
    assert!(map.owner("bob@example.com").member.components.is_empty());
}

/// Owners by the program in Python; `None` where there is no Python.
fn in_python(map: &str, jids: &[&str]) -> Option<Vec<Value>> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("map.json");
    std::fs::write(&file, map).unwrap();
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/shard_map.py");
    let run = match Command::new("python3").arg(program).arg(&file).args(jids).output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        run => run.unwrap(),
    };
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let lines = String::from_utf8(run.stdout).unwrap();
    Some(lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

#[test]
fn known_owners_are_the_same_in_python() {
    let Some(told) = in_python(&json(9, MEMBERS), &KNOWN.map(|(jid, _, _)| jid)) else { return };
    for ((jid, node, shard), told) in KNOWN.iter().zip(&told) {
        assert_eq!((&told["node"], &told["shard"]), (&(*node).into(), &(*shard).into()), "{jid}");
        assert_eq!(told["epoch"], 9);
    }
    assert_eq!(told[0]["clients"], serde_json::json!(["n2:5222", "[::1]:5222"]));
    let components = [0, 2].map(|at| told[at]["components"].clone());
    assert_eq!(components, [serde_json::json!(["n2:5347"]), serde_json::json!([])]);
    assert_eq!(told.len(), KNOWN.len());
}

#[test]
fn owners_are_the_same_in_python_whatever_the_members_are() {
    for weights in [&[0, 0, 0][..], &[1, 0, 4_000_000_000, 7, 7], &[1; 12]] {
        let members: Vec<String> = (1..)
            .zip(weights)
            .map(|(node, weight): (u32, &u32)| {
                format!(
                    "{{\"name\":\"caf\u{e9}-{node}\",\"node\":{node},\"weight\":{weight},\"shards\":{},\"clients\":[]}}",
                    node * 13
                )
            })
            .collect();
        let json = json(1, &members.join(","));
        let map = ShardMap::from_json(&json).unwrap();
        let jids: Vec<String> =
            (0..200).map(|number| format!("user{number}@example.org")).collect();
        let jids: Vec<&str> = jids.iter().map(String::as_str).collect();
        let Some(told) = in_python(&json, &jids) else { return };
        for (jid, told) in jids.iter().zip(&told) {
            let owner = map.owner(jid);
            assert_eq!(told["node"], owner.member.node, "{jid} {weights:?}");
            assert_eq!(told["shard"], owner.shard, "{jid} {weights:?}");
        }
        assert_eq!(told.len(), jids.len());
    }
}
