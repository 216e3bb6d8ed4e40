//! What knows nothing of XMPP: time, hashing, ids, limits, histograms, escapes.

pub mod hash;
pub mod heavy_hitters;
pub mod histogram;
pub mod ids;
pub mod instant;
pub mod limit;
pub mod network;
pub mod percent;
pub mod rng;
pub mod subnet;
pub mod wheel;
