//! RFC 6121 appendix A as a function: what a subscription stanza does to the state between an account and a contact,
//! and what follows from it. Knows nothing of rosters, sessions or addresses.

use crate::store::{RosterItem, Subscription};
use crate::xmpp::stanza::PresenceType;

/// The four stanzas that change subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) enum Request {
    Subscribe,
    Subscribed,
    Unsubscribe,
    Unsubscribed,
}

/// What is between an account and a contact. The nine states of §A.1 are the values in which `asked` excludes `to`, and
/// `waits` excludes `from`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::shard) struct State {
    /// The account sees the contact.
    pub to: bool,
    /// The contact sees the account.
    pub from: bool,
    /// "Pending Out": the account asked, and has no answer.
    pub asked: bool,
    /// "Pending In": the contact asked, and has no answer.
    pub waits: bool,
    /// The contact may subscribe without asking (§3.4).
    pub approved: bool,
}

/// What the contact is shown of the account's available resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) enum Show {
    Nothing,
    /// Where they are.
    Here,
    /// That they are gone. It is sent while the contact still is subscribed, so before the stanza that ends that
    /// (§3.2.2).
    Gone,
}

/// What an account's own stanza does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) struct Outbound {
    pub state: State,
    /// It goes on to the contact.
    pub routed: bool,
    pub show: Show,
}

/// Which of the account's resources are given a contact's stanza.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) enum Audience {
    Nobody,
    /// Those that are available (§3.1.3).
    Available,
    /// Those that asked for the roster (§3.1.6, §3.2.3, §3.3.3).
    Interested,
}

/// What a contact's stanza does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) struct Inbound {
    pub state: State,
    pub audience: Audience,
    /// The server answers for the account. That somebody sees it no longer is said after what is shown to them last.
    pub reply: Option<Request>,
    pub show: Show,
}

impl Request {
    pub(in crate::shard) fn of(kind: PresenceType) -> Option<Self> {
        match kind {
            PresenceType::Subscribe => Some(Request::Subscribe),
            PresenceType::Subscribed => Some(Request::Subscribed),
            PresenceType::Unsubscribe => Some(Request::Unsubscribe),
            PresenceType::Unsubscribed => Some(Request::Unsubscribed),
            PresenceType::Available
            | PresenceType::Unavailable
            | PresenceType::Probe
            | PresenceType::Error => None,
        }
    }

    pub(in crate::shard) fn name(self) -> &'static str {
        match self {
            Request::Subscribe => "subscribe",
            Request::Subscribed => "subscribed",
            Request::Unsubscribe => "unsubscribe",
            Request::Unsubscribed => "unsubscribed",
        }
    }
}

impl State {
    pub(in crate::shard) fn of(item: &RosterItem) -> Self {
        Self {
            to: item.subscription.has_to(),
            from: item.subscription.has_from(),
            asked: item.ask,
            waits: item.pending_in.is_some(),
            approved: item.approved,
        }
    }

    pub(in crate::shard) fn subscription(self) -> Subscription {
        match (self.to, self.from) {
            (false, false) => Subscription::None,
            (true, false) => Subscription::To,
            (false, true) => Subscription::From,
            (true, true) => Subscription::Both,
        }
    }

    /// §A.2.
    pub(in crate::shard) fn outbound(self, request: Request) -> Outbound {
        let mut state = self;
        let mut show = Show::Nothing;
        let routed = match request {
            Request::Subscribe => {
                state.asked = !state.to;
                true
            }
            Request::Unsubscribe => {
                (state.to, state.asked) = (false, false);
                true
            }
            Request::Subscribed if self.waits => {
                (state.from, state.waits) = (true, false);
                show = Show::Here;
                true
            }
            Request::Subscribed => {
                // §3.4.2: who is not subscribed may subscribe later.
                state.approved |= !self.from;
                false
            }
            Request::Unsubscribed => {
                (state.from, state.waits, state.approved) = (false, false, false);
                if self.from {
                    show = Show::Gone;
                }
                self.from || self.waits
            }
        };
        Outbound { state, routed, show }
    }

    /// §A.3.
    pub(in crate::shard) fn inbound(self, request: Request) -> Inbound {
        let mut state = self;
        let mut audience = Audience::Nobody;
        let mut reply = None;
        let mut show = Show::Nothing;
        match request {
            Request::Subscribe if self.from || self.approved => {
                // §3.1.3 rule 2. Who asks again has lost what it knew, and is shown it again.
                (state.from, state.waits) = (true, false);
                reply = Some(Request::Subscribed);
                show = Show::Here;
            }
            Request::Subscribe if self.waits => {}
            Request::Subscribe => {
                state.waits = true;
                audience = Audience::Available;
            }
            Request::Subscribed if self.asked => {
                (state.to, state.asked) = (true, false);
                audience = Audience::Interested;
            }
            Request::Subscribed => {}
            Request::Unsubscribe if self.from || self.waits => {
                (state.from, state.waits) = (false, false);
                audience = Audience::Interested;
                reply = Some(Request::Unsubscribed);
                if self.from {
                    show = Show::Gone;
                }
            }
            Request::Unsubscribe => {}
            Request::Unsubscribed if self.to || self.asked => {
                (state.to, state.asked) = (false, false);
                audience = Audience::Interested;
            }
            Request::Unsubscribed => {}
        }
        Inbound { state, audience, reply, show }
    }
}

/// What a subscription state holds.
impl Subscription {
    pub(in crate::shard) fn has_to(self) -> bool {
        matches!(self, Subscription::To | Subscription::Both)
    }

    pub(in crate::shard) fn has_from(self) -> bool {
        matches!(self, Subscription::From | Subscription::Both)
    }
}

#[cfg(test)]
mod tests {
    use super::Request::{Subscribe, Subscribed, Unsubscribe, Unsubscribed};
    use super::*;

    const fn state(to: bool, from: bool, asked: bool, waits: bool) -> State {
        State { to, from, asked, waits, approved: false }
    }

    const NONE: State = state(false, false, false, false);
    const NONE_OUT: State = state(false, false, true, false);
    const NONE_IN: State = state(false, false, false, true);
    const NONE_OUT_IN: State = state(false, false, true, true);
    const TO: State = state(true, false, false, false);
    const TO_IN: State = state(true, false, false, true);
    const FROM: State = state(false, true, false, false);
    const FROM_OUT: State = state(false, true, true, false);
    const BOTH: State = state(true, true, false, false);
    const ALL: [State; 9] = [NONE, NONE_OUT, NONE_IN, NONE_OUT_IN, TO, TO_IN, FROM, FROM_OUT, BOTH];

    /// One table of appendix A: for each existing state, in the order of `ALL`, whether the stanza goes on and what the
    /// new state is.
    type Table = [(bool, State); 9];

    const OUTBOUND: [(Request, Table); 4] = [
        (
            Subscribe, // A.2.1
            [
                (true, NONE_OUT),
                (true, NONE_OUT),
                (true, NONE_OUT_IN),
                (true, NONE_OUT_IN),
                (true, TO),
                (true, TO_IN),
                (true, FROM_OUT),
                (true, FROM_OUT),
                (true, BOTH),
            ],
        ),
        (
            Unsubscribe, // A.2.2
            [
                (true, NONE),
                (true, NONE),
                (true, NONE_IN),
                (true, NONE_IN),
                (true, NONE),
                (true, NONE_IN),
                (true, FROM),
                (true, FROM),
                (true, FROM),
            ],
        ),
        (
            Subscribed, // A.2.3
            [
                (false, NONE),
                (false, NONE_OUT),
                (true, FROM),
                (true, FROM_OUT),
                (false, TO),
                (true, BOTH),
                (false, FROM),
                (false, FROM_OUT),
                (false, BOTH),
            ],
        ),
        (
            Unsubscribed, // A.2.4
            [
                (false, NONE),
                (false, NONE_OUT),
                (true, NONE),
                (true, NONE_OUT),
                (false, TO),
                (true, TO),
                (true, NONE),
                (true, NONE_OUT),
                (true, TO),
            ],
        ),
    ];

    const INBOUND: [(Request, Table); 4] = [
        (
            Subscribe, // A.3.1
            [
                (true, NONE_IN),
                (true, NONE_OUT_IN),
                (false, NONE_IN),
                (false, NONE_OUT_IN),
                (true, TO_IN),
                (false, TO_IN),
                (false, FROM),
                (false, FROM_OUT),
                (false, BOTH),
            ],
        ),
        (
            Unsubscribe, // A.3.2
            [
                (false, NONE),
                (false, NONE_OUT),
                (true, NONE),
                (true, NONE_OUT),
                (false, TO),
                (true, TO),
                (true, NONE),
                (true, NONE_OUT),
                (true, TO),
            ],
        ),
        (
            Subscribed, // A.3.3
            [
                (false, NONE),
                (true, TO),
                (false, NONE_IN),
                (true, TO_IN),
                (false, TO),
                (false, TO_IN),
                (false, FROM),
                (true, BOTH),
                (false, BOTH),
            ],
        ),
        (
            Unsubscribed, // A.3.4
            [
                (false, NONE),
                (true, NONE),
                (false, NONE_IN),
                (true, NONE_IN),
                (true, NONE),
                (true, NONE_IN),
                (false, FROM),
                (true, FROM),
                (true, FROM),
            ],
        ),
    ];

    /// Without the flag that the tables of the appendix leave to notes.
    fn plain(state: State) -> State {
        State { approved: false, ..state }
    }

    #[test]
    fn outbound_stanzas_do_what_appendix_a_2_says() {
        for (request, table) in OUTBOUND {
            for (before, (routed, after)) in ALL.into_iter().zip(table) {
                let outcome = before.outbound(request);
                let got = (outcome.routed, plain(outcome.state));
                assert_eq!(got, (routed, after), "{request:?} in {before:?}");
                let approves = request == Subscribed && !before.from && !before.waits;
                assert_eq!(outcome.state.approved, approves, "{request:?} in {before:?}");
                let show = match (before.from, outcome.state.from) {
                    (false, true) => Show::Here,
                    (true, false) => Show::Gone,
                    _ => Show::Nothing,
                };
                assert_eq!(outcome.show, show, "{request:?} in {before:?}");
            }
        }
    }

    #[test]
    fn inbound_stanzas_do_what_appendix_a_3_says() {
        for (request, table) in INBOUND {
            for (before, (delivered, after)) in ALL.into_iter().zip(table) {
                let outcome = before.inbound(request);
                let got = (outcome.audience != Audience::Nobody, outcome.state);
                assert_eq!(got, (delivered, after), "{request:?} in {before:?}");
                let reply = match request {
                    Subscribe => before.from.then_some(Subscribed),
                    Unsubscribe => delivered.then_some(Unsubscribed),
                    Subscribed | Unsubscribed => None,
                };
                assert_eq!(outcome.reply, reply, "{request:?} in {before:?}");
                let gone = before.from && !outcome.state.from;
                assert_eq!(outcome.show == Show::Gone, gone, "{request:?} in {before:?}");
                if delivered {
                    let wanted = match request {
                        Subscribe => Audience::Available,
                        Subscribed | Unsubscribe | Unsubscribed => Audience::Interested,
                    };
                    assert_eq!(outcome.audience, wanted);
                }
            }
        }
    }

    #[test]
    fn approved_contact_is_subscribed_when_it_asks() {
        for before in ALL.into_iter().filter(|state| !state.from && !state.waits) {
            let approved = before.outbound(Subscribed).state;
            let asked = approved.inbound(Subscribe);
            assert_eq!(plain(asked.state), State { from: true, ..before });
            assert_eq!((asked.audience, asked.reply), (Audience::Nobody, Some(Subscribed)));
            assert_eq!(asked.show, Show::Here);
            let taken_back = approved.outbound(Unsubscribed);
            assert_eq!((taken_back.state, taken_back.routed), (before, false));
        }
    }

    #[test]
    fn no_state_is_left_in_which_a_contact_both_has_and_waits_for_the_same() {
        for before in ALL {
            for request in [Subscribe, Subscribed, Unsubscribe, Unsubscribed] {
                for after in [before.outbound(request).state, before.inbound(request).state] {
                    assert!(ALL.contains(&plain(after)), "{after:?}");
                }
            }
        }
    }
}
