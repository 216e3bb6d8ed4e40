//! Where a client's stanza goes, decided without effects.

use crate::xmpp::jid::Jid;

/// Who deals with a stanza.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// The server itself, at the core where the stanza arrived: one of our domains.
    Server,
    /// The sender's own account.
    Own,
    /// The owner of an account of ours.
    Owner,
    /// An external component, or a user of one.
    Component,
    /// Another domain.
    Remote,
}

/// Who serves a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Realm {
    Ours,
    Component,
    Elsewhere,
}

/// - `to`: absent for what a client addresses to itself or its server (RFC 6120 §10.3)
/// - `realm`: who serves a domain
pub(super) fn route(to: Option<&Jid>, sender: &Jid, realm: impl Fn(&str) -> Realm) -> Route {
    let Some(to) = to else { return Route::Own };
    match realm(to.domain()) {
        Realm::Ours => {}
        Realm::Component => return Route::Component,
        Realm::Elsewhere => return Route::Remote,
    }
    if to.local().is_none() {
        Route::Server
    } else if to.is_bare() && to.bare() == sender.bare() {
        Route::Own
    } else {
        Route::Owner
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_one_route() {
        let sender = Jid::parse("alice@here/phone").unwrap();
        let to = |text: &str| {
            let jid = Jid::parse(text).unwrap();
            route(Some(&jid), &sender, |domain| match domain {
                "here" => Realm::Ours,
                "bot" => Realm::Component,
                _ => Realm::Elsewhere,
            })
        };
        assert_eq!(route(None, &sender, |_| Realm::Ours), Route::Own);
        assert_eq!(to("here"), Route::Server);
        assert_eq!(to("here/any"), Route::Server);
        assert_eq!(to("alice@here"), Route::Own);
        assert_eq!(to("alice@here/phone"), Route::Owner);
        assert_eq!(to("bob@here"), Route::Owner);
        assert_eq!(to("bob@there"), Route::Remote);
        assert_eq!(to("there"), Route::Remote);
        assert_eq!(to("bot"), Route::Component);
        assert_eq!(to("bot/x"), Route::Component);
        assert_eq!(to("alice@bot"), Route::Component);
    }
}
