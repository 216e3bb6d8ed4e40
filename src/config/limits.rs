//! `[limits]`: every bound that an operator may want to move. What each is for stands in `config/corefire.toml`.

use super::reader::Section;
use crate::base::network::Network;

/// Bounds of the node. Units are in the names; what has none counts things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Peers within these networks are not rate-limited. Bounds on memory hold for them as well.
    pub exempt: Vec<Network>,
    /// A stanza larger than this ends its stream with `policy-violation`.
    pub stanza_bytes: u32,
    /// The same before authentication (RFC 6120 §13.12 wants at least 10 000).
    pub stanza_bytes_before_login: u32,
    /// Elements within elements, the stanza itself being 1: `policy-violation`.
    pub depth: u32,
    /// Attributes and namespace declarations of one element: `policy-violation`.
    pub attributes: u32,
    /// Bytes of an element's or attribute's name, prefix included: `policy-violation`.
    pub name_bytes: u32,
    /// Bytes of a stream's header: `policy-violation`.
    pub stream_header_bytes: u32,
    /// Client connections of the node; more are closed as they come.
    pub connections: u32,
    /// TLS handshakes that a shard runs at a time; more connections wait to be accepted.
    pub handshakes_in_flight: u32,
    /// From accept to a finished login: `connection-timeout`.
    pub login_timeout_s: u32,
    /// Without a byte for this long, the client is pinged; without an answer for as long as `login_timeout_s`, it is gone.
    pub silence_s: u32,
    /// Output waiting for one connection; a client that reads slower than it is written to is dropped and may resume.
    pub output_bytes: u32,
    /// Sessions of one account: `resource-constraint` at bind.
    pub resources_per_account: u32,
    /// Contacts of one account: `not-acceptable`.
    pub roster_items: u32,
    /// Requests of strangers to see an account's presence that wait for an answer: `unsubscribed`.
    pub subscription_requests: u32,
    /// Requests to the store under way on a shard at which probes of absent accounts stay unanswered.
    pub probe_reads: u32,
    /// Groups of one contact: `not-acceptable`.
    pub roster_groups_per_item: u32,
    /// A vCard: `policy-violation`.
    pub vcard_bytes: u32,
    /// Private XML of one account, and its elements: `policy-violation`.
    pub private_bytes: u32,
    pub private_items: u32,
    /// Bytes of a contact's name, or of a group's: `not-acceptable`.
    pub roster_name_bytes: u32,
    /// Addresses that one session keeps informed by directed presence: `resource-constraint`.
    pub directed_presence: u32,
    /// Requests delivered to one session and not answered by it: `resource-constraint` to who asks.
    pub open_iqs: u32,
    /// Failed logins of one connection: `policy-violation`.
    pub login_attempts: u32,
    /// Addresses that one account blocks (XEP-0191): `not-acceptable`.
    pub block_list_items: u32,
    /// Messages kept for an account that is not online: `service-unavailable` to the sender.
    pub offline_messages: u32,
    /// Messages of a page of an archive (XEP-0313), and ids that one query names: shorter pages; `policy-violation`.
    pub archive_page: u32,
    /// How far messages that match a query are counted where a client asks for their number: it is not told.
    pub archive_count: u32,
    /// Addresses in an account's archiving preferences (XEP-0441): `not-acceptable`.
    pub archive_preferences: u32,
    /// Stanzas held back for an inactive client (XEP-0352), and their bytes: all of them are sent.
    pub held_stanzas: u32,
    pub held_bytes: u32,
    /// How long a broken session can be resumed (XEP-0198).
    pub resume_s: u32,
    /// Ended sessions of which is remembered what was handled, for the whole node; the oldest go first.
    pub sessions_remembered: u32,
    /// Stanzas sent to a session and not acknowledged (XEP-0198); past it the session ends.
    pub resume_queue: u32,
    /// Copies of other nodes' sessions, and their bytes, for the whole node; past it sessions go on without one.
    pub copies: u32,
    pub copy_bytes: u32,
    /// Stanzas waiting while an account is read from the store: `resource-constraint`.
    pub pending_stanzas_per_account: u32,
    /// Accounts in memory, for the whole node; the one idle for longest goes first.
    pub accounts_cached: u32,
    /// Password checks (PBKDF2) waiting for a side thread: `temporary-auth-failure`.
    pub password_checks_queue: u32,
    /// Connections of one component (XEP-0114): `resource-constraint`.
    pub component_connections: u32,
    /// IQs that one connection of a component has not answered; the oldest goes first.
    pub component_open_iqs: u32,
    /// How long a stopping node waits for its clients and its store.
    pub shutdown_s: u32,
    /// Failed logins to an account, and from a network (/24, /64), in `failed_logins_window_s`: `temporary-auth-failure`.
    /// 0: without limit.
    pub failed_logins_per_account: u32,
    pub failed_logins_per_network: u32,
    pub failed_logins_window_s: u32,
    /// Accounts and networks whose failures are counted, for the whole node.
    pub failed_logins_tracked: u32,
    /// Clients of one account that hold tokens (XEP-0484); the one idle for longest loses its token.
    pub token_holders_per_account: u32,
    /// How long a token is good for.
    pub token_days: u32,
    /// Seconds of a rate that may come at once.
    pub burst_s: u32,
    /// What a connection without a session may send; as below.
    pub login_elements_per_s: u32,
    /// What one session, an account and a network (/24, /64) may send; above, they are read slower. 0: without limit.
    pub session_stanzas_per_s: u32,
    pub session_bytes_per_s: u32,
    pub account_stanzas_per_s: u32,
    pub account_bytes_per_s: u32,
    pub network_stanzas_per_s: u32,
    pub network_bytes_per_s: u32,
    /// Connections from one network; above, they are closed as they come. 0: without limit.
    pub network_connections_per_s: u32,
    /// Sessions that an account begins or resumes: `resource-constraint`. 0: without limit.
    pub account_sessions_per_s: u32,
    /// Networks without a connection whose rates are remembered, for the whole node.
    pub networks: u32,
}

impl Limits {
    pub(super) fn read(s: &mut Section<'_>) -> Limits {
        let limits = Limits {
            exempt: s.list("exempt", &[], &["127.0.0.0/8"], str::parse),
            stanza_bytes: s.integer("stanza_bytes", 262_144, 10_000..=16_777_216),
            stanza_bytes_before_login: s.integer(
                "stanza_bytes_before_login",
                10_000,
                10_000..=262_144,
            ),
            depth: s.integer("depth", 64, 8..=1024),
            attributes: s.integer("attributes", 64, 8..=1024),
            name_bytes: s.integer("name_bytes", 256, 64..=4096),
            stream_header_bytes: s.integer("stream_header_bytes", 4096, 1024..=65_536),
            connections: s.integer("connections", 100_000, 1..=10_000_000),
            handshakes_in_flight: s.integer("handshakes_in_flight", 64, 1..=65_536),
            login_timeout_s: s.integer("login_timeout_s", 30, 1..=3600),
            silence_s: s.integer("silence_s", 1800, 10..=86_400),
            output_bytes: s.integer("output_bytes", 4_194_304, 65_536..=1_073_741_824),
            resources_per_account: s.integer("resources_per_account", 32, 1..=10_000),
            roster_items: s.integer("roster_items", 2000, 1..=100_000),
            subscription_requests: s.integer("subscription_requests", 200, 0..=10_000),
            probe_reads: s.integer("probe_reads", 256, 0..=65_536),
            roster_groups_per_item: s.integer("roster_groups_per_item", 32, 1..=1000),
            vcard_bytes: s.integer("vcard_bytes", 131_072, 1_024..=16_777_216),
            private_bytes: s.integer("private_bytes", 262_144, 0..=16_777_216),
            private_items: s.integer("private_items", 64, 0..=10_000),
            roster_name_bytes: s.integer("roster_name_bytes", 1023, 64..=8192),
            directed_presence: s.integer("directed_presence", 256, 1..=100_000),
            open_iqs: s.integer("open_iqs", 256, 1..=65_536),
            login_attempts: s.integer("login_attempts", 5, 1..=100),
            block_list_items: s.integer("block_list_items", 1000, 1..=100_000),
            offline_messages: s.integer("offline_messages", 1000, 0..=1_000_000),
            archive_page: s.integer("archive_page", 100, 1..=1000),
            archive_count: s.integer("archive_count", 100_000, 0..=10_000_000),
            archive_preferences: s.integer("archive_preferences", 1000, 0..=100_000),
            held_stanzas: s.integer("held_stanzas", 200, 0..=10_000),
            held_bytes: s.integer("held_bytes", 65_536, 0..=16_777_216),
            resume_s: s.integer("resume_s", 300, 0..=86_400),
            sessions_remembered: s.integer("sessions_remembered", 16_384, 0..=100_000_000),
            resume_queue: s.integer("resume_queue", 2000, 1..=1_000_000),
            copies: s.integer("copies", 100_000, 0..=100_000_000),
            copy_bytes: s.integer("copy_bytes", 536_870_912, 0..=4_294_967_295),
            pending_stanzas_per_account: s.integer("pending_stanzas_per_account", 256, 1..=65_536),
            accounts_cached: s.integer("accounts_cached", 100_000, 64..=100_000_000),
            password_checks_queue: s.integer("password_checks_queue", 256, 1..=65_536),
            component_connections: s.integer("component_connections", 64, 1..=1024),
            component_open_iqs: s.integer("component_open_iqs", 4096, 1..=65_536),
            shutdown_s: s.integer("shutdown_s", 10, 0..=3600),
            failed_logins_per_account: s.integer("failed_logins_per_account", 20, 0..=10_000),
            failed_logins_per_network: s.integer("failed_logins_per_network", 100, 0..=1_000_000),
            failed_logins_window_s: s.integer("failed_logins_window_s", 600, 10..=14_400),
            failed_logins_tracked: s.integer("failed_logins_tracked", 65_536, 64..=10_000_000),
            token_holders_per_account: s.integer("token_holders_per_account", 32, 1..=1000),
            token_days: s.integer("token_days", 21, 1..=366),
            burst_s: s.integer("burst_s", 10, 1..=60),
            login_elements_per_s: rate(s, "login_elements_per_s", 2, 1),
            session_stanzas_per_s: rate(s, "session_stanzas_per_s", 1000, 10),
            session_bytes_per_s: rate(s, "session_bytes_per_s", 1_048_576, 10_000),
            account_stanzas_per_s: rate(s, "account_stanzas_per_s", 2000, 10),
            account_bytes_per_s: rate(s, "account_bytes_per_s", 2_097_152, 10_000),
            network_stanzas_per_s: rate(s, "network_stanzas_per_s", 20_000, 10),
            network_bytes_per_s: rate(s, "network_bytes_per_s", 20_971_520, 10_000),
            network_connections_per_s: rate(s, "network_connections_per_s", 100, 1),
            account_sessions_per_s: rate(s, "account_sessions_per_s", 4, 1),
            networks: s.integer("networks", 65_536, 64..=10_000_000),
        };
        if limits.stanza_bytes_before_login > limits.stanza_bytes {
            let remedy = s.remedy("stanza_bytes_before_login", &limits.stanza_bytes.to_string());
            s.problem(
                "stanza_bytes_before_login",
                format!("more than stanza_bytes ({}); {remedy}", limits.stanza_bytes),
            );
        }
        // A stanza grows on its way, and nothing larger than what a client may leave unread gets through.
        let least = limits.stanza_bytes.saturating_mul(2);
        if limits.output_bytes < least {
            let remedy = s.remedy("output_bytes", &least.to_string());
            s.problem(
                "output_bytes",
                format!("less than twice stanza_bytes ({}); {remedy}", limits.stanza_bytes),
            );
        }
        limits
    }
}
/// Tokens a second; 0 for no limit. `least` keeps the debt of one read, which is taken whole, payable in minutes.
pub(super) fn rate(s: &mut Section<'_>, key: &str, default: u32, least: u32) -> u32 {
    let given = s.integer(key, default, 0..=1_000_000_000);
    if given > 0 && given < least {
        let remedy = s.remedy(key, &least.to_string());
        s.problem(key, format!("{given} is neither 0 (no limit) nor at least {least}; {remedy}"));
    }
    given
}
