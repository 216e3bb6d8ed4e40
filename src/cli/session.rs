//! `corefire session`: who is connected to the running node, or to any node of its cluster, and how to end that.

use clap::Subcommand;

use super::backend::Running;
use super::report::{object, odd_answer, span};
use super::{Refusal, print};
use crate::config::Config;
use crate::runtime::control::{ControlRequest, ControlResponse, SessionDetail};

#[derive(Debug, Subcommand)]
pub(super) enum SessionCommand {
    /// List the sessions, of one account or of all; in a cluster, those at all its nodes
    List {
        /// NAME@DOMAIN
        jid: Option<String>,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// End all sessions of an account, or the one that is named
    ///
    /// Their clients are told policy-violation and may log in again; disable the account to keep them out.
    Kick {
        /// NAME@DOMAIN or NAME@DOMAIN/RESOURCE
        jid: String,
    },
}

pub(super) fn run(command: &SessionCommand, config: &Config) -> Result<(), Refusal> {
    let Some(node) = Running::find(config).map_err(Refusal::Plain)? else {
        return Err(Refusal::Plain(format!(
            "no node runs on the data directory {}, so there are no sessions",
            config.node.data_dir.display()
        )));
    };
    match command {
        SessionCommand::List { jid, json } => list(&node, jid.as_deref(), *json),
        SessionCommand::Kick { jid } => {
            let request = ControlRequest::Kick { jid: jid.clone() };
            match node.call(&request).map_err(Refusal::Plain)? {
                ControlResponse::Kicked { sessions: 1 } => print("ended 1 session"),
                ControlResponse::Kicked { sessions } => {
                    print(format_args!("ended {sessions} sessions"))
                }
                _ => Err(odd_answer()),
            }
        }
    }
}

fn list(node: &Running, jid: Option<&str>, as_json: bool) -> Result<(), Refusal> {
    let mut after = None;
    let mut missing: Vec<String> = Vec::new();
    loop {
        let request = ControlRequest::Sessions { jid: jid.map(str::to_owned), after };
        let response = node.call(&request).map_err(Refusal::Plain)?;
        let ControlResponse::Sessions { sessions, next, silent } = response else {
            return Err(odd_answer());
        };
        missing.extend(silent);
        for session in &sessions {
            if as_json { print(object(session)?)? } else { print(line(session))? }
        }
        match next {
            Some(_) => after = next,
            None if missing.is_empty() => return Ok(()),
            None => return Err(Refusal::Plain(incomplete(&missing))),
        }
    }
}

fn incomplete(nodes: &[String]) -> String {
    let nodes = nodes.join(", ");
    format!("the list is not complete: these nodes gave no answer in time: {nodes}")
}

fn line(session: &SessionDetail) -> String {
    let SessionDetail { jid, since, .. } = session;
    let nodes = match (&session.node, &session.socket) {
        (Some(node), Some(socket)) if node == socket => format!(", at {node}"),
        (Some(node), Some(socket)) => format!(", at {node} by way of {socket}"),
        (Some(node), None) => format!(", at {node}"),
        (None, _) => String::new(),
    };
    let place = match (&session.address, session.idle_s) {
        (Some(address), Some(idle)) => {
            let tls = if session.tls { "TLS" } else { "no TLS" };
            format!("{address} ({tls}), heard {} ago", span(idle))
        }
        _ => "waits to be resumed".to_owned(),
    };
    let presence = match session.priority {
        Some(priority) => format!("available, priority {priority}"),
        None => "unavailable".to_owned(),
    };
    format!("{jid}: {place}{nodes}, {presence}, since {since}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_one_line() {
        let session = SessionDetail {
            jid: "a@b/c".into(),
            address: Some("192.0.2.1".into()),
            tls: true,
            since: "2026-11-23T12:00:00.000Z".into(),
            idle_s: Some(5),
            priority: Some(-1),
            resumable: true,
            ..SessionDetail::default()
        };
        assert_eq!(
            line(&session),
            "a@b/c: 192.0.2.1 (TLS), heard 5 s ago, available, priority -1, since \
             2026-11-23T12:00:00.000Z"
        );
        let asleep = SessionDetail { address: None, idle_s: None, priority: None, ..session };
        let since = "2026-11-23T12:00:00.000Z";
        assert_eq!(
            line(&asleep),
            format!("a@b/c: waits to be resumed, unavailable, since {since}")
        );
        let elsewhere = SessionDetail {
            address: Some("192.0.2.1".into()),
            idle_s: Some(5),
            node: Some("n1".into()),
            socket: Some("n2".into()),
            ..asleep
        };
        let told = line(&elsewhere);
        assert!(told.contains("heard 5 s ago, at n1 by way of n2, unavailable"), "{told}");
        let told = line(&SessionDetail { socket: Some("n1".into()), ..elsewhere });
        assert!(told.contains("ago, at n1, unavailable"), "{told}");
    }
}
