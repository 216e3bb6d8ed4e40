//! Holds a conversation with a server, step by step.

mod life;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use corefire::stream::sasl::client::plain;
use corefire::stream::sasl::encode_payload;
use corefire::xmpp::ns;
use corefire::xmpp::xml::element::Element;

use crate::driver::{Driver, Event, PASSWORD};
use crate::pattern::{self, Names, Receiver};
use crate::script::{Act, ClientName, How, Script, What};
use crate::session::{FENCE, Session, bare};
use crate::xml;

/// Longer than any server here takes for anything, on a machine that does much else.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// What one account causes at another may cause something at a third.
const FENCE_ROUNDS: usize = 2;

pub(crate) struct Run<'a> {
    driver: &'a mut dyn Driver,
    domain: String,
    accounts: Vec<String>,
    components: BTreeSet<String>,
    names: Names,
    sessions: BTreeMap<ClientName, Session>,
    /// Who has done something whose consequences may not be there yet.
    busy: Option<ClientName>,
    fences: u64,
    patience: Duration,
    /// Namespaces of what the streams' features have shown.
    offered: BTreeSet<String>,
}

/// What an account is offered: namespaces of stream features, and what disco tells of the server and of the account.
pub(crate) fn offered(
    driver: &mut dyn Driver,
    local: &str,
    how: How,
) -> Result<BTreeSet<String>, String> {
    let locals = BTreeMap::from([("someone".to_owned(), local.to_owned())]);
    let mut run = Run::new(driver, &locals, &BTreeMap::new());
    let client = ClientName { account: "someone".into(), connection: "probe".into() };
    name_resource(&mut run.names, &client.account, &client.connection);
    run.connect(&client, how)?;
    run.authenticate(&client, "PLAIN")?;
    run.bind(&client, "probe")?;
    let own = run.names["someone"].clone();
    for target in [run.domain.clone(), own] {
        let query = Element::new("query", ns::DISCO_INFO);
        run.send(&client, &request("get", "disco").with_attr("to", target).with_child(query))?;
        let answer = run.next(&client)?;
        if let Some(query) = answer.child(ns::DISCO_INFO, "query") {
            let features = query.children().filter_map(|child| child.attr("var"));
            run.offered.extend(features.map(str::to_owned));
        }
    }
    run.disconnect(&client)?;
    Ok(run.offered)
}

/// - takes: `locals`, the local part of each account that the script names; `components`, the domain of each component;
///   `patience` with each answer
/// - errors: what differs, with the line of the step
pub(crate) fn run(
    script: &Script,
    driver: &mut dyn Driver,
    locals: &BTreeMap<String, String>,
    components: &BTreeMap<String, String>,
    patience: Duration,
) -> Result<(), String> {
    let mut run = Run::new(driver, locals, components);
    run.accounts = script.accounts.iter().cloned().collect();
    run.patience = patience;
    for step in &script.steps {
        if let What::Does(client, _) = &step.what {
            name_resource(&mut run.names, &client.account, &client.connection);
        }
    }
    for step in &script.steps {
        run.step(&step.what).map_err(|what| {
            format!("{}.script:{}: {}\n{what}", script.name, step.line, step.text)
        })?;
    }
    run.end().map_err(|what| format!("{}.script: at the end\n{what}", script.name))
}

fn name_resource(names: &mut Names, account: &str, resource: &str) {
    let full = format!("{}/{resource}", names[account]);
    names.insert(format!("{account}/{resource}"), full);
}

impl<'a> Run<'a> {
    fn new(
        driver: &'a mut dyn Driver,
        locals: &BTreeMap<String, String>,
        components: &BTreeMap<String, String>,
    ) -> Run<'a> {
        let domain = driver.domain().to_owned();
        let mut names = Names::new();
        names.insert("domain".into(), domain.clone());
        names.insert("password".into(), PASSWORD.into());
        for (account, local) in locals {
            names.insert(account.clone(), format!("{local}@{domain}"));
            names.insert(format!("{account}.name"), local.clone());
            let message = encode_payload(&plain("", local, PASSWORD));
            names.insert(format!("{account}.plain"), message);
        }
        names.extend(components.clone());
        Run {
            driver,
            domain,
            accounts: Vec::new(),
            components: components.keys().cloned().collect(),
            names,
            sessions: BTreeMap::new(),
            busy: None,
            fences: 0,
            patience: PATIENCE,
            offered: BTreeSet::new(),
        }
    }

    fn step(&mut self, what: &What) -> Result<(), String> {
        match what {
            What::Contacts(one, other) => self.given(one, other, true),
            What::Follows(one, other) => self.given(one, other, false),
            What::EveryoneCatchesUp => {
                self.settle()?;
                self.sessions.values_mut().for_each(|session| session.inbox.clear());
                Ok(())
            }
            What::Passes(span) => {
                self.settle()?;
                self.driver.advance(*span)?;
                self.pump(Duration::ZERO);
                Ok(())
            }
            What::Does(client, act) => self.does(client, act),
        }
    }

    fn does(&mut self, client: &ClientName, act: &Act) -> Result<(), String> {
        if self.busy.as_ref().is_some_and(|busy| busy != client) && !is_reading(act) {
            self.settle()?;
        }
        match act {
            Act::Opens(how) => self.open(client, *how),
            Act::OpensStream(how) => {
                self.open(client, *how)?;
                self.send_header(client)
            }
            Act::Connects(how) => self.connect(client, *how),
            Act::Authenticates { mechanism } => self.authenticate(client, mechanism),
            Act::AuthenticatesInline { mechanism, token, elements } => {
                self.authenticate_inline(client, mechanism, token.as_deref(), elements)
            }
            Act::Binds { resource } => self.bind(client, resource),
            Act::LogsIn { resource } => self.log_in(client, resource),
            Act::Online { resource, priority } => {
                self.online(client, resource, priority.as_deref())
            }
            Act::Sends(elements) => {
                for element in elements {
                    self.set_own(client);
                    let element = pattern::fill_element(element, &self.names)?;
                    self.send(client, &element)?;
                }
                Ok(())
            }
            Act::SendsText(text) => {
                self.set_own(client);
                let text = pattern::fill(text, &self.names)?;
                let conn = self.session(client)?.conn.ok_or("is not connected")?;
                self.driver.send(conn, text.as_bytes());
                self.busy = Some(client.clone());
                Ok(())
            }
            Act::Receives(patterns) => {
                patterns.iter().try_for_each(|pattern| self.expect(client, &[pattern]).map(drop))
            }
            Act::ReceivesInAnyOrder(patterns) => {
                let mut open: Vec<&Element> = patterns.iter().collect();
                while !open.is_empty() {
                    let place = self.expect(client, &open)?;
                    open.remove(place);
                }
                Ok(())
            }
            Act::ReceivesEither(patterns) => {
                self.expect(client, &patterns.iter().collect::<Vec<_>>()).map(drop)
            }
            Act::MayReceive(pattern) => {
                self.settle()?;
                if self.first_match(client, &[pattern])?.is_ok() {
                    self.session(client)?.inbox.pop_front();
                }
                Ok(())
            }
            Act::ReceivesNothing => {
                self.settle()?;
                self.nothing_left(client)
            }
            Act::Ignores(patterns) => {
                let session = self.sessions.entry(client.clone()).or_insert_with(Session::new);
                session.ignored.extend(patterns.iter().cloned());
                self.drop_ignored();
                Ok(())
            }
            Act::CatchesUp => {
                self.settle()?;
                self.session(client)?.inbox.clear();
                Ok(())
            }
            Act::IsAcknowledged => self.is_acknowledged(client),
            Act::AcknowledgesNothing => {
                self.session(client)?.management.is_silent = true;
                Ok(())
            }
            Act::Resumes => self.resume(client),
            Act::Drops => {
                self.settle()?;
                let conn = self.session(client)?.conn.take().ok_or("is not connected")?;
                self.driver.cut(conn);
                Ok(())
            }
            Act::Disconnects => self.disconnect(client),
            Act::IsClosed => {
                let is_closed = |run: &Run<'_>| run.sessions[client].conn.is_none();
                self.session(client)?;
                self.wait_for(is_closed, || "the server leaves the connection open".into())?;
                self.nothing_left(client)
            }
        }
    }

    /// Makes subscriptions as two users would, from two clients that are gone afterwards.
    fn given(&mut self, one: &str, other: &str, is_mutual: bool) -> Result<(), String> {
        let client = |account: &str| ClientName {
            account: account.to_owned(),
            connection: "given".to_owned(),
        };
        let (one, other) = (client(one), client(other));
        for client in [&one, &other] {
            self.online(client, &client.connection, None)?;
        }
        self.subscribe(&one, &other)?;
        if is_mutual {
            self.subscribe(&other, &one)?;
        }
        for client in [&one, &other] {
            self.disconnect(client)?;
            self.sessions.remove(client);
        }
        self.settle()
    }

    fn subscribe(&mut self, one: &ClientName, other: &ClientName) -> Result<(), String> {
        let address = |client: &ClientName| self.names[&client.account].clone();
        let (from, to) = (address(one), address(other));
        let presence = |to: &str, kind: &str| {
            Element::new("presence", ns::CLIENT).with_attr("to", to).with_attr("type", kind)
        };
        let is = |it: &Element, kind: &str, from: &str| {
            it.name == "presence" && it.attr("type") == Some(kind) && it.attr("from") == Some(from)
        };
        self.send(one, &presence(&to, "subscribe"))?;
        self.take_one(other, "the request", |it, _| is(it, "subscribe", &from))?;
        self.send(other, &presence(&from, "subscribed"))?;
        self.take_one(one, "the approval", |it, _| is(it, "subscribed", &to))?;
        self.settle()
    }

    // ---- sending and receiving

    fn session(&mut self, client: &ClientName) -> Result<&mut Session, String> {
        self.sessions
            .get_mut(client)
            .ok_or_else(|| format!("{} {} has not connected", client.account, client.connection))
    }

    /// `{h}` and `{fast}` are of whoever speaks.
    fn set_own(&mut self, client: &ClientName) {
        let Some(session) = self.sessions.get(client) else { return };
        self.names.insert("h".into(), session.management.received.to_string());
        let fast = session.offer().fast;
        let usable = ["HT-SHA-256-EXPR", "HT-SHA-256-NONE"];
        if let Some(name) = usable.into_iter().find(|name| fast.iter().any(|it| it == name)) {
            self.names.insert("fast".into(), name.into());
        }
    }

    fn send(&mut self, client: &ClientName, element: &Element) -> Result<(), String> {
        let text = xml::write(element);
        let session = self.session(client)?;
        let conn = session.conn.ok_or("is not connected")?;
        session.sends(element, &text);
        self.driver.send(conn, text.as_bytes());
        self.busy = Some(client.clone());
        Ok(())
    }

    /// Takes in what has arrived; waits for something if nothing has.
    ///
    /// - gives: whether anything has
    fn pump(&mut self, mut wait: Duration) -> bool {
        let mut is_any = false;
        while let Some((conn, event)) = self.driver.next(wait) {
            wait = Duration::ZERO;
            is_any = true;
            let found = self.sessions.values_mut().find(|session| session.conn == Some(conn));
            let Some(session) = found else { continue };
            match event {
                Event::Closed => session.conn = None,
                Event::Bytes(bytes) => {
                    let (answers, fences) = session.receive(&bytes, &self.domain);
                    for answer in answers {
                        let text = xml::write(&answer);
                        session.sends(&answer, &text);
                        self.driver.send(conn, text.as_bytes());
                    }
                    // The answer may come to another connection of the component that has asked.
                    for session in self.sessions.values_mut() {
                        fences.iter().for_each(|id| _ = session.fences.remove(id));
                    }
                }
            }
        }
        self.drop_ignored();
        is_any
    }

    fn drop_ignored(&mut self) {
        for (client, session) in &mut self.sessions {
            if session.ignored.is_empty() {
                continue;
            }
            let receiver = receiver(&self.names, &self.domain, client, session);
            let (ignored, names) = (&session.ignored, &self.names);
            session.inbox.retain(|element| {
                !ignored
                    .iter()
                    .any(|pattern| pattern::match_root(pattern, element, &receiver, names).is_ok())
            });
        }
    }

    fn wait_for(
        &mut self,
        is_there: impl Fn(&Run<'_>) -> bool,
        otherwise: impl Fn() -> String,
    ) -> Result<(), String> {
        let until = Instant::now() + self.patience;
        loop {
            if is_there(self) {
                return Ok(());
            }
            let left = until.saturating_duration_since(Instant::now());
            if !self.pump(left) {
                return Err([otherwise(), self.unread()].concat());
            }
        }
    }

    /// What everybody has received and nobody has looked at, for the report of a fault.
    fn unread(&self) -> String {
        let mut text = String::new();
        for (client, session) in &self.sessions {
            let who = format!("\n  {} {}", client.account, client.connection);
            if let Some(fault) = session.fault() {
                text += &format!("{who}: {fault}");
            }
            for element in &session.inbox {
                text += &format!("{who} has unread: {}", xml::write(element));
            }
        }
        text
    }

    /// The next element, whatever it is.
    fn next(&mut self, client: &ClientName) -> Result<Element, String> {
        self.wait_for_any(client)?;
        self.session(client)?.inbox.pop_front().ok_or_else(|| "the connection is closed".into())
    }

    fn wait_for_any(&mut self, client: &ClientName) -> Result<(), String> {
        self.session(client)?;
        let is_there = |run: &Run<'_>| {
            let session = &run.sessions[client];
            !session.inbox.is_empty() || session.conn.is_none() || session.fault().is_some()
        };
        self.wait_for(is_there, || "nothing comes".into())
    }

    /// Whether the oldest unread element is like one of the patterns: which, and what it captures.
    fn first_match(
        &mut self,
        client: &ClientName,
        patterns: &[&Element],
    ) -> Result<Result<(usize, Names), String>, String> {
        let session = self.sessions.get(client).ok_or("has not connected")?;
        let receiver = receiver(&self.names, &self.domain, client, session);
        let Some(element) = session.inbox.front() else {
            let cause = session.fault().unwrap_or("the connection is closed");
            return Ok(Err(cause.to_owned()));
        };
        let mut faults = Vec::new();
        for (place, pattern) in patterns.iter().enumerate() {
            match pattern::match_root(pattern, element, &receiver, &self.names) {
                Ok(names) => return Ok(Ok((place, names))),
                Err(fault) => faults.push(fault),
            }
        }
        Ok(Err(format!("  received {}\n  {}", xml::write(element), faults.join("\n  "))))
    }

    /// The next element is like one of the patterns: gives which.
    fn expect(&mut self, client: &ClientName, patterns: &[&Element]) -> Result<usize, String> {
        let told = |patterns: &[&Element]| {
            let texts: Vec<String> = patterns.iter().map(|one| xml::write(one)).collect();
            format!("  expected {}", texts.join("\n        or "))
        };
        self.wait_for_any(client).map_err(|what| format!("{}\n  {what}", told(patterns)))?;
        match self.first_match(client, patterns)? {
            Ok((place, names)) => {
                self.names = names;
                self.session(client)?.inbox.pop_front();
                Ok(place)
            }
            Err(what) => Err(format!("{}\n{what}{}", told(patterns), self.unread())),
        }
    }

    fn nothing_left(&mut self, client: &ClientName) -> Result<(), String> {
        let session = self.session(client)?;
        if let Some(fault) = session.fault() {
            return Err(fault.to_owned());
        }
        match session.inbox.front() {
            None => Ok(()),
            Some(_) => Err(format!("more has come than was expected{}", self.unread())),
        }
    }

    // ---- quiet

    /// Waits until all that was done has had its consequences: pings go from every client to the server, to every
    /// account and to every other client, behind whatever went there before, and come back.
    fn settle(&mut self) -> Result<(), String> {
        self.pump(Duration::ZERO);
        if self.busy.take().is_none() {
            return Ok(());
        }
        for _ in 0..FENCE_ROUNDS {
            self.fence()?;
        }
        self.busy = None;
        Ok(())
    }

    fn fence(&mut self) -> Result<(), String> {
        let is_awake = |session: &&Session| session.is_bound() && !session.is_inactive;
        let full = self.sessions.values().filter(is_awake).filter_map(|it| it.jid.clone());
        let bare_jids = self.accounts.iter().map(|account| self.names[account].clone());
        let targets: Vec<String> = full.chain(bare_jids).chain([self.domain.clone()]).collect();
        let asking: Vec<ClientName> = self
            .sessions
            .iter()
            .filter(|(_, session)| is_awake(session))
            .map(|(client, _)| client.clone())
            .collect();
        for client in &asking {
            let own = self.sessions[client].jid.clone().unwrap_or_default();
            for target in &targets {
                if *target == own || *target == bare(&own) {
                    continue;
                }
                self.fences += 1;
                let id = format!("{FENCE}{}", self.fences);
                let ping = Element::new("ping", "urn:xmpp:ping");
                let mut ping = request("get", &id).with_attr("to", target).with_child(ping);
                let session = self.session(client)?;
                if let Some(own) = &session.component {
                    ping.set_attr("from", own);
                }
                session.fences.insert(id);
                self.send(client, &ping)?;
            }
        }
        let is_done = |run: &Run<'_>| {
            asking.iter().all(|client| {
                let session = &run.sessions[client];
                session.fences.is_empty() || session.conn.is_none()
            })
        };
        self.wait_for(is_done, || "a ping has no answer".into())
    }

    fn end(mut self) -> Result<(), String> {
        self.settle()?;
        let clients: Vec<ClientName> = self.sessions.keys().cloned().collect();
        clients.iter().try_for_each(|client| self.nothing_left(client))
    }
}

fn is_reading(act: &Act) -> bool {
    matches!(
        act,
        Act::Receives(_)
            | Act::ReceivesInAnyOrder(_)
            | Act::ReceivesEither(_)
            | Act::Ignores(_)
            | Act::AcknowledgesNothing
            | Act::IsClosed
    )
}

fn request(kind: &str, id: &str) -> Element {
    Element::new("iq", ns::CLIENT).with_attr("type", kind).with_attr("id", id)
}

fn receiver(names: &Names, domain: &str, client: &ClientName, session: &Session) -> Receiver {
    Receiver {
        domain: domain.to_owned(),
        bare: names[&client.account].clone(),
        full: session.jid.clone().unwrap_or_default(),
    }
}
