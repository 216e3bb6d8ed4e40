//! What attacks cost those who are in: `tools/bench hostile`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the result of a command")]

use std::process::ExitCode;

fn main() -> ExitCode {
    corefire_load::hostile::main(
        std::env::args().skip(1),
        |line| println!("{line}"),
        |line| eprintln!("{line}"),
    )
}
