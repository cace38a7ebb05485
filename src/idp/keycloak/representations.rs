//! What Keycloak's admin REST API sends and takes, as far as this adapter reads it.
//!
//! Objects that are read, changed and put back (users, clients, the realm) keep every member they
//! came with in `rest`: Keycloak has no PATCH, and a member left out of a PUT may be wiped.
//! Times are milliseconds since the Unix epoch unless a field says otherwise.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// Members of an object that this adapter does not read but must put back.
pub type Rest = Map<String, Value>;

/// Attributes of a user or a group: each name with its values.
pub type Attributes = BTreeMap<String, Vec<String>>;

/// Keycloak serialises absent map values as `null`; they carry no meaning here.
fn without_nulls<'de, D>(input: D) -> Result<BTreeMap<String, String>, D::Error>
where
    D: Deserializer<'de>,
{
    let map = Option::<BTreeMap<String, Value>>::deserialize(input)?.unwrap_or_default();
    let text = |value| match value {
        Value::Null => None,
        Value::String(text) => Some(text),
        other => Some(other.to_string()),
    };
    Ok(map
        .into_iter()
        .filter_map(|(name, value)| Some((name, text(value)?)))
        .collect())
}

/// An instant that Keycloak writes as `-1`, or not at all, when it does not know it.
fn known_instant<'de, D>(input: D) -> Result<Option<i64>, D::Error>
where
    D: Deserializer<'de>,
{
    Ok(Option::<i64>::deserialize(input)?.filter(|at| *at > 0))
}

/// A list or map that Keycloak may send as `null`.
fn or_default<'de, D, T>(input: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(input)?.unwrap_or_default())
}

/// A user event (`GET /events`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Unique id; absent before Keycloak 26.2.
    #[serde(default)]
    pub id: Option<String>,
    /// Wall clock of the node when the event was raised, before its transaction committed.
    pub time: i64,
    /// Event type, such as `UPDATE_CREDENTIAL`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Id of the realm (not its name).
    #[serde(default)]
    pub realm_id: Option<String>,
    /// The client through which it happened.
    #[serde(default)]
    pub client_id: Option<String>,
    /// The user it happened to.
    #[serde(default)]
    pub user_id: Option<String>,
    /// The user session; empty on every required-action event.
    #[serde(default)]
    pub session_id: Option<String>,
    /// Address of the browser.
    #[serde(default)]
    pub ip_address: Option<String>,
    /// Error code; present on `…_ERROR` events.
    #[serde(default)]
    pub error: Option<String>,
    /// Further members, such as `code_id` and `credential_type`.
    #[serde(default, deserialize_with = "without_nulls")]
    pub details: BTreeMap<String, String>,
}

/// Who did what an [`AdminEvent`] tells.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthDetails {
    /// Realm of the actor.
    #[serde(default)]
    pub realm_id: Option<String>,
    /// Internal id (UUID) of the client the actor used.
    #[serde(default)]
    pub client_id: Option<String>,
    /// The actor.
    #[serde(default)]
    pub user_id: Option<String>,
    /// Address of the actor.
    #[serde(default)]
    pub ip_address: Option<String>,
}

/// An admin event (`GET /admin-events`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AdminEvent {
    /// Unique id; absent before Keycloak 26.2.
    #[serde(default)]
    pub id: Option<String>,
    /// Wall clock of the node when the event was raised.
    pub time: i64,
    /// Id of the realm that was changed.
    #[serde(default)]
    pub realm_id: Option<String>,
    /// The actor.
    #[serde(default, deserialize_with = "or_default")]
    pub auth_details: AuthDetails,
    /// `CREATE`, `UPDATE`, `DELETE` or `ACTION`.
    pub operation_type: String,
    /// Such as `USER`, `REALM_ROLE_MAPPING`, `GROUP_MEMBERSHIP`.
    #[serde(default)]
    pub resource_type: Option<String>,
    /// Path relative to the realm, such as `users/{id}/reset-password`.
    #[serde(default)]
    pub resource_path: Option<String>,
    /// JSON text of what was sent; only with admin event details on.
    #[serde(default)]
    pub representation: Option<String>,
    /// Error code of a failed call.
    #[serde(default)]
    pub error: Option<String>,
    /// Further members; what they hold depends on the version.
    #[serde(default, deserialize_with = "without_nulls")]
    pub details: BTreeMap<String, String>,
}

/// What the realm records (`/events/config`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventsConfig {
    /// Are user events stored?
    #[serde(default)]
    pub events_enabled: bool,
    /// Seconds that user events are kept; absent or 0 = for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events_expiration: Option<i64>,
    /// Listeners, such as `jboss-logging`.
    #[serde(default, deserialize_with = "or_default")]
    pub events_listeners: Vec<String>,
    /// Types that are stored.
    #[serde(default, deserialize_with = "or_default")]
    pub enabled_event_types: Vec<String>,
    /// Are admin events stored?
    #[serde(default)]
    pub admin_events_enabled: bool,
    /// Do admin events carry the representation that was sent?
    #[serde(default)]
    pub admin_events_details_enabled: bool,
    /// Other members.
    #[serde(flatten)]
    pub rest: Rest,
}

/// A user. [`Rest`] keeps what is not named here, so that it can be put back whole.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// The user's id: `sub` of tokens, `userId` of events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Log-in name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// E-mail address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// Was the address verified?
    #[serde(default)]
    pub email_verified: bool,
    /// May the user log in?
    #[serde(default)]
    pub enabled: bool,
    /// When the account was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_timestamp: Option<i64>,
    /// Attributes by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<Attributes>,
    /// Required actions at the next log-in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required_actions: Option<Vec<String>>,
    /// Id of the user storage provider the account comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub federation_link: Option<String>,
    /// Other members.
    #[serde(flatten)]
    pub rest: Rest,
}

/// A credential of a user, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Credential {
    /// Id, by which it can be deleted; absent for credentials held by a user storage provider.
    #[serde(default)]
    pub id: Option<String>,
    /// `password`, `otp`, `webauthn`, `webauthn-passwordless`, `recovery-authn-codes` …
    #[serde(rename = "type")]
    pub kind: String,
    /// Name the user gave it.
    #[serde(default)]
    pub user_label: Option<String>,
    /// When it was set; unknown for credentials held by a user storage provider.
    #[serde(default, deserialize_with = "known_instant")]
    pub created_date: Option<i64>,
    /// JSON text of public data.
    #[serde(default)]
    pub credential_data: Option<String>,
    /// User storage provider that holds it.
    #[serde(default)]
    pub federation_link: Option<String>,
}

impl Credential {
    /// Its id; for one that a user storage provider holds, the provider's and its type, which there is one of.
    #[must_use]
    pub fn name(&self) -> String {
        self.id.clone().unwrap_or_else(|| {
            let provider = self.federation_link.as_deref().unwrap_or_default();
            format!("{STORED}{}:{provider}", self.kind)
        })
    }
}

/// Prefix of the name of a credential that has no id.
const STORED: &str = "stored:";

/// A realm or client role.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Role {
    /// Id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Name, unique in its container.
    pub name: String,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Does it have children?
    #[serde(default)]
    pub composite: bool,
    /// Is it a client's role?
    #[serde(default)]
    pub client_role: bool,
    /// Id of the realm or of the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
}

/// A client with the roles mapped in it (`clientMappings`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientMappings {
    /// Internal id (UUID) of the client.
    pub id: String,
    /// Its `client_id`.
    pub client: String,
    /// Roles of that client.
    #[serde(default, deserialize_with = "or_default")]
    pub mappings: Vec<Role>,
}

/// All roles mapped directly to a user, a group or a client scope (`…/role-mappings`, `…/scope-mappings`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mappings {
    /// Realm roles.
    #[serde(default, deserialize_with = "or_default")]
    pub realm_mappings: Vec<Role>,
    /// Client roles, by `client_id`.
    #[serde(default, deserialize_with = "or_default")]
    pub client_mappings: BTreeMap<String, ClientMappings>,
}

/// A group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    /// Id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Last segment of the path.
    #[serde(default)]
    pub name: String,
    /// Path from the root, such as `/reentry/hold.read`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Attributes by name.
    #[serde(default, deserialize_with = "or_default")]
    pub attributes: Attributes,
    /// Number of children.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub_group_count: Option<i64>,
    /// Children, where asked for.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub sub_groups: Vec<Group>,
}

/// A user session; `start` and `last_access` have whole seconds only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// Id: `sid` of tokens, `sessionId` of events.
    pub id: String,
    /// The user.
    #[serde(default)]
    pub user_id: Option<String>,
    /// Address of the browser.
    #[serde(default)]
    pub ip_address: Option<String>,
    /// When it began.
    #[serde(default)]
    pub start: i64,
    /// When it was last used.
    #[serde(default)]
    pub last_access: i64,
    /// Clients in it: internal id (UUID) → `client_id`.
    #[serde(default, deserialize_with = "without_nulls")]
    pub clients: BTreeMap<String, String>,
}

/// A link to an upstream identity provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FederatedIdentity {
    /// Alias of the identity provider.
    pub identity_provider: String,
    /// The user's id there.
    #[serde(default)]
    pub user_id: Option<String>,
    /// The user's name there.
    #[serde(default)]
    pub user_name: Option<String>,
}

/// A grant beside consented scopes: an offline token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AdditionalGrant {
    /// Internal id (UUID) of the client.
    #[serde(default)]
    pub client: Option<String>,
    /// `Offline Token`.
    #[serde(default)]
    pub key: Option<String>,
}

/// What a user granted to a client (`…/consents`). It is how an account without `view-clients`
/// learns at which clients a user has offline sessions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Consent {
    /// `client_id` of the client.
    pub client_id: String,
    /// Names of the consented scopes.
    #[serde(default, deserialize_with = "or_default")]
    pub granted_client_scopes: Vec<String>,
    /// Offline tokens.
    #[serde(default, deserialize_with = "or_default")]
    pub additional_grants: Vec<AdditionalGrant>,
}

/// A client.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Client {
    /// Internal id (UUID).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The `client_id`.
    pub client_id: String,
    /// `openid-connect` or `saml`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Is the client switched on?
    #[serde(default)]
    pub enabled: bool,
    /// Does it get no tokens itself?
    #[serde(default)]
    pub bearer_only: bool,
    /// Attributes by name.
    #[serde(default, deserialize_with = "without_nulls")]
    pub attributes: BTreeMap<String, String>,
    /// Other members.
    #[serde(flatten)]
    pub rest: Rest,
}

/// A protocol mapper of a client or a client scope.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProtocolMapper {
    /// Id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Name, unique in its container.
    pub name: String,
    /// `openid-connect`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Kind of mapper, such as `oidc-hardcoded-claim-mapper`.
    pub protocol_mapper: String,
    /// Settings of the mapper.
    #[serde(default, deserialize_with = "without_nulls")]
    pub config: BTreeMap<String, String>,
}

/// A client scope.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientScope {
    /// Id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Name: the word in `scope`.
    pub name: String,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// `openid-connect` or `saml`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Attributes by name.
    #[serde(default, deserialize_with = "without_nulls")]
    pub attributes: BTreeMap<String, String>,
    /// Its mappers.
    #[serde(default, deserialize_with = "or_default")]
    pub protocol_mappers: Vec<ProtocolMapper>,
}

/// A realm. Only an account with `view-realm` gets more than the name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Realm {
    /// Id (not always the name).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Name.
    pub realm: String,
    /// The composite that every user gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_role: Option<Role>,
    /// Alias of the flow of "Forgot password?".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset_credentials_flow: Option<String>,
    /// Seconds that an access token lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_token_lifespan: Option<i64>,
    /// Attributes by name, `adminEventsExpiration` (seconds) among them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<BTreeMap<String, Value>>,
    /// Other members.
    #[serde(flatten)]
    pub rest: Rest,
}

/// Version and capabilities of the server (`/admin/serverinfo`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerInfo {
    /// Version and more; hidden from accounts without the right to see it.
    #[serde(default)]
    pub system_info: Option<SystemInfo>,
    /// Enumerations of the server, `eventType` among them.
    #[serde(default, deserialize_with = "or_default")]
    pub enums: BTreeMap<String, Vec<String>>,
}

/// The part of [`ServerInfo`] that names the version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemInfo {
    /// Such as `26.7.4`.
    #[serde(default)]
    pub version: Option<String>,
}
