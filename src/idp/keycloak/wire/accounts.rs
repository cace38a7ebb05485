//! Accounts that a hold does not reach, one by one.

use std::collections::BTreeSet;

use super::Report;
use super::audit::Finding;
use super::names::{FULL, GROUP, RoleRef};
use super::snapshot::Snapshot;
use crate::idp::keycloak::admin::{Admin, AdminError};
use crate::idp::keycloak::representations::User;

/// Most users that a check goes through one by one.
const MOST: u32 = 50_000;
/// Users per page.
const PAGE: u32 = 500;
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
    let (direct, _) = list(admin, snapshot, &Whom::Role(&RoleRef::realm(FULL))).await?;
    findings.extend(direct.iter().map(|user| {
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

/// Users, and whether there may be more of them than a check goes through.
pub(super) async fn list(
    admin: &Admin,
    snapshot: &Snapshot,
    whom: &Whom<'_>,
) -> Result<(Vec<User>, bool), AdminError> {
    let mut all = Vec::new();
    let mut first = 0;
    while first < MOST {
        let page = match whom {
            Whom::Everybody => admin.users(first, PAGE).await?,
            Whom::Group(id) => admin.group_members(id, first, PAGE).await?,
            Whom::Role(RoleRef { client: None, name }) => {
                if snapshot.role(name).is_none() {
                    return Ok((all, false));
                }
                admin.users_with_role(name, first, PAGE).await?
            }
            Whom::Role(RoleRef {
                client: Some(client),
                name,
            }) => {
                let id = snapshot.client(client).and_then(|client| client.id.as_deref());
                let Some(id) = id else { return Ok((all, false)) };
                admin.users_with_client_role(id, name, first, PAGE).await?
            }
        };
        let last = page.len() < PAGE as usize;
        all.extend(page);
        if last {
            return Ok((all, false));
        }
        first += PAGE;
    }
    Ok((all, true))
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
        let (users, _) = list(admin, snapshot, &Whom::Role(role)).await?;
        let users = users.iter().filter(|user| user.id.as_deref() != own);
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

async fn unreached(admin: &Admin, snapshot: &Snapshot) -> Result<Option<Finding>, AdminError> {
    let default = RoleRef::realm(&snapshot.default_role().name);
    let (users, mut more) = list(admin, snapshot, &Whom::Role(&default)).await?;
    let ids = |users: Vec<User>| users.into_iter().filter_map(|user| user.id).collect::<Vec<_>>();
    let mut reached: BTreeSet<String> = ids(users).into_iter().collect();
    let below = format!("{GROUP}/");
    for group in snapshot.groups() {
        let gives = group.path.starts_with(&below) || snapshot.closure(group.roles()).contains(&default);
        if gives {
            let (members, cut) = list(admin, snapshot, &Whom::Group(&group.id)).await?;
            reached.extend(ids(members));
            more |= cut;
        }
    }
    let (everybody, cut) = if more {
        (Vec::new(), true)
    } else {
        list(admin, snapshot, &Whom::Everybody).await?
    };
    if cut {
        let text = format!("more than {MOST} accounts: who lacks the default role was not looked for");
        return Ok(Some(Finding::warning("accounts", text)));
    }
    let without: Vec<&str> = everybody
        .iter()
        .filter(|user| user.id.as_ref().is_some_and(|id| !reached.contains(id)))
        .map(name)
        .collect();
    if without.is_empty() {
        return Ok(None);
    }
    let text = format!(
        "{} accounts have neither the default role nor a hold, so their tokens read `none`; map the default role to them: {}",
        without.len(),
        shown(without.iter().copied())
    );
    Ok(Some(Finding::error("accounts-without-default-role", text)))
}

fn shown<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    let first: Vec<&str> = names.iter().take(SHOWN).copied().collect();
    match names.len().saturating_sub(SHOWN) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}
