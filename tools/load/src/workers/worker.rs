//! The worker's side: a process that drives its share.

use std::io::{self, BufRead, BufReader};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::letter::{self, Order, Word};
use crate::cli::Exit;
use crate::drive::{Failure, Flow, ShareReport, run_share};
use crate::plan::Plan;
use crate::record::Interval;
use crate::sys;

/// Does what standard input says, and tells what it sees on standard output, until the run is over or standard input
/// ends, as it does with the process that gives the orders.
///
/// - gives: 0 if it was told all, 2 if not
pub fn serve() -> Exit {
    let (sender, words) = mpsc::channel();
    // Written elsewhere, so that a reader that is slow delays nothing that is measured.
    let writer = std::thread::spawn(move || {
        let mut out = io::stdout().lock();
        words.iter().try_for_each(|word: Word| letter::write(&mut out, &word))
    });
    let word = match drive(&sender) {
        Ok(report) => Word::Done(Box::new(report)),
        Err(Failure::Target(what)) => Word::TargetFault(what),
        Err(Failure::Tool(error)) => Word::Fault(error.to_string()),
    };
    let is_done = matches!(word, Word::Done(_));
    // Nobody listens: the writer has failed, which is seen below.
    let _ = sender.send(word);
    drop(sender);
    let is_told = matches!(writer.join(), Ok(Ok(())));
    if is_done && is_told { Exit::Pass } else { Exit::Invalid }
}

fn drive(words: &mpsc::Sender<Word>) -> Result<ShareReport, Failure> {
    let fault = |what: &str| Failure::Tool(crate::Error::Worker(what.to_owned()));
    let mut orders = BufReader::new(io::stdin()).lines();
    let mut next = move || -> Option<Order> { serde_json::from_str(&orders.next()?.ok()?).ok() };
    let Some(Order::Prepare { request, share }) = next() else {
        return Err(fault("has no order to prepare"));
    };
    let plan = Plan::new(&request).map_err(|_| fault("makes no plan of what made one before"))?;
    // A failed send shows when the run ends.
    let _ = words.send(Word::Ready);
    let Some(Order::Start { at }) = next() else {
        return Err(fault("has no order to start"));
    };
    let begin = instant(at).map_err(|error| Failure::Tool(crate::Error::Io("clock", error)))?;
    let stop = Arc::new(AtomicBool::new(false));
    let stopping = Arc::clone(&stop);
    std::thread::spawn(move || {
        // Whether an order to stop or the end: nobody wants more.
        while next().is_some_and(|order| order != Order::Stop) {}
        stopping.store(true, Ordering::Relaxed);
    });
    run_share(&plan, share, begin, &mut |interval: &Interval| {
        let sent = words.send(Word::Second(Box::new(interval.clone())));
        let is_over = sent.is_err() || stop.load(Ordering::Relaxed);
        if is_over { Flow::Stop } else { Flow::Continue }
    })
}

/// A moment of the machine's clock as one of this process.
fn instant(at: Duration) -> io::Result<Instant> {
    let (now, clock) = (Instant::now(), sys::monotonic()?);
    let earlier = || now.checked_sub(clock.saturating_sub(at)).unwrap_or(now);
    Ok(if at >= clock { now + (at - clock) } else { earlier() })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_machines_clock_is_that_of_instants() {
        let at = sys::monotonic().unwrap() + Duration::from_millis(500);
        let ahead = instant(at).unwrap().saturating_duration_since(Instant::now());
        assert!(ahead > Duration::from_millis(300) && ahead <= Duration::from_millis(500));
        let past = instant(sys::monotonic().unwrap() - Duration::from_millis(5)).unwrap();
        assert!(past < Instant::now());
    }
}
