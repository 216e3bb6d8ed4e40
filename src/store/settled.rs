//! Rows that one batch appends and confirms: nobody but this batch ever saw them pending, so they need not be written as
//! that. At a high rate a client's confirmation comes while the commit before runs, which makes them most rows.

use super::Write;
use crate::base::hash::Map;
use crate::xmpp::jid::BareJid;
use std::cell::Cell;

/// The confirmations of a batch, each with its last place in it, as long as it has something to do.
#[derive(Debug)]
pub(super) struct Settled<'a>(Map<(&'a BareJid, u64), Cell<Option<usize>>>);

impl<'a> Settled<'a> {
    pub(super) fn of(batch: &'a [Write]) -> Self {
        let mut confirmed = Map::default();
        for (place, write) in batch.iter().enumerate() {
            if let Write::ConfirmLog { owner, ids } = write {
                confirmed.extend(ids.iter().map(|id| ((owner, *id), Cell::new(Some(place)))));
            }
        }
        Self(confirmed)
    }

    /// Whether the row that the write at `place` appends for the first time is confirmed behind it. If so, nothing is left to
    /// be done for it.
    pub(super) fn settle(&self, owner: &BareJid, id: u64, place: usize) -> bool {
        let Some(confirmed) = self.0.get(&(owner, id)) else { return false };
        let settles = confirmed.get().is_some_and(|confirmed| confirmed > place);
        if settles {
            confirmed.set(None);
        }
        settles
    }

    /// The confirmation has a row to find.
    pub(super) fn is_due(&self, owner: &BareJid, id: u64) -> bool {
        self.0.get(&(owner, id)).is_some_and(|confirmed| confirmed.get().is_some())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_settled_by_a_confirmation_behind_it_alone() {
        let (juliet, romeo) =
            (BareJid::parse("juliet@a.b").unwrap(), BareJid::parse("romeo@a.b").unwrap());
        let confirm = |owner: &BareJid, ids: &[u64]| Write::ConfirmLog {
            owner: owner.clone(),
            ids: ids.to_vec(),
        };
        let batch = [
            confirm(&juliet, &[1, 2]),
            Write::DeleteAccount { owner: romeo.clone() },
            confirm(&juliet, &[2, 3]),
        ];
        let settled = Settled::of(&batch);
        assert!(!settled.settle(&juliet, 1, 1), "confirmed before");
        assert!(!settled.settle(&romeo, 2, 1), "of another");
        assert!(settled.settle(&juliet, 2, 1));
        assert!(!settled.settle(&juliet, 2, 1), "once");
        let due: Vec<u64> = (1..=4).filter(|id| settled.is_due(&juliet, *id)).collect();
        assert_eq!(due, [1, 3]);
    }
}
