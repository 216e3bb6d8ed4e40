//! Which node and shard owns what, and how the nodes agree on it: `placement` computes owners, `view` is who takes part
//! in it at one epoch, `link` is what two nodes say to each other, `secret` what makes them nodes of one cluster, and
//! `relay` joins sockets to connections that live on other nodes.

pub mod link;
pub mod placement;
pub mod relay;
pub mod secret;
pub mod view;
