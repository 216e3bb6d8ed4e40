//! Signals as events, read by a side thread.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// What an operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT: end in order.
    Stop,
    /// SIGHUP, which must not end the node as it would by default.
    Hangup,
}

/// Calls `told` on a side thread for each signal. To be called before any other thread starts.
pub fn listen(told: impl Fn(Signal) + Send + 'static) -> std::io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            told(if signal == SIGHUP { Signal::Hangup } else { Signal::Stop });
        }
    })?;
    Ok(())
}
