//! The program as it runs: on loopback, with real sockets, real TLS, signals and restarts.

#![expect(clippy::unwrap_used, reason = "tests")]

mod accounts;
mod admin;
mod archive;
mod bad_input;
mod certificates;
mod client;
mod client_certificates;
mod components;
mod domains;
mod faults;
mod federation;
mod haproxy;
mod latency;
mod life;
mod log;
mod monitoring;
mod node;
mod portable;
mod postgres;
mod proxy;
mod refusals;
mod register;
mod reload;
mod restrict;
mod room;
mod seccomp;
mod tls;
mod trace;
mod two_domains;
