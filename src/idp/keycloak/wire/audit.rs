//! What `wire` cannot mend and an operator must know: ways around the gates, and accounts that no
//! hold reaches.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use super::desired::is_ours;
use super::names::{CLAIM, FULL, GROUP, HELD_DEFAULTS, RoleRef};
use super::snapshot::{Component, Snapshot, mappers_of, names_in};
use crate::idp::keycloak::representations::ProtocolMapper;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know; a check succeeds.
    Warning,
    /// A hold may not hold, or tokens say `none` for free accounts; a check fails.
    Error,
}

/// Something that a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// A stable code.
    pub code: &'static str,
    /// What is wrong, and what to do.
    pub text: String,
}

impl Finding {
    pub(super) fn error(code: &'static str, text: String) -> Self {
        Self {
            severity: Severity::Error,
            code,
            text,
        }
    }

    pub(super) fn warning(code: &'static str, text: String) -> Self {
        Self {
            severity: Severity::Warning,
            code,
            text,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.severity {
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        write!(out, "{word} [{}] {}", self.code, self.text)
    }
}

fn sets_claim(mapper: &ProtocolMapper) -> bool {
    mapper
        .config
        .get("claim.name")
        .is_some_and(|claim| claim == CLAIM)
}

/// Mappers of somebody else's that set our claim: two mappers of one claim have no defined order,
/// and the wrong one was seen to win.
#[must_use]
pub fn foreign_claims(snapshot: &Snapshot) -> Vec<String> {
    let scopes = snapshot
        .scopes()
        .iter()
        .filter(|scope| !is_ours(&scope.name))
        .flat_map(|scope| {
            let mappers = scope.protocol_mappers.iter().filter(|mapper| sets_claim(mapper));
            mappers.map(|mapper| format!("client scope `{}`, mapper `{}`", scope.name, mapper.name))
        });
    let clients = snapshot.clients().iter().flat_map(|client| {
        let mappers = mappers_of(client).into_iter().filter(sets_claim);
        mappers.map(|mapper| format!("client `{}`, mapper `{}`", client.client_id, mapper.name))
    });
    let found = scopes.chain(clients);
    found
        .map(|place| format!("{place} sets `{CLAIM}` too: with two mappers either may win; remove it"))
        .collect()
}

/// Whether a mapper puts into ID tokens what the broker has to know of a log-in, and what that is.
fn tells(mapper: &ProtocolMapper) -> Option<&'static str> {
    let set = |name: &str, value: &str| mapper.config.get(name).is_some_and(|is| is == value);
    if !set("id.token.claim", "true") {
        return None;
    }
    match mapper.protocol_mapper.as_str() {
        "oidc-usersessionmodel-note-mapper" if set("claim.name", "auth_time") => Some("auth_time"),
        "oidc-acr-mapper" => Some("acr"),
        _ => None,
    }
}

/// What the ID tokens of the broker's client leave out. Without `auth_time` no log-in counts as one of after a change:
/// whoever had a session cut is not let in again. (`sid` is in every ID token of Keycloak.)
#[must_use]
pub fn login_claims(snapshot: &Snapshot, broker: &str) -> Vec<Finding> {
    let Some(client) = snapshot.client(broker) else {
        return Vec::new();
    };
    let scopes = names_in(client, "defaultClientScopes");
    let of_scopes = snapshot
        .scopes()
        .iter()
        .filter(|scope| scopes.contains(&scope.name));
    let own = mappers_of(client);
    let mappers = of_scopes.flat_map(|scope| &scope.protocol_mappers).chain(&own);
    let told: BTreeSet<&str> = mappers.filter_map(tells).collect();
    [("auth_time", "basic"), ("acr", "acr")]
        .into_iter()
        .filter(|(claim, _)| !told.contains(claim))
        .map(|(claim, scope)| {
            let text = format!(
                "ID tokens of client `{broker}` have no `{claim}`: give it the default client scope `{scope}`; without it a log-in after a change cannot be told from one before, and is refused"
            );
            Finding::error("broker-claims", text)
        })
        .collect()
}

/// Ways other than a direct mapping by which an account has the default role or `reentry-full`: a
/// hold takes the direct mapping away, so accounts reached this way cannot be held.
#[must_use]
pub fn reach(snapshot: &Snapshot) -> Vec<Finding> {
    let default = RoleRef::realm(&snapshot.default_role().name);
    let full = RoleRef::realm(FULL);
    let opens = |roles: BTreeSet<RoleRef>| {
        let all = snapshot.closure(roles);
        [&default, &full]
            .into_iter()
            .find(|role| all.contains(*role))
            .map(ToString::to_string)
    };
    let mut found = Vec::new();
    for group in snapshot
        .groups()
        .into_iter()
        .filter(|group| !group.path.starts_with(&format!("{GROUP}/")))
    {
        if let Some(role) = opens(group.roles()) {
            let text = format!(
                "members of group {} have `{role}` by the group: they cannot be held; unmap it",
                group.path
            );
            found.push(Finding::error("full-by-group", text));
        }
    }
    for (parent, children) in snapshot
        .all_roles()
        .filter(|(parent, children)| *parent != default && !children.is_empty())
    {
        let ours = parent.client.is_none() && (parent.name == HELD_DEFAULTS || is_ours(&parent.name));
        if let Some(role) = opens(children).filter(|_| !ours) {
            let text = format!(
                "whoever has role `{parent}` has `{role}` by it: they cannot be held; take it out of the composite"
            );
            found.push(Finding::error("full-by-composite", text));
        }
    }
    found
}

/// Mappers of identity providers and of user storage that give what decides over holds: an account gets it back at its
/// next log-in, or is held by nobody's decision.
#[must_use]
pub fn given_at_log_in(snapshot: &Snapshot) -> Vec<Finding> {
    let default = RoleRef::realm(&snapshot.default_role().name);
    let decides = |role: &RoleRef| {
        let ours = role.name == FULL || role.name == HELD_DEFAULTS || is_ours(&role.name);
        role.client.is_none() && (ours || *role == default)
    };
    let opens = |roles: BTreeSet<RoleRef>| {
        let mut all = snapshot.closure(roles).into_iter();
        all.find(decides).map(|role| role.to_string())
    };
    let given = |setting: &str| {
        let ours = setting == GROUP || setting.starts_with(&format!("{GROUP}/"));
        let by_group = || opens(snapshot.group(setting)?.roles());
        let role = || snapshot.role(setting).map(|role| RoleRef::realm(&role.name));
        ours.then(|| setting.to_owned())
            .or_else(by_group)
            .or_else(|| opens(BTreeSet::from([role()?])))
    };
    let providers = snapshot.provider_mappers().iter().filter_map(|mapper| {
        let what = mapper
            .config
            .values()
            .flatten()
            .find_map(|setting| given(setting))?;
        let (name, alias) = (&mapper.name, &mapper.identity_provider_alias);
        Some(format!(
            "mapper `{name}` of identity provider `{alias}` gives `{what}`"
        ))
    });
    let directories = snapshot.user_storage().iter().flat_map(|storage| {
        let mappers = storage.sub_components.values().flatten();
        mappers.filter_map(|mapper| {
            let what = mapper
                .config
                .values()
                .flatten()
                .find_map(|setting| given(setting))?;
            let (name, storage) = (&mapper.name, &storage.name);
            Some(format!(
                "mapper `{name}` of user storage `{storage}` gives `{what}`"
            ))
        })
    });
    let said = |what: String| {
        let text = format!("{what}: held accounts get it back at a log-in; take it out of the mapper");
        Finding::error("full-by-mapper", text)
    };
    providers.chain(directories).map(said).collect()
}

/// Does `reentry-held-defaults` bring back what a hold takes away, by way of a child?
#[must_use]
pub fn held_defaults_leak(snapshot: &Snapshot, dropped: &BTreeSet<RoleRef>) -> Vec<Finding> {
    let kept = snapshot.closure(snapshot.children(HELD_DEFAULTS));
    let leaks = dropped
        .iter()
        .chain([&RoleRef::realm(FULL)])
        .filter(|role| kept.contains(*role))
        .cloned()
        .collect::<Vec<_>>();
    leaks
        .into_iter()
        .map(|role| {
            Finding::error(
                "held-defaults",
                format!("`{HELD_DEFAULTS}` brings `{role}` back by one of its children"),
            )
        })
        .collect()
}

/// User storage whose accounts a hold does not reach, or reaches only in part.
#[must_use]
pub fn storage(providers: &[Component]) -> Vec<Finding> {
    let on = |provider: &&Component| provider.setting("enabled") != Some("false");
    providers.iter().filter(on).flat_map(provider).collect()
}

fn provider(provider: &Component) -> Vec<Finding> {
    let name = &provider.name;
    let mut found = Vec::new();
    if provider.setting("importEnabled") == Some("false") {
        let text = format!(
            "user storage `{name}` does not import: Keycloak takes no group, no role and no switch for its users (or gives the default role at every read), so its own tokens cannot be held; a hold ends their sessions again and again and is an alarm with the account's id, and only the broker, introspection and live checks restrict; import users"
        );
        found.push(Finding::error("storage-not-imported", text));
    } else if !matches!(provider.provider_id.as_str(), "ldap" | "kerberos") {
        let text = format!(
            "user storage `{name}` is of kind `{}`: try a hold on one of its users before you rely on it",
            provider.provider_id
        );
        found.push(Finding::warning("storage-unknown", text));
    }
    let mappers = provider.sub_components.values().flatten();
    let only = mappers.filter(|mapper| {
        matches!(
            mapper.provider_id.as_str(),
            "role-ldap-mapper" | "group-ldap-mapper"
        ) && mapper.setting("mode") == Some("LDAP_ONLY")
    });
    for mapper in only {
        let text = format!(
            "mapper `{}` of user storage `{name}` is in mode LDAP_ONLY: it hides our roles and groups, so its users read `none` and cannot be held; use READ_ONLY",
            mapper.name
        );
        found.push(Finding::error("storage-ldap-only", text));
    }
    if provider.setting("editMode") == Some("READ_ONLY") {
        let text = format!(
            "user storage `{name}` is read-only: its users can be held, but their passwords and addresses cannot be set back from here"
        );
        found.push(Finding::warning("storage-read-only", text));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ldap(config: &serde_json::Value, mapper: &serde_json::Value) -> Vec<Finding> {
        let component = serde_json::json!({
            "name": "corp", "providerId": "ldap", "config": config,
            "subComponents": {"org.keycloak.storage.ldap.mappers.LDAPStorageMapper": [mapper]},
        });
        serde_json::from_value(component)
            .map(|component: Component| storage(&[component]))
            .unwrap_or_default()
    }

    fn codes(found: &[Finding]) -> Vec<&str> {
        found.iter().map(|finding| finding.code).collect()
    }

    #[test]
    fn read_only_storage_and_hiding_mappers_are_found() {
        let quiet = serde_json::json!({"name": "mail", "providerId": "user-attribute-ldap-mapper"});
        let hiding = serde_json::json!({"name": "roles", "providerId": "role-ldap-mapper", "config": {"mode": ["LDAP_ONLY"]}});
        let writable = serde_json::json!({"editMode": ["WRITABLE"], "importEnabled": ["true"]});
        let read_only = serde_json::json!({"editMode": ["READ_ONLY"]});
        let direct = serde_json::json!({"importEnabled": ["false"], "editMode": ["WRITABLE"]});
        let off = serde_json::json!({"importEnabled": ["false"], "enabled": ["false"]});
        assert!(ldap(&writable, &quiet).is_empty());
        assert_eq!(codes(&ldap(&writable, &hiding)), ["storage-ldap-only"]);
        assert_eq!(codes(&ldap(&read_only, &quiet)), ["storage-read-only"]);
        assert_eq!(codes(&ldap(&direct, &quiet)), ["storage-not-imported"]);
        assert!(ldap(&off, &hiding).is_empty());
    }
}
