//! The numbers of addresses, remembered so that most appends need no look-up.

use crate::base::hash::Map;
use crate::xmpp::jid::BareJid;

/// Entries of one generation; two are kept. At some 100 B each that is up to 7 MB.
const GENERATION_MAX: usize = 32_768;

/// What the writer knows of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// `jid.id`.
    pub(super) id: i64,
    /// Whether the address has an account.
    pub(super) account: bool,
    /// No row of its log has a higher id; `None` where nobody has looked.
    pub(super) newest: Option<u64>,
}

impl Known {
    pub(super) fn new(id: i64, account: bool) -> Known {
        Known { id, account, newest: None }
    }
}

/// Bounded by two generations: what is used moves to the young one; when that is full, the old one is dropped.
#[derive(Default)]
pub(super) struct Intern {
    young: Map<BareJid, Known>,
    old: Map<BareJid, Known>,
}

impl Intern {
    pub(super) fn find(&mut self, jid: &BareJid) -> Option<Known> {
        if let Some(known) = self.young.get(jid) {
            return Some(*known);
        }
        let (jid, known) = self.old.remove_entry(jid)?;
        self.put(jid, known);
        Some(known)
    }

    /// Remembers `jid`, or changes what is known of it.
    pub(super) fn put(&mut self, jid: BareJid, known: Known) {
        if self.young.len() >= GENERATION_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(jid, known);
    }

    /// No row in the log of `jid`, which is known, has a higher id than this.
    pub(super) fn set_newest(&mut self, jid: &BareJid, newest: u64) {
        let known = self.young.get_mut(jid).or_else(|| self.old.get_mut(jid));
        if let Some(known) = known {
            known.newest = Some(newest);
        }
    }

    pub(super) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn jid(n: usize) -> BareJid {
        BareJid::parse(&format!("u{n}@example.org")).unwrap()
    }

    #[test]
    fn what_is_used_stays_and_the_size_is_bounded() {
        let mut intern = Intern::default();
        for n in 0..3 * GENERATION_MAX {
            let id = i64::try_from(n).unwrap();
            intern.put(jid(n), Known::new(id, false));
            assert!(intern.find(&jid(0)).is_some(), "used all the time");
            assert!(intern.young.len() + intern.old.len() <= 2 * GENERATION_MAX);
        }
        assert_eq!(intern.find(&jid(1)), None, "not used since");
    }

    #[test]
    fn a_change_hides_the_older_knowledge() {
        let mut intern = Intern::default();
        intern.put(jid(1), Known::new(1, true));
        intern.old = std::mem::take(&mut intern.young);
        intern.put(jid(1), Known::new(1, false));
        assert_eq!(intern.find(&jid(1)), Some(Known::new(1, false)));
    }
}
