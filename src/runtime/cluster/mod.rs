//! The node's side threads towards other nodes. `port` is what the shards' cores have of them, `links` carries what they
//! send, over `tls`; `secret` is the file that makes nodes one cluster.

pub mod links;
pub mod port;
pub mod secret;
pub mod tls;
