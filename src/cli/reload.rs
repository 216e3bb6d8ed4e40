//! `corefire reload`: the running node reads its own configuration again, wherever this command is called.

use super::backend::Running;
use super::{Refusal, print, tell};
use crate::config::Config;
use crate::runtime::control::{ControlRequest, ControlResponse, Reloaded};

pub(super) fn run(config: &Config) -> Result<(), Refusal> {
    let path = config.node.data_dir.display();
    let Some(node) = Running::find(config).map_err(Refusal::Plain)? else {
        return Err(Refusal::Plain(format!(
            "no node runs on the data directory {path}; a node reads its configuration when it starts"
        )));
    };
    let answer = node.call(&ControlRequest::Reload).map_err(|faults| {
        Refusal::Plain(format!("nothing is reloaded, the node goes on as it was:\n{faults}"))
    })?;
    let ControlResponse::Reloaded(Reloaded { applied, waiting, warnings }) = answer else {
        return Err(super::report::odd_answer());
    };
    for warning in warnings {
        tell(format_args!("warning: {warning}"));
    }
    for line in &waiting {
        tell(format_args!("needs a restart: {line}"));
    }
    for line in &applied {
        print(line)?;
    }
    if applied.is_empty() && waiting.is_empty() { print("nothing has changed") } else { Ok(()) }
}
