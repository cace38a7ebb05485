//! `reentry policy`: print the default, check a file, see which tier an account gets.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::output::{self, fault_json};
use super::{Outcome, Session};
use crate::config::{self, LoadedPolicy};
use crate::domain::change::Row;
use crate::domain::policy::{Policy, Response, Rollout};
use crate::domain::subject::account::Facts;

/// `reentry policy ...`
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Print the default policy, commented.
    #[command(after_help = "Example:\n  reentry policy default > policy.yaml")]
    Default,
    /// Print the table as it was understood, and the tier that an account with these facts gets.
    #[command(
        after_help = "Examples:\n  reentry policy check policy.yaml\n  reentry policy check policy.yaml --role bank-admin --group /staff\n  reentry policy check --attribute level=high       the policy of the configuration"
    )]
    Check(Check),
}

/// `reentry policy check`
#[derive(Debug, Args)]
pub struct Check {
    /// The policy file; without one, the policy of the configuration.
    file: Option<PathBuf>,
    /// A role of the account; may be given more than once.
    #[arg(long = "role", value_name = "NAME")]
    roles: Vec<String>,
    /// A group of the account, as a path.
    #[arg(long = "group", value_name = "PATH")]
    groups: Vec<String>,
    /// An attribute of the account.
    #[arg(long = "attribute", value_name = "NAME=VALUE", value_parser = pair)]
    attributes: Vec<(String, String)>,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl PolicyCommand {
    /// Runs it.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn run(self, session: &Session) -> anyhow::Result<Outcome> {
        match self {
            Self::Default => {
                output::say(config::DEFAULT_POLICY);
                Ok(Outcome::Done)
            }
            Self::Check(check) => check.run(session),
        }
    }
}

impl Check {
    fn run(self, session: &Session) -> anyhow::Result<Outcome> {
        let (policy, warnings) = match &self.file {
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|e| anyhow::anyhow!("{} cannot be read: {e}", path.display()))?;
                match config::load_policy(&text) {
                    Ok(LoadedPolicy { policy, warnings }) => (policy, warnings),
                    Err(faults) if self.json => {
                        let faults: Vec<_> = faults.0.iter().map(fault_json).collect();
                        output::json(&json!({ "ok": false, "faults": faults }))?;
                        return Ok(Outcome::Refused);
                    }
                    Err(faults) => {
                        let shown = format!("{} {}: {faults}", session.err.bad("refused:"), path.display());
                        output::complain(&shown);
                        return Ok(Outcome::Refused);
                    }
                }
            }
            None => match session.load_for_setup() {
                Some(config) => (config.policy, Vec::new()),
                None => return Ok(Outcome::Refused),
            },
        };
        let facts = self.facts();
        let chosen = facts
            .as_ref()
            .and_then(|f| policy.choose(Some(f)))
            .map(|t| t.name.0.clone());
        if self.json {
            let warnings: Vec<_> = warnings.iter().map(fault_json).collect();
            output::json(&json!({
                "ok": true, "digest": policy.digest, "default_tier": policy.default_tier.0,
                "tiers": tiers_json(&policy), "chosen": chosen, "warnings": warnings,
            }))?;
            return Ok(Outcome::Done);
        }
        session.warn(&warnings);
        output::line(&format!("policy {}", policy.digest));
        output::say(&table(&policy));
        output::say(&choices(&policy));
        if let Some(tier) = chosen {
            output::line(&format!("this account: {}", session.out.strong(&tier)));
        }
        Ok(Outcome::Done)
    }

    /// The account to try, when any fact was given.
    fn facts(&self) -> Option<Facts> {
        if self.roles.is_empty() && self.groups.is_empty() && self.attributes.is_empty() {
            return None;
        }
        let mut attributes: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in &self.attributes {
            attributes.entry(name.clone()).or_default().push(value.clone());
        }
        Some(Facts {
            roles: self.roles.iter().cloned().collect(),
            groups: self.groups.iter().cloned().collect(),
            attributes,
        })
    }
}

fn answer(response: &Response) -> String {
    match response {
        Response::Notice => "notice".to_owned(),
        Response::Hold { length, allow } => format!("{length} {allow}"),
    }
}

/// The table as people read it: rows down, tiers across.
fn table(policy: &Policy) -> String {
    let mut lines = vec![
        std::iter::once("change".to_owned())
            .chain(policy.tiers.iter().map(|t| t.name.0.clone()))
            .collect(),
    ];
    for row in Row::TABLE {
        let answers = policy.tiers.iter().map(|t| answer(&t.response(row)));
        lines.push(std::iter::once(row.as_str().to_owned()).chain(answers).collect());
    }
    let enforced = policy.tiers.iter().map(|t| rollout(t.enforce));
    lines.push(std::iter::once("enforce".to_owned()).chain(enforced).collect());
    aligned(&lines)
}

fn rollout(rollout: Rollout) -> String {
    match rollout {
        Rollout::On => "on".to_owned(),
        Rollout::Shadow => "shadow".to_owned(),
        Rollout::Cohort(share) => format!("cohort {}.{:02}%", share / 100, share % 100),
    }
}

/// Columns of equal width.
fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|i| {
            lines
                .iter()
                .filter_map(|l| l.get(i))
                .map(|c| c.chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for line in lines {
        let cells: Vec<String> = line
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn choices(policy: &Policy) -> String {
    let when = policy
        .choices
        .iter()
        .map(|c| format!("{} when {}\n", c.tier.0, c.when.source()));
    when.chain([format!("{} otherwise\n", policy.default_tier.0)])
        .collect()
}

fn tiers_json(policy: &Policy) -> serde_json::Value {
    let tiers = policy.tiers.iter().map(|tier| {
        let holds: serde_json::Map<String, serde_json::Value> = Row::TABLE
            .into_iter()
            .map(|row| {
                let value = match tier.response(row) {
                    Response::Notice => json!("notice"),
                    Response::Hold { length, allow } => {
                        json!({ "for": length.to_string(), "seconds": length.secs(), "recovery_scope": allow })
                    }
                };
                (row.as_str().to_owned(), value)
            })
            .collect();
        let when = policy.choices.iter().find(|c| c.tier == tier.name).map(|c| c.when.source().to_owned());
        json!({ "name": tier.name.0, "when": when, "enforce": rollout(tier.enforce), "holds": holds })
    });
    tiers.collect()
}
