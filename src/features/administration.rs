//! XEP-0133: Service Administration. A table of commands for those whom the configuration names in `admins`: each reads
//! its form into an errand and shows what came of it. `commands` has the protocol around it.

use crate::shard::errand::{AccountFacts, Announcement, Errand, Outcome, Secret, Which};
use crate::xmpp::data_form::{Field, Submitted};
use crate::xmpp::jid::{BareJid, Jid};
use crate::xmpp::ns;
use crate::xmpp::stanza_error::{StanzaCondition, StanzaError};
use crate::xmpp::xml::writer::Writer;
use std::time::Duration;

/// XEP-0133 §7.3.
pub(super) const FORM_TYPE: &str = "http://jabber.org/protocol/admin";

/// Addresses in one request; more are a bad payload.
const JIDS_MAX: usize = 100;
/// Addresses in one answer, whatever is asked for.
const LIST_MAX: usize = 1_000;
const DELAY_MAX_S: u64 = 86_400;

/// One command.
pub(super) struct Command {
    pub node: &'static str,
    pub name: &'static str,
    pub instructions: &'static str,
    /// None: it runs at once.
    pub fields: &'static [Field<'static>],
    /// From the domain that is asked and the form to the work.
    pub run: fn(&str, &Submitted) -> Result<Errand, &'static str>,
    pub show: fn(Outcome) -> Result<Shown, StanzaError>,
}

/// What an answer shows.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// Name, type and values.
    pub fields: Vec<(&'static str, &'static str, Vec<String>)>,
    /// What else stands in the form, as XML.
    pub inner: Vec<u8>,
    /// Its type (`info`, `warn`) and text.
    pub note: Option<(&'static str, String)>,
}

const ACCOUNT: Field<'static> = Field::new("accountjid", "jid-single", "The account").required();
const ACCOUNTS: Field<'static> = Field::new("accountjids", "jid-multi", "The accounts").required();
const PASSWORD: Field<'static> = Field::new("password", "text-private", "The password").required();
const MAX_ITEMS: Field<'static> = Field {
    options: &[("25", "25"), ("100", "100"), ("1000", "1000")],
    ..Field::new("max_items", "list-single", "How many at most")
};
const ANNOUNCEMENT: Field<'static> = Field::new("announcement", "text-multi", "The announcement");

pub(super) static COMMANDS: &[Command] = &[
    Command {
        node: "http://jabber.org/protocol/admin#add-user",
        name: "Add User",
        instructions: "Fill out this form to add an account.",
        fields: &[
            ACCOUNT,
            PASSWORD,
            Field::new("password-verify", "text-private", "The password again"),
        ],
        run: |domain, form| {
            let jid = account(domain, form)?;
            let password = password(form)?;
            if form.value("password-verify").is_some_and(|again| again != password.0) {
                return Err("the two passwords differ");
            }
            Ok(Errand::CreateAccount { jid, password })
        },
        show: done,
    },
    Command {
        node: "http://jabber.org/protocol/admin#delete-user",
        name: "Delete User",
        instructions: "Fill out this form to delete accounts with all that belongs to them.",
        fields: &[ACCOUNTS],
        run: |domain, form| Ok(Errand::DeleteAccounts { jids: accounts(domain, form)? }),
        show: done,
    },
    Command {
        node: "http://jabber.org/protocol/admin#disable-user",
        name: "Disable User",
        instructions: "Fill out this form to disable accounts; their sessions end.",
        fields: &[ACCOUNTS],
        run: |domain, form| {
            Ok(Errand::SetDisabled { jids: accounts(domain, form)?, disabled: true })
        },
        show: done,
    },
    Command {
        node: "http://jabber.org/protocol/admin#reenable-user",
        name: "Re-Enable User",
        instructions: "Fill out this form to enable accounts that were disabled.",
        fields: &[ACCOUNTS],
        run: |domain, form| {
            Ok(Errand::SetDisabled { jids: accounts(domain, form)?, disabled: false })
        },
        show: done,
    },
    Command {
        node: "http://jabber.org/protocol/admin#end-user-session",
        name: "End User Session",
        instructions: "Fill out this form to end sessions: all of an account, or the one with a resource.",
        fields: &[ACCOUNTS],
        run: |domain, form| Ok(Errand::EndSessions { jids: addresses(domain, form)? }),
        show: done,
    },
    Command {
        node: "http://jabber.org/protocol/admin#change-user-password",
        name: "Change User Password",
        instructions: "Fill out this form to give an account another password.",
        fields: &[ACCOUNT, PASSWORD],
        run: |domain, form| {
            Ok(Errand::SetPassword { jid: account(domain, form)?, password: password(form)? })
        },
        show: done,
    },
    Command {
        node: "http://jabber.org/protocol/admin#get-user-roster",
        name: "Get User Roster",
        instructions: "Fill out this form to see the roster of an account.",
        fields: &[Field::new("accountjids", "jid-multi", "The account, one").required()],
        run: |domain, form| match &accounts(domain, form)?[..] {
            [jid] => Ok(Errand::Account { jid: jid.clone() }),
            _ => Err("ask for one account at a time"),
        },
        show: roster,
    },
    Command {
        node: "http://jabber.org/protocol/admin#user-stats",
        name: "Get User Statistics",
        instructions: "Fill out this form to see what is known of an account.",
        fields: &[ACCOUNT],
        run: |domain, form| Ok(Errand::Account { jid: account(domain, form)? }),
        show: statistics,
    },
    Command {
        node: "http://jabber.org/protocol/admin#get-registered-users-num",
        name: "Get Number of Registered Users",
        instructions: "",
        fields: &[],
        run: count,
        show: |outcome| number("registeredusersnum", outcome, |counts| counts.accounts),
    },
    Command {
        node: "http://jabber.org/protocol/admin#get-disabled-users-num",
        name: "Get Number of Disabled Users",
        instructions: "",
        fields: &[],
        run: count,
        show: |outcome| number("disabledusersnum", outcome, |counts| counts.disabled),
    },
    Command {
        node: "http://jabber.org/protocol/admin#get-online-users-num",
        name: "Get Number of Online Users",
        instructions: "",
        fields: &[],
        run: count,
        show: |outcome| number("onlineusersnum", outcome, |counts| counts.online),
    },
    Command {
        node: "http://jabber.org/protocol/admin#get-active-users-num",
        name: "Get Number of Active Users",
        instructions: "",
        fields: &[],
        run: count,
        show: |outcome| number("activeusersnum", outcome, |counts| counts.active),
    },
    Command {
        node: "http://jabber.org/protocol/admin#get-idle-users-num",
        name: "Get Number of Idle Users",
        instructions: "",
        fields: &[],
        run: count,
        show: |outcome| {
            number("idleusersnum", outcome, |counts| counts.online.saturating_sub(counts.active))
        },
    },
    Command {
        node: "http://jabber.org/protocol/admin#get-registered-users-list",
        name: "Get List of Registered Users",
        instructions: "Fill out this form to see the accounts.",
        fields: &[MAX_ITEMS],
        run: |domain, form| list(domain, form, false),
        show: |outcome| jids("registereduserjids", outcome),
    },
    Command {
        node: "http://jabber.org/protocol/admin#get-disabled-users-list",
        name: "Get List of Disabled Users",
        instructions: "Fill out this form to see the accounts that are disabled.",
        fields: &[MAX_ITEMS],
        run: |domain, form| list(domain, form, true),
        show: |outcome| jids("disableduserjids", outcome),
    },
    Command {
        node: "http://jabber.org/protocol/admin#get-online-users-list",
        name: "Get List of Online Users",
        instructions: "Fill out this form to see who is online.",
        fields: &[MAX_ITEMS],
        run: |domain, form| users(domain, form, Which::Online),
        show: |outcome| jids("onlineuserjids", outcome),
    },
    Command {
        node: "http://jabber.org/protocol/admin#get-active-users",
        name: "Get List of Active Users",
        instructions: "Fill out this form to see who is online and was heard in the last ten minutes.",
        fields: &[MAX_ITEMS],
        run: |domain, form| users(domain, form, Which::Active),
        show: |outcome| jids("activeuserjids", outcome),
    },
    Command {
        node: "http://jabber.org/protocol/admin#get-idle-users",
        name: "Get List of Idle Users",
        instructions: "Fill out this form to see who is online and was silent for ten minutes.",
        fields: &[MAX_ITEMS],
        run: |domain, form| users(domain, form, Which::Idle),
        // The name of the field is that of §4.22, whose example has the one of active users.
        show: |outcome| jids("idleuserjids", outcome),
    },
    Command {
        node: "http://jabber.org/protocol/admin#announce",
        name: "Send Announcement to Online Users",
        instructions: "Fill out this form to tell something to everybody who is online.",
        fields: &[Field { required: true, ..ANNOUNCEMENT }],
        run: |domain, form| {
            let announcement = announcement(domain, form);
            announcement.map(Errand::Announce).ok_or("there is nothing to announce")
        },
        show: done,
    },
    Command {
        node: "http://jabber.org/protocol/admin#shutdown",
        name: "Shut Down Service",
        instructions: "Fill out this form to stop the server.",
        fields: &[
            Field {
                options: &[("At once", "0"), ("30 s", "30"), ("5 min", "300"), ("15 min", "900")],
                ..Field::new("delay", "list-single", "Seconds until then").required()
            },
            ANNOUNCEMENT,
        ],
        run: |domain, form| {
            let delay = form.value("delay").and_then(|delay| delay.parse().ok());
            let delay = delay.filter(|delay| *delay <= DELAY_MAX_S);
            Ok(Errand::Stop {
                delay: Duration::from_secs(delay.ok_or("the delay is a day at most, in seconds")?),
                announcement: announcement(domain, form),
            })
        },
        show: done,
    },
];

// ---- forms

fn read_account(domain: &str, text: &str) -> Result<BareJid, &'static str> {
    let jid = BareJid::parse(text).map_err(|_| "that is no address of an account")?;
    match jid.local().is_some() && jid.domain() == domain {
        true => Ok(jid),
        false => Err("that is no address of an account of this server"),
    }
}

fn account(domain: &str, form: &Submitted) -> Result<BareJid, &'static str> {
    read_account(domain, form.value("accountjid").ok_or("the account is missing")?)
}

fn accounts(domain: &str, form: &Submitted) -> Result<Vec<BareJid>, &'static str> {
    lines(form)?.map(|text| read_account(domain, text)).collect()
}

/// With or without a resource.
fn addresses(domain: &str, form: &Submitted) -> Result<Vec<Jid>, &'static str> {
    let read = |text: &str| {
        let jid = Jid::parse(text).map_err(|_| "that is no address of an account")?;
        read_account(domain, jid.bare().as_str()).map(|_| jid)
    };
    lines(form)?.map(read).collect()
}

fn lines(form: &Submitted) -> Result<impl Iterator<Item = &str>, &'static str> {
    let values = form.values("accountjids");
    match values.len() {
        0 => Err("the accounts are missing"),
        1..=JIDS_MAX => Ok(values.iter().map(String::as_str)),
        _ => Err("these are too many accounts; give 100 at most"),
    }
}

fn password(form: &Submitted) -> Result<Secret, &'static str> {
    let password = form.value("password").ok_or("the password is missing")?;
    Ok(Secret(password.to_owned()))
}

fn limit(form: &Submitted) -> Result<usize, &'static str> {
    match form.value("max_items") {
        None | Some("none") => Ok(LIST_MAX),
        Some(number) => match number.parse::<usize>() {
            Ok(number) => Ok(number.min(LIST_MAX)),
            Err(_) => Err("max_items is no number"),
        },
    }
}

fn announcement(domain: &str, form: &Submitted) -> Option<Announcement> {
    let body = form.values("announcement").join("\n");
    let domain = domain.into();
    (!body.trim().is_empty()).then_some(Announcement { domain, subject: None, body })
}

fn count(domain: &str, _form: &Submitted) -> Result<Errand, &'static str> {
    Ok(Errand::Count { domain: domain.into() })
}

fn list(domain: &str, form: &Submitted, only_disabled: bool) -> Result<Errand, &'static str> {
    Ok(Errand::Accounts { domain: domain.into(), only_disabled, limit: limit(form)? })
}

fn users(domain: &str, form: &Submitted, which: Which) -> Result<Errand, &'static str> {
    Ok(Errand::Users { domain: domain.into(), which, limit: limit(form)? })
}

// ---- results

fn done(outcome: Outcome) -> Result<Shown, StanzaError> {
    let note = match outcome {
        Outcome::Done => ("info", "done".to_owned()),
        Outcome::Unknown(jids) => {
            let jids: Vec<String> = jids.iter().map(ToString::to_string).collect();
            ("warn", format!("done, but for what is not there: {}", jids.join(", ")))
        }
        other => return Err(failed(other)),
    };
    Ok(Shown { note: Some(note), ..Shown::default() })
}

fn number(
    var: &'static str,
    outcome: Outcome,
    of: fn(&crate::shard::errand::Counts) -> u64,
) -> Result<Shown, StanzaError> {
    let Outcome::Counts(counts) = outcome else { return Err(failed(outcome)) };
    let values = vec![of(&counts).to_string()];
    Ok(Shown { fields: vec![(var, "text-single", values)], ..Shown::default() })
}

fn jids(var: &'static str, outcome: Outcome) -> Result<Shown, StanzaError> {
    let Outcome::Jids { jids, more } = outcome else { return Err(failed(outcome)) };
    let values = jids.iter().map(ToString::to_string).collect();
    let note = more.then(|| ("info", "there are more".to_owned()));
    Ok(Shown { fields: vec![(var, "jid-multi", values)], note, ..Shown::default() })
}

fn facts(outcome: Outcome) -> Result<Box<AccountFacts>, StanzaError> {
    match outcome {
        Outcome::Account(Some(facts)) => Ok(facts),
        Outcome::Account(None) => Err(StanzaCondition::ItemNotFound.into()),
        other => Err(failed(other)),
    }
}

fn roster(outcome: Outcome) -> Result<Shown, StanzaError> {
    let facts = facts(outcome)?;
    let mut items = Vec::with_capacity(128 * facts.roster.len());
    for item in facts.roster.iter().filter(|item| item.listed) {
        item.write(&mut items);
    }
    let mut inner = Vec::with_capacity(items.len() + 64);
    Writer::new(&mut inner).start("query").attr("xmlns", ns::ROSTER).raw(&items).end("query");
    Ok(Shown { inner, ..Shown::default() })
}

fn statistics(outcome: Outcome) -> Result<Shown, StanzaError> {
    let facts = facts(outcome)?;
    let contacts = facts.roster.iter().filter(|item| item.listed).count();
    let note = facts.disabled.then(|| ("info", "the account is disabled".to_owned()));
    Ok(Shown {
        fields: vec![
            ("rostersize", "text-single", vec![contacts.to_string()]),
            ("onlineresources", "text-multi", facts.resources),
        ],
        note,
        ..Shown::default()
    })
}

/// What a command shows of an outcome, with the nodes that are not in it.
pub(super) fn show(command: &Command, outcome: Outcome) -> Result<Shown, StanzaError> {
    let Outcome::Without(nodes, outcome) = outcome else { return (command.show)(outcome) };
    let mut shown = (command.show)(*outcome)?;
    let silent = format!("these nodes gave no answer, and are not in this: {}", nodes.join(", "));
    let text = match shown.note {
        Some((_, note)) => format!("{note}; {silent}"),
        None => silent,
    };
    shown.note = Some(("warn", text));
    Ok(shown)
}

/// Why a command did not do what it should.
fn failed(outcome: Outcome) -> StanzaError {
    match outcome {
        Outcome::Exists => StanzaCondition::Conflict.into(),
        Outcome::Refused(why) => StanzaError::new(StanzaCondition::NotAcceptable).with_text(why),
        Outcome::Unknown(_) => StanzaCondition::ItemNotFound.into(),
        Outcome::Busy | Outcome::TooMany => StanzaCondition::ResourceConstraint.into(),
        _ => StanzaCondition::InternalServerError.into(),
    }
}
