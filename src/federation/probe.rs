//! What a federation core counts: plain numbers, by class and never by name. One set per core, summed when read.

use crate::base::histogram::Counts;
use std::time::Duration;

/// Why a remote domain could not be reached, or a walk to it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Failure {
    /// Our own configuration forbids it.
    Policy,
    /// The name does not exist, or has no service.
    NotFound,
    /// The look-up failed or took too long.
    Dns,
    /// No address could be reached.
    Tcp,
    /// The handshake failed, or the peer offers no TLS.
    Tls,
    /// The certificate is not valid for the domain, and nothing else was allowed.
    Certificate,
    /// The peer does not believe that we are who we are, or we do not believe the peer.
    Auth,
    /// The peer closed the stream with an error, or broke the rules.
    Stream,
    /// No answer in time.
    Timeout,
    /// The connection broke.
    Lost,
}

impl Failure {
    pub const ALL: [Failure; 10] = [
        Failure::Policy,
        Failure::NotFound,
        Failure::Dns,
        Failure::Tcp,
        Failure::Tls,
        Failure::Certificate,
        Failure::Auth,
        Failure::Stream,
        Failure::Timeout,
        Failure::Lost,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Failure::Policy => "policy",
            Failure::NotFound => "not_found",
            Failure::Dns => "dns",
            Failure::Tcp => "tcp",
            Failure::Tls => "tls",
            Failure::Certificate => "certificate",
            Failure::Auth => "auth",
            Failure::Stream => "stream",
            Failure::Timeout => "timeout",
            Failure::Lost => "lost",
        }
    }
}

/// The parts of the way to another domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    Resolve,
    Dial,
    Tls,
    /// Until one of the two is known to the other, by certificate or dialback: of streams of ours from the features on, of
    /// those that peers open from the connection, or its handshake, on.
    Auth,
    /// From the frame until the stanza is written to the stream's output.
    Queue,
    /// From there until the kernel has it.
    Write,
    /// From the frame until the peer has acknowledged it.
    Confirm,
}

impl Stage {
    pub const ALL: [Stage; 7] = [
        Stage::Resolve,
        Stage::Dial,
        Stage::Tls,
        Stage::Auth,
        Stage::Queue,
        Stage::Write,
        Stage::Confirm,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Stage::Resolve => "resolve",
            Stage::Dial => "dial",
            Stage::Tls => "tls",
            Stage::Auth => "auth",
            Stage::Queue => "queue",
            Stage::Write => "write",
            Stage::Confirm => "confirm",
        }
    }
}

/// What one core has measured of the path `s2s` since this was last taken from it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Latencies {
    stages: [Counts; Stage::ALL.len()],
}

impl Latencies {
    pub fn record(&mut self, stage: Stage, took: Duration) {
        self.stages[stage as usize].record(took);
    }

    /// Empties all of it.
    pub fn clear(&mut self) {
        self.stages.iter_mut().for_each(Counts::clear);
    }

    /// All stages, in order.
    pub fn stages(&self) -> impl Iterator<Item = (Stage, &Counts)> {
        Stage::ALL.into_iter().zip(&self.stages)
    }
}

/// Numbers of one federation core. Those that end in a state (`domains`, `outgoing`, …) are of now, all others count
/// since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probe {
    /// Remote domains in memory, and by `control::State`.
    pub domains: u64,
    pub domains_by_state: [u64; super::control::State::ALL.len()],
    /// Authenticated streams of now; connections with those that are not.
    pub outgoing: u64,
    pub incoming: u64,
    pub connections: u64,
    /// Being looked up, dialled or negotiated with now; and those that wait for their turn.
    pub dials: u64,
    pub dials_waiting: u64,
    /// Of all queues, now; and what was sent and is not confirmed.
    pub queued_stanzas: u64,
    pub queued_bytes: u64,
    pub unconfirmed: u64,
    /// Rows of the store that wait, as far as known.
    pub stored: u64,
    /// Pairs of dialback under verification now.
    pub pending_pairs: u64,

    pub connections_accepted: u64,
    pub connections_refused: u64,
    pub streams_established: u64,
    pub streams_resumed: u64,
    pub pairs_by_certificate: u64,
    pub pairs_by_dialback: u64,
    pub pairs_refused: u64,
    /// Documents of POSH that were asked for: they named the certificate, there was none, they named others, or were not to be
    /// had or used.
    pub posh_proved: u64,
    pub posh_absent: u64,
    pub posh_refused: u64,
    pub posh_failed: u64,
    /// Results of dialback that nobody waited for.
    pub dialback_unsolicited: u64,
    pub stanzas_out: u64,
    pub stanzas_out_again: u64,
    pub stanzas_in: u64,
    /// Stanzas that came in with addresses that the stream does not speak for.
    pub stanzas_refused: u64,
    /// From clients of ours, answered with an error here.
    pub bounced_not_found: u64,
    pub bounced_timeout: u64,
    pub bounced_constraint: u64,
    pub presence_dropped: u64,
    /// Errors and results that had nowhere to go.
    pub answers_dropped: u64,
    pub control_frames_ignored: u64,
    pub reads_paused: u64,
    pub breakers_opened: u64,
    pub streams_idle_closed: u64,
    pub stream_errors_in: u64,
    pub stream_errors_out: u64,
    /// Walks that failed, by `Failure`.
    pub failures: [u64; Failure::ALL.len()],
    pub faults: u64,
}
