//! frame/mod
