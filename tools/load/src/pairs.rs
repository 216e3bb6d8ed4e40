//! Closed loop: the sessions 2k and 2k+1 chat, each with a fixed number of messages under way to the other.
//!
//! Both ends live in this process, so a sender has its credit back when the receiver has read the message; credits that
//! come back in one turn leave as one write. Tells capacity and cost, not latency: a slow server is asked less.

use std::time::{Duration, Instant};

use crate::engine::PATIENCE;
use crate::fleet::{FirstClosed, check_closed, note_closed};
use crate::scan::{Element, escape};
use crate::{ClientId, Control, Engine, Error, Fleet, Scenario, ServerProbe, sys};

/// How a message is addressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Address {
    /// To the session, as clients do within a conversation (RFC 6121 §5.1).
    #[default]
    Full,
    /// To the account, as the first message of a conversation.
    Bare,
}

/// One closed-loop run.
#[derive(Clone, Debug)]
pub struct PairsConfig {
    /// Pairs that chat; the other sessions stay silent.
    pub pairs: usize,
    /// Messages sent and not yet received, per direction.
    pub window: u32,
    pub body_bytes: usize,
    pub address: Address,
    /// Not measured.
    pub warm_up: Duration,
    /// Measured.
    pub duration: Duration,
    /// Ends the measured part earlier, after so many messages.
    pub messages: Option<u64>,
    /// Whose CPU time is read at both ends of the measured part.
    pub server: Option<ServerProbe>,
}

/// What the measured part showed.
#[derive(Clone, Debug, Default)]
pub struct PairsReport {
    /// Messages received.
    pub messages: u64,
    pub elapsed: Duration,
    pub server_cpu: Option<Duration>,
    pub generator_cpu: Duration,
    /// Of the whole run: arrived with a number other than the next one of its sender.
    pub misordered: u64,
}

impl PairsReport {
    pub fn per_second(&self) -> f64 {
        self.messages as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// The server's CPU time per message, in µs.
    pub fn server_us(&self) -> Option<f64> {
        self.server_cpu.map(|cpu| self.us(cpu))
    }

    /// The generator's CPU time per message, in µs.
    pub fn generator_us(&self) -> f64 {
        self.us(self.generator_cpu)
    }

    /// What happened between two marks.
    pub(crate) fn fill(&mut self, first: &Mark, last: &Mark) {
        self.messages = last.received - first.received;
        self.elapsed = last.at - first.at;
        self.server_cpu = last.server.zip(first.server).map(|(end, begin)| end - begin);
        self.generator_cpu = last.generator - first.generator;
    }

    fn us(&self, cpu: Duration) -> f64 {
        cpu.as_secs_f64() * 1e6 / self.messages.max(1) as f64
    }
}

impl Fleet {
    /// Chats, waits until everything sent has arrived, and reports.
    ///
    /// - errors: a session that ends, a message that bounces, nothing arriving for 30 s
    pub fn run_pairs(&mut self, config: &PairsConfig) -> Result<PairsReport, Error> {
        let mut chat = Chat::new(&self.engine, &self.clients, config)?;
        self.engine.run(&mut chat)?;
        Ok(chat.report)
    }
}

/// What every message of a sender shares, so that sending one is copying.
pub(crate) struct Template {
    open: Vec<u8>,
    close: Vec<u8>,
}

impl Template {
    /// Messages of client number `sender` to `to`.
    pub(crate) fn new(sender: ClientId, to: &str, body_bytes: usize) -> Self {
        Self::begun(b"<message type='chat' to='".to_vec(), sender, to, body_bytes)
    }

    /// Messages of the component `domain` to client number `recipient`, whose numbers they carry.
    pub(crate) fn from_component(
        domain: &str,
        recipient: ClientId,
        to: &str,
        body_bytes: usize,
    ) -> Self {
        let open = format!("<message type='chat' from='{domain}' to='").into_bytes();
        Self::begun(open, recipient, to, body_bytes)
    }

    fn begun(mut open: Vec<u8>, sender: ClientId, to: &str, body_bytes: usize) -> Self {
        escape(to, &mut open);
        open.extend_from_slice(format!("' id='{:x}.", sender.index()).as_bytes());
        let mut close = b"'><body>".to_vec();
        close.extend((0..body_bytes).map(|at| b'a' + (at % 26) as u8));
        close.extend_from_slice(b"</body></message>");
        Self { open, close }
    }

    pub(crate) fn write(&self, number: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.open);
        let digits = (u64::BITS - (number | 1).leading_zeros()).div_ceil(4);
        for digit in (0..digits).rev() {
            out.push(b"0123456789abcdef"[(number >> (digit * 4)) as usize & 15]);
        }
        out.extend_from_slice(&self.close);
    }
}

/// What a received stanza is to a run.
pub(crate) enum Arrival {
    /// Message `number` of client `sender`, with a body of so many bytes.
    Message {
        sender: usize,
        number: u64,
    },
    Bounce,
    Other,
}

/// Reads a message made by a [`Template`]; a body of another length than sent counts as a bounce.
pub(crate) fn arrival(stanza: &Element<'_>, body_bytes: usize) -> Arrival {
    if stanza.name() != b"message" {
        return Arrival::Other;
    }
    let hex = |digits: &[u8]| {
        digits.iter().try_fold(0u64, |value, digit| {
            Some(value << 4 | u64::from((*digit as char).to_digit(16)?))
        })
    };
    let read = || {
        let id = stanza.attribute("id")?;
        let dot = id.iter().position(|byte| *byte == b'.')?;
        let sender = usize::try_from(hex(&id[..dot])?).ok()?;
        Some(Arrival::Message { sender, number: hex(&id[dot + 1..])? })
    };
    match stanza.attribute("type") {
        Some(b"error") => Arrival::Bounce,
        _ => match (read(), stanza.child("body")) {
            (Some(message), Some(body)) if body.content().len() == body_bytes => message,
            (Some(_), Some(_)) => Arrival::Bounce,
            _ => Arrival::Other,
        },
    }
}

pub(crate) fn template_for(
    engine: &Engine,
    from: ClientId,
    to: ClientId,
    address: Address,
    body_bytes: usize,
) -> Template {
    let jid = engine.jid(to);
    let jid = match address {
        Address::Full => jid,
        Address::Bare => jid.split('/').next().unwrap_or(jid),
    };
    Template::new(from, jid, body_bytes)
}

struct Side {
    id: ClientId,
    template: Template,
    credits: u32,
    sent: u64,
    /// Number of the next message from the partner.
    expected: u64,
}

/// Both ends of the measured part.
pub(crate) struct Mark {
    pub(crate) at: Instant,
    received: u64,
    server: Option<Duration>,
    generator: Duration,
}

impl Mark {
    pub(crate) fn take(
        at: Instant,
        received: u64,
        server: Option<ServerProbe>,
    ) -> Result<Self, Error> {
        Ok(Self {
            at,
            received,
            server: server.map(|probe| probe.cpu()).transpose()?,
            generator: sys::thread_cpu().map_err(|error| Error::Io("own CPU clock", error))?,
        })
    }
}

struct Chat {
    config: PairsConfig,
    sides: Vec<Side>,
    /// Sides with credits, by index.
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

impl Chat {
    fn new(engine: &Engine, clients: &[ClientId], config: &PairsConfig) -> Result<Self, Error> {
        if config.pairs == 0 || config.window == 0 || config.pairs * 2 > clients.len() {
            return Err(Error::Config(format!(
                "{} pairs with a window of {} need two sessions each of the {}",
                config.pairs,
                config.window,
                clients.len()
            )));
        }
        let sides = clients[..config.pairs * 2].iter().enumerate().map(|(at, id)| Side {
            id: *id,
            template: template_for(engine, *id, clients[at ^ 1], config.address, config.body_bytes),
            credits: config.window,
            sent: 0,
            expected: 0,
        });
        Ok(Self {
            sides: sides.collect(),
            due: (0..config.pairs as u32 * 2).collect(),
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

    fn measure(&mut self, now: Instant) -> Result<(), Error> {
        let begun = *self.begun.get_or_insert(now);
        let Some(first) = &self.first else {
            if now - begun >= self.config.warm_up {
                self.first = Some(Mark::take(now, self.received, self.config.server)?);
            }
            return Ok(());
        };
        let messages = self.received - first.received;
        let enough = self.config.messages.is_some_and(|wanted| messages >= wanted);
        if !enough && now - first.at < self.config.duration {
            return Ok(());
        }
        let last = Mark::take(now, self.received, self.config.server)?;
        self.report.fill(first, &last);
        self.stopped = true;
        Ok(())
    }
}

impl Scenario for Chat {
    fn on_stanza(&mut self, client: ClientId, stanza: &Element<'_>, _at: Instant) {
        let here = client.index();
        match arrival(stanza, self.config.body_bytes) {
            Arrival::Message { sender, number }
                if sender == here ^ 1 && here < self.sides.len() =>
            {
                self.received += 1;
                let side = &mut self.sides[here];
                self.report.misordered += u64::from(number != side.expected);
                side.expected = number + 1;
                let partner = &mut self.sides[sender];
                if partner.credits == 0 {
                    self.due.push(sender as u32);
                }
                partner.credits += 1;
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
        if self.stopped {
            let sent: u64 = self.sides.iter().map(|side| side.sent).sum();
            if self.received >= sent {
                return Ok(Control::Done);
            }
        } else {
            for index in self.due.drain(..) {
                let side = &mut self.sides[index as usize];
                let (credits, template) = (std::mem::take(&mut side.credits), &side.template);
                let first = side.sent;
                side.sent += u64::from(credits);
                engine.send(side.id, credits, |out| {
                    for number in first..first + u64::from(credits) {
                        template.write(number, out);
                    }
                });
            }
        }
        if self.moved.0 != self.received {
            self.moved = (self.received, now);
        } else if now > self.moved.1 + PATIENCE {
            let sent: u64 = self.sides.iter().map(|side| side.sent).sum();
            let missing = sent - self.received;
            return Err(Error::Stalled { waiting_for: format!("{missing} of {sent} messages") });
        }
        Ok(Control::Until(now + Duration::from_millis(20)))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_a_template_writes_is_read_back() {
        let mut engine = crate::fleet::tests::engine();
        let id = (0..20).map(|_| crate::fleet::tests::client(&mut engine)).last().unwrap();
        let template = Template::new(id, "a&b@c/d", 64);
        for number in [0, 1, 15, 16, 0xabc_def0, u64::MAX] {
            let mut bytes = Vec::new();
            template.write(number, &mut bytes);
            let element = Element::parse(&bytes).unwrap();
            assert_eq!(element.text_of("to").unwrap(), "a&b@c/d");
            let Arrival::Message { sender, number: read } = arrival(&element, 64) else {
                panic!("{}", String::from_utf8_lossy(&bytes));
            };
            assert_eq!((sender, read), (19, number));
            assert!(matches!(arrival(&element, 65), Arrival::Bounce));
        }
    }
}
