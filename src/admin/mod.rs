//! What operators get: metrics, and what the admin address answers. Values in, text out; the runtime gathers and serves.

pub mod exposition;
pub mod figures;
pub mod health;
pub mod http;
pub mod latency;
pub mod metrics;
pub mod overview;
pub mod page;
