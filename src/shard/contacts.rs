//! A roster in memory: all contacts of an account in one piece, since most of what a large server holds is contacts of
//! people who do nothing at the moment. Some 20 bytes each beside their texts, and one allocation.

use crate::store::{RosterItem, Subscription};
use crate::xmpp::jid::Jid;

/// The contacts of one account, each with an address of its own. Lives with the account.
///
/// Reading one is a walk over those before it, which for rosters within their limit costs less than the presence of one
/// contact does; changing one copies the rest.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Contacts {
    bytes: Box<[u8]>,
    count: u32,
}

/// One contact where it lies.
#[derive(Clone, Copy, Debug)]
pub struct ContactRef<'a> {
    /// Bare or, rarely, full.
    pub jid: &'a str,
    /// Of its bare JID.
    pub hash64: u64,
    pub subscription: Subscription,
    pub ask: bool,
    pub approved: bool,
    pub listed: bool,
    pub name: &'a str,
    pub pending_in: Option<&'a [u8]>,
    groups: &'a [u8],
}

const ASK: u8 = 4;
const APPROVED: u8 = 8;
const LISTED: u8 = 16;
const PENDING: u8 = 32;

impl Contacts {
    pub fn new(items: &[RosterItem]) -> Self {
        let mut bytes = Vec::new();
        items.iter().for_each(|item| append(&mut bytes, item));
        Self { bytes: bytes.into(), count: u32::try_from(items.len()).unwrap_or(u32::MAX) }
    }

    pub fn len(&self) -> usize {
        self.count as usize
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn iter(&self) -> impl Iterator<Item = ContactRef<'_>> {
        let mut rest = &*self.bytes;
        std::iter::from_fn(move || next(&mut rest))
    }

    /// The contact whose JID has this text.
    pub fn find(&self, jid: &str) -> Option<ContactRef<'_>> {
        self.iter().find(|contact| contact.jid == jid)
    }

    pub fn item(&self, jid: &Jid) -> Option<RosterItem> {
        self.iter().find(|contact| jid.is(contact.jid)).map(ContactRef::to_item)
    }

    /// Puts the item in the place of the one with its JID, or behind all others.
    pub fn set(&mut self, item: &RosterItem) {
        let (before, after, found) = self.around(&item.jid);
        let mut record = Vec::new();
        append(&mut record, item);
        self.bytes = [before, &record, after].concat().into();
        self.count += u32::from(!found);
    }

    pub fn remove(&mut self, jid: &Jid) {
        let (before, after, found) = self.around(jid);
        if found {
            self.bytes = [before, after].concat().into();
            self.count -= 1;
        }
    }

    /// What lies before the contact and behind it, and whether there is one.
    fn around(&self, jid: &Jid) -> (&[u8], &[u8], bool) {
        let mut rest = &*self.bytes;
        loop {
            let start = self.bytes.len() - rest.len();
            match next(&mut rest) {
                Some(contact) if jid.is(contact.jid) => {
                    return (&self.bytes[..start], rest, true);
                }
                Some(_) => {}
                None => return (&self.bytes, &[], false),
            }
        }
    }
}

impl std::fmt::Debug for Contacts {
    /// Whom somebody knows does not belong in a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Contacts({})", self.count)
    }
}

impl<'a> ContactRef<'a> {
    pub fn groups(self) -> impl Iterator<Item = &'a str> {
        let mut rest = self.groups;
        std::iter::from_fn(move || {
            let length = usize::from(number::<2>(&mut rest).map(u16::from_le_bytes)?);
            text(&mut rest, length)
        })
    }

    pub fn bare(self) -> &'a str {
        self.jid.split_once('/').map_or(self.jid, |(bare, _)| bare)
    }

    pub fn to_item(self) -> RosterItem {
        RosterItem {
            jid: Jid::from_prepared(self.jid, self.hash64),
            name: self.name.to_owned(),
            groups: self.groups().map(str::to_owned).collect(),
            subscription: self.subscription,
            ask: self.ask,
            pending_in: self.pending_in.map(<[u8]>::to_vec),
            approved: self.approved,
            listed: self.listed,
        }
    }
}

/// A record: hash 8, marks 1, lengths of the address 2, name 2, groups 4 and request 4 (where there is one), then these.
fn append(out: &mut Vec<u8>, item: &RosterItem) {
    let jid = item.jid.to_string();
    let pending = item.pending_in.as_deref();
    let groups: usize = item.groups.iter().map(|group| 2 + short(group).len()).sum();
    let name = short(&item.name);
    out.reserve_exact(21 + jid.len() + name.len() + groups + pending.map_or(0, <[u8]>::len));
    let marks = [
        (item.ask, ASK),
        (item.approved, APPROVED),
        (item.listed, LISTED),
        (pending.is_some(), PENDING),
    ];
    let marks: u8 = marks.into_iter().map(|(is_set, mark)| if is_set { mark } else { 0 }).sum();
    out.extend_from_slice(&item.jid.bare().hash64().to_le_bytes());
    out.push(marks | item.subscription as u8);
    out.extend_from_slice(&length16(&jid));
    out.extend_from_slice(&length16(name));
    out.extend_from_slice(&length32(groups));
    if let Some(pending) = pending {
        out.extend_from_slice(&length32(pending.len()));
    }
    out.extend_from_slice(jid.as_bytes());
    out.extend_from_slice(name.as_bytes());
    for group in &item.groups {
        let group = short(group);
        out.extend_from_slice(&length16(group));
        out.extend_from_slice(group.as_bytes());
    }
    out.extend_from_slice(pending.unwrap_or_default());
}

/// Reads the record at the start of `rest` and goes past it.
fn next<'a>(rest: &mut &'a [u8]) -> Option<ContactRef<'a>> {
    let hash64 = u64::from_le_bytes(number::<8>(rest)?);
    let [marks] = number::<1>(rest)?;
    let jid = usize::from(u16::from_le_bytes(number::<2>(rest)?));
    let name = usize::from(u16::from_le_bytes(number::<2>(rest)?));
    let groups = u32::from_le_bytes(number::<4>(rest)?) as usize;
    let pending = match marks & PENDING {
        0 => None,
        _ => Some(u32::from_le_bytes(number::<4>(rest)?) as usize),
    };
    let (jid, name) = (text(rest, jid)?, text(rest, name)?);
    let groups = take(rest, groups)?;
    let pending_in = match pending {
        Some(length) => Some(take(rest, length)?),
        None => None,
    };
    let subscription = match marks & 3 {
        0 => Subscription::None,
        1 => Subscription::To,
        2 => Subscription::From,
        _ => Subscription::Both,
    };
    Some(ContactRef {
        jid,
        hash64,
        subscription,
        ask: marks & ASK != 0,
        approved: marks & APPROVED != 0,
        listed: marks & LISTED != 0,
        name,
        pending_in,
        groups,
    })
}

/// What fits into a length of two bytes; the limits of rosters are far below it.
fn short(text: &str) -> &str {
    match text.len() > usize::from(u16::MAX) {
        true => &text[..text.floor_char_boundary(usize::from(u16::MAX))],
        false => text,
    }
}

fn length16(text: &str) -> [u8; 2] {
    u16::try_from(text.len()).unwrap_or(u16::MAX).to_le_bytes()
}

fn length32(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes()
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(head)
}

fn number<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

fn text<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a str> {
    std::str::from_utf8(take(rest, length)?).ok()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn item(jid: &str, change: impl FnOnce(&mut RosterItem)) -> RosterItem {
        let mut item = RosterItem::new(Jid::parse(jid).unwrap());
        change(&mut item);
        item
    }

    fn items() -> Vec<RosterItem> {
        vec![
            item("romeo@montague.example", |it| {
                it.name = "Romeo ü".to_owned();
                it.groups = vec!["Friends".to_owned(), "Verona".to_owned()];
                it.subscription = Subscription::Both;
            }),
            item("nurse@capulet.example/phone", |it| {
                it.subscription = Subscription::From;
                it.ask = true;
            }),
            item("paris.example", |it| {
                it.pending_in = Some(b"<presence type='subscribe'/>".to_vec());
                it.listed = false;
            }),
            item("tybalt@capulet.example", |it| {
                it.subscription = Subscription::To;
                it.approved = true;
            }),
        ]
    }

    fn read(contacts: &Contacts) -> Vec<RosterItem> {
        contacts.iter().map(ContactRef::to_item).collect()
    }

    #[test]
    fn what_is_put_in_reads_back() {
        let contacts = Contacts::new(&items());
        assert_eq!(contacts.len(), 4);
        assert_eq!(read(&contacts), items());
        for item in items() {
            assert_eq!(contacts.item(&item.jid), Some(item.clone()));
            let found = contacts.find(&item.jid.to_string()).unwrap();
            assert_eq!(found.hash64, Jid::parse(found.bare()).unwrap().bare().hash64());
        }
        assert_eq!(contacts.item(&Jid::parse("nobody@x").unwrap()), None);
        assert!(Contacts::default().is_empty());
    }

    #[test]
    fn change_touches_one_contact_alone() {
        let mut contacts = Contacts::default();
        items().iter().for_each(|item| contacts.set(item));
        assert_eq!(contacts, Contacts::new(&items()));
        let mut changed = items();
        changed[1].name = "Nurse".repeat(100);
        changed[1].groups = vec!["x".repeat(70_000)];
        contacts.set(&changed[1]);
        changed[1].groups = vec!["x".repeat(65_535)];
        assert_eq!(read(&contacts), changed);
        contacts.remove(&changed.remove(2).jid);
        contacts.remove(&Jid::parse("nobody@x").unwrap());
        assert_eq!((read(&contacts), contacts.len()), (changed, 3));
    }

    #[test]
    fn usual_contact_takes_few_bytes() {
        let usual = item("contact12@contacts.example", |it| {
            it.name = "Contact 12".to_owned();
            it.groups = vec!["Friends".to_owned()];
        });
        let contacts = Contacts::new(&vec![usual; 20]);
        assert!(contacts.bytes.len() <= 20 * 64, "{}", contacts.bytes.len());
    }
}
