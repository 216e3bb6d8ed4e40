//! The numbers of addresses, remembered so that most appends need no look-up.

use crate::base::hash::Map;
use crate::xmpp::jid::BareJid;

/// Entries of one generation; two are kept. At some 100 B each that is up to 26 MB. Who is not among them costs the writer
/// half a dozen look-ups, one of them in a page of the archive's index that is long out of memory.
const GENERATION_MAX: usize = 131_072;

/// Bounded by two generations: what is used moves to the young one; when that is full, the old one is dropped.
/// `K` is what a writer knows of an address.
pub(super) struct Intern<K> {
    young: Map<BareJid, K>,
    old: Map<BareJid, K>,
}

impl<K> Default for Intern<K> {
    fn default() -> Intern<K> {
        Intern { young: Map::default(), old: Map::default() }
    }
}

impl<K: Copy> Intern<K> {
    pub(super) fn find(&mut self, jid: &BareJid) -> Option<K> {
        if let Some(known) = self.young.get(jid) {
            return Some(*known);
        }
        let (jid, known) = self.old.remove_entry(jid)?;
        self.put(jid, known);
        Some(known)
    }

    /// Remembers `jid`, or changes what is known of it.
    pub(super) fn put(&mut self, jid: BareJid, known: K) {
        if self.young.len() >= GENERATION_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(jid, known);
    }

    /// Changes what is known of `jid`, if anything is.
    pub(super) fn change(&mut self, jid: &BareJid, change: impl FnOnce(&mut K)) {
        if let Some(known) = self.young.get_mut(jid).or_else(|| self.old.get_mut(jid)) {
            change(known);
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
            intern.put(jid(n), n);
            assert!(intern.find(&jid(0)).is_some(), "used all the time");
            assert!(intern.young.len() + intern.old.len() <= 2 * GENERATION_MAX);
        }
        assert_eq!(intern.find(&jid(1)), None, "not used since");
    }

    #[test]
    fn a_change_hides_the_older_knowledge() {
        let mut intern = Intern::default();
        intern.put(jid(1), true);
        intern.old = std::mem::take(&mut intern.young);
        intern.put(jid(1), false);
        assert_eq!(intern.find(&jid(1)), Some(false));
        intern.change(&jid(1), |known| *known = true);
        assert_eq!(intern.find(&jid(1)), Some(true));
    }
}
