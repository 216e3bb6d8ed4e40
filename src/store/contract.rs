//! The conformance suite: what every backend must do. Each backend's own tests call it.
#![expect(clippy::unwrap_used, reason = "tests")]

pub(super) mod archive;
mod domains;
mod random;

use super::{
    AccountRecord, Answer, Counters, Error, Keep, LOG_ID_MAX, LacksKeys, LogEntry, Origin, Query,
    Reader, RosterItem, STORE_PARTITIONS, Subscription, Write, Writer, Written,
};
use crate::base::instant::Wall;
use crate::xmpp::credentials::{Credentials, ScramKeys};
use crate::xmpp::jid::{BareJid, Jid};

pub(super) use random::agrees_with_twin;

/// A fresh, empty store.
pub type Make<'a> = &'a mut dyn FnMut() -> (Box<dyn Writer>, Box<dyn Reader>);

/// Runs all checks, each on a store of its own.
pub fn suite(make: Make<'_>) {
    let checks: &[fn(&mut Pair)] = &[
        an_account_is_created_once_and_reads_back,
        credentials_and_the_disabled_flag_change,
        accounts_without_keys_of_some_hash_are_known_of,
        slots_are_listed_by_name,
        counters_are_raised_and_never_lowered,
        a_reader_that_holds_on_sees_one_moment,
        a_change_of_a_missing_account_is_refused,
        a_refusal_disturbs_no_other_write_of_the_batch,
        writes_of_a_batch_see_the_earlier_ones,
        an_empty_batch_is_no_trouble,
        a_batch_that_cannot_be_committed_leaves_nothing,
        a_roster_reads_back_as_it_was_put,
        a_roster_change_touches_only_what_it_names,
        slots_are_set_replaced_and_removed,
        lazy_slots_are_read_one_by_one,
        the_log_is_in_the_order_of_its_ids_and_each_owner_sees_only_its_own,
        an_entry_that_is_there_already_stays_as_it_is,
        the_log_is_read_in_pages,
        confirmed_entries_go,
        reserved_ids_never_overlap_and_rise_also_after_reopening,
        a_deleted_account_leaves_nothing_to_its_successor,
        large_values_and_all_bytes_survive,
        addresses_of_any_script_are_kept_apart,
        accounts_are_listed_in_the_order_of_their_text,
        accounts_are_listed_and_counted_by_domain_and_state,
        all_survives_reopening,
        numbers_survive_at_their_limits,
    ];
    for check in checks.iter().chain(archive::CHECKS).chain(domains::CHECKS) {
        let (writer, reader) = make();
        check(&mut Pair { writer, reader });
    }
}

struct Pair {
    writer: Box<dyn Writer>,
    reader: Box<dyn Reader>,
}

impl Pair {
    fn one(&mut self, write: Write) -> Written {
        let mut written = self.writer.commit(&[write]).unwrap();
        assert_eq!(written.len(), 1);
        written.remove(0)
    }

    /// Commits a batch all of which must be done.
    fn done(&mut self, batch: &[Write]) {
        let written = self.writer.commit(batch).unwrap();
        assert_eq!(written, vec![Written::Done; batch.len()]);
    }

    fn account(&mut self, owner: &str) -> Option<Box<AccountRecord>> {
        match self.reader.read(&Query::Account { owner: bare(owner) }).unwrap() {
            Answer::Account(account) => account,
            other => panic!("an account was asked for, not {other:?}"),
        }
    }

    fn page(&mut self, owner: &str, after: u64, limit: u32) -> (Vec<LogEntry>, bool) {
        match self.reader.read(&Query::Log { owner: bare(owner), after, limit }).unwrap() {
            Answer::Log { entries, more } => (entries, more),
            other => panic!("a log was asked for, not {other:?}"),
        }
    }

    fn ids(&mut self, owner: &str) -> Vec<u64> {
        let (entries, more) = self.page(owner, 0, 1_000);
        assert!(!more);
        entries.iter().map(|entry| entry.id).collect()
    }

    fn accounts(&mut self, after: Option<&str>, limit: u32) -> Vec<String> {
        self.accounts_of(None, false, after, limit)
    }

    fn accounts_of(
        &mut self,
        domain: Option<&str>,
        only_disabled: bool,
        after: Option<&str>,
        limit: u32,
    ) -> Vec<String> {
        let domain = domain.map(str::to_owned);
        let query = Query::Accounts { domain, only_disabled, after: after.map(bare), limit };
        match self.reader.read(&query).unwrap() {
            Answer::Accounts(accounts) => accounts.iter().map(|jid| jid.to_string()).collect(),
            other => panic!("accounts were asked for, not {other:?}"),
        }
    }
}

pub(super) fn all_accounts() -> Query {
    Query::Accounts { domain: None, only_disabled: false, after: None, limit: 9 }
}

pub fn bare(text: &str) -> BareJid {
    BareJid::parse(text).unwrap()
}

pub(super) fn credentials(seed: u8) -> Credentials {
    let keys = |seed: u8, len| ScramKeys {
        iterations: 4096 + u32::from(seed),
        salt: vec![seed; 16],
        stored_key: vec![seed.wrapping_add(1); len],
        server_key: vec![seed.wrapping_add(2); len],
    };
    Credentials {
        sha1: keys(seed, 20),
        sha256: keys(seed.wrapping_add(100), 32),
        sha512: Some(keys(seed.wrapping_add(200), 64).into()),
    }
}

pub fn create(owner: &str) -> Write {
    Write::CreateAccount { owner: bare(owner), credentials: credentials(7) }
}

pub fn entry(id: u64, with: &str, stanza: &[u8]) -> LogEntry {
    LogEntry {
        id,
        at: Wall(1_700_000_000_000_000 + id),
        with: Jid::parse(with).unwrap(),
        keep: Keep::Pending,
        origin: Origin { incarnation: 3, link: 5, number: 1_000 + id },
        stanza: stanza.to_vec(),
        open_end: 9,
        close_start: 20,
    }
}

pub(super) fn append(owner: &str, id: u64) -> Write {
    let stanza = format!("<message id='{id}'><body>hello</body></message>");
    Write::AppendLog {
        owner: bare(owner),
        entry: entry(id, "romeo@example.org", stanza.as_bytes()),
    }
}

pub(super) fn contact(jid: &str) -> RosterItem {
    RosterItem::new(Jid::parse(jid).unwrap())
}

pub(super) fn put_roster(
    owner: &str,
    set: Vec<RosterItem>,
    remove: &[&str],
    version: u64,
) -> Write {
    let remove = remove.iter().map(|jid| Jid::parse(jid).unwrap()).collect();
    Write::PutRoster { owner: bare(owner), set, remove, version }
}

pub(super) fn put_slot(owner: &str, name: &str, value: Option<&[u8]>) -> Write {
    Write::PutSlot { owner: bare(owner), name: name.to_owned(), value: value.map(<[u8]>::to_vec) }
}

const JULIET: &str = "juliet@example.org";
const ROMEO: &str = "romeo@example.org";

fn an_account_is_created_once_and_reads_back(store: &mut Pair) {
    assert_eq!(store.account(JULIET), None);
    store.done(&[create(JULIET)]);
    let again = Write::CreateAccount { owner: bare(JULIET), credentials: credentials(9) };
    assert_eq!(store.one(again), Written::Exists);
    let expected = AccountRecord {
        credentials: credentials(7),
        disabled: false,
        roster: Vec::new(),
        roster_version: 0,
        slots: Vec::new(),
        log_rows: 0,
        archived_at: Wall(0),
    };
    assert_eq!(store.account(JULIET).as_deref(), Some(&expected));
    assert_eq!(store.account(ROMEO), None);
}

fn credentials_and_the_disabled_flag_change(store: &mut Pair) {
    store.done(&[
        create(JULIET),
        create(ROMEO),
        Write::SetCredentials { owner: bare(JULIET), credentials: credentials(50) },
        Write::SetDisabled { owner: bare(JULIET), disabled: true },
    ]);
    let juliet = store.account(JULIET).unwrap();
    assert_eq!((juliet.credentials, juliet.disabled), (credentials(50), true));
    let romeo = store.account(ROMEO).unwrap();
    assert_eq!((romeo.credentials, romeo.disabled), (credentials(7), false));
    store.done(&[Write::SetDisabled { owner: bare(JULIET), disabled: false }]);
    assert!(!store.account(JULIET).unwrap().disabled);
}

fn accounts_without_keys_of_some_hash_are_known_of(store: &mut Pair) {
    let lacks = |store: &mut Pair| match store.reader.read(&Query::LacksKeys).unwrap() {
        Answer::LacksKeys(lacks) => lacks,
        other => panic!("what keys are lacking, not {other:?}"),
    };
    assert_eq!(lacks(store), LacksKeys::default(), "there is no account at all");
    let old = Credentials { sha512: None, ..credentials(3) };
    store.done(&[
        create(ROMEO),
        Write::CreateAccount { owner: bare(JULIET), credentials: old.clone() },
    ]);
    let sha512 = LacksKeys { sha512: true, ..LacksKeys::default() };
    assert_eq!(lacks(store), sha512);
    assert_eq!(store.account(JULIET).unwrap().credentials, old);
    let set = |credentials: &Credentials| Write::SetCredentials {
        owner: bare(JULIET),
        credentials: credentials.clone(),
    };
    store.done(&[set(&credentials(50))]);
    assert_eq!(lacks(store), LacksKeys::default());
    store.done(&[set(&old)]);
    assert_eq!(store.account(JULIET).unwrap().credentials, old, "no key outlives its password");
    let of_another_server = Credentials { sha1: credentials(7).sha1, ..Credentials::none() };
    store.done(&[set(&of_another_server)]);
    assert_eq!(store.account(JULIET).unwrap().credentials, of_another_server);
    assert_eq!(lacks(store), LacksKeys { sha1: false, sha256: true, sha512: true });
    store.done(&[set(&Credentials { sha256: credentials(7).sha256, ..Credentials::none() })]);
    assert_eq!(lacks(store), LacksKeys { sha1: true, sha256: false, sha512: true });
    store.done(&[Write::DeleteAccount { owner: bare(JULIET) }]);
    assert_eq!(lacks(store), LacksKeys::default());
}

fn slots_are_listed_by_name(store: &mut Pair) {
    let names = |store: &mut Pair, owner: &str| match store
        .reader
        .read(&Query::SlotNames { owner: bare(owner) })
        .unwrap()
    {
        Answer::SlotNames(names) => names,
        other => panic!("names were asked for, not {other:?}"),
    };
    assert!(names(store, JULIET).is_empty(), "there is no account");
    store.done(&[
        create(JULIET),
        create(ROMEO),
        put_slot(JULIET, "~private b", Some(b"1")),
        put_slot(JULIET, "blocking", Some(b"2")),
        put_slot(JULIET, "~private a", Some(b"3")),
        put_slot(ROMEO, "other", Some(b"4")),
    ]);
    assert_eq!(names(store, JULIET), ["blocking", "~private a", "~private b"]);
}

fn counters_are_raised_and_never_lowered(store: &mut Pair) {
    let counters = |store: &mut Pair| match store.reader.read(&Query::Counters).unwrap() {
        Answer::Counters(counters) => counters,
        other => panic!("counters were asked for, not {other:?}"),
    };
    let before = counters(store);
    assert!(before.next_ids.is_empty() && before.incarnation > 0, "{before:?}");
    store.one(Write::ReserveIds { partition: 7, count: 10 });
    assert_eq!(counters(store).next_ids, [(7, 11)]);
    let raised = Counters { next_ids: vec![(3, 5), (7, 100)], incarnation: 90 };
    store.done(&[Write::RaiseCounters { counters: raised.clone() }]);
    assert_eq!(counters(store), raised);
    let low = Counters { next_ids: vec![(3, 1), (7, 12)], incarnation: 1 };
    store.done(&[Write::RaiseCounters { counters: low }]);
    assert_eq!(counters(store), raised);
    let reserved = store.one(Write::ReserveIds { partition: 7, count: 1 });
    assert_eq!(reserved, Written::Reserved { first: 100 });
    for (partition, next, incarnation) in
        [(STORE_PARTITIONS, 1, 1), (1, LOG_ID_MAX + 1, 1), (1, 1, u64::MAX)]
    {
        let counters = Counters { next_ids: vec![(partition, next)], incarnation };
        let batch = [create(ROMEO), Write::RaiseCounters { counters }];
        assert!(store.writer.commit(&batch).is_err(), "{batch:?}");
        store.writer.reopen().unwrap();
        assert_eq!(store.account(ROMEO), None);
    }
}

fn a_reader_that_holds_on_sees_one_moment(store: &mut Pair) {
    store.done(&[create(JULIET), append(JULIET, 1), put_slot(JULIET, "~a", Some(b"old"))]);
    store.reader.hold().unwrap();
    store.done(&[
        append(JULIET, 2),
        put_slot(JULIET, "~a", Some(b"new")),
        Write::DeleteAccount { owner: bare(JULIET) },
        create(ROMEO),
    ]);
    for _ in 0..2 {
        assert_eq!(store.account(JULIET).unwrap().log_rows, 1);
        assert_eq!(store.ids(JULIET), [1]);
        assert_eq!(store.account(ROMEO), None);
    }
    store.reader.hold().unwrap();
    assert_eq!(store.account(JULIET), None, "the state is held anew");
    store.done(&[create(JULIET)]);
    assert_eq!(store.account(JULIET), None);
    store.reader.release().unwrap();
    assert!(store.account(JULIET).is_some());
    store.reader.release().unwrap();
}

fn a_change_of_a_missing_account_is_refused(store: &mut Pair) {
    // Known as a correspondent and as a contact, which makes no account.
    store.done(&[
        create(JULIET),
        append(JULIET, 1),
        put_roster(JULIET, vec![contact(ROMEO)], &[], 1),
    ]);
    for owner in [ROMEO, "nobody@example.org"] {
        let changes = [
            Write::DeleteAccount { owner: bare(owner) },
            Write::SetCredentials { owner: bare(owner), credentials: credentials(1) },
            Write::SetDisabled { owner: bare(owner), disabled: true },
            put_roster(owner, vec![contact(JULIET)], &[], 1),
            put_slot(owner, "carbons", Some(b"on")),
            append(owner, 2),
            Write::ConfirmLog { owner: bare(owner), ids: vec![1] },
            Write::ReplaceLog {
                owner: bare(owner),
                id: 1,
                stanza: Vec::new(),
                open_end: 0,
                close_start: 0,
            },
            Write::PruneArchive { owner: bare(owner), before: Wall(0), keep: 0, limit: 1 },
        ];
        for change in changes {
            assert_eq!(store.one(change.clone()), Written::NoAccount, "{change:?}");
        }
        assert_eq!(store.account(owner), None);
        assert_eq!(store.page(owner, 0, 10), (Vec::new(), false));
        // And nothing of it shows once there is an account.
        store.done(&[create(owner)]);
        let account = store.account(owner).unwrap();
        assert!(account.roster.is_empty() && account.slots.is_empty() && account.log_rows == 0);
    }
    assert_eq!(store.ids(JULIET), [1]);
}

fn a_refusal_disturbs_no_other_write_of_the_batch(store: &mut Pair) {
    let written = store.writer.commit(&[
        create(JULIET),
        create(JULIET),
        append("nobody@example.org", 1),
        append(JULIET, 2),
        Write::DeleteAccount { owner: bare(ROMEO) },
        Write::ReserveIds { partition: 9, count: 5 },
        put_slot(JULIET, "a", Some(b"1")),
    ]);
    let expected = [
        Written::Done,
        Written::Exists,
        Written::NoAccount,
        Written::Done,
        Written::NoAccount,
        Written::Reserved { first: 1 },
        Written::Done,
    ];
    assert_eq!(written.unwrap(), expected);
    assert_eq!(store.ids(JULIET), [2]);
    assert_eq!(store.account(JULIET).unwrap().slots, [("a".to_owned(), b"1".to_vec())]);
}

fn writes_of_a_batch_see_the_earlier_ones(store: &mut Pair) {
    let gone = Write::DeleteAccount { owner: bare(JULIET) };
    let batch = [
        create(JULIET),
        append(JULIET, 1),
        gone.clone(),
        append(JULIET, 2),
        gone,
        create(JULIET),
        append(JULIET, 3),
    ];
    let expected = [
        Written::Done,
        Written::Done,
        Written::Done,
        Written::NoAccount,
        Written::NoAccount,
        Written::Done,
        Written::Done,
    ];
    assert_eq!(store.writer.commit(&batch).unwrap(), expected);
    assert_eq!(store.ids(JULIET), [3]);
}

fn an_empty_batch_is_no_trouble(store: &mut Pair) {
    assert_eq!(store.writer.commit(&[]).unwrap(), []);
}

fn a_batch_that_cannot_be_committed_leaves_nothing(store: &mut Pair) {
    store.done(&[create(JULIET), append(JULIET, 1)]);
    let reserve = Write::ReserveIds { partition: 0, count: 10 };
    let batch = [append(JULIET, 2), create(ROMEO), reserve.clone(), append(JULIET, LOG_ID_MAX + 1)];
    assert!(matches!(store.writer.commit(&batch), Err(Error::Backend(_))));
    assert!(store.writer.commit(&[append(JULIET, 3)]).is_err(), "closed until it is reopened");
    store.writer.reopen().unwrap();
    assert_eq!(store.ids(JULIET), [1]);
    assert_eq!(store.account(ROMEO), None);
    // What the failed batch had taught the writer is forgotten, too.
    assert_eq!(store.one(append(ROMEO, 1)), Written::NoAccount);
    assert_eq!(store.one(reserve), Written::Reserved { first: 1 });
    store.done(&[append(JULIET, 4)]);
    assert_eq!(store.ids(JULIET), [1, 4]);
}

fn a_roster_reads_back_as_it_was_put(store: &mut Pair) {
    let mut items = vec![
        RosterItem {
            name: "Romeo \"the\" \u{1F339}".to_owned(),
            groups: vec![
                "Friends".to_owned(),
                "Ünïcode, \\ and \"quotes\"".to_owned(),
                String::new(),
            ],
            subscription: Subscription::Both,
            approved: true,
            ..contact(ROMEO)
        },
        RosterItem { subscription: Subscription::To, ask: true, ..contact("b.example.org") },
        RosterItem {
            subscription: Subscription::From,
            pending_in: Some(
                b"<presence type='subscribe'><status>\xF0\x9F\x92\x8C</status></presence>".to_vec(),
            ),
            ..contact("c@example.org/Balcony / it's <here>")
        },
        RosterItem { pending_in: Some(Vec::new()), ..contact("d@example.org") },
        RosterItem {
            pending_in: Some(b"<presence/>".to_vec()),
            listed: false,
            ..contact("e@example.org")
        },
    ];
    store.done(&[create(JULIET), put_roster(JULIET, items.clone(), &[], 41)]);
    let account = store.account(JULIET).unwrap();
    items.sort_by_key(|item| item.jid.to_string());
    assert_eq!(account.roster, items, "in the order of the text");
    assert_eq!(account.roster_version, 41);
}

fn a_roster_change_touches_only_what_it_names(store: &mut Pair) {
    let three = vec![contact("a@example.org"), contact("b@example.org"), contact("c@example.org")];
    store.done(&[create(JULIET), create(ROMEO)]);
    store.done(&[
        put_roster(JULIET, three.clone(), &[], 1),
        put_roster(ROMEO, three.clone(), &[], 1),
    ]);
    let changed = RosterItem { name: "B".to_owned(), ..contact("b@example.org") };
    let absent = "nobody@example.org";
    store.done(&[put_roster(JULIET, vec![changed.clone()], &["a@example.org", absent], 2)]);
    let account = store.account(JULIET).unwrap();
    assert_eq!(
        (account.roster, account.roster_version),
        (vec![changed, contact("c@example.org")], 2)
    );
    assert_eq!(store.account(ROMEO).unwrap().roster, three);
    // Removal comes first: what is in both is set.
    store.done(&[put_roster(
        JULIET,
        vec![contact("b@example.org")],
        &["b@example.org", "c@example.org"],
        3,
    )]);
    assert_eq!(store.account(JULIET).unwrap().roster, [contact("b@example.org")]);
    // The version alone.
    store.done(&[put_roster(JULIET, Vec::new(), &[], 4)]);
    assert_eq!(store.account(JULIET).unwrap().roster_version, 4);
}

fn slots_are_set_replaced_and_removed(store: &mut Pair) {
    store.done(&[
        create(JULIET),
        put_slot(JULIET, "vcard", Some(b"1")),
        put_slot(JULIET, "blocking", Some(b"")),
        put_slot(JULIET, "Blocking", Some(b"case matters")),
    ]);
    store.done(&[
        put_slot(JULIET, "vcard", Some(b"\x00\xFFtwo")),
        put_slot(JULIET, "absent", None),
        put_slot(JULIET, "Blocking", None),
    ]);
    let expected =
        [("blocking".to_owned(), Vec::new()), ("vcard".to_owned(), b"\x00\xFFtwo".to_vec())];
    assert_eq!(store.account(JULIET).unwrap().slots, expected);
}

fn lazy_slots_are_read_one_by_one(store: &mut Pair) {
    store.done(&[
        create(JULIET),
        put_slot(JULIET, "zeta", Some(b"1")),
        put_slot(JULIET, "~vcard", Some(b"large")),
    ]);
    assert_eq!(store.account(JULIET).unwrap().slots, [("zeta".to_owned(), b"1".to_vec())]);
    let mut slot = |owner: &str, name: &str| {
        let query = Query::Slot { owner: bare(owner), name: name.to_owned() };
        match store.reader.read(&query).unwrap() {
            Answer::Slot(value) => value,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(slot(JULIET, "~vcard"), Some(b"large".to_vec()));
    assert_eq!(slot(JULIET, "zeta"), Some(b"1".to_vec()));
    assert_eq!(slot(JULIET, "~absent"), None);
    assert_eq!(slot(ROMEO, "~vcard"), None);
    store.done(&[put_slot(JULIET, "~vcard", None)]);
    let query = Query::Slot { owner: bare(JULIET), name: "~vcard".to_owned() };
    assert_eq!(store.reader.read(&query).unwrap(), Answer::Slot(None));
}

fn the_log_is_in_the_order_of_its_ids_and_each_owner_sees_only_its_own(store: &mut Pair) {
    store.done(&[create(JULIET), create(ROMEO)]);
    store.done(&[append(JULIET, 5), append(ROMEO, 6), append(JULIET, 2), append(JULIET, 300)]);
    store.done(&[append(JULIET, 70), append(ROMEO, 5)]);
    assert_eq!(store.ids(JULIET), [2, 5, 70, 300]);
    assert_eq!(store.ids(ROMEO), [5, 6]);
    assert!(store.account(JULIET).unwrap().log_rows > 0);
    let Write::AppendLog { entry, .. } = append(JULIET, 2) else { unreachable!() };
    assert_eq!(store.page(JULIET, 0, 1).0, [entry], "each field as it was put");
}

fn an_entry_that_is_there_already_stays_as_it_is(store: &mut Pair) {
    store.done(&[create(JULIET), append(JULIET, 1)]);
    let before = store.page(JULIET, 0, 10);
    let other = entry(1, "mercutio@example.org", b"<message>another</message>");
    let again = Write::AppendLog { owner: bare(JULIET), entry: other };
    store.done(&[again.clone(), append(JULIET, 2), again]);
    let after = store.page(JULIET, 0, 10);
    assert_eq!((after.0.len(), &after.0[0]), (2, &before.0[0]));
}

fn the_log_is_read_in_pages(store: &mut Pair) {
    store.done(&[create(JULIET)]);
    let batch: Vec<Write> = (1..=10).map(|n| append(JULIET, n * 10)).collect();
    store.done(&batch);
    let mut page = |after, limit| {
        let (entries, more) = store.page(JULIET, after, limit);
        (entries.iter().map(|entry| entry.id).collect::<Vec<_>>(), more)
    };
    assert_eq!(page(0, 4), (vec![10, 20, 30, 40], true));
    assert_eq!(page(40, 4), (vec![50, 60, 70, 80], true));
    assert_eq!(page(80, 2), (vec![90, 100], false), "exactly to the end");
    assert_eq!(page(85, 4), (vec![90, 100], false), "from between two");
    assert_eq!(page(100, 4), (vec![], false));
    assert_eq!(page(u64::MAX, 4), (vec![], false));
    assert_eq!(page(0, 0), (vec![], true));
    assert_eq!(page(0, u32::MAX).0.len(), 10);
    assert_eq!(store.page("nobody@example.org", 0, 4), (vec![], false));
}

fn confirmed_entries_go(store: &mut Pair) {
    store.done(&[create(JULIET), create(ROMEO)]);
    store.done(&[append(JULIET, 1), append(JULIET, 2), append(JULIET, 3), append(ROMEO, 2)]);
    let confirm = |ids: &[u64]| Write::ConfirmLog { owner: bare(JULIET), ids: ids.to_vec() };
    store.done(&[confirm(&[1, 3, 99, u64::MAX]), confirm(&[])]);
    assert_eq!(store.ids(JULIET), [2]);
    assert_eq!(store.ids(ROMEO), [2]);
    store.done(&[confirm(&[2]), confirm(&[2])]);
    assert!(store.ids(JULIET).is_empty());
    assert_eq!(store.account(JULIET).unwrap().log_rows, 0);
    assert!(store.account(ROMEO).unwrap().log_rows > 0);
}

fn reserved_ids_never_overlap_and_rise_also_after_reopening(store: &mut Pair) {
    let mut end = [1u64; 3];
    for round in 0..6u32 {
        let counts = [1, 1_000, u32::MAX, round];
        for partition in [0u16, 1, 63] {
            let batch: Vec<Write> =
                counts.iter().map(|count| Write::ReserveIds { partition, count: *count }).collect();
            let end = &mut end[usize::from(partition.min(2))];
            for (written, count) in store.writer.commit(&batch).unwrap().into_iter().zip(counts) {
                let Written::Reserved { first } = written else { panic!("{written:?}") };
                assert!(first >= *end && first > 0, "above all that was given");
                *end = first + u64::from(count);
            }
        }
        if round % 2 == 0 {
            store.writer.reopen().unwrap();
        }
    }
}

fn a_deleted_account_leaves_nothing_to_its_successor(store: &mut Pair) {
    store.done(&[create(JULIET), create(ROMEO)]);
    for owner in [JULIET, ROMEO] {
        store.done(&[
            append(owner, 1),
            append(owner, 2),
            put_slot(owner, "vcard", Some(b"x")),
            put_roster(owner, vec![contact("nurse@example.org")], &[], 8),
            Write::SetDisabled { owner: bare(owner), disabled: true },
        ]);
    }
    let romeo = store.account(ROMEO);
    store.done(&[Write::DeleteAccount { owner: bare(JULIET) }]);
    assert_eq!(store.account(JULIET), None);
    assert!(store.ids(JULIET).is_empty());
    store.done(&[create(JULIET)]);
    let juliet = store.account(JULIET).unwrap();
    assert!(juliet.roster.is_empty() && juliet.slots.is_empty());
    assert!(juliet.log_rows == 0 && !juliet.disabled && juliet.roster_version == 0);
    assert!(store.ids(JULIET).is_empty());
    assert_eq!(store.account(ROMEO), romeo);
    assert_eq!(store.ids(ROMEO), [1, 2]);
}

fn large_values_and_all_bytes_survive(store: &mut Pair) {
    let large: Vec<u8> = (0..3_000_000u32).map(|n| n.to_le_bytes()[n as usize % 3]).collect();
    let item = RosterItem { pending_in: Some(large.clone()), ..contact(ROMEO) };
    store.done(&[
        create(JULIET),
        put_slot(JULIET, "vcard", Some(&large)),
        put_roster(JULIET, vec![item.clone()], &[], 1),
        Write::AppendLog { owner: bare(JULIET), entry: entry(1, ROMEO, &large) },
        Write::AppendLog { owner: bare(JULIET), entry: entry(2, ROMEO, b"") },
    ]);
    let account = store.account(JULIET).unwrap();
    assert!(account.slots == [("vcard".to_owned(), large.clone())]);
    assert!(account.roster == [item]);
    let (entries, _) = store.page(JULIET, 0, 10);
    assert!(entries[0].stanza == large && entries[1].stanza.is_empty());
}

fn addresses_of_any_script_are_kept_apart(store: &mut Pair) {
    let owners =
        ["жулиетта@пример.рф", "ジュリエット@例え.jp", "julieta@español.es", "julieta@espanol.es"];
    for (id, owner) in (1u64..).zip(owners) {
        store.done(&[create(owner)]);
        let entry = entry(id, owner, owner.as_bytes());
        store.done(&[
            Write::AppendLog { owner: bare(owner), entry },
            put_roster(owner, owners.iter().map(|jid| contact(jid)).collect(), &[], id),
        ]);
    }
    for (id, owner) in (1u64..).zip(owners) {
        let (entries, _) = store.page(owner, 0, 10);
        assert_eq!(entries, [entry(id, owner, owner.as_bytes())]);
        let account = store.account(owner).unwrap();
        assert_eq!((account.roster.len(), account.roster_version), (owners.len(), id));
    }
}

fn accounts_are_listed_in_the_order_of_their_text(store: &mut Pair) {
    assert_eq!(store.accounts(None, 10), [""; 0]);
    let mut owners = [
        "b@example.org",
        "a@example.org",
        "b@example.net",
        "é@example.org",
        "a-b@example.org",
        "z@example.org",
    ];
    for owner in owners {
        // The correspondent of the log has no account and is not listed.
        let entry = entry(1, &format!("x{owner}"), b"");
        store.done(&[create(owner), Write::AppendLog { owner: bare(owner), entry }]);
    }
    owners.sort_unstable();
    assert_eq!(store.accounts(None, 100), owners);
    assert_eq!(store.accounts(None, 2), owners[..2]);
    assert_eq!(store.accounts(Some(owners[1]), 3), owners[2..5]);
    assert_eq!(store.accounts(Some("b@example.a"), 1), ["b@example.net"], "after one that is none");
    assert_eq!(store.accounts(Some(owners[5]), 3), [""; 0]);
    assert_eq!(store.accounts(None, 0), [""; 0]);
    store.done(&[Write::DeleteAccount { owner: bare(owners[0]) }]);
    assert_eq!(store.accounts(None, 100), owners[1..]);
}

fn accounts_are_listed_and_counted_by_domain_and_state(store: &mut Pair) {
    let owners = ["a@a.org", "b@b.org", "b@a.org", "c@a.org", "é@bücher.example"];
    for owner in owners {
        store.done(&[create(owner)]);
    }
    for owner in ["b@b.org", "b@a.org"] {
        store.done(&[Write::SetDisabled { owner: bare(owner), disabled: true }]);
    }
    assert_eq!(store.accounts_of(Some("a.org"), false, None, 9), ["a@a.org", "b@a.org", "c@a.org"]);
    assert_eq!(store.accounts_of(Some("a.org"), false, Some("a@a.org"), 1), ["b@a.org"]);
    assert_eq!(store.accounts_of(Some("a.org"), true, None, 9), ["b@a.org"]);
    assert_eq!(store.accounts_of(None, true, None, 9), ["b@a.org", "b@b.org"]);
    assert_eq!(store.accounts_of(Some("bücher.example"), false, None, 9), ["é@bücher.example"]);
    assert_eq!(store.accounts_of(Some("org"), false, None, 9), [""; 0]);
    let mut count = |domain: &str| match store
        .reader
        .read(&Query::CountAccounts { domain: domain.to_owned() })
        .unwrap()
    {
        Answer::Counted { accounts, disabled } => (accounts, disabled),
        other => panic!("a count was asked for, not {other:?}"),
    };
    assert_eq!([count("a.org"), count("b.org"), count("c.org")], [(3, 1), (1, 1), (0, 0)]);
}

fn all_survives_reopening(store: &mut Pair) {
    store.done(&[
        create(JULIET),
        append(JULIET, 1),
        put_slot(JULIET, "vcard", Some(b"x")),
        put_roster(JULIET, vec![contact(ROMEO)], &[], 8),
    ]);
    let before = (store.account(JULIET), store.page(JULIET, 0, 10));
    store.writer.reopen().unwrap();
    assert_eq!((store.account(JULIET), store.page(JULIET, 0, 10)), before);
    assert_eq!(store.one(create(JULIET)), Written::Exists);
    store.done(&[append(JULIET, 2)]);
    assert_eq!(store.ids(JULIET), [1, 2]);
}

fn numbers_survive_at_their_limits(store: &mut Pair) {
    let mut keys = credentials(1);
    keys.sha1.iterations = u32::MAX;
    let top = LogEntry {
        id: LOG_ID_MAX,
        at: Wall(u64::MAX),
        with: Jid::parse(ROMEO).unwrap(),
        keep: Keep::Pending,
        origin: Origin { incarnation: u64::MAX, link: u32::MAX, number: u64::MAX },
        stanza: Vec::new(),
        open_end: u32::MAX,
        close_start: u32::MAX,
    };
    let low = LogEntry {
        id: 1,
        at: Wall(0),
        origin: Origin::default(),
        open_end: 0,
        close_start: 0,
        ..top.clone()
    };
    store.done(&[
        Write::CreateAccount { owner: bare(JULIET), credentials: keys.clone() },
        put_roster(JULIET, Vec::new(), &[], u64::MAX),
        Write::AppendLog { owner: bare(JULIET), entry: top.clone() },
        Write::AppendLog { owner: bare(JULIET), entry: low.clone() },
    ]);
    assert_eq!(store.page(JULIET, 0, 10), (vec![low, top], false));
    let account = store.account(JULIET).unwrap();
    assert_eq!((account.credentials, account.roster_version), (keys, u64::MAX));
}
