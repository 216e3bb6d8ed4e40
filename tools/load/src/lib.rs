//! Clients by the thousand that drive an XMPP server, and what each message cost it.
//!
//! One thread, one epoll, no async runtime: the generator has to be cheaper than the server it measures. It shares no
//! code with the server, so that it shares no fault with it, and it speaks to any server: plain TCP, STARTTLS or direct
//! TLS, SASL PLAIN or SCRAM, classic binding, XEP-0198.
//!
//! - [`engine`] carries connections through login and hands their stanzas to a [`Scenario`], once per turn
//! - [`fleet`] logs a range of accounts in, to fill their rosters
//! - [`server`] reads a process's CPU time and memory;
//!   [`launch`] starts and stops a server under test; [`budget`] is the table of DESIGN §11; [`hostile`] attacks,
//!   [`isolation`] what other servers cost those who are in
//! - [`scenario`] reads what a run is to be, [`plan`] makes phases and a seeded schedule of it, [`drive`] carries that
//!   out, [`run`] adds faults and the server's process, [`workers`] has it done by several processes, [`judge`] says
//!   whether it may be believed and what held, [`cost`] what the server paid
//! - [`record`] holds what a run showed, second by second; [`live`] shows it while it goes on, [`artefacts`] writes it
//!   for people and programs, [`compare`] sets two runs side by side, [`table`] those of several servers; [`cli`] is the
//!   command line of `corefire-load`
//! - [`scan`], [`login`], [`scram`] are machines without input or output; [`sys`] holds the system calls

pub mod artefacts;
pub mod budget;
mod chart;
pub mod cli;
mod client;
pub mod compare;
pub mod cost;
pub mod drive;
pub mod engine;
pub mod error;
pub mod fleet;
pub mod hostile;
pub mod isolation;
pub mod judge;
pub mod launch;
pub mod live;
pub mod login;
mod page;
pub mod plan;
pub mod record;
pub mod run;
pub mod scan;
pub mod scenario;
pub mod scram;
pub mod server;
pub mod sources;
pub mod sys;
pub mod table;
mod tls;
pub mod workers;

pub use engine::{ClientConfig, ClientId, Control, Engine, EngineConfig, Scenario};
pub use error::Error;
pub use fleet::{Accounts, Fleet, FleetConfig};
pub use login::Mechanism;
pub use server::ServerProbe;
pub use tls::Tls;
