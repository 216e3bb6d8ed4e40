//! The node's side threads towards other nodes. `port` is what the shards' cores have of them.

pub mod port;
