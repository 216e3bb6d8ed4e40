//! What the federation actor does, seen from other servers and from the shards: XML and frames go in and come out, time is
//! told. `rig` is one actor with peers that the test plays; `world` is several actors on a network in memory.
#![expect(clippy::unwrap_used, reason = "tests")]

mod alive;
mod bad_input;
mod certs;
mod chat;
mod cluster;
mod confirming;
mod content;
mod dialback;
mod faults;
mod operators;
mod peer;
mod posh;
mod resuming;
mod rig;
mod sending;
mod world;
