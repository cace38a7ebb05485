//! What a realm looks like now, read by one partial export: roles with their composites, groups,
//! client scopes with mappers and role mappings, clients, flows and event settings, all of one
//! moment. Seen on 26.7.4: the export tells an empty list of event types (the server's defaults)
//! from a full one, `GET events/config` does not.

mod exported;

use std::collections::{BTreeMap, BTreeSet};

pub use self::exported::{Component, Composites, ExportedGroup, ExportedRole, RequiredAction};
use self::exported::{Export, ScopeMapping};
use super::names::RoleRef;
use crate::idp::keycloak::admin::{Admin, AdminError};
use crate::idp::keycloak::administrators::{MANAGEMENT, undoes};
use crate::idp::keycloak::representations::{Client, ClientScope, ProtocolMapper, Role};

/// What the run-time account may do, as mapped to its user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuntimeAccount {
    /// Id of the service account's user.
    pub user: String,
    /// Roles mapped to it.
    pub roles: BTreeSet<RoleRef>,
    /// Paths of the groups it is in.
    pub groups: Vec<String>,
}

/// A realm at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    export: Export,
    /// The run-time account, when its client exists.
    pub runtime: Option<RuntimeAccount>,
    /// Event types that the server knows.
    pub known_event_types: BTreeSet<String>,
    /// Accounts to which a role of a client is mapped with which one could undo a hold, the run-time account aside.
    pub administrators: BTreeSet<String>,
}

/// The first call for a realm that is not there, or that the administrator does not see.
fn no_realm(admin: &Admin, error: AdminError) -> AdminError {
    match error {
        AdminError::NotFound { .. } => AdminError::NotFound {
            what: format!(
                "the realm `{}`: write its name as the console shows it (`realm` of the upstream, or --realm), and the server's base URL without a path of the realm (`url`, --url)",
                admin.realm_name()
            ),
        },
        other => other,
    }
}

impl Snapshot {
    /// Reads the realm. Roles: `manage-realm` and `manage-clients` (an administrator's credential).
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn read(admin: &Admin, runtime_client: &str) -> Result<Self, AdminError> {
        let value = admin
            .partial_export()
            .await
            .map_err(|error| no_realm(admin, error))?;
        let export: Export = serde_json::from_value(value).map_err(|error| AdminError::Malformed {
            what: "POST partial-export".to_owned(),
            reason: error.to_string(),
        })?;
        let mut snapshot = Self {
            export,
            runtime: None,
            known_event_types: BTreeSet::new(),
            administrators: BTreeSet::new(),
        };
        snapshot.known_event_types = admin
            .server_info()
            .await?
            .enums
            .remove("eventType")
            .unwrap_or_default()
            .into_iter()
            .collect();
        let account = snapshot
            .client(runtime_client)
            .filter(|client| client.rest.get("serviceAccountsEnabled") == Some(&true.into()))
            .and_then(|client| client.id.clone());
        if let Some(id) = account {
            snapshot.runtime = Some(runtime_account(admin, &id).await?);
        }
        snapshot.administrators = administrators(admin, &snapshot).await?;
        Ok(snapshot)
    }

    /// Name of the realm.
    #[must_use]
    pub fn realm(&self) -> &str {
        &self.export.realm
    }

    /// Version of the server, such as `26.7.4`.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.export.keycloak_version.as_deref()
    }

    /// The composite that every user gets; never looked up by name.
    #[must_use]
    pub fn default_role(&self) -> &Role {
        &self.export.default_role
    }

    /// A realm role.
    #[must_use]
    pub fn role(&self, name: &str) -> Option<&ExportedRole> {
        self.export.roles.realm.iter().find(|role| role.name == name)
    }

    /// Direct children of a realm role; empty when there is no such role.
    #[must_use]
    pub fn children(&self, name: &str) -> BTreeSet<RoleRef> {
        self.role(name).map(ExportedRole::children).unwrap_or_default()
    }

    /// Every realm role: its id and its name.
    pub fn realm_roles(&self) -> impl Iterator<Item = (&str, &str)> + '_ {
        let roles = self.export.roles.realm.iter();
        roles.map(|role| (role.id.as_str(), role.name.as_str()))
    }

    /// Every role with its direct children.
    pub fn all_roles(&self) -> impl Iterator<Item = (RoleRef, BTreeSet<RoleRef>)> + '_ {
        let realm = self
            .export
            .roles
            .realm
            .iter()
            .map(|role| (RoleRef::realm(&role.name), role.children()));
        let client = self.export.roles.client.iter().flat_map(|(id, roles)| {
            roles
                .iter()
                .map(|role| (RoleRef::client(id, &role.name), role.children()))
        });
        realm.chain(client)
    }

    /// Everything that somebody with `roles` has in effect.
    #[must_use]
    pub fn closure(&self, roles: impl IntoIterator<Item = RoleRef>) -> BTreeSet<RoleRef> {
        let children: BTreeMap<RoleRef, BTreeSet<RoleRef>> = self.all_roles().collect();
        let mut found: BTreeSet<RoleRef> = BTreeSet::new();
        let mut open: Vec<RoleRef> = roles.into_iter().collect();
        while let Some(role) = open.pop() {
            if let Some(below) = children.get(&role) {
                open.extend(below.iter().filter(|child| !found.contains(*child)).cloned());
            }
            found.insert(role);
        }
        found
    }

    /// Every group, children after their parents.
    #[must_use]
    pub fn groups(&self) -> Vec<&ExportedGroup> {
        let mut all = Vec::new();
        let mut open: Vec<&ExportedGroup> = self.export.groups.iter().collect();
        while let Some(group) = open.pop() {
            open.extend(group.sub_groups.iter());
            all.push(group);
        }
        all
    }

    /// The group at a path.
    #[must_use]
    pub fn group(&self, path: &str) -> Option<&ExportedGroup> {
        self.groups().into_iter().find(|group| group.path == path)
    }

    /// All clients.
    #[must_use]
    pub fn clients(&self) -> &[Client] {
        &self.export.clients
    }

    /// Clients that get tokens from this realm.
    pub fn token_clients(&self) -> impl Iterator<Item = &Client> + '_ {
        self.export.clients.iter().filter(|client| {
            client
                .protocol
                .as_deref()
                .is_none_or(|protocol| protocol == "openid-connect")
                && !client.bearer_only
        })
    }

    /// The client with this `client_id`.
    #[must_use]
    pub fn client(&self, client_id: &str) -> Option<&Client> {
        self.export
            .clients
            .iter()
            .find(|client| client.client_id == client_id)
    }

    /// All client scopes.
    #[must_use]
    pub fn scopes(&self) -> &[ClientScope] {
        &self.export.client_scopes
    }

    /// A client scope.
    #[must_use]
    pub fn scope(&self, name: &str) -> Option<&ClientScope> {
        self.export.client_scopes.iter().find(|scope| scope.name == name)
    }

    /// Roles in a client scope's role mappings.
    #[must_use]
    pub fn gate(&self, scope: &str) -> BTreeSet<RoleRef> {
        let of = |mapping: &&ScopeMapping| mapping.client_scope.as_deref() == Some(scope);
        let realm = self.export.scope_mappings.iter().filter(of);
        let realm = realm.flat_map(|mapping| mapping.roles.iter().map(|name| RoleRef::realm(name)));
        let client = self
            .export
            .client_scope_mappings
            .iter()
            .flat_map(|(id, mappings)| {
                let roles = mappings
                    .iter()
                    .filter(of)
                    .flat_map(|mapping| mapping.roles.iter());
                roles.map(|name| RoleRef::client(id, name))
            });
        realm.chain(client).collect()
    }

    /// Scopes that new clients get by default.
    #[must_use]
    pub fn realm_default_scopes(&self) -> &BTreeSet<String> {
        &self.export.default_default_client_scopes
    }

    /// Are user events stored?
    #[must_use]
    pub fn events_enabled(&self) -> bool {
        self.export.events_enabled
    }

    /// Seconds that user events are kept; `None` = for ever.
    #[must_use]
    pub fn events_expiration(&self) -> Option<i64> {
        self.export.events_expiration.filter(|seconds| *seconds > 0)
    }

    /// Types that are stored; empty = the server's defaults, which hold all that are needed here.
    #[must_use]
    pub fn event_types(&self) -> &BTreeSet<String> {
        &self.export.enabled_event_types
    }

    /// Listeners of the event log.
    #[must_use]
    pub fn event_listeners(&self) -> &BTreeSet<String> {
        &self.export.events_listeners
    }

    /// Are admin events stored?
    #[must_use]
    pub fn admin_events_enabled(&self) -> bool {
        self.export.admin_events_enabled
    }

    /// Do admin events carry what was sent?
    #[must_use]
    pub fn admin_events_details(&self) -> bool {
        self.export.admin_events_details_enabled.unwrap_or_default()
    }

    /// An attribute of the realm.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.export.attributes.get(name).and_then(Option::as_deref)
    }

    /// Alias of the flow of "Forgot password?".
    #[must_use]
    pub fn reset_flow(&self) -> Option<&str> {
        self.export.reset_credentials_flow.as_deref()
    }

    /// What one password policy is set to, such as the days of `forceExpiredPasswordChange`.
    #[must_use]
    pub fn password_policy(&self, name: &str) -> Option<i64> {
        let all = self.export.password_policy.as_deref()?;
        let found = all
            .split(" and ")
            .find_map(|policy| policy.trim().strip_prefix(name));
        let value = found?.trim().strip_prefix('(')?.strip_suffix(')')?;
        value.trim().parse().ok()
    }

    /// Actions that people may have to take at a log-in.
    #[must_use]
    pub fn required_actions(&self) -> &[RequiredAction] {
        &self.export.required_actions
    }

    /// Seconds that a link in a reset mail lives, the longest that is set for it.
    #[must_use]
    pub fn reset_lifespan(&self) -> i64 {
        let of_its_own = self.attribute("actionTokenGeneratedByUserLifespan.reset-credentials");
        let of_its_own = of_its_own.and_then(|seconds| seconds.parse().ok());
        of_its_own
            .or(self.export.action_token_generated_by_user_lifespan)
            .unwrap_or(300)
    }

    /// Seconds that a link in an administrator's mail lives, unless the administrator says otherwise.
    #[must_use]
    pub fn admin_lifespan(&self) -> i64 {
        self.export
            .action_token_generated_by_admin_lifespan
            .unwrap_or(43_200)
    }

    /// Does everybody who forgot a password get Keycloak's own mail?
    #[must_use]
    pub fn resets_by_mail(&self) -> bool {
        let alias = self.reset_flow().unwrap_or("reset credentials");
        let flow = self
            .export
            .authentication_flows
            .iter()
            .find(|flow| flow.alias == alias);
        let executions = flow.into_iter().flat_map(|flow| &flow.authentication_executions);
        executions
            .filter(|execution| execution.requirement.as_deref() == Some("REQUIRED"))
            .any(|execution| execution.authenticator.as_deref() == Some("reset-credential-email"))
    }

    /// Is there a flow of this alias?
    #[must_use]
    pub fn has_flow(&self, alias: &str) -> bool {
        self.export
            .authentication_flows
            .iter()
            .any(|flow| flow.alias == alias)
    }

    /// Does this reset flow end without a log-in for everybody (*Force login after reset*)?
    #[must_use]
    pub fn forces_login(&self, alias: &str) -> bool {
        self.flow_config(alias, "reset-credential-email")
            .is_some_and(|config| config.get("force-login").and_then(Option::as_deref) == Some("true"))
    }

    fn flow_config(&self, alias: &str, authenticator: &str) -> Option<&BTreeMap<String, Option<String>>> {
        let mut open = vec![alias];
        let mut seen = BTreeSet::new();
        while let Some(alias) = open.pop() {
            if !seen.insert(alias) {
                continue;
            }
            let flow = self
                .export
                .authentication_flows
                .iter()
                .find(|flow| flow.alias == alias)?;
            for execution in &flow.authentication_executions {
                if execution.authenticator.as_deref() == Some(authenticator) {
                    let config = execution.authenticator_config.as_deref()?;
                    let found = self
                        .export
                        .authenticator_config
                        .iter()
                        .find(|entry| entry.alias == config);
                    return found.map(|entry| &entry.config);
                }
                open.extend(execution.flow_alias.as_deref());
            }
        }
        None
    }

    /// User storage providers.
    #[must_use]
    pub fn user_storage(&self) -> &[Component] {
        let kind = "org.keycloak.storage.UserStorageProvider";
        self.export
            .components
            .get(kind)
            .map(Vec::as_slice)
            .unwrap_or_default()
    }
}

/// A list of names in a client's representation.
#[must_use]
pub fn names_in(client: &Client, member: &str) -> BTreeSet<String> {
    let list = client.rest.get(member).and_then(|value| value.as_array());
    list.into_iter()
        .flatten()
        .filter_map(|name| name.as_str())
        .map(str::to_owned)
        .collect()
}

/// Mappers of a client's own.
#[must_use]
pub fn mappers_of(client: &Client) -> Vec<ProtocolMapper> {
    let mappers = client.rest.get("protocolMappers").cloned().unwrap_or_default();
    serde_json::from_value(mappers).unwrap_or_default()
}

/// Users per page.
const PAGE: u32 = 500;

async fn administrators(admin: &Admin, snapshot: &Snapshot) -> Result<BTreeSet<String>, AdminError> {
    let own = snapshot.runtime.as_ref().map(|account| account.user.as_str());
    let undoing = |role: &RoleRef| {
        let all = snapshot.closure([role.clone()]);
        all.iter()
            .any(|role| role.client.as_deref() == Some(MANAGEMENT) && undoes(&role.name))
    };
    let roles = snapshot.all_roles().map(|(role, _)| role).filter(undoing);
    let mut found = BTreeSet::new();
    for role in roles {
        let client = role.client.as_deref().and_then(|client| snapshot.client(client));
        let Some(client) = client.and_then(|client| client.id.as_deref()) else {
            continue;
        };
        let users = admin.users_with_client_role(client, &role.name, 0, PAGE).await?;
        found.extend(users.read.into_iter().filter_map(|user| user.id));
    }
    found.retain(|id| Some(id.as_str()) != own);
    Ok(found)
}

async fn runtime_account(admin: &Admin, client: &str) -> Result<RuntimeAccount, AdminError> {
    let user = admin.service_account(client).await?.id.unwrap_or_default();
    let mappings = admin.role_mappings(&user).await?;
    let realm = mappings
        .realm_mappings
        .iter()
        .map(|role| RoleRef::realm(&role.name));
    let of_clients = mappings.client_mappings.values();
    let of_clients = of_clients.flat_map(|of| {
        of.mappings
            .iter()
            .map(|role| RoleRef::client(&of.client, &role.name))
    });
    let roles = realm.chain(of_clients).collect();
    let groups = admin.user_groups(&user).await?;
    let groups = groups
        .into_iter()
        .map(|group| group.path.unwrap_or(group.name))
        .collect();
    Ok(RuntimeAccount { user, roles, groups })
}
