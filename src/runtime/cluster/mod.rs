//! The node's side threads towards other nodes. `gossip` finds them and knows who lives, `links` carries what shards have
//! for each other, `authority` asks the database who owns what, `lease` says how long its answer holds, and `port` is what
//! the shards' cores have of it all.

pub mod authority;
pub mod calls;
pub mod gossip;
pub mod lease;
pub mod links;
pub mod port;
pub mod secret;
pub mod threads;
mod tls;
