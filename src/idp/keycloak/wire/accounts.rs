//! Accounts that a hold does not reach, one by one.
//!
//! A page that cannot be listed is asked for in halves, down to the one account that spoils it: that one is named as a
//! finding by its place, and the others are looked at. Only an empty page is the end: a directory answers short ones.

use std::collections::BTreeSet;

use super::Report;
use super::audit::Finding;
use super::names::{FULL, GROUP, RoleRef};
use super::snapshot::Snapshot;
use crate::idp::keycloak::admin::text::Rows;
use crate::idp::keycloak::admin::{Admin, AdminError};
use crate::idp::keycloak::representations::User;

/// Most users that a check goes through one by one.
const MOST: u32 = 50_000;
/// Users per page.
const PAGE: u32 = 500;
/// Failed answers that one page may cost: enough to find two accounts that spoil it.
const FAULTS: u32 = 24;
/// Names that a finding shows.
const SHOWN: usize = 10;

/// Whom to list.
pub(super) enum Whom<'a> {
    Everybody,
    Role(&'a RoleRef),
    Group(&'a str),
}

/// Accounts with `reentry-full` mapped directly (out of step with the rest), accounts that are neither
/// free nor held (they read `none`), and administrators (they can undo a hold of their own).
pub(super) async fn find(
    admin: &Admin,
    snapshot: &Snapshot,
    report: Report<'_>,
) -> Result<Vec<Finding>, AdminError> {
    let mut findings = Vec::new();
    report(1, 3, "accounts with roles of their own");
    let direct = list(admin, snapshot, &Whom::Role(&RoleRef::realm(FULL))).await?;
    findings.extend(direct.users.iter().map(|user| {
        let text = format!(
            "user `{}` has `{FULL}` mapped directly: a hold takes it and a lift gives it back, but the default role is the place for it",
            name(user)
        );
        Finding::warning("full-direct", text)
    }));
    report(2, 3, "administrators");
    findings.extend(administrators(admin, snapshot).await?);
    report(3, 3, "accounts without the default role");
    findings.extend(unreached(admin, snapshot).await?);
    Ok(findings)
}

fn name(user: &User) -> &str {
    user.username.as_deref().unwrap_or_default()
}

/// What was listed.
#[derive(Default)]
pub(super) struct Listed {
    pub(super) users: Vec<User>,
    /// There may be more of them than a check goes through.
    pub(super) more: bool,
    /// Places that could not be listed.
    missing: Vec<u32>,
}

async fn page(
    admin: &Admin,
    snapshot: &Snapshot,
    whom: &Whom<'_>,
    (first, max): (u32, u32),
) -> Result<Option<Rows<User>>, AdminError> {
    let page = match whom {
        Whom::Everybody => admin.users_page(first, max).await?,
        Whom::Group(id) => admin.group_members(id, first, max).await?,
        Whom::Role(RoleRef { client: None, name }) => {
            if snapshot.role(name).is_none() {
                return Ok(None);
            }
            admin.users_with_role(name, first, max).await?
        }
        Whom::Role(RoleRef {
            client: Some(client),
            name,
        }) => {
            let id = snapshot.client(client).and_then(|client| client.id.as_deref());
            let Some(id) = id else { return Ok(None) };
            admin.users_with_client_role(id, name, first, max).await?
        }
    };
    Ok(Some(page))
}

/// Users, page by page.
pub(super) async fn list(admin: &Admin, snapshot: &Snapshot, whom: &Whom<'_>) -> Result<Listed, AdminError> {
    let mut listed = Listed::default();
    let mut first = 0;
    while first < MOST {
        let mut parts = vec![(first, PAGE)];
        let (mut count, mut faults) = (0, 0);
        while let Some((from, max)) = parts.pop() {
            match page(admin, snapshot, whom, (from, max)).await {
                Ok(None) => return Ok(listed),
                Ok(Some(rows)) => {
                    count += rows.len();
                    let strange = rows.strange.iter().map(|_| from);
                    listed.missing.extend(strange);
                    listed.users.extend(rows.read);
                }
                Err(error) if !error.is_of_one_answer() || faults == FAULTS => return Err(error),
                Err(_) if max == 1 => {
                    count += 1;
                    faults += 1;
                    listed.missing.push(from);
                }
                Err(_) => {
                    faults += 1;
                    let half = max / 2;
                    parts.push((from + half, max - half));
                    parts.push((from, half));
                }
            }
        }
        if count == 0 {
            return Ok(listed);
        }
        first += u32::try_from(count).unwrap_or(PAGE).min(PAGE);
    }
    listed.more = true;
    Ok(listed)
}

/// What could not be listed, for people.
fn unlisted(missing: &[u32]) -> Option<Finding> {
    let first = missing.first()?;
    let text = format!(
        "{} accounts could not be listed, the first of them at place {first} in the order of user names: Keycloak answers an error, or nothing that can be understood; look for it in Keycloak's own log (a directory that is away, an entry that is broken) and check again",
        missing.len()
    );
    Some(Finding::error("accounts-unreadable", text))
}

/// Who can write role mappings and group memberships, the run-time account aside.
async fn administrators(admin: &Admin, snapshot: &Snapshot) -> Result<Option<Finding>, AdminError> {
    let manage = RoleRef::client("realm-management", "manage-users");
    let roles = snapshot.all_roles().map(|(role, _)| role);
    let roles: Vec<RoleRef> = roles
        .filter(|role| snapshot.closure([role.clone()]).contains(&manage))
        .collect();
    let own = snapshot.runtime.as_ref().map(|account| account.user.as_str());
    let mut who: BTreeSet<String> = BTreeSet::new();
    for role in &roles {
        let listed = list(admin, snapshot, &Whom::Role(role)).await?;
        let users = listed.users.iter().filter(|user| user.id.as_deref() != own);
        who.extend(users.map(|user| format!("user `{}`", name(user))));
    }
    for group in snapshot.groups() {
        if snapshot.closure(group.roles()).contains(&manage) {
            who.insert(format!("members of group {}", group.path));
        }
    }
    if who.is_empty() {
        return Ok(None);
    }
    let text = format!(
        "{} can manage users and so undo a hold of their own by the admin API; let the policy disable such accounts",
        shown(who.iter().map(String::as_str))
    );
    Ok(Some(Finding::warning("administrators", text)))
}

async fn unreached(admin: &Admin, snapshot: &Snapshot) -> Result<Vec<Finding>, AdminError> {
    let default = RoleRef::realm(&snapshot.default_role().name);
    let Listed {
        users,
        mut more,
        mut missing,
    } = list(admin, snapshot, &Whom::Role(&default)).await?;
    let ids = |users: Vec<User>| users.into_iter().filter_map(|user| user.id).collect::<Vec<_>>();
    let mut reached: BTreeSet<String> = ids(users).into_iter().collect();
    let below = format!("{GROUP}/");
    for group in snapshot.groups() {
        let gives = group.path.starts_with(&below) || snapshot.closure(group.roles()).contains(&default);
        if gives {
            let members = list(admin, snapshot, &Whom::Group(&group.id)).await?;
            reached.extend(ids(members.users));
            more |= members.more;
            missing.extend(members.missing);
        }
    }
    let everybody = if more {
        Listed::default()
    } else {
        list(admin, snapshot, &Whom::Everybody).await?
    };
    if more || everybody.more {
        let text = format!("more than {MOST} accounts: who lacks the default role was not looked for");
        return Ok(vec![Finding::warning("accounts", text)]);
    }
    missing.extend(&everybody.missing);
    let mut findings: Vec<Finding> = unlisted(&missing).into_iter().collect();
    let without: Vec<&str> = everybody
        .users
        .iter()
        .filter(|user| user.id.as_ref().is_some_and(|id| !reached.contains(id)))
        .map(name)
        .collect();
    if without.is_empty() {
        return Ok(findings);
    }
    let text = format!(
        "{} accounts have neither the default role nor a hold, so their tokens read `none`; map the default role to them: {}",
        without.len(),
        shown(without.iter().copied())
    );
    findings.push(Finding::error("accounts-without-default-role", text));
    Ok(findings)
}

fn shown<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    let first: Vec<&str> = names.iter().take(SHOWN).copied().collect();
    match names.len().saturating_sub(SHOWN) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}
