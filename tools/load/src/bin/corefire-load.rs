//! The command `corefire-load`: see [`corefire_load::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    corefire_load::cli::main(std::env::args_os())
}
