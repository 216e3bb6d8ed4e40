//! Closed loop: one service writes to all sessions of a fleet, each with a fixed number of messages under way.
//!
//! The service is an external component (XEP-0114) with one connection. What a message costs the server is to be held
//! against `pairs`, where as many sessions send as receive.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use ring::digest;

use crate::engine::PATIENCE;
use crate::fleet::{FirstClosed, check_closed, note_closed};
use crate::pairs::{Arrival, Mark, PairsReport, Template, arrival};
use crate::scan::Element;
use crate::{ClientId, Control, Engine, Error, Fleet, Scenario, ServerProbe};

/// Output that waits for the socket is bounded: above, no more is made.
const OUTPUT_MAX: usize = 1 << 20;

/// One run of a service.
#[derive(Clone, Debug)]
pub struct ServiceConfig {
    /// Where components connect.
    pub address: SocketAddr,
    pub domain: String,
    pub secret: String,
    /// Messages sent and not yet received, per session.
    pub window: u32,
    pub body_bytes: usize,
    /// Not measured.
    pub warm_up: Duration,
    /// Measured.
    pub duration: Duration,
    /// Whose CPU time is read at both ends of the measured part.
    pub server: ServerProbe,
}

impl Fleet {
    /// Connects the component, sends to every session, waits until everything sent has arrived, and reports.
    ///
    /// - errors: a handshake that is refused, a session or the component that ends, nothing arriving for 30 s
    pub fn run_service(&mut self, config: &ServiceConfig) -> Result<PairsReport, Error> {
        let mut service = Service::new(&self.engine, &self.clients, config)?;
        self.engine.run(&mut service)?;
        Ok(service.report)
    }
}

struct Recipient {
    template: Template,
    credits: u32,
    sent: u64,
    expected: u64,
}

struct Service {
    config: ServiceConfig,
    socket: TcpStream,
    output: Vec<u8>,
    recipients: Vec<Recipient>,
    /// Recipients with credits, by index.
    due: Vec<u32>,
    received: u64,
    begun: Option<Instant>,
    first: Option<Mark>,
    stopped: bool,
    moved: (u64, Instant),
    bounced: bool,
    closed: FirstClosed,
    report: PairsReport,
}

impl Service {
    fn new(engine: &Engine, clients: &[ClientId], config: &ServiceConfig) -> Result<Self, Error> {
        let socket = connect(config)?;
        let recipients = clients.iter().map(|id| Recipient {
            template: Template::from_component(
                &config.domain,
                *id,
                engine.jid(*id),
                config.body_bytes,
            ),
            credits: config.window,
            sent: 0,
            expected: 0,
        });
        Ok(Self {
            socket,
            output: Vec::new(),
            due: (0..clients.len() as u32).collect(),
            recipients: recipients.collect(),
            received: 0,
            begun: None,
            first: None,
            stopped: false,
            moved: (0, Instant::now()),
            bounced: false,
            closed: None,
            report: PairsReport::default(),
            config: config.clone(),
        })
    }

    fn sent(&self) -> u64 {
        self.recipients.iter().map(|recipient| recipient.sent).sum()
    }

    fn measure(&mut self, now: Instant) -> Result<(), Error> {
        let begun = *self.begun.get_or_insert(now);
        let Some(first) = &self.first else {
            if now - begun >= self.config.warm_up {
                self.first = Some(Mark::take(now, self.received, Some(self.config.server))?);
            }
            return Ok(());
        };
        if now - first.at >= self.config.duration {
            let last = Mark::take(now, self.received, Some(self.config.server))?;
            self.report.fill(first, &last);
            self.stopped = true;
        }
        Ok(())
    }

    /// Writes what is due, as far as the socket takes it, and drops what comes back, which is noted.
    fn exchange(&mut self) -> Result<(), Error> {
        let io = |error| Error::Io("the component's connection", error);
        let mut written = 0;
        while written < self.output.len() {
            match self.socket.write(&self.output[written..]) {
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(io(error)),
            }
        }
        self.output.drain(..written);
        let mut buffer = [0; 4096];
        match self.socket.read(&mut buffer) {
            Ok(0) => Err(Error::Server("the component's stream was closed".to_owned())),
            // A service that nobody writes to gets nothing but errors.
            Ok(count) => {
                self.bounced |= buffer[..count].iter().any(|byte| *byte != b' ');
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(io(error)),
        }
    }
}

impl Scenario for Service {
    fn on_stanza(&mut self, client: ClientId, stanza: &Element<'_>, _at: Instant) {
        let here = client.index();
        match arrival(stanza, self.config.body_bytes) {
            Arrival::Message { sender, number } if sender == here => {
                self.received += 1;
                let recipient = &mut self.recipients[here];
                self.report.misordered += u64::from(number != recipient.expected);
                recipient.expected = number + 1;
                if recipient.credits == 0 {
                    self.due.push(here as u32);
                }
                recipient.credits += 1;
            }
            Arrival::Bounce => self.bounced = true,
            _ => {}
        }
    }

    fn on_closed(&mut self, client: ClientId, cause: &str) {
        note_closed(&mut self.closed, client, cause);
    }

    fn turn(&mut self, engine: &mut Engine, now: Instant) -> Result<Control, Error> {
        check_closed(&mut self.closed, engine)?;
        if self.bounced {
            return Err(Error::Server("a message came back or arrived changed".to_owned()));
        }
        if !self.stopped {
            self.measure(now)?;
        }
        while !self.stopped
            && self.output.len() < OUTPUT_MAX
            && let Some(index) = self.due.pop()
        {
            let recipient = &mut self.recipients[index as usize];
            let credits = u64::from(std::mem::take(&mut recipient.credits));
            for number in recipient.sent..recipient.sent + credits {
                recipient.template.write(number, &mut self.output);
            }
            recipient.sent += credits;
        }
        self.exchange()?;
        if self.stopped && self.received >= self.sent() {
            return Ok(Control::Done);
        }
        if self.moved.0 != self.received {
            self.moved = (self.received, now);
        } else if now > self.moved.1 + PATIENCE {
            let missing = self.sent() - self.received;
            let waiting_for = format!("{missing} of {} messages", self.sent());
            return Err(Error::Stalled { waiting_for });
        }
        // The component's socket is not watched: a full one is tried again soon.
        let pause = if self.output.is_empty() { 20 } else { 1 };
        Ok(Control::Until(now + Duration::from_millis(pause)))
    }
}

/// XEP-0114 §3, on a socket that blocks until the component is in.
fn connect(config: &ServiceConfig) -> Result<TcpStream, Error> {
    let io = |error| Error::Io("connecting the component", error);
    let mut socket = TcpStream::connect(config.address).map_err(io)?;
    socket.set_nodelay(true).map_err(io)?;
    socket.set_read_timeout(Some(PATIENCE)).map_err(io)?;
    let header = format!(
        "<stream:stream xmlns='jabber:component:accept' to='{}' \
         xmlns:stream='http://etherx.jabber.org/streams'>",
        config.domain
    );
    socket.write_all(header.as_bytes()).map_err(io)?;
    let header = read_until(&mut socket, "stream:stream", ">")?;
    let id = header.split(" id='").nth(1).and_then(|rest| rest.split('\'').next());
    let id = id.ok_or_else(|| Error::Server(format!("no stream id: {header}")))?;
    let secret = format!("{id}{}", config.secret);
    let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
    let hash: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    socket.write_all(format!("<handshake>{hash}</handshake>").as_bytes()).map_err(io)?;
    let answer = read_until(&mut socket, "<", ">")?;
    if !answer.starts_with("<handshake") {
        return Err(Error::Server(format!("the component was refused: {answer}")));
    }
    socket.set_nonblocking(true).map_err(io)?;
    Ok(socket)
}

/// Reads byte by byte up to `end` behind `begin`, so that nothing that follows is taken.
fn read_until(socket: &mut TcpStream, begin: &str, end: &str) -> Result<String, Error> {
    let mut text = String::new();
    let mut byte = [0];
    while text.find(begin).is_none_or(|at| !text[at..].contains(end)) {
        let count =
            socket.read(&mut byte).map_err(|error| Error::Io("connecting the component", error))?;
        if count == 0 || text.len() > 4096 {
            return Err(Error::Server(format!("the component was refused: {text}")));
        }
        text.push(char::from(byte[0]));
    }
    Ok(text)
}
