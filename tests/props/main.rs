//! Properties that must hold for any input; a failure prints the smallest input that breaks one.

mod corpus;
mod frame;
mod jid;
mod placement;
mod xml;
