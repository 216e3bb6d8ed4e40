//! stream/mod
