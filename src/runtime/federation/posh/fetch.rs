//! One document over HTTPS, with what it leads to.

use super::super::certificates::explain;
use super::{FETCH_TIMEOUT, Known, PoshSettings};
use crate::base::hash::Map;
use crate::federation::posh::{DOCUMENT_BYTES_MAX, Lookup, LookupStep, PoshProblem, Url};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONNECTION, HOST, LOCATION};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::crypto::ring as provider;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// Bytes of the head of an answer.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// For the connection to one address, where there are others.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1_500);
const ALPN: &[u8] = b"http/1.1";

/// How to fetch, by one set of settings.
pub(in crate::runtime::federation) struct Fetcher {
    tls: TlsConnector,
    routes: Map<String, SocketAddr>,
}

/// An answer of HTTP.
struct Answer {
    status: u16,
    location: Option<String>,
    /// Empty where the status is not 200.
    body: Bytes,
}

impl Fetcher {
    pub(in crate::runtime::federation) fn new(
        settings: PoshSettings,
    ) -> Result<Fetcher, rustls::Error> {
        let PoshSettings { trust, routes } = settings;
        let mut tls = ClientConfig::builder_with_provider(Arc::new(provider::default_provider()))
            .with_protocol_versions(&[&TLS13, &TLS12])?
            .with_root_certificates(trust.roots())
            .with_no_client_auth();
        tls.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Fetcher { tls: TlsConnector::from(Arc::new(tls)), routes })
    }

    /// The document of a domain.
    ///
    /// - takes: the domain as JIDs are prepared; `find`, the addresses of a host
    pub(in crate::runtime::federation) async fn fetch<F>(
        &self,
        domain: &str,
        find: impl Fn(String) -> F,
    ) -> Known
    where
        F: Future<Output = Result<Vec<IpAddr>, String>>,
    {
        let mut lookup = Lookup::begin(domain)?;
        let way = async {
            loop {
                let answer = self.get(lookup.url(), &find).await?;
                let step = lookup.answered(answer.status, answer.location.as_deref(), &answer.body);
                match step {
                    LookupStep::Ask => {}
                    LookupStep::Done(outcome) => return outcome.map(Arc::new),
                }
            }
        };
        timeout(FETCH_TIMEOUT, way).await.unwrap_or(Err(PoshProblem::Timeout))
    }

    async fn get<F>(&self, url: &Url, find: impl Fn(String) -> F) -> Result<Answer, PoshProblem>
    where
        F: Future<Output = Result<Vec<IpAddr>, String>>,
    {
        let unreachable = |why: String| PoshProblem::unreachable(&why);
        let places = match self.routes.get(&url.host) {
            Some(place) => vec![*place],
            None => {
                let found = find(url.host.clone()).await.map_err(unreachable)?;
                found.into_iter().map(|ip| SocketAddr::new(ip, url.port)).collect()
            }
        };
        let stream = connect(&places).await.map_err(unreachable)?;
        let name = ServerName::try_from(url.host.clone())
            .map_err(|_| PoshProblem::Malformed("it leads to a place that is none"))?;
        let stream = self.tls.connect(name, stream).await.map_err(|error| {
            let inner = error.get_ref().and_then(|it| it.downcast_ref::<rustls::Error>());
            unreachable(inner.map_or_else(|| error.to_string(), explain))
        })?;
        let broken = |error: hyper::Error| unreachable(format!("what it says is no HTTP: {error}"));
        let handshake =
            http1::Builder::new().max_buf_size(HEAD_BYTES_MAX).handshake(TokioIo::new(stream));
        let (mut requests, connection) = handshake.await.map_err(broken)?;
        let _running = Running(spawn_local(async move {
            // What it fails of, the request fails of.
            let _ = connection.await;
        }));
        let request = request(url)
            .ok_or(PoshProblem::Malformed("it leads to a place that cannot be asked for"))?;
        let response = requests.send_request(request).await.map_err(broken)?;
        let status = response.status().as_u16();
        let location = response.headers().get(LOCATION).and_then(|it| it.to_str().ok());
        let location = location.map(str::to_owned);
        if status != 200 {
            return Ok(Answer { status, location, body: Bytes::new() });
        }
        let body = Limited::new(response.into_body(), DOCUMENT_BYTES_MAX).collect().await;
        let body = body.map_err(|error| match error.is::<LengthLimitError>() {
            true => PoshProblem::TooLong,
            false => unreachable(format!("the document broke off: {error}")),
        })?;
        Ok(Answer { status, location, body: body.to_bytes() })
    }
}

/// Ends a connection with the request that it was made for.
struct Running(JoinHandle<()>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn request(url: &Url) -> Option<Request<Empty<Bytes>>> {
    let host = match url.port {
        443 => url.host.clone(),
        port => format!("{}:{port}", url.host),
    };
    Request::get(url.target.as_str())
        .header(HOST, host)
        .header(ACCEPT, "application/json")
        .header(CONNECTION, "close")
        .body(Empty::new())
        .ok()
}

/// One after the other.
///
/// - errors: of the last one, in words
async fn connect(places: &[SocketAddr]) -> Result<TcpStream, String> {
    let mut last = "it has no address".to_owned();
    for place in places {
        match timeout(CONNECT_TIMEOUT, TcpStream::connect(place)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = format!("{place}: {error}"),
            Err(_) => last = format!("{place}: no answer"),
        }
    }
    Err(last)
}
