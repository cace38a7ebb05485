//! The `reentry` program.

use std::process::ExitCode;

/// Values of one or two kilobytes come and go with every request; the C library's allocator takes the long way for
/// them, a tenth of what a request costs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the environment; everything else is handed it"
)]
fn main() -> ExitCode {
    reentry::cli::run(std::env::args_os(), std::env::vars_os())
}
