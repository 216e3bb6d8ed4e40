//! Measures a server against the budgets of DESIGN §11. `cargo bench --bench e2e` is the same with its own Corefire.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the result of a command")]

use std::path::PathBuf;
use std::process::ExitCode;

use corefire_load::budget;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).peekable();
    // A first argument that is no flag is the Corefire binary to start.
    let binary = arguments.next_if(|first| !first.starts_with("--")).map(PathBuf::from);
    budget::main(
        binary.as_deref(),
        arguments,
        |line| println!("{line}"),
        |line| eprintln!("{line}"),
    )
}
