//! The sockets of one core, by connection, and when they are looked at again.

use crate::base::ids::Id;
use crate::base::instant::Instant;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

/// The socket whose connection has this index; its id tells it from those that had it before.
type Place<S> = Option<(Id, Rc<S>)>;

/// One per core. `S` is what the core has for a socket.
pub(super) struct Sockets<S> {
    places: RefCell<Vec<Place<S>>>,
    deadlines: RefCell<VecDeque<(Instant, Rc<S>)>>,
}

impl<S> Default for Sockets<S> {
    fn default() -> Self {
        Self { places: RefCell::default(), deadlines: RefCell::default() }
    }
}

impl<S> Sockets<S> {
    pub(super) fn register(&self, conn: Id, socket: &Rc<S>) {
        let mut places = self.places.borrow_mut();
        let place = conn.index as usize;
        if places.len() <= place {
            places.resize_with(place + 1, || None);
        }
        places[place] = Some((conn, socket.clone()));
    }

    pub(super) fn forget(&self, conn: Id) {
        if let Some(slot) = self.places.borrow_mut().get_mut(conn.index as usize)
            && slot.as_ref().is_some_and(|(known, _)| *known == conn)
        {
            *slot = None;
        }
    }

    pub(super) fn get(&self, conn: Id) -> Option<Rc<S>> {
        let places = self.places.borrow();
        let (known, socket) = places.get(conn.index as usize)?.as_ref()?;
        (*known == conn).then(|| socket.clone())
    }

    pub(super) fn all(&self) -> Vec<Rc<S>> {
        self.places.borrow().iter().flatten().map(|(_, socket)| socket.clone()).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.borrow().iter().all(Option::is_none)
    }

    /// Looks at a socket again at that time.
    pub(super) fn look_at(&self, at: Instant, socket: &Rc<S>) {
        let mut deadlines = self.deadlines.borrow_mut();
        // Few different spans: the place is near the end.
        let place = deadlines.iter().rposition(|(other, _)| *other <= at).map_or(0, |it| it + 1);
        deadlines.insert(place, (at, socket.clone()));
    }

    /// A socket that is to be looked at by now, one at a time.
    pub(super) fn next_due(&self, now: Instant) -> Option<Rc<S>> {
        self.deadlines.borrow_mut().pop_front_if(|(at, _)| *at <= now).map(|(_, socket)| socket)
    }
}
