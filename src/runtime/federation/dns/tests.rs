//! The resolver's thread against a server of the test's own, which says what the test wants, true or not.

use super::*;
use crate::federation::discovery::Target;
use hickory_resolver::proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, SOA, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use std::io::{Read, Write};
use std::net::{Ipv6Addr, TcpListener, UdpSocket};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};

/// What a server answers; `None`: nothing at all.
type Script = dyn Fn(&Message, &str, RecordType) -> Option<Message> + Send + Sync;

/// A server on the loopback, UDP and TCP, that counts what it is asked.
struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(
        script: impl Fn(&Message, &str, RecordType) -> Option<Message> + Send + Sync + 'static,
    ) -> Server {
        let script: Arc<Script> = Arc::new(script);
        let (udp, tcp) = sockets();
        let address = udp.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let reply = {
            let asked = asked.clone();
            move |bytes: &[u8]| -> Option<Vec<u8>> {
                let query = Message::from_vec(bytes).ok()?;
                let question = query.queries.first()?;
                let name = question.name().to_ascii().to_ascii_lowercase();
                let kind = question.query_type();
                asked.lock().unwrap().push(format!("{name} {kind}"));
                script(&query, name.trim_end_matches('.'), kind)?.to_vec().ok()
            }
        };
        // These end with the process of the test.
        let (over_udp, over_tcp) = (reply.clone(), reply);
        std::thread::spawn(move || {
            let mut bytes = [0; 65_535];
            while let Ok((length, from)) = udp.recv_from(&mut bytes) {
                let Some(mut answer) = over_udp(&bytes[..length]) else { continue };
                if answer.len() > 1_232 {
                    answer = cut(&answer);
                }
                let _ = udp.send_to(&answer, from);
            }
        });
        std::thread::spawn(move || {
            for stream in tcp.incoming() {
                let (Ok(mut stream), over_tcp) = (stream, over_tcp.clone()) else { continue };
                std::thread::spawn(move || {
                    let mut length = [0; 2];
                    while stream.read_exact(&mut length).is_ok() {
                        let mut bytes = vec![0; u16::from_be_bytes(length).into()];
                        if stream.read_exact(&mut bytes).is_err() {
                            return;
                        }
                        let Some(answer) = over_tcp(&bytes) else { continue };
                        let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
                        if stream.write_all(&[&length[..], &answer].concat()).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Server { address, asked }
    }

    /// One whose zone is a list of `name KIND value`.
    fn zone(lines: &'static [&'static str]) -> Server {
        Server::start(move |query, name, kind| {
            let found: Vec<Record> =
                lines.iter().filter_map(|line| record(line, name, kind)).collect();
            let is_known = lines.iter().any(|line| line.split_whitespace().next() == Some(name));
            let code = if is_known { ResponseCode::NoError } else { ResponseCode::NXDomain };
            Some(if found.is_empty() { absent(query, code) } else { answer(query, found) })
        })
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    fn dns(&self) -> Dns {
        self.dns_with(Routes::default())
    }

    fn dns_with(&self, routes: Routes) -> Dns {
        Dns::start(self.settings(routes)).unwrap()
    }

    fn settings(&self, routes: Routes) -> DnsSettings {
        let servers = vec![self.address];
        DnsSettings { servers, routes: Arc::new(routes), ..DnsSettings::default() }
    }
}

/// On one port.
fn sockets() -> (UdpSocket, TcpListener) {
    for _ in 0..100 {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
            return (udp, tcp);
        }
    }
    panic!("no port is free for both");
}

/// The same without its records, and with the bit that says so.
fn cut(bytes: &[u8]) -> Vec<u8> {
    let mut message = Message::from_vec(bytes).unwrap();
    message.answers.clear();
    message.metadata.truncation = true;
    message.to_vec().unwrap()
}

fn answer(query: &Message, records: Vec<Record>) -> Message {
    let mut message = Message::response(query.metadata.id, OpCode::Query);
    message.metadata.message_type = MessageType::Response;
    message.metadata.recursion_available = true;
    message.add_queries(query.queries.clone());
    message.add_answers(records);
    message
}

/// With the SOA record that says for how long.
fn absent(query: &Message, code: ResponseCode) -> Message {
    let mut message = answer(query, Vec::new());
    message.metadata.response_code = code;
    let soa = SOA::new(name("ns.example"), name("x.example"), 1, 1, 1, 1, 77);
    message.add_authority(Record::from_rdata(name("example"), 90, RData::SOA(soa)));
    message
}

fn name(text: &str) -> Name {
    Name::from_ascii(format!("{}.", text.trim_end_matches('.'))).unwrap()
}

fn record(line: &str, asked: &str, kind: RecordType) -> Option<Record> {
    let parts: Vec<&str> = line.split_whitespace().collect();
    let is_alias = parts[1] == "CNAME";
    (parts[0] == asked && (is_alias || parts[1] == kind.to_string())).then(|| made(&parts))
}

fn made(parts: &[&str]) -> Record {
    let data = match parts[1] {
        "A" => RData::A(A(parts[2].parse().unwrap())),
        "AAAA" => RData::AAAA(AAAA(parts[2].parse().unwrap())),
        "CNAME" => RData::CNAME(CNAME(name(parts[2]))),
        _ => {
            let number = |place: usize| parts[place].parse().unwrap();
            RData::SRV(SRV::new(number(2), number(3), number(4), name(parts[5])))
        }
    };
    Record::from_rdata(name(parts[0]), 300, data)
}

fn ask(dns: &Dns, domain: &str) -> Receiver<Result<Arc<Plan>, Problem>> {
    let (sender, receiver) = channel();
    dns.resolve(domain.into(), move |outcome, _| sender.send(outcome).unwrap());
    receiver
}

fn find(dns: &Dns, domain: &str) -> Result<Arc<Plan>, Problem> {
    ask(dns, domain).recv_timeout(Duration::from_secs(20)).expect("an answer, always")
}

fn targets(plan: &Plan) -> Vec<String> {
    plan.targets.iter().map(Target::to_string).collect()
}

#[test]
fn records_are_found_in_all_their_kinds_and_remembered() {
    let server = Server::zone(&[
        "_xmpp-server._tcp.a.example SRV 5 0 5269 x.example",
        "_xmpps-server._tcp.a.example SRV 1 0 5270 X.Example",
        "x.example A 192.0.2.1",
        "x.example AAAA 2001:db8::1",
    ]);
    let dns = server.dns();
    let plan = find(&dns, "a.example").unwrap();
    assert_eq!(targets(&plan), ["x.example:5270 (direct TLS)", "x.example:5269 (STARTTLS)"]);
    let addresses: [IpAddr; 2] = ["2001:db8::1".parse().unwrap(), "192.0.2.1".parse().unwrap()];
    assert_eq!(plan.targets[0].addresses, addresses);
    assert_eq!((plan.ttl_s, server.asked()), (300, 4));
    assert_eq!(find(&dns, "a.example").unwrap().targets.len(), 2);
    assert_eq!(server.asked(), 4, "remembered");
    dns.reconfigure(server.settings(Routes::default())).unwrap();
    find(&dns, "a.example").unwrap();
    assert_eq!(server.asked(), 8, "forgotten");
}

#[test]
fn names_that_are_not_there_are_remembered_too() {
    let server = Server::zone(&[]);
    let dns = server.dns();
    for _ in 0..3 {
        assert_eq!(find(&dns, "gone.example"), Err(Problem::NoSuchDomain { ttl_s: 77 }));
    }
    assert_eq!(server.asked(), 4);
}

/// hickory's own resolver finds neither: it takes the target of an SRV record for an alias.
#[test]
fn aliases_are_followed_to_records_of_services_and_to_addresses() {
    let server = Server::zone(&[
        "_xmpp-server._tcp.a.example CNAME srv.hoster.example",
        "srv.hoster.example SRV 0 0 5269 x.hoster.example",
        "x.hoster.example CNAME y.hoster.example",
        "y.hoster.example A 192.0.2.1",
    ]);
    let plan = find(&server.dns(), "a.example").unwrap();
    assert_eq!(targets(&plan), ["x.hoster.example:5269 (STARTTLS)"]);
}

#[test]
fn a_whole_chain_of_aliases_in_one_answer_takes_one_question() {
    let server = Server::start(|query, asked, kind| {
        if kind != RecordType::SRV || asked != "_xmpp-server._tcp.a.example" {
            return Some(match (asked, kind) {
                ("x.example", RecordType::A) => {
                    answer(query, vec![made(&["x.example", "A", "192.0.2.1"])])
                }
                _ => absent(query, ResponseCode::NoError),
            });
        }
        // Out of order, and with records of others between.
        let lines = [
            "s2.example SRV 0 0 5269 x.example",
            "evil.example SRV 0 0 1 evil.example",
            "s1.example CNAME s2.example",
            "_xmpp-server._tcp.a.example CNAME s1.example",
            "_xmpp-server._tcp.b.example SRV 0 0 1 evil.example",
        ];
        let all = lines.map(|line| made(&line.split_whitespace().collect::<Vec<_>>()));
        Some(answer(query, all.to_vec()))
    });
    let plan = find(&server.dns(), "a.example").unwrap();
    assert_eq!(targets(&plan), ["x.example:5269 (STARTTLS)"]);
    assert_eq!(server.asked(), 4);
}

#[test]
fn aliases_in_a_circle_or_without_an_end_are_left() {
    let circle = Server::zone(&[
        "_xmpp-server._tcp.a.example CNAME one.example",
        "one.example CNAME two.example",
        "two.example CNAME one.example",
    ]);
    let problem = find(&circle.dns(), "a.example").unwrap_err();
    let why = Failure::Aliases;
    let question = Question { name: "_xmpp-server._tcp.a.example".to_owned(), kind: Kind::Srv };
    assert_eq!(problem, Problem::Unanswered { question, why });
    let endless = Server::start(|query, asked, _| {
        let next = format!("x{}.example", query.metadata.id);
        Some(answer(query, vec![made(&[asked, "CNAME", &next])]))
    });
    let problem = find(&endless.dns(), "a.example").unwrap_err();
    assert!(matches!(problem, Problem::Unanswered { why: Failure::Aliases, .. }), "{problem}");
    assert!(endless.asked() <= 2 * (answer::ALIASES_MAX + 1), "{}", endless.asked());
}

#[test]
fn a_server_that_says_nothing_is_given_up() {
    let server = Server::start(|_, _, _| None);
    let dns = server.dns();
    let since = Instant::now();
    let problem = find(&dns, "a.example").unwrap_err();
    assert!(matches!(problem, Problem::Unanswered { why: Failure::Timeout, .. }), "{problem}");
    assert!(since.elapsed() < Duration::from_secs(10));
    assert!(!problem.is_lasting());
}

#[test]
fn the_second_server_is_asked_where_the_first_is_dead_or_refuses() {
    let good = Server::zone(&["a.example A 192.0.2.1"]);
    let refuses = Server::start(|query, _, _| {
        let mut message = answer(query, Vec::new());
        message.metadata.response_code = ResponseCode::Refused;
        Some(message)
    });
    let dead = Server::start(|_, _, _| None);
    for bad in [&refuses, &dead] {
        let servers = vec![bad.address, good.address];
        let dns = Dns::start(DnsSettings { servers, ..DnsSettings::default() }).unwrap();
        assert_eq!(targets(&find(&dns, "a.example").unwrap()), ["a.example:5269 (STARTTLS)"]);
    }
    let problem = find(&refuses.dns(), "a.example").unwrap_err();
    assert!(matches!(problem, Problem::Unanswered { why: Failure::Refused, .. }), "{problem}");
}

/// 64 KiB of records come over TCP.
#[test]
fn a_thousand_targets_are_cut_to_the_first() {
    let server = Server::start(|query, asked, kind| {
        Some(match kind {
            RecordType::SRV if asked.starts_with("_xmpp-") => {
                let all = (0..1_000u32).rev().map(|n| {
                    made(&[asked, "SRV", &n.to_string(), "0", "5269", &format!("t{n}.example")])
                });
                answer(query, all.collect())
            }
            RecordType::A => answer(query, vec![made(&[asked, "A", "192.0.2.1"])]),
            _ => absent(query, ResponseCode::NoError),
        })
    });
    let plan = find(&server.dns(), "a.example").unwrap();
    let expected: Vec<String> = (0..16).map(|n| format!("t{n}.example:5269 (STARTTLS)")).collect();
    assert_eq!(targets(&plan), expected);
}

#[test]
fn answers_to_other_questions_and_with_odd_targets_lead_nowhere() {
    let liar = Server::start(|query, _, kind| {
        Some(match kind {
            RecordType::SRV => {
                answer(query, vec![made(&["b.example", "SRV", "0", "0", "1", "evil.example"])])
            }
            _ => answer(query, vec![made(&["b.example", "A", "192.0.2.1"])]),
        })
    });
    let problem = find(&liar.dns(), "a.example").unwrap_err();
    assert!(matches!(problem, Problem::Unanswered { why: Failure::Broken, .. }), "{problem}");
    let odd = Server::start(|query, asked, _| {
        let target = Name::from_labels([&b"a b"[..], b"ex\0ample"]).unwrap();
        let data = RData::SRV(SRV::new(0, 0, 5269, target));
        Some(answer(query, vec![Record::from_rdata(name(asked), 300, data)]))
    });
    assert!(matches!(find(&odd.dns(), "a.example"), Err(Problem::NotOffered { .. })));
}

/// It knows other servers and not the answer: no reason to think that there is none.
#[test]
fn a_referral_is_no_absence() {
    let server = Server::start(|query, _, _| {
        let mut message = answer(query, Vec::new());
        let ns = hickory_resolver::proto::rr::rdata::NS(name("ns.example"));
        message.add_authority(Record::from_rdata(name("example"), 90, RData::NS(ns)));
        Some(message)
    });
    let problem = find(&server.dns(), "a.example").unwrap_err();
    assert!(matches!(problem, Problem::Unanswered { why: Failure::Refused, .. }), "{problem}");
}

#[test]
fn each_that_asks_has_an_answer_and_those_beyond_the_bound_at_once() {
    let server = Server::start(|_, _, _| None);
    let dns = server.dns();
    let waiting: Vec<_> = (0..WAITING_MAX).map(|_| ask(&dns, "a.example")).collect();
    let since = Instant::now();
    assert_eq!(ask(&dns, "b.example").try_recv(), Ok(Err(Problem::Busy)));
    assert!(since.elapsed() < Duration::from_millis(100));
    for one in waiting {
        let outcome = one.recv_timeout(Duration::from_secs(20)).expect("an answer, always");
        assert!(matches!(outcome, Err(Problem::Unanswered { .. })));
    }
    assert!(server.asked() <= 8, "one look-up for all: {}", server.asked());
    assert_eq!(dns.waiting.load(Ordering::Relaxed), 0);
}

#[test]
fn look_ups_in_flight_are_bounded_and_those_that_wait_come_after() {
    let server = Server::zone(&[]);
    let dns = server.dns();
    let all: Vec<_> = (0..1_000).map(|n| ask(&dns, &format!("n{n}.example"))).collect();
    for one in all {
        let outcome = one.recv_timeout(Duration::from_secs(60)).expect("an answer, always");
        assert!(matches!(outcome, Err(Problem::NoSuchDomain { .. })), "{outcome:?}");
    }
}

#[test]
fn the_thread_ends_with_the_last_that_can_ask_and_nobody_is_left_without_an_answer() {
    let server = Server::start(|_, _, _| None);
    let dns = server.dns();
    let one = ask(&dns, "a.example");
    drop(dns);
    assert!(one.recv_timeout(Duration::from_secs(20)).expect("an answer, always").is_err());
    // Its sender went with the closure, the closure with the thread's list.
    assert!(one.recv_timeout(Duration::from_secs(20)).is_err());
}

#[test]
fn routes_are_followed_without_a_question() {
    let server = Server::start(|_, _, _| None);
    let mut routes = Routes::default();
    routes.insert("a.example", "127.0.0.1:5270").unwrap();
    let plan = find(&server.dns_with(routes), "a.example").unwrap();
    assert_eq!((targets(&plan), server.asked()), (vec!["127.0.0.1:5270 (STARTTLS)".to_owned()], 0));
}

#[test]
fn without_servers_of_its_own_the_names_of_this_machine_are_known() {
    let local_addresses = true;
    let dns = Dns::start(DnsSettings { local_addresses, ..DnsSettings::default() }).unwrap();
    let plan = find(&dns, "localhost").unwrap();
    let loopback = |address: &IpAddr| address.is_loopback();
    assert!(plan.targets[0].addresses.iter().all(loopback), "{plan:?}");
    assert!(matches!(find(&dns, "x.onion"), Err(Problem::NoSuchDomain { .. })));
    assert!(matches!(find(&dns, "x.invalid"), Err(Problem::NoSuchDomain { .. })));
}

#[test]
fn servers_are_named_with_a_port_or_without() {
    let v6 = IpAddr::V6(Ipv6Addr::LOCALHOST);
    for (text, expected) in [
        ("192.0.2.1", Some(SocketAddr::from(([192, 0, 2, 1], 53)))),
        ("192.0.2.1:5353", Some(SocketAddr::from(([192, 0, 2, 1], 5353)))),
        ("::1", Some(SocketAddr::new(v6, 53))),
        ("[::1]", Some(SocketAddr::new(v6, 53))),
        ("[::1]:54", Some(SocketAddr::new(v6, 54))),
        ("dns.example", None),
        ("", None),
    ] {
        assert_eq!(super::server(text), expected, "{text}");
    }
}

#[test]
fn a_trust_anchor_that_cannot_be_read_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("anchor");
    for text in [None, Some(""), Some("this is no key")] {
        if let Some(text) = text {
            std::fs::write(&path, text).unwrap();
        }
        let dnssec = Some(Dnssec::File(path.clone()));
        let error = Dns::start(DnsSettings { dnssec, ..DnsSettings::default() }).unwrap_err();
        assert!(error.to_string().contains("trust anchor"), "{error}");
    }
}

#[test]
fn documents_are_fetched_from_where_names_may_lead_and_only_where_that_is_wanted() {
    use crate::base::hash::Map;
    use crate::runtime::federation::certificates::Trust;
    let server = Server::zone(&["a.example A 127.9.9.9", "b.example CNAME a.example"]);
    let document = |local_addresses: bool, is_on: bool, domain: &str| {
        let posh = is_on
            .then(|| PoshSettings { trust: Trust::load(None).unwrap(), routes: Map::default() });
        let settings = server.settings(Routes::default());
        let dns = Dns::start(DnsSettings { local_addresses, posh, ..settings }).unwrap();
        let (sender, receiver) = channel();
        dns.posh(domain.into(), move |outcome, _| sender.send(outcome).unwrap());
        receiver.recv_timeout(Duration::from_secs(20)).expect("an answer, always").unwrap_err()
    };
    for domain in ["a.example", "b.example", "nobody.example"] {
        let problem = document(false, true, domain);
        let none = format!("{domain} has no address that may be connected to");
        assert_eq!(problem, PoshProblem::Unreachable(none));
    }
    let PoshProblem::Unreachable(why) = document(true, true, "a.example") else { panic!() };
    assert!(!why.contains("no address"), "it was connected to: {why}");
    assert_eq!(document(true, false, "a.example"), PoshProblem::Busy);
    assert_eq!(document(true, true, "192.0.2.1"), PoshProblem::NoName);
}
