//! Corefire: an XMPP server in which the owner of a JID is computed, never looked up.
//!
//! Decisions are plain functions, effects are values, one shell (`runtime`) carries them out. A folder imports only
//! from folders named after it here; `README.md` has the map and the walk of a stanza.

pub mod cli;
pub mod config;
pub mod node;

pub mod portable;

pub mod runtime;

pub mod admin;
pub mod features;

pub mod federation;
pub mod shard;

pub mod cluster;
pub mod store;
pub mod stream;

pub mod frame;

pub mod xmpp;

pub mod base;
