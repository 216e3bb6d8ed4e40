//! Random batches and questions, to which all backends give the answers of the twin in memory.

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use super::super::memory::MemoryStore;
use super::super::{ArchiveQuery, Keep, LogEntry, Page, Query, Reader, Write, Writer};
use super::{JULIET, bare, contact, put_roster, put_slot};
use crate::base::instant::Wall;
use crate::xmpp::jid::{BareJid, Jid};

/// Commits random batches to a fresh store and to the twin in memory, which must answer alike.
pub(in crate::store) fn agrees_with_twin(
    seed: u64,
    disk: &mut dyn Writer,
    disk_reader: &mut dyn Reader,
) {
    let twin = MemoryStore::new();
    let mut twin_reader = twin.reader();
    let (mut twin, _) = twin.open();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut owners: Vec<String> = (0..6).map(|n| format!("u{n}@example.org")).collect();
    // Remote domains, for which rows wait.
    owners.extend(["a.example", "example.org"].map(str::to_owned));
    for round in 0..60 {
        let batch: Vec<Write> =
            (0..rng.random_range(1..30)).map(|_| random_write(&mut rng, &owners)).collect();
        assert_eq!(
            disk.commit(&batch).unwrap(),
            twin.commit(&batch).unwrap(),
            "seed {seed}, {batch:?}"
        );
        if round % 20 == 19 {
            disk.reopen().unwrap();
        }
        for owner in &owners {
            let owner = bare(owner);
            let (after, limit) = (rng.random_range(0..40), rng.random_range(0..20));
            let queries = [
                Query::Account { owner: owner.clone() },
                Query::Log { owner: owner.clone(), after, limit },
                random_page(&mut rng, &owners, owner.clone()),
                random_page(&mut rng, &owners, owner.clone()),
                Query::ArchiveEnds { owner: owner.clone(), up_to: rng.random_range(0..50) },
                Query::Accounts {
                    domain: None,
                    only_disabled: false,
                    after: Some(owner.clone()),
                    limit,
                },
                Query::Accounts {
                    domain: Some("example.org".to_owned()),
                    only_disabled: true,
                    after: None,
                    limit,
                },
                Query::CountAccounts { domain: "example.org".to_owned() },
                Query::RemoteLogs { after: None, limit },
                Query::Origins {
                    owner: owner.clone(),
                    origins: [after, after + 1]
                        .map(|id| super::entry(id, JULIET, b"").origin)
                        .to_vec(),
                    since: Wall(0),
                },
            ];
            for query in queries {
                let (disk, twin) = (disk_reader.read(&query), twin_reader.read(&query));
                assert_eq!(disk.unwrap(), twin.unwrap(), "seed {seed}, round {round}, {query:?}");
            }
        }
    }
}

fn random_write(rng: &mut ChaCha8Rng, owners: &[String]) -> Write {
    let text = &owners[rng.random_range(0..owners.len())];
    let owner = bare(text);
    let id = rng.random_range(1..40);
    let name = ["a", "b", "c"][rng.random_range(0..3)];
    match rng.random_range(0..20) {
        0..3 => Write::CreateAccount { owner, credentials: super::credentials(rng.random()) },
        3 => Write::DeleteAccount { owner },
        4 => Write::SetCredentials { owner, credentials: super::credentials(rng.random()) },
        5 => Write::SetDisabled { owner, disabled: rng.random() },
        6..9 => {
            let count = rng.random_range(0..3);
            let set: Vec<_> = (0..count)
                .map(|_| {
                    let mut item = contact(&owners[rng.random_range(0..owners.len())]);
                    item.ask = rng.random();
                    item.groups = vec![name.to_owned(); rng.random_range(0..3)];
                    item
                })
                .collect();
            let removed = &owners[rng.random_range(0..owners.len())];
            put_roster(text, set, &[removed], rng.random())
        }
        9..12 => put_slot(text, name, rng.random::<bool>().then_some(&[rng.random::<u8>(); 9])),
        12..17 => {
            let with = address(rng, owners);
            let keep = [Keep::Pending, Keep::Archived, Keep::Both][rng.random_range(0..3)];
            let stanza = [rng.random::<u8>(); 50];
            let entry = LogEntry { keep, ..super::entry(id, &with, &stanza) };
            Write::AppendLog { owner, entry }
        }
        17 => Write::ConfirmLog { owner, ids: (id..id + rng.random_range(0..9)).collect() },
        18 if rng.random() => Write::ReplaceLog {
            owner,
            id,
            stanza: vec![rng.random(); 9],
            open_end: rng.random(),
            close_start: rng.random(),
        },
        18 => Write::PruneArchive {
            owner,
            before: super::entry(id / 4, text, b"").at,
            keep: rng.random_range(5..40),
            limit: rng.random_range(0..5),
        },
        _ => Write::ReserveIds { partition: rng.random_range(0..3), count: rng.random_range(0..9) },
    }
}

/// One of the owners, often with a resource.
fn address(rng: &mut ChaCha8Rng, owners: &[String]) -> String {
    let owner = &owners[rng.random_range(0..owners.len())];
    let resource = ["", "/a", "/b"][rng.random_range(0..3)];
    format!("{owner}{resource}")
}

fn random_page(rng: &mut ChaCha8Rng, owners: &[String], owner: BareJid) -> Query {
    let id = |rng: &mut ChaCha8Rng| rng.random_range(0..42);
    let time = |rng: &mut ChaCha8Rng| Some(super::entry(id(rng), JULIET, b"").at);
    let mut query = ArchiveQuery::all(owner, rng.random_range(0..12));
    query.page = if rng.random() { Page::After(id(rng)) } else { Page::Before(id(rng)) };
    query.count_max = rng.random_range(0..20);
    for _ in 0..rng.random_range(0..3) {
        match rng.random_range(0..7) {
            0 => query.with = Some(Jid::parse(&address(rng, owners)).unwrap()),
            1 => query.start = time(rng),
            2 => query.end = time(rng),
            3 => query.after_id = Some(id(rng)),
            4 => query.before_id = Some(id(rng)),
            5 => query.up_to = id(rng),
            _ => query.ids = Some((0..rng.random_range(0..9)).map(|_| id(rng)).collect()),
        }
    }
    Query::Archive(Box::new(query))
}
