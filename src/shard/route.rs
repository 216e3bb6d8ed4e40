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
    /// Another domain.
    Remote,
}

/// - `to`: absent for what a client addresses to itself or its server (RFC 6120 §10.3)
/// - `is_local`: whether a domain is served here
pub(super) fn route(to: Option<&Jid>, sender: &Jid, is_local: impl Fn(&str) -> bool) -> Route {
    let Some(to) = to else { return Route::Own };
    if !is_local(to.domain()) {
        Route::Remote
    } else if to.local().is_none() {
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
            route(Some(&jid), &sender, |domain| domain == "here")
        };
        assert_eq!(route(None, &sender, |_| true), Route::Own);
        assert_eq!(to("here"), Route::Server);
        assert_eq!(to("here/any"), Route::Server);
        assert_eq!(to("alice@here"), Route::Own);
        assert_eq!(to("alice@here/phone"), Route::Owner);
        assert_eq!(to("bob@here"), Route::Owner);
        assert_eq!(to("bob@there"), Route::Remote);
        assert_eq!(to("there"), Route::Remote);
    }
}
