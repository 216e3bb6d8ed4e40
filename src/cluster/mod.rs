//! Which node and shard owns what, and how the nodes agree on it.

pub mod placement;
