//! `reentry wire`: set an identity provider up.

use std::io::{BufRead as _, IsTerminal as _};
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use url::Url;

use super::{Outcome, Session, output, runtime};
use crate::app::wire::{self, Job, Options, Severity, Target, Who};
use crate::config::{self, Config};
use crate::domain::policy::Policy;

/// `reentry wire ...`
#[derive(Debug, Subcommand)]
pub enum WireCommand {
    /// Set a Keycloak realm up: roles, groups and scopes for holds, event logs, the run-time account.
    Keycloak(Keycloak),
}

const EXAMPLES: &str = "\
Examples:
  reentry wire keycloak                                     what would change; changes nothing
  reentry wire keycloak --yes                               do it
  reentry wire keycloak --check                             drift, and accounts that cannot be held
  reentry wire keycloak --undo --yes                        take back exactly what it made
  reentry wire keycloak --emit terraform > reentry.tf
  reentry wire keycloak --url https://login.example.com --realm customers      without a configuration

The credential is an administrator's, used for this alone and kept nowhere: --admin-password-file, or the variable
REENTRY_WIRE_PASSWORD (REENTRY_WIRE_CLIENT_SECRET for --admin-client), or it is asked for.
Secrets of clients that are made go into the files that the configuration names; without one they are shown once. A file
that holds a secret already is kept, and its client gets that secret.

Exit codes: 0 done, of --check nothing that has to be mended (warnings are named), 1 failed, 3 configuration refused,
4 of --check something has to be mended, of a plan something stands in its way.";

/// `reentry wire keycloak`
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
pub struct Keycloak {
    /// The upstream of the configuration, when there is more than one.
    #[arg(long, value_name = "ID", conflicts_with = "url")]
    upstream: Option<String>,
    /// The server's base URL, instead of the configuration's.
    #[arg(long, requires = "realm")]
    url: Option<Url>,
    /// The realm, instead of the configuration's.
    #[arg(long, requires = "url")]
    realm: Option<String>,
    /// The policy file, with --url; the default policy without one.
    #[arg(long, value_name = "FILE", requires = "url")]
    policy: Option<PathBuf>,
    /// Client id of the run-time account, with --url.
    #[arg(long, value_name = "ID", default_value = "reentry")]
    runtime_client: String,
    /// Administrator who sets up.
    #[arg(long, value_name = "NAME", default_value = "admin")]
    admin_user: String,
    /// Client with a service account who sets up, instead of a user.
    #[arg(long, value_name = "ID", conflicts_with = "admin_user")]
    admin_client: Option<String>,
    /// Realm of that administrator.
    #[arg(long, value_name = "REALM", default_value = "master")]
    admin_realm: String,
    /// File with the password or secret.
    #[arg(long, value_name = "FILE")]
    admin_password_file: Option<PathBuf>,
    /// Let a reset end without the automatic log-in (recommended: closes the gap before the first poll).
    #[arg(long)]
    force_login_after_reset: bool,
    /// Let the run-time account see who administers the realm, for `held_admins` and tiers by client roles. It can then
    /// read client secrets too. Given once, it stays.
    #[arg(long)]
    view_clients: bool,
    /// Carry the plan out.
    #[arg(long, conflicts_with_all = ["check", "emit"])]
    yes: bool,
    /// Look for drift, ways around holds, and accounts that cannot be held.
    #[arg(long, conflicts_with_all = ["undo", "emit"])]
    check: bool,
    /// Take back exactly what was made.
    #[arg(long, conflicts_with = "emit")]
    undo: bool,
    /// Print the same as resources.
    #[arg(long, value_name = "FORM")]
    emit: Option<Form>,
    /// Print plan or findings as JSON.
    #[arg(long)]
    json: bool,
}

/// Forms of `--emit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// Terraform.
    Terraform,
}

impl WireCommand {
    /// Runs it.
    ///
    /// # Errors
    /// When there is no credential, or the realm cannot be read or changed.
    pub fn run(self, session: &Session) -> anyhow::Result<Outcome> {
        let Self::Keycloak(keycloak) = self;
        keycloak.run(session)
    }
}

impl Keycloak {
    fn run(self, session: &Session) -> anyhow::Result<Outcome> {
        let Some((target, policy)) = self.target(session)? else {
            return Ok(Outcome::Refused);
        };
        let who = Who {
            realm: self.admin_realm.clone(),
            user: self.admin_user.clone(),
            client: self.admin_client.clone(),
            file: self.admin_password_file.clone(),
        };
        let environment = |name: &str| session.environment.get(name).map(str::to_owned);
        let job = wire::job(
            target,
            who,
            &policy,
            Options {
                force_login: self.force_login_after_reset,
                view_clients: self.view_clients,
            },
            environment,
            ask,
        )?;
        runtime()?.block_on(self.carry_out(&job, session))
    }

    /// What is to be wired: from `--url`, or from the configuration. `None` when that is refused.
    fn target(&self, session: &Session) -> anyhow::Result<Option<(Target, Policy)>> {
        if let (Some(url), Some(realm)) = (&self.url, &self.realm) {
            let text = match &self.policy {
                Some(path) => std::fs::read_to_string(path)
                    .map_err(|e| anyhow::anyhow!("{} cannot be read: {e}", path.display()))?,
                None => config::DEFAULT_POLICY.to_owned(),
            };
            let policy = match config::load_policy(&text) {
                Ok(loaded) => loaded.policy,
                Err(faults) => {
                    output::complain(&format!("{} {faults}", session.err.bad("refused:")));
                    return Ok(None);
                }
            };
            let target = Target::bare(url.clone(), realm.clone(), self.runtime_client.clone());
            return Ok(Some((target, policy)));
        }
        let Some(config) = session.load_for_setup() else {
            return Ok(None);
        };
        let upstream = self.choose(&config)?;
        Ok(Some((Target::of(upstream, &config.server.issuer), config.policy)))
    }

    fn choose<'c>(&self, config: &'c Config) -> anyhow::Result<&'c config::upstream::Upstream> {
        let known: Vec<&str> = config.upstreams.iter().map(|u| u.id.as_str()).collect();
        let known = known.join(", ");
        match (&self.upstream, config.upstreams.as_slice()) {
            (Some(id), all) => all
                .iter()
                .find(|u| u.id.as_str() == id)
                .ok_or_else(|| anyhow::anyhow!("there is no upstream `{id}`; there is {known}")),
            (None, [one]) => Ok(one),
            (None, _) => Err(anyhow::anyhow!(
                "there is more than one upstream; choose with --upstream: {known}"
            )),
        }
    }

    async fn carry_out(&self, job: &Job, session: &Session) -> anyhow::Result<Outcome> {
        if self.emit == Some(Form::Terraform) {
            output::say(&wire::terraform(job).await?);
            return Ok(Outcome::Done);
        }
        if self.check {
            return self.report(job, session).await;
        }
        let plan = if self.undo {
            wire::undo(job).await?
        } else {
            wire::plan(job).await?
        };
        if self.json {
            output::json(&plan)?;
        } else {
            output::say(&plan.to_string());
        }
        if !plan.blockers.is_empty() {
            return Ok(Outcome::Found);
        }
        if plan.is_empty() {
            return Ok(Outcome::Done);
        }
        if !self.yes {
            output::complain("nothing was changed; add --yes to do it");
            return Ok(Outcome::Done);
        }
        let (changes, secrets) = wire::apply(job, &plan, &progress).await?;
        output::complain(&format!("{} {changes} changes made", session.err.good("done:")));
        for (client, secret) in secrets {
            output::line(&format!("secret of client {client}: {secret}"));
        }
        Ok(Outcome::Done)
    }

    async fn report(&self, job: &Job, session: &Session) -> anyhow::Result<Outcome> {
        let (findings, fails) = wire::check(job, &progress).await?;
        if self.json {
            output::json(&serde_json::json!({ "ok": !fails, "findings": findings }))?;
        } else {
            for finding in &findings {
                let word = match finding.severity {
                    Severity::Warning => session.out.warn("warning"),
                    Severity::Error => session.out.bad("mend   "),
                };
                output::line(&format!("{word}  {}: {}", finding.code, finding.text));
            }
            if findings.is_empty() {
                output::line(&session.out.good("the realm is wired as it should be"));
            }
        }
        Ok(if fails { Outcome::Found } else { Outcome::Done })
    }
}

fn progress(step: usize, of: usize, what: &str) {
    output::complain(&format!("[{step}/{of}] {what}"));
}

/// Asks a person at the terminal, without showing what is typed.
fn ask(question: &str) -> std::io::Result<String> {
    use std::io::Write as _;
    let input = std::io::stdin();
    if !input.is_terminal() {
        return Err(std::io::Error::other(
            "there is no terminal; give --admin-password-file or the variable",
        ));
    }
    let mut err = std::io::stderr();
    err.write_all(question.as_bytes())?;
    err.flush()?;
    let hidden = stty("-echo");
    let mut text = String::new();
    let read = input.lock().read_line(&mut text);
    if hidden {
        stty("echo");
    }
    err.write_all(b"\n")?;
    read.map(|_| text)
}

/// Switches the terminal's echo; whether that worked.
fn stty(setting: &str) -> bool {
    std::process::Command::new("stty")
        .arg(setting)
        .status()
        .is_ok_and(|status| status.success())
}
