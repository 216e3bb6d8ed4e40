//! The figures of a distribution, as tables and `summary.json` give them.

use serde::{Deserialize, Serialize};

use crate::record::Latency;

/// A distribution of latencies in microseconds. All zero where nothing was counted.
///
/// A percentile is the highest value that its bucket of the histogram holds (3 significant digits), as the official
/// HdrHistogram tools print it. It is read off merged counts; none is a mean of percentiles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    pub count: u64,
    pub min_us: u64,
    pub mean_us: f64,
    pub stddev_us: f64,
    pub p50_us: u64,
    pub p75_us: u64,
    pub p90_us: u64,
    pub p95_us: u64,
    pub p99_us: u64,
    pub p99_9_us: u64,
    pub p99_99_us: u64,
    pub p99_999_us: u64,
    pub max_us: u64,
}

impl Figures {
    pub fn of(latency: &Latency) -> Self {
        if latency.is_empty() {
            return Self::default();
        }
        let counts = latency.counts();
        let at = |share| counts.value_at_quantile(share);
        Self {
            count: counts.len(),
            min_us: counts.min(),
            // A nanosecond is more than three digits of a microsecond can tell.
            mean_us: (counts.mean() * 1e3).round() / 1e3,
            stddev_us: (counts.stdev() * 1e3).round() / 1e3,
            p50_us: at(0.5),
            p75_us: at(0.75),
            p90_us: at(0.9),
            p95_us: at(0.95),
            p99_us: at(0.99),
            p99_9_us: at(0.999),
            p99_99_us: at(0.9999),
            p99_999_us: at(0.99999),
            max_us: counts.max(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn figures_are_those_of_the_values() {
        let mut latency = Latency::default();
        for us in 1..=1000 {
            latency.record(Duration::from_micros(us));
        }
        let figures = Figures::of(&latency);
        assert_eq!((figures.count, figures.min_us, figures.max_us), (1000, 1, 1000));
        assert_eq!((figures.p50_us, figures.p90_us, figures.p99_us), (500, 900, 990));
        assert!((figures.mean_us - 500.5).abs() < 0.5, "{}", figures.mean_us);
        assert_eq!(Figures::of(&Latency::default()), Figures::default());
    }
}
