//! What one shard counts. One per core, plain numbers, summed when read; labels are enums, never JIDs.

/// Counters since the start, and a few gauges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probe {
    pub connections: u64,
    pub connections_accepted: u64,
    /// Above the rate of their network.
    pub connections_refused: u64,
    /// From networks that are banned.
    pub connections_banned: u64,
    pub connections_moved_out: u64,
    pub connections_moved_in: u64,
    pub logins: u64,
    pub logins_failed: u64,
    pub sessions_resumed: u64,
    pub stanzas_in: u64,
    pub stanzas_out: u64,
    pub messages_delivered: u64,
    pub messages_stored: u64,
    pub messages_bounced: u64,
    pub presence_dropped: u64,
    pub frames_out: u64,
    pub frames_in: u64,
    /// Messages that clients got, by how often they crossed from node to node; the last counts all above.
    pub hops: [u64; 5],
    /// Of other nodes, that were there already or came ahead of others; they are not missed.
    pub frames_repeated: u64,
    /// Messages of clients whose account is on another node, sent from here to where they are for.
    pub messages_sent_directly: u64,
    /// For accounts that are another's: sent on.
    pub frames_passed_on: u64,
    /// Sent to new owners, as the old one is gone.
    pub frames_retried: u64,
    /// Messages of such frames that were in the log already.
    pub duplicates_dropped: u64,
    /// Sessions that went with their accounts, and came.
    pub sessions_moved_out: u64,
    pub sessions_moved_in: u64,
    /// Frames and bytes that told copies of sessions at other nodes what changed.
    pub copy_frames: u64,
    pub copy_bytes: u64,
    /// Sessions that were left without a copy, as there was no room for it.
    pub copies_refused: u64,
    /// Copies of dead owners' sessions that became sessions, or were sent on as such.
    pub copies_revived: u64,
    /// Copies that are kept here now, and their bytes.
    pub copies: u64,
    pub copies_bytes: u64,
    pub posts_dropped: u64,
    /// From a federation core, with a sender that is ours or a recipient that is not: a bug, as peers are checked there.
    pub frames_refused: u64,
    pub faults: u64,
    pub slow_readers_closed: u64,
    /// Because rings or the store are full.
    pub reads_paused: u64,
    /// Because a session, its account or its network is above its rate.
    pub reads_slowed: u64,
    /// Established now.
    pub component_connections: u64,
    pub component_stanzas_in: u64,
    pub component_stanzas_out: u64,
    /// Stanzas for a component that had no connection, or lost it before they left.
    pub component_stanzas_bounced: u64,
}
