//! The `reentry` program.

use std::process::ExitCode;

/// Requests make and free many small things. This allocator halves what that costs (see `make bench`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the environment; everything else is handed it"
)]
fn main() -> ExitCode {
    reentry::cli::run(std::env::args_os(), std::env::vars_os())
}
