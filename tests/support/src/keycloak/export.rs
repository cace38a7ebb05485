//! A realm's configuration as one comparable value.
//!
//! Keycloak's partial export holds the realm, its roles with their composites, groups with their role
//! mappings, clients, client scopes with their mappers and mappings, default scopes, flows and their
//! settings. It leaves out the users, so their roles, groups and required actions are added here, with the
//! events settings, the user profile and the default groups.

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::Realm;

/// Members whose values the server makes up anew for the same configuration.
const VOLATILE: [&str; 5] = ["id", "containerId", "internalId", "keycloakVersion", "_id"];

pub(super) async fn export(realm: &Realm) -> Value {
    let path = "partial-export?exportClients=true&exportGroupsAndRoles=true";
    let exported = realm
        .call(Method::POST, path, None)
        .await
        .expect_success(path)
        .json;
    let whole = json!({
        "realm": exported,
        "events": realm.get("events/config").await,
        "profile": realm.get("users/profile").await,
        "default_groups": realm.get("default-groups").await,
        "users": users(realm).await,
    });
    canonical(whole)
}

async fn users(realm: &Realm) -> Value {
    let mut users = realm
        .get("users?max=1000&briefRepresentation=false")
        .await
        .as_array()
        .cloned()
        .unwrap_or_default();
    for client in realm
        .get("clients?max=1000")
        .await
        .as_array()
        .into_iter()
        .flatten()
    {
        if client["serviceAccountsEnabled"] == true {
            let id = client["id"].as_str().expect("a client id");
            users.push(realm.get(&format!("clients/{id}/service-account-user")).await);
        }
    }
    let mut result = Map::new();
    for user in users {
        let id = user["id"].as_str().expect("a user id");
        let name = user["username"].as_str().expect("a username").to_owned();
        let mut shown = Map::new();
        for member in [
            "email",
            "emailVerified",
            "enabled",
            "attributes",
            "requiredActions",
            "firstName",
            "lastName",
        ] {
            shown.insert(member.to_owned(), user[member].clone());
        }
        shown.insert(
            "roles".to_owned(),
            realm.get(&format!("users/{id}/role-mappings")).await,
        );
        shown.insert(
            "groups".to_owned(),
            realm.get(&format!("users/{id}/groups")).await,
        );
        let credentials = realm.get(&format!("users/{id}/credentials")).await;
        let kinds: Vec<_> = credentials
            .as_array()
            .into_iter()
            .flatten()
            .map(|one| one["type"].clone())
            .collect();
        shown.insert("credentials".to_owned(), json!(kinds));
        result.insert(name, Value::Object(shown));
    }
    Value::Object(result)
}

/// Objects by key, arrays by content (what has an order in Keycloak says so by a `priority`), volatile
/// members dropped.
pub(super) fn canonical(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut sorted: Vec<_> = members
                .into_iter()
                .filter(|(name, _)| !VOLATILE.contains(&name.as_str()))
                .collect();
            sorted.sort_by(|one, other| one.0.cmp(&other.0));
            Value::Object(
                sorted
                    .into_iter()
                    .map(|(name, value)| (name, canonical(value)))
                    .collect(),
            )
        }
        Value::Array(items) => {
            let mut items: Vec<_> = items.into_iter().map(canonical).collect();
            items.sort_by_cached_key(Value::to_string);
            Value::Array(items)
        }
        other => other,
    }
}

/// Where two exports differ, one line each, for the message of a failed comparison.
pub fn differences(one: &Value, other: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare("", one, other, &mut found);
    found
}

fn compare(path: &str, one: &Value, other: &Value, found: &mut Vec<String>) {
    match (one, other) {
        _ if one == other => {}
        (Value::Object(left), Value::Object(right)) => {
            let mut names: Vec<_> = left.keys().chain(right.keys()).collect();
            names.sort();
            names.dedup();
            for name in names {
                let (left, right) = (
                    left.get(name).unwrap_or(&Value::Null),
                    right.get(name).unwrap_or(&Value::Null),
                );
                compare(&format!("{path}/{name}"), left, right, found);
            }
        }
        (Value::Array(left), Value::Array(right)) => {
            found.extend(
                left.iter()
                    .filter(|item| !right.contains(item))
                    .map(|item| format!("{path} - {item}")),
            );
            found.extend(
                right
                    .iter()
                    .filter(|item| !left.contains(item))
                    .map(|item| format!("{path} + {item}")),
            );
            if left.len() != right.len() {
                found.push(format!("{path}: {} items, then {}", left.len(), right.len()));
            }
        }
        _ => found.push(format!("{path}: {one}, then {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::{canonical, differences};
    use serde_json::json;

    #[test]
    fn order_and_ids_do_not_matter() {
        let one = json!({"b": [{"id": "1", "n": "x"}, {"n": "y"}], "a": 1});
        let other = json!({"a": 1, "b": [{"n": "y"}, {"n": "x", "id": "2"}]});
        assert_eq!(canonical(one), canonical(other));
    }

    #[test]
    fn a_difference_is_named_by_its_path() {
        let one = canonical(json!({"a": {"b": [1, 2]}, "c": 1}));
        let other = canonical(json!({"a": {"b": [2, 3]}}));
        assert_eq!(
            differences(&one, &other),
            ["/a/b - 1", "/a/b + 3", "/c: 1, then null"]
        );
    }
}
