//! Accounts of a node that does not run: the commands work on the data directory itself, and on a running one's socket.

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Instant;

use corefire::cluster::map::ShardMap;
use corefire::cluster::placement::NodeId;
use corefire::cluster::view::{NodeFacts, Run, View};
use corefire::runtime::control::cluster::{ClusterEvent, ClusterNode, ClusterStatus};
use corefire::runtime::control::federation::{
    CheckStep, FederationAnswer, FederationRequest, RemoteDomain,
};
use corefire::runtime::control::server;
use corefire::runtime::control::trace::{TraceEvent, TraceHop};
use corefire::runtime::control::{
    AccountRequest, ControlHandler, ControlRequest, ControlResponse, ImportOutcome, SessionCursor,
    SessionDetail, Tell,
};
use corefire::runtime::control::{Listener, ShardStatus, Status, accounts};
use corefire::runtime::data_dir::DataDir;
use corefire::store::sqlite::{self, SqliteReader};
use corefire::store::{Answer, Query, Reader, Write, Writer};
use corefire::stream::sasl;
use corefire::xmpp::credentials::Credentials;
use corefire::xmpp::jid::BareJid;

use crate::Place;

/// Fewer rounds, so that the tests are quick.
const QUICK: [&str; 2] = ["--set", "auth.scram_iterations=4096"];

impl Place {
    fn user(&self, arguments: &[&str]) -> crate::Run {
        self.run(["user"].iter().chain(arguments).chain(&QUICK))
    }

    fn credentials(&self, jid: &str) -> Option<Credentials> {
        let path = self.path("corefire-data/corefire.db");
        drop(sqlite::open(&path).unwrap());
        let mut reader = SqliteReader::open(&path).unwrap();
        let owner = BareJid::parse(jid).unwrap();
        match reader.read(&Query::Account { owner }).unwrap() {
            Answer::Account(account) => account.map(|account| account.credentials),
            other => panic!("{other:?}"),
        }
    }

    fn accepts(&self, jid: &str, password: &str) -> bool {
        sasl::verify_plain(password, &self.credentials(jid).unwrap().sha256)
    }
}

#[test]
fn an_account_is_added_listed_given_a_password_and_deleted() {
    let place = Place::new();
    let added = place.user(&["add", "Alice@LocalHost", "--password", "one"]).done();
    assert_eq!(added, "added alice@localhost\n");
    let run = ["user", "add", "bob@localhost", "--password-stdin"];
    let added = place.run_with(run.iter().chain(&QUICK), "two words \r\nmore\n").done();
    assert_eq!(added, "added bob@localhost\n");
    assert_eq!(place.user(&["list"]).done(), "alice@localhost\nbob@localhost\n");
    assert!(place.accepts("alice@localhost", "one"));
    assert!(place.accepts("bob@localhost", "two words "));
    assert_eq!(place.credentials("alice@localhost").unwrap().sha256.iterations, 4096);

    let set = place.user(&["passwd", "alice@localhost", "--password", "three"]).done();
    assert_eq!(set, "set the password of alice@localhost\n");
    assert!(place.accepts("alice@localhost", "three") && !place.accepts("alice@localhost", "one"));

    assert_eq!(place.user(&["delete", "alice@localhost"]).done(), "deleted alice@localhost\n");
    assert_eq!(place.user(&["list"]).done(), "bob@localhost\n");
    assert!(place.credentials("alice@localhost").is_none());
}

#[test]
fn an_account_of_a_stopped_node_is_disabled_and_enabled() {
    let place = Place::new();
    place.user(&["add", "alice@localhost", "--password", "x"]).done();
    let shown = |disabled: bool| {
        format!(
            "{{\"jid\":\"alice@localhost\",\"disabled\":{disabled},\"contacts\":0,\
             \"offline_messages\":0,\"quarantine_until\":null}}\n"
        )
    };
    assert_eq!(place.user(&["list", "--json"]).done(), shown(false));
    let disabled = place.user(&["disable", "Alice@localhost"]).done();
    assert_eq!(disabled, "disabled alice@localhost\n");
    assert_eq!(place.user(&["list", "--json"]).done(), shown(true));
    assert_eq!(place.user(&["enable", "alice@localhost"]).done(), "enabled alice@localhost\n");
    assert_eq!(place.user(&["list", "--json"]).done(), shown(false));
}

#[test]
fn a_node_that_does_not_run_has_no_sessions() {
    let place = Place::new();
    for command in [&["session", "list"][..], &["session", "kick", "a@localhost"]] {
        place.run(command).refused(&["corefire: no node runs on the data directory \
             corefire-data, so there are no sessions"]);
    }
}

#[test]
fn what_cannot_be_done_says_what_to_do() {
    let place = Place::new();
    place.user(&["list"]).refused(&["corefire: data directory corefire-data does not exist; \
         start a node or add an account first, or give the right --data-dir"]);
    place.user(&["add", "alice@localhost", "--password", "x"]).done();
    place
        .user(&["add", "alice@localhost", "--password", "y"])
        .refused(&["corefire: alice@localhost: the account exists; \
         set its password with: corefire user passwd alice@localhost --password-stdin"]);
    assert!(place.accepts("alice@localhost", "x"));
    for command in [
        &["delete", "bob@localhost"][..],
        &["disable", "bob@localhost"],
        &["enable", "bob@localhost"],
        &["release", "bob@localhost"],
        &["passwd", "bob@localhost", "--password", "x"],
    ] {
        place
            .user(command)
            .refused(&["corefire: bob@localhost: no such account; see: corefire user list"]);
    }
    place
        .user(&["add", "alice@example.org", "--password", "x"])
        .refused(&["corefire: alice@example.org: this server serves localhost, not example.org; \
         add it to domains in the configuration"]);
    place
        .user(&["add", "localhost", "--password", "x"])
        .refused(&["corefire: \"localhost\" has no name before the domain; write NAME@localhost"]);
    let run = place.user(&["add", "a/b", "--password", "x"]);
    assert!(run.code == 1 && run.stderr.contains("write NAME@DOMAIN"), "{}", run.stderr);
    let run = place.user(&["add", "carol@localhost", "--password", ""]);
    assert!(run.code == 1 && run.stderr.contains("choose another password"), "{}", run.stderr);
    place.run(["user", "add", "carol@localhost", "--password-stdin"]).refused(&[
        "corefire: no password: standard input is empty; give it as one line of standard input",
    ]);
    assert_eq!(place.user(&["list"]).done(), "alice@localhost\n");
}

#[test]
fn a_made_data_directory_is_private() {
    let place = Place::new();
    place.user(&["add", "alice@localhost", "--password", "x"]).done();
    let mode = |name: &str| std::fs::metadata(place.path(name)).unwrap().mode() & 0o777;
    assert_eq!(mode("corefire-data"), 0o700);
    assert_eq!(mode("corefire-data/corefire.db"), 0o600);
    assert_eq!(mode("corefire-data/lock"), 0o600);
}

/// More than one batch.
#[test]
fn a_file_of_accounts_is_imported() {
    let place = Place::new();
    let rows: Vec<String> = (0..260).map(|n| format!("user{n:03}@localhost,pw-{n}")).collect();
    place.write("users.csv", &(rows.join("\n") + "\nquoted@localhost,\"a,\"\"b\"\n"));
    let run = place.user(&["import", "users.csv"]);
    assert_eq!((run.code, run.stdout.as_str()), (0, "imported 261 accounts\n"), "{}", run.stderr);
    assert_eq!(place.user(&["list"]).done().lines().count(), 261);
    for (jid, password) in [("user000@localhost", "pw-0"), ("user259@localhost", "pw-259")] {
        assert!(place.accepts(jid, password), "{jid}");
    }
    assert!(place.accepts("quoted@localhost", "a,\"b"));
}

#[test]
fn a_list_has_all_pages() {
    let place = Place::new();
    place.user(&["add", "user0000@localhost", "--password", "x"]).done();
    let credentials = place.credentials("user0000@localhost").unwrap();
    let jids: Vec<String> = (0..2001).map(|n| format!("user{n:04}@localhost")).collect();
    let accounts: Vec<Write> = jids[1..]
        .iter()
        .map(|jid| Write::CreateAccount {
            owner: BareJid::parse(jid).unwrap(),
            credentials: credentials.clone(),
        })
        .collect();
    let mut store = sqlite::open(&place.path("corefire-data/corefire.db")).unwrap();
    store.writer.commit(&accounts).unwrap();
    drop(store);
    let list = place.user(&["list"]).done();
    assert_eq!(list.lines().collect::<Vec<_>>(), jids);
}

#[test]
fn a_file_with_faulty_lines_imports_nothing() {
    let place = Place::new();
    place.write("users.csv", "a@localhost,x\nb\nc@example.org,x\n");
    place.user(&["import", "users.csv"]).refused(&[
        "users.csv:2: only one field; write jid,password",
        "users.csv:3: c@example.org: this server serves localhost, not example.org; \
         add it to domains in the configuration",
        "corefire: users.csv: nothing was imported; correct the 2 lines above",
    ]);
    assert!(!place.path("corefire-data").exists());
    place
        .user(&["import", "none.csv"])
        .refused(&["corefire: none.csv: cannot be read: No such file or directory (os error 2); \
         give a file of lines jid,password"]);
}

#[test]
fn an_import_leaves_accounts_that_exist_and_tells_their_lines() {
    let place = Place::new();
    place.user(&["add", "b@localhost", "--password", "old"]).done();
    place.write("users.csv", "a@localhost,x\nb@localhost,new\nc@localhost,x\n");
    let run = place.user(&["import", "users.csv"]);
    assert_eq!(run.stdout, "imported 2 accounts\n");
    run.refused(&[
        "users.csv:2: b@localhost: the account exists and keeps its password; \
         set it with: corefire user passwd b@localhost --password-stdin",
        "corefire: users.csv: 1 account not imported; see the lines above",
    ]);
    assert!(place.accepts("b@localhost", "old"));
    assert_eq!(place.user(&["list"]).done(), "a@localhost\nb@localhost\nc@localhost\n");
}

#[test]
fn commands_beside_each_other_wait_for_the_directory() {
    let place = Place::new();
    std::thread::scope(|scope| {
        for name in ["a", "b", "c", "d"] {
            let place = &place;
            let jid = format!("{name}@localhost");
            scope.spawn(move || place.user(&["add", &jid, "--password", "x"]).done());
        }
    });
    assert_eq!(place.user(&["list"]).done().lines().count(), 4);
}

#[test]
fn a_directory_in_use_by_one_that_does_not_answer_is_told_with_its_process() {
    let place = Place::new();
    let _held = DataDir::open(&place.path("corefire-data")).unwrap();
    let started = Instant::now();
    place.user(&["list"]).refused(&[&format!(
        "corefire: data directory corefire-data is in use by process {}; \
         stop that process, or give another --data-dir",
        std::process::id()
    )]);
    assert!(started.elapsed().as_secs() >= 4, "it waited for it first");
}

/// Stands in for a node: answers as one would whose accounts are all taken.
struct Full;

/// Of a cluster of one.
fn shard_map() -> ShardMap {
    let alone = View::single("n1", 1, 1).nodes.remove(0);
    let run = Run { node: NodeId(1), ..alone.run };
    let clients = vec!["n1.example.org:5222".to_owned()];
    ShardMap::of(&View::new(4, vec![NodeFacts { run, clients, ..alone }]))
}

impl ControlHandler for Full {
    fn handle(&self, request: ControlRequest, tell: &mut Tell<'_>) -> ControlResponse {
        match request {
            ControlRequest::Status => ControlResponse::Status(Box::new(Status {
                node: "n1".into(),
                pid: 7,
                listeners: vec![Listener {
                    address: "127.0.0.1:1".into(),
                    key: "c2s.listen".into(),
                }],
                shards: vec![ShardStatus {
                    connections: 1,
                    sessions: 1,
                    accounts: 1,
                    ..ShardStatus::default()
                }],
                ..Status::default()
            })),
            ControlRequest::Reload => ControlResponse::error("x.toml:3: limits.depth: no"),
            ControlRequest::ShardMap => ControlResponse::ShardMap(shard_map()),
            ControlRequest::Cluster => ControlResponse::Cluster(Box::new(ClusterStatus {
                node: "n1".into(),
                epoch: 4,
                waiting: Some("for n2".into()),
                nodes: vec![ClusterNode {
                    name: "n1".into(),
                    id: 1,
                    state: "member".into(),
                    health: "this".into(),
                    ..ClusterNode::default()
                }],
                events: vec![ClusterEvent { what: "n2 joined".into(), ..ClusterEvent::default() }],
                ..ClusterStatus::default()
            })),
            ControlRequest::Drain => ControlResponse::Draining,
            ControlRequest::Weigh { .. } => ControlResponse::Weighed,
            ControlRequest::Whereis { jid } => match accounts::place(&jid, &shard_map()) {
                Ok(place) => ControlResponse::Place(place),
                Err(message) => ControlResponse::error(message),
            },
            ControlRequest::Account(AccountRequest::Import { accounts }) => {
                ControlResponse::Imported { outcomes: vec![ImportOutcome::Exists; accounts.len()] }
            }
            ControlRequest::Account(AccountRequest::List { after: None, .. }) => {
                ControlResponse::Accounts { jids: vec!["a@localhost".into()], more: true }
            }
            ControlRequest::Account(AccountRequest::List { after: Some(_), .. }) => {
                ControlResponse::Accounts { jids: vec!["b@localhost".into()], more: false }
            }
            ControlRequest::Account(AccountRequest::Delete { .. }) => ControlResponse::Done,
            ControlRequest::Account(_) => ControlResponse::error("all are taken; delete one"),
            ControlRequest::Latency => ControlResponse::Latency(Box::default()),
            ControlRequest::LatencyLog => ControlResponse::error("nothing is measured"),
            ControlRequest::Sessions { after: None, .. } => ControlResponse::Sessions {
                sessions: vec![session("a@localhost/1")],
                next: Some(SessionCursor { node: 3, shard: 1, slot: 7 }),
                silent: Vec::new(),
            },
            ControlRequest::Sessions { after, .. } => {
                assert_eq!(after, Some(SessionCursor { node: 3, shard: 1, slot: 7 }));
                let sessions = vec![session("b@localhost/2")];
                ControlResponse::Sessions { sessions, next: None, silent: Vec::new() }
            }
            ControlRequest::Trace(request) => {
                let hops = request.jid.iter().map(|jid| TraceHop {
                    step: "received".into(),
                    kind: "message".into(),
                    from: Some(jid.clone()),
                    ..TraceHop::default()
                });
                for hop in hops {
                    tell(ControlResponse::Trace(TraceEvent::Quiet));
                    tell(ControlResponse::Trace(TraceEvent::Hop(Box::new(hop))));
                }
                tell(ControlResponse::Trace(TraceEvent::LeftOut { hops: 3 }));
                ControlResponse::Trace(TraceEvent::Ended { hops: 1, stanzas: 1, left_out: 3 })
            }
            ControlRequest::Kick { .. } => ControlResponse::Kicked { sessions: 2 },
            ControlRequest::Federation(request) => {
                ControlResponse::Federation(other_servers(request, tell))
            }
        }
    }
}

/// Two pages of domains; one that cannot be reached.
fn other_servers(request: FederationRequest, tell: &mut Tell<'_>) -> FederationAnswer {
    let remote = |domain: &str| RemoteDomain {
        domain: domain.to_owned(),
        state: "backing_off".into(),
        ..RemoteDomain::default()
    };
    match request {
        FederationRequest::List { after: None } => {
            FederationAnswer::Domains { domains: vec![remote("a.example")], more: true }
        }
        FederationRequest::List { after: Some(after) } => {
            assert_eq!(after, "a.example");
            FederationAnswer::Domains { domains: vec![remote("b.example")], more: false }
        }
        FederationRequest::Close { domain } => FederationAnswer::Closed { domain, connections: 1 },
        FederationRequest::Block { domain } => {
            FederationAnswer::Blocked { domain, new: true, connections: 2 }
        }
        FederationRequest::Unblock { domain } => FederationAnswer::Unblocked {
            domain,
            was: true,
            still: Some("federation.block names it".into()),
        },
        FederationRequest::Check { domain, own } => {
            assert_eq!(own.as_deref(), Some("localhost"));
            tell(ControlResponse::Federation(FederationAnswer::Waiting));
            let steps = vec![
                CheckStep { step: "dns".into(), sound: true, text: "there".into(), took_us: 900 },
                CheckStep { step: "tcp".into(), text: "refused".into(), ..CheckStep::default() },
            ];
            FederationAnswer::Checked { domain, steps, failure: Some("tcp".into()) }
        }
    }
}

#[test]
fn other_servers_are_listed_page_by_page_and_a_check_says_what_is_wrong() {
    let place = Place::new();
    let data = DataDir::open(&place.path("corefire-data")).unwrap();
    let _server = server::serve(&data, Arc::new(Full)).unwrap();
    let listed = place.run(["federation", "list"]).done();
    assert_eq!(
        listed,
        "a.example: backing off, 0 out, 0 in, sent 0, received 0\n\
         b.example: backing off, 0 out, 0 in, sent 0, received 0\n"
    );
    let listed = place.run(["federation", "list", "--json"]).done();
    assert_eq!(listed.lines().count(), 2, "{listed}");
    let told = place.run(["federation", "close", "a.example"]).done();
    assert_eq!(told, "a.example: closed 1 connection\n");
    let told = place.run(["federation", "block", "a.example"]).done();
    assert_eq!(told, "a.example is blocked; closed 2 connections\n");
    place
        .run(["federation", "unblock", "a.example"])
        .refused(&["corefire: a.example stays blocked: federation.block names it"]);
    let run = place.run(["federation", "check", "a.example", "--from", "localhost"]);
    assert_eq!(run.code, 1);
    assert_eq!(run.stdout, "ok    dns          1 ms  there\nwrong tcp          0 ms  refused\n");
    assert_eq!(run.stderr, "corefire: a.example cannot be reached (tcp)\n");
}

fn session(jid: &str) -> SessionDetail {
    SessionDetail {
        jid: jid.into(),
        address: None,
        tls: false,
        since: "2026-11-23T12:00:00.000Z".into(),
        idle_s: None,
        priority: None,
        resumable: true,
        ..SessionDetail::default()
    }
}

#[test]
fn sessions_come_page_by_page() {
    let place = Place::new();
    let data = DataDir::open(&place.path("corefire-data")).unwrap();
    let _server = server::serve(&data, Arc::new(Full)).unwrap();
    let listed = place.run(["session", "list"]).done();
    assert_eq!(
        listed,
        "a@localhost/1: waits to be resumed, unavailable, since 2026-11-23T12:00:00.000Z\n\
         b@localhost/2: waits to be resumed, unavailable, since 2026-11-23T12:00:00.000Z\n"
    );
    let listed = place.run(["session", "list", "--json"]).done();
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[1].starts_with("{\"jid\":\"b@localhost/2\",\"address\":null,"), "{listed}");
    let ended = place.run(["session", "kick", "a@localhost"]).done();
    assert_eq!(ended, "ended 2 sessions\n");
}

#[test]
fn a_trace_is_shown_as_it_comes() {
    let place = Place::new();
    let data = DataDir::open(&place.path("corefire-data")).unwrap();
    let _server = server::serve(&data, Arc::new(Full)).unwrap();
    let run = place.run(["trace", "a@localhost", "--for", "5m"]);
    assert_eq!(
        (run.code, run.stderr.as_str()),
        (0, "corefire: 1 hop of 1 stanza; 3 hops left out\n")
    );
    let lines: Vec<&str> = run.stdout.lines().collect();
    assert!(lines[0].ends_with("  received     message a@localhost -> - 0 B"), "{lines:?}");
    assert_eq!(lines[1..], ["... 3 hops left out: too many a second"]);
    let listed = place.run(["trace", "a@localhost", "--json"]).done();
    let events: Vec<serde_json::Value> =
        listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let events: Vec<&str> = events.iter().map(|one| one["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["hop", "left_out", "ended"]);
}

#[test]
fn a_running_node_is_asked_through_its_socket() {
    let place = Place::new();
    let data = DataDir::open(&place.path("corefire-data")).unwrap();
    let _server = server::serve(&data, Arc::new(Full)).unwrap();

    place
        .user(&["add", "a@localhost", "--password", "x"])
        .refused(&["corefire: all are taken; delete one"]);
    assert_eq!(place.user(&["list"]).done(), "a@localhost\nb@localhost\n");
    assert_eq!(place.user(&["delete", "a@localhost"]).done(), "deleted a@localhost\n");
    place.write("users.csv", "a@example.org,x\n");
    let run = place.user(&["import", "users.csv"]);
    assert_eq!((run.code, run.stdout.as_str()), (1, "imported 0 accounts\n"));
    assert!(
        run.stderr.starts_with("users.csv:1: a@example.org: the account exists"),
        "{}",
        run.stderr
    );

    let status: serde_json::Value =
        serde_json::from_str(&place.run(["status", "--json"]).done()).unwrap();
    assert_eq!(status["running"], true);
    assert_eq!(status["pid"], 7);
    assert_eq!(status["shards"][0]["sessions"], 1);
    assert!(place.run(["status"]).done().contains("127.0.0.1:1 (c2s.listen)"));
    assert!(place.run(["whereis", "a@localhost"]).done().contains("node n1, shard 0"));
    let told = place.run(["whereis", "a@localhost", "--json"]).done();
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&told["node_id"], &told["epoch"]), (&1.into(), &4.into()));
    assert_eq!(told["clients"], serde_json::json!(["n1.example.org:5222"]));
    let map = place.run(["cluster", "map", "--json"]).done();
    assert_eq!(serde_json::from_str::<ShardMap>(&map).unwrap(), shard_map());
    assert_eq!(
        place.run(["cluster", "map"]).done(),
        "epoch 4, 4096 partitions by sha256-rendezvous-1\n\
         n1: id 1, weight 1, 1 shards, 4096 partitions, clients: n1.example.org:5222\n"
    );
    assert!(!place.path("corefire-data/corefire.db").exists(), "only the node touches its store");
}
