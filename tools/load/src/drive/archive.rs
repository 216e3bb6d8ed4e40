//! What recipients' archives show (XEP-0313) of the messages of the run, read when all has arrived.
//!
//! Each archive is read backwards, page by page (XEP-0059), until a page has nothing of this run: clocks of the server
//! do not matter. Bounded in archives at once, pages and time; an archive that was not read to its end is told, and
//! nothing is said of its messages.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Notes;
use super::body::{self, hexadecimal};
use super::ledger::{Ledger, MessageId};
use crate::record::LedgerCounts;
use crate::scan::Element;
use crate::{ClientId, Engine};

/// Archives that are read at once.
const AT_ONCE: usize = 16;
/// Messages in a page; servers may give fewer.
const PAGE: usize = 100;
/// Pages of one archive.
const PAGES_MAX: usize = 1000;
/// Bytes of the archive's name of a message that is sent back to it.
const MARK_MAX: usize = 1024;
/// For an answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// For all archives.
const ALL: Duration = Duration::from_secs(600);

/// Whether there are archives at all is asked by the first user who comes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    No,
    By(usize),
    Answered,
}

/// One archive that is being read.
#[derive(Default)]
struct Reading {
    /// Newest first; each in order, with whether the message is unchanged.
    pages: Vec<Vec<(MessageId, bool)>>,
    /// The page that arrives: messages of this run, the recipient's own among them.
    page: Vec<(MessageId, bool)>,
    /// Archive's name of the first message of the last page, as it stands in XML.
    before: Option<Vec<u8>>,
    /// When the page was asked for; nothing: not yet.
    asked: Option<Instant>,
    /// Number of the query: an answer to another one is too late.
    query: u32,
}

/// What the answer to a query leads to.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Page,
    End,
    /// It cannot be read further.
    Broken(String),
}

impl Reading {
    /// A page is complete.
    fn answered(&mut self, answer: &Element<'_>) -> Next {
        if answer.attribute("type") != Some(b"result") {
            return Next::Broken(super::request::condition(answer));
        }
        let Some(fin) = answer.child("fin") else {
            return Next::Broken("answer without fin".to_owned());
        };
        let page = std::mem::take(&mut self.page);
        let is_last = page.is_empty() || matches!(fin.attribute("complete"), Some(b"true" | b"1"));
        self.pages.push(page);
        if is_last {
            return Next::End;
        }
        let first = fin.child("set").and_then(|set| set.child("first"));
        let first = first.map(|first| first.content()).filter(|first| first.len() <= MARK_MAX);
        match first {
            Some(first) if self.before.as_deref() == Some(first) => {
                Next::Broken("the same page again".to_owned())
            }
            _ if self.pages.len() >= PAGES_MAX => Next::Broken("more pages than read".to_owned()),
            Some(first) => {
                self.before = Some(first.to_vec());
                Next::Page
            }
            None => Next::Broken("page without its first message".to_owned()),
        }
    }

    fn query(&mut self, session: usize, now: Instant, out: &mut Vec<u8>) {
        self.asked = Some(now);
        self.query += 1;
        let mut name = Vec::new();
        write_name(session, self.query, &mut name);
        out.extend_from_slice(b"<iq type='set' id='");
        out.extend_from_slice(&name);
        out.extend_from_slice(b"'><query xmlns='urn:xmpp:mam:2' queryid='");
        out.extend_from_slice(&name);
        out.extend_from_slice(b"'><set xmlns='http://jabber.org/protocol/rsm'><max>");
        out.extend_from_slice(PAGE.to_string().as_bytes());
        out.extend_from_slice(b"</max><before>");
        out.extend_from_slice(self.before.as_deref().unwrap_or_default());
        out.extend_from_slice(b"</before></set></query></iq>");
    }
}

/// Of a query: `m5.1`.
fn write_name(session: usize, query: u32, out: &mut Vec<u8>) {
    out.push(b'm');
    hexadecimal(session as u64, out);
    out.push(b'.');
    hexadecimal(u64::from(query), out);
}

/// The archives of a share's recipients.
pub(super) struct Archives {
    run: u32,
    asked: Asked,
    refusal: Option<String>,
    /// By conversation: who has it in the archive.
    recipients: Vec<usize>,
    waiting: Vec<usize>,
    reading: BTreeMap<usize, Reading>,
    until: Option<Instant>,
    counts: LedgerCounts,
    /// Why archives were not read to the end, and how many.
    unread: BTreeMap<String, u64>,
}

impl Archives {
    /// - takes: `recipients`, by conversation the session that has it in its archive
    pub(super) fn new(run: u32, recipients: Vec<usize>) -> Self {
        Self {
            run,
            asked: Asked::No,
            refusal: None,
            recipients,
            waiting: Vec::new(),
            reading: BTreeMap::new(),
            until: None,
            counts: LedgerCounts::default(),
            unread: BTreeMap::new(),
        }
    }

    /// Why the archive cannot be asked at all, if that is known.
    pub(super) fn hopeless(&self) -> Option<String> {
        let condition = self.refusal.as_ref()?;
        Some(format!(
            "the scenario's ledger reads archives, and the server refuses that: {condition}; it needs XEP-0313 switched on"
        ))
    }

    /// Asks whether there are archives, if that is not known.
    pub(super) fn turn(&mut self, engine: &mut Engine, notes: &Notes) {
        if self.asked != Asked::No {
            return;
        }
        let client_of = |session| Some((session, ready(notes.sessions.client(session), engine)?));
        if let Some((session, client)) = (0..notes.sessions.len()).find_map(client_of) {
            self.asked = Asked::By(session);
            engine.send(client, 1, |out| {
                out.extend_from_slice(
                    b"<iq type='set' id='m'><query xmlns='urn:xmpp:mam:2'>\
                      <set xmlns='http://jabber.org/protocol/rsm'><max>1</max><before/></set></query></iq>",
                );
            });
        }
    }

    /// A session's connection is gone.
    pub(super) fn closed(&mut self, session: usize) {
        if self.asked == Asked::By(session) {
            self.asked = Asked::No;
        }
        if self.reading.remove(&session).is_some() {
            self.give_up("connection lost");
        }
    }

    fn give_up(&mut self, why: &str) {
        *self.unread.entry(why.to_owned()).or_default() += 1;
    }

    /// Something arrived at a session.
    ///
    /// - gives: whether it is of an archive, and of no interest to others
    pub(super) fn take(
        &mut self,
        session: usize,
        stanza: &Element<'_>,
        ledger: &mut Ledger,
    ) -> bool {
        match stanza.name() {
            b"iq" if self.asked == Asked::By(session) && stanza.attribute("id") == Some(b"m") => {
                self.asked = Asked::Answered;
                if stanza.attribute("type") == Some(b"error") {
                    self.refusal = Some(super::request::condition(stanza));
                }
                true
            }
            b"iq" => self.take_answer(session, stanza, ledger),
            b"message" => self.take_message(session, stanza),
            _ => false,
        }
    }

    /// The reading that a name is of.
    fn named(&mut self, session: usize, name: Option<&[u8]>) -> Option<&mut Reading> {
        let reading = self.reading.get_mut(&session)?;
        let mut own = Vec::new();
        write_name(session, reading.query, &mut own);
        (reading.asked.is_some() && name == Some(&own)).then_some(reading)
    }

    fn take_message(&mut self, session: usize, stanza: &Element<'_>) -> bool {
        let run = self.run;
        let Some(result) = stanza.child("result") else {
            return false;
        };
        let Some(reading) = self.named(session, result.attribute("queryid")) else {
            return false;
        };
        let message = result.child("forwarded").and_then(|forwarded| forwarded.child("message"));
        if let Some(found) = message.and_then(|message| body::of(run, &message))
            && reading.page.len() < PAGE
        {
            reading.page.push(found);
        }
        true
    }

    fn take_answer(&mut self, session: usize, answer: &Element<'_>, ledger: &mut Ledger) -> bool {
        let Some(reading) = self.named(session, answer.attribute("id")) else {
            return false;
        };
        reading.asked = None;
        match reading.answered(answer) {
            Next::Page => {}
            Next::End => {
                let reading = self.reading.remove(&session).unwrap_or_default();
                self.count(session, &reading, ledger);
            }
            Next::Broken(why) => {
                self.reading.remove(&session);
                self.give_up(&why);
            }
        }
        true
    }

    /// Holds a whole archive against the ledger.
    fn count(&mut self, session: usize, reading: &Reading, ledger: &mut Ledger) {
        let is_own = |conversation: u32| {
            self.recipients.get(conversation as usize).is_some_and(|it| *it == session)
        };
        for (message, intact) in reading.pages.iter().rev().flatten() {
            // What the recipient sent is there too.
            if is_own(message.conversation) {
                ledger.archived(*message, *intact, &mut self.counts);
            }
        }
        for conversation in 0..self.recipients.len() as u32 {
            if is_own(conversation) {
                self.counts.lost += ledger.not_archived(conversation);
            }
        }
    }

    /// Reads on.
    ///
    /// - gives: whether all is read
    pub(super) fn read(&mut self, engine: &mut Engine, now: Instant, notes: &Notes) -> bool {
        let until = *self.until.get_or_insert_with(|| {
            let mut sessions: Vec<usize> = (0..self.recipients.len())
                .filter(|conversation| notes.ledger.next_number(*conversation as u32) > 0)
                .map(|conversation| self.recipients[conversation])
                .collect();
            sessions.sort_unstable();
            sessions.dedup();
            self.waiting = sessions;
            now + ALL
        });
        let is_late = |reading: &Reading| reading.asked.is_some_and(|asked| now > asked + PATIENCE);
        let held = self.reading.len();
        self.reading.retain(|_, reading| !is_late(reading));
        for _ in self.reading.len()..held {
            self.give_up("no answer");
        }
        if now >= until {
            let left = self.reading.len() + std::mem::take(&mut self.waiting).len();
            self.reading.clear();
            (0..left).for_each(|_| self.give_up("no time left"));
        }
        while self.reading.len() < AT_ONCE
            && let Some(session) = self.waiting.pop()
        {
            if notes.sessions.is_up(session) {
                self.reading.insert(session, Reading::default());
            } else {
                self.give_up("recipient offline");
            }
        }
        for (session, reading) in &mut self.reading {
            if reading.asked.is_none()
                && let Some(client) = ready(notes.sessions.client(*session), engine)
            {
                engine.send(client, 1, |out| reading.query(*session, now, out));
            }
        }
        self.reading.is_empty() && self.waiting.is_empty()
    }

    /// What was found; nothing if it was not looked for.
    pub(super) fn report(&self) -> Option<LedgerCounts> {
        self.until.is_some().then_some(self.counts)
    }

    /// Why archives were not read to the end, and how many.
    pub(super) fn unread(&self) -> &BTreeMap<String, u64> {
        &self.unread
    }
}

fn ready(client: Option<ClientId>, engine: &Engine) -> Option<ClientId> {
    client.filter(|client| engine.is_ready(*client))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::drive::body::Bodies;

    const RUN: u32 = 7;
    const RECIPIENT: usize = 1;

    fn message(number: u64) -> MessageId {
        MessageId { conversation: 0, number }
    }

    /// Conversation 0 is that of session 0 with session 1; all its messages are acknowledged.
    fn begun(messages: u32) -> (Archives, Ledger) {
        let mut ledger = Ledger::new(1, 2, false);
        for stanza in 1..=messages {
            ledger.sent(0, Duration::ZERO, Duration::ZERO, 0, Some(stanza));
        }
        ledger.acked(0, messages);
        let mut archives = Archives::new(RUN, vec![RECIPIENT]);
        archives.reading.insert(RECIPIENT, Reading::default());
        (archives, ledger)
    }

    fn ask(archives: &mut Archives) -> String {
        let mut out = Vec::new();
        let reading = archives.reading.get_mut(&RECIPIENT).unwrap();
        reading.query(RECIPIENT, Instant::now(), &mut out);
        String::from_utf8(out).unwrap()
    }

    fn page(archives: &mut Archives, ledger: &mut Ledger, query: u32, numbers: &[u64], fin: &str) {
        for number in numbers {
            let mut body = Vec::new();
            Bodies::new(RUN, 60).write(message(*number), &mut body);
            let text = format!(
                "<message><result xmlns='urn:xmpp:mam:2' queryid='m1.{query}' id='{number}'>\
                 <forwarded xmlns='urn:xmpp:forward:0'><message><body>{}</body></message></forwarded>\
                 </result></message>",
                String::from_utf8(body).unwrap()
            );
            assert!(archives.take(RECIPIENT, &Element::parse(text.as_bytes()).unwrap(), ledger));
        }
        answer(archives, ledger, &format!("<iq type='result' id='m1.{query}'>{fin}</iq>"));
    }

    fn answer(archives: &mut Archives, ledger: &mut Ledger, text: &str) {
        assert!(archives.take(RECIPIENT, &Element::parse(text.as_bytes()).unwrap(), ledger));
    }

    const MORE: &str = "<fin xmlns='urn:xmpp:mam:2'><set><first>a&amp;b</first></set></fin>";
    const LAST: &str = "<fin xmlns='urn:xmpp:mam:2' complete='true'><set/></fin>";

    #[test]
    fn pages_are_read_backwards_and_held_against_the_ledger_in_order() {
        let (mut archives, mut ledger) = begun(6);
        assert!(ask(&mut archives).contains("<before></before>"));
        page(&mut archives, &mut ledger, 1, &[3, 5, 4], MORE);
        assert!(ask(&mut archives).contains("<before>a&amp;b</before>"));
        page(&mut archives, &mut ledger, 2, &[0, 1, 1], LAST);
        assert!(archives.reading.is_empty() && archives.unread.is_empty());
        let counts = archives.counts;
        assert_eq!((counts.messages, counts.lost), (5, 1));
        assert_eq!((counts.duplicated, counts.reordered, counts.corrupted), (1, 1, 0));
    }

    #[test]
    fn a_page_with_nothing_of_this_run_is_the_end() {
        let (mut archives, mut ledger) = begun(1);
        ask(&mut archives);
        page(&mut archives, &mut ledger, 1, &[0], MORE);
        ask(&mut archives);
        page(&mut archives, &mut ledger, 2, &[], MORE);
        assert!(archives.reading.is_empty());
        assert_eq!((archives.counts.messages, archives.counts.lost), (1, 0));
    }

    #[test]
    fn of_an_archive_that_is_not_read_to_its_end_nothing_is_said() {
        let (mut archives, mut ledger) = begun(3);
        ask(&mut archives);
        page(&mut archives, &mut ledger, 1, &[2], MORE);
        ask(&mut archives);
        // The mark of the page before: no end would come.
        page(&mut archives, &mut ledger, 2, &[2], MORE);
        assert_eq!(archives.unread.get("the same page again"), Some(&1));
        assert_eq!(archives.counts, LedgerCounts::default());
    }

    #[test]
    fn a_server_without_archives_is_told_at_the_first_question() {
        let (mut archives, mut ledger) = begun(0);
        archives.asked = Asked::By(RECIPIENT);
        let text =
            "<iq type='error' id='m'><error type='cancel'><service-unavailable/></error></iq>";
        answer(&mut archives, &mut ledger, text);
        assert!(archives.hopeless().unwrap().contains("service-unavailable; it needs XEP-0313"));
    }
}
