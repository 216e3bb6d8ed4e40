//! Clusters of the real program: several nodes on loopback, or in network namespaces, on one real PostgreSQL; they are
//! killed, held, cut off and started again while clients write.

#![expect(clippy::unwrap_used, reason = "tests")]

mod chat;
#[path = "../node/client.rs"]
#[expect(dead_code, reason = "the tests of one node use the rest of it")]
mod client;
mod cluster;
mod database;
mod deaths;
mod drains;
mod federation;
mod finding;
mod hops;
mod latency;
mod namespaces;
#[path = "../node/node.rs"]
#[expect(dead_code, reason = "the tests of one node use the rest of it")]
mod node;
mod operators;
mod person;
mod restarts;
#[path = "../node/restrict.rs"]
#[expect(dead_code, reason = "the tests of one node use the rest of it")]
mod restrict;
#[path = "../postgres/server.rs"]
#[expect(dead_code, reason = "the tests of the store use the rest of it")]
mod server;
