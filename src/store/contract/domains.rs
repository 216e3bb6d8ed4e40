//! The part of the suite about remote domains: rows that wait for them, without an account.

use super::super::{
    Answer, ArchiveQuery, Keep, LOG_ID_MAX, LogEntry, Origin, Query, Write, Written,
};
use super::{
    JULIET, Pair, ROMEO, append, bare, contact, create, credentials, entry, put_roster, put_slot,
};
use crate::base::instant::Wall;

pub(super) const CHECKS: &[fn(&mut Pair)] = &[
    rows_wait_for_a_domain_that_has_no_account,
    a_domain_never_has_an_account,
    a_domain_has_pending_rows_and_nothing_else,
    rows_of_a_domain_go_when_they_are_confirmed,
    domains_with_rows_are_listed_in_the_order_of_their_text,
    a_domain_is_not_among_the_accounts,
    a_domain_and_the_accounts_of_its_name_are_kept_apart,
    a_message_to_a_domain_is_known_by_its_origin,
    rows_of_domains_survive_reopening,
    a_batch_that_cannot_be_committed_leaves_no_domain,
    a_reader_that_holds_on_sees_the_domains_of_one_moment,
];

const DOMAIN: &str = "capulet.example";

fn confirm(owner: &str, ids: &[u64]) -> Write {
    Write::ConfirmLog { owner: bare(owner), ids: ids.to_vec() }
}

fn domains_after(store: &mut Pair, after: Option<&str>, limit: u32) -> Vec<String> {
    let query = Query::RemoteLogs { after: after.map(bare), limit };
    match store.reader.read(&query).unwrap() {
        Answer::RemoteLogs(domains) => domains.iter().map(|jid| jid.to_string()).collect(),
        other => panic!("domains were asked for, not {other:?}"),
    }
}

fn domains(store: &mut Pair) -> Vec<String> {
    domains_after(store, None, 100)
}

fn rows_wait_for_a_domain_that_has_no_account(store: &mut Pair) {
    assert_eq!(domains(store), [""; 0]);
    store.done(&[append(DOMAIN, 2), append(DOMAIN, 7), append(DOMAIN, 2)]);
    // Also where it is known by then, and rows come late.
    store.done(&[append(DOMAIN, 9), append(DOMAIN, 5)]);
    assert_eq!(store.ids(DOMAIN), [2, 5, 7, 9]);
    let Write::AppendLog { entry: first, .. } = append(DOMAIN, 2) else { unreachable!() };
    assert_eq!(store.page(DOMAIN, 0, 1), (vec![first], true), "each field as it was put");
    assert_eq!(store.page(DOMAIN, 5, 2).0.len(), 2);
    let other = entry(2, "mercutio@example.org/a", b"<message>another</message>");
    store.done(&[Write::AppendLog { owner: bare(DOMAIN), entry: other }]);
    let (rows, _) = store.page(DOMAIN, 0, 1);
    assert_eq!(rows[0].with.to_string(), ROMEO, "what is there already stays as it is");
    assert_eq!(domains(store), [DOMAIN]);
    assert_eq!(store.account(DOMAIN), None);
}

fn a_domain_never_has_an_account(store: &mut Pair) {
    assert_eq!(store.one(create(DOMAIN)), Written::NoAccount);
    store.done(&[append(DOMAIN, 1)]);
    let written = store.writer.commit(&[create(DOMAIN), create(JULIET), append(DOMAIN, 2)]);
    assert_eq!(written.unwrap(), [Written::NoAccount, Written::Done, Written::Done]);
    assert_eq!(store.account(DOMAIN), None);
    assert_eq!(store.ids(DOMAIN), [1, 2]);
}

fn a_domain_has_pending_rows_and_nothing_else(store: &mut Pair) {
    store.done(&[append(DOMAIN, 1)]);
    let kept = |id, keep| Write::AppendLog {
        owner: bare(DOMAIN),
        entry: LogEntry { keep, ..entry(id, ROMEO, b"<message/>") },
    };
    for change in [
        kept(2, Keep::Archived),
        kept(3, Keep::Both),
        Write::DeleteAccount { owner: bare(DOMAIN) },
        Write::SetCredentials { owner: bare(DOMAIN), credentials: credentials(1) },
        Write::SetDisabled { owner: bare(DOMAIN), disabled: true },
        put_roster(DOMAIN, vec![contact(JULIET)], &[], 1),
        put_slot(DOMAIN, "carbons", Some(b"on")),
        Write::ReplaceLog {
            owner: bare(DOMAIN),
            id: 1,
            stanza: Vec::new(),
            open_end: 0,
            close_start: 0,
        },
        Write::PruneArchive { owner: bare(DOMAIN), before: Wall(u64::MAX), keep: 0, limit: 9 },
    ] {
        assert_eq!(store.one(change.clone()), Written::NoAccount, "{change:?}");
    }
    let Write::AppendLog { entry: first, .. } = append(DOMAIN, 1) else { unreachable!() };
    assert_eq!(store.page(DOMAIN, 0, 9), (vec![first], false));
    let read = |store: &mut Pair, query| store.reader.read(&query).unwrap();
    let owner = || bare(DOMAIN);
    let ends = Query::ArchiveEnds { owner: owner(), up_to: LOG_ID_MAX };
    assert_eq!(read(store, ends), Answer::ArchiveEnds(None));
    let archive = Query::Archive(Box::new(ArchiveQuery::all(owner(), 9)));
    let nothing = Answer::Archive { entries: Vec::new(), complete: true, count: None };
    assert_eq!(read(store, archive), nothing);
    let names = Query::SlotNames { owner: owner() };
    assert_eq!(read(store, names), Answer::SlotNames(Vec::new()));
    let slot = Query::Slot { owner: owner(), name: "carbons".to_owned() };
    assert_eq!(read(store, slot), Answer::Slot(None));
}

fn rows_of_a_domain_go_when_they_are_confirmed(store: &mut Pair) {
    store.done(&[confirm("nobody.example", &[1]), confirm("nobody.example", &[])]);
    store.done(&[append(DOMAIN, 1), append(DOMAIN, 2), append(DOMAIN, 3), append("b.example", 2)]);
    store.done(&[confirm(DOMAIN, &[1, 3, 99, u64::MAX]), confirm(DOMAIN, &[])]);
    assert_eq!(store.ids(DOMAIN), [2]);
    assert_eq!(domains(store), ["b.example", DOMAIN]);
    store.done(&[confirm(DOMAIN, &[2]), confirm(DOMAIN, &[2])]);
    assert!(store.ids(DOMAIN).is_empty());
    assert_eq!(domains(store), ["b.example"], "nothing of it is left");
    assert_eq!(store.ids("b.example"), [2]);
    // In one batch, in any order, with the next row behind.
    store.done(&[
        confirm(DOMAIN, &[4]),
        append(DOMAIN, 4),
        append(DOMAIN, 5),
        confirm(DOMAIN, &[5]),
        append("c.example", 6),
        confirm("c.example", &[6]),
    ]);
    assert_eq!(store.ids(DOMAIN), [4]);
    assert_eq!(domains(store), ["b.example", DOMAIN]);
}

fn domains_with_rows_are_listed_in_the_order_of_their_text(store: &mut Pair) {
    let mut all =
        ["b.example", "a-b.example", "a.example", "bücher.example", "[::1]", "z.org", "192.0.2.1"];
    for domain in all {
        store.done(&[append(domain, 1)]);
    }
    all.sort_unstable();
    assert_eq!(domains(store), all);
    assert_eq!(domains_after(store, None, 2), all[..2]);
    assert_eq!(domains_after(store, Some(all[1]), 3), all[2..5]);
    assert_eq!(domains_after(store, Some("a.f"), 1), ["b.example"], "after one that is none");
    assert_eq!(domains_after(store, Some(all[6]), 3), [""; 0]);
    assert_eq!(domains_after(store, None, 0), [""; 0]);
    let mut paged = Vec::new();
    loop {
        let page = domains_after(store, paged.last().map(String::as_str), 3);
        if page.is_empty() {
            break;
        }
        paged.extend(page);
    }
    assert_eq!(paged, all);
    store.done(&[confirm(all[0], &[1])]);
    assert_eq!(domains_after(store, None, 1), [all[1]]);
}

fn a_domain_is_not_among_the_accounts(store: &mut Pair) {
    store.done(&[create("juliet@capulet.example"), append(DOMAIN, 1), append("a.example", 1)]);
    // A correspondent that is a domain is one for which nothing waits.
    let from_domain = entry(1, "montague.example", b"<message/>");
    store.done(&[Write::AppendLog { owner: bare("juliet@capulet.example"), entry: from_domain }]);
    assert_eq!(domains(store), ["a.example", DOMAIN]);
    assert_eq!(store.accounts(None, 9), ["juliet@capulet.example"]);
    assert_eq!(store.accounts_of(Some(DOMAIN), false, None, 9), ["juliet@capulet.example"]);
    assert_eq!(store.accounts_of(None, true, None, 9), [""; 0]);
    for (domain, accounts) in [(DOMAIN, 1), ("a.example", 0)] {
        let query = Query::CountAccounts { domain: domain.to_owned() };
        let counted = Answer::Counted { accounts, disabled: 0 };
        assert_eq!(store.reader.read(&query).unwrap(), counted);
    }
}

/// Its accounts may be our own: a domain that was remote can become one of ours.
fn a_domain_and_the_accounts_of_its_name_are_kept_apart(store: &mut Pair) {
    let juliet = "juliet@capulet.example";
    store.done(&[create(juliet), append(juliet, 1), append(DOMAIN, 1), append(DOMAIN, 2)]);
    store.done(&[confirm(DOMAIN, &[1])]);
    assert_eq!((store.ids(juliet), store.ids(DOMAIN)), (vec![1], vec![2]));
    store.done(&[Write::DeleteAccount { owner: bare(juliet) }]);
    assert_eq!((store.ids(juliet), store.ids(DOMAIN)), (vec![], vec![2]));
    assert_eq!(domains(store), [DOMAIN]);
}

fn a_message_to_a_domain_is_known_by_its_origin(store: &mut Pair) {
    store.done(&[append(DOMAIN, 1)]);
    let mut has = |owner: &str, origin: Origin, since: u64| {
        let query =
            Query::Origins { owner: bare(owner), origins: vec![origin], since: Wall(since) };
        store.reader.read(&query).unwrap()
    };
    let one = |is_there: bool| Answer::Origins(vec![is_there]);
    let known = entry(1, ROMEO, b"");
    assert_eq!(has(DOMAIN, known.origin, 0), one(true));
    assert_eq!(has(DOMAIN, known.origin, known.at.0 + 1), one(false));
    assert_eq!(has(DOMAIN, Origin::default(), 0), one(false));
    assert_eq!(has("b.example", known.origin, 0), one(false));
}

fn rows_of_domains_survive_reopening(store: &mut Pair) {
    store.done(&[append(DOMAIN, 1), append("a.example", 1), confirm("a.example", &[1])]);
    store.writer.reopen().unwrap();
    assert_eq!((store.ids(DOMAIN), domains(store)), (vec![1], vec![DOMAIN.to_owned()]));
    store.done(&[append(DOMAIN, 1), append(DOMAIN, 2), confirm(DOMAIN, &[1])]);
    assert_eq!(store.ids(DOMAIN), [2]);
}

fn a_batch_that_cannot_be_committed_leaves_no_domain(store: &mut Pair) {
    let batch = [append(DOMAIN, 1), append(DOMAIN, LOG_ID_MAX + 1)];
    assert!(store.writer.commit(&batch).is_err());
    store.writer.reopen().unwrap();
    assert_eq!((store.ids(DOMAIN), domains(store)), (vec![], vec![]));
    // What the failed batch had taught the writer is forgotten, too.
    store.done(&[append(JULIET.split_once('@').unwrap().1, 2), append(DOMAIN, 2)]);
    assert_eq!(store.ids(DOMAIN), [2]);
}

fn a_reader_that_holds_on_sees_the_domains_of_one_moment(store: &mut Pair) {
    store.done(&[append(DOMAIN, 1)]);
    store.reader.hold().unwrap();
    store.done(&[append(DOMAIN, 2), append("a.example", 1)]);
    assert_eq!((store.ids(DOMAIN), domains(store)), (vec![1], vec![DOMAIN.to_owned()]));
    store.reader.release().unwrap();
    assert_eq!(domains(store), ["a.example", DOMAIN]);
}
