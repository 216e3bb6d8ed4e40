//! What the shard's actor does, seen from its clients: XML goes in, XML comes out, time is told. One file per theme.
#![expect(clippy::unwrap_used, reason = "tests")]

mod acks;
mod attempts;
mod bad_input;
mod blocking;
mod bounds;
mod carbons;
mod commands;
mod components;
mod csi;
mod discovery;
mod domains;
mod external;
mod fast;
mod faults;
mod harness;
mod iq;
mod latency;
mod limits;
mod messages;
mod moving;
mod negotiation;
mod offline;
mod operators;
mod phases;
mod presence;
mod rates;
mod register;
mod reload;
mod roster;
mod sasl2;
mod stanza_ids;
mod storage;
mod subscriptions;
mod talkers;
mod trace;
