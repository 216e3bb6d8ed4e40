//! Tables addressed by generational ids: a stale id finds nothing, never another's entry.

/// Names one entry of one [`Slab`] for as long as the entry lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    pub index: u32,
    /// At least 1, so that no id is 0 as a number.
    pub generation: u32,
}

impl Id {
    /// The id as one number: generation above, index below; never 0.
    pub fn to_u64(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    pub fn from_u64(number: u64) -> Id {
        Id { index: number as u32, generation: (number >> 32) as u32 }
    }
}

/// Entries of one kind on one core, found by [`Id`] in constant time.
///
/// It grows with each insert into a full table and never shrinks: the bound on its length is the caller's.
#[derive(Clone, Debug)]
pub struct Slab<T> {
    slots: Vec<Slot<T>>,
    /// The slot that was freed last.
    free: Option<u32>,
    len: usize,
}

#[derive(Clone, Debug)]
struct Slot<T> {
    generation: u32,
    state: State<T>,
}

#[derive(Clone, Debug)]
enum State<T> {
    Full(T),
    Free {
        next: Option<u32>,
    },
    /// All generations are used up: reusing the slot could revive a stale id.
    Retired,
}

impl<T> Default for Slab<T> {
    fn default() -> Slab<T> {
        Slab { slots: Vec::new(), free: None, len: 0 }
    }
}

impl<T> Slab<T> {
    pub fn new() -> Slab<T> {
        Slab::default()
    }

    /// Keeps `value` under an id that was never given before.
    ///
    /// - cost: constant; a full table grows by doubling
    /// - panics: with 2³² slots in use
    pub fn insert(&mut self, value: T) -> Id {
        self.len += 1;
        if let Some(index) = self.free {
            let slot = &mut self.slots[index as usize];
            let State::Free { next } = slot.state else {
                panic!("the free list of a slab leads to a slot in use");
            };
            self.free = next;
            slot.state = State::Full(value);
            return Id { index, generation: slot.generation };
        }
        let index = u32::try_from(self.slots.len()).expect("a slab has fewer than 2^32 slots");
        self.slots.push(Slot { generation: 1, state: State::Full(value) });
        Id { index, generation: 1 }
    }

    pub fn get(&self, id: Id) -> Option<&T> {
        match self.slots.get(id.index as usize) {
            Some(Slot { generation, state: State::Full(value) })
                if *generation == id.generation =>
            {
                Some(value)
            }
            _ => None,
        }
    }

    pub fn get_mut(&mut self, id: Id) -> Option<&mut T> {
        match self.slots.get_mut(id.index as usize) {
            Some(Slot { generation, state: State::Full(value) })
                if *generation == id.generation =>
            {
                Some(value)
            }
            _ => None,
        }
    }

    /// Takes the entry out; from then on `id` finds nothing.
    pub fn remove(&mut self, id: Id) -> Option<T> {
        self.get(id)?;
        let slot = self.slots.get_mut(id.index as usize)?;
        let state = match slot.generation.checked_add(1) {
            Some(generation) => {
                slot.generation = generation;
                State::Free { next: self.free.replace(id.index) }
            }
            None => State::Retired,
        };
        match std::mem::replace(&mut slot.state, state) {
            State::Full(value) => {
                self.len -= 1;
                Some(value)
            }
            State::Free { .. } | State::Retired => None,
        }
    }

    pub fn contains(&self, id: Id) -> bool {
        self.get(id).is_some()
    }

    /// Entries from the slot `first` on, in the order of their slots; visits free slots too.
    pub fn iter_from(&self, first: u32) -> impl Iterator<Item = (Id, &T)> {
        let rest = self.slots.get(first as usize..).unwrap_or_default();
        (first..=u32::MAX).zip(rest).filter_map(|(index, slot)| match &slot.state {
            State::Full(value) => Some((Id { index, generation: slot.generation }, value)),
            State::Free { .. } | State::Retired => None,
        })
    }

    /// Entries in the order of their slots; visits free slots too.
    pub fn iter(&self) -> impl Iterator<Item = (Id, &T)> {
        (0u32..).zip(&self.slots).filter_map(|(index, slot)| match &slot.state {
            State::Full(value) => Some((Id { index, generation: slot.generation }, value)),
            State::Free { .. } | State::Retired => None,
        })
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Id, &mut T)> {
        (0u32..).zip(&mut self.slots).filter_map(|(index, slot)| match &mut slot.state {
            State::Full(value) => Some((Id { index, generation: slot.generation }, value)),
            State::Free { .. } | State::Retired => None,
        })
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_id_finds_nothing() {
        let mut slab = Slab::new();
        let first = slab.insert("first");
        assert_eq!(slab.remove(first), Some("first"));
        let second = slab.insert("second");
        assert_eq!(second.index, first.index);
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get(second), Some(&"second"));
        assert_eq!(slab.len(), 1);
    }

    #[test]
    fn a_slot_whose_generations_are_used_up_is_not_used_again() {
        let mut slab = Slab::new();
        let first = slab.insert(1);
        slab.slots[0].generation = u32::MAX;
        let last = Id { generation: u32::MAX, ..first };
        assert_eq!(slab.remove(last), Some(1));
        assert_eq!(slab.get(last), None);
        assert_eq!(slab.insert(2).index, 1);
        assert_eq!(slab.get(last), None);
        assert_eq!(slab.len(), 1);
    }

    #[test]
    fn a_table_is_read_from_any_slot_on() {
        let mut slab = Slab::new();
        let ids: Vec<Id> = (0..5).map(|n| slab.insert(n)).collect();
        slab.remove(ids[3]);
        let from = |first| slab.iter_from(first).map(|(_, value)| *value).collect::<Vec<_>>();
        assert_eq!(from(2), [2, 4]);
        assert!(from(5).is_empty() && from(u32::MAX).is_empty());
    }

    #[test]
    fn ids_survive_as_numbers() {
        let id = Id { index: 7, generation: u32::MAX };
        assert_eq!(Id::from_u64(id.to_u64()), id);
        assert_ne!(Slab::new().insert(()).to_u64(), 0);
    }

    #[test]
    fn freed_slots_are_filled_before_the_table_grows() {
        let mut slab = Slab::new();
        let ids: Vec<Id> = (0..100).map(|n| slab.insert(n)).collect();
        for id in ids.iter().step_by(2) {
            slab.remove(*id);
        }
        for n in 0..50 {
            slab.insert(n);
        }
        assert_eq!((slab.len(), slab.slots.len()), (100, 100));
        for (_, value) in slab.iter_mut() {
            *value = 1;
        }
        assert_eq!(slab.iter().map(|(_, value)| *value).sum::<i32>(), 100);
        assert!(slab.iter().all(|(id, _)| slab.contains(id)));
    }
}
