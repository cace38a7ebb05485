//! The `reentry` program.

use std::process::ExitCode;

#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the environment; everything else is handed it"
)]
fn main() -> ExitCode {
    reentry::cli::run(std::env::args_os(), std::env::vars_os())
}
