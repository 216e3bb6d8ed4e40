//! Which node and shard owns what, and how the nodes agree on it: `placement` computes owners, `view` is who takes part
//! in it at one epoch, `link` is what two nodes say to each other, `secret` what makes them nodes of one cluster.
//! in it at one epoch, `relay` joins sockets to connections that live on other nodes.

pub mod link;
pub mod placement;
pub mod secret;
pub mod relay;
pub mod view;
