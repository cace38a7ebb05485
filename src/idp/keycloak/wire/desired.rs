//! What a wired realm holds, object by object.

use std::collections::{BTreeMap, BTreeSet};

use super::WirePlanInput;
use super::change::NewClient;
use super::names::{CLAIM, DEFAULT_ROLE_ID, DEFAULT_ROLE_NAME, FULL, HELD_DEFAULTS, Level, RECORD, RoleRef};
use super::record::Record;
use super::snapshot::Snapshot;
use crate::idp::keycloak::representations::{Attributes, ClientScope, ProtocolMapper};

/// Roles of `realm-management` that the run-time account has, no more and no less.
pub const RUNTIME_ROLES: [&str; 4] = ["manage-users", "query-users", "view-events", "view-users"];

/// The one that an operator may add: it shows client roles, and client secrets. Given when asked for, and left where it
/// is.
pub const VIEW_CLIENTS: &str = "view-clients";

/// Roles that the run-time account gets.
pub fn runtime_roles(input: &WirePlanInput) -> impl Iterator<Item = &'static str> {
    let asked = input.view_clients.then_some(VIEW_CLIENTS);
    RUNTIME_ROLES.into_iter().chain(asked)
}

/// Shortest retention of events, in seconds: 60 days, twice the longest hold.
pub const RETENTION: i64 = 60 * 86_400;

/// User events that are read. `_ERROR` twins only where they say something.
pub const EVENT_TYPES: [&str; 29] = [
    "CUSTOM_REQUIRED_ACTION",
    "DELETE_ACCOUNT",
    "EXECUTE_ACTIONS",
    "EXECUTE_ACTION_TOKEN",
    "EXECUTE_ACTION_TOKEN_ERROR",
    "FEDERATED_IDENTITY_LINK",
    "FEDERATED_IDENTITY_OVERRIDE_LINK",
    "IDENTITY_PROVIDER_FIRST_LOGIN",
    "IMPERSONATE",
    "LOGIN",
    "LOGIN_ERROR",
    "LOGOUT",
    "REGISTER",
    "REMOVE_CREDENTIAL",
    "REMOVE_FEDERATED_IDENTITY",
    "REMOVE_TOTP",
    "RESET_PASSWORD",
    "RESET_PASSWORD_ERROR",
    "SEND_RESET_PASSWORD",
    "SEND_RESET_PASSWORD_ERROR",
    "SEND_VERIFY_EMAIL",
    "UPDATE_CREDENTIAL",
    "UPDATE_EMAIL",
    "UPDATE_PASSWORD",
    "UPDATE_PROFILE",
    "UPDATE_TOTP",
    "USER_DISABLED_BY_PERMANENT_LOCKOUT",
    "USER_DISABLED_BY_TEMPORARY_LOCKOUT",
    "VERIFY_EMAIL",
];

/// Client scopes that carry identity or plumbing and stay in a hold: the identity set of the
/// contract (ISS-4) and what Keycloak itself makes.
pub const UNGATED: [&str; 17] = [
    "AuthnContextClassRef",
    "acr",
    "address",
    "basic",
    "email",
    "microprofile-jwt",
    "offline_access",
    "openid",
    "organization",
    "phone",
    "profile",
    "role_list",
    "roles",
    "saml_organization",
    "service_account",
    "web-origins",
    "did",
];

/// Is this a scope of our own?
#[must_use]
pub fn is_ours(scope: &str) -> bool {
    scope == FULL || scope.starts_with("reentry-hold.")
}

/// The plain roles, each with what it is for.
#[must_use]
pub fn plain_roles(levels: &BTreeSet<Level>) -> Vec<(String, String)> {
    let full = (
        FULL.to_owned(),
        "Held by every account that is not in a recovery hold.".to_owned(),
    );
    let holds = levels.iter().map(|level| {
        (
            level.object(),
            format!(
                "Held by accounts in a recovery hold that allows: {}.",
                level.claim()
            ),
        )
    });
    std::iter::once(full).chain(holds).collect()
}

/// Each scope of ours with the role that opens it.
#[must_use]
pub fn scopes(levels: &BTreeSet<Level>) -> Vec<(ClientScope, RoleRef)> {
    // The word `reentry-full` says nothing that the claim does not; a hold shows in `scope` too,
    // so that a tampered realm cannot hide it (contract, section 2 rule 5).
    let full = (claim_scope(FULL, "full", false), RoleRef::realm(FULL));
    let holds = levels.iter().map(|level| {
        (
            claim_scope(&level.object(), &level.claim(), true),
            RoleRef::realm(&level.object()),
        )
    });
    std::iter::once(full).chain(holds).collect()
}

/// A client scope with one hard-coded claim.
fn claim_scope(name: &str, value: &str, in_scope: bool) -> ClientScope {
    let text = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    };
    let mapper = ProtocolMapper {
        id: None,
        name: CLAIM.to_owned(),
        protocol: Some("openid-connect".to_owned()),
        protocol_mapper: "oidc-hardcoded-claim-mapper".to_owned(),
        config: text(&[
            ("claim.name", CLAIM),
            ("claim.value", value),
            ("jsonType.label", "String"),
            ("access.token.claim", "true"),
            ("id.token.claim", "true"),
            ("userinfo.token.claim", "true"),
            ("introspection.token.claim", "true"),
            ("lightweight.claim", "true"),
            ("access.tokenResponse.claim", "false"),
        ]),
    };
    ClientScope {
        id: None,
        name: name.to_owned(),
        description: Some(format!(
            "Says what tokens may be used for after an account recovery: {value}."
        )),
        protocol: Some("openid-connect".to_owned()),
        // Shown on the consent screen, it would make refreshes fail for who consented before.
        attributes: text(&[
            ("include.in.token.scope", if in_scope { "true" } else { "false" }),
            ("display.on.consent.screen", "false"),
        ]),
        protocol_mappers: vec![mapper],
    }
}

/// What a held account keeps of the default role, as the default role is now.
#[must_use]
pub fn held_defaults(snapshot: &Snapshot, dropped: &BTreeSet<RoleRef>) -> BTreeSet<RoleRef> {
    let mut children = snapshot.children(&snapshot.default_role().name);
    children.retain(|child| *child != RoleRef::realm(FULL) && !dropped.contains(child));
    children
}

/// Roles that a level's group maps.
#[must_use]
pub fn group_roles(level: &Level) -> BTreeSet<RoleRef> {
    BTreeSet::from([RoleRef::realm(&level.object()), RoleRef::realm(HELD_DEFAULTS)])
}

/// Attributes of the root group: what the run-time account must know and may not read elsewhere.
#[must_use]
pub fn root_attributes(snapshot: &Snapshot) -> Attributes {
    let role = snapshot.default_role();
    BTreeMap::from([
        (
            DEFAULT_ROLE_ID.to_owned(),
            vec![role.id.clone().unwrap_or_default()],
        ),
        (DEFAULT_ROLE_NAME.to_owned(), vec![role.name.clone()]),
    ])
}

/// Each scope to gate with the roles that open it: full, and the levels that allow every class the
/// scope is listed under.
#[must_use]
pub fn gates(
    input: &WirePlanInput,
    snapshot: &Snapshot,
    record: &Record,
    levels: &BTreeSet<Level>,
) -> BTreeMap<String, BTreeSet<RoleRef>> {
    let mut classes: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (class, scopes) in &input.scopes {
        for scope in scopes {
            classes.entry(scope).or_default().insert(class);
        }
    }
    let mut gates = BTreeMap::new();
    for (scope, classes) in classes {
        if snapshot.scope(scope).is_none() {
            continue;
        }
        let open = levels
            .iter()
            .filter(|level| classes.iter().all(|class| level.allows(class)));
        let roles = open
            .map(|level| RoleRef::realm(&level.object()))
            .chain([RoleRef::realm(FULL)]);
        gates.insert(scope.to_owned(), roles.collect());
    }
    if input.gate_unlisted {
        for scope in unlisted(input, snapshot, record) {
            gates.insert(scope, BTreeSet::from([RoleRef::realm(FULL)]));
        }
    }
    gates
}

/// OAuth scopes of the realm that no action class lists: words that clients see in `scope`, not
/// mere bags of mappers, and not of the identity set.
#[must_use]
pub fn unlisted(input: &WirePlanInput, snapshot: &Snapshot, record: &Record) -> Vec<String> {
    let listed: BTreeSet<&String> = input.scopes.values().flatten().collect();
    let open = snapshot.scopes().iter().filter(|scope| {
        scope.protocol.as_deref() == Some("openid-connect")
            && scope
                .attributes
                .get("include.in.token.scope")
                .is_none_or(|value| value == "true")
            && !UNGATED.contains(&scope.name.as_str())
            && !is_ours(&scope.name)
            && !listed.contains(&scope.name)
    });
    // A scope that depends on roles of the customer's own is conditional already.
    let ours = |scope: &str, role: &RoleRef| {
        *role == RoleRef::realm(FULL) || record.gates.get(scope).is_some_and(|ours| ours.contains(role))
    };
    let open = open.filter(|scope| {
        snapshot
            .gate(&scope.name)
            .iter()
            .all(|role| ours(&scope.name, role))
    });
    open.map(|scope| scope.name.clone()).collect()
}

/// The client of the run-time service account.
#[must_use]
pub fn runtime_client(client_id: &str, record: String) -> NewClient {
    NewClient {
        client_id: client_id.to_owned(),
        name: "Reentry".to_owned(),
        description: "run-time account of Reentry; reads events and users, holds and lifts".to_owned(),
        protocol: "openid-connect",
        enabled: true,
        public_client: false,
        standard_flow_enabled: false,
        implicit_flow_enabled: false,
        direct_access_grants_enabled: false,
        service_accounts_enabled: true,
        full_scope_allowed: true,
        redirect_uris: Vec::new(),
        attributes: BTreeMap::from([(RECORD.to_owned(), record)]),
    }
}

/// The client by which Reentry, as a broker, is a relying party of this realm.
#[must_use]
pub fn broker_client(broker: &super::BrokerClient) -> NewClient {
    let mut attributes = BTreeMap::from([
        ("pkce.code.challenge.method".to_owned(), "S256".to_owned()),
        // Where a browser comes back to from Keycloak's log-out page.
        (
            "post.logout.redirect.uris".to_owned(),
            format!("{}/logout", broker.redirect_uri),
        ),
    ]);
    if let Some(url) = &broker.backchannel_logout {
        attributes.insert("backchannel.logout.url".to_owned(), url.to_string());
        attributes.insert(
            "backchannel.logout.session.required".to_owned(),
            "true".to_owned(),
        );
    }
    NewClient {
        client_id: broker.client_id.clone(),
        name: "Reentry broker".to_owned(),
        description: "Reentry as a relying party of this realm, for its own relying parties".to_owned(),
        protocol: "openid-connect",
        enabled: true,
        public_client: false,
        standard_flow_enabled: true,
        implicit_flow_enabled: false,
        direct_access_grants_enabled: false,
        service_accounts_enabled: false,
        full_scope_allowed: true,
        redirect_uris: vec![broker.redirect_uri.to_string()],
        attributes,
    }
}
