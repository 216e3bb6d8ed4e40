//! Accounts come from other servers and go to others: what real servers wrote is in `data/`.

use std::path::{Path, PathBuf};

use corefire::base::instant::Wall;
use corefire::store::sqlite::{self, SqliteReader};
use corefire::store::{
    AccountRecord, Answer, ArchiveQuery, Keep, LogEntry, Origin, Query, Reader, RosterItem,
    Subscription, Write, Writer, Written,
};
use corefire::stream::sasl;
use corefire::xmpp::credentials::{Credentials, ScramKeys};
use corefire::xmpp::jid::{BareJid, Jid};

use crate::{Place, Run};

const SETTINGS: [&str; 4] = [
    "--set",
    "domains=[\"localhost\",\"example.org\",\"scram.example\",\"sha256.example\"]",
    "--set",
    "auth.scram_iterations=4096",
];

impl Place {
    fn tool(&self, arguments: &[&str]) -> Run {
        self.run(arguments.iter().chain(&SETTINGS))
    }

    /// As `tool`, on another data directory.
    fn tool_on(&self, data_dir: &str, arguments: &[&str]) -> Run {
        self.run(arguments.iter().chain(&SETTINGS).chain(&["--data-dir", data_dir]))
    }

    fn reader(&self) -> SqliteReader {
        SqliteReader::open(&self.path("corefire-data/corefire.db")).unwrap()
    }

    fn account(&self, jid: &str) -> Box<AccountRecord> {
        match self.reader().read(&Query::Account { owner: bare(jid) }).unwrap() {
            Answer::Account(Some(account)) => account,
            other => panic!("{jid}: {other:?}"),
        }
    }

    fn log(&self, jid: &str) -> Vec<LogEntry> {
        let query = Query::Log { owner: bare(jid), after: 0, limit: 1_000 };
        match self.reader().read(&query).unwrap() {
            Answer::Log { entries, more: false } => entries,
            other => panic!("{other:?}"),
        }
    }

    fn archive(&self, jid: &str) -> Vec<LogEntry> {
        let query = Query::Archive(Box::new(ArchiveQuery::all(bare(jid), 1_000)));
        match self.reader().read(&query).unwrap() {
            Answer::Archive { entries, complete: true, .. } => entries,
            other => panic!("{other:?}"),
        }
    }

    fn slot(&self, jid: &str, name: &str) -> Option<String> {
        let query = Query::Slot { owner: bare(jid), name: name.to_owned() };
        match self.reader().read(&query).unwrap() {
            Answer::Slot(value) => value.map(|value| String::from_utf8(value).unwrap()),
            other => panic!("{other:?}"),
        }
    }
}

fn bare(jid: &str) -> BareJid {
    BareJid::parse(jid).unwrap()
}

pub(crate) fn data(name: &str) -> String {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/data").join(name);
    path.display().to_string()
}

/// What both real servers were filled with, whoever kept it since.
fn holds_what_juliet_had(place: &Place) {
    let juliet = place.account("juliet@localhost");
    let contact =
        |jid: &str| juliet.roster.iter().find(|item| item.jid.to_string() == jid).unwrap();
    let romeo = contact("romeo@localhost");
    assert_eq!(
        (romeo.name.as_str(), romeo.subscription),
        ("Ro & \"meo\" \u{e9}", Subscription::Both)
    );
    assert_eq!(romeo.groups, ["Friends", "Verona \u{2713}"]);
    assert_eq!(contact("nurse@example.net").name, "Nurse");
    assert!(contact("tybalt@example.net").ask);
    let mercutio = contact("mercutio@localhost");
    assert!(!mercutio.listed);
    let request = String::from_utf8(mercutio.pending_in.clone().unwrap()).unwrap();
    assert!(request.contains("type='subscribe'") && request.contains("please"), "{request}");
    assert_eq!(
        place.slot("juliet@localhost", "blocking").as_deref(),
        Some("spam.example\ntybalt@example.net")
    );
    let card = place.slot("juliet@localhost", "~vcard").unwrap();
    assert!(card.contains("<NICKNAME>J\n\"x\" \\ </NICKNAME>"), "{card}");
    let bookmarks = place.slot("juliet@localhost", "~private storage:bookmarks storage").unwrap();
    assert!(bookmarks.contains("<nick>j</nick>"), "{bookmarks}");
    let log = place.log("juliet@localhost");
    let texts: Vec<String> =
        log.iter().map(|entry| String::from_utf8(entry.stanza.clone()).unwrap()).collect();
    assert_eq!(texts.len(), 3);
    for (text, body) in texts.iter().zip([
        "<body>Wherefore &lt;art&gt; &amp; thou?\nsecond \\ \"line\"</body>",
        "<body>\u{e9} \u{2713} \u{1f600}</body>",
        "<body>Peace</body>",
    ]) {
        assert!(text.contains(body), "{text}");
        assert!(text.starts_with("<message ") && text.ends_with("</message>"), "{text}");
        // The former server's stamps and ids are not the message's.
        assert!(!text.contains("delay") && !text.contains("stanza-id"), "{text}");
        assert!(!text.contains(" stamp="), "{text}");
    }
    assert_eq!(log[0].with.to_string(), "romeo@localhost/orchard");
    let inner = &texts[0][log[0].open_end as usize..log[0].close_start as usize];
    assert!(!inner.starts_with("<message") && !inner.ends_with("</message>"), "{inner}");
    assert!(log.is_sorted_by_key(|entry| (entry.id, entry.at.0)));
    // November 2026.
    assert!((1_795_000_000..1_797_000_000).contains(&(log[0].at.0 / 1_000_000)), "{:?}", log[0].at);
}

#[test]
fn what_ejabberd_exported_is_imported() {
    let place = Place::new();
    let main = data("ejabberd-23.01/20261126-174429.xml");
    let told = place.tool(&["import", &main]).done();
    for line in [
        "         4 accounts\n",
        "         3 passwords\n",
        "         1 SCRAM-SHA-256 keys\n",
        "         5 contacts\n",
        "         1 subscription requests\n",
        "         1 vCards\n",
        "         2 private elements\n",
        "         2 blocked addresses\n",
        "         3 offline messages\n",
    ] {
        assert!(told.contains(line), "{line}{told}");
    }
    assert!(!told.contains("left out"), "{told}");
    holds_what_juliet_had(&place);
    // A password in clear becomes keys; keys stay, though that version encodes them twice.
    let juliet = place.account("juliet@localhost").credentials;
    assert!(sasl::verify_plain("secret", &juliet.sha256) && juliet.sha512.is_some());
    let benvolio = place.account("benvolio@scram.example").credentials;
    assert!(
        sasl::verify_plain("b", &benvolio.sha256) && !sasl::verify_plain("c", &benvolio.sha256)
    );
    assert!(benvolio.sha1.is_none() && benvolio.sha512.is_none());
}

#[test]
fn the_files_of_prosody_are_imported() {
    let place = Place::new();
    let told = place.tool(&["import", &data("prosody-0.12")]).done();
    for line in [
        "         5 accounts\n",
        "         1 passwords\n",
        "         3 SCRAM-SHA-1 keys\n",
        "         1 SCRAM-SHA-256 keys\n",
        "         5 contacts\n",
        "         1 subscription requests\n",
        "         2 private elements\n",
        "         2 blocked addresses\n",
        "         3 offline messages\n",
        "         6 archived messages\n",
        "left out, as this server does not keep it:\n         1 PEP items\n",
    ] {
        assert!(told.contains(line), "{line}{told}");
    }
    holds_what_juliet_had(&place);
    // What waits for her is in her archive, too, once.
    assert!(place.log("juliet@localhost").iter().all(|entry| entry.keep == Keep::Both));
    assert_eq!(place.archive("juliet@localhost"), place.log("juliet@localhost"));
    let sent = place.archive("romeo@localhost");
    assert_eq!((sent.len(), sent[0].keep), (2, Keep::Archived));
    assert_eq!(sent[0].with.to_string(), "juliet@localhost");
    let juliet = place.account("juliet@localhost").credentials;
    assert!(sasl::verify_plain("secret", &juliet.sha1) && !sasl::verify_plain("x", &juliet.sha1));
    assert!(juliet.sha256.is_none());
    assert_eq!(place.account("juliet@localhost").roster_version, 8);
    assert!(sasl::verify_plain(
        "plain",
        &place.account("ro.meo-x_y@example.org").credentials.sha256
    ));
    let benvolio = place.account("benvolio@sha256.example").credentials;
    assert!(sasl::verify_plain("b", &benvolio.sha256) && benvolio.sha1.is_none());
}

/// Accounts with something of every kind in them.
fn fill(path: &Path) {
    let mut writer = sqlite::open(path).unwrap().writer;
    let keys = |byte, length| ScramKeys {
        iterations: 4096 + u32::from(byte),
        salt: vec![byte; 16],
        stored_key: vec![byte; length],
        server_key: vec![byte + 1; length],
    };
    let all =
        Credentials { sha1: keys(1, 20), sha256: keys(2, 32), sha512: Some(Box::new(keys(3, 64))) };
    let some = Credentials { sha256: keys(9, 32), ..Credentials::none() };
    let (juliet, zoe) = (bare("juliet@example.org"), bare("z\u{f6}e.o@localhost"));
    let slot = |name: &str, value: &[u8]| Write::PutSlot {
        owner: juliet.clone(),
        name: name.to_owned(),
        value: Some(value.to_vec()),
    };
    let item = |jid: &str| RosterItem::new(Jid::parse(jid).unwrap());
    let roster = vec![
        RosterItem {
            name: "R <&> \u{1f600}".to_owned(),
            groups: vec!["b".to_owned(), "a".to_owned()],
            subscription: Subscription::From,
            ask: true,
            ..item("romeo@example.net")
        },
        RosterItem { approved: true, ..item("gateway.example.net") },
        RosterItem {
            listed: false,
            pending_in: Some(
                b"<presence from='tybalt@example.net' to='juliet@example.org' type='subscribe'/>"
                    .to_vec(),
            ),
            ..item("tybalt@example.net")
        },
        RosterItem {
            pending_in: Some(b"<presence type='subscribe'><x xmlns='u:x'/></presence>".to_vec()),
            ..item("paris@example.net")
        },
    ];
    let message = |id: u64, keep: Keep, body: &str| {
        let open = "<message from='romeo@example.net/a' to='juliet@example.org' type='chat'>";
        let text = format!("{open}<body>{body}</body></message>");
        let entry = LogEntry {
            id,
            at: Wall(1_700_000_000_000_000 + id * 7),
            with: Jid::parse("romeo@example.net/a").unwrap(),
            keep,
            origin: Origin::default(),
            open_end: u32::try_from(open.len()).unwrap(),
            close_start: u32::try_from(text.len() - "</message>".len()).unwrap(),
            stanza: text.into_bytes(),
        };
        Write::AppendLog { owner: juliet.clone(), entry }
    };
    let mut batch = vec![
        Write::CreateAccount { owner: juliet.clone(), credentials: all },
        Write::CreateAccount { owner: zoe.clone(), credentials: some },
        Write::SetDisabled { owner: zoe, disabled: true },
        Write::PutRoster { owner: juliet.clone(), set: roster, remove: Vec::new(), version: 42 },
        slot("~vcard", b"<vCard xmlns='vcard-temp'><FN>J &amp; J</FN></vCard>"),
        slot("private", b"39 exodus:prefs exodus\n"),
        slot("~private exodus:prefs exodus", b"<exodus xmlns='exodus:prefs'>x</exodus>"),
        slot("blocking", b"example.com\ntybalt@example.net/x"),
        slot("quarantine", &[0, 1, 2, 255]),
        Write::ReserveIds { partition: u16::try_from(juliet.hash64() % 64).unwrap(), count: 4_096 },
    ];
    // The archive and what waits, across one another.
    let keep = |id: u64| [Keep::Pending, Keep::Both, Keep::Archived][(id % 3) as usize];
    // More than a page of the export and a step of the import hold.
    let long = "y".repeat(2_000);
    batch
        .extend((1..=900).map(|id| {
            message(id * 3, keep(id), if id % 2 == 0 { &long } else { "x &lt; \u{e9}" })
        }));
    assert!(
        writer
            .commit(&batch)
            .unwrap()
            .iter()
            .all(|one| { matches!(one, Written::Done | Written::Reserved { .. }) })
    );
}

#[test]
fn what_is_exported_and_imported_is_exported_the_same_again() {
    let place = Place::new();
    std::fs::create_dir(place.path("corefire-data")).unwrap();
    fill(&place.path("corefire-data/corefire.db"));
    place.tool(&["export", "--out", "one.xml"]).done();
    place.tool(&["export", "--out", "one"]).done();
    let told = place.tool_on("second", &["import", "one.xml"]).done();
    assert!(told.contains("       600 offline messages\n"), "{told}");
    assert!(!told.contains("left out"), "{told}");
    place.tool_on("second", &["export", "--out", "two.xml"]).done();
    let read = |name: &str| std::fs::read_to_string(place.path(name)).unwrap();
    assert_eq!(read("one.xml"), read("two.xml"));

    place.tool_on("third", &["import", "one"]).done();
    place.tool_on("third", &["export", "--out", "three"]).done();
    for file in [
        "server-data.xml",
        "example.org.xml",
        "localhost.xml",
        "example.org/juliet.xml",
        "localhost/z\u{f6}e.o.xml",
    ] {
        assert_eq!(read(&format!("one/{file}")), read(&format!("three/{file}")), "{file}");
    }
    // Not only what is exported: what the store holds.
    let second = place.path("second/corefire.db");
    std::fs::rename(&second, place.path("corefire-data/second.db")).unwrap();
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(place.path(&format!("second/corefire.db{suffix}")));
    }
    let mut one = place.reader();
    let mut two = SqliteReader::open(&place.path("corefire-data/second.db")).unwrap();
    let compared = corefire::store::transfer::compare(&mut one, &mut two).unwrap();
    // A stored request has got its addresses, and each store counts its own openings.
    let own = "juliet@example.org: password, state, roster or number of messages differ";
    assert!(
        compared.told.iter().all(|line| line == own || line.contains("openings")),
        "{compared:?}"
    );

    for mode in ["one.xml", "one", "one/example.org/juliet.xml"] {
        use std::os::unix::fs::PermissionsExt;
        let mode_of = std::fs::metadata(place.path(mode)).unwrap().permissions().mode();
        assert_eq!(mode_of & 0o077, 0, "{mode}");
    }
}

#[test]
fn one_account_or_one_domain_is_exported() {
    let place = Place::new();
    std::fs::create_dir(place.path("corefire-data")).unwrap();
    fill(&place.path("corefire-data/corefire.db"));
    place.tool(&["export", "--out", "a.xml", "--user", "z\u{f6}e.o@localhost"]).done();
    place.tool(&["export", "--out", "b.xml", "--domain", "localhost"]).done();
    let read = |name: &str| std::fs::read_to_string(place.path(name)).unwrap();
    assert_eq!(read("a.xml"), read("b.xml"));
    assert!(read("a.xml").contains("disabled='true'") && !read("a.xml").contains("juliet"));
    place
        .tool(&["export", "--out", "c.xml", "--user", "nobody@localhost"])
        .refused(&["corefire: nobody@localhost: no such account; see: corefire user list"]);
    place
        .tool(&["export", "--out", "a.xml"])
        .refused(&["corefire: a.xml: there is such a file; give a new name"]);
    assert!(!place.path("c.xml").exists(), "nothing is left of what failed");
    assert_eq!(std::fs::read_dir(place.dir.path()).unwrap().count(), 3);
}

const HEAD: &str =
    "<server-data xmlns='urn:xmpp:pie:0' xmlns:xi='http://www.w3.org/2001/XInclude'>\n";

fn pie(users: &str) -> String {
    format!("{HEAD}<host jid='localhost'>\n{users}\n</host>\n</server-data>\n")
}

#[test]
fn a_trial_run_tells_the_same_and_changes_nothing() {
    let place = Place::new();
    place.write("x.xml", &pie("<user name='a' password='x'/>\n<user name='b' password='y'/>"));
    let tried = place.tool(&["import", "x.xml", "--dry-run"]).done();
    assert!(!place.path("corefire-data").exists());
    place.tool(&["user", "add", "b@localhost", "--password", "z"]).done();
    let tried_again = place.tool(&["import", "x.xml", "--dry-run"]).done();
    assert_eq!(place.tool(&["user", "list"]).done(), "b@localhost\n");
    let told = place.tool(&["import", "x.xml"]).done();
    assert_eq!(tried, "would be imported:\n         2 accounts\n         2 passwords\n");
    assert_eq!(tried_again.replace("would be imported", "imported"), told);
    assert!(told.contains("exist already, and are left alone:\n         1 accounts\n"), "{told}");
    assert!(sasl::verify_plain("z", &place.account("b@localhost").credentials.sha256));
    place.tool(&["import", "x.xml", "--replace"]).done();
    assert!(sasl::verify_plain("y", &place.account("b@localhost").credentials.sha256));
}

#[test]
fn what_is_faulty_is_told_with_its_place_and_the_rest_comes_in() {
    let place = Place::new();
    let users = "<user name='a@b' password='x'/>
<user name='a' password='x'>
 <query xmlns='jabber:iq:roster'>
  <item jid='@'/>
  <item jid='b@localhost'/>
 </query>
 <offline-messages><message xmlns='jabber:client' from='b@localhost'/></offline-messages>
 <scram-credentials xmlns='urn:xmpp:pie:0#scram' mechanism='SCRAM-SHA-1'><iter-count>1</iter-count>\
<salt>AAAA</salt><server-key>AAAA</server-key><stored-key>AAAA</stored-key></scram-credentials>
 <unknown xmlns='u:x'/>
</user>
<user name='c'/>";
    place.write("x.xml", &pie(users));
    let run = place.tool(&["import", "x.xml"]);
    let expected = [
        "imported:",
        "         2 accounts",
        "         1 accounts without a password",
        "         1 contacts",
        "         1 passwords",
        "accounts without a password are of nobody until: corefire user passwd JID --password-stdin",
        "left out, as this server does not keep it:",
        "         1 elements <unknown xmlns='u:x'/>",
    ];
    assert_eq!(run.stdout.lines().collect::<Vec<_>>(), expected);
    run.refused(&[
        "x.xml:3: the user \"a@b\" of localhost is not imported: the local part has a character that is not allowed there",
        "x.xml:6: a@localhost: the contact \"@\": the address has no domain; left out",
        "x.xml:9: a@localhost: an offline message that does not say when it came; left out",
        "x.xml:10: a@localhost: keys that cannot be used: keys of another length than 20 bytes",
        "corefire: 4 faults; see the lines above",
    ]);
    let strict = place.tool(&["import", "x.xml", "--strict", "--replace"]);
    assert_eq!(strict.code, 1);
    assert!(
        strict.stderr.lines().count() == 1 && strict.stderr.contains("x.xml:3"),
        "{}",
        strict.stderr
    );
}

#[test]
fn a_damaged_file_costs_its_own_users_alone() {
    let place = Place::new();
    place.write(
        "main.xml",
        &format!("{HEAD}<xi:include href='host.xml'/><host jid='example.org'><user name='z' password='z'/></host></server-data>"),
    );
    place.write(
        "host.xml",
        "<host xmlns='urn:xmpp:pie:0' xmlns:xi='http://www.w3.org/2001/XInclude' jid='localhost'>\
         <xi:include href='a.xml'/><xi:include href='../b.xml'/><xi:include href='c.xml'/></host>",
    );
    place.write("a.xml", "<user xmlns='urn:xmpp:pie:0' name='a' password='x'>\n<query></user>");
    place.write("c.xml", "<user xmlns='urn:xmpp:pie:0' name='c' password='x'/>");
    let run = place.tool(&["import", "main.xml"]);
    assert_eq!(run.code, 1);
    let lines: Vec<&str> = run.stderr.lines().collect();
    assert!(
        lines[0].starts_with("a.xml:2: a@localhost: not imported: the file is no well-formed XML"),
        "{lines:?}"
    );
    assert!(
        lines[1].starts_with("host.xml:1: the include \"../b.xml\": leads out of the directory"),
        "{lines:?}"
    );
    assert_eq!(lines.len(), 3);
    assert_eq!(place.tool(&["user", "list"]).done(), "c@localhost\nz@example.org\n");
    place.write("no.xml", "<html/>");
    place.tool(&["import", "no.xml"]).refused(&[
        "corefire: no.xml:1: the root is <html/> and not <server-data xmlns='urn:xmpp:pie:0'/>; \
         give a file of XEP-0227",
    ]);
    place.write("cut.xml", &pie("<user name='d' password='x'/>")[..150]);
    let cut = place.tool(&["import", "cut.xml"]);
    assert!(cut.code == 1 && cut.stderr.contains("cut.xml:"), "{}", cut.stderr);
}

#[test]
fn domains_that_are_not_served_are_told_once() {
    let place = Place::new();
    let text = pie("<user name='a' password='x'/><user name='b' password='x'/>");
    place.write("x.xml", &text.replace("localhost", "elsewhere.example"));
    let run = place.tool(&["import", "x.xml"]);
    assert!(run.stdout.contains("nothing was imported\n"), "{}", run.stdout);
    assert!(run.stdout.contains("         2 accounts of elsewhere.example\n"), "{}", run.stdout);
    run.refused(&[
        "x.xml:3: elsewhere.example: not a domain of this server, which serves localhost, example.org, scram.example, \
         sha256.example; add it to domains in the configuration",
        "corefire: 1 fault; see the line above",
    ]);
}

#[test]
fn faulty_files_of_prosody_are_told_with_their_places() {
    let place = Place::new();
    let root = place.path("prosody");
    let file = |name: &str, text: &str| {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    file("localhost/accounts/a.dat", "return {\n\t[\"password\"] = \"x\";\n};\n");
    file("localhost/accounts/b.dat", "return {\n\t[\"password\"] = os.exit();\n};\n");
    file("localhost/accounts/%zz.dat", "return {};\n");
    file(
        "localhost/roster/a.dat",
        "return { [\"@\"] = {}; [\"c@localhost\"] = { [\"subscription\"] = \"both\" } };",
    );
    file(
        "localhost/offline/a.list",
        "item({ [\"name\"] = \"message\"; [\"when\"] = 1e9; [\"attr\"] = { [\"from\"] = \"c@localhost\" } });\nitem({",
    );
    file("localhost/cloud_notify/a.dat", "return {};");
    file("conference%2elocalhost/config/room.dat", "return {};");
    let run = place.tool(&["import", "prosody"]);
    assert!(
        run.stdout
            .contains("         1 accounts\n         1 contacts\n         1 offline messages\n"),
        "{}",
        run.stdout
    );
    assert!(run.stdout.contains("         1 files of cloud_notify\n"), "{}", run.stdout);
    assert!(
        run.stdout.contains(
            "         1 files of config of conference.localhost, which has no accounts\n"
        ),
        "{}",
        run.stdout
    );
    run.refused(&[
        "prosody/localhost/accounts/%zz.dat: not imported: its name is not encoded as Prosody does",
        "prosody/localhost/roster/a.dat: a@localhost: a contact is left out: \"@\": the address has no domain",
        "prosody/localhost/offline/a.list:2: a@localhost: ends within a value; the rest is left out",
        "prosody/localhost/accounts/b.dat:2: b@localhost: \"os\", which is no plain value; left out",
        "prosody/localhost/accounts/b.dat: b@localhost: not imported: its account cannot be read; see the line above",
        "corefire: 5 faults; see the lines above",
    ]);
    place.tool(&["import", "prosody/localhost"]).refused(&[
        "corefire: prosody/localhost: holds no folder with accounts; give the data_path of a Prosody with internal \
         storage, as in /var/lib/prosody",
    ]);
}
