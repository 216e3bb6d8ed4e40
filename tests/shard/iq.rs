//! iq
