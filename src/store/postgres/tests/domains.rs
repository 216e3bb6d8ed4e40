//! Remote domains on a real server: along which index they are found, and a batch that is run again.

use super::super::link::SESSION;
use super::super::reader::REMOTE_LOGS;
use super::*;

const DOMAIN: &str = "capulet.example";

fn domains(reader: &mut dyn Reader) -> Vec<String> {
    match reader.read(&Query::RemoteLogs { after: None, limit: 9 }).unwrap() {
        Answer::RemoteLogs(domains) => domains.iter().map(|jid| jid.to_string()).collect(),
        other => panic!("domains were asked for, not {other:?}"),
    }
}

/// However many accounts and correspondents there are, and before anybody has counted them.
#[test]
fn domains_with_rows_are_found_among_the_domains_alone() {
    let Some(server) = Server::start(QUICK) else { return };
    let settings = settings(&server, "corefire");
    let mut writer = open(&settings);
    writer.commit(&[append(DOMAIN, 1)]).unwrap();
    server.sql(
        "corefire",
        "INSERT INTO jid (text) SELECT 'u' || n || '@example.org' FROM generate_series(1, 20000) AS n",
    );
    let asked = REMOTE_LOGS.replace("$1", "''").replace("$2", "100");
    for before in ["", "ANALYZE;"] {
        let plan = server.sql("corefire", &format!("{before} {SESSION} EXPLAIN {asked}"));
        assert!(plan.contains("jid_domain") && !plan.contains("Sort"), "{plan}");
        assert!(plan.contains("pending_pkey on pending"), "{plan}");
    }
    assert_eq!(domains(&mut PostgresReader::open(&settings).unwrap()), [DOMAIN]);
}

#[test]
fn a_batch_of_a_domain_whose_fate_is_unknown_is_done_once() {
    let Some(server) = Server::start(QUICK) else { return };
    let settings = settings(&server, "corefire");
    let mut writer = open(&settings);
    let confirm = Write::ConfirmLog { owner: bare(DOMAIN), ids: vec![1] };
    let batch = [append(DOMAIN, 1), append(DOMAIN, 2), confirm, create(DOMAIN)];
    let expected = [Written::Done, Written::Done, Written::Done, Written::NoAccount];
    assert_eq!(writer.commit(&batch).unwrap(), expected);
    writer.lose_answer();
    assert!(writer.commit(&batch).is_err());
    writer.reopen().unwrap();
    assert_eq!(writer.commit(&batch).unwrap(), expected);
    let mut reader = PostgresReader::open(&settings).unwrap();
    assert_eq!(
        (ids(&mut reader, DOMAIN), domains(&mut reader)),
        (vec![2], vec![DOMAIN.to_owned()])
    );
}
