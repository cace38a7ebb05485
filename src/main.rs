//! The `reentry` program.

fn main() {}
