//! What a shard is told at its start, and again when the node reloads its configuration. Copied to every core.

use super::access::Access;
use super::rate::Rates;
use crate::base::limit::Rate;
use crate::cluster::placement::NodeId;
use crate::stream::c2s::C2sPolicy;
use crate::stream::component::ComponentAccess;
use crate::xmpp::jid::BareJid;
use std::sync::Arc;
use std::time::Duration;

/// When a stanza counts as handled (DESIGN: `[storage] ack`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AckLevel {
    /// Durable, or delivered and acknowledged, or answered with an error.
    #[default]
    Stored,
    /// Reached the owner of its recipient.
    Received,
}

/// Bounds on everything that peers can grow; each names the condition it answers.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Time from accept to a bound resource; then `connection-timeout`.
    pub login_timeout: Duration,
    /// Silence after which a client is pinged, and half of what it may then take to answer.
    pub silence: Duration,
    /// Failed logins of one connection; then `policy-violation`.
    pub login_attempts: u8,
    /// Failed logins to an account, and from a network (/24, /64) to accounts of a shard; above, the answer is
    /// `temporary-auth-failure`, with one more attempt from time to time.
    pub failed_logins_account: Rate,
    pub failed_logins_network: Rate,
    /// Accounts and networks whose failed logins are counted; above, the oldest are forgotten.
    pub failed_logins_tracked: usize,
    /// Installations of clients that hold tokens of one account (XEP-0484); above, the one idle for longest loses its own.
    pub token_holders: usize,
    /// How long a token is good for; a client that comes in its last three quarters gets another.
    pub token_life: Duration,
    /// Bytes waiting for a slow reader; above, its connection is closed (and its session may be resumed). A session
    /// keeps twice as many unacknowledged; above, it ends.
    pub output_bytes: usize,
    /// Bound resources of an account; above, `resource-constraint`.
    pub resources_per_account: usize,
    /// Contacts in a roster; above, `not-acceptable`.
    pub roster_items: usize,
    /// Requests to see its presence that wait in an account, beside those of its contacts; above, the answer is
    /// `unsubscribed`.
    pub subscription_requests: usize,
    /// Requests to the store under way at which a probe no longer has an absent account read; it is not answered then
    /// (RFC 6121 §4.3.2 does not demand it).
    pub probe_reads: usize,
    /// Groups of one contact, and bytes of its name or of one group's; above, `not-acceptable`.
    pub roster_groups: usize,
    pub roster_name_bytes: usize,
    /// Addresses in an account's block list (XEP-0191); above, `not-acceptable`.
    pub block_list_items: usize,
    /// Addresses that a session keeps informed by directed presence; above, `resource-constraint`.
    pub directed_presence: usize,
    /// Rows of an account's log that nobody confirmed; above, `service-unavailable` (XEP-0160).
    pub offline_messages: u32,
    /// Messages of one page of an archive, and ids that one query may name; above, pages are shorter, and the answer to
    /// ids is `policy-violation`.
    pub archive_page: u32,
    /// How far the messages that match a query are counted where their number is asked for; above, it is not told.
    pub archive_count: u32,
    /// Addresses in an account's archiving preferences (XEP-0441); above, `not-acceptable`.
    pub archive_preferences: usize,
    /// Stanzas held back for an inactive client (XEP-0352), and their bytes; above, all of them are sent.
    pub held_stanzas: usize,
    pub held_bytes: usize,
    /// How long a cut session waits for `<resume/>`.
    pub resume: Duration,
    /// Ended sessions whose handled number is told to who wants to resume one of them; above, the oldest is forgotten,
    /// and its client is told no number.
    pub sessions_remembered: usize,
    /// Copies that a shard keeps of other nodes' sessions (R4), and their bytes; above, a session goes on without one.
    pub copies: usize,
    pub copy_bytes: usize,
    /// Stanzas or logged rows that a session leaves unacknowledged; above, the session ends.
    pub resume_queue: usize,
    /// Stanzas waiting while an account is read from the store; above, `resource-constraint`.
    pub pending_stanzas: usize,
    /// Accounts in memory on one shard; above, idle ones are evicted, then new ones get `resource-constraint`.
    pub accounts: usize,
    /// A vCard; above, `policy-violation`.
    pub vcard_bytes: usize,
    /// All private XML of an account, and its elements; above, `policy-violation`.
    pub private_bytes: usize,
    pub private_items: usize,
    /// IQs delivered to one session and not answered; above, `resource-constraint`.
    pub open_iqs: usize,
    /// How long an account that was made in-band is in quarantine, none for zero; and strangers that it may write to in
    /// an hour, above which the answer is `policy-violation`.
    pub quarantine: Duration,
    pub quarantine_strangers: usize,
    /// What clients may send over time; above, they are slowed.
    pub rates: Rates,
    /// Connections that one component may have at a time; above, `resource-constraint`.
    pub component_connections: usize,
    /// IQs that one connection of a component was asked and has not answered; above, the oldest is forgotten, and is not
    /// answered for the component when the connection is lost.
    pub component_open_iqs: usize,
}

impl Default for Limits {
    /// Those of a node without a configuration file, on one shard.
    fn default() -> Self {
        Self {
            login_timeout: Duration::from_secs(30),
            silence: Duration::from_secs(1_800),
            login_attempts: 5,
            failed_logins_account: Rate::FREE,
            failed_logins_network: Rate::FREE,
            failed_logins_tracked: 65_536,
            token_holders: 32,
            token_life: Duration::from_secs(21 * 86_400),
            output_bytes: 4 << 20,
            resources_per_account: 32,
            roster_items: 2_000,
            subscription_requests: 200,
            probe_reads: 256,
            roster_groups: 32,
            roster_name_bytes: 1_023,
            block_list_items: 1_000,
            directed_presence: 256,
            offline_messages: 1_000,
            archive_page: 100,
            archive_count: 100_000,
            archive_preferences: 1_000,
            held_stanzas: 200,
            held_bytes: 64 << 10,
            resume: Duration::from_secs(300),
            resume_queue: 2_000,
            copies: 100_000,
            copy_bytes: 256 << 20,
            sessions_remembered: 16_384,
            pending_stanzas: 256,
            accounts: 100_000,
            vcard_bytes: 128 << 10,
            private_bytes: 256 << 10,
            private_items: 64,
            open_iqs: 256,
            quarantine: Duration::ZERO,
            quarantine_strangers: 10,
            rates: Rates::default(),
            component_connections: 64,
            component_open_iqs: 4_096,
        }
    }
}

/// Everything a shard's decisions depend on beside its input.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    pub policy: C2sPolicy,
    pub limits: Limits,
    pub ack: AckLevel,
    /// Whether accounts have archives (XEP-0313).
    pub archive: bool,
    /// Who is kept out.
    pub access: Access,
    /// For accounts that do not exist, so that they look as if they did.
    pub scram_iterations: u32,
    /// Makes the salts of accounts that do not exist: the same after a restart.
    pub decoy_secret: [u8; 32],
    /// Who may administer the server over XMPP (XEP-0133).
    pub admins: Vec<BareJid>,
    /// Which components may connect (XEP-0114).
    pub components: Vec<ComponentAccess>,
    /// How long after what it answers a challenge or a refusal leaves, at the soonest: what the look-up took does not
    /// show. Zero: at once.
    pub answer_after: Duration,
    /// The node that the shard is of, as the placement names it.
    pub node: NodeId,
    /// Fronts send messages of our accounts' clients themselves.
    pub direct: bool,
    /// Where clients reach this very node: told for resumption (XEP-0198 §3, `location`).
    pub location: Option<Arc<str>>,
    /// Clients whose account moves, or whose node stops, are sent to the account's node (RFC 6120 §4.9.3.19), where that has
    /// an address of its own.
    pub redirects: bool,
    /// This start of the node; part of each logged stanza's origin.
    pub incarnation: u64,
    /// Federation cores of the node, behind its shards in the mesh (DESIGN §7); 0: stanzas for other domains are answered
    /// `remote-server-not-found`. Taken at the start of a shard; a reload does not change it.
    pub federation_cores: u16,
}

impl ShardConfig {
    /// With what a node has of itself left as in a fresh one.
    pub fn new(policy: C2sPolicy, limits: Limits) -> Self {
        Self {
            policy,
            limits,
            ack: AckLevel::default(),
            archive: false,
            access: Access::default(),
            scram_iterations: 10_000,
            decoy_secret: [0; 32],
            admins: Vec::new(),
            components: Vec::new(),
            answer_after: Duration::ZERO,
            node: NodeId::default(),
            direct: true,
            location: None,
            redirects: false,
            incarnation: 1,
            federation_cores: 0,
        }
    }
}

/// Bytes in a ring's batch that stop the reading of clients, and those at which messages bounce.
pub(super) const RING_SOFT_BYTES: usize = 256 << 10;
pub(super) const RING_HARD_BYTES: usize = 16 << 20;
/// Bytes of frames that a shard of another node has not handled, which stop the reading of clients.
pub(super) const KEPT_SOFT_BYTES: usize = 4 << 20;
/// Writes on their way to the store that stop the reading of clients.
pub(super) const WRITES_SOFT: usize = 8_192;
/// Those at which messages that would be kept bounce, wherever they come from.
pub(super) const WRITES_HARD: usize = 65_536;
