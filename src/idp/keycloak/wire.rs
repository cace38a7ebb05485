//! Setting a realm up for token mode: holds that Keycloak enforces in its own tokens.
//!
//! # How it works
//! A client scope that has roles in its role mappings is given only to users who have one of them:
//! its mappers and its word in `scope` vanish for everybody else, at log-in and at refresh. So
//! everybody gets the role `reentry-full` by way of the realm's default role, which opens the scope
//! with `recovery_scope: full` and the customer's sensitive scopes. A hold takes the default role
//! from an account and puts it into a group with `reentry-hold.<level>`, which opens another scope
//! with another claim, and `reentry-held-defaults`, the harmless rest of the default role. Between
//! the two calls, and when somebody tampers, there is no claim at all: a relying party reads `none`.
//!
//! A customer's scope is opened by `reentry-full` and by every level that allows all the action
//! classes it is listed under. Role mappings are OR, so no further roles are needed for that, and
//! `write` scopes survive a `read write` hold as the policy says.
//!
//! # What a live server taught (26.7.4)
//! * One partial export has everything that is to be compared, of one moment. It tells an empty
//!   list of event types from a full one; `GET events/config` fills the empty list in.
//! * Users who came with a realm import have no default role unless the file says so: wired, they
//!   read `none`. A check names them.
//! * A PUT of `events/config` that leaves `eventsEnabled` out switches events off, and one without
//!   `eventsExpiration` keeps them for ever; the other members may be left out.
//! * A PUT of the realm may leave members out, but `attributes` is replaced as a whole, and an
//!   attribute left out of it is dropped. A client's attribute goes only when sent empty.
//! * The run-time account (`view-events view-users query-users manage-users`) reads groups by path
//!   with attributes and role mappings, and may write a group's attributes: so what it must know
//!   stands on the group, and what an undo must trust stands on a client.
//! * A service account of the realm with `manage-realm manage-clients manage-users manage-events
//!   view-events view-users` is enough to set up, check and undo: nobody may map a role of
//!   `realm-management` that he lacks.
//! * A client is not in the audience of its own tokens: Keycloak's introspection answers `active:
//!   false` to it until a mapper puts it there.
//! * The run-time account can list neither clients nor roles: a user's offline sessions are found by `consents`.
//!
//! # Shape
//! [`plan()`] compares and changes nothing, [`apply()`] carries a plan out, [`undo()`] plans the way
//! back, [`check()`] looks for drift and for accounts that cannot be held, [`terraform()`] prints the
//! same objects as resources. The set-up credential is the [`Admin`]'s and is kept nowhere.

mod accounts;
mod apply;
pub mod audit;
mod canary;
pub mod change;
pub mod credential;
pub mod desired;
mod named;
pub mod names;
pub mod noted;
pub mod planner;
pub mod proofs;
pub mod record;
pub mod snapshot;
pub mod terraform;
pub mod undo;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use secrecy::SecretString;
use serde::Serialize;
use url::Url;

use self::audit::{Finding, Severity};
use self::change::Change;
use self::names::{FULL, GROUP, Level, RECORD, RUNTIME_CLIENT, RoleRef};
use self::proofs::Proofs;
use self::record::Record;
use self::snapshot::Snapshot;
use super::admin::{Admin, AdminError};

/// Reentry as a relying party of the realm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerClient {
    /// `client_id`.
    pub client_id: String,
    /// Exact redirect URI: `{issuer}/callback/{upstream}`.
    pub redirect_uri: Url,
    /// Where Keycloak tells of ended sessions: `{issuer}/backchannel-logout/{upstream}`.
    pub backchannel_logout: Option<Url>,
}

/// What a realm is to be wired for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WirePlanInput {
    /// Every level that the policy or an intersection of its sets can yield; `none` is always wired.
    pub levels: BTreeSet<Level>,
    /// Action class → OAuth scopes of the realm that it stands for.
    pub scopes: BTreeMap<String, BTreeSet<String>>,
    /// Give OAuth scopes that no class lists only to accounts that are not held (ISS-4)?
    pub gate_unlisted: bool,
    /// Children of the default role that a held account loses.
    pub dropped_defaults: BTreeSet<RoleRef>,
    /// Copy the reset flow and set *Force login after reset* in the copy?
    pub force_login_after_reset: bool,
    /// `client_id` of the run-time service account.
    pub runtime_client: String,
    /// Give it `view-clients` too? It shows who administers the realm, and the secrets of its clients.
    pub view_clients: bool,
    /// Client for Reentry as a broker, where wanted.
    pub broker: Option<BrokerClient>,
    /// Roles whose holders may end a freeze; a check looks whether two people can.
    pub admin_roles: BTreeSet<String>,
    /// Role → the tier that asks for it; a check looks whether it is there.
    pub tier_roles: BTreeMap<String, String>,
    /// What the configuration says of settings that decide what the realm's log proves.
    pub proofs: Proofs,
}

impl WirePlanInput {
    /// The usual settings for these levels and scopes.
    #[must_use]
    pub fn new(levels: BTreeSet<Level>, scopes: BTreeMap<String, BTreeSet<String>>) -> Self {
        Self {
            levels,
            scopes,
            gate_unlisted: true,
            dropped_defaults: BTreeSet::from([RoleRef::client("account", "manage-account")]),
            force_login_after_reset: false,
            runtime_client: RUNTIME_CLIENT.to_owned(),
            view_clients: false,
            broker: None,
            admin_roles: BTreeSet::new(),
            tier_roles: BTreeMap::new(),
            proofs: Proofs::default(),
        }
    }

    /// The levels, `none` among them.
    #[must_use]
    pub fn all_levels(&self) -> BTreeSet<Level> {
        self.levels.iter().cloned().chain([Level::none()]).collect()
    }
}

/// What to change in a realm, in order. [`fmt::Display`] prints it for people; it serialises to
/// JSON with the changes as data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The realm.
    pub realm: String,
    /// The changes.
    pub steps: Vec<Change>,
    /// What to know before applying.
    pub notes: Vec<String>,
    /// What must be settled first: nothing is applied while there is one.
    pub blockers: Vec<String>,
}

impl Plan {
    /// Is there nothing to change?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.steps.len() {
            0 => writeln!(out, "Realm {}: nothing to change.", self.realm)?,
            1 => writeln!(out, "Realm {}: 1 change.", self.realm)?,
            count => writeln!(out, "Realm {}: {count} changes.", self.realm)?,
        }
        for step in &self.steps {
            writeln!(out, "  {step}")?;
        }
        for note in &self.notes {
            writeln!(out, "Note: {note}.")?;
        }
        for blocker in &self.blockers {
            writeln!(out, "Settle first: {blocker}.")?;
        }
        Ok(())
    }
}

/// Told before each step: its number from 1, how many there are, what it is.
pub type Report<'a> = &'a (dyn Fn(usize, usize, &str) + Send + Sync);

/// What applying a plan brought.
#[derive(Debug, Default)]
pub struct Applied {
    /// Number of changes made.
    pub changes: usize,
    /// Secrets of the clients made, by `client_id`. They are shown or stored by the caller, once.
    pub secrets: BTreeMap<String, SecretString>,
}

/// Why wiring failed.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// A call failed.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// A change failed; those before it were made. Running the same command again goes on from there.
    #[error("{done} of {total} changes made, then failed at: {step}: {source}")]
    Step {
        /// Changes made.
        done: usize,
        /// Changes planned.
        total: usize,
        /// The change that failed.
        step: String,
        /// Why.
        source: AdminError,
    },
    /// The plan has blockers.
    #[error("settle first: {}", .0.join("; "))]
    Blocked(Vec<String>),
    /// Accounts are in a hold.
    #[error("accounts are held ({}): lift them first, or they would be left without their default role", .0.join(", "))]
    Held(Vec<String>),
    /// There is no record of a wiring.
    #[error("this realm has no record of a wiring in client `{0}`: nothing to take back")]
    NotWired(String),
    /// The record cannot be read.
    #[error("the record of the wiring cannot be read: {0}")]
    Record(String),
}

fn recorded(snapshot: &Snapshot, runtime_client: &str) -> Result<Option<Record>, WireError> {
    let text = snapshot
        .client(runtime_client)
        .and_then(|client| client.attributes.get(RECORD));
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let record: Record = serde_json::from_str(text).map_err(|error| WireError::Record(error.to_string()))?;
    if record.version == record::VERSION {
        Ok(Some(record))
    } else {
        Err(WireError::Record(format!(
            "it is of version {}, this program writes {}",
            record.version,
            record::VERSION
        )))
    }
}

/// What is to be changed so that the realm is as `input` says. Changes nothing.
///
/// # Errors
/// [`WireError::Admin`], [`WireError::Record`].
pub async fn plan(admin: &Admin, input: &WirePlanInput) -> Result<Plan, WireError> {
    let snapshot = Snapshot::read(admin, &input.runtime_client).await?;
    let record = recorded(&snapshot, &input.runtime_client)?.unwrap_or_default();
    Ok(planner::plan(input, &snapshot, &record))
}

/// Carries a plan out, step by step.
///
/// # Errors
/// [`WireError::Blocked`] before anything is changed; [`WireError::Step`].
pub async fn apply(admin: &Admin, plan: &Plan, report: Report<'_>) -> Result<Applied, WireError> {
    apply_keeping(admin, plan, BTreeMap::new(), report).await
}

/// The same; a client that is made gets the secret that `kept` has for it, so that a file that is there stays good.
///
/// # Errors
/// As [`apply()`].
pub async fn apply_keeping(
    admin: &Admin,
    plan: &Plan,
    kept: BTreeMap<String, SecretString>,
    report: Report<'_>,
) -> Result<Applied, WireError> {
    if !plan.blockers.is_empty() {
        return Err(WireError::Blocked(plan.blockers.clone()));
    }
    let mut applier = apply::Applier::new(admin, kept);
    let total = plan.steps.len();
    for (done, step) in plan.steps.iter().enumerate() {
        report(done + 1, total, &step.to_string());
        applier.apply(step).await.map_err(|source| WireError::Step {
            done,
            total,
            step: step.to_string(),
            source,
        })?;
    }
    Ok(Applied {
        changes: total,
        secrets: applier.secrets,
    })
}

/// Secrets of the clients that the wiring made, by `client_id`: for a new host, or after a run that
/// broke off before it could hand them out.
///
/// # Errors
/// [`WireError::Admin`]; [`WireError::NotWired`].
pub async fn secrets(
    admin: &Admin,
    input: &WirePlanInput,
) -> Result<BTreeMap<String, SecretString>, WireError> {
    let snapshot = Snapshot::read(admin, &input.runtime_client).await?;
    let record = recorded(&snapshot, &input.runtime_client)?;
    let record = record.ok_or_else(|| WireError::NotWired(input.runtime_client.clone()))?;
    let mut secrets = BTreeMap::new();
    for client_id in &record.clients {
        let Some(id) = snapshot.client(client_id).and_then(|client| client.id.as_deref()) else {
            continue;
        };
        if let Some(secret) = admin.client_secret(id).await? {
            secrets.insert(client_id.clone(), SecretString::from(secret));
        }
    }
    Ok(secrets)
}

/// The plan that takes back exactly what was made and changed; [`apply()`] carries it out.
///
/// # Errors
/// [`WireError::Held`] while any account is in a hold group; [`WireError::NotWired`].
pub async fn undo(admin: &Admin, input: &WirePlanInput) -> Result<Plan, WireError> {
    let snapshot = Snapshot::read(admin, &input.runtime_client).await?;
    let record = recorded(&snapshot, &input.runtime_client)?;
    let record = record.ok_or_else(|| WireError::NotWired(input.runtime_client.clone()))?;
    let held = held(admin, &snapshot).await?;
    if !held.is_empty() {
        return Err(WireError::Held(held));
    }
    Ok(undo::plan(&input.runtime_client, &snapshot, &record))
}

/// Members of the hold groups: `name at level`, at most ten of each level.
async fn held(admin: &Admin, snapshot: &Snapshot) -> Result<Vec<String>, AdminError> {
    let mut held = Vec::new();
    for group in snapshot
        .groups()
        .into_iter()
        .filter(|group| group.path.starts_with(&format!("{GROUP}/")))
    {
        for user in admin.group_members(&group.id, 0, 10).await?.read {
            held.push(format!(
                "{} in {}",
                user.username.or(user.id).unwrap_or_default(),
                group.path
            ));
        }
    }
    Ok(held)
}

/// Looks for everything that would keep a hold from holding: drift from `input`, ways around the
/// gates, accounts that cannot be held; then holds and lifts a user of its own at every level and
/// asks what each client would give it. An [`Severity::Error`] among the findings means: not safe.
///
/// # Errors
/// [`WireError::Admin`], [`WireError::Record`].
pub async fn check(
    admin: &Admin,
    input: &WirePlanInput,
    report: Report<'_>,
) -> Result<Vec<Finding>, WireError> {
    let snapshot = Snapshot::read(admin, &input.runtime_client).await?;
    let record = recorded(&snapshot, &input.runtime_client)?.unwrap_or_default();
    let plan = planner::plan(input, &snapshot, &record);
    if snapshot.role(FULL).is_none() && snapshot.group(GROUP).is_none() {
        return Ok(vec![Finding::error(
            "not-wired",
            "this realm is not wired".to_owned(),
        )]);
    }
    let drifted = plan
        .steps
        .iter()
        // Who administers the realm changes every day, and the log tells of it.
        .filter(|step| {
            !matches!(
                step,
                Change::WriteRecord { .. } | Change::Note { objects: false, .. }
            )
        });
    let drifted =
        drifted.map(|step| Finding::error(step.code(), format!("drifted; `wire --yes` mends it: {step}")));
    let mut findings: Vec<Finding> = drifted.collect();
    findings.extend(
        plan.blockers
            .into_iter()
            .map(|text| Finding::error("blocked", text)),
    );
    findings.extend(audit::reach(&snapshot));
    findings.extend(audit::held_defaults_leak(&snapshot, &input.dropped_defaults));
    findings.extend(audit::storage(snapshot.user_storage()));
    if let Some(broker) = &input.broker {
        findings.extend(audit::login_claims(&snapshot, &broker.client_id));
    }
    findings.extend(proofs::find(input.proofs, &snapshot));
    findings.extend(accounts::find(admin, &snapshot, report).await?);
    findings.extend(named::find(admin, &snapshot, input).await?);
    let notes: Vec<String> = plan
        .notes
        .into_iter()
        .filter(|note| !findings.iter().any(|finding| finding.text == *note))
        .collect();
    findings.extend(notes.into_iter().map(|text| Finding::warning("note", text)));
    findings.extend(canary::run(admin, input, &snapshot, &record, report).await?);
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    Ok(findings)
}

/// Does any finding mean that the wiring is not safe?
#[must_use]
pub fn fails(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.severity == Severity::Error)
}

/// The objects of the wiring as Terraform resources. Changes nothing.
///
/// # Errors
/// [`WireError::Admin`].
pub async fn terraform(admin: &Admin, input: &WirePlanInput) -> Result<String, WireError> {
    let snapshot = Snapshot::read(admin, &input.runtime_client).await?;
    let record = recorded(&snapshot, &input.runtime_client)?.unwrap_or_default();
    Ok(terraform::render(input, &snapshot, &record))
}
