//! The `corefire` program: hands its arguments to `cli`.

fn main() -> std::process::ExitCode {
    corefire::cli::main()
}
