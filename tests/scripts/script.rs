//! The format of conversations, and its parser.
//!
//! ```text
//! # A client pings its server.
//! source XEP-0199 §4.2
//!
//! alice phone online
//! alice phone sends
//!   <iq type='get' id='1' to='{domain}'><ping xmlns='urn:xmpp:ping'/></iq>
//! alice phone receives
//!   <iq type='result' id='1' from='{domain}'/>
//! bob pc receives nothing
//! ```
//!
//! The first line says what is shown. Then come **settings**, one a line, each at most once but for `needs` and `set`:
//!
//! | line | meaning |
//! |---|---|
//! | `source RFC 6121 §3.1.3; XEP-0199 §4.2` | what fixes the outcome; without it no conversation is read |
//! | `needs NAMESPACE`, `needs MECHANISM` | must be offered (stream features or disco of the server or the account); a foreign server without it is not asked, Corefire without it fails |
//! | `only corefire: REASON` | foreign servers are not asked |
//! | `only simulated: REASON` | only shards in memory: what needs time to pass |
//! | `set KEY=VALUE` | configuration of Corefire, as `corefire serve --set`, with `{alice}` filled in; implies that foreign servers are not asked |
//! | `accounts carol dave` | accounts that take part without a client |
//! | `nobody ghost` | a name with no account behind it, until a step makes one |
//! | `component bot` | an external component (XEP-0114) that the server knows, with everybody's password as its secret |
//!
//! **Steps** follow, each done with all its consequences before the next one begins. A client is an account and the name
//! of a connection, which is the resource as well unless `as RESOURCE` says otherwise; an account exists as soon as it
//! is named, under a local part of its own in each run. A component has a domain of its own in each run, and connections
//! as an account has; `opens`, `connects`, `authenticates`, `logs in` and what sends, receives and ends are for it as well.
//! What goes over its stream is written as if it were a client's, without a namespace.
//!
//! | step | meaning |
//! |---|---|
//! | `given alice and bob are contacts` | each has subscribed to the other, by real stanzas |
//! | `given alice follows bob` | only Alice sees Bob's presence |
//! | `alice phone opens [HOW]` | a connection on which nothing is said; `over TLS` yields a channel binding, `with a certificate` shows one for the account as well: foreign servers are asked for neither |
//! | `alice phone opens a stream [HOW]` | and sends the stream's header |
//! | `alice phone connects [HOW]` | and reads the features |
//! | `alice phone authenticates [by MECHANISM]` | SASL (PLAIN), a new stream, its features; a component's handshake |
//! | `alice phone authenticates inline [by MECHANISM [with TOKEN]]` [+ elements] | SASL2: `<authenticate/>` with these elements inside, up to its outcome, which is left to be received; elements without a namespace are of SASL2; the server's proof is checked |
//! | `alice phone binds [as RESOURCE]` | the resource |
//! | `alice phone logs in [as RESOURCE]` | the three above |
//! | `alice phone online [as RESOURCE] [priority N]` | logs in, asks for the roster, sends presence; reads these two answers |
//! | `alice phone sends` + elements | one after the other, `{…}` filled in |
//! | `alice phone sends text` + text | as it stands, well-formed or not |
//! | `alice phone receives` + patterns | exactly these come next, in this order |
//! | `alice phone receives in any order` + patterns | the same, in whatever order |
//! | `alice phone receives either` + patterns | the next is one of them |
//! | `alice phone may receive` + pattern | if the next is this one it is read |
//! | `alice phone receives nothing` | decided by pings that pass through every account and client, never by waiting |
//! | `alice phone ignores` + patterns | from now on what is like these is not seen |
//! | `alice phone catches up`, `everyone catches up` | what has arrived is not looked at |
//! | `alice phone is acknowledged` | XEP-0198: the server confirms all that was sent |
//! | `alice phone acknowledges nothing` | requests for acknowledgement are left unanswered from now on |
//! | `alice phone resumes` | XEP-0198: a new connection takes the session over, and sends again what was not confirmed |
//! | `alice phone drops` | the connection breaks |
//! | `alice phone disconnects` | closes its stream and waits for the server to do so |
//! | `alice phone is closed` | the server has ended the connection |
//! | `5 minutes pass` | seconds, minutes, hours: only in simulated conversations |
//!
//! At the end no client may have anything left unread. What a server may do at any time is not seen: its pings and its
//! XEP-0198 requests are answered; `<a/>` is seen by who has asked with `<r/>`.
//!
//! **Patterns** are XML compared as trees: neither the order of attributes nor that of children matters, nor prefixes or
//! `xml:lang`. All that is received must be said, but for the `id`, `to` and `from` of a stanza (`to` must then be the
//! client, `from` its own account or the server), optional parts of errors (text, the original stanza), stamps of
//! presence, and stanza ids. `{any}` stands for any characters, `{=x}` too and names them `{x}` for later; an attribute
//! `'{maybe}'` may be missing; a text `{any}` lets an element have more attributes and children, a text `{maybe}` lets it
//! be missing besides; an element `<_/>` is one of any name.
//!
//! **Names** in braces: `{alice}` and `{alice/phone}` are addresses, `{alice.name}` the local part, `{alice.plain}` the
//! message of SASL PLAIN, `{bot}` the domain of a component, `{domain}`, `{password}`, `{h}` the number of stanzas the
//! client has received under XEP-0198, `{fast}` the best mechanism for tokens (XEP-0484) that its stream offers.

use std::collections::BTreeSet;
use std::time::Duration;

use corefire::xmpp::xml::element::Element;

use crate::sasl::SASL2;
use crate::xml;

pub(crate) struct Script {
    /// File name without ending.
    pub(crate) name: String,
    pub(crate) source: String,
    pub(crate) needs: Vec<String>,
    pub(crate) only: Only,
    pub(crate) settings: Vec<String>,
    pub(crate) accounts: BTreeSet<String>,
    pub(crate) nobodies: BTreeSet<String>,
    pub(crate) components: BTreeSet<String>,
    pub(crate) steps: Vec<Step>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Only {
    Anywhere,
    Corefire,
    Simulated,
}

pub(crate) struct Step {
    pub(crate) line: usize,
    pub(crate) text: String,
    pub(crate) what: What,
}

pub(crate) enum What {
    Contacts(String, String),
    Follows(String, String),
    EveryoneCatchesUp,
    Passes(Duration),
    Does(ClientName, Act),
}

/// An account and the name of one of its connections.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct ClientName {
    pub(crate) account: String,
    pub(crate) connection: String,
}

/// What a connection is made with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum How {
    /// Passwords may be told.
    Plain,
    Tls,
    /// TLS with a client certificate for the account.
    Certificate,
}

pub(crate) enum Act {
    Opens(How),
    OpensStream(How),
    Connects(How),
    Authenticates { mechanism: String },
    AuthenticatesInline { mechanism: String, token: Option<String>, elements: Vec<Element> },
    Binds { resource: String },
    LogsIn { resource: String },
    Online { resource: String, priority: Option<String> },
    Sends(Vec<Element>),
    SendsText(String),
    Receives(Vec<Element>),
    ReceivesInAnyOrder(Vec<Element>),
    ReceivesEither(Vec<Element>),
    MayReceive(Element),
    ReceivesNothing,
    Ignores(Vec<Element>),
    CatchesUp,
    IsAcknowledged,
    AcknowledgesNothing,
    Resumes,
    Drops,
    Disconnects,
    IsClosed,
}

impl Script {
    /// - errors: `NAME:LINE: what is wrong`
    pub(crate) fn parse(name: &str, text: &str) -> Result<Script, String> {
        let mut script = Script {
            name: name.to_owned(),
            source: String::new(),
            needs: Vec::new(),
            only: Only::Anywhere,
            settings: Vec::new(),
            accounts: BTreeSet::new(),
            nobodies: BTreeSet::new(),
            components: BTreeSet::new(),
            steps: Vec::new(),
        };
        let fault = |line: usize, what: String| format!("{name}.script:{line}: {what}");
        if !text.lines().next().is_some_and(|first| first.starts_with("# ")) {
            return Err(fault(1, "the first line says what is shown, behind a #".into()));
        }
        let mut lines = (1..).zip(text.lines()).peekable();
        while let Some((number, line)) = lines.next() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let mut block = String::new();
            while let Some((_, next)) = lines.next_if(|(_, next)| next.starts_with([' ', '\t'])) {
                block.push_str(next.trim_start());
                block.push('\n');
            }
            script.line(number, line.trim_end(), &block).map_err(|what| fault(number, what))?;
        }
        if script.source.is_empty() {
            return Err(fault(1, "no line `source` with the section that fixes it".into()));
        }
        if script.steps.is_empty() {
            return Err(fault(1, "no step".into()));
        }
        Ok(script)
    }

    /// Whether it wants connections that only Corefire is asked for.
    pub(crate) fn wants_tls(&self) -> bool {
        let how = |step: &Step| match &step.what {
            What::Does(_, Act::Opens(how) | Act::OpensStream(how) | Act::Connects(how)) => *how,
            _ => How::Plain,
        };
        self.steps.iter().any(|step| how(step) != How::Plain)
    }

    fn line(&mut self, number: usize, line: &str, block: &str) -> Result<(), String> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "source" if self.source.is_empty() => self.source = rest.to_owned(),
            "needs" => self.needs.push(rest.to_owned()),
            "only" if self.only == Only::Anywhere => {
                let (whom, reason) = rest.split_once(": ").ok_or("`only WHOM: REASON`")?;
                self.only = match whom {
                    "corefire" => Only::Corefire,
                    "simulated" => Only::Simulated,
                    _ => return Err("only corefire, or only simulated".into()),
                };
                if reason.is_empty() {
                    return Err("no reason".into());
                }
            }
            "set" => self.settings.push(rest.to_owned()),
            "accounts" => self.accounts.extend(rest.split(' ').map(str::to_owned)),
            "nobody" => self.nobodies.extend(rest.split(' ').map(str::to_owned)),
            "component" => self.components.extend(rest.split(' ').map(str::to_owned)),
            _ => {
                let what = self.step(line, block)?;
                self.steps.push(Step { line: number, text: line.to_owned(), what });
                return Ok(());
            }
        }
        if !self.steps.is_empty() {
            return Err("settings come before steps".into());
        }
        if block.is_empty() { Ok(()) } else { Err("a setting has no block".into()) }
    }

    fn step(&mut self, line: &str, block: &str) -> Result<What, String> {
        let words: Vec<&str> = line.split(' ').collect();
        let plain = match words[..] {
            ["given", a, "and", b, "are", "contacts"] => Some(What::Contacts(a.into(), b.into())),
            ["given", a, "follows", b] => Some(What::Follows(a.into(), b.into())),
            ["everyone", "catches", "up"] => Some(What::EveryoneCatchesUp),
            [number, unit, "pass" | "passes"] => Some(What::Passes(span(number, unit)?)),
            _ => None,
        };
        if let Some(what) = plain {
            if !block.is_empty() {
                return Err("this step has no block".into());
            }
            if let What::Contacts(a, b) | What::Follows(a, b) = &what {
                self.accounts.extend([a.clone(), b.clone()]);
            }
            return Ok(what);
        }
        let [account, connection, verbs @ ..] = &words[..] else {
            return Err(format!("not a step: {line}"));
        };
        if !account.chars().all(|c| c.is_ascii_lowercase()) {
            return Err(format!("{account} is no name; names are lower case letters"));
        }
        if !self.components.contains(*account) && !self.nobodies.contains(*account) {
            self.accounts.insert((*account).to_owned());
        }
        let client =
            ClientName { account: (*account).into(), connection: (*connection).to_owned() };
        Ok(What::Does(client, act(connection, verbs, block)?))
    }
}

fn act(connection: &str, verbs: &[&str], block: &str) -> Result<Act, String> {
    let own = || connection.to_owned();
    let has_block = !block.trim().is_empty();
    let login = |mechanism: &str, token: Option<&str>| {
        Ok(Act::AuthenticatesInline {
            mechanism: mechanism.to_owned(),
            token: token.map(str::to_owned),
            elements: xml::elements(block)?.into_iter().map(|it| xml::moved(it, SASL2)).collect(),
        })
    };
    match verbs {
        ["authenticates", "inline"] => return login("PLAIN", None),
        ["authenticates", "inline", "by", mechanism] => return login(mechanism, None),
        ["authenticates", "inline", "by", mechanism, "with", token] => {
            return login(mechanism, Some(token));
        }
        _ => {}
    }
    let elements = || match xml::elements(block)? {
        found if found.is_empty() => Err("no block of XML, indented, below this line".to_owned()),
        found => Ok(found),
    };
    let with_block = match verbs {
        ["sends"] => Some(Act::Sends(elements()?)),
        ["sends", "text"] if has_block => {
            Some(Act::SendsText(block.trim_end_matches('\n').to_owned()))
        }
        ["receives"] => Some(Act::Receives(elements()?)),
        ["receives", "in", "any", "order"] => Some(Act::ReceivesInAnyOrder(elements()?)),
        ["receives", "either"] => Some(Act::ReceivesEither(elements()?)),
        ["may", "receive"] => match &elements()?[..] {
            [one] => Some(Act::MayReceive(one.clone())),
            _ => return Err("one pattern".into()),
        },
        ["ignores"] => Some(Act::Ignores(elements()?)),
        _ => None,
    };
    if let Some(act) = with_block {
        return Ok(act);
    }
    if has_block {
        return Err(format!("`{}` has no block", verbs.join(" ")));
    }
    Ok(match verbs {
        ["opens", "a", "stream", how @ ..] => Act::OpensStream(connection_of(how)?),
        ["opens", how @ ..] => Act::Opens(connection_of(how)?),
        ["connects", how @ ..] => Act::Connects(connection_of(how)?),
        ["authenticates"] => Act::Authenticates { mechanism: "PLAIN".into() },
        ["authenticates", "by", mechanism] => Act::Authenticates { mechanism: (*mechanism).into() },
        ["binds"] => Act::Binds { resource: own() },
        ["binds", "as", resource] => Act::Binds { resource: (*resource).into() },
        ["logs", "in"] => Act::LogsIn { resource: own() },
        ["logs", "in", "as", resource] => Act::LogsIn { resource: (*resource).into() },
        ["online"] => Act::Online { resource: own(), priority: None },
        ["online", "as", resource] => Act::Online { resource: (*resource).into(), priority: None },
        ["online", "priority", priority] => {
            Act::Online { resource: own(), priority: Some((*priority).into()) }
        }
        ["online", "as", resource, "priority", priority] => {
            Act::Online { resource: (*resource).into(), priority: Some((*priority).into()) }
        }
        ["receives", "nothing"] => Act::ReceivesNothing,
        ["catches", "up"] => Act::CatchesUp,
        ["is", "acknowledged"] => Act::IsAcknowledged,
        ["acknowledges", "nothing"] => Act::AcknowledgesNothing,
        ["resumes"] => Act::Resumes,
        ["drops"] => Act::Drops,
        ["disconnects"] => Act::Disconnects,
        ["is", "closed"] => Act::IsClosed,
        _ => return Err(format!("no such step: {}", verbs.join(" "))),
    })
}

fn connection_of(how: &[&str]) -> Result<How, String> {
    match how {
        [] => Ok(How::Plain),
        ["over", "TLS"] => Ok(How::Tls),
        ["with", "a", "certificate"] => Ok(How::Certificate),
        _ => Err(format!("no way to connect: {}", how.join(" "))),
    }
}

fn span(number: &str, unit: &str) -> Result<Duration, String> {
    let number: u64 = number.parse().map_err(|_| format!("{number} is no number"))?;
    let seconds = match unit.trim_end_matches('s') {
        "second" => 1,
        "minute" => 60,
        "hour" => 3_600,
        "day" => 86_400,
        _ => return Err(format!("{unit} is no unit of time")),
    };
    Ok(Duration::from_secs(number * seconds))
}
