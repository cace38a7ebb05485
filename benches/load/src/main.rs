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

const USAGE: &str =
    "usage: reentry-load [--binary FILE] [--report FILE] [--quick] [--only PATH]; --help says more";

const HELP: &str = "\
Measures what the running `reentry` costs on each hot path, and beside it, in the same run on the same machine, bare
programs that do only what the machine must charge for. Usually run as `make bench`; takes about two minutes.

usage: reentry-load [options]

  --binary FILE   the program to measure                  [target/release/reentry]
  --report FILE   where the figures go as JSON            [target/bench/report.json]
  --only WORD     only the paths whose name contains it, beside all bare programs; `bare` for these alone
  --quick         one short window for each path: shows that everything runs, measures little
  --help          this

needs: redis-server, setpriv and taskset (Debian: redis-server, util-linux). It starts its own Redis and stands in for
the identity provider; nothing that runs already is touched.

what is printed
  cpu us     CPU time of the server for one request, from the kernel's account of its threads. This is the figure to
             hold on to: it moves little when others use the machine.
  ratio      that, divided by the same figure of the bare program in the last column
  limit      the ratio that is aimed at; `missed` stands behind a ratio that is above it
  req/s, p50, p99
             over 64 connections that each have one request under way. They depend on who else is on the machine.
  redis      Redis commands for one request; several travel in one round trip
Below it: memory and start-up of the process, and what has to be known to read the figures.

examples
  make bench
  reentry-load --only introspection
  reentry-load --quick --report /dev/null
  reentry-load --binary target/profiling/reentry --only userinfo
";

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
        Some("--help" | "-h" | "help") => {
            print!("{HELP}");
            Ok(())
        }
        // What this program starts beside itself.
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
    let started = std::time::Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut report = Report::default();
        let windows = measure::Windows::new(options.quick);
        bare::measure(&place, windows, &mut report).await?;
        if options.only.as_deref() != Some("bare") {
            sidecar::measure(&place, windows, options, &mut report).await?;
        }
        report.print(started.elapsed());
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
