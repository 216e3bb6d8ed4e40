//! stream/mod

pub mod sasl;
