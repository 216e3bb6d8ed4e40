//! The configuration read again while the node runs: all of it is checked first, and a fault changes nothing.

use super::{
    Desk, Error, Itself, STATUS_PATIENCE, certificates, core_settings, federation, log::LogControl,
    make_features, offered_scram, policy, retention_rules,
};
use crate::config::{Config, Origin};
use crate::runtime::control::Reloaded;
use crate::runtime::executor::CoreSettings;
use crate::runtime::mailbox::{Letter, Reconfiguration};
use crate::runtime::passwords::Passwords;
use crate::runtime::preflight;
use crate::runtime::retention::Retention;
use crate::runtime::tls::TlsServer;
use crate::shard::ShardConfig;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

/// What a reload needs beside the shards.
pub(super) struct Reloading {
    pub(super) origin: Origin,
    pub(super) log: LogControl,
    pub(super) tls: TlsServer,
    pub(super) passwords: Passwords,
    pub(super) retention: Retention,
    pub(super) itself: Itself,
}

/// What is checked and will be applied.
struct Prepared {
    config: Config,
    shard: ShardConfig,
    core: CoreSettings,
    federation: Option<federation::Reload>,
    told: Reloaded,
}

impl Desk {
    /// Reads the configuration again and has all shards go by it. When it returns they do.
    ///
    /// - errors: every fault, a line each; nothing has changed
    pub(super) fn reload(&self) -> Result<Reloaded, Error> {
        let mut reloading = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let running = self.config.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let prepared = match self.prepare(&reloading, &running) {
            Ok(prepared) => prepared,
            Err(error) => {
                for fault in error.to_string().lines() {
                    tracing::error!(fault, "the configuration is not reloaded");
                }
                return Err(error);
            }
        };
        let Prepared { config, shard, core, federation, told } = prepared;
        reloading.log.set_level(config.log.level);
        reloading.passwords.set_limit(config.limits.password_checks_queue as usize);
        reloading.retention.set_rules(retention_rules(&config));
        reloading.tls = core.tls.clone();
        *self.certificates.lock().unwrap_or_else(PoisonError::into_inner) =
            core.tls.expiries(&config.domains);
        self.connections_max.store(core.connections_max as u64, Ordering::Relaxed);
        let news =
            Reconfiguration { shard: Arc::new(shard), features: make_features(&config), core };
        for mailbox in &self.mailboxes {
            mailbox.send(Letter::Reconfigured(Box::new(news.clone())));
        }
        if let Some((part, reload)) = self.federation.as_ref().zip(federation) {
            part.reload(&config, reload);
            part.figures(STATUS_PATIENCE);
        }
        // Whoever acts on the answer must not find the node as it was before.
        self.figures();
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = config;
        for line in &told.applied {
            tracing::info!(key = key(line), "reloaded");
            tracing::debug!(change = %line, "reloaded");
        }
        for line in &told.waiting {
            tracing::warn!(key = key(line), "changed, and needs a restart of the node");
        }
        if told.applied.is_empty() {
            tracing::info!("reloaded: nothing to apply");
        }
        Ok(told)
    }

    /// Checks all of it, and changes nothing.
    fn prepare(&self, with: &Reloading, running: &Config) -> Result<Prepared, Error> {
        let read = with.origin.load()?;
        let mut told = Reloaded::default();
        for change in running.changes(&read) {
            let list = if change.applied { &mut told.applied } else { &mut told.waiting };
            list.push(change.to_string());
        }
        let config = running.reloaded(read);
        let renewed = certificates::renewed(&with.tls, &config, &self.data_dir)?;
        if renewed.is_some() && !told.applied.iter().any(|line| line.starts_with("tls.")) {
            told.applied.push("tls: certificates were renewed".to_owned());
        }
        told.warnings = config.certificate_warnings();
        let connections = config.limits.connections as usize;
        let needed = federation::needed(&config, with.itself.shards);
        let granted = preflight::check(needed, connections)?;
        let changed = connections != running.limits.connections as usize;
        if changed && granted.connections < connections {
            told.warnings.push(format!(
                "limits.connections: {connections} are asked for, open files are left for {}",
                granted.connections
            ));
        }
        let tls = renewed.unwrap_or_else(|| with.tls.clone());
        let federation = self.federation.as_ref().map(|part| part.check(&config, &tls));
        let federation = federation.transpose()?;
        let core = core_settings(&config, granted, tls);
        let scram = {
            let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
            offered_scram(&config, reader.as_mut())?
        };
        let shard = with.itself.shard_config(&config, policy(&config, scram));
        Ok(Prepared { config, shard, core, federation, told })
    }
}

/// Values may be addresses, which the log shows at `debug` only.
fn key(line: &str) -> &str {
    line.split_once(": ").map_or(line, |(key, _)| key)
}
