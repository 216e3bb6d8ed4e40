//! Latencies in microseconds: 3 significant digits from 1 µs to 1 h.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};
use serde::{Deserialize, Serialize};

/// The longest latency that is told apart; longer ones count as this.
pub(super) const MAX_US: u64 = 3_600_000_000;
const DIGITS: u8 = 3;

/// One distribution of latencies. Grows with what it holds, from some 8 KiB to 190 KiB.
#[derive(Clone, Debug, PartialEq)]
pub struct Latency {
    counts: Histogram<u64>,
}

impl Default for Latency {
    fn default() -> Self {
        let counts = Histogram::new(DIGITS);
        #[expect(clippy::unwrap_used, reason = "3 digits are within the library's 0 to 5")]
        let mut counts = counts.unwrap();
        counts.auto(true);
        Self { counts }
    }
}

impl Latency {
    /// Less than 1 µs counts as 1 µs, more than 1 h as 1 h.
    pub fn record(&mut self, value: Duration) {
        self.record_n(value, 1);
    }

    /// The same value `count` times.
    pub fn record_n(&mut self, value: Duration, count: u64) {
        let us = u64::try_from(value.as_micros()).unwrap_or(MAX_US).clamp(1, MAX_US);
        // Fails only for values that a histogram that grows cannot hold.
        let _ = self.counts.record_n(us, count);
    }

    /// Adds what another one counted; exact.
    pub fn merge(&mut self, other: &Self) {
        // Both grow and have the same digits, which are the two ways to fail.
        let _ = self.counts.add(&other.counts);
    }

    pub fn count(&self) -> u64 {
        self.counts.len()
    }

    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// The value that `share` (0 to 1) of all do not exceed; zero if there is none.
    pub fn quantile(&self, share: f64) -> Duration {
        if self.is_empty() {
            return Duration::ZERO;
        }
        Duration::from_micros(self.counts.value_at_quantile(share))
    }

    pub fn max(&self) -> Duration {
        Duration::from_micros(self.counts.max())
    }

    pub fn mean(&self) -> Duration {
        Duration::from_secs_f64(self.counts.mean().max(0.0) / 1e6)
    }

    /// The library's histogram, in microseconds: for artefacts and charts.
    pub fn counts(&self) -> &Histogram<u64> {
        &self.counts
    }

    /// What another tool counted in microseconds; `None` if a value is above 1 h.
    pub fn from_counts(counts: Histogram<u64>) -> Option<Self> {
        let mut latency = Self::default();
        latency.counts.add(counts).ok()?;
        (latency.counts.max() <= latency.counts.highest_equivalent(MAX_US)).then_some(latency)
    }

    pub fn pack(&self) -> PackedLatency {
        let mut bytes = Vec::new();
        // Writing to memory does not fail; counts are below the format's 2^63.
        let _ = V2Serializer::new().serialize(&self.counts, &mut bytes);
        PackedLatency(BASE64.encode(bytes))
    }
}

/// A [`Latency`] as base64 of the HdrHistogram V2 encoding: some hundred bytes for a second of load.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackedLatency(String);

/// A packed histogram that is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadableHistogram;

impl std::fmt::Display for UnreadableHistogram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("not base64 of an HdrHistogram in V2 encoding")
    }
}

impl std::error::Error for UnreadableHistogram {}

impl PackedLatency {
    /// - errors: it comes from another process and is damaged
    pub fn unpack(&self) -> Result<Latency, UnreadableHistogram> {
        if self.0.is_empty() {
            return Ok(Latency::default());
        }
        let bytes = BASE64.decode(&self.0).map_err(|_| UnreadableHistogram)?;
        let mut counts: Histogram<u64> = Deserializer::new()
            .deserialize(&mut bytes.as_slice())
            .map_err(|_| UnreadableHistogram)?;
        counts.auto(true);
        Ok(Latency { counts })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_read_back_and_merges_to_the_same_percentiles() {
        let (mut odd, mut even, mut all) =
            (Latency::default(), Latency::default(), Latency::default());
        for us in 1..=200_000u64 {
            let value = Duration::from_micros(us);
            if us % 2 == 0 {
                even.record(value)
            } else {
                odd.record(value)
            }
            all.record(value);
        }
        let mut merged = odd.pack().unpack().unwrap();
        merged.merge(&even.pack().unpack().unwrap());
        assert_eq!(merged.count(), 200_000);
        for share in [0.0, 0.5, 0.9, 0.99, 0.999, 1.0] {
            assert_eq!(merged.quantile(share), all.quantile(share));
        }
        assert!(PackedLatency("AAAA".to_owned()).unpack().is_err());
        assert!(PackedLatency::default().unpack().unwrap().is_empty());
    }

    #[test]
    fn hours_and_nanoseconds_are_kept_within_the_bounds() {
        let mut latency = Latency::default();
        latency.record(Duration::from_nanos(3));
        latency.record(Duration::from_secs(7200));
        assert_eq!(latency.count(), 2);
        assert_eq!(latency.quantile(0.1), Duration::from_micros(1));
        assert!(
            latency.max() >= Duration::from_secs(3590)
                && latency.max() <= Duration::from_secs(3610)
        );
    }
}
