//! Who may administer the realm, and so undo a hold of its own.
//!
//! Client roles, those of `realm-management` among them, are shown to an account that has `view-clients`; from one with
//! the four roles of the run-time account the server hides them without an error. An administrator must not pass for an
//! ordinary user then without a word. So what the log of admin events tells counts instead, which `view-events` is
//! enough for: who was given such a role, and who acted as an administrator. That is as far as the log goes back, so
//! what is not seen is said as well ([`blind_spot`]), by `doctor` and once in the audit log.

use std::collections::BTreeSet;

use futures_util::future::try_join;

use super::Keycloak;
use super::admin::{Admin, AdminError, AdminEventQuery, ClientRole, Direction, Own, text};
use super::representations::{AdminEvent, Role};

/// The client whose roles administer a realm.
const MANAGEMENT: &str = "realm-management";
/// Roles of [`MANAGEMENT`] with which an account could undo its own hold.
const UNDOING: [&str; 6] = [
    "realm-admin",
    "manage-users",
    "manage-realm",
    "manage-clients",
    "manage-authorization",
    "impersonation",
];
/// Stands for the roles of somebody whose acts the log shows: it does not say by which role they were allowed.
const ACTED: &str = "seen-acting";
/// Roles of our own that show us the client roles of others.
const SEEING: [&str; 2] = ["view-clients", "manage-clients"];
/// Lines about an account's client roles that are read.
const LINES: u32 = 200;

/// Whether our own roles show us the client roles of others. A token that names no roles at all shows nothing.
fn sees(own: &Own) -> bool {
    SEEING.iter().any(|role| own.roles.contains(*role))
}

/// What cannot be seen of administrators, with what to do.
pub(super) fn blind_spot(client: &str, own: &Own) -> Option<String> {
    (!sees(own)).then(|| {
        format!(
            "the service account of `{client}` lacks view-clients of realm-management, so Keycloak hides from us who administers the realm: `held_admins` and tiers by client roles reach only administrators whom the log of admin events names, others are held like any account and could lift their own hold; run `reentry wire keycloak --view-clients` (it can then read client secrets), or keep administrators in a realm of their own"
        )
    })
}

/// Client roles of an account in effect; where they are hidden from us, what the log tells of them.
pub(super) async fn client_roles(keycloak: &Keycloak, sub: &str) -> Result<Vec<ClientRole>, AdminError> {
    let admin = &keycloak.admin;
    if sees(&admin.own().await?) {
        admin.effective_client_roles(sub).await
    } else {
        by_log(admin, sub).await
    }
}

/// Those of `roles` with which an account could undo its own hold.
pub(super) fn undoing(roles: Vec<ClientRole>) -> Vec<String> {
    let undo = |of: &ClientRole| {
        of.client == MANAGEMENT && (of.role == ACTED || UNDOING.contains(&of.role.as_str()))
    };
    roles.into_iter().filter(undo).map(|of| of.role).collect()
}

async fn by_log(admin: &Admin, sub: &str) -> Result<Vec<ClientRole>, AdminError> {
    let mapped = AdminEventQuery {
        resource_path: Some(format!("users/{sub}/role-mappings/clients/*")),
        direction: Direction::Descending,
        max: LINES,
        ..AdminEventQuery::default()
    };
    let acts = AdminEventQuery {
        actor: Some(sub.to_owned()),
        direction: Direction::Descending,
        max: 1,
        ..AdminEventQuery::default()
    };
    let (mapped, acts) = try_join(admin.admin_events(&mapped), admin.admin_events(&acts)).await?;
    let mut roles = given(&mapped);
    if !acts.is_empty() {
        roles.insert(ACTED.to_owned());
    }
    let of_management = |role| ClientRole {
        role,
        client: MANAGEMENT.to_owned(),
    };
    Ok(roles.into_iter().map(of_management).collect())
}

/// Administrators' roles that were given and not taken since; newest lines first. The log names the client by an id
/// that we cannot look up, so a role of that name counts, whoever's it is.
fn given(mapped: &[AdminEvent]) -> BTreeSet<String> {
    let mut settled = BTreeSet::new();
    let mut given = BTreeSet::new();
    for event in mapped.iter().filter(|event| event.error.is_none()) {
        let sent = event.representation.as_deref().unwrap_or_default();
        let roles: Vec<Role> = text::read(sent.as_bytes()).unwrap_or_default();
        for role in roles.into_iter().map(|role| role.name) {
            if UNDOING.contains(&role.as_str())
                && settled.insert(role.clone())
                && event.operation_type == "CREATE"
            {
                given.insert(role);
            }
        }
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(operation: &str, roles: &str) -> AdminEvent {
        let event = serde_json::json!({
            "id": "1", "time": 1, "operationType": operation, "resourcePath": "users/u/role-mappings/clients/c",
            "representation": roles,
        });
        serde_json::from_value(event).unwrap()
    }

    #[test]
    fn the_newest_line_about_a_role_decides() {
        let manage = r#"[{"name":"manage-users"},{"name":"customer"}]"#;
        let realm = r#"[{"name":"realm-admin"}]"#;
        let newest_first = [
            line("DELETE", manage),
            line("CREATE", realm),
            line("CREATE", manage),
        ];
        assert_eq!(given(&newest_first), BTreeSet::from(["realm-admin".to_owned()]));
        assert_eq!(given(&[line("CREATE", "no JSON")]), BTreeSet::new());
    }

    #[test]
    fn without_view_clients_somebody_is_told_what_to_do() {
        let own = |roles: &[&str]| Own {
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            ..Own::default()
        };
        let four = ["manage-users", "query-users", "view-events", "view-users"];
        assert!(
            blind_spot("reentry", &own(&four))
                .unwrap()
                .contains("--view-clients")
        );
        assert!(
            blind_spot("reentry", &own(&[])).is_some(),
            "a token that says nothing shows nothing"
        );
        assert_eq!(blind_spot("reentry", &own(&["view-users", "view-clients"])), None);
    }
}
