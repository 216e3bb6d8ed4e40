//! The log: our own words at the chosen level, which a reload may change.

use crate::config::{Config, LogFormat, LogLevel};
use std::io::IsTerminal;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

/// Changes the level of a log that runs.
pub(super) struct LogControl(reload::Handle<EnvFilter, Registry>);

impl LogControl {
    pub(super) fn set_level(&self, level: LogLevel) {
        // Fails only where another log runs, which has a level of its own.
        let _ = self.0.reload(filter(level));
    }
}

/// Libraries warn, whatever the level.
fn filter(level: LogLevel) -> EnvFilter {
    EnvFilter::new(format!("warn,corefire={}", level.as_str()))
}

/// Starts the log on standard error. One that runs already stays.
pub(super) fn start(config: &Config) -> LogControl {
    let (filter, handle) = reload::Layer::new(filter(config.log.level));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    let lines = match config.log.format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
    std::panic::set_hook(Box::new(|panic| {
        let trace = std::backtrace::Backtrace::force_capture();
        tracing::error!("fault: {panic}\n{trace}");
    }));
    LogControl(handle)
}
