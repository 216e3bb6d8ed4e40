//! Why a datagram of the cluster was not taken, and how often.

/// What was wrong with a beacon or a gossip datagram. It was dropped, nothing was answered and nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("it is not of this protocol")]
    NotOurs,
    #[error("it is of version {0} of the protocol")]
    OtherVersion(u8),
    /// Forged, damaged, or of a cluster with another secret: these cannot be told apart.
    #[error("its authentication code is wrong: another secret, or it was changed on the way")]
    BadMac,
    #[error("it is too old: it was recorded, or a clock is wrong")]
    TooOld,
    #[error("it is from the future: a clock is wrong")]
    TooNew,
    #[error("it came before")]
    Replayed,
    /// Authentic, so a fault of the program that sent it.
    #[error("it is malformed or contradicts itself")]
    Malformed,
    #[error("it names more nodes than there is room for")]
    Crowded,
}

impl Refusal {
    const KINDS: usize = 8;
    /// As in metrics, in the order of `place`.
    const LABELS: [&str; Refusal::KINDS] = [
        "not_ours",
        "other_version",
        "bad_mac",
        "too_old",
        "too_new",
        "replayed",
        "malformed",
        "crowded",
    ];

    fn place(self) -> usize {
        match self {
            Refusal::NotOurs => 0,
            Refusal::OtherVersion(_) => 1,
            Refusal::BadMac => 2,
            Refusal::TooOld => 3,
            Refusal::TooNew => 4,
            Refusal::Replayed => 5,
            Refusal::Malformed => 6,
            Refusal::Crowded => 7,
        }
    }

    /// The name of the reason in metrics.
    pub fn label(self) -> &'static str {
        Refusal::LABELS[self.place()]
    }
}

/// Refused datagrams by reason, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusals([u64; Refusal::KINDS]);

impl Refusals {
    pub fn count(&mut self, refusal: Refusal) {
        self.0[refusal.place()] += 1;
    }

    /// How often for this reason; all versions are one.
    pub fn of(&self, refusal: Refusal) -> u64 {
        self.0[refusal.place()]
    }

    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Each reason's name in metrics with its count.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Refusal::LABELS.into_iter().zip(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_counted_by_itself() {
        let all = [
            Refusal::NotOurs,
            Refusal::OtherVersion(9),
            Refusal::BadMac,
            Refusal::TooOld,
            Refusal::TooNew,
            Refusal::Replayed,
            Refusal::Malformed,
            Refusal::Crowded,
        ];
        let mut refusals = Refusals::default();
        for (times, refusal) in all.into_iter().enumerate() {
            for _ in 0..=times {
                refusals.count(refusal);
            }
        }
        for ((label, count), (times, refusal)) in refusals.iter().zip(all.into_iter().enumerate()) {
            assert_eq!((label, count), (refusal.label(), times as u64 + 1));
        }
        assert_eq!(refusals.total(), 36);
    }
}
