//! One half of a pair: a server of its own, with the flood or without, the chat on it, and what was read of both.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

use super::flood::Flood;
use crate::drive::Flow;
use crate::launch::{Corefire, ScratchDir, free_address, metrics};
use crate::plan::{Plan, Request, Target};
use crate::record::{Fault, Interval, Operation};
use crate::run::{self, Watch};
use crate::server::{CoreTime, ThreadLoad};
use crate::{Error, ServerProbe, sys};

/// Users who chat, in pairs.
const USERS: usize = 50;
const BODY_BYTES: usize = 64;
const PASSWORD: &str = "secret";
const MEASURED: &str = "measured";
/// Of the server's log of latencies.
const SERIES: &str = "message/same_shard/total";

/// What all halves have in common.
pub(super) struct Site<'a> {
    pub(super) binary: &'a Path,
    /// Of the shard and of federation.
    pub(super) cores: [usize; 2],
    pub(super) seconds: u64,
    /// Messages a second.
    pub(super) rate: f64,
    pub(super) domains: u32,
    pub(super) visits: bool,
    pub(super) sets: &'a [String],
}

impl Site<'_> {
    /// Calm until everything is in its stride, then what counts, and a second in which its end is read.
    fn chat(&self) -> String {
        format!(
            "seed = 1\narrivals = \"even\"\n\
             [accounts]\npattern = \"user{{}}\"\npassword = \"{PASSWORD}\"\n\
             [connection]\ntls = \"none\"\n\
             [[phase]]\nname = \"log in\"\nkind = \"ramp\"\nlength = \"2s\"\n\
             [[phase]]\nname = \"settle\"\nlength = \"2s\"\nmeasured = false\n\
             [[phase]]\nname = \"{MEASURED}\"\nlength = \"{}s\"\n\
             [[phase]]\nname = \"after\"\nlength = \"1s\"\nmeasured = false\n\
             [[population]]\nusers = {USERS}\n\
             [population.message]\nrate = {}\nbody = {BODY_BYTES}\n",
            self.seconds, self.rate
        )
    }
}

/// What the server says of itself at one moment.
struct Said {
    latency: Histogram<u64>,
    handshakes: u64,
    failed_dials: u64,
}

impl Said {
    fn by(corefire: &Corefire, admin: SocketAddr, file: &Path) -> Result<Self, Error> {
        let metrics = metrics(admin).map_err(|error| Error::Io("/metrics", error))?;
        let name = file.display().to_string();
        corefire.command(&["latency", "--hlog", &name])?;
        let text =
            std::fs::read_to_string(file).map_err(|error| Error::File(file.to_owned(), error))?;
        std::fs::remove_file(file).map_err(|error| Error::File(file.to_owned(), error))?;
        Ok(Self {
            latency: histogram(&text).ok_or_else(|| {
                Error::Server(format!("no {SERIES} in what it says of its latencies"))
            })?,
            handshakes: counted(&metrics, "corefire_federation_tls_handshakes_total"),
            failed_dials: counted(&metrics, "corefire_federation_failures_total"),
        })
    }
}

/// The sum of a family's samples.
fn counted(metrics: &str, family: &str) -> u64 {
    let sample = |line: &str| -> Option<u64> {
        let rest = line.strip_prefix(family)?;
        let (labels, value) = rest.rsplit_once(' ')?;
        (labels.is_empty() || labels.starts_with('{')).then(|| value.parse().ok()).flatten()
    };
    metrics.lines().filter_map(sample).sum()
}

fn histogram(log: &str) -> Option<Histogram<u64>> {
    let lines = IntervalLogIterator::new(log.as_bytes());
    let line = lines.filter_map(Result::ok).find_map(|entry| match entry {
        LogEntry::Interval(line) if line.tag().is_some_and(|tag| tag.as_str() == SERIES) => {
            Some(line.encoded_histogram().to_owned())
        }
        _ => None,
    })?;
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(line).ok()?;
    Deserializer::new().deserialize(&mut bytes.as_slice()).ok()
}

/// What all had used by then.
struct Moment {
    at: Instant,
    threads: BTreeMap<u32, ThreadLoad>,
    /// This thread, which is the generator, and the whole process, which is the flood, too.
    generator: Duration,
    own: Duration,
    cores: [CoreTime; 2],
}

impl Moment {
    fn now(probe: ServerProbe, cores: [usize; 2]) -> Result<Self, Error> {
        let clock = |error| Error::Io("own CPU clock", error);
        Ok(Self {
            at: Instant::now(),
            threads: probe.threads()?,
            generator: sys::thread_cpu().map_err(clock)?,
            own: sys::process_cpu(std::process::id()).map_err(clock)?,
            cores: [CoreTime::of(cores[0])?, CoreTime::of(cores[1])?],
        })
    }
}

/// Reads the clocks where what is measured begins and ends, and has the server asked then.
struct Ends<'a> {
    plan: &'a Plan,
    probe: ServerProbe,
    cores: [usize; 2],
    moments: Vec<Result<Moment, Error>>,
    ask: Sender<()>,
}

impl Watch for Ends<'_> {
    fn second(&mut self, interval: &Interval) -> Flow {
        let next = self.plan.phase_at(Duration::from_secs(interval.number + 1));
        let is_measured = |phase: usize| {
            self.plan.phases.get(phase).is_some_and(|phase| phase.wish.name == MEASURED)
        };
        if is_measured(next) != is_measured(interval.phase) {
            self.moments.push(Moment::now(self.probe, self.cores));
            // Whoever asks is there until the run is over, unless it failed, which is told by it.
            let _ = self.ask.send(());
        }
        Flow::Continue
    }

    fn fault(&mut self, _fault: &Fault) {}

    fn invalid(&mut self, _reason: &str) {}
}

/// What one half showed.
#[derive(Debug, Default)]
pub(super) struct Half {
    messages: u64,
    span: Duration,
    /// p99.9 of read → write, by the server, and how many it counted.
    own: Duration,
    own_count: u64,
    /// p99.9 from the planned moment to the arrival, by the generator.
    wall: Duration,
    shard: ThreadLoad,
    federation: ThreadLoad,
    /// Of the server's other threads, by their names.
    others: BTreeMap<String, ThreadLoad>,
    generator: Duration,
    flood: Duration,
    cores: [CoreTime; 2],
    handshakes: u64,
    failed_dials: u64,
    note: String,
}

impl Half {
    pub(super) fn measure(site: &Site<'_>, flooded: bool) -> Result<Self, Error> {
        let folder = ScratchDir::new("corefire-isolation")?;
        let flood = Flood::new(site.domains, site.visits, site.cores[1])?;
        let admin = free_address()?;
        let (s2s, direct_tls) = (free_address()?, free_address()?);
        let mut sets = vec![
            "federation.enabled=true".to_owned(),
            format!("federation.listen=[\"{s2s}\"]"),
            format!("federation.direct_tls_listen=[\"{direct_tls}\"]"),
            format!("federation.dns=[\"{}\"]", flood.dns()),
            // The dead are dialled on and on.
            "federation.limits.retry_last_s=4".to_owned(),
            format!("admin.listen=\"{admin}\""),
            // Each of the dead has a line.
            "log.level=\"error\"".to_owned(),
        ];
        sets.extend_from_slice(site.sets);
        let corefire = Corefire::new(site.binary, folder.path(), &sets)?;
        let names = (0..USERS).map(|at| format!("user{at}")).chain(["writer".to_owned()]);
        corefire.import(names.map(|name| format!("{name}@localhost")), PASSWORD)?;
        let server = corefire.start(&site.cores, &[])?;
        let probe = server.probe()?;
        let target = Target { address: corefire.plain, domain: "localhost".to_owned() };
        let request = Request::new("isolation", &site.chat(), vec![target]);
        let plan = Plan::new(&request).map_err(|error| Error::Config(format!("{error:?}")))?;
        let (ask, asked) = channel();
        let mut ends = Ends { plan: &plan, probe, cores: site.cores, moments: Vec::new(), ask };
        let (outcome, said) = std::thread::scope(|scope| {
            let (corefire, flood) = (&corefire, &flood);
            if flooded {
                flood.begin(scope, corefire.plain, PASSWORD, [s2s, direct_tls])?;
            }
            let file = folder.path().join("latency.now");
            let core = site.cores[1];
            let said = scope.spawn(move || ask_when_told(core, corefire, admin, &file, &asked));
            let outcome = run::run(&plan, &request, None, &mut ends);
            let moments = std::mem::take(&mut ends.moments);
            // It ends with what it listens to, or a run that failed would wait for it for ever.
            drop(ends);
            let said = said.join();
            flood.end();
            let outcome = outcome.map_err(|error| Error::Server(error.to_string()))?;
            let said = said.map_err(|_| Error::Server("whoever asks it has died".to_owned()))??;
            Ok::<_, Error>(((outcome, moments), said))
        })?;
        server.stop()?;
        let (outcome, moments) = outcome;
        if let Some(cause) = &outcome.verdict.aborted {
            return Err(Error::Server(cause.clone()));
        }
        let lost = outcome.ledger.sent.lost;
        if lost > 0 {
            return Err(Error::Server(format!("{lost} messages are lost")));
        }
        let is_measured = |interval: &Interval| {
            outcome.phases.get(interval.phase).is_some_and(|phase| phase.name == MEASURED)
        };
        let unreadable = |_| Error::Config("a histogram of the run cannot be read".to_owned());
        let mut totals = outcome.totals(is_measured).map_err(unreadable)?;
        let chat = totals.remove(&Operation::Message).unwrap_or_default();
        let mut half =
            Self { messages: chat.done, wall: chat.response.quantile(0.999), ..Self::default() };
        let mut moments = moments.into_iter();
        let (Some(first), Some(last)) = (moments.next(), moments.next()) else {
            return Err(Error::Server("ended before it was measured".to_owned()));
        };
        half.add_times(&first?, last?);
        half.add_said(&said)?;
        if !outcome.verdict.invalid.is_empty() {
            half.note = format!("; GENERATOR LATE: {}", outcome.verdict.invalid.join("; "));
        }
        Ok(half)
    }

    fn add_times(&mut self, first: &Moment, last: Moment) {
        self.span = last.at - first.at;
        self.generator = last.generator - first.generator;
        self.flood = (last.own - first.own).saturating_sub(self.generator);
        for (at, time) in last.cores.into_iter().enumerate() {
            let (before, core) = (first.cores[at], &mut self.cores[at]);
            core.busy = time.busy.saturating_sub(before.busy);
            core.stolen = time.stolen.saturating_sub(before.stolen);
        }
        for (id, mut load) in last.threads {
            if let Some(before) = first.threads.get(&id) {
                load.cpu = load.cpu.saturating_sub(before.cpu);
                load.waited = load.waited.saturating_sub(before.waited);
            }
            // Executors have their number behind their name, and threads beside them of the same name.
            let sum = match load.name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-') {
                "shard" => &mut self.shard,
                "federation" => &mut self.federation,
                _ => self.others.entry(load.name).or_default(),
            };
            sum.cpu += load.cpu;
            sum.waited += load.waited;
        }
    }

    fn add_said(&mut self, said: &[Said]) -> Result<(), Error> {
        let [first, last] = said else {
            return Err(Error::Server("was not asked at both ends".to_owned()));
        };
        let mut between = last.latency.clone();
        between
            .subtract(&first.latency)
            .map_err(|error| Error::Server(format!("its counts went back: {error}")))?;
        self.own = Duration::from_nanos(between.value_at_quantile(0.999));
        self.own_count = between.len();
        self.handshakes = last.handshakes.saturating_sub(first.handshakes);
        self.failed_dials = last.failed_dials.saturating_sub(first.failed_dials);
        Ok(())
    }

    /// In microseconds.
    pub(super) fn own(&self) -> f64 {
        self.own.as_secs_f64() * 1e6
    }

    /// Microseconds of the shard's thread for each message.
    pub(super) fn cost(&self) -> f64 {
        self.shard.cpu.as_secs_f64() * 1e6 / self.messages.max(1) as f64
    }

    /// In microseconds.
    pub(super) fn wall(&self) -> f64 {
        self.wall.as_secs_f64() * 1e6
    }

    fn share(&self, time: Duration) -> f64 {
        time.as_secs_f64() / self.span.as_secs_f64().max(1e-9)
    }

    /// What the shard and the generator took together of their core.
    pub(super) fn load(&self) -> f64 {
        self.share(self.shard.cpu + self.generator)
    }

    /// How busy the federation's core was; what the host took of it is not there to be used.
    pub(super) fn federation_core(&self) -> f64 {
        self.share(self.cores[1].busy + self.cores[1].stolen).min(1.0)
    }

    pub(super) fn line(&self) -> String {
        let percent = |time: Duration| format!("{:.0} %", self.share(time) * 100.0);
        let each = |count: u64| count as f64 / self.span.as_secs_f64().max(1e-9);
        let mut others = String::new();
        for (name, load) in &self.others {
            if self.share(load.cpu) >= 0.005 {
                others.push_str(&format!(", {name} {}", percent(load.cpu)));
            }
        }
        let mut stolen = String::new();
        for (name, core) in [("first", self.cores[0]), ("second", self.cores[1])] {
            if self.share(core.stolen) >= 0.01 {
                stolen.push_str(&format!("; STOLEN of the {name} {}", percent(core.stolen)));
            }
        }
        format!(
            "cores {} and {}: shard {} + generator {} and federation {} (wants {}) + flood {}{others}; {:.0} handshakes/s, \
             {:.0} dials failed/s; {:.0} messages/s, {} timed{stolen}{}",
            percent(self.cores[0].busy),
            percent(self.cores[1].busy),
            percent(self.shard.cpu),
            percent(self.generator),
            percent(self.federation.cpu),
            percent(self.federation.cpu + self.federation.waited),
            percent(self.flood),
            each(self.handshakes),
            each(self.failed_dials),
            each(self.messages),
            self.own_count,
            self.note
        )
    }

    #[cfg(test)]
    pub(super) fn with(own: f64, federation_core: f64) -> Self {
        let second = Duration::from_secs(1);
        let core = CoreTime { busy: second.mul_f64(federation_core), ..CoreTime::default() };
        Self {
            messages: 1000,
            span: second,
            own: Duration::from_secs_f64(own / 1e6),
            wall: second,
            shard: ThreadLoad { cpu: second / 10, ..ThreadLoad::default() },
            cores: [CoreTime::default(), core],
            ..Self::default()
        }
    }
}

/// Has the server say what it counted, each time that it is told to; on the core that is not the shard's.
fn ask_when_told(
    core: usize,
    corefire: &Corefire,
    admin: SocketAddr,
    file: &Path,
    told: &Receiver<()>,
) -> Result<Vec<Said>, Error> {
    sys::set_affinity(&[core]).map_err(|error| Error::Io("affinity", error))?;
    // Before the flood, where it may.
    sys::go_first();
    told.iter().map(|()| Said::by(corefire, admin, file)).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_the_sum_of_its_samples_and_of_no_other() {
        let text = "# TYPE a counter\na_total{class=\"x y\"} 3\na_total{class=\"z\"} 4\na_total_more 9\nab_total 9\n";
        assert_eq!(counted(text, "a_total"), 7);
        assert_eq!(counted("a_total 5\n", "a_total"), 5);
    }

    #[test]
    fn the_series_is_found_in_the_servers_log() {
        use hdrhistogram::serialization::V2DeflateSerializer;
        use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
        let (mut bytes, mut serializer) = (Vec::new(), V2DeflateSerializer::new());
        {
            let mut counts = Histogram::<u64>::new_with_bounds(100, 60_000_000_000, 2).unwrap();
            let log = IntervalLogWriterBuilder::new();
            let mut log = log.begin_log_with(&mut bytes, &mut serializer).unwrap();
            for tag in ["message/core/total", SERIES] {
                counts.record(50_000).unwrap();
                log.write_histogram(&counts, Duration::ZERO, Duration::ZERO, Tag::new(tag))
                    .unwrap();
            }
        }
        let found = histogram(&String::from_utf8(bytes).unwrap()).unwrap();
        assert_eq!(found.len(), 2);
        assert!(histogram("").is_none());
    }
}
