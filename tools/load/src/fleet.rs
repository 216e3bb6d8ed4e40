//! A range of accounts, logged in over plain TCP to fill their rosters.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::engine::PATIENCE;
use crate::login::Way;
use crate::scan::Element;
use crate::sources::Sources;
use crate::{
    ClientConfig, ClientId, Control, Engine, EngineConfig, Error, Mechanism, Scenario, Tls,
};

const LOGINS_IN_FLIGHT: usize = 32;

/// Which accounts: `pattern` with `{}` replaced by `first`, `first + 1`, …
#[derive(Clone, Debug)]
pub struct Accounts {
    pub pattern: String,
    pub first: usize,
    pub count: usize,
    pub password: String,
}

impl Accounts {
    /// Name of the account at a place of the range.
    pub fn user(&self, index: usize) -> String {
        self.pattern.replace("{}", &(self.first + index).to_string())
    }
}

/// How the accounts of a fleet log in.
#[derive(Clone, Debug)]
pub struct FleetConfig {
    pub address: SocketAddr,
    pub domain: String,
    pub accounts: Accounts,
    pub mechanism: Mechanism,
}

/// Sessions that stay up together: if one ends, what they are for fails.
pub struct Fleet {
    engine: Engine,
    clients: Vec<ClientId>,
}

impl Fleet {
    /// Logs all accounts in.
    ///
    /// - errors: a login that fails, no login complete for 30 s, too few descriptors
    pub fn connect(config: &FleetConfig) -> Result<Self, Error> {
        let mut engine = Engine::new(EngineConfig {
            address: config.address,
            domain: config.domain.clone(),
            tls: Tls::None,
            mechanism: Some(config.mechanism),
            way: Way::Classic,
            fail_over: false,
            sources: Sources::default(),
            login_in_flight: LOGINS_IN_FLIGHT,
            sm_request_every: 1,
        })?;
        let password: Rc<str> = config.accounts.password.as_str().into();
        let mut clients = Vec::with_capacity(config.accounts.count);
        for index in 0..config.accounts.count {
            let id = engine.add(ClientConfig {
                user: config.accounts.user(index),
                password: Rc::clone(&password),
                resource: "load".to_owned(),
                presence: true,
                ..ClientConfig::default()
            })?;
            engine.start(id);
            clients.push(id);
        }
        let begin = Instant::now();
        let mut logins = Logins { left: clients.len(), moved: begin, closed: None };
        engine.run(&mut logins)?;
        Ok(Self { engine, clients })
    }

    /// Gives each account `contacts` contacts in a group, and waits until the server has them all.
    ///
    /// - errors: a session that ends, a contact that is refused, nothing done for 30 s
    pub fn fill_rosters(&mut self, contacts: usize) -> Result<(), Error> {
        for id in &self.clients {
            self.engine.send(*id, u32::try_from(contacts).unwrap_or(u32::MAX), |out| {
                for contact in 0..contacts {
                    let item = format!(
                        "<iq type='set' id='roster-{contact}'><query xmlns='jabber:iq:roster'>\
                         <item jid='contact{contact}@contacts.example' name='Contact {contact}'>\
                         <group>Friends</group></item></query></iq>"
                    );
                    out.extend_from_slice(item.as_bytes());
                }
            });
        }
        let left = self.clients.len() * contacts;
        let mut filling = Filling { left, moved: Instant::now(), refused: false, closed: None };
        self.engine.run(&mut filling)
    }

    /// Ends all streams in order; after 5 s the rest are dropped.
    pub fn close(mut self) -> Result<(), Error> {
        for id in &self.clients {
            self.engine.close(*id);
        }
        let mut closing =
            Closing { left: self.clients.len(), until: Instant::now() + Duration::from_secs(5) };
        self.engine.run(&mut closing)
    }
}

/// The first connection that ended although it should not have.
type FirstClosed = Option<(ClientId, String)>;

fn note_closed(closed: &mut FirstClosed, client: ClientId, cause: &str) {
    closed.get_or_insert_with(|| (client, cause.to_owned()));
}

fn check_closed(closed: &mut FirstClosed, engine: &Engine) -> Result<(), Error> {
    match closed.take() {
        Some((client, cause)) => Err(Error::Closed { user: engine.user(client).to_owned(), cause }),
        None => Ok(()),
    }
}

struct Logins {
    left: usize,
    moved: Instant,
    closed: FirstClosed,
}

impl Scenario for Logins {
    fn on_ready(&mut self, _client: ClientId) {
        self.left -= 1;
        self.moved = Instant::now();
    }

    fn on_stanza(&mut self, _client: ClientId, _stanza: &Element<'_>, _at: Instant) {}

    fn on_closed(&mut self, client: ClientId, cause: &str) {
        note_closed(&mut self.closed, client, cause);
    }

    fn turn(&mut self, engine: &mut Engine, now: Instant) -> Result<Control, Error> {
        check_closed(&mut self.closed, engine)?;
        if self.left == 0 {
            return Ok(Control::Done);
        }
        let deadline = self.moved + PATIENCE;
        if now > deadline {
            return Err(Error::Stalled { waiting_for: format!("{} logins", self.left) });
        }
        Ok(Control::Until(deadline + Duration::from_millis(1)))
    }
}

struct Filling {
    left: usize,
    moved: Instant,
    refused: bool,
    closed: FirstClosed,
}

impl Scenario for Filling {
    fn on_stanza(&mut self, _client: ClientId, stanza: &Element<'_>, at: Instant) {
        if stanza.attribute("id").is_some_and(|id| id.starts_with(b"roster-")) {
            self.refused |= stanza.attribute("type") != Some(b"result");
            self.left = self.left.saturating_sub(1);
            self.moved = at;
        }
    }

    fn on_closed(&mut self, client: ClientId, cause: &str) {
        note_closed(&mut self.closed, client, cause);
    }

    fn turn(&mut self, engine: &mut Engine, now: Instant) -> Result<Control, Error> {
        check_closed(&mut self.closed, engine)?;
        if self.refused {
            return Err(Error::Config("the server refuses a contact in a roster".to_owned()));
        }
        if self.left == 0 {
            return Ok(Control::Done);
        }
        let deadline = self.moved + PATIENCE;
        if now > deadline {
            return Err(Error::Stalled { waiting_for: format!("{} contacts", self.left) });
        }
        Ok(Control::Until(deadline + Duration::from_millis(1)))
    }
}

struct Closing {
    left: usize,
    until: Instant,
}

impl Scenario for Closing {
    fn on_stanza(&mut self, _client: ClientId, _stanza: &Element<'_>, _at: Instant) {}

    fn on_closed(&mut self, _client: ClientId, _cause: &str) {
        self.left -= 1;
    }

    fn turn(&mut self, _engine: &mut Engine, now: Instant) -> Result<Control, Error> {
        let done = self.left == 0 || now >= self.until;
        Ok(if done { Control::Done } else { Control::Until(self.until) })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn refused_connections_fail_the_login_of_a_fleet() {
        let accounts = Accounts {
            pattern: "user{}".to_owned(),
            first: 7,
            count: 2,
            password: "secret".to_owned(),
        };
        assert_eq!(accounts.user(1), "user8");
        // Port 1 of loopback: nobody listens there.
        let config = FleetConfig {
            address: ([127, 0, 0, 1], 1).into(),
            domain: "localhost".to_owned(),
            accounts,
            mechanism: Mechanism::ScramSha256,
        };
        let error = Fleet::connect(&config).err().unwrap().to_string();
        assert!(error.contains("connection of user") && error.contains("refused"), "{error}");
    }
}
