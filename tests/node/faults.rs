//! Faults of the disk under the real program: what was acknowledged stays, what cannot be kept is refused, and the
//! program goes on when the fault ends.
//!
//! The disk is `faults/shim.c`, a library between the program and the C library's file calls (`disk.rs`).

mod clock;
mod damage;
mod disk;
mod errors;
mod ledger;
mod power;
