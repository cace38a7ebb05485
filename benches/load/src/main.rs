//! `make bench`: what the running `reentry` costs on each hot path, beside the bare programs it is held against.
//!
//! All in one run on one machine: a real Redis, the release binary, and four programs that do nothing but what the
//! machine must charge for (`bare`). The server under test has core 0 for itself; Redis and the load share core 1.
//! The robust figure is the server's CPU time per request, from the kernel's account of its threads; requests per
//! second and latencies depend on who else is on the machine. Nothing is judged here: the limits are printed beside
//! the figures, and `report.json` carries both.

mod bare;
mod client;
mod keycloak;
mod measure;
mod report;
mod sidecar;
mod work;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};

use crate::report::Report;

const USAGE: &str = "usage: reentry-load [--binary target/release/reentry] [--report target/bench/report.json] [--quick] [--only PATH]
       reentry-load bare PORT REDIS_PORT";

/// What the command line asks for.
struct Options {
    binary: PathBuf,
    report: PathBuf,
    /// One short window instead of several: to see that everything runs.
    quick: bool,
    /// Only the paths whose name contains this.
    only: Option<String>,
}

fn options(arguments: &[String]) -> anyhow::Result<Options> {
    let mut options = Options {
        binary: "target/release/reentry".into(),
        report: "target/bench/report.json".into(),
        quick: false,
        only: None,
    };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().cloned().context(USAGE);
        match argument.as_str() {
            "--binary" => options.binary = value()?.into(),
            "--report" => options.report = value()?.into(),
            "--quick" => options.quick = true,
            "--only" => options.only = Some(value()?),
            _ => bail!("{USAGE}"),
        }
    }
    options.binary = std::fs::canonicalize(&options.binary).with_context(|| {
        format!(
            "{} is not there: build it with `cargo build --release`, or say `make bench`",
            options.binary.display()
        )
    })?;
    Ok(options)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.first().map(String::as_str) {
        Some("bare") => bare::run(&arguments[1..]),
        _ => options(&arguments).and_then(|options| run(&options)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> anyhow::Result<()> {
    let place = measure::Place::find()?;
    println!("{}", place.say());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut report = Report::default();
        let windows = measure::Windows::new(options.quick);
        bare::measure(&place, windows, options, &mut report).await?;
        sidecar::measure(&place, windows, options, &mut report).await?;
        report.print();
        report.write(&options.report)
    })
}

/// Whether a path was asked for.
fn wanted(options: &Options, path: &str) -> bool {
    options
        .only
        .as_ref()
        .is_none_or(|only| path.contains(only.as_str()))
}
