//! The part of the suite about the archive: rows that stay, pages of them, and how they go.

use super::super::{
    Answer, ArchiveEnds, ArchiveQuery, Keep, LOG_ID_MAX, LogEntry, Origin, Page, Query, Write,
    Written,
};
use super::{JULIET, Pair, ROMEO, append, bare, create, entry};
use crate::base::instant::Wall;
use crate::xmpp::jid::Jid;

pub(super) const CHECKS: &[fn(&mut Pair)] = &[
    archived_rows_stay_when_they_are_confirmed,
    an_archived_row_reads_back_as_it_was_put,
    pages_go_forward_and_back_and_meet_at_the_ends,
    positions_need_not_be_there,
    a_page_stops_at_the_watermark,
    rows_are_found_by_address,
    rows_are_found_by_time,
    times_are_found_where_the_clock_was_set_back,
    rows_are_found_by_id,
    filters_hold_together,
    a_rare_correspondent_is_found_in_a_long_archive,
    a_row_that_comes_late_is_found_in_its_place,
    rows_are_counted_up_to_a_bound,
    the_ends_of_the_archive_are_known,
    a_message_is_known_by_its_origin,
    the_oldest_rows_go_first_and_in_pieces,
    what_is_pending_outlives_the_archive,
    a_stanza_is_replaced_in_its_place,
    an_archive_goes_with_its_account,
];

const MERCUTIO: &str = "mercutio@example.org";

/// A second between two ids that are one apart.
fn time(id: u64) -> Wall {
    Wall(1_700_000_000_000_000 + id * 1_000_000)
}

pub(in super::super) fn row(id: u64, with: &str, keep: Keep) -> LogEntry {
    let stanza = format!("<message id='{id}'><body>hello</body></message>");
    LogEntry { keep, at: time(id), ..entry(id, with, stanza.as_bytes()) }
}

fn put(owner: &str, entry: LogEntry) -> Write {
    Write::AppendLog { owner: bare(owner), entry }
}

fn archived(owner: &str, id: u64) -> Write {
    put(owner, row(id, ROMEO, Keep::Archived))
}

fn confirm(owner: &str, ids: &[u64]) -> Write {
    Write::ConfirmLog { owner: bare(owner), ids: ids.to_vec() }
}

fn prune(before: u64, keep: u64, limit: u32) -> Write {
    Write::PruneArchive { owner: bare(JULIET), before: time(before), keep, limit }
}

fn all() -> ArchiveQuery {
    ArchiveQuery::all(bare(JULIET), 1_000)
}

impl Pair {
    fn archive(&mut self, query: &ArchiveQuery) -> (Vec<LogEntry>, bool, Option<u64>) {
        match self.reader.read(&Query::Archive(Box::new(query.clone()))).unwrap() {
            Answer::Archive { entries, complete, count } => (entries, complete, count),
            other => panic!("a page was asked for, not {other:?}"),
        }
    }

    fn shown(&mut self, query: &ArchiveQuery) -> (Vec<u64>, bool) {
        let (entries, complete, _) = self.archive(query);
        (entries.iter().map(|entry| entry.id).collect(), complete)
    }

    fn found(&mut self, query: &ArchiveQuery) -> Vec<u64> {
        let (ids, complete) = self.shown(query);
        assert!(complete);
        ids
    }

    fn ends(&mut self, owner: &str, up_to: u64) -> Option<ArchiveEnds> {
        match self.reader.read(&Query::ArchiveEnds { owner: bare(owner), up_to }).unwrap() {
            Answer::ArchiveEnds(ends) => ends,
            other => panic!("the ends were asked for, not {other:?}"),
        }
    }
}

fn archived_rows_stay_when_they_are_confirmed(store: &mut Pair) {
    store.done(&[create(JULIET)]);
    store.done(&[
        put(JULIET, row(1, ROMEO, Keep::Both)),
        put(JULIET, row(2, ROMEO, Keep::Pending)),
        put(JULIET, row(3, ROMEO, Keep::Archived)),
        put(JULIET, row(4, ROMEO, Keep::Both)),
    ]);
    assert_eq!(store.ids(JULIET), [1, 2, 4], "what is for the archive alone is never pending");
    assert_eq!(store.found(&all()), [1, 3, 4]);
    assert_eq!(store.account(JULIET).unwrap().log_rows, 3);
    assert_eq!(store.account(JULIET).unwrap().archived_at, time(4));
    store.done(&[confirm(JULIET, &[1, 2, 3, 9])]);
    assert_eq!(store.ids(JULIET), [4]);
    assert_eq!(store.account(JULIET).unwrap().log_rows, 1);
    let (entries, ..) = store.archive(&all());
    let kept: Vec<(u64, Keep)> = entries.iter().map(|entry| (entry.id, entry.keep)).collect();
    assert_eq!(kept, [(1, Keep::Archived), (3, Keep::Archived), (4, Keep::Both)]);
    // One that is there already is not put again, whatever it is kept for.
    store.done(&[put(JULIET, row(1, MERCUTIO, Keep::Both)), archived(JULIET, 4)]);
    assert_eq!((store.ids(JULIET), store.found(&all())), (vec![4], vec![1, 3, 4]));
}

fn an_archived_row_reads_back_as_it_was_put(store: &mut Pair) {
    store.done(&[create(JULIET)]);
    let rows = [
        row(1, "romeo@example.org/Orchard / it's <here>", Keep::Archived),
        row(2, ROMEO, Keep::Both),
        row(3, "example.org", Keep::Archived),
        row(4, "example.org/announce", Keep::Archived),
        row(5, "ジュリエット@例え.jp/庭", Keep::Both),
    ];
    store.done(&rows.clone().map(|row| put(JULIET, row)));
    assert_eq!(store.archive(&all()).0, rows);
    assert_eq!(store.page(JULIET, 0, 9).0, [rows[1].clone(), rows[4].clone()]);
    store.writer.reopen().unwrap();
    assert_eq!(store.archive(&all()).0, rows);
}

fn pages_go_forward_and_back_and_meet_at_the_ends(store: &mut Pair) {
    store.done(&[create(JULIET), create(ROMEO)]);
    for id in 1..=10 {
        store.done(&[archived(JULIET, id * 10), archived(ROMEO, id * 10 + 1)]);
        // Not in the archive.
        store.done(&[append(JULIET, id * 10 + 5)]);
    }
    let mut page = |page, max| store.shown(&ArchiveQuery { page, max, ..all() });
    assert_eq!(page(Page::After(0), 4), (vec![10, 20, 30, 40], false));
    assert_eq!(page(Page::After(40), 4), (vec![50, 60, 70, 80], false));
    assert_eq!(page(Page::After(80), 4), (vec![90, 100], true));
    assert_eq!(page(Page::After(80), 2), (vec![90, 100], true), "exactly to the end");
    assert_eq!(page(Page::After(100), 4), (vec![], true));
    assert_eq!(page(Page::Before(u64::MAX), 4), (vec![70, 80, 90, 100], false));
    assert_eq!(page(Page::Before(70), 4), (vec![30, 40, 50, 60], false));
    assert_eq!(page(Page::Before(30), 4), (vec![10, 20], true));
    assert_eq!(page(Page::Before(10), 4), (vec![], true));
    assert_eq!(page(Page::Before(0), 4), (vec![], true));
    assert_eq!(page(Page::After(0), 0), (vec![], false));
    assert_eq!(page(Page::After(0), u32::MAX).0.len(), 10);
    let nobody = ArchiveQuery::all(bare("nobody@example.org"), 5);
    assert_eq!(store.shown(&nobody), (vec![], true));
}

fn positions_need_not_be_there(store: &mut Pair) {
    store.done(&[create(JULIET), archived(JULIET, 10), append(JULIET, 20), archived(JULIET, 30)]);
    store.done(&[confirm(JULIET, &[20])]);
    for lost in [11, 20, 29] {
        assert_eq!(store.found(&ArchiveQuery { page: Page::After(lost), ..all() }), [30]);
        assert_eq!(store.found(&ArchiveQuery { page: Page::Before(lost), ..all() }), [10]);
        assert_eq!(store.found(&ArchiveQuery { after_id: Some(lost), ..all() }), [30]);
        assert_eq!(store.found(&ArchiveQuery { before_id: Some(lost), ..all() }), [10]);
    }
    // Those that went, too.
    assert_eq!(store.one(prune(11, u64::MAX, 9)), Written::Pruned { rows: 1, more: false });
    assert_eq!(store.found(&ArchiveQuery { page: Page::After(10), ..all() }), [30]);
    assert_eq!(store.found(&ArchiveQuery { page: Page::After(5), ..all() }), [30]);
}

fn a_page_stops_at_the_watermark(store: &mut Pair) {
    store.done(&[create(JULIET), archived(JULIET, 1), archived(JULIET, 2), archived(JULIET, 3)]);
    assert_eq!(store.found(&ArchiveQuery { up_to: 2, ..all() }), [1, 2]);
    let last = ArchiveQuery { up_to: 2, page: Page::Before(u64::MAX), max: 1, ..all() };
    assert_eq!(store.shown(&last), (vec![2], false));
    assert_eq!(store.found(&ArchiveQuery { up_to: 0, ..all() }), [0; 0]);
    assert_eq!(store.ends(JULIET, 2).unwrap().last, (2, time(2)));
    let highest = LogEntry { id: LOG_ID_MAX, ..row(9, ROMEO, Keep::Archived) };
    store.done(&[put(JULIET, highest)]);
    assert_eq!(store.found(&ArchiveQuery { up_to: LOG_ID_MAX, ..all() }), [1, 2, 3, LOG_ID_MAX]);
    let but_last = ArchiveQuery { page: Page::Before(LOG_ID_MAX), ..all() };
    assert_eq!(store.found(&but_last), [1, 2, 3]);
}

fn rows_are_found_by_address(store: &mut Pair) {
    store.done(&[create(JULIET)]);
    let with = ["romeo@example.org/orchard", "romeo@example.org", MERCUTIO, "example.org"];
    for id in 0..12 {
        let with = with[usize::try_from(id % 4).unwrap()];
        store.done(&[put(JULIET, row(id + 1, with, Keep::Both))]);
    }
    let mut found = |with: &str| {
        let with = Some(Jid::parse(with).unwrap());
        store.found(&ArchiveQuery { with, ..all() })
    };
    assert_eq!(found(ROMEO), [1, 2, 5, 6, 9, 10], "whatever the resource");
    assert_eq!(found("romeo@example.org/orchard"), [1, 5, 9]);
    assert_eq!(found("romeo@example.org/Orchard"), [0; 0]);
    assert_eq!(found(MERCUTIO), [3, 7, 11]);
    assert_eq!(found("mercutio@example.org/phone"), [0; 0]);
    assert_eq!(found("example.org"), [4, 8, 12]);
    assert_eq!(found("nobody@example.org"), [0; 0], "never heard of");
    let page = ArchiveQuery {
        with: Some(Jid::parse(ROMEO).unwrap()),
        page: Page::Before(u64::MAX),
        max: 2,
        ..all()
    };
    assert_eq!(store.shown(&page), (vec![9, 10], false));
}

fn rows_are_found_by_time(store: &mut Pair) {
    store.done(&[create(JULIET)]);
    let between = |start, end| ArchiveQuery { start, end, ..all() };
    assert_eq!(store.found(&between(Some(time(1)), Some(time(9)))), [0; 0], "an empty archive");
    // Ids that lie far apart, and two rows of one moment.
    let ids = [3u64, 4, 900, 70_000, 70_001, 5_000_000];
    for id in ids {
        store.done(&[archived(JULIET, id)]);
    }
    let twin = LogEntry { at: time(70_001), ..row(70_002, ROMEO, Keep::Archived) };
    store.done(&[put(JULIET, twin)]);
    let just = |id, offset: i64| Some(Wall(time(id).0.strict_add_signed(offset)));
    assert_eq!(
        store.found(&between(Some(time(0)), None)),
        [3, 4, 900, 70_000, 70_001, 70_002, 5_000_000]
    );
    assert_eq!(
        store.found(&between(Some(time(900)), None)),
        [900, 70_000, 70_001, 70_002, 5_000_000],
        "included"
    );
    assert_eq!(store.found(&between(just(900, 1), None)), [70_000, 70_001, 70_002, 5_000_000]);
    assert_eq!(store.found(&between(None, Some(time(900)))), [3, 4, 900]);
    assert_eq!(store.found(&between(None, just(900, -1))), [3, 4]);
    assert_eq!(store.found(&between(Some(time(70_001)), Some(time(70_001)))), [70_001, 70_002]);
    assert_eq!(store.found(&between(Some(time(5)), Some(time(8)))), [0; 0]);
    assert_eq!(store.found(&between(Some(time(9_000_000)), None)), [0; 0]);
    assert_eq!(
        store.found(&between(Some(time(900)), Some(time(4)))),
        [0; 0],
        "ends before it starts"
    );
    assert_eq!(store.found(&between(Some(Wall(0)), Some(Wall(u64::MAX)))).len(), 7);
    assert_eq!(store.found(&between(Some(Wall(u64::MAX)), None)), [0; 0]);
    let page =
        ArchiveQuery { page: Page::Before(u64::MAX), max: 2, ..between(None, just(70_000, 0)) };
    assert_eq!(store.shown(&page), (vec![900, 70_000], false));
}

fn times_are_found_where_the_clock_was_set_back(store: &mut Pair) {
    store.done(&[create(JULIET)]);
    // At id 50 the clock goes back by 30 s, so that 20 .. 49 and 50 .. 79 are from the same half minute.
    for id in 1..100 {
        let at = if id < 50 { time(id) } else { time(id - 30) };
        store.done(&[put(JULIET, LogEntry { at, ..row(id, ROMEO, Keep::Archived) })]);
    }
    for (start, end) in [(1, 99), (20, 20), (21, 30), (45, 60), (49, 49), (50, 69), (10, 25)] {
        let query = ArchiveQuery {
            start: Some(time(start)),
            end: Some(time(end)),
            disorder_us: 30_000_000,
            ..all()
        };
        let span = start..=end;
        let expected: Vec<u64> =
            (1..100).filter(|id| span.contains(&if *id < 50 { *id } else { id - 30 })).collect();
        assert_eq!(store.found(&query), expected, "{start} to {end}");
    }
}

fn rows_are_found_by_id(store: &mut Pair) {
    store.done(&[create(JULIET), create(ROMEO)]);
    for id in 1..=9 {
        store.done(&[archived(JULIET, id), archived(ROMEO, id + 100)]);
    }
    store.done(&[append(JULIET, 20)]);
    let some = |ids: &[u64]| ArchiveQuery { ids: Some(ids.to_vec()), ..all() };
    assert_eq!(store.found(&some(&[7, 2, 2, 4])), [2, 4, 7], "in their order, each once");
    assert_eq!(store.found(&some(&[0, 8, 20, 50, 101, u64::MAX])), [8], "those of the archive");
    assert_eq!(store.found(&some(&[])), [0; 0]);
    let forward = ArchiveQuery { max: 2, ..some(&[1, 3, 5, 7]) };
    assert_eq!(store.shown(&forward), (vec![1, 3], false));
    assert_eq!(
        store.shown(&ArchiveQuery { page: Page::After(3), ..forward.clone() }),
        (vec![5, 7], true)
    );
    assert_eq!(
        store.shown(&ArchiveQuery { page: Page::Before(6), ..forward }),
        (vec![3, 5], false)
    );
}

fn filters_hold_together(store: &mut Pair) {
    store.done(&[create(JULIET)]);
    for id in 1..=40 {
        let with = if id % 2 == 0 { ROMEO } else { "mercutio@example.org/phone" };
        store.done(&[put(JULIET, row(id, with, Keep::Archived))]);
    }
    let query = ArchiveQuery {
        with: Some(Jid::parse(MERCUTIO).unwrap()),
        start: Some(time(5)),
        end: Some(time(30)),
        after_id: Some(7),
        before_id: Some(25),
        up_to: 21,
        count_max: 100,
        ..all()
    };
    assert_eq!(store.found(&query), [9, 11, 13, 15, 17, 19, 21]);
    let page = ArchiveQuery { page: Page::Before(17), max: 2, ..query.clone() };
    let (entries, complete, count) = store.archive(&page);
    assert_eq!(entries.iter().map(|entry| entry.id).collect::<Vec<_>>(), [13, 15]);
    assert_eq!((complete, count), (false, Some(7)), "of all pages");
    let ids = ArchiveQuery { ids: Some(vec![3, 9, 10, 11, 23]), ..query };
    assert_eq!(store.found(&ids), [9, 11]);
}

/// Of 400 rows, one in 40 is with Mercutio, every other time from his tower.
fn a_rare_correspondent_is_found_in_a_long_archive(store: &mut Pair) {
    store.done(&[create(JULIET), create(ROMEO)]);
    let with = |id: u64| match id % 80 {
        10 => "mercutio@example.org/tower",
        50 => MERCUTIO,
        _ => ROMEO,
    };
    for first in (1..=400).step_by(7) {
        let rows = (first..first + 7)
            .take_while(|id| *id <= 400)
            .flat_map(|id| [put(JULIET, row(id, with(id), Keep::Both)), archived(ROMEO, id)]);
        store.done(&rows.collect::<Vec<_>>());
    }
    let rare = |change: fn(&mut ArchiveQuery)| {
        let mut query = ArchiveQuery { count_max: 100, ..all() };
        query.with = Some(Jid::parse(MERCUTIO).unwrap());
        change(&mut query);
        query
    };
    let mut page = |change| {
        let query = rare(change);
        let (entries, complete, count) = store.archive(&query);
        (entries.iter().map(|entry| entry.id).collect::<Vec<_>>(), complete, count)
    };
    let each = vec![10, 50, 90, 130, 170, 210, 250, 290, 330, 370];
    assert_eq!(page(|_| ()), (each, true, Some(10)));
    assert_eq!(page(|query| query.max = 3), (vec![10, 50, 90], false, Some(10)));
    let last = page(|query| (query.page, query.max) = (Page::Before(u64::MAX), 3));
    assert_eq!(last, (vec![290, 330, 370], false, Some(10)));
    let before = page(|query| (query.page, query.max) = (Page::Before(290), 9));
    assert_eq!(before, (vec![10, 50, 90, 130, 170, 210, 250], true, Some(10)));
    let between = page(|query| {
        (query.after_id, query.before_id, query.up_to) = (Some(90), Some(370), 300);
    });
    assert_eq!(between, (vec![130, 170, 210, 250, 290], true, Some(5)));
    let timed = page(|query| (query.start, query.end) = (Some(time(90)), Some(time(210))));
    assert_eq!(timed, (vec![90, 130, 170, 210], true, Some(4)));
    let bounded = page(|query| query.count_max = 9);
    assert_eq!(bounded.2, None, "more than were to be counted");
    let tower = page(|query| query.with = Some(Jid::parse("mercutio@example.org/tower").unwrap()));
    assert_eq!(tower, (vec![10, 90, 170, 250, 330], true, Some(5)));
    // Read back whole, and no other way than without an address.
    let (entries, ..) = store.archive(&rare(|_| ()));
    let expected: Vec<LogEntry> =
        (10..=370).step_by(40).map(|id| row(id, with(id), Keep::Both)).collect();
    assert_eq!(entries, expected);
    // The oldest go, of which the last is still pending; what is new comes behind.
    store.done(&[confirm(JULIET, &(1..=210).collect::<Vec<_>>())]);
    assert_eq!(store.one(prune(251, u64::MAX, 400)), Written::Pruned { rows: 250, more: false });
    assert_eq!(store.found(&rare(|_| ())), [290, 330, 370]);
    store.done(&[put(JULIET, row(401, MERCUTIO, Keep::Archived))]);
    assert_eq!(store.found(&rare(|_| ())), [290, 330, 370, 401]);
    assert_eq!(store.ids(JULIET).len(), 190);
    store.writer.reopen().unwrap();
    assert_eq!(store.found(&rare(|_| ())), [290, 330, 370, 401]);
    // All goes with the account.
    store.done(&[Write::DeleteAccount { owner: bare(JULIET) }, create(JULIET)]);
    assert_eq!(store.found(&rare(|_| ())), [0; 0]);
    store.done(&[put(JULIET, row(70, MERCUTIO, Keep::Archived)), archived(JULIET, 71)]);
    assert_eq!(store.found(&rare(|_| ())), [70]);
}

/// As from an import.
fn a_row_that_comes_late_is_found_in_its_place(store: &mut Pair) {
    store.done(&[create(JULIET)]);
    for id in (10..=1_000).step_by(10) {
        store.done(&[archived(JULIET, id)]);
    }
    for id in [1_005, 3, 555, 995, 501, 7, 555] {
        store.done(&[put(JULIET, row(id, MERCUTIO, Keep::Archived))]);
    }
    let query = ArchiveQuery { with: Some(Jid::parse(MERCUTIO).unwrap()), count_max: 9, ..all() };
    let (entries, _, count) = store.archive(&query);
    assert_eq!(count, Some(6));
    let ids: Vec<u64> = entries.iter().map(|entry| entry.id).collect();
    assert_eq!(ids, [3, 7, 501, 555, 995, 1_005]);
    // One that is there stays as it is.
    store.done(&[put(JULIET, row(500, MERCUTIO, Keep::Archived))]);
    assert_eq!(store.found(&query), ids);
}

fn rows_are_counted_up_to_a_bound(store: &mut Pair) {
    store.done(&[create(JULIET)]);
    for id in 1..=20 {
        store.done(&[archived(JULIET, id), append(JULIET, id + 100)]);
    }
    let mut count = |query: ArchiveQuery| store.archive(&query).2;
    assert_eq!(count(all()), None, "nobody asked");
    assert_eq!(count(ArchiveQuery { count_max: 20, ..all() }), Some(20));
    assert_eq!(count(ArchiveQuery { count_max: 19, ..all() }), None, "more than are to be counted");
    assert_eq!(count(ArchiveQuery { count_max: u32::MAX, max: 0, ..all() }), Some(20));
    let half = ArchiveQuery { count_max: 50, end: Some(time(10)), max: 3, ..all() };
    assert_eq!(count(half.clone()), Some(10));
    assert_eq!(count(ArchiveQuery { page: Page::After(8), ..half }), Some(10));
    let nobody = ArchiveQuery { count_max: 5, ..ArchiveQuery::all(bare(ROMEO), 5) };
    assert_eq!(count(nobody), Some(0));
}

fn a_message_is_known_by_its_origin(store: &mut Pair) {
    store.done(&[create(JULIET), put(JULIET, row(1, ROMEO, Keep::Pending)), archived(JULIET, 4)]);
    let mut of = |owner: &str, origins: Vec<Origin>, since: u64| {
        let query = Query::Origins { owner: bare(owner), origins, since: time(since) };
        match store.reader.read(&query).unwrap() {
            Answer::Origins(found) => found,
            other => panic!("origins were asked for, not {other:?}"),
        }
    };
    let origin = |number| Origin { incarnation: 3, link: 5, number };
    let several = [1_004, 1_002, 1_001, 1_004].map(origin).to_vec();
    assert_eq!(of(JULIET, several, 1), [true, false, true, true], "each, in their order");
    let similar =
        [(4, 5), (3, 6)].map(|(incarnation, link)| Origin { incarnation, link, number: 1_001 });
    assert_eq!(of(JULIET, similar.to_vec(), 1), [false, false]);
    assert!(of(JULIET, Vec::new(), 1).is_empty());
    let mut has =
        |owner: &str, number: u64, since: u64| of(owner, vec![origin(number)], since) == [true];
    assert!(has(JULIET, 1_001, 1) && has(JULIET, 1_004, 1), "pending or archived");
    assert!(has(JULIET, 1_004, 4) && !has(JULIET, 1_004, 5), "not among those that are newer");
    assert!(!has(JULIET, 1_002, 0) && !has(ROMEO, 1_001, 0) && !has("nobody@example.org", 1, 0));
}

fn the_ends_of_the_archive_are_known(store: &mut Pair) {
    store.done(&[create(JULIET), append(JULIET, 1)]);
    assert_eq!(store.ends(JULIET, u64::MAX), None, "nothing is archived");
    assert_eq!(store.account(JULIET).unwrap().archived_at, Wall(0));
    store.done(&[archived(JULIET, 4), append(JULIET, 5)]);
    let one = ArchiveEnds { first: (4, time(4)), last: (4, time(4)) };
    assert_eq!(store.ends(JULIET, u64::MAX), Some(one));
    store.done(&[archived(JULIET, 8), archived(JULIET, 6), append(JULIET, 9)]);
    let ends = ArchiveEnds { last: (8, time(8)), ..one };
    assert_eq!(store.ends(JULIET, u64::MAX), Some(ends));
    assert_eq!(store.account(JULIET).unwrap().archived_at, time(8));
    assert_eq!(store.ends(JULIET, 3), None);
    assert_eq!(store.ends("nobody@example.org", u64::MAX), None);
}

fn the_oldest_rows_go_first_and_in_pieces(store: &mut Pair) {
    store.done(&[create(JULIET), create(ROMEO)]);
    for id in 1..=20 {
        store.done(&[archived(JULIET, id), archived(ROMEO, id)]);
    }
    let pruned = |rows, more| Written::Pruned { rows, more };
    assert_eq!(store.one(prune(6, u64::MAX, 2)), pruned(2, true));
    assert_eq!(store.one(prune(6, u64::MAX, 3)), pruned(3, false), "exactly all of them");
    assert_eq!(store.one(prune(6, u64::MAX, 9)), pruned(0, false));
    assert_eq!(store.found(&all()), (6..=20).collect::<Vec<_>>());
    assert_eq!(store.one(prune(0, 12, 2)), pruned(2, true), "by their number");
    assert_eq!(store.one(prune(0, 12, 2)), pruned(1, false));
    assert_eq!(store.found(&all()), (9..=20).collect::<Vec<_>>());
    assert_eq!(store.one(prune(15, 7, 100)), pruned(6, false), "by either");
    // One from before stays behind one that is not: an archive has no holes.
    store.done(&[put(JULIET, LogEntry { at: time(2), ..row(30, ROMEO, Keep::Archived) })]);
    assert_eq!(store.one(prune(15, u64::MAX, 100)), pruned(0, false));
    assert_eq!(store.one(prune(0, 0, 100)), pruned(7, false));
    assert_eq!(store.found(&all()), [0; 0]);
    let romeo = ArchiveQuery::all(bare(ROMEO), 100);
    assert_eq!(store.found(&romeo).len(), 20);
    let nobody = Write::PruneArchive { owner: bare(MERCUTIO), before: time(9), keep: 0, limit: 9 };
    assert_eq!(store.one(nobody), Written::NoAccount);
}

fn what_is_pending_outlives_the_archive(store: &mut Pair) {
    store.done(&[create(JULIET)]);
    for id in 1..=4 {
        store.done(&[put(JULIET, row(id, ROMEO, Keep::Both))]);
    }
    store.done(&[append(JULIET, 5), confirm(JULIET, &[1, 3])]);
    assert_eq!(store.one(prune(4, u64::MAX, 9)), Written::Pruned { rows: 3, more: false });
    assert_eq!(store.found(&all()), [4]);
    assert_eq!(store.ids(JULIET), [2, 4, 5]);
    assert_eq!(store.page(JULIET, 0, 1).0[0].keep, Keep::Pending);
    store.done(&[confirm(JULIET, &[2, 4, 5])]);
    assert_eq!((store.ids(JULIET), store.found(&all())), (vec![], vec![4]));
}

fn a_stanza_is_replaced_in_its_place(store: &mut Pair) {
    store.done(&[create(JULIET), create(ROMEO)]);
    for id in 1..=3 {
        store.done(&[put(JULIET, row(id, ROMEO, Keep::Both)), archived(ROMEO, id)]);
    }
    store.done(&[confirm(JULIET, &[1])]);
    for id in [1, 2, 77] {
        store.done(&[Write::ReplaceLog {
            owner: bare(JULIET),
            id,
            stanza: b"<message><gone/></message>".to_vec(),
            open_end: 4,
            close_start: 7,
        }]);
    }
    let gone = |id, keep| LogEntry {
        stanza: b"<message><gone/></message>".to_vec(),
        open_end: 4,
        close_start: 7,
        ..row(id, ROMEO, keep)
    };
    let expected = [gone(1, Keep::Archived), gone(2, Keep::Both), row(3, ROMEO, Keep::Both)];
    assert_eq!(store.archive(&all()).0, expected);
    assert_eq!(store.page(JULIET, 0, 9).0, expected[1..]);
    let (romeo, ..) = store.archive(&ArchiveQuery::all(bare(ROMEO), 9));
    assert_eq!(romeo[0], row(1, ROMEO, Keep::Archived), "another owner's");
}

fn an_archive_goes_with_its_account(store: &mut Pair) {
    store.done(&[create(JULIET), create(ROMEO)]);
    for id in 1..=3 {
        store.done(&[put(JULIET, row(id, ROMEO, Keep::Both)), archived(ROMEO, id)]);
    }
    store.done(&[Write::DeleteAccount { owner: bare(JULIET) }, create(JULIET)]);
    assert_eq!((store.ids(JULIET), store.found(&all())), (vec![], vec![]));
    assert_eq!(store.ends(JULIET, u64::MAX), None);
    assert_eq!(store.found(&ArchiveQuery::all(bare(ROMEO), 9)), [1, 2, 3]);
}
