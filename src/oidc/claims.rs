//! Which claims go out, and how they read. The IdP's pass by an allow-list; ours are always there (ISS-1).

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::domain::ceiling::Ceiling;
use crate::domain::entitlement::{Entitlement, Issued};
use crate::domain::policy::claims::{SCOPED, may_pass};
use crate::domain::session::Session;

/// What of an IdP's ID token is kept with the session: the allow-list without what is reserved and what is a right.
#[must_use]
pub fn kept(upstream: &Map<String, Value>, allowed: &BTreeSet<String>) -> String {
    let pass = |name: &str| allowed.contains(name) && may_pass(name);
    let kept: Map<String, Value> = upstream
        .iter()
        .filter(|(n, _)| pass(n))
        .map(|(n, v)| (n.clone(), v.clone()))
        .collect();
    Value::Object(kept).to_string()
}

/// The IdP's claims that go out now: what the policy lets through today and the scopes ask for. In a contact hold no
/// address is verified: applications link accounts by it (contract section 3).
#[must_use]
pub fn passed(
    session: &Session,
    allowed: &BTreeSet<String>,
    scopes: &BTreeSet<String>,
    contact_hold: bool,
) -> Map<String, Value> {
    let all: Map<String, Value> = serde_json::from_str(&session.claims).unwrap_or_default();
    let asked = |name: &str| {
        SCOPED
            .iter()
            .all(|(scope, names)| !names.contains(&name) || scopes.contains(*scope))
    };
    let mut out: Map<String, Value> = all
        .into_iter()
        .filter(|(n, _)| allowed.contains(n) && may_pass(n) && asked(n))
        .collect();
    if contact_hold {
        unverified(&mut out);
    }
    out
}

/// What a token itself says of its owner, when the session cannot be read; no address counts as verified then.
#[must_use]
pub fn unread(token: &Map<String, Value>, allowed: &BTreeSet<String>) -> Map<String, Value> {
    let mut out: Map<String, Value> = token
        .iter()
        .filter(|(n, _)| allowed.contains(*n) && may_pass(n))
        .map(|(n, v)| (n.clone(), v.clone()))
        .collect();
    unverified(&mut out);
    out
}

/// Roles and groups as they are now: what is there is replaced, and what has become empty is taken away (ISS-13). The
/// same in access token, ID token, userinfo and introspection.
pub fn rights(out: &mut Map<String, Value>, entitlement: &Entitlement) {
    for (name, values) in [("roles", &entitlement.roles), ("groups", &entitlement.groups)] {
        out.remove(name);
        if !values.is_empty() {
            out.insert(name.to_owned(), json!(values));
        }
    }
}

/// Says that no address is verified.
pub fn unverified(claims: &mut Map<String, Value>) {
    for (address, verified) in [
        ("email", "email_verified"),
        ("phone_number", "phone_number_verified"),
    ] {
        if claims.contains_key(address) || claims.contains_key(verified) {
            claims.insert(verified.to_owned(), json!(false));
        }
    }
}

/// `auth_time`, `acr`, and `amr` for ID tokens: the IdP's words, never ours.
#[must_use]
pub fn authentication(session: &Session, with_amr: bool) -> Map<String, Value> {
    let mut out = Map::new();
    if let Some(at) = session.auth_time {
        out.insert("auth_time".to_owned(), json!(at.secs()));
    }
    if let Some(acr) = &session.acr {
        out.insert("acr".to_owned(), json!(acr));
    }
    if with_amr && !session.amr.is_empty() {
        out.insert("amr".to_owned(), json!(session.amr));
    }
    out
}

/// The claims of the contract, section 1.
#[must_use]
pub fn recovery(entitlement: &Entitlement, alias: Option<&str>) -> Map<String, Value> {
    let mut out = Map::new();
    let scope = json!(entitlement.recovery_scope.to_string());
    if let Some(alias) = alias {
        out.insert(alias.to_owned(), scope.clone());
    }
    out.insert("recovery_scope".to_owned(), scope);
    out.insert("recovery_epoch".to_owned(), json!(entitlement.recovery_epoch));
    if let Some(until) = entitlement.recovery_until {
        out.insert("recovery_until".to_owned(), json!(until.secs_ceil()));
    }
    if let Some(reference) = &entitlement.recovery_ref {
        out.insert("recovery_ref".to_owned(), json!(reference));
    }
    out
}

/// What a token says about itself; a ceiling that is missing or malformed is `none` (contract section 2, rule 3).
#[must_use]
pub fn issued(claims: &Map<String, Value>) -> Issued {
    let ceiling = claims
        .get("recovery_scope")
        .and_then(Value::as_str)
        .and_then(Ceiling::parse);
    let epoch = claims.get("recovery_epoch").and_then(Value::as_i64);
    Issued {
        ceiling: ceiling.unwrap_or_else(Ceiling::none),
        epoch: epoch.unwrap_or(0),
    }
}

/// Words of a set, as OAuth writes them: `openid` first, the rest in order.
#[must_use]
pub fn words(set: &BTreeSet<String>) -> String {
    let first = set.iter().filter(|w| *w == "openid");
    let rest = set.iter().filter(|w| *w != "openid");
    first
        .chain(rest)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Words of a space-delimited claim.
#[must_use]
pub fn set(claims: &Map<String, Value>, name: &str) -> BTreeSet<String> {
    match claims.get(name) {
        Some(Value::String(text)) => text
            .split(' ')
            .filter(|w| !w.is_empty())
            .map(str::to_owned)
            .collect(),
        Some(Value::Array(values)) => values
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
        _ => BTreeSet::new(),
    }
}
