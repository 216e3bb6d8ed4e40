//! Keeps a connection to the node that owns an address, and moves it when another one owns it:
//!
//! ```sh
//! cargo run --example connect_to_owner -- 127.0.0.1:5290 corefire-data/admin-token alice@example.org
//! ```

use corefire_shard_map::{Follower, Source, connect};
use std::error::Error;
use std::io::{self, Read, Write};
use std::time::Duration;

const BETWEEN_QUESTIONS: Duration = Duration::from_secs(5);

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, token_file, jid] = &arguments[..] else {
        return Err("arguments: ADMIN_ADDRESS TOKEN_FILE JID".into());
    };
    let token = std::fs::read_to_string(token_file)?;
    let mut follower = Follower::start(Source { address: address.clone(), token })?;
    loop {
        let map = follower.map();
        let owner = map.owner(jid);
        let name = owner.member.name.clone();
        let mut out = io::stdout().lock();
        writeln!(out, "epoch {}: {jid} is on node {name}, shard {}", map.epoch(), owner.shard)?;
        // Held for as long as the node owns the address. A service logs in here, and sends.
        let mut stream = connect(owner)?;
        let domain = jid.split('/').next().and_then(|bare| bare.split('@').next_back());
        write!(
            stream,
            "<stream:stream to='{}' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>",
            domain.unwrap_or_default()
        )?;
        let mut answer = [0; 1024];
        let read = stream.read(&mut answer)?;
        writeln!(out, "{}: {}", stream.peer_addr()?, String::from_utf8_lossy(&answer[..read]))?;
        drop(out);
        while follower.map().owner(jid).member.name == name {
            std::thread::sleep(BETWEEN_QUESTIONS);
            // A node that cannot be asked now can be asked later: the map that is known stands.
            if let Err(error) = follower.refresh() {
                writeln!(io::stderr(), "{error}")?;
            }
        }
    }
}
