//! What a file holds is told piece by piece, and what is wrong in it with its place.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::io::BufRead;

use super::super::{Files, Piece, Place, Sink, Stop, View};
use super::{reader, writer};
use crate::base::instant::Wall;
use crate::store::memory::MemoryStore;
use crate::store::{Keep, LogEntry, Origin, Subscription, Write, Writer as _};
use crate::xmpp::credentials::{Credentials, ScramKeys};
use crate::xmpp::jid::{BareJid, Jid};

/// Files in memory; all may include all.
struct Texts(BTreeMap<&'static str, String>);

impl Files for Texts {
    fn open(&mut self, _from: &str, name: &str) -> Result<(String, Box<dyn BufRead>), String> {
        let text = self.0.get(name).ok_or("is not there")?.clone();
        Ok((name.to_owned(), Box::new(std::io::Cursor::new(text))))
    }
}

/// What was told, a line for each.
#[derive(Default)]
struct Told {
    lines: Vec<String>,
    pieces: Vec<Piece>,
    refused: Option<&'static str>,
}

impl Sink for Told {
    fn user(&mut self, jid: BareJid, place: &Place) -> Result<bool, Stop> {
        self.lines.push(format!("{place} user {jid}"));
        Ok(self.refused != Some(jid.as_str()))
    }

    fn piece(&mut self, piece: Piece, place: &Place) -> Result<(), Stop> {
        let kind = format!("{piece:?}");
        let kind = kind.split(['(', ' ']).next().unwrap_or_default();
        self.lines.push(format!("{place} {kind}"));
        self.pieces.push(piece);
        Ok(())
    }

    fn left_out(&mut self, kind: &str, count: u64) -> Result<(), Stop> {
        self.lines.push(format!("left out {count} {kind}"));
        Ok(())
    }

    fn faulty(&mut self, fault: &str, place: &Place) -> Result<(), Stop> {
        self.lines.push(format!("{place} faulty {fault}"));
        Ok(())
    }

    fn broken(&mut self, fault: &str, place: &Place) -> Result<(), Stop> {
        self.lines.push(format!("{place} broken {fault}"));
        Ok(())
    }

    fn end(&mut self) -> Result<(), Stop> {
        self.lines.push("end".to_owned());
        Ok(())
    }
}

fn read(files: &[(&'static str, &str)], refused: Option<&'static str>) -> Told {
    let texts = files.iter().map(|(name, text)| (*name, (*text).to_owned())).collect();
    let mut told = Told { refused, ..Told::default() };
    reader::read(&mut Texts(texts), "main.xml", &mut told).unwrap();
    told
}

fn user(inside: &str) -> Told {
    let text = format!(
        "<server-data xmlns='urn:xmpp:pie:0'><host jid='a.org'><user name='u'>{inside}</user></host></server-data>"
    );
    read(&[("main.xml", &text)], None)
}

#[test]
fn includes_stand_for_what_they_include_at_every_level() {
    let main = "<server-data xmlns='urn:xmpp:pie:0' xmlns:xi='http://www.w3.org/2001/XInclude'>
<xi:include href='host.xml'/>
<host jid='B.org'><user name='v'/></host>
</server-data>";
    let host = "<host xmlns='urn:xmpp:pie:0' xmlns:xi='http://www.w3.org/2001/XInclude' jid='a.org'>
<xi:include href='u.xml'/><xi:include href='none.xml'/><xi:include href='text.txt' parse='text'/><xi:include/>
</host>";
    let u = "<user xmlns='urn:xmpp:pie:0' name='u' password='x' xmlns:xi='http://www.w3.org/2001/XInclude'>
<xi:include href='card.xml'/><query xmlns='jabber:iq:private'><p xmlns='u:p'><xi:include href='u.xml'/></p></query></user>";
    let card = "<vCard xmlns='vcard-temp'><FN>U</FN></vCard>";
    let files = [("main.xml", main), ("host.xml", host), ("u.xml", u), ("card.xml", card)];
    let told = read(&files, None);
    let expected = [
        "u.xml:1 user u@a.org",
        "u.xml:1 Password",
        "card.xml:1 Vcard",
        "u.xml:2 Private",
        "end",
        "host.xml:2 faulty the include \"none.xml\": is not there",
        "host.xml:2 faulty the include \"text.txt\": only whole XML files can be included",
        "host.xml:2 faulty an include without href",
        "main.xml:3 user v@b.org",
        "end",
    ];
    assert_eq!(told.lines, expected);
    // Within what is the user's own an include is nothing but an element (XEP-0227 §4).
    let Some(Piece::Private(element)) = told.pieces.last() else { panic!("{:?}", told.pieces) };
    assert_eq!(element.children().next().unwrap().name, "include");
}

#[test]
fn a_file_that_includes_itself_comes_to_an_end() {
    let main = "<server-data xmlns='urn:xmpp:pie:0' xmlns:xi='http://www.w3.org/2001/XInclude'>\
                <host jid='a.org'><xi:include href='u.xml'/></host></server-data>";
    let u = "<user xmlns='urn:xmpp:pie:0' name='u' xmlns:xi='http://www.w3.org/2001/XInclude'>\
             <xi:include href='u.xml'/></user>";
    let told = read(&[("main.xml", main), ("u.xml", u)], None);
    assert!(told.lines.len() < 20, "{:?}", told.lines);
    // A user is no part of a user.
    assert!(
        told.lines.contains(&"left out 1 elements <user xmlns='urn:xmpp:pie:0'/>".to_owned()),
        "{:?}",
        told.lines
    );
}

#[test]
fn a_user_who_is_not_wanted_is_passed_over_whole() {
    let main = "<server-data xmlns='urn:xmpp:pie:0'><host jid='a.org'><user name='u' password='x'>\
                <user name='inner'/></user><user name='v'/></host></server-data>";
    let told = read(&[("main.xml", main)], Some("u@a.org"));
    assert_eq!(told.lines, ["main.xml:1 user u@a.org", "main.xml:1 user v@a.org", "end"]);
}

#[test]
fn what_no_account_can_hold_is_counted_by_its_kind() {
    let told = user(
        "<pubsub xmlns='http://jabber.org/protocol/pubsub#owner'><configure node='a'/><affiliations node='a'/></pubsub>\
         <pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='a'><item id='1'/><item id='2'/></items></pubsub>\
         <scram-credentials xmlns='urn:xmpp:pie:0#scram' mechanism='SCRAM-SHA3-512'/>\
         <x xmlns='u:x'><y/></x>",
    );
    let expected = [
        "main.xml:1 user u@a.org",
        "left out 1 PEP node configurations",
        "left out 1 PEP affiliations",
        "left out 1 PEP items",
        "left out 1 PEP items",
        "left out 1 keys of SCRAM-SHA3-512",
        "left out 1 elements <x xmlns='u:x'/>",
        "end",
    ];
    assert_eq!(told.lines, expected);
}

#[test]
fn times_are_those_of_the_server_and_those_of_others_stay() {
    let message = |delays: &str| {
        let told = user(&format!(
            "<offline-messages><message xmlns='jabber:client' from='b@b.org' to='u@a.org'><body>x</body>{delays}\
             </message></offline-messages>"
        ));
        match told.pieces.into_iter().next() {
            Some(Piece::Message(message)) => Ok(message),
            other => Err(format!("{other:?} {:?}", told.lines)),
        }
    };
    let ours = "<delay xmlns='urn:xmpp:delay' from='a.org' stamp='2024-02-29T23:59:59.123456Z'/>";
    let theirs = "<delay xmlns='urn:xmpp:delay' from='b.org' stamp='2001-01-01T00:00:00Z'/>";
    let at = Wall(1_709_251_199_123_456);
    let read = message(&format!("{ours}{theirs}")).unwrap();
    assert_eq!((read.at, read.view), (at, View::Offline));
    assert_eq!(read.stanza.children().filter(|child| child.name == "delay").count(), 1);
    assert_eq!(read.stanza.child("urn:xmpp:delay", "delay").unwrap().attr("from"), Some("b.org"));
    let old = "<x xmlns='jabber:x:delay' stamp='20240229T23:59:59'/>";
    assert_eq!(message(old).unwrap().at, Wall(1_709_251_199_000_000));
    assert!(message(theirs).is_err(), "it does not say when it came to us");
    assert!(message("<delay xmlns='urn:xmpp:delay' stamp='soon'/>").is_err());
}

#[test]
fn a_message_that_waits_says_what_it_is_called_in_the_archive() {
    let told = user(
        "<offline-messages><message xmlns='jabber:client' from='b@b.org'>\
         <stanza-id xmlns='urn:xmpp:sid:0' by='u@a.org' id='k1'/><stanza-id xmlns='urn:xmpp:sid:0' by='b.org' id='k2'/>\
         <delay xmlns='urn:xmpp:delay' stamp='2024-02-29T23:59:59Z'/></message></offline-messages>\
         <archive xmlns='urn:xmpp:pie:0#mam'><result xmlns='urn:xmpp:mam:2' id='k1'>\
         <forwarded xmlns='urn:xmpp:forward:0'><delay xmlns='urn:xmpp:delay' stamp='2024-02-29T23:59:58Z'/>\
         <message xmlns='jabber:client' from='b@b.org'><body>x</body></message></forwarded></result>\
         <result xmlns='urn:xmpp:mam:2' id='k3'/></archive>",
    );
    let [Piece::Message(waits), Piece::Message(archived)] = &told.pieces[..] else {
        panic!("{:?}", told.lines)
    };
    assert_eq!((waits.key.as_deref(), archived.key.as_deref()), (Some("k1"), Some("k1")));
    assert_eq!((archived.view, archived.at), (View::Archive, Wall(1_709_251_198_000_000)));
    assert_eq!(waits.stanza.children().count(), 1, "an id that others gave stays");
    assert!(
        told.lines[3].contains("faulty an archived message: no forwarded message in it"),
        "{:?}",
        told.lines
    );
}

#[test]
fn what_the_writer_writes_is_what_the_reader_tells() {
    let store = MemoryStore::new();
    let owner = BareJid::parse("u@a.org").unwrap();
    let keys = ScramKeys {
        iterations: 4_096,
        salt: vec![1; 16],
        stored_key: vec![2; 20],
        server_key: vec![3; 20],
    };
    let row = |id, keep| Write::AppendLog {
        owner: owner.clone(),
        entry: LogEntry {
            id,
            at: Wall(1_700_000_000_000_000),
            with: Jid::parse("b@b.org").unwrap(),
            keep,
            origin: Origin::default(),
            stanza: b"<message from='b@b.org'><body>x</body></message>".to_vec(),
            open_end: 24,
            close_start: 38,
        },
    };
    let credentials = Credentials { sha1: keys, ..Credentials::none() };
    let batch = [
        Write::CreateAccount { owner: owner.clone(), credentials },
        row(1, Keep::Pending),
        row(2, Keep::Both),
        row(3, Keep::Archived),
    ];
    store.open().0.commit(&batch).unwrap();
    let mut text = Vec::new();
    writer::start_server(&mut text).unwrap();
    writer::start_host(&mut text, "a.org", false).unwrap();
    let mut fault = |fault: &str| panic!("{fault}");
    let counts =
        writer::user(&mut text, &mut store.reader(), &owner, false, &mut fault).unwrap().unwrap();
    writer::end_host(&mut text).unwrap();
    writer::end_server(&mut text).unwrap();
    let expected = [
        ("SCRAM-SHA-1 keys", 1),
        ("accounts", 1),
        ("archived messages", 2),
        ("offline messages", 2),
    ];
    assert_eq!(counts, expected.map(|(kind, number)| (kind.to_owned(), number)).into());
    let told = read(&[("main.xml", &String::from_utf8(text).unwrap())], None);
    let messages: Vec<(Option<u64>, Option<&str>, View)> = told
        .pieces
        .iter()
        .filter_map(|piece| match piece {
            Piece::Message(message) => Some((message.id, message.key.as_deref(), message.view)),
            _ => None,
        })
        .collect();
    let expected = [
        (Some(1), None, View::Offline),
        (Some(2), Some("2"), View::Offline),
        (Some(2), Some("2"), View::Archive),
        (Some(3), Some("3"), View::Archive),
    ];
    assert_eq!(messages, expected);
    let nobody = BareJid::parse("nobody@a.org").unwrap();
    let mut none = Vec::new();
    assert!(
        writer::user(&mut none, &mut store.reader(), &nobody, true, &mut fault).unwrap().is_none()
    );
    assert!(none.is_empty());
}

#[test]
fn contacts_and_requests_keep_all_that_they_say() {
    let told = user(
        "<query xmlns='jabber:iq:roster' ver='7'><item jid='B@b.org' name='n' subscription='to' ask='subscribe' \
         approved='true'><group>g</group><group>g</group><group/></item><item jid='c@b.org' subscription='x'/></query>\
         <presence xmlns='jabber:client' type='subscribe' from='d@b.org/r'><status>s</status></presence>\
         <presence xmlns='jabber:client' from='d@b.org/r'/>",
    );
    assert_eq!(told.pieces[0], Piece::RosterVersion(7));
    let Piece::Contact(item) = &told.pieces[1] else { panic!("{:?}", told.pieces) };
    assert_eq!((item.jid.to_string().as_str(), item.name.as_str()), ("b@b.org", "n"));
    assert_eq!((item.subscription, item.ask, item.approved), (Subscription::To, true, true));
    assert_eq!(item.groups, ["g"]);
    let Piece::Request(from, stanza) = &told.pieces[2] else { panic!("{:?}", told.pieces) };
    assert_eq!(from.to_string(), "d@b.org");
    assert_eq!(
        std::str::from_utf8(stanza).unwrap(),
        "<presence type='subscribe' from='d@b.org' to='u@a.org'><status>s</status></presence>"
    );
    assert_eq!(
        told.lines.iter().filter(|line| line.contains("faulty")).count(),
        2,
        "{:?}",
        told.lines
    );
}
