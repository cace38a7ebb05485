//! The Keycloak adapter: reads its logs, tells recoveries from other changes, reads accounts, and makes Keycloak's
//! own tokens agree with the record.
//!
//! Why polling. Keycloak has no durable push: webhooks of extensions are lost while we are away, and its signal
//! transmitter says nothing about addresses. Its logs are stored in the same transaction as the change they tell
//! of, so a poller with an overlap and marks per event misses nothing and needs no extension.
//!
//! Why groups and roles. They are set by idempotent, atomic calls. A `PUT` of a user replaces the whole attribute
//! map, so state kept there would race with every administrator. What a hold takes from a user is written down
//! first, as membership in a group below `/reentry` (`lift.…`): only administrators may write it, and it outlives
//! our store. A lift gives back exactly that; see `act`.
//!
//! # What the live server taught (26.7.4, with the four roles of the run-time account)
//! * No answer carries a `Date` header. The server's clock is sampled from the `iat` of our own token.
//! * `GET users/{id}/role-mappings` answers `{}`, and `ui-ext/effective-roles` `[]`, without `view-clients`: client
//!   roles are filtered silently, `…/clients/{id}/composite` is refused. So an account's facts hold realm roles
//!   and groups; client roles (`realm-management/…` too) only where the operator grants `view-clients`. A tier for
//!   administrators is best chosen by a realm role, a group or an admin-only attribute.
//! * `GET users/{id}/role-mappings/realm` and `…/composite` are answered in full; a realm role may be mapped and
//!   unmapped by id and name. Groups below `/reentry`, their attributes and children can be read, and children made.
//! * The admin event of a created user is the same with and without a password in the request: credentials are
//!   stripped from `representation`. That somebody had no password before can only be known from a snapshot.
//! * `GET events/config` names every type when the list is empty (the server's defaults), so what is missing from
//!   it is not stored.
//! * `POST users/{id}/logout` kills offline tokens by not-before, but leaves offline sessions listed; they are
//!   deleted one by one. Where they are is told by `consents`, without any consent and without `view-clients`.
//! * `LOGIN` is written when a log-in is done, after its required actions, and single sign-on writes it again, member by
//!   member the same; asking for the password again (`prompt=login`, the age that an action asks for) leaves no other line.
//!   Only the first one into a session, and the session's start, show when somebody proved something. An administrator
//!   who takes an account's place writes `IMPERSONATE` and then the same `LOGIN`.
//! * The use of a recovery code is in `LOGIN` alone (`credential_type`), and not when an action follows in that log-in:
//!   then only the number that is left shows it.
//! * A link that is opened in another browser always has a root session of its own, which ends with "Account updated";
//!   a log-in page that was open in that browser is dead then.
//! * The automatic log-in after a reset has the `code_id` of the change as its session id, and the session's start
//!   is never before the change; log-in and `kc_action` in one request look exactly the same.
//! * An OTP enrolled or removed by `kc_action` raises no `LOGIN` before it inside single sign-on: only the log-in of
//!   the session counts.
//! * Wiring a realm writes dozens of admin events about what holds rest on: creating raises no alarm, taking away
//!   and changing does.
//! * Our own admin events carry the internal id of our client and the id of our service account; the latter is the
//!   `sub` of our token, the former we cannot look up. So our acts are known by the service account.
//! * `…/role-mappings/clients/{id}`, with and without `/composite`, is 403 without `view-clients`, and so are the users
//!   of a client's role; `…/available` is answered, but leaves out what we may not map ourselves, so it tells nothing
//!   about administrators. Who may undo a hold is therefore seen only with `view-clients`, and otherwise as far as the
//!   log of admin events tells; see `administrators`.
//! * `manage-users` sees users without `view-users`.
//! * A logout token has `typ: JWT` in its header and `typ: Logout` among its claims.
//! * 26.2.5 and 26.4.7 behave as 26.7.4 does in everything that the end-to-end suite walks through: no branch here
//!   asks for a version.

mod absent;
mod account;
mod act;
pub mod admin;
mod administrators;
pub mod events;
mod health;
pub mod hook;
mod poll;
pub mod representations;
pub mod story;
mod watch;
pub mod wire;

use std::collections::{BTreeSet, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use secrecy::SecretString;
use tokio::sync::Mutex;
use url::Url;

use crate::domain::subject::UpstreamId;
use crate::domain::subject::account::Account;
use crate::domain::time::{Now, Span, Timestamp};
use crate::ports::clock::Clock;
use crate::ports::hook::{Heeded, HookCall, HookRefusal};
use crate::ports::idp::{
    Converged, Cursor, IdentityProvider, IdpError, IdpSession, Line, Look, Observation, Polled, Reading,
    Wanted,
};
use admin::{Admin, AdminError, AdminOnly, ClientRole, Credentials, Own};
use hook::{HookSettings, Hooks};
use story::Rules;

/// How long what rarely changes (layout of the wired realm, user profile, event types) is believed.
const BELIEVE: Duration = Duration::from_mins(1);
/// A sampled clock offset up to this long is the sampling itself.
const NOISE: Span = Span::from_secs(2);

/// What to do with an account that cannot be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CannotHold {
    /// Switch it off for the hold.
    #[default]
    Disable,
    /// Leave it as it is, and raise the alarm.
    Alarm,
}

/// What the adapter is set up with.
#[derive(Debug, Clone)]
pub struct KeycloakSettings {
    /// Configured id.
    pub id: UpstreamId,
    /// Base URL of the server, with its relative path if it has one.
    pub base_url: Url,
    /// The realm.
    pub realm: String,
    /// `client_id` of the run-time service account.
    pub client_id: String,
    /// Its secret.
    pub client_secret: SecretString,
    /// Deadline of one call.
    pub timeout: Duration,
    /// How far a poll goes back behind what it has seen: at least the longest transaction and the difference of
    /// the nodes' clocks.
    pub overlap: Span,
    /// How far the first poll, and a log-in-time check, go back.
    pub back_fill: Span,
    /// Rows per page of a log, at least 2.
    pub page: u32,
    /// User attributes that hold telephone numbers.
    pub phone_attributes: Vec<String>,
    /// Held accounts that may administer the realm, and so could undo their own hold.
    pub held_admins: CannotHold,
    /// Accounts that keep full rights in spite of the hold (default role inside a group, an act that is refused).
    pub unholdable: CannotHold,
    /// The policy's probation.
    pub probation: Span,
    /// How long an account is young enough for a first enrolment.
    pub enrolment: Span,
    /// Life of a reset link (`actionTokenGeneratedByUserLifespan`, or its override for `reset-credentials`).
    pub reset_lifespan: Span,
    /// Life of an administrator's link (`actionTokenGeneratedByAdminLifespan`).
    pub admin_lifespan: Span,
    /// Every action that a client can start is known to ask for a log-in at most 300 s old.
    pub fresh_login_for_actions: bool,
    /// Every way to a new password without the old one sends Keycloak's own mail, or is an administrator's act: then what a
    /// whole log does not show did not happen.
    pub resets_leave_lines: bool,
    /// How long the log of user events has to keep its lines at least: twice the longest hold.
    pub retention: Span,
    /// Hooks by which the realm, or any program, may call us.
    pub hooks: HookSettings,
}

impl KeycloakSettings {
    /// The issuer of the realm's tokens.
    #[must_use]
    pub fn issuer(&self) -> String {
        let mut issuer = self.base_url.clone();
        // As Keycloak writes it: a realm's name may have spaces and umlauts.
        if let Ok(mut path) = issuer.path_segments_mut() {
            path.pop_if_empty().extend(["realms", self.realm.as_str()]);
        }
        issuer.into()
    }

    /// Settings with Keycloak's own defaults and the domain's.
    #[must_use]
    pub fn new(
        id: UpstreamId,
        base_url: Url,
        realm: &str,
        client_id: &str,
        client_secret: SecretString,
    ) -> Self {
        Self {
            id,
            base_url,
            realm: realm.to_owned(),
            client_id: client_id.to_owned(),
            client_secret,
            timeout: Duration::from_secs(10),
            overlap: Span::from_secs(120),
            back_fill: Span::from_days(60),
            page: 200,
            phone_attributes: Vec::new(),
            held_admins: CannotHold::default(),
            unholdable: CannotHold::default(),
            probation: Span::from_days(7),
            enrolment: Span::from_days(7),
            reset_lifespan: Span::from_mins(5),
            admin_lifespan: Span::from_hours(12),
            fresh_login_for_actions: false,
            resets_leave_lines: true,
            retention: Span::ZERO,
            hooks: HookSettings::default(),
        }
    }
}

/// A realm of a Keycloak server.
pub struct Keycloak {
    settings: KeycloakSettings,
    clock: Arc<dyn Clock>,
    admin: Admin,
    hooks: Hooks,
    believed: Mutex<Believed>,
}

/// What rarely changes, with when it was read.
#[derive(Debug, Default)]
struct Believed {
    types: Option<(Instant, BTreeSet<String>)>,
    profile: Option<(Instant, AdminOnly)>,
    layout: Option<(Instant, act::Layout)>,
    /// What the log says of who administers the realm.
    given: Option<(Instant, administrators::Given)>,
    /// Client roles of accounts that were read a moment ago.
    client_roles: HashMap<String, (Instant, Vec<ClientRole>)>,
    /// Internal id of the client whose roles administer the realm.
    management: Option<(Instant, String)>,
    /// Accounts that were asked for and not found.
    missing: absent::Missing,
    /// When what clients would issue was last looked at.
    evaluated: Option<Instant>,
}

impl Keycloak {
    /// Sets the adapter up. Nothing is sent yet. `clock` is ours, to compare Keycloak's with.
    ///
    /// # Errors
    /// [`IdpError::Unexpected`] when the settings make no client.
    pub fn new(settings: KeycloakSettings, clock: Arc<dyn Clock>) -> Result<Self, IdpError> {
        let credentials = Credentials::Client {
            realm: settings.realm.clone(),
            id: settings.client_id.clone(),
            secret: settings.client_secret.clone(),
        };
        let admin =
            Admin::new(&settings.base_url, &settings.realm, credentials, settings.timeout).map_err(idp)?;
        let hooks = Hooks::new(&settings.hooks).map_err(IdpError::Unexpected)?;
        Ok(Self {
            settings,
            clock,
            admin,
            hooks,
            believed: Mutex::default(),
        })
    }

    /// Those of `types` that the server knows: it fails on a name that it does not.
    async fn known(&self, types: &[&str]) -> Result<Vec<String>, AdminError> {
        let server = self.types().await?;
        // A server that hides its enumerations gets the whole list: every name in it is as old as 26.2.
        let knows = |name: &str| server.is_empty() || server.contains(name);
        Ok(types
            .iter()
            .filter(|name| knows(name))
            .map(|name| (*name).to_owned())
            .collect())
    }

    // The lock is never held while the server is asked: callers must not queue behind one that hangs.
    async fn types(&self) -> Result<BTreeSet<String>, AdminError> {
        if let Some(types) = fresh(self.believed.lock().await.types.as_ref()) {
            return Ok(types);
        }
        let info = self.admin.server_info().await?;
        let names = info.enums.get("eventType").cloned().unwrap_or_default();
        let types: BTreeSet<String> = names.into_iter().collect();
        self.believed.lock().await.types = Some((Instant::now(), types.clone()));
        Ok(types)
    }

    async fn admin_only(&self) -> Result<AdminOnly, AdminError> {
        if let Some(profile) = fresh(self.believed.lock().await.profile.as_ref()) {
            return Ok(profile);
        }
        let profile = match self.admin.admin_only_attributes().await {
            // A realm that does not show its profile has no attribute that we could trust.
            Err(AdminError::Forbidden { .. } | AdminError::NotFound { .. }) => AdminOnly::default(),
            other => other?,
        };
        self.believed.lock().await.profile = Some((Instant::now(), profile.clone()));
        Ok(profile)
    }

    /// How far Keycloak's clock is ahead of ours, and who we are there.
    async fn own(&self) -> Result<(Span, Option<String>), IdpError> {
        let own = self.admin.own().await.map_err(idp)?;
        let mut account = own.account.clone();
        if account.is_none() {
            let name = format!("service-account-{}", self.settings.client_id);
            let found = self.admin.user_by_name(&name).await.map_err(idp)?;
            account = found.and_then(|user| user.id);
        }
        Ok((self.ahead(&own), account))
    }

    /// How far Keycloak's clock is ahead of ours, by the instant at which it issued our token.
    fn ahead(&self, own: &Own) -> Span {
        let age = i64::try_from(own.age.as_millis()).unwrap_or(i64::MAX);
        let fetched = self.clock.now().minus(Span::from_millis(age));
        let ahead = Timestamp::from_millis(own.issued).since(fetched);
        if ahead.abs() <= NOISE { Span::ZERO } else { ahead }
    }

    fn rules(&self, own: Option<String>) -> Rules {
        let s = &self.settings;
        Rules {
            enrolment: s.enrolment,
            probation: s.probation,
            reset_lifespan: s.reset_lifespan,
            admin_lifespan: s.admin_lifespan,
            fresh_login_for_actions: s.fresh_login_for_actions,
            resets_leave_lines: s.resets_leave_lines,
            phone_attributes: s.phone_attributes.clone(),
            own,
        }
    }
}

/// What was read within [`BELIEVE`].
fn fresh<T: Clone>(believed: Option<&(Instant, T)>) -> Option<T> {
    believed
        .filter(|(read, _)| read.elapsed() < BELIEVE)
        .map(|(_, value)| value.clone())
}

/// What an admin error means to the use cases.
fn idp(error: AdminError) -> IdpError {
    if error.is_transient() {
        return IdpError::Unreachable(error.to_string());
    }
    match error {
        AdminError::Unauthorized { .. } | AdminError::Forbidden { .. } => {
            IdpError::Refused(error.to_string())
        }
        other => IdpError::Unexpected(other.to_string()),
    }
}

/// Work about one account. A panic in it is ours, and is taken as any failure to read that account is: it restricts that
/// account and holds up nobody else (P15).
fn about_one<'a, T>(
    work: impl Future<Output = Result<T, IdpError>> + Send + 'a,
) -> BoxFuture<'a, Result<T, IdpError>> {
    let caught = |_| {
        metrics::counter!("reentry_account_panics_total").increment(1);
        tracing::error!("the work about one account ended in a panic: a fault of ours, please report it");
        Err(IdpError::Unexpected(
            "the work about this account ended in a panic".to_owned(),
        ))
    };
    let done = AssertUnwindSafe(work).catch_unwind();
    done.map(move |done| done.unwrap_or_else(caught)).boxed()
}

#[async_trait]
impl IdentityProvider for Keycloak {
    fn keeps_log(&self) -> bool {
        true
    }

    fn heeded(&self, id: &str) {
        self.hooks.heeded(id);
    }

    fn id(&self) -> &UpstreamId {
        &self.settings.id
    }

    async fn poll(&self, cursor: &Cursor, now: Now) -> Result<Polled, IdpError> {
        let polled = poll::poll(self, cursor, now).await;
        if let Err(IdpError::Refused(_)) = polled {
            // What our account may do has changed: what its token says of that is of before.
            self.admin.renew().await;
        }
        polled
    }

    async fn story(&self, sub: &str, since: Timestamp, now: Now) -> Result<Vec<Line>, IdpError> {
        let (lines, _) = about_one(poll::since(self, sub, Look { since, now })).await?;
        Ok(lines)
    }

    async fn observe(&self, sub: &str, look: Look) -> Result<Observation, IdpError> {
        let (lines, reading) = about_one(poll::since(self, sub, look)).await?;
        Ok(Observation::new(lines, reading?))
    }

    async fn drift(&self) -> Result<Vec<String>, IdpError> {
        act::drift(self).await
    }

    async fn account(&self, sub: &str) -> Result<Reading, IdpError> {
        about_one(account::read(self, sub)).await
    }

    async fn accounts(&self, first: u32, max: u32) -> Result<Vec<String>, IdpError> {
        let page = self.admin.users_page(first, max).await.map_err(idp)?;
        let strange = page.strange.iter().filter_map(|strange| strange.row.get("id"));
        let strange = strange.filter_map(|id| id.as_str().map(str::to_owned));
        let listed = page.read.into_iter().filter_map(|user| user.id);
        Ok(listed.chain(strange).collect())
    }

    async fn answers(&self) -> Result<(), IdpError> {
        self.admin.events_config().await.map(|_| ()).map_err(idp)
    }

    async fn converge(&self, sub: &str, wanted: &Wanted) -> Result<Converged, IdpError> {
        about_one(act::converge(self, sub, wanted)).await
    }

    async fn restore(&self, sub: &str, since: Timestamp, before: &Account) -> Result<Vec<String>, IdpError> {
        act::restore(self, sub, since, before).await
    }

    async fn end_session(&self, sub: &str, session: &str) -> Result<(), IdpError> {
        act::end_session(self, sub, session).await
    }

    async fn sessions(&self, sub: &str) -> Result<Vec<IdpSession>, IdpError> {
        act::sessions(self, sub).await
    }

    async fn remove_factor(&self, sub: &str, factor: &str) -> Result<(), IdpError> {
        act::remove_factor(self, sub, factor).await
    }

    async fn health(&self) -> Result<Vec<String>, IdpError> {
        health::health(self).await
    }

    async fn blind_spots(&self) -> Result<Vec<String>, IdpError> {
        let own = self.admin.own().await.map_err(idp)?;
        Ok(administrators::blind_spot(&self.settings.client_id, &own)
            .into_iter()
            .collect())
    }

    async fn heed(&self, call: &HookCall<'_>, now: Timestamp) -> Result<Heeded, HookRefusal> {
        hook::heed(self, call, now).await
    }
}
