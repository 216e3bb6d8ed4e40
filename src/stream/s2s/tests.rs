//! Two machines that talk to each other with any cut of the bytes, and peers that break the rules.

mod hostile;
mod management;
mod side;
mod talks;
