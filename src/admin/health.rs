//! Whether a node can serve: what `/readyz` tells a balancer.

/// Where a node is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Starting,
    Serving,
    Stopping,
}

/// A shard that has not come round its loop for this long cannot serve. Its loop comes round ten times a second.
pub const STALL_MS: u64 = 5_000;

/// What is known when somebody asks.
#[derive(Clone, Debug)]
pub struct Health {
    pub stage: Stage,
    /// Milliseconds since each shard came round its loop.
    pub shard_silence_ms: Vec<u64>,
    /// The same of each federation core.
    pub federation_silence_ms: Vec<u64>,
    pub store_is_failing: bool,
    /// The node is in a cluster, and may not act as the owner of anything.
    pub lacks_lease: bool,
    /// The node lets its clients go, or has.
    pub is_drained: bool,
}

impl Health {
    /// Whether clients can be served.
    ///
    /// - errors: why not, a clause
    pub fn check(&self) -> Result<(), String> {
        match self.stage {
            Stage::Starting => return Err("the node is starting".into()),
            Stage::Stopping => return Err("the node is stopping".into()),
            Stage::Serving => {}
        }
        let mut silence = self.shard_silence_ms.iter().enumerate();
        if let Some((shard, silence)) = silence.find(|(_, silence)| **silence > STALL_MS) {
            return Err(format!("shard {shard} has stood still for {} s", silence / 1_000));
        }
        let mut silence = self.federation_silence_ms.iter().enumerate();
        if let Some((core, silence)) = silence.find(|(_, silence)| **silence > STALL_MS) {
            return Err(format!(
                "federation core {core} has stood still for {} s",
                silence / 1_000
            ));
        }
        if self.store_is_failing {
            return Err("the store takes no writes".into());
        }
        if self.lacks_lease {
            return Err("the node has no lease in its cluster".into());
        }
        if self.is_drained {
            return Err("the node is drained".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_ready_when_it_serves_and_no_part_of_it_hangs() {
        let well = Health {
            stage: Stage::Serving,
            shard_silence_ms: vec![0, 99],
            federation_silence_ms: vec![7],
            store_is_failing: false,
            lacks_lease: false,
            is_drained: false,
        };
        assert_eq!(well.check(), Ok(()));
        let why = |health: Health| health.check().err().unwrap_or_default();
        assert!(why(Health { stage: Stage::Starting, ..well.clone() }).contains("starting"));
        assert!(why(Health { stage: Stage::Stopping, ..well.clone() }).contains("stopping"));
        let stalled = Health { shard_silence_ms: vec![0, 7_900], ..well.clone() };
        assert_eq!(why(stalled), "shard 1 has stood still for 7 s");
        let stalled = Health { federation_silence_ms: vec![0, 6_000], ..well.clone() };
        assert_eq!(why(stalled), "federation core 1 has stood still for 6 s");
        assert!(why(Health { lacks_lease: true, ..well.clone() }).contains("lease"));
        assert_eq!(why(Health { is_drained: true, ..well.clone() }), "the node is drained");
        assert!(why(Health { store_is_failing: true, ..well }).contains("store"));
    }
}
