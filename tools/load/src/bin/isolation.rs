//! What a federation core at its limit costs a shard: `tools/bench isolation`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the result of a command")]

use std::process::ExitCode;

fn main() -> ExitCode {
    corefire_load::isolation::main(
        std::env::args_os(),
        |line| println!("{line}"),
        |line| eprintln!("{line}"),
    )
}
