//! Open loop: messages leave at planned moments whatever the server does, and latency counts from the plan.

use std::time::{Duration, Instant};

use crate::engine::PATIENCE;
use crate::fleet::{FirstClosed, check_closed, note_closed};
use crate::pairs::{Address, Arrival, Template, arrival, template_for};
use crate::scan::Element;
use crate::{ClientId, Control, Engine, Error, Fleet, Histogram, Scenario, ServerProbe, sys};

/// One open-loop run.
#[derive(Clone, Debug)]
pub struct RateConfig {
    /// Pairs over whose both directions the messages go round.
    pub pairs: usize,
    pub per_second: f64,
    pub body_bytes: usize,
    pub address: Address,
    /// Sent but not measured.
    pub warm_up: Duration,
    pub duration: Duration,
    /// Whose CPU time is read over the measured part.
    pub server: Option<ServerProbe>,
}

/// What the run showed; only messages planned in the measured part count.
#[derive(Clone, Debug, Default)]
pub struct RateReport {
    /// From the planned moment to the moment the receiver had read it.
    pub response: Histogram,
    /// From the planned moment to the write: how late the generator itself was.
    pub lateness: Histogram,
    pub sent: u64,
    pub server_cpu: Option<Duration>,
    pub generator_cpu: Duration,
}

impl RateReport {
    /// Whether the generator's own delay is small beside what it measured (a tenth of the p99, or 1 ms).
    pub fn is_valid(&self) -> bool {
        let limit = Duration::from_millis(1).min(self.response.quantile(0.99) / 2);
        self.lateness.quantile(0.99) <= limit.max(Duration::from_micros(100))
    }
}

impl Fleet {
    /// Sends at the planned rate, waits until everything has arrived, and reports.
    ///
    /// - errors: a session that ends, a message that bounces, nothing arriving for 30 s
    pub fn run_rate(&mut self, config: &RateConfig) -> Result<RateReport, Error> {
        if config.pairs == 0 || config.pairs * 2 > self.clients.len() || config.per_second <= 0.0 {
            return Err(Error::Config("a rate and at least one pair are needed".to_owned()));
        }
        let templates = (0..config.pairs * 2).map(|at| {
            let (from, to) = (self.clients[at], self.clients[at ^ 1]);
            let engine = &self.engine;
            (from, template_for(engine, from, to, config.address, config.body_bytes))
        });
        let count = |time: Duration| (time.as_secs_f64() * config.per_second).round() as u64;
        let measured_from = count(config.warm_up);
        let mut run = Run {
            templates: templates.collect(),
            period: Duration::from_secs_f64(1.0 / config.per_second),
            measured_from,
            total: measured_from + count(config.duration),
            begun: None,
            sent: 0,
            received: 0,
            moved: Instant::now(),
            bounced: false,
            closed: None,
            cpu: None,
            report: RateReport::default(),
            config: config.clone(),
        };
        self.engine.run(&mut run)?;
        Ok(run.report)
    }
}

struct Run {
    config: RateConfig,
    templates: Vec<(ClientId, Template)>,
    period: Duration,
    /// Number of the first message that counts.
    measured_from: u64,
    total: u64,
    begun: Option<Instant>,
    sent: u64,
    received: u64,
    moved: Instant,
    bounced: bool,
    closed: FirstClosed,
    cpu: Option<(Option<Duration>, Duration)>,
    report: RateReport,
}

impl Run {
    /// The planned moment of a message.
    fn planned(&self, begun: Instant, number: u64) -> Instant {
        begun + Duration::from_secs_f64(self.period.as_secs_f64() * number as f64)
    }

    fn cpu(&self) -> Result<(Option<Duration>, Duration), Error> {
        let server = self.config.server.map(|probe| probe.cpu()).transpose()?;
        Ok((server, sys::thread_cpu().map_err(|error| Error::Io("own CPU clock", error))?))
    }
}

impl Scenario for Run {
    fn on_stanza(&mut self, client: ClientId, stanza: &Element<'_>, at: Instant) {
        match arrival(stanza, self.config.body_bytes) {
            Arrival::Message { sender, number }
                if sender == client.index() ^ 1 && number < self.sent =>
            {
                self.received += 1;
                self.moved = at;
                if let (Some(begun), true) = (self.begun, number >= self.measured_from) {
                    let planned = self.planned(begun, number);
                    self.report.response.record(at.saturating_duration_since(planned));
                }
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
        let begun = *self.begun.get_or_insert(now);
        while self.sent < self.total && self.planned(begun, self.sent) <= now {
            if self.sent == self.measured_from {
                self.cpu = Some(self.cpu()?);
            }
            if self.sent >= self.measured_from {
                let planned = self.planned(begun, self.sent);
                self.report.lateness.record(now.saturating_duration_since(planned));
                self.report.sent += 1;
            }
            let (from, template) =
                &self.templates[(self.sent % self.templates.len() as u64) as usize];
            engine.send(*from, 1, |out| template.write(self.sent, out));
            self.sent += 1;
        }
        if self.sent < self.total {
            return Ok(Control::Until(self.planned(begun, self.sent)));
        }
        if self.received >= self.total {
            if let Some((server, generator)) = self.cpu {
                let (server_end, generator_end) = self.cpu()?;
                self.report.server_cpu = server_end.zip(server).map(|(end, begin)| end - begin);
                self.report.generator_cpu = generator_end - generator;
            }
            return Ok(Control::Done);
        }
        if now > self.moved + PATIENCE {
            let missing = self.total - self.received;
            return Err(Error::Stalled {
                waiting_for: format!("{missing} of {} messages", self.total),
            });
        }
        Ok(Control::Until(now + Duration::from_millis(50)))
    }
}
