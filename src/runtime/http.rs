//! The admin address: HTTP/1.1 on one side thread, for a few connections at a time. What is answered to whom is
//! `admin::http`'s; what a page says is the handler's, on threads that may wait for shards.

use crate::admin::http::{Door, Page, Reply, Request};
use crate::admin::page::POLICY;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, HOST, IF_NONE_MATCH, ORIGIN};
use hyper::service::service_fn;
use hyper::{Response, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::borrow::Cow;
use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot};

/// Connections at a time; probes and scrapers open one each, an open page two or three.
const CONNECTIONS_MAX: usize = 128;
/// Pages that are being made at a time; others wait.
const WORKERS: usize = 2;
/// Bytes and number of a request's headers.
const HEADER_BYTES_MAX: usize = 8 << 10;
const HEADERS_MAX: usize = 64;
/// A request must be whole in this time, and a connection may be quiet for as long.
const HEADERS_WITHIN: Duration = Duration::from_secs(10);
/// However busy it is: a slow reader must not hold a place.
const CONNECTION_LIFE: Duration = Duration::from_secs(120);
/// After a failed accept (no descriptors left), so that the thread does not spin.
const PAUSE: Duration = Duration::from_millis(100);

/// Makes pages; called from side threads, may block for as long as a scraper waits.
pub trait PageHandler: Send + Sync {
    fn page(&self, page: Page) -> Reply;
}

/// The running address. Dropping it ends the thread and closes all connections.
#[derive(Debug)]
pub struct HttpServer {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Serves on `listener` until the answer is dropped.
///
/// - errors: the thread or its poll cannot be made
pub fn serve(
    listener: TcpListener,
    door: Door,
    handler: Arc<dyn PageHandler>,
) -> io::Result<HttpServer> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(WORKERS)
        .thread_name("admin-page")
        .build()?;
    let (stop, stopped) = oneshot::channel();
    let thread = std::thread::Builder::new().name("admin".into()).spawn(move || {
        let serving = accept(listener, Arc::new(door), handler);
        // That its sender is dropped is the end.
        runtime.block_on(futures_lite::future::or(serving, async { drop(stopped.await) }));
        // A page that waits for a shard is not waited for.
        runtime.shutdown_background();
    })?;
    Ok(HttpServer { stop: Some(stop), thread: Some(thread) })
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the admin address had panicked");
        }
    }
}

async fn accept(listener: TcpListener, door: Arc<Door>, handler: Arc<dyn PageHandler>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the admin address cannot be served"),
    };
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "a connection to the admin address cannot be accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let (door, handler) = (door.clone(), handler.clone());
        tokio::spawn(async move {
            let _place = place;
            let service = service_fn(|request| respond(request, door.clone(), handler.clone()));
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADERS_WITHIN)
                .max_buf_size(HEADER_BYTES_MAX)
                .max_headers(HEADERS_MAX)
                .serve_connection(TokioIo::new(stream), service);
            // Whatever ends it, nobody else is concerned.
            let _ = tokio::time::timeout(CONNECTION_LIFE, connection).await;
        });
    }
}

async fn respond(
    request: hyper::Request<Incoming>,
    door: Arc<Door>,
    handler: Arc<dyn PageHandler>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let asked = door.page(&Request {
        method: request.method().as_str(),
        path: request.uri().path(),
        // A proxy's form names the host in the line; then it stands before the header (RFC 9112 §3.2.2).
        host: request.uri().authority().map(|host| host.as_str()).or_else(|| header(HOST)),
        is_http_1_0: request.version() < Version::HTTP_11,
        origin: header(ORIGIN),
        authorization: header(AUTHORIZATION),
    });
    let reply = match asked {
        Ok(page) => tokio::task::spawn_blocking(move || handler.page(page))
            .await
            .unwrap_or_else(|_| Reply::text(500, "this page failed; see the log\n")),
        Err(refused) => refused.into(),
    };
    // What may stand behind a refused request is not read. A browser fetches the files of the page over several
    // connections, which it would keep.
    let closes = matches!(asked, Err(_) | Ok(Page::Asset(_)));
    Ok(response(reply.unless_known(header(IF_NONE_MATCH)), closes))
}

fn response(reply: Reply, closes: bool) -> Response<Full<Bytes>> {
    let mut builder = Response::builder()
        .status(reply.status)
        .header("content-type", reply.content_type)
        .header("cache-control", "no-store")
        .header("x-content-type-options", "nosniff")
        .header("content-security-policy", POLICY)
        .header("referrer-policy", "no-referrer")
        .header("cross-origin-opener-policy", "same-origin")
        .header("cross-origin-resource-policy", "same-origin");
    if let Some((name, value)) = reply.header {
        builder = builder.header(name, value);
    }
    if let Some(etag) = reply.etag {
        builder = builder.header("etag", etag);
    }
    if closes {
        builder = builder.header("connection", "close");
    }
    // The status and headers are ours, and valid.
    let body = match reply.body {
        Cow::Borrowed(text) => Bytes::from_static(text.as_bytes()),
        Cow::Owned(text) => Bytes::from(text),
    };
    builder.body(Full::new(body)).unwrap_or_default()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpStream};

    struct Pages;

    impl PageHandler for Pages {
        fn page(&self, page: Page) -> Reply {
            assert!(page != Page::Metrics, "a page that fails");
            Reply::text(200, format!("{page:?}"))
        }
    }

    fn start() -> (HttpServer, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let door = Door { hosts: Vec::new(), token: "t0k3n".into() };
        (serve(listener, door, Arc::new(Pages)).unwrap(), address)
    }

    fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        // A server that has not read all of a request may end by a reset.
        let _ = stream.read_to_string(&mut answer);
        answer
    }

    fn get(path: &str, more: &str) -> String {
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{more}\r\n")
    }

    #[test]
    fn pages_are_served_and_the_rest_refused() {
        let (server, address) = start();
        let answer = ask(address, &get("/livez?x", ""));
        assert!(
            answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nLive"),
            "{answer}"
        );
        assert!(answer.contains("cache-control: no-store"), "{answer}");
        let head = ask(address, &get("/livez", "").replace("GET", "HEAD"));
        assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"), "{head}");
        let answer = ask(address, &get("/status", ""));
        assert!(
            answer.starts_with("HTTP/1.1 401") && answer.contains("www-authenticate: Bearer"),
            "{answer}"
        );
        let answer = ask(address, &get("/status", "Authorization: Bearer t0k3n\r\n"));
        assert!(answer.ends_with("Status"), "{answer}");
        let answer = ask(address, &get("/livez", "Origin: http://evil.example\r\n"));
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
        let answer = ask(address, &get("/livez", "").replace("GET", "POST"));
        assert!(
            answer.starts_with("HTTP/1.1 405") && answer.contains("allow: GET, HEAD"),
            "{answer}"
        );
        let answer = ask(address, "GET /livez HTTP/1.0\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
        drop(server);
        assert!(TcpStream::connect(address).is_err(), "the address is free again");
    }

    #[test]
    fn a_page_that_fails_costs_that_answer_only() {
        let (_server, address) = start();
        assert!(ask(address, &get("/metrics", "")).starts_with("HTTP/1.1 500"));
        assert!(ask(address, &get("/livez", "")).starts_with("HTTP/1.1 200"));
    }

    #[test]
    fn requests_are_small() {
        let (_server, address) = start();
        let long = format!("X: {}\r\n", "x".repeat(HEADER_BYTES_MAX));
        assert!(ask(address, &get("/livez", &long)).starts_with("HTTP/1.1 431"));
        let many = "X: x\r\n".repeat(HEADERS_MAX);
        assert!(ask(address, &get("/livez", &many)).starts_with("HTTP/1.1 431"));
        assert!(ask(address, "hello\r\n\r\n").starts_with("HTTP/1.1 400"));
    }

    #[test]
    fn more_connections_than_places_wait_for_theirs() {
        let (_server, address) = start();
        let mut silent: Vec<_> =
            (0..CONNECTIONS_MAX).map(|_| TcpStream::connect(address).unwrap()).collect();
        let mut late = TcpStream::connect(address).unwrap();
        late.write_all(get("/livez", "").as_bytes()).unwrap();
        silent.pop();
        let mut answer = String::new();
        late.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("Live"), "{answer}");
    }
}
