//! Look-ups whose answers the test gives.

use super::*;
use crate::federation::discovery::RouteError;

/// A DNS of a few lines: `name KIND value`, with `!` and a failure, `-` for a name without such a record.
struct Zone(Vec<(Question, Answer)>);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("{text} is an address"))
}

fn srv(text: &str) -> Srv {
    let parts: Vec<&str> = text.split_whitespace().collect();
    let number = |place: usize| parts[place].parse().unwrap_or_else(|_| panic!("{text}"));
    let target = parts[3].trim_end_matches('.').to_owned();
    Srv { priority: number(0), weight: number(1), port: number(2), target }
}

impl Zone {
    fn new() -> Zone {
        Zone(Vec::new())
    }

    fn with(mut self, name: &str, kind: Kind, answer: Answer) -> Zone {
        self.0.push((Question { name: name.to_owned(), kind }, answer));
        self
    }

    fn srv(self, name: &str, records: &[&str]) -> Zone {
        let records = records.iter().map(|text| Record::Srv(srv(text))).collect();
        self.with(name, Kind::Srv, Answer::Found { records, ttl_s: 300, secure: false })
    }

    fn at(self, name: &str, addresses: &[&str]) -> Zone {
        let of = |kind: Kind| -> Vec<Record> {
            let all = addresses.iter().map(|text| ip(text));
            let fit = all.filter(|address| address.is_ipv6() == (kind == Kind::Aaaa));
            fit.map(Record::Address).collect()
        };
        let mut zone = self;
        for kind in [Kind::A, Kind::Aaaa] {
            let records = of(kind);
            let answer = match records.is_empty() {
                true => Answer::Nothing { ttl_s: 200 },
                false => Answer::Found { records, ttl_s: 200, secure: false },
            };
            zone = zone.with(name, kind, answer);
        }
        zone
    }

    fn answer(&self, question: &Question) -> Answer {
        let found = self.0.iter().find(|(asked, _)| asked == question);
        found.map_or(Answer::NoSuchName { ttl_s: 100 }, |(_, answer)| answer.clone())
    }

    /// Runs a look-up; gives what was asked, too.
    fn run(
        &self,
        domain: &str,
        routes: &Routes,
        options: Options,
    ) -> (Result<Facts, Problem>, Vec<Question>) {
        let mut rng = Rng::from_u64(1);
        let (mut search, mut step) = Search::begin(domain, routes, options);
        let mut asked = Vec::new();
        loop {
            match step {
                Step::Done(outcome) => return (outcome, asked),
                Step::Ask(questions) => {
                    assert!(!questions.is_empty() && questions.len() <= 3 * TARGETS_MAX);
                    let answers: Vec<_> = questions
                        .into_iter()
                        .map(|question| (question.clone(), self.answer(&question)))
                        .collect();
                    asked.extend(answers.iter().map(|(question, _)| question.clone()));
                    assert!(asked.len() <= 2 + 3 * TARGETS_MAX, "it ends");
                    step = search.answered(&answers, &mut rng);
                }
            }
        }
    }

    fn find(&self, domain: &str) -> Result<Facts, Problem> {
        self.run(domain, &Routes::default(), Options::default()).0
    }

    /// `host:port (security)` of all targets.
    fn targets(&self, domain: &str) -> Vec<String> {
        let facts = self.find(domain).unwrap_or_else(|problem| panic!("{problem}"));
        told(&facts.plan(&mut Rng::from_u64(2)))
    }
}

fn told(plan: &Plan) -> Vec<String> {
    plan.targets.iter().map(ToString::to_string).collect()
}

const XMPP: &str = "_xmpp-server._tcp.a.example";
const XMPPS: &str = "_xmpps-server._tcp.a.example";

/// XEP-0368 §2: one list of both kinds, by priority and weight.
#[test]
fn both_kinds_of_records_are_mixed_by_priority() {
    let zone = Zone::new()
        .srv(XMPP, &["10 0 5269 one.example", "30 0 5269 three.example"])
        .srv(XMPPS, &["20 0 5270 two.example", "10 5 443 one.example"])
        .at("one.example", &["192.0.2.1"])
        .at("two.example", &["192.0.2.2"])
        .at("three.example", &["192.0.2.3"]);
    let found = zone.targets("a.example");
    assert_eq!(found.len(), 4);
    let first = ["one.example:443 (direct TLS)", "one.example:5269 (STARTTLS)"];
    assert!(found[..2].iter().all(|one| first.contains(&one.as_str())), "{found:?}");
    assert_eq!(found[2..], ["two.example:5270 (direct TLS)", "three.example:5269 (STARTTLS)"]);
}

#[test]
fn each_plan_is_drawn_anew_by_the_weights() {
    let zone = Zone::new()
        .srv(XMPP, &["1 50 1 one.example", "1 50 2 two.example"])
        .at("one.example", &["192.0.2.1"])
        .at("two.example", &["192.0.2.2"]);
    let facts = zone.find("a.example").expect("it is there");
    let mut rng = Rng::from_u64(7);
    let firsts: Vec<u16> = (0..100).map(|_| facts.plan(&mut rng).targets[0].port).collect();
    let ones = firsts.iter().filter(|port| **port == 1).count();
    assert!((30..70).contains(&ones), "{ones}");
}

/// The name for SNI is that of the domain (XEP-0368 §2), in A-labels.
#[test]
fn domains_are_asked_for_as_a_labels() {
    let zone = Zone::new()
        .srv("_xmpp-server._tcp.xn--mnchen-3ya.example", &["0 0 5269 x.example"])
        .at("x.example", &["192.0.2.1"]);
    let facts = zone.find("m\u{fc}nchen.example").expect("it is there");
    let plan = facts.plan(&mut Rng::from_u64(1));
    assert_eq!(plan.server_name.as_deref(), Some("xn--mnchen-3ya.example"));
    assert_eq!(plan.source, Source::Srv);
}

/// RFC 6120 §3.2.2: only where there are no SRV records.
#[test]
fn the_domain_itself_is_tried_where_there_are_no_records() {
    let zone = Zone::new().at("a.example", &["192.0.2.1", "2001:db8::1"]);
    let (found, asked) = zone.run("a.example", &Routes::default(), Options::default());
    let plan = found.expect("it is there").plan(&mut Rng::from_u64(1));
    assert_eq!(told(&plan), ["a.example:5269 (STARTTLS)"]);
    assert_eq!(plan.targets[0].addresses, [ip("2001:db8::1"), ip("192.0.2.1")], "RFC 8305 §4");
    assert_eq!((plan.source, plan.ttl_s), (Source::Fallback, 100));
    assert_eq!(asked.len(), 4);
}

#[test]
fn the_domain_itself_is_not_tried_where_records_lead_nowhere() {
    let zone = Zone::new().srv(XMPP, &["0 0 5269 gone.example"]).at("a.example", &["192.0.2.1"]);
    let hosts = vec!["gone.example".to_owned()];
    assert_eq!(zone.find("a.example"), Err(Problem::NoAddress { hosts, ttl_s: 100 }));
}

#[test]
fn the_domain_itself_is_not_tried_where_nobody_knows_whether_there_are_records() {
    for why in
        [Failure::Timeout, Failure::Refused, Failure::Bogus, Failure::Aliases, Failure::Broken]
    {
        for name in [XMPP, XMPPS] {
            let zone = Zone::new()
                .with(name, Kind::Srv, Answer::Failed(why))
                .at("a.example", &["192.0.2.1"]);
            let question = Question { name: name.to_owned(), kind: Kind::Srv };
            let found = zone.find("a.example");
            assert_eq!(found, Err(Problem::Unanswered { question, why }));
            assert!(found.is_err_and(|problem| !problem.is_lasting()));
        }
    }
}

#[test]
fn one_kind_of_records_is_enough_where_the_other_is_not_known_but_not_for_long() {
    let zone = Zone::new()
        .with(XMPPS, Kind::Srv, Answer::Failed(Failure::Timeout))
        .srv(XMPP, &["0 0 5269 x.example"])
        .at("x.example", &["192.0.2.1"]);
    let facts = zone.find("a.example").expect("it is there");
    assert_eq!((facts.targets.len(), facts.ttl_s()), (1, TTL_PARTIAL_S));
}

#[test]
fn a_name_that_is_not_there_is_said_so_with_how_long_it_is_good() {
    let problem = Zone::new().find("a.example").expect_err("it is not there");
    assert_eq!(problem, Problem::NoSuchDomain { ttl_s: 100 });
    assert!(problem.is_lasting());
}

/// RFC 2782: "A Target of "." means that the service is decidedly not available at this domain."
#[test]
fn the_target_dot_means_that_there_is_nothing() {
    let zone = Zone::new().srv(XMPP, &["0 0 0 ."]).at("a.example", &["192.0.2.1"]);
    let problem = zone.find("a.example").expect_err("it is not offered");
    assert_eq!(problem, Problem::NotOffered { ttl_s: 100 });
    assert!(problem.is_lasting());
    let both = Zone::new().srv(XMPP, &["0 0 0 ."]).srv(XMPPS, &["0 0 0 ."]);
    assert_eq!(both.find("a.example"), Err(Problem::NotOffered { ttl_s: 300 }));
}

/// XEP-0368 §2: each kind for itself.
#[test]
fn the_target_dot_of_one_kind_says_nothing_of_the_other() {
    let direct_only = Zone::new()
        .srv(XMPP, &["0 0 0 ."])
        .srv(XMPPS, &["0 0 443 x.example"])
        .at("x.example", &["192.0.2.1"]);
    assert_eq!(direct_only.targets("a.example"), ["x.example:443 (direct TLS)"]);
    let no_direct = Zone::new().srv(XMPPS, &["0 0 0 ."]).at("a.example", &["192.0.2.1"]);
    assert_eq!(no_direct.targets("a.example"), ["a.example:5269 (STARTTLS)"]);
    let beside_others = Zone::new()
        .srv(XMPP, &["0 0 0 .", "5 0 5269 x.example", "1 0 0 x.example"])
        .at("x.example", &["192.0.2.1"]);
    assert_eq!(beside_others.targets("a.example"), ["x.example:5269 (STARTTLS)"]);
}

#[test]
fn a_thousand_targets_are_cut_to_the_first_by_priority() {
    let texts: Vec<String> =
        (0..1_000).rev().map(|n| format!("{n} 1 {} t{}.example", n + 1, n % 400)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    // As `runtime` gives them: the lowest priorities first.
    let mut records: Vec<&str> = texts.clone();
    records.reverse();
    let mut zone = Zone::new().srv(XMPP, &records).srv(XMPPS, &records);
    for number in 0..400 {
        zone = zone.at(&format!("t{number}.example"), &["192.0.2.1"]);
    }
    let (found, asked) = zone.run("a.example", &Routes::default(), Options::default());
    let plan = found.expect("it is there").plan(&mut Rng::from_u64(1));
    assert_eq!(plan.targets.len(), TARGETS_MAX);
    assert!(plan.targets.iter().all(|target| usize::from(target.port) <= TARGETS_MAX / 2));
    assert!(asked.len() <= 2 + 2 * TARGETS_MAX);
}

#[test]
fn a_thousand_addresses_are_cut_and_a_place_that_is_named_twice_is_tried_once() {
    let addresses: Vec<String> =
        (0..1_000).map(|n| format!("192.0.{}.{}", n / 200, n % 200 + 1)).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let zone = Zone::new().srv(XMPP, &["0 1 5269 x.example"; 20]).at("x.example", &addresses);
    let facts = zone.find("a.example").expect("it is there");
    assert_eq!(facts.targets.len(), 1);
    assert_eq!(facts.targets[0].addresses.len(), ADDRESSES_MAX);
}

#[test]
fn a_target_without_an_address_is_passed_over() {
    let zone = Zone::new()
        .srv(XMPP, &["0 0 1 gone.example", "1 0 2 here.example", "2 0 3 silent.example"])
        .at("here.example", &["192.0.2.1"])
        .with("silent.example", Kind::A, Answer::Failed(Failure::Timeout));
    assert_eq!(zone.targets("a.example"), ["here.example:2 (STARTTLS)"]);
    let facts = zone.find("a.example").expect("it is there");
    assert_eq!(facts.ttl_s(), TTL_PARTIAL_S, "the third may answer soon");
}

#[test]
fn one_family_of_addresses_is_enough() {
    let zone = Zone::new()
        .srv(XMPP, &["0 0 1 x.example"])
        .with("x.example", Kind::Aaaa, Answer::Failed(Failure::Refused))
        .with(
            "x.example",
            Kind::A,
            Answer::Found {
                records: vec![Record::Address(ip("192.0.2.1"))],
                ttl_s: 9,
                secure: false,
            },
        );
    assert_eq!(zone.targets("a.example"), ["x.example:1 (STARTTLS)"]);
}

#[test]
fn addresses_that_nobody_gives_in_time_are_no_reason_to_give_up_for_good() {
    let zone = Zone::new().srv(XMPP, &["0 0 1 x.example"]).with(
        "x.example",
        Kind::A,
        Answer::Failed(Failure::Timeout),
    );
    assert!(zone.find("a.example").is_err_and(|problem| !problem.is_lasting()));
}

/// Who writes a record must not have us connect to what stands behind our firewall.
#[test]
fn strangers_records_do_not_lead_to_this_machine_unless_the_operator_permits_it() {
    for (address, permitted) in [
        ("127.0.0.1", true),
        ("10.1.2.3", true),
        ("fd00::1", true),
        ("::ffff:127.0.0.1", true),
        ("169.254.169.254", false),
        ("0.0.0.0", false),
        ("224.0.0.1", false),
    ] {
        let record = Record::Address(ip(address));
        let answer = Answer::Found { records: vec![record], ttl_s: 200, secure: false };
        let zone =
            Zone::new().srv(XMPP, &["0 0 5269 x.example"]).with("x.example", Kind::A, answer);
        let problem = zone.find("a.example").expect_err("it is local");
        assert!(matches!(problem, Problem::LocalAddress { .. }), "{address}: {problem}");
        assert!(problem.is_lasting());
        let options = Options { local_addresses: true, dane: false };
        let found = zone.run("a.example", &Routes::default(), options).0;
        assert_eq!(found.is_ok(), permitted, "{address}");
    }
}

#[test]
fn records_of_another_kind_than_was_asked_for_are_ignored() {
    let wrong = vec![Record::Address(ip("192.0.2.1"))];
    let zone = Zone::new()
        .with(XMPP, Kind::Srv, Answer::Found { records: wrong, ttl_s: 1, secure: false })
        .at("a.example", &["192.0.2.1"]);
    assert_eq!(zone.find("a.example"), Err(Problem::NotOffered { ttl_s: 1 }));
}

#[test]
fn a_domain_that_is_an_address_is_connected_to_without_being_asked_for() {
    let options = Options { local_addresses: true, dane: false };
    for (domain, expected) in [
        ("192.0.2.7", "192.0.2.7:5269 (STARTTLS)"),
        ("[2001:db8::7]", "[2001:db8::7]:5269 (STARTTLS)"),
    ] {
        let (found, asked) = Zone::new().run(domain, &Routes::default(), options);
        let plan = found.expect("it is an address").plan(&mut Rng::from_u64(1));
        assert_eq!((told(&plan), asked.len()), (vec![expected.to_owned()], 0));
        assert_eq!((plan.server_name, plan.source), (None, Source::Literal));
    }
    for domain in ["127.0.0.1", "[::1]", "0.0.0.0"] {
        let problem = Zone::new().find(domain).expect_err("it is local");
        assert!(matches!(problem, Problem::LocalAddress { .. }));
    }
}

#[test]
fn a_route_stands_above_the_dns() -> Result<(), RouteError> {
    let mut routes = Routes::default();
    routes.insert("a.example", "127.0.0.1:5270 tls://host.example [2001:db8::1]:1")?;
    let zone = Zone::new().srv(XMPP, &["0 0 1 x.example"]).at("host.example", &["10.0.0.1"]);
    let (found, asked) =
        zone.run("a.example", &routes, Options { local_addresses: false, dane: true });
    let plan = found.expect("there is a route").plan(&mut Rng::from_u64(1));
    let expected = [
        "127.0.0.1:5270 (STARTTLS)",
        "host.example:5269 (direct TLS)",
        "[2001:db8::1]:1 (STARTTLS)",
    ];
    assert_eq!(told(&plan), expected);
    assert_eq!((plan.source, plan.server_name.as_deref()), (Source::Route, Some("a.example")));
    assert_eq!(asked.len(), 2, "{asked:?}");
    routes.insert("a.example", "gone.example")?;
    let problem = zone.run("a.example", &routes, Options::default()).0.expect_err("it is gone");
    assert!(matches!(problem, Problem::NoAddress { .. }));
    Ok(())
}

#[test]
fn a_domain_without_room_for_the_labels_of_a_service_has_a_problem() {
    let domain = format!("{}.example", ["a".repeat(60).as_str(); 4].join("."));
    assert_eq!(domain.len(), 251);
    assert_eq!(Zone::new().find(&domain), Err(Problem::BadName));
    assert!(Problem::BadName.is_lasting());
}

#[test]
fn answers_that_are_missing_or_for_other_questions_do_no_harm() {
    let mut rng = Rng::from_u64(1);
    let (mut search, _) = Search::begin("a.example", &Routes::default(), Options::default());
    assert!(matches!(search.answered(&[], &mut rng), Step::Ask(_)));
    let stranger = Question { name: "b.example".to_owned(), kind: Kind::A };
    let records = vec![Record::Address(ip("192.0.2.1"))];
    let answer = Answer::Found { records, ttl_s: 1, secure: true };
    let step = search.answered(&[(stranger, answer)], &mut rng);
    assert!(matches!(step, Step::Done(Err(Problem::NoSuchDomain { .. }))));
}

mod dane {
    use super::*;

    const DANE: Options = Options { local_addresses: false, dane: true };
    const TLSA: &str = "_5269._tcp.x.example";

    fn tlsa(usage: u8, selector: u8, matching: u8, len: usize) -> Record {
        Record::Tlsa(Tlsa { usage, selector, matching, data: vec![7; len] })
    }

    fn zone(srv_secure: bool, address_secure: bool, answer: Answer) -> Zone {
        let service = Record::Srv(srv("0 0 5269 x.example"));
        let address = Record::Address(ip("192.0.2.1"));
        let found = |record, secure| Answer::Found { records: vec![record], ttl_s: 300, secure };
        Zone::new()
            .with(XMPP, Kind::Srv, found(service, srv_secure))
            .with("x.example", Kind::A, found(address, address_secure))
            .with(TLSA, Kind::Tlsa, answer)
    }

    fn found(records: Vec<Record>, secure: bool) -> Answer {
        Answer::Found { records, ttl_s: 300, secure }
    }

    fn of(zone: &Zone, options: Options) -> usize {
        let facts = zone.run("a.example", &Routes::default(), options).0.expect("it is there");
        facts.targets[0].tlsa.len()
    }

    /// RFC 7673 §3: the records count only where all that led to them is proven.
    #[test]
    fn records_count_only_where_all_is_proven() {
        let records = || vec![tlsa(3, 1, 1, 32)];
        assert_eq!(of(&zone(true, true, found(records(), true)), DANE), 1);
        assert_eq!(of(&zone(false, true, found(records(), true)), DANE), 0);
        assert_eq!(of(&zone(true, false, found(records(), true)), DANE), 0);
        assert_eq!(of(&zone(true, true, found(records(), false)), DANE), 0);
        assert_eq!(of(&zone(true, true, found(records(), true)), Options::default()), 0);
    }

    #[test]
    fn records_are_not_asked_for_where_they_cannot_count() {
        let zone = zone(false, true, found(vec![tlsa(3, 1, 1, 32)], true));
        let (_, asked) = zone.run("a.example", &Routes::default(), DANE);
        assert!(asked.iter().all(|question| question.kind != Kind::Tlsa));
    }

    /// RFC 7671 §4.1
    #[test]
    fn records_that_cannot_be_used_are_as_if_not_there_and_many_are_cut() {
        let odd = vec![
            tlsa(4, 0, 1, 32),
            tlsa(1, 0, 1, 32),
            tlsa(3, 2, 1, 32),
            tlsa(3, 0, 3, 32),
            tlsa(3, 0, 1, 31),
            tlsa(3, 0, 2, 32),
            tlsa(3, 0, 0, 0),
        ];
        assert_eq!(of(&zone(true, true, found(odd, true)), DANE), 0);
        assert_eq!(of(&zone(true, true, found(vec![tlsa(2, 0, 2, 64); 99], true)), DANE), TLSA_MAX);
    }

    /// RFC 7672 §2.1: who keeps them from us must not have their way.
    #[test]
    fn a_target_whose_records_are_kept_from_us_is_not_tried() {
        let zone = zone(true, true, Answer::Failed(Failure::Bogus));
        let problem = zone.run("a.example", &Routes::default(), DANE).0.expect_err("none is left");
        assert!(!problem.is_lasting());
        assert_eq!(
            problem.to_string(),
            "_5269._tcp.x.example TLSA: the answer fails DNSSEC validation"
        );
    }
}
