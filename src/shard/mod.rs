//! shard/mod
