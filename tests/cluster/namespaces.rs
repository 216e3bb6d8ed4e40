//! Three nodes in network namespaces of their own, with a bridge between them, beside which are the database and the
//! clients: real multicast, cables that are pulled, and routes that swallow what they are given. All of it is in
//! namespaces that go with the test. It takes root; without, these tests say so and are skipped.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::cluster::Cluster;
use crate::person::Person;

/// Set in the process that is within the namespace of the bridge.
const INSIDE: &str = "COREFIRE_TEST_NAMESPACE";
/// How often the cable is pulled.
const ROUNDS: &str = "COREFIRE_TEST_PARTITIONS";
/// All of one test, started again within its namespaces; and what each further round may take.
const LIMIT_S: usize = 120;
const ROUND_S: usize = 60;
const BACK: Duration = Duration::from_secs(20);
/// Makes a namespace of one's own for the network, and one for the names of further ones.
const ENTER: &str = "mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns && exec \"$@\"";

/// Runs the test `name` within a namespace. Gives whether this is that process.
fn is_inside(name: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let works = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        let quiet = command.args(arguments).stdin(Stdio::null()).stderr(Stdio::null());
        quiet.stdout(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    let unshare = ["--net", "--mount", "--propagation", "private"];
    let attempt = [&unshare[..], &["sh", "-c", ENTER, "sh", "ip", "netns", "add", "attempt"]];
    if !works("unshare", &attempt.concat()) {
        eprintln!("skipped: network namespaces take root, and the programs ip and unshare");
        return false;
    }
    let itself = std::env::current_exe().unwrap();
    let rounds = std::env::var(ROUNDS).map_or(1, |rounds| rounds.parse().unwrap());
    let limit = LIMIT_S + ROUND_S * rounds;
    let status = Command::new("timeout")
        .args(["--signal=TERM", "--kill-after=5", &limit.to_string(), "unshare"])
        .args(unshare)
        .args(["sh", "-c", ENTER, "sh"])
        .arg(itself)
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "within the namespace: {status}");
    false
}

#[track_caller]
fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "ip {arguments}: {told}");
}

/// The nodes, at 10.77.0.1 to 3; the database and the clients are at 10.77.0.254.
fn three() -> Option<Cluster> {
    ip("link set lo up");
    ip("link add bridge type bridge mcast_snooping 0");
    ip("addr add 10.77.0.254/24 dev bridge");
    ip("link set bridge up");
    for node in 1..=3 {
        ip(&format!("netns add node{node}"));
        ip(&format!("link add port{node} type veth peer name eth0 netns node{node}"));
        ip(&format!("link set port{node} master bridge up"));
        ip(&format!("-n node{node} link set lo up"));
        ip(&format!("-n node{node} addr add 10.77.0.{node}/24 dev eth0"));
        ip(&format!("-n node{node} link set eth0 up"));
    }
    let links = [1, 2, 3].map(|node| SocketAddr::from(([10, 77, 0, node], 7070)));
    let mut cluster = Cluster::at(&links, &["listen_addresses=*"], |at, place| {
        let address = links[at].ip();
        place
            .set(&format!("c2s.listen=[\"{address}:0\"]"))
            .set("c2s.direct_tls_listen=[\"127.0.0.1:0\"]")
            .set("limits.exempt=[\"10.77.0.0/24\"]")
    })?;
    // Over the network too, so that a cut node has no database either.
    let hba = cluster.server.sql("corefire", "SHOW hba_file");
    cluster.server.sql(
        "corefire",
        &format!(
            "COPY (SELECT 'host all all 10.77.0.0/24 scram-sha-256') TO PROGRAM 'cat >> {hba}'"
        ),
    );
    cluster.server.sql("corefire", "SELECT pg_reload_conf()");
    let url = cluster.server.url_with_password("corefire").replace("127.0.0.1", "10.77.0.254");
    // Nobody else is on this network.
    let url = format!("{url}?sslmode=disable");
    for place in &mut cluster.places {
        place.add(&format!("storage.url={url}"));
    }
    for at in 0..3 {
        boot(&mut cluster, at);
    }
    cluster.expect_all();
    Some(cluster)
}

fn boot(cluster: &mut Cluster, at: usize) {
    let command = program(cluster, at);
    cluster.boot_as(at, command);
}

fn program(cluster: &Cluster, at: usize) -> Command {
    let program = cluster.places[at].program(&["serve"]);
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &format!("node{}", at + 1)]);
    command.arg(program.get_program()).args(program.get_args());
    if let Some(directory) = program.get_current_dir() {
        command.current_dir(directory);
    }
    command.stdin(Stdio::null());
    command
}

#[test]
fn a_pulled_cable_costs_nothing_that_was_acknowledged_and_the_node_comes_back() {
    if !is_inside(
        "namespaces::a_pulled_cable_costs_nothing_that_was_acknowledged_and_the_node_comes_back",
    ) {
        return;
    }
    let Some(mut cluster) = three() else { return };
    // One is enough for every day; a campaign asks for more.
    let rounds = std::env::var(ROUNDS).map_or(1, |rounds| rounds.parse().unwrap());
    for round in 0..rounds {
        pull(&mut cluster, round);
        eprintln!("partitions healed: {}", round + 1);
    }
}

/// Each time it is another node's cable. Alice's account is with that node, her socket with the next one; Bob has both with
/// the one after that.
fn pull(cluster: &mut Cluster, round: usize) {
    let (cut, hers, his) = ((round + 2) % 3, round % 3, (round + 1) % 3);
    let port = format!("link set port{}", cut + 1);
    let alice = cluster.new_user(cut, &format!("alice{round}x"), hers);
    let bob = cluster.new_user(his, &format!("bob{round}x"), hers);
    let mut one = Person::at(&alice, cluster.node(hers).plain);
    let mut two = Person::at(&bob, cluster.node(his).plain);
    // For less than what makes a node suspect, as when a switch starts again: nobody is taken over.
    let epoch = cluster.expect_all();
    ip(&format!("{port} down"));
    two.message(&alice, "m0");
    two.listen(Duration::from_millis(600));
    ip(&format!("{port} up"));
    two.wait_acked();
    one.wait_message("m0");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(cluster.expect_all(), epoch, "{}", cluster.events());

    // For good: the owner of Alice's account sees neither the others nor the database.
    for number in 1..20 {
        two.message(&alice, &format!("m{number}"));
    }
    two.wait_acked();
    ip(&format!("{port} down"));
    let began = Instant::now();
    for number in 20..40 {
        two.message(&alice, &format!("m{number}"));
    }
    two.ask();
    one.wait_gone();
    eprintln!("Alice's stream ended {:?} after the cut", began.elapsed());
    one.come(&[cluster.node(hers).plain, cluster.node(his).plain], BACK);
    // The side that was left has one owner of the account, and both of its nodes say the same one.
    let owners = [hers, his].map(|at| cluster.owner(at, &alice));
    assert!(owners[0] == owners[1] && owners[0] != cut, "{owners:?}, {cut} is cut off");
    one.wait_wherever(&[cluster.node(hers).plain, cluster.node(his).plain], Some("m39"));
    two.wait_wherever(&[cluster.node(hers).plain, cluster.node(his).plain], None);
    eprintln!("all was there {:?} after the cut", began.elapsed());
    let mut left = [hers, his];
    left.sort_unstable();
    cluster.expect_members(&left);
    ip(&format!("{port} up"));
    // It learns that it was taken over, and ends; whoever watches over it starts it again.
    assert_eq!(cluster.take(cut).ended(), Some(1));
    boot(cluster, cut);
    cluster.expect_all();
    assert_eq!([0, 1, 2].map(|at| cluster.owner(at, &alice)), [cut; 3]);
    two.message(&alice, "after");
    two.wait_wherever(&[cluster.node(his).plain], None);
    one.wait_wherever(&[cluster.node(hers).plain], Some("after"));
    let mut wanted: Vec<String> = (0..40).map(|number| format!("m{number}")).collect();
    wanted.push("after".to_owned());
    assert_eq!(one.firsts(), wanted);
    assert!(one.repeated().is_empty(), "{:?}", one.repeated());
}

/// Who sees the database and not the others is no half of a cluster.
#[test]
fn a_node_that_sees_the_database_alone_gives_way_to_those_who_see_each_other() {
    if !is_inside(
        "namespaces::a_node_that_sees_the_database_alone_gives_way_to_those_who_see_each_other",
    ) {
        return;
    }
    let Some(mut cluster) = three() else { return };
    let (alice, bob) = (cluster.new_user(2, "alice", 0), cluster.new_user(1, "bob", 0));
    let mut one = Person::at(&alice, cluster.node(0).plain);
    let mut two = Person::at(&bob, cluster.node(1).plain);
    for number in 0..10 {
        two.message(&alice, &format!("m{number}"));
    }
    two.wait_acked();
    one.wait_message("m9");
    one.listen(Duration::from_millis(50));
    let between = |change: &str| {
        for node in [1, 2] {
            ip(&format!("-n node{node} route {change} blackhole 10.77.0.3/32"));
            ip(&format!("-n node3 route {change} blackhole 10.77.0.{node}/32"));
        }
    };
    between("add");
    let began = Instant::now();
    for number in 10..20 {
        two.message(&alice, &format!("m{number}"));
    }
    two.ask();
    cluster.expect_members(&[0, 1]);
    eprintln!("taken over {:?} after the cut", began.elapsed());
    assert_eq!(cluster.take(2).ended(), Some(1));
    one.wait_wherever(&cluster.doors(0), Some("m19"));
    two.wait_wherever(&cluster.doors(1), None);
    // Started again, it waits, as the others live and it sees none of them; and it says so.
    let mut child = program(&cluster, 2).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(cluster.members().map(|(_, names)| names.len()), Some(2), "{}", cluster.events());
    child.kill().unwrap();
    let told = String::from_utf8(child.wait_with_output().unwrap().stderr).unwrap();
    assert!(told.contains("the cluster waits") && !told.contains(" ready "), "{told}");
    between("del");
    boot(&mut cluster, 2);
    cluster.expect_all();
    two.message(&alice, "after");
    two.wait_wherever(&cluster.doors(1)[..1], None);
    one.wait_wherever(&cluster.doors(0)[..1], Some("after"));
    let mut wanted: Vec<String> = (0..20).map(|number| format!("m{number}")).collect();
    wanted.push("after".to_owned());
    assert_eq!(one.firsts(), wanted);
    assert!(one.repeated().is_empty(), "{:?}", one.repeated());
}
