//! Setting an IdP up, for the command line: what is to be wired, by whom, and where new secrets go.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use crate::config::server::Issuer;
use crate::config::upstream::{ClientCredentials, Upstream};
use crate::domain::policy::Policy;
use crate::idp::keycloak::admin::Admin;
use crate::idp::keycloak::wire::audit::Finding;
pub use crate::idp::keycloak::wire::audit::Severity;
use crate::idp::keycloak::wire::credential::{Principal, Source};
use crate::idp::keycloak::wire::names::Level;
use crate::idp::keycloak::wire::proofs::Proofs;
use crate::idp::keycloak::wire::{self, Applied, BrokerClient, Plan, Report, WirePlanInput};

/// Longest wait for one call of a set-up.
const DEADLINE: Duration = Duration::from_secs(30);

/// The realm that is to be wired, and for what.
#[derive(Clone, Debug)]
pub struct Target {
    /// The server's base URL.
    pub url: Url,
    /// The realm.
    pub realm: String,
    /// `client_id` of the run-time account.
    pub runtime_client: String,
    /// Reentry as a relying party of the realm, where the broker is used: `client_id` and its redirect URI.
    pub broker: Option<(String, String)>,
    /// Where the secrets of these clients go, by `client_id`.
    pub secret_files: BTreeMap<String, PathBuf>,
    /// What the configuration says of settings that decide what the realm's log proves.
    pub proofs: Proofs,
}

impl Target {
    /// From the configuration.
    #[must_use]
    pub fn of(upstream: &Upstream, issuer: &Issuer) -> Self {
        let redirect = issuer.join(&format!("/callback/{}", upstream.id));
        let clients = std::iter::once(&upstream.admin).chain(&upstream.broker);
        let file = |c: &ClientCredentials| Some((c.client_id.clone(), c.secret_file.clone()?));
        Self {
            url: upstream.url.clone(),
            realm: upstream.realm.clone(),
            runtime_client: upstream.admin.client_id.clone(),
            broker: upstream.broker.as_ref().map(|b| (b.client_id.clone(), redirect)),
            secret_files: clients.filter_map(file).collect(),
            proofs: Proofs {
                reset_lifespan: upstream.reset_lifespan,
                admin_lifespan: upstream.admin_lifespan,
                fresh_login_for_actions: upstream.fresh_login_for_actions,
                resets_leave_lines: upstream.resets_leave_lines,
            },
        }
    }

    /// From the command line alone: no broker, and secrets are shown.
    #[must_use]
    pub fn bare(url: Url, realm: String, runtime_client: String) -> Self {
        Self {
            url,
            realm,
            runtime_client,
            broker: None,
            secret_files: BTreeMap::new(),
            proofs: Proofs::default(),
        }
    }
}

/// Who sets up. The credential is read when it is needed and kept nowhere.
#[derive(Clone, Debug)]
pub struct Who {
    /// Realm of the administrator or client, usually `master`.
    pub realm: String,
    /// An administrator's name.
    pub user: String,
    /// A client with a service account instead.
    pub client: Option<String>,
    /// File with the password or secret.
    pub file: Option<PathBuf>,
}

/// What an operator may choose.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// A reset ends without the automatic log-in.
    pub force_login: bool,
    /// The run-time account sees client roles, and client secrets.
    pub view_clients: bool,
}

/// Everything for one set-up.
#[derive(Debug)]
pub struct Job {
    admin: Admin,
    input: WirePlanInput,
    secret_files: BTreeMap<String, PathBuf>,
}

/// Prepares a set-up; nothing is sent yet. `environment` looks a variable up, `prompt` asks a person.
///
/// # Errors
/// When there is no credential, or a name cannot be used.
pub fn job(
    target: Target,
    who: Who,
    policy: &Policy,
    options: Options,
    environment: impl Fn(&str) -> Option<String>,
    prompt: impl FnOnce(&str) -> std::io::Result<String>,
) -> anyhow::Result<Job> {
    let principal = who.client.map_or(Principal::User(who.user), Principal::Client);
    let credentials = Source {
        realm: who.realm,
        principal,
        file: who.file,
    }
    .read(environment, prompt)?;
    let admin = Admin::new(&target.url, &target.realm, credentials, DEADLINE)?;
    let mut input = WirePlanInput::new(levels(policy)?, scopes(policy));
    input.runtime_client = target.runtime_client;
    input.force_login_after_reset = options.force_login;
    input.view_clients = options.view_clients;
    input.admin_roles.clone_from(&policy.admin_roles);
    let choices = policy.choices.iter();
    let named = choices.flat_map(|c| c.when.roles().into_iter().map(|role| (role, c.tier.0.clone())));
    input.tier_roles = named.collect();
    input.proofs = target.proofs;
    input.broker = target
        .broker
        .map(|(client_id, redirect)| broker(client_id, &redirect))
        .transpose()?;
    Ok(Job {
        admin,
        input,
        secret_files: target.secret_files,
    })
}

fn broker(client_id: String, redirect: &str) -> anyhow::Result<BrokerClient> {
    let redirect_uri = Url::parse(redirect).with_context(|| format!("the redirect URI {redirect}"))?;
    // `{issuer}/callback/{id}` and `{issuer}/backchannel-logout/{id}` stand side by side.
    let backchannel_logout = redirect
        .rsplit_once("/callback/")
        .map(|(issuer, id)| Url::parse(&format!("{issuer}/backchannel-logout/{id}")))
        .transpose()
        .with_context(|| format!("the redirect URI {redirect}"))?;
    Ok(BrokerClient {
        client_id,
        redirect_uri,
        backchannel_logout,
    })
}

fn levels(policy: &Policy) -> anyhow::Result<BTreeSet<Level>> {
    let ceilings = policy.ceilings();
    let levels = ceilings
        .iter()
        .map(|c| c.level().parse::<Level>().map_err(|e| anyhow!(e)));
    levels.collect()
}

fn scopes(policy: &Policy) -> BTreeMap<String, BTreeSet<String>> {
    policy
        .scopes
        .iter()
        .map(|(class, scopes)| (class.as_str().to_owned(), scopes.clone()))
        .collect()
}

/// What would be changed. Changes nothing.
///
/// # Errors
/// When the realm cannot be read.
pub async fn plan(job: &Job) -> anyhow::Result<Plan> {
    Ok(wire::plan(&job.admin, &job.input).await?)
}

/// What would be taken back. Changes nothing.
///
/// # Errors
/// When the realm cannot be read, was not wired, or somebody is held.
pub async fn undo(job: &Job) -> anyhow::Result<Plan> {
    Ok(wire::undo(&job.admin, &job.input).await?)
}

/// Carries a plan out, and writes new secrets into their files; a file that holds one keeps it, and so does its client. Gives the secrets that have no file, by `client_id`.
///
/// # Errors
/// When a step fails; running it again goes on from there. When a secret's file cannot be written, the error says so
/// and the secret can be read in the IdP.
pub async fn apply(
    job: &Job,
    plan: &Plan,
    report: Report<'_>,
) -> anyhow::Result<(usize, Vec<(String, String)>)> {
    let kept = kept(job)?;
    let there: BTreeSet<String> = kept.keys().cloned().collect();
    let Applied { changes, secrets } = wire::apply_keeping(&job.admin, plan, kept, report).await?;
    let mut shown = Vec::new();
    for (client, secret) in secrets.into_iter().filter(|(client, _)| !there.contains(client)) {
        match job.secret_files.get(&client) {
            Some(path) => write_secret(path, secret.expose_secret()).with_context(|| {
                format!(
                    "the secret of `{client}` could not be written to {}",
                    path.display()
                )
            })?,
            None => shown.push((client, secret.expose_secret().to_owned())),
        }
    }
    Ok((changes, shown))
}

/// Secrets whose files are there already: somebody put them there, so the clients get these and the files stay.
fn kept(job: &Job) -> anyhow::Result<BTreeMap<String, SecretString>> {
    let mut kept = BTreeMap::new();
    for (client, path) in &job.secret_files {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => {
                return Err(error).with_context(|| {
                    format!(
                        "{} is to hold the secret of `{client}`, and cannot be read",
                        path.display()
                    )
                });
            }
        };
        let secret = text.trim();
        if !secret.is_empty() {
            kept.insert(client.clone(), SecretString::from(secret.to_owned()));
        }
    }
    Ok(kept)
}

/// Writes a secret for its owner alone, in one step: an empty file is replaced, never mixed.
fn write_secret(path: &Path, secret: &str) -> std::io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let _ = std::fs::remove_file(&beside);
    let mut file = crate::config::private::create(&beside)?;
    file.write_all(secret.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(beside, path)
}

/// Drift, ways around the gates, and accounts that cannot be held; holds and lifts an account of its own for real.
/// The second value says whether anything means that the wiring is not safe.
///
/// # Errors
/// When the realm cannot be read.
pub async fn check(job: &Job, report: Report<'_>) -> anyhow::Result<(Vec<Finding>, bool)> {
    let findings = wire::check(&job.admin, &job.input, report).await?;
    let fails = wire::fails(&findings);
    Ok((findings, fails))
}

/// The same as resources of Terraform.
///
/// # Errors
/// When the realm cannot be read.
pub async fn terraform(job: &Job) -> anyhow::Result<String> {
    Ok(wire::terraform(&job.admin, &job.input).await?)
}
