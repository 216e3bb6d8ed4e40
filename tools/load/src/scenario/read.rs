//! The keys of a scenario, their defaults and rules.

use std::time::Duration;

use toml::de::DeTable;

use super::reader::{Faults, Section};
use super::*;

const SECOND: Duration = Duration::from_secs(1);
const YEAR: Duration = Duration::from_secs(366 * 86400);
const USERS_MAX: u64 = 10_000_000;
const RATE_MAX: f64 = 1e7;
const COMPONENT_NEEDED: &str = "is needed for component-message; write [component] with address = \"service.{}\" and its secret";
/// Stanzas above 256 KiB are refused by most servers.
const BODY_MAX: u64 = 256 * 1024;

impl Scenario {
    /// Reads and checks a file's text.
    ///
    /// - takes: `name`, used where the file gives none
    /// - errors: every fault, by line
    pub fn read(text: &str, name: &str) -> Result<Self, Vec<Fault>> {
        let faults = Faults::new(text);
        let table = match DeTable::parse(text) {
            Ok(table) => table,
            Err(error) => {
                let at = error.span().map_or(0, |span| span.start);
                faults.add(at, "", error.message().replace('\n', ", "));
                return Err(faults.into_list());
            }
        };
        let top = Section::top(&table, &faults);
        let scenario = scenario(&top, name, &faults);
        if faults.is_empty() { Ok(scenario) } else { Err(faults.into_list()) }
    }
}

fn scenario(top: &Section<'_, '_>, name: &str, faults: &Faults<'_>) -> Scenario {
    let scenario = Scenario {
        name: top.text("name").unwrap_or_else(|| name.to_owned()),
        about: top.text("about").unwrap_or_default(),
        seed: top.integer("seed", 1, 0..=i64::MAX as u64),
        arrivals: top.choice(
            "arrivals",
            Arrivals::Poisson,
            &[("poisson", Arrivals::Poisson), ("even", Arrivals::Even)],
        ),
        drain: top.duration("drain", Duration::ZERO..=SECOND * 600).unwrap_or(SECOND * 10),
        lag_max: top
            .duration("lag_max", Duration::from_micros(10)..=SECOND * 10)
            .unwrap_or(Duration::from_millis(1)),
        connection: connection(top),
        accounts: accounts(top),
        component: component(top),
        reads_archives: ledger(top),
        phases: phases(top),
        populations: populations(top),
        thresholds: thresholds(top, faults),
        faults: fault_hooks(top),
    };
    if scenario.populations.is_empty() {
        top.fault("population", "nobody is there; write [[population]] with users = 100");
    }
    if scenario.phases.is_empty() {
        top.fault("phase", "nothing happens; write [[phase]] with kind and length");
    }
    let sent = scenario.populations.iter().any(|population| population.component.is_some());
    if sent && scenario.component.is_none() {
        top.fault("component", COMPONENT_NEEDED);
    } else if !sent && scenario.component.is_some() {
        top.fault("component", "sends nothing; write [population.component-message] with rate");
    }
    let talks =
        |population: &Population| population.message.is_some() || population.component.is_some();
    if scenario.reads_archives && !scenario.populations.iter().any(talks) {
        top.fault(
            "ledger",
            "has no archive to read: nobody is sent messages; write [population.message]",
        );
    }
    top.close();
    scenario
}

fn connection(top: &Section<'_, '_>) -> Connection {
    let section = top.table("connection");
    let mechanisms: Vec<_> = Mechanism::ALL.iter().map(|m| (m.name(), Some(*m))).collect();
    let mut words = vec![("auto", None)];
    words.extend(mechanisms);
    let default = Connection {
        security: Security::Auto,
        mechanism: None,
        way: Way::Classic,
        logins_in_flight: 256,
        sources: 1,
        backoff_first: Duration::from_millis(500),
        backoff_max: SECOND * 30,
        fail_over: false,
    };
    let Some(section) = section else {
        return default;
    };
    let read = Connection {
        security: section.choice(
            "tls",
            default.security,
            &[
                ("auto", Security::Auto),
                ("none", Security::None),
                ("starttls", Security::Starttls),
                ("direct", Security::Direct),
            ],
        ),
        mechanism: section.choice("mechanism", None, &words),
        way: section.choice(
            "login",
            Way::Classic,
            &[("sasl", Way::Classic), ("sasl2", Way::Sasl2)],
        ),
        logins_in_flight: section.integer("logins_in_flight", 256, 1..=100_000) as usize,
        sources: section.integer("sources", 1, 1..=250) as usize,
        backoff_first: section
            .duration("backoff_first", Duration::from_millis(1)..=SECOND * 3600)
            .unwrap_or(default.backoff_first),
        backoff_max: section
            .duration("backoff_max", Duration::from_millis(1)..=SECOND * 3600)
            .unwrap_or(default.backoff_max),
        fail_over: section.boolean("fail_over", default.fail_over),
    };
    section.close();
    read
}

fn accounts(top: &Section<'_, '_>) -> Accounts {
    let default = Accounts {
        pattern: "user{}".to_owned(),
        first: 0,
        password: "secret".to_owned(),
        register: false,
    };
    let Some(section) = top.table("accounts") else {
        return default;
    };
    let read = Accounts {
        pattern: section.text("pattern").unwrap_or(default.pattern),
        first: section.integer("first", 0, 0..=u64::from(u32::MAX)),
        password: section.text("password").unwrap_or(default.password),
        register: section.boolean("register", false),
    };
    if !read.pattern.contains("{}") {
        section.fault("pattern", "has no {} for the number; write \"user{}\"");
    }
    section.close();
    read
}

fn ledger(top: &Section<'_, '_>) -> bool {
    top.table("ledger").is_some_and(|section| {
        let reads = section.boolean("archive", false);
        section.close();
        reads
    })
}

fn component(top: &Section<'_, '_>) -> Option<ComponentWish> {
    let section = top.table("component")?;
    let wish = ComponentWish {
        address: section.text("address").unwrap_or_else(|| "service.{}".to_owned()),
        port: section.integer("port", 5347, 1..=u64::from(u16::MAX)) as u16,
        secret: section.text("secret").unwrap_or_default(),
    };
    if wish.secret.is_empty() {
        section.fault("secret", "is needed: what the server's configuration has for the component");
    }
    if wish.address.is_empty() || wish.address.contains(['@', '/']) {
        section.fault("address", "is not a domain; write \"service.{}\", {} being the target's");
    }
    section.close();
    Some(wish)
}

fn phases(top: &Section<'_, '_>) -> Vec<PhaseWish> {
    let mut users = 0.0;
    let mut load = 1.0;
    let mut phases: Vec<PhaseWish> = Vec::new();
    for section in top.tables("phase") {
        let kind = section.choice(
            "kind",
            PhaseKind::Hold,
            &[("ramp", PhaseKind::Ramp), ("hold", PhaseKind::Hold), ("storm", PhaseKind::Storm)],
        );
        let length = section.duration("length", Duration::from_millis(1)..=YEAR);
        if length.is_none() {
            section.fault("length", "is needed, as \"30s\"");
        }
        let name = section.text("name").unwrap_or_else(|| kind.name().to_owned());
        if phases.iter().any(|phase| phase.name == name) {
            section.fault("name", format!("\"{name}\" is there twice; give each phase its own"));
        }
        if kind == PhaseKind::Ramp {
            users = section.number("users", 0.0..=1.0).unwrap_or(1.0);
        }
        let loads = load_of(&section, kind, load);
        load = loads.1;
        let is_storm = kind == PhaseKind::Storm;
        phases.push(PhaseWish {
            name,
            kind,
            length: length.unwrap_or_default(),
            measured: section.boolean("measured", kind != PhaseKind::Ramp),
            load: loads,
            users,
            share: if is_storm { section.number("share", 0.0..=1.0).unwrap_or(1.0) } else { 0.0 },
            spread: if is_storm {
                section.duration("spread", Duration::ZERO..=YEAR).unwrap_or_default()
            } else {
                Duration::ZERO
            },
        });
        section.close();
    }
    if phases.first().is_some_and(|phase| phase.kind != PhaseKind::Ramp) {
        top.fault("phase", "the first phase must be of kind \"ramp\": nobody is online before it");
    }
    phases
}

/// `load = 0.5`, or `load = [0.5, 1.0]` for a change over the phase.
fn load_of(section: &Section<'_, '_>, kind: PhaseKind, before: f64) -> (f64, f64) {
    // Messages to users who are not there yet say little: a ramp is quiet unless told otherwise.
    let default = if kind == PhaseKind::Ramp { (0.0, 0.0) } else { (before, before) };
    let range = 0.0..=1000.0;
    let read = section.value("load", |value| {
        if let toml::de::DeValue::Array(list) = value {
            let numbers: Result<Vec<f64>, String> =
                list.iter().map(|item| super::reader::number(item.get_ref(), &range)).collect();
            return match numbers?[..] {
                [from, to] => Ok((from, to)),
                _ => Err("is neither a number nor two, as [0.2, 1.0]".to_owned()),
            };
        }
        super::reader::number(value, &range).map(|load| (load, load))
    });
    let loads = read.map(|at| at.value);
    // The phase behind a quiet ramp runs at full load.
    match loads {
        Some(loads) => loads,
        None if kind != PhaseKind::Ramp && before == 0.0 => (1.0, 1.0),
        None => default,
    }
}

fn populations(top: &Section<'_, '_>) -> Vec<Population> {
    let mut populations: Vec<Population> = Vec::new();
    for section in top.tables("population") {
        let message = section.table("message").map(|section| {
            let wish = MessageWish {
                rate: rate(&section),
                body_bytes: section.integer("body", 64, 1..=BODY_MAX) as usize,
                address: address(&section, Address::Full),
                partners: section.integer("partners", 1, 1..=1000),
                senders: section.choice(
                    "senders",
                    Senders::All,
                    &[("all", Senders::All), ("first", Senders::First)],
                ),
            };
            section.close();
            wish
        });
        let room = section.table("room").map(|section| room(&section));
        let churn = section.table("presence-change").map(|section| {
            let contacts = section.integer("contacts", 10, 1..=1000);
            let wish = ChurnWish { rate: rate(&section), contacts };
            section.close();
            wish
        });
        let component = section.table("component-message").map(|section| {
            let wish = ComponentMessageWish {
                rate: rate(&section),
                body_bytes: section.integer("body", 64, 1..=BODY_MAX) as usize,
                to: address(&section, Address::Bare),
            };
            section.close();
            wish
        });
        let cut = section.table("cut").map(|section| {
            let away = section.duration("away", Duration::ZERO..=SECOND * 3600);
            let wish = CutWish { rate: rate(&section), away: away.unwrap_or_default() };
            section.close();
            wish
        });
        let mut requests = Vec::new();
        for (key, operation) in [
            ("ping", Operation::Ping),
            ("roster-get", Operation::RosterGet),
            ("roster-set", Operation::RosterSet),
            ("archive", Operation::Archive),
        ] {
            if let Some(section) = section.table(key) {
                let page = match operation {
                    Operation::Archive => section.integer("page", 50, 1..=1000),
                    _ => 0,
                };
                requests.push(RequestWish { operation, rate: rate(&section), page });
                section.close();
            }
        }
        let name = section.text("name").unwrap_or_else(|| format!("users{}", populations.len()));
        if populations.iter().any(|population| population.name == name) {
            section.fault("name", format!("\"{name}\" is there twice; give each its own"));
        }
        let population = Population {
            name,
            users: section.integer("users", 0, 1..=USERS_MAX),
            presence: section.boolean("presence", true),
            management: section.choice(
                "sm",
                Management::Off,
                &[("off", Management::Off), ("on", Management::On), ("resume", Management::Resume)],
            ),
            plain: section.number("plain", 0.0..=1.0).unwrap_or(0.0),
            carbons: section.boolean("carbons", false),
            reader: reader(&section),
            message,
            room,
            churn,
            component,
            cut,
            requests,
        };
        if population.reader == Reader::HalfOpen && population.rates().next().is_some() {
            section.fault("reader", "\"half-open\" streams never log in, so they can do nothing");
        }
        if population.churn.is_some()
            && population.message.as_ref().is_some_and(|wish| wish.stride() > 1)
        {
            section.fault(
                "message",
                "with senders = \"first\" together with presence-change; give that a [[population]] of its own",
            );
        }
        if population.room.is_some() && population.group() > 1 {
            section.fault(
                "room",
                "together with message or presence-change; give those a [[population]] of their own",
            );
        }
        let group = population.group();
        if population.users == 0 {
            section.fault("users", "is needed, as users = 100");
        } else if !population.users.is_multiple_of(group) {
            section.fault(
                "users",
                format!(
                    "{} do not make whole groups of {group} (partners or contacts, and oneself); write {}",
                    population.users,
                    population.users.next_multiple_of(group)
                ),
            );
        }
        section.close();
        populations.push(population);
    }
    populations
}

fn address(section: &Section<'_, '_>, default: Address) -> Address {
    section.choice("to", default, &[("session", Address::Full), ("account", Address::Bare)])
}

fn reader(section: &Section<'_, '_>) -> Reader {
    let period = section.duration("reader-period", Duration::from_millis(100)..=SECOND * 3600);
    let slow = Reader::Slow { period: period.unwrap_or(SECOND * 10) };
    section.choice(
        "reader",
        Reader::Normal,
        &[("normal", Reader::Normal), ("slow", slow), ("half-open", Reader::HalfOpen)],
    )
}

fn room(section: &Section<'_, '_>) -> RoomWish {
    let wish = RoomWish {
        rate: rate(section),
        body_bytes: section.integer("body", 64, 1..=BODY_MAX) as usize,
        rooms: section.integer("rooms", 1, 1..=USERS_MAX),
        zipf: section.number("zipf", 0.0..=10.0).unwrap_or(1.0),
        service: section.text("service").unwrap_or_else(|| "conference.{}".to_owned()),
    };
    section.close();
    wish
}

fn rate(section: &Section<'_, '_>) -> f64 {
    section.number("rate", 0.0..=RATE_MAX).unwrap_or_else(|| {
        section.fault("rate", "is needed: operations per second of the population together");
        0.0
    })
}

fn thresholds(top: &Section<'_, '_>, faults: &Faults<'_>) -> Vec<Threshold> {
    let mut read = Vec::new();
    for text in top.texts("thresholds") {
        match Threshold::parse(&text.value) {
            Ok(threshold) => read.push(threshold),
            Err(message) => faults.add(text.at, "thresholds", message),
        }
    }
    read
}

fn fault_hooks(top: &Section<'_, '_>) -> Vec<FaultWish> {
    let mut hooks = Vec::new();
    for section in top.tables("fault") {
        let at = section.duration("at", Duration::ZERO..=YEAR);
        let command = section.text("exec");
        if at.is_none() {
            section.fault("at", "is needed: time from the start of the run, as \"10s\"");
        }
        if command.is_none() {
            section.fault("exec", "is needed: a command for the shell, as \"kill -STOP 123\"");
        }
        let command = command.unwrap_or_default();
        let name = section.text("name").unwrap_or_else(|| command.clone());
        hooks.push(FaultWish { at: at.unwrap_or_default(), name, command });
        section.close();
    }
    hooks.sort_by_key(|hook| hook.at);
    hooks
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const SMALL: &str = "\
thresholds = [\"lost == 0\"]
[[phase]]
kind = \"ramp\"
length = \"2s\"
[[phase]]
kind = \"hold\"
length = \"10s\"
[[population]]
users = 10
[population.message]
rate = 50
";

    #[test]
    fn a_small_scenario_gets_its_defaults() {
        let scenario = Scenario::read(SMALL, "small").unwrap();
        assert_eq!((scenario.name.as_str(), scenario.seed, scenario.users()), ("small", 1, 10));
        let [ramp, hold] = &scenario.phases[..] else { panic!() };
        assert_eq!((ramp.measured, ramp.load, ramp.users), (false, (0.0, 0.0), 1.0));
        assert_eq!((hold.measured, hold.load, hold.users), (true, (1.0, 1.0), 1.0));
        assert_eq!(scenario.rate(), 50.0);
    }

    #[test]
    fn every_fault_of_a_file_is_told_with_line_and_key() {
        let text = SMALL
            .replace("users = 10", "users = 11")
            .replace("rate = 50", "rate = \"fast\"\nbdy = 3")
            .replace("length = \"10s\"", "length = \"10\"")
            .replace("lost == 0", "lost = 0");
        let faults = Scenario::read(&text, "bad").unwrap_err();
        let told: Vec<_> = faults.iter().map(|f| (f.line, f.key.as_str())).collect();
        for wanted in [
            (1, "thresholds"),
            (7, "phase.length"),
            (9, "population.users"),
            (11, "population.message.rate"),
            (12, "population.message.bdy"),
        ] {
            assert!(told.contains(&wanted), "{wanted:?} in {faults:?}");
        }
        let fault = faults.iter().find(|f| f.key.ends_with("users")).unwrap();
        assert!(fault.to_string().contains("write 12"), "{fault}");
    }

    #[test]
    fn what_is_no_toml_is_told_with_its_line() {
        let faults = Scenario::read("seed = 1\nname = \n", "bad").unwrap_err();
        assert_eq!(faults[0].line, 2, "{faults:?}");
    }

    #[test]
    fn a_component_and_what_it_sends_need_each_other() {
        let sends = format!("{SMALL}[population.component-message]\nrate = 5\n");
        let both = format!("{sends}[component]\nsecret = \"s\"\n");
        let scenario = Scenario::read(&both, "both").unwrap();
        let component = scenario.component.as_ref().unwrap();
        assert_eq!((component.address.as_str(), component.port), ("service.{}", 5347));
        assert_eq!(scenario.rate(), 55.0);
        let keys = |text: &str| -> Vec<String> {
            Scenario::read(text, "bad").unwrap_err().into_iter().map(|fault| fault.key).collect()
        };
        assert_eq!(keys(&sends), ["component"]);
        assert_eq!(keys(&format!("{SMALL}[component]\nsecret = \"s\"\n")), ["component"]);
        let wrong = format!("{sends}[component]\naddress = \"a@b\"\n");
        assert_eq!(keys(&wrong), ["component.secret", "component.address"]);
    }

    #[test]
    fn a_ledger_of_archives_needs_messages() {
        let text = format!("{SMALL}[ledger]\narchive = true\n");
        assert!(Scenario::read(&text, "ledger").unwrap().reads_archives);
        let faults = Scenario::read(&text.replace("message", "ping"), "bad").unwrap_err();
        assert_eq!((faults.len(), faults[0].key.as_str()), (1, "ledger"), "{faults:?}");
    }
}
