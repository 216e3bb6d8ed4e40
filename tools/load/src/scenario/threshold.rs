//! What must hold for a run to pass: `message.response p99.9 < 5ms`, `lost == 0`, `errors < 0.01%`.

use std::time::Duration;

use super::duration;
use crate::record::Operation;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Subject {
    /// A percentile (0 to 100) of the response time of an operation.
    Response(Operation, f64),
    /// The same from the write on.
    Service(Operation, f64),
    /// Done per second over the measured phases.
    Rate(Operation),
    /// Share of the planned operations that failed, were never begun or never done; of all operations without a name.
    Errors(Option<Operation>),
    /// Of the ledger.
    Lost,
    Duplicated,
    Reordered,
    Corrupted,
    /// Sessions that the server, or the way to it, ended.
    Disconnected,
}

/// How it is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    Below,
    AtMost,
    Equal,
    AtLeast,
    Above,
}

/// One condition on the measured phases.
#[derive(Clone, Debug, PartialEq)]
pub struct Threshold {
    /// As it was written.
    pub expression: String,
    pub subject: Subject,
    pub bound: Bound,
    /// Seconds, a share or a count, as the subject has it.
    pub limit: f64,
}

impl Threshold {
    /// - errors: what cannot be read, with an example of what can
    pub fn parse(text: &str) -> Result<Self, String> {
        const EXAMPLES: &str = "write as \"message.response p99.9 < 5ms\", \"message.rate >= 900\", \"lost == 0\" or \
                                \"errors < 0.01%\"";
        let bounds = [
            ("<=", Bound::AtMost),
            (">=", Bound::AtLeast),
            ("==", Bound::Equal),
            ("<", Bound::Below),
            (">", Bound::Above),
        ];
        let split = bounds.iter().find_map(|(sign, bound)| {
            text.split_once(sign).map(|(left, right)| (left.trim(), *bound, right.trim()))
        });
        let (left, bound, right) =
            split.ok_or_else(|| format!("\"{text}\" compares nothing; {EXAMPLES}"))?;
        let subject = subject(left).map_err(|what| format!("\"{text}\": {what}; {EXAMPLES}"))?;
        let limit = match subject {
            Subject::Response(..) | Subject::Service(..) => {
                duration(right).as_ref().map(Duration::as_secs_f64).map_err(Clone::clone)
            }
            Subject::Errors(_) => match right.strip_suffix('%') {
                Some(percent) => percent.trim().parse().map(|p: f64| p / 100.0),
                None => right.parse(),
            }
            .map_err(|_| format!("\"{right}\" is not a share, as 0.01%")),
            _ => right.parse().map_err(|_| format!("\"{right}\" is not a number")),
        };
        let limit = limit.map_err(|what| format!("\"{text}\": {what}; {EXAMPLES}"))?;
        if !limit.is_finite() || limit < 0.0 {
            return Err(format!("\"{text}\": \"{right}\" bounds nothing; {EXAMPLES}"));
        }
        Ok(Self { expression: text.to_owned(), subject, bound, limit })
    }

    /// Whether a measured value is within the bound.
    pub fn holds(&self, value: f64) -> bool {
        match self.bound {
            Bound::Below => value < self.limit,
            Bound::AtMost => value <= self.limit,
            Bound::Equal => value == self.limit,
            Bound::AtLeast => value >= self.limit,
            Bound::Above => value > self.limit,
        }
    }
}

fn subject(left: &str) -> Result<Subject, String> {
    match left {
        "lost" => return Ok(Subject::Lost),
        "duplicated" => return Ok(Subject::Duplicated),
        "reordered" => return Ok(Subject::Reordered),
        "corrupted" => return Ok(Subject::Corrupted),
        "disconnected" => return Ok(Subject::Disconnected),
        "errors" => return Ok(Subject::Errors(None)),
        _ => {}
    }
    let (name, rest) = left.split_once('.').ok_or(format!("\"{left}\" is not known"))?;
    let operation = Operation::ALL.into_iter().find(|operation| operation.name() == name);
    let operation = operation.ok_or_else(|| {
        let names: Vec<_> = Operation::ALL.iter().map(|operation| operation.name()).collect();
        format!("\"{name}\" is no operation; there are {}", names.join(", "))
    })?;
    match rest.split_whitespace().collect::<Vec<_>>()[..] {
        ["rate"] => Ok(Subject::Rate(operation)),
        ["errors"] => Ok(Subject::Errors(Some(operation))),
        [clock @ ("response" | "service"), share] => {
            let percent = match share {
                "max" => Some(100.0),
                "median" => Some(50.0),
                _ => share.strip_prefix('p').and_then(|digits| digits.parse().ok()),
            };
            let percent = percent.filter(|percent| (0.0..=100.0).contains(percent));
            let percent =
                percent.ok_or(format!("\"{share}\" is no percentile, as p99.9 or max"))?;
            Ok(if clock == "response" {
                Subject::Response(operation, percent)
            } else {
                Subject::Service(operation, percent)
            })
        }
        _ => Err(format!("\"{rest}\" is neither response, service, rate nor errors")),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn thresholds_of_each_form_are_read() {
        let read = |text| {
            let threshold = Threshold::parse(text).unwrap();
            (threshold.subject, threshold.bound, threshold.limit)
        };
        assert_eq!(
            read("message.response p99.9 < 5ms"),
            (Subject::Response(Operation::Message, 99.9), Bound::Below, 0.005)
        );
        assert_eq!(
            read("room-message.service max <= 1s"),
            (Subject::Service(Operation::RoomMessage, 100.0), Bound::AtMost, 1.0)
        );
        assert_eq!(read("lost == 0"), (Subject::Lost, Bound::Equal, 0.0));
        assert_eq!(read("errors < 0.01%"), (Subject::Errors(None), Bound::Below, 0.0001));
        assert_eq!(
            read("login.rate >= 100"),
            (Subject::Rate(Operation::Login), Bound::AtLeast, 100.0)
        );
    }

    #[test]
    fn what_cannot_be_read_says_what_can() {
        for (text, part) in [
            ("message.response p99", "compares nothing"),
            ("message.response p101 < 5ms", "no percentile"),
            ("mesage.response p99 < 5ms", "no operation"),
            ("message.response p99 < 5", "no unit"),
            ("lost == none", "not a number"),
            ("speed > 3", "not known"),
        ] {
            let message = Threshold::parse(text).unwrap_err();
            assert!(message.contains(part) && message.contains("write as"), "{message}");
        }
    }

    #[test]
    fn each_bound_compares_as_it_reads() {
        let holds = |text, value| Threshold::parse(text).unwrap().holds(value);
        assert!(holds("lost == 0", 0.0) && !holds("lost == 0", 1.0));
        assert!(holds("errors < 1%", 0.009) && !holds("errors < 1%", 0.01));
        assert!(holds("ping.rate >= 10", 10.0) && !holds("ping.rate > 10", 10.0));
        assert!(holds("ping.response max <= 1s", 1.0));
    }
}
