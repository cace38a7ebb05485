//! The members of a partial export that are read.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::super::names::RoleRef;
use crate::idp::keycloak::representations::{Attributes, Client, ClientScope, Role};

/// Children of a composite role.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Composites {
    pub(super) realm: BTreeSet<String>,
    pub(super) client: BTreeMap<String, BTreeSet<String>>,
}

/// A role as exported.
#[derive(Debug, Clone, Deserialize)]
pub struct ExportedRole {
    /// Id.
    #[serde(default)]
    pub id: String,
    /// Name.
    pub name: String,
    #[serde(default)]
    pub(super) composites: Composites,
}

impl ExportedRole {
    /// Direct children.
    #[must_use]
    pub fn children(&self) -> BTreeSet<RoleRef> {
        refs(&self.composites.realm, &self.composites.client)
    }
}

fn refs<'a>(
    realm: impl IntoIterator<Item = &'a String>,
    client: &BTreeMap<String, BTreeSet<String>>,
) -> BTreeSet<RoleRef> {
    let realm = realm.into_iter().map(|name| RoleRef::realm(name));
    let client = client
        .iter()
        .flat_map(|(id, names)| names.iter().map(|name| RoleRef::client(id, name)));
    realm.chain(client).collect()
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Roles {
    pub(super) realm: Vec<ExportedRole>,
    pub(super) client: BTreeMap<String, Vec<ExportedRole>>,
}

/// A group as exported, with its children.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ExportedGroup {
    /// Id.
    pub id: String,
    /// Last segment of the path.
    pub name: String,
    /// Path from the root.
    pub path: String,
    /// Attributes.
    pub attributes: Attributes,
    pub(super) realm_roles: BTreeSet<String>,
    pub(super) client_roles: BTreeMap<String, BTreeSet<String>>,
    /// Children.
    pub sub_groups: Vec<ExportedGroup>,
}

impl ExportedGroup {
    /// Roles mapped to the group itself.
    #[must_use]
    pub fn roles(&self) -> BTreeSet<RoleRef> {
        refs(&self.realm_roles, &self.client_roles)
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ScopeMapping {
    pub(super) client_scope: Option<String>,
    pub(super) roles: BTreeSet<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Execution {
    pub(super) authenticator: Option<String>,
    pub(super) authenticator_config: Option<String>,
    pub(super) flow_alias: Option<String>,
    pub(super) requirement: Option<String>,
}

/// An action that people may have to take at a log-in.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct RequiredAction {
    /// Its name, such as `UPDATE_PASSWORD`.
    pub alias: String,
    /// Is it switched on?
    pub enabled: bool,
    /// Settings.
    pub config: Option<BTreeMap<String, Option<String>>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Flow {
    pub(super) alias: String,
    pub(super) authentication_executions: Vec<Execution>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct ExecutionConfig {
    pub(super) alias: String,
    pub(super) config: BTreeMap<String, Option<String>>,
}

/// A component, such as a user storage provider, with its mappers below it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Component {
    /// Name.
    pub name: String,
    /// Kind, such as `ldap`.
    pub provider_id: String,
    /// Settings; each has a list of values.
    pub config: BTreeMap<String, Vec<String>>,
    /// Components below it, by provider type.
    pub sub_components: BTreeMap<String, Vec<Component>>,
}

impl Component {
    /// First value of a setting.
    #[must_use]
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.config
            .get(name)
            .and_then(|values| values.first())
            .map(String::as_str)
    }
}

/// What an identity provider's log-ins give an account.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProviderMapper {
    /// Name.
    pub name: String,
    /// Alias of the provider.
    pub identity_provider_alias: String,
    /// Settings.
    pub config: BTreeMap<String, Option<String>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Export {
    pub(super) realm: String,
    pub(super) default_role: Role,
    #[serde(default)]
    pub(super) keycloak_version: Option<String>,
    #[serde(default)]
    pub(super) roles: Roles,
    #[serde(default)]
    pub(super) groups: Vec<ExportedGroup>,
    #[serde(default)]
    pub(super) scope_mappings: Vec<ScopeMapping>,
    #[serde(default)]
    pub(super) client_scope_mappings: BTreeMap<String, Vec<ScopeMapping>>,
    #[serde(default)]
    pub(super) clients: Vec<Client>,
    #[serde(default)]
    pub(super) client_scopes: Vec<ClientScope>,
    #[serde(default)]
    pub(super) default_default_client_scopes: BTreeSet<String>,
    #[serde(default)]
    pub(super) events_enabled: bool,
    #[serde(default)]
    pub(super) events_expiration: Option<i64>,
    #[serde(default)]
    pub(super) events_listeners: BTreeSet<String>,
    #[serde(default)]
    pub(super) enabled_event_types: BTreeSet<String>,
    #[serde(default)]
    pub(super) admin_events_enabled: bool,
    #[serde(default)]
    pub(super) admin_events_details_enabled: Option<bool>,
    #[serde(default)]
    pub(super) attributes: BTreeMap<String, Option<String>>,
    #[serde(default)]
    pub(super) reset_credentials_flow: Option<String>,
    #[serde(default)]
    pub(super) password_policy: Option<String>,
    #[serde(default)]
    pub(super) required_actions: Vec<RequiredAction>,
    #[serde(default)]
    pub(super) action_token_generated_by_user_lifespan: Option<i64>,
    #[serde(default)]
    pub(super) action_token_generated_by_admin_lifespan: Option<i64>,
    #[serde(default)]
    pub(super) authentication_flows: Vec<Flow>,
    #[serde(default)]
    pub(super) authenticator_config: Vec<ExecutionConfig>,
    #[serde(default)]
    pub(super) components: BTreeMap<String, Vec<Component>>,
    #[serde(default)]
    pub(super) identity_provider_mappers: Vec<ProviderMapper>,
}
