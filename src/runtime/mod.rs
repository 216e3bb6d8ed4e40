//! runtime/mod

pub mod control;
pub mod data_dir;
