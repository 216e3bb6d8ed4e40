//! From values to places on the paper.

/// A straight or logarithmic axis.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    is_logarithmic: bool,
    /// Between ticks of a straight axis.
    step: f64,
}

impl Scale {
    /// From zero to at least `high`; ends on a tick.
    pub(crate) fn straight(high: f64, from: f64, to: f64) -> Self {
        Self::stepped(high, from, to, step)
    }

    /// The same with ticks at round numbers of KiB, MiB …
    pub(crate) fn of_bytes(high: f64, from: f64, to: f64) -> Self {
        let unit = 1024f64.powf((high.max(1.0).ln() / 1024f64.ln()).floor());
        Self::stepped(high, from, to, |high| step(high / unit) * unit)
    }

    fn stepped(high: f64, from: f64, to: f64, step: impl Fn(f64) -> f64) -> Self {
        let high = if high > 0.0 { high } else { 1.0 };
        let step = step(high);
        let high = (high / step).ceil() * step;
        Self { low: 0.0, high, from, to, is_logarithmic: false, step }
    }

    /// Without ticks at its ends.
    pub(crate) fn exact(high: f64, from: f64, to: f64) -> Self {
        Self {
            low: 0.0,
            high: high.max(f64::MIN_POSITIVE),
            from,
            to,
            is_logarithmic: false,
            step: high,
        }
    }

    /// From at most `low` to at least `high`, both of the row 1, 2, 5, 10 …; spans at least a decade.
    pub(crate) fn logarithmic(low: f64, high: f64, from: f64, to: f64) -> Self {
        let low = round(low.max(1e-9), false);
        let high = round(high.max(low * 10.0), true);
        Self { low, high, from, to, is_logarithmic: true, step: high }
    }

    pub(crate) fn at(&self, value: f64) -> f64 {
        let share = if self.is_logarithmic {
            (value.max(self.low) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.from + share.clamp(0.0, 1.0) * (self.to - self.from)
    }

    pub(crate) fn low(&self) -> f64 {
        self.low
    }

    pub(crate) fn high(&self) -> f64 {
        self.high
    }

    /// Where lines and values are written.
    pub(crate) fn ticks(&self) -> Vec<f64> {
        if self.is_logarithmic {
            let decades = (self.high / self.low).log10();
            let steps: &[f64] = if decades > 3.2 { &[1.0] } else { &[1.0, 2.0, 5.0] };
            let first = self.low.log10().floor() as i32;
            let last = self.high.log10().ceil() as i32;
            return (first..=last)
                .flat_map(|decade| steps.iter().map(move |step| step * 10f64.powi(decade)))
                .filter(|tick| {
                    *tick >= self.low * (1.0 - 1e-9) && *tick <= self.high * (1.0 + 1e-9)
                })
                .collect();
        }
        (0..=(self.high / self.step + 1e-9) as usize).map(|n| n as f64 * self.step).collect()
    }
}

/// Four to eight of them reach `high`.
fn step(high: f64) -> f64 {
    let rough = high / 5.0;
    let decade = 10f64.powf(rough.log10().floor());
    let part = rough / decade;
    decade
        * if part <= 1.0 {
            1.0
        } else if part <= 2.0 {
            2.0
        } else if part <= 5.0 {
            5.0
        } else {
            10.0
        }
}

/// The next of 1, 2, 5, 10 … above or below.
fn round(value: f64, is_up: bool) -> f64 {
    let decade = 10f64.powf(value.log10().floor());
    let part = value / decade;
    let steps = [1.0, 2.0, 5.0, 10.0];
    let found = if is_up {
        steps.iter().find(|step| **step >= part * (1.0 - 1e-9))
    } else {
        steps.iter().rev().find(|step| **step <= part * (1.0 + 1e-9))
    };
    decade * found.copied().unwrap_or(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logarithmic_axis_ends_on_its_ticks() {
        let scale = Scale::logarithmic(130.0, 4200.0, 100.0, 0.0);
        assert_eq!((scale.low().round(), scale.high().round()), (100.0, 5000.0));
        let ticks: Vec<f64> = scale.ticks().iter().map(|tick| tick.round()).collect();
        assert_eq!(ticks, [100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0]);
        assert_eq!((scale.at(100.0), scale.at(5000.0), scale.at(1.0)), (100.0, 0.0, 100.0));
    }

    #[test]
    fn a_straight_axis_begins_at_zero_and_ends_on_a_tick() {
        let scale = Scale::straight(2130.0, 0.0, 10.0);
        assert_eq!(scale.ticks(), [0.0, 500.0, 1000.0, 1500.0, 2000.0, 2500.0]);
        assert_eq!(Scale::straight(0.0, 0.0, 1.0).ticks().len(), 6);
        let mebibytes = |n: f64| n * 1024.0 * 1024.0;
        let scale = Scale::of_bytes(mebibytes(38.0), 0.0, 1.0);
        assert_eq!(scale.ticks(), [0.0, 10.0, 20.0, 30.0, 40.0].map(mebibytes));
    }
}
