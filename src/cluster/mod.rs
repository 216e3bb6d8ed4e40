//! Which node and shard owns what, and how the nodes agree on it.
//!
//! `placement` computes owners, `view` is who takes part in it at one epoch, `map` tells others of it, and `authority` is
//! one node's part in deciding that by the shared database. Nodes find each other by `beacon`s and `discovery`, and know who
//! lives by `membership`; both send `datagram`s. `link` is what two nodes say to each other, `secret` what makes them nodes
//! of one cluster, and `relay` joins sockets to connections that live on other nodes. `drain` is how a node lets them go.

pub mod authority;
pub mod beacon;
mod datagram;
pub mod discovery;
pub mod drain;
pub mod facts;
pub mod link;
pub mod map;
pub mod membership;
pub mod placement;
pub mod refusal;
pub mod relay;
pub mod secret;
pub mod view;
