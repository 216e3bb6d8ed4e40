//! The arguments of the contract: what is there, what is not in this version, what is wrong.

use crate::Place;

#[test]
fn wrong_arguments_are_told_apart_from_refusals() {
    let place = Place::new();
    for arguments in [
        &["fly"][..],
        &["serve", "--fly"],
        &["user", "add", "a@localhost"],
        &["user", "add", "a@localhost", "--password", "x", "--password-stdin"],
        &["check-config"],
    ] {
        let run = place.run(arguments);
        assert_eq!(run.code, 2, "{arguments:?}: {}", run.stderr);
    }
}

#[test]
fn commands_are_listed_and_those_of_a_running_node_say_that_none_runs() {
    let place = Place::new();
    for command in [
        vec!["drain"],
        vec!["cluster", "status"],
        vec!["cluster", "weight", "2"],
        vec!["federation", "list"],
    ] {
        let run = place.run(&command);
        assert_eq!(run.code, 1, "{command:?}");
        assert!(run.stderr.contains("no node runs on the data directory"), "{}", run.stderr);
    }
    let help = place.run(["--help"]).done() + &place.run(["user", "--help"]).done();
    for word in [
        "serve",
        "status",
        "whereis",
        "cluster",
        "drain",
        "check-config",
        "session",
        "federation",
        "latency",
        "trace",
        "import",
        "passwd",
        "delete",
        "list",
        "disable",
        "enable",
    ] {
        assert!(help.contains(word), "{word}\n{help}");
    }
}

#[test]
fn latencies_are_those_of_a_running_node() {
    let line = "corefire: no node runs on the data directory corefire-data; latencies are those of a running node";
    let place = Place::new();
    place.run(["latency"]).refused(&[line]);
    place.run(["latency", "--hlog", "x"]).refused(&[line]);
    assert_eq!(place.run(["latency", "--hlog", "x", "--json"]).code, 2);
}

#[test]
fn a_trace_that_cannot_be_is_refused_in_one_line() {
    let place = Place::new();
    let refused = |arguments: &[&str], line: &str| {
        place.run([&["trace"], arguments].concat()).refused(&[line]);
    };
    refused(
        &["alice@localhost"],
        "corefire: no node runs on the data directory corefire-data; what passes through a running node can be traced",
    );
    refused(
        &["@"],
        "corefire: \"@\" is no address: the address has no domain; write NAME@DOMAIN or NAME@DOMAIN/RESOURCE",
    );
    for span in ["1h", "0s", "11m", "soon"] {
        let line = format!("corefire: --for {span:?} is no time from 1s to 10m; write --for 60s");
        refused(&["alice@localhost", "--for", span], &line);
    }
    for arguments in [&["trace"][..], &["trace", "a@localhost", "--id", "m1"]] {
        assert_eq!(place.run(arguments).code, 2, "{arguments:?}");
    }
}

#[test]
fn reload_without_a_node_is_refused() {
    let line = "corefire: no node runs on the data directory corefire-data; a node reads its configuration when it starts";
    Place::new().run(["reload"]).refused(&[line]);
}

/// The values of the owner rule, which other programs compute as well: see `cluster::placement`.
#[test]
fn whereis_computes_the_owner_when_no_node_runs() {
    let place = Place::new();
    let set = ["--set", "node.shards=4", "--set", "node.name=n1"];
    let run = |jid, more: &[&str]| {
        let arguments =
            ["whereis", jid].iter().chain(more).chain(&set).copied().collect::<Vec<_>>();
        place.run(arguments)
    };
    let text = run("Alice@LocalHost/phone", &["--json"]).done();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let hash = u64::from_str_radix(value["hash64"].as_str().unwrap(), 16).unwrap();
    assert_eq!(value["jid"], "alice@localhost");
    assert_eq!(value["node"], "n1");
    assert_eq!(value["partition"], hash % 4096);
    assert_eq!(value["shard"], ((hash >> 32) * 4) >> 32);
    let text = run("alice@localhost", &[]).done();
    assert!(text.starts_with("alice@localhost: node n1, shard "), "{text}");
    assert_eq!((&value["node_id"], &value["epoch"]), (&0.into(), &0.into()));
    let map = place.run(["cluster", "map"].iter().chain(&set)).done();
    assert_eq!(
        map,
        "epoch 0, 4096 partitions by sha256-rendezvous-1\nn1: id 0, weight 1, 4 shards, 4096 partitions\n"
    );
    run("a@b@c", &[]).refused(&[
        "corefire: \"a@b@c\" is no address: the domain is neither a host name nor an IP address; \
         write NAME@DOMAIN or DOMAIN",
    ]);
    assert!(!place.path("corefire-data").exists(), "nothing was made for a question");
}

#[test]
fn status_without_a_node_refused() {
    let place = Place::new();
    let run = place.run(["status", "--json", "--data-dir", "data"]);
    assert_eq!(run.stdout, "{\"data_dir\":\"data\",\"running\":false}\n");
    run.refused(&["corefire: no node runs on the data directory data; \
         start one with corefire serve, or give its --data-dir"]);
}
