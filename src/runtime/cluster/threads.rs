//! The threads of gossip and of what links tell.

use super::gossip::Gossip;
use super::links::{self, LinkEvent, LinksError, LinksThread, Settings, Sink};
use crate::cluster::membership::MemberEvent;
use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use tokio::sync::mpsc::unbounded_channel;

/// Starts the links, with a thread on which `tell` hears of them.
pub fn start_links(
    settings: Settings,
    sink: Arc<dyn Sink>,
    mut tell: impl FnMut(LinkEvent) + Send + 'static,
) -> Result<(LinksThread, JoinHandle<()>), LinksError> {
    let (events, mut heard) = unbounded_channel();
    let links = links::start(settings, sink, events)?;
    // It ends with the links.
    let thread = Builder::new().name("link-news".into()).spawn(move || {
        while let Some(event) = heard.blocking_recv() {
            tell(event);
        }
    })?;
    Ok((links, thread))
}

/// Runs gossip until it is told to leave or to stop.
pub fn start_gossip<T>(gossip: Gossip<T>) -> io::Result<JoinHandle<()>>
where
    T: FnMut(MemberEvent) + Send + 'static,
{
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    Builder::new().name("cluster".into()).spawn(move || {
        if let Err(error) = runtime.block_on(gossip.run()) {
            tracing::error!(%error, "gossip has ended");
        }
        runtime.shutdown_background();
    })
}
