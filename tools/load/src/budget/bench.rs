//! How each row is measured: a server, a scenario that the load tool runs against it, and one figure of what it showed.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use super::options::{Options, Target};
use super::scenario::{self, Chat, REPEATS, Stretch, measured};
use crate::cost::Costs;
use crate::launch::{Corefire, ScratchDir, Server};
use crate::plan::{Plan, Request};
use crate::record::{Operation, Outcome};
use crate::run::{self, ServerWatch, Unwatched};
use crate::{Accounts, Error, Fleet, FleetConfig, ServerProbe};

const WARM_UP_SESSIONS: usize = 16;
/// After the warm-up: a server's first interval of measuring is over, whose buffers are no session's.
const SETTLED: Duration = Duration::from_secs(12);
const LOGIN_SESSIONS: Scale = Scale { full: 1000, quick: 200 };
const IDLE_SESSIONS: Scale = Scale { full: 2000, quick: 400 };
const ACCOUNTS: Scale = Scale { full: 2064, quick: 464 };
const CHAT_SESSIONS: usize = 200;
const PER_SECOND: u32 = 2000;

struct Scale {
    full: usize,
    quick: usize,
}

impl Options {
    fn scaled(&self, scale: &Scale) -> usize {
        if self.quick { scale.quick } else { scale.full }
    }
}

/// A measured value.
pub(super) struct Figure {
    pub(super) value: f64,
    pub(super) samples: u64,
    pub(super) note: String,
}

pub(super) struct Bench {
    pub(super) options: Options,
    corefire: Option<(Corefire, ScratchDir)>,
}

/// A server under measurement; a started one ends with it.
struct Running {
    server: Option<Server>,
    probe: ServerProbe,
}

impl Running {
    fn stop(self) -> Result<(), Error> {
        self.server.map_or(Ok(()), Server::stop)
    }
}

/// What a row asks the tool for.
struct Wish {
    scenario: String,
    tls: bool,
    window: Option<u32>,
    component: Option<SocketAddr>,
}

impl Wish {
    fn open(scenario: String, tls: bool) -> Self {
        Self { scenario, tls, window: None, component: None }
    }
}

impl Bench {
    pub(super) fn new(options: Options) -> Result<Self, Error> {
        let Target::Started { binary, sets } = &options.target else {
            return Ok(Self { options, corefire: None });
        };
        let data_dir = ScratchDir::new("corefire-e2e")?;
        let corefire = Corefire::new(binary, data_dir.path(), sets)?;
        let accounts = (0..options.scaled(&ACCOUNTS)).map(|index| {
            format!("{}@{}", options.users.replace("{}", &index.to_string()), options.domain)
        });
        corefire.import(accounts, &options.password)?;
        Ok(Self { options, corefire: Some((corefire, data_dir)) })
    }

    pub(super) fn is_foreign(&self) -> bool {
        self.corefire.is_none()
    }

    /// The server, where it was there before.
    pub(super) fn running(&self) -> Result<Option<ServerProbe>, Error> {
        match self.options.target {
            Target::Running { pid, .. } => ServerProbe::new(pid).map(Some),
            Target::Started { .. } => Ok(None),
        }
    }

    fn start_with(&self, sets: &[&str]) -> Result<Running, Error> {
        let (server, probe) = match (&self.corefire, self.running()?) {
            (None, Some(probe)) => (None, probe),
            (Some((corefire, _)), _) => {
                let sets: Vec<_> = sets.iter().map(|set| (*set).to_owned()).collect();
                let server = corefire.start(&self.options.server_cores, &sets)?;
                let probe = server.probe()?;
                (Some(server), probe)
            }
            (None, None) => return Err(Error::Config("no server".to_owned())),
        };
        Ok(Running { server, probe })
    }

    fn address(&self, tls: bool) -> Result<SocketAddr, Error> {
        let tls = tls && self.options.direct_tls();
        match (&self.corefire, &self.options.target) {
            (Some((corefire, _)), _) if tls => Ok(corefire.direct_tls),
            (Some((corefire, _)), _) => Ok(corefire.plain),
            (None, Target::Running { direct_tls: Some(address), .. }) if tls => Ok(*address),
            (None, Target::Running { plain, .. }) => Ok(*plain),
            (None, Target::Started { .. }) => Err(Error::Config("no server".to_owned())),
        }
    }

    /// - errors: the run could not be made, ended early, or lost or changed a message
    fn run(&self, running: &Running, wish: &Wish) -> Result<Outcome, Error> {
        let address = self.address(wish.tls)?;
        let target = crate::plan::Target { address, domain: self.options.domain.clone() };
        let request = Request {
            closed: wish.window,
            component: wish.component,
            ..Request::new("budget", &wish.scenario, vec![target])
        };
        let plan = Plan::new(&request).map_err(|error| Error::Config(format!("{error:?}")))?;
        let watch = ServerWatch::new(running.probe.pid())?;
        let outcome = run::run(&plan, &request, Some(watch), &mut Unwatched)
            .map_err(|error| Error::Server(error.to_string()))?;
        if let Some(cause) = &outcome.verdict.aborted {
            return Err(Error::Server(cause.clone()));
        }
        let sent = &outcome.ledger.sent;
        if sent.lost + sent.bounced + sent.corrupted > 0 {
            return Err(Error::Server(format!(
                "of {} messages {} were lost, {} came back, {} arrived changed",
                sent.messages, sent.lost, sent.bounced, sent.corrupted
            )));
        }
        let online = outcome.intervals.iter().map(|it| it.online).max().unwrap_or_default();
        if online < plan.scenario.users() {
            let users = plan.scenario.users();
            return Err(Error::Server(format!("{online} of {users} users were online at most")));
        }
        Ok(outcome)
    }

    pub(super) fn chat(&self, chat: &Chat, sets: &[&str]) -> Result<Figure, Error> {
        let running = self.start_with(sets)?;
        let scenario = scenario::chat(&self.options, chat);
        let wish = Wish { window: Some(chat.window), ..Wish::open(scenario, chat.tls) };
        let outcome = self.run(&running, &wish)?;
        running.stop()?;
        Ok(per_message(&outcome))
    }

    pub(super) fn service(&self) -> Result<Figure, Error> {
        let (domain, secret) = ("service.example", "secret");
        let address = crate::launch::free_address()?;
        let listen = format!("components.listen=[\"{address}\"]");
        let secrets = format!("components.secrets.\"{domain}\"={secret}");
        let running = self.start_with(&[&listen, &secrets])?;
        let scenario = scenario::service(&self.options, domain, secret, CHAT_SESSIONS);
        let wish =
            Wish { window: Some(8), component: Some(address), ..Wish::open(scenario, false) };
        let outcome = self.run(&running, &wish)?;
        running.stop()?;
        Ok(per_message(&outcome))
    }

    pub(super) fn rate(&self) -> Result<Figure, Error> {
        let running = self.start_with(&[])?;
        let scenario = scenario::rate(&self.options, CHAT_SESSIONS, PER_SECOND);
        let outcome = self.run(&running, &Wish::open(scenario, false))?;
        running.stop()?;
        let unreadable = |_| Error::Config("a histogram of the run cannot be read".to_owned());
        let totals = outcome.measured().map_err(unreadable)?;
        let total = totals.get(&Operation::Message);
        let response = total.map(|total| total.response.clone()).unwrap_or_default();
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let cpu = measured(&outcome).first().map_or(0.0, |stretch| stretch.server_us);
        let invalid = outcome.verdict.invalid.join("; ");
        let note = format!(
            "p50 {:.2}, p99.9 {:.2}, max {:.2} ms; {cpu:.1} µs CPU each{}{invalid}",
            ms(response.quantile(0.5)),
            ms(response.quantile(0.999)),
            ms(response.max()),
            if invalid.is_empty() { "" } else { "; INVALID: " }
        );
        Ok(Figure { value: ms(response.quantile(0.99)), samples: response.count(), note })
    }

    fn warm_up(&self, running: &Running, tls: bool) -> Result<(), Error> {
        let scenario = scenario::logins(&self.options, tls, 0, WARM_UP_SESSIONS);
        self.run(running, &Wish::open(scenario, tls)).map(|_| ())
    }

    pub(super) fn login(&self, tls: bool) -> Result<Figure, Error> {
        let running = self.start_with(&[])?;
        self.warm_up(&running, tls)?;
        let count = self.options.scaled(&LOGIN_SESSIONS);
        let scenario = scenario::logins(&self.options, tls, WARM_UP_SESSIONS, count);
        let outcome = self.run(&running, &Wish::open(scenario, tls))?;
        running.stop()?;
        let value = Costs::of(&outcome).cpu_us_per_login.map_err(|why| no_figure("login", why))?;
        let note = format!("{}, presence included", self.options.mechanism.name());
        Ok(Figure { value, samples: count as u64, note })
    }

    pub(super) fn idle(&self, tls: bool, contacts: usize) -> Result<Figure, Error> {
        let count = self.options.scaled(&IDLE_SESSIONS);
        if contacts > 0 {
            // Then started anew, so that the sessions find their rosters in the store.
            let running = self.start_with(&[])?;
            self.fill_rosters(count, contacts)?;
            running.stop()?;
        }
        let running = self.start_with(&[])?;
        self.warm_up(&running, tls)?;
        std::thread::sleep(SETTLED);
        let scenario = scenario::logins(&self.options, tls, WARM_UP_SESSIONS, count);
        let outcome = self.run(&running, &Wish::open(scenario, tls))?;
        running.stop()?;
        let value =
            Costs::of(&outcome).bytes_per_session.map_err(|why| no_figure("session", why))?;
        Ok(Figure { value, samples: count as u64, note: "anonymous".to_owned() })
    }

    fn fill_rosters(&self, count: usize, contacts: usize) -> Result<(), Error> {
        let accounts = Accounts {
            pattern: self.options.users.clone(),
            first: WARM_UP_SESSIONS,
            count,
            password: self.options.password.clone(),
        };
        let mut fleet = Fleet::connect(&FleetConfig {
            address: self.address(false)?,
            domain: self.options.domain.clone(),
            accounts,
            mechanism: self.options.mechanism,
        })?;
        fleet.fill_rosters(contacts)?;
        fleet.close()
    }

    pub(super) fn start(&self) -> Result<Figure, Error> {
        let mut times = Vec::new();
        for _ in 0..REPEATS {
            let running = self.start_with(&[])?;
            times.extend(running.server.as_ref().map(|s| s.start_time.as_secs_f64() * 1e3));
            running.stop()?;
        }
        if times.is_empty() {
            return Err(Error::Config("only a server started here shows its start".to_owned()));
        }
        Ok(Figure { value: median(&times), samples: times.len() as u64, note: spread(&times) })
    }

    pub(super) fn shards(&self) -> Result<Figure, Error> {
        if self.is_foreign() {
            return Err(Error::Config("only Corefire has shards".to_owned()));
        }
        let (mut one, mut two, mut ratios, mut samples) = (vec![], vec![], vec![], 0);
        for _ in 0..REPEATS {
            for (shards, costs) in [("node.shards=1", &mut one), ("node.shards=2", &mut two)] {
                let figure = self.chat(&Chat::default(), &[shards])?;
                costs.push(figure.value);
                samples += figure.samples;
            }
            ratios.extend(two.last().zip(one.last()).map(|(two, one)| two / one));
        }
        let note = format!(
            "{}; 1 shard {:.2}, 2 shards {:.2} µs, both on cores {:?}",
            spread(&ratios),
            median(&one),
            median(&two),
            self.options.server_cores
        );
        Ok(Figure { value: median(&ratios), samples, note })
    }
}

fn no_figure(what: &str, why: &str) -> Error {
    Error::Server(format!("the run does not show what a {what} costs: {why}"))
}

/// CPU of the server per message: the median of the measured stretches.
fn per_message(outcome: &Outcome) -> Figure {
    let stretches = measured(outcome);
    let all = |of: fn(&Stretch) -> f64| stretches.iter().map(of).collect::<Vec<f64>>();
    let costs = all(|stretch| stretch.server_us);
    let mut note = format!(
        "{}, {:.0}/s, generator {:.2} µs",
        spread(&costs),
        median(&all(|stretch| stretch.per_second)),
        median(&all(|stretch| stretch.own_us))
    );
    let misordered = outcome.ledger.sent.reordered;
    if misordered > 0 {
        let _ = write!(note, ", {misordered} OUT OF ORDER");
    }
    let samples = stretches.iter().map(|stretch| stretch.messages).sum();
    Figure { value: median(&costs), samples, note }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

fn spread(values: &[f64]) -> String {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(0.0, f64::max);
    format!("{low:.2} to {high:.2} in {} runs", values.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[]), 0.0);
    }
}
