//! `reentry config`: print the default or the schema, check a file.

use clap::Subcommand;

use super::output::{self, fault_json};
use super::{Outcome, Session};
use crate::config;

/// `reentry config ...`
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print the complete configuration with its defaults, commented.
    #[command(after_help = "Example:\n  reentry config default > reentry.yaml")]
    Default,
    /// Read the configuration and say everything that is wrong with it, with key, line and what to do.
    #[command(
        after_help = "Examples:\n  reentry config check\n  reentry --config /etc/reentry.yaml config check --json\n  REENTRY__SERVER__LISTEN=0.0.0.0:80 reentry config check"
    )]
    Check {
        /// Print faults and warnings as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON Schema, for editors.
    #[command(
        after_help = "Example, with the YAML language server:\n  reentry config schema > reentry.schema.json\n  # first line of reentry.yaml:\n  # yaml-language-server: $schema=reentry.schema.json"
    )]
    Schema,
}

impl ConfigCommand {
    /// Runs it.
    ///
    /// # Errors
    /// When the answer cannot be written as JSON.
    pub fn run(self, session: &Session) -> anyhow::Result<Outcome> {
        match self {
            Self::Default => output::say(config::DEFAULT),
            Self::Schema => output::say(config::SCHEMA),
            Self::Check { json } => return check(session, json),
        }
        Ok(Outcome::Done)
    }
}

fn check(session: &Session, json: bool) -> anyhow::Result<Outcome> {
    let loaded = config::load_file(&session.file, session.environment.pairs());
    if json {
        let (faults, warnings) = match &loaded {
            Ok(loaded) => (Vec::new(), loaded.warnings.iter().map(fault_json).collect()),
            Err(faults) => (faults.0.iter().map(fault_json).collect(), Vec::new()),
        };
        let ok = loaded.is_ok();
        output::json(&serde_json::json!({ "ok": ok, "faults": faults, "warnings": warnings }))?;
        return Ok(if ok { Outcome::Done } else { Outcome::Refused });
    }
    match loaded {
        Ok(loaded) => {
            session.warn(&loaded.warnings);
            let name = session.file.display();
            let policy = &loaded.config.policy.digest;
            output::line(&format!(
                "{} {name} can be used (policy {policy})",
                session.out.good("ok:")
            ));
            Ok(Outcome::Done)
        }
        Err(faults) => Ok(session.refuse(&faults)),
    }
}
