//! `corefire latency`: how long things take in the running node, as a table or as an HdrHistogram log.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::backend::Running;
use super::report::{object, odd_answer};
use super::{Refusal, print};
use crate::admin::latency::{Percentiles, Report, SeriesReport, StallReport};
use crate::config::Config;
use crate::runtime::control::{ControlRequest, ControlResponse};

/// - `recent`: of the last seconds, instead of since the start
pub(super) fn table(config: &Config, recent: bool, json: bool) -> Result<(), Refusal> {
    let ControlResponse::Latency(report) = ask(config, &ControlRequest::Latency)? else {
        return Err(odd_answer());
    };
    if !report.enabled {
        let message = "latencies are not measured: latency.enabled is false";
        return Err(Refusal::Plain(message.to_owned()));
    }
    if json { print(object(&report)?) } else { print(text(&report, recent).trim_end()) }
}

/// Writes all that was counted since the start to a file, which must not exist yet.
pub(super) fn export(config: &Config, file: &Path) -> Result<(), Refusal> {
    let ControlResponse::LatencyLog { text } = ask(config, &ControlRequest::LatencyLog)? else {
        return Err(odd_answer());
    };
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| {
        Refusal::Plain(format!("{} cannot be written: {error}; choose another", file.display()))
    })?;
    print(format_args!("{}: {} histograms", file.display(), text.matches("\nTag=").count()))
}

fn ask(config: &Config, request: &ControlRequest) -> Result<ControlResponse, Refusal> {
    let Some(node) = Running::find(config).map_err(Refusal::Plain)? else {
        return Err(Refusal::Plain(format!(
            "no node runs on the data directory {}; latencies are those of a running node",
            config.node.data_dir.display()
        )));
    };
    node.call(request).map_err(Refusal::Plain)
}

fn text(report: &Report, recent: bool) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = match recent {
        true => writeln!(text, "of the last {} s", report.recent_s),
        false => writeln!(text, "since the start, {} ago", super::report::span(report.uptime_s)),
    };
    let values = |series: &SeriesReport| match recent {
        true => series.recent.clone(),
        false => series.total.clone(),
    };
    let counted: Vec<(String, &str, Percentiles)> = report
        .series
        .iter()
        .map(|series| (name(series), series.unit.as_str(), values(series)))
        .filter(|(.., values)| values.count > 0)
        .collect();
    if counted.is_empty() {
        text.push_str("nothing was counted\n");
        return text;
    }
    let width = counted.iter().map(|(name, ..)| name.len()).max().unwrap_or(0);
    let _ = writeln!(
        text,
        "{:<width$} {:>10} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "", "count", "p50", "p90", "p99", "p99.9", "max"
    );
    for (name, unit, values) in counted {
        let shown = |value| if unit == "ns" { time(value) } else { value.to_string() };
        let Percentiles { count, p50, p90, p99, p999, max, .. } = values;
        let [p50, p90, p99, p999, max] = [p50, p90, p99, p999, max].map(shown);
        let _ = writeln!(
            text,
            "{name:<width$} {count:>10} {p50:>9} {p90:>9} {p99:>9} {p999:>9} {max:>9}"
        );
    }
    for shard in &report.shards {
        if let Some(stall) = &shard.last_stall {
            let _ = writeln!(text, "shard {}: {}", shard.shard, last_stall(stall, shard.stalls));
        }
    }
    text
}

/// `3 stalls; the last at 2026-01-01T00:00:00Z took 12 ms: read 3, effects 1; longest read, 11 ms`
pub(super) fn last_stall(stall: &StallReport, stalls: u64) -> String {
    format!(
        "{stalls} {}; the last at {} took {}: {}; longest {}, {}",
        if stalls == 1 { "stall" } else { "stalls" },
        stall.at,
        time(stall.took_ns),
        stall.did,
        stall.longest,
        time(stall.longest_ns)
    )
}

/// `message same_shard total`, `login PLAIN bound`, `turn shard 0`
fn name(series: &SeriesReport) -> String {
    let SeriesReport { group, kind, path, stage, mechanism, end, shard, core, .. } = series;
    let group = (group != "stanza").then(|| group.clone());
    let shard = shard.map(|shard| format!("shard {shard}"));
    let core = core.map(|core| format!("core {core}"));
    let estimate = series.estimate.then(|| "(estimate)".to_owned());
    let parts = [&group, kind, path, stage, mechanism, end, &shard, &core, &estimate];
    parts.into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join(" ")
}

/// Three digits, in the unit that fits.
fn time(nanos: u64) -> String {
    let nanos = nanos as f64;
    let (value, unit) = match nanos {
        n if n < 1e3 => (n, "ns"),
        n if n < 1e6 => (n / 1e3, "us"),
        n if n < 1e9 => (n / 1e6, "ms"),
        n => (n / 1e9, "s"),
    };
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits_and_a_unit() {
        let told: Vec<String> = [650, 1_234, 45_678, 912_345, 7_654_321, 60_000_000_000]
            .into_iter()
            .map(time)
            .collect();
        assert_eq!(told, ["650 ns", "1.23 us", "45.7 us", "912 us", "7.65 ms", "60.0 s"]);
    }

    #[test]
    fn a_row_has_the_name_and_the_percentiles() {
        let percentiles = Percentiles {
            count: 12,
            p50: 50_000,
            p90: 90_000,
            p99: 99_000,
            p999: 100_000,
            max: 1_000_000,
            ..Percentiles::default()
        };
        let series = SeriesReport {
            group: "stanza".into(),
            kind: Some("message".into()),
            path: Some("core".into()),
            stage: Some("total".into()),
            unit: "ns".into(),
            total: percentiles,
            ..SeriesReport::default()
        };
        let report = Report { uptime_s: 67, series: vec![series], ..Report::default() };
        let shown = text(&report, false);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[0], "since the start, 1 min 7 s ago");
        let words: Vec<&str> = lines[2].split_whitespace().collect();
        assert_eq!(words[..4], ["message", "core", "total", "12"]);
        assert_eq!(words[4..].join(" "), "50.0 us 90.0 us 99.0 us 100 us 1.00 ms");
        assert!(text(&report, true).contains("nothing was counted"));
        let mut series = report.series;
        series[0].estimate = true;
        let shown = text(&Report { series, ..Report::default() }, false);
        assert!(shown.contains("\nmessage core total (estimate) "), "{shown}");
    }
}
