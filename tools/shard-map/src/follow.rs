//! Gets the map from a node's admin address, gets it again when it has changed, and connects to owners.

use crate::{MapError, Owner, ShardMap};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// Of each connect, read and write.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of an answer; a map of 65 535 members with long names is smaller.
const ANSWER_BYTES_MAX: u64 = 32 << 20;

/// Why there is no map.
#[derive(Debug)]
#[non_exhaustive]
pub enum FollowError {
    /// The node cannot be reached; another one will do as well.
    Io(io::Error),
    /// The status of the answer: 401 is a wrong token, 503 a node that starts.
    Refused(u16),
    Map(MapError),
}

impl std::fmt::Display for FollowError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            FollowError::Io(error) => {
                write!(f, "the node cannot be asked for its shard map: {error}")
            }
            FollowError::Refused(status) => {
                write!(f, "the node answers {status} to the question for its shard map")
            }
            FollowError::Map(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for FollowError {}

impl From<io::Error> for FollowError {
    fn from(error: io::Error) -> FollowError {
        FollowError::Io(error)
    }
}

/// The admin address of a node. Plain HTTP, as it is served: on the same machine, or through a tunnel.
#[derive(Clone, Debug)]
pub struct Source {
    /// `HOST:PORT`
    pub address: String,
    /// What `admin-token` in the node's data directory holds.
    pub token: String,
}

/// A map that is kept new.
#[derive(Debug)]
pub struct Follower {
    source: Source,
    map: ShardMap,
    /// Of the last answer.
    etag: Option<String>,
}

impl Follower {
    pub fn start(source: Source) -> Result<Follower, FollowError> {
        match source.ask(None)? {
            Answer::Map { map, etag } => Ok(Follower { source, map, etag }),
            Answer::Known => Err(FollowError::Refused(304)),
        }
    }

    pub fn map(&self) -> &ShardMap {
        &self.map
    }

    /// Asks whether there is a newer map, and says whether there was. Worth its while every few seconds, and when an owner
    /// cannot be reached. After an error the known map still stands.
    pub fn refresh(&mut self) -> Result<bool, FollowError> {
        let Answer::Map { map, etag } = self.source.ask(self.etag.as_deref())? else {
            return Ok(false);
        };
        if !map.replaces(&self.map) {
            return Ok(false);
        }
        (self.map, self.etag) = (map, etag);
        Ok(true)
    }

    /// From now on another node is asked: all of a cluster tell the same map, sooner or later.
    pub fn ask(&mut self, source: Source) {
        self.source = source;
    }
}

enum Answer {
    Map {
        map: ShardMap,
        etag: Option<String>,
    },
    /// It is what is known.
    Known,
}

impl Source {
    fn ask(&self, etag: Option<&str>) -> Result<Answer, FollowError> {
        let Source { address, token } = self;
        let known = etag.map_or(String::new(), |etag| format!("If-None-Match: {etag}\r\n"));
        let mut stream = connect_to(address)?;
        // HTTP/1.0 has answers that end with the connection, and no others.
        write!(
            stream,
            "GET /api/v1/shard-map HTTP/1.0\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n{known}\r\n",
            token = token.trim()
        )?;
        let mut answer = String::new();
        stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
        read_answer(&answer)
    }
}

fn read_answer(answer: &str) -> Result<Answer, FollowError> {
    let odd = || FollowError::Io(io::Error::new(ErrorKind::InvalidData, "no answer of HTTP"));
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(odd)?;
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let etag = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("etag").then(|| value.trim().to_owned())
    });
    match status.ok_or_else(odd)? {
        200 => {
            let map = ShardMap::from_json(body).map_err(FollowError::Map)?;
            Ok(Answer::Map { map, etag })
        }
        304 => Ok(Answer::Known),
        status => Err(FollowError::Refused(status)),
    }
}

/// Connects to the node that owns an address, at the first of its addresses that answers. What is spoken there is XMPP, as
/// at the domain's own address.
///
/// - errors: `AddrNotAvailable` where the node has no address of its own, and whatever the last one said; the domain's
///   address is then as good
pub fn connect(owner: Owner<'_>) -> io::Result<TcpStream> {
    connect_to_any(&owner.member.clients)
}

/// As `connect`, for a component (XEP-0114): keep one such connection to each node, and send on that of the recipient's owner.
///
/// - errors: as of `connect`; what is sent on a connection to another node is passed on by that
pub fn connect_component(owner: Owner<'_>) -> io::Result<TcpStream> {
    connect_to_any(&owner.member.components)
}

fn connect_to_any(addresses: &[String]) -> io::Result<TcpStream> {
    let mut last =
        io::Error::new(ErrorKind::AddrNotAvailable, "the node has no address of its own");
    for address in addresses {
        match connect_to(address) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn connect_to(address: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    fn json(epoch: u64, client: &str) -> String {
        format!(
            "{{\"format\":1,\"epoch\":{epoch},\"rule\":\"sha256-rendezvous-1\",\"partitions\":4096,\"members\":\
             [{{\"name\":\"n\",\"node\":1,\"weight\":1,\"shards\":2,\"clients\":[\"127.0.0.1:1\",\"{client}\"]}}]}}"
        )
    }

    /// A node that gives these answers, one after the other, and what it was asked.
    fn node(answers: Vec<String>) -> (Source, thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let serving = thread::spawn(move || {
            let answer = |answer: String| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut asked = String::new();
                while !asked.ends_with("\r\n\r\n") {
                    let mut bytes = [0; 512];
                    let read = stream.read(&mut bytes).unwrap();
                    asked.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
                }
                stream.write_all(answer.as_bytes()).unwrap();
                asked
            };
            answers.into_iter().map(answer).collect()
        });
        (Source { address, token: "t0k3n\n".into() }, serving)
    }

    fn told(epoch: u64) -> String {
        format!("HTTP/1.0 200 OK\r\nETag: \"{epoch}-a\"\r\n\r\n{}", json(epoch, "127.0.0.1:2"))
    }

    #[test]
    fn a_map_is_followed_from_epoch_to_epoch() {
        let (source, serving) = node(vec![
            told(4),
            "HTTP/1.0 304 Not Modified\r\n\r\n".into(),
            told(5),
            told(4),
            "HTTP/1.0 503 Service Unavailable\r\n\r\nthe node is starting\n".into(),
        ]);
        let mut follower = Follower::start(source).unwrap();
        assert_eq!(follower.map().epoch(), 4);
        assert!(!follower.refresh().unwrap());
        assert!(follower.refresh().unwrap());
        assert_eq!(follower.map().epoch(), 5);
        assert!(!follower.refresh().unwrap(), "a node that is behind changes nothing");
        assert!(matches!(follower.refresh(), Err(FollowError::Refused(503))));
        assert_eq!(follower.map().epoch(), 5);
        let asked = serving.join().unwrap();
        assert!(
            asked[0].contains("\r\nAuthorization: Bearer t0k3n\r\n") && !asked[0].contains("None")
        );
        let known: Vec<_> =
            asked[1..].iter().map(|one| one.contains("If-None-Match: \"4-a\"")).collect();
        assert_eq!(known, [true, true, false, false]);
        assert!(matches!(follower.refresh(), Err(FollowError::Io(_))), "it has gone");
    }

    #[test]
    fn the_first_address_of_the_owner_that_answers_is_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let map = ShardMap::from_json(&json(1, &address.to_string())).unwrap();
        let stream = connect(map.owner("alice@example.org")).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), address);
        let nowhere =
            ShardMap::from_json(&json(1, "").replace("\"127.0.0.1:1\",\"\"", "")).unwrap();
        let error = connect(nowhere.owner("alice@example.org")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrNotAvailable);
    }
}
