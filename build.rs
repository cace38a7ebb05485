//! Puts the commit into the program, so that `reentry --version` says what is running.

use std::path::Path;
use std::process::Command;

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim();
    (output.status.success() && !text.is_empty()).then(|| text.to_owned())
}

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=REENTRY_COMMIT");
    let head = git(&["rev-parse", "--git-path", "logs/HEAD"]);
    if let Some(path) = head.filter(|path| Path::new(path).exists()) {
        println!("cargo::rerun-if-changed={path}");
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "a build script's settings are its environment"
    )]
    let given = std::env::var("REENTRY_COMMIT")
        .ok()
        .filter(|commit| !commit.is_empty());
    let commit = given.or_else(|| git(&["rev-parse", "--short=12", "HEAD"]));
    println!(
        "cargo::rustc-env=REENTRY_COMMIT={}",
        commit.as_deref().unwrap_or("unknown")
    );
}
