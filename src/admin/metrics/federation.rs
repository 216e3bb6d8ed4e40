//! The metrics of federation: by class, never by the name of a domain, of which strangers can make as many as they like.

use super::{Page, seconds};
use crate::admin::figures::{FederationCoreProbe, FederationFigures};
use crate::federation::control::State;
use crate::federation::{Failure, Probe};
use prometheus_client::encoding::EncodeMetric;
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Unit;
use std::fmt;

/// The cores' numbers as those of the node. Each field by its name, so that a new one is told about here.
fn summed(cores: &[FederationFigures]) -> Probe {
    let mut sum = Probe::default();
    for core in cores {
        let Probe {
            domains,
            domains_by_state,
            outgoing,
            incoming,
            connections,
            dials,
            dials_waiting,
            queued_stanzas,
            queued_bytes,
            unconfirmed,
            stored,
            pending_pairs,
            connections_accepted,
            connections_refused,
            streams_established,
            streams_resumed,
            pairs_by_certificate,
            pairs_by_dialback,
            pairs_refused,
            posh_proved,
            posh_absent,
            posh_refused,
            posh_failed,
            dialback_unsolicited,
            stanzas_out,
            stanzas_out_again,
            stanzas_in,
            stanzas_refused,
            bounced_not_found,
            bounced_timeout,
            bounced_constraint,
            presence_dropped,
            answers_dropped,
            control_frames_ignored,
            reads_paused,
            breakers_opened,
            streams_idle_closed,
            stream_errors_in,
            stream_errors_out,
            failures,
            faults,
        } = &core.probe;
        sum.domains += domains;
        sum.domains_by_state.iter_mut().zip(domains_by_state).for_each(|(sum, one)| *sum += one);
        sum.outgoing += outgoing;
        sum.incoming += incoming;
        sum.connections += connections;
        sum.dials += dials;
        sum.dials_waiting += dials_waiting;
        sum.queued_stanzas += queued_stanzas;
        sum.queued_bytes += queued_bytes;
        sum.unconfirmed += unconfirmed;
        sum.stored += stored;
        sum.pending_pairs += pending_pairs;
        sum.connections_accepted += connections_accepted;
        sum.connections_refused += connections_refused;
        sum.streams_established += streams_established;
        sum.streams_resumed += streams_resumed;
        sum.pairs_by_certificate += pairs_by_certificate;
        sum.pairs_by_dialback += pairs_by_dialback;
        sum.pairs_refused += pairs_refused;
        sum.posh_proved += posh_proved;
        sum.posh_absent += posh_absent;
        sum.posh_refused += posh_refused;
        sum.posh_failed += posh_failed;
        sum.dialback_unsolicited += dialback_unsolicited;
        sum.stanzas_out += stanzas_out;
        sum.stanzas_out_again += stanzas_out_again;
        sum.stanzas_in += stanzas_in;
        sum.stanzas_refused += stanzas_refused;
        sum.bounced_not_found += bounced_not_found;
        sum.bounced_timeout += bounced_timeout;
        sum.bounced_constraint += bounced_constraint;
        sum.presence_dropped += presence_dropped;
        sum.answers_dropped += answers_dropped;
        sum.control_frames_ignored += control_frames_ignored;
        sum.reads_paused += reads_paused;
        sum.breakers_opened += breakers_opened;
        sum.streams_idle_closed += streams_idle_closed;
        sum.stream_errors_in += stream_errors_in;
        sum.stream_errors_out += stream_errors_out;
        sum.failures.iter_mut().zip(failures).for_each(|(sum, one)| *sum += one);
        sum.faults += faults;
    }
    sum
}

impl Page<'_> {
    /// Nothing where federation is off.
    pub(super) fn federation(&mut self, cores: &[FederationFigures]) -> fmt::Result {
        if cores.is_empty() {
            return Ok(());
        }
        let probe = summed(cores);
        self.federation_now(cores, &probe)?;
        self.federation_streams(cores, &probe)?;
        self.federation_stanzas(&probe)
    }

    fn federation_now(&mut self, cores: &[FederationFigures], probe: &Probe) -> fmt::Result {
        let by_state: Vec<_> =
            State::ALL.into_iter().map(State::name).zip(probe.domains_by_state).collect();
        let help = "Domains of other servers in memory, by how things stand with them";
        self.gauges("federation_domains", help, "state", &by_state)?;
        let values = [("out", probe.outgoing), ("in", probe.incoming)];
        let help = "Streams with other servers that are who they say";
        self.gauges("federation_streams", help, "direction", &values)?;
        let help = "Connections with other servers, those that are being made among them";
        self.gauge("federation_connections", help, probe.connections)?;
        let values = [("running", probe.dials), ("waiting", probe.dials_waiting)];
        let help = "Connections being made, and domains that wait for their turn";
        self.gauges("federation_dials", help, "state", &values)?;
        let help =
            "Stanzas for other servers that wait, or are not confirmed yet, or wait in the store";
        let values = [
            ("queued", probe.queued_stanzas),
            ("unconfirmed", probe.unconfirmed),
            ("stored", probe.stored),
        ];
        self.gauges("federation_queue_stanzas", help, "state", &values)?;
        let help = "Bytes of the stanzas for other servers that are in memory";
        self.gauge("federation_queue_bytes", help, probe.queued_bytes)?;
        let help = "Pairs of domains that are about to be proved by dialback";
        self.gauge("federation_dialback_pending", help, probe.pending_pairs)?;
        let help = "Bytes for shards that their rings did not take yet";
        let bytes = cores.iter().map(|core| core.ring_bytes).sum();
        self.gauge("federation_ring_bytes", help, bytes)?;
        let help = "Other servers that are not read since rings are full";
        self.gauge("federation_peers_held", help, cores.iter().map(|core| core.peers_held).sum())?;
        let help = "CPU time of a federation core; by its rate, how busy that is";
        let unit = Some(&Unit::Seconds);
        let mut cpu =
            self.0.encode_descriptor("federation_cpu", help, unit, MetricType::Counter)?;
        for core in cores {
            let label = [("core", core.core.to_string())];
            ConstCounter::new(seconds(core.cpu_us)).encode(cpu.encode_family(&label)?)?;
        }
        Ok(())
    }

    fn federation_streams(&mut self, cores: &[FederationFigures], probe: &Probe) -> fmt::Result {
        let sum = |count: fn(&FederationCoreProbe) -> u64| {
            cores.iter().map(|one| count(&one.counts)).sum()
        };
        self.counts(
            "federation_connections_in",
            "Connections that other servers made, by what became of them",
            "fate",
            &[
                ("accepted", probe.connections_accepted),
                ("refused", probe.connections_refused),
                ("system_refused", sum(|core| core.accepts_failed)),
            ],
        )?;
        let values =
            [("done", sum(|core| core.handshakes)), ("failed", sum(|core| core.handshakes_failed))];
        let help = "TLS handshakes with other servers, by their outcome";
        self.counts("federation_tls_handshakes", help, "outcome", &values)?;
        self.counts(
            "federation_stream_events",
            "Streams that came up, were taken up again (XEP-0198), had nothing to do, or ended with an error that they or we sent",
            "event",
            &[
                ("established", probe.streams_established),
                ("resumed", probe.streams_resumed),
                ("idle_closed", probe.streams_idle_closed),
                ("error_in", probe.stream_errors_in),
                ("error_out", probe.stream_errors_out),
            ],
        )?;
        self.counts(
            "federation_pairs",
            "Domains of other servers that proved who they are, by how; those that did not; results of dialback that nobody waited for",
            "by",
            &[
                ("certificate", probe.pairs_by_certificate),
                ("dialback", probe.pairs_by_dialback),
                ("refused", probe.pairs_refused),
                ("unsolicited", probe.dialback_unsolicited),
            ],
        )?;
        self.counts(
            "federation_posh",
            "Documents in which other domains name their certificates (RFC 7711) that were asked for, by what they proved",
            "result",
            &[
                ("proved", probe.posh_proved),
                ("absent", probe.posh_absent),
                ("refused", probe.posh_refused),
                ("failed", probe.posh_failed),
            ],
        )?;
        let failures: Vec<_> =
            Failure::ALL.into_iter().map(Failure::name).zip(probe.failures).collect();
        let help = "Attempts to reach another server that failed, by the step";
        self.counts("federation_failures", help, "class", &failures)?;
        let help = "Times that a domain failed so often that requests for it are answered at once";
        self.count("federation_breakers_opened", help, probe.breakers_opened)
    }

    fn federation_stanzas(&mut self, probe: &Probe) -> fmt::Result {
        self.counts(
            "federation_stanzas",
            "Stanzas to and from other servers; sent once more over a new connection; refused as the sender may not speak for \
             their addresses",
            "fate",
            &[
                ("out", probe.stanzas_out),
                ("out_again", probe.stanzas_out_again),
                ("in", probe.stanzas_in),
                ("refused", probe.stanzas_refused),
            ],
        )?;
        self.counts(
            "federation_bounced",
            "Stanzas for other servers that were answered with an error, by its kind, or dropped",
            "cause",
            &[
                ("not_found", probe.bounced_not_found),
                ("timeout", probe.bounced_timeout),
                ("constraint", probe.bounced_constraint),
                ("presence_dropped", probe.presence_dropped),
                ("answer_dropped", probe.answers_dropped),
            ],
        )?;
        let help = "Times that another server was not read for a while";
        self.count("federation_reads_paused", help, probe.reads_paused)?;
        let help = "Frames between shards that came to a federation core and are none of its own";
        self.count("federation_frames_ignored", help, probe.control_frames_ignored)?;
        let help = "Bugs of federation that were contained; please report";
        self.count("federation_faults", help, probe.faults)
    }
}
