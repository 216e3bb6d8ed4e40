//! XEP-0050: Ad-Hoc Commands. The protocol of commands: what is offered to whom, the sessions in which they are filled
//! in, and their answers. The commands themselves are in `administration`; each has one form at most.

use super::Settings;
use super::administration::{COMMANDS, Command, FORM_TYPE, Shown, show};
use crate::base::instant::Instant;
use crate::shard::errand::Outcome;
use crate::shard::{
    Answers, DiscoRequest, Discovery, Feature, Identity, Iq, Item, Manifest, Method, Scope, Spec,
    Turn, Verdict,
};
use crate::xmpp::data_form::{self, Submitted};
use crate::xmpp::ns;
use crate::xmpp::stanza_error::{ErrorType, StanzaCondition, StanzaError};
use crate::xmpp::xml::writer::Writer;
use std::any::Any;
use std::collections::VecDeque;
use std::time::Duration;

pub(super) static MANIFEST: Manifest = Manifest {
    name: "commands",
    specs: &[
        Spec { name: "XEP-0050", version: "1.3.0", left_out: "commands of several stages" },
        Spec {
            name: "XEP-0133",
            version: "1.3.1",
            left_out: "get-user-password (never), get-user-lastlogin, addresses and rates in \
                       user-stats, blacklist, whitelist, message of the day, welcome, edit-admin, \
                       restart",
        },
    ],
    server_disco: &[ns::COMMANDS],
    answers: &[Answers {
        method: Method::Set,
        namespace: ns::COMMANDS,
        name: "command",
        scopes: &[Scope::Server],
    }],
    ..Manifest::EMPTY
};

/// §4.4: what is wrong with a request, as its one element says.
macro_rules! detail {
    ($condition:literal) => {
        concat!("<", $condition, " xmlns='http://jabber.org/protocol/commands'/>")
    };
}

/// Forms that are out on one shard; past that the oldest is forgotten, and its session is unknown.
const SESSIONS_MAX: usize = 64;
/// How long a form may take to be filled in; then `session-expired`.
const SESSION_TIME: Duration = Duration::from_secs(900);

/// One instance per shard.
pub(super) struct Commands {
    /// Oldest first. Lost with a restart or reload: the form is asked for again.
    sessions: VecDeque<Session>,
}

/// A form that is out.
struct Session {
    id: String,
    /// Full JID.
    from: String,
    node: &'static str,
    ends_at: Instant,
}

/// What an errand needs to be answered.
struct Running {
    command: &'static Command,
    session: String,
}

impl Commands {
    pub(super) fn new(_settings: &Settings) -> Self {
        Self { sessions: VecDeque::new() }
    }

    /// The form goes out.
    fn offer(&mut self, turn: &mut Turn<'_>, iq: &Iq<'_>, command: &'static Command) -> Vec<u8> {
        let id = turn.token(16);
        if self.sessions.len() >= SESSIONS_MAX {
            self.sessions.pop_front();
        }
        self.sessions.push_back(Session {
            id: id.clone(),
            from: iq.from.to_owned(),
            node: command.node,
            ends_at: turn.now().mono + SESSION_TIME,
        });
        let mut form = Vec::with_capacity(1024);
        Writer::new(&mut form)
            .start("actions")
            .attr("execute", "complete")
            .start("complete")
            .close_empty()
            .end("actions");
        let texts = (command.name, command.instructions);
        data_form::write(&mut form, "form", texts, FORM_TYPE, command.fields, b"");
        answer(command, &id, "executing", &form)
    }

    /// The session of a request that goes on, taken out.
    fn session(
        &mut self,
        turn: &Turn<'_>,
        iq: &Iq<'_>,
        command: &Command,
        id: &str,
    ) -> Result<Session, StanzaError> {
        let place = self.sessions.iter().position(|session| {
            session.id == id && session.from == iq.from && session.node == command.node
        });
        let session = place.and_then(|place| self.sessions.remove(place));
        let session = session.ok_or_else(|| bad(detail!("bad-sessionid")))?;
        if session.ends_at < turn.now().mono {
            let expired = StanzaError::new(StanzaCondition::NotAllowed);
            return Err(expired.with_detail(detail!("session-expired")));
        }
        Ok(session)
    }
}

impl Feature for Commands {
    fn manifest(&self) -> &'static Manifest {
        &MANIFEST
    }

    fn on_iq(&mut self, turn: &mut Turn<'_>, iq: &Iq<'_>) -> Verdict {
        if !turn.is_admin(iq.from) {
            return Verdict::Error(StanzaCondition::Forbidden.into());
        }
        match self.request(turn, iq) {
            Ok(Some(payload)) => Verdict::Result(payload),
            Ok(None) => Verdict::Pending,
            Err(error) => Verdict::Error(error),
        }
    }

    fn on_errand(
        &mut self,
        _turn: &mut Turn<'_>,
        _from: &str,
        context: Box<dyn Any>,
        outcome: Outcome,
    ) -> Result<Vec<u8>, StanzaError> {
        let Ok(running) = context.downcast::<Running>() else {
            return Err(StanzaCondition::InternalServerError.into());
        };
        let Running { command, session } = *running;
        let Shown { fields, inner, note } = show(command, outcome)?;
        let mut payload = Vec::with_capacity(256);
        if let Some((kind, text)) = note {
            Writer::new(&mut payload).start("note").attr("type", kind).open().text(&text).end("note");
        }
        if !fields.is_empty() || !inner.is_empty() {
            let fields: Vec<_> = fields
                .iter()
                .map(|(var, kind, values)| data_form::Field {
                    values,
                    ..data_form::Field::new(var, kind, "")
                })
                .collect();
            let texts = (command.name, "");
            data_form::write(&mut payload, "result", texts, FORM_TYPE, &fields, &inner);
        }
        Ok(answer(command, &session, "completed", &payload))
    }

    /// §2.1, §2.2: the list of commands and each of them, for those who may run them.
    fn discover(
        &mut self,
        turn: &mut Turn<'_>,
        request: &DiscoRequest<'_>,
        found: &mut Discovery,
    ) {
        if request.scope != Scope::Server || !turn.is_admin(request.from) {
            return;
        }
        let item = |node: &str, name: &str| Item {
            jid: request.subject.to_owned(),
            node: Some(node.to_owned()),
            name: Some(name.to_owned()),
        };
        match (request.node, request.is_items) {
            (None, true) => found.items.push(item(ns::COMMANDS, "Commands")),
            (Some(ns::COMMANDS), is_items) => {
                found.is_known_node = true;
                if is_items {
                    found.items.extend(COMMANDS.iter().map(|it| item(it.node, it.name)));
                } else {
                    found.identities.push(identity("command-list", "Commands"));
                }
            }
            (Some(node), is_items) => {
                let Some(command) = COMMANDS.iter().find(|command| command.node == node) else {
                    return;
                };
                found.is_known_node = true;
                if !is_items {
                    found.identities.push(identity("command-node", command.name));
                    found.features.extend([ns::COMMANDS, ns::DATA_FORMS]);
                }
            }
            (None, false) => {}
        }
    }
}

impl Commands {
    /// - gives: the payload of the answer; `None` where an errand brings it
    fn request(
        &mut self,
        turn: &mut Turn<'_>,
        iq: &Iq<'_>,
    ) -> Result<Option<Vec<u8>>, StanzaError> {
        let element = iq.payload.to_element();
        let node = element.attr("node").ok_or(StanzaCondition::BadRequest)?;
        let command = COMMANDS.iter().find(|command| command.node == node);
        let command = command.ok_or(StanzaCondition::ItemNotFound)?;
        let action = element.attr("action").unwrap_or("execute");
        if !["execute", "next", "prev", "complete", "cancel"].contains(&action) {
            return Err(bad(detail!("malformed-action")));
        }
        let Some(id) = element.attr("sessionid").filter(|id| !id.is_empty()) else {
            return match action {
                "execute" if command.fields.is_empty() => {
                    let none = Submitted::default();
                    let errand = (command.run)(iq.subject, &none).map_err(bad_payload)?;
                    let session = turn.token(16);
                    turn.errand(errand, Running { command, session });
                    Ok(None)
                }
                "execute" => Ok(Some(self.offer(turn, iq, command))),
                _ => Err(bad(detail!("bad-sessionid"))),
            };
        };
        let session = self.session(turn, iq, command, id)?;
        let form = element.child(ns::DATA_FORMS, "x");
        let is_cancelled = form.is_some_and(|form| form.attr("type") == Some("cancel"));
        if action == "cancel" || is_cancelled {
            return Ok(Some(answer(command, id, "canceled", b"")));
        }
        let errand = match action {
            // There is one stage: none comes before it, and none behind it but its end.
            "next" | "prev" => Err(bad(detail!("bad-action"))),
            _ => form
                .and_then(|form| Submitted::read(form, FORM_TYPE))
                .ok_or("the form is missing")
                .and_then(|form| (command.run)(iq.subject, &form))
                .map_err(bad_payload),
        };
        match errand {
            Ok(errand) => {
                turn.errand(errand, Running { command, session: session.id });
                Ok(None)
            }
            Err(error) => {
                // What was filled in can be mended.
                self.sessions.push_back(session);
                Err(error)
            }
        }
    }
}

fn bad(detail: &'static str) -> StanzaError {
    StanzaError::typed(StanzaCondition::BadRequest, ErrorType::Modify).with_detail(detail)
}

fn bad_payload(why: &'static str) -> StanzaError {
    bad(detail!("bad-payload")).with_text(why)
}

fn identity(kind: &'static str, name: &str) -> Identity {
    Identity { category: "automation", kind, name: name.to_owned() }
}

fn answer(command: &Command, session: &str, status: &str, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 256);
    Writer::new(&mut out)
        .start("command")
        .attr("xmlns", ns::COMMANDS)
        .attr("node", command.node)
        .attr("sessionid", session)
        .attr("status", status)
        .raw(payload)
        .end("command");
    out
}
