//! What goes over the pipes between a run and its workers: a line of JSON each.

use std::io::{self, Write};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::drive::ShareReport;
use crate::plan::{Request, Share};
use crate::record::Interval;

/// To a worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Order {
    /// The first: make the plan and be ready.
    Prepare { request: Box<Request>, share: Share },
    /// The plan's zero, on the clock that all processes of a machine share ([`crate::sys::monotonic`]).
    Start { at: Duration },
    /// End in order.
    Stop,
}

/// From a worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Word {
    Ready,
    Second(Box<Interval>),
    /// The last, if all went well.
    Done(Box<ShareReport>),
    /// The last: the target cannot be used.
    TargetFault(String),
    /// The last: the worker's own trouble.
    Fault(String),
}

/// Writes one line and flushes it.
pub(super) fn write(out: &mut impl Write, letter: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(letter).map_err(io::Error::other)?;
    line.push(b'\n');
    out.write_all(&line)?;
    out.flush()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_letter_is_one_line_and_is_read_back() {
        let words = [
            Word::Ready,
            Word::Second(Box::new(Interval { number: 7, ..Interval::default() })),
            Word::Done(Box::default()),
            Word::TargetFault("two\nlines".to_owned()),
        ];
        for word in words {
            let mut line = Vec::new();
            write(&mut line, &word).unwrap();
            assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            assert_eq!(serde_json::from_slice::<Word>(&line).unwrap(), word);
        }
        let start = Order::Start { at: Duration::from_nanos(1_234_567_891_234_567) };
        let text = serde_json::to_string(&start).unwrap();
        assert_eq!(serde_json::from_str::<Order>(&text).unwrap(), start);
    }
}
