//! `corefire federation`: the other servers that the running node talks with, and what is wrong where it cannot.

use clap::Subcommand;

use super::backend::Running;
use super::report::{object, odd_answer, visible};
use super::{Refusal, print};
use crate::config::Config;
use crate::runtime::control::federation::{
    CheckStep, FederationAnswer, FederationRequest, RemoteDomain,
};
use crate::runtime::control::{ControlRequest, ControlResponse};

#[derive(Debug, Subcommand)]
pub(super) enum FederationCommand {
    /// List the domains of other servers that the node knows: those that it has talked with lately, or that something waits
    /// for
    ///
    /// In a cluster each node has its own; corefire whereis DOMAIN names the one that sends to a domain.
    List {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Close the connections with a domain; what waits for it goes out on new ones
    Close { domain: String },
    /// Talk with a domain no more, until it is unblocked; what waits for it goes back to its senders
    ///
    /// In a cluster this is for the node that is asked alone. It outlives a restart. federation.block in the configuration does the same, and takes *.DOMAIN as well.
    Block { domain: String },
    /// Talk with a domain again that was blocked by this command
    Unblock { domain: String },
    /// Connect to a domain, step by step from the DNS to who it is, and say what is found and what is wrong
    Check {
        domain: String,
        /// For which of the server's own domains; the first without it
        #[arg(long, value_name = "DOMAIN")]
        from: Option<String>,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(command: &FederationCommand, config: &Config) -> Result<(), Refusal> {
    let Some(node) = Running::find(config).map_err(Refusal::Plain)? else {
        return Err(Refusal::Plain(format!(
            "no node runs on the data directory {}, so it talks with no other server",
            config.node.data_dir.display()
        )));
    };
    match command {
        FederationCommand::List { json } => list(&node, *json),
        FederationCommand::Check { domain, from, json } => {
            check(&node, domain, from.as_deref(), *json)
        }
        FederationCommand::Close { domain } => {
            change(&node, &|domain| FederationRequest::Close { domain }, domain)
        }
        FederationCommand::Block { domain } => {
            change(&node, &|domain| FederationRequest::Block { domain }, domain)
        }
        FederationCommand::Unblock { domain } => {
            change(&node, &|domain| FederationRequest::Unblock { domain }, domain)
        }
    }
}

fn call(node: &Running, request: FederationRequest) -> Result<FederationAnswer, Refusal> {
    match node.call(&ControlRequest::Federation(request)).map_err(Refusal::Plain)? {
        ControlResponse::Federation(answer) => Ok(answer),
        _ => Err(odd_answer()),
    }
}

fn change(
    node: &Running,
    request: &dyn Fn(String) -> FederationRequest,
    domain: &str,
) -> Result<(), Refusal> {
    let line = match call(node, request(domain.to_owned()))? {
        FederationAnswer::Closed { domain, connections } => {
            format!("{domain}: closed {}", counted(connections))
        }
        FederationAnswer::Blocked { domain, new: true, connections } => {
            format!("{domain} is blocked; closed {}", counted(connections))
        }
        FederationAnswer::Blocked { domain, new: false, .. } => {
            format!("{domain} was blocked already")
        }
        FederationAnswer::Unblocked { domain, still: Some(still), .. } => {
            return Err(Refusal::Plain(format!("{domain} stays blocked: {still}")));
        }
        FederationAnswer::Unblocked { domain, was: true, .. } => {
            format!("{domain} is blocked no more")
        }
        FederationAnswer::Unblocked { domain, was: false, .. } => {
            format!("{domain} was not blocked")
        }
        _ => return Err(odd_answer()),
    };
    print(visible(&line))
}

fn counted(connections: u64) -> String {
    match connections {
        1 => "1 connection".to_owned(),
        connections => format!("{connections} connections"),
    }
}

fn list(node: &Running, as_json: bool) -> Result<(), Refusal> {
    let mut after = None;
    loop {
        let answer = call(node, FederationRequest::List { after: after.take() })?;
        let FederationAnswer::Domains { domains, more } = answer else { return Err(odd_answer()) };
        for domain in &domains {
            if as_json { print(object(domain)?)? } else { print(visible(&line(domain)))? }
        }
        match domains.last().filter(|_| more) {
            Some(last) => after = Some(last.domain.clone()),
            None => return Ok(()),
        }
    }
}

/// `example.org: connected, 1 out, 1 in, 3 waiting (512 bytes), sent 7, received 9, by certificate`
fn line(remote: &RemoteDomain) -> String {
    let RemoteDomain { domain, state, outgoing, incoming, sent, received, .. } = remote;
    let mut line = format!("{domain}: {}, {outgoing} out, {incoming} in", state.replace('_', " "));
    for (count, what) in [
        (remote.queued, "waiting"),
        (remote.unconfirmed, "unconfirmed"),
        (remote.stored, "stored"),
        (remote.bounced, "sent back"),
    ] {
        if count > 0 {
            line.push_str(&format!(", {count} {what}"));
        }
    }
    line.push_str(&format!(", sent {sent}, received {received}"));
    if !remote.by.is_empty() {
        line.push_str(&format!(", by {}", remote.by));
    }
    if let Some(node) = &remote.node {
        line.push_str(&format!(", at node {node}"));
    }
    if let Some(failure) = &remote.failure {
        line.push_str(&format!("; at {}: {}", failure.at, failure.text));
    }
    line
}

fn check(node: &Running, domain: &str, own: Option<&str>, as_json: bool) -> Result<(), Refusal> {
    let request =
        FederationRequest::Check { domain: domain.to_owned(), own: own.map(str::to_owned) };
    let mut shown = Ok(());
    let streamed = node.stream(&ControlRequest::Federation(request), |response| match response {
        ControlResponse::Federation(FederationAnswer::Waiting) => true,
        ControlResponse::Federation(answer @ FederationAnswer::Checked { .. }) => {
            shown = show(&answer, as_json);
            false
        }
        _ => {
            shown = Err(odd_answer());
            false
        }
    });
    shown.and(streamed.map_err(Refusal::Plain))
}

fn show(answer: &FederationAnswer, as_json: bool) -> Result<(), Refusal> {
    let FederationAnswer::Checked { domain, steps, failure } = answer else {
        return Err(odd_answer());
    };
    if as_json {
        print(object(answer)?)?;
    } else {
        for step in steps {
            print(visible(&step_line(step, failure.is_some())))?;
        }
    }
    match failure {
        None if as_json => Ok(()),
        None => print(visible(&format!("{domain} can be reached"))),
        Some(failure) => {
            let failure = failure.replace('_', " ");
            Err(Refusal::Plain(visible(&format!("{domain} cannot be reached ({failure})"))))
        }
    }
}

/// `ok    dns     12 ms  xmpp.example.org:5269 (STARTTLS), by SRV records`
///
/// - `fails`: the whole does, so that what is not sound matters
fn step_line(step: &CheckStep, fails: bool) -> String {
    let CheckStep { step, sound, text, took_us } = step;
    let verdict = match (sound, fails) {
        (true, _) => "ok",
        (false, true) => "wrong",
        (false, false) => "weak",
    };
    format!("{verdict:<5} {step:<6} {:>7} ms  {text}", took_us.div_ceil(1_000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::control::federation::RemoteFailure;

    #[test]
    fn a_domain_is_one_line() {
        let remote = RemoteDomain {
            domain: "example.org".into(),
            state: "connected".into(),
            outgoing: 1,
            sent: 7,
            received: 9,
            by: "certificate".into(),
            ..RemoteDomain::default()
        };
        assert_eq!(
            line(&remote),
            "example.org: connected, 1 out, 0 in, sent 7, received 9, by certificate"
        );
        let failure = Some(RemoteFailure { at: "2026-11-27T12:00:00Z".into(), text: "x".into() });
        let (state, by) = ("backing_off".into(), String::new());
        let broken =
            RemoteDomain { state, by, outgoing: 0, queued: 3, stored: 2, failure, ..remote };
        assert_eq!(
            line(&broken),
            "example.org: backing off, 0 out, 0 in, 3 waiting, 2 stored, sent 7, received 9; at \
             2026-11-27T12:00:00Z: x"
        );
    }

    #[test]
    fn a_step_says_how_it_went_first() {
        let step = CheckStep { step: "dns".into(), sound: false, text: "none".into(), took_us: 1 };
        assert_eq!(step_line(&step, true), "wrong dns          1 ms  none");
        assert_eq!(step_line(&step, false), "weak  dns          1 ms  none");
    }
}
