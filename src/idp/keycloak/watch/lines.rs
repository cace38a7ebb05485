//! One line of the log of admin events: does it change what holds rest on?
//!
//! Wiring writes lines of its own, and raises no alarm as long as it makes what is missing: roles, scopes and groups of
//! ours, a gate of a scope by our own roles, `reentry-full` as a child of the default role. Taking away and changing
//! always does.

use serde_json::Value;

use super::{path, roles};
use crate::idp::keycloak::act::Layout;
use crate::idp::keycloak::representations::AdminEvent;
use crate::idp::keycloak::wire::desired::is_ours;
use crate::idp::keycloak::wire::names::{CLAIM, FULL, HELD_DEFAULTS};

/// What a line did.
pub(super) struct Line {
    /// For people.
    pub(super) why: &'static str,
    /// Held accounts have to be compared.
    pub(super) doubt: bool,
}

const fn touched(why: &'static str) -> Line {
    Line { why, doubt: false }
}

const fn doubtful(why: &'static str) -> Line {
    Line { why, doubt: true }
}

/// Judges one line by another's hand, of an act that succeeded.
pub(super) fn judge(event: &AdminEvent, layout: &Layout) -> Option<Line> {
    let path = path(event);
    let creates = event.operation_type == "CREATE";
    match path.as_slice() {
        ["client-scopes" | "client-templates", id, rest @ ..] => scope(event, id, rest, layout),
        ["default-default-client-scopes", id] if !creates && is_scope(layout, id) => {
            Some(touched("new clients no longer get a scope of ours"))
        }
        ["default-optional-client-scopes", id] if creates && is_scope(layout, id) => Some(touched(
            "new clients get a scope of ours only when they ask for it",
        )),
        ["clients", _, "default-client-scopes", id] if !creates && is_scope(layout, id) => Some(touched(
            "a client no longer gets a scope of ours, so its tokens carry no claim or another's",
        )),
        ["clients", _, "optional-client-scopes", id] if creates && is_scope(layout, id) => {
            Some(touched("a client gets a scope of ours only when it asks for it"))
        }
        ["clients", _, "protocol-mappers", ..] if event.operation_type != "DELETE" && claims(event) => {
            Some(touched("a client has a mapper of its own for our claim"))
        }
        ["clients", _] if creates && claims(event) => {
            Some(touched("a client was made with a mapper for our claim"))
        }
        ["roles", name] if !creates && layout.decides(name) => {
            Some(doubtful("a role that holds rest on was changed"))
        }
        ["roles-by-id", id] if !creates && layout.decides_by_id(id) => {
            Some(doubtful("a role that holds rest on was changed"))
        }
        ["roles", name, "composites", ..] => composite(event, layout.decides(name), Some(name), layout),
        ["roles-by-id", id, "composites", ..] => {
            // By its id alone the default role is not told from the others: what was sent decides.
            composite(event, layout.decides_by_id(id), None, layout)
        }
        ["clients", _, "roles", _, "composites", ..] => composite(event, false, None, layout),
        ["groups", id, "role-mappings", "realm"] => mapping(event, id, layout),
        ["groups", id] if !creates && layout.is_ours(id) => {
            Some(doubtful("a group that holds rest on was changed or deleted"))
        }
        ["identity-provider", "instances", ..]
            if event.operation_type != "DELETE" && gives(event, layout) =>
        {
            Some(doubtful(
                "whoever signs in by way of that identity provider gets what decides over holds",
            ))
        }
        ["components", ..] if event.operation_type != "DELETE" && gives(event, layout) => Some(doubtful(
            "the accounts of a directory get what decides over holds",
        )),
        _ => None,
    }
}

fn is_scope(layout: &Layout, id: &str) -> bool {
    layout
        .noted
        .as_ref()
        .is_some_and(|noted| noted.scopes.contains_key(id))
}

/// Whether what was sent has a mapper that sets our claim.
fn claims(event: &AdminEvent) -> bool {
    let sent = event.representation.as_deref().unwrap_or_default();
    let sent: Value = serde_json::from_str(sent).unwrap_or_default();
    let sets = |mapper: &Value| {
        let config = mapper.get("config").and_then(|config| config.get("claim.name"));
        config.and_then(Value::as_str) == Some(CLAIM)
    };
    let inside = sent.get("protocolMappers").and_then(Value::as_array);
    let listed = sent.as_array();
    sets(&sent) || inside.into_iter().chain(listed).flatten().any(sets)
}

/// Whether the settings that were sent name a role or a group that decides what a held account is issued.
fn gives(event: &AdminEvent, layout: &Layout) -> bool {
    let sent = event.representation.as_deref().unwrap_or_default();
    let sent: Value = serde_json::from_str(sent).unwrap_or_default();
    sent.get("config").is_some_and(|config| names(config, layout))
}

fn names(setting: &Value, layout: &Layout) -> bool {
    match setting {
        Value::String(text) => layout.decides(text) || layout.groups().contains_key(text),
        Value::Array(list) => list.iter().any(|one| names(one, layout)),
        Value::Object(members) => members.values().any(|one| names(one, layout)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// A client scope, its mappers, its gate.
fn scope(event: &AdminEvent, id: &str, rest: &[&str], layout: &Layout) -> Option<Line> {
    let creates = event.operation_type == "CREATE";
    let sent = roles(event);
    let name = layout.noted.as_ref().and_then(|noted| noted.scopes.get(id));
    let gated = layout
        .noted
        .as_ref()
        .is_some_and(|noted| noted.gates.contains(id));
    match (rest, name) {
        // The gate of a scope of ours is the role of its own name, and no other.
        (["scope-mappings", ..], Some(name)) if creates && sent.iter().all(|role| role.name == *name) => None,
        ([], None) if creates => None,
        (["scope-mappings", ..], None) => {
            let ours = |name: &str| is_ours(name);
            let opened = gated && creates && !sent.iter().all(|role| ours(&role.name));
            let taken = !creates && sent.iter().any(|role| ours(&role.name));
            if opened || taken {
                Some(touched("a scope that our roles open was opened in another way"))
            } else {
                None
            }
        }
        (_, Some(_)) => Some(touched(
            "a scope of ours was changed: its claim may say anything now",
        )),
        (_, None) if layout.noted.is_none() && unknown(event) => {
            Some(touched("a scope was changed that looks like one of ours"))
        }
        (["protocol-mappers", ..], None) if event.operation_type != "DELETE" && claims(event) => {
            Some(touched("another scope has a mapper for our claim"))
        }
        _ => None,
    }
}

/// Whether a line speaks of us, where `wire` wrote no ids down.
fn unknown(event: &AdminEvent) -> bool {
    let sent = event.representation.as_deref().unwrap_or_default();
    sent.contains(CLAIM) || sent.contains("\"reentry-")
}

/// Children of a role.
fn composite(event: &AdminEvent, ours: bool, parent: Option<&str>, layout: &Layout) -> Option<Line> {
    let children = roles(event);
    if event.operation_type == "CREATE" {
        let default = parent.is_none() || parent == layout.default_role_name();
        if ours && default && children.iter().all(|role| role.name == FULL) {
            return None;
        }
        let brings = children.iter().any(|role| layout.decides(&role.name));
        // A gate must be plain; what held accounts keep is compared by reconcile.
        let gate = ours && parent.is_some_and(is_ours);
        return if brings || gate {
            Some(doubtful(
                "a role brings what only accounts outside a hold have, or opens a gate of ours",
            ))
        } else {
            None
        };
    }
    let taken = ours && (parent != Some(HELD_DEFAULTS) || children.is_empty());
    let full = children.is_empty() || children.iter().any(|role| layout.decides(&role.name));
    if taken && full {
        Some(doubtful("a role that holds rest on lost what it brought"))
    } else {
        None
    }
}

/// Roles of a group.
fn mapping(event: &AdminEvent, id: &str, layout: &Layout) -> Option<Line> {
    let sent = roles(event);
    let creates = event.operation_type == "CREATE";
    let brings = |name: &str| layout.decides(name);
    if !layout.is_ours(id) {
        return if creates && sent.iter().any(|role| brings(&role.name)) {
            Some(doubtful("members of a group get what decides over holds"))
        } else {
            None
        };
    }
    let own = layout.level_of(id).map(|level| format!("reentry-hold.{level}"));
    let expected = |name: &str| Some(name) == own.as_deref() || name == HELD_DEFAULTS;
    if creates && sent.iter().all(|role| expected(&role.name)) {
        return None;
    }
    Some(doubtful("the roles of a group that holds rest on were changed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(operation: &str, path: &str, sent: &Value) -> AdminEvent {
        serde_json::from_value(serde_json::json!({
            "id": "e", "time": 1, "operationType": operation, "resourcePath": path,
            "representation": sent.to_string(),
        }))
        .unwrap()
    }

    fn alarms(operation: &str, path: &str, sent: &Value) -> bool {
        judge(&line(operation, path, sent), &Layout::of_tests()).is_some()
    }

    #[test]
    fn an_ordinary_save_is_no_alarm() {
        let client = serde_json::json!({
            "clientId": "shop", "description": "new", "defaultClientScopes": ["basic", "reentry-full", "reentry-hold.read"],
        });
        assert!(!alarms("UPDATE", "clients/c-1", &client));
        let realm = serde_json::json!({"displayName": "new", "defaultRole": {"name": "default-roles-shop"}});
        assert!(!alarms("UPDATE", "", &realm));
        let named = serde_json::json!({"name": "about-reentry-full", "description": "reentry-hold.read"});
        assert!(!alarms("UPDATE", "roles/about-reentry-full", &named));
        assert!(!alarms("UPDATE", "client-scopes/other", &named));
    }

    #[test]
    fn lines_that_carry_ids_alone_are_known_by_them() {
        let nothing = Value::Null;
        let mapper = serde_json::json!({"name": "x", "config": {"claim.value": "full"}});
        assert!(alarms(
            "UPDATE",
            "client-scopes/s-hold/protocol-mappers/models/m",
            &mapper
        ));
        assert!(alarms(
            "DELETE",
            "clients/c-1/default-client-scopes/s-hold",
            &nothing
        ));
        assert!(!alarms(
            "DELETE",
            "clients/c-1/default-client-scopes/s-other",
            &nothing
        ));
        assert!(alarms("DELETE", "default-default-client-scopes/s-full", &nothing));
        assert!(alarms("DELETE", "roles-by-id/r-full", &nothing));
        assert!(alarms("DELETE", "groups/g-root", &nothing));
        assert!(alarms(
            "UPDATE",
            "groups/g-read",
            &serde_json::json!({"name": "other"})
        ));
        assert!(!alarms("DELETE", "groups/g-other", &nothing));
    }

    // What a provider or a directory gives at every log-in no line about an account tells of.
    #[test]
    fn mappers_that_give_what_decides_over_holds_are_an_alarm() {
        let mapper = |setting: &str, value: &str| {
            serde_json::json!({
                "name": "reentry-full", "identityProviderAlias": "up",
                "identityProviderMapper": "oidc-hardcoded-role-idp-mapper",
                "config": {"syncMode": "FORCE", setting: value},
            })
        };
        let below = "identity-provider/instances/up/mappers/m-1";
        for operation in ["CREATE", "UPDATE"] {
            for role in ["reentry-full", "reentry-hold.read", "default-roles-shop"] {
                assert!(alarms(operation, below, &mapper("role", role)), "{role}");
            }
            assert!(alarms(operation, below, &mapper("group", "/reentry/hold.read")));
            assert!(!alarms(operation, below, &mapper("role", "staff")));
            assert!(!alarms(operation, below, &mapper("group", "/staff")));
        }
        assert!(!alarms("DELETE", below, &mapper("role", "reentry-full")));
        let provider = "identity-provider/instances/up";
        assert!(alarms("UPDATE", provider, &mapper("anything", "reentry-full")));
        let of_directory = serde_json::json!({
            "providerId": "hardcoded-ldap-role-mapper", "config": {"role": ["reentry-full"]},
        });
        assert!(alarms("CREATE", "components/c-1", &of_directory));
        let other = serde_json::json!({"providerId": "ldap", "config": {"vendor": ["other"]}});
        assert!(!alarms("UPDATE", "components/c-1", &other));
    }

    #[test]
    fn a_mapper_for_our_claim_is_an_alarm_wherever_it_is_made() {
        let mapper = |claim: &str| serde_json::json!({"name": "x", "config": {"claim.name": claim}});
        let (ours, other) = (mapper(CLAIM), mapper("department"));
        for path in [
            "clients/c-1/protocol-mappers/models",
            "client-scopes/s-other/protocol-mappers/models",
        ] {
            assert!(alarms("CREATE", path, &ours), "{path}");
            assert!(!alarms("CREATE", path, &other), "{path}");
        }
        let several = serde_json::json!([other, ours]);
        assert!(alarms(
            "CREATE",
            "clients/c-1/protocol-mappers/add-models",
            &several
        ));
        let client = |mappers: &Value| serde_json::json!({"clientId": "shop", "protocolMappers": mappers});
        assert!(alarms("CREATE", "clients/c-2", &client(&several)));
        assert!(!alarms(
            "CREATE",
            "clients/c-2",
            &client(&serde_json::json!([other]))
        ));
        assert!(!alarms("DELETE", "clients/c-1/protocol-mappers/models/m", &ours));
    }

    #[test]
    fn full_rights_by_another_way_are_an_alarm_and_wiring_is_none() {
        let full = serde_json::json!([{"name": "reentry-full"}]);
        assert!(alarms("CREATE", "roles/staff/composites", &full));
        assert!(alarms("CREATE", "roles-by-id/staff/composites", &full));
        assert!(alarms("CREATE", "groups/g-other/role-mappings/realm", &full));
        assert!(alarms("CREATE", "groups/g-read/role-mappings/realm", &full));
        assert!(!alarms("CREATE", "roles/default-roles-shop/composites", &full));
        assert!(!alarms("CREATE", "roles-by-id/r-default/composites", &full));
        assert!(alarms("DELETE", "roles/default-roles-shop/composites", &full));
        assert!(!alarms(
            "CREATE",
            "client-scopes/s-full/scope-mappings/realm",
            &full
        ));
        assert!(alarms(
            "CREATE",
            "client-scopes/s-hold/scope-mappings/realm",
            &full
        ));
        assert!(!alarms(
            "CREATE",
            "client-scopes/s-payments/scope-mappings/realm",
            &full
        ));
        let staff = serde_json::json!([{"name": "staff"}]);
        assert!(alarms(
            "CREATE",
            "client-scopes/s-payments/scope-mappings/realm",
            &staff
        ));
        assert!(!alarms(
            "CREATE",
            "client-scopes/s-other/scope-mappings/realm",
            &staff
        ));
        let hold = serde_json::json!([{"name": "reentry-hold.read"}, {"name": "reentry-held-defaults"}]);
        assert!(!alarms("CREATE", "groups/g-read/role-mappings/realm", &hold));
        assert!(!alarms("CREATE", "roles/staff/composites", &staff));
    }
}
