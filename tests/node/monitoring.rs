//! `config/` names only metrics and labels that a node tells: the dashboard and the alerts are held against `/metrics` of
//! one that has served somebody.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use corefire::admin::exposition::Exposition;
use corefire::admin::figures::{ClusterFigures, FederationFigures, Figures, LinkFigures};
use corefire::admin::latency::{Board, FederationPart, StorePart};
use corefire::admin::metrics;
use corefire::federation::Stage;

use crate::admin::ask;
use crate::client::Client;
use crate::node::Place;

/// Labels that Prometheus itself puts on what it scrapes.
const SCRAPED: [&str; 2] = ["instance", "job"];

/// Words of PromQL, and the one metric that is Prometheus' own.
const WORDS: [&str; 26] = [
    "abs",
    "and",
    "avg",
    "by",
    "count",
    "histogram_quantile",
    "increase",
    "ignoring",
    "irate",
    "label_values",
    "max",
    "max_over_time",
    "min",
    "on",
    "or",
    "group_left",
    "rate",
    "sort",
    "sort_desc",
    "sum",
    "time",
    "topk",
    "unless",
    "up",
    "without",
    "bool",
];

/// By metric: by label: its values.
type Told = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// Reads samples, all of whose labels have plain values.
fn told(text: &str) -> Told {
    let mut told = Told::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        // An exemplar would stand behind " # ".
        let line = line.split(" # ").next().unwrap();
        let (name, rest) = line.split_at(line.find(['{', ' ']).unwrap());
        let labels = told.entry(name.to_owned()).or_default();
        let Some(list) = rest.strip_prefix('{') else { continue };
        for pair in list.split_once('}').unwrap().0.split(',') {
            let (label, value) = pair.split_once('=').unwrap();
            labels.entry(label.to_owned()).or_default().insert(value.trim_matches('"').to_owned());
        }
    }
    told
}

/// A piece of an expression.
#[derive(Debug, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Sign(char),
}

/// - takes: an expression without escapes in its texts
fn tokens(expression: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        let length = match first {
            '"' | '\'' => {
                let end = rest[1..].find(first).expect("a text ends") + 1;
                tokens.push(Token::Text(rest[1..end].to_owned()));
                end + 1
            }
            // Ranges, with a variable of the dashboard or without.
            '[' => rest.find(']').expect("a range ends") + 1,
            c if c.is_ascii_digit() => rest.find(|c| !is_word(c) && c != '.').unwrap_or(rest.len()),
            c if is_word(c) => {
                let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                tokens.push(Token::Word(rest[..end].to_owned()));
                end
            }
            c => {
                if !c.is_whitespace() {
                    tokens.push(Token::Sign(c));
                }
                c.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    tokens
}

/// What an expression names that a node does not tell.
fn faults(expression: &str, told: &Told) -> Vec<String> {
    let tokens = tokens(expression);
    let word = |at: usize| match tokens.get(at) {
        Some(Token::Word(word)) => Some(word.as_str()),
        _ => None,
    };
    let sign = |at: usize, c: char| tokens.get(at) == Some(&Token::Sign(c));
    let named: Vec<&str> =
        (0..tokens.len()).filter_map(word).filter(|it| told.contains_key(*it)).collect();
    let mut faults = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let Some(name) = word(at) else {
            at += 1;
            continue;
        };
        at += 1;
        if ["by", "on", "without", "ignoring", "group_left"].contains(&name) {
            at += 1;
            while !sign(at, ')') {
                if let Some(label) = word(at)
                    && !SCRAPED.contains(&label)
                    && !named.iter().any(|metric| told[*metric].contains_key(label))
                {
                    faults.push(format!("no metric of it has the label {label}"));
                }
                at += 1;
            }
            continue;
        }
        if WORDS.contains(&name) {
            // The label that a variable of the dashboard asks for.
            if name == "label_values" {
                break;
            }
            if name != "up" || !sign(at, '{') {
                continue;
            }
        }
        let labels = told.get(name);
        if labels.is_none() && name != "up" {
            faults.push(format!("nobody tells {name}"));
        }
        if !sign(at, '{') {
            continue;
        }
        while !sign(at, '}') {
            at += 1;
            let Some(label) = word(at) else { continue };
            let is_pattern = sign(at + 2, '~');
            let values = labels.and_then(|labels| labels.get(label));
            let Some(Token::Text(wanted)) =
                tokens.get(at + 2 + usize::from(is_pattern)).or(tokens.get(at + 2))
            else {
                faults.push(format!("{name}: {label} is compared with nothing"));
                continue;
            };
            if SCRAPED.contains(&label) {
                continue;
            }
            let Some(values) = values else {
                faults.push(format!("{name} has no label {label}"));
                continue;
            };
            for value in wanted.split('|').filter(|value| !value.contains('$')) {
                let is_told =
                    values.contains(value) || is_pattern && value.contains(['.', '*', '[']);
                if !is_told {
                    faults.push(format!("{name}: {label} is never {value}"));
                }
            }
        }
    }
    faults
}

/// Each `expr:` of the rules, in one line or folded over several.
fn expressions_of_rules(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let Some((_, rest)) = line.split_once(" expr: ") else { continue };
        if rest != ">-" {
            found.push(rest.to_owned());
            continue;
        }
        let depth = |line: &str| line.len() - line.trim_start().len();
        let own = depth(line);
        let mut whole = String::new();
        while let Some(line) = lines.next_if(|line| depth(line) > own) {
            whole.push_str(line.trim());
            whole.push(' ');
        }
        found.push(whole);
    }
    found
}

fn expressions_of_dashboard(value: &serde_json::Value, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str() {
                    Some(text) if name == "expr" || name == "definition" => {
                        found.push(text.to_owned())
                    }
                    _ => expressions_of_dashboard(value, found),
                }
            }
        }
        serde_json::Value::Array(values) => {
            values.iter().for_each(|value| expressions_of_dashboard(value, found));
        }
        _ => {}
    }
}

/// What a node tells once it has served clients on both of its shards, one of whom was away.
fn scrape() -> String {
    let place = Place::new();
    let names = ["alice", "bob", "carol", "dave", "erin", "frank"];
    for name in names {
        place.add_user(name, "secret");
    }
    let node = place.start();
    let mut clients: Vec<Client> =
        names[..5].iter().map(|name| Client::log_in(&node, name, "secret")).collect();
    for client in &mut clients {
        client.send("<presence/>");
        for to in names {
            client.send(&format!(
                "<message to='{to}@localhost' type='chat'><body>hi</body></message>"
            ));
        }
        client.send("<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>");
        client.expect("id='p'");
    }
    drop(Client::log_in(&node, "frank", "secret"));
    // Histograms of all cores are merged once a second.
    let began = Instant::now();
    let text = loop {
        let text = ask(&node, "/metrics", "").1;
        let is_merged = ["stanza_route", "stanza_stage", "login", "core_turn", "core_run_queue"]
            .iter()
            .all(|part| text.contains(&format!("corefire_{part}_seconds_bucket")));
        if is_merged && text.contains("path=\"core\"") {
            break text;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{text}");
    };
    drop(clients);
    node.stop();
    text
}

/// What a node of a cluster tells beside that.
fn scrape_of_cluster() -> String {
    let link = LinkFigures {
        node: "n2".into(),
        rtt_s: Some(0.001),
        clock_ahead_s: Some(0.0),
        ..LinkFigures::default()
    };
    let cluster = ClusterFigures { links: vec![link], ..ClusterFigures::default() };
    let figures = Figures { cluster: Some(cluster), ..Figures::default() };
    let text = metrics::text(figures, Exposition::of(&Board::default())).unwrap();
    text.lines()
        .filter(|line| line.starts_with("corefire_cluster_"))
        .fold(String::new(), |text, line| text + line + "\n")
}

/// What a node tells that talks with other servers.
fn scrape_of_federation() -> String {
    let mut part = FederationPart::default();
    for stage in Stage::ALL {
        part.stages.record(stage, Duration::from_millis(1));
    }
    part.turns.turns.record(Duration::from_millis(1));
    let mut board = Board::default();
    board.add(Duration::from_secs(1), &[], &[part], &StorePart::default());
    let federation = vec![FederationFigures::default()];
    let figures = Figures { federation, ..Figures::default() };
    let text = metrics::text(figures, Exposition::of(&board)).unwrap();
    text.lines()
        .filter(|line| line.starts_with("corefire_federation_"))
        .fold(String::new(), |text, line| text + line + "\n")
}

fn config(name: &str) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/").to_owned() + name;
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn the_dashboard_and_the_alerts_name_what_a_node_tells() {
    let of_cluster = scrape_of_cluster();
    let of_federation = scrape_of_federation();
    let text = scrape() + &of_cluster + &of_federation;
    let told = told(&text);
    let rules = expressions_of_rules(&config("prometheus-alerts.yml"));
    assert!(rules.len() >= 20, "{} rules", rules.len());
    let mut dashboard = Vec::new();
    let parsed: serde_json::Value =
        serde_json::from_str(&config("grafana-dashboard.json")).unwrap();
    expressions_of_dashboard(&parsed, &mut dashboard);
    assert!(dashboard.len() >= 40, "{} expressions", dashboard.len());
    let mut wrong = Vec::new();
    for expression in rules.iter().chain(&dashboard) {
        wrong.extend(
            faults(expression, &told).iter().map(|fault| format!("{fault}\n    {expression}")),
        );
    }
    assert!(wrong.is_empty(), "{}\n\n{text}", wrong.join("\n"));
    let is_shown = |metric: &&str| dashboard.iter().any(|it| it.contains(&format!("{metric}{{")));
    let parts = of_cluster.lines().chain(of_federation.lines());
    let metrics = parts.filter_map(|line| line.split(['{', ' ']).next());
    // Of a histogram, the buckets are shown.
    let metrics =
        metrics.filter(|it| !it.ends_with("_seconds_sum") && !it.ends_with("_seconds_count"));
    let missing: Vec<&str> = metrics.filter(|metric| !is_shown(metric)).collect();
    assert!(missing.is_empty(), "not on the dashboard: {missing:?}");
}

/// Panels lie beside one another, none on another, and each has its own number.
#[test]
fn the_dashboard_has_a_place_for_each_panel() {
    let parsed: serde_json::Value =
        serde_json::from_str(&config("grafana-dashboard.json")).unwrap();
    let mut taken = BTreeSet::new();
    let mut numbers = BTreeSet::new();
    let mut rows = Vec::new();
    for panel in parsed["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(numbers.insert(panel["id"].as_u64().unwrap()), "{title}");
        let side = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        for x in side("x")..side("x") + side("w") {
            for y in side("y")..side("y") + side("h") {
                assert!(x < 24 && taken.insert((x, y)), "{title} at {x}, {y}");
            }
        }
        if panel["type"] == "row" {
            rows.push(title);
        }
    }
    for row in
        ["Overview", "Cores", "Latency", "Store", "Limits and abuse", "Cluster", "Certificates"]
    {
        assert!(rows.contains(&row), "{row} is not among {rows:?}");
    }
}

#[test]
fn alerts_say_what_to_do() {
    let text = config("prometheus-alerts.yml");
    for rule in text.split("- alert: ").skip(1) {
        let name = rule.lines().next().unwrap();
        for part in [" expr: ", "severity: ", "summary: \"", "runbook: \""] {
            assert!(rule.contains(part), "{name} has no {part}");
        }
    }
}

/// By Prometheus' own tool, where it is installed.
#[test]
fn prometheus_takes_the_alerts_and_the_metrics() {
    let tool = |arguments: &[&str], input: &str| {
        let mut child = Command::new("promtool")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .ok()?;
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        Some((output.status.success(), told))
    };
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/prometheus-alerts.yml");
    let Some((is_good, told)) = tool(&["check", "rules", path], "") else {
        eprintln!("promtool is not installed");
        return;
    };
    assert!(is_good, "{told}");
}

#[test]
fn names_that_nobody_tells_are_found() {
    let told = told(
        "# HELP x\ncorefire_a_total{fate=\"done\"} 1\ncorefire_a_total{fate=\"failed\"} 1\ncorefire_b{shard=\"0\"} 2\n",
    );
    let good = [
        "sum by (fate, instance) (rate(corefire_a_total{instance=~\"$instance\",fate=\"done\"}[$__rate_interval])) > 0.5",
        "corefire_b / on (instance) corefire_b and up{job=\"corefire\"} == 0",
        "rate(corefire_a_total{fate=~\"done|failed\"}[5m]) - time() < 3 * 86400",
    ];
    for expression in good {
        assert_eq!(faults(expression, &told), [""; 0], "{expression}");
    }
    for (expression, fault) in [
        ("rate(corefire_c_total[5m])", "nobody tells corefire_c_total"),
        ("rate(corfire_a_total[5m])", "nobody tells corfire_a_total"),
        ("corefire_b{fate=\"done\"}", "corefire_b has no label fate"),
        ("corefire_a_total{fate=\"lost\"}", "corefire_a_total: fate is never lost"),
        ("corefire_a_total{fate=~\"done|lost\"}", "corefire_a_total: fate is never lost"),
        ("sum by (fate) (corefire_b)", "no metric of it has the label fate"),
    ] {
        assert_eq!(faults(expression, &told), [fault], "{expression}");
    }
}
