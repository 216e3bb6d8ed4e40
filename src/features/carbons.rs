//! XEP-0280: Message Carbons. Each message that an account sends or gets is copied to those of its sessions that asked
//! for copies and did not send or get it.

use super::Settings;
use crate::shard::{
    AccountId, Answers, Delivered, Direction, Feature, Iq, Manifest, Method, Passage, Phase, Scope,
    Sent, SessionId, Spec, Turn, Verdict,
};
use crate::xmpp::ns;
use crate::xmpp::stanza::{MessageType, Stanza, StanzaKind};
use crate::xmpp::stanza_error::StanzaCondition;
use crate::xmpp::xml::element::Element;
use crate::xmpp::xml::reader::Index;
use crate::xmpp::xml::writer::Writer;
use smallvec::SmallVec;

pub(super) static MANIFEST: Manifest = Manifest {
    name: "carbons",
    specs: &[
        Spec {
            name: "XEP-0280",
            version: "1.0.1",
            left_out: "errors are copied whatever message they answer, so `carbons:rules:0` is not announced",
        },
        Spec { name: "XEP-0297", version: "1.0", left_out: "" },
    ],
    server_disco: &[ns::CARBONS],
    account_disco: &[ns::CARBONS],
    answers: &[answers("enable"), answers("disable")],
    bind_inline: &[ns::CARBONS],
    phases: &[Phase::Sent, Phase::Delivered],
    ..Manifest::EMPTY
};

const fn answers(name: &'static str) -> Answers {
    Answers { method: Method::Set, namespace: ns::CARBONS, name, scopes: &[Scope::Own] }
}

/// One instance per shard.
pub(super) struct Carbons;

/// Whether a session wants copies.
#[derive(Debug, Default)]
struct Wanted(bool);

impl Carbons {
    pub(super) fn new(_settings: &Settings) -> Self {
        Self
    }
}

impl Feature for Carbons {
    fn manifest(&self) -> &'static Manifest {
        &MANIFEST
    }

    fn on_iq(&mut self, turn: &mut Turn<'_>, iq: &Iq<'_>) -> Verdict {
        let wanted = iq.session.and_then(|session| turn.session_slot::<Wanted>(session));
        match wanted {
            Some(wanted) => {
                wanted.0 = iq.payload.name == "enable";
                Verdict::Result(Vec::new())
            }
            None => Verdict::Error(StanzaCondition::NotAllowed.into()),
        }
    }

    /// XEP-0386: `<enable/>` inside of `<bind/>`.
    fn on_bind(&mut self, turn: &mut Turn<'_>, session: SessionId, request: &Element) -> Vec<u8> {
        if let Some(wanted) = turn.session_slot::<Wanted>(session) {
            wanted.0 = request.name == "enable";
        }
        Vec::new()
    }

    fn pack_session(&self, turn: &Turn<'_>, session: SessionId) -> Option<Vec<u8>> {
        let wanted = turn.session_slot_in_use::<Wanted>(session)?;
        Some(vec![u8::from(wanted.0)])
    }

    fn unpack_session(&mut self, turn: &mut Turn<'_>, session: SessionId, packed: &[u8]) {
        if let Some(wanted) = turn.session_slot::<Wanted>(session) {
            wanted.0 = packed == [1];
        }
    }

    /// A copy is the server's to make. What a client sends as one is refused, so that nobody has to tell them apart.
    fn on_sent(&mut self, _turn: &mut Turn<'_>, sent: &Sent<'_>) -> Passage {
        let is_forged = sent.kind == StanzaKind::Message
            && sent.stanza.children().any(|child| {
                child.namespace == ns::CARBONS && matches!(child.name, "sent" | "received")
            });
        match is_forged {
            true => Passage::Refuse(StanzaCondition::BadRequest.into()),
            false => Passage::Pass,
        }
    }

    fn lets_messages_pass(&self, _turn: &mut Turn<'_>, _account: AccountId) -> bool {
        true
    }

    fn on_delivered(&mut self, turn: &mut Turn<'_>, delivered: &Delivered<'_>) {
        let Some(targets) = targets(turn, delivered) else { return };
        let mut index = Index::default();
        let Some(stanza) = turn.read(delivered.stanza, &mut index) else { return };
        if !is_eligible(&stanza, delivered) {
            return;
        }
        let name = match delivered.direction {
            Direction::Out => "sent",
            Direction::In => "received",
        };
        let Some(own) = turn.account_jid(delivered.account).map(ToString::to_string) else {
            return;
        };
        // The content namespace is not named in what is delivered, as it is the default there.
        let Some(rest) = delivered.stanza.strip_prefix(b"<message") else { return };
        let mut open = Vec::with_capacity(384);
        for target in targets {
            let Some(to) = turn.session_jid(target).map(ToString::to_string) else { continue };
            open.clear();
            let mut writer = Writer::new(&mut open);
            writer.start("message").attr("from", &own).attr("to", &to);
            if delivered.kind != MessageType::Normal {
                writer.attr("type", delivered.kind.name());
            }
            writer.start(name).attr("xmlns", ns::CARBONS);
            writer.start("forwarded").attr("xmlns", ns::FORWARD).open();
            open.extend_from_slice(b"<message xmlns='jabber:client'");
            let close: &[u8] = match delivered.direction {
                Direction::Out => b"</forwarded></sent></message>",
                Direction::In => b"</forwarded></received></message>",
            };
            turn.send(target, &[&open, rest, close]);
        }
    }
}

/// The sessions that want a copy and do not have the message; `None` where there are none, which most often shows at once.
fn targets(turn: &Turn<'_>, delivered: &Delivered<'_>) -> Option<SmallVec<[SessionId; 4]>> {
    let sessions = turn.sessions(delivered.account);
    if sessions.len() <= delivered.sessions.len() {
        return None;
    }
    // A message to oneself is sent and received: one copy is enough, and its sender needs none.
    let own = turn.account_jid(delivered.account)?.as_str();
    let other = match delivered.direction {
        Direction::Out => delivered.to,
        Direction::In => delivered.from,
    };
    let to_oneself = other.split_once('/').map_or(other, |(bare, _)| bare) == own;
    if to_oneself && delivered.direction == Direction::Out {
        return None;
    }
    let wants = |session: &SessionId| {
        turn.session_slot_in_use::<Wanted>(*session).is_some_and(|wanted| wanted.0)
            && !delivered.sessions.contains(session)
            && !(to_oneself && turn.session_jid(*session).is_some_and(|jid| jid.is(delivered.from)))
    };
    let wanted: SmallVec<[SessionId; 4]> = sessions.into_iter().filter(wants).collect();
    (!wanted.is_empty()).then_some(wanted)
}

/// § 6.1 of the specification, and the hint `no-copy`.
fn is_eligible(stanza: &Stanza<'_>, delivered: &Delivered<'_>) -> bool {
    if delivered.kind == MessageType::Groupchat {
        return false;
    }
    let mut eligible = matches!(delivered.kind, MessageType::Chat | MessageType::Error);
    for child in stanza.children() {
        match (child.namespace, child.name) {
            (ns::CARBONS, _) | (ns::HINTS, "no-copy") => return false,
            (ns::MUC_USER, "x") => {
                let invites = child.to_element().child(ns::MUC_USER, "invite").is_some();
                // What a room says in private it says to each session that is in it.
                if !invites && delivered.direction == Direction::In {
                    return false;
                }
                eligible = true;
            }
            (ns::CLIENT, "body") => eligible |= delivered.kind == MessageType::Normal,
            (ns::RECEIPTS | ns::CHATSTATES | ns::CHAT_MARKERS | ns::CONFERENCE, _)
            | (_, "encrypted") => eligible = true,
            _ => {}
        }
    }
    eligible
}
