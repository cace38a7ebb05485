//! Roles that the policy names: whether they are there, and whether two people can end a freeze.
//!
//! A name that is misspelt in a tier puts nobody into it, and an administrator's role that nobody has leaves every
//! frozen account frozen: neither shows until it is needed.

use std::collections::BTreeSet;

use super::WirePlanInput;
use super::accounts::{Whom, list};
use super::audit::Finding;
use super::names::RoleRef;
use super::snapshot::Snapshot;
use crate::idp::keycloak::admin::{Admin, AdminError};

/// A role as policies write it: `role`, or `client/role`.
fn role(name: &str) -> RoleRef {
    match name.split_once('/') {
        Some((client, role)) => RoleRef::client(client, role),
        None => RoleRef::realm(name),
    }
}

fn is_there(snapshot: &Snapshot, wanted: &RoleRef) -> bool {
    snapshot.all_roles().any(|(role, _)| role == *wanted)
}

pub(super) async fn find(
    admin: &Admin,
    snapshot: &Snapshot,
    input: &WirePlanInput,
) -> Result<Vec<Finding>, AdminError> {
    let missing = input.tier_roles.iter();
    let missing = missing.filter(|(name, _)| !is_there(snapshot, &role(name)));
    let mut findings: Vec<Finding> = missing
        .map(|(name, tier)| {
            let text = format!(
                "the role `{name}` of the tier `{tier}` does not exist in this realm, so nobody is in the tier by it; make it, or mend the policy's `when`"
            );
            Finding::warning("tier-role", text)
        })
        .collect();
    if input.admin_roles.is_empty() {
        return Ok(findings);
    }
    let mut who: BTreeSet<String> = BTreeSet::new();
    for name in &input.admin_roles {
        let role = role(name);
        if !is_there(snapshot, &role) {
            let text = format!(
                "the role `{name}` of the policy's `admin_roles` does not exist in this realm; make it and give it to your administrators"
            );
            findings.push(Finding::warning("admin-role", text));
            continue;
        }
        let listed = list(admin, snapshot, &Whom::Role(&role)).await?;
        who.extend(listed.users.into_iter().filter_map(|user| user.id));
        for group in snapshot.groups() {
            if snapshot.closure(group.roles()).contains(&role) {
                let members = list(admin, snapshot, &Whom::Group(&group.id)).await?;
                who.extend(members.users.into_iter().filter_map(|user| user.id));
            }
        }
    }
    if who.len() < 2 {
        let text = format!(
            "{} of the 2 accounts that it takes hold a role of the policy's `admin_roles`: nobody could end a freeze; give two people one",
            who.len()
        );
        findings.push(Finding::warning("few-administrators", text));
    }
    Ok(findings)
}
