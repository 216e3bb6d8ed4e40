//! Brings the WAL back into the file beside the commits.
//!
//! A checkpoint reads the WAL, writes each page once into the file and flushes both: for 20,000 pages that takes far
//! longer than a commit. So a thread of its own does the bulk while commits go on. The WAL can start anew only when a
//! commit finds every page copied, which it never does while commits keep coming: so the thread repeats until little
//! is left, and then asks the writer to copy that little itself, between two commits.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rusqlite::Connection;

use super::super::Error;
use super::{WAL_PAGES, checkpoint, connect};

/// Pages not yet copied at which the thread is woken.
const START_PAGES: u32 = WAL_PAGES / 2;

/// Pages left at which the writer may finish.
const LITTLE_PAGES: u32 = 1_000;

/// Rounds of the thread before the writer finishes in any case.
const ROUNDS_MAX: u32 = 5;

/// Owns the thread; one per writer.
pub(super) struct Checkpointer {
    nudge: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    running: AtomicBool,
    /// The thread has left only a little.
    finish: AtomicBool,
}

impl Checkpointer {
    pub(super) fn start(path: &Path) -> Result<Checkpointer, Error> {
        let conn = connect(path)?;
        let (nudge, nudged) = sync_channel(1);
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let thread = std::thread::Builder::new()
            .name("store-checkpoint".to_owned())
            .spawn(move || run(&conn, &nudged, &shared))
            .map_err(|error| Error::Backend(format!("cannot start a thread: {error}")))?;
        Ok(Checkpointer { nudge: Some(nudge), thread: Some(thread), state })
    }

    /// To be called by the writer after a commit, outside a transaction. Never waits for the thread.
    ///
    /// - cost: some 2 µs, but for the one call in many thousands that copies what the thread left
    pub(super) fn after_commit(&self, conn: &Connection) -> Result<(), Error> {
        if self.state.finish.swap(false, Ordering::AcqRel) {
            self.state.running.store(false, Ordering::Release);
            checkpoint(conn, "PASSIVE")?;
            return Ok(());
        }
        if self.state.running.load(Ordering::Acquire) {
            return Ok(());
        }
        let (_, wal) = checkpoint(conn, "NOOP")?;
        if wal.left() >= START_PAGES
            && let Some(nudge) = &self.nudge
        {
            self.state.running.store(true, Ordering::Release);
            // Full: it has been told already. Gone: the commits checkpoint by themselves at `WAL_PAGES`.
            let _ = nudge.try_send(());
        }
        Ok(())
    }
}

impl Drop for Checkpointer {
    /// Waits for a round that is under way.
    fn drop(&mut self) {
        self.nudge = None;
        self.state.finish.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(conn: &Connection, nudged: &Receiver<()>, state: &State) {
    while nudged.recv().is_ok() {
        match copy(conn, state) {
            Ok(()) => state.finish.store(true, Ordering::Release),
            Err(error) => {
                // Nothing is lost: the pages stay in the WAL, and a later round copies them again.
                tracing::warn!(%error, "the WAL of the store cannot be brought into its file");
                state.running.store(false, Ordering::Release);
            }
        }
    }
}

/// Copies until little is left, as far as commits let it get.
fn copy(conn: &Connection, state: &State) -> Result<(), Error> {
    for _ in 0..ROUNDS_MAX {
        checkpoint(conn, "PASSIVE")?;
        let (_, wal) = checkpoint(conn, "NOOP")?;
        if wal.left() <= LITTLE_PAGES || state.finish.load(Ordering::Acquire) {
            break;
        }
    }
    Ok(())
}
