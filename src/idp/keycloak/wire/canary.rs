//! The part of a check that believes nothing: a user of our own, held and lifted for real, and what
//! every client would give it, asked from the server.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::audit::Finding;
use super::desired;
use super::names::{CANARY, CLAIM, FULL, Level, RoleRef};
use super::record::Record;
use super::snapshot::{Snapshot, names_in};
use super::{Report, WirePlanInput};
use crate::idp::keycloak::admin::{Admin, AdminError};
use crate::idp::keycloak::representations::{Client, Role, User};

struct Canary<'a> {
    admin: &'a Admin,
    snapshot: &'a Snapshot,
    gates: BTreeMap<String, BTreeSet<RoleRef>>,
    user: String,
    findings: Vec<Finding>,
}

/// Makes the canary, goes through every client × {free, held at each level, free again} and
/// deletes the canary, whatever happened in between.
pub(super) async fn run(
    admin: &Admin,
    input: &WirePlanInput,
    snapshot: &Snapshot,
    record: &Record,
    report: Report<'_>,
) -> Result<Vec<Finding>, AdminError> {
    let name = format!("{CANARY}{:x}", std::process::id());
    let email = format!("{name}@reentry.invalid");
    // One that an interrupted check left behind; by address, because a realm may name users by it.
    for left in admin
        .users_by_email(&email)
        .await?
        .into_iter()
        .filter_map(|user| user.id)
    {
        admin.delete_user(&left).await?;
    }
    let rest = Map::from_iter([
        ("firstName".to_owned(), Value::from("Reentry")),
        ("lastName".to_owned(), Value::from("Check")),
    ]);
    let new = User {
        username: Some(name),
        email: Some(email),
        enabled: true,
        rest,
        ..User::default()
    };
    let user = match admin.create_user(&new).await {
        Ok(user) => user,
        // A profile with attributes that administrators must give, a policy of the realm's own.
        Err(AdminError::Unexpected {
            status: 400, excerpt, ..
        }) => {
            let text = format!("the realm refuses the check's own user, so no hold was tried: {excerpt}");
            return Ok(vec![Finding::error("canary-refused", text)]);
        }
        Err(error) => return Err(error),
    };
    let levels = input.all_levels();
    let gates = desired::gates(input, snapshot, record, &levels);
    let mut canary = Canary {
        admin,
        snapshot,
        gates,
        user,
        findings: Vec::new(),
    };
    let outcome = canary.tour(&levels, report).await;
    let deleted = admin.delete_user(&canary.user).await;
    outcome?;
    deleted?;
    Ok(canary.findings)
}

impl Canary<'_> {
    async fn tour(&mut self, levels: &BTreeSet<Level>, report: Report<'_>) -> Result<(), AdminError> {
        let total = levels.len() + 2;
        report(1, total, "every client, a free account");
        self.look(None).await?;
        for (place, level) in levels.iter().enumerate() {
            report(
                place + 2,
                total,
                &format!("every client, an account held at {level}"),
            );
            if self.hold(level).await? {
                self.look(Some(level)).await?;
                self.lift(level).await?;
            }
        }
        report(total, total, "every client, the account lifted");
        self.look(None).await
    }

    fn default_role(&self) -> Role {
        self.snapshot.default_role().clone()
    }

    async fn effective(&self) -> Result<BTreeSet<String>, AdminError> {
        let roles = self.admin.effective_realm_roles(&self.user).await?;
        Ok(roles.into_iter().map(|role| role.name).collect())
    }

    /// Takes the default role away first: between the two calls the account has no claim at all.
    async fn hold(&mut self, level: &Level) -> Result<bool, AdminError> {
        let Some(group) = self.snapshot.group(&level.path()) else {
            return Ok(false);
        };
        self.admin
            .remove_realm_roles(&self.user, &[self.default_role()])
            .await?;
        self.admin.join_group(&self.user, &group.id).await?;
        let roles = self.effective().await?;
        if roles.contains(FULL) || !roles.contains(&level.object()) {
            let has: Vec<&str> = roles.iter().map(String::as_str).collect();
            let text = format!(
                "a new user cannot be held at {level}: it has {} in the hold",
                has.join(", ")
            );
            self.findings.push(Finding::error("canary-hold", text));
        }
        Ok(true)
    }

    async fn lift(&mut self, level: &Level) -> Result<(), AdminError> {
        if let Some(group) = self.snapshot.group(&level.path()) {
            self.admin.leave_group(&self.user, &group.id).await?;
        }
        self.admin
            .add_realm_roles(&self.user, &[self.default_role()])
            .await?;
        let roles = self.effective().await?;
        if !roles.contains(FULL) || roles.contains(&level.object()) {
            let text = format!("a user held at {level} does not become free by the lift");
            self.findings.push(Finding::error("canary-lift", text));
        }
        Ok(())
    }

    async fn look(&mut self, level: Option<&Level>) -> Result<(), AdminError> {
        let snapshot = self.snapshot;
        for client in snapshot.token_clients().filter(|client| client.enabled) {
            self.look_at(client, level).await?;
        }
        Ok(())
    }

    async fn look_at(&mut self, client: &Client, level: Option<&Level>) -> Result<(), AdminError> {
        let Some(id) = client.id.as_deref() else {
            return Ok(());
        };
        let optional = names_in(client, "optionalClientScopes");
        let asked: Vec<&str> = self
            .gates
            .keys()
            .filter(|scope| optional.contains(*scope))
            .map(String::as_str)
            .collect();
        let asked = std::iter::once("openid")
            .chain(asked)
            .collect::<Vec<_>>()
            .join(" ");
        let token = self.admin.example_access_token(id, &self.user, &asked).await?;
        let state = level.map_or_else(|| "free".to_owned(), |level| format!("held at {level}"));
        let client_id = &client.client_id;
        let wanted = level.map_or_else(|| "full".to_owned(), Level::claim);
        let claim = token.get(CLAIM).and_then(Value::as_str);
        if claim != Some(wanted.as_str()) {
            let seen = claim.map_or_else(|| "no claim".to_owned(), |claim| format!("\"{claim}\""));
            let text =
                format!("client `{client_id}` gives {seen} to an account that is {state}, not \"{wanted}\"");
            self.findings.push(Finding::error("canary-claim", text));
        }
        let words: BTreeSet<&str> = token
            .get("scope")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .split(' ')
            .collect();
        let role = RoleRef::realm(&level.map_or_else(|| FULL.to_owned(), Level::object));
        let open = names_in(client, "defaultClientScopes");
        let shown = |scope: &String| {
            let scope = self.snapshot.scope(scope);
            let hidden = scope.and_then(|scope| scope.attributes.get("include.in.token.scope"));
            hidden.is_none_or(|value| value == "true")
        };
        let assigned = self
            .gates
            .iter()
            .filter(|(scope, _)| open.contains(*scope) || optional.contains(*scope));
        for (scope, roles) in assigned.filter(|(scope, _)| shown(scope)) {
            let (has, may) = (words.contains(scope.as_str()), roles.contains(&role));
            if has != may {
                let gives = if has { "gives" } else { "does not give" };
                let text =
                    format!("client `{client_id}` {gives} scope `{scope}` to an account that is {state}");
                self.findings.push(Finding::error("canary-scope", text));
            }
        }
        Ok(())
    }
}
