//! One connection: a thread's own, driven by a small runtime of the same thread while it waits for an answer.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Config, Connection, NoTls, Row, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::super::Error;
use super::fault::{Fault, told};
use super::settings::{Settings, TlsMode};
use super::tls;

/// How long the handshake may take when the connection stands: for TLS, the password and the statements.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a connection that ends may take to say so.
const FAREWELL: Duration = Duration::from_millis(200);

/// What each session runs with. Plans must not turn over with the statistics of a table that has just been filled:
/// every query here has its index, and walks it in order.
///
/// A server that no longer hears from us ends the session, and with it its transaction and its locks. One that is only idle
/// stays; the last settings are of later servers than 13.
pub(super) const SESSION: &str = "
    SET client_min_messages = warning;
    SET default_transaction_isolation = 'read committed';
    SET idle_in_transaction_session_timeout = '30s';
    SET lock_timeout = '10s';
    SET tcp_keepalives_idle = 15;
    SET tcp_keepalives_interval = 5;
    SET tcp_keepalives_count = 3;
    SET tcp_user_timeout = 30000;
    SET jit = off;
    SET plan_cache_mode = force_generic_plan;
    SET enable_seqscan = off;
    SET enable_bitmapscan = off;
    SET enable_hashjoin = off;
    SET enable_mergejoin = off;
    SET enable_sort = off;
    SELECT set_config(name, '0', false) FROM pg_settings
    WHERE name IN ('idle_session_timeout', 'transaction_timeout');
";

/// Which part of the server warns that a commit was answered though no standby had it: somebody cancelled its wait.
const STANDBY_WAIT: &str = "SyncRepWaitForLSN";

/// A parameter of a statement.
pub(super) type Value<'a> = &'a (dyn ToSql + Sync);

/// Prepared, by its place in the list that was prepared, and its parameters.
pub(super) type Call<'a> = (usize, Vec<Value<'a>>);

/// A session with its prepared statements.
pub(super) struct Link {
    /// None only while it is dropped.
    open: Option<Open>,
    statements: Vec<Statement>,
    /// A commit was answered too early.
    unreplicated: Arc<AtomicBool>,
}

struct Open {
    client: Client,
    driver: JoinHandle<()>,
    runtime: Runtime,
}

impl Link {
    /// - takes: `name`, what the server's operator sees the session by; `session`, settings beside those of every link;
    ///   `statements`, to be prepared
    /// - errors: `Open`
    /// - blocking: up to the time-outs of the settings
    pub(super) fn connect(
        settings: &Settings,
        name: &str,
        session: &str,
        statements: &[&str],
    ) -> Result<Link, Error> {
        Link::connect_within(settings, name, session, statements, HANDSHAKE)
    }

    /// As `connect`, for one who cannot wait as long.
    ///
    /// - takes: `handshake`, how long it may take when the connection stands
    pub(super) fn connect_within(
        settings: &Settings,
        name: &str,
        session: &str,
        statements: &[&str],
        handshake: Duration,
    ) -> Result<Link, Error> {
        let open_error = |reason: String| Error::Open { path: settings.to_string(), reason };
        let mut config = settings.with_password()?;
        config.application_name(name);
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| open_error(error.to_string()))?;
        let servers = config.get_hosts().len().max(config.get_hostaddrs().len()).max(1);
        let each = config.get_connect_timeout().copied().unwrap_or_default();
        let limit = each * u32::try_from(servers).unwrap_or(u32::MAX) + handshake;
        let tls = match settings.tls {
            TlsMode::Disable => None,
            _ => Some(tls::connector(settings).map_err(open_error)?),
        };
        let unreplicated = Arc::new(AtomicBool::new(false));
        let warned = unreplicated.clone();
        let connected =
            runtime.block_on(async { timeout(limit, meet(&config, tls, warned)).await });
        let (client, driver) = match connected {
            Ok(Ok(connected)) => connected,
            Ok(Err(error)) => return Err(open_error(told(&Fault::Database(error)))),
            Err(_) => return Err(open_error(told(&Fault::Silent))),
        };
        let mut link = Link {
            open: Some(Open { client, driver, runtime }),
            statements: Vec::new(),
            unreplicated,
        };
        let prepared = link.run(handshake, async |client| {
            client.batch_execute(&format!("{SESSION}{session}")).await?;
            in_order(statements.iter().map(|sql| client.prepare(sql))).await
        });
        link.statements = prepared.map_err(|fault| open_error(told(&fault)))?;
        Ok(link)
    }

    /// Does `work`, for as long as `limit`; past it nothing is known of what was asked for, and the link must go.
    pub(super) fn run<T>(
        &mut self,
        limit: Duration,
        work: impl AsyncFnOnce(&Client) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, Fault> {
        let Some(Open { client, runtime, .. }) = &self.open else { return Err(Fault::Silent) };
        match runtime.block_on(async { timeout(limit, work(client)).await }) {
            Ok(done) => done.map_err(Fault::Database),
            Err(_) => Err(Fault::Silent),
        }
    }

    /// Sends all calls at once and gives their rows.
    ///
    /// - errors: of the first that failed; those behind it in a transaction have failed then, too
    pub(super) fn ask(
        &mut self,
        limit: Duration,
        calls: &[Call<'_>],
    ) -> Result<Vec<Vec<Row>>, Fault> {
        // Borrowed apart from the client.
        let statements = std::mem::take(&mut self.statements);
        let answers = self.run(limit, async |client| {
            in_order(
                calls.iter().map(|(number, values)| client.query(&statements[*number], values)),
            )
            .await
        });
        self.statements = statements;
        answers
    }

    /// Whether a commit was answered as done since the last time, though its standby may not have it.
    pub(super) fn is_unreplicated(&self) -> bool {
        self.unreplicated.swap(false, Ordering::Relaxed)
    }

    /// Asks something that is asked once.
    pub(super) fn once(
        &mut self,
        limit: Duration,
        sql: &str,
        values: &[Value<'_>],
    ) -> Result<Vec<Row>, Fault> {
        self.run(limit, async |client| client.query(sql, values).await)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let Some(Open { client, driver, runtime }) = self.open.take() else { return };
        drop(client);
        // A server that hears of the end logs no fault.
        let _ = runtime.block_on(async { timeout(FAREWELL, driver).await });
        // A look-up of a name that hangs holds nobody up.
        runtime.shutdown_background();
    }
}

/// Connects, and leaves the driving of the connection to a task.
async fn meet(
    config: &Config,
    tls: Option<MakeRustlsConnect>,
    unreplicated: Arc<AtomicBool>,
) -> Result<(Client, JoinHandle<()>), tokio_postgres::Error> {
    match tls {
        None => {
            let (client, connection) = config.connect(NoTls).await?;
            Ok((client, tokio::spawn(drive(connection, unreplicated))))
        }
        Some(tls) => {
            let (client, connection) = config.connect(tls).await?;
            Ok((client, tokio::spawn(drive(connection, unreplicated))))
        }
    }
}

async fn drive<S, T>(mut connection: Connection<S, T>, unreplicated: Arc<AtomicBool>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    // Of an error, who waits for an answer is told as well. A warning comes before the answer that it is about.
    while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
        if let AsyncMessage::Notice(notice) = message
            && notice.routine() == Some(STANDBY_WAIT)
        {
            unreplicated.store(true, Ordering::Relaxed);
        }
    }
}

/// Polls all futures, first in the order given: in that order the driver sends them. Gives the first error by that order.
async fn in_order<T, E, F>(futures: impl Iterator<Item = F>) -> Result<Vec<T>, E>
where
    F: Future<Output = Result<T, E>>,
{
    let mut futures: Vec<Pin<Box<F>>> = futures.map(Box::pin).collect();
    let mut results: Vec<Option<Result<T, E>>> = futures.iter().map(|_| None).collect();
    poll_fn(|context| {
        let mut poll = Poll::Ready(());
        for (future, result) in futures.iter_mut().zip(&mut results) {
            if result.is_none() {
                match future.as_mut().poll(context) {
                    Poll::Ready(done) => *result = Some(done),
                    Poll::Pending => poll = Poll::Pending,
                }
            }
        }
        poll
    })
    .await;
    results.into_iter().flatten().collect()
}
