//! How nodes find each other, and who is not let in.

use std::time::{Duration, Instant};

use crate::client::Client;
use crate::cluster::{Cluster, Finding, PASSWORD, SECRET, name, place, secret_file};
use crate::node::Place;
use corefire_load::launch::free_address;

/// Long enough for some beacons, each second, and for what follows from them.
const A_WHILE: Duration = Duration::from_secs(3);

#[test]
fn nodes_find_each_other_by_multicast_and_know_no_address() {
    let Some(mut cluster) = Cluster::prepare(3, &Finding::Multicast) else { return };
    cluster.boot(0);
    cluster.boot(1);
    cluster.expect_all();
    let began = Instant::now();
    cluster.boot(2);
    cluster.expect_all();
    // Starting is part of it, with a program that is not made to be quick.
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    for at in 0..3 {
        for other in (0..3).filter(|other| *other != at) {
            assert_eq!(cluster.owner(at, &cluster.name_at(other, "user")), other);
        }
    }
}

#[test]
fn nodes_find_each_other_by_seeds_without_multicast() {
    let Some(mut cluster) = Cluster::start(3, &Finding::Seeds) else { return };
    // Whom nobody names is found again, as he asks himself.
    cluster.take(2).stop();
    cluster.expect_members(&[0, 1]);
    cluster.boot(2);
    cluster.expect_all();
}

/// Nobody is served twice, and nothing is said into the wrong cluster.
#[test]
fn a_node_with_another_secret_is_let_in_nowhere_and_harms_nobody() {
    let Some(mut cluster) = Cluster::prepare(2, &Finding::Seeds) else { return };
    cluster.boot(0);
    cluster.boot(1);
    let epoch = cluster.expect_all();
    let directory = tempfile::tempdir().unwrap();
    let other = secret_file(&directory, &SECRET.replace('4', "5"));
    let stranger = place(&cluster.server, "stranger", &other)
        .set(&format!("cluster.bind={}", free_address().unwrap()))
        .set("cluster.multicast.group=")
        .set(&format!("cluster.seeds=[\"{}\"]", cluster.link(0)));
    let mut command = stranger.program(&["serve"]);
    let mut child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    std::thread::sleep(A_WHILE);
    assert!(child.try_wait().unwrap().is_none(), "it waits, as its operator may set it right");
    child.kill().unwrap();
    let told = String::from_utf8(child.wait_with_output().unwrap().stderr).unwrap();
    assert!(told.contains("secret"), "its operator is told of the secret: {told}");
    assert!(!told.contains(" ready "), "{told}");
    assert_eq!(cluster.expect_all(), epoch, "{}", cluster.events());
    cluster.add_user(0, "alice");
    for at in 0..2 {
        Client::log_in(cluster.node(at), "alice", PASSWORD).ping("1");
    }
    let told = cluster.take(0).last_words();
    let refused = |line: &&String| line.contains("WARN") && line.contains("secret");
    assert!(told.iter().any(|line| refused(&line)), "{told:#?}");
}

#[test]
fn what_makes_no_cluster_is_refused_at_the_start_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let secret = secret_file(&directory, SECRET);
    let with = |secret: &std::path::Path| {
        Place::new()
            .set("node.name=n1")
            .set("cluster.enabled=true")
            .set(&format!("cluster.bind={}", free_address().unwrap()))
            .set(&format!("cluster.secret_file={}", secret.display()))
    };
    let refused = |place: &Place| place.refused(place.program(&["serve"]));
    // SQLite.
    let told = refused(&with(&secret));
    assert!(told.contains("storage.url") && told.contains("postgres"), "{told}");
    let url = "storage.url=postgres://xmpp@127.0.0.1:1/corefire";
    let short = secret_file(&directory, "short");
    let told = refused(&with(&short).set(url));
    assert!(told.contains("secret") && told.contains("cluster init"), "{told}");
    let word = secret_file(&directory, "changeme-changeme-changeme-changeme");
    let told = refused(&with(&word).set(url));
    assert!(told.contains("secret") && told.contains("cluster init"), "{told}");
    let none = directory.path().join("none");
    let told = refused(&with(&none).set(url));
    assert!(told.contains("cluster.secret_file"), "{told}");
    let open = secret_file(&directory, &SECRET.replace('4', "6"));
    std::fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let told = refused(&with(&open).set(url));
    assert!(told.contains("cluster.secret_file") && told.contains("600"), "{told}");
}

#[test]
fn of_two_nodes_with_one_name_the_second_is_refused_and_told_of_the_first() {
    let Some(cluster) = Cluster::start(2, &Finding::Multicast) else { return };
    let epoch = cluster.expect_all();
    cluster.add_user(0, "alice");
    let directory = tempfile::tempdir().unwrap();
    let secret = secret_file(&directory, SECRET);
    let twin = place(&cluster.server, &name(1), &secret)
        .set(&format!("cluster.bind={}", free_address().unwrap()))
        .set("cluster.multicast.group=")
        .set(&format!("cluster.seeds=[\"{}\"]", cluster.link(0)));
    let told = twin.refused(twin.program(&["serve"]));
    let wanted = format!("has the name \"n2\" and lives, at {}", cluster.link(1));
    assert!(told.contains(&wanted), "{told}");
    assert_eq!(cluster.expect_all(), epoch, "{}", cluster.events());
    for at in 0..2 {
        Client::log_in(cluster.node(at), "alice", PASSWORD).ping("1");
    }
}
