//! The budgets of DESIGN §11 against the release binary: `cargo bench --bench e2e -- [--quick] [--only NAME] ...`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the result of a command")]

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let before = arguments.len();
    arguments.retain(|argument| argument != "--bench");
    // Cargo says `--bench` when it benches; `cargo test --all-targets` runs this too and measures nothing.
    if arguments.len() == before {
        return ExitCode::SUCCESS;
    }
    let is_foreign = arguments.iter().any(|argument| argument == "--server-pid");
    let binary = (!is_foreign).then_some(Path::new(env!("CARGO_BIN_EXE_corefire")));
    corefire_load::budget::main(
        binary,
        arguments.into_iter(),
        |line| println!("{line}"),
        |line| eprintln!("{line}"),
    )
}
