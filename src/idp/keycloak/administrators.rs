//! Who may administer the realm, and so undo a hold of its own: by effect, however it came to be.
//!
//! Client roles, those of `realm-management` among them, are shown to an account that has `view-clients`, whether they
//! come from a mapping, a group or a role inside another one. From an account with the four roles of the run-time account
//! the server hides them without an error. An administrator must not pass for an ordinary user then without a word. So
//! three other things speak: what `wire` wrote down of the realm when it was wired (groups and realm roles that bring such
//! rights, accounts that have them by themselves); what the log of admin events tells since, of accounts, of groups and of
//! roles inside roles; and who acted as an administrator. What is not seen is said as well ([`blind_spot`]), by `doctor`
//! and once in the audit log.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures_util::future::{try_join, try_join3};

use super::account::Logs;
use super::admin::{AdminError, AdminEventQuery, ClientRole, Direction, Own, text};
use super::representations::{AdminEvent, Group, Role};
use super::wire::noted::Noted;
use super::{Keycloak, act, fresh};

/// The client whose roles administer a realm.
pub(super) const MANAGEMENT: &str = "realm-management";
/// Roles of [`MANAGEMENT`] with which an account could undo its own hold, or hide that it did, or make itself another
/// account that is not held.
const UNDOING: [&str; 9] = [
    "create-client",
    "impersonation",
    "manage-authorization",
    "manage-clients",
    "manage-events",
    "manage-identity-providers",
    "manage-realm",
    "manage-users",
    "realm-admin",
];
/// Stands for the roles of somebody whose acts the log shows: it does not say by which role they were allowed.
const ACTED: &str = "seen-acting";
/// Stands for the roles of somebody who has them by way of a group, of another role, or since before the log begins.
const REACHES: &str = "administrator";
/// Roles of our own that show us the client roles of others.
const SEEING: [&str; 2] = ["view-clients", "manage-clients"];
/// How long an account's client roles count as read just now.
const OF_LATE: Duration = Duration::from_secs(5);
/// Accounts of which that is remembered.
const MOST_OF_LATE: usize = 1_000;
/// Lines about an account's client roles that are read.
const LINES: u32 = 200;
/// Lines about groups and roles that are read.
const WIDE: u32 = 500;

/// Whether with a role of [`MANAGEMENT`] one could undo a hold.
pub(super) fn undoes(role: &str) -> bool {
    UNDOING.contains(&role)
}

/// Whether our own roles show us the client roles of others. A token that names no roles at all shows nothing.
pub(super) fn sees(own: &Own) -> bool {
    SEEING.iter().any(|role| own.roles.contains(*role))
}

/// What cannot be seen of administrators and of what clients issue, with what to do.
pub(super) fn blind_spot(client: &str, own: &Own) -> Option<String> {
    (!sees(own)).then(|| {
        format!(
            "the service account of `{client}` lacks view-clients of realm-management, so Keycloak hides from us who administers the realm, and what clients would issue: `held_admins` and tiers by client roles reach only administrators that `reentry wire keycloak` noted and whom the log of admin events names since, others are held like any account and could lift their own hold; a changed mapper or scope is known by the log alone; run `reentry wire keycloak --view-clients` (it can then read client secrets), or keep administrators in a realm of their own"
        )
    })
}

/// The client roles of an account in effect, as [`client_roles`] or, where the account was read a moment ago, as that
/// reading had them.
pub(super) async fn roles_of_late(
    keycloak: &Keycloak,
    sub: &str,
    seen: (&[Group], &[Role]),
) -> Result<Vec<ClientRole>, AdminError> {
    let known = keycloak.believed.lock().await.client_roles.get(sub).cloned();
    match known.filter(|(read, _)| read.elapsed() < OF_LATE) {
        Some((_, roles)) => Ok(roles),
        None => client_roles(keycloak, sub, seen, None).await,
    }
}

/// Remembers the client roles of an account that was read just now, for the act that follows.
pub(super) async fn remember(keycloak: &Keycloak, sub: &str, roles: &[ClientRole]) {
    let mut believed = keycloak.believed.lock().await;
    if believed.client_roles.len() >= MOST_OF_LATE {
        believed.client_roles.clear();
    }
    let now = (Instant::now(), roles.to_vec());
    believed.client_roles.insert(sub.to_owned(), now);
}

/// Client roles of an account in effect; where they are hidden from us, what was noted and what the log tells of them:
/// the `logs` that were read of it, or those that are asked for now.
pub(super) async fn client_roles(
    keycloak: &Keycloak,
    sub: &str,
    (groups, effective): (&[Group], &[Role]),
    logs: Option<&Logs>,
) -> Result<Vec<ClientRole>, AdminError> {
    let admin = &keycloak.admin;
    if sees(&admin.own().await?) {
        let management = management(keycloak).await?;
        // The console's own list leaves out what a realm role brings; the client's list does not.
        let of_management = async {
            match &management {
                Some(id) => admin.effective_roles_of_client(sub, id).await,
                None => Ok(Vec::new()),
            }
        };
        let (mut roles, of_management) = try_join(admin.effective_client_roles(sub), of_management).await?;
        for role in of_management.into_iter().map(of_management_client) {
            if !roles.contains(&role) {
                roles.push(role);
            }
        }
        return Ok(roles);
    }
    let mut roles = by_log(keycloak, sub, logs).await?;
    let given = given_widely(keycloak).await?;
    let layout = act::layout(keycloak).await.unwrap_or_default();
    if given.reach(layout.noted.as_ref(), sub, groups, effective) {
        roles.push(of_management_client(Role {
            name: REACHES.to_owned(),
            ..Role::default()
        }));
    }
    Ok(roles)
}

fn of_management_client(role: Role) -> ClientRole {
    ClientRole {
        role: role.name,
        client: MANAGEMENT.to_owned(),
    }
}

/// Internal id of [`MANAGEMENT`].
async fn management(keycloak: &Keycloak) -> Result<Option<String>, AdminError> {
    if let Some(id) = fresh(keycloak.believed.lock().await.management.as_ref()) {
        return Ok(Some(id));
    }
    let client = keycloak.admin.client_by_client_id(MANAGEMENT).await?;
    let Some(id) = client.and_then(|client| client.id) else {
        return Ok(None);
    };
    keycloak.believed.lock().await.management = Some((Instant::now(), id.clone()));
    Ok(Some(id))
}

/// Those of `roles` with which an account could undo its own hold.
pub(super) fn undoing(roles: Vec<ClientRole>) -> Vec<String> {
    let undo = |of: &ClientRole| {
        of.client == MANAGEMENT && (of.role == ACTED || of.role == REACHES || undoes(&of.role))
    };
    roles.into_iter().filter(undo).map(|of| of.role).collect()
}

async fn by_log(keycloak: &Keycloak, sub: &str, logs: Option<&Logs>) -> Result<Vec<ClientRole>, AdminError> {
    let admin = &keycloak.admin;
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
    let mapped = async {
        match logs {
            Some(logs) => logs.acts(keycloak, &mapped).await,
            None => admin.admin_events(&mapped).await,
        }
    };
    let (mapped, acts) = try_join(mapped, admin.admin_events(&acts)).await?;
    let mut roles = given(&mapped);
    if !acts.is_empty() {
        roles.insert(ACTED.to_owned());
    }
    let named = |name| Role {
        name,
        ..Role::default()
    };
    Ok(roles.into_iter().map(named).map(of_management_client).collect())
}

/// Administrators' roles that were given and not taken since; newest lines first. The log names the client by an id
/// that we cannot look up, so a role of that name counts, whoever's it is.
fn given(mapped: &[AdminEvent]) -> BTreeSet<String> {
    let mut settled = BTreeSet::new();
    let mut given = BTreeSet::new();
    for event in mapped.iter().filter(|event| event.error.is_none()) {
        for role in sent(event).into_iter().map(|role| role.name) {
            if undoes(&role) && settled.insert(role.clone()) && event.operation_type == "CREATE" {
                given.insert(role);
            }
        }
    }
    given
}

fn sent(event: &AdminEvent) -> Vec<Role> {
    let sent = event.representation.as_deref().unwrap_or_default();
    text::read(sent.as_bytes()).unwrap_or_default()
}

/// Groups and roles to which the log says that an administrator's rights were given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Given {
    /// Ids of groups.
    groups: BTreeSet<String>,
    /// Names or ids of roles: a line names its role by either.
    roles: BTreeSet<String>,
    /// What was put into which role: name or id, and the names of its new children.
    inside: BTreeMap<String, BTreeSet<String>>,
}

impl Given {
    /// Lines, newest first. What was taken away again by the newest line about it is not given.
    fn read(lines: &[AdminEvent]) -> Self {
        let mut read = Self::default();
        let mut settled = BTreeSet::new();
        for event in lines.iter().filter(|event| event.error.is_none()) {
            let path = event.resource_path.as_deref().unwrap_or_default();
            let path: Vec<&str> = path.split('/').collect();
            let creates = event.operation_type == "CREATE";
            for role in sent(event) {
                let whom = match path.as_slice() {
                    ["groups", id, "role-mappings", "clients", _] => ("group", *id),
                    ["roles" | "roles-by-id", role, "composites", ..] => ("role", *role),
                    _ => continue,
                };
                if !settled.insert((whom, role.name.clone())) || !creates {
                    continue;
                }
                match whom {
                    ("group", id) if undoes(&role.name) => {
                        read.groups.insert(id.to_owned());
                    }
                    ("group", _) => {}
                    (_, parent) if role.client_role && undoes(&role.name) => {
                        read.roles.insert(parent.to_owned());
                    }
                    (_, parent) => {
                        let inside = read.inside.entry(parent.to_owned()).or_default();
                        inside.insert(role.name);
                    }
                }
            }
        }
        read
    }

    /// Whether an account has an administrator's rights by what is noted of the realm and by what was given since.
    fn reach(&self, noted: Option<&Noted>, sub: &str, groups: &[Group], effective: &[Role]) -> bool {
        if noted.is_some_and(|noted| noted.users.contains(sub)) {
            return true;
        }
        let mut undoing: BTreeSet<&str> = self.roles.iter().map(String::as_str).collect();
        undoing.extend(
            noted
                .into_iter()
                .flat_map(|noted| noted.undoing.iter().map(String::as_str)),
        );
        // A role inside a role inside a role.
        while let Some((parent, _)) = self.inside.iter().find(|(parent, children)| {
            !undoing.contains(parent.as_str())
                && children.iter().any(|child| undoing.contains(child.as_str()))
        }) {
            undoing.insert(parent);
        }
        let by_role = effective.iter().any(|role| {
            undoing.contains(role.name.as_str()) || role.id.as_deref().is_some_and(|id| undoing.contains(id))
        });
        let by_group = groups.iter().any(|group| {
            let id = group.id.as_deref().unwrap_or_default();
            let path = group.path.as_deref().unwrap_or_default();
            // What a group has, those below it have, too.
            let below = |noted: &Noted| {
                let above = |of: &String| {
                    path.strip_prefix(of.as_str())
                        .is_some_and(|rest| rest.starts_with('/'))
                };
                noted.groups.contains_key(id) || noted.groups.values().filter(|of| !of.is_empty()).any(above)
            };
            self.groups.contains(id) || noted.is_some_and(below)
        });
        by_role || by_group
    }
}

/// What the log says of groups and roles, read at most once a minute.
async fn given_widely(keycloak: &Keycloak) -> Result<Given, AdminError> {
    if let Some(given) = fresh(keycloak.believed.lock().await.given.as_ref()) {
        return Ok(given);
    }
    let about = |path: &str| AdminEventQuery {
        resource_path: Some(path.to_owned()),
        direction: Direction::Descending,
        max: WIDE,
        ..AdminEventQuery::default()
    };
    let admin = &keycloak.admin;
    let (groups, roles, by_id) = (
        // A star stands at the end only; which of these lines speak of rights is seen when they are read.
        about("groups/*"),
        about("roles/*"),
        about("roles-by-id/*"),
    );
    let (groups, roles, by_id) = try_join3(
        admin.admin_events(&groups),
        admin.admin_events(&roles),
        admin.admin_events(&by_id),
    )
    .await?;
    let mut lines = [groups, roles, by_id].concat();
    lines.sort_by_key(|event| std::cmp::Reverse(event.time));
    let given = Given::read(&lines);
    keycloak.believed.lock().await.given = Some((Instant::now(), given.clone()));
    Ok(given)
}

/// Somebody gave roles to a group or to another role: what is believed of that is of before.
pub(super) async fn forget(keycloak: &Keycloak) {
    keycloak.believed.lock().await.given = None;
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
    fn rights_that_come_by_a_group_or_inside_a_role_are_seen() {
        let at = |operation: &str, path: &str, roles: &str| {
            let mut event = line(operation, roles);
            event.resource_path = Some(path.to_owned());
            event
        };
        let manage = r#"[{"name":"manage-users","clientRole":true}]"#;
        let group = |id: &str, path: &str| Group {
            id: Some(id.to_owned()),
            path: Some(path.to_owned()),
            ..Group::default()
        };
        let role = |name: &str| Role {
            id: Some(format!("id of {name}")),
            name: name.to_owned(),
            ..Role::default()
        };
        let given = Given::read(&[
            at("CREATE", "groups/g1/role-mappings/clients/c", manage),
            at("DELETE", "groups/g2/role-mappings/clients/c", manage),
            at("CREATE", "groups/g2/role-mappings/clients/c", manage),
            at("CREATE", "roles/boss/composites", manage),
            at(
                "CREATE",
                "roles-by-id/id of chief/composites",
                r#"[{"name":"boss"}]"#,
            ),
            at("CREATE", "roles/clerk/composites", r#"[{"name":"manage-users"}]"#),
        ]);
        let reach = |groups: &[Group], roles: &[Role]| given.reach(None, "u", groups, roles);
        assert!(reach(&[group("g1", "/a")], &[]));
        assert!(!reach(&[group("g2", "/b")], &[]), "taken away again");
        assert!(reach(&[], &[role("boss")]));
        assert!(reach(&[], &[role("chief")]));
        assert!(!reach(&[], &[role("clerk")]), "a realm role of that name");
        let noted = Noted {
            groups: BTreeMap::from([("g9".to_owned(), "/admins".to_owned())]),
            undoing: BTreeSet::from(["staff".to_owned()]),
            users: BTreeSet::from(["carl".to_owned()]),
            ..Noted::default()
        };
        let nothing = Given::default();
        let reach =
            |sub: &str, groups: &[Group], roles: &[Role]| nothing.reach(Some(&noted), sub, groups, roles);
        assert!(reach("u", &[group("g9", "/renamed")], &[]));
        assert!(reach("u", &[group("g8", "/admins/night")], &[]));
        assert!(!reach("u", &[group("g8", "/admins-of-old")], &[]));
        assert!(reach("u", &[], &[role("staff")]));
        assert!(reach("carl", &[], &[]));
        assert!(!reach("u", &[], &[]));
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
