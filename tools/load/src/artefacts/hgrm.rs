//! Percentile distributions as text, `.hgrm`, as the official HdrHistogram plotter reads them. Values in milliseconds.

use std::io::{self, Write};

use crate::record::Latency;

/// Steps per halving of the distance to 100 %, as the official tools take by default.
pub const STEPS: u32 = 5;
/// Sub-buckets of a histogram of three digits: the first power of two from 2 × 10³.
const SUB_BUCKETS: u32 = 2048;

/// One line of the distribution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    pub value_us: u64,
    /// 0 to 1.
    pub share: f64,
    /// How many values are at most `value_us`.
    pub total: u64,
}

/// The steps from the lowest to the highest value; empty if nothing was counted.
pub fn steps(latency: &Latency) -> Vec<Step> {
    let counts = latency.counts();
    let mut total = 0;
    counts
        .iter_quantiles(STEPS)
        .map(|step| {
            total += step.count_since_last_iteration();
            Step {
                value_us: counts.highest_equivalent(step.value_iterated_to()),
                share: step.quantile_iterated_to(),
                total,
            }
        })
        .collect()
}

/// - takes: `remarks` that the text ends with, as comments, which the tools pass over
/// - errors: those of `out`
pub fn write(latency: &Latency, remarks: &[String], out: &mut impl Write) -> io::Result<()> {
    let counts = latency.counts();
    let milliseconds = |us: u64| us as f64 / 1e3;
    writeln!(
        out,
        "{:>12} {:>14} {:>10} {:>14}\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    )?;
    for Step { value_us, share, total } in steps(latency) {
        write!(out, "{:12.3} {share:14.12} {total:10}", milliseconds(value_us))?;
        if share < 1.0 {
            write!(out, " {:14.2}", 1.0 / (1.0 - share))?;
        }
        writeln!(out)?;
    }
    let (mean, deviation) = (counts.mean() / 1e3, counts.stdev() / 1e3);
    let (max, count) = (milliseconds(counts.max()), counts.len());
    writeln!(out, "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]")?;
    writeln!(out, "#[Max     = {max:12.3}, Total count    = {count:12}]")?;
    writeln!(out, "#[Buckets = {:12}, SubBuckets     = {SUB_BUCKETS:12}]", counts.buckets())?;
    remarks.iter().try_for_each(|remark| writeln!(out, "#[{remark}]"))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_distribution_is_written_as_the_official_tools_write_it() {
        let mut latency = Latency::default();
        latency.record_n(Duration::from_micros(1000), 90);
        latency.record_n(Duration::from_micros(2000), 10);
        let mut text = Vec::new();
        write(&latency, &["Mode    = x".to_owned()], &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "       Value     Percentile TotalCount 1/(1-Percentile)");
        assert_eq!(lines[1], "");
        assert_eq!(lines[2], "       1.000 0.000000000000         90           1.00");
        assert!(lines.contains(&"       2.000 1.000000000000        100"), "{text}");
        assert!(lines[lines.len() - 4].starts_with("#[Mean    =        1.100, StdDeviation   ="));
        assert_eq!(
            lines[lines.len() - 3],
            "#[Max     =        2.000, Total count    =          100]"
        );
        assert!(lines[lines.len() - 2].ends_with("SubBuckets     =         2048]"));
        assert_eq!(lines[lines.len() - 1], "#[Mode    = x]");
    }
}
