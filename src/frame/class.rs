//! What a frame says of its stanza beside the stanza itself, so that those on the way need not read it: read off once,
//! where the stanza comes in, from whomever.

use super::{Flags, Kind};
use crate::xmpp::ns;
use crate::xmpp::stanza::{IqType, MessageType, PresenceType, Stanza, StanzaKind};
use crate::xmpp::stanza_error::StanzaCondition;

/// Kind, type and marks of a stanza.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    pub kind: Kind,
    /// The code of its `MessageType`, `PresenceType` or `IqType`.
    pub subtype: u8,
    pub flags: Flags,
}

impl Class {
    /// Reads it off, and checks what RFC 6120 §8.2.3 and RFC 6121 §4.7.1 demand of each stanza.
    ///
    /// - errors: `bad-request` for presence or an IQ of no known type, an IQ without id, and a request that has not exactly
    ///   one child
    pub fn of(kind: StanzaKind, stanza: &Stanza<'_>) -> Result<Class, StanzaCondition> {
        let bad_request = StanzaCondition::BadRequest;
        let flags = Flags::default();
        match kind {
            StanzaKind::Message => {
                let kind = MessageType::parse(stanza.type_().as_deref());
                let flags = message_flags(kind, stanza);
                Ok(Class { kind: Kind::Message, subtype: kind.code(), flags })
            }
            StanzaKind::Presence => {
                let kind = PresenceType::parse(stanza.type_().as_deref()).ok_or(bad_request)?;
                Ok(Class { kind: Kind::Presence, subtype: kind.code(), flags })
            }
            StanzaKind::Iq => {
                let kind = stanza.iq_type().ok_or(bad_request)?;
                let asks = matches!(kind, IqType::Get | IqType::Set);
                if stanza.attr_raw("id").is_none() || asks && stanza.children().count() != 1 {
                    return Err(bad_request);
                }
                Ok(Class { kind: Kind::Iq, subtype: kind.code(), flags })
            }
        }
    }

    /// Whether it is a request, which gets one answer (RFC 6120 §8.2.3).
    pub fn asks(self) -> bool {
        let is = |kind: IqType| self.subtype == kind.code();
        self.kind == Kind::Iq && (is(IqType::Get) || is(IqType::Set))
    }
}

/// What the owner of the recipient must know of a message to store or bounce it (XEP-0160 §3, XEP-0334). Hints in errors
/// mean nothing, and errors are never kept.
pub fn message_flags(kind: MessageType, stanza: &Stanza<'_>) -> Flags {
    let mut flags = Flags::default();
    if kind == MessageType::Error {
        return flags;
    }
    // A headline is of the moment, unless its sender says otherwise.
    let lasting = kind != MessageType::Headline;
    let (mut forbidden, mut worthy, mut passing) = (false, false, false);
    for child in stanza.children() {
        match (child.namespace, child.name) {
            // In a component's or a server's words, it is in their namespace until it is written.
            (ns::CLIENT | ns::COMPONENT_ACCEPT | ns::SERVER, "body") if lasting => {
                worthy = true;
                flags = flags.with(Flags::CONTENT);
            }
            (ns::HINTS, "no-store") => forbidden = true,
            // Forbids archives, not to keep it until it is delivered.
            (ns::HINTS, "no-permanent-store") => passing = true,
            (ns::HINTS, "store") => worthy = true,
            (ns::RECEIPTS | ns::CHAT_MARKERS, _) | (_, "encrypted") => worthy |= lasting,
            // Clients that were away must learn of it (XEP-0424).
            (ns::RETRACT, "retract") => {
                worthy |= lasting;
                flags = flags.with(Flags::RETRACTS);
            }
            _ => {}
        }
    }
    if worthy && !forbidden {
        flags = flags.with(Flags::STORABLE);
        // What is said in rooms is the rooms' to keep.
        if !passing && kind != MessageType::Groupchat {
            flags = flags.with(Flags::ARCHIVABLE);
        }
    }
    flags
}
