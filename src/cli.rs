//! The command line.
//!
//! Results go to standard output, everything else to standard error, so that a script reads only what it asked for.
//! Exit codes are few and stable: see [`Outcome`]. Help teaches by examples; colours are for terminals alone.

pub mod audit;
pub mod config;
pub mod demo;
pub mod doctor;
pub mod environment;
pub mod keys;
pub mod output;
pub mod policy;
pub mod serve;
pub mod store;
pub mod wire;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use environment::Environment;
use output::Style;

/// What a command came to, and the exit code that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 0: done, nothing to complain about.
    Done,
    /// 1: it failed; why is on standard error.
    Failed,
    /// 3: the configuration or policy is refused; every fault is on standard error.
    Refused,
    /// 2: what was to be checked cannot be read.
    Unreadable,
    /// 4: a check found something that has to be mended.
    Found,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done => Self::SUCCESS,
            Outcome::Failed => Self::from(1),
            Outcome::Unreadable => Self::from(2),
            Outcome::Refused => Self::from(3),
            Outcome::Found => Self::from(4),
        }
    }
}

/// Version and commit.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("REENTRY_COMMIT"), ")");

const EXAMPLES: &str = "\
Examples:
  reentry demo                           the whole story, nothing else installed
  reentry config default > reentry.yaml  begin a configuration
  reentry config check                   every fault of it at once
  reentry keys create                    the signing keys it needs
  reentry store init                     the store's keys and markers
  reentry wire keycloak                  what would change (--yes does it)
  reentry doctor                         is everything there, and as it should be?
  reentry serve                          run
  reentry audit verify                   is the audit log whole?

Exit codes: 0 done, 1 failed, 2 wrong arguments, or what was to be
checked cannot be read, 3 configuration refused,
4 a check found something that has to be mended (warnings alone are 0).";

/// Makes account recovery as trustworthy as login: a sidecar beside the identity provider you already have.
#[derive(Debug, Parser)]
#[command(name = "reentry", version = VERSION, after_help = EXAMPLES, arg_required_else_help = true)]
struct Cli {
    /// The configuration file.
    #[arg(
        long,
        short,
        global = true,
        env = "REENTRY_CONFIG",
        default_value = "reentry.yaml",
        value_name = "FILE"
    )]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the sidecar.
    Serve(serve::Serve),
    /// Show the whole story on this machine: identity provider, bank, mailbox, clock. Nothing else is needed.
    Demo(demo::Demo),
    /// Print the default configuration or its schema, or check yours.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Print the default policy, or check yours and see which tier an account gets.
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Look at everything the sidecar needs, and say what to do about what is wrong.
    Doctor(doctor::Doctor),
    /// Set an identity provider up.
    #[command(subcommand)]
    Wire(wire::WireCommand),
    /// Make, list and retire signing keys.
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Prepare the store.
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// Verify the audit log, or print all of it.
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Print a completion script for your shell.
    #[command(after_help = "Example:\n  reentry completions bash > /etc/bash_completion.d/reentry")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// What every command works with.
#[derive(Debug)]
pub struct Session {
    /// The configuration file.
    pub file: PathBuf,
    /// The environment, read once.
    pub environment: Environment,
    /// Colours of standard output.
    pub out: Style,
    /// Colours of standard error.
    pub err: Style,
}

/// Runs a command line. `environment` are the variables of the process.
#[must_use]
pub fn run(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> ExitCode {
    let environment = Environment::new(environment);
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // A reader that has closed the pipe wants no help text any more.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let (out, err) = (Style::stdout(&environment), Style::stderr(&environment));
    let session = Session {
        file: cli.config,
        environment,
        out,
        err,
    };
    match dispatch(cli.command, &session) {
        Ok(outcome) => outcome.into(),
        Err(error) => {
            output::complain(&format!("{} {error:#}", session.err.bad("error:")));
            Outcome::Failed.into()
        }
    }
}

fn dispatch(command: Command, session: &Session) -> anyhow::Result<Outcome> {
    match command {
        Command::Serve(serve) => serve.run(session),
        Command::Demo(demo) => demo.run(session),
        Command::Config(command) => command.run(session),
        Command::Policy(command) => command.run(session),
        Command::Doctor(doctor) => doctor.run(session),
        Command::Wire(command) => command.run(session),
        Command::Keys(command) => command.run(session),
        Command::Store(command) => command.run(session),
        Command::Audit(command) => command.run(session),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "reentry", &mut script);
            output::say(&String::from_utf8_lossy(&script));
            Ok(Outcome::Done)
        }
    }
}

/// A runtime for commands that talk to servers.
///
/// # Errors
/// When the system gives no threads.
pub fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}
