//! The shell: alone in naming sockets, clocks, threads, glommio and TLS. It carries bytes and effects and never looks
//! inside a stanza.
//!
//! `executor` runs one shard per core, `listener` and `connection` its sockets with `socket` below them, `handshakes` the pace of TLS, `mesh` the rings between shards,
//! `federation` the cores that talk with other servers;
//! `relay` sockets whose connection is on another node;
//! `storage` and `passwords` are the side threads that may block, `latency` merges what is measured, `trace` passes on what is watched, `control` is the socket of the command line, `http`
//! the admin address.

mod certificate_expiry;
mod client_certificate;
pub mod clock;
pub mod cluster;
pub mod connection;
pub mod control;
pub mod data_dir;
pub mod departing;
pub mod errands;
pub mod executor;
pub mod federation;
mod handshakes;
pub mod hlog;
pub mod http;
pub mod latency;
pub mod listener;
pub mod mailbox;
pub mod mesh;
pub mod notify;
pub mod passwords;
pub mod preflight;
pub mod process;
mod redirect;
mod relay;
pub mod retention;
pub mod signal;
mod socket;
mod sockets;
pub mod storage;
pub mod tls;
mod trace;
mod turns;
mod withheld;
