//! Making Keycloak's own tokens agree with the record (token mode: role-gated client scopes).
//!
//! The order fails closed. A hold first takes the realm's default role, and with it `reentry-full`: from then on the
//! account's tokens carry no claim at all, which a relying party reads as `none`. Then it puts the account into the
//! group of its level. A lift leaves the group first and gives the role back last. In between, and whenever somebody
//! takes the group away, there is no claim; two claims there never are.
//!
//! What a hold takes from an account it first writes down beside it, as membership in a group that maps nothing:
//! `/reentry/lift.default-role`, `lift.full-role` (a `reentry-full` of the account's own, for accounts without the
//! default role), `lift.enabled` (it was switched on). A lift gives back what is written there and nothing else: an
//! account that never had the default role does not get it, one that an administrator had switched off stays off,
//! and a `reentry-full` that somebody granted *during* the hold is taken and not given back. The note is made before
//! the act and struck after its reversal, so that a crash at any point loses no right and grants none.
//!
//! Every act is read back, by effective roles and groups, and repeated if somebody was faster. What still does not
//! agree is told in `cannot`, and the account is switched off where the operator chose so.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use futures_util::future::{try_join3, try_join5};

use super::admin::{AdminError, AdminEventQuery, Direction, EventQuery};
use super::events::{self, AdminAct};
use super::representations::{Group, Role, Session, User};
use super::wire::names::{DEFAULT_ROLE_ID, DEFAULT_ROLE_NAME, FULL, GROUP as ROOT};
use super::{CannotHold, Keycloak, account, fresh, idp, of_account};
use crate::domain::ceiling::Ceiling;
use crate::domain::hold::{Cut, Posture};
use crate::domain::policy::ContestedAtIdp;
use crate::domain::subject::account::{Account, ContactKind};
use crate::domain::time::{Span, Timestamp};
use crate::ports::idp::{Converged, IdpError, IdpSession, Wanted};

/// Prefix of the roles of levels.
const HOLD_ROLE: &str = "reentry-hold.";
/// Prefix of the groups of levels.
const HOLD_GROUP: &str = "hold.";
/// How often an act is repeated when the reading back does not agree.
const ROUNDS: usize = 3;

/// Roles of `realm-management` with which an account could undo its own hold.
const UNDOING: [&str; 6] = [
    "realm-admin",
    "manage-users",
    "manage-realm",
    "manage-clients",
    "manage-authorization",
    "impersonation",
];

/// What a lift gives back, each with its group below [`ROOT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Taken {
    DefaultRole,
    FullRole,
    Enabled,
}

impl Taken {
    const ALL: [Self; 3] = [Self::DefaultRole, Self::FullRole, Self::Enabled];

    const fn group(self) -> &'static str {
        match self {
            Self::DefaultRole => "lift.default-role",
            Self::FullRole => "lift.full-role",
            Self::Enabled => "lift.enabled",
        }
    }
}

/// The wired realm as far as a hold needs it.
#[derive(Debug, Clone, Default)]
pub(super) struct Layout {
    root: Option<String>,
    default_role: Option<Role>,
    /// Level → group.
    levels: BTreeMap<String, String>,
    notes: BTreeMap<Taken, String>,
}

impl Layout {
    /// What is missing, with what to do.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.root.is_none() {
            faults.push(
                "the realm is not wired, Keycloak's own tokens cannot be held: run `reentry wire keycloak`"
                    .to_owned(),
            );
        } else if self.default_role.is_none() || !self.levels.contains_key("none") {
            faults.push(format!(
                "group {ROOT} is not what `reentry wire keycloak` made: run it again"
            ));
        }
        faults
    }

    fn wired(&self) -> Option<(&str, &Role)> {
        Some((self.root.as_deref()?, self.default_role.as_ref()?))
    }

    /// The group of `ceiling`, or of the widest level within it: never more than the record allows.
    fn level(&self, ceiling: &Ceiling) -> Option<(&str, &str)> {
        let exact = self.levels.get_key_value(&ceiling.level());
        let within = || {
            let fitting = self
                .levels
                .iter()
                .filter(|(level, _)| Ceiling::parse_level(level).within(ceiling));
            fitting.max_by_key(|(level, _)| {
                if *level == "none" {
                    0
                } else {
                    level.split('.').count()
                }
            })
        };
        exact
            .or_else(within)
            .map(|(level, group)| (level.as_str(), group.as_str()))
    }

    fn is_level(&self, group: &str) -> bool {
        self.levels.values().any(|id| id == group)
    }
}

/// The layout, read at most once a minute.
pub(super) async fn layout(keycloak: &Keycloak) -> Result<Layout, IdpError> {
    let mut believed = keycloak.believed.lock().await;
    if !fresh(believed.layout.as_ref()) {
        let layout = read_layout(keycloak).await?;
        believed.layout = Some((Instant::now(), layout));
    }
    Ok(believed
        .layout
        .as_ref()
        .map(|(_, layout)| layout.clone())
        .unwrap_or_default())
}

async fn forget_layout(keycloak: &Keycloak) {
    keycloak.believed.lock().await.layout = None;
}

async fn read_layout(keycloak: &Keycloak) -> Result<Layout, IdpError> {
    let admin = &keycloak.admin;
    let Some(root) = admin.group_by_path(ROOT).await.map_err(idp)? else {
        return Ok(Layout::default());
    };
    let Some(id) = root.id.clone() else {
        return Ok(Layout::default());
    };
    let attribute = |name: &str| {
        root.attributes
            .get(name)
            .and_then(|values| values.first())
            .cloned()
    };
    let default_role = match (attribute(DEFAULT_ROLE_ID), attribute(DEFAULT_ROLE_NAME)) {
        (Some(id), Some(name)) => Some(Role {
            id: Some(id),
            name,
            ..Role::default()
        }),
        _ => None,
    };
    let children = admin.subgroups(&id).await.map_err(idp)?;
    let named = |group: &Group| group.id.clone().map(|id| (group.name.clone(), id));
    let groups: BTreeMap<String, String> = children.iter().filter_map(named).collect();
    let levels = groups
        .iter()
        .filter_map(|(name, id)| Some((name.strip_prefix(HOLD_GROUP)?.to_owned(), id.clone())))
        .collect();
    let notes = Taken::ALL
        .into_iter()
        .filter_map(|taken| Some((taken, groups.get(taken.group())?.clone())))
        .collect();
    Ok(Layout {
        root: Some(id),
        default_role,
        levels,
        notes,
    })
}

/// Ids of the groups that holds rest on.
pub(super) async fn our_groups(keycloak: &Keycloak) -> Result<BTreeSet<String>, IdpError> {
    let layout = layout(keycloak).await?;
    let groups = layout
        .levels
        .into_values()
        .chain(layout.notes.into_values())
        .chain(layout.root);
    Ok(groups.collect())
}

/// An account as a hold sees it.
struct Seen {
    user: User,
    groups: BTreeSet<String>,
    mapped: Vec<Role>,
    effective: BTreeSet<String>,
    undoing: Vec<String>,
}

impl Seen {
    fn mapped(&self, name: &str) -> Option<&Role> {
        self.mapped.iter().find(|role| role.name == name)
    }

    fn has(&self, role: &str) -> bool {
        self.effective.contains(role)
    }
}

async fn see(keycloak: &Keycloak, sub: &str) -> Result<Seen, IdpError> {
    let admin = &keycloak.admin;
    let (user, groups, mapped, effective, client) = try_join5(
        admin.user(sub),
        admin.user_groups(sub),
        admin.realm_roles(sub),
        admin.effective_realm_roles(sub),
        admin.effective_client_roles(sub),
    )
    .await
    .map_err(of_account)?;
    let undoing = client
        .into_iter()
        .filter(|of| of.client == "realm-management" && UNDOING.contains(&of.role.as_str()))
        .map(|of| of.role);
    Ok(Seen {
        user,
        groups: groups.into_iter().filter_map(|group| group.id).collect(),
        mapped,
        effective: effective.into_iter().map(|role| role.name).collect(),
        undoing: undoing.collect(),
    })
}

/// One account being brought to agree.
struct Hand<'a> {
    keycloak: &'a Keycloak,
    layout: Layout,
    sub: &'a str,
    acts: Vec<String>,
}

/// Makes the realm agree with `wanted`.
pub(super) async fn converge(keycloak: &Keycloak, sub: &str, wanted: &Wanted) -> Result<Converged, IdpError> {
    let mut layout = layout(keycloak).await?;
    if layout.wired().is_none() {
        // Somebody may have wired it this minute.
        forget_layout(keycloak).await;
        layout = self::layout(keycloak).await?;
    }
    let mut hand = Hand {
        keycloak,
        layout,
        sub,
        acts: Vec::new(),
    };
    let cannot = match &wanted.posture {
        Posture::Free => {
            // A fresh log-in is asked for by ending sessions before the lift: none of them may see it.
            hand.end_sessions(&wanted.cuts, wanted.end_before).await?;
            return hand.lift().await.map(|cannot| Converged {
                acts: hand.acts,
                cannot,
            });
        }
        Posture::Held(ceiling) => hand.hold(ceiling, None).await?,
        Posture::Contested(at_idp) => hand.hold(&Ceiling::none(), Some(*at_idp)).await?,
    };
    hand.end_sessions(&wanted.cuts, wanted.end_before).await?;
    Ok(Converged {
        acts: hand.acts,
        cannot,
    })
}

impl Hand<'_> {
    fn did(&mut self, act: impl Into<String>) {
        self.acts.push(act.into());
    }

    /// Holds the account at `ceiling`; `contest` says that it is frozen, and how.
    async fn hold(
        &mut self,
        ceiling: &Ceiling,
        contest: Option<ContestedAtIdp>,
    ) -> Result<Option<String>, IdpError> {
        let wired = self.layout.wired().is_some();
        let mut seen = see(self.keycloak, self.sub).await?;
        let mut cannot = None;
        if wired {
            for _ in 0..ROUNDS {
                cannot = match self.hold_once(ceiling, &seen).await {
                    Ok(()) => None,
                    Err(error) if error.is_transient() => return Err(idp(error)),
                    Err(AdminError::NotFound { what }) => {
                        // A group that went away, or the account did: the next reading tells.
                        forget_layout(self.keycloak).await;
                        self.layout = layout(self.keycloak).await?;
                        Some(format!("{what} is not there"))
                    }
                    Err(error @ (AdminError::Forbidden { .. } | AdminError::Unauthorized { .. })) => {
                        return Err(idp(error));
                    }
                    Err(error) => Some(error.to_string()),
                };
                seen = see(self.keycloak, self.sub).await?;
                cannot = cannot.or_else(|| self.disagrees(ceiling, &seen));
                if cannot.is_none() {
                    break;
                }
            }
        } else {
            cannot = self.layout.faults().into_iter().next();
        }
        let settings = &self.keycloak.settings;
        let undoing = (!seen.undoing.is_empty())
            .then(|| format!("it keeps {} and could undo the hold", seen.undoing.join(", ")));
        let off = contest == Some(ContestedAtIdp::Disable)
            || (cannot.is_some() && wired && settings.unholdable == CannotHold::Disable)
            || (undoing.is_some() && settings.held_admins == CannotHold::Disable);
        if off {
            self.switch_off(&seen).await?;
        } else {
            self.switch_on_again(&seen).await?;
        }
        Ok(cannot.or(undoing))
    }

    async fn hold_once(&mut self, ceiling: &Ceiling, seen: &Seen) -> Result<(), AdminError> {
        let Some((_, default_role)) = self
            .layout
            .wired()
            .map(|(root, role)| (root.to_owned(), role.clone()))
        else {
            return Ok(());
        };
        let admin = &self.keycloak.admin;
        let Some((level, group)) = self
            .layout
            .level(ceiling)
            .map(|(level, id)| (level.to_owned(), id.to_owned()))
        else {
            return Ok(());
        };
        let held = seen.groups.iter().any(|id| self.layout.is_level(id));
        let noted = self.layout.notes.values().any(|id| seen.groups.contains(id));
        if let Some(role) = seen
            .mapped
            .iter()
            .find(|role| role.id == default_role.id)
            .cloned()
        {
            self.note(Taken::DefaultRole, seen).await?;
            admin
                .remove_realm_roles(self.sub, std::slice::from_ref(&role))
                .await?;
            self.did(format!("took role {}", role.name));
        }
        if let Some(role) = seen.mapped(FULL).cloned() {
            if !held && !noted {
                self.note(Taken::FullRole, seen).await?;
            }
            admin
                .remove_realm_roles(self.sub, std::slice::from_ref(&role))
                .await?;
            self.did(format!("took role {FULL}"));
        }
        // Roles of other levels, granted one by one, would be a second claim.
        let stray: Vec<Role> = seen
            .mapped
            .iter()
            .filter(|role| role.name.starts_with(HOLD_ROLE))
            .cloned()
            .collect();
        if !stray.is_empty() {
            admin.remove_realm_roles(self.sub, &stray).await?;
            self.did("took stray hold roles");
        }
        let others: Vec<String> = seen
            .groups
            .iter()
            .filter(|id| **id != group && self.layout.is_level(id))
            .cloned()
            .collect();
        for other in others {
            admin.leave_group(self.sub, &other).await?;
            self.did(format!("left {}", self.named(&other)));
        }
        if !seen.groups.contains(&group) {
            admin.join_group(self.sub, &group).await?;
            self.did(format!("joined {ROOT}/{HOLD_GROUP}{level}"));
        }
        Ok(())
    }

    /// What of the reading back does not agree with a hold at `ceiling`.
    fn disagrees(&self, ceiling: &Ceiling, seen: &Seen) -> Option<String> {
        let (level, group) = self.layout.level(ceiling)?;
        if seen.has(FULL) {
            let by = match self
                .layout
                .default_role
                .as_ref()
                .filter(|role| seen.has(&role.name))
            {
                Some(default_role) => format!(
                    "through `{}`, inside a group or a composite role",
                    default_role.name
                ),
                None => "through a group or a composite role".to_owned(),
            };
            return Some(format!("it keeps `{FULL}` {by}"));
        }
        if !seen.groups.contains(group) {
            return Some(format!("it does not stay in group {ROOT}/{HOLD_GROUP}{level}"));
        }
        let wanted = format!("{HOLD_ROLE}{level}");
        if !seen.has(&wanted) {
            return Some(format!(
                "group {ROOT}/{HOLD_GROUP}{level} does not give `{wanted}`"
            ));
        }
        let stray = seen
            .effective
            .iter()
            .find(|role| role.starts_with(HOLD_ROLE) && **role != wanted);
        stray.map(|role| format!("it keeps `{role}` beside `{wanted}`"))
    }

    fn named(&self, group: &str) -> String {
        let level = self.layout.levels.iter().find(|(_, id)| *id == group);
        level.map_or_else(
            || group.to_owned(),
            |(level, _)| format!("{ROOT}/{HOLD_GROUP}{level}"),
        )
    }

    /// Writes down that something is about to be taken.
    async fn note(&mut self, taken: Taken, seen: &Seen) -> Result<(), AdminError> {
        let group = match self.layout.notes.get(&taken) {
            Some(group) => group.clone(),
            None => self.make_note_group(taken).await?,
        };
        if !seen.groups.contains(&group) {
            self.keycloak.admin.join_group(self.sub, &group).await?;
        }
        Ok(())
    }

    /// A realm wired without the group gets it now: a hold must not wait for an operator.
    async fn make_note_group(&mut self, taken: Taken) -> Result<String, AdminError> {
        let group = Group {
            name: taken.group().to_owned(),
            ..Group::default()
        };
        let admin = &self.keycloak.admin;
        let id = match admin.create_group(self.layout.root.as_deref(), &group).await {
            Err(AdminError::Conflict { .. }) => {
                let path = format!("{ROOT}/{}", taken.group());
                let found = admin.group_by_path(&path).await?.and_then(|group| group.id);
                found.ok_or(AdminError::NotFound { what: path })?
            }
            other => other?,
        };
        self.layout.notes.insert(taken, id.clone());
        forget_layout(self.keycloak).await;
        Ok(id)
    }

    /// Strikes a note out, after what it says was given back.
    async fn strike(&mut self, taken: Taken) -> Result<(), AdminError> {
        match self.layout.notes.get(&taken) {
            Some(group) => self.keycloak.admin.leave_group(self.sub, group).await,
            None => Ok(()),
        }
    }

    fn noted(&self, taken: Taken, seen: &Seen) -> bool {
        self.layout
            .notes
            .get(&taken)
            .is_some_and(|group| seen.groups.contains(group))
    }

    async fn switch_off(&mut self, seen: &Seen) -> Result<(), IdpError> {
        if !seen.user.enabled {
            return Ok(());
        }
        // Without the root there is nowhere to note it: then only an administrator switches it on again.
        if self.layout.root.is_some() {
            self.note(Taken::Enabled, seen).await.map_err(idp)?;
        }
        let admin = &self.keycloak.admin;
        admin.set_enabled(self.sub, false).await.map_err(of_account)?;
        admin.logout(self.sub).await.map_err(of_account)?;
        // Offline sessions are dead by not-before then, but stay listed.
        for (session, offline) in live_sessions(self.keycloak, self.sub).await? {
            delete_session(self.keycloak, &session.id, offline).await?;
        }
        self.did("switched the account off and ended every session");
        Ok(())
    }

    async fn switch_on_again(&mut self, seen: &Seen) -> Result<(), IdpError> {
        if !self.noted(Taken::Enabled, seen) {
            return Ok(());
        }
        if !seen.user.enabled {
            self.keycloak
                .admin
                .set_enabled(self.sub, true)
                .await
                .map_err(of_account)?;
            self.did("switched the account on again");
        }
        self.strike(Taken::Enabled).await.map_err(of_account)
    }

    /// Takes a hold back: the group first, the roles last.
    async fn lift(&mut self) -> Result<Option<String>, IdpError> {
        if self.layout.root.is_none() {
            return Ok(None);
        }
        let mut seen = see(self.keycloak, self.sub).await?;
        for _ in 0..ROUNDS {
            let restored = self.noted(Taken::DefaultRole, &seen);
            self.lift_once(&seen).await.map_err(of_account)?;
            self.switch_on_again(&seen).await?;
            seen = see(self.keycloak, self.sub).await?;
            let held = seen.groups.iter().any(|id| self.layout.is_level(id));
            let noted = self.layout.notes.values().any(|id| seen.groups.contains(id));
            if !held && !noted {
                return Ok((restored && !seen.has(FULL)).then(|| {
                    format!("its default role no longer holds `{FULL}`: run `reentry wire keycloak`")
                }));
            }
        }
        Ok(Some("it does not stay out of the hold groups".to_owned()))
    }

    async fn lift_once(&mut self, seen: &Seen) -> Result<(), AdminError> {
        let admin = &self.keycloak.admin;
        let groups: Vec<String> = seen
            .groups
            .iter()
            .filter(|id| self.layout.is_level(id))
            .cloned()
            .collect();
        for group in groups {
            admin.leave_group(self.sub, &group).await?;
            self.did(format!("left {}", self.named(&group)));
        }
        if self.noted(Taken::DefaultRole, seen)
            && let Some(role) = self.layout.default_role.clone()
        {
            admin
                .add_realm_roles(self.sub, std::slice::from_ref(&role))
                .await?;
            self.did(format!("gave role {} back", role.name));
            self.strike(Taken::DefaultRole).await?;
        }
        if self.noted(Taken::FullRole, seen) {
            if let Some(role) = self.full_role(seen).await? {
                admin.add_realm_roles(self.sub, &[role]).await?;
                self.did(format!("gave role {FULL} back"));
            }
            self.strike(Taken::FullRole).await?;
        }
        Ok(())
    }

    /// `reentry-full` with its id, from wherever we may read it.
    async fn full_role(&self, seen: &Seen) -> Result<Option<Role>, AdminError> {
        if let Some(role) = seen.mapped(FULL) {
            return Ok(Some(role.clone()));
        }
        let admin = &self.keycloak.admin;
        let Some(own) = admin.own().await?.account else {
            return Ok(None);
        };
        // Service accounts have the default role too.
        let roles = admin.effective_realm_roles(&own).await?;
        Ok(roles.into_iter().find(|role| role.name == FULL))
    }

    /// Ends what began before a cut, and is not its exception.
    async fn end_sessions(&mut self, cuts: &[Cut], end_before: Option<Timestamp>) -> Result<(), IdpError> {
        if cuts.is_empty() && end_before.is_none() {
            return Ok(());
        }
        let (ahead, _) = self.keycloak.own().await?;
        let dead = |session: &Session| {
            // Whole seconds, rounded down: what began in the second of the cut counts as before it.
            let began = Timestamp::from_millis(session.start).minus(ahead);
            end_before.is_some_and(|end| began < end)
                || cuts
                    .iter()
                    .any(|cut| began <= cut.at && cut.except.as_deref() != Some(&session.id))
        };
        for (session, offline) in live_sessions(self.keycloak, self.sub).await? {
            if dead(&session) {
                delete_session(self.keycloak, &session.id, offline).await?;
                let kind = if offline { "offline session" } else { "session" };
                self.did(format!("ended {kind} {}", session.id));
            }
        }
        Ok(())
    }
}

/// Online and offline sessions. Where offline ones are is told by the list of grants.
async fn live_sessions(keycloak: &Keycloak, sub: &str) -> Result<Vec<(Session, bool)>, IdpError> {
    let admin = &keycloak.admin;
    let (online, grants) = futures_util::future::try_join(admin.sessions(sub), admin.consents(sub))
        .await
        .map_err(of_account)?;
    let clients: BTreeSet<String> = grants
        .into_iter()
        .flat_map(|consent| consent.additional_grants)
        .filter_map(|grant| grant.client)
        .collect();
    let mut sessions: BTreeMap<(String, bool), Session> = online
        .into_iter()
        .map(|session| ((session.id.clone(), false), session))
        .collect();
    for client in clients {
        for session in admin.offline_sessions(sub, &client).await.map_err(of_account)? {
            let key = (session.id.clone(), true);
            sessions
                .entry(key)
                .or_insert(Session {
                    clients: BTreeMap::new(),
                    ..session.clone()
                })
                .clients
                .extend(session.clients);
        }
    }
    Ok(sessions
        .into_iter()
        .map(|((_, offline), session)| (session, offline))
        .collect())
}

async fn delete_session(keycloak: &Keycloak, id: &str, offline: bool) -> Result<(), IdpError> {
    match keycloak.admin.delete_session(id, offline).await {
        // It ended by itself meanwhile.
        Ok(()) | Err(AdminError::NotFound { .. }) => Ok(()),
        Err(error) => Err(idp(error)),
    }
}

/// Sessions of the account, for its owner.
pub(super) async fn sessions(keycloak: &Keycloak, sub: &str) -> Result<Vec<IdpSession>, IdpError> {
    let (ahead, _) = keycloak.own().await?;
    let ours = |millis: i64| Timestamp::from_millis(millis).minus(ahead);
    let live = live_sessions(keycloak, sub).await?;
    let told = live.into_iter().map(|(session, offline)| IdpSession {
        began: ours(session.start),
        last_access: ours(session.last_access),
        ip: session.ip_address.unwrap_or_default(),
        clients: session.clients.into_values().collect(),
        offline,
        id: session.id,
    });
    Ok(told.collect())
}

/// Ends one session, if it is the account's; one that is gone already is no error.
pub(super) async fn end_session(keycloak: &Keycloak, sub: &str, id: &str) -> Result<(), IdpError> {
    for (session, offline) in live_sessions(keycloak, sub).await? {
        if session.id == id {
            delete_session(keycloak, id, offline).await?;
        }
    }
    Ok(())
}

/// Removes one factor; one that is gone already is no error.
pub(super) async fn remove_factor(keycloak: &Keycloak, sub: &str, factor: &str) -> Result<(), IdpError> {
    let admin = &keycloak.admin;
    let done = match factor.strip_prefix(account::LINK) {
        Some(provider) => admin.remove_federated_identity(sub, provider).await,
        None => admin.delete_credential(sub, factor).await,
    };
    match done {
        Ok(()) | Err(AdminError::NotFound { .. }) => Ok(()),
        Err(error) => Err(idp(error)),
    }
}

/// Takes back what was enrolled and changed since `since`.
pub(super) async fn restore(
    keycloak: &Keycloak,
    sub: &str,
    since: Timestamp,
    before: &Account,
) -> Result<Vec<String>, IdpError> {
    let admin = &keycloak.admin;
    let (ahead, _) = keycloak.own().await?;
    let since_there = since.plus(ahead).millis();
    let mut done = Vec::new();
    for credential in admin.credentials(sub).await.map_err(of_account)? {
        if credential
            .created_date
            .is_some_and(|created| created >= since_there - GRACE.millis())
        {
            remove_factor(keycloak, sub, &credential.id).await?;
            done.push(format!("removed {} {}", credential.kind, credential.id));
        }
    }
    let (links, phones) = taken_back(keycloak, sub, since_there).await?;
    for provider in links {
        remove_factor(keycloak, sub, &format!("{}{provider}", account::LINK)).await?;
        done.push(format!("removed the link to {provider}"));
    }
    done.extend(restore_contacts(keycloak, sub, since, before, &phones).await?);
    let left = admin.credentials(sub).await.map_err(of_account)?;
    let newer = |at: Option<i64>| at.is_some_and(|created| created >= since_there - GRACE.millis());
    if left.iter().any(|credential| newer(credential.created_date)) {
        return Err(IdpError::Unexpected(
            "a credential was enrolled while they were being removed".to_owned(),
        ));
    }
    Ok(done)
}

/// A credential is stored a moment before the event that tells of it.
const GRACE: Span = Span::from_secs(2);

/// Logins linked since, and the telephone numbers of before, as the logs tell.
async fn taken_back(
    keycloak: &Keycloak,
    sub: &str,
    since: i64,
) -> Result<(BTreeSet<String>, BTreeMap<String, String>), IdpError> {
    let types = [
        "FEDERATED_IDENTITY_LINK",
        "FEDERATED_IDENTITY_OVERRIDE_LINK",
        "UPDATE_PROFILE",
    ];
    let query = EventQuery {
        types: keycloak.known(&types).await?,
        user: Some(sub.to_owned()),
        from_ms: Some(since - GRACE.millis()),
        direction: Direction::Ascending,
        max: 500,
        ..EventQuery::default()
    };
    let admin_query = AdminEventQuery {
        resource_path: Some(format!("users/{sub}/federated-identity/*")),
        from_ms: Some(since - GRACE.millis()),
        direction: Direction::Ascending,
        max: 500,
        ..AdminEventQuery::default()
    };
    let admin = &keycloak.admin;
    let (events, acts, now) = try_join3(
        admin.events(&query),
        admin.admin_events(&admin_query),
        admin.federated_identities(sub),
    )
    .await
    .map_err(of_account)?;
    let mut links: BTreeSet<String> = BTreeSet::new();
    let mut phones = BTreeMap::new();
    for event in events.iter().filter(|event| event.error.is_none()) {
        links.extend(
            event
                .details
                .get("identity_provider")
                .filter(|_| event.kind != "UPDATE_PROFILE")
                .cloned(),
        );
        for name in &keycloak.settings.phone_attributes {
            if event.details.contains_key(&format!("updated_{name}")) {
                let previous = event
                    .details
                    .get(&format!("previous_{name}"))
                    .cloned()
                    .unwrap_or_default();
                phones.entry(name.clone()).or_insert(previous);
            }
        }
    }
    links.extend(acts.iter().filter_map(|event| match events::admin_act(event) {
        Some((_, AdminAct::Linked(provider))) => Some(provider.to_owned()),
        _ => None,
    }));
    links.retain(|provider| now.iter().any(|link| link.identity_provider == *provider));
    Ok((links, phones))
}

/// Sets the addresses of before again and reads them back.
async fn restore_contacts(
    keycloak: &Keycloak,
    sub: &str,
    since: Timestamp,
    before: &Account,
    phones: &BTreeMap<String, String>,
) -> Result<Vec<String>, IdpError> {
    let admin = &keycloak.admin;
    let mut done = Vec::new();
    let had = before.contacts.iter().filter(|contact| {
        contact.kind == ContactKind::Email
            && contact.since < since
            && contact.gone.is_none_or(|gone| gone >= since)
    });
    let user = admin.user(sub).await.map_err(of_account)?;
    if let Some(email) = had.max_by_key(|contact| contact.since) {
        let same = |user: &User| {
            user.email
                .as_deref()
                .is_some_and(|now| now.eq_ignore_ascii_case(&email.address))
        };
        if !same(&user) {
            admin
                .set_email(sub, &email.address, email.verified)
                .await
                .map_err(of_account)?;
            let user = admin.user(sub).await.map_err(of_account)?;
            if !same(&user) {
                return Err(IdpError::Unexpected(
                    "the e-mail address of before was not taken".to_owned(),
                ));
            }
            done.push("set the e-mail address of before".to_owned());
        }
    }
    if !phones.is_empty() {
        admin
            .update_user(sub, |user| {
                let attributes = user.attributes.get_or_insert_default();
                for (name, previous) in phones {
                    let values = previous
                        .split("::")
                        .filter(|value| !value.is_empty())
                        .map(str::to_owned);
                    attributes.insert(name.clone(), values.collect());
                }
            })
            .await
            .map_err(of_account)?;
        done.push("set the telephone number of before".to_owned());
    }
    Ok(done)
}
