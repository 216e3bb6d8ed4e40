//! What the admin address answers to a request: which path, to whom. Three paths are open, as probes and scrapers come
//! without a token, and so are the files of the page, which hold nothing of the node; all else needs the token that the
//! data directory holds. Nothing is changed by a request.
//!
//! `Host` and `Origin` are checked so that a page which an operator's browser shows cannot ask here under another name.

use super::page::Asset;
use std::borrow::Cow;
use std::net::IpAddr;

pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// The part of a request that the answer depends on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request<'a> {
    pub method: &'a str,
    /// Without the query.
    pub path: &'a str,
    pub host: Option<&'a str>,
    /// Before HTTP/1.1 nobody had to name the host; browsers do.
    pub is_http_1_0: bool,
    pub origin: Option<&'a str>,
    pub authorization: Option<&'a str>,
}

/// What the request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    Live,
    Ready,
    Metrics,
    Status,
    Overview,
    Latency,
    Cluster,
    ShardMap,
    /// A file of the admin page.
    Asset(&'static Asset),
}

/// Why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No `Host`.
    Malformed,
    WrongHost,
    ForeignOrigin,
    Method,
    Token,
    NotFound,
}

impl Refused {
    pub fn status(self) -> u16 {
        match self {
            Refused::Malformed => 400,
            Refused::WrongHost => 421,
            Refused::ForeignOrigin => 403,
            Refused::Method => 405,
            Refused::Token => 401,
            Refused::NotFound => 404,
        }
    }

    pub fn text(self) -> &'static str {
        match self {
            Refused::Malformed => "a request names its host\n",
            Refused::WrongHost => "not served under this name; see [admin] hosts\n",
            Refused::ForeignOrigin => "not served to other sites\n",
            Refused::Method => "only GET and HEAD\n",
            Refused::Token => {
                "needs: Authorization: Bearer TOKEN, from admin-token in the data directory\n"
            }
            Refused::NotFound => {
                "there is /livez, /readyz, /metrics, /status, /api/v1/overview, /api/v1/latency, /api/v1/cluster and /api/v1/shard-map\n"
            }
        }
    }

    /// A header that belongs to the status (RFC 9110 §11.6.1, §10.2.1).
    pub fn header(self) -> Option<(&'static str, &'static str)> {
        match self {
            Refused::Token => Some(("www-authenticate", "Bearer")),
            Refused::Method => Some(("allow", "GET, HEAD")),
            _ => None,
        }
    }
}

/// A whole answer, but for what each one has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub content_type: &'static str,
    pub header: Option<(&'static str, &'static str)>,
    /// The version of the body, with its quotes (RFC 9110 §8.8.3).
    pub etag: Option<String>,
    pub body: Cow<'static, str>,
}

impl Reply {
    pub fn text(status: u16, body: impl Into<Cow<'static, str>>) -> Reply {
        Reply { status, content_type: TEXT, header: None, etag: None, body: body.into() }
    }

    /// What is answered to one who has it already, by its `If-None-Match` (RFC 9110 §13.1.2).
    pub fn unless_known(self, if_none_match: Option<&str>) -> Reply {
        let (Some(etag), Some(known)) = (&self.etag, if_none_match) else { return self };
        let is_it = |one: &str| {
            let one = one.trim();
            one == "*" || one.strip_prefix("W/").unwrap_or(one) == etag
        };
        match self.status == 200 && known.split(',').any(is_it) {
            true => Reply { status: 304, body: "".into(), ..self },
            false => self,
        }
    }
}

impl From<Refused> for Reply {
    fn from(refused: Refused) -> Reply {
        Reply { header: refused.header(), ..Reply::text(refused.status(), refused.text()) }
    }
}

/// Who may ask.
#[derive(Clone, Debug)]
pub struct Door {
    /// Names beside addresses and `localhost` under which the address is known, in lower case.
    pub hosts: Vec<String>,
    pub token: String,
}

impl Door {
    /// What the request is answered with.
    pub fn page(&self, request: &Request<'_>) -> Result<Page, Refused> {
        match request.host {
            Some(host) if !self.is_ours(host) => return Err(Refused::WrongHost),
            None if !request.is_http_1_0 => return Err(Refused::Malformed),
            _ => {}
        }
        if let Some(origin) = request.origin {
            let host = origin.split_once("://").map(|(_, host)| host);
            if host.is_none() || host != request.host {
                return Err(Refused::ForeignOrigin);
            }
        }
        let page = match request.path {
            "/livez" => Some(Page::Live),
            "/readyz" => Some(Page::Ready),
            "/metrics" => Some(Page::Metrics),
            "/status" => Some(Page::Status),
            "/api/v1/overview" => Some(Page::Overview),
            "/api/v1/latency" => Some(Page::Latency),
            "/api/v1/cluster" => Some(Page::Cluster),
            "/api/v1/shard-map" => Some(Page::ShardMap),
            path => Asset::at(path).map(Page::Asset),
        };
        let is_open =
            matches!(page, Some(Page::Live | Page::Ready | Page::Metrics | Page::Asset(_)));
        if !is_open && !self.is_trusted(request.authorization) {
            return Err(Refused::Token);
        }
        let page = page.ok_or(Refused::NotFound)?;
        if !matches!(request.method, "GET" | "HEAD") {
            return Err(Refused::Method);
        }
        Ok(page)
    }

    /// An address cannot be another site's name.
    fn is_ours(&self, host: &str) -> bool {
        let name = match host.strip_prefix('[') {
            Some(bracketed) => match bracketed.split_once(']') {
                Some((address, port)) if port.is_empty() || port.starts_with(':') => address,
                _ => return false,
            },
            None => host.split_once(':').map_or(host, |(name, _)| name),
        };
        let name = name.to_ascii_lowercase();
        name == "localhost" || name.parse::<IpAddr>().is_ok() || self.hosts.contains(&name)
    }

    /// Looks at each byte, whatever the ones before it were.
    fn is_trusted(&self, authorization: Option<&str>) -> bool {
        let given = authorization.and_then(|text| {
            let (scheme, token) = text.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(token.trim().as_bytes())
        });
        let Some(given) = given else { return false };
        let token = self.token.as_bytes();
        let differing = given.iter().zip(token).fold(0, |sum, (one, other)| sum | (one ^ other));
        !token.is_empty() && given.len() == token.len() && differing == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door() -> Door {
        Door { hosts: vec!["xmpp-1.example.org".into()], token: "f00d".into() }
    }

    fn get(path: &'static str) -> Request<'static> {
        Request { method: "GET", path, host: Some("127.0.0.1:5290"), ..Request::default() }
    }

    #[test]
    fn probes_metrics_and_the_files_of_the_page_are_open() {
        for path in ["/", "/page/main.js", "/page/style.css", "/page/icon.svg"] {
            assert!(matches!(door().page(&get(path)), Ok(Page::Asset(_))), "{path}");
        }
        let pages = ["/livez", "/readyz", "/metrics"].map(|path| door().page(&get(path)));
        assert_eq!(pages, [Ok(Page::Live), Ok(Page::Ready), Ok(Page::Metrics)]);
    }

    #[test]
    fn all_else_needs_the_token() {
        for path in [
            "/status",
            "/api/v1/overview",
            "/api/v1/latency",
            "/api/v1/cluster",
            "/api/v1/shard-map",
            "/page/",
            "/page/main.js/",
            "/livez/",
            "/../etc/passwd",
            "",
        ] {
            assert_eq!(door().page(&get(path)), Err(Refused::Token), "{path}");
        }
        let with = |authorization, path| {
            door().page(&Request { authorization: Some(authorization), ..get(path) })
        };
        for wrong in ["Bearer", "Bearer ", "Bearer f00", "Bearer f00d1", "Basic f00d", "f00d"] {
            assert_eq!(with(wrong, "/status"), Err(Refused::Token), "{wrong}");
        }
        assert_eq!(with("bearer f00d", "/status"), Ok(Page::Status));
        assert_eq!(with("Bearer f00d", "/api/v1/latency"), Ok(Page::Latency));
        assert_eq!(with("Bearer f00d", "/nothing"), Err(Refused::NotFound));
        assert_eq!(with("Bearer f00d", "/api/v1/shard-map"), Ok(Page::ShardMap));
        assert_eq!(with("Bearer f00d", "/api/v1/cluster"), Ok(Page::Cluster));
        let nobody = Door { token: String::new(), ..door() };
        let empty = Request { authorization: Some("Bearer "), ..get("/status") };
        assert_eq!(nobody.page(&empty), Err(Refused::Token));
    }

    #[test]
    fn what_is_known_is_not_told_again() {
        let reply = Reply { etag: Some("\"9-1f\"".into()), ..Reply::text(200, "all") };
        let asked = |known| reply.clone().unless_known(known);
        for known in ["\"9-1f\"", "W/\"9-1f\"", "\"8-1f\", \"9-1f\"", "*"] {
            let answer = asked(Some(known));
            assert_eq!((answer.status, &*answer.body), (304, ""), "{known}");
            assert_eq!(answer.etag, reply.etag);
        }
        for unknown in [None, Some("\"9\""), Some("9-1f"), Some("")] {
            assert_eq!(asked(unknown), reply);
        }
        let failed = Reply { status: 503, ..reply.clone() };
        assert_eq!(failed.clone().unless_known(Some("*")), failed);
    }

    #[test]
    fn only_get_and_head_are_served() {
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "get"] {
            let request = Request { method, ..get("/metrics") };
            assert_eq!(door().page(&request), Err(Refused::Method), "{method}");
        }
        assert_eq!(door().page(&Request { method: "HEAD", ..get("/livez") }), Ok(Page::Live));
    }

    #[test]
    fn hosts_are_addresses_and_known_names() {
        let asked = |host| door().page(&Request { host: Some(host), ..get("/livez") });
        for ours in [
            "127.0.0.1",
            "10.0.0.1:5290",
            "[::1]:5290",
            "[::1]",
            "LocalHost:1",
            "xmpp-1.example.org:5290",
        ] {
            assert_eq!(asked(ours), Ok(Page::Live), "{ours}");
        }
        for other in ["evil.example", "localhost.evil.example", "[::1].evil.example", "", "[::1"] {
            assert_eq!(asked(other), Err(Refused::WrongHost), "{other}");
        }
        let none = Request { host: None, ..get("/livez") };
        assert_eq!(door().page(&none), Err(Refused::Malformed));
        assert_eq!(door().page(&Request { is_http_1_0: true, ..none }), Ok(Page::Live));
    }

    #[test]
    fn other_sites_are_refused() {
        let from = |origin| door().page(&Request { origin: Some(origin), ..get("/livez") });
        assert_eq!(from("http://127.0.0.1:5290"), Ok(Page::Live));
        for other in ["http://evil.example", "http://127.0.0.1:80", "null", ""] {
            assert_eq!(from(other), Err(Refused::ForeignOrigin), "{other}");
        }
    }
}
