//! Which node and shard owns what, and how the nodes agree on it: `placement` computes owners, `view` is who takes part
//! in it at one epoch.

pub mod placement;
pub mod view;
